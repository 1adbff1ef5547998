//! Times of rotation: every so many seconds, or by a cron expression of five fields in UTC.

use chrono::{DateTime, Utc};
use croner::Cron;
use ringfence_base::Wall;
use std::str::FromStr;

/// Reads a cron expression.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Cron, String> {
    // seconds and years are not part of the format
    if text.split_whitespace().count() != 5 && !text.starts_with('@') {
        return Err("expected exactly 5 fields".into());
    }
    Cron::from_str(text).map_err(|e| e.to_string())
}

/// The first time of a schedule after another time.
pub fn next(cron: &Cron, after: Wall) -> Option<Wall> {
    let from = DateTime::<Utc>::from_timestamp(i64::try_from(after.seconds()).ok()?, 0)?;
    let at = cron.find_next_occurrence(&from, false).ok()?;
    Some(Wall::from_seconds(u64::try_from(at.timestamp()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        // 2023-11-14T22:13:20Z, a Tuesday
        let now = Wall::from_seconds(1_700_000_000);
        let at = |text: &str| next(&parse(text).unwrap(), now).unwrap().rfc3339_seconds();
        assert_eq!(at("0 * * * *"), "2023-11-14T23:00:00Z");
        assert_eq!(at("30 3 * * SAT"), "2023-11-18T03:30:00Z");
        assert_eq!(at("*/5 * * * *"), "2023-11-14T22:15:00Z");
        assert_eq!(at("0 0 29 2 *"), "2024-02-29T00:00:00Z");
        assert!(parse("* * * *").is_err() && parse("* * * * * *").is_err() && parse("61 * * * *").is_err());
    }
}
