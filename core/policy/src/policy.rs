//! One policy: its text read into rules, with the refusals that clients know word for word.
//!
//! A policy is parsed when it is written and when it is loaded, never on a request's way. It does not know its
//! namespace: paths are relative and get their prefix when an [`crate::Acl`] is compiled.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ringfence_base::Wall;
use ringfence_base::duration::{SECOND_NS, parse_ns};
use serde_json::Value as Json;

use crate::hcl::{self, Body, HclError, Item, Value};
use crate::template::{Template, TemplateError};

/// A set of capabilities. Bits stand in the alphabetical order that `sys/capabilities` answers in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Capabilities(u16);

impl Capabilities {
    /// None at all.
    pub const NONE: Capabilities = Capabilities(0);
    /// Write what does not exist.
    pub const CREATE: Capabilities = Capabilities(1);
    /// Remove.
    pub const DELETE: Capabilities = Capabilities(1 << 1);
    /// Nothing, whatever else is granted on the path.
    pub const DENY: Capabilities = Capabilities(1 << 2);
    /// List names.
    pub const LIST: Capabilities = Capabilities(1 << 3);
    /// Write some fields.
    pub const PATCH: Capabilities = Capabilities(1 << 4);
    /// Read.
    pub const READ: Capabilities = Capabilities(1 << 5);
    /// Recover from a snapshot.
    pub const RECOVER: Capabilities = Capabilities(1 << 6);
    /// List names at any depth.
    pub const SCAN: Capabilities = Capabilities(1 << 7);
    /// Subscribe to events.
    pub const SUBSCRIBE: Capabilities = Capabilities(1 << 8);
    /// Use a root-protected path, in addition to the operation's own capability.
    pub const SUDO: Capabilities = Capabilities(1 << 9);
    /// Write what exists.
    pub const UPDATE: Capabilities = Capabilities(1 << 10);

    const NAMES: [&'static str; 11] =
        ["create", "delete", "deny", "list", "patch", "read", "recover", "scan", "subscribe", "sudo", "update"];

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Capabilities> {
        Self::NAMES.iter().position(|n| *n == name).map(|i| Capabilities(1 << i))
    }

    /// True if every one of `other` is here.
    pub const fn contains(self, other: Capabilities) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both sets together.
    pub const fn union(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 | other.0)
    }

    /// True if something is granted and nothing denied.
    pub const fn grants_something(self) -> bool {
        !self.is_empty() && !self.contains(Capabilities::DENY)
    }

    /// Names in alphabetical order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().enumerate().filter(move |(i, _)| self.0 & (1 << i) != 0).map(|(_, n)| *n)
    }
}

/// What one rule says besides its path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Permissions {
    /// Granted, or only [`Capabilities::DENY`].
    pub capabilities: Capabilities,
    /// Smallest wrapping time allowed, nanoseconds; zero for none.
    pub min_wrapping_ttl_ns: u64,
    /// Largest wrapping time allowed, nanoseconds; zero for none.
    pub max_wrapping_ttl_ns: u64,
    /// Allowed values by lower-case parameter name; no values mean any. Empty: everything is allowed.
    pub allowed_parameters: BTreeMap<String, Vec<Json>>,
    /// Forbidden values by lower-case parameter name; no values mean every value.
    pub denied_parameters: BTreeMap<String, Vec<Json>>,
    /// Lower-case names that must be present.
    pub required_parameters: Vec<String>,
    /// MFA methods that must pass.
    pub mfa_methods: Vec<String>,
    /// Authorisations that must be given first.
    pub control_group: Option<ControlGroup>,
    /// Event types that `subscribe` is limited to.
    pub subscribe_event_types: Vec<String>,
    /// Most entries of a listing's answer; zero for no limit.
    pub pagination_limit: u64,
    /// A filter for the keys of a listing's answer.
    pub list_scan_response_keys_filter_path: Option<String>,
}

