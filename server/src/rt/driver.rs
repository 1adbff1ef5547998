//! The driver: sockets, disk, timers and wake-ups of one core, with no executor type in it.
//!
//! Whoever runs tasks calls [`Driver::turn`] in a loop; everything else registers a waker and is woken by a turn.
//! Two backends stand behind one face: a ring of our own on io_uring, and epoll for where io_uring is forbidden.
//! A driver lives and dies on one thread; only its [`Unpark`] crosses threads. No waker runs while a borrow of the
//! driver is held.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::rt::ReadBufCursor;

use super::epoll::Epoll;
use super::timer::{TimerKey, Timers};
use super::uring::Uring;

/// Which backend an [`Options`](super::Options) asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverWish {
    /// io_uring where the kernel allows it, else epoll.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// epoll with disk operations on helper threads.
    Epoll,
}

/// The backend in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// One ring per core.
    IoUring,
    /// Readiness, and helper threads for the disk.
    Epoll,
}

/// What was chosen and why, for the start-up message.
#[derive(Clone, Debug)]
pub struct DriverChoice {
    /// The backend in use.
    pub kind: DriverKind,
    /// Cause and, for a fallback, remedy; one sentence each.
    pub reason: String,
}

impl std::fmt::Display for DriverKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DriverKind::IoUring => "io_uring",
            DriverKind::Epoll => "epoll",
        })
    }
}

impl std::fmt::Display for DriverChoice {
    /// For one line of the start-up message: `epoll: io_uring is switched off ...`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            DriverKind::IoUring => self.kind.fmt(f),
            DriverKind::Epoll => write!(f, "{}: {}", self.kind, self.reason),
        }
    }
}

/// Unique per driver and process.
pub(super) type DriverId = u64;

/// Names a socket or listener of one driver.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketKey(pub u32);

/// How long a turn may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Park {
    /// Not at all: there are runnable tasks.
    Never,
    /// Until an event, a timer or a wake from another thread.
    UntilEvent,
}

/// One core's window to the kernel.
pub struct Driver {
    id: DriverId,
    backend: Backend,
    timers: RefCell<Timers>,
    unpark: Arc<Unpark>,
    wakes: RefCell<Vec<Waker>>,
    /// Set by a host that sleeps elsewhere than in [`Driver::turn`]; see [`Driver::kick`].
    host: RefCell<Option<Waker>>,
    host_sleeps: Cell<bool>,
    choice: DriverChoice,
}

// one per core, never moved again: the size difference costs nothing, a box would cost a step per operation
#[allow(clippy::large_enum_variant)]
enum Backend {
    Uring(Uring),
    Epoll(Epoll),
}

impl Driver {
    /// Opens the backend wished for, on the thread that will use it.
    pub(super) fn open(wish: DriverWish) -> io::Result<Driver> {
        let unpark = Arc::new(Unpark::new()?);
        let wake_fd = unpark.event.as_raw_fd();
        let (backend, choice) = match wish {
            DriverWish::Epoll => (epoll(wake_fd)?, choice(DriverKind::Epoll, "epoll was asked for.".into())),
            DriverWish::IoUring => (Backend::Uring(Uring::open(wake_fd)?), uring_choice()),
            DriverWish::Auto => match Uring::open(wake_fd) {
                Ok(ring) => (Backend::Uring(ring), uring_choice()),
                Err(e) => (epoll(wake_fd)?, choice(DriverKind::Epoll, why_not_uring(&e))),
            },
        };
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Ok(Driver {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            backend,
            timers: RefCell::default(),
            unpark,
            wakes: RefCell::default(),
            host: RefCell::default(),
            host_sleeps: Cell::new(false),
            choice,
        })
    }

    /// The backend in use and why.
    pub fn choice(&self) -> &DriverChoice {
        &self.choice
    }

    pub(super) fn id(&self) -> DriverId {
        self.id
    }

    pub(super) fn unpark(&self) -> &Arc<Unpark> {
        &self.unpark
    }

    /// The ring, for operations that epoll has no counterpart of.
    pub(super) fn uring(&self) -> Option<&Uring> {
        match &self.backend {
            Backend::Uring(ring) => Some(ring),
            Backend::Epoll(_) => None,
        }
    }

    /// Hands everything queued to the kernel, sleeps as `park` allows, and wakes whoever got something: one system
    /// call. Answers whether anyone was woken.
    pub(super) fn turn(&self, park: Park) -> io::Result<bool> {
        let mut wakes = self.wakes.take();
        let wait = self.wait_of(park);
        let result = match &self.backend {
            Backend::Uring(ring) => ring.turn(wait, &mut wakes),
            Backend::Epoll(epoll) => epoll.turn(wait, &mut wakes),
        };
        let mut timers = self.timers.borrow_mut();
        if !timers.is_empty() {
            timers.expire(Instant::now(), &mut wakes);
        }
        drop(timers);
        let any = !wakes.is_empty();
        wakes.drain(..).for_each(Waker::wake);
        self.wakes.replace(wakes);
        result.map(|()| any)
    }

