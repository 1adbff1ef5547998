//! Time values. The machine is told the time; it never asks.
//!
//! *Mono* moves elections and wheels, *wall* dates leases and certificates. What the API prints is RFC 3339 with
//! nanoseconds in UTC, trailing zeros trimmed, as Go's `time.RFC3339Nano`.

use crate::duration::SECOND_NS;

/// Nanoseconds on a clock that never steps and counts suspension (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

/// Nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Wall(pub u64);

/// What the driver says the time is at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// For elections, timers and pacing.
    pub mono: Mono,
    /// For everything a client sees.
    pub wall: Wall,
}

impl Mono {
    /// Nanoseconds from `earlier` to here, zero if `earlier` is later.
    pub fn since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This much later.
    pub fn plus_ns(self, ns: u64) -> Mono {
        Mono(self.0.saturating_add(ns))
    }
}

impl Wall {
    /// From whole seconds since the epoch.
    pub fn from_seconds(s: u64) -> Wall {
        Wall(s.saturating_mul(SECOND_NS))
    }

    /// Whole seconds since the epoch, truncated.
    pub fn seconds(self) -> u64 {
        self.0 / SECOND_NS
    }

    /// Seconds later.
    pub fn plus_seconds(self, s: u64) -> Wall {
        Wall(self.0.saturating_add(s.saturating_mul(SECOND_NS)))
    }

    /// Nanoseconds later.
    pub fn plus_ns(self, ns: u64) -> Wall {
        Wall(self.0.saturating_add(ns))
    }

    /// Nanoseconds from `earlier` to here, zero if `earlier` is later.
    pub fn since(self, earlier: Wall) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `2018-03-22T02:24:06.945319214Z`; trailing zeros of the fraction are trimmed.
    pub fn rfc3339(self) -> String {
        let c = Civil::of(self);
        // on the way of every read: digits are written, not formatted
        let mut b = *b"0000-00-00T00:00:00.000000000Z";
        digits(&mut b[..4], c.year as u64);
        for (at, n) in [(5, c.month), (8, c.day), (11, c.hour), (14, c.minute), (17, c.second)] {
            digits(&mut b[at..at + 2], n.into());
        }
        digits(&mut b[20..29], c.nano.into());
        let shown = match c.nano {
            0 => 19,
            _ => b[..29].iter().rposition(|d| *d != b'0').map_or(0, |last| last + 1),
        };
        b[shown] = b'Z';
        String::from_utf8_lossy(&b[..=shown]).into_owned()
    }

    /// Without the fraction: `2018-03-22T02:24:06Z`.
    pub fn rfc3339_seconds(self) -> String {
        Wall::from_seconds(self.seconds()).rfc3339()
    }

    /// Parses RFC 3339 with an optional fraction and any offset. Years 1970 to 2553.
    pub fn parse_rfc3339(s: &str) -> Option<Wall> {
        let b = s.as_bytes();
        if !s.is_ascii() || b.len() < 20 || b[4] != b'-' || b[7] != b'-' || b[13] != b':' || b[16] != b':' {
            return None;
        }
        if !matches!(b[10], b'T' | b't') {
            return None;
        }
        let n = |from: usize, to: usize| -> Option<u64> {
            let t = &s[from..to];
            t.bytes().all(|c| c.is_ascii_digit()).then(|| t.parse().ok()).flatten()
        };
        let (year, month, day) = (n(0, 4)?, n(5, 7)?, n(8, 10)?);
        let (hour, minute, second) = (n(11, 13)?, n(14, 16)?, n(17, 19)?);
        if !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        if day == 0 || day > days_in_month(year as i64, month as u32) as u64 {
            return None;
        }
        let mut rest = &s[19..];
        let mut nano = 0u64;
        if let Some(f) = rest.strip_prefix('.') {
            let k = f.bytes().take_while(u8::is_ascii_digit).count();
            if k == 0 {
                return None;
            }
            let mut place = 100_000_000;
            for d in f.bytes().take(k.min(9)) {
                nano += (d - b'0') as u64 * place;
                place /= 10;
            }
            rest = &f[k..];
        }
        let offset: i64 = match rest.as_bytes() {
            [b'Z' | b'z'] => 0,
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
                let d = |c: &u8| c.is_ascii_digit().then(|| (c - b'0') as i64);
                let m = (d(h1)? * 10 + d(h2)?) * 60 + d(m1)? * 10 + d(m2)?;
                if *sign == b'-' { -m * 60 } else { m * 60 }
            }
            _ => return None,
        };
        let days = days_from_civil(year as i64, month as u32, day as u32);
        let secs = days * 86_400 + (hour * 3600 + minute * 60 + second) as i64 - offset;
        let secs = u64::try_from(secs).ok()?;
        Some(Wall(secs.checked_mul(SECOND_NS)?.checked_add(nano)?))
    }
}

/// A wall time taken apart, UTC, proleptic Gregorian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Calendar year.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
    /// 0 to 999,999,999.
    pub nano: u32,
}

impl Civil {
    /// Takes a wall time apart.
    pub fn of(t: Wall) -> Civil {
        let secs = t.seconds();
        let (year, month, day) = civil_from_days((secs / 86_400) as i64);
        let day_secs = (secs % 86_400) as u32;
        Civil {
            year,
            month,
            day,
            hour: day_secs / 3600,
            minute: day_secs / 60 % 60,
            second: day_secs % 60,
            nano: (t.0 % SECOND_NS) as u32,
        }
    }
}

/// Writes the last digits of a number, as many as there is room for.
fn digits(room: &mut [u8], mut n: u64) {
    for digit in room.iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
}

/// Days since 1970-01-01 of a date: the era arithmetic on years of 365.2425 days that begin in March.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = (month as i64 + 9) % 12;
    let doy = (153 * mp + 2) / 5 + day as i64 - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        assert_eq!(Wall(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(Wall(1_521_685_446_945_319_214).rfc3339(), "2018-03-22T02:24:06.945319214Z");
        assert_eq!(Wall::from_seconds(951_782_400).rfc3339(), "2000-02-29T00:00:00Z");
        assert_eq!(Wall(1_500_000_000).rfc3339(), "1970-01-01T00:00:01.5Z");
        let t = Wall::parse_rfc3339("2018-03-22T04:24:06.945319214+02:00").expect("parses");
        assert_eq!(t, Wall(1_521_685_446_945_319_214));
        for bad in ["", "2018-02-30T00:00:00Z", "2018-03-22 02:24:06Z", "2018-03-22T02:24:06", "2018-13-01T00:00:00Z"]
        {
            assert_eq!(Wall::parse_rfc3339(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_survives(ns: u64) {
            prop_assert_eq!(Wall::parse_rfc3339(&Wall(ns).rfc3339()), Some(Wall(ns)));
        }

        #[test]
        fn any_text_is_safe(s in "\\PC{0,40}") {
            let _ = Wall::parse_rfc3339(&s);
        }
    }
}
