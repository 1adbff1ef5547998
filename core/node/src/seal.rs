//! The owner's seal: init, unseal, seal, and what handlers ask of the owner. The state machines themselves are the
//! barrier's; here they meet the log, the cell and the API's words. Ceremonies of an unsealed node stand in
//! [`crate::ceremony`], what anybody may ask in [`crate::status`].

use crate::cell::{Keys, Licences};
use crate::ceremony::decode;
use crate::control::{ControlCall, Endpoint};
use crate::owner::{Level, Owner, OwnerOut, Purpose, ShardId};
use crate::shard::{Settled, Ticket};
use ringfence_barrier::rotate::RotateConfig;
use ringfence_barrier::{
    Finished, GenerateRoot, Issuer, ReadSet, Rekey, SealConfig, SealError, Sealer, ShareBackup, TABLE_CORE, Txn,
    Unseal, UnsealStep, Unsealed, init, parse_share,
};
use ringfence_base::{Code, Entropy, Index, Mono, Wall};
use ringfence_crypto::Provider;
use ringfence_logical::{Args, Error, Field, Kind, Map, Operation, OwnerOp, SideResult};
use ringfence_store::Version;
use ringfence_vault::call::Reply;
use ringfence_vault::host::CoreState;
use ringfence_vault::mount::Router;
use ringfence_vault::sys::bootstrap;
use ringfence_vault::token::mint;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// A new issuer is drawn this often, ns: it narrows the window in which a resumed memory image could repeat nonces.
pub(crate) const REISSUE_NS: u64 = 300 * 1_000_000_000;
/// After an issuer could not be registered (a full disk, a lost election) it is tried again after a second, then after
/// twice as long each time, up to this, ns.
const MAX_ISSUE_PAUSE_NS: u64 = 8 * 1_000_000_000;
const FIRST_ISSUE_PAUSE_NS: u64 = 1_000_000_000;

/// Everything of the seal that lives in this process only.
#[derive(Default)]
pub struct SealState {
    pub(crate) unseal: Unseal,
    pub(crate) rekey: Rekey,
    pub(crate) generate: GenerateRoot,
    pub(crate) unsealed: Option<Unsealed>,
    /// Index of the core table at which `unsealed` was read.
    pub(crate) core_at: Index,
    issuing: Option<Issuer>,
    issuing_since: Mono,
    issued_at: Mono,
    /// No issuer is registered before this.
    issue_after: Mono,
    /// How long the next pause is, ns; 0 = none has failed.
    issue_pause: u64,
    /// Calls of `sys/unseal` that came before the log was applied to its committed end, oldest first.
    waiting_shares: Vec<((ShardId, Ticket), Args)>,
    waiting_unseal: Vec<(ShardId, Ticket)>,
    waiting_restore: Vec<(ShardId, Ticket)>,
    pending_init: Option<PendingInit>,
    sealing: Option<Sealing>,
    pub(crate) active_since: Option<Wall>,
    pub(crate) core: Option<Rc<CoreState>>,
    pub(crate) sealer: Option<Rc<RefCell<Sealer>>>,
    pub(crate) provider: Provider,
}

/// Shares that wait for the log at once; more than any seal has.
const MAX_WAITING_SHARES: usize = 256;

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

pub(crate) fn refused(e: &SealError) -> Reply {
    let code = if *e == SealError::Corrupt { Code::Internal } else { Code::Invalid };
    Reply::error(&Error::new(code, e.text()))
}

pub(crate) fn json_reply(v: &Value) -> Reply {
    let mut body = serde_json::to_vec(v).expect("a JSON tree always serialises");
    body.push(b'\n');
    Reply::json(Code::Ok, body)
}

