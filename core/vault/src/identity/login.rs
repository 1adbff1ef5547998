//! Identity at a login: the alias that it proves leads to an entity, made when absent; the group aliases it carries
//! decide the memberships of external groups. A login that changes nothing writes nothing.

use super::model::{self, BY_HAND, ENTITY_MEMBER, Entity, EntityAlias, GroupKind, Ref};
use crate::tables::IndexKind;
use ringfence_barrier::{Keyring, Txn};
use ringfence_base::{Entropy, MountId, NsId, Wall, entropy};
use ringfence_logical::{Alias, Error};
use std::collections::{BTreeMap, BTreeSet};

/// Finds the entity of an alias, or makes it. Answers the entity and whether it is new.
///
/// # Errors
/// `missing alias name`.
pub fn of_login(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    rng: &mut dyn Entropy,
    now: Wall,
    ns: NsId,
    mount: MountId,
    alias: &Alias,
) -> Result<(Entity, bool), Error> {
    if model::normal(&alias.name).is_empty() {
        return Err(Error::invalid("missing alias name"));
    }
    if let Some(id) = model::entity_of_alias(txn, keyring, mount, &alias.name)?
        && let Some(mut e) = model::load(txn, ns, &id)?
    {
        if let Some(a) = e.aliases.iter_mut().find(|a| a.mount == mount)
            && a.metadata != alias.metadata
        {
            a.metadata = alias.metadata.clone();
            a.updated = now;
            model::save(txn, &e);
        }
        return Ok((e, false));
    }
    let first = EntityAlias {
        id: entropy::uuid4(rng),
        mount,
        name: alias.name.clone(),
        metadata: alias.metadata.clone(),
        custom_metadata: BTreeMap::new(),
        created: now,
        updated: now,
        merged_from: Vec::new(),
    };
    let mut e = fresh(txn, keyring, rng, now, ns, "")?;
    model::link_alias(txn, keyring, ns, &first, &e.id);
    e.aliases.push(first);
    model::save(txn, &e);
    Ok((e, true))
}

/// A new entity with its name taken, not yet saved. An empty name becomes `entity_<8 hex>`.
pub fn fresh(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    rng: &mut dyn Entropy,
    now: Wall,
    ns: NsId,
    name: &str,
) -> Result<Entity, Error> {
    let name = match name {
        "" => free_name(txn, keyring, rng, ns, IndexKind::EntityName, "entity")?,
        given => given.to_owned(),
    };
    let e = Entity {
        id: entropy::uuid4(rng),
        name,
        ns,
        metadata: BTreeMap::new(),
        policies: Vec::new(),
        disabled: false,
        aliases: Vec::new(),
        created: now,
        updated: now,
        merged: Vec::new(),
    };
    model::take_name(txn, keyring, ns, IndexKind::EntityName, &e.name, &e.id);
    Ok(e)
}

/// Draws a name of its own. Eight hexadecimal digits are Vault's; among a million entities they meet, so a taken one is
/// drawn again.
pub fn free_name(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    rng: &mut dyn Entropy,
    ns: NsId,
    kind: IndexKind,
    stem: &str,
) -> Result<String, Error> {
    loop {
        let mut suffix = [0u8; 4];
        rng.fill(&mut suffix);
        let name = format!("{stem}_{}", hex::encode(suffix));
        if model::id_of_name(txn, keyring, ns, kind, &name)?.is_none() {
            return Ok(name);
        }
    }
}

/// Makes the memberships that logins at this mount decide what the login says: joins the external groups whose aliases
/// it carries and leaves the others. Writes only what differs.
pub fn refresh_groups(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    ns: NsId,
    mount: MountId,
    entity: &str,
    aliases: &[Alias],
) -> Result<(), Error> {
    let member = Ref { ns, id: entity.to_owned() };
    let mut wanted = BTreeSet::new();
    for alias in aliases {
        if model::normal(&alias.name).is_empty() {
            continue;
        }
        let Some(id) = model::group_of_alias(txn, keyring, mount, &alias.name)? else { continue };
        if model::load_group(txn, ns, &id)?.is_some_and(|g| g.kind == GroupKind::External) {
            wanted.insert(Ref { ns, id });
        }
    }
    for (group, by) in model::groups_of(txn, &member)? {
        if by == mount && by != BY_HAND && !wanted.remove(&group) {
            model::leave(txn, &group, ENTITY_MEMBER, &member);
        }
    }
    for group in wanted {
        model::join(txn, &group, ENTITY_MEMBER, &member, mount);
    }
    Ok(())
}
