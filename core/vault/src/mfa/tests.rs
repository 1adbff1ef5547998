//! Logins that owe a second factor, over the whole pipeline.

use super::totp::{self, Algorithm};
use crate::tables;
use crate::testing::{World, error_of, told};
use ringfence_base::{Code, NsId};
use ringfence_logical::Operation;
use serde_json::{Value, json};

struct Bench {
    w: World,
    method: String,
    entity: String,
}

impl Bench {
    /// ann has a secret; every login at `door` owes a code.
    fn new() -> Bench {
        Bench::with(json!({"issuer": "Ringfence", "method_name": "phone"}))
    }

    fn with(config: Value) -> Bench {
        let mut w = World::new();
        let root = w.root.clone();
        let entity = w.post("auth/door/login/ann", "", json!({})).1["auth"]["entity_id"].as_str().unwrap().to_owned();
        let (code, v) = w.post("identity/mfa/method/totp", &root, config);
        assert_eq!(code, Code::Ok, "{v}");
        let method = v["data"]["method_id"].as_str().unwrap().to_owned();
        let body = json!({"method_id": method, "entity_id": entity});
        let (code, v) = w.post("identity/mfa/method/totp/admin-generate", &root, body);
        assert_eq!(code, Code::Ok, "{v}");
        assert!(v["data"]["url"].as_str().is_some_and(|u| u.starts_with("otpauth://totp/Ringfence:")), "{v}");
        let enforcement = json!({"mfa_method_ids": [method], "auth_method_types": ["door"]});
        let (code, v) = w.post("identity/mfa/login-enforcement/all", &root, enforcement);
        assert_eq!(code, Code::NoContent, "{v}");
        Bench { w, method, entity }
    }

    fn code_at(&mut self, seconds: u64) -> String {
        let (method, entity) = (self.method.clone(), self.entity.clone());
        self.w.write(|txn, _| {
            let m = super::records::method(txn, NsId::ROOT, &method).unwrap().unwrap();
            let secret = super::records::secret(txn, NsId::ROOT, &method, &entity).unwrap().unwrap();
            let code = totp::code(&secret.key, m.algorithm, m.digits, seconds / m.period);
            format!("{code:0width$}", width = m.digits as usize)
        })
    }

    fn code(&mut self) -> String {
        let now = self.w.now.seconds();
        self.code_at(now)
    }

    /// A code that is none of those accepted now.
    fn wrong(&mut self) -> String {
        let now = self.w.now.seconds();
        let good = [now - 30, now, now + 30].map(|t| self.code_at(t));
        (0..).map(|n| format!("{n:06}")).find(|c| !good.contains(c)).unwrap()
    }

    fn once(&mut self, header: &str) -> (Code, Value) {
        let mut call = self.w.blank(Operation::Update, "auth/door/login/ann", "", json!({}));
        call.mfa = vec![header.to_owned()];
        told(self.w.send(call))
    }

    fn begin(&mut self) -> Value {
        let (code, v) = self.w.post("auth/door/login/ann", "", json!({}));
        assert_eq!(code, Code::Ok, "{v}");
        v
    }

    fn validate(&mut self, request: &str, code: &str) -> (Code, Value) {
        let body = json!({"mfa_request_id": request, "mfa_payload": {self.method.clone(): [code]}});
        self.w.post("sys/mfa/validate", "", body)
    }
}

fn request_of(v: &Value) -> String {
    v["auth"]["mfa_requirement"]["mfa_request_id"].as_str().unwrap_or_else(|| panic!("{v}")).to_owned()
}

#[test]
fn a_login_in_two_requests() {
    let mut b = Bench::new();
    let v = b.begin();
    let auth = &v["auth"];
    assert_eq!((&auth["client_token"], &auth["accessor"], &auth["policies"]), (&json!(""), &json!(""), &Value::Null));
    assert_eq!((&auth["token_type"], &auth["entity_id"]), (&json!("default"), &json!("")));
    let any = json!([{"type": "totp", "id": b.method, "uses_passcode": true, "name": "phone"}]);
    assert_eq!(auth["mfa_requirement"]["mfa_constraints"], json!({"all": {"any": any}}));
    assert!(
        v["warnings"][0].as_str().is_some_and(|t| t.starts_with("A login request was issued that is subject to MFA"))
    );
    assert_eq!(b.w.rows(tables::TOKEN), 2, "the root token and that of the login before the rule");
    let request = request_of(&v);
    let code = b.code();
    let (status, v) = b.validate(&request, &code);
    assert_eq!(status, Code::Ok, "{v}");
    assert_eq!(v["auth"]["entity_id"], b.entity.as_str());
    let token = v["auth"]["client_token"].as_str().unwrap().to_owned();
    assert_eq!(b.w.get("auth/token/lookup-self", &token).1["data"]["path"], "auth/door/login/ann");
    // a request id opens one login
    b.w.sleep(60);
    let code = b.code();
    let (status, v) = b.validate(&request, &code);
    assert_eq!((status, error_of(&v)), (Code::Invalid, "invalid request ID"));
    assert_eq!(b.w.rows(tables::JOB), 0);
}

