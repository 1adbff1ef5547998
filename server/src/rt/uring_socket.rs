//! Sockets and listeners on the ring: what is queued per socket between the kernel and its task.
//!
//! A slot lives until its handle is dropped *and* the kernel has sent the last completion that names it, so a
//! completion never meets a stranger. A socket that its task does not read is cut off after a few buffers, so one slow
//! or hostile connection cannot hold the buffers of all.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll, Waker};

use hyper::rt::ReadBufCursor;
use io_uring::{cqueue, opcode, squeue, types};

use super::bufring::{BufRing, GROUP};
use super::driver::SocketKey;
use super::uring::{Completion, Inner, Tag, Uring};

/// Received buffers a socket may hold unread before its receive is stopped.
const UNREAD_BUFFERS: usize = 16;
/// Accepted connections nobody has taken before accepting is stopped; the rest waits in the kernel's backlog.
const UNTAKEN_CONNECTIONS: usize = 64;
/// Bytes taken for sending before a writer has to wait.
const UNSENT_BYTES: usize = 64 * 1024;
/// After a turn that woke no more than this many tasks, sends are system calls of their own: the peer works on the
/// first answer while the second is made. After a fuller one they are gathered, which costs less and is as quick.
const SEND_AT_ONCE: usize = 8;
/// Send buffers up to this capacity are kept for the next sender, larger ones are freed, bytes.
const SPARE_BYTES: usize = 16 * 1024;
/// Send buffers kept.
const SPARES: usize = 256;

/// A multishot operation's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shot {
    /// Not with the kernel.
    Idle,
    /// Delivering.
    Armed,
    /// Its end was asked for and has not come.
    Stopping,
}

/// One stream socket.
pub(super) struct Socket {
    /// None once handed to the kernel for closing.
    fd: Option<OwnedFd>,
    /// The handle is gone.
    closing: bool,
    listed: bool,

    receive: Shot,
    unread: VecDeque<Unread>,
    /// The kernel had no buffer for us: read straight into the caller's memory next time.
    starved: bool,
    /// The stream's end (zero) or an errno, reported after everything unread.
    end: Option<i32>,
    reader: Option<Waker>,

    /// Taken and not yet given to the kernel.
    out: Vec<u8>,
    /// Given to the kernel; empty unless a send is tried or waiting.
    sending: Vec<u8>,
    sent: usize,
    waiting: bool,
    /// What a tried send that failed had to say.
    pub tried: Option<i32>,
    send_error: Option<i32>,
    writer: Option<Waker>,
}

/// Bytes in a lent buffer.
struct Unread {
    buffer: u16,
    from: u16,
    to: u16,
}

/// One listening socket.
pub(super) struct Listener {
    fd: Option<OwnedFd>,
    accept: Shot,
    closing: bool,
    untaken: VecDeque<OwnedFd>,
    error: Option<i32>,
    waker: Option<Waker>,
}

impl Uring {
    pub fn attach(&self, fd: OwnedFd) -> SocketKey {
        self.with(|inner| SocketKey(inner.sockets.insert(Socket::new(fd)) as u32))
    }

    pub fn detach(&self, key: SocketKey) {
        // wakers may own tasks: dropped after the borrow
        let _wakers = self.with(|inner| {
            let socket = &mut inner.sockets[key.0 as usize];
            socket.closing = true;
            for unread in socket.unread.drain(..) {
                inner.buffers.give(unread.buffer);
            }
            let wakers = (socket.reader.take(), socket.writer.take());
            inner.list(key.0);
            wakers
        });
    }

