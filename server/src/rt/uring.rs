//! The io_uring backend: one ring, one system call a turn.
//!
//! ```text
//! tasks ── poll_send ──> out ─┐                       ┌─> recv queue ──> poll_recv ── tasks
//! tasks ── start(op) ──> SQ ──┴── enter (one a turn) ─┴─> op result  ──> poll_op   ── tasks
//! ```
//! Receives and accepts are multishot: armed once, they deliver until cancelled, into buffers the kernel picks. Sends
//! are gathered per socket during a turn and leave with its system call, marked "do not wait" and "no completion if
//! all went": they are tried on the spot, so after the call every one of them is either gone or has said why not. A
//! socket that would not take all gets the rest as an ordinary waiting send. So a busy connection costs no system
//! call of its own, and waiting for "one completion" never mistakes a finished send for news.
//!
//! Driven by `Driver`; sockets live in `uring_socket`. It wakes nobody itself: wakers are handed to the caller.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use slab::Slab;

use super::bufring::BufRing;
use super::driver::eventfd;
use super::uring_socket::{Listener, Socket};

/// Submissions between two system calls; more cost one more call.
const SUBMISSIONS: u32 = 512;
/// Completions the kernel may hold for us before it keeps them in a slower list.
const COMPLETIONS: u32 = 4096;
/// How long a closing ring waits for what is in flight before it leaks the memory instead, as the kernel may still
/// write to it.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// What a completion belongs to; the upper byte of its user data, the slot below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    /// Not looked at: cancellations and closes.
    Ignored = 0,
    /// Another thread wakes us.
    Wake = 1,
    /// A socket's multishot receive.
    Recv = 2,
    /// A send tried on the spot that did not go through.
    SendTried = 3,
    /// A send that waits.
    SendWaiting = 4,
    /// A listener's multishot accept.
    Accept = 5,
    /// An operation with an owner of its own: disk, connect.
    Op = 6,
}

const TAGS: [Tag; 7] = [Tag::Ignored, Tag::Wake, Tag::Recv, Tag::SendTried, Tag::SendWaiting, Tag::Accept, Tag::Op];

impl Tag {
    pub fn with(self, slot: u32) -> u64 {
        (self as u64) << 56 | slot as u64
    }

    fn split(user_data: u64) -> (Tag, u32) {
        (TAGS[(user_data >> 56) as usize], user_data as u32)
    }
}

/// One completion, copied out of the ring.
#[derive(Clone, Copy)]
pub(super) struct Completion {
    pub result: i32,
    pub flags: u32,
}

/// One core's ring.
pub(super) struct Uring {
    inner: RefCell<Inner>,
}

pub(super) struct Inner {
    pub queue: Queue,
    pub buffers: BufRing,
    pub sockets: Slab<Socket>,
    pub listeners: Slab<Listener>,
    /// Sockets with bytes to send, or to be closed, at the next system call.
    pub dirty: Vec<u32>,
    /// Sockets whose send was tried in the current system call.
    pub tried: Vec<u32>,
    /// Tasks the last turn woke.
    pub woken: usize,
    /// Empty send buffers, so that an idle connection holds none.
    pub spare: Vec<Vec<u8>>,
    ops: Slab<Op>,
    wake_fd: RawFd,
    /// Signalled with news for a host that sleeps elsewhere.
    news: Option<OwnedFd>,
    /// Completions being worked through.
    batch: Vec<(u64, Completion)>,
}

/// An operation the kernel works on, and the memory it uses meanwhile.
struct Op {
    result: Option<i32>,
    waker: Option<Waker>,
    /// Nobody waits any more; forget it when it completes.
    abandoned: bool,
    /// Anything the kernel reads or writes while it runs.
    held: Option<Box<dyn std::any::Any>>,
}

