//! What the vault's own handlers reach beyond their transaction: the settings of the process, the router of this
//! view, the keyring, the call, and the caches of the core.

use crate::caches::Caches;
use crate::call::Call;
use crate::identity::Identity;
use crate::mount::{Router, SharedRouter, SystemTtls, UserLockout};
use crate::namespace::Namespace;
use ringfence_barrier::{HashKind, Keyring, Sealer, Txn};
use ringfence_base::{NsId, Wall};
use ringfence_logical::{Cx, Error, Host, Memo, Registry};
use ringfence_policy::template::Template;
use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Settings of the process, from its configuration file and build.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The level of Vault's API that we speak, strict semver.
    pub api_version: String,
    /// Our own version.
    pub own_version: String,
    /// RFC 3339.
    pub build_date: String,
    /// `raft`, `inmem`, `file`.
    pub storage_type: String,
    /// System lease times.
    pub ttls: SystemTtls,
    /// Lockout defaults.
    pub user_lockout: UserLockout,
    /// `sys/raw` answers.
    pub raw_storage_endpoint: bool,
    /// `sys/internal/inspect` answers.
    pub introspection_endpoint: bool,
    /// `sys/rekey` and `sys/generate-root` answer without a token, as Vault's do.
    pub unauthenticated_key_endpoints: bool,
    /// The effective configuration without secrets, for `sys/config/state/sanitized`.
    pub sanitized: serde_json::Value,
    /// Where clients reach us, unless the configuration says otherwise our first listener's address: for documents that
    /// name us to outsiders.
    pub api_addr: String,
    /// A client may have its call passed on to the active node by `X-Vault-Forward`.
    pub forwards_by_header: bool,
    /// Development mode.
    pub dev: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            api_version: API_VERSION.into(),
            own_version: env!("CARGO_PKG_VERSION").into(),
            build_date: "2026-11-23T00:00:00Z".into(),
            storage_type: "raft".into(),
            ttls: SystemTtls::default(),
            user_lockout: UserLockout::default(),
            raw_storage_endpoint: false,
            introspection_endpoint: false,
            unauthenticated_key_endpoints: true,
            sanitized: serde_json::Value::Null,
            api_addr: String::new(),
            forwards_by_header: false,
            dev: false,
        }
    }
}

/// The level of Vault's API that we speak.
pub const API_VERSION: &str = "1.17.0";

/// The machine's immutable part, shared by all cores.
pub struct Vault {
    /// Every engine there is.
    pub registry: Registry,
    /// Settings.
    pub settings: Settings,
    /// Requests counted by rate limits: atomics that all cores share.
    pub rates: crate::quota::Counters,
    /// Clients that were active and are not in the image yet.
    pub activity: crate::activity::Waiting,
    /// The newest router.
    pub router: Arc<SharedRouter>,
}

impl Vault {
    /// The shared part of a process.
    pub fn new(registry: Registry, settings: Settings) -> Vault {
        Vault {
            registry,
            settings,
            rates: crate::quota::Counters::default(),
            activity: crate::activity::Waiting::default(),
            router: Arc::default(),
        }
    }
}

/// One core's part: caches that are valid while the tables they came from stand still.
pub struct CoreState {
    /// The shared part.
    pub vault: Arc<Vault>,
    /// The caches.
    pub caches: RefCell<Caches>,
    /// What engines keep of decoded records.
    pub memo: Memo,
}

impl CoreState {
    /// A core with empty caches.
    pub fn new(vault: Arc<Vault>) -> Rc<CoreState> {
        let caches = RefCell::new(Caches::sharing(vault.router.clone()));
        Rc::new(CoreState { vault, caches, memo: Memo::default() })
    }
}

/// The host of one request.
pub struct VaultHost {
    /// The core.
    pub core: Rc<CoreState>,
    /// The router of this view.
    pub router: Arc<Router>,
    /// The keyring (keyed hashes, batch tokens).
    pub keyring: Arc<Keyring>,
    /// This core's licence to mint batch tokens.
    pub sealer: Rc<RefCell<Sealer>>,
    /// The call.
    pub call: Rc<Call>,
    /// The namespace of the request.
    pub namespace: Arc<Namespace>,
    /// Cluster name and id.
    pub cluster: Rc<ClusterFacts>,
    /// Wall time of this core's clock (only for answers that tell it).
    pub wall: Wall,
}

/// What names the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterFacts {
    /// `vault-cluster-1a2b3c4d`.
    pub name: String,
    /// A UUID.
    pub id: String,
}

/// Names that engines hash, kept apart from this floor's own by the kind number and from each other by their text.
const ENGINE_HASH: HashKind = HashKind(128);

impl Host for VaultHost {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn password_policy(&self, txn: &mut Txn<'_>, ns: NsId, name: &str) -> Result<Option<String>, Error> {
        crate::sys::policies::password_text(txn, ns, name)
    }

    fn keyed_hash(&self, kind: &str, bytes: &[u8]) -> [u8; 16] {
        let mut named = Vec::with_capacity(4 + kind.len() + bytes.len());
        // the length makes (kind, bytes) one-to-one
        named.extend_from_slice(&(kind.len() as u32).to_be_bytes());
        named.extend_from_slice(kind.as_bytes());
        named.extend_from_slice(bytes);
        self.keyring.index_hash(ENGINE_HASH, &named)
    }

    fn fill_template(&self, txn: &mut Txn<'_>, entity_id: &str, text: &str) -> Result<Option<String>, Error> {
        let Some(template) = Template::parse(text).map_err(|_| Error::invalid("malformed identity template"))? else {
            return Ok(Some(text.to_owned()));
        };
        let Some(identity) = Identity::of(txn, self.namespace.id, entity_id)? else { return Ok(None) };
        let source = identity.template(txn)?;
        Ok(source.as_source().and_then(|s| template.fill(&self.namespace.path, s)))
    }

    fn memo(&self) -> Option<&Memo> {
        Some(&self.core.memo)
    }
}

impl CoreState {
    /// Forgets everything derived: the core was sealed.
    pub fn forget(&self) {
        self.caches.borrow_mut().clear();
        self.memo.clear();
    }
}

impl VaultHost {
    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.core.vault.settings
    }

    /// The engines.
    pub fn registry(&self) -> &Registry {
        &self.core.vault.registry
    }
}

/// The host behind a context. Every context that this floor's handlers see was made by its pipeline.
pub fn host<'a>(cx: &Cx<'a, '_>) -> &'a VaultHost {
    cx.host.as_any().downcast_ref().expect("the pipeline makes every host")
}
