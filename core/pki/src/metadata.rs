//! What whoever asked for a certificate wanted to be remembered with it (`cert_metadata`): opaque bytes in base64, kept
//! beside the certificate and told to whoever may read `cert-metadata/`.

use crate::cert::{self, Signed};
use crate::role::Role;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_logical::{Args, Cx, Error, Outcome, Response, nothing};
use serde_json::json;

/// Area of the metadata: serial, JSON.
pub const METADATA: u8 = b'm';

/// Metadata of a certificate.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Metadata {
    /// As it came, base64.
    pub cert_metadata: String,
    /// The role that the certificate was issued under, or empty.
    pub role: String,
    /// Its issuer.
    pub issuer_id: String,
    /// Its end, epoch seconds.
    pub expiration: u64,
}

/// Refuses metadata that could not be kept, before anything is signed.
pub fn check(args: &Args, role: &Role) -> Result<(), Error> {
    let text = args.str("cert_metadata");
    if text.is_empty() {
        return Ok(());
    }
    if role.no_store_metadata {
        return Err(Error::invalid("cert_metadata cannot be stored: the role has no_store_metadata set to true"));
    }
    match STANDARD.decode(text) {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::invalid(format!("cert_metadata is not base64: {e}"))),
    }
}

/// Keeps what came with the request for a certificate.
pub fn save(cx: &mut Cx<'_, '_>, args: &Args, role_name: &str, issuer_id: &str, signed: &Signed) {
    let text = args.str("cert_metadata");
    if !text.is_empty() {
        let m = Metadata {
            cert_metadata: text.to_owned(),
            role: role_name.to_owned(),
            issuer_id: issuer_id.to_owned(),
            expiration: signed.not_after,
        };
        cx.put_json(METADATA, signed.serial.as_bytes(), &m);
    }
}

/// `GET cert-metadata/:serial`.
pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let serial = cert::parse_serial(args.str("serial")).map(|b| cert::hex_pairs(&b));
    let found = match &serial {
        Some(s) => cx.get_json::<Metadata>(METADATA, s.as_bytes())?,
        None => None,
    };
    let Some(m) = found else { return nothing() };
    Response::json(json!({
        "cert_metadata": m.cert_metadata,
        "expiration": cert::time_text(m.expiration),
        "issuer_id": m.issuer_id,
        "role": m.role,
        "serial_number": serial,
    }))
    .done()
}

/// `LIST cert-metadata`.
pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    crate::revoke::list(cx, METADATA, args)
}
