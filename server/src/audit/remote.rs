//! Devices that may hang: sockets, the system's log, standard output, pipes. One thread a device serves the whole
//! process, so that no core ever waits in a system call of theirs; a bounded queue stands before it.
//!
//! The core that sent lines counts their time itself and gives them up when it has run out, whatever the thread is
//! stuck in. The thread does not write lines whose time has run out.

use super::file::whole_lines;
use super::target::{SocketKind, Target, plain};
use crate::rt;
use crate::rt::channel::Sender;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

/// Most jobs that wait for one device; a job is the lines of one core's turn.
const QUEUE_JOBS: usize = 1024;
/// Most bytes that wait for one device.
const QUEUE_BYTES: usize = 64 << 20;
/// Where the system's log listens, as the C library and journald know it.
const SYSLOG_PATHS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
/// Shortest time given to a system call: zero would mean for ever.
const MOMENT: Duration = Duration::from_millis(1);

/// Lines on their way to a device.
pub(super) struct Job {
    /// The core's name for it.
    pub id: u64,
    /// Lines, each with its newline.
    pub bytes: Vec<u8>,
    /// Where each call's lines end.
    pub ends: Vec<usize>,
    /// When the core gives them up.
    pub deadline: Option<Instant>,
    /// The core.
    pub back: Sender<Ack>,
}

/// What became of a job.
pub(super) struct Ack {
    /// The job.
    pub id: u64,
    /// Which calls' lines were taken, all of each.
    pub taken: Vec<bool>,
    /// Why others were not.
    pub error: Option<String>,
}

enum Order {
    Write(Job),
    Reopen,
}

/// A device served by a thread. The thread ends when every core has dropped this.
pub(super) struct Remote {
    orders: SyncSender<Order>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Remote {
    /// Starts the thread; it connects when the first lines come.
    pub fn start(target: Target) -> io::Result<Remote> {
        let (orders, inbox) = mpsc::sync_channel(QUEUE_JOBS);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&waiting_bytes);
        thread::Builder::new().name("audit-device".into()).spawn(move || {
            let mut link = Link::new(target);
            for order in inbox {
                match order {
                    Order::Reopen => link.connection = None,
                    Order::Write(job) => {
                        waiting.fetch_sub(job.bytes.len(), Ordering::Relaxed);
                        let (taken, error) = link.write(&job.bytes, &job.ends, job.deadline);
                        // a core that is gone waits for nothing
                        let _ = job.back.try_send(Ack { id: job.id, taken, error });
                    }
                }
            }
        })?;
        Ok(Remote { orders, waiting_bytes })
    }

    /// Hands over a job without waiting; false if the queue is full.
    pub fn offer(&self, job: Job) -> bool {
        let bytes = job.bytes.len();
        if self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= QUEUE_BYTES
            && self.orders.try_send(Order::Write(job)).is_ok()
        {
            return true;
        }
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        false
    }

    /// Has the device connected anew with the next lines. If the queue is full the thread is at odds with the device
    /// anyway and connects anew by itself.
    pub fn reopen(&self) {
        let _ = self.orders.try_send(Order::Reopen);
    }
}

/// A device and the connection to it, if there is one. Calls block.
pub(super) struct Link {
    target: Target,
    connection: Option<Connection>,
}

enum Connection {
    Stdout,
    Pipe(File),
    Tcp(TcpStream),
    Unix(UnixStream),
    Udp(UdpSocket),
    Syslog(UnixDatagram),
}

impl Link {
    pub fn new(target: Target) -> Link {
        Link { target, connection: None }
    }

    /// Writes lines of calls, connecting first if need be, and once more if the connection broke. Answers which
    /// calls' lines were all taken.
    pub fn write(&mut self, bytes: &[u8], ends: &[usize], deadline: Option<Instant>) -> (Vec<bool>, Option<String>) {
        let mut work = Work { bytes, ends, done: 0, refused: vec![false; ends.len()], deadline, told: None };
        let mut second_try = false;
        while let Err(error) = self.send(&mut work) {
            self.connection = None;
            let out_of_time = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if second_try || out_of_time {
                work.told = Some(plain(&error));
                break;
            }
            second_try = true;
        }
        let taken = ends.iter().zip(&work.refused).map(|(end, refused)| *end <= work.done && !refused).collect();
        (taken, work.told)
    }

