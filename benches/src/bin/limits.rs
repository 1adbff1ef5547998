//! Every hot path beside its limit, in one run: `cargo run --release -p ringfence-benches --bin limits`.
//!
//! ```text
//! limits [--quick] [--rounds N] [--only TEXT]... [--no-http]
//!        [--json FILE] [--svg FILE]      the figures, and a plot of them
//!        [--compare FILE]                beside the figures of an earlier run; ends with 1 if one is worse
//!        [--against PROGRAM]             beside another build of this program, by turns; ends with 1 if one is worse
//! ```
//!
//! The limit is what a path cannot do without, or a bare thing of the same shape: raw AES-GCM for what is sealed, a
//! durable write of as many bytes for a commit, a copy of the memory for what packs it, bare hyper for HTTP. Path and
//! limit alternate within a round. When a figure counts as worse stands in `figures.rs`. The committed baseline is
//! `benches/baseline.json`; on another machine the ratios hold better than the times.

use ringfence_barrier::{Keyring, Sealer, Txn};
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{MountId, NsId, Wall};
use ringfence_benches::figures::{self, Budget, Figure};
use ringfence_benches::load::{Load, pin};
use ringfence_benches::node::{self, Node};
use ringfence_benches::serving::{self, Protocol};
use ringfence_node::store::{CheckpointWriter, Version};
use ringfence_node::{Operation, OwnerConfig, Provider, Settings, Shard, ShardOut};
use ringfence_server::cli::{self, Command as Ringfence, io::Io};
use ringfence_vault::host::CoreState;
use ringfence_vault::tables;
use ringfence_vault::token::cutoff::{self, Subject};
use ringfence_vault::token::entry::{TokenEntry, TokenKind};
use ringfence_vault::token::{check, mint};
use serde_json::json;
use std::cell::RefCell;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Writes that are committed together.
const GROUP: u64 = 64;
/// Bytes of the value of records that are sealed and opened.
const VALUE_BYTES: usize = 250;
/// Records of the image that is scanned and packed.
const RECORDS: u32 = 100_000;
const CONNECTIONS: usize = 64;
const LOAD_CPU: usize = 1;

fn main() -> ExitCode {
    let plan = Plan::from_args();
    if let Some(config) = &plan.serve {
        serve_ringfence(config, plan.cpu);
    }
    let dir = std::env::temp_dir().join(format!("ringfence-limits-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the place takes directories");
    let result = match &plan.against {
        Some(other) => against(&plan, other, &dir),
        None => Ok(run(&plan, &dir)).and_then(|figures| report(&plan, &figures)),
    };
    std::fs::remove_dir_all(&dir).expect("the directory was ours");
    match result {
        Ok(0) => ExitCode::SUCCESS,
        Ok(worse) => {
            eprintln!("{worse} figures are worse beyond noise");
            ExitCode::from(1)
        }
        Err(e) => {
            eprintln!("limits: {e}");
            ExitCode::from(2)
        }
    }
}

struct Plan {
    rounds: usize,
    span: Duration,
    quick: bool,
    only: Vec<String>,
    http: bool,
    json: Option<String>,
    svg: Option<String>,
    compare: Option<String>,
    against: Option<String>,
    serve: Option<String>,
    cpu: Option<usize>,
}

impl Plan {
    fn from_args() -> Plan {
        let args: Vec<String> = std::env::args().collect();
        let has = |name: &str| args.iter().any(|a| a == name);
        let after = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
        let quick = has("--quick");
        Plan {
            rounds: after("--rounds").and_then(|n| n.parse().ok()).unwrap_or(if quick { 5 } else { 15 }),
            span: Duration::from_millis(if quick { 40 } else { 150 }),
            quick,
            only: args.windows(2).filter(|w| w[0] == "--only").map(|w| w[1].clone()).collect(),
            http: !has("--no-http"),
            json: after("--json"),
            svg: after("--svg"),
            compare: after("--compare"),
            against: after("--against"),
            serve: after("--serve"),
            cpu: after("--cpu").and_then(|n| n.parse().ok()),
        }
    }

    fn wants(&self, path: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| path.contains(only.as_str()))
    }
}