impl Uring {
    /// Opens a ring on this thread, which alone may use it.
    pub fn open(wake_fd: RawFd) -> io::Result<Uring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(COMPLETIONS)
            .dontfork()
            .build(SUBMISSIONS)?;
        let buffers = BufRing::new()?;
        buffers.register(&ring.submitter())?;
        let queue = Queue::new(ring);
        let mut inner = Inner {
            queue,
            buffers,
            sockets: Slab::new(),
            listeners: Slab::new(),
            dirty: Vec::new(),
            tried: Vec::new(),
            woken: 0,
            spare: Vec::new(),
            ops: Slab::new(),
            wake_fd,
            news: None,
            batch: Vec::new(),
        };
        inner.arm_wake();
        Ok(Uring { inner: RefCell::new(inner) })
    }

    /// A descriptor that becomes readable with news, once [`Uring::signal`] is on. The ring's own descriptor will not
    /// do: under deferred task running the kernel does not tell its pollers of work that has yet to be run.
    pub fn poll_fd(&self) -> io::Result<RawFd> {
        let mut inner = self.inner.borrow_mut();
        if inner.news.is_none() {
            let news = eventfd()?;
            inner.queue.ring.submitter().register_eventfd(news.as_raw_fd())?;
            inner.queue.ring.completion().disable_eventfd();
            inner.news = Some(news);
        }
        Ok(inner.news.as_ref().expect("made above").as_raw_fd())
    }

    /// Switches the news descriptor on, empty, or off. Off while turns are taken anyway: each signal costs.
    pub fn signal(&self, on: bool) {
        let mut inner = self.inner.borrow_mut();
        if !on {
            inner.queue.ring.completion().disable_eventfd();
        } else if let Some(news) = &inner.news {
            let mut count = [0u8; 8];
            // SAFETY: reads eight bytes into a live array; "would block" means it is empty.
            unsafe { libc::read(news.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
            inner.queue.ring.completion().enable_eventfd();
            // work that came before the switch is run here, what comes later signals
            let _ = inner.queue.raw_enter(0, 0, true, None);
        }
    }

    /// Whether something waits for the next turn.
    pub fn has_queued(&self) -> bool {
        let mut inner = self.inner.borrow_mut();
        !inner.dirty.is_empty() || !inner.queue.ring.submission().is_empty()
    }

    /// One system call: submits, sleeps for at most `wait` (`None`: for ever), takes in completions.
    pub fn turn(&self, wait: Option<Duration>, wakes: &mut Vec<Waker>) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        let wait = if inner.queue_sends() { Some(Duration::ZERO) } else { wait };
        let entered = inner.queue.enter(wait);
        loop {
            inner.reap(wakes);
            // completions the kernel keeps in its overflow list may be failures of sends: fetch them all before
            // concluding that a silent send went through
            if !inner.queue.overflowed() {
                break;
            }
            inner.queue.enter(Some(Duration::ZERO))?;
        }
        inner.settle_sends(wakes);
        inner.woken = wakes.len();
        entered
    }

    pub fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        f(&mut self.inner.borrow_mut())
    }

    /// Queues an operation for the next turn. `held` owns all memory its entry points to.
    ///
    /// # Safety
    /// Every pointer in `entry` must stay valid for as long as `held` is not dropped.
    pub unsafe fn start(&self, entry: squeue::Entry, held: Box<dyn std::any::Any>) -> u32 {
        let mut inner = self.inner.borrow_mut();
        let op = Op { result: None, waker: None, abandoned: false, held: Some(held) };
        let slot = inner.ops.insert(op) as u32;
        inner.queue.push(entry.user_data(Tag::Op.with(slot)), 1);
        slot
    }

    /// The result of an operation (negative: an errno) and what it held; once.
    pub fn poll_op(&self, slot: u32, cx: &Context<'_>) -> Poll<(i32, Box<dyn std::any::Any>)> {
        let mut inner = self.inner.borrow_mut();
        let op = &mut inner.ops[slot as usize];
        match op.result {
            None => {
                op.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(result) => {
                let held = inner.ops.remove(slot as usize).held.expect("held until the result is taken");
                Poll::Ready((result, held))
            }
        }
    }

    /// Nobody will ask for the result. The operation runs on; its memory is kept until it has ended.
    pub fn abandon(&self, slot: u32) {
        let mut inner = self.inner.borrow_mut();
        let op = &mut inner.ops[slot as usize];
        if op.result.is_some() {
            inner.ops.remove(slot as usize);
        } else {
            op.abandoned = true;
            op.waker = None;
        }
    }
}

