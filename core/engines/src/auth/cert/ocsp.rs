//! Asks the issuer's responders whether a certificate was revoked (RFC 6960). An answer counts only if the issuer, a
//! responder that it delegated to, or an authority named in the entry signed it, for this very certificate, and if it
//! is neither too old nor of the future.

use super::chain::{self, SIGNATURES};
use super::entry::Entry;
use crate::outside::{HttpAsk, Outside, Stop};
use aws_lc_rs::digest;
use der::asn1::{Any, OctetString};
use der::oid::ObjectIdentifier;
use der::{Decode, Encode};
use ringfence_base::Wall;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspRequest, OcspResponse, OcspResponseStatus, Request, TbsRequest,
    Version,
};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::X509Certificate;

const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const OCSP_BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const AIA_OCSP: &str = "1.3.6.1.5.5.7.48.1";
/// id-kp-OCSPSigning, 1.3.6.1.5.5.7.3.9, as the content of its DER.
const OCSP_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x09];
/// How far the clocks of responders may be ahead. Seconds.
const MAX_SKEW_S: u64 = 300;
/// An answer is taken from memory for so long. Seconds.
const FRESH_S: u32 = 60;
/// Responders that are asked for one certificate.
const MAX_SERVERS: usize = 8;
/// Longest answer that is looked at.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// What the responders say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Good,
    Revoked,
    /// Nothing that counts.
    Nothing,
}

/// True if the leaf of a chain may be let in as far as its responders are concerned.
pub fn allows(entry: &Entry, chain_der: &[CertificateDer<'static>], out: &Outside, now: Wall) -> Result<bool, Stop> {
    // a certificate that is trusted itself has no issuer here that could answer for it
    let [leaf, issuer, ..] = chain_der else { return Ok(true) };
    let (Some(certificate), Some(authority)) = (chain::parse(leaf), chain::parse(issuer)) else { return Ok(false) };
    let servers = match entry.ocsp_servers_override.is_empty() {
        true => servers_of(&certificate),
        false => entry.ocsp_servers_override.clone(),
    };
    let Some(id) = id_of(&certificate, &authority) else { return Ok(false) };
    let Some(body) = request_of(&id) else { return Ok(false) };
    let mut said = Vec::new();
    for server in servers.into_iter().take(MAX_SERVERS) {
        let ask = HttpAsk {
            max_answer_bytes: MAX_BODY_BYTES,
            fresh_s: FRESH_S,
            retries: entry.ocsp_max_retries,
            ..HttpAsk::post(server, "application/ocsp-request", body.clone())
        };
        let one = match out.ask(ask)? {
            Ok(answer) if answer.status == 200 => {
                judge(entry, &id, issuer, &answer.body, now).unwrap_or(Said::Nothing)
            }
            _ => Said::Nothing,
        };
        said.push(one);
        if one != Said::Nothing && !entry.ocsp_query_all_servers {
            break;
        }
    }
    if said.contains(&Said::Revoked) {
        return Ok(false);
    }
    let agreed = match entry.ocsp_query_all_servers {
        true => !said.is_empty() && said.iter().all(|s| *s == Said::Good),
        false => said.contains(&Said::Good),
    };
    Ok(agreed || entry.ocsp_fail_open)
}

/// The responders that a certificate names.
fn servers_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut servers = Vec::new();
    for extension in certificate.extensions() {
        if let ParsedExtension::AuthorityInfoAccess(aia) = extension.parsed_extension() {
            for description in &aia.accessdescs {
                if let (AIA_OCSP, GeneralName::URI(url)) =
                    (description.access_method.to_id_string().as_str(), &description.access_location)
                {
                    servers.push((*url).to_owned());
                }
            }
        }
    }
    servers
}

