//! The server end to end over HTTP, beside bare servers on the same runtime and core: what the engine costs a
//! request, as ratios within one run.
//!
//! Each server is a process of its own (this program again), with one core, on CPU 0; the load is on CPU 1. Rounds
//! alternate, so that drift of the machine hits all alike; printed are medians. Every bare answer is as long as the
//! engine's, every bare append as long as what a write adds to the log. The data directory is below the target
//! directory, on the real disk.
//!
//! `cargo bench -p ringfence-benches --bench http [-- [--quick] [--secrets N] [--rounds N] [--only reads|writes|logins|transit|checkpoint]
//! [--connections N] [--server PATH]]`; with a path, that binary is measured instead of this build; `--connections` picks
//! one row of the writes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, header};
use ringfence_benches::load::{Load, Outcome, pin};
use ringfence_crypto::cipher::Cipher;
use ringfence_server::cli::{self, Command as Ringfence, io::Io};
use ringfence_server::rt;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Items of a transit batch.
const BATCH_ITEMS: usize = 1_000;
const SERVER_CPU: usize = 0;
const LOAD_CPU: usize = 1;
const CONNECTIONS: usize = 64;
const WRITERS: [usize; 5] = [1, 4, 16, 64, 256];
/// Log between two checkpoints where those are measured, and how long that is tried.
const CHECKPOINT_LOG_BYTES: &str = "50000000";
const CHECKPOINTS_FOR: Duration = Duration::from_secs(60);
/// Zero-filled file of the bare appends, written round and round.
const LOG_BYTES: u64 = 64 << 20;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    if let Some(config) = after("--serve") {
        serve_ringfence(&config);
    }
    if let Some(answer) = after("--bare") {
        let append = after("--append").map(|bytes| bytes.parse().expect("a number"));
        serve_bare(read(&answer), append, Path::new(&answer).with_extension("log"));
    }
    let quick = args.iter().any(|a| a == "--quick");
    let number = |name: &str, usual: u64| after(name).and_then(|n| n.parse().ok()).unwrap_or(usual);
    let plan = Plan {
        rounds: number("--rounds", if quick { 3 } else { 7 }) as usize,
        warm_up: Duration::from_millis(if quick { 50 } else { 150 }),
        span: Duration::from_millis(if quick { 300 } else { 800 }),
        secrets: number("--secrets", 100_000),
        only: after("--only"),
        writers: after("--connections").and_then(|n| n.parse().ok()).map_or(WRITERS.to_vec(), |n| vec![n]),
        server: after("--server"),
    };
    pin(LOAD_CPU);
    let dir = fresh_directory();
    let bench = Bench::start(plan, dir.clone());
    bench.run();
    drop(bench);
    // what is left behind costs space only
    let _ = std::fs::remove_dir_all(dir);
}

struct Plan {
    rounds: usize,
    warm_up: Duration,
    span: Duration,
    secrets: u64,
    only: Option<String>,
    /// Connections that write: all of [`WRITERS`], or these.
    writers: Vec<usize>,
    server: Option<String>,
}

struct Bench {
    plan: Plan,
    dir: PathBuf,
    server: Server,
    root: String,
    batch: String,
    service: String,
    /// What one write adds to the log, bytes.
    append_bytes: u64,
}

impl Bench {
    /// Starts the server, fills it, makes tokens.
    fn start(plan: Plan, dir: PathBuf) -> Bench {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let config = dir.join("server.hcl");
        let text = format!(
            "storage \"raft\" {{\n  path = \"{}\"\n  node_id = \"n1\"\n}}\nlistener \"tcp\" {{\n  address = \
             \"127.0.0.1:{port}\"\n  tls_disable = true\n}}\napi_addr = \"http://127.0.0.1:{port}\"\ncluster_addr = \
             \"http://127.0.0.1:1\"\n",
            dir.join("data").display()
        );
        write(&config, text.as_bytes());
        let server = match &plan.server {
            Some(binary) => Server::spawn(binary, &["server", &format!("-config={}", path(&config))], Some(port)),
            None => Server::spawn(&this_program(), &["--serve", path(&config)], Some(port)),
        };
        let made = server.ask("PUT", "sys/init", "", &json!({"secret_shares": 1, "secret_threshold": 1}));
        let root = text_of(&made["root_token"]);
        server.ask("PUT", "sys/unseal", "", &json!({"key": made["keys_base64"][0]}));
        server.ask("POST", "sys/mounts/secret", &root, &json!({"type": "kv", "options": {"version": "2"}}));
        let policy = "path \"secret/data/*\" { capabilities = [\"create\", \"read\", \"update\"] }\n\
                      path \"secret/metadata/*\" { capabilities = [\"list\", \"read\"] }";
        server.ask("POST", "sys/policies/acl/app", &root, &json!({"policy": policy}));
        let token = |kind: &str| {
            let a = server.ask("POST", "auth/token/create", &root, &json!({"type": kind, "policies": ["app"]}));
            text_of(&a["auth"]["client_token"])
        };
        let (batch, service) = (token("batch"), token("service"));
        let mut bench = Bench { plan, dir, server, root, batch, service, append_bytes: 0 };
        bench.fill();
        bench
    }

