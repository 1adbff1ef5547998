//! The configuration of a mount: whose tokens are trusted.

use super::keys::{self, Known};
use crate::jose::{ALGORITHMS, Key};
use crate::outside::{self, Outside, Stop};
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use serde_json::{Value, json};

/// Area of the configuration.
const CONFIG: u8 = b'c';

/// The configuration.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    pub oidc_discovery_url: String,
    pub oidc_discovery_ca_pem: String,
    pub oidc_client_id: String,
    pub oidc_client_secret: String,
    pub oidc_response_mode: String,
    pub oidc_response_types: Vec<String>,
    pub jwks_url: String,
    pub jwks_ca_pem: String,
    pub jwks_pairs: Vec<JwksPair>,
    pub jwt_validation_pubkeys: Vec<String>,
    pub jwt_supported_algs: Vec<String>,
    pub bound_issuer: String,
    pub default_role: String,
    pub namespace_in_state: bool,
}

/// One of several key sets.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct JwksPair {
    pub jwks_url: String,
    pub jwks_ca_pem: String,
}

impl Config {
    /// True if the code flow is set up.
    pub fn has_code_flow(&self) -> bool {
        !self.oidc_discovery_url.is_empty() && !self.oidc_client_id.is_empty()
    }

    /// `response_type` of authentication requests.
    pub fn response_type(&self) -> String {
        let asked = ["code", "id_token"].into_iter().filter(|t| self.oidc_response_types.iter().any(|a| a == t));
        match asked.collect::<Vec<_>>().join(" ") {
            none if none.is_empty() => "code".to_owned(),
            types => types,
        }
    }

    /// True if a code comes back, and with it PKCE has something to protect.
    pub fn asks_for_code(&self) -> bool {
        self.oidc_response_types.is_empty() || self.oidc_response_types.iter().any(|t| t == "code")
    }

    /// The algorithms that a token may be signed with. Source: Vault's documented defaults: RS256 for OpenID
    /// Connect, any asymmetric one otherwise.
    pub fn allows(&self, algorithm: &str) -> bool {
        match self.jwt_supported_algs.is_empty() {
            true if !self.oidc_discovery_url.is_empty() => algorithm == "RS256",
            true => ALGORITHMS.contains(&algorithm),
            false => self.jwt_supported_algs.iter().any(|a| a == algorithm),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let sources = [
            !self.oidc_discovery_url.is_empty(),
            !self.jwks_url.is_empty(),
            !self.jwks_pairs.is_empty(),
            !self.jwt_validation_pubkeys.is_empty(),
        ];
        if sources.iter().filter(|s| **s).count() != 1 {
            return Err(Error::invalid(
                "exactly one of 'jwt_validation_pubkeys', 'jwks_url', 'jwks_pairs', 'oidc_discovery_url' must be set",
            ));
        }
        if self.oidc_client_id.is_empty() && !self.oidc_client_secret.is_empty() {
            return Err(Error::invalid("both 'oidc_client_id' and 'oidc_client_secret' must be set for OIDC"));
        }
        if !self.oidc_client_id.is_empty() && self.oidc_discovery_url.is_empty() {
            return Err(Error::invalid("'oidc_discovery_url' must be set for OIDC"));
        }
        for key in &self.jwt_validation_pubkeys {
            Key::from_pem(key).map_err(|why| Error::invalid(format!("error parsing public key: {why}")))?;
        }
        if let Some(bad) = self.jwt_supported_algs.iter().find(|a| !ALGORITHMS.contains(&a.as_str())) {
            return Err(Error::invalid(format!("Invalid supported algorithm: {bad}")));
        }
        if let Some(bad) = self.oidc_response_types.iter().find(|t| !matches!(t.as_str(), "code" | "id_token")) {
            return Err(Error::invalid(format!(
                "invalid response_types [{bad}]. 'code' and 'id_token' are the only supported values"
            )));
        }
        match self.oidc_response_mode.as_str() {
            "" | "query" if self.oidc_response_types.iter().any(|t| t == "id_token") => {
                Err(Error::invalid("query response_mode may not be used with an id_token response_type"))
            }
            "" | "query" | "form_post" => Ok(()),
            other => Err(Error::invalid(format!("invalid response_mode: {other:?}"))),
        }
    }

    fn shown(&self) -> Map {
        let all = json!({
            "bound_issuer": self.bound_issuer,
            "default_role": self.default_role,
            "jwks_ca_pem": self.jwks_ca_pem,
            "jwks_pairs": self.jwks_pairs,
            "jwks_url": self.jwks_url,
            "jwt_supported_algs": self.jwt_supported_algs,
            "jwt_validation_pubkeys": self.jwt_validation_pubkeys,
            "namespace_in_state": self.namespace_in_state,
            "oidc_client_id": self.oidc_client_id,
            "oidc_discovery_ca_pem": self.oidc_discovery_ca_pem,
            "oidc_discovery_url": self.oidc_discovery_url,
            "oidc_response_mode": self.oidc_response_mode,
            "oidc_response_types": self.oidc_response_types,
            "provider_config": {},
            "unsupported_critical_cert_extensions": [],
        });
        match all {
            Value::Object(m) => m,
            _ => Map::new(),
        }
    }
}

pub fn load(cx: &mut Cx<'_, '_>) -> Result<Option<Config>, Error> {
    cx.get_json(CONFIG, b"")
}

/// The configuration, which must be there.
pub fn required(cx: &mut Cx<'_, '_>) -> Result<Config, Error> {
    load(cx)?.ok_or_else(|| Error::invalid("could not load configuration"))
}

pub fn read(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    match load(cx)? {
        Some(config) => Response::data(config.shown()).done(),
        None => nothing(),
    }
}

/// Replaces the configuration, once what it names has answered.
pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let config = given(args)?;
    config.check()?;
    outside::run(cx, move |cx, out| {
        let known = check_source(&config, out)?;
        cx.put_json(CONFIG, b"", &config);
        keys::keep(cx, &config, known)?;
        Ok(None)
    })
}

