//! Tenant isolation as a property: over random trees of namespaces, mounts, policies, tokens and hostile ways of
//! naming things, no request reads, lists, renews or revokes anything but what a naive model of the policies allows.
//!
//! The model knows three things: where a token is at home, which patterns its policies have, and in which namespace a
//! request is served. It matches strings; it shares no code with the router, the ACL or the token store.

use crate::testing::{World, told};
use proptest::prelude::*;
use ringfence_base::Code;
use ringfence_logical::Operation::{self, Delete, List, Read, Update};
use ringfence_logical::path::Table;
use ringfence_logical::{Args, Class, Cx, Engine, Field, Outcome, Path, Response, nothing};
use serde_json::{Value, json};

/// A store of texts.
struct Shelf;

const PATH: &[Field] = &[Field::str("path", "Where."), Field::str("value", "What.")];

static SHELF: Table = Table {
    kind: "shelf",
    class: Class::Secret,
    help: "A store for tests.",
    paths: &[Path::new("{path..?}").fields(PATH).free_form().read(read).write(write).list(list)],
};

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match cx.get(1, args.str("path").as_bytes())? {
        Some(bytes) => Response::json(json!({ "value": String::from_utf8_lossy(&bytes) })).done(),
        None => nothing(),
    }
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let value = args.raw()["value"].as_str().unwrap_or("").to_owned();
    cx.put(1, args.str("path").as_bytes(), value.as_bytes());
    nothing()
}

fn list(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    Response::keys(cx.list(1, "", "", 0)?).done()
}

impl Engine for Shelf {
    fn table(&self) -> &'static Table {
        &SHELF
    }
}

/// Every namespace there may be, parents first. Some differ in case or in a dot only.
const TREE: &[&str] = &["a/", "A/", "a.b/", "a/b/", "a/a/", "a/b/c/", "aa/"];

/// What a policy may have for a pattern, within its namespace.
const PATTERNS: &[&str] = &[
    "*",
    "shelf/*",
    "shelf/x",
    "lab/*",
    "sys/leases/*",
    "sys/*",
    "auth/token/*",
    "a/*",
    "b/shelf/*",
    "+/shelf/*",
    "+/sys/leases/revoke",
    "a/b/auth/token/*",
    "A/shelf/x",
];

/// A token as the model knows it.
#[derive(Clone, Debug)]
struct Tenant {
    home: &'static str,
    patterns: Vec<&'static str>,
    token: String,
    accessor: String,
    alive: bool,
}

