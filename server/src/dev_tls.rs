//! Certificates for `-dev-tls`: an authority that lives as long as its files, and one certificate under it. Never for
//! production: the keys lie beside the certificates.

use crate::cli::DevArgs;
use crate::config::{ClientCerts, ListenerTls, TlsVersion};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where the certificates lie, and whether the folder goes with the process.
pub struct DevTls {
    /// The folder.
    pub folder: PathBuf,
    /// It was made for this process.
    pub temporary: bool,
    /// For the listener.
    pub tls: ListenerTls,
}

impl DevTls {
    /// The authority's certificate, which clients are to trust.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("vault-ca.pem")
    }
}

/// Makes the certificates.
///
/// # Errors
/// A file that cannot be written, or a name that no certificate can hold.
pub fn make(dev: &DevArgs) -> Result<DevTls, String> {
    let (folder, temporary) = match &dev.tls_cert_dir {
        Some(folder) if folder.is_dir() => (folder.clone(), false),
        Some(folder) => return Err(format!("-dev-tls-cert-dir: {} is no folder; make it", folder.display())),
        None => (std::env::temp_dir().join(format!("vault-tls-{}", std::process::id())), true),
    };
    if temporary {
        // the temporary folder is everybody's: what is there already is not ours
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|e| format!("-dev-tls: cannot make {}: {e}", folder.display()))?;
    }
    let written = certificates(dev).map_err(|e| format!("-dev-tls: no certificate: {e}")).and_then(|pem| {
        write(&folder.join("vault-ca.pem"), &pem.authority)?;
        write(&folder.join("vault-cert.pem"), &pem.certificate)?;
        write(&folder.join("vault-key.pem"), &pem.key)
    });
    if let Err(e) = written {
        if temporary {
            // it is ours and empty or half full
            let _ = fs::remove_dir_all(&folder);
        }
        return Err(e);
    }
    let tls = ListenerTls {
        cert_file: folder.join("vault-cert.pem"),
        key_file: folder.join("vault-key.pem"),
        min_version: TlsVersion::Tls12,
        max_version: TlsVersion::Tls13,
        cipher_suites: Vec::new(),
        client_ca_file: None,
        client_certs: ClientCerts::Requested,
    };
    Ok(DevTls { folder, temporary, tls })
}

struct Pem {
    authority: String,
    certificate: String,
    key: String,
}

fn certificates(dev: &DevArgs) -> Result<Pem, rcgen::Error> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    authority.distinguished_name.push(DnType::CommonName, "Ringfence development authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_pem = authority.self_signed(&authority_key)?.pem();

    let host = dev.listen_address.rsplit_once(':').map_or(dev.listen_address.as_str(), |(host, _)| host);
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(Some(host.trim_matches(['[', ']']).to_owned()).filter(|h| !h.is_empty()));
    names.extend(fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|h| h.trim().to_owned()));
    names.extend(dev.tls_san.iter().cloned());
    names.sort();
    names.dedup();
    let mut certificate = CertificateParams::new(names)?;
    certificate.distinguished_name.push(DnType::CommonName, "localhost");
    certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    certificate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    certificate.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let issuer = Issuer::new(authority, authority_key);
    let signed = certificate.signed_by(&key, &issuer)?;
    Ok(Pem { authority: authority_pem, certificate: signed.pem(), key: key.serialize_pem() })
}

fn write(path: &Path, pem: &str) -> Result<(), String> {
    fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut f| f.write_all(pem.as_bytes()))
        .map_err(|e| format!("-dev-tls: cannot write {}: {e}", path.display()))
}
