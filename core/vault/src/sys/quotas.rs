//! `sys/quotas/*`: the rules of [`crate::quota`]. Only the root namespace has them; a rule names the namespace, mount,
//! path or role that it limits.

use crate::host::host;
use crate::page;
use crate::quota::rule::{MAX_QUOTAS, Scope};
use crate::quota::{self, GroupBy, Kind, Rule, Settings};
use crate::tables;
use ringfence_base::entropy;
use ringfence_logical::field::Preset;
use ringfence_logical::{Args, Class, Cx, Error, Field, Kind as Type, Outcome, Path, Response, nothing};
use serde_json::json;

const NAME: Field = Field::str("name", "Name of the quota.");
const AT: Field =
    Field::str("path", "What it limits: nothing for all, a namespace, a mount, or a path below a mount.");
const ROLE: Field = Field::str("role", "Only logins to this role of the auth method at path.");
const INHERITABLE: Field = Field::bool("inheritable", "It counts in the namespaces below its own too.");
const RATE: &[Field] = &[
    NAME,
    AT,
    ROLE,
    INHERITABLE,
    Field::str("type", "Kept for clients that send it."),
    Field::new("rate", Type::Float, "Requests in an interval."),
    Field::seconds("interval", "The interval.").preset(Preset::Int(1)),
    Field::seconds("block_interval", "How long a client that went over is refused."),
    Field::str("group_by", "Whose requests count together: ip, none, entity_then_ip, entity_then_none."),
    Field::new("secondary_rate", Type::Float, "The rate of those who have no entity, when grouped by entity."),
];
const LEASES: &[Field] = &[
    NAME,
    AT,
    ROLE,
    INHERITABLE,
    Field::str("type", "Kept for clients that send it."),
    Field::int("max_leases", "Leases and service tokens at a time."),
];
const CONFIG: &[Field] = &[
    Field::list("rate_limit_exempt_paths", "Paths, in any namespace, that no rate limit counts."),
    Field::list("absolute_rate_limit_exempt_paths", "Paths from the root namespace on that no rate limit counts."),
    Field::bool("enable_rate_limit_audit_logging", "Audit requests that a rate limit refuses."),
    Field::bool("enable_rate_limit_response_headers", "Answers tell what is left of a limit."),
];

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("quotas/config")
        .fields(CONFIG)
        .root_namespace_only()
        .help("Settings of all quotas.", "A write replaces all of them.")
        .read(read_config)
        .write(write_config),
    Path::new("quotas/rate-limit/?")
        .fields(page::FIELDS)
        .root_namespace_only()
        .help("Lists the rate limits.", "")
        .list(|cx, args| list(cx, args, Kind::Rate)),
    Path::new("quotas/rate-limit/{name:any}")
        .fields(RATE)
        .root_namespace_only()
        .help("How many requests in a time.", "The most specific limit speaks: role, path, mount, namespace, all.")
        .read(|cx, args| read(cx, args, Kind::Rate))
        .write(|cx, args| write(cx, args, Kind::Rate))
        .delete(|cx, args| delete(cx, args, Kind::Rate)),
    Path::new("quotas/lease-count/?")
        .fields(page::FIELDS)
        .root_namespace_only()
        .help("Lists the limits of leases.", "")
        .list(|cx, args| list(cx, args, Kind::Leases)),
    Path::new("quotas/lease-count/{name:any}")
        .fields(LEASES)
        .root_namespace_only()
        .help("How many leases and service tokens at a time.", "Those that stand already count; batch tokens do not.")
        .read(|cx, args| read(cx, args, Kind::Leases))
        .write(|cx, args| write(cx, args, Kind::Leases))
        .delete(|cx, args| delete(cx, args, Kind::Leases)),
];

fn read_config(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let s = Settings::load(cx.txn)?;
    Response::json(json!({
        "rate_limit_exempt_paths": s.exempt,
        "absolute_rate_limit_exempt_paths": s.absolute_exempt,
        "enable_rate_limit_audit_logging": s.audit,
        "enable_rate_limit_response_headers": s.headers,
    }))
    .done()
}

fn write_config(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let settings = Settings {
        exempt: args.opt_list("rate_limit_exempt_paths").unwrap_or_else(|| Settings::default().exempt),
        absolute_exempt: args.list("absolute_rate_limit_exempt_paths"),
        audit: args.bool("enable_rate_limit_audit_logging"),
        headers: args.bool("enable_rate_limit_response_headers"),
    };
    settings.save(cx.txn);
    nothing()
}

fn list(cx: &mut Cx<'_, '_>, args: &Args, kind: Kind) -> Outcome {
    let prefix = tables::quota(kind.byte(), "");
    let keys = cx.txn.list(&prefix, None, MAX_QUOTAS);
    let names = keys.iter().map(|k| String::from_utf8_lossy(&k[prefix.len()..]).into_owned()).collect();
    Response::keys(page::of(args, names)).done()
}

