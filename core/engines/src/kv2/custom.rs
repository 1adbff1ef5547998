//! Custom metadata of a key: texts that an operator attaches.

use ringfence_base::path::is_printable;
use ringfence_logical::error::multi_text;
use ringfence_logical::{Error, Map};
use serde_json::Value;
use std::collections::BTreeMap;

const MAX_KEYS: usize = 64;
const MAX_KEY_BYTES: usize = 128;
const MAX_VALUE_BYTES: usize = 512;
const PREFIX: &str = "custom_metadata validation failed";

/// Takes an object of scalars as texts.
pub fn texts(object: &Map) -> Result<BTreeMap<String, String>, Error> {
    object
        .iter()
        .map(|(k, v)| {
            let text = match v {
                Value::String(s) => s.clone(),
                Value::Number(n) => n.to_string(),
                Value::Bool(b) => if *b { "1" } else { "0" }.to_owned(),
                Value::Null => String::new(),
                Value::Array(_) => return Err(unconvertible("[]interface {}")),
                Value::Object(_) => return Err(unconvertible("map[string]interface {}")),
            };
            Ok((k.clone(), text))
        })
        .collect()
}

fn unconvertible(kind: &str) -> Error {
    Error::invalid(format!("{PREFIX}: '' expected type 'string', got unconvertible type '{kind}'"))
}

/// Checks number, lengths and characters.
pub fn check(custom: &BTreeMap<String, String>) -> Result<(), Error> {
    let mut faults = Vec::new();
    if custom.len() > MAX_KEYS {
        faults.push(format!("{PREFIX}: payload must contain at most {MAX_KEYS} keys, provided {}", custom.len()));
    } else {
        for (key, value) in custom {
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                faults.push(format!(
                    "{PREFIX}: length of key {key:?} is {} but must be 0 < len(key) <= {MAX_KEY_BYTES}",
                    key.len()
                ));
            }
            if value.is_empty() || value.len() > MAX_VALUE_BYTES {
                faults.push(format!(
                    "{PREFIX}: length of value for key {key:?} is {} but must be 0 < len(value) <= {MAX_VALUE_BYTES}",
                    value.len()
                ));
            }
            if !key.chars().all(is_printable) {
                faults.push(format!("{PREFIX}: key {key:?} ({key}) contains unprintable characters"));
            }
            if !value.chars().all(is_printable) {
                faults.push(format!("{PREFIX}: value for key {key:?} contains unprintable characters"));
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::invalid(multi_text(&faults))) }
}
