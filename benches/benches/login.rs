//! Logins by method, for a service token and for a batch token, as ratios within one run: what a method costs, and
//! what a token that is stored costs beside one that is not.
//!
//! The server is a process of its own with one core on CPU 0 and its data on the real disk; the load is on CPU 1. The two
//! kinds of a method alternate, so that drift of the machine hits both alike; printed are medians. Every login is of
//! one user, whose entity is there already.
//!
//! `cargo bench -p ringfence-benches --bench login [-- [--quick] [--rounds N] [--server PATH]]`; with a path, that
//! binary is measured instead of this build.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ringfence_benches::load::{Load, Outcome, pin};
use ringfence_server::cli::{self, Command as Ringfence, io::Io};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SERVER_CPU: usize = 0;
const LOAD_CPU: usize = 1;
const CONNECTIONS: usize = 64;
/// SubjectPublicKeyInfo of a P-256 point, up to the point (RFC 5480 2).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    if let Some(config) = after("--serve") {
        serve(&config);
    }
    let quick = args.iter().any(|a| a == "--quick");
    let rounds = after("--rounds").and_then(|n| n.parse().ok()).unwrap_or(if quick { 3 } else { 7 });
    let span = Duration::from_millis(if quick { 500 } else { 1500 });
    pin(LOAD_CPU);
    let dir = fresh_directory();
    let server = Server::start(&dir, after("--server"));
    println!("medians of {rounds} rounds of {span:?}, {CONNECTIONS} connections");
    println!("| login by | token | logins/s | CPU us a login | batch / service |");
    println!("|---|---|---|---|---|");
    for method in [userpass, approle, jwt] {
        let (name, logins) = method(&server);
        // the first makes the entity
        let requests = logins.map(|body| request("POST", &body.0, "", body.1.to_string().as_bytes()));
        for request in &requests {
            server.exchange(request);
        }
        let mut seen: [Vec<(f64, f64)>; 2] = Default::default();
        let mut load = Load::connect(server.addr, CONNECTIONS);
        for _ in 0..rounds {
            for (request, seen) in requests.iter().zip(&mut seen) {
                let mut next = |out: &mut Vec<u8>| out.extend_from_slice(request);
                let o: Outcome = load.run(&mut next, span / 5, span, server.child.id());
                seen.push((o.per_second(), o.cpu_us()));
            }
        }
        let median = |of: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = of.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let rates = [0, 1].map(|i| median(&seen[i], |s| s.0));
        for (i, kind) in ["service", "batch"].into_iter().enumerate() {
            let ratio = if i == 1 { format!("{:.2}", rates[1] / rates[0]) } else { String::new() };
            println!("| {name} | {kind} | {:.0} | {:.1} | {ratio} |", rates[i], median(&seen[i], |s| s.1));
        }
    }
    drop(server);
    // what is left behind costs space only
    let _ = std::fs::remove_dir_all(dir);
}

/// Path and body of a login for a service token and for a batch token.
type Logins = [(String, Value); 2];

fn userpass(server: &Server) -> (&'static str, Logins) {
    server.ask("POST", "sys/auth/userpass", json!({"type": "userpass"}));
    let logins = ["service", "batch"].map(|kind| {
        let user = json!({"password": "correct horse", "token_type": kind});
        server.ask("POST", &format!("auth/userpass/users/{kind}"), user);
        (format!("auth/userpass/login/{kind}"), json!({"password": "correct horse"}))
    });
    ("userpass (bcrypt)", logins)
}

fn approle(server: &Server) -> (&'static str, Logins) {
    server.ask("POST", "sys/auth/approle", json!({"type": "approle"}));
    let logins = ["service", "batch"].map(|kind| {
        let role = format!("auth/approle/role/{kind}");
        server.ask("POST", &role, json!({"token_type": kind, "token_ttl": "1h"}));
        let role_id = server.ask("GET", &format!("{role}/role-id"), json!({}))["data"]["role_id"].clone();
        let secret_id = server.ask("POST", &format!("{role}/secret-id"), json!({}))["data"]["secret_id"].clone();
        ("auth/approle/login".to_owned(), json!({"role_id": role_id, "secret_id": secret_id}))
    });
    ("approle", logins)
}

