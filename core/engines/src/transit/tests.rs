//! Every rule of the engine over a real image.

use super::Transit;
use crate::fixture::{Answer, World, holds};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ringfence_base::Code;
use ringfence_crypto::asymmetric::rsa::RsaPublic;
use ringfence_crypto::cipher::Cipher;
use ringfence_crypto::hash::{Hash, hkdf_sha256_into};
use ringfence_crypto::{kwp, pem};
use ringfence_logical::Operation;
use serde_json::{Value, json};

const HELLO: &str = "aGVsbG8=";

fn b64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

fn text<'a>(a: &'a Answer, field: &str) -> &'a str {
    a.data[field].as_str().unwrap_or_else(|| panic!("{field} in {}", a.data))
}

fn refuse(w: &mut World, path: &str, body: Value) -> String {
    let (code, text) = w.refused(Operation::Update, path, body);
    assert_eq!(code, Code::Invalid, "{path}: {text}");
    text
}

fn make(w: &mut World, name: &str, kind: &str) {
    w.post(&format!("keys/{name}"), json!({"type": kind, "exportable": true, "allow_plaintext_backup": true}));
}

const CIPHERS: [&str; 4] = ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"];
const SIGNERS: [&str; 5] = ["ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048"];

#[test]
fn ciphers_encrypt_decrypt_and_rewrap() {
    let mut w = World::new(Transit);
    for kind in CIPHERS.into_iter().chain(["rsa-2048"]) {
        make(&mut w, kind, kind);
        let sealed = w.post(&format!("encrypt/{kind}"), json!({"plaintext": HELLO}));
        assert_eq!(w.writes, 0, "encryption writes nothing");
        assert!(text(&sealed, "ciphertext").starts_with("vault:v1:"), "{kind}");
        assert_eq!(sealed.data["key_version"], 1);
        let c = text(&sealed, "ciphertext").to_owned();
        assert_eq!(w.post(&format!("decrypt/{kind}"), json!({"ciphertext": c})).data, json!({"plaintext": HELLO}));
        assert_eq!(w.writes, 0);
        w.post(&format!("keys/{kind}/rotate"), Value::Null);
        let again = w.post(&format!("rewrap/{kind}"), json!({"ciphertext": c}));
        assert!(text(&again, "ciphertext").starts_with("vault:v2:"));
        let c2 = text(&again, "ciphertext").to_owned();
        assert_eq!(w.post(&format!("decrypt/{kind}"), json!({"ciphertext": c2})).data["plaintext"], HELLO);
        let old = w.post(&format!("encrypt/{kind}"), json!({"plaintext": "", "key_version": 1}));
        assert!(text(&old, "ciphertext").starts_with("vault:v1:"));
        let c0 = c.replace("vault:v1:", "vault:v0:");
        assert_eq!(w.post(&format!("decrypt/{kind}"), json!({"ciphertext": c0})).data["plaintext"], HELLO);
        w.post(&format!("keys/{kind}/config"), json!({"min_decryption_version": 2}));
        assert_eq!(
            refuse(&mut w, &format!("decrypt/{kind}"), json!({"ciphertext": c})),
            "ciphertext or signature version is disallowed by policy (too old)"
        );
    }
}

#[test]
fn ciphertexts_are_vaults_form() {
    // nonce || ciphertext || tag under the exported key, opened without this engine
    let mut w = World::new(Transit);
    for (kind, cipher) in CIPHERS.into_iter().zip([
        Cipher::Aes128Gcm,
        Cipher::Aes256Gcm,
        Cipher::ChaCha20Poly1305,
        Cipher::XChaCha20Poly1305,
    ]) {
        make(&mut w, kind, kind);
        let exported = w.get(&format!("export/encryption-key/{kind}"));
        let key = cipher.key(&STANDARD.decode(exported.data["keys"]["1"].as_str().unwrap()).unwrap()).unwrap();
        let sealed = w.post(&format!("encrypt/{kind}"), json!({"plaintext": HELLO, "associated_data": b64("ad")}));
        let payload = STANDARD.decode(&text(&sealed, "ciphertext")["vault:v1:".len()..]).unwrap();
        let (nonce, body) = payload.split_at(cipher.nonce_bytes());
        assert_eq!(&key.open(nonce, b"ad", body).unwrap()[..], b"hello");
        let mut ours = b"other".to_vec();
        key.seal(&vec![9; cipher.nonce_bytes()], b"", &mut ours, 0);
        let c = format!("vault:v1:{}", b64([&vec![9; cipher.nonce_bytes()][..], &ours].concat()));
        assert_eq!(w.post(&format!("decrypt/{kind}"), json!({"ciphertext": c})).data["plaintext"], b64("other"));
        let wrong = if kind.starts_with("aes") { "cipher" } else { "chacha20poly1305" };
        let c = text(&sealed, "ciphertext").to_owned();
        assert_eq!(
            refuse(&mut w, &format!("decrypt/{kind}"), json!({"ciphertext": c})),
            format!("{wrong}: message authentication failed")
        );
    }
}

#[test]
fn convergent_keys_are_version_three() {
    let mut w = World::new(Transit);
    for (kind, cipher) in CIPHERS.into_iter().zip([
        Cipher::Aes128Gcm,
        Cipher::Aes256Gcm,
        Cipher::ChaCha20Poly1305,
        Cipher::XChaCha20Poly1305,
    ]) {
        w.post(
            &format!("keys/{kind}"),
            json!({"type": kind, "derived": true, "convergent_encryption": true, "exportable": true}),
        );
        let body = json!({"plaintext": HELLO, "context": b64("ctx")});
        let one = w.post(&format!("encrypt/{kind}"), body.clone());
        assert_eq!(w.post(&format!("encrypt/{kind}"), body).data, one.data, "equal texts, equal ciphertexts");
        // by the published derivation: HKDF-SHA256, key then nonce key; nonce = start of HMAC-SHA256
        let exported = w.get(&format!("export/encryption-key/{kind}"));
        let key = STANDARD.decode(exported.data["keys"]["1"].as_str().unwrap()).unwrap();
        let mut okm = vec![0; cipher.key_bytes() + 32];
        hkdf_sha256_into(&key, b"ctx", &mut okm);
        let (enc, mac) = okm.split_at(cipher.key_bytes());
        let nonce = &Hash::Sha256.hmac(mac, b"hello")[..cipher.nonce_bytes()];
        let mut expected = nonce.to_vec();
        expected.extend_from_slice(b"hello");
        cipher.key(enc).unwrap().seal(nonce, b"", &mut expected, nonce.len());
        assert_eq!(text(&one, "ciphertext"), format!("vault:v1:{}", b64(expected)));
        let c = text(&one, "ciphertext").to_owned();
        let opened = w.post(&format!("decrypt/{kind}"), json!({"ciphertext": c, "context": b64("ctx")}));
        assert_eq!(opened.data["plaintext"], HELLO);
        assert!(
            refuse(&mut w, &format!("decrypt/{kind}"), json!({"ciphertext": c, "context": b64("other")}))
                .ends_with("message authentication failed")
        );
        assert_eq!(
            refuse(&mut w, &format!("encrypt/{kind}"), json!({"plaintext": HELLO})),
            super::derive::MISSING_CONTEXT
        );
        assert_eq!(
            refuse(
                &mut w,
                &format!("encrypt/{kind}"),
                json!({"plaintext": HELLO, "context": b64("ctx"), "nonce": b64([0; 12])})
            ),
            "nonce provided when not allowed"
        );
        let shown = w.get(&format!("keys/{kind}"));
        assert_eq!(
            (&shown.data["kdf"], &shown.data["convergent_encryption_version"]),
            (&json!("hkdf_sha256"), &json!(-1))
        );
    }
}

