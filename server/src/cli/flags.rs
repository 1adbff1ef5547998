//! The parsed flags and arguments of one command, read by name and kind.
//!
//! Values were checked by the parser, so the readers here cannot fail on form; a name that the command's table does not
//! declare is a broken invariant and stops a test.

use super::verb::{COMMON, Does, Flag, Kind, Verb};
use clap::ArgMatches;
use std::collections::BTreeMap;

/// Flags and positional arguments of the command that runs.
#[derive(Debug, Default)]
pub struct Flags {
    values: BTreeMap<&'static str, Vec<String>>,
    /// Positional arguments.
    pub args: Vec<String>,
}

impl Flags {
    /// Takes what the parser found for `verb`.
    pub fn from_matches(verb: &'static Verb, matches: &ArgMatches) -> Self {
        let common: &[Flag] = if matches!(verb.does, Does::Server) { &[] } else { COMMON };
        let mut values = BTreeMap::new();
        for flag in verb.flags.iter().chain(common) {
            let given: Vec<String> =
                matches.get_many::<String>(flag.name).map(|found| found.cloned().collect()).unwrap_or_default();
            if !given.is_empty() {
                values.insert(flag.name, given);
            }
        }
        let args = matches.get_many::<String>("args").map(|found| found.cloned().collect()).unwrap_or_default();
        Flags { values, args }
    }

    /// Was the flag given?
    pub fn given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The flag's last value.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(|values| values.last()).map(String::as_str)
    }

    /// The flag's last value, or the default.
    pub fn text_or<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.text(name).unwrap_or(default)
    }

    /// A boolean flag; absent is false.
    pub fn is_set(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// A whole number.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.text(name).and_then(|text| text.parse().ok())
    }

    /// A duration, nanoseconds.
    pub fn duration_ns(&self, name: &str) -> Option<i64> {
        let ns = ringfence_base::duration::parse_ns(self.text(name)?)?;
        i64::try_from(ns).ok()
    }

    /// All values of a repeatable flag.
    pub fn list(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// All values of a repeatable flag, each split at commas.
    pub fn split_list(&self, name: &str) -> Vec<String> {
        self.list(name)
            .iter()
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// All values of a `key=value` flag.
    pub fn map(&self, name: &str) -> BTreeMap<String, String> {
        self.list(name)
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// Gives a flag a value, as if it stood on the command line.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.values.insert(name, vec![value.to_owned()]);
    }
}

/// Is the kind one that may be given several times? Used by the environment reader.
pub fn is_repeatable(kind: Kind) -> bool {
    matches!(kind, Kind::List | Kind::Map)
}
