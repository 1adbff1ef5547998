//! The paths of secret-ids: make, list, look up, destroy.

use super::role::{self, Role};
use super::secret_id::{self, Place, SECRET_IDS, SecretId};
use crate::cidr;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_base::Code;
use ringfence_base::entropy::uuid4;
use ringfence_logical::cx::is_cidr;
use ringfence_logical::{Args, Cx, Error, Outcome, Response, nothing};
use serde_json::json;
use std::collections::BTreeMap;

/// Makes a secret-id.
pub fn create(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let secret_id = uuid4(cx.rng);
    make(cx, args, secret_id)
}

/// Registers a secret-id that the caller chose.
pub fn create_custom(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match args.str("secret_id") {
        "" => Err(missing("secret_id")),
        chosen => make(cx, args, chosen.to_owned()),
    }
}

fn make(cx: &mut Cx<'_, '_>, args: &Args, secret_id: String) -> Outcome {
    let name = args.str("role_name");
    let role = role::required(cx, name)?;
    if !role.bind_secret_id {
        return Err(Error::invalid("bind_secret_id is not set on the role"));
    }
    let cidr_list = args.list("cidr_list");
    if !cidr_list.iter().all(|c| is_cidr(c)) {
        return Err(Error::invalid("failed to validate CIDR blocks"));
    }
    if !cidr::all_within(&cidr_list, &role.secret_id_bound_cidrs) {
        return Err(not_a_subset(&cidr_list, &role));
    }
    let token_bound_cidrs: Vec<String> =
        args.list("token_bound_cidrs").iter().map(|c| cidr::canonical(c)).collect::<Result<_, _>>()?;
    if !cidr::all_within(&token_bound_cidrs, &role.token.bound_cidrs) {
        return Err(not_a_subset(&token_bound_cidrs, &role));
    }
    let num_uses = num_uses(args, &role)?;
    let ttl = ttl(args, &role, cx.mount.max_ttl)?;
    let metadata =
        metadata(args.str("metadata")).map_err(|why| Error::invalid(format!("failed to parse metadata: {why}")))?;
    let place = secret_id::place(cx, &role, &secret_id);
    if secret_id::load(cx, &place)?.is_some() {
        return Err(Error::invalid("failed to store secret_id: SecretID is already registered"));
    }
    let entry = SecretId {
        accessor: uuid4(cx.rng),
        num_uses,
        ttl,
        created: cx.now,
        updated: cx.now,
        expires: (ttl > 0).then(|| cx.now.plus_seconds(ttl)),
        metadata,
        cidr_list,
        token_bound_cidrs,
    };
    secret_id::register(cx, &place, &entry);
    let response = Response::json(json!({
        "secret_id": secret_id,
        "secret_id_accessor": entry.accessor,
        "secret_id_num_uses": entry.num_uses,
        "secret_id_ttl": entry.ttl,
    }));
    Response { wrapped_accessor: Some(entry.accessor), ..response }.done()
}

fn not_a_subset(blocks: &[String], role: &Role) -> Error {
    Error::invalid(format!(
        "CIDR blocks on the secret ID {blocks:?} should be a subset of CIDR blocks on the role {:?}",
        role.secret_id_bound_cidrs
    ))
}

/// Uses of a new secret-id: what the role says, or fewer.
fn num_uses(args: &Args, role: &Role) -> Result<u64, Error> {
    let Some(n) = args.opt_int("num_uses") else { return Ok(role.secret_id_num_uses) };
    let n = u64::try_from(n).map_err(|_| Error::invalid("num_uses cannot be negative"))?;
    if role.secret_id_num_uses > 0 && (n == 0 || n > role.secret_id_num_uses) {
        return Err(Error::invalid("num_uses cannot be higher than the role's secret_id_num_uses"));
    }
    Ok(n)
}

/// Life of a new secret-id: what the role says, or shorter, and never longer than the mount's longest.
fn ttl(args: &Args, role: &Role, mount_max: u64) -> Result<u64, Error> {
    let wanted = match args.opt_seconds("ttl") {
        None => role.secret_id_ttl,
        Some(t) if role.secret_id_ttl > 0 && (t == 0 || t > role.secret_id_ttl) => {
            return Err(Error::invalid("ttl cannot be longer than the role's secret_id_ttl"));
        }
        Some(t) => t,
    };
    Ok(if mount_max > 0 { wanted.min(mount_max) } else { wanted })
}

