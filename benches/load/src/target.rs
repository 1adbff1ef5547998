//! Where the server is and how one gets there: address, TLS, protocol. Made once from the command line; a connection of
//! any kind begins here.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

/// Which HTTP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One request in flight on a connection.
    Http1,
    /// Many streams on a connection.
    Http2,
}

/// How the server's certificate is judged.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// By the certificates of a PEM file.
    Authorities(std::path::PathBuf),
    /// Not at all.
    #[default]
    Anyone,
}

/// A server to be loaded.
#[derive(Clone)]
pub struct Target {
    /// Where connections go.
    pub addr: SocketAddr,
    /// What the `Host` header says.
    pub authority: String,
    /// Which HTTP is spoken.
    pub protocol: Protocol,
    /// Name and settings of TLS, where it is spoken.
    pub tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
}

impl Target {
    /// Reads `http://host:port` or `https://host:port`.
    pub fn new(url: &str, protocol: Protocol, trust: &Trust) -> Result<Target, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("{url}: not a URL"))?;
        let authority = rest.trim_end_matches('/');
        if authority.is_empty() || authority.contains('/') {
            return Err(format!("{url}: scheme, host and port are wanted, and no path"));
        }
        let secure = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(format!("{url}: http or https is wanted")),
        };
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let full =
            if has_port { authority.to_owned() } else { format!("{authority}:{}", if secure { 443 } else { 80 }) };
        let addr = full
            .to_socket_addrs()
            .map_err(|e| format!("{authority}: {e}"))?
            .next()
            .ok_or_else(|| format!("{authority}: has no address"))?;
        let tls = if secure {
            let host = full.rsplit_once(':').map_or(full.as_str(), |(host, _)| host).trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned()).map_err(|e| format!("{host}: {e}"))?;
            Some((name, Arc::new(client_config(protocol, trust)?)))
        } else {
            None
        };
        Ok(Target { addr, authority: authority.to_owned(), protocol, tls })
    }

    /// The same server over HTTP/1.1, as the setup speaks to it.
    pub fn over_http1(&self) -> Target {
        let mut plain = self.clone();
        plain.protocol = Protocol::Http1;
        if let Some((_, config)) = &mut plain.tls {
            Arc::make_mut(config).alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        plain
    }
}

fn client_config(protocol: Protocol, trust: &Trust) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let mut config = match trust {
        Trust::Authorities(file) => {
            let mut roots = RootCertStore::empty();
            for cert in CertificateDer::pem_file_iter(file).map_err(|e| format!("{}: {e}", file.display()))? {
                let cert = cert.map_err(|e| format!("{}: {e}", file.display()))?;
                roots.add(cert).map_err(|e| format!("{}: {e}", file.display()))?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Trust::Anyone => {
            let verifier = Arc::new(Unverified(provider));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![match protocol {
        Protocol::Http1 => b"http/1.1".to_vec(),
        Protocol::Http2 => b"h2".to_vec(),
    }];
    Ok(config)
}

/// Takes any certificate, and still proves that the server holds its key.
#[derive(Debug)]
struct Unverified(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let of = |url| Target::new(url, Protocol::Http1, &Trust::Anyone);
        assert_eq!(of("http://127.0.0.1:8200/").map(|t| (t.addr.port(), t.tls.is_some())), Ok((8200, false)));
        assert_eq!(of("https://127.0.0.1").map(|t| (t.addr.port(), t.tls.is_some())), Ok((443, true)));
        for bad in ["127.0.0.1:8200", "ftp://127.0.0.1:1", "http://", "http://127.0.0.1:1/v1"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