    pub fn poll_recv(&self, key: SocketKey, cx: &Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.with(|inner| {
            let socket = &mut inner.sockets[key.0 as usize];
            if socket.take_unread(&mut inner.buffers, &mut into) {
                return Poll::Ready(Ok(()));
            }
            if let Some(end) = socket.end {
                return Poll::Ready(if end == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(end)) });
            }
            if socket.receive == Shot::Idle {
                if socket.starved || inner.buffers.is_scarce() {
                    match socket.receive_now(&mut into) {
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        done => return Poll::Ready(done),
                    }
                    socket.starved = false;
                }
                let fd = types::Fd(socket.raw_fd());
                let entry = opcode::RecvMulti::new(fd, GROUP).build().user_data(Tag::Recv.with(key.0));
                socket.receive = Shot::Armed;
                inner.queue.push(entry, 1);
            }
            register(&mut socket.reader, cx)
        })
    }

    pub fn poll_send(&self, key: SocketKey, cx: &Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.with(|inner| {
            let socket = &mut inner.sockets[key.0 as usize];
            if let Some(errno) = socket.send_error {
                return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
            }
            let queued = !socket.out.is_empty() || !socket.sending.is_empty();
            if !queued && inner.woken <= SEND_AT_ONCE {
                match super::epoll::send(socket.raw_fd(), bufs) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    done => return Poll::Ready(done),
                }
            }
            let room = UNSENT_BYTES.saturating_sub(socket.out.len());
            if room == 0 {
                return register(&mut socket.writer, cx);
            }
            if socket.out.capacity() == 0 {
                socket.out = inner.spare.pop().unwrap_or_default();
            }
            let mut taken = 0;
            for buf in bufs {
                let n = buf.len().min(room - taken);
                socket.out.extend_from_slice(&buf[..n]);
                taken += n;
            }
            if taken > 0 && !socket.waiting {
                inner.list(key.0);
            }
            Poll::Ready(Ok(taken))
        })
    }

    pub fn poll_sent(&self, key: SocketKey, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.with(|inner| {
            let socket = &mut inner.sockets[key.0 as usize];
            match socket.send_error {
                Some(errno) => Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
                None if socket.out.is_empty() && socket.sending.is_empty() => Poll::Ready(Ok(())),
                None => register(&mut socket.writer, cx),
            }
        })
    }

    pub fn listen(&self, fd: OwnedFd) -> SocketKey {
        let listener = Listener {
            fd: Some(fd),
            accept: Shot::Idle,
            closing: false,
            untaken: VecDeque::new(),
            error: None,
            waker: None,
        };
        self.with(|inner| SocketKey(inner.listeners.insert(listener) as u32))
    }

    pub fn poll_accept(&self, key: SocketKey, cx: &Context<'_>) -> Poll<io::Result<OwnedFd>> {
        self.with(|inner| {
            let listener = &mut inner.listeners[key.0 as usize];
            if let Some(fd) = listener.untaken.pop_front() {
                return Poll::Ready(Ok(fd));
            }
            if let Some(errno) = listener.error.take() {
                return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
            }
            if listener.accept == Shot::Idle {
                let fd = types::Fd(listener.fd.as_ref().expect("open until its handle is dropped").as_raw_fd());
                let entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
                listener.accept = Shot::Armed;
                inner.queue.push(entry.user_data(Tag::Accept.with(key.0)), 1);
            }
            register(&mut listener.waker, cx)
        })
    }

    pub fn unlisten(&self, key: SocketKey) {
        let _dropped = self.with(|inner| {
            let listener = &mut inner.listeners[key.0 as usize];
            listener.closing = true;
            let dropped = (listener.waker.take(), std::mem::take(&mut listener.untaken));
            match listener.accept {
                Shot::Idle => drop(inner.listeners.remove(key.0 as usize)),
                // the descriptor stays open until the end is confirmed, so that its number is not reused under us
                Shot::Armed => inner.queue.push(cancel(Tag::Accept, key.0), 0),
                Shot::Stopping => {}
            }
            dropped
        });
    }
}

impl Inner {
    /// Marks a socket for the next system call.
    fn list(&mut self, slot: u32) {
        let socket = &mut self.sockets[slot as usize];
        if !socket.listed {
            socket.listed = true;
            self.dirty.push(slot);
        }
    }

