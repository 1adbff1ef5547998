//! Certificates and certificate requests: built from a template, signed, and read.
//!
//! The types and their DER are `x509-cert`'s; this module knows which extensions a certificate of this engine carries.

use crate::key::{self, Algorithm, Private};
use aws_lc_rs::digest;
use der::asn1::{
    AnyRef, BitString, BitStringRef, GeneralizedTime, Ia5String, ObjectIdentifier, OctetString, PrintableStringRef,
    SetOfVec, UtcTime, Utf8StringRef,
};
use der::oid::AssociatedOid;
use der::{Any, DateTime, Decode, Encode, Sequence};
use ringfence_base::{Entropy, Wall};
use ringfence_logical::Error;
use std::net::IpAddr;
use std::time::Duration;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::{CertificateInner, TbsCertificateInner, Version};
use x509_cert::crl::{CertificateList, TbsCertList};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName, OtherName};
use x509_cert::ext::pkix::{
    AccessDescription, AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies,
    CrlDistributionPoints, ExtendedKeyUsage, FreshestCrl, KeyUsage, KeyUsages, NameConstraints, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::request::{CertReq, CertReqInfo};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

/// A certificate as it was read.
pub type Certificate = CertificateInner;

const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
const CA_ISSUERS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.2");
const EXTENSION_REQUEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");
/// `emailAddress` in a subject.
pub const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const SERIAL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.5");
const USER_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.1");

/// Something that could not be encoded: a broken rule of ours, not of the client's.
pub fn coding(e: der::Error) -> Error {
    Error::internal(format!("DER: {e}"))
}

/// The parts of a subject.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    /// `CN`.
    pub common_name: String,
    /// `serialNumber` attribute.
    pub serial_number: String,
    /// `C`.
    pub country: Vec<String>,
    /// `O`.
    pub organization: Vec<String>,
    /// `OU`.
    pub ou: Vec<String>,
    /// `L`.
    pub locality: Vec<String>,
    /// `ST`.
    pub province: Vec<String>,
    /// `street`.
    pub street_address: Vec<String>,
    /// `postalCode`.
    pub postal_code: Vec<String>,
    /// `UID`.
    pub user_ids: Vec<String>,
}

impl Subject {
    /// The name: one set for each kind of attribute, in the order that Go's `pkix.Name` has.
    pub fn name(&self) -> Result<Name, Error> {
        const COUNTRY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.6");
        const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
        const UNIT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.11");
        const LOCALITY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.7");
        const PROVINCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.8");
        const STREET: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.9");
        const POSTAL_CODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.17");
        let mut sets = Vec::new();
        for (oid, values) in [
            (COUNTRY, &self.country[..]),
            (ORGANIZATION, &self.organization),
            (UNIT, &self.ou),
            (LOCALITY, &self.locality),
            (PROVINCE, &self.province),
            (STREET, &self.street_address),
            (POSTAL_CODE, &self.postal_code),
            (COMMON_NAME, std::slice::from_ref(&self.common_name)),
            (SERIAL_NUMBER, std::slice::from_ref(&self.serial_number)),
            (USER_ID, &self.user_ids),
        ] {
            push_set(&mut sets, oid, values)?;
        }
        Ok(RdnSequence(sets))
    }
}

fn push_set(
    sets: &mut Vec<RelativeDistinguishedName>,
    oid: ObjectIdentifier,
    values: &[String],
) -> Result<(), Error> {
    let mut values: Vec<&String> = values.iter().filter(|v| !v.is_empty()).collect();
    values.sort();
    values.dedup();
    if values.is_empty() {
        return Ok(());
    }
    let mut set = SetOfVec::new();
    for v in values {
        let printable = v.bytes().all(|b| b.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&b));
        let value = match printable {
            true => Any::encode_from(&PrintableStringRef::new(v).map_err(coding)?),
            false => Any::encode_from(&Utf8StringRef::new(v).map_err(coding)?),
        };
        set.insert(AttributeTypeAndValue { oid, value: value.map_err(coding)? }).map_err(coding)?;
    }
    sets.push(RelativeDistinguishedName(set));
    Ok(())
}

