//! Matching against a model written from the rules' prose, and the published faults by name.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ringfence_base::Wall;
use ringfence_policy::{Acl, AclRequest, Field, GroupKey, Operation, Policy, TemplateSource, builtin};
use serde_json::{Map, Value as Json, json};

fn parse(name: &str, text: &str) -> Policy {
    Policy::parse(name, text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn compile(texts: &[&str]) -> Acl {
    let policies: Vec<Policy> = texts.iter().enumerate().map(|(i, t)| parse(&format!("p{i}"), t)).collect();
    Acl::compile(policies.iter().map(|p| ("", p)), None, Wall(0))
}

fn allows(acl: &Acl, op: Operation, path: &str) -> bool {
    acl.allow(&AclRequest { path, op, parameters: None, wrap_ttl_seconds: None }).allowed
}

// ---- the model: slow, and in the words of the documentation ----

#[derive(Clone, Debug)]
struct ModelRule {
    namespace: &'static str,
    path: String,
    capabilities: BTreeSet<&'static str>,
    allowed: Option<Vec<&'static str>>,
    denied: Option<Vec<&'static str>>,
}

impl ModelRule {
    fn full(&self) -> String {
        format!("{}{}", self.namespace, self.path)
    }

    fn has_plus(&self) -> bool {
        self.path.split('/').any(|s| s == "+")
    }

    fn is_open(&self) -> bool {
        self.path.ends_with('*')
    }

    fn is_exact(&self) -> bool {
        !self.has_plus() && !self.is_open()
    }

    fn text(&self) -> String {
        let list = |v: &[&str]| v.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        let capabilities: Vec<_> = self.capabilities.iter().copied().collect();
        let mut out = format!("path {:?} {{ capabilities = [{}]", self.path, list(&capabilities));
        if let Some(v) = &self.allowed {
            out.push_str(&format!(" allowed_parameters = {{ p = [{}] }}", list(v)));
        }
        if let Some(v) = &self.denied {
            out.push_str(&format!(" denied_parameters = {{ p = [{}] }}", list(v)));
        }
        out.push_str(" }\n");
        out
    }
}

/// Character by character; `+` between slashes takes one or more characters that are not slashes.
fn matches(pattern: &[u8], open: bool, path: &[u8], at_start: bool) -> bool {
    match pattern.first() {
        None => open || path.is_empty(),
        Some(b'+') if at_start && matches!(pattern.get(1), None | Some(b'/')) => {
            let n = path.iter().take_while(|b| **b != b'/').count();
            n > 0 && matches(&pattern[1..], open, &path[n..], false)
        }
        Some(c) => path.first() == Some(c) && matches(&pattern[1..], open, &path[1..], *c == b'/'),
    }
}

fn rule_matches(rule: &ModelRule, path: &str) -> bool {
    let full = rule.full();
    let body = if rule.is_open() { &full[..full.len() - 1] } else { &full[..] };
    matches(body.as_bytes(), rule.is_open(), path.as_bytes(), true)
}

/// `Less` if `a` has the lower priority.
fn priority(a: &str, b: &str) -> Ordering {
    let first = |s: &str| {
        let mut at = 0;
        for segment in s.split('/') {
            if segment == "+" {
                return at;
            }
            at += segment.len() + 1;
        }
        if s.ends_with('*') { s.len() - 1 } else { s.len() }
    };
    let plus = |s: &str| s.split('/').filter(|x| *x == "+").count();
    let body = |s: &str| s.strip_suffix('*').unwrap_or(s).to_owned();
    if first(a) != first(b) {
        return first(a).cmp(&first(b));
    }
    if a.ends_with('*') != b.ends_with('*') {
        return if a.ends_with('*') { Ordering::Less } else { Ordering::Greater };
    }
    if plus(a) != plus(b) {
        return plus(b).cmp(&plus(a));
    }
    body(a).len().cmp(&body(b).len()).then_with(|| body(a).cmp(&body(b)))
}

/// The full path of the one rule set that speaks, and whether it is an exact one.
fn model_select(rules: &[ModelRule], path: &str, op: Operation) -> Option<String> {
    let exact = |p: &str| rules.iter().find(|r| r.is_exact() && r.full() == p).map(ModelRule::full);
    if let Some(found) = exact(path) {
        return Some(found);
    }
    let bare = path.strip_suffix('/');
    if let (Operation::List | Operation::Scan, Some(bare)) = (op, bare)
        && let Some(found) = exact(bare)
    {
        return Some(found);
    }
    let best = |p: &str| {
        rules
            .iter()
            .filter(|r| !r.is_exact() && rule_matches(r, p))
            .map(ModelRule::full)
            .max_by(|a, b| priority(a, b))
    };
    best(path).or_else(|| if op == Operation::List { best(bare?) } else { None })
}

struct Merged {
    capabilities: BTreeSet<&'static str>,
    allowed: Option<BTreeSet<&'static str>>,
    denied: Option<BTreeSet<&'static str>>,
    granting: BTreeMap<&'static str, BTreeSet<usize>>,
}

/// Unions; a denial wins over everything; an empty list is any value.
fn model_merge(rules: &[ModelRule], policy_of: &[usize], full: &str) -> Merged {
    let mut out = Merged { capabilities: BTreeSet::new(), allowed: None, denied: None, granting: BTreeMap::new() };
    let same: Vec<usize> = (0..rules.len()).filter(|i| rules[*i].full() == full).collect();
    if same.iter().any(|i| rules[*i].capabilities.contains("deny")) {
        out.capabilities.insert("deny");
        return out;
    }
    let union = |lists: Vec<&Vec<&'static str>>| {
        if lists.is_empty() {
            return None;
        }
        if lists.iter().any(|l| l.is_empty()) {
            return Some(BTreeSet::new());
        }
        Some(lists.into_iter().flatten().copied().collect())
    };
    for i in &same {
        out.capabilities.extend(rules[*i].capabilities.iter().copied());
        for c in &rules[*i].capabilities {
            out.granting.entry(*c).or_default().insert(policy_of[*i]);
        }
    }
    out.allowed = union(same.iter().filter_map(|i| rules[*i].allowed.as_ref()).collect());
    out.denied = union(same.iter().filter_map(|i| rules[*i].denied.as_ref()).collect());
    out
}

fn model_parameters(m: &Merged, data: Option<(&str, &str)>) -> bool {
    let Some((name, value)) = data else { return true };
    if let Some(denied) = &m.denied
        && name == "p"
        && (denied.is_empty() || denied.contains(value))
    {
        return false;
    }
    match &m.allowed {
        None => true,
        Some(values) => name == "p" && (values.is_empty() || values.contains(value)),
    }
}

fn rule() -> impl Strategy<Value = ModelRule> {
    let segment = prop::sample::select(vec!["a", "b", "ab", "+", "+", "+x", "a+", "a*b", ""]);
    let tail = prop::sample::select(vec!["", "", "*", "/*", "/", "a*", "/+"]);
    let path = (prop::collection::vec(segment, 1..4), tail)
        .prop_map(|(s, t)| format!("{}{t}", s.join("/")).trim_start_matches('/').to_owned())
        .prop_filter("+* is refused", |p| !p.contains("+*"));
    // paths that meet often, so that rules of several policies are merged
    let path =
        prop_oneof![path, prop::sample::select(vec!["a", "a/b", "a/*", "a/+", "+/b", "a/"]).prop_map(str::to_owned)];
    let names = vec!["create", "read", "update", "delete", "list", "scan", "patch", "sudo", "deny"];
    let capabilities = prop::collection::btree_set(prop::sample::select(names), 0..4);
    let values = prop::option::weighted(0.3, prop::collection::vec(prop::sample::select(vec!["v", "w"]), 0..3));
    (prop::sample::select(vec!["", "", "a/", "b/a/"]), path, capabilities, values.clone(), values).prop_map(
        |(namespace, path, capabilities, allowed, denied)| ModelRule {
            namespace,
            path,
            capabilities,
            allowed,
            denied,
        },
    )
}

fn request_path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "ab", "+", "+x", "a+", "a*b", "c"]);
    (prop::collection::vec(segment, 0..5), any::<bool>())
        .prop_map(|(s, slash)| if slash && !s.is_empty() { s.join("/") + "/" } else { s.join("/") })
}

