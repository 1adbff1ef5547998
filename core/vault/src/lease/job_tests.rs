//! Tests of the jobs that engines schedule.

use crate::tables;
use crate::testing::World;
use ringfence_base::{Code, MountId, Wall};
use ringfence_logical::SideResult;
use ringfence_logical::cx::{job_header, job_key};
use serde_json::json;

fn schedule(w: &mut World, job: &str, seconds: u64) {
    let root = w.root.clone();
    let (code, v) = w.post(&format!("lab/jobs/{job}"), &root, json!({"in": seconds}));
    assert_eq!(code, Code::NoContent, "{v}");
}

fn count(w: &mut World, record: &str) -> u64 {
    let root = w.root.clone();
    let (_, v) = w.get(&format!("lab/count/{record}"), &root);
    v["data"]["count"].as_u64().unwrap()
}

#[test]
fn the_header_is_that_of_a_lease() {
    let at = Wall(0x0102_0304_0506_0708);
    let header = crate::token::entry::Header { due: at, owner: [0; 16], mount: MountId(9) };
    assert_eq!(job_header(MountId(9), at), header.encode());
    assert_eq!(job_key(MountId(9), "x"), [&[tables::JOB, 0, 0, 0, 9][..], b"x"].concat());
}

#[test]
fn a_job_comes_at_its_time_and_once() {
    let mut w = World::new();
    schedule(&mut w, "once", 100);
    schedule(&mut w, "once", 50);
    assert_eq!(w.work().0, 0);
    w.sleep(49);
    w.restart();
    let (ended, wake) = w.work();
    assert_eq!((ended, count(&mut w, "once")), (0, 0));
    assert!(wake.is_some_and(|t| t <= w.now.plus_seconds(1)), "{wake:?}");
    w.sleep(1);
    w.work();
    assert_eq!((count(&mut w, "once"), w.rows(tables::JOB)), (1, 0));
    w.sleep(200);
    w.work();
    assert_eq!(count(&mut w, "once"), 1);
}

#[test]
fn a_job_that_schedules_itself_comes_again() {
    let mut w = World::new();
    schedule(&mut w, "again", 10);
    for _ in 0..5 {
        w.sleep(10);
        w.work();
    }
    assert_eq!((count(&mut w, "again"), w.rows(tables::JOB)), (5, 1));
}

#[test]
fn a_job_that_fails_is_tried_later_and_later() {
    let mut w = World::new();
    let root = w.root.clone();
    w.post("lab/broken", &root, json!({"value": true}));
    schedule(&mut w, "broken", 0);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let (_, wake) = w.work();
        let wait = wake.unwrap().seconds() - w.now.seconds();
        waits.push(wait);
        w.sleep(wait);
    }
    assert!(waits.windows(2).all(|p| p[0] < p[1]), "{waits:?}");
    w.post("lab/broken", &root, json!({"value": false}));
    w.work();
    assert_eq!((count(&mut w, "broken"), w.rows(tables::JOB)), (1, 0));
}

#[test]
fn an_intent_is_committed_before_the_outside_and_found_again_after_a_crash() {
    let mut w = World::new();
    w.outside = Box::new(|_| SideResult::Failed("the outside is down".into()));
    schedule(&mut w, "outside", 0);
    w.work();
    assert_eq!((count(&mut w, "intent"), count(&mut w, "outside"), w.rows(tables::JOB)), (1, 0, 1));
    w.restart();
    w.outside = Box::new(|_| SideResult::Json(json!({})));
    w.sleep(3600);
    w.work();
    assert_eq!((count(&mut w, "intent"), count(&mut w, "outside"), w.rows(tables::JOB)), (2, 1, 0));
}

#[test]
fn jobs_go_with_their_mount() {
    let mut w = World::new();
    schedule(&mut w, "again", 10);
    let root = w.root.clone();
    assert_eq!(w.delete("sys/mounts/lab", &root).0, Code::NoContent);
    w.work();
    assert_eq!(w.rows(tables::JOB), 0);
}