impl Tenant {
    /// What the policies say of a path, told by comparing strings.
    fn may(&self, ns: &str, path: &str) -> bool {
        let whole = format!("{ns}{path}");
        let Some(rest) = whole.strip_prefix(self.home) else { return false };
        let forms = [rest, rest.trim_end_matches('/')];
        let forms = if path.ends_with('/') { &forms[..] } else { &forms[..1] };
        self.patterns.iter().any(|p| forms.iter().any(|f| matches(p, f)))
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let (fixed, open) = match pattern.strip_suffix('*') {
        Some(p) => (p, true),
        None => (pattern, false),
    };
    let Some(rest) = fixed.strip_prefix("+/") else {
        return if open { path.starts_with(fixed) } else { path == fixed };
    };
    match path.split_once('/') {
        Some((first, after)) if !first.is_empty() => {
            if open {
                after.starts_with(rest)
            } else {
                after == rest
            }
        }
        _ => false,
    }
}

/// What is tried.
#[derive(Clone, Debug)]
struct Try {
    who: usize,
    whom: usize,
    /// Where the request is sent.
    ns: usize,
    /// How many segments of the namespace stand in the path instead of the header.
    in_path: usize,
    /// How the header is spelt.
    spelling: u8,
    what: u8,
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let one = (any::<usize>(), any::<usize>(), any::<usize>(), 0usize..4, 0u8..4, 0u8..9)
        .prop_map(|(who, whom, ns, in_path, spelling, what)| Try { who, whom, ns, in_path, spelling, what });
    prop::collection::vec(one, 1..40)
}

struct Town {
    w: World,
    places: Vec<&'static str>,
    tenants: Vec<Tenant>,
    /// A lease of each place, and whether it stands.
    leases: Vec<(usize, String, bool)>,
}

impl Town {
    fn build(places: Vec<&'static str>, tenants: Vec<(usize, Vec<&'static str>)>) -> Town {
        let mut w = World::with(|r| {
            r.add("shelf", Box::new(Shelf));
        });
        let root = w.root.clone();
        let mut leases = Vec::new();
        for (n, ns) in places.iter().enumerate() {
            if !ns.is_empty() {
                let (code, v) = w.post(&format!("sys/namespaces/{}", ns.trim_end_matches('/')), &root, json!({}));
                assert_eq!(code, Code::Ok, "{v}");
                let (code, v) = w.post(&format!("{ns}sys/mounts/lab"), &root, json!({"type": "lab"}));
                assert_eq!(code, Code::NoContent, "{v}");
            }
            w.post(&format!("{ns}sys/mounts/shelf"), &root, json!({"type": "shelf"}));
            assert_eq!(w.post(&format!("{ns}shelf/x"), &root, json!({"value": ns})).0, Code::NoContent);
            for _ in 0..2 {
                let (_, v) = w.get(&format!("{ns}lab/creds/plain"), &root);
                leases.push((n, v["lease_id"].as_str().unwrap().to_owned(), true));
            }
        }
        let mut town = Town { w, places, tenants: Vec::new(), leases };
        for (n, (place, patterns)) in tenants.into_iter().enumerate() {
            let home = town.places[place % town.places.len()];
            let rule = r#"capabilities = ["create", "read", "update", "delete", "list", "sudo"]"#;
            let text: String = patterns.iter().map(|p| format!("path \"{p}\" {{ {rule} }}\n")).collect();
            let body = json!({ "policy": text });
            assert_eq!(town.w.post(&format!("{home}sys/policies/acl/p{n}"), &root, body).0, Code::NoContent);
            let body = json!({"policies": [format!("p{n}")], "no_default_policy": true, "no_parent": true});
            let (code, v) = town.w.post(&format!("{home}auth/token/create"), &root, body);
            assert_eq!(code, Code::Ok, "{v}");
            let text = |k: &str| v["auth"][k].as_str().unwrap().to_owned();
            let (token, accessor) = (text("client_token"), text("accessor"));
            town.tenants.push(Tenant { home, patterns, token, accessor, alive: true });
        }
        town
    }

    /// Sends a request to a namespace in one of the ways in which it can be named.
    fn send(&mut self, t: &Try, ns: &str, op: Operation, path: &str, token: &str, data: Value) -> (Code, Value) {
        let mut cut = ns.len();
        for _ in 0..t.in_path {
            cut = ns[..cut].trim_end_matches('/').rfind('/').map_or(0, |slash| slash + 1);
        }
        let (header, in_path) = ns.split_at(cut);
        let mut call = self.w.blank(op, &format!("{in_path}{path}"), token, data);
        call.namespace = match (t.spelling, header) {
            (0, "") => None,
            (1, "") => Some("root".into()),
            (2, h) => Some(format!("/{h}")),
            (3, h) => Some(h.trim_end_matches('/').into()),
            (_, h) => Some(h.into()),
        };
        told(self.w.send(call))
    }