    /// Writes the secrets over many connections, and finds out what a write adds to the log.
    fn fill(&mut self) {
        let (before, began) = (self.log_used(), Instant::now());
        let mut load = Load::connect(self.server.addr, 256);
        let sample = self.plan.secrets.min(20_000);
        let mut next = self.writes(self.plan.secrets);
        load.send_all(&mut next, sample);
        self.append_bytes = (self.log_used() - before) / sample.max(1);
        load.send_all(&mut next, self.plan.secrets - sample);
        println!(
            "{} secrets written in {:.1} s; {} bytes of log each",
            self.plan.secrets,
            began.elapsed().as_secs_f64(),
            self.append_bytes
        );
    }

    fn run(&self) {
        let wants = |part: &str| self.plan.only.as_deref().is_none_or(|only| only == part);
        println!("medians of {} rounds of {:?}", self.plan.rounds, self.plan.span);
        if wants("reads") {
            self.reads();
        }
        if wants("writes") {
            self.durable_writes();
        }
        if wants("logins") {
            self.logins();
        }
        if wants("transit") {
            self.transit();
        }
        // fills the log for longer than the others take together
        if self.plan.only.as_deref() == Some("checkpoint") {
            self.checkpoints();
        }
    }

    /// Encryption of 256 bytes, alone and a thousand at a time, beside a bare answer and beside the bare cipher.
    fn transit(&self) {
        let ask = |method: &str, at: &str, body: Value| self.server.ask(method, at, &self.root, &body);
        ask("POST", "sys/mounts/transit", json!({"type": "transit"}));
        ask("POST", "transit/keys/app", json!({}));
        let policy = "path \"transit/encrypt/*\" { capabilities = [\"update\"] }";
        ask("POST", "sys/policies/acl/transit", json!({"policy": policy}));
        let made = ask("POST", "auth/token/create", json!({"type": "batch", "policies": ["transit"]}));
        let token = text_of(&made["auth"]["client_token"]);
        let plaintext = STANDARD.encode([7u8; 256]);
        let one =
            request("POST", "transit/encrypt/app", &token, json!({"plaintext": plaintext}).to_string().as_bytes());
        let bare = self.bare("encrypt", &self.server.exchange(&one), None);
        let mut rows = [Row::new("bare answer"), Row::new("transit encrypt of 256 bytes, batch token")];
        let (mut plain, mut served) =
            (Load::connect(bare.addr, CONNECTIONS), Load::connect(self.server.addr, CONNECTIONS));
        for _ in 0..self.plan.rounds {
            let mut next = |out: &mut Vec<u8>| out.extend_from_slice(&one);
            rows[0].add(self.measure(&mut plain, &bare, &mut next));
            rows[1].add(self.measure(&mut served, &self.server, &mut next));
        }
        println!("\nTransit, {CONNECTIONS} connections");
        table(&rows);
        println!(
            "encrypt / bare answer: {:.2} (at least 0.6)",
            rows[1].median().per_second / rows[0].median().per_second
        );
        let items = vec![json!({"plaintext": plaintext}); BATCH_ITEMS];
        let body = json!({"batch_input": items}).to_string();
        let many = request("POST", "transit/encrypt/app", &token, body.as_bytes());
        let mut batches = [Row::new("transit encrypt, batches of 1,000")];
        let mut served = Load::connect(self.server.addr, 4);
        for _ in 0..self.plan.rounds {
            let mut next = |out: &mut Vec<u8>| out.extend_from_slice(&many);
            batches[0].add(self.measure(&mut served, &self.server, &mut next));
        }
        table(&batches);
        // by the server's own CPU: beside it the load generator has no say
        let item_us = batches[0].median().cpu_us / BATCH_ITEMS as f64;
        let raw_us = raw_item_us(&plaintext);
        println!(
            "an item of a batch over HTTP {item_us:.3} us of CPU, raw AEAD and base64 {raw_us:.3} us: {:.2}",
            raw_us / item_us
        );
    }

