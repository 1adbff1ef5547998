//! Client certificates: the common name is the account's name. Made on a thread of the pool, never on a core.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
};
use ringfence_base::time::Civil;
use ringfence_base::{Secret, Wall};
use ringfence_logical::{Computed, Map, SideResult};
use serde_json::Value;
use std::sync::Arc;

/// What a role says of its certificates.
pub struct Spec {
    ca_cert: String,
    ca_key: Secret<String>,
    key: KeyKind,
}

#[derive(Clone, Copy)]
enum KeyKind {
    Rsa(rcgen::RsaKeySize),
    P256,
    P384,
    Ed25519,
}

/// A certificate and its key.
pub struct Issued {
    pub certificate_pem: String,
    pub key_pem: Secret<String>,
    /// `rsa`, `ec` or `ed25519`.
    pub key_type: &'static str,
}

impl Spec {
    /// From a role's `credential_config`.
    ///
    /// # Errors
    /// What cannot be used, in words.
    pub fn of(config: &Map) -> Result<Spec, String> {
        let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        let bits = match config.get("key_bits") {
            None => 0,
            Some(Value::Number(n)) => n.as_u64().unwrap_or(u64::MAX),
            Some(v) => v.as_str().and_then(|s| s.parse().ok()).unwrap_or(u64::MAX),
        };
        let key = match (text("key_type").as_str(), bits) {
            ("" | "rsa", 0 | 2048) => KeyKind::Rsa(rcgen::RsaKeySize::_2048),
            ("" | "rsa", 3072) => KeyKind::Rsa(rcgen::RsaKeySize::_3072),
            ("" | "rsa", 4096) => KeyKind::Rsa(rcgen::RsaKeySize::_4096),
            ("ec", 0 | 256) => KeyKind::P256,
            ("ec", 384) => KeyKind::P384,
            ("ed25519", _) => KeyKind::Ed25519,
            ("" | "rsa" | "ec", _) => return Err(format!("invalid key_bits {bits} for key_type")),
            (other, _) => return Err(format!("invalid key_type {other:?}")),
        };
        let spec = Spec { ca_cert: text("ca_cert"), ca_key: Secret::new(text("ca_private_key")), key };
        if spec.ca_cert.is_empty() || spec.ca_key.expose().is_empty() {
            return Err("ca_cert and ca_private_key are required".into());
        }
        spec.issuer()?;
        Ok(spec)
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, String> {
        let key = KeyPair::from_pem(self.ca_key.expose()).map_err(|e| format!("ca_private_key: {e}"))?;
        Issuer::from_ca_cert_pem(&self.ca_cert, key).map_err(|e| format!("ca_cert: {e}"))
    }

    /// Makes key and certificate.
    pub fn issue(&self, common_name: &str, serial: [u8; 16], now: Wall, until: Wall) -> SideResult {
        match self.make(common_name, serial, now, until) {
            Ok(issued) => Computed::of(Arc::new(issued)),
            Err(why) => SideResult::Failed(why),
        }
    }

    fn make(&self, common_name: &str, mut serial: [u8; 16], now: Wall, until: Wall) -> Result<Issued, String> {
        let (key, key_type) = match self.key {
            KeyKind::Rsa(size) => (KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size), "rsa"),
            KeyKind::P256 => (KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256), "ec"),
            KeyKind::P384 => (KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384), "ec"),
            KeyKind::Ed25519 => (KeyPair::generate_for(&rcgen::PKCS_ED25519), "ed25519"),
        };
        let key = key.map_err(|e| e.to_string())?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        // positive, and never shorter for a leading zero
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(serial.to_vec().into());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        // clocks differ: valid from half a minute ago
        params.not_before = date(Wall::from_seconds(now.seconds().saturating_sub(30)))?;
        params.not_after = date(until)?;
        let certificate = params.signed_by(&key, &self.issuer()?).map_err(|e| e.to_string())?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: Secret::new(key.serialize_pem()), key_type })
    }
}

fn date(at: Wall) -> Result<time::OffsetDateTime, String> {
    let seconds = i64::try_from(at.seconds()).map_err(|e| e.to_string())?;
    // an X.509 date has four digits of year
    match Civil::of(at).year {
        ..=9999 => time::OffsetDateTime::from_unix_timestamp(seconds).map_err(|e| e.to_string()),
        year => Err(format!("the year {year} is beyond a certificate's dates")),
    }
}