#[test]
fn a_login_in_one_request() {
    let mut b = Bench::new();
    let code = b.code();
    let (status, v) = b.once(&format!("phone:{code}"));
    assert_eq!(status, Code::Ok, "{v}");
    assert_ne!(v["auth"]["client_token"], "");
    b.w.sleep(60);
    let (code, method) = (b.code(), b.method.clone());
    assert_eq!(b.once(&format!("{method}:{code}")).0, Code::Ok);
    b.w.sleep(60);
    let wrong = b.wrong();
    for (header, why) in [
        (format!("phone:{wrong}"), "failed to validate TOTP passcode"),
        ("phone".to_owned(), "MFA credentials not supplied"),
        (format!("other:{}", b.code()), "MFA credentials not supplied"),
    ] {
        let before = b.w.rows(tables::TOKEN);
        let (status, v) = b.once(&header);
        let text = format!(
            "failed to satisfy enforcement all. error: 2 errors occurred:\n\t* login MFA validation failed for \
             methodID: [{}]\n\t* {why}\n\n",
            b.method
        );
        assert_eq!((status, error_of(&v)), (Code::Denied, text.as_str()));
        assert_eq!(b.w.rows(tables::TOKEN), before);
    }
}

#[test]
fn bad_validations() {
    let mut b = Bench::new();
    let v = b.begin();
    let request = request_of(&v);
    let method = b.method.clone();
    for (body, text) in [
        (json!({}), "missing request ID"),
        (json!({"mfa_request_id": request}), "missing mfa payload"),
        (json!({"mfa_request_id": request, "mfa_payload": {}}), "missing mfa payload"),
        (json!({"mfa_request_id": "x", "mfa_payload": {&method: ["1"]}}), "invalid request ID"),
        (
            json!({"mfa_request_id": request, "mfa_payload": {&method: 5}}),
            "mfa_payload must map the id or name of a method to a list of codes",
        ),
    ] {
        let (status, v) = b.w.post("sys/mfa/validate", "", body.clone());
        assert_eq!((status, error_of(&v)), (Code::Invalid, text), "{body}");
    }
    // five minutes, and the job leaves nothing behind
    b.w.sleep(300);
    let code = b.code();
    assert_eq!(error_of(&b.validate(&request, &code).1), "invalid request ID");
    let rows = b.w.rows(tables::MFA);
    b.w.work();
    assert_eq!((b.w.rows(tables::MFA), b.w.rows(tables::JOB)), (rows - 1, 0));
}

/// CVE-2025-6014: a code that was used opened another login when it was written with spaces. A code counts as the number
/// that it is, and has one spelling.
#[test]
fn cve_2025_6014_a_code_opens_one_login() {
    let mut b = Bench::new();
    let code = b.code();
    assert_eq!(b.once(&format!("phone:{code}")).0, Code::Ok);
    for spelling in [
        code.clone(),
        format!(" {code}"),
        format!("{code} "),
        format!("{} {}", &code[..3], &code[3..]),
        format!("+{code}"),
        format!("0{code}"),
    ] {
        let (status, _) = b.once(&format!("phone:{spelling}"));
        assert_eq!(status, Code::Denied, "{spelling:?}");
        b.w.sleep(0);
    }
    // told apart for the person who is merely early, in both ways to log in
    let mut b = Bench::new();
    let code = b.code();
    let first = request_of(&b.begin());
    let second = request_of(&b.begin());
    assert_eq!(b.validate(&first, &code).0, Code::Ok);
    let (status, v) = b.validate(&second, &code);
    assert_eq!(status, Code::Denied);
    assert!(error_of(&v).contains("code already used; new code is available in "), "{v}");
    // also the code of the period before, which the skew would accept
    let old = b.w.now.seconds() - 30;
    let code = b.code_at(old);
    assert_eq!(b.validate(&second, &code).0, Code::Denied);
}

