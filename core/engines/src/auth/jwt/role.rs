//! Roles: what a token must say, and what of it becomes the identity.

use crate::jose::Leeways;
use crate::page;
use crate::tokenutil::TokenParams;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Area of the roles.
const ROLES: u8 = b'r';
/// How often a client of a direct callback should ask, unless its role says otherwise. Seconds. Source: OpenBao's
/// documented default.
const POLL_S: u64 = 5;

/// A role.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Role {
    /// `oidc` or `jwt`.
    pub role_type: String,
    pub user_claim: String,
    /// `user_claim` is an RFC 6901 pointer.
    pub user_claim_json_pointer: bool,
    pub bound_audiences: Vec<String>,
    pub bound_subject: String,
    pub bound_claims: Map,
    /// `string` or `glob`.
    pub bound_claims_type: String,
    pub groups_claim: String,
    /// Claim to metadata key.
    pub claim_mappings: BTreeMap<String, String>,
    /// Seconds; see [`Leeways`].
    pub clock_skew_leeway: i64,
    pub expiration_leeway: i64,
    pub not_before_leeway: i64,
    pub allowed_redirect_uris: Vec<String>,
    pub oidc_scopes: Vec<String>,
    /// Kept and read back; claims are never logged here.
    pub verbose_oidc_logging: bool,
    /// Seconds since the user last authenticated at the provider; 0 = any.
    pub max_age: u64,
    /// `client` (also empty): the browser comes back to the client; `direct`: to us, and the client polls.
    pub callback_mode: String,
    /// Seconds between two polls of a client; 0 = [`POLL_S`].
    pub poll_interval: u64,
    pub token: TokenParams,
}

impl Role {
    pub fn leeways(&self) -> Leeways {
        Leeways {
            clock_skew: self.clock_skew_leeway,
            expiration: self.expiration_leeway,
            not_before: self.not_before_leeway,
        }
    }

    /// True if the provider sends the browser back to us.
    pub fn is_direct(&self) -> bool {
        self.callback_mode == "direct"
    }

    /// Seconds between two polls of a client.
    pub fn poll_seconds(&self) -> u64 {
        if self.poll_interval == 0 { POLL_S } else { self.poll_interval }
    }

