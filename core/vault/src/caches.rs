//! Derived state of one core: router, parsed policies, compiled ACLs, audit devices. Nothing is invalidated by
//! message: each cache remembers the index up to which its tables had not changed, and is rebuilt when they have.

use crate::identity::Identity;
use crate::known::KnownCallers;
use crate::mount::{Router, SharedRouter, SystemTtls};
use crate::policies;
use crate::tables;
use ringfence_barrier::Txn;
use ringfence_base::{Index, NsId, Wall};
use ringfence_logical::Error;
use ringfence_policy::{Acl, Policy};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Compiled ACLs kept per core and namespace, and templated ones per core; beyond it the cache starts anew.
const MAX_ACLS: usize = 10_000;

/// The caches of one core.
#[derive(Default)]
pub struct Caches {
    /// Shared by the cores of the process.
    shared: Arc<SharedRouter>,
    /// Number of the issuer that the image is written under; see [`SharedRouter::newest`].
    epoch: u32,
    router: Option<Arc<Router>>,
    policies_at: Index,
    policies: BTreeMap<(NsId, String), Option<Arc<Policy>>>,
    /// By namespace and policies; sets with a templated policy are in `templated`.
    acls: BTreeMap<NsId, BTreeMap<Vec<String>, Rc<Acl>>>,
    templated: BTreeMap<TemplatedKey, Rc<Acl>>,
    identities_at: Index,
    identities: BTreeMap<NsId, BTreeMap<String, Identity>>,
    /// Compiled quotas.
    pub quotas: crate::quota::Cache,
    /// Verified callers.
    pub known: KnownCallers,
    /// Audit devices and their salts.
    pub audit: crate::audit::Devices,
}

/// Identities kept per core and namespace; beyond it the cache starts anew.
const MAX_IDENTITIES: usize = 10_000;

