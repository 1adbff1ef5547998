//! The bare responder: answers every request at once with the same few bytes, on tokio. What the generator reaches
//! against it is the generator's own limit (and this responder's, on a machine they share), whatever the server.

use bytes::Bytes;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// About what `sys/health` of a server says.
const BODY: &str = "{\"initialized\":true,\"sealed\":false,\"standby\":false,\"performance_standby\":false,\
    \"replication_performance_mode\":\"disabled\",\"replication_dr_mode\":\"disabled\",\"server_time_utc\":1700000000,\
    \"version\":\"0\",\"cluster_name\":\"bare\",\"cluster_id\":\"00000000-0000-0000-0000-000000000000\"}\n";

/// A running responder; it ends when this is dropped.
pub struct Responder {
    /// Where it listens.
    pub addr: SocketAddr,
    stop: Arc<AtomicBool>,
    cpu_ns: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Responder {
    /// Starts it on a thread of its own, with or without TLS.
    pub fn start(secure: bool) -> Result<Responder, String> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(|e| e.to_string())?;
        listener.set_nonblocking(true).map_err(|e| e.to_string())?;
        let addr = listener.local_addr().map_err(|e| e.to_string())?;
        let tls = if secure { Some(tokio_rustls::TlsAcceptor::from(Arc::new(server_config()?))) } else { None };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let (stop, cpu_ns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, cpu) = (stop.clone(), cpu_ns.clone());
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                tokio::task::spawn(accept(listener, tls));
                while !stopped.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let used = crate::process::own_thread().as_nanos();
                    cpu.store(u64::try_from(used).unwrap_or(u64::MAX), Ordering::Relaxed);
                }
            });
        });
        Ok(Responder { addr, stop, cpu_ns, thread: Some(thread) })
    }

    /// CPU time it has used.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Ordering::Relaxed))
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // a panic in it has been printed by itself
            let _ = thread.join();
        }
    }
}

fn server_config() -> Result<rustls::ServerConfig, String> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(|e| e.to_string())?;
    let cert: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .map_err(|e| e.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn accept(listener: tokio::net::TcpListener, tls: Option<tokio_rustls::TlsAcceptor>) {
    while let Ok((socket, _)) = listener.accept().await {
        // without it the answers would only be slower
        let _ = socket.set_nodelay(true);
        let tls = tls.clone();
        tokio::task::spawn(async move {
            // a client that goes away ends its connection; there is nobody to tell
            let _ = match tls {
                None => serve(socket).await,
                Some(tls) => match tls.accept(socket).await {
                    Ok(stream) => serve(stream).await,
                    Err(e) => Err(e),
                },
            };
        });
    }
}

/// Speaks HTTP/2 with whoever begins with its preface, else HTTP/1.1.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(mut stream: S) -> io::Result<()> {
    let mut buf = Vec::with_capacity(8192);
    while buf.len() < 3 {
        if stream.read_buf(&mut buf).await? == 0 {
            return Ok(());
        }
    }
    if buf.starts_with(b"PRI") {
        return serve_h2(Rewound { begun: buf, at: 0, stream }).await;
    }
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
    loop {
        // the load has no bodies here, so an empty line ends a request
        while let Some(end) = buf.windows(4).position(|w| w == b"\r\n\r\n") {
            buf.drain(..end + 4);
            stream.write_all(answer.as_bytes()).await?;
            stream.flush().await?;
        }
        if stream.read_buf(&mut buf).await? == 0 {
            return Ok(());
        }
    }
}

async fn serve_h2<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> io::Result<()> {
    let mut connection = h2::server::handshake(stream).await.map_err(io::Error::other)?;
    while let Some(request) = connection.accept().await {
        let (_, mut respond) = request.map_err(io::Error::other)?;
        let head = http::Response::builder().header("content-type", "application/json").body(());
        let head = head.map_err(io::Error::other)?;
        let mut body = respond.send_response(head, false).map_err(io::Error::other)?;
        body.send_data(Bytes::from_static(BODY.as_bytes()), true).map_err(io::Error::other)?;
    }
    Ok(())
}

/// A stream whose first bytes were looked at already.
struct Rewound<S> {
    begun: Vec<u8>,
    at: usize,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        let this = &mut *self;
        let left = &this.begun[this.at..];
        if left.is_empty() {
            return std::pin::Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let n = left.len().min(buf.remaining());
        buf.put_slice(&left[..n]);
        this.at += n;
        std::task::Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