/// The values of an attribute in a name.
pub fn attributes(name: &Name, oid: ObjectIdentifier) -> Vec<String> {
    name.0
        .iter()
        .flat_map(|set| set.0.iter())
        .filter(|a| a.oid == oid)
        .filter_map(|a| {
            let text = a.value.decode_as::<Utf8StringRef<'_>>().map(|s| s.as_str().to_owned());
            let text = text.or_else(|_| a.value.decode_as::<PrintableStringRef<'_>>().map(|s| s.as_str().to_owned()));
            let text = text.or_else(|_| a.value.decode_as::<Ia5String>().map(|s| s.as_str().to_owned()));
            text.or_else(|_| a.value.decode_as::<der::asn1::TeletexStringRef<'_>>().map(|s| s.as_str().to_owned()))
                .ok()
        })
        .collect()
}

/// The common name and the serial number attribute of a name, empty if there is none.
pub fn common_name(name: &Name) -> String {
    attributes(name, COMMON_NAME).into_iter().next().unwrap_or_default()
}

/// The serial number attribute of a name.
pub fn serial_attribute(name: &Name) -> String {
    attributes(name, SERIAL_NUMBER).into_iter().next().unwrap_or_default()
}

/// The user ids of a name.
pub fn user_ids(name: &Name) -> Vec<String> {
    attributes(name, USER_ID)
}

/// Where relying parties find the issuer, its CRL and its OCSP responder.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Urls {
    /// CA issuers.
    pub issuing_certificates: Vec<String>,
    /// CRL distribution points.
    pub crl_distribution_points: Vec<String>,
    /// Distribution points of delta CRLs.
    pub delta_crl_distribution_points: Vec<String>,
    /// OCSP responders.
    pub ocsp_servers: Vec<String>,
    /// The texts hold `{{issuer_id}}` and its kin.
    pub enable_templating: bool,
}

impl Urls {
    /// Nothing is set.
    pub fn is_empty(&self) -> bool {
        self.issuing_certificates.is_empty()
            && self.crl_distribution_points.is_empty()
            && self.delta_crl_distribution_points.is_empty()
            && self.ocsp_servers.is_empty()
    }
}

/// What a certificate will say.
#[derive(Clone, Debug)]
pub struct Template {
    /// Subject.
    pub subject: Name,
    /// Subject alternative names.
    pub sans: Vec<GeneralName>,
    /// Key usage bits; none leaves the extension out.
    pub key_usage: Vec<KeyUsages>,
    /// Extended key usages.
    pub ext_key_usage: Vec<ObjectIdentifier>,
    /// Policies.
    pub policies: Option<CertificatePolicies>,
    /// Basic constraints; `None` leaves the extension out.
    pub basic: Option<BasicConstraints>,
    /// Name constraints.
    pub name_constraints: Option<NameConstraints>,
    /// Extensions taken over as they are.
    pub further: Vec<Extension>,
    /// The key.
    pub public: SubjectPublicKeyInfoOwned,
    /// Subject key identifier; empty = SHA-1 of the key.
    pub subject_key_id: Vec<u8>,
    /// Epoch seconds.
    pub not_before: u64,
    /// Epoch seconds.
    pub not_after: u64,
    /// Where to find more.
    pub urls: Urls,
}

/// Who signs.
#[derive(Debug)]
pub struct Signer<'k> {
    /// The key.
    pub key: &'k Private,
    /// How.
    pub algorithm: Algorithm,
    /// Issuer name.
    pub name: Name,
    /// The issuer's subject key identifier.
    pub key_id: Vec<u8>,
}

impl Template {
    /// Signs it under a fresh serial number.
    pub fn sign(&self, signer: &Signer<'_>, rng: &mut dyn Entropy) -> Result<Signed, Error> {
        let unsigned = self.unsigned(signer, rng)?;
        let signature = signer.key.sign(signer.algorithm, unsigned.message())?;
        unsigned.complete(&signature)
    }

