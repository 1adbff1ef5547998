//! From what a login proved to a token: type, policies, identity, life. Called by the pipeline after the method's
//! handler; the method never sees a token.

use super::entry::TokenEntry;
use super::{mint, sanitize, ttl};
use crate::call::Call;
use crate::identity::{self, Identity};
use crate::mfa::{check, pending};
use crate::mount::Routed;
use crate::pipeline::Pass;
use ringfence_barrier::Txn;
use ringfence_base::{Wall, entropy};
use ringfence_logical::{Auth, Error, Issued, TokenType};
use serde_json::json;

/// Warning of a login that must come back with its second factor.
const SECOND_FACTOR_OWED: &str = "A login request was issued that is subject to MFA validation. Please make sure to \
    validate the login by sending another request to mfa/validate endpoint.";

/// Issues the token of a login, or says which second factor it owes. Answers the `auth` block and warnings. A batch
/// token of a known, unchanged entity writes nothing.
pub fn issue(
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    call: &Call,
    routed: &Routed,
    path: &str,
    auth: Auth,
) -> Result<(Issued, Vec<String>), Error> {
    policies_of(call, &auth)?;
    let identity = identify(pass, txn, routed, &auth)?;
    let router = pass.core.caches.borrow_mut().router(txn, &pass.core.vault.settings.ttls)?;
    let owed = check::owed(txn, &router, routed, &identity)?;
    if owed.is_empty() {
        return grant(pass, txn, call, routed, path, auth, identity);
    }
    if !call.mfa.is_empty() {
        check::pay(txn, pass.now, &identity.entity_id, &owed, &check::offer_of_headers(&call.mfa))?;
        return grant(pass, txn, call, routed, path, auth, identity);
    }
    let id = entropy::uuid4(pass.rng);
    let ns = routed.entry.ns;
    pending::file(txn, pass.keyring, &router, ns, &id, auth, routed.entry.id, path, pass.now)?;
    let requirement = json!({"mfa_request_id": id, "mfa_constraints": check::constraints(&owed)});
    let issued = Issued { mfa_requirement: Some(requirement), issued_at: pass.now, ..Issued::default() };
    Ok((issued, vec![SECOND_FACTOR_OWED.to_owned()]))
}

/// Who a login proves: the entity of its alias, made when absent, with the external groups that the login carries.
pub fn identify(pass: &mut Pass<'_>, txn: &mut Txn<'_>, routed: &Routed, auth: &Auth) -> Result<Identity, Error> {
    let Some(alias) = &auth.alias else { return Ok(Identity::default()) };
    let (ns, mount) = (routed.entry.ns, routed.entry.id);
    let (entity, _) = identity::of_login(txn, pass.keyring, pass.rng, pass.now, ns, mount, alias)?;
    identity::refresh_groups(txn, pass.keyring, ns, mount, &entity.id, &auth.group_aliases)?;
    Identity::of(txn, ns, &entity.id)?.ok_or_else(Error::denied_plain)
}

/// The token's own policies, after the checks that no second factor makes up for.
fn policies_of(call: &Call, auth: &Auth) -> Result<Vec<String>, Error> {
    if !ringfence_logical::cx::cidr_allows(&auth.bound_cidrs, call.remote) {
        return Err(Error::denied_plain());
    }
    let mut policies = sanitize(&auth.policies);
    if !auth.no_default_policy {
        policies = sanitize(&[policies, vec!["default".into()]].concat());
    }
    match policies.iter().any(|p| p == "root") {
        true => Err(Error::invalid("auth methods cannot create root tokens")),
        false => Ok(policies),
    }
}

