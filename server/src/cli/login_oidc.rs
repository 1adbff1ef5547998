//! `login -method=oidc`: the login happens in a browser, and what the OpenID provider answers comes back by it.
//!
//! ```text
//! client mode   browser > provider > http://localhost:8250/oidc/callback (we listen) > server's callback
//! direct mode   browser > provider > server's callback; we ask the server every few seconds
//! ```
//!
//! Driven by [`super::login`]. The listener serves one path, on loopback unless told otherwise, for two minutes at most,
//! and believes only what carries the `state` of the login that was begun here: another page in the same browser cannot
//! end or replace the login.

use super::client::{Body, CallError, Request};
use super::secret::Secret;
use super::session::{Fail, Session, doing, remote};
use super::verb::go_bool;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use url::Url;
use url::form_urlencoded::parse as parse_form;

const FAILED: &str = "Error authenticating";
/// How long the person may take. Source: Vault's command line.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at the listener.
const LOOK: Duration = Duration::from_millis(20);
/// A browser's request must be there within this.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest line, and longest form, of a browser's request.
const MAX_REQUEST_BYTES: u64 = 64 * 1024;
/// Most lines of a head.
const MAX_LINES: usize = 100;
/// Characters of the nonce: 119 bits.
const NONCE_CHARACTERS: usize = 20;

/// What the arguments say.
struct Terms {
    role: String,
    direct: bool,
    listen: String,
    port: String,
    redirect: String,
    opens_browser: bool,
    shows_code: bool,
    aborts: bool,
}