#[test]
fn a_missing_key_is_made_by_an_encryption_that_may() {
    let mut w = World::new(Transit);
    assert!(!w.exists("encrypt/new"));
    let sealed = w.run(Operation::Create, "encrypt/new", json!({"plaintext": HELLO})).unwrap().unwrap();
    assert!(sealed.data.unwrap().into_map()["ciphertext"].as_str().unwrap().starts_with("vault:v1:"));
    assert!(w.exists("encrypt/new"));
    assert_eq!(w.get("keys/new").data["type"], "aes256-gcm96");
    w.run(
        Operation::Create,
        "encrypt/ctx",
        json!({"plaintext": HELLO, "context": HELLO, "convergent_encryption": true}),
    )
    .unwrap();
    assert_eq!(w.get("keys/ctx").data["convergent_encryption"], true);
    for (body, told) in [
        (json!({"plaintext": HELLO, "type": "ecdsa-p256"}), "key type ecdsa-p256 not supported for this operation"),
        (json!({"plaintext": HELLO, "type": "x"}), "unknown key type x"),
        (
            json!({"plaintext": HELLO, "convergent_encryption": true}),
            "convergent encryption requires derivation to be enabled, so context is required",
        ),
    ] {
        assert_eq!(w.refused(Operation::Create, "encrypt/n", body), (Code::Invalid, told.into()));
    }
    w.post("config/keys", json!({"disable_upsert": true}));
    assert_eq!(w.get("config/keys").data, json!({"disable_upsert": true}));
    let (_, told) = w.refused(Operation::Create, "encrypt/n", json!({"plaintext": HELLO}));
    assert_eq!(told, "encryption key not found");
    assert_eq!(refuse(&mut w, "encrypt/n", json!({"plaintext": HELLO})), "encryption key not found");
}

#[test]
fn batches_keep_order_and_tell_each_items_fate() {
    // as a tree, and as the text that a long body stays
    for texts in [false, true] {
        let mut w = World::new(Transit);
        w.texts = texts;
        batches(w);
    }
}

fn batches(mut w: World) {
    make(&mut w, "k", "aes256-gcm96");
    let items: Vec<Value> =
        (0..1000).map(|n| json!({"plaintext": b64(n.to_string()), "reference": format!("r{n}\"")})).collect();
    let sealed = w.post("encrypt/k", json!({"batch_input": items}));
    assert_eq!(sealed.code, Code::Ok);
    let results = sealed.data["batch_results"].as_array().unwrap().clone();
    assert_eq!(results.len(), 1000);
    let back = w.post("decrypt/k", json!({"batch_input": results}));
    for (n, r) in back.data["batch_results"].as_array().unwrap().iter().enumerate() {
        assert_eq!(r, &json!({"plaintext": b64(n.to_string()), "reference": format!("r{n}\"")}));
    }
    let mixed = json!([{"plaintext": HELLO}, {"plaintext": "!!"}, {"plaintext": HELLO, "key_version": 9}]);
    let partial = w.post("encrypt/k", json!({"batch_input": mixed}));
    assert_eq!(partial.code, Code::Invalid);
    let r = &partial.data["batch_results"];
    assert!(r[0]["ciphertext"].is_string() && r[0]["reference"] == "");
    assert_eq!(r[1], json!({"error": "illegal base64 data at input byte 0", "reference": ""}));
    assert_eq!(r[2]["error"], "requested version for encryption is higher than the latest key version");
    let coded = w.post("encrypt/k", json!({"batch_input": mixed, "partial_failure_response_code": 207}));
    assert_eq!(coded.code, Code::Custom(207));
    let wrong = w.post("encrypt/k", json!({"batch_input": mixed, "partial_failure_response_code": 700}));
    assert_eq!(wrong.code, Code::Invalid);
    assert!(wrong.response.unwrap().warnings[0].starts_with("invalid HTTP status code override"));
    let all_bad =
        w.post("encrypt/k", json!({"batch_input": [{"plaintext": "!"}], "partial_failure_response_code": 207}));
    assert_eq!(all_bad.code, Code::Invalid, "nothing succeeded");
    let bad = w.post("decrypt/k", json!({"batch_input": [{"ciphertext": "vault:v1:AAAA"}]}));
    assert_eq!(
        bad.data["batch_results"][0],
        json!({"plaintext": "", "error": "invalid ciphertext length", "reference": ""})
    );
    for (batch, told) in [
        (json!([]), "missing batch input to process"),
        (json!("text"), "failed to parse batch input: expected a list of objects"),
        (json!([1]), "failed to parse batch input: '[0]' expected a map"),
        (json!([{"context": ""}]), "failed to parse batch input: '[0].plaintext' missing plaintext to encrypt"),
        (json!([{"plaintext": 1}]), "failed to parse batch input: '[0].plaintext' expected type 'string'"),
        (
            json!([{"plaintext": "", "context": HELLO}, {"plaintext": ""}]),
            "context should be set either in all the request blocks or in none",
        ),
    ] {
        assert_eq!(refuse(&mut w, "encrypt/k", json!({"batch_input": batch})), told);
    }
}

#[test]
fn items_say_the_same_as_texts_and_as_trees() {
    let mut worlds = [World::new(Transit), World::new(Transit)];
    worlds[1].texts = true;
    let context = b64("ctx");
    let items = [
        json!([{"plaintext": HELLO, "context": context, "reference": "a"}, {"plaintext": "", "context": context}]),
        json!([{"plaintext": HELLO, "context": context, "key_version": "1", "more": [1, {"x": null}]}]),
        json!([{"plaintext": HELLO, "context": context, "key_version": null, "nonce": null, "associated_data": b64("x")}]),
        json!([{"plaintext": HELLO, "context": context, "key_version": 1.5}]),
        json!([{"plaintext": null, "context": context}]),
        json!([{"plaintext": HELLO, "context": 5}]),
        json!([{"plaintext": HELLO}, 7]),
        json!([{"ciphertext": HELLO}]),
        json!([]),
        json!([{"plaintext": "a\nb", "context": context}]),
    ];
    let [one, two] = worlds.each_mut().map(|w| {
        w.post("keys/k", json!({"derived": true, "convergent_encryption": true}));
        items.clone().map(|batch| {
            let answer = w.run(Operation::Update, "encrypt/k", json!({"batch_input": batch, "zz": 1}));
            let shape = |r: ringfence_logical::Response| (r.code, r.warnings, r.data.map(|d| d.into_map()));
            answer.map(|r| r.map(shape)).map_err(|e| e.errors.iter().map(|t| t.to_string()).collect::<Vec<_>>())
        })
    });
    // two worlds have two keys, but their randomness is one seed's
    assert_eq!(one, two);
    assert!(one[0].is_ok() && one[1].is_ok() && one[2].is_ok() && one[3..9].iter().all(Result::is_err));
}

