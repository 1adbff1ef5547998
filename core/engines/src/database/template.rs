//! Username templates: the part of Go's text/template that Vault offers there, with its functions.
//!
//! ```text
//! template = ( text | "{{" pipeline "}}" )*
//! pipeline = command ( "|" command )*         the value before goes last into the next
//! command  = function operand* | operand
//! operand  = string | number | .Field | "(" pipeline ")"
//! ```

use base64::Engine as _;
use ringfence_base::time::Civil;
use ringfence_base::{Entropy, Wall};

/// Bytes of a template.
const MAX_TEMPLATE_BYTES: usize = 4096;
/// Bytes of any value on the way.
const MAX_VALUE_BYTES: usize = 4096;
/// Parentheses within each other.
const MAX_DEPTH: usize = 16;

const FUNCTIONS: &[(&str, usize)] = &[
    ("random", 1),
    ("truncate", 2),
    ("truncate_sha256", 2),
    ("uppercase", 1),
    ("lowercase", 1),
    ("replace", 3),
    ("sha256", 1),
    ("base64", 1),
    ("timestamp", 1),
    ("unix_time", 0),
    ("unix_time_millis", 0),
    ("uuid", 0),
];

/// A template that was read.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Pipe(Vec<Command>),
}

#[derive(Clone, Debug)]
enum Command {
    Call(String, Vec<Operand>),
    Value(Operand),
}

#[derive(Clone, Debug)]
enum Operand {
    Text(String),
    Number(i64),
    Field(String),
    Pipe(Vec<Command>),
}

/// What fields of a template stand for.
pub struct Names<'n> {
    /// Display name of the caller's token.
    pub display_name: &'n str,
    /// The role.
    pub role_name: &'n str,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Template, String> {
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(format!("template is longer than {MAX_TEMPLATE_BYTES} bytes"));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("{{") {
            if at > 0 {
                parts.push(Part::Text(rest[..at].to_owned()));
            }
            let mut reader = Reader { rest: &rest[at + 2..], depth: 0 };
            let pipe = reader.pipeline()?;
            rest = reader.rest.trim_start().strip_prefix("}}").ok_or("unclosed action")?;
            parts.push(Part::Pipe(pipe));
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Template { parts })
    }

    /// Makes a name.
    ///
    /// # Errors
    /// A function that is given what it cannot take.
    pub fn render(&self, names: &Names<'_>, now: Wall, rng: &mut dyn Entropy) -> Result<String, String> {
        let mut run = Run { names, now, rng };
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(t) => out.push_str(t),
                Part::Pipe(p) => out.push_str(&run.pipe(p)?.text()),
            }
            if out.len() > MAX_VALUE_BYTES {
                return Err("the name is too long".into());
            }
        }
        Ok(out)
    }
}

struct Reader<'t> {
    rest: &'t str,
    depth: usize,
}

impl Reader<'_> {
    fn pipeline(&mut self) -> Result<Vec<Command>, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("too many parentheses".into());
        }
        let mut commands = vec![self.command()?];
        while self.skip("|") {
            commands.push(self.command()?);
        }
        self.depth -= 1;
        for (i, c) in commands.iter().enumerate() {
            check(c, i > 0)?;
        }
        Ok(commands)
    }

    fn skip(&mut self, mark: &str) -> bool {
        match self.rest.trim_start().strip_prefix(mark) {
            Some(r) => {
                self.rest = r;
                true
            }
            None => false,
        }
    }

    fn command(&mut self) -> Result<Command, String> {
        self.rest = self.rest.trim_start();
        let word: String = self.rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        if word.starts_with(|c: char| c.is_ascii_alphabetic()) {
            if word != "printf" && !FUNCTIONS.iter().any(|(n, _)| *n == word) {
                return Err(format!("function \"{word}\" not defined"));
            }
            self.rest = &self.rest[word.len()..];
            let mut operands = Vec::new();
            while let Some(o) = self.operand()? {
                operands.push(o);
            }
            return Ok(Command::Call(word, operands));
        }
        let value = self.operand()?.ok_or("missing value for command")?;
        Ok(Command::Value(value))
    }

    fn operand(&mut self) -> Result<Option<Operand>, String> {
        self.rest = self.rest.trim_start();
        let mut chars = self.rest.chars();
        let Some(first) = chars.next() else { return Err("unclosed action".into()) };
        match first {
            '"' => self.quoted().map(Some),
            '`' => {
                let end = self.rest[1..].find('`').ok_or("unterminated raw quoted string")?;
                let text = self.rest[1..=end].to_owned();
                self.rest = &self.rest[end + 2..];
                Ok(Some(Operand::Text(text)))
            }
            '(' => {
                self.rest = &self.rest[1..];
                let inner = self.pipeline()?;
                if !self.skip(")") {
                    return Err("unclosed left paren".into());
                }
                Ok(Some(Operand::Pipe(inner)))
            }
            '.' => {
                let name: String = chars.take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                self.rest = &self.rest[1 + name.len()..];
                match name.as_str() {
                    "DisplayName" | "RoleName" => Ok(Some(Operand::Field(name))),
                    _ => Err(format!("can't evaluate field {name}")),
                }
            }
            '0'..='9' | '-' => {
                let text: String = self
                    .rest
                    .char_indices()
                    .take_while(|(i, c)| c.is_ascii_digit() || (*i == 0 && *c == '-'))
                    .map(|(_, c)| c)
                    .collect();
                self.rest = &self.rest[text.len()..];
                text.parse().map(|n| Some(Operand::Number(n))).map_err(|_| format!("bad number \"{text}\""))
            }
            _ => Ok(None),
        }
    }

    fn quoted(&mut self) -> Result<Operand, String> {
        let mut out = String::new();
        let mut chars = self.rest[1..].char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[i + 2..];
                    return Ok(Operand::Text(out));
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => out.push('\n'),
                    Some((_, 't')) => out.push('\t'),
                    Some((_, c @ ('"' | '\\'))) => out.push(c),
                    _ => return Err("unknown escape in a quoted string".into()),
                },
                c => out.push(c),
            }
        }
        Err("unterminated quoted string".into())
    }
}

