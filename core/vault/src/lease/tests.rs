//! Tests of leases, the worker and mass revocation through the pipeline.

use super::entry::MAX_ATTEMPTS;
use crate::tables;
use crate::testing::{World, error_of};
use ringfence_base::Code;
use ringfence_logical::{SideOp, SideResult};
use serde_json::{Value, json};

fn reader(w: &mut World, data: Value) -> String {
    w.policy(
        "lab",
        r#"path "lab/*" { capabilities = ["read","update"] }
           path "sys/leases/*" { capabilities = ["update","read","list","sudo"] }
           path "auth/token/create" { capabilities = ["update"] }"#,
    );
    let root = w.root.clone();
    let mut data = data;
    data["policies"] = json!(["lab", "default"]);
    let (code, v) = w.post("auth/token/create", &root, data);
    assert_eq!(code, Code::Ok, "{v}");
    v["auth"]["client_token"].as_str().unwrap().to_owned()
}

fn lease(w: &mut World, token: &str, role: &str, ttl: u64) -> Value {
    let (code, v) =
        w.call(ringfence_logical::Operation::Read, &format!("lab/creds/{role}"), token, json!({"ttl": ttl}));
    assert_eq!(code, Code::Ok, "{v}");
    v
}

fn id(v: &Value) -> String {
    v["lease_id"].as_str().unwrap().to_owned()
}

fn exists(w: &mut World, id: &str) -> bool {
    let root = w.root.clone();
    let (code, v) = w.post("sys/leases/lookup", &root, json!({"lease_id": id}));
    match code {
        Code::Ok => true,
        _ => {
            assert_eq!((code, error_of(&v)), (Code::Invalid, "invalid lease"));
            false
        }
    }
}

#[test]
fn a_lease_lives_is_renewed_and_ends() {
    let mut w = World::new();
    let t = reader(&mut w, json!({}));
    let v = lease(&mut w, &t, "plain", 60);
    let id = id(&v);
    assert_eq!((&v["lease_duration"], &v["renewable"]), (&json!(60), &json!(true)));
    let (head, tail) = id.rsplit_once('/').unwrap();
    assert_eq!((head, tail.len()), ("lab/creds/plain", 24));
    let (_, v) = w.post("sys/leases/lookup", &t, json!({"lease_id": id}));
    assert_eq!((&v["data"]["ttl"], &v["data"]["last_renewal"]), (&json!(60), &Value::Null));
    w.sleep(50);
    let (code, v) = w.post("sys/leases/renew", &t, json!({"lease_id": id, "increment": 100}));
    assert_eq!((code, &v["lease_duration"], &v["data"]), (Code::Ok, &json!(100), &Value::Null), "{v}");
    assert_eq!(v["lease_id"], json!(id));
    let (_, v) = w.list("sys/leases/lookup/lab/creds/plain", &t);
    assert_eq!(v["data"]["keys"], json!([tail]));
    let (_, v) = w.list("sys/leases/lookup/lab", &t);
    assert_eq!(v["data"]["keys"], json!(["creds/"]));
    w.sleep(99);
    assert!(exists(&mut w, &id));
    w.sleep(1);
    assert!(!exists(&mut w, &id));
    let (code, v) = w.post(&format!("sys/leases/renew/{id}"), &t, json!({}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "lease expired"));
    assert_eq!(w.work().0, 1);
    for path in ["sys/leases/renew", "sys/renew"] {
        let (code, v) = w.post(path, &t, json!({"lease_id": id}));
        assert_eq!((code, error_of(&v)), (Code::Invalid, "lease not found"));
    }
    assert_eq!(w.rows(tables::LEASE), 0);
}

#[test]
fn a_lease_never_outlives_its_maximum() {
    let mut w = World::new();
    let t = reader(&mut w, json!({}));
    let (_, v) =
        w.call(ringfence_logical::Operation::Read, "lab/creds/plain", &t, json!({"ttl": 60, "max_ttl": 100}));
    let id = id(&v);
    w.sleep(50);
    let (_, v) = w.post("sys/leases/renew", &t, json!({"lease_id": id, "increment": "1h"}));
    assert_eq!(v["lease_duration"], json!(50));
    assert_eq!(
        v["warnings"],
        json!(["TTL of \"1h\" exceeded the effective max_ttl of \"50s\"; TTL value is capped accordingly"])
    );
}