/// Two cores validate one code at the same time: both read it as unused, one commits.
#[test]
fn a_code_used_on_two_cores_at_once_opens_one_login() {
    let mut b = Bench::new();
    let (first, second) = (request_of(&b.begin()), request_of(&b.begin()));
    let code = b.code();
    let before = b.w.version();
    let mut finished = Vec::new();
    for request in [&first, &second] {
        let body = json!({"mfa_request_id": request, "mfa_payload": {b.method.clone(): [code]}});
        let call = b.w.blank(Operation::Update, "sys/mfa/validate", "", body);
        finished.push(b.w.run_at(&before, call));
    }
    let committed: Vec<bool> = finished.into_iter().map(|f| b.w.commit(f)).collect();
    assert_eq!(committed, [true, false]);
}

/// CVE-2025-6015: attempts were not counted everywhere, so codes could be tried one after the other. They are counted by
/// entity and method, whatever login they belong to and however it is made, and a count survives a restart.
#[test]
fn cve_2025_6015_attempts_are_counted() {
    let mut b = Bench::new();
    let wrong = b.wrong();
    for n in 0..5 {
        let (_, v) = match n % 2 {
            0 => b.once(&format!("phone:{wrong}")),
            _ => {
                let request = request_of(&b.begin());
                b.validate(&request, &wrong)
            }
        };
        assert!(error_of(&v).contains("failed to validate TOTP passcode"), "{v}");
    }
    b.w.restart();
    let code = b.code();
    let (status, v) = b.once(&format!("phone:{code}"));
    assert_eq!(status, Code::Denied, "the right code too");
    let text = "maximum TOTP validation attempts 5 exceeded the allowed attempts 5. Please try again in 90 seconds";
    assert!(error_of(&v).contains(text), "{v}");
    b.w.sleep(90);
    let code = b.code();
    assert_eq!(b.once(&format!("phone:{code}")).0, Code::Ok);
}

/// A second factor is no oracle for passwords and the other way about: who fails at the method never hears of the factor.
#[test]
fn mfa_enumeration_a_bad_login_hears_nothing_of_the_second_factor() {
    let mut b = Bench::new();
    let root = b.w.root.clone();
    let (status, v) = b.w.post("auth/door/login/ann", "", json!({"policies": "root"}));
    assert_eq!((status, error_of(&v)), (Code::Invalid, "auth methods cannot create root tokens"));
    let mut call = b.w.blank(Operation::Update, "auth/door/login/ann", "", json!({"policies": "root"}));
    call.mfa = vec![format!("phone:{}", b.wrong())];
    assert_eq!(told(b.w.send(call)).0, Code::Invalid);
    let rows = b.w.list("identity/mfa/method/totp/", &root).1;
    assert_eq!(rows["data"]["keys"], json!([b.method]));
}

#[test]
fn an_enforcement_finds_its_logins() {
    let mut b = Bench::new();
    let root = b.w.root.clone();
    let group = b.w.post("identity/group", &root, json!({"name": "g", "member_entity_ids": b.entity})).1;
    let outer = json!({"name": "o", "member_group_ids": group["data"]["id"]});
    let outer = b.w.post("identity/group", &root, outer).1["data"]["id"].as_str().unwrap().to_owned();
    let owes = |b: &mut Bench, name: &str| {
        let v = b.w.post(&format!("auth/door/login/{name}"), "", json!({})).1;
        !v["auth"]["mfa_requirement"].is_null()
    };
    assert!(owes(&mut b, "ann") && owes(&mut b, "bob"));
    let page = b.w.get("identity/mfa/login-enforcement/all", &root).1;
    assert_eq!(page["data"]["auth_method_types"], json!(["door"]));
    b.w.delete("identity/mfa/login-enforcement/all", &root);
    assert!(!owes(&mut b, "ann"));
    for (target, bob) in [
        (json!({"auth_method_accessors": ["door_1"]}), true),
        (json!({"identity_entity_ids": [b.entity]}), false),
        (json!({"identity_group_ids": [outer]}), false),
    ] {
        let mut body = target.clone();
        body["mfa_method_ids"] = json!([b.method]);
        assert_eq!(b.w.post("identity/mfa/login-enforcement/one", &root, body).0, Code::NoContent);
        assert!(owes(&mut b, "ann"), "{target}");
        assert_eq!(owes(&mut b, "bob"), bob, "{target}");
        b.w.delete("identity/mfa/login-enforcement/one", &root);
    }
    for (body, text) in [
        (json!({}), "missing method ids"),
        (json!({"mfa_method_ids": ["x"]}), "one of the provided method ids doesn't exist: \"x\""),
        (
            json!({"mfa_method_ids": [b.method]}),
            "One of auth_method_accessors, auth_method_types, identity_group_ids, identity_entity_ids must be specified",
        ),
        (
            json!({"mfa_method_ids": [b.method], "auth_method_accessors": ["x"]}),
            "one of the auth method accessors provided is invalid: \"x\"",
        ),
        (
            json!({"mfa_method_ids": [b.method], "auth_method_types": ["token"]}),
            "one of the auth method types provided is invalid: \"token\"",
        ),
        (
            json!({"mfa_method_ids": [b.method], "identity_group_ids": ["x"]}),
            "one of the provided group ids doesn't exist: \"x\"",
        ),
        (
            json!({"mfa_method_ids": [b.method], "identity_entity_ids": ["x"]}),
            "one of the provided entity ids doesn't exist: \"x\"",
        ),
    ] {
        let (status, v) = b.w.post("identity/mfa/login-enforcement/bad", &root, body);
        assert_eq!((status, error_of(&v)), (Code::Invalid, text));
    }
}

