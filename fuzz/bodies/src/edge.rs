//! What comes from outside as text: HTTP requests, JSON bodies, configuration files, command lines.

use crate::input::Input;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use ringfence_base::entropy::SeededEntropy;
use ringfence_server::api::json::{self, JsonLimits};
use ringfence_server::api::request::{Head, Origin, Rules};
use ringfence_server::cli::verb::{self, Does};
use ringfence_server::cli::{Io, ServerArgs, VERBS, args, flags::Flags, kvargs, secret::Secret};
use ringfence_server::config::{self, Config};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Most headers of a request that the runner reads.
const MAX_HEADERS: usize = 64;

/// A request as it stands on the wire, from its first line to the end of its body, given to a whole node: it is
/// answered, and nothing in the node fails. `ROOT` stands for the root token.
pub fn http_request(data: &[u8]) {
    crate::with_prepared(|prepared| {
        let text = replace(data, b"ROOT", prepared.root.as_bytes());
        let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut slots);
        let Ok(httparse::Status::Complete(end)) = request.parse(&text) else { return };
        let (Some(method), Some(path)) = (request.method, request.path) else { return };
        let (Ok(method), Ok(uri)) = (Method::from_bytes(method.as_bytes()), path.parse::<Uri>()) else { return };
        let mut headers = HeaderMap::new();
        for h in request.headers.iter() {
            let (Ok(name), Ok(value)) = (HeaderName::from_bytes(h.name.as_bytes()), HeaderValue::from_bytes(h.value))
            else {
                return;
            };
            headers.append(name, value);
        }
        let rules = Rules::default();
        let origin = Origin { remote: Some([127, 0, 0, 1].into()), port: 1, ..Origin::default() };
        let rng = &mut SeededEntropy(21);
        let Ok(head) = Head::parse(&method, &uri, &headers, &origin, &rules, rng) else { return };
        let Ok(call) = head.with_body(text[end..].to_vec(), &rules) else { return };
        if rules.closes(&call) || call.path == "sys/init" {
            return;
        }
        let mut node = prepared.start();
        let tag = node.send(0, call);
        node.answer(tag);
        // whatever it did, the node still serves
        for _ in 0..3 {
            node.round();
        }
    });
}

fn replace(data: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + to.len());
    let mut rest = data;
    while let Some(at) = rest.windows(from.len()).position(|w| w == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// A body is bounded before it is built: what is accepted keeps every limit. The command line reads the same bytes as
/// an answer.
pub fn json_envelope(data: &[u8]) {
    let limits = JsonLimits { depth: 8, string_bytes: 64, object_entries: 8, array_elements: 8 };
    if let Ok(Some(map)) = json::object(data.to_vec(), &limits) {
        within(&Value::Object(map.into_map()), &limits, 1);
    }
    if let Ok(found) = json::object(data.to_vec(), &JsonLimits::default()) {
        let plain: Option<Value> = serde_json::from_slice(data).ok();
        assert_eq!(
            found.map(|m| Value::Object(m.into_map())),
            plain.filter(|v| !v.is_null()),
            "the bounded reader agrees with the plain"
        );
    }
    for (key, value) in json::form(data) {
        assert!(!key.is_empty() && value.as_str().is_some_and(|v| !v.is_empty()));
    }
    if let Ok(Some(secret)) = Secret::parse(data) {
        let _ = secret.keys().map(Vec::len);
        for name in ["token", "policies", "wrapping_token", "k"] {
            let _ = secret.named(name);
        }
        let printed = serde_json::to_vec(&secret).expect("an answer can be printed");
        assert!(matches!(Secret::parse(&printed), Ok(Some(_))), "and read again");
    }
}

fn within(value: &Value, limits: &JsonLimits, depth: usize) {
    match value {
        Value::Object(m) => {
            assert!(depth <= limits.depth && m.len() <= limits.object_entries);
            m.values().for_each(|v| within(v, limits, depth + 1));
        }
        Value::Array(a) => {
            assert!(depth <= limits.depth && a.len() <= limits.array_elements);
            a.iter().for_each(|v| within(v, limits, depth + 1));
        }
        // a replacement character is longer than what it stands for, an escape is longer than its character
        Value::String(s) => assert!(s.len() <= 3 * limits.string_bytes),
        _ => {}
    }
}

/// A configuration file, HCL or JSON, over both beginnings.
pub fn configuration(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let env: BTreeMap<String, String> = [("VAULT_API_ADDR".to_owned(), "http://127.0.0.1:8200".to_owned())].into();
    for base in [Config::default(), Config::dev("127.0.0.1:8200")] {
        match config::from_texts(&[("fuzz.hcl".to_owned(), text.clone())], &env, base) {
            Ok(loaded) => drop(loaded.warnings),
            Err(why) => assert!(!why.to_string().is_empty(), "a refusal says why"),
        }
    }
}

thread_local! {
    static PARSER: RefCell<Option<clap::Command>> = const { RefCell::new(None) };
}

/// Words of a command line, one a line: read, rewritten, parsed and turned into flags, never run. What was rewritten is
/// read again to the same.
pub fn cli_arguments(data: &[u8]) {
    let mut input = Input::new(data);
    let mut words = Vec::new();
    while !input.is_empty() && words.len() < 64 {
        words.push(input.line());
    }
    // a word `@file` or `-` would read the machine's files
    let mut nothing = std::io::empty();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io {
        stdin: &mut nothing,
        stdout: &mut out,
        stderr: &mut err,
        env: BTreeMap::new(),
        home: None,
        stdout_is_terminal: false,
        stdin_is_terminal: false,
    };
    let pairs: Vec<String> = words.iter().filter(|w| !w.starts_with('@') && !w.contains("=@")).cloned().collect();
    if let Ok(data) = kvargs::parse(&mut io, &pairs, false) {
        assert!(data.len() <= pairs.len());
    }
    let Ok((line, found)) = args::read(VERBS, &words) else { return };
    PARSER.with_borrow_mut(|parser| {
        let parser = parser.get_or_insert_with(|| verb::parser("ringfence", VERBS));
        let mut all = vec!["ringfence".to_owned()];
        all.extend(line.words());
        let Ok(matches) = parser.try_get_matches_from_mut(&all) else { return };
        let Some(found) = found else { return };
        let mut leaf = &matches;
        while let Some((_, below)) = leaf.subcommand() {
            leaf = below;
        }
        let flags = Flags::from_matches(found, leaf);
        for flag in found.flags {
            flags.text(flag.name);
            flags.int(flag.name);
            flags.duration_ns(flag.name);
            flags.split_list(flag.name);
            flags.map(flag.name);
        }
        if matches!(found.does, Does::Server) {
            let _ = ServerArgs::from_flags(&flags, &io);
        }
    });
}
