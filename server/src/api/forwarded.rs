//! Who the client is when proxies stand in between: `X-Forwarded-For`, believed from authorised addresses only. Source:
//! Vault's listener settings `x_forwarded_for_*`.

use super::request::Origin;
use crate::config::listener::ForwardedFor;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use ringfence_node::Error;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The origin of a request, after the header was believed or not.
///
/// # Errors
/// What the client is to be told: the operator refuses such requests.
pub fn origin(trust: &ForwardedFor, peer: &Origin, headers: &HeaderMap) -> Result<Origin, Error> {
    let mut values = headers.get_all("x-forwarded-for").iter().peekable();
    if values.peek().is_none() {
        return match trust.reject_not_present {
            true => Err(Error::invalid("missing x-forwarded-for header and configured to reject when not present")),
            false => Ok(peer.clone()),
        };
    }
    let authorized = peer.remote.is_some_and(|ip| trust.authorized.iter().any(|range| range.contains(ip)));
    if !authorized {
        return match trust.reject_not_authorized {
            true => Err(Error::invalid(
                "client address not authorized for x-forwarded-for and configured to reject connection",
            )),
            false => Ok(peer.clone()),
        };
    }
    let malformed = || Error::invalid("malformed x-forwarded-for header");
    let mut hops = Vec::new();
    for value in values {
        let text = value.to_str().map_err(|_| malformed())?;
        hops.extend(text.split(',').map(str::trim));
    }
    let skips = usize::try_from(trust.hop_skips).unwrap_or(usize::MAX);
    let Some(at) = hops.len().checked_sub(1).and_then(|last| last.checked_sub(skips)) else {
        return Err(Error::invalid(format!(
            "malformed x-forwarded-for configuration or request, hops to skip ({skips}) would skip before earliest \
             chain link (chain length {})",
            hops.len()
        )));
    };
    let remote = address(hops[at]).ok_or_else(malformed)?;
    let mut origin = Origin { remote: Some(remote), ..peer.clone() };
    if let Some(value) = trust.client_cert_header.as_ref().and_then(|name| headers.get(name.as_str())) {
        let der = certificate(value.as_bytes(), &trust.client_cert_decoders)
            .ok_or_else(|| Error::invalid("failed to decode the client certificate of the forwarded request"))?;
        origin.certificates = Arc::new(vec![der]);
    }
    Ok(origin)
}

/// The certificate that a proxy was shown, through the decoders that the operator names, in their order. What they
/// yield is to be a certificate, in DER or PEM.
fn certificate(value: &[u8], decoders: &[String]) -> Option<Vec<u8>> {
    let mut bytes = value.to_vec();
    for decoder in decoders {
        bytes = match decoder.trim().to_ascii_uppercase().as_str() {
            "URL" => super::query::decode_path(std::str::from_utf8(&bytes).ok()?)?.into_owned().into_bytes(),
            "BASE64" => {
                bytes.retain(|b| !b.is_ascii_whitespace());
                STANDARD.decode(&bytes).ok()?
            }
            "DER" => CertificateDer::from_pem_slice(&bytes).ok()?.to_vec(),
            _ => return None,
        };
    }
    if bytes.starts_with(b"-----BEGIN") {
        bytes = CertificateDer::from_pem_slice(&bytes).ok()?.to_vec();
    }
    // a sequence; what it holds is read where it matters
    (bytes.first() == Some(&0x30)).then_some(bytes)
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::Cidr;
    use ringfence_node::Code;

    fn trust() -> ForwardedFor {
        ForwardedFor {
            authorized: vec![Cidr::parse("10.0.0.0/8").expect("a range")],
            hop_skips: 0,
            reject_not_authorized: true,
            reject_not_present: true,
            client_cert_header: None,
            client_cert_decoders: Vec::new(),
        }
    }

    fn ask(trust: &ForwardedFor, peer: &str, headers: &[&str]) -> Result<String, String> {
        let mut map = HeaderMap::new();
        for h in headers {
            map.append("x-forwarded-for", h.parse().expect("a value"));
        }
        let peer = Origin { remote: Some(peer.parse().expect("an address")), port: 7, ..Origin::default() };
        match origin(trust, &peer, &map) {
            Ok(o) => Ok(o.remote.expect("an address").to_string()),
            Err(e) => {
                assert_eq!(e.code, Code::Invalid);
                Err(e.errors.join(" "))
            }
        }
    }

    #[test]
    fn the_last_hop_counts() {
        let ok = |s: &str| Ok(s.to_owned());
        assert_eq!(ask(&trust(), "10.1.1.1", &["1.1.1.1"]), ok("1.1.1.1"));
        assert_eq!(ask(&trust(), "10.1.1.1", &["1.1.1.1, 2.2.2.2", "3.3.3.3"]), ok("3.3.3.3"));
        assert_eq!(ask(&trust(), "::ffff:10.1.1.1", &["2001:db8::1"]), ok("2001:db8::1"));
        assert_eq!(ask(&trust(), "10.1.1.1", &["[2001:db8::1]:90"]), ok("2001:db8::1"));
        assert_eq!(ask(&trust(), "10.1.1.1", &["1.1.1.1:80"]), ok("1.1.1.1"));
        let skip = ForwardedFor { hop_skips: 1, ..trust() };
        assert_eq!(ask(&skip, "10.1.1.1", &["1.1.1.1, 2.2.2.2", "3.3.3.3"]), ok("2.2.2.2"));
        assert!(ask(&skip, "10.1.1.1", &["1.1.1.1"]).expect_err("too short").contains("chain length 1"));
        for bad in ["", "nobody", "1.1.1.1,", "unix:/x"] {
            assert!(ask(&trust(), "10.1.1.1", &[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn certificates_that_proxies_were_shown() {
        let der = [0x30, 3, 2, 1, 5];
        let base64 = STANDARD.encode(der);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
        let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(certificate(base64.as_bytes(), &names(&["BASE64"])).as_deref(), Some(&der[..]));
        let escaped = pem.replace('\n', "%0A").replace(' ', "%20").replace('=', "%3D");
        assert_eq!(certificate(escaped.as_bytes(), &names(&["URL", "DER"])).as_deref(), Some(&der[..]));
        assert_eq!(certificate(escaped.as_bytes(), &names(&["URL"])).as_deref(), Some(&der[..]));
        for (bad, decoders) in [("!", "BASE64"), ("AAAA", "BASE64"), ("x", "DER"), ("x", "ROT13"), ("", "URL")] {
            assert!(certificate(bad.as_bytes(), &names(&[decoders])).is_none(), "{bad} {decoders}");
        }
    }

    #[test]
    fn who_is_refused() {
        assert_eq!(
            ask(&trust(), "10.1.1.1", &[]),
            Err("missing x-forwarded-for header and configured to reject when not present".into())
        );
        assert_eq!(
            ask(&trust(), "11.1.1.1", &["1.1.1.1"]),
            Err("client address not authorized for x-forwarded-for and configured to reject connection".into())
        );
        let lax = ForwardedFor { reject_not_authorized: false, reject_not_present: false, ..trust() };
        assert_eq!(ask(&lax, "11.1.1.1", &["1.1.1.1"]), Ok("11.1.1.1".into()));
        assert_eq!(ask(&lax, "10.1.1.1", &[]), Ok("10.1.1.1".into()));
    }
}
