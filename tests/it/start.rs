//! Starting: what refuses it and with which remedy, what is warned of, the drivers, and what a running server takes from
//! its files again.

use super::harness::{self, Answer, Scratch, binary, free_port};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A server over a configuration of the test's own; output and log go to files.
struct Started {
    child: Child,
    scratch: Scratch,
    port: u16,
}

impl Drop for Started {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Started {
    /// Starts words that end in the server's, and waits until it answers.
    fn new(scratch: Scratch, port: u16, words: &[&str], env: &[(&str, &str)]) -> Started {
        let file = |name: &str| std::fs::File::create(scratch.0.join(name)).expect("a file");
        let child = Command::new(words[0])
            .args(&words[1..])
            .envs(env.iter().copied())
            .env("HOME", &scratch.0)
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("log"))
            .spawn()
            .expect("the binary starts");
        let mut s = Started { child, scratch, port };
        s.wait_for(|s| s.try_get("sys/seal-status").is_some());
        s
    }

    /// Over a configuration file.
    fn over(name: &str, text: impl Fn(&Path, u16) -> String, env: &[(&str, &str)]) -> Started {
        let (scratch, port) = (Scratch::new(name), free_port());
        let config = configured(&scratch, &text(&scratch.0, port));
        Started::new(scratch, port, &[&binary().display().to_string(), "server", &config], env)
    }

