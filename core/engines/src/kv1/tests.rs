//! Version 1 from outside.

use super::Kv1;
use crate::fixture::{World, holds};
use ringfence_base::Code;
use ringfence_logical::{Lease, Operation, Step};
use serde_json::{Map, Value, json};

fn world() -> World {
    World::new(Kv1)
}

#[test]
fn write_read_replace_delete() {
    let mut w = world();
    assert!(!w.exists("a/b"));
    assert_eq!(w.post("a/b", json!({"x": 1, "path": {"y": [null, true]}, "limit": {"z": 0}})).code, Code::NoContent);
    assert!(w.exists("a/b"));
    let got = w.get("a/b");
    assert_eq!(got.data, json!({"x": 1, "path": {"y": [null, true]}, "limit": {"z": 0}}));
    let r = got.response.unwrap();
    assert_eq!((r.lease_duration, r.lease), (2_764_800, None));
    w.post("a/b", json!({"y": "2"}));
    assert_eq!(w.get("a/b").data, json!({"y": "2"}));
    assert_eq!(w.delete("a/b").code, Code::NoContent);
    assert_eq!(w.get("a/b").code, Code::NotFound);
    assert_eq!(w.delete("a/b").code, Code::NoContent);
    assert_eq!(w.writes, 0);
}

#[test]
fn numbers_are_kept_exactly() {
    let mut w = world();
    let text = r#"{"big":9223372036854775807,"float":1.10,"huge":123456789012345678901234567890,"tiny":1e-400}"#;
    let body: Value = serde_json::from_str(text).unwrap();
    w.post("n", body.clone());
    assert_eq!(w.get("n").data, body);
    assert!(w.get("n").data.to_string().contains("123456789012345678901234567890"));
}

#[test]
fn lease_duration_comes_from_the_object() {
    let mut w = world();
    for (body, seconds) in [
        (json!({"ttl": "1h"}), 3600),
        (json!({"ttl": 60, "lease": "2h"}), 60),
        (json!({"lease": "2h"}), 7200),
        (json!({"ttl": "soon"}), 2_764_800),
        (json!({"ttl": {"a": 1}}), 2_764_800),
        (json!({"nested": {"ttl": "1h"}}), 2_764_800),
    ] {
        w.post("t", body.clone());
        assert_eq!(w.get("t").response.unwrap().lease_duration, seconds, "{body}");
    }
}

#[test]
fn leases_are_passed_through_on_request() {
    let mut w = world();
    w.mount.options.insert("leased_passthrough".into(), "true".into());
    w.post("a", json!({"x": 1}));
    w.post("b", json!({"x": 1, "ttl": "1h"}));
    let plain = w.get("a").response.unwrap().lease.unwrap();
    assert_eq!((plain.secret, plain.ttl, plain.renewable), ("kv", 0, false));
    let timed = w.get("b").response.unwrap().lease.unwrap();
    assert_eq!((timed.ttl, timed.renewable), (3600, true));
    let lease = Lease { secret: "kv".into(), internal: Map::new(), path: "b".into(), increment: 90 };
    let renewed = w.with_engine(|e, cx| e.renew(cx, &lease)).unwrap().into_response().unwrap();
    assert_eq!(renewed.lease.unwrap().ttl, 90);
    assert!(matches!(w.with_engine(|e, cx| e.revoke(cx, &lease)), Ok(Step::Done(None))));
    assert_eq!(w.get("b").code, Code::Ok, "the object outlives its lease");
}

#[test]
fn lists_and_scans() {
    let mut w = world();
    for p in ["a", "a/b", "a/c/d", "ab", "z/y"] {
        w.post(p, json!({"x": 1}));
    }
    assert_eq!(w.list("").data["keys"], json!(["a", "a/", "ab", "z/"]));
    assert_eq!(w.list("a").data["keys"], json!(["b", "c/"]));
    assert_eq!(w.list("ab").code, Code::NotFound);
    let page = w.run(Operation::List, "", json!({"after": "a", "limit": "2"})).unwrap().unwrap();
    assert_eq!(Value::Object(page.data.unwrap().into_map()), json!({"keys": ["a/", "ab"]}));
    let all = w.run(Operation::Scan, "a", Value::Null).unwrap().unwrap();
    assert_eq!(Value::Object(all.data.unwrap().into_map()), json!({"keys": ["b", "c/d"]}));
}

#[test]
fn refusals() {
    let mut w = world();
    assert_eq!(w.refused(Operation::Update, "a", Value::Null), (Code::Invalid, "missing data fields".into()));
    assert_eq!(w.refused(Operation::Update, "", json!({"a": 1})), (Code::Invalid, "missing path".into()));
    assert_eq!(w.refused(Operation::Patch, "a", json!({"a": 1})).0, Code::Unsupported);
    assert_eq!(w.refused(Operation::Update, "a/", json!({"a": 1})).0, Code::Invalid);
    let huge = json!({"a": "x".repeat(1 << 20), "b": "x".repeat(1 << 20)});
    assert_eq!(w.refused(Operation::Update, "a", huge).0, Code::TooLarge);
}

#[test]
fn values_are_sealed() {
    let mut w = world();
    w.post("visible/path", json!({"k": "CANARY-0123456789"}));
    let image = w.image_bytes();
    assert!(holds(&image, "visible/path") && !holds(&image, "CANARY"));
}
