//! `sys/audit`: audit devices. A device is tried by the server before it is enabled, so that a wrong path or address
//! refuses here and not every request afterwards.

use super::mounts::{check_path, dir};
use crate::audit::{Device, hash};
use crate::tables;
use ringfence_logical::{
    Args, Cx, Error, Field, Kind, Outcome, OwnerOp, Path, Response, SideOp, SideResult, Step, nothing,
};
use serde_json::{Value, json};

/// Types that the server can write to.
pub const KINDS: &[&str] = &["file", "socket", "syslog"];
/// Longest text before each entry.
const MAX_PREFIX_BYTES: usize = 256;
/// Most devices: each takes every line.
const MAX_DEVICES: usize = 32;

const PATH: Field = Field::str("path", "The device's path.");

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("audit/?").sudo().root_namespace_only().help("Lists audit devices.", "").read(list),
    Path::new("audit/{path..}")
        .fields(&[
            PATH,
            Field::str("type", "file, socket or syslog."),
            Field::str("description", "Free text."),
            Field::new("options", Kind::KvPairs, "Options of the device, file_path of a file."),
            Field::bool("local", "Not replicated to other clusters."),
        ])
        .sudo()
        .root_namespace_only()
        .help("An audit device.", "Requests are refused while no enabled device takes their lines.")
        .write(enable)
        .delete(disable),
    Path::new("audit-hash/{path..}")
        .computes()
        .fields(&[PATH, Field::str("input", "The text to be hashed.").secret()])
        .root_namespace_only()
        .help("The hash under which a device writes a text.", "")
        .write(hashed),
];

fn list(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let devices = Device::list(cx.txn, cx.mount.ns)?;
    Response::data(devices.iter().map(|d| (d.path.clone(), d.to_json())).collect()).done()
}

fn enable(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = dir(args.str("path"));
    check_path(&path)?;
    let kind = args.str("type");
    if !KINDS.contains(&kind) {
        return Err(Error::invalid(format!("unknown backend type: {kind:?}")));
    }
    let mut device = Device::new(&path, kind, cx.rng);
    device.description = args.str("description").to_owned();
    device.options = args.opt_pairs("options").unwrap_or_default();
    device.local = args.bool("local");
    check_options(&mut device)?;
    check_free(cx, &device)?;
    if device.options.get("skip_test").is_some_and(|v| ringfence_logical::args::parse_bool(v) == Some(true)) {
        device.save(cx.txn, cx.mount.ns);
        return nothing();
    }
    let told = serde_json::to_value(&device).expect("a device always serialises");
    Ok(Step::Side {
        op: SideOp::Owner(OwnerOp::Named("audit-test", told)),
        resume: Box::new(move |cx, result| {
            match result {
                SideResult::Failed(why) => {
                    return Err(Error::invalid(format!("audit backend failed test message: {why}")));
                }
                SideResult::Json(Value::String(why)) => return Err(Error::invalid(why.clone())),
                _ => {}
            }
            // another device may have come meanwhile
            check_free(cx, &device)?;
            device.save(cx.txn, cx.mount.ns);
            nothing()
        }),
    })
}

fn check_options(device: &mut Device) -> Result<(), Error> {
    for name in ["hmac_accessor", "log_raw", "elide_list_responses", "skip_test"] {
        if let Some(v) = device.options.get(name)
            && ringfence_logical::args::parse_bool(v).is_none()
        {
            return Err(Error::invalid(format!("{name}: strconv.ParseBool: parsing {v:?}: invalid syntax")));
        }
    }
    if let Some(format) = device.options.get("format")
        && !matches!(format.as_str(), "json" | "")
    {
        return Err(Error::invalid(format!("unknown format type {format:?}")));
    }
    if let Some(prefix) = device.options.get("prefix")
        && (prefix.len() > MAX_PREFIX_BYTES || prefix.chars().any(char::is_control))
    {
        // a line break would let one entry pass for two, and a long text would be repeated in every line
        return Err(Error::invalid(format!(
            "prefix: must be at most {MAX_PREFIX_BYTES} bytes without line breaks or other control characters"
        )));
    }
    match device.kind.as_str() {
        "file" => {
            // the old name of the option
            if let Some(path) = device.options.remove("path") {
                device.options.entry("file_path".into()).or_insert(path);
            }
            match device.options.get("file_path").map_or("", String::as_str) {
                "" => Err(Error::invalid("file_path is required")),
                _ => Ok(()),
            }
        }
        "socket" if device.options.get("address").is_none_or(String::is_empty) => {
            Err(Error::invalid("address is required"))
        }
        _ => Ok(()),
    }
}

fn check_free(cx: &mut Cx<'_, '_>, device: &Device) -> Result<(), Error> {
    let standing = Device::list(cx.txn, cx.mount.ns)?;
    let nests = |d: &Device| d.path.starts_with(&device.path) || device.path.starts_with(&d.path);
    if standing.iter().any(nests) {
        return Err(Error::invalid("path already in use"));
    }
    if standing.len() >= MAX_DEVICES {
        return Err(Error::invalid(format!("no more than {MAX_DEVICES} audit devices are possible")));
    }
    Ok(())
}

fn disable(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = dir(args.str("path"));
    if cx.txn.exists(&tables::audit(cx.mount.ns, &path)) {
        Device::delete(cx.txn, cx.mount.ns, &path);
    }
    nothing()
}

fn hashed(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let path = dir(args.str("path"));
    if args.str("input").is_empty() {
        return Err(Error::invalid("the \"input\" parameter is empty"));
    }
    match Device::load(cx.txn, cx.mount.ns, &path)? {
        Some(device) => Response::json(json!({ "hash": hash(&device, args.str("input")) })).done(),
        None => Err(Error::invalid(format!("unknown audit backend {path:?}"))),
    }
}
