//! TLS towards SQL servers.

use ringfence_node::SqlTls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::sync::Arc;

/// How much of the server's certificate is checked; libpq's levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verify {
    /// Chain and name.
    Full,
    /// Chain.
    Chain,
    /// Nothing: encrypted, but with anybody.
    Nothing,
}

/// The configuration of a client.
pub fn config(tls: &SqlTls, verify: Verify) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verify = if tls.skip_verify { Verify::Nothing } else { verify };
    let inner = match verify {
        Verify::Nothing => None,
        _ => {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(tls)?), provider.clone());
            Some(verifier.build().map_err(|e| format!("certificates to trust: {e}"))?)
        }
    };
    let verifier = Arc::new(Verifier { inner, name: verify == Verify::Full, provider: provider.clone() });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    if tls.certificate_pem.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(tls.certificate_pem.as_bytes()).collect();
    let chain = chain.map_err(|e| format!("client certificate: {e}"))?;
    let key = PrivateKeyDer::from_pem_slice(tls.key_pem.as_bytes()).map_err(|e| format!("client key: {e}"))?;
    builder.with_client_auth_cert(chain, key).map_err(|e| format!("client certificate: {e}"))
}

fn roots(tls: &SqlTls) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let bundle;
    let pem = if tls.ca_pem.is_empty() {
        bundle = std::fs::read("/etc/ssl/certs/ca-certificates.crt")
            .map_err(|e| format!("the machine's certificates: {e}"))?;
        &bundle[..]
    } else {
        tls.ca_pem.as_bytes()
    };
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots
            .add(certificate.map_err(|e| format!("tls_ca: {e}"))?)
            .or_else(|e| if tls.ca_pem.is_empty() { Ok(()) } else { Err(format!("tls_ca: {e}")) })?;
    }
    Ok(roots)
}

#[derive(Debug)]
struct Verifier {
    /// `None` trusts anybody.
    inner: Option<Arc<WebPkiServerVerifier>>,
    name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