    /// Before the system call: one send per socket with bytes to send, and the end of those to be closed. Answers
    /// whether a writer waits for one of them: the call must not sleep then, as a send that goes through is silent.
    pub fn queue_sends(&mut self) -> bool {
        let mut awaited = false;
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            let socket = &mut self.sockets[slot as usize];
            socket.listed = false;
            if !socket.out.is_empty() && !socket.waiting && socket.send_error.is_none() {
                debug_assert!(socket.sending.is_empty(), "nothing is being sent while nothing waits");
                std::mem::swap(&mut socket.out, &mut socket.sending);
                self.queue.push(socket.send_now(slot), 0);
                self.tried.push(slot);
                awaited |= socket.writer.is_some();
            }
            if socket.closing
                && let Some(fd) = socket.fd.take()
            {
                if socket.receive == Shot::Armed {
                    socket.receive = Shot::Stopping;
                    self.queue.push(cancel(Tag::Recv, slot), 0);
                }
                if socket.waiting {
                    socket.out = Vec::new();
                    self.queue.push(cancel(Tag::SendWaiting, slot), 0);
                }
                let close = opcode::Close::new(types::Fd(fd.into_raw_fd())).build();
                let flags = squeue::Flags::SKIP_SUCCESS;
                self.queue.push(close.flags(flags).user_data(Tag::Ignored.with(slot)), 0);
                if socket.sending.is_empty() {
                    self.forget_if_over(slot);
                }
            }
        }
        self.dirty = dirty;
        awaited
    }

    /// After the system call: what was tried and said nothing is gone; the rest is sent by waiting.
    pub fn settle_sends(&mut self, wakes: &mut Vec<Waker>) {
        let mut tried = std::mem::take(&mut self.tried);
        for slot in tried.drain(..) {
            let socket = &mut self.sockets[slot as usize];
            match socket.tried.take() {
                None => self.all_sent(slot, wakes),
                Some(result) if result >= 0 || result == -libc::EAGAIN => {
                    socket.sent = result.max(0) as usize;
                    self.send_rest(slot, wakes);
                }
                Some(result) => self.send_failed(slot, -result, wakes),
            }
        }
        self.tried = tried;
    }

    fn all_sent(&mut self, slot: u32, wakes: &mut Vec<Waker>) {
        let socket = &mut self.sockets[slot as usize];
        let mut buffer = std::mem::take(&mut socket.sending);
        buffer.clear();
        socket.sent = 0;
        wakes.extend(socket.writer.take());
        let more = !socket.out.is_empty();
        if buffer.capacity() <= SPARE_BYTES && self.spare.len() < SPARES {
            self.spare.push(buffer);
        }
        if more {
            self.list(slot);
        }
        self.forget_if_over(slot);
    }

    fn send_rest(&mut self, slot: u32, wakes: &mut Vec<Waker>) {
        let socket = &mut self.sockets[slot as usize];
        if socket.fd.is_none() {
            // closed without waiting for the peer to take everything: whoever wants that shuts down first
            return self.send_failed(slot, libc::EPIPE, wakes);
        }
        socket.waiting = true;
        let rest = &socket.sending[socket.sent..];
        let entry = opcode::Send::new(types::Fd(socket.raw_fd()), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.queue.push(entry.user_data(Tag::SendWaiting.with(slot)), 1);
    }

    pub fn sent_waiting(&mut self, slot: u32, result: i32, wakes: &mut Vec<Waker>) {
        let socket = &mut self.sockets[slot as usize];
        socket.waiting = false;
        if result < 0 && result != -libc::EINTR {
            return self.send_failed(slot, -result, wakes);
        }
        socket.sent += result.max(0) as usize;
        if socket.sent < socket.sending.len() {
            self.send_rest(slot, wakes);
        } else {
            self.all_sent(slot, wakes);
        }
    }

    fn send_failed(&mut self, slot: u32, errno: i32, wakes: &mut Vec<Waker>) {
        let socket = &mut self.sockets[slot as usize];
        socket.send_error = Some(errno);
        socket.sending = Vec::new();
        socket.out = Vec::new();
        wakes.extend(socket.writer.take());
        self.forget_if_over(slot);
    }

    pub fn received(&mut self, slot: u32, completion: Completion, wakes: &mut Vec<Waker>) {
        let socket = &mut self.sockets[slot as usize];
        let buffer = cqueue::buffer_select(completion.flags);
        if let Some(id) = buffer {
            self.buffers.took();
            if completion.result > 0 && !socket.closing {
                socket.unread.push_back(Unread { buffer: id, from: 0, to: completion.result as u16 });
            } else {
                self.buffers.give(id);
            }
        }
        if !cqueue::more(completion.flags) {
            let stopped = std::mem::replace(&mut socket.receive, Shot::Idle) == Shot::Stopping;
            match -completion.result {
                libc::ENOBUFS => socket.starved = true,
                libc::ECANCELED if stopped => {}
                0 => socket.end = Some(0),
                errno if errno > 0 => socket.end = Some(errno),
                _ => {}
            }
            if socket.closing {
                return self.forget_if_over(slot);
            }
        } else if socket.unread.len() >= UNREAD_BUFFERS && socket.receive == Shot::Armed {
            socket.receive = Shot::Stopping;
            self.queue.push(cancel(Tag::Recv, slot), 0);
        }
        wakes.extend(socket.reader.take());
    }

    pub fn accepted(&mut self, slot: u32, completion: Completion, wakes: &mut Vec<Waker>) {
        let listener = &mut self.listeners[slot as usize];
        if completion.result >= 0 {
            // SAFETY: the kernel just opened this descriptor for us; nobody else knows it.
            let fd = unsafe { OwnedFd::from_raw_fd(completion.result) };
            if !listener.closing {
                listener.untaken.push_back(fd);
            }
        } else if completion.result != -libc::ECANCELED {
            listener.error = Some(-completion.result);
        }
        if !cqueue::more(completion.flags) {
            listener.accept = Shot::Idle;
            if listener.closing {
                self.listeners.remove(slot as usize);
                return;
            }
        } else if listener.untaken.len() >= UNTAKEN_CONNECTIONS && listener.accept == Shot::Armed {
            listener.accept = Shot::Stopping;
            self.queue.push(cancel(Tag::Accept, slot), 0);
        }
        wakes.extend(listener.waker.take());
    }

    /// Frees the slot of a closed socket once the kernel will not name it again.
    fn forget_if_over(&mut self, slot: u32) {
        let socket = &self.sockets[slot as usize];
        let over = socket.fd.is_none() && socket.receive == Shot::Idle && socket.sending.is_empty();
        if over && !socket.waiting && !socket.listed {
            self.sockets.remove(slot as usize);
        }
    }
}

