//! Login and renewal with the certificate of the connection.

use super::chain::{self, Trusted};
use super::config;
use super::constraints::{self, Names};
use super::crl;
use super::entry::{self, Entry};
use super::ocsp;
use crate::outside::{self, Outside, Stop};
use crate::tokenutil::same_policies;
use aws_lc_rs::digest;
use ringfence_logical::{Alias, Args, Cx, Error, Map, Outcome, Renewal, Response};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use std::collections::BTreeMap;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::X509Certificate;

const NOT_TRUSTED: &str = "invalid certificate or no client certificate supplied";
const NOT_MATCHING: &str = "no chain matching all constraints could be found for this login certificate";
const OTHER_CLIENT: &str = "client identity during renewal not matching client identity used during login";

pub fn login(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").to_owned();
    outside::run(cx, move |cx, out| with_certificate(cx, out, &name))
}

/// The client's certificates, leaf first.
fn shown(cx: &Cx<'_, '_>) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all = &cx.req.peer_certificates;
    if all.is_empty() {
        return Err(Error::invalid("client certificate must be supplied"));
    }
    if all.len() > chain::MAX_CERTIFICATES || chain::parse(&all[0]).is_none() {
        return Err(Error::invalid(NOT_TRUSTED));
    }
    Ok(all.iter().map(|der| CertificateDer::from(der.clone())).collect())
}

fn with_certificate(cx: &mut Cx<'_, '_>, out: &Outside, name: &str) -> Result<Option<Response>, Stop> {
    let shown = shown(cx)?;
    let leaf = chain::parse(&shown[0]).ok_or_else(|| Error::invalid(NOT_TRUSTED))?;
    let names = if name.is_empty() { entry::names(cx)? } else { vec![name.to_owned()] };
    let mut chained = false;
    for name in names {
        let Some(entry) = entry::load(cx, &name)? else { continue };
        let Some(trusted) = admissible(cx, &entry, &shown, &leaf, &mut chained)? else { continue };
        if entry.ocsp_enabled && !ocsp::allows(&entry, trusted.chain(), out, cx.now)? {
            continue;
        }
        if !cx.host.cidr_allows(&entry.token.bound_cidrs, cx.req.remote) {
            return Err(Error::denied_plain().into());
        }
        return Ok(Some(admit(cx, &name, &entry, &leaf)?));
    }
    Err(Error::invalid(if chained { NOT_MATCHING } else { NOT_TRUSTED }).into())
}

/// How an entry trusts what was shown, if it does and everything but OCSP is well. Notes if there was a chain.
fn admissible(
    cx: &mut Cx<'_, '_>,
    entry: &Entry,
    shown: &[CertificateDer<'static>],
    leaf: &X509Certificate<'_>,
    chained: &mut bool,
) -> Result<Option<Trusted>, Error> {
    let anchors = chain::of_pem(&entry.certificate).unwrap_or_default();
    let Some(trusted) = chain::find(shown, &anchors, cx.now) else { return Ok(None) };
    *chained |= matches!(trusted, Trusted::Chain(_));
    if !constraints::met(entry, leaf) || crl::revokes(cx, trusted.chain())? {
        return Ok(None);
    }
    Ok(Some(trusted))
}

fn admit(cx: &mut Cx<'_, '_>, name: &str, entry: &Entry, leaf: &X509Certificate<'_>) -> Result<Response, Error> {
    let Some(common) = Names::of(leaf).common.into_iter().next().filter(|c| !c.is_empty()) else {
        return Err(Error::invalid("missing name in alias"));
    };
    let mut metadata = constraints::metadata(entry, leaf);
    let (subject_key, authority_key) = key_ids(leaf);
    metadata.extend([
        ("cert_name".to_owned(), name.to_owned()),
        ("common_name".to_owned(), common.clone()),
        ("serial_number".to_owned(), leaf.serial.to_string()),
        ("subject_key_id".to_owned(), subject_key),
        ("authority_key_id".to_owned(), authority_key),
    ]);
    let of_alias = config::load(cx)?.enable_identity_alias_metadata;
    let mut auth = entry.token.auth(cx.req.remote);
    auth.display_name = entry.display_name.clone();
    auth.alias = Some(Alias { name: common, metadata: if of_alias { metadata.clone() } else { BTreeMap::new() } });
    auth.metadata = metadata;
    auth.internal =
        Map::from_iter([("cert_name".to_owned(), name.into()), ("client".to_owned(), identity_of(leaf).into())]);
    auth.role = name.to_owned();
    Ok(Response { auth: Some(auth), ..Response::default() })
}

/// Subject and authority key identifier, hex with colons.
fn key_ids(certificate: &X509Certificate<'_>) -> (String, String) {
    let text = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":");
    let (mut subject, mut authority) = (String::new(), String::new());
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => subject = text(id.0),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                authority = id.key_identifier.as_ref().map(|k| text(k.0)).unwrap_or_default();
            }
            _ => {}
        }
    }
    (subject, authority)
}

