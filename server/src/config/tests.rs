//! Configurations as operators and test suites write them, and what they mean.

use super::listener::{Address, ClientCerts, ProxyBehavior, TlsVersion};
use super::storage::{JoinTarget, Pem};
use super::*;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn texts(texts: &[&str]) -> Vec<(String, String)> {
    texts.iter().enumerate().map(|(i, text)| (format!("{i}.json"), (*text).to_owned())).collect()
}

fn read(text: &str) -> Result<Loaded, ConfigError> {
    from_texts(&texts(&[text]), &env(&[]), Config::default())
}

const SMALL: &str = r#"{"storage": {"inmem": {}}, "listener": {"tcp": {"tls_disable": true}}}"#;

#[test]
fn a_small_one_has_the_defaults() {
    let loaded = read(SMALL).unwrap();
    let config = loaded.config;
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(config.storage, Some(Storage::Inmem));
    assert_eq!(config.listeners, [Listener::plain("127.0.0.1:8200")]);
    assert_eq!(config.seals, [Seal::shamir()]);
    assert_eq!(config.max_lease_ttl, Duration::from_secs(2_764_800));
    assert_eq!(config.default_max_request_duration, Duration::from_secs(90));
    assert_eq!(config.log_level, "info");
    assert_eq!(config.telemetry, Telemetry::default());
    assert_eq!(config.lockout_of("userpass").threshold, 5);
    assert!(!config.ui && !config.raw_storage_endpoint && !config.disable_mlock);
}

