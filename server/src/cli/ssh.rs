//! `ssh`: asks the server for a signed certificate or a one-time password and starts OpenSSH's client with it.

use super::client::Request;
use super::session::{Fail, Outcome, Session, doing, remote, usage};
use super::verb::{Kind, Verb, flag, verb};
use crate::rt::OsEntropy;
use ringfence_base::entropy;
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The verb.
pub const SSH: Verb = verb(
    "ssh",
    "[user@]<host> [arguments of ssh..]",
    "Open an SSH session with a credential of the server",
    &[
        flag("mode", Kind::Text, "ca for a signed certificate, otp for a one-time password."),
        flag("role", Kind::Text, "Role to ask; with otp it may be left out when one role fits the host."),
        flag("mount-point", Kind::Text, "Mount of the SSH engine. Default ssh/."),
        flag("no-exec", Kind::Bool, "Print the credential and start nothing."),
        flag("public-key-path", Kind::Text, "Public key to be signed. Default ~/.ssh/id_rsa.pub."),
        flag("private-key-path", Kind::Text, "Its private key. Default ~/.ssh/id_rsa."),
        flag("valid-principals", Kind::Text, "Principals of the certificate. Default: the user."),
        flag("host-key-mount-point", Kind::Text, "Mount whose CA signed the keys of hosts."),
        flag("host-key-hostnames", Kind::Text, "Hosts that CA is trusted for. Default *."),
        flag("strict-host-key-checking", Kind::Text, "Option StrictHostKeyChecking of ssh."),
        flag("user-known-hosts-file", Kind::Text, "Option UserKnownHostsFile of ssh."),
        flag("ssh-executable", Kind::Text, "The SSH client. Default ssh."),
    ],
    run,
);

/// Extensions that a certificate for a person's session asks for.
const EXTENSIONS: [&str; 5] =
    ["permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty", "permit-user-rc"];

/// Where to go, as whom, by what mount.
struct Goal {
    user: String,
    host: String,
    mount: String,
    /// Arguments of ssh that follow the host.
    rest: Vec<String>,
}

fn run(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, usize::MAX)?;
    let first = session.arg(0).to_owned();
    let (user, host) = match first.rsplit_once('@') {
        Some((user, host)) => (user.to_owned(), host.to_owned()),
        None => (session.io.env.get("USER").cloned().unwrap_or_default(), first),
    };
    if host.is_empty() || host.starts_with('-') || user.starts_with('-') {
        return Err(usage("the host to connect to is missing"));
    }
    if user.is_empty() {
        return Err(usage("the user is not known: write user@host"));
    }
    let mount = session.flags.text_or("mount-point", "ssh/").trim_matches('/').to_owned();
    let rest = session.flags.args.get(1..).unwrap_or_default().to_vec();
    let goal = Goal { user, host, mount, rest };
    match session.flags.text_or("mode", "").to_ascii_lowercase().as_str() {
        "ca" => by_certificate(session, &goal),
        "otp" => by_password(session, &goal),
        "" => Err(usage("Missing required option: -mode (ca or otp)")),
        "dynamic" => Err(usage("the dynamic mode is no longer supported by servers; use ca or otp")),
        other => Err(usage(format!("Unknown SSH mode: {other}"))),
    }
}

/// Options about host keys, as the flags say.
fn host_options(session: &Session<'_, '_>) -> Vec<String> {
    [("strict-host-key-checking", "StrictHostKeyChecking"), ("user-known-hosts-file", "UserKnownHostsFile")]
        .iter()
        .filter_map(|(flag, option)| Some((option, session.flags.text(flag).filter(|v| !v.is_empty())?)))
        .flat_map(|(option, value)| ["-o".to_owned(), format!("{option}={value}")])
        .collect()
}

fn by_certificate(session: &mut Session<'_, '_>, goal: &Goal) -> Outcome {
    let role = session.flags.text_or("role", "").to_owned();
    if role.is_empty() {
        return Err(usage("Missing required option: -role"));
    }
    let public = session.io.expand(session.flags.text_or("public-key-path", "~/.ssh/id_rsa.pub"));
    let private = session.io.expand(session.flags.text_or("private-key-path", "~/.ssh/id_rsa"));
    let text = std::fs::read_to_string(&public)
        .map_err(|e| usage(format!("failed to read public key {}: {e}", public.display())))?;
    let principals = session.flags.text_or("valid-principals", &goal.user).to_owned();
    let extensions: serde_json::Map<String, Value> =
        EXTENSIONS.iter().map(|e| ((*e).to_owned(), "".into())).collect();
    let body = json!({
        "public_key": text, "valid_principals": principals, "cert_type": "user", "extensions": extensions,
    });
    let request = Request::put(format!("{}/sign/{role}", goal.mount), body);
    let what = format!("failed to sign public key {}", public.display());
    let answer = session.call_secret(&request).map_err(doing(what))?;
    let secret = answer.ok_or_else(|| remote("the server answered nothing"))?;
    if session.flags.is_set("no-exec") {
        return session.print_secret_or_field(&secret);
    }
    let signed = secret.field("signed_key").and_then(Value::as_str).unwrap_or("").to_owned();
    if signed.is_empty() {
        return Err(remote("missing signed key"));
    }
    let folder = Folder::new()?;
    let certificate = folder.file("id-cert.pub", &signed)?;
    let mut args =
        vec!["-i".to_owned(), shown(&private), "-o".to_owned(), format!("CertificateFile={}", shown(&certificate))];
    if let Some(mount) = session.flags.text("host-key-mount-point").map(|m| m.trim_matches('/').to_owned()) {
        let at = format!("{mount}/public_key");
        let reply = session.call(&Request::get(at)).map_err(doing("failed to read the CA of host keys"))?;
        let names = session.flags.text_or("host-key-hostnames", "*");
        let line = format!("@cert-authority {names} {}\n", String::from_utf8_lossy(&reply.body).trim());
        let known = folder.file("known_hosts", &line)?;
        args.extend(["-o".to_owned(), format!("UserKnownHostsFile={}", shown(&known))]);
    }
    start(session, goal, None, args)
}

