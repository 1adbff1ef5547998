//! Leases by the million in the real engine: owner, shard and data directory in this process, without HTTP.
//!
//! Half of them are leases of secrets on many mounts, held by many tokens; half are service tokens, whose record is their
//! own lease. Printed is what each costs beside its budget: memory, disk, restart, unseal, creation, renewal, expiry,
//! mass revocation, listing.
//!
//! `cargo bench -p ringfence-benches --bench leases` takes 200,000 leases; `LEASES=10000000` in the environment is the
//! full run, which needs 16 GB of memory and of disk. `DIRECTORY` names another place for the data. Log writes are not
//! flushed here: what is measured is the engine.

use ringfence_base::entropy::{self, SeededEntropy};
use ringfence_base::{MountId, NsId, Writer};
use ringfence_benches::node::{self, Clock, Node, Published, thread_cpu};
use ringfence_benches::table::{config, directory, force_checkpoint, resident, told};
use ringfence_node::store::{ChunkReader, Manifest};
use ringfence_node::{Call, Operation, Settings, Shard, ShardOut, Vault};
use ringfence_vault::host::CoreState;
use ringfence_vault::lease::{self, LeaseEntry};
use ringfence_vault::tables::{self, Hash};
use ringfence_vault::token::entry::TokenEntry;
use ringfence_vault::token::{ACCESSOR_HASH, TOKEN_HASH, check};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Mounts whose reads yield leases.
const MOUNTS: u64 = 20;
/// Secrets of each mount.
const SECRETS: u64 = 50;
/// Tokens that hold leases and have children.
const OWNERS: u64 = 500;
/// Of each half, so many are made through the pipeline; the rest is written in batches, with records like theirs.
const THROUGH: u64 = 100_000;
/// Calls under way at a time.
const UNDER_WAY: u64 = 256;
/// Longest life of most leases and of those that are to expire, seconds.
const LONG: &str = "24h";
const SHORT_SECONDS: u64 = 6 * 3600;
/// How long any part may take.
const PATIENCE: Duration = Duration::from_secs(900);

