//! Version 2 from outside: every endpoint, every documented text.

use super::Kv2;
use crate::fixture::{World, holds};
use crate::kv1::Kv1;
use ringfence_base::Code;
use ringfence_logical::Operation::{self, List, Patch, Read, Scan, Update};
use ringfence_logical::Step;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn world() -> World {
    World::new(Kv2)
}

fn put(w: &mut World, path: &str, data: Value) -> Value {
    let a = w.post(&format!("data/{path}"), json!({"data": data}));
    assert_eq!(a.code, Code::Ok);
    a.data
}

#[test]
fn a_version_is_written_and_read() {
    let mut w = world();
    let written = put(&mut w, "a/b", json!({"data": {"metadata": 1}, "q\"": "\u{2028}<é>"}));
    let created = w.now.rfc3339();
    assert_eq!(
        written,
        json!({"created_time": created, "custom_metadata": null, "deletion_time": "", "destroyed": false, "version": 1})
    );
    assert_eq!(w.writes, 1);
    let read = w.get("data/a/b");
    assert_eq!(read.code, Code::Ok);
    assert_eq!(read.data["data"], json!({"data": {"metadata": 1}, "q\"": "\u{2028}<é>"}));
    assert_eq!(read.data["metadata"], written);
    assert_eq!(w.writes, 0);
    assert_eq!(read.response.unwrap().lease_duration, 0);
}

#[test]
fn versions_are_read_by_number() {
    let mut w = world();
    for n in 1..=3 {
        put(&mut w, "k", json!({"n": n}));
    }
    let read = |w: &mut World, v: &str| w.run(Read, "data/k", json!({"version": v})).unwrap();
    let data = |r: Option<ringfence_logical::Response>| Value::Object(r.unwrap().data.unwrap().into_map());
    assert_eq!(data(read(&mut w, "2"))["data"], json!({"n": 2}));
    assert_eq!(data(read(&mut w, "0"))["data"], json!({"n": 3}));
    assert_eq!(data(read(&mut w, "-5"))["data"], json!({"n": 3}));
    assert_eq!(read(&mut w, "4"), None);
    assert_eq!(w.get("data/other").code, Code::NotFound);
    assert_eq!(w.refused(Read, "data/k", json!({"version": "x"})).0, Code::Invalid);
}

#[test]
fn writes_without_data_are_refused() {
    let mut w = world();
    for body in [json!({}), json!({"foo": "bar"}), json!({"options": {"cas": 0}})] {
        assert_eq!(w.refused(Update, "data/k", body), (Code::Invalid, "no data provided".into()));
    }
    assert!(w.refused(Update, "data/k", json!({"data": "CANARY"})).1.starts_with("Field validation failed"));
    put(&mut w, "k", Value::Null);
    let read = w.get("data/k");
    assert_eq!((read.code, &read.data["data"]), (Code::Ok, &Value::Null));
    assert_eq!(read.data["metadata"]["deletion_time"], "");
    put(&mut w, "k", json!({}));
    assert_eq!(w.get("data/k").data["data"], json!({}));
    let warned = w.post("data/k", json!({"data": {}, "zz": 1})).response.unwrap().warnings;
    assert_eq!(warned, ["Endpoint ignored these unrecognized parameters: [zz]"]);
}

