//! The settings of a mount: what `config` of a new mount and the tune endpoints take. One list of fields, one reader,
//! for both.

use crate::mount::{MountEntry, UserLockout};
use ringfence_base::duration;
use ringfence_logical::{Args, Class, Error, Field, Kind, Map, TokenType};
use serde_json::Value;

/// Fields that are kept in the entry and shown again, without a meaning of ours.
const KEPT: &[&str] = &[
    "plugin_version",
    "allowed_managed_keys",
    "delegated_auth_accessors",
    "identity_token_key",
    "trim_request_trailing_slashes",
];
/// Auth methods whose users can be locked out. Source: Vault's documentation of `user_lockout`.
pub const LOCKABLE: &[&str] = &["approle", "ldap", "userpass"];

const DEFAULT_TTL: Field = Field::str("default_lease_ttl", "Default lease time; \"system\" for the server's.");
const MAX_TTL: Field = Field::str("max_lease_ttl", "Longest lease time; \"system\" for the server's.");
const VISIBILITY: Field = Field::str("listing_visibility", "Shown to callers without a token: unauth or hidden.");
const TOKEN_TYPE: Field = Field::str("token_type", "Type of the tokens that logins yield.");
const CLEAR_REQUEST: Field = Field::list("audit_non_hmac_request_keys", "Request keys that audit shows as they are.");
const CLEAR_RESPONSE: Field =
    Field::list("audit_non_hmac_response_keys", "Response keys that audit shows as they are.");
const PASS_ON: Field = Field::list("passthrough_request_headers", "Request headers the engine sees.");
const MAY_SET: Field = Field::list("allowed_response_headers", "Response headers the engine may set.");
const LOCKOUT: Field = Field::new("user_lockout_config", Kind::Object, "When users are locked out.");
const PLUGIN_VERSION: Field = Field::str("plugin_version", "Kept and shown.");
const MANAGED_KEYS: Field = Field::list("allowed_managed_keys", "Kept and shown.");
const DELEGATED: Field = Field::list("delegated_auth_accessors", "Kept and shown.");
const IDENTITY_KEY: Field = Field::str("identity_token_key", "Kept and shown.");
const TRIM: Field = Field::bool("trim_request_trailing_slashes", "Kept and shown.");
const NO_CACHE: Field = Field::bool("force_no_cache", "Kept and shown.");
const OPTIONS: Field = Field::new("options", Kind::KvPairs, "Options of the engine; an empty value removes one.");

/// Fields of the `config` object of a new mount.
pub const CONFIG: &[Field] = &[
    DEFAULT_TTL,
    MAX_TTL,
    VISIBILITY,
    TOKEN_TYPE,
    CLEAR_REQUEST,
    CLEAR_RESPONSE,
    PASS_ON,
    MAY_SET,
    LOCKOUT,
    PLUGIN_VERSION,
    MANAGED_KEYS,
    DELEGATED,
    IDENTITY_KEY,
    TRIM,
    NO_CACHE,
];

/// Fields of the tune endpoints.
pub const TUNE: &[Field] = &[
    Field::str("path", "The mount."),
    Field::str("description", "Free text."),
    DEFAULT_TTL,
    MAX_TTL,
    VISIBILITY,
    TOKEN_TYPE,
    CLEAR_REQUEST,
    CLEAR_RESPONSE,
    PASS_ON,
    MAY_SET,
    LOCKOUT,
    PLUGIN_VERSION,
    MANAGED_KEYS,
    DELEGATED,
    IDENTITY_KEY,
    TRIM,
    NO_CACHE,
    OPTIONS,
];

const LOCKOUT_FIELDS: &[Field] = &[
    Field::int("lockout_threshold", "Wrong attempts until the lock."),
    Field::seconds("lockout_duration", "How long the lock lasts."),
    Field::seconds("lockout_counter_reset_duration", "After which an unlocked count is forgotten."),
    Field::bool("lockout_disable", "Nobody is locked out."),
];

/// True if a field came and is not `null`: clients that print every field of a struct send `null` for those not set.
pub fn given(args: &Args, name: &str) -> bool {
    args.raw().get(name).is_some_and(|v| !v.is_null())
}

