//! The OpenID Connect code flow: where the browser is sent, and what comes back (OpenID Connect Core 1.0, 3.1).

use super::config::{self, Config};
use super::keys::{self, Discovery};
use super::login;
use super::role::{self, Role};
use super::state::{Given, State};
use crate::jose::{audiences, check_times};
use crate::outside::{self, HttpAsk, Outside, Stop};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, redirect};
use serde_json::{Value, json};

/// Longest answer of a provider that is looked at.
const MAX_BODY_BYTES: usize = 256 * 1024;

fn failed(why: impl std::fmt::Display) -> Stop {
    Stop::Refuse(Error::invalid(format!("Vault login failed. {why}")))
}

/// The URL at which the user authenticates; empty if the redirect is not one of the role's.
pub fn auth_url(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let config = config::required(cx)?;
    if !config.has_code_flow() {
        return Err(Error::invalid("OIDC login is not configured for this mount"));
    }
    let name = if args.str("role").is_empty() { config.default_role.as_str() } else { args.str("role") };
    if name.is_empty() {
        return Err(Error::invalid("missing role"));
    }
    let redirect = args.str("redirect_uri");
    if redirect.is_empty() {
        return Err(Error::invalid("missing redirect_uri"));
    }
    let Some(role) = role::load(cx, name)? else {
        return Err(Error::invalid(format!("role {name:?} could not be found")));
    };
    let discovery = keys::load(cx)?.discovery;
    // a login that cannot go on is answered with no URL; the reason is the operator's business, not a stranger's
    let usable = role.role_type == "oidc" && redirect::is_allowed(redirect, &role.allowed_redirect_uris);
    if !usable || discovery.authorization_endpoint.is_empty() {
        return Response::json(json!({"auth_url": ""})).done();
    }
    if role.is_direct() && args.str("client_nonce").is_empty() {
        // whoever polls must be who began: the state alone is known to the browser and to who stands behind it
        return Err(Error::invalid("missing client_nonce"));
    }
    let state = State::begin(cx, name, redirect, args.str("client_nonce"));
    let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, state.verifier(cx).expose().as_bytes()));
    let mut text = state.text().to_owned();
    if config.namespace_in_state && !cx.mount.ns_path.is_empty() {
        text.push_str(&format!(",ns={}", cx.mount.ns_path.trim_end_matches('/')));
    }
    let mut scopes = vec!["openid".to_owned()];
    scopes.extend(role.oidc_scopes.iter().filter(|s| *s != "openid").cloned());
    let (nonce, scope, max_age) = (state.nonce(cx), scopes.join(" "), role.max_age.to_string());
    let response_type = config.response_type();
    let mut query = vec![("client_id", config.oidc_client_id.as_str())];
    if config.asks_for_code() {
        query.extend([("code_challenge", challenge.as_str()), ("code_challenge_method", "S256")]);
    }
    query.extend([
        ("nonce", nonce.as_str()),
        ("redirect_uri", redirect),
        ("response_type", &response_type),
        ("scope", &scope),
        ("state", &text),
    ]);
    if config.oidc_response_mode == "form_post" {
        query.push(("response_mode", "form_post"));
    }
    if role.max_age > 0 {
        query.push(("max_age", &max_age));
    }
    let endpoint = &discovery.authorization_endpoint;
    let joint = if endpoint.contains('?') { '&' } else { '?' };
    let mut answer = json!({"auth_url": format!("{endpoint}{joint}{}", form(&query))});
    if role.is_direct() {
        answer["state"] = text.clone().into();
        answer["poll_interval"] = role.poll_seconds().to_string().into();
    }
    Response::json(answer).done()
}

/// The role that a login through the browser was begun for.
pub fn role(cx: &mut Cx<'_, '_>, args: &Args) -> Result<String, Error> {
    Ok(State::back(cx, args.str("state")).map_or_else(String::new, |s| s.asked.role))
}

/// The browser is back at the client, which passes on what it brought; or, with a role of direct callback, at us.
pub fn callback(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let came = Came::of(args);
    if let Some(state) = State::back(cx, &came.state)
        && role::load(cx, &state.asked.role)?.is_some_and(|role| role.is_direct())
    {
        return keep(cx, &state, &came.given);
    }
    outside::run(cx, move |cx, out| finish(cx, out, &came))
}

/// The provider's answer in a form (OAuth 2.0 Form Post Response Mode), from the browser or from a client that the
/// browser gave it to. It is kept; the client completes the login by [`callback`] or [`poll`].
pub fn post(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let came = Came::of(args);
    match State::back(cx, &came.state) {
        Some(state) => keep(cx, &state, &came.given),
        None => Err(Error::invalid("Vault login failed. Expired or missing OAuth state.")),
    }
}