impl Inner {
    fn arm_wake(&mut self) {
        // multishot and edge triggered: each write to the eventfd is one completion, nobody needs to read it
        let poll = opcode::PollAdd::new(types::Fd(self.wake_fd), libc::POLLIN as u32).multi(true).build();
        self.queue.push(poll.user_data(Tag::Wake.with(0)), 1);
    }

    fn reap(&mut self, wakes: &mut Vec<Waker>) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.extend(self.queue.ring.completion().map(|c| {
            let completion = Completion { result: c.result(), flags: c.flags() };
            (c.user_data(), completion)
        }));
        for (user_data, completion) in batch.drain(..) {
            let (tag, slot) = Tag::split(user_data);
            let ended = !cqueue::more(completion.flags);
            if ended && !matches!(tag, Tag::Ignored | Tag::SendTried) {
                self.queue.in_flight -= 1;
            }
            match tag {
                Tag::Ignored => {}
                Tag::Wake if ended => self.arm_wake(),
                Tag::Wake => {}
                Tag::Recv => self.received(slot, completion, wakes),
                Tag::SendTried => self.sockets[slot as usize].tried = Some(completion.result),
                Tag::SendWaiting => self.sent_waiting(slot, completion.result, wakes),
                Tag::Accept => self.accepted(slot, completion, wakes),
                Tag::Op => self.op_done(slot, completion.result, wakes),
            }
        }
        self.batch = batch;
    }

    fn op_done(&mut self, slot: u32, result: i32, wakes: &mut Vec<Waker>) {
        let op = &mut self.ops[slot as usize];
        if op.abandoned {
            self.ops.remove(slot as usize);
        } else {
            op.result = Some(result);
            wakes.extend(op.waker.take());
        }
    }
}

impl Drop for Uring {
    /// Cancels everything and waits until the kernel has let go of our memory.
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        let all = types::CancelBuilder::any();
        inner.queue.push(opcode::AsyncCancel2::new(all).build().user_data(Tag::Ignored.with(0)), 0);
        let deadline = Instant::now() + CLOSE_WAIT;
        while inner.queue.in_flight > 0 && Instant::now() < deadline {
            let _ = inner.queue.enter(Some(Duration::from_millis(50)));
            let ended = inner.queue.ring.completion().filter(|c| {
                let (tag, _) = Tag::split(c.user_data());
                !cqueue::more(c.flags()) && !matches!(tag, Tag::Ignored | Tag::SendTried)
            });
            inner.queue.in_flight -= ended.count() as u32;
        }
        if inner.queue.enter_flags & ENTER_REGISTERED_RING != 0 {
            unregister_ring(inner.queue.ring.as_raw_fd(), inner.queue.enter_fd);
        }
        if inner.queue.in_flight > 0 {
            std::mem::forget(std::mem::take(&mut inner.sockets));
            std::mem::forget(std::mem::take(&mut inner.ops));
            if let Ok(fresh) = BufRing::new() {
                std::mem::forget(std::mem::replace(&mut inner.buffers, fresh));
            }
        }
    }
}

/// The submission side, apart from the rest so that it can be used while a socket is borrowed.
pub(super) struct Queue {
    ring: IoUring,
    /// Operations whose final completion has not been seen.
    in_flight: u32,
    /// What every system call names the ring by: a registered index spares the kernel a look-up; else the descriptor.
    enter_fd: RawFd,
    enter_flags: u32,
}

// io_uring_enter(2)
const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const ENTER_NO_IOWAIT: u32 = 1 << 7;
// io_uring_register(2)
const REGISTER_RING_FDS: libc::c_uint = 20;

