//! Token roles: named rules for `auth/token/create/:role_name`. One record per role.

use super::paths::{NAME, POLICY_HELP};
use crate::tables;
use ringfence_barrier::Txn;
use ringfence_base::{NsId, path::is_name};
use ringfence_logical::field::Preset;
use ringfence_logical::{Args, Cx, Error, Field, Kind, Map, Outcome, Path, Response, TokenType, cx, nothing};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// One role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Role {
    /// Only these may be asked for, if not empty.
    pub allowed_policies: Vec<String>,
    /// Also those that match one of these.
    pub allowed_policies_glob: Vec<String>,
    /// Never these.
    pub disallowed_policies: Vec<String>,
    /// Never what matches one of these.
    pub disallowed_policies_glob: Vec<String>,
    /// Entity aliases that may be asked for; lower case, globs.
    pub allowed_entity_aliases: Vec<String>,
    /// Its tokens have no parent.
    pub orphan: bool,
    /// Its tokens may be renewed.
    pub renewable: bool,
    /// Added to the path of its tokens.
    pub path_suffix: String,
    /// Seconds; 0 = not periodic.
    pub period: u64,
    /// Seconds; 0 = none.
    pub explicit_max_ttl: u64,
    /// Where its tokens may be used from.
    pub bound_cidrs: Vec<String>,
    /// No `default` policy.
    pub no_default_policy: bool,
    /// Uses of its tokens; 0 = unlimited.
    pub num_uses: u64,
    /// What its tokens are.
    pub token_type: TokenType,
}

impl Default for Role {
    fn default() -> Role {
        Role {
            allowed_policies: Vec::new(),
            allowed_policies_glob: Vec::new(),
            disallowed_policies: Vec::new(),
            disallowed_policies_glob: Vec::new(),
            allowed_entity_aliases: Vec::new(),
            orphan: false,
            renewable: true,
            path_suffix: String::new(),
            period: 0,
            explicit_max_ttl: 0,
            bound_cidrs: Vec::new(),
            no_default_policy: false,
            num_uses: 0,
            token_type: TokenType::DefaultService,
        }
    }
}

impl Role {
    /// True if the role says anything of policies.
    pub fn rules_policies(&self) -> bool {
        !(self.allowed_policies.is_empty()
            && self.allowed_policies_glob.is_empty()
            && self.disallowed_policies.is_empty()
            && self.disallowed_policies_glob.is_empty())
    }

    /// True if the role forbids a policy.
    pub fn disallows(&self, policy: &str) -> bool {
        self.disallowed_policies.iter().any(|p| p == policy)
            || self.disallowed_policies_glob.iter().any(|g| glob(g, policy))
    }

    /// True for tokens that a batch token cannot be.
    fn batch_fault(&self) -> Option<&'static str> {
        if !self.orphan {
            return Some("non-orphan tokens");
        }
        if self.period > 0 {
            return Some("periodic tokens");
        }
        if self.renewable {
            return Some("renewable tokens");
        }
        (self.explicit_max_ttl > 0).then_some("tokens with an explicit max TTL")
    }
}

/// Matches `*` at the start and at the end of a pattern.
pub fn glob(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => true,
        (Some(_), Some(_)) => text.contains(&pattern[1..pattern.len() - 1]),
        (Some(tail), None) => text.ends_with(tail),
        (None, Some(head)) => text.starts_with(head),
        (None, None) => pattern == text,
    }
}

/// Reads a role.
pub fn load(txn: &mut Txn<'_>, ns: NsId, name: &str) -> Result<Option<Role>, Error> {
    match txn.get(&tables::token_role(ns, name))? {
        None => Ok(None),
        Some(p) => {
            serde_json::from_slice(&p.bytes).map(Some).map_err(|e| Error::internal(format!("stored token role: {e}")))
        }
    }
}

