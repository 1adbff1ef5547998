//! Response wrapping: an answer is put away under a token that can be used once. Whoever opens it knows that nobody
//! did before.
//!
//! The wrapping token is a service token with the policy `response-wrapping` and one use; what it wraps stands in two
//! rows of its cubbyhole, so it dies with the token. Opening reads, deletes and revokes in one transaction.

use crate::call::Call;
use crate::jwt;
use crate::mount::Router;
use crate::pipeline::Pass;
use crate::tables::{self, Hash};
use crate::token::check::Holder;
use crate::token::entry::TokenEntry;
use crate::token::{TOKEN_MOUNT_PATH, mint};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_barrier::{Keyring, Txn};
use ringfence_base::{Entropy, NsId, Wall};
use ringfence_logical::{Error, Raw};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The policy of wrapping tokens, and of nothing else.
const POLICY: &str = "response-wrapping";
/// Row with the wrapped answer.
const RESPONSE: &str = "response";
/// Row with what a lookup tells.
const INFO: &str = "wrapinfo";
/// Path whose answers are never in JWT form, whatever the client asks. Source: Vault forces the plain form there.
const PLAIN_ONLY: &str = "sys/wrapping/wrap";

/// The `wrap_info` of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct WrapInfo {
    /// The wrapping token.
    pub token: String,
    /// The wrapping token as the client gets it, if it asked for a JWT.
    pub jwt: Option<String>,
    /// Its accessor.
    pub accessor: String,
    /// Seconds.
    pub ttl: u64,
    /// When it was made.
    pub creation_time: Wall,
    /// Path of the request that was answered.
    pub creation_path: String,
    /// Accessor of the credential inside, if it is one.
    pub wrapped_accessor: Option<String>,
}

impl WrapInfo {
    /// As the envelope shows it.
    pub fn to_json(&self) -> Value {
        let mut v = json!({
            "token": self.jwt.as_ref().unwrap_or(&self.token),
            "accessor": self.accessor,
            "ttl": self.ttl,
            "creation_time": self.creation_time.rfc3339(),
            "creation_path": self.creation_path,
        });
        if let (Some(accessor), Some(map)) = (&self.wrapped_accessor, v.as_object_mut()) {
            map.insert("wrapped_accessor".into(), accessor.clone().into());
        }
        v
    }
}

/// What is wrapped.
#[derive(Clone, Debug, PartialEq)]
pub enum Inner {
    /// The text of the envelope.
    Json(Vec<u8>),
    /// A body without envelope.
    Raw(Raw),
}

/// What a wrapping token holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrapped {
    /// The answer.
    pub inner: Inner,
    /// About it.
    pub about: About,
}

/// What a lookup tells of a wrapping token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Nanoseconds, as Go prints a duration in JSON.
    pub creation_ttl: u64,
    /// RFC 3339.
    pub creation_time: String,
    /// Path of the request.
    pub creation_path: String,
    /// Accessor of the credential inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped_accessor: Option<String>,
}

/// The row with the answer. `response` is readable as `cubbyhole/response` too.
#[derive(Serialize, Deserialize)]
struct ResponseRow {
    response: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http_content_type: Option<String>,
    /// Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http_raw_body: Option<String>,
}

/// Wraps an answer: called by the pipeline.
///
/// # Errors
/// Internal ones.
#[allow(clippy::too_many_arguments)]
pub fn wrap(
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    call: &Call,
    ns: NsId,
    path: &str,
    holder: Option<&Holder>,
    ttl: u64,
    inner: Inner,
    accessor: Option<String>,
) -> Result<WrapInfo, Error> {
    let router = pass.core.caches.borrow_mut().router(txn, &pass.core.vault.settings.ttls)?;
    let display_name = holder.map_or("", |h| h.entry.display_name.as_str());
    let wish = Wish { ns, path, display_name, ttl, inner, wrapped_accessor: accessor, now: pass.now };
    let mut info = store(txn, pass.keyring, &router, pass.rng, wish)?;
    if call.wrap_jwt && path != PLAIN_ONLY {
        let claims = jwt::Claims {
            token: &info.token,
            created: info.creation_time,
            ttl: info.ttl,
            address: pass.core.vault.settings.sanitized["api_addr"].as_str().unwrap_or(""),
            accessor: info.wrapped_accessor.as_deref(),
        };
        info.jwt = Some(jwt::sign(txn, &claims)?);
    }
    Ok(info)
}

/// What is to be wrapped, and how.
pub struct Wish<'w> {
    /// Namespace of the request.
    pub ns: NsId,
    /// Path of the request.
    pub path: &'w str,
    /// Of the one who asked.
    pub display_name: &'w str,
    /// Seconds; not bounded by any lease time.
    pub ttl: u64,
    /// What is wrapped.
    pub inner: Inner,
    /// Accessor of the credential inside.
    pub wrapped_accessor: Option<String>,
    /// Log time.
    pub now: Wall,
}

