//! Certificates as this method sees them, and the chain from a client's to a trusted one.

use ringfence_base::Wall;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use std::time::Duration;
use webpki::aws_lc_rs as algorithms;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Most certificates that a client may show or an entry may hold.
pub const MAX_CERTIFICATES: usize = 16;

/// The signature algorithms that chains and OCSP answers may use.
pub static SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P256_SHA512,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ECDSA_P384_SHA512,
    algorithms::ECDSA_P521_SHA256,
    algorithms::ECDSA_P521_SHA384,
    algorithms::ECDSA_P521_SHA512,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// The certificates of a PEM text.
pub fn of_pem(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.ok().filter(|f| (1..=MAX_CERTIFICATES).contains(&f.len()))?;
    found.iter().all(|der| parse(der).is_some()).then_some(found)
}

/// Reads a certificate; nothing may stand behind it.
pub fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, certificate)| certificate)
}

/// True within the certificate's own dates.
pub fn in_force(certificate: &X509Certificate<'_>, now: Wall) -> bool {
    let now = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
    let v = certificate.validity();
    v.not_before.timestamp() <= now && now <= v.not_after.timestamp()
}

/// True if a certificate may authenticate a client: it says so, or says nothing of what it is for.
pub fn for_clients(certificate: &X509Certificate<'_>) -> bool {
    match certificate.extended_key_usage() {
        Ok(Some(eku)) => eku.value.client_auth || eku.value.any,
        Ok(None) => true,
        Err(_) => false,
    }
}

/// How a client's certificate was found to be trusted.
pub enum Trusted {
    /// It is the one that was named, to the last byte.
    Pinned(Vec<CertificateDer<'static>>),
    /// Under an authority; leaf first, the authority last.
    Chain(Vec<CertificateDer<'static>>),
}

impl Trusted {
    /// Leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        match self {
            Trusted::Pinned(c) | Trusted::Chain(c) => c,
        }
    }
}

/// Finds what links the shown certificates (leaf first) with one of the trusted.
pub fn find(shown: &[CertificateDer<'static>], trusted: &[CertificateDer<'static>], now: Wall) -> Option<Trusted> {
    let leaf = shown.first()?;
    // matched by all that it is and never by serial number, names or key (CVE-2025-6037): another certificate with
    // the same key may carry other names
    if trusted.contains(leaf) {
        let certificate = parse(leaf)?;
        return (in_force(&certificate, now) && for_clients(&certificate))
            .then(|| Trusted::Pinned(vec![leaf.clone()]));
    }
    let authorities: Vec<&CertificateDer<'static>> =
        trusted.iter().filter(|der| parse(der).is_some_and(|c| c.is_ca() && in_force(&c, now))).collect();
    let anchors: Vec<_> = authorities.iter().filter_map(|der| anchor_from_trusted_cert(der).ok()).collect();
    let end = EndEntityCert::try_from(leaf).ok()?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now.seconds()));
    let path =
        end.verify_for_usage(SIGNATURES, &anchors, &shown[1..], time, KeyUsage::client_auth(), None, None).ok()?;
    let mut chain = vec![leaf.clone()];
    chain.extend(path.intermediate_certificates().map(|c| c.der().into_owned()));
    let anchor = path.anchor();
    let authority = authorities.into_iter().find(|der| {
        anchor_from_trusted_cert(der)
            .is_ok_and(|a| a.subject == anchor.subject && a.subject_public_key_info == anchor.subject_public_key_info)
    })?;
    chain.push(authority.clone());
    Some(Trusted::Chain(chain))
}
