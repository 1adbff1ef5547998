//! Looking names up, within a reach: by the machine's resolver, or by a name server that the question names. Called on
//! threads that may block.

use super::dns;
use ringfence_node::Reach;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Addresses of a name that are tried at most.
const MAX_ADDRESSES: usize = 16;
/// Where the machine's name servers stand.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The addresses of a host that may be connected to; what it answers is what is connected to, so an address cannot
/// change after it was judged. The error says why there is none.
pub fn addresses(host: &str, port: u16, reach: &Reach, patience: Duration) -> Result<Vec<SocketAddr>, String> {
    if !reach.allows_port(port) {
        return Err(format!("port {port} of {host} is not to be connected to"));
    }
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) if reach.dns_resolver.is_empty() => {
            (host, port).to_socket_addrs().map_err(|e| format!("looking {host} up: {e}"))?.collect()
        }
        Err(_) => {
            let ips = dns::addresses(host, &servers(reach)?, Instant::now() + patience)?;
            ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
        }
    };
    let allowed: Vec<SocketAddr> =
        found.iter().filter(|a| reach.allows(a.ip())).take(MAX_ADDRESSES).copied().collect();
    match (found.is_empty(), allowed.is_empty()) {
        (true, _) => Err(format!("{host} has no address")),
        (false, true) => Err(format!("{host} has only addresses that are not to be connected to")),
        (false, false) => Ok(allowed),
    }
}

/// The texts of a name's TXT records; none if the name has none or is not there.
pub fn texts(name: &str, reach: &Reach, patience: Duration) -> Result<Vec<String>, String> {
    dns::texts(name, &servers(reach)?, Instant::now() + patience)
}

/// The name servers to be asked.
fn servers(reach: &Reach) -> Result<Vec<SocketAddr>, String> {
    if !reach.dns_resolver.is_empty() {
        let at = reach.dns_resolver.parse();
        return Ok(vec![at.map_err(|_| format!("{:?} is no address of a name server", reach.dns_resolver))?]);
    }
    let text = std::fs::read_to_string(RESOLV_CONF).map_err(|e| format!("{RESOLV_CONF}: {e}"))?;
    let found = listed(&text);
    if found.is_empty() { Err(format!("{RESOLV_CONF} names no name server")) } else { Ok(found) }
}

/// The name servers that a resolver's configuration lists. Search domains are left out: names that are proven are whole.
fn listed(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        // a zone (`fe80::1%eth0`) is for link-local addresses, whose servers are not asked
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    };
    text.lines().filter_map(address).map(|ip| SocketAddr::new(ip, dns::PORT)).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_of_a_machine() {
        let text = "# made by hand\nsearch example.com\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 \nnameserver\n\
                    nameserver fe80::1%eth0\noptions edns0\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let wanted = ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"];
        assert_eq!(listed(text), wanted.map(|a| a.parse::<SocketAddr>().unwrap()));
        assert!(listed("").is_empty());
    }

    #[test]
    fn addresses_are_judged_before_they_are_told() {
        let patience = Duration::from_secs(1);
        let guarded = Reach { public_addresses_only: true, ..Reach::default() };
        assert!(addresses("127.0.0.1", 80, &guarded, patience).unwrap_err().contains("not to be connected to"));
        assert!(addresses("localhost", 443, &guarded, patience).unwrap_err().contains("not to be connected to"));
        assert!(addresses("8.8.8.8", 8200, &guarded, patience).unwrap_err().contains("port 8200"));
        let permitted = Reach { permitted_ranges: vec!["127.0.0.0/8".into()], ..guarded };
        assert_eq!(addresses("127.0.0.1", 80, &permitted, patience), Ok(vec!["127.0.0.1:80".parse().unwrap()]));
        assert!(addresses("127.0.0.1", 8200, &Reach::default(), patience).is_ok());
    }
}
