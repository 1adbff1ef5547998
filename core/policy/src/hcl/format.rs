//! The canonical form of a text: two spaces a level, aligned `=`, one blank line around blocks.
//!
//! Works on tokens, comments included, of a text that parsed; so it needs no error of its own. Literals are printed as
//! they were written. A comment keeps its line; one that stands inside an item goes above it. JSON is left as it is.

use super::lex::{Dialect, Kind, Lexer, Token};
use super::{HclError, parse};

/// Prints a text in its canonical form.
pub fn format(text: &str) -> Result<String, HclError> {
    parse::parse(text)?;
    if parse::dialect_of(text) == Dialect::Json {
        return Ok(text.to_owned());
    }
    let mut lexer = Lexer::new(text, Dialect::Hcl);
    let mut tokens = Vec::new();
    loop {
        let token = lexer.next()?;
        if token.kind == Kind::End {
            break;
        }
        tokens.push(token);
    }
    let entries = Reader { text, tokens: &tokens, at: 0 }.body();
    let mut out = String::new();
    print_body(&mut out, &entries, 0);
    Ok(out)
}

/// A line of a body or an element of a list.
struct Entry {
    /// A blank line stands above it in the source.
    spaced: bool,
    content: Content,
    /// A comment at the end of its line.
    trailing: Option<String>,
}

enum Content {
    Comment(String),
    Item { keys: String, assigned: bool, value: Shape },
    Element(Shape),
}

enum Shape {
    Literal(String),
    Heredoc(String),
    List { entries: Vec<Entry>, tall: bool },
    Object(Vec<Entry>),
}

