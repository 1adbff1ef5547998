//! One table of paths per engine, and the matcher it yields.
//!
//! Pattern language, by segments: a literal; `{name}` one segment that is a generic name; `{name:any}` any one
//! segment; `{name:at}` a generic name that may also hold `@`; `{path..}` the rest, at least one character;
//! `{path..?}` the rest, possibly nothing. A pattern that ends in `/?` also matches without the slash. Names that do
//! not fit simply fail to route (`unsupported path`), as Vault's regular expressions do.

use crate::args::Args;
use crate::cx::Cx;
use crate::engine::Class;
use crate::error::Error;
use crate::field::Field;
use crate::{Operation, Outcome};
use ringfence_base::path::is_name;

/// A handler: a plain function over the transaction of one request.
pub type Handler = fn(&mut Cx<'_, '_>, &Args) -> Outcome;

/// Tells whether the object that a write names exists: the difference between `create` and `update`.
pub type ExistsCheck = fn(&mut Cx<'_, '_>, &Args) -> Result<bool, Error>;
/// Tells the role that a login is to. It reads only.
pub type LoginRole = fn(&mut Cx<'_, '_>, &Args) -> Result<String, Error>;

/// Who may call a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A token whose policies grant the operation.
    Token,
    /// Anybody, without a token.
    Public,
    /// As `Token`, and the policies must grant `sudo` too.
    Sudo,
}

/// One declared path.
#[derive(Clone, Copy)]
pub struct Path {
    /// The pattern, see the module's text.
    pub pattern: &'static str,
    /// Declared fields, captured ones included.
    pub fields: &'static [Field],
    /// One line.
    pub synopsis: &'static str,
    /// More lines.
    pub description: &'static str,
    /// Who may call it.
    pub access: Access,
    /// The existence check, if the engine has one for this path.
    pub exists: Option<ExistsCheck>,
    /// GET.
    pub read: Option<Handler>,
    /// LIST.
    pub list: Option<Handler>,
    /// SCAN.
    pub scan: Option<Handler>,
    /// POST and PUT.
    pub write: Option<Handler>,
    /// PATCH.
    pub patch: Option<Handler>,
    /// DELETE.
    pub delete: Option<Handler>,
    /// The body is stored whole: undeclared fields are data, not strangers to warn of.
    pub free_form: bool,
    /// A successful answer can be handled for its wrapped accessor etc. Login paths make tokens.
    pub login: bool,
    /// Its write is a question or a computation that usually writes nothing: a standby tries it by itself.
    pub computes: bool,
    /// Whom a login names, in the method's one normal form: for lockouts, before the credentials are looked at.
    pub names: Option<fn(&Args) -> String>,
    /// The role that a login is to, as the method itself finds it: quotas of a role count by it, before the credentials
    /// are looked at. What it answers must not be the client's to choose freely; empty = none.
    pub role: Option<LoginRole>,
    /// Only the root namespace has it.
    pub root_namespace_only: bool,
}

impl Path {
    /// A path with no operation yet.
    pub const fn new(pattern: &'static str) -> Path {
        Path {
            pattern,
            fields: &[],
            synopsis: "",
            description: "",
            access: Access::Token,
            exists: None,
            read: None,
            list: None,
            scan: None,
            write: None,
            patch: None,
            delete: None,
            free_form: false,
            login: false,
            computes: false,
            names: None,
            role: None,
            root_namespace_only: false,
        }
    }

    /// Declares the fields.
    pub const fn fields(mut self, fields: &'static [Field]) -> Path {
        self.fields = fields;
        self
    }

    /// One line and more lines of help.
    pub const fn help(mut self, synopsis: &'static str, description: &'static str) -> Path {
        self.synopsis = synopsis;
        self.description = description;
        self
    }

    /// Anybody may call it.
    pub const fn public(mut self) -> Path {
        self.access = Access::Public;
        self
    }

    /// Needs sudo.
    pub const fn sudo(mut self) -> Path {
        self.access = Access::Sudo;
        self
    }

    /// A write that asks or computes, and leaves nothing behind for which an older image would answer otherwise than by a
    /// refusal: a standby tries it. What changes something when there is something to change is none.
    pub const fn computes(mut self) -> Path {
        self.computes = true;
        self
    }

    /// Public, and makes tokens.
    pub const fn login(mut self) -> Path {
        self.access = Access::Public;
        self.login = true;
        self
    }

