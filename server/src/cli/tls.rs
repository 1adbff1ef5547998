//! How the command line verifies servers and what certificate it shows them.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};

/// Where Linux distributions keep the certificates that the system trusts.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// TLS settings. Files are read when the client is made.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// File with certificates to trust.
    pub ca_cert: Option<PathBuf>,
    /// PEM text of certificates to trust, used before the file.
    pub ca_cert_text: Option<String>,
    /// Folder with certificates to trust.
    pub ca_path: Option<PathBuf>,
    /// File that the system's trust is read from instead of the usual places.
    pub system_bundle: Option<PathBuf>,
    /// Our certificate.
    pub client_cert: Option<PathBuf>,
    /// Its key.
    pub client_key: Option<PathBuf>,
    /// PEM text of our certificate and of its key, used before the files.
    pub client_text: Option<(String, String)>,
    /// Name to expect in place of the host.
    pub server_name: Option<String>,
    /// Trust anybody.
    pub skip_verify: bool,
}

impl Tls {
    /// Reads the files. Errors name the file.
    pub fn config(&self) -> Result<TlsConfig, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(provider)
            .disable_verification(self.skip_verify);
        if self.skip_verify {
            config = config.root_certs(RootCerts::Specific(Arc::new(Vec::new())));
        } else {
            let roots: Vec<Certificate<'static>> =
                self.roots()?.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
            config = config.root_certs(RootCerts::Specific(Arc::new(roots)));
        }
        if let Some((cert, key)) = &self.client_text {
            let origin = Path::new("client certificate");
            let chain: Vec<Certificate<'static>> = parse_certificates(cert.as_bytes(), origin)?
                .iter()
                .map(|der| Certificate::from_der(der).to_owned())
                .collect();
            let key = PrivateKey::from_pem(key.as_bytes())
                .map_err(|error| format!("client key: no usable private key: {error}"))?;
            return Ok(config.client_cert(Some(ClientCert::new_with_certs(&chain, key))).build());
        }
        match (&self.client_cert, &self.client_key) {
            (Some(cert), Some(key)) => {
                let chain: Vec<Certificate<'static>> =
                    certificates(cert)?.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
                let key = PrivateKey::from_pem(&read(key)?)
                    .map_err(|error| format!("{}: no usable private key: {error}", key.display()))?;
                config = config.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
            }
            (None, None) => {}
            _ => return Err("both client cert and client key must be provided".to_owned()),
        }
        Ok(config.build())
    }

    fn roots(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        if let Some(text) = &self.ca_cert_text {
            return parse_certificates(text.as_bytes(), Path::new("VAULT_CACERT_BYTES"));
        }
        if let Some(file) = &self.ca_cert {
            return certificates(file);
        }
        if let Some(folder) = &self.ca_path {
            let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            let mut files: Vec<PathBuf> =
                entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
            files.sort();
            let mut roots = Vec::new();
            for file in files {
                // folders of certificates hold other files too; those are passed over
                roots.extend(certificates(&file).unwrap_or_default());
            }
            if roots.is_empty() {
                return Err(format!("{}: no certificates in this folder", folder.display()));
            }
            return Ok(roots);
        }
        match &self.system_bundle {
            Some(bundle) => certificates(bundle),
            None => system_certificates(),
        }
    }
}

/// What the system trusts. A system without trusted certificates trusts nobody; the handshake says so.
pub fn system_certificates() -> Result<Vec<CertificateDer<'static>>, String> {
    let bundle = SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file());
    bundle.map_or(Ok(Vec::new()), |bundle| certificates(&bundle))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    parse_certificates(&read(path)?, path)
}

/// The certificates of a PEM text; errors name where it came from.
pub fn parse_certificates(pem: &[u8], origin: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(format!("{}: no PEM certificate in it", origin.display())),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{}: {error}", origin.display())),
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::fake::{Outside, Script, scratch_file};
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use std::sync::Arc;

    #[test]
    fn servers_are_verified_by_the_name_that_was_asked_for() {
        let made = rcgen::generate_simple_self_signed(vec!["vault.test".to_owned()]).unwrap();
        let ca = scratch_file("ca.pem", &made.cert.pem());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let ca = ca.display();
        for (flags, code) in [
            (format!("-ca-cert={ca} -tls-server-name=vault.test"), 0),
            (format!("-ca-cert={ca}"), 2),
            ("-tls-skip-verify".to_owned(), 0),
            (format!("-ca-cert={ca} -tls-server-name=other.test"), 2),
        ] {
            let server = Script::play_tls(vec![(204, "", Vec::new())], config.clone());
            let mut outside = Outside::with_stdin("");
            let line = format!("vault write {flags} -address={} a/b x=1", server.address);
            let ran = outside.run(&line);
            assert_eq!(ran.code, code, "{flags}: {}", ran.stderr);
            let address = server.address.clone();
            let got = server.end();
            if code == 0 {
                assert_eq!(got[0].headers["host"], address.trim_start_matches("https://"), "{flags}");
            } else {
                assert!(got.is_empty());
            }
        }
    }
}
