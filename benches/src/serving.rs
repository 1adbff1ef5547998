//! Bare servers that answer a tiny JSON by hyper, on our runtime and on tokio, over each protocol, and the load that
//! measures them: the limit of whatever answers HTTP here.
//!
//! The server runs on CPU 0, the load on CPU 1. The load keeps one request in flight on each connection and knows an
//! answer's end by its length (HTTP/1.1) or by the end of its stream (HTTP/2); it interprets nothing else.
#![allow(unsafe_code)]

use crate::load::pin;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, header};
use ringfence_server::config::{ClientCerts, ListenerTls, TlsVersion};
use ringfence_server::rt;
use ringfence_server::tls::TlsCell;
use rustls::pki_types::{CertificateDer, ServerName};
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

const SERVER_CPU: usize = 0;
const LOAD_CPU: usize = 1;
const TOKEN: &[u8] = b"hvb.AAAAAQJ0aGlzIGlzIG5vdCBhIHRva2Vu";
const PATH: &[u8] = b"/v1/sys/health";
const ANSWER: &[u8] = br#"{"initialized":true,"sealed":false,"standby":false}"#;

/// A runtime that a bare server runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// The yardstick.
    Tokio,
    /// Our io_uring driver under the bare executor: the default.
    Ring,
    /// Our epoll driver under the bare executor.
    Epoll,
    /// Our io_uring driver under glommio.
    Glommio,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1 without TLS.
    Http1,
    /// HTTP/1.1 in TLS 1.3.
    Http1Tls,
    /// HTTP/2 without TLS.
    Http2,
    /// HTTP/2 in TLS 1.3.
    Http2Tls,
}

impl Server {
    /// All of them.
    pub const ALL: [Server; 4] = [Server::Tokio, Server::Ring, Server::Epoll, Server::Glommio];

    /// As tables show it.
    pub fn name(self) -> &'static str {
        match self {
            Server::Tokio => "tokio",
            Server::Ring => "rt bare io_uring",
            Server::Epoll => "rt bare epoll",
            Server::Glommio => "rt glommio",
        }
    }

    /// Whether this machine allows it; tells if not.
    pub fn works(self) -> bool {
        let wish = match self {
            Server::Tokio | Server::Epoll => return true,
            Server::Ring | Server::Glommio => rt::DriverWish::IoUring,
        };
        let probed = rt::probe(wish);
        if let Err(e) = &probed {
            println!("{} is left out: {e}", self.name());
        }
        probed.is_ok()
    }
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 4] = [Protocol::Http1, Protocol::Http1Tls, Protocol::Http2, Protocol::Http2Tls];

    /// As tables show it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Http1 => "HTTP/1.1",
            Protocol::Http1Tls => "HTTP/1.1 TLS",
            Protocol::Http2 => "HTTP/2",
            Protocol::Http2Tls => "HTTP/2 TLS",
        }
    }

    fn is_secure(self) -> bool {
        matches!(self, Protocol::Http1Tls | Protocol::Http2Tls)
    }

    fn is_h2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::Http2Tls)
    }
}

/// What one span of load saw.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Answers a second.
    pub per_second: f64,
    /// CPU of the server's thread for an answer, microseconds.
    pub cpu_us: f64,
}

/// The median of each figure.
pub fn median(samples: &[Sample]) -> Sample {
    let middle = |of: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Sample { per_second: middle(|s| s.per_second), cpu_us: middle(|s| s.cpu_us) }
}

/// One server, one load, one span.
///
/// # Panics
/// If either breaks.
pub fn measure(server: Server, protocol: Protocol, connections: usize, warm_up: Duration, span: Duration) -> Sample {
    let stop = Arc::new(AtomicBool::new(false));
    let (tell, told) = std::sync::mpsc::channel();
    let stopped = Arc::clone(&stop);
    let serving = thread::spawn(move || {
        pin(SERVER_CPU);
        let options = |driver, executor| rt::Options { driver, executor, ..rt::Options::default() };
        match server {
            Server::Tokio => serve_on_tokio(protocol, stopped, tell),
            Server::Ring => {
                serve_on_rt(options(rt::DriverWish::IoUring, rt::ExecutorWish::Bare), protocol, stopped, tell)
            }
            Server::Epoll => {
                serve_on_rt(options(rt::DriverWish::Epoll, rt::ExecutorWish::Bare), protocol, stopped, tell)
            }
            Server::Glommio => {
                serve_on_rt(options(rt::DriverWish::IoUring, rt::ExecutorWish::Glommio), protocol, stopped, tell)
            }
        }
    });
    let (addr, server_clock) = told.recv().expect("the server starts");
    let load = thread::spawn(move || {
        pin(LOAD_CPU);
        Load::connect(addr, protocol, connections).run(warm_up, span, server_clock)
    });
    let sample = load.join().expect("the load runs");
    stop.store(true, Ordering::SeqCst);
    serving.join().expect("the server stops");
    sample
}

