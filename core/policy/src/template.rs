//! Identity in a rule's path: `secret/{{identity.entity.name}}/*`.
//!
//! Templates are taken apart when the policy is written and filled in when an [`crate::Acl`] is compiled for someone. A
//! path whose template has no value is left out, silently. A value may never change what the path *means*: one that
//! holds a wildcard, a separator or a template's own characters leaves the path out as well (GHSA-59w7).

use std::borrow::Cow;
use std::fmt;

/// A field of an entity, alias or group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// Its id.
    Id,
    /// Its name.
    Name,
    /// A metadata value by key.
    Metadata(&'a str),
    /// A custom metadata value by key; only aliases have them.
    CustomMetadata(&'a str),
}

/// How a group is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKey<'a> {
    /// By id.
    Id(&'a str),
    /// By name, within the policy's own namespace.
    Name(&'a str),
}

/// The identity of whoever an [`crate::Acl`] is compiled for. `None` means there is no such value.
pub trait TemplateSource {
    /// A field of the entity.
    fn entity(&self, field: Field<'_>) -> Option<Cow<'_, str>>;
    /// A field of the entity's alias on the mount with this accessor.
    fn alias(&self, mount_accessor: &str, field: Field<'_>) -> Option<Cow<'_, str>>;
    /// A field of a group the entity is in, directly or by inheritance. `namespace` is that of the policy, as path.
    fn group(&self, namespace: &str, key: GroupKey<'_>, field: Field<'_>) -> Option<Cow<'_, str>>;
}

/// The braces of a template do not pair up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateError;

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unbalanced templating characters")
    }
}

impl std::error::Error for TemplateError {}

/// A path with at least one directive, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Entity(OwnedField),
    Alias {
        mount_accessor: String,
        field: OwnedField,
    },
    Group {
        by_id: bool,
        key: String,
        field: OwnedField,
    },
    /// A directive that names nothing we know. It is accepted when written and never has a value.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum OwnedField {
    Id,
    Name,
    Metadata(String),
    CustomMetadata(String),
}

/// Characters that would give a value a meaning of its own in a path.
const FORBIDDEN: [char; 6] = ['+', '*', '/', ',', '{', '}'];

impl Template {
    /// `None` if the text has no directive.
    pub fn parse(text: &str) -> Result<Option<Template>, TemplateError> {
        let mut parts = text.split("{{");
        let head = parts.next().unwrap_or_default();
        if head.contains("}}") {
            return Err(TemplateError);
        }
        let mut pieces = vec![Piece::Text(head.to_owned())];
        for part in parts {
            let (directive, tail) = part.split_once("}}").ok_or(TemplateError)?;
            if tail.contains("}}") {
                return Err(TemplateError);
            }
            pieces.push(parse_directive(directive.trim()).unwrap_or(Piece::Unknown));
            pieces.push(Piece::Text(tail.to_owned()));
        }
        Ok((pieces.len() > 1).then_some(Template { pieces }))
    }

    /// The path for this identity; `None` if a directive has no value, or one that may not stand in a path.
    pub fn fill(&self, namespace: &str, source: &dyn TemplateSource) -> Option<String> {
        let mut out = String::new();
        for piece in &self.pieces {
            let value = match piece {
                Piece::Text(t) => {
                    out.push_str(t);
                    continue;
                }
                Piece::Entity(field) => source.entity(field.borrow()),
                Piece::Alias { mount_accessor, field } => source.alias(mount_accessor, field.borrow()),
                Piece::Group { by_id, key, field } => {
                    let key = if *by_id { GroupKey::Id(key) } else { GroupKey::Name(key) };
                    source.group(namespace, key, field.borrow())
                }
                Piece::Unknown => None,
            }?;
            if value.is_empty() || value.contains(FORBIDDEN) {
                return None;
            }
            out.push_str(&value);
        }
        Some(out)
    }
}

impl OwnedField {
    fn borrow(&self) -> Field<'_> {
        match self {
            OwnedField::Id => Field::Id,
            OwnedField::Name => Field::Name,
            OwnedField::Metadata(k) => Field::Metadata(k),
            OwnedField::CustomMetadata(k) => Field::CustomMetadata(k),
        }
    }
}

fn parse_directive(text: &str) -> Option<Piece> {
    if let Some(rest) = text.strip_prefix("identity.entity.") {
        if let Some(rest) = rest.strip_prefix("aliases.") {
            let (accessor, field) = rest.split_once('.')?;
            let field = parse_field(field, true)?;
            return Some(Piece::Alias { mount_accessor: accessor.to_owned(), field });
        }
        return Some(Piece::Entity(parse_field(rest, false)?));
    }
    let rest = text.strip_prefix("identity.groups.")?;
    let (by_id, rest) = match rest.split_once('.')? {
        ("ids", rest) => (true, rest),
        ("names", rest) => (false, rest),
        _ => return None,
    };
    let (key, field) = rest.split_once('.')?;
    Some(Piece::Group { by_id, key: key.to_owned(), field: parse_field(field, false)? })
}

