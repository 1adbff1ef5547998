//! Audit sinks: where the lines of the machine's audit devices go.
//!
//! ```text
//!   submit(lines, done) ─> gathered per device ─ end of the turn ─┬─ plain file: one write(2), here
//!                                                                ├─ discard
//!                                                                └─ socket, syslog, stdout, pipe: a thread's queue
//!   done(true)  as soon as one device has taken all of the call's lines
//!   done(false) once every device has failed or run out of time
//! ```
//! One [`Sinks`] a core, driven by the core's shard; it never leaves its core. A plain file is written on the core:
//! a small buffered write, one a turn however many calls it serves. Whatever may hang is served by a thread, see
//! `remote`. A device is opened when its first line comes, and closed when the machine has forgotten it for a while.
//!
//! Never calls `done` before `submit` has returned, so that a caller needs no guard against itself.

mod file;
mod remote;
mod target;
#[cfg(test)]
mod tests;

use crate::rt::channel::{self, Receiver, Sender};
use crate::rt::{self, OsEntropy, Pool};
use crate::telemetry::{self, Level};
use file::{Appender, Files};
use remote::{Ack, Job, Link, Remote};
use ringfence_base::entropy;
pub use ringfence_node::{Device, Line};
use serde::Deserialize;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use target::{Rules, Target};

/// A device that nobody but us knows any more is closed after so long without a line. Not at once: the machine makes
/// its devices anew after each change of their table.
const FORGET: Duration = Duration::from_secs(60);
/// A device that is tried must answer within this, whatever its own time is.
const TRY: Duration = Duration::from_secs(20);
/// A failing device is told of at most so often.
const TELL: Duration = Duration::from_secs(10);

/// What the sinks of all cores share: open files, threads of devices that may hang, and where files may not stand.
#[derive(Default)]
pub struct Shared {
    files: Files,
    remotes: Mutex<Vec<(Device, std::sync::Weak<Remote>)>>,
    rules: RwLock<Rules>,
}

impl Shared {
    /// Nothing open yet; the process's own executable is out of bounds.
    pub fn new() -> Arc<Shared> {
        Arc::new(Shared { rules: RwLock::new(Rules::of_process()), ..Shared::default() })
    }

    /// What all cores of this process share.
    pub fn of_process() -> Arc<Shared> {
        static SHARED: LazyLock<Arc<Shared>> = LazyLock::new(Shared::new);
        Arc::clone(&SHARED)
    }

    /// Keeps audit files off a configuration: a file, or a directory of files. Call it while starting.
    pub fn protect_configuration(&self, path: &Path) {
        self.rules.write().unwrap_or_else(PoisonError::into_inner).add_configuration(path);
    }

    /// Keeps audit files out of a directory and all below it: the server's data. Call it while starting.
    pub fn protect_tree(&self, path: &Path) {
        self.rules.write().unwrap_or_else(PoisonError::into_inner).add_tree(path);
    }

    /// Tries a device as it is about to be enabled: its options, its file or its connection, and a line that says so.
    /// Blocks for up to the device's time, so give it to a helper thread, see [`Sinks::self_test`].
    ///
    /// # Errors
    /// Text for the one who enables it.
    pub fn self_test(&self, device: &Device) -> Result<(), String> {
        let target = Target::of(device)?;
        let failed = |why: String| format!("audit backend failed test message: {why}");
        let line = test_line();
        match kind_of(target) {
            Way::Nowhere => Ok(()),
            Way::Plain(path, mode) => {
                let opened = self.open(&path, mode);
                let mut file = opened.map_err(|why| {
                    format!("sanity check failed; unable to open {:?} for writing: {why}", path.display().to_string())
                })?;
                let (_, error) = file.append(&line);
                error.map_or(Ok(()), |error| Err(failed(target::plain(&error))))
            }
            Way::Thread(target) => {
                self.check(&target)?;
                let deadline = target.patience().map(|patience| Instant::now() + patience);
                let (_, error) = Link::new(target).write(&line, &[line.len()], deadline);
                error.map_or(Ok(()), |error| Err(failed(error)))
            }
        }
    }

