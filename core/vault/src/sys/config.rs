//! `sys/config/*` and `sys/loggers`: what is set for the whole server at run time.

use super::{as_data, ask_owner, config_record, save_config, tell_owner};
use crate::audit::device::{HEADERS_TOPIC, audited_headers};
use crate::host::host;
use ringfence_barrier::Txn;
use ringfence_base::NsId;
use ringfence_logical::field::Preset;
use ringfence_logical::{Args, Cx, Error, Field, Kind, Map, Outcome, OwnerOp, Path, Response, nothing};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const CORS_TOPIC: &str = "cors";
const UI_HEADERS_TOPIC: &str = "ui-headers";
/// Most names in one of the records here, and the longest name, bytes.
const MAX_HEADERS: usize = 256;
const MAX_HEADER_NAME_BYTES: usize = 256;

const HEADER: Field = Field::str("header", "Name of the header.");
const HMAC: Field = Field::bool("hmac", "Write its hash, not its value.");
const LOGGER: Field = Field::str("name", "Name of the logger.");
const LEVEL: Field = Field::str("level", "trace, debug, info, warn or error.");

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("config/cors")
        .fields(&[
            Field::list("allowed_origins", "Origins that may ask, or * alone."),
            Field::list("allowed_headers", "Headers beyond the usual ones."),
            Field::bool("enable", "Kept for older clients.").preset(Preset::Bool(true)),
        ])
        .sudo()
        .root_namespace_only()
        .help("Cross-origin requests of browsers.", "")
        .read(read_cors)
        .write(write_cors)
        .delete(delete_cors),
    Path::new("config/ui/headers/?")
        .sudo()
        .root_namespace_only()
        .help("Lists headers that the user interface is served with.", "")
        .list(list_ui_headers),
    Path::new("config/ui/headers/{header:any}")
        .fields(&[
            HEADER,
            Field::new("values", Kind::StrList, "Values of the header."),
            Field::new("value", Kind::StrList, "Old name of values.").deprecated(),
            Field::bool("multivalue", "Answer all values, not the first.").query(),
        ])
        .sudo()
        .root_namespace_only()
        .help("A header that the user interface is served with.", "")
        .read(read_ui_header)
        .write(write_ui_header)
        .delete(delete_ui_header),
    Path::new("config/auditing/request-headers/?")
        .sudo()
        .root_namespace_only()
        .help("Lists request headers that audit devices write.", "")
        .read(list_audited)
        .list(list_audited),
    Path::new("config/auditing/request-headers/{header:any}")
        .fields(&[HEADER, HMAC])
        .sudo()
        .root_namespace_only()
        .help("A request header that audit devices write.", "")
        .read(read_audited)
        .write(write_audited)
        .delete(delete_audited),
    Path::new("config/state/sanitized")
        .root_namespace_only()
        .help("The effective configuration without secrets.", "")
        .read(sanitized),
    Path::new("config/reload/{subsystem:any}")
        .fields(&[Field::str("subsystem", "What to read again.")])
        .root_namespace_only()
        .help("Read a part of the configuration file again.", "")
        .write(reload),
    Path::new("loggers/?")
        .fields(&[LEVEL])
        .root_namespace_only()
        .help("Levels of all loggers.", "")
        .read(loggers)
        .write(set_loggers)
        .delete(reset_loggers),
    Path::new("loggers/{name:any}")
        .fields(&[LOGGER, LEVEL])
        .root_namespace_only()
        .help("Level of one logger.", "")
        .read(loggers)
        .write(set_loggers)
        .delete(reset_loggers),
];

/// Headers that every cross-origin request may carry. Source: Vault's documented list.
const USUAL_HEADERS: &[&str] = &[
    "Content-Type",
    "X-Requested-With",
    "X-Vault-AWS-IAM-Server-ID",
    "X-Vault-MFA",
    "X-Vault-No-Request-Forwarding",
    "X-Vault-Wrap-Format",
    "X-Vault-Wrap-TTL",
    "X-Vault-Policy-Override",
    "Authorization",
    "X-Vault-Token",
    "X-Vault-Namespace",
];

/// Cross-origin settings; the edge reads them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cors {
    /// Answers at all.
    pub enabled: bool,
    /// Origins, or `*` alone.
    pub allowed_origins: Vec<String>,
    /// Headers, the usual ones included.
    pub allowed_headers: Vec<String>,
}

impl Cors {
    /// Settings that answer, with the usual headers and more.
    pub fn new(allowed_origins: Vec<String>, more_headers: Vec<String>) -> Cors {
        let mut allowed_headers: Vec<String> = USUAL_HEADERS.iter().map(|h| (*h).to_owned()).collect();
        for h in more_headers {
            if !allowed_headers.iter().any(|known| known.eq_ignore_ascii_case(&h)) {
                allowed_headers.push(h);
            }
        }
        Cors { enabled: true, allowed_origins, allowed_headers }
    }
}

/// The cross-origin settings of the server.
pub fn cors(txn: &mut Txn<'_>) -> Result<Cors, Error> {
    config_record(txn, NsId::ROOT, CORS_TOPIC).map(Option::unwrap_or_default)
}

fn read_cors(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let c = cors(cx.txn)?;
    match c.enabled {
        false => Response::json(json!({ "enabled": false })),
        true => Response::json(json!({
            "enabled": true, "allowed_origins": c.allowed_origins, "allowed_headers": c.allowed_headers,
        })),
    }
    .done()
}