/// Authorisations by others that a request needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ControlGroup {
    /// How long they may take, nanoseconds; zero for the default.
    pub ttl_ns: u64,
    /// False: the requester's own authorisation does not count. `None` where the policy does not say.
    pub self_auth_allowed: Option<bool>,
    /// Every one of them must be met.
    pub factors: Vec<ControlGroupFactor>,
}

/// One authorisation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ControlGroupFactor {
    /// Its name.
    pub name: String,
    /// Capabilities it guards; none means all of the rule's.
    pub controlled_capabilities: Capabilities,
    /// Groups whose members may give it.
    pub group_ids: Vec<String>,
    /// The same by name.
    pub group_names: Vec<String>,
    /// How many members must.
    pub approvals: u32,
}

/// A parsed policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    name: Arc<str>,
    pub(crate) rules: Vec<Rule>,
}

/// One `path` block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    /// Without leading slash and namespace.
    pub path: String,
    pub template: Option<Template>,
    pub permissions: Arc<Permissions>,
    /// From then on the rule is as if it were not there.
    pub expiration: Option<Wall>,
}

/// Why a policy was refused. Its text is what stands after `failed to parse policy: `.
#[derive(Clone, Debug, PartialEq)]
pub enum PolicyError {
    /// Not HCL, nor JSON.
    Syntax(HclError),
    /// Keys that do not exist, with their lines; inside a path's block or at the top.
    UnknownKeys {
        /// The block's path.
        path: Option<String>,
        /// Names and lines.
        keys: Vec<(String, u32)>,
    },
    /// A value of the wrong type.
    BadValue {
        /// The block's path.
        path: String,
        /// The key.
        key: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// A capability that does not exist.
    InvalidCapability {
        /// The block's path.
        path: String,
        /// As written.
        capability: String,
    },
    /// An old-style `policy` that does not exist.
    InvalidPolicy {
        /// The block's path.
        path: String,
        /// As written.
        policy: String,
    },
    /// `+*` in a path.
    ForbiddenWildcard {
        /// The block's path.
        path: String,
    },
    /// A duration that cannot be read.
    BadDuration {
        /// The key, as the text names it.
        key: &'static str,
        /// As written.
        text: String,
    },
    /// `min_wrapping_ttl` above `max_wrapping_ttl`.
    WrappingOrder,
    /// A template that cannot be read.
    Template(TemplateError),
    /// A control group that cannot work.
    ControlGroup(&'static str),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyError::Syntax(e) => e.fmt(f),
            PolicyError::UnknownKeys { path, keys } => {
                let plural = if keys.len() == 1 { "" } else { "s" };
                writeln!(f, "{} error{plural} occurred:", keys.len())?;
                for (key, line) in keys {
                    f.write_str("\t* ")?;
                    if let Some(path) = path {
                        write!(f, "path {path:?}: ")?;
                    }
                    writeln!(f, "invalid key {key:?} on line {line}")?;
                }
                f.write_str("\n")
            }
            PolicyError::BadValue { path, key, expected } => write!(f, "path {path:?}: {key:?} must be {expected}"),
            PolicyError::InvalidCapability { path, capability } => {
                write!(f, "path {path:?}: invalid capability {capability:?}")
            }
            PolicyError::InvalidPolicy { path, policy } => write!(f, "path {path:?}: invalid policy {policy:?}"),
            PolicyError::ForbiddenWildcard { path } => {
                write!(f, "path {path:?}: invalid use of wildcards ('+*' is forbidden)")
            }
            PolicyError::BadDuration { key, text } => {
                write!(f, "error parsing {key}: time: invalid duration {text:?}")
            }
            PolicyError::WrappingOrder => f.write_str("max_wrapping_ttl cannot be less than min_wrapping_ttl"),
            PolicyError::Template(e) => write!(f, "failed to validate policy templating: {e}"),
            PolicyError::ControlGroup(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for PolicyError {}

const TOP_KEYS: &[&str] = &["name", "path"];
const PATH_KEYS: &[&str] = &[
    "allowed_parameters",
    "capabilities",
    "comment",
    "control_group",
    "denied_parameters",
    "expiration",
    "list_scan_response_keys_filter_path",
    "max_wrapping_ttl",
    "mfa_methods",
    "min_wrapping_ttl",
    "pagination_limit",
    "policy",
    "required_parameters",
    "subscribe_event_types",
];

impl Policy {
    /// Parses a policy's text, HCL or JSON.
    pub fn parse(name: &str, text: &str) -> Result<Policy, PolicyError> {
        let body = hcl::parse(text).map_err(PolicyError::Syntax)?;
        refuse_unknown(None, &body, TOP_KEYS)?;
        let blocks = body.blocks("path", 1).map_err(PolicyError::Syntax)?;
        let rules = blocks.iter().map(|b| parse_rule(b.labels[0], b.body)).collect::<Result<_, _>>()?;
        Ok(Policy { name: name.into(), rules })
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// True if a path has a template: what the policy grants then depends on the identity.
    pub fn is_templated(&self) -> bool {
        self.rules.iter().any(|r| r.template.is_some())
    }

    /// How many `path` blocks it has.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }
}

fn refuse_unknown(path: Option<&str>, body: &Body, known: &[&str]) -> Result<(), PolicyError> {
    let keys: Vec<_> = body.unknown(known).map(|i| (i.keys[0].clone(), i.line)).collect();
    if keys.is_empty() { Ok(()) } else { Err(PolicyError::UnknownKeys { path: path.map(str::to_owned), keys }) }
}

fn parse_rule(path: &str, body: &Body) -> Result<Rule, PolicyError> {
    let template = Template::parse(path).map_err(PolicyError::Template)?;
    refuse_unknown(Some(path), body, PATH_KEYS)?;
    let relative = path.strip_prefix('/').unwrap_or(path);
    if relative.contains("+*") {
        return Err(PolicyError::ForbiddenWildcard { path: relative.to_owned() });
    }
    let mut p = Permissions { capabilities: parse_capabilities(path, body)?, ..Permissions::default() };
    let expiration = parse_expiration(path, body)?;
    // a rule that denies is only that: its other keys are not even looked at
    if !p.capabilities.contains(Capabilities::DENY) {
        p.allowed_parameters = parse_parameters(path, body, "allowed_parameters")?;
        p.denied_parameters = parse_parameters(path, body, "denied_parameters")?;
        p.min_wrapping_ttl_ns = parse_duration(body, "min_wrapping_ttl", "min_wrapping_ttl")?;
        p.max_wrapping_ttl_ns = parse_duration(body, "max_wrapping_ttl", "max_wrapping_ttl")?;
        if p.max_wrapping_ttl_ns != 0 && p.max_wrapping_ttl_ns < p.min_wrapping_ttl_ns {
            return Err(PolicyError::WrappingOrder);
        }
        p.required_parameters = parse_strings(path, body, "required_parameters")?;
        p.required_parameters.iter_mut().for_each(|s| *s = s.to_lowercase());
        p.mfa_methods = parse_strings(path, body, "mfa_methods")?;
        p.subscribe_event_types = parse_strings(path, body, "subscribe_event_types")?;
        p.control_group = parse_control_group(path, body, p.capabilities)?;
        p.pagination_limit = parse_count(path, body, "pagination_limit")?;
        p.list_scan_response_keys_filter_path = parse_text(path, body, "list_scan_response_keys_filter_path")?;
    }
    Ok(Rule { path: relative.to_owned(), template, permissions: Arc::new(p), expiration })
}

/// Of `policy` (the old way) and `capabilities` together; repeated keys add up. What stands behind a `deny` is not read.
fn parse_capabilities(path: &str, body: &Body) -> Result<Capabilities, PolicyError> {
    let mut out = Capabilities::NONE;
    if let Some(old) = parse_text(path, body, "policy")? {
        let names: &[&str] = match old.as_str() {
            "" => &[],
            "deny" => return Ok(Capabilities::DENY),
            "read" => &["read", "list"],
            "write" => &["create", "read", "update", "delete", "list"],
            "sudo" => &["create", "read", "update", "delete", "list", "sudo"],
            _ => return Err(PolicyError::InvalidPolicy { path: path.to_owned(), policy: old }),
        };
        out = names.iter().filter_map(|n| Capabilities::from_name(n)).fold(out, Capabilities::union);
    }
    for name in parse_strings(path, body, "capabilities")? {
        match Capabilities::from_name(&name) {
            Some(Capabilities::DENY) => return Ok(Capabilities::DENY),
            Some(c) => out = out.union(c),
            None => return Err(PolicyError::InvalidCapability { path: path.to_owned(), capability: name }),
        }
    }
    Ok(out)
}

/// The strings of every list of this name; numbers and booleans count as their text.
fn parse_strings(path: &str, body: &Body, key: &'static str) -> Result<Vec<String>, PolicyError> {
    let bad = || PolicyError::BadValue { path: path.to_owned(), key, expected: "a list of strings" };
    let mut out = Vec::new();
    for item in body.named(key) {
        let list = plain(item).and_then(Value::as_list).ok_or_else(bad)?;
        for element in list {
            out.push(element.scalar().ok_or_else(bad)?.to_owned());
        }
    }
    Ok(out)
}

fn parse_text(path: &str, body: &Body, key: &'static str) -> Result<Option<String>, PolicyError> {
    let Some(item) = body.named(key).last() else { return Ok(None) };
    match plain(item).and_then(Value::scalar) {
        Some(s) => Ok(Some(s.to_owned())),
        None => Err(PolicyError::BadValue { path: path.to_owned(), key, expected: "a string" }),
    }
}

fn parse_count(path: &str, body: &Body, key: &'static str) -> Result<u64, PolicyError> {
    let Some(item) = body.named(key).last() else { return Ok(0) };
    plain(item).and_then(Value::as_i64).and_then(|n| u64::try_from(n).ok()).ok_or_else(|| PolicyError::BadValue {
        path: path.to_owned(),
        key,
        expected: "a whole number",
    })
}

fn parse_expiration(path: &str, body: &Body) -> Result<Option<Wall>, PolicyError> {
    let bad = || PolicyError::BadValue { path: path.to_owned(), key: "expiration", expected: "an RFC 3339 time" };
    match parse_text(path, body, "expiration")? {
        Some(text) => Wall::parse_rfc3339(&text).map(Some).ok_or_else(bad),
        None => Ok(None),
    }
}

fn parse_duration(body: &Body, key: &str, shown: &'static str) -> Result<u64, PolicyError> {
    let Some(item) = body.named(key).last() else { return Ok(0) };
    let text = plain(item).and_then(Value::scalar).unwrap_or_default();
    parse_ns(text)
        .and_then(|ns| u64::try_from(ns).ok())
        .ok_or_else(|| PolicyError::BadDuration { key: shown, text: text.to_owned() })
}

/// The value of an item without labels.
fn plain(item: &Item) -> Option<&Value> {
    (item.keys.len() == 1).then_some(&item.value)
}

/// `{ name = [values] }`, names lower-cased. Several blocks, or spellings of one name, are merged.
fn parse_parameters(path: &str, body: &Body, key: &'static str) -> Result<BTreeMap<String, Vec<Json>>, PolicyError> {
    let bad = || PolicyError::BadValue { path: path.to_owned(), key, expected: "a map of lists" };
    let mut out = BTreeMap::new();
    let blocks = body.blocks(key, 0).map_err(|_| bad())?;
    for item in blocks.iter().flat_map(|b| &b.body.items) {
        let list = plain(item).and_then(Value::as_list).ok_or_else(bad)?;
        let values: Vec<Json> = list.iter().map(to_json).collect();
        merge_values(&mut out, &item.keys[0].to_lowercase(), &values);
    }
    Ok(out)
}

/// No values on either side mean any value; otherwise the values add up.
pub(crate) fn merge_values(into: &mut BTreeMap<String, Vec<Json>>, name: &str, values: &[Json]) {
    match into.get_mut(name) {
        None => {
            into.insert(name.to_owned(), values.to_vec());
        }
        Some(old) if old.is_empty() || values.is_empty() => old.clear(),
        Some(old) => old.extend(values.iter().filter(|v| !old.contains(v)).cloned().collect::<Vec<_>>()),
    }
}

fn to_json(v: &Value) -> Json {
    match v {
        Value::String(s) => Json::String(s.clone()),
        Value::Number(n) => serde_json::from_str(n).unwrap_or_else(|_| Json::String(n.clone())),
        Value::Bool(b) => Json::Bool(*b),
        Value::List(l) => Json::Array(l.iter().map(to_json).collect()),
        Value::Object(b) => Json::Object(b.items.iter().map(|i| (i.keys.join("."), to_json(&i.value))).collect()),
    }
}

fn parse_control_group(path: &str, body: &Body, granted: Capabilities) -> Result<Option<ControlGroup>, PolicyError> {
    let bad = || PolicyError::BadValue { path: path.to_owned(), key: "control_group", expected: "a block" };
    let blocks = body.blocks("control_group", 0).map_err(|_| bad())?;
    let Some(block) = blocks.last() else { return Ok(None) };
    let mut out = ControlGroup {
        ttl_ns: parse_duration(block.body, "ttl", "control group max ttl")?,
        self_auth_allowed: block.body.attribute("self_auth_allowed").and_then(Value::as_bool),
        factors: Vec::new(),
    };
    for factor in block.body.blocks("factor", 1).map_err(|_| bad())? {
        out.factors.push(parse_factor(path, factor.labels[0], factor.body, granted)?);
    }
    if out.factors.is_empty() {
        return Err(PolicyError::ControlGroup("no control group factors provided"));
    }
    Ok(Some(out))
}

fn parse_factor(
    path: &str,
    name: &str,
    body: &Body,
    granted: Capabilities,
) -> Result<ControlGroupFactor, PolicyError> {
    let missing = PolicyError::ControlGroup("no control_group factor provided");
    let identities = body.blocks("identity", 0).map_err(|_| missing.clone())?;
    let identity = identities.last().ok_or(missing)?.body;
    let mut out = ControlGroupFactor {
        name: name.to_owned(),
        controlled_capabilities: Capabilities::NONE,
        group_ids: parse_strings(path, identity, "group_ids")?,
        group_names: parse_strings(path, identity, "group_names")?,
        approvals: u32::try_from(parse_count(path, identity, "approvals")?).unwrap_or(u32::MAX),
    };
    if out.approvals == 0 || out.group_ids.is_empty() && out.group_names.is_empty() {
        return Err(PolicyError::ControlGroup("must provide more than one identity group and approvals > 0"));
    }
    for capability in parse_strings(path, body, "controlled_capabilities")? {
        match Capabilities::from_name(&capability).filter(|c| granted.contains(*c)) {
            Some(c) => out.controlled_capabilities = out.controlled_capabilities.union(c),
            None => {
                return Err(PolicyError::ControlGroup(
                    "control group factor capabilities must be a subset of the policy's capabilities",
                ));
            }
        }
    }
    Ok(out)
}

impl ControlGroup {
    /// The factors that guard an operation needing this capability.
    pub fn factors_for(&self, capability: Capabilities) -> impl Iterator<Item = &ControlGroupFactor> {
        self.factors
            .iter()
            .filter(move |f| f.controlled_capabilities.is_empty() || f.controlled_capabilities.contains(capability))
    }
}

impl Permissions {
    /// Smallest wrapping time in whole seconds.
    pub fn min_wrapping_ttl_seconds(&self) -> u64 {
        self.min_wrapping_ttl_ns / SECOND_NS
    }

    /// Largest wrapping time in whole seconds.
    pub fn max_wrapping_ttl_seconds(&self) -> u64 {
        self.max_wrapping_ttl_ns / SECOND_NS
    }
}