    /// All but the signature, under a fresh serial number.
    pub fn unsigned(&self, signer: &Signer<'_>, rng: &mut dyn Entropy) -> Result<Unsigned, Error> {
        let serial = fresh_serial(rng)?;
        let algorithm = signer.algorithm.identifier()?;
        let tbs = TbsCertificateInner {
            version: Version::V3,
            serial_number: serial,
            signature: algorithm,
            issuer: signer.name.clone(),
            validity: Validity { not_before: time(self.not_before)?, not_after: time(self.not_after)? },
            subject: self.subject.clone(),
            subject_public_key_info: self.public.clone(),
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(self.extensions(signer)?),
        };
        Ok(Unsigned {
            message: tbs.to_der().map_err(coding)?,
            serial: serial_text(&tbs.serial_number),
            algorithm: tbs.signature,
            not_after: self.not_after,
        })
    }

    fn extensions(&self, signer: &Signer<'_>) -> Result<Vec<Extension>, Error> {
        let mut out = Vec::with_capacity(10);
        if !self.key_usage.is_empty() {
            let bits = self.key_usage.iter().fold(Default::default(), |all, one| all | *one);
            out.push(extension(true, &KeyUsage(bits))?);
        }
        if !self.ext_key_usage.is_empty() {
            out.push(extension(false, &ExtendedKeyUsage(self.ext_key_usage.clone()))?);
        }
        if let Some(b) = &self.basic {
            out.push(extension(true, b)?);
        }
        let own = match self.subject_key_id.is_empty() {
            true => key_id(&self.public),
            false => self.subject_key_id.clone(),
        };
        out.push(extension(false, &SubjectKeyIdentifier(octets(&own)?))?);
        if !signer.key_id.is_empty() {
            let authority =
                AuthorityKeyIdentifier { key_identifier: Some(octets(&signer.key_id)?), ..Default::default() };
            out.push(extension(false, &authority)?);
        }
        let mut access = Vec::new();
        for (method, urls) in [(OCSP, &self.urls.ocsp_servers), (CA_ISSUERS, &self.urls.issuing_certificates)] {
            for u in urls {
                access.push(AccessDescription { access_method: method, access_location: uri(u)? });
            }
        }
        if !access.is_empty() {
            out.push(extension(false, &AuthorityInfoAccessSyntax(access))?);
        }
        if !self.sans.is_empty() {
            out.push(extension(self.subject.is_empty(), &SubjectAltName(self.sans.clone()))?);
        }
        if let Some(p) = &self.policies {
            out.push(extension(false, p)?);
        }
        if let Some(n) = &self.name_constraints {
            out.push(extension(true, n)?);
        }
        if !self.urls.crl_distribution_points.is_empty() {
            out.push(extension(false, &CrlDistributionPoints(points(&self.urls.crl_distribution_points)?))?);
        }
        if !self.urls.delta_crl_distribution_points.is_empty() {
            out.push(extension(false, &FreshestCrl(points(&self.urls.delta_crl_distribution_points)?))?);
        }
        for e in &self.further {
            if !out.iter().any(|o| o.extn_id == e.extn_id) {
                out.push(e.clone());
            }
        }
        Ok(out)
    }

    /// A request for it, signed by its own key. `ca` asks for basic constraints too.
    pub fn request(&self, own: &Private, algorithm: Algorithm) -> Result<Vec<u8>, Error> {
        let mut wanted = Vec::new();
        if let Some(b) = &self.basic {
            wanted.push(extension(true, b)?);
        }
        if !self.key_usage.is_empty() {
            let bits = self.key_usage.iter().fold(Default::default(), |all, one| all | *one);
            wanted.push(extension(true, &KeyUsage(bits))?);
        }
        if !self.sans.is_empty() {
            wanted.push(extension(self.subject.is_empty(), &SubjectAltName(self.sans.clone()))?);
        }
        let mut attributes = SetOfVec::new();
        if !wanted.is_empty() {
            let mut values = SetOfVec::new();
            values.insert(Any::encode_from(&wanted).map_err(coding)?).map_err(coding)?;
            attributes.insert(x509_cert::attr::Attribute { oid: EXTENSION_REQUEST, values }).map_err(coding)?;
        }
        let info = CertReqInfo {
            version: x509_cert::request::Version::V1,
            subject: self.subject.clone(),
            public_key: self.public.clone(),
            attributes,
        };
        let message = info.to_der().map_err(coding)?;
        let signature = BitString::from_bytes(&own.sign(algorithm, &message)?).map_err(coding)?;
        let whole = CertReq { info, algorithm: algorithm.identifier()?, signature };
        whole.to_der().map_err(coding)
    }
}