fn report(plan: &Plan, run: &[Figure]) -> Result<usize, String> {
    print!("{}", figures::to_text(run));
    if let Some(file) = &plan.json {
        std::fs::write(file, figures::to_json(run).to_string() + "\n").map_err(|e| format!("{file}: {e}"))?;
    }
    if let Some(file) = &plan.svg {
        std::fs::write(file, figures::to_svg(run)).map_err(|e| format!("{file}: {e}"))?;
    }
    let Some(file) = &plan.compare else { return Ok(0) };
    let base = read_figures(Path::new(file))?;
    let (table, worse) = figures::compare(&base, run);
    print!("\nbeside {file}:\n{table}");
    Ok(worse)
}

fn read_figures(file: &Path) -> Result<Vec<Figure>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    figures::from_json(&text).map_err(|e| format!("{}: {e}", file.display()))
}

/// Two builds by turns, a short run of each at a time, so that what the machine does in a minute hits both.
fn against(plan: &Plan, other: &str, dir: &Path) -> Result<usize, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let programs = [PathBuf::from(other), own];
    let mut runs: [Vec<Figure>; 2] = [Vec::new(), Vec::new()];
    for round in 0..plan.rounds {
        for turn in 0..2 {
            // who begins alternates too
            let which = (round + turn) % 2;
            let file = dir.join("run.json");
            let mut command = Command::new(&programs[which]);
            command.args(["--rounds", "1", "--json"]).arg(&file).stdout(Stdio::null());
            command.args(plan.only.iter().flat_map(|only| ["--only", only]));
            command.args(plan.quick.then_some("--quick")).args((!plan.http).then_some("--no-http"));
            let status = command.status().map_err(|e| format!("{}: {e}", programs[which].display()))?;
            if !status.success() {
                return Err(format!("{}: {status}", programs[which].display()));
            }
            for figure in read_figures(&file)? {
                let known = runs[which].iter_mut().find(|f| f.path == figure.path && f.limit == figure.limit);
                match known {
                    Some(f) => {
                        f.path_ns.extend(figure.path_ns);
                        f.limit_ns.extend(figure.limit_ns);
                    }
                    None => runs[which].push(figure),
                }
            }
        }
    }
    let [base, now] = &runs;
    report(plan, now)?;
    let (table, worse) = figures::compare(base, now);
    print!("\nbeside {other}, by turns:\n{table}");
    Ok(worse)
}

/// Measures for about a span; answers nanoseconds of one.
type Measure<'m> = Box<dyn FnMut(Duration) -> f64 + 'm>;

struct Pair<'m> {
    figure: Figure,
    path: Measure<'m>,
    limit: Measure<'m>,
}

fn run(plan: &Plan, dir: &Path) -> Vec<Figure> {
    let world = World::new(&dir.join("node"));
    let engine = RefCell::new(Engine::new(&dir.join("engine"), false));
    let durable = RefCell::new(Engine::new(&dir.join("durable"), true));
    let remote = plan.http.then(|| Remotes::new(plan, dir));
    let mut pairs = Pairs { plan, all: Vec::new() };
    world.sealing(&mut pairs);
    world.tokens(&mut pairs);
    world.image(&mut pairs);
    Engine::pairs(&engine, &durable, &world, dir, &mut pairs);
    if let Some(remote) = &remote {
        remote.pairs(&mut pairs);
    }
    let mut all = pairs.all;
    for round in 0..plan.rounds {
        for pair in &mut all {
            // what comes first alternates
            let (path, limit) = if round % 2 == 0 {
                let path = (pair.path)(plan.span);
                (path, (pair.limit)(plan.span))
            } else {
                let limit = (pair.limit)(plan.span);
                ((pair.path)(plan.span), limit)
            };
            pair.figure.path_ns.push(path);
            pair.figure.limit_ns.push(limit);
        }
    }
    all.into_iter().map(|p| p.figure).collect()
}

struct Pairs<'p, 'm> {
    plan: &'p Plan,
    all: Vec<Pair<'m>>,
}

impl<'m> Pairs<'_, 'm> {
    fn add(
        &mut self,
        path: &str,
        limit: &str,
        budget: Budget,
        measure: impl FnMut(Duration) -> f64 + 'm,
        limit_measure: impl FnMut(Duration) -> f64 + 'm,
    ) {
        if self.plan.wants(path) {
            let figure = Figure::new(path, limit, budget);
            self.all.push(Pair { figure, path: Box::new(measure), limit: Box::new(limit_measure) });
        }
    }
}

