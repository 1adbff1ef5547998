//! What the engine keeps, where, and how references are resolved.
//!
//! ```text
//! area i   issuer id               an issuer, JSON
//! area k   key id                  a key, JSON, its PKCS#8 in base64
//! area r   role name               a role, JSON
//! area c   name                    a configuration, JSON
//! area C   serial, aa:bb:...       a certificate: format byte, issuer id (36 bytes, or dashes), DER
//! area R   serial                  a revoked certificate, JSON
//! area m   serial                  what was to be remembered with a certificate, JSON
//! area P   list id, page as be32   entries of a revocation list, see `crl`
//! area S   list id                 the state of a revocation list, JSON
//! area L   list id, kind, be32     a signed list in pieces
//! area a   kind/...                ACME
//! ```

use crate::cert::{self, Certificate, Urls};
use crate::key::{Private, Spec};
use crate::pem;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_base::entropy::uuid4;
use ringfence_base::path::is_name;
use ringfence_logical::{Cx, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// Area of the issuers.
pub const ISSUERS: u8 = b'i';
/// Area of the keys.
pub const KEYS: u8 = b'k';
/// Area of the roles.
pub const ROLES: u8 = b'r';
/// Area of the configuration.
pub const CONFIG: u8 = b'c';
/// Area of the certificates.
pub const CERTS: u8 = b'C';
/// Area of the revoked certificates.
pub const REVOKED: u8 = b'R';

const FORMAT: u8 = 1;
const NO_ISSUER: &str = "------------------------------------";

/// Bytes that JSON carries as base64.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        STANDARD.decode(text.as_bytes()).map(Bytes).map_err(serde::de::Error::custom)
    }
}

/// A key.
#[derive(Clone, Serialize, Deserialize)]
pub struct KeyRecord {
    /// UUID.
    pub id: String,
    /// Name, or empty.
    pub name: String,
    /// Family and size.
    pub spec: Spec,
    /// PKCS#8.
    pub pkcs8: Bytes,
    /// Subject key identifier, hex.
    pub subject_key_id: Bytes,
}

/// What an issuer may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Usage {
    /// Always.
    ReadOnly,
    /// Sign certificates.
    IssuingCertificates,
    /// Sign CRLs.
    CrlSigning,
    /// Answer OCSP.
    OcspSigning,
}

impl Usage {
    /// Every one, in the API's order.
    pub const ALL: [Usage; 4] = [Usage::ReadOnly, Usage::IssuingCertificates, Usage::CrlSigning, Usage::OcspSigning];

    /// As the API prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Usage::ReadOnly => "read-only",
            Usage::IssuingCertificates => "issuing-certificates",
            Usage::CrlSigning => "crl-signing",
            Usage::OcspSigning => "ocsp-signing",
        }
    }
}

/// What happens when a leaf would outlive its issuer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outliving {
    /// Refused.
    #[default]
    Err,
    /// Cut.
    Truncate,
    /// Allowed.
    Permit,
    /// Refused, intermediates too.
    AlwaysEnforceErr,
}

impl Outliving {
    /// As the API prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Outliving::Err => "err",
            Outliving::Truncate => "truncate",
            Outliving::Permit => "permit",
            Outliving::AlwaysEnforceErr => "always_enforce_err",
        }
    }

    /// From the API's text.
    pub fn parse(text: &str) -> Option<Outliving> {
        [Outliving::Err, Outliving::Truncate, Outliving::Permit, Outliving::AlwaysEnforceErr]
            .into_iter()
            .find(|o| o.as_str() == text)
    }
}

/// An issuer.
#[derive(Clone, Serialize, Deserialize)]
pub struct IssuerRecord {
    /// UUID.
    pub id: String,
    /// Name, or empty.
    pub name: String,
    /// Its key, or empty.
    pub key_id: String,
    /// DER.
    pub certificate: Bytes,
    /// As [`cert::serial_text`].
    pub serial: String,
    /// Leaves that would outlive it.
    pub outliving: Outliving,
    /// What it may be used for.
    pub usage: Vec<Usage>,
    /// Issuer ids that the operator set as its chain.
    pub manual_chain: Vec<String>,
    /// Issuer ids from itself up, as far as known. Renewed whenever the set of issuers changes.
    pub chain: Vec<String>,
    /// Name of an algorithm, or empty.
    pub revocation_signature_algorithm: String,
    /// Epoch seconds; 0 = not revoked.
    pub revoked_at: u64,
    /// Nanoseconds of the same moment.
    pub revoked_at_ns: u64,
    /// Its own URLs; empty = the mount's.
    pub urls: Urls,
}

impl IssuerRecord {
    /// The certificate, read.
    pub fn parsed(&self) -> Result<Certificate, Error> {
        cert::parse(&self.certificate.0).map_err(Error::internal)
    }

