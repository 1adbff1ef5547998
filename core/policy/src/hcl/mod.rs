//! HCL version 1 and its JSON form, read into one small tree that policies and the server's configuration share.
//!
//! ```text
//!   listener "tcp" { address = "127.0.0.1:8200" }        {"listener": [{"tcp": {"address": "127.0.0.1:8200"}}]}
//!   └ Item{keys: [listener, tcp], value: Object}          └ Item{keys: [listener], value: List[Object]}
//! ```
//!
//! The two spellings differ in the tree as they do in the text; [`Body::blocks`] reads both the same way. Every item has
//! its line and column. Text of any kind is answered with a tree or an error: depth and size are bounded, nothing
//! panics. Interpolation (`${}`) and templates (`{{}}`) are left as they stand: what they mean is the reader's business.

mod format;
mod lex;
mod parse;

pub use format::format;

use std::fmt;

/// Longest text accepted, bytes.
pub const MAX_TEXT_BYTES: usize = 4 * 1024 * 1024;
/// Deepest nesting of blocks, objects and lists.
pub const MAX_DEPTH: usize = 64;

/// A refused text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HclError {
    /// First line is 1.
    pub line: u32,
    /// First column is 1; columns count characters.
    pub column: u32,
    /// What was expected or found.
    pub message: String,
}

impl fmt::Display for HclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "At {}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for HclError {}

/// The inside of a file, a block or an object: items in the order they were written, repeated keys kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Body {
    /// In order of appearance.
    pub items: Vec<Item>,
}

/// `key = value`, `key { .. }` or `key "label" { .. }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The name, then the labels. Invariant: never empty.
    pub keys: Vec<String>,
    /// What it holds.
    pub value: Value,
    /// Line of the first key.
    pub line: u32,
    /// Column of the first key.
    pub column: u32,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Quoted text with its escapes resolved, or a heredoc.
    String(String),
    /// The digits as written.
    Number(String),
    /// `true` or `false`.
    Bool(bool),
    /// `[ .. ]`.
    List(Vec<Value>),
    /// `{ .. }`.
    Object(Body),
}

/// A labelled block, whichever way it was spelled.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    /// As many as were asked for.
    pub labels: Vec<&'a str>,
    /// Its inside.
    pub body: &'a Body,
    /// Line of its first key.
    pub line: u32,
    /// Column of its first key.
    pub column: u32,
}

/// Reads HCL, or JSON if the first character that is not white space opens a brace.
pub fn parse(text: &str) -> Result<Body, HclError> {
    parse::parse(text)
}

/// As [`parse`], from bytes that may not be UTF-8.
pub fn parse_bytes(bytes: &[u8]) -> Result<Body, HclError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text),
        Err(e) => {
            let before = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
            let line = before.bytes().filter(|&b| b == b'\n').count() as u32 + 1;
            let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) as u32 + 1;
            Err(HclError { line, column, message: "illegal UTF-8 encoding".into() })
        }
    }
}

impl Body {
    /// The value of a plain attribute; of several the last.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.items.iter().rfind(|i| i.keys.len() == 1 && i.keys[0] == name).map(|i| &i.value)
    }

    /// Every item without labels of this name, in order.
    pub fn attributes<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Item> {
        self.items.iter().filter(move |i| i.keys.len() == 1 && i.keys[0] == name)
    }

    /// Every item of this name, with or without labels.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Item> {
        self.items.iter().filter(move |i| i.keys[0] == name)
    }

    /// The blocks of this name with that many labels each. Labels may be written as labels, as nested objects, or as a
    /// list of nested objects (the JSON form).
    pub fn blocks<'a>(&'a self, name: &str, label_count: usize) -> Result<Vec<Block<'a>>, HclError> {
        let mut out = Vec::new();
        for item in self.items.iter().filter(|i| i.keys[0] == name) {
            let labels: Vec<&str> = item.keys[1..].iter().map(String::as_str).collect();
            collect_blocks(name, item, labels, &item.value, label_count, &mut out)?;
        }
        Ok(out)
    }

    /// Items whose name is not in the list, in order.
    pub fn unknown<'a>(&'a self, known: &'a [&str]) -> impl Iterator<Item = &'a Item> {
        self.items.iter().filter(move |i| !known.contains(&i.keys[0].as_str()))
    }
}

fn collect_blocks<'a>(
    name: &str,
    at: &'a Item,
    labels: Vec<&'a str>,
    value: &'a Value,
    label_count: usize,
    out: &mut Vec<Block<'a>>,
) -> Result<(), HclError> {
    let refuse = |message: String| Err(HclError { line: at.line, column: at.column, message });
    if labels.len() > label_count {
        return refuse(format!("{name:?} takes {label_count} label(s)"));
    }
    match value {
        Value::List(list) => {
            list.iter().try_for_each(|v| collect_blocks(name, at, labels.clone(), v, label_count, out))
        }
        Value::Object(body) if labels.len() == label_count => {
            out.push(Block { labels, body, line: at.line, column: at.column });
            Ok(())
        }
        Value::Object(body) => body.items.iter().try_for_each(|item| {
            let mut deeper = labels.clone();
            deeper.extend(item.keys.iter().map(String::as_str));
            collect_blocks(name, item, deeper, &item.value, label_count, out)
        }),
        _ => refuse(format!("{name:?} must be a block")),
    }
}

impl Value {
    /// The text, if it is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(s) => Some(s),
            _ => None,
        }
    }

    /// Text as written: strings, numbers and booleans have one.
    pub fn scalar(&self) -> Option<&str> {
        match self {
            Value::String(s) | Value::Number(s) => Some(s),
            Value::Bool(true) => Some("true"),
            Value::Bool(false) => Some("false"),
            _ => None,
        }
    }

    /// A boolean, leniently: `true`, `"true"`, `1` and their opposites.
    pub fn as_bool(&self) -> Option<bool> {
        match self.scalar()? {
            "true" | "True" | "TRUE" | "t" | "T" | "1" => Some(true),
            "false" | "False" | "FALSE" | "f" | "F" | "0" => Some(false),
            _ => None,
        }
    }

    /// A whole number, from a number or a string of digits; decimal or `0x`.
    pub fn as_i64(&self) -> Option<i64> {
        let text = match self {
            Value::Number(s) | Value::String(s) => s.trim(),
            _ => return None,
        };
        let (sign, digits) = match text.strip_prefix('-') {
            Some(d) => (-1, d),
            None => (1, text),
        };
        let magnitude = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
            Some(hex) => i64::from_str_radix(hex, 16).ok()?,
            None => digits.parse::<i64>().ok()?,
        };
        if magnitude < 0 { None } else { Some(sign * magnitude) }
    }

    /// A duration in whole seconds: a number of seconds, or text as the API takes it.
    pub fn as_seconds(&self) -> Option<u64> {
        match self {
            Value::Number(s) | Value::String(s) => ringfence_base::duration::parse_seconds(s),
            _ => None,
        }
    }

    /// The elements, if it is a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(v) => Some(v),
            _ => None,
        }
    }

    /// The inside, if it is an object.
    pub fn as_object(&self) -> Option<&Body> {
        match self {
            Value::Object(b) => Some(b),
            _ => None,
        }
    }
}
