//! `pki health-check`: looks at a mount with the caller's own permissions and says what an operator should know. Nothing is
//! changed. Each check reads what it needs through [`Mount`], which asks for every path once.

use super::client::{CallError, Request};
use super::output;
use super::session::{Fail, Outcome, Session, remote, sanitized, usage};
use super::verb::{Flag, Kind, flag};
use ringfence_base::duration;
use ringfence_node::relation::{life_of_certificate, life_of_list, made_by};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// The flags of the verb.
pub const FLAGS: &[Flag] = &[
    flag("default-disabled", Kind::Bool, "Run only the checks that the configuration enables."),
    flag("health-config", Kind::Text, "File with settings of the checks, JSON."),
    flag("list", Kind::Bool, "Print the checks and their settings; run none."),
    flag(
        "return-indicator",
        Kind::Text,
        "Least severe finding that makes the exit code: default, informational, warning, critical or permission.",
    ),
];

const DAY_S: u64 = 86_400;

/// How bad a finding is. The order is that of the exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    NotApplicable,
    Ok,
    Informational,
    Warning,
    Critical,
    InsufficientPermissions,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::NotApplicable => "not_applicable",
            Status::Ok => "ok",
            Status::Informational => "informational",
            Status::Warning => "warning",
            Status::Critical => "critical",
            Status::InsufficientPermissions => "insufficient_permissions",
        }
    }

    /// What the command leaves with if this is the worst.
    fn exit_code(self) -> i32 {
        match self {
            Status::NotApplicable | Status::Ok => 0,
            Status::Informational => 2,
            Status::Warning => 3,
            Status::Critical => 4,
            Status::InsufficientPermissions => 6,
        }
    }
}

/// A role: its name, where it stands, what it says.
type Role = (String, String, Map<String, Value>);

/// One finding.
struct Finding {
    status: Status,
    endpoint: String,
    message: String,
}

/// One check: its name, its settings with their defaults, and what it does.
struct Check {
    name: &'static str,
    enabled: bool,
    settings: fn() -> Value,
    run: fn(&mut Mount<'_, '_, '_>, &Settings) -> Result<(), Denied>,
}

/// The caller may not read what a check needs; the finding about it is made already.
struct Denied;

const CHECKS: &[Check] = &[
    Check {
        name: "ca_validity_period",
        enabled: true,
        settings: || {
            json!({
                "root_expiry_critical": "180d", "intermediate_expiry_critical": "30d",
                "root_expiry_warning": "365d", "intermediate_expiry_warning": "60d",
                "root_expiry_informational": "730d", "intermediate_expiry_informational": "180d",
            })
        },
        run: ca_validity,
    },
    Check {
        name: "crl_validity_period",
        enabled: true,
        settings: || json!({"crl_expiry_pct_critical": 95}),
        run: crl_validity,
    },
    Check {
        name: "root_issued_leaves",
        enabled: true,
        settings: || json!({"certs_to_inspect": 100}),
        run: root_issued_leaves,
    },
    Check { name: "role_allows_localhost", enabled: true, settings: || json!({}), run: role_allows_localhost },
    Check { name: "role_allows_glob_wildcards", enabled: true, settings: || json!({}), run: role_allows_globs },
    Check {
        name: "role_no_store_false",
        enabled: true,
        settings: || json!({"allowed_roles": []}),
        run: role_no_store_false,
    },
    Check { name: "allow_if_modified_since", enabled: true, settings: || json!({}), run: allow_if_modified_since },
    Check {
        name: "enable_auto_tidy",
        enabled: true,
        settings: || json!({"interval_duration_critical": "7d", "interval_duration_warning": "2d"}),
        run: enable_auto_tidy,
    },
    Check {
        name: "tidy_last_run",
        enabled: true,
        settings: || json!({"last_run_critical": "7d", "last_run_warning": "2d"}),
        run: tidy_last_run,
    },
    Check {
        name: "too_many_certs",
        enabled: true,
        settings: || json!({"count_critical": 250_000, "count_warning": 50_000}),
        run: too_many_certs,
    },
    Check { name: "enable_acme_issuance", enabled: true, settings: || json!({}), run: enable_acme },
    Check { name: "allow_acme_headers", enabled: true, settings: || json!({}), run: allow_acme_headers },
];

/// The settings of one check: what the operator's file says, then the defaults.
struct Settings(Map<String, Value>);

impl Settings {
    fn seconds(&self, name: &str) -> u64 {
        let value = self.0.get(name).cloned().unwrap_or_default();
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        duration::parse_ns(&text).and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0) / 1_000_000_000
    }