type Tell = std::sync::mpsc::Sender<(SocketAddr, libc::clockid_t)>;

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn serve_on_rt(options: rt::Options, protocol: Protocol, stop: Arc<AtomicBool>, tell: Tell) {
    let root = move || async move {
        let listener = rt::TcpListener::bind(any_port(), true).expect("a free port");
        tell.send((listener.local_addr(), own_clock())).expect("the harness waits");
        let serving = rt::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                stream.set_nodelay(true).expect("a TCP socket");
                rt::spawn_local(async move {
                    if !protocol.is_secure() {
                        return speak_on_rt(stream, protocol).await;
                    }
                    if let Ok(stream) = identity().cell.accept(stream).await {
                        speak_on_rt(stream, protocol).await;
                    }
                });
            }
        });
        while !stop.load(Ordering::SeqCst) {
            rt::sleep(Duration::from_millis(20)).await;
        }
        serving.stop();
    };
    rt::run(&options, root).expect("the core runs");
}

async fn speak_on_rt<S: hyper::rt::Read + hyper::rt::Write + Unpin + 'static>(stream: S, protocol: Protocol) {
    let service = hyper::service::service_fn(answer);
    // a load that breaks off is no error
    let _ = match protocol.is_h2() {
        true => hyper::server::conn::http2::Builder::new(rt::Executor).serve_connection(stream, service).await,
        false => hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await,
    };
}

fn serve_on_tokio(protocol: Protocol, stop: Arc<AtomicBool>, tell: Tell) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::bind(any_port()).await.expect("a free port");
        tell.send((listener.local_addr().expect("bound"), own_clock())).expect("the harness waits");
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                stream.set_nodelay(true).expect("a TCP socket");
                tokio::task::spawn_local(async move {
                    if !protocol.is_secure() {
                        return speak_on_tokio(stream, protocol).await;
                    }
                    let acceptor = tokio_rustls::TlsAcceptor::from(identity().cell.current());
                    if let Ok(stream) = acceptor.accept(stream).await {
                        speak_on_tokio(stream, protocol).await;
                    }
                });
            }
        });
        while !stop.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

async fn speak_on_tokio<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static>(
    stream: S,
    protocol: Protocol,
) {
    let io = hyper_util::rt::TokioIo::new(stream);
    let service = hyper::service::service_fn(answer);
    // a load that breaks off is no error
    let _ = match protocol.is_h2() {
        true => hyper::server::conn::http2::Builder::new(Local).serve_connection(io, service).await,
        false => hyper::server::conn::http1::Builder::new().serve_connection(io, service).await,
    };
}

/// Spawns on tokio's local set.
#[derive(Clone)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// The certificate of all bare servers, and what the load trusts.
struct Identity {
    cell: TlsCell,
    client: Arc<rustls::ClientConfig>,
    client_h2: Arc<rustls::ClientConfig>,
}

fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key is made");
        let dir = std::env::temp_dir().join(format!("ringfence-serving-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory for two files");
        let (cert_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&cert_file, made.cert.pem()).expect("written");
        std::fs::write(&key_file, made.signing_key.serialize_pem()).expect("written");
        let cell = TlsCell::new(ListenerTls {
            cert_file,
            key_file,
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
            client_ca_file: None,
            client_certs: ClientCerts::Disabled,
        });
        // the files have been read
        std::fs::remove_dir_all(&dir).expect("removed");
        let mut roots = rustls::RootCertStore::empty();
        let cert: CertificateDer<'static> = made.cert.der().clone();
        roots.add(cert).expect("a certificate");
        let client = |alpn: &[u8]| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("TLS 1.3 is there")
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            config.alpn_protocols = vec![alpn.to_vec()];
            Arc::new(config)
        };
        Identity { cell: cell.expect("good files"), client: client(b"http/1.1"), client_h2: client(b"h2") }
    })
}

