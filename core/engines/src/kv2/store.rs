//! Where version 2 keeps what, and how keys and versions are read and written.

use super::record::{INLINE_BYTES, Key, KeyRecord};
use super::upgrade;
use ringfence_logical::{Cx, Error};
use std::borrow::Cow;

/// Area of the configuration.
pub const CONFIG: u8 = b'c';
/// Area of the keys' records.
pub const KEYS: u8 = b'm';
/// Area of the versions' data.
pub const VERSIONS: u8 = b'v';

/// Format of a version's record: the JSON text of its data, and then this byte. It stands last so that a read takes
/// it off without moving the text.
const FORMAT: u8 = 1;

/// Reads a key.
pub fn load(cx: &mut Cx<'_, '_>, path: &str) -> Result<Option<Key>, Error> {
    match record(cx, path)? {
        Some(bytes) => Ok(Some(Key::decode(&bytes)?)),
        None => Ok(None),
    }
}

/// Reads a key's record. One that an upgrade found in version 1 has none yet and is described as if it had.
pub fn record(cx: &mut Cx<'_, '_>, path: &str) -> Result<Option<Vec<u8>>, Error> {
    match cx.get(KEYS, path.as_bytes())? {
        Some(bytes) => Ok(Some(bytes)),
        None => upgrade::described(cx, path),
    }
}

/// Tells whether there is a key, without opening it.
pub fn exists(cx: &mut Cx<'_, '_>, path: &str) -> bool {
    cx.exists(KEYS, path.as_bytes()) || upgrade::is_old(cx, path)
}

/// Writes a key.
pub fn save(cx: &mut Cx<'_, '_>, path: &str, key: &Key) -> Result<(), Error> {
    let bytes = key.encode();
    crate::check_size(bytes.len())?;
    if !cx.exists(KEYS, path.as_bytes()) {
        upgrade::move_over(cx, path)?;
    }
    cx.put(KEYS, path.as_bytes(), &bytes);
    Ok(())
}

/// The JSON text of a retained version's data, which stands in the key's record or in one of its own.
pub fn text<'k>(cx: &mut Cx<'_, '_>, path: &str, key: &KeyRecord<'k>, version: u64) -> Result<Cow<'k, str>, Error> {
    match key.data {
        Some(data) if version == key.head.current => Ok(data.into()),
        _ => Ok(load_version(cx, path, version)?.into()),
    }
}

/// Writes the current version's data: into the key's record, which is still to be saved, if it is short.
pub fn set_current(cx: &mut Cx<'_, '_>, path: &str, key: &mut Key, text: String) -> Result<(), Error> {
    if text.len() <= INLINE_BYTES {
        key.data = Some(text);
        return Ok(());
    }
    key.data = None;
    save_version(cx, path, key.current, &text)
}

/// Erases a retained version's data, wherever it stands; the key's record is still to be saved.
pub fn erase(cx: &mut Cx<'_, '_>, path: &str, key: &mut Key, version: u64) {
    if version == key.current && key.data.take().is_some() {
        return;
    }
    erase_version(cx, path, version);
}

/// Reads the JSON text of a version's data out of a record of its own.
pub fn load_version(cx: &mut Cx<'_, '_>, path: &str, version: u64) -> Result<String, Error> {
    let absent = || Error::internal("a live version has no data");
    let mut bytes = match cx.get(VERSIONS, &suffix(path, version))? {
        Some(bytes) => bytes,
        None if version == 1 => return upgrade::old_text(cx, path)?.ok_or_else(absent),
        None => return Err(absent()),
    };
    if bytes.pop() != Some(FORMAT) {
        return Err(Error::internal("unknown format of a version's data"));
    }
    String::from_utf8(bytes).map_err(|_| Error::internal("a version's data is not text"))
}

/// Writes the JSON text of a version's data into a record of its own.
pub fn save_version(cx: &mut Cx<'_, '_>, path: &str, version: u64, text: &str) -> Result<(), Error> {
    crate::check_size(text.len() + 1)?;
    let mut bytes = Vec::with_capacity(text.len() + 1);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(FORMAT);
    cx.put(VERSIONS, &suffix(path, version), &bytes);
    Ok(())
}

/// Erases a version's data that has a record of its own.
pub fn erase_version(cx: &mut Cx<'_, '_>, path: &str, version: u64) {
    if version == 1 {
        upgrade::forget(cx, path);
    }
    cx.delete(VERSIONS, &suffix(path, version));
}

/// A path never holds a zero byte, so no path's versions lie among another's.
fn suffix(path: &str, version: u64) -> Vec<u8> {
    let mut s = Vec::with_capacity(path.len() + 9);
    s.extend_from_slice(path.as_bytes());
    s.push(0);
    s.extend_from_slice(&version.to_be_bytes());
    s
}