    /// The certificate as PEM.
    pub fn pem(&self) -> String {
        pem::certificate(&self.certificate.0)
    }

    /// True if it may be used so.
    pub fn may(&self, usage: Usage) -> bool {
        self.usage.contains(&usage)
    }

    /// The API's text of its usages.
    pub fn usage_text(&self) -> String {
        Usage::ALL.iter().filter(|u| self.may(**u)).map(|u| u.as_str()).collect::<Vec<_>>().join(",")
    }
}

/// `config/issuers`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DefaultIssuer {
    /// Issuer id, or empty.
    pub default: String,
    /// A new root or signed intermediate becomes the default.
    pub default_follows_latest_issuer: bool,
}

/// `config/keys`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DefaultKey {
    /// Key id, or empty.
    pub default: String,
}

/// A certificate that was revoked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Revoked {
    /// When, nanoseconds since the epoch.
    pub at_ns: u64,
    /// DER.
    pub certificate: Bytes,
    /// End of validity, epoch seconds.
    pub not_after: u64,
    /// Issuer that was there then, or empty.
    pub issuer_id: String,
}

/// Reads a configuration or its default.
pub fn config<T>(cx: &mut Cx<'_, '_>, name: &str) -> Result<T, Error>
where
    T: Default + Clone + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    Ok(cx.decoded(CONFIG, name.as_bytes(), many, json_of::<T>)?.map_or_else(T::default, |c| (*c).clone()))
}

/// Writes a configuration.
pub fn save_config<T: Serialize>(cx: &mut Cx<'_, '_>, name: &str, value: &T) {
    cx.put_json(CONFIG, name.as_bytes(), value);
}

/// Every issuer, by id.
pub fn issuers(cx: &mut Cx<'_, '_>) -> Result<Vec<IssuerRecord>, Error> {
    let ids = cx.scan_keys(ISSUERS, "", "", 0)?;
    ids.iter().map(|id| required_issuer(cx, id)).collect()
}

/// Every key, by id.
pub fn keys(cx: &mut Cx<'_, '_>) -> Result<Vec<KeyRecord>, Error> {
    let ids = cx.scan_keys(KEYS, "", "", 0)?;
    ids.iter().map(|id| key(cx, id)?.ok_or_else(|| Error::internal("a listed key is gone"))).collect()
}

/// A key by id.
pub fn key(cx: &mut Cx<'_, '_>, id: &str) -> Result<Option<KeyRecord>, Error> {
    cx.get_json(KEYS, id.as_bytes())
}

fn required_issuer(cx: &mut Cx<'_, '_>, id: &str) -> Result<IssuerRecord, Error> {
    known_issuer(cx, id)?.map(|i| i.record.clone()).ok_or_else(|| unresolved(id))
}

/// An issuer as a core keeps it: its record, and what every certificate under it needs of it.
pub struct Issuer {
    /// The record.
    pub record: IssuerRecord,
    /// Its certificate.
    pub certificate: Certificate,
    /// The identifier of its key in what it signs.
    pub key_id: Vec<u8>,
    /// Its certificate as answers show it.
    pem: String,
}

impl Issuer {
    /// Reads the certificate of a record.
    pub fn of(record: IssuerRecord) -> Result<Issuer, Error> {
        let certificate = record.parsed()?;
        Ok(Issuer { key_id: cert::subject_key_id(&certificate), pem: record.pem(), certificate, record })
    }

    /// Its certificate as answers show it.
    pub fn shown(&self, format: pem::Format) -> String {
        match format {
            pem::Format::Der => pem::shown(format, "CERTIFICATE", &self.record.certificate.0),
            pem::Format::Pem | pem::Format::Bundle => self.pem.clone(),
        }
    }

    /// It names itself as its issuer: a root, or a certificate for a new key of one.
    pub fn is_self_issued(&self) -> bool {
        let tbs = &self.certificate.tbs_certificate;
        tbs.subject == tbs.issuer
    }
}

/// Decoded records have no bound but the core's own.
pub fn many(_: &mut Cx<'_, '_>) -> Result<usize, Error> {
    Ok(usize::MAX)
}

/// An issuer by id.
pub fn known_issuer(cx: &mut Cx<'_, '_>, id: &str) -> Result<Option<Arc<Issuer>>, Error> {
    cx.decoded(ISSUERS, id.as_bytes(), many, |bytes| Issuer::of(json_of(bytes)?))
}

/// A private key by id, ready to sign: reading one costs more than a signature.
pub fn known_key(cx: &mut Cx<'_, '_>, id: &str) -> Result<Option<Arc<Private>>, Error> {
    cx.decoded(KEYS, id.as_bytes(), many, |bytes| private(&json_of(bytes)?))
}

/// A record that holds JSON.
pub fn json_of<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("a stored record: {e}")))
}