#[test]
fn cmacs() {
    let mut w = World::new(Transit);
    for (kind, bytes) in [("aes128-cmac", 16), ("aes192-cmac", 24), ("aes256-cmac", 32)] {
        make(&mut w, kind, kind);
        let v = w.get(&format!("keys/{kind}")).data;
        assert_eq!(
            (&v["type"], &v["supports_encryption"], &v["supports_signing"]),
            (&json!(kind), &json!(false), &json!(false))
        );
        let made = w.post(&format!("cmac/{kind}"), json!({"input": HELLO}));
        let code = text(&made, "cmac").to_owned();
        w.post("keys/none", json!({"type": "hmac"}));
        let backup = text(&w.get(&format!("backup/{kind}")), "backup").to_owned();
        let key = STANDARD.decode(backup).unwrap();
        let key: Value = serde_json::from_slice(&key).unwrap();
        let key = STANDARD.decode(key["policy"]["keys"]["1"]["key"].as_str().unwrap()).unwrap();
        assert_eq!(key.len(), bytes);
        let should = ringfence_crypto::cmac::code(&key, b"hello").unwrap();
        assert_eq!(code, format!("vault:v1:{}", b64(should)));
        let short = w.post(&format!("cmac/{kind}/8"), json!({"input": HELLO}));
        assert_eq!(text(&short, "cmac"), format!("vault:v1:{}", b64(&should[..8])));
        let verify = |w: &mut World, body: Value| w.post(&format!("verify/{kind}"), body).data["valid"].clone();
        assert_eq!(verify(&mut w, json!({"input": HELLO, "cmac": code})), true);
        assert_eq!(verify(&mut w, json!({"input": b64("hellp"), "cmac": code})), false);
        let cut = format!("vault:v1:{}", b64(&should[..8]));
        assert_eq!(verify(&mut w, json!({"input": HELLO, "cmac": cut})), false, "a cut code is none of full length");
        assert_eq!(verify(&mut w, json!({"input": HELLO, "cmac": cut, "mac_length": 8})), true);
        w.post(&format!("keys/{kind}/rotate"), Value::Null);
        let next = w.post(
            &format!("cmac/{kind}"),
            json!({"batch_input": [{"input": HELLO}, {"input": HELLO, "key_version": 1}]}),
        );
        let r = &next.data["batch_results"];
        assert!(r[0]["cmac"].as_str().unwrap().starts_with("vault:v2:") && r[1]["cmac"] == json!(code));
        let batch = json!({"batch_input": [{"input": HELLO, "cmac": r[0]["cmac"]}, {"input": HELLO, "cmac": code}]});
        assert_eq!(w.post(&format!("verify/{kind}"), batch).data["batch_results"][1], json!({"valid": true}));
        let backup = text(&w.get(&format!("backup/{kind}")), "backup").to_owned();
        w.post("restore/again", json!({"backup": backup, "force": true}));
        assert_eq!(w.post("verify/again", json!({"input": HELLO, "cmac": code})).data["valid"], true);
        w.post(&format!("keys/{kind}/config"), json!({"min_decryption_version": 2}));
        let told = refuse(&mut w, &format!("verify/{kind}"), json!({"input": HELLO, "cmac": code}));
        assert_eq!(told, "ciphertext or signature version is disallowed by policy (too old)");
    }
    for (path, body, told) in [
        ("cmac/none", json!({"input": HELLO}), "CMAC generation is not supported for key type hmac"),
        ("cmac/nobody", json!({"input": HELLO}), "encryption key not found"),
        ("cmac/aes128-cmac", json!({}), "missing input for CMAC"),
        ("cmac/aes128-cmac/17", json!({"input": HELLO}), "mac_length must be between 1 and 16"),
        ("cmac/aes128-cmac/-1", json!({"input": HELLO}), "mac_length must be between 1 and 16"),
        (
            "encrypt/aes128-cmac",
            json!({"plaintext": HELLO}),
            "message encryption not supported for key type aes128-cmac",
        ),
        ("sign/aes128-cmac", json!({"input": HELLO}), "key type aes128-cmac does not support signing"),
        (
            "verify/aes128-cmac",
            json!({"input": HELLO, "cmac": "vault:v2:AAAA", "hmac": "vault:v2:AAAA"}),
            "provide one of 'signature' or 'hmac'",
        ),
        ("verify/aes128-cmac", json!({"input": HELLO, "cmac": "x"}), "invalid CMAC: no prefix"),
    ] {
        assert_eq!(refuse(&mut w, path, body), told, "{path}");
    }
}

#[test]
fn keys_ask_for_certificates_and_keep_them() {
    use x509_parser::prelude::FromDer;
    let mut w = World::new(Transit);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, &ca_key);
    let template = {
        let mut p = rcgen::CertificateParams::new(vec!["a.example.com".to_owned()]).unwrap();
        p.distinguished_name.push(rcgen::DnType::CommonName, "a.example.com");
        p.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    };
    let mut certified = Vec::new();
    for kind in SIGNERS {
        make(&mut w, kind, kind);
        let made = w.post(&format!("keys/{kind}/csr"), json!({"csr": template}));
        assert_eq!((&made.data["name"], &made.data["type"]), (&json!(kind), &json!(kind)));
        let csr = text(&made, "csr").to_owned();
        let (_, der) = pem::decode(&csr).unwrap();
        let (_, read) = x509_parser::certification_request::X509CertificationRequest::from_der(&der).unwrap();
        if kind != "ecdsa-p521" {
            read.verify_signature().unwrap_or_else(|e| panic!("{kind}: {e}"));
        }
        assert_eq!(read.certification_request_info.subject.to_string(), "CN=a.example.com");
        assert!(read.requested_extensions().unwrap().count() > 0, "the template's wishes are kept");
        let bare = w.post(&format!("keys/{kind}/csr"), json!({}));
        let (_, bare_der) = pem::decode(text(&bare, "csr")).unwrap();
        assert!(x509_parser::certification_request::X509CertificationRequest::from_der(&bare_der).is_ok());
        // an authority makes a certificate for the key
        let public = w.get(&format!("keys/{kind}")).data["keys"]["1"]["public_key"].as_str().unwrap().to_owned();
        let spki = match kind {
            "ed25519" => rcgen::SubjectPublicKeyInfo::from_der(read.certification_request_info.subject_pki.raw),
            _ => rcgen::SubjectPublicKeyInfo::from_pem(&public),
        };
        let leaf = rcgen::CertificateParams::new(vec!["a.example.com".to_owned()]).unwrap();
        let leaf = match spki {
            Ok(spki) => leaf.signed_by(&spki, &issuer).unwrap().pem(),
            // rcgen has no such public keys
            Err(_) => continue,
        };
        let chain = format!("{leaf}{ca_pem}");
        let a = w.post(&format!("keys/{kind}/set-certificate"), json!({"certificate_chain": chain}));
        assert_eq!(a.code, Code::NoContent);
        let kept = w.get(&format!("keys/{kind}")).data["keys"]["1"]["certificate_chain"].as_str().unwrap().to_owned();
        assert_eq!(pem::decode_all(&kept), pem::decode_all(&chain));
        assert!(text_at(&w.get(&format!("export/certificate-chain/{kind}")), "1").contains("BEGIN CERTIFICATE"));
        let path = format!("keys/{kind}/set-certificate");
        w.post(&format!("keys/{kind}/rotate"), Value::Null);
        for (chain, told) in [
            (chain.as_str(), "leaf certificate public key does not match the key version selected"),
            ("", "could not decode PEM certificate block"),
            (csr.as_str(), "could not decode PEM certificate block"),
            (ca_pem.as_str(), "the first certificate of the chain must be the leaf"),
            (&format!("{leaf}{leaf}"), "there should be exactly one leaf certificate in the chain"),
        ] {
            assert_eq!(refuse(&mut w, &path, json!({"certificate_chain": chain})), told);
        }
        w.post(&path, json!({"certificate_chain": chain, "version": 1}));
        certified.push(kind);
    }
    assert!(certified.len() >= 4, "{certified:?}");
    make(&mut w, "c", "aes256-gcm96");
    for (path, body, told) in [
        ("keys/c/csr", json!({}), "key type 'aes256-gcm96' does not support signing"),
        ("keys/nobody/csr", json!({}), "key with provided name 'nobody' not found"),
        ("keys/ed25519/csr", json!({"csr": "x"}), "could not decode PEM certificate request"),
        (
            "keys/ed25519/csr",
            json!({"version": 9}),
            "requested version for signing is higher than the latest key version",
        ),
    ] {
        assert_eq!(refuse(&mut w, path, body), told);
    }
}