/// A certificate that wants its signature.
#[derive(Clone, Debug)]
pub struct Unsigned {
    message: Vec<u8>,
    algorithm: AlgorithmIdentifierOwned,
    serial: String,
    /// Epoch seconds.
    not_after: u64,
}

/// RFC 5280 4.1, its first part as it was signed: to encode that a second time would cost as much as the first.
#[derive(Sequence)]
struct Whole<'a> {
    tbs_certificate: AnyRef<'a>,
    signature_algorithm: AlgorithmIdentifierOwned,
    signature: BitStringRef<'a>,
}

impl Unsigned {
    /// What is signed.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// With the signature of [`Unsigned::message`].
    pub fn complete(&self, signature: &[u8]) -> Result<Signed, Error> {
        let whole = Whole {
            tbs_certificate: AnyRef::from_der(&self.message).map_err(coding)?,
            signature_algorithm: self.algorithm.clone(),
            signature: BitStringRef::from_bytes(signature).map_err(coding)?,
        };
        let der = whole.to_der().map_err(coding)?;
        Ok(Signed { der, serial: self.serial.clone(), not_after: self.not_after })
    }
}

/// A fresh certificate.
#[derive(Clone, Debug)]
pub struct Signed {
    /// DER.
    pub der: Vec<u8>,
    /// `aa:bb:...`.
    pub serial: String,
    /// Epoch seconds.
    pub not_after: u64,
}

/// Signs a list of revoked certificates.
pub fn sign_list(mut list: TbsCertList, key: &Private, algorithm: Algorithm) -> Result<Vec<u8>, Error> {
    list.signature = algorithm.identifier()?;
    let message = list.to_der().map_err(coding)?;
    let signature = BitString::from_bytes(&key.sign(algorithm, &message)?).map_err(coding)?;
    let signature_algorithm = list.signature.clone();
    CertificateList { tbs_cert_list: list, signature_algorithm, signature }.to_der().map_err(coding)
}

/// An extension of a typed value.
pub fn extension<T: AssociatedOid + Encode>(critical: bool, value: &T) -> Result<Extension, Error> {
    let der = value.to_der().map_err(coding)?;
    Ok(Extension { extn_id: T::OID, critical, extn_value: OctetString::new(der).map_err(coding)? })
}

/// An octet string.
pub fn octets(bytes: &[u8]) -> Result<OctetString, Error> {
    OctetString::new(bytes).map_err(coding)
}

fn points(urls: &[String]) -> Result<Vec<DistributionPoint>, Error> {
    urls.iter()
        .map(|u| {
            Ok(DistributionPoint {
                distribution_point: Some(DistributionPointName::FullName(vec![uri(u)?])),
                reasons: None,
                crl_issuer: None,
            })
        })
        .collect()
}

fn ascii(text: &str) -> Result<Ia5String, Error> {
    Ia5String::new(text)
        .map_err(|_| Error::invalid(format!("{text:?} has characters that a certificate cannot hold")))
}

/// A DNS name.
pub fn dns(text: &str) -> Result<GeneralName, Error> {
    ascii(text).map(GeneralName::DnsName)
}

/// A mail address.
pub fn email(text: &str) -> Result<GeneralName, Error> {
    ascii(text).map(GeneralName::Rfc822Name)
}

/// A URI.
pub fn uri(text: &str) -> Result<GeneralName, Error> {
    ascii(text).map(GeneralName::UniformResourceIdentifier)
}

/// An address.
pub fn ip(address: IpAddr) -> GeneralName {
    GeneralName::from(address)
}

