//! SSH over the real binary, judged by OpenSSH's own tools: `ssh-keygen` reads the certificates, and a real `sshd` lets
//! a client in by one and keeps it out by another.

use super::harness::{Scratch, Server};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn ready(name: &str) -> Server {
    let s = Server::ready(name);
    let a = s.put("sys/mounts/ssh", &s.root, &json!({"type": "ssh"}));
    assert_eq!(a.status, 204, "{:?}", a.errors());
    s
}

fn keygen(args: &[&str]) -> String {
    let out = Command::new("ssh-keygen").args(args).output().expect("ssh-keygen is installed");
    assert!(out.status.success(), "ssh-keygen {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file")
}

fn write(path: &Path, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).expect("a file");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its mode");
}

fn shown(p: &Path) -> &str {
    p.to_str().expect("a plain path")
}

#[test]
fn ssh_keygen_reads_what_every_kind_of_ca_signs() {
    let s = ready("ssh-keygen");
    let role = json!({"key_type": "ca", "allow_user_certificates": true, "allowed_users": "*", "ttl": "1h",
        "allowed_extensions": "*", "default_extensions": {"permit-pty": ""}, "default_critical_options": {"force-command": "uptime"}});
    s.put("ssh/roles/r", &s.root, &role);
    let key = s.scratch.0.join("user");
    keygen(&["-q", "-t", "ed25519", "-N", "", "-f", shown(&key)]);
    for (ca, bits) in [("ed25519", 0), ("ec", 256), ("ec", 521), ("rsa", 2048)] {
        let made = s.put("ssh/config/ca", &s.root, &json!({"key_type": ca, "key_bits": bits}));
        assert_eq!(made.status, 200, "{:?}", made.errors());
        let public = s.get("ssh/public_key", "");
        assert_eq!(String::from_utf8_lossy(&public.body), made.json()["data"]["public_key"].as_str().expect("text"));
        let body = json!({"public_key": text(&key.with_extension("pub")), "valid_principals": "ubuntu,admin"});
        let signed = s.put("ssh/sign/r", &s.root, &body);
        assert_eq!(signed.status, 200, "{:?}", signed.errors());
        let path = s.scratch.0.join("user-cert.pub");
        write(&path, signed.json()["data"]["signed_key"].as_str().expect("text"), 0o600);
        let read = keygen(&["-L", "-f", shown(&path)]);
        for part in ["user certificate", "ubuntu", "admin", "permit-pty", "force-command uptime"] {
            assert!(read.contains(part), "{part} in {read}");
        }
        let issued =
            s.put("ssh/issue/r", &s.root, &json!({"key_type": ca, "key_bits": bits, "valid_principals": "x"}));
        let path = s.scratch.0.join(format!("issued-{ca}-{bits}"));
        write(&path, issued.json()["data"]["private_key"].as_str().expect("text"), 0o600);
        let public = keygen(&["-y", "-f", shown(&path)]);
        assert!(public.starts_with(if ca == "rsa" { "ssh-rsa" } else { "" }), "{public}");
        assert_eq!(s.request("DELETE", "ssh/config/ca", &s.root, None).status, 204);
    }
    // a CA that ssh-keygen made, in OpenSSH's own form and in PEM
    for (kind, form) in
        [("ed25519", None), ("rsa", Some("PEM")), ("ecdsa", Some("PKCS8")), ("rsa", None), ("ecdsa", None)]
    {
        let path = s.scratch.0.join(format!("ca-{kind}-{}", form.unwrap_or("own")));
        let mut args = vec!["-q", "-t", kind, "-N", "", "-f", shown(&path)];
        args.extend(form.iter().flat_map(|f| ["-m", f]));
        keygen(&args);
        let body = json!({"private_key": text(&path), "public_key": text(&path.with_extension("pub"))});
        let a = s.put("ssh/config/ca", &s.root, &body);
        assert_eq!(a.status, 204, "{kind} {form:?}: {:?}", a.errors());
        let body = json!({"public_key": text(&key.with_extension("pub")), "valid_principals": "u"});
        assert_eq!(s.put("ssh/sign/r", &s.root, &body).status, 200);
        s.request("DELETE", "ssh/config/ca", &s.root, None);
    }
}

