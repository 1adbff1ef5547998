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

/// One exchange over a connection that begins with these bytes.
fn after(port: u16, first: &[u8], request: &str) -> Option<super::harness::Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream.write_all(first).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    super::harness::read_answer(&mut std::io::BufReader::new(stream)).ok()
}

#[test]
fn what_a_listener_may_be_told() {
    let [plain, chroot, proxied, strict, closed, metrics] = std::array::from_fn(|_| free_port());
    let s = start("told", |_| {
        let tcp = |port: u16, more: &str| {
            format!("listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_disable = true\n{more}\n}}\n")
        };
        [
            "log_requests_level = \"info\"\napi_addr = \"http://127.0.0.1:1\"\n".to_owned(),
            tcp(plain, "  redact_addresses = true\n  redact_cluster_name = true\n  redact_version = true"),
            tcp(chroot, "  chroot_namespace = \"team\""),
            tcp(proxied, "  proxy_protocol_behavior = \"use_always\""),
            tcp(
                strict,
                "  proxy_protocol_behavior = \"deny_unauthorized\"\n  proxy_protocol_authorized_addrs = \"10.0.0.0/8\"",
            ),
            tcp(closed, "  telemetry {\n    unauthenticated_metrics_access = true\n    disallow_metrics = true\n  }"),
            tcp(
                metrics,
                "  telemetry {\n    unauthenticated_metrics_access = true\n    metrics_only = true\n    metrics_path = \
                 \"/metrics\"\n  }",
            ),
        ]
        .concat()
    });
    let at = |port: u16, path: &str| format!("http://127.0.0.1:{port}/v1/{path}");
    until(&[&at(plain, "sys/seal-status")]);
    let put = |port: u16, path: &str, token: &str, body: serde_json::Value| {
        let token = format!("X-Vault-Token: {token}");
        let (_, text) = curl(&["-X", "PUT", "-H", &token, "-d", &body.to_string(), &at(port, path)]);
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default()
    };
    let get = |port: u16, path: &str, token: &str| {
        let token = format!("X-Vault-Token: {token}");
        let (_, text) = curl(&["-H", &token, &at(port, path)]);
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default()
    };
    let unsupported = json!(["1 error occurred:\n\t* unsupported path\n\n"]);
    assert_eq!(put(chroot, "sys/init", "", json!({"secret_shares": 1}))["errors"], unsupported);
    let made = put(proxied, "sys/init", "", json!({"secret_shares": 1, "secret_threshold": 1}));
    let root = made["root_token"].as_str().expect("a token").to_owned();
    put(proxied, "sys/unseal", "", json!({"key": made["keys"][0]}));

    // what is left out where it is asked for, and nowhere else
    let blank = |v: &serde_json::Value| v == &json!("");
    let open = get(proxied, "sys/seal-status", "");
    assert!(!blank(&open["version"]) && !blank(&open["cluster_name"]), "{open}");
    for path in ["sys/seal-status", "sys/health"] {
        let status = get(plain, path, "");
        assert!(blank(&status["version"]) && blank(&status["cluster_name"]), "{status}");
        assert_eq!(status["sealed"], json!(false));
    }
    assert!(blank(&get(plain, "sys/leader", "")["leader_address"]));
    assert_eq!(get(proxied, "sys/leader", "")["leader_address"], json!("http://127.0.0.1:1"));

    // a tenant's listener: everything is in its namespace, and the keys of the whole are out of reach
    assert_eq!(put(proxied, "sys/namespaces/team", &root, json!({}))["errors"], json!(null));
    put(proxied, "sys/namespaces/other", &root, json!({}));
    assert_eq!(put(chroot, "sys/mounts/kv", &root, json!({"type": "kv"})), json!(null));
    put(chroot, "kv/a", &root, json!({"k": "v"}));
    assert_eq!(get(proxied, "team/kv/a", &root)["data"], json!({"k": "v"}));
    assert_eq!(get(chroot, "kv/a", &root)["data"], json!({"k": "v"}));
    assert_eq!(get(chroot, "sys/health", "")["sealed"], json!(false));
    let ns = "X-Vault-Namespace: ../other";
    let (_, text) = curl(&["-H", &format!("X-Vault-Token: {root}"), "-H", ns, &at(chroot, "sys/mounts")]);
    assert!(text.contains("errors"), "{text}");
    for path in ["sys/rekey/init", "sys/generate-root/attempt"] {
        assert_eq!(get(chroot, path, &root)["errors"], unsupported, "{path}");
    }
    put(chroot, "sys/seal", &root, json!({}));
    assert_eq!(get(proxied, "sys/seal-status", "")["sealed"], json!(false));

    // the PROXY protocol
    let ask = "GET /v1/sys/init HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let one = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 8200\r\n";
    assert_eq!(after(proxied, one, ask).expect("an answer").status, 200);
    let two = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[192, 0, 2, 8, 127, 0, 0, 1, 0x12, 0x68, 1, 1]].concat();
    assert_eq!(after(proxied, &two, ask).expect("an answer").status, 200);
    assert_eq!(after(proxied, b"", ask).expect("an answer").status, 200);
    assert!(after(proxied, b"PROXY TCP4 nobody\r\n", ask).is_none());
    assert!(after(strict, one, ask).is_none());
    let log = || std::fs::read_to_string(s.scratch.0.join("log")).expect("the log");
    for client in ["client_address=192.0.2.7:4711", "client_address=192.0.2.8:4712", "client_address=127.0.0.1:"] {
        let line = log().lines().filter(|l| l.contains(client)).any(|l| {
            l.contains("completed_request: ")
                && l.contains(" status_code=200 request_path=/v1/sys/init request_method=GET")
        });
        assert!(line, "{client}: {}", log());
    }

    // measurements here, there, or only here
    assert!(get(proxied, "sys/metrics", "")["errors"].is_array());
    assert_eq!(get(closed, "sys/metrics", &root)["errors"], unsupported);
    assert!(get(metrics, "sys/metrics", "")["Gauges"].is_array());
    let (_, text) = curl(&[&format!("http://127.0.0.1:{metrics}/metrics?format=prometheus")]);
    assert!(text.contains("_runtime_alloc_bytes gauge"), "{text}");
    assert_eq!(get(metrics, "sys/seal-status", "")["errors"], unsupported);
}
