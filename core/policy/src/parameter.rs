//! Whether a request's parameters satisfy a rule.
//!
//! Rules are written by people, requests by programs, and the engine behind coerces `5`, `"5"` and `"05"` as its field
//! wants. So scalars are compared by their text: a rule that names a value is about that value however it is spelled in
//! JSON. A list matches an allowed value only as a whole, and a denied one also through any of its elements: an
//! allowance must be exact, a prohibition must not be dodged by wrapping the value.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

use crate::policy::Permissions;

/// Required, then denied, then allowed.
pub(crate) fn permits(p: &Permissions, parameters: Option<&Map<String, Json>>) -> bool {
    let data = parameters.filter(|m| !m.is_empty());
    if !p.required_parameters.iter().all(|name| data.is_some_and(|m| m.contains_key(name))) {
        return false;
    }
    let Some(data) = data else { return true };
    if !p.denied_parameters.is_empty() {
        if p.denied_parameters.contains_key("*") {
            return false;
        }
        let denied = |(name, value): (&String, &Json)| {
            let listed = p.denied_parameters.get(&*lower(name));
            listed.is_some_and(|list| list.is_empty() || list.iter().any(|d| touches(d, value)))
        };
        if data.iter().any(denied) {
            return false;
        }
    }
    if p.allowed_parameters.is_empty() {
        return true;
    }
    let any_name = p.allowed_parameters.contains_key("*");
    data.iter().all(|(name, value)| match p.allowed_parameters.get(&*lower(name)) {
        Some(list) => list.is_empty() || list.iter().any(|a| matches(a, value)),
        None => any_name,
    })
}

fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.to_lowercase())
    }
}

/// The value as a whole.
fn matches(rule: &Json, value: &Json) -> bool {
    match (scalar(rule), scalar(value)) {
        (Some(r), Some(v)) => glob(&r, &v) || same_number(&r, &v),
        (None, None) => rule == value || same_list(rule, value),
        _ => false,
    }
}

/// The value as a whole, or an element of it.
fn touches(rule: &Json, value: &Json) -> bool {
    matches(rule, value) || value.as_array().is_some_and(|list| list.iter().any(|v| matches(rule, v)))
}

/// Element by element, so that spelling does not matter inside lists either; no globs there.
fn same_list(rule: &Json, value: &Json) -> bool {
    match (rule.as_array(), value.as_array()) {
        (Some(r), Some(v)) => r.len() == v.len() && r.iter().zip(v).all(|(r, v)| r == v || same_scalar(r, v)),
        _ => false,
    }
}

fn same_scalar(a: &Json, b: &Json) -> bool {
    match (scalar(a), scalar(b)) {
        (Some(a), Some(b)) => a == b || same_number(&a, &b),
        _ => false,
    }
}

fn scalar(v: &Json) -> Option<Cow<'_, str>> {
    match v {
        Json::String(s) => Some(Cow::Borrowed(s)),
        Json::Bool(true) => Some(Cow::Borrowed("true")),
        Json::Bool(false) => Some(Cow::Borrowed("false")),
        Json::Number(n) => Some(Cow::Owned(n.to_string())),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// `5` and `5.0`. Whole numbers beyond 53 bits are compared by their text only.
fn same_number(a: &str, b: &str) -> bool {
    let number = |s: &str| s.parse::<f64>().ok().filter(|f| f.is_finite() && f.abs() < 9_007_199_254_740_992.0);
    matches!((number(a), number(b)), (Some(x), Some(y)) if x == y)
}

/// `*` at the beginning, the end, or both stands for anything.
fn glob(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) => text.contains(pattern.trim_start_matches('*').trim_end_matches('*')),
        (Some(end), None) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => pattern == text,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use serde_json::json;

    fn map(v: Json) -> BTreeMap<String, Vec<Json>> {
        serde_json::from_value(v).expect("a map of lists")
    }

    fn check(allowed: Json, denied: Json, required: &[&str], data: Json) -> bool {
        let p = Permissions {
            allowed_parameters: map(allowed),
            denied_parameters: map(denied),
            required_parameters: required.iter().map(|s| (*s).to_owned()).collect(),
            ..Permissions::default()
        };
        permits(&p, data.as_object())
    }

    #[test]
    fn allowed() {
        let ok = |rule: Json, data: Json| check(rule, json!({}), &[], data);
        assert!(ok(json!({}), json!({"any": 1})));
        assert!(ok(json!({"ttl": []}), json!({"ttl": "1h"})));
        assert!(ok(json!({"ttl": []}), json!({"TTL": {"x": 1}})), "names are case-insensitive");
        assert!(!ok(json!({"ttl": []}), json!({"ttl": "1h", "other": 1})));
        assert!(ok(json!({"ttl": ["1h", "2h"], "*": []}), json!({"ttl": "2h", "other": 1})));
        assert!(!ok(json!({"ttl": ["1h", "2h"], "*": []}), json!({"ttl": "3h", "other": 1})));
        assert!(ok(json!({"ttl": ["1*"]}), json!({"ttl": "1h"})));
        assert!(ok(json!({"ttl": ["*h"]}), json!({"ttl": "1h"})));
        assert!(ok(json!({"ttl": ["*2*"]}), json!({"ttl": "12h"})));
        assert!(!ok(json!({"ttl": ["1*"]}), json!({"ttl": "2h"})));
        assert!(ok(json!({"n": [5]}), json!({"n": 5})));
        assert!(ok(json!({"n": [5]}), json!({"n": "5"})));
        assert!(ok(json!({"n": [true]}), json!({"n": true})));
        assert!(!ok(json!({"n": [5]}), json!({"n": 6})));
        assert!(ok(json!({"l": [["a", "b"]]}), json!({"l": ["a", "b"]})));
        assert!(!ok(json!({"l": ["a", "b"]}), json!({"l": ["a", "b"]})), "a list matches as a whole only");
        assert!(!ok(json!({"l": ["*"]}), json!({"l": ["a"]})));
        assert!(ok(json!({"o": [{"a": 1}]}), json!({"o": {"a": 1}})));
        assert!(ok(json!({"ttl": ["1h"]}), json!({})), "no body, nothing to check");
    }

    #[test]
    fn denied() {
        let ok = |rule: Json, data: Json| check(json!({}), rule, &[], data);
        assert!(!ok(json!({"*": []}), json!({"x": 1})));
        assert!(ok(json!({"*": []}), json!({})));
        assert!(!ok(json!({"admin": []}), json!({"Admin": false})));
        assert!(ok(json!({"admin": []}), json!({"user": false})));
        assert!(!ok(json!({"p": ["root"]}), json!({"p": "root"})));
        assert!(!ok(json!({"p": ["root"]}), json!({"p": ["dev", "root"]})), "not to be dodged by a list");
        assert!(ok(json!({"p": ["root"]}), json!({"p": "dev"})));
        assert!(!ok(json!({"n": ["5"]}), json!({"n": 5.0})));
        assert!(!ok(json!({"n": ["5*"]}), json!({"n": 55})));
        // denied is looked at first
        assert!(!check(json!({"a": []}), json!({"a": []}), &[], json!({"a": 1})));
    }

    #[test]
    fn required() {
        let ok = |data: Json| check(json!({}), json!({}), &["ttl", "name"], data);
        assert!(ok(json!({"ttl": "", "name": null})));
        assert!(!ok(json!({"ttl": ""})));
        assert!(!ok(json!({})));
        assert!(!ok(json!({"TTL": 1, "name": 1})), "the engine would not see TTL, so it is not there");
    }
}