#[test]
fn revocation_by_id_in_both_manners() {
    let mut w = World::new();
    let t = reader(&mut w, json!({}));
    let a = id(&lease(&mut w, &t, "plain", 600));
    let b = id(&lease(&mut w, &t, "plain", 600));
    assert_eq!(w.post("sys/leases/revoke", &t, json!({"lease_id": a})).0, Code::NoContent);
    assert_eq!(w.rows(tables::LEASE), 1);
    assert_eq!(w.post("sys/leases/revoke", &t, json!({"lease_id": b, "sync": false})).0, Code::Accepted);
    assert!(!exists(&mut w, &a) && !exists(&mut w, &b));
    assert_eq!(w.rows(tables::LEASE), 1, "queued");
    assert_eq!(w.work().0, 1);
    assert_eq!(w.rows(tables::LEASE), 0);
    assert_eq!(w.post(&format!("sys/leases/revoke/{a}"), &t, json!({})).0, Code::NoContent, "unknown is success");
}

#[test]
fn a_token_takes_its_leases_along() {
    let mut w = World::new();
    let root = w.root.clone();
    let t = reader(&mut w, json!({"ttl": "1h"}));
    let a = id(&lease(&mut w, &t, "plain", 600));
    let (_, v) = w.post("auth/token/create", &t, json!({"type": "batch", "ttl": 100}));
    let batch = v["auth"]["client_token"].as_str().unwrap().to_owned();
    w.sleep(10);
    let v = lease(&mut w, &batch, "plain", 600);
    assert_eq!(v["lease_duration"], json!(90), "a batch token's lease ends with it");
    let b = id(&v);
    w.sleep(30);
    let (_, v) = w.post("sys/leases/renew", &root, json!({"lease_id": b, "increment": 600}));
    assert_eq!(v["lease_duration"], json!(60));
    assert!(exists(&mut w, &a) && exists(&mut w, &b));
    w.post("auth/token/revoke", &root, json!({"token": t}));
    assert!(!exists(&mut w, &a) && !exists(&mut w, &b), "the batch token's lease hangs on its parent");
    assert_eq!(w.rows(tables::LEASE), 2);
    w.restart();
    assert_eq!(w.work().0, 2);
    assert_eq!(w.rows(tables::LEASE), 0);
}

#[test]
fn a_prefix_is_revoked_by_one_record_and_worked_off_across_a_restart() {
    let mut w = World::new();
    let t = reader(&mut w, json!({}));
    let ids: Vec<String> = (0..600).map(|_| id(&lease(&mut w, &t, "plain", 600))).collect();
    let other = id(&lease(&mut w, &t, "other", 600));
    let index = w.version().index();
    let (code, v) = w.post("sys/leases/revoke-prefix/lab/creds/plain", &t, json!({}));
    assert_eq!(code, Code::NoContent, "{v}");
    assert_eq!(w.version().index(), index.next(), "one entry of the log");
    let later = id(&lease(&mut w, &t, "plain", 600));
    assert!(!exists(&mut w, &ids[0]) && !exists(&mut w, &ids[599]) && exists(&mut w, &other));
    assert!(exists(&mut w, &later), "made after the revocation");
    let (code, v) = w.post("sys/leases/renew", &t, json!({"lease_id": ids[5]}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "lease not found"));
    let (_, v) = w.list("sys/leases/lookup/lab/creds/plain", &t);
    assert_eq!(v["data"]["keys"].as_array().map(Vec::len), Some(1));
    w.restart();
    let (ended, _) = w.work();
    assert_eq!((ended, w.rows(tables::LEASE)), (601, 2), "600 leases and the tombstone");
    assert!(exists(&mut w, &later) && exists(&mut w, &other));
    assert_eq!(w.rows(tables::TOMBSTONE), 1);
}