#[test]
fn check_and_set() {
    let mut w = world();
    let cas = |w: &mut World, v: Value| w.run(Update, "data/k", json!({"data": {"a": 1}, "options": {"cas": v}}));
    const MISMATCH: &str = "check-and-set parameter did not match the current version";
    assert_eq!(cas(&mut w, json!(1)).unwrap_err().errors[0], MISMATCH);
    assert!(cas(&mut w, json!(0)).is_ok());
    assert_eq!(cas(&mut w, json!(0)).unwrap_err().errors[0], MISMATCH);
    assert_eq!(cas(&mut w, json!(-1)).unwrap_err().errors[0], MISMATCH);
    assert!(cas(&mut w, json!("1")).is_ok());
    for bad in [json!("x"), json!({}), json!([1]), json!(1.5)] {
        assert_eq!(cas(&mut w, bad).unwrap_err().errors[0], "error parsing check-and-set parameter");
    }
    // the number stays after a deletion
    w.delete("data/k");
    assert_eq!(cas(&mut w, json!(0)).unwrap_err().errors[0], MISMATCH);
    assert!(cas(&mut w, json!(2)).is_ok());
    w.delete("metadata/k");
    assert!(cas(&mut w, json!(0)).is_ok());

    const REQUIRED: &str = "check-and-set parameter required for this call";
    w.post("metadata/k", json!({"cas_required": true}));
    assert_eq!(w.refused(Update, "data/k", json!({"data": {}})), (Code::Invalid, REQUIRED.into()));
    w.post("config", json!({"cas_required": true}));
    assert_eq!(w.refused(Update, "data/new", json!({"data": {}, "options": {}})), (Code::Invalid, REQUIRED.into()));
    // metadata alone is version 0
    w.post("metadata/m", json!({"max_versions": 2}));
    assert!(w.run(Update, "data/m", json!({"data": {}, "options": {"cas": 0}})).is_ok());
}

#[test]
fn configuration() {
    let mut w = world();
    let zero = json!({"cas_required": false, "delete_version_after": "0s", "max_versions": 0, "metadata_cas_required": false});
    assert_eq!(w.get("config").data, zero);
    assert_eq!(w.post("config", json!({})).code, Code::NoContent);
    assert_eq!(w.writes, 0);
    assert_eq!(w.post("config", json!({"max_versions": "5", "delete_version_after": "90d"})).code, Code::NoContent);
    w.post("config", json!({"cas_required": true}));
    let want = json!({"cas_required": true, "delete_version_after": "2160h0m0s", "max_versions": 5, "metadata_cas_required": false});
    assert_eq!(w.get("config").data, want);
    w.post("config", json!({"delete_version_after": "-20s"}));
    assert_eq!(w.get("config").data["delete_version_after"], "-1s");
    w.post("config", json!({"delete_version_after": 0}));
    assert_eq!(w.get("config").data["delete_version_after"], "0s");
    assert_eq!(w.refused(Update, "config", json!({"max_versions": -1})).0, Code::Invalid);
    let warned = w.post("config", json!({"max_versions": 1_000_000})).response.unwrap();
    assert_eq!(warned.warnings.len(), 1);
}

#[test]
fn old_versions_are_pruned() {
    let mut w = world();
    let before = w.records();
    for n in 1..=12 {
        put(&mut w, "k", json!({"n": n}));
    }
    let m = w.get("metadata/k").data;
    assert_eq!((&m["current_version"], &m["oldest_version"]), (&json!(12), &json!(3)));
    assert_eq!(m["versions"].as_object().unwrap().len(), 10);
    assert!(m["versions"].get("2").is_none() && m["versions"].get("3").is_some());
    assert_eq!(w.run(Read, "data/k", json!({"version": 2})).unwrap(), None);
    assert_eq!(w.records() - before, 10);
    // the larger of mount and key wins
    w.post("config", json!({"max_versions": 2}));
    w.post("metadata/k", json!({"max_versions": 4}));
    assert_eq!(w.get("metadata/k").data["versions"].as_object().unwrap().len(), 10, "only a write prunes");
    put(&mut w, "k", json!({}));
    let m = w.get("metadata/k").data;
    assert_eq!((&m["oldest_version"], m["versions"].as_object().unwrap().len()), (&json!(10), 4));
}

