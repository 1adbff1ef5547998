//! A request's way, one function a stage, top to bottom. Design: `accept > parse > admit > namespace > route > token >
//! policy > [audit request] > engine > Txn > batch > log > apply > [audit response] > reply`; this file is from
//! namespace to Txn. It is a function of call, view, keyring, time and randomness; it may be run again for the same
//! call when its transaction was refused, and then reads everything anew.
//!
//! Driven by the shard machine of the node floor. Never blocks, never knows HTTP numbers.

use crate::activity;
use crate::audit;
use crate::call::{Body, Call, Reply};
use crate::envelope;
use crate::host::{ClusterFacts, CoreState, VaultHost};
use crate::identity::Identity;
use crate::known::Known;
use crate::lease;
use crate::list_filter::Filter;
use crate::mount::{Routed, Router, UserLockout};
use crate::namespace::Namespace;
use crate::namespace_reroute;
use crate::quota;
use crate::token::check::{self, Holder};
use crate::token::{login, mint};
use crate::wrap;
use ringfence_barrier::{Keyring, Sealer, Txn};
use ringfence_base::{Code, Entropy, MountId, Wall};
use ringfence_logical::engine::Registered;
use ringfence_logical::path::{Access, Matched};
use ringfence_logical::{
    Args, Cx, Error, Operation, Parameters, Principal, Request, Response, Resume, SideOp, SideResult, Step, TokenType,
};
use ringfence_policy::acl::{Acl, AclRequest, GrantingPolicy};
use std::borrow::Cow;
use std::cell::RefCell;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

/// Path whose token is read, opened and revoked in one transaction.
const UNWRAP: &str = "sys/wrapping/unwrap";
/// Below it tokens are made.
const TOKEN_CREATION: &str = "auth/token/create";
/// The one path that a locked namespace answers.
const UNLOCK: &str = "sys/namespaces/api-lock/unlock";

/// What a run is given.
pub struct Pass<'a> {
    /// This core.
    pub core: &'a Rc<CoreState>,
    /// Keys.
    pub keyring: &'a Arc<Keyring>,
    /// This core's licence to seal and to mint batch tokens.
    pub sealer: &'a Rc<RefCell<Sealer>>,
    /// Names of the cluster.
    pub cluster: &'a Rc<ClusterFacts>,
    /// Log time.
    pub now: Wall,
    /// This core's wall clock.
    pub wall: Wall,
    /// Randomness.
    pub rng: &'a mut dyn Entropy,
}

/// Where in its life a call is.
#[derive(Default)]
pub struct Stage<'s> {
    /// The use of a use-limited token was committed.
    pub use_counted: bool,
    /// The request's audit lines are acknowledged.
    pub request_audited: bool,
    /// The call ran before: it was counted by quotas then.
    pub again: bool,
    /// It runs on a standby, over a transaction that is never committed: what is sure to write is not begun.
    pub on_standby: bool,
    /// A side operation came back: go on here instead of at the handler.
    pub resume: Option<(&'s Resume, &'s SideResult)>,
}

/// What a run yields besides what its transaction holds.
pub struct Ran {
    /// How it goes on.
    pub next: Next,
    /// Lines for the audit devices.
    pub audit: audit::Lines,
    /// What the failure log may tell (never a secret).
    pub cause: Option<String>,
    /// A login that counts towards a lockout, or ends a count.
    pub login: Option<LoginNote>,
}

/// What became of a login at a mount whose users can be locked out.
#[derive(Clone, Debug, PartialEq)]
pub struct LoginNote {
    /// The mount.
    pub mount: MountId,
    /// Whom it named.
    pub alias: String,
    /// The credentials were right.
    pub good: bool,
    /// The rules of the mount.
    pub rules: UserLockout,
}

/// How a call goes on after a run.
pub enum Next {
    /// Commit what the transaction holds, if anything, then answer.
    Answer(Reply),
    /// Commit the counted use, then run again with `use_counted`.
    CountUse,
    /// On a standby: the active node is to run it.
    Elsewhere,
    /// Do this, then run again with `resume`.
    Side {
        /// What is to be done.
        op: SideOp,
        /// What goes on.
        resume: Resume,
        /// Commit what the transaction holds first; else it is dropped.
        intent: bool,
    },
}

/// Where a call goes.
struct Place<'c> {
    router: Arc<Router>,
    ns: Arc<Namespace>,
    /// Path within the namespace.
    path: &'c str,
    routed: Option<Arc<Routed>>,
    /// Path within the mount.
    inner: &'c str,
}

