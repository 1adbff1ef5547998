//! Fields of a path: a name, a kind, one default, and what documents need to know of it.

/// What a field accepts. The decode rules are Vault's framework's: see [`crate::args`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text; numbers and booleans are stringified.
    Str,
    /// Text, lower-cased.
    LowerStr,
    /// An integer; numeric strings and booleans are accepted, `""` is 0.
    Int,
    /// A decimal number.
    Float,
    /// A boolean; Go's `ParseBool` forms.
    Bool,
    /// A duration in whole seconds, not negative.
    Seconds,
    /// A duration in whole seconds, negative allowed.
    SignedSeconds,
    /// A time: RFC 3339 or epoch seconds.
    Time,
    /// A list, or a string split on commas; elements trimmed.
    CommaList,
    /// A list, or one string.
    StrList,
    /// A list of integers, an integer, or comma text.
    CommaIntList,
    /// An object of scalars, or a list of `k=v`.
    KvPairs,
    /// Any JSON object.
    Object,
    /// Any JSON value, uncoerced.
    Any,
}

/// The default that a field has when it was not supplied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preset {
    /// The kind's zero value.
    Zero,
    /// A text.
    Str(&'static str),
    /// A whole number (integers and seconds).
    Int(i64),
    /// A boolean.
    Bool(bool),
}

/// One declared field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name in body, query or path.
    pub name: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// Its value when absent.
    pub preset: Preset,
    /// Help text, one or two sentences.
    pub help: &'static str,
    /// The only values allowed, if not empty (enforced for text fields).
    pub allowed: &'static [&'static str],
    /// Its value is a secret: never printed in errors.
    pub secret: bool,
    /// Meant for the query string.
    pub query: bool,
    /// Still accepted, no longer advised.
    pub deprecated: bool,
}

impl Field {
    /// A field of a kind with the zero default.
    pub const fn new(name: &'static str, kind: Kind, help: &'static str) -> Field {
        Field { name, kind, preset: Preset::Zero, help, allowed: &[], secret: false, query: false, deprecated: false }
    }

    /// Text.
    pub const fn str(name: &'static str, help: &'static str) -> Field {
        Field::new(name, Kind::Str, help)
    }

    /// An integer.
    pub const fn int(name: &'static str, help: &'static str) -> Field {
        Field::new(name, Kind::Int, help)
    }

    /// A boolean.
    pub const fn bool(name: &'static str, help: &'static str) -> Field {
        Field::new(name, Kind::Bool, help)
    }

    /// A duration, whole seconds.
    pub const fn seconds(name: &'static str, help: &'static str) -> Field {
        Field::new(name, Kind::Seconds, help)
    }

    /// A comma list.
    pub const fn list(name: &'static str, help: &'static str) -> Field {
        Field::new(name, Kind::CommaList, help)
    }

    /// With this default.
    pub const fn preset(mut self, preset: Preset) -> Field {
        self.preset = preset;
        self
    }

    /// With only these values allowed.
    pub const fn allowed(mut self, values: &'static [&'static str]) -> Field {
        self.allowed = values;
        self
    }

    /// A secret.
    pub const fn secret(mut self) -> Field {
        self.secret = true;
        self
    }

    /// For the query string.
    pub const fn query(mut self) -> Field {
        self.query = true;
        self
    }

    /// Deprecated.
    pub const fn deprecated(mut self) -> Field {
        self.deprecated = true;
        self
    }
}
