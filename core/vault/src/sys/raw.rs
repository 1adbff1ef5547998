//! `sys/raw/*`: records of the image as they are, for repairs by hand. Answers only where the configuration says so.
//!
//! A path is a key in hexadecimal, with a slash after the table's two digits: `03/00000001` is mount 1. What is sealed
//! is shown opened; the barrier's own tables and everything that names a living token stay out of reach.

use crate::host::host;
use crate::tables;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_barrier::{TABLE_CORE, TABLE_ISSUER};
use ringfence_base::Code;
use ringfence_logical::{Args, Cx, Error, Field, Outcome, Path, Response, nothing};
use serde_json::json;

const FIELDS: &[Field] = &[
    Field::str("path", "A key of the image in hexadecimal: table/rest."),
    Field::str("value", "The new value.").secret(),
    Field::str("encoding", "base64, or empty for text."),
    Field::bool("compressed", "Values are never compressed here.").query(),
    Field::str("compression_type", "Values are never compressed here."),
];

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("raw/?").fields(FIELDS).sudo().root_namespace_only().help("Lists tables of the image.", "").list(list),
    Path::new("raw/{path..}")
        .fields(FIELDS)
        .sudo()
        .root_namespace_only()
        .help("A record of the image.", "A mistake here is not noticed before something fails.")
        .read(read)
        .list(list)
        .write(write)
        .delete(delete),
];

/// Tables whose records must agree with others or hold keys: out of reach.
const PROTECTED: &[u8] = &[0, TABLE_CORE, TABLE_ISSUER];
/// Tables whose records carry a clear header that the machine keeps indexes of: not written by hand.
const INDEXED: &[u8] = &[tables::TOKEN, tables::LEASE];

/// Keys that one list shows.
const MAX_ROWS: usize = 10_000;

fn check_open(cx: &Cx<'_, '_>) -> Result<(), Error> {
    if host(cx).settings().raw_storage_endpoint { Ok(()) } else { Err(Error::unsupported_path()) }
}

/// The key behind a path.
fn key(args: &Args, verb: &str) -> Result<Vec<u8>, Error> {
    let path = args.str("path").trim_end_matches('/');
    let protected = || Error::invalid(format!("cannot {verb} '{path}'"));
    if path.starts_with("core/") || path == "core" {
        return Err(protected());
    }
    let digits: String = path.chars().filter(|c| *c != '/').collect();
    let key = hex::decode(digits)
        .map_err(|_| Error::invalid("a path is a key of the image in hexadecimal, as the lists show it"))?;
    match key.first() {
        Some(table) if PROTECTED.contains(table) => Err(protected()),
        Some(_) => Ok(key),
        None => Err(Error::invalid("no path given")),
    }
}

fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    check_open(cx)?;
    if args.str("path").trim_matches('/').is_empty() {
        let present = (0..=u8::MAX).filter(|t| !PROTECTED.contains(t));
        let present = present.filter(|t| !cx.txn.list(&[*t], None, 1).is_empty());
        let names: Vec<String> = present.map(|t| format!("{t:02x}/")).collect();
        return Response::keys(names).done();
    }
    let prefix = key(args, "list")?;
    let keys = cx.txn.list(&prefix, None, MAX_ROWS);
    let response = Response::keys(keys.iter().map(|k| hex::encode(&k[prefix.len()..])).collect());
    match keys.len() < MAX_ROWS {
        true => response,
        false => response.warn(format!("Only the first {MAX_ROWS} keys are shown; ask with a longer path.")),
    }
    .done()
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    check_open(cx)?;
    let encoding = check_encoding(args)?;
    let Some(plain) = cx.txn.get(&key(args, "read")?)? else { return nothing() };
    let value = match encoding {
        Encoding::Base64 => STANDARD.encode(&plain.bytes),
        Encoding::Text => String::from_utf8(plain.bytes)
            .map_err(|_| Error::invalid("the record is not text; ask with encoding=base64"))?,
    };
    Response::json(json!({ "value": value })).done()
}

enum Encoding {
    Text,
    Base64,
}

fn check_encoding(args: &Args) -> Result<Encoding, Error> {
    match args.str("encoding") {
        "" => Ok(Encoding::Text),
        "base64" => Ok(Encoding::Base64),
        other => Err(Error::invalid(format!("invalid encoding {other:?}"))),
    }
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    check_open(cx)?;
    let key = key(args, "write")?;
    if INDEXED.contains(&key[0]) {
        return Err(Error::invalid(format!("cannot write '{}'", args.str("path"))));
    }
    let value = match check_encoding(args)? {
        Encoding::Text => args.str("value").as_bytes().to_vec(),
        Encoding::Base64 => {
            STANDARD.decode(args.str("value")).map_err(|_| Error::new(Code::Invalid, "the value is not base64"))?
        }
    };
    let header = cx.txn.get(&key)?.map(|p| p.header).unwrap_or_default();
    crate::mount::note_edit(cx.txn, &key);
    cx.txn.put(key, &header, &value);
    nothing()
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    check_open(cx)?;
    let key = key(args, "delete")?;
    crate::mount::note_edit(cx.txn, &key);
    cx.txn.delete(&key);
    nothing()
}