    fn wait_for(&mut self, happened: impl Fn(&Started) -> bool) {
        let begun = Instant::now();
        while !happened(self) {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the server ended with {status}: {}{}", self.text("out"), self.text("log"));
            }
            assert!(begun.elapsed() < PATIENCE, "never happened: {}{}", self.text("out"), self.text("log"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn try_get(&self, path: &str) -> Option<Answer> {
        self.ask("GET", path, &[], None).ok()
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> std::io::Result<Answer> {
        harness::request(self.port, method, path, headers, body)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.scratch.0.join(name)).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    fn stop(&mut self) {
        self.signal("TERM");
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                assert_eq!(status.code(), Some(0), "{}", self.text("log"));
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Writes a configuration; answers the flag that names it.
fn configured(scratch: &Scratch, text: &str) -> String {
    let path = scratch.0.join("config.hcl");
    std::fs::write(&path, text).expect("the configuration");
    format!("-config={}", path.display())
}

fn tcp(port: u16, more: &str) -> String {
    format!("listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_disable = true\n{more}\n}}\n")
}

fn raft(path: &Path) -> String {
    format!(
        "storage \"raft\" {{\n  path = \"{}\"\n  node_id = \"n1\"\n}}\ncluster_addr = \"http://127.0.0.1:1\"\n",
        path.display()
    )
}

/// Runs a server that is to refuse; answers what it said.
fn refused(args: &[&str]) -> String {
    refused_by(Command::new(binary()).args(args))
}

fn refused_by(command: &mut Command) -> String {
    let out: Output = command.stdin(Stdio::null()).output().expect("the binary runs");
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(1), "{text}");
    text
}

fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn bad_configurations() {
    let scratch = Scratch::new("badconfig");
    holds(&refused(&["server"]), &["Must specify at least one config path using -config"]);
    let nowhere = scratch.0.join("nowhere.hcl").display().to_string();
    holds(&refused(&["server", &format!("-config={nowhere}")]), &["error loading configuration", &nowhere]);
    let bad = configured(&scratch, "storage \"inmem\" {}\nlistener \"tcp\" {\n  address = \n}\n");
    let text = refused(&["server", &bad]);
    // file, line and column
    holds(&text, &["error parsing configuration", "config.hcl:"]);
    let place = text.split("config.hcl:").nth(1).expect("a place");
    assert!(place.split(':').take(2).all(|n| n.trim().parse::<u32>().is_ok()), "{text}");
    holds(&refused(&["server", &configured(&scratch, &tcp(1, ""))]), &["A storage backend must be specified"]);
    let driver = configured(&scratch, &format!("storage \"inmem\" {{}}\n{}", tcp(free_port(), "")));
    let text = refused_by(Command::new(binary()).args(["server", &driver]).env("RINGFENCE_DRIVER", "kqueue"));
    holds(&text, &["RINGFENCE_DRIVER", "auto, io_uring or epoll"]);
}

#[test]
fn unknown_settings_are_warned_of() {
    let s = Started::over(
        "unknown",
        |_, port| format!("storage \"inmem\" {{}}\n{}sparkle = true\n", tcp(port, "  glitter = 7")),
        &[],
    );
    holds(
        &s.text("log"),
        &["[WARN]", "unknown or unsupported field sparkle", "unknown or unsupported field glitter"],
    );
}

#[test]
fn a_taken_port() {
    let scratch = Scratch::new("port");
    // another program's, and another server's: these share a port among their own cores
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = held.local_addr().expect("an address").port();
    let inmem = |port| format!("storage \"inmem\" {{}}\n{}", tcp(port, ""));
    let text = refused(&["server", &configured(&scratch, &inmem(port))]);
    holds(&text, &[&format!("listen tcp 127.0.0.1:{port}: bind: address already in use"), "choose another"]);
    let s = Started::over("port-first", |_, port| inmem(port), &[]);
    let text = refused(&["server", &configured(&scratch, &inmem(s.port))]);
    holds(&text, &["address already in use"]);
    // the first one goes on serving
    s.ask("GET", "sys/seal-status", &[], None).unwrap_or_else(|e| panic!("not answered: {e}; {}", s.text("log")));
}

#[test]
fn directories_that_are_of_no_use() {
    let scratch = Scratch::new("dirs");
    let start = |path: &Path| configured(&scratch, &format!("{}{}", raft(path), tcp(free_port(), "")));
    let file = scratch.0.join("file");
    std::fs::write(&file, "").expect("written");
    let under = file.join("data");
    let text = refused(&["server", &start(&under)]);
    holds(&text, &["cannot make", &under.display().to_string(), "is writable"]);
    // a filesystem that nobody writes to
    let text = refused(&["server", &start(Path::new("/proc/ringfence"))]);
    holds(&text, &["cannot make /proc/ringfence", "is writable"]);
    // a later version's, and somebody else's
    let data = scratch.0.join("data");
    std::fs::create_dir_all(&data).expect("made");
    let mut identity = b"RFNODE\x00\x09".to_vec();
    identity.resize(32, 1);
    std::fs::write(data.join("identity"), &identity).expect("written");
    let text = refused(&["server", &start(&data)]);
    holds(&text, &[&data.display().to_string(), "later version", "start that version"]);
    std::fs::write(data.join("identity"), "something else").expect("written");
    holds(&refused(&["server", &start(&data)]), &["not one of ours"]);
}

#[test]
fn a_directory_has_one_server() {
    let s = Started::over("held", |dir, port| format!("{}{}", raft(&dir.join("data")), tcp(port, "")), &[]);
    let scratch = Scratch::new("held-second");
    let second = format!("{}{}", raft(&s.scratch.0.join("data")), tcp(free_port(), ""));
    holds(&refused(&["server", &configured(&scratch, &second)]), &["in use by another process", "its own"]);
}

/// Runs its words with memory locks of 64 KiB and without the privilege to exceed them.
const SMALL_MEMLOCK: &str = "ulimit -l 64 && \
    if [ $(id -u) = 0 ]; then exec setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock \"$0\" \"$@\"; \
    else exec \"$0\" \"$@\"; fi";

#[test]
fn memory_that_cannot_be_locked_is_told() {
    let (scratch, port) = (Scratch::new("memlock"), free_port());
    let config = configured(&scratch, &format!("storage \"inmem\" {{}}\n{}", tcp(port, "")));
    let binary = binary().display().to_string();
    let mut s = Started::new(scratch, port, &["sh", "-c", SMALL_MEMLOCK, &binary, "server", &config], &[]);
    s.wait_for(|s| s.text("out").contains("started!"));
    holds(&s.text("out"), &["Mlock: not locked (the memlock limit is 64 KiB)"]);
    let swaps = std::fs::read_to_string("/proc/swaps").is_ok_and(|t| t.lines().count() > 1);
    let log = s.text("log");
    assert_eq!(log.contains("keys may be written to disk in plaintext"), swaps, "{log}");
    if swaps {
        holds(&log, &["raise the memlock limit", "disable_mlock"]);
    }
}

/// Forbids io_uring_setup by a filter of system calls, as containers do, and runs its words.
const FORBID_IO_URING: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF, RETURN, ALLOW, EPERM = 0x20, 0x15, 0x06, 0x7fff0000, 0x00050001
code = [(LOAD, 0, 0, 0), (JUMP_IF, 0, 1, 425), (RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW)]
text = b"".join(struct.pack("HBBI", *line) for line in code)
held = ctypes.create_string_buffer(text)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
program = Program(len(code), ctypes.addressof(held))
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program), 0, 0):
    sys.exit("no filter: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// Initialises, unseals, writes and reads; over two cores.
fn round_trip(s: &Started) {
    let put = |path: &str, token: &str, body: serde_json::Value| {
        let body = serde_json::to_vec(&body).expect("json");
        s.ask("PUT", path, &[("X-Vault-Token", token)], Some(&body)).expect("an answer")
    };
    let init = put("sys/init", "", json!({"secret_shares": 1, "secret_threshold": 1})).json();
    let root = init["root_token"].as_str().expect("a token").to_owned();
    assert_eq!(put("sys/unseal", "", json!({"key": init["keys"][0]})).json()["sealed"], false);
    assert_eq!(put("sys/mounts/secret", &root, json!({"type": "kv", "options": {"version": "2"}})).status, 204);
    for i in 0..20 {
        assert_eq!(put(&format!("secret/data/k{i}"), &root, json!({"data": {"v": i}})).status, 200);
        let read = s.ask("GET", &format!("secret/data/k{i}"), &[("X-Vault-Token", &root)], None).expect("an answer");
        assert_eq!(read.json()["data"]["data"]["v"], i);
    }
}

#[test]
fn io_uring_forbidden() {
    let (scratch, port) = (Scratch::new("forbidden"), free_port());
    let config = configured(&scratch, &format!("{}{}", raft(&scratch.0.join("data")), tcp(port, "")));
    let binary = binary().display().to_string();
    let words = ["python3", "-c", FORBID_IO_URING, &binary, "server", &config];
    let mut s = Started::new(scratch, port, &words, &[("RINGFENCE_CORES", "2")]);
    s.wait_for(|s| s.text("out").contains("started!"));
    holds(&s.text("out"), &["Driver: Epoll: io_uring is ", "io_uring_"]);
    holds(&s.text("log"), &["epoll serves instead of io_uring"]);
    round_trip(&s);
    s.stop();
    // demanded, it is an error
    let config = format!("-config={}", s.scratch.0.join("config.hcl").display());
    let words = ["-c", FORBID_IO_URING, &binary, "server", &config];
    let text = refused_by(Command::new("python3").args(words).env("RINGFENCE_DRIVER", "io_uring"));
    holds(&text, &["Error starting the runtime"]);
}

#[test]
fn epoll_by_wish() {
    let mut s = Started::over(
        "epoll",
        |dir, port| format!("{}{}", raft(&dir.join("data")), tcp(port, "")),
        &[("RINGFENCE_DRIVER", "epoll"), ("RINGFENCE_CORES", "2")],
    );
    s.wait_for(|s| s.text("out").contains("started!"));
    holds(&s.text("out"), &["Driver: Epoll"]);
    round_trip(&s);
    s.stop();
}

#[test]
fn the_socket_file() {
    let mut s = Started::over(
        "socket",
        |dir, port| {
            let socket = dir.join("s.sock");
            // what a server that was killed has left
            drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
            // only root may give files away
            let group = if is_root() { "  socket_user = \"root\"\n  socket_group = \"1\"\n" } else { "" };
            format!(
                "storage \"inmem\" {{}}\n{}listener \"unix\" {{\n  address = \"{}\"\n{group}}}\nlistener \"unix\" {{\n  \
                 address = \"{}\"\n  socket_mode = \"0660\"\n}}\n",
                tcp(port, ""),
                socket.display(),
                dir.join("t.sock").display()
            )
        },
        &[],
    );
    let (one, two) = (s.scratch.0.join("s.sock"), s.scratch.0.join("t.sock"));
    let mode = |p: &PathBuf| std::fs::metadata(p).expect("it is there").permissions().mode() & 0o7777;
    assert!(std::fs::metadata(&one).expect("it is there").file_type().is_socket());
    assert_eq!((mode(&one), mode(&two)), (0o600, 0o660));
    if is_root() {
        assert_eq!(std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&one).expect("it is there")), 1);
    }
    let out = Command::new("curl")
        .args(["-sS", "--unix-socket", &one.display().to_string(), "http://x/v1/sys/init"])
        .output()
        .expect("curl");
    holds(&String::from_utf8_lossy(&out.stdout), &["\"initialized\":false"]);
    // in use: refused; and the refused one leaves the socket to its owner
    let scratch = Scratch::new("socket-second");
    let text = format!("storage \"inmem\" {{}}\nlistener \"unix\" {{\n  address = \"{}\"\n}}\n", one.display());
    holds(&refused(&["server", &configured(&scratch, &text)]), &["address already in use"]);
    assert!(one.exists());
    s.stop();
    assert!(!one.exists() && !two.exists());
    std::fs::write(&one, "no socket").expect("written");
    holds(&refused(&["server", &configured(&scratch, &text)]), &["no socket is there"]);
    assert!(one.exists());
}

fn is_root() -> bool {
    let out = Command::new("id").arg("-u").output().expect("id");
    out.stdout.starts_with(b"0\n")
}

#[test]
fn files_of_the_process_and_reload() {
    let config = |dir: &Path, port: u16, level: &str, header: &str| {
        format!(
            "storage \"inmem\" {{}}\n{}log_file = \"{}\"\npid_file = \"{}\"\nlog_level = \"{level}\"\n",
            tcp(
                port,
                &format!("  custom_response_headers {{\n    \"default\" = {{ \"X-Colour\" = [\"{header}\"] }}\n  }}")
            ),
            dir.join("server.log").display(),
            dir.join("pid").display(),
        )
    };
    let mut s = Started::over("files", |dir, port| format!("{}odd = 1\n", config(dir, port, "info", "red")), &[]);
    assert_eq!(s.text("pid").trim(), s.child.id().to_string());
    holds(&s.text("server.log"), &["unknown or unsupported field odd"]);
    let colour = |s: &Started| s.try_get("sys/init").and_then(|a| header_of(&a, "x-colour"));
    assert_eq!(colour(&s).as_deref(), Some("red"));
    // the log is moved away; level and header change
    let moved = s.scratch.0.join("server.log.1");
    std::fs::rename(s.scratch.0.join("server.log"), &moved).expect("moved");
    let port = s.port;
    let new = format!("{}other = 1\n", config(&s.scratch.0, port, "warn", "blue"));
    configured(&s.scratch, &new);
    s.signal("HUP");
    s.wait_for(|s| colour(s).as_deref() == Some("blue") && s.scratch.0.join("server.log").exists());
    // a bad file is logged, and changes nothing
    configured(&s.scratch, "listener {{{");
    s.signal("HUP");
    s.wait_for(|s| s.text("server.log").contains("stays in force"));
    assert_eq!(colour(&s).as_deref(), Some("blue"));
    s.stop();
    assert!(!s.scratch.0.join("pid").exists());
    let unwritable = format!("storage \"inmem\" {{}}\n{}pid_file = \"/proc/nowhere/pid\"\n", tcp(free_port(), ""));
    holds(&refused(&["server", &configured(&s.scratch, &unwritable)]), &["Error storing PID"]);
}

fn header_of(a: &Answer, name: &str) -> Option<String> {
    a.headers.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone())
}

#[test]
fn forwarded_for_and_headers_and_times() {
    let s = Started::over(
        "forwarded",
        |_, port| {
            let strict = "  x_forwarded_for_authorized_addrs = \"127.0.0.0/8\"\n  max_request_duration = \"7s\"\n  \
                http_idle_timeout = \"1s\"\n  http_read_timeout = \"1s\"\n  custom_response_headers {\n    \"default\" = { \"X-A\" = [\"d\"] }\n    \
                \"4xx\" = { \"X-A\" = [\"c\"] }\n    \"404\" = { \"X-A\" = [\"s\"] }\n  }";
            format!("storage \"inmem\" {{}}\nenable_response_header_hostname = true\n{}", tcp(port, strict))
        },
        &[],
    );
    // the test's own waiting was refused and answered all the same
    let plain = s.try_get("sys/seal-status").expect("an answer");
    assert_eq!(plain.status, 400);
    holds(&plain.errors().to_string(), &["missing x-forwarded-for header and configured to reject when not present"]);
    assert_eq!(header_of(&plain, "x-a").as_deref(), Some("c"));
    let ask = |path: &str, value: &str| s.ask("GET", path, &[("X-Forwarded-For", value)], None).expect("an answer");
    let known = ask("sys/seal-status", "9.9.9.9");
    assert_eq!((known.status, header_of(&known, "x-a").as_deref()), (200, Some("d")));
    assert!(header_of(&known, "x-vault-hostname").is_some_and(|h| !h.is_empty()));
    assert_eq!(ask("sys/seal-status", "nonsense").status, 400);
    // no such path: the closest class of headers
    let mut lost = std::net::TcpStream::connect(("127.0.0.1", s.port)).expect("connects");
    lost.write_all(b"GET /v2/x HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n").expect("written");
    let lost = harness::read_answer(&mut std::io::BufReader::new(lost)).expect("an answer");
    assert_eq!((lost.status, header_of(&lost, "x-a").as_deref()), (404, Some("s")));
    // a connection is kept for the next request, then closed
    let mut kept = std::net::TcpStream::connect(("127.0.0.1", s.port)).expect("connects");
    kept.set_read_timeout(Some(PATIENCE)).expect("set");
    for _ in 0..2 {
        kept.write_all(b"GET /v1/sys/init HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n").expect("written");
        let mut r = std::io::BufReader::new(&kept);
        assert_eq!(harness::read_answer(&mut r).expect("an answer").status, 200);
    }
    let begun = Instant::now();
    assert_eq!(kept.read(&mut [0; 16]).expect("the end"), 0);
    assert!(begun.elapsed() < Duration::from_secs(20));
    // a body that does not come
    let mut slow = std::net::TcpStream::connect(("127.0.0.1", s.port)).expect("connects");
    slow.set_read_timeout(Some(PATIENCE)).expect("set");
    slow.write_all(b"PUT /v1/sys/init HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\nContent-Length: 9\r\n\r\n{")
        .expect("written");
    let answer = harness::read_answer(&mut std::io::BufReader::new(&slow)).expect("an answer");
    assert_eq!(answer.status, 400);
    holds(&answer.errors().to_string(), &["too long"]);
}

#[test]
fn forwarded_for_from_strangers() {
    let s = Started::over(
        "strangers",
        |_, port| {
            format!("storage \"inmem\" {{}}\n{}", tcp(port, "  x_forwarded_for_authorized_addrs = [\"10.0.0.0/8\"]"))
        },
        &[],
    );
    let a = s.ask("GET", "sys/init", &[("X-Forwarded-For", "10.1.1.1")], None).expect("an answer");
    assert_eq!(a.status, 400);
    let text = "client address not authorized for x-forwarded-for and configured to reject connection";
    assert_eq!(a.errors(), json!([text]));
}

#[test]
fn dev_tls_and_loggers() {
    let (scratch, port) = (Scratch::new("devtls"), free_port());
    let binary = binary().display().to_string();
    let address = format!("-dev-listen-address=127.0.0.1:{port}");
    let words = [&binary, "server", "-dev-tls", "-dev-root-token-id=root", &address];
    let file = |name: &str| std::fs::File::create(scratch.0.join(name)).expect("a file");
    let child = Command::new(words[0])
        .args(&words[1..])
        .env("HOME", &scratch.0)
        .stdin(Stdio::null())
        .stdout(file("out"))
        .stderr(file("log"))
        .spawn()
        .expect("the binary starts");
    let mut s = Started { child, scratch, port };
    s.wait_for(|s| s.text("out").contains("started!"));
    let out = s.text("out");
    holds(&out, &[&format!("VAULT_ADDR='https://127.0.0.1:{port}'"), "Root Token: root"]);
    let ca = out.split("VAULT_CACERT='").nth(1).and_then(|t| t.split('\'').next()).expect("a path").to_owned();
    let ask = |method: &str, path: &str, body: &str| {
        let url = format!("https://localhost:{port}/v1/{path}");
        let mut words = vec!["-sS", "--cacert", &ca, "-X", method, "-H", "X-Vault-Token: root", &url];
        if !body.is_empty() {
            words.extend(["-d", body]);
        }
        let out = Command::new("curl").args(words).output().expect("curl");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap_or_default()
    };
    ask("POST", "secret/data/a", r#"{"data":{"b":"c"}}"#);
    assert_eq!(ask("GET", "secret/data/a", "")["data"]["data"]["b"], "c");
    // the wished root token is one that was created, as its look-up shows
    let token = ask("GET", "auth/token/lookup-self", "")["data"].clone();
    assert_eq!((&token["display_name"], &token["path"]), (&"token".into(), &"auth/token/create".into()));
    assert!(token["issue_time"].is_string() && token["renewable"] == false, "{token}");
    holds(&out, &["max_request_duration: \"1m30s\""]);
    // gauges do not bear the machine's name in this mode
    let gauges = ask("GET", "sys/metrics", "")["Gauges"].to_string();
    holds(&gauges, &["\"vault.core.in_flight_requests\""]);
    assert_eq!(ask("GET", "sys/loggers", "")["data"]["core"], "info");
    ask("POST", "sys/loggers", r#"{"level":"debug"}"#);
    assert_eq!(ask("GET", "sys/loggers/core", "")["data"]["core"], "debug");
    ask("DELETE", "sys/loggers/core", "");
    assert_eq!(ask("GET", "sys/loggers", "")["data"]["core"], "info");
    assert!(ask("GET", "sys/loggers/nobody", "")["errors"].to_string().contains("not found"));
    // our own command line trusts it too
    let env: BTreeMap<&str, String> = BTreeMap::from([
        ("VAULT_ADDR", format!("https://127.0.0.1:{port}")),
        ("VAULT_CACERT", ca.clone()),
        ("VAULT_TOKEN", "root".to_owned()),
    ]);
    let out = Command::new(&binary).args(["kv", "get", "-field=b", "secret/a"]).envs(&env).output().expect("runs");
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "c");
    s.stop();
    assert!(!Path::new(&ca).exists());
}

#[test]
fn metrics_without_a_token() {
    let open = "  telemetry {\n    unauthenticated_metrics_access = true\n  }";
    let s = Started::over("metrics", |_, port| format!("storage \"inmem\" {{}}\n{}", tcp(port, open)), &[]);
    let a = s.try_get("sys/metrics?format=prometheus").expect("an answer");
    assert_eq!(a.status, 200);
    assert!(header_of(&a, "content-type").is_some_and(|t| t.starts_with("text/plain")));
    holds(&String::from_utf8_lossy(&a.body), &["vault_core_handle_request_count"]);
    assert!(s.try_get("sys/metrics").expect("an answer").json()["Gauges"].is_array());
    let closed = Started::over("closed", |_, port| format!("storage \"inmem\" {{}}\n{}", tcp(port, "")), &[]);
    assert_ne!(closed.try_get("sys/metrics").expect("an answer").status, 200);
}