    fn open(&self, path: &Path, mode: Option<u32>) -> Result<Appender, String> {
        self.files.open(path, mode, &self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn check(&self, target: &Target) -> Result<(), String> {
        match target {
            Target::File { path, .. } => self.rules.read().unwrap_or_else(PoisonError::into_inner).check(path),
            _ => Ok(()),
        }
    }

    /// The thread of a device, started if no core has asked for it yet.
    fn remote(&self, device: &Device, target: Target) -> Result<Arc<Remote>, String> {
        self.check(&target)?;
        let mut remotes = self.remotes.lock().unwrap_or_else(PoisonError::into_inner);
        remotes.retain(|(_, remote)| remote.strong_count() > 0);
        if let Some(remote) = remotes.iter().find(|(known, _)| known == device).and_then(|(_, r)| r.upgrade()) {
            return Ok(remote);
        }
        let remote = Arc::new(Remote::start(target).map_err(|error| target::plain(&error))?);
        remotes.push((device.clone(), Arc::downgrade(&remote)));
        Ok(remote)
    }
}

/// Who writes to a target.
enum Way {
    Nowhere,
    Plain(PathBuf, Option<u32>),
    Thread(Target),
}

fn kind_of(target: Target) -> Way {
    match target {
        Target::Discard => Way::Nowhere,
        // a pipe or a terminal may hang, and so may opening it: what is there decides, before it is opened
        Target::File { path, mode } => match std::fs::metadata(&path) {
            Ok(data) if !data.is_file() && !data.is_dir() => Way::Thread(Target::File { path, mode }),
            _ => Way::Plain(path, mode),
        },
        other => Way::Thread(other),
    }
}

/// The entry that a new device is tried with, as Vault writes it.
fn test_line() -> Vec<u8> {
    let id = entropy::uuid4(&mut OsEntropy::new());
    let request = serde_json::json!({"id": id, "operation": "update", "path": "sys/audit/test"});
    let entry = serde_json::json!({"time": rt::now().wall.rfc3339(), "type": "request", "request": request});
    format!("{entry}\n").into_bytes()
}

/// The sinks of one core.
pub struct Sinks {
    inner: Rc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    devices: RefCell<Slab<Outlet>>,
    calls: RefCell<Slab<Waiting>>,
    /// Calls without lines: answered with the next turn.
    silent: RefCell<Vec<Done>>,
    /// Lines that threads have, by job.
    jobs: RefCell<BTreeMap<u64, Given>>,
    next_job: Cell<u64>,
    acks: Sender<Ack>,
    /// The receiving side, until the keeper task takes it.
    inlet: Cell<Option<channel::Inlet<Ack>>>,
    bell: Bell,
}

type Done = Box<dyn FnOnce(bool)>;

/// A call that waits for its devices.
struct Waiting {
    /// Devices that have not answered.
    open: usize,
    /// Taken out when the first device has taken the lines.
    done: Option<Done>,
}

/// A device on this core.
struct Outlet {
    device: Rc<Device>,
    sink: Sink,
    /// Lines since the last turn.
    gathered: Vec<u8>,
    /// Which calls they belong to, and where each call's lines end.
    parts: Vec<(usize, usize)>,
    used: Instant,
    failures: u64,
    told: Option<Instant>,
}

enum Sink {
    /// Not opened yet, or to be opened anew.
    Closed,
    Nowhere,
    Plain(Appender),
    Thread(Arc<Remote>, Option<Duration>),
}

/// Lines that a thread has.
struct Given {
    outlet: usize,
    calls: Vec<usize>,
    deadline: Option<Instant>,
}

impl Default for Sinks {
    fn default() -> Self {
        Sinks::new()
    }
}

impl Sinks {
    /// The sinks of a core of this process.
    pub fn new() -> Sinks {
        Sinks::sharing(Shared::of_process())
    }

    /// The sinks of a core that shares files and threads with those of `shared`.
    pub fn sharing(shared: Arc<Shared>) -> Sinks {
        let (acks, inlet) = channel::unbounded();
        let inner = Inner {
            shared,
            devices: RefCell::default(),
            calls: RefCell::default(),
            silent: RefCell::default(),
            jobs: RefCell::default(),
            next_job: Cell::new(0),
            acks,
            inlet: Cell::new(Some(inlet)),
            bell: Bell::default(),
        };
        Sinks { inner: Rc::new(inner) }
    }

    /// Writes a call's lines; `done` is told on this core whether at least one device took all of them. Without lines
    /// there is nothing to take and it is told true. Call it on the core, inside its executor.
    pub fn submit(&self, lines: Vec<Line>, done: impl FnOnce(bool) + 'static) {
        let inner = &self.inner;
        if let Some(inlet) = inner.inlet.take() {
            drop(rt::spawn_local(keep(Rc::downgrade(inner), inlet.open())));
        }
        inner.gather(lines, Box::new(done));
        inner.bell.ring();
    }

    /// Writes what was gathered now instead of at the end of the turn: for a core that is about to stop.
    pub fn flush(&self) {
        self.inner.flush();
    }

    /// Has every device opened anew: files that were moved away are left alone from here on.
    pub fn reopen(&self) {
        self.inner.flush();
        for (_, outlet) in self.inner.devices.borrow_mut().iter_mut() {
            if let Sink::Thread(remote, _) = &outlet.sink {
                remote.reopen();
            }
            outlet.sink = Sink::Closed;
            // at once, so that the new file is there when the one who moved the old one looks
            outlet.open(&self.inner.shared);
        }
    }

    /// Tries a device on a helper thread, see [`Shared::self_test`]. The future needs no borrow of the sinks.
    pub fn self_test(&self, device: Device) -> impl Future<Output = Result<(), String>> + 'static {
        // helpers of their own: a pipe that nobody reads holds one for good
        static HELPERS: LazyLock<Pool> = LazyLock::new(|| Pool::new("audit-test", 4));
        let shared = Arc::clone(&self.inner.shared);
        async move {
            let tested = rt::timeout(TRY, HELPERS.run(move || shared.self_test(&device))).await;
            tested.unwrap_or_else(|_| Err("audit backend failed test message: it took too long".to_owned()))
        }
    }

    /// As [`Sinks::self_test`], of a device as the machine sends it.
    pub fn self_test_json(&self, device: &serde_json::Value) -> impl Future<Output = Result<(), String>> + 'static {
        let device = Device::deserialize(device).map(|device| self.self_test(device));
        async move { device.map_err(|error| format!("not a device: {error}"))?.await }
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        // the keeper holds us weakly and finds us gone
        self.inner.bell.ring();
    }
}

