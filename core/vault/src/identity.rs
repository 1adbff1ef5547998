//! Identity: entities and their aliases. A login proves an alias (a name at a mount); the alias leads to an entity,
//! made when absent. One record per entity; a login that changes nothing writes nothing.

use crate::tables;
use ringfence_barrier::{HashKind, Keyring, Txn};
use ringfence_base::{Entropy, Index, MountId, NsId, Wall, entropy};
use ringfence_logical::{Alias, Error};
use ringfence_policy::template::{Field, GroupKey, TemplateSource};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Kind of the keyed hash that stands for an alias name.
const ALIAS_HASH: HashKind = HashKind(64);

/// One entity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entity {
    /// A UUID.
    pub id: String,
    /// Unique in the namespace.
    pub name: String,
    /// Namespace.
    pub ns: NsId,
    /// Free pairs.
    pub metadata: BTreeMap<String, String>,
    /// Policies of every token of this entity.
    pub policies: Vec<String>,
    /// Its tokens are refused.
    pub disabled: bool,
    /// Who it is at each mount.
    pub aliases: Vec<EntityAlias>,
    /// Log time.
    pub created: Wall,
    /// Log time.
    pub updated: Wall,
}

/// An alias of an entity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntityAlias {
    /// A UUID.
    pub id: String,
    /// Mount that proves it.
    pub mount: MountId,
    /// Name at the mount.
    pub name: String,
    /// Refreshed at logins.
    pub metadata: BTreeMap<String, String>,
    /// Set by operators.
    pub custom_metadata: BTreeMap<String, String>,
    /// Log time.
    pub created: Wall,
    /// Log time.
    pub updated: Wall,
}

/// The identity of a caller: what policies come from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// Entity, or empty.
    pub entity_id: String,
    /// Namespace of the entity.
    pub ns: NsId,
    /// Policies from entity and groups, sorted.
    pub policies: Vec<String>,
}

/// The values that templates may name, read when a templated policy is compiled.
pub struct Template {
    entity: Option<Entity>,
    accessors: BTreeMap<String, MountId>,
}

impl Identity {
    /// Reads the identity of a token's entity. `None` if the entity is gone or disabled: the token is refused.
    pub fn of(txn: &mut Txn<'_>, ns: NsId, entity_id: &str) -> Result<Option<Identity>, Error> {
        if entity_id.is_empty() {
            return Ok(Some(Identity::default()));
        }
        match load(txn, ns, entity_id)? {
            Some(e) if !e.disabled => {
                let mut policies = e.policies;
                policies.sort();
                policies.dedup();
                Ok(Some(Identity { entity_id: e.id, ns, policies }))
            }
            _ => Ok(None),
        }
    }

    /// Reads what templates may name.
    pub fn template(&self, txn: &mut Txn<'_>) -> Result<Template, Error> {
        if self.entity_id.is_empty() {
            return Ok(Template { entity: None, accessors: BTreeMap::new() });
        }
        let entity = load(txn, self.ns, &self.entity_id)?;
        let mut accessors = BTreeMap::new();
        for alias in entity.iter().flat_map(|e| &e.aliases) {
            if let Some(m) = crate::mount::MountEntry::load(txn, alias.mount)? {
                accessors.insert(m.accessor, alias.mount);
            }
        }
        Ok(Template { entity, accessors })
    }
}

impl Template {
    /// As the policy floor wants it: `None` without an entity.
    pub fn as_source(&self) -> Option<&dyn TemplateSource> {
        self.entity.as_ref().map(|_| self as &dyn TemplateSource)
    }
}

impl TemplateSource for Template {
    fn entity(&self, field: Field<'_>) -> Option<Cow<'_, str>> {
        let e = self.entity.as_ref()?;
        match field {
            Field::Id => Some(e.id.as_str().into()),
            Field::Name => Some(e.name.as_str().into()),
            Field::Metadata(k) => e.metadata.get(k).map(|v| v.as_str().into()),
            Field::CustomMetadata(_) => None,
        }
    }

    fn alias(&self, mount_accessor: &str, field: Field<'_>) -> Option<Cow<'_, str>> {
        let mount = self.accessors.get(mount_accessor)?;
        let a = self.entity.as_ref()?.aliases.iter().find(|a| a.mount == *mount)?;
        match field {
            Field::Id => Some(a.id.as_str().into()),
            Field::Name => Some(a.name.as_str().into()),
            Field::Metadata(k) => a.metadata.get(k).map(|v| v.as_str().into()),
            Field::CustomMetadata(k) => a.custom_metadata.get(k).map(|v| v.as_str().into()),
        }
    }

    fn group(&self, _namespace: &str, _key: GroupKey<'_>, _field: Field<'_>) -> Option<Cow<'_, str>> {
        // no group can be made yet, so no entity is in one: such a path is skipped
        None
    }
}

/// Index of the last change that can alter what a template yields.
pub fn stamp(txn: &Txn<'_>) -> Index {
    txn.changed(tables::ENTITY, None)
}

/// Reads an entity.
pub fn load(txn: &mut Txn<'_>, ns: NsId, id: &str) -> Result<Option<Entity>, Error> {
    match txn.get(&tables::entity(ns, id))? {
        None => Ok(None),
        Some(p) => {
            serde_json::from_slice(&p.bytes).map(Some).map_err(|e| Error::internal(format!("stored entity: {e}")))
        }
    }
}

/// Writes an entity.
pub fn save(txn: &mut Txn<'_>, e: &Entity) {
    let bytes = serde_json::to_vec(e).expect("an entity always serialises");
    txn.put(tables::entity(e.ns, &e.id), &[], &bytes);
}

/// Finds the entity of an alias, or makes it. Answers the entity and whether it is new.
pub fn of_login(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    rng: &mut dyn Entropy,
    now: Wall,
    ns: NsId,
    mount: MountId,
    alias: &Alias,
) -> Result<(Entity, bool), Error> {
    let hash = keyring.index_hash(ALIAS_HASH, alias.name.as_bytes());
    let alias_key = tables::alias(mount, &hash);
    if let Some(p) = txn.get(&alias_key)? {
        let id = String::from_utf8_lossy(&p.bytes).into_owned();
        if let Some(mut e) = load(txn, ns, &id)? {
            let known = e.aliases.iter_mut().find(|a| a.mount == mount && a.name == alias.name);
            if let Some(a) = known
                && a.metadata != alias.metadata
            {
                a.metadata = alias.metadata.clone();
                a.updated = now;
                save(txn, &e);
            }
            return Ok((e, false));
        }
    }
    let mut suffix = [0u8; 4];
    rng.fill(&mut suffix);
    let e = Entity {
        id: entropy::uuid4(rng),
        name: format!("entity_{}", hex::encode(suffix)),
        ns,
        metadata: BTreeMap::new(),
        policies: Vec::new(),
        disabled: false,
        aliases: vec![EntityAlias {
            id: entropy::uuid4(rng),
            mount,
            name: alias.name.clone(),
            metadata: alias.metadata.clone(),
            custom_metadata: BTreeMap::new(),
            created: now,
            updated: now,
        }],
        created: now,
        updated: now,
    };
    save(txn, &e);
    txn.put(alias_key, &[], e.id.as_bytes());
    Ok((e, true))
}
