//! HCL, policies, their templates and what they grant, and password policies.

use crate::input::Input;
use ringfence_base::Wall;
use ringfence_base::entropy::SeededEntropy;
use ringfence_policy::hcl::{self, Body, Value};
use ringfence_policy::{Acl, AclRequest, Field, GroupKey, Operation, PasswordPolicy, Policy, TemplateSource};
use serde_json::json;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// A text is a tree or an error, and its formatted form is the same tree and its own formatted form.
pub fn hcl_text(data: &[u8]) {
    let tree = hcl::parse_bytes(data);
    let Ok(text) = std::str::from_utf8(data) else {
        assert!(tree.is_err());
        return;
    };
    let Ok(tree) = tree else { return };
    // JSON has no formatted form of its own
    if text.trim_start().starts_with('{') {
        return;
    }
    let Ok(formatted) = hcl::format(text) else { panic!("what can be read can be formatted: {text:?}") };
    let again = hcl::parse(&formatted).unwrap_or_else(|e| panic!("{e}\n{text:?}\n{formatted:?}"));
    assert!(same(&tree, &again), "formatting changed the meaning\n{text:?}\n{formatted:?}");
    assert_eq!(hcl::format(&formatted).as_ref(), Ok(&formatted), "formatting is done once\n{text:?}");
}

/// Equal but for lines and columns.
fn same(a: &Body, b: &Body) -> bool {
    fn values(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Object(a), Value::Object(b)) => same(a, b),
            (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| values(a, b)),
            _ => a == b,
        }
    }
    a.items.len() == b.items.len()
        && a.items.iter().zip(&b.items).all(|(a, b)| a.keys == b.keys && values(&a.value, &b.value))
}

const OPERATIONS: [(Operation, &str); 7] = [
    (Operation::Create, "create"),
    (Operation::Read, "read"),
    (Operation::Update, "update"),
    (Operation::Patch, "patch"),
    (Operation::Delete, "delete"),
    (Operation::List, "list"),
    (Operation::Scan, "scan"),
];

/// The first line is a path, the rest a policy in HCL or JSON: whatever it says, every question has an answer, and the
/// answers do not contradict each other.
pub fn policy(data: &[u8]) {
    let mut input = Input::new(data);
    let (path, text) = (input.line(), input.text());
    let Ok(policy) = Policy::parse("p", &text) else { return };
    let acl = Acl::compile([("", &policy), ("ns1/", &policy)], None, Wall::from_seconds(1_800_000_000));
    assert!(acl.rule_set_count() <= 2 * policy.rule_count());
    let parameters = json!({"a": 1, "b": ["x"], "path": path.clone()});
    for path in [path.clone(), format!("ns1/{path}"), format!("{path}/")] {
        for (op, capability) in OPERATIONS {
            for wrap_ttl_seconds in [None, Some(60)] {
                let request = AclRequest { path: &path, op, parameters: parameters.as_object(), wrap_ttl_seconds };
                let decision = acl.allow(&request);
                if decision.allowed {
                    assert!(decision.granting_policies().count() > 0, "{capability} {path:?} is granted by nobody");
                    assert!(decision.permissions().is_some());
                    decision.control_group();
                }
            }
        }
        let list = AclRequest { path: &path, op: Operation::List, parameters: None, wrap_ttl_seconds: None };
        let shown = acl.capabilities(&path);
        assert!(!acl.allow(&list).allowed || shown.contains(&"list"), "{path:?}");
        assert_eq!(acl.any_capability(&path), shown != ["deny"]);
        acl.has_access_below(&path);
    }
    acl.resultant();
}

/// A rule of the brute-force model.
struct Rule {
    path: String,
    capabilities: BTreeSet<&'static str>,
}

/// Rules and a path from a small alphabet, decided by the machine and by a model that tries every rule, character by
/// character, in the words of the documentation.
pub fn acl_model(data: &[u8]) {
    let mut input = Input::new(data);
    let mut rules: Vec<Rule> = Vec::new();
    for _ in 0..input.u8() % 7 {
        let mut path = spell(&mut input, &["a", "b", "ab", "+", "+x", "a*b", ""]);
        path.push_str(input.pick(&["", "", "*", "/*", "/", "a*", "/+"]));
        let bits = input.u16();
        let names = ["create", "read", "update", "patch", "delete", "list", "scan", "sudo", "deny"];
        let capabilities = names.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, n)| *n).collect();
        let path = path.trim_start_matches('/').to_owned();
        if !path.contains("+*") {
            rules.push(Rule { path, capabilities });
        }
    }
    let text: String = rules
        .iter()
        .map(|r| format!("path {:?} {{ capabilities = {:?} }}\n", r.path, r.capabilities.iter().collect::<Vec<_>>()))
        .collect();
    let policy = Policy::parse("p", &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let acl = Acl::compile([("", &policy)], None, Wall(0));
    for _ in 0..4 {
        let path = spell(&mut input, &["a", "b", "ab", "+", "+x", "a*b", "c"]);
        let path = path.trim_start_matches('/');
        for (op, capability) in OPERATIONS {
            let request = AclRequest { path, op, parameters: None, wrap_ttl_seconds: None };
            let granted = granted(&rules, path, op);
            assert_eq!(acl.allow(&request).allowed, granted.contains(capability), "{capability} {path:?} of\n{text}");
        }
    }
}

