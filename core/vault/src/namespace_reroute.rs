//! Requests about a token, an accessor or a lease are served in the namespace that the id names by its suffix,
//! whatever namespace the request came to. The whole request moves there before anything is judged: policies, locks
//! and quotas are those of the namespace that the id belongs to. So an id of another tenant's, however it was learnt,
//! is worth no more than the caller's rights over there (CVE-2026-40264, CVE-2026-45808).
//!
//! Called by the pipeline's first stage. It never looks an id up.

use crate::call::Call;
use crate::mount::Router;
use crate::namespace::Namespace;
use std::sync::Arc;

/// Where in a request an id stands: the body's field, and the paths below which the path holds it instead.
struct Named {
    /// Exact path, or the start of one that goes on with the id.
    path: &'static str,
    field: &'static str,
}

const NAMED: &[Named] = &[
    Named { path: "sys/leases/lookup", field: "lease_id" },
    Named { path: "sys/leases/renew", field: "lease_id" },
    Named { path: "sys/leases/revoke", field: "lease_id" },
    Named { path: "sys/renew", field: "lease_id" },
    Named { path: "sys/revoke", field: "lease_id" },
    Named { path: "auth/token/lookup", field: "token" },
    Named { path: "auth/token/renew", field: "token" },
    Named { path: "auth/token/revoke", field: "token" },
    Named { path: "auth/token/revoke-orphan", field: "token" },
    Named { path: "auth/token/lookup-accessor", field: "accessor" },
    Named { path: "auth/token/renew-accessor", field: "accessor" },
    Named { path: "auth/token/revoke-accessor", field: "accessor" },
];

/// Paths where a wrapping token opens or describes itself.
const WRAPPING: &[&str] = &["sys/wrapping/unwrap", "sys/wrapping/lookup", "sys/wrapping/rewrap"];

/// The namespace that serves a request, if it is another than the one it came to.
pub fn namespace_of<'r>(router: &'r Router, call: &Call, path: &str) -> Option<&'r Arc<Namespace>> {
    if !path.starts_with("sys/") && !path.starts_with("auth/token/") {
        return None;
    }
    if WRAPPING.contains(&path) && !call.data.contains_key("token") {
        return call.token.as_ref().and_then(|t| named_by(router, t.expose()));
    }
    let named = NAMED.iter().find_map(|n| {
        let rest = path.strip_prefix(n.path)?;
        (rest.is_empty() || rest.starts_with('/')).then_some((n.field, rest.trim_matches('/')))
    })?;
    let (field, in_path) = named;
    // the body wins over the path for leases; for tokens the path does, as with every captured name
    let in_body = call.data.get(field).and_then(|v| v.as_str()).filter(|id| !id.is_empty());
    let id = match (in_body, in_path) {
        (Some(id), "") => id,
        (Some(id), _) if field == "lease_id" => id,
        (_, id) => id,
    };
    named_by(router, id)
}

/// The namespace whose suffix an id carries. The root namespace's ids carry none.
fn named_by<'r>(router: &'r Router, id: &str) -> Option<&'r Arc<Namespace>> {
    let name = &id[id.rfind('/').map_or(0, |slash| slash + 1)..];
    router.namespace_by_external_id(name.rsplit_once('.')?.1)
}
