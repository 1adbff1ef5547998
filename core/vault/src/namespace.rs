//! Namespaces: tenants within one server. They stand in the router, the token, the policy and the keys from the first
//! day; the root namespace is one of them, with number 0 and the empty path.

use crate::tables;
use ringfence_barrier::Txn;
use ringfence_base::NsId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    pub custom_metadata: BTreeMap<String, String>,
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
        }
    }

    /// Writes the record.
    pub fn save(&self, txn: &mut Txn<'_>) {
        let bytes = serde_json::to_vec(self).expect("a namespace always serialises");
        txn.put(tables::namespace(self.id), &[], &bytes);
    }

    /// The one form of a namespace path given by a client: no leading slash, one trailing slash; `root` is empty.
    pub fn canonical(header: &str) -> String {
        let t = header.trim().trim_matches('/');
        if t.is_empty() || t == "root" { String::new() } else { format!("{t}/") }
    }
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
