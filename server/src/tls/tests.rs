//! The listener's side of TLS against rustls clients on threads of their own.

use super::*;
use crate::config::{ClientCerts, TlsVersion};
use crate::rt::{self, DriverWish, ExecutorWish, Options, RootPanic, Stream, TcpListener, Timer};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Longer than anything here may take.
const HANG: Duration = Duration::from_secs(20);

/// A CA with what it has issued, in files.
struct Pki {
    folder: PathBuf,
    ca: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

struct Issued {
    cert: CertificateDer<'static>,
    key: rcgen::KeyPair,
}

impl Pki {
    fn new() -> Pki {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringfence-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let pki = Pki { folder, ca };
        std::fs::write(pki.folder.join("ca.pem"), pki.ca.pem()).unwrap();
        pki.renew();
        pki
    }

    fn issue(&self, name: &str) -> Issued {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.ca).unwrap();
        Issued { cert: cert.der().clone(), key }
    }

    /// A new certificate for the server, in the old one's place.
    fn renew(&self) -> CertificateDer<'static> {
        let issued = self.issue("vault.test");
        let pem = |der: &[u8]| {
            use base64::Engine;
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        std::fs::write(self.folder.join("cert.pem"), pem(&issued.cert)).unwrap();
        std::fs::write(self.folder.join("key.pem"), issued.key.serialize_pem()).unwrap();
        issued.cert
    }

    fn settings(&self) -> ListenerTls {
        ListenerTls {
            cert_file: self.folder.join("cert.pem"),
            key_file: self.folder.join("key.pem"),
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
            client_ca_file: None,
            client_certs: ClientCerts::Requested,
        }
    }

    fn client(&self, identity: Option<&Issued>, alpn: &[&str]) -> ClientConfig {
        self.client_of(identity, alpn, rustls::ALL_VERSIONS)
    }

    fn client_of(
        &self,
        identity: Option<&Issued>,
        alpn: &[&str],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![issued.cert.clone()], key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A server that answers each request with its body; what it saw of clients is in `seen`.
#[derive(Default)]
struct Seen {
    certificates: Vec<Vec<Vec<u8>>>,
    h2: Vec<bool>,
    refused: Vec<String>,
}

fn serve(cell: Arc<TlsCell>) -> (SocketAddr, Rc<RefCell<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let addr = listener.local_addr();
    let seen = Rc::new(RefCell::new(Seen::default()));
    let told = seen.clone();
    rt::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            rt::spawn_local(echo(cell.clone(), stream, told.clone()));
        }
    });
    (addr, seen)
}

async fn echo(cell: Arc<TlsCell>, stream: Stream, seen: Rc<RefCell<Seen>>) {
    let tls = match cell.accept(stream).await {
        Ok(tls) => tls,
        Err(error) => return seen.borrow_mut().refused.push(error.to_string()),
    };
    seen.borrow_mut().certificates.push(tls.peer_certificates());
    seen.borrow_mut().h2.push(tls.is_h2());
    let service = service_fn(|request: Request<Incoming>| async {
        let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        Ok::<_, Infallible>(Response::new(Full::new(body)))
    });
    let _ = hyper::server::conn::http1::Builder::new().timer(Timer).serve_connection(tls, service).await;
}

fn on_a_core<F: Future<Output = ()> + 'static>(test: impl Fn() -> F + Send + Copy + 'static) {
    let base = Options { root_panic: RootPanic::Join, ..Options::default() };
    let mut kinds = vec![Options { driver: DriverWish::Epoll, ..base.clone() }];
    if rt::probe(DriverWish::IoUring).is_ok() {
        let ring = Options { driver: DriverWish::IoUring, ..base };
        kinds.push(Options { executor: ExecutorWish::Glommio, ..ring.clone() });
        kinds.push(ring);
    }
    for options in kinds {
        let root = move || async move { rt::timeout(HANG, test()).await.expect("hangs") };
        rt::spawn_core(options, "tls-test", root).unwrap().join().unwrap();
    }
}

async fn on_thread<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    rt::Pool::new("tls-test-client", 1).run(call).await
}

type Client = StreamOwned<ClientConnection, TcpStream>;

fn connect(addr: SocketAddr, config: &ClientConfig) -> Client {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    let name = ServerName::try_from("vault.test").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config.clone()), name).unwrap(), stream)
}

