//! `auth/token/*`: lookups, renewals, revocations, accessors. Creation stands in [`super::create`], roles in
//! [`super::roles`].

use super::check::{self, Holder};
use super::cutoff::{self, Subject};
use super::entry::TokenEntry;
use super::{create, login, mint, named, renew, roles};
use crate::host::host;
use crate::identity::Identity;
use crate::lease::tombstone;
use crate::page;
use crate::tables::{self, Hash};
use ringfence_base::{Code, Secret};
use ringfence_logical::field::Preset;
use ringfence_logical::{Args, Cx, Error, Field, Kind, Outcome, Path, Response, Resume, Step, nothing};
use serde_json::json;

/// Answer to both tidies.
pub const TIDY_STARTED: &str = "Tidy operation successfully started. Any information from the operation will be \
                                printed to Vault's server logs.";

/// Longest entity id or role that a cut-off may name.
const MAX_SUBJECT_BYTES: usize = 512;

pub(super) const NAME: Field = Field::str("role_name", "Name of the role.");
pub(super) const POLICY_HELP: &str = "Policies that may be asked for; all of them when none is asked for.";
const TOKEN: Field = Field::str("token", "The token.").secret();
const ACCESSOR: Field = Field::str("accessor", "Accessor of the token.");
const INCREMENT: Field = Field::seconds("increment", "Wanted time from now on, seconds or a duration.");

const CREATE_FIELDS: &[Field] = &[
    NAME,
    Field::str("id", "A token id of your own; needs sudo.").secret(),
    Field::list("policies", "Policies of the token; the parent's when not given."),
    Field::new("meta", Kind::KvPairs, "Metadata of the token."),
    Field::bool("no_parent", "The token gets no parent; needs sudo."),
    Field::bool("no_default_policy", "Do not add the policy named default."),
    Field::bool("renewable", "The token may be renewed.").preset(Preset::Bool(true)),
    Field::seconds("ttl", "How long it lives at first."),
    Field::seconds("lease", "Old name of ttl.").deprecated(),
    Field::str("type", "service or batch."),
    Field::seconds("explicit_max_ttl", "Longest life, whatever its renewals."),
    Field::str("display_name", "A name for lookups and audit."),
    Field::int("num_uses", "How often it may be used; 0 is without limit."),
    Field::seconds("period", "Makes it periodic: each renewal gives this time again."),
    Field::str("entity_alias", "The alias whose entity the token speaks for; only with a role that allows it."),
];

const CUTOFF_FIELDS: &[Field] = &[
    Field::str("entity_id", "Revoke the batch tokens of this entity."),
    Field::str("mount", "Revoke the batch tokens of a role at the auth method with this path or accessor."),
    Field::str("role", "The role."),
    Field::bool("all", "Revoke all batch tokens of the namespace."),
];

