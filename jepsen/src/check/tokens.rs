//! Tokens: wrapping tokens open once, N uses are N, a revoked one is dead, leases keep their time, batch tokens live
//! through fail-over.

use super::{Finding, Limits, by_key, tell};
use crate::history::{Call, History, Kind};

/// The server itself refused the token: not a node that was down, sealed or without a leader.
pub(crate) const REFUSED: &str = "403";

fn is_refused(c: &Call) -> bool {
    c.end == Kind::Fail && c.error.as_deref() == Some(REFUSED)
}

fn find<'a>(calls: &[&'a Call], f: &str) -> Option<&'a Call> {
    calls.iter().copied().find(|c| c.f == f)
}

pub(super) fn unwraps(h: &History) -> Finding {
    let (mut broken, mut looked_at) = (Vec::new(), 0);
    for (key, calls) in by_key(h, "unwrap") {
        let opened: Vec<&&Call> = calls.iter().filter(|c| c.f == "unwrap" && c.end == Kind::Ok).collect();
        let tries = calls.iter().filter(|c| c.f == "unwrap").count();
        looked_at += usize::from(tries > 1);
        if let [_, second, ..] = opened[..] {
            broken.push(format!("{key} opened {} times: {}", opened.len(), tell(second)));
        }
        let wrapped = find(&calls, "wrap").map(|c| c.input["value"].clone()).unwrap_or_default();
        if let Some(c) = opened.iter().find(|c| c.output["value"] != wrapped) {
            broken.push(format!("{key} held something else: {}", tell(c)));
        }
        // refused before anybody may have opened it: the acknowledged token was lost
        let first = calls.iter().filter(|c| c.f == "unwrap" && c.end != Kind::Fail).map(|c| c.invoked).min();
        for c in calls.iter().filter(|c| c.f == "unwrap" && is_refused(c)) {
            if first.is_none_or(|f| f > c.returned) {
                broken.push(format!("{key} was lost: {}", tell(c)));
            }
        }
    }
    let promise = "a wrapping token yields its secret at most once, and is there until then";
    Finding::of("unwrap-once", promise, looked_at, "wrapping tokens that several clients tried", broken)
}

pub(super) fn uses(h: &History) -> Finding {
    let (mut broken, mut looked_at) = (Vec::new(), 0);
    for (key, calls) in by_key(h, "uses") {
        let Some(limit) = find(&calls, "create").and_then(|c| c.input["uses"].as_u64()) else { continue };
        let tried: Vec<&&Call> = calls.iter().filter(|c| c.f == "use").collect();
        let worked = tried.iter().filter(|c| c.end == Kind::Ok).count() as u64;
        looked_at += usize::from(tried.len() as u64 > limit);
        if worked > limit {
            broken.push(format!("{key} of {limit} uses worked {worked} times"));
        }
        // each use that may have counted is one that began before the refusal ended
        for c in tried.iter().filter(|c| is_refused(c)) {
            let before = tried.iter().filter(|u| !is_refused(u) && u.error.as_deref() != Some("connect"));
            let spent = before.filter(|u| u.invoked < c.returned).count() as u64;
            if spent < limit {
                broken.push(format!("{key} of {limit} uses was refused after {spent}: {}", tell(c)));
            }
        }
    }
    let promise = "a token of N uses works N times and no more";
    Finding::of("n-uses", promise, looked_at, "tokens used up", broken)
}

pub(super) fn revoked(h: &History) -> Finding {
    let (mut broken, mut looked_at) = (Vec::new(), 0);
    for (key, calls) in by_key(h, "revoked") {
        let revoked = calls.iter().filter(|c| c.f == "revoke" && c.end == Kind::Ok).map(|c| c.returned).min();
        let asked = calls.iter().filter(|c| c.f == "revoke").map(|c| c.invoked).min().unwrap_or(u64::MAX);
        for c in calls.iter().filter(|c| c.f == "use") {
            if revoked.is_some_and(|at| c.invoked > at) {
                looked_at += 1;
                if c.end == Kind::Ok {
                    broken.push(format!("{key} was revoked and works: {}", tell(c)));
                }
            }
            if is_refused(c) && c.returned < asked {
                broken.push(format!("{key} was not revoked and is refused: {}", tell(c)));
            }
        }
    }
    let promise = "once its revocation is acknowledged a token never works again, on any node";
    Finding::of("revoked-is-dead", promise, looked_at, "uses of revoked tokens", broken)
}

