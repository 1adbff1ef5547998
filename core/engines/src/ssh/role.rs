//! Roles: what a CA may sign, or who gets one-time passwords.

use crate::page;
use ringfence_logical::field::Preset;
use ringfence_logical::{Args, Cx, Error, Field, Kind, Outcome, Response, nothing};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub const ROLES: u8 = b'r';

pub const FIELDS: &[Field] = &[
    Field::str("name", "Name of the role."),
    Field::str("key_type", "ca or otp."),
    Field::str("default_user", "User name when the caller names none."),
    Field::bool("default_user_template", "default_user names the caller's identity."),
    Field::str("cidr_list", "Comma list of address ranges for which one-time passwords are made."),
    Field::str("exclude_cidr_list", "Comma list of address ranges taken out of it."),
    Field::int("port", "Port of the hosts.").preset(Preset::Int(22)),
    Field::str("allowed_users", "Comma list of user names; `*` for any."),
    Field::bool("allowed_users_template", "allowed_users names the caller's identity."),
    Field::str("allowed_domains", "Comma list of domains of host certificates; `*` for any."),
    Field::bool("allowed_domains_template", "allowed_domains names the caller's identity."),
    Field::seconds("ttl", "How long certificates are valid by default."),
    Field::seconds("max_ttl", "How long certificates are valid at most."),
    Field::str("allowed_critical_options", "Comma list; empty for any."),
    Field::str("allowed_extensions", "Comma list; `*` for any, empty for none."),
    Field::new("default_critical_options", Kind::Object, "Critical options when the caller names none."),
    Field::new("default_extensions", Kind::Object, "Extensions when the caller names none."),
    Field::bool("default_extensions_template", "Values of default_extensions name the caller's identity."),
    Field::bool("allow_user_certificates", "User certificates may be signed."),
    Field::bool("allow_host_certificates", "Host certificates may be signed."),
    Field::bool("allow_bare_domains", "Host certificates may name an allowed domain itself."),
    Field::bool("allow_subdomains", "Host certificates may name what is below an allowed domain."),
    Field::bool("allow_user_key_ids", "The caller may say the key id."),
    Field::str("key_id_format", "Template of the key id."),
    Field::new("allowed_user_key_lengths", Kind::Object, "Bits of the keys that are signed, by type."),
    Field::str("algorithm_signer", "ssh-rsa, rsa-sha2-256 or rsa-sha2-512."),
    Field::seconds("not_before_duration", "How long before now certificates begin to be valid.")
        .preset(Preset::Int(30)),
    Field::bool("allow_empty_principals", "Certificates may name nobody and so be good for everybody."),
];

/// A role.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Role {
    /// `ca` or `otp`.
    pub key_type: String,
    pub default_user: String,
    pub default_user_template: bool,
    pub cidr_list: String,
    pub exclude_cidr_list: String,
    pub port: i64,
    pub allowed_users: String,
    pub allowed_users_template: bool,
    pub allowed_domains: String,
    pub allowed_domains_template: bool,
    pub ttl: u64,
    pub max_ttl: u64,
    pub allowed_critical_options: String,
    pub allowed_extensions: String,
    pub default_critical_options: BTreeMap<String, String>,
    pub default_extensions: BTreeMap<String, String>,
    pub default_extensions_template: bool,
    pub allow_user_certificates: bool,
    pub allow_host_certificates: bool,
    pub allow_bare_domains: bool,
    pub allow_subdomains: bool,
    pub allow_user_key_ids: bool,
    pub key_id_format: String,
    pub allowed_user_key_lengths: BTreeMap<String, Vec<u64>>,
    pub algorithm_signer: String,
    pub not_before: u64,
    pub allow_empty_principals: bool,
}

/// The role of this name, or the refusal that names it.
pub fn load(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Role>, Error> {
    cx.get_json(ROLES, name.as_bytes())
}

/// The parts of a comma list.
pub fn parts(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|p| !p.is_empty())
}

/// An object of texts.
pub fn texts(v: Option<&Value>, name: &str) -> Result<BTreeMap<String, String>, Error> {
    let Some(Value::Object(o)) = v else { return Ok(BTreeMap::new()) };
    o.iter()
        .map(|(k, v)| match v {
            Value::String(s) => Ok((k.clone(), s.clone())),
            Value::Null => Ok((k.clone(), String::new())),
            Value::Bool(_) | Value::Number(_) => Ok((k.clone(), v.to_string())),
            _ => Err(Error::invalid(format!("{name}: the value of {k:?} is no text"))),
        })
        .collect()
}

fn lengths(v: Option<&Value>) -> Result<BTreeMap<String, Vec<u64>>, Error> {
    let bad =
        || Error::invalid("error processing allowed_user_key_lengths: lengths are integers or lists of integers");
    let one = |v: &Value| match v {
        Value::Number(n) => n.as_u64().ok_or_else(bad),
        Value::String(s) => s.parse().map_err(|_| bad()),
        _ => Err(bad()),
    };
    let Some(Value::Object(o)) = v else { return Ok(BTreeMap::new()) };
    o.iter()
        .map(|(kind, v)| {
            let list = match v {
                Value::Array(list) => list.iter().map(one).collect::<Result<_, _>>()?,
                v => vec![one(v)?],
            };
            Ok((kind.clone(), list))
        })
        .collect()
}

