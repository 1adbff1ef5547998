//! Starting and stopping the server: configuration, hardening, recovery, one executor a core, listeners, signals.

use crate::api::listen::{self, Gate, Listener, Place};
use crate::cli::ServerArgs;
use crate::config::{self, Address, Config};
use crate::dev_tls::{self, DevTls};
use crate::disk::Directory;
use crate::facts::Facts;
use crate::peer::{Boot, Home, Identity, Peers, ToPeers};
use crate::ports;
use crate::reload::{self, Reloader};
use crate::rt::{self, DriverWish, MemoryLock, Options, channel};
use crate::shard::{Core, OwnerCore, Published, Storage, ToOwner, ToShard};
use crate::side::Threads;
use crate::telemetry::metrics::{Metrics, Naming};
use crate::telemetry::{self, Level};
use ringfence_node::{JoinTarget, Owner, OwnerConfig, Settings, ShardId, SystemTtls, UserLockout, Vault};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// After the signal to stop, calls under way may take this long.
const DRAIN: Duration = Duration::from_secs(10);

/// The lead is given away within this, or the process ends with it.
const HAND_OVER: Duration = Duration::from_secs(1);

/// A node that lost data asks the others for so long to take it back: time for an operator to unseal one of them.
const REPAIR_PATIENCE: Duration = Duration::from_secs(600);

/// The least log between two checkpoints; below it a node would do little else.
const MIN_CHECKPOINT_LOG_BYTES: u64 = 1 << 20;

/// Everything that a core is started with.
struct Plan {
    config: Config,
    settings: Settings,
    listeners: Vec<Listener>,
    owner: OwnerConfig,
    cluster: Option<Cluster>,
    cores: u16,
    driver: DriverWish,
    dev_tls: Option<DevTls>,
    warnings: Vec<String>,
}

/// The cluster port, of a node whose storage is raft.
struct Cluster {
    /// Where it listens, and whether the configuration says so.
    listen: std::net::SocketAddr,
    required: bool,
    /// Nodes to join, if it has no data.
    targets: Vec<JoinTarget>,
    non_voter: bool,
    /// The certificate is renewed after so long.
    certificate_period: Duration,
    /// Once the directory is open.
    identity: Option<(Identity, Boot)>,
}

/// Files that are there as long as the process; removed in the end, whatever that is.
#[derive(Default)]
struct Leavings(Vec<PathBuf>);