/// An `otherName` with a UTF-8 value.
pub fn other(oid: &str, value: &str) -> Result<GeneralName, Error> {
    let type_id = ObjectIdentifier::new(oid).map_err(|_| Error::invalid(format!("{oid:?} is not a valid OID")))?;
    // the value stands under an explicit tag 0
    let text = Utf8StringRef::new(value).map_err(coding)?;
    let tagged =
        der::asn1::ContextSpecific { tag_number: der::TagNumber::N0, tag_mode: der::TagMode::Explicit, value: text };
    let value = Any::from_der(&tagged.to_der().map_err(coding)?).map_err(coding)?;
    Ok(GeneralName::OtherName(OtherName { type_id, value }))
}

/// The `otherName` of a SAN as its OID and text, if the value is text.
pub fn other_text(name: &OtherName) -> Option<(String, String)> {
    let tagged = der::asn1::ContextSpecific::<Any>::from_der(&name.value.to_der().ok()?).ok()?;
    let text = tagged.value.decode_as::<Utf8StringRef<'_>>().ok()?;
    Some((name.type_id.to_string(), text.as_str().to_owned()))
}

/// A subtree of name constraints.
pub fn subtree(base: GeneralName) -> GeneralSubtree {
    GeneralSubtree { base, minimum: 0, maximum: None }
}

/// The network form of an address range in name constraints: address and mask.
pub fn range(text: &str) -> Option<GeneralName> {
    let (address, bits) = text.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    let bytes = match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(a) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            [(u32::from(a) & mask).to_be_bytes(), mask.to_be_bytes()].concat()
        }
        IpAddr::V6(a) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            [(u128::from(a) & mask).to_be_bytes(), mask.to_be_bytes()].concat()
        }
        _ => return None,
    };
    OctetString::new(bytes).ok().map(GeneralName::IpAddress)
}

/// SHA-1 of the key's bits (RFC 5280 4.2.1.2, method 1).
pub fn key_id(public: &SubjectPublicKeyInfoOwned) -> Vec<u8> {
    sha1(public.subject_public_key.raw_bytes())
}

/// SHA-1, for identifiers only.
pub fn sha1(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec()
}

/// Twenty bytes, positive, never short: two bits are fixed, 158 are drawn.
fn fresh_serial(rng: &mut dyn Entropy) -> Result<SerialNumber, Error> {
    let mut bytes = [0u8; 20];
    rng.fill(&mut bytes);
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::new(&bytes).map_err(coding)
}

/// Lower-case hex pairs joined by colons.
pub fn serial_text(serial: &SerialNumber) -> String {
    hex_pairs(trimmed(serial.as_bytes()))
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|b| **b == 0).count().min(bytes.len().saturating_sub(1));
    &bytes[zeros..]
}

/// Hex pairs joined by colons.
pub fn hex_pairs(bytes: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 3);
    for (i, b) in bytes.iter().enumerate() {
        if i > 0 {
            out.push(':');
        }
        out.push(HEX[(b >> 4) as usize] as char);
        out.push(HEX[(b & 15) as usize] as char);
    }
    out
}

/// A serial number as a path or body names it: pairs joined by colons or dashes, any case.
pub fn parse_serial(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.trim().chars().filter(|c| !matches!(c, ':' | '-')).collect();
    let digits = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
    let bytes = hex::decode(digits).ok().filter(|b| !b.is_empty() && b.len() <= 32)?;
    Some(trimmed(&bytes).to_vec())
}

/// A time in a certificate: UTCTime until 2049, GeneralizedTime from then on (RFC 5280 4.1.2.5).
pub fn time(seconds: u64) -> Result<Time, Error> {
    let date = DateTime::from_unix_duration(Duration::from_secs(seconds)).map_err(coding)?;
    match date.year() {
        ..2050 => UtcTime::from_date_time(date).map(Time::UtcTime).map_err(coding),
        _ => Ok(Time::GeneralTime(GeneralizedTime::from_date_time(date))),
    }
}

/// RFC 3339 to epoch seconds, years until 9999.
pub fn parse_time(text: &str) -> Option<u64> {
    match Wall::parse_rfc3339(text) {
        Some(w) => Some(w.seconds()),
        None => text.parse::<DateTime>().ok().map(|d| d.unix_duration().as_secs()),
    }
}

