//! Lists that clients append to: one order of all elements, which every read is a beginning of.

use super::{Finding, by_key, tell};
use crate::history::{Call, History, Kind};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(h: &History) -> Finding {
    let (mut broken, mut looked_at) = (Vec::new(), 0);
    for (key, calls) in by_key(h, "append") {
        looked_at += calls.iter().filter(|c| c.end == Kind::Ok).count();
        broken.extend(list(key, &calls));
    }
    Finding::of(
        "append-order",
        "acknowledged appends are never lost, doubled or reordered, and every read shows a beginning of the one order",
        looked_at,
        "appends and reads",
        broken,
    )
}

fn elements(c: &Call) -> Vec<i64> {
    c.output["list"].as_array().map(|a| a.iter().filter_map(serde_json::Value::as_i64).collect()).unwrap_or_default()
}

fn list(key: &str, calls: &[&Call]) -> Vec<String> {
    let mut broken = Vec::new();
    let appends: BTreeMap<i64, &Call> =
        calls.iter().filter(|c| c.f == "append").filter_map(|c| c.input["value"].as_i64().map(|v| (v, *c))).collect();
    let reads: Vec<(&Call, Vec<i64>)> =
        calls.iter().filter(|c| c.f == "read" && c.end == Kind::Ok).map(|c| (*c, elements(c))).collect();
    let Some((_, longest)) = reads.iter().max_by_key(|(_, l)| l.len()) else { return broken };
    let place: BTreeMap<i64, usize> = longest.iter().enumerate().map(|(i, v)| (*v, i)).collect();
    if place.len() != longest.len() {
        let mut seen = BTreeSet::new();
        let double = longest.iter().find(|v| !seen.insert(**v));
        broken.push(format!("{key}: {} stands in it twice", double.copied().unwrap_or_default()));
    }
    for v in longest {
        match appends.get(v) {
            None => broken.push(format!("{key}: nobody appended {v}")),
            Some(c) if c.end == Kind::Fail => {
                broken.push(format!("{key}: it was not done and is there: {}", tell(c)))
            }
            Some(_) => {}
        }
    }
    for (c, l) in &reads {
        if !longest.starts_with(l) {
            broken.push(format!("{key}: not a beginning of the longest read: {}", tell(c)));
        }
        // whatever was acknowledged before the read began must be in it
        for (v, a) in appends.iter().filter(|(_, a)| a.end == Kind::Ok && a.returned < c.invoked) {
            if !l.contains(v) {
                broken.push(format!("{key}: {v}, acknowledged by {} is not in {}", tell(a), tell(c)));
            }
        }
        // and nothing that was asked for only after it had ended
        for v in l {
            if appends.get(v).is_some_and(|a| a.invoked > c.returned) {
                broken.push(format!("{key}: {v} was read before it was appended: {}", tell(c)));
            }
        }
    }
    // appends that did not overlap stand in the order in which they were made
    let mut done: Vec<(u64, u64, usize, i64)> = appends
        .iter()
        .filter(|(_, a)| a.end == Kind::Ok)
        .filter_map(|(v, a)| place.get(v).map(|p| (a.invoked, a.returned, *p, *v)))
        .collect();
    done.sort_unstable_by_key(|d| d.2);
    let mut latest_begin = 0;
    for (begun, ended, _, v) in &done {
        if *ended < latest_begin {
            broken.push(format!("{key}: {v} stands behind one that was appended after its answer"));
        }
        latest_begin = latest_begin.max(*begun);
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::testing::{call, history};
    use super::super::{Verdict, judge};
    use super::*;
    use serde_json::{Value, json};

    fn add(v: i64, at: (u64, u64), end: Kind) -> Call {
        call("append", "append", "l~0", at, end, (json!({"value": v}), Value::Null))
    }

    fn read(l: &[i64], at: (u64, u64)) -> Call {
        call("append", "read", "l~0", at, Kind::Ok, (Value::Null, json!({"list": l})))
    }

    fn verdict(calls: Vec<Call>) -> Verdict {
        judge(&history(calls), &[], super::super::Limits::default())[0].verdict
    }

    #[test]
    fn one_order_passes() {
        let (ok, info) = (Kind::Ok, Kind::Info);
        let good = vec![
            add(1, (0, 1), ok),
            add(2, (2, 9), ok),
            add(3, (3, 8), info),
            read(&[1], (4, 5)),
            read(&[1, 3, 2], (10, 11)),
        ];
        assert_eq!(verdict(good), Verdict::Passed);
    }

    #[test]
    fn each_fault_is_caught() {
        let (ok, fail) = (Kind::Ok, Kind::Fail);
        let lost = vec![add(1, (0, 1), ok), read(&[], (2, 3))];
        let double = vec![add(1, (0, 1), ok), read(&[1, 1], (2, 3))];
        let reordered = vec![add(1, (0, 1), ok), add(2, (2, 3), ok), read(&[2, 1], (4, 5))];
        let forked = vec![add(1, (0, 9), ok), add(2, (0, 9), ok), read(&[1], (1, 2)), read(&[2, 1], (10, 11))];
        let undone = vec![add(1, (0, 1), fail), read(&[1], (2, 3))];
        let invented = vec![read(&[7], (2, 3))];
        let foreseen = vec![read(&[1], (0, 1)), add(1, (2, 3), ok)];
        for (name, calls) in [
            ("lost", lost),
            ("double", double),
            ("reordered", reordered),
            ("forked", forked),
            ("undone", undone),
            ("invented", invented),
            ("foreseen", foreseen),
        ] {
            assert_eq!(verdict(calls), Verdict::Broken, "{name}");
        }
    }
}
