//! Workloads over tokens: wrapping, uses, revocation, leases, batch tokens. Tokens that several clients try are handed
//! round through a pool, each with its plan of what is still to be tried.

use super::{Ask, Effect, Ended, Shared, Worker, key_of, next, path_of};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A token that is handed round.
struct Round {
    key: String,
    text: String,
    /// Tries that are left.
    left: u32,
}

#[derive(Default)]
pub(super) struct Pools {
    wrapped: Mutex<VecDeque<Round>>,
    counted: Mutex<VecDeque<Round>>,
    doomed: Mutex<VecDeque<Round>>,
}

/// Enough tokens in a pool for every client to have one.
const POOL: usize = 4;

/// Takes a token of this era from the pool for one try; it goes back with one try less before the try is made, so that
/// another client can try at the same time.
fn take(pool: &Mutex<VecDeque<Round>>, era: u64) -> Option<(String, String, u32)> {
    let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
    let tail = format!("~{era}");
    pool.retain(|r| r.key.ends_with(&tail));
    let mut r = pool.pop_front()?;
    let found = (r.key.clone(), r.text.clone(), r.left);
    r.left -= 1;
    if r.left > 0 {
        // to the front: tries of one token come close together
        pool.push_front(r);
    }
    Some(found)
}

fn put(pool: &Mutex<VecDeque<Round>>, key: String, text: String, left: u32) {
    pool.lock().unwrap_or_else(PoisonError::into_inner).push_back(Round { key, text, left });
}

fn is_short(pool: &Mutex<VecDeque<Round>>) -> bool {
    pool.lock().unwrap_or_else(PoisonError::into_inner).len() < POOL
}

fn fresh(w: &Worker, shared: &Shared, name: &str) -> String {
    key_of(&format!("{name}{}", next(&shared.ops)), w.world.era_now())
}

/// Creates a token, noted as `create`.
fn create(w: &mut Worker, workload: &'static str, key: &str, input: Value, body: &Value, by: &str) -> Option<String> {
    let ask = Ask { workload, f: "create", key, input, effect: Effect::Write };
    match w.call(ask, |c, base| c.call(base, "POST", "auth/token/create", by, body), |_| Value::Null) {
        Ended::Ok(a) => a.body["auth"]["client_token"].as_str().map(str::to_owned),
        _ => None,
    }
}

/// Uses a token, noted as `use`.
fn use_token(w: &mut Worker, workload: &'static str, key: &str, token: &str, effect: Effect) {
    let ask = Ask { workload, f: "use", key, input: Value::Null, effect };
    w.call(ask, |c, base| c.call(base, "GET", "auth/token/lookup-self", token, &Value::Null), |_| Value::Null);
}

fn revoke(w: &mut Worker, workload: &'static str, f: &'static str, key: &str, token: &str) -> Ended {
    let root = w.root.clone();
    let ask = Ask { workload, f, key, input: Value::Null, effect: Effect::Write };
    let body = json!({"token": token});
    w.call(ask, |c, base| c.call(base, "POST", "auth/token/revoke", &root, &body), |_| Value::Null)
}

