//! The engine through its own path table, over a real image and keyring.

use crate::Pki;
use crate::cert::{self, Certificate};
use crate::fixture::World;
use crate::pem;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::asn1::{Null, OctetString};
use der::{Decode, Encode};
use ringfence_base::Code;
use ringfence_logical::{Lease, Operation};
use rustls_pki_types::pem::SectionKind;
use serde_json::{Map, Value, json};
use x509_cert::crl::CertificateList;
use x509_cert::ext::pkix::{BasicConstraints, CertificatePolicies, KeyUsage, NameConstraints, SubjectAltName};
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspRequest, OcspResponse, OcspResponseStatus, Request, TbsRequest,
};

fn world() -> World {
    World::new(Pki)
}

/// A world with an EC root, which is quick to make, and a role.
fn ready() -> World {
    let mut w = world();
    w.post("root/generate/internal", json!({"common_name": "Root", "key_type": "ec", "ttl": "700h"}));
    w.post(
        "roles/web",
        json!({"allowed_domains": "example.com", "allow_subdomains": true, "key_type": "ec", "max_ttl": "72h"}),
    );
    w
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_else(|| panic!("text, not {v}")).to_owned()
}

fn parse(v: &Value) -> Certificate {
    cert::parse(&pem::first(&text(v), SectionKind::Certificate).unwrap()).unwrap()
}

fn raw(w: &mut World, path: &str) -> (String, Vec<u8>) {
    let raw = w.get(path).response.unwrap().raw.unwrap();
    (raw.content_type, raw.body)
}

fn crl(w: &mut World) -> CertificateList {
    CertificateList::from_der(&raw(w, "crl").1).unwrap()
}

fn revoked(list: &CertificateList) -> Vec<String> {
    let entries = list.tbs_cert_list.revoked_certificates.iter().flatten();
    entries.map(|r| cert::serial_text(&r.serial_number)).collect()
}

#[test]
fn root_intermediate_role_leaf() {
    for kind in ["ec", "ed25519", "ml-dsa", "rsa"] {
        let mut root = world();
        let made =
            root.post("root/generate/internal", json!({"common_name": "Root", "key_type": kind, "ttl": "87600h"}));
        let warnings = made.response.unwrap().warnings;
        assert!(
            warnings
                .iter()
                .any(|w| w
                    == "TTL \"87600h0m0s\" is longer than permitted maxTTL \"768h0m0s\", so maxTTL is being used"),
            "{warnings:?}"
        );
        assert!(!text(&made.data["certificate"]).ends_with('\n'));
        let ca = parse(&made.data["certificate"]);
        assert!(cert::is_ca(&ca) && cert::signed_by(&ca, &ca));

        let mut int = world();
        let request = int.post("intermediate/generate/internal", json!({"common_name": "Int", "key_type": kind}));
        let csr = text(&request.data["csr"]);
        let signed = root.post("root/sign-intermediate", json!({"csr": csr, "format": "pem_bundle", "ttl": "100h"}));
        let bundle = text(&signed.data["certificate"]);
        assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 2);
        let set = int.post("intermediate/set-signed", json!({"certificate": bundle}));
        let imported = set.data["imported_issuers"].as_array().unwrap().clone();
        assert_eq!(imported.len(), 2);
        assert_eq!(set.data["mapping"][text(&imported[0])], request.data["key_id"]);
        assert_eq!(set.data["mapping"][text(&imported[1])], "");
        let default = int.get("config/issuers");
        assert_eq!(default.data["default"], imported[0]);

        int.post("roles/web-server", json!({"allowed_domains": "example.com", "allow_subdomains": "true", "max_ttl": "2160h", "key_type": kind}));
        let leaf = int.post("issue/web-server", json!({"common_name": "app.example.com", "ttl": "24h"}));
        let chain = leaf.data["ca_chain"].as_array().unwrap().clone();
        assert_eq!(chain.len(), 2);
        let (c, i) = (parse(&leaf.data["certificate"]), parse(&chain[0]));
        assert_eq!(cert::common_name(&i.tbs_certificate.subject), "Int", "the request's, where none is given");
        assert!(cert::signed_by(&c, &i) && cert::signed_by(&i, &ca) && !cert::is_ca(&c));
        assert_eq!(leaf.data["private_key_type"], kind);
        assert_eq!(leaf.data["serial_number"], cert::serial_text(&c.tbs_certificate.serial_number));
        let sans: SubjectAltName = cert::find(c.tbs_certificate.extensions.as_ref()).unwrap();
        assert_eq!(sans.0, [cert::dns("app.example.com").unwrap()]);
        let again = int.get(&format!("cert/{}", text(&leaf.data["serial_number"]).replace(':', "-")));
        assert_eq!(again.data["certificate"], leaf.data["certificate"]);
        assert_eq!(again.data["revocation_time"], 0);
        // again: the same ids, nothing new
        let twice = int.post("intermediate/set-signed", json!({"certificate": bundle}));
        assert_eq!(
            (&twice.data["imported_issuers"], &twice.data["existing_issuers"]),
            (&Value::Null, &json!(imported))
        );
    }
}

