//! Timers of a core: one heap, told the time once a turn by the driver.
//!
//! Cancelling and postponing are lazy, because a server sets a timer per request and nearly all of them are taken
//! back: a cancelled entry stays in the heap until it surfaces or the dead outnumber the living, and a postponed one
//! surfaces early, finds its new deadline and goes back. Setting, cancelling and postponing cost a few nanoseconds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::driver;

/// The deadlines of one core.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u32, u32)>>,
    slots: Slab<Slot>,
    /// Invariant: heap entries whose slot is gone or has another generation.
    dead: usize,
    generation: u32,
}

struct Slot {
    deadline: Instant,
    /// Invariant: the deadline of this slot's one living heap entry, never after `deadline`; none once fired.
    queued: Option<Instant>,
    generation: u32,
    waker: Waker,
}

/// Names a timer of one core.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimerKey(u32);

impl Timers {
    /// Sets a timer that wakes `waker` at `deadline`.
    pub fn insert(&mut self, deadline: Instant, waker: Waker) -> TimerKey {
        let generation = self.next_generation();
        let slot = self.slots.insert(Slot { deadline, queued: Some(deadline), generation, waker }) as u32;
        self.heap.push(Reverse((deadline, slot, generation)));
        TimerKey(slot)
    }

    /// Whether it fired; if not, who is to be woken.
    pub fn poll(&mut self, key: TimerKey, waker: &Waker) -> Poll<()> {
        let slot = &mut self.slots[key.0 as usize];
        if slot.queued.is_none() {
            return Poll::Ready(());
        }
        if !slot.waker.will_wake(waker) {
            slot.waker = waker.clone();
        }
        Poll::Pending
    }

    /// Moves a timer, fired or not, to another deadline.
    pub fn reset(&mut self, key: TimerKey, deadline: Instant) {
        let generation = self.next_generation();
        let slot = &mut self.slots[key.0 as usize];
        slot.deadline = deadline;
        match slot.queued {
            Some(queued) if queued <= deadline => return,
            Some(_) => self.dead += 1,
            None => {}
        }
        slot.queued = Some(deadline);
        slot.generation = generation;
        self.heap.push(Reverse((deadline, key.0, generation)));
        self.compact();
    }

    /// Forgets a timer. The caller drops its waker once no borrow is held.
    pub fn cancel(&mut self, key: TimerKey) -> Waker {
        let slot = self.slots.remove(key.0 as usize);
        if slot.queued.is_some() {
            self.dead += 1;
            self.compact();
        }
        slot.waker
    }

    /// The earliest moment at which something may be due. May be too early, never too late.
    pub fn next(&mut self) -> Option<Instant> {
        while let Some(&Reverse((deadline, slot, generation))) = self.heap.peek() {
            if self.lives(slot, generation) {
                return Some(deadline);
            }
            self.heap.pop();
            self.dead -= 1;
        }
        None
    }