#[test]
fn soft_deletion_and_undeletion() {
    let mut w = world();
    put(&mut w, "k", json!({"n": 1}));
    put(&mut w, "k", json!({"n": 2}));
    assert_eq!(w.delete("data/none").code, Code::NoContent);
    assert_eq!(w.delete("data/k").code, Code::NoContent);
    let deleted_at = w.now.rfc3339();
    let read = w.get("data/k");
    assert_eq!(read.code, Code::NotFound);
    assert_eq!(read.data["data"], Value::Null);
    assert_eq!(
        (&read.data["metadata"]["deletion_time"], &read.data["metadata"]["destroyed"]),
        (&json!(deleted_at), &json!(false))
    );
    w.delete("data/k");
    assert_eq!(w.writes, 0, "deleted already");
    assert_eq!(w.run(Read, "data/k", json!({"version": 1})).unwrap().unwrap().code, None);
    assert_eq!(w.post("undelete/k", json!({"versions": [2, 9]})).code, Code::NoContent);
    assert_eq!(w.get("data/k").data["data"], json!({"n": 2}));
    assert_eq!(w.post("delete/k", json!({"versions": "1,2,77"})).code, Code::NoContent);
    assert_eq!(w.get("data/k").code, Code::NotFound);
    assert_eq!(w.run(Read, "data/k", json!({"version": 1})).unwrap().unwrap().code, Some(Code::NotFound));
    for (path, text) in [
        ("delete/k", "No version number provided"),
        ("undelete/k", "No version number provided"),
        ("destroy/k", "no version number provided"),
    ] {
        assert_eq!(w.refused(Update, path, json!({"versions": []})), (Code::Invalid, text.into()));
        assert_eq!(w.refused(Update, path, json!({})), (Code::Invalid, text.into()));
        assert_eq!(w.post(&path.replace("/k", "/unknown"), json!({"versions": 1})).code, Code::NoContent);
    }
}

#[test]
fn destruction_is_for_good() {
    let mut w = world();
    put(&mut w, "k", json!({"n": 1}));
    put(&mut w, "k", json!({"n": 2}));
    let before = w.records();
    assert_eq!(w.post("destroy/k", json!({"versions": ["2"]})).code, Code::NoContent);
    assert_eq!(w.records(), before);
    let kept = w.transaction(Read, "", |cx| cx.get(super::store::KEYS, b"k")).unwrap().unwrap();
    assert!(!kept.windows(5).any(|b| b == b"{\"n\":"), "the data of a destroyed version is gone");
    let mut old = world();
    put(&mut old, "k", json!({"n": 1}));
    put(&mut old, "k", json!({"n": 2}));
    let before = old.records();
    old.post("destroy/k", json!({"versions": [1]}));
    assert_eq!(old.records(), before - 1);
    let read = w.get("data/k");
    assert_eq!((read.code, &read.data["metadata"]["destroyed"]), (Code::NotFound, &json!(true)));
    w.post("undelete/k", json!({"versions": [2]}));
    assert_eq!(w.get("data/k").code, Code::NotFound);
    w.delete("data/k");
    assert_eq!(w.writes, 0);
    w.post("destroy/k", json!({"versions": [2]}));
    assert_eq!(w.writes, 0);
    assert_eq!(w.get("metadata/k").data["versions"]["2"]["destroyed"], true);
}

#[test]
fn versions_delete_themselves() {
    let mut w = world();
    w.post("config", json!({"delete_version_after": "1h"}));
    w.post("metadata/k", json!({"delete_version_after": "10m"}));
    put(&mut w, "k", json!({"n": 1}));
    let due = w.now.plus_seconds(600);
    let read = w.get("data/k");
    assert_eq!((read.code, &read.data["metadata"]["deletion_time"]), (Code::Ok, &json!(due.rfc3339())));
    w.now = due;
    assert_eq!(w.get("data/k").code, Code::NotFound);
    // undeleting starts the lifetime anew
    w.post("undelete/k", json!({"versions": [1]}));
    let due = w.now.plus_seconds(600).rfc3339();
    assert_eq!(w.get("data/k").data["metadata"]["deletion_time"], json!(due));
    // the mount's word alone
    let other = put(&mut w, "other", json!({}));
    assert_eq!(other["deletion_time"], json!(w.now.plus_seconds(3600).rfc3339()));
    // a negative value on the mount switches it off for all keys
    w.post("config", json!({"delete_version_after": "-1s"}));
    assert_eq!(put(&mut w, "k", json!({}))["deletion_time"], "");
}

