//! `identity/oidc/provider/*`: issuers, each for some clients and scopes, with their discovery document and key set.
//! The provider `default` is always there.

use super::super::signing::ALGORITHMS;
use super::super::{discovery, keys, load, names, save, template};
use super::{OPENID, PROVIDER, clients, scopes};
use crate::identity::view;
use crate::tables;
use ringfence_logical::{Args, Cx, Error, Field, Outcome, Path, Response, nothing};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The provider that every namespace has.
pub const DEFAULT: &str = "default";
const NAME: Field = Field::str("name", "Name of the provider.");

/// The paths.
pub const PATHS: &[Path] = &[
    Path::new("oidc/provider/?")
        .fields(&[Field::str("allowed_client_id", "Only providers that serve this client id.").query()])
        .help("List OpenID providers.", "")
        .list(list),
    Path::new("oidc/provider/{name}")
        .fields(&[
            NAME,
            Field::str("issuer", "Scheme, host and port of the issuer; empty for our own address."),
            Field::list("allowed_client_ids", "Client ids that may use it; * for all."),
            Field::list("scopes_supported", "Names of scopes beside openid."),
        ])
        .help("Read, write or delete an OpenID provider.", "")
        .exists(|cx, args| Ok(find(cx, args.str("name"))?.is_some()))
        .read(read)
        .write(write)
        .delete(delete),
    Path::new("oidc/provider/{name}/.well-known/openid-configuration")
        .fields(&[NAME])
        .help("Discovery of an OpenID provider.", "")
        .public()
        .read(configuration),
    Path::new("oidc/provider/{name}/.well-known/keys")
        .fields(&[NAME])
        .help("Public keys of an OpenID provider.", "")
        .public()
        .read(key_set),
];

/// A provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provider {
    /// Scheme, host and port; empty for our own address.
    issuer: String,
    /// Client ids, or `*`.
    allowed_client_ids: Vec<String>,
    /// Names of scopes beside `openid`.
    pub scopes_supported: Vec<String>,
}

impl Provider {
    /// True if a client may use it.
    pub fn allows(&self, client_id: &str) -> bool {
        self.allowed_client_ids.iter().any(|c| c == "*" || c == client_id)
    }

    /// The issuer as tokens name it.
    pub fn issuer(&self, cx: &Cx<'_, '_>, name: &str) -> String {
        discovery::address(cx, &self.issuer, &format!("identity/oidc/provider/{name}"))
    }

    fn shown(&self, cx: &Cx<'_, '_>, name: &str) -> Value {
        json!({
            "issuer": self.issuer(cx, name), "allowed_client_ids": self.allowed_client_ids,
            "scopes_supported": self.scopes_supported,
        })
    }
}

/// Reads a provider.
pub fn find(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Provider>, Error> {
    let kept = load(cx.txn, cx.mount.ns, PROVIDER, name)?;
    let default = || Provider { allowed_client_ids: vec!["*".into()], ..Provider::default() };
    Ok(kept.or_else(|| (name == DEFAULT).then(default)))
}

fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut all: BTreeSet<String> = names(cx.txn, cx.mount.ns, PROVIDER).into_iter().collect();
    all.insert(DEFAULT.to_owned());
    let client_id = args.str("allowed_client_id");
    let mut rows = Vec::new();
    for name in all {
        let Some(provider) = find(cx, &name)? else { continue };
        if client_id.is_empty() || provider.allows(client_id) {
            let shown = provider.shown(cx, &name);
            rows.push((name, shown));
        }
    }
    view::listing(rows)
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    match find(cx, name)? {
        Some(provider) => Response::json(provider.shown(cx, name)).done(),
        None => nothing(),
    }
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let mut provider = find(cx, name)?.unwrap_or_default();
    if let Some(issuer) = args.opt_str("issuer") {
        provider.issuer = discovery::origin(issuer)?;
    }
    let distinct = |mut given: Vec<String>| {
        given.sort();
        given.dedup();
        given
    };
    if let Some(ids) = args.opt_list("allowed_client_ids") {
        provider.allowed_client_ids = distinct(ids);
    }
    if let Some(given) = args.opt_list("scopes_supported") {
        provider.scopes_supported = distinct(given);
    }
    let mut response = Response::default();
    if !provider.issuer.is_empty() {
        response = response.warn(discovery::ISSUER_WARNING);
    }
    let mut by: BTreeMap<String, &str> = BTreeMap::new();
    for scope in &provider.scopes_supported {
        let Some(found) = scopes::find(cx, scope)? else {
            return Err(Error::invalid(format!("scope {scope:?} does not exist")));
        };
        for claim in template::names(&found.template) {
            if let Some(other) = by.insert(claim.clone(), scope) {
                response = response.warn(format!(
                    "Found scope templates with conflicting top-level keys: conflict {claim:?} in scopes {scope:?}, \
                     {other:?}. This may result in an error if the scopes are requested in an OIDC Authentication \
                     Request."
                ));
            }
        }
    }
    save(cx.txn, cx.mount.ns, PROVIDER, name, &provider);
    if response.warnings.is_empty() { nothing() } else { response.done() }
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if name == DEFAULT {
        return Err(Error::invalid("deletion of OIDC provider \"default\" not allowed"));
    }
    if find(cx, name)?.is_some() {
        cx.txn.delete(&tables::oidc(cx.mount.ns, PROVIDER, name));
    }
    nothing()
}

/// OpenID Connect Discovery 1.0, 3.
fn configuration(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let Some(provider) = find(cx, name)? else { return nothing() };
    let issuer = provider.issuer(cx, name);
    let mut scopes = provider.scopes_supported;
    scopes.push(OPENID.to_owned());
    let document = json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/.well-known/keys"),
        // where Vault's user interface stands: who logs in there asks our endpoint with his token
        "authorization_endpoint": format!("{}/authorize", issuer.replacen("/v1/", "/ui/vault/", 1)),
        "token_endpoint": format!("{issuer}/token"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "id_token_signing_alg_values_supported": ALGORITHMS.map(|a| a.as_str()),
        "scopes_supported": scopes,
        "claims_supported": [],
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "grant_types_supported": ["authorization_code"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["plain", "S256"],
    });
    discovery::document(&document, discovery::MAX_AGE_SECONDS)
}

/// Public keys of every client that the provider serves.
fn key_set(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(provider) = find(cx, args.str("name"))? else { return nothing() };
    let all = clients::all(cx)?;
    let used = all.into_iter().filter(|c| provider.allows(&c.client_id)).map(|c| c.key).collect();
    let set = keys::published(cx, &used)?;
    let age = keys::key_set_age(cx)?;
    discovery::document(&set, age)
}