/// A function gets as many values as it takes, the one that is piped in counted.
fn check(command: &Command, piped: bool) -> Result<(), String> {
    match command {
        Command::Value(_) if piped => Err("a value cannot take what is piped into it".into()),
        Command::Value(_) => Ok(()),
        Command::Call(name, operands) => {
            let given = operands.len() + usize::from(piped);
            match FUNCTIONS.iter().find(|(n, _)| n == name) {
                Some((_, want)) if *want != given => {
                    Err(format!("wrong number of args for {name}: want {want} got {given}"))
                }
                None if given == 0 => Err("wrong number of args for printf: want at least 1 got 0".into()),
                _ => Ok(()),
            }
        }
    }
}

enum Value {
    Text(String),
    Number(i64),
}

impl Value {
    fn text(self) -> String {
        match self {
            Value::Text(t) => t,
            Value::Number(n) => n.to_string(),
        }
    }

    fn count(self) -> Result<usize, String> {
        match self {
            Value::Number(n) if (0..=1024).contains(&n) => Ok(n as usize),
            Value::Number(n) => Err(format!("{n} is not between 0 and 1024")),
            Value::Text(t) => Err(format!("expected a number, got {t:?}")),
        }
    }
}

struct Run<'r> {
    names: &'r Names<'r>,
    now: Wall,
    rng: &'r mut dyn Entropy,
}

impl Run<'_> {
    fn pipe(&mut self, commands: &[Command]) -> Result<Value, String> {
        let mut value = None;
        for c in commands {
            value = Some(match c {
                Command::Value(o) => self.operand(o)?,
                Command::Call(name, operands) => {
                    let mut args = Vec::new();
                    for o in operands {
                        args.push(self.operand(o)?);
                    }
                    args.extend(value.take());
                    self.call(name, args)?
                }
            });
        }
        value.ok_or_else(|| "empty command".to_owned())
    }

    fn operand(&mut self, o: &Operand) -> Result<Value, String> {
        Ok(match o {
            Operand::Text(t) => Value::Text(t.clone()),
            Operand::Number(n) => Value::Number(*n),
            Operand::Field(f) if f == "RoleName" => Value::Text(self.names.role_name.to_owned()),
            Operand::Field(_) => Value::Text(self.names.display_name.to_owned()),
            Operand::Pipe(p) => self.pipe(p)?,
        })
    }

    fn call(&mut self, name: &str, args: Vec<Value>) -> Result<Value, String> {
        let mut args = args.into_iter();
        let mut next = || args.next().ok_or_else(|| "missing argument".to_owned());
        let text = match name {
            "random" => {
                let n = next()?.count()?;
                random(n, self.rng)
            }
            "truncate" => {
                let n = next()?.count()?;
                next()?.text().chars().take(n).collect()
            }
            "truncate_sha256" => {
                let n = next()?.count()?;
                let text = next()?.text();
                if n < 9 {
                    return Err("truncate_sha256: length must be at least 9".into());
                }
                match text.chars().count() > n {
                    // eight characters of the hash keep what was cut off apart
                    true => text.chars().take(n - 8).chain(sha256_hex(&text).chars().take(8)).collect(),
                    false => text,
                }
            }
            "uppercase" => next()?.text().to_uppercase(),
            "lowercase" => next()?.text().to_lowercase(),
            "replace" => {
                let (from, to) = (next()?.text(), next()?.text());
                next()?.text().replace(&from, &to)
            }
            "sha256" => sha256_hex(&next()?.text()),
            "base64" => base64::engine::general_purpose::STANDARD.encode(next()?.text()),
            "timestamp" => {
                let layout = next()?.text();
                stamp(&layout, self.now)
            }
            "unix_time" => self.now.seconds().to_string(),
            "unix_time_millis" => (self.now.0 / 1_000_000).to_string(),
            "uuid" => uuid(self.rng),
            _ => {
                let format = next()?.text();
                return printf(&format, args.collect()).map(Value::Text);
            }
        };
        if text.len() > MAX_VALUE_BYTES {
            return Err("the name is too long".into());
        }
        Ok(Value::Text(text))
    }
}