#[test]
fn an_engine_that_needs_the_outside() {
    let mut w = World::new();
    let t = reader(&mut w, json!({}));
    let calls = std::rc::Rc::new(std::cell::Cell::new(0));
    let seen = calls.clone();
    w.outside = Box::new(move |op| {
        assert!(matches!(op, SideOp::Owner(_)));
        seen.set(seen.get() + 1);
        SideResult::Json(json!({}))
    });
    let sync = id(&lease(&mut w, &t, "outside", 10));
    assert_eq!(w.post("sys/leases/revoke", &t, json!({"lease_id": sync})).0, Code::NoContent);
    assert_eq!((calls.get(), w.rows(tables::LEASE)), (1, 0));
    for _ in 0..40 {
        lease(&mut w, &t, "outside", 10);
        lease(&mut w, &t, "plain", 10);
    }
    w.sleep(10);
    w.work();
    assert_eq!((calls.get(), w.rows(tables::LEASE)), (41, 0));
}

#[test]
fn failures_back_off_and_end_as_irrevocable() {
    let mut w = World::new();
    let t = reader(&mut w, json!({}));
    w.post("lab/broken", &t, json!({"value": true}));
    let a = id(&lease(&mut w, &t, "broken", 10));
    let (code, v) = w.post("sys/leases/revoke", &t, json!({"lease_id": a}));
    assert_eq!(code, Code::Invalid);
    assert!(error_of(&v).contains("the database is gone"), "{v}");
    assert!(exists(&mut w, &a), "kept");
    w.sleep(10);
    let mut attempts = 0;
    let mut waits = Vec::new();
    while attempts < MAX_ATTEMPTS {
        let (ended, wake) = w.work();
        assert_eq!(ended, 1);
        attempts += 1;
        let wait = wake.map_or(0, |at| at.since(w.now) / 1_000_000_000);
        waits.push(wait);
        w.sleep(if attempts < MAX_ATTEMPTS { 1 << (attempts - 1) } else { 0 });
    }
    assert!(waits[0] <= 1 && waits[4] <= 16, "{waits:?}");
    let (_, v) = w.call(ringfence_logical::Operation::Read, "sys/leases/count", &t, json!({"type": "irrevocable"}));
    assert_eq!(v["data"], json!({"lease_count": 1, "counts": {"lab_1": 1}}), "{v}");
    let root = w.root.clone();
    // of other kinds of lease nothing is told
    for other in [json!({}), json!({"type": "young"})] {
        for path in ["sys/leases", "sys/leases/count"] {
            let (code, v) = w.call(ringfence_logical::Operation::Read, path, &root, other.clone());
            assert_eq!((code, &v["errors"]), (ringfence_base::Code::NotFound, &json!([])), "{path} {other}");
        }
    }
    let (_, v) = w.call(ringfence_logical::Operation::Read, "sys/leases", &root, json!({"type": "irrevocable"}));
    assert_eq!(v["data"]["leases"][0]["lease_id"], json!(a), "{v}");
    let (code, v) = w.post("sys/leases/renew", &t, json!({"lease_id": a}));
    let why = "lease is expired and has failed previous revocation attempts";
    assert_eq!((code, error_of(&v)), (Code::Invalid, why));
    // given up by force
    assert_eq!(w.post("sys/leases/revoke-force/lab/creds", &t, json!({})).0, Code::NoContent);
    w.work();
    assert_eq!((w.rows(tables::LEASE), w.rows(tables::TOMBSTONE)), (0, 1));
}

#[test]
fn one_broken_lease_does_not_hold_up_the_others() {
    let mut w = World::new();
    let t = reader(&mut w, json!({}));
    w.post("lab/broken", &t, json!({"value": true}));
    for n in 0..30 {
        lease(&mut w, &t, if n % 10 == 3 { "broken" } else { "plain" }, 10);
    }
    w.sleep(10);
    w.work();
    assert_eq!(w.rows(tables::LEASE), 3);
    w.post("lab/broken", &t, json!({"value": false}));
    w.sleep(1);
    w.work();
    assert_eq!(w.rows(tables::LEASE), 0, "the database is back");
}

