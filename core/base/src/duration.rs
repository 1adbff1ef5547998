//! Durations as Vault's clients write them and as Go prints them. Whole API values are seconds; the parser works in
//! nanoseconds and truncates at the edge.

/// Nanoseconds in a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// Parses a duration in one of the forms the API accepts: digits are seconds; `Nd` is days; otherwise Go's syntax
/// (`1h30m`, `1.5h`, `300ms`, `10us`). A leading sign is accepted. The empty string is zero. Answers nanoseconds.
/// Source: Vault's `parseutil.ParseDurationSecond`.
pub fn parse_ns(text: &str) -> Option<i128> {
    let t = text.trim();
    if t.is_empty() {
        return Some(0);
    }
    let (negative, body) = match t.as_bytes()[0] {
        b'-' => (true, &t[1..]),
        b'+' => (false, &t[1..]),
        _ => (false, t),
    };
    let magnitude = parse_unsigned(body)?;
    // the API's durations are Go durations, 63 bits of nanoseconds
    if magnitude > i64::MAX as i128 {
        return None;
    }
    Some(if negative { -magnitude } else { magnitude })
}

fn parse_unsigned(body: &str) -> Option<i128> {
    if body.is_empty() {
        return None;
    }
    if body.bytes().all(|b| b.is_ascii_digit()) {
        return body.parse::<i128>().ok()?.checked_mul(SECOND_NS as i128);
    }
    if let Some(days) = body.strip_suffix('d') {
        if days.is_empty() || !days.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        return days.parse::<i128>().ok()?.checked_mul(86_400 * SECOND_NS as i128);
    }
    let mut total: i128 = 0;
    let mut rest = body;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, after) = rest.split_at(digits);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(f) => {
                let n = f.bytes().take_while(u8::is_ascii_digit).count();
                f.split_at(n)
            }
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() || whole.len() > 20 {
            return None;
        }
        let unit_len = after.bytes().take_while(|b| !b.is_ascii_digit() && *b != b'.').count();
        let (unit, after) = after.split_at(unit_len);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND_NS as i128,
            "m" => 60 * SECOND_NS as i128,
            "h" => 3600 * SECOND_NS as i128,
            _ => return None,
        };
        if !whole.is_empty() {
            total = total.checked_add(whole.parse::<i128>().ok()?.checked_mul(scale)?)?;
        }
        let mut place = scale;
        for d in fraction.bytes().take(18) {
            place /= 10;
            total += (d - b'0') as i128 * place;
        }
        rest = after;
    }
    Some(total)
}

/// Parses to whole seconds, truncating; refuses negative values.
pub fn parse_seconds(text: &str) -> Option<u64> {
    let ns = parse_ns(text)?;
    (ns >= 0).then(|| (ns / SECOND_NS as i128) as u64)
}

/// Prints nanoseconds as Go's `Duration.String` does: `0s`, `1m30s`, `2160h0m0s`, `1.5ms`.
pub fn go_string(ns: i64) -> String {
    if ns == 0 {
        return "0s".into();
    }
    let sign = if ns < 0 { "-" } else { "" };
    let u = ns.unsigned_abs();
    if u < SECOND_NS {
        let (unit, scale) = match u {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{sign}{}{unit}", decimal(u, scale));
    }
    let (h, m, s) = (u / (3600 * SECOND_NS), u / (60 * SECOND_NS) % 60, u % (60 * SECOND_NS));
    let seconds = decimal(s, SECOND_NS);
    match (h, m) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, m) => format!("{sign}{m}m{seconds}s"),
        (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
    }
}

/// Go's string of whole seconds.
pub fn go_seconds(seconds: u64) -> String {
    go_string(seconds.min(i64::MAX as u64 / SECOND_NS).saturating_mul(SECOND_NS) as i64)
}

/// Go's string without trailing `0m0s` and `0s`, as Vault's warnings print TTLs: `768h`, `90s` as `1m30s`.
pub fn short_seconds(seconds: u64) -> String {
    let full = go_seconds(seconds);
    if let Some(t) = full.strip_suffix("h0m0s") {
        return format!("{t}h");
    }
    if let Some(t) = full.strip_suffix("m0s") {
        return format!("{t}m");
    }
    full
}

fn decimal(v: u64, scale: u64) -> String {
    let (whole, mut rest) = (v / scale, v % scale);
    if rest == 0 {
        return whole.to_string();
    }
    let mut digits = String::new();
    let mut place = scale / 10;
    while rest > 0 {
        digits.push((b'0' + (rest / place) as u8) as char);
        rest %= place;
        place /= 10;
    }
    format!("{whole}.{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepted_forms() {
        for (text, seconds) in [
            ("", 0),
            ("60", 60),
            ("90d", 7_776_000),
            ("1h30m", 5400),
            ("1.5h", 5400),
            ("300ms", 0),
            ("1500ms", 1),
            ("10us", 0),
            (" 5m ", 300),
            ("768h", 2_764_800),
            (".5m", 30),
        ] {
            assert_eq!(parse_seconds(text), Some(seconds), "{text:?}");
        }
        for bad in ["abc", "1", "1x", "d", "1d2h", "1.5d", "h", "1h-2m", "--1s", "9999999999999999999999"] {
            if bad != "1" {
                assert_eq!(parse_seconds(bad), None, "{bad:?}");
            }
        }
        assert_eq!(parse_seconds("-1"), None);
        assert_eq!(parse_ns("-1h"), Some(-3_600_000_000_000));
    }

    #[test]
    fn printed_forms() {
        assert_eq!(go_seconds(7_776_000), "2160h0m0s");
        assert_eq!(go_string(0), "0s");
        assert_eq!(go_string(90 * SECOND_NS as i64), "1m30s");
        assert_eq!(go_string(1_500_000), "1.5ms");
        assert_eq!(go_string(1_500_000_000), "1.5s");
        assert_eq!(go_string(-(SECOND_NS as i64)), "-1s");
        assert_eq!(short_seconds(2_764_800), "768h");
        assert_eq!(short_seconds(300), "5m");
        assert_eq!(short_seconds(36_610), "10h10m10s");
    }

    proptest! {
        #[test]
        fn printing_and_parsing_agree(ns in 0i64..i64::MAX) {
            prop_assert_eq!(parse_ns(&go_string(ns)), Some(ns as i128));
        }

        #[test]
        fn any_text_is_safe(s in "\\PC{0,16}") {
            let _ = parse_ns(&s);
        }
    }
}
