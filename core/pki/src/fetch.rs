//! What relying parties fetch without a token: authorities, lists, certificates.

use crate::cert;
use crate::crl::{self, Which};
use crate::pem;
use crate::store;
use ringfence_base::Code;
use ringfence_base::Wall;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Raw, Response, nothing};

const CERTIFICATE: &str = "application/pkix-cert";
const CHAIN: &str = "application/pem-certificate-chain";

/// Nothing to fetch: no body and no error.
fn empty() -> Outcome {
    Response { raw: Some(Raw::default()), code: Some(Code::NoContent), ..Response::default() }.done()
}

fn default_issuer(cx: &mut Cx<'_, '_>) -> Option<store::IssuerRecord> {
    store::issuer(cx, "default").ok()
}

/// `ca`, `cert/ca/raw`.
pub fn ca_der(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    match default_issuer(cx) {
        Some(i) => Response::raw(CERTIFICATE, i.certificate.0).done(),
        None => empty(),
    }
}

/// `ca/pem`, `cert/ca/raw/pem`.
pub fn ca_pem(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    match default_issuer(cx) {
        Some(i) => Response::raw(CHAIN, i.pem().into_bytes()).done(),
        None => empty(),
    }
}

fn chain_text(cx: &mut Cx<'_, '_>, i: &store::IssuerRecord) -> Result<String, Error> {
    Ok(store::chain(cx, i)?.iter().map(|c| pem::certificate(&c.0)).collect::<Vec<_>>().join("\n"))
}

/// `ca_chain`. The content type is what clients know it by, although the body is PEM.
pub fn ca_chain(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    match default_issuer(cx) {
        Some(i) => Response::raw(CERTIFICATE, chain_text(cx, &i)?.into_bytes()).done(),
        None => empty(),
    }
}

/// `cert/ca_chain`.
pub fn ca_chain_json(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    let Some(i) = default_issuer(cx) else { return nothing() };
    let text = chain_text(cx, &i)?;
    let mut data = entry(&text, None, &i.id);
    data.insert("ca_chain".into(), text.into());
    Response::data(data).done()
}

/// `cert/ca`.
pub fn ca_json(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    let Some(i) = default_issuer(cx) else { return nothing() };
    Response::data(entry(&i.pem(), None, &i.id)).done()
}

fn entry(text: &str, revoked_at_ns: Option<u64>, issuer_id: &str) -> Map {
    let mut data = Map::new();
    data.insert("certificate".into(), text.into());
    data.insert("revocation_time".into(), revoked_at_ns.map_or(0, |t| Wall(t).seconds()).into());
    data.insert("revocation_time_rfc3339".into(), revoked_at_ns.map_or(String::new(), |t| Wall(t).rfc3339()).into());
    if !issuer_id.is_empty() {
        data.insert("issuer_id".into(), issuer_id.into());
    }
    data
}

fn by_serial(cx: &mut Cx<'_, '_>, args: &Args) -> Result<Option<(String, Vec<u8>, String)>, Error> {
    let Some(bytes) = cert::parse_serial(args.str("serial")) else { return Ok(None) };
    let serial = cert::hex_pairs(&bytes);
    Ok(store::certificate(cx, &serial)?.map(|(issuer, der)| (serial, der, issuer)))
}

/// `cert/:serial`.
pub fn certificate(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some((serial, der, issuer_id)) = by_serial(cx, args)? else { return nothing() };
    let revoked = store::revoked(cx, &serial)?.map(|r| r.at_ns);
    let mut data = entry(&pem::certificate(&der), revoked, &issuer_id);
    if let Ok(c) = cert::parse(&der) {
        data.insert("authority_key_id".into(), cert::hex_pairs(&cert::authority_key_id(&c)).into());
    }
    Response::data(data).done()
}

/// `cert/:serial/raw`.
pub fn certificate_der(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match by_serial(cx, args)? {
        Some((_, der, _)) => Response::raw(CERTIFICATE, der).done(),
        None => empty(),
    }
}

/// `cert/:serial/raw/pem`.
pub fn certificate_pem(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match by_serial(cx, args)? {
        Some((_, der, _)) => Response::raw(CHAIN, pem::certificate(&der).into_bytes()).done(),
        None => empty(),
    }
}

#[derive(Clone, Copy)]
enum Form {
    Der,
    Pem,
    Json,
}

fn list(cx: &mut Cx<'_, '_>, args: &Args, which: Which, form: Form) -> Outcome {
    let reference = args.str("issuer_ref").to_owned();
    if reference.is_empty() && default_issuer(cx).is_none() {
        return empty();
    }
    crl::with_list(
        cx,
        &reference,
        which,
        false,
        Box::new(move |_, der| match form {
            Form::Der => Response::raw("application/pkix-crl", der).done(),
            Form::Pem => Response::raw("application/x-pem-file", pem::encode("X509 CRL", &der).into_bytes()).done(),
            Form::Json => Response::data(entry(&pem::encode("X509 CRL", &der), None, "")).done(),
        }),
    )
}

/// `crl`, `issuer/:ref/crl/der`.
pub fn crl_der(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    list(cx, args, Which::Complete, Form::Der)
}

/// `crl/pem`.
pub fn crl_pem(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    list(cx, args, Which::Complete, Form::Pem)
}

/// `cert/crl`, `issuer/:ref/crl`.
pub fn crl_json(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let reference = args.str("issuer_ref").to_owned();
    if reference.is_empty() {
        return list(cx, args, Which::Complete, Form::Json);
    }
    issuer_list(cx, reference, Which::Complete)
}

fn issuer_list(cx: &mut Cx<'_, '_>, reference: String, which: Which) -> Outcome {
    crl::with_list(
        cx,
        &reference,
        which,
        false,
        Box::new(|_, der| Response::json(serde_json::json!({"crl": pem::encode("X509 CRL", &der)})).done()),
    )
}

/// `crl/delta`.
pub fn delta_der(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    list(cx, args, Which::Delta, Form::Der)
}

/// `crl/delta/pem`.
pub fn delta_pem(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    list(cx, args, Which::Delta, Form::Pem)
}

/// `cert/delta-crl`, `issuer/:ref/crl/delta`.
pub fn delta_json(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let reference = args.str("issuer_ref").to_owned();
    if reference.is_empty() {
        return list(cx, args, Which::Delta, Form::Json);
    }
    issuer_list(cx, reference, Which::Delta)
}

/// `crl/rotate`.
pub fn rotate(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    crl::rotate(cx, Which::Complete)
}

/// `crl/rotate-delta`.
pub fn rotate_delta(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    crl::rotate(cx, Which::Delta)
}