    /// Fires what is due, in order of deadline; the caller wakes what is put into `wakes`.
    pub fn expire(&mut self, now: Instant, wakes: &mut Vec<Waker>) {
        while let Some(&Reverse((deadline, index, generation))) = self.heap.peek() {
            if deadline > now {
                return;
            }
            self.heap.pop();
            if !self.lives(index, generation) {
                self.dead -= 1;
                continue;
            }
            let slot = &mut self.slots[index as usize];
            if slot.deadline > now {
                slot.queued = Some(slot.deadline);
                self.heap.push(Reverse((slot.deadline, index, generation)));
            } else {
                slot.queued = None;
                wakes.push(slot.waker.clone());
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    fn lives(&self, slot: u32, generation: u32) -> bool {
        self.slots.get(slot as usize).is_some_and(|s| s.generation == generation && s.queued.is_some())
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// Rebuilds the heap once dead entries are two thirds of it: constant work per cancelled timer.
    fn compact(&mut self) {
        if self.dead < 64 || self.dead < 2 * self.slots.len() {
            return;
        }
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.retain(|Reverse((_, slot, generation))| self.lives(*slot, *generation));
        self.heap = entries.into();
        self.dead = 0;
    }
}

/// Completes at its deadline. Bound to the core that first polls it; may be dropped anywhere.
///
/// `Send + Sync` because hyper asks for it; it holds no reference to the core, only a key and the core's number.
#[derive(Debug)]
pub struct Sleep {
    deadline: Instant,
    armed: Option<(driver::DriverId, TimerKey)>,
}

impl Sleep {
    /// The moment at which it completes.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Completes at another moment instead, also if it had completed already.
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if let Some((home, key)) = self.armed {
            // on another core the old timer fires for nobody and the next poll arms a new one
            if driver::with_id(home, |d| d.timer_reset(key, deadline)).is_none() {
                self.armed = None;
            }
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some((home, key)) = self.armed {
            let polled = driver::with_id(home, |d| d.timer_poll(key, cx.waker()));
            return match polled.expect("a sleep is polled on the core that armed it") {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => {
                    self.disarm();
                    Poll::Ready(())
                }
            };
        }
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        let deadline = self.deadline;
        self.armed = Some(driver::with(|d| (d.id(), d.timer_insert(deadline, cx.waker().clone()))));
        Poll::Pending
    }
}

impl Sleep {
    fn disarm(&mut self) {
        if let Some((home, key)) = self.armed.take() {
            // a sleep dropped away from its core leaves a timer that fires once for nobody
            driver::with_id(home, |d| d.timer_cancel(key));
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

/// Completes after `duration`.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(Instant::now() + duration)
}

/// Completes at `deadline`.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, armed: None }
}

/// The time given to [`timeout`] ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// Runs `future` for at most `duration`, then drops it.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = std::pin::pin!(future);
    let mut sleep = sleep(duration);
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(out) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(out));
        }
        Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

/// The core's timers as hyper wants them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

impl hyper::rt::Sleep for Sleep {}

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(sleep(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(sleep_until(deadline))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(own) => own.get_mut().reset(deadline),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Against a naive model: whatever is set, postponed, advanced and cancelled, exactly the due ones have fired.
    #[test]
    fn fires_what_a_sorted_list_would() {
        let start = Instant::now();
        let mut random = ringfence_base::entropy::SeededEntropy(11);
        let mut timers = Timers::default();
        let mut model: BTreeMap<u32, (TimerKey, u64)> = BTreeMap::new();
        let (mut now_ms, mut name) = (0u64, 0u32);
        let mut wakes = Vec::new();
        for _ in 0..20_000 {
            let r = random.next_u64();
            let deadline = now_ms + (r >> 8) % 500;
            let at = start + Duration::from_millis(deadline);
            match r % 8 {
                0..=2 => {
                    model.insert(name, (timers.insert(at, Waker::noop().clone()), deadline));
                    name += 1;
                }
                3 => {
                    let first = model.keys().next().copied();
                    if let Some((key, _)) = first.and_then(|k| model.remove(&k)) {
                        timers.cancel(key);
                    }
                }
                4..=5 => {
                    if let Some(entry) = model.values_mut().nth((r >> 32) as usize % 8) {
                        timers.reset(entry.0, at);
                        entry.1 = deadline;
                    }
                }
                _ => {
                    now_ms += r % 40;
                    timers.expire(start + Duration::from_millis(now_ms), &mut wakes);
                }
            }
            let due: Vec<u32> = model.iter().filter(|(_, e)| e.1 <= now_ms).map(|(k, _)| *k).collect();
            timers.expire(start + Duration::from_millis(now_ms), &mut wakes);
            for (_, (key, deadline)) in model.iter() {
                let fired = timers.poll(*key, Waker::noop()).is_ready();
                assert_eq!(fired, *deadline <= now_ms);
            }
            for k in due {
                let (key, _) = model.remove(&k).expect("listed above");
                timers.cancel(key);
            }
            let earliest = model.values().map(|e| e.1).min();
            let next = timers.next();
            assert_eq!(next.is_some(), earliest.is_some());
            assert!(next <= earliest.map(|ms| start + Duration::from_millis(ms)));
        }
    }

    #[test]
    fn a_timer_per_request_leaves_no_garbage() {
        let start = Instant::now();
        let mut timers = Timers::default();
        for i in 0..100_000u64 {
            let key =
                timers.insert(start + Duration::from_secs(30) + Duration::from_micros(i), Waker::noop().clone());
            timers.cancel(key);
        }
        assert!(timers.heap.len() < 256, "{} dead entries", timers.heap.len());
    }
}