/// The client of a direct callback asks whether the browser has been there.
pub fn poll(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let came = Came { given: Given::default(), ..Came::of(args) };
    let Some(state) = State::back(cx, &came.state) else {
        return Err(Error::invalid("Vault login failed. Expired or missing OAuth state."));
    };
    if !state.is_of(cx, &came.client_nonce) {
        return Err(Error::invalid("Vault login failed. invalid client_nonce"));
    }
    if state.kept(cx)?.is_none() {
        return Err(Error::invalid("authorization_pending"));
    }
    outside::run(cx, move |cx, out| finish(cx, out, &came))
}

fn keep(cx: &mut Cx<'_, '_>, state: &State, given: &Given) -> Outcome {
    state.keep(cx, given)?;
    let text = match given.error.is_empty() {
        true => "Signed in via your OIDC provider. You can close this window and go back to where you came from.",
        false => "The OIDC provider refused. Where you came from tells more; you can close this window.",
    };
    let page = format!("<!DOCTYPE html><html><head><title>Login</title></head><body><p>{text}</p></body></html>\n");
    Response::raw("text/html", page.into_bytes()).done()
}

#[derive(Clone)]
struct Came {
    state: String,
    client_nonce: String,
    given: Given,
}

impl Came {
    fn of(args: &Args) -> Came {
        let text = |name: &str| args.str(name).to_owned();
        // what clients send that have no code because it was posted to us
        let code = if args.str("code") == "no_code" { String::new() } else { text("code") };
        let given = Given {
            code,
            id_token: text("id_token"),
            error: text("error"),
            error_description: text("error_description"),
        };
        Came { state: text("state"), client_nonce: text("client_nonce"), given }
    }
}

fn finish(cx: &mut Cx<'_, '_>, out: &Outside, came: &Came) -> Result<Option<Response>, Stop> {
    let config = config::required(cx)?;
    if !config.has_code_flow() {
        return Err(Error::invalid("OIDC login is not configured for this mount").into());
    }
    let Some(state) = State::back(cx, &came.state) else {
        return Err(failed("Expired or missing OAuth state."));
    };
    if !state.is_of(cx, &came.client_nonce) {
        return Err(failed("invalid client_nonce"));
    }
    // an identity token travels in a form only, never in a query that ends up in logs
    let own = Given { id_token: String::new(), ..came.given.clone() };
    let given = match own.code.is_empty() && own.error.is_empty() {
        true => state.kept(cx)?.unwrap_or(own),
        false => own,
    };
    if !given.error.is_empty() {
        let why = format!("Provider returned error: {} {}", given.error, given.error_description);
        return Err(failed(why.trim_end()));
    }
    if given.code.is_empty() && given.id_token.is_empty() {
        return Err(failed("No code or id_token received."));
    }
    let name = state.asked.role.clone();
    let role = role::load(cx, &name)?.filter(|r| r.role_type == "oidc");
    let Some(role) = role else { return Err(failed("Role could not be found")) };
    // a role may have changed while the user was at the provider
    if !redirect::is_allowed(&state.asked.redirect, &role.allowed_redirect_uris) {
        return Err(failed("redirect_uri is not allowed any more"));
    }
    if !cx.host.cidr_allows(&role.token.bound_cidrs, cx.req.remote) {
        return Err(Error::denied_plain().into());
    }
    let discovery = keys::load(cx)?.discovery;
    let tokens = match given.code.as_str() {
        "" => json!({"id_token": given.id_token}),
        code => exchange(cx, &config, &discovery, out, &state, code)?,
    };
    let Some(id_token) = tokens["id_token"].as_str() else {
        return Err(failed("No id_token found in response."));
    };
    let unverified = |why: &str| failed(format!("Token verification failed. {why}"));
    let mut claims = keys::verify(cx, &config, out, id_token)?.map_err(|why| unverified(&why))?;
    check_id_token(cx, &config, &discovery, &role, &state, &claims).map_err(unverified)?;
    if let (Some(access), false) = (tokens["access_token"].as_str(), discovery.userinfo_endpoint.is_empty()) {
        add_user_info(&config, &discovery, out, access, &mut claims)?;
    }
    let response = login::admit(cx, &name, &role, &claims)?;
    state.spend(cx);
    Ok(Some(response))
}