#[test]
fn the_cache_keeps_what_it_may() {
    let mut w = World::new(Transit);
    assert_eq!(
        refuse(&mut w, "cache-config", json!({"size": 9})),
        "size must be 0 or a value greater or equal to 10"
    );
    let use_all = |w: &mut World| {
        for n in 0..30 {
            w.post(&format!("encrypt/k{n}"), json!({"plaintext": HELLO}));
        }
    };
    for n in 0..30 {
        make(&mut w, &format!("k{n}"), "aes128-gcm96");
    }
    use_all(&mut w);
    assert_eq!(w.remembered(), 60, "thirty keys and a version of each");
    w.post("cache-config", json!({"size": 10}));
    assert_eq!(w.get("cache-config").data["size"], 10);
    for n in 30..40 {
        make(&mut w, &format!("k{n}"), "aes128-gcm96");
    }
    w.post("encrypt/k39", json!({"plaintext": HELLO}));
    assert_eq!(w.remembered(), 20);
    use_all(&mut w);
    assert_eq!(w.remembered(), 20);
}

#[test]
fn bad_ciphertexts_are_refused_by_their_fault() {
    let mut w = World::new(Transit);
    make(&mut w, "k", "aes256-gcm96");
    for (c, told) in [
        ("", "missing ciphertext to decrypt"),
        ("x", "invalid ciphertext: no prefix"),
        ("vault:v1", "invalid ciphertext: wrong number of fields"),
        ("vault:vx:AAAA", "invalid ciphertext: version number could not be decoded"),
        ("vault:v2:AAAA", "invalid ciphertext: version is too new"),
        ("vault:v-1:AAAA", "ciphertext or signature version is disallowed by policy (too old)"),
        ("vault:v99999999999999999999:AAAA", "invalid ciphertext: version number could not be decoded"),
        ("vault:v1:!", "invalid ciphertext: could not decode base64"),
        ("vault:v1:", "invalid ciphertext length"),
        ("vault:v1:AAAAAAAAAAAAAAAAAAAAAA==", "cipher: message authentication failed"),
    ] {
        assert_eq!(refuse(&mut w, "decrypt/k", json!({"ciphertext": c})), told, "{c}");
    }
    for path in ["encrypt", "decrypt", "rewrap"] {
        let body = json!({"plaintext": HELLO, "ciphertext": "vault:v1:AAAA"});
        assert_eq!(refuse(&mut w, &format!("{path}/none"), body), "encryption key not found");
    }
    make(&mut w, "s", "ed25519");
    assert_eq!(
        refuse(&mut w, "encrypt/s", json!({"plaintext": HELLO})),
        "message encryption not supported for key type ed25519"
    );
    make(&mut w, "r", "rsa-2048");
    assert_eq!(
        refuse(&mut w, "encrypt/r", json!({"plaintext": HELLO, "associated_data": HELLO})),
        "'[0].associated_data' provided for non-AEAD cipher suite rsa-2048"
    );
    let (code, told) =
        w.refused(Operation::Update, "decrypt/r", json!({"ciphertext": format!("vault:v1:{}", b64([1; 256]))}));
    assert_eq!(code, Code::Internal);
    assert!(told.contains("failed to RSA decrypt the ciphertext: crypto/rsa: decryption error"), "{told}");
    assert_eq!(refuse(&mut w, "encrypt/k", json!({})), "missing plaintext to encrypt");
    assert_eq!(
        refuse(&mut w, "encrypt/k", json!({"plaintext": HELLO, "key_version": -1})),
        "requested version for encryption is negative"
    );
    assert_eq!(
        refuse(&mut w, "encrypt/k", json!({"plaintext": HELLO, "nonce": HELLO})),
        "provided nonce not allowed for this key"
    );
}

#[test]
fn signers_sign_and_verify() {
    let mut w = World::new(Transit);
    for kind in SIGNERS {
        make(&mut w, kind, kind);
        for hash in ["sha2-256", "sha2-512", "sha3-256", "sha1"] {
            let signed = w.post(&format!("sign/{kind}/{hash}"), json!({"input": HELLO}));
            assert_eq!(w.writes, 0);
            assert_eq!(signed.data["key_version"], 1);
            let s = text(&signed, "signature").to_owned();
            assert!(s.starts_with("vault:v1:"));
            let check = |w: &mut World, input: &str, s: &str| {
                w.post(&format!("verify/{kind}"), json!({"input": input, "signature": s, "hash_algorithm": hash}))
                    .data["valid"]
                    == true
            };
            assert!(check(&mut w, HELLO, &s), "{kind} {hash}");
            assert!(!check(&mut w, &b64("other"), &s), "{kind} {hash}");
            let digest = Hash::parse(hash).unwrap().digest(b"hello");
            let pre = json!({"input": b64(&digest), "signature": s, "algorithm": hash, "prehashed": true});
            assert_eq!(w.post(&format!("verify/{kind}"), pre).data["valid"], kind != "ed25519");
        }
        for (s, told) in [
            ("x", "invalid signature: no prefix"),
            ("vault:v1", "invalid signature: wrong number of fields"),
            ("vault:vx:a", "invalid signature: version number could not be decoded"),
            ("vault:v7:a", "invalid signature: version is too new"),
            ("vault:v1:!", "invalid base64 signature value"),
        ] {
            assert_eq!(refuse(&mut w, &format!("verify/{kind}"), json!({"input": HELLO, "signature": s})), told);
        }
    }
    let jws = w.post("sign/ecdsa-p256", json!({"input": HELLO, "marshaling_algorithm": "jws"}));
    let raw = URL_SAFE_NO_PAD.decode(&text(&jws, "signature")[9..]).unwrap();
    assert_eq!(raw.len(), 64);
    let s = text(&jws, "signature").to_owned();
    assert_eq!(
        w.post("verify/ecdsa-p256", json!({"input": HELLO, "signature": s, "marshaling_algorithm": "jws"})).data["valid"],
        true
    );
    assert_eq!(
        refuse(&mut w, "verify/ecdsa-p256", json!({"input": HELLO, "signature": "vault:v1:AAAA"})),
        "supplied signature is invalid"
    );
}