fn read(cx: &mut Cx<'_, '_>, args: &Args, kind: Kind) -> Outcome {
    let Some(rule) = Rule::load(cx.txn, kind, args.str("name"))? else { return nothing() };
    let router = &host(cx).router;
    let mut data = json!({
        "name": rule.name,
        "type": kind.name(),
        "path": rule.path(cx.txn, router)?.unwrap_or_default(),
        "role": rule.scope.role,
        "inheritable": rule.inheritable,
    });
    let more = match kind {
        Kind::Rate => json!({
            "rate": rule.rate,
            "interval": rule.interval,
            "block_interval": rule.block_interval,
            "group_by": rule.group_by.as_str(),
            "secondary_rate": rule.secondary_rate,
        }),
        Kind::Leases => {
            json!({ "max_leases": rule.max_leases, "counter": quota::count(cx.txn, router, &rule)?.leases })
        }
    };
    if let (Some(data), Some(more)) = (data.as_object_mut(), more.as_object()) {
        data.extend(more.clone());
    }
    Response::json(data).done()
}

fn write(cx: &mut Cx<'_, '_>, args: &Args, kind: Kind) -> Outcome {
    let name = args.str("name").to_owned();
    let old = Rule::load(cx.txn, kind, &name)?;
    let h = host(cx);
    let scope = quota::scope_of(cx.txn, &h.router, &h.namespace, args.str("path"))?;
    let scope = with_role(cx, args, kind, scope)?;
    // root's quota is that of all namespaces already
    let inheritable = args.opt_bool("inheritable").unwrap_or(scope.ns.0 == 0 && scope.mount.is_none());
    if inheritable && scope.mount.is_some() {
        return Err(Error::invalid("only quotas of namespaces can be inheritable"));
    }
    let id = old.map_or_else(|| entropy::uuid4(cx.rng), |r| r.id);
    let mut rule = Rule {
        id,
        name,
        kind,
        scope,
        inheritable,
        rate: 0.0,
        secondary_rate: 0.0,
        interval: 0,
        block_interval: 0,
        group_by: GroupBy::default(),
        max_leases: 0,
    };
    match kind {
        Kind::Rate => {
            let sane = |rate: f64| rate.is_finite() && rate > 0.0;
            rule.rate = args.float("rate");
            rule.secondary_rate = args.float("secondary_rate");
            rule.interval = args.seconds("interval");
            rule.block_interval = args.seconds("block_interval");
            if !sane(rule.rate) {
                return Err(Error::invalid("'rate' is invalid"));
            }
            if rule.secondary_rate != 0.0 && !sane(rule.secondary_rate) {
                return Err(Error::invalid("'secondary_rate' is invalid"));
            }
            if rule.interval == 0 {
                return Err(Error::invalid("'interval' is invalid"));
            }
            let grouping = GroupBy::parse(args.str("group_by"));
            rule.group_by = grouping.ok_or_else(|| Error::invalid("'group_by' is invalid"))?;
        }
        Kind::Leases => {
            let max = args.int("max_leases");
            rule.max_leases = u64::try_from(max)
                .ok()
                .filter(|n| *n > 0)
                .ok_or_else(|| Error::invalid("'max_leases' is invalid"))?;
        }
    }
    no_twin(cx, &rule)?;
    rule.save(cx.txn);
    nothing()
}

/// A role is one of an auth method's.
fn with_role(cx: &Cx<'_, '_>, args: &Args, kind: Kind, scope: Scope) -> Result<Scope, Error> {
    let role = args.str("role").to_owned();
    if role.is_empty() {
        return Ok(scope);
    }
    if kind == Kind::Leases {
        return Err(Error::invalid("lease-count quotas for roles are not supported; limit the auth method"));
    }
    let method = match scope.mount {
        Some(id) => host(cx).router.by_id(cx.txn, scope.ns, id)?.is_some_and(|m| m.entry.class == Class::Auth),
        None => false,
    };
    if !method || !scope.inner.is_empty() {
        return Err(Error::invalid("'role' needs the path of an auth method"));
    }
    Ok(Scope { role, ..scope })
}

/// Two quotas of a kind at one place would be a riddle. Reads all of them, so of two made at once one tries again.
fn no_twin(cx: &mut Cx<'_, '_>, rule: &Rule) -> Result<(), Error> {
    let rows = cx.txn.scan(&tables::quota(rule.kind.byte(), ""), None, MAX_QUOTAS)?;
    if rows.len() >= MAX_QUOTAS {
        return Err(Error::invalid(format!("there are at most {MAX_QUOTAS} quotas of a kind")));
    }
    for (_, plain) in rows {
        let other: Rule =
            serde_json::from_slice(&plain.bytes).map_err(|e| Error::internal(format!("stored quota: {e}")))?;
        if other.name != rule.name && other.scope == rule.scope {
            return Err(Error::invalid(format!(
                "quota rule with similar properties exists under the name {:?}",
                other.name
            )));
        }
    }
    Ok(())
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args, kind: Kind) -> Outcome {
    let key = tables::quota(kind.byte(), args.str("name"));
    if cx.txn.exists(&key) {
        cx.txn.delete(&key);
    }
    nothing()
}
