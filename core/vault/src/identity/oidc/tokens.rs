//! `identity/oidc/token/:role` and `identity/oidc/introspect`: identity tokens given out and looked at.

use super::keys::{self, Key};
use super::{discovery, roles, signing, template};
use crate::host::host;
use crate::identity::{self, Template};
use ringfence_logical::{Args, Cx, Error, Field, Map, Outcome, Path, Response};
use serde_json::{Value, json};

/// The paths.
pub const PATHS: &[Path] = &[
    Path::new("oidc/token/{name}")
        .fields(&[Field::str("name", "Name of the role.")])
        .help("An identity token of the caller.", "")
        .read(give),
    Path::new("oidc/introspect")
        .computes()
        .fields(&[
            Field::str("token", "The identity token.").secret(),
            Field::str("client_id", "If given, the token must be meant for this client."),
        ])
        .help("Whether an identity token holds.", "")
        .write(introspect),
];

fn give(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").to_owned();
    let Some(role) = roles::find(cx, &name)? else {
        return Err(Error::invalid(format!("role {name:?} not found")));
    };
    if cx.caller()?.entity_id.is_empty() {
        return Err(Error::invalid("no entity associated with the request's token"));
    }
    keys::with_key(cx, &role.key, move |cx, key| sign(cx, &name, &key))
}

/// Signs a token of the caller; role and caller are read again, for making a key may have come between.
fn sign(cx: &mut Cx<'_, '_>, name: &str, key: &Key) -> Outcome {
    let Some(role) = roles::find(cx, name)? else {
        return Err(Error::invalid(format!("role {name:?} not found")));
    };
    if !key.allows(&role.client_id) {
        return Err(Error::invalid(format!(
            "the key {:?} does not list the client ID of the role {name:?} as an allowed client ID",
            role.key
        )));
    }
    let id = cx.caller()?.entity_id.clone();
    let Some(entity) = identity::find(cx.txn, cx.mount.ns, &id)? else {
        return Err(Error::invalid("no entity associated with the request's token"));
    };
    let id = entity.id.clone();
    let who = Template::of(cx.txn, entity)?;
    let mut claims = template::fill(&role.template, &who, cx.now).map_err(Error::invalid)?;
    let now = cx.now.seconds();
    // never beyond the time for which the key is published
    let ttl = role.ttl.min(key.verification_ttl);
    for (claim, value) in [
        ("iss", Value::from(discovery::issuer(cx)?)),
        ("sub", id.into()),
        ("aud", role.client_id.clone().into()),
        ("namespace", host(cx).namespace.external_id.clone().into()),
        ("iat", now.into()),
        ("exp", (now + ttl).into()),
    ] {
        claims.insert(claim.to_owned(), value);
    }
    let token = keys::sign(key, &claims)?;
    Response::json(json!({"client_id": role.client_id, "token": token, "ttl": ttl})).done()
}

fn introspect(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let answer = match judge(cx, args)? {
        Ok(()) => json!({"active": true}),
        Err(why) => json!({"active": false, "error": why}),
    };
    Response::raw("application/json", answer.to_string().into_bytes()).done()
}

fn judge(cx: &mut Cx<'_, '_>, args: &Args) -> Result<Result<(), &'static str>, Error> {
    let token = args.str("token");
    let Some(kid) = signing::kid_of(token) else { return Ok(Err("error parsing token")) };
    let Some((algorithm, public)) = keys::by_kid(cx, &kid)? else {
        return Ok(Err("unable to validate the token signature"));
    };
    let Ok(claims) = signing::verify(algorithm, &public, token) else {
        return Ok(Err("unable to validate the token signature"));
    };
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("iss") != discovery::issuer(cx)? {
        return Ok(Err("error validating claims: issuer"));
    }
    if claims.get("exp").and_then(Value::as_u64).is_none_or(|exp| exp <= cx.now.seconds()) {
        return Ok(Err("token is expired"));
    }
    let client_id = args.str("client_id");
    if !client_id.is_empty() && !is_for(&claims, client_id) {
        return Ok(Err("error validating claims: audience"));
    }
    let subject = text("sub").to_owned();
    match identity::find(cx.txn, cx.mount.ns, &subject)? {
        Some(e) if !e.disabled => Ok(Ok(())),
        Some(_) => Ok(Err("entity is disabled")),
        None => Ok(Err("entity was not found")),
    }
}

fn is_for(claims: &Map, client_id: &str) -> bool {
    claims.get("aud").and_then(Value::as_str) == Some(client_id)
}
