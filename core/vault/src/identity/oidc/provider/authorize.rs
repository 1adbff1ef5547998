//! `identity/oidc/provider/:name/authorize`: a user, known by his Vault token, lets a client know who he is. What the
//! client gets by his browser is a code (OpenID Connect Core 3.1.2).

use super::super::{load, save};
use super::{CODE, OPENID, Wrong, answer, assignments, clients, providers, wrong};
use crate::host::host;
use crate::identity;
use crate::tables;
use crate::token::check;
use ringfence_base::{Code, entropy};
use ringfence_logical::{Args, Cx, Error, Field, Kind, Outcome, Path, redirect};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// How long a code is good for. Seconds. Source: Vault's documented five minutes.
const LIFE_SECONDS: u64 = 300;
/// Random characters of a code: 190 bits.
const CODE_CHARACTERS: usize = 32;
/// Characters at the end of a code that tell when it ends: seconds since 1970, hexadecimal.
const ENDS_CHARACTERS: usize = 10;
/// Codes that nobody came for and that are cleared away at one authorisation.
const MAX_CLEARED: usize = 32;

/// The paths.
pub const PATHS: &[Path] = &[Path::new("oidc/provider/{name}/authorize")
    .fields(&[
        Field::str("name", "Name of the provider."),
        Field::str("client_id", "The client.").query(),
        Field::str("redirect_uri", "Where the browser goes back to.").query(),
        Field::str("scope", "What the client wants to know: scopes with spaces between, openid among them.").query(),
        Field::str("response_type", "code.").query(),
        Field::str("state", "Given back as it is.").query(),
        Field::str("nonce", "Stands in the identity token.").query(),
        Field::int("max_age", "How long ago the user may have logged in, seconds.").query(),
        Field::str("code_challenge", "What the client will prove to know (RFC 7636).").query(),
        Field::str("code_challenge_method", "plain or S256.").query(),
        Field::new("request", Kind::Any, "Not supported.").query(),
        Field::new("request_uri", Kind::Any, "Not supported.").query(),
    ])
    .help("Authorisation endpoint of an OpenID provider.", "")
    .read(authorize)
    .write(authorize)];

/// What a code was given for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// Name of the provider.
    pub provider: String,
    /// Whom it was given to.
    pub client_id: String,
    /// Whom it speaks of.
    pub entity_id: String,
    /// Where the browser went.
    pub redirect_uri: String,
    /// The client's nonce; empty for none.
    pub nonce: String,
    /// Scopes that the provider has.
    pub scopes: Vec<String>,
    /// PKCE: the challenge, and whether it is a hash.
    pub challenge: Option<Challenge>,
    /// When the user logged in, if the client asked how long ago. Seconds since 1970.
    pub auth_time: Option<u64>,
    /// Seconds since 1970.
    ends: u64,
}

/// RFC 7636 4.3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Challenge {
    /// As it came.
    pub text: String,
    /// `S256`; else `plain`.
    pub hashed: bool,
}

fn authorize(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let state = args.str("state");
    match judge(cx, args)? {
        Ok(grant) => {
            let code = give(cx, &grant);
            answer(Code::Ok, &json!({"code": code, "state": state}), &[])
        }
        Err(why) => {
            let body = json!({"error": why.error, "error_description": why.description, "state": state});
            answer(Code::Invalid, &body, &[])
        }
    }
}

fn judge(cx: &mut Cx<'_, '_>, args: &Args) -> Result<Result<Grant, Wrong>, Error> {
    let client_id = args.str("client_id");
    if client_id.is_empty() {
        return Ok(wrong("invalid_client_id", "client_id parameter is required"));
    }
    let Some(client) = clients::by_id(cx, client_id)? else {
        return Ok(wrong("invalid_client_id", "client with client_id not found"));
    };
    let redirect_uri = args.str("redirect_uri");
    if redirect_uri.is_empty() {
        return Ok(wrong("invalid_request", "redirect_uri parameter is required"));
    }
    if !redirect::is_allowed(redirect_uri, &client.redirect_uris) {
        return Ok(wrong("invalid_redirect_uri", "redirect_uri is not allowed for the client"));
    }
    let name = args.str("name");
    let Some(provider) = providers::find(cx, name)? else {
        return Ok(wrong("invalid_request", "provider not found"));
    };
    if !provider.allows(client_id) {
        return Ok(wrong("unauthorized_client", "client is not authorized to use the provider"));
    }
    if args.supplied("request") {
        return Ok(wrong("request_not_supported", "request parameter is not supported"));
    }
    if args.supplied("request_uri") {
        return Ok(wrong("request_uri_not_supported", "request_uri parameter is not supported"));
    }
    let asked: Vec<&str> = args.str("scope").split_ascii_whitespace().collect();
    if !asked.contains(&OPENID) {
        return Ok(wrong("invalid_request", "scope parameter must contain the \"openid\" value"));
    }
    match args.str("response_type") {
        "code" => {}
        "" => return Ok(wrong("invalid_request", "response_type parameter is required")),
        _ => return Ok(wrong("unsupported_response_type", "unsupported response_type value")),
    }
    let entity_id = cx.caller()?.entity_id.clone();
    if entity_id.is_empty() {
        return Ok(wrong("access_denied", "identity entity must be associated with the request"));
    }
    let Some(entity) = identity::find(cx.txn, cx.mount.ns, &entity_id)? else {
        return Ok(wrong("access_denied", "identity entity associated with the request not found"));
    };
    if !assignments::admits(cx, &client.assignments, &entity)? {
        return Ok(wrong("access_denied", "identity entity not authorized by client assignment"));
    }
    let challenge = match challenge(args, client.is_public) {
        Ok(challenge) => challenge,
        Err(why) => return Ok(Err(why)),
    };
    let auth_time = match auth_time(cx, args)? {
        Ok(time) => time,
        Err(why) => return Ok(Err(why)),
    };
    let mut scopes: Vec<String> = asked.into_iter().map(str::to_owned).collect();
    scopes.retain(|s| provider.scopes_supported.contains(s));
    scopes.sort();
    scopes.dedup();
    Ok(Ok(Grant {
        provider: name.to_owned(),
        client_id: client_id.to_owned(),
        entity_id: entity.id,
        redirect_uri: redirect_uri.to_owned(),
        nonce: args.str("nonce").to_owned(),
        scopes,
        challenge,
        auth_time,
        ends: cx.now.seconds() + LIFE_SECONDS,
    }))
}