/// The core's one task for all devices: writes at the end of a turn, hears from threads, gives up what takes too long.
async fn keep(sinks: Weak<Inner>, mut acks: Receiver<Ack>) {
    let mut alarm = rt::sleep(FORGET);
    loop {
        let news = poll_fn(|cx| {
            let Some(inner) = sinks.upgrade() else { return Poll::Ready(News::Gone) };
            if let Poll::Ready(Some(ack)) = acks.poll_recv(cx) {
                return Poll::Ready(News::Ack(ack));
            }
            if inner.bell.has_rung(cx.waker()) {
                return Poll::Ready(News::Turn);
            }
            Pin::new(&mut alarm).poll(cx).map(|()| News::Alarm)
        })
        .await;
        let Some(inner) = sinks.upgrade() else { return };
        match news {
            News::Gone => return,
            News::Ack(ack) => inner.hear(ack),
            News::Turn => inner.flush(),
            News::Alarm => {
                let now = Instant::now();
                inner.give_up(now);
                inner.forget(now);
                alarm.reset(now + FORGET);
            }
        }
        if let Some(next) = inner.next_deadline()
            && next < alarm.deadline()
        {
            alarm.reset(next);
        }
    }
}

enum News {
    Ack(Ack),
    Turn,
    Alarm,
    Gone,
}