/// Who calls, and what was found out on the way. Filled stage by stage, so that a refusal can be audited with what
/// was known when it fell.
#[derive(Default)]
struct Caller {
    op: Option<Operation>,
    holder: Option<Rc<Holder>>,
    principal: Option<Rc<Principal>>,
    granting: Vec<GrantingPolicy>,
    last_use: bool,
    login: Option<LoginNote>,
    /// What the policy says of a listing's answer.
    filter: Option<Filter>,
}

/// The engine and the declared path that serve a call.
struct Found<'v> {
    engine: &'v Registered,
    matched: Option<Matched<'v, 'v>>,
}

enum Admitted {
    Go,
    CountUse,
}

/// Runs a call over a transaction.
pub fn run(pass: &mut Pass<'_>, txn: &mut Txn<'_>, call: &Rc<Call>, stage: &Stage<'_>) -> Ran {
    let core = pass.core.clone();
    let place = match locate(pass, txn, call) {
        Ok(p) => p,
        Err(e) => {
            let cause = e.cause.clone();
            return Ran { next: Next::Answer(Reply::error(&e)), audit: audit::Lines::default(), cause, login: None };
        }
    };
    let found = find(&core, &place);
    if stage.on_standby && changes(call, found.as_ref()) {
        return Ran { next: Next::Elsewhere, audit: audit::Lines::default(), cause: None, login: None };
    }
    let mut caller = Caller::default();
    let context = Context { core: &core, call, place: &place, found: found.as_ref() };
    let metered = match meter(pass, txn, call, stage, &place, found.as_ref()) {
        Ok(m) => m,
        Err(e) => return context.refuse(pass, txn, stage, &caller, e),
    };
    if let Some(refusal) = metered.as_ref().filter(|m| !m.allowed) {
        let e = quota::too_many(place.path);
        let ran = match refusal.audit {
            true => context.refuse(pass, txn, stage, &caller, e),
            false => {
                Ran { next: Next::Answer(Reply::error(&e)), audit: audit::Lines::default(), cause: None, login: None }
            }
        };
        return with_headers(ran, metered);
    }
    let outcome = admit(pass, txn, call, stage, &place, found.as_ref(), &mut caller);
    let ran = match outcome {
        Ok(Admitted::Go) => context.serve(pass, txn, stage, &mut caller),
        Ok(Admitted::CountUse) => {
            Ran { next: Next::CountUse, audit: audit::Lines::default(), cause: None, login: None }
        }
        Err(e) => context.refuse(pass, txn, stage, &caller, e),
    };
    with_headers(ran, metered)
}

/// Whether a call is there to change something. One that finds nothing to change answers well all the same, so what it
/// finds must be the latest.
fn changes(call: &Call, found: Option<&Found<'_>>) -> bool {
    let asks = found.and_then(|f| f.matched.as_ref()).is_some_and(|m| m.path.login || m.path.computes);
    !(matches!(call.op, Operation::Read | Operation::List | Operation::Scan | Operation::Help | Operation::Header)
        || asks)
}

/// Counts a call against the rate limit that speaks for it, before anybody looks at its token.
fn meter(
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    call: &Rc<Call>,
    stage: &Stage<'_>,
    place: &Place<'_>,
    found: Option<&Found<'_>>,
) -> Result<Option<quota::Said>, Error> {
    let ask = if stage.again { quota::Ask::Again } else { quota::Ask::Count };
    let role = login_role(pass, txn, call, place, found)?;
    quota::meter(pass, txn, &place.router, call, place.path, &subject_of(place, &role), ask)
}

/// The role that a login is to, as its method finds it; empty if it is to none, or no quota asks. A login that the method
/// cannot read is to none: the method refuses it.
fn login_role(
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    call: &Rc<Call>,
    place: &Place<'_>,
    found: Option<&Found<'_>>,
) -> Result<String, Error> {
    let none = || Ok(String::new());
    let (Some(routed), Some(m)) = (&place.routed, found.and_then(|f| f.matched.as_ref())) else { return none() };
    let Some(role) = m.path.role.filter(|_| m.path.login) else { return none() };
    if !pass.core.caches.borrow_mut().quotas.table(txn)?.knows_roles(quota::Kind::Rate, routed.entry.id) {
        return none();
    }
    let Ok(args) = Args::parse(m.path.fields, &m.captures, call.data.clone()) else { return none() };
    let request = request_of(call, place, call.op);
    let host = host_of(pass, call, place);
    let mut cx = Cx {
        txn,
        mount: &routed.info,
        req: &request,
        principal: None,
        now: pass.now,
        rng: &mut *pass.rng,
        host: &host,
    };
    Ok(role(&mut cx, &args).unwrap_or_default())
}

