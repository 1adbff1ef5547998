//! Namespaces: tenants within one server. They stand in the router, the token, the policy and the keys; the root
//! namespace is one of them, with number 0 and the empty path. This file holds the record, the one form of a path and
//! what a name may be; `sys/namespaces` drives it, the router reads it.
//!
//! A namespace is found by its path at the edge and by its number from then on. Numbers are never given twice, so
//! whatever an old one left behind could not become a new one's.

use crate::tables;
use ringfence_barrier::Txn;
use ringfence_base::{Entropy, MountId, NsId, Reader, entropy};
use ringfence_logical::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest name, bytes.
const MAX_NAME_BYTES: usize = 255;
/// Longest path, bytes; every path of a request in the namespace carries it in policies.
const MAX_PATH_BYTES: usize = 1024;
/// Names that mean something else at the start of a path, whatever their case: a child of that name would be
/// unreachable, or would be taken for the root namespace by somebody who compares names in another form.
const RESERVED: &[&str] = &["root", "sys", "audit", "auth", "cubbyhole", "identity"];
/// Characters with a meaning of their own in policies, paths or URLs.
const MEANINGFUL: &[char] = &['*', '+', '?', '#', '%', '\\', '"', '\'', '{', '}', '<', '>'];
/// Numbers of mounts begin above it.
pub(crate) const NO_MOUNT: MountId = MountId(0);
/// Characters of a namespace's short name.
const EXTERNAL_CHARS: usize = 5;

/// One namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    /// Number, in keys.
    pub id: NsId,
    /// `root`, or five random characters: the suffix of tokens and leases.
    pub external_id: String,
    /// Empty for root, else ends in `/`.
    pub path: String,
    /// A UUID.
    pub uuid: String,
    /// Free pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_metadata: BTreeMap<String, String>,
    /// Being deleted: nothing routes here, its tokens are dead, its mounts and records are being removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tainted: bool,
    /// Locked: keyed hash of the key that unlocks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<[u8; 16]>,
}

impl Namespace {
    /// The root namespace.
    pub fn root(uuid: String) -> Namespace {
        Namespace {
            id: NsId::ROOT,
            external_id: "root".into(),
            path: String::new(),
            uuid,
            custom_metadata: BTreeMap::new(),
            tainted: false,
            lock: None,
        }
    }

    /// A new namespace with its number, short name and UUID. `taken` tells whether a short name is in use.
    ///
    /// # Errors
    /// A stored counter that does not read.
    pub fn fresh(
        txn: &mut Txn<'_>,
        rng: &mut dyn Entropy,
        path: String,
        taken: impl Fn(&str) -> bool,
    ) -> Result<Namespace, Error> {
        let external_id = loop {
            let drawn = entropy::base62(rng, EXTERNAL_CHARS);
            if !taken(&drawn) {
                break drawn;
            }
        };
        let uuid = entropy::uuid4(rng);
        Ok(Namespace { id: next_id(txn)?, external_id, path, ..Namespace::root(uuid) })
    }

    /// Reads a namespace by number.
    pub fn load(txn: &mut Txn<'_>, id: NsId) -> Result<Option<Namespace>, Error> {
        match txn.get(&tables::namespace(id))? {
            None => Ok(None),
            Some(p) => {
                let parsed = serde_json::from_slice(&p.bytes);
                parsed.map(Some).map_err(|e| Error::internal(format!("stored namespace: {e}")))
            }
        }
    }

    /// Writes the record.
    pub fn save(&self, txn: &mut Txn<'_>) {
        let bytes = serde_json::to_vec(self).expect("a namespace always serialises");
        txn.put(tables::namespace(self.id), &[], &bytes);
        // no mount has this number: the row is there so that the namespace's mark tells of every change of it
        txn.put(tables::mount_of(self.id, NO_MOUNT), &[], &[]);
    }

    /// Deletes the record.
    pub fn remove(txn: &mut Txn<'_>, id: NsId) {
        txn.delete(&tables::namespace(id));
        txn.delete(&tables::mount_of(id, NO_MOUNT));
    }

    /// The one form of a namespace path given by a client: no leading slash, one trailing slash; `root` is empty.
    pub fn canonical(header: &str) -> String {
        let t = header.trim().trim_matches('/');
        if t.is_empty() || t == "root" { String::new() } else { format!("{t}/") }
    }