/// Nanoseconds of one call of `op`, called for about a span.
fn timed(span: Duration, mut op: impl FnMut()) -> f64 {
    // the clock is asked once in so many calls
    let mut batch = 1u64;
    let (from, mut calls) = (Instant::now(), 0u64);
    loop {
        let began = Instant::now();
        (0..batch).for_each(|_| op());
        calls += batch;
        let (took, whole) = (began.elapsed(), from.elapsed());
        if whole >= span {
            return whole.as_nanos() as f64 / calls as f64;
        }
        if took < span / 50 {
            batch *= 2;
        }
    }
}

/// An unsealed node's version, keys and a licence to seal, to call what stands below the pipeline.
struct World {
    plain: Version,
    /// With cut-offs of others.
    cut: Version,
    keyring: Arc<Keyring>,
    sealer: RefCell<Sealer>,
    core: Rc<CoreState>,
    now: Wall,
    image: Version,
}

/// Cut-offs of each kind that stand when the verification of a batch token is measured beside them.
const CUT_OFFS: u32 = 50_000;

/// Cuts off the batch tokens of entities and roles that the measured token has nothing to do with.
fn cut_off_others(node: &mut Node) {
    const AT_ONCE: u32 = 500;
    for first in (0..CUT_OFFS).step_by(AT_ONCE as usize) {
        // each counts on from the one before, so it has to see it
        node.until(Duration::from_secs(60), |node| node.gauges().pending == 0);
        node.write(|txn, _, _, _| {
            for n in first..first + AT_ONCE {
                let entity = Subject::Entity(format!("00000000-0000-4000-8000-{n:012}"));
                let role = Subject::Role(MountId(1 + n % 100), format!("role-{n}"));
                for subject in [entity, role] {
                    cutoff::cut_off(txn, NsId::ROOT, &subject).expect("nothing stands in its way");
                }
            }
        });
    }
}

impl World {
    fn new(dir: &Path) -> World {
        let mut node = Node::open(dir, config()).expect("a new directory");
        let (_, root) = node.begin();
        let (vault, published, _) = node.beside();
        let cell = || published.lock().expect("nobody panics with it").clone();
        let plain = cell().version.clone();
        let data = json!({"entity_id": "00000000-0000-4000-8000-ffffffffffff"});
        node.must(Operation::Update, "auth/token/revoke-batch", &root, data);
        cut_off_others(&mut node);
        node.until(Duration::from_secs(60), |node| node.gauges().pending == 0);
        let keys = cell().keys.clone().expect("unsealed");
        let mut sealer = keys.licences.take(1).expect("each core has one");
        let cut = cell().version.clone();
        assert!(cut.count_prefix(&[tables::CUTOFF]) > 2 * u64::from(CUT_OFFS), "all of them stand");
        let image = image(&plain, &keys.keyring, &mut sealer);
        let (now, sealer) = (cut.log_time(), RefCell::new(sealer));
        World { plain, cut, keyring: keys.keyring, sealer, core: CoreState::new(vault), now, image }
    }

