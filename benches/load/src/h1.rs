//! HTTP/1.1 over one connection: one request in flight, heads read by `httparse`, bodies by length or in chunks.

use crate::call::Call;
use crate::transport::Transport;
use std::io::{self, ErrorKind, Read, Write};

/// An answer larger than this is taken for a broken server.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A whole answer at the beginning of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed<'b> {
    /// The status.
    pub status: u16,
    /// The body, chunks joined.
    pub body: std::borrow::Cow<'b, [u8]>,
    /// Whether the server closes the connection now.
    pub closes: bool,
}

fn bad(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_string())
}

/// Reads an answer; nothing while it is not whole.
pub fn parse(buf: &[u8]) -> io::Result<Option<Parsed<'_>>> {
    if buf.len() > ANSWER_BYTES_MAX {
        return Err(bad("the answer has no end"));
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(at) = head.parse(buf).map_err(bad)? else { return Ok(None) };
    let status = head.code.unwrap_or(0);
    let (mut length, mut chunked, mut closes) = (None, false, false);
    for h in head.headers.iter() {
        if h.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(h.value).map_err(bad)?;
            length = Some(text.trim().parse::<usize>().map_err(bad)?);
        } else if h.name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = h.value.eq_ignore_ascii_case(b"chunked");
        } else if h.name.eq_ignore_ascii_case("connection") {
            closes = h.value.eq_ignore_ascii_case(b"close");
        }
    }
    let rest = &buf[at..];
    if matches!(status, 204 | 304) {
        return Ok(Some(Parsed { status, body: rest[..0].into(), closes }));
    }
    if chunked {
        return Ok(joined(rest)?.map(|body| Parsed { status, body: body.into(), closes }));
    }
    let length = length.ok_or_else(|| bad("an answer with neither a length nor chunks"))?;
    if length > ANSWER_BYTES_MAX {
        return Err(bad("the answer is too large"));
    }
    Ok(rest.get(..length).map(|body| Parsed { status, body: body.into(), closes }))
}

/// The chunks of a body; nothing while the last one is missing.
fn joined(mut rest: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let parsed = httparse::parse_chunk_size(rest).map_err(|_| bad("a chunk without a size"))?;
        let httparse::Status::Complete((at, size)) = parsed else { return Ok(None) };
        let size = usize::try_from(size).ok().filter(|s| *s <= ANSWER_BYTES_MAX);
        let size = size.ok_or_else(|| bad("the chunk is too large"))?;
        if size == 0 {
            // trailers are not used by this API; the empty line ends the body
            return Ok(rest[at..].starts_with(b"\r\n").then_some(body));
        }
        let Some(chunk) = rest.get(at..at + size + 2) else { return Ok(None) };
        body.extend_from_slice(&chunk[..size]);
        rest = &rest[at + size + 2..];
    }
}

/// A connection, and what is in flight on it.
pub struct H1<F> {
    transport: Transport,
    authority: String,
    out: Vec<u8>,
    out_at: usize,
    buf: Vec<u8>,
    flight: Option<F>,
}

impl<F> H1<F> {
    /// Over a stream that may still be connecting.
    pub fn new(transport: Transport, authority: String) -> H1<F> {
        H1 { transport, authority, out: Vec::new(), out_at: 0, buf: Vec::with_capacity(8192), flight: None }
    }

    /// What readiness is watched of.
    pub fn socket(&mut self) -> &mut mio::net::TcpStream {
        self.transport.socket()
    }

    /// What has no answer yet.
    pub fn in_flight(&self) -> impl Iterator<Item = &F> {
        self.flight.iter()
    }

    /// Sends a request; none may be in flight.
    pub fn send(&mut self, call: &Call, flight: F) -> io::Result<()> {
        assert!(self.flight.is_none(), "one request at a time");
        self.flight = Some(flight);
        self.out_at = 0;
        self.out.clear();
        call.write_h1(&self.authority, &mut self.out);
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.out_at < self.out.len() {
            match self.transport.write(&self.out[self.out_at..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => self.out_at += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        match self.transport.flush() {
            Err(e) if e.kind() != ErrorKind::WouldBlock => Err(e),
            _ => Ok(()),
        }
    }

    /// The socket is ready: goes on writing, takes what has come, and hands over the answer that is whole.
    pub fn ready(&mut self, done: &mut dyn FnMut(F, u16, &[u8])) -> io::Result<()> {
        self.flush()?;
        loop {
            let at = self.buf.len();
            self.buf.resize(at + 8192, 0);
            let got = self.transport.read(&mut self.buf[at..]);
            self.buf.truncate(at + got.as_ref().map_or(0, |n| *n));
            let last = match got {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => n < 8192 && self.transport.short_read_is_all(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if self.flight.is_none() {
                return Err(bad("an answer that nothing asked for"));
            }
            let Some(parsed) = parse(&self.buf)? else {
                if last {
                    return Ok(());
                }
                continue;
            };
            if let Some(flight) = self.flight.take() {
                done(flight, parsed.status, &parsed.body);
            }
            let closes = parsed.closes;
            self.buf.clear();
            if closes {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            if last {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer is found whole at its last byte and at no earlier one, however it is framed.
    #[test]
    fn answers_in_pieces() {
        for (text, status, body, closes) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", 200, "abc", false),
            ("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", 204, "", true),
            ("HTTP/1.1 400 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 400, "abc", false),
        ] {
            for cut in 0..text.len() {
                assert_eq!(parse(&text.as_bytes()[..cut]).expect("no error"), None, "{cut} of {text}");
            }
            let whole = parse(text.as_bytes()).expect("no error").expect("whole");
            assert_eq!((whole.status, &*whole.body, whole.closes), (status, body.as_bytes(), closes));
        }
    }

    #[test]
    fn broken_answers() {
        for text in ["HTTP/1.1 200 OK\r\n\r\n", "SSH-2.0\r\n", "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
