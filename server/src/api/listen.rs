//! Listeners: accept, TLS, HTTP/1.1 or HTTP/2, one task a connection, a bound on how many there are.

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
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Connections of one core; a further one is closed at once.
const MAX_CONNECTIONS: usize = 16_384;
/// A client must send a request's head within this. Source: Vault's `http_read_header_timeout`.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
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
    Unix(PathBuf),
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
        Place::Unix(path) => {
            let socket = UnixListener::bind(&path)?;
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
        let mut origin =
            Origin { remote: peer.map(|p| p.ip()), port: peer.map_or(0, |p| p.port()), ..Origin::default() };
        match &listener.tls {
            None => http1(&core, &pass.0, &listener.rules, origin, stream).await,
            Some(cell) => {
                let Ok(Ok(tls)) = rt::timeout(HANDSHAKE_TIMEOUT, cell.accept(stream)).await else { return };
                origin.certificates = Arc::new(tls.peer_certificates());
                if tls.is_h2() {
                    http2(&core, &pass.0, &listener.rules, origin, tls).await;
                } else {
                    http1(&core, &pass.0, &listener.rules, origin, tls).await;
                }
            }
        }
    });
}

async fn http1<IO>(core: &Rc<Core>, gate: &Rc<Gate>, rules: &Arc<Rules>, origin: Origin, io: IO)
where
    IO: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let origin = Rc::new(origin);
    let service = service_fn(|request| {
        let (core, rules, origin) = (core.clone(), rules.clone(), origin.clone());
        async move { Ok::<_, Infallible>(serve(&core, &rules, &origin, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(Timer)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(128)
        .half_close(false)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut closing = false;
    // a client that breaks off is not an error of ours
    let _ = std::future::poll_fn(|cx| {
        if !closing && gate.stopping.load(Ordering::Relaxed) {
            closing = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
}

async fn http2<IO>(core: &Rc<Core>, _gate: &Rc<Gate>, rules: &Arc<Rules>, origin: Origin, io: IO)
where
    IO: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    let origin = Rc::new(origin);
    let service = service_fn(|request| {
        let (core, rules, origin) = (core.clone(), rules.clone(), origin.clone());
        async move { Ok::<_, Infallible>(serve(&core, &rules, &origin, request).await) }
    });
    let _ = hyper::server::conn::http2::Builder::new(rt::Executor)
        .timer(Timer)
        .max_concurrent_streams(256)
        .max_header_list_size(64 * 1024)
        .serve_connection(io, service)
        .await;
}
