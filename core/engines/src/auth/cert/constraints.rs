//! What an entry asks of a client's certificate beside the chain. Each list that is not empty must be met; within a
//! list one element is enough, but every required extension must be there.

use super::entry::Entry;
use crate::jose::glob;
use std::collections::BTreeMap;
use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

/// The names of a certificate.
#[derive(Debug, Default)]
pub struct Names {
    pub common: Vec<String>,
    dns: Vec<String>,
    email: Vec<String>,
    uri: Vec<String>,
    units: Vec<String>,
}

impl Names {
    pub fn of(certificate: &X509Certificate<'_>) -> Names {
        let subject = certificate.subject();
        let texts = |v: Vec<Option<&str>>| v.into_iter().flatten().map(str::to_owned).collect::<Vec<_>>();
        let mut names = Names {
            common: texts(subject.iter_common_name().map(|a| a.as_str().ok()).collect()),
            units: texts(subject.iter_organizational_unit().map(|a| a.as_str().ok()).collect()),
            ..Names::default()
        };
        if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
            for name in &alternative.value.general_names {
                match name {
                    GeneralName::DNSName(n) => names.dns.push((*n).to_owned()),
                    GeneralName::RFC822Name(n) => names.email.push((*n).to_owned()),
                    GeneralName::URI(n) => names.uri.push((*n).to_owned()),
                    _ => {}
                }
            }
        }
        names
    }
}

/// True if a certificate meets everything that the entry asks.
pub fn met(entry: &Entry, certificate: &X509Certificate<'_>) -> bool {
    let names = Names::of(certificate);
    let any = |allowed: &[String], found: &[&[String]]| {
        allowed.is_empty() || allowed.iter().any(|p| found.iter().copied().flatten().any(|n| glob(p, n)))
    };
    any(&entry.allowed_names, &[&names.common, &names.dns, &names.email])
        && any(&entry.allowed_common_names, &[&names.common])
        && any(&entry.allowed_dns_sans, &[&names.dns])
        && any(&entry.allowed_email_sans, &[&names.email])
        && any(&entry.allowed_uri_sans, &[&names.uri])
        && any(&entry.allowed_organizational_units, &[&names.units])
        && entry.required_extensions.iter().all(|r| Required::parse(r).is_some_and(|r| r.is_met(certificate)))
}

/// A required extension: `oid:pattern` of its text, or `hex:oid:pattern` of its bytes.
pub struct Required<'r> {
    hex: bool,
    oid: &'r str,
    pattern: &'r str,
}

impl<'r> Required<'r> {
    pub fn parse(text: &'r str) -> Option<Required<'r>> {
        let (hex, text) = text.strip_prefix("hex:").map_or((false, text), |rest| (true, rest));
        let (oid, pattern) = text.split_once(':')?;
        let numbers = oid.split('.').count() >= 2
            && oid.split('.').all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        numbers.then_some(Required { hex, oid, pattern })
    }

    fn is_met(&self, certificate: &X509Certificate<'_>) -> bool {
        certificate.extensions().iter().filter(|e| e.oid.to_id_string() == self.oid).any(|e| match self.hex {
            true => glob(&self.pattern.to_lowercase(), &hex::encode(e.value)),
            false => asn1_text(e.value).is_some_and(|t| glob(self.pattern, &t)),
        })
    }
}

/// The text of an ASN.1 string.
fn asn1_text(der: &[u8]) -> Option<String> {
    let (rest, any) = Any::from_der(der).ok()?;
    let is_text = matches!(any.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::VisibleString);
    (rest.is_empty() && is_text).then(|| String::from_utf8(any.data.to_vec()).ok()).flatten()
}

/// The allowed extensions as metadata: dots of the OID become dashes.
pub fn metadata(entry: &Entry, certificate: &X509Certificate<'_>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for extension in certificate.extensions() {
        let oid = extension.oid.to_id_string();
        if entry.allowed_metadata_extensions.contains(&oid)
            && let Some(text) = asn1_text(extension.value)
        {
            out.insert(oid.replace('.', "-"), text);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_extensions_are_parsed() {
        for good in ["1.2.3:a", "1.2.3:", "hex:1.2.3:0c*", "1.2:a:b"] {
            assert!(Required::parse(good).is_some(), "{good}");
        }
        for bad in ["", "1.2.3", "a.b:c", "1:c", "hex:1.2.3", "1..2:c", ":"] {
            assert!(Required::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(asn1_text(b"\x0c\x02hi").as_deref(), Some("hi"));
        assert!(
            asn1_text(b"\x04\x02hi").is_none()
                && asn1_text(b"\x0c\x03hi").is_none()
                && asn1_text(b"\x0c\x02hix").is_none()
        );
    }
}
