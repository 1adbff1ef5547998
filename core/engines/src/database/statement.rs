//! Statements: how they are given, split, and filled in.
//!
//! Values go into the places a statement's author left for them, `{{name}}` and the like. A place inside quotes gets
//! its value escaped for those quotes, so no name and no password can end them; a place outside of quotes takes plain
//! words only. A literal in a dollar-quoted body may be a statement itself (`EXECUTE '...'`), with quotes of its own that
//! nothing here can follow: its places take no value with a quote or a backslash. Source of the places and of the splitting rule: Vault's database plugins.

use super::plugin::Dialect;
use base64::Engine as _;
use ringfence_base::Secret;

/// Statements as a client gives them: texts, base64 of texts, or JSON arrays of texts.
pub fn given(list: Vec<String>) -> Vec<String> {
    let mut out = Vec::new();
    for item in list {
        let item = match base64::engine::general_purpose::STANDARD.decode(item.trim()) {
            Ok(bytes) => String::from_utf8(bytes).unwrap_or(item),
            Err(_) => item,
        };
        match serde_json::from_str::<Vec<String>>(&item) {
            Ok(inner) => out.extend(inner),
            Err(_) => out.push(item),
        }
    }
    out.retain(|s| !s.trim().is_empty());
    out
}

/// The values of places, by name.
pub type Values<'v> = &'v [(&'static str, &'v str)];

/// Splits and fills in.
///
/// # Errors
/// A value that does not fit where its place stands.
pub fn complete(list: &[String], values: Values<'_>, dialect: Dialect) -> Result<Vec<Secret<String>>, String> {
    let mut out = Vec::new();
    for text in list {
        for one in split(text, dialect) {
            out.push(Secret::new(fill(one, values, dialect)?));
        }
    }
    Ok(out)
}

/// Where a scan stands: inside which quotes, innermost last.
#[derive(Clone, Debug, PartialEq)]
enum Quote {
    /// `'`, `"`, or a backtick. With backslash escapes or without.
    Char { mark: u8, escapes: bool },
    /// `$tag$`, whole.
    Dollar(String),
    /// To the end of the line.
    LineComment,
    /// To `*/`.
    BlockComment,
}

/// Follows the quotes of a text. A dollar-quoted body is read as SQL of its own.
struct Scan<'t> {
    text: &'t str,
    at: usize,
    open: Vec<Quote>,
    dialect: Dialect,
}

impl<'t> Scan<'t> {
    fn new(text: &'t str, dialect: Dialect) -> Scan<'t> {
        Scan { text, at: 0, open: Vec::new(), dialect }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// Takes the next piece; what it opens or closes is noted. `None` at the end.
    fn step(&mut self) -> Option<&'t str> {
        let rest = self.rest();
        let first = rest.chars().next()?;
        let mut take = first.len_utf8();
        match self.open.last().cloned() {
            Some(Quote::Char { mark, escapes }) => {
                if first == '\\' && escapes {
                    take += rest[1..].chars().next().map_or(0, char::len_utf8);
                } else if first == char::from(mark) {
                    if rest.as_bytes().get(1) == Some(&mark) {
                        take = 2;
                    } else {
                        self.open.pop();
                    }
                }
            }
            Some(Quote::LineComment) => {
                if first == '\n' {
                    self.open.pop();
                }
            }
            Some(Quote::BlockComment) => {
                if rest.starts_with("*/") {
                    take = 2;
                    self.open.pop();
                }
            }
            Some(Quote::Dollar(tag)) if rest.starts_with(&tag) => {
                take = tag.len();
                self.open.pop();
            }
            None | Some(Quote::Dollar(_)) => take = self.opens(rest, first),
        }
        let piece = &rest[..take];
        self.at += take;
        Some(piece)
    }

    fn opens(&mut self, rest: &str, first: char) -> usize {
        let mysql = self.dialect == Dialect::Mysql;
        match first {
            '\'' => {
                let before = &self.text.as_bytes()[..self.at];
                let e_string = matches!(before.last(), Some(b'e' | b'E'))
                    && !before.get(before.len().wrapping_sub(2)).is_some_and(|b| b.is_ascii_alphanumeric());
                self.open.push(Quote::Char { mark: b'\'', escapes: mysql || e_string });
                1
            }
            '"' => {
                self.open.push(Quote::Char { mark: b'"', escapes: mysql });
                1
            }
            '`' if mysql => {
                self.open.push(Quote::Char { mark: b'`', escapes: false });
                1
            }
            '-' if rest.starts_with("--") => {
                self.open.push(Quote::LineComment);
                2
            }
            '/' if rest.starts_with("/*") => {
                self.open.push(Quote::BlockComment);
                2
            }
            '$' if !mysql => match dollar_tag(rest) {
                Some(tag) => {
                    self.open.push(Quote::Dollar(tag.to_owned()));
                    tag.len()
                }
                None => 1,
            },
            c => c.len_utf8(),
        }
    }
}

/// `$$` or `$name$` at the beginning of a text.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 2;
    let name = &text[1..end - 1];
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (plain && !name.starts_with(|c: char| c.is_ascii_digit())).then_some(&text[..end])
}