/// A real `sshd` on a free port of loopback.
struct Sshd {
    child: Child,
    port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sshd(dir: &Path, ca: &str) -> Option<Sshd> {
    let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"].into_iter().map(PathBuf::from).find(|p| p.exists())?;
    // sshd wants its empty directory; it is root's, as the test is where an sshd is installed for it
    std::fs::create_dir_all("/run/sshd").ok()?;
    let host = dir.join("host");
    keygen(&["-q", "-t", "ed25519", "-N", "", "-f", shown(&host)]);
    write(&dir.join("ca.pub"), ca, 0o600);
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nTrustedUserCAKeys {}\nAuthorizedKeysFile none\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\nUsePAM no\nPidFile none\n\
         PermitRootLogin yes\n",
        host.display(),
        dir.join("ca.pub").display()
    );
    write(&dir.join("sshd_config"), &config, 0o600);
    let log = std::fs::File::create(dir.join("sshd.log")).expect("a file");
    let child = Command::new(program)
        .args(["-D", "-e", "-f", shown(&dir.join("sshd_config"))])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .ok()?;
    let sshd = Sshd { child, port };
    let begun = std::time::Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(begun.elapsed().as_secs() < 30, "sshd does not answer: {}", text(&dir.join("sshd.log")));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Some(sshd)
}

