//! `config/acme`, and external account bindings as the operator handles them.

use super::ACME;
use super::directory::Directory;
use crate::authority::Cluster;
use crate::role;
use crate::store;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_base::entropy::uuid4;
use ringfence_base::{Secret, Wall};
use ringfence_logical::cx::is_cidr;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Reach, Response, nothing};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// `config/acme`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    pub enabled: bool,
    pub default_directory_policy: String,
    pub allowed_roles: Vec<String>,
    pub allowed_issuers: Vec<String>,
    pub allow_role_ext_key_usage: bool,
    pub eab_policy: String,
    /// `address:port`, or empty.
    pub dns_resolver: String,
    /// What validation may connect to beside public addresses.
    pub permitted_address_ranges: Vec<String>,
    /// Seconds.
    pub max_ttl: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            enabled: false,
            default_directory_policy: "sign-verbatim".into(),
            allowed_roles: vec!["*".into()],
            allowed_issuers: vec!["*".into()],
            allow_role_ext_key_usage: false,
            eab_policy: "not-required".into(),
            dns_resolver: String::new(),
            permitted_address_ranges: Vec::new(),
            max_ttl: 90 * 86_400,
        }
    }
}

impl Config {
    /// How far the validation of challenges reaches.
    pub fn reach(&self) -> Reach {
        Reach {
            public_addresses_only: true,
            permitted_ranges: self.permitted_address_ranges.clone(),
            dns_resolver: self.dns_resolver.clone(),
        }
    }
}

/// Refuses what is neither empty nor the address and port of a name server.
fn check_resolver(text: &str) -> Result<(), Error> {
    let bad = |why: String| Error::invalid(format!("failed to parse DNS resolver address: {why}"));
    if text.is_empty() || text.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let Some((host, _)) = text.rsplit_once(':').filter(|_| text.parse::<IpAddr>().is_err()) else {
        return Err(bad(format!("address {text}: missing port in address")));
    };
    Err(bad(match host {
        "" => "got empty address".into(),
        h if h.parse::<Ipv4Addr>().is_ok() => format!("address {text}: invalid port"),
        _ => "expected IPv4/IPv6 address, likely got hostname".into(),
    }))
}

/// `GET config/acme`.
pub fn read(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    let c: Config = store::config(cx, "acme")?;
    Response::json(json!(c)).done()
}

/// `POST config/acme`.
pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut c: Config = store::config(cx, "acme")?;
    if let Some(b) = args.opt_bool("enabled") {
        c.enabled = b;
    }
    if let Some(b) = args.opt_bool("allow_role_ext_key_usage") {
        c.allow_role_ext_key_usage = b;
    }
    if let Some(l) = args.opt_list("allowed_roles") {
        c.allowed_roles = l;
    }
    if let Some(l) = args.opt_list("allowed_issuers") {
        c.allowed_issuers = l;
    }
    if let Some(s) = args.opt_seconds("max_ttl") {
        c.max_ttl = s;
    }
    if let Some(p) = args.opt_str("eab_policy") {
        if !matches!(p, "not-required" | "new-account-required" | "always-required") {
            return Err(Error::invalid(format!("invalid eab policy name provided, unknown value '{p}'")));
        }
        c.eab_policy = p.to_owned();
    }
    if let Some(p) = args.opt_str("default_directory_policy") {
        c.default_directory_policy = p.to_owned();
    }
    if let Some(r) = args.opt_str("dns_resolver") {
        check_resolver(r)?;
        c.dns_resolver = r.to_owned();
    }
    if let Some(l) = args.opt_list("permitted_address_ranges") {
        if let Some(bad) = l.iter().find(|r| !is_cidr(r)) {
            return Err(Error::invalid(format!("permitted_address_ranges: {bad:?} is not a range of addresses")));
        }
        c.permitted_address_ranges = l;
    }
    for r in c.allowed_roles.iter().filter(|r| *r != "*") {
        if role::load(cx, r)?.is_none() {
            return Err(Error::invalid(format!("role {r} specified in allowed_roles does not exist")));
        }
    }
    for i in c.allowed_issuers.iter().filter(|i| *i != "*") {
        store::issuer(cx, i)
            .map_err(|e| Error::invalid(format!("failed validating allowed_issuers: {}", e.text())))?;
    }
    match c.default_directory_policy.as_str() {
        "forbid" | "sign-verbatim" => {}
        p => {
            let name = p
                .strip_prefix("role:")
                .ok_or_else(|| Error::invalid(format!("string {p:?} not a valid default directory policy")))?;
            if role::load(cx, name)?.is_none() {
                return Err(Error::invalid(format!("default directory policy role {name} does not exist")));
            }
            if !c.allowed_roles.iter().any(|r| r == "*" || r == name) {
                return Err(Error::invalid(format!(
                    "default directory policy of role {name} is not in the list of allowed_roles"
                )));
            }
        }
    }
    let cluster: Cluster = store::config(cx, "cluster")?;
    if c.enabled && cluster.path.is_empty() {
        return Err(Error::invalid("ACME feature requires local cluster 'path' field configuration to be set"));
    }
    store::save_config(cx, "acme", &c);
    Response::json(json!(c)).done()
}

/// An external account binding that nobody used yet.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub struct Eab {
    /// Key of the HMAC.
    pub key: store::Bytes,
    /// The directory it is for, below the mount.
    pub directory: String,
    /// Nanoseconds since the epoch.
    pub created_ns: u64,
}

/// The record of a binding.
pub fn eab_suffix(id: &str) -> Vec<u8> {
    format!("eab/{id}").into_bytes()
}

/// `acme/new-eab` of any directory.
pub fn new_eab(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut key = Secret::new(vec![0; 32]);
    cx.rng.fill(key.expose_mut());
    let id = uuid4(cx.rng);
    let directory = Directory::prefix_of(&cx.req.path, args);
    let eab = Eab { key: store::Bytes(key.expose().clone()), directory: directory.clone(), created_ns: cx.now.0 };
    cx.put_json(ACME, &eab_suffix(&id), &eab);
    Response::json(json!({
        "id": id,
        "key_type": "hs",
        "key": URL_SAFE_NO_PAD.encode(key.expose()),
        "acme_directory": format!("{directory}/directory"),
        "created_on": Wall(eab.created_ns).rfc3339(),
    }))
    .done()
}

/// `LIST eab`.
pub fn list_eab(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    let ids = cx.scan_keys(ACME, "eab/", "", 0)?;
    if ids.is_empty() {
        return Response::keys(ids).done();
    }
    let mut info = Map::new();
    for id in &ids {
        if let Some(e) = cx.get_json::<Eab>(ACME, &eab_suffix(id))? {
            let directory = format!("{}/directory", e.directory);
            let created_on = Wall(e.created_ns).rfc3339();
            info.insert(id.clone(), json!({"key_type": "hs", "acme_directory": directory, "created_on": created_on}));
        }
    }
    Response::json(json!({"keys": ids, "key_info": info})).done()
}

/// `DELETE eab/:key_id`.
pub fn delete_eab(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let id = args.str("key_id");
    if !cx.exists(ACME, &eab_suffix(id)) {
        return Response::default().warn("No key id found with id: ".to_owned() + id).done();
    }
    cx.delete(ACME, &eab_suffix(id));
    nothing()
}