/// Wakes the keeper once however often it rings.
#[derive(Default)]
struct Bell {
    rung: Cell<bool>,
    keeper: RefCell<Option<Waker>>,
}

impl Bell {
    fn ring(&self) {
        if !self.rung.replace(true) {
            let keeper = self.keeper.borrow_mut().take();
            keeper.into_iter().for_each(Waker::wake);
        }
    }

    fn has_rung(&self, waker: &Waker) -> bool {
        if self.rung.take() {
            return true;
        }
        let old = self.keeper.replace(Some(waker.clone()));
        drop(old);
        false
    }
}

impl Inner {
    fn gather(&self, lines: Vec<Line>, done: Done) {
        if lines.is_empty() {
            self.silent.borrow_mut().push(done);
            return;
        }
        let mut devices = self.devices.borrow_mut();
        let mut calls = self.calls.borrow_mut();
        let entry = calls.vacant_entry();
        let call = entry.key();
        let mut open = 0;
        for line in lines {
            let outlet = outlet_of(&mut devices, line.device);
            outlet.gathered.extend_from_slice(&line.bytes);
            let end = outlet.gathered.len();
            match outlet.parts.last_mut() {
                // the second line of this call for this device
                Some((last, last_end)) if *last == call => *last_end = end,
                _ => {
                    outlet.parts.push((call, end));
                    open += 1;
                }
            }
        }
        entry.insert(Waiting { open, done: Some(done) });
    }

    /// The end of a turn: one write a device.
    fn flush(&self) {
        self.bell.rung.set(false);
        let mut answers: Vec<(usize, bool)> = Vec::new();
        for (number, outlet) in self.devices.borrow_mut().iter_mut() {
            if outlet.parts.is_empty() {
                continue;
            }
            outlet.used = Instant::now();
            outlet.open(&self.shared);
            match &mut outlet.sink {
                // the opening has told why
                Sink::Closed => answers.extend(outlet.parts.drain(..).map(|(call, _)| (call, false))),
                Sink::Nowhere => answers.extend(outlet.parts.drain(..).map(|(call, _)| (call, true))),
                Sink::Plain(file) => {
                    let (taken, error) = file.append(&outlet.gathered);
                    answers.extend(outlet.parts.drain(..).map(|(call, end)| (call, end <= taken)));
                    if error.is_some()
                        && let Some(anew) = outlet.open_plain_anew(&self.shared)
                    {
                        outlet.sink = Sink::Plain(anew);
                    }
                    outlet.tell(error.map(|error| target::plain(&error)));
                }
                Sink::Thread(remote, patience) => {
                    let id = self.next_job.get();
                    self.next_job.set(id + 1);
                    let deadline = patience.map(|patience| Instant::now() + patience);
                    let bytes = std::mem::take(&mut outlet.gathered);
                    let (calls, ends): (Vec<_>, Vec<_>) = outlet.parts.drain(..).unzip();
                    if remote.offer(Job { id, bytes, ends, deadline, back: self.acks.clone() }) {
                        self.jobs.borrow_mut().insert(id, Given { outlet: number, calls, deadline });
                    } else {
                        answers.extend(calls.into_iter().map(|call| (call, false)));
                        outlet.tell(Some("too many lines wait for it".to_owned()));
                    }
                }
            }
            outlet.gathered.clear();
        }
        let silent = self.silent.take();
        self.answer(answers);
        silent.into_iter().for_each(|done| done(true));
    }

    /// A thread has told what became of a job. One that was given up is known no more.
    fn hear(&self, ack: Ack) {
        let Some(given) = self.jobs.borrow_mut().remove(&ack.id) else { return };
        if let Some(outlet) = self.devices.borrow_mut().get_mut(given.outlet) {
            outlet.tell(ack.error);
        }
        self.answer(given.calls.into_iter().zip(ack.taken).collect());
    }