pub(super) fn leases(h: &History, limits: Limits) -> Finding {
    let ns = |d: std::time::Duration| d.as_nanos() as u64;
    let outage = |n: &str| n.starts_with("kill") || n.starts_with("pause") || n == "upgrade" || n == "flip";
    let (mut broken, mut looked_at) = (Vec::new(), 0);
    for (key, calls) in by_key(h, "lease") {
        let Some(made) = find(&calls, "create").filter(|c| c.end == Kind::Ok) else { continue };
        let Some(ttl) = made.input["ttl"].as_u64().map(|s| s * 1_000_000_000) else { continue };
        for c in calls.iter().filter(|c| c.f == "use") {
            // log time is slewed by a twentieth at most, and stands still while every node is down whose clock is behind
            let clocks = h.fault_between(0, c.left, |n| n.starts_with("clock"));
            let down: u64 = h
                .faults
                .iter()
                .filter(|f| clocks && outage(&f.name) && f.from < c.left && f.to > made.invoked)
                .map(|f| f.to.min(c.left) - f.from.max(made.invoked))
                .sum();
            let dead = made.returned + ttl + ttl / 20 + ns(limits.lease_late) + down;
            if c.invoked > dead {
                looked_at += 1;
                if c.end == Kind::Ok {
                    broken.push(format!("{key} outlives its {} s: {}", ttl / 1_000_000_000, tell(c)));
                }
            }
            let early = (made.invoked + ttl - ttl / 20).saturating_sub(ns(limits.lease_early));
            // after an outage of the whole cluster log time may step forward to a clock that jumped, once
            let stepped = clocks && h.fault_between(made.invoked, c.left, outage);
            if is_refused(c) && c.returned < early && !stepped {
                broken.push(format!("{key} ends before its {} s: {}", ttl / 1_000_000_000, tell(c)));
            }
        }
    }
    let promise = "no lease outlives its time, nor ends before it, by more than the bound, whatever clocks do";
    Finding::of("lease-time", promise, looked_at, "uses of expired tokens", broken)
}

