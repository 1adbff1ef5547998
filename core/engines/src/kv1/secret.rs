//! Handlers of version 1.

use super::{OBJECTS, SECRET};
use crate::page;
use ringfence_logical::args::seconds_of;
use ringfence_logical::{Args, Cx, Error, LeaseTerms, Map, Outcome, Response, nothing};

pub fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    Ok(cx.exists(OBJECTS, args.str("path").as_bytes()))
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = location(args)?;
    let Some(bytes) = cx.get(OBJECTS, path.as_bytes())? else { return nothing() };
    let text = String::from_utf8(bytes).map_err(|_| Error::internal("stored secret is not text"))?;
    let wanted = wanted_ttl(&text);
    let mut response = Response::text(text);
    if cx.mount.options.get("leased_passthrough").is_some_and(|v| v == "true") {
        response.lease = Some(LeaseTerms {
            secret: SECRET,
            ttl: wanted.unwrap_or(0),
            max_ttl: 0,
            renewable: wanted.is_some(),
            internal: Map::new(),
        });
    } else {
        response.lease_duration = wanted.unwrap_or(cx.mount.default_ttl);
    }
    response.done()
}

/// Seconds under the object's own key `ttl`, or else `lease`. A value that is no duration is data like any other.
fn wanted_ttl(text: &str) -> Option<u64> {
    // most objects have neither key: look at the text before building a tree
    if !text.contains("\"ttl\"") && !text.contains("\"lease\"") {
        return None;
    }
    let object: Map = serde_json::from_str(text).ok()?;
    let value = object.get("ttl").or_else(|| object.get("lease"))?;
    seconds_of(value).ok().flatten().and_then(|s| u64::try_from(s).ok())
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = location(args)?;
    if path.ends_with('/') {
        return Err(Error::invalid("cannot write to a path ending in '/'"));
    }
    if args.raw().is_empty() {
        return Err(Error::invalid("missing data fields"));
    }
    let text = serde_json::to_vec(args.raw()).expect("a JSON tree always serialises");
    crate::check_size(text.len())?;
    cx.put(OBJECTS, path.as_bytes(), &text);
    nothing()
}

pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = location(args)?;
    if cx.exists(OBJECTS, path.as_bytes()) {
        cx.delete(OBJECTS, path.as_bytes());
    }
    nothing()
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let folder = page::folder(args.str("path"));
    let (after, limit) = page::undeclared(args);
    Response::keys(cx.list(OBJECTS, &folder, after, limit)?).done()
}

pub fn scan(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let folder = page::folder(args.str("path"));
    let (after, limit) = page::undeclared(args);
    Response::keys(cx.scan_keys(OBJECTS, &folder, after, limit)?).done()
}

fn location(args: &Args) -> Result<&str, Error> {
    match args.str("path") {
        "" => Err(Error::invalid("missing path")),
        path => Ok(path),
    }
}