#[test]
fn a_disabled_mount_keeps_what_its_broken_leases_need() {
    let mut w = World::new();
    let t = reader(&mut w, json!({}));
    w.post("lab/broken", &t, json!({"value": true}));
    lease(&mut w, &t, "plain", 600);
    lease(&mut w, &t, "broken", 600);
    let mounts = w.rows(tables::MOUNT);
    w.write(|txn, pass| {
        let router = pass.core.caches.borrow_mut().router(txn, &Default::default()).unwrap();
        let lab = router.at(txn, ringfence_base::NsId::ROOT, "lab/").unwrap().unwrap().entry.clone();
        crate::mount::MountEntry { tainted: true, ..lab.clone() }.save(txn);
        super::tombstone::mount_removed(txn, pass.now, lab.id).unwrap();
    });
    w.work();
    assert_eq!((w.rows(tables::LEASE), w.rows(0x80), w.rows(tables::MOUNT)), (1, 2, mounts));
    let root = w.root.clone();
    assert_eq!(w.post("sys/leases/revoke-force/lab", &root, json!({})).0, Code::NoContent);
    w.work();
    assert_eq!((w.rows(tables::LEASE), w.rows(0x80), w.rows(tables::MOUNT)), (0, 0, mounts - 1));
    assert_eq!(w.rows(tables::TOMBSTONE), 1);
}

#[test]
fn the_last_use_yields_no_lease() {
    let mut w = World::new();
    let t = reader(&mut w, json!({"num_uses": 1}));
    let (code, v) = w.get("lab/creds/plain", &t);
    assert_eq!(code, Code::Invalid);
    assert!(error_of(&v).starts_with("Secret cannot be returned; token had one use left"), "{v}");
    assert_eq!(w.rows(tables::LEASE), 0);
}

#[test]
fn the_index_follows_and_is_rebuilt_alike() {
    let mut w = World::new();
    let t = reader(&mut w, json!({"ttl": "1h"}));
    for _ in 0..20 {
        lease(&mut w, &t, "plain", 50);
    }
    assert_eq!(w.index.len() as u64, w.rows(tables::TOKEN) + w.rows(tables::LEASE));
    let followed = (w.index.len(), w.index.wake_at());
    w.restart();
    assert_eq!(w.index.len(), followed.0);
    w.sleep(50);
    assert_eq!(w.work().0, 20);
    assert_eq!(w.index.len(), 2);
}

/// What `covers` finds by steps through the order is what a look at every row finds.
#[test]
fn a_tombstone_is_found_among_many() {
    use super::tombstone::{self, TOKENS};
    use ringfence_base::MountId;
    let paths = ["", "a", "ab", "a/", "a/b", "a/b/", "a/b/c", "a/bb/", "a/c/", "b/", "a/b/c/d"];
    let mut rng = ringfence_base::entropy::SeededEntropy(5);
    for _ in 0..40 {
        let mut w = World::new();
        let (mount, other) = (MountId(77), MountId(78));
        w.write(|txn, pass| tombstone::tokens(txn, pass.now, other, "").unwrap());
        for _ in 0..rng.next_u64() % 5 {
            let path = paths[rng.next_u64() as usize % paths.len()];
            w.write(|txn, pass| tombstone::tokens(txn, pass.now, mount, path).unwrap());
        }
        w.read(|txn, _| {
            let rows = tombstone::rows(txn, &tables::tombstone(TOKENS, &mount.0.to_be_bytes())).unwrap();
            for path in paths {
                for era in 0..7 {
                    let naive = rows
                        .iter()
                        .any(|(key, stone)| stone.era > era && tombstone::is_below(path, &key[tombstone::SUBJECT..]));
                    let found = tombstone::covers(txn, TOKENS, mount, path, era).unwrap();
                    assert_eq!(found, naive, "{path:?} era {era}");
                }
            }
        });
    }
}
