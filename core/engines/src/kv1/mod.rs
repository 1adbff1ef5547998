//! Version 1 of the key-value engine: one JSON object a path, replaced whole. Called by the vault floor for mounts of
//! type `kv` without a version, or with version 1.
//!
//! Objects stand in area `d` under their path, as the JSON text that reads pass on unparsed. Nothing is versioned.

mod paths;
mod secret;

#[cfg(test)]
mod tests;

use ringfence_logical::path::Table;
use ringfence_logical::{Class, Cx, Engine, Error, Lease, LeaseTerms, Outcome, Response, nothing};
use std::collections::BTreeMap;

/// Area of the stored objects.
pub(crate) const OBJECTS: u8 = b'd';
/// Name of the lease type, for mounts that pass leases through.
pub(crate) const SECRET: &str = "kv";

/// The engine.
pub struct Kv1;

static TABLE: Table = Table {
    kind: "kv",
    class: Class::Secret,
    help: "Stores JSON objects under paths, without versions.",
    paths: paths::PATHS,
};

impl Engine for Kv1 {
    fn table(&self) -> &'static Table {
        &TABLE
    }

    fn renew(&self, _cx: &mut Cx<'_, '_>, lease: &Lease) -> Outcome {
        let terms = LeaseTerms {
            secret: SECRET,
            ttl: lease.increment,
            max_ttl: 0,
            renewable: true,
            internal: lease.internal.clone(),
        };
        Response { lease: Some(terms), ..Response::default() }.done()
    }

    /// A passed-through lease stands for nothing outside: the object stays where it is.
    fn revoke(&self, _cx: &mut Cx<'_, '_>, _lease: &Lease) -> Outcome {
        nothing()
    }

    fn reconfigure(
        &self,
        cx: &mut Cx<'_, '_>,
        old: &BTreeMap<String, String>,
        new: &BTreeMap<String, String>,
    ) -> Result<Vec<String>, Error> {
        crate::kv2::reconfigure(cx, old, new)
    }
}
