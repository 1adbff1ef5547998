//! Tasks: what `spawn_local` answers, on either executor.
//!
//! A panic in a task ends that task only; whoever awaits it is told. (A panic in a core's root future ends the
//! process: see `launch`.)

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{exec, glommio};

/// A spawned task. Dropping it lets the task run on by itself; awaiting it yields the task's result.
pub struct Task<T> {
    shared: Rc<Shared<T>>,
}

/// Why a task has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It panicked; the panic hook has reported it.
    Panicked,
    /// It was stopped by [`Task::stop`] or with its core.
    Stopped,
}

struct Shared<T> {
    result: RefCell<Option<Result<T, Lost>>>,
    waiter: RefCell<Option<Waker>>,
    /// The task's own waker, from its first poll on.
    own: RefCell<Option<Waker>>,
    stop: Cell<bool>,
}

impl<T> Task<T> {
    /// Drops the task's future at its next turn, wherever it waits.
    pub fn stop(&self) {
        self.shared.stop.set(true);
        let own = self.shared.own.borrow_mut().take();
        own.into_iter().for_each(Waker::wake);
    }

    /// Whether it has ended, one way or the other.
    pub fn is_finished(&self) -> bool {
        self.shared.result.borrow().is_some()
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, Lost>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.shared.result.borrow_mut().take() {
            return Poll::Ready(result);
        }
        let old = self.shared.waiter.borrow_mut().replace(cx.waker().clone());
        drop(old);
        Poll::Pending
    }
}

/// Tells the waiter, also when the task is dropped with its core.
struct Report<T>(Rc<Shared<T>>);

impl<T> Report<T> {
    fn finish(&self, result: Result<T, Lost>) {
        self.0.result.borrow_mut().get_or_insert(result);
        let waiter = self.0.waiter.borrow_mut().take();
        waiter.into_iter().for_each(Waker::wake);
    }
}

impl<T> Drop for Report<T> {
    fn drop(&mut self) {
        let unfinished = self.0.result.borrow().is_none() && Rc::strong_count(&self.0) > 1;
        if unfinished {
            self.finish(Err(Lost::Stopped));
        }
    }
}

/// Runs a future on this core, beside the caller.
///
/// # Panics
/// Outside of a core's executor: a programming error.
pub fn spawn_local<F>(future: F) -> Task<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let shared = Rc::new(Shared {
        result: RefCell::new(None),
        waiter: RefCell::new(None),
        own: RefCell::new(None),
        stop: Cell::new(false),
    });
    let report = Report(Rc::clone(&shared));
    let body = async move {
        let result = {
            let mut future = pin!(future);
            poll_fn(|cx| {
                if report.0.stop.get() {
                    return Poll::Ready(Err(Lost::Stopped));
                }
                report.0.own.borrow_mut().get_or_insert_with(|| cx.waker().clone());
                match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                    Ok(polled) => polled.map(Ok),
                    Err(_) => Poll::Ready(Err(Lost::Panicked)),
                }
            })
            .await
        };
        // the future is dropped before anyone hears of its end
        report.finish(result);
    };
    spawn_body(Box::pin(body));
    Task { shared }
}

fn spawn_body(body: exec::LocalFuture) {
    if let Err(body) = exec::try_spawn(body) {
        assert!(glommio::try_spawn(body), "spawn_local is called on a core's thread, inside its executor");
    }
}

/// Lets every other runnable task and the driver have a turn.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Spawns hyper's own tasks (HTTP/2 streams) onto the core.
#[derive(Clone, Copy, Debug, Default)]
pub struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        drop(spawn_local(future));
    }
}
