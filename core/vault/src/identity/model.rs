//! Entities, groups and their aliases as records, and the rows that lead to them. One record an entity, one a group;
//! everything else is an index row, so that no login rewrites more than the record of whoever logs in.
//!
//! Names of people stand in no key: entity, group and alias names are looked up by keyed hash of their one normal form.

use crate::tables::{self, Hash, IndexKind};
use ringfence_barrier::{HashKind, Keyring, Txn};
use ringfence_base::{MountId, NsId, Reader, Wall};
use ringfence_logical::Error;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Kind of the keyed hash that stands for an alias name.
const ALIAS_HASH: HashKind = HashKind(64);
/// Kind of the keyed hash that stands for an entity's name.
const ENTITY_NAME_HASH: HashKind = HashKind(66);
/// Kind of the keyed hash that stands for a group's name.
const GROUP_NAME_HASH: HashKind = HashKind(67);
/// Kind of the keyed hash that stands for the name of a group alias.
const GROUP_ALIAS_HASH: HashKind = HashKind(68);

/// One entity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entity {
    /// A UUID.
    pub id: String,
    /// Unique in the namespace, whatever its case.
    pub name: String,
    /// Namespace.
    pub ns: NsId,
    /// Free pairs.
    pub metadata: BTreeMap<String, String>,
    /// Policies of every token of this entity.
    pub policies: Vec<String>,
    /// Its tokens are refused.
    pub disabled: bool,
    /// Who it is at each mount; one a mount.
    pub aliases: Vec<EntityAlias>,
    /// Log time.
    pub created: Wall,
    /// Log time.
    pub updated: Wall,
    /// Entities that were merged into this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<String>,
}

/// An alias of an entity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntityAlias {
    /// A UUID.
    pub id: String,
    /// Mount that proves it.
    pub mount: MountId,
    /// Name at the mount, as given.
    pub name: String,
    /// Refreshed at logins.
    pub metadata: BTreeMap<String, String>,
    /// Set by operators.
    pub custom_metadata: BTreeMap<String, String>,
    /// Log time.
    pub created: Wall,
    /// Log time.
    pub updated: Wall,
    /// Entities that it came from by merging.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged_from: Vec<String>,
}

/// Whose members a group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupKind {
    /// Set by operators.
    Internal,
    /// Whoever logs in with the group's alias.
    External,
}

impl GroupKind {
    /// As the API prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            GroupKind::Internal => "internal",
            GroupKind::External => "external",
        }
    }
}

/// One group. Its members are rows of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// A UUID.
    pub id: String,
    /// Unique in the namespace, whatever its case.
    pub name: String,
    /// Namespace.
    pub ns: NsId,
    /// Internal or external.
    pub kind: GroupKind,
    /// Free pairs.
    pub metadata: BTreeMap<String, String>,
    /// Policies of every member.
    pub policies: Vec<String>,
    /// What a login proves membership by (external groups).
    pub alias: Option<GroupAlias>,
    /// Log time.
    pub created: Wall,
    /// Log time.
    pub updated: Wall,
    /// How often it was changed.
    pub modify_index: u64,
}

/// The alias of an external group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupAlias {
    /// A UUID.
    pub id: String,
    /// Mount whose logins carry it.
    pub mount: MountId,
    /// Name at the mount, as given.
    pub name: String,
    /// Log time.
    pub created: Wall,
    /// Log time.
    pub updated: Wall,
}

/// A member of a group, or a group of a member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ref {
    /// Its namespace.
    pub ns: NsId,
    /// Its id.
    pub id: String,
}

/// Kind of a member: an entity.
pub const ENTITY_MEMBER: u8 = b'e';
/// Kind of a member: a group.
pub const GROUP_MEMBER: u8 = b'g';
/// In place of a mount: an operator decided the membership.
pub const BY_HAND: MountId = MountId(0);

/// The one normal form of every name of identity: alias, entity and group. Surrounding white space and case do not make
/// another person. Source: Vault's identity store compares names in lower case.
pub fn normal(name: &str) -> String {
    name.trim().to_lowercase()
}

/// How an alias name stands in a key.
pub fn alias_hash(keyring: &Keyring, name: &str) -> Hash {
    keyring.index_hash(ALIAS_HASH, normal(name).as_bytes())
}

/// How the name of a group alias stands in a key. Group names of outside directories keep their case: Vault compares
/// them in lower case too.
pub fn group_alias_hash(keyring: &Keyring, name: &str) -> Hash {
    keyring.index_hash(GROUP_ALIAS_HASH, normal(name).as_bytes())
}

