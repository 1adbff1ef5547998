//! `identity/oidc/provider/:name/token`: a client trades a code for tokens (OpenID Connect Core 3.1.3). It is known by
//! its secret, in the header or in the form; a public one by the proof that it began the flow (RFC 7636).

use super::super::signing::Algorithm;
use super::super::{keys, keys::Key};
use super::access::{self, Access};
use super::authorize::{self, Grant};
use super::clients::{self, Client};
use super::providers::{self, Provider};
use super::{Wrong, answer, assignments, scopes, wrong};
use crate::host::host;
use crate::identity;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ringfence_base::Code;
use ringfence_base::secret::same_bytes;
use ringfence_logical::{Args, Cx, Error, Field, Outcome, Path};
use serde_json::{Value, json};

/// The paths.
pub const PATHS: &[Path] = &[Path::new("oidc/provider/{name}/token")
    .fields(&[
        Field::str("name", "Name of the provider."),
        Field::str("grant_type", "authorization_code."),
        Field::str("code", "The code.").secret(),
        Field::str("redirect_uri", "As it was when the code was asked for."),
        Field::str("code_verifier", "What the client proves to know (RFC 7636).").secret(),
        Field::str("client_id", "The client, unless it is named in the header."),
        Field::str("client_secret", "Its secret, unless it stands in the header.").secret(),
    ])
    .help("Token endpoint of an OpenID provider.", "")
    .public()
    .write(exchange)];

fn exchange(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let done = match parties(cx, args)? {
        Ok((provider, client, key)) => redeem(cx, args, &provider, &client, &key)?,
        Err(why) => Err(why),
    };
    // OpenID Connect Core 3.1.3.3
    const UNKEPT: [(&str, &str); 2] = [("Cache-Control", "no-store"), ("Pragma", "no-cache")];
    match done {
        Ok(tokens) => answer(Code::Ok, &tokens, &UNKEPT),
        Err(why) => {
            let body = json!({"error": why.error, "error_description": why.description});
            match why.error {
                // RFC 6749 5.2
                "invalid_client" => {
                    let headers = [&UNKEPT[..], &[("WWW-Authenticate", "Basic")]].concat();
                    answer(Code::Custom(401), &body, &headers)
                }
                "server_error" => answer(Code::Internal, &body, &UNKEPT),
                _ => answer(Code::Invalid, &body, &UNKEPT),
            }
        }
    }
}

/// Provider, client and the client's key; the client has proved who it is.
fn parties(cx: &mut Cx<'_, '_>, args: &Args) -> Result<Result<(Provider, Client, Key), Wrong>, Error> {
    let Some(provider) = providers::find(cx, args.str("name"))? else {
        return Ok(wrong("invalid_request", "provider not found"));
    };
    let (id, secret) =
        basic(cx).unwrap_or_else(|| (args.str("client_id").to_owned(), args.str("client_secret").to_owned()));
    if id.is_empty() {
        return Ok(wrong("invalid_request", "client_id parameter is required"));
    }
    let found = clients::by_id(cx, &id)?;
    let Some(client) = found.filter(|c| c.is_public || same_bytes(c.client_secret.as_bytes(), secret.as_bytes()))
    else {
        return Ok(wrong("invalid_client", "client failed to authenticate"));
    };
    if !provider.allows(&id) {
        return Ok(wrong("invalid_client", "client is not authorized to use the provider"));
    }
    let Some(key) = Key::load(cx, &client.key)? else {
        return Ok(wrong("server_error", format!("client key {:?} not found", client.key)));
    };
    if !key.allows(&id) {
        return Ok(wrong("invalid_client", "client is not authorized to use the key"));
    }
    Ok(Ok((provider, client, key)))
}

