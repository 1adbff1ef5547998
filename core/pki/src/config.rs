//! The mount's configuration: URLs, CRL and OCSP, cluster.

use crate::authority::{Cluster, is_url};
use crate::cert::Urls;
use crate::store;
use ringfence_base::duration;
use ringfence_logical::{Args, Cx, Error, Outcome, Response};
use serde_json::json;

/// `config/crl`. Durations keep the text they were given as, as the API prints them so.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct CrlConfig {
    pub expiry: String,
    pub disable: bool,
    pub ocsp_disable: bool,
    pub ocsp_expiry: String,
    pub auto_rebuild: bool,
    pub auto_rebuild_grace_period: String,
    pub enable_delta: bool,
    pub delta_rebuild_interval: String,
    pub allow_expired_cert_revocation: bool,
    pub cross_cluster_revocation: bool,
    pub unified_crl: bool,
    pub unified_crl_on_existing_paths: bool,
    pub max_crl_entries: i64,
}

impl Default for CrlConfig {
    fn default() -> CrlConfig {
        CrlConfig {
            expiry: "72h".into(),
            disable: false,
            ocsp_disable: false,
            ocsp_expiry: "12h".into(),
            auto_rebuild: false,
            auto_rebuild_grace_period: "12h".into(),
            enable_delta: false,
            delta_rebuild_interval: "15m".into(),
            allow_expired_cert_revocation: false,
            cross_cluster_revocation: false,
            unified_crl: false,
            unified_crl_on_existing_paths: false,
            max_crl_entries: 100_000,
        }
    }
}

/// The seconds of a configured duration, which was checked when it was written.
pub fn seconds(text: &str) -> u64 {
    duration::parse_seconds(text).unwrap_or(0)
}

impl CrlConfig {
    fn update(&mut self, args: &Args) -> Result<(), Error> {
        for (name, field) in [
            ("expiry", &mut self.expiry),
            ("ocsp_expiry", &mut self.ocsp_expiry),
            ("auto_rebuild_grace_period", &mut self.auto_rebuild_grace_period),
            ("delta_rebuild_interval", &mut self.delta_rebuild_interval),
        ] {
            if let Some(text) = args.opt_str(name) {
                if duration::parse_seconds(text).is_none() || text.is_empty() {
                    let why = format!("time: invalid duration {text:?}");
                    return Err(Error::invalid(format!("given {name} could not be decoded: {why}")));
                }
                *field = text.to_owned();
            }
        }
        for (name, field) in [
            ("disable", &mut self.disable),
            ("ocsp_disable", &mut self.ocsp_disable),
            ("auto_rebuild", &mut self.auto_rebuild),
            ("enable_delta", &mut self.enable_delta),
            ("allow_expired_cert_revocation", &mut self.allow_expired_cert_revocation),
        ] {
            if let Some(b) = args.opt_bool(name) {
                *field = b;
            }
        }
        for name in ["cross_cluster_revocation", "unified_crl", "unified_crl_on_existing_paths"] {
            if args.bool(name) {
                return Err(Error::invalid(format!(
                    "{name} needs replicated clusters; this cluster's own lists are complete"
                )));
            }
        }
        if let Some(n) = args.opt_int("max_crl_entries") {
            if n < -1 {
                return Err(Error::invalid("max_crl_entries must be -1 or greater"));
            }
            self.max_crl_entries = n;
        }
        if self.auto_rebuild && seconds(&self.auto_rebuild_grace_period) >= seconds(&self.expiry) {
            return Err(Error::invalid(format!(
                "CRL auto-rebuilding grace period ({}) must be strictly shorter than CRL expiry ({}) value when \
                 auto-rebuilding of CRLs is enabled",
                self.auto_rebuild_grace_period, self.expiry
            )));
        }
        if self.enable_delta && seconds(&self.delta_rebuild_interval) >= seconds(&self.expiry) {
            return Err(Error::invalid(format!(
                "CRL delta rebuild window ({}) must be strictly shorter than CRL expiry ({}) value when delta CRLs are \
                 enabled",
                self.delta_rebuild_interval, self.expiry
            )));
        }
        if self.enable_delta && !self.auto_rebuild {
            return Err(Error::invalid(
                "Delta CRLs cannot be enabled when auto rebuilding is disabled as the complete CRL is always regenerated!",
            ));
        }
        Ok(())
    }
}

/// `GET config/crl`.
pub fn read_crl(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    let c: CrlConfig = store::config(cx, "crl")?;
    Response::json(json!(c)).done()
}

/// `POST config/crl`.
pub fn write_crl(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut c: CrlConfig = store::config(cx, "crl")?;
    c.update(args)?;
    store::save_config(cx, "crl", &c);
    Response::json(json!(c)).done()
}

/// Refuses what is no URL.
pub fn check_urls(field: &str, urls: &[String], templated: bool) -> Result<(), Error> {
    match urls.iter().find(|u| !(is_url(u) || templated && u.contains("{{"))) {
        None => Ok(()),
        Some(bad) => Err(Error::invalid(format!(
            "invalid URL found in Authority Information Access (AIA) parameter {field}: {bad}"
        ))),
    }
}

fn urls_shown(u: &Urls) -> Response {
    Response::json(json!({
        "issuing_certificates": u.issuing_certificates,
        "crl_distribution_points": u.crl_distribution_points,
        "delta_crl_distribution_points": u.delta_crl_distribution_points,
        "ocsp_servers": u.ocsp_servers,
        "enable_templating": u.enable_templating,
    }))
}

/// `GET config/urls`.
pub fn read_urls(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    urls_shown(&store::config(cx, "urls")?).done()
}

/// `POST config/urls`.
pub fn write_urls(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut u: Urls = store::config(cx, "urls")?;
    if let Some(b) = args.opt_bool("enable_templating") {
        u.enable_templating = b;
    }
    for (name, field) in [
        ("issuing_certificates", &mut u.issuing_certificates),
        ("crl_distribution_points", &mut u.crl_distribution_points),
        ("delta_crl_distribution_points", &mut u.delta_crl_distribution_points),
        ("ocsp_servers", &mut u.ocsp_servers),
    ] {
        if let Some(list) = args.opt_list(name) {
            *field = list.into_iter().filter(|t| !t.is_empty()).collect();
        }
        check_urls(name, field, u.enable_templating)?;
    }
    store::save_config(cx, "urls", &u);
    urls_shown(&u).done()
}

fn cluster_shown(c: &Cluster) -> Response {
    Response::json(json!({"path": c.path, "aia_path": c.aia_path}))
}

/// `GET config/cluster`.
pub fn read_cluster(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    cluster_shown(&store::config(cx, "cluster")?).done()
}

/// `POST config/cluster`.
pub fn write_cluster(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut c: Cluster = store::config(cx, "cluster")?;
    if let Some(p) = args.opt_str("path") {
        if !p.is_empty() && !is_url(p) {
            return Err(Error::invalid(format!("invalid, non-URL path given to cluster: {p}")));
        }
        c.path = p.to_owned();
    }
    if let Some(p) = args.opt_str("aia_path") {
        if !p.is_empty() && !is_url(p) {
            return Err(Error::invalid(format!("invalid, non-URL aia_path given to cluster: {p}")));
        }
        c.aia_path = p.to_owned();
    }
    store::save_config(cx, "cluster", &c);
    cluster_shown(&c).done()
}
