//! `lease`: look up, renew and revoke leases.

use super::client::Request;
use super::output::wrap;
use super::session::{Outcome, Session, doing, usage};
use super::verb::{Kind, Verb, flag, verb};
use ringfence_base::duration;
use serde_json::json;

/// The verbs below `lease`.
pub const VERBS: &[Verb] = &[
    verb("lookup", "<lease id>", "Tell about a lease", &[], lookup),
    verb(
        "renew",
        "<lease id>",
        "Renew a lease",
        &[flag("increment", Kind::Duration, "How long it shall live from now.")],
        renew,
    ),
    verb(
        "revoke",
        "<lease id or prefix>",
        "Revoke leases",
        &[
            flag("prefix", Kind::Bool, "All leases below the argument."),
            flag("force", Kind::Bool, "Forget the leases even when the engine cannot revoke them; needs -prefix."),
            flag("sync", Kind::Bool, "Wait until it is done."),
        ],
        revoke,
    ),
];

fn lease_id(session: &Session<'_, '_>) -> Result<String, super::session::Fail> {
    if session.flags.args.is_empty() {
        return Err(usage("Missing ID!"));
    }
    session.expect_args(1, 1)?;
    Ok(session.arg(0).to_owned())
}

fn lookup(session: &mut Session<'_, '_>) -> Outcome {
    let id = lease_id(session)?;
    let answer = session
        .call_secret(&Request::put("sys/leases/lookup", json!({ "lease_id": id })))
        .map_err(doing(format!("error looking up lease id {id}")))?;
    answer.map_or(Ok(0), |secret| session.print_secret_or_field(&secret))
}

fn renew(session: &mut Session<'_, '_>) -> Outcome {
    let id = lease_id(session)?;
    let increment = session.flags.duration_ns("increment").unwrap_or(0) / duration::SECOND_NS as i64;
    let answer = session
        .call_secret(&Request::put("sys/leases/renew", json!({ "increment": increment, "lease_id": id })))
        .map_err(doing(format!("Error renewing {id}")))?;
    answer.map_or(Ok(0), |secret| session.print_secret_or_field(&secret))
}

fn revoke(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let (prefix, force, sync) =
        (session.flags.is_set("prefix"), session.flags.is_set("force"), session.flags.is_set("sync"));
    if force && !prefix {
        return Err(usage("Specifying -force requires also specifying -prefix"));
    }
    let id = session.arg(0).to_owned();
    if force {
        session
            .io
            .err(&wrap("Warning! Force-removing leases can cause Vault to become out of sync with secret engines!"));
    }
    let (request, what) = match (force, prefix) {
        (true, _) => (
            Request::put(format!("sys/leases/revoke-force/{id}"), json!({})),
            format!("Error force revoking leases with prefix {id}"),
        ),
        (_, true) => (
            Request::put(format!("sys/leases/revoke-prefix/{id}"), json!({ "sync": sync })),
            format!("Error revoking leases with prefix {id}"),
        ),
        _ => (
            Request::put("sys/leases/revoke", json!({ "lease_id": id, "sync": sync })),
            format!("Error revoking lease {id}"),
        ),
    };
    session.call(&request).map_err(doing(what))?;
    session.say(&match (force, sync, prefix) {
        (true, ..) => format!("Success! Force revoked any leases with prefix: {id}"),
        (_, true, true) => format!("Success! Revoked any leases with prefix: {id}"),
        (_, true, false) => format!("Success! Revoked lease: {id}"),
        _ => "All revocation operations queued successfully!".to_owned(),
    })
}
