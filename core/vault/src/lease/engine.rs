//! Renewal and revocation of a lease through the engine that made it. The engine may need the outside world: then the
//! work goes on in a later transaction, which reads the lease again.

use super::entry::LeaseEntry;
use super::{Standing, cap, forget, locate, save, standing};
use crate::host::host;
use crate::mount::MountEntry;
use crate::token::ttl;
use ringfence_base::{Code, MountId};
use ringfence_logical::{
    Cx, Error, Lease, Leased, MountInfo, Operation, Outcome, Request, Response, Resume, SideResult, Step, nothing,
};

/// Which call of the engine.
#[derive(Clone, Copy)]
enum Ask {
    Renew(u64),
    Revoke,
}

/// Renews the lease with this id: `sys/leases/renew`.
///
/// # Errors
/// The API's texts for what cannot be renewed.
pub fn renew(cx: &mut Cx<'_, '_>, id: &str, increment: u64) -> Outcome {
    if id.is_empty() {
        return Err(Error::invalid("lease_id must be specified"));
    }
    let (mount, _, lease) = renewable(cx, id)?;
    let step = call(cx, mount, &lease, Ask::Renew(increment))?;
    after_renew(cx, id.to_owned(), increment, step)
}

/// Finds the lease of an id and checks that it may be renewed.
fn renewable(cx: &mut Cx<'_, '_>, id: &str) -> Result<(MountId, String, LeaseEntry), Error> {
    let h = host(cx);
    let not_found = || Error::invalid("lease not found");
    let (routed, key_path) = locate(cx.txn, &h.router, &h.namespace, id)?.ok_or_else(not_found)?;
    if routed.info.class == ringfence_logical::Class::Auth {
        return Err(Error::invalid("tokens cannot be renewed through this endpoint"));
    }
    let mount = routed.entry.id;
    let lease = super::load(cx.txn, mount, &key_path)?.ok_or_else(not_found)?;
    match standing(cx.txn, &h.router, (h.namespace.id, mount), &key_path, &lease, cx.now)? {
        Standing::Alive => {}
        Standing::Expired => return Err(Error::invalid("lease expired")),
        Standing::Revoked => return Err(not_found()),
        Standing::Irrevocable => {
            return Err(Error::invalid("lease is expired and has failed previous revocation attempts"));
        }
    }
    if !lease.renewable {
        return Err(Error::invalid("lease is not renewable"));
    }
    Ok((mount, key_path, lease))
}

fn after_renew(cx: &mut Cx<'_, '_>, id: String, increment: u64, step: Step) -> Outcome {
    let response = match step {
        Step::Side { op, resume } => return Ok(Step::Side { op, resume: renew_later(id, increment, resume) }),
        Step::Intent { op, resume } => return Ok(Step::Intent { op, resume: renew_later(id, increment, resume) }),
        Step::Done(response) => response.unwrap_or_default(),
    };
    let (mount, key_path, mut lease) = renewable(cx, &id)?;
    let h = host(cx);
    let Some(routed) = h.router.by_id(cx.txn, cx.mount.ns, mount)? else {
        return Err(Error::invalid("lease not found"));
    };
    let terms = response.lease.clone().unwrap_or_default();
    if terms.max_ttl > 0 {
        lease.max_ttl = terms.max_ttl;
    }
    let ask = ttl::Ask {
        increment,
        ttl: terms.ttl,
        period: 0,
        max_ttl: lease.max_ttl,
        explicit_max_ttl: 0,
        start: lease.issued,
        now: cx.now,
    };
    let granted = ttl::calculate(&routed.info, &ask)?;
    lease.due = cap(&lease, cx.now.plus_seconds(granted.ttl));
    lease.last_renewal = cx.now;
    if response.lease.as_ref().is_some_and(|t| !t.internal.is_empty()) {
        lease.internal = serde_json::to_string(&terms.internal).expect("a JSON tree always serialises");
    }
    save(cx.txn, mount, &key_path, &lease);
    let leased = Leased { lease_id: id, duration: ttl::left(lease.due, cx.now), renewable: lease.renewable };
    let mut warnings = response.warnings;
    warnings.extend(granted.warnings);
    Response { data: response.data, warnings, leased: Some(leased), ..Response::default() }.done()
}

fn renew_later(id: String, increment: u64, resume: Resume) -> Resume {
    Box::new(move |cx, result| {
        let (mount, _, lease) = renewable(cx, &id)?;
        let step = resumed(cx, mount, &lease, &resume, result)?;
        after_renew(cx, id.clone(), increment, step)
    })
}

/// Ends the lease with this id: `sys/leases/revoke`. `sync` asks for the engine's work at once; else the lease ends
/// now and the worker does the rest.
pub fn revoke(cx: &mut Cx<'_, '_>, id: &str, sync: bool) -> Outcome {
    if id.is_empty() {
        return Err(Error::invalid("lease_id must be specified"));
    }
    let h = host(cx);
    // an unknown lease is as good as revoked
    let Some((routed, key_path)) = locate(cx.txn, &h.router, &h.namespace, id)? else { return finished(sync) };
    let mount = routed.entry.id;
    let Some(mut lease) = super::load(cx.txn, mount, &key_path)? else { return finished(sync) };
    if !sync {
        if lease.attempts == 0 {
            lease.due = cx.now;
            lease.renewable = false;
            save(cx.txn, mount, &key_path, &lease);
        }
        return finished(sync);
    }
    match call(cx, mount, &lease, Ask::Revoke).map_err(as_refusal)? {
        // what the engine does outside may be done although nobody comes back to say so: the lease is committed as
        // ending before it is begun, and if this request does not finish it, the worker does
        Step::Side { op, resume } | Step::Intent { op, resume } => {
            if lease.attempts == 0 {
                lease.due = cx.now.plus_seconds(TAKEN_OVER_AFTER_SECONDS);
                lease.renewable = false;
                save(cx.txn, mount, &key_path, &lease);
            }
            Ok(Step::Intent { op, resume: revoke_later(mount, key_path, resume) })
        }
        step @ Step::Done(_) => after_revoke(cx, mount, key_path, step),
    }
}

