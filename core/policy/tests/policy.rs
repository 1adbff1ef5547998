//! Policy texts: the refusals that clients know word for word, and what the keys mean.

use ringfence_base::Wall;
use ringfence_policy::{Acl, AclRequest, Capabilities, Operation, Policy};

fn refusal(text: &str) -> String {
    Policy::parse("p", text).expect_err(text).to_string()
}

fn compile(texts: &[&str]) -> Acl {
    let policies: Vec<Policy> =
        texts.iter().enumerate().map(|(i, t)| Policy::parse(&format!("p{i}"), t).expect(t)).collect();
    Acl::compile(policies.iter().map(|p| ("", p)), None, Wall(0))
}

fn allows(acl: &Acl, op: Operation, path: &str) -> bool {
    acl.allow(&AclRequest { path, op, parameters: None, wrap_ttl_seconds: None }).allowed
}

#[test]
fn refusals_word_for_word() {
    for (text, expected) in [
        (r#"path "x" { capabilities = ["foo"] }"#, r#"path "x": invalid capability "foo""#),
        (r#"path "x" { capabilities = ["root"] }"#, r#"path "x": invalid capability "root""#),
        (r#"path "x" { capabilities = ["Read"] }"#, r#"path "x": invalid capability "Read""#),
        (r#"path "/x" { policy = "banana" }"#, r#"path "/x": invalid policy "banana""#),
        ("name = \"n\"\n\nbar = \"x\"", "1 error occurred:\n\t* invalid key \"bar\" on line 3\n\n"),
        (
            "path \"x\" {\n  capabilities = [\"read\"]\n  capabilites = [\"read\"]\n  other = 1\n}",
            "2 errors occurred:\n\t* path \"x\": invalid key \"capabilites\" on line 3\n\t* path \"x\": invalid key \"other\" on line 4\n\n",
        ),
        (r#"path "a/+*" { }"#, r#"path "a/+*": invalid use of wildcards ('+*' is forbidden)"#),
        (
            r#"path "x" { min_wrapping_ttl = "2h" max_wrapping_ttl = "1h" }"#,
            "max_wrapping_ttl cannot be less than min_wrapping_ttl",
        ),
        (
            r#"path "x" { min_wrapping_ttl = "soon" }"#,
            r#"error parsing min_wrapping_ttl: time: invalid duration "soon""#,
        ),
        (r#"path "x/{{a" { }"#, "failed to validate policy templating: unbalanced templating characters"),
        (r#"path "x" { control_group = { } }"#, "no control group factors provided"),
        (r#"path "x" { control_group { factor "f" { } } }"#, "no control_group factor provided"),
        (
            r#"path "x" { control_group { factor "f" { identity { group_names = ["g"] } } } }"#,
            "must provide more than one identity group and approvals > 0",
        ),
        (
            r#"path "x" { capabilities = ["read"] control_group { factor "f" { controlled_capabilities = ["update"] identity { group_ids = ["g"] approvals = 1 } } } }"#,
            "control group factor capabilities must be a subset of the policy's capabilities",
        ),
        (r#"path "x" { capabilities = "read" }"#, r#"path "x": "capabilities" must be a list of strings"#),
        (
            r#"path "x" { allowed_parameters = { a = "b" } }"#,
            r#"path "x": "allowed_parameters" must be a map of lists"#,
        ),
        (r#"path "x" { expiration = "tomorrow" }"#, r#"path "x": "expiration" must be an RFC 3339 time"#),
        ("path \"x\" {", "At 1:11: object expected closing RBRACE got: EOF"),
        ("path = 1", "At 1:1: \"path\" must be a block"),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
}

#[test]
fn every_key_is_accepted() {
    let text = r#"
        name = "ignored"
        path "secret/x" {
          capabilities = ["create","read","update","patch","delete","list","sudo","subscribe","recover","scan"]
          allowed_parameters  = { "ttl" = ["1h", "2h"], "*" = [] }
          denied_parameters   { admin = [] }
          required_parameters = ["TTL"]
          min_wrapping_ttl = "1m"  max_wrapping_ttl = 3600
          mfa_methods = ["m1"]
          control_group = {
            ttl = "4h"
            self_auth_allowed = false
            factor "x" { controlled_capabilities = ["read"] identity { group_names = ["g"] approvals = 2 } }
          }
          subscribe_event_types = ["kv*"]
          expiration = "2030-01-01T00:00:00Z"
          pagination_limit = 50
          list_scan_response_keys_filter_path = "f"
          comment = "x"
        }"#;
    let acl = compile(&[text]);
    let read =
        acl.allow(&AclRequest { path: "secret/x", op: Operation::Read, parameters: None, wrap_ttl_seconds: None });
    assert!(!read.allowed && read.sudo);
    let p = read.permissions().expect("matched");
    assert_eq!((p.min_wrapping_ttl_seconds(), p.max_wrapping_ttl_seconds()), (60, 3600));
    assert_eq!(p.required_parameters, ["ttl"]);
    assert_eq!((p.pagination_limit, p.list_scan_response_keys_filter_path.as_deref()), (50, Some("f")));
    assert_eq!(p.subscribe_event_types, ["kv*"]);
    assert_eq!(read.mfa_methods(), ["m1"]);
    let group = read.control_group().expect("reads are controlled");
    assert_eq!((group.ttl_ns, group.self_auth_allowed), (4 * 3_600_000_000_000, Some(false)));
    assert_eq!(group.factors[0].controlled_capabilities, Capabilities::READ);
    assert_eq!((group.factors[0].approvals, group.factors[0].group_names.as_slice()), (2, &["g".to_owned()][..]));
    let list = acl.allow(&AclRequest {
        path: "secret/x",
        op: Operation::List,
        parameters: None,
        wrap_ttl_seconds: Some(60),
    });
    assert!(list.allowed && list.control_group().is_none(), "lists are not controlled, and have no parameters");
}

#[test]
fn the_old_way_and_repeated_keys() {
    let acl = compile(&[
        r#"path "r" { policy = "read" } path "w" { policy = "write" } path "s" { policy = "sudo" } path "d" { policy = "deny" }"#,
        r#"path "m" { policy = "read" capabilities = ["patch"] capabilities = ["create"] }"#,
        r#"path "x" { capabilities = ["read"] capabilities = ["deny", "nonsense"] }"#,
    ]);
    assert_eq!(acl.capabilities("r"), ["list", "read"]);
    assert_eq!(acl.capabilities("w"), ["create", "delete", "list", "read", "update"]);
    assert_eq!(acl.capabilities("s"), ["create", "delete", "list", "read", "sudo", "update"]);
    assert_eq!(acl.capabilities("d"), ["deny"]);
    assert_eq!(acl.capabilities("m"), ["create", "list", "patch", "read"]);
    assert_eq!(acl.capabilities("x"), ["deny"], "a denial anywhere denies");
}

#[test]
fn json_form() {
    for text in [
        r#"{"path":{"secret/*":{"capabilities":["read"],"allowed_parameters":{"a":["b"]}},"x":{"policy":"write"}}}"#,
        r#"{"path":[{"secret/*":{"capabilities":["read"],"allowed_parameters":[{"a":["b"]}]}},{"x":[{"policy":"write"}]}]}"#,
        r#"path = { "secret/*" = { capabilities = ["read"] allowed_parameters { a = ["b"] } } x = { policy = "write" } }"#,
    ] {
        let acl = compile(&[text]);
        assert!(allows(&acl, Operation::Read, "secret/a"), "{text}");
        assert!(allows(&acl, Operation::Delete, "x"), "{text}");
        let p = acl.allow(&AclRequest {
            path: "secret/a",
            op: Operation::Read,
            parameters: None,
            wrap_ttl_seconds: None,
        });
        assert_eq!(p.permissions().expect("matched").allowed_parameters["a"], ["b"], "{text}");
    }
}

#[test]
fn a_rule_expires() {
    let policy = Policy::parse("p", r#"path "a" { capabilities = ["read"] expiration = "2030-01-01T00:00:00Z" }"#)
        .expect("parses");
    let at = Wall::parse_rfc3339("2030-01-01T00:00:00Z").expect("a time");
    let before = Acl::compile([("", &policy)], None, Wall(at.0 - 1));
    assert!(allows(&before, Operation::Read, "a"));
    assert_eq!(before.valid_until(), Some(at));
    let after = Acl::compile([("", &policy)], None, at);
    assert!(!allows(&after, Operation::Read, "a"));
    assert_eq!(after.valid_until(), None);
}

#[test]
fn empty_policies_are_policies() {
    for text in ["", "{}", "# nothing\n", "name = \"x\""] {
        let policy = Policy::parse("p", text).expect("parses");
        assert_eq!(policy.rule_count(), 0);
        assert!(!policy.is_templated());
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(500))]

    #[test]
    fn any_text_is_safe(text in "(path \"[a+*/{}]{0,6}\" \\{( ?(capabilities|policy|ttl|control_group|min_wrapping_ttl) ?= ?(\\[\"(read|deny|x)\"\\]|\"(read|1h)\"|3|\\{\\}))?\\}\n?){0,3}") {
        if let Ok(policy) = Policy::parse("p", &text) {
            let acl = Acl::compile([("ns/", &policy)], None, Wall(0));
            let _ = acl.capabilities("ns/a/");
        }
    }
}