#[test]
fn merge_patches() {
    let mut w = world();
    assert_eq!(w.patch("data/k", json!({"data": {"a": 1}})).code, Code::NotFound);
    w.post("metadata/only", json!({"max_versions": 3}));
    assert_eq!(w.patch("data/only", json!({"data": {"a": 1}})).code, Code::NotFound);
    put(&mut w, "k", json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1, 2]}));
    let a = w.patch("data/k", json!({"data": {"a": null, "b": {"c": null, "x": {"y": null}}, "e": [3]}}));
    assert_eq!((a.code, &a.data["version"]), (Code::Ok, &json!(2)));
    assert_eq!(w.get("data/k").data["data"], json!({"b": {"d": 3, "x": {}}, "e": [3]}));
    assert_eq!(w.refused(Patch, "data/k", json!({})), (Code::Invalid, "no data provided".into()));
    assert_eq!(w.refused(Patch, "data/k", json!({"data": {}, "options": {"cas": 1}})).0, Code::Invalid);
    assert_eq!(w.patch("data/k", json!({"data": {"z": 1}, "options": {"cas": 2}})).data["version"], 3);
    w.delete("data/k");
    let gone = w.patch("data/k", json!({"data": {"z": 2}}));
    assert_eq!(gone.code, Code::NotFound);
    assert_eq!((&gone.data["version"], &gone.data["destroyed"]), (&json!(3), &json!(false)));
    assert!(gone.data["deletion_time"].as_str().is_some_and(|t| !t.is_empty()));
}

#[test]
fn subkeys_hide_values() {
    let mut w = world();
    put(&mut w, "k", json!({"a": 1, "b": {"c": {"d": "CANARY"}, "e": {}}, "f": [{"g": 1}]}));
    let all = w.get("subkeys/k").data;
    assert_eq!(all["subkeys"], json!({"a": null, "b": {"c": {"d": null}, "e": null}, "f": null}));
    assert_eq!(all["metadata"]["version"], 1);
    let at = |w: &mut World, depth: u32| {
        let r = w.run(Read, "subkeys/k", json!({"depth": depth.to_string()})).unwrap().unwrap();
        Value::Object(r.data.unwrap().into_map())["subkeys"].clone()
    };
    assert_eq!(at(&mut w, 1), json!({"a": null, "b": null, "f": null}));
    assert_eq!(at(&mut w, 2), json!({"a": null, "b": {"c": null, "e": null}, "f": null}));
    w.delete("data/k");
    let gone = w.get("subkeys/k");
    assert_eq!((gone.code, &gone.data["subkeys"]), (Code::NotFound, &Value::Null));
    assert_eq!(w.get("subkeys/none").code, Code::NotFound);
}