    fn reads(&self) {
        let answer = self.server.raw("GET", "secret/data/app/1", &self.batch, b"");
        let bare = self.bare("read", &answer, None);
        let mut rows = [
            Row::new("bare answer"),
            Row::new("KV v2 read, batch token"),
            Row::new("the same, file audit device"),
            Row::new("KV v2 read, service token"),
        ];
        let (mut plain, mut served) =
            (Load::connect(bare.addr, CONNECTIONS), Load::connect(self.server.addr, CONNECTIONS));
        let audit = json!({"type": "file", "options": {"file_path": path(&self.dir.join("audit.log"))}});
        for _ in 0..self.plan.rounds {
            rows[0].add(self.measure(&mut plain, &bare, &mut self.reads_with(&self.batch)));
            rows[1].add(self.measure(&mut served, &self.server, &mut self.reads_with(&self.batch)));
            self.server.ask("PUT", "sys/audit/file", &self.root, &audit);
            rows[2].add(self.measure(&mut served, &self.server, &mut self.reads_with(&self.batch)));
            self.server.ask("DELETE", "sys/audit/file", &self.root, &json!({}));
            rows[3].add(self.measure(&mut served, &self.server, &mut self.reads_with(&self.service)));
        }
        println!("\nReads over {} secrets, {CONNECTIONS} connections", self.plan.secrets);
        table(&rows);
        let rate = |i: usize| rows[i].median().per_second;
        println!("read / bare answer: {:.2} (at least 0.7)", rate(1) / rate(0));
        println!("read with audit / read: {:.2} (at least 0.75)", rate(2) / rate(1));
    }

    fn durable_writes(&self) {
        let flush_us = self.flush_us();
        let request = self.writes(1);
        let answer = {
            let mut first = Vec::new();
            let mut request = request;
            request(&mut first);
            self.server.exchange(&first)
        };
        let bare = self.bare("write", &answer, Some(self.append_bytes));
        println!("\nDurable writes; one flush of a block takes {flush_us} us (median)");
        let mut rows = Vec::new();
        for &connections in &self.plan.writers {
            let (mut plain, mut served) =
                (Load::connect(bare.addr, connections), Load::connect(self.server.addr, connections));
            let mut pair = [
                Row::new(&format!("{connections} connections, bare append")),
                Row::new(&format!("{connections} connections, KV v2 write")),
            ];
            for _ in 0..self.plan.rounds.div_ceil(if connections == CONNECTIONS { 1 } else { 2 }) {
                pair[0].add(self.measure(&mut plain, &bare, &mut self.writes(self.plan.secrets)));
                pair[1].add(self.measure(&mut served, &self.server, &mut self.writes(self.plan.secrets)));
            }
            rows.extend(pair);
        }
        table(&rows);
        for (i, connections) in self.plan.writers.iter().enumerate() {
            let (bare, own) = (rows[2 * i].median(), rows[2 * i + 1].median());
            println!(
                "{connections} connections: write / bare append: {:.2}{}; p99 {:.1} flush times",
                own.per_second / bare.per_second,
                if *connections == CONNECTIONS { " (at least 0.5)" } else { "" },
                own.p99_us / f64::from(flush_us),
            );
        }
    }

