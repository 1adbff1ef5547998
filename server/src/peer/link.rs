//! One connection between two nodes: TLS, frames, a queue of what is to be sent, and signs of life.
//!
//! A frame is a length (u32, little-endian) and so many bytes; an empty one is a sign of life. Both sides send one twice
//! a second; a side that hears nothing for three seconds ends the connection. One task moves everything, so a
//! connection needs no lock and ends in one place.

use crate::rt::{self, Sleep, Stream};
use hyper::rt::{Read, ReadBuf, Write};
use rustls::Connection;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::io::{self, BufRead, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

/// Between two signs of life.
const PULSE: Duration = Duration::from_millis(500);
/// A connection that is silent for so long is dead, ns.
const SILENCE_NS: u64 = 3_000_000_000;
/// Bytes moved before others get their turn on the core.
const TURN_BYTES: usize = 1 << 20;

/// What is to be sent.
pub enum Frame {
    /// It may be lost.
    Message(Vec<u8>),
    /// A call, by its number: whether a byte of it was sent is remembered.
    Call(u64, Vec<u8>),
}

impl Frame {
    fn len(&self) -> usize {
        match self {
            Frame::Message(b) | Frame::Call(_, b) => b.len(),
        }
    }
}

/// The queue of a connection. It takes frames only while the connection stands.
pub struct Outbox {
    queue: RefCell<VecDeque<Frame>>,
    bytes: Cell<usize>,
    max_bytes: usize,
    is_open: Cell<bool>,
    /// The connection is to end, for this reason.
    ended: RefCell<Option<&'static str>>,
    waker: RefCell<Option<Waker>>,
    /// Calls of which something was sent and that are not answered.
    pub outstanding: RefCell<BTreeSet<u64>>,
}

impl Outbox {
    /// An empty queue of a connection that does not stand yet.
    pub fn new(max_bytes: usize) -> Rc<Outbox> {
        Rc::new(Outbox {
            queue: RefCell::default(),
            bytes: Cell::new(0),
            max_bytes,
            is_open: Cell::new(false),
            ended: RefCell::new(None),
            waker: RefCell::default(),
            outstanding: RefCell::default(),
        })
    }

    /// Takes a frame; false if the connection does not stand, or too much waits already.
    pub fn push(&self, frame: Frame) -> bool {
        let bytes = self.bytes.get() + frame.len();
        if !self.is_open.get() || (bytes > self.max_bytes && self.bytes.get() > 0) {
            return false;
        }
        self.bytes.set(bytes);
        self.queue.borrow_mut().push_back(frame);
        self.wake();
        true
    }

    /// Ends the connection, now or as soon as it stands.
    pub fn end(&self, why: &'static str) {
        *self.ended.borrow_mut() = Some(why);
        self.wake();
    }

    /// Why it is to end, if it is.
    pub fn ended(&self) -> Option<&'static str> {
        *self.ended.borrow()
    }

    /// The connection stands.
    pub fn open(&self) {
        self.is_open.set(true);
    }

    /// The connection is gone. Answers the calls that were never sent, and those whose fate nobody knows.
    pub fn close(&self) -> (Vec<u64>, Vec<u64>) {
        self.is_open.set(false);
        self.bytes.set(0);
        let unsent = self.queue.take().into_iter().filter_map(|f| match f {
            Frame::Call(number, _) => Some(number),
            Frame::Message(_) => None,
        });
        (unsent.collect(), self.outstanding.take().into_iter().collect())
    }

    fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        waker.into_iter().for_each(Waker::wake);
    }

    fn pop(&self) -> Option<Vec<u8>> {
        let frame = self.queue.borrow_mut().pop_front()?;
        self.bytes.set(self.bytes.get().saturating_sub(frame.len()));
        Some(match frame {
            Frame::Message(b) => b,
            Frame::Call(number, b) => {
                self.outstanding.borrow_mut().insert(number);
                b
            }
        })
    }
}

/// A connection.
pub struct Link {
    stream: Stream,
    tls: Connection,
    /// The frame on its way out, its length before it, and how much of it is gone.
    out: Vec<u8>,
    sent: usize,
    /// The frame on its way in, its length before it.
    inward: Vec<u8>,
    max_frame_bytes: usize,
    heard_ns: u64,
    pulse: Pin<Box<Sleep>>,
}

