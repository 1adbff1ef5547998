//! Every rule of the engine over a real image; certificates are read by the `ssh-key` library. OpenSSH itself judges
//! them in the black-box tests.

use super::Ssh;
use crate::fixture::{World, holds};
use ringfence_base::Code;
use ringfence_logical::{Operation, Principal};
use serde_json::{Value, json};
use ssh_key::certificate::{CertType, Certificate};

const USER_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti user@example.com";

fn ready(role: Value) -> World {
    let mut w = World::new(Ssh);
    w.post("config/ca", json!({"key_type": "ed25519"}));
    let mut whole = json!({"key_type": "ca", "allow_user_certificates": true, "allowed_users": "ubuntu,admin", "default_user": "ubuntu"});
    whole.as_object_mut().unwrap().extend(role.as_object().unwrap().clone());
    w.post("roles/r", whole);
    w
}

fn sign(w: &mut World, body: Value) -> Certificate {
    let mut whole = json!({"public_key": USER_KEY});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let answer = w.post("sign/r", whole);
    let line = answer.data["signed_key"].as_str().unwrap();
    assert!(line.ends_with('\n'));
    let certificate = Certificate::from_openssh(line.trim()).unwrap();
    assert_eq!(format!("{:x}", certificate.serial()), answer.data["serial_number"].as_str().unwrap());
    certificate
}

fn refused(w: &mut World, body: Value) -> String {
    let mut whole = json!({"public_key": USER_KEY});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let (code, text) = w.refused(Operation::Update, "sign/r", whole);
    assert_eq!(code, Code::Invalid);
    text
}

#[test]
fn a_certificate_says_what_role_and_caller_say() {
    let mut w = ready(
        json!({"ttl": "1h", "default_extensions": {"permit-pty": ""}, "default_critical_options": {"force-command": "ls"}}),
    );
    w.principal = Some(Principal { display_name: "token-bob".into(), ..Principal::default() });
    let c = sign(&mut w, json!({}));
    let now = w.now.seconds();
    assert_eq!(c.cert_type(), CertType::User);
    assert_eq!(c.valid_principals(), ["ubuntu"]);
    assert_eq!((c.valid_after(), c.valid_before()), (now - 30, now + 3600));
    assert!(c.key_id().starts_with("vault-token-bob-") && c.key_id().len() == "vault-token-bob-".len() + 64);
    assert_eq!(c.extensions().iter().collect::<Vec<_>>(), [(&"permit-pty".to_owned(), &String::new())]);
    assert_eq!(c.critical_options().get("force-command").map(String::as_str), Some("ls"));
    let ca =
        ssh_key::PublicKey::from_openssh(w.get("config/ca").data["public_key"].as_str().unwrap().trim()).unwrap();
    assert_eq!(c.signature_key(), ca.key_data());
    let public = w.get("public_key").response.unwrap().raw.unwrap();
    assert_eq!(public.content_type, "text/plain");
    assert!(String::from_utf8(public.body).unwrap().starts_with("ssh-ed25519 "));
    let c = sign(&mut w, json!({"valid_principals": "admin, ubuntu", "ttl": "5m"}));
    assert_eq!(c.valid_principals(), ["admin", "ubuntu"]);
    assert_eq!(c.valid_before(), w.now.seconds() + 300);
}

#[test]
fn every_kind_of_ca_signs_every_kind_of_key() {
    for (kind, bits) in [("ed25519", 0), ("ec", 256), ("ec", 384), ("ec", 521), ("rsa", 2048)] {
        let mut w = World::new(Ssh);
        let made = w.post("config/ca", json!({"key_type": kind, "key_bits": bits}));
        assert!(made.data["public_key"].as_str().unwrap().ends_with('\n'));
        w.post("roles/r", json!({"key_type": "ca", "allow_user_certificates": true, "default_user": "u", "algorithm_signer": "rsa-sha2-512"}));
        let c = sign(&mut w, json!({}));
        if kind == "rsa" {
            assert_eq!(c.signature().algorithm().to_string(), "rsa-sha2-512");
        }
        for issued in ["ed25519", "ec", "rsa"] {
            let bits = if issued == "rsa" { 2048 } else { 0 };
            let answer = w.post("issue/r", json!({"key_type": issued, "key_bits": bits}));
            assert!(answer.data["private_key"].as_str().unwrap().contains("PRIVATE KEY-----"));
            assert_eq!(answer.data["private_key_type"], issued);
            Certificate::from_openssh(answer.data["signed_key"].as_str().unwrap().trim()).unwrap();
        }
        let (_, text) = w.refused(Operation::Update, "config/ca", json!({}));
        assert_eq!(text, "keys are already configured; delete them before reconfiguring");
        assert!(!holds(&w.image_bytes(), "pkcs8"));
    }
}