    /// Sends what is not done. An error means that the connection is of no more use.
    fn send(&mut self, work: &mut Work<'_>) -> io::Result<()> {
        if self.connection.as_mut().is_some_and(Connection::has_ended) {
            self.connection = None;
        }
        let connection = match &mut self.connection {
            Some(open) => open,
            none => none.insert(connect(&self.target, work.deadline)?),
        };
        if let Err(error) = left(work.deadline) {
            // the time went by before anything was sent: not the connection's fault, the next lines may use it
            work.told = Some(plain(&error));
            return Ok(());
        }
        match connection {
            Connection::Udp(_) | Connection::Syslog(_) => work.send_datagrams(connection, &self.target),
            stream => {
                let (written, error) = stream.write_until(&work.bytes[work.done..], work.deadline);
                // what the broken connection has of a line is worth nothing: it goes out again from its start
                work.done += whole_lines(&work.bytes[work.done..work.done + written]);
                error.map_or(Ok(()), Err)
            }
        }
    }
}

/// Lines being sent.
struct Work<'a> {
    bytes: &'a [u8],
    ends: &'a [usize],
    /// Bytes that need no more doing: sent, or refused. Always the end of a line.
    done: usize,
    /// Calls with a line that was refused by itself: it is too long.
    refused: Vec<bool>,
    deadline: Option<Instant>,
    /// The last thing that went wrong.
    told: Option<String>,
}

impl Work<'_> {
    /// One datagram a line.
    fn send_datagrams(&mut self, connection: &Connection, target: &Target) -> io::Result<()> {
        for (call, end) in self.ends.iter().enumerate() {
            while self.done < *end {
                let line = &self.bytes[self.done..*end];
                let line = &line[..memchr::memchr(b'\n', line).map_or(line.len(), |at| at + 1)];
                match send_datagram(connection, target, line, self.deadline) {
                    Ok(()) => {}
                    Err(error) if is_too_long(&error) => {
                        self.refused[call] = true;
                        self.told = Some(plain(&error));
                    }
                    Err(error) => return Err(error),
                }
                self.done += line.len();
            }
        }
        Ok(())
    }
}

fn send_datagram(connection: &Connection, target: &Target, line: &[u8], deadline: Option<Instant>) -> io::Result<()> {
    let sent = match (connection, target) {
        (Connection::Udp(socket), _) => {
            socket.set_write_timeout(left(deadline)?)?;
            socket.send(line)?
        }
        (Connection::Syslog(socket), Target::Syslog { priority, tag }) => {
            socket.set_write_timeout(left(deadline)?)?;
            let message = syslog_message(*priority, tag, line);
            socket.send(&message)? + line.len() - message.len()
        }
        _ => unreachable!("only these two connections send datagrams, and each only to its own target"),
    };
    if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// `<PRI>Mmm dd hh:mm:ss TAG[PID]: text` (RFC 3164 4.1), without the host's name as on every local socket. The time is
/// UTC; receivers on the same machine put their own in its place.
fn syslog_message(priority: u8, tag: &str, line: &[u8]) -> Vec<u8> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let time = rt::now().wall.rfc3339_seconds();
    let month = time[5..7].parse::<usize>().ok().and_then(|month| MONTHS.get(month - 1)).unwrap_or(&MONTHS[0]);
    let day = time[8..10].trim_start_matches('0');
    let head = format!("<{priority}>{month} {day:>2} {} {tag}[{}]: ", &time[11..19], std::process::id());
    [head.as_bytes(), line.strip_suffix(b"\n").unwrap_or(line)].concat()
}

/// EMSGSIZE: this message, not the connection.
fn is_too_long(error: &io::Error) -> bool {
    const EMSGSIZE: i32 = 90;
    error.raw_os_error() == Some(EMSGSIZE)
}

