//! How values become text: columns, wrapped sentences, and values printed as Go prints them.
//!
//! Pure text functions. Scripts cut these tables with `awk` and compare them, so the spaces are part of the contract.

use ringfence_base::duration;
use serde_json::{Map, Value};

/// Longest line of a wrapped sentence.
const LINE_CHARS: usize = 78;
/// Between two columns.
const GLUE: &str = "    ";
/// An empty cell.
const EMPTY: &str = "n/a";

/// A table without header: each row's cells padded to the widest of their column, the last one as it is.
pub fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    let cell = |text: &str| {
        let text = text.trim();
        if text.is_empty() { EMPTY.to_owned() } else { text.to_owned() }
    };
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|text| cell(text)).collect()).collect();
    for row in &rows {
        for (i, text) in row.iter().enumerate() {
            let width = text.chars().count();
            match widths.get_mut(i) {
                Some(widest) => *widest = (*widest).max(width),
                None => widths.push(width),
            }
        }
    }
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        for (i, text) in row.iter().enumerate() {
            out.push_str(text);
            if i + 1 < row.len() {
                out.extend(std::iter::repeat_n(' ', widths[i] - text.chars().count()));
                out.push_str(GLUE);
            }
        }
    }
    out
}

/// A table whose first row is the header; a line of dashes follows it.
pub fn table(mut rows: Vec<Vec<String>>) -> String {
    if let Some(header) = rows.first() {
        let dashes = header.iter().map(|name| "-".repeat(name.trim().len())).collect();
        rows.insert(1, dashes);
    }
    columns(&rows)
}

/// A table of `Key` and `Value`.
pub fn key_value(rows: impl IntoIterator<Item = (String, String)>) -> String {
    let mut all = vec![vec!["Key".to_owned(), "Value".to_owned()]];
    all.extend(rows.into_iter().map(|(key, value)| vec![key, value]));
    table(all)
}

/// The rows of a JSON object: sorted, durations in words.
pub fn object_rows(object: &Map<String, Value>) -> Vec<(String, String)> {
    let mut keys: Vec<&String> = object.keys().collect();
    keys.sort();
    keys.into_iter()
        .map(|key| {
            let value = &object[key];
            let text = if looks_like_duration(key) { human_seconds(value) } else { go_value(value) };
            (key.clone(), text)
        })
        .collect()
}

/// `====== Title ======`, at least as long as what stands below it.
pub fn heading(title: &str, below_chars: usize) -> String {
    let signs = below_chars.saturating_sub(title.len() + 2);
    let signs = if signs == 0 { 4 } else { signs + signs % 2 };
    let side = "=".repeat(signs / 2);
    format!("{side} {title} {side}")
}

/// The heading above a table of an object.
pub fn object_heading(title: &str, object: &Map<String, Value>) -> String {
    let longest = object.keys().map(String::len).max().unwrap_or(0);
    // the key column, the glue and the word "Value"
    heading(title, longest + GLUE.len() + "Value".len())
}

/// Breaks a sentence into lines.
pub fn wrap(text: &str) -> String {
    wrap_indented(text, 0)
}

/// Breaks a sentence into lines that begin with so many spaces.
pub fn wrap_indented(text: &str, indent: usize) -> String {
    let width = LINE_CHARS - indent;
    let pad = " ".repeat(indent);
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ').filter(|word| !word.is_empty()) {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(format!("{pad}{line}"));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(format!("{pad}{line}"));
    }
    lines.join("\n")
}

/// A value as Go's `%v` prints it: `[a b]`, `map[a:1 b:2]`, `<nil>`.
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(value) => value.clone(),
        Value::Array(values) => format!("[{}]", values.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(object) => {
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort();
            let pairs: Vec<String> = keys.iter().map(|key| format!("{key}:{}", go_value(&object[*key]))).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

/// A list of texts as Go's `%q` prints it: `["a" "b"]`.
pub fn go_quoted_list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| go_quote(text)).collect::<Vec<_>>().join(" "))
}

/// A text in double quotes, as Go quotes it.
pub fn go_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether a field's name says that its number is seconds.
pub fn looks_like_duration(key: &str) -> bool {
    ["period", "ttl", "duration"]
        .iter()
        .any(|word| key == *word || key.strip_suffix(word).is_some_and(|before| before.ends_with('_')))
        || matches!(key, "lease_max" | "ttl_max")
}

/// Seconds in words when the value is a whole number; anything else as it is.
pub fn human_seconds(value: &Value) -> String {
    match value.as_i64() {
        Some(seconds) => human(seconds),
        None => go_value(value),
    }
}