/// Metadata as JSON text of an object of texts, the same in base64, or `k=v` pairs with commas between.
fn metadata(text: &str) -> Result<BTreeMap<String, String>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    if let Ok(m) = serde_json::from_str::<BTreeMap<String, String>>(text) {
        return Ok(m);
    }
    let decoded = STANDARD.decode(text).ok();
    if let Some(m) = decoded.and_then(|b| serde_json::from_slice::<BTreeMap<String, String>>(&b).ok()) {
        return Ok(m);
    }
    text.split(',')
        .map(|pair| match pair.split_once('=') {
            Some((k, v)) if !k.trim().is_empty() => Ok((k.trim().to_owned(), v.trim().to_owned())),
            _ => Err("it is neither JSON text of an object of strings nor a list of key=value pairs".to_owned()),
        })
        .collect()
}

/// Lists the accessors of a role's secret-ids.
pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let role = role::required(cx, args.str("role_name"))?;
    let mut accessors = Vec::new();
    for place in secret_id::places(cx, &role, usize::MAX) {
        // the expired ones stay for a tidy: a list should not write
        if let Some(entry) = cx.get_json::<SecretId>(SECRET_IDS, &place)?
            && !entry.is_expired(cx.now)
        {
            accessors.push(entry.accessor);
        }
    }
    accessors.sort();
    let after = args.str("after");
    accessors.retain(|a| a.as_str() > after);
    match crate::page::limit(args) {
        0 => {}
        limit => accessors.truncate(limit),
    }
    Response::keys(accessors).done()
}

pub fn lookup(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let (role, secret_id) = named(cx, args)?;
    let place = secret_id::place(cx, &role, secret_id);
    match secret_id::load(cx, &place)? {
        Some(entry) => Response::data(entry.shown()).done(),
        None => nothing(),
    }
}

pub fn destroy(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let (role, secret_id) = named(cx, args)?;
    let place = secret_id::place(cx, &role, secret_id);
    let entry = secret_id::load(cx, &place)?.ok_or_else(|| Error::invalid("invalid secret id"))?;
    secret_id::remove(cx, &place, &entry);
    nothing()
}

fn named<'a>(cx: &mut Cx<'_, '_>, args: &'a Args) -> Result<(Role, &'a str), Error> {
    match args.str("secret_id") {
        "" => Err(missing("secret_id")),
        secret_id => Ok((role::required(cx, args.str("role_name"))?, secret_id)),
    }
}

pub fn lookup_accessor(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let (_, entry) = by_accessor(cx, args)?;
    Response::data(entry.shown()).done()
}

pub fn destroy_accessor(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let (place, entry) = by_accessor(cx, args)?;
    secret_id::remove(cx, &place, &entry);
    nothing()
}

/// The secret-id behind an accessor. It must belong to the role that the path names: whoever may manage one role
/// cannot reach the secret-ids of another.
fn by_accessor(cx: &mut Cx<'_, '_>, args: &Args) -> Result<(Place, SecretId), Error> {
    let accessor = args.str("secret_id_accessor");
    if accessor.is_empty() {
        return Err(missing("secret_id_accessor"));
    }
    let role = role::required(cx, args.str("role_name"))?;
    let Some(place) = secret_id::by_accessor(cx, accessor)? else {
        let text = format!("failed to find accessor entry for secret_id_accessor: {accessor:?}");
        return Err(Error::new(Code::NotFound, text));
    };
    let stray = || Error::new(Code::Denied, "invalid secret id accessor");
    if place[..8] != role.number {
        return Err(stray());
    }
    let entry = secret_id::load(cx, &place)?.ok_or_else(stray)?;
    Ok((place, entry))
}

fn missing(field: &str) -> Error {
    Error::invalid(format!("missing {field}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_forms() {
        let want = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x y".to_owned())]);
        assert_eq!(metadata(r#"{"a":"1","b":"x y"}"#), Ok(want.clone()));
        assert_eq!(metadata(&STANDARD.encode(r#"{"a":"1","b":"x y"}"#)), Ok(want.clone()));
        assert_eq!(metadata("a=1, b=x y"), Ok(want));
        assert_eq!(metadata(""), Ok(BTreeMap::new()));
        for bad in [r#"{"a":1}"#, "[]", "plain", "=x"] {
            assert!(metadata(bad).is_err(), "{bad}");
        }
    }
}