    fn number(&self, name: &str) -> u64 {
        self.0.get(name).and_then(Value::as_u64).unwrap_or(0)
    }
}

/// A mount as the checks see it, and what they found.
struct Mount<'s, 'run, 'io> {
    session: &'s mut Session<'run, 'io>,
    path: String,
    now_s: u64,
    /// What was read; `None` is a 404.
    read: BTreeMap<String, Option<Map<String, Value>>>,
    findings: Vec<Finding>,
}

impl Mount<'_, '_, '_> {
    fn say(&mut self, status: Status, endpoint: &str, message: impl Into<String>) {
        let endpoint = format!("/{endpoint}");
        self.findings.push(Finding { status, endpoint, message: message.into() });
    }

    fn ask(&mut self, request: &Request, endpoint: &str) -> Result<Option<Map<String, Value>>, Denied> {
        let key = format!("{} {endpoint}", request.method);
        if let Some(known) = self.read.get(&key) {
            return Ok(known.clone());
        }
        match self.session.read_secret(request) {
            Ok(answer) => {
                let data = answer.and_then(|secret| secret.data);
                self.read.insert(key, data.clone());
                Ok(data)
            }
            Err(error) => {
                let denied = matches!(&error, CallError::Refused(refused) if refused.status == 403);
                let status = if denied { Status::InsufficientPermissions } else { Status::Critical };
                let what = if denied { "lacks permission to read it".to_owned() } else { error.to_string() };
                self.say(status, endpoint, format!("The caller {what}."));
                Err(Denied)
            }
        }
    }

    fn get(&mut self, below: &str) -> Result<Option<Map<String, Value>>, Denied> {
        let path = format!("{}/{below}", self.path);
        self.ask(&Request::get(&path), &path)
    }

    fn names(&mut self, below: &str) -> Result<Vec<String>, Denied> {
        let path = format!("{}/{below}", self.path);
        let data = self.ask(&Request::list(&path), &path)?.unwrap_or_default();
        let keys = data.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(keys.iter().filter_map(|k| k.as_str().map(str::to_owned)).collect())
    }

    /// Every issuer: where it stands, and its certificate.
    fn issuers(&mut self) -> Result<Vec<(String, String)>, Denied> {
        let mut out = Vec::new();
        for id in self.names("issuers")? {
            let data = self.get(&format!("issuer/{id}"))?.unwrap_or_default();
            if let Some(pem) = data.get("certificate").and_then(Value::as_str) {
                out.push((format!("{}/issuer/{id}", self.path), pem.to_owned()));
            }
        }
        Ok(out)
    }

    fn roles(&mut self) -> Result<Vec<Role>, Denied> {
        let mut out = Vec::new();
        for name in self.names("roles")? {
            let data = self.get(&format!("roles/{name}"))?.unwrap_or_default();
            out.push((name.clone(), format!("{}/roles/{name}", self.path), data));
        }
        Ok(out)
    }

    /// Headers that the mount lets through, by the setting's name.
    fn headers(&mut self, setting: &str) -> Result<Vec<String>, Denied> {
        let path = format!("sys/mounts/{}/tune", self.path);
        let data = self.ask(&Request::get(&path), &path)?.unwrap_or_default();
        let list = data.get(setting).and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(list.iter().filter_map(|h| h.as_str().map(str::to_ascii_lowercase)).collect())
    }
}