/// Whether a rate limit would refuse a call whose body is not there yet: asked before the body is taken in and read,
/// so that who is over his limit costs no more than his head (CVE-2025-6203, CVE-2025-12044). It counts nothing.
pub fn is_over_limit(pass: &mut Pass<'_>, txn: &mut Txn<'_>, call: &Rc<Call>) -> bool {
    let core = pass.core.clone();
    let Ok(place) = locate(pass, txn, call) else { return false };
    let found = find(&core, &place);
    if found.as_ref().and_then(|f| f.matched.as_ref()).is_some_and(|m| m.path.role.is_some())
        && place.routed.as_ref().is_some_and(|m| {
            let table = core.caches.borrow_mut().quotas.table(txn);
            table.is_ok_and(|t| t.knows_roles(quota::Kind::Rate, m.entry.id))
        })
    {
        // which quota speaks for it is told by the body
        return false;
    }
    let subject = subject_of(&place, "");
    let said = quota::meter(pass, txn, &place.router, call, place.path, &subject, quota::Ask::Would);
    matches!(said, Ok(Some(said)) if !said.allowed)
}

/// Whether there is any rate limit at all.
pub fn limits_rates(core: &CoreState, txn: &Txn<'_>) -> bool {
    core.caches.borrow_mut().quotas.table(txn).is_ok_and(|t| !t.is_empty(quota::Kind::Rate))
}

/// What a call is to the quotas.
fn subject_of<'s>(place: &'s Place<'_>, role: &'s str) -> quota::Subject<'s> {
    quota::Subject { ns: &place.ns, routed: place.routed.as_deref(), inner: place.inner, role }
}

/// What a rate limit tells goes with the answer.
fn with_headers(mut ran: Ran, metered: Option<quota::Said>) -> Ran {
    if let (Next::Answer(reply), Some(m)) = (&mut ran.next, metered) {
        reply.headers.extend(m.headers);
    }
    ran
}

/// Whether token and policy, as they stand now, let a call through: asked before a body of any size is taken in. It
/// counts nothing and writes nothing; the call itself is judged anew when it runs.
pub fn would_admit(pass: &mut Pass<'_>, txn: &mut Txn<'_>, call: &Rc<Call>) -> bool {
    let core = pass.core.clone();
    let Ok(place) = locate(pass, txn, call) else { return false };
    let found = find(&core, &place);
    admit(pass, txn, call, &Stage::default(), &place, found.as_ref(), &mut Caller::default()).is_ok()
}

/// The lines of a call that the owner core answers outside mounts and policies (rekey, root generation): nobody is
/// authenticated, the shares are, so the entries name the request alone.
///
/// # Errors
/// The view cannot be read.
pub fn ceremony_lines(
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    call: &Rc<Call>,
    told: Told<'_>,
    request_taken: bool,
) -> Result<audit::Lines, Error> {
    let core = pass.core.clone();
    let place = locate(pass, txn, call)?;
    let context = Context { core: &core, call, place: &place, found: None };
    let stage = Stage { request_audited: request_taken, ..Stage::default() };
    context.lines(pass, txn, &stage, &Caller::default(), told)
}

/// The lines of a call that ran and then came to nothing, or to nobody knows what: its writes were too many for a batch,
/// lost too often, or the log never said. Who calls is found out again; the transaction is for reading only.
///
/// # Errors
/// The view cannot be read.
pub fn refusal_lines(
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    call: &Rc<Call>,
    stage: &Stage<'_>,
    e: &Error,
) -> Result<audit::Lines, Error> {
    let core = pass.core.clone();
    let place = locate(pass, txn, call)?;
    let found = find(&core, &place);
    let mut caller = Caller::default();
    // if the caller is gone meanwhile the lines tell what is still known
    let _ = admit(pass, txn, call, stage, &place, found.as_ref(), &mut caller);
    let context = Context { core: &core, call, place: &place, found: found.as_ref() };
    context.lines(pass, txn, stage, &caller, Told::Refusal(e))
}

/// Engine and declared path.
fn find<'v>(core: &'v CoreState, place: &'v Place<'_>) -> Option<Found<'v>> {
    let m = place.routed.as_ref()?;
    let engine = core.vault.registry.find(m.entry.class, &m.entry.kind, m.entry.version())?;
    Some(Found { engine, matched: engine.matcher.find(engine.engine.table(), place.inner) })
}