fn main() {
    let count: u64 = std::env::var("LEASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let dir = directory("leases");
    let mut bench = Bench::begin(&dir, count);
    bench.populate();
    bench.renew();
    bench.list();
    bench.checkpoint();
    bench.restart();
    bench.mass_revocations();
    bench.expire();
    drop(bench);
    std::fs::remove_dir_all(&dir).expect("the directory was ours");
}

struct Bench {
    node: Option<Node>,
    dir: PathBuf,
    count: u64,
    share: String,
    root: String,
    owners: Vec<String>,
    /// The token that holds a tenth of all.
    big: String,
    ids: Vec<String>,
    /// Memory per lease is checked against what it was before any.
    before: u64,
}

impl Bench {
    fn begin(dir: &Path, count: u64) -> Bench {
        let mut node = Node::open(dir, config()).expect("a new directory");
        let (share, root) = node.begin();
        let leased = json!({"type": "kv", "options": {"version": "1", "leased_passthrough": "true"}});
        let special = ["prefix", "token", "mount", "short"].map(str::to_owned);
        for mount in (0..MOUNTS).map(|m| format!("m{m}")).chain(special) {
            node.must(Operation::Update, &format!("sys/mounts/{mount}"), &root, leased.clone());
            let short = mount == "short";
            let ttl = if short { format!("{SHORT_SECONDS}s") } else { LONG.to_owned() };
            for s in 0..SECRETS {
                let secret = json!({"password": "0123456789abcdef0123456789abcdef", "ttl": ttl});
                node.must(Operation::Update, &format!("{mount}/database/creds/role-{s}"), &root, secret);
            }
        }
        node.must(Operation::Update, "sys/mounts/kv", &root, json!({"type": "kv", "options": {"version": "1"}}));
        for n in 0..1000 {
            node.must(Operation::Update, &format!("kv/app/{n}"), &root, json!({"value": "x".repeat(100)}));
        }
        let policy = "path \"*\" { capabilities = [\"create\", \"read\", \"update\", \"list\"] }";
        node.must(Operation::Update, "sys/policies/acl/worker", &root, json!({"policy": policy}));
        let mut owner = || {
            let ask = json!({"policies": ["worker"], "ttl": "30h"});
            let v = node.must(Operation::Update, "auth/token/create", &root, ask);
            v["auth"]["client_token"].as_str().expect("a token").to_owned()
        };
        let owners = (0..OWNERS).map(|_| owner()).collect();
        let big = owner();
        let before = resident();
        println!("{count} leases: half of secrets on {MOUNTS} mounts, half service tokens, {OWNERS} holders\n");
        println!("| what | measured | budget |\n|---|---|---|");
        Bench { node: Some(node), dir: dir.to_owned(), count, share, root, owners, big, ids: Vec::new(), before }
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("a node runs between the parts")
    }

    fn populate(&mut self) {
        let (half, part) = (self.count / 2, self.part());
        let Bench { node, owners, big, ids, root, .. } = self;
        let node = node.as_mut().expect("a node");
        let through = THROUGH.min(half);
        let mut n = 0u64;
        let mut secrets = |node: &mut Node, count: u64, mount: Option<&str>, holder: Option<&str>| {
            node.stream(
                count,
                UNDER_WAY,
                |rng| {
                    n += 1;
                    let own = format!("m{}", n % MOUNTS);
                    let path = format!("{}/database/creds/role-{}", mount.unwrap_or(&own), n / MOUNTS % SECRETS);
                    let token = holder.unwrap_or(&owners[(n % OWNERS) as usize]);
                    node::call(rng, Operation::Read, &path, token, json!(null))
                },
                |reply| {
                    if ids.len() < 100_000 && mount.is_none() {
                        ids.push(node::body(reply)["lease_id"].as_str().expect("a lease").to_owned());
                    }
                },
            )
        };
        // some of each kind through the pipeline; their records are the patterns of the rest
        let few = through / 10;
        let special = [("prefix", None), ("token", Some(big.as_str())), ("mount", None), ("short", None)];
        let mut all = secrets(node, few.min(part), Some(special[0].0), None);
        for (mount, holder) in &special[1..] {
            all = all.and(secrets(node, few.min(part), Some(mount), *holder));
        }
        let rest = through - 4 * few.min(part);
        all = all.and(secrets(node, rest, None, None));
        let bulk = Bulk::new(node, owners, big);
        for (mount, _) in special {
            bulk.leases(node, part - few.min(part), &[mount.to_owned()], mount == "token");
        }
        let mounts: Vec<String> = (0..MOUNTS).map(|m| format!("m{m}")).collect();
        bulk.leases(node, half - 4 * part - rest, &mounts, false);
        force_checkpoint(node, root);
        told("leases of secrets created in a second of a core", all.per_core_second(), "/s", "at least 100,000");
        settle_memory(node);
        let secrets_resident = resident();
        let per = (secrets_resident - self.before.min(secrets_resident)) as f64 / half as f64;
        told("resident bytes a lease of a secret", per, "B", "at most 400");

        let mut n = 0u64;
        let took = node.stream(
            through,
            UNDER_WAY,
            |rng| {
                n += 1;
                let ask = json!({"policies": ["default"], "ttl": LONG});
                node::call(rng, Operation::Update, "auth/token/create", &owners[(n % OWNERS) as usize], ask)
            },
            |_| {},
        );
        Bulk::new(node, owners, big).tokens(node, half - through);
        force_checkpoint(node, root);
        told("service tokens created in a second of a core", took.per_core_second(), "/s", "at least 100,000");
        settle_memory(node);
        let per = (resident() - secrets_resident.min(resident())) as f64 / half as f64;
        told("resident bytes a service token (record, accessor, lease)", per, "B", "at most 400");
        let gauges = node.gauges();
        assert!(gauges.leases >= self.count, "all of them were committed: {gauges:?}");
        let per = (resident() - self.before) as f64 / gauges.leases as f64;
        told("resident bytes a lease, all together", per, "B", "at most 400");
    }

    fn renew(&mut self) {
        let (ids, root) = (self.ids.clone(), self.root.clone());
        let count = (ids.len() as u64).min(50_000);
        let node = self.node();
        let mut rounds = (Vec::new(), Vec::new());
        for round in 0..3 {
            let mut n = round * 7;
            let took = node.stream(
                count,
                UNDER_WAY,
                |rng| {
                    n += 1;
                    let ask = json!({"lease_id": ids[n % ids.len()], "increment": 80_000});
                    node::call(rng, Operation::Update, "sys/leases/renew", &root, ask)
                },
                |_| {},
            );
            rounds.0.push(took.per_core_second());
            let mut n = 0;
            let took = node.stream(
                count,
                UNDER_WAY,
                |rng| {
                    n += 1;
                    let ask = json!({"value": "x".repeat(100)});
                    node::call(rng, Operation::Update, &format!("kv/app/{}", n % 1000), &root, ask)
                },
                |_| {},
            );
            rounds.1.push(took.per_core_second());
        }
        let (renewals, writes) = (median(rounds.0), median(rounds.1));
        told("renewals in a second of a core", renewals, "/s", "the speed of a write");
        told("key-value writes in a second of a core", writes, "/s", "");
        told("a renewal's time beside a write's", writes / renewals, "x", "about 1");
    }

    fn list(&mut self) {
        let root = self.root.clone();
        let node = self.node();
        for n in [10u64, 100, 1000] {
            let mount = format!("list{n}");
            let options = json!({"type": "kv", "options": {"version": "1", "leased_passthrough": "true"}});
            node.must(Operation::Update, &format!("sys/mounts/{mount}"), &root, options);
            let path = format!("{mount}/x");
            node.must(Operation::Update, &path, &root, json!({"v": "1", "ttl": LONG}));
            let read = |rng: &mut SeededEntropy| node::call(rng, Operation::Read, &path, &root, json!(null));
            node.stream(n, UNDER_WAY, read, |_| {});
            let listed = format!("sys/leases/lookup/{path}");
            let mut times = Vec::new();
            for _ in 0..9 {
                let from = thread_cpu();
                let v = node.must(Operation::List, &listed, &root, json!(null));
                times.push((thread_cpu() - from).as_secs_f64() * 1e6);
                assert_eq!(v["data"]["keys"].as_array().map(Vec::len), Some(n as usize));
            }
            told(&format!("listing a prefix of {n} leases"), median(times), "us", "proportional to what is shown");
        }
    }

    fn checkpoint(&mut self) {
        let node = self.node.as_mut().expect("a node");
        let from = node.checkpoints();
        let leases = node.gauges().leases;
        force_checkpoint(node, &self.root);
        assert!(node.checkpoints() > from);
        let per = node.checkpoint_bytes() as f64 / leases as f64;
        told("bytes of the checkpoint a lease", per, "B", "at most 300");
    }

    /// Ends the node and begins it anew over its directory, beside what could not be done without.
    fn restart(&mut self) {
        let leases = self.node().gauges().leases;
        self.node = None;
        let limit = raw_read_and_build(&self.dir);
        let cpu = thread_cpu();
        let (recovered, whole) = self.open_again();
        let cpu = thread_cpu() - cpu;
        assert_eq!(self.node().gauges().leases, leases, "every lease is there again");
        told("restart: checkpoint and log read, image built", recovered.as_secs_f64(), "s", "");
        told("restart: until it serves, sealed", whole.as_secs_f64(), "s", "aim 10 s of 10 million");
        told("raw sequential read and sorted bulk build", limit.0.as_secs_f64(), "s", "");
        told("restart beside that, CPU time", cpu.as_secs_f64() / limit.1.as_secs_f64(), "x", "at most 1.5");
        let share = self.share.clone();
        let unsealed = self.node().unseal(&share);
        told("unseal until active", unsealed.as_secs_f64() * 1e3, "ms", "at most 1000, whatever the count");
    }

    fn open_again(&mut self) -> (Duration, Duration) {
        let from = Instant::now();
        let directory = ringfence_server::disk::Directory::open(&self.dir).expect("nobody holds it");
        let found = directory.recover().expect("what was written is whole");
        let recovered = from.elapsed();
        let mut node = Node::over(&self.dir, config(), found);
        let reply = node.ask(Operation::Read, "sys/seal-status", "", json!(null));
        assert_eq!(node::body(&reply)["sealed"], json!(true));
        let whole = from.elapsed();
        self.node = Some(node);
        (recovered, whole)
    }

    fn mass_revocations(&mut self) {
        let (root, big, share) = (self.root.clone(), self.big.clone(), self.share.clone());
        let parts = [
            ("revoke-prefix", "sys/leases/revoke-prefix/prefix", json!({})),
            ("revoke of a token that holds them", "auth/token/revoke", json!({"token": big})),
            ("disabling a mount", "sys/mounts/mount", json!({})),
        ];
        for (what, path, data) in parts {
            let part = self.part();
            let node = self.node();
            let before = node.gauges().leases;
            let op = if path.starts_with("sys/mounts") { Operation::Delete } else { Operation::Update };
            let from = Instant::now();
            node.must(op, path, &root, data);
            let acknowledged = from.elapsed();
            told(
                &format!("{what}: acknowledged, {part} leases"),
                acknowledged.as_secs_f64() * 1e3,
                "ms",
                "at most 100",
            );
            let cpu = thread_cpu();
            let mut open = Duration::ZERO;
            let mut begun_anew = 0;
            if what.contains("token") {
                // in the middle of it the node ends, and goes on when it is back
                node.until(PATIENCE, |n| n.gauges().leases <= before - part / 4);
                let at_end = thread_cpu();
                self.node = None;
                self.open_again();
                begun_anew = self.node().gauges().leases;
                self.node().unseal(&share);
                open = thread_cpu() - at_end;
            }
            let node = self.node();
            node.until(PATIENCE, |n| n.gauges().leases <= before - part);
            let worked = thread_cpu() - cpu - open;
            told(
                &format!("{what}: worked off in a second of the owner's core"),
                part as f64 / worked.as_secs_f64(),
                "",
                "at a bounded pace",
            );
            if begun_anew > 0 {
                assert!(begun_anew > before - part && begun_anew < before, "the restart was in the middle");
                told(
                    &format!("{what}: a restart in the middle went on with"),
                    (begun_anew + part - before) as f64,
                    "left",
                    "goes on",
                );
            }
        }
    }

    fn expire(&mut self) {
        let part = self.part();
        let root = self.root.clone();
        let node = self.node();
        let reader = Reader::start(node, &root);
        node.run_for(Duration::from_secs(2));
        let quiet = reader.take();
        let before = node.gauges().leases;
        node.measure_turns();
        node.skip_seconds(SHORT_SECONDS + 600);
        let took = node.until(PATIENCE, |n| n.gauges().leases <= before - part);
        let turns = node.take_turns();
        let busy = reader.take();
        reader.stop();
        let expired = part as f64;
        told(
            "leases expired in a second of the owner's core",
            expired / took.cpu.as_secs_f64(),
            "",
            "at least 50,000",
        );
        told("leases expired a second of the clock", expired / took.time.as_secs_f64(), "", "");
        let at = |v: &[u64], percent: usize| {
            v.get(v.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0) as f64 / 1e3
        };
        told("a read beside it, other core, p50", at(&busy, 50), "us", &format!("quiet {:.1}", at(&quiet, 50)));
        told("a read beside it, other core, p99", at(&busy, 99), "us", &format!("quiet {:.1}", at(&quiet, 99)));
        told("a read beside it, p99 beside the quiet one", at(&busy, 99) / at(&quiet, 99), "x", "at most 2");
        told("turn of the owner's core meanwhile, p50", at(&turns, 50), "us", "");
        told("turn of the owner's core meanwhile, p99", at(&turns, 99), "us", "1,000: a core never blocks longer");
    }

    /// Leases of each of the special mounts.
    fn part(&self) -> u64 {
        (self.count / 10).min(1_000_000)
    }
}

/// Writes leases and tokens past the pipeline, after the pattern of one that came through it.
struct Bulk {
    lease: LeaseEntry,
    token: Option<TokenEntry>,
    mounts: BTreeMap<String, MountId>,
    owners: Vec<Hash>,
    big: Hash,
}

impl Bulk {
    /// Rows of one batch.
    const ROWS: u64 = 300;

    fn new(node: &mut Node, owners: &[String], big: &str) -> Bulk {
        let mut made = None;
        // reads the patterns; the one record that it writes is no lease
        node.write(|txn, keyring, _, _| {
            let hash = |token: &String| keyring.index_hash(TOKEN_HASH, token.as_bytes());
            let owners: Vec<Hash> = owners.iter().map(hash).collect();
            let first = txn.scan(&[tables::LEASE], None, 1).expect("a lease came through the pipeline");
            let lease = LeaseEntry::decode(&first[0].1.bytes).expect("a lease");
            let tokens = txn.scan(&[tables::TOKEN], None, 2 * OWNERS as usize + 10).expect("tokens");
            let mut tokens = tokens.iter().map(|(_, p)| TokenEntry::decode(&p.bytes).expect("a token"));
            let token = tokens.find(|t| t.parent.is_some_and(|p| owners.contains(&p)));
            let core = CoreState::new(Arc::new(Vault::new(ringfence_node::registry(), Settings::default())));
            let router = core.caches.borrow_mut().router(txn, &Settings::default().ttls).expect("mounts");
            let mounts = router.mounts(txn, NsId::ROOT).expect("mounts");
            let mounts = mounts.map(|m| (m.info.path.trim_end_matches('/').to_owned(), m.entry.id)).collect();
            made = Some(Bulk { lease, token, mounts, owners, big: hash(&big.to_owned()) });
            txn.put(b"\x7fbench".to_vec(), &[], b"bulk");
        });
        made.expect("it was made")
    }

    fn leases(&self, node: &mut Node, count: u64, mounts: &[String], of_big: bool) {
        let mut n = 0;
        while n < count {
            let upto = (n + Bulk::ROWS).min(count);
            node.write(|txn, _, rng, now| {
                for n in n..upto {
                    let mount = &mounts[(n % mounts.len() as u64) as usize];
                    let path = format!("database/creds/role-{}", n / mounts.len() as u64 % SECRETS);
                    let ttl = if mount == "short" { SHORT_SECONDS } else { 24 * 3600 };
                    let owner = if of_big { self.big } else { self.owners[(n % OWNERS) as usize] };
                    let due = now.plus_seconds(ttl);
                    let key_path = format!("{path}/{}", entropy::base62(rng, 24));
                    let lease = LeaseEntry { path, owner, issued: now, due, ttl, ..self.lease.clone() };
                    lease::save(txn, self.mounts[mount], &key_path, &lease);
                }
            });
            n = upto;
        }
    }

    fn tokens(&self, node: &mut Node, count: u64) {
        let Some(pattern) = self.token.as_ref().filter(|_| count > 0) else { return assert_eq!(count, 0) };
        let mut n = 0;
        while n < count {
            let upto = (n + Bulk::ROWS).min(count);
            node.write(|txn, keyring, rng, now| {
                for n in n..upto {
                    let id = format!("hvs.{}", entropy::base62(rng, 24));
                    let hash = keyring.index_hash(TOKEN_HASH, id.as_bytes());
                    let accessor = entropy::base62(rng, 24);
                    let row = tables::accessor(pattern.ns, &keyring.index_hash(ACCESSOR_HASH, accessor.as_bytes()));
                    let due = now.plus_seconds(24 * 3600);
                    let parent = Some(self.owners[(n % OWNERS) as usize]);
                    let mut w = Writer::new();
                    w.text(&accessor).raw(&hash);
                    let entry = TokenEntry { accessor, parent, created: now, due, ..pattern.clone() };
                    check::save(txn, &hash, &entry);
                    txn.put(row, &[], &w.finish());
                }
            });
            n = upto;
        }
    }
}

/// A shard on a thread of its own that reads, and how long each read took, ns.
struct Reader {
    stop: Arc<AtomicBool>,
    took: Arc<std::sync::Mutex<Vec<u64>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Reader {
    fn start(node: &Node, root: &str) -> Reader {
        let (vault, published, clock) = node.beside();
        let (stop, took) = (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::Mutex::new(Vec::new())));
        let (stopped, tell, root) = (stop.clone(), took.clone(), root.to_owned());
        let thread = std::thread::spawn(move || read_until(&stopped, &tell, vault, &published, &clock, &root));
        Reader { stop, took, thread }
    }

    fn take(&self) -> Vec<u64> {
        let mut took = std::mem::take(&mut *self.took.lock().expect("nobody panics with it"));
        took.sort_unstable();
        took
    }

    fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the reader ends");
    }
}