impl Link {
    /// Over a connected stream; TLS begins with the first bytes moved.
    pub fn new(stream: Stream, tls: Connection) -> Link {
        Link {
            stream,
            tls,
            out: Vec::new(),
            sent: 0,
            inward: Vec::new(),
            // until it is known who is there
            max_frame_bytes: 2048,
            heard_ns: rt::mono().0,
            pulse: Box::pin(rt::sleep(PULSE)),
        }
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// Why there is no TLS connection.
    pub async fn shake(&mut self) -> Result<(), String> {
        while self.tls.is_handshaking() {
            let moved = poll_fn(|cx| {
                ready!(self.poll_send(cx))?;
                if !self.tls.is_handshaking() {
                    return Poll::Ready(Ok(1));
                }
                self.poll_tls(cx)
            });
            match moved.await {
                Ok(0) => return Err("the connection was closed during the TLS handshake".into()),
                Ok(_) => {}
                Err(e) => return Err(format!("TLS handshake: {e}")),
            }
            if let Err(e) = self.tls.process_new_packets() {
                // the alert that names the reason; a peer that is gone need not hear it
                let _ = poll_fn(|cx| self.poll_send(cx)).await;
                let _ = self.stream.shutdown().await;
                return Err(format!("TLS handshake: {e}"));
            }
        }
        poll_fn(|cx| self.poll_send(cx)).await.map_err(|e| e.to_string())
    }

    /// The certificate that the other side has proved to hold.
    pub fn certificate(&self) -> Option<Vec<u8>> {
        self.tls.peer_certificates().and_then(|c| c.first()).map(|der| der.to_vec())
    }

    /// From now on frames may be so long.
    pub fn allow(&mut self, max_frame_bytes: usize) {
        self.max_frame_bytes = max_frame_bytes;
    }

    /// Sends one frame, outside of [`Link::run`].
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), String> {
        let mut bytes = framed(frame);
        while !bytes.is_empty() {
            let n = self.tls.writer().write(&bytes).map_err(|e| e.to_string())?;
            bytes.drain(..n);
            poll_fn(|cx| self.poll_send(cx)).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Takes one frame, outside of [`Link::run`].
    pub async fn receive(&mut self) -> Result<Vec<u8>, String> {
        loop {
            let mut got = None;
            self.take_frames(|f| {
                got = Some(f);
                false
            })?;
            if let Some(frame) = got {
                return Ok(frame);
            }
            let n = poll_fn(|cx| self.poll_tls(cx)).await.map_err(|e| e.to_string())?;
            self.tls.process_new_packets().map_err(|e| e.to_string())?;
            if n == 0 {
                return Err("the connection was closed".into());
            }
        }
    }

    /// Tells the other side that no more will come.
    pub async fn finish(&mut self) {
        self.tls.send_close_notify();
        // it may be gone already
        let _ = poll_fn(|cx| self.poll_send(cx)).await;
        let _ = self.stream.shutdown().await;
    }

    /// Moves frames until the connection ends. Answers why it did.
    pub async fn run(&mut self, outbox: &Outbox, mut on_frame: impl FnMut(Vec<u8>) -> Result<(), String>) -> String {
        self.heard_ns = rt::mono().0;
        poll_fn(|cx| match self.poll_move(cx, outbox, &mut on_frame) {
            Ok(()) => Poll::Pending,
            Err(why) => Poll::Ready(why),
        })
        .await
    }

    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &Outbox,
        on_frame: &mut impl FnMut(Vec<u8>) -> Result<(), String>,
    ) -> Result<(), String> {
        *outbox.waker.borrow_mut() = Some(cx.waker().clone());
        let mut moved = 0;
        loop {
            if let Some(why) = outbox.ended() {
                return Err(why.to_owned());
            }
            let before = moved;
            moved += self.move_out(cx, outbox).map_err(|e| e.to_string())?;
            moved += self.move_in(cx, on_frame)?;
            if moved == before {
                break;
            }
            if moved >= TURN_BYTES {
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
        while self.pulse.as_mut().poll(cx).is_ready() {
            self.pulse = Box::pin(rt::sleep(PULSE));
            if rt::mono().0.saturating_sub(self.heard_ns) > SILENCE_NS {
                return Err("it is silent".into());
            }
            if self.sent == self.out.len() {
                (self.out, self.sent) = (framed(&[]), 0);
                cx.waker().wake_by_ref();
            }
        }
        Ok(())
    }

    fn move_out(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> io::Result<usize> {
        let mut moved = 0;
        while moved < TURN_BYTES {
            if self.sent == self.out.len() {
                match outbox.pop() {
                    Some(frame) => (self.out, self.sent) = (framed(&frame), 0),
                    None => break,
                }
            }
            let n = self.tls.writer().write(&self.out[self.sent..])?;
            self.sent += n;
            moved += n;
            if self.sent == self.out.len() && self.out.capacity() > 64 * 1024 {
                (self.out, self.sent) = (Vec::new(), 0);
            }
            if let Poll::Ready(sent) = self.poll_send(cx) {
                sent?;
            } else if n == 0 {
                break;
            }
        }
        if let Poll::Ready(sent) = self.poll_send(cx) {
            sent?;
        }
        Ok(moved)
    }

    fn move_in(
        &mut self,
        cx: &mut Context<'_>,
        on_frame: &mut impl FnMut(Vec<u8>) -> Result<(), String>,
    ) -> Result<usize, String> {
        // what came together with the frame before
        self.hand_on(on_frame)?;
        let n = match self.poll_tls(cx) {
            Poll::Pending => return Ok(0),
            Poll::Ready(Ok(0)) => return Err("the connection was closed".into()),
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(e)) => return Err(e.to_string()),
        };
        self.heard_ns = rt::mono().0;
        self.tls.process_new_packets().map_err(|e| e.to_string())?;
        self.hand_on(on_frame).map(|()| n)
    }

    fn hand_on(&mut self, on_frame: &mut impl FnMut(Vec<u8>) -> Result<(), String>) -> Result<(), String> {
        let mut refused = Ok(());
        self.take_frames(|frame| {
            if !frame.is_empty() {
                refused = on_frame(frame);
            }
            refused.is_ok()
        })?;
        refused
    }

    /// Takes plain bytes as far as there are, and hands on each whole frame, as long as it is told to go on.
    fn take_frames(&mut self, mut on_frame: impl FnMut(Vec<u8>) -> bool) -> Result<(), String> {
        loop {
            let mut reader = self.tls.reader();
            let plain = match reader.fill_buf() {
                Ok(bytes) if !bytes.is_empty() => bytes,
                // the end; the stream below tells it too
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.to_string()),
            };
            let wanted = match self.inward.first_chunk::<4>() {
                None => 4,
                Some(head) => 4 + u32::from_le_bytes(*head) as usize,
            };
            let take = (wanted - self.inward.len()).min(plain.len());
            // grows with what comes, not with what is announced
            self.inward.extend_from_slice(&plain[..take]);
            reader.consume(take);
            let Some(head) = self.inward.first_chunk::<4>() else { continue };
            let length = u32::from_le_bytes(*head) as usize;
            if length > self.max_frame_bytes {
                return Err(format!("a frame of {length} bytes is over the limit of {}", self.max_frame_bytes));
            }
            if self.inward.len() == 4 + length {
                let mut frame = std::mem::take(&mut self.inward);
                frame.drain(..4);
                if !on_frame(frame) {
                    return Ok(());
                }
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut bridge = Bridge { stream: &mut self.stream, cx };
            match self.tls.write_tls(&mut bridge) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_tls(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bridge = Bridge { stream: &mut self.stream, cx };
        match self.tls.read_tls(&mut bridge) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            other => Poll::Ready(other),
        }
    }
}

fn framed(frame: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + frame.len());
    bytes.extend_from_slice(&(frame.len() as u32).to_le_bytes());
    bytes.extend_from_slice(frame);
    bytes
}

/// The core's stream as rustls wants it, for the time of one poll: "not now" leaves the waker with the stream.
struct Bridge<'a, 'b> {
    stream: &'a mut Stream,
    cx: &'a mut Context<'b>,
}

impl io::Read for Bridge<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut room = ReadBuf::new(buf);
        match Pin::new(&mut *self.stream).poll_read(self.cx, room.unfilled()) {
            Poll::Ready(Ok(())) => Ok(room.filled().len()),
            Poll::Ready(Err(e)) => Err(e),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl io::Write for Bridge<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.stream).poll_write(self.cx, buf) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