fn is(data: &Map<String, Value>, name: &str) -> bool {
    data.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn ca_validity(m: &mut Mount<'_, '_, '_>, s: &Settings) -> Result<(), Denied> {
    for (at, pem) in m.issuers()? {
        let Ok((_, end)) = life_of_certificate(&pem) else {
            m.say(Status::Critical, &at, "The issuer's certificate cannot be read.");
            continue;
        };
        let kind = if made_by(&pem, &pem) { "root" } else { "intermediate" };
        let left = end.saturating_sub(m.now_s);
        let day = ringfence_base::Wall::from_seconds(end).rfc3339_seconds();
        let day = day.split('T').next().unwrap_or_default();
        if left == 0 {
            m.say(Status::Critical, &at, format!("Issuer's certificate has expired ({day})."));
            continue;
        }
        let worse =
            [(Status::Critical, "critical"), (Status::Warning, "warning"), (Status::Informational, "informational")];
        match worse.iter().find(|(_, name)| left < s.seconds(&format!("{kind}_expiry_{name}"))) {
            Some((status, _)) => {
                m.say(*status, &at, format!("Issuer's certificate ({kind}) ends in {} days ({day}).", left / DAY_S));
            }
            None => m.say(Status::Ok, &at, format!("Issuer's validity ({day}) is OK.")),
        }
    }
    Ok(())
}

fn crl_validity(m: &mut Mount<'_, '_, '_>, s: &Settings) -> Result<(), Denied> {
    for (at, _) in m.issuers()? {
        let below = format!("{at}/crl");
        let below = below.strip_prefix(&format!("{}/", m.path)).unwrap_or_default().to_owned();
        let endpoint = format!("{at}/crl");
        let data = m.get(&below)?.unwrap_or_default();
        let life = data.get("crl").and_then(Value::as_str).map(life_of_list);
        match life {
            Some(Ok((begin, end))) if end > begin => {
                let spent = m.now_s.saturating_sub(begin) * 100 / (end - begin);
                let (status, word) = match spent {
                    n if n >= 100 => (Status::Critical, "has ended"),
                    n if n >= s.number("crl_expiry_pct_critical") => (Status::Critical, "is about to end"),
                    _ => (Status::Ok, "is OK"),
                };
                m.say(status, &endpoint, format!("CRL's validity {word}: {spent}% of it have passed."));
            }
            _ => m.say(Status::Warning, &endpoint, "There is no CRL that can be read."),
        }
    }
    Ok(())
}

fn root_issued_leaves(m: &mut Mount<'_, '_, '_>, s: &Settings) -> Result<(), Denied> {
    let issuers = m.issuers()?;
    let roots: Vec<&String> = issuers.iter().filter(|(_, pem)| made_by(pem, pem)).map(|(_, pem)| pem).collect();
    let endpoint = format!("{}/certs", m.path);
    if roots.is_empty() {
        m.say(Status::NotApplicable, &endpoint, "The mount has no root.");
        return Ok(());
    }
    let most = usize::try_from(s.number("certs_to_inspect")).unwrap_or(usize::MAX);
    let mut leaves = 0;
    for serial in m.names("certs")?.into_iter().take(most) {
        let data = m.get(&format!("cert/{serial}"))?.unwrap_or_default();
        let Some(pem) = data.get("certificate").and_then(Value::as_str) else { continue };
        let own = issuers.iter().any(|(_, i)| i.trim() == pem.trim());
        if !own && roots.iter().any(|root| made_by(pem, root)) && !ringfence_node::relation::is_authority(pem) {
            leaves += 1;
            let at = format!("{}/cert/{serial}", m.path);
            m.say(Status::Warning, &at, "Root issued a leaf directly: put an intermediate between them.");
        }
    }
    if leaves == 0 {
        m.say(Status::Ok, &endpoint, "Root certificates issued no leaf among those that were looked at.");
    }
    Ok(())
}

fn role_allows_localhost(m: &mut Mount<'_, '_, '_>, _: &Settings) -> Result<(), Denied> {
    for (_, at, role) in m.roles()? {
        match is(&role, "allow_localhost") {
            true => m.say(
                Status::Warning,
                &at,
                "Role allows localhost: set allow_localhost=false, and allow names one by one.",
            ),
            false => m.say(Status::Ok, &at, "Role does not allow localhost."),
        }
    }
    Ok(())
}

fn role_allows_globs(m: &mut Mount<'_, '_, '_>, _: &Settings) -> Result<(), Denied> {
    for (_, at, role) in m.roles()? {
        match is(&role, "allow_glob_domains") && is(&role, "allow_wildcard_certificates") {
            true => m.say(
                Status::Warning,
                &at,
                "Role allows globs in domains and wildcard certificates together: set allow_wildcard_certificates=false.",
            ),
            false => m.say(Status::Ok, &at, "Role does not allow wildcards within globs."),
        }
    }
    Ok(())
}

fn role_no_store_false(m: &mut Mount<'_, '_, '_>, s: &Settings) -> Result<(), Denied> {
    let allowed = s.0.get("allowed_roles").and_then(Value::as_array).cloned().unwrap_or_default();
    let rebuilds = m.get("config/crl")?.is_some_and(|c| is(&c, "auto_rebuild"));
    for (name, at, role) in m.roles()? {
        match is(&role, "no_store") || allowed.iter().any(|a| *a == *name) {
            true => m.say(Status::Ok, &at, "Role stores no certificates, or may."),
            false if rebuilds => m.say(Status::Informational, &at, "Role stores every certificate; the CRL is rebuilt by schedule."),
            false => m.say(
                Status::Warning,
                &at,
                "Role stores every certificate and every revocation rebuilds the CRL: set no_store=true or auto_rebuild.",
            ),
        }
    }
    Ok(())
}

fn allow_if_modified_since(m: &mut Mount<'_, '_, '_>, _: &Settings) -> Result<(), Denied> {
    let at = format!("sys/mounts/{}/tune", m.path);
    let request = m.headers("passthrough_request_headers")?.contains(&"if-modified-since".to_owned());
    let response = m.headers("allowed_response_headers")?.contains(&"last-modified".to_owned());
    match request && response {
        true => m.say(Status::Ok, &at, "The mount lets If-Modified-Since and Last-Modified through."),
        false => {
            m.say(Status::Informational, &at, "The mount does not let If-Modified-Since and Last-Modified through.")
        }
    }
    Ok(())
}

fn enable_auto_tidy(m: &mut Mount<'_, '_, '_>, s: &Settings) -> Result<(), Denied> {
    let at = format!("{}/config/auto-tidy", m.path);
    let c = m.get("config/auto-tidy")?.unwrap_or_default();
    if !is(&c, "enabled") {
        m.say(Status::Informational, &at, "Auto-tidy is disabled: what expired stays.");
        return Ok(());
    }
    let interval = c.get("interval_duration").and_then(Value::as_u64).unwrap_or(0);
    match () {
        () if interval >= s.seconds("interval_duration_critical") => {
            m.say(Status::Critical, &at, "Auto-tidy runs too seldom.");
        }
        () if interval >= s.seconds("interval_duration_warning") => {
            m.say(Status::Warning, &at, "Auto-tidy runs seldom.");
        }
        () => m.say(Status::Ok, &at, "Auto-tidy is enabled."),
    }
    for target in ["tidy_cert_store", "tidy_revoked_certs"] {
        if !is(&c, target) {
            m.say(Status::Informational, &at, format!("Auto-tidy leaves out {target}."));
        }
    }
    Ok(())
}

fn tidy_last_run(m: &mut Mount<'_, '_, '_>, s: &Settings) -> Result<(), Denied> {
    let at = format!("{}/tidy-status", m.path);
    let status = m.get("tidy-status")?.unwrap_or_default();
    let finished = status.get("time_finished").and_then(Value::as_str).and_then(ringfence_base::Wall::parse_rfc3339);
    match finished.map(|w| m.now_s.saturating_sub(w.seconds())) {
        None => m.say(Status::Warning, &at, "Tidy never ran to its end."),
        Some(ago) if ago >= s.seconds("last_run_critical") => m.say(Status::Critical, &at, "Tidy ran long ago."),
        Some(ago) if ago >= s.seconds("last_run_warning") => m.say(Status::Warning, &at, "Tidy ran a while ago."),
        Some(_) => m.say(Status::Ok, &at, "Tidy ran lately."),
    }
    Ok(())
}

fn too_many_certs(m: &mut Mount<'_, '_, '_>, s: &Settings) -> Result<(), Denied> {
    let at = format!("{}/certs", m.path);
    let count = m.names("certs")?.len() as u64;
    let status = match count {
        n if n >= s.number("count_critical") => Status::Critical,
        n if n >= s.number("count_warning") => Status::Warning,
        _ => Status::Ok,
    };
    m.say(status, &at, format!("The mount stores {count} certificates."));
    Ok(())
}

fn enable_acme(m: &mut Mount<'_, '_, '_>, _: &Settings) -> Result<(), Denied> {
    let at = format!("{}/config/acme", m.path);
    match m.get("config/acme")?.is_some_and(|c| is(&c, "enabled")) {
        true => m.say(Status::Ok, &at, "ACME is enabled."),
        false => m.say(Status::Informational, &at, "ACME is not enabled."),
    }
    Ok(())
}

fn allow_acme_headers(m: &mut Mount<'_, '_, '_>, _: &Settings) -> Result<(), Denied> {
    let at = format!("sys/mounts/{}/tune", m.path);
    if !m.get("config/acme")?.is_some_and(|c| is(&c, "enabled")) {
        m.say(Status::NotApplicable, &at, "ACME is not enabled.");
        return Ok(());
    }
    let through = m.headers("allowed_response_headers")?;
    let missing: Vec<&str> =
        ["replay-nonce", "link", "location"].into_iter().filter(|h| !through.iter().any(|t| t == h)).collect();
    match missing.is_empty() {
        true => m.say(Status::Ok, &at, "The mount lets the headers of ACME through."),
        false => m.say(
            Status::Informational,
            &at,
            format!(
                "allowed_response_headers lacks {}: this server sends them anyway, others do not.",
                missing.join(", ")
            ),
        ),
    }
    Ok(())
}

/// `pki health-check`.
pub fn health_check(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let path = sanitized(session.arg(0));
    let indicator = session.flags.text_or("return-indicator", "default").to_owned();
    let least = match indicator.as_str() {
        "default" | "informational" => Status::Informational,
        "warning" => Status::Warning,
        "critical" => Status::Critical,
        "permission" => Status::InsufficientPermissions,
        other => return Err(usage(format!("Unknown flag value for -return-indicator: {other}"))),
    };
    let file = configuration(session)?;
    let by_default = !session.flags.is_set("default-disabled");
    let mut checks = Vec::new();
    for check in CHECKS {
        let mut settings = match (check.settings)() {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        let mut enabled = check.enabled && by_default;
        if let Some(own) = file.get(check.name).and_then(Value::as_object) {
            enabled = own.get("enabled").and_then(Value::as_bool).unwrap_or(enabled);
            settings.extend(own.clone());
        }
        settings.insert("enabled".into(), enabled.into());
        checks.push((check, Settings(settings)));
    }
    if session.flags.is_set("list") {
        return list(session, &checks);
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut mount = Mount { session, path, now_s, read: BTreeMap::new(), findings: Vec::new() };
    let (mut results, mut worst) = (Vec::new(), Status::Ok);
    for (check, settings) in &checks {
        if !is(&settings.0, "enabled") {
            continue;
        }
        // what could not be read is a finding of its own
        let _: Result<(), Denied> = (check.run)(&mut mount, settings);
        let findings = std::mem::take(&mut mount.findings);
        worst = findings.iter().map(|f| f.status).max().unwrap_or(Status::Ok).max(worst);
        results.push((check.name, findings));
    }
    let shown = match session.is_table() {
        true => tables(&results),
        false => {
            let all: Map<String, Value> = results
                .iter()
                .map(|(name, findings)| {
                    let rows: Vec<Value> = findings
                        .iter()
                        .map(|f| {
                            json!({
                                "status": f.status.name(), "status_code": f.status as u8,
                                "endpoint": f.endpoint, "message": f.message,
                            })
                        })
                        .collect();
                    ((*name).to_owned(), rows.into())
                })
                .collect();
            session.print_data(&all)?;
            return Ok(if worst >= least { worst.exit_code() } else { 0 });
        }
    };
    session.io.out(&shown);
    Ok(if worst >= least { worst.exit_code() } else { 0 })
}

fn configuration(session: &Session<'_, '_>) -> Result<Map<String, Value>, Fail> {
    let Some(file) = session.flags.text("health-config").filter(|f| !f.is_empty()) else { return Ok(Map::new()) };
    let text = std::fs::read_to_string(session.io.expand(file)).map_err(|e| usage(format!("{file}: {e}")))?;
    serde_json::from_str(&text).map_err(|e| usage(format!("{file}: {e}")))
}

fn list(session: &mut Session<'_, '_>, checks: &[(&Check, Settings)]) -> Outcome {
    let all: Map<String, Value> =
        checks.iter().map(|(check, settings)| (check.name.to_owned(), settings.0.clone().into())).collect();
    if !session.is_table() {
        return session.print_data(&all);
    }
    let mut out = String::from("Default health check config:\n");
    out.push_str(&serde_json::to_string_pretty(&all).map_err(|e| remote(e.to_string()))?);
    session.say(&out)
}

fn tables(results: &[(&'static str, Vec<Finding>)]) -> String {
    let mut out = Vec::new();
    for (name, findings) in results {
        let mut rows = vec![vec!["status".to_owned(), "endpoint".to_owned(), "message".to_owned()]];
        rows.extend(findings.iter().map(|f| vec![f.status.name().to_owned(), f.endpoint.clone(), f.message.clone()]));
        let table = if findings.is_empty() { "No results.".to_owned() } else { output::table(rows) };
        out.push(format!("{name}\n{}\n{table}", "-".repeat(name.len())));
    }
    out.join("\n\n")
}