/// The statements of a text. One that has the word `END` outside of quotes is a block and stays whole.
fn split(text: &str, dialect: Dialect) -> Vec<&str> {
    let mut scan = Scan::new(text, dialect);
    let mut cuts = Vec::new();
    let mut word = 0;
    let mut is_block = false;
    loop {
        let at = scan.at;
        let outside = scan.open.is_empty();
        let Some(piece) = scan.step() else {
            is_block |= outside && text[word..at].eq_ignore_ascii_case("end");
            break;
        };
        if !outside || !piece.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            is_block |= outside && text[word..at].eq_ignore_ascii_case("end");
            word = scan.at;
        }
        if outside && piece == ";" {
            cuts.push(at);
        }
    }
    if is_block && dialect == Dialect::Postgres {
        return vec![text.trim()];
    }
    let mut out = Vec::new();
    let mut from = 0;
    for cut in cuts.into_iter().chain([text.len()]) {
        out.push(text[from..cut].trim());
        from = (cut + 1).min(text.len());
    }
    out.retain(|s| !s.is_empty());
    out
}

/// Fills the places of one statement.
fn fill(text: &str, values: Values<'_>, dialect: Dialect) -> Result<String, String> {
    let mut scan = Scan::new(text, dialect);
    let mut out = String::with_capacity(text.len() + 64);
    loop {
        if let Some((name, value, len)) = place(scan.rest(), values) {
            put(&mut out, name, value, &scan.open)?;
            scan.at += len;
            continue;
        }
        match scan.step() {
            Some(piece) => out.push_str(piece),
            None => return Ok(out),
        }
    }
}

/// The place that a text begins with: `{{name}}`, blanks inside allowed.
fn place<'v>(text: &str, values: Values<'v>) -> Option<(&'static str, &'v str, usize)> {
    let inner = text.strip_prefix("{{")?;
    let end = inner.find("}}")?;
    let name = inner[..end].trim();
    values.iter().find(|(n, _)| *n == name).map(|(n, v)| (*n, *v, end + 4))
}

fn put(out: &mut String, name: &str, value: &str, open: &[Quote]) -> Result<(), String> {
    let refuse = |why: &str| Err(format!("the value of {{{{{name}}}}} {why}"));
    if value.contains('\0') {
        return refuse("holds a zero byte");
    }
    for q in open {
        if let Quote::Dollar(tag) = q
            && value.contains('$')
        {
            return refuse(&format!("cannot stand between {tag}"));
        }
    }
    if let [Quote::Dollar(tag), .., Quote::Char { mark: b'\'', .. }] = open
        && value.contains(['\'', '"', '\\'])
    {
        return refuse(&format!("has a quote or a backslash and stands in a literal between {tag}"));
    }
    match open.last() {
        Some(Quote::Char { mark, escapes }) => {
            for c in value.chars() {
                if c == char::from(*mark) {
                    out.push(c);
                } else if c == '\\' && *escapes {
                    out.push('\\');
                }
                out.push(c);
            }
            Ok(())
        }
        Some(Quote::LineComment | Quote::BlockComment) => Ok(()),
        None | Some(Quote::Dollar(_)) => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.@+: ".contains(&b);
            if !value.bytes().all(plain) || value.contains("--") {
                return refuse("has characters that must stand in quotes in the statement");
            }
            out.push_str(value);
            Ok(())
        }
    }
}