/// Logs in through the browser. `mount` ends in a slash.
pub fn authenticate(
    session: &mut Session<'_, '_>,
    mount: &str,
    config: &BTreeMap<String, String>,
) -> Result<Option<Secret>, Fail> {
    let terms = Terms::read(session, mount, config)?;
    // before anybody is bothered: a port that is taken would only show when the browser is back
    let listener = match terms.direct {
        true => None,
        false => Some(listen(&terms.listen, &terms.port)?),
    };
    let nonce = nonce()?;
    let body = json!({"role": terms.role, "redirect_uri": terms.redirect, "client_nonce": nonce});
    let request = Request { wrap: false, ..Request::put(format!("auth/{mount}oidc/auth_url"), body) };
    let begun = send(session, &request).map_err(doing(FAILED))?;
    let text = |name: &str| {
        let found = begun.as_ref().and_then(|s| s.field(name)).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    let (url, state) = (text("auth_url"), text("state"));
    if url.is_empty() {
        return Err(remote(format!(
            "{FAILED}: Unable to authorize role {:?} with redirect_uri {:?}. Check Vault logs for more information.",
            terms.role, terms.redirect
        )));
    }
    match listener {
        Some(_) if !state.is_empty() => {
            Err(remote(format!("{FAILED}: state returned in client callback mode, try direct")))
        }
        Some(listener) => {
            show(session, &terms, &url)?;
            listener.wait(session, mount, &nonce, state_of(&url).as_deref())
        }
        None if state.is_empty() => Err(remote(format!("{FAILED}: no state returned in direct callback mode"))),
        None => {
            let interval = text("poll_interval");
            let seconds = interval
                .parse()
                .map_err(|_| remote(format!("{FAILED}: cannot convert poll_interval {interval:?} to integer")))?;
            show(session, &terms, &url)?;
            poll(session, mount, &state, &nonce, Duration::from_secs(seconds))
        }
    }
}

impl Terms {
    fn read(session: &mut Session<'_, '_>, mount: &str, config: &BTreeMap<String, String>) -> Result<Terms, Fail> {
        let given = |name: &str| config.get(name).cloned();
        let yes = |name: &str| match config.get(name) {
            None => Ok(false),
            Some(text) => go_bool(text).ok_or_else(|| {
                remote(format!("{FAILED}: failed to parse value for {name:?}: {text:?} is no boolean"))
            }),
        };
        let direct = match config.get("callbackmode").map(String::as_str) {
            None | Some("" | "client") => false,
            Some("direct") => true,
            Some(other) => return Err(remote(format!("{FAILED}: callbackmode {other:?} is not supported"))),
        };
        let port = given("port").unwrap_or_else(|| "8250".into());
        let (mut method, mut host, mut place) = ("http".to_owned(), "localhost".to_owned(), port.clone());
        if direct {
            let address = session.client()?.settings.address.clone();
            if let Ok(server) = Url::parse(&address) {
                method = server.scheme().to_owned();
                host = server.host_str().unwrap_or_default().to_owned();
                let number = server.port_or_known_default().unwrap_or(443);
                place = format!("{number}/v1/auth/{}", mount.trim_end_matches('/'));
            }
        }
        let method = given("callbackmethod").unwrap_or(method);
        let host = given("callbackhost").unwrap_or(host);
        let place = given("callbackport").unwrap_or(place);
        Ok(Terms {
            role: given("role").unwrap_or_default(),
            direct,
            listen: given("listenaddress").unwrap_or_else(|| "localhost".into()),
            redirect: format!("{method}://{host}:{place}/oidc/callback"),
            port,
            opens_browser: !yes("skip_browser")?,
            shows_code: yes("show_qr")?,
            aborts: yes("abort_on_error")?,
        })
    }
}

/// Twenty letters and digits of the system's randomness.
fn nonce() -> Result<String, Fail> {
    use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut out = String::with_capacity(NONCE_CHARACTERS);
    while out.len() < NONCE_CHARACTERS {
        let mut pool = [0u8; 32];
        SystemRandom::new().fill(&mut pool).map_err(|_| remote(format!("{FAILED}: no randomness")))?;
        // 248 is the largest multiple of 62 in a byte
        let drawn = pool.iter().filter(|b| **b < 248).map(|b| char::from(LETTERS[usize::from(b % 62)]));
        out.extend(drawn.take(NONCE_CHARACTERS - out.len()));
    }
    Ok(out)
}

/// Sends a request of a login: without a token, which may be old or broken.
fn send(session: &mut Session<'_, '_>, request: &Request) -> Result<Option<Secret>, CallError> {
    let request = Request { token: Some(String::new()), ..request.clone() };
    let failed = |_| CallError::Failed("no client".into());
    let client = super::login::tokenless(session).map_err(failed)?;
    let reply = client.call(&request)?;
    Secret::parse(&reply.body).map_err(CallError::Failed)
}

/// Shows where to log in, and opens a browser there.
fn show(session: &mut Session<'_, '_>, terms: &Terms, url: &str) -> Result<(), Fail> {
    let how = match terms.opens_browser {
        true => "Launching browser to",
        false => "Open the following link in your browser",
    };
    session.io.err(&format!("Complete the login via your OIDC provider. {how}:\n\n    {url}\n\n"));
    if terms.opens_browser
        && let Err(why) = open_browser(url)
    {
        if terms.aborts {
            return Err(remote(format!("{FAILED}: failed to launch the browser abort_on_error=true, err={why}")));
        }
        session.io.err(&format!(
            "Error attempting to automatically open browser: '{why}'.\nPlease visit the authorization URL manually."
        ));
    }
    if terms.shows_code {
        session.io.err(&barcode(url)?);
    }
    session.io.err("Waiting for OIDC authentication to complete...");
    Ok(())
}

fn open_browser(url: &str) -> std::io::Result<()> {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    Command::new(program).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(drop)
}

/// Two rows of modules to a line of text.
fn barcode(url: &str) -> Result<String, Fail> {
    let code = qrcode::QrCode::with_error_correction_level(url, qrcode::EcLevel::L)
        .map_err(|error| remote(format!("{FAILED}: the URL does not fit a QR code: {error}")))?;
    Ok(code.render::<qrcode::render::unicode::Dense1x2>().build())
}

/// The `state` that must come back.
fn state_of(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    url.query_pairs().find(|(name, _)| name == "state").map(|(_, value)| value.into_owned())
}

/// Asks the server until the browser has been there.
fn poll(
    session: &mut Session<'_, '_>,
    mount: &str,
    state: &str,
    nonce: &str,
    interval: Duration,
) -> Result<Option<Secret>, Fail> {
    let begun = Instant::now();
    let mut interval = interval;
    let request = Request::put(format!("auth/{mount}oidc/poll"), json!({"state": state, "client_nonce": nonce}));
    while begun.elapsed() < PATIENCE {
        std::thread::sleep(interval.min(PATIENCE));
        match send(session, &request) {
            Err(CallError::Refused(refused)) if refused.errors.iter().any(|e| e.ends_with("slow_down")) => {
                interval *= 2;
            }
            Err(CallError::Refused(refused))
                if refused.errors.iter().any(|e| e.ends_with("authorization_pending")) => {}
            other => return other.map_err(doing(FAILED)),
        }
    }
    Err(timed_out())
}

fn timed_out() -> Fail {
    remote(format!("{FAILED}: Timed out waiting for response from provider"))
}

/// Where the browser comes back to.
struct Waiting {
    listeners: Vec<TcpListener>,
}

/// A browser's request for our path, and the connection to answer on.
struct Visit {
    is_post: bool,
    fields: BTreeMap<String, String>,
    stream: TcpStream,
}

/// Binds every address of the name: a browser may take `localhost` for either of two.
fn listen(address: &str, port: &str) -> Result<Waiting, Fail> {
    let failed = |error: String| remote(format!("{FAILED}: listen tcp {address}:{port}: {error}"));
    let number: u16 = port.parse().map_err(|_| failed("the port is no number from 0 to 65535".into()))?;
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = match bare {
        // what Go makes of an empty address
        "" => vec![SocketAddr::from(([0, 0, 0, 0], number))],
        name => (name, number).to_socket_addrs().map_err(|error| failed(error.to_string()))?.collect(),
    };
    let mut listeners = Vec::new();
    let mut last = "the name has no address".to_owned();
    for address in addresses {
        match TcpListener::bind(address).and_then(|l| l.set_nonblocking(true).map(|()| l)) {
            Ok(listener) => listeners.push(listener),
            // the port is somebody else's: he would get what is meant for us
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => return Err(failed(error.to_string())),
            // a machine without IPv6
            Err(error) => last = error.to_string(),
        }
    }
    match listeners.is_empty() {
        true => Err(failed(last)),
        false => Ok(Waiting { listeners }),
    }
}

impl Waiting {
    /// Waits for the browser and completes the login with what it brings.
    fn wait(
        self,
        session: &mut Session<'_, '_>,
        mount: &str,
        nonce: &str,
        state: Option<&str>,
    ) -> Result<Option<Secret>, Fail> {
        let (sender, visits) = mpsc::channel();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let Some(mut visit) = self.next(&sender, &visits) else { continue };
            if state.is_some_and(|state| visit.fields.get("state").map(String::as_str) != Some(state)) {
                page(&mut visit.stream, "400 Bad Request", "This is not the login that was begun.", "");
                continue;
            }
            let outcome = complete(session, mount, nonce, &visit);
            match &outcome {
                Ok(_) => page(
                    &mut visit.stream,
                    "200 OK",
                    "Signed in via your OIDC provider",
                    "You can now close this window and start using Vault.",
                ),
                Err(error) => page(&mut visit.stream, "400 Bad Request", "Login error", &cause(error)),
            }
            return outcome.map_err(doing(FAILED));
        }
        Err(timed_out())
    }

    /// Looks at the listeners once; each connection is read by a thread of its own, for browsers open some that they do
    /// not use.
    fn next(&self, sender: &Sender<Visit>, visits: &Receiver<Visit>) -> Option<Visit> {
        for listener in &self.listeners {
            if let Ok((stream, _)) = listener.accept() {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    if let Some(visit) = read_visit(stream) {
                        // nobody waits any more: the login is over
                        let _ = sender.send(visit);
                    }
                });
            }
        }
        visits.recv_timeout(LOOK).ok()
    }
}