#[test]
fn a_large_one() {
    let loaded = read(
        r#"{
        "backend": [{"raft": [{"path": "/data", "node_id": "n1", "performance_multiplier": "1", "snapshot_interval": "5m",
            "retry_join": [
                {"leader_api_addr": "https://a:8200", "leader_ca_cert_file": "/ca.pem"},
                {"auto_join": "provider=k8s", "auto_join_port": 9200, "auto_join_scheme": "http"}]}]}],
        "listener": [
            {"tcp": {"address": "0.0.0.0:8200", "tls_cert_file": "c", "tls_key_file": "k", "tls_min_version": "tls13",
                "tls_require_and_verify_client_cert": "true", "tls_client_ca_file": "ca",
                "max_request_size": "1MiB", "max_request_duration": 30, "max_json_depth": 10,
                "x_forwarded_for_authorized_addrs": "10.0.0.0/8, 127.0.0.1", "x_forwarded_for_hop_skips": 1,
                "x_forwarded_for_reject_not_present": false,
                "proxy_protocol_behavior": "allow_authorized", "proxy_protocol_authorized_addrs": ["10.0.0.1"],
                "custom_response_headers": {"default": {"X-A": ["1", "2"]}, "4xx": {"X-B": "3"}},
                "telemetry": {"unauthenticated_metrics_access": true}, "when_inconsistent": "forward",
                "chroot_namespace": "a/b"}},
            {"unix": {"address": "/run/s.sock", "socket_mode": "0600"}}],
        "seal": [{"awskms": {"kms_key_id": "alias/x", "priority": 2}}, {"transit": {"key_name": "k", "disabled": "1"}}],
        "telemetry": {"prometheus_retention_time": "0s", "prefix_filter": ["+a", "-b"], "usage_gauge_period": "none"},
        "user_lockout": {"all": {"lockout_threshold": 3}, "ldap": {"disable_lockout": true}},
        "api_addr": "https://me:8200/", "cluster_addr": "https://me:8201", "cluster_name": "c", "ui": "true",
        "default_lease_ttl": "1h", "max_lease_ttl": 7200, "log_level": "DEBUG", "log_format": "json",
        "disable_performance_standby": "true",
        "replication": {"allow_forwarding_via_header": true, "best_effort_wal_wait_duration": "500ms",
            "logshipper_buffer_length": 1},
        "enable_response_header_hostname": true, "log_requests_level": "trace", "pid_file": "/run/p"
        }"#,
    )
    .unwrap();
    let config = loaded.config;
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let Some(Storage::Raft(raft)) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!((raft.path.as_path(), raft.node_id.as_deref()), (Path::new("/data"), Some("n1")));
    assert_eq!((raft.performance_multiplier, raft.snapshot_interval.as_secs(), raft.trailing_logs), (1, 300, 10_000));
    assert_eq!(raft.retry_join[0].leader, JoinTarget::Address("https://a:8200".into()));
    assert_eq!(raft.retry_join[0].leader_ca, Some(Pem::File("/ca.pem".into())));
    let discover = JoinTarget::Discover { text: "provider=k8s".into(), scheme: "http".into(), port: 9200 };
    assert_eq!(raft.retry_join[1].leader, discover);

    let [tcp, unix] = config.listeners.as_slice() else { panic!("{:?}", config.listeners) };
    let tls = tcp.tls.as_ref().unwrap();
    assert_eq!((tls.min_version, tls.client_certs), (TlsVersion::Tls13, ClientCerts::Required));
    assert_eq!((tcp.max_request_size_bytes, tcp.json.depth), (1_048_576, 10));
    assert_eq!(tcp.max_request_duration, Some(Duration::from_secs(30)));
    let forwarded = tcp.forwarded_for.as_ref().unwrap();
    assert_eq!((forwarded.authorized.len(), forwarded.hop_skips), (2, 1));
    assert!(!forwarded.reject_not_present && forwarded.reject_not_authorized);
    assert_eq!(tcp.proxy_protocol.as_ref().unwrap().behavior, ProxyBehavior::AllowAuthorized);
    assert_eq!(tcp.custom_response_headers["default"]["X-A"], ["1", "2"]);
    assert_eq!(tcp.custom_response_headers["4xx"]["X-B"], ["3"]);
    assert!(tcp.metrics.unauthenticated_access);
    assert_eq!(tcp.chroot_namespace.as_deref(), Some("a/b/"));
    let Address::Unix { path, mode, .. } = &unix.address else { panic!("{:?}", unix.address) };
    assert_eq!((path.as_path(), *mode), (Path::new("/run/s.sock"), Some(0o600)));

    assert_eq!(config.seals.iter().map(|seal| seal.kind).collect::<Vec<_>>(), [SealKind::Transit, SealKind::AwsKms]);
    assert!(config.seals[0].disabled && config.seals[1].settings["kms_key_id"] == "alias/x");
    assert_eq!(config.telemetry.usage_gauge_period, None);
    assert!(config.telemetry.prometheus_retention_time.is_zero());
    assert_eq!(config.lockout_of("userpass").threshold, 3);
    assert!(config.lockout_of("ldap").disabled);
    assert_eq!(config.api_addr.as_deref(), Some("https://me:8200"));
    assert!(
        config.disable_performance_standby && config.allow_forwarding_via_header && tcp.forwards_when_inconsistent
    );
    assert_eq!(config.index_wait, Duration::from_millis(500));
    assert!(config.ui && config.enable_response_header_hostname);
    assert_eq!((config.default_lease_ttl.as_secs(), config.max_lease_ttl.as_secs()), (3600, 7200));
    assert_eq!((config.log_level.as_str(), config.log_format), ("debug", LogFormat::Json));
    assert_eq!(config.log_requests_level.as_deref(), Some("trace"));
}

#[test]
fn later_files_win_and_listeners_add_up() {
    let loaded = from_texts(
        &texts(&[
            SMALL,
            r#"{"ui": true, "log_level": "warn", "listener": {"tcp": {"address": "1.2.3.4", "tls_disable": 1}}}"#,
            r#"{"log_level": "error", "storage": {"file": {"path": "/d"}}}"#,
        ]),
        &env(&[]),
        Config::default(),
    )
    .unwrap();
    let config = loaded.config;
    let addresses: Vec<&Address> = config.listeners.iter().map(|listener| &listener.address).collect();
    assert_eq!(addresses, [&Address::Tcp("127.0.0.1:8200".into()), &Address::Tcp("1.2.3.4:8200".into())]);
    assert_eq!((config.ui, config.log_level.as_str()), (true, "error"));
    assert_eq!(config.storage, Some(Storage::File { path: "/d".into() }));
}

