//! `sys/mfa/validate`: the second request of a login that owes a second factor.

use super::{check, pending};
use crate::host::host;
use crate::pipeline::Pass;
use crate::quota;
use crate::token::login;
use ringfence_logical::{Args, Cx, Error, Field, Kind, Outcome, Path, Response, TokenType};
use serde_json::Value;

/// The path.
pub const PATHS: &[Path] = &[Path::new("mfa/validate")
    .fields(&[
        Field::str("mfa_request_id", "The mfa_request_id that the login answered."),
        Field::new("mfa_payload", Kind::Object, "Codes by id or name of a method.").secret(),
    ])
    .help("Complete a login with its second factor.", "")
    .public()
    .write(validate)];

fn validate(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let id = args.str("mfa_request_id").to_owned();
    if id.is_empty() {
        return Err(Error::invalid("missing request ID"));
    }
    let offer = offer(args)?;
    if offer.is_empty() {
        return Err(Error::invalid("missing mfa payload"));
    }
    let ns = cx.mount.ns;
    let h = host(cx);
    let invalid = || Error::invalid("invalid request ID");
    let found = pending::find(cx.txn, &h.keyring, ns, &id, cx.now)?.ok_or_else(invalid)?;
    // a mount that moved away meanwhile owes what its new namespace asks for
    let routed =
        h.router.by_id(cx.txn, ns, found.mount)?.filter(|r| r.entry.ns == ns).cloned().ok_or_else(invalid)?;
    // the mount may go while the login waits: its token must not outlive it
    cx.txn.guard(&crate::tables::mount(found.mount));
    let mut pass = Pass {
        core: &h.core,
        keyring: &h.keyring,
        sealer: &h.sealer,
        cluster: &h.cluster,
        now: cx.now,
        wall: h.wall,
        rng: &mut *cx.rng,
    };
    let identity = login::identify(&mut pass, cx.txn, &routed, &found.auth)?;
    let owed = check::owed(cx.txn, &h.router, &routed, &identity)?;
    check::pay(cx.txn, cx.now, &identity.entity_id, &owed, &offer)?;
    let role = found.auth.role.clone();
    let (issued, warnings) = login::grant(&mut pass, cx.txn, &h.call, &routed, &found.path, found.auth, identity)?;
    if issued.token_type == TokenType::Service {
        // a login in two steps makes a token as one in one step does, and is counted where it was begun
        let home = h.router.namespace_by_id(ns).cloned().ok_or_else(invalid)?;
        let inner = found.path.strip_prefix(&routed.info.path).unwrap_or("");
        let subject = quota::Subject { ns: &home, routed: Some(&routed), inner, role: &role };
        quota::admit_lease(&pass, cx.txn, &h.router, &found.path, &subject)?;
    }
    pending::forget(cx.txn, &h.keyring, &h.router, ns, &id)?;
    Response { issued: Some(issued), warnings, ..Response::default() }.done()
}

/// The payload: a list of texts, or one text, by method.
fn offer(args: &Args) -> Result<check::Offer, Error> {
    let wrong = || Error::invalid("mfa_payload must map the id or name of a method to a list of codes");
    let mut offer = check::Offer::new();
    for (method, codes) in args.object("mfa_payload").into_iter().flatten() {
        let codes = match codes {
            Value::Array(list) => {
                list.iter().map(|c| c.as_str().map(str::to_owned).ok_or_else(wrong)).collect::<Result<_, _>>()?
            }
            Value::String(code) => vec![code.clone()],
            _ => return Err(wrong()),
        };
        offer.insert(method.clone(), codes);
    }
    Ok(offer)
}
