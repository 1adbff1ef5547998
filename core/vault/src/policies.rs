//! The policy store: texts by namespace and name, and the built-in ones.

use crate::tables;
use ringfence_barrier::Txn;
use ringfence_base::NsId;
use ringfence_logical::Error;
use ringfence_policy::Policy;
use ringfence_policy::builtin;

/// The text of an ACL policy: stored, or built in. `root` has no text.
pub fn text(txn: &mut Txn<'_>, ns: NsId, name: &str) -> Result<Option<String>, Error> {
    if let Some(p) = txn.get(&tables::policy(ns, tables::POLICY_ACL, name))? {
        return Ok(Some(String::from_utf8_lossy(&p.bytes).into_owned()));
    }
    Ok(builtin::text(name).map(str::to_owned))
}

/// A parsed policy. A stored text that no longer parses grants nothing and is an internal error: it was checked when
/// it was written.
pub fn load(txn: &mut Txn<'_>, ns: NsId, name: &str) -> Result<Option<Policy>, Error> {
    match text(txn, ns, name)? {
        None => Ok(None),
        Some(t) => match Policy::parse(name, &t) {
            Ok(p) => Ok(Some(p)),
            Err(e) => Err(Error::internal(format!("stored policy {name:?} does not parse: {e}"))),
        },
    }
}

/// Writes a policy's text; the caller has parsed it.
pub fn save(txn: &mut Txn<'_>, ns: NsId, name: &str, text: &str) {
    txn.put(tables::policy(ns, tables::POLICY_ACL, name), &[], text.as_bytes());
}

/// Deletes a policy; absent is fine.
pub fn delete(txn: &mut Txn<'_>, ns: NsId, name: &str) {
    txn.delete(&tables::policy(ns, tables::POLICY_ACL, name));
}

/// Names of the ACL policies of a namespace: stored ones, `default`, and `root` in the root namespace; sorted.
pub fn names(txn: &mut Txn<'_>, ns: NsId) -> Result<Vec<String>, Error> {
    let prefix = tables::policy(ns, tables::POLICY_ACL, "");
    let keys = txn.list(&prefix, None, usize::MAX);
    let mut names: Vec<String> =
        keys.iter().map(|k| String::from_utf8_lossy(&k[prefix.len()..]).into_owned()).collect();
    names.push("default".into());
    if ns == NsId::ROOT {
        names.push("root".into());
    }
    names.sort();
    names.dedup();
    Ok(names)
}
