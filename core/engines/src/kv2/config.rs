//! Configuration of a version 2 mount.

use super::store::CONFIG;
use ringfence_base::duration::{SECOND_NS, go_string};
use ringfence_logical::{Args, Cx, Error, Outcome, Response, nothing};
use serde_json::json;

/// Versions kept when neither mount nor key say how many.
const DEFAULT_MAX_VERSIONS: u32 = 10;
/// Versions kept at most, whatever mount and key say: the records that a write prunes must fit one batch.
pub const MOST_VERSIONS: u32 = 4000;
const _: () = assert!((MOST_VERSIONS as usize) + 2 < ringfence_base::limit::MAX_BATCH_OPS);

/// What a mount says of all its keys.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    /// 0 = not said.
    pub max_versions: u32,
    pub cas_required: bool,
    pub metadata_cas_required: bool,
    /// Seconds; 0 = not said, negative = no key of the mount deletes versions by itself.
    pub delete_version_after: i64,
}

impl Config {
    pub fn load(cx: &mut Cx<'_, '_>) -> Result<Config, Error> {
        Ok(cx.get_json(CONFIG, b"")?.unwrap_or_default())
    }

    /// How many versions a key keeps: the larger of mount and key wins.
    pub fn versions_kept(&self, of_key: u32) -> u32 {
        match self.max_versions.max(of_key) {
            0 => DEFAULT_MAX_VERSIONS,
            n => n.min(MOST_VERSIONS),
        }
    }

    /// Seconds after which a new version of a key deletes itself, if it does: the shorter of what mount and key say.
    pub fn version_lifetime(&self, of_key: u64) -> Option<u64> {
        match (self.delete_version_after, of_key) {
            (..0, _) | (0, 0) => None,
            (0, key) => Some(key),
            (mount, 0) => Some(mount.unsigned_abs()),
            (mount, key) => Some(key.min(mount.unsigned_abs())),
        }
    }
}

/// `max_versions` as sent, checked.
pub fn max_versions(n: i64) -> Result<u32, Error> {
    u32::try_from(n).map_err(|_| Error::invalid("'max_versions' must be between 0 and 4294967295"))
}

/// What to tell a client that asks for more versions than are ever kept.
pub fn too_many_versions(n: u32) -> Option<String> {
    (n > MOST_VERSIONS).then(|| {
        format!("\"max_versions\" is above {MOST_VERSIONS}; no more than {MOST_VERSIONS} versions will be kept.")
    })
}

pub fn read(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let c = Config::load(cx)?;
    Response::json(json!({
        "cas_required": c.cas_required,
        "delete_version_after": go_string(c.delete_version_after.saturating_mul(SECOND_NS as i64)),
        "max_versions": c.max_versions,
        "metadata_cas_required": c.metadata_cas_required,
    }))
    .done()
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let old = Config::load(cx)?;
    let mut new = old.clone();
    let mut warning = None;
    if let Some(n) = args.opt_int("max_versions") {
        new.max_versions = max_versions(n)?;
        warning = too_many_versions(new.max_versions);
    }
    if let Some(b) = args.opt_bool("cas_required") {
        new.cas_required = b;
    }
    if let Some(b) = args.opt_bool("metadata_cas_required") {
        new.metadata_cas_required = b;
    }
    if let Some(s) = args.opt_int("delete_version_after") {
        // every negative value means the same and is shown as -1s
        new.delete_version_after = s.max(-1);
    }
    if new != old {
        cx.put_json(CONFIG, b"", &new);
    }
    match warning {
        Some(text) => Response::default().warn(text).done(),
        None => nothing(),
    }
}