const OPERATIONS: [(Operation, &str); 8] = [
    (Operation::Create, "create"),
    (Operation::Read, "read"),
    (Operation::Update, "update"),
    (Operation::Patch, "patch"),
    (Operation::Delete, "delete"),
    (Operation::List, "list"),
    (Operation::Scan, "scan"),
    (Operation::Renew, "update"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn decisions_agree_with_the_model(
        policies in prop::collection::vec(prop::collection::vec(rule(), 1..6), 1..4),
        paths in prop::collection::vec(request_path(), 1..8),
        parameter in prop::option::of((prop::sample::select(vec!["p", "q"]), prop::sample::select(vec!["v", "w", "z"]))),
    ) {
        // a policy stands in one namespace
        let policies: Vec<Vec<ModelRule>> = policies
            .into_iter()
            .map(|rules| {
                let namespace = rules[0].namespace;
                rules.into_iter().map(|r| ModelRule { namespace, ..r }).collect()
            })
            .collect();
        let parsed: Vec<(&str, Policy)> = policies
            .iter()
            .enumerate()
            .map(|(i, rules)| {
                let text: String = rules.iter().map(ModelRule::text).collect();
                (rules[0].namespace, parse(&i.to_string(), &text))
            })
            .collect();
        let acl = Acl::compile(parsed.iter().map(|(n, p)| (*n, p)), None, Wall(0));
        let policy_of: Vec<usize> = policies.iter().enumerate().flat_map(|(i, r)| r.iter().map(move |_| i)).collect();
        let rules: Vec<ModelRule> = policies.into_iter().flatten().collect();
        let data: Option<Map<String, Json>> = parameter.map(|(n, v)| Map::from_iter([(n.to_owned(), json!(v))]));
        for path in &paths {
            for (op, needed) in OPERATIONS {
                let decision = acl.allow(&AclRequest { path, op, parameters: data.as_ref(), wrap_ttl_seconds: None });
                let chosen = model_select(&rules, path, op);
                let merged = model_merge(&rules, &policy_of, chosen.as_deref().unwrap_or("\0"));
                let sees = matches!(op, Operation::Create | Operation::Read | Operation::Update | Operation::Patch);
                let expected = merged.capabilities.contains(needed) && (!sees || model_parameters(&merged, parameter));
                prop_assert_eq!(decision.allowed, expected, "{:?} {} by {:?}", op, path, chosen);
                prop_assert_eq!(decision.sudo, merged.capabilities.contains("sudo"));
                let granting: BTreeSet<usize> =
                    decision.granting_policies().map(|g| g.name.parse().expect("a number")).collect();
                prop_assert_eq!(granting, merged.granting.get(needed).cloned().unwrap_or_default());
            }
            let chosen = model_select(&rules, path, Operation::List);
            let merged = model_merge(&rules, &policy_of, chosen.as_deref().unwrap_or("\0"));
            let shown: Vec<&str> = match merged.capabilities.is_empty() {
                true => vec!["deny"],
                false => merged.capabilities.iter().copied().collect(),
            };
            prop_assert_eq!(acl.capabilities(path), shown);
            prop_assert_eq!(acl.any_capability(path), acl.capabilities(path) != ["deny"]);
        }
    }

    /// Whatever is granted below a mount, the mount is shown; what is not reachable at all is not.
    #[test]
    fn access_below_a_mount(rules in prop::collection::vec(rule(), 0..5), mount in "(a|b|ab|c)/((a|b|c)/)?", rest in request_path()) {
        let rules: Vec<ModelRule> = rules.into_iter().map(|r| ModelRule { namespace: "", ..r }).collect();
        let text: String = rules.iter().map(ModelRule::text).collect();
        let acl = Acl::compile([("", &parse("p", &text))], None, Wall(0));
        if acl.any_capability(&format!("{mount}{rest}")) {
            prop_assert!(acl.has_access_below(&mount), "{} {}\n{}", mount, rest, text);
        }
        if !rules.iter().any(|r| {
            let grants = !r.capabilities.is_empty() && !r.capabilities.contains("deny");
            // some path below the mount could match
            grants && could_match_below(&r.path, &mount)
        }) {
            prop_assert!(!acl.has_access_below(&mount), "{}\n{}", mount, text);
        }
    }
}

/// True unless the pattern and the mount's path contradict each other in a segment both have.
fn could_match_below(pattern: &str, mount: &str) -> bool {
    let open = pattern.ends_with('*');
    let body = pattern.strip_suffix('*').unwrap_or(pattern);
    let segments: Vec<&str> = body.split('/').collect();
    for (i, m) in mount.trim_end_matches('/').split('/').enumerate() {
        match segments.get(i) {
            None => return open,
            Some(p) if i + 1 == segments.len() && open => return m.starts_with(p),
            Some(&"+") => {}
            Some(p) if *p == m => {}
            Some(_) => return false,
        }
    }
    true
}

// ---- cases ----

#[test]
fn the_most_specific_rule_replaces_broader_ones() {
    let acl = compile(&[r#"
        path "secret/*"           { capabilities = ["read", "list", "update"] }
        path "secret/team/*"      { capabilities = ["read"] }
        path "secret/team/x"      { capabilities = ["deny"] }
        path "secret/+/shared"    { capabilities = ["list"] }
        path "secret/+/shared/*"  { capabilities = ["delete"] }
        path "+/config"           { capabilities = ["sudo", "read"] }
    "#]);
    assert_eq!(acl.capabilities("secret/a"), ["list", "read", "update"]);
    assert_eq!(acl.capabilities("secret/team/a"), ["read"]);
    assert_eq!(acl.capabilities("secret/team/x"), ["deny"]);
    assert_eq!(acl.capabilities("secret/team/shared"), ["read"], "its first wildcard comes later");
    assert_eq!(acl.capabilities("secret/a/shared"), ["list"], "same place, but not open");
    assert_eq!(acl.capabilities("secret/a/shared/b"), ["list", "read", "update"], "same place, both open, fewer +");
    assert_eq!(acl.capabilities("pki/config"), ["read", "sudo"]);
    assert_eq!(acl.capabilities("secret/config"), ["list", "read", "update"]);
    assert_eq!(acl.capabilities("other"), ["deny"]);
    assert_eq!(acl.capabilities("/secret/team/a"), ["read"], "leading slashes mean nothing");
}

/// GHSA-xp3c-3jw3-4vcr: a listing of `restricted/` was first looked up without its slash, where only the broad rule
/// matched, and the denial on `restricted/*` was never seen.
#[test]
fn ghsa_xp3c_a_listing_does_not_pass_a_more_specific_denial() {
    for (broad, denial) in [
        ("secret/metadata/*", "secret/metadata/restricted/*"),
        ("secret/*", "secret/metadata/restricted/*"),
        ("+/metadata/*", "secret/metadata/restricted/*"),
        ("secret/metadata/+", "secret/metadata/restricted/*"),
        ("secret/metadata/restricted*", "secret/metadata/restricted/*"),
        ("secret/+/*", "secret/metadata/+/*"),
        ("secret/metadata/*", "secret/metadata/restricted/"),
        ("secret/metadata/*", "secret/metadata/restricted"),
    ] {
        let acl = compile(&[
            &format!(r#"path "{broad}" {{ capabilities = ["list", "scan", "read"] }}"#),
            &format!(r#"path "{denial}" {{ capabilities = ["deny"] }}"#),
        ]);
        for op in [Operation::List, Operation::Scan] {
            assert!(!allows(&acl, op, "secret/metadata/restricted/"), "{op}: {broad} against {denial}");
        }
        assert_eq!(acl.capabilities("secret/metadata/restricted/"), ["deny"], "{broad} against {denial}");
    }
}

#[test]
fn a_listing_forgives_a_missing_slash() {
    let acl = compile(&[r#"
        path "a/exact"  { capabilities = ["list"] }
        path "b/+"      { capabilities = ["list", "scan"] }
        path "c/glob*"  { capabilities = ["list"] }
    "#]);
    assert!(allows(&acl, Operation::List, "a/exact/"));
    assert!(allows(&acl, Operation::List, "b/x/"));
    assert!(!allows(&acl, Operation::Scan, "b/x/"), "only listings try again");
    assert!(allows(&acl, Operation::List, "c/glob/"));
    assert!(!allows(&acl, Operation::Read, "a/exact/"));
    assert!(!allows(&acl, Operation::List, "b/"), "+ is never empty");
}

#[test]
fn operations_and_root() {
    let acl = compile(&[
        r#"path "a" { capabilities = ["read", "sudo"] } path "b" { capabilities = ["sudo"] } path "e" { capabilities = [] }"#,
    ]);
    assert!(allows(&acl, Operation::Header, "a"), "HEAD is a read");
    assert!(!allows(&acl, Operation::Read, "b"), "sudo alone grants nothing");
    assert!(allows(&acl, Operation::Help, "nowhere"));
    assert!(!allows(&acl, Operation::AliasLookahead, "a"));
    assert!(!allows(&acl, Operation::Read, "e"));
    let root = Acl::root();
    let d = root.allow(&AclRequest { path: "x", op: Operation::Revoke, parameters: None, wrap_ttl_seconds: None });
    assert!(d.allowed && d.sudo && d.root);
    assert_eq!(d.granting_policies().map(|g| &*g.name).collect::<Vec<_>>(), ["root"]);
    assert_eq!(root.capabilities("x"), ["root"]);
    assert!(root.has_access_below("x/") && root.resultant().root);
    // a policy that calls itself root is nothing special
    let fake = parse("root", r#"path "a" { capabilities = ["read"] }"#);
    let fake = Acl::compile([("", &fake)], None, Wall(0));
    assert!(!fake.is_root() && !allows(&fake, Operation::Read, "b"));
}

#[test]
fn namespaces_are_part_of_the_path() {
    let p = parse("p", r#"path "secret/*" { capabilities = ["read"] } path "+/x" { capabilities = ["list"] }"#);
    let acl = Acl::compile([("ns1/", &p)], None, Wall(0));
    assert!(allows(&acl, Operation::Read, "ns1/secret/a"));
    assert!(!allows(&acl, Operation::Read, "secret/a"));
    assert!(!allows(&acl, Operation::Read, "ns2/secret/a"));
    assert!(!allows(&acl, Operation::Read, "ns1/child/secret/a"));
    assert!(allows(&acl, Operation::List, "ns1/pki/x"));
    let d = acl.allow(&AclRequest {
        path: "ns1/secret/a",
        op: Operation::Read,
        parameters: None,
        wrap_ttl_seconds: None,
    });
    let g: Vec<_> = d.granting_policies().map(|g| (&*g.name, &*g.namespace)).collect();
    assert_eq!(g, [("p", "ns1/")]);
    // even a namespace with a wildcard's name is only itself
    let odd = Acl::compile([("+/", &p)], None, Wall(0));
    assert!(allows(&odd, Operation::Read, "+/secret/a"));
    assert!(!allows(&odd, Operation::Read, "ns1/secret/a") && !allows(&odd, Operation::List, "ns1/pki/x"));
    // policies of a parent reach into the child by its full path, and share a set with the child's own
    let parent = parse("q", r#"path "ns1/secret/*" { capabilities = ["update"] }"#);
    let both = Acl::compile([("ns1/", &p), ("", &parent)], None, Wall(0));
    assert_eq!(both.capabilities("ns1/secret/a"), ["read", "update"]);
}

#[test]
fn wrapping_limits() {
    let ask = |acl: &Acl, path, ttl| {
        acl.allow(&AclRequest { path, op: Operation::Read, parameters: None, wrap_ttl_seconds: ttl }).allowed
    };
    let acl = compile(&[
        r#"path "min" { capabilities = ["read"] min_wrapping_ttl = "1m" }
           path "max" { capabilities = ["read"] max_wrapping_ttl = "1h" }
           path "two" { capabilities = ["read"] min_wrapping_ttl = 60 max_wrapping_ttl = "2h" }"#,
        r#"path "two" { capabilities = ["read"] min_wrapping_ttl = 30 max_wrapping_ttl = "1h" }"#,
    ]);
    assert!(!ask(&acl, "min", None) && !ask(&acl, "min", Some(59)) && ask(&acl, "min", Some(60)));
    assert!(!ask(&acl, "max", None) && !ask(&acl, "max", Some(3601)) && ask(&acl, "max", Some(3600)));
    assert!(ask(&acl, "two", Some(30)) && ask(&acl, "two", Some(3600)), "the smaller of each");
    assert!(!ask(&acl, "two", Some(29)) && !ask(&acl, "two", Some(3601)));
    let contradiction = compile(&[
        r#"path "x" { capabilities = ["read"] min_wrapping_ttl = "2h" }"#,
        r#"path "x" { capabilities = ["read"] max_wrapping_ttl = "1h" }"#,
    ]);
    assert!([None, Some(3600), Some(5400), Some(7200)].iter().all(|t| !ask(&contradiction, "x", *t)));
}

#[test]
fn parameters_of_several_policies() {
    let acl = compile(&[
        r#"path "x" { capabilities = ["update"] allowed_parameters = { a = ["1"] b = [] } required_parameters = ["a"] }"#,
        r#"path "x" { capabilities = ["update"] allowed_parameters = { a = ["2"] c = ["3"] } }"#,
    ]);
    let ask = |data: Json| {
        let parameters = data.as_object();
        acl.allow(&AclRequest { path: "x", op: Operation::Update, parameters, wrap_ttl_seconds: None }).allowed
    };
    assert!(ask(json!({"a": "1"})) && ask(json!({"a": "2", "b": "anything", "c": "3"})));
    let any = r#"path "y" { capabilities = ["update"] allowed_parameters = { a = [] } }"#;
    let one = r#"path "y" { capabilities = ["update"] allowed_parameters = { a = ["1"] } }"#;
    for texts in [[any, one], [one, any]] {
        let acl = compile(&texts);
        let body = json!({"a": "2"});
        let parameters = body.as_object();
        let request = AclRequest { path: "y", op: Operation::Update, parameters, wrap_ttl_seconds: None };
        assert!(acl.allow(&request).allowed, "no values mean any, on either side");
    }
    assert!(!ask(json!({"a": "3"})) && !ask(json!({"a": "1", "d": 1})) && !ask(json!({"b": 1})) && !ask(json!({})));
}

struct Bob;

impl TemplateSource for Bob {
    fn entity(&self, field: Field<'_>) -> Option<Cow<'_, str>> {
        match field {
            Field::Id => Some("e-7".into()),
            Field::Name => Some("bob".into()),
            _ => None,
        }
    }

    fn alias(&self, _: &str, _: Field<'_>) -> Option<Cow<'_, str>> {
        None
    }

    fn group(&self, namespace: &str, key: GroupKey<'_>, _: Field<'_>) -> Option<Cow<'_, str>> {
        (namespace == "ns1/" && key == GroupKey::Name("ops")).then(|| "g-1".into())
    }
}

#[test]
fn the_default_policy_of_someone() {
    let default = parse("default", builtin::DEFAULT_TEXT);
    let acl = Acl::compile([("", &default)], Some(&Bob), Wall(0));
    assert!(allows(&acl, Operation::Read, "auth/token/lookup-self"));
    assert!(allows(&acl, Operation::Read, "identity/entity/id/e-7"));
    assert!(allows(&acl, Operation::Read, "identity/entity/name/bob"));
    assert!(!allows(&acl, Operation::Read, "identity/entity/name/alice"));
    assert!(allows(&acl, Operation::Update, "identity/oidc/provider/x/authorize"));
    assert!(allows(&acl, Operation::Create, "cubbyhole/a/b"));
    assert!(!allows(&acl, Operation::Read, "secret/data/a"));
    let nobody = Acl::compile([("", &default)], None, Wall(0));
    assert_eq!(nobody.rule_set_count() + 2, acl.rule_set_count(), "templated paths are left out");
}

#[test]
fn templates_in_a_namespace() {
    let p = parse("p", r#"path "kv/{{identity.groups.names.ops.id}}/*" { capabilities = ["read"] }"#);
    let inside = Acl::compile([("ns1/", &p)], Some(&Bob), Wall(0));
    assert!(allows(&inside, Operation::Read, "ns1/kv/g-1/a"));
    let outside = Acl::compile([("", &p)], Some(&Bob), Wall(0));
    assert_eq!(outside.rule_set_count(), 0);
}

#[test]
fn resultant_acl() {
    let acl = compile(&[r#"
        path "a/b"   { capabilities = ["update", "create"] min_wrapping_ttl = "1m" required_parameters = ["x"] }
        path "a/*"   { capabilities = ["deny"] }
        path "a/+/c" { capabilities = ["read"] allowed_parameters = { k = ["v"] } }
        path "none"  { capabilities = [] }
    "#]);
    let r = acl.resultant();
    assert!(!r.root);
    assert_eq!(
        Json::Object(r.exact_paths),
        json!({"a/b": {"capabilities": ["create", "update"], "min_wrapping_ttl": 60, "required_parameters": ["x"]},
               "none": {"capabilities": ["deny"]}})
    );
    assert_eq!(
        Json::Object(r.glob_paths),
        json!({"a/": {"capabilities": ["deny"]}, "a/+/c": {"capabilities": ["read"], "allowed_parameters": {"k": ["v"]}}})
    );
}

#[test]
fn overlong_paths_match_nothing() {
    let long = "a/".repeat(40_000);
    let p = parse(
        "p",
        &format!(
            "path \"{}*\" {{ capabilities = [\"read\"] }} path \"*\" {{ capabilities = [\"read\"] }} path \"{}b\" {{ capabilities = [\"read\"] }}",
            "+/".repeat(40_000),
            "+/".repeat(2000)
        ),
    );
    let acl = Acl::compile([("", &p)], None, Wall(0));
    assert_eq!(acl.capabilities(&long), ["deny"]);
    assert!(allows(&acl, Operation::Read, &("a/".repeat(2000) + "b")));
    assert!(acl.has_access_below(&"a/".repeat(1999)));
}

#[test]
fn a_mount_is_shown_if_something_below_it_is_granted() {
    let acl = compile(&[
        r#"path "a/deep/secret" { capabilities = ["read"] } path "b/+/x" { capabilities = ["read"] } path "c/*" { capabilities = ["deny"] }"#,
    ]);
    assert!(acl.has_access_below("a/") && acl.has_access_below("a/deep/") && acl.has_access_below("b/"));
    assert!(!acl.has_access_below("a/other/") && !acl.has_access_below("c/") && !acl.has_access_below("d/"));
    // a rule that denies the mount's own path does not hide what a prefix grants below it
    let acl = compile(&[r#"path "+/b/" { capabilities = ["deny"] } path "*" { capabilities = ["create"] }"#]);
    assert!(acl.has_access_below("a/b/"));
}

#[test]
fn denial_wins_whatever_the_order() {
    let grant = r#"path "x" { capabilities = ["read"] allowed_parameters = { a = [] } }"#;
    let deny = r#"path "x" { capabilities = ["deny"] }"#;
    for texts in [[grant, deny, grant], [deny, grant, grant], [grant, grant, deny]] {
        let acl = compile(&texts);
        assert_eq!(acl.capabilities("x"), ["deny"]);
        let d = acl.allow(&AclRequest { path: "x", op: Operation::Read, parameters: None, wrap_ttl_seconds: None });
        assert!(!d.allowed && d.granting_policies().next().is_none());
        assert!(d.permissions().expect("matched").allowed_parameters.is_empty());
    }
}