/// All paths. Fixed names stand before the captures beside them.
pub static PATHS: &[Path] = &[
    roles::LIST,
    roles::ONE,
    Path::new("accessors/?")
        .fields(page::FIELDS)
        .sudo()
        .help("Accessors of all tokens of the namespace.", "Pages are in an order of their own.")
        .list(accessors),
    Path::new("create-orphan")
        .computes()
        .fields(CREATE_FIELDS)
        .help("Make a token without a parent.", "")
        .write(create::create_orphan),
    Path::new("create/{role_name:any}")
        .computes()
        .fields(CREATE_FIELDS)
        .help("Make a token by the rules of a role.", "")
        .write(create::create_with_role),
    Path::new("create").computes().fields(CREATE_FIELDS).help("Make a token.", "").write(create::create),
    Path::new("lookup")
        .computes()
        .fields(&[TOKEN])
        .help("What is known of a token.", "Without a token: of the caller's.")
        .read(lookup)
        .write(lookup),
    Path::new("lookup/{token:any}")
        .computes()
        .fields(&[TOKEN])
        .help("What is known of a token.", "")
        .read(lookup)
        .write(lookup),
    Path::new("lookup-self")
        .computes()
        .help("What is known of the caller's token.", "")
        .read(lookup_self)
        .write(lookup_self),
    Path::new("lookup-accessor/?")
        .computes()
        .fields(&[ACCESSOR])
        .help("What is known of the token behind an accessor.", "")
        .write(lookup_accessor),
    Path::new("renew-self/?").fields(&[INCREMENT]).help("Renew the caller's token.", "").write(renew_self),
    Path::new("renew/?").fields(&[TOKEN, INCREMENT]).help("Renew a token.", "").write(renew_token),
    Path::new("renew/{token:any}").fields(&[TOKEN, INCREMENT]).help("Renew a token.", "").write(renew_token),
    Path::new("renew-accessor/?")
        .fields(&[ACCESSOR, INCREMENT])
        .help("Renew the token behind an accessor.", "")
        .write(renew_accessor),
    Path::new("revoke-self/?").help("Revoke the caller's token, its children and its leases.", "").write(revoke_self),
    Path::new("revoke/?").fields(&[TOKEN]).help("Revoke a token, its children and its leases.", "").write(revoke),
    Path::new("revoke/{token:any}").fields(&[TOKEN]).help("Revoke a token.", "").write(revoke),
    Path::new("revoke-accessor/?")
        .fields(&[ACCESSOR])
        .help("Revoke the token behind an accessor.", "")
        .write(revoke_accessor),
    Path::new("revoke-orphan/?")
        .fields(&[TOKEN])
        .sudo()
        .help("Revoke a token and its leases; its children become orphans.", "")
        .write(revoke_orphan),
    Path::new("revoke-batch")
        .fields(CUTOFF_FIELDS)
        .sudo()
        .help(
            "Revoke batch tokens.",
            "One committed record kills every batch token that was made before it: those of an entity, of a role at \
             an auth method, or all of the namespace.",
        )
        .write(revoke_batch),
    Path::new("tidy").help("Nothing here needs tidying; kept for clients that call it.", "").write(tidy),
];

/// All accessors in their own order; pages in the order of their hashes, in which a page costs what it shows.
fn accessors(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let ns = cx.mount.ns;
    let prefix = [&[tables::ACCESSOR][..], &ns.0.to_be_bytes()].concat();
    let (after, limit) = (args.str("after"), page::limit(args));
    let from = match after {
        "" => None,
        a => Some(tables::accessor(ns, &host(cx).keyring.index_hash(super::ACCESSOR_HASH, a.as_bytes()))),
    };
    let mut keys = Vec::new();
    for (_, plain) in crate::lease::peek(cx.txn, &prefix, from.as_deref(), limit)? {
        keys.push(check::decode_accessor(&plain.bytes)?.0);
    }
    if after.is_empty() && limit == usize::MAX {
        keys.sort();
    }
    Response::keys(keys).done()
}

fn lookup(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let raw = args.str("token").to_owned();
    if raw.is_empty() {
        return lookup_self(cx, args);
    }
    match named(cx, &raw)? {
        Some(holder) => describe(cx, &holder.entry, &raw),
        None => Err(Error::new(Code::Denied, "bad token")),
    }
}

fn lookup_self(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let holder = super::caller(cx)?;
    describe(cx, &holder.entry, holder.raw.expose())
}

fn lookup_accessor(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let (_, entry) = accessor_of(cx, args)?;
    describe(cx, &entry, "")
}

/// The token behind the accessor of a request.
fn accessor_of(cx: &mut Cx<'_, '_>, args: &Args) -> Result<(Hash, TokenEntry), Error> {
    by_accessor(cx, args.str("accessor"))
}

fn by_accessor(cx: &mut Cx<'_, '_>, accessor: &str) -> Result<(Hash, TokenEntry), Error> {
    if accessor.is_empty() {
        return Err(Error::invalid("missing accessor"));
    }
    let h = host(cx);
    let found = check::by_accessor(cx.txn, &h.keyring, &h.router, cx.mount.ns, accessor, cx.now)?;
    found.ok_or_else(|| Error::invalid("invalid accessor"))
}