fn write_cors(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let allowed_origins = args.list("allowed_origins");
    if allowed_origins.is_empty() {
        return Err(Error::invalid("at least one origin or the wildcard must be provided"));
    }
    if allowed_origins.len() > 1 && allowed_origins.iter().any(|o| o == "*") {
        return Err(Error::invalid("to allow all origins the '*' must be the only value for allowed_origins"));
    }
    let record = Cors { enabled: args.bool("enable"), ..Cors::new(allowed_origins, args.list("allowed_headers")) };
    save_config(cx.txn, NsId::ROOT, CORS_TOPIC, &record);
    nothing()
}

fn delete_cors(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    save_config(cx.txn, NsId::ROOT, CORS_TOPIC, &Cors::default());
    nothing()
}

type HeaderValues = BTreeMap<String, Vec<String>>;

/// Headers that the user interface is served with; the edge reads them.
pub fn ui_headers(txn: &mut Txn<'_>) -> Result<HeaderValues, Error> {
    config_record(txn, NsId::ROOT, UI_HEADERS_TOPIC).map(Option::unwrap_or_default)
}

/// `x-frame-options` as `X-Frame-Options`: the one form under which a header is kept.
fn canonical(name: &str) -> Result<String, Error> {
    let fits = name.len() <= MAX_HEADER_NAME_BYTES;
    if !fits || name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    {
        return Err(Error::invalid(format!("invalid header name {name:?}")));
    }
    let mut up = true;
    Ok(name
        .chars()
        .map(|c| {
            let out = if up { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            up = c == '-';
            out
        })
        .collect())
}

fn list_ui_headers(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    Response::keys(ui_headers(cx.txn)?.into_keys().collect()).done()
}

fn read_ui_header(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = canonical(args.str("header"))?;
    let Some(values) = ui_headers(cx.txn)?.remove(&name) else { return nothing() };
    match args.bool("multivalue") {
        true => Response::json(json!({ "values": values })),
        false => Response::json(json!({ "value": values.first().cloned().unwrap_or_default() })),
    }
    .done()
}

fn write_ui_header(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = canonical(args.str("header"))?;
    if name.starts_with("X-Vault-") {
        return Err(Error::invalid("X-Vault headers cannot be set"));
    }
    let values = args.opt_list("values").or(args.opt_list("value")).unwrap_or_default();
    if values.is_empty() {
        return Err(Error::invalid("header 'values' cannot be empty"));
    }
    if values.iter().any(|v| v.chars().any(char::is_control)) {
        return Err(Error::invalid("header values cannot hold control characters"));
    }
    let mut all = ui_headers(cx.txn)?;
    all.insert(name, values);
    check_count(all.len())?;
    save_config(cx.txn, NsId::ROOT, UI_HEADERS_TOPIC, &all);
    nothing()
}

fn delete_ui_header(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut all = ui_headers(cx.txn)?;
    if all.remove(&canonical(args.str("header"))?).is_some() {
        save_config(cx.txn, NsId::ROOT, UI_HEADERS_TOPIC, &all);
    }
    nothing()
}

fn check_count(n: usize) -> Result<(), Error> {
    if n > MAX_HEADERS {
        return Err(Error::invalid(format!("no more than {MAX_HEADERS} headers are possible")));
    }
    Ok(())
}

fn list_audited(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let shown: Map = audited_headers(cx.txn)?.into_iter().map(|(n, hmac)| (n, json!({ "hmac": hmac }))).collect();
    Response::json(json!({ "headers": shown })).done()
}

fn read_audited(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("header");
    let all = audited_headers(cx.txn)?;
    let Some((_, hmac)) = all.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)) else {
        return Err(Error::invalid("Could not find header in config"));
    };
    Response::data(Map::from_iter([(name.to_owned(), json!({ "hmac": hmac }))])).done()
}

fn set_audited(txn: &mut Txn<'_>, name: &str, hmac: Option<bool>) -> Result<(), Error> {
    let name = canonical(name)?.to_ascii_lowercase();
    let mut all: BTreeMap<String, bool> = config_record(txn, NsId::ROOT, HEADERS_TOPIC)?.unwrap_or_default();
    let before = all.clone();
    match hmac {
        Some(hmac) => drop(all.insert(name, hmac)),
        None => drop(all.remove(&name)),
    }
    check_count(all.len())?;
    if all != before {
        save_config(txn, NsId::ROOT, HEADERS_TOPIC, &all);
    }
    Ok(())
}

fn write_audited(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    set_audited(cx.txn, args.str("header"), Some(args.bool("hmac")))?;
    nothing()
}

fn delete_audited(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    set_audited(cx.txn, args.str("header"), None)?;
    nothing()
}

fn sanitized(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let shown = host(cx).settings().sanitized.as_object().cloned().unwrap_or_default();
    Response::data(shown).done()
}

fn reload(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    tell_owner(OwnerOp::Named("reload", json!({ "subsystem": args.str("subsystem") })))
}

/// Asks or tells the server of its loggers: an empty name is all of them.
fn of_loggers(args: &Args, change: Value) -> Value {
    json!({ "name": args.str("name"), "change": change })
}

fn loggers(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    ask_owner(OwnerOp::Named("loggers", of_loggers(args, Value::Null)), as_data)
}

fn set_loggers(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let level = args.str("level").to_lowercase();
    let level = match level.as_str() {
        "" => return Err(Error::invalid("level is required")),
        "trace" | "debug" | "info" | "warn" | "error" => level.as_str(),
        "notice" => "info",
        "warning" => "warn",
        "err" => "error",
        other => return Err(Error::invalid(format!("invalid level provided: {other}"))),
    };
    tell_owner(OwnerOp::Named("loggers", of_loggers(args, json!({ "level": level }))))
}

fn reset_loggers(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    tell_owner(OwnerOp::Named("loggers", of_loggers(args, json!("reset"))))
}
