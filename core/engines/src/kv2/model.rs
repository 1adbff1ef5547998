//! Version 2 against a naive model: maps of whole versions, everything recomputed, nothing encoded.

use super::Kv2;
use super::record::INLINE_BYTES;
use crate::fixture::World;
use proptest::prelude::*;
use ringfence_base::{Code, Wall};
use ringfence_logical::Operation::{Patch, Read, Update};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Act {
    Write { key: u8, value: u8, cas: Option<u64> },
    Patch { key: u8, field: u8, value: Option<u8> },
    DeleteCurrent { key: u8 },
    Delete { key: u8, versions: Vec<u64> },
    Undelete { key: u8, versions: Vec<u64> },
    Destroy { key: u8, versions: Vec<u64> },
    Metadata { key: u8, max: Option<u32>, cas_required: Option<bool>, after: Option<u64> },
    DeleteMetadata { key: u8 },
    Config { max: Option<u32>, after: Option<i64> },
    Wait { seconds: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    let key = || 0..2u8;
    let versions = || proptest::collection::vec(0..8u64, 1..4);
    prop_oneof![
        6 => (key(), any::<u8>(), proptest::option::weighted(0.4, 0..6u64))
            .prop_map(|(key, value, cas)| Act::Write { key, value, cas }),
        2 => (key(), 0..3u8, any::<Option<u8>>()).prop_map(|(key, field, value)| Act::Patch { key, field, value }),
        2 => key().prop_map(|key| Act::DeleteCurrent { key }),
        1 => (key(), versions()).prop_map(|(key, versions)| Act::Delete { key, versions }),
        2 => (key(), versions()).prop_map(|(key, versions)| Act::Undelete { key, versions }),
        1 => (key(), versions()).prop_map(|(key, versions)| Act::Destroy { key, versions }),
        2 => (key(), any::<Option<bool>>(), proptest::option::of(0..4u32), proptest::option::of(0..40u64))
            .prop_map(|(key, cas_required, max, after)| Act::Metadata { key, max, cas_required, after }),
        1 => key().prop_map(|key| Act::DeleteMetadata { key }),
        1 => (proptest::option::of(0..5u32), proptest::option::of(-1..30i64))
            .prop_map(|(max, after)| Act::Config { max, after }),
        1 => (1..20u64).prop_map(|seconds| Act::Wait { seconds }),
    ]
}

#[derive(Clone, Debug)]
struct Version {
    data: Value,
    created: Wall,
    deletion: Option<Wall>,
    destroyed: bool,
}

#[derive(Clone, Debug, Default)]
struct Key {
    current: u64,
    oldest: u64,
    max: u32,
    cas_required: bool,
    after: u64,
    versions: BTreeMap<u64, Version>,
}

#[derive(Default)]
struct Model {
    keys: BTreeMap<u8, Key>,
    max: u32,
    after: i64,
}

impl Model {
    fn lifetime(&self, key: &Key) -> Option<u64> {
        if self.after < 0 {
            return None;
        }
        [self.after as u64, key.after].into_iter().filter(|s| *s > 0).min()
    }

    fn add(&mut self, name: u8, data: Value, now: Wall) {
        let mut key = self.keys.get(&name).cloned().unwrap_or_default();
        key.current += 1;
        let deletion = self.lifetime(&key).map(|s| now.plus_seconds(s));
        key.versions.insert(key.current, Version { data, created: now, deletion, destroyed: false });
        let kept = match key.max.max(self.max) {
            0 => 10,
            n => u64::from(n),
        };
        if key.current - key.oldest >= kept {
            key.oldest = key.current - kept + 1;
            key.versions.retain(|n, _| *n >= key.oldest);
        }
        self.keys.insert(name, key);
    }

    fn live(&self, name: u8, now: Wall) -> Option<&Version> {
        let key = self.keys.get(&name)?;
        key.versions.get(&key.current).filter(|v| is_live(v, now))
    }
}

fn is_live(v: &Version, now: Wall) -> bool {
    !v.destroyed && v.deletion.is_none_or(|d| d > now)
}

/// Applies an act to both and compares what it answers.
fn step(w: &mut World, m: &mut Model, act: &Act) {
    // the world moves a second at each request
    let now = w.now.plus_seconds(1);
    match act {
        Act::Write { key, value, cas } => {
            // every other one is too long to stand in the key's record
            let more = if value % 2 == 0 { "x".repeat(INLINE_BYTES) } else { String::new() };
            let data = json!({"a": value, "b": {"c": 1}, "more": more});
            let mut body = json!({"data": data});
            if let Some(cas) = cas {
                body["options"] = json!({"cas": cas});
            }
            let known = m.keys.get(key);
            let allowed = match cas {
                Some(n) => *n == known.map_or(0, |k| k.current),
                None => !known.is_some_and(|k| k.cas_required),
            };
            assert_eq!(w.run(Update, &format!("data/{key}"), body).is_ok(), allowed);
            if allowed {
                m.add(*key, data, now);
            }
        }
        Act::Patch { key, field, value } => {
            let name = ["a", "b", "x"][*field as usize];
            let answer = w.run(Patch, &format!("data/{key}"), json!({"data": {name: value}}));
            let known = m.keys.get(key).filter(|k| k.versions.contains_key(&k.current));
            if known.is_some_and(|k| k.cas_required) {
                assert!(answer.is_err());
                return;
            }
            let Some(live) = m.live(*key, now) else {
                let code = answer.unwrap().map(|r| r.code);
                assert!(matches!(code, None | Some(Some(Code::NotFound))));
                return;
            };
            let mut data = live.data.clone();
            match value {
                Some(v) => data[name] = json!(v),
                None => {
                    data.as_object_mut().unwrap().remove(name);
                }
            }
            assert_eq!(answer.unwrap().unwrap().code, None);
            m.add(*key, data, now);
        }
        Act::DeleteCurrent { key } => {
            w.delete(&format!("data/{key}"));
            if let Some(k) = m.keys.get_mut(key)
                && let Some(v) = k.versions.get_mut(&k.current).filter(|v| is_live(v, now))
            {
                v.deletion = Some(now);
            }
        }
        Act::Delete { key, versions } => {
            w.post(&format!("delete/{key}"), json!({"versions": versions}));
            for n in versions {
                if let Some(v) = m.keys.get_mut(key).and_then(|k| k.versions.get_mut(n)).filter(|v| is_live(v, now)) {
                    v.deletion = Some(now);
                }
            }
        }
        Act::Undelete { key, versions } => {
            w.post(&format!("undelete/{key}"), json!({"versions": versions}));
            let deletion = m.keys.get(key).and_then(|k| m.lifetime(k)).map(|s| now.plus_seconds(s));
            for n in versions {
                if let Some(v) = m.keys.get_mut(key).and_then(|k| k.versions.get_mut(n)).filter(|v| !v.destroyed) {
                    v.deletion = deletion;
                }
            }
        }
        Act::Destroy { key, versions } => {
            w.post(&format!("destroy/{key}"), json!({"versions": versions}));
            for n in versions {
                if let Some(v) = m.keys.get_mut(key).and_then(|k| k.versions.get_mut(n)) {
                    v.destroyed = true;
                    v.data = Value::Null;
                }
            }
        }
        Act::Metadata { key, max, cas_required, after } => {
            let mut body = json!({});
            if let Some(n) = max {
                body["max_versions"] = json!(n);
            }
            if let Some(b) = cas_required {
                body["cas_required"] = json!(b);
            }
            if let Some(s) = after {
                body["delete_version_after"] = json!(s);
            }
            let nothing = body == json!({});
            w.post(&format!("metadata/{key}"), body);
            if !nothing {
                let k = m.keys.entry(*key).or_default();
                k.max = max.unwrap_or(k.max);
                k.cas_required = cas_required.unwrap_or(k.cas_required);
                k.after = after.unwrap_or(k.after);
            }
        }
        Act::DeleteMetadata { key } => {
            w.delete(&format!("metadata/{key}"));
            m.keys.remove(key);
        }
        Act::Config { max, after } => {
            let mut body = json!({});
            if let Some(n) = max {
                body["max_versions"] = json!(n);
            }
            if let Some(s) = after {
                body["delete_version_after"] = json!(s);
            }
            w.post("config", body);
            m.max = max.unwrap_or(m.max);
            m.after = after.unwrap_or(m.after);
        }
        Act::Wait { seconds } => w.now = w.now.plus_seconds(*seconds),
    }
}

/// Reads every version that was ever there, and the metadata, and compares.
fn compare(w: &mut World, m: &Model) {
    for name in 0..2u8 {
        let metadata = w.get(&format!("metadata/{name}"));
        let Some(key) = m.keys.get(&name) else {
            assert_eq!(metadata.code, Code::NotFound);
            continue;
        };
        assert_eq!(metadata.data["current_version"], json!(key.current));
        assert_eq!(metadata.data["oldest_version"], json!(key.oldest));
        let numbers: Vec<String> = metadata.data["versions"].as_object().unwrap().keys().cloned().collect();
        let mut wanted: Vec<String> = key.versions.keys().map(u64::to_string).collect();
        wanted.sort();
        assert_eq!(numbers, wanted);
        for n in 1..=key.current + 1 {
            let answer = w.run(Read, &format!("data/{name}"), json!({"version": n})).unwrap();
            let Some(v) = key.versions.get(&n) else {
                assert!(answer.is_none());
                continue;
            };
            let r = answer.unwrap();
            let live = is_live(v, w.now);
            assert_eq!(r.code, (!live).then_some(Code::NotFound));
            let data = Value::Object(r.data.unwrap().into_map());
            assert_eq!(data["data"], if live { v.data.clone() } else { Value::Null });
            let deletion = v.deletion.map(Wall::rfc3339).unwrap_or_default();
            let want = json!({
                "created_time": v.created.rfc3339(), "custom_metadata": null, "deletion_time": deletion,
                "destroyed": v.destroyed, "version": n,
            });
            assert_eq!(data["metadata"], want);
        }
    }
    // one record a key, one a version whose data is kept elsewhere, the configuration and the issuer
    let apart =
        |k: &Key, n: u64, v: &Version| !v.destroyed && (n != k.current || v.data.to_string().len() > INLINE_BYTES);
    let kept: usize = m.keys.values().map(|k| 1 + k.versions.iter().filter(|(n, v)| apart(k, **n, v)).count()).sum();
    let rest = w.records() - kept as u64;
    assert!(rest == 1 || rest == 2, "{rest} records besides the keys'");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn version_2_does_as_its_model(acts in proptest::collection::vec(act(), 1..40)) {
        let mut w = World::new(Kv2);
        let mut m = Model::default();
        for act in &acts {
            step(&mut w, &mut m, act);
        }
        compare(&mut w, &m);
    }
}
