//! The owner's part of the key ceremonies: init, unseal, seal, rekey, root generation, rotation, and the status that
//! anybody may ask for. The state machines themselves are the barrier's; here they meet the log, the cell and the
//! API's words.

use crate::cell::{Keys, Licences};
use crate::control::{ControlCall, Endpoint};
use crate::owner::{Level, Owner, OwnerOut, Purpose, ShardId};
use crate::shard::{Settled, Ticket};
use ringfence_barrier::rotate::{self, RotateConfig, Usage};
use ringfence_barrier::{
    Finished, GenerateParams, GenerateRoot, GenerateStep, Issuer, KeyRecords, ReadSet, Rekey, RekeyParams, RekeyStep,
    RekeyVerifyStep, SealConfig, SealError, Sealer, ShareBackup, TABLE_CORE, Txn, Unseal, UnsealStep, Unsealed,
    decode_token, init, parse_share,
};
use ringfence_base::{Code, Entropy, Index, Mono, Wall, entropy};
use ringfence_crypto::Provider;
use ringfence_logical::{Args, Error, Field, Kind, Map, Operation, OwnerOp, SideResult};
use ringfence_store::Version;
use ringfence_vault::call::{Body, Reply};
use ringfence_vault::host::CoreState;
use ringfence_vault::mount::Router;
use ringfence_vault::sys::bootstrap;
use ringfence_vault::token::mint;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// A new issuer is drawn this often, ns: it narrows the window in which a resumed memory image could repeat nonces.
const REISSUE_NS: u64 = 300 * 1_000_000_000;

/// Everything of the seal that lives in this process only.
#[derive(Default)]
pub struct SealState {
    unseal: Unseal,
    rekey: Rekey,
    generate: GenerateRoot,
    unsealed: Option<Unsealed>,
    /// Index of the core table at which `unsealed` was read.
    core_at: Index,
    issuing: Option<Issuer>,
    issued_at: Mono,
    waiting_unseal: Vec<(ShardId, Ticket)>,
    waiting_restore: Vec<(ShardId, Ticket)>,
    pending_init: Option<PendingInit>,
    sealing: Option<Sealing>,
    active_since: Option<Wall>,
    pub(crate) core: Option<Rc<CoreState>>,
    pub(crate) sealer: Option<Rc<RefCell<Sealer>>>,
    pub(crate) provider: Provider,
}

/// The first records, waiting for this node to lead.
struct PendingInit {
    finished: Finished,
    asker: (ShardId, Ticket),
    reply: Reply,
}

/// A seal under way: who asked, and which cores still hold keys.
struct Sealing {
    sequence: u64,
    asker: Option<(ShardId, Ticket)>,
    holding: Vec<ShardId>,
}

impl SealState {
    /// No key, no ceremony under way.
    pub fn sealed(provider: Provider) -> SealState {
        SealState { provider, ..SealState::default() }
    }

    /// True once `sys/init` was done.
    pub fn initialized(&self, version: &Version) -> bool {
        matches!(SealConfig::load(version), Ok(Some(_)))
    }
}

fn refused(e: &SealError) -> Reply {
    let code = if *e == SealError::Corrupt { Code::Internal } else { Code::Invalid };
    Reply::error(&Error::new(code, e.text()))
}

fn json_reply(v: &Value) -> Reply {
    let mut body = serde_json::to_vec(v).expect("a JSON tree always serialises");
    body.push(b'\n');
    Reply::json(Code::Ok, body)
}

fn unsupported() -> Reply {
    Reply::error(&Error::bare(Code::Unsupported))
}

static FIELDS: &[Field] = &[
    Field::int("secret_shares", "Number of shares."),
    Field::int("secret_threshold", "Shares needed."),
    Field::list("pgp_keys", "One OpenPGP key a share."),
    Field::str("root_token_pgp_key", "OpenPGP key for the root token."),
    Field::int("recovery_shares", "For automatic seals."),
    Field::int("recovery_threshold", "For automatic seals."),
    Field::list("recovery_pgp_keys", "For automatic seals."),
    Field::int("stored_shares", "For automatic seals."),
    Field::str("key", "A share.").secret(),
    Field::bool("reset", "Forget the shares given."),
    Field::bool("migrate", "Seal migration."),
    Field::str("nonce", "Of the attempt."),
    Field::bool("backup", "Keep the encrypted shares."),
    Field::bool("require_verification", "New shares must be shown back."),
    Field::str("otp", "One-time password.").secret(),
    Field::str("pgp_key", "OpenPGP key."),
    Field::str("encoded_token", "From root generation.").secret(),
    Field::new("standbyok", Kind::Any, "A standby counts as active."),
    Field::new("perfstandbyok", Kind::Any, "A performance standby counts as active."),
    Field::int("activecode", "Status when active."),
    Field::int("standbycode", "Status when standby."),
    Field::int("drsecondarycode", "Status of a DR secondary."),
    Field::int("performancestandbycode", "Status of a performance standby."),
    Field::int("haunhealthycode", "Status when unhealthy."),
    Field::int("removedcode", "Status when removed."),
    Field::int("sealedcode", "Status when sealed."),
    Field::int("uninitcode", "Status when not initialised."),
];