/// One request with a body, and its echo.
fn ask(client: &mut Client, body_bytes: usize) -> io::Result<()> {
    let body: Vec<u8> = (0..body_bytes).map(|i| (i * 31) as u8).collect();
    write!(client, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len())?;
    client.write_all(&body)?;
    client.flush()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    let mut back = vec![0; body.len()];
    client.read_exact(&mut back)?;
    assert_eq!(back, body);
    Ok(())
}

/// Whether a client is served.
async fn is_served(addr: SocketAddr, config: ClientConfig) -> bool {
    on_thread(move || ask(&mut connect(addr, &config), 10).is_ok()).await
}

#[test]
fn http_echoes_small_and_large_bodies_over_every_version() {
    on_a_core(|| async {
        let pki = Pki::new();
        let (addr, _) = serve(Arc::new(TlsCell::new(pki.settings()).unwrap()));
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let config = pki.client_of(None, &["http/1.1"], &[version]);
            on_thread(move || {
                let mut client = connect(addr, &config);
                for bytes in [0, 1, 1000, 16_384, 16_385, 300_000, 3] {
                    ask(&mut client, bytes).unwrap();
                }
                assert_eq!(client.conn.protocol_version(), Some(version.version));
                // the server ends with close_notify, so the end is no truncation
                write!(client, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
                let mut rest = Vec::new();
                client.read_to_end(&mut rest).unwrap();
                assert!(rest.starts_with(b"HTTP/1.1 200"));
            })
            .await;
        }
    });
}

#[test]
fn a_large_answer_to_a_client_that_reads_late_arrives() {
    on_a_core(|| async {
        let pki = Pki::new();
        let (addr, _) = serve(Arc::new(TlsCell::new(pki.settings()).unwrap()));
        let config = pki.client(None, &[]);
        on_thread(move || ask(&mut connect(addr, &config), 6_000_000).unwrap()).await;
    });
}

#[test]
fn client_certificates_are_asked_for_but_not_required() {
    on_a_core(|| async {
        let pki = Pki::new();
        let (addr, seen) = serve(Arc::new(TlsCell::new(pki.settings()).unwrap()));
        // of an issuer that the server has never heard of
        let stranger = Pki::new().issue("client.test");
        assert!(is_served(addr, pki.client(None, &[])).await);
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            assert!(is_served(addr, pki.client_of(Some(&stranger), &[], &[version])).await);
        }
        let shown = vec![stranger.cert.to_vec()];
        assert_eq!(seen.borrow().certificates, [vec![], shown.clone(), shown]);
    });
}

/// A certificate without its key is nobody's: the proof is verified even where the certificate is not.
#[test]
fn a_certificate_that_the_client_cannot_sign_for_is_refused() {
    #[derive(Debug)]
    struct Stolen(Arc<rustls::sign::CertifiedKey>);
    impl rustls::client::ResolvesClientCert for Stolen {
        fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(self.0.clone())
        }
        fn has_certs(&self) -> bool {
            true
        }
    }
    on_a_core(|| async {
        let pki = Pki::new();
        let (addr, seen) = serve(Arc::new(TlsCell::new(pki.settings()).unwrap()));
        let (victim, thief) = (pki.issue("victim"), pki.issue("thief"));
        let key = PrivateKeyDer::try_from(thief.key.serialize_der()).unwrap();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let stolen = rustls::sign::CertifiedKey::new(vec![victim.cert], key);
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let mut config = pki.client_of(None, &[], &[version]);
            config.client_auth_cert_resolver = Arc::new(Stolen(Arc::new(stolen.clone())));
            assert!(!is_served(addr, config).await);
        }
        assert!(seen.borrow().certificates.is_empty());
    });
}

#[test]
fn required_certificates_are_verified_and_disabled_ones_not_asked_for() {
    on_a_core(|| async {
        let pki = Pki::new();
        let own = pki.issue("client.test");
        let strangers = Pki::new();
        let stranger = strangers.issue("client.test");
        let required = ListenerTls {
            client_certs: ClientCerts::Required,
            client_ca_file: Some(pki.folder.join("ca.pem")),
            ..pki.settings()
        };
        let (addr, seen) = serve(Arc::new(TlsCell::new(required).unwrap()));
        assert!(!is_served(addr, pki.client(None, &[])).await);
        assert!(!is_served(addr, pki.client(Some(&stranger), &[])).await);
        let config = pki.client(Some(&own), &[]);
        assert!(is_served(addr, config.clone()).await);
        assert!(is_served(addr, config).await, "and again, shown again");
        assert_eq!(seen.borrow().certificates, [vec![own.cert.to_vec()], vec![own.cert.to_vec()]]);
        assert_eq!(seen.borrow().refused.len(), 2);

        let disabled = ListenerTls { client_certs: ClientCerts::Disabled, ..pki.settings() };
        let (addr, seen) = serve(Arc::new(TlsCell::new(disabled).unwrap()));
        assert!(is_served(addr, pki.client(Some(&own), &[])).await);
        assert_eq!(seen.borrow().certificates, [Vec::<Vec<u8>>::new()]);
    });
}