#[test]
fn metadata_is_written_and_read() {
    let mut w = world();
    assert_eq!(w.post("metadata/k", json!({})).code, Code::NoContent);
    assert_eq!(w.get("metadata/k").code, Code::NotFound, "nothing supplied makes nothing");
    w.post("metadata/k", json!({"max_versions": 3, "custom_metadata": {"owner": "me", "n": 5, "t": true}}));
    let created = w.now.rfc3339();
    let m = w.get("metadata/k").data;
    assert_eq!(
        m,
        json!({
            "cas_required": false, "created_time": created, "current_metadata_version": 1, "current_version": 0,
            "custom_metadata": {"n": "5", "owner": "me", "t": "1"}, "delete_version_after": "0s", "max_versions": 3,
            "metadata_cas_required": false, "oldest_version": 0, "updated_time": created, "versions": {},
        })
    );
    assert_eq!(w.get("data/k").code, Code::NotFound);
    put(&mut w, "k", json!({}));
    let written = w.now.rfc3339();
    w.delete("data/k");
    w.post("destroy/k", json!({"versions": 1}));
    let m = w.get("metadata/k").data;
    assert_eq!((&m["created_time"], &m["updated_time"]), (&json!(created), &json!(written)));
    // custom metadata is replaced whole, other fields only if supplied
    w.post("metadata/k", json!({"custom_metadata": {"a": "b"}}));
    let m = w.get("metadata/k").data;
    assert_eq!((&m["custom_metadata"], &m["max_versions"]), (&json!({"a": "b"}), &json!(3)));
    assert_eq!(put(&mut w, "k", json!({}))["custom_metadata"], json!({"a": "b"}));
    assert_eq!(w.get("data/k").data["metadata"]["custom_metadata"], json!({"a": "b"}));
    let before = w.records();
    assert_eq!(w.delete("metadata/k").code, Code::NoContent);
    assert_eq!(before - w.records(), 1);
    assert_eq!(w.get("metadata/k").code, Code::NotFound);
    assert_eq!(w.delete("metadata/k").code, Code::NoContent);
}

#[test]
fn metadata_warnings_and_refusals() {
    let mut w = world();
    w.post("config", json!({"cas_required": true}));
    let a = w.post("metadata/k", json!({"cas_required": false}));
    assert_eq!(a.code, Code::Ok);
    assert_eq!(
        a.response.unwrap().warnings,
        ["\"cas_required\" set to false, but is mandated by backend config. This value will be ignored."]
    );
    let (code, text) = w.refused(Update, "metadata/k", json!({"delete_version_after": -1}));
    assert_eq!(code, Code::Invalid);
    assert!(text.ends_with("cannot provide negative value '-1'"));
}

#[test]
fn custom_metadata_is_bounded() {
    let mut w = world();
    let custom = |w: &mut World, v: Value| w.refused(Update, "metadata/k", json!({"custom_metadata": v}));
    let many: serde_json::Map<String, Value> = (0..65).map(|i| (format!("k{i}"), json!("v"))).collect();
    assert_eq!(
        custom(&mut w, Value::Object(many)).1,
        "1 error occurred:\n\t* custom_metadata validation failed: payload must contain at most 64 keys, provided 65\n\n"
    );
    let long = "x".repeat(129);
    assert_eq!(
        custom(&mut w, json!({long.clone(): "v"})).1,
        format!(
            "1 error occurred:\n\t* custom_metadata validation failed: length of key \"{long}\" is 129 but must be 0 < len(key) <= 128\n\n"
        )
    );
    assert_eq!(
        custom(&mut w, json!({"a": "", "b": "x".repeat(513)})).1,
        "2 errors occurred:\n\t* custom_metadata validation failed: length of value for key \"a\" is 0 but must be 0 < len(value) <= 512\n\t* custom_metadata validation failed: length of value for key \"b\" is 513 but must be 0 < len(value) <= 512\n\n"
    );
    assert!(custom(&mut w, json!({"a\u{7}": "v"})).1.contains("contains unprintable characters"));
    assert!(custom(&mut w, json!({"a": "v\u{7}"})).1.contains("contains unprintable characters"));
    assert!(
        custom(&mut w, json!({"a": {"b": "c"}}))
            .1
            .starts_with("custom_metadata validation failed: '' expected type 'string', got unconvertible type ")
    );
    let full: serde_json::Map<String, Value> = (0..64).map(|i| (format!("k{i}"), json!("v"))).collect();
    assert_eq!(w.post("metadata/k", json!({"custom_metadata": full})).code, Code::NoContent);
    assert!(
        w.refused(Patch, "metadata/k", json!({"custom_metadata": {"one more": "v"}})).1.contains("at most 64 keys")
    );
}