#[test]
fn methods_are_configured() {
    let mut b = Bench::new();
    let root = b.w.root.clone();
    let path = format!("identity/mfa/method/totp/{}", b.method);
    let page = b.w.get(&path, &root).1["data"].clone();
    for (field, value) in [
        ("type", json!("totp")),
        ("issuer", json!("Ringfence")),
        ("period", json!(30)),
        ("key_size", json!(20)),
        ("qr_size", json!(200)),
        ("algorithm", json!("SHA1")),
        ("digits", json!(6)),
        ("skew", json!(1)),
        ("max_validation_attempts", json!(5)),
        ("namespace_id", json!("root")),
        ("name", json!("phone")),
    ] {
        assert_eq!(page[field], value, "{field}");
    }
    assert_eq!(b.w.post(&path, &root, json!({"digits": 8, "algorithm": "SHA256"})).0, Code::NoContent);
    let page = b.w.get(&format!("identity/mfa/method/{}", b.method), &root).1["data"].clone();
    assert_eq!(
        (&page["digits"], &page["algorithm"], &page["issuer"]),
        (&json!(8), &json!("SHA256"), &json!("Ringfence"))
    );
    let code = b.code();
    assert_eq!((code.len(), b.once(&format!("phone:{code}")).0), (8, Code::Ok));
    for (body, text) in [
        (json!({}), "issuer must be set"),
        (json!({"issuer": "i", "digits": 7}), "digits must be 6 or 8"),
        (json!({"issuer": "i", "skew": 2}), "skew must be 0 or 1"),
        (json!({"issuer": "i", "algorithm": "MD5"}), "the algorithm is not valid: \"MD5\""),
        (json!({"issuer": "i", "period": 0}), "period must be greater than zero and at most a day"),
        (json!({"issuer": "i", "key_size": 0}), "key_size must be greater than zero and at most 128"),
        (
            json!({"issuer": "i", "qr_size": 100_000}),
            "qr_size must be greater than or equal to zero and at most 1000",
        ),
        (json!({"issuer": "i", "max_validation_attempts": 0}), "max_validation_attempts must be greater than zero"),
        (json!({"issuer": "i", "method_name": "phone"}), "method name \"phone\" is already in use"),
    ] {
        let (status, v) = b.w.post("identity/mfa/method/totp", &root, body.clone());
        assert_eq!((status, error_of(&v)), (Code::Invalid, text), "{body}");
    }
    for kind in ["duo", "okta", "pingid"] {
        let (status, v) = b.w.post(&format!("identity/mfa/method/{kind}"), &root, json!({"secret_key": "x"}));
        let text = format!("MFA methods of type \"{kind}\" are not supported by this server; supported: totp");
        assert_eq!((status, error_of(&v)), (Code::Invalid, text.as_str()));
    }
    let (status, v) = b.w.delete(&path, &root);
    assert_eq!(status, Code::Internal);
    assert!(error_of(&v).contains("methodID is still used by an enforcement configuration with ID: "), "{v}");
}

