//! The OCSP responder (RFC 6960, the lightweight profile of RFC 5019: one certificate a request).
//!
//! Only the record of revocations is asked: a serial number that was never issued here is *good* if its issuer is ours,
//! so that certificates which were not stored can be asked for too.
//!
//! Anybody may ask. An RSA key is opened and signs outside the core, where a crowd of those who ask holds up nobody who
//! has a token.

use crate::cert::{self, Certificate};
use crate::config::{CrlConfig, seconds};
use crate::key::{Algorithm, Kind};
use crate::store::{self, IssuerRecord, KeyRecord, Usage};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::asn1::{BitString, GeneralizedTime, Null};
use der::{DateTime, Decode, Encode};
use ringfence_base::Code;
use ringfence_logical::{Args, Compute, Cx, Error, Outcome, Response, SideResult, Step};
use std::sync::Arc;
use std::time::Duration;
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspRequest, OcspResponse, ResponderId, ResponseData,
    RevokedInfo, SingleResponse, Version,
};

/// Longest request, bytes. Source: Vault's `maximumRequestSize`.
const MAX_REQUEST_BYTES: usize = 2048;
const CONTENT_TYPE: &str = "application/ocsp-response";

fn plain(code: Code, answer: OcspResponse) -> Outcome {
    let der = answer.to_der().map_err(cert::coding)?;
    Response::raw(CONTENT_TYPE, der).code(code).done()
}

fn malformed() -> Outcome {
    plain(Code::Invalid, OcspResponse::malformed_request())
}

// the API answers the protocol's refusal under the status that fits it
fn unauthorized() -> Outcome {
    plain(Code::Custom(401), OcspResponse::unauthorized())
}

/// `POST ocsp`: the edge hands a body of this content type over in base64.
pub fn post(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    respond(cx, args.str("body"))
}

/// `GET ocsp/:request`.
pub fn get(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    respond(cx, args.str("req"))
}

fn respond(cx: &mut Cx<'_, '_>, base64: &str) -> Outcome {
    let c: CrlConfig = store::config(cx, "crl")?;
    if c.ocsp_disable {
        return unauthorized();
    }
    // four characters stand for three bytes
    if base64.len() > MAX_REQUEST_BYTES.div_ceil(3) * 4 {
        return malformed();
    }
    // a plus sign that a client forgot to escape came as a space
    let Ok(der) = STANDARD.decode(base64.trim().replace(' ', "+")) else { return malformed() };
    let Ok(request) = OcspRequest::from_der(&der) else { return malformed() };
    let [one] = &request.tbs_request.request_list[..] else { return malformed() };
    let id = one.req_cert.clone();
    let (issuer, matched) = match responder(cx, &id)? {
        Some(found) => found,
        None => return unauthorized(),
    };
    let unsigned = match unsigned(cx, &c, issuer, matched, id, request.nonce()) {
        Ok(u) => u,
        Err(_) => return failed(),
    };
    if unsigned.key.spec.kind != Kind::Rsa {
        return signed(unsigned.sign());
    }
    let op = Compute::op("sign an OCSP answer", move || match unsigned.sign() {
        Ok(der) => SideResult::Bytes(Arc::new(der)),
        Err(e) => SideResult::Failed(e.text()),
    });
    let resume = Box::new(|_: &mut Cx<'_, '_>, result: &SideResult| match result {
        SideResult::Bytes(der) => signed(Ok(der.to_vec())),
        _ => failed(),
    });
    Ok(Step::Side { op, resume })
}

fn signed(answer: Result<Vec<u8>, Error>) -> Outcome {
    match answer {
        Ok(der) => Response::raw(CONTENT_TYPE, der).done(),
        Err(_) => failed(),
    }
}

fn failed() -> Outcome {
    plain(Code::Internal, OcspResponse::internal_error())
}

/// Who answers, and whether the certificate's issuer is one of ours.
fn responder(cx: &mut Cx<'_, '_>, id: &CertId) -> Result<Option<(IssuerRecord, bool)>, Error> {
    let usable = |i: &IssuerRecord| i.may(Usage::OcspSigning) && !i.key_id.is_empty();
    let mut refused = false;
    for i in store::issuers(cx)? {
        if is_of(id, &i.parsed()?) {
            if usable(&i) {
                return Ok(Some((i, true)));
            }
            refused = true;
        }
    }
    // ours, but nobody may speak for it
    if refused {
        return Ok(None);
    }
    match store::issuer(cx, "default") {
        Ok(i) if usable(&i) => Ok(Some((i, false))),
        _ => Ok(None),
    }
}