fn parse_field(text: &str, of_alias: bool) -> Option<OwnedField> {
    match text {
        "id" => Some(OwnedField::Id),
        "name" => Some(OwnedField::Name),
        _ => {
            if let Some(key) = text.strip_prefix("metadata.") {
                return Some(OwnedField::Metadata(key.to_owned()));
            }
            let key = text.strip_prefix("custom_metadata.")?;
            of_alias.then(|| OwnedField::CustomMetadata(key.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// alice, with an alias on `auth_jwt_1` and in the group `ops` of the root namespace.
    struct Alice {
        name: &'static str,
    }

    impl TemplateSource for Alice {
        fn entity(&self, field: Field<'_>) -> Option<Cow<'_, str>> {
            Some(Cow::Borrowed(match field {
                Field::Id => "e-1",
                Field::Name => self.name,
                Field::Metadata("team") => "blue",
                Field::Metadata("a.b") => "dotted",
                Field::Metadata("empty") => "",
                _ => return None,
            }))
        }

        fn alias(&self, mount_accessor: &str, field: Field<'_>) -> Option<Cow<'_, str>> {
            (mount_accessor == "auth_jwt_1").then_some(())?;
            Some(Cow::Borrowed(match field {
                Field::Id => "a-1",
                Field::Name => "alice@jwt",
                Field::Metadata("org") => "acme",
                Field::CustomMetadata("cost") => "42",
                _ => return None,
            }))
        }

        fn group(&self, namespace: &str, key: GroupKey<'_>, field: Field<'_>) -> Option<Cow<'_, str>> {
            match key {
                GroupKey::Id("g-1") => {}
                GroupKey::Name("ops") if namespace.is_empty() => {}
                _ => return None,
            }
            Some(Cow::Borrowed(match field {
                Field::Id => "g-1",
                Field::Name => "ops",
                Field::Metadata("floor") => "3",
                _ => return None,
            }))
        }
    }

    fn fill(text: &str) -> Option<String> {
        fill_in("", text)
    }

    fn fill_in(namespace: &str, text: &str) -> Option<String> {
        let t = Template::parse(text).expect("balanced").expect("has a directive");
        t.fill(namespace, &Alice { name: "alice" })
    }

    #[test]
    fn every_selector() {
        for (selector, value) in [
            ("identity.entity.id", "e-1"),
            ("identity.entity.name", "alice"),
            ("identity.entity.metadata.team", "blue"),
            ("identity.entity.metadata.a.b", "dotted"),
            ("identity.entity.aliases.auth_jwt_1.id", "a-1"),
            ("identity.entity.aliases.auth_jwt_1.name", "alice@jwt"),
            ("identity.entity.aliases.auth_jwt_1.metadata.org", "acme"),
            ("identity.entity.aliases.auth_jwt_1.custom_metadata.cost", "42"),
            ("identity.groups.ids.g-1.name", "ops"),
            ("identity.groups.ids.g-1.metadata.floor", "3"),
            ("identity.groups.names.ops.id", "g-1"),
            ("identity.groups.names.ops.metadata.floor", "3"),
        ] {
            assert_eq!(
                fill(&format!("a/{{{{{selector}}}}}/b")).as_deref(),
                Some(&*format!("a/{value}/b")),
                "{selector}"
            );
            assert_eq!(
                fill(&format!("{{{{  {selector} }}}}*")).as_deref(),
                Some(&*format!("{value}*")),
                "{selector}"
            );
        }
        let two = fill("{{identity.entity.id}}-{{ identity.entity.name }}");
        assert_eq!(two.as_deref(), Some("e-1-alice"));
    }

    #[test]
    fn what_has_no_value() {
        for selector in [
            "",
            "identity",
            "identity.entity",
            "identity.entity.",
            "identity.entity.metadata",
            "identity.entity.metadata.nope",
            "identity.entity.metadata.empty",
            "identity.entity.custom_metadata.cost",
            "identity.entity.aliases.auth_jwt_1",
            "identity.entity.aliases.other.name",
            "identity.groups.names",
            "identity.groups.names.ops",
            "identity.groups.names.dev.id",
            "identity.groups.other.ops.id",
            "time.now",
            "name",
        ] {
            assert_eq!(fill(&format!("a/{{{{{selector}}}}}")), None, "{selector}");
        }
        // a group is looked up by name in the policy's own namespace only
        assert_eq!(fill_in("ns1/", "{{identity.groups.names.ops.id}}"), None);
        assert_eq!(fill_in("ns1/", "{{identity.groups.ids.g-1.name}}").as_deref(), Some("ops"));
    }

    #[test]
    fn braces_must_pair() {
        for bad in ["a}}b", "{{a", "{{a}}b}}", "{{a{{b}}", "{{{{a}}}}", "}}{{"] {
            assert_eq!(Template::parse(bad), Err(TemplateError), "{bad}");
        }
        for plain in ["", "a/b", "a/{b}", "a/}b{"] {
            assert_eq!(Template::parse(plain), Ok(None), "{plain}");
        }
    }

    /// GHSA-59w7: an entity that may choose its own name took `*` or `../other` and the filled path matched paths of
    /// others.
    #[test]
    fn ghsa_59w7_hostile_names_leave_the_path_out() {
        let t = Template::parse("secret/{{identity.entity.name}}/*").expect("balanced").expect("has a directive");
        for name in ["*", "a*", "+", "a/b", "../b", "a,b", "{{identity.entity.id}}", "a}", "{", "", "/"] {
            assert_eq!(t.fill("", &Alice { name: Box::leak(name.to_owned().into_boxed_str()) }), None, "{name:?}");
        }
        assert_eq!(t.fill("", &Alice { name: "a-b c" }).as_deref(), Some("secret/a-b c/*"));
    }
}