#[test]
fn a_real_sshd_lets_in_by_a_certificate() {
    let s = ready("sshd");
    let dir = Scratch::new("sshd-files");
    let made = s.put("ssh/config/ca", &s.root, &json!({"key_type": "ed25519"}));
    let ca = made.json()["data"]["public_key"].as_str().expect("text").to_owned();
    let Some(sshd) = sshd(&dir.0, &ca) else {
        eprintln!("no sshd is installed: certificates were judged by ssh-keygen only");
        return;
    };
    let user = Command::new("id").arg("-un").output().expect("id");
    let user = String::from_utf8_lossy(&user.stdout).trim().to_owned();
    s.put("ssh/roles/r", &s.root, &json!({"key_type": "ca", "allow_user_certificates": true, "allowed_users": "*"}));
    let login = |principals: &str| -> (bool, String) {
        let issued = s.put("ssh/issue/r", &s.root, &json!({"key_type": "ed25519", "valid_principals": principals}));
        let data: Value = issued.json()["data"].clone();
        let key = dir.0.join("id");
        write(&key, data["private_key"].as_str().expect("text"), 0o600);
        write(&dir.0.join("id-cert.pub"), data["signed_key"].as_str().expect("text"), 0o600);
        let port = sshd.port.to_string();
        let out = Command::new("ssh")
            .args(["-F", "none", "-i", shown(&key), "-p", &port, "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "ConnectTimeout=20", &format!("{user}@127.0.0.1"), "echo let-in"])
            .stdin(Stdio::null())
            .output()
            .expect("ssh");
        (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let (success, out) = login(&user);
    assert!(success && out.contains("let-in"), "{}", text(&dir.0.join("sshd.log")));
    assert!(!login("somebody-else").0, "another principal stays out");
}

#[test]
fn the_command_line_opens_a_session() {
    let s = ready("ssh-cli");
    let dir = Scratch::new("ssh-cli-files");
    let made = s.put("ssh/config/ca", &s.root, &json!({"key_type": "ed25519"}));
    let ca = made.json()["data"]["public_key"].as_str().expect("text").to_owned();
    s.put(
        "ssh/roles/r",
        &s.root,
        &json!({"key_type": "ca", "allow_user_certificates": true, "allowed_users": "*", "allowed_extensions": "*"}),
    );
    let key = dir.0.join("id");
    keygen(&["-q", "-t", "ed25519", "-N", "", "-f", shown(&key)]);
    let private = format!("-private-key-path={}", shown(&key));
    let public = format!("-public-key-path={}.pub", shown(&key));
    let user = Command::new("id").arg("-un").output().expect("id");
    let target = format!("{}@127.0.0.1", String::from_utf8_lossy(&user.stdout).trim());
    let (code, out, err) =
        s.cli(&["ssh", "-mode=ca", "-role=r", "-no-exec", "-field=signed_key", &private, &public, &target]);
    assert!(code == 0 && out.starts_with("ssh-ed25519-cert-v01@openssh.com "), "{out}{err}");
    for (args, told) in [
        (vec!["ssh", "-role=r", &target], "Missing required option: -mode"),
        (vec!["ssh", "-mode=ca", &target], "Missing required option: -role"),
        (vec!["ssh", "-mode=ca", "-role=none", &public, &target], "Unknown role: none"),
        (vec!["ssh", "-mode=x", &target], "Unknown SSH mode: x"),
        (vec!["ssh", "-mode=otp", &target], "no role is registered for 127.0.0.1"),
    ] {
        let (code, _, err) = s.cli(&args);
        assert!(code != 0 && err.contains(told), "{args:?}: {code} {err}");
    }
    s.put(
        "ssh/roles/o",
        &s.root,
        &json!({"key_type": "otp", "default_user": "u", "cidr_list": "127.0.0.0/8", "allowed_users": "*"}),
    );
    let (code, out, err) = s.cli(&["ssh", "-mode=otp", "-no-exec", "-field=key", "u@127.0.0.1"]);
    assert_eq!(code, 0, "{err}");
    let verified = s.put("ssh/verify", "", &json!({"otp": out.trim()}));
    assert_eq!(verified.json()["data"]["role_name"], "o", "the one role that fits was taken: {out}");
    let Some(sshd) = sshd(&dir.0, &ca) else {
        eprintln!("no sshd is installed: the session was not opened");
        return;
    };
    let port = sshd.port.to_string();
    let flags = ["-strict-host-key-checking=no", "-user-known-hosts-file=/dev/null"];
    let session = [
        &target,
        "-F",
        "none",
        "-p",
        &port,
        "-o",
        "BatchMode=yes",
        "-o",
        "IdentitiesOnly=yes",
        "echo let-in; exit 7",
    ];
    let (code, out, err) =
        s.cli(&[&["ssh", "-mode=ca", "-role=r", &private, &public][..], &flags, &session].concat());
    assert_eq!((code, out.trim()), (7, "let-in"), "{err} {}", text(&dir.0.join("sshd.log")));
    let other = "-valid-principals=somebody-else";
    let (code, _, _) =
        s.cli(&[&["ssh", "-mode=ca", "-role=r", other, &private, &public][..], &flags, &session].concat());
    assert_eq!(code, 255, "another principal stays out, and ssh says so");
}

#[test]
fn one_time_passwords_end_by_use_and_by_lease() {
    let s = ready("ssh-otp");
    s.put("ssh/roles/o", &s.root, &json!({"key_type": "otp", "default_user": "u", "cidr_list": "10.0.0.0/8"}));
    let make = || {
        let a = s.put("ssh/creds/o", &s.root, &json!({"ip": "10.1.2.3"}));
        assert_eq!(a.status, 200, "{:?}", a.errors());
        (a.json()["data"]["key"].clone(), a.json()["lease_id"].as_str().expect("a lease").to_owned())
    };
    let (otp, lease) = make();
    assert!(lease.starts_with("ssh/creds/o/"));
    let verify = |otp: &Value| s.put("ssh/verify", "", &json!({"otp": otp}));
    assert_eq!(verify(&otp).json()["data"], json!({"username": "u", "ip": "10.1.2.3", "role_name": "o"}));
    assert_eq!((verify(&otp).status, verify(&otp).errors()), (400, json!(["OTP not found"])));
    let (otp, lease) = make();
    let a = s.put("sys/leases/revoke", &s.root, &json!({"lease_id": lease, "sync": true}));
    assert!(matches!(a.status, 200 | 204), "{:?}", a.errors());
    assert_eq!(verify(&otp).errors(), json!(["OTP not found"]));
    assert_eq!(verify(&json!("verify-echo-request")).json()["data"]["message"], "verify-echo-response");
}
