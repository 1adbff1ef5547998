//! Active clients, through the pipeline of one node in memory.

use super::*;
use crate::testing::World;
use proptest::prelude::*;
use ringfence_base::Code;
use ringfence_logical::Operation;
use serde_json::{Value, json};

fn on(w: &mut World) {
    let root = w.root.clone();
    let (code, _) = w.post("sys/internal/counters/config", &root, json!({"enabled": "enable"}));
    assert_eq!(code, Code::NoContent);
}

fn monthly(w: &mut World) -> Value {
    let root = w.root.clone();
    let (code, v) = w.get("sys/internal/counters/activity/monthly", &root);
    assert_eq!(code, Code::Ok, "{v}");
    v["data"].clone()
}

fn token(w: &mut World, body: Value) -> String {
    let root = w.root.clone();
    let (code, v) = w.post("auth/token/create", &root, body);
    assert_eq!(code, Code::Ok, "{v}");
    v["auth"]["client_token"].as_str().expect("a token").to_owned()
}

fn login(w: &mut World, name: &str) -> String {
    let (code, v) = w.post(&format!("auth/door/login/{name}"), "", json!({}));
    assert_eq!(code, Code::Ok, "{v}");
    v["auth"]["client_token"].as_str().expect("a token").to_owned()
}

fn look(w: &mut World, token: &str) {
    assert_eq!(w.get("auth/token/lookup-self", token).0, Code::Ok);
}

/// As the owner does every few seconds.
fn write_rows(w: &mut World) {
    let now = w.now;
    w.write(|txn, pass| {
        write(txn, &pass.core.vault.activity, now).expect("a readable view");
    });
}

#[test]
fn nobody_is_counted_until_it_is_switched_on() {
    let mut w = World::new();
    let t = token(&mut w, json!({"policies": "default"}));
    look(&mut w, &t);
    assert_eq!(monthly(&mut w)["clients"], 0);
    let root = w.root.clone();
    let (code, v) = w.get("sys/internal/counters/activity", &root);
    assert_eq!(code, Code::NoContent, "{v}");
    let (_, v) = w.get("sys/internal/counters/config", &root);
    assert_eq!((&v["data"]["enabled"], &v["data"]["retention_months"]), (&json!("default-disabled"), &json!(48)));
    on(&mut w);
    // one that this core had remembered before is seen all the same
    look(&mut w, &t);
    assert_eq!(monthly(&mut w)["clients"], 1);
    let (code, v) = w.post("sys/internal/counters/config", &root, json!({"enabled": "disable"}));
    let gone = "the current monthly segment will be deleted because the activity log was disabled";
    assert_eq!((code, &v["warnings"]), (Code::Ok, &json!([gone])));
    write_rows(&mut w);
    assert_eq!(monthly(&mut w)["clients"], 0);
}

#[test]
fn a_client_counts_once_a_month_where_it_came_from() {
    let mut w = World::new();
    on(&mut w);
    // the same policies are the same client, whatever the token; root is nobody
    for body in
        [json!({"policies": "default"}), json!({"policies": "default"}), json!({"policies": ["default", "a"]})]
    {
        let t = token(&mut w, body);
        look(&mut w, &t);
        look(&mut w, &t);
    }
    for name in ["ann", "bob", "ann"] {
        let t = login(&mut w, name);
        look(&mut w, &t);
    }
    let check = |v: &Value| {
        assert_eq!(
            (&v["clients"], &v["entity_clients"], &v["non_entity_clients"]),
            (&4.into(), &2.into(), &2.into())
        );
        let ns = &v["by_namespace"][0];
        assert_eq!((&ns["namespace_id"], &ns["namespace_path"]), (&json!("root"), &json!("")));
        let mounts = ns["mounts"].as_array().expect("mounts");
        let of = |path: &str| mounts.iter().find(|m| m["mount_path"] == path).map(|m| m["counts"]["clients"].clone());
        assert_eq!((of("auth/door/"), of("auth/token/")), (Some(json!(2)), Some(json!(2))), "{v}");
        assert_eq!(v["months"].as_array().map(Vec::len), Some(1));
    };
    check(&monthly(&mut w));
    // written, and some of them waiting still: nobody counts twice
    write_rows(&mut w);
    check(&monthly(&mut w));
    let again = login(&mut w, "ann");
    look(&mut w, &again);
    write_rows(&mut w);
    check(&monthly(&mut w));
}