impl Drop for Leavings {
    fn drop(&mut self) {
        for path in &self.0 {
            // somebody may have removed it already
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
}

/// Runs the server to its end. Answers the process's exit code.
pub fn run(args: &ServerArgs, env: &BTreeMap<String, String>) -> i32 {
    // before any secret is in memory
    rt::harden();
    let mut leavings = Leavings::default();
    let ended = plan(args, env).and_then(|plan| prepare(plan, args, env, &mut leavings));
    match ended {
        Ok(code) => code,
        Err(e) => {
            eprintln!("{e}");
            1
        }
    }
}

/// Everything that may refuse the start, in the order in which an operator would look for it; then the start.
fn prepare(
    mut plan: Plan,
    args: &ServerArgs,
    env: &BTreeMap<String, String>,
    leavings: &mut Leavings,
) -> Result<i32, String> {
    if let Some(made) = plan.dev_tls.as_ref().filter(|made| made.temporary) {
        leavings.0.push(made.folder.clone());
    }
    if rt::is_test_clock_refused(env.contains_key(rt::TEST_CLOCK)) {
        return Err(format!(
            "Error starting the server: {} is set, which only a build with the feature test-clock obeys: unset it",
            rt::TEST_CLOCK
        ));
    }
    open_log(&plan.config)?;
    for w in &plan.warnings {
        telemetry::log(Level::Warn, w);
    }
    if env.contains_key(rt::TEST_CLOCK) {
        telemetry::log(
            Level::Warn,
            "this is a build for cluster tests: its clock obeys a file; keep no secrets in it",
        );
    }
    let memory = if plan.config.disable_mlock { None } else { Some(rt::lock_memory()) };
    if let Some(MemoryLock::Swappable(why)) = &memory {
        telemetry::log(
            Level::Warn,
            &format!(
                "memory is not locked ({why}), and this machine swaps: keys may be written to disk in plaintext. Switch \
                 swap off or encrypt it, or raise the memlock limit to unlimited (LimitMEMLOCK=infinity, \
                 CAP_IPC_LOCK); disable_mlock = true silences this"
            ),
        );
    }
    // an audit device must not be able to write where configuration or data stands
    let sinks = crate::audit::Shared::of_process();
    args.config.iter().for_each(|path| sinks.protect_configuration(path));
    match &plan.config.storage {
        Some(config::Storage::Raft(r)) => sinks.protect_tree(&r.path),
        Some(config::Storage::File { path }) => sinks.protect_tree(path),
        _ => {}
    }
    let storage = open_storage(&plan.config).map_err(|e| format!("Error initializing storage: {e}"))?;
    let home = match &storage {
        Storage::Directory(directory) => {
            settle_identity(&mut plan, directory)?;
            recover(&plan, directory, env)?
        }
        Storage::Memory => Home::Found(None),
    };
    // after the directory: who starts one configuration twice is told of that first
    ports::claim(&mut plan.listeners)?;
    let driver = rt::probe(plan.driver).map_err(|e| format!("Error starting the runtime: {e}"))?;
    if plan.driver == DriverWish::Auto && driver.kind == rt::DriverKind::Epoll {
        telemetry::log(Level::Warn, &format!("epoll serves instead of io_uring: {}", driver.reason));
    }
    for l in &plan.listeners {
        if let Place::Unix(socket) = &l.place {
            leavings.0.push(socket.path.clone());
        }
    }
    if let Some(path) = &plan.config.pid_file {
        std::fs::write(path, format!("{}\n", std::process::id())).map_err(|e| {
            format!("Error storing PID: could not write pid file {}: {e}; check its folder", path.display())
        })?;
        leavings.0.push(path.clone());
    }
    let lines = banner(&mut plan, &driver, memory.as_ref());
    start(plan, args, env, storage, home, &lines)
}

fn open_log(config: &Config) -> Result<(), String> {
    telemetry::configure_level(Level::parse(&config.log_level).unwrap_or(Level::Info));
    telemetry::configure_requests_level(reload::requests_level(config));
    if matches!(config.log_format, config::LogFormat::Json) {
        telemetry::set_format(telemetry::Format::Json);
    }
    match &config.log_file {
        None => Ok(()),
        Some(path) => telemetry::set_file(path, rotation(config)).map_err(|e| {
            format!("Error opening log file {}: {e}; check that its folder exists and is writable", path.display())
        }),
    }
}

fn rotation(config: &Config) -> telemetry::Rotation {
    telemetry::Rotation {
        bytes: config.log_rotate_bytes,
        every: config.log_rotate_duration,
        files_max: config.log_rotate_max_files,
    }
}

fn plan(args: &ServerArgs, env: &BTreeMap<String, String>) -> Result<Plan, String> {
    if args.config.is_empty() && args.dev.is_none() {
        return Err("Must specify at least one config path using -config".into());
    }
    if args.recovery {
        return Err("recovery mode is not served yet: start without -recovery".into());
    }
    let (mut config, warnings) = reload::load(args, env)?;
    if config.seals.iter().any(|s| s.kind != config::SealKind::Shamir) {
        return Err(
            "Error parsing Seal configuration: only the shamir seal is served yet; remove the seal stanza".into()
        );
    }
    let driver = driver(env)?;
    let dev_tls = args.dev.as_ref().filter(|d| d.tls).map(dev_tls::make).transpose()?;
    if let (Some(made), Some(first)) = (&dev_tls, config.listeners.first_mut()) {
        first.tls = Some(made.tls.clone());
    }
    let listeners = ports::plan(&config)?;
    let cores = cores(env);
    let api_addr = config.api_addr.clone().unwrap_or_else(|| default_api_addr(&listeners));
    let cluster_addr = config.cluster_addr.clone().unwrap_or_else(|| ports::next_port(&api_addr));
    let cluster = cluster(&config, &listeners, env)?;
    let node_id = match &config.storage {
        Some(config::Storage::Raft(r)) => r.node_id.clone().unwrap_or_else(|| "node1".into()),
        _ => "node1".into(),
    };
    let lockout = config.lockout_of("userpass");
    let settings = Settings {
        ttls: SystemTtls { default: config.default_lease_ttl.as_secs(), max: config.max_lease_ttl.as_secs() },
        user_lockout: UserLockout {
            threshold: lockout.threshold,
            duration: lockout.duration.as_secs(),
            counter_reset: lockout.counter_reset.as_secs(),
            disable: lockout.disabled,
        },
        raw_storage_endpoint: config.raw_storage_endpoint,
        introspection_endpoint: config.introspection_endpoint,
        storage_type: match &config.storage {
            Some(config::Storage::Raft(_)) => "raft".into(),
            Some(config::Storage::File { .. }) => "file".into(),
            _ => "inmem".into(),
        },
        forwards_by_header: config.allow_forwarding_via_header,
        dev: args.dev.is_some(),
        sanitized: sanitized(&config),
        api_addr: api_addr.clone(),
        ..Settings::default()
    };
    let dev = args.dev.is_some();
    let owner = OwnerConfig {
        shards: cores,
        node_id,
        cluster_addr,
        api_addr,
        cluster_name: config.cluster_name.clone(),
        segment_bytes: if dev { 16 << 20 } else { 64 << 20 },
        memory_limit_bytes: memory_limit(env),
        checkpoint_log_bytes: checkpoint_log_bytes(env),
        clustered: cluster.is_some(),
        performance_standby: !config.disable_performance_standby && !config.disable_standby_reads,
        index_wait_ns: u64::try_from(config.index_wait.as_nanos()).unwrap_or(u64::MAX),
        trailing_entries: match &config.storage {
            Some(config::Storage::Raft(r)) => r.trailing_logs,
            _ => OwnerConfig::default().trailing_entries,
        },
        ..OwnerConfig::default()
    };
    Ok(Plan { config, settings, listeners, owner, cluster, cores, driver, dev_tls, warnings })
}

/// Which driver the environment asks for; io_uring where it is allowed, if it says nothing.
fn driver(env: &BTreeMap<String, String>) -> Result<DriverWish, String> {
    match env.get("RINGFENCE_DRIVER").map_or("", String::as_str) {
        "" | "auto" => Ok(DriverWish::Auto),
        "io_uring" => Ok(DriverWish::IoUring),
        "epoll" => Ok(DriverWish::Epoll),
        other => Err(format!("RINGFENCE_DRIVER is {other:?}; use auto, io_uring or epoll")),
    }
}

/// One executor a core the process may run on, at most 64.
fn cores(env: &BTreeMap<String, String>) -> u16 {
    let wished = env.get("RINGFENCE_CORES").and_then(|v| v.parse().ok());
    let there = std::thread::available_parallelism().map_or(1, |n| n.get());
    wished.unwrap_or(there).clamp(1, 64) as u16
}

/// The image may take this much: the environment's word, else two thirds of what the machine has.
fn memory_limit(env: &BTreeMap<String, String>) -> u64 {
    if let Some(n) = env.get("RINGFENCE_MEMORY_LIMIT_BYTES").and_then(|v| v.parse().ok()) {
        return n;
    }
    let total_kib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|t| {
        let line = t.lines().find(|l| l.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    total_kib.map_or(u64::MAX, |kib| kib * 1024 / 3 * 2)
}

/// Log after which a checkpoint is made: more is a longer start after a crash, less is more writing.
fn checkpoint_log_bytes(env: &BTreeMap<String, String>) -> u64 {
    let wished = env.get("RINGFENCE_CHECKPOINT_LOG_BYTES").and_then(|v| v.parse().ok());
    wished.map_or(OwnerConfig::default().checkpoint_log_bytes, |n: u64| n.max(MIN_CHECKPOINT_LOG_BYTES))
}

fn default_api_addr(listeners: &[Listener]) -> String {
    listeners
        .iter()
        .find_map(|l| match &l.place {
            Place::Tcp(a) => Some(format!("{}://{a}", if l.tls.is_some() { "https" } else { "http" })),
            Place::Unix(_) => None,
        })
        .unwrap_or_else(|| "http://127.0.0.1:8200".into())
}

/// What the configuration says of the cluster port; none for storage that has no peers.
fn cluster(
    config: &Config,
    listeners: &[Listener],
    env: &BTreeMap<String, String>,
) -> Result<Option<Cluster>, String> {
    let Some(config::Storage::Raft(raft)) = &config.storage else { return Ok(None) };
    if config.disable_clustering {
        return Ok(None);
    }
    let Some((listen, required)) = ports::cluster(config, listeners)? else { return Ok(None) };
    let targets = raft.retry_join.iter().map(join_target).collect::<Result<_, _>>()?;
    Ok(Some(Cluster {
        listen,
        required,
        targets,
        non_voter: raft.retry_join_as_non_voter,
        certificate_period: certificate_period(env),
        identity: None,
    }))
}

/// How old the certificate of the cluster port may be. Source: Vault renews its own daily.
fn certificate_period(env: &BTreeMap<String, String>) -> Duration {
    let wished = env.get("RINGFENCE_CLUSTER_CERTIFICATE_SECONDS").and_then(|v| v.parse().ok());
    Duration::from_secs(wished.unwrap_or(24 * 60 * 60u64).max(2))
}

fn join_target(join: &config::RetryJoin) -> Result<JoinTarget, String> {
    let pem = |p: &Option<config::Pem>| match p {
        None => Ok(None),
        Some(config::Pem::Text(text)) => Ok(Some(text.clone())),
        Some(config::Pem::File(path)) => std::fs::read_to_string(path)
            .map(Some)
            .map_err(|e| format!("Error reading retry_join: {}: {e}", path.display())),
    };
    let (api_addr, each_address) = match &join.leader {
        config::JoinTarget::Address(api_addr) => (api_addr.clone(), false),
        config::JoinTarget::Discover { text, scheme, port } => {
            let found = ringfence_node::discover(text, scheme, *port);
            (found.map_err(|e| format!("Error parsing retry_join: {e}"))?, true)
        }
    };
    Ok(JoinTarget {
        api_addr,
        ca_pem: pem(&join.leader_ca)?,
        client_cert_pem: pem(&join.leader_client_cert)?,
        client_key_pem: pem(&join.leader_client_key)?.map(ringfence_base::Secret::new),
        server_name: join.leader_tls_servername.clone(),
        each_address,
    })
}

/// The directory's certificate for the cluster port, and the name of a node that the configuration gives none.
fn settle_identity(plan: &mut Plan, directory: &Directory) -> Result<(), String> {
    if let Some(config::Storage::Raft(raft)) = &plan.config.storage
        && raft.node_id.is_none()
    {
        let draw = || ringfence_base::entropy::uuid4(&mut rt::OsEntropy::new());
        plan.owner.node_id =
            crate::peer::node_id(directory.path(), draw).map_err(|e| format!("Error initializing storage: {e}"))?;
    }
    if let Some(cluster) = &mut plan.cluster {
        let identity = Identity::open(directory.path()).map_err(|e| format!("Error initializing storage: {e}"))?;
        plan.owner.pins = identity.announced();
        let mut nonce = [0; 8];
        ringfence_base::Entropy::fill(&mut rt::OsEntropy::new(), &mut nonce);
        let boot = identity.count_start(nonce).map_err(|e| format!("Error initializing storage: {e}"))?;
        cluster.identity = Some((identity, boot));
    }
    Ok(())
}

fn open_storage(config: &Config) -> Result<Storage, String> {
    let path: PathBuf = match &config.storage {
        None => return Err("A storage backend must be specified".into()),
        Some(config::Storage::Inmem) => return Ok(Storage::Memory),
        Some(config::Storage::Raft(r)) => r.path.clone(),
        Some(config::Storage::File { path }) => path.clone(),
    };
    Directory::open(&path).map(Storage::Directory).map_err(|e| e.to_string())
}

/// Reads the directory; a node of several whose directory has lost something comes back as a new member.
fn recover(plan: &Plan, directory: &Directory, env: &BTreeMap<String, String>) -> Result<Home, String> {
    let found = directory.recover();
    if let Ok(Some(f)) = &found
        && let Some(cut) = f.cut()
    {
        telemetry::log(
            Level::Warn,
            &format!(
                "the last write of the log was not whole and was cut: segment {} at {}; the log ends at index {}",
                cut.segment, cut.offset, cut.after
            ),
        );
    }
    let Some((identity, boot)) = plan.cluster.as_ref().and_then(|c| c.identity.as_ref()) else {
        return found.map(Home::found).map_err(|e| format!("Error initializing storage: {e}"));
    };
    let draw = || ringfence_node::owner::fresh_raft_id(&mut rt::OsEntropy::new());
    crate::peer::come_home(directory, identity, *boot, found, draw, repair_patience(env))
        .map_err(|e| if e.starts_with("Error") { e } else { format!("Error initializing storage: {e}") })
}

/// A node that lost data asks the others for so long to take it back, before it stops.
fn repair_patience(env: &BTreeMap<String, String>) -> Duration {
    let wished = env.get("RINGFENCE_REPAIR_PATIENCE_SECONDS").and_then(|v| v.parse().ok());
    wished.map_or(REPAIR_PATIENCE, Duration::from_secs)
}

/// `1m30s`: hours, minutes and seconds from the greatest that is not nought.
fn clock_text(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

/// The lines that a start prints, and that scripts look for.
fn banner(plan: &mut Plan, driver: &rt::DriverChoice, memory: Option<&MemoryLock>) -> Vec<String> {
    let mut rows: Vec<(String, String)> = vec![
        ("Api Address".into(), plan.owner.api_addr.clone()),
        ("Cluster Address".into(), plan.owner.cluster_addr.clone()),
        ("Cores".into(), plan.cores.to_string()),
        ("Driver".into(), format!("{:?}: {}", driver.kind, driver.reason)),
    ];
    for (i, l) in plan.listeners.iter().enumerate() {
        let kind = match &l.place {
            Place::Tcp(_) => "tcp",
            Place::Unix(_) => "unix",
        };
        let tls = if l.tls.is_some() { "enabled" } else { "disabled" };
        let cluster = match (&plan.cluster, i) {
            (Some(c), 0) => format!(" cluster address: \"{}\",", c.listen),
            _ => String::new(),
        };
        rows.push((
            format!("Listener {}", i + 1),
            format!(
                "{kind} (addr: \"{}\",{cluster} max_request_duration: \"{}\", max_request_size: \"{}\", tls: \"{tls}\")",
                l.place,
                clock_text(l.rules.call_timeout.as_secs()),
                l.rules.max_request_bytes
            ),
        ));
    }
    rows.push(("Log Level".into(), plan.config.log_level.clone()));
    let mlock = match memory {
        None => "disabled".to_owned(),
        Some(MemoryLock::Locked) => "locked".to_owned(),
        Some(MemoryLock::NoSwap(why)) => format!("not locked ({why}); no swap is switched on"),
        Some(MemoryLock::Swappable(why)) => format!("not locked ({why}); the machine swaps"),
    };
    rows.push(("Mlock".into(), mlock));
    rows.push(("Storage".into(), plan.settings.storage_type.clone()));
    rows.push((
        "Version".into(),
        format!("Ringfence v{}, speaks Vault v{}", plan.settings.own_version, plan.settings.api_version),
    ));
    let width = rows.iter().map(|(k, _)| k.len()).max().unwrap_or(0);
    let mut out = vec!["==> Vault server configuration:".to_owned(), String::new()];
    out.extend(rows.into_iter().map(|(k, v)| format!("{k:>width$}: {v}")));
    out.push(String::new());
    out
}

fn start(
    mut plan: Plan,
    args: &ServerArgs,
    env: &BTreeMap<String, String>,
    storage: Storage,
    home: Home,
    banner: &[String],
) -> Result<i32, String> {
    let vault = Arc::new(Vault::new(ringfence_node::registry(), plan.settings.clone()));
    let stopping = Arc::new(AtomicBool::new(false));
    let threads = Threads::new();
    let metrics = Metrics::new(plan.cores as usize);
    metrics.set_naming(Naming::of(&plan.config.telemetry));
    let (to_owner, owner_inlet) = channel::unbounded::<ToOwner>();
    let (to_peers, peers_inlet) = channel::unbounded::<ToPeers>();
    let mut to_shards = Vec::new();
    let mut inlets = Vec::new();
    for _ in 0..plan.cores {
        let (tx, rx) = channel::unbounded::<ToShard>();
        to_shards.push(tx);
        inlets.push(rx);
    }
    let mut inlets = inlets.into_iter();
    let first_inlet = inlets.next().ok_or("a server has at least one core")?;
    let wish = plan.driver;
    let options = |core: u16| Options { core: Some(core as usize), driver: wish, ..Options::default() };
    let listeners = plan.listeners.clone();
    let reloader = Arc::new(Reloader::new(args.clone(), env.clone(), listeners.clone(), to_shards.clone()));
    let ca_file = plan.dev_tls.as_ref().map(DevTls::ca_file);
    let telemetry = Arc::new(plan.config.telemetry.clone());
    let shared = Shared {
        vault,
        stopping,
        threads,
        to_owner,
        to_peers,
        to_shards: to_shards.clone(),
        listeners,
        metrics,
        reloader,
        telemetry,
    };

    let (started_tx, started_rx) = mpsc::channel::<Result<Arc<Published>, String>>();
    let (ready_tx, ready_rx) = mpsc::channel::<()>();
    let (owner_config, core0, dev) = (plan.owner.clone(), shared.clone(), args.dev.clone());
    let mut cluster = plan.cluster.take();
    let text = banner.join("\n");
    let main_core = rt::spawn_core(options(0), "core-0", move || async move {
        // before anybody can be answered: a signal to a server that serves is heard, and not its end
        let signals = match rt::signals() {
            Ok(s) => s,
            Err(e) => {
                // the other side only waits for this word
                let _ = started_tx.send(Err(format!("Error starting core 0: signals cannot be had: {e}")));
                return 1;
            }
        };
        // who was taken back is a member, and asks nobody to be let in
        let is_member = matches!(home, Home::Anew { .. });
        let mut owner = match home {
            Home::Found(Some(f)) => Owner::restart(owner_config, core0.vault.clone(), *f, rt::now()),
            Home::Found(None) => Owner::blank(owner_config, core0.vault.clone(), rt::now()),
            Home::Anew { cluster, raft_id, members } => {
                let mut owner = Owner::blank(owner_config, core0.vault.clone(), rt::now());
                owner.come_back(raft_id, members);
                let _ = core0.to_owner.try_send(ToOwner::Join(cluster));
                owner
            }
        };
        let peers = match cluster.as_mut().map(|c| core0.open_cluster_port(c)).transpose() {
            Ok(p) => p,
            Err(e) => {
                // the other side only waits for this word
                let _ = started_tx.send(Err(e));
                return 1;
            }
        };
        if let Some(peers) = &peers {
            rt::spawn_local(peers.clone().serve(peers_inlet));
        } else {
            // whoever passes a call on learns at once that nobody takes it
            drop(peers_inlet);
        }
        if let Some(c) = cluster.filter(|_| !is_member) {
            owner.join_by(c.targets, c.non_voter);
        }
        let published = Arc::new(Published::new(owner.cell()));
        let seen = published.clone();
        let owner_core = OwnerCore::new(
            owner,
            storage,
            published.clone(),
            core0.to_shards.clone(),
            core0.to_owner.clone(),
            core0.threads.clone(),
            core0.metrics.clone(),
            telemetry::statsd::sinks(&core0.telemetry),
            peers,
        );
        let (core, gate) = match core0.core(ShardId(0), published.clone(), first_inlet) {
            Ok(c) => c,
            Err(e) => {
                // the other side only waits for this word
                let _ = started_tx.send(Err(e));
                return 1;
            }
        };
        rt::spawn_local(owner_core.serve(owner_inlet));
        let _ = started_tx.send(Ok(published));
        // the other cores listen before the server says that it is there
        let all = rt::unblock(move || ready_rx.recv().is_ok()).await;
        if !all {
            return 1;
        }
        println!("{text}");
        if let Some(dev) = &dev
            && let Err(e) = crate::dev::prepare(&core, dev, ca_file.as_deref()).await
        {
            eprintln!("Error initializing Dev mode: {e}");
            return 1;
        }
        println!("==> Vault server started! Log data will stream in below:\n");
        core0.until_stopped(signals, &core, &gate, &seen).await
    })
    .map_err(|e| format!("Error starting core 0: {e}"))?;

    let published = started_rx.recv().map_err(|_| "core 0 did not start".to_owned())??;
    let mut others = Vec::new();
    for (i, inlet) in inlets.enumerate() {
        let id = i as u16 + 1;
        let (shared, published) = (shared.clone(), published.clone());
        let (up_tx, up_rx) = mpsc::channel::<Result<(), String>>();
        let handle = rt::spawn_core(options(id), &format!("core-{id}"), move || async move {
            let made = shared.core(ShardId(id), published, inlet);
            let (core, gate) = match made {
                Ok(c) => {
                    let _ = up_tx.send(Ok(()));
                    c
                }
                Err(e) => {
                    let _ = up_tx.send(Err(e));
                    return;
                }
            };
            shared.drain(&core, &gate).await;
        })
        .map_err(|e| format!("Error starting core {id}: {e}"))?;
        up_rx.recv().map_err(|_| format!("core {id} did not start"))??;
        others.push(handle);
    }
    // core 0 waits for this word; it is there
    let _ = ready_tx.send(());
    let code = main_core.join().map_err(|e| format!("core 0 failed: {e}"))?;
    shared.stopping.store(true, Ordering::SeqCst);
    for h in others {
        let _ = h.join();
    }
    Ok(code)
}

/// What all cores share.
#[derive(Clone)]
struct Shared {
    telemetry: Arc<config::Telemetry>,
    metrics: Metrics,
    vault: Arc<Vault>,
    stopping: Arc<AtomicBool>,
    threads: Arc<Threads>,
    to_owner: channel::Sender<ToOwner>,
    to_peers: channel::Sender<ToPeers>,
    to_shards: Vec<channel::Sender<ToShard>>,
    listeners: Vec<Listener>,
    reloader: Arc<Reloader>,
}

impl Shared {
    /// On core 0.
    fn open_cluster_port(&self, cluster: &mut Cluster) -> Result<Rc<Peers>, String> {
        let (identity, boot) = cluster.identity.take().ok_or("a node with peers has a data directory")?;
        let peers = Peers::new(identity, boot, self.to_owner.clone(), self.to_shards.clone())?;
        peers.listen(cluster.listen, cluster.required)?;
        rt::spawn_local(peers.clone().rotate(cluster.certificate_period));
        Ok(peers)
    }

    /// Makes a core, starts its mailbox and its listeners.
    fn core(
        &self,
        id: ShardId,
        published: Arc<Published>,
        inlet: channel::Inlet<ToShard>,
    ) -> Result<(Rc<Core>, Rc<Gate>), String> {
        let facts = Facts::new(self.metrics.clone(), self.reloader.clone());
        let core = Core::new(
            id,
            self.vault.clone(),
            published,
            self.to_owner.clone(),
            self.to_peers.clone(),
            self.to_shards.clone(),
            self.threads.clone(),
            Rc::new(move |name, argument| facts.answer(name, argument)),
            self.metrics.core(id.0 as usize),
        );
        rt::spawn_local(core.clone().serve(inlet));
        let gate = Gate::new(self.stopping.clone());
        for l in &self.listeners {
            if matches!(l.place, Place::Unix(_)) && id != ShardId(0) {
                continue;
            }
            listen::start(&core, &gate, l.clone()).map_err(|e| {
                format!(
                    "Error initializing listener: listen on {}: {e}; if another process has the address, stop it \
                     or choose another",
                    l.place
                )
            })?;
        }
        Ok((core, gate))
    }

    /// Waits for signals; answers the exit code.
    async fn until_stopped(
        &self,
        mut signals: rt::Signals,
        core: &Rc<Core>,
        gate: &Rc<Gate>,
        published: &Published,
    ) -> i32 {
        loop {
            match signals.next().await {
                rt::Signal::Reload => {
                    println!("==> Vault reload triggered");
                    let reloader = self.reloader.clone();
                    rt::unblock(move || reloader.reload()).await;
                }
                rt::Signal::Terminate | rt::Signal::Interrupt => {
                    println!("==> Vault shutdown triggered");
                    self.give_the_lead(published).await;
                    self.stopping.store(true, Ordering::SeqCst);
                    telemetry::close_monitors();
                    self.drain(core, gate).await;
                    return 0;
                }
                _ => {}
            }
        }
    }

    /// The active node of several hands over before it ends: what is under way here is then done there.
    async fn give_the_lead(&self, published: &Published) {
        let leads_others = || {
            let cell = published.cell();
            cell.facts.active && !cell.is_alone()
        };
        if !leads_others() || self.to_owner.try_send(ToOwner::StepDown).is_err() {
            return;
        }
        let mut left = HAND_OVER;
        let step = Duration::from_millis(10);
        while leads_others() && !left.is_zero() {
            rt::sleep(step).await;
            left = left.saturating_sub(step);
        }
    }

    /// Waits until the process ends and this core's calls are answered, or patience is out.
    async fn drain(&self, core: &Rc<Core>, gate: &Rc<Gate>) {
        while !self.stopping.load(Ordering::SeqCst) {
            rt::sleep(Duration::from_millis(100)).await;
        }
        let mut left = DRAIN;
        let step = Duration::from_millis(10);
        while core.in_flight() > 0 && !left.is_zero() {
            rt::sleep(step).await;
            left = left.saturating_sub(step);
        }
        let _ = gate.connections();
    }
}

/// The effective configuration without secrets.
fn sanitized(c: &Config) -> serde_json::Value {
    let storage = match &c.storage {
        Some(config::Storage::Raft(r)) => serde_json::json!({
            "type": "raft", "cluster_addr": c.cluster_addr, "redirect_addr": c.api_addr,
            "disable_clustering": c.disable_clustering,
            "raft": {"path": r.path, "node_id": r.node_id},
        }),
        Some(config::Storage::File { path }) => serde_json::json!({"type": "file", "path": path}),
        _ => serde_json::json!({"type": "inmem"}),
    };
    let listeners: Vec<serde_json::Value> = c
        .listeners
        .iter()
        .map(|l| match &l.address {
            Address::Tcp(a) => {
                serde_json::json!({"type": "tcp", "config": {"address": a, "tls_disable": l.tls.is_none()}})
            }
            Address::Unix { path, .. } => serde_json::json!({"type": "unix", "config": {"address": path}}),
        })
        .collect();
    serde_json::json!({
        "api_addr": c.api_addr, "cluster_addr": c.cluster_addr, "cluster_name": c.cluster_name,
        "default_lease_ttl": c.default_lease_ttl.as_secs(), "max_lease_ttl": c.max_lease_ttl.as_secs(),
        "disable_clustering": c.disable_clustering, "disable_mlock": c.disable_mlock, "log_level": c.log_level,
        "raw_storage_endpoint": c.raw_storage_endpoint, "introspection_endpoint": c.introspection_endpoint,
        "storage": storage, "listeners": listeners, "seals": [{"type": "shamir", "disabled": false}],
    })
}
