//! Tests of the system backend: every request goes through the pipeline of a node in memory.

mod help;
mod isolation;
mod mounts;
mod namespaces;
mod policies;
mod quotas;
mod router;
mod settings;
mod status;

use crate::testing::{World, error_of};
use ringfence_base::Code;
use ringfence_logical::path::Table;
use ringfence_logical::{Class, Cx, Engine, Error, Operation, Path, nothing};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Stands in for the key-value engine: two versions, and an upgrade with a warning.
struct Versioned(&'static Table);

static ONE: Table = Table {
    kind: "kv",
    class: Class::Secret,
    help: "Version 1.",
    paths: &[Path::new("first").read(|_, _| nothing())],
};

static TWO: Table = Table {
    kind: "kv",
    class: Class::Secret,
    help: "Version 2.",
    paths: &[Path::new("config").read(|_, _| nothing()).write(|cx, _| {
        cx.put(1, b"x", b"1");
        nothing()
    })],
};

static USERPASS: Table = Table { kind: "userpass", class: Class::Auth, help: "Users.", paths: &[] };

impl Engine for Versioned {
    fn table(&self) -> &'static Table {
        self.0
    }

    fn reconfigure(
        &self,
        cx: &mut Cx<'_, '_>,
        _: &BTreeMap<String, String>,
        new: &BTreeMap<String, String>,
    ) -> Result<Vec<String>, Error> {
        cx.put(1, b"upgraded", b"1");
        Ok(new.get("version").map(|v| format!("now {v}")).into_iter().collect())
    }
}

/// A node with `kv` in two versions and `userpass`.
fn world() -> World {
    World::with(|r| {
        r.add("kv", Box::new(Versioned(&ONE)))
            .add("kv-v2", Box::new(Versioned(&TWO)))
            .add("userpass", Box::new(Versioned(&USERPASS)));
    })
}

/// A request by the root token.
fn root(w: &mut World, op: Operation, path: &str, data: Value) -> (Code, Value) {
    let token = w.root.clone();
    w.call(op, path, &token, data)
}

fn get(w: &mut World, path: &str) -> Value {
    let (code, v) = root(w, Operation::Read, path, Value::Null);
    assert_eq!(code, Code::Ok, "{path}: {v}");
    v
}

fn list(w: &mut World, path: &str) -> (Code, Value) {
    root(w, Operation::List, path, Value::Null)
}

fn post(w: &mut World, path: &str, data: Value) -> (Code, Value) {
    root(w, Operation::Update, path, data)
}

/// A write that has no answer.
fn set(w: &mut World, path: &str, data: Value) {
    let (code, v) = post(w, path, data);
    assert_eq!(code, Code::NoContent, "{path}: {v} {:?}", w.cause);
}

fn delete(w: &mut World, path: &str) -> (Code, Value) {
    root(w, Operation::Delete, path, Value::Null)
}

/// The client's mistake and its text.
#[track_caller]
fn refused(answer: (Code, Value), text: &str) {
    assert_eq!((answer.0, error_of(&answer.1)), (Code::Invalid, text), "{}", answer.1);
}

#[track_caller]
fn absent(answer: (Code, Value)) {
    assert_eq!((answer.0, answer.1), (Code::NotFound, json!({"errors": []})));
}
