//! PEM in and out, and the forms in which answers show DER.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pem_rfc7468::LineEnding;
use ringfence_logical::Error;
use rustls_pki_types::pem::{PemObject, SectionKind};

/// How certificates, requests and keys are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// PEM text.
    Pem,
    /// Base64 of DER.
    Der,
    /// PEM, everything in one text.
    Bundle,
}

impl Format {
    /// Parses the request's `format`.
    pub fn parse(text: &str) -> Result<Format, Error> {
        match text {
            "" | "pem" => Ok(Format::Pem),
            "der" => Ok(Format::Der),
            "pem_bundle" => Ok(Format::Bundle),
            _ => Err(Error::invalid("the \"format\" path parameter must be \"pem\", \"der\", or \"pem_bundle\"")),
        }
    }
}

/// PEM without a newline at its end, as the API shows it.
pub fn encode(label: &str, der: &[u8]) -> String {
    let mut text = pem_rfc7468::encode_string(label, LineEnding::LF, der)
        .expect("DER of this machine is far below PEM's limits");
    text.truncate(text.trim_end().len());
    text
}

/// DER as a format shows it.
pub fn shown(format: Format, label: &str, der: &[u8]) -> String {
    match format {
        Format::Der => STANDARD.encode(der),
        Format::Pem | Format::Bundle if label == "CERTIFICATE" => certificate(der),
        Format::Pem | Format::Bundle => encode(label, der),
    }
}

/// A certificate as PEM. It is public: unlike a key it need not be encoded in constant time, which takes several times
/// as long and is a part of what issuing costs.
pub fn certificate(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = String::with_capacity(body.len() + body.len() / 64 + 56);
    out.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str("-----END CERTIFICATE-----");
    out
}

/// Every section of a PEM text, in order; what is no PEM between them is skipped. Unknown sections too.
pub fn sections(text: &str) -> Result<Vec<(SectionKind, Vec<u8>)>, String> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| format!("PEM: {e:?}"))
}

/// The first section of a kind.
pub fn first(text: &str, wanted: SectionKind) -> Option<Vec<u8>> {
    sections(text).ok()?.into_iter().find(|(k, _)| *k == wanted).map(|(_, der)| der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_encoded_as_the_library_encodes_them() {
        for n in 1..200u8 {
            let der: Vec<u8> = (0..n).collect();
            assert_eq!(certificate(&der), encode("CERTIFICATE", &der), "{n}");
        }
    }
}