fn by_password(session: &mut Session<'_, '_>, goal: &Goal) -> Outcome {
    let ip = address(&goal.host)?;
    let role = match session.flags.text_or("role", "").to_owned() {
        role if !role.is_empty() => role,
        _ => only_role(session, goal, ip)?,
    };
    let body = json!({"username": goal.user, "ip": ip.to_string()});
    let request = Request::put(format!("{}/creds/{role}", goal.mount), body);
    let answer = session.call_secret(&request).map_err(doing("failed to generate credential"))?;
    let secret = answer.ok_or_else(|| remote("the server answered nothing"))?;
    if session.flags.is_set("no-exec") {
        return session.print_secret_or_field(&secret);
    }
    let text = |name: &str| secret.field(name).and_then(Value::as_str).unwrap_or("").to_owned();
    let (password, user, port) = (text("key"), text("username"), secret.field("port").and_then(Value::as_u64));
    if text("key_type") != "otp" || password.is_empty() {
        return Err(remote("the role does not make one-time passwords"));
    }
    let mut args = Vec::new();
    if let Some(port) = port.filter(|p| *p > 0 && !goal.rest.iter().any(|a| a == "-p")) {
        args.extend(["-p".to_owned(), port.to_string()]);
    }
    let goal = Goal {
        user: if user.is_empty() { goal.user.clone() } else { user },
        host: goal.host.clone(),
        mount: goal.mount.clone(),
        rest: goal.rest.clone(),
    };
    if !has_sshpass(session) {
        session.io.err(
            "Vault could not locate \"sshpass\". The OTP code for the session is displayed below. Enter this code in \
             the SSH password prompt. If you install sshpass, Vault can automatically perform this step for you.",
        );
        session.io.out(&format!("OTP for the session is: {password}"));
        return start(session, &goal, None, args);
    }
    start(session, &goal, Some(&password), args)
}

/// The role for a host, if there is exactly one.
fn only_role(session: &mut Session<'_, '_>, goal: &Goal, ip: IpAddr) -> Result<String, Fail> {
    let request = Request::put(format!("{}/lookup", goal.mount), json!({"ip": ip.to_string()}));
    let answer = session.call_secret(&request).map_err(doing(format!("failed to find roles for {ip}")))?;
    let roles = answer.as_ref().and_then(|s| s.field("roles")).and_then(Value::as_array).cloned().unwrap_or_default();
    let roles: Vec<&str> = roles.iter().filter_map(Value::as_str).collect();
    match roles.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(usage(format!("no role is registered for {ip}"))),
        many => Err(usage(format!("more than one role fits {ip}, choose one with -role: {}", many.join(", ")))),
    }
}

fn address(host: &str) -> Result<IpAddr, Fail> {
    if let Ok(ip) = host.parse() {
        return Ok(ip);
    }
    let found = (host, 22).to_socket_addrs().map_err(|e| usage(format!("failed to resolve {host}: {e}")))?;
    found.map(|a| a.ip()).next().ok_or_else(|| usage(format!("failed to resolve {host}")))
}

fn has_sshpass(session: &Session<'_, '_>) -> bool {
    let path = session.io.env.get("PATH").cloned().unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("sshpass").is_file())
}

/// Starts ssh and leaves with its code. A password goes through the environment, where other users do not see it.
fn start(session: &mut Session<'_, '_>, goal: &Goal, password: Option<&str>, mut args: Vec<String>) -> Outcome {
    let program = session.flags.text_or("ssh-executable", "ssh").to_owned();
    args.extend(host_options(session));
    args.push(format!("{}@{}", goal.user, goal.host));
    args.extend(goal.rest.iter().cloned());
    let mut command = match password {
        None => Command::new(&program),
        Some(password) => {
            let mut command = Command::new("sshpass");
            command.env("SSHPASS", password).arg("-e").arg(&program);
            command
        }
    };
    let ended = command.args(&args).status().map_err(|e| usage(format!("failed to run {program}: {e}")))?;
    // what a signal ended is told as shells do
    Ok(ended.code().unwrap_or(128))
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A folder of one run that nobody else reads, removed when the run ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder, Fail> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("ringfence-ssh-{}", entropy::uuid4(&mut OsEntropy::new())));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|e| usage(format!("failed to make {}: {e}", path.display())))?;
        Ok(Folder(path))
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf, Fail> {
        let path = self.0.join(name);
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|e| usage(format!("failed to write {}: {e}", path.display())))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // what is left behind is a public certificate
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
