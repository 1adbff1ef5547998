//! How long a token or lease lives. Source: the rules that Vault documents for `CalculateTTL`.

use ringfence_base::{Wall, duration::SECOND_NS, duration::short_seconds};
use ringfence_logical::{Error, MountInfo};

/// What is asked and what bounds it. All lengths in seconds, 0 = not given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ask {
    /// What the client wants at a renewal.
    pub increment: u64,
    /// What role or user give.
    pub ttl: u64,
    /// Makes it periodic.
    pub period: u64,
    /// The longest life by role or user.
    pub max_ttl: u64,
    /// The longest life, also of a periodic token.
    pub explicit_max_ttl: u64,
    /// When it was made.
    pub start: Wall,
    /// Log time.
    pub now: Wall,
}

/// What it gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Granted {
    /// Seconds from now.
    pub ttl: u64,
    /// What was cut, in the API's words.
    pub warnings: Vec<String>,
}

/// Applies the rules of a mount (`default_ttl`, `max_ttl` of [`MountInfo`]).
///
/// # Errors
/// `past the max TTL, cannot renew`.
pub fn calculate(mount: &MountInfo, ask: &Ask) -> Result<Granted, Error> {
    within(mount.default_ttl, mount.max_ttl, ask)
}

/// As [`calculate`], over a default and a longest life in seconds.
pub fn within(default_ttl: u64, mount_max: u64, ask: &Ask) -> Result<Granted, Error> {
    let mut warnings = Vec::new();
    let lower = |max: u64, by: u64| if by > 0 && by < max { by } else { max };
    let max = lower(lower(mount_max, ask.max_ttl), ask.explicit_max_ttl);
    let (mut ttl, bound) = if ask.period > 0 {
        if ask.period > max {
            warnings.push(format!(
                "period of {:?} exceeded the effective max_ttl of {:?}; period value is capped accordingly",
                short_seconds(ask.period),
                short_seconds(max)
            ));
        }
        (ask.period.min(max), ask.explicit_max_ttl)
    } else {
        let given = [ask.increment, ask.ttl].into_iter().find(|t| *t > 0);
        (given.unwrap_or(default_ttl), max)
    };
    if bound > 0 {
        let end = ask.start.seconds().saturating_add(bound);
        let left = end.saturating_sub(ask.now.seconds());
        if left == 0 {
            return Err(Error::invalid("past the max TTL, cannot renew"));
        }
        if ttl > left {
            warnings.push(format!(
                "TTL of {:?} exceeded the effective max_ttl of {:?}; TTL value is capped accordingly",
                short_seconds(ttl),
                short_seconds(left)
            ));
            ttl = left;
        }
    }
    Ok(Granted { ttl, warnings })
}

/// Seconds from `now` to `due`, rounded to the nearest; 0 if past.
pub fn left(due: Wall, now: Wall) -> u64 {
    (due.since(now) + SECOND_NS / 2) / SECOND_NS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const H: u64 = 3600;

    fn ask() -> Ask {
        let at = Wall::from_seconds(1_000_000);
        Ask { increment: 0, ttl: 0, period: 0, max_ttl: 0, explicit_max_ttl: 0, start: at, now: at }
    }

    fn later(seconds: u64, ask: Ask) -> Ask {
        Ask { now: ask.start.plus_seconds(seconds), ..ask }
    }

    /// API reference, "TTL computation": each row is ask, seconds granted, start of the warning.
    #[test]
    fn the_table_of_rules() {
        let capped = |from: &str, to: &str| {
            format!("TTL of \"{from}\" exceeded the effective max_ttl of \"{to}\"; TTL value is capped accordingly")
        };
        let rows: Vec<(Ask, Result<u64, ()>, Vec<String>)> = vec![
            (ask(), Ok(24 * H), vec![]),
            (Ask { ttl: H, ..ask() }, Ok(H), vec![]),
            (Ask { ttl: H, increment: 2 * H, ..ask() }, Ok(2 * H), vec![]),
            (Ask { increment: 720 * H, ..ask() }, Ok(48 * H), vec![capped("720h", "48h")]),
            (Ask { ttl: 5 * H, max_ttl: 2 * H, ..ask() }, Ok(2 * H), vec![capped("5h", "2h")]),
            (Ask { max_ttl: 2 * H, explicit_max_ttl: H, ..ask() }, Ok(H), vec![capped("24h", "1h")]),
            // renewed: counted from now, bounded from the start
            (later(47 * H, Ask { increment: 2 * H, ..ask() }), Ok(H), vec![capped("2h", "1h")]),
            (later(10 * H, Ask { increment: 60, ..ask() }), Ok(60), vec![]),
            (later(48 * H, ask()), Err(()), vec![]),
            // periodic: only the explicit maximum bounds the whole life
            (later(1000 * H, Ask { period: H, increment: 5, ..ask() }), Ok(H), vec![]),
            (
                Ask { period: 72 * H, ..ask() },
                Ok(48 * H),
                vec![
                    "period of \"72h\" exceeded the effective max_ttl of \"48h\"; period value is capped accordingly"
                        .into(),
                ],
            ),
            (
                later(90 * 60, Ask { period: H, explicit_max_ttl: 2 * H, ..ask() }),
                Ok(H / 2),
                vec![capped("1h", "30m")],
            ),
            (later(2 * H, Ask { period: H, explicit_max_ttl: 2 * H, ..ask() }), Err(()), vec![]),
        ];
        for (ask, ttl, warnings) in rows {
            let got = within(24 * H, 48 * H, &ask);
            match (ttl, got) {
                (Ok(ttl), Ok(g)) => assert_eq!(g, Granted { ttl, warnings }, "{ask:?}"),
                (Err(()), Err(e)) => assert_eq!(e.text(), "past the max TTL, cannot renew"),
                (want, got) => panic!("{ask:?}: {got:?} instead of {want:?}"),
            }
        }
    }

    #[test]
    fn a_default_above_the_maximum_is_cut() {
        assert_eq!(within(48 * H, 24 * H, &ask()).map(|g| g.ttl), Ok(24 * H));
    }

    proptest! {
        #[test]
        fn no_grant_outlives_its_bound(
            increment in 0u64..1 << 40, ttl in 0u64..1 << 40, period in 0u64..1 << 40, max_ttl in 0u64..1 << 40,
            explicit_max_ttl in 0u64..1 << 40, age in 0u64..1 << 30, mount_max in 1u64..1 << 40,
        ) {
            let a = later(age, Ask { increment, ttl, period, max_ttl, explicit_max_ttl, ..ask() });
            if let Ok(g) = within(24 * H, mount_max, &a) {
                prop_assert!(g.ttl <= mount_max);
                if explicit_max_ttl > 0 {
                    prop_assert!(age + g.ttl <= explicit_max_ttl);
                }
                if period == 0 {
                    prop_assert!(age + g.ttl <= mount_max);
                }
            }
        }
    }
}