    fn sealing<'m>(&'m self, pairs: &mut Pairs<'_, 'm>) {
        let key = record_key(1);
        let plain = vec![0x5a; VALUE_BYTES];
        let raw = Provider::AwsLc.aead_key(&[7; 32]);
        let mut buf = plain.clone();
        pairs.add(
            "record sealed, 250 B",
            "raw AES-GCM",
            Budget::None,
            {
                let (key, plain) = (key.clone(), plain.clone());
                move |span| {
                    timed(span, || drop(black_box(self.sealer.borrow_mut().seal(&key, b"", black_box(&plain)))))
                }
            },
            move |span| {
                timed(span, || {
                    black_box(raw.seal_in_place(&[1; 12], &[2; 70], black_box(&mut buf)));
                })
            },
        );
        let record = self.sealer.borrow_mut().seal(&key, b"", &plain);
        let raw = Provider::AwsLc.aead_key(&[7; 32]);
        let mut sealed = plain;
        let tag = raw.seal_in_place(&[1; 12], &[2; 70], &mut sealed);
        pairs.add(
            "record opened, 250 B",
            "raw AES-GCM",
            Budget::None,
            move |span| {
                timed(span, || {
                    drop(black_box(self.keyring.open(&self.plain, &key, black_box(&record)).expect("opens")))
                })
            },
            move |span| timed(span, || drop(black_box(raw.open(&[1; 12], &[2; 70], black_box(&sealed), &tag)))),
        );
    }

    /// Batch tokens as the promise names them: three policies of 16 characters, one pair of metadata.
    fn tokens<'m>(&'m self, pairs: &mut Pairs<'_, 'm>) {
        let mut txn = Txn::new(&self.plain, Some(&self.keyring));
        let settings = Settings::default();
        let router = self.core.caches.borrow_mut().router(&mut txn, &settings.ttls).expect("mounts are read");
        let entry = TokenEntry {
            kind: TokenKind::Batch,
            ns: NsId::ROOT,
            mount: router.at(&txn, NsId::ROOT, "auth/token/").expect("it opens").expect("always there").entry.id,
            policies: (0..3).map(|n| format!("policy-number-{n:02}")).collect(),
            path: "auth/approle/login".into(),
            meta: Some([("role_name".to_owned(), "worker".to_owned())].into()),
            display_name: "approle".into(),
            created: self.now,
            creation_ttl: 3600,
            due: self.now.plus_seconds(3600),
            entity_id: "0123abcd-0000-4000-8000-0123456789ab".into(),
            role: "worker".into(),
            ..TokenEntry::default()
        };
        let raw = mint::batch(&mut txn, &self.sealer, &router, &mut entry.clone()).expect("minted");
        println!("a batch token with three policies of 16 characters and one pair of metadata: {} bytes", raw.len());
        assert!(raw.len() <= 300, "the promise");
        let sealed_bytes = raw.len() * 3 / 4;
        let key = Provider::AwsLc.aead_key(&[7; 32]);
        let mut buf = vec![0x5a; sealed_bytes];
        {
            let router = router.clone();
            let mut entry = entry;
            pairs.add(
                "batch token minted",
                "raw AES-GCM",
                Budget::Ns(2000.0),
                move |span| {
                    timed(span, || {
                        let mut txn = Txn::new(&self.plain, Some(&self.keyring));
                        black_box(mint::batch(&mut txn, &self.sealer, &router, &mut entry).expect("minted"));
                    })
                },
                move |span| {
                    timed(span, || {
                        black_box(key.seal_in_place(&[1; 12], &[2; 29], black_box(&mut buf)));
                    })
                },
            );
        }
        let verify = move |version: &'m Version, raw: String, router: Arc<ringfence_vault::mount::Router>| {
            move |span| {
                timed(span, || {
                    let mut txn = Txn::new(version, Some(&self.keyring));
                    let held = check::authenticate(&mut txn, &self.keyring, &router, black_box(&raw), self.now, None);
                    black_box(held.expect("a living token"));
                })
            }
        };
        let key = Provider::AwsLc.aead_key(&[7; 32]);
        let mut sealed = vec![0x5a; sealed_bytes];
        let tag = key.seal_in_place(&[1; 12], &[2; 29], &mut sealed);
        pairs.add(
            "batch token verified",
            "raw AES-GCM",
            Budget::Ns(1500.0),
            verify(&self.plain, raw.clone(), router.clone()),
            move |span| timed(span, || drop(black_box(key.open(&[1; 12], &[2; 29], black_box(&sealed), &tag)))),
        );
        let after = mint::batch(
            &mut Txn::new(&self.cut, Some(&self.keyring)),
            &self.sealer,
            &router,
            &mut check_entry(&raw, &self.plain, &self.keyring, &router, self.now),
        );
        let mut txn = Txn::new(&self.cut, Some(&self.keyring));
        let cut_router = self.core.caches.borrow_mut().router(&mut txn, &settings.ttls).expect("mounts are read");
        pairs.add(
            "batch token verified, 100,000 cut-offs stand",
            "the same without any",
            Budget::Ratio(1.2),
            verify(&self.cut, after.expect("minted"), cut_router),
            verify(&self.plain, raw, router),
        );
    }

    fn image<'m>(&'m self, pairs: &mut Pairs<'_, 'm>) {
        let bytes: usize = self.image.scan_prefix(&[0x90]).map(|(k, v)| k.len() + v.len()).sum();
        pairs.add(
            "100,000 records scanned",
            "copy of their memory",
            Budget::None,
            move |span| {
                timed(span, || {
                    black_box(
                        self.image
                            .scan_prefix(&[0x90])
                            .fold(0usize, |sum, (k, v)| sum.wrapping_add(k.len() + usize::from(v[0]))),
                    );
                })
            },
            copying(bytes),
        );
        pairs.add(
            "100,000 records packed into a checkpoint",
            "copy of their memory",
            Budget::None,
            move |span| {
                timed(span, || {
                    let mut writer = CheckpointWriter::new(self.image.clone(), None);
                    while let Some(chunk) = writer.next_chunk() {
                        black_box(chunk);
                    }
                })
            },
            copying(bytes),
        );
    }
}