fn unresolved(reference: &str) -> Error {
    Error::invalid(format!("unable to resolve issuer id for reference: {reference}"))
}

/// The issuer of a reference: `default`, an id or a name.
pub fn issuer(cx: &mut Cx<'_, '_>, reference: &str) -> Result<IssuerRecord, Error> {
    let reference = reference.trim();
    if reference.is_empty() || reference == "default" {
        let chosen: DefaultIssuer = config(cx, "issuers")?;
        if chosen.default.is_empty() {
            return Err(Error::plain("error fetching CA certificate: no default issuer currently configured"));
        }
        return required_issuer(cx, &chosen.default);
    }
    if let Some(found) = known_issuer(cx, reference)? {
        return Ok(found.record.clone());
    }
    issuers(cx)?.into_iter().find(|i| !i.name.is_empty() && i.name == reference).ok_or_else(|| unresolved(reference))
}

/// The key of a reference: `default`, an id or a name.
pub fn key_by_ref(cx: &mut Cx<'_, '_>, reference: &str) -> Result<KeyRecord, Error> {
    let unresolved = || Error::invalid(format!("unable to resolve key id for reference: {reference}"));
    if reference == "default" {
        let chosen: DefaultKey = config(cx, "keys")?;
        if chosen.default.is_empty() {
            return Err(Error::invalid("no default key currently configured"));
        }
        return key(cx, &chosen.default)?.ok_or_else(unresolved);
    }
    if let Some(found) = key(cx, reference)? {
        return Ok(found);
    }
    keys(cx)?.into_iter().find(|k| !k.name.is_empty() && k.name == reference).ok_or_else(unresolved)
}

/// Writes an issuer.
pub fn save_issuer(cx: &mut Cx<'_, '_>, record: &IssuerRecord) {
    cx.put_json(ISSUERS, record.id.as_bytes(), record);
}

/// Writes a key.
pub fn save_key(cx: &mut Cx<'_, '_>, record: &KeyRecord) {
    cx.put_json(KEYS, record.id.as_bytes(), record);
}

/// The private key of a record.
pub fn private(record: &KeyRecord) -> Result<Private, Error> {
    Private::from_pkcs8(&record.pkcs8.0).map_err(|e| Error::internal(format!("stored key: {e}")))
}

/// Checks a name that an issuer or key is to have. `own` is the id of what has it already.
pub fn check_issuer_name(cx: &mut Cx<'_, '_>, name: &str, own: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Ok(());
    }
    if name == "default" {
        return Err(Error::invalid("reserved keyword 'default' can not be used as issuer name"));
    }
    if !is_name(name) {
        return Err(Error::invalid("issuer name contained invalid characters"));
    }
    match issuers(cx)?.iter().any(|i| i.name == name && i.id != own) {
        true => Err(Error::invalid("issuer name already in use")),
        false => Ok(()),
    }
}

/// As [`check_issuer_name`], for keys.
pub fn check_key_name(cx: &mut Cx<'_, '_>, name: &str, own: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Ok(());
    }
    if name == "default" {
        return Err(Error::invalid("reserved keyword 'default' can not be used as key name"));
    }
    if !is_name(name) {
        return Err(Error::invalid("key name contained invalid characters"));
    }
    match keys(cx)?.iter().any(|k| k.name == name && k.id != own) {
        true => Err(Error::invalid("key name already in use")),
        false => Ok(()),
    }
}

/// Keeps a key, unless it is kept already: answers the record and whether it is new. The first becomes the default.
pub fn add_key(cx: &mut Cx<'_, '_>, private: &Private, name: &str) -> Result<(KeyRecord, bool), Error> {
    let subject_key_id = cert::key_id(&private.public()?);
    if let Some(known) = keys(cx)?.into_iter().find(|k| k.subject_key_id.0 == subject_key_id) {
        return Ok((known, false));
    }
    let record = KeyRecord {
        id: uuid4(cx.rng),
        name: name.into(),
        spec: private.spec(),
        pkcs8: Bytes(private.pkcs8()?.to_vec()),
        subject_key_id: Bytes(subject_key_id),
    };
    save_key(cx, &record);
    let chosen: DefaultKey = config(cx, "keys")?;
    if chosen.default.is_empty() {
        save_config(cx, "keys", &DefaultKey { default: record.id.clone() });
    }
    // issuers that came before their key
    for mut i in issuers(cx)? {
        if i.key_id.is_empty()
            && cert::key_id(&i.parsed()?.tbs_certificate.subject_public_key_info) == record.subject_key_id.0
        {
            i.key_id = record.id.clone();
            save_issuer(cx, &i);
        }
    }
    Ok((record, true))
}

