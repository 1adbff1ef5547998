//! Listeners and streams of a core, as hyper wants them.
//!
//! A stream belongs to the core that made it. Bytes written are taken at once up to a bound and leave with the
//! driver's next turn, so a flush has nothing to wait for; [`Write::poll_shutdown`] waits until the kernel has them
//! all. Dropping a stream without shutting it down hands over what fits and closes.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use io_uring::{opcode, types};

use super::disk::RingOp;
use super::driver::{self, Driver, SocketKey};
use super::net::{self, End, RawAddr};
use super::timer::sleep;

/// Pause before accepting again after the machine ran out of descriptors or memory: without it the same error would
/// come back at once, for ever.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A connected stream socket.
pub struct Stream {
    driver: Rc<Driver>,
    key: SocketKey,
    fd: RawFd,
}

impl Stream {
    /// Takes over a connected TCP socket of the standard library.
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<Stream> {
        Stream::from_fd(stream.into())
    }

    /// Takes over any connected stream socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Stream> {
        let (driver, raw) = (driver::current(), fd.as_raw_fd());
        let key = driver.attach(fd)?;
        Ok(Stream { driver, key, fd: raw })
    }

    fn accepted(driver: &Rc<Driver>, fd: OwnedFd) -> io::Result<Stream> {
        let raw = fd.as_raw_fd();
        let key = driver.attach_accepted(fd)?;
        Ok(Stream { driver: Rc::clone(driver), key, fd: raw })
    }

    /// Connects to a TCP address. Bound its time with [`timeout`](super::timeout): the kernel's own limit is minutes.
    pub async fn connect(addr: SocketAddr) -> io::Result<Stream> {
        let raw = RawAddr::of(&addr);
        let fd = net::tcp_socket(&addr)?;
        let driver = driver::current();
        if driver.uring().is_some() {
            let raw = Box::new(raw);
            let entry = opcode::Connect::new(types::Fd(fd.as_raw_fd()), raw.as_ptr(), raw.len).build();
            // the operation owns the descriptor as well: given up on, it still names the right socket
            // SAFETY: it also owns the address, on the heap.
            let op = unsafe { RingOp::new(&driver, entry, (raw, fd)) };
            let (result, (_, fd)) = op.await;
            result?;
            return Stream::accepted(&driver, fd);
        }
        let stream = Stream::from_fd(fd)?;
        net::start_connect(stream.fd, &raw)?;
        poll_fn(|cx| driver.poll_connected(stream.key, cx)).await;
        net::pending_error(stream.fd)?;
        Ok(stream)
    }

    /// Connects to a unix socket; the kernel decides at once.
    pub fn connect_unix(path: &Path) -> io::Result<Stream> {
        Stream::from_fd(std::os::unix::net::UnixStream::connect(path)?.into())
    }

    /// Sends small writes at once (TCP only).
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        net::set_option(self.fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, on.into())
    }

    /// The other end's internet address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        net::address(self.fd, End::Peer)
    }

    /// This end's internet address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        net::address(self.fd, End::Local)
    }

    /// Reads what there is, at least one byte unless the peer has finished: zero. For users without hyper.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut room = hyper::rt::ReadBuf::new(buf);
            let polled = self.driver.poll_recv(self.key, cx, room.unfilled());
            polled.map_ok(|()| room.filled().len())
        })
        .await
    }

    /// Writes everything; it is on its way when this answers.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = poll_fn(|cx| self.driver.poll_send(self.key, cx, &[IoSlice::new(bytes)])).await?;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// Waits until the kernel has everything, then tells the peer that no more will come.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self).poll_shutdown(cx)).await
    }
}

impl Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.driver.poll_recv(self.key, cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.driver.poll_send(self.key, cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.driver.poll_send(self.key, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.driver.poll_sent(self.key, cx) {
            Poll::Ready(Ok(())) => Poll::Ready(net::shutdown_write(self.fd)),
            other => other,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.driver.detach(self.key);
    }
}

/// Accepts TCP connections on one core.
pub struct TcpListener {
    listener: Listener,
    local: SocketAddr,
}

impl TcpListener {
    /// Binds and listens. With `reuse_port` every core binds the same address and the kernel spreads connections.
    pub fn bind(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
        let fd = net::tcp_listener(&addr, reuse_port)?;
        let local = net::address(fd.as_raw_fd(), End::Local)?;
        Ok(TcpListener { listener: Listener::new(fd)?, local })
    }

    /// The bound address, with the port the kernel chose if zero was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next connection.
    ///
    /// # Errors
    /// The machine has run out of descriptors or memory (the next call pauses first), or the listener is broken.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        loop {
            let stream = self.listener.accept().await?;
            // a peer that is gone already has no address: not an error of ours
            if let Ok(peer) = stream.peer_addr() {
                return Ok((stream, peer));
            }
        }
    }
}

/// The process at the other end of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixPeer {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its process id at connect; may have been reused since.
    pub pid: i32,
}

/// Accepts connections of processes of this machine on one core.
pub struct UnixListener {
    listener: Listener,
}

impl UnixListener {
    /// Binds and listens. The path must be free; it is not removed at the end.
    pub fn bind(path: &Path) -> io::Result<UnixListener> {
        let fd = std::os::unix::net::UnixListener::bind(path)?.into();
        Ok(UnixListener { listener: Listener::new(fd)? })
    }

    /// The next connection. Errors as [`TcpListener::accept`].
    pub async fn accept(&self) -> io::Result<(Stream, UnixPeer)> {
        let stream = self.listener.accept().await?;
        let (uid, gid, pid) = net::unix_peer(stream.fd)?;
        Ok((stream, UnixPeer { uid, gid, pid }))
    }
}

struct Listener {
    driver: Rc<Driver>,
    key: SocketKey,
    exhausted: Cell<bool>,
}

impl Listener {
    fn new(fd: OwnedFd) -> io::Result<Listener> {
        let driver = driver::current();
        let key = driver.listen(fd)?;
        Ok(Listener { driver, key, exhausted: Cell::new(false) })
    }

    async fn accept(&self) -> io::Result<Stream> {
        if self.exhausted.take() {
            sleep(EXHAUSTED_PAUSE).await;
        }
        loop {
            match poll_fn(|cx| self.driver.poll_accept(self.key, cx)).await {
                Ok(fd) => return Stream::accepted(&self.driver, fd),
                // the connection died in the backlog, or a network error of its own: accept(2) says to go on
                Err(e) if is_of_one_connection(&e) => {}
                Err(e) => {
                    self.exhausted.set(true);
                    return Err(e);
                }
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
        )
    )
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.driver.unlisten(self.key);
    }
}