/// Client id and secret in the header (RFC 6749 2.3.1): each form-encoded, then both in base64.
fn basic(cx: &Cx<'_, '_>) -> Option<(String, String)> {
    let call = &host(cx).call;
    let (_, header) = call.headers.iter().find(|(name, _)| *name == "authorization")?;
    let (scheme, pair) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(pair.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    let plain = |text: &str| {
        let first = url::form_urlencoded::parse(text.as_bytes()).next();
        first.map(|(text, _)| text.into_owned()).unwrap_or_default()
    };
    Some((plain(id), plain(secret)))
}

/// The tokens that a code is worth.
fn redeem(
    cx: &mut Cx<'_, '_>,
    args: &Args,
    provider: &Provider,
    client: &Client,
    key: &Key,
) -> Result<Result<Value, Wrong>, Error> {
    match args.str("grant_type") {
        "authorization_code" => {}
        "" => return Ok(wrong("invalid_request", "grant_type parameter is required")),
        _ => return Ok(wrong("unsupported_grant_type", "unsupported grant_type value")),
    }
    let code = args.str("code");
    if code.is_empty() {
        return Ok(wrong("invalid_request", "code parameter is required"));
    }
    let Some(grant) = authorize::take(cx, code)? else {
        return Ok(wrong("invalid_grant", "authorization grant is invalid or expired"));
    };
    if let Err(why) = fits(args, &grant, client) {
        return Ok(Err(why));
    }
    let Some(entity) = identity::find(cx.txn, cx.mount.ns, &grant.entity_id)? else {
        return Ok(wrong("invalid_request", "identity entity associated with the request not found"));
    };
    if !assignments::admits(cx, &client.assignments, &entity)? {
        return Ok(wrong("invalid_request", "identity entity not authorized by client assignment"));
    }
    if let Err(why) = proves(args.str("code_verifier"), &grant, client.is_public) {
        return Ok(Err(why));
    }
    let subject = entity.id.clone();
    let mut claims = match scopes::claims(cx, &grant.scopes, entity)? {
        Ok(claims) => claims,
        Err(why) => return Ok(wrong("invalid_request", why)),
    };
    let access =
        Access { entity_id: subject.clone(), client_id: client.client_id.clone(), scopes: grant.scopes.clone() };
    let access_token = access::give(cx, &grant.provider, &access, client.access_token_ttl)?;
    let now = cx.now.seconds();
    // never beyond the time for which the key is published
    let ends = now + client.id_token_ttl.min(key.verification_ttl);
    for (claim, value) in [
        ("iss", Value::from(provider.issuer(cx, &grant.provider))),
        ("sub", subject.into()),
        ("aud", client.client_id.clone().into()),
        ("namespace", host(cx).namespace.external_id.clone().into()),
        ("iat", now.into()),
        ("exp", ends.into()),
        ("at_hash", half_hash(key.algorithm, &access_token).into()),
        ("c_hash", half_hash(key.algorithm, code).into()),
    ] {
        claims.insert(claim.to_owned(), value);
    }
    if !grant.nonce.is_empty() {
        claims.insert("nonce".into(), grant.nonce.into());
    }
    if let Some(time) = grant.auth_time {
        claims.insert("auth_time".into(), time.into());
    }
    let id_token = keys::sign(key, &claims)?;
    Ok(Ok(json!({
        "token_type": "Bearer", "access_token": access_token, "id_token": id_token,
        "expires_in": client.access_token_ttl,
    })))
}

/// A code is good for whom it was given to, and at where it was given.
fn fits(args: &Args, grant: &Grant, client: &Client) -> Result<(), Wrong> {
    let redirect_uri = args.str("redirect_uri");
    if redirect_uri.is_empty() {
        return wrong("invalid_request", "redirect_uri parameter is required");
    }
    if grant.client_id != client.client_id {
        return wrong("invalid_grant", "authorization code was not issued to the client");
    }
    if grant.provider != args.str("name") {
        return wrong("invalid_grant", "authorization code was not issued by the provider");
    }
    if grant.redirect_uri != redirect_uri {
        return wrong(
            "invalid_grant",
            "redirect_uri does not match the redirect_uri used in the authorization request",
        );
    }
    Ok(())
}

/// RFC 7636 4.6.
fn proves(verifier: &str, grant: &Grant, is_public: bool) -> Result<(), Wrong> {
    let Some(challenge) = &grant.challenge else {
        return match (is_public, verifier) {
            (true, _) => wrong("invalid_request", "PKCE is required for public clients"),
            (false, "") => Ok(()),
            (false, _) => wrong("invalid_request", "unexpected code_verifier for token exchange"),
        };
    };
    if verifier.is_empty() {
        return wrong("invalid_request", "expected code_verifier for token exchange");
    }
    let shown = match challenge.hashed {
        true => URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes())),
        false => verifier.to_owned(),
    };
    match same_bytes(shown.as_bytes(), challenge.text.as_bytes()) {
        true => Ok(()),
        false => wrong("invalid_grant", "invalid code_verifier for token exchange"),
    }
}

/// `at_hash` and `c_hash`: the left half of a hash by the signature's own (OpenID Connect Core 3.1.3.6, 3.3.2.11).
fn half_hash(algorithm: Algorithm, text: &str) -> String {
    let by = match algorithm {
        Algorithm::RS256 | Algorithm::ES256 => &digest::SHA256,
        Algorithm::RS384 | Algorithm::ES384 => &digest::SHA384,
        Algorithm::RS512 | Algorithm::ES512 | Algorithm::EdDSA => &digest::SHA512,
    };
    let hash = digest::digest(by, text.as_bytes());
    URL_SAFE_NO_PAD.encode(&hash.as_ref()[..hash.as_ref().len() / 2])
}
