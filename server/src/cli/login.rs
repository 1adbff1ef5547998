//! `login`: get a token from an auth method and keep it.
//!
//! The token method checks a token that the person has; userpass and its like post a password to `login/<user>`; oidc goes
//! through a browser ([`super::login_oidc`]); every other method posts its `key=value` arguments to `login`.

use super::client::{CallError, Client, Request};
use super::kvargs;
use super::output::wrap;
use super::secret::{Auth, Secret};
use super::session::{Fail, Outcome, Session, doing, remote, sanitized, usage, with_slash};
use super::token_file;
use super::verb::{Kind, Verb, flag, verb};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// `login`
pub const LOGIN: Verb = verb(
    "login",
    "[token or key=value...]",
    "Log in",
    &[
        flag("method", Kind::Text, "Auth method; default token."),
        flag("path", Kind::Text, "Where the method is mounted; default its name."),
        flag("no-store", Kind::Bool, "Do not keep the token."),
        flag("no-print", Kind::Bool, "Do not print the token."),
        flag("token-only", Kind::Bool, "Print the token only, and do not keep it."),
    ],
    login,
);

/// What to tell someone whose login is not complete.
pub const SECOND_FACTOR_OWED: &str = "A login request was issued that is subject to MFA validation. Please make sure to \
    validate the login by sending another request to sys/mfa/validate endpoint.";

/// Methods that post a password to `login/<user>`.
const PASSWORD_METHODS: [&str; 4] = ["userpass", "ldap", "okta", "radius"];

fn login(session: &mut Session<'_, '_>) -> Outcome {
    let token_only = session.flags.is_set("token-only");
    let no_store = token_only || session.flags.is_set("no-store");
    let no_print = session.flags.is_set("no-print");
    if no_store && no_print {
        return Err(usage("-no-store and -no-print cannot be used together"));
    }
    if token_only {
        session.flags.set("field", "token");
    }
    let method = match sanitized(session.flags.text("method").unwrap_or_default()) {
        method if method.is_empty() => "token".to_owned(),
        method => method,
    };
    if help(&method, "").is_none() {
        return Err(usage(wrap(&format!(
            "Unknown auth method: {method}. Use \"vault auth list\" to see the complete list of auth methods. \
             Additionally, some auth methods are only available via the HTTP API."
        ))));
    }
    let mut args = session.flags.args.clone();
    if method == "token"
        && let Some(first) = args.first_mut()
        && !first.contains('=')
        && first != "-"
    {
        *first = format!("token={first}");
    }
    let piped = (method == "token" && args == ["-"]).then(|| session.io.read_all(64 * 1024));
    if let Some(token) = piped {
        let token = token.map_err(|error| usage(format!("Error reading the token: {error}")))?;
        args = vec![format!("token={}", String::from_utf8_lossy(&token).trim())];
    }
    let interactive = session.interactive();
    let config = kvargs::parse_texts(session.io, &args, interactive)
        .map_err(|error| usage(format!("Error parsing configuration: {error}")))?;
    let secret = match authenticate(session, &method, config)? {
        Some(secret) => secret,
        None => return Err(remote("Vault returned an empty secret")),
    };
    let secret = match secret.auth.as_ref().is_some_and(|auth| auth.mfa_requirement.is_some()) {
        false => secret,
        true => match second_factor(session, &secret)? {
            Some(complete) => complete,
            None => {
                session.io.err(&format!("{}\n", wrap(SECOND_FACTOR_OWED)));
                return session.print_secret(&secret);
            }
        },
    };
    keep_and_print(session, secret, no_store, no_print, token_only)
}

