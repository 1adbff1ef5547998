//! `identity/oidc/key/*`: named keys, and their rotation. A key has two pairs: one that signs, and the next one, which is
//! published before it is used, so that whoever keeps our key set for a while knows it in time. A pair that no longer
//! signs stays published until the last token it signed has ended.

use super::provider::clients;
use super::signing::{self, Algorithm, Pair};
use super::{KEY, discovery, load, names, roles, save};
use ringfence_base::{NsId, Wall, entropy};
use ringfence_logical::field::Preset;
use ringfence_logical::{
    Args, Compute, Computed, Cx, Error, Field, Map, Outcome, Path, Response, SideResult, Step, nothing,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Begins the name of the job that rotates a key.
pub const ROTATION_JOB: &str = "oidc-key/";
/// The key that every namespace has.
pub const DEFAULT: &str = "default";
/// Shortest time between rotations, seconds. Source: Vault's documented minimum.
const MIN_ROTATION_SECONDS: u64 = 60;
const DAY_SECONDS: i64 = 86_400;

const NAME: Field = Field::str("name", "Name of the key.");

/// The paths.
pub const PATHS: &[Path] = &[
    Path::new("oidc/key/?").help("List keys of identity tokens.", "").list(list),
    Path::new("oidc/key/{name}")
        .fields(&[
            NAME,
            Field::seconds("rotation_period", "How often a new pair signs.").preset(Preset::Int(DAY_SECONDS)),
            Field::seconds("verification_ttl", "How long a pair that no longer signs stays published.")
                .preset(Preset::Int(DAY_SECONDS)),
            Field::list("allowed_client_ids", "Client ids of the roles that may use the key; * for all."),
            Field::str("algorithm", "RS256, RS384, RS512, ES256, ES384, ES512 or EdDSA.")
                .preset(Preset::Str("RS256")),
        ])
        .help("Read, write or delete a key of identity tokens.", "")
        .exists(|cx, args| Ok(load::<Key>(cx.txn, cx.mount.ns, KEY, args.str("name"))?.is_some()))
        .read(read)
        .write(write)
        .delete(delete),
    Path::new("oidc/key/{name}/rotate")
        .fields(&[
            NAME,
            Field::seconds("verification_ttl", "How long the pair that signed until now stays published."),
        ])
        .help("Let the next pair sign now.", "")
        .write(rotate),
];

/// A named key.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// How it signs.
    pub algorithm: Algorithm,
    /// Seconds between rotations.
    pub rotation_period: u64,
    /// Seconds a pair stays published after it signed last.
    pub verification_ttl: u64,
    /// Client ids of roles, or `*`.
    pub allowed_client_ids: Vec<String>,
    /// The pair that signs.
    pub signing: Version,
    /// The pair that signs next.
    next: Version,
    /// Pairs that signed before: their public halves.
    retired: Vec<Retired>,
    /// Log time of the next rotation.
    next_rotation: Wall,
}

/// A pair with its name.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// A UUID.
    pub kid: String,
    /// The pair.
    pub pair: Pair,
}

/// A pair that signs no more.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Retired {
    kid: String,
    algorithm: Algorithm,
    public: Vec<u8>,
    /// Log time until which it is published.
    until: Wall,
}

/// What a key is to be.
#[derive(Clone)]
struct Terms {
    algorithm: Algorithm,
    rotation_period: u64,
    verification_ttl: u64,
    allowed_client_ids: Vec<String>,
}

