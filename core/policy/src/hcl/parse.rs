//! Tokens to the tree: recursive descent with a depth it never passes.

use super::lex::{Dialect, Kind, Lexer, Token};
use super::{Body, HclError, Item, MAX_DEPTH, MAX_TEXT_BYTES, Value};

pub(super) fn parse(text: &str) -> Result<Body, HclError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(HclError { line: 1, column: 1, message: format!("text is longer than {MAX_TEXT_BYTES} bytes") });
    }
    let dialect = dialect_of(text);
    let mut parser = Parser::new(text, dialect)?;
    match dialect {
        Dialect::Json => parser.json_file(),
        Dialect::Hcl => {
            let body = parser.body(Kind::End, 0)?;
            Ok(body)
        }
    }
}

pub(super) fn dialect_of(text: &str) -> Dialect {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with('{') { Dialect::Json } else { Dialect::Hcl }
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    next: Token,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, dialect: Dialect) -> Result<Parser<'a>, HclError> {
        let mut lexer = Lexer::new(text, dialect);
        let next = significant(&mut lexer)?;
        Ok(Parser { text, lexer, next })
    }

    fn take(&mut self) -> Result<Token, HclError> {
        let following = significant(&mut self.lexer)?;
        Ok(std::mem::replace(&mut self.next, following))
    }

    fn refuse<T>(&self, message: impl Into<String>) -> Result<T, HclError> {
        Err(HclError { line: self.next.line, column: self.next.column, message: message.into() })
    }

    fn expect(&mut self, kind: Kind, message: &str) -> Result<(), HclError> {
        if self.next.kind != kind {
            return self.refuse(message);
        }
        self.take().map(|_| ())
    }

    fn slice(&self, t: &Token) -> String {
        self.text[t.start..t.end].to_owned()
    }

    /// Items until `end`, which is taken.
    fn body(&mut self, end: Kind, depth: usize) -> Result<Body, HclError> {
        if depth > MAX_DEPTH {
            return self.refuse("nested too deeply");
        }
        let mut body = Body::default();
        while self.next.kind != end {
            if self.next.kind == Kind::End {
                return self.refuse("object expected closing RBRACE got: EOF");
            }
            body.items.push(self.item(depth)?);
            if self.next.kind == Kind::Comma {
                self.take()?;
            }
        }
        if end != Kind::End {
            self.take()?;
        }
        Ok(body)
    }

    fn item(&mut self, depth: usize) -> Result<Item, HclError> {
        let (line, column) = (self.next.line, self.next.column);
        let mut keys = Vec::new();
        loop {
            match &self.next.kind {
                Kind::Ident | Kind::Bool(_) | Kind::Number => {
                    let t = self.take()?;
                    keys.push(self.slice(&t));
                }
                Kind::String(_) => {
                    let Kind::String(s) = self.take()?.kind else { unreachable!("just seen") };
                    keys.push(s);
                }
                _ if keys.is_empty() => {
                    return self.refuse(format!("object expected key, got: {}", name(&self.next.kind)));
                }
                Kind::OpenBrace => {
                    self.take()?;
                    let value = Value::Object(self.body(Kind::CloseBrace, depth + 1)?);
                    return Ok(Item { keys, value, line, column });
                }
                Kind::Assign if keys.len() == 1 => {
                    self.take()?;
                    let value = self.value(depth)?;
                    return Ok(Item { keys, value, line, column });
                }
                Kind::Assign => return self.refuse("nested object expected: LBRACE got: ASSIGN"),
                other => {
                    let found = name(other);
                    return self.refuse(format!(
                        "key '{}' expected start of object ('{{') or assignment ('='), got: {found}",
                        keys.join(" ")
                    ));
                }
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, HclError> {
        match &self.next.kind {
            Kind::OpenBrace => {
                self.take()?;
                Ok(Value::Object(self.body(Kind::CloseBrace, depth + 1)?))
            }
            Kind::OpenBracket => self.list(depth + 1),
            Kind::String(_) | Kind::Heredoc(_) | Kind::Number | Kind::Bool(_) => self.literal(),
            other => {
                let found = name(other);
                self.refuse(format!("unknown token: {found}"))
            }
        }
    }

    fn literal(&mut self) -> Result<Value, HclError> {
        let t = self.take()?;
        Ok(match t.kind {
            Kind::String(s) | Kind::Heredoc(s) => Value::String(s),
            Kind::Bool(b) => Value::Bool(b),
            _ => Value::Number(self.slice(&t)),
        })
    }

    fn list(&mut self, depth: usize) -> Result<Value, HclError> {
        if depth > MAX_DEPTH {
            return self.refuse("nested too deeply");
        }
        self.take()?;
        let mut out = Vec::new();
        loop {
            if self.next.kind == Kind::CloseBracket {
                self.take()?;
                return Ok(Value::List(out));
            }
            out.push(self.value(depth)?);
            match self.next.kind {
                Kind::Comma => {
                    self.take()?;
                }
                Kind::CloseBracket => {}
                _ => {
                    let found = name(&self.next.kind);
                    return self.refuse(format!("error parsing list, expected comma or list end, got: {found}"));
                }
            }
        }
    }

    fn json_file(&mut self) -> Result<Body, HclError> {
        let body = self.json_object(0)?;
        if self.next.kind != Kind::End {
            return self.refuse("text after the end of the object");
        }
        Ok(body)
    }

    fn json_object(&mut self, depth: usize) -> Result<Body, HclError> {
        if depth > MAX_DEPTH {
            return self.refuse("nested too deeply");
        }
        self.take()?;
        let mut body = Body::default();
        if self.next.kind == Kind::CloseBrace {
            self.take()?;
            return Ok(body);
        }
        loop {
            let key = self.take()?;
            let Kind::String(name) = key.kind else {
                return Err(HclError { line: key.line, column: key.column, message: "expected a key".into() });
            };
            self.expect(Kind::Colon, "expected ':'")?;
            // a null is a key that was not given
            if let Some(value) = self.json_value(depth)? {
                body.items.push(Item { keys: vec![name], value, line: key.line, column: key.column });
            }
            if self.next.kind == Kind::CloseBrace {
                self.take()?;
                return Ok(body);
            }
            self.expect(Kind::Comma, "expected ',' or '}'")?;
        }
    }

    fn json_value(&mut self, depth: usize) -> Result<Option<Value>, HclError> {
        match &self.next.kind {
            Kind::OpenBrace => Ok(Some(Value::Object(self.json_object(depth + 1)?))),
            Kind::OpenBracket => self.json_array(depth + 1).map(Some),
            Kind::String(_) | Kind::Bool(_) | Kind::Number => self.literal().map(Some),
            Kind::Ident if &self.text[self.next.start..self.next.end] == "null" => self.take().map(|_| None),
            _ => self.refuse("expected a value"),
        }
    }

    fn json_array(&mut self, depth: usize) -> Result<Value, HclError> {
        if depth > MAX_DEPTH {
            return self.refuse("nested too deeply");
        }
        self.take()?;
        let mut out = Vec::new();
        if self.next.kind == Kind::CloseBracket {
            self.take()?;
            return Ok(Value::List(out));
        }
        loop {
            out.extend(self.json_value(depth)?);
            if self.next.kind == Kind::CloseBracket {
                self.take()?;
                return Ok(Value::List(out));
            }
            self.expect(Kind::Comma, "expected ',' or ']'")?;
        }
    }
}

/// The next token that is not a comment.
fn significant(lexer: &mut Lexer<'_>) -> Result<Token, HclError> {
    loop {
        let t = lexer.next()?;
        if t.kind != Kind::Comment {
            return Ok(t);
        }
    }
}

/// The name of a token in an error's text.
fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Ident => "IDENT",
        Kind::String(_) => "STRING",
        Kind::Heredoc(_) => "HEREDOC",
        Kind::Number => "NUMBER",
        Kind::Bool(_) => "BOOL",
        Kind::Comment => "COMMENT",
        Kind::Assign => "ASSIGN",
        Kind::Comma => "COMMA",
        Kind::Colon => "COLON",
        Kind::OpenBrace => "LBRACE",
        Kind::CloseBrace => "RBRACE",
        Kind::OpenBracket => "LBRACK",
        Kind::CloseBracket => "RBRACK",
        Kind::End => "EOF",
    }
}