/// Reads a browser's request; answers itself what is not for our path.
fn read_visit(stream: TcpStream) -> Option<Visit> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(REQUEST_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(REQUEST_TIMEOUT)).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?).take(MAX_REQUEST_BYTES);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    for _ in 0..MAX_LINES {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut stream = stream;
    if path != "/oidc/callback" {
        page(&mut stream, "404 Not Found", "There is nothing here", "");
        return None;
    }
    let mut fields = form_fields(query.as_bytes());
    let is_post = method == "POST";
    match method.as_str() {
        "POST" if length <= MAX_REQUEST_BYTES => {
            let mut body = vec![0; length as usize];
            reader.read_exact(&mut body).ok()?;
            // what is posted comes before what stands in the query
            fields.extend(form_fields(&body));
        }
        "GET" => {}
        _ => {
            page(&mut stream, "405 Method Not Allowed", "This is not how a provider answers", "");
            return None;
        }
    }
    Some(Visit { is_post, fields, stream })
}

fn form_fields(text: &[u8]) -> BTreeMap<String, String> {
    parse_form(text).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// Gives the server what the browser brought.
fn complete(
    session: &mut Session<'_, '_>,
    mount: &str,
    nonce: &str,
    visit: &Visit,
) -> Result<Option<Secret>, CallError> {
    let path = format!("auth/{mount}oidc/callback");
    let of = |name: &str| visit.fields.get(name).map(String::as_str).unwrap_or_default();
    if visit.is_post {
        // posted by the provider: the server keeps it, and the login goes on as usual
        let names = ["state", "code", "id_token", "error", "error_description"];
        let fields = names.into_iter().filter(|name| !of(name).is_empty());
        let body = fields.map(|name| (name.to_owned(), Value::from(of(name)))).collect();
        let request = Request { token: Some(String::new()), wrap: false, ..Request::new("POST", path.clone()) };
        let request = Request { body: Body::Json(Value::Object(body)), ..request };
        let client = super::login::tokenless(session).map_err(|_| CallError::Failed("no client".into()))?;
        client.call(&request)?;
    }
    let mut request = Request::get(path).with_query("state", of("state")).with_query("client_nonce", nonce);
    for name in ["code", "error", "error_description"] {
        if !of(name).is_empty() {
            request = request.with_query(name, of(name));
        }
    }
    send(session, &request)
}

/// What to tell the person in the browser: the server's own words.
fn cause(error: &CallError) -> String {
    match error {
        CallError::Refused(refused) if !refused.errors.is_empty() => refused.errors.join("; "),
        other => other.to_string(),
    }
}

/// Answers the browser. It may be gone already; the login does not depend on it.
fn page(stream: &mut TcpStream, status: &str, title: &str, text: &str) {
    let (title, text) = (escaped(title), escaped(text));
    let body = format!(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>{title}</title></head><body><h1>{title}</h1>\
         <p>{text}</p></body></html>\n"
    );
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: \
         no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// How to log in, for `auth help`.
pub const ARGUMENTS: &str = "[role=<role>] [skip_browser=<bool>] [port=8250] [listenaddress=localhost] \
    [callbackmethod=http] [callbackhost=localhost] [callbackport=<port>] [callbackmode=client|direct] \
    [show_qr=<bool>] [abort_on_error=<bool>]";