/// Namespace and mount.
fn locate<'c>(pass: &mut Pass<'_>, txn: &mut Txn<'_>, call: &'c Call) -> Result<Place<'c>, Error> {
    let router = pass.core.caches.borrow_mut().router(txn, &pass.core.vault.settings.ttls)?;
    let header = Namespace::canonical(call.namespace.as_deref().unwrap_or(""));
    let Some(base) = router.namespace(&header).cloned() else {
        return Err(Error::new(Code::NotFound, "namespace not found"));
    };
    let (mut ns, path) = router.descend(&base, &call.path);
    if let Some(home) = namespace_reroute::namespace_of(&router, call, path) {
        ns = home.clone();
    }
    // a write in a namespace rests on it, and all above it, standing unlocked
    if !ns.is_root() {
        for n in router.lineage(&ns) {
            txn.guard(&crate::tables::namespace(n.id));
        }
    }
    if matches!(call.op, Operation::Create | Operation::Update | Operation::Patch) && path.ends_with('/') {
        return Err(Error::invalid("cannot write to a path ending in '/'"));
    }
    let (routed, inner) = match router.route(txn, ns.id, path)? {
        Some((m, inner)) => (Some(m.clone()), inner),
        None => (router.named(txn, ns.id, path)?.cloned(), ""),
    };
    Ok(Place { router, ns, path, routed, inner })
}

/// Token, existence check and policy. An error is a refusal that is audited.
fn admit(
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    call: &Rc<Call>,
    stage: &Stage<'_>,
    place: &Place<'_>,
    found: Option<&Found<'_>>,
    caller: &mut Caller,
) -> Result<Admitted, Error> {
    let declared = found.and_then(|f| f.matched.as_ref()).map(|m| m.path);
    let access = declared.map_or(Access::Token, |p| p.access);
    if !place.ns.is_root() {
        if let Some(locked) = place.router.locked_by(&place.ns).filter(|_| place.path != UNLOCK) {
            return Err(Error::new(
                Code::Unavailable,
                format!(
                    "API access to this namespace has been locked by an administrator - {:?} must be unlocked to \
                     gain access.",
                    locked.path
                ),
            ));
        }
        if declared.is_some_and(|p| p.root_namespace_only) {
            return Err(Error::invalid("operation unavailable in namespaces"));
        }
    }
    let unwrap_own = place.path == UNWRAP;
    let known = match (&call.token, access) {
        (_, Access::Public) if declared.is_some_and(|p| p.login) => None,
        // a public path may look at a token, but a bad one does not matter
        (Some(raw), Access::Public) => match recognise(pass, txn, place, raw.expose(), call.remote) {
            Ok(known) => Some(known).filter(|k| k.holder.entry.num_uses >= 0),
            Err(Stranger::NoToken(_)) => None,
            Err(Stranger::NoPolicies(e)) => return Err(e),
        },
        (None, Access::Public) => None,
        (None, _) => return Err(Error::denied_plain()),
        (Some(raw), _) => match recognise(pass, txn, place, raw.expose(), call.remote) {
            Ok(known) => Some(known),
            Err(Stranger::NoToken(_)) if unwrap_own => return Err(wrap::not_valid()),
            Err(Stranger::NoToken(e)) => return Err(e),
            Err(Stranger::NoPolicies(e)) => {
                // the token is good: the audit line names whose it is
                let token =
                    check::authenticate(txn, pass.keyring, &place.router, raw.expose(), pass.now, call.remote);
                caller.holder = token.ok().map(Rc::new);
                return Err(e);
            }
        },
    };
    let acl = known.map(|known| {
        caller.holder = Some(known.holder);
        caller.principal = Some(known.principal);
        known.acl
    });
    if let (Some(holder), false) = (&caller.holder, access == Access::Public) {
        let own_wrapping = unwrap_own && wrap::is_wrapping(&holder.entry) && !call.data.contains_key("token");
        match holder.entry.num_uses {
            0 => {}
            _ if own_wrapping => {}
            n if n > 0 && !stage.use_counted => {
                check::count_use(txn, holder, pass.now);
                return Ok(Admitted::CountUse);
            }
            n if n < 0 && stage.use_counted => caller.last_use = true,
            n if n < 0 => return Err(if unwrap_own { wrap::not_valid() } else { Error::bad_token() }),
            _ => {}
        }
    }
    caller.op = Some(resolve_create(pass, txn, call, place, found, caller)?);
    let op = caller.op.unwrap_or(call.op);
    if access == Access::Public {
        return Ok(Admitted::Go);
    }
    let (Some(acl), Some(principal)) = (&acl, caller.principal.as_mut()) else {
        return Err(Error::denied_plain());
    };
    let full = match place.ns.path.is_empty() {
        true => Cow::Borrowed(place.path),
        false => Cow::Owned(format!("{}{}", place.ns.path, place.path)),
    };
    let decision = acl.allow(&AclRequest {
        path: &full,
        op,
        // a long body is made a tree for a rule that looks at it, and else not
        parameters: acl.reads_parameters().then(|| &*call.data),
        wrap_ttl_seconds: (call.wrap_ttl > 0).then_some(call.wrap_ttl),
    });
    let has_devices = !pass.core.caches.borrow_mut().audit.refresh(txn, pass.keyring)?.is_empty();
    let sudo = decision.sudo || principal.is_root;
    if principal.sudo != sudo {
        Rc::make_mut(principal).sudo = sudo;
    }
    if let (Operation::List | Operation::Scan, Some(p)) = (op, decision.permissions())
        && (p.pagination_limit > 0 || p.list_scan_response_keys_filter_path.is_some())
    {
        let template = p.list_scan_response_keys_filter_path.clone();
        caller.filter = Some(Filter { acl: acl.clone(), template, limit: p.pagination_limit });
    }
    if has_devices {
        caller.granting = decision.granting_policies().cloned().collect();
    }
    if !decision.allowed || (access == Access::Sudo && !principal.sudo) {
        return Err(Error::denied());
    }
    if let Some(holder) = &caller.holder {
        activity::note(pass.core, txn, &place.router, holder, pass.now)?;
    }
    Ok(Admitted::Go)
}