#[test]
fn http2_is_offered_first() {
    on_a_core(|| async {
        let pki = Pki::new();
        let (addr, seen) = serve(Arc::new(TlsCell::new(pki.settings()).unwrap()));
        let config = pki.client(None, &["http/1.1", "h2"]);
        on_thread(move || {
            let mut client = connect(addr, &config);
            while client.conn.is_handshaking() {
                client.conn.complete_io(&mut client.sock).unwrap();
            }
            assert_eq!(client.conn.alpn_protocol(), Some(&b"h2"[..]));
        })
        .await;
        assert!(is_served(addr, pki.client(None, &[])).await);
        assert_eq!(seen.borrow().h2, [true, false]);
    });
}

#[test]
fn reloading_takes_the_new_certificate_and_keeps_the_old_one_on_error() {
    on_a_core(|| async {
        let pki = Pki::new();
        let first = pki.renew();
        let cell = Arc::new(TlsCell::new(pki.settings()).unwrap());
        let (addr, _) = serve(cell.clone());
        let shown = |config: ClientConfig| {
            on_thread(move || {
                let mut client = connect(addr, &config);
                ask(&mut client, 1).unwrap();
                let shown = client.conn.peer_certificates().unwrap()[0].clone().into_owned();
                (shown, client)
            })
        };
        let (cert, old_client) = shown(pki.client(None, &[])).await;
        assert_eq!(cert, first);
        let second = pki.renew();
        cell.reload().unwrap();
        assert_eq!(shown(pki.client(None, &[])).await.0, second);
        // a connection lives on with what it began with
        on_thread(move || {
            let mut client = old_client;
            ask(&mut client, 100).unwrap();
        })
        .await;

        let key_of_another = pki.issue("vault.test").key.serialize_pem();
        for (file, content, told) in [
            ("key.pem", key_of_another.as_str(), "of no use with"),
            ("key.pem", "no key", "no PEM private key"),
            ("cert.pem", "", "no PEM certificate"),
        ] {
            std::fs::write(pki.folder.join(file), content).unwrap();
            let refused = cell.reload().unwrap_err().to_string();
            assert!(refused.contains(told) && refused.contains(file), "{refused}");
            assert_eq!(shown(pki.client(None, &[])).await.0, second);
        }
        std::fs::remove_file(pki.folder.join("cert.pem")).unwrap();
        assert!(cell.reload().is_err());
        assert_eq!(shown(pki.client(None, &[])).await.0, second);
    });
}

#[test]
fn garbage_and_half_a_handshake_hurt_nobody_else() {
    on_a_core(|| async {
        let pki = Pki::new();
        let (addr, seen) = serve(Arc::new(TlsCell::new(pki.settings()).unwrap()));
        // left hanging in the middle of a record
        let mut silent = TcpStream::connect(addr).unwrap();
        silent.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
        let garbage: [Vec<u8>; 4] = [
            vec![0xff; 5000],
            vec![22, 3, 1, 0xff, 0xff, 1, 2, 3],
            [&[22, 3, 1, 0, 4, 1, 0, 0, 0][..], &[0; 4000]].concat(),
            vec![21, 3, 3, 0, 2, 2, 40],
        ];
        let count = garbage.len();
        on_thread(move || {
            for bytes in garbage {
                let mut stream = TcpStream::connect(addr).unwrap();
                stream.set_read_timeout(Some(HANG)).unwrap();
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                // the connection ends, with an alert or without
                let _ = stream.read_to_end(&mut Vec::new());
            }
        })
        .await;
        assert!(is_served(addr, pki.client(None, &[])).await);
        assert_eq!(seen.borrow().refused.len(), count);
        drop(silent);
    });
}

