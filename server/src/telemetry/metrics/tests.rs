//! Metrics as cores write them and pages show them.

use super::*;
use ringfence_base::{Mono, Wall};
use std::collections::BTreeMap;
use std::thread;

/// So many seconds after a start.
fn at(seconds: u64) -> Now {
    let wall = Wall::parse_rfc3339("2024-05-01T12:00:00Z").unwrap().plus_seconds(seconds);
    Now { mono: Mono(1_000_000_000 * (seconds + 77)), wall }
}

/// Reads the text format: checks that it is well formed and answers each series' value.
fn parse(page: &str) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    let mut family = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["gauge", "counter", "summary"].contains(&kind));
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name}");
            assert!(name > family.as_str(), "each family once, in order: {name}");
            family = name.to_owned();
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(&family), "{line} under {family}");
            let old = series.insert(name.to_owned(), value.parse().unwrap());
            assert_eq!(old, None, "{name} twice");
        }
    }
    series
}

#[test]
fn cores_count_by_themselves_and_are_summed() {
    let metrics = Metrics::new(3);
    let cores: Vec<_> = (0..3)
        .map(|core| {
            let metrics = metrics.clone();
            thread::spawn(move || {
                let mine = metrics.core(core);
                for n in 0..1000 {
                    mine.observe(Sample::HandleRequest, 1_000_000 * (1 + n % 3));
                    mine.add(Counter::RaftApply, 2);
                    mine.status(if n % 10 == 0 { 403 } else { 200 });
                    mine.route("read", "secret/", 5_000_000);
                    mine.enter();
                }
                for _ in 0..990 {
                    mine.leave();
                }
                mine.status(99);
                mine.status(600);
            })
        })
        .collect();
    cores.into_iter().for_each(|core| core.join().unwrap());
    let page = parse(&metrics.prometheus(at(0)));
    for (name, value) in [
        ("vault_core_handle_request_count", 3000.0),
        ("vault_core_handle_request_sum", 3.0 * (334.0 + 2.0 * 333.0 + 3.0 * 333.0)),
        ("vault_raft_apply", 6000.0),
        ("vault_core_response_status_code{code=\"200\",type=\"2xx\"}", 2700.0),
        ("vault_core_response_status_code{code=\"403\",type=\"4xx\"}", 300.0),
        ("vault_route_read_secret__count", 3000.0),
        ("vault_core_in_flight_requests", 30.0),
        ("vault_audit_log_request_failure", 0.0),
    ] {
        assert_eq!(page.get(name), Some(&value), "{name}");
    }
    let median = page["vault_core_handle_request{quantile=\"0.5\"}"];
    assert!((1.875..=2.125).contains(&median), "{median} ms");
    assert!(page["vault_runtime_alloc_bytes"] > 100_000.0);
    assert!(!page.contains_key("vault_core_unsealed"), "nobody has set it");
    assert_eq!(page.keys().filter(|name| name.contains("status_code")).count(), 2);
}

#[test]
fn gauges_have_their_labels_and_the_host_where_it_belongs() {
    let metrics = Metrics::new(1);
    metrics.set(Gauge::CoreUnsealed, 1);
    metrics.set(Gauge::ExpireNumLeases, 42);
    metrics.set_cluster("blue \"one\"");
    metrics.add_source(|all| {
        for (namespace, value) in [("root", 3.0), ("a/", 4.0)] {
            let labels = vec![("namespace", namespace.to_owned())];
            all.push(GaugeValue { name: "token.count".to_owned(), labels, value });
        }
    });
    metrics.core(0).add(Counter::RaftApply, 1);
    let page = parse(&metrics.prometheus(at(0)));
    assert_eq!(page["vault_core_unsealed{cluster=\"blue \\\"one\\\"\"}"], 1.0);
    assert_eq!(page["vault_expire_num_leases"], 42.0);
    assert_eq!(page["vault_token_count{namespace=\"a/\"}"], 4.0);
    assert_eq!(page["vault_token_count{namespace=\"root\"}"], 3.0);

    metrics.set_naming(Naming { host: Host::InGauges("box-1".into()), ..Naming::default() });
    let page = parse(&metrics.prometheus(at(0)));
    assert_eq!((page["vault_box_1_expire_num_leases"], page["vault_raft_apply"]), (42.0, 1.0));
    assert!(page.contains_key("process_resident_memory_bytes"));
    metrics.set_naming(Naming { host: Host::Label("box-1".into()), prefix: "rf".into(), ..Naming::default() });
    let page = parse(&metrics.prometheus(at(0)));
    assert_eq!(page["rf_expire_num_leases{host=\"box-1\"}"], 42.0);
    assert_eq!(page["rf_raft_apply{host=\"box-1\"}"], 1.0);
}

#[test]
fn the_longest_filter_decides() {
    let names = |filters: &[&str], keep_others| {
        let metrics = Metrics::new(1);
        metrics.set(Gauge::ExpireNumLeases, 1);
        metrics.set(Gauge::RaftPeers, 1);
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        metrics.set_naming(Naming { filters, keep_others, ..Naming::default() });
        let page = parse(&metrics.prometheus(at(0)));
        ["vault_expire_num_leases", "vault_raft_peers", "vault_raft_apply"].map(|name| page.contains_key(name))
    };
    assert_eq!(names(&[], true), [true, true, true]);
    assert_eq!(names(&["-vault.expire"], true), [false, true, true]);
    assert_eq!(names(&["-vault.raft", "+vault.raft.apply"], true), [true, false, true]);
    assert_eq!(names(&["+vault.raft", "-vault.raft.apply"], false), [false, true, false]);
}

