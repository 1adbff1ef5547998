//! Login with a token, and what both kinds of login make of the claims.

use super::config;
use super::keys;
use super::role::{self, Role};
use crate::jose::{self, check_times, glob};
use crate::outside::{self, Outside, Stop};
use ringfence_logical::{Alias, Args, Cx, Error, Map, Outcome, Response};
use serde_json::Value;
use std::collections::BTreeMap;

/// The role that a login names, or the mount's default.
pub fn role(cx: &mut Cx<'_, '_>, args: &Args) -> Result<String, Error> {
    match args.str("role") {
        "" => Ok(config::required(cx)?.default_role),
        named => Ok(named.to_owned()),
    }
}

pub fn login(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let (name, token) = (args.str("role").to_owned(), args.str("jwt").trim().to_owned());
    outside::run(cx, move |cx, out| with_token(cx, out, &name, &token))
}

fn with_token(cx: &mut Cx<'_, '_>, out: &Outside, name: &str, token: &str) -> Result<Option<Response>, Stop> {
    let config = config::required(cx)?;
    let name = if name.is_empty() { config.default_role.as_str() } else { name };
    if name.is_empty() {
        return Err(Error::invalid("missing role").into());
    }
    let Some(role) = role::load(cx, name)? else {
        return Err(Error::invalid(format!("role {name:?} could not be found")).into());
    };
    if role.role_type == "oidc" {
        return Err(Error::invalid("role with oidc role_type is not allowed").into());
    }
    if token.is_empty() {
        return Err(Error::invalid("missing token").into());
    }
    if !cx.host.cidr_allows(&role.token.bound_cidrs, cx.req.remote) {
        return Err(Error::denied_plain().into());
    }
    let refused = |why: &str| Error::invalid(format!("error validating token: {why}"));
    let claims = keys::verify(cx, &config, out, token)?.map_err(|why| refused(&why))?;
    check_times(&claims, &role.leeways(), cx.now).map_err(refused)?;
    let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    let wanted = match config.bound_issuer.is_empty() {
        // a discovered key set is that issuer's alone
        true if !config.oidc_discovery_url.is_empty() => keys::load(cx)?.discovery.issuer,
        _ => config.bound_issuer.clone(),
    };
    if !wanted.is_empty() && wanted != issuer {
        return Err(refused("invalid issuer (iss) claim").into());
    }
    check_subject(&role, &claims).map_err(refused)?;
    check_audience(&role, &claims)?;
    Ok(Some(admit(cx, name, &role, &claims)?))
}

pub fn check_subject(role: &Role, claims: &Map) -> Result<(), &'static str> {
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    match role.bound_subject.is_empty() || role.bound_subject == subject {
        true => Ok(()),
        false => Err("invalid subject (sub) claim"),
    }
}

/// A token for somebody is good only for a role that says for whom: one text or a list, empty or not.
fn check_audience(role: &Role, claims: &Map) -> Result<(), Error> {
    match jose::audiences(claims) {
        Some(_) if role.bound_audiences.is_empty() => {
            Err(Error::invalid("audience claim found in JWT but no audiences bound to the role"))
        }
        None if role.bound_audiences.is_empty() => Ok(()),
        found => match found.unwrap_or_default().iter().any(|a| role.bound_audiences.contains(a)) {
            true => Ok(()),
            false => Err(Error::invalid(
                "error validating token: invalid audience (aud) claim: audience claim does not match any bound audience",
            )),
        },
    }
}

/// Checks the bound claims and makes identity, metadata and terms of the claims.
pub fn admit(cx: &mut Cx<'_, '_>, name: &str, role: &Role, claims: &Map) -> Result<Response, Error> {
    let user = user_of(role, claims)?;
    let metadata = mapped(role, claims)?;
    let group_aliases = groups_of(role, claims)?;
    check_bound_claims(role, claims).map_err(|why| Error::invalid(format!("error validating claims: {why}")))?;
    let mut token_metadata = BTreeMap::from([("role".to_owned(), name.to_owned())]);
    token_metadata.extend(metadata.clone());
    let mut internal = Map::new();
    internal.insert("role".into(), name.into());
    let mut auth = role.token.auth(cx.req.remote);
    auth.display_name = user.clone();
    auth.alias = Some(Alias { name: user, metadata });
    auth.group_aliases = group_aliases;
    auth.metadata = token_metadata;
    auth.internal = internal;
    auth.role = name.to_owned();
    Ok(Response { auth: Some(auth), ..Response::default() })
}

fn user_of(role: &Role, claims: &Map) -> Result<String, Error> {
    let name = &role.user_claim;
    let found = match role.user_claim_json_pointer {
        true => jose::claim(claims, name),
        false => claims.get(name).filter(|v| !v.is_null()),
    };
    match found {
        None => Err(Error::invalid(format!("claim {name:?} not found in token"))),
        Some(Value::String(user)) if !user.is_empty() => Ok(user.clone()),
        Some(Value::String(_)) => Err(Error::invalid(format!("claim {name:?} is empty"))),
        Some(_) => Err(Error::invalid(format!("claim {name:?} could not be converted to string"))),
    }
}

/// Metadata by the role's mappings; a claim that is absent is left out.
fn mapped(role: &Role, claims: &Map) -> Result<BTreeMap<String, String>, Error> {
    let mut out = BTreeMap::new();
    for (source, target) in &role.claim_mappings {
        let Some(value) = jose::claim(claims, source) else { continue };
        let text = scalar_text(value)
            .ok_or_else(|| Error::invalid(format!("error converting claim '{source}' to string")))?;
        out.insert(target.clone(), text);
    }
    Ok(out)
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

fn groups_of(role: &Role, claims: &Map) -> Result<Vec<Alias>, Error> {
    let name = &role.groups_claim;
    if name.is_empty() {
        return Ok(Vec::new());
    }
    let found =
        jose::claim(claims, name).ok_or_else(|| Error::invalid(format!("{name:?} claim not found in token")))?;
    let values = listed(found)
        .ok_or_else(|| Error::invalid(format!("{name:?} claim could not be converted to string list")))?;
    let mut groups = Vec::new();
    for value in values {
        match value {
            Value::String(g) if g.is_empty() => {}
            Value::String(g) => groups.push(Alias { name: g.clone(), metadata: BTreeMap::new() }),
            other => {
                return Err(Error::invalid(format!("value {other} in groups claim could not be parsed as string")));
            }
        }
    }
    Ok(groups)
}

/// A list, or one scalar as a list of one.
fn listed(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(list) => Some(list),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Some(std::slice::from_ref(value)),
        _ => None,
    }
}

/// Each bound claim must be there with one of the values that the role allows.
fn check_bound_claims(role: &Role, claims: &Map) -> Result<(), String> {
    for (name, wanted) in &role.bound_claims {
        let found = jose::claim(claims, name).ok_or_else(|| format!("claim {name:?} is missing"))?;
        let found = listed(found).ok_or_else(|| format!("received claim is not a string or list: {name}"))?;
        let wanted = listed(wanted).unwrap_or_default();
        let matches = |w: &Value, f: &Value| match (w, f) {
            (Value::String(w), Value::String(f)) if role.bound_claims_type == "glob" => glob(w, f),
            // 1 and 1.0 are one number
            (Value::Number(w), Value::Number(f)) => w == f || (w.as_f64() == f.as_f64() && w.as_f64().is_some()),
            _ => w == f,
        };
        if !wanted.iter().any(|w| found.iter().any(|f| matches(w, f))) {
            return Err(format!("claim {name:?} does not match any associated bound claim values"));
        }
    }
    Ok(())
}
