//! Listeners over the real binary: TLS with reload, HTTP/2, a unix socket, slow clients, a drained shutdown.

use super::harness::{Scratch, Server, binary, free_port};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server with a configuration of the test's own; ends with the test.
struct Custom {
    child: Child,
    scratch: Scratch,
}

impl Drop for Custom {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(name: &str, listeners: impl Fn(&Scratch) -> String) -> Custom {
    let scratch = Scratch::new(name);
    let text = format!("storage \"inmem\" {{}}\n{}\n", listeners(&scratch));
    let config = scratch.0.join("config.hcl");
    std::fs::write(&config, text).expect("the configuration");
    let log = std::fs::File::create(scratch.0.join("log")).expect("the log file");
    let child = Command::new(binary())
        .args(["server", &format!("-config={}", config.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the binary starts");
    Custom { child, scratch }
}

fn curl(args: &[&str]) -> (bool, String) {
    let out = Command::new("curl").args(["-sS", "--max-time", "10"]).args(args).output().expect("curl");
    (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Asks until it is answered.
fn until(args: &[&str]) -> String {
    let begun = Instant::now();
    loop {
        if let (true, text) = curl(args) {
            return text;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "never answered: {args:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn certificate(scratch: &Scratch, name: &str) {
    let made =
        rcgen::generate_simple_self_signed(vec![name.to_owned(), "127.0.0.1".to_owned()]).expect("a certificate");
    std::fs::write(scratch.0.join("cert.pem"), made.cert.pem()).expect("written");
    std::fs::write(scratch.0.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
}

#[test]
fn tls_http2_and_reload() {
    let port = free_port();
    let s = start("tls", |scratch| {
        certificate(scratch, "first.test");
        let dir = scratch.0.display();
        format!(
            "listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_cert_file = \"{dir}/cert.pem\"\n  \
             tls_key_file = \"{dir}/key.pem\"\n}}"
        )
    });
    let ca = s.scratch.0.join("cert.pem").display().to_string();
    let status = &format!("https://127.0.0.1:{port}/v1/sys/seal-status");
    assert!(until(&["--cacert", &ca, status]).contains("\"sealed\":true"));
    let version = until(&["--cacert", &ca, "--http2", "-o", "/dev/null", "-w", "%{http_version}", status]);
    assert_eq!(version, "2");
    let version = until(&["--cacert", &ca, "--http1.1", "-o", "/dev/null", "-w", "%{http_version}", status]);
    assert_eq!(version, "1.1");
    // a new certificate after SIGHUP; the old one is not accepted for it any more
    let old = std::fs::read(&ca).expect("the certificate");
    certificate(&s.scratch, "second.test");
    let reload = Command::new("kill").args(["-HUP", &s.child.id().to_string()]).status();
    assert!(reload.expect("kill").success());
    assert!(until(&["--cacert", &ca, status]).contains("\"sealed\":true"));
    let old_ca = s.scratch.0.join("old.pem");
    std::fs::write(&old_ca, old).expect("written");
    assert!(!curl(&["--cacert", &old_ca.display().to_string(), status]).0);
    // garbage at the door does not hurt
    let mut garbage = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
    assert!(until(&["--cacert", &ca, status]).contains("\"sealed\":true"));
}

#[test]
fn a_unix_socket_beside_a_port() {
    let port = free_port();
    let s = start("unix", |scratch| {
        format!(
            "listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_disable = true\n}}\nlistener \"unix\" {{\n  \
             address = \"{}/ringfence.sock\"\n}}",
            scratch.0.display()
        )
    });
    let socket = s.scratch.0.join("ringfence.sock").display().to_string();
    assert!(until(&[&format!("http://127.0.0.1:{port}/v1/sys/init")]).contains("\"initialized\":false"));
    assert!(until(&["--unix-socket", &socket, "http://x/v1/sys/init"]).contains("\"initialized\":false"));
    // and our own command line speaks to it
    let out = Command::new(binary())
        .args(["operator", "init", "-status"])
        .env("VAULT_ADDR", format!("unix://{socket}"))
        .env("HOME", &s.scratch.0)
        .output()
        .expect("the command line runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert_eq!((out.status.code(), text.contains("not initialized")), (Some(2), true), "{text}");
}

#[test]
fn a_client_that_dawdles_is_let_go() {
    let s = Server::ready("slow");
    let mut half = TcpStream::connect(("127.0.0.1", s.port)).expect("connects");
    half.set_read_timeout(Some(Duration::from_secs(25))).expect("set");
    half.write_all(b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n").expect("written");
    let begun = Instant::now();
    let mut rest = Vec::new();
    // the server hangs up, with or without a word; a healthy client is served meanwhile
    assert_eq!(s.get("sys/health", "").status, 200);
    let _ = half.read_to_end(&mut rest);
    assert!(begun.elapsed() < Duration::from_secs(20), "it still waits");
}

#[test]
fn shutdown_answers_what_is_under_way() {
    let mut s = Server::ready("drain");
    s.put("sys/auth/userpass", &s.root, &json!({"type": "userpass"}));
    s.put("auth/userpass/users/bob", &s.root, &json!({"password": "right"}));
    // bcrypt takes a while: the signal falls into it
    let port = s.port;
    let login = std::thread::spawn(move || {
        let body = br#"{"password":"right"}"#;
        super::harness::request(port, "PUT", "auth/userpass/login/bob", &[], Some(body)).map(|a| a.status)
    });
    std::thread::sleep(Duration::from_millis(30));
    s.signal("TERM");
    assert_eq!(s.wait_end(), Some(0));
    let status = login.join().expect("the client");
    assert!(status.is_err() || matches!(status, Ok(200)), "{status:?}");
}

#[test]
fn rot_in_the_log_stops_the_node_and_names_the_place() {
    let mut s = Server::ready("rot");
    s.put("sys/mounts/secret", &s.root, &json!({"type": "kv", "options": {"version": "1"}}));
    for i in 0..50 {
        s.put(&format!("secret/k{i}"), &s.root, &json!({"v": i}));
    }
    s.kill();
    let mut segments: Vec<_> = std::fs::read_dir(s.data_dir().join("log"))
        .expect("the log")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "seg"))
        .collect();
    segments.sort();
    let mut bytes = std::fs::read(&segments[0]).expect("a segment");
    let used = bytes.iter().rposition(|b| *b != 0).expect("it was written");
    bytes[used / 2] ^= 0x40;
    std::fs::write(&segments[0], &bytes).expect("written");
    s.spawn();
    assert_eq!(s.wait_end(), Some(1));
    let log = s.log();
    assert!(log.contains("is damaged") && log.contains("log segment 1 at offset"), "{log}");
}
