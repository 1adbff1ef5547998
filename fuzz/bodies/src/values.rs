//! Paths, durations, times and the fields of a request: what is made of the words that a client sends.

use crate::input::Input;
use ringfence_base::limit::MAX_PATH_BYTES;
use ringfence_base::path::is_printable;
use ringfence_base::{CanonPath, PathError, Wall, duration};
use ringfence_logical::{Args, Field, Kind, Map};

/// The canonical form against one written from its rules, and that it is its own canonical form.
pub fn path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    check_path(&text);
    #[cfg(feature = "shell")]
    {
        use ringfence_server::api::query;
        if let Some(decoded) = query::decode_path(&text) {
            check_path(&decoded);
        }
        query::data(&text);
    }
}

fn check_path(raw: &str) {
    let found = CanonPath::parse(raw).map(CanonPath::into_string);
    assert_eq!(found, model_path(raw), "{raw:?}");
    let Ok(path) = found else { return };
    assert_eq!(CanonPath::parse(&path).map(CanonPath::into_string).as_ref(), Ok(&path), "its own canonical form");
    let dir = CanonPath::parse(&path).expect("just read").into_dir().into_string();
    assert!(dir.is_empty() || dir.ends_with('/') && !dir.ends_with("//"));
}

fn model_path(raw: &str) -> Result<String, PathError> {
    if raw.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong);
    }
    if !raw.chars().all(is_printable) {
        return Err(PathError::NotPrintable);
    }
    let segments: Vec<&str> = raw.split('/').filter(|s| !s.is_empty()).collect();
    if segments.iter().any(|s| matches!(*s, "." | "..")) {
        return Err(PathError::Relative);
    }
    let tail = if raw.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    Ok(segments.join("/") + tail)
}

/// What is read is printed and read again to the same.
pub fn duration(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let ns = duration::parse_ns(&text);
    if let Some(ns) = ns {
        let ns = i64::try_from(ns).expect("durations are bounded to what Go holds");
        assert_eq!(duration::parse_ns(&duration::go_string(ns)), Some(i128::from(ns)), "{text:?}");
    }
    match duration::parse_seconds(&text) {
        Some(s) => {
            assert_eq!(ns.map(|ns| ns / i128::from(duration::SECOND_NS)), Some(i128::from(s)), "{text:?}");
            assert_eq!(duration::parse_seconds(&duration::short_seconds(s)), Some(s), "{text:?}");
        }
        None => assert!(ns.is_none_or(|ns| ns < 0), "{text:?}"),
    }
    if let Some(at) = Wall::parse_rfc3339(&text) {
        assert_eq!(Wall::parse_rfc3339(&at.rfc3339()), Some(at), "{text:?}");
    }
}

static FIELDS: &[Field] = &[
    Field::str("str", "Text."),
    Field::new("lower", Kind::LowerStr, "Text."),
    Field::int("int", "A number."),
    Field::new("float", Kind::Float, "A number."),
    Field::bool("bool", "A boolean."),
    Field::seconds("seconds", "A duration."),
    Field::new("signed", Kind::SignedSeconds, "A duration."),
    Field::new("time", Kind::Time, "A time."),
    Field::list("list", "A list."),
    Field::new("strs", Kind::StrList, "A list."),
    Field::new("ints", Kind::CommaIntList, "A list."),
    Field::new("pairs", Kind::KvPairs, "Pairs."),
    Field::new("object", Kind::Object, "An object."),
    Field::new("any", Kind::Any, "Anything."),
    Field::str("choice", "One of two.").allowed(&["a", "b"]),
];

/// The first line is captured from the path, for a field of each kind; the rest is the body.
pub fn fields(data: &[u8]) {
    let mut input = Input::new(data);
    let captured = input.line();
    for field in FIELDS {
        let _ = Args::parse(FIELDS, &[(field.name, captured.as_str())], ringfence_logical::Parameters::default())
            .map(|a| ask(&a));
    }
    let Ok(serde_json::Value::Object(body)) = serde_json::from_slice(input.all()) else { return };
    // what one bad field refuses must not hide the others
    for (key, value) in &body {
        let _ =
            Args::parse(FIELDS, &[], [(key.clone(), value.clone())].into_iter().collect::<Map>()).map(|a| ask(&a));
    }
    let Ok(args) = Args::parse(FIELDS, &[("str", captured.as_str())], body.clone()) else { return };
    ask(&args);
    assert_eq!(args.str("str"), captured, "what the path says wins");
    assert_eq!(args.raw(), &body);
    assert!(matches!(args.str("choice"), "" | "a" | "b"));
}

fn ask(args: &Args) {
    for field in FIELDS {
        let name = field.name;
        args.supplied(name);
        match field.kind {
            Kind::Str => drop(args.opt_str(name)),
            Kind::LowerStr => assert_eq!(args.str(name), args.str(name).to_lowercase()),
            Kind::Int | Kind::SignedSeconds => drop(args.opt_int(name)),
            Kind::Float => assert!(args.float(name).is_finite(), "a JSON answer holds finite numbers only"),
            Kind::Bool => drop(args.opt_bool(name)),
            Kind::Seconds => {
                assert!(args.int(name) >= 0);
                assert_eq!(args.opt_seconds(name).unwrap_or(0), args.seconds(name));
            }
            Kind::Time => drop(args.opt_time(name).map(Wall::rfc3339)),
            Kind::CommaList => assert!(args.list(name).iter().all(|s| s.trim() == s)),
            Kind::StrList => drop(args.opt_list(name)),
            Kind::CommaIntList => drop(args.opt_ints(name)),
            Kind::KvPairs => drop(args.opt_pairs(name)),
            Kind::Object => drop(args.object(name)),
            Kind::Any => drop(args.json(name)),
        }
    }
    args.warnings();
}
