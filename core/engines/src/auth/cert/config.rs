//! The configuration of a mount.

use ringfence_logical::{Args, Cx, Error, Outcome, Response, nothing};
use serde_json::json;

/// Area of the configuration.
const CONFIG: u8 = b'c';

/// The configuration.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    /// Renewals do not need the certificate of the login.
    pub disable_binding: bool,
    /// Metadata of the certificate goes to the alias too.
    pub enable_identity_alias_metadata: bool,
    pub ocsp_cache_size: i64,
    pub role_cache_size: i64,
    pub enable_metadata_on_failures: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            disable_binding: false,
            enable_identity_alias_metadata: false,
            ocsp_cache_size: 100,
            role_cache_size: 200,
            enable_metadata_on_failures: false,
        }
    }
}

pub fn load(cx: &mut Cx<'_, '_>) -> Result<Config, Error> {
    Ok(cx.get_json(CONFIG, b"")?.unwrap_or_default())
}

pub fn read(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let c = load(cx)?;
    Response::json(json!({
        "disable_binding": c.disable_binding,
        "enable_identity_alias_metadata": c.enable_identity_alias_metadata,
        "enable_metadata_on_failures": c.enable_metadata_on_failures,
        "ocsp_cache_size": c.ocsp_cache_size,
        "role_cache_size": c.role_cache_size,
    }))
    .done()
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut c = load(cx)?;
    let set = |to: &mut bool, name: &str| {
        if let Some(b) = args.opt_bool(name) {
            *to = b;
        }
    };
    set(&mut c.disable_binding, "disable_binding");
    set(&mut c.enable_identity_alias_metadata, "enable_identity_alias_metadata");
    set(&mut c.enable_metadata_on_failures, "enable_metadata_on_failures");
    if let Some(n) = args.opt_int("ocsp_cache_size") {
        if !(2..=100_000).contains(&n) {
            return Err(Error::invalid(format!("invalid cache size {n}, must be >= 2 and <= 100000")));
        }
        c.ocsp_cache_size = n;
    }
    if let Some(n) = args.opt_int("role_cache_size") {
        if !(-1..=10_000).contains(&n) {
            return Err(Error::invalid(format!(
                "invalid role cache size {n}, must be <= 10000 or -1 to disable role caching"
            )));
        }
        c.role_cache_size = n;
    }
    cx.put_json(CONFIG, b"", &c);
    nothing()
}
