//! Quotas over the real binary: 429 and its headers, one limit for all cores, lease counts after a crash.

use super::harness::{Server, request};
use serde_json::{Value, json};

fn quota(s: &Server, path: &str, body: &Value) {
    let a = s.put(&format!("sys/quotas/{path}"), &s.root, body);
    assert_eq!(a.status, 204, "{:?}", a.errors());
}

#[test]
fn a_rate_limit_is_one_limit_on_all_cores() {
    let s = Server::ready("quota-rate");
    quota(&s, "config", &json!({"enable_rate_limit_response_headers": true}));
    // an interval so long that the test sees one of them, or two if it begins at an end
    quota(&s, "rate-limit/mounts", &json!({"path": "sys/", "rate": 20, "interval": "1h"}));
    let answers: Vec<_> = std::thread::scope(|scope| {
        let cores: Vec<_> = (0..8).map(|_| scope.spawn(|| [(); 10].map(|()| s.get("sys/mounts", &s.root)))).collect();
        cores.into_iter().flat_map(|t| t.join().expect("a client")).collect()
    });
    let passed = answers.iter().filter(|a| a.status == 200).count();
    assert!(passed == 20 || (20..=40).contains(&passed), "{passed}");
    let refused = answers.iter().find(|a| a.status == 429).expect("one refusal");
    assert_eq!(refused.errors(), json!(["request path \"sys/mounts\": rate limit quota exceeded"]));
    assert_eq!(refused.header("x-ratelimit-limit"), Some("20"));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    for name in ["retry-after", "x-ratelimit-reset"] {
        let seconds: u64 = refused.header(name).and_then(|v| v.parse().ok()).expect(name);
        assert!((1..=3600).contains(&seconds), "{name} {seconds}");
    }
    // what an orchestrator needs is never counted
    assert!((0..30).all(|_| s.get("sys/health", "").status == 200));
    assert!((0..30).all(|_| s.get("sys/seal-status", "").status == 200));
    // a stranger without a token is refused for his number, not looked at
    let a = request(s.port, "GET", "sys/mounts", &[], None).expect("an answer");
    assert!(a.status == 429 || passed > 20, "{}", a.status);
}

#[test]
fn lease_counts_are_right_after_a_crash() {
    let mut s = Server::ready("quota-leases");
    let up = s.put("sys/auth/userpass", &s.root, &json!({"type": "userpass"}));
    assert_eq!(up.status, 204, "{:?}", up.errors());
    let user = json!({"password": "p", "token_policies": "default"});
    assert_eq!(s.put("auth/userpass/users/bob", &s.root, &user).status, 204);
    let login = |s: &Server| s.put("auth/userpass/login/bob", "", &json!({"password": "p"}));
    assert_eq!(login(&s).status, 200);
    quota(&s, "lease-count/logins", &json!({"path": "auth/userpass", "max_leases": 3}));
    let tokens: Vec<Value> = (0..2).map(|_| login(&s).json()["auth"]["client_token"].clone()).collect();
    let text = "1 error occurred:\n\t* request path \"auth/userpass/login/bob\": lease count quota exceeded\n\n";
    let a = login(&s);
    assert_eq!((a.status, a.errors()), (429, json!([text])));
    s.kill();
    s.start();
    s.unseal();
    assert_eq!(login(&s).status, 429);
    assert_eq!(s.get("sys/quotas/lease-count/logins", &s.root).json()["data"]["counter"], 3);
    let a = s.put("auth/token/revoke", &s.root, &json!({"token": tokens[0]}));
    assert_eq!(a.status, 204);
    assert_eq!(login(&s).status, 200);
    assert_eq!(login(&s).status, 429);
}

/// Bodies were taken in and parsed before anybody asked how many a client may send (CVE-2025-6203, CVE-2025-12044).
#[test]
fn cve_2025_12044_who_is_over_his_limit_has_his_body_left_unread() {
    let s = Server::ready("quota-body");
    quota(&s, "rate-limit/policies", &json!({"path": "sys/", "rate": 1, "interval": "1h", "block_interval": "1h"}));
    while s.get("sys/mounts", &s.root).status != 429 {}
    // neither too large nor malformed is what he hears
    let giant = vec![b'['; 1 << 20];
    for body in [&b"{not json"[..], &giant] {
        let a = s.request("PUT", "sys/policies/acl/x", &s.root, Some(body));
        assert_eq!(a.status, 429, "{:?}", a.errors());
    }
}

/// A quota of a role counted what the body called `role`: an AppRole login names none, so it was never counted, and any
/// login could put itself under another quota.
#[test]
fn a_quota_of_a_role_counts_the_role_that_the_method_finds() {
    let s = Server::ready("quota-role");
    let up = s.put("sys/auth/approle", &s.root, &json!({"type": "approle"}));
    assert_eq!(up.status, 204, "{:?}", up.errors());
    let id = |name: &str| {
        let a = s.put(
            &format!("auth/approle/role/{name}"),
            &s.root,
            &json!({"bind_secret_id": false, "secret_id_bound_cidrs": "127.0.0.1/32"}),
        );
        assert_eq!(a.status, 204, "{:?}", a.errors());
        s.get(&format!("auth/approle/role/{name}/role-id"), &s.root).json()["data"]["role_id"].clone()
    };
    let (web, other) = (id("web"), id("other"));
    quota(&s, "rate-limit/web", &json!({"path": "auth/approle", "role": "web", "rate": 3, "interval": "1h"}));
    let login =
        |id: &Value, role: &str| s.put("auth/approle/login", "", &json!({"role_id": id, "role": role})).status;
    let web_logins = |n: usize| (0..n).filter(|_| login(&web, "other") == 200).count();
    // an interval so long that the test sees one of them, or two if it begins at an end
    let passed = web_logins(8);
    assert!((3..=6).contains(&passed), "{passed}");
    assert!((0..8).all(|_| login(&other, "web") == 200), "another role's logins are its own");
}
