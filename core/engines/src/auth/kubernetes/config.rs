//! The cluster of a mount.

use crate::jose::Key;
use ringfence_logical::{Args, Cx, Error, Outcome, Response, nothing};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;

/// Area of the configuration.
const CONFIG: u8 = b'c';

/// The configuration.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    /// Without a slash at its end.
    pub kubernetes_host: String,
    pub kubernetes_ca_cert: String,
    pub token_reviewer_jwt: String,
    pub pem_keys: Vec<String>,
    pub disable_local_ca_jwt: bool,
    pub disable_iss_validation: bool,
    pub issuer: String,
    pub use_annotations_as_alias_metadata: bool,
}

pub fn load(cx: &mut Cx<'_, '_>) -> Result<Option<Config>, Error> {
    cx.get_json(CONFIG, b"")
}

pub fn read(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let Some(c) = load(cx)? else { return nothing() };
    Response::json(json!({
        "disable_iss_validation": c.disable_iss_validation,
        "disable_local_ca_jwt": c.disable_local_ca_jwt,
        "issuer": c.issuer,
        "kubernetes_ca_cert": c.kubernetes_ca_cert,
        "kubernetes_host": c.kubernetes_host,
        "pem_keys": c.pem_keys,
        "token_reviewer_jwt_set": !c.token_reviewer_jwt.is_empty(),
        "use_annotations_as_alias_metadata": c.use_annotations_as_alias_metadata,
    }))
    .done()
}

/// Replaces the configuration; what the request does not name is at its default.
pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let host = args.str("kubernetes_host").trim().trim_end_matches('/');
    if host.is_empty() {
        return Err(Error::invalid("no host provided"));
    }
    if !host.starts_with("https://") && !host.starts_with("http://") {
        return Err(Error::invalid(format!("kubernetes_host {host:?} is no http or https URL")));
    }
    let ca = args.str("kubernetes_ca_cert");
    if !ca.is_empty() && !CertificateDer::pem_slice_iter(ca.as_bytes()).any(|c| c.is_ok()) {
        return Err(Error::invalid("kubernetes_ca_cert holds no PEM certificate"));
    }
    let pem_keys = args.list("pem_keys");
    for pem in &pem_keys {
        Key::from_pem(pem).map_err(|why| Error::invalid(format!("error parsing public key: {why}")))?;
    }
    let config = Config {
        kubernetes_host: host.to_owned(),
        kubernetes_ca_cert: ca.to_owned(),
        token_reviewer_jwt: args.str("token_reviewer_jwt").trim().to_owned(),
        pem_keys,
        disable_local_ca_jwt: args.bool("disable_local_ca_jwt"),
        disable_iss_validation: args.bool("disable_iss_validation"),
        issuer: args.str("issuer").to_owned(),
        use_annotations_as_alias_metadata: args.bool("use_annotations_as_alias_metadata"),
    };
    let bytes = serde_json::to_vec(&config).expect("a plain record always serialises");
    crate::check_size(bytes.len())?;
    cx.put(CONFIG, b"", &bytes);
    nothing()
}