#[test]
fn what_must_be_said() {
    let listener = r#""listener": {"tcp": {"tls_disable": true}}"#;
    for (text, expected) in [
        (format!("{{{listener}}}"), "A storage backend must be specified"),
        (
            format!(r#"{{"storage": {{"raft": {{"path": "/d"}}}}, {listener}}}"#),
            "Cluster address must be set when using raft storage",
        ),
        (r#"{"storage": {"inmem": {}}}"#.to_owned(), "At least one listener must be specified"),
        (format!(r#"{{"storage": {{"raft": {{}}}}, {listener}}}"#), "path must be set"),
        (format!(r#"{{"storage": {{"s3": {{}}}}, {listener}}}"#), "unknown storage type \"s3\""),
        (format!(r#"{{"storage": [{{"inmem": {{}}}}, {{"inmem": {{}}}}], {listener}}}"#), "only one storage stanza"),
        (r#"{"listener": {"tcp": {}}}"#.to_owned(), "tls_cert_file and tls_key_file must be set, or tls_disable"),
        (r#"{"listener": {"tcp": {"tls_disable": "maybe"}}}"#.to_owned(), "tls_disable must be true or false"),
        (r#"{"max_lease_ttl": "soon"}"#.to_owned(), "max_lease_ttl must be a duration"),
        (r#"{"max_lease_ttl": "-1s"}"#.to_owned(), "max_lease_ttl must be a duration"),
        (r#"{"log_level": "loud"}"#.to_owned(), "unknown log level \"loud\""),
        (r#"{"seal": {"wax": {}}}"#.to_owned(), "unknown seal type \"wax\""),
        (r#"{"user_lockout": {"github": {}}}"#.to_owned(), "users can be locked for"),
        (r#"{"listener": "tcp"}"#.to_owned(), "listener must be a block"),
        (
            format!(r#"{{"storage": {{"inmem": {{}}}}, "api_addr": "http://{{{{ GetPrivateIP }}}}:1", {listener}}}"#),
            "address templates",
        ),
        (r#"{"storage""#.to_owned(), "error parsing configuration: 0.json:1:"),
    ] {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\n{error}");
    }
}

#[test]
fn what_nobody_asked_for_is_told() {
    let loaded = read(
        r#"{"storage": {"inmem": {"odd": 1}}, "listener": {"tcp": {"tls_disable": true, "tls_cart": "x"}},
            "cache_size": 5, "colour": "red"}"#,
    )
    .unwrap();
    let mut warnings: Vec<&str> =
        loaded.warnings.iter().filter_map(|warning| Some(warning.split_once(" at 0.json:")?.0)).collect();
    warnings.sort_unstable();
    assert_eq!(
        warnings,
        [
            "cache_size has no effect and is ignored",
            "unknown or unsupported field colour found in configuration",
            "unknown or unsupported field odd found in configuration",
            "unknown or unsupported field tls_cart found in configuration",
        ]
    );
}

#[test]
fn the_environment_wins() {
    let text = r#"{"storage": {"raft": {"path": "/d"}}, "listener": {"tcp": {"tls_disable": true}}, "api_addr": "http://file",
        "seal": {"awskms": {"region": "file", "access_key": "file"}}, "log_level": "warn"}"#;
    let variables = env(&[
        ("VAULT_API_ADDR", "http://vault:8200"),
        ("BAO_API_ADDR", "http://bao:8200"),
        ("VAULT_CLUSTER_ADDR", "node:8201"),
        ("VAULT_RAFT_NODE_ID", "n9"),
        ("VAULT_RAFT_PATH", "/env"),
        ("AWS_DEFAULT_REGION", "env"),
        ("VAULT_UI", "1"),
        ("VAULT_LOG_LEVEL", "trace"),
    ]);
    let config = from_texts(&texts(&[text]), &variables, Config::default()).unwrap().config;
    assert_eq!(config.api_addr.as_deref(), Some("http://bao:8200"));
    assert_eq!(config.cluster_addr.as_deref(), Some("https://node:8201"));
    let Some(Storage::Raft(raft)) = &config.storage else { panic!() };
    assert_eq!((raft.node_id.as_deref(), raft.path.as_path()), (Some("n9"), Path::new("/env")));
    assert_eq!(
        (config.seals[0].settings["region"].as_str(), config.seals[0].settings["access_key"].as_str()),
        ("env", "file")
    );
    assert!(config.ui && config.log_level_is_fixed);
    assert_eq!(config.log_level, "trace");

    let chosen = from_texts(&texts(&[SMALL]), &env(&[("VAULT_SEAL_TYPE", "gcpckms")]), Config::default()).unwrap();
    assert_eq!(chosen.config.seals[0].kind, SealKind::GcpCkms);
    let bad = from_texts(&texts(&[SMALL]), &env(&[("VAULT_UI", "perhaps")]), Config::default()).unwrap_err();
    assert_eq!(bad.to_string(), "error in environment: VAULT_UI: \"perhaps\" is no boolean");
}

#[test]
fn dev_mode_is_a_base_that_files_change() {
    let plain = from_texts(&[], &env(&[]), Config::dev("127.0.0.1:8200")).unwrap().config;
    assert_eq!(plain.storage, Some(Storage::Inmem));
    assert!(plain.ui && plain.raw_storage_endpoint && plain.introspection_endpoint && plain.disable_mlock);
    let changed = r#"{"ui": false, "listener": {"tcp": {"address": "127.0.0.1:9", "tls_disable": true}}}"#;
    let changed = from_texts(&texts(&[changed]), &env(&[]), Config::dev("127.0.0.1:8200")).unwrap().config;
    assert_eq!(changed.listeners, [Listener::plain("127.0.0.1:9")]);
    assert!(!changed.ui && changed.raw_storage_endpoint);
}

#[test]
fn folders_are_read_in_the_order_of_their_names() {
    let folder = std::env::temp_dir().join(format!("ringfence-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("20.json"), r#"{"log_level": "error"}"#).unwrap();
    std::fs::write(folder.join("10.json"), SMALL.replace("{\"storage", "{\"log_level\": \"debug\", \"storage"))
        .unwrap();
    std::fs::write(folder.join("30.txt"), "not ours").unwrap();
    let loaded = load(std::slice::from_ref(&folder), &env(&[]), Config::default()).unwrap();
    assert_eq!(loaded.config.log_level, "error");
    let missing = load(&[folder.join("none.hcl")], &env(&[]), Config::default()).unwrap_err();
    assert!(matches!(missing, ConfigError::Unreadable { .. }));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_usual_spelling_means_the_same() {
    let text = r#"
        ui       = true
        api_addr = "http://127.0.0.1:8200"
        cluster_addr = "http://127.0.0.1:8201"
        odd = 1
        listener "tcp" {
          address     = "127.0.0.1:8200"
          tls_disable = "true"
          custom_response_headers {
            "default" = { "X" = ["a", "b"] }
            "2xx"     = { "Y" = ["c"] }
          }
          telemetry { unauthenticated_metrics_access = true }
        }
        storage "raft" {
          path    = "/x"
          node_id = "n"
          retry_join { leader_api_addr = "http://a" }
          retry_join { leader_api_addr = "http://b" }
        }
        audit "file" "to-file" { options { file_path = "/a" } }
        max_lease_ttl     = 10
        default_lease_ttl = "5s"
    "#;
    let loaded = from_texts(&[("f.hcl".into(), text.into())], &env(&[]), Config::default()).unwrap();
    assert_eq!(loaded.warnings, ["unknown or unsupported field odd found in configuration at f.hcl:5:9"]);
    let config = loaded.config;
    assert_eq!(config.cluster_addr.as_deref(), Some("https://127.0.0.1:8201"), "the cluster port speaks TLS only");
    assert_eq!(config.listeners[0].custom_response_headers["default"]["X"], ["a", "b"]);
    assert!(config.listeners[0].metrics.unauthenticated_access && config.ui);
    assert_eq!(config.audit[0].options["file_path"], "/a");
    let Some(Storage::Raft(raft)) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!(raft.retry_join.len(), 2);
    assert_eq!(config.max_lease_ttl, Duration::from_secs(10));
}