#[test]
fn a_role_has_every_default() {
    let mut w = world();
    let made = w.post("roles/plain", json!({}));
    assert!(!made.response.unwrap().warnings.is_empty(), "no issuer yet");
    let shown = w.get("roles/plain").data;
    for (name, value) in [
        ("issuer_ref", json!("default")),
        ("ttl", json!(0)),
        ("allow_localhost", json!(true)),
        ("allow_ip_sans", json!(true)),
        ("allow_wildcard_certificates", json!(true)),
        ("key_type", json!("rsa")),
        ("key_bits", json!(2048)),
        ("signature_bits", json!(256)),
        ("key_usage", json!(["DigitalSignature", "KeyAgreement", "KeyEncipherment"])),
        ("cn_validations", json!(["email", "hostname"])),
        ("not_before_duration", json!(30)),
        ("require_cn", json!(true)),
        ("no_store", json!(false)),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    w.patch("roles/plain", json!({"ttl": "1h"}));
    w.patch("roles/plain", json!({"key_type": "ec"}));
    let shown = w.get("roles/plain").data;
    assert_eq!((&shown["ttl"], &shown["key_bits"]), (&json!(3600), &json!(256)));
    assert_eq!(w.list("roles").data, json!({"keys": ["plain"]}));
    assert_eq!(w.delete("roles/plain").code, Code::NoContent);
    assert_eq!(w.get("roles/plain").code, Code::NotFound);
}

#[test]
fn refusals_word_for_word() {
    let mut w = ready();
    w.post(
        "roles/named",
        json!({"allow_any_name": true, "allow_ip_sans": false, "key_type": "ec", "allowed_serial_numbers": "a*"}),
    );
    w.post("roles/any", json!({"key_type": "any"}));
    let before = w.records();
    for (path, body, wanted) in [
        ("issue/none", json!({}), "unknown role: none"),
        ("issue/web", json!({"common_name": "example.com"}), "common name example.com not allowed by this role"),
        (
            "issue/web",
            json!({"common_name": "a.example.com", "alt_names": "b.org"}),
            "subject alternate name b.org not allowed by this role",
        ),
        (
            "issue/web",
            json!({"common_name": "a.example.com", "alt_names": "me@b.org"}),
            "email address me@b.org not allowed by this role",
        ),
        (
            "issue/web",
            json!({}),
            "the common_name field is required, or must be provided in a CSR with \"use_csr_common_name\" set to true, unless \"require_cn\" is set to false",
        ),
        (
            "issue/web",
            json!({"common_name": "a.example.com", "ip_sans": "x"}),
            "the value \"x\" is not a valid IP address",
        ),
        (
            "issue/web",
            json!({"common_name": "a.example.com", "uri_sans": "spiffe://a"}),
            "URI Subject Alternative Names are not allowed in this role, but were provided via the API",
        ),
        (
            "issue/web",
            json!({"common_name": "a.example.com", "other_sans": "1.2.3.4;UTF8:x"}),
            "other SAN OID 1.2.3.4 not allowed by this role",
        ),
        (
            "issue/web",
            json!({"common_name": "a.example.com", "serial_number": "7"}),
            "serial_number 7 not allowed by this role",
        ),
        (
            "issue/web",
            json!({"common_name": "a.example.com", "user_ids": "me"}),
            "user_id me is not allowed by this role",
        ),
        (
            "issue/web",
            json!({"common_name": "a.example.com", "ttl": "1h", "not_after": "2030-01-01T00:00:00Z"}),
            "Either ttl or not_after should be provided. Both should not be provided in the same request.",
        ),
        (
            "issue/web",
            json!({"common_name": "a.example.com", "format": "xml"}),
            "the \"format\" path parameter must be \"pem\", \"der\", or \"pem_bundle\"",
        ),
        (
            "issue/named",
            json!({"common_name": "a", "ip_sans": "10.0.0.1"}),
            "IP Subject Alternative Names are not allowed in this role, but was provided [10.0.0.1]",
        ),
        (
            "issue/any",
            json!({"common_name": "a"}),
            "role key type \"any\" not allowed for issuing certificates, only signing",
        ),
        ("sign/web", json!({}), "\"csr\" is empty"),
        ("sign/web", json!({"csr": "hello"}), "csr contains no data"),
        ("roles/bad", json!({"ttl": "2h", "max_ttl": "1h"}), "\"ttl\" value must be less than \"max_ttl\" value"),
        (
            "root/generate/internal",
            json!({"key_type": "ec", "issuer_name": "default"}),
            "reserved keyword 'default' can not be used as issuer name",
        ),
        (
            "root/generate/internal",
            json!({"key_type": "ec", "issuer_name": "a b"}),
            "issuer name contained invalid characters",
        ),
        ("issuers/import/bundle", json!({}), "'pem_bundle' and 'certificate' parameters were empty"),
        (
            "issuers/import/bundle",
            json!({"pem_bundle": "/tmp/x.pem"}),
            "provided data for import was too short; perhaps a path was passed to the API rather than the contents of a PEM file",
        ),
        ("revoke", json!({}), "The serial number or certificate to revoke must be provided."),
        (
            "revoke",
            json!({"serial_number": "01", "certificate": "x"}),
            "Must provide either the certificate or the serial to revoke; not both.",
        ),
        ("revoke", json!({"serial_number": "AB-CD"}), "certificate with serial ab:cd not found."),
        (
            "config/issuers",
            json!({"default": "default"}),
            "Invalid issuer specification; must be non-empty and can't be 'default'.",
        ),
        (
            "config/urls",
            json!({"issuing_certificates": "x"}),
            "invalid URL found in Authority Information Access (AIA) parameter issuing_certificates: x",
        ),
        (
            "config/crl",
            json!({"enable_delta": true}),
            "Delta CRLs cannot be enabled when auto rebuilding is disabled as the complete CRL is always regenerated!",
        ),
        (
            "config/crl",
            json!({"auto_rebuild": true, "expiry": "1h"}),
            "CRL auto-rebuilding grace period (12h) must be strictly shorter than CRL expiry (1h) value when auto-rebuilding of CRLs is enabled",
        ),
        (
            "config/auto-tidy",
            json!({"interval_duration": 0}),
            "given interval_duration must be greater than or equal to one second; got 0",
        ),
        (
            "issuer/nobody/issue/web",
            json!({"common_name": "a.example.com"}),
            "unable to resolve issuer id for reference: nobody",
        ),
    ] {
        assert_eq!(w.refused(Operation::Update, path, body), (Code::Invalid, wanted.to_owned()), "{path}");
    }
    assert_eq!(w.records(), before, "a refusal changes nothing");
    let mut empty = world();
    empty.post("roles/web", json!({"allow_any_name": true, "key_type": "ec"}));
    let (code, why) = empty.refused(Operation::Update, "issue/web", json!({"common_name": "a"}));
    assert!(code == Code::Internal && why.contains("no default issuer currently configured"), "{why}");
    for path in ["ca", "ca/pem", "ca_chain", "crl", "crl/pem", "cert/ca/raw"] {
        let answer = empty.get(path);
        assert_eq!(answer.code, Code::NoContent, "{path}");
    }
}

#[test]
fn everything_a_leaf_may_say() {
    let mut w = world();
    w.post(
        "config/urls",
        json!({
            "issuing_certificates": "http://{{cluster_aia_path}}", "enable_templating": true,
        }),
    );
    w.post(
        "config/urls",
        json!({
            "issuing_certificates": "{{cluster_aia_path}}/issuer/{{issuer_id}}/der",
            "crl_distribution_points": "http://crl.example.com/crl", "ocsp_servers": "http://ocsp.example.com",
        }),
    );
    w.post(
        "config/cluster",
        json!({"path": "https://v.example.com/v1/pki", "aia_path": "http://v.example.com/v1/pki"}),
    );
    let root = w.post(
        "root/generate/internal",
        json!({
            "common_name": "Root", "key_type": "ec", "key_bits": 384, "permitted_dns_domains": "example.com",
            "excluded_ip_ranges": "192.168.0.0/16", "max_path_length": 3, "organization": "Acme", "country": "DE",
        }),
    );
    let c = parse(&root.data["certificate"]);
    let e = c.tbs_certificate.extensions.as_ref();
    assert!(cert::find::<NameConstraints>(e).unwrap().excluded_subtrees.is_some());
    assert_eq!(cert::find::<BasicConstraints>(e).unwrap().path_len_constraint, Some(3));
    w.post("roles/full", json!({
        "allow_any_name": true, "enforce_hostnames": false, "key_type": "ed25519", "ou": "a,b", "organization": "Ä GmbH",
        "allowed_uri_sans": "spiffe://*", "allowed_other_sans": "1.3.6.1.4.1.311.20.2.3;utf8:*@example.com",
        "allowed_serial_numbers": "*", "allowed_user_ids": "*", "allowed_ip_sans_cidr": "10.0.0.0/8",
        "policy_identifiers": [{"oid": "1.2.3.4.5", "cps": "https://cps", "notice": "hear"}],
        "ext_key_usage": "TimeStamping", "ext_key_usage_oids": "1.2.3.4", "basic_constraints_valid_for_non_ca": true,
    }));
    let body = json!({
        "common_name": "*.example.com", "alt_names": "me@example.com,b.example.com", "ip_sans": "10.1.1.1",
        "uri_sans": "spiffe://x/y", "other_sans": "1.3.6.1.4.1.311.20.2.3;UTF8:me@example.com", "serial_number": "s1",
        "user_ids": "u1", "not_after": "2023-11-20T00:00:00Z",
    });
    let leaf = w.post("issue/full", body.clone());
    let c = parse(&leaf.data["certificate"]);
    let e = c.tbs_certificate.extensions.as_ref();
    assert_eq!(cert::find::<SubjectAltName>(e).unwrap().0.len(), 6);
    assert_eq!(cert::find::<CertificatePolicies>(e).unwrap().0[0].policy_qualifiers.as_ref().unwrap().len(), 2);
    assert_eq!(cert::find::<KeyUsage>(e).unwrap().0.bits().count_ones(), 3);
    assert_eq!(cert::serial_attribute(&c.tbs_certificate.subject), "s1");
    assert_eq!(cert::not_after(&c), 1_700_438_400);
    let shown = format!("{:?}", e);
    assert!(shown.len() > 100);
    let aia = leaf.data["certificate"].as_str().map(|t| pem::first(t, SectionKind::Certificate).unwrap()).unwrap();
    let wanted = format!("http://v.example.com/v1/pki/issuer/{}/der", text(&root.data["issuer_id"]));
    assert!(aia.windows(wanted.len()).any(|b| b == wanted.as_bytes()));
    let (_, why) = w.refused(Operation::Update, "issue/full", json!({"common_name": "a", "ip_sans": "11.1.1.1"}));
    assert!(why.contains("11.1.1.1"));
    let (_, why) = w.refused(Operation::Update, "issue/full", json!({"common_name": "a", "uri_sans": "https://x"}));
    assert_eq!(why, "URI Subject Alternative Names were provided via the API which are not valid for this role");
}

/// A request made by another mount with everything that a hostile client may put in.
fn csr(body: Value) -> String {
    let mut w = world();
    let mut body = body;
    body["key_type"] = json!("ec");
    body["add_basic_constraints"] = json!(true);
    text(&w.post("intermediate/generate/internal", body).data["csr"])
}

#[test]
fn ghsa_g892_what_comes_in_a_request_is_judged_like_json() {
    let mut w = ready();
    w.post("roles/tight", json!({
        "allowed_domains": "example.com", "allow_subdomains": true, "key_type": "ec", "allowed_ip_sans_cidr": "10.0.0.0/8",
        "max_ttl": "10h",
    }));
    let good = csr(json!({"common_name": "a.example.com", "alt_names": "b.example.com", "ip_sans": "10.0.0.1"}));
    let leaf = w.post("sign/tight", json!({"csr": good, "common_name": "ignored.org"}));
    assert_eq!(
        leaf.response.as_ref().unwrap().warnings[0],
        "the common_name field was provided but the role is set with \"use_csr_common_name\" set to true"
    );
    let c = parse(&leaf.data["certificate"]);
    assert!(!cert::is_ca(&c), "basic constraints of the request do not count");
    assert!(leaf.data.get("private_key").is_none());
    for (body, wanted) in [
        (json!({"common_name": "evil.org"}), "common name evil.org not allowed by this role"),
        (
            json!({"common_name": "a.example.com", "alt_names": "evil.org"}),
            "subject alternate name evil.org not allowed by this role",
        ),
        (
            json!({"common_name": "a.example.com", "alt_names": "me@evil.org"}),
            "email address me@evil.org not allowed by this role",
        ),
        (
            json!({"common_name": "a.example.com", "ip_sans": "11.0.0.1"}),
            "IP Subject Alternative Name 11.0.0.1 is not in any CIDR range allowed by this role",
        ),
        (
            json!({"common_name": "a.example.com", "uri_sans": "spiffe://x"}),
            "URI Subject Alternative Names are not allowed in this role, but were provided via the CSR",
        ),
        (
            json!({"common_name": "a.example.com", "other_sans": "1.2.3.4;UTF8:x"}),
            "other SAN OID 1.2.3.4 not allowed by this role",
        ),
        (json!({"common_name": "a.example.com", "serial_number": "x"}), "serial_number x not allowed by this role"),
    ] {
        assert_eq!(w.refused(Operation::Update, "sign/tight", json!({"csr": csr(body)})).1, wanted);
    }
    w.post("roles/rsa", json!({"allow_any_name": true}));
    assert_eq!(w.refused(Operation::Update, "sign/rsa", json!({"csr": good})).1, "role requires keys of type rsa");
    let verbatim = w.post("sign-verbatim", json!({"csr": csr(json!({"common_name": "any thing", "organization": "O", "ip_sans": "1.1.1.1"})), "ttl": "1h"}));
    let c = parse(&verbatim.data["certificate"]);
    assert_eq!(cert::common_name(&c.tbs_certificate.subject), "any thing");
    assert!(!cert::is_ca(&c));
    // a byte changed anywhere is no request any more
    let der = pem::first(&good, SectionKind::Csr).unwrap();
    for at in (0..der.len()).step_by(7) {
        let mut bad = der.clone();
        bad[at] ^= 0x55;
        let (code, _) =
            w.refused(Operation::Update, "sign/tight", json!({"csr": pem::encode("CERTIFICATE REQUEST", &bad)}));
        assert_eq!(code, Code::Invalid);
    }
}

#[test]
fn leaves_and_the_end_of_their_issuer() {
    let mut w = world();
    w.post("root/generate/internal", json!({"common_name": "Root", "key_type": "ec", "ttl": "10h"}));
    w.post("roles/web", json!({"allow_any_name": true, "key_type": "ec"}));
    let long = json!({"common_name": "a.b", "ttl": "20h"});
    let (_, why) = w.refused(Operation::Update, "issue/web", long.clone());
    assert!(why.starts_with("cannot satisfy request, as TTL would result in notAfter of 2023-11-15T"), "{why}");
    w.patch("issuer/default", json!({"leaf_not_after_behavior": "truncate"}));
    let root = parse(&w.get("issuer/default").data["certificate"]);
    assert_eq!(w.post("issue/web", long.clone()).data["expiration"], cert::not_after(&root));
    w.patch("issuer/default", json!({"leaf_not_after_behavior": "permit"}));
    assert!(w.post("issue/web", long).data["expiration"].as_u64().unwrap() > cert::not_after(&root));
}

#[test]
fn revocation_reaches_list_and_responder() {
    let mut w = ready();
    let empty = crl(&mut w);
    assert!(empty.tbs_cert_list.revoked_certificates.is_none());
    let leaf = w.post("issue/web", json!({"common_name": "a.example.com"}));
    let serial = text(&leaf.data["serial_number"]);
    let issuer = parse(&leaf.data["issuing_ca"]);
    assert!(matches!(ocsp(&mut w, &issuer, &serial), CertStatus::Good(_)));
    let first = w.post("revoke", json!({"serial_number": serial}));
    assert_eq!(first.data["state"], "revoked");
    assert_eq!(w.post("revoke", json!({"serial_number": serial.replace(':', "-")})).data, first.data);
    assert_eq!(revoked(&crl(&mut w)), std::slice::from_ref(&serial));
    assert!(matches!(ocsp(&mut w, &issuer, &serial), CertStatus::Revoked(_)));
    assert_eq!(w.get(&format!("cert/{serial}")).data["revocation_time"], first.data["revocation_time"]);
    assert_eq!(w.list("certs/revoked").data["keys"], json!([serial]));
    // by its key, without being stored
    w.patch("roles/web", json!({"no_store": true}));
    let leaf = w.post("issue/web", json!({"common_name": "b.example.com"}));
    let other = w.post("issue/web", json!({"common_name": "c.example.com"}));
    let body = |key: &Value| json!({"certificate": leaf.data["certificate"], "private_key": key});
    assert!(
        w.refused(Operation::Update, "revoke-with-key", body(&other.data["private_key"]))
            .1
            .contains("does not match")
    );
    w.post("revoke-with-key", body(&leaf.data["private_key"]));
    assert_eq!(revoked(&crl(&mut w)).len(), 2);
    // the root itself never
    let root = text(&w.get("cert/ca").data["certificate"]);
    assert!(
        w.refused(Operation::Update, "revoke", json!({"certificate": root}))
            .1
            .contains("to its own CRL is not allowed")
    );
    // expired: told, not listed
    let leaf = w.post("sign-verbatim", json!({"csr": csr(json!({"common_name": "x"})), "ttl": "1s"}));
    w.now = w.now.plus_seconds(3600);
    let late = w.post("revoke", json!({"serial_number": leaf.data["serial_number"]}));
    assert!(late.response.unwrap().warnings[0].contains("already expired; refusing to add to CRL"));
    assert_eq!(revoked(&crl(&mut w)).len(), 2);
    // an unchanged list is handed out as it is, and again after its time
    let (a, b) = (raw(&mut w, "crl").1, raw(&mut w, "crl").1);
    assert_eq!(a, b);
    assert_eq!(w.writes, 0);
    w.now = w.now.plus_seconds(80 * 3600);
    assert_ne!(raw(&mut w, "crl").1, a);
    assert_eq!(raw(&mut w, "crl/pem").0, "application/x-pem-file");
}

fn ocsp_request(issuer: &Certificate, serial: &str) -> Vec<u8> {
    let hash = |b: &[u8]| OctetString::new(digest::digest(&digest::SHA256, b).as_ref()).unwrap();
    let id = CertId {
        hash_algorithm: AlgorithmIdentifierOwned {
            oid: "2.16.840.1.101.3.4.2.1".parse().unwrap(),
            parameters: Some(der::Any::encode_from(&Null).unwrap()),
        },
        issuer_name_hash: hash(&issuer.tbs_certificate.subject.to_der().unwrap()),
        issuer_key_hash: hash(issuer.tbs_certificate.subject_public_key_info.subject_public_key.raw_bytes()),
        serial_number: x509_cert::serial_number::SerialNumber::new(&cert::parse_serial(serial).unwrap()).unwrap(),
    };
    let tbs = TbsRequest {
        version: x509_ocsp::Version::V1,
        requestor_name: None,
        request_list: vec![Request { req_cert: id, single_request_extensions: None }],
        request_extensions: None,
    };
    OcspRequest { tbs_request: tbs, optional_signature: None }.to_der().unwrap()
}

fn ocsp(w: &mut World, issuer: &Certificate, serial: &str) -> CertStatus {
    let der = ocsp_request(issuer, serial);
    let answer = w.post("ocsp", json!({"body": STANDARD.encode(&der)})).response.unwrap().raw.unwrap();
    assert_eq!(answer.content_type, "application/ocsp-response");
    let response = OcspResponse::from_der(&answer.body).unwrap();
    assert_eq!(response.response_status, OcspResponseStatus::Successful);
    let basic = BasicOcspResponse::from_der(response.response_bytes.unwrap().response.as_bytes()).unwrap();
    let by = &basic.certs.as_ref().unwrap()[0];
    let message = basic.tbs_response_data.to_der().unwrap();
    crate::key::verify(
        &by.tbs_certificate.subject_public_key_info,
        &basic.signature_algorithm,
        &message,
        basic.signature.raw_bytes(),
    )
    .unwrap();
    basic.tbs_response_data.responses[0].cert_status
}

#[test]
fn the_responder_in_every_case() {
    let mut w = ready();
    let issuer = parse(&w.get("cert/ca").data["certificate"]);
    assert!(matches!(ocsp(&mut w, &issuer, "01:02"), CertStatus::Good(_)), "never issued here, and ours");
    let mut other = ready();
    let foreign = parse(&other.get("cert/ca").data["certificate"]);
    assert!(matches!(ocsp(&mut w, &foreign, "01:02"), CertStatus::Unknown(_)));
    for (body, code) in [("", Code::Invalid), ("AAAA", Code::Invalid), (&*"A".repeat(4000), Code::Invalid)] {
        assert_eq!(w.post("ocsp", json!({"body": body})).code, code);
    }
    let der = ocsp_request(&issuer, "01:02");
    for cut in 0..der.len() {
        assert_eq!(w.post("ocsp", json!({"body": STANDARD.encode(&der[..cut])})).code, Code::Invalid);
    }
    w.patch("issuer/default", json!({"usage": "issuing-certificates"}));
    assert_eq!(w.post("ocsp", json!({"body": STANDARD.encode(&der)})).code, Code::Custom(401));
    w.patch("issuer/default", json!({"usage": "ocsp-signing"}));
    assert_eq!(w.get(&format!("ocsp/{}", STANDARD.encode(&der))).code, Code::Ok);
    w.post("config/crl", json!({"ocsp_disable": true}));
    assert_eq!(w.post("ocsp", json!({"body": STANDARD.encode(&der)})).code, Code::Custom(401));
}

#[test]
fn a_revocation_costs_the_same_however_long_the_list_is() {
    let mut w = ready();
    let mut sizes = Vec::new();
    for n in 0..700 {
        let leaf = w.post("issue/web", json!({"common_name": format!("a{n}.example.com")}));
        w.post("revoke", json!({"serial_number": leaf.data["serial_number"]}));
        sizes.push(w.writes);
    }
    assert!(sizes.iter().all(|s| *s == sizes[0]), "writes of a revocation do not grow: {:?}", &sizes[690..]);
    let list = crl(&mut w);
    assert_eq!(revoked(&list).len(), 700);
    assert!(w.side_ops.iter().any(|o| o.contains("sign a revocation list")), "a long list is built beside the core");
}

#[test]
fn delta_lists() {
    let mut w = ready();
    w.post("config/crl", json!({"auto_rebuild": true, "enable_delta": true}));
    let number = |l: &CertificateList| {
        let e = l.tbs_cert_list.crl_extensions.clone();
        (
            cert::find::<x509_cert::ext::pkix::crl::CrlNumber>(e.as_ref()).unwrap(),
            cert::find::<x509_cert::ext::pkix::crl::BaseCrlNumber>(e.as_ref()),
        )
    };
    let base = number(&crl(&mut w)).0;
    let revoke = |w: &mut World| {
        let leaf = w.post("issue/web", json!({"common_name": "a.example.com"}));
        w.post("revoke", json!({"serial_number": leaf.data["serial_number"]}));
        text(&leaf.data["serial_number"])
    };
    let one = revoke(&mut w);
    assert!(revoked(&crl(&mut w)).is_empty(), "the complete list waits for its time");
    let delta = CertificateList::from_der(&raw(&mut w, "crl/delta").1).unwrap();
    assert_eq!(revoked(&delta), std::slice::from_ref(&one));
    assert_eq!(number(&delta).1.unwrap().0, base.0);
    let two = revoke(&mut w);
    let delta = CertificateList::from_der(&raw(&mut w, "crl/delta").1).unwrap();
    assert_eq!(revoked(&delta).len(), 1, "not before the interval is over");
    w.now = w.now.plus_seconds(1000);
    let delta = CertificateList::from_der(&raw(&mut w, "crl/delta").1).unwrap();
    assert_eq!(revoked(&delta), [one, two]);
    w.get("crl/rotate");
    assert_eq!(revoked(&crl(&mut w)).len(), 2);
    let delta = CertificateList::from_der(&raw(&mut w, "crl/delta").1).unwrap();
    assert!(revoked(&delta).is_empty());
}

fn work(w: &mut World) {
    for _ in 0..20 {
        w.with_engine(|e, cx| e.due(cx, "tidy")).unwrap();
    }
}

#[test]
fn tidying() {
    let mut w = ready();
    assert_eq!(w.get("tidy-status").data["state"], "Inactive");
    let nothing = w.post("tidy", json!({}));
    assert!(
        nothing.code == Code::Accepted
            && nothing.response.unwrap().warnings[0]
                .starts_with("No targets to tidy; specify tidy_cert_store=true or ")
    );
    let mut serials = Vec::new();
    for ttl in ["1h", "1h", "70h"] {
        let leaf = w.post("issue/web", json!({"common_name": "a.example.com", "ttl": ttl}));
        serials.push(text(&leaf.data["serial_number"]));
    }
    w.post("revoke", json!({"serial_number": serials[0]}));
    w.post("revoke", json!({"serial_number": serials[2]}));
    assert_eq!(revoked(&crl(&mut w)).len(), 2);
    w.now = w.now.plus_seconds(10 * 3600);
    let begun = w.post("tidy", json!({"tidy_cert_store": true, "tidy_revoked_certs": true, "safety_buffer": "1h"}));
    assert_eq!(begun.code, Code::Accepted);
    assert_eq!(
        w.post("tidy", json!({"tidy_cert_store": true})).response.unwrap().warnings[0],
        "Tidy operation already in progress."
    );
    assert_eq!(w.get("tidy-status").data["state"], "Running");
    work(&mut w);
    let status = w.get("tidy-status").data;
    assert_eq!(
        (&status["state"], &status["cert_store_deleted_count"], &status["revoked_cert_deleted_count"]),
        (&json!("Finished"), &json!(2), &json!(1))
    );
    assert_eq!(revoked(&crl(&mut w)), [serials[2].clone()]);
    assert_eq!(w.list("certs").data["keys"].as_array().unwrap().len(), 2, "the root and the long one");
    assert!(w.post("tidy-cancel", json!({})).response.unwrap().warnings[0].contains("none is currently running"));
    let (_, why) = w.refused(Operation::Update, "config/auto-tidy", json!({"enabled": true}));
    assert!(why.starts_with("Auto-tidy enabled but no tidy operations were requested."));
    w.post("config/auto-tidy", json!({"enabled": true, "tidy_cert_store": true, "safety_buffer": 1}));
    w.now = w.now.plus_seconds(100 * 3600);
    w.with_engine(|e, cx| e.due(cx, "auto-tidy")).unwrap();
    work(&mut w);
    assert_eq!(w.list("certs").data["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn issuers_and_keys_as_objects() {
    let mut w = ready();
    let second = w.post(
        "root/generate/exported",
        json!({"common_name": "Second", "key_type": "ec", "issuer_name": "two", "key_name": "k2"}),
    );
    assert!(text(&second.data["private_key"]).starts_with("-----BEGIN EC PRIVATE KEY-----"));
    assert_eq!(
        w.refused(Operation::Update, "root/generate/internal", json!({"key_type": "ec", "issuer_name": "two"})).1,
        "issuer name already in use"
    );
    assert_eq!(
        w.refused(Operation::Update, "root/generate/internal", json!({"key_type": "ec", "key_name": "k2"})).1,
        "key name already in use"
    );
    assert_eq!(w.list("issuers").data["keys"].as_array().unwrap().len(), 2);
    let by_name = w.get("issuer/two").data;
    assert_eq!(by_name["usage"], "read-only,issuing-certificates,crl-signing,ocsp-signing");
    assert_eq!(
        w.post("issuer/two/issue/web", json!({"common_name": "a.example.com"})).data["issuing_ca"],
        second.data["certificate"]
    );
    let (_, why) = w.refused(Operation::Delete, "key/k2", json!({}));
    assert_eq!(why, format!("Failed to Delete Key.  Key in Use by Issuer: {}", text(&second.data["issuer_id"])));
    w.post("root/replace", json!({"default": "two"}));
    assert_eq!(w.get("config/issuers").data["default"], second.data["issuer_id"]);
    w.patch("issuer/two", json!({"usage": "crl-signing"}));
    let (_, why) = w.refused(Operation::Update, "issue/web", json!({"common_name": "a.example.com"}));
    assert!(why.contains("issuing-certificates"), "{why}");
    assert_eq!(w.delete("issuer/two").code, Code::Ok, "warns: it was the default");
    assert_eq!(w.delete("key/k2").code, Code::NoContent);
    // a key and certificate come back by import
    let bundle = format!("{}\n{}\n", text(&second.data["private_key"]), text(&second.data["certificate"]));
    assert!(
        w.refused(Operation::Update, "issuers/import/cert", json!({"pem_bundle": bundle}))
            .1
            .starts_with("private keys found")
    );
    let back = w.post("issuers/import/bundle", json!({"pem_bundle": bundle}));
    assert_eq!(back.data["mapping"].as_object().unwrap().len(), 1);
    assert_eq!(
        w.post("keys/generate/internal", json!({"key_type": "ed25519", "key_name": "e"})).data["key_type"],
        "ed25519"
    );
    let csr = w.post("intermediate/cross-sign", json!({"key_ref": "e", "common_name": "X"}));
    assert!(text(&csr.data["csr"]).contains("BEGIN CERTIFICATE REQUEST"));
    let cross = w.post("root/sign-self-issued", json!({"certificate": second.data["certificate"]}));
    let (c, given) = (parse(&cross.data["certificate"]), parse(&second.data["certificate"]));
    assert_eq!(c.tbs_certificate.subject, given.tbs_certificate.subject);
    assert!(
        cert::is_ca(&c) && c.tbs_certificate.issuer != given.tbs_certificate.issuer || cert::signed_by(&c, &given)
    );
    assert_eq!(w.get("issuer/default/json").data["issuer_name"], "");
    assert_eq!(raw(&mut w, "issuer/default/pem").0, "application/pem-certificate-chain");
    w.delete("root");
    assert_eq!(w.list("issuers").code, Code::NotFound);
}

#[test]
fn a_lease_revokes_its_certificate() {
    let mut w = ready();
    w.patch("roles/web", json!({"generate_lease": true}));
    let leaf = w.post("issue/web", json!({"common_name": "a.example.com", "ttl": "2h"}));
    let terms = leaf.response.unwrap().lease.unwrap();
    assert!(!terms.renewable && terms.ttl == 7200);
    let lease = Lease { secret: "pki".into(), internal: terms.internal, path: "issue/web".into(), increment: 0 };
    w.with_engine(|e, cx| e.revoke(cx, &lease)).unwrap();
    assert_eq!(revoked(&crl(&mut w)), [text(&leaf.data["serial_number"])]);
    let gone = Lease { internal: Map::new(), ..lease };
    w.with_engine(|e, cx| e.revoke(cx, &gone)).unwrap();
}

#[test]
fn no_private_key_stands_in_the_image() {
    let mut w = world();
    let root = w.post(
        "root/generate/exported",
        json!({"common_name": "R", "key_type": "ed25519", "private_key_format": "pkcs8"}),
    );
    let der = pem::first(&text(&root.data["private_key"]), SectionKind::PrivateKey).unwrap();
    let bytes = w.image_bytes();
    assert!(!bytes.windows(32).any(|b| b == &der[der.len() - 32..]));
    assert!(!crate::fixture::holds(&bytes, &STANDARD.encode(&der)));
}

/// A role whose common names are free text (`cn_validations=disabled`) let the common name pass into the alternative
/// names too, where relying parties look, without asking `allowed_domains`.
#[test]
fn a_common_name_that_is_not_validated_is_judged_as_an_alternative_name() {
    let mut w = ready();
    w.post(
        "roles/free",
        json!({"allowed_domains": "example.com", "allow_subdomains": true, "key_type": "ec", "ttl": "1h",
            "cn_validations": "disabled"}),
    );
    let before = w.records();
    for (body, wanted) in [
        (json!({"common_name": "victim.org"}), "subject alternate name victim.org not allowed by this role"),
        (json!({"common_name": "ceo@victim.org"}), "email address ceo@victim.org not allowed by this role"),
        (
            json!({"common_name": "victim.org", "alt_names": "victim.org", "exclude_cn_from_sans": true}),
            "subject alternate name victim.org not allowed by this role",
        ),
    ] {
        let (_, why) = w.refused(Operation::Update, "issue/free", body);
        assert_eq!(why, wanted);
    }
    assert_eq!(w.records(), before);
    for body in [
        json!({"common_name": "a.example.com"}),
        json!({"common_name": "Some Person"}),
        json!({"common_name": "victim.org", "exclude_cn_from_sans": true}),
    ] {
        let leaf = parse(&w.post("issue/free", body).data["certificate"]);
        let sans = cert::find::<SubjectAltName>(leaf.tbs_certificate.extensions.as_ref());
        assert!(sans.is_none_or(|s| s.0 == [cert::dns("a.example.com").unwrap()]));
    }
}

/// `max_ttl` bound a duration and not a date: who might ask for three days got a certificate for a month.
#[test]
fn a_date_is_bound_by_the_roles_max_ttl() {
    let mut w = ready();
    let (soon, late) = (w.now.seconds() + 3600, w.now.seconds() + 600 * 3600);
    let made = w.post("issue/web", json!({"common_name": "a.example.com", "not_after": cert::time_text(late)}));
    let longest = w.now.seconds() + 72 * 3600;
    assert!(
        (longest - 60..=longest).contains(&made.data["expiration"].as_u64().unwrap()),
        "{}",
        made.data["expiration"]
    );
    assert!(made.response.unwrap().warnings.iter().any(|t| t.contains("maxTTL")));
    let made = w.post("issue/web", json!({"common_name": "a.example.com", "not_after": cert::time_text(soon)}));
    assert_eq!(made.data["expiration"], soon);
    // what the role itself says is its owner's word
    w.patch("roles/web", json!({"not_after": cert::time_text(late)}));
    let made = w.post("issue/web", json!({"common_name": "a.example.com"}));
    assert_eq!(made.data["expiration"], late);
}

/// Whoever asked a responder with an RSA key had a core sign for him, and the requests of others on it waited.
#[test]
fn an_rsa_responder_signs_beside_the_core() {
    let mut w = world();
    let made = w.post("root/generate/internal", json!({"common_name": "Root", "key_type": "rsa", "ttl": "700h"}));
    let issuer = parse(&made.data["certificate"]);
    let computed = std::rc::Rc::new(std::cell::Cell::new(0));
    let seen = computed.clone();
    w.outside = Box::new(move |op| {
        if let ringfence_logical::SideOp::Compute(c) = op {
            assert_eq!(c.what, "sign an OCSP answer");
            seen.set(seen.get() + 1);
        }
        None
    });
    assert!(matches!(ocsp(&mut w, &issuer, "01:02"), CertStatus::Good(_)));
    assert_eq!(computed.get(), 1);
}

/// What is remembered with a certificate, and for how long.
#[test]
fn metadata_of_certificates() {
    let mut w = World::new(Pki);
    w.post("root/generate/internal", json!({"common_name": "Root", "key_type": "ec", "ttl": "8760h"}));
    w.post("roles/web", json!({"allow_any_name": true, "key_type": "ec", "ttl": "1h"}));
    let made = w.post("issue/web", json!({"common_name": "a.example.com", "cert_metadata": "b3duZXI="})).data;
    w.post("issue/web", json!({"common_name": "b.example.com"}));
    let serial = made["serial_number"].as_str().unwrap().to_owned();
    assert_eq!(w.list("cert-metadata").data["keys"], json!([serial]));
    for shape in [serial.clone(), serial.replace(':', "-"), serial.to_uppercase()] {
        let read = w.get(&format!("cert-metadata/{shape}")).data;
        assert_eq!((&read["cert_metadata"], &read["role"]), (&json!("b3duZXI="), &json!("web")));
        assert_eq!(read["serial_number"], made["serial_number"]);
        assert!(
            read["issuer_id"].as_str().unwrap().len() == 36 && read["expiration"].as_str().unwrap().ends_with('Z')
        );
    }
    assert_eq!(w.get("cert-metadata/aa:bb").code, Code::NotFound);
    let body = json!({"common_name": "a.example.com", "cert_metadata": "no base64!"});
    assert!(w.refused(Operation::Update, "issue/web", body).1.starts_with("cert_metadata is not base64"));
    w.patch("roles/web", json!({"no_store_metadata": true}));
    let body = json!({"common_name": "a.example.com", "cert_metadata": "b3duZXI="});
    let (code, why) = w.refused(Operation::Update, "issue/web", body);
    assert_eq!((code, why.contains("no_store_metadata")), (Code::Invalid, true));
    w.now = w.now.plus_seconds(2 * 3600);
    for (buffer, left) in [("3h", 1), ("10m", 0)] {
        w.post("tidy", json!({"tidy_cert_metadata": true, "safety_buffer": buffer}));
        while w.get("tidy-status").data["state"] == "Running" {
            w.due("tidy").unwrap();
        }
        assert_eq!(w.get("tidy-status").data["cert_metadata_deleted_count"], json!(1 - left));
        let kept = w.list("cert-metadata").data["keys"].as_array().map_or(0, Vec::len);
        assert_eq!(kept, left, "{buffer}");
    }
}

#[test]
fn templates_of_roles() {
    let mut w = World::new(Pki);
    w.post("root/generate/internal", json!({"common_name": "Root", "key_type": "ec", "ttl": "8760h"}));
    w.identity = vec![("identity.entity.name".into(), "alice".into())];
    let role = json!({
        "allowed_domains": ["{{identity.entity.name}}.example.com", "{{identity.entity.id}}.example.org", "fixed.example.net"],
        "allowed_domains_template": true, "allow_bare_domains": true, "allow_localhost": false,
        "allowed_uri_sans": ["spiffe://example.com/{{identity.entity.name}}"], "allowed_uri_sans_template": true,
        "key_type": "ec", "require_cn": false, "ttl": "1h",
    });
    w.post("roles/own", role.clone());
    assert_eq!(w.get("roles/own").data["allowed_domains"], role["allowed_domains"], "shown as written");
    w.post("issue/own", json!({"common_name": "alice.example.com", "uri_sans": "spiffe://example.com/alice"}));
    w.post("issue/own", json!({"common_name": "fixed.example.net"}));
    for name in ["bob.example.com", "e-1.example.org", "{{identity.entity.id}}.example.org", "example.com"] {
        let (code, why) = w.refused(Operation::Update, "issue/own", json!({"common_name": name}));
        assert_eq!((code, why), (Code::Invalid, format!("common name {name} not allowed by this role")));
    }
    assert!(w.run(Operation::Update, "issue/own", json!({"uri_sans": "spiffe://example.com/bob"})).is_err());
    w.identity.clear();
    assert!(w.run(Operation::Update, "issue/own", json!({"common_name": "alice.example.com"})).is_err(), "nobody");
    w.patch("roles/own", json!({"allowed_domains_template": false}));
    assert!(
        w.run(Operation::Update, "issue/own", json!({"common_name": "alice.example.com"})).is_err(),
        "no template"
    );
}