#[test]
fn a_ca_is_brought_in() {
    let mut w = ready(json!({}));
    let made = w.post("issue/r", json!({"key_type": "ed25519"}));
    let private = made.data["private_key"].as_str().unwrap().to_owned();
    let certificate = Certificate::from_openssh(made.data["signed_key"].as_str().unwrap().trim()).unwrap();
    let public = ssh_key::PublicKey::from(certificate.public_key().clone()).to_openssh().unwrap();
    w.delete("config/ca");
    assert_eq!(w.refused(Operation::Read, "config/ca", Value::Null).1, "keys haven't been configured yet");
    assert_eq!(w.get("public_key").code, Code::NoContent);
    for (body, told) in [
        (json!({"private_key": "junk", "public_key": public}), "unable to parse private key"),
        (json!({"private_key": private, "public_key": USER_KEY}), "public_key does not belong to private_key"),
        (
            json!({"private_key": private}),
            "only one of public_key and private_key set; both must be set to use, or both must be blank to auto-generate",
        ),
        (
            json!({"private_key": private, "public_key": public, "generate_signing_key": true}),
            "public_key and private_key must not be set when generate_signing_key is set to true",
        ),
        (json!({"key_type": "x"}), "unknown ssh key type: x"),
        (json!({"key_type": "rsa", "key_bits": 1024}), "unsupported key_bits 1024 for key_type rsa"),
    ] {
        assert_eq!(w.refused(Operation::Update, "config/ca", body), (Code::Invalid, told.into()));
    }
    assert_eq!(w.post("config/ca", json!({"private_key": private, "public_key": public})).code, Code::NoContent);
    sign(&mut w, json!({}));
}

#[test]
fn rules_of_roles() {
    let mut w = ready(
        json!({"max_ttl": "1h", "allowed_critical_options": "force-command", "allowed_extensions": "permit-pty"}),
    );
    for (body, told) in [
        (json!({"public_key": ""}), "missing public_key"),
        (json!({"valid_principals": "root"}), "root is not a valid value for valid_principals"),
        (json!({"cert_type": "host"}), "cert_type 'host' is not allowed by role"),
        (json!({"cert_type": "x"}), "cert_type must be either 'user' or 'host'"),
        (json!({"ttl": "2h"}), "ttl is larger than maximum allowed 3600"),
        (json!({"key_id": "x"}), "setting key_id is not allowed by role"),
        (
            json!({"critical_options": {"source-address": "1.2.3.4"}}),
            "critical options not on allowed list: [source-address]",
        ),
        (json!({"extensions": {"permit-x": "", "permit-pty": ""}}), "extensions [permit-x] are not on allowed list"),
    ] {
        assert_eq!(refused(&mut w, body), told);
    }
    assert!(
        refused(&mut w, json!({"public_key": "ssh-rsa junk"})).starts_with("failed to parse public_key as SSH key: ")
    );
    assert_eq!(w.refused(Operation::Update, "sign/none", json!({})).1, "Unknown role: none");
    assert_eq!(sign(&mut w, json!({"extensions": {"permit-pty": ""}})).extensions().len(), 1);
    let mut w = ready(json!({"default_user": "", "allowed_users": ""}));
    assert_eq!(refused(&mut w, json!({})), super::sign::EVERYBODY);
    assert_eq!(refused(&mut w, json!({"valid_principals": "x"})), "role is not configured to allow any principals");
    let mut w = ready(
        json!({"default_user": "", "allow_empty_principals": true, "allow_user_key_ids": true, "allowed_users": "*"}),
    );
    let c = sign(&mut w, json!({"key_id": "mine"}));
    assert!(c.valid_principals().is_empty());
    assert_eq!(c.key_id(), "mine");
    let mut w = ready(
        json!({"allow_host_certificates": true, "allowed_domains": "example.com", "allow_subdomains": true, "key_id_format": "{{role_name}}/{{token_display_name}}"}),
    );
    let c = sign(&mut w, json!({"cert_type": "host", "valid_principals": "a.example.com"}));
    assert_eq!((c.cert_type(), c.key_id()), (CertType::Host, "r/"));
    for bad in ["example.com", "aexample.com", ".example.com", "a.example.com.evil"] {
        let told = refused(&mut w, json!({"cert_type": "host", "valid_principals": bad}));
        assert_eq!(told, format!("{bad} is not a valid value for valid_principals"));
    }
    let mut w = ready(json!({"allowed_user_key_lengths": {"rsa": [2048, 4096]}}));
    assert_eq!(
        refused(&mut w, json!({})),
        "public_key failed to meet the key requirements: key type of ed25519 is not allowed"
    );
    w.post("issue/r", json!({"key_type": "rsa", "key_bits": 2048}));
    assert!(
        w.refused(Operation::Update, "issue/r", json!({"key_type": "rsa", "key_bits": 3072}))
            .1
            .ends_with("key is of an invalid size: 3072")
    );
    for (body, told) in [
        (json!({}), "missing key type"),
        (json!({"key_type": "x"}), "invalid key type"),
        (json!({"key_type": "dynamic"}), "dynamic key type roles are no longer supported"),
        (json!({"key_type": "otp"}), "missing default user"),
        (
            json!({"key_type": "otp", "default_user": "u", "cidr_list": "x"}),
            "failed to validate cidr_list: invalid CIDR address: x",
        ),
        (
            json!({"key_type": "ca"}),
            "Either 'allow_user_certificates' or 'allow_host_certificates' must be set to 'true'",
        ),
        (
            json!({"key_type": "ca", "allow_user_certificates": true, "algorithm_signer": "x"}),
            "unknown algorithm signer \"x\"",
        ),
    ] {
        assert_eq!(w.refused(Operation::Update, "roles/n", body), (Code::Invalid, told.into()));
    }
    let shown = w.get("roles/r").data;
    assert_eq!(
        (&shown["ttl"], &shown["not_before_duration"], &shown["allowed_users"]),
        (&json!(0), &json!(30), &json!("ubuntu,admin"))
    );
    assert_eq!(w.list("roles").data, json!({"keys": ["r"], "key_info": {"r": {"key_type": "ca"}}}));
    w.delete("roles/r");
    assert_eq!(w.get("roles/r").code, Code::NotFound);
}