/// How the question names a certificate (RFC 6960 4.1.1).
fn id_of(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Option<CertId> {
    let sha1 =
        |bytes: &[u8]| OctetString::new(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref()).ok();
    Some(CertId {
        hash_algorithm: AlgorithmIdentifierOwned { oid: SHA1, parameters: Some(Any::null()) },
        issuer_name_hash: sha1(issuer.subject().as_raw())?,
        issuer_key_hash: sha1(&issuer.public_key().subject_public_key.data)?,
        serial_number: SerialNumber::new(certificate.raw_serial()).ok()?,
    })
}

fn request_of(id: &CertId) -> Option<Vec<u8>> {
    let request = Request { req_cert: id.clone(), single_request_extensions: None };
    let tbs_request = TbsRequest {
        version: Version::V1,
        requestor_name: None,
        request_list: vec![request],
        request_extensions: None,
    };
    OcspRequest { tbs_request, optional_signature: None }.to_der().ok()
}

/// What an answer says of the certificate; `None` if it does not count.
fn judge(entry: &Entry, id: &CertId, issuer: &CertificateDer<'static>, body: &[u8], now: Wall) -> Option<Said> {
    let response = OcspResponse::from_der(body).ok()?;
    let bytes = response.response_bytes.filter(|b| b.response_type == OCSP_BASIC)?;
    if response.response_status != OcspResponseStatus::Successful {
        return None;
    }
    let basic = BasicOcspResponse::from_der(bytes.response.as_bytes()).ok()?;
    if !is_signed(entry, &basic, issuer, now) {
        return None;
    }
    let same = |other: &CertId| {
        other.hash_algorithm.oid == id.hash_algorithm.oid
            && other.issuer_name_hash == id.issuer_name_hash
            && other.issuer_key_hash == id.issuer_key_hash
            && other.serial_number == id.serial_number
    };
    let single = basic.tbs_response_data.responses.iter().find(|r| same(&r.cert_id))?;
    let now = now.seconds();
    let this_update = single.this_update.0.to_unix_duration().as_secs();
    let ended = single.next_update.as_ref().is_some_and(|t| t.0.to_unix_duration().as_secs() < now);
    let too_old = entry.ocsp_this_update_max_age > 0 && now > this_update + entry.ocsp_this_update_max_age;
    if this_update > now + MAX_SKEW_S || ended || too_old {
        return None;
    }
    match single.cert_status {
        CertStatus::Good(_) => Some(Said::Good),
        CertStatus::Revoked(_) => Some(Said::Revoked),
        CertStatus::Unknown(_) => None,
    }
}

/// RFC 6960 4.2.2.2: the issuer itself, one with a certificate of the issuer for this purpose, or one that we trust
/// for it.
fn is_signed(entry: &Entry, basic: &BasicOcspResponse, issuer: &CertificateDer<'static>, now: Wall) -> bool {
    let Ok(signed) = basic.tbs_response_data.to_der() else { return false };
    let Some(signature) = basic.signature.as_bytes() else { return false };
    let Ok(algorithm) = basic.signature_algorithm.to_der() else { return false };
    // webpki names algorithms by the content of the sequence
    let id = der::asn1::AnyRef::from_der(&algorithm).map(|a| a.value().to_vec()).unwrap_or_default();
    let made_by = |certificate: &CertificateDer<'_>| {
        EndEntityCert::try_from(certificate).is_ok_and(|c| {
            let fitting = SIGNATURES.iter().filter(|a| a.signature_alg_id().as_ref() == id.as_slice());
            fitting.into_iter().any(|a| c.verify_signature(*a, &signed, signature).is_ok())
        })
    };
    let trusted = chain::of_pem(&entry.ocsp_ca_certificates).unwrap_or_default();
    let mut authorities = vec![issuer.clone()];
    authorities.extend(trusted);
    if authorities.iter().any(made_by) {
        return true;
    }
    let anchors: Vec<_> = authorities.iter().filter_map(|a| anchor_from_trusted_cert(a).ok()).collect();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now.seconds()));
    basic.certs.iter().flatten().take(chain::MAX_CERTIFICATES).any(|certificate| {
        let Ok(der) = certificate.to_der() else { return false };
        let der = CertificateDer::from(der);
        let delegated = EndEntityCert::try_from(&der).is_ok_and(|c| {
            c.verify_for_usage(SIGNATURES, &anchors, &[], time, KeyUsage::required(OCSP_SIGNING), None, None).is_ok()
        });
        delegated && made_by(&der)
    })
}