#[test]
fn rsa_paddings_and_salts() {
    let mut w = World::new(Transit);
    make(&mut w, "r", "rsa-2048");
    for options in [
        json!({"signature_algorithm": "pkcs1v15"}),
        json!({"signature_algorithm": "pkcs1v15", "hash_algorithm": "none", "prehashed": true}),
        json!({"signature_algorithm": "pss", "salt_length": "hash"}),
        json!({"signature_algorithm": "pss", "salt_length": "20", "hash_algorithm": "sha3-384"}),
        json!({"salt_length": "auto"}),
    ] {
        let mut body = options.clone();
        body["input"] = HELLO.into();
        let s = text(&w.post("sign/r", body.clone()), "signature").to_owned();
        assert!(w.side_ops.last().unwrap().contains("sign with RSA"), "off the core");
        body["signature"] = s.clone().into();
        assert_eq!(w.post("verify/r", body.clone()).data["valid"], true, "{options}");
        body["salt_length"] = "7".into();
        let pss = body["signature_algorithm"] != "pkcs1v15";
        assert_eq!(w.post("verify/r", body).data["valid"], !pss, "{options}");
    }
    for (body, told) in [
        (json!({"salt_length": "223"}), "requested salt length 223 is invalid"),
        (json!({"salt_length": "x"}), "requested salt length x is invalid"),
        (json!({"signature_algorithm": "x"}), "unsupported rsa signature algorithm x"),
        (
            json!({"hash_algorithm": "none"}),
            "hash_algorithm=none requires both prehashed=true and signature_algorithm=pkcs1v15",
        ),
        (json!({"hash_algorithm": "md5"}), "invalid hash algorithm \"md5\""),
        (json!({"marshaling_algorithm": "x"}), "invalid marshaling type \"x\""),
        (json!({"input": "!"}), "unable to decode input as base64: illegal base64 data at input byte 0"),
        (json!({"key_version": 2}), "requested version for signing is higher than the latest key version"),
    ] {
        let mut whole = json!({"input": HELLO});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        assert_eq!(refuse(&mut w, "sign/r", whole), told);
    }
    assert_eq!(refuse(&mut w, "sign/none", json!({"input": HELLO})), "signing key not found");
    make(&mut w, "k", "aes256-gcm96");
    assert_eq!(refuse(&mut w, "sign/k", json!({"input": HELLO})), "key type aes256-gcm96 does not support signing");
}

#[test]
fn post_quantum_signatures() {
    let mut w = World::new(Transit);
    for set in ["44", "65", "87"] {
        let name = format!("pq{set}");
        let made = w.post(&format!("keys/{name}"), json!({"type": "ml-dsa", "parameter_set": set}));
        assert_eq!((&made.data["type"], &made.data["parameter_set"]), (&json!("ml-dsa"), &json!(set)));
        assert!(made.data["keys"]["1"]["public_key"].as_str().unwrap().starts_with("-----BEGIN PUBLIC KEY-----"));
        let s = text(&w.post(&format!("sign/{name}"), json!({"input": HELLO})), "signature").to_owned();
        assert_eq!(w.post(&format!("verify/{name}"), json!({"input": HELLO, "signature": s})).data["valid"], true);
        assert_eq!(w.post(&format!("verify/{name}"), json!({"input": "", "signature": s})).data["valid"], false);
    }
    assert_eq!(
        refuse(&mut w, "keys/x", json!({"type": "ml-dsa", "parameter_set": "1"})),
        "invalid parameter set 1 for key type ml-dsa"
    );
}

#[test]
fn derived_ed25519_shows_its_public_key() {
    let mut w = World::new(Transit);
    w.post("keys/e", json!({"type": "ed25519", "derived": true}));
    assert_eq!(w.get("keys/e").data["keys"]["1"]["public_key"], "");
    let shown =
        w.run(Operation::Read, "keys/e", json!({"context": HELLO})).unwrap().unwrap().data.unwrap().into_map();
    let signed = w.post("sign/e", json!({"input": HELLO, "context": HELLO}));
    assert_eq!(shown["keys"]["1"]["public_key"], signed.data["public_key"]);
    let s = text(&signed, "signature").to_owned();
    assert_eq!(w.post("verify/e", json!({"input": HELLO, "context": HELLO, "signature": s})).data["valid"], true);
    assert_eq!(w.post("verify/e", json!({"input": HELLO, "context": b64("c"), "signature": s})).data["valid"], false);
    let batch = w.post(
        "sign/e",
        json!({"batch_input": [{"input": HELLO, "context": HELLO}, {"input": HELLO}, {"context": HELLO}]}),
    );
    assert_eq!(batch.code, Code::Ok, "faults of items leave the status alone");
    let r = &batch.data["batch_results"];
    assert_eq!(r[0]["publickey"], signed.data["public_key"]);
    assert_eq!(r[1]["error"], super::derive::MISSING_CONTEXT);
    assert_eq!(r[2]["error"], "missing input");
}

#[test]
fn hmacs() {
    let mut w = World::new(Transit);
    make(&mut w, "k", "aes256-gcm96");
    w.post("keys/h", json!({"type": "hmac", "key_size": 64, "exportable": true}));
    for name in ["k", "h"] {
        let key = w.get(&format!("export/hmac-key/{name}"));
        let key = STANDARD.decode(key.data["keys"]["1"].as_str().unwrap()).unwrap();
        assert_eq!(key.len(), if name == "h" { 64 } else { 32 });
        for hash in ["sha2-256", "sha3-512"] {
            let made = w.post(&format!("hmac/{name}/{hash}"), json!({"input": HELLO}));
            let code = Hash::parse(hash).unwrap().hmac(&key, b"hello");
            assert_eq!(made.data, json!({"hmac": format!("vault:v1:{}", b64(code))}));
            let body = json!({"input": HELLO, "hmac": made.data["hmac"], "algorithm": hash});
            assert_eq!(w.post(&format!("verify/{name}"), body).data["valid"], true);
            let body = json!({"input": "", "hmac": made.data["hmac"], "algorithm": hash});
            assert_eq!(w.post(&format!("verify/{name}"), body).data["valid"], false);
        }
    }
    let batch = w.post("hmac/k", json!({"batch_input": [{"input": HELLO, "reference": "a"}, {"input": "!"}]}));
    assert_eq!(batch.code, Code::Invalid);
    assert_eq!(batch.data["batch_results"][0]["reference"], "a");
    for (path, body, told) in [
        ("hmac/k", json!({}), "missing input for HMAC"),
        ("hmac/none", json!({"input": ""}), "encryption key not found"),
        ("hmac/k/md5", json!({"input": ""}), "unsupported algorithm \"md5\""),
        ("hmac/k", json!({"input": "", "key_version": 2}), "key version does not exist; latest key version is 1"),
        ("verify/k", json!({"input": "", "hmac": "x"}), "invalid HMAC to verify: no prefix"),
        ("verify/k", json!({"input": "", "hmac": "vault:v2:aa"}), "invalid HMAC: version is too new"),
        ("verify/k", json!({"input": ""}), "neither a 'signature' nor an 'hmac' were given to verify"),
        ("verify/k", json!({"input": "", "hmac": "a", "signature": "b"}), "provide one of 'signature' or 'hmac'"),
        (
            "verify/k",
            json!({"batch_input": [{"input": "", "hmac": "a"}, {"input": "", "signature": "b"}]}),
            "elements of batch_input must all provide 'signature' or all provide 'hmac'",
        ),
        ("verify/none", json!({"input": "", "hmac": "a"}), "signature verification key not found"),
        ("keys/h2", json!({"type": "hmac", "key_size": 31}), "invalid key_size 31"),
        ("keys/h2", json!({"key_size": 32}), "key_size is not valid for algorithm aes256-gcm96"),
    ] {
        assert_eq!(refuse(&mut w, path, body), told);
    }
}

