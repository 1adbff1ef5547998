//! One item or many: what encrypt, decrypt and rewrap share of reading items and of telling how they fared.

use ringfence_base::Code;
use ringfence_logical::{Args, Error, Outcome, Response};
use serde_json::Value;

/// One item of a request. Texts are as they came, base64 not yet opened.
#[derive(Clone, Copy, Default)]
pub struct Item<'a> {
    /// Plaintext or ciphertext.
    pub text: &'a str,
    pub context: &'a str,
    pub nonce: &'a str,
    pub associated_data: Option<&'a str>,
    pub key_version: i64,
    pub reference: &'a str,
}

/// Why an item failed: its own fault, or ours.
pub enum Fault {
    User(String),
    Internal(String),
}

impl From<String> for Fault {
    fn from(text: String) -> Fault {
        Fault::User(text)
    }
}

/// The items of a request, and whether they came as a batch.
pub struct Items<'a> {
    pub items: Vec<Item<'a>>,
    pub is_batch: bool,
}

impl<'a> Items<'a> {
    /// Reads them. `text` is the field that holds what is worked on, `missing` what is said without it.
    pub fn read(args: &'a Args, text: &str, missing: &str) -> Result<Items<'a>, Error> {
        if let Some(items) = args.json_text("batch_input").and_then(|t| laid_out(t, text)) {
            return Ok(Items { items, is_batch: true });
        }
        let Some(batch) = args.json("batch_input").filter(|b| !b.is_null()) else {
            let given = args.opt_str(text).ok_or_else(|| Error::invalid(missing.to_owned()))?;
            let item = Item {
                text: given,
                context: args.str("context"),
                nonce: args.str("nonce"),
                associated_data: args.opt_str("associated_data"),
                key_version: args.int("key_version"),
                reference: "",
            };
            return Ok(Items { items: vec![item], is_batch: false });
        };
        let items = objects(batch)?
            .enumerate()
            .map(|(i, o)| {
                let field = |name: &str| string(o, i, name);
                let version = o.get("key_version").map_or(Some(0), weak_int);
                Ok(Item {
                    text: field(text)?.ok_or_else(|| malformed(format!("'[{i}].{text}' {missing}")))?,
                    context: field("context")?.unwrap_or(""),
                    nonce: field("nonce")?.unwrap_or(""),
                    associated_data: field("associated_data")?,
                    key_version: version
                        .ok_or_else(|| malformed(format!("'[{i}].key_version' expected type 'int'")))?,
                    reference: field("reference")?.unwrap_or(""),
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        if items.is_empty() {
            return Err(Error::invalid("missing batch input to process"));
        }
        Ok(Items { items, is_batch: true })
    }

    /// Refuses a batch in which some items have a context and some have not.
    pub fn contexts_agree(&self) -> Result<bool, Error> {
        let has = |i: &Item<'_>| !i.context.is_empty();
        let first = self.items.first().is_some_and(has);
        match self.items.iter().all(|i| has(i) == first) {
            true => Ok(first),
            false => Err(Error::invalid("context should be set either in all the request blocks or in none")),
        }
    }
}

/// An item as it stands in the request's text.
#[derive(serde::Deserialize)]
struct LaidItem<'t> {
    plaintext: Option<&'t str>,
    ciphertext: Option<&'t str>,
    context: Option<&'t str>,
    nonce: Option<&'t str>,
    associated_data: Option<&'t str>,
    key_version: Option<i64>,
    reference: Option<&'t str>,
}

/// The items of a batch, read from its text and borrowed from it: no tree is made of a thousand items. `None` if any of
/// them is not as plain as items are, or there is none; the tree is asked then, and words what is wrong.
fn laid_out<'t>(batch: &'t str, text: &str) -> Option<Vec<Item<'t>>> {
    let laid: Vec<LaidItem<'t>> = serde_json::from_str(batch).ok()?;
    let item = |i: LaidItem<'t>| {
        let given = if text == "plaintext" { i.plaintext } else { i.ciphertext };
        Some(Item {
            text: given?,
            context: i.context.unwrap_or(""),
            nonce: i.nonce.unwrap_or(""),
            associated_data: i.associated_data,
            key_version: i.key_version.unwrap_or(0),
            reference: i.reference.unwrap_or(""),
        })
    };
    laid.into_iter().map(item).collect::<Option<Vec<_>>>().filter(|items| !items.is_empty())
}

/// The objects of a batch.
pub fn objects(batch: &Value) -> Result<impl Iterator<Item = &serde_json::Map<String, Value>>, Error> {
    let list = batch.as_array().ok_or_else(|| malformed("expected a list of objects".to_owned()))?;
    if let Some(i) = list.iter().position(|v| !v.is_object()) {
        return Err(malformed(format!("'[{i}]' expected a map")));
    }
    Ok(list.iter().filter_map(Value::as_object))
}

/// A text field of an item.
pub fn string<'a>(
    object: &'a serde_json::Map<String, Value>,
    i: usize,
    name: &str,
) -> Result<Option<&'a str>, Error> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s)),
        Some(_) => Err(malformed(format!("'[{i}].{name}' expected type 'string'"))),
    }
}