/// A revocation that a request began and did not finish is the worker's after this long. Longer than any side operation
/// may take, so that the two seldom meet; engines bear it if they do.
const TAKEN_OVER_AFTER_SECONDS: u64 = 30;

/// Whatever keeps an engine from revoking is told to the one who asked for it.
fn as_refusal(e: Error) -> Error {
    Error { code: Code::Invalid, ..e }
}

fn after_revoke(cx: &mut Cx<'_, '_>, mount: MountId, key_path: String, step: Step) -> Outcome {
    match step {
        Step::Side { op, resume } => Ok(Step::Side { op, resume: revoke_later(mount, key_path, resume) }),
        Step::Intent { op, resume } => Ok(Step::Intent { op, resume: revoke_later(mount, key_path, resume) }),
        Step::Done(_) => {
            forget(cx.txn, mount, &key_path);
            nothing()
        }
    }
}

fn revoke_later(mount: MountId, key_path: String, resume: Resume) -> Resume {
    Box::new(move |cx, result| {
        let Some(lease) = super::load(cx.txn, mount, &key_path)? else { return nothing() };
        let step = resumed(cx, mount, &lease, &resume, result).map_err(as_refusal)?;
        after_revoke(cx, mount, key_path.clone(), step)
    })
}

/// 204, or 202 for what was only queued.
pub fn finished(sync: bool) -> Outcome {
    if sync { nothing() } else { Response::default().code(Code::Accepted).done() }
}

/// Asks the engine to end a lease: what the worker calls. `None` if no engine is left to ask.
pub(super) fn revoke_step(cx: &mut Cx<'_, '_>, mount: MountId, lease: &LeaseEntry) -> Outcome {
    call(cx, mount, lease, Ask::Revoke)
}

/// Goes on with what a side operation brought.
pub(super) fn resumed(
    cx: &mut Cx<'_, '_>,
    mount: MountId,
    lease: &LeaseEntry,
    resume: &Resume,
    result: &SideResult,
) -> Outcome {
    if let SideResult::Refused(e) = result {
        return Err(e.clone());
    }
    within(cx, mount, &lease.path, Operation::Revoke, |sub, _| resume(sub, result))
}

/// Has the engine of a mount do a job that is due. A mount or engine that is gone has nothing to do.
pub(super) fn job_step(cx: &mut Cx<'_, '_>, mount: MountId, job: &str) -> Outcome {
    within(cx, mount, job, Operation::Update, |sub, engine| match engine {
        Some(engine) => engine.due(sub, job),
        None => nothing(),
    })
}

/// Goes on with a job after its side operation.
pub(super) fn job_resumed(
    cx: &mut Cx<'_, '_>,
    mount: MountId,
    job: &str,
    resume: &Resume,
    result: &SideResult,
) -> Outcome {
    if let SideResult::Refused(e) = result {
        return Err(e.clone());
    }
    within(cx, mount, job, Operation::Update, |sub, _| resume(sub, result))
}

fn call(cx: &mut Cx<'_, '_>, mount: MountId, lease: &LeaseEntry, ask: Ask) -> Outcome {
    let (op, increment) = match ask {
        Ask::Renew(n) => (Operation::Renew, n),
        Ask::Revoke => (Operation::Revoke, 0),
    };
    let internal =
        serde_json::from_str(&lease.internal).map_err(|e| Error::internal(format!("stored lease: {e}")))?;
    let told = Lease { secret: lease.secret.clone(), internal, path: lease.path.clone(), increment };
    within(cx, mount, &lease.path, op, |sub, registered| match (registered, ask) {
        (Some(engine), Ask::Renew(_)) => engine.renew(sub, &told),
        (Some(engine), Ask::Revoke) => engine.revoke(sub, &told),
        (None, Ask::Renew(_)) => Err(Error::invalid("lease not found")),
        // mount or engine are gone: there is nothing left to revoke with
        (None, Ask::Revoke) => nothing(),
    })
}

/// Runs something in the context of the lease's mount, which may be one that is being removed and that no request
/// reaches any more.
fn within(
    cx: &mut Cx<'_, '_>,
    mount: MountId,
    path: &str,
    op: Operation,
    run: impl FnOnce(&mut Cx<'_, '_>, Option<&dyn ringfence_logical::Engine>) -> Outcome,
) -> Outcome {
    let h = host(cx);
    let entry = MountEntry::load(cx.txn, mount)?;
    let engine = entry.as_ref().and_then(|m| h.registry().find(m.class, &m.kind, m.version()));
    let info: MountInfo = match (&entry, engine) {
        (Some(m), Some(_)) => {
            let ns_path = h.router.namespace_by_id(m.ns).map_or("", |n| n.path.as_str());
            m.info(ns_path, &h.settings().ttls)
        }
        _ => cx.mount.clone(),
    };
    let req = Request { op, path: path.to_owned(), wrap_ttl: 0, ..cx.req.clone() };
    let mut sub = Cx {
        txn: &mut *cx.txn,
        mount: &info,
        req: &req,
        principal: cx.principal,
        now: cx.now,
        rng: &mut *cx.rng,
        host: cx.host,
    };
    run(&mut sub, engine.map(|r| &*r.engine))
}
