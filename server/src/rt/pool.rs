//! Helper threads for calls that block: file metadata, and disk IO where there is no ring.
//!
//! Threads are started when work finds all of them busy, up to a bound, and end after a while without work.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{channel, clock};

/// A helper without work for this long ends.
const LINGER: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// A bounded set of helper threads. Clones share it.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    urgency: Urgency,
    threads_max: usize,
    state: Mutex<State>,
    work: Condvar,
}

/// How a helper stands beside the cores when the machine has no CPU to spare.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Urgency {
    /// Somebody waits for it.
    Usual,
    /// It takes what the cores leave, and a little.
    Background,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Pool {
    /// A pool of at most `threads_max` threads (at least one), none of them started yet.
    pub fn new(name: &str, threads_max: usize) -> Pool {
        Pool::of(name, threads_max, Urgency::Usual)
    }

    fn of(name: &str, threads_max: usize, urgency: Urgency) -> Pool {
        let shared = Shared {
            name: name.to_owned(),
            urgency,
            threads_max: threads_max.max(1),
            state: Mutex::default(),
            work: Condvar::new(),
        };
        Pool { shared: Arc::new(shared) }
    }

    /// Runs a call that blocks on a helper and waits for it without blocking. The call runs to its end even if the
    /// waiter is dropped. A panic in it comes out here.
    pub async fn run<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> T {
        let (replier, reply) = channel::reply();
        self.push(Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(call));
            // nobody waits any more: the result is dropped here
            let _ = replier.send(result);
        }));
        match reply.await.expect("a job replies before it is dropped") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Runs a call that blocks on a helper, with nobody waiting. It must not panic.
    pub fn push(&self, job: Box<dyn FnOnce() + Send>) {
        let mut state = self.shared.lock();
        state.jobs.push_back(job);
        let start = state.jobs.len() > state.idle && state.threads < self.shared.threads_max;
        if start {
            state.threads += 1;
        }
        drop(state);
        self.shared.work.notify_one();
        if start {
            self.start();
        }
    }

    fn start(&self) {
        let shared = Arc::clone(&self.shared);
        let started = thread::Builder::new().name(self.shared.name.clone()).spawn(move || shared.serve());
        if started.is_err() {
            let mut state = self.shared.lock();
            state.threads -= 1;
            // with another helper alive the job is only late; with none it would wait for ever, so the caller does it
            let stranded = if state.threads == 0 { std::mem::take(&mut state.jobs) } else { VecDeque::new() };
            drop(state);
            stranded.into_iter().for_each(|job| job());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        // a thread inherits the CPU of the core that started it, and would share that one with it
        clock::unpin_thread();
        if self.urgency == Urgency::Background {
            clock::lower_thread();
        }
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (back, waited) = self.work.wait_timeout(state, LINGER).unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.idle -= 1;
            if waited.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

/// Runs a short call that blocks (file metadata, name lookup) on one of a few helpers shared by the process. Work that
/// may take long wants a [`Pool`] of its own, so that it does not hold these up.
pub async fn unblock<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    static SHARED: std::sync::LazyLock<Pool> = std::sync::LazyLock::new(|| Pool::new("rt-unblock", 4));
    SHARED.run(call).await
}

/// Runs long work for which nobody waits (packing and writing a checkpoint) on a helper of low priority.
pub async fn background<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    static BACKGROUND: std::sync::LazyLock<Pool> =
        std::sync::LazyLock::new(|| Pool::of("rt-background", 1, Urgency::Background));
    BACKGROUND.run(call).await
}

/// Disk IO of cores without a ring; apart from the others so that nothing delays the log.
pub(super) async fn disk<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    static DISK: std::sync::LazyLock<Pool> = std::sync::LazyLock::new(|| Pool::new("rt-disk", 4));
    DISK.run(call).await
}