impl Socket {
    fn new(fd: OwnedFd) -> Socket {
        Socket {
            fd: Some(fd),
            closing: false,
            listed: false,
            receive: Shot::Idle,
            unread: VecDeque::new(),
            starved: false,
            end: None,
            reader: None,
            out: Vec::new(),
            sending: Vec::new(),
            sent: 0,
            waiting: false,
            tried: None,
            send_error: None,
            writer: None,
        }
    }

    fn raw_fd(&self) -> RawFd {
        self.fd.as_ref().expect("open until its handle is dropped").as_raw_fd()
    }

    /// Copies unread bytes out and gives emptied buffers back. Answers whether there were any.
    fn take_unread(&mut self, buffers: &mut BufRing, into: &mut ReadBufCursor<'_>) -> bool {
        let any = !self.unread.is_empty();
        while let Some(front) = self.unread.front_mut() {
            let bytes = &buffers.bytes(front.buffer, front.to as usize)[front.from as usize..];
            let n = bytes.len().min(into.remaining());
            into.put_slice(&bytes[..n]);
            front.from += n as u16;
            if front.from < front.to {
                break;
            }
            buffers.give(front.buffer);
            self.unread.pop_front();
        }
        any
    }

    /// Reads without waiting into the caller's memory.
    fn receive_now(&self, into: &mut ReadBufCursor<'_>) -> io::Result<()> {
        super::epoll::receive(self.raw_fd(), into).map(drop)
    }

    /// The entry that sends `sending` on the spot or says why not; silent when all went.
    fn send_now(&self, slot: u32) -> squeue::Entry {
        opcode::Send::new(types::Fd(self.raw_fd()), self.sending.as_ptr(), self.sending.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Tag::SendTried.with(slot))
    }
}

/// Ends a multishot operation or a waiting send; its own completion confirms.
fn cancel(tag: Tag, slot: u32) -> squeue::Entry {
    let entry = opcode::AsyncCancel::new(tag.with(slot)).build();
    entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(Tag::Ignored.with(slot))
}

fn register<T>(waker: &mut Option<Waker>, cx: &Context<'_>) -> Poll<T> {
    match waker {
        Some(old) if old.will_wake(cx.waker()) => {}
        _ => *waker = Some(cx.waker().clone()),
    }
    Poll::Pending
}