fn challenge(args: &Args, is_public: bool) -> Result<Option<Challenge>, Wrong> {
    let Some(text) = args.opt_str("code_challenge") else {
        return match is_public {
            true => wrong("invalid_request", "PKCE is required for public clients"),
            false => Ok(None),
        };
    };
    let hashed = match args.str("code_challenge_method") {
        "S256" => true,
        "plain" | "" => false,
        _ => return wrong("invalid_request", "invalid code_challenge_method"),
    };
    if !(43..=128).contains(&text.len()) {
        return wrong("invalid_request", "invalid code_challenge");
    }
    Ok(Some(Challenge { text: text.to_owned(), hashed }))
}

/// When the user logged in: when his token was made.
fn auth_time(cx: &mut Cx<'_, '_>, args: &Args) -> Result<Result<Option<u64>, Wrong>, Error> {
    let Some(max_age) = args.opt_int("max_age") else { return Ok(Ok(None)) };
    let Ok(max_age @ 1..) = u64::try_from(max_age) else {
        return Ok(wrong("invalid_request", "max_age must be greater than zero"));
    };
    let host = host(cx);
    let raw = host.call.token.clone();
    let raw = raw.as_ref().map(|t| t.expose().as_str()).unwrap_or_default();
    let Some(holder) = check::find(cx.txn, &host.keyring, &host.router, raw, cx.now)? else {
        return Ok(wrong("access_denied", "token associated with request not found"));
    };
    let made = holder.entry.created.seconds();
    if cx.now.seconds().saturating_sub(made) > max_age {
        return Ok(wrong("max_age_violation", "active re-authentication is required by max_age"));
    }
    Ok(Ok(Some(made)))
}

/// Makes a code. Its last characters tell when it ends, so that it is found again under a key that sorts by that.
fn give(cx: &mut Cx<'_, '_>, grant: &Grant) -> String {
    clear(cx);
    let code = format!("{}{:0ENDS_CHARACTERS$x}", entropy::base62(cx.rng, CODE_CHARACTERS), grant.ends);
    let name = name_of(cx, &code).expect("made as it is read");
    save(cx.txn, cx.mount.ns, CODE, &name, grant);
    code
}

/// Clears away some codes that have ended: they stand first.
fn clear(cx: &mut Cx<'_, '_>) {
    let prefix = tables::oidc(cx.mount.ns, CODE, "");
    for key in cx.txn.list(&prefix, None, MAX_CLEARED) {
        let ends = key.get(prefix.len()..prefix.len() + ENDS_CHARACTERS).and_then(|b| std::str::from_utf8(b).ok());
        match ends.and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
            Some(ends) if ends > cx.now.seconds() => break,
            _ => cx.txn.delete(&key),
        }
    }
}

/// `[end, 10 hex][keyed hash, 32 hex]`; `None` for what is no code of ours.
fn name_of(cx: &Cx<'_, '_>, code: &str) -> Option<String> {
    let ends = code
        .get(CODE_CHARACTERS..)
        .filter(|e| e.len() == ENDS_CHARACTERS && e.bytes().all(|b| b.is_ascii_hexdigit()))?;
    Some(format!("{}{}", ends.to_lowercase(), hex::encode(cx.host.keyed_hash("oidc code", code.as_bytes()))))
}

/// What a code was given for. It is used up, whatever comes of it.
pub fn take(cx: &mut Cx<'_, '_>, code: &str) -> Result<Option<Grant>, Error> {
    let Some(name) = name_of(cx, code) else { return Ok(None) };
    let grant: Option<Grant> = load(cx.txn, cx.mount.ns, CODE, &name)?;
    if grant.is_some() {
        cx.txn.delete(&tables::oidc(cx.mount.ns, CODE, &name));
    }
    Ok(grant.filter(|g| cx.now.seconds() < g.ends))
}