/// Seconds in words: `0s`, `30s`, `5m`, `768h`, `1h30m`.
pub fn human(seconds: i64) -> String {
    let full = duration::go_string(seconds.saturating_mul(duration::SECOND_NS as i64));
    if let Some(short) = full.strip_suffix("h0m0s") {
        return format!("{short}h");
    }
    match full.strip_suffix("m0s") {
        Some(short) => format!("{short}m"),
        None => full,
    }
}

/// Indented JSON as every `-format=json` prints it.
pub fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// A JSON value as YAML, keys sorted.
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    yaml_into(value, 0, &mut out);
    out.trim().to_owned()
}

fn yaml_into(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(object) if !object.is_empty() => {
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort();
            for key in keys {
                out.push_str(&format!("{pad}{}:", yaml_text(key)));
                yaml_child(&object[key], indent, out);
            }
        }
        Value::Array(values) if !values.is_empty() => {
            for value in values {
                let mut nested = String::new();
                yaml_into(value, indent + 2, &mut nested);
                out.push_str(&format!("{pad}- {}", nested.trim_start()));
            }
        }
        scalar => out.push_str(&format!("{pad}{}\n", yaml_scalar(scalar))),
    }
}

fn yaml_child(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            out.push('\n');
            yaml_into(value, indent + 2, out);
        }
        Value::Array(values) if !values.is_empty() => {
            out.push('\n');
            yaml_into(value, indent, out);
        }
        Value::String(text) if text.trim_end_matches('\n').contains('\n') && !text.starts_with([' ', '\n']) => {
            let chomp = if text.ends_with('\n') { "|" } else { "|-" };
            out.push_str(&format!(" {chomp}\n"));
            for line in text.trim_end_matches('\n').split('\n') {
                out.push_str(&format!("{}{line}\n", " ".repeat(indent + 2)));
            }
        }
        scalar => out.push_str(&format!(" {}\n", yaml_scalar(scalar))),
    }
}

fn yaml_scalar(value: &Value) -> String {
    match value {
        Value::String(text) => yaml_text(text),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
        other => other.to_string(),
    }
}

/// A text plain where YAML would read it back as the same text, else quoted.
fn yaml_text(text: &str) -> String {
    let plain = !text.is_empty()
        && text.trim() == text
        && !text.starts_with(|c: char| "!&*-?|>@`\"'%#{}[],:".contains(c))
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with(':')
        && !text.chars().any(char::is_control)
        && text.parse::<f64>().is_err()
        && !text.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == '+')
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "~" | "y" | "n" | ".nan" | ".inf"
        );
    if plain { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_pad_and_fill() {
        let rows = vec![
            vec!["Path".into(), "Type".into(), "Description".into()],
            vec!["secret/".into(), "kv".into(), "".into()],
        ];
        assert_eq!(
            table(rows),
            "Path       Type    Description\n----       ----    -----------\nsecret/    kv      n/a"
        );
        assert_eq!(columns(&[vec!["ß".into(), "x".into()], vec!["ab".into(), "y".into()]]), "ß     x\nab    y");
    }

    #[test]
    fn go_prints() {
        assert_eq!(go_value(&json!({"b": [1, "x"], "a": null, "c": {}})), "map[a:<nil> b:[1 x] c:map[]]");
        assert_eq!(go_quoted_list(&["a".into(), "b\"".into()]), "[\"a\" \"b\\\"\"]");
        for (seconds, text) in
            [(0, "0s"), (30, "30s"), (300, "5m"), (3600, "1h"), (5400, "1h30m"), (2_764_800, "768h")]
        {
            assert_eq!(human(seconds), text);
        }
        assert!(
            looks_like_duration("max_ttl") && looks_like_duration("lease_duration") && !looks_like_duration("subtle")
        );
    }

    #[test]
    fn headings() {
        assert_eq!(heading("Data", 9), "== Data ==");
        assert_eq!(heading("Secret Path", 11), "== Secret Path ==");
        let metadata = json!({"created_time": 1, "custom_metadata": 1, "version": 1});
        assert_eq!(object_heading("Metadata", metadata.as_object().unwrap()), "======= Metadata =======");
    }

    #[test]
    fn wrapping_breaks_at_words() {
        let text = "word ".repeat(40);
        assert!(wrap(text.trim()).lines().all(|line| line.len() <= LINE_CHARS));
        assert_eq!(wrap_indented("* a", 2), "  * a");
    }

    #[test]
    fn yaml_is_read_back_as_the_same() {
        let value =
            json!({"a": "1", "b": [{"c": true, "d": []}, "x"], "e": {"f": null}, "g": "l1\nl2", "h": "plain text"});
        assert_eq!(
            yaml(&value),
            "a: \"1\"\nb:\n- c: true\n  d: []\n- x\ne:\n  f: null\ng: |-\n  l1\n  l2\nh: plain text"
        );
    }
}