fn jwt(server: &Server) -> (&'static str, Logins) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let public = STANDARD.encode([&P256_PREFIX[..], key.public_key().as_ref()].concat());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n", &public[..64], &public[64..]);
    server.ask("POST", "sys/auth/jwt", json!({"type": "jwt"}));
    server.ask("POST", "auth/jwt/config", json!({"jwt_validation_pubkeys": [pem]}));
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    // 2100: the run ends before
    let text = format!(
        "{}.{}",
        part(&json!({"alg": "ES256"})),
        part(&json!({"sub": "job", "aud": "us", "nbf": 1, "exp": 4_102_444_800_u64}))
    );
    let signature = key.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature");
    let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
    let logins = ["service", "batch"].map(|kind| {
        let role =
            json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": "us", "token_type": kind, "token_ttl": "1h"});
        server.ask("POST", &format!("auth/jwt/role/{kind}"), role);
        ("auth/jwt/login".to_owned(), json!({"role": kind, "jwt": token}))
    });
    ("jwt (ES256)", logins)
}

/// A server in a process of its own, unsealed.
struct Server {
    child: Child,
    addr: SocketAddr,
    root: String,
}

impl Server {
    fn start(dir: &Path, binary: Option<String>) -> Server {
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let config = dir.join("server.hcl");
        let text = format!(
            "storage \"raft\" {{\n  path = \"{}\"\n  node_id = \"n1\"\n}}\nlistener \"tcp\" {{\n  address = \
             \"{addr}\"\n  tls_disable = true\n}}\napi_addr = \"http://{addr}\"\ncluster_addr = \"http://127.0.0.1:1\"\n",
            dir.join("data").display()
        );
        std::fs::write(&config, text).expect("a directory that is there");
        let config = config.to_str().expect("a path of plain text");
        let mut command = match &binary {
            Some(binary) => Command::new(binary),
            None => Command::new(std::env::current_exe().expect("this program has a path")),
        };
        match binary {
            Some(_) => command.args(["server", &format!("-config={config}")]),
            None => command.args(["--serve", config]),
        };
        let child = command.env("RINGFENCE_CORES", "1").stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("the server starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("server started") {
            line.clear();
            assert!(out.read_line(&mut line).expect("a pipe") > 0, "the server has ended at its start");
        }
        // what it says later must not fill the pipe
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let mut server = Server { child, addr, root: String::new() };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(addr).is_err() {
            assert!(Instant::now() < deadline, "the server listens within ten seconds");
            std::thread::sleep(Duration::from_millis(5));
        }
        let made = server.ask("PUT", "sys/init", json!({"secret_shares": 1, "secret_threshold": 1}));
        server.root = made["root_token"].as_str().expect("a token").to_owned();
        server.ask("PUT", "sys/unseal", json!({"key": made["keys_base64"][0]}));
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

    fn ask(&self, method: &str, at: &str, body: Value) -> Value {
        let answer = self.exchange(&request(method, at, &self.root, body.to_string().as_bytes()));
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
    let head = format!(
        "{method} /v1/{at} HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\nx-vault-request: true\r\nx-vault-token: \
         {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The role of the server: the whole program, as its command line starts it.
fn serve(config: &str) -> ! {
    pin(SERVER_CPU);
    let words = ["ringfence".to_owned(), "server".to_owned(), format!("-config={config}")];
    let (mut stdin, mut stdout, mut stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut io = Io::of_process(&mut stdin, &mut stdout, &mut stderr);
    std::process::exit(match cli::run(&words, &mut io) {
        Ringfence::Exit(code) => code,
        Ringfence::Server(args) => ringfence_server::boot::run(&args, &io.env),
    })
}

/// A new directory on the disk that holds the target directory.
fn fresh_directory() -> PathBuf {
    let exe = std::env::current_exe().expect("this program has a path");
    let target = exe.ancestors().find(|a| a.ends_with("release")).and_then(Path::parent);
    let dir = target.unwrap_or(Path::new("/var/tmp")).join(format!("tmp/login-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the target directory takes directories");
    dir
}