/// Copies so many bytes of memory.
fn copying(bytes: usize) -> impl FnMut(Duration) -> f64 {
    let from = vec![0x5a_u8; bytes];
    let mut to = vec![0_u8; bytes];
    move |span| {
        timed(span, || {
            to.copy_from_slice(black_box(&from));
            black_box(&to);
        })
    }
}

fn check_entry(
    raw: &str,
    version: &Version,
    keyring: &Keyring,
    router: &ringfence_vault::mount::Router,
    now: Wall,
) -> TokenEntry {
    let mut txn = Txn::new(version, Some(keyring));
    check::authenticate(&mut txn, keyring, router, raw, now, None).expect("a living token").entry
}

fn record_key(n: u32) -> Vec<u8> {
    [&[0x90, 0, 0, 0, 7][..], format!("app/team-{:02}/service-{n:06}/config", n % 50).as_bytes()].concat()
}

/// An image of many sealed records above what a node holds.
fn image(version: &Version, keyring: &Keyring, sealer: &mut Sealer) -> Version {
    let mut image = ringfence_node::store::Image::new();
    for chunk in 0..RECORDS / 1000 {
        let mut txn = Txn::new(version, Some(keyring));
        (0..1000).for_each(|i| txn.put(record_key(chunk * 1000 + i), b"", &[0x5a; VALUE_BYTES]));
        let batch = txn.finish(sealer, Wall(2)).expect("within limits").batch.expect("writes");
        image.apply(ringfence_base::Index(u64::from(chunk) + 1), &batch);
    }
    image.publish()
}

fn config() -> OwnerConfig {
    OwnerConfig { shards: node::CORES, ..OwnerConfig::default() }
}

/// A node that is called through its shard and its owner.
struct Engine {
    node: Node,
    root: String,
    /// A second shard, which only reads.
    reader: Shard,
    rng: SeededEntropy,
    tag: u64,
    flushes: bool,
}

impl Engine {
    fn new(dir: &Path, flushes: bool) -> Engine {
        let mut node = Node::open(dir, config()).expect("a new directory");
        if flushes {
            node.flush_writes();
        }
        let (_, root) = node.begin();
        let kv = json!({"type": "kv", "options": {"version": "1"}});
        let leased = json!({"type": "kv", "options": {"version": "1", "leased_passthrough": "true"}});
        node.must(Operation::Update, "sys/mounts/kv", &root, kv);
        node.must(Operation::Update, "sys/mounts/leased", &root, leased);
        for n in 0..1000 {
            node.must(Operation::Update, &format!("kv/app/{n}"), &root, json!({"value": "x".repeat(200)}));
        }
        node.must(Operation::Update, "leased/creds", &root, json!({"password": "0123456789abcdef", "ttl": "1h"}));
        let (vault, published, _) = node.beside();
        let cell = published.lock().expect("nobody panics with it").clone();
        Engine { reader: Shard::new(1, vault, cell), node, root, rng: SeededEntropy(3), tag: 0, flushes }
    }