/// Why nobody stands behind a token.
enum Stranger {
    /// It is no living token, or is used from elsewhere.
    NoToken(Error),
    /// It is, but its identity or policies are not to be had.
    NoPolicies(Error),
}

/// Token, identity and policies of a caller: known to this core, or proved from the view.
fn recognise(
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    place: &Place<'_>,
    raw: &str,
    remote: Option<IpAddr>,
) -> Result<Known, Stranger> {
    if let Some(known) = pass.core.caches.borrow().known.find(txn, raw, pass.now) {
        return Ok(known);
    }
    let (proved, reads) = txn.recorded(|txn| prove(pass, txn, place, raw, remote));
    let known = proved?;
    pass.core.caches.borrow_mut().known.remember(txn, &known, reads);
    Ok(known)
}

fn prove(
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    place: &Place<'_>,
    raw: &str,
    remote: Option<IpAddr>,
) -> Result<Known, Stranger> {
    let holder = check::authenticate(txn, pass.keyring, &place.router, raw, pass.now, remote);
    let holder = holder.map_err(Stranger::NoToken)?;
    let known = pass.core.caches.borrow_mut().identity(txn, holder.entry.ns, &holder.entry.entity_id);
    let identity = known.and_then(|i| i.ok_or_else(Error::denied_plain)).map_err(Stranger::NoPolicies)?;
    let acl = compile_acl(pass, txn, place, &holder, &identity).map_err(Stranger::NoPolicies)?;
    let principal = Rc::new(principal(&holder, identity));
    Ok(Known { holder: Rc::new(holder), principal, acl })
}

/// `Update` becomes `Create` if the path has an existence check and the object is not there.
fn resolve_create(
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    call: &Rc<Call>,
    place: &Place<'_>,
    found: Option<&Found<'_>>,
    caller: &Caller,
) -> Result<Operation, Error> {
    let (Operation::Update, Some(m), Some(routed)) =
        (call.op, found.and_then(|f| f.matched.as_ref()), place.routed.as_ref())
    else {
        return Ok(call.op);
    };
    let Some(exists) = m.path.exists else { return Ok(call.op) };
    let Ok(args) = Args::parse(m.path.fields, &m.captures, Parameters::default()) else { return Ok(call.op) };
    let routed = own_cubbyhole(txn, place, caller.holder.as_deref())?.unwrap_or(routed);
    let request = request_of(call, place, call.op);
    let host = host_of(pass, call, place);
    let mut cx = Cx {
        txn,
        mount: &routed.info,
        req: &request,
        principal: caller.principal.as_deref(),
        now: pass.now,
        rng: pass.rng,
        host: &host,
    };
    Ok(if exists(&mut cx, &args)? { Operation::Update } else { Operation::Create })
}

/// A token has one cubbyhole, that of its own namespace, wherever it asks from: there it dies with the token.
fn own_cubbyhole<'p>(
    txn: &Txn<'_>,
    place: &'p Place<'_>,
    holder: Option<&Holder>,
) -> Result<Option<&'p Arc<Routed>>, Error> {
    match (&place.routed, holder.map(|h| h.entry.ns)) {
        (Some(m), Some(home)) if m.entry.kind == "cubbyhole" && m.entry.ns != home => {
            place.router.at(txn, home, mint::CUBBYHOLE_PATH)
        }
        _ => Ok(None),
    }
}