    /// The longest a turn may sleep; `None` is for ever, zero is not at all.
    fn wait_of(&self, park: Park) -> Option<Duration> {
        match park {
            Park::Never => Some(Duration::ZERO),
            Park::UntilEvent => self.next_timer().map(|at| at.saturating_duration_since(Instant::now())),
        }
    }

    /// When the earliest timer is due, or a little before.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.borrow_mut().next()
    }

    /// Whether something waits for the next turn to be handed to the kernel.
    pub(super) fn has_queued(&self) -> bool {
        self.uring().is_some_and(Uring::has_queued)
    }

    /// Readable when a turn would find something, for a host that sleeps elsewhere and has said so by
    /// [`Driver::signal`].
    pub(super) fn poll_fd(&self) -> io::Result<i32> {
        match &self.backend {
            Backend::Uring(ring) => ring.poll_fd(),
            Backend::Epoll(epoll) => Ok(epoll.poll_fd()),
        }
    }

    /// Switches the readiness of [`Driver::poll_fd`] on or off. After switching it on, take a turn before sleeping.
    pub(super) fn signal(&self, on: bool) {
        if let Some(ring) = self.uring() {
            ring.signal(on);
        }
    }

    /// The host will sleep outside of `turn`; whatever is queued from now on wakes it, or it would never be
    /// submitted.
    pub(super) fn host_parks(&self, waker: Waker) {
        self.host.replace(Some(waker));
        self.host_sleeps.set(true);
    }

    /// Called by everything that queues work for the next turn. Under the bare executor nothing runs while the
    /// driver is parked, so this is one load.
    #[inline]
    pub(super) fn kick(&self) {
        if self.host_sleeps.replace(false)
            && let Some(waker) = self.host.take()
        {
            waker.wake();
        }
    }

    // ---- sockets ----

    /// Takes over a stream socket from elsewhere. Blocking mode is set as the backend needs it.
    pub(super) fn attach(&self, fd: OwnedFd) -> io::Result<SocketKey> {
        set_nonblocking(&fd, matches!(self.backend, Backend::Epoll(_)))?;
        self.attach_accepted(fd)
    }

    /// Takes over a socket that `poll_accept` of this driver answered; its mode is right already.
    pub(super) fn attach_accepted(&self, fd: OwnedFd) -> io::Result<SocketKey> {
        match &self.backend {
            Backend::Uring(ring) => Ok(ring.attach(fd)),
            Backend::Epoll(epoll) => epoll.attach(fd),
        }
    }

    /// Lets go of a socket: bytes accepted for sending are handed to the kernel once, then it is closed.
    pub(super) fn detach(&self, key: SocketKey) {
        self.kick();
        match &self.backend {
            Backend::Uring(ring) => ring.detach(key),
            Backend::Epoll(epoll) => epoll.detach(key),
        }
    }

    /// Fills the cursor with what has arrived; nothing filled means the peer has finished.
    pub(super) fn poll_recv(
        &self,
        key: SocketKey,
        cx: &Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = match &self.backend {
            Backend::Uring(ring) => ring.poll_recv(key, cx, into),
            Backend::Epoll(epoll) => epoll.poll_recv(key, cx, into),
        };
        self.kick();
        polled
    }

    /// Takes bytes for sending. With a ring they are copied and leave with the next turn.
    pub(super) fn poll_send(
        &self,
        key: SocketKey,
        cx: &Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &self.backend {
            Backend::Uring(ring) => ring.poll_send(key, cx, bufs),
            Backend::Epoll(epoll) => epoll.poll_send(key, cx, bufs),
        };
        self.kick();
        polled
    }

    /// Ready when the kernel has every byte taken for sending.
    pub(super) fn poll_sent(&self, key: SocketKey, cx: &Context<'_>) -> Poll<io::Result<()>> {
        match &self.backend {
            Backend::Uring(ring) => ring.poll_sent(key, cx),
            Backend::Epoll(_) => Poll::Ready(Ok(())),
        }
    }

    /// Takes over a listening socket.
    pub(super) fn listen(&self, fd: OwnedFd) -> io::Result<SocketKey> {
        set_nonblocking(&fd, matches!(self.backend, Backend::Epoll(_)))?;
        match &self.backend {
            Backend::Uring(ring) => Ok(ring.listen(fd)),
            Backend::Epoll(epoll) => epoll.attach(fd),
        }
    }

    /// The next connection of a listener.
    pub(super) fn poll_accept(&self, key: SocketKey, cx: &Context<'_>) -> Poll<io::Result<OwnedFd>> {
        let polled = match &self.backend {
            Backend::Uring(ring) => ring.poll_accept(key, cx),
            Backend::Epoll(epoll) => epoll.poll_accept(key, cx),
        };
        self.kick();
        polled
    }

    /// Closes a listener and what it had accepted but not handed out.
    pub(super) fn unlisten(&self, key: SocketKey) {
        self.kick();
        match &self.backend {
            Backend::Uring(ring) => ring.unlisten(key),
            Backend::Epoll(epoll) => epoll.detach(key),
        }
    }

    /// Ready when an epoll socket can be written to: the end of a connect.
    pub(super) fn poll_connected(&self, key: SocketKey, cx: &Context<'_>) -> Poll<()> {
        match &self.backend {
            Backend::Uring(_) => Poll::Ready(()),
            Backend::Epoll(epoll) => epoll.poll_writable(key, cx),
        }
    }

    // ---- timers ----

    pub(super) fn timer_insert(&self, deadline: Instant, waker: Waker) -> TimerKey {
        self.kick();
        self.timers.borrow_mut().insert(deadline, waker)
    }

    pub(super) fn timer_poll(&self, key: TimerKey, waker: &Waker) -> Poll<()> {
        self.timers.borrow_mut().poll(key, waker)
    }

    pub(super) fn timer_reset(&self, key: TimerKey, deadline: Instant) {
        self.kick();
        self.timers.borrow_mut().reset(key, deadline);
    }

    pub(super) fn timer_cancel(&self, key: TimerKey) {
        // the waker is dropped after the borrow has ended: it may own a task
        let dropped = self.timers.borrow_mut().cancel(key);
        drop(dropped);
    }
}