fn read<T: DeserializeOwned>(txn: &mut Txn<'_>, key: &[u8], what: &str) -> Result<Option<T>, Error> {
    match txn.get(key)? {
        None => Ok(None),
        Some(p) => {
            serde_json::from_slice(&p.bytes).map(Some).map_err(|e| Error::internal(format!("stored {what}: {e}")))
        }
    }
}

/// Reads an entity.
pub fn load(txn: &mut Txn<'_>, ns: NsId, id: &str) -> Result<Option<Entity>, Error> {
    if id.is_empty() {
        return Ok(None);
    }
    read(txn, &tables::entity(ns, id), "entity")
}

/// Reads the entity that a token names: itself, or the one that it was merged into since.
pub fn find(txn: &mut Txn<'_>, ns: NsId, id: &str) -> Result<Option<Entity>, Error> {
    if let Some(e) = load(txn, ns, id)? {
        return Ok(Some(e));
    }
    match led_to(txn, &tables::identity_index(ns, IndexKind::Merged, id.as_bytes()))? {
        Some(into) => load(txn, ns, &into),
        None => Ok(None),
    }
}

/// Lets the id of an entity that was merged lead to the one it became.
pub fn link_merged(txn: &mut Txn<'_>, ns: NsId, from: &str, into: &str) {
    txn.put(tables::identity_index(ns, IndexKind::Merged, from.as_bytes()), &[], into.as_bytes());
}

/// Writes an entity's record.
pub fn save(txn: &mut Txn<'_>, e: &Entity) {
    let bytes = serde_json::to_vec(e).expect("an entity always serialises");
    txn.put(tables::entity(e.ns, &e.id), &[], &bytes);
}

/// Reads a group.
pub fn load_group(txn: &mut Txn<'_>, ns: NsId, id: &str) -> Result<Option<Group>, Error> {
    if id.is_empty() {
        return Ok(None);
    }
    read(txn, &tables::group(ns, id), "group")
}

/// Writes a group's record.
pub fn save_group(txn: &mut Txn<'_>, g: &Group) {
    let bytes = serde_json::to_vec(g).expect("a group always serialises");
    txn.put(tables::group(g.ns, &g.id), &[], &bytes);
}

fn led_to(txn: &mut Txn<'_>, key: &[u8]) -> Result<Option<String>, Error> {
    Ok(txn.get(key)?.map(|p| String::from_utf8_lossy(&p.bytes).into_owned()))
}

fn name_key(keyring: &Keyring, ns: NsId, kind: IndexKind, name: &str) -> Vec<u8> {
    let hash_kind = match kind {
        IndexKind::GroupName => GROUP_NAME_HASH,
        _ => ENTITY_NAME_HASH,
    };
    tables::identity_index(ns, kind, &keyring.index_hash(hash_kind, normal(name).as_bytes()))
}

/// The id behind a name of an entity or group.
pub fn id_of_name(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    ns: NsId,
    kind: IndexKind,
    name: &str,
) -> Result<Option<String>, Error> {
    led_to(txn, &name_key(keyring, ns, kind, name))
}

/// Lets a name lead to an id.
pub fn take_name(txn: &mut Txn<'_>, keyring: &Keyring, ns: NsId, kind: IndexKind, name: &str, id: &str) {
    txn.put(name_key(keyring, ns, kind, name), &[], id.as_bytes());
}

/// Frees a name.
pub fn free_name(txn: &mut Txn<'_>, keyring: &Keyring, ns: NsId, kind: IndexKind, name: &str) {
    txn.delete(&name_key(keyring, ns, kind, name));
}

/// The entity of an alias, by what a login proves.
pub fn entity_of_alias(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    mount: MountId,
    name: &str,
) -> Result<Option<String>, Error> {
    led_to(txn, &tables::alias(mount, &alias_hash(keyring, name)))
}

/// The entity or group of an alias, by the alias's id.
pub fn owner_of_alias(txn: &mut Txn<'_>, ns: NsId, kind: IndexKind, id: &str) -> Result<Option<String>, Error> {
    led_to(txn, &tables::identity_index(ns, kind, id.as_bytes()))
}

/// Writes the rows that lead from an alias to its entity.
pub fn link_alias(txn: &mut Txn<'_>, keyring: &Keyring, ns: NsId, alias: &EntityAlias, entity: &str) {
    txn.put(tables::alias(alias.mount, &alias_hash(keyring, &alias.name)), &[], entity.as_bytes());
    txn.put(tables::identity_index(ns, IndexKind::EntityAlias, alias.id.as_bytes()), &[], entity.as_bytes());
}

