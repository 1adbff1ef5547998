//! A non-blocking stream of bytes, plain or TLS. Whoever reads goes on until it says `WouldBlock`, for readiness is told
//! once an edge.

use crate::target::Target;
use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A stream to the server.
pub enum Transport {
    /// TCP.
    Plain(mio::net::TcpStream),
    /// TLS over TCP.
    Tls(Box<rustls::ClientConnection>, mio::net::TcpStream),
}

impl Transport {
    /// Begins to connect; whether that works is told by the first write.
    pub fn connect(target: &Target) -> io::Result<Transport> {
        let socket = mio::net::TcpStream::connect(target.addr)?;
        // a socket that is not connected yet takes the option all the same
        socket.set_nodelay(true)?;
        Ok(match &target.tls {
            None => Transport::Plain(socket),
            Some((name, config)) => {
                let tls = rustls::ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
                Transport::Tls(Box::new(tls), socket)
            }
        })
    }

    /// What readiness is watched of.
    pub fn socket(&mut self) -> &mut mio::net::TcpStream {
        match self {
            Transport::Plain(s) | Transport::Tls(_, s) => s,
        }
    }

    /// Whether a read that did not fill its buffer leaves nothing behind.
    pub fn short_read_is_all(&self) -> bool {
        matches!(self, Transport::Plain(_))
    }
}

fn push(tls: &mut rustls::ClientConnection, socket: &mut mio::net::TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotConnected => return Err(ErrorKind::WouldBlock.into()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

impl Read for Transport {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (tls, socket) = match self {
            Transport::Plain(s) => return not_yet(s.read(buf)),
            Transport::Tls(tls, socket) => (tls, socket),
        };
        loop {
            match tls.reader().read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            if not_yet(tls.read_tls(socket))? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(io::Error::other)?;
            match push(tls, socket) {
                Err(e) if e.kind() != ErrorKind::WouldBlock => return Err(e),
                _ => {}
            }
        }
    }
}

impl Write for Transport {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(s) => not_yet(s.write(buf)),
            Transport::Tls(tls, socket) => {
                let taken = tls.writer().write(buf)?;
                match push(tls, socket) {
                    Err(e) if e.kind() != ErrorKind::WouldBlock => Err(e),
                    _ if taken == 0 && !buf.is_empty() => Err(ErrorKind::WouldBlock.into()),
                    _ => Ok(taken),
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Transport::Plain(_) => Ok(()),
            Transport::Tls(tls, socket) => push(tls, socket),
        }
    }
}

/// A socket whose connection is still being made says so in its own way.
fn not_yet<T>(result: io::Result<T>) -> io::Result<T> {
    result.map_err(|e| if e.kind() == ErrorKind::NotConnected { ErrorKind::WouldBlock.into() } else { e })
}

fn polled<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Poll::Pending,
        other => Poll::Ready(other),
    }
}

/// For `h2`, which is polled after every event of the socket and so needs no waker.
impl tokio::io::AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = self.read(buf.initialize_unfilled());
        polled(result.map(|n| buf.advance(n)))
    }
}

impl tokio::io::AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        polled(self.write(buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        polled(self.flush())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.socket().shutdown(std::net::Shutdown::Write);
        polled(result)
    }
}
