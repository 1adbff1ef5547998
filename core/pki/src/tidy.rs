//! Tidying: certificates that expired long ago, their revocations, issuers nobody needs. In pieces, by a scheduled job;
//! what a run does and how far it came is one record, so a new leader goes on where the old one stood.

use crate::cert;
use crate::crl;
use crate::metadata::{METADATA, Metadata};
use crate::store::{self, CERTS, DefaultIssuer, REVOKED};
use ringfence_base::Code;
use ringfence_base::Wall;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use serde_json::{Value, json};

/// The job that works.
pub const JOB: &str = "tidy";
/// The job that begins.
pub const AUTO_JOB: &str = "auto-tidy";
/// Records looked at in one piece of work.
const PIECE: usize = 256;

/// What to tidy.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Targets {
    pub tidy_cert_store: bool,
    pub tidy_revoked_certs: bool,
    pub tidy_revoked_cert_issuer_associations: bool,
    pub tidy_expired_issuers: bool,
    pub tidy_move_legacy_ca_bundle: bool,
    pub tidy_acme: bool,
    pub tidy_invalid_certs: bool,
    pub tidy_revocation_queue: bool,
    pub tidy_cross_cluster_revoked_certs: bool,
    pub tidy_cert_metadata: bool,
    /// Seconds.
    pub safety_buffer: u64,
    /// Seconds.
    pub issuer_safety_buffer: u64,
    /// Seconds.
    pub revocation_queue_safety_buffer: u64,
    /// Seconds.
    pub acme_account_safety_buffer: u64,
    /// As given.
    pub pause_duration: String,
}

impl Default for Targets {
    fn default() -> Targets {
        Targets {
            tidy_cert_store: false,
            tidy_revoked_certs: false,
            tidy_revoked_cert_issuer_associations: false,
            tidy_expired_issuers: false,
            tidy_move_legacy_ca_bundle: false,
            tidy_acme: false,
            tidy_invalid_certs: false,
            tidy_revocation_queue: false,
            tidy_cross_cluster_revoked_certs: false,
            tidy_cert_metadata: false,
            safety_buffer: 72 * 3600,
            issuer_safety_buffer: 8760 * 3600,
            revocation_queue_safety_buffer: 48 * 3600,
            acme_account_safety_buffer: 720 * 3600,
            pause_duration: "0s".into(),
        }
    }
}

impl Targets {
    fn update(&mut self, args: &Args) -> Result<(), Error> {
        macro_rules! take {
            ($($get:ident: $($field:ident),+;)+) => {
                $($(if let Some(v) = args.$get(stringify!($field)) { self.$field = v.into(); })+)+
            };
        }
        take! {
            opt_bool: tidy_cert_store, tidy_revoked_certs, tidy_revoked_cert_issuer_associations,
                tidy_expired_issuers, tidy_move_legacy_ca_bundle, tidy_acme, tidy_invalid_certs,
                tidy_revocation_queue, tidy_cross_cluster_revoked_certs, tidy_cert_metadata;
            opt_seconds: safety_buffer, issuer_safety_buffer, revocation_queue_safety_buffer,
                acme_account_safety_buffer;
            opt_str: pause_duration;
        }
        self.tidy_revoked_certs |= args.bool("tidy_revocation_list");
        for (name, value) in [
            ("safety_buffer", self.safety_buffer),
            ("issuer_safety_buffer", self.issuer_safety_buffer),
            ("revocation_queue_safety_buffer", self.revocation_queue_safety_buffer),
            ("acme_account_safety_buffer", self.acme_account_safety_buffer),
        ] {
            if value < 1 {
                return Err(Error::invalid(format!("{name} must be greater than zero")));
            }
        }
        if ringfence_base::duration::parse_ns(&self.pause_duration).is_none_or(|d| d < 0) {
            return Err(Error::invalid(format!(
                "Error parsing pause_duration: time: invalid duration {:?}",
                self.pause_duration
            )));
        }
        Ok(())
    }

    fn any(&self) -> bool {
        self.tidy_cert_store
            || self.tidy_revoked_certs
            || self.tidy_revoked_cert_issuer_associations
            || self.tidy_expired_issuers
            || self.tidy_move_legacy_ca_bundle
            || self.tidy_acme
            || self.tidy_invalid_certs
            || self.tidy_revocation_queue
            || self.tidy_cross_cluster_revoked_certs
            || self.tidy_cert_metadata
    }
}

const TARGETS: &str = "tidy_cert_store=true or tidy_revoked_certs=true or tidy_revoked_cert_issuer_associations=true or \
                       tidy_expired_issuers=true or tidy_move_legacy_ca_bundle=true or tidy_revocation_queue=true or \
                       tidy_cross_cluster_revoked_certs=true or tidy_acme=true";