#[test]
fn metadata_is_patched() {
    let mut w = world();
    assert_eq!(w.patch("metadata/k", json!({"max_versions": 3})).code, Code::NotFound);
    w.post("metadata/k", json!({"max_versions": 3, "delete_version_after": "1h", "cas_required": true, "custom_metadata": {"a": "1", "b": "2"}}));
    assert_eq!(w.patch("metadata/k", json!({})).code, Code::NoContent);
    assert_eq!(w.writes, 0);
    assert_eq!(
        w.patch("metadata/k", json!({"custom_metadata": {"a": null, "c": "3"}, "max_versions": null})).code,
        Code::NoContent
    );
    let m = w.get("metadata/k").data;
    assert_eq!(
        (&m["custom_metadata"], &m["max_versions"], &m["cas_required"]),
        (&json!({"b": "2", "c": "3"}), &json!(0), &json!(true))
    );
    w.patch("metadata/k", json!({"custom_metadata": null, "delete_version_after": null, "cas_required": null}));
    let m = w.get("metadata/k").data;
    assert_eq!(
        (&m["custom_metadata"], &m["delete_version_after"], &m["cas_required"]),
        (&Value::Null, &json!("0s"), &json!(false))
    );
}

#[test]
fn metadata_check_and_set() {
    let mut w = world();
    let at = |w: &mut World, n: Value| w.run(Update, "metadata/k", json!({"max_versions": 3, "metadata_cas": n}));
    assert_eq!(at(&mut w, json!(1)).unwrap_err().errors[0], "metadata_cas must be 0 when creating new metadata");
    assert!(at(&mut w, json!(0)).is_ok());
    let mismatch = "metadata check-and-set parameter does not match the current version";
    assert_eq!(at(&mut w, json!(0)).unwrap_err().errors[0], mismatch);
    assert!(at(&mut w, json!(1)).is_ok());
    w.post("config", json!({"metadata_cas_required": true}));
    let required = "metadata check-and-set parameter required for this call";
    assert_eq!(w.refused(Update, "metadata/k", json!({"max_versions": 4})), (Code::Invalid, required.into()));
    assert_eq!(w.refused(Patch, "metadata/k", json!({"max_versions": 4})), (Code::Invalid, required.into()));
    assert_eq!(w.get("metadata/k").data["current_metadata_version"], 2);
}

#[test]
fn keys_are_listed() {
    let mut w = world();
    for p in ["a", "a/b", "a/c/d", "ab"] {
        put(&mut w, p, json!({}));
    }
    w.delete("data/ab");
    assert_eq!(w.list("metadata").data["keys"], json!(["a", "a/", "ab"]));
    assert_eq!(w.list("metadata/a").data["keys"], json!(["b", "c/"]));
    assert_eq!(w.list("metadata/none").code, Code::NotFound);
    let keys = |w: &mut World, op: Operation, path: &str, body: Value| {
        Value::Object(w.run(op, path, body).unwrap().unwrap().data.unwrap().into_map())
    };
    assert_eq!(keys(&mut w, List, "metadata", json!({"after": "a", "limit": "1"}))["keys"], json!(["a/"]));
    assert_eq!(keys(&mut w, Scan, "metadata", Value::Null)["keys"], json!(["a", "a/b", "a/c/d", "ab"]));
    assert_eq!(keys(&mut w, Scan, "metadata/a", Value::Null)["keys"], json!(["b", "c/d"]));
    let detailed = keys(&mut w, List, "detailed-metadata/a", Value::Null);
    assert_eq!(detailed["keys"], json!(["b", "c/"]));
    assert_eq!((&detailed["key_info"]["b"]["current_version"], &detailed["key_info"]["c/"]), (&json!(1), &json!({})));
    let scanned = keys(&mut w, Scan, "detailed-metadata", Value::Null);
    assert_eq!(scanned["key_info"].as_object().unwrap().len(), 4);
    assert_eq!(w.list("detailed-metadata/none").code, Code::NotFound);
}

