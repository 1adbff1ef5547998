//! Starting cores: a thread, pinned or not, with a driver and an executor that runs one root future to its end.

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread;

use super::driver::{Driver, DriverChoice, DriverWish};
use super::{exec, glommio};

/// Which executor runs the tasks of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecutorWish {
    /// A task queue parked in the driver.
    #[default]
    Bare,
    /// glommio, with the driver as one of its tasks. io_uring only.
    Glommio,
}

/// What happens when a core's root future panics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RootPanic {
    /// The process aborts: a broken spine must not be half alive. The panic hook has told the story.
    #[default]
    Abort,
    /// The panic comes out of [`CoreHandle::join`].
    Join,
}

/// How a core is to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The CPU to pin the thread to; `None` leaves it to the kernel.
    pub core: Option<usize>,
    /// The backend.
    pub driver: DriverWish,
    /// The executor.
    pub executor: ExecutorWish,
    /// What a panic of the root future does.
    pub root_panic: RootPanic,
}

/// A running core.
#[derive(Debug)]
pub struct CoreHandle<T> {
    thread: thread::JoinHandle<io::Result<T>>,
    choice: DriverChoice,
}

impl<T> CoreHandle<T> {
    /// The backend it got, and why.
    pub fn driver(&self) -> &DriverChoice {
        &self.choice
    }

    /// Whether its root future has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the root future; blocks the thread, so never call it on a core.
    ///
    /// # Errors
    /// The driver failed.
    ///
    /// # Panics
    /// With the root future's panic, if [`RootPanic::Join`] was chosen.
    pub fn join(self) -> io::Result<T> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Starts a core on a thread of its own. `root` is called there, so what it makes need not be `Send`.
///
/// # Errors
/// The thread, its pinning or its driver could not be had; nothing runs then.
pub fn spawn_core<M, F, T>(options: Options, name: &str, root: M) -> io::Result<CoreHandle<T>>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let (started, start) = mpsc::sync_channel(1);
    let body = move || {
        let _guard = AbortOnPanic(options.root_panic);
        let driver = match prepare(&options) {
            Ok(driver) => driver,
            Err(e) => {
                let copy = io::Error::new(e.kind(), e.to_string());
                // the starter waits for this message, so it is there
                let _ = started.send(Err(e));
                return Err(copy);
            }
        };
        let _ = started.send(Ok(driver.choice().clone()));
        drop(started);
        execute(&options, driver, async move { root().await })
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body)?;
    match start.recv() {
        Ok(Ok(choice)) => Ok(CoreHandle { thread, choice }),
        Ok(Err(e)) => {
            let _ = thread.join();
            Err(e)
        }
        Err(_) => Err(io::Error::other("the core's thread ended while starting")),
    }
}

/// Runs a root future on the calling thread as a core: the way of small programs and tests. A panic passes through.
///
/// # Errors
/// The driver could not be had, or failed.
pub fn run<M, F, T>(options: &Options, root: M) -> io::Result<T>
where
    M: FnOnce() -> F,
    F: Future<Output = T> + 'static,
    T: 'static,
{
    let driver = prepare(options)?;
    // called inside of the executor, so that it may open sockets and spawn before its first await
    execute(options, driver, async move { root().await })
}

/// The backend that cores of this process would get, for the start-up message.
pub fn probe(wish: DriverWish) -> io::Result<DriverChoice> {
    Driver::open(wish).map(|driver| driver.choice().clone())
}

fn prepare(options: &Options) -> io::Result<Driver> {
    if let Some(cpu) = options.core {
        pin(cpu)?;
    }
    Driver::open(options.driver)
}

fn execute<F>(options: &Options, driver: Driver, root: F) -> io::Result<F::Output>
where
    F: Future,
{
    match options.executor {
        ExecutorWish::Bare => exec::block_on(driver, root),
        ExecutorWish::Glommio => glommio::block_on(driver, root),
    }
}

fn pin(cpu: usize) -> io::Result<()> {
    super::clock::pin_thread(cpu)
}

struct AbortOnPanic(RootPanic);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if self.0 == RootPanic::Abort && thread::panicking() {
            std::process::abort();
        }
    }
}