/// Wakes a driver that sleeps in its turn, from any thread.
///
/// The sleeper announces itself, looks once more for work and only then sleeps; the waker leaves its work first and
/// looks for a sleeper after. Both in sequentially consistent order, so at least one of them sees the other.
pub(super) struct Unpark {
    event: OwnedFd,
    parked: AtomicBool,
}

impl Unpark {
    fn new() -> io::Result<Unpark> {
        Ok(Unpark { event: eventfd()?, parked: AtomicBool::new(false) })
    }

    /// The sleeper: announces that it is about to sleep. It must look for work after this.
    pub fn announce(&self) {
        self.parked.store(true, Ordering::SeqCst);
    }

    /// The sleeper: awake again.
    pub fn awake(&self) {
        self.parked.store(false, Ordering::SeqCst);
    }

    /// The waker: call it after the work was left where the sleeper looks.
    pub fn wake(&self) {
        if self.parked.swap(false, Ordering::SeqCst) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: writes eight bytes of a live array to a descriptor owned by self. It can only fail when the
            // counter is near its end, and then the sleeper is awake already.
            unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }
}

/// A counter to signal by, not blocking.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor it answers is owned by nobody else.
    unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn epoll(wake_fd: i32) -> io::Result<Backend> {
    Epoll::open(wake_fd).map(Backend::Epoll)
}

fn choice(kind: DriverKind, reason: String) -> DriverChoice {
    DriverChoice { kind, reason }
}

fn uring_choice() -> DriverChoice {
    choice(DriverKind::IoUring, "io_uring is available.".into())
}

/// Cause and remedy, for an operator.
fn why_not_uring(error: &io::Error) -> String {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match (error.raw_os_error(), disabled.trim()) {
        (Some(libc::EPERM), level @ ("1" | "2")) => {
            format!("io_uring is switched off (sysctl kernel.io_uring_disabled={level}). Set it to 0 to use it.")
        }
        (Some(libc::EPERM | libc::EACCES | libc::ENOSYS), _) => "io_uring is forbidden here, most likely by the \
             container's seccomp profile. Allow io_uring_setup, io_uring_enter and io_uring_register."
            .into(),
        (Some(libc::EINVAL), _) => "This kernel's io_uring is too old. Linux 6.1 or later has what is needed.".into(),
        (Some(libc::ENOMEM), _) => "io_uring may not lock enough memory. Raise the memlock limit (ulimit -l).".into(),
        _ => format!("io_uring could not be set up: {error}."),
    }
}

/// Blocking mode of a descriptor: a ring waits by itself and must not be told "would block".
fn set_nonblocking(fd: &OwnedFd, on: bool) -> io::Result<()> {
    // SAFETY: fcntl on a descriptor that is open for the length of the call; no pointers.
    unsafe {
        let old = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        let new = if on { old | libc::O_NONBLOCK } else { old & !libc::O_NONBLOCK };
        if old < 0 || (new != old && libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, new) < 0) {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Driver>>> = const { RefCell::new(None) };
}

/// Makes a driver the thread's own until the guard is dropped.
pub(super) struct Entered(Option<Rc<Driver>>);

impl Entered {
    pub fn new(driver: Rc<Driver>) -> Entered {
        Entered(CURRENT.replace(Some(driver)))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        drop(CURRENT.replace(self.0.take()));
    }
}

/// The thread's driver.
///
/// # Panics
/// Outside of a core: a programming error, as sockets and timers only exist on cores.
pub(super) fn current() -> Rc<Driver> {
    CURRENT.with_borrow(|d| d.clone()).expect("called on a core's thread, inside its executor")
}

/// Lends the thread's driver without counting a reference.
pub(super) fn with<R>(f: impl FnOnce(&Driver) -> R) -> R {
    CURRENT.with_borrow(|d| f(d.as_ref().expect("called on a core's thread, inside its executor")))
}

/// Lends the thread's driver if it is that one.
pub(super) fn with_id<R>(id: DriverId, f: impl FnOnce(&Driver) -> R) -> Option<R> {
    CURRENT.with_borrow(|d| d.as_ref().filter(|d| d.id == id).map(|d| f(d)))
}
