//! Questions that prove who controls a name: TXT records, and the certificate that a host shows under a protocol.
//! Carried out on a thread that may block; what the answers mean is the asker's to judge.

use super::names;
use ringfence_node::{Probe, ProbeKind, Reach, SideResult};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time that any question may ask for.
const MAX_TIMEOUT_MS: u32 = 120_000;
/// Where TLS is expected (RFC 8737 3).
const PORT: u16 = 443;
/// Longest time for one address of several.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// Asks and waits.
pub fn carry_out(probe: &Probe) -> SideResult {
    let patience = Duration::from_millis(probe.timeout_ms.clamp(1, MAX_TIMEOUT_MS).into());
    let answer = match &probe.what {
        ProbeKind::Texts { name } => {
            names::texts(name, &probe.reach, patience).map(|texts| SideResult::Json(texts.into()))
        }
        ProbeKind::Leaf { host, server_name, protocol } => {
            leaf(host, server_name, protocol, &probe.reach, patience).map(|der| SideResult::Bytes(Arc::new(der)))
        }
    };
    answer.unwrap_or_else(SideResult::Failed)
}

fn leaf(host: &str, name: &str, protocol: &str, reach: &Reach, patience: Duration) -> Result<Vec<u8>, String> {
    let until = Instant::now() + patience;
    let addresses = names::addresses(host, PORT, reach, patience)?;
    let mut why = String::new();
    for (n, address) in addresses.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        // an address that does not answer leaves time for the next
        let share = if n + 1 < addresses.len() { left.min(ADDRESS_TIMEOUT) } else { left };
        match shown_by(*address, name, protocol, Instant::now() + share) {
            Ok(der) => return Ok(der),
            Err(e) => why = format!("{address}: {e}"),
        }
    }
    Err(if why.is_empty() { format!("{host}: no answer in time") } else { why })
}

fn shown_by(address: SocketAddr, name: &str, protocol: &str, until: Instant) -> Result<Vec<u8>, String> {
    let left = || match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err("no answer in time".to_owned()),
        left => Ok(left),
    };
    let text = |e: io::Error| e.to_string();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Whoever(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let server_name = ServerName::try_from(name.to_owned()).map_err(|e| e.to_string())?;
    let mut tls = ClientConnection::new(Arc::new(config), server_name).map_err(|e| e.to_string())?;
    let mut stream = TcpStream::connect_timeout(&address, left()?).map_err(text)?;
    while tls.is_handshaking() {
        // each read and write has what is left of the time, so a peer that trickles bytes gains nothing
        stream.set_read_timeout(Some(left()?)).map_err(text)?;
        stream.set_write_timeout(Some(left()?)).map_err(text)?;
        if tls.wants_write() {
            tls.write_tls(&mut stream).map_err(text)?;
        } else if tls.read_tls(&mut stream).map_err(text)? == 0 {
            return Err("the connection was closed in the handshake".into());
        } else {
            tls.process_new_packets().map_err(|e| e.to_string())?;
        }
    }
    if tls.alpn_protocol() != Some(protocol.as_bytes()) {
        return Err(format!("the peer does not speak {protocol}"));
    }
    let shown = tls.peer_certificates().and_then(|c| c.first());
    shown.map(|c| c.to_vec()).ok_or_else(|| "the peer shows no certificate".into())
}

/// Takes every certificate, and the handshake's signature unseen: the library that judges it refuses certificates with the
/// critical extension that these have (RFC 8737 3). Nothing rests on it: that the host at this address shows a
/// certificate with the account's mark is the proof, whoever has its key.
#[derive(Debug)]
struct Whoever(Arc<CryptoProvider>);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