    /// Writes while checkpoints come and go: short spans, told apart by what the checkpoint's directory shows at both of
    /// their ends.
    fn checkpoints(&self) {
        let mut rows = [Row::new("writes, no checkpoint"), Row::new("writes beside a checkpoint")];
        let mut load = Load::connect(self.server.addr, CONNECTIONS);
        let mut next = self.writes(self.plan.secrets);
        let (span, began) = (Duration::from_millis(100), Instant::now());
        let enough = if self.plan.rounds > 3 { 60 } else { 20 };
        let mut whole = 0u64;
        while rows.iter().any(|row| row.samples.len() < enough) && began.elapsed() < CHECKPOINTS_FOR {
            let before = self.checkpoint_runs();
            let outcome = load.run(&mut next, Duration::ZERO, span, self.server.child.id());
            if before == self.checkpoint_runs() {
                rows[usize::from(before)].add(outcome);
            }
            whole = whole.max(self.checkpoint_files().iter().map(|(_, _, bytes)| bytes).sum());
        }
        println!("\nAt most {} MB of chunks, {CONNECTIONS} connections, spans of {span:?}", whole / 1_000_000);
        println!("spans: {} without, {} with a checkpoint", rows[0].samples.len(), rows[1].samples.len());
        if rows.iter().any(|row| row.samples.is_empty()) {
            println!("too few spans of one kind: more --secrets make longer checkpoints");
            return;
        }
        table(&rows);
        let ratio = rows[1].median().per_second / rows[0].median().per_second;
        println!("writes beside a checkpoint / without: {ratio:.2} (at least 0.67)");
    }

    /// Whether a chunk is younger than the manifest: the manifest is written last.
    fn checkpoint_runs(&self) -> bool {
        let files = self.checkpoint_files();
        let manifest = files.iter().find(|(name, ..)| name == "manifest").map(|(_, at, _)| *at);
        let chunk = files.iter().filter(|(name, ..)| name != "manifest").map(|(_, at, _)| *at).max();
        chunk.is_some() && manifest < chunk
    }

    /// Name, time of the last write and size of the files of the checkpoint.
    fn checkpoint_files(&self) -> Vec<(String, std::time::SystemTime, u64)> {
        let Ok(entries) = std::fs::read_dir(self.dir.join("data/checkpoint")) else { return Vec::new() };
        // a file may be renamed or removed while we look
        let facts = |e: std::fs::DirEntry| {
            let m = e.metadata().ok()?;
            Some((e.file_name().into_string().ok()?, m.modified().ok()?, m.len()))
        };
        entries.flatten().filter_map(facts).collect()
    }

    fn logins(&self) {
        let ask = |method: &str, at: &str, body: Value| self.server.ask(method, at, &self.root, &body);
        ask("POST", "sys/auth/approle", json!({"type": "approle"}));
        let role =
            json!({"token_type": "batch", "token_policies": ["app"], "secret_id_num_uses": 0, "token_ttl": "1h"});
        ask("POST", "auth/approle/role/app", role);
        let role_id = ask("GET", "auth/approle/role/app/role-id", json!({}))["data"]["role_id"].clone();
        let secret_id = ask("POST", "auth/approle/role/app/secret-id", json!({}))["data"]["secret_id"].clone();
        let body = json!({"role_id": role_id, "secret_id": secret_id}).to_string();
        let request = request("POST", "auth/approle/login", "", body.as_bytes());
        // the first login makes the entity
        let answer = self.server.exchange(&request);
        let bare = self.bare("login", &answer, None);
        let mut rows = [Row::new("bare answer"), Row::new("approle login, batch token")];
        let (mut plain, mut served) =
            (Load::connect(bare.addr, CONNECTIONS), Load::connect(self.server.addr, CONNECTIONS));
        let before = self.log();
        for _ in 0..self.plan.rounds.div_ceil(2) {
            let mut next = |out: &mut Vec<u8>| out.extend_from_slice(&request);
            rows[0].add(self.measure(&mut plain, &bare, &mut next));
            rows[1].add(self.measure(&mut served, &self.server, &mut next));
        }
        println!("\nLogins, {CONNECTIONS} connections");
        table(&rows);
        let written = differing(&before, &self.log());
        println!("bytes of the log that {} logins changed: {written}", rows[1].answers);
        println!("login / bare answer: {:.2}", rows[1].median().per_second / rows[0].median().per_second);
    }

    fn measure(&self, load: &mut Load, server: &Server, next: &mut dyn FnMut(&mut Vec<u8>)) -> Outcome {
        load.run(next, self.plan.warm_up, self.plan.span, server.child.id())
    }