pub(super) fn unwrap(w: &mut Worker, shared: &Shared) {
    let pool = &shared.tokens.wrapped;
    if is_short(pool) {
        let key = fresh(w, shared, "w");
        let value = key.len() as i64 * 1_000_000 + w.rng.i64(0..1_000_000);
        let root = w.root.clone();
        let body = json!({"value": value}).to_string().into_bytes();
        let ask =
            Ask { workload: "unwrap", f: "wrap", key: &key, input: json!({"value": value}), effect: Effect::Write };
        let ended = w.call(
            ask,
            |c, base| {
                let headers = [("x-vault-token", root.as_str()), ("x-vault-wrap-ttl", "10m")];
                let (status, bytes) = c.raw(base, "POST", "sys/wrapping/wrap", &headers, body)?;
                Ok(crate::client::Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
            },
            |_| Value::Null,
        );
        if let Ended::Ok(a) = ended
            && let Some(text) = a.body["wrap_info"]["token"].as_str()
        {
            put(pool, key, text.to_owned(), 3);
        }
        return;
    }
    let Some((key, text, _)) = take(pool, w.world.era_now()) else { return };
    let ask = Ask { workload: "unwrap", f: "unwrap", key: &key, input: Value::Null, effect: Effect::Write };
    w.call(
        ask,
        |c, base| c.call(base, "POST", "sys/wrapping/unwrap", &text, &Value::Null),
        |a| json!({"value": a.body["data"]["value"]}),
    );
}

pub(super) fn uses(w: &mut Worker, shared: &Shared) {
    let pool = &shared.tokens.counted;
    if is_short(pool) {
        let key = fresh(w, shared, "u");
        let n = w.rng.u32(1..5);
        let body = json!({"policies": ["default"], "num_uses": n, "ttl": "1h"});
        let root = w.root.clone();
        if let Some(text) = create(w, "uses", &key, json!({"uses": n}), &body, &root) {
            put(pool, key, text, n + 2);
        }
        return;
    }
    let Some((key, text, _)) = take(pool, w.world.era_now()) else { return };
    // a use counts even where its answer is lost
    use_token(w, "uses", &key, &text, Effect::Write);
}

pub(super) fn revoked(w: &mut Worker, shared: &Shared) {
    const TRIES: u32 = 8;
    const REVOKED_AT: u32 = 5;
    let pool = &shared.tokens.doomed;
    if is_short(pool) {
        let key = fresh(w, shared, "d");
        let root = w.root.clone();
        let body = json!({"policies": ["default"], "ttl": "1h"});
        if let Some(text) = create(w, "revoked", &key, Value::Null, &body, &root) {
            put(pool, key, text, TRIES);
        }
        return;
    }
    let Some((key, text, left)) = take(pool, w.world.era_now()) else { return };
    if left == REVOKED_AT {
        revoke(w, "revoked", "revoke", &key, &text);
    } else {
        use_token(w, "revoked", &key, &text, Effect::Read);
    }
}

/// A client with tokens of a few seconds.
#[derive(Default)]
pub(super) struct Leases {
    tokens: VecDeque<(String, String, u64, Instant)>,
}

impl Leases {
    pub(super) fn step(&mut self, w: &mut Worker, shared: &Shared) {
        // used until it is certainly dead, and a little longer
        self.tokens.retain(|(.., ttl, made)| made.elapsed() < Duration::from_secs(ttl + 6));
        if self.tokens.len() < 6 && w.rng.u32(0..100) < 30 {
            let key = fresh(w, shared, "l");
            let ttl = w.rng.u64(3..8);
            let body = json!({"policies": ["default"], "ttl": format!("{ttl}s"), "renewable": false});
            let root = w.root.clone();
            if let Some(text) = create(w, "lease", &key, json!({"ttl": ttl}), &body, &root) {
                self.tokens.push_back((key, text, ttl, Instant::now()));
            }
            return;
        }
        let Some((key, text, ..)) = self.tokens.pop_front().inspect(|t| self.tokens.push_back(t.clone())) else {
            return;
        };
        use_token(w, "lease", &key, &text, Effect::Read);
    }
}

/// A client with a batch token, and the token it was made by.
#[derive(Default)]
pub(super) struct Batch {
    token: Option<(String, String, String)>,
    used: u32,
}

impl Batch {
    pub(super) fn step(&mut self, w: &mut Worker, shared: &Shared) {
        const USES: u32 = 60;
        const AFTER: u32 = 6;
        let Some((key, parent, text)) = self.token.clone() else {
            let key = fresh(w, shared, "b");
            let name = path_of("batch-maker");
            let policy = json!({"policy": "path \"auth/token/create\" { capabilities = [\"update\"] }"});
            let (root, base) = (w.root.clone(), w.pick());
            let base = w.world.cluster.nodes[base].base();
            // the same policy each time; whoever comes first makes it
            if w.client.call(&base, "PUT", &format!("sys/policies/acl/{name}"), &root, &policy).is_err() {
                return;
            }
            let Some(parent) = w.token(&json!({"policies": [name], "ttl": "1h"})) else { return };
            let body = json!({"type": "batch", "ttl": "30m", "policies": ["default"]});
            if let Some(text) = create(w, "batch", &key, Value::Null, &body, &parent) {
                (self.token, self.used) = (Some((key, parent, text)), 0);
            }
            return;
        };
        self.used += 1;
        let ended = match self.used {
            USES => revoke(w, "batch", "revoke-parent", &key, &parent),
            _ => {
                use_token(w, "batch", &key, &text, Effect::Read);
                Ended::Fail
            }
        };
        if self.used > USES + AFTER || !key.ends_with(&format!("~{}", w.world.era_now())) {
            self.token = None;
        }
        drop(ended);
    }
}