    fn step(&mut self, t: &Try) -> Result<(), TestCaseError> {
        let ns = self.places[t.ns % self.places.len()];
        let who = self.tenants[t.who % self.tenants.len()].clone();
        let whom_at = t.whom % self.tenants.len();
        let whom = self.tenants[whom_at].clone();
        let lease_at = t.whom % self.leases.len();
        let (lease_place, lease, stands) = self.leases[lease_at].clone();
        let lease_ns = self.places[lease_place];
        // ids of the root namespace name none: they are looked for where the request is served
        let at_lease = if lease_ns.is_empty() { ns } else { lease_ns };
        let at_whom = if whom.home.is_empty() { ns } else { whom.home };
        let token = who.token.clone();
        let may = |ns: &str, path: &str| who.alive && who.may(ns, path);
        let told = |what: &str| format!("{what} in {ns:?} by {who:?} of {whom:?} or {lease}");
        match t.what {
            0 => {
                let (code, v) = self.send(t, ns, Read, "shelf/x", &token, json!(null));
                prop_assert_eq!(code == Code::Ok, may(ns, "shelf/x"), "{}", told("read"));
                prop_assert!(code != Code::Ok || v["data"]["value"] == ns, "{}", told("read"));
            }
            1 => {
                let (code, _) = self.send(t, ns, List, "shelf/", &token, json!(null));
                prop_assert_eq!(code == Code::Ok, may(ns, "shelf/"), "{}", told("list"));
            }
            2 => {
                let (code, _) = self.send(t, ns, List, "auth/token/accessors/", &token, json!(null));
                // an empty list is not found
                let allowed = matches!(code, Code::Ok | Code::NotFound);
                prop_assert_eq!(allowed, may(ns, "auth/token/accessors/"), "{}", told("accessors"));
            }
            3 | 4 => {
                let path = if t.what == 3 { "sys/leases/lookup" } else { "sys/leases/renew" };
                let (code, _) = self.send(t, ns, Update, path, &token, json!({"lease_id": lease}));
                let found = stands && at_lease == lease_ns;
                prop_assert_eq!(code == Code::Ok, found && may(at_lease, path), "{} {:?}", told(path), code);
            }
            5 => {
                let path = "sys/leases/revoke";
                let (code, _) = self.send(t, ns, Update, path, &token, json!({"lease_id": lease}));
                let allowed = may(at_lease, path);
                prop_assert_eq!(code == Code::NoContent, allowed, "{} {:?}", told(path), code);
                if allowed && at_lease == lease_ns {
                    self.leases[lease_at].2 = false;
                }
            }
            6 => {
                let path = "auth/token/lookup-accessor";
                let (code, _) = self.send(t, ns, Update, path, &token, json!({"accessor": whom.accessor}));
                let found = whom.alive && at_whom == whom.home;
                prop_assert_eq!(code == Code::Ok, found && may(at_whom, path), "{} {:?}", told(path), code);
            }
            7 => {
                let path = "auth/token/revoke-accessor";
                let (code, _) = self.send(t, ns, Update, path, &token, json!({"accessor": whom.accessor}));
                let allowed = may(at_whom, path);
                prop_assert_eq!(code != Code::Denied, allowed, "{} {:?}", told(path), code);
                if allowed && at_whom == whom.home {
                    self.tenants[whom_at].alive = false;
                }
            }
            _ => {
                let (code, _) = self.send(t, ns, Delete, "sys/policies/acl/none", &token, json!(null));
                prop_assert_eq!(code == Code::NoContent, may(ns, "sys/policies/acl/none"), "{}", told("delete"));
            }
        }
        Ok(())
    }

    /// What the model says stands, stands, and nothing else.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let root = self.w.root.clone();
        for (place, lease, stands) in self.leases.clone() {
            let ns = self.places[place];
            let (code, _) = self.w.post(&format!("{ns}sys/leases/lookup"), &root, json!({"lease_id": lease}));
            prop_assert_eq!(code == Code::Ok, stands, "{}", lease);
        }
        for t in self.tenants.clone() {
            let path = format!("{}auth/token/lookup-accessor", t.home);
            let (code, _) = self.w.post(&path, &root, json!({"accessor": t.accessor}));
            prop_assert_eq!(code == Code::Ok, t.alive, "{:?}", t);
        }
        for ns in self.places.clone() {
            let (_, v) = self.w.get(&format!("{ns}shelf/x"), &root);
            prop_assert_eq!(&v["data"]["value"], ns);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_token_reaches_what_its_policies_name_and_nothing_else(
        taken in prop::collection::vec(any::<bool>(), TREE.len()),
        tenants in prop::collection::vec((any::<usize>(), prop::sample::subsequence(PATTERNS, 1..4)), 1..6),
        tries in tries(),
    ) {
        let mut places = vec![""];
        for (ns, taken) in TREE.iter().zip(taken) {
            let parent = &ns[..ns[..ns.len() - 1].rfind('/').map_or(0, |slash| slash + 1)];
            if taken && places.contains(&parent) {
                places.push(ns);
            }
        }
        let mut town = Town::build(places, tenants);
        for t in &tries {
            town.step(t)?;
        }
        town.check()?;
    }
}