/// Puts the settings that are given over those that stand. TTLs are checked by the caller, who knows their bounds.
pub fn apply(args: &Args, entry: &mut MountEntry) -> Result<(), Error> {
    if let Some(ttl) = ttl(args, "default_lease_ttl", "default")? {
        entry.config.default_lease_ttl = ttl;
    }
    if let Some(ttl) = ttl(args, "max_lease_ttl", "max")? {
        entry.config.max_lease_ttl = ttl;
    }
    if given(args, "listing_visibility") {
        let v = args.str("listing_visibility");
        if !matches!(v, "" | "unauth" | "hidden") {
            return Err(Error::invalid(format!("invalid listing_visibility {v}")));
        }
        entry.config.listing_visibility = v.to_owned();
    }
    if given(args, "token_type") && entry.class == Class::Auth {
        entry.config.token_type = token_type(args.str("token_type"))?;
    }
    let config = &mut entry.config;
    for (name, list) in [
        ("audit_non_hmac_request_keys", &mut config.audit_non_hmac_request_keys),
        ("audit_non_hmac_response_keys", &mut config.audit_non_hmac_response_keys),
        ("passthrough_request_headers", &mut config.passthrough_request_headers),
        ("allowed_response_headers", &mut config.allowed_response_headers),
    ] {
        if given(args, name) {
            *list = args.list(name);
        }
    }
    for name in KEPT {
        match args.raw().get(*name) {
            None | Some(Value::Null) => {}
            // Go's clients print unset texts too
            Some(Value::String(s)) if s.is_empty() => drop(config.other.remove(*name)),
            Some(v) => drop(config.other.insert((*name).to_owned(), v.clone())),
        }
    }
    if given(args, "user_lockout_config") {
        lockout(args.object("user_lockout_config").cloned().unwrap_or_default(), entry)?;
    }
    Ok(())
}

/// `None` = leave as it is, 0 = the server's.
fn ttl(args: &Args, field: &str, name: &str) -> Result<Option<u64>, Error> {
    match args.str(field) {
        "" => Ok(None),
        "system" => Ok(Some(0)),
        text => match duration::parse_seconds(text) {
            Some(s) => Ok(Some(s)),
            None => {
                Err(Error::invalid(format!("unable to parse {name} TTL of {text}: time: invalid duration {text:?}")))
            }
        },
    }
}

fn token_type(text: &str) -> Result<TokenType, Error> {
    match TokenType::parse(text) {
        Some(TokenType::Default) => Ok(TokenType::DefaultService),
        Some(t) => Ok(t),
        None => Err(Error::invalid("invalid value for 'token_type'")),
    }
}

fn lockout(object: Map, entry: &mut MountEntry) -> Result<(), Error> {
    if object.is_empty() {
        return Ok(());
    }
    if entry.class != Class::Auth || !LOCKABLE.contains(&entry.kind.as_str()) {
        return Err(Error::invalid(format!(
            "tuning of user lockout configuration for auth type {:?} not allowed",
            entry.kind
        )));
    }
    let args = Args::parse(LOCKOUT_FIELDS, &[], object)?;
    let mut wanted = entry.config.user_lockout.clone().unwrap_or_default();
    if given(&args, "lockout_threshold") {
        wanted.threshold = u64::try_from(args.int("lockout_threshold"))
            .map_err(|_| Error::invalid("lockout_threshold cannot be negative"))?;
    }
    if given(&args, "lockout_duration") {
        wanted.duration = args.seconds("lockout_duration");
    }
    if given(&args, "lockout_counter_reset_duration") {
        wanted.counter_reset = args.seconds("lockout_counter_reset_duration");
    }
    if given(&args, "lockout_disable") {
        wanted.disable = args.bool("lockout_disable");
    }
    // a threshold of nothing would lock everybody out at once
    if wanted.threshold == 0 {
        wanted.threshold = UserLockout::default().threshold;
    }
    entry.config.user_lockout = Some(wanted);
    Ok(())
}

/// What the tune endpoint and the mount's description show of the settings that are set at all.
pub fn shown(entry: &MountEntry) -> Map {
    let c = &entry.config;
    let mut m = Map::new();
    for (name, list) in [
        ("audit_non_hmac_request_keys", &c.audit_non_hmac_request_keys),
        ("audit_non_hmac_response_keys", &c.audit_non_hmac_response_keys),
        ("passthrough_request_headers", &c.passthrough_request_headers),
        ("allowed_response_headers", &c.allowed_response_headers),
    ] {
        if !list.is_empty() {
            m.insert(name.into(), list.clone().into());
        }
    }
    if !c.listing_visibility.is_empty() {
        m.insert("listing_visibility".into(), c.listing_visibility.clone().into());
    }
    if entry.class == Class::Auth {
        let shown = match c.token_type {
            TokenType::Default => TokenType::DefaultService,
            t => t,
        };
        m.insert("token_type".into(), shown.as_str().into());
    }
    for (k, v) in &c.other {
        m.insert(k.clone(), v.clone());
    }
    m
}
