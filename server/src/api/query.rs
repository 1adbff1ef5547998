//! Query strings and percent-encoding.

use ringfence_node::Map;
use serde_json::Value;

/// Decodes `%XX` and `+` of a query component; bytes that are not UTF-8 are replaced.
pub fn decode(text: &[u8]) -> String {
    let plain: Vec<u8> = percent(text, true).unwrap_or_else(|| text.to_vec());
    String::from_utf8_lossy(&plain).into_owned()
}

/// Decodes the path of a URL once. `None` if an escape is broken or the result is not UTF-8.
pub fn decode_path(path: &str) -> Option<std::borrow::Cow<'_, str>> {
    if !path.contains('%') {
        return Some(path.into());
    }
    String::from_utf8(percent(path.as_bytes(), false)?).ok().map(Into::into)
}

fn percent(text: &[u8], plus_is_space: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut i = 0;
    while i < text.len() {
        match text[i] {
            b'%' => {
                let hex = |b: u8| (b as char).to_digit(16);
                let (h, l) = (hex(*text.get(i + 1)?)?, hex(*text.get(i + 2)?)?);
                out.push((h * 16 + l) as u8);
                i += 2;
            }
            b'+' if plus_is_space => out.push(b' '),
            b => out.push(b),
        }
        i += 1;
    }
    Some(out)
}

/// A query as request data: one value is a string, repeated ones an array of strings.
pub fn data(query: &str) -> Map {
    let mut out = Map::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (k, v) = pair.split_once('=').unwrap_or((pair, ""));
        let (k, v) = (decode(k.as_bytes()), Value::String(decode(v.as_bytes())));
        match out.get_mut(&k) {
            None => {
                out.insert(k, v);
            }
            Some(Value::Array(a)) => a.push(v),
            Some(one) => {
                let first = std::mem::take(one);
                *one = Value::Array(vec![first, v]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let m = data("a=1&b=x%2Fy&a=2&c&d=p+q");
        assert_eq!(serde_json::to_string(&m).expect("text"), r#"{"a":["1","2"],"b":"x/y","c":"","d":"p q"}"#);
    }

    #[test]
    fn paths() {
        assert_eq!(decode_path("/v1/a%20b").as_deref(), Some("/v1/a b"));
        assert_eq!(decode_path("/v1/a%2Fb").as_deref(), Some("/v1/a/b"));
        assert_eq!(decode_path("/v1/a+b").as_deref(), Some("/v1/a+b"));
        assert_eq!(decode_path("/v1/%zz"), None);
        assert_eq!(decode_path("/v1/%ff"), None);
    }
}
