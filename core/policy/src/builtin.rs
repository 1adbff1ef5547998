//! Policies every server has.
//!
//! `root` has no text. `default` may be edited, the internal ones are neither shown nor edited.

/// Grants everything; the only policy of its token.
pub const ROOT: &str = "root";
/// Given to tokens unless they say otherwise.
pub const DEFAULT: &str = "default";
/// Of wrapping tokens.
pub const RESPONSE_WRAPPING: &str = "response-wrapping";
/// Of tokens that wait for authorisations.
pub const CONTROL_GROUP: &str = "control-group";

/// The text `default` has until someone edits it.
pub const DEFAULT_TEXT: &str = r#"# What every token may do: look after itself, and no more.

# its own token
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}

# what it may do on a path
path "sys/capabilities-self" {
  capabilities = ["update"]
}

path "sys/internal/ui/resultant-acl" {
  capabilities = ["read"]
}

# its own entity
path "identity/entity/id/{{identity.entity.id}}" {
  capabilities = ["read"]
}

path "identity/entity/name/{{identity.entity.name}}" {
  capabilities = ["read"]
}

# leases whose id it knows; the first path is the older spelling of the second
path "sys/renew" {
  capabilities = ["update"]
}

path "sys/leases/renew" {
  capabilities = ["update"]
}

path "sys/leases/lookup" {
  capabilities = ["update"]
}

# its private storage
path "cubbyhole/*" {
  capabilities = ["create", "read", "update", "delete", "list"]
}

# response wrapping
path "sys/wrapping/wrap" {
  capabilities = ["update"]
}

path "sys/wrapping/lookup" {
  capabilities = ["update"]
}

path "sys/wrapping/unwrap" {
  capabilities = ["update"]
}

# hashing of data it brings along
path "sys/tools/hash" {
  capabilities = ["update"]
}

path "sys/tools/hash/*" {
  capabilities = ["update"]
}

# the state of an authorisation whose accessor it knows
path "sys/control-group/request" {
  capabilities = ["update"]
}

# signing in to applications with its entity
path "identity/oidc/provider/+/authorize" {
  capabilities = ["read", "update"]
}
"#;

/// Opens one wrapped response.
pub const RESPONSE_WRAPPING_TEXT: &str = r#"path "cubbyhole/response" {
  capabilities = ["create", "read"]
}

path "sys/wrapping/unwrap" {
  capabilities = ["update"]
}
"#;

/// Holds a request that waits for authorisations, and opens its response.
pub const CONTROL_GROUP_TEXT: &str = r#"path "cubbyhole/control-group" {
  capabilities = ["create", "read", "update", "delete", "list"]
}

path "sys/wrapping/unwrap" {
  capabilities = ["update"]
}
"#;

/// The text of a built-in policy other than `root`.
pub fn text(name: &str) -> Option<&'static str> {
    match name {
        DEFAULT => Some(DEFAULT_TEXT),
        RESPONSE_WRAPPING => Some(RESPONSE_WRAPPING_TEXT),
        CONTROL_GROUP => Some(CONTROL_GROUP_TEXT),
        _ => None,
    }
}

/// True for policies that listings leave out and no token may be given.
pub fn is_internal(name: &str) -> bool {
    matches!(name, RESPONSE_WRAPPING | CONTROL_GROUP)
}

/// `None` if a policy of this (canonical) name may be written.
pub fn refuse_update(name: &str) -> Option<String> {
    (name == ROOT || is_internal(name)).then(|| format!("cannot update {name:?} policy"))
}

/// `None` if a policy of this (canonical) name may be deleted.
pub fn refuse_delete(name: &str) -> Option<String> {
    (name == ROOT || name == DEFAULT || is_internal(name)).then(|| format!("cannot delete {name:?} policy"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    #[test]
    fn texts_parse() {
        for name in [DEFAULT, RESPONSE_WRAPPING, CONTROL_GROUP] {
            let text = text(name).expect("has a text");
            let policy = Policy::parse(name, text).expect("parses");
            assert_eq!(policy.is_templated(), name == DEFAULT);
            assert_eq!(crate::hcl::format(text).expect("formats"), text, "{name} is in the canonical form");
        }
        assert!(DEFAULT_TEXT.contains("auth/token/lookup-self"));
        assert_eq!(text(ROOT), None);
    }

    #[test]
    fn refusals() {
        assert_eq!(refuse_update("root").as_deref(), Some("cannot update \"root\" policy"));
        assert_eq!(refuse_update("response-wrapping").as_deref(), Some("cannot update \"response-wrapping\" policy"));
        assert_eq!(refuse_update("default"), None);
        assert_eq!(refuse_delete("default").as_deref(), Some("cannot delete \"default\" policy"));
        assert_eq!(refuse_delete("root").as_deref(), Some("cannot delete \"root\" policy"));
        assert_eq!(refuse_delete("mine"), None);
        assert_eq!(refuse_update("mine"), None);
    }
}