/// The load: one request in flight on each connection, plain epoll.
struct Load {
    connections: Vec<Connection>,
}

struct Connection {
    stream: std::net::TcpStream,
    tls: Option<rustls::ClientConnection>,
    protocol: Protocol,
    /// Plain bytes that came and are not used up.
    inbox: Vec<u8>,
    /// Length of an answer; 0 until the first has been seen.
    answer_bytes: usize,
    next_stream: u32,
}

impl Load {
    fn connect(addr: SocketAddr, protocol: Protocol, count: usize) -> Load {
        Load { connections: (0..count).map(|_| Connection::open(addr, protocol)).collect() }
    }

    fn run(&mut self, warm_up: Duration, span: Duration, server: libc::clockid_t) -> Sample {
        let epoll = self.epoll();
        self.connections.iter_mut().for_each(Connection::request);
        let begin = Instant::now();
        self.answer_until(epoll, begin + warm_up);
        let (cpu, from) = (cpu_time(server), Instant::now());
        let answers = self.answer_until(epoll, from + span);
        let (cpu, took) = (cpu_time(server) - cpu, from.elapsed());
        // SAFETY: closes the descriptor that `epoll` opened.
        unsafe { libc::close(epoll) };
        let per_second = answers as f64 / took.as_secs_f64();
        Sample { per_second, cpu_us: cpu.as_secs_f64() * 1e6 / answers as f64 }
    }

    fn epoll(&self) -> i32 {
        // SAFETY: plain system calls on descriptors that live as long as self.
        unsafe {
            let epoll = libc::epoll_create1(0);
            assert!(epoll >= 0, "a descriptor");
            for (i, connection) in self.connections.iter().enumerate() {
                let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: i as u64 };
                let rc = libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, connection.stream.as_raw_fd(), &mut event);
                assert_eq!(rc, 0);
            }
            epoll
        }
    }

    fn answer_until(&mut self, epoll: i32, deadline: Instant) -> u64 {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
        let mut answers = 0;
        while Instant::now() < deadline {
            // SAFETY: the kernel writes at most as many events as there is room for.
            let n = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), events.len() as i32, 1000) };
            assert!(n > 0, "the server has stalled for a second");
            for event in &events[..n as usize] {
                let connection = &mut self.connections[event.u64 as usize];
                connection.receive();
                while connection.take_answer() {
                    answers += 1;
                    connection.request();
                }
            }
        }
        answers
    }
}

impl Connection {
    fn open(addr: SocketAddr, protocol: Protocol) -> Connection {
        let stream = std::net::TcpStream::connect(addr).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let tls = protocol.is_secure().then(|| {
            let config = if protocol.is_h2() { &identity().client_h2 } else { &identity().client };
            let name = ServerName::try_from("localhost").expect("a name");
            rustls::ClientConnection::new(config.clone(), name).expect("a configuration of ours")
        });
        let inbox = Vec::with_capacity(4096);
        let mut c = Connection { stream, tls, protocol, inbox, answer_bytes: 0, next_stream: 1 };
        if let Some(tls) = &mut c.tls {
            while tls.is_handshaking() {
                tls.complete_io(&mut c.stream).expect("hands are shaken");
            }
        }
        if protocol.is_h2() {
            c.send(&h2_begin());
        }
        // one answer tells the length of all: status, the same headers, the same body
        c.request();
        while !(if protocol.is_h2() { c.take_answer() } else { c.inbox.ends_with(ANSWER) }) {
            c.receive();
        }
        if !protocol.is_h2() {
            c.answer_bytes = c.inbox.len();
            c.inbox.clear();
        }
        c.stream.set_nonblocking(true).expect("a socket");
        c
    }

    fn request(&mut self) {
        match self.protocol.is_h2() {
            true => {
                let frame = h2_request(self.next_stream, self.protocol.is_secure());
                self.next_stream += 2;
                self.send(&frame);
            }
            false => self.send(&h1_request()),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            None => self.stream.write_all(bytes).expect("a request fits into the socket's buffer"),
            Some(tls) => {
                tls.writer().write_all(bytes).expect("rustls takes it");
                while tls.wants_write() {
                    tls.write_tls(&mut self.stream).expect("a request fits into the socket's buffer");
                }
            }
        }
    }