    /// Reads of all secrets in an order that no cache foresees.
    fn reads_with(&self, token: &str) -> impl FnMut(&mut Vec<u8>) + use<> {
        let (head, tail) = ("GET /v1/secret/data/app/", tail(token, ""));
        let (mut at, secrets) = (1u64, self.plan.secrets);
        move |out| {
            at = (at + 61_813) % secrets;
            out.extend_from_slice(head.as_bytes());
            let _ = write!(out, "{at}");
            out.extend_from_slice(tail.as_bytes());
        }
    }

    /// Writes of secrets one after another, round and round.
    fn writes(&self, secrets: u64) -> impl FnMut(&mut Vec<u8>) + use<> {
        let body = r#"{"data":{"username":"app-user","password":"c0rrect-horse-battery-staple","note":"0123456789abcdef0123456789abcdef"}}"#;
        let (head, tail) = ("POST /v1/secret/data/app/", tail(&self.batch, body));
        let mut at = 0;
        move |out| {
            at = (at + 1) % secrets;
            out.extend_from_slice(head.as_bytes());
            let _ = write!(out, "{at}");
            out.extend_from_slice(tail.as_bytes());
        }
    }

    /// A bare server that gives this answer, after an append of so many bytes if one is asked for.
    fn bare(&self, name: &str, answer: &[u8], append: Option<u64>) -> Server {
        let file = self.dir.join(format!("{name}.answer"));
        let split = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer has a head") + 4;
        write(&file, &answer[split..]);
        let bytes = append.map(|b| b.to_string());
        match &bytes {
            Some(b) => Server::spawn(&this_program(), &["--bare", path(&file), "--append", b], None),
            None => Server::spawn(&this_program(), &["--bare", path(&file)], None),
        }
    }

    /// A durable write of one block of a zero-filled file, median microseconds.
    fn flush_us(&self) -> u32 {
        let at = self.dir.join("flush");
        let measured = rt::run(&rt::Options::default(), move || async move {
            let file = rt::File::open(at, rt::OpenMode::CreateNew).await.expect("the directory takes a file");
            file.zero_fill(1 << 20).await.expect("there is room");
            let mut block = rt::AlignedBuf::zeroed(rt::BLOCK_BYTES);
            let mut took = Vec::new();
            for i in 0..300u64 {
                let began = Instant::now();
                let (back, result) = file.write_at_durable(block, i % 256 * rt::BLOCK_BYTES as u64).await;
                result.expect("the disk takes a block");
                block = back;
                took.push(began.elapsed().as_micros() as u32);
            }
            took.sort_unstable();
            took[took.len() / 2]
        });
        measured.expect("the core runs")
    }

    /// All segments of the log.
    fn log(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.dir.join("data/log"))
            .expect("a log")
            .map(|e| e.expect("an entry").path())
            .filter(|p| p.extension().is_some_and(|e| e == "seg"))
            .collect();
        files.sort();
        files.into_iter().map(|p| (p.clone(), read(path(&p)))).collect()
    }

    /// Bytes of the log in use, while no segment was used twice.
    fn log_used(&self) -> u64 {
        self.log().iter().map(|(_, bytes)| bytes.iter().rposition(|b| *b != 0).map_or(0, |i| i as u64 + 1)).sum()
    }
}

fn differing(a: &[(PathBuf, Vec<u8>)], b: &[(PathBuf, Vec<u8>)]) -> u64 {
    let of = |name: &Path| a.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes.as_slice());
    let changed = |(name, now): &(PathBuf, Vec<u8>)| match of(name) {
        Some(then) => then.iter().zip(now).filter(|(x, y)| x != y).count() as u64,
        None => now.iter().filter(|b| **b != 0).count() as u64,
    };
    b.iter().map(changed).sum()
}

/// Base64, nonce, AES-256-GCM and base64 of one text, nothing else: microseconds.
fn raw_item_us(plaintext: &str) -> f64 {
    let key = Cipher::Aes256Gcm.key(&[1; 32]).expect("32 bytes");
    let mut text = String::new();
    let began = Instant::now();
    let rounds = 200_000u64;
    for n in 0..rounds {
        let mut buf = n.to_le_bytes().to_vec();
        buf.resize(12, 0);
        STANDARD.decode_vec(plaintext, &mut buf).expect("base64");
        let nonce: [u8; 12] = buf[..12].try_into().expect("12 bytes");
        key.seal(&nonce, b"", &mut buf, 12);
        text.clear();
        STANDARD.encode_string(&buf, &mut text);
        std::hint::black_box(&text);
    }
    began.elapsed().as_secs_f64() * 1e6 / rounds as f64
}