#[test]
fn secrets_of_entities() {
    let mut b = Bench::new();
    let root = b.w.root.clone();
    let body = json!({"method_id": b.method, "entity_id": b.entity});
    let (status, v) = b.w.post("identity/mfa/method/totp/admin-generate", &root, body.clone());
    assert_eq!(
        (status, &v["data"], &v["warnings"]),
        (Code::Ok, &Value::Null, &json!(["Entity already has a secret for MFA method \"phone\""]))
    );
    let page = b.w.get(&format!("identity/entity/id/{}", b.entity), &root).1;
    assert_eq!(page["data"]["mfa_secrets"], json!({&b.method: {"type": "totp"}}));
    assert_eq!(b.w.post("identity/mfa/method/totp/admin-destroy", &root, body).0, Code::NoContent);
    let (_, v) = b.once("phone:123456");
    assert!(error_of(&v).contains("MFA secret for method name \"phone\" not present in entity"), "{v}");
    // the caller's own
    b.w.delete("identity/mfa/login-enforcement/all", &root);
    b.w.policy("self", "path \"identity/mfa/method/totp/generate\" { capabilities = [\"update\"] }");
    let auth = b.w.post("auth/door/login/ann", "", json!({"policies": "self"})).1;
    let token = auth["auth"]["client_token"].as_str().unwrap().to_owned();
    let (status, v) = b.w.post("identity/mfa/method/totp/generate", &token, json!({"method_id": b.method}));
    assert_eq!(status, Code::Ok, "{v}");
    assert!(v["data"]["barcode"].as_str().is_some_and(|b| b.starts_with("iVBORw0KGgo")), "a PNG");
    let (status, v) = b.w.post("identity/mfa/method/totp/generate", &root, json!({"method_id": b.method}));
    assert_eq!((status, error_of(&v)), (Code::Invalid, "no entity associated with the request's token"));
    let before = b.w.rows(tables::MFA);
    b.w.delete(&format!("identity/entity/id/{}", b.entity), &root);
    assert!(b.w.rows(tables::MFA) < before, "the secret goes with the entity");
}

/// The secret stands in no answer but the one that made it.
#[test]
fn secrets_are_told_once() {
    let mut b = Bench::new();
    let (method, entity, root) = (b.method.clone(), b.entity.clone(), b.w.root.clone());
    let secret =
        b.w.write(|txn, _| super::records::secret(txn, NsId::ROOT, &method, &entity).unwrap().unwrap().key.clone());
    let shown = data_encoding::BASE32_NOPAD.encode(&secret);
    assert_eq!(secret.len(), 20);
    for path in [format!("identity/entity/id/{entity}"), format!("identity/mfa/method/totp/{method}")] {
        assert!(!b.w.get(&path, &root).1.to_string().contains(&shown));
    }
    assert_ne!(totp::code(&secret, Algorithm::Sha1, 6, 1), totp::code(&secret, Algorithm::Sha512, 6, 1));
}

/// A quota of tokens counted logins in one request only: in two, any number of them came through.
#[test]
fn a_login_in_two_requests_is_counted_by_lease_quotas() {
    let mut b = Bench::new();
    let root = b.w.root.clone();
    let quota = json!({"path": "auth/door", "max_leases": 2});
    assert_eq!(b.w.post("sys/quotas/lease-count/logins", &root, quota).0, Code::NoContent);
    let request = request_of(&b.begin());
    let code = b.code();
    assert_eq!(b.validate(&request, &code).0, Code::Ok, "the second token of the method");
    b.w.sleep(60);
    let request = request_of(&b.begin());
    let (code, before) = (b.code(), b.w.rows(tables::TOKEN));
    let (status, v) = b.validate(&request, &code);
    let text = "1 error occurred:\n\t* request path \"auth/door/login/ann\": lease count quota exceeded\n\n";
    assert_eq!((status, error_of(&v)), (Code::Quota, text));
    assert_eq!(b.w.rows(tables::TOKEN), before);
}

