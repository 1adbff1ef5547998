//! From version 1 to version 2: every object becomes version 1 of its key, within the transaction that changes the
//! mount's options, so that no request ever sees a mount half converted.

use super::record::{Key, VersionState};
use super::store;
use crate::kv1;
use ringfence_base::limit::MAX_BATCH_BYTES;
use ringfence_logical::{Cx, Error};
use std::collections::BTreeMap;

/// Most secrets that one transaction converts: each is two writes and a delete, and they must fit one batch.
const MAX_SECRETS: usize = 1000;
/// Most bytes of secrets, with room for keys and sealing.
const MAX_BYTES: usize = MAX_BATCH_BYTES / 2;
const _: () = assert!(3 * MAX_SECRETS < ringfence_base::limit::MAX_BATCH_OPS);

/// The mount's options are about to become `new`.
pub(crate) fn reconfigure(
    cx: &mut Cx<'_, '_>,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) -> Result<Vec<String>, Error> {
    match (version(old)?, version(new)?) {
        (1, 2) => convert(cx),
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

fn convert(cx: &mut Cx<'_, '_>) -> Result<Vec<String>, Error> {
    let too_large = || {
        Error::invalid(format!(
            "cannot upgrade a mount in place that holds more than {MAX_SECRETS} secrets or {} MiB; mount a new one with version 2 and copy the secrets over",
            MAX_BYTES >> 20
        ))
    };
    let paths = cx.scan_keys(kv1::OBJECTS, "", "", MAX_SECRETS + 1)?;
    if paths.len() > MAX_SECRETS {
        return Err(too_large());
    }
    let mut bytes = 0;
    for path in &paths {
        let Some(object) = cx.get(kv1::OBJECTS, path.as_bytes())? else { continue };
        bytes += object.len() + 3 * path.len();
        if bytes > MAX_BYTES {
            return Err(too_large());
        }
        let text = String::from_utf8(object).map_err(|_| Error::internal("stored secret is not text"))?;
        let mut key = Key::default();
        key.add_version(VersionState { created: cx.now, deletion: None, destroyed: false }, u32::MAX);
        store::save_version(cx, path, key.current, &text)?;
        store::save(cx, path, &key)?;
        cx.delete(kv1::OBJECTS, path.as_bytes());
    }
    Ok(vec![
        "Upgrading mount from version 1 to version 2. This mount will be unavailable for a brief period and will resume service shortly.".into(),
    ])
}