impl Queue {
    fn new(ring: IoUring) -> Queue {
        let mut queue = Queue { enter_fd: ring.as_raw_fd(), enter_flags: 0, in_flight: 0, ring };
        // an idle server is idle, not "waiting for IO", in the eyes of whoever watches the machine
        if queue.ring.params().is_feature_no_iowait() {
            queue.enter_flags |= ENTER_NO_IOWAIT;
        }
        if let Some(index) = register_ring(queue.enter_fd) {
            queue.enter_fd = index;
            queue.enter_flags |= ENTER_REGISTERED_RING;
        }
        queue
    }

    /// Queues an entry; `completions` is one if it will end with a completion that is counted. Memory it points to
    /// must live until then: the callers keep it in slots that are freed by completions only.
    pub fn push(&mut self, entry: squeue::Entry, completions: u32) {
        self.in_flight += completions;
        loop {
            // SAFETY: see above; descriptors are open while their slot lives.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // full: hand over what is there. Cannot fail for good, the kernel always takes submissions in the end.
            let _ = self.submit();
        }
    }

    fn submit(&mut self) -> io::Result<()> {
        let queued = self.ring.submission().len() as u32;
        self.raw_enter(queued, 0, false, None)
    }

    /// Submits all; waits for a completion unless one is there or `wait` is zero.
    fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let have_news = !self.ring.completion().is_empty();
        let submission = self.ring.submission();
        let (queued, work) = (submission.len() as u32, submission.taskrun() || submission.cq_overflow());
        drop(submission);
        let sleep = !have_news && wait != Some(Duration::ZERO);
        if !sleep && queued == 0 && !work {
            return Ok(());
        }
        self.raw_enter(queued, u32::from(sleep), true, if sleep { wait } else { None })?;
        // an interrupted call may have left some behind
        while !self.ring.submission().is_empty() {
            self.submit()?;
        }
        Ok(())
    }

    fn raw_enter(&mut self, queued: u32, want: u32, events: bool, wait: Option<Duration>) -> io::Result<()> {
        let mut flags = self.enter_flags | if events { ENTER_GETEVENTS } else { 0 };
        let span = Timespec::from(wait.unwrap_or_default());
        let args = SubmitArgs::new().timespec(&span);
        let (arg, size) = match wait {
            Some(_) => ((&raw const args).cast::<libc::c_void>(), size_of::<SubmitArgs<'_, '_>>()),
            None => (std::ptr::null(), 0),
        };
        if wait.is_some() {
            flags |= ENTER_EXT_ARG;
        }
        // SAFETY: the argument, if any, is a live struct of the type and size that EXT_ARG announces; without it the
        // kernel reads none. Submitted entries were made valid by `push`.
        let rc = unsafe { libc::syscall(libc::SYS_io_uring_enter, self.enter_fd, queued, want, flags, arg, size) };
        if rc >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // timed out, interrupted, or the completion side is full or short of memory: the caller reaps and comes
            // again
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        }
    }

    fn overflowed(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }
}

/// Registers a ring's descriptor with itself, for this thread. Answers its index, or nothing where that is unknown.
fn register_ring(fd: RawFd) -> Option<RawFd> {
    /// The kernel's io_uring_rsrc_update.
    #[repr(C)]
    struct Update {
        offset: u32,
        reserved: u32,
        data: u64,
    }
    let mut update = Update { offset: u32::MAX, reserved: 0, data: fd as u64 };
    // SAFETY: one live struct of the kernel's layout is read and its offset written.
    let rc = unsafe { libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_RING_FDS, &raw mut update, 1) };
    (rc == 1).then_some(update.offset as RawFd)
}

/// Takes it back; the thread has few such places.
fn unregister_ring(fd: RawFd, index: RawFd) {
    const UNREGISTER_RING_FDS: libc::c_uint = 21;
    let mut update = [index as u64 & u64::from(u32::MAX), 0];
    // SAFETY: sixteen live bytes in the kernel's layout: the index, padding, and a zero.
    unsafe { libc::syscall(libc::SYS_io_uring_register, fd, UNREGISTER_RING_FDS, update.as_mut_ptr(), 1) };
}