/// The data of a lookup.
fn describe(cx: &mut Cx<'_, '_>, entry: &TokenEntry, id: &str) -> Outcome {
    let (ttl, expires) = renew::times(entry, cx.now);
    // a parent that went by revoke-orphan leaves its mark until the worker has been round its children
    let orphan = entry.parent.is_none_or(|p| tombstone::is_orphaned(cx.txn, &p));
    let mut data = json!({
        "id": id,
        "accessor": entry.accessor,
        "policies": entry.policies,
        "path": entry.path,
        "meta": entry.meta,
        "display_name": entry.display_name,
        "num_uses": entry.num_uses.max(0),
        "orphan": orphan,
        "creation_time": entry.created.seconds(),
        "creation_ttl": entry.creation_ttl,
        "expire_time": expires,
        "ttl": ttl,
        "explicit_max_ttl": entry.explicit_max_ttl,
        "entity_id": entry.entity_id,
        "type": login::kind_of(entry).as_str(),
    });
    let h = host(cx);
    let Some(map) = data.as_object_mut() else { return nothing() };
    // the tokens that initialisation and generate-root make have no lease, and these two are facts of a lease
    if entry.due.0 != 0 || entry.path != mint::ROOT_PATH {
        map.insert("renewable".into(), entry.renewable.into());
        map.insert("issue_time".into(), entry.created.rfc3339().into());
    }
    if entry.last_renewal.0 != 0 {
        map.insert("last_renewal_time".into(), entry.last_renewal.seconds().into());
        map.insert("last_renewal".into(), entry.last_renewal.rfc3339().into());
    }
    let by_store = h.router.by_id(cx.txn, entry.ns, entry.mount)?.is_some_and(|m| m.entry.kind == super::TABLE.kind);
    if by_store && !entry.role.is_empty() {
        map.insert("role".into(), entry.role.clone().into());
    }
    if entry.period > 0 {
        map.insert("period".into(), entry.period.into());
    }
    if !entry.bound_cidrs.is_empty() {
        map.insert("bound_cidrs".into(), json!(entry.bound_cidrs));
    }
    if let Some(ns) = h.router.namespace_by_id(entry.ns).filter(|n| !n.path.is_empty()) {
        map.insert("namespace_path".into(), ns.path.clone().into());
    }
    if let Some(identity) = Identity::of(cx.txn, entry.ns, &entry.entity_id)?
        && !identity.policies.is_empty()
    {
        map.insert("identity_policies".into(), json!(identity.policies));
    }
    Response::json(data).done()
}

fn renew_self(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    renewal(cx, Renewed::Own, args.seconds("increment"))
}

fn renew_token(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let raw = args.str("token").to_owned();
    if raw.is_empty() {
        return Err(Error::invalid("missing token ID"));
    }
    renewal(cx, Renewed::Named(Secret::new(raw)), args.seconds("increment"))
}

fn renew_accessor(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    renewal(cx, Renewed::By(args.str("accessor").to_owned()), args.seconds("increment"))
}

/// Which token a request renews.
#[derive(Clone)]
enum Renewed {
    Own,
    Named(Secret<String>),
    By(String),
}

impl Renewed {
    /// Hash, record and, where the caller knows it, the token. Looked up anew after each question to the outside: it
    /// may have been revoked meanwhile.
    fn find(&self, cx: &mut Cx<'_, '_>) -> Result<(Hash, TokenEntry, String), Error> {
        let holder = match self {
            Renewed::By(accessor) => {
                return by_accessor(cx, accessor).map(|(hash, entry)| (hash, entry, String::new()));
            }
            Renewed::Own => super::caller(cx)?,
            Renewed::Named(raw) => named(cx, raw.expose())?.ok_or_else(|| Error::invalid("token not found"))?,
        };
        match holder.is_batch() {
            true => Err(Error::invalid("batch tokens cannot be renewed")),
            false => Ok((holder.hash, holder.entry.clone(), holder.raw.expose().clone())),
        }
    }
}

fn renewal(cx: &mut Cx<'_, '_>, which: Renewed, increment: u64) -> Outcome {
    let found = which.find(cx)?;
    let step = renew::proof(cx, &found.1)?;
    proven(cx, which, found, increment, step)
}

