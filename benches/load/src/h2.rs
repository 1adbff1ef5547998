//! HTTP/2 over one connection, by the `h2` crate without a runtime: everything is polled after each event of the socket
//! and after each send, so a waker has nothing to do.

use crate::call::Call;
use crate::transport::Transport;
use bytes::Bytes;
use h2::client::{Connection, ResponseFuture, SendRequest};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

type Opened = (SendRequest<Bytes>, Connection<Transport, Bytes>);

enum Phase {
    Handshake(Pin<Box<dyn Future<Output = Result<Opened, h2::Error>> + Send>>),
    Open(SendRequest<Bytes>, Box<Connection<Transport, Bytes>>),
}

enum Stage {
    Head(ResponseFuture),
    Body(u16, h2::RecvStream, Vec<u8>),
}

/// A connection and its streams.
pub struct H2<F> {
    phase: Phase,
    secure: bool,
    authority: String,
    /// Asked for before the handshake was through.
    waiting: Vec<(http::Request<()>, Bytes, F)>,
    streams: Vec<(F, Stage)>,
}

fn fault(e: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(ErrorKind::ConnectionAborted, e)
}

impl<F> H2<F> {
    /// Over a stream that may still be connecting; its socket is watched before it is moved in.
    pub fn new(transport: Transport, authority: String) -> H2<F> {
        let secure = matches!(transport, Transport::Tls(..));
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false).initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
        let handshake = Box::pin(async move { builder.handshake::<_, Bytes>(transport).await });
        H2 { phase: Phase::Handshake(handshake), secure, authority, waiting: Vec::new(), streams: Vec::new() }
    }

    /// What has no answer yet.
    pub fn in_flight(&self) -> impl Iterator<Item = &F> {
        self.waiting.iter().map(|w| &w.2).chain(self.streams.iter().map(|s| &s.0))
    }

    /// Sends a request on a stream of its own.
    pub fn send(&mut self, call: &Call, flight: F) -> io::Result<()> {
        let scheme = if self.secure { "https" } else { "http" };
        let mut request = http::Request::builder()
            .method(call.method)
            .uri(format!("{scheme}://{}/v1/{}", self.authority, call.path))
            .version(http::Version::HTTP_2);
        for (name, value) in call.headers() {
            request = request.header(name, value);
        }
        if !call.body.is_empty() {
            request = request.header("content-type", "application/json").header("content-length", call.body.len());
        }
        let request = request.body(()).map_err(io::Error::other)?;
        self.waiting.push((request, Bytes::copy_from_slice(&call.body), flight));
        self.begin()
    }

    /// Opens the handshake's result and the streams that wait, and writes what is to be written.
    fn begin(&mut self) -> io::Result<()> {
        let mut cx = Context::from_waker(Waker::noop());
        if let Phase::Handshake(handshake) = &mut self.phase {
            match handshake.as_mut().poll(&mut cx) {
                Poll::Ready(opened) => {
                    let (send, connection) = opened.map_err(fault)?;
                    self.phase = Phase::Open(send, Box::new(connection));
                }
                Poll::Pending => return Ok(()),
            }
        }
        let Phase::Open(send, connection) = &mut self.phase else { return Ok(()) };
        while !self.waiting.is_empty() {
            match send.poll_ready(&mut cx) {
                Poll::Ready(ready) => ready.map_err(fault)?,
                Poll::Pending => break,
            }
            let (request, body, flight) = self.waiting.remove(0);
            let (response, mut stream) = send.send_request(request, body.is_empty()).map_err(fault)?;
            if !body.is_empty() {
                stream.send_data(body, true).map_err(fault)?;
            }
            self.streams.push((flight, Stage::Head(response)));
        }
        match Pin::new(&mut **connection).poll(&mut cx) {
            Poll::Ready(Ok(())) => Err(ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Err(e)) => Err(fault(e)),
            Poll::Pending => Ok(()),
        }
    }

    /// The socket is ready: moves everything on and hands over the answers that are whole.
    pub fn ready(&mut self, done: &mut dyn FnMut(F, u16, &[u8])) -> io::Result<()> {
        self.begin()?;
        let mut cx = Context::from_waker(Waker::noop());
        let mut moved = false;
        let mut at = 0;
        while at < self.streams.len() {
            let (_, stage) = &mut self.streams[at];
            match step(stage, &mut cx)? {
                Step::Waits => at += 1,
                Step::Whole => {
                    let (flight, stage) = self.streams.swap_remove(at);
                    if let Stage::Body(status, _, body) = stage {
                        done(flight, status, &body);
                    }
                    moved = true;
                }
            }
        }
        // what was read gives window back, and an answer makes room for a stream that waits
        if moved { self.begin() } else { Ok(()) }
    }
}

enum Step {
    Waits,
    Whole,
}

fn step(stage: &mut Stage, cx: &mut Context<'_>) -> io::Result<Step> {
    loop {
        match stage {
            Stage::Head(response) => match Pin::new(response).poll(cx) {
                Poll::Pending => return Ok(Step::Waits),
                Poll::Ready(answer) => {
                    let (head, recv) = answer.map_err(fault)?.into_parts();
                    *stage = Stage::Body(head.status.as_u16(), recv, Vec::new());
                }
            },
            Stage::Body(_, recv, body) => match recv.poll_data(cx) {
                Poll::Pending => return Ok(Step::Waits),
                Poll::Ready(None) => return Ok(Step::Whole),
                Poll::Ready(Some(data)) => {
                    let data = data.map_err(fault)?;
                    recv.flow_control().release_capacity(data.len()).map_err(fault)?;
                    body.extend_from_slice(&data);
                }
            },
        }
    }
}