    fn pairs<'m>(
        plain: &'m RefCell<Engine>,
        durable: &'m RefCell<Engine>,
        world: &'m World,
        dir: &Path,
        pairs: &mut Pairs<'_, 'm>,
    ) {
        let opened = || {
            let record = world.sealer.borrow_mut().seal(&record_key(1), b"", &[0x5a; VALUE_BYTES]);
            move |span| {
                timed(span, || {
                    drop(black_box(world.keyring.open(&world.plain, &record_key(1), &record).expect("opens")));
                })
            }
        };
        pairs.add(
            "key-value read in the engine",
            "opening its record",
            Budget::None,
            |span| plain.borrow_mut().reads(span),
            opened(),
        );
        let sealed = || {
            move |span| {
                timed(span, || {
                    drop(black_box(world.sealer.borrow_mut().seal(&record_key(1), b"", &[0x5a; VALUE_BYTES])));
                })
            }
        };
        pairs.add(
            "key-value write in the engine",
            "sealing its record",
            Budget::None,
            |span| plain.borrow_mut().writes(span),
            sealed(),
        );
        pairs.add(
            "lease created in the engine",
            "sealing its record",
            Budget::Ns(10_000.0),
            |span| plain.borrow_mut().leases(span),
            sealed(),
        );
        let bytes = durable.borrow_mut().group_bytes();
        pairs.add(
            "64 writes committed together",
            "a durable write of as many bytes",
            Budget::None,
            |span| durable.borrow_mut().writes(span) * GROUP as f64,
            raw_durable(&dir.join("raw"), bytes),
        );
    }

    /// Nanoseconds of a read of a shard that nothing else is asked of.
    fn reads(&mut self, span: Duration) -> f64 {
        let (_, published, clock) = self.node.beside();
        self.reader.observe(published.lock().expect("nobody panics with it").clone());
        let (now, mut out) = (clock.now(), Vec::new());
        timed(span, || {
            self.tag += 1;
            let path = format!("kv/app/{}", self.tag % 1000);
            let call = node::call(&mut self.rng, Operation::Read, &path, &self.root, json!(null));
            self.reader.call(self.tag, call, now, &mut self.rng, &mut out);
            assert!(matches!(&out[..], [ShardOut::Reply(_, r)] if node::is_good(r)), "answered at once");
            out.clear();
        })
    }

    /// Nanoseconds of a write, so many being under way that a commit takes [`GROUP`] of them.
    fn writes(&mut self, span: Duration) -> f64 {
        let root = self.root.clone();
        let data = json!({"value": "x".repeat(200)});
        self.stream(span, |rng, n| {
            node::call(rng, Operation::Update, &format!("kv/app/{}", n % 1000), &root, data.clone())
        })
    }

    fn leases(&mut self, span: Duration) -> f64 {
        let root = self.root.clone();
        self.stream(span, |rng, _| node::call(rng, Operation::Read, "leased/creds", &root, json!(null)))
    }

    fn stream(
        &mut self,
        span: Duration,
        mut next: impl FnMut(&mut SeededEntropy, u64) -> ringfence_node::Call,
    ) -> f64 {
        let (from, mut n) = (Instant::now(), 0);
        let (mut calls, mut cpu, mut time) = (0, Duration::ZERO, Duration::ZERO);
        while from.elapsed() < span {
            let took = self.node.stream(
                GROUP * 4,
                GROUP,
                |rng| {
                    n += 1;
                    next(rng, n)
                },
                |_| {},
            );
            calls += took.calls;
            cpu += took.cpu;
            time += took.time;
        }
        // what waits for the disk is measured by the clock, what does not by what it costs its core
        if self.flushes { time } else { cpu }.as_nanos() as f64 / calls as f64
    }

    /// Bytes of log that a commit of [`GROUP`] writes takes.
    fn group_bytes(&mut self) -> usize {
        let (bytes, writes) = self.node.log_written();
        self.writes(Duration::from_millis(100));
        let (after, writes_after) = self.node.log_written();
        ((after - bytes) / (writes_after - writes).max(1)) as usize
    }
}

