//! From a listener's settings to a TLS configuration.
//!
//! Clients are asked for a certificate without having to show one, as the cert auth method needs it: whoever shows one
//! proves that the key is his, and nothing more. Who it is, the auth method decides. Only where certificates are
//! required are they verified here, against the configured CA.

use crate::config::{ClientCerts, ListenerTls, TlsVersion};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a listener's TLS settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// A file: unreadable, or not what it should hold.
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A cipher suite that does not exist, or that is not offered because it is broken.
    CipherSuite(String),
    /// No cipher suite is left for the versions allowed.
    NothingToOffer,
    /// Certificates are required of clients, but there is no CA that they could come from.
    NoClientCa,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::File { path, reason } => write!(f, "{}: {reason}", path.display()),
            TlsError::CipherSuite(name) => {
                write!(f, "tls_cipher_suites: {name:?} is not offered; use ECDHE suites with AES-GCM or ChaCha20")
            }
            TlsError::NothingToOffer => f.write_str("tls_cipher_suites leaves nothing for the allowed TLS versions"),
            TlsError::NoClientCa => f.write_str("tls_require_and_verify_client_cert needs tls_client_ca_file"),
        }
    }
}

impl std::error::Error for TlsError {}

/// Builds the configuration, reading the files.
pub(super) fn server_config(settings: &ListenerTls) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(provider(settings)?);
    let versions: Vec<_> =
        [(TlsVersion::Tls12, &rustls::version::TLS12), (TlsVersion::Tls13, &rustls::version::TLS13)]
            .into_iter()
            .filter(|(version, _)| (settings.min_version..=settings.max_version).contains(version))
            .map(|(_, version)| version)
            .collect();
    let chain = certificates(&settings.cert_file)?;
    let key = key(&settings.key_file)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|_| TlsError::NothingToOffer)?;
    let builder = match settings.client_certs {
        ClientCerts::Disabled => builder.with_no_client_auth(),
        ClientCerts::Requested => builder.with_client_cert_verifier(Arc::new(Possession {
            algorithms: provider.signature_verification_algorithms,
        })),
        ClientCerts::Required => builder.with_client_cert_verifier(verifier(settings, &provider)?),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| TlsError::File {
        path: settings.key_file.clone(),
        reason: format!("of no use with {}: {error}", settings.cert_file.display()),
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    match (settings.client_certs, aws_lc_rs::Ticketer::new()) {
        // a resumed session does not verify the certificate again: one that is required is shown each time
        (ClientCerts::Required, _) | (_, Err(_)) => {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        // stateless, so that a client may come back to any core
        (_, Ok(ticketer)) => config.ticketer = ticketer,
    }
    Ok(Arc::new(config))
}

/// The provider, reduced to the suites that were named for TLS 1.2. Those of 1.3 are not configurable, as in Vault.
fn provider(settings: &ListenerTls) -> Result<CryptoProvider, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    if settings.cipher_suites.is_empty() {
        return Ok(provider);
    }
    let name = |suite: &rustls::SupportedCipherSuite| suite.suite().as_str().unwrap_or_default().to_owned();
    let mut wanted = Vec::new();
    for text in &settings.cipher_suites {
        let text = text.trim().to_ascii_uppercase();
        // both spellings are in use; 1.3's are named without their key exchange in every one of them
        let full = if text.ends_with("_POLY1305") { format!("{text}_SHA256") } else { text.clone() };
        let spelt = |name: String| name.replace("TLS13_", "TLS_") == full;
        if !provider.cipher_suites.iter().any(|suite| spelt(name(suite))) {
            return Err(TlsError::CipherSuite(text));
        }
        wanted.push(full);
    }
    provider.cipher_suites.retain(|suite| suite.tls13().is_some() || wanted.contains(&name(suite)));
    Ok(provider)
}

fn verifier(settings: &ListenerTls, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let path = settings.client_ca_file.as_ref().ok_or(TlsError::NoClientCa)?;
    let unusable = |reason: String| TlsError::File { path: path.clone(), reason };
    let mut roots = RootCertStore::empty();
    for root in certificates(path)? {
        roots.add(root).map_err(|error| unusable(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| unusable(error.to_string()))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::File { path: path.to_owned(), reason: error.to_string() })
}

/// Certificates of a PEM file, at least one, in their order.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let reason = match found {
        Ok(found) if found.is_empty() => "no PEM certificate in it".to_owned(),
        Ok(found) => return Ok(found),
        Err(error) => error.to_string(),
    };
    Err(TlsError::File { path: path.to_owned(), reason })
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let reason = match PrivateKeyDer::from_pem_slice(&read(path)?) {
        Ok(key) => return Ok(key),
        Err(pem::Error::NoItemsFound) => "no PEM private key in it (encrypted keys are not supported)".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(TlsError::File { path: path.to_owned(), reason })
}

/// Asks for a certificate and has its holder prove the key, without a word on who that is.
#[derive(Debug)]
struct Possession {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Possession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // from any issuer: the auth method's roles know theirs
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