/// What a run works on.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
enum Phase {
    #[default]
    Certificates,
    Revoked,
    Lists,
    Metadata,
    Issuers,
}

/// A run, going or gone.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct Run {
    state: String,
    targets: Targets,
    phase: Phase,
    after: String,
    started_ns: u64,
    finished_ns: u64,
    error: Option<String>,
    cert_store_deleted: u64,
    revoked_deleted: u64,
    missing_issuer: u64,
    metadata_deleted: u64,
}

/// `config/auto-tidy`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct Auto {
    enabled: bool,
    /// Seconds.
    interval_duration: u64,
    /// Seconds.
    min_startup_backoff_duration: u64,
    /// Seconds.
    max_startup_backoff_duration: u64,
    maintain_stored_certificate_counts: bool,
    publish_stored_certificate_count_metrics: bool,
    #[serde(flatten)]
    targets: Targets,
}

impl Default for Auto {
    fn default() -> Auto {
        Auto {
            enabled: false,
            interval_duration: 12 * 3600,
            min_startup_backoff_duration: 300,
            max_startup_backoff_duration: 900,
            maintain_stored_certificate_counts: false,
            publish_stored_certificate_count_metrics: false,
            targets: Targets::default(),
        }
    }
}

/// `tidy`.
pub fn start(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut targets = Targets::default();
    targets.update(args)?;
    let run: Run = store::config(cx, "tidy-run")?;
    if matches!(run.state.as_str(), "Running" | "Cancelling") {
        return Response::default().warn("Tidy operation already in progress.").code(Code::Accepted).done();
    }
    let answer = Response::default().code(Code::Accepted);
    if !targets.any() {
        return answer.warn(format!("No targets to tidy; specify {TARGETS} to start a tidy operation.")).done();
    }
    begin(cx, targets);
    answer
        .warn(
            "Tidy operation successfully started. Any information from the operation will be printed to Vault's server \
             logs.",
        )
        .done()
}

fn begin(cx: &mut Cx<'_, '_>, targets: Targets) {
    let run = Run { state: "Running".into(), targets, started_ns: cx.now.0, ..Run::default() };
    store::save_config(cx, "tidy-run", &run);
    let now = cx.now;
    cx.schedule(JOB, now);
}

/// A job is due.
pub fn due(cx: &mut Cx<'_, '_>, job: &str) -> Outcome {
    match job {
        AUTO_JOB => {
            let auto: Auto = store::config(cx, "auto-tidy")?;
            if !auto.enabled {
                return nothing();
            }
            let run: Run = store::config(cx, "tidy-run")?;
            if !matches!(run.state.as_str(), "Running" | "Cancelling") {
                begin(cx, auto.targets);
                let now = cx.now;
                store::save_config(cx, "tidy-last-auto", &now.0);
            }
            let next = cx.now.plus_seconds(auto.interval_duration);
            cx.schedule(AUTO_JOB, next);
            nothing()
        }
        JOB => work(cx),
        _ => nothing(),
    }
}

fn work(cx: &mut Cx<'_, '_>) -> Outcome {
    let mut run: Run = store::config(cx, "tidy-run")?;
    if run.state == "Cancelling" {
        run.state = "Cancelled".into();
        run.finished_ns = cx.now.0;
        store::save_config(cx, "tidy-run", &run);
        return nothing();
    }
    if run.state != "Running" {
        return nothing();
    }
    let more = match run.phase {
        Phase::Certificates => certificates(cx, &mut run)?,
        Phase::Revoked => revoked(cx, &mut run)?,
        Phase::Lists => lists(cx, &mut run)?,
        Phase::Metadata => metadata(cx, &mut run)?,
        Phase::Issuers => issuers(cx, &mut run)?,
    };
    if !more {
        run.after = String::new();
        run.phase = match run.phase {
            Phase::Certificates => Phase::Revoked,
            Phase::Revoked => Phase::Lists,
            Phase::Lists => Phase::Metadata,
            Phase::Metadata => Phase::Issuers,
            Phase::Issuers => {
                run.state = "Finished".into();
                run.finished_ns = cx.now.0;
                run.phase
            }
        };
    }
    if run.state == "Running" {
        let pause = ringfence_base::duration::parse_ns(&run.targets.pause_duration).unwrap_or(0);
        let next = cx.now.plus_ns(u64::try_from(pause).unwrap_or(0));
        cx.schedule(JOB, next);
    }
    store::save_config(cx, "tidy-run", &run);
    nothing()
}

/// The next names of an area, and whether there are more.
fn piece(cx: &mut Cx<'_, '_>, area: u8, run: &mut Run) -> Result<(Vec<String>, bool), Error> {
    let names = cx.scan_keys(area, "", &run.after, PIECE)?;
    let more = names.len() == PIECE;
    run.after = names.last().cloned().unwrap_or_default();
    Ok((names, more))
}