/// Durable writes into a zero-filled file, round and round, as the log's are.
fn raw_durable(file: &Path, bytes: usize) -> impl FnMut(Duration) -> f64 + use<> {
    const FILE_BYTES: usize = 32 << 20;
    let mut options = std::fs::File::options();
    let file = options.create(true).truncate(true).write(true).custom_flags(libc::O_DSYNC).open(file);
    let file = file.expect("the directory takes files");
    for at in (0..FILE_BYTES).step_by(1 << 20) {
        file.write_all_at(&[0; 1 << 20], at as u64).expect("there is room");
    }
    let bytes = bytes.next_multiple_of(4096);
    let data = vec![0x5a; bytes];
    let mut at = 0;
    move |span| {
        timed(span, || {
            if at + bytes > FILE_BYTES {
                at = 0;
            }
            file.write_all_at(&data, at as u64).expect("the disk takes it");
            at += bytes;
        })
    }
}

/// Servers that are asked over HTTP.
struct Remotes {
    one: RefCell<Remote>,
    two: RefCell<Remote>,
    warm_up: Duration,
}

impl Remotes {
    fn new(plan: &Plan, dir: &Path) -> Remotes {
        let warm_up = Duration::from_millis(if plan.quick { 30 } else { 80 });
        let start = |name: &str, cores| RefCell::new(Remote::start(&dir.join(name), cores));
        Remotes { one: start("one", 1), two: start("two", 2), warm_up }
    }

    fn pairs<'m>(&'m self, pairs: &mut Pairs<'_, 'm>) {
        let warm_up = self.warm_up;
        let bare = move |server, protocol| {
            move |span| serving::measure(server, protocol, CONNECTIONS, warm_up, span).cpu_us * 1e3
        };
        for protocol in Protocol::ALL {
            pairs.add(
                &format!("{} answered by hyper on our runtime, CPU", protocol.name()),
                "hyper on tokio",
                Budget::Ratio(1.0),
                bare(serving::Server::Ring, protocol),
                bare(serving::Server::Tokio, protocol),
            );
            let rate = move |server| {
                move |span| 1e9 / serving::measure(server, protocol, CONNECTIONS, warm_up, span).per_second
            };
            pairs.add(
                &format!("{} answered by hyper on our runtime, time", protocol.name()),
                "hyper on tokio",
                Budget::Ratio(1.0),
                rate(serving::Server::Ring),
                rate(serving::Server::Tokio),
            );
        }
        pairs.add(
            "key-value read over HTTP/1.1, CPU",
            "hyper on our runtime, a shorter answer",
            Budget::None,
            move |span| self.one.borrow_mut().reads(warm_up, span),
            bare(serving::Server::Ring, Protocol::Http1),
        );
        pairs.add(
            "key-value read over HTTP/1.1, two shards, CPU",
            "one shard",
            // nine tenths of the requests of a second of CPU
            Budget::Ratio(1.0 / 0.9),
            move |span| self.two.borrow_mut().reads(warm_up, span),
            move |span| self.one.borrow_mut().reads(warm_up, span),
        );
        pairs.add(
            "key-value write over HTTP/1.1, two shards, CPU",
            "one shard",
            Budget::Ratio(1.0 / 0.9),
            move |span| self.two.borrow_mut().writes(warm_up, span),
            move |span| self.one.borrow_mut().writes(warm_up, span),
        );
    }
}

/// The whole server in a process of its own.
struct Remote {
    child: Child,
    addr: SocketAddr,
    token: String,
}

impl Remote {
    fn start(dir: &Path, cores: usize) -> Remote {
        std::fs::create_dir_all(dir).expect("the place takes directories");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let config = dir.join("server.hcl");
        let text = format!(
            "storage \"raft\" {{\n  path = \"{}\"\n  node_id = \"n1\"\n}}\nlistener \"tcp\" {{\n  address = \
             \"127.0.0.1:{port}\"\n  tls_disable = true\n}}\napi_addr = \"http://127.0.0.1:{port}\"\ncluster_addr = \
             \"http://127.0.0.1:1\"\n",
            dir.join("data").display()
        );
        std::fs::write(&config, text).expect("written");
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.arg("--serve").arg(&config).env("RINGFENCE_CORES", cores.to_string());
        if cores == 1 {
            command.args(["--cpu", "0"]);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts again");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("server started") {
            line.clear();
            assert!(out.read_line(&mut line).expect("a pipe") > 0, "the server has ended at its start");
        }
        // what it says later must not fill the pipe
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let mut remote = Remote { child, addr: SocketAddr::from(([127, 0, 0, 1], port)), token: String::new() };
        let made = remote.ask("PUT", "sys/init", &json!({"secret_shares": 1, "secret_threshold": 1}));
        made["root_token"].as_str().expect("a token").clone_into(&mut remote.token);
        remote.ask("PUT", "sys/unseal", &json!({"key": made["keys_base64"][0]}));
        remote.ask("POST", "sys/mounts/kv", &json!({"type": "kv", "options": {"version": "1"}}));
        for n in 0..100 {
            remote.ask("POST", &format!("kv/app/{n}"), &json!({"value": "x".repeat(200)}));
        }
        let policy = "path \"kv/*\" { capabilities = [\"create\", \"read\", \"update\"] }";
        remote.ask("POST", "sys/policies/acl/app", &json!({"policy": policy}));
        let made = remote.ask("POST", "auth/token/create", &json!({"type": "batch", "policies": ["app"]}));
        made["auth"]["client_token"].as_str().expect("a token").clone_into(&mut remote.token);
        remote
    }

