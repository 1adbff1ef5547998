//! A server of the real binary in a directory of its own, and a small HTTP client over plain sockets, so that nothing
//! stands between a test and the bytes.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Everything a test waits for happens within this, or the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory that goes when the test ends.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringfence-{name}-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // the directory may hold a mount point that is gone already; what is left is the system's to clean
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running server.
pub struct Server {
    child: Option<Child>,
    pub port: u16,
    pub scratch: Scratch,
    pub keys: Vec<String>,
    pub root: String,
    env: Vec<(String, String)>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn errors(&self) -> Value {
        self.json()["errors"].clone()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// The built binary.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ringfence"))
}

/// A port that nobody listens on, below the range from which the kernel gives ports to clients: one of that range may
/// be some client's own port by the time the server binds it, which made starts fail now and then under load.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let above: u32 = range.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(32_768);
    let (low, high) = if above > 12_000 { (10_000, above.min(60_000)) } else { (61_001, 65_000) };
    // several runs of these tests on one machine begin at different places
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    let begin = std::process::id().wrapping_mul(2_654_435_761).wrapping_add(nanos >> 10);
    for _ in 0..1000 {
        let n = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(7919));
        let port = (low + n % (high - low)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

impl Server {
    /// Starts a durable server that is not initialised.
    pub fn blank(name: &str) -> Server {
        Server::blank_at(name, Scratch::new(name), &[])
    }

    /// As [`Server::blank`], in a directory the test prepared, with further environment.
    pub fn blank_at(_name: &str, scratch: Scratch, env: &[(&str, &str)]) -> Server {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut s = Server { child: None, port: free_port(), scratch, keys: Vec::new(), root: String::new(), env };
        s.start();
        s
    }

    /// Starts a durable server, initialised with one share and unsealed.
    pub fn ready(name: &str) -> Server {
        let mut s = Server::blank(name);
        s.init(1, 1);
        s.unseal();
        s
    }

    pub fn init(&mut self, shares: u32, threshold: u32) {
        let a = self.put("sys/init", "", &json!({"secret_shares": shares, "secret_threshold": threshold}));
        assert_eq!(a.status, 200, "{:?}", a.errors());
        let v = a.json();
        self.keys =
            v["keys_base64"].as_array().expect("keys").iter().map(|k| k.as_str().expect("text").to_owned()).collect();
        self.root = v["root_token"].as_str().expect("token").to_owned();
    }

    pub fn unseal(&self) {
        for key in &self.keys {
            let a = self.put("sys/unseal", "", &json!({"key": key}));
            assert_eq!(a.status, 200, "{:?}", a.errors());
            if a.json()["sealed"] == false {
                return;
            }
        }
        panic!("still sealed after all keys");
    }

    pub fn data_dir(&self) -> PathBuf {
        self.scratch.0.join("data")
    }

    /// Starts the process over the same directory and waits until it answers.
    pub fn start(&mut self) {
        self.spawn();
        let begun = Instant::now();
        while self.try_get("sys/health", "").is_none() {
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                panic!("the server ended with {status}: {}", self.log());
            }
            assert!(begun.elapsed() < PATIENCE, "the server does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the process without waiting.
    pub fn spawn(&mut self) {
        let config = self.scratch.0.join("config.hcl");
        let text = format!(
            "storage \"raft\" {{\n  path = \"{}\"\n  node_id = \"n1\"\n}}\nlistener \"tcp\" {{\n  address = \
             \"127.0.0.1:{}\"\n  cluster_address = \"127.0.0.1:0\"\n  tls_disable = true\n}}\napi_addr = \"http://127.0.0.1:{}\"\ncluster_addr = \
             \"http://127.0.0.1:1\"\n",
            self.data_dir().display(),
            self.port,
            self.port
        );
        std::fs::write(&config, text).expect("the configuration");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.scratch.0.join("log"))
            .expect("the log file");
        let mut command = Command::new(binary());
        command
            .args(["server", &format!("-config={}", config.display())])
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().expect("the binary starts"));
    }

    /// Waits for the process to end by itself; answers its exit code.
    pub fn wait_end(&mut self) -> Option<i32> {
        let begun = Instant::now();
        let mut child = self.child.take().expect("a running server");
        loop {
            if let Some(status) = child.try_wait().expect("a child") {
                return status.code();
            }
            if begun.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("the server does not end: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut c) = self.child.take() {
            let _ = c.kill();
            let _ = c.wait();
        }
    }

    /// A signal by name, to this process only.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.0.join("log")).unwrap_or_default()
    }

    pub fn get(&self, path: &str, token: &str) -> Answer {
        self.request("GET", path, token, None)
    }

    pub fn try_get(&self, path: &str, token: &str) -> Option<Answer> {
        request(self.port, "GET", path, &[("X-Vault-Token", token)], None).ok()
    }

    pub fn put(&self, path: &str, token: &str, body: &Value) -> Answer {
        self.request("PUT", path, token, Some(&serde_json::to_vec(body).expect("json")))
    }

    pub fn list(&self, path: &str, token: &str) -> Answer {
        self.request("LIST", path, token, None)
    }

    pub fn request(&self, method: &str, path: &str, token: &str, body: Option<&[u8]>) -> Answer {
        request(self.port, method, path, &[("X-Vault-Token", token)], body)
            .unwrap_or_else(|e| panic!("{method} {path}: {e}; log: {}", self.log()))
    }

    /// Runs our own command line against this server; answers exit code, output and errors.
    pub fn cli(&self, args: &[&str]) -> (i32, String, String) {
        let out = Command::new(binary())
            .args(args)
            .env("VAULT_ADDR", format!("http://127.0.0.1:{}", self.port))
            .env("VAULT_TOKEN", &self.root)
            .env("HOME", &self.scratch.0)
            .stdin(Stdio::null())
            .output()
            .expect("the command line runs");
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One request on a connection of its own.
pub fn request(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> std::io::Result<Answer> {
    let mut s = TcpStream::connect(("127.0.0.1", port))?;
    s.set_read_timeout(Some(PATIENCE))?;
    s.set_nodelay(true)?;
    let mut head = format!("{method} /v1/{path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n");
    for (k, v) in headers.iter().filter(|(_, v)| !v.is_empty()) {
        head.push_str(&format!("{k}: {v}\r\n"));
    }
    if let Some(b) = body {
        head.push_str(&format!("Content-Length: {}\r\n", b.len()));
    }
    head.push_str("\r\n");
    s.write_all(head.as_bytes())?;
    // a server that refuses early closes before it has read all of a giant body
    let _ = s.write_all(body.unwrap_or_default());
    read_answer(&mut BufReader::new(s))
}

/// Reads an answer with a length, or to the end.
pub fn read_answer(r: &mut impl BufRead) -> std::io::Result<Answer> {
    let bad = || std::io::Error::other("not an HTTP answer");
    let mut line = String::new();
    r.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(bad)?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        r.read_line(&mut line)?;
        let Some((k, v)) = line.trim_end().split_once(':') else { break };
        headers.push((k.to_owned(), v.trim().to_owned()));
    }
    let length = headers.iter().find(|(k, _)| k.eq_ignore_ascii_case("content-length")).map(|(_, v)| v.parse());
    let mut body = Vec::new();
    match length {
        Some(Ok(n)) => {
            body.resize(n, 0);
            r.read_exact(&mut body)?;
        }
        _ if status == 204 => {}
        _ => {
            r.read_to_end(&mut body)?;
        }
    }
    Ok(Answer { status, headers, body })
}