pub(super) fn batch(h: &History) -> Finding {
    let (mut broken, mut looked_at) = (Vec::new(), 0);
    for (key, calls) in by_key(h, "batch") {
        let Some(made) = find(&calls, "create").filter(|c| c.end == Kind::Ok) else { continue };
        let asked = calls.iter().filter(|c| c.f == "revoke-parent").map(|c| c.invoked).min().unwrap_or(u64::MAX);
        let done = calls.iter().filter(|c| c.f == "revoke-parent" && c.end == Kind::Ok).map(|c| c.returned).min();
        for c in calls.iter().filter(|c| c.f == "use" && c.invoked >= made.returned) {
            looked_at += usize::from(c.end != Kind::Info);
            if is_refused(c) && c.returned < asked {
                broken.push(format!("{key} lives and is refused: {}", tell(c)));
            }
            if c.end == Kind::Ok && done.is_some_and(|at| c.invoked > at) {
                broken.push(format!("{key} has no parent and works: {}", tell(c)));
            }
        }
    }
    let promise = "a batch token works on every node through every fail-over, until its parent is revoked";
    Finding::of("batch-token", promise, looked_at, "uses", broken)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{call, history};
    use super::super::{Limits, Verdict, judge};
    use super::*;
    use crate::history::Span;
    use serde_json::{Value, json};

    const S: u64 = 1_000_000_000;

    fn c(workload: &str, f: &str, at: (u64, u64), end: Kind, input: Value) -> Call {
        call(workload, f, "t~0", at, end, (input, json!({"value": 7})))
    }

    fn verdict(calls: Vec<Call>) -> Verdict {
        judge(&history(calls), &[], Limits::default())[0].verdict
    }

    #[test]
    fn a_wrapping_token_opens_once() {
        let made = c("unwrap", "wrap", (0, 1), Kind::Ok, json!({"value": 7}));
        let open = |at, end| c("unwrap", "unwrap", at, end, Value::Null);
        let with = |more: Vec<Call>| verdict([vec![made.clone()], more].concat());
        assert_eq!(with(vec![open((2, 5), Kind::Ok), open((3, 6), Kind::Fail)]), Verdict::Passed);
        assert_eq!(with(vec![open((2, 5), Kind::Info), open((6, 7), Kind::Fail)]), Verdict::Passed);
        assert_eq!(with(vec![open((2, 5), Kind::Ok), open((3, 6), Kind::Ok)]), Verdict::Broken, "opened twice");
        assert_eq!(
            with(vec![open((2, 3), Kind::Fail), open((4, 6), Kind::Ok)]),
            Verdict::Broken,
            "not there at first"
        );
        let mut other = open((2, 5), Kind::Ok);
        other.output = json!({"value": 8});
        assert_eq!(with(vec![other, open((6, 7), Kind::Fail)]), Verdict::Broken, "another secret");
    }

    #[test]
    fn uses_are_counted() {
        let made = c("uses", "create", (0, 1), Kind::Ok, json!({"uses": 2}));
        let with = |ends: &[Kind]| {
            let uses = ends.iter().enumerate().map(|(i, e)| {
                let at = 10 * (i as u64 + 1);
                c("uses", "use", (at, at + 1), *e, Value::Null)
            });
            verdict([made.clone()].into_iter().chain(uses).collect())
        };
        use Kind::{Fail, Info};
        let ok = Kind::Ok;
        assert_eq!(with(&[ok, ok, Fail]), Verdict::Passed);
        assert_eq!(with(&[ok, Info, Fail]), Verdict::Passed);
        assert_eq!(with(&[ok, ok, ok]), Verdict::Broken);
        assert_eq!(with(&[ok, Fail, Fail]), Verdict::Broken, "a use was lost");
        assert_eq!(with(&[ok, ok]), Verdict::Unknown, "never used up");
    }

    #[test]
    fn the_dead_stay_dead() {
        let one = |f: &str, at, end| c("revoked", f, at, end, Value::Null);
        let before = vec![one("create", (0, 1), Kind::Ok), one("use", (2, 3), Kind::Ok)];
        let with = |more: Vec<Call>| verdict([before.clone(), more].concat());
        let revoke = one("revoke", (4, 6), Kind::Ok);
        assert_eq!(
            with(vec![revoke.clone(), one("use", (5, 9), Kind::Ok), one("use", (7, 8), Kind::Fail)]),
            Verdict::Passed
        );
        assert_eq!(with(vec![revoke, one("use", (7, 8), Kind::Ok)]), Verdict::Broken);
        assert_eq!(with(vec![one("use", (7, 8), Kind::Fail)]), Verdict::Broken, "dead without being revoked");
        assert_eq!(with(vec![one("revoke", (4, 6), Kind::Info), one("use", (7, 8), Kind::Ok)]), Verdict::Unknown);
    }

    #[test]
    fn leases_keep_their_time() {
        let made = c("lease", "create", (0, S / 10), Kind::Ok, json!({"ttl": 4}));
        let using = |at: u64, end| c("lease", "use", (at, at + S / 100), end, Value::Null);
        let with = |more: Vec<Call>| verdict([vec![made.clone()], more].concat());
        assert_eq!(with(vec![using(S, Kind::Ok), using(8 * S, Kind::Fail)]), Verdict::Passed);
        assert_eq!(with(vec![using(8 * S, Kind::Ok)]), Verdict::Broken, "outlives");
        assert_eq!(with(vec![using(S, Kind::Fail)]), Verdict::Broken, "dies early");
        // a clock that jumps changes nothing, as long as the cluster was not down as well
        let mut h = history(vec![made.clone(), using(S, Kind::Fail)]);
        let fault = |name: &str| Span { name: name.into(), about: Value::Null, from: 1, to: S };
        h.faults = vec![fault("clock-jump")];
        assert_eq!(judge(&h, &[], Limits::default())[0].verdict, Verdict::Broken);
        h.faults.push(fault("kill"));
        assert_ne!(judge(&h, &[], Limits::default())[0].verdict, Verdict::Broken);
    }

    #[test]
    fn batch_tokens_live_until_their_parent_dies() {
        let one = |f: &str, at, end| c("batch", f, at, end, Value::Null);
        let made = one("create", (0, 1), Kind::Ok);
        let gone = one("revoke-parent", (10, 12), Kind::Ok);
        let with = |more: Vec<Call>| verdict([vec![made.clone()], more].concat());
        assert_eq!(
            with(vec![one("use", (2, 3), Kind::Ok), gone.clone(), one("use", (13, 14), Kind::Fail)]),
            Verdict::Passed
        );
        assert_eq!(with(vec![one("use", (2, 3), Kind::Fail)]), Verdict::Broken);
        assert_eq!(with(vec![gone, one("use", (13, 14), Kind::Ok)]), Verdict::Broken);
    }
}