/// Whoever was merged into another entity lost the enforcement that named him, and the count of wrong codes and the code
/// he had just used along with it.
#[test]
fn a_merge_keeps_enforcements_attempts_and_used_codes() {
    let mut b = Bench::new();
    let root = b.w.root.clone();
    b.w.delete("identity/mfa/login-enforcement/all", &root);
    let body = json!({"mfa_method_ids": [b.method], "identity_entity_ids": [b.entity]});
    assert_eq!(b.w.post("identity/mfa/login-enforcement/one", &root, body).0, Code::NoContent);
    let code = b.code();
    assert_eq!(b.once(&format!("phone:{code}")).0, Code::Ok);
    let to = b.w.post("identity/entity", &root, json!({"name": "to"})).1["data"]["id"].as_str().unwrap().to_owned();
    let body = json!({"to_entity_id": to, "from_entity_ids": [b.entity]});
    assert_eq!(b.w.post("identity/entity/merge", &root, body).0, Code::NoContent);
    let page = b.w.get("identity/mfa/login-enforcement/one", &root).1;
    assert_eq!(page["data"]["identity_entity_ids"], json!([to]));
    b.entity = to.clone();
    request_of(&b.begin());
    let (status, v) = b.once(&format!("phone:{code}"));
    assert_eq!(status, Code::Denied);
    assert!(error_of(&v).contains("code already used"), "{v}");
    b.w.sleep(60);
    let wrong = b.wrong();
    for _ in 0..4 {
        assert_eq!(b.once(&format!("phone:{wrong}")).0, Code::Denied);
    }
    let last =
        b.w.post("identity/entity", &root, json!({"name": "last"})).1["data"]["id"].as_str().unwrap().to_owned();
    let body = json!({"to_entity_id": last, "from_entity_ids": [to]});
    assert_eq!(b.w.post("identity/entity/merge", &root, body).0, Code::NoContent);
    b.entity = last;
    b.once(&format!("phone:{wrong}"));
    let code = b.code();
    let (_, v) = b.once(&format!("phone:{code}"));
    assert!(error_of(&v).contains("maximum TOTP validation attempts 5"), "{v}");
}

/// Periods were counted on as if they had always been as long: made longer, every code was one that had been used.
#[test]
fn another_period_locks_nobody_out_and_lets_no_code_in_twice() {
    for (period, waits) in [(60, 60), (3600, 3600), (15, 60), (45, 60)] {
        let mut b = Bench::new();
        let root = b.w.root.clone();
        let code = b.code();
        assert_eq!(b.once(&format!("phone:{code}")).0, Code::Ok);
        let path = format!("identity/mfa/method/totp/{}", b.method);
        assert_eq!(b.w.post(&path, &root, json!({"period": period})).0, Code::NoContent);
        assert_eq!(b.once(&format!("phone:{code}")).0, Code::Denied, "{period}: used");
        b.w.sleep(waits);
        let code = b.code();
        let (status, v) = b.once(&format!("phone:{code}"));
        assert_eq!(status, Code::Ok, "{period}: {v}");
        // and back: what was used in the longer period is not open again in the shorter
        assert_eq!(b.w.post(&path, &root, json!({"period": 30})).0, Code::NoContent);
        assert_eq!(b.once(&format!("phone:{code}")).0, Code::Denied);
    }
}

/// A method that an enforcement names moved to another namespace, where the enforcement does not reach, and its users
/// logged in without a second factor.
#[test]
fn a_method_does_not_move_out_from_under_its_enforcement() {
    let mut b = Bench::new();
    let root = b.w.root.clone();
    b.w.delete("identity/mfa/login-enforcement/all", &root);
    for ns in ["up", "other"] {
        assert_eq!(b.w.post(&format!("sys/namespaces/{ns}"), &root, json!({})).0, Code::Ok);
    }
    let within = |w: &mut World, op, path: &str, body: Value| {
        let mut call = w.blank(op, path, &root, body);
        call.namespace = Some("up".into());
        told(w.send(call))
    };
    let moved = |w: &mut World, from: &str, to: &str| w.post("sys/remount", &root, json!({"from": from, "to": to}));
    assert_eq!(moved(&mut b.w, "auth/door", "up/auth/door").0, Code::Ok);
    let config = json!({"issuer": "Ringfence", "method_name": "phone"});
    let method =
        within(&mut b.w, Operation::Update, "identity/mfa/method/totp", config).1["data"]["method_id"].clone();
    let body = json!({"mfa_method_ids": [method], "auth_method_accessors": ["door_1"]});
    let (code, v) = within(&mut b.w, Operation::Update, "identity/mfa/login-enforcement/one", body);
    assert_eq!(code, Code::NoContent, "{v}");
    for to in ["auth/door", "other/auth/door"] {
        let (code, v) = moved(&mut b.w, "up/auth/door", to);
        let text = "cannot remount: login enforcement \"one\" names this auth method and would no longer hold there";
        assert_eq!((code, error_of(&v)), (Code::Invalid, text), "{to}");
    }
    assert_eq!(moved(&mut b.w, "up/auth/door", "up/auth/gate").0, Code::Ok, "where it holds");
    within(&mut b.w, Operation::Delete, "identity/mfa/login-enforcement/one", Value::Null);
    assert_eq!(moved(&mut b.w, "up/auth/gate", "auth/door").0, Code::Ok);
}