impl Owner {
    /// Answers a control call, or files it to be answered later.
    pub(crate) fn control(
        &mut self,
        shard: ShardId,
        ticket: Ticket,
        call: ControlCall,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let args = match Args::parse(FIELDS, &[], call.data.clone()) {
            Ok(a) => a,
            Err(e) if call.endpoint == Endpoint::Health => {
                let _ = e;
                out.push(OwnerOut::ControlDone(shard, ticket, Reply::error(&Error::bare(Code::Invalid))));
                return;
            }
            Err(e) => {
                out.push(OwnerOut::ControlDone(shard, ticket, Reply::error(&e)));
                return;
            }
        };
        let asker = (shard, ticket);
        let writes = matches!(call.op, Operation::Update | Operation::Create);
        let answer = match call.endpoint {
            Endpoint::Init if writes => self.init(asker, &args, rng, out),
            Endpoint::Init if call.op == Operation::Read => {
                Some(json_reply(&json!({"initialized": self.facts_initialized()})))
            }
            Endpoint::SealStatus if call.op == Operation::Read => Some(json_reply(&self.seal_status())),
            Endpoint::Unseal if writes => self.unseal(asker, &args, rng, out),
            Endpoint::Health if matches!(call.op, Operation::Read | Operation::Header) => {
                Some(self.health(&args, call.op))
            }
            Endpoint::Leader if call.op == Operation::Read => Some(json_reply(&self.leader())),
            Endpoint::DecodeToken if writes => Some(decode(&args)),
            Endpoint::RecoveryRekey => Some(match self.keys.is_some() {
                true => Reply::error(&Error::invalid("recovery rekeying not supported")),
                false => sealed(),
            }),
            Endpoint::RaftJoin if writes => Some(self.join()),
            Endpoint::RekeyInit
            | Endpoint::RekeyUpdate
            | Endpoint::RekeyVerify
            | Endpoint::GenerateRootAttempt
            | Endpoint::GenerateRootUpdate => {
                if self.keys.is_none() {
                    Some(sealed())
                } else if !self.vault.settings.unauthenticated_key_endpoints {
                    Some(Reply::error(&Error::unsupported_path()))
                } else {
                    self.ceremony(asker, &call, &args, rng, out)
                }
            }
            _ => Some(unsupported()),
        };
        if let Some(reply) = answer {
            out.push(OwnerOut::ControlDone(shard, ticket, reply));
        }
    }

    fn facts_initialized(&self) -> bool {
        self.has_member() && self.seal.initialized(&self.version)
    }