/// Unwraps what came wrapped, keeps the token and prints it.
fn keep_and_print(
    session: &mut Session<'_, '_>,
    mut secret: Secret,
    no_store: bool,
    no_print: bool,
    token_only: bool,
) -> Outcome {
    if let (None, Some(wrap)) = (&secret.auth, &secret.wrap_info) {
        if wrap.wrapped_accessor.is_empty() {
            return Err(remote("Error extracting token: wrapped response does not contain a token"));
        }
        if token_only {
            let token = json!(wrap.token);
            return session.print_field(Some(token), "wrapping_token", "secret");
        }
        if no_store {
            return session.print_secret(&secret);
        }
        let mut request = super::logical::unwrap_request("", "");
        request.token = Some(wrap.token.clone());
        let inner = session.call_secret(&request).map_err(doing("Error extracting token"))?;
        secret = inner.ok_or_else(|| remote("Error extracting token: the wrapped response is empty"))?;
    }
    let Some(token) = secret.auth.as_ref().map(|auth| auth.client_token.clone()) else {
        return Err(remote("Error extracting token: no auth or wrapping info in response"));
    };
    if !no_store {
        if let Err(error) = token_file::store(session.io, &token) {
            session.io.err(&format!("Error storing token: {error}"));
            session.io.err(&format!(
                "{}\n",
                wrap("Authentication was successful, but the token was not persisted. It is shown below for your records.")
            ));
            session.print_secret(&secret)?;
            return Ok(2);
        }
        if session.io.setting("TOKEN").is_some() {
            session.io.err(&format!(
                "{}\n",
                wrap(
                    "WARNING! The VAULT_TOKEN environment variable is set! The value of this variable will take \
                     precedence; if this is unwanted please unset VAULT_TOKEN or update its value accordingly."
                )
            ));
        }
    } else if !token_only {
        session.io.err(&format!(
            "{}\n",
            wrap(
                "The token was not stored in token helper. Set the VAULT_TOKEN environment variable or pass the token \
                 below with each request to Vault."
            )
        ));
    }
    if no_print {
        return Ok(0);
    }
    if session.is_table() && !session.flags.given("field") {
        let program = session.program;
        session.io.out(&format!(
            "{}\n",
            wrap(&format!(
                "Success! You are now authenticated. The token information displayed below is already stored in the \
                 token helper. You do NOT need to run \"{program} login\" again. Future Vault requests will \
                 automatically use this token."
            ))
        ));
    }
    session.print_secret_or_field(&secret)
}

fn authenticate(
    session: &mut Session<'_, '_>,
    method: &str,
    mut config: BTreeMap<String, String>,
) -> Result<Option<Secret>, Fail> {
    let failed = doing("Error authenticating");
    if method == "token" {
        return token_login(session, config);
    }
    let mount =
        match session.flags.text("path").map(with_slash).or_else(|| config.remove("mount").map(|m| with_slash(&m))) {
            Some(path) => path.trim_start_matches("auth/").to_owned(),
            None => format!("{method}/"),
        };
    config.remove("mount");
    // whoever has a token of the provider already needs no browser
    if method == "oidc" && !config.contains_key("jwt") {
        return super::login_oidc::authenticate(session, &mount, &config);
    }
    let request = if PASSWORD_METHODS.contains(&method) {
        let user = match config.remove("username") {
            Some(user) => user,
            None => ask(session, "username", |io| io.ask("Username: "))?,
        };
        let password = match config.remove("password") {
            Some(password) => password,
            None => ask(session, "password", |io| io.ask_hidden("Password (will be hidden): "))?,
        };
        let mut body: Map<String, Value> = texts(config);
        body.insert("password".to_owned(), json!(password));
        Request::put(format!("auth/{mount}login/{user}"), Value::Object(body))
    } else {
        if method == "github" && !config.contains_key("token") {
            let token = match session.io.env.get("VAULT_AUTH_GITHUB_TOKEN") {
                Some(token) => token.clone(),
                None => ask(session, "token", |io| io.ask_hidden("GitHub Personal Access Token (will be hidden): "))?,
            };
            config.insert("token".to_owned(), token);
        }
        Request::put(format!("auth/{mount}login"), Value::Object(texts(config)))
    };
    // a login is made by what is posted; an old token must not fail it
    let request = Request { token: Some(String::new()), ..request };
    tokenless(session)?
        .call(&request)
        .and_then(|reply| Secret::parse(&reply.body).map_err(CallError::Failed))
        .map_err(failed)
}

fn texts(config: BTreeMap<String, String>) -> Map<String, Value> {
    config.into_iter().map(|(key, value)| (key, Value::String(value))).collect()
}

/// The client with no token at all: logging in does not read the token file, which may be broken.
pub fn tokenless<'a>(session: &'a mut Session<'_, '_>) -> Result<&'a mut Client, Fail> {
    let client = session.client()?;
    client.settings.token = String::new();
    Ok(client)
}

