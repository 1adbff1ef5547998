//! How long a connection is waited for: for its first request, for the rest of a head that has begun, between requests.
//!
//! hyper's own limit on heads runs while a kept connection is idle too and would close it after seconds, so the limits
//! are held here: the transport tells when bytes of a head arrive, the service tells when requests begin and end, and
//! [`Patience::expired`] sleeps until none of the two came in time. One timer a connection, rarely moved.

use crate::rt;
use hyper::rt::{Read, ReadBufCursor, Write};
use ringfence_base::Mono;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The times of a listener; zero is for ever.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// From the first byte of a head (or from the connection's beginning) to its last.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// From the last byte of a head to the last of its answer.
    pub write: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A head is awaited, and some of it may be here.
    Head,
    /// So many requests are being served.
    Serving(u32),
    /// Between requests.
    Idle,
}

/// What one connection is being waited for.
pub struct Patience {
    times: Times,
    phase: Cell<Phase>,
    since: Cell<Mono>,
    /// When the request that was begun last was.
    begun: Cell<Mono>,
    /// The client has not taken all that was written to it.
    stalled: Cell<bool>,
}

impl Patience {
    /// For a connection that has just begun: its first head is awaited.
    pub fn new(times: Times) -> Rc<Patience> {
        let now = rt::coarse();
        let (phase, stalled) = (Cell::new(Phase::Head), Cell::new(false));
        Rc::new(Patience { times, phase, since: Cell::new(now), begun: Cell::new(now), stalled })
    }

    /// A request begins; it ends with the answer's drop.
    pub fn serving(self: &Rc<Self>) -> Serving {
        let others = match self.phase.get() {
            Phase::Serving(n) => n,
            _ => 0,
        };
        self.phase.set(Phase::Serving(others + 1));
        if !self.times.write.is_zero() {
            self.begun.set(rt::now().mono);
        }
        Serving(self.clone())
    }

    /// Bytes came in.
    fn received(&self) {
        if self.phase.get() == Phase::Idle {
            self.phase.set(Phase::Head);
            self.since.set(rt::coarse());
        }
    }

    /// Bytes of an answer went out, after the request itself was done with.
    fn sent(&self, ready: bool) {
        self.stalled.set(!ready);
        if ready && self.phase.get() == Phase::Idle {
            self.since.set(rt::coarse());
        }
    }

    /// What is left of the present phase; `None` while nothing is waited for.
    fn left(&self) -> Option<Duration> {
        let (limit, since) = match self.phase.get() {
            Phase::Serving(_) => (self.times.write, &self.begun),
            Phase::Idle if self.stalled.get() && !self.times.write.is_zero() => (self.times.write, &self.begun),
            Phase::Head => (self.times.head, &self.since),
            Phase::Idle => (self.times.idle, &self.since),
        };
        let gone = Duration::from_nanos(rt::coarse().since(since.get()));
        (!limit.is_zero()).then(|| limit.saturating_sub(gone))
    }

    /// Ends when the client has let us wait for too long.
    pub async fn expired(&self) {
        // phases change while this sleeps; it looks again at least as often as the shorter limit
        let times = [self.times.head, self.times.idle, self.times.write];
        let Some(shorter) = times.into_iter().filter(|t| !t.is_zero()).min() else {
            return std::future::pending().await;
        };
        loop {
            let nap = match self.left() {
                Some(Duration::ZERO) => return,
                Some(left) => left.min(shorter),
                None => shorter,
            };
            rt::sleep(nap).await;
        }
    }
}

/// A request under way.
pub struct Serving(Rc<Patience>);

impl Drop for Serving {
    fn drop(&mut self) {
        let patience = &self.0;
        match patience.phase.get() {
            Phase::Serving(n) if n > 1 => patience.phase.set(Phase::Serving(n - 1)),
            _ => {
                patience.phase.set(Phase::Idle);
                patience.since.set(rt::coarse());
            }
        }
    }
}

/// A transport that tells when bytes come in.
pub struct Watched<IO> {
    io: IO,
    patience: Rc<Patience>,
}

impl<IO> Watched<IO> {
    /// Over a transport.
    pub fn new(io: IO, patience: Rc<Patience>) -> Watched<IO> {
        Watched { io, patience }
    }
}

impl<IO: Read + Unpin> Read for Watched<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_ready() {
            self.patience.received();
        }
        polled
    }
}

impl<IO: Write + Unpin> Write for Watched<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.patience.sent(polled.is_ready());
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.patience.sent(polled.is_ready());
        polled
    }
}