/// What a request says. A write replaces all; what it does not name is at its default.
fn given(args: &Args) -> Result<Config, Error> {
    let text = |name: &str| args.str(name).trim().to_owned();
    let mut pairs = Vec::new();
    for pair in args.json("jwks_pairs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
        let pair: JwksPair = serde_json::from_value(pair.clone()).map_err(|_| {
            Error::invalid("error reading JWKS pairs: each is an object of 'jwks_url' and 'jwks_ca_pem'")
        })?;
        if pair.jwks_url.is_empty() {
            return Err(Error::invalid("error reading JWKS pairs: 'jwks_url' is missing"));
        }
        pairs.push(pair);
    }
    if pairs.len() > keys::MAX_SETS {
        return Err(Error::invalid(format!("at most {} JWKS pairs can be given", keys::MAX_SETS)));
    }
    if let Some(provider) = args.object("provider_config").filter(|p| !p.is_empty()) {
        // special handling of single providers is not served: to take it and not do it would let groups go missing
        return Err(Error::invalid(match provider.get("provider").and_then(Value::as_str) {
            None => "\"provider\" field not found in provider_config".to_owned(),
            Some(name) => format!("provider {name:?} not found in custom providers"),
        }));
    }
    if !args.list("unsupported_critical_cert_extensions").is_empty() {
        return Err(Error::invalid("'unsupported_critical_cert_extensions' is not supported"));
    }
    Ok(Config {
        oidc_discovery_url: text("oidc_discovery_url"),
        oidc_discovery_ca_pem: text("oidc_discovery_ca_pem"),
        oidc_client_id: text("oidc_client_id"),
        oidc_client_secret: args.str("oidc_client_secret").to_owned(),
        oidc_response_mode: text("oidc_response_mode"),
        oidc_response_types: args.list("oidc_response_types"),
        jwks_url: text("jwks_url"),
        jwks_ca_pem: text("jwks_ca_pem"),
        jwks_pairs: pairs,
        jwt_validation_pubkeys: args.list("jwt_validation_pubkeys"),
        jwt_supported_algs: args.list("jwt_supported_algs"),
        bound_issuer: text("bound_issuer"),
        default_role: text("default_role").to_lowercase(),
        namespace_in_state: args.bool("namespace_in_state"),
    })
}

/// Asks the issuer, so that a mistake shows at the write and not at the first login.
fn check_source(config: &Config, out: &Outside) -> Result<Known, Stop> {
    keys::fetch(config, out).map_err(|stop| match stop {
        Stop::Refuse(e) if !config.oidc_discovery_url.is_empty() => {
            Stop::Refuse(Error::invalid(format!("error checking oidc discovery URL: {}", e.text())))
        }
        Stop::Refuse(e) => Stop::Refuse(Error::invalid(format!("error checking jwks URL: {}", e.text()))),
        ask => ask,
    })
}
