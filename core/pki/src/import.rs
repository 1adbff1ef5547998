//! Certificates and keys that come from elsewhere.

use crate::cert;
use crate::key::Private;
use crate::pem;
use crate::root;
use crate::store;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response};
use rustls_pki_types::pem::SectionKind;
use serde_json::Value;

/// `issuers/import/bundle`, `config/ca`.
pub fn bundle(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    import(cx, &text_of(args)?, true)
}

/// `issuers/import/cert`.
pub fn certificates(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    import(cx, &text_of(args)?, false)
}

/// `intermediate/set-signed`.
pub fn set_signed(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if args.str("certificate").is_empty() {
        return Err(Error::invalid("no certificate provided in \"certificate\" parameter"));
    }
    import(cx, &text_of(args)?, false)
}

fn text_of(args: &Args) -> Result<String, Error> {
    let text = match (args.str("pem_bundle"), args.str("certificate")) {
        ("", "") => return Err(Error::invalid("'pem_bundle' and 'certificate' parameters were empty")),
        ("", c) => c,
        (b, _) => b,
    };
    // shorter than any certificate: a path, most likely
    if text.len() < 75 {
        return Err(Error::invalid(
            "provided data for import was too short; perhaps a path was passed to the API rather than the contents of \
             a PEM file",
        ));
    }
    Ok(text.to_owned())
}

fn private(kind: SectionKind, der: &[u8]) -> Option<Result<Private, String>> {
    Some(match kind {
        SectionKind::PrivateKey => Private::from_pkcs8(der),
        SectionKind::RsaPrivateKey => Private::from_pkcs1(der),
        SectionKind::EcPrivateKey => Private::from_sec1(der),
        _ => return None,
    })
}

fn import(cx: &mut Cx<'_, '_>, text: &str, keys_allowed: bool) -> Outcome {
    let sections = pem::sections(text).map_err(|e| Error::invalid(format!("unable to parse PEM bundle: {e}")))?;
    let mut keys = Vec::new();
    let mut certificates = Vec::new();
    for (kind, der) in sections {
        if let Some(key) = private(kind, &der) {
            if !keys_allowed {
                return Err(Error::invalid(
                    "private keys found in the PEM bundle but not allowed by the path; use /issuers/import/bundle",
                ));
            }
            keys.push(key.map_err(Error::invalid)?);
        } else if kind == SectionKind::Certificate {
            let parsed = cert::parse(&der).map_err(Error::invalid)?;
            if !cert::is_ca(&parsed) {
                return Err(Error::invalid(format!(
                    "refusing to import a certificate that is not a CA certificate: serial {}",
                    cert::serial_text(&parsed.tbs_certificate.serial_number)
                )));
            }
            certificates.push(der);
        }
    }
    if keys.is_empty() && certificates.is_empty() {
        return Err(Error::invalid("unable to parse PEM bundle: no certificate and no key was found"));
    }
    let (mut new_keys, mut old_keys) = (Vec::new(), Vec::new());
    for k in &keys {
        let (record, new) = store::add_key(cx, k, "")?;
        if new { new_keys.push(record.id) } else { old_keys.push(record.id) }
    }
    let (mut new_issuers, mut old_issuers) = (Vec::new(), Vec::new());
    let mut mapping = Map::new();
    for der in &certificates {
        let (record, new) = store::add_issuer(cx, der, "")?;
        mapping.insert(record.id.clone(), record.key_id.into());
        if new { new_issuers.push(record.id) } else { old_issuers.push(record.id) }
    }
    // of the new ones, the first that can sign
    let with_key = new_issuers.iter().find(|id| mapping[*id].as_str() != Some("")).or(new_issuers.first()).cloned();
    if let Some(id) = with_key {
        root::follow_default(cx, &id)?;
    }
    let list = |ids: Vec<String>| if ids.is_empty() { Value::Null } else { ids.into() };
    let mut warnings = Vec::new();
    let urls: crate::cert::Urls = store::config(cx, "urls")?;
    if !new_issuers.is_empty() && urls.is_empty() {
        warnings.push(root::NO_AIA.into());
    }
    let mut data = Map::new();
    data.insert("imported_issuers".into(), list(new_issuers));
    data.insert("imported_keys".into(), list(new_keys));
    data.insert("existing_issuers".into(), list(old_issuers));
    data.insert("existing_keys".into(), list(old_keys));
    data.insert("mapping".into(), mapping.into());
    Response { warnings, ..Response::data(data) }.done()
}