impl Key {
    /// The key as it is read; `None` if there is none.
    pub fn load(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Key>, Error> {
        load(cx.txn, cx.mount.ns, KEY, name)
    }

    /// True if a role with this client id may use it.
    pub fn allows(&self, client_id: &str) -> bool {
        self.allowed_client_ids.iter().any(|c| c == "*" || c == client_id)
    }

    /// Every published pair: kid, algorithm, public key.
    pub fn published(&self, now: Wall) -> Vec<(&str, Algorithm, &[u8])> {
        let mut out: Vec<(&str, Algorithm, &[u8])> = [&self.signing, &self.next]
            .into_iter()
            .map(|v| (v.kid.as_str(), self.algorithm, v.pair.public.as_slice()))
            .collect();
        let living = self.retired.iter().filter(|r| now < r.until);
        out.extend(living.map(|r| (r.kid.as_str(), r.algorithm, r.public.as_slice())));
        out
    }

    fn retire(&mut self, old: Version, algorithm: Algorithm, now: Wall, seconds: u64) {
        self.retired.retain(|r| now < r.until);
        let until = now.plus_seconds(seconds);
        self.retired.push(Retired { kid: old.kid, algorithm, public: old.pair.public.clone(), until });
    }
}

/// Makes pairs outside the core and goes on with them.
fn with_pairs(
    algorithm: Algorithm,
    count: usize,
    then: impl Fn(&mut Cx<'_, '_>, Vec<Pair>) -> Outcome + Send + 'static,
) -> Outcome {
    let op = Compute::op("keys of identity tokens", move || {
        match (0..count).map(|_| Pair::generate(algorithm)).collect::<Option<Vec<Pair>>>() {
            Some(pairs) => Computed::of(pairs),
            None => SideResult::Failed("the library made no key".into()),
        }
    });
    let resume = move |cx: &mut Cx<'_, '_>, result: &SideResult| match result {
        SideResult::Value(v) => match v.get::<Vec<Pair>>() {
            Some(pairs) => then(cx, pairs.clone()),
            None => Err(Error::internal("a computation answered another type")),
        },
        SideResult::Failed(why) => Err(Error::internal(why.clone())),
        other => Err(Error::internal(format!("a computation answered {other:?}"))),
    };
    Ok(Step::Side { op, resume: Box::new(resume) })
}

fn default_terms() -> Terms {
    Terms {
        algorithm: Algorithm::RS256,
        rotation_period: DAY_SECONDS as u64,
        verification_ttl: DAY_SECONDS as u64,
        allowed_client_ids: vec!["*".into()],
    }
}

/// Goes on with a key that signs. The default key is made when it is first needed.
pub fn with_key(
    cx: &mut Cx<'_, '_>,
    name: &str,
    then: impl Fn(&mut Cx<'_, '_>, Key) -> Outcome + Send + 'static,
) -> Outcome {
    if let Some(key) = Key::load(cx, name)? {
        return then(cx, key);
    }
    if name != DEFAULT {
        return Err(Error::invalid(format!("key {name:?} not found")));
    }
    with_pairs(Algorithm::RS256, 2, move |cx, pairs| {
        let key = match Key::load(cx, DEFAULT)? {
            Some(key) => key,
            None => establish(cx, DEFAULT, None, &default_terms(), pairs)?,
        };
        then(cx, key)
    })
}

/// Writes a key with two fresh pairs; a pair that it had is retired.
fn establish(
    cx: &mut Cx<'_, '_>,
    name: &str,
    old: Option<Key>,
    terms: &Terms,
    pairs: Vec<Pair>,
) -> Result<Key, Error> {
    let Ok([first, second]) = <[Pair; 2]>::try_from(pairs) else {
        return Err(Error::internal("two pairs were asked for"));
    };
    let mut version = |pair| Version { kid: entropy::uuid4(cx.rng), pair };
    let mut key = Key {
        algorithm: terms.algorithm,
        rotation_period: terms.rotation_period,
        verification_ttl: terms.verification_ttl,
        allowed_client_ids: terms.allowed_client_ids.clone(),
        signing: version(first),
        next: version(second),
        retired: Vec::new(),
        next_rotation: cx.now.plus_seconds(terms.rotation_period),
    };
    if let Some(old) = old {
        key.retired = old.retired.clone();
        key.retire(old.signing.clone(), old.algorithm, cx.now, terms.verification_ttl);
    }
    keep(cx, name, &key);
    Ok(key)
}

fn keep(cx: &mut Cx<'_, '_>, name: &str, key: &Key) {
    save(cx.txn, cx.mount.ns, KEY, name, key);
    cx.schedule(&format!("{ROTATION_JOB}{name}"), key.next_rotation);
}

fn list(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    Response::keys(all(cx)).done()
}

/// Names of all keys, the default one included.
pub fn all(cx: &mut Cx<'_, '_>) -> Vec<String> {
    let mut all = names(cx.txn, cx.mount.ns, KEY);
    all.push(DEFAULT.to_owned());
    all.sort();
    all.dedup();
    all
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let terms = match Key::load(cx, name)? {
        Some(k) => Terms {
            algorithm: k.algorithm,
            rotation_period: k.rotation_period,
            verification_ttl: k.verification_ttl,
            allowed_client_ids: k.allowed_client_ids.clone(),
        },
        None if name == DEFAULT => default_terms(),
        None => return nothing(),
    };
    Response::json(json!({
        "algorithm": terms.algorithm.as_str(), "rotation_period": terms.rotation_period,
        "verification_ttl": terms.verification_ttl, "allowed_client_ids": terms.allowed_client_ids,
    }))
    .done()
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").to_owned();
    let old = Key::load(cx, &name)?;
    let terms = terms(cx, &name, old.as_ref(), args)?;
    match old {
        Some(mut key) if key.algorithm == terms.algorithm => {
            if key.rotation_period != terms.rotation_period {
                key.next_rotation = cx.now.plus_seconds(terms.rotation_period);
            }
            key.rotation_period = terms.rotation_period;
            key.verification_ttl = terms.verification_ttl;
            key.allowed_client_ids = terms.allowed_client_ids;
            keep(cx, &name, &key);
            nothing()
        }
        _ => with_pairs(terms.algorithm, 2, move |cx, pairs| {
            let old = Key::load(cx, &name)?;
            establish(cx, &name, old, &terms, pairs)?;
            nothing()
        }),
    }
}

fn terms(cx: &mut Cx<'_, '_>, name: &str, old: Option<&Key>, args: &Args) -> Result<Terms, Error> {
    let number = |field: &str, old: Option<u64>| match (args.supplied(field), old) {
        (false, Some(kept)) => kept,
        _ => args.seconds(field),
    };
    let rotation_period = number("rotation_period", old.map(|k| k.rotation_period));
    let verification_ttl = number("verification_ttl", old.map(|k| k.verification_ttl));
    if rotation_period < MIN_ROTATION_SECONDS {
        return Err(Error::invalid("rotation_period must be at least one minute"));
    }
    if verification_ttl > 10 * rotation_period {
        return Err(Error::invalid("verification_ttl cannot be longer than 10x rotation_period"));
    }
    if old.is_some_and(|k| verification_ttl < k.verification_ttl) {
        for (_, role) in roles::all(cx)? {
            if role.key == name && role.ttl > verification_ttl {
                return Err(Error::invalid(format!(
                    "unable to update key {name:?} because it is currently referenced by one or more roles with a \
                     token ttl greater than {verification_ttl} seconds"
                )));
            }
        }
        for client in clients::all(cx)? {
            if client.key == name && client.id_token_ttl > verification_ttl {
                return Err(Error::invalid(format!(
                    "unable to update key {name:?} because it is currently referenced by one or more clients with an \
                     id_token_ttl greater than {verification_ttl} seconds"
                )));
            }
        }
    }
    let algorithm = match (args.supplied("algorithm"), old) {
        (false, Some(k)) => k.algorithm,
        _ => {
            let text = args.str("algorithm");
            Algorithm::parse(text).ok_or_else(|| Error::invalid(format!("unknown signing algorithm {text:?}")))?
        }
    };
    let allowed_client_ids = match (args.opt_list("allowed_client_ids"), old) {
        (Some(given), _) => given,
        (None, Some(k)) => k.allowed_client_ids.clone(),
        (None, None) => Vec::new(),
    };
    Ok(Terms { algorithm, rotation_period, verification_ttl, allowed_client_ids })
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if name == DEFAULT {
        return Err(Error::invalid("deletion of key \"default\" not allowed"));
    }
    let users: Vec<String> = roles::all(cx)?.into_iter().filter(|(_, r)| r.key == name).map(|(n, _)| n).collect();
    if !users.is_empty() {
        return Err(Error::invalid(format!(
            "unable to delete key {name:?} because it is currently referenced by these roles: {}",
            users.join(", ")
        )));
    }
    let all = clients::all(cx)?;
    let users: Vec<&str> = all.iter().filter(|c| c.key == name).map(|c| c.name.as_str()).collect();
    if !users.is_empty() {
        return Err(Error::invalid(format!(
            "unable to delete key {name:?} because it is currently referenced by these clients: {}",
            users.join(", ")
        )));
    }
    if Key::load(cx, name)?.is_some() {
        cx.txn.delete(&crate::tables::oidc(cx.mount.ns, KEY, name));
        cx.unschedule(&format!("{ROTATION_JOB}{name}"));
    }
    nothing()
}

fn rotate(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").to_owned();
    if Key::load(cx, &name)?.is_none() {
        return Err(Error::invalid(format!("no named key found at {name:?}")));
    }
    turn(cx, &name, args.opt_seconds("verification_ttl"))
}

/// The job: the time of a key's rotation has come.
pub fn rotate_due(cx: &mut Cx<'_, '_>, name: &str) -> Outcome {
    match Key::load(cx, name)? {
        Some(key) if key.next_rotation <= cx.now => turn(cx, name, None),
        Some(key) => {
            cx.schedule(&format!("{ROTATION_JOB}{name}"), key.next_rotation);
            nothing()
        }
        None => nothing(),
    }
}

/// The next pair signs from now on, and another next one is made.
fn turn(cx: &mut Cx<'_, '_>, name: &str, verification_ttl: Option<u64>) -> Outcome {
    let Some(key) = Key::load(cx, name)? else { return nothing() };
    let (name, algorithm) = (name.to_owned(), key.algorithm);
    with_pairs(algorithm, 1, move |cx, mut pairs| {
        let (Some(mut key), Some(pair)) = (Key::load(cx, &name)?, pairs.pop()) else { return nothing() };
        if key.algorithm != algorithm {
            return Err(Error::invalid("the key was changed meanwhile; try again"));
        }
        let fresh = Version { kid: entropy::uuid4(cx.rng), pair };
        let next = std::mem::replace(&mut key.next, fresh);
        let old = std::mem::replace(&mut key.signing, next);
        let seconds = verification_ttl.unwrap_or(key.verification_ttl);
        key.retire(old, algorithm, cx.now, seconds);
        key.next_rotation = cx.now.plus_seconds(key.rotation_period);
        keep(cx, &name, &key);
        nothing()
    })
}

/// Signs a token.
pub fn sign(key: &Key, claims: &Map) -> Result<String, Error> {
    let token = key.signing.pair.token(key.algorithm, &key.signing.kid, claims);
    token.ok_or_else(|| Error::internal("an identity token could not be signed"))
}

/// The key set of a namespace: pairs of every key that a role uses.
pub fn key_set(cx: &mut Cx<'_, '_>) -> Result<Value, Error> {
    let used = roles::all(cx)?.into_iter().map(|(_, r)| r.key).collect();
    published(cx, &used)
}

/// The key set of some keys.
pub fn published(cx: &mut Cx<'_, '_>, names: &BTreeSet<String>) -> Result<Value, Error> {
    let mut keys = Vec::new();
    for name in names {
        if let Some(key) = Key::load(cx, name)? {
            let shown = key.published(cx.now);
            keys.extend(shown.into_iter().filter_map(|(kid, alg, public)| signing::jwk(alg, kid, public)));
        }
    }
    Ok(json!({ "keys": keys }))
}

/// Seconds for which a key set may be kept: no longer than until the next rotation publishes another pair.
pub fn key_set_age(cx: &mut Cx<'_, '_>) -> Result<u64, Error> {
    let mut age = discovery::MAX_AGE_SECONDS;
    for name in names(cx.txn, cx.mount.ns, KEY) {
        if let Some(key) = Key::load(cx, &name)? {
            age = age.min(key.next_rotation.seconds().saturating_sub(cx.now.seconds()));
        }
    }
    Ok(age)
}

/// The namespace and public key behind a `kid`.
pub fn by_kid(cx: &mut Cx<'_, '_>, kid: &str) -> Result<Option<(Algorithm, Vec<u8>)>, Error> {
    let ns: NsId = cx.mount.ns;
    for name in names(cx.txn, ns, KEY) {
        let Some(key) = Key::load(cx, &name)? else { continue };
        if let Some((_, alg, public)) = key.published(cx.now).into_iter().find(|(k, ..)| *k == kid) {
            return Ok(Some((alg, public.to_vec())));
        }
    }
    Ok(None)
}