/// A server in a process of its own.
struct Server {
    child: Child,
    addr: SocketAddr,
}

impl Server {
    /// Starts a server; a bare one says its port itself.
    fn spawn(program: &str, role: &[&str], port: Option<u16>) -> Server {
        let mut command = Command::new(program);
        if std::env::args().any(|a| a == "checkpoint") {
            command.env("RINGFENCE_CHECKPOINT_LOG_BYTES", CHECKPOINT_LOG_BYTES);
        }
        let mut child = command
            .args(role)
            .env("RINGFENCE_CORES", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert!(out.read_line(&mut line).expect("a pipe") > 0, "the server has ended at its start");
            match port {
                Some(p) if line.contains("server started") => break p,
                None => break line.trim().parse().expect("a port"),
                Some(_) => {}
            }
        };
        // what it says later must not fill the pipe
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let server = Server { child, addr: SocketAddr::from(([127, 0, 0, 1], port)) };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(server.addr).is_err() {
            assert!(Instant::now() < deadline, "the server listens within ten seconds");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// One request on a connection of its own; the whole answer.
    fn exchange(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.addr).expect("the server listens");
        stream.write_all(request).expect("connected");
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
        assert!(told.starts_with("HTTP/1.1 20"), "{} is answered: {told}", String::from_utf8_lossy(request));
        answer
    }

    fn raw(&self, method: &str, at: &str, token: &str, body: &[u8]) -> Vec<u8> {
        self.exchange(&request(method, at, token, body))
    }

    fn ask(&self, method: &str, at: &str, token: &str, body: &Value) -> Value {
        let answer = self.raw(method, at, token, body.to_string().as_bytes());
        let body = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(&[][..], |i| &answer[i + 4..]);
        serde_json::from_slice(body).unwrap_or(Value::Null)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request(method: &str, at: &str, token: &str, body: &[u8]) -> Vec<u8> {
    format!("{method} /v1/{at}{}", tail(token, &String::from_utf8_lossy(body))).into_bytes()
}

/// A request after its path.
fn tail(token: &str, body: &str) -> String {
    let content = if body.is_empty() {
        String::new()
    } else {
        format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len())
    };
    format!(
        " HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\naccept: */*\r\nx-vault-request: true\r\nx-vault-token: \
         {token}\r\n{content}\r\n{body}"
    )
}

/// One line of a table.
struct Row {
    name: String,
    samples: Vec<Sample>,
    answers: u64,
}

#[derive(Clone, Copy)]
struct Sample {
    per_second: f64,
    cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Row {
    fn new(name: &str) -> Row {
        Row { name: name.to_owned(), samples: Vec::new(), answers: 0 }
    }

    fn add(&mut self, o: Outcome) {
        self.answers += o.answers;
        let (p50_us, p99_us) = (f64::from(o.latency_us(50)), f64::from(o.latency_us(99)));
        self.samples.push(Sample { per_second: o.per_second(), cpu_us: o.cpu_us(), p50_us, p99_us });
    }

    fn median(&self) -> Sample {
        let middle = |of: fn(&Sample) -> f64| {
            let mut values: Vec<f64> = self.samples.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Sample {
            per_second: middle(|s| s.per_second),
            cpu_us: middle(|s| s.cpu_us),
            p50_us: middle(|s| s.p50_us),
            p99_us: middle(|s| s.p99_us),
        }
    }
}

fn table(rows: &[Row]) {
    println!("| what | requests/s | CPU us a request | p50 us | p99 us |");
    println!("|---|---|---|---|---|");
    for row in rows {
        let m = row.median();
        println!("| {} | {:.0} | {:.2} | {:.0} | {:.0} |", row.name, m.per_second, m.cpu_us, m.p50_us, m.p99_us);
    }
}

/// The role of the server: the whole program, as its command line starts it.
fn serve_ringfence(config: &str) -> ! {
    pin(SERVER_CPU);
    let words = ["ringfence".to_owned(), "server".to_owned(), format!("-config={config}")];
    let (mut stdin, mut stdout, mut stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut io = Io::of_process(&mut stdin, &mut stdout, &mut stderr);
    std::process::exit(match cli::run(&words, &mut io) {
        Ringfence::Exit(code) => code,
        Ringfence::Server(args) => ringfence_server::boot::run(&args, &io.env),
    })
}

/// The role of the yardstick: hyper on the same runtime with a fixed answer.
fn serve_bare(answer: Vec<u8>, append: Option<usize>, log: PathBuf) -> ! {
    pin(SERVER_CPU);
    let options = rt::Options { core: Some(SERVER_CPU), ..rt::Options::default() };
    let served = rt::run(&options, move || async move {
        let answer = Bytes::from(answer);
        let log = match append {
            Some(bytes) => Some(Log::start(log, bytes).await),
            None => None,
        };
        let listener = rt::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), true).expect("a free port");
        println!("{}", listener.local_addr().port());
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            stream.set_nodelay(true).expect("a TCP socket");
            let (answer, log) = (answer.clone(), log.clone());
            rt::spawn_local(async move {
                let service = hyper::service::service_fn(move |request| give(answer.clone(), log.clone(), request));
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
            });
        }
    });
    served.expect("the core runs")
}

async fn give(
    answer: Bytes,
    log: Option<Rc<Log>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Some(log) = log {
        let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        log.append(&body).await;
    }
    let mut response = Response::new(Full::new(answer));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The bare append: what arrives while a write is under way goes into the next, whose waiters wake together.
struct Log {
    bytes: usize,
    pending: RefCell<Vec<u8>>,
    waiting: RefCell<Vec<rt::channel::Answer<()>>>,
    writing: Cell<bool>,
    file: rt::File,
    at: Cell<u64>,
}

impl Log {
    async fn start(path: PathBuf, bytes: usize) -> Rc<Log> {
        let file = rt::File::open(path, rt::OpenMode::CreateNew).await.expect("the directory takes a file");
        file.zero_fill(LOG_BYTES).await.expect("there is room");
        let (pending, waiting) = (RefCell::default(), RefCell::default());
        Rc::new(Log { bytes, pending, waiting, writing: Cell::new(false), file, at: Cell::new(0) })
    }

    async fn append(self: &Rc<Self>, body: &[u8]) {
        let (answer, question) = rt::channel::oneshot();
        {
            let mut pending = self.pending.borrow_mut();
            let end = pending.len() + self.bytes;
            pending.extend_from_slice(&body[..body.len().min(self.bytes)]);
            pending.resize(end, b'.');
        }
        self.waiting.borrow_mut().push(answer);
        if !self.writing.replace(true) {
            let log = self.clone();
            rt::spawn_local(async move { log.write().await });
        }
        question.await.expect("the log lives");
    }

    async fn write(&self) {
        let mut buffer = rt::AlignedBuf::with_capacity(1 << 20);
        while !self.pending.borrow().is_empty() {
            buffer.clear();
            buffer.extend_from_slice(&std::mem::take(&mut *self.pending.borrow_mut()));
            buffer.pad_to_block();
            let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
            let end = self.at.get() + buffer.len() as u64;
            let from = if end > LOG_BYTES { 0 } else { self.at.get() };
            self.at.set(from + buffer.len() as u64);
            let (back, result) = self.file.write_at_durable(buffer, from).await;
            result.expect("the disk takes it");
            buffer = back;
            for answer in waiting {
                // a connection that is gone does not wait
                let _ = answer.send(());
            }
        }
        self.writing.set(false);
    }
}

/// This program, to be started in another role.
fn this_program() -> String {
    path(&std::env::current_exe().expect("this program has a path")).to_owned()
}

/// A new directory on the disk that holds the target directory.
fn fresh_directory() -> PathBuf {
    let exe = PathBuf::from(this_program());
    let target = exe.ancestors().find(|a| a.ends_with("release")).and_then(Path::parent);
    let dir = target.unwrap_or(Path::new("/var/tmp")).join(format!("tmp/http-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the target directory takes directories");
    dir
}

fn text_of(v: &Value) -> String {
    v.as_str().expect("a text").to_owned()
}

fn path(p: &Path) -> &str {
    p.to_str().expect("a path of plain text")
}

fn read(file: &str) -> Vec<u8> {
    std::fs::read(file).expect("a file that is there")
}

fn write(file: &Path, bytes: &[u8]) {
    std::fs::write(file, bytes).expect("a directory that is there");
}