/// A rule with an `expiration` ends the life of the compiled set.
fn still_valid(acl: &Acl, now: Wall) -> bool {
    acl.valid_until().is_none_or(|end| now < end)
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TemplatedKey {
    ns: NsId,
    policies: Vec<String>,
    entity: String,
    /// Index of the last change of entities.
    identity_at: Index,
}

impl Caches {
    /// Empty caches of a core that shares its router.
    pub fn sharing(shared: Arc<SharedRouter>) -> Caches {
        Caches { shared, ..Caches::default() }
    }

    /// The router of this view: the one at hand, one that another core has built, or the newest older one brought up
    /// to date.
    pub fn router(&mut self, txn: &mut Txn<'_>, system: &SystemTtls) -> Result<Arc<Router>, Error> {
        let stamp = Router::stamp(txn);
        if let Some(r) = &self.router
            && r.built_at == stamp
        {
            return Ok(r.clone());
        }
        let known = [self.router.take(), self.shared.newest(self.epoch)];
        let newest = known.into_iter().flatten().filter(|r| r.built_at <= stamp).max_by_key(|r| r.built_at);
        let router = match newest {
            Some(r) if r.built_at == stamp => r,
            Some(mut r) => {
                Arc::make_mut(&mut r).refresh(txn, system)?;
                r
            }
            None => Arc::new(Router::build(txn, system)?),
        };
        self.shared.offer(self.epoch, &router);
        self.router = Some(router.clone());
        Ok(router)
    }

    /// A parsed policy, `None` if there is no such policy.
    pub fn policy(&mut self, txn: &mut Txn<'_>, ns: NsId, name: &str) -> Result<Option<Arc<Policy>>, Error> {
        self.forget_stale_policies(txn);
        let key = (ns, name.to_owned());
        if let Some(p) = self.policies.get(&key) {
            return Ok(p.clone());
        }
        let found = policies::load(txn, ns, name)?.map(Arc::new);
        self.policies.insert(key, found.clone());
        Ok(found)
    }

    /// The compiled ACL of a set of policies (sorted, without duplicates) in a namespace.
    pub fn acl(
        &mut self,
        txn: &mut Txn<'_>,
        ns: NsId,
        ns_path: &str,
        names: &[String],
        identity: &Identity,
        now: Wall,
    ) -> Result<Rc<Acl>, Error> {
        self.forget_stale_policies(txn);
        // a cached set reads no record, yet a write that rests on it must lose to a change of one of its policies
        for name in names {
            txn.guard(&tables::policy(ns, tables::POLICY_ACL, name));
        }
        for external in identity.external.iter() {
            for name in &external.policies {
                txn.guard(&tables::policy(external.ns, tables::POLICY_ACL, name));
            }
        }
        if identity.external.is_empty()
            && let Some(acl) = self.acls.get(&ns).and_then(|of_ns| of_ns.get(names))
            && still_valid(acl, now)
        {
            return Ok(acl.clone());
        }
        // what other namespaces lend is of this identity only, as a template's values are
        let mut templated = !identity.external.is_empty();
        let mut parsed = Vec::with_capacity(names.len());
        for name in names {
            if let Some(p) = self.policy(txn, ns, name)? {
                templated |= p.is_templated();
                parsed.push((ns_path, p));
            }
        }
        for external in identity.external.iter() {
            for name in &external.policies {
                if let Some(p) = self.policy(txn, external.ns, name)? {
                    parsed.push((external.path.as_str(), p));
                }
            }
        }
        let key = templated.then(|| TemplatedKey {
            ns,
            policies: names.to_vec(),
            entity: identity.entity_id.clone(),
            identity_at: crate::identity::stamp(txn),
        });
        if let Some(acl) = key.as_ref().and_then(|k| self.templated.get(k))
            && still_valid(acl, now)
        {
            return Ok(acl.clone());
        }
        let template = identity.template(txn)?;
        let root = names.iter().any(|n| n == "root");
        let acl = Rc::new(match root {
            true => Acl::root(),
            false => Acl::compile(parsed.iter().map(|(path, p)| (*path, &**p)), template.as_source(), now),
        });
        match key {
            Some(k) => {
                if self.templated.len() >= MAX_ACLS {
                    self.templated.clear();
                }
                self.templated.insert(k, acl.clone());
            }
            None => {
                let of_ns = self.acls.entry(ns).or_default();
                if of_ns.len() >= MAX_ACLS {
                    of_ns.clear();
                }
                of_ns.insert(names.to_vec(), acl.clone());
            }
        }
        Ok(acl)
    }

    /// The identity of a token's entity, as [`Identity::of`] reads it; what it rests on is in the read set either
    /// way.
    pub fn identity(&mut self, txn: &mut Txn<'_>, ns: NsId, entity_id: &str) -> Result<Option<Identity>, Error> {
        if entity_id.is_empty() {
            return Ok(Some(Identity::default()));
        }
        let at = crate::identity::stamp(txn);
        if self.identities_at != at {
            self.identities.clear();
            self.identities_at = at;
        }
        let of_ns = self.identities.entry(ns).or_default();
        if let Some(known) = of_ns.get(entity_id) {
            known.guard(txn);
            return Ok(Some(known.clone()));
        }
        let found = Identity::of(txn, ns, entity_id)?;
        if let Some(identity) = &found {
            if of_ns.len() >= MAX_IDENTITIES {
                of_ns.clear();
            }
            of_ns.insert(entity_id.to_owned(), identity.clone());
        }
        Ok(found)
    }

    fn forget_stale_policies(&mut self, txn: &Txn<'_>) {
        let at = txn.changed(tables::POLICY, None);
        if self.policies_at != at {
            self.policies.clear();
            self.acls.clear();
            self.templated.clear();
            self.policies_at = at;
        }
    }

    /// Forgets everything, what the cores share included: the core was sealed, or it learnt what never came to be.
    pub fn clear(&mut self) {
        self.shared.clear();
        *self = Caches { epoch: self.epoch, ..Caches::sharing(self.shared.clone()) };
    }

    /// Forgets everything: the image goes on under another issuer, and may be another image.
    pub fn begin_epoch(&mut self, issuer: u32) {
        if self.epoch != issuer {
            *self = Caches { epoch: issuer, ..Caches::sharing(self.shared.clone()) };
        }
    }
}
