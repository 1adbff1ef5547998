//! What stands around the engines: cross-origin requests, the log as a stream, requests under way, audit of the key
//! ceremonies, wrapping tokens in JWT form, listeners that keep endpoints closed, measurements pushed out.

use super::harness::{Answer, Scratch, Server, binary, free_port, read_answer, request};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A development server with a listener of the test's own; ends with the test.
struct Custom {
    child: Child,
    port: u16,
    scratch: Scratch,
}

impl Drop for Custom {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Custom {
    /// `listener` stands in the listener's stanza, `top` beside it.
    fn start(name: &str, listener: &str, top: impl Fn(&Path) -> String) -> Custom {
        let (scratch, port) = (Scratch::new(name), free_port());
        let text = format!(
            "storage \"inmem\" {{}}\nlistener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_disable = true\n\
             {listener}\n}}\n{}\n",
            top(&scratch.0)
        );
        let config = scratch.0.join("config.hcl");
        std::fs::write(&config, text).expect("the configuration");
        let log = std::fs::File::create(scratch.0.join("err")).expect("the log file");
        let child = Command::new(binary())
            .args(["server", &format!("-config={}", config.display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let s = Custom { child, port, scratch };
        until("the server answers", || request(s.port, "GET", "sys/seal-status", &[], None).ok());
        s
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let body = body.map(|b| b.to_string().into_bytes());
        request(self.port, method, path, headers, body.as_deref()).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// Initialises and unseals; answers the root token and the share.
    fn open(&self) -> (String, String) {
        let a = self.ask("PUT", "sys/init", &[], Some(&json!({"secret_shares": 1, "secret_threshold": 1})));
        let v = a.json();
        let text = |v: &Value| v.as_str().expect("text").to_owned();
        let (root, key) = (text(&v["root_token"]), text(&v["keys"][0]));
        assert_eq!(self.ask("PUT", "sys/unseal", &[], Some(&json!({"key": key}))).status, 200);
        (root, key)
    }
}

/// Waits for something to be there.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn pages_of_other_origins() {
    let s = Server::ready("cors");
    let with = |method: &str, headers: &[(&str, &str)]| {
        let mut all = vec![("X-Vault-Token", s.root.as_str())];
        all.extend(headers);
        request(s.port, method, "sys/mounts", &all, None).expect("an answer")
    };
    let page = ("Origin", "https://ui.example");
    // off: nobody is told anything
    let a = with("GET", &[page]);
    assert_eq!((a.status, a.header("access-control-allow-origin")), (200, None));
    let on = json!({"allowed_origins": ["https://ui.example"], "allowed_headers": ["X-Own"]});
    assert_eq!(s.put("sys/config/cors", &s.root, &on).status, 204);
    let a = with("GET", &[page]);
    assert_eq!((a.status, a.header("access-control-allow-origin")), (200, Some("https://ui.example")));
    assert_eq!(a.header("vary"), Some("Origin"));
    let a = with("GET", &[("Origin", "https://evil.example")]);
    assert_eq!((a.status, a.errors()), (403, json!(["origin not allowed"])));
    assert_eq!(a.header("access-control-allow-origin"), None);
    let a = with("OPTIONS", &[page, ("Access-Control-Request-Method", "PUT")]);
    assert_eq!((a.status, a.body.len()), (200, 0));
    assert_eq!(a.header("access-control-max-age"), Some("300"));
    let names = a.header("access-control-allow-headers").expect("headers");
    assert!(names.contains("X-Vault-Token") && names.contains("X-Own"), "{names}");
    let a = with("OPTIONS", &[page, ("Access-Control-Request-Method", "TRACE")]);
    assert_eq!(a.status, 405);
    // requests that name no origin are no pages
    assert_eq!(with("GET", &[]).status, 200);
    assert_eq!(s.request("DELETE", "sys/config/cors", &s.root, None).status, 204);
    assert_eq!(with("GET", &[("Origin", "https://evil.example")]).status, 200);
}

#[test]
fn the_log_as_a_stream() {
    let mut s = Server::ready("monitor");
    for (query, told) in [("log_level=loud", "unknown log level"), ("log_format=xml", "unknown log format")] {
        let a = s.get(&format!("sys/monitor?{query}"), &s.root);
        assert_eq!((a.status, a.errors()), (400, json!([told])));
    }
    assert_eq!(s.get("sys/monitor", "").status, 403);
    let mut stream = TcpStream::connect(("127.0.0.1", s.port)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let head = format!(
        "GET /v1/sys/monitor?log_level=error&log_format=json HTTP/1.1\r\nHost: t\r\nX-Vault-Token: {}\r\n\r\n",
        s.root
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("a status");
    assert!(line.contains(" 200 "), "{line}");
    // a reload that fails is told at once
    std::fs::write(s.scratch.0.join("config.hcl"), "storage {").expect("written");
    s.signal("HUP");
    let found = until("a line of the log", || {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let v: Value = serde_json::from_str(line.trim()).ok()?;
        v["@message"].as_str().is_some_and(|m| m.contains("the configuration of before stays")).then_some(v)
    });
    assert_eq!(found["@level"], "error");
    // the command line prints the same until it is stopped, and the end of the server ends both
    s.signal("TERM");
    assert_eq!(s.wait_end(), Some(0));
    let mut rest = Vec::new();
    let _ = reader.read_to_end(&mut rest);
}

#[test]
fn requests_under_way() {
    let s = Custom::start(
        "inflight",
        "  inflight_requests_logging { unauthenticated_in_flight_requests_access = true }",
        |_| String::new(),
    );
    let (root, _) = s.open();
    let mut slow = TcpStream::connect(("127.0.0.1", s.port)).expect("a connection");
    let head = format!(
        "PUT /v1/sys/policies/acl/slow HTTP/1.1\r\nHost: t\r\nX-Vault-Token: {root}\r\nContent-Length: 100\r\n\r\n{{"
    );
    slow.write_all(head.as_bytes()).expect("sent");
    let row = until("the slow request is shown", || {
        let all = s.ask("GET", "sys/in-flight-req", &[("X-Vault-Token", &root)], None).json();
        all.as_object()?.values().find(|r| r["request_path"] == "/v1/sys/policies/acl/slow").cloned()
    });
    assert_eq!((&row["request_method"], &row["client_id"]), (&json!("PUT"), &json!("")));
    assert!(row["client_remote_address"].as_str().is_some_and(|a| a.starts_with("127.0.0.1:")), "{row}");
    assert!(row["start_time"].is_string());
    // this listener shows them to anybody, and a request that ended is gone
    drop(slow);
    until("it is gone", || {
        let all = s.ask("GET", "sys/in-flight-req", &[], None);
        assert_eq!(all.status, 200);
        let there = all.json().as_object()?.values().any(|r| r["request_path"] == "/v1/sys/policies/acl/slow");
        (!there).then_some(())
    });
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("not JSON: {e}: {l}"))).collect()
}

#[test]
fn key_ceremonies_are_audited_and_their_secrets_hashed() {
    let s = Server::ready("ceremony-audit");
    let file = s.scratch.0.join("audit.log");
    let device = json!({"type": "file", "options": {"file_path": file.display().to_string()}});
    assert_eq!(s.put("sys/audit/file", &s.root, &device).status, 204);
    let before = lines(&file).len();
    let started = s.put("sys/generate-root/attempt", "", &json!({}));
    assert_eq!(started.status, 200, "{:?}", started.errors());
    let nonce = started.json()["nonce"].clone();
    let done = s.put("sys/generate-root/update", "", &json!({"key": s.keys[0], "nonce": nonce}));
    assert_eq!(done.json()["complete"], true, "{:?}", done.json());
    let refused = s.put("sys/rekey/update", "", &json!({"key": s.keys[0], "nonce": "x"}));
    assert_eq!(refused.status, 400);
    assert_eq!(s.get("sys/seal-status", "").status, 200);
    let all = lines(&file);
    let told = &all[before..];
    assert_eq!(told.len(), 6, "status is not audited, ceremonies are: {told:?}");
    for pair in told.chunks(2) {
        assert_eq!((&pair[0]["type"], &pair[1]["type"]), (&json!("request"), &json!("response")));
        assert_eq!(pair[0]["request"]["id"], pair[1]["request"]["id"]);
        assert_eq!(pair[0]["request"]["operation"], "update");
    }
    assert_eq!(told[2]["request"]["path"], "sys/generate-root/update");
    let hashed = |v: &Value| v.as_str().is_some_and(|t| t.starts_with("hmac-sha256:"));
    assert!(hashed(&told[2]["request"]["data"]["key"]), "{}", told[2]);
    assert!(hashed(&told[3]["response"]["data"]["encoded_token"]), "{}", told[3]);
    assert!(told[5]["error"].as_str().is_some_and(|e| e.contains("no barrier rekey in progress")), "{}", told[5]);
    let text = std::fs::read_to_string(&file).expect("the file");
    for secret in [s.keys[0].as_str(), done.json()["encoded_token"].as_str().expect("token")] {
        assert!(!text.contains(secret), "a secret stands in the audit file");
    }
    // a prefix that would make one entry pass for two
    for prefix in ["a\nb", &"x".repeat(300)] {
        let body = json!({"type": "file", "options": {"file_path": "discard", "prefix": prefix}});
        assert_eq!(s.put("sys/audit/second", &s.root, &body).status, 400);
    }
}

#[test]
fn no_line_no_ceremony() {
    let s = Server::ready("ceremony-blocked");
    // a device whose other end goes away
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let device = json!({"type": "socket", "options": {"address": address, "socket_type": "tcp"}});
    assert_eq!(s.put("sys/audit/socket", &s.root, &device).status, 204);
    drop(listener);
    until("the device is gone", || (s.get("sys/mounts", &s.root).status == 500).then_some(()));
    let a = s.put("sys/generate-root/attempt", "", &json!({}));
    assert_eq!(a.status, 500);
    assert_eq!(s.get("sys/seal-status", "").status, 200, "status needs no line");
}

#[test]
fn cve_2025_4656_endpoints_that_a_listener_keeps_closed() {
    let closed = "  disable_unauthed_rekey_endpoints = true\n  disable_unauthed_generate_root_endpoints = true\n  \
                  disable_replication_status_endpoints = true";
    let s = Custom::start("closed", closed, |_| String::new());
    let (root, key) = s.open();
    for (method, path) in [
        ("GET", "sys/rekey/init"),
        ("PUT", "sys/rekey/update"),
        ("DELETE", "sys/rekey/verify"),
        ("GET", "sys/generate-root/attempt"),
        ("PUT", "sys/generate-root/update"),
        ("GET", "sys/replication/status"),
        ("GET", "sys/replication/dr/status"),
    ] {
        let body = json!({"key": key, "nonce": ""});
        let a = s.ask(method, path, &[("X-Vault-Token", &root)], (method == "PUT").then_some(&body));
        assert_eq!((a.status, a.errors()), (404, json!(["1 error occurred:\n\t* unsupported path\n\n"])), "{path}");
    }
    // what stands under a policy stays open
    let a = s.ask("GET", "sys/rekey/backup", &[("X-Vault-Token", &root)], None);
    assert_eq!((a.status, a.errors()), (400, json!(["no backed-up keys found"])));
}

#[test]
fn wrapping_tokens_as_jwt() {
    let s = Server::ready("jwt");
    let headers = |more: &[(&'static str, &'static str)]| -> Vec<(String, String)> {
        let mut all = vec![("X-Vault-Token".to_owned(), s.root.clone())];
        all.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        all
    };
    let all = headers(&[("X-Vault-Wrap-TTL", "60"), ("X-Vault-Wrap-Format", "jwt")]);
    let all: Vec<(&str, &str)> = all.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let a = request(s.port, "GET", "auth/token/lookup-self", &all, None).expect("an answer");
    let token = a.json()["wrap_info"]["token"].as_str().expect("a token").to_owned();
    assert_eq!(token.matches('.').count(), 2, "{token}");
    let a = s.put("sys/wrapping/lookup", "", &json!({"token": token}));
    assert_eq!((a.status, &a.json()["data"]["creation_path"]), (200, &json!("auth/token/lookup-self")));
    let mut forged = token.clone();
    let last = forged.pop().expect("a character");
    forged.push(if last == 'A' { 'Q' } else { 'A' });
    assert_eq!(s.put("sys/wrapping/unwrap", &s.root, &json!({"token": forged})).status, 400);
    let a = s.put("sys/wrapping/unwrap", &token, &Value::Null);
    assert_eq!((a.status, &a.json()["data"]["policies"]), (200, &json!(["root"])), "{:?}", a.errors());
    assert_eq!(s.put("sys/wrapping/unwrap", &token, &Value::Null).status, 400, "once");
    let pem = s.get("sys/wrapping/pubkey", "").json()["data"]["public_key"].as_str().expect("a key").to_owned();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----"));
}

#[test]
fn a_large_kv_mount_is_upgraded_at_once() {
    let s = Server::ready("kv-upgrade");
    assert_eq!(s.put("sys/mounts/old", &s.root, &json!({"type": "kv"})).status, 204);
    let port = s.port;
    let root = s.root.clone();
    std::thread::scope(|scope| {
        for t in 0..4 {
            let root = &root;
            scope.spawn(move || {
                let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).expect("connects"));
                for i in (t..1200).step_by(4) {
                    let body = format!("{{\"n\":{i}}}");
                    let head = format!(
                        "PUT /v1/old/s{i} HTTP/1.1\r\nHost: t\r\nX-Vault-Token: {root}\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    stream.get_mut().write_all(head.as_bytes()).expect("sent");
                    assert_eq!(read_answer(&mut stream).expect("an answer").status, 204);
                }
            });
        }
    });
    let a = s.put("sys/mounts/old/tune", &s.root, &json!({"options": {"version": "2"}}));
    assert_eq!(a.status, 200);
    assert!(a.json()["warnings"][0].as_str().is_some_and(|w| w.starts_with("Upgrading mount")), "{:?}", a.json());
    let a = s.get("old/data/s1100", &s.root).json();
    assert_eq!((&a["data"]["data"]["n"], &a["data"]["metadata"]["version"]), (&json!(1100), &json!(1)));
    assert_eq!(s.list("old/metadata", &s.root).json()["data"]["keys"].as_array().map(Vec::len), Some(1200));
    let a = s.put("old/data/s1100", &s.root, &json!({"data": {"n": "new"}}));
    assert_eq!(a.json()["data"]["version"], 2);
    let a = s.get("old/data/s1100?version=1", &s.root).json();
    assert_eq!(a["data"]["data"]["n"], 1100);
}

#[test]
fn leases_of_tokens_are_listed() {
    let s = Server::ready("token-leases");
    s.put("sys/auth/userpass", &s.root, &json!({"type": "userpass"}));
    s.put("auth/userpass/users/bob", &s.root, &json!({"password": "right"}));
    assert_eq!(s.put("auth/userpass/login/bob", "", &json!({"password": "right"})).status, 200);
    let keys = |path: &str| s.list(path, &s.root).json()["data"]["keys"].clone();
    assert_eq!(keys("sys/leases/lookup/auth/userpass/login"), json!(["bob/"]));
    let found = keys("sys/leases/lookup/auth/userpass/login/bob");
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(s.put("sys/leases/revoke-prefix/auth/userpass/login/bob", &s.root, &json!({})).status, 204);
    until("the token is gone from the list", || {
        (s.list("sys/leases/lookup/auth/userpass/login", &s.root).status == 404).then_some(())
    });
}

#[test]
fn measurements_are_pushed_and_log_files_turned() {
    let sink = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    sink.set_read_timeout(Some(PATIENCE)).expect("set");
    let address = sink.local_addr().expect("an address");
    let dir = Scratch::new("logs");
    std::fs::create_dir(dir.0.join("logs")).expect("made");
    let s = Custom::start("statsd2", "", |_| {
        format!(
            "telemetry {{\n  statsd_address = \"{address}\"\n  disable_hostname = true\n}}\nlog_file = \"{}/\"\n\
             log_rotate_bytes = 64\nlog_rotate_max_files = 2\n",
            dir.0.join("logs").display()
        )
    });
    s.open();
    let mut buffer = [0; 4096];
    let text = until("a datagram about the seal", || {
        let n = sink.recv(&mut buffer).ok()?;
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        text.contains("vault.core.unsealed").then_some(text)
    });
    assert!(text.lines().all(|l| l.ends_with("|g") || l.ends_with("|c") || l.ends_with("|ms")), "{text}");
    // each reload of a broken file is a line
    std::fs::write(s.scratch.0.join("config.hcl"), "storage {").expect("written");
    until("the log was turned", || {
        let hup = Command::new("kill").args(["-HUP", &s.child.id().to_string()]).status();
        assert!(hup.expect("kill").success());
        let names: Vec<_> = std::fs::read_dir(dir.0.join("logs")).ok()?.filter_map(|e| e.ok()).collect();
        let old = names.iter().filter(|e| e.file_name().to_string_lossy().starts_with("vault-")).count();
        (old == 2 && names.len() == 3).then_some(())
    });
}

#[test]
fn diagnose_debug_and_commands_that_are_not_built() {
    let s = Server::ready("cli-more");
    let config = s.scratch.0.join("config.hcl").display().to_string();
    let (code, out, _) = s.cli(&["operator", "diagnose", &format!("-config={config}")]);
    assert!(
        code == 1 && out.contains("[ failure ] Check Listeners") && out.contains("already in use"),
        "{code} {out}"
    );
    let (code, out, _) = s.cli(&["operator", "diagnose", "-config=/nowhere.hcl"]);
    assert!(code == 1 && out.contains("[ failure ] Parse Configuration"), "{code} {out}");
    let bundle = s.scratch.0.join("bundle.tar.gz").display().to_string();
    let (code, out, err) = s.cli(&["debug", "-duration=1s", "-interval=1s", &format!("-output={bundle}")]);
    assert!(code == 0 && out.contains("Success!"), "{code} {out} {err}");
    let listed = Command::new("tar").args(["tzf", &bundle]).output().expect("tar");
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    for name in ["index.json", "server_status.json", "metrics.json", "host_info.json", "requests.json"] {
        assert!(names.contains(name), "{names}");
    }
    let (code, _, err) = s.cli(&["agent"]);
    assert!(code == 1 && err.contains("not built"), "{code} {err}");
    let (code, out, _) = s.cli(&["monitor", "-log-level=debug", "-output-curl-string"]);
    assert!(code == 0 && out.contains("curl") && out.contains("sys/monitor?log_level=debug"), "{code} {out}");
    let (code, out, _) = s.cli(&["kv", "put", "-output-policy", "-mount=secret", "a", "b=c"]);
    assert!(out.contains("capabilities") || code != 0, "{code} {out}");
}

/// GnuPG with a home of its own.
struct Gpg(Scratch);

impl Gpg {
    fn run(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let home = self.0.0.display().to_string();
        let mut child = Command::new("gpg")
            .args(["--homedir", &home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gpg is installed");
        child.stdin.take().expect("a pipe").write_all(input).expect("taken");
        let out = child.wait_with_output().expect("gpg ends");
        assert!(out.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let home = self.0.0.display().to_string();
        // its agent ends with its home anyway
        let _ = Command::new("gpgconf").args(["--homedir", &home, "--kill", "gpg-agent"]).status();
    }
}

#[test]
fn shares_and_tokens_for_holders_of_pgp_keys() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let gpg = Gpg(Scratch::new("gpg"));
    std::fs::set_permissions(&gpg.0.0, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("set");
    gpg.run(&["--quick-generate-key", "holder@example.org", "future-default", "default", "never"], b"");
    let key = STANDARD.encode(gpg.run(&["--export", "holder@example.org"], b""));
    let decrypted = |text: &Value| {
        let cipher = STANDARD.decode(text.as_str().expect("text")).expect("base64");
        String::from_utf8(gpg.run(&["--decrypt"], &cipher)).expect("text")
    };
    let mut s = Server::blank("pgp");
    let refused =
        s.put("sys/init", "", &json!({"secret_shares": 1, "secret_threshold": 1, "pgp_keys": ["keybase:me"]}));
    assert_eq!(refused.status, 400);
    assert!(
        refused.errors()[0].as_str().is_some_and(|e| e.contains("keybase names are not looked up")),
        "{:?}",
        refused.errors()
    );
    let wish = json!({"secret_shares": 2, "secret_threshold": 2, "pgp_keys": [key, key], "root_token_pgp_key": key});
    let made = s.put("sys/init", "", &wish);
    assert_eq!(made.status, 200, "{:?}", made.errors());
    let made = made.json();
    // Vault encrypts the share's hexadecimal text
    s.keys = (0..2).map(|i| decrypted(&made["keys_base64"][i])).collect();
    assert_eq!(
        hex::decode(made["keys"][0].as_str().expect("text")).expect("hex"),
        STANDARD.decode(made["keys_base64"][0].as_str().expect("text")).expect("base64")
    );
    s.root = decrypted(&made["root_token"]);
    assert!(s.root.starts_with("hvs."), "{}", s.root);
    s.unseal();
    assert_eq!(s.get("auth/token/lookup-self", &s.root).status, 200);
    // new shares, kept for those who lose them
    let started = s.put(
        "sys/rekey/init",
        "",
        &json!({"secret_shares": 1, "secret_threshold": 1, "pgp_keys": [key], "backup": true}),
    );
    assert_eq!(started.status, 200, "{:?}", started.errors());
    let nonce = started.json()["nonce"].clone();
    let fingerprint = started.json()["pgp_fingerprints"][0].as_str().expect("a fingerprint").to_owned();
    let mut last = Value::Null;
    for share in &s.keys {
        last = s.put("sys/rekey/update", "", &json!({"key": share, "nonce": nonce})).json();
    }
    assert_eq!(last["complete"], true, "{last}");
    let share = decrypted(&last["keys_base64"][0]);
    let backup = s.get("sys/rekey/backup", &s.root).json();
    let kept = backup["data"]["keys_base64"][&fingerprint][0].clone();
    assert_eq!(decrypted(&kept), share);
    s.kill();
    s.start();
    // the last entry of the log counts once this node leads again, which is shortly after it answers
    until("the rekey is applied", || (s.get("sys/seal-status", "").json()["n"] == 1).then_some(()));
    s.keys = vec![share];
    s.unseal();
    // a root token for the holder alone
    let started = s.put("sys/generate-root/attempt", "", &json!({"pgp_key": key})).json();
    assert_eq!(started["pgp_fingerprint"], json!(fingerprint));
    let done = s.put("sys/generate-root/update", "", &json!({"key": s.keys[0], "nonce": started["nonce"]})).json();
    let token = decrypted(&done["encoded_token"]);
    assert_eq!(s.get("auth/token/lookup-self", &token).status, 200, "{token}");
}

/// Records of a snapshot, changed by `f`, in an archive whose own sums are right.
fn tampered(archive: &[u8], f: impl Fn(&mut Vec<(Vec<u8>, Vec<u8>)>)) -> Vec<u8> {
    use ringfence_base::{Reader as Bytes, Writer};
    let mut files = std::collections::BTreeMap::new();
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    for entry in tar.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let (name, mut bytes) = (entry.path().expect("a name").display().to_string(), Vec::new());
        entry.read_to_end(&mut bytes).expect("read");
        files.insert(name, bytes);
    }
    let state = &files["state.bin"];
    let mut r = Bytes::new(&state[8..]);
    let mut records = Vec::new();
    for _ in 0..r.num().expect("a count") {
        let key = r.bytes(1 << 20).expect("a key").to_vec();
        records.push((key, r.bytes(64 << 20).expect("a record").to_vec()));
    }
    f(&mut records);
    let mut w = Writer::over(state[..8].to_vec());
    w.num(records.len() as u64);
    for (key, record) in &records {
        w.bytes(key).bytes(record);
    }
    files.insert("state.bin".into(), w.finish());
    let sum = |name: &str| hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &files[name]));
    let sums = format!("{}  meta.json\n{}  state.bin\n", sum("meta.json"), sum("state.bin"));
    files.insert("SHA256SUMS".into(), sums.into_bytes());
    let mut out = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for name in ["meta.json", "state.bin", "SHA256SUMS", "SHA256SUMS.sealed"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(files[name].len() as u64);
        out.append_data(&mut header, name, &files[name][..]).expect("written");
    }
    out.into_inner().and_then(flate2::write::GzEncoder::finish).expect("written")
}

#[test]
fn a_snapshot_whose_keys_cannot_be_read_changes_nothing() {
    let s = Server::ready("bad-keyring");
    s.put("sys/mounts/plain", &s.root, &json!({"type": "kv"}));
    s.put("plain/a", &s.root, &json!({"v": 1}));
    let archive = s.get("sys/storage/raft/snapshot", &s.root).body;
    s.put("plain/a", &s.root, &json!({"v": 2}));
    // table 1 holds the seal's configuration, the root key and the keyring
    let of_seal = |records: &[(Vec<u8>, Vec<u8>)]| -> Vec<usize> {
        (0..records.len()).filter(|i| records[*i].0[0] == 1 && records[*i].1.len() > 40).collect()
    };
    let mut refused = 0;
    for at in 0..8 {
        for way in 0..3 {
            let bad = tampered(&archive, |records| {
                let Some(i) = of_seal(records).get(at).copied() else { return };
                match way {
                    0 => drop(records.remove(i)),
                    1 => records[i].1.truncate(3),
                    _ => *records[i].1.last_mut().expect("bytes") ^= 1,
                }
            });
            let unharmed = bad == tampered(&archive, |_| {});
            if unharmed {
                continue;
            }
            let a = s.request("POST", "sys/storage/raft/snapshot-force", &s.root, Some(&bad));
            if a.status == 400 {
                refused += 1;
                let text = a.errors()[0].as_str().unwrap_or("").to_owned();
                assert!(text.contains("snapshot"), "{text}");
                assert_eq!(s.get("plain/a", &s.root).json()["data"]["v"], 2, "nothing was changed");
                continue;
            }
            // a record that no key depends on: the restore is whole
            assert_eq!(a.status, 204, "{:?}", a.errors());
            until("it serves again", || (s.get("plain/a", &s.root).json()["data"]["v"] == 1).then_some(()));
            assert_eq!(s.put("plain/a", &s.root, &json!({"v": 2})).status, 204);
        }
    }
    assert!(refused >= 6, "{refused}");
    // the whole one is taken
    assert_eq!(s.request("POST", "sys/storage/raft/snapshot-force", &s.root, Some(&archive)).status, 204);
    until("it serves again", || (s.get("plain/a", &s.root).json()["data"]["v"] == 1).then_some(()));
}

#[test]
fn an_answer_that_takes_too_long_is_ended() {
    let s = Custom::start("write-timeout", "  http_write_timeout = \"1s\"", |_| String::new());
    let (root, _) = s.open();
    let mut stream = TcpStream::connect(("127.0.0.1", s.port)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    // a stream has no end of its own
    let head = format!("GET /v1/sys/monitor?log_level=error HTTP/1.1\r\nHost: t\r\nX-Vault-Token: {root}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    let mut all = Vec::new();
    let ended = stream.read_to_end(&mut all);
    assert!(String::from_utf8_lossy(&all).starts_with("HTTP/1.1 200"), "{ended:?}");
    // it was the server that hung up, not our patience
    assert!(!matches!(&ended, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock), "{ended:?}");
    // and a short answer is not touched by it
    assert_eq!(s.ask("GET", "sys/mounts", &[("X-Vault-Token", &root)], None).status, 200);
}

#[test]
fn a_mount_is_found_without_its_slash() {
    let s = Server::ready("named");
    assert_eq!(s.put("sys/mounts/a", &s.root, &json!({"type": "kv"})).status, 204);
    assert_eq!(s.put("sys/mounts/a/b", &s.root, &json!({"type": "transit"})).status, 400, "below a mount is taken");
    let (code, out, _) = s.cli(&["path-help", "a"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("## DESCRIPTION") || out.contains("## PATHS"), "{out}");
    let lost = s.get("b", &s.root);
    assert_eq!((lost.status, lost.errors()), (404, json!(["no handler for route \"b\". route entry not found."])));
}

#[test]
fn snapshots_by_schedule() {
    let mut s = Server::ready("auto");
    let base = "sys/storage/raft/snapshot-auto";
    let directory = s.scratch.0.join("snapshots");
    let config = |more: Value| {
        let mut all = json!({
            "interval": "1s", "retain": 2, "path_prefix": directory, "storage_type": "local",
            "local_max_space": 100_000_000,
        });
        for (k, v) in more.as_object().expect("an object") {
            all[k] = v.clone();
        }
        all
    };
    for (bad, why) in [
        (json!({"storage_type": "aws-s3"}), "storage_type aws-s3 is not served: local is"),
        (json!({"interval": 0}), "interval must be specified"),
        (json!({"retain": 0}), "retain must be at least 1"),
        (json!({"path_prefix": "x"}), "path_prefix must be an absolute path"),
        (json!({"path_prefix": "/a/../b"}), "path_prefix must not lead upwards"),
        (json!({"file_prefix": "a/b"}), "file_prefix must be letters, digits, '-', '_' and '.'"),
        (json!({"local_max_space": 0}), "local_max_space must be specified"),
    ] {
        let a = s.put(&format!("{base}/config/hourly"), &s.root, &config(bad));
        assert_eq!((a.status, a.errors()), (400, json!([why])));
    }
    assert_eq!(s.list(&format!("{base}/config"), &s.root).status, 404);
    assert_eq!(s.put(&format!("{base}/config/hourly"), &s.root, &config(json!({}))).status, 204);
    assert_eq!(s.list(&format!("{base}/config"), &s.root).json()["data"]["keys"], json!(["hourly"]));
    let told = s.get(&format!("{base}/config/hourly"), &s.root).json()["data"].clone();
    assert_eq!((&told["interval"], &told["retain"]), (&json!(1), &json!(2)));
    let files = || {
        let mut all: Vec<_> = std::fs::read_dir(&directory)
            .map(|d| d.filter_map(|e| Some(e.ok()?.path())).collect())
            .unwrap_or_default();
        all.sort();
        all
    };
    let status = |s: &Server| s.get(&format!("{base}/status/hourly"), &s.root).json()["data"].clone();
    let newest = |s: &Server| status(s)["last_snapshot_url"].as_str().unwrap_or("").to_owned();
    until("the first", || (!newest(&s).is_empty()).then_some(()));
    // they are kept to their number, also over a restart
    s.kill();
    s.start();
    s.unseal();
    let first = newest(&s);
    until("another", || (newest(&s) != first).then_some(()));
    until("the third", || {
        (files().len() == 2 && !files().contains(&first.trim_start_matches("file://").into())).then_some(())
    });
    // what was kept can be loaded
    let archive = newest(&s).trim_start_matches("file://").to_owned();
    let (code, out, err) = s.cli(&["operator", "raft", "snapshot", "inspect", &archive]);
    assert_eq!(code, 0, "{out}{err}");
    // a fault is told of, and does not end the schedule
    assert_eq!(s.put(&format!("{base}/config/hourly"), &s.root, &json!({"local_max_space": 10})).status, 204);
    until("a fault", || status(&s)["last_snapshot_error"].as_str()?.contains("not enough space").then_some(()));
    until("and another", || (status(&s)["consecutive_errors"].as_u64()? > 1).then_some(()));
    assert_eq!(s.request("DELETE", &format!("{base}/config/hourly"), &s.root, None).status, 204);
    assert_eq!(s.get(&format!("{base}/status/hourly"), &s.root).status, 404);
}
