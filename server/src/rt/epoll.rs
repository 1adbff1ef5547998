//! The epoll backend: readiness, edge triggered, each socket registered once.
//!
//! The supported fallback where io_uring is forbidden. Reads and writes are tried at once and wait only when the
//! kernel says "would block"; disk operations go to helper threads (see `disk`). Same face as the ring.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::rt::ReadBufCursor;
use slab::Slab;

use super::driver::SocketKey;

/// Events taken in by one system call.
const EVENTS: usize = 256;
/// The event data of the wake-up descriptor; sockets use their slot.
const WAKE: u64 = u64::MAX;

/// One core's epoll set.
pub(super) struct Epoll {
    set: OwnedFd,
    inner: RefCell<Inner>,
}

struct Inner {
    sockets: Slab<Socket>,
    events: Vec<libc::epoll_event>,
}

struct Socket {
    fd: OwnedFd,
    readable: bool,
    writable: bool,
    /// The peer has finished: its end may be behind the bytes a short read just took, without an event of its own.
    over: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Epoll {
    pub fn open(wake_fd: RawFd) -> io::Result<Epoll> {
        // SAFETY: takes no pointers; the descriptor it answers is owned by nobody else.
        let set = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let inner = Inner { sockets: Slab::new(), events: Vec::with_capacity(EVENTS) };
        let epoll = Epoll { set, inner: RefCell::new(inner) };
        // edge triggered: each write to the eventfd is one event, nobody needs to read it
        epoll.add(wake_fd, libc::EPOLLIN | libc::EPOLLET, WAKE)?;
        Ok(epoll)
    }

    pub fn poll_fd(&self) -> RawFd {
        self.set.as_raw_fd()
    }

    fn add(&self, fd: RawFd, interest: i32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest as u32, u64: data };
        // SAFETY: `event` lives for the call, both descriptors are open.
        let rc = unsafe { libc::epoll_ctl(self.set.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sleeps for at most `wait` (`None`: for ever) and takes in events.
    pub fn turn(&self, wait: Option<Duration>, wakes: &mut Vec<Waker>) -> io::Result<()> {
        // rounded up: a timer may fire late by a millisecond, never spin until it is due
        let timeout_ms = match wait {
            None => -1,
            Some(wait) => wait.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32,
        };
        let inner = &mut *self.inner.borrow_mut();
        inner.events.clear();
        // SAFETY: the kernel writes at most EVENTS entries into memory reserved for them, and answers how many.
        unsafe {
            let room = inner.events.as_mut_ptr();
            let n = libc::epoll_wait(self.set.as_raw_fd(), room, EVENTS as i32, timeout_ms);
            if n < 0 {
                let error = io::Error::last_os_error();
                return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
            }
            inner.events.set_len(n as usize);
        }
        for event in &inner.events {
            let (bits, data) = (event.events as i32, event.u64);
            // a socket cannot be replaced by another of the same slot between fetching and this loop
            let Some(socket) = inner.sockets.get_mut(data as usize).filter(|_| data != WAKE) else { continue };
            let over = bits & (libc::EPOLLERR | libc::EPOLLHUP) != 0;
            socket.over |= over || bits & libc::EPOLLRDHUP != 0;
            if socket.over || bits & libc::EPOLLIN != 0 {
                socket.readable = true;
                wakes.extend(socket.reader.take());
            }
            if over || bits & libc::EPOLLOUT != 0 {
                socket.writable = true;
                wakes.extend(socket.writer.take());
            }
        }
        Ok(())
    }

    /// Takes over a stream or listening socket, non-blocking.
    pub fn attach(&self, fd: OwnedFd) -> io::Result<SocketKey> {
        let mut inner = self.inner.borrow_mut();
        let entry = inner.sockets.vacant_entry();
        let slot = entry.key();
        let interest = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        self.add(fd.as_raw_fd(), interest, slot as u64)?;
        // true until the kernel says otherwise: the first try finds out
        entry.insert(Socket { fd, readable: true, writable: true, over: false, reader: None, writer: None });
        Ok(SocketKey(slot as u32))
    }

    pub fn detach(&self, key: SocketKey) {
        // closing takes it out of the set; its wakers may own tasks and are dropped after the borrow
        let _socket = self.inner.borrow_mut().sockets.remove(key.0 as usize);
    }

    pub fn poll_recv(&self, key: SocketKey, cx: &Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.borrow_mut();
        let socket = &mut inner.sockets[key.0 as usize];
        let asked = into.remaining();
        let tried = attempt(&mut socket.readable, || receive(socket.fd.as_raw_fd(), &mut into));
        match tried {
            None => register(&mut socket.reader, cx),
            Some(result) => {
                // a short read has drained the socket: spare the call that would say so. What comes later is an event
                if matches!(result, Ok(n) if n > 0 && n < asked) && !socket.over {
                    socket.readable = false;
                }
                Poll::Ready(result.map(drop))
            }
        }
    }

    pub fn poll_send(&self, key: SocketKey, cx: &Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut inner = self.inner.borrow_mut();
        let socket = &mut inner.sockets[key.0 as usize];
        match attempt(&mut socket.writable, || send(socket.fd.as_raw_fd(), bufs)) {
            None => register(&mut socket.writer, cx),
            Some(result) => Poll::Ready(result),
        }
    }

    pub fn poll_accept(&self, key: SocketKey, cx: &Context<'_>) -> Poll<io::Result<OwnedFd>> {
        let mut inner = self.inner.borrow_mut();
        let socket = &mut inner.sockets[key.0 as usize];
        match attempt(&mut socket.readable, || accept(socket.fd.as_raw_fd())) {
            None => register(&mut socket.reader, cx),
            Some(result) => Poll::Ready(result),
        }
    }

    pub fn poll_writable(&self, key: SocketKey, cx: &Context<'_>) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        let socket = &mut inner.sockets[key.0 as usize];
        let mut poll = libc::pollfd { fd: socket.fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one live pollfd; a timeout of zero does not wait.
        if unsafe { libc::poll(&mut poll, 1, 0) } > 0 {
            return Poll::Ready(());
        }
        register(&mut socket.writer, cx)
    }
}

/// Tries while `ready` holds, again when interrupted; `None` means wait for the next event.
fn attempt<T>(ready: &mut bool, mut call: impl FnMut() -> io::Result<T>) -> Option<io::Result<T>> {
    while *ready {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => *ready = false,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return Some(done),
        }
    }
    None
}

/// Reads what is there, without waiting, straight into the cursor's memory.
pub(super) fn receive(fd: RawFd, into: &mut ReadBufCursor<'_>) -> io::Result<usize> {
    // SAFETY: the kernel writes at most the room's length and answers how many bytes it has initialised; none of the
    // room is read or uninitialised.
    unsafe {
        let room = into.as_mut();
        let n = libc::recv(fd, room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT);
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        into.advance(n as usize);
        Ok(n as usize)
    }
}

pub(super) fn send(fd: RawFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: IoSlice has the layout of iovec and borrows its bytes for the call; the message header is zero where it
    // is not set. At most IOV_MAX slices are passed.
    let n = unsafe {
        match bufs {
            [one] => libc::send(fd, one.as_ptr().cast(), one.len(), flags),
            many => {
                let mut message: libc::msghdr = std::mem::zeroed();
                message.msg_iov = many.as_ptr().cast_mut().cast();
                message.msg_iovlen = many.len().min(1024);
                libc::sendmsg(fd, &message, flags)
            }
        }
    };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

fn accept(fd: RawFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: null address pointers are allowed; the descriptor it answers is owned by nobody else.
    unsafe {
        let n = libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), flags);
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(n)) }
    }
}

fn register<T>(waker: &mut Option<Waker>, cx: &Context<'_>) -> Poll<T> {
    match waker {
        Some(old) if old.will_wake(cx.waker()) => {}
        _ => *waker = Some(cx.waker().clone()),
    }
    Poll::Pending
}
