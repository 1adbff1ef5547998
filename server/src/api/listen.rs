//! Listeners: accept, TLS, HTTP/1.1 or HTTP/2, one task a connection, a bound on how many there are.

use super::patience::{Patience, Times, Watched};
use super::proxied;
use super::request::{Origin, Rules};
use super::serve;
use crate::rt::{self, Stream, TcpListener, Timer, UnixListener};
use crate::shard::Core;
use crate::telemetry::{self, Level};
use crate::tls::TlsCell;
use hyper::service::service_fn;
use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

/// Connections of one core; a further one is closed at once.
const MAX_CONNECTIONS: usize = 16_384;
/// A TLS handshake must end within this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept (out of descriptors) the listener rests.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a listener listens.
#[derive(Clone, Debug)]
pub enum Place {
    /// An address; every core has a socket of its own on it.
    Tcp(SocketAddr),
    /// A socket file; core 0 serves it.
    Unix(SocketFile),
}

/// A socket file and who may use it.
#[derive(Clone, Debug)]
pub struct SocketFile {
    /// Where.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// Owner, by number.
    pub user: Option<u32>,
    /// Group, by number.
    pub group: Option<u32>,
}

impl SocketFile {
    /// Makes the file with its rights before anybody can find it: a file of before is replaced in one step.
    fn bind(&self) -> std::io::Result<UnixListener> {
        let mut name = self.path.clone().into_os_string();
        name.push("~");
        let unfinished = PathBuf::from(name);
        // what a crash left there; anything else shows itself in bind
        let _ = std::fs::remove_file(&unfinished);
        let socket = UnixListener::bind(&unfinished)?;
        let made = std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(self.mode))
            .and_then(|()| std::os::unix::fs::chown(&unfinished, self.user, self.group))
            .and_then(|()| std::fs::rename(&unfinished, &self.path));
        if let Err(e) = made {
            let _ = std::fs::remove_file(&unfinished);
            return Err(e);
        }
        Ok(socket)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Tcp(address) => address.fmt(f),
            Place::Unix(socket) => socket.path.display().fmt(f),
        }
    }
}

/// One listener, as every core gets it.
#[derive(Clone)]
pub struct Listener {
    /// Where.
    pub place: Place,
    /// Its rules.
    pub rules: Arc<Rules>,
    /// TLS, unless disabled.
    pub tls: Option<Arc<TlsCell>>,
}

/// What a core's listeners share.
pub struct Gate {
    /// Connections open on this core.
    open: Cell<usize>,
    /// The process is ending: no new requests.
    stopping: Arc<AtomicBool>,
}

impl Gate {
    /// A gate that closes with the process.
    pub fn new(stopping: Arc<AtomicBool>) -> Rc<Gate> {
        Rc::new(Gate { open: Cell::new(0), stopping })
    }

    /// Connections open.
    pub fn connections(&self) -> usize {
        self.open.get()
    }
}

