//! Access tokens: what a client shows at our userinfo endpoint. A batch token without any policy and without an entity
//! of its own, so that it opens nothing else; whom it speaks of stands in its metadata.
//!
//! Anybody may make batch tokens with metadata of his choice, but only here is one made in the name of this mount.

use super::Wrong;
use super::wrong;
use crate::host::host;
use crate::token::check::{self, Holder};
use crate::token::entry::TokenEntry;
use crate::token::mint;
use ringfence_logical::{Cx, Error};
use std::collections::BTreeMap;

const ENTITY: &str = "entity_id";
const CLIENT: &str = "client_id";
const SCOPES: &str = "scopes";

/// What an access token says.
pub struct Access {
    /// Whom it speaks of.
    pub entity_id: String,
    /// Whom it was given to.
    pub client_id: String,
    /// What may be told.
    pub scopes: Vec<String>,
}

fn path_of(cx: &Cx<'_, '_>, provider: &str) -> String {
    format!("{}oidc/provider/{provider}/token", cx.mount.path)
}

/// Makes an access token for a provider's userinfo endpoint.
pub fn give(cx: &mut Cx<'_, '_>, provider: &str, access: &Access, seconds: u64) -> Result<String, Error> {
    let told = [
        ("oidc_token_type", "access token".to_owned()),
        (ENTITY, access.entity_id.clone()),
        (CLIENT, access.client_id.clone()),
        (SCOPES, access.scopes.join(" ")),
    ];
    let meta: BTreeMap<String, String> = told.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let mut entry = TokenEntry {
        ns: cx.mount.ns,
        mount: cx.mount.id,
        path: path_of(cx, provider),
        meta: Some(meta),
        display_name: "oidc".into(),
        created: cx.now,
        creation_ttl: seconds,
        due: cx.now.plus_seconds(seconds),
        no_default_policy: true,
        ..TokenEntry::default()
    };
    let host = host(cx);
    mint::batch(cx.txn, &host.sealer, &host.router, &mut entry)
}

/// What the request's token says, if it is an access token of this provider.
pub fn shown(cx: &mut Cx<'_, '_>, provider: &str) -> Result<Result<Access, Wrong>, Error> {
    let host = host(cx);
    let Some(raw) = host.call.token.clone() else {
        return Ok(wrong("invalid_token", "access token must be sent as a Bearer token"));
    };
    let Some(Holder { entry, .. }) = check::find(cx.txn, &host.keyring, &host.router, raw.expose(), cx.now)? else {
        return Ok(wrong("invalid_token", "access token is expired"));
    };
    let ours = (entry.ns, entry.mount) == (cx.mount.ns, cx.mount.id) && entry.path == path_of(cx, provider);
    let meta = entry.meta.unwrap_or_default();
    let of = |name: &str| meta.get(name).cloned().unwrap_or_default();
    match ours {
        true => Ok(Ok(Access {
            entity_id: of(ENTITY),
            client_id: of(CLIENT),
            scopes: of(SCOPES).split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
        })),
        false => Ok(wrong("invalid_token", "access token is malformed or invalid")),
    }
}