const FIELDS: &[Field] = &[
    NAME,
    Field::list("allowed_policies", POLICY_HELP),
    Field::list("allowed_policies_glob", "Patterns of further policies that may be asked for."),
    Field::list("disallowed_policies", "Policies that no token of the role gets."),
    Field::list("disallowed_policies_glob", "Patterns of policies that no token of the role gets."),
    Field::list("allowed_entity_aliases", "Entity aliases that may be asked for; a star matches any rest."),
    Field::bool("orphan", "Tokens of the role have no parent."),
    Field::bool("renewable", "Tokens of the role may be renewed.").preset(Preset::Bool(true)),
    Field::str("path_suffix", "Added to the path of the role's tokens, so that they can be revoked together."),
    Field::seconds("token_period", "Makes the tokens periodic: each renewal gives this time again."),
    Field::seconds("period", "Old name of token_period.").deprecated(),
    Field::seconds("token_explicit_max_ttl", "Longest life of a token, whatever its renewals."),
    Field::seconds("explicit_max_ttl", "Old name of token_explicit_max_ttl.").deprecated(),
    Field::list("token_bound_cidrs", "Address ranges that the tokens may be used from."),
    Field::list("bound_cidrs", "Old name of token_bound_cidrs.").deprecated(),
    Field::bool("token_no_default_policy", "Do not add the policy named default."),
    Field::int("token_num_uses", "How often a token may be used; 0 is without limit."),
    Field::new("token_type", Kind::Str, "service, batch, default-service or default-batch."),
];

/// The paths of roles.
pub const LIST: Path = Path::new("roles/?").help("Names of the token roles.", "").list(list);
/// One role.
pub const ONE: Path = Path::new("roles/{role_name:any}")
    .fields(FIELDS)
    .help("A named set of rules for the creation of tokens.", "")
    .exists(exists)
    .read(read)
    .write(write)
    .delete(delete);

fn list(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let prefix = tables::token_role(cx.mount.ns, "");
    let keys = cx.txn.list(&prefix, None, usize::MAX);
    Response::keys(keys.iter().map(|k| String::from_utf8_lossy(&k[prefix.len()..]).into_owned()).collect()).done()
}

fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    Ok(load(cx.txn, cx.mount.ns, args.str("role_name"))?.is_some())
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("role_name");
    let Some(role) = load(cx.txn, cx.mount.ns, name)? else { return nothing() };
    let mut data = json!({
        "name": name,
        "allowed_policies": role.allowed_policies,
        "allowed_policies_glob": role.allowed_policies_glob,
        "disallowed_policies": role.disallowed_policies,
        "disallowed_policies_glob": role.disallowed_policies_glob,
        "allowed_entity_aliases": role.allowed_entity_aliases,
        "orphan": role.orphan,
        "renewable": role.renewable,
        "path_suffix": role.path_suffix,
        "period": role.period,
        "token_period": role.period,
        "explicit_max_ttl": role.explicit_max_ttl,
        "token_explicit_max_ttl": role.explicit_max_ttl,
        "token_no_default_policy": role.no_default_policy,
        "token_type": role.token_type.as_str(),
    });
    if let Some(map) = data.as_object_mut() {
        if !role.bound_cidrs.is_empty() {
            map.insert("token_bound_cidrs".into(), json!(role.bound_cidrs));
            map.insert("bound_cidrs".into(), json!(role.bound_cidrs));
        }
        if role.num_uses > 0 {
            map.insert("token_num_uses".into(), role.num_uses.into());
        }
    }
    Response::json(data).done()
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("role_name");
    if name.is_empty() {
        return Err(Error::invalid("role name cannot be empty"));
    }
    let mut role = load(cx.txn, cx.mount.ns, name)?.unwrap_or_default();
    let warnings = apply(&mut role, args)?;
    if role.token_type == TokenType::Batch
        && let Some(fault) = role.batch_fault()
    {
        return Err(Error::invalid(format!("'token_type' cannot be 'batch' when role is set to generate {fault}")));
    }
    if role.period > cx.mount.max_ttl {
        let text =
            "Given period is greater than the maximum lease time of the mount; it will be cut when a token is made.";
        return save(cx, name, &role, [warnings, vec![text.into()]].concat());
    }
    save(cx, name, &role, warnings)
}

