//! Proxies on loopback, for machines where nobody may make namespaces: every port of a node stands behind one, which
//! finds out whose connection it carries and obeys the same [`Rules`].
//!
//! Bytes of a link that is cut wait, as they would in the retransmissions of TCP; connections are neither taken nor
//! closed meanwhile. Loss and doubling mean nothing to a byte stream: they are delay here.

use super::{Addresses, End, Rules};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often a stalled or idle link looks whether it may go on.
const LOOK: Duration = Duration::from_millis(20);

/// Process numbers of the nodes; 0 for one that is down.
pub type Pids = Arc<Vec<AtomicU32>>;

struct Shared {
    rules: Arc<Rules>,
    pids: Pids,
    stopped: AtomicBool,
    links: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

/// The proxies of all nodes.
pub struct Proxies {
    shared: Arc<Shared>,
    /// Per node: API and cluster, each as (where the node listens, where the proxy does).
    ports: Vec<[(u16, u16); 2]>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Proxies {
    /// Opens the proxies.
    ///
    /// # Errors
    /// No port is free.
    pub fn build(nodes: usize, rules: Arc<Rules>, pids: Pids) -> Result<Proxies, String> {
        let text = |e: std::io::Error| format!("a proxy cannot listen: {e}");
        let shared = Arc::new(Shared { rules, pids, stopped: AtomicBool::new(false), links: Mutex::new(Vec::new()) });
        let (mut ports, mut threads) = (Vec::new(), Vec::new());
        for node in 0..nodes {
            let mut pair = [(0, 0); 2];
            for slot in &mut pair {
                let front = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
                front.set_nonblocking(true).map_err(text)?;
                let port = front.local_addr().map_err(text)?.port();
                let behind = free_port()?;
                *slot = (behind, port);
                let shared = shared.clone();
                threads.push(std::thread::spawn(move || shared.accept(&front, behind, node)));
            }
            ports.push(pair);
        }
        Ok(Proxies { shared, ports, threads })
    }

    /// Addresses of a node.
    pub fn addresses(&self, i: usize) -> Addresses {
        let [(api, api_front), (cluster, cluster_front)] = self.ports[i];
        let at = |port: u16| format!("127.0.0.1:{port}");
        Addresses {
            api_listen: at(api),
            cluster_listen: at(cluster),
            api: at(api_front),
            cluster: at(cluster_front),
            prefix: Vec::new(),
        }
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        for t in self.threads.drain(..) {
            let _ = t.join();
        }
        let links = std::mem::take(&mut *self.shared.links.lock().unwrap_or_else(PoisonError::into_inner));
        for t in links {
            let _ = t.join();
        }
    }
}

/// A port below the range from which the kernel gives ports to clients, or one of those would be taken now and then.
fn free_port() -> Result<u16, String> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let above: u16 = range.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(32_768);
    let (low, high) = if above > 12_000 { (10_000, above) } else { (61_001, 65_000) };
    for _ in 0..1000 {
        let port = fastrand::u16(low..high);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no port is free".into())
}

impl Shared {
    fn accept(self: &Arc<Shared>, front: &TcpListener, behind: u16, node: usize) {
        while !self.stopped.load(Ordering::Relaxed) {
            let Ok((client, from)) = front.accept() else {
                std::thread::sleep(LOOK / 4);
                continue;
            };
            let shared = self.clone();
            let link = std::thread::spawn(move || shared.link(client, from, behind, node));
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            links.retain(|l| !l.is_finished());
            links.push(link);
        }
    }

    /// Who dialled: the node whose process owns the socket at that port, or a client.
    fn who(&self, from: SocketAddr) -> End {
        // the table is no snapshot: while others connect and end, a read of it may leave a line out
        let Some(inode) = (0..8).find_map(|_| inode_of(from.port())) else { return End::Clients };
        let name = format!("socket:[{inode}]");
        for (i, pid) in self.pids.iter().enumerate() {
            let pid = pid.load(Ordering::Relaxed);
            let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            let owns =
                |f: std::fs::DirEntry| std::fs::read_link(f.path()).is_ok_and(|l| l.as_os_str() == name.as_str());
            if pid != 0 && files.flatten().any(owns) {
                return End::Node(i);
            }
        }
        End::Clients
    }

    fn link(self: &Arc<Shared>, client: TcpStream, from: SocketAddr, behind: u16, node: usize) {
        let (near, far) = (self.who(from), End::Node(node));
        self.wait_while_cut(near, far);
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, behind)) else { return };
        let both = client.try_clone().and_then(|c| server.try_clone().map(|s| (c, s)));
        let Ok((client_too, server_too)) = both else { return };
        let back = self.clone();
        let other = std::thread::spawn(move || back.copy(server_too, client_too, far, near));
        self.copy(client, server, near, far);
        let _ = other.join();
    }

    fn wait_while_cut(&self, from: End, to: End) {
        while self.rules.is_cut(from, to) && !self.stopped.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
        }
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, near: End, far: End) {
        let mut buf = vec![0u8; 65_536];
        let _ = from.set_read_timeout(Some(LOOK)).and_then(|()| to.set_nodelay(true));
        while !self.stopped.load(Ordering::Relaxed) {
            let n = match from.read(&mut buf) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            self.wait_while_cut(near, far);
            if let Some(w) = self.rules.between(near, far) {
                std::thread::sleep(w.delay + w.jitter.mul_f64(fastrand::f64()));
            }
            if to.write_all(&buf[..n]).is_err() {
                break;
            }
        }
        // an end, too, does not pass a cut
        self.wait_while_cut(near, far);
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    }
}

/// The inode of the socket that has this local port on loopback and is connected.
fn inode_of(port: u16) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let local = format!("0100007F:{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        (words.next()? == local).then(|| words.nth(7)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_while_a_link_is_cut() {
        let rules = Arc::new(Rules::default());
        let pids: Pids = Arc::new(vec![AtomicU32::new(0)]);
        let proxies = Proxies::build(1, rules.clone(), pids).unwrap();
        let a = proxies.addresses(0);
        let server = TcpListener::bind(&a.api_listen).unwrap();
        rules.cut(End::Clients, End::Node(0));
        let mut client = TcpStream::connect(&a.api).unwrap();
        client.write_all(b"hello").unwrap();
        server.set_nonblocking(true).unwrap();
        std::thread::sleep(3 * LOOK);
        assert!(server.accept().is_err(), "a cut link connects");
        rules.heal();
        server.set_nonblocking(false).unwrap();
        let (mut conn, _) = server.accept().unwrap();
        let mut got = [0u8; 5];
        conn.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        drop(conn);
        assert_eq!(client.read(&mut got).unwrap(), 0, "the end passes too");
    }

    #[test]
    fn the_owner_of_a_connection_is_found() {
        let rules = Arc::new(Rules::default());
        let pids: Pids = Arc::new(vec![AtomicU32::new(0), AtomicU32::new(std::process::id())]);
        let proxies = Proxies::build(2, rules, pids).unwrap();
        let client = TcpStream::connect(&proxies.addresses(0).api).unwrap();
        assert_eq!(proxies.shared.who(client.local_addr().unwrap()), End::Node(1));
    }
}
