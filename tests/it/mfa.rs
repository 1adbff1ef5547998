//! Logins with a second factor over the real binary, and by its own command line.

use super::harness::{Answer, Server, request};
use super::identity::people;
use aws_lc_rs::hmac;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A server where every login of userpass owes a code; answers method and key of ann.
fn bench(name: &str) -> (Server, String, Vec<u8>) {
    let s = Server::ready(name);
    let accessor = people(&s, &["ann"]);
    let a = s.put("auth/userpass/login/ann", "", &json!({"password": "pw"}));
    let ann = a.json()["auth"]["entity_id"].clone();
    // a long period: no test waits for the next one, and none meets the end of one
    let method = json!({"issuer": "Ringfence", "method_name": "phone", "period": 3600, "skew": 1});
    let method = s.put("identity/mfa/method/totp", &s.root, &method).json()["data"]["method_id"].clone();
    let secret = json!({"method_id": method, "entity_id": ann});
    let a = s.put("identity/mfa/method/totp/admin-generate", &s.root, &secret);
    let url = a.json()["data"]["url"].as_str().expect("an address").to_owned();
    let rule = json!({"mfa_method_ids": [method], "auth_method_accessors": [accessor]});
    assert_eq!(s.put("identity/mfa/login-enforcement/all", &s.root, &rule).status, 204);
    let key = base32(url.rsplit("secret=").next().expect("a secret"));
    (s, method.as_str().expect("an id").to_owned(), key)
}

fn base32(text: &str) -> Vec<u8> {
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0u32);
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            _ => c - b'2' + 26,
        };
        held = held << 5 | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
    }
    out
}

/// RFC 6238 again, so that the server is not judged by its own code. `ahead` periods from now.
fn code(key: &[u8], ahead: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() / 3600;
    let counter = now.checked_add_signed(ahead).expect("a time");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key), &counter.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag[19] & 15);
    let word = u32::from_be_bytes([tag[at] & 0x7f, tag[at + 1], tag[at + 2], tag[at + 3]]);
    format!("{:06}", word % 1_000_000)
}

fn login(s: &Server, mfa: &str) -> Answer {
    let body = br#"{"password": "pw"}"#;
    request(s.port, "PUT", "auth/userpass/login/ann", &[("X-Vault-MFA", mfa)], Some(body)).expect("an answer")
}

fn validate(s: &Server, request: &Value, method: &str, code: &str) -> Answer {
    s.put("sys/mfa/validate", "", &json!({"mfa_request_id": request, "mfa_payload": {method: [code]}}))
}

#[test]
fn a_code_opens_one_login_in_one_request_or_two() {
    let (mut s, method, key) = bench("mfa");
    let a = login(&s, "");
    let owed = a.json()["auth"]["mfa_requirement"].clone();
    assert_eq!((a.status, a.json()["auth"]["client_token"].clone()), (200, json!("")));
    assert_eq!(owed["mfa_constraints"]["all"]["any"][0]["id"], method.as_str());
    let second = login(&s, "").json()["auth"]["mfa_requirement"]["mfa_request_id"].clone();
    let first = owed["mfa_request_id"].clone();
    // the period before the present one, then the present, then the next: each once, never back
    let codes = [code(&key, -1), code(&key, 0), code(&key, 1)];
    let a = validate(&s, &first, &method, &codes[0]);
    assert_eq!(a.status, 200, "{:?}", a.errors());
    let token = a.json()["auth"]["client_token"].as_str().expect("a token").to_owned();
    assert_eq!(s.get("auth/token/lookup-self", &token).status, 200);
    assert_eq!(validate(&s, &first, &method, &codes[1]).errors(), json!(["invalid request ID"]));
    // what was used is in the log
    s.kill();
    s.start();
    s.unseal();
    let a = validate(&s, &second, &method, &codes[0]);
    assert_eq!(a.status, 403);
    let text = a.errors()[0].as_str().unwrap_or_default().to_owned();
    assert!(text.starts_with("failed to satisfy enforcement all. error: 2 errors occurred:\n\t* login MFA validation failed for methodID: ["), "{text}");
    assert!(text.contains("code already used; new code is available in "), "{text}");
    assert_eq!(login(&s, &format!("phone: {}", codes[1])).status, 403, "a code has no spaces");
    assert_eq!(login(&s, &format!("phone:{}", codes[1])).status, 200);
    assert_eq!(login(&s, &format!("phone:{}", codes[1])).status, 403);
    assert_eq!(validate(&s, &second, &method, &codes[2]).status, 200, "the wait survived, too");
}

#[test]
fn attempts_are_bounded_and_the_bound_survives_a_restart() {
    let (mut s, method, key) = bench("mfa-attempts");
    let good = [-1, 0, 1].map(|n| code(&key, n));
    let wrong = (0..).map(|n| format!("{n:06}")).find(|c| !good.contains(c)).expect("a wrong code");
    for _ in 0..5 {
        let a = login(&s, &format!("{method}:{wrong}"));
        assert!(
            a.errors()[0].as_str().is_some_and(|t| t.contains("failed to validate TOTP passcode")),
            "{:?}",
            a.errors()
        );
    }
    s.kill();
    s.start();
    s.unseal();
    let a = login(&s, &format!("{method}:{}", good[1]));
    let text = a.errors()[0].as_str().unwrap_or_default().to_owned();
    assert!(
        text.contains("maximum TOTP validation attempts 5 exceeded the allowed attempts 5. Please try again in"),
        "{text}"
    );
    assert_eq!(a.status, 403);
}

#[test]
fn the_command_line_passes_the_second_factor() {
    let (s, method, key) = bench("mfa-cli");
    let good = code(&key, 0);
    let args = ["login", "-method=userpass", "-token-only", "username=ann", "password=pw"];
    let (status, out, err) = s.cli(&args);
    assert!(status != 0 || out.contains("mfa_request_id"), "without a code there is no token: {out} {err}");
    let flag = format!("-mfa={method}:{good}");
    let (status, out, err) =
        s.cli(&["login", "-method=userpass", &flag, "-token-only", "username=ann", "password=pw"]);
    assert_eq!(status, 0, "{err}");
    assert!(out.starts_with("hvs."), "{out}");
    let (status, _, err) = s.cli(&["login", "-method=userpass", &flag, "-token-only", "username=ann", "password=pw"]);
    assert_ne!(status, 0);
    assert!(err.contains("code already used"), "{err}");
    for (kind, body) in [("duo", json!({"integration_key": "x"})), ("okta", json!({})), ("pingid", json!({}))] {
        let a = s.put(&format!("identity/mfa/method/{kind}"), &s.root, &body);
        assert_eq!(a.status, 400, "{:?}", a.errors());
    }
    let a = s.put("sys/mfa/validate", "", &json!({"mfa_request_id": 5, "mfa_payload": []}));
    assert_eq!(a.status, 400, "{:?}", a.errors());
}
