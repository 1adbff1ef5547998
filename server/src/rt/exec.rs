//! The bare executor: a queue of tasks parked in the driver itself.
//!
//! A round runs the tasks that were runnable when it began, at most [`ROUND`] of them, then gives the driver a turn,
//! so a busy task cannot keep events from others. Waking a task of the same core pushes a number onto a thread-local
//! queue; from another thread it goes through a mutex and, only if the core sleeps, an eventfd. It sleeps only after
//! it has announced so and found both queues empty.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;

use super::driver::{Driver, Entered, Park, Unpark};

/// Most task polls between two turns of the driver.
const ROUND: usize = 256;
/// The task number of the future given to `block_on`.
const ROOT: u64 = u64::MAX;

pub(super) type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Slot in the lower half, the slot's generation in the upper.
type TaskId = u64;

/// Runs `root` and whatever it spawns until `root` is ready, then drops the rest.
pub(super) fn block_on<F: Future>(driver: Driver, root: F) -> io::Result<F::Output> {
    let driver = Rc::new(driver);
    let entered = Entered::new(Rc::clone(&driver));
    let inbox = Arc::new(Inbox {
        woken: Mutex::default(),
        nonempty: AtomicBool::new(false),
        unpark: Arc::clone(driver.unpark()),
    });
    let tasks = Rc::new(Tasks { slots: RefCell::default(), inbox: Arc::clone(&inbox), generation: Cell::new(0) });
    let running = Running::enter(&tasks);
    let root_wake = Arc::new(TaskWake { id: ROOT, queued: AtomicBool::new(true), inbox });
    let root_waker = Waker::from(Arc::clone(&root_wake));
    LOCAL.with(|l| l.runnable.borrow_mut().push_back(ROOT));

    let mut root = pin!(root);
    let result = loop {
        let round = LOCAL.with(|l| l.runnable.borrow().len()).min(ROUND);
        let mut finished = None;
        for _ in 0..round {
            let Some(id) = LOCAL.with(|l| l.runnable.borrow_mut().pop_front()) else { break };
            if id != ROOT {
                tasks.run(id);
                continue;
            }
            root_wake.queued.store(false, Ordering::Release);
            if let Poll::Ready(out) = root.as_mut().poll(&mut Context::from_waker(&root_waker)) {
                finished = Some(out);
                break;
            }
        }
        if let Some(out) = finished {
            break Ok(out);
        }
        if let Err(e) = park_or_turn(&driver, &tasks.inbox) {
            break Err(e);
        }
    };
    tasks.drop_all();
    drop(running);
    drop(entered);
    result
}

fn park_or_turn(driver: &Driver, inbox: &Inbox) -> io::Result<()> {
    inbox.fetch();
    if LOCAL.with(|l| !l.runnable.borrow().is_empty()) {
        return driver.turn(Park::Never).map(drop);
    }
    inbox.unpark.announce();
    let park = if inbox.nonempty.load(Ordering::SeqCst) { Park::Never } else { Park::UntilEvent };
    let turned = driver.turn(park);
    inbox.unpark.awake();
    inbox.fetch();
    turned.map(drop)
}

/// Tasks of one core.
struct Tasks {
    slots: RefCell<Slab<Slot>>,
    inbox: Arc<Inbox>,
    generation: Cell<u32>,
}

struct Slot {
    wake: Arc<TaskWake>,
    /// Taken out while the task is being polled.
    body: Option<(LocalFuture, Waker)>,
}

impl Tasks {
    fn spawn(&self, future: LocalFuture) {
        let mut slots = self.slots.borrow_mut();
        let entry = slots.vacant_entry();
        self.generation.set(self.generation.get().wrapping_add(1));
        let id = (self.generation.get() as u64) << 32 | entry.key() as u64;
        let wake = Arc::new(TaskWake { id, queued: AtomicBool::new(true), inbox: Arc::clone(&self.inbox) });
        let waker = Waker::from(Arc::clone(&wake));
        entry.insert(Slot { wake, body: Some((future, waker)) });
        LOCAL.with(|l| l.runnable.borrow_mut().push_back(id));
    }

    fn run(&self, id: TaskId) {
        let index = id as u32 as usize;
        let (mut future, waker) = {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(index).filter(|s| s.wake.id == id) else { return };
            let Some(body) = slot.body.take() else { return };
            // before the poll: a wake during it must queue the task again
            slot.wake.queued.store(false, Ordering::Release);
            body
        };
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            if let Some(slot) = self.slots.borrow_mut().get_mut(index) {
                slot.body = Some((future, waker));
            }
            return;
        }
        // the slot is freed before the future is dropped: what is dropped with it may spawn or wake
        let slot = self.slots.borrow_mut().remove(index);
        drop((future, waker, slot));
    }

    /// Drops every task, also those that dropping spawns.
    fn drop_all(&self) {
        loop {
            let slots = self.slots.take();
            if slots.is_empty() {
                return;
            }
            drop(slots);
        }
    }
}

/// Wakes from other threads.
struct Inbox {
    woken: Mutex<Vec<TaskId>>,
    nonempty: AtomicBool,
    unpark: Arc<Unpark>,
}

impl Inbox {
    fn push(&self, id: TaskId) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        woken.push(id);
        self.nonempty.store(true, Ordering::SeqCst);
        drop(woken);
        self.unpark.wake();
    }

    fn fetch(&self) {
        if self.nonempty.load(Ordering::SeqCst) {
            let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
            self.nonempty.store(false, Ordering::SeqCst);
            LOCAL.with(|l| l.runnable.borrow_mut().extend(woken.drain(..)));
        }
    }
}

struct TaskWake {
    id: TaskId,
    /// Whether the task is in a queue: a second wake before it runs costs one atomic swap.
    queued: AtomicBool,
    inbox: Arc<Inbox>,
}

impl TaskWake {
    fn enqueue(&self) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let here = Arc::as_ptr(&self.inbox);
        let local = LOCAL.try_with(|l| {
            let ours = std::ptr::eq(l.inbox.get(), here);
            if ours {
                l.runnable.borrow_mut().push_back(self.id);
            }
            ours
        });
        if local != Ok(true) {
            self.inbox.push(self.id);
        }
    }
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.enqueue();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.enqueue();
    }
}

struct Local {
    /// Which executor this thread runs; compared, never followed.
    inbox: Cell<*const Inbox>,
    runnable: RefCell<VecDeque<TaskId>>,
    tasks: RefCell<Option<Rc<Tasks>>>,
}

thread_local! {
    static LOCAL: Local = const {
        Local {
            inbox: Cell::new(std::ptr::null()),
            runnable: RefCell::new(VecDeque::new()),
            tasks: RefCell::new(None),
        }
    };
}

/// The thread runs this executor until the guard is dropped.
struct Running;

impl Running {
    fn enter(tasks: &Rc<Tasks>) -> Running {
        LOCAL.with(|l| {
            assert!(l.inbox.get().is_null(), "a thread runs one executor at a time");
            l.inbox.set(Arc::as_ptr(&tasks.inbox));
            l.tasks.replace(Some(Rc::clone(tasks)));
        });
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        LOCAL.with(|l| {
            l.inbox.set(std::ptr::null());
            l.runnable.borrow_mut().clear();
            drop(l.tasks.take());
        });
    }
}

/// Spawns onto this thread's bare executor; gives the future back if there is none.
pub(super) fn try_spawn(future: LocalFuture) -> Result<(), LocalFuture> {
    match LOCAL.with(|l| l.tasks.borrow().clone()) {
        Some(tasks) => {
            tasks.spawn(future);
            Ok(())
        }
        None => Err(future),
    }
}