pub(crate) fn unsupported() -> Reply {
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
    Field::str("leader_api_addr", "Node of the cluster to join."),
    Field::str("leader_ca_cert", "PEM certificates to trust."),
    Field::str("leader_client_cert", "PEM certificate to show."),
    Field::str("leader_client_key", "Its key.").secret(),
    Field::str("leader_tls_servername", "Name to expect in the certificate."),
    Field::bool("retry", "Try until it succeeds."),
    Field::bool("non_voter", "Join without a vote."),
    Field::str("auto_join", "Where to find nodes: provider=dns name=<host>."),
    Field::str("auto_join_scheme", "Scheme of the nodes that are found; https if not set."),
    Field::int("auto_join_port", "Their port; 8200 if not set."),
    Field::str("server_id", "Name of the node that joins."),
    Field::str("answer", "To the challenge."),
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
            Endpoint::DecodeToken if writes => Some(decode(&args, rng)),
            Endpoint::RecoveryRekey => Some(match !self.is_sealed() {
                true => Reply::error(&Error::invalid("recovery rekeying not supported")),
                false => sealed(),
            }),
            Endpoint::RaftJoin if writes => self.join(asker, &args, rng, out),
            Endpoint::RaftChallenge if writes => Some(self.give_challenge(&args, rng)),
            Endpoint::RaftAnswer if writes => self.take_answer(asker, &args, rng, out),
            Endpoint::RekeyInit
            | Endpoint::RekeyUpdate
            | Endpoint::RekeyVerify
            | Endpoint::GenerateRootAttempt
            | Endpoint::GenerateRootUpdate => {
                if self.is_sealed() {
                    Some(sealed())
                } else if self.keys.is_none() {
                    Some(not_active())
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

    pub(crate) fn facts_initialized(&self) -> bool {
        self.is_challenged() || (self.has_member() && self.seal.initialized(&self.version))
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
                self.bootstrap(cluster, rng, out);
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
        for (asker, args) in std::mem::take(&mut self.seal.waiting_shares) {
            if let Some(reply) = self.unseal(asker, &args, rng, out) {
                out.push(OwnerOut::ControlDone(asker.0, asker.1, reply));
            }
        }
        self.activate(rng, out);
    }

    /// Registers an issuer for an unsealed node that leads and has none yet.
    fn activate(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        if self.seal.unsealed.is_none() || self.keys.is_some() || self.seal.issuing.is_some() || !self.is_active() {
            return;
        }
        if self.now.mono >= self.seal.issue_after {
            self.register_issuer(Purpose::Unseal, rng, out);
        }
    }

    pub(crate) fn register_issuer(&mut self, purpose: Purpose, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let Some(unsealed) = &self.seal.unsealed else { return };
        // taken back when this one is adopted
        let pause = self.seal.issue_pause.max(FIRST_ISSUE_PAUSE_NS);
        self.seal.issue_after = Mono(self.now.mono.0.saturating_add(pause));
        self.seal.issue_pause = pause.saturating_mul(2).min(MAX_ISSUE_PAUSE_NS);
        let keyring = unsealed.keyring().clone();
        let now = self.now.wall;
        let version = self.version.clone();
        let mut txn = Txn::new(&version, Some(&keyring));
        let issuer = Issuer::register(&mut txn, &self.config.node_id, now, rng);
        match txn.finish_clear(now) {
            Ok(finished) => {
                self.seal.issuing = Some(issuer);
                self.seal.issuing_since = self.now.mono;
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
        self.licence_count += 1;
        let licences = Arc::new(Licences::new(issuer, &keyring, cores as usize + 1, self.licence_count));
        self.seal.sealer = licences.take(cores).map(|s| Rc::new(RefCell::new(s)));
        self.seal.issued_at = self.now.mono;
        (self.seal.issue_after, self.seal.issue_pause) = (Mono(0), 0);
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
        if self.has_member() && self.is_lone_voter() && !self.is_active() {
            // the last entries of the log may not be applied yet, a rekey among them: the seal's configuration of before
            // it would be opened by shares that are worth nothing any more, and would refuse the new ones
            if self.seal.waiting_shares.len() >= MAX_WAITING_SHARES {
                return Some(Reply::error(&Error::new(Code::Unavailable, "the log is being read; try again")));
            }
            self.seal.waiting_shares.push((asker, args.clone()));
            return None;
        }
        if !self.facts_initialized() {
            return Some(refused(&SealError::NotInitialized));
        }
        if self.is_challenged() {
            return self.unseal_to_join(asker, args, rng, out);
        }
        if args.bool("reset") {
            if !self.is_sealed() {
                return Some(refused(&SealError::Unsealed));
            }
            self.seal.unseal.reset();
            return Some(json_reply(&self.seal_status()));
        }
        let text = args.str("key");
        if text.is_empty() {
            return Some(refused(&SealError::MissingKey));
        }
        let share = match parse_share(text) {
            Ok(s) => s,
            Err(e) => return Some(refused(&e)),
        };
        if !self.is_sealed() {
            return Some(json_reply(&self.seal_status()));
        }
        if args.bool("migrate") {
            return Some(Reply::error(&Error::invalid("can't perform a seal migration, no migration seal found")));
        }
        match self.seal.unseal.submit(&share, &self.version, self.seal.provider, rng) {
            Err(e) => Some(refused(&e)),
            Ok(UnsealStep::Waiting) => Some(json_reply(&self.seal_status())),
            Ok(UnsealStep::Opened(unsealed)) => {
                self.seal.unsealed = Some(*unsealed);
                self.seal.core_at = self.version.changed(TABLE_CORE, None);
                if !self.is_lone_voter() && !self.is_active() {
                    // a standby has keys and waits for its turn
                    self.know_cluster(out);
                    self.mark_dirty();
                    self.publish_if_needed(out);
                    out.push(OwnerOut::Log(Level::Info, "vault is unsealed and stands by".into()));
                    return Some(json_reply(&self.seal_status()));
                }
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
                    let standby = !self.is_sealed();
                    for (shard, ticket) in std::mem::take(&mut self.seal.waiting_unseal) {
                        let reply = if standby { json_reply(&self.seal_status()) } else { failed() };
                        out.push(OwnerOut::ControlDone(shard, ticket, reply));
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
            // looked at again before long
            Purpose::Members | Purpose::Activity => {}
            Purpose::Restore => self.staged(committed, out),
            Purpose::Lease => self.lease_settled(committed, rng, out),
        }
    }

    /// Reads the cluster's name and id.
    pub(crate) fn know_cluster(&mut self, out: &mut Vec<OwnerOut>) {
        let Some(unsealed) = &self.seal.unsealed else { return };
        match bootstrap::cluster_facts(&mut Txn::new(&self.version, Some(unsealed.keyring()))) {
            Ok(f) => {
                let facts = crate::cell::Facts { cluster_name: f.name, cluster_id: f.id, ..(*self.facts).clone() };
                self.facts = Arc::new(facts);
            }
            Err(e) => out.push(OwnerOut::Log(Level::Error, format!("the cluster's record cannot be read: {e}"))),
        }
    }

    /// Follows rotations and rekeys that another node made.
    pub(crate) fn follow_keyring(&mut self, out: &mut Vec<OwnerOut>) {
        if self.seal.unsealed.is_some() {
            self.refresh_keyring(out);
        }
    }

    /// This node does not lead any more: what it sealed under is void, and everything in hand is put down. The keyring
    /// stays, so that it can take over again.
    pub(crate) fn withdraw_keys(&mut self, out: &mut Vec<OwnerOut>) {
        self.keys = None;
        self.seal.sealer = None;
        self.seal.issuing = None;
        self.seal.core = None;
        self.seal.rekey = Rekey::default();
        self.seal.generate = GenerateRoot::default();
        // the image was replaced, whoever leads now
        for (shard, ticket) in std::mem::take(&mut self.seal.waiting_restore) {
            out.push(OwnerOut::OperateDone(shard, ticket, SideResult::Json(Value::Null)));
        }
        if self.seal.active_since.take().is_some() {
            out.push(OwnerOut::Log(Level::Info, "this node is not active any more".into()));
        }
        self.lease_end();
        self.mark_dirty();
    }

    fn become_unsealed(&mut self, _rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        if self.keys.is_none() {
            return;
        }
        self.know_cluster(out);
        // a quorum took the issuer's entry after it was proposed
        self.extend_lease(self.seal.issuing_since);
        // what a core read before this, perhaps of an image that a restore has replaced, is run again
        self.reset_window();
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
    pub(crate) fn refresh_keyring(&mut self, out: &mut Vec<OwnerOut>) {
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
                if let Some(k) = &mut self.standby.keys {
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
        // the lead goes to a node that has keys, if there is one
        self.hand_over(out);
        self.keys = None;
        self.stand_by_no_more();
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
            OwnerOp::StepDown => {
                self.step_down(out);
                SideResult::Json(Value::Null)
            }
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
            OwnerOp::SnapshotSave | OwnerOp::SnapshotRestore { .. } | OwnerOp::SnapshotKeep(_) => {
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
            "remove-peer" => return self.remove_peer((shard, ticket), &argument, rng, out),
            "promote" => return self.set_voter((shard, ticket), &argument, true, rng, out),
            "demote" => return self.set_voter((shard, ticket), &argument, false, rng, out),
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

    /// Time passes while this node is active: issuers are redrawn, rotation is looked at.
    pub(crate) fn seal_tick(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        self.try_pending(rng, out);
        if self.keys.is_none() {
            return;
        }
        let due = self.now.mono.since(self.seal.issued_at) >= REISSUE_NS && self.now.mono >= self.seal.issue_after;
        if self.seal.issuing.is_none() && due {
            self.register_issuer(Purpose::Reissue, rng, out);
            self.count_usage(rng, out);
        }
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
        self.reissue(Some(asker), rng, out);
    }

    /// The active node's image is another one: nothing is sealed before a new issuer stands in it.
    pub(crate) fn reissue(
        &mut self,
        asker: Option<(ShardId, Ticket)>,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        self.seal.waiting_restore.extend(asker);
        self.keys = None;
        self.seal.sealer = None;
        self.seal.issuing = None;
        (self.seal.issue_after, self.seal.issue_pause) = (Mono(0), 0);
        self.lease_end();
        self.mark_dirty();
        self.publish_if_needed(out);
        self.try_pending(rng, out);
    }

    /// The keys in force, while unsealed.
    pub(crate) fn unsealed(&self) -> Option<&Unsealed> {
        self.seal.unsealed.as_ref().filter(|_| self.keys.is_some())
    }
}

pub(crate) fn not_active() -> Reply {
    Reply::error(&Error::new(Code::Internal, "local node not active but active cluster node not found"))
}

pub(crate) fn sealed() -> Reply {
    Reply::error(&Error::new(Code::Unavailable, "Vault is sealed"))
}

fn not_done(settled: Settled) -> SideResult {
    SideResult::Refused(match settled {
        Settled::Refused => Error::new(Code::Unavailable, "another change came first; try again"),
        _ => Error::internal(format!("the write was not done: {settled:?}")),
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
