//! A policy that is changed while tokens are used under it. Change number `v` grants one path, `v`; what a token may do
//! therefore tells which change it is judged by, and the policy is a register.

use super::{Ask, Effect, Shared, Worker, key_of, next, path_of};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::PoisonError;

/// Changes of one policy before the next is taken; every read asks about all of them.
const CHANGES: i64 = 40;

/// A client of policies, with its token for each.
#[derive(Default)]
pub(super) struct Policies {
    tokens: BTreeMap<String, String>,
    number: u64,
}

fn granted(v: i64) -> String {
    format!("secret/data/granted/{v}")
}

impl Policies {
    pub(super) fn step(&mut self, w: &mut Worker, shared: &Shared) {
        next(&shared.ops);
        let key = key_of(&format!("policy{}", self.number), w.world.era_now());
        let name = path_of(&key);
        if w.rng.u32(0..100) < 20 {
            let value = {
                let mut values = shared.policy_values.lock().unwrap_or_else(PoisonError::into_inner);
                let v = values.entry(key.clone()).or_default();
                *v += 1;
                *v
            };
            if value > CHANGES {
                self.number += 1;
                return;
            }
            let text = format!("path \"{}\" {{ capabilities = [\"read\"] }}", granted(value));
            let (root, body) = (w.root.clone(), json!({"policy": text}));
            let ask = Ask {
                workload: "policy",
                f: "write",
                key: &key,
                input: json!({"value": value}),
                effect: Effect::Write,
            };
            w.call(
                ask,
                |c, base| c.call(base, "PUT", &format!("sys/policies/acl/{name}"), &root, &body),
                |_| Value::Null,
            );
            return;
        }
        let token = match self.tokens.get(&key) {
            Some(t) => t.clone(),
            None => {
                let body = json!({"policies": [name], "ttl": "1h"});
                let Some(t) = w.token(&body) else { return };
                self.tokens.insert(key.clone(), t.clone());
                t
            }
        };
        let paths: Vec<String> = (1..=CHANGES).map(granted).collect();
        let ask = Ask { workload: "policy", f: "read", key: &key, input: Value::Null, effect: Effect::Read };
        w.call(
            ask,
            |c, base| c.call(base, "POST", "sys/capabilities-self", &token, &json!({"paths": paths})),
            |a| {
                let may =
                    |v: &i64| a.body["data"][granted(*v)].as_array().is_some_and(|c| c.iter().any(|c| c == "read"));
                let seen: Vec<i64> = (1..=CHANGES).filter(may).collect();
                // two changes at once are none that anybody wrote
                json!({"value": match seen[..] { [] => 0, [v] => v, _ => -1 }})
            },
        );
    }
}