    /// Takes over what was supplied.
    fn update(&mut self, args: &Args) -> Result<(), Error> {
        self.token.update(args)?;
        let set_text = |to: &mut String, name: &str| {
            if let Some(text) = args.opt_str(name) {
                *to = text.to_owned();
            }
        };
        set_text(&mut self.role_type, "role_type");
        set_text(&mut self.user_claim, "user_claim");
        set_text(&mut self.bound_subject, "bound_subject");
        set_text(&mut self.bound_claims_type, "bound_claims_type");
        set_text(&mut self.groups_claim, "groups_claim");
        set_text(&mut self.callback_mode, "callback_mode");
        let set_list = |to: &mut Vec<String>, name: &str| {
            if let Some(list) = args.opt_list(name) {
                *to = list;
            }
        };
        set_list(&mut self.bound_audiences, "bound_audiences");
        set_list(&mut self.allowed_redirect_uris, "allowed_redirect_uris");
        set_list(&mut self.oidc_scopes, "oidc_scopes");
        if let Some(b) = args.opt_bool("user_claim_json_pointer") {
            self.user_claim_json_pointer = b;
        }
        if let Some(b) = args.opt_bool("verbose_oidc_logging") {
            self.verbose_oidc_logging = b;
        }
        if let Some(claims) = args.object("bound_claims") {
            self.bound_claims = claims.clone();
        }
        if let Some(pairs) = args.opt_pairs("claim_mappings") {
            self.claim_mappings = pairs;
        }
        let set_leeway = |to: &mut i64, name: &str| {
            if let Some(s) = args.opt_int(name) {
                *to = s;
            }
        };
        set_leeway(&mut self.clock_skew_leeway, "clock_skew_leeway");
        set_leeway(&mut self.expiration_leeway, "expiration_leeway");
        set_leeway(&mut self.not_before_leeway, "not_before_leeway");
        if let Some(s) = args.opt_seconds("max_age") {
            self.max_age = s;
        }
        if let Some(s) = args.opt_seconds("poll_interval") {
            self.poll_interval = s;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        if !matches!(self.role_type.as_str(), "oidc" | "jwt") {
            return Err(Error::invalid(format!("invalid 'role_type': {}", self.role_type)));
        }
        if !matches!(self.bound_claims_type.as_str(), "string" | "glob") {
            return Err(Error::invalid(format!("invalid 'bound_claims_type': {}", self.bound_claims_type)));
        }
        if !matches!(self.callback_mode.as_str(), "" | "client" | "direct") {
            return Err(Error::invalid(format!("invalid 'callback_mode': {}", self.callback_mode)));
        }
        for (name, value) in &self.bound_claims {
            let values = match value {
                Value::Array(list) => list.as_slice(),
                one => std::slice::from_ref(one),
            };
            let glob = self.bound_claims_type == "glob";
            if values
                .iter()
                .any(|v| matches!(v, Value::Object(_) | Value::Array(_) | Value::Null) || (glob && !v.is_string()))
            {
                return Err(Error::invalid(format!("claim is not a string or list: {name}")));
            }
        }
        let mut targets = std::collections::BTreeSet::new();
        for target in self.claim_mappings.values() {
            if target == "role" {
                return Err(Error::invalid(format!(
                    "metadata key {target:?} is reserved and may not be a mapping destination"
                )));
            }
            if !targets.insert(target) {
                return Err(Error::invalid(format!("multiple keys are mapped to metadata key {target:?}")));
            }
        }
        if self.user_claim.is_empty() {
            return Err(Error::invalid("a user claim must be defined on the role"));
        }
        if self.role_type == "oidc" && self.allowed_redirect_uris.is_empty() {
            return Err(Error::invalid(
                "'allowed_redirect_uris' must be set if 'role_type' is 'oidc' or unspecified.",
            ));
        }
        // a provider's own tokens are for its client; anybody else's need a bound
        if self.role_type == "jwt"
            && self.bound_audiences.is_empty()
            && self.token.bound_cidrs.is_empty()
            && self.bound_subject.is_empty()
            && self.bound_claims.is_empty()
        {
            return Err(Error::invalid("must have at least one bound constraint when creating/updating a role"));
        }
        Ok(())
    }

    fn shown(&self) -> Map {
        let or_null = |empty: bool, v: Value| if empty { Value::Null } else { v };
        let all = json!({
            "allowed_redirect_uris": self.allowed_redirect_uris,
            "bound_audiences": or_null(self.bound_audiences.is_empty(), json!(self.bound_audiences)),
            "bound_claims": or_null(self.bound_claims.is_empty(), json!(self.bound_claims)),
            "bound_claims_type": self.bound_claims_type,
            "bound_subject": self.bound_subject,
            "claim_mappings": or_null(self.claim_mappings.is_empty(), json!(self.claim_mappings)),
            "clock_skew_leeway": self.clock_skew_leeway,
            "expiration_leeway": self.expiration_leeway,
            "groups_claim": self.groups_claim,
            "max_age": self.max_age,
            "not_before_leeway": self.not_before_leeway,
            "oidc_scopes": or_null(self.oidc_scopes.is_empty(), json!(self.oidc_scopes)),
            "role_type": self.role_type,
            "user_claim": self.user_claim,
            "user_claim_json_pointer": self.user_claim_json_pointer,
            "verbose_oidc_logging": self.verbose_oidc_logging,
        });
        let mut m = match all {
            Value::Object(m) => m,
            _ => Map::new(),
        };
        // OpenBao's fields show where they are in use; Vault's clients see Vault's record
        if self.is_direct() {
            m.insert("callback_mode".into(), self.callback_mode.clone().into());
            m.insert("poll_interval".into(), self.poll_seconds().into());
        }
        self.token.read_into(&mut m);
        m
    }
}

pub fn load(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Role>, Error> {
    cx.get_json(ROLES, name.as_bytes())
}

pub fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    Ok(cx.exists(ROLES, args.str("name").as_bytes()))
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Response::keys(cx.list(ROLES, "", args.str("after"), page::limit(args))?).done()
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match load(cx, args.str("name"))? {
        Some(role) => Response::data(role.shown()).done(),
        None => nothing(),
    }
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let fresh = || Role { role_type: "oidc".into(), bound_claims_type: "string".into(), ..Role::default() };
    let mut role = load(cx, name)?.unwrap_or_else(fresh);
    role.update(args)?;
    role.check()?;
    let bytes = serde_json::to_vec(&role).expect("a plain record always serialises");
    crate::check_size(bytes.len())?;
    cx.put(ROLES, name.as_bytes(), &bytes);
    nothing()
}

pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if cx.exists(ROLES, name.as_bytes()) {
        cx.delete(ROLES, name.as_bytes());
    }
    nothing()
}
