//! TOTP over the real binary: a provider and a generator beside it.

use super::harness::Server;
use serde_json::{Value, json};

#[test]
fn provider_and_generator_agree_and_a_code_is_good_once() {
    let mut s = Server::ready("totp");
    s.put("sys/mounts/totp", &s.root, &json!({"type": "totp"}));
    let made = s.put("totp/keys/me", &s.root, &json!({"generate": true, "issuer": "Acme", "account_name": "me"}));
    assert_eq!(made.status, 200);
    let data = made.json()["data"].clone();
    assert!(data["barcode"].as_str().is_some_and(|b| b.starts_with("iVBOR")), "a PNG");
    let a = s.put("totp/keys/phone", &s.root, &json!({"url": data["url"]}));
    assert_eq!(a.status, 204, "{:?}", a.errors());
    let code = s.get("totp/code/phone", &s.root).json()["data"]["code"].clone();
    assert_eq!(code.as_str().map(str::len), Some(6));
    let check = |s: &Server, code: &Value| s.put("totp/code/me", &s.root, &json!({"code": code}));
    assert_eq!(check(&s, &code).json()["data"], json!({"valid": true}));
    let used = json!(["code already used; wait until the next time period"]);
    assert_eq!((check(&s, &code).status, check(&s, &code).errors()), (400, used.clone()));
    // that it was used outlives the process
    s.kill();
    s.start();
    s.unseal();
    assert_eq!(check(&s, &code).errors(), used);
    assert_eq!(check(&s, &json!("12")).json()["data"], json!({"valid": false}));
    let read = s.get("totp/keys/me", &s.root).json()["data"].clone();
    assert_eq!(read, json!({"account_name": "me", "algorithm": "SHA1", "digits": 6, "issuer": "Acme", "period": 30}));
    assert_eq!(s.list("totp/keys", &s.root).json()["data"]["keys"], json!(["me", "phone"]));
    let a = s.get("totp/code/none", &s.root);
    assert_eq!((a.status, a.errors()), (400, json!(["unknown key: none"])));
}

#[test]
fn of_two_requests_with_one_code_one_wins() {
    let s = Server::ready("totp-race");
    s.put("sys/mounts/totp", &s.root, &json!({"type": "totp"}));
    s.put("totp/keys/k", &s.root, &json!({"key": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"}));
    let code = s.get("totp/code/k", &s.root).json()["data"]["code"].clone();
    let won: usize = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| s.put("totp/code/k", &s.root, &json!({"code": code})).json()["data"]["valid"] == true)
            })
            .collect();
        tries.into_iter().filter_map(|t| t.join().ok()).filter(|w| *w).count()
    });
    assert_eq!(won, 1);
}