/// Trades the code for tokens (RFC 6749 4.1.3).
fn exchange(
    cx: &Cx<'_, '_>,
    config: &Config,
    discovery: &Discovery,
    out: &Outside,
    state: &State,
    code: &str,
) -> Result<Value, Stop> {
    let verifier = state.verifier(cx);
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", &state.asked.redirect),
        ("code_verifier", verifier.expose()),
    ];
    let methods = &discovery.token_endpoint_auth_methods_supported;
    // RFC 8414 2: `client_secret_basic` unless the provider says otherwise
    let basic = methods.is_empty() || methods.iter().any(|m| m == "client_secret_basic");
    let (id, secret) = (config.oidc_client_id.as_str(), config.oidc_client_secret.as_str());
    if !basic || secret.is_empty() {
        fields.push(("client_id", id));
        if !secret.is_empty() {
            fields.push(("client_secret", secret));
        }
    }
    let mut ask = HttpAsk {
        max_answer_bytes: MAX_BODY_BYTES,
        ..HttpAsk::post(&discovery.token_endpoint, "application/x-www-form-urlencoded", form(&fields).into_bytes())
            .trusting(&config.oidc_discovery_ca_pem)
            .header("accept", "application/json")
    };
    if basic && !secret.is_empty() {
        let pair = STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)));
        ask = ask.header("authorization", format!("Basic {pair}"));
    }
    let answer = out.ask(ask)?.map_err(|_| failed("Error exchanging oidc code: the provider did not answer"))?;
    let tokens: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status != 200 {
        let why = tokens["error"].as_str().unwrap_or("unexpected answer");
        return Err(failed(format!("Error exchanging oidc code: {why:?} (status {})", answer.status)));
    }
    Ok(tokens)
}

/// OpenID Connect Core 3.1.3.7.
fn check_id_token(
    cx: &Cx<'_, '_>,
    config: &Config,
    discovery: &Discovery,
    role: &Role,
    state: &State,
    claims: &Map,
) -> Result<(), &'static str> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    let issuer = if config.bound_issuer.is_empty() { &discovery.issuer } else { &config.bound_issuer };
    if text("iss") != issuer {
        return Err("invalid issuer (iss) claim");
    }
    if claims.get("exp").is_none() {
        return Err("invalid expiration time (exp) claim: there is none");
    }
    check_times(claims, &role.leeways(), cx.now)?;
    let audiences = audiences(claims).unwrap_or_default();
    let to_us = audiences.contains(&config.oidc_client_id);
    let bound = role.bound_audiences.is_empty() || audiences.iter().any(|a| role.bound_audiences.contains(a));
    if !to_us || !bound {
        return Err("invalid audience (aud) claim: audience claim does not match any bound audience");
    }
    let party = text("azp");
    if (audiences.len() > 1 || !party.is_empty()) && party != config.oidc_client_id {
        return Err("invalid authorized party (azp) claim");
    }
    if text("nonce") != state.nonce(cx) {
        return Err("invalid nonce");
    }
    if role.max_age > 0 {
        let authenticated = claims.get("auth_time").and_then(Value::as_i64).ok_or("auth_time claim is missing")?;
        let oldest = cx.now.seconds() as i64 - role.max_age as i64 - 60;
        if authenticated < oldest {
            return Err("auth_time claim is older than the maximum age");
        }
    }
    login::check_subject(role, claims)
}

/// Adds what the provider tells of the user beside the token. The token's own claims stay as they are.
fn add_user_info(
    config: &Config,
    discovery: &Discovery,
    out: &Outside,
    access_token: &str,
    claims: &mut Map,
) -> Result<(), Stop> {
    let ask = HttpAsk { max_answer_bytes: MAX_BODY_BYTES, ..HttpAsk::get(&discovery.userinfo_endpoint) }
        .trusting(&config.oidc_discovery_ca_pem)
        .header("authorization", format!("Bearer {access_token}"));
    let told = match out.ask(ask)? {
        Ok(answer) if answer.status == 200 => serde_json::from_slice::<Map>(&answer.body).unwrap_or_default(),
        // the token alone is proof enough; a claim that is then missing says so itself
        _ => return Ok(()),
    };
    // OpenID Connect Core 5.3.2: about somebody else it must not be used
    let subject = |of: &Map| of.get("sub").and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned);
    if subject(&told).is_none() || subject(&told) != subject(claims) {
        return Err(failed("error reading /userinfo endpoint: it tells of another subject"));
    }
    for (name, value) in told {
        claims.entry(name).or_insert(value);
    }
    Ok(())
}

/// `application/x-www-form-urlencoded`, spaces as `%20`.
fn form(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(k, v)| format!("{k}={}", encoded(v))).collect::<Vec<_>>().join("&")
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_encoded_for_forms() {
        assert_eq!(form(&[("a", "x y&z=1+/é"), ("b", "-._~")]), "a=x%20y%26z%3D1%2B%2F%C3%A9&b=-._~");
    }
}
