//! Checkers: what must be true of a history. Each is a function of the history alone, so a file of JSON lines can be
//! judged again, by this build or another.
//!
//! A checker answers one of three things, and *unknown* is never *passed*: out of time, or nothing happened that could
//! have shown a fault.

pub mod linear;
mod lists;
mod tokens;

pub(crate) use tokens::REFUSED;

use crate::history::{Call, History, Kind};
use linear::{Action, Found, Op};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Held, and was put to the test.
    Passed,
    /// Nobody can tell.
    Unknown,
    /// Was broken.
    Broken,
}

/// What a checker found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Name of the property.
    pub property: &'static str,
    /// What it promises, for a stranger.
    pub promise: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// How many things it looked at, and what was found broken or is missing; at most a few lines.
    pub notes: Vec<String>,
}

impl Finding {
    fn of(
        property: &'static str,
        promise: &'static str,
        looked_at: usize,
        what: &str,
        broken: Vec<String>,
    ) -> Finding {
        let verdict = match (broken.is_empty(), looked_at) {
            (false, _) => Verdict::Broken,
            (true, 0) => Verdict::Unknown,
            (true, _) => Verdict::Passed,
        };
        let mut notes = vec![format!("{looked_at} {what}")];
        let more = broken.len().saturating_sub(10);
        notes.extend(broken.into_iter().take(10));
        if more > 0 {
            notes.push(format!("and {more} more"));
        }
        Finding { property, promise, verdict, notes }
    }
}

/// What the checkers are told beside the history.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest search of the linearizability checker for one key.
    pub per_key: Duration,
    /// How much later than its time a lease may end.
    pub lease_late: Duration,
    /// How much earlier than its time a lease may end.
    pub lease_early: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            per_key: Duration::from_secs(30),
            // log time is slewed by at most a twentieth, and the worker's tick is a second at most
            lease_late: Duration::from_secs(2),
            lease_early: Duration::from_millis(1500),
        }
    }
}

/// Judges everything that a history holds. A workload that was asked for and left no call is unknown.
pub fn judge(h: &History, wanted: &[String], limits: Limits) -> Vec<Finding> {
    let mut found = Vec::new();
    let has = |name: &str| wanted.iter().any(|w| w == name) || h.calls.iter().any(|c| c.workload == name);
    if has("register") {
        found.push(registers(
            h,
            "register",
            "register-linearizable",
            "reads, writes and check-and-sets of a KV v2 key are linearizable",
            limits,
        ));
    }
    if has("policy") {
        found.push(registers(
            h,
            "policy",
            "policy-order",
            "a change of a policy binds every request that begins after its answer, in the order of the changes",
            limits,
        ));
    }
    if has("append") {
        found.push(lists::check(h));
    }
    if has("unwrap") {
        found.push(tokens::unwraps(h));
    }
    if has("uses") {
        found.push(tokens::uses(h));
    }
    if has("revoked") {
        found.push(tokens::revoked(h));
    }
    if has("lease") {
        found.push(tokens::leases(h, limits));
    }
    if has("batch") {
        found.push(tokens::batch(h));
    }
    found.push(serves_in_the_end(h));
    found
}

/// The worst of several verdicts.
pub fn worst(found: &[Finding]) -> Verdict {
    let any = |v| found.iter().any(|f| f.verdict == v);
    match (any(Verdict::Broken), any(Verdict::Unknown)) {
        (true, _) => Verdict::Broken,
        (_, true) => Verdict::Unknown,
        _ => Verdict::Passed,
    }
}

/// A call for people.
pub(crate) fn tell(c: &Call) -> String {
    let shown = |v: &serde_json::Value| {
        let text = v.to_string();
        if text.len() > 120 { format!("{}..", text.chars().take(120).collect::<String>()) } else { text }
    };
    let at = |ns: u64| format!("{:.3}s", ns as f64 / 1e9);
    let end = match c.end {
        Kind::Ok => format!("ok {} at {}", shown(&c.output), at(c.left)),
        Kind::Fail => format!("failed at {}: {}", at(c.left), c.error.as_deref().unwrap_or("")),
        _ => format!("unknown: {}", c.error.as_deref().unwrap_or("")),
    };
    format!(
        "client {} at {} asked {} for {} {} {}: {end}",
        c.process,
        at(c.invoked),
        c.node,
        c.f,
        c.key,
        shown(&c.input)
    )
}

/// The keys of a workload, each with its calls.
pub(crate) fn by_key<'a>(h: &'a History, workload: &'a str) -> BTreeMap<&'a str, Vec<&'a Call>> {
    let mut keys: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for c in h.calls_of(workload) {
        keys.entry(c.key.as_str()).or_default().push(c);
    }
    keys
}

