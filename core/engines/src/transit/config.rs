//! Settings of the mount: whether encryption makes missing keys, and the size of the cache.

use ringfence_logical::{Args, Cx, Error, Outcome, Response};
use serde_json::json;

const AREA: u8 = b'c';
const KEYS: &[u8] = b"keys";
const CACHE: &[u8] = b"cache";
/// Least size of a cache that has one. Source: Vault's documented rule.
const MIN_CACHE: i64 = 10;

/// Encryption under a name that is not there makes no key.
pub fn upsert_disabled(cx: &mut Cx<'_, '_>) -> Result<bool, Error> {
    Ok(cx.get_json(AREA, KEYS)?.unwrap_or(false))
}

pub fn read_keys(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let disabled = upsert_disabled(cx)?;
    Response::json(json!({ "disable_upsert": disabled })).done()
}

pub fn write_keys(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if let Some(disabled) = args.opt_bool("disable_upsert") {
        cx.put_json(AREA, KEYS, &disabled);
        return Response::json(json!({ "disable_upsert": disabled })).done();
    }
    read_keys(cx, args)
}

pub fn read_cache(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let size: i64 = cx.get_json(AREA, CACHE)?.unwrap_or(0);
    Response::json(json!({ "size": size })).done()
}

/// Most decoded keys of this mount that a core keeps, and most versions of them: what the mount says, and within the
/// bound of the machine's own memory where it says nothing. Asked when a key must be decoded; so a new size holds from
/// the next such key on, without a reload.
pub fn cache_size(cx: &mut Cx<'_, '_>) -> Result<usize, Error> {
    Ok(match cx.get_json::<usize>(AREA, CACHE)?.unwrap_or(0) {
        0 => usize::MAX,
        n => n,
    })
}

pub fn write_cache(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let size = args.int("size");
    if size != 0 && !(MIN_CACHE..=i64::from(u32::MAX)).contains(&size) {
        return Err(Error::invalid("size must be 0 or a value greater or equal to 10"));
    }
    cx.put_json(AREA, CACHE, &size);
    Response::json(json!({ "size": size })).done()
}