    /// Takes what has come.
    fn receive(&mut self) {
        let mut buf = [0u8; 8192];
        match &mut self.tls {
            None => match self.stream.read(&mut buf) {
                Ok(got) => {
                    assert!(got > 0, "the server keeps connections alive");
                    self.inbox.extend_from_slice(&buf[..got]);
                }
                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock, "{e}"),
            },
            Some(tls) => {
                match tls.read_tls(&mut self.stream) {
                    Ok(got) => assert!(got > 0, "the server keeps connections alive"),
                    Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock, "{e}"),
                }
                let state = tls.process_new_packets().expect("good records");
                let plain = state.plaintext_bytes_to_read();
                let at = self.inbox.len();
                self.inbox.resize(at + plain, 0);
                tls.reader().read_exact(&mut self.inbox[at..]).expect("they are there");
            }
        }
    }

    /// True if a whole answer was there; it is used up.
    fn take_answer(&mut self) -> bool {
        if !self.protocol.is_h2() {
            let whole = self.answer_bytes > 0 && self.inbox.len() >= self.answer_bytes;
            if whole {
                self.inbox.drain(..self.answer_bytes);
            }
            return whole;
        }
        let mut at = 0;
        let mut whole = false;
        while let Some(head) = self.inbox.get(at..at + 9) {
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            if self.inbox.len() < at + 9 + len {
                break;
            }
            at += 9 + len;
            match (kind, flags) {
                // SETTINGS without ACK
                (4, 0) => self.send(&[0, 0, 0, 4, 1, 0, 0, 0, 0]),
                // PING: hyper measures nothing here unless asked to, so none comes
                (6, 0) => panic!("an unexpected ping"),
                (7, _) | (3, _) => panic!("the server gives up: frame {kind}"),
                // DATA or HEADERS with END_STREAM
                (0 | 1, f) if f & 1 != 0 => {
                    whole = true;
                    break;
                }
                _ => {}
            }
        }
        self.inbox.drain(..at);
        whole
    }
}

fn h1_request() -> Vec<u8> {
    let mut r = b"GET ".to_vec();
    r.extend_from_slice(PATH);
    r.extend_from_slice(b" HTTP/1.1\r\nhost: localhost\r\nx-vault-token: ");
    r.extend_from_slice(TOKEN);
    r.extend_from_slice(b"\r\nuser-agent: bench\r\naccept: */*\r\n\r\n");
    r
}

/// RFC 9113 3.4: preface and SETTINGS; then a window that no run uses up.
fn h2_begin() -> Vec<u8> {
    let mut b = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    b.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    b.extend_from_slice(&[0, 0, 4, 8, 0, 0, 0, 0, 0]);
    b.extend_from_slice(&(0x7fff_ffffu32 - 65_535).to_be_bytes());
    b
}

/// HEADERS with END_STREAM and END_HEADERS; fields without indexing (RFC 7541 6.2.2).
fn h2_request(stream: u32, secure: bool) -> Vec<u8> {
    let mut block = vec![0x82, if secure { 0x87 } else { 0x86 }];
    let mut named = |index: u8, value: &[u8]| {
        block.push(index);
        block.push(value.len() as u8);
        block.extend_from_slice(value);
    };
    named(0x04, PATH);
    named(0x01, b"localhost");
    for (name, value) in [(&b"x-vault-token"[..], TOKEN), (b"user-agent", b"bench"), (b"accept", b"*/*")] {
        block.push(0);
        block.push(name.len() as u8);
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value);
    }
    let mut frame = (block.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[1, 0x5]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&block);
    frame
}

/// The calling thread's CPU clock, readable from other threads of the process.
fn own_clock() -> libc::clockid_t {
    let mut clock = 0;
    // SAFETY: the calling thread lives; the kernel's number is written into a live variable.
    let rc = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
    assert_eq!(rc, 0, "every thread has a CPU clock");
    clock
}

fn cpu_time(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one timespec is written into a live one.
    let rc = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(rc, 0, "the server's thread lives");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