/// Makes a wrapping token and puts an answer under it.
pub fn store(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    router: &Router,
    rng: &mut dyn Entropy,
    wish: Wish<'_>,
) -> Result<WrapInfo, Error> {
    let mount_of = |txn: &Txn<'_>, path: &str| {
        let found = router.at(txn, wish.ns, path)?.map(|m| m.entry.id);
        found.ok_or_else(|| Error::internal(format!("no mount at {path}")))
    };
    let mut entry = TokenEntry {
        ns: wish.ns,
        mount: mount_of(txn, TOKEN_MOUNT_PATH)?,
        policies: vec![POLICY.into()],
        path: wish.path.to_owned(),
        display_name: wish.display_name.to_owned(),
        num_uses: 1,
        created: wish.now,
        creation_ttl: wish.ttl,
        due: wish.now.plus_seconds(wish.ttl),
        explicit_max_ttl: wish.ttl,
        ..TokenEntry::default()
    };
    let cubbyhole = mount_of(txn, mint::CUBBYHOLE_PATH)?;
    let (token, hash) = mint::service(txn, keyring, router, rng, &mut entry, None)?;
    let row = match wish.inner {
        Inner::Json(text) => ResponseRow {
            response: String::from_utf8(text).map_err(|_| Error::internal("an envelope is text"))?,
            http_content_type: None,
            http_raw_body: None,
        },
        Inner::Raw(raw) => ResponseRow {
            response: String::new(),
            http_content_type: Some(raw.content_type),
            http_raw_body: Some(STANDARD.encode(raw.body)),
        },
    };
    let about = About {
        creation_ttl: wish.ttl.saturating_mul(ringfence_base::duration::SECOND_NS),
        creation_time: wish.now.rfc3339(),
        creation_path: wish.path.to_owned(),
        wrapped_accessor: wish.wrapped_accessor.clone(),
    };
    let row = serde_json::to_vec(&row).expect("texts always serialise");
    txn.put(tables::cubbyhole(cubbyhole, &hash, RESPONSE), &[], &row);
    let about = serde_json::to_vec(&about).expect("texts always serialise");
    txn.put(tables::cubbyhole(cubbyhole, &hash, INFO), &[], &about);
    Ok(WrapInfo {
        token,
        jwt: None,
        accessor: entry.accessor,
        ttl: wish.ttl,
        creation_time: wish.now,
        creation_path: wish.path.to_owned(),
        wrapped_accessor: wish.wrapped_accessor,
    })
}

/// True for a token that wraps an answer.
pub fn is_wrapping(entry: &TokenEntry) -> bool {
    entry.policies.len() == 1 && entry.policies[0] == POLICY
}

/// The one refusal for wrapping tokens that are unknown, used up, expired, or no wrapping tokens.
pub fn not_valid() -> Error {
    Error::invalid("wrapping token is not valid or does not exist")
}

/// What a lookup tells; `None` if the rows are gone.
pub fn about(txn: &mut Txn<'_>, router: &Router, entry: &TokenEntry, hash: &Hash) -> Result<Option<About>, Error> {
    row(txn, router, entry, hash, INFO)
}

/// Takes what a wrapping token holds and ends the token: once. `None` if there is nothing readable under it; the token
/// is ended all the same.
pub fn open(
    txn: &mut Txn<'_>,
    keyring: &Keyring,
    router: &Router,
    holder: &Holder,
) -> Result<Option<Wrapped>, Error> {
    let response: Option<ResponseRow> = row(txn, router, &holder.entry, &holder.hash, RESPONSE)?;
    let about = about(txn, router, &holder.entry, &holder.hash)?;
    mint::revoke(txn, keyring, router, &holder.hash, &holder.entry)?;
    let (Some(row), Some(about)) = (response, about) else { return Ok(None) };
    let inner = match (row.http_content_type, row.http_raw_body) {
        (Some(content_type), Some(body)) => {
            let body = STANDARD.decode(body).map_err(|e| Error::internal(format!("stored wrapping: {e}")))?;
            Inner::Raw(Raw { content_type, body, headers: Vec::new() })
        }
        _ => Inner::Json(row.response.into_bytes()),
    };
    Ok(Some(Wrapped { inner, about }))
}

fn row<T: serde::de::DeserializeOwned>(
    txn: &mut Txn<'_>,
    router: &Router,
    entry: &TokenEntry,
    hash: &Hash,
    path: &str,
) -> Result<Option<T>, Error> {
    let Some(cubbyhole) = router.at(txn, entry.ns, mint::CUBBYHOLE_PATH)? else { return Ok(None) };
    match txn.get(&tables::cubbyhole(cubbyhole.entry.id, hash, path))? {
        // rows that the token's holder overwrote are his loss, not a fault
        Some(p) => Ok(serde_json::from_slice(&p.bytes).ok()),
        None => Ok(None),
    }
}