/// The ACL of a caller: token policies in the token's namespace and those of its identity.
fn compile_acl(
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    place: &Place<'_>,
    holder: &Holder,
    identity: &Identity,
) -> Result<Rc<Acl>, Error> {
    let own = &holder.entry.policies;
    let names = match identity.policies.is_empty() && own.is_sorted_by(|a, b| a < b) {
        true => Cow::Borrowed(&own[..]),
        false => {
            let mut all = [&own[..], &identity.policies[..]].concat();
            all.sort();
            all.dedup();
            Cow::Owned(all)
        }
    };
    let home = place.router.namespace_by_id(holder.entry.ns);
    let ns_path = home.map_or("", |n| n.path.as_str());
    pass.core.caches.borrow_mut().acl(txn, holder.entry.ns, ns_path, &names, identity, pass.now)
}

fn principal(holder: &Holder, identity: Identity) -> Principal {
    let e = &holder.entry;
    Principal {
        token_hash: holder.hash,
        accessor: e.accessor.clone(),
        display_name: e.display_name.clone(),
        entity_id: e.entity_id.clone(),
        token_policies: e.policies.clone(),
        identity_policies: identity.policies,
        metadata: e.meta.clone().unwrap_or_default(),
        is_batch: holder.is_batch(),
        is_root: e.is_root(),
        sudo: e.is_root(),
    }
}

fn request_of(call: &Call, place: &Place<'_>, op: Operation) -> Request {
    let pass_through = place.routed.as_ref().map(|m| &m.entry.config.passthrough_request_headers);
    let headers = match pass_through {
        Some(names) if !names.is_empty() => call
            .headers
            .iter()
            .filter(|(h, _)| *h != "x-vault-token" && names.iter().any(|n| n.eq_ignore_ascii_case(h)))
            .map(|(h, v)| (h.to_owned(), v.to_owned()))
            .collect(),
        _ => Vec::new(),
    };
    Request {
        id: call.id.clone(),
        op,
        path: place.inner.to_owned(),
        remote: call.remote,
        wrap_ttl: call.wrap_ttl,
        headers,
        peer_certificates: call.peer_certificates.clone(),
    }
}

fn host_of(pass: &Pass<'_>, call: &Rc<Call>, place: &Place<'_>) -> VaultHost {
    VaultHost {
        core: pass.core.clone(),
        router: place.router.clone(),
        keyring: pass.keyring.clone(),
        sealer: pass.sealer.clone(),
        call: call.clone(),
        namespace: place.ns.clone(),
        cluster: pass.cluster.clone(),
        wall: pass.wall,
    }
}

/// What stays the same from admission to answer.
struct Context<'c> {
    core: &'c Rc<CoreState>,
    call: &'c Rc<Call>,
    place: &'c Place<'c>,
    found: Option<&'c Found<'c>>,
}

