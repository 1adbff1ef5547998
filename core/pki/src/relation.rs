//! How two certificates stand to each other, and what would have to be asked for to get one like another: pure readings
//! that the command line shows. Nothing here trusts anybody.

use crate::cert::{self, Certificate};
use crate::key;
use crate::pem;
use der::Decode;
use der::asn1::ObjectIdentifier;
use rustls_pki_types::pem::SectionKind;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use x509_cert::crl::CertificateList;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, NameConstraints, SubjectAltName};

/// Attributes of a subject, and the parameters that set them.
const ATTRIBUTES: [(&str, &str); 7] = [
    ("country", "2.5.4.6"),
    ("organization", "2.5.4.10"),
    ("ou", "2.5.4.11"),
    ("locality", "2.5.4.7"),
    ("province", "2.5.4.8"),
    ("street_address", "2.5.4.9"),
    ("postal_code", "2.5.4.17"),
];

/// What speaks for one certificate having issued another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relation {
    /// The subject of the one is the issuer of the other.
    pub subject: bool,
    /// The one stands in the chain that came with the other.
    pub path: bool,
    /// Signatures lead from the other to the one over that chain.
    pub trust: bool,
    /// The subject key id of the one is the authority key id of the other.
    pub key_id: bool,
    /// The key of the one signed the other.
    pub signature: bool,
}