    /// A login that names its user by these fields.
    pub const fn login_of(mut self, names: fn(&Args) -> String) -> Path {
        self.names = Some(names);
        self.login()
    }

    /// Tells the role of a login.
    pub const fn role_of(mut self, role: LoginRole) -> Path {
        self.role = Some(role);
        self
    }

    /// The body is data.
    pub const fn free_form(mut self) -> Path {
        self.free_form = true;
        self
    }

    /// Refused in child namespaces.
    pub const fn root_namespace_only(mut self) -> Path {
        self.root_namespace_only = true;
        self
    }

    /// With an existence check.
    pub const fn exists(mut self, f: ExistsCheck) -> Path {
        self.exists = Some(f);
        self
    }

    /// GET.
    pub const fn read(mut self, f: Handler) -> Path {
        self.read = Some(f);
        self
    }

    /// LIST.
    pub const fn list(mut self, f: Handler) -> Path {
        self.list = Some(f);
        self
    }

    /// SCAN.
    pub const fn scan(mut self, f: Handler) -> Path {
        self.scan = Some(f);
        self
    }

    /// POST and PUT.
    pub const fn write(mut self, f: Handler) -> Path {
        self.write = Some(f);
        self
    }

    /// PATCH.
    pub const fn patch(mut self, f: Handler) -> Path {
        self.patch = Some(f);
        self
    }

    /// DELETE.
    pub const fn delete(mut self, f: Handler) -> Path {
        self.delete = Some(f);
        self
    }

    /// The handler of an operation.
    pub fn handler(&self, op: Operation) -> Option<Handler> {
        match op {
            Operation::Read => self.read,
            Operation::List => self.list,
            Operation::Scan => self.scan,
            Operation::Create | Operation::Update => self.write,
            Operation::Patch => self.patch,
            Operation::Delete => self.delete,
            _ => None,
        }
    }
}

/// All paths of an engine, in the order in which they are tried.
pub struct Table {
    /// The type in the mount table: `kv`, `userpass`.
    pub kind: &'static str,
    /// Secrets engine or auth method.
    pub class: Class,
    /// What `?help=1` on the mount's root tells.
    pub help: &'static str,
    /// The paths.
    pub paths: &'static [Path],
}

/// What a match found: the path and the captured segments.
#[derive(Clone)]
pub struct Matched<'t, 'p> {
    /// The declared path.
    pub path: &'t Path,
    /// Captured names and texts.
    pub captures: Vec<(&'static str, &'p str)>,
}

