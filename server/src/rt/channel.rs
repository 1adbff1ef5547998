//! Channels: the mailbox between cores, an answer within a core, an answer across threads.
//!
//! A mailbox wakes its receiver once however many messages arrive before it looks: the receiver leaves its waker only
//! when it found nothing, and the first sender takes it. Nothing here knows the driver; wakers cross threads.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Why a message was not taken; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum SendError<T> {
    /// As many messages wait as the mailbox holds.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// The sending side of a mailbox: for any thread, any number of them.
pub struct Sender<T> {
    shared: Arc<Mutex<Mailbox<T>>>,
}

/// The receiving side: one owner, on one core.
pub struct Receiver<T> {
    shared: Arc<Mutex<Mailbox<T>>>,
    /// Receivers stay on their core.
    here: PhantomData<Rc<()>>,
}

/// A receiver on its way to the core that will own it.
pub struct Inlet<T> {
    shared: Arc<Mutex<Mailbox<T>>>,
}

struct Mailbox<T> {
    messages: VecDeque<T>,
    capacity: usize,
    receiver: Option<Waker>,
    /// Senders that wait for room.
    waiting: Vec<Waker>,
    senders: usize,
    open: bool,
}

/// A mailbox that holds at most `capacity` messages.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Inlet<T>) {
    let shared = Arc::new(Mutex::new(Mailbox {
        messages: VecDeque::new(),
        capacity: capacity.max(1),
        receiver: None,
        waiting: Vec::new(),
        senders: 1,
        open: true,
    }));
    (Sender { shared: Arc::clone(&shared) }, Inlet { shared })
}

