//! Version 2 of the key-value engine: versions of a JSON object under a path, with check-and-set, soft deletion and
//! metadata. Called by the vault floor for mounts of type `kv` with option `version` = 2.
//!
//! ```text
//! area c   (empty)                       configuration of the mount, JSON
//! area m   path                          metadata of a key and its versions, see `record`
//! area v   path, 0x00, version as be64   one version's data: its JSON text as it goes out, and a format byte
//! ```
//!
//! Reading a version opens two records and builds no JSON tree. When a version is to die by itself is decided when it
//! is written or undeleted and judged at each read; nothing runs in the background.

mod config;
mod custom;
mod data;
mod invalid;
mod metadata;
mod paths;
mod record;
mod store;
mod subkeys;
mod upgrade;
mod versions;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use ringfence_logical::path::Table;
use ringfence_logical::{Class, Cx, Engine, Error};
use std::collections::BTreeMap;

pub(crate) use upgrade::reconfigure;

/// The engine.
pub struct Kv2;

static TABLE: Table = Table {
    kind: "kv",
    class: Class::Secret,
    help: "Stores versions of JSON objects under paths.",
    paths: paths::PATHS,
};

impl Engine for Kv2 {
    fn table(&self) -> &'static Table {
        &TABLE
    }

    fn reconfigure(
        &self,
        cx: &mut Cx<'_, '_>,
        old: &BTreeMap<String, String>,
        new: &BTreeMap<String, String>,
    ) -> Result<Vec<String>, Error> {
        reconfigure(cx, old, new)
    }
}
