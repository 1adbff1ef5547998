//! The parameters of a request, from its body or query: a JSON object. The edge makes it and everything behind reads it, so it is
//! made once and shared.
//!
//! A long body stays the text it came as, with the places of its fields, and its tree is built when somebody asks for it:
//! an engine that takes a thousand items in one field reads them from the text. Both forms say the same: a text is kept
//! only if it parses, and only if it holds no escapes, so that what it says stands in it byte by byte.

use crate::Map;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, LazyLock, OnceLock};

/// Deepest text that is kept. Far below what the parser of trees takes (128), so that a kept text always becomes a tree.
const MAX_DEPTH: usize = 32;

static EMPTY: LazyLock<Map> = LazyLock::new(Map::new);

/// A JSON object, cheap to clone.
#[derive(Clone, Default)]
pub struct Parameters(Option<Arc<Inner>>);

#[derive(Clone)]
struct Inner {
    tree: OnceLock<Map>,
    laid: Option<Laid>,
}

/// A text and where in it the value of each field stands, by name.
#[derive(Clone)]
struct Laid {
    text: String,
    fields: Vec<(String, Range<usize>)>,
}

impl Parameters {
    /// Parameters kept as their text.
    ///
    /// # Errors
    /// The text, if it must be read as a tree: it has escapes, is deep, malformed, or no object.
    pub fn of_text(text: String) -> Result<Parameters, String> {
        if memchr::memchr(b'\\', text.as_bytes()).is_some() || depth(text.as_bytes()) > MAX_DEPTH {
            return Err(text);
        }
        let mut de = serde_json::Deserializer::from_str(&text);
        let Ok(mut fields) = de.deserialize_map(Places { text: &text }).and_then(|f| de.end().map(|()| f)) else {
            return Err(text);
        };
        // stable, so that of equal names the last stays the last, and that one counts, as in a tree
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        fields.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(&mut later.1, &mut kept.1);
            }
            same
        });
        Ok(Parameters(Some(Arc::new(Inner { tree: OnceLock::new(), laid: Some(Laid { text, fields }) }))))
    }

    /// The texts of the fields in the order of their names, if the body is kept as a text.
    pub fn texts(&self) -> Option<impl Iterator<Item = (&str, &str)>> {
        let laid = self.0.as_ref()?.laid.as_ref()?;
        Some(laid.fields.iter().map(|(name, at)| (name.as_str(), &laid.text[at.clone()])))
    }

    /// The text of one field, if the body is kept as a text.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.texts()?.find(|(n, _)| *n == name).map(|(_, text)| text)
    }

    /// The tree alone.
    pub fn into_map(self) -> Map {
        let _ = self.deref();
        let inner = self.0.map(Arc::unwrap_or_clone);
        inner.and_then(|i| i.tree.into_inner()).unwrap_or_default()
    }
}

/// Nesting of a text without escapes.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut i) = (0usize, 0, 0);
    while let Some(b) = text.get(i) {
        match b {
            b'"' => match memchr::memchr(b'"', &text[i + 1..]) {
                Some(length) => i += length + 1,
                None => break,
            },
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        i += 1;
    }
    deepest
}

impl Deref for Parameters {
    type Target = Map;

    fn deref(&self) -> &Map {
        let Some(inner) = &self.0 else { return &EMPTY };
        inner.tree.get_or_init(|| {
            let text = inner.laid.as_ref().map_or("{}", |l| l.text.as_str());
            serde_json::from_str(text).expect("it was read when it was taken in, is not deep and has no escapes")
        })
    }
}

impl From<Map> for Parameters {
    fn from(tree: Map) -> Parameters {
        match tree.is_empty() {
            true => Parameters(None),
            false => Parameters(Some(Arc::new(Inner { tree: OnceLock::from(tree), laid: None }))),
        }
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl PartialEq for Parameters {
    fn eq(&self, other: &Parameters) -> bool {
        **self == **other
    }
}

impl serde::Serialize for Parameters {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(s)
    }
}

impl<'b> IntoIterator for &'b Parameters {
    type Item = (&'b String, &'b Value);
    type IntoIter = serde_json::map::Iter<'b>;

    fn into_iter(self) -> Self::IntoIter {
        (**self).iter()
    }
}

/// Reads an object's fields as places in its text, in the text's order, equal names included.
struct Places<'t> {
    text: &'t str,
}

impl<'t> Visitor<'t> for Places<'t> {
    type Value = Vec<(String, Range<usize>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: Self::Value = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &'t RawValue>()? {
            let start = value.get().as_ptr().addr() - self.text.as_ptr().addr();
            fields.push((name, start..start + value.get().len()));
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_says_what_its_tree_says() {
        let text = r#" { "b": [1, {"c": "d"}], "a":"x" , "b" : 2, "n": 1.50 } "#;
        let body = Parameters::of_text(text.to_owned()).expect("it is kept");
        let texts: Vec<_> = body.texts().expect("laid out").collect();
        assert_eq!(texts, [("a", "\"x\""), ("b", "2"), ("n", "1.50")]);
        assert_eq!(*body, serde_json::from_str::<Map>(text).unwrap());
        assert_eq!(body.text_of("b"), Some("2"));
        assert_eq!(body.clone().into_map(), *body);
        assert!(Parameters::default().is_empty() && Parameters::default().into_map().is_empty());
    }

    #[test]
    fn what_must_be_a_tree_is_not_kept() {
        for text in
            ["[1]", "null", "{", "{} x", r#"{"a":"\ud800"}"#, r#"{"a":"\n"}"#, "{\"a\":01}", "{\"a\":\"\u{1}\"}"]
        {
            assert!(Parameters::of_text(text.to_owned()).is_err(), "{text}");
        }
        // a tree this deep would be refused by the parser, and a text must not outlive its chance to become one
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(Parameters::of_text(deep(31)).is_ok_and(|b| b.contains_key("a")));
        assert!(Parameters::of_text(deep(200)).is_err() && Parameters::of_text("[".repeat(1_000_000)).is_err());
    }

    /// Two hundred thousand fields, half of them named twice, cost a sort and not a search for each: a search took minutes.
    #[test]
    fn many_fields_cost_no_search_for_each() {
        let fields: Vec<String> = (0..200_000).map(|i| format!("\"{}\":{i}", i % 100_000)).collect();
        let body = Parameters::of_text(format!("{{{}}}", fields.join(","))).expect("it is kept");
        assert_eq!(body.texts().expect("laid out").count(), 100_000);
        assert_eq!(body.text_of("7"), Some("100007"));
        assert_eq!(body["99999"], 199_999);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z \u{e9}\"\\\\\u{1}]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]{1,2}", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_kept_text_equals_its_tree(v in value(), cut in 0usize..200) {
            let mut text = v.to_string();
            if cut < text.len() && text.is_char_boundary(cut) && cut % 3 == 0 {
                text.truncate(cut);
            }
            if let Ok(body) = Parameters::of_text(text.clone()) {
                let tree: Map = serde_json::from_str(&text).expect("what is kept parses");
                for (name, at) in body.texts().expect("laid out") {
                    prop_assert_eq!(&serde_json::from_str::<Value>(at).unwrap(), &tree[name]);
                }
                prop_assert_eq!(&*body, &tree);
            } else {
                prop_assert!(text.contains('\\') || serde_json::from_str::<Map>(&text).is_err());
            }
        }
    }
}