#[test]
fn settings_of_keys() {
    let mut w = World::new(Transit);
    let made = w.post("keys/k", Value::Null);
    assert_eq!(
        made.data,
        json!({
            "allow_plaintext_backup": false, "auto_rotate_period": 0, "deletion_allowed": false, "derived": false,
            "exportable": false, "imported_key": false, "keys": {"1": w.now.seconds()}, "latest_version": 1,
            "min_available_version": 0, "min_decryption_version": 1, "min_encryption_version": 0, "name": "k",
            "soft_deleted": false, "supports_decryption": true, "supports_derivation": true,
            "supports_encryption": true, "supports_signing": false, "type": "aes256-gcm96"
        })
    );
    let again = w.post("keys/k", json!({"type": "ed25519"}));
    assert_eq!(again.response.unwrap().warnings, ["key k already existed"]);
    w.post("keys/k/rotate", Value::Null);
    w.post("keys/k/rotate", Value::Null);
    assert_eq!(w.list("keys").data["keys"], json!(["k"]));
    for (body, told) in [
        (json!({"min_decryption_version": -1}), "min decryption version cannot be negative"),
        (json!({"min_decryption_version": 5}), "cannot set min decryption version of 5, latest key version is 3"),
        (json!({"min_encryption_version": 5}), "cannot set min encryption version of 5, latest key version is 3"),
        (
            json!({"min_decryption_version": 2, "min_encryption_version": 1}),
            "cannot set min encryption/decryption values; min encryption version of 1 must be greater than or equal to min decryption version of 2",
        ),
        (json!({"auto_rotate_period": "30m"}), "auto rotate period must be 0 to disable or at least an hour"),
    ] {
        assert_eq!(refuse(&mut w, "keys/k/config", body), told);
    }
    let forced = w.post("keys/k/config", json!({"min_decryption_version": 0}));
    assert_eq!(
        forced.response.unwrap().warnings,
        ["since Vault 0.3, transit key numbering starts at 1; forcing minimum to 1"]
    );
    for (body, told) in [
        (json!({}), "missing min_available_version"),
        (
            json!({"min_available_version": 1}),
            "minimum available version cannot be set when minimum encryption version is not set",
        ),
        (json!({"min_available_version": -1}), "minimum available version cannot be negative"),
    ] {
        assert_eq!(refuse(&mut w, "keys/k/trim", body), told);
    }
    w.post("keys/k/config", json!({"min_decryption_version": 2, "min_encryption_version": 3}));
    assert_eq!(w.get("keys/k").data["keys"].as_object().unwrap().len(), 2, "only what decrypts is listed");
    assert_eq!(
        refuse(&mut w, "encrypt/k", json!({"plaintext": "", "key_version": 2})),
        "requested version for encryption is less than the minimum encryption key version"
    );
    assert_eq!(
        refuse(&mut w, "keys/k/trim", json!({"min_available_version": 3})),
        "minimum available version cannot be greater than minimum decryption version"
    );
    let before = w.records();
    w.post("keys/k/trim", json!({"min_available_version": 2}));
    assert_eq!(w.records(), before - 1, "the old version is gone");
    assert_eq!(
        refuse(&mut w, "keys/k/trim", json!({"min_available_version": 1})),
        "minimum available version cannot be decremented"
    );
    assert_eq!(
        refuse(&mut w, "keys/k/config", json!({"min_encryption_version": 0})),
        "min encryption version should not be less than min available version"
    );
    let (code, told) = w.refused(Operation::Delete, "keys/k", Value::Null);
    assert_eq!(
        (code, told.as_str()),
        (Code::Invalid, "error deleting policy k: deletion is not allowed for this key")
    );
    w.post("keys/k/config", json!({"deletion_allowed": true}));
    w.post("keys/k/soft-delete", Value::Null);
    assert_eq!(refuse(&mut w, "encrypt/k", json!({"plaintext": ""})), "refusing to use soft-deleted key");
    assert_eq!(w.refused(Operation::Read, "backup/k", Value::Null).1, "refusing to use soft-deleted key");
    w.post("keys/k/soft-delete-restore", Value::Null);
    w.post("encrypt/k", json!({"plaintext": ""}));
    let empty = w.records();
    w.delete("keys/k");
    assert_eq!(w.records(), empty - 3, "settings and both versions");
    assert_eq!(w.get("keys/k").code, Code::NotFound);
    let (_, told) = w.refused(Operation::Delete, "keys/k", Value::Null);
    assert_eq!(told, "error deleting policy k: could not delete key; not found");
    assert_eq!(refuse(&mut w, "keys/k/config", json!({})), "no existing key named k could be found");
    assert_eq!(refuse(&mut w, "keys/k/rotate", json!({})), "key not found");
    for (body, told) in [
        (json!({"type": "x"}), "unknown key type x"),
        (json!({"convergent_encryption": true}), "convergent encryption requires derivation to be enabled"),
        (
            json!({"type": "rsa-2048", "derived": true}),
            "key derivation and convergent encryption not supported for keys of type rsa-2048",
        ),
    ] {
        assert_eq!(refuse(&mut w, "keys/n", body), told);
    }
}

#[test]
fn a_key_rotates_itself_when_its_time_has_come() {
    let mut w = World::new(Transit);
    w.post("keys/k", json!({"auto_rotate_period": "1h"}));
    let due = |w: &mut World| {
        w.with_engine(|e, cx| e.due(cx, "rotate/k")).unwrap();
        w.get("keys/k").data["latest_version"].clone()
    };
    assert_eq!(due(&mut w), 1, "too early");
    assert_eq!(w.writes, 0);
    w.now = w.now.plus_seconds(3600);
    assert_eq!(due(&mut w), 2);
    assert_eq!(due(&mut w), 2, "once");
    w.post("keys/k/config", json!({"auto_rotate_period": 0}));
    w.now = w.now.plus_seconds(7200);
    assert_eq!(due(&mut w), 2, "switched off");
    w.with_engine(|e, cx| e.due(cx, "rotate/gone")).unwrap();
    w.with_engine(|e, cx| e.due(cx, "other")).unwrap();
}

#[test]
fn exports() {
    let mut w = World::new(Transit);
    make(&mut w, "rsa", "rsa-2048");
    make(&mut w, "ec", "ecdsa-p384");
    make(&mut w, "ed", "ed25519");
    w.post("keys/closed", Value::Null);
    assert!(text_at(&w.get("export/signing-key/rsa"), "1").starts_with("-----BEGIN RSA PRIVATE KEY-----"));
    assert!(text_at(&w.get("export/encryption-key/rsa/latest"), "1").starts_with("-----BEGIN RSA PRIVATE KEY-----"));
    assert!(text_at(&w.get("export/signing-key/ec/1"), "1").starts_with("-----BEGIN EC PRIVATE KEY-----"));
    assert_eq!(STANDARD.decode(text_at(&w.get("export/signing-key/ed"), "1")).unwrap().len(), 64);
    assert!(text_at(&w.get("export/public-key/ec"), "1").starts_with("-----BEGIN PUBLIC KEY-----"));
    for (path, told) in [
        ("export/x/rsa", "invalid export type: x"),
        ("export/encryption-key/closed", "private key material is not exportable"),
        ("export/encryption-key/ed", "encryption not supported for the key"),
        ("export/signing-key/rsa/2", "version does not exist or cannot be found"),
        ("export/signing-key/rsa/0", "version for export is below minimum decryption version"),
        ("export/signing-key/rsa/x", "invalid key version"),
        ("export/certificate-chain/rsa", "selected key version does not have a certificate chain available"),
    ] {
        assert_eq!(w.refused(Operation::Read, path, Value::Null), (Code::Invalid, told.into()), "{path}");
    }
    assert_eq!(w.get("export/hmac-key/none").code, Code::NotFound);
}