#[test]
fn plain_http_is_told_what_it_is_talking_to() {
    on_a_core(|| async {
        let pki = Pki::new();
        let (addr, seen) = serve(Arc::new(TlsCell::new(pki.settings()).unwrap()));
        let answer = on_thread(move || {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_read_timeout(Some(HANG)).unwrap();
            stream.write_all(b"GET /v1/sys/health HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
        .await;
        assert!(answer.starts_with("HTTP/1.0 400 "), "{answer}");
        assert!(answer.ends_with("Client sent an HTTP request to an HTTPS server.\n"), "{answer}");
        assert_eq!(seen.borrow().refused, ["TLS handshake: the client sent HTTP"]);
    });
}

/// A connection that is cut is not one that has ended: what came so far must not pass for the whole.
#[test]
fn a_cut_connection_is_an_error_and_a_closed_one_is_not() {
    on_a_core(|| async {
        let pki = Pki::new();
        let cell = Arc::new(TlsCell::new(pki.settings()).unwrap());
        for closes in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
            let addr = listener.local_addr();
            let config = pki.client(None, &[]);
            let client = rt::spawn_local(on_thread(move || {
                let mut client = connect(addr, &config);
                client.write_all(b"half").unwrap();
                if closes {
                    client.conn.send_close_notify();
                }
                client.flush().unwrap();
                client.sock.shutdown(std::net::Shutdown::Write).unwrap();
                // dropped later: closing with unread bytes (tickets) would reset the connection
                client
            }));
            let (stream, _) = listener.accept().await.unwrap();
            let mut tls = cell.accept(stream).await.unwrap();
            let _client = client.await.unwrap();
            let mut got = Vec::new();
            let end = std::future::poll_fn(|cx| {
                loop {
                    let mut bytes = [0; 3];
                    let mut room = hyper::rt::ReadBuf::new(&mut bytes);
                    match std::pin::Pin::new(&mut tls).poll_read(cx, room.unfilled()) {
                        std::task::Poll::Ready(Ok(())) if room.filled().is_empty() => break Ok(()).into(),
                        std::task::Poll::Ready(Ok(())) => got.extend_from_slice(room.filled()),
                        std::task::Poll::Ready(Err(error)) => break Err(error.kind()).into(),
                        std::task::Poll::Pending => break std::task::Poll::Pending,
                    }
                }
            })
            .await;
            assert_eq!(got, b"half");
            assert_eq!(end, if closes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof) });
        }
    });
}

#[test]
fn settings_of_no_use_are_refused_by_name() {
    let pki = Pki::new();
    let refused = |settings: ListenerTls| TlsCell::new(settings).unwrap_err();
    let missing = ListenerTls { cert_file: "/no/such/file".into(), ..pki.settings() };
    assert!(refused(missing).to_string().starts_with("/no/such/file: "));
    let required = ListenerTls { client_certs: ClientCerts::Required, ..pki.settings() };
    assert_eq!(refused(required), TlsError::NoClientCa);
    let suites = |names: &[&str]| ListenerTls {
        cipher_suites: names.iter().map(|name| (*name).to_owned()).collect(),
        ..pki.settings()
    };
    let weak = "TLS_RSA_WITH_AES_128_CBC_SHA";
    assert_eq!(refused(suites(&[weak])), TlsError::CipherSuite(weak.to_owned()));
    let names = ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "tls_ecdhe_rsa_with_aes_256_gcm_sha384"];
    let config = TlsCell::new(suites(&names)).unwrap().current();
    let mut left: Vec<_> = config
        .crypto_provider()
        .cipher_suites
        .iter()
        .filter(|suite| suite.tls13().is_none())
        .map(|suite| suite.suite().as_str().unwrap())
        .collect();
    left.sort_unstable();
    assert_eq!(left, ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]);
}

#[test]
fn only_the_allowed_versions_are_spoken() {
    on_a_core(|| async {
        let pki = Pki::new();
        let (old, new) = (&rustls::version::TLS12, &rustls::version::TLS13);
        let only = |version| ListenerTls { min_version: version, max_version: version, ..pki.settings() };
        for (settings, spoken, other) in [(only(TlsVersion::Tls12), old, new), (only(TlsVersion::Tls13), new, old)] {
            let (addr, _) = serve(Arc::new(TlsCell::new(settings).unwrap()));
            assert!(is_served(addr, pki.client_of(None, &[], &[spoken])).await);
            assert!(!is_served(addr, pki.client_of(None, &[], &[other])).await);
        }
    });
}
