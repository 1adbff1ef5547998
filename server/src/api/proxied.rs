//! The PROXY protocol, versions 1 and 2: a proxy in front says on each connection whom it speaks for, before the first
//! byte of TLS or HTTP. Whose word counts is the listener's `proxy_protocol_behavior`. Source: HAProxy's PROXY protocol
//! specification; the header itself is read by the `ppp` crate.

use crate::config::listener::{ProxyBehavior, ProxyProtocol};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use ppp::{HeaderResult, PartialResult};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A header of version 2 may carry extensions; more than this is none that a proxy sends.
const MAX_HEADER_BYTES: usize = 4096;
/// How each header begins; a connection that begins otherwise has none.
const SIGNATURES: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];

/// A stream whose first bytes were read already: they are read again.
pub struct Rewound<S> {
    first: Vec<u8>,
    read: usize,
    stream: S,
}

/// Reads the header, if there is one, and says who the client is.
///
/// # Errors
/// The connection is not to be served: its peer may not speak here, or what it sent is no header.
pub async fn accept<S>(rules: &ProxyProtocol, mut stream: S, peer: SocketAddr) -> io::Result<(Rewound<S>, SocketAddr)>
where
    S: Read + Unpin,
{
    let authorized = rules.authorized.iter().any(|range| range.contains(peer.ip()));
    if rules.behavior == ProxyBehavior::DenyUnauthorized && !authorized {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let believed = rules.behavior == ProxyBehavior::UseAlways || authorized;
    let mut first = Vec::new();
    let (end, said) = loop {
        match header(&first)? {
            Some(found) => break found,
            None if first.len() >= MAX_HEADER_BYTES => return Err(io::ErrorKind::InvalidData.into()),
            None => {}
        }
        if more(&mut stream, &mut first).await? == 0 {
            // whoever closes this early has no request either
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let client = said.filter(|_| believed).unwrap_or(peer);
    Ok((Rewound { first, read: end, stream }, client))
}

/// Where the header ends and whom it names; `None` while more bytes must come.
#[allow(clippy::type_complexity)]
fn header(first: &[u8]) -> io::Result<Option<(usize, Option<SocketAddr>)>> {
    let begins = |s: &&[u8]| first.len() < s.len() && s.starts_with(first);
    if !SIGNATURES.iter().any(|s| first.starts_with(s)) {
        return Ok(if SIGNATURES.iter().any(begins) { None } else { Some((0, None)) });
    }
    let parsed = HeaderResult::parse(first);
    if parsed.is_incomplete() {
        return Ok(None);
    }
    let invalid = |e: String| io::Error::new(io::ErrorKind::InvalidData, e);
    match parsed {
        HeaderResult::V1(header) => {
            let header = header.map_err(|e| invalid(e.to_string()))?;
            let said = match header.addresses {
                ppp::v1::Addresses::Unknown => None,
                ppp::v1::Addresses::Tcp4(a) => Some((IpAddr::V4(a.source_address), a.source_port)),
                ppp::v1::Addresses::Tcp6(a) => Some((IpAddr::V6(a.source_address), a.source_port)),
            };
            Ok(Some((header.header.len(), said.map(SocketAddr::from))))
        }
        HeaderResult::V2(header) => {
            let header = header.map_err(|e| invalid(e.to_string()))?;
            let said = match (header.command, header.addresses) {
                // the proxy speaks for itself: a health check
                (ppp::v2::Command::Local, _) => None,
                (_, ppp::v2::Addresses::IPv4(a)) => Some((IpAddr::V4(a.source_address), a.source_port)),
                (_, ppp::v2::Addresses::IPv6(a)) => Some((IpAddr::V6(a.source_address), a.source_port)),
                _ => None,
            };
            Ok(Some((header.len(), said.map(SocketAddr::from))))
        }
    }
}

/// Reads what has come; zero at the end.
async fn more<S: Read + Unpin>(stream: &mut S, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut room = [0; 512];
    let n = poll_fn(|cx| {
        let mut buf = ReadBuf::new(&mut room);
        ready!(Pin::new(&mut *stream).poll_read(cx, buf.unfilled()))?;
        Poll::Ready(Ok::<usize, io::Error>(buf.filled().len()))
    })
    .await?;
    into.extend_from_slice(&room[..n]);
    Ok(n)
}

impl<S: Read + Unpin> Read for Rewound<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = &this.first[this.read..];
        if left.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let n = left.len().min(buf.remaining());
        buf.put_slice(&left[..n]);
        this.read += n;
        if this.read == this.first.len() {
            (this.first, this.read) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Write + Unpin> Write for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found once all has come, and that nothing is decided before it can be.
    fn found(bytes: &[u8]) -> io::Result<(usize, Option<SocketAddr>)> {
        for short in 0..bytes.len() {
            if let Ok(Some((end, said))) = header(&bytes[..short]) {
                return Ok((end, said));
            }
        }
        header(bytes).map(|f| f.expect("all has come"))
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend((addresses.len() as u16).to_be_bytes());
        bytes.extend(addresses);
        bytes
    }

    #[test]
    fn headers_name_the_client() {
        let line = b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 8200\r\n";
        assert_eq!(
            found(line).expect("a header"),
            (line.len(), Some("192.0.2.7:56324".parse().expect("an address")))
        );
        let line = b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n";
        assert_eq!(
            found(line).expect("a header"),
            (line.len(), Some("[2001:db8::7]:1".parse().expect("an address")))
        );
        assert_eq!(found(b"PROXY UNKNOWN\r\n").expect("a header"), (15, None));
        let four = v2(1, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 1, 2, 3, 4]);
        assert_eq!(found(&four).expect("a header"), (28, Some("192.0.2.7:258".parse().expect("an address"))));
        assert_eq!(found(&v2(0, 0, &[])).expect("a header"), (16, None));
        assert_eq!(found(b"GET / HTTP/1.1\r\n").expect("none"), (0, None));
        assert_eq!(found(&[0x16, 3, 1]).expect("none"), (0, None));
    }

    #[test]
    fn cve_2024_6468_what_is_no_header_is_refused() {
        assert!(found(b"PROXY TCP4 nobody 10.0.0.1 1 2\r\n").is_err());
        assert!(found(b"PROXY TCP4 192.0.2.7 10.0.0.1 70000 2\r\n").is_err());
        let mut old = v2(1, 0x11, &[0; 12]);
        old[12] = 0x31;
        assert!(found(&old).is_err());
    }
}
