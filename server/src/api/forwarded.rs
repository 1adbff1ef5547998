//! Who the client is when proxies stand in between: `X-Forwarded-For`, believed from authorised addresses only. Source:
//! Vault's listener settings `x_forwarded_for_*`.

use super::request::Origin;
use crate::config::listener::ForwardedFor;
use http::HeaderMap;
use ringfence_node::Error;
use std::net::{IpAddr, SocketAddr};

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
    Ok(Origin { remote: Some(remote), ..peer.clone() })
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
