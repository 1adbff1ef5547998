//! What the runtime costs a request: hyper answering a tiny JSON over keep-alive connections, on each executor and
//! driver of `rt` and, as the yardstick, on tokio's current_thread runtime.
//!
//! The server runs on CPU 0, the load on CPU 1, one server at a time in alternating rounds, so that drift of the
//! machine hits all alike. Printed are medians and their ratios to tokio: requests a second (more is better) and CPU
//! microseconds of the server thread a request (less is better).
//!
//! `cargo bench -p ringfence-benches --bench runtime [-- [--quick] [--rounds N] [--connections N] [--only NAME]...]`
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, header};
use ringfence_server::rt;

const SERVER_CPU: usize = 0;
const LOAD_CPU: usize = 1;
const CONNECTIONS: [usize; 3] = [4, 64, 256];
const REQUEST: &[u8] = b"GET /v1/sys/health HTTP/1.1\r\nhost: localhost\r\nx-vault-token: hvb.AAAAAQJ0aGlzIGlzIG5vdCBhIHRva2Vu\r\nuser-agent: bench\r\naccept: */*\r\n\r\n";
const ANSWER: &[u8] = br#"{"initialized":true,"sealed":false,"standby":false}"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Server {
    Tokio,
    Ring,
    Epoll,
    Glommio,
}

const SERVERS: [Server; 4] = [Server::Tokio, Server::Ring, Server::Epoll, Server::Glommio];

impl Server {
    fn name(self) -> &'static str {
        match self {
            Server::Tokio => "tokio",
            Server::Ring => "rt bare io_uring",
            Server::Epoll => "rt bare epoll",
            Server::Glommio => "rt glommio",
        }
    }
}

#[derive(Clone, Copy)]
struct Sample {
    per_second: f64,
    cpu_us: f64,
}

fn main() {
    let plan = Plan::from_args();
    let mut samples: BTreeMap<(usize, Server), Vec<Sample>> = BTreeMap::new();
    let servers: Vec<Server> = SERVERS.into_iter().filter(|s| plan.wants(*s) && works(*s)).collect();
    for connections in plan.connections.iter().copied() {
        for round in 0..plan.rounds {
            for i in 0..servers.len() {
                // rotated, so that none always follows the same one
                let server = servers[(i + round) % servers.len()];
                let sample = measure(server, connections, plan.warm_up, plan.span);
                samples.entry((connections, server)).or_default().push(sample);
            }
        }
    }
    println!("{} rounds of {:?}; medians; ratios to tokio", plan.rounds, plan.span);
    println!("| connections | server | requests/s | CPU us a request | requests/s ratio | CPU ratio |");
    println!("|---|---|---|---|---|---|");
    for connections in plan.connections.iter().copied() {
        let tokio = samples.get(&(connections, Server::Tokio)).map(|s| median(s));
        for server in &servers {
            let own = median(&samples[&(connections, *server)]);
            let (rate, cpu) =
                tokio.map_or((f64::NAN, f64::NAN), |t| (own.per_second / t.per_second, own.cpu_us / t.cpu_us));
            let (name, per_second, cpu_us) = (server.name(), own.per_second, own.cpu_us);
            println!("| {connections} | {name} | {per_second:.0} | {cpu_us:.2} | {rate:.2} | {cpu:.2} |");
        }
    }
}

struct Plan {
    rounds: usize,
    warm_up: Duration,
    span: Duration,
    only: Vec<String>,
    connections: Vec<usize>,
}

impl Plan {
    fn from_args() -> Plan {
        let args: Vec<String> = std::env::args().collect();
        let after = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
        let quick = args.iter().any(|a| a == "--quick");
        let (rounds, span_ms) = if quick { (3, 250) } else { (5, 700) };
        Plan {
            rounds: after("--rounds").and_then(|n| n.parse().ok()).unwrap_or(rounds),
            warm_up: Duration::from_millis(80),
            span: Duration::from_millis(span_ms),
            only: args.windows(2).filter(|w| w[0] == "--only").map(|w| w[1].clone()).collect(),
            connections: after("--connections")
                .and_then(|n| n.parse().ok())
                .map_or(CONNECTIONS.to_vec(), |n| vec![n]),
        }
    }

    fn wants(&self, server: Server) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| server.name().contains(only.as_str()))
    }
}

fn median(samples: &[Sample]) -> Sample {
    let middle = |of: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Sample { per_second: middle(|s| s.per_second), cpu_us: middle(|s| s.cpu_us) }
}

fn works(server: Server) -> bool {
    let wish = match server {
        Server::Tokio | Server::Epoll => return true,
        Server::Ring | Server::Glommio => rt::DriverWish::IoUring,
    };
    let probed = rt::probe(wish);
    if let Err(e) = &probed {
        println!("{} is left out: {e}", server.name());
    }
    probed.is_ok()
}