/// Time left for a system call.
fn left(deadline: Option<Instant>) -> io::Result<Option<Duration>> {
    let Some(deadline) = deadline else { return Ok(None) };
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(Some(left.max(MOMENT))),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn connect(target: &Target, deadline: Option<Instant>) -> io::Result<Connection> {
    left(deadline)?;
    Ok(match target {
        Target::Stdout => Connection::Stdout,
        Target::File { path, .. } => Connection::Pipe(OpenOptions::new().append(true).open(path)?),
        Target::Socket { address, kind: SocketKind::Unix, .. } => Connection::Unix(UnixStream::connect(address)?),
        Target::Socket { address, kind: SocketKind::Udp, .. } => {
            let mut refusal = no_address();
            for to in address.to_socket_addrs()? {
                let from = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                match UdpSocket::bind(from).and_then(|socket| socket.connect(to).map(|()| socket)) {
                    Ok(socket) => return Ok(Connection::Udp(socket)),
                    Err(error) => refusal = error,
                }
            }
            return Err(refusal);
        }
        Target::Socket { address, kind: SocketKind::Tcp, .. } => {
            let mut refusal = no_address();
            for to in address.to_socket_addrs()? {
                let connected = match left(deadline)? {
                    Some(left) => TcpStream::connect_timeout(&to, left),
                    None => TcpStream::connect(to),
                };
                match connected {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok(Connection::Tcp(stream));
                    }
                    Err(error) => refusal = error,
                }
            }
            return Err(refusal);
        }
        Target::Syslog { .. } => {
            let socket = UnixDatagram::unbound()?;
            let mut refusal = no_address();
            for path in SYSLOG_PATHS.map(Path::new) {
                match socket.connect(path) {
                    Ok(()) => return Ok(Connection::Syslog(socket)),
                    Err(error) if refusal.kind() == io::ErrorKind::AddrNotAvailable => refusal = error,
                    Err(_) => {}
                }
            }
            return Err(refusal);
        }
        Target::Discard => unreachable!("nothing is sent to nowhere"),
    })
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::AddrNotAvailable, "no address")
}

impl Connection {
    /// Whether the other side has closed a stream. Without asking, the first lines after that would be lost: the
    /// kernel takes them and learns only from the answer that nobody listens.
    fn has_ended(&mut self) -> bool {
        fn ended(stream: &mut impl Read, set: impl Fn(bool) -> io::Result<()>) -> bool {
            let mut unasked = [0; 256];
            let asked = set(true).and_then(|()| stream.read(&mut unasked));
            let open = match asked {
                Ok(n) => n > 0,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            };
            !open || set(false).is_err()
        }
        match self {
            Connection::Tcp(stream) => ended(&mut &*stream, |on| stream.set_nonblocking(on)),
            Connection::Unix(stream) => ended(&mut &*stream, |on| stream.set_nonblocking(on)),
            _ => false,
        }
    }

