//! The cubbyhole: a small store that each service token has for itself and that dies with it. Called by the vault
//! floor for the mount `cubbyhole/`.
//!
//! Entries stand in a table of their own under mount, keyed hash of the token and path, so that the end of a token is
//! the end of one key range. Response wrapping puts its rows `response` and `wrapinfo` into the wrapping token's
//! cubbyhole the same way. No path reaches the entries of another token, root included.

use crate::page;
use ringfence_logical::cx::{cubbyhole_key, unlimited};
use ringfence_logical::path::Table;
use ringfence_logical::{Args, Class, Cx, Engine, Error, Field, Outcome, Path, Response, nothing};

/// The engine.
pub struct Cubbyhole;

const PATH: Field = Field::str("path", "Location of the entry within the token's cubbyhole.");

static TABLE: Table = Table {
    kind: "cubbyhole",
    class: Class::Secret,
    help: "A store private to the token that uses it, destroyed with the token.",
    paths: &[Path::new("{path..?}")
        .fields(&[PATH])
        .free_form()
        .help("Reads, writes and lists entries of the caller's cubbyhole.", "")
        .exists(exists)
        .read(read)
        .write(write)
        .delete(delete)
        .list(list)
        .scan(scan)],
};

impl Engine for Cubbyhole {
    fn table(&self) -> &'static Table {
        &TABLE
    }
}

const READING_RESPONSE: &str = "Reading from 'cubbyhole/response' is deprecated. Please use sys/wrapping/unwrap to unwrap responses, as it provides additional security checks and other benefits.";

/// The key of an entry of the caller; refuses callers that have no cubbyhole.
fn key(cx: &Cx<'_, '_>, path: &str) -> Result<Vec<u8>, Error> {
    let caller = cx.caller()?;
    if caller.is_batch {
        return Err(Error::invalid("cubbyhole operations are only supported by \"service\" type tokens"));
    }
    Ok(cubbyhole_key(cx.mount.id, &caller.token_hash, path))
}

fn location(args: &Args) -> Result<&str, Error> {
    match args.str("path") {
        "" => Err(Error::invalid("missing path")),
        path => Ok(path),
    }
}

fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    // a batch token is refused by the handler, after its policies were asked
    match key(cx, args.str("path")) {
        Ok(key) => Ok(cx.txn.exists(&key)),
        Err(_) => Ok(false),
    }
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let key = key(cx, location(args)?)?;
    let Some(stored) = cx.txn.get(&key)? else { return nothing() };
    let text = String::from_utf8(stored.bytes).map_err(|_| Error::internal("stored cubbyhole entry is not text"))?;
    let response = Response::text(text);
    if args.str("path") == "response" { response.warn(READING_RESPONSE).done() } else { response.done() }
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let key = key(cx, location(args)?)?;
    if args.raw().is_empty() {
        return Err(Error::plain("missing data fields"));
    }
    let text = serde_json::to_vec(args.raw()).expect("a JSON tree always serialises");
    crate::check_size(text.len())?;
    cx.txn.put(key, &[], &text);
    nothing()
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let key = key(cx, location(args)?)?;
    if cx.txn.exists(&key) {
        cx.txn.delete(&key);
    }
    nothing()
}

fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let prefix = key(cx, &page::folder(args.str("path")))?;
    let (after, limit) = page::undeclared(args);
    let after = (!after.is_empty()).then_some(after);
    Response::keys(cx.txn.list_children_page(&prefix, after, unlimited(limit))?).done()
}

fn scan(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let prefix = key(cx, &page::folder(args.str("path")))?;
    let (after, limit) = page::undeclared(args);
    let after_key = (!after.is_empty()).then(|| [&prefix[..], after.as_bytes()].concat());
    let keys = cx.txn.list(&prefix, after_key.as_deref(), unlimited(limit));
    Response::keys(keys.iter().map(|k| String::from_utf8_lossy(&k[prefix.len()..]).into_owned()).collect()).done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{World, holds};
    use ringfence_base::Code;
    use ringfence_logical::{Operation, Principal};
    use serde_json::{Value, json};

    fn become_token(w: &mut World, n: u8) {
        w.principal = Some(Principal { token_hash: [n; 16], is_root: n == 9, ..Principal::default() });
    }

    #[test]
    fn each_token_sees_only_its_own() {
        let mut w = World::new(Cubbyhole);
        become_token(&mut w, 1);
        assert_eq!(w.post("a/b", json!({"x": [1]})).code, Code::NoContent);
        w.post("c", json!({"y": 2, "after": {"any": "type"}}));
        assert_eq!(w.get("a/b").data, json!({"x": [1]}));
        assert_eq!(w.list("").data["keys"], json!(["a/", "c"]));
        assert_eq!(w.list("a").data["keys"], json!(["b"]));
        for other in [2, 9] {
            become_token(&mut w, other);
            assert_eq!(w.get("a/b").code, Code::NotFound);
            assert_eq!(w.list("").code, Code::NotFound);
            assert!(!w.exists("c"));
            w.delete("c");
        }
        become_token(&mut w, 1);
        assert!(w.exists("c"));
        let scanned = w.run(Operation::Scan, "", Value::Null).unwrap().unwrap().data.unwrap().into_map();
        assert_eq!(scanned["keys"], json!(["a/b", "c"]));
        assert_eq!(w.delete("c").code, Code::NoContent);
        assert_eq!(w.get("c").code, Code::NotFound);
    }

    #[test]
    fn refusals_and_warnings() {
        let mut w = World::new(Cubbyhole);
        assert_eq!(
            w.refused(Operation::Update, "a", Value::Null),
            (Code::Internal, "1 error occurred:\n\t* missing data fields\n\n".into())
        );
        w.post("response", json!({"response": "{}"}));
        assert_eq!(w.get("response").response.unwrap().warnings, [READING_RESPONSE]);
        w.post("other", json!({"response": "{}"}));
        assert!(w.get("other").response.unwrap().warnings.is_empty());
        w.principal = Some(Principal { is_batch: true, ..Principal::default() });
        for op in [Operation::Read, Operation::Update, Operation::Delete, Operation::List] {
            assert_eq!(
                w.refused(op, "a", json!({"x": 1})),
                (Code::Invalid, "cubbyhole operations are only supported by \"service\" type tokens".into())
            );
        }
        assert!(!w.exists("a"));
    }

    #[test]
    fn entries_are_sealed() {
        let mut w = World::new(Cubbyhole);
        w.post("a", json!({"x": "CANARY"}));
        assert!(!holds(&w.image_bytes(), "CANARY"));
    }
}