/// One server, one load, one span.
fn measure(server: Server, connections: usize, warm_up: Duration, span: Duration) -> Sample {
    let stop = Arc::new(AtomicBool::new(false));
    let (tell, told) = std::sync::mpsc::channel();
    let stopped = Arc::clone(&stop);
    let serving = thread::spawn(move || {
        pin(SERVER_CPU);
        match server {
            Server::Tokio => serve_on_tokio(stopped, tell),
            Server::Ring => serve_on_rt(options(rt::DriverWish::IoUring, rt::ExecutorWish::Bare), stopped, tell),
            Server::Epoll => serve_on_rt(options(rt::DriverWish::Epoll, rt::ExecutorWish::Bare), stopped, tell),
            Server::Glommio => {
                serve_on_rt(options(rt::DriverWish::IoUring, rt::ExecutorWish::Glommio), stopped, tell)
            }
        }
    });
    let (addr, server_clock) = told.recv().expect("the server starts");
    let load = thread::spawn(move || {
        pin(LOAD_CPU);
        Load::connect(addr, connections).run(warm_up, span, server_clock)
    });
    let sample = load.join().expect("the load runs");
    stop.store(true, Ordering::SeqCst);
    serving.join().expect("the server stops");
    sample
}

fn options(driver: rt::DriverWish, executor: rt::ExecutorWish) -> rt::Options {
    rt::Options { driver, executor, ..rt::Options::default() }
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

fn serve_on_rt(options: rt::Options, stop: Arc<AtomicBool>, tell: Tell) {
    let root = move || async move {
        let listener = rt::TcpListener::bind(any_port(), true).expect("a free port");
        tell.send((listener.local_addr(), own_clock())).expect("the harness waits");
        let serving = rt::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepts");
                stream.set_nodelay(true).expect("a TCP socket");
                rt::spawn_local(async move {
                    let service = hyper::service::service_fn(answer);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
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

fn serve_on_tokio(stop: Arc<AtomicBool>, tell: Tell) {
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
                    let io = hyper_util::rt::TokioIo::new(stream);
                    let service = hyper::service::service_fn(answer);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                });
            }
        });
        while !stop.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// The load: one request in flight on each connection, plain epoll.
struct Load {
    connections: Vec<std::net::TcpStream>,
    answer_bytes: usize,
}

impl Load {
    fn connect(addr: SocketAddr, count: usize) -> Load {
        use std::io::{Read, Write};
        let mut connections = Vec::new();
        let mut answer_bytes = 0;
        for _ in 0..count {
            let mut stream = std::net::TcpStream::connect(addr).expect("the server listens");
            stream.set_nodelay(true).expect("a TCP socket");
            // one answer tells the length of all: status, the same headers, the same body
            stream.write_all(REQUEST).expect("connected");
            let mut buf = [0; 4096];
            let mut have = 0;
            while !buf[..have].ends_with(ANSWER) {
                have += stream.read(&mut buf[have..]).expect("connected");
            }
            answer_bytes = have;
            stream.set_nonblocking(true).expect("a socket");
            connections.push(stream);
        }
        Load { connections, answer_bytes }
    }

    fn run(&self, warm_up: Duration, span: Duration, server: libc::clockid_t) -> Sample {
        let epoll = self.epoll();
        let mut have = vec![0usize; self.connections.len()];
        self.connections.iter().for_each(request);
        let begin = Instant::now();
        self.answer_until(epoll, &mut have, begin + warm_up);
        let (cpu, from) = (cpu_time(server), Instant::now());
        let answers = self.answer_until(epoll, &mut have, from + span);
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
            for (i, stream) in self.connections.iter().enumerate() {
                let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: i as u64 };
                assert_eq!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, stream.as_raw_fd(), &mut event), 0);
            }
            epoll
        }
    }

    fn answer_until(&self, epoll: i32, have: &mut [usize], deadline: Instant) -> u64 {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
        let mut buf = [0u8; 4096];
        let mut answers = 0;
        while Instant::now() < deadline {
            // SAFETY: the kernel writes at most as many events as there is room for.
            let n = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), events.len() as i32, 1000) };
            assert!(n > 0, "the server has stalled for a second");
            for event in &events[..n as usize] {
                let i = event.u64 as usize;
                let fd = self.connections[i].as_raw_fd();
                // SAFETY: reads into a live buffer of that length.
                let got = unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), 0) };
                assert!(got > 0, "the server keeps connections alive");
                have[i] += got as usize;
                if have[i] >= self.answer_bytes {
                    have[i] -= self.answer_bytes;
                    answers += 1;
                    request(&self.connections[i]);
                }
            }
        }
        answers
    }
}

fn request(stream: &std::net::TcpStream) {
    // SAFETY: writes from a live buffer of that length.
    let n = unsafe { libc::send(stream.as_raw_fd(), REQUEST.as_ptr().cast(), REQUEST.len(), libc::MSG_NOSIGNAL) };
    assert_eq!(n, REQUEST.len() as isize, "a request fits into the socket's buffer");
}

fn pin(cpu: usize) {
    // SAFETY: a live set of plain data, the index is far below its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        // a machine with one CPU runs both there; the ratios still hold
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
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