/// A literal of PostgreSQL.
pub fn postgres_literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "''");
    if text.contains('\\') { format!("E'{escaped}'") } else { format!("'{escaped}'") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(text: &str, value: &str, dialect: Dialect) -> Result<String, String> {
        fill(text, &[("name", value), ("username", value)], dialect)
    }

    #[test]
    fn statements_in_all_their_forms() {
        let l = |x: &[&str]| given(x.iter().map(|s| (*s).to_owned()).collect());
        assert_eq!(l(&["SELECT 1;"]), ["SELECT 1;"]);
        assert_eq!(l(&["U0VMRUNUIDE7"]), ["SELECT 1;"]);
        assert_eq!(l(&[r#"["A","B"]"#, "", " "]), ["A", "B"]);
    }

    #[test]
    fn splitting() {
        let pg = |t| split(t, Dialect::Postgres);
        assert_eq!(pg("A; B ;; C"), ["A", "B", "C"]);
        assert_eq!(pg("A ';' \";\" ; B -- ; x\n C"), ["A ';' \";\"", "B -- ; x\n C"]);
        assert_eq!(pg("DO $$ A; B; $$; C"), ["DO $$ A; B; $$", "C"]);
        assert_eq!(pg("BEGIN A; B; END; C"), ["BEGIN A; B; END; C"]);
        assert_eq!(pg("A 'END'; B"), ["A 'END'", "B"]);
        assert_eq!(pg("SENDER; ENDING"), ["SENDER", "ENDING"]);
        assert_eq!(split("A `;` ; B 'x\\';'", Dialect::Mysql), ["A `;`", "B 'x\\';'"]);
    }

    #[test]
    fn values_keep_to_their_quotes() {
        let pg = Dialect::Postgres;
        assert_eq!(filled(r#"CREATE ROLE "{{name}}""#, "v-web", pg).unwrap(), r#"CREATE ROLE "v-web""#);
        assert_eq!(filled(r#"CREATE ROLE "{{name}}""#, r#"a"b"#, pg).unwrap(), r#"CREATE ROLE "a""b""#);
        assert_eq!(filled("PASSWORD '{{ name }}'", "a'b\\", pg).unwrap(), "PASSWORD 'a''b\\'");
        assert_eq!(filled("PASSWORD E'{{name}}'", "a'b\\", pg).unwrap(), "PASSWORD E'a''b\\\\'");
        assert_eq!(filled("BY '{{name}}'", "a'b\\", Dialect::Mysql).unwrap(), "BY 'a''b\\\\'");
        assert_eq!(filled("x {{name}} {{other}}", "a-b", pg).unwrap(), "x a-b {{other}}");
        assert!(filled("x {{name}}", "a; DROP TABLE t", pg).is_err());
        assert!(filled("DO $$ '{{name}}' $$", "$$; DROP", pg).is_err());
        assert_eq!(filled("DO $$ '{{name}}' $$", "o-b", pg).unwrap(), "DO $$ 'o-b' $$");
        assert_eq!(filled("DO $$ \"{{name}}\" $$", "o\"b", pg).unwrap(), "DO $$ \"o\"\"b\" $$");
    }

    /// `EXECUTE 'CREATE ROLE "{{name}}"'` in a block: the value was escaped for the literal and not for the name within
    /// it, so a name with a quote went on as SQL.
    #[test]
    fn a_statement_within_a_block_keeps_its_own_quotes() {
        for text in [
            "DO $$ BEGIN EXECUTE 'CREATE ROLE \"{{name}}\"'; END $$",
            "DO $do$ BEGIN EXECUTE 'ALTER ROLE x PASSWORD ''{{name}}'''; END $do$",
            "DO $$ '{{name}}' $$",
        ] {
            for value in ["a\" SUPERUSER; --", "a' SUPERUSER; --", "a\\"] {
                assert!(filled(text, value, Dialect::Postgres).is_err(), "{text} {value}");
            }
            assert!(filled(text, "v-web-x;7", Dialect::Postgres).is_ok(), "{text}");
        }
    }

    proptest! {
        /// Whatever the value, the statement around it is still read as it was written.
        #[test]
        fn no_value_changes_the_statement(value in "\\PC{0,12}|[a'\"\\\\;$`]{0,8}", mysql: bool) {
            let dialect = if mysql { Dialect::Mysql } else { Dialect::Postgres };
            for text in ["A '{{name}}'; B", "A \"{{name}}\"; B", "A {{name}}; B"] {
                if let Ok(out) = filled(text, &value, dialect) {
                    let parts = split(&out, dialect);
                    prop_assert_eq!(parts.len(), 2, "{}", out);
                    prop_assert_eq!(parts[1], "B");
                }
            }
        }
    }
}