/// A mailbox without a bound, for messages that are bounded otherwise (answers to bounded questions).
pub fn unbounded<T>() -> (Sender<T>, Inlet<T>) {
    bounded(usize::MAX)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // no code of others runs under these locks, so a poisoned one is still whole
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> Inlet<T> {
    /// Becomes the receiver; call it on the owning core.
    pub fn open(self) -> Receiver<T> {
        Receiver { shared: Arc::clone(&self.shared), here: PhantomData }
    }
}

impl<T> Sender<T> {
    /// Leaves a message without waiting.
    pub fn try_send(&self, message: T) -> Result<(), SendError<T>> {
        let mut mailbox = lock(&self.shared);
        if !mailbox.open {
            return Err(SendError::Closed(message));
        }
        if mailbox.messages.len() >= mailbox.capacity {
            return Err(SendError::Full(message));
        }
        mailbox.messages.push_back(message);
        let waker = mailbox.receiver.take();
        drop(mailbox);
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Leaves many messages under one lock, in order. Bounds are not looked at: for answers.
    pub fn send_all(&self, messages: impl IntoIterator<Item = T>) -> Result<(), SendError<()>> {
        let mut mailbox = lock(&self.shared);
        if !mailbox.open {
            return Err(SendError::Closed(()));
        }
        mailbox.messages.extend(messages);
        let waker = if mailbox.messages.is_empty() { None } else { mailbox.receiver.take() };
        drop(mailbox);
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Leaves a message, waiting for room.
    ///
    /// # Errors
    /// [`SendError::Closed`] only.
    pub async fn send(&self, message: T) -> Result<(), SendError<T>> {
        let mut message = Some(message);
        poll_fn(move |cx| {
            let now = message.take().expect("polled again only while it waits");
            match self.try_send(now) {
                Err(SendError::Full(back)) => {
                    let mut mailbox = lock(&self.shared);
                    // room may have come between the two locks: look again under the one that leaves the waker
                    if mailbox.messages.len() < mailbox.capacity || !mailbox.open {
                        cx.waker().wake_by_ref();
                    } else {
                        mailbox.waiting.push(cx.waker().clone());
                    }
                    message = Some(back);
                    Poll::Pending
                }
                done => Poll::Ready(done),
            }
        })
        .await
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        !lock(&self.shared).open
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        lock(&self.shared).senders += 1;
        Sender { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut mailbox = lock(&self.shared);
        mailbox.senders -= 1;
        let waker = if mailbox.senders == 0 { mailbox.receiver.take() } else { None };
        drop(mailbox);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Receiver<T> {
    /// The next message; `None` when every sender is gone and all was received.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`Receiver::recv`], for hand-written futures.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut mailbox = lock(&self.shared);
        match mailbox.messages.pop_front() {
            Some(message) => {
                let waiting = std::mem::take(&mut mailbox.waiting);
                drop(mailbox);
                waiting.into_iter().for_each(Waker::wake);
                Poll::Ready(Some(message))
            }
            None => wait(mailbox, cx),
        }
    }

    /// Waits for at least one message and takes all there are, in order. Answers how many; zero means every sender
    /// is gone.
    pub async fn drain(&mut self, into: &mut Vec<T>) -> usize {
        poll_fn(|cx| {
            let mut mailbox = lock(&self.shared);
            if mailbox.messages.is_empty() {
                return wait(mailbox, cx).map(|none: Option<()>| none.map_or(0, |()| 0));
            }
            let n = mailbox.messages.len();
            into.extend(mailbox.messages.drain(..));
            let waiting = std::mem::take(&mut mailbox.waiting);
            drop(mailbox);
            waiting.into_iter().for_each(Waker::wake);
            Poll::Ready(n)
        })
        .await
    }

    /// Takes all there are without waiting. Answers how many.
    pub fn try_drain(&mut self, into: &mut Vec<T>) -> usize {
        let mut mailbox = lock(&self.shared);
        let n = mailbox.messages.len();
        into.extend(mailbox.messages.drain(..));
        let waiting = std::mem::take(&mut mailbox.waiting);
        drop(mailbox);
        waiting.into_iter().for_each(Waker::wake);
        n
    }
}

/// The mailbox is empty: over, or leave the waker.
fn wait<T, R>(mut mailbox: MutexGuard<'_, Mailbox<T>>, cx: &Context<'_>) -> Poll<Option<R>> {
    if mailbox.senders == 0 {
        return Poll::Ready(None);
    }
    let old = mailbox.receiver.replace(cx.waker().clone());
    drop(mailbox);
    drop(old);
    Poll::Pending
}

/// The receiving side is gone: messages are dropped, waiting senders told.
fn close<T>(shared: &Mutex<Mailbox<T>>) {
    let mut mailbox = lock(shared);
    mailbox.open = false;
    let dropped = (std::mem::take(&mut mailbox.messages), mailbox.receiver.take());
    let waiting = std::mem::take(&mut mailbox.waiting);
    drop(mailbox);
    drop(dropped);
    waiting.into_iter().for_each(Waker::wake);
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        close(&self.shared);
    }
}

/// The other side went away without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned;

/// One answer within a core: no atomics.
pub fn oneshot<T>() -> (Answer<T>, Question<T>) {
    let shared = Rc::new(RefCell::new(One { value: None, waker: None }));
    (Answer { shared: Rc::clone(&shared) }, Question { shared })
}

struct One<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// The side that answers.
pub struct Answer<T> {
    shared: Rc<RefCell<One<T>>>,
}

/// The side that waits: a future.
pub struct Question<T> {
    shared: Rc<RefCell<One<T>>>,
}

impl<T> Answer<T> {
    /// Answers; the value comes back if nobody waits any more.
    pub fn send(self, value: T) -> Result<(), T> {
        if Rc::strong_count(&self.shared) == 1 {
            return Err(value);
        }
        self.shared.borrow_mut().value = Some(value);
        Ok(())
    }

    /// Whether nobody waits any more.
    pub fn is_abandoned(&self) -> bool {
        Rc::strong_count(&self.shared) == 1
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let waker = self.shared.borrow_mut().waker.take();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Future for Question<T> {
    type Output = Result<T, Abandoned>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut one = self.shared.borrow_mut();
        if let Some(value) = one.value.take() {
            return Poll::Ready(Ok(value));
        }
        if Rc::strong_count(&self.shared) == 1 {
            return Poll::Ready(Err(Abandoned));
        }
        let old = one.waker.replace(cx.waker().clone());
        drop(one);
        drop(old);
        Poll::Pending
    }
}

/// One answer across threads.
pub fn reply<T>() -> (Replier<T>, Reply<T>) {
    let shared = Arc::new(Mutex::new(Across { value: None, waker: None, gone: false }));
    (Replier { shared: Arc::clone(&shared) }, Reply { shared })
}

struct Across<T> {
    value: Option<T>,
    waker: Option<Waker>,
    /// One of the two sides was dropped.
    gone: bool,
}

/// The side that replies, from any thread.
pub struct Replier<T> {
    shared: Arc<Mutex<Across<T>>>,
}

/// The side that waits: a future.
pub struct Reply<T> {
    shared: Arc<Mutex<Across<T>>>,
}

impl<T> Replier<T> {
    /// Replies; the value comes back if nobody waits any more.
    pub fn send(self, value: T) -> Result<(), T> {
        let mut across = lock(&self.shared);
        if across.gone {
            return Err(value);
        }
        across.value = Some(value);
        Ok(())
    }
}

impl<T> Drop for Replier<T> {
    fn drop(&mut self) {
        let mut across = lock(&self.shared);
        across.gone = true;
        let waker = across.waker.take();
        drop(across);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T, Abandoned>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut across = lock(&self.shared);
        if let Some(value) = across.value.take() {
            return Poll::Ready(Ok(value));
        }
        if across.gone {
            return Poll::Ready(Err(Abandoned));
        }
        let old = across.waker.replace(cx.waker().clone());
        drop(across);
        drop(old);
        Poll::Pending
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        let mut across = lock(&self.shared);
        across.gone = true;
        let dropped = (across.value.take(), across.waker.take());
        drop(across);
        drop(dropped);
    }
}