impl Context<'_> {
    /// Engine, lease, login, wrapping, answer.
    fn serve(&self, pass: &mut Pass<'_>, txn: &mut Txn<'_>, stage: &Stage<'_>, caller: &mut Caller) -> Ran {
        let answered = self.handle(pass, txn, stage, caller);
        let step = match answered {
            Ok(step) => step,
            Err(e) => return self.refuse(pass, txn, stage, caller, e),
        };
        let (op, resume, intent) = match step {
            Step::Side { op, resume } => (op, resume, false),
            Step::Intent { op, resume } => (op, resume, true),
            Step::Done(response) => {
                return match self.conclude(pass, txn, stage, caller, response) {
                    Ok(ran) => ran,
                    Err(e) => self.refuse(pass, txn, stage, caller, e),
                };
            }
        };
        match self.lines(pass, txn, stage, caller, Told::Nothing) {
            Ok(audit) => Ran { next: Next::Side { op, resume, intent }, audit, cause: None, login: None },
            Err(e) => self.refuse(pass, txn, stage, caller, e),
        }
    }

    fn handle(
        &self,
        pass: &mut Pass<'_>,
        txn: &mut Txn<'_>,
        stage: &Stage<'_>,
        caller: &mut Caller,
    ) -> Result<Step, Error> {
        let (Some(routed), Some(found)) = (&self.place.routed, self.found) else {
            return Err(Error::new(
                Code::NotFound,
                format!("no handler for route {:?}. route entry not found.", self.place.path),
            ));
        };
        let routed = own_cubbyhole(txn, self.place, caller.holder.as_deref())?.unwrap_or(routed);
        let op = caller.op.unwrap_or(self.call.op);
        if op == Operation::Help {
            return crate::help::answer(found.engine, self.place.inner, found.matched.as_ref()).done();
        }
        let Some(m) = &found.matched else { return Err(Error::unsupported_path()) };
        let Some(handler) = m.path.handler(op) else { return Err(Error::unsupported_operation()) };
        let args = Args::parse(m.path.fields, &m.captures, self.call.data.clone())?;
        let user = m.path.names.map(|names| names(&args)).filter(|n| !n.is_empty());
        let lockable =
            user.as_ref().and_then(|_| crate::lockout::rules(routed, &self.core.vault.settings.user_lockout));
        if let (Some(name), Some(_)) = (&user, &lockable)
            && crate::lockout::is_locked(txn, pass.keyring, routed.entry.id, name, pass.now)?
        {
            return Err(Error::denied_plain());
        }
        // every writing transaction depends on its mount still being there
        txn.guard(&crate::tables::mount(routed.entry.id));
        let request = request_of(self.call, self.place, op);
        let host = host_of(pass, self.call, self.place);
        let mut cx = Cx {
            txn,
            mount: &routed.info,
            req: &request,
            principal: caller.principal.as_deref(),
            now: pass.now,
            rng: pass.rng,
            host: &host,
        };
        if let Some((_, SideResult::Refused(e))) = stage.resume {
            return Err(e.clone());
        }
        // an engine that panics costs its request, not the process; the transaction is thrown away with what it holds
        let ran = catch_unwind(AssertUnwindSafe(|| match stage.resume {
            Some((resume, result)) => resume(&mut cx, result),
            None => handler(&mut cx, &args),
        }));
        let outcome = ran.unwrap_or_else(|_| Err(Error::internal("a handler panicked; its story is in the log")));
        if let Some(rules) = lockable {
            let good = match &outcome {
                Ok(Step::Done(_)) => Some(true),
                Err(e) if e.bad_credentials => Some(false),
                _ => None,
            };
            let alias = user.unwrap_or_default();
            caller.login = good.map(|good| LoginNote { mount: routed.entry.id, alias, good, rules });
        }
        let mut step = outcome?;
        if let Step::Done(Some(r)) = &mut step
            && !m.path.free_form
        {
            r.warnings.extend(args.warnings());
        }
        Ok(step)
    }

    fn conclude(
        &self,
        pass: &mut Pass<'_>,
        txn: &mut Txn<'_>,
        stage: &Stage<'_>,
        caller: &mut Caller,
        mut response: Option<Response>,
    ) -> Result<Ran, Error> {
        if let (Some(r), Some(filter)) = (&mut response, &caller.filter) {
            filter.apply(r, &self.place.ns.path, self.place.path);
        }
        if let (Some(r), Some(routed)) = (&mut response, &self.place.routed) {
            let made = r.issued.is_some() && self.place.path.starts_with(TOKEN_CREATION);
            let logged_in = r.auth.is_some();
            let leased = r.lease.is_some();
            let mut role = String::new();
            if let Some(auth) = r.auth.take() {
                role.clone_from(&auth.role);
                let (issued, warnings) = login::issue(pass, txn, self.call, routed, self.place.path, auth)?;
                r.issued = Some(issued);
                r.warnings.extend(warnings);
            }
            if let Some(terms) = r.lease.take() {
                if caller.last_use {
                    return Err(Error::invalid(
                        "Secret cannot be returned; token had one use left, so leased credentials were immediately revoked.",
                    ));
                }
                let (leased, warnings) =
                    lease::register(pass, txn, routed, self.place.inner, caller.holder.as_deref(), terms)?;
                r.leased = Some(leased);
                r.warnings.extend(warnings);
            }
            let stored = r.issued.as_ref().is_some_and(|i| i.token_type == TokenType::Service);
            if leased || (made || logged_in) && stored {
                let subject = subject_of(self.place, &role);
                quota::admit_lease(pass, txn, &self.place.router, self.place.path, &subject)?;
            }
        }
        self.revoke_spent(pass, txn, caller)?;
        let op = caller.op.unwrap_or(self.call.op);
        let mount_type = self.place.routed.as_ref().map_or("", |m| m.entry.kind.as_str());
        let wrap_ttl = match &response {
            Some(r) => r.force_wrap.unwrap_or(self.call.wrap_ttl),
            None => 0,
        };
        let (code, shown) = envelope::status(op, response.as_ref());
        let wrapped = match &response {
            Some(r) if wrap_ttl > 0 && shown && code == Code::Ok && self.may_wrap() => {
                let frame = envelope::Frame { request_id: &self.call.id, mount_type, path: self.place.path };
                let inner = match &r.raw {
                    Some(raw) => wrap::Inner::Raw(raw.clone()),
                    None => wrap::Inner::Json(envelope::write(&frame, r)),
                };
                let accessor = r.issued.as_ref().map(|i| i.accessor.clone()).or_else(|| r.wrapped_accessor.clone());
                let holder = caller.holder.as_deref();
                Some(wrap::wrap(
                    pass,
                    txn,
                    self.call,
                    self.place.ns.id,
                    self.place.path,
                    holder,
                    wrap_ttl,
                    inner,
                    accessor,
                )?)
            }
            _ => None,
        };
        let reply = match (&response, &wrapped) {
            (Some(r), Some(info)) => Reply::json(Code::Ok, envelope::write_wrapped(info, &r.warnings, mount_type)),
            (Some(r), None) if shown => match &r.raw {
                Some(raw) => Reply { code, body: Body::Raw(raw.clone()), headers: Vec::new() },
                None => {
                    let frame = envelope::Frame { request_id: &self.call.id, mount_type, path: self.place.path };
                    Reply::json(code, envelope::write(&frame, r))
                }
            },
            _ if code == Code::NotFound => Reply::error(&Error::not_found()),
            _ => Reply::empty(code),
        };
        let told = Told::Response { response: response.as_ref(), wrapped: wrapped.as_ref() };
        let audit = self.lines(pass, txn, stage, caller, told)?;
        Ok(Ran { next: Next::Answer(reply), audit, cause: None, login: caller.login.take() })
    }

    /// The answer to `sys/wrapping/unwrap` and `lookup` is never wrapped again.
    fn may_wrap(&self) -> bool {
        !matches!(self.place.path, UNWRAP | "sys/wrapping/lookup" | "sys/wrapping/rewrap")
    }

    /// A token whose last use this was dies with the answer.
    fn revoke_spent(&self, pass: &mut Pass<'_>, txn: &mut Txn<'_>, caller: &Caller) -> Result<(), Error> {
        match (&caller.holder, caller.last_use) {
            // a wrapping token has one use, so nobody else was counted; others end when all that were are done
            (Some(h), true) if wrap::is_wrapping(&h.entry) => {
                mint::revoke(txn, pass.keyring, &self.place.router, &h.hash, &h.entry)
            }
            _ => Ok(()),
        }
    }

    /// A refusal: nothing the handler wrote stays; the lines are written all the same.
    fn refuse(&self, pass: &mut Pass<'_>, txn: &mut Txn<'_>, stage: &Stage<'_>, caller: &Caller, e: Error) -> Ran {
        if !e.keeps_writes {
            txn.discard_writes();
        }
        let mut cause = e.cause.clone();
        if let Err(again) = self.revoke_spent(pass, txn, caller) {
            cause = again.cause.or(cause);
        }
        let audit = match self.lines(pass, txn, stage, caller, Told::Refusal(&e)) {
            Ok(lines) => lines,
            Err(unreadable) => {
                let cause = unreadable.cause.clone();
                return Ran {
                    next: Next::Answer(Reply::error(&unreadable)),
                    audit: audit::Lines::default(),
                    cause,
                    login: None,
                };
            }
        };
        Ran { next: Next::Answer(Reply::error(&e)), audit, cause, login: caller.login.clone() }
    }

    fn lines(
        &self,
        pass: &mut Pass<'_>,
        txn: &mut Txn<'_>,
        stage: &Stage<'_>,
        caller: &Caller,
        told: Told<'_>,
    ) -> Result<audit::Lines, Error> {
        let mut caches = self.core.caches.borrow_mut();
        let devices = caches.audit.refresh(txn, pass.keyring)?;
        if devices.is_empty() {
            return Ok(audit::Lines::default());
        }
        let subject = audit::Subject {
            call: self.call,
            op: caller.op.unwrap_or(self.call.op),
            ns: &self.place.ns,
            path: self.place.path,
            routed: self.place.routed.as_deref(),
            holder: caller.holder.as_ref(),
            client_id: caller.holder.as_ref().and_then(|h| activity::client_of(&self.place.router, h)),
            identity_policies: caller.principal.as_ref().map_or(&[][..], |p| &p.identity_policies),
            granting: &caller.granting,
            wall: pass.wall,
        };
        Ok(audit::lines(&devices, &subject, &told, stage.request_audited))
    }
}

/// What the response line tells.
pub enum Told<'r> {
    /// No response yet: the request line only.
    Nothing,
    /// An answer.
    Response {
        /// What the engine answered.
        response: Option<&'r Response>,
        /// It was wrapped.
        wrapped: Option<&'r wrap::WrapInfo>,
    },
    /// A refusal.
    Refusal(&'r Error),
}