/// An integer, or its text.
pub fn weak_int(v: &Value) -> Option<i64> {
    match v {
        Value::Null => Some(0),
        Value::Number(n) => n.as_i64(),
        Value::String(s) if s.is_empty() => Some(0),
        Value::String(s) => s.parse().ok(),
        _ => None,
    }
}

fn malformed(why: String) -> Error {
    Error::invalid(format!("failed to parse batch input: {why}"))
}

/// The answer under construction: items in order, as JSON text.
pub struct Results {
    out: String,
    is_batch: bool,
    succeeded: bool,
    user_fault: Option<String>,
    internal_fault: Option<String>,
}

impl Results {
    /// An answer of so many items, of about so many bytes.
    pub fn new(items: &Items<'_>, bytes: usize) -> Results {
        let mut out = String::with_capacity(bytes + 64);
        if items.is_batch {
            out.push_str("{\"batch_results\":[");
        }
        Results { out, is_batch: items.is_batch, succeeded: false, user_fault: None, internal_fault: None }
    }

    /// Adds an item: `write` appends its fields (`"a":"b"` without braces), or it failed, and `on_fault` are the
    /// fields that a failed item shows all the same.
    pub fn push(&mut self, reference: &str, on_fault: &str, write: impl FnOnce(&mut String) -> Result<(), Fault>) {
        if self.is_batch && !self.out.ends_with('[') {
            self.out.push(',');
        }
        self.out.push('{');
        let start = self.out.len();
        match write(&mut self.out) {
            Ok(()) => self.succeeded = true,
            Err(fault) => {
                self.out.truncate(start);
                self.out.push_str(on_fault);
                let (slot, text) = match fault {
                    Fault::User(t) => (&mut self.user_fault, t),
                    Fault::Internal(t) => (&mut self.internal_fault, t),
                };
                self.out.push_str(if on_fault.is_empty() { "\"error\":" } else { ",\"error\":" });
                quote(&mut self.out, &text);
                slot.get_or_insert(text);
            }
        }
        if self.is_batch {
            self.out.push_str(",\"reference\":");
            quote(&mut self.out, reference);
        }
        self.out.push('}');
    }

    /// The answer, with the status that the items ask for.
    pub fn finish(mut self, args: &Args, warnings: Vec<String>) -> Outcome {
        if !self.is_batch {
            return match (self.user_fault, self.internal_fault) {
                (Some(text), _) => Err(Error::invalid(text)),
                (_, Some(text)) => Err(Error::plain(&text)),
                (None, None) => Ok(with(Response::text(self.out), warnings).into()),
            };
        }
        self.out.push_str("]}");
        let mut response = with(Response::text(self.out), warnings);
        let (code, number) = match (self.user_fault, self.internal_fault) {
            (Some(_), _) => (Code::Invalid, 400),
            (_, Some(_)) => (Code::Internal, 500),
            (None, None) => return response.done(),
        };
        response.code = Some(code);
        if let (Some(wanted), true) = (args.opt_int("partial_failure_response_code"), self.succeeded) {
            match u16::try_from(wanted) {
                Ok(n @ 200..=599) => response.code = Some(if n == 200 { Code::Ok } else { Code::Custom(n) }),
                _ => response.warnings.push(format!(
                    "invalid HTTP status code override from partial_failure_response_code: {wanted}, setting to {number}"
                )),
            }
        }
        response.done()
    }
}

fn with(mut response: Response, warnings: Vec<String>) -> Response {
    response.warnings = warnings;
    response
}

/// Appends a JSON string.
pub fn quote(out: &mut String, text: &str) {
    // most texts need no escapes
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\' && b < 0x7f) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).expect("a text always serialises"));
    }
}