    fn init(
        &mut self,
        asker: (ShardId, Ticket),
        args: &Args,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Option<Reply> {
        if self.facts_initialized() {
            return Some(refused(&SealError::AlreadyInitialized));
        }
        if self.has_member() {
            return Some(Reply::error(&Error::invalid("Vault is being initialized on another node")));
        }
        let given = |names: &[&'static str]| names.iter().any(|n| args.supplied(n) && args.int(n) != 0);
        if given(&["recovery_shares", "recovery_threshold"]) || !args.list("recovery_pgp_keys").is_empty() {
            return Some(Reply::error(&Error::invalid(
                "parameters recovery_shares,recovery_threshold,recovery_pgp_keys not applicable to seal type shamir",
            )));
        }
        match self.prepare_init(args, rng) {
            Ok((finished, reply, cluster)) => {
                self.bootstrap(cluster, out);
                self.seal.pending_init = Some(PendingInit { finished, asker, reply });
                self.try_pending(rng, out);
                None
            }
            Err(reply) => Some(reply),
        }
    }

    /// Keys, shares, default mounts and root token as one batch, and the answer that shows the shares.
    fn prepare_init(&mut self, args: &Args, rng: &mut dyn Entropy) -> Result<(Finished, Reply, [u8; 16]), Reply> {
        let now = self.now.wall;
        let params = init::InitParams {
            secret_shares: args.int("secret_shares"),
            secret_threshold: args.int("secret_threshold"),
            pgp_keys: args.list("pgp_keys"),
            root_token_pgp_key: args.opt_str("root_token_pgp_key").filter(|k| !k.is_empty()).map(str::to_owned),
            node: self.config.node_id.clone(),
        };
        let made = init::run(&params, &self.version, self.seal.provider, now, rng).map_err(|e| refused(&e))?;
        let init::Initialized { records, shares, unsealed, mut issuer, root_token_key } = made;
        let keyring = unsealed.keyring().clone();
        let mut sealer = issuer.sealer(&keyring);
        let mut txn = Txn::new(&self.version, Some(&keyring));
        records.write(&mut txn);
        let mut cluster = [0u8; 16];
        rng.fill(&mut cluster);
        let root_token = (|| -> Result<String, Error> {
            let first = bootstrap::first_records(&mut txn, rng, now, self.config.cluster_name.as_deref())?;
            let router = Router::default();
            let (token, _) = mint::root(&mut txn, &keyring, &router, rng, first.token_mount, now, 0, None)?;
            match &root_token_key {
                None => Ok(token),
                Some(key) => {
                    use base64::Engine;
                    let cipher = key.encrypt(token.as_bytes(), rng).map_err(|e| Error::invalid(e.to_string()))?;
                    Ok(base64::engine::general_purpose::STANDARD.encode(cipher))
                }
            }
        })()
        .map_err(|e| Reply::error(&e))?;
        let finished =
            txn.finish(&mut sealer, now).map_err(|e| Reply::error(&Error::internal(format!("init: {e}"))))?;
        let reply = json_reply(&json!({
            "keys": shares.hex(), "keys_base64": shares.base64(), "root_token": root_token,
        }));
        Ok((finished, reply, cluster))
    }

    /// Goes on with what waited for this node to lead.
    pub(crate) fn try_pending(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        if !self.is_active() {
            return;
        }
        if let Some(p) = self.seal.pending_init.take() {
            let PendingInit { finished, asker, reply } = p;
            // nothing else can write before init, so the empty image it was read from is still the truth
            let finished = Finished { reads: ReadSet::default(), read_index: self.version.index(), ..finished };
            if let Err((settled, purpose)) = self.propose_own(finished, Purpose::Init(asker.0, asker.1, reply)) {
                self.own_settled(settled, purpose, rng, out);
            }
        }
        self.activate(rng, out);
    }

    /// Registers an issuer for an unsealed node that leads and has none yet.
    fn activate(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        if self.seal.unsealed.is_none() || self.keys.is_some() || self.seal.issuing.is_some() || !self.is_active() {
            return;
        }
        self.register_issuer(Purpose::Unseal, rng, out);
    }

    fn register_issuer(&mut self, purpose: Purpose, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let Some(unsealed) = &self.seal.unsealed else { return };
        let keyring = unsealed.keyring().clone();
        let now = self.now.wall;
        let version = self.version.clone();
        let mut txn = Txn::new(&version, Some(&keyring));
        let issuer = Issuer::register(&mut txn, &self.config.node_id, now, rng);
        match txn.finish_clear(now) {
            Ok(finished) => {
                self.seal.issuing = Some(issuer);
                if let Err((settled, purpose)) = self.propose_own(finished, purpose) {
                    self.own_settled(settled, purpose, rng, out);
                }
            }
            Err(e) => out.push(OwnerOut::Log(Level::Error, format!("an issuer cannot be registered: {e}"))),
        }
    }

    /// The registered issuer becomes the one in force: each core gets its own licence with the next cell.
    fn adopt_issuer(&mut self) {
        let (Some(issuer), Some(unsealed)) = (self.seal.issuing.take(), &self.seal.unsealed) else { return };
        let keyring = unsealed.keyring().clone();
        let cores = self.config.shards;
        let licences = Arc::new(Licences::new(issuer, &keyring, cores as usize + 1));
        self.seal.sealer = licences.take(cores).map(|s| Rc::new(RefCell::new(s)));
        self.seal.issued_at = self.now.mono;
        self.keys = Some(Keys { keyring, licences });
        self.mark_dirty();
    }

    fn unseal(
        &mut self,
        asker: (ShardId, Ticket),
        args: &Args,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Option<Reply> {
        if !self.facts_initialized() {
            return Some(refused(&SealError::NotInitialized));
        }
        if args.bool("reset") {
            if self.keys.is_some() {
                return Some(refused(&SealError::Unsealed));
            }
            self.seal.unseal.reset();
            return Some(json_reply(&self.seal_status()));
        }
        let text = args.str("key");
        if text.is_empty() {
            return Some(refused(&SealError::MissingKey));
        }
        if self.keys.is_some() {
            return Some(json_reply(&self.seal_status()));
        }
        if args.bool("migrate") {
            return Some(Reply::error(&Error::invalid("can't perform a seal migration, no migration seal found")));
        }
        let share = match parse_share(text) {
            Ok(s) => s,
            Err(e) => return Some(refused(&e)),
        };
        match self.seal.unseal.submit(&share, &self.version, self.seal.provider, rng) {
            Err(e) => Some(refused(&e)),
            Ok(UnsealStep::Waiting) => Some(json_reply(&self.seal_status())),
            Ok(UnsealStep::Opened(unsealed)) => {
                self.seal.unsealed = Some(*unsealed);
                self.seal.core_at = self.version.changed(TABLE_CORE, None);
                self.seal.waiting_unseal.push(asker);
                self.activate(rng, out);
                None
            }
        }
    }

    /// What happens when a batch of the owner's own is committed, or is not.
    pub(crate) fn own_settled(
        &mut self,
        settled: Settled,
        purpose: Purpose,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let committed = matches!(settled, Settled::Committed(_));
        let failed = || Reply::error(&Error::internal(format!("the write was not done: {settled:?}")));
        match purpose {
            Purpose::Init(shard, ticket, reply) => {
                self.mark_dirty();
                out.push(OwnerOut::ControlDone(shard, ticket, if committed { reply } else { failed() }));
            }
            Purpose::Unseal if committed => {
                self.adopt_issuer();
                self.become_unsealed(rng, out);
            }
            Purpose::Unseal => {
                self.seal.issuing = None;
                out.push(OwnerOut::Log(Level::Warn, format!("the issuer was not registered: {settled:?}")));
                if settled != Settled::Refused {
                    for (shard, ticket) in std::mem::take(&mut self.seal.waiting_unseal) {
                        out.push(OwnerOut::ControlDone(shard, ticket, failed()));
                    }
                }
            }
            Purpose::Reissue if committed => self.adopt_issuer(),
            Purpose::Reissue => self.seal.issuing = None,
            Purpose::Operate(shard, ticket, result) => {
                self.refresh_keyring(out);
                let result = if committed { result } else { not_done(settled) };
                out.push(OwnerOut::OperateDone(shard, ticket, result));
            }
            Purpose::Control(shard, ticket, reply) => {
                self.refresh_keyring(out);
                out.push(OwnerOut::ControlDone(shard, ticket, if committed { reply } else { failed() }));
            }
            Purpose::Keyring => self.refresh_keyring(out),
            Purpose::Lease => self.lease_settled(committed, rng, out),
        }
    }

    fn become_unsealed(&mut self, _rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let Some(keys) = &self.keys else { return };
        let facts = {
            let mut txn = Txn::new(&self.version, Some(&keys.keyring));
            bootstrap::cluster_facts(&mut txn)
        };
        match facts {
            Ok(f) => {
                let facts = crate::cell::Facts { cluster_name: f.name, cluster_id: f.id, ..(*self.facts).clone() };
                self.facts = Arc::new(facts);
            }
            Err(e) => out.push(OwnerOut::Log(Level::Error, format!("the cluster's record cannot be read: {e}"))),
        }
        self.seal.active_since = Some(self.now.wall);
        self.seal.core = Some(CoreState::new(self.vault.clone()));
        self.lease_begin();
        self.mark_dirty();
        // the cell first: whoever hears of the unseal finds the node open
        self.publish_if_needed(out);
        let status = json_reply(&self.seal_status());
        for (shard, ticket) in std::mem::take(&mut self.seal.waiting_unseal) {
            out.push(OwnerOut::ControlDone(shard, ticket, status.clone()));
        }
        for (shard, ticket) in std::mem::take(&mut self.seal.waiting_restore) {
            out.push(OwnerOut::OperateDone(shard, ticket, SideResult::Json(Value::Null)));
        }
        out.push(OwnerOut::Log(Level::Info, "vault is unsealed".into()));
    }

    /// Follows a rotation or rekey that was applied.
    fn refresh_keyring(&mut self, out: &mut Vec<OwnerOut>) {
        let at = self.version.changed(TABLE_CORE, None);
        if at == self.seal.core_at {
            return;
        }
        self.seal.core_at = at;
        let Some(unsealed) = &self.seal.unsealed else { return };
        match unsealed.refresh(&self.version) {
            Ok(next) => {
                if let Some(k) = &mut self.keys {
                    k.keyring = next.keyring().clone();
                }
                self.seal.unsealed = Some(next);
                self.mark_dirty();
            }
            Err(e) => {
                out.push(OwnerOut::Log(
                    Level::Error,
                    format!("the new keyring cannot be opened, sealing: {}", e.text()),
                ));
                self.seal_now(None, out);
            }
        }
    }

    /// Drops every key of this process. The asker is answered when every core has said that its keyring is gone.
    pub(crate) fn seal_now(&mut self, asker: Option<(ShardId, Ticket)>, out: &mut Vec<OwnerOut>) {
        self.keys = None;
        self.seal = SealState::sealed(self.seal.provider);
        self.lease_end();
        self.mark_dirty();
        self.publish_if_needed(out);
        let sequence = self.sequence();
        out.push(OwnerOut::Withdraw(sequence));
        let holding = (0..self.config.shards).map(ShardId).collect();
        self.seal.sealing = Some(Sealing { sequence, asker, holding });
        out.push(OwnerOut::Log(Level::Info, "vault is sealed".into()));
    }

    pub(crate) fn withdrawn(&mut self, shard: ShardId, sequence: u64, out: &mut Vec<OwnerOut>) {
        let Some(s) = &mut self.seal.sealing else { return };
        if sequence >= s.sequence {
            s.holding.retain(|h| *h != shard);
        }
        if s.holding.is_empty()
            && let Some(Sealing { asker: Some((shard, ticket)), .. }) = self.seal.sealing.take()
        {
            out.push(OwnerOut::OperateDone(shard, ticket, SideResult::Json(Value::Null)));
        }
    }

    /// Performs an operation that a handler asked for; the caller's policies allowed it.
    pub(crate) fn operate(
        &mut self,
        shard: ShardId,
        ticket: Ticket,
        op: OwnerOp,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let done = match op {
            OwnerOp::Seal => {
                self.seal_now(Some((shard, ticket)), out);
                return;
            }
            // a lone voter gives leadership up to itself: nothing changes
            OwnerOp::StepDown => SideResult::Json(Value::Null),
            OwnerOp::Rotate => {
                self.rotate(Purpose::Operate(shard, ticket, SideResult::Json(Value::Null)), rng, out);
                return;
            }
            OwnerOp::RotateConfig { enabled, max_operations, interval } => {
                let config = RotateConfig { enabled, max_operations, interval_seconds: interval };
                match config.check() {
                    Err(e) => SideResult::Refused(Error::invalid(e.text())),
                    Ok(()) => {
                        let purpose = Purpose::Operate(shard, ticket, SideResult::Json(Value::Null));
                        self.write_clear(
                            vec![(ringfence_barrier::ROTATE_CONFIG.to_vec(), config.encode())],
                            purpose,
                            rng,
                            out,
                        );
                        return;
                    }
                }
            }
            OwnerOp::KeyStatus => self.key_status(),
            OwnerOp::RaftConfiguration => SideResult::Json(self.raft_configuration()),
            OwnerOp::SnapshotSave | OwnerOp::SnapshotRestore { .. } => {
                self.snapshot(shard, ticket, op, rng, out);
                return;
            }
            OwnerOp::Named(name, argument) => {
                self.named(shard, ticket, name, argument, rng, out);
                return;
            }
        };
        out.push(OwnerOut::OperateDone(shard, ticket, done));
    }

    fn named(
        &mut self,
        shard: ShardId,
        ticket: Ticket,
        name: &'static str,
        argument: Value,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let done = match name {
            "rekey-backup" => match ShareBackup::load(&self.version) {
                Err(e) => SideResult::Refused(Error::invalid(e.text())),
                Ok(b) => SideResult::Json(backup_json(&b)),
            },
            "rekey-backup-delete" => {
                let purpose = Purpose::Operate(shard, ticket, SideResult::Json(Value::Null));
                self.write_records(ShareBackup::removal(), purpose, rng, out);
                return;
            }
            "ha-status" => SideResult::Json(self.ha_status()),
            "autopilot-state" => SideResult::Json(self.autopilot_state()),
            // the rest is the server's: it knows machine, process, sinks and counters
            _ => {
                out.push(OwnerOut::Serve(shard, ticket, name, argument));
                return;
            }
        };
        out.push(OwnerOut::OperateDone(shard, ticket, done));
    }

    fn key_status(&mut self) -> SideResult {
        let Some(keys) = &self.keys else {
            return SideResult::Refused(Error::new(Code::Unavailable, "Vault is sealed"));
        };
        let term = keys.keyring.active_term();
        let usage = Usage::load(&self.version, term);
        let config = RotateConfig::load(&self.version).unwrap_or_default();
        SideResult::Json(json!({
            "term": term,
            "install_time": keys.keyring.active_since().rfc3339(),
            "encryptions": usage.encryptions,
            "enabled": config.enabled, "max_operations": config.max_operations, "interval": config.interval_seconds,
        }))
    }

    fn rotate(&mut self, purpose: Purpose, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let Some(unsealed) = &self.seal.unsealed else { return };
        let records = rotate::rotate(unsealed, self.now.wall, rng);
        self.write_records(records, purpose, rng, out);
    }

    /// Writes core records under the present keyring.
    fn write_records(
        &mut self,
        records: KeyRecords,
        purpose: Purpose,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let (Some(keys), Some(sealer)) = (self.keys.clone(), self.seal.sealer.clone()) else { return };
        let version = self.version.clone();
        let mut txn = Txn::new(&version, Some(&keys.keyring));
        records.write(&mut txn);
        let finished = txn.finish(&mut sealer.borrow_mut(), self.now.wall);
        self.propose_records(finished, purpose, rng, out);
    }

    fn write_clear(
        &mut self,
        rows: Vec<(Vec<u8>, Vec<u8>)>,
        purpose: Purpose,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let version = self.version.clone();
        let mut txn = Txn::new(&version, None);
        for (k, v) in rows {
            txn.put_clear(k, v);
        }
        let finished = txn.finish_clear(self.now.wall);
        self.propose_records(finished, purpose, rng, out);
    }

    fn propose_records(
        &mut self,
        finished: Result<Finished, ringfence_barrier::BarrierError>,
        purpose: Purpose,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let outcome = match finished {
            Ok(f) => self.propose_own(f, purpose),
            Err(e) => {
                out.push(OwnerOut::Log(Level::Error, format!("key records cannot be written: {e}")));
                Err((Settled::Refused, purpose))
            }
        };
        if let Err((settled, purpose)) = outcome {
            self.own_settled(settled, purpose, rng, out);
        }
    }

    /// Time passes while this node is active: issuers are redrawn, rotation is looked at.
    pub(crate) fn seal_tick(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        self.try_pending(rng, out);
        if self.keys.is_none() {
            return;
        }
        if self.seal.issuing.is_none() && self.now.mono.since(self.seal.issued_at) >= REISSUE_NS {
            self.register_issuer(Purpose::Reissue, rng, out);
            self.count_usage(rng, out);
        }
    }

    /// Writes how often the term has sealed, and rotates if it is time.
    fn count_usage(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let Some(keys) = &self.keys else { return };
        let term = keys.keyring.active_term();
        let installed = keys.keyring.active_since();
        let sealed_since = std::mem::take(&mut self.encryptions);
        let mut usage = Usage::load(&self.version, term);
        usage.encryptions += sealed_since;
        let due =
            RotateConfig::load(&self.version).is_ok_and(|c| c.is_due(usage.encryptions, installed, self.now.wall));
        if due {
            self.rotate(Purpose::Keyring, rng, out);
        } else if sealed_since > 0 {
            self.write_clear(vec![(ringfence_barrier::USAGE.to_vec(), usage.encode())], Purpose::Keyring, rng, out);
        }
    }

    /// Rekey and root generation.
    fn ceremony(
        &mut self,
        asker: (ShardId, Ticket),
        call: &ControlCall,
        args: &Args,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Option<Reply> {
        match self.try_ceremony(asker, call, args, rng, out) {
            Ok(answer) => answer,
            Err(e) => Some(refused(&e)),
        }
    }

    fn try_ceremony(
        &mut self,
        asker: (ShardId, Ticket),
        call: &ControlCall,
        args: &Args,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Result<Option<Reply>, SealError> {
        let writes = matches!(call.op, Operation::Update | Operation::Create);
        let version = self.version.clone();
        Ok(match (call.endpoint, call.op) {
            (Endpoint::RekeyInit, Operation::Read) => {
                Some(json_reply(&rekey_json(&self.seal.rekey.status(&version)?)))
            }
            (Endpoint::RekeyInit, _) if writes => {
                let params = RekeyParams {
                    secret_shares: args.int("secret_shares"),
                    secret_threshold: args.int("secret_threshold"),
                    pgp_keys: args.list("pgp_keys"),
                    backup: args.bool("backup"),
                    require_verification: args.bool("require_verification"),
                };
                Some(json_reply(&rekey_json(&self.seal.rekey.start(&params, &version, rng)?)))
            }
            (Endpoint::RekeyInit, Operation::Delete) => {
                self.seal.rekey.cancel();
                Some(Reply::empty(Code::NoContent))
            }
            (Endpoint::RekeyUpdate, _) if writes => {
                let share = parse_share(args.str("key"))?;
                let Some(unsealed) = &self.seal.unsealed else { return Ok(Some(sealed())) };
                match self.seal.rekey.update(&share, args.str("nonce"), unsealed, &version, rng)? {
                    RekeyStep::Waiting(s) => Some(json_reply(&rekey_json(&s))),
                    RekeyStep::Complete { nonce, shares, backup, verification_nonce, records } => {
                        let mut v = json!({
                            "nonce": nonce, "complete": true, "keys": shares.hex(), "keys_base64": shares.base64(),
                            "pgp_fingerprints": none_if_empty(&shares.fingerprints), "backup": backup,
                            "verification_required": verification_nonce.is_some(),
                        });
                        if let Some(n) = verification_nonce {
                            v["verification_nonce"] = n.into();
                        }
                        self.conclude(asker, records, json_reply(&v), rng, out)
                    }
                }
            }
            (Endpoint::RekeyVerify, Operation::Read) => {
                Some(json_reply(&verify_json(&self.seal.rekey.verify_status())))
            }
            (Endpoint::RekeyVerify, Operation::Delete) => {
                Some(json_reply(&verify_json(&self.seal.rekey.restart_verification(rng)?)))
            }
            (Endpoint::RekeyVerify, _) if writes => {
                let share = parse_share(args.str("key"))?;
                let Some(unsealed) = &self.seal.unsealed else { return Ok(Some(sealed())) };
                match self.seal.rekey.verify(&share, args.str("nonce"), unsealed, rng)? {
                    RekeyVerifyStep::Waiting(s) => Some(json_reply(&verify_json(&s))),
                    RekeyVerifyStep::Complete { nonce, records } => {
                        let reply = json_reply(&json!({"nonce": nonce, "complete": true}));
                        self.conclude(asker, Some(records), reply, rng, out)
                    }
                }
            }
            (Endpoint::GenerateRootAttempt, Operation::Read) => {
                Some(json_reply(&generate_json(&self.seal.generate.status(&version)?, None)))
            }
            (Endpoint::GenerateRootAttempt, _) if writes => {
                let params = GenerateParams {
                    pgp_key: args.opt_str("pgp_key").map(str::to_owned),
                    otp: args.opt_str("otp").map(str::to_owned),
                };
                Some(json_reply(&generate_json(&self.seal.generate.start(&params, &version, rng)?, None)))
            }
            (Endpoint::GenerateRootAttempt, Operation::Delete) => {
                self.seal.generate.cancel();
                Some(Reply::empty(Code::NoContent))
            }
            (Endpoint::GenerateRootUpdate, _) if writes => {
                let share = parse_share(args.str("key"))?;
                let Some(unsealed) = &self.seal.unsealed else { return Ok(Some(sealed())) };
                match self.seal.generate.update(&share, args.str("nonce"), unsealed, &version)? {
                    GenerateStep::Waiting(s) => Some(json_reply(&generate_json(&s, None))),
                    GenerateStep::Mint(request) => self.mint_root(asker, &request, rng, out)?,
                }
            }
            _ => Some(unsupported()),
        })
    }

    /// Answers once the records, if any, are committed.
    fn conclude(
        &mut self,
        asker: (ShardId, Ticket),
        records: Option<KeyRecords>,
        reply: Reply,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Option<Reply> {
        match records {
            None => Some(reply),
            Some(r) => {
                self.write_records(r, Purpose::Control(asker.0, asker.1, reply), rng, out);
                None
            }
        }
    }

    fn mint_root(
        &mut self,
        asker: (ShardId, Ticket),
        request: &ringfence_barrier::RootTokenRequest,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Result<Option<Reply>, SealError> {
        let (Some(keys), Some(sealer), Some(core)) =
            (self.keys.clone(), self.seal.sealer.clone(), self.seal.core.clone())
        else {
            return Ok(Some(sealed()));
        };
        let now = self.log_now();
        let version = self.version.clone();
        let mut txn = Txn::new(&version, Some(&keys.keyring));
        let minted = (|| -> Result<String, Error> {
            let router = core.caches.borrow_mut().router(&mut txn, &core.vault.settings.ttls)?;
            let mount = router
                .at(ringfence_base::NsId::ROOT, "auth/token/")
                .map(|m| m.entry.id)
                .ok_or_else(|| Error::internal("no token mount"))?;
            Ok(mint::root(&mut txn, &keys.keyring, &router, rng, mount, now, 0, None)?.0)
        })();
        let token = match minted {
            Ok(t) => t,
            Err(e) => return Ok(Some(Reply::error(&e))),
        };
        let encoded = request.encode(&token, rng)?;
        let status = ringfence_barrier::GenerateStatus {
            nonce: request.nonce.clone(),
            started: true,
            progress: request.required as usize,
            required: request.required,
            pgp_fingerprint: request.pgp_fingerprint.clone(),
            otp: String::new(),
            otp_length: ringfence_barrier::OTP_LENGTH,
        };
        let reply = json_reply(&generate_json(&status, Some(&encoded)));
        let finished = txn.finish(&mut sealer.borrow_mut(), now);
        self.propose_records(finished, Purpose::Control(asker.0, asker.1, reply), rng, out);
        Ok(None)
    }

    fn join(&self) -> Reply {
        if self.facts_initialized() {
            return json_reply(&json!({"joined": true}));
        }
        Reply::error(&Error::new(Code::Internal, "joining a raft cluster is not served yet: initialise this node"))
    }

    /// Opens the keyring of a restored image by the unseal key held.
    pub(crate) fn reopen_keys(&mut self) -> bool {
        let next = self.seal.unsealed.as_ref().and_then(|u| u.reopen(&self.version).ok());
        self.seal.core_at = self.version.changed(TABLE_CORE, None);
        match next {
            Some(next) => {
                self.seal.unsealed = Some(next);
                true
            }
            None => false,
        }
    }

    /// After a restore: the issuer in force is not known to the restored image, so nothing may be sealed under it.
    pub(crate) fn seal_or_reissue(
        &mut self,
        reopened: bool,
        asker: (ShardId, Ticket),
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        if !reopened {
            self.seal_now(Some(asker), out);
            return;
        }
        self.seal.waiting_restore.push(asker);
        self.keys = None;
        self.seal.sealer = None;
        self.seal.issuing = None;
        self.lease_end();
        self.mark_dirty();
        self.publish_if_needed(out);
        self.try_pending(rng, out);
    }

    /// The keys in force, while unsealed.
    pub(crate) fn unsealed(&self) -> Option<&Unsealed> {
        self.seal.unsealed.as_ref().filter(|_| self.keys.is_some())
    }

    /// `sys/seal-status`.
    pub(crate) fn seal_status(&self) -> Value {
        let settings = &self.vault.settings;
        let config = if self.has_member() { SealConfig::load(&self.version).ok().flatten() } else { None };
        let sealed = self.keys.is_none();
        let mut v = json!({
            "type": config.as_ref().map_or("shamir", |c| c.kind.name()),
            "initialized": config.is_some(),
            "sealed": sealed,
            "t": config.as_ref().map_or(0, |c| c.threshold),
            "n": config.as_ref().map_or(0, |c| c.shares),
            "progress": if sealed { self.seal.unseal.progress() } else { 0 },
            "nonce": if sealed { self.seal.unseal.nonce() } else { "" },
            "version": settings.api_version,
            "ringfence_version": settings.own_version,
            "build_date": settings.build_date,
            "migration": false,
            "recovery_seal": false,
            "storage_type": settings.storage_type,
            "removed_from_cluster": false,
        });
        if !sealed {
            v["cluster_name"] = self.facts.cluster_name.clone().into();
            v["cluster_id"] = self.facts.cluster_id.clone().into();
        }
        v
    }

    fn health(&self, args: &Args, op: Operation) -> Reply {
        let number = |name: &str, preset: u16| match args.opt_int(name) {
            None => Ok(preset),
            Some(n) => u16::try_from(n).ok().filter(|n| (100..1000).contains(n)).ok_or(()),
        };
        let flag = |name: &str| match args.json(name) {
            None => Ok(false),
            Some(Value::Bool(b)) => Ok(*b),
            Some(Value::String(s)) => ringfence_logical::args::parse_bool(s).ok_or(()),
            Some(_) => Err(()),
        };
        let chosen = (|| -> Result<u16, ()> {
            let codes = (number("activecode", 200)?, number("standbycode", 429)?, number("sealedcode", 503)?);
            let uninit = number("uninitcode", 501)?;
            let standby_ok = flag("standbyok")?;
            flag("perfstandbyok")?;
            Ok(if !self.facts_initialized() {
                uninit
            } else if self.keys.is_none() {
                codes.2
            } else if self.is_active() || standby_ok {
                codes.0
            } else {
                codes.1
            })
        })();
        let Ok(code) = chosen else { return Reply::error(&Error::bare(Code::Invalid)) };
        let settings = &self.vault.settings;
        let sealed = self.keys.is_none();
        let mut v = json!({
            "initialized": self.facts_initialized(),
            "sealed": sealed,
            "standby": !self.is_active(),
            "performance_standby": false,
            "replication_performance_mode": if sealed { "unknown" } else { "disabled" },
            "replication_dr_mode": if sealed { "unknown" } else { "disabled" },
            "server_time_utc": self.now.wall.seconds(),
            "version": settings.api_version,
            "ringfence_version": settings.own_version,
            "enterprise": false,
            "echo_duration_ms": 0,
            "clock_skew_ms": 0,
            "replication_primary_canary_age_ms": 0,
            "removed_from_cluster": false,
        });
        if !sealed {
            v["cluster_name"] = self.facts.cluster_name.clone().into();
            v["cluster_id"] = self.facts.cluster_id.clone().into();
        }
        let mut reply = json_reply(&v);
        if op == Operation::Header {
            reply.body = Body::Empty;
        }
        reply.code = if code == 200 { Code::Ok } else { Code::Custom(code) };
        reply
    }

    fn leader(&self) -> Value {
        let active = self.is_active() && self.keys.is_some();
        let status = self.raft_status();
        let since = self.seal.active_since.filter(|_| active);
        json!({
            "ha_enabled": true,
            "is_self": active,
            "active_time": since.map_or("0001-01-01T00:00:00Z".to_owned(), Wall::rfc3339),
            "leader_address": if active { self.config.api_addr.as_str() } else { "" },
            "leader_cluster_address": if active { self.config.cluster_addr.as_str() } else { "" },
            "performance_standby": false,
            "performance_standby_last_remote_wal": 0,
            "raft_committed_index": status.as_ref().map_or(0, |s| s.committed.0),
            "raft_applied_index": status.as_ref().map_or(0, |s| s.applied.0),
        })
    }

    fn ha_status(&self) -> Value {
        json!({"nodes": [{
            "hostname": self.config.node_id,
            "api_address": self.config.api_addr,
            "cluster_address": self.config.cluster_addr,
            "active_node": self.is_active(),
            "last_echo": Value::Null,
            "echo_duration_ms": 0,
            "clock_skew_ms": 0,
            "version": self.vault.settings.api_version,
            "upgrade_version": self.vault.settings.api_version,
            "redundancy_zone": "",
        }]})
    }

    fn raft_configuration(&self) -> Value {
        json!({"config": {"index": 0, "servers": [{
            "address": strip_scheme(&self.config.cluster_addr),
            "leader": self.is_active(),
            "node_id": self.config.node_id,
            "protocol_version": "3",
            "voter": true,
        }]}})
    }

    fn autopilot_state(&self) -> Value {
        let (node, status) = (&self.config.node_id, self.raft_status());
        let server = json!({
            "id": node, "name": node, "address": strip_scheme(&self.config.cluster_addr), "node_status": "alive",
            "last_contact": "0s",
            "last_term": status.as_ref().map_or(0, |s| s.role.term.0),
            "last_index": status.as_ref().map_or(0, |s| s.last.0),
            "healthy": true, "stable_since": self.seal.active_since.unwrap_or(self.now.wall).rfc3339(),
            "status": "leader", "version": self.vault.settings.api_version, "node_type": "voter", "meta": Value::Null,
        });
        let mut servers = Map::new();
        servers.insert(node.clone(), server);
        json!({
            "healthy": true, "failure_tolerance": 0, "servers": servers, "leader": node, "voters": [node],
            "non_voters": Value::Null, "optimistic_failure_tolerance": 0,
        })
    }
}

fn sealed() -> Reply {
    Reply::error(&Error::new(Code::Unavailable, "Vault is sealed"))
}

fn not_done(settled: Settled) -> SideResult {
    SideResult::Refused(match settled {
        Settled::Refused => Error::new(Code::Unavailable, "another change came first; try again"),
        _ => Error::internal(format!("the write was not done: {settled:?}")),
    })
}

fn strip_scheme(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest)
}

fn none_if_empty(list: &[String]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn rekey_json(s: &ringfence_barrier::RekeyStatus) -> Value {
    let mut v = json!({
        "nonce": s.nonce, "started": s.started, "t": s.t, "n": s.n, "progress": s.progress, "required": s.required,
        "pgp_fingerprints": none_if_empty(&s.pgp_fingerprints), "backup": s.backup,
        "verification_required": s.verification_required,
    });
    if let Some(n) = &s.verification_nonce {
        v["verification_nonce"] = n.clone().into();
    }
    v
}

fn verify_json(s: &ringfence_barrier::RekeyVerifyStatus) -> Value {
    json!({"nonce": s.nonce, "started": s.started, "t": s.t, "n": s.n, "progress": s.progress})
}

fn generate_json(s: &ringfence_barrier::GenerateStatus, encoded: Option<&str>) -> Value {
    json!({
        "nonce": s.nonce, "started": s.started, "progress": s.progress, "required": s.required,
        "complete": encoded.is_some(), "encoded_token": encoded.unwrap_or(""),
        "encoded_root_token": encoded.unwrap_or(""), "pgp_fingerprint": s.pgp_fingerprint, "otp": s.otp,
        "otp_length": s.otp_length,
    })
}

fn backup_json(b: &ShareBackup) -> Value {
    use base64::Engine;
    let (mut hexes, mut b64s) = (Map::new(), Map::new());
    for (fingerprint, share) in &b.keys {
        let add = |m: &mut Map, v: String| match m.entry(fingerprint.clone()).or_insert_with(|| json!([])) {
            Value::Array(a) => a.push(v.into()),
            other => *other = json!([v]),
        };
        add(&mut hexes, hex::encode(share));
        add(&mut b64s, base64::engine::general_purpose::STANDARD.encode(share));
    }
    json!({"nonce": b.nonce, "keys": hexes, "keys_base64": b64s})
}

fn decode(args: &Args) -> Reply {
    match decode_token(args.str("encoded_token"), args.str("otp")) {
        Ok(token) => json_reply(&json!({"token": token})),
        Err(e) => refused(&e),
    }
}

/// A fresh UUID, for what the server names itself.
pub fn fresh_id(rng: &mut dyn Entropy) -> String {
    entropy::uuid4(rng)
}
