//! Where version 2 keeps what, and how keys and versions are read and written.

use super::record::Key;
use ringfence_logical::{Cx, Error};

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
    match cx.get(KEYS, path.as_bytes())? {
        Some(bytes) => Ok(Some(Key::decode(&bytes)?)),
        None => Ok(None),
    }
}

/// Writes a key.
pub fn save(cx: &mut Cx<'_, '_>, path: &str, key: &Key) -> Result<(), Error> {
    let bytes = key.encode();
    crate::check_size(bytes.len())?;
    cx.put(KEYS, path.as_bytes(), &bytes);
    Ok(())
}

/// Reads the JSON text of a version's data.
pub fn load_version(cx: &mut Cx<'_, '_>, path: &str, version: u64) -> Result<String, Error> {
    let absent = || Error::internal("a live version has no data");
    let mut bytes = cx.get(VERSIONS, &suffix(path, version))?.ok_or_else(absent)?;
    if bytes.pop() != Some(FORMAT) {
        return Err(Error::internal("unknown format of a version's data"));
    }
    String::from_utf8(bytes).map_err(|_| Error::internal("a version's data is not text"))
}

/// Writes the JSON text of a version's data.
pub fn save_version(cx: &mut Cx<'_, '_>, path: &str, version: u64, text: &str) -> Result<(), Error> {
    crate::check_size(text.len() + 1)?;
    let mut bytes = Vec::with_capacity(text.len() + 1);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(FORMAT);
    cx.put(VERSIONS, &suffix(path, version), &bytes);
    Ok(())
}

/// Erases a version's data.
pub fn erase_version(cx: &mut Cx<'_, '_>, path: &str, version: u64) {
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
