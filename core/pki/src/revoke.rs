//! Revocation of certificates: by serial number, by the certificate itself, with its private key, by its lease.

use crate::cert;
use crate::config::CrlConfig;
use crate::crl;
use crate::issue;
use crate::issuers;
use crate::key::Private;
use crate::pem;
use crate::store::{self, Revoked};
use ringfence_base::Wall;
use ringfence_logical::{Args, Cx, Error, Outcome, Response};
use rustls_pki_types::pem::SectionKind;
use serde_json::json;

fn answer(r: &Revoked) -> Response {
    Response::json(json!({
        "revocation_time": Wall(r.at_ns).seconds(),
        "revocation_time_rfc3339": Wall(r.at_ns).rfc3339(),
        "state": "revoked",
    }))
}

/// A certificate that is to be revoked.
pub struct Named {
    /// As [`cert::serial_text`].
    pub serial: String,
    pub der: Vec<u8>,
    /// Empty if its issuer is not known.
    pub issuer_id: String,
    /// It is stored here already.
    pub stored: bool,
}

/// The certificate that a request names.
fn named(cx: &mut Cx<'_, '_>, args: &Args) -> Result<Named, Error> {
    let (serial, given) = (args.str("serial_number"), args.str("certificate"));
    if serial.is_empty() && given.is_empty() {
        return Err(Error::invalid("The serial number or certificate to revoke must be provided."));
    }
    if !serial.is_empty() && !given.is_empty() {
        return Err(Error::invalid("Must provide either the certificate or the serial to revoke; not both."));
    }
    if given.is_empty() {
        let text = cert::parse_serial(serial).map(|b| cert::hex_pairs(&b)).unwrap_or_else(|| serial.to_owned());
        return match store::certificate(cx, &text)? {
            Some((issuer_id, der)) => Ok(Named { serial: text, der, issuer_id, stored: true }),
            None => Err(Error::invalid(format!("certificate with serial {text} not found."))),
        };
    }
    let der =
        issue::certificate_field(given).ok_or_else(|| Error::invalid("certificate could not be PEM-decoded"))?;
    let parsed = cert::parse(&der).map_err(Error::invalid)?;
    let text = cert::serial_text(&parsed.tbs_certificate.serial_number);
    if let Some((issuer_id, stored)) = store::certificate(cx, &text)? {
        return match stored == der {
            true => Ok(Named { serial: text, der, issuer_id, stored: true }),
            false => Err(Error::invalid(
                "certificate with the same serial number but different contents is stored here already",
            )),
        };
    }
    // not stored: it must at least be of one of our issuers
    for i in store::issuers(cx)? {
        if cert::signed_by(&parsed, &i.parsed()?) {
            return Ok(Named { serial: text, der, issuer_id: i.id, stored: false });
        }
    }
    Err(Error::invalid(
        "unable to verify signature on presented cert from any present issuer in this mount; certificates from previous CAs will need to have their issuing CA and key re-imported if revocation is necessary",
    ))
}

/// Revokes a certificate, once.
pub fn revoke_certificate(cx: &mut Cx<'_, '_>, named: &Named) -> Result<Response, Error> {
    let Named { serial, der, issuer_id, stored } = named;
    if let Some(r) = store::revoked(cx, serial)? {
        return Ok(answer(&r));
    }
    let parsed = cert::parse(der).map_err(Error::invalid)?;
    if let Some(i) = issuers::is_issuer(cx, serial)?
        && parsed.tbs_certificate.subject == parsed.tbs_certificate.issuer
    {
        return Err(Error::invalid(format!("adding issuer (id: {}) to its own CRL is not allowed", i.id)));
    }
    let c: CrlConfig = store::config(cx, "crl")?;
    if cert::not_after(&parsed) < cx.now.seconds() && !c.allow_expired_cert_revocation {
        return Ok(Response::default().warn(format!(
            "certificate with serial {serial} already expired; refusing to add to CRL. Enable \
             'AllowExpiredCertRevocation' to allow revoking expired certificates."
        )));
    }
    if !stored {
        store::save_certificate(cx, serial, issuer_id, der);
    }
    let r = crl::add(cx, &parsed, der, issuer_id)?;
    Ok(answer(&r))
}

/// `revoke`.
pub fn revoke(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let certificate = named(cx, args)?;
    revoke_certificate(cx, &certificate)?.done()
}

/// `revoke-with-key`.
pub fn revoke_with_key(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let text = args.str("private_key");
    if text.is_empty() {
        return Err(Error::invalid("private_key parameter is required"));
    }
    let key = pem::sections(text)
        .ok()
        .and_then(|all| {
            all.into_iter().find_map(|(kind, der)| match kind {
                SectionKind::PrivateKey => Some(Private::from_pkcs8(&der)),
                SectionKind::RsaPrivateKey => Some(Private::from_pkcs1(&der)),
                SectionKind::EcPrivateKey => Some(Private::from_sec1(&der)),
                _ => None,
            })
        })
        .ok_or_else(|| Error::invalid("failed to parse provided private key"))?
        .map_err(|_| Error::invalid("failed to parse provided private key"))?;
    let certificate = named(cx, args)?;
    let parsed = cert::parse(&certificate.der).map_err(Error::invalid)?;
    if key.public()? != parsed.tbs_certificate.subject_public_key_info {
        return Err(Error::invalid("provided private key does not match certificate's public key"));
    }
    revoke_certificate(cx, &certificate)?.done()
}

/// The end of a lease.
pub fn by_lease(cx: &mut Cx<'_, '_>, serial: &str) -> Outcome {
    match store::certificate(cx, serial)? {
        Some((issuer_id, der)) => {
            revoke_certificate(cx, &Named { serial: serial.to_owned(), der, issuer_id, stored: true })?.done()
        }
        None => ringfence_logical::nothing(),
    }
}

/// `LIST certs`, `LIST certs/revoked`.
pub fn list(cx: &mut Cx<'_, '_>, area: u8, args: &Args) -> Outcome {
    let limit = usize::try_from(args.int("limit")).unwrap_or(0);
    Response::keys(cx.list(area, "", args.str("after"), limit)?).done()
}
