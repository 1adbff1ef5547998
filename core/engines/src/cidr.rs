//! Address ranges as texts: whether they parse, how they are printed back, and whether one lies within others.

use ringfence_logical::Error;
use ringfence_logical::cx::{cidr_allows, is_cidr};
use std::net::IpAddr;

/// Prints a range as Vault's read-backs do: a range of one address is the address alone.
///
/// # Errors
/// The text is no address and no range.
pub fn canonical(text: &str) -> Result<String, Error> {
    let t = text.trim();
    if !is_cidr(t) {
        return Err(Error::invalid(format!(
            "error parsing address {text:?}: it is neither an address nor a CIDR block"
        )));
    }
    let (address, bits) = split(t);
    Ok(match (address, bits) {
        (IpAddr::V4(a), 32) => a.to_string(),
        (IpAddr::V6(a), 128) => a.to_string(),
        (a, bits) => format!("{a}/{bits}"),
    })
}

/// True if each of `inner` lies within one of `outer`. All must be valid; an empty `outer` bounds nothing.
pub fn all_within(inner: &[String], outer: &[String]) -> bool {
    outer.is_empty()
        || inner.iter().all(|i| {
            let (address, bits) = split(i);
            outer.iter().any(|o| split(o).1 <= bits && cidr_allows(std::slice::from_ref(o), Some(address)))
        })
}

/// Address and prefix length of a valid text; a text that is not valid is the one address nobody has.
fn split(text: &str) -> (IpAddr, u32) {
    let nobody = IpAddr::from([0u8; 16]);
    let (address, bits) = match text.split_once('/') {
        Some((a, b)) => (a, b.parse().ok()),
        None => (text, None),
    };
    let address: IpAddr = address.parse().unwrap_or(nobody);
    (address, bits.unwrap_or(if address.is_ipv4() { 32 } else { 128 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn l(s: &[&str]) -> Vec<String> {
        s.iter().map(|x| (*x).to_owned()).collect()
    }

    #[test]
    fn printed_forms() {
        assert_eq!(canonical(" 127.0.0.1/32 ").as_deref(), Ok("127.0.0.1"));
        assert_eq!(canonical("10.0.0.0/8").as_deref(), Ok("10.0.0.0/8"));
        assert_eq!(canonical("::1").as_deref(), Ok("::1"));
        assert!(canonical("10.0.0.0/99").is_err());
    }

    #[test]
    fn ranges_within_ranges() {
        assert!(all_within(&l(&["10.1.0.0/16", "10.2.3.4"]), &l(&["10.0.0.0/8"])));
        assert!(!all_within(&l(&["10.0.0.0/7"]), &l(&["10.0.0.0/8"])));
        assert!(!all_within(&l(&["11.0.0.0/16"]), &l(&["10.0.0.0/8", "12.0.0.0/8"])));
        assert!(all_within(&l(&["11.0.0.0/16"]), &[]));
        assert!(!all_within(&l(&["fd00::/64"]), &l(&["0.0.0.0/0"])));
    }
}
