//! Workloads over KV v2: registers and lists. Keys change every few hundred calls, so that each is judged in a moment.

use super::{Ask, Effect, Ended, Shared, Worker, key_of, next, path_of};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Keys in use at a time.
const KEYS: u64 = 3;
/// Calls, over all keys in use, after which others are taken.
const CALLS: u64 = 500;

fn generation(shared: &Shared) -> u64 {
    shared.ops.load(Ordering::Relaxed) / CALLS
}

fn read_register(w: &mut Worker, key: &str) -> Ended {
    let (root, path) = (w.root.clone(), format!("secret/data/{}", path_of(key)));
    let ask = Ask { workload: "register", f: "read", key, input: Value::Null, effect: Effect::Read };
    w.call(
        ask,
        |c, base| c.call(base, "GET", &path, &root, &Value::Null),
        |a| {
            let data = &a.body["data"];
            json!({
                "value": data["data"]["value"].as_i64().unwrap_or(0),
                "version": data["metadata"]["version"].as_u64().unwrap_or(0),
            })
        },
    )
}

/// A client of registers: it remembers the versions it saw, and sets over them.
#[derive(Default)]
pub(super) struct Register {
    seen: BTreeMap<String, u64>,
    written: i64,
}

impl Register {
    pub(super) fn step(&mut self, w: &mut Worker, shared: &Shared) {
        let n = next(&shared.ops);
        let (era, drawn) = (w.world.era_now(), w.rng.u64(0..KEYS));
        let key = key_of(&format!("r{}", n / CALLS * KEYS + drawn), era);
        let pick = w.rng.u32(0..100);
        if pick < 45 {
            if let Ended::Ok(a) = read_register(w, &key) {
                self.seen.insert(key, a.body["data"]["metadata"]["version"].as_u64().unwrap_or(0));
            }
            return;
        }
        self.written += 1;
        let value = w.process * 1_000_000 + self.written;
        let expected = (pick >= 75).then(|| self.seen.get(&key).copied().unwrap_or(0));
        let (root, path) = (w.root.clone(), format!("secret/data/{}", path_of(&key)));
        let (f, input, body) = match expected {
            None => ("write", json!({"value": value}), json!({"data": {"value": value}})),
            Some(e) => (
                "cas",
                json!({"value": value, "expected": e}),
                json!({"data": {"value": value}, "options": {"cas": e}}),
            ),
        };
        let ask = Ask { workload: "register", f, key: &key, input, effect: Effect::Write };
        let ended = w.call(
            ask,
            |c, base| c.call(base, "POST", &path, &root, &body),
            |a| json!({"version": a.body["data"]["version"]}),
        );
        if let Ended::Ok(a) = ended {
            self.seen.insert(key, a.body["data"]["version"].as_u64().unwrap_or(0));
        }
        self.seen.retain(|k, _| k.ends_with(&format!("~{era}")));
    }
}

pub(super) fn read_all_registers(w: &mut Worker, shared: &Shared) {
    let era = w.world.era_now();
    for n in 0..(generation(shared) + 1) * KEYS {
        read_register(w, &key_of(&format!("r{n}"), era));
    }
}

fn list_of(body: &Value) -> Vec<i64> {
    let list = body["data"]["data"]["list"].as_array();
    list.map(|l| l.iter().filter_map(Value::as_i64).collect()).unwrap_or_default()
}

fn read_list(w: &mut Worker, key: &str) {
    let (root, path) = (w.root.clone(), format!("secret/data/{}", path_of(key)));
    let ask = Ask { workload: "append", f: "read", key, input: Value::Null, effect: Effect::Read };
    w.call(ask, |c, base| c.call(base, "GET", &path, &root, &Value::Null), |a| json!({"list": list_of(&a.body)}));
}

/// Appends an element, which is a read and a write over what was read; or reads.
pub(super) fn append(w: &mut Worker, shared: &Shared) {
    let n = next(&shared.ops);
    let key = key_of(&format!("list{}", n / CALLS), w.world.era_now());
    if w.rng.u32(0..100) < 40 {
        return read_list(w, &key);
    }
    let value = n as i64 + 1;
    let (root, path) = (w.root.clone(), format!("secret/data/{}", path_of(&key)));
    let ask =
        Ask { workload: "append", f: "append", key: &key, input: json!({"value": value}), effect: Effect::Write };
    w.call(
        ask,
        |c, base| {
            let a = c.call(base, "GET", &path, &root, &Value::Null);
            // whatever becomes of the read, nothing was changed
            let a = a.map_err(|e| crate::client::Trouble::NotSent(e.to_string()))?;
            if !a.is_ok() && a.status != 404 {
                return Err(crate::client::Trouble::NotSent(a.error()));
            }
            let mut list = list_of(&a.body);
            list.push(value);
            let version = a.body["data"]["metadata"]["version"].as_u64().unwrap_or(0);
            c.call(base, "POST", &path, &root, &json!({"data": {"list": list}, "options": {"cas": version}}))
        },
        |a| json!({"version": a.body["data"]["version"]}),
    );
}

pub(super) fn read_all_lists(w: &mut Worker, shared: &Shared) {
    let era = w.world.era_now();
    for n in 0..=generation(shared) {
        read_list(w, &key_of(&format!("list{n}"), era));
    }
}
