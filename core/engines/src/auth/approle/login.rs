//! Login by role-id and secret-id.

use super::role::{self, Role};
use super::secret_id::{self, SecretId};
use crate::cidr;
use ringfence_logical::{Alias, Args, Cx, Error, Map, Outcome, Response};

fn wrong() -> Error {
    Error::credentials("invalid role or secret ID")
}

/// The role of a role-id.
pub fn role(cx: &mut Cx<'_, '_>, args: &Args) -> Result<String, Error> {
    Ok(role::by_role_id(cx, args.str("role_id"))?.map_or_else(String::new, |(name, _)| name))
}

pub fn login(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let role_id = args.str("role_id");
    if role_id.is_empty() {
        return Err(Error::invalid("missing role_id"));
    }
    let (name, role) = role::by_role_id(cx, role_id)?.ok_or_else(wrong)?;
    let secret = if role.bind_secret_id { Some(present(cx, args, &role)?) } else { None };
    let source = cx.req.remote.map(|ip| ip.to_string()).unwrap_or_default();
    if !cx.host.cidr_allows(&role.secret_id_bound_cidrs, cx.req.remote) {
        return Err(Error::invalid(format!(
            "source address {source:?} unauthorized by CIDR restrictions on the role"
        )));
    }
    let mut auth = role.token.auth(cx.req.remote);
    let mut metadata = secret.as_ref().map(|s| s.metadata.clone()).unwrap_or_default();
    if let Some(s) = secret.filter(|s| !s.token_bound_cidrs.is_empty() && !role.token.strictly_bind_ip) {
        auth.bound_cidrs = s.token_bound_cidrs;
    }
    if !cx.host.cidr_allows(&role.token.bound_cidrs, cx.req.remote)
        || !cx.host.cidr_allows(&auth.bound_cidrs, cx.req.remote)
    {
        return Err(Error::denied_plain());
    }
    // after the secret-id's own metadata: a secret-id cannot claim another role
    metadata.insert("role_name".into(), name.clone());
    let mut internal = Map::new();
    internal.insert("role_name".into(), name.clone().into());
    auth.alias = Some(Alias { name: role.role_id, metadata: Default::default() });
    auth.metadata = metadata;
    auth.internal = internal;
    auth.role = name;
    Response { auth: Some(auth), ..Response::default() }.done()
}

/// Checks the secret-id and counts its use.
fn present(cx: &mut Cx<'_, '_>, args: &Args, role: &Role) -> Result<SecretId, Error> {
    let secret_id = args.str("secret_id");
    if secret_id.is_empty() {
        return Err(Error::invalid("missing secret_id"));
    }
    let place = secret_id::place(cx, role, secret_id);
    let entry = secret_id::load(cx, &place)?.ok_or_else(wrong)?;
    if !cidr::all_within(&entry.cidr_list, &role.secret_id_bound_cidrs) {
        return Err(Error::invalid(format!(
            "CIDR blocks on the secret ID {:?} should be a subset of CIDR blocks on the role {:?}",
            entry.cidr_list, role.secret_id_bound_cidrs
        )));
    }
    if !cx.host.cidr_allows(&entry.cidr_list, cx.req.remote) {
        let source = cx.req.remote.map(|ip| ip.to_string()).unwrap_or_default();
        return Err(Error::invalid(format!(
            "source address {source:?} unauthorized through CIDR restrictions on the secret ID"
        )));
    }
    secret_id::count_use(cx, &place, &entry);
    Ok(entry)
}
