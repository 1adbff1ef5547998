//! A TLS connection as hyper wants its streams.
//!
//! rustls does no IO: records go in by `read_tls`, come out by `write_tls`, and plain bytes are taken from and given to
//! its buffers. [`Bridge`] lends it the core's stream for the time of one poll. Plain bytes that were taken are
//! encrypted at once and handed to the stream as far as it takes them; what it does not take keeps the next write
//! waiting, so a connection buffers at most rustls's own bound (64 KiB).

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use rustls::{ServerConfig, ServerConnection};
use std::fmt;
use std::future::poll_fn;
use std::io::{self, BufRead, IoSlice, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// What is read at once during a handshake; a client's first flight fits.
const HANDSHAKE_READ_BYTES: usize = 4096;

/// What a client hears that speaks HTTP to a port that wants TLS; its word is the one that Vault's users know.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Why there is no TLS connection.
#[derive(Debug)]
pub enum HandshakeError {
    /// The connection failed, or ended before the handshake did.
    Io(io::Error),
    /// What the client sent or showed is not accepted. It has been told.
    Refused(rustls::Error),
    /// The client speaks HTTP without TLS. It has been told.
    PlainHttp,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::Io(error) => write!(f, "TLS handshake: {error}"),
            HandshakeError::Refused(error) => write!(f, "TLS handshake: {error}"),
            HandshakeError::PlainHttp => f.write_str("TLS handshake: the client sent HTTP"),
        }
    }
}

impl std::error::Error for HandshakeError {}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        HandshakeError::Io(error)
    }
}

/// A stream inside TLS, the handshake done.
pub struct TlsStream<S> {
    stream: S,
    tls: ServerConnection,
    /// close_notify is on its way or sent.
    closing: bool,
}

impl<S: Read + Write + Unpin> TlsStream<S> {
    /// Shakes hands as the server.
    pub(super) async fn accept(stream: S, config: Arc<ServerConfig>) -> Result<TlsStream<S>, HandshakeError> {
        let tls = ServerConnection::new(config).map_err(HandshakeError::Refused)?;
        let mut this = TlsStream { stream, tls, closing: false };
        let mut buffer = [0; HANDSHAKE_READ_BYTES];
        let mut is_first = true;
        while this.tls.is_handshaking() {
            let n = poll_fn(|cx| {
                ready!(this.poll_send(cx))?;
                read_some(&mut this.stream, cx, &mut buffer)
            })
            .await?;
            if n == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if std::mem::take(&mut is_first) && is_plain_http(&buffer[..n]) {
                let mut answer = PLAIN_HTTP;
                poll_fn(|cx| write_all(&mut this.stream, cx, &mut answer)).await?;
                poll_fn(|cx| Pin::new(&mut this.stream).poll_shutdown(cx)).await?;
                return Err(HandshakeError::PlainHttp);
            }
            let mut records = &buffer[..n];
            while !records.is_empty() {
                this.tls.read_tls(&mut records)?;
                if let Err(error) = this.tls.process_new_packets() {
                    // the alert that names the reason; a client that is gone need not hear it
                    let _ = poll_fn(|cx| this.poll_send(cx)).await;
                    let _ = poll_fn(|cx| Pin::new(&mut this.stream).poll_shutdown(cx)).await;
                    return Err(HandshakeError::Refused(error));
                }
            }
        }
        poll_fn(|cx| this.poll_send(cx)).await?;
        Ok(this)
    }

    /// Hands every finished record to the stream.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut bridge = Bridge { stream: &mut self.stream, cx };
            match self.tls.write_tls(&mut bridge) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes plain bytes as far as there is room, making room while the stream takes records.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut rustls::Writer<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let n = take(&mut self.tls.writer())?;
            match self.poll_send(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // room was made: again
                Poll::Ready(Ok(())) if n == 0 => {}
                Poll::Pending if n == 0 => return Poll::Pending,
                _ => return Poll::Ready(Ok(n)),
            }
        }
    }
}

impl<S> TlsStream<S> {
    /// The certificates that the client has shown and proved to hold, DER, its own first. Empty if it showed none.
    /// Whether they are to be believed is not said, unless the listener requires them.
    pub fn peer_certificates(&self) -> Vec<Vec<u8>> {
        self.tls.peer_certificates().unwrap_or_default().iter().map(|der| der.to_vec()).collect()
    }

    /// Whether HTTP/2 was agreed on.
    pub fn is_h2(&self) -> bool {
        self.tls.alpn_protocol() == Some(b"h2")
    }

    /// The name that the client asked for.
    pub fn server_name(&self) -> Option<&str> {
        self.tls.server_name()
    }

    /// The stream below.
    pub fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S: Read + Write + Unpin> Read for TlsStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut plain = this.tls.reader();
            match plain.fill_buf() {
                // empty: the client has said that no more will come
                Ok(bytes) => {
                    let n = bytes.len().min(buf.remaining());
                    buf.put_slice(&bytes[..n]);
                    plain.consume(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            let mut bridge = Bridge { stream: &mut this.stream, cx };
            match this.tls.read_tls(&mut bridge) {
                // zero bytes are the end; whether it was a proper one, the next look tells
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
            let processed = this.tls.process_new_packets();
            // answers of the protocol itself (a key update, an alert); what does not go out now goes with the next write
            let sent = this.poll_send(cx);
            if let Err(error) = processed {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
            if let Poll::Ready(Err(error)) = sent {
                return Poll::Ready(Err(error));
            }
        }
    }
}

impl<S: Read + Write + Unpin> Write for TlsStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_take(cx, |plain| plain.write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        // head and body in one record
        self.poll_take(cx, |plain| plain.write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.closing, true) {
            self.tls.send_close_notify();
        }
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The core's stream as rustls wants it, for the time of one poll: "not now" leaves the waker with the stream.
struct Bridge<'a, 'b, S> {
    stream: &'a mut S,
    cx: &'a mut Context<'b>,
}

impl<S: Read + Unpin> io::Read for Bridge<'_, '_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        or_would_block(read_some(self.stream, self.cx, buf))
    }
}

impl<S: Write + Unpin> io::Write for Bridge<'_, '_, S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.stream).poll_write(self.cx, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut *self.stream).poll_write_vectored(self.cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        or_would_block(Pin::new(&mut *self.stream).poll_flush(self.cx))
    }
}

fn or_would_block<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn read_some<S: Read + Unpin>(stream: &mut S, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut room = ReadBuf::new(buf);
    ready!(Pin::new(stream).poll_read(cx, room.unfilled()))?;
    Poll::Ready(Ok(room.filled().len()))
}

fn write_all<S: Write + Unpin>(stream: &mut S, cx: &mut Context<'_>, rest: &mut &[u8]) -> Poll<io::Result<()>> {
    while !rest.is_empty() {
        match ready!(Pin::new(&mut *stream).poll_write(cx, rest))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => *rest = &rest[n..],
        }
    }
    Poll::Ready(Ok(()))
}

/// A TLS record begins with a byte below 32, an HTTP request with its method in capitals.
fn is_plain_http(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 8] = [b"GET ", b"PUT ", b"POST ", b"LIST ", b"HEAD ", b"PATCH ", b"DELETE ", b"OPTIONS "];
    METHODS.iter().any(|method| bytes.starts_with(method))
}