#[derive(Clone, Debug)]
enum Segment {
    Literal(&'static str),
    Name(&'static str),
    NameAt(&'static str),
    Any(&'static str),
    Rest { name: &'static str, may_be_empty: bool },
}

/// The compiled matcher of a table; built once at registration.
pub struct Matcher {
    rows: Vec<(Vec<Segment>, Slash)>,
}

/// What a pattern says of a slash at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slash {
    No,
    Yes,
    Either,
}

impl Matcher {
    /// Compiles the patterns of a table and checks that each capture is a declared field.
    pub fn new(table: &Table) -> Matcher {
        let rows = table
            .paths
            .iter()
            .map(|p| {
                let (body, slash) = match p.pattern.strip_suffix("/?") {
                    Some(b) => (b, Slash::Either),
                    None => match p.pattern.strip_suffix('/') {
                        Some(b) => (b, Slash::Yes),
                        None => (p.pattern, Slash::No),
                    },
                };
                let segments: Vec<Segment> =
                    if body.is_empty() { Vec::new() } else { body.split('/').map(segment).collect() };
                for s in &segments {
                    if let Some(name) = s.capture() {
                        assert!(
                            p.fields.iter().any(|f| f.name == name),
                            "path {:?} of {}: capture {name:?} is not a declared field",
                            p.pattern,
                            table.kind
                        );
                    }
                }
                (segments, slash)
            })
            .collect();
        Matcher { rows }
    }

    /// The first path that matches.
    pub fn find<'t, 'p>(&self, table: &'t Table, path: &'p str) -> Option<Matched<'t, 'p>> {
        self.rows.iter().zip(table.paths).find_map(|((segments, slash), declared)| {
            let captures = try_match(segments, *slash, path)?;
            Some(Matched { path: declared, captures })
        })
    }
}

impl Segment {
    fn capture(&self) -> Option<&'static str> {
        match self {
            Segment::Literal(_) => None,
            Segment::Name(n) | Segment::NameAt(n) | Segment::Any(n) | Segment::Rest { name: n, .. } => Some(n),
        }
    }
}

fn segment(text: &'static str) -> Segment {
    let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) else {
        return Segment::Literal(text);
    };
    if let Some(name) = inner.strip_suffix("..?") {
        return Segment::Rest { name, may_be_empty: true };
    }
    if let Some(name) = inner.strip_suffix("..") {
        return Segment::Rest { name, may_be_empty: false };
    }
    match inner.split_once(':') {
        Some((name, "any")) => Segment::Any(name),
        Some((name, "at")) => Segment::NameAt(name),
        Some((_, other)) => panic!("unknown capture class {other:?}"),
        None => Segment::Name(inner),
    }
}

fn try_match<'p>(segments: &[Segment], slash: Slash, path: &'p str) -> Option<Vec<(&'static str, &'p str)>> {
    let mut captures = Vec::new();
    let mut rest = Some(path);
    for (i, s) in segments.iter().enumerate() {
        if let Segment::Rest { name, may_be_empty } = s {
            let tail = match rest {
                Some(t) => t,
                None if *may_be_empty => "",
                None => return None,
            };
            if tail.is_empty() && !may_be_empty {
                return None;
            }
            debug_assert_eq!(i + 1, segments.len(), "a rest capture stands last");
            captures.push((*name, tail));
            return Some(captures);
        }
        let here = rest?;
        let (head, tail) = match here.split_once('/') {
            Some((h, t)) => (h, Some(t)),
            None => (here, None),
        };
        match s {
            Segment::Literal(l) if *l == head => {}
            Segment::Name(n) if is_name(head) => captures.push((*n, head)),
            Segment::NameAt(n) if is_name_at(head) => captures.push((*n, head)),
            Segment::Any(n) if !head.is_empty() => captures.push((*n, head)),
            _ => return None,
        }
        rest = tail;
    }
    let fits = match (rest, slash) {
        (None, Slash::No | Slash::Either) => true,
        (Some(""), Slash::Yes | Slash::Either) => true,
        // the empty pattern is the mount's root, written with no slash at all
        (Some(""), Slash::No) => segments.is_empty(),
        _ => false,
    };
    fits.then_some(captures)
}

fn is_name_at(s: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match s.as_bytes() {
        [] => false,
        b => word(b[0]) && word(b[b.len() - 1]) && b.iter().all(|&c| word(c) || matches!(c, b'-' | b'.' | b'@')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static FIELDS: &[Field] = &[Field::str("name", ""), Field::str("path", ""), Field::str("id", "")];
    static TABLE: Table = Table {
        kind: "test",
        class: Class::Secret,
        help: "",
        paths: &[
            Path::new("config"),
            Path::new("roles/?"),
            Path::new("roles/{name}").fields(FIELDS),
            Path::new("roles/{name}/id/{id:any}").fields(FIELDS),
            Path::new("users/{name:at}").fields(FIELDS),
            Path::new("data/{path..}").fields(FIELDS),
            Path::new("metadata/{path..?}").fields(FIELDS),
        ],
    };

    fn find(path: &str) -> Option<(&'static str, Vec<(&'static str, String)>)> {
        let m = Matcher::new(&TABLE);
        let found = m.find(&TABLE, path)?;
        Some((found.path.pattern, found.captures.iter().map(|(n, v)| (*n, (*v).to_owned())).collect()))
    }

    #[test]
    fn patterns_match() {
        assert_eq!(find("config").map(|x| x.0), Some("config"));
        assert_eq!(find("config/"), None);
        assert_eq!(find("roles").map(|x| x.0), Some("roles/?"));
        assert_eq!(find("roles/").map(|x| x.0), Some("roles/?"));
        assert_eq!(find("roles/web"), Some(("roles/{name}", vec![("name", "web".into())])));
        assert_eq!(find("roles/-bad"), None);
        assert_eq!(find("roles/web/id/a b").map(|x| x.1[1].1.clone()), Some("a b".into()));
        assert_eq!(find("users/a@b.c").map(|x| x.0), Some("users/{name:at}"));
        assert_eq!(find("data/a/b/"), Some(("data/{path..}", vec![("path", "a/b/".into())])));
        assert_eq!(find("data/"), None);
        assert_eq!(find("data"), None);
        assert_eq!(find("metadata"), Some(("metadata/{path..?}", vec![("path", String::new())])));
        assert_eq!(find("metadata/"), Some(("metadata/{path..?}", vec![("path", String::new())])));
        assert_eq!(find("nothing"), None);
    }
}
