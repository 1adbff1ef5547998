//! Who listens to the log while it is written: `sys/monitor`. Each listener has a bounded queue of lines; one that
//! does not keep up loses lines and is told how many, the log itself never waits.

use super::log::{Format, Level};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Lines that wait for a listener at most.
const QUEUE: usize = 512;
/// Listeners at a time.
const LISTENERS: usize = 64;

static ALL: Mutex<Vec<Arc<Shared>>> = Mutex::new(Vec::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);

struct Shared {
    level: Level,
    format: Format,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<String>,
    lost: u64,
    closed: bool,
    waker: Option<Waker>,
}

/// One listener's end.
pub struct Monitor(Arc<Shared>);

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens to messages of a level and above; `None` if too many listen already.
pub fn listen(level: Level, format: Format) -> Option<Monitor> {
    let mut all = lock(&ALL);
    if all.len() >= LISTENERS {
        return None;
    }
    let shared = Arc::new(Shared { level, format, queue: Mutex::default() });
    all.push(shared.clone());
    COUNT.store(all.len(), Ordering::Relaxed);
    Some(Monitor(shared))
}

/// The least level that anybody listens for.
pub(super) fn wanted() -> Option<Level> {
    match COUNT.load(Ordering::Relaxed) {
        0 => None,
        _ => lock(&ALL).iter().map(|l| l.level).min(),
    }
}

/// Hands a message to those who listen for its level; `line` writes it in a format.
pub(super) fn tell(level: Level, line: impl Fn(Format) -> String) {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    for listener in lock(&ALL).iter().filter(|l| level >= l.level) {
        let mut queue = lock(&listener.queue);
        match queue.lines.len() < QUEUE {
            true => queue.lines.push_back(line(listener.format)),
            false => queue.lost += 1,
        }
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

/// Ends every stream: the process stops.
pub fn close_all() {
    for listener in lock(&ALL).iter() {
        let mut queue = lock(&listener.queue);
        queue.closed = true;
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

impl Monitor {
    /// The lines that came since, as one text; `None` when there will be no more.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        let mut queue = lock(&self.0.queue);
        if queue.lines.is_empty() {
            if queue.closed {
                return Poll::Ready(None);
            }
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut text: String = queue.lines.drain(..).collect();
        if queue.lost > 0 {
            text.push_str(&format!(
                "Monitor message: {} log lines were dropped: this stream is read too slowly\n",
                queue.lost
            ));
            queue.lost = 0;
        }
        Poll::Ready(Some(text))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let mut all = lock(&ALL);
        all.retain(|l| !Arc::ptr_eq(l, &self.0));
        COUNT.store(all.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_gets_its_level_and_is_told_what_it_lost() {
        let monitor = listen(Level::Warn, Format::Standard).expect("room");
        let mut cx = Context::from_waker(Waker::noop());
        assert!(monitor.poll(&mut cx).is_pending());
        // other tests log too, so only what is told here by name counts
        tell(Level::Info, |_| "monitor-test quiet\n".into());
        (0..QUEUE + 3).for_each(|i| tell(Level::Error, |_| format!("monitor-test {i}\n")));
        let Poll::Ready(Some(text)) = monitor.poll(&mut cx) else { panic!("nothing came") };
        assert!(text.contains("monitor-test 0\n") && !text.contains("quiet"), "{text}");
        assert!(text.contains("log lines were dropped"), "{text}");
    }
}
