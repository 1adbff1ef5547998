//! A bounded reader of JSON bodies: depth, string lengths and counts are checked in one pass over the bytes before
//! anything is built, so that a hostile body is refused early and cheaply. Source of the limits: Vault's listener
//! settings `max_json_*`.

use ringfence_node::{Map, Parameters, limit};

/// From this length on a body is kept as its text and becomes a tree when it is asked for as one.
const TEXT_FROM_BYTES: usize = 4096;

/// Limits of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonLimits {
    /// Deepest nesting.
    pub depth: usize,
    /// Longest string as written, bytes.
    pub string_bytes: usize,
    /// Most entries of one object.
    pub object_entries: usize,
    /// Most elements of one array.
    pub array_elements: usize,
}

impl Default for JsonLimits {
    fn default() -> Self {
        JsonLimits {
            depth: limit::MAX_JSON_DEPTH,
            string_bytes: limit::MAX_JSON_STRING_BYTES,
            object_entries: limit::MAX_JSON_OBJECT_ENTRIES,
            array_elements: limit::MAX_JSON_ARRAY_ELEMENTS,
        }
    }
}

/// Why a body was refused; the text is what the client sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

/// Parses a body that must be an object, `null` or nothing. `None` = no data.
pub fn object(body: Vec<u8>, limits: &JsonLimits) -> Result<Option<Parameters>, Refused> {
    let first = body.iter().position(|b| !b.is_ascii_whitespace());
    let Some(first) = first else { return Ok(None) };
    check(&body[first..], limits)?;
    let body = match body.len() < TEXT_FROM_BYTES {
        true => body,
        false => match String::from_utf8(body) {
            Ok(text) => match Parameters::of_text(text) {
                Ok(kept) => return Ok(Some(kept)),
                Err(text) => text.into_bytes(),
            },
            Err(e) => e.into_bytes(),
        },
    };
    match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(serde_json::Value::Null) => Ok(None),
        Ok(serde_json::Value::Object(m)) => Ok(Some(m.into())),
        Ok(other) => {
            let kind = match other {
                serde_json::Value::Array(_) => "array",
                serde_json::Value::String(_) => "string",
                serde_json::Value::Bool(_) => "bool",
                _ => "number",
            };
            Err(Refused(format!(
                "failed to decode JSON input: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
            )))
        }
        Err(e) => Err(Refused(format!("failed to decode JSON input: {e}"))),
    }
}

/// One pass over the bytes. It does not validate JSON, it only bounds it; the parser validates.
fn check(body: &[u8], limits: &JsonLimits) -> Result<(), Refused> {
    // per open container: is it an object, and commas seen
    let mut open: Vec<(bool, usize)> = Vec::new();
    let mut i = 0;
    while i < body.len() {
        match body[i] {
            b'"' => {
                let start = i + 1;
                i = start;
                loop {
                    let Some(step) = memchr::memchr2(b'"', b'\\', &body[i..]) else {
                        return if body.len() - start > limits.string_bytes { Err(too_long()) } else { Ok(()) };
                    };
                    i += step;
                    if body[i] == b'"' {
                        break;
                    }
                    i = (i + 2).min(body.len());
                }
                if i - start > limits.string_bytes {
                    return Err(too_long());
                }
            }
            b'{' | b'[' => {
                open.push((body[i] == b'{', 1));
                if open.len() > limits.depth {
                    return Err(Refused("JSON input exceeds allowed nesting depth".into()));
                }
            }
            b'}' | b']' => {
                open.pop();
            }
            b',' => {
                if let Some((is_object, n)) = open.last_mut() {
                    *n += 1;
                    if *is_object && *n > limits.object_entries {
                        return Err(Refused("JSON object exceeds allowed number of entries".into()));
                    }
                    if !*is_object && *n > limits.array_elements {
                        return Err(Refused("JSON array exceeds allowed number of elements".into()));
                    }
                }
            }
            _ => {}
        }
        i += 1;
    }
    Ok(())
}

fn too_long() -> Refused {
    Refused("JSON string value exceeds allowed length".into())
}

/// A form body (`a=1&b=2`): repeated keys are joined by commas, keys without a value are dropped.
pub fn form(body: &[u8]) -> Map {
    let mut out: std::collections::BTreeMap<String, String> = Default::default();
    for pair in body.split(|&b| b == b'&') {
        let mut halves = pair.splitn(2, |&b| b == b'=');
        let (Some(k), Some(v)) = (halves.next(), halves.next()) else { continue };
        let (k, v) = (super::query::decode(k), super::query::decode(v));
        if k.is_empty() || v.is_empty() {
            continue;
        }
        out.entry(k)
            .and_modify(|old| {
                old.push(',');
                old.push_str(&v);
            })
            .or_insert(v);
    }
    out.into_iter().map(|(k, v)| (k, v.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> JsonLimits {
        JsonLimits { depth: 3, string_bytes: 5, object_entries: 2, array_elements: 3 }
    }

    #[test]
    fn what_passes() {
        for ok in ["", "  ", "null", "{}", r#"{"a":[1,2,3]}"#, r#"{"a":{"b":[1]}}"#, r#"{"a":"12345"}"#] {
            assert!(object(ok.into(), &small()).is_ok(), "{ok}");
        }
        assert_eq!(object(b"null".to_vec(), &small()), Ok(None));
    }

    #[test]
    fn what_is_refused() {
        for bad in [
            "[1]",
            "\"x\"",
            "1",
            "{",
            r#"{"a":1"#,
            r#"{"a":[1,2,3,4]}"#,
            r#"{"a":1,"b":2,"c":3}"#,
            r#"{"a":[[[1]]]}"#,
            r#"{"a":"123456"}"#,
            "{\"a\":\"\\\"\\\"\\\"\"}",
            "nonsense",
        ] {
            assert!(object(bad.into(), &small()).is_err(), "{bad}");
        }
    }

    #[test]
    fn large_numbers_survive() {
        let m = object(br#"{"n":9223372036854775807123,"f":1.50}"#.to_vec(), &JsonLimits::default())
            .expect("ok")
            .expect("some");
        assert_eq!(serde_json::to_string(&m).expect("text"), r#"{"f":1.50,"n":9223372036854775807123}"#);
    }

    #[test]
    fn forms() {
        let m = form(b"a=1&b=x%20y&a=2&c&d=");
        assert_eq!(serde_json::to_string(&m).expect("text"), r#"{"a":"1,2","b":"x y"}"#);
    }
}
