//! `key=value` arguments: data of a request as a person types it.
//!
//! Values stay strings whatever they look like; the server converts. `key=@file` reads a file, `key=-` standard input,
//! `@file` and `-` read a whole JSON object, a backslash in front of `@` keeps it. A key given twice becomes a list.

use super::io::{Io, of_file};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Largest file or standard input that is taken as data, bytes: the server's own limit for a body.
const MAX_DATA_BYTES: usize = ringfence_base::limit::MAX_REQUEST_BYTES;

/// Reads arguments into an object.
pub fn parse(io: &mut Io<'_>, args: &[String], interactive: bool) -> Result<Map<String, Value>, String> {
    let mut data = Map::new();
    let mut stdin_used = false;
    let mut stdin = |io: &mut Io<'_>| {
        if std::mem::replace(&mut stdin_used, true) {
            return Err("standard input was already read by an earlier argument".to_owned());
        }
        if !interactive {
            return Ok(String::new());
        }
        text(io.read_all(MAX_DATA_BYTES)?, "standard input")
    };
    for arg in args {
        if arg == "-" {
            let document = stdin(io)?;
            merge(&mut data, &document, "standard input")?;
            continue;
        }
        if let Some(path) = arg.strip_prefix('@') {
            let document = file(io, path)?;
            merge(&mut data, &document, path)?;
            continue;
        }
        let Some((key, value)) = arg.split_once('=') else {
            return Err(format!("invalid key/value pair {arg:?}: format must be key=value"));
        };
        let value = if value == "-" {
            stdin(io)?
        } else if let Some(path) = value.strip_prefix('@') {
            file(io, path)?
        } else {
            value.strip_prefix('\\').filter(|rest| rest.starts_with('@')).unwrap_or(value).to_owned()
        };
        add(&mut data, key, Value::String(value));
    }
    Ok(data)
}

/// Reads arguments into an object of texts; anything else in a JSON document is refused.
pub fn parse_texts(io: &mut Io<'_>, args: &[String], interactive: bool) -> Result<BTreeMap<String, String>, String> {
    parse(io, args, interactive)?
        .into_iter()
        .map(|(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            Value::Bool(value) => Ok((key, value.to_string())),
            Value::Number(value) => Ok((key, value.to_string())),
            Value::Null => Ok((key, String::new())),
            _ => Err(format!("the value of {key:?} cannot be a text")),
        })
        .collect()
}

/// Reads arguments into query parameters.
pub fn parse_query(io: &mut Io<'_>, args: &[String], interactive: bool) -> Result<Vec<(String, String)>, String> {
    let mut query = Vec::new();
    for (key, value) in parse(io, args, interactive)? {
        match value {
            Value::Array(values) => query.extend(values.iter().map(|value| (key.clone(), plain(value)))),
            value => query.push((key, plain(&value))),
        }
    }
    Ok(query)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn add(data: &mut Map<String, Value>, key: &str, value: Value) {
    match data.get_mut(key) {
        None => {
            data.insert(key.to_owned(), value);
        }
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

fn merge(data: &mut Map<String, Value>, document: &str, origin: &str) -> Result<(), String> {
    if document.trim().is_empty() {
        return Ok(());
    }
    match serde_json::from_str::<Value>(document) {
        Ok(Value::Object(object)) => {
            for (key, value) in object {
                data.insert(key, value);
            }
            Ok(())
        }
        Ok(_) => Err(format!("{origin}: the JSON document must be an object")),
        Err(error) => Err(format!("{origin}: not JSON: {error}")),
    }
}

fn file(io: &Io<'_>, path: &str) -> Result<String, String> {
    let place = io.expand(path);
    let size =
        std::fs::metadata(&place).map_err(|error| format!("error reading file: {}", of_file(path, &error)))?.len();
    if size > MAX_DATA_BYTES as u64 {
        return Err(format!("file {path:?} is larger than {MAX_DATA_BYTES} bytes"));
    }
    text(std::fs::read(&place).map_err(|error| format!("error reading file: {}", of_file(path, &error)))?, path)
}

fn text(bytes: Vec<u8>, origin: &str) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| format!("{origin}: not UTF-8; encode binary data as base64 first"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fake::Outside;
    use serde_json::json;

    fn read(args: &[&str], stdin: &str) -> Result<Value, String> {
        let mut outside = Outside::with_stdin(stdin);
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        outside.borrow(|io| parse(io, &args, true)).map(Value::Object)
    }

    #[test]
    fn values_stay_strings() {
        let file = crate::cli::fake::scratch_file("kv", "from file\n");
        let at = format!("c=@{}", file.display());
        for (args, stdin, expected) in [
            (vec!["a=1", "b=true", "c="], "", json!({"a": "1", "b": "true", "c": ""})),
            (vec!["a=x=y"], "", json!({"a": "x=y"})),
            (vec!["a=1", "a=2", "a=3"], "", json!({"a": ["1", "2", "3"]})),
            (vec!["a=-"], "piped\n", json!({"a": "piped\n"})),
            (vec!["a=\\@me", "b=\\x"], "", json!({"a": "@me", "b": "\\x"})),
            (vec!["-"], "{\"n\": 9223372036854775807}", json!({"n": 9223372036854775807i64})),
            (vec![at.as_str()], "", json!({"c": "from file\n"})),
        ] {
            assert_eq!(read(&args, stdin).unwrap(), expected, "{args:?}");
        }
        for bad in [vec!["novalue"], vec!["a=@/does/not/exist"], vec!["-", "a=-"]] {
            assert!(read(&bad, "{}").is_err(), "{bad:?}");
        }
    }
}