    /// True for the root namespace.
    pub fn is_root(&self) -> bool {
        self.id == NsId::ROOT
    }

    /// True if this is `above`, or a namespace somewhere below it.
    pub fn is_within(&self, above: &Namespace) -> bool {
        self.path.starts_with(&above.path)
    }

    /// Name of the namespace among its siblings, with its slash, and the path of its parent.
    pub fn split(path: &str) -> (&str, &str) {
        let bare = path.strip_suffix('/').unwrap_or(path);
        let name_at = bare.rfind('/').map_or(0, |slash| slash + 1);
        path.split_at(name_at)
    }
}

/// Refuses names that no tenant may have. `path` is the whole path of the namespace, `name` its last segment.
pub fn check_name(name: &str, path: &str) -> Result<(), Error> {
    if name.is_empty() || name == "." || name == ".." {
        return Err(Error::invalid(format!("invalid namespace name {name:?}")));
    }
    if name.len() > MAX_NAME_BYTES || path.len() > MAX_PATH_BYTES {
        return Err(Error::invalid(format!(
            "a namespace's name has at most {MAX_NAME_BYTES} bytes and its path at most {MAX_PATH_BYTES}"
        )));
    }
    if name.contains(char::is_whitespace) {
        return Err(Error::invalid("namespace name cannot contain spaces"));
    }
    // the header that names it carries nothing else
    if !name.chars().all(|c| c.is_ascii_graphic() && c != '/' && !MEANINGFUL.contains(&c)) {
        return Err(Error::invalid(format!("namespace name {name:?} contains characters that are not allowed")));
    }
    if RESERVED.iter().any(|r| r.eq_ignore_ascii_case(name)) {
        return Err(Error::invalid(format!("{name:?} is a reserved path and cannot be used as a namespace name")));
    }
    Ok(())
}

/// Draws the next number: one above the highest ever used, also after its namespace is gone.
fn next_id(txn: &mut Txn<'_>) -> Result<NsId, Error> {
    let key = tables::config(NsId::ROOT, "core/next-namespace");
    let next = match txn.get(&key)? {
        None => 1,
        Some(p) => Reader::new(&p.bytes).be32()?,
    };
    txn.put(key, &[], &(next + 1).to_be_bytes());
    Ok(NsId(next))
}

/// A namespace and those above it, nearest first.
pub fn lineage(router: &crate::mount::Router, ns: NsId, path: &str) -> Vec<NsId> {
    let mut out = vec![ns];
    let mut path = path;
    while !path.is_empty() {
        path = match path.trim_end_matches('/').rfind('/') {
            Some(slash) => &path[..=slash],
            None => "",
        };
        out.extend(router.namespace(path).map(|n| n.id));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form() {
        for (given, want) in
            [("", ""), ("root", ""), ("/root/", ""), ("a", "a/"), ("/a/b/", "a/b/"), ("Root", "Root/")]
        {
            assert_eq!(Namespace::canonical(given), want, "{given:?}");
        }
        assert_eq!(Namespace::split("a/b/"), ("a/", "b/"));
        assert_eq!(Namespace::split("a/"), ("", "a/"));
    }

    /// A child named like the root namespace, in whatever case, was taken for it by code that compared names in
    /// another form (CVE-2024-9180, CVE-2025-5999).
    #[test]
    fn cve_2024_9180_no_reserved_word_is_a_child() {
        for bad in
            ["root", "Root", "ROOT", "sys", "Auth", "identity", "cubbyhole", "audit", ".", "..", "", "a b", "a\t"]
        {
            assert!(check_name(bad, bad).is_err(), "{bad:?}");
        }
        for bad in ["a/b", "a*", "+", "a%2fb", "ns\u{202e}", "ns\u{0}", "\u{ff0e}\u{ff0e}", "{{x}}", &"x".repeat(256)]
        {
            assert!(check_name(bad, bad).is_err(), "{bad:?}");
        }
        for good in ["team-a", "a.b", "a_b", "x@y", "rooted", "sys1", "A"] {
            assert_eq!(check_name(good, good), Ok(()), "{good:?}");
        }
    }
}
