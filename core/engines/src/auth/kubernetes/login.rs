//! Login with a service account token.
//!
//! The token is read first, so that the API server is not asked about tokens that could not be let in anyway; what it
//! says counts only after the API server (and the configured keys, if there are any) vouched for it.

use super::config::{self, Config};
use super::role::{self, AliasSource, Role};
use super::selector::Selector;
use crate::jose::{self, Key, Leeways, Token, check_times, glob};
use crate::outside::{self, HttpAsk, Outside, Stop};
use ringfence_base::Code;
use ringfence_logical::{Alias, Args, Cx, Error, Map, Outcome, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Where a pod finds the certificates of its cluster and a token of its own.
const LOCAL_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
const LOCAL_JWT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// The issuer that is expected if none is configured.
const DEFAULT_ISSUER: &str = "kubernetes/serviceaccount";
/// Annotations of an account that become metadata of its alias.
const ANNOTATION_PREFIX: &str = "vault.hashicorp.com/alias-metadata-";

pub fn login(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let (name, token) = (args.str("role").to_owned(), args.str("jwt").trim().to_owned());
    if name.is_empty() {
        return Err(Error::invalid("missing role"));
    }
    if token.is_empty() {
        return Err(Error::invalid("missing jwt"));
    }
    outside::run(cx, move |cx, out| with_token(cx, out, &name, &token))
}

fn denied(cause: impl Into<String>) -> Stop {
    Stop::Refuse(Error::denied_plain().because(cause))
}

fn not_authorized(what: &str) -> Stop {
    Stop::Refuse(Error::new(Code::Denied, format!("{what} not authorized")))
}

fn with_token(cx: &mut Cx<'_, '_>, out: &Outside, name: &str, token: &str) -> Result<Option<Response>, Stop> {
    let Some(role) = role::load(cx, name)? else {
        return Err(Error::invalid(format!("invalid role name {name:?}")).into());
    };
    let config = config::load(cx)?.ok_or_else(|| Error::plain("could not load backend configuration"))?;
    if !cx.host.cidr_allows(&role.token.bound_cidrs, cx.req.remote) {
        return Err(denied("the client's address is outside the role's bounds"));
    }
    let parsed = Token::parse(token).map_err(denied)?;
    check_claims(cx, &config, &role, &parsed)?;
    let account =
        Account::of(parsed.unverified_claims()).ok_or_else(|| denied("the token names no service account"))?;
    if !role.names.iter().any(|p| glob(p, &account.name)) {
        return Err(not_authorized("service account name"));
    }
    let in_named_namespace = role.namespaces.iter().any(|p| glob(p, &account.namespace));
    if !in_named_namespace && role.namespace_selector.is_empty() {
        return Err(not_authorized("namespace"));
    }
    let api = Api { config: &config, out, token };
    api.review(&role, &account)?;
    if !in_named_namespace {
        let namespace = api.object(&format!("/api/v1/namespaces/{}", account.namespace))?;
        let selector = Selector::parse(&role.namespace_selector).map_err(denied)?;
        if !selector.selects(&namespace["metadata"]["labels"]) {
            return Err(not_authorized("namespace"));
        }
    }
    let mut alias_metadata = account.metadata();
    if config.use_annotations_as_alias_metadata {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{}", account.namespace, account.name);
        let account_object = api.object(&path)?;
        let annotations = &account_object["metadata"]["annotations"];
        for (key, value) in annotations.as_object().into_iter().flatten() {
            if let (Some(key), Some(value)) = (key.strip_prefix(ANNOTATION_PREFIX), value.as_str()) {
                // what the method itself tells is not the annotations' to change
                alias_metadata.entry(key.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
    }
    let mut metadata = account.metadata();
    metadata.insert("role".into(), name.to_owned());
    let mut auth = role.token.auth(cx.req.remote);
    auth.display_name = format!("{}-{}", account.namespace, account.name);
    auth.alias = Some(Alias {
        name: match role.alias_name_source {
            AliasSource::ServiceaccountUid => account.uid,
            AliasSource::ServiceaccountName => format!("{}/{}", account.namespace, account.name),
        },
        metadata: alias_metadata,
    });
    auth.metadata = metadata;
    auth.internal = Map::from_iter([("role".to_owned(), Value::from(name))]);
    auth.role = name.to_owned();
    Ok(Some(Response { auth: Some(auth), ..Response::default() }))
}

/// What can be judged of a token here: its keys, issuer, times and audience.
fn check_claims(cx: &Cx<'_, '_>, config: &Config, role: &Role, token: &Token<'_>) -> Result<(), Stop> {
    let claims = token.unverified_claims();
    if !config.pem_keys.is_empty() {
        let keys: Vec<Key> = config.pem_keys.iter().filter_map(|p| Key::from_pem(p).ok()).collect();
        if token.verify(&keys).is_none() {
            return Err(denied("no configured key made the token's signature"));
        }
    }
    if !config.disable_iss_validation {
        let wanted = if config.issuer.is_empty() { DEFAULT_ISSUER } else { &config.issuer };
        if claims.get("iss").and_then(Value::as_str) != Some(wanted) {
            return Err(denied("invalid issuer (iss) claim"));
        }
    }
    // tokens of old clusters have no times at all
    if ["exp", "nbf", "iat"].iter().any(|t| claims.contains_key(*t)) {
        check_times(claims, &Leeways { expiration: i64::MAX / 4, ..Leeways::default() }, cx.now).map_err(denied)?;
    }
    let named = jose::audiences(claims).unwrap_or_default();
    if !role.audience.is_empty() && !named.contains(&role.audience) {
        return Err(denied("invalid audience (aud) claim"));
    }
    Ok(())
}

/// A service account as a token names it.
struct Account {
    name: String,
    namespace: String,
    uid: String,
    secret_name: String,
}

impl Account {
    /// Of a projected token's claims, or of an old cluster's.
    fn of(claims: &Map) -> Option<Account> {
        let text = |v: Option<&Value>| v.and_then(Value::as_str).unwrap_or_default().to_owned();
        let projected = claims.get("kubernetes.io");
        let account = match projected {
            Some(k) => Account {
                name: text(k["serviceaccount"].get("name")),
                namespace: text(k.get("namespace")),
                uid: text(k["serviceaccount"].get("uid")),
                secret_name: String::new(),
            },
            None => {
                let old = |name: &str| text(claims.get(&format!("kubernetes.io/serviceaccount/{name}")));
                Account {
                    name: old("service-account.name"),
                    namespace: old("namespace"),
                    uid: old("service-account.uid"),
                    secret_name: old("secret.name"),
                }
            }
        };
        // these names become parts of URLs and of alias names
        let is_label = |s: &str| {
            (1..=253).contains(&s.len())
                && s.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
                && !s.starts_with('.')
        };
        (is_label(&account.name) && is_label(&account.namespace) && !account.uid.is_empty()).then_some(account)
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("service_account_name".to_owned(), self.name.clone()),
            ("service_account_namespace".to_owned(), self.namespace.clone()),
            ("service_account_secret_name".to_owned(), self.secret_name.clone()),
            ("service_account_uid".to_owned(), self.uid.clone()),
        ])
    }
}

/// The cluster's API server.
struct Api<'a> {
    config: &'a Config,
    out: &'a Outside,
    token: &'a str,
}

impl Api<'_> {
    /// Asks whether the token is good, and compares whose it is.
    fn review(&self, role: &Role, account: &Account) -> Result<(), Stop> {
        let mut spec = json!({ "token": self.token });
        if !role.audience.is_empty() {
            spec["audiences"] = json!([role.audience]);
        }
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
        let url = format!("{}/apis/authentication.k8s.io/v1/tokenreviews", self.config.kubernetes_host);
        let ask = HttpAsk::post(url, "application/json", body.to_string().into_bytes());
        let status = self.ask(ask)?.get("status").cloned().unwrap_or_default();
        if let Some(why) = status["error"].as_str().filter(|e| !e.is_empty()) {
            return Err(denied(format!("lookup failed: {why}")));
        }
        if status["authenticated"] != true {
            return Err(denied("lookup failed: service account jwt not valid"));
        }
        let user = &status["user"];
        let wanted = format!("system:serviceaccount:{}:{}", account.namespace, account.name);
        if user["username"].as_str() != Some(&wanted) || user["uid"].as_str() != Some(&account.uid) {
            return Err(denied("lookup failed: the token is another account's"));
        }
        // an API server that knows of audiences says which of those asked for it accepted
        if let (false, Some(accepted)) = (role.audience.is_empty(), status["audiences"].as_array())
            && !accepted.iter().any(|a| a == role.audience.as_str())
        {
            return Err(denied("lookup failed: the token is not for the role's audience"));
        }
        Ok(())
    }

    fn object(&self, path: &str) -> Result<Value, Stop> {
        self.ask(HttpAsk::get(format!("{}{path}", self.config.kubernetes_host)))
    }

    fn ask(&self, ask: HttpAsk) -> Result<Value, Stop> {
        let local = !self.config.disable_local_ca_jwt;
        let reviewer = match self.config.token_reviewer_jwt.as_str() {
            "" => self.token,
            configured => configured,
        };
        let ask = HttpAsk {
            ca_file: (local && self.config.kubernetes_ca_cert.is_empty()).then_some(LOCAL_CA),
            bearer_file: (local && self.config.token_reviewer_jwt.is_empty()).then_some(LOCAL_JWT),
            ..ask.trusting(&self.config.kubernetes_ca_cert)
        };
        let ask = ask.header("accept", "application/json").header("authorization", format!("Bearer {reviewer}"));
        let answer = self.out.ask(ask)?.map_err(|why| denied(format!("lookup failed: {why}")))?;
        if !(200..300).contains(&answer.status) {
            return Err(denied(format!("lookup failed: the API server answered {}", answer.status)));
        }
        serde_json::from_slice(&answer.body).map_err(|_| denied("lookup failed: the API server's answer is not JSON"))
    }
}