fn read_until(
    stop: &AtomicBool,
    tell: &std::sync::Mutex<Vec<u64>>,
    vault: Arc<Vault>,
    published: &Published,
    clock: &Clock,
    root: &str,
) {
    let cell = || published.lock().expect("nobody panics with it").clone();
    let mut shard = Shard::new(1, vault, cell());
    let mut rng = SeededEntropy(7);
    let mut tag = 0;
    let mut out = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        tag += 1;
        let call: Call = node::call(&mut rng, Operation::Read, &format!("kv/app/{}", tag % 1000), root, json!(null));
        let from = Instant::now();
        shard.observe(cell());
        shard.call(tag, call, clock.now(), &mut rng, &mut out);
        let took = from.elapsed().as_nanos() as u64;
        let good = matches!(&out[..], [ShardOut::Reply(_, reply)] if node::is_good(reply));
        assert!(good, "a read is answered at once: {out:?}");
        out.clear();
        tell.lock().expect("nobody panics with it").push(took);
        std::thread::sleep(Duration::from_micros(50));
    }
}

type Bytes = Box<[u8]>;

/// What no restart can do without: the checkpoint's files read one after another, and their records put in order into a
/// map that is built from sorted entries.
fn raw_read_and_build(dir: &Path) -> (Duration, Duration) {
    let manifest = std::fs::read(dir.join("checkpoint/manifest")).expect("a checkpoint was made");
    let manifest = Manifest::decode(&manifest).expect("ours");
    let (from, cpu) = (Instant::now(), thread_cpu());
    let mut records: Vec<(Bytes, Bytes)> = Vec::new();
    for meta in &manifest.chunks {
        let bytes = std::fs::read(dir.join(format!("checkpoint/{}.chunk", meta.id))).expect("a chunk that is listed");
        let mut reader = ChunkReader::open(&bytes, meta).expect("whole");
        while let Some((key, value)) = reader.next_record().expect("whole") {
            records.push((key.into(), value.into()));
        }
    }
    let map: BTreeMap<Bytes, Bytes> = records.into_iter().collect();
    let took = (from.elapsed(), thread_cpu() - cpu);
    assert!(!map.is_empty());
    took
}

/// Memory is compared when nothing is under way.
fn settle_memory(node: &mut Node) {
    node.run_for(Duration::from_secs(1));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