fn spell(input: &mut Input<'_>, words: &[&str]) -> String {
    let shape = input.u8();
    let mut out = Vec::new();
    for _ in 0..shape % 5 {
        out.push(input.pick(words));
    }
    let tail = if shape & 0x80 != 0 && !out.is_empty() { "/" } else { "" };
    out.join("/") + tail
}

fn has_plus(pattern: &str) -> bool {
    pattern.split('/').any(|s| s == "+")
}

fn is_exact(pattern: &str) -> bool {
    !has_plus(pattern) && !pattern.ends_with('*')
}

/// `+` as a whole segment takes one or more characters that are not slashes; a `*` at the end takes the rest.
fn matches(pattern: &str, path: &str) -> bool {
    let (body, open) = pattern.strip_suffix('*').map_or((pattern, false), |b| (b, true));
    let mut path = path;
    let mut segments = body.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        if segment == "+" && !(is_last && open) {
            let n = path.find('/').unwrap_or(path.len());
            if n == 0 {
                return false;
            }
            path = &path[n..];
        } else {
            match path.strip_prefix(segment) {
                Some(rest) => path = rest,
                None => return false,
            }
        }
        if !is_last {
            match path.strip_prefix('/') {
                Some(rest) => path = rest,
                None => return false,
            }
        }
    }
    open || path.is_empty()
}

/// The later the first wildcard, the more specific; then a closed end, fewer `+`, a longer text, the text itself.
fn specificity(pattern: &str) -> (usize, bool, Reverse<usize>, usize, &str) {
    let body = pattern.strip_suffix('*').unwrap_or(pattern);
    let mut first = body.len();
    let mut at = 0;
    for segment in pattern.split('/') {
        if segment == "+" {
            first = at;
            break;
        }
        at += segment.len() + 1;
    }
    let plus = pattern.split('/').filter(|s| *s == "+").count();
    (first, !pattern.ends_with('*'), Reverse(plus), body.len(), body)
}

fn granted(rules: &[Rule], path: &str, op: Operation) -> BTreeSet<&'static str> {
    let exact = |p: &str| rules.iter().find(|r| is_exact(&r.path) && r.path == p).map(|r| r.path.clone());
    let best = |p: &str| {
        let open = rules.iter().filter(|r| !is_exact(&r.path) && matches(&r.path, p));
        open.max_by(|a, b| specificity(&a.path).cmp(&specificity(&b.path))).map(|r| r.path.clone())
    };
    let bare = path.strip_suffix('/');
    let of_bare = |f: &dyn Fn(&str) -> Option<String>| bare.and_then(f);
    let listing = matches!(op, Operation::List | Operation::Scan);
    let chosen = exact(path)
        .or_else(|| listing.then(|| of_bare(&exact)).flatten())
        .or_else(|| best(path))
        .or_else(|| (op == Operation::List).then(|| of_bare(&best)).flatten());
    let Some(chosen) = chosen else { return BTreeSet::new() };
    let speaking = || rules.iter().filter(|r| r.path == chosen);
    if speaking().any(|r| r.capabilities.contains("deny")) {
        return BTreeSet::new();
    }
    speaking().flat_map(|r| r.capabilities.iter().copied()).collect()
}

/// Somebody whose every name is what an attacker may choose.
struct Chosen(String);

impl TemplateSource for Chosen {
    fn entity(&self, _: Field<'_>) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.0))
    }

    fn alias(&self, _: &str, _: Field<'_>) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.0))
    }

    fn group(&self, _: &str, _: GroupKey<'_>, _: Field<'_>) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.0))
    }
}

/// The first line is a value of somebody's choosing, the second the path of a templated rule: the value may stand in
/// the path and never change its shape (segments, wildcards, kind).
pub fn template(data: &[u8]) {
    let mut input = Input::new(data);
    let (value, path) = (input.line(), input.line());
    let text = json!({"path": {path.clone(): {"capabilities": ["read"]}}}).to_string();
    let Ok(policy) = Policy::parse("p", &text) else { return };
    if !policy.is_templated() {
        return;
    }
    let none = Acl::compile([("", &policy)], None, Wall(0));
    assert_eq!(none.rule_set_count(), 0, "a template without somebody grants nothing");
    let plain = Acl::compile([("", &policy)], Some(&Chosen("v".into())), Wall(0)).resultant();
    let filled = Acl::compile([("", &policy)], Some(&Chosen(value.clone())), Wall(0)).resultant();
    let shape = |m: &serde_json::Map<String, serde_json::Value>| -> Vec<(usize, usize)> {
        m.keys().map(|k| (k.matches('/').count(), k.split('/').filter(|s| *s == "+").count())).collect()
    };
    if filled.exact_paths.is_empty() && filled.glob_paths.is_empty() {
        return;
    }
    assert_eq!(shape(&filled.exact_paths), shape(&plain.exact_paths), "{path:?} filled with {value:?}");
    assert_eq!(shape(&filled.glob_paths), shape(&plain.glob_paths), "{path:?} filled with {value:?}");
}

/// A password policy makes a password that has the length it says, or an error.
pub fn password(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(policy) = PasswordPolicy::parse(text) else { return };
    let _ =
        policy.generate(&mut SeededEntropy(1)).map(|p| assert!((4..=100).contains(&p.chars().count()), "{text:?}"));
}