/// Whom a certificate stands for, whatever identifiers it carries or lacks: issuer, subject and key. A certificate
/// that follows upon another with the same three is the same client.
fn identity_of(certificate: &X509Certificate<'_>) -> String {
    let mut all = digest::Context::new(&digest::SHA256);
    for part in [certificate.issuer().as_raw(), certificate.subject().as_raw(), certificate.public_key().raw] {
        all.update(&(part.len() as u64).to_be_bytes());
        all.update(part);
    }
    hex::encode(all.finish())
}

/// A renewal asks the responders that a login would: a certificate that was revoked since then ends with its token. What
/// else speaks against it is told by [`renew`].
pub fn prove_renewal(cx: &mut Cx<'_, '_>, internal: &Map) -> Outcome {
    let name = internal.get("cert_name").and_then(Value::as_str).unwrap_or_default().to_owned();
    outside::run(cx, move |cx, out| {
        let Some(entry) = entry::load(cx, &name)?.filter(|e| e.ocsp_enabled) else { return Ok(None) };
        if config::load(cx)?.disable_binding {
            return Ok(None);
        }
        let shown = shown(cx)?;
        let leaf = chain::parse(&shown[0]).ok_or_else(|| Error::invalid(NOT_TRUSTED))?;
        match admissible(cx, &entry, &shown, &leaf, &mut false)? {
            Some(trusted) if !ocsp::allows(&entry, trusted.chain(), out, cx.now)? => {
                Err(Error::invalid(NOT_MATCHING).into())
            }
            _ => Ok(None),
        }
    })
}

/// A renewal needs the entry with the same policies and, unless the mount says otherwise, the client of the login with
/// a certificate that would still be let in.
pub fn renew(cx: &mut Cx<'_, '_>, policies: &[String], internal: &Map) -> Result<Renewal, Error> {
    let text = |name: &str| internal.get(name).and_then(Value::as_str).unwrap_or_default();
    let entry = entry::load(cx, text("cert_name"))?
        .ok_or_else(|| Error::invalid("certificate entry does not exist anymore, not renewing"))?;
    if !config::load(cx)?.disable_binding {
        let shown = shown(cx)?;
        let leaf = chain::parse(&shown[0]).ok_or_else(|| Error::invalid(NOT_TRUSTED))?;
        if identity_of(&leaf) != text("client") {
            return Err(Error::invalid(OTHER_CLIENT));
        }
        let mut chained = false;
        if admissible(cx, &entry, &shown, &leaf, &mut chained)?.is_none() {
            return Err(Error::invalid(if chained { NOT_MATCHING } else { NOT_TRUSTED }));
        }
    }
    if !same_policies(&entry.token.policies, policies) {
        return Err(Error::invalid("policies have changed, not renewing"));
    }
    Ok(entry.token.renewal())
}
