//! From version 1 to version 2. The upgrade of a mount is one small record whatever the mount holds: from then on an
//! object of version 1 that was not touched yet reads as version 1 of its key, and the first write to a key takes its
//! object over. So a mount of any size is upgraded within the transaction that changes its options, no request ever
//! sees it half converted, and there is no time in which it answers nothing (Vault's copies everything and refuses
//! requests meanwhile).
//!
//! Called by [`super::store`], which alone decides what is where.

use super::record::{Key, VersionState};
use super::store::{self, CONFIG};
use crate::kv1::OBJECTS;
use ringfence_base::Wall;
use ringfence_logical::{Cx, Error};
use std::collections::BTreeMap;

/// Under the configuration's area: when the mount was upgraded, nanoseconds, big-endian.
const UPGRADED: &[u8] = b"upgraded";

/// The mount's options are about to become `new`.
pub(crate) fn reconfigure(
    cx: &mut Cx<'_, '_>,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) -> Result<Vec<String>, Error> {
    match (version(old)?, version(new)?) {
        (1, 2) => {
            let now = cx.now;
            cx.put(CONFIG, UPGRADED, &now.0.to_be_bytes());
            Ok(vec![
                "Upgrading mount from version 1 to version 2. This mount will be unavailable for a brief period and will resume service shortly.".into(),
            ])
        }
        (2, 1) => Err(Error::invalid("cannot downgrade mount from version 2")),
        _ => Ok(Vec::new()),
    }
}

fn version(options: &BTreeMap<String, String>) -> Result<u8, Error> {
    match options.get("version").map(String::as_str) {
        None | Some("" | "1") => Ok(1),
        Some("2") => Ok(2),
        Some(other) => Err(Error::invalid(format!("unknown version {other:?} of a key-value mount"))),
    }
}

/// Whether an object of version 1 waits at a path.
pub fn is_old(cx: &mut Cx<'_, '_>, path: &str) -> bool {
    cx.exists(OBJECTS, path.as_bytes())
}

/// Whether any waits below a folder: what lists ask before they look twice.
pub fn any_old(cx: &mut Cx<'_, '_>, folder: &str) -> Result<bool, Error> {
    Ok(!cx.scan_keys(OBJECTS, folder, "", 1)?.is_empty())
}

/// The record that the key of an old object would have.
pub fn described(cx: &mut Cx<'_, '_>, path: &str) -> Result<Option<Vec<u8>>, Error> {
    if !is_old(cx, path) {
        return Ok(None);
    }
    let stamp = cx.get(CONFIG, UPGRADED)?.and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    let created =
        stamp.map(Wall).ok_or_else(|| Error::internal("a mount holds old objects and was never upgraded"))?;
    let mut key = Key::default();
    key.add_version(VersionState { created, deletion: None, destroyed: false }, u32::MAX);
    Ok(Some(key.encode()))
}

/// The JSON text of an old object.
pub fn old_text(cx: &mut Cx<'_, '_>, path: &str) -> Result<Option<String>, Error> {
    let Some(object) = cx.get(OBJECTS, path.as_bytes())? else { return Ok(None) };
    String::from_utf8(object).map(Some).map_err(|_| Error::internal("stored secret is not text"))
}

/// Takes an old object over as the data of version 1; nothing if there is none.
pub fn move_over(cx: &mut Cx<'_, '_>, path: &str) -> Result<(), Error> {
    if let Some(text) = old_text(cx, path)? {
        store::save_version(cx, path, 1, &text)?;
        cx.delete(OBJECTS, path.as_bytes());
    }
    Ok(())
}

/// Drops an old object; nothing if there is none.
pub fn forget(cx: &mut Cx<'_, '_>, path: &str) {
    if is_old(cx, path) {
        cx.delete(OBJECTS, path.as_bytes());
    }
}
