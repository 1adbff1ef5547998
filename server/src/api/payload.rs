//! The body of an answer: bytes that are there, or the log as it is written.

use super::patience::Serving;
use crate::telemetry::Monitor;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What is sent.
pub enum Payload {
    /// All of it is there.
    Whole(Full<Bytes>),
    /// It comes while it is written, until the client goes away or the server stops.
    Log(Monitor, Option<Serving>),
}

impl Payload {
    /// Keeps a stream's connection from counting as idle for as long as the stream lasts.
    pub fn holding(self, serving: Serving) -> Payload {
        match self {
            Payload::Log(monitor, _) => Payload::Log(monitor, Some(serving)),
            whole => whole,
        }
    }
}

impl Default for Payload {
    fn default() -> Self {
        Payload::Whole(Full::default())
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Payload::Whole(full) => Pin::new(full).poll_frame(cx),
            Payload::Log(monitor, _) => monitor.poll(cx).map(|text| text.map(|t| Ok(Frame::data(Bytes::from(t))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Payload::Whole(full) => full.is_end_stream(),
            Payload::Log(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Payload::Whole(full) => full.size_hint(),
            Payload::Log(..) => SizeHint::default(),
        }
    }
}
