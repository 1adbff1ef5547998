//! Mutual TLS of the cluster port. Nobody signs for anybody: a certificate is believed if its SHA-256 is what the table
//! of members says. The dialling side knows whom it calls and checks at once; the accepting side takes any certificate
//! whose key is proved, and looks it up when it is told who calls, so that it can say why it refuses.

use super::identity::{Identity, Shown, pin_of};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig};
use rustls::{PeerIncompatible, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// What is spoken inside, and its version.
pub const ALPN: &[u8] = b"ringfence-peer/1";

/// For accepted connections.
///
/// # Errors
/// The identity is of no use.
pub fn server(identity: &Identity) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Proved { algorithms: algorithms(&provider) });
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Asked::of(identity, &provider)?));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // a connection lives long; nothing is resumed
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// How a connection names the certificate it knows: a node that was away may know an old one only.
///
/// # Errors
/// Never, for a pin.
pub fn name_of(pin: Option<&[u8; 32]>) -> Result<ServerName<'static>, String> {
    let name = pin.map_or("ringfence-node".to_owned(), |pin| format!("{}.ringfence-node", label(pin)));
    ServerName::try_from(name).map_err(|e| e.to_string())
}

fn label(pin: &[u8; 32]) -> String {
    format!("p{}", hex::encode(&pin[..16]))
}

/// The certificate that is asked for by name, or else the one in use.
#[derive(Debug)]
struct Asked {
    in_use: Arc<CertifiedKey>,
    all: Vec<(String, Arc<CertifiedKey>)>,
}

impl Asked {
    fn of(identity: &Identity, provider: &CryptoProvider) -> Result<Asked, Error> {
        let certified =
            |s: &Shown| CertifiedKey::from_der(vec![s.certificate.clone()], s.key(), provider).map(Arc::new);
        let all = identity.all().iter().map(|s| Ok((label(&s.pin), certified(s)?))).collect::<Result<_, Error>>()?;
        Ok(Asked { in_use: certified(identity.in_use())?, all })
    }
}

impl ResolvesServerCert for Asked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().and_then(|name| name.split('.').next());
        let found = self.all.iter().find(|(label, _)| asked == Some(label.as_str()));
        Some(found.map_or(&self.in_use, |(_, certified)| certified).clone())
    }
}

/// For a connection to the member that shows one of these certificates.
///
/// # Errors
/// The identity is of no use.
pub fn client(shown: &Shown, pins: &[[u8; 32]]) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Pinned { pins: pins.to_vec(), algorithms: algorithms(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![shown.certificate.clone()], shown.key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn algorithms(provider: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    provider.signature_verification_algorithms
}

/// One of these certificates and no other.
#[derive(Debug)]
struct Pinned {
    pins: Vec<[u8; 32]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.pins.contains(&pin_of(end_entity)) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Any certificate whose key is proved.
#[derive(Debug)]
struct Proved {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Proved {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
