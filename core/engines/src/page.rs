//! Pages of lists: `after` (the last name of the page before) and `limit` (0 or less: all).

use ringfence_logical::{Args, Field};
use serde_json::Value;

/// Query field: names after this one.
pub const AFTER: Field = Field::str("after", "List names that come after this one, itself not included.").query();
/// Query field: how many names at most.
pub const LIMIT: Field = Field::int("limit", "List at most so many names; zero or less lists all.").query();

/// How many names at most; 0 = all.
pub fn limit(args: &Args) -> usize {
    usize::try_from(args.int("limit")).unwrap_or(0)
}

/// `after` and `limit` of a path whose body is stored whole. Such a path cannot declare them as fields: an object
/// written there may have keys of the same names and any type.
pub fn undeclared(args: &Args) -> (&str, usize) {
    let text = |name: &str| args.raw().get(name).and_then(Value::as_str).unwrap_or("");
    (text("after"), text("limit").parse::<i64>().ok().and_then(|n| usize::try_from(n).ok()).unwrap_or(0))
}

/// A path as the prefix of a folder: empty, or with one slash at its end.
pub fn folder(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" => String::new(),
        p => format!("{p}/"),
    }
}
