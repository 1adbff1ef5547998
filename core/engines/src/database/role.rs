//! Dynamic roles: what is kept of them and the paths that change them.

use super::template::Template;
use super::{ROLES, STATICS, certificate, statement};
use crate::page;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use serde_json::{Value, json};

/// What an account is known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialType {
    /// A password.
    #[default]
    Password,
    /// A certificate whose common name is the account's.
    ClientCertificate,
}

impl CredentialType {
    /// As the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            CredentialType::Password => "password",
            CredentialType::ClientCertificate => "client_certificate",
        }
    }

    /// From the API.
    pub fn of(text: &str) -> Result<CredentialType, Error> {
        match text {
            "" | "password" => Ok(CredentialType::Password),
            "client_certificate" => Ok(CredentialType::ClientCertificate),
            "rsa_private_key" => Err(Error::invalid(
                "credential_type \"rsa_private_key\" is not supported by any database plugin here",
            )),
            other => Err(Error::invalid(format!("invalid credential_type {other:?}"))),
        }
    }
}

/// A dynamic role.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Role {
    pub db_name: String,
    pub creation: Vec<String>,
    pub revocation: Vec<String>,
    pub rollback: Vec<String>,
    pub renewal: Vec<String>,
    /// Seconds; 0 = the mount's.
    pub default_ttl: u64,
    /// Seconds; 0 = the mount's.
    pub max_ttl: u64,
    pub credential_type: CredentialType,
    pub credential_config: Map,
}

pub fn load(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Role>, Error> {
    cx.get_json(ROLES, name.as_bytes())
}

impl Role {
    /// A text of its credential configuration.
    pub fn config(&self, name: &str) -> &str {
        self.credential_config.get(name).and_then(Value::as_str).unwrap_or("")
    }
}

pub fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    Ok(cx.exists(ROLES, args.str("name").as_bytes()))
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Response::keys(cx.list(ROLES, "", args.str("after"), page::limit(args))?).done()
}

pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if cx.exists(ROLES, name.as_bytes()) {
        cx.delete(ROLES, name.as_bytes());
    }
    nothing()
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(r) = load(cx, args.str("name"))? else { return nothing() };
    let mut data = json!({
        "creation_statements": r.creation,
        "credential_type": r.credential_type.name(),
        "db_name": r.db_name,
        "default_ttl": r.default_ttl,
        "max_ttl": r.max_ttl,
        "renew_statements": r.renewal,
        "revocation_statements": r.revocation,
        "rollback_statements": r.rollback,
    });
    let mut shown = r.credential_config.clone();
    shown.remove("ca_private_key");
    if !shown.is_empty() {
        data["credential_config"] = Value::Object(shown);
    }
    Response::json(data).done()
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if cx.exists(STATICS, name.as_bytes()) {
        return Err(Error::invalid("Role and Static Role names must be unique"));
    }
    let mut r = load(cx, name)?.unwrap_or_default();
    if let Some(db) = args.opt_str("db_name") {
        r.db_name = db.to_owned();
    }
    if r.db_name.is_empty() {
        return Err(Error::invalid("database name is required"));
    }
    for (field, list) in [
        ("creation_statements", &mut r.creation),
        ("revocation_statements", &mut r.revocation),
        ("rollback_statements", &mut r.rollback),
        ("renew_statements", &mut r.renewal),
    ] {
        if let Some(given) = args.opt_list(field) {
            *list = statement::given(given);
        }
    }
    if let Some(ttl) = args.opt_seconds("default_ttl") {
        r.default_ttl = ttl;
    }
    if let Some(ttl) = args.opt_seconds("max_ttl") {
        r.max_ttl = ttl;
    }
    if r.max_ttl > 0 && r.default_ttl > r.max_ttl {
        return Err(Error::invalid("default_ttl exceeds max_ttl"));
    }
    if let Some(kind) = args.opt_str("credential_type") {
        r.credential_type = CredentialType::of(kind)?;
    }
    if let Some(config) = args.object("credential_config") {
        r.credential_config = config.clone();
    }
    check_config(r.credential_type, &r.credential_config)?;
    cx.put_json(ROLES, name.as_bytes(), &r);
    nothing()
}

/// Refuses a credential configuration that would fail at every use.
pub fn check_config(kind: CredentialType, config: &Map) -> Result<(), Error> {
    let known: &[&str] = match kind {
        CredentialType::Password => &["password_policy"],
        CredentialType::ClientCertificate => {
            &["common_name_template", "ca_cert", "ca_private_key", "key_type", "key_bits", "signature_bits"]
        }
    };
    if let Some(other) = config.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(Error::invalid(format!("credential_config key {other:?} is not one of {}", known.join(", "))));
    }
    if kind == CredentialType::ClientCertificate {
        let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or("");
        if !text("common_name_template").is_empty() {
            Template::parse(text("common_name_template"))
                .map_err(|why| Error::invalid(format!("invalid common_name_template: {why}")))?;
        }
        certificate::Spec::of(config).map_err(Error::invalid)?;
    }
    Ok(())
}