impl Relation {
    /// By the names that the command line prints, in its order.
    pub fn fields(&self) -> [(&'static str, bool); 5] {
        [
            ("subject_match", self.subject),
            ("path_match", self.path),
            ("trust_match", self.trust),
            ("key_id_match", self.key_id),
            ("signature_match", self.signature),
        ]
    }
}

fn read(text: &str) -> Result<Certificate, String> {
    let der = pem::first(text, SectionKind::Certificate).ok_or("no certificate in PEM")?;
    cert::parse(&der)
}

/// Compares a possible issuer and what it may have issued; the chain is the one that came with the latter.
///
/// # Errors
/// One of them is no certificate in PEM.
pub fn relation(issuer: &str, issued: &str, chain: &[String]) -> Result<Relation, String> {
    let (above, below) = (read(issuer)?, read(issued)?);
    let chain = chain.iter().map(|c| read(c)).collect::<Result<Vec<_>, _>>()?;
    let names = cert::authority_key_id(&below);
    Ok(Relation {
        subject: above.tbs_certificate.subject == below.tbs_certificate.issuer,
        path: chain.contains(&above),
        trust: leads(&below, &above, &chain),
        key_id: !names.is_empty() && names == cert::subject_key_id(&above),
        signature: cert::signed_by(&below, &above),
    })
}

/// Signatures lead from a certificate over others to one: each step up is a certificate that may sign.
fn leads(from: &Certificate, to: &Certificate, over: &[Certificate]) -> bool {
    let mut reached = vec![from];
    let mut next = 0;
    while let Some(here) = reached.get(next).copied() {
        if cert::signed_by(here, to) {
            return true;
        }
        for c in over {
            if !reached.contains(&c) && cert::is_ca(c) && cert::signed_by(here, c) {
                reached.push(c);
            }
        }
        next += 1;
    }
    false
}

/// The parameters that ask for a certificate like this one: subject, names, constraints, kind of key, length of life.
///
/// # Errors
/// It is no certificate in PEM, or its key is of a kind that is not made here.
pub fn parameters_of(certificate: &str) -> Result<Map<String, Value>, String> {
    let c = read(certificate)?;
    let tbs = &c.tbs_certificate;
    let mut out = Map::new();
    let mut put = |name: &str, value: String| {
        if !value.is_empty() {
            out.insert(name.to_owned(), value.into());
        }
    };
    put("common_name", cert::common_name(&tbs.subject));
    put("serial_number", cert::serial_attribute(&tbs.subject));
    for (name, oid) in ATTRIBUTES {
        put(name, cert::attributes(&tbs.subject, ObjectIdentifier::new_unwrap(oid)).join(","));
    }
    let names = cert::find::<SubjectAltName>(tbs.extensions.as_ref()).map(|s| s.0).unwrap_or_default();
    let (mut alt, mut ips, mut uris, mut others) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for n in &names {
        match n {
            GeneralName::DnsName(n) => alt.push(n.to_string()),
            GeneralName::Rfc822Name(n) => alt.push(n.to_string()),
            GeneralName::UniformResourceIdentifier(n) => uris.push(n.to_string()),
            GeneralName::IpAddress(b) => ips.extend(address(b.as_bytes()).map(|ip| ip.to_string())),
            GeneralName::OtherName(o) => others.extend(cert::other_text(o).map(|(o, v)| format!("{o};UTF8:{v}"))),
            _ => {}
        }
    }
    put("alt_names", alt.join(","));
    put("ip_sans", ips.join(","));
    put("uri_sans", uris.join(","));
    put("other_sans", others.join(","));
    if let Some(n) = cert::find::<NameConstraints>(tbs.extensions.as_ref()) {
        let domains: Vec<String> = n
            .permitted_subtrees
            .iter()
            .flatten()
            .filter_map(|t| match &t.base {
                GeneralName::DnsName(d) => Some(d.to_string()),
                _ => None,
            })
            .collect();
        put("permitted_dns_domains", domains.join(","));
    }
    let bounded = cert::find::<BasicConstraints>(tbs.extensions.as_ref()).and_then(|b| b.path_len_constraint);
    let spec = key::public_spec(&tbs.subject_public_key_info)?;
    let life = cert::not_after(&c) - tbs.validity.not_before.to_unix_duration().as_secs();
    out.insert("max_path_length".into(), bounded.map_or(json!(-1), Value::from));
    out.insert("key_type".into(), spec.kind.as_str().into());
    out.insert("key_bits".into(), spec.bits.into());
    out.insert("ttl".into(), format!("{life}s").into());
    Ok(out)
}

/// From when and until when a certificate is valid, epoch seconds.
///
/// # Errors
/// It is no certificate in PEM.
pub fn life_of_certificate(text: &str) -> Result<(u64, u64), String> {
    let c = read(text)?;
    Ok((c.tbs_certificate.validity.not_before.to_unix_duration().as_secs(), cert::not_after(&c)))
}

/// From when and until when a revocation list is valid, epoch seconds; without an end it is 0.
///
/// # Errors
/// It is no list in PEM.
pub fn life_of_list(text: &str) -> Result<(u64, u64), String> {
    let der = pem::first(text, SectionKind::Crl).ok_or("no revocation list in PEM")?;
    let list = CertificateList::from_der(&der).map_err(|e| format!("unable to parse the revocation list: {e}"))?;
    let end = list.tbs_cert_list.next_update.map_or(0, |t| t.to_unix_duration().as_secs());
    Ok((list.tbs_cert_list.this_update.to_unix_duration().as_secs(), end))
}

/// True if one certificate's key signed another, both in PEM.
pub fn made_by(issued: &str, issuer: &str) -> bool {
    matches!((read(issued), read(issuer)), (Ok(below), Ok(above)) if cert::signed_by(&below, &above))
}

/// True for the certificate of an authority, in PEM.
pub fn is_authority(text: &str) -> bool {
    read(text).is_ok_and(|c| cert::is_ca(&c))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pki;
    use crate::fixture::World;

    fn text(v: &Value) -> String {
        v.as_str().unwrap().to_owned()
    }

    #[test]
    fn a_chain_and_a_stranger() {
        let mut w = World::new(Pki);
        let long = json!({"common_name": "Root", "key_type": "ec", "ttl": "700h"});
        let root = text(&w.post("root/generate/internal", long).data["certificate"]);
        let csr = w.post("intermediate/generate/internal", json!({"common_name": "Int", "key_type": "ec"})).data;
        let body = json!({
            "csr": csr["csr"], "common_name": "Int", "alt_names": "a.example.com,me@example.com", "ip_sans": "192.0.2.1",
            "organization": "O", "permitted_dns_domains": "example.com", "max_path_length": 1, "ttl": "2h",
        });
        let made = w.post("root/sign-intermediate", body).data;
        let int = text(&made["certificate"]);
        let all = Relation { subject: true, path: true, trust: true, key_id: true, signature: true };
        assert_eq!(relation(&root, &int, &[int.clone(), root.clone()]), Ok(all));
        assert_eq!(relation(&root, &int, &[]), Ok(Relation { path: false, ..all }));
        assert_eq!(relation(&int, &root, &[]), Ok(Relation::default()));
        let mut other = World::new(Pki);
        let long = json!({"common_name": "Root", "key_type": "rsa", "ttl": "700h"});
        let stranger = text(&other.post("root/generate/internal", long).data["certificate"]);
        let by_name = Relation { subject: true, ..Relation::default() };
        assert_eq!(relation(&stranger, &int, &[]), Ok(by_name), "a name is no proof");
        assert!(relation("x", &int, &[]).is_err());

        let like = parameters_of(&int).unwrap();
        for (name, value) in [
            ("common_name", json!("Int")),
            ("organization", json!("O")),
            ("alt_names", json!("a.example.com,Int,me@example.com")),
            ("ip_sans", json!("192.0.2.1")),
            ("permitted_dns_domains", json!("example.com")),
            ("max_path_length", json!(1)),
            ("key_type", json!("ec")),
            ("key_bits", json!(256)),
        ] {
            assert_eq!(like.get(name), Some(&value), "{name}");
        }
        assert!(!like.contains_key("uri_sans"));
    }

    #[test]
    fn trust_goes_over_what_is_between() {
        let mut w = World::new(Pki);
        let root = text(
            &w.post("root/generate/internal", json!({"common_name": "Root", "key_type": "ec", "ttl": "700h"})).data["certificate"],
        );
        let mut below = World::new(Pki);
        let csr = below.post("intermediate/generate/internal", json!({"common_name": "Int", "key_type": "ec"})).data;
        let signed = json!({"csr": csr["csr"], "common_name": "Int", "ttl": "600h"});
        let int = text(&w.post("root/sign-intermediate", signed).data["certificate"]);
        below.post("intermediate/set-signed", json!({"certificate": int}));
        below.post("roles/any", json!({"allow_any_name": true, "key_type": "ec", "ttl": "1h"}));
        let leaf = text(&below.post("issue/any", json!({"common_name": "a.b"})).data["certificate"]);
        let seen = relation(&root, &leaf, &[int.clone(), root.clone()]).unwrap();
        assert_eq!(seen, Relation { path: true, trust: true, ..Relation::default() });
        assert!(!relation(&root, &leaf, std::slice::from_ref(&leaf)).unwrap().trust);
    }
}