/// Makes the token of a login that owes nothing any more.
pub fn grant(
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    call: &Call,
    routed: &Routed,
    path: &str,
    auth: Auth,
    identity: Identity,
) -> Result<(Issued, Vec<String>), Error> {
    let mount = &routed.info;
    let policies = policies_of(call, &auth)?;
    let batch = resolve_type(mount.token_type, auth.token_type) == TokenType::Batch;
    let ask = ttl::Ask {
        increment: 0,
        ttl: auth.ttl,
        period: auth.period,
        max_ttl: auth.max_ttl,
        explicit_max_ttl: auth.explicit_max_ttl,
        start: pass.now,
        now: pass.now,
    };
    let granted = ttl::calculate(mount, &ask)?;
    let mut entry = TokenEntry {
        ns: mount.ns,
        mount: mount.id,
        policies,
        path: path.to_owned(),
        meta: (!auth.metadata.is_empty()).then_some(auth.metadata),
        display_name: display_name(&mount.path, &auth.display_name),
        created: pass.now,
        creation_ttl: granted.ttl,
        due: pass.now.plus_seconds(granted.ttl),
        renewable: !batch,
        entity_id: identity.entity_id.clone(),
        bound_cidrs: auth.bound_cidrs,
        role: auth.role,
        no_default_policy: auth.no_default_policy,
        ..TokenEntry::default()
    };
    let router = pass.core.caches.borrow_mut().router(txn, &pass.core.vault.settings.ttls)?;
    let token = if batch {
        mint::batch(txn, pass.sealer, &router, &mut entry)?
    } else {
        entry.num_uses = i64::try_from(auth.num_uses).unwrap_or(i64::MAX);
        entry.period = auth.period;
        entry.max_ttl = auth.max_ttl;
        entry.explicit_max_ttl = auth.explicit_max_ttl;
        if !auth.internal.is_empty() {
            entry.internal = serde_json::to_string(&auth.internal).expect("a JSON tree always serialises");
        }
        mint::service(txn, pass.keyring, &router, pass.rng, &mut entry, None)?.0
    };
    Ok((issued(token, &entry, identity.policies, granted.ttl, pass.now), granted.warnings))
}

/// The `auth` block of a token.
pub fn issued(
    client_token: String,
    entry: &TokenEntry,
    identity_policies: Vec<String>,
    lease_duration: u64,
    issued_at: Wall,
) -> Issued {
    let mut policies = [entry.policies.clone(), identity_policies.clone()].concat();
    policies.sort();
    policies.dedup();
    Issued {
        client_token,
        accessor: entry.accessor.clone(),
        policies,
        token_policies: entry.policies.clone(),
        identity_policies,
        metadata: entry.meta.clone(),
        lease_duration,
        renewable: entry.renewable,
        entity_id: entry.entity_id.clone(),
        token_type: kind_of(entry),
        orphan: entry.parent.is_none(),
        num_uses: entry.num_uses.max(0) as u64,
        display_name: entry.display_name.clone(),
        issued_at,
        mfa_requirement: None,
    }
}

/// `service` or `batch`.
pub fn kind_of(entry: &TokenEntry) -> TokenType {
    match entry.kind {
        super::entry::TokenKind::Service => TokenType::Service,
        super::entry::TokenKind::Batch => TokenType::Batch,
    }
}

/// Which type a login yields: what the mount says outright wins, else the role, else the mount's default. Source: the
/// API reference's table of mount and role.
pub fn resolve_type(mount: TokenType, role: TokenType) -> TokenType {
    use TokenType::{Batch, Default, DefaultBatch, DefaultService, Service};
    match (mount, role) {
        (Service, _) => Service,
        (Batch, _) => Batch,
        (_, Service | DefaultService) => Service,
        (_, Batch | DefaultBatch) => Batch,
        (DefaultBatch, Default) => Batch,
        (Default | DefaultService, Default) => Service,
    }
}

/// `userpass-bob`: the mount's path with dashes, and what the method says.
fn display_name(mount_path: &str, own: &str) -> String {
    let mount = mount_path.strip_prefix("auth/").unwrap_or(mount_path).replace('/', "-");
    format!("{mount}{own}").trim_end_matches('-').to_owned()
}

/// Loads what a login's renewal gives back to the method.
pub fn internal_of(entry: &TokenEntry) -> Result<ringfence_logical::Map, Error> {
    if entry.internal.is_empty() {
        return Ok(ringfence_logical::Map::new());
    }
    serde_json::from_str(&entry.internal).map_err(|e| Error::internal(format!("stored token: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_types() {
        use TokenType::{Batch, Default, DefaultBatch, DefaultService, Service};
        // rows: mount; columns: role default, service, batch
        for (mount, row) in [
            (Service, [Service, Service, Service]),
            (Batch, [Batch, Batch, Batch]),
            (DefaultService, [Service, Service, Batch]),
            (Default, [Service, Service, Batch]),
            (DefaultBatch, [Batch, Service, Batch]),
        ] {
            assert_eq!([Default, Service, Batch].map(|role| resolve_type(mount, role)), row, "{mount:?}");
        }
    }

    #[test]
    fn display_names() {
        assert_eq!(display_name("auth/userpass/", "bob"), "userpass-bob");
        assert_eq!(display_name("auth/approle/", ""), "approle");
        assert_eq!(display_name("auth/team/k8s/", "ns-sa"), "team-k8s-ns-sa");
    }
}
