//! A load of HTTP/1.1 requests over keep-alive connections: one request in flight on each, plain epoll, one thread.
//!
//! It knows an answer's end by its last two bytes, so it costs little beside the server it measures: every JSON answer
//! here ends in `}` and a line break, which no head does. Used by `http.rs`; it never interprets a body.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// What stands at the end of every answer.
const END: &[u8] = b"}\n";

/// Writes the next request into the buffer.
pub type Next<'n> = dyn FnMut(&mut Vec<u8>) + 'n;

/// Connections to a server.
pub struct Load {
    connections: Vec<Connection>,
    epoll: i32,
}

struct Connection {
    stream: TcpStream,
    sent: Instant,
    /// The last two bytes that came, and whether the answer's first bytes were looked at.
    tail: [u8; 2],
    begun: bool,
}

/// What a span of load saw.
pub struct Outcome {
    /// Answers with status 200.
    pub answers: u64,
    /// How long it took.
    pub took: Duration,
    /// CPU time of the server.
    pub server_cpu: Duration,
    /// Of each answer, microseconds, sorted.
    pub latencies_us: Vec<u32>,
}

impl Outcome {
    /// Answers a second.
    pub fn per_second(&self) -> f64 {
        self.answers as f64 / self.took.as_secs_f64()
    }

    /// CPU of the server for an answer, microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.answers as f64
    }

    /// A latency's percentile, microseconds.
    pub fn latency_us(&self, percent: usize) -> u32 {
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us.get(last * percent / 100).copied().unwrap_or(0)
    }
}

impl Load {
    /// Opens so many connections.
    pub fn connect(addr: SocketAddr, count: usize) -> Load {
        // SAFETY: a plain system call.
        let epoll = unsafe { libc::epoll_create1(0) };
        assert!(epoll >= 0, "a descriptor");
        let connections = (0..count)
            .map(|i| {
                let stream = TcpStream::connect(addr).expect("the server listens");
                stream.set_nodelay(true).expect("a TCP socket");
                stream.set_nonblocking(true).expect("a socket");
                let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: i as u64 };
                // SAFETY: both descriptors are open; the event is read during the call only.
                let rc = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, stream.as_raw_fd(), &mut event) };
                assert_eq!(rc, 0, "a new descriptor is watched");
                Connection { stream, sent: Instant::now(), tail: [0; 2], begun: false }
            })
            .collect();
        Load { connections, epoll }
    }

    /// Sends requests for a warm-up and then a span; waits for what is still under way. `server` is its process.
    pub fn run(&mut self, next: &mut Next<'_>, warm_up: Duration, span: Duration, server: u32) -> Outcome {
        let mut request = Vec::new();
        for c in &mut self.connections {
            c.send(next, &mut request);
        }
        self.answer(next, Limit::Until(Instant::now() + warm_up), None);
        let (cpu, from) = (cpu_of(server), Instant::now());
        let mut latencies_us = Vec::with_capacity(1 << 18);
        let answers = self.answer(next, Limit::Until(from + span), Some(&mut latencies_us));
        let (server_cpu, took) = (cpu_of(server).saturating_sub(cpu), from.elapsed());
        self.drain();
        latencies_us.sort_unstable();
        Outcome { answers, took, server_cpu, latencies_us }
    }

    /// Sends at least so many requests and waits for their answers.
    pub fn send_all(&mut self, next: &mut Next<'_>, count: u64) {
        let under_way = self.connections.len() as u64;
        let mut request = Vec::new();
        for c in &mut self.connections {
            c.send(next, &mut request);
        }
        self.answer(next, Limit::Answers(count.saturating_sub(under_way)), None);
        self.drain();
    }

    fn answer(&mut self, next: &mut Next<'_>, limit: Limit, mut latencies_us: Option<&mut Vec<u32>>) -> u64 {
        let mut request = Vec::new();
        let mut answers = 0;
        while !limit.reached(answers) {
            answers += self.turn(|c| {
                if let Some(l) = latencies_us.as_deref_mut() {
                    l.push(c.sent.elapsed().as_micros() as u32);
                }
                c.send(next, &mut request);
            });
        }
        answers
    }

    /// Waits for the answers under way without asking anew.
    fn drain(&mut self) {
        let mut left = self.connections.len() as u64;
        while left > 0 {
            left -= self.turn(|_| {});
        }
    }

    /// Takes what has come; answers how many answers are whole.
    fn turn(&mut self, mut whole: impl FnMut(&mut Connection)) -> u64 {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        let mut buf = [0u8; 16 * 1024];
        let mut answers = 0;
        // SAFETY: the kernel writes at most as many events as there is room for.
        let n = unsafe { libc::epoll_wait(self.epoll, events.as_mut_ptr(), events.len() as i32, 5000) };
        assert!(n > 0, "the server has stalled for five seconds");
        for event in &events[..n as usize] {
            let c = &mut self.connections[event.u64 as usize];
            let got = match c.stream.read(&mut buf) {
                Ok(0) => panic!("the server keeps connections alive"),
                Ok(got) => got,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(e) => panic!("a connection broke: {e}"),
            };
            if !c.begun {
                let head = String::from_utf8_lossy(&buf[..got]);
                assert!(buf.starts_with(b"HTTP/1.1 200"), "the server answers 200: {head}");
                c.begun = true;
            }
            for b in &buf[got.saturating_sub(2)..got] {
                c.tail = [c.tail[1], *b];
            }
            if c.tail == END {
                (c.tail, c.begun) = ([0; 2], false);
                answers += 1;
                whole(c);
            }
        }
        answers
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // SAFETY: closes the descriptor that `connect` opened.
        unsafe { libc::close(self.epoll) };
    }
}

impl Connection {
    fn send(&mut self, next: &mut Next<'_>, request: &mut Vec<u8>) {
        request.clear();
        next(request);
        self.sent = Instant::now();
        self.stream.write_all(request).expect("a request fits into the socket's buffer");
    }
}

enum Limit {
    Until(Instant),
    Answers(u64),
}

impl Limit {
    fn reached(&self, answers: u64) -> bool {
        match self {
            Limit::Until(end) => Instant::now() >= *end,
            Limit::Answers(n) => answers >= *n,
        }
    }
}

/// Binds the calling thread, and every thread it starts, to a CPU. A machine with one CPU runs all there; ratios hold.
pub fn pin(cpu: usize) {
    // SAFETY: a live set of plain data, the index is far below its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// CPU time of all threads of a process so far.
pub fn cpu_of(process: u32) -> Duration {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: the kernel writes a number and a timespec into live variables.
    let rc = unsafe {
        match libc::clock_getcpuclockid(process as i32, &mut clock) {
            0 => libc::clock_gettime(clock, &mut time),
            error => error,
        }
    };
    assert_eq!(rc, 0, "the server lives");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
