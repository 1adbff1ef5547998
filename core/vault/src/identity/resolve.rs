//! What an entity means at this very request: its policies, the groups it is in, and the values that templates may
//! name. Read anew whenever entities, groups or memberships changed; everything it rests on is in the read set.

use super::model::{self, BY_HAND, Entity, Group, Ref};
use crate::namespace::Namespace;
use crate::tables::{self, IndexKind};
use ringfence_barrier::Txn;
use ringfence_base::{Index, MountId, NsId};
use ringfence_logical::Error;
use ringfence_policy::template::{Field, GroupKey, TemplateSource};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The identity of a caller: what policies come from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// Entity, or empty.
    pub entity_id: String,
    /// The id that the token names: another one if that entity was merged into this.
    asked: String,
    /// Namespace of the entity.
    pub ns: NsId,
    /// Policies from entity and groups of its own namespace, sorted.
    pub policies: Vec<String>,
    /// Policies from groups of other namespaces.
    pub external: Rc<[External]>,
    /// Every group it is in, directly or by inheritance.
    pub groups: Rc<[Ref]>,
}

/// Policies that a group of another namespace lends.
#[derive(Clone, Debug, PartialEq)]
pub struct External {
    /// Namespace of the policies.
    pub ns: NsId,
    /// Its path.
    pub path: String,
    /// Names, sorted.
    pub policies: Vec<String>,
}

/// The groups of an entity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memberships {
    /// Groups that name it.
    pub direct: Vec<Group>,
    /// Groups that those are in.
    pub inherited: Vec<Group>,
}

impl Memberships {
    /// Reads all of them. The read set holds each group and the list of groups of each member on the way, so that a
    /// membership that ends first makes the request lose.
    pub fn of(txn: &mut Txn<'_>, member: &Ref) -> Result<Memberships, Error> {
        let mut found = Memberships::default();
        let mut seen = BTreeSet::new();
        let mut next: Vec<(Ref, MountId, bool)> = Vec::new();
        for (group, by) in model::groups_of(txn, member)? {
            next.push((group, by, true));
        }
        while let Some((at, by, direct)) = next.pop() {
            if seen.contains(&at) {
                continue;
            }
            // a row may outlive its group for a moment
            let Some(group) = model::load_group(txn, at.ns, &at.id)? else { continue };
            // what a login decided holds while the group has an alias at that mount
            if by != BY_HAND && group.alias.as_ref().is_none_or(|a| a.mount != by) {
                continue;
            }
            seen.insert(at.clone());
            for (parent, by) in model::groups_of(txn, &at)? {
                next.insert(0, (parent, by, false));
            }
            match direct {
                true => found.direct.push(group),
                false => found.inherited.push(group),
            }
        }
        found.direct.sort_by(|a, b| a.id.cmp(&b.id));
        found.inherited.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// Direct ones, then inherited ones.
    pub fn all(&self) -> impl Iterator<Item = &Group> {
        self.direct.iter().chain(&self.inherited)
    }
}

impl Identity {
    /// Reads the identity of a token's entity. `None` if the entity is gone or disabled: the token is refused.
    pub fn of(txn: &mut Txn<'_>, ns: NsId, entity_id: &str) -> Result<Option<Identity>, Error> {
        if entity_id.is_empty() {
            return Ok(Some(Identity::default()));
        }
        let Some(e) = model::find(txn, ns, entity_id)?.filter(|e| !e.disabled) else { return Ok(None) };
        let groups = Memberships::of(txn, &e.as_ref())?;
        let mut by_ns: BTreeMap<NsId, Vec<String>> = BTreeMap::new();
        by_ns.entry(ns).or_default().extend(e.policies);
        for group in groups.all() {
            by_ns.entry(group.ns).or_default().extend(group.policies.iter().cloned());
        }
        for names in by_ns.values_mut() {
            // no write lets it in; if a record held it all the same, identity would still not make a root token
            names.retain(|n| n != "root");
            names.sort();
            names.dedup();
        }
        let policies = by_ns.remove(&ns).unwrap_or_default();
        let mut external = Vec::new();
        for (ns, policies) in by_ns {
            if let (false, Some(path)) = (policies.is_empty(), namespace_path(txn, ns)?) {
                external.push(External { ns, path, policies });
            }
        }
        let refs = groups.all().map(Group::as_ref).collect();
        let asked = entity_id.to_owned();
        Ok(Some(Identity { entity_id: e.id, asked, ns, policies, external: external.into(), groups: refs }))
    }

