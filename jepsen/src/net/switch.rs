//! Network namespaces, one a node, joined by a switch in this process.
//!
//! ```text
//!   namespace 1          this process           namespace 2
//!   node ── tun ═══════ file    file ═══════ tun ── node
//!                         │  rules │
//!                         └─ tun ──┘  clients, in the namespace of the harness
//! ```
//! Every packet passes through [`Rules`], so it can be dropped in one direction, delayed, doubled, lost and overtaken,
//! without a kernel module for any of it. What is made here is taken away by its name when the value is dropped.

use super::{Addresses, End, Rules, Weather, tun};
use crate::command::{run, try_run};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

const API_PORT: u16 = 8200;
const CLUSTER_PORT: u16 = 8201;
/// Address of the clients in the network: its last byte.
const CLIENTS: u8 = 254;
/// Fewer packets for large bodies; a packet is a read and a write here.
const MTU: &str = "9000";

struct Port {
    end: End,
    last_byte: u8,
    file: File,
}

/// A packet that waits. Ordered so that the heap yields the earliest first.
struct Late {
    due: Instant,
    number: u64,
    to: usize,
    bytes: Vec<u8>,
}

impl PartialEq for Late {
    fn eq(&self, other: &Late) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Late {}

impl PartialOrd for Late {
    fn partial_cmp(&self, other: &Late) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Late {
    fn cmp(&self, other: &Late) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

#[derive(Default)]
struct Waiting {
    packets: BinaryHeap<Late>,
    next: u64,
}

struct Inner {
    ports: Vec<Port>,
    rules: Arc<Rules>,
    waiting: Mutex<Waiting>,
    more: Condvar,
    stopped: AtomicBool,
}

/// The network. Dropping it takes the namespaces away.
pub struct Switch {
    inner: Arc<Inner>,
    subnet: String,
    names: Vec<String>,
    clients: String,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// What was made so far, taken away again when making the rest fails.
#[derive(Default)]
struct Made {
    namespaces: Vec<String>,
    link: Option<String>,
}

impl Drop for Made {
    fn drop(&mut self) {
        for name in &self.namespaces {
            try_run(&["ip", "netns", "del", name]);
        }
        if let Some(link) = &self.link {
            try_run(&["ip", "link", "del", link]);
        }
    }
}

impl Switch {
    /// Makes a namespace for each node.
    ///
    /// # Errors
    /// What is missing; most often privilege.
    pub fn build(nodes: usize, rules: Arc<Rules>) -> Result<Switch, String> {
        let id = std::process::id();
        let subnet = format!("10.{}.{}", 200 + id % 50, (id / 50) % 250);
        let mut made = Made::default();
        let device = |name: &str| tun::open(name).map_err(|e| format!("a TUN device cannot be made: {e}"));
        let clients = format!("rj{id}c");
        let mut ports = vec![Port { end: End::Clients, last_byte: CLIENTS, file: device(&clients)? }];
        made.link = Some(clients.clone());
        run(&["ip", "addr", "add", &format!("{subnet}.{CLIENTS}/24"), "dev", &clients])?;
        run(&["ip", "link", "set", "dev", &clients, "mtu", MTU, "up"])?;
        for i in 0..nodes {
            let name = format!("rj{id}n{}", i + 1);
            let file = device(&name)?;
            run(&["ip", "netns", "add", &name])?;
            made.namespaces.push(name.clone());
            run(&["ip", "link", "set", "dev", &name, "netns", &name])?;
            run(&["ip", "-n", &name, "addr", "add", &format!("{subnet}.{}/24", i + 1), "dev", &name])?;
            run(&["ip", "-n", &name, "link", "set", "dev", &name, "mtu", MTU, "up"])?;
            run(&["ip", "-n", &name, "link", "set", "dev", "lo", "up"])?;
            ports.push(Port { end: End::Node(i), last_byte: i as u8 + 1, file });
        }
        let inner = Arc::new(Inner {
            ports,
            rules,
            waiting: Mutex::default(),
            more: Condvar::new(),
            stopped: AtomicBool::new(false),
        });
        let mut threads = Vec::new();
        for from in 0..inner.ports.len() {
            let inner = inner.clone();
            threads.push(std::thread::spawn(move || inner.read(from)));
        }
        let late = inner.clone();
        threads.push(std::thread::spawn(move || late.deliver()));
        let names = std::mem::take(&mut made.namespaces);
        made.link = None;
        Ok(Switch { inner, subnet, names, clients, threads })
    }

    /// Addresses of a node.
    pub fn addresses(&self, i: usize) -> Addresses {
        let at = |port: u16| format!("{}.{}:{port}", self.subnet, i + 1);
        Addresses {
            api_listen: at(API_PORT),
            cluster_listen: at(CLUSTER_PORT),
            api: at(API_PORT),
            cluster: at(CLUSTER_PORT),
            prefix: ["ip", "netns", "exec", &self.names[i]].map(str::to_owned).to_vec(),
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.inner.stopped.store(true, Ordering::Relaxed);
        self.inner.more.notify_all();
        // the reads of the threads end with their devices
        for name in &self.names {
            try_run(&["ip", "-n", name, "link", "del", name]);
            try_run(&["ip", "netns", "del", name]);
        }
        try_run(&["ip", "link", "del", &self.clients]);
        for t in self.threads.drain(..) {
            let _ = t.join();
        }
    }
}

impl Inner {
    fn read(&self, from: usize) {
        let mut rng = fastrand::Rng::new();
        let mut buf = vec![0u8; 65_536];
        while !self.stopped.load(Ordering::Relaxed) {
            match (&self.ports[from].file).read(&mut buf) {
                Ok(n) => self.switch(from, &buf[..n], &mut rng),
                // the device is going, or not up
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn switch(&self, from: usize, packet: &[u8], rng: &mut fastrand::Rng) {
        // IPv4 only: what IPv6 asks its neighbours interests nobody here
        let (Some(0x45..=0x4f), Some(last)) = (packet.first().copied(), packet.get(19).copied()) else { return };
        let Some(to) = self.ports.iter().position(|p| p.last_byte == last) else { return };
        let Some(w) = self.rules.between(self.ports[from].end, self.ports[to].end) else { return };
        if w == Weather::default() {
            return self.send(to, packet);
        }
        if rng.u32(0..1000) < w.lost_permille {
            return;
        }
        let copies = 1 + u32::from(rng.u32(0..1000) < w.doubled_permille);
        for _ in 0..copies {
            let extra = w.jitter.mul_f64(rng.f64());
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.next += 1;
            let number = waiting.next;
            waiting.packets.push(Late { due: Instant::now() + w.delay + extra, number, to, bytes: packet.to_vec() });
            self.more.notify_one();
        }
    }

    fn send(&self, to: usize, packet: &[u8]) {
        // a full queue of the device drops, as a network does
        let _ = (&self.ports[to].file).write(packet);
    }

    fn deliver(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.stopped.load(Ordering::Relaxed) {
            let now = Instant::now();
            let pause = match waiting.packets.peek() {
                Some(p) if p.due <= now => {
                    if let Some(p) = waiting.packets.pop() {
                        drop(waiting);
                        self.send(p.to, &p.bytes);
                        waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    }
                    continue;
                }
                Some(p) => p.due - now,
                None => Duration::from_millis(200),
            };
            waiting = self.more.wait_timeout(waiting, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
