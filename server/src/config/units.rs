//! Small values with a syntax of their own: booleans, sizes, address ranges.

use std::net::IpAddr;

/// A boolean in the forms of Go's `strconv.ParseBool`.
pub fn boolean(text: &str) -> Option<bool> {
    crate::cli::verb::go_bool(text)
}

/// A size in bytes: digits, or digits with a unit. `kb` is 1000, `kib` is 1024, and so on; case does not matter.
pub fn capacity_bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "b" => 1,
        "kb" | "k" => 1_000,
        "kib" => 1 << 10,
        "mb" | "m" => 1_000_000,
        "mib" => 1 << 20,
        "gb" | "g" => 1_000_000_000,
        "gib" => 1 << 30,
        "tb" | "t" => 1_000_000_000_000,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A range of addresses. A single address is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    prefix_bits: u8,
}

impl Cidr {
    /// Reads `10.0.0.0/8` or `10.1.2.3`.
    pub fn parse(text: &str) -> Option<Cidr> {
        let (base, bits) = match text.trim().split_once('/') {
            Some((base, bits)) => (base, Some(bits)),
            None => (text.trim(), None),
        };
        let base: IpAddr = base.parse().ok()?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let prefix_bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
        (prefix_bits <= most).then_some(Cidr { base, prefix_bits })
    }

    /// Is the address in the range? An IPv4 address written in IPv6 counts as itself.
    pub fn contains(&self, address: IpAddr) -> bool {
        fn same(a: u128, b: u128, width: u8, prefix: u8) -> bool {
            let shift = u32::from(width - prefix);
            a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
        }
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32, self.prefix_bits),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128, self.prefix_bits),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("33554432", Some(33_554_432)),
            ("32MiB", Some(33_554_432)),
            ("1kb", Some(1000)),
            ("2 GiB", Some(2 << 30)),
            ("x", None),
            ("-1", None),
            ("99999999999999999999tb", None),
        ] {
            assert_eq!(capacity_bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn ranges() {
        let within = |range: &str, address: &str| Cidr::parse(range).unwrap().contains(address.parse().unwrap());
        assert!(within("10.0.0.0/8", "10.255.0.1") && !within("10.0.0.0/8", "11.0.0.1"));
        assert!(within("0.0.0.0/0", "1.2.3.4") && !within("0.0.0.0/0", "::1"));
        assert!(within("127.0.0.1", "::ffff:127.0.0.1") && within("::/0", "::1"));
        assert!(within("fd00::/8", "fd12::1") && !within("fd00::/8", "fe00::1"));
        for bad in ["10.0.0.0/33", "x", "10.0.0", "::/129"] {
            assert!(Cidr::parse(bad).is_none(), "{bad}");
        }
    }
}