fn check_ranges(list: &str) -> Result<(), Error> {
    for range in parts(list) {
        if !range.contains('/') || !ringfence_logical::cx::is_cidr(range) {
            return Err(Error::invalid(format!("failed to validate cidr_list: invalid CIDR address: {range}")));
        }
    }
    Ok(())
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let text = |name: &str| args.str(name).to_owned();
    let mut role = Role {
        key_type: text("key_type").to_lowercase(),
        default_user: text("default_user"),
        default_user_template: args.bool("default_user_template"),
        allowed_users: text("allowed_users"),
        ..Role::default()
    };
    match role.key_type.as_str() {
        "" => return Err(Error::invalid("missing key type")),
        "otp" => {
            if role.default_user.is_empty() {
                return Err(Error::invalid("missing default user"));
            }
            role.cidr_list = text("cidr_list");
            role.exclude_cidr_list = text("exclude_cidr_list");
            check_ranges(&role.cidr_list)?;
            check_ranges(&role.exclude_cidr_list)?;
            role.port = args.int("port");
        }
        "ca" => certificates(args, &mut role)?,
        "dynamic" => return Err(Error::invalid("dynamic key type roles are no longer supported")),
        _ => return Err(Error::invalid("invalid key type")),
    }
    cx.put_json(ROLES, args.str("name").as_bytes(), &role);
    nothing()
}

/// The fields of a role that signs.
fn certificates(args: &Args, role: &mut Role) -> Result<(), Error> {
    let text = |name: &str| args.str(name).to_owned();
    role.allow_user_certificates = args.bool("allow_user_certificates");
    role.allow_host_certificates = args.bool("allow_host_certificates");
    if !role.allow_user_certificates && !role.allow_host_certificates {
        return Err(Error::invalid(
            "Either 'allow_user_certificates' or 'allow_host_certificates' must be set to 'true'",
        ));
    }
    (role.ttl, role.max_ttl) = (args.seconds("ttl"), args.seconds("max_ttl"));
    if role.max_ttl > 0 && role.ttl > role.max_ttl {
        return Err(Error::invalid("\"ttl\" value must be less than \"max_ttl\" when both are specified"));
    }
    role.algorithm_signer = text("algorithm_signer");
    if !matches!(role.algorithm_signer.as_str(), "" | "default" | "ssh-rsa" | "rsa-sha2-256" | "rsa-sha2-512") {
        return Err(Error::invalid(format!("unknown algorithm signer {:?}", role.algorithm_signer)));
    }
    role.allowed_users_template = args.bool("allowed_users_template");
    role.allowed_domains = text("allowed_domains");
    role.allowed_domains_template = args.bool("allowed_domains_template");
    role.allowed_critical_options = text("allowed_critical_options");
    role.allowed_extensions = text("allowed_extensions");
    role.default_critical_options = texts(args.json("default_critical_options"), "default_critical_options")?;
    role.default_extensions = texts(args.json("default_extensions"), "default_extensions")?;
    role.default_extensions_template = args.bool("default_extensions_template");
    role.allow_bare_domains = args.bool("allow_bare_domains");
    role.allow_subdomains = args.bool("allow_subdomains");
    role.allow_user_key_ids = args.bool("allow_user_key_ids");
    role.key_id_format = text("key_id_format");
    role.allowed_user_key_lengths = lengths(args.json("allowed_user_key_lengths"))?;
    role.not_before = args.seconds("not_before_duration");
    role.allow_empty_principals = args.bool("allow_empty_principals");
    Ok(())
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(role) = load(cx, args.str("name"))? else { return nothing() };
    if role.key_type == "otp" {
        return Response::json(json!({
            "key_type": role.key_type, "default_user": role.default_user, "cidr_list": role.cidr_list,
            "exclude_cidr_list": role.exclude_cidr_list, "port": role.port, "allowed_users": role.allowed_users,
        }))
        .done();
    }
    let mut m = match serde_json::to_value(&role) {
        Ok(Value::Object(m)) => m,
        _ => return Err(Error::internal("a role that does not serialise")),
    };
    for otp_only in ["cidr_list", "exclude_cidr_list", "port"] {
        m.remove(otp_only);
    }
    let not_before = m.remove("not_before").unwrap_or_default();
    m.insert("not_before_duration".into(), not_before);
    Response::data(m).done()
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let names = cx.list(ROLES, "", args.str("after"), page::limit(args))?;
    let mut info = serde_json::Map::new();
    for name in &names {
        if let Some(role) = load(cx, name)? {
            info.insert(name.clone(), json!({ "key_type": role.key_type }));
        }
    }
    let mut response = Response::keys(names);
    if let (Some(ringfence_logical::Data::Map(m)), false) = (&mut response.data, info.is_empty()) {
        m.insert("key_info".into(), info.into());
    }
    response.done()
}

pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if cx.exists(ROLES, args.str("name").as_bytes()) {
        cx.delete(ROLES, args.str("name").as_bytes());
    }
    nothing()
}