fn ask(
    session: &mut Session<'_, '_>,
    what: &str,
    asking: impl FnOnce(&mut super::io::Io<'_>) -> Result<String, String>,
) -> Result<String, Fail> {
    if !session.interactive() {
        return Err(remote(format!("Error authenticating: '{what}' not supplied and refusing to pull from stdin")));
    }
    asking(session.io).map_err(|error| remote(format!("Error authenticating: no {what} was given: {error}")))
}

fn token_login(session: &mut Session<'_, '_>, config: BTreeMap<String, String>) -> Result<Option<Secret>, Fail> {
    let token = match config.get("token") {
        Some(token) => token.clone(),
        None => ask(session, "token", |io| io.ask_hidden("Token (will be hidden): "))?,
    };
    let token = token.trim().to_owned();
    if token.is_empty() {
        return Err(remote("Error authenticating: a token must be passed to auth"));
    }
    let mut lookup = true;
    if let Some(text) = config.get("lookup") {
        lookup = super::verb::go_bool(text)
            .ok_or_else(|| remote("Error authenticating: failed to parse \"lookup\" as boolean"))?;
    }
    if !lookup {
        let auth = Auth { client_token: token, ..Auth::default() };
        return Ok(Some(Secret { auth: Some(auth), ..Secret::default() }));
    }
    let mut request = Request::get("auth/token/lookup-self");
    request.token = Some(token.clone());
    let answer = session
        .call_secret(&request)
        .map_err(doing("Error authenticating: error looking up token"))?
        .ok_or_else(|| remote("Error authenticating: empty response from lookup-self"))?;
    if answer.wrap_info.is_some() {
        return Ok(Some(answer));
    }
    Ok(Some(Secret {
        auth: Some(auth_of_lookup(&answer, token)),
        request_id: answer.request_id.clone(),
        ..Secret::default()
    }))
}

/// What a login would have answered, from a look-up of the token.
fn auth_of_lookup(lookup: &Secret, token: String) -> Auth {
    let text = |name: &str| lookup.field(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |name: &str| -> Vec<String> {
        let found = lookup.field(name).and_then(Value::as_array);
        found.into_iter().flatten().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    };
    let (own, identity) = (list("policies"), list("identity_policies"));
    let mut all = own.clone();
    all.extend(identity.iter().filter(|name| !own.contains(name)).cloned());
    Auth {
        client_token: token,
        accessor: text("accessor"),
        policies: all,
        token_policies: own,
        identity_policies: identity,
        metadata: lookup.field("meta").and_then(Value::as_object).cloned(),
        orphan: lookup.field("orphan") == Some(&Value::Bool(true)),
        entity_id: text("entity_id"),
        lease_duration: lookup.field("ttl").and_then(Value::as_i64).unwrap_or(0),
        renewable: lookup.field("renewable") == Some(&Value::Bool(true)),
        mfa_requirement: None,
    }
}

/// Completes a login that owes exactly one second factor, by asking for it. Answers nothing when it cannot be asked for.
pub fn second_factor(session: &mut Session<'_, '_>, secret: &Secret) -> Result<Option<Secret>, Fail> {
    let Some(requirement) = secret.auth.as_ref().and_then(|auth| auth.mfa_requirement.as_ref()) else {
        return Ok(None);
    };
    let constraints = requirement["mfa_constraints"].as_object();
    let methods: Vec<&Value> =
        constraints.into_iter().flatten().flat_map(|(_, one)| one["any"].as_array().into_iter().flatten()).collect();
    let one_constraint = constraints.is_some_and(|constraints| constraints.len() == 1);
    let ([method], true, true) =
        (methods.as_slice(), one_constraint, session.interactive() && session.io.stdin_is_terminal)
    else {
        return Ok(None);
    };
    let id = method["id"].as_str().unwrap_or_default().to_owned();
    let passcode = if method["uses_passcode"] == true {
        let kind = method["type"].as_str().unwrap_or_default();
        let prompt = format!("Enter the passphrase for methodID {id:?} of type {kind:?}: ");
        session.io.ask_hidden(&prompt).map_err(|error| remote(format!("failed to read passphrase: {error}")))?
    } else {
        session.io.err(
            "Asking Vault to perform MFA validation with upstream service. You should receive a push \
                        notification in your authenticator app shortly",
        );
        String::new()
    };
    let body = json!({ "mfa_request_id": requirement["mfa_request_id"], "mfa_payload": { id: [passcode] } });
    session.call_secret(&Request::post("sys/mfa/validate", body)).map_err(doing("Error validating the second factor"))
}

/// How to log in with a method, for `auth help`.
pub fn help(method: &str, program: &str) -> Option<String> {
    let arguments = match method {
        "token" => "<token>",
        "userpass" | "ldap" | "okta" | "radius" => "username=<name> [password=<password>]",
        "approle" => "role_id=<id> secret_id=<id>",
        "jwt" | "kubernetes" => "role=<role> jwt=<token>",
        "oidc" => super::login_oidc::ARGUMENTS,
        "cert" => "[name=<role>]",
        "github" => "[token=<personal access token>]",
        _ => return None,
    };
    let method_flag = if method == "token" { String::new() } else { format!("-method={method} ") };
    Some(format!(
        "Usage: {program} login {method_flag}{arguments}\n\n  Logs in with the {method} auth method. What is not given \
         and can be asked for\n  is asked for on the terminal. Use -path if the method is mounted elsewhere\n  than at \
         \"{method}/\"."
    ))
}