#[test]
fn strange_paths_are_answered_with_a_hint() {
    let mut w = world();
    let warned = |w: &mut World, op: Operation, path: &str, body: Value| {
        let r = w.run(op, path, body).unwrap().unwrap();
        assert_eq!((r.code, r.data), (Some(Code::NotFound), None));
        r.warnings[0].clone()
    };
    for (op, verb) in [
        (Read, "get"),
        (Update, "put"),
        (Patch, "patch"),
        (Operation::Delete, "delete"),
        (List, "list"),
        (Scan, "scan"),
    ] {
        assert_eq!(
            warned(&mut w, op, "foo/bar", json!({"x": 1})),
            format!(
                "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. If using the Vault CLI, use 'vault kv {verb}' for this operation."
            )
        );
    }
    for path in ["data", "metadata", "delete", "undelete", "destroy", "subkeys"] {
        assert_eq!(
            warned(&mut w, Read, path, Value::Null),
            "Non-listing operations on the root of a K/V v2 mount are not supported."
        );
    }
    warned(&mut w, Update, "metadata", json!({"max_versions": 1}));
    assert_eq!(w.refused(List, "data/a", Value::Null).0, Code::Unsupported);
}

#[test]
fn existence_is_that_of_the_key() {
    let mut w = world();
    assert!(!w.exists("data/k"));
    w.post("metadata/k", json!({"max_versions": 1}));
    assert!(w.exists("data/k") && w.exists("metadata/k"));
}

fn options(version: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("version".to_owned(), version.to_owned())])
}

/// A mount of version 1 with secrets at `dir/s0` to `dir/s<n>`, upgraded.
fn upgraded(n: u64) -> World {
    let mut w = World::new(Kv1);
    for some in (0..n).collect::<Vec<_>>().chunks(500) {
        w.transaction(Update, "", |cx| {
            for i in some {
                let text = format!("{{\"big\":9007199254740993,\"i\":{i}}}");
                cx.put(crate::kv1::OBJECTS, format!("dir/s{i}").as_bytes(), text.as_bytes());
            }
            Ok(())
        })
        .unwrap();
    }
    let warnings = w.with_engine(|e, cx| e.reconfigure(cx, &BTreeMap::new(), &options("2"))).unwrap();
    assert_eq!(warnings.len(), 1);
    w.remount(Kv2);
    w
}

#[test]
fn version_1_becomes_version_2_whatever_it_holds() {
    let mut w = upgraded(5000);
    let at = w.now.rfc3339();
    w.now = w.now.plus_seconds(60);
    assert_eq!(w.list("metadata/dir").data["keys"].as_array().unwrap().len(), 5000);
    let read = w.get("data/dir/s7").data;
    assert_eq!(read["data"], json!({"i": 7, "big": 9007199254740993u64}));
    assert_eq!((&read["metadata"]["version"], &read["metadata"]["created_time"]), (&json!(1), &json!(at)));
    assert_eq!(w.get("metadata/dir/s7").data["current_version"], 1);
    assert_eq!(w.get("subkeys/dir/s7").data["subkeys"], json!({"i": null, "big": null}));
    assert!(w.exists("data/dir/s7") && !w.exists("data/dir/none"));

    let down = w.with_engine(|e, cx| e.reconfigure(cx, &options("2"), &options("1"))).unwrap_err();
    assert_eq!(down.code, Code::Invalid);
    assert!(w.with_engine(|e, cx| e.reconfigure(cx, &options("1"), &options("3"))).is_err());
    assert_eq!(w.with_engine(|e, cx| e.reconfigure(cx, &options("2"), &options("2"))), Ok(vec![]));
}