fn text_at(a: &Answer, version: &str) -> String {
    a.data["keys"][version].as_str().unwrap_or_else(|| panic!("{}", a.data)).to_owned()
}

#[test]
fn backups_come_back() {
    let mut w = World::new(Transit);
    for kind in CIPHERS.into_iter().chain(SIGNERS).chain(["hmac"]) {
        make(&mut w, kind, kind);
        w.post(&format!("keys/{kind}/rotate"), Value::Null);
        let path = if CIPHERS.contains(&kind) {
            "encrypt"
        } else if kind == "hmac" {
            "hmac"
        } else {
            "sign"
        };
        let made = w.post(&format!("{path}/{kind}"), json!({"plaintext": HELLO, "input": HELLO, "key_version": 1}));
        let backup = text(&w.get(&format!("backup/{kind}")), "backup").to_owned();
        let told = w.refused(Operation::Update, "restore", json!({"backup": backup}));
        assert_eq!(told, (Code::Internal, format!("1 error occurred:\n\t* key {kind:?} already exists\n\n")));
        w.post(&format!("keys/{kind}/config"), json!({"deletion_allowed": true}));
        w.delete(&format!("keys/{kind}"));
        assert_eq!(w.post("restore", json!({"backup": backup})).code, Code::NoContent);
        let shown = w.get(&format!("keys/{kind}"));
        assert_eq!((&shown.data["type"], &shown.data["latest_version"]), (&json!(kind), &json!(2)));
        assert!(shown.data["restore_info"]["time"].is_string() && shown.data["backup_info"]["version"] == 2);
        match path {
            "encrypt" => assert_eq!(w.post(&format!("decrypt/{kind}"), made.data).data["plaintext"], HELLO),
            "sign" => {
                let body = json!({"input": HELLO, "signature": made.data["signature"]});
                assert_eq!(w.post(&format!("verify/{kind}"), body).data["valid"], true);
                w.post(&format!("sign/{kind}"), json!({"input": HELLO}));
            }
            _ => assert_eq!(
                w.post(&format!("verify/{kind}"), json!({"input": HELLO, "hmac": made.data["hmac"]})).data["valid"],
                true
            ),
        }
        w.post("restore", json!({"backup": backup, "force": true}));
        w.post(&format!("restore/copy-{kind}"), json!({"backup": backup}));
        assert_eq!(w.get(&format!("keys/copy-{kind}")).data["name"], format!("copy-{kind}"));
    }
    w.post("keys/closed", json!({"exportable": true}));
    assert_eq!(
        w.refused(Operation::Read, "backup/closed", Value::Null).1,
        "1 error occurred:\n\t* plaintext backup is disallowed on the policy\n\n"
    );
    for (body, told) in [
        (json!({}), "'backup' must be supplied"),
        (json!({"backup": "!"}), "failed to restore the key: illegal base64 data at input byte 0"),
        (json!({"backup": b64("x")}), "failed to restore the key: it is no JSON"),
        (json!({"backup": b64("{}")}), "failed to restore the key: it has no name"),
        (json!({"backup": b64("{\"policy\":{\"name\":\"a/b\"}}")}), "key names cannot be paths"),
        (
            json!({"backup": b64("{\"policy\":{\"name\":\"n\",\"type\":99}}")}),
            "failed to restore the key: its key type is unknown",
        ),
        (
            json!({"backup": b64("{\"policy\":{\"name\":\"n\",\"type\":0,\"latest_version\":9999999999}}")}),
            "failed to restore the key: its versions do not fit each other",
        ),
        (
            json!({"backup": b64("{\"policy\":{\"name\":\"n\",\"type\":0,\"latest_version\":1}}")}),
            "failed to restore the key: version 1 is no key",
        ),
    ] {
        assert_eq!(refuse(&mut w, "restore", body), told);
    }
}

#[test]
fn a_backup_in_vaults_own_words_is_restored() {
    // a key as Vault writes it, with the fields in Go's order and the archive's empty place for version 0
    let key = [7u8; 32];
    let entry = json!({"key": b64(key), "hmac_key": b64([8; 32]), "time": "2024-05-01T10:00:00.123456789Z", "ec_x": null,
        "ec_y": null, "ec_d": null, "rsa_key": null, "rsa_public_key": null, "public_key": "", "convergent_version": 0,
        "creation_time": 1714557600, "managed_key_id": "", "certificate_chain": null});
    let empty = json!({"key": null, "hmac_key": null, "time": "0001-01-01T00:00:00Z", "creation_time": 0});
    let backup = json!({"policy": {"name": "moved", "keys": {"1": entry}, "derived": false, "kdf": 0,
        "convergent_encryption": false, "exportable": true, "min_decryption_version": 1, "min_encryption_version": 0,
        "latest_version": 1, "archive_version": 1, "archive_min_version": 0, "min_available_version": 0,
        "deletion_allowed": false, "convergent_version": 0, "type": 0, "backup_info": {"time": "2024-05-01T11:00:00Z",
        "version": 1}, "restore_info": null, "allow_plaintext_backup": true, "version_template": "",
        "storage_prefix": "", "auto_rotate_period": 0, "Imported": false, "AllowImportedKeyRotation": false},
        "archived_keys": {"keys": [empty, entry]}});
    let mut w = World::new(Transit);
    w.post("restore", json!({"backup": b64(backup.to_string())}));
    assert_eq!(w.get("keys/moved").data["keys"], json!({"1": 1714557600}));
    let mut sealed = b"from elsewhere".to_vec();
    Cipher::Aes256Gcm.key(&key).unwrap().seal(&[1; 12], b"", &mut sealed, 0);
    let c = format!("vault:v1:{}", b64([&[1; 12][..], &sealed].concat()));
    assert_eq!(w.post("decrypt/moved", json!({"ciphertext": c})).data["plaintext"], b64("from elsewhere"));
}

