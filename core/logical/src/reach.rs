//! How far a question to the outside may go: which addresses it may connect to, and who tells them. A pure judgement;
//! the server process asks it about every address right before it connects.

use crate::cx::cidr_allows;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The bounds of a question to the outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Refuse to connect to loopback, private, link-local and other addresses that are not public, and to other ports
    /// than those of HTTP and HTTPS.
    pub public_addresses_only: bool,
    /// Ranges (`10.0.0.0/8`) that are allowed beside the public addresses.
    pub permitted_ranges: Vec<String>,
    /// `address:port` of a name server to be asked in place of the machine's; empty = the machine's.
    pub dns_resolver: String,
}

impl Reach {
    /// True if an address may be connected to.
    pub fn allows(&self, ip: IpAddr) -> bool {
        !self.public_addresses_only
            || is_public(ip)
            || (!self.permitted_ranges.is_empty() && cidr_allows(&self.permitted_ranges, Some(ip)))
    }

    /// True if a port may be connected to.
    pub fn allows_port(&self, port: u16) -> bool {
        !self.public_addresses_only || matches!(port, 80 | 443)
    }
}

/// True if an address is one of the public internet. Source: the IANA registries of special-purpose addresses.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_public_v4(v4),
            None => is_public_v6(v6),
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    // 2000::/3 is what is given out; in it documentation, 6to4, Teredo and benchmarking are not hosts
    let global = s[0] & 0xe000 == 0x2000;
    let special =
        (s[0] == 0x2001 && (s[1] == 0xdb8 || s[1] < 0x200)) || s[0] == 0x2002 || (s[0] == 0x3fff && s[1] < 0x1000);
    global && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses() {
        let guarded = Reach { public_addresses_only: true, ..Reach::default() };
        for (ip, public) in [
            ("8.8.8.8", true),
            ("172.32.0.1", true),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("::ffff:127.0.0.1", false),
            ("::127.0.0.1", false),
            ("2002:7f00:1::", false),
            ("64:ff9b::7f00:1", false),
            ("2001:db8::1", false),
            ("2606:4700::1111", true),
        ] {
            let ip = ip.parse().unwrap();
            assert_eq!(guarded.allows(ip), public, "{ip}");
            assert!(Reach::default().allows(ip));
        }
        assert!(guarded.allows_port(80) && guarded.allows_port(443) && !guarded.allows_port(8200));
        assert!(Reach::default().allows_port(8200));
    }

    #[test]
    fn permitted_ranges_open_what_they_name_and_no_more() {
        let reach = Reach {
            public_addresses_only: true,
            permitted_ranges: vec!["10.1.0.0/16".into(), "fd00::/8".into()],
            ..Reach::default()
        };
        for (ip, allowed) in
            [("10.1.2.3", true), ("10.2.0.1", false), ("fd12::1", true), ("127.0.0.1", false), ("8.8.8.8", true)]
        {
            assert_eq!(reach.allows(ip.parse().unwrap()), allowed, "{ip}");
        }
    }
}
