//! Secret-ids: how they are kept, found, counted and ended.

use super::hash;
use super::role::Role;
use super::tidy;
use ringfence_base::Wall;
use ringfence_logical::{Cx, Error, Map};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Area of the secret-ids.
pub const SECRET_IDS: u8 = b's';
/// Area of their accessors.
const ACCESSORS: u8 = b'a';
/// Most secret-ids that the deletion of a role clears away itself; the rest, dead all the same, waits for a tidy.
const MAX_CLEARED: usize = 1000;

/// What is kept of a secret-id; not the secret-id itself.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SecretId {
    pub accessor: String,
    /// Uses left; 0 = without limit.
    pub num_uses: u64,
    /// Seconds, as given; 0 = without end.
    pub ttl: u64,
    pub created: Wall,
    pub updated: Wall,
    pub expires: Option<Wall>,
    pub metadata: BTreeMap<String, String>,
    pub cidr_list: Vec<String>,
    pub token_bound_cidrs: Vec<String>,
}

impl SecretId {
    pub fn is_expired(&self, now: Wall) -> bool {
        self.expires.is_some_and(|e| e <= now)
    }

    /// What lookups show.
    pub fn shown(&self) -> Map {
        let all = json!({
            "cidr_list": self.cidr_list,
            "creation_time": self.created.rfc3339(),
            // Go's zero time stands for "never"
            "expiration_time": self.expires.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), Wall::rfc3339),
            "last_updated_time": self.updated.rfc3339(),
            "metadata": self.metadata,
            "secret_id_accessor": self.accessor,
            "secret_id_num_uses": self.num_uses,
            "secret_id_ttl": self.ttl,
            "token_bound_cidrs": self.token_bound_cidrs,
        });
        match all {
            Value::Object(m) => m,
            _ => Map::new(),
        }
    }
}

/// Where a secret-id's record stands: the role's number, then the keyed hash of both.
pub type Place = [u8; 24];

/// The place of a secret-id of a role.
pub fn place(cx: &Cx<'_, '_>, role: &Role, secret_id: &str) -> Place {
    let h = hash(cx, "approle secret-id", &[&role.number, secret_id.as_bytes()]);
    let mut p = [0; 24];
    p[..8].copy_from_slice(&role.number);
    p[8..].copy_from_slice(&h);
    p
}

/// Reads a secret-id that is in force. One that has expired is as good as absent, and is cleared away if the request
/// goes through; a refusal (a login, say) writes nothing and leaves it to a tidy.
pub fn load(cx: &mut Cx<'_, '_>, place: &Place) -> Result<Option<SecretId>, Error> {
    let Some(entry) = cx.get_json::<SecretId>(SECRET_IDS, place)? else { return Ok(None) };
    if entry.is_expired(cx.now) {
        remove(cx, place, &entry);
        return Ok(None);
    }
    Ok(Some(entry))
}

/// The place that an accessor points to.
pub fn by_accessor(cx: &mut Cx<'_, '_>, accessor: &str) -> Result<Option<Place>, Error> {
    let index = hash(cx, "approle accessor", &[accessor.as_bytes()]);
    match cx.get(ACCESSORS, &index)? {
        Some(bytes) => Ok(Some(
            bytes.as_slice().try_into().map_err(|_| Error::internal("an accessor's record has a wrong length"))?,
        )),
        None => Ok(None),
    }
}

/// Keeps a new secret-id and its accessor.
pub fn register(cx: &mut Cx<'_, '_>, place: &Place, entry: &SecretId) {
    let index = hash(cx, "approle accessor", &[entry.accessor.as_bytes()]);
    cx.put(ACCESSORS, &index, place);
    cx.put_json(SECRET_IDS, place, entry);
    if entry.expires.is_some() {
        tidy::expect(cx);
    }
}

/// Counts one use of a limited secret-id; the last one ends it.
pub fn count_use(cx: &mut Cx<'_, '_>, place: &Place, entry: &SecretId) {
    match entry.num_uses {
        0 => {}
        1 => remove(cx, place, entry),
        n => {
            let left = SecretId { num_uses: n - 1, updated: cx.now, ..entry.clone() };
            cx.put_json(SECRET_IDS, place, &left);
        }
    }
}

/// Ends a secret-id.
pub fn remove(cx: &mut Cx<'_, '_>, place: &Place, entry: &SecretId) {
    let index = hash(cx, "approle accessor", &[entry.accessor.as_bytes()]);
    cx.delete(ACCESSORS, &index);
    cx.delete(SECRET_IDS, place);
}

/// Every place of a role, in order, at most `limit`.
pub fn places(cx: &mut Cx<'_, '_>, role: &Role, limit: usize) -> Vec<Place> {
    let prefix = cx.key(SECRET_IDS, &role.number);
    let area = prefix.len() - role.number.len();
    let keys = cx.txn.list(&prefix, None, limit);
    keys.iter().filter_map(|k| k[area..].try_into().ok()).collect()
}

/// Clears secret-ids of a role that is being deleted.
pub fn clear_role(cx: &mut Cx<'_, '_>, role: &Role) -> Result<(), Error> {
    let places = places(cx, role, MAX_CLEARED);
    if places.len() == MAX_CLEARED {
        tidy::expect(cx);
    }
    for place in places {
        if let Some(entry) = cx.get_json::<SecretId>(SECRET_IDS, &place)? {
            remove(cx, &place, &entry);
        }
    }
    Ok(())
}