    fn give_up(&self, now: Instant) {
        let is_late = |given: &Given| given.deadline.is_some_and(|deadline| deadline <= now);
        let late: Vec<u64> =
            self.jobs.borrow().iter().filter(|(_, given)| is_late(given)).map(|(id, _)| *id).collect();
        for id in late {
            let taken = vec![false; self.jobs.borrow().get(&id).map_or(0, |given| given.calls.len())];
            self.hear(Ack { id, taken, error: Some("it did not take its lines in time".to_owned()) });
        }
    }

    /// Closes devices that the machine has forgotten.
    fn forget(&self, now: Instant) {
        let jobs = self.jobs.borrow();
        let is_busy = |number| jobs.values().any(|given| given.outlet == number);
        self.devices.borrow_mut().retain(|number, outlet| {
            let is_known = Rc::strong_count(&outlet.device) > 1;
            is_known || !outlet.parts.is_empty() || outlet.used + FORGET > now || is_busy(number)
        });
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.jobs.borrow().values().filter_map(|given| given.deadline).min()
    }

    /// Tells calls what one device of theirs did. No borrow is held while a call is told: it may submit again.
    fn answer(&self, answers: Vec<(usize, bool)>) {
        for (call, taken) in answers {
            let mut calls = self.calls.borrow_mut();
            let waiting = calls.get_mut(call).expect("a call is forgotten only after its last device has answered");
            waiting.open -= 1;
            let is_last = waiting.open == 0;
            let done = if taken || is_last { waiting.done.take() } else { None };
            if is_last {
                calls.remove(call);
            }
            drop(calls);
            if let Some(done) = done {
                done(taken);
            }
        }
    }
}

/// The outlet of a device. The machine hands out the same `Rc` until its table changes, so one comparison of pointers
/// finds it nearly always; otherwise it is found by its content, as the salt tells devices of one path apart.
fn outlet_of(devices: &mut Slab<Outlet>, device: Rc<Device>) -> &mut Outlet {
    let known = devices.iter().find(|(_, outlet)| Rc::ptr_eq(&outlet.device, &device));
    let known = known.or_else(|| devices.iter().find(|(_, outlet)| outlet.device == device));
    let number = match known.map(|(number, _)| number) {
        Some(number) => number,
        None => devices.insert(Outlet {
            device: Rc::clone(&device),
            sink: Sink::Closed,
            gathered: Vec::new(),
            parts: Vec::new(),
            used: Instant::now(),
            failures: 0,
            told: None,
        }),
    };
    let outlet = &mut devices[number];
    outlet.device = device;
    outlet
}

impl Outlet {
    fn open(&mut self, shared: &Shared) {
        if !matches!(self.sink, Sink::Closed) {
            return;
        }
        let opened = Target::of(&self.device).and_then(|target| match kind_of(target) {
            Way::Nowhere => Ok(Sink::Nowhere),
            Way::Plain(path, mode) => shared.open(&path, mode).map(Sink::Plain),
            Way::Thread(target) => {
                let patience = target.patience();
                Ok(Sink::Thread(shared.remote(&self.device, target)?, patience))
            }
        });
        match opened {
            Ok(sink) => self.sink = sink,
            Err(why) => self.tell(Some(why)),
        }
    }

    /// The file opened once more, while the old descriptor still stands: what is known of a torn end is shared.
    fn open_plain_anew(&self, shared: &Shared) -> Option<Appender> {
        match kind_of(Target::of(&self.device).ok()?) {
            Way::Plain(path, mode) => shared.open(&path, mode).ok(),
            _ => None,
        }
    }

    /// Counts a failure and tells of it, but not of each.
    fn tell(&mut self, error: Option<String>) {
        let Some(why) = error else {
            if std::mem::take(&mut self.failures) > 0 {
                self.told = None;
                telemetry::log(Level::Info, &format!("audit device {} takes lines again", self.device.path));
            }
            return;
        };
        self.failures += 1;
        let now = Instant::now();
        if self.told.is_none_or(|last| last + TELL <= now) {
            self.told = Some(now);
            let text = format!("audit device {} failed ({} times in a row): {why}", self.device.path, self.failures);
            telemetry::log(Level::Error, &text);
        }
    }
}