/// Epoch seconds as RFC 3339, years until 9999.
pub fn time_text(seconds: u64) -> String {
    match DateTime::from_unix_duration(Duration::from_secs(seconds)) {
        Ok(d) => d.to_string(),
        Err(_) => seconds.to_string(),
    }
}

/// Reads a certificate.
pub fn parse(der: &[u8]) -> Result<Certificate, String> {
    Certificate::from_der(der).map_err(|e| format!("unable to parse certificate: {e}"))
}

/// End of validity, epoch seconds.
pub fn not_after(cert: &Certificate) -> u64 {
    cert.tbs_certificate.validity.not_after.to_unix_duration().as_secs()
}

/// The first extension of a type.
pub fn find<T: AssociatedOid + for<'a> Decode<'a>>(extensions: Option<&Vec<Extension>>) -> Option<T> {
    let e = extensions?.iter().find(|e| e.extn_id == T::OID)?;
    T::from_der(e.extn_value.as_bytes()).ok()
}

/// True for a certificate whose basic constraints say CA.
pub fn is_ca(cert: &Certificate) -> bool {
    find::<BasicConstraints>(cert.tbs_certificate.extensions.as_ref()).is_some_and(|b| b.ca)
}

/// The subject key identifier, or SHA-1 of the key.
pub fn subject_key_id(cert: &Certificate) -> Vec<u8> {
    match find::<SubjectKeyIdentifier>(cert.tbs_certificate.extensions.as_ref()) {
        Some(s) => s.0.as_bytes().to_vec(),
        None => key_id(&cert.tbs_certificate.subject_public_key_info),
    }
}

/// The authority key identifier, empty if there is none.
pub fn authority_key_id(cert: &Certificate) -> Vec<u8> {
    find::<AuthorityKeyIdentifier>(cert.tbs_certificate.extensions.as_ref())
        .and_then(|a| a.key_identifier)
        .map(|k| k.as_bytes().to_vec())
        .unwrap_or_default()
}

/// Checks that one certificate's key signed another.
pub fn signed_by(cert: &Certificate, issuer: &Certificate) -> bool {
    let Ok(message) = cert.tbs_certificate.to_der() else { return false };
    cert.tbs_certificate.issuer == issuer.tbs_certificate.subject
        && key::verify(
            &issuer.tbs_certificate.subject_public_key_info,
            &cert.signature_algorithm,
            &message,
            cert.signature.raw_bytes(),
        )
        .is_ok()
}

/// What a certificate request says.
#[derive(Clone, Debug)]
pub struct Request {
    /// Subject.
    pub subject: Name,
    /// The key.
    pub public: SubjectPublicKeyInfoOwned,
    /// Subject alternative names.
    pub sans: Vec<GeneralName>,
    /// All wanted extensions.
    pub extensions: Vec<Extension>,
}

impl Request {
    /// Reads a request and checks its signature.
    ///
    /// # Errors
    /// The reason.
    pub fn parse(der: &[u8]) -> Result<Request, String> {
        let whole = CertReq::from_der(der).map_err(|e| format!("certificate request could not be parsed: {e}"))?;
        let message = whole.info.to_der().map_err(|e| format!("certificate request could not be parsed: {e}"))?;
        key::verify(&whole.info.public_key, &whole.algorithm, &message, whole.signature.raw_bytes())
            .map_err(|e| format!("request signature invalid: {e}"))?;
        let mut extensions: Vec<Extension> = Vec::new();
        for a in whole.info.attributes.iter().filter(|a| a.oid == EXTENSION_REQUEST) {
            for v in a.values.iter() {
                let list: Vec<Extension> =
                    v.decode_as().map_err(|e| format!("certificate request could not be parsed: {e}"))?;
                extensions.extend(list);
            }
        }
        let sans = match extensions.iter().find(|e| e.extn_id == SubjectAltName::OID) {
            Some(e) => {
                SubjectAltName::from_der(e.extn_value.as_bytes())
                    .map_err(|e| format!("certificate request could not be parsed: {e}"))?
                    .0
            }
            None => Vec::new(),
        };
        Ok(Request { subject: whole.info.subject, public: whole.info.public_key, sans, extensions })
    }
}