fn is_of(id: &CertId, issuer: &Certificate) -> bool {
    let hash = |bytes: &[u8]| -> Option<Vec<u8>> {
        let algorithm = match id.hash_algorithm.oid.to_string().as_str() {
            "1.3.14.3.2.26" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            "2.16.840.1.101.3.4.2.1" => &digest::SHA256,
            "2.16.840.1.101.3.4.2.2" => &digest::SHA384,
            "2.16.840.1.101.3.4.2.3" => &digest::SHA512,
            _ => return None,
        };
        Some(digest::digest(algorithm, bytes).as_ref().to_vec())
    };
    let name = issuer.tbs_certificate.subject.to_der().ok().and_then(|d| hash(&d));
    let key = hash(issuer.tbs_certificate.subject_public_key_info.subject_public_key.raw_bytes());
    name.as_deref() == Some(id.issuer_name_hash.as_bytes()) && key.as_deref() == Some(id.issuer_key_hash.as_bytes())
}

fn moment(seconds: u64) -> Result<OcspGeneralizedTime, Error> {
    let date = DateTime::from_unix_duration(Duration::from_secs(seconds)).map_err(cert::coding)?;
    Ok(OcspGeneralizedTime(GeneralizedTime::from_date_time(date)))
}

/// An answer that wants its signature, and all that signing needs.
struct Unsigned {
    data: ResponseData,
    certificate: Certificate,
    /// As the issuer names it; else the key's own.
    algorithm: Option<Algorithm>,
    key: KeyRecord,
}

impl Unsigned {
    fn sign(&self) -> Result<Vec<u8>, Error> {
        let key = store::private(&self.key)?;
        let algorithm = self.algorithm.unwrap_or_else(|| key.algorithm(0, false));
        let message = self.data.to_der().map_err(cert::coding)?;
        let signature = key.sign(algorithm, &message)?;
        let basic = BasicOcspResponse {
            tbs_response_data: self.data.clone(),
            signature_algorithm: algorithm.identifier()?,
            signature: BitString::from_bytes(&signature).map_err(cert::coding)?,
            certs: Some(vec![self.certificate.clone()]),
        };
        OcspResponse::successful(basic).and_then(|r| r.to_der()).map_err(cert::coding)
    }
}

fn unsigned(
    cx: &mut Cx<'_, '_>,
    c: &CrlConfig,
    issuer: IssuerRecord,
    matched: bool,
    id: CertId,
    nonce: Option<x509_ocsp::ext::Nonce>,
) -> Result<Unsigned, Error> {
    let certificate = issuer.parsed()?;
    let key = store::key(cx, &issuer.key_id)?.ok_or_else(|| Error::internal("an issuer's key is gone"))?;
    let now = cx.now.seconds();
    let serial = cert::serial_text(&id.serial_number);
    let status = match (matched, store::revoked(cx, &serial)?) {
        (false, _) => CertStatus::Unknown(Null),
        (true, None) => CertStatus::Good(Null),
        (true, Some(r)) => CertStatus::Revoked(RevokedInfo {
            revocation_time: moment(r.at_ns / 1_000_000_000)?,
            revocation_reason: None,
        }),
    };
    let expiry = seconds(&c.ocsp_expiry);
    let single = SingleResponse {
        cert_id: id,
        cert_status: status,
        this_update: moment(now)?,
        next_update: (expiry > 0).then(|| moment(now + expiry)).transpose()?,
        single_extensions: None,
    };
    let response_extensions = match nonce {
        Some(n) => Some(vec![cert::extension(false, &n)?]),
        None => None,
    };
    let data = ResponseData {
        version: Version::V1,
        responder_id: ResponderId::ByName(certificate.tbs_certificate.subject.clone()),
        produced_at: moment(now)?,
        responses: vec![single],
        response_extensions,
    };
    let algorithm = Algorithm::by_name(&issuer.revocation_signature_algorithm);
    Ok(Unsigned { data, certificate, algorithm, key })
}
