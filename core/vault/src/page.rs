//! Pages of the vault's own lists: `after` (the last name of the page before) and `limit` (0 or less: all). Names are
//! listed in byte order, so a page is where the next one begins, whatever is added or removed in between.

use ringfence_logical::{Args, Field, Map, Response};

/// Query field: names after this one.
pub const AFTER: Field = Field::str("after", "List names that come after this one, itself not included.").query();
/// Query field: how many names at most.
pub const LIMIT: Field = Field::int("limit", "List at most so many names; zero or less lists all.").query();
/// Both, for paths without other fields.
pub const FIELDS: &[Field] = &[AFTER, LIMIT];

/// How many names at most.
pub fn limit(args: &Args) -> usize {
    match usize::try_from(args.int("limit")) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(n) => n,
    }
}

/// The page of names that a request asks for; they are in byte order.
pub fn of(args: &Args, mut names: Vec<String>) -> Vec<String> {
    let after = args.str("after");
    if !after.is_empty() {
        let from = names.partition_point(|n| n.as_str() <= after);
        names.drain(..from);
    }
    names.truncate(limit(args));
    names
}

/// A list answer with something told of each name.
pub fn with_info(keys: Vec<String>, info: Map) -> Response {
    let mut data = Map::new();
    if !keys.is_empty() {
        data.insert("keys".into(), keys.into());
        data.insert("key_info".into(), info.into());
    }
    Response::data(data)
}