fn printf(format: &str, args: Vec<Value>) -> Result<String, String> {
    let mut args = args.into_iter();
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some('s' | 'v' | 'd') => out.push_str(&args.next().ok_or("printf: missing argument")?.text()),
            other => return Err(format!("printf: unknown verb %{}", other.map(String::from).unwrap_or_default())),
        }
    }
    match args.next() {
        None => Ok(out),
        Some(_) => Err("printf: extra argument".into()),
    }
}

const LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// Letters and digits, evenly drawn.
pub fn random(n: usize, rng: &mut dyn Entropy) -> String {
    let mut out = String::with_capacity(n);
    let mut pool = [0; 32];
    while out.len() < n {
        rng.fill(&mut pool);
        // 248 is the last whole multiple of 62
        out.extend(
            pool.iter().filter(|b| **b < 248).take(n - out.len()).map(|b| char::from(LETTERS[usize::from(b % 62)])),
        );
    }
    out
}

/// A random UUID, version 4.
pub fn uuid(rng: &mut dyn Entropy) -> String {
    let mut b = [0; 16];
    rng.fill(&mut b);
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let h = hex::encode(b);
    format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
}

fn sha256_hex(text: &str) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()))
}

/// A time of UTC in one of Go's layouts.
pub fn stamp(layout: &str, at: Wall) -> String {
    let Civil { year, month, day, hour, minute, second, .. } = Civil::of(at);
    let fields: [(&str, String); 9] = [
        ("2006", format!("{year:04}")),
        ("-0700", "+0000".into()),
        ("01", format!("{month:02}")),
        ("02", format!("{day:02}")),
        ("15", format!("{hour:02}")),
        ("04", format!("{minute:02}")),
        ("05", format!("{second:02}")),
        ("06", format!("{:02}", year % 100)),
        ("MST", "UTC".into()),
    ];
    let mut out = String::new();
    let mut rest = layout;
    while let Some(c) = rest.chars().next() {
        match fields.iter().find(|(mark, _)| rest.starts_with(mark)) {
            Some((mark, value)) => {
                out.push_str(value);
                rest = &rest[mark.len()..];
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_base::entropy::SeededEntropy;

    fn made(template: &str) -> Result<String, String> {
        let names = Names { display_name: "token-Büro", role_name: "readonly-reports" };
        Template::parse(template)?.render(&names, Wall::from_seconds(1_700_000_000), &mut SeededEntropy(3))
    }

    #[test]
    fn functions() {
        for (template, name) in [
            ("plain", "plain"),
            ("{{ .RoleName }}", "readonly-reports"),
            (r#"{{ printf "v-%s-%s" (.DisplayName | truncate 8) (.RoleName | truncate 8) }}"#, "v-token-Bü-readonly"),
            ("x{{unix_time}}y", "x1700000000y"),
            ("{{ unix_time_millis }}", "1700000000000"),
            (r#"{{ timestamp "2006-01-02T15:04:05Z" }}"#, "2023-11-14T22:13:20Z"),
            (r#"{{ .RoleName | replace "-" "_" | uppercase | truncate 9 }}"#, "READONLY_"),
            ("{{ truncate_sha256 12 .RoleName }}", "read7c6c5f6e"),
            (r#"{{ "a\"b" | base64 }}"#, "YSJi"),
            ("{{ `raw` }}", "raw"),
        ] {
            let got = made(template).unwrap();
            if template.contains("sha256") {
                assert_eq!((got.len(), &got[..4]), (12, &name[..4]));
            } else {
                assert_eq!(got, name);
            }
        }
        assert_eq!(made("{{ random 20 }}").unwrap().len(), 20);
        assert_eq!(made("{{ uuid }}").unwrap().len(), 36);
        let long = made(super::super::plugin::find("mysql-database-plugin").unwrap().username_template).unwrap();
        assert_eq!((long.len() <= 33, long.starts_with("v-token-Büro-readonly-r")), (true, true), "{long}");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in [
            "{{",
            "{{ }}",
            "{{ nothing }}",
            "{{ .Secret }}",
            "{{ random }}",
            "{{ random 1 2 }}",
            "{{ (unix_time }}",
            "{{ \"x }}",
            "{{ `x }}",
            "{{ printf }}",
            "{{ 5 | .RoleName }}",
            "{{ | truncate 3 }}",
            "{{ truncate 3 | }}",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
        for bad in
            ["{{ random 2000 }}", "{{ truncate \"a\" .RoleName }}", "{{ printf \"%q\" 1 }}", "{{ printf \"%s\" }}"]
        {
            assert!(made(bad).is_err(), "{bad}");
        }
        assert!(Template::parse(&"(".repeat(5000)).is_err());
        assert!(Template::parse(&format!("{{{{{}", "(".repeat(100))).is_err());
    }
}
