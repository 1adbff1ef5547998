//! `sys/internal/counters/activity` and `config`: reports over the clients that [`crate::activity`] counts.

use super::save_config;
use crate::activity::{self, Line, Month, Report, Settings, month_json, namespaces_json};
use crate::host::{VaultHost, host};
use ringfence_base::{Code, NsId};
use ringfence_logical::{Args, Cx, Error, Field, Kind, Outcome, Path, Response, nothing};
use serde_json::{Value, json};

/// Topic of the settings in the configuration table.
pub const TOPIC: &str = "activity";
/// Longest report and longest retention, months. Source: Vault's limit of the retention.
const MAX_MONTHS: u32 = 60;
/// Clients in one export.
const MAX_EXPORTED: usize = 100_000;

const RANGE: &[Field] = &[
    Field::new("start_time", Kind::Time, "First month of the report, by any time in it.").query(),
    Field::new("end_time", Kind::Time, "Last month of the report, by any time in it.").query(),
    Field::int("limit_namespaces", "Show so many namespaces, those with most clients.").query(),
    Field::str("format", "Of an export: json or csv.").query(),
];

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("internal/counters/activity")
        .fields(RANGE)
        .help(
            "Active clients of some months, by namespace and mount.",
            "The current month is counted as far as it went.",
        )
        .read(report),
    Path::new("internal/counters/activity/monthly").help("Active clients of this month so far.", "").read(monthly),
    Path::new("internal/counters/activity/export")
        .fields(RANGE)
        .sudo()
        .root_namespace_only()
        .help("Active clients of some months one by one.", "")
        .read(export),
    Path::new("internal/counters/config")
        .fields(&[
            Field::str("enabled", "enable, disable or default, which is off."),
            Field::int("retention_months", "Months that counts are kept."),
            Field::int("default_report_months", "Months that a report goes back by itself.").deprecated(),
        ])
        .root_namespace_only()
        .help("Whether clients are counted, and how long counts are kept.", "")
        .read(settings)
        .write(set),
];

/// Whether a report of the caller's namespace speaks of another: of those below it, and of those that are gone in the
/// root's.
fn asked(h: &VaultHost, ns: NsId) -> bool {
    match h.router.namespace_by_id(ns) {
        Some(n) => n.path.starts_with(&h.namespace.path),
        None => h.namespace.is_root(),
    }
}

fn range(cx: &mut Cx<'_, '_>, args: &Args) -> Result<(Month, Month), Error> {
    let settings = Settings::peek(cx.txn)?;
    let now = Month::of(cx.now);
    let to = args.opt_time("end_time").map_or(now, Month::of).min(now);
    let back = settings.default_report_months.clamp(1, MAX_MONTHS) - 1;
    let from = args.opt_time("start_time").map_or(to.minus(back), Month::of);
    if from > to {
        return Err(Error::invalid("start_time is later than end_time"));
    }
    Ok((from.max(to.minus(MAX_MONTHS - 1)), to))
}

fn report(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let (from, to) = range(cx, args)?;
    let limit = match args.opt_int("limit_namespaces") {
        None | Some(0) => usize::MAX,
        Some(n) => usize::try_from(n).map_err(|_| Error::invalid("limit_namespaces cannot be negative"))?,
    };
    let h = host(cx);
    let report = Report::of(cx.txn, &h.core.vault.activity, (from, to), |ns| asked(h, ns))?;
    if report.all.is_empty() {
        return Response::default().code(Code::NoContent).done();
    }
    let mut months = Vec::new();
    let mut month = from;
    while month <= to {
        months.push(month_json(cx.txn, &h.router, month, report.months.get(&month))?);
        month = month.next();
    }
    Response::json(json!({
        "start_time": from.begin().rfc3339(),
        "end_time": to.last_second().rfc3339(),
        "by_namespace": namespaces_json(cx.txn, &h.router, &report.all, limit)?,
        "months": months,
        "total": report.all.total.json(),
    }))
    .done()
}

fn monthly(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let now = Month::of(cx.now);
    let h = host(cx);
    let report = Report::of(cx.txn, &h.core.vault.activity, (now, now), |ns| asked(h, ns))?;
    let mut data = report.all.total.json();
    data["by_namespace"] = namespaces_json(cx.txn, &h.router, &report.all, usize::MAX)?;
    data["months"] = match report.months.get(&now) {
        None => json!([]),
        told => json!([month_json(cx.txn, &h.router, now, told)?]),
    };
    Response::json(data).done()
}

fn export(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let range = range(cx, args)?;
    let csv = match args.str("format") {
        "" | "json" => false,
        "csv" => true,
        other => return Err(Error::invalid(format!("format {other:?} is neither json nor csv"))),
    };
    let h = host(cx);
    let lines = Line::all(cx.txn, &h.core.vault.activity, range, MAX_EXPORTED)?;
    if lines.is_empty() {
        return Response::default().code(Code::NoContent).done();
    }
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        let fields = line.fields(cx.txn, &h.router)?;
        if csv && i == 0 {
            let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
            text.push_str(&names.join(","));
            text.push('\n');
        }
        match csv {
            true => text.push_str(&fields.iter().map(|(_, v)| cell(v)).collect::<Vec<_>>().join(",")),
            false => {
                let row: ringfence_logical::Map = fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
                text.push_str(&Value::Object(row).to_string());
            }
        }
        text.push('\n');
    }
    Response::raw(if csv { "text/csv" } else { "application/json" }, text.into_bytes()).done()
}

/// A value as RFC 4180 2 writes it: in quotes where it must be.
fn cell(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

fn settings(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let s = Settings::peek(cx.txn)?;
    let enabled = if s.enabled == "default" { "default-disabled" } else { s.enabled.as_str() };
    Response::json(json!({
        "billing_start_timestamp": "0001-01-01T00:00:00Z",
        "default_report_months": s.default_report_months,
        "enabled": enabled,
        "minimum_retention_months": 0,
        "queries_available": activity::has_rows(cx.txn),
        "reporting_enabled": false,
        "retention_months": s.retention_months,
    }))
    .done()
}

fn set(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut s = super::config_record::<Settings>(cx.txn, NsId::ROOT, TOPIC)?.unwrap_or_default();
    let was_on = s.is_on();
    let months = |name: &str, least: i64, why: &'static str| -> Result<Option<u32>, Error> {
        match args.opt_int(name) {
            None => Ok(None),
            Some(n) if n < least => Err(Error::invalid(why)),
            Some(n) if n > i64::from(MAX_MONTHS) => {
                Err(Error::invalid(format!("{name} must be at most {MAX_MONTHS}")))
            }
            Some(n) => Ok(u32::try_from(n).ok()),
        }
    };
    let reported = months("default_report_months", 1, "default_report_months must be greater than 0")?;
    s.default_report_months = reported.unwrap_or(s.default_report_months);
    let kept = months("retention_months", 0, "retention_months must be greater than or equal to 0")?;
    s.retention_months = kept.unwrap_or(s.retention_months);
    match args.opt_str("enabled") {
        None => {}
        Some(word @ ("default" | "enable" | "disable")) => s.enabled = word.to_owned(),
        Some(_) => return Err(Error::invalid("enabled must be one of \"default\", \"enable\", \"disable\"")),
    }
    if s.is_on() && s.retention_months == 0 {
        return Err(Error::invalid("retention_months cannot be 0 while enabled"));
    }
    save_config(cx.txn, NsId::ROOT, TOPIC, &s);
    match was_on && !s.is_on() {
        true => Response::default()
            .warn("the current monthly segment will be deleted because the activity log was disabled")
            .done(),
        false => nothing(),
    }
}
