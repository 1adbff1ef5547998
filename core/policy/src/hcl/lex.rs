//! Characters to tokens. Both spellings share it: JSON only adds the colon and its own escapes.

use super::HclError;

/// A token and where it stands. `start..end` are byte offsets of its text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
    pub line: u32,
    pub column: u32,
    /// Line of its last character: strings and comments may span several.
    pub end_line: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Ident,
    /// Quoted; the text with escapes resolved.
    String(String),
    /// Heredoc; the text.
    Heredoc(String),
    Number,
    Bool(bool),
    Comment,
    Assign,
    Comma,
    Colon,
    OpenBrace,
    CloseBrace,
    OpenBracket,
    CloseBracket,
    End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Hcl,
    Json,
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    dialect: Dialect,
    at: usize,
    line: u32,
    column: u32,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str, dialect: Dialect) -> Lexer<'a> {
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Lexer { text, dialect, at, line: 1, column: 1 }
    }

    /// The next token, comments included.
    pub fn next(&mut self) -> Result<Token, HclError> {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.bump();
        }
        let (start, line, column) = (self.at, self.line, self.column);
        let kind = self.scan()?;
        Ok(Token { kind, start, end: self.at, line, column, end_line: self.line })
    }

    fn scan(&mut self) -> Result<Kind, HclError> {
        let Some(c) = self.bump() else { return Ok(Kind::End) };
        Ok(match c {
            '=' => Kind::Assign,
            ',' => Kind::Comma,
            '{' => Kind::OpenBrace,
            '}' => Kind::CloseBrace,
            '[' => Kind::OpenBracket,
            ']' => Kind::CloseBracket,
            ':' if self.dialect == Dialect::Json => Kind::Colon,
            '"' if self.dialect == Dialect::Json => Kind::String(self.json_string()?),
            '"' => Kind::String(self.hcl_string()?),
            '#' if self.dialect == Dialect::Hcl => self.line_comment(),
            '/' if self.dialect == Dialect::Hcl && self.peek() == Some('/') => self.line_comment(),
            '/' if self.dialect == Dialect::Hcl && self.peek() == Some('*') => self.block_comment()?,
            '<' if self.dialect == Dialect::Hcl && self.peek() == Some('<') => self.heredoc()?,
            '0'..='9' | '-' | '+' => self.number(c)?,
            '.' if self.peek().is_some_and(|d| d.is_ascii_digit()) => self.number(c)?,
            c if c.is_alphabetic() || c == '_' => self.ident(c),
            _ => return Err(self.error("illegal character")),
        })
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(c)
    }

    fn error(&self, message: impl Into<String>) -> HclError {
        HclError { line: self.line, column: self.column, message: message.into() }
    }

    fn ident(&mut self, first: char) -> Kind {
        let start = self.at - first.len_utf8();
        while self.peek().is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')) {
            self.bump();
        }
        match &self.text[start..self.at] {
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            _ => Kind::Ident,
        }
    }

    fn number(&mut self, first: char) -> Result<Kind, HclError> {
        let start = self.at - first.len_utf8();
        let mut previous = first;
        while let Some(c) = self.peek() {
            let exponent_sign = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E') && !self.is_hex(start);
            if !(c.is_ascii_alphanumeric() || c == '.' || exponent_sign) {
                break;
            }
            self.bump();
            previous = c;
        }
        if is_number(&self.text[start..self.at]) { Ok(Kind::Number) } else { Err(self.error("illegal number")) }
    }

    fn is_hex(&self, start: usize) -> bool {
        let digits = self.text[start..self.at].trim_start_matches(['-', '+']);
        digits.starts_with("0x") || digits.starts_with("0X")
    }

    fn line_comment(&mut self) -> Kind {
        while self.peek().is_some_and(|c| c != '\n') {
            self.bump();
        }
        Kind::Comment
    }

    fn block_comment(&mut self) -> Result<Kind, HclError> {
        self.bump();
        loop {
            match self.bump() {
                Some('*') if self.peek() == Some('/') => {
                    self.bump();
                    return Ok(Kind::Comment);
                }
                Some(_) => {}
                None => return Err(self.error("comment not terminated")),
            }
        }
    }

    /// After the opening quote. `${ .. }` is kept as it stands, quotes and line breaks inside it too.
    fn hcl_string(&mut self) -> Result<String, HclError> {
        let mut out = String::new();
        let mut braces = 0usize;
        loop {
            let Some(c) = self.bump() else { return Err(self.error("literal not terminated")) };
            if braces > 0 {
                match c {
                    '{' => braces += 1,
                    '}' => braces -= 1,
                    '\\' if self.peek().is_some() => {
                        out.push(c);
                        out.extend(self.bump());
                        continue;
                    }
                    _ => {}
                }
                out.push(c);
                continue;
            }
            match c {
                '"' => return Ok(out),
                '\n' => return Err(self.error("literal not terminated")),
                '$' if self.peek() == Some('{') => {
                    self.bump();
                    braces = 1;
                    out.push_str("${");
                }
                '\\' => out.push(self.hcl_escape()?),
                c => out.push(c),
            }
        }
    }

    fn hcl_escape(&mut self) -> Result<char, HclError> {
        let bad = |l: &Self| l.error("illegal char escape");
        Ok(match self.bump() {
            Some('a') => '\u{7}',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\u{b}',
            Some('\\') => '\\',
            Some('"') => '"',
            Some(d @ '0'..='7') => {
                let mut v = d as u32 - '0' as u32;
                for _ in 0..2 {
                    let d = self.bump().and_then(|c| c.to_digit(8)).ok_or_else(|| bad(self))?;
                    v = v * 8 + d;
                }
                char::from_u32(v).filter(|_| v < 256).ok_or_else(|| bad(self))?
            }
            Some('x') => self.hex_char(2)?,
            Some('u') => self.hex_char(4)?,
            Some('U') => self.hex_char(8)?,
            _ => return Err(bad(self)),
        })
    }

    fn hex(&mut self, digits: usize) -> Result<u32, HclError> {
        let mut v = 0u32;
        for _ in 0..digits {
            let d = self.bump().and_then(|c| c.to_digit(16)).ok_or_else(|| self.error("illegal char escape"))?;
            v = v.wrapping_mul(16).wrapping_add(d);
        }
        Ok(v)
    }

    fn hex_char(&mut self, digits: usize) -> Result<char, HclError> {
        let v = self.hex(digits)?;
        char::from_u32(v).ok_or_else(|| self.error("illegal char escape"))
    }

    /// After the opening quote. Source: RFC 8259 section 7.
    fn json_string(&mut self) -> Result<String, HclError> {
        let mut out = String::new();
        loop {
            match self.bump() {
                Some('"') => return Ok(out),
                Some('\\') => out.push(self.json_escape()?),
                Some(c) if c >= ' ' => out.push(c),
                _ => return Err(self.error("literal not terminated")),
            }
        }
    }

    fn json_escape(&mut self) -> Result<char, HclError> {
        Ok(match self.bump() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let high = self.hex(4)?;
                if !(0xd800..0xdc00).contains(&high) {
                    return char::from_u32(high).ok_or_else(|| self.error("illegal char escape"));
                }
                if self.bump() != Some('\\') || self.bump() != Some('u') {
                    return Err(self.error("illegal char escape"));
                }
                let low = self.hex(4)?;
                if !(0xdc00..0xe000).contains(&low) {
                    return Err(self.error("illegal char escape"));
                }
                char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
                    .ok_or_else(|| self.error("illegal char escape"))?
            }
            _ => return Err(self.error("illegal char escape")),
        })
    }

    /// After the first `<`. The text ends before the line that holds only the marker and keeps its last line break;
    /// `<<-` takes the marker's indentation away from every line, if every line has it.
    fn heredoc(&mut self) -> Result<Kind, HclError> {
        self.bump();
        let indented = self.peek() == Some('-');
        if indented {
            self.bump();
        }
        let start = self.at;
        while self.peek().is_some_and(|c| c != '\n') {
            self.bump();
        }
        let marker = self.text[start..self.at].trim_end_matches('\r');
        if marker.is_empty() || !marker.chars().all(|c| c.is_alphanumeric() || c == '_') {
            return Err(self.error("invalid heredoc anchor"));
        }
        if self.bump().is_none() {
            return Err(self.error("heredoc not terminated"));
        }
        let mut lines: Vec<&str> = Vec::new();
        loop {
            let from = self.at;
            while self.peek().is_some_and(|c| c != '\n') {
                self.bump();
            }
            let line = &self.text[from..self.at];
            if line.trim() == marker {
                let indent = &line[..line.len() - line.trim_start().len()];
                return Ok(Kind::Heredoc(join_heredoc(&lines, if indented { indent } else { "" })));
            }
            if self.bump().is_none() {
                return Err(self.error("heredoc not terminated"));
            }
            lines.push(line);
        }
    }
}

fn join_heredoc(lines: &[&str], indent: &str) -> String {
    let strip = !indent.is_empty() && lines.iter().all(|l| l.starts_with(indent));
    let mut out = String::new();
    for line in lines {
        out.push_str(if strip { &line[indent.len()..] } else { line });
        out.push('\n');
    }
    out
}

/// Decimal, octal or hexadecimal whole numbers and decimal fractions, with a sign.
fn is_number(text: &str) -> bool {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = body.strip_prefix("0x").or_else(|| body.strip_prefix("0X")) {
        return !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    }
    let (mantissa, exponent) = match body.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e.strip_prefix(['-', '+']).unwrap_or(e))),
        None => (body, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}
