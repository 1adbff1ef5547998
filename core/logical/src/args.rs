//! The fields of one request after coercion. Source of the rules: Vault's `framework.FieldData` (weak decoding),
//! table in the API reference: numbers and booleans become text, numeric text becomes numbers, durations take
//! seconds or Go's syntax, comma text becomes a list, `null` counts as not supplied for durations and times.
//!
//! *Supplied* is told apart from *zero*: `opt_*` answers `None` when the key was absent.

use crate::error::Error;
use crate::field::{Field, Kind, Preset};
use crate::{Map, Parameters, error};
use ringfence_base::{Wall, duration};
use serde_json::Value;
use std::collections::BTreeMap;

/// A coerced value.
#[derive(Clone, Debug, PartialEq)]
enum Coerced {
    Str(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Time(Wall),
    List(Vec<String>),
    Ints(Vec<i64>),
    Pairs(BTreeMap<String, String>),
    /// As it came; it stands in `raw`.
    Json,
}

/// The fields of a request.
#[derive(Clone, Debug, Default)]
pub struct Args {
    fields: &'static [Field],
    values: Vec<(&'static str, Coerced)>,
    raw: Parameters,
    ignored: Vec<String>,
    replaced: Vec<String>,
}

impl Args {
    /// Coerces what was captured from the path and what came in body or query. A captured value wins.
    ///
    /// # Errors
    /// `Field validation failed: error converting input for field "x": ...` (400).
    pub fn parse(
        fields: &'static [Field],
        captures: &[(&'static str, &str)],
        raw: impl Into<Parameters>,
    ) -> Result<Args, Error> {
        let raw = raw.into();
        let mut args = Args { fields, ..Args::default() };
        for (name, text) in captures {
            let kind = fields.iter().find(|f| f.name == *name).map_or(Kind::Str, |f| f.kind);
            let value = match kind {
                Kind::Str => None,
                _ => coerce(kind, &Value::String((*text).to_owned())).map_err(|why| conversion(name, &why))?,
            };
            args.values.push((name, value.unwrap_or_else(|| Coerced::Str((*text).to_owned()))));
            let came = match raw.texts() {
                Some(mut texts) => texts.any(|(n, _)| n == *name),
                None => raw.contains_key(*name),
            };
            if came {
                args.replaced.push((*name).to_owned());
            }
        }
        match raw.texts() {
            Some(texts) => {
                for (key, text) in texts {
                    // a long list of any shape is read by its handler, from the text
                    let stays = text.starts_with('[') && fields.iter().any(|f| f.name == key && f.kind == Kind::Any);
                    let value = match stays {
                        true => Value::Array(Vec::new()),
                        false => serde_json::from_str(text).map_err(|e| conversion(key, &e.to_string()))?,
                    };
                    args.take(captures, key, &value)?;
                }
            }
            None => {
                for (key, value) in &raw {
                    args.take(captures, key, value)?;
                }
            }
        }
        args.raw = raw;
        Ok(args)
    }

    /// Takes one field of the body in.
    fn take(&mut self, captures: &[(&'static str, &str)], key: &str, value: &Value) -> Result<(), Error> {
        if captures.iter().any(|(n, _)| *n == key) {
            return Ok(());
        }
        let Some(field) = self.fields.iter().find(|f| f.name == key) else {
            self.ignored.push(key.to_owned());
            return Ok(());
        };
        match coerce(field.kind, value) {
            Ok(Some(v)) => {
                if let (Coerced::Str(s), false) = (&v, field.allowed.is_empty())
                    && !field.allowed.contains(&s.as_str())
                {
                    return Err(conversion(key, &format!("must be one of {:?}", field.allowed)));
                }
                self.values.push((field.name, v));
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(why) => Err(conversion(key, &why)),
        }
    }

    /// True if the key was in the request (and not an uncountable `null`).
    pub fn supplied(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Everything that came in body or query, uncoerced.
    pub fn raw(&self) -> &Map {
        &self.raw
    }

    /// The automatic warnings: unknown and replaced parameters.
    pub fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        let list = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names.join(" ")
        };
        if !self.ignored.is_empty() {
            out.push(format!("Endpoint ignored these unrecognized parameters: [{}]", list(&self.ignored)));
        }
        if !self.replaced.is_empty() {
            out.push(format!(
                "Endpoint replaced the value of these parameters with the values captured from the endpoint's path: [{}]",
                list(&self.replaced)
            ));
        }
        out
    }

    /// Text, or the default.
    pub fn str(&self, name: &str) -> &str {
        match (self.find(name), self.preset(name)) {
            (Some(Coerced::Str(s)), _) => s,
            (None, Preset::Str(s)) => s,
            _ => "",
        }
    }

    /// Text if supplied.
    pub fn opt_str(&self, name: &str) -> Option<&str> {
        self.find(name).map(|_| self.str(name))
    }

    /// An integer or duration in seconds, or the default.
    pub fn int(&self, name: &str) -> i64 {
        match (self.find(name), self.preset(name)) {
            (Some(Coerced::Int(n)), _) => *n,
            (Some(Coerced::Bool(b)), _) => i64::from(*b),
            (None, Preset::Int(n)) => n,
            _ => 0,
        }
    }

    /// An integer if supplied.
    pub fn opt_int(&self, name: &str) -> Option<i64> {
        self.find(name).map(|_| self.int(name))
    }

    /// A duration in seconds (never negative for [`Kind::Seconds`]), or the default.
    pub fn seconds(&self, name: &str) -> u64 {
        self.int(name).max(0) as u64
    }

    /// A duration if supplied.
    pub fn opt_seconds(&self, name: &str) -> Option<u64> {
        self.find(name).map(|_| self.seconds(name))
    }

    /// A decimal number, or the default.
    pub fn float(&self, name: &str) -> f64 {
        match self.find(name) {
            Some(Coerced::Float(x)) => *x,
            _ => 0.0,
        }
    }

    /// A boolean, or the default.
    pub fn bool(&self, name: &str) -> bool {
        match (self.find(name), self.preset(name)) {
            (Some(Coerced::Bool(b)), _) => *b,
            (None, Preset::Bool(b)) => b,
            _ => false,
        }
    }

    /// A boolean if supplied.
    pub fn opt_bool(&self, name: &str) -> Option<bool> {
        self.find(name).map(|_| self.bool(name))
    }

    /// A time if supplied.
    pub fn opt_time(&self, name: &str) -> Option<Wall> {
        match self.find(name) {
            Some(Coerced::Time(t)) => Some(*t),
            _ => None,
        }
    }

    /// A list; empty when absent.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.opt_list(name).unwrap_or_default()
    }

    /// A list if supplied.
    pub fn opt_list(&self, name: &str) -> Option<Vec<String>> {
        match self.find(name) {
            Some(Coerced::List(l)) => Some(l.clone()),
            _ => None,
        }
    }

    /// A list of integers if supplied.
    pub fn opt_ints(&self, name: &str) -> Option<Vec<i64>> {
        match self.find(name) {
            Some(Coerced::Ints(l)) => Some(l.clone()),
            _ => None,
        }
    }

    /// Key-value pairs if supplied.
    pub fn opt_pairs(&self, name: &str) -> Option<BTreeMap<String, String>> {
        match self.find(name) {
            Some(Coerced::Pairs(p)) => Some(p.clone()),
            _ => None,
        }
    }

    /// A JSON value if supplied (object and any kinds); `null` is `Some(Value::Null)` for [`Kind::Any`].
    pub fn json(&self, name: &str) -> Option<&Value> {
        match self.find(name) {
            Some(Coerced::Json) => self.raw.get(name),
            _ => None,
        }
    }

    /// The text of a value of any kind, without escapes, where the body is kept as a text: a handler of many items reads
    /// them from here, and from [`Args::json`] where there is none.
    pub fn json_text(&self, name: &str) -> Option<&str> {
        match self.find(name) {
            Some(Coerced::Json) => self.raw.text_of(name),
            _ => None,
        }
    }

    /// A JSON object if supplied as one.
    pub fn object(&self, name: &str) -> Option<&Map> {
        self.json(name).and_then(Value::as_object)
    }

    fn find(&self, name: &str) -> Option<&Coerced> {
        self.values.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    fn preset(&self, name: &str) -> Preset {
        self.fields.iter().find(|f| f.name == name).map_or(Preset::Zero, |f| f.preset)
    }
}

fn conversion(name: &str, why: &str) -> Error {
    error::Error::invalid(format!("Field validation failed: error converting input for field {name:?}: {why}"))
}

/// Go's `strconv.ParseBool` forms, and the empty string as false.
pub fn parse_bool(s: &str) -> Option<bool> {
    match s {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "" | "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Parses the API's duration forms from JSON: whole seconds, truncated. `None` for `null`.
pub fn seconds_of(v: &Value) -> Result<Option<i64>, String> {
    match v {
        Value::Null => Ok(None),
        Value::Number(n) => {
            let whole = n.as_i64().or_else(|| n.as_f64().map(|f| f as i64));
            match whole {
                // durations are Go durations: 63 bits of nanoseconds
                Some(s) if s.unsigned_abs() <= i64::MAX as u64 / duration::SECOND_NS => Ok(Some(s)),
                _ => Err(format!("time: invalid duration {n}")),
            }
        }
        Value::String(s) => match duration::parse_ns(s) {
            Some(ns) => Ok(Some((ns / duration::SECOND_NS as i128) as i64)),
            None => Err(format!("time: invalid duration {s:?}")),
        },
        other => Err(format!("could not parse duration from input of type {}", type_name(other))),
    }
}

fn type_name(v: &Value) -> &'static str {
    match v {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "json.Number",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn scalar_text(v: &Value) -> Option<String> {
    match v {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(if *b { "1" } else { "0" }.to_owned()),
        Value::Null => Some(String::new()),
        _ => None,
    }
}

fn expected(kind: &str, v: &Value) -> String {
    format!("'' expected type '{kind}', got unconvertible type '{}'", type_name(v))
}

fn coerce(kind: Kind, v: &Value) -> Result<Option<Coerced>, String> {
    Ok(Some(match kind {
        Kind::Str | Kind::LowerStr => {
            let s = scalar_text(v).ok_or_else(|| expected("string", v))?;
            Coerced::Str(if kind == Kind::LowerStr { s.to_lowercase() } else { s })
        }
        Kind::Int => Coerced::Int(match v {
            Value::Null => 0,
            Value::Bool(b) => i64::from(*b),
            Value::Number(n) => n
                .as_i64()
                .or_else(|| n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15).map(|f| f as i64))
                .ok_or_else(|| format!("strconv.ParseInt: parsing \"{n}\": invalid syntax"))?,
            Value::String(s) if s.is_empty() => 0,
            Value::String(s) => s
                .parse()
                .map_err(|_| format!("cannot parse '' as int: strconv.ParseInt: parsing {s:?}: invalid syntax"))?,
            _ => return Err(expected("int", v)),
        }),
        Kind::Float => Coerced::Float(match v {
            Value::Null => 0.0,
            Value::Bool(b) => f64::from(u8::from(*b)),
            Value::Number(n) => n.as_f64().ok_or_else(|| expected("float64", v))?,
            Value::String(s) if s.is_empty() => 0.0,
            Value::String(s) => s.parse::<f64>().ok().filter(|f| f.is_finite()).ok_or_else(|| {
                format!("cannot parse '' as float: strconv.ParseFloat: parsing {s:?}: invalid syntax")
            })?,
            _ => return Err(expected("float64", v)),
        }),
        Kind::Bool => Coerced::Bool(match v {
            Value::Null => false,
            Value::Bool(b) => *b,
            Value::Number(n) => n.as_f64() != Some(0.0),
            Value::String(s) => parse_bool(s).ok_or_else(|| {
                format!("cannot parse '' as bool: strconv.ParseBool: parsing {s:?}: invalid syntax")
            })?,
            _ => return Err(expected("bool", v)),
        }),
        Kind::Seconds | Kind::SignedSeconds => match seconds_of(v)? {
            None => return Ok(None),
            Some(s) if s < 0 && kind == Kind::Seconds => {
                return Err(format!("cannot provide negative value '{s}'"));
            }
            Some(s) => Coerced::Int(s),
        },
        Kind::Time => match v {
            Value::Null => return Ok(None),
            Value::String(s) if s.is_empty() => return Ok(None),
            Value::String(s) => match (Wall::parse_rfc3339(s), s.parse::<u64>()) {
                (Some(t), _) => Coerced::Time(t),
                (None, Ok(epoch)) => Coerced::Time(Wall::from_seconds(epoch)),
                _ => return Err(format!("parsing time {s:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse")),
            },
            Value::Number(n) => Coerced::Time(Wall::from_seconds(n.as_u64().ok_or("time before 1970")?)),
            _ => return Err(expected("string", v)),
        },
        Kind::CommaList => Coerced::List(match v {
            Value::String(s) => split_commas(s),
            _ => list_of(v)?.into_iter().map(|s| s.trim().to_owned()).collect(),
        }),
        Kind::StrList => Coerced::List(match v {
            Value::String(s) if s.is_empty() => Vec::new(),
            _ => list_of(v)?,
        }),
        Kind::CommaIntList => {
            let texts = match v {
                Value::String(s) => split_commas(s),
                _ => list_of(v)?,
            };
            let ints: Result<Vec<i64>, String> = texts
                .iter()
                .map(|s| s.trim().parse().map_err(|_| format!("strconv.ParseInt: parsing {s:?}: invalid syntax")))
                .collect();
            Coerced::Ints(ints?)
        }
        Kind::KvPairs => Coerced::Pairs(pairs_of(v)?),
        Kind::Object => match v {
            Value::Object(_) | Value::Null => Coerced::Json,
            _ => return Err(format!("'' expected a map, got '{}'", go_kind(v))),
        },
        Kind::Any => Coerced::Json,
    }))
}

fn go_kind(v: &Value) -> &'static str {
    match v {
        Value::Array(_) => "slice",
        Value::Number(_) => "string",
        other => type_name(other),
    }
}

fn split_commas(s: &str) -> Vec<String> {
    if s.trim().is_empty() { Vec::new() } else { s.split(',').map(|p| p.trim().to_owned()).collect() }
}

fn list_of(v: &Value) -> Result<Vec<String>, String> {
    match v {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.iter().map(|i| scalar_text(i).ok_or_else(|| expected("string", i))).collect(),
        other => Ok(vec![scalar_text(other).ok_or_else(|| expected("[]string", other))?]),
    }
}

fn pairs_of(v: &Value) -> Result<BTreeMap<String, String>, String> {
    match v {
        Value::Null => Ok(BTreeMap::new()),
        Value::Object(o) => {
            o.iter().map(|(k, x)| Ok((k.clone(), scalar_text(x).ok_or_else(|| expected("string", x))?))).collect()
        }
        Value::Array(items) => {
            let mut out = BTreeMap::new();
            for i in items {
                let s = scalar_text(i).ok_or_else(|| expected("string", i))?;
                let (k, x) = s.split_once('=').ok_or_else(|| format!("invalid key/value pair {s:?}"))?;
                out.insert(k.trim().to_owned(), x.to_owned());
            }
            Ok(out)
        }
        Value::String(s) if s.is_empty() => Ok(BTreeMap::new()),
        Value::String(s) => {
            let mut out = BTreeMap::new();
            for p in split_commas(s) {
                let (k, x) = p.split_once('=').ok_or_else(|| format!("invalid key/value pair {p:?}"))?;
                out.insert(k.trim().to_owned(), x.to_owned());
            }
            Ok(out)
        }
        other => Err(expected("map[string]string", other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    static FIELDS: &[Field] = &[
        Field::str("name", ""),
        Field::int("n", ""),
        Field::bool("b", "").preset(Preset::Bool(true)),
        Field::seconds("ttl", "").preset(Preset::Int(30)),
        Field::new("signed", Kind::SignedSeconds, ""),
        Field::list("policies", ""),
        Field::new("meta", Kind::KvPairs, ""),
        Field::new("versions", Kind::CommaIntList, ""),
        Field::new("data", Kind::Object, ""),
        Field::str("kind", "").allowed(&["a", "b"]),
    ];

    fn parse(v: Value) -> Result<Args, Error> {
        Args::parse(FIELDS, &[], v.as_object().expect("object").clone())
    }

    #[test]
    fn cli_strings_become_typed_values() {
        let a =
            parse(json!({"n": "10", "b": "true", "ttl": "90d", "policies": "a, b", "versions": "1,2"})).expect("ok");
        assert_eq!((a.int("n"), a.bool("b"), a.seconds("ttl")), (10, true, 7_776_000));
        assert_eq!(a.list("policies"), ["a", "b"]);
        assert_eq!(a.opt_ints("versions"), Some(vec![1, 2]));
    }

    #[test]
    fn absent_is_not_zero() {
        let a = parse(json!({"n": 0})).expect("ok");
        assert_eq!((a.opt_int("n"), a.opt_str("name"), a.opt_bool("b")), (Some(0), None, None));
        assert_eq!((a.bool("b"), a.seconds("ttl")), (true, 30));
        assert!(!parse(json!({"ttl": null})).expect("ok").supplied("ttl"));
    }

    #[test]
    fn refusals_name_the_field() {
        for (bad, field) in [
            (json!({"n": "x"}), "n"),
            (json!({"b": "maybe"}), "b"),
            (json!({"ttl": "1y"}), "ttl"),
            (json!({"ttl": -1}), "ttl"),
            (json!({"ttl": 1e300}), "ttl"),
            (json!({"name": {"a": 1}}), "name"),
            (json!({"data": "text"}), "data"),
            (json!({"kind": "c"}), "kind"),
            (json!({"policies": [[1]]}), "policies"),
            (json!({"meta": "novalue"}), "meta"),
        ] {
            let e = parse(bad).expect_err(field);
            assert!(
                e.errors[0]
                    .starts_with(&format!("Field validation failed: error converting input for field {field:?}: ")),
                "{e}"
            );
        }
        assert!(
            parse(json!({"ttl": -1})).expect_err("negative").errors[0]
                .ends_with("cannot provide negative value '-1'")
        );
    }

    #[test]
    fn captures_win_and_unknown_fields_warn() {
        let raw = json!({"name": "body", "zz": 1, "aa": 2});
        let a = Args::parse(FIELDS, &[("name", "path")], raw.as_object().expect("object").clone()).expect("ok");
        assert_eq!(a.str("name"), "path");
        assert_eq!(
            a.warnings(),
            [
                "Endpoint ignored these unrecognized parameters: [aa zz]",
                "Endpoint replaced the value of these parameters with the values captured from the endpoint's path: [name]"
            ]
        );
    }

    proptest! {
        #[test]
        fn durations_never_overflow(n in proptest::num::i64::ANY, s in "[0-9]{1,25}[smhd]?") {
            let _ = parse(json!({"ttl": n, "signed": s}));
        }

        #[test]
        fn numbers_and_their_text_agree(n: i64) {
            let a = parse(json!({"n": n})).expect("ok").int("n");
            let b = parse(json!({"n": n.to_string()})).expect("ok").int("n");
            prop_assert_eq!((a, b), (n, n));
        }
    }
}