    /// Puts everything that [`Identity::of`] read into the read set: for an identity that was remembered.
    pub fn guard(&self, txn: &mut Txn<'_>) {
        if self.entity_id.is_empty() {
            return;
        }
        txn.guard(&tables::entity(self.ns, &self.entity_id));
        if self.asked != self.entity_id {
            txn.guard(&tables::entity(self.ns, &self.asked));
            txn.guard(&tables::identity_index(self.ns, IndexKind::Merged, self.asked.as_bytes()));
        }
        txn.guard_prefix(&tables::groups_of(self.ns, &self.entity_id));
        for group in self.groups.iter() {
            txn.guard(&tables::group(group.ns, &group.id));
            txn.guard_prefix(&tables::groups_of(group.ns, &group.id));
        }
    }

    /// Reads what templates may name.
    pub fn template(&self, txn: &mut Txn<'_>) -> Result<Template, Error> {
        let Some(entity) = model::load(txn, self.ns, &self.entity_id)? else { return Ok(Template::default()) };
        Template::of(txn, entity)
    }
}

/// The path of a namespace; `None` if it is gone.
fn namespace_path(txn: &mut Txn<'_>, ns: NsId) -> Result<Option<String>, Error> {
    match txn.get(&tables::namespace(ns))? {
        None => Ok(None),
        Some(p) => {
            let ns: Namespace =
                serde_json::from_slice(&p.bytes).map_err(|e| Error::internal(format!("stored namespace: {e}")))?;
            Ok(Some(ns.path))
        }
    }
}

/// The values that templates may name, read when a templated policy is compiled or an identity token is made.
#[derive(Default)]
pub struct Template {
    /// Whose values; without one there are none.
    pub entity: Option<Entity>,
    /// Mounts of its aliases by accessor.
    pub accessors: BTreeMap<String, MountId>,
    /// Its groups, each with the path of its namespace.
    pub groups: Vec<(String, Group)>,
}

impl Template {
    /// Reads the values of an entity.
    pub fn of(txn: &mut Txn<'_>, entity: Entity) -> Result<Template, Error> {
        let mut accessors = BTreeMap::new();
        for alias in &entity.aliases {
            if let Some(m) = crate::mount::MountEntry::load(txn, alias.mount)? {
                accessors.insert(m.accessor, alias.mount);
            }
        }
        let mut groups = Vec::new();
        let found = Memberships::of(txn, &entity.as_ref())?;
        for group in found.direct.into_iter().chain(found.inherited) {
            if let Some(path) = namespace_path(txn, group.ns)? {
                groups.push((path, group));
            }
        }
        Ok(Template { entity: Some(entity), accessors, groups })
    }

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
        let a = self.entity.as_ref()?.alias_at(*mount)?;
        match field {
            Field::Id => Some(a.id.as_str().into()),
            Field::Name => Some(a.name.as_str().into()),
            Field::Metadata(k) => a.metadata.get(k).map(|v| v.as_str().into()),
            Field::CustomMetadata(k) => a.custom_metadata.get(k).map(|v| v.as_str().into()),
        }
    }

    fn group(&self, namespace: &str, key: GroupKey<'_>, field: Field<'_>) -> Option<Cow<'_, str>> {
        let (_, g) = self.groups.iter().find(|(path, g)| match key {
            GroupKey::Id(id) => g.id == id,
            GroupKey::Name(name) => path == namespace && g.name == name,
        })?;
        match field {
            Field::Id => Some(g.id.as_str().into()),
            Field::Name => Some(g.name.as_str().into()),
            Field::Metadata(k) => g.metadata.get(k).map(|v| v.as_str().into()),
            Field::CustomMetadata(_) => None,
        }
    }
}

/// Index of the last change that can alter what an identity or a template yields.
pub fn stamp(txn: &Txn<'_>) -> Index {
    [tables::ENTITY, tables::GROUP, tables::MEMBER_OF, tables::NAMESPACE]
        .iter()
        .map(|t| txn.changed(*t, None))
        .max()
        .unwrap_or_default()
}