/// The register's action in a call; `None` if it says nothing.
fn action_of(c: &Call) -> Option<Action> {
    let version = c.output["version"].as_u64();
    let value = |v: &serde_json::Value| v["value"].as_i64();
    match (c.f.as_str(), c.end) {
        ("read", Kind::Ok) => Some(Action::Read(value(&c.output)?, version)),
        ("write", Kind::Ok | Kind::Info) => Some(Action::Write(value(&c.input)?, version)),
        ("cas", Kind::Ok | Kind::Info) => Some(Action::Cas(c.input["expected"].as_u64()?, value(&c.input)?, version)),
        ("cas", Kind::Fail) if c.error.as_deref() == Some("cas") => {
            Some(Action::CasRefused(c.input["expected"].as_u64()?))
        }
        _ => None,
    }
}

fn registers(h: &History, workload: &str, property: &'static str, promise: &'static str, limits: Limits) -> Finding {
    let (mut broken, mut late, mut looked_at) = (Vec::new(), Vec::new(), 0);
    for (key, calls) in by_key(h, workload) {
        let ops: Vec<Op> = calls
            .iter()
            .enumerate()
            .filter_map(|(name, c)| {
                let to = (c.end != Kind::Info).then_some(c.returned);
                action_of(c).map(|action| Op { action, from: c.invoked, to, name })
            })
            .collect();
        looked_at += ops.iter().filter(|o| o.to.is_some()).count();
        match linear::search(&ops, Instant::now() + limits.per_key) {
            Found::Linearizable => {}
            Found::Broken(at) => broken.push(format!("{key}: no order of its calls explains: {}", tell(calls[at]))),
            Found::OutOfTime => late.push(key.to_owned()),
        }
    }
    let mut f = Finding::of(property, promise, looked_at, "calls ordered", broken);
    if !late.is_empty() {
        f.notes.push(format!("no order found or excluded within {:?} for {}", limits.per_key, late.join(", ")));
        if f.verdict == Verdict::Passed {
            f.verdict = Verdict::Unknown;
        }
    }
    f
}

/// When the faults are over, every node serves.
fn serves_in_the_end(h: &History) -> Finding {
    let mut broken = Vec::new();
    let last: Vec<&Call> = h.calls.iter().filter(|c| c.workload == "final").collect();
    for c in last.iter().filter(|c| c.end != Kind::Ok) {
        broken.push(tell(c));
    }
    Finding::of(
        "serves-in-the-end",
        "when the faults are over, every node serves reads and writes again",
        last.len(),
        "last calls",
        broken,
    )
}

#[cfg(test)]
pub(crate) mod testing {
    //! Histories written by hand.
    use super::*;
    use serde_json::Value;

    /// A call of client 0 on node n1.
    pub fn call(workload: &str, f: &str, key: &str, at: (u64, u64), end: Kind, io: (Value, Value)) -> Call {
        Call {
            process: 0,
            workload: workload.into(),
            f: f.into(),
            key: key.into(),
            input: io.0,
            output: io.1,
            invoked: at.0,
            returned: if end == Kind::Info { u64::MAX } else { at.1 },
            left: at.1,
            end,
            node: "n1".into(),
            error: (end != Kind::Ok).then(|| "403".into()),
        }
    }

    /// A history of calls.
    pub fn history(calls: Vec<Call>) -> History {
        let end = calls.iter().map(|c| c.left).max().unwrap_or(0);
        History { calls, faults: Vec::new(), end }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{call, history};
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_workload_that_did_nothing_is_unknown() {
        let found = judge(&history(vec![]), &["register".into()], Limits::default());
        assert_eq!(found[0].verdict, Verdict::Unknown);
        assert_eq!(worst(&found), Verdict::Unknown);
    }

    #[test]
    fn a_stale_read_breaks_its_key_alone() {
        let w = |key: &str, n: i64, at| {
            call("register", "write", key, at, Kind::Ok, (json!({"value": n}), json!({"version": n})))
        };
        let r = |key: &str, n: i64, at| {
            call("register", "read", key, at, Kind::Ok, (Value::Null, json!({"value": n, "version": n})))
        };
        let good = vec![w("a~0", 1, (0, 1)), w("b~0", 1, (0, 1)), w("a~0", 2, (2, 3)), r("a~0", 2, (4, 5))];
        let f = |calls| judge(&history(calls), &[], Limits::default()).remove(0);
        assert_eq!(f(good.clone()).verdict, Verdict::Passed);
        let mut bad = good;
        bad.push(r("a~0", 1, (6, 7)));
        let found = f(bad.clone());
        assert_eq!(found.verdict, Verdict::Broken);
        assert!(found.notes[1].starts_with("a~0: "), "{:?}", found.notes);
        // the same while a snapshot is restored is nobody's fault
        bad.iter_mut().for_each(|c| c.key = c.key.replace("~0", "~1"));
        assert_eq!(f(bad).verdict, Verdict::Unknown);
    }
}