#[test]
fn an_upgraded_secret_lives_on_as_any_other() {
    let mut w = upgraded(9);
    let written = w.post("data/dir/s0", json!({"data": {"i": "new"}, "options": {"cas": 1}}));
    assert_eq!(written.data["version"], 2);
    assert_eq!(w.get("data/dir/s0").data["data"], json!({"i": "new"}));
    assert_eq!(w.ok(Read, "data/dir/s0", json!({"version": 1})).data["data"]["i"], 0);
    w.post("destroy/dir/s1", json!({"versions": [1]}));
    assert_eq!(w.get("data/dir/s1").code, Code::NotFound);
    w.post("delete/dir/s2", json!({"versions": [1]}));
    assert_eq!(w.get("data/dir/s2").code, Code::NotFound);
    w.post("undelete/dir/s2", json!({"versions": [1]}));
    assert_eq!(w.get("data/dir/s2").data["data"]["i"], 2);
    w.delete("metadata/dir/s3");
    assert_eq!(w.get("data/dir/s3").code, Code::NotFound);
    w.post("metadata/dir/s4", json!({"custom_metadata": {"a": "b"}}));
    let read = w.get("data/dir/s4").data;
    assert_eq!((&read["data"]["i"], &read["metadata"]["custom_metadata"]["a"]), (&json!(4), &json!("b")));
    // one key a name, wherever it stands
    let keys = w.list("metadata/dir").data["keys"].clone();
    assert_eq!(keys, json!(["s0", "s1", "s2", "s4", "s5", "s6", "s7", "s8"]));
    let paged = w.ok(List, "metadata/dir", json!({"after": "s1", "limit": 3})).data["keys"].clone();
    assert_eq!(paged, json!(["s2", "s4", "s5"]));
    w.remount(Kv1);
    assert_eq!(w.list("dir").data["keys"], json!(["s5", "s6", "s7", "s8"]), "what was touched is taken over");
}

#[test]
fn oversized_data_is_refused() {
    let mut w = world();
    let huge = json!({"data": {"a": "x".repeat(1 << 20), "b": "y".repeat(1 << 20)}});
    assert_eq!(w.refused(Update, "data/k", huge).0, Code::TooLarge);
    assert_eq!(w.get("metadata/k").code, Code::NotFound);
}

#[test]
fn no_value_leaves_the_seal_or_stands_in_an_error() {
    let mut w = world();
    put(&mut w, "k", json!({"pw": "CANARY-1"}));
    for (op, path, body) in [
        (Update, "data/k", json!({"data": "CANARY-2"})),
        (Update, "data/k", json!({"data": ["CANARY-2"]})),
        (Update, "data/k", json!({"data": {"pw": "CANARY-2"}, "options": {"cas": 9}})),
        (Update, "data/k", json!({"data": {"pw": "CANARY-2"}, "options": "CANARY-2"})),
        (Patch, "data/k", json!({"data": {"pw": "CANARY-2"}, "options": {"cas": "CANARY-2"}})),
        (Patch, "data/k", json!({"data": "CANARY-2"})),
    ] {
        let _ = w.refused(op, path, body);
    }
    assert!(!holds(&w.image_bytes(), "CANARY"));
    assert!(w.error_texts.len() >= 6 && w.error_texts.iter().all(|t| !t.contains("CANARY")), "{:?}", w.error_texts);
}

#[test]
fn the_bytes_of_a_version() {
    let mut w = world();
    put(&mut w, "a/b", json!({"z": 1.50, "a": "x"}));
    put(&mut w, "a/b", json!({}));
    let stored = w.transaction(Read, "", |cx| cx.get(super::store::VERSIONS, b"a/b\0\0\0\0\0\0\0\0\x01")).unwrap();
    assert_eq!(stored.as_deref(), Some(&b"{\"a\":\"x\",\"z\":1.5}\x01"[..]));
}

#[test]
fn a_record_that_does_not_parse_is_a_fault_not_a_panic() {
    let mut w = world();
    w.transaction(Update, "", |cx| {
        cx.put(super::store::KEYS, b"k", b"\x01rubbish");
        Ok(Step::Done(None))
    })
    .unwrap();
    assert_eq!(w.refused(Read, "data/k", Value::Null).0, Code::Internal);
    assert_eq!(w.refused(Update, "data/k", json!({"data": {}})).0, Code::Internal);
}