    fn head(&self, method: &str, path: &str, body: &str) -> String {
        format!(
            "{method} /v1/{path} HTTP/1.1\r\nhost: localhost\r\nx-vault-token: {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        )
    }

    /// One request on a connection of its own.
    fn ask(&self, method: &str, path: &str, body: &serde_json::Value) -> serde_json::Value {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut stream = loop {
            match TcpStream::connect(self.addr) {
                Ok(stream) => break stream,
                Err(e) => assert!(Instant::now() < deadline, "the server listens: {e}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.write_all(self.head(method, path, &body.to_string()).as_bytes()).expect("connected");
        let (mut answer, mut buf) = (Vec::new(), [0; 8192]);
        loop {
            let got = stream.read(&mut buf).expect("connected");
            answer.extend_from_slice(&buf[..got]);
            let empty = answer.starts_with(b"HTTP/1.1 204") && answer.ends_with(b"\r\n\r\n");
            if got == 0 || empty || answer.ends_with(b"}\n") {
                break;
            }
        }
        let told = String::from_utf8_lossy(&answer);
        assert!(told.starts_with("HTTP/1.1 20"), "{path}: {told}");
        let body = told.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or_default()
    }

    fn reads(&mut self, warm_up: Duration, span: Duration) -> f64 {
        let mut n = 0;
        let head = |n| self.head("GET", &format!("kv/app/{n}"), "");
        let requests: Vec<String> = (0..100).map(head).collect();
        self.load(warm_up, span, &mut |out| {
            n += 1;
            out.extend_from_slice(requests[n % requests.len()].as_bytes());
        })
    }

    /// Writes answer without a body, which the load does not know the end of; so each is a token that is created.
    fn writes(&mut self, warm_up: Duration, span: Duration) -> f64 {
        let request = self.head("POST", "sys/wrapping/wrap", "{\"value\":\"0123456789\"}");
        let request = request.replacen("x-vault-token", "x-vault-wrap-ttl: 600\r\nx-vault-token", 1);
        self.load(warm_up, span, &mut |out| out.extend_from_slice(request.as_bytes()))
    }

    fn load(&self, warm_up: Duration, span: Duration, next: &mut (dyn FnMut(&mut Vec<u8>) + Send)) -> f64 {
        let (addr, process) = (self.addr, self.child.id());
        // on a thread of its own: the measuring one is not bound to a CPU
        std::thread::scope(|scope| {
            let loaded = scope.spawn(move || {
                pin(LOAD_CPU);
                Load::connect(addr, CONNECTIONS).run(next, warm_up, span, process).cpu_us() * 1e3
            });
            loaded.join().expect("the load runs")
        })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // one that has ended by itself is fine too
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The role of the server: the whole program, as its command line starts it.
fn serve_ringfence(config: &str, cpu: Option<usize>) -> ! {
    if let Some(cpu) = cpu {
        pin(cpu);
    }
    let words = ["ringfence".to_owned(), "server".to_owned(), format!("-config={config}")];
    let (mut stdin, mut stdout, mut stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut io = Io::of_process(&mut stdin, &mut stdout, &mut stderr);
    std::process::exit(match cli::run(&words, &mut io) {
        Ringfence::Exit(code) => code,
        Ringfence::Server(args) => ringfence_server::boot::run(&args, &io.env),
    })
}