fn certificates(cx: &mut Cx<'_, '_>, run: &mut Run) -> Result<bool, Error> {
    if !run.targets.tidy_cert_store && !run.targets.tidy_invalid_certs {
        return Ok(false);
    }
    let (serials, more) = piece(cx, CERTS, run)?;
    let now = cx.now.seconds();
    for serial in serials {
        let Some((_, der)) = store::certificate(cx, &serial)? else { continue };
        let gone = match cert::parse(&der) {
            Ok(c) => run.targets.tidy_cert_store && cert::not_after(&c) + run.targets.safety_buffer < now,
            Err(_) => run.targets.tidy_invalid_certs,
        };
        if gone {
            cx.delete(CERTS, serial.as_bytes());
            run.cert_store_deleted += 1;
        }
    }
    Ok(more)
}

fn revoked(cx: &mut Cx<'_, '_>, run: &mut Run) -> Result<bool, Error> {
    let associate = run.targets.tidy_revoked_cert_issuer_associations;
    if !run.targets.tidy_revoked_certs && !associate {
        return Ok(false);
    }
    let (serials, more) = piece(cx, REVOKED, run)?;
    let now = cx.now.seconds();
    let known = match associate {
        true => store::issuers(cx)?,
        false => Vec::new(),
    };
    for serial in serials {
        let Some(mut r) = store::revoked(cx, &serial)? else { continue };
        if run.targets.tidy_revoked_certs && r.not_after + run.targets.safety_buffer < now {
            cx.delete(REVOKED, serial.as_bytes());
            cx.delete(CERTS, serial.as_bytes());
            run.revoked_deleted += 1;
            continue;
        }
        if associate && !known.iter().any(|i| i.id == r.issuer_id) {
            let parsed = cert::parse(&r.certificate.0).map_err(Error::internal)?;
            let mut found = String::new();
            for i in &known {
                if cert::signed_by(&parsed, &i.parsed()?) {
                    found = i.id.clone();
                    break;
                }
            }
            match found.is_empty() {
                true => run.missing_issuer += 1,
                false => {
                    r.issuer_id = found;
                    cx.put_json(REVOKED, serial.as_bytes(), &r);
                }
            }
        }
    }
    Ok(more)
}

fn lists(cx: &mut Cx<'_, '_>, run: &mut Run) -> Result<bool, Error> {
    if !run.targets.tidy_revoked_certs {
        return Ok(false);
    }
    let (pages, more) = piece(cx, crl::PAGES, run)?;
    let oldest = cx.now.seconds().saturating_sub(run.targets.safety_buffer);
    for page in pages {
        if crl::retain(cx, page.as_bytes(), |e| e.not_after >= oldest)? {
            let list = page.split('/').next().unwrap_or("").to_owned();
            let mut state = crl::state(cx, &list)?;
            state.epoch += 1;
            cx.put_json(crl::STATES, list.as_bytes(), &state);
        }
    }
    Ok(more)
}

fn metadata(cx: &mut Cx<'_, '_>, run: &mut Run) -> Result<bool, Error> {
    if !run.targets.tidy_cert_metadata {
        return Ok(false);
    }
    let (serials, more) = piece(cx, METADATA, run)?;
    let now = cx.now.seconds();
    for serial in serials {
        let Some(m) = cx.get_json::<Metadata>(METADATA, serial.as_bytes())? else { continue };
        if m.expiration + run.targets.safety_buffer < now {
            cx.delete(METADATA, serial.as_bytes());
            run.metadata_deleted += 1;
        }
    }
    Ok(more)
}

fn issuers(cx: &mut Cx<'_, '_>, run: &mut Run) -> Result<bool, Error> {
    if !run.targets.tidy_expired_issuers {
        return Ok(false);
    }
    let chosen: DefaultIssuer = store::config(cx, "issuers")?;
    let now = cx.now.seconds();
    let mut removed = false;
    for i in store::issuers(cx)? {
        let end = cert::not_after(&i.parsed()?);
        if i.id != chosen.default && end + run.targets.issuer_safety_buffer < now {
            cx.delete(store::ISSUERS, i.id.as_bytes());
            removed = true;
        }
    }
    if removed {
        store::rebuild_chains(cx)?;
    }
    Ok(false)
}

fn moment(ns: u64) -> Value {
    if ns == 0 { Value::Null } else { Wall(ns).rfc3339().into() }
}