impl Shape {
    /// True if it needs lines of its own.
    fn is_tall(&self) -> bool {
        match self {
            Shape::Literal(t) => t.contains('\n'),
            Shape::Heredoc(_) => true,
            Shape::List { tall, .. } => *tall,
            Shape::Object(entries) => !entries.is_empty(),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    tokens: &'a [Token],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn kind(&self) -> Option<&Kind> {
        self.peek().map(|t| &t.kind)
    }

    fn raw(&self, token: &Token) -> String {
        self.text[token.start..token.end].trim_end().to_owned()
    }

    fn line_above(&self) -> u32 {
        self.at.checked_sub(1).map_or(0, |i| self.tokens[i].end_line)
    }

    fn spaced(&self) -> bool {
        self.peek().is_some_and(|t| t.line > self.line_above() + 1)
    }

    fn comment(&mut self) -> Option<String> {
        let token = self.peek().filter(|t| t.kind == Kind::Comment)?;
        let text = self.raw(token);
        self.at += 1;
        Some(text)
    }

    /// A comment that begins on the line the last token ended on.
    fn trailing(&mut self) -> Option<String> {
        self.peek().filter(|t| t.line == self.line_above())?;
        self.comment()
    }

    /// Takes commas, and the comment behind the item or element.
    fn finish(&mut self) -> Option<String> {
        let before = self.trailing();
        if self.kind() == Some(&Kind::Comma) {
            self.at += 1;
        }
        before.or_else(|| self.trailing())
    }

    /// Until the closing brace, which is taken, or the end.
    fn body(&mut self) -> Vec<Entry> {
        let mut out = Vec::new();
        loop {
            let spaced = self.spaced();
            if let Some(text) = self.comment() {
                out.push(Entry { spaced, content: Content::Comment(text), trailing: None });
                continue;
            }
            match self.kind() {
                None => return out,
                Some(Kind::CloseBrace) => {
                    self.at += 1;
                    return out;
                }
                Some(_) => self.item(spaced, &mut out),
            }
        }
    }

    fn item(&mut self, mut spaced: bool, out: &mut Vec<Entry>) {
        let mut keys = String::new();
        let mut hoisted = Vec::new();
        let mut assigned = false;
        while let Some(token) = self.peek() {
            match token.kind {
                Kind::Comment => hoisted.extend(self.comment()),
                Kind::Assign => {
                    assigned = true;
                    self.at += 1;
                }
                _ if assigned || token.kind == Kind::OpenBrace => break,
                _ => {
                    if !keys.is_empty() {
                        keys.push(' ');
                    }
                    keys.push_str(&self.raw(token));
                    self.at += 1;
                }
            }
        }
        for text in hoisted {
            out.push(Entry { spaced, content: Content::Comment(text), trailing: None });
            spaced = false;
        }
        let value = self.shape();
        let trailing = self.finish();
        out.push(Entry { spaced, content: Content::Item { keys, assigned, value }, trailing });
    }

    fn shape(&mut self) -> Shape {
        let Some(token) = self.peek() else { return Shape::Literal(String::new()) };
        let raw = self.raw(token);
        let line = token.line;
        self.at += 1;
        match self.tokens[self.at - 1].kind {
            Kind::OpenBrace => Shape::Object(self.body()),
            Kind::OpenBracket => self.list(line),
            Kind::Heredoc(_) => Shape::Heredoc(raw),
            _ => Shape::Literal(raw),
        }
    }

    fn list(&mut self, open_line: u32) -> Shape {
        let mut entries = Vec::new();
        while let Some(token) = self.peek() {
            if token.kind == Kind::CloseBracket {
                break;
            }
            let entry = match self.comment() {
                Some(text) => Entry { spaced: false, content: Content::Comment(text), trailing: None },
                None => {
                    let shape = self.shape();
                    let trailing = self.finish();
                    Entry { spaced: false, content: Content::Element(shape), trailing }
                }
            };
            entries.push(entry);
        }
        let close_line = self.peek().map_or(open_line, |t| t.line);
        self.at += 1;
        let tall = !entries.is_empty() && (close_line != open_line || entries.iter().any(needs_lines));
        Shape::List { entries, tall }
    }
}

/// An element that cannot stand beside others.
fn needs_lines(entry: &Entry) -> bool {
    match &entry.content {
        Content::Element(shape) => entry.trailing.is_some() || shape.is_tall(),
        _ => true,
    }
}

fn print_body(out: &mut String, entries: &[Entry], depth: usize) {
    let mut at = 0;
    while at < entries.len() {
        if at > 0 && (entries[at].spaced || wants_space(&entries[at - 1], &entries[at])) {
            out.push('\n');
        }
        let end = at + 1 + entries[at + 1..].iter().take_while(|e| !e.spaced && is_aligned(e)).count();
        let end = if is_aligned(&entries[at]) { end } else { at + 1 };
        let width = entries[at..end].iter().map(key_width).max().unwrap_or(0);
        for entry in &entries[at..end] {
            print_entry(out, entry, depth, if end > at + 1 { width } else { 0 });
        }
        at = end;
    }
}

/// Assignments on a line each share a column for their `=`.
fn is_aligned(entry: &Entry) -> bool {
    matches!(&entry.content, Content::Item { assigned: true, value, .. } if !value.is_tall())
}

fn key_width(entry: &Entry) -> usize {
    match &entry.content {
        Content::Item { keys, .. } => keys.chars().count(),
        _ => 0,
    }
}

/// Blocks stand apart; a comment belongs to what follows it.
fn wants_space(above: &Entry, below: &Entry) -> bool {
    let is_block = |e: &Entry| matches!(&e.content, Content::Item { value: Shape::Object(_), .. });
    let is_comment = matches!(above.content, Content::Comment(_));
    is_block(above) || (is_block(below) && !is_comment)
}

fn print_entry(out: &mut String, entry: &Entry, depth: usize, width: usize) {
    indent(out, depth);
    let mut on_own_line = false;
    match &entry.content {
        Content::Comment(text) => out.push_str(text),
        Content::Item { keys, assigned, value } => {
            out.push_str(keys);
            out.extend(std::iter::repeat_n(' ', width.saturating_sub(keys.chars().count())));
            out.push_str(if *assigned { " = " } else { " " });
            print_shape(out, value, depth);
            on_own_line = matches!(value, Shape::Heredoc(_));
        }
        Content::Element(shape) => {
            print_shape(out, shape, depth);
            // nothing may follow a heredoc's marker on its line
            if matches!(shape, Shape::Heredoc(_)) {
                out.push('\n');
                indent(out, depth);
            }
            out.push(',');
        }
    }
    if let Some(text) = &entry.trailing {
        if on_own_line {
            out.push('\n');
            indent(out, depth);
        } else {
            out.push(' ');
        }
        out.push_str(text);
    }
    out.push('\n');
}

fn print_shape(out: &mut String, shape: &Shape, depth: usize) {
    match shape {
        Shape::Literal(text) | Shape::Heredoc(text) => out.push_str(text),
        Shape::Object(entries) if entries.is_empty() => out.push_str("{}"),
        Shape::Object(entries) => {
            out.push_str("{\n");
            print_body(out, entries, depth + 1);
            indent(out, depth);
            out.push('}');
        }
        Shape::List { entries, tall: true } => {
            out.push_str("[\n");
            entries.iter().for_each(|e| print_entry(out, e, depth + 1, 0));
            indent(out, depth);
            out.push(']');
        }
        Shape::List { entries, tall: false } => {
            out.push('[');
            for (i, entry) in entries.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                if let Content::Element(shape) = &entry.content {
                    print_shape(out, shape, depth);
                }
            }
            out.push(']');
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}