#[test]
fn one_time_passwords_are_good_once() {
    let mut w = World::new(Ssh);
    w.post("roles/o", json!({"key_type": "otp", "default_user": "u", "allowed_users": "v", "cidr_list": "10.0.0.0/8", "exclude_cidr_list": "10.9.0.0/16"}));
    let made = w.post("creds/o", json!({"ip": "10.1.2.3"}));
    let otp = made.data["key"].as_str().unwrap().to_owned();
    assert_eq!((&made.data["username"], &made.data["port"]), (&json!("u"), &json!(22)));
    let lease = made.response.unwrap().lease.unwrap();
    assert!(!lease.renewable && !serde_json::to_string(&lease.internal).unwrap().contains(&otp));
    assert!(!holds(&w.image_bytes(), &otp), "neither in a key nor in a value");
    assert_eq!(
        w.post("verify", json!({"otp": otp})).data,
        json!({"username": "u", "ip": "10.1.2.3", "role_name": "o"})
    );
    let told = |w: &mut World, path: &str, body: Value| w.refused(Operation::Update, path, body).1;
    assert_eq!(told(&mut w, "verify", json!({"otp": otp})), "OTP not found");
    assert_eq!(
        w.post("verify", json!({"otp": "verify-echo-request"})).data,
        json!({"message": "verify-echo-response"})
    );
    let again = w.post("creds/o", json!({"ip": "10.1.2.3", "username": "v"}));
    let terms = again.response.unwrap().lease.unwrap();
    let lease = ringfence_logical::Lease {
        secret: terms.secret.into(),
        internal: terms.internal,
        path: "creds/o".into(),
        increment: 0,
    };
    w.with_engine(|e, cx| e.revoke(cx, &lease)).unwrap();
    w.with_engine(|e, cx| e.revoke(cx, &lease)).unwrap();
    assert_eq!(told(&mut w, "verify", json!({"otp": again.data["key"]})), "OTP not found");
    for (path, body, text) in [
        ("creds/o", json!({}), "Missing ip"),
        ("creds/o", json!({"ip": "x"}), "Invalid IP \"x\""),
        ("creds/none", json!({"ip": "10.1.2.3"}), "Role \"none\" not found"),
        ("creds/o", json!({"ip": "11.1.2.3"}), "Error validating IP: IP does not belong to role"),
        ("creds/o", json!({"ip": "10.9.2.3"}), "Error validating IP: IP does not belong to role"),
        ("creds/o", json!({"ip": "10.1.2.3", "username": "w"}), "Username is not present is allowed users list"),
        ("config/zeroaddress", json!({"roles": "none"}), "Role \"none\" does not exist"),
    ] {
        assert_eq!(told(&mut w, path, body), text);
    }
    assert_eq!(w.post("lookup", json!({"ip": "10.1.2.3"})).data, json!({"roles": ["o"]}));
    assert_eq!(w.post("lookup", json!({"ip": "11.1.2.3"})).data, json!({"roles": []}));
    w.post("roles/z", json!({"key_type": "otp", "default_user": "u"}));
    w.post("config/zeroaddress", json!({"roles": "z"}));
    assert_eq!(w.get("config/zeroaddress").data, json!({"roles": ["z"]}));
    w.post("creds/z", json!({"ip": "11.1.2.3"}));
    w.delete("config/zeroaddress");
    assert_eq!(told(&mut w, "creds/z", json!({"ip": "11.1.2.3"})), "Error validating IP: IP does not belong to role");
}

/// CVE-2024-7594: a user certificate without principals is good for every user, so none is signed unless the role says
/// so outright.
#[test]
fn cve_2024_7594_no_principals_is_not_all_of_them() {
    let mut w = ready(json!({"default_user": "", "allowed_users": "*"}));
    for body in [json!({}), json!({"valid_principals": ""}), json!({"valid_principals": ","})] {
        assert_eq!(refused(&mut w, body.clone()), super::sign::EVERYBODY, "{body}");
    }
}