    /// As much as it takes until the deadline.
    fn write_until(&mut self, bytes: &[u8], deadline: Option<Instant>) -> (usize, Option<io::Error>) {
        let mut written = 0;
        while written < bytes.len() {
            match left(deadline).and_then(|left| self.write_some(&bytes[written..], left)) {
                Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }

    fn write_some(&mut self, bytes: &[u8], left: Option<Duration>) -> io::Result<usize> {
        match self {
            Connection::Stdout => {
                let mut out = io::stdout().lock();
                let n = out.write(bytes)?;
                out.flush()?;
                Ok(n)
            }
            Connection::Pipe(file) => file.write(bytes),
            Connection::Tcp(stream) => {
                stream.set_write_timeout(left)?;
                stream.write(bytes)
            }
            Connection::Unix(stream) => {
                stream.set_write_timeout(left)?;
                stream.write(bytes)
            }
            Connection::Udp(_) | Connection::Syslog(_) => unreachable!("datagrams are sent, not written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::Scratch;
    use std::io::BufRead;
    use std::net::TcpListener;

    fn socket(address: String, kind: SocketKind) -> Link {
        Link::new(Target::Socket { address, kind, timeout: None })
    }

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_secs(10))
    }

    /// The next connection, which must come.
    fn accept_soon(listener: &TcpListener) -> TcpStream {
        listener.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return stream;
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            assert!(Instant::now() < deadline, "nobody connects");
            thread::sleep(MOMENT);
        }
    }

    fn ends(lines: &[&[u8]]) -> Vec<usize> {
        lines.iter().scan(0, |at, line| Some((*at += line.len(), *at).1)).collect()
    }

    #[test]
    fn a_closed_connection_is_made_again_and_no_line_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut link = socket(listener.local_addr().unwrap().to_string(), SocketKind::Tcp);
        for round in 0..3 {
            let lines = [format!("{round} a\n{round} b\n"), format!("{round} c\n")];
            let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            assert_eq!(link.write(&lines.concat(), &ends(&lines), soon()), (vec![true, true], None));
            let stream = accept_soon(&listener);
            let got: Vec<String> = io::BufReader::new(&stream).lines().take(3).map(Result::unwrap).collect();
            assert_eq!(got, [format!("{round} a"), format!("{round} b"), format!("{round} c")]);
            // closed by the receiver between two rounds
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
        drop(listener);
        let (taken, error) = link.write(b"x\n", &[2], soon());
        assert_eq!(taken, [false]);
        assert!(error.unwrap().contains("refused"));
    }

    #[test]
    fn a_receiver_that_does_not_read_costs_its_time_and_no_more() {
        let scratch = Scratch::new();
        let path = scratch.path.join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut link = socket(path.display().to_string(), SocketKind::Unix);
        let line = [vec![b'x'; 8 << 20], b"\n".to_vec()].concat();
        let lines: [&[u8]; 2] = [b"first\n", &line];
        let deadline = Instant::now() + Duration::from_millis(150);
        let (taken, error) = link.write(&lines.concat(), &ends(&lines), Some(deadline));
        assert_eq!(taken, [true, false]);
        assert!(error.is_some());
        assert!(Instant::now() >= deadline);
        drop(listener);
    }

    #[test]
    fn a_line_too_long_for_a_datagram_is_refused_alone() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut link = socket(receiver.local_addr().unwrap().to_string(), SocketKind::Udp);
        let long = [vec![b'x'; 70_000], b"\n".to_vec()].concat();
        let lines: [&[u8]; 4] = [b"one\n", &long, b"two\nthree\n", b"four\n"];
        let (taken, error) = link.write(&lines.concat(), &ends(&lines), soon());
        assert_eq!(taken, [true, false, true, true]);
        assert!(error.unwrap().contains("too long"));
        for expected in ["one\n", "two\n", "three\n", "four\n"] {
            let mut buf = [0; 100];
            let n = receiver.recv(&mut buf).unwrap();
            assert_eq!(&buf[..n], expected.as_bytes());
        }
    }

    #[test]
    fn syslog_messages_have_their_head() {
        let text = String::from_utf8(syslog_message(38, "vault", b"{\"a\":1}\n")).unwrap();
        let (head, line) = text.split_once(": ").unwrap();
        assert_eq!(line, "{\"a\":1}");
        assert!(head.starts_with("<38>"), "{head}");
        assert!(head.ends_with(&format!(" vault[{}]", std::process::id())), "{head}");
        let time = &head[4..19];
        assert!(time.as_bytes()[3] == b' ' && time.as_bytes()[6] == b' ' && time.as_bytes()[9] == b':', "{time:?}");
    }

    #[test]
    fn syslog_goes_out_as_datagrams() {
        let (here, there) = UnixDatagram::pair().unwrap();
        there.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let target = Target::Syslog { priority: 38, tag: "t".into() };
        let mut link = Link { target, connection: Some(Connection::Syslog(here)) };
        assert_eq!(link.write(b"one\ntwo\n", &[4, 8], soon()), (vec![true, true], None));
        for expected in [": one", ": two"] {
            let mut buf = [0; 200];
            let n = there.recv(&mut buf).unwrap();
            assert!(buf[..n].ends_with(expected.as_bytes()));
        }
    }

    #[test]
    fn the_queue_is_bounded_and_expired_lines_are_not_written() {
        let scratch = Scratch::new();
        let path = scratch.path.join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let target = Target::Socket { address: path.display().to_string(), kind: SocketKind::Unix, timeout: None };
        let remote = Remote::start(target).unwrap();
        let (back, acks) = crate::rt::channel::unbounded();
        let job = |id, bytes: Vec<u8>, deadline| {
            let ends = vec![bytes.len()];
            Job { id, bytes, ends, deadline, back: back.clone() }
        };
        assert!(!remote.offer(job(0, vec![b'\n'; QUEUE_BYTES + 1], None)), "more than may wait");
        assert!(remote.offer(job(1, b"late\n".to_vec(), Some(Instant::now()))));
        assert!(remote.offer(job(2, b"in time\n".to_vec(), soon())));
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        io::BufReader::new(&stream).read_line(&mut line).unwrap();
        assert_eq!(line, "in time\n");
        let acks = rt::run(&rt::Options::default(), || async move {
            let mut acks = acks.open();
            [acks.recv().await, acks.recv().await].map(|ack| ack.map(|ack| (ack.id, ack.taken)))
        });
        assert_eq!(acks.unwrap(), [Some((1, vec![false])), Some((2, vec![true]))]);
        assert_eq!(remote.waiting_bytes.load(Ordering::Relaxed), 0);
    }
}
