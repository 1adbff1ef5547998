//! Hashing the leaves of a JSON object that is there as text: what a hot read answers with is written into its audit
//! line from the text itself, without a tree in between.
//!
//! Used by [`super::entry`] for text that an engine wrote. It copies structure and hashes strings by the same rules as
//! the walk over a tree does; on text that it does not understand it gives up, and the caller parses a tree.

use super::device::Armed;
use super::entry;

/// Deepest nesting followed here; stored data is bounded far below.
const MAX_DEPTH: usize = 128;

/// Appends the object of a text with every string leaf hashed. `None`: not understood, and `out` may hold anything.
pub(super) fn hashed_object(out: &mut Vec<u8>, d: &Armed, text: &str, exempt: &[String]) -> Option<()> {
    let mut walk = Walk { text, at: 0, d, exempt };
    if walk.peek()? != b'{' {
        return None;
    }
    walk.value(out, false, 0)?;
    walk.peek().is_none().then_some(())
}

struct Walk<'t> {
    text: &'t str,
    at: usize,
    d: &'t Armed,
    exempt: &'t [String],
}

impl<'t> Walk<'t> {
    /// The next byte that is no white space; it stays.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let skipped = rest.iter().position(|b| !b.is_ascii_whitespace())?;
        self.at += skipped;
        Some(rest[skipped])
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    /// One value. `clear` leaves its strings as they are.
    fn value(&mut self, out: &mut Vec<u8>, clear: bool, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'{' => self.object(out, clear, depth),
            b'[' => {
                self.at += 1;
                out.push(b'[');
                let mut first = true;
                while self.peek()? != b']' {
                    if !std::mem::take(&mut first) {
                        self.take(b',')?;
                        out.push(b',');
                    }
                    self.value(out, clear, depth + 1)?;
                }
                self.at += 1;
                out.push(b']');
                Some(())
            }
            b'"' => {
                let quoted = self.string()?;
                if clear {
                    out.extend_from_slice(quoted.as_bytes());
                    return Some(());
                }
                let inner = &quoted[1..quoted.len() - 1];
                if inner.contains('\\') {
                    entry::hashed_text(out, self.d, &serde_json::from_str::<String>(quoted).ok()?);
                } else {
                    entry::hashed_text(out, self.d, inner);
                }
                Some(())
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                let rest = &self.text[self.at..];
                let end = rest.find([',', '}', ']', ' ', '\n', '\r', '\t']).unwrap_or(rest.len());
                out.extend_from_slice(&rest.as_bytes()[..end]);
                self.at += end;
                Some(())
            }
            _ => None,
        }
    }

    fn object(&mut self, out: &mut Vec<u8>, clear: bool, depth: usize) -> Option<()> {
        self.at += 1;
        out.push(b'{');
        let mut first = true;
        while self.peek()? != b'}' {
            if !std::mem::take(&mut first) {
                self.take(b',')?;
                out.push(b',');
            }
            if self.peek()? != b'"' {
                return None;
            }
            let key = self.string()?;
            out.extend_from_slice(key.as_bytes());
            self.take(b':')?;
            out.push(b':');
            let named = || {
                let name = &key[1..key.len() - 1];
                // a name with escapes is compared by the tree's walk
                (!name.contains('\\')).then(|| self.exempt.iter().any(|e| e == name))
            };
            let exempt = if self.exempt.is_empty() { false } else { named()? };
            let is_object = self.peek()? == b'{';
            self.value(out, clear || self.d.raw || (exempt && !is_object), depth + 1)?;
        }
        self.at += 1;
        out.push(b'}');
        Some(())
    }

    /// A string with its quotes, as it stands.
    fn string(&mut self) -> Option<&'t str> {
        let from = self.at;
        let bytes = self.text.as_bytes();
        let mut at = from + 1;
        loop {
            at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
            if bytes[at] == b'"' {
                self.at = at + 1;
                return Some(&self.text[from..=at]);
            }
            at += 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Device;
    use proptest::prelude::*;
    use ringfence_base::entropy::SeededEntropy;
    use serde_json::{Map, Value, json};
    use std::rc::Rc;

    fn device(raw: bool) -> Armed {
        let mut device = Device::new("file/", "file", &mut SeededEntropy(1));
        device.options.insert("log_raw".into(), raw.to_string());
        Armed::new(device, Rc::default())
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = prop_oneof![any::<String>(), Just("2026-11-23T10:00:00.5Z".to_owned()), "[a-c\"\\\\]{0,4}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[a-d]|.{0,3}", inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn it_writes_what_the_walk_over_a_tree_writes(
            members in proptest::collection::btree_map("[a-d]|.{0,3}", values(), 0..5), raw: bool, exempted: bool,
        ) {
            let o: Map<String, Value> = members.into_iter().collect();
            let text = serde_json::to_string(&o).unwrap();
            let exempt = if exempted { vec!["a".to_owned(), "b".to_owned()] } else { Vec::new() };
            let (mut quick, mut slow) = (Vec::new(), Vec::new());
            let done = hashed_object(&mut quick, &device(raw), &text, &exempt);
            entry::hashed_object(&mut slow, &device(raw), &o, &exempt, false);
            if done.is_some() {
                prop_assert_eq!(String::from_utf8(quick).unwrap(), String::from_utf8(slow).unwrap());
            } else {
                prop_assert!(exempted, "only names with escapes are left to the tree");
            }
        }

        #[test]
        fn any_text_is_safe(text: String) {
            let _ = hashed_object(&mut Vec::new(), &device(false), &text, &[]);
            let _ = hashed_object(&mut Vec::new(), &device(false), &format!("{{\"a\":{text}"), &[]);
        }
    }

    #[test]
    fn a_secret_never_stays() {
        let text = json!({"data": {"password": "hunter2", "n": 1}, "created": "2026-11-23T10:00:00Z"}).to_string();
        let mut out = Vec::new();
        hashed_object(&mut out, &device(false), &text, &[]).unwrap();
        let line = String::from_utf8(out).unwrap();
        assert!(!line.contains("hunter2") && line.contains("2026-11-23T10:00:00Z") && line.contains("\"n\":1"));
    }
}