#[test]
fn keys_come_in_wrapped_and_go_out_wrapped() {
    let mut w = World::new(Transit);
    let shown = w.get("wrapping_key");
    assert_eq!(w.get("wrapping_key").data, shown.data, "made once");
    assert_eq!(w.list("keys").code, Code::NotFound, "and not listed");
    let (_, der) = pem::decode(text(&shown, "public_key")).unwrap();
    let wrapping = RsaPublic::from_spki(&der).unwrap();
    assert_eq!(wrapping.bits(), 4096);
    let wrap = |hash: Hash, target: &[u8]| {
        let block = wrapping.encrypt(hash, &[3; 32]).unwrap();
        b64([block, kwp::wrap(&[3; 32], target).unwrap()].concat())
    };
    let body = json!({"ciphertext": wrap(Hash::Sha256, &[5; 32]), "exportable": true});
    assert_eq!(w.post("keys/in/import", body.clone()).code, Code::NoContent);
    assert_eq!(text_at(&w.get("export/encryption-key/in"), "1"), b64([5; 32]));
    assert_eq!(w.get("keys/in").data["imported_key"], true);
    let (code, told) = w.refused(Operation::Update, "keys/in/import", body);
    assert_eq!(code, Code::Internal);
    assert!(told.contains("the import path cannot be used with an existing key"));
    assert!(
        w.refused(Operation::Update, "keys/in/rotate", Value::Null)
            .1
            .contains("imported key in does not allow rotation within Vault")
    );
    w.post("keys/in/import_version", json!({"ciphertext": wrap(Hash::Sha1, &[6; 32]), "hash_function": "SHA1"}));
    assert_eq!(w.get("keys/in").data["latest_version"], 2);
    // every asymmetric type, by its export as PKCS #8 of another key
    for kind in SIGNERS {
        make(&mut w, &format!("src-{kind}"), kind);
        make(&mut w, "dst", "rsa-2048");
        let wrapped = w.get(&format!("byok-export/dst/src-{kind}"));
        assert!(STANDARD.decode(text_at(&wrapped, "1")).unwrap().len() > 256);
        let public = text_at(&w.get(&format!("export/public-key/src-{kind}")), "1");
        if kind != "ed25519" {
            w.post(&format!("keys/pub-{kind}/import"), json!({"type": kind, "public_key": public}));
            let s = text(&w.post(&format!("sign/src-{kind}"), json!({"input": HELLO})), "signature").to_owned();
            assert_eq!(
                w.post(&format!("verify/pub-{kind}"), json!({"input": HELLO, "signature": s})).data["valid"],
                true
            );
            assert_eq!(
                refuse(&mut w, &format!("sign/pub-{kind}"), json!({"input": HELLO})),
                "requested version for signing does not contain a private part"
            );
        }
    }
    for (body, told) in [
        (json!({}), "the 'ciphertext' or 'public_key' field is required"),
        (json!({"ciphertext": "AAAA"}), "provided ciphertext is too short"),
        (json!({"ciphertext": b64([1; 600])}), "failed to decrypt the wrapped key: crypto/rsa: decryption error"),
        (
            json!({"ciphertext": wrap(Hash::Sha256, &[5; 31])}),
            "invalid key size 31 bytes for key type aes256-gcm96, expected 32",
        ),
        (
            json!({"ciphertext": wrap(Hash::Sha256, b"junk"), "type": "ecdsa-p256"}),
            "error parsing asymmetric key of type ecdsa-p256",
        ),
        (
            json!({"ciphertext": wrap(Hash::Sha256, &[5; 32]), "hash_function": "MD5"}),
            "unsupported hash function: MD5",
        ),
        (
            json!({"ciphertext": wrap(Hash::Sha256, &[5; 32]), "auto_rotate_period": "1h"}),
            "allow_rotation must be set to true if auto-rotation is enabled",
        ),
        (json!({"public_key": "x"}), "provided type does not support public_key import"),
        (json!({"public_key": "x", "type": "ed25519"}), "error parsing public key: not in PEM format"),
    ] {
        assert_eq!(refuse(&mut w, "keys/bad/import", body), told);
    }
    w.post("keys/own", Value::Null);
    assert_eq!(
        refuse(&mut w, "keys/own/import_version", json!({"ciphertext": "AAAA"})),
        "the import_version endpoint can only be used with an imported key"
    );
}

#[test]
fn datakeys_random_and_hash() {
    let mut w = World::new(Transit);
    make(&mut w, "k", "aes256-gcm96");
    for bits in [128, 256, 512] {
        let made = w.post("datakey/plaintext/k", json!({"bits": bits}));
        assert_eq!(STANDARD.decode(text(&made, "plaintext")).unwrap().len() * 8, bits);
        let c = text(&made, "ciphertext").to_owned();
        assert_eq!(w.post("decrypt/k", json!({"ciphertext": c})).data["plaintext"], made.data["plaintext"]);
    }
    assert!(w.post("datakey/wrapped/k", json!({})).data.get("plaintext").is_none());
    assert_eq!(STANDARD.decode(text(&w.post("random", json!({})), "random_bytes")).unwrap().len(), 32);
    assert_eq!(text(&w.post("random/platform/5", json!({"format": "hex"})), "random_bytes").len(), 10);
    assert_eq!(
        text(&w.post("hash/sha3-224", json!({"input": b64("abc")})), "sum"),
        "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf"
    );
    for (path, body, told) in [
        ("datakey/x/k", json!({}), "Invalid path, must be 'plaintext' or 'wrapped'"),
        ("datakey/plaintext/k", json!({"bits": 192}), "invalid bit length"),
        ("datakey/plaintext/k", json!({"context": "!"}), "failed to base64-decode context"),
        ("datakey/plaintext/none", json!({}), "encryption key not found"),
        ("random/0", json!({}), "'bytes' cannot be less than 1"),
        ("random/131073", json!({}), "'bytes' should be less than 131072"),
        ("random", json!({"format": "x"}), "unsupported encoding format x; must be \"hex\" or \"base64\""),
        ("hash/sha1", json!({"input": ""}), "unsupported algorithm sha1"),
        ("hash", json!({"input": "!"}), "unable to decode input as base64: illegal base64 data at input byte 0"),
        ("cache-config", json!({"size": 9}), "size must be 0 or a value greater or equal to 10"),
    ] {
        assert_eq!(refuse(&mut w, path, body), told);
    }
    w.post("cache-config", json!({"size": 100}));
    assert_eq!(w.get("cache-config").data, json!({"size": 100}));
}

#[test]
fn keys_and_texts_are_sealed_and_not_in_errors() {
    let mut w = World::new(Transit);
    make(&mut w, "k", "aes256-gcm96");
    let key = text_at(&w.get("export/encryption-key/k"), "1");
    let bytes = STANDARD.decode(&key).unwrap();
    let image = w.image_bytes();
    assert!(!image.windows(32).any(|window| window == bytes) && !holds(&image, &key));
    let _ = w.run(Operation::Update, "decrypt/k", json!({"ciphertext": "vault:v1:CANARYCANARY"}));
    let _ = w.run(Operation::Update, "encrypt/k", json!({"plaintext": "CANARY!"}));
    assert!(!w.error_texts.iter().any(|t| t.contains("CANARY")));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn any_text_and_any_ciphertext_are_safe(c in "(vault:)?(v[0-9]{0,3}:)?\\PC{0,80}", raw: Vec<u8>) {
        let mut w = World::new(Transit);
        make(&mut w, "k", "aes256-gcm96");
        for c in [c, format!("vault:v1:{}", b64(&raw))] {
            let answer = w.run(Operation::Update, "decrypt/k", json!({"ciphertext": c}));
            proptest::prop_assert!(answer.is_err());
        }
        let sealed = w.post("encrypt/k", json!({"plaintext": b64(&raw)}));
        let opened = w.post("decrypt/k", sealed.data);
        proptest::prop_assert_eq!(opened.data, json!({"plaintext": b64(&raw)}));
    }
}

/// CVE-2023-4680: a nonce that the caller chose was taken for keys that draw their own, so two texts could be sealed under
/// one nonce.
#[test]
fn cve_2023_4680_a_nonce_is_nobodys_choice() {
    let mut w = World::new(Transit);
    w.post("keys/plain", json!({}));
    w.post("keys/same", json!({"derived": true, "convergent_encryption": true}));
    let nonce = b64([0; 12]);
    for (key, context, told) in [
        ("plain", Value::Null, "provided nonce not allowed for this key"),
        ("same", json!(b64("ctx")), "nonce provided when not allowed"),
    ] {
        let item = json!({"plaintext": HELLO, "context": context, "nonce": nonce});
        assert_eq!(refuse(&mut w, &format!("encrypt/{key}"), item.clone()), told);
        assert_eq!(refuse(&mut w, &format!("datakey/plaintext/{key}"), item.clone()), told);
        let answer = w.post(&format!("encrypt/{key}"), json!({"batch_input": [item]}));
        assert_eq!(answer.data["batch_results"][0]["error"], told);
        assert!(answer.data["batch_results"][0].get("ciphertext").is_none());
    }
}