/// Counts a connection for as long as it lives.
struct Pass(Rc<Gate>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// Binds a listener on this core and serves it for ever.
pub fn start(core: &Rc<Core>, gate: &Rc<Gate>, listener: Listener) -> std::io::Result<()> {
    let (core, gate) = (core.clone(), gate.clone());
    match listener.place.clone() {
        Place::Tcp(addr) => {
            let socket = TcpListener::bind(addr, true)?;
            rt::spawn_local(async move {
                loop {
                    match socket.accept().await {
                        Ok((stream, peer)) => {
                            // a socket that is gone already fails at its first use
                            let _ = stream.set_nodelay(true);
                            admit(&core, &gate, &listener, stream, Some(peer));
                        }
                        Err(e) => pause(&e).await,
                    }
                }
            });
        }
        Place::Unix(file) => {
            let socket = file.bind()?;
            rt::spawn_local(async move {
                loop {
                    match socket.accept().await {
                        Ok((stream, _)) => admit(&core, &gate, &listener, stream, None),
                        Err(e) => pause(&e).await,
                    }
                }
            });
        }
    }
    Ok(())
}

async fn pause(e: &std::io::Error) {
    telemetry::log(Level::Warn, &format!("a connection could not be accepted: {e}"));
    rt::sleep(ACCEPT_PAUSE).await;
}

fn admit(core: &Rc<Core>, gate: &Rc<Gate>, listener: &Listener, stream: Stream, peer: Option<SocketAddr>) {
    if gate.open.get() >= MAX_CONNECTIONS || gate.stopping.load(Ordering::Relaxed) {
        return;
    }
    gate.open.set(gate.open.get() + 1);
    let pass = Pass(gate.clone());
    let (core, listener) = (core.clone(), listener.clone());
    rt::spawn_local(async move {
        match (&listener.rules.proxy_protocol, peer) {
            (Some(trust), Some(peer)) => {
                let header = proxied::accept(trust, stream, peer);
                let Ok(Ok((stream, client))) = rt::timeout(HANDSHAKE_TIMEOUT, header).await else { return };
                connection(&core, &pass.0, &listener, Some(client), stream).await;
            }
            _ => connection(&core, &pass.0, &listener, peer, stream).await,
        }
    });
}

async fn connection<IO>(core: &Rc<Core>, gate: &Rc<Gate>, listener: &Listener, client: Option<SocketAddr>, io: IO)
where
    IO: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let mut origin =
        Origin { remote: client.map(|c| c.ip()), port: client.map_or(0, |c| c.port()), ..Origin::default() };
    let Some(cell) = &listener.tls else {
        return http1(core, gate, &listener.rules, origin, io).await;
    };
    let Ok(Ok(tls)) = rt::timeout(HANDSHAKE_TIMEOUT, cell.accept(io)).await else { return };
    origin.certificates = Arc::new(tls.peer_certificates());
    if tls.is_h2() {
        http2(core, gate, &listener.rules, origin, tls).await;
    } else {
        http1(core, gate, &listener.rules, origin, tls).await;
    }
}

async fn http1<IO>(core: &Rc<Core>, gate: &Rc<Gate>, rules: &Arc<Rules>, origin: Origin, io: IO)
where
    IO: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let origin = Rc::new(origin);
    let patience =
        Patience::new(Times { head: rules.head_timeout, idle: rules.idle_timeout, write: rules.write_timeout });
    let service = service_fn(|request| {
        let (core, rules, origin) = (core.clone(), rules.clone(), origin.clone());
        let serving = patience.serving();
        async move {
            // a stream is being served until its body ends; for anything else that is now
            let answer = serve(&core, &rules, &origin, request).await.map(|body| body.holding(serving));
            Ok::<_, Infallible>(answer)
        }
    });
    let io = Watched::new(io, patience.clone());
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(Timer)
        .header_read_timeout(None)
        .half_close(false)
        .serve_connection(io, service);
    let (mut connection, mut expired) = (pin!(connection), pin!(patience.expired()));
    let mut closing = false;
    std::future::poll_fn(|cx| {
        if !closing && gate.stopping.load(Ordering::Relaxed) {
            closing = true;
            connection.as_mut().graceful_shutdown();
        }
        // a client that breaks off is not an error of ours
        if connection.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { expired.as_mut().poll(cx) }
    })
    .await;
}

async fn http2<IO>(core: &Rc<Core>, gate: &Rc<Gate>, rules: &Arc<Rules>, origin: Origin, io: IO)
where
    IO: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let origin = Rc::new(origin);
    // frames that are no request come between requests too: there is only one time
    let patience =
        Patience::new(Times { head: rules.idle_timeout, idle: rules.idle_timeout, write: rules.write_timeout });
    let service = service_fn(|request| {
        let (core, rules, origin) = (core.clone(), rules.clone(), origin.clone());
        let serving = patience.serving();
        async move {
            // a stream is being served until its body ends; for anything else that is now
            let answer = serve(&core, &rules, &origin, request).await.map(|body| body.holding(serving));
            Ok::<_, Infallible>(answer)
        }
    });
    let io = Watched::new(io, patience.clone());
    let connection = hyper::server::conn::http2::Builder::new(rt::Executor)
        .timer(Timer)
        .max_concurrent_streams(256)
        .max_header_list_size(64 * 1024)
        .serve_connection(io, service);
    let (mut connection, mut expired) = (pin!(connection), pin!(patience.expired()));
    let mut closing = false;
    std::future::poll_fn(|cx| {
        if !closing && gate.stopping.load(Ordering::Relaxed) {
            closing = true;
            connection.as_mut().graceful_shutdown();
        }
        if connection.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { expired.as_mut().poll(cx) }
    })
    .await;
}