#[test]
fn the_json_page_is_the_last_completed_interval() {
    let metrics = Metrics::new(1);
    let core = metrics.core(0);
    core.add(Counter::RaftApply, 7);
    assert_eq!(metrics.json(at(0))["Counters"][0]["Sum"], serde_json::json!(7.0), "what there is");
    metrics.tick(at(0));
    core.add(Counter::RaftApply, 20);
    core.observe(Sample::HandleRequest, 3_000_000);
    core.observe(Sample::HandleRequest, 5_000_000);
    let token = TokenCreation {
        auth_method: "approle",
        mount_point: "auth/approle/",
        namespace: "",
        token_type: "batch",
        ttl_seconds: 1200,
    };
    core.token_created(token);
    core.token_created(token);
    metrics.tick(at(10));
    // of the interval that is not complete
    core.add(Counter::RaftApply, 1000);
    let page = metrics.json(at(15));
    assert_eq!(page["Timestamp"], "2024-05-01 12:00:00 +0000 UTC");
    assert_eq!(page["Points"], serde_json::json!([]));
    let find = |list: &str, name: &str| {
        let rows = page[list].as_array().unwrap();
        rows.iter().find(|row| row["Name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    let number = |row: &serde_json::Value, name: &str| row[name].as_f64().unwrap();
    let applied = find("Counters", "vault.raft.apply");
    assert_eq!((number(&applied, "Sum"), number(&applied, "Rate"), number(&applied, "Count")), (20.0, 2.0, 20.0));
    let handled = find("Samples", "vault.core.handle_request");
    assert_eq!((number(&handled, "Sum"), number(&handled, "Count"), number(&handled, "Mean")), (8.0, 2.0, 4.0));
    assert!((number(&handled, "Min") - 3.0).abs() < 0.2 && (number(&handled, "Max") - 5.0).abs() < 0.4);
    assert!((number(&handled, "Stddev") - 2f64.sqrt()).abs() < 0.3);
    let created = find("Counters", "vault.token.creation");
    assert_eq!(number(&created, "Sum"), 2.0);
    let labels = serde_json::json!({
        "auth_method": "approle", "creation_ttl": "20m", "mount_point": "auth/approle/", "namespace": "root",
        "token_type": "batch",
    });
    assert_eq!(created["Labels"], labels);
    assert!(number(&find("Gauges", "vault.runtime.alloc_bytes"), "Value") > 0.0);
    metrics.tick(at(20));
    metrics.tick(at(30));
    assert_eq!(metrics.json(at(31))["Counters"], serde_json::json!([]), "nothing happened");
}

/// A server that was slow last week is not slow today.
#[test]
fn quantiles_forget_and_sums_do_not() {
    let metrics = Metrics::new(1);
    let core = metrics.core(0);
    for seconds in (0..3600).step_by(10) {
        metrics.tick(at(seconds));
        for _ in 0..5 {
            core.observe(Sample::HandleRequest, if seconds < 1800 { 900_000_000 } else { 1_000_000 });
        }
    }
    let page = parse(&metrics.prometheus(at(3600)));
    assert!(page["vault_core_handle_request{quantile=\"0.99\"}"] < 1.1);
    assert_eq!(page["vault_core_handle_request_count"], 1800.0);
    assert!(lock(&metrics.shared.history).moments_kept() <= 12);
    let later = parse(&metrics.prometheus(at(3600 + 700)));
    assert!(later["vault_core_handle_request{quantile=\"0.5\"}"].is_finite());
    for seconds in (3600..4800).step_by(10) {
        metrics.tick(at(seconds));
    }
    let idle = parse(&metrics.prometheus(at(4800)));
    assert!(idle["vault_core_handle_request{quantile=\"0.5\"}"].is_nan(), "nothing was observed for ten minutes");
}

#[test]
fn the_number_of_series_is_bounded() {
    let metrics = Metrics::new(2);
    let core = metrics.core(0);
    for n in 0..SERIES + 50 {
        core.route("read", &format!("mount-{n:04}/"), 1);
        core.add_labelled("secret.lease.creation", &[("mount_point", &format!("m{n}/"))], 1);
    }
    // a known one still counts, on another core too
    core.route("read", "mount-0000/", 1);
    metrics.core(1).route("read", "mount-0000/", 1);
    let page = parse(&metrics.prometheus(at(0)));
    assert_eq!(page["vault_telemetry_series_dropped"], 100.0);
    assert_eq!(page["vault_route_read_mount_0000__count"], 3.0);
    assert_eq!(
        page.keys().filter(|name| name.starts_with("vault_route_") && name.ends_with("_count")).count(),
        SERIES
    );
}

#[test]
fn names_that_become_one_are_one() {
    let metrics = Metrics::new(1);
    let core = metrics.core(0);
    core.route("read", "a-b/", 1_000_000);
    core.route("read", "a/b/", 2_000_000);
    let page = parse(&metrics.prometheus(at(0)));
    assert_eq!((page["vault_route_read_a_b__count"], page["vault_route_read_a_b__sum"]), (2.0, 3.0));
}

#[test]
#[should_panic(expected = "one holder")]
fn a_core_has_one_writer() {
    let metrics = Metrics::new(1);
    drop(metrics.core(0));
    let _first = metrics.core(0);
    let _second = metrics.core(0);
}

#[test]
fn names_and_their_numbers_agree() {
    assert_eq!(Sample::HandleRequest.name(), "core.handle_request");
    for (at, sample) in Sample::ALL.iter().enumerate() {
        assert_eq!(*sample as usize, at);
    }
    assert_eq!(
        [0, 1, 60, 61, 2_592_000, 2_592_001].map(names::ttl_bucket),
        ["+Inf", "1m", "1m", "10m", "30d", "+Inf"]
    );
}