/// Removes the rows that lead from an alias to its entity.
pub fn unlink_alias(txn: &mut Txn<'_>, keyring: &Keyring, ns: NsId, alias: &EntityAlias) {
    txn.delete(&tables::alias(alias.mount, &alias_hash(keyring, &alias.name)));
    txn.delete(&tables::identity_index(ns, IndexKind::EntityAlias, alias.id.as_bytes()));
}

/// The group of a group alias at a mount.
pub fn group_of_alias(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    mount: MountId,
    name: &str,
) -> Result<Option<String>, Error> {
    led_to(txn, &tables::group_alias(mount, &group_alias_hash(keyring, name)))
}

/// Writes the rows that lead from a group alias to its group.
pub fn link_group_alias(txn: &mut Txn<'_>, keyring: &Keyring, ns: NsId, alias: &GroupAlias, group: &str) {
    txn.put(tables::group_alias(alias.mount, &group_alias_hash(keyring, &alias.name)), &[], group.as_bytes());
    txn.put(tables::identity_index(ns, IndexKind::GroupAlias, alias.id.as_bytes()), &[], group.as_bytes());
}

/// Removes the rows that lead from a group alias to its group.
pub fn unlink_group_alias(txn: &mut Txn<'_>, keyring: &Keyring, ns: NsId, alias: &GroupAlias) {
    txn.delete(&tables::group_alias(alias.mount, &group_alias_hash(keyring, &alias.name)));
    txn.delete(&tables::identity_index(ns, IndexKind::GroupAlias, alias.id.as_bytes()));
}

fn member_key(group: &Ref, kind: u8, member: &Ref) -> Vec<u8> {
    let mut k = tables::members(group.ns, &group.id, kind);
    k.extend_from_slice(&member.ns.0.to_be_bytes());
    k.extend_from_slice(member.id.as_bytes());
    k
}

fn group_key(member: &Ref, group: &Ref) -> Vec<u8> {
    let mut k = tables::groups_of(member.ns, &member.id);
    k.extend_from_slice(&group.ns.0.to_be_bytes());
    k.extend_from_slice(group.id.as_bytes());
    k
}

fn ref_of(tail: &[u8]) -> Result<Ref, Error> {
    let mut r = Reader::new(tail);
    let ns = NsId(r.be32()?);
    let id = String::from_utf8(r.rest().to_vec()).map_err(|_| Error::internal("a member's key is not text"))?;
    Ok(Ref { ns, id })
}

/// Makes somebody a member; `by` is the mount whose logins decide, or [`BY_HAND`].
pub fn join(txn: &mut Txn<'_>, group: &Ref, kind: u8, member: &Ref, by: MountId) {
    txn.put(member_key(group, kind, member), &[], &[]);
    txn.put(group_key(member, group), &[], &by.0.to_be_bytes());
}

/// Ends a membership.
pub fn leave(txn: &mut Txn<'_>, group: &Ref, kind: u8, member: &Ref) {
    txn.delete(&member_key(group, kind, member));
    txn.delete(&group_key(member, group));
}

/// Members of a group, of one kind, in the order of their ids; at most `limit`.
pub fn members(txn: &mut Txn<'_>, group: &Ref, kind: u8, limit: usize) -> Result<Vec<Ref>, Error> {
    let prefix = tables::members(group.ns, &group.id, kind);
    txn.list(&prefix, None, limit).iter().map(|k| ref_of(&k[prefix.len()..])).collect()
}

/// How many members of a kind a group has.
pub fn count_members(txn: &mut Txn<'_>, group: &Ref, kind: u8) -> usize {
    let prefix = tables::members(group.ns, &group.id, kind);
    txn.count(&prefix)
}

/// The groups that an entity or group is in directly, each with the mount whose logins decide it.
pub fn groups_of(txn: &mut Txn<'_>, member: &Ref) -> Result<Vec<(Ref, MountId)>, Error> {
    let prefix = tables::groups_of(member.ns, &member.id);
    let rows = txn.scan(&prefix, None, usize::MAX)?;
    rows.iter().map(|(k, p)| Ok((ref_of(&k[prefix.len()..])?, MountId(Reader::new(&p.bytes).be32()?)))).collect()
}

impl Entity {
    /// As a member of groups.
    pub fn as_ref(&self) -> Ref {
        Ref { ns: self.ns, id: self.id.clone() }
    }

    /// Its alias at a mount.
    pub fn alias_at(&self, mount: MountId) -> Option<&EntityAlias> {
        self.aliases.iter().find(|a| a.mount == mount)
    }
}

impl Group {
    /// As a member of groups.
    pub fn as_ref(&self) -> Ref {
        Ref { ns: self.ns, id: self.id.clone() }
    }
}