/// Keeps an issuer, unless it is kept already: answers the record and whether it is new.
pub fn add_issuer(cx: &mut Cx<'_, '_>, der: &[u8], name: &str) -> Result<(IssuerRecord, bool), Error> {
    let all = issuers(cx)?;
    if let Some(known) = all.iter().find(|i| i.certificate.0 == der) {
        return Ok((known.clone(), false));
    }
    let parsed = cert::parse(der).map_err(Error::invalid)?;
    let own = cert::key_id(&parsed.tbs_certificate.subject_public_key_info);
    let key_id = keys(cx)?.into_iter().find(|k| k.subject_key_id.0 == own).map(|k| k.id).unwrap_or_default();
    let record = IssuerRecord {
        id: uuid4(cx.rng),
        name: name.into(),
        key_id,
        certificate: Bytes(der.to_vec()),
        serial: cert::serial_text(&parsed.tbs_certificate.serial_number),
        outliving: Outliving::Err,
        usage: Usage::ALL.to_vec(),
        manual_chain: Vec::new(),
        chain: Vec::new(),
        revocation_signature_algorithm: String::new(),
        revoked_at: 0,
        revoked_at_ns: 0,
        urls: Urls::default(),
    };
    save_issuer(cx, &record);
    save_certificate(cx, &record.serial, &record.id, der);
    rebuild_chains(cx)?;
    Ok((issuer(cx, &record.id)?, true))
}

/// Renews the chain of every issuer. Issuers are few; the set changes seldom.
pub fn rebuild_chains(cx: &mut Cx<'_, '_>) -> Result<(), Error> {
    let all = issuers(cx)?;
    let parsed = all.iter().map(|i| i.parsed()).collect::<Result<Vec<_>, _>>()?;
    for (at, record) in all.iter().enumerate() {
        let mut chain = vec![record.id.clone()];
        if record.manual_chain.is_empty() {
            let mut here = at;
            loop {
                let self_issued = parsed[here].tbs_certificate.issuer == parsed[here].tbs_certificate.subject;
                let parent = (0..all.len())
                    .filter(|p| !chain.contains(&all[*p].id))
                    .find(|p| cert::signed_by(&parsed[here], &parsed[*p]));
                match parent {
                    Some(p) if !self_issued || !cert::signed_by(&parsed[here], &parsed[here]) => {
                        chain.push(all[p].id.clone());
                        here = p;
                    }
                    _ => break,
                }
            }
        } else {
            chain = record.manual_chain.clone();
        }
        if chain != record.chain {
            save_issuer(cx, &IssuerRecord { chain, ..record.clone() });
        }
    }
    Ok(())
}

/// An issuer's chain, itself first. What is not there any more is left out.
pub fn known_chain(cx: &mut Cx<'_, '_>, record: &IssuerRecord) -> Result<Vec<Arc<Issuer>>, Error> {
    let mut out = Vec::with_capacity(record.chain.len());
    for id in &record.chain {
        out.extend(known_issuer(cx, id)?);
    }
    Ok(out)
}

/// The certificates of an issuer's chain, itself first.
pub fn chain(cx: &mut Cx<'_, '_>, record: &IssuerRecord) -> Result<Vec<Bytes>, Error> {
    let mut out = Vec::with_capacity(record.chain.len());
    for id in &record.chain {
        if *id == record.id {
            out.push(record.certificate.clone());
        } else if let Some(i) = cx.get_json::<IssuerRecord>(ISSUERS, id.as_bytes())? {
            out.push(i.certificate);
        }
    }
    Ok(out)
}

/// Keeps a certificate.
pub fn save_certificate(cx: &mut Cx<'_, '_>, serial: &str, issuer_id: &str, der: &[u8]) {
    let issuer_id = if issuer_id.len() == NO_ISSUER.len() { issuer_id } else { NO_ISSUER };
    let mut value = Vec::with_capacity(der.len() + 37);
    value.push(FORMAT);
    value.extend_from_slice(issuer_id.as_bytes());
    value.extend_from_slice(der);
    cx.put(CERTS, serial.as_bytes(), &value);
}

/// A kept certificate: issuer id (or empty) and DER.
pub fn certificate(cx: &mut Cx<'_, '_>, serial: &str) -> Result<Option<(String, Vec<u8>)>, Error> {
    let Some(mut value) = cx.get(CERTS, serial.as_bytes())? else { return Ok(None) };
    let damaged = || Error::internal("unknown format of a certificate's record");
    if value.first() != Some(&FORMAT) || value.len() < 37 {
        return Err(damaged());
    }
    let der = value.split_off(37);
    let issuer_id = std::str::from_utf8(&value[1..]).map_err(|_| damaged())?;
    Ok(Some((if issuer_id == NO_ISSUER { String::new() } else { issuer_id.to_owned() }, der)))
}

/// A revoked certificate.
pub fn revoked(cx: &mut Cx<'_, '_>, serial: &str) -> Result<Option<Revoked>, Error> {
    cx.get_json(REVOKED, serial.as_bytes())
}