fn save(cx: &mut Cx<'_, '_>, name: &str, role: &Role, warnings: Vec<String>) -> Outcome {
    let bytes = serde_json::to_vec(role).expect("a token role always serialises");
    cx.txn.put(tables::token_role(cx.mount.ns, name), &[], &bytes);
    if warnings.is_empty() {
        return nothing();
    }
    Response { data: Some(ringfence_logical::Data::Map(Map::new())), warnings, ..Response::default() }.done()
}

/// Takes over what was supplied. A field under its old and its new name: the new one counts.
fn apply(role: &mut Role, args: &Args) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    let policies = |name: &str| args.opt_list(name).map(|l| super::sanitize(&l));
    if let Some(l) = policies("allowed_policies") {
        role.allowed_policies = l;
    }
    if let Some(l) = policies("allowed_policies_glob") {
        role.allowed_policies_glob = l;
    }
    if let Some(l) = policies("disallowed_policies") {
        role.disallowed_policies = l;
    }
    if let Some(l) = policies("disallowed_policies_glob") {
        role.disallowed_policies_glob = l;
    }
    if let Some(l) = args.opt_list("allowed_entity_aliases") {
        role.allowed_entity_aliases = l.iter().map(|a| a.to_lowercase()).collect();
    }
    if let Some(b) = args.opt_bool("orphan") {
        role.orphan = b;
    }
    if let Some(b) = args.opt_bool("renewable") {
        role.renewable = b;
    }
    if let Some(s) = args.opt_str("path_suffix") {
        if !s.is_empty() && !is_suffix(s) {
            return Err(Error::invalid(
                "given role path suffix contains invalid characters; must match \\w[\\w-]+\\w",
            ));
        }
        role.path_suffix = s.to_owned();
    }
    let mut seconds = |new: &str, old: &str| {
        if args.supplied(new) && args.supplied(old) {
            warnings
                .push(format!("Both '{new}' and deprecated '{old}' value supplied, ignoring the deprecated value"));
        }
        args.opt_seconds(new).or(args.opt_seconds(old))
    };
    if let Some(s) = seconds("token_period", "period") {
        role.period = s;
    }
    if let Some(s) = seconds("token_explicit_max_ttl", "explicit_max_ttl") {
        role.explicit_max_ttl = s;
    }
    if let Some(l) = args.opt_list("token_bound_cidrs").or(args.opt_list("bound_cidrs")) {
        if let Some(bad) = l.iter().find(|c| !cx::is_cidr(c)) {
            return Err(Error::invalid(format!("error parsing address {bad:?}: not an address or CIDR block")));
        }
        role.bound_cidrs = l;
    }
    if let Some(b) = args.opt_bool("token_no_default_policy") {
        role.no_default_policy = b;
    }
    if let Some(n) = args.opt_int("token_num_uses") {
        role.num_uses = u64::try_from(n).map_err(|_| Error::invalid("'token_num_uses' cannot be negative"))?;
    }
    if let Some(t) = args.opt_str("token_type") {
        role.token_type = match TokenType::parse(t) {
            Some(TokenType::Default) => TokenType::DefaultService,
            Some(kind) => kind,
            None => return Err(Error::invalid(format!("invalid 'token_type' value {t:?}"))),
        };
    }
    Ok(warnings)
}

/// `\w[\w-]+\w`.
fn is_suffix(s: &str) -> bool {
    s.len() >= 3 && is_name(s) && !s.contains('.')
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    cx.txn.delete(&tables::token_role(cx.mount.ns, args.str("role_name")));
    nothing()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, fits) in [
            ("dev-*", "dev-a", true),
            ("dev-*", "dev-", true),
            ("dev-*", "adev-", false),
            ("*-ro", "db-ro", true),
            ("*mid*", "a-mid-b", true),
            ("*", "", true),
            ("a", "a", true),
            ("a", "ab", false),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn suffixes() {
        assert!(is_suffix("a-b") && is_suffix("a_b") && !is_suffix("ab") && !is_suffix("-ab") && !is_suffix("a.b"));
    }
}