fn proven(
    cx: &mut Cx<'_, '_>,
    which: Renewed,
    (hash, entry, raw): (Hash, TokenEntry, String),
    increment: u64,
    step: Step,
) -> Outcome {
    let later = |which: Renewed, resume: Resume| -> Resume {
        Box::new(move |cx, result| {
            let found = which.find(cx)?;
            let step = renew::proof_resumed(cx, &found.1, &resume, result)?;
            proven(cx, which.clone(), found, increment, step)
        })
    };
    match step {
        Step::Side { op, resume } => Ok(Step::Side { op, resume: later(which, resume) }),
        Step::Intent { op, resume } => Ok(Step::Intent { op, resume: later(which, resume) }),
        Step::Done(_) => {
            let (issued, warnings) = renew::renew(cx, &hash, &entry, increment, raw)?;
            Response { issued: Some(issued), warnings, ..Response::default() }.done()
        }
    }
}

fn revoke_self(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let holder = super::caller(cx)?;
    end(cx, &holder)
}

fn revoke(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let raw = args.str("token").to_owned();
    if raw.is_empty() {
        return Err(Error::invalid("missing token ID"));
    }
    match named(cx, &raw)? {
        Some(holder) => end(cx, &holder),
        None => nothing(),
    }
}

fn revoke_accessor(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let (hash, entry) = match accessor_of(cx, args) {
        Ok(found) => found,
        Err(e) if e.text() == "invalid accessor" => {
            return Response::default().warn("No token found with this accessor").done();
        }
        Err(e) => return Err(e),
    };
    let h = host(cx);
    mint::revoke(cx.txn, &h.keyring, &h.router, &hash, &entry)?;
    nothing()
}

fn end(cx: &mut Cx<'_, '_>, holder: &Holder) -> Outcome {
    if holder.is_batch() {
        return Err(Error::invalid("batch tokens cannot be revoked"));
    }
    let h = host(cx);
    mint::revoke(cx.txn, &h.keyring, &h.router, &holder.hash, &holder.entry)?;
    nothing()
}

fn revoke_orphan(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let raw = args.str("token").to_owned();
    if raw.is_empty() {
        return Err(Error::invalid("token ID must be provided"));
    }
    let Some(holder) = named(cx, &raw)? else { return Err(Error::invalid("token to revoke not found")) };
    if holder.is_batch() {
        return Err(Error::invalid("batch tokens cannot be revoked"));
    }
    let h = host(cx);
    mint::revoke_orphan(cx.txn, &h.keyring, &h.router, cx.now, &holder.hash, &holder.entry)?;
    nothing()
}

fn revoke_batch(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let (entity, mount, role) = (args.str("entity_id"), args.str("mount"), args.str("role"));
    // what stands in a key is bounded; nothing longer was ever given to an entity or a role
    if let Some(name) = ["entity_id", "role"].into_iter().find(|n| args.str(n).len() > MAX_SUBJECT_BYTES) {
        return Err(Error::invalid(format!("{name} is longer than {MAX_SUBJECT_BYTES} bytes")));
    }
    let subject = match (entity, mount, role, args.bool("all")) {
        (id, "", "", false) if !id.is_empty() => Subject::Entity(id.to_owned()),
        ("", mount, role, false) if !mount.is_empty() && !role.is_empty() => {
            let h = host(cx);
            let trimmed = mount.trim_matches('/');
            let path = format!("auth/{}/", trimmed.strip_prefix("auth/").unwrap_or(trimmed));
            let found = match h.router.at(cx.txn, cx.mount.ns, &path)? {
                Some(found) => Some(found),
                None => h.router.by_accessor(cx.txn, cx.mount.ns, mount)?,
            };
            let Some(found) = found else {
                return Err(Error::invalid(format!("no auth method at {mount:?}")));
            };
            Subject::Role(found.entry.id, role.to_owned())
        }
        ("", "", "", true) => Subject::All,
        _ => return Err(Error::invalid("give one of entity_id, mount with role, or all")),
    };
    cutoff::cut_off(cx.txn, cx.mount.ns, &subject)?;
    nothing()
}

fn tidy(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    tidy_started()
}

/// Accepted, with the warning that clients look for.
pub fn tidy_started() -> Outcome {
    Response::default().code(Code::Accepted).warn(TIDY_STARTED).done()
}