#[test]
fn months_are_told_apart_and_forgotten_in_time() {
    let mut w = World::new();
    on(&mut w);
    let first = Month::of(w.now);
    for name in ["ann", "bob"] {
        let t = login(&mut w, name);
        look(&mut w, &t);
    }
    write_rows(&mut w);
    w.now = first.next().begin().plus_seconds(86_400);
    for name in ["ann", "eve"] {
        let t = login(&mut w, name);
        look(&mut w, &t);
    }
    let root = w.root.clone();
    let (_, v) = w.get("sys/internal/counters/activity", &root);
    let d = &v["data"];
    assert_eq!(d["total"]["clients"], 3, "{v}");
    let months = d["months"].as_array().expect("months");
    assert_eq!((months.len(), &months[9]["counts"]), (12, &Value::Null));
    assert_eq!((&months[10]["counts"]["clients"], &months[11]["counts"]["clients"]), (&json!(2), &json!(2)));
    assert_eq!(months[11]["new_clients"]["counts"]["clients"], 1);
    assert_eq!(d["end_time"], json!(first.next().last_second().rfc3339()));
    // one month of it, asked for by a time within
    let within = json!({"start_time": w.now.rfc3339(), "limit_namespaces": 1});
    let (_, v) = w.call(Operation::Read, "sys/internal/counters/activity", &root, within);
    assert_eq!((&v["data"]["total"]["clients"], v["data"]["months"].as_array().map(Vec::len)), (&json!(2), Some(1)));
    let wrong = json!({"start_time": w.now.rfc3339(), "end_time": first.begin().rfc3339()});
    let (code, v) = w.call(Operation::Read, "sys/internal/counters/activity", &root, wrong);
    assert_eq!((code, &v["errors"]), (Code::Invalid, &json!(["start_time is later than end_time"])));
    // a month that is too old goes
    write_rows(&mut w);
    let (code, _) = w.post("sys/internal/counters/config", &root, json!({"retention_months": 1}));
    assert_eq!(code, Code::NoContent);
    w.now = first.next().next().begin().plus_seconds(86_400);
    write_rows(&mut w);
    let (_, v) = w.get("sys/internal/counters/activity", &root);
    assert_eq!(v["data"]["total"]["clients"], 2, "{v}");
}

#[test]
fn what_cannot_be_set() {
    let mut w = World::new();
    let root = w.root.clone();
    for (body, why) in [
        (json!({"enabled": "yes"}), "enabled must be one of \"default\", \"enable\", \"disable\""),
        (json!({"retention_months": -1}), "retention_months must be greater than or equal to 0"),
        (json!({"default_report_months": 0}), "default_report_months must be greater than 0"),
        (json!({"enabled": "enable", "retention_months": 0}), "retention_months cannot be 0 while enabled"),
    ] {
        let (code, v) = w.post("sys/internal/counters/config", &root, body);
        assert_eq!((code, &v["errors"]), (Code::Invalid, &json!([why])));
    }
}

#[test]
fn a_client_has_one_name() {
    let entry = |policies: &[&str], entity: &str| TokenEntry {
        policies: policies.iter().map(|p| (*p).to_owned()).collect(),
        entity_id: entity.into(),
        ..TokenEntry::default()
    };
    assert_eq!(client_id(&entry(&["a"], "e"), "root"), "e");
    let one = client_id(&entry(&["a", "b"], ""), "root");
    assert_eq!(one, client_id(&entry(&["a", "b"], ""), "root"));
    for other in [client_id(&entry(&["a"], ""), "root"), client_id(&entry(&["a", "b"], ""), "abcde")] {
        assert_ne!(one, other);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// What stands and what waits, however they overlap, counts each client once a month, and as new once.
    #[test]
    fn reports_count_as_a_set_would(
        standing in proptest::collection::btree_map((0u32..4, 0u8..8), (1u32..4, any::<bool>()), 0..24),
        waits in proptest::collection::btree_map((0u32..4, 0u8..8), (1u32..4, any::<bool>()), 0..24),
        from in 0u32..4,
        length in 0u32..4,
    ) {
        let mut w = World::new();
        let at = w.now;
        let first_use = |mount: u32, entity: bool| FirstUse {
            ns: NsId::ROOT,
            mount: MountId(mount),
            kind: if entity { Kind::Entity } else { Kind::Token },
            at,
            client_id: "c".into(),
        };
        w.write(|txn, _| {
            for ((month, client), (mount, entity)) in &standing {
                txn.put(key_of(Month(*month), &[*client; 16], &first_use(*mount, *entity)), &[], b"{}");
            }
        });
        let waiting = Waiting::default();
        for ((month, client), (mount, entity)) in &waits {
            prop_assert!(waiting.add(Month(*month), [*client; 16], first_use(*mount, *entity)));
        }
        let to = from + length;
        let report = w.write(|txn, _| Report::of(txn, &waiting, (Month(from), Month(to)), |_| true)).expect("a report");
        let (mut seen, mut entities) = (std::collections::BTreeSet::new(), 0);
        for month in from..=to {
            let mut all: BTreeMap<u8, bool> = BTreeMap::new();
            for source in [&waits, &standing] {
                all.extend(source.iter().filter(|((m, _), _)| *m == month).map(|((_, c), (_, e))| (*c, *e)));
            }
            let fresh: Vec<bool> = all.iter().filter(|(c, _)| seen.insert(**c)).map(|(_, e)| *e).collect();
            entities += fresh.iter().filter(|e| **e).count();
            let told = report.months.get(&Month(month));
            let shown = told.map_or((json!(0), json!(0)), |(all, new)| {
                (all.total.json()["clients"].clone(), new.total.json()["clients"].clone())
            });
            prop_assert_eq!(shown, (json!(all.len()), json!(fresh.len())));
        }
        let total = report.all.total.json();
        prop_assert_eq!((&total["clients"], &total["entity_clients"]), (&json!(seen.len()), &json!(entities)));
    }
}