/// `tidy-status`.
pub fn status(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    let run: Run = store::config(cx, "tidy-run")?;
    let last_auto: u64 = store::config(cx, "tidy-last-auto")?;
    let ran = !run.state.is_empty();
    let mut m = match serde_json::to_value(&run.targets) {
        Ok(Value::Object(m)) => m,
        _ => Map::new(),
    };
    if !ran {
        m.iter_mut().for_each(|(_, v)| *v = Value::Null);
    }
    let when_ran = |v: Value| if ran { v } else { Value::Null };
    m.insert("state".into(), if ran { run.state.clone() } else { "Inactive".into() }.into());
    m.insert("error".into(), run.error.clone().map_or(Value::Null, Value::from));
    m.insert("time_started".into(), moment(run.started_ns));
    m.insert("time_finished".into(), moment(run.finished_ns));
    m.insert("last_auto_tidy_finished".into(), moment(last_auto));
    let message = match (run.state.as_str(), run.phase) {
        ("Running", Phase::Certificates) => json!("Tidying certificate store"),
        ("Running", Phase::Revoked | Phase::Lists) => json!("Tidying revoked certificates"),
        ("Running", Phase::Metadata) => json!("Tidying certificate metadata"),
        ("Running", Phase::Issuers) => json!("Tidying issuers"),
        _ => Value::Null,
    };
    m.insert("message".into(), message);
    m.insert("cert_store_deleted_count".into(), when_ran(run.cert_store_deleted.into()));
    m.insert("revoked_cert_deleted_count".into(), when_ran(run.revoked_deleted.into()));
    m.insert("missing_issuer_cert_count".into(), when_ran(run.missing_issuer.into()));
    m.insert("cert_metadata_deleted_count".into(), when_ran(run.metadata_deleted.into()));
    for name in [
        "current_cert_store_count",
        "current_revoked_cert_count",
        "revocation_queue_deleted_count",
        "cross_revoked_cert_deleted_count",
        "total_acme_account_count",
        "acme_account_deleted_count",
        "acme_account_revoked_count",
        "acme_orders_deleted_count",
    ] {
        let shown = if name.starts_with("current") { Value::Null } else { when_ran(0.into()) };
        m.insert(name.into(), shown);
    }
    Response::data(m).done()
}

/// `tidy-cancel`.
pub fn cancel(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut run: Run = store::config(cx, "tidy-run")?;
    if run.state != "Running" {
        return Response::default().warn("Tidy operation cannot be cancelled as none is currently running.").done();
    }
    run.state = "Cancelling".into();
    store::save_config(cx, "tidy-run", &run);
    status(cx, args)
}

/// `GET config/auto-tidy`.
pub fn read_auto(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    let auto: Auto = store::config(cx, "auto-tidy")?;
    Response::json(json!(auto)).done()
}

/// `POST config/auto-tidy`.
pub fn write_auto(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut auto: Auto = store::config(cx, "auto-tidy")?;
    if let Some(b) = args.opt_bool("enabled") {
        auto.enabled = b;
    }
    if let Some(s) = args.opt_seconds("interval_duration") {
        if s < 1 {
            return Err(Error::invalid("given interval_duration must be greater than or equal to one second; got 0"));
        }
        auto.interval_duration = s;
    }
    for (name, field) in [
        ("min_startup_backoff_duration", &mut auto.min_startup_backoff_duration),
        ("max_startup_backoff_duration", &mut auto.max_startup_backoff_duration),
    ] {
        if let Some(s) = args.opt_seconds(name) {
            *field = s;
        }
    }
    if auto.min_startup_backoff_duration > auto.max_startup_backoff_duration {
        return Err(Error::invalid(
            "max_startup_backoff_duration must be greater or equal to min_startup_backoff_duration",
        ));
    }
    if let Some(b) = args.opt_bool("maintain_stored_certificate_counts") {
        auto.maintain_stored_certificate_counts = b;
    }
    if let Some(b) = args.opt_bool("publish_stored_certificate_count_metrics") {
        auto.publish_stored_certificate_count_metrics = b;
    }
    if auto.publish_stored_certificate_count_metrics && !auto.maintain_stored_certificate_counts {
        return Err(Error::invalid(
            "Can not publish a running storage metrics count to metrics without first maintaining that count. Enable `maintain_stored_certificate_counts` to enable `publish_stored_certificate_count_metrics`.",
        ));
    }
    auto.targets.update(args)?;
    if auto.enabled && !auto.targets.any() {
        return Err(Error::invalid(format!(
            "Auto-tidy enabled but no tidy operations were requested. Enable at least one tidy operation to be run \
             ({TARGETS})."
        )));
    }
    store::save_config(cx, "auto-tidy", &auto);
    match auto.enabled {
        true => {
            let next = cx.now.plus_seconds(auto.interval_duration);
            cx.schedule(AUTO_JOB, next);
        }
        false => cx.unschedule(AUTO_JOB),
    }
    Response::json(json!(auto)).done()
}
