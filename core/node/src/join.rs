//! Joining a cluster: what the joiner does, and what the active node answers. Only a node whose operator has given
//! enough shares of the cluster's unseal key gets in, and only such a node learns anything of the cluster.
//!
//! ```text
//!   joiner                                        active node (any node passes it on)
//!   join ──────── challenge {server_id} ───────>  random bytes under the unseal key, how it is shared
//!   (sealed; shows the cluster's shares)
//!   shares ... open the challenge: this is the key
//!        ──────── challenge {server_id} ───────>  a fresh one
//!        ──────── answer {blob} ───────────────>  opens the blob, compares, writes the member's record
//!   cluster, members  <───────────────── blob ──  when that is committed
//!   learner ──> image ──> opens its keyring ──> unsealed standby ──> voter
//! ```
//! The blobs are sealed by the unseal key, so it does not matter whether the API between the two is encrypted: raft id,
//! addresses and certificate of the joiner cannot be exchanged on the way. Pending challenges are few, short-lived,
//! and good for one answer.
//!
//! Driven by the owner; who asks the other node's API is the server.

use crate::members::{self, MAX_MEMBERS, MemberRecord};
use crate::owner::{Level, Owner, OwnerOut, Purpose, ShardId};
use crate::seal::{json_reply, not_active, refused, sealed};
use crate::shard::Ticket;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringfence_barrier::{BlobPurpose, JoinKey, SealConfig, SealError, SealKind, parse_share};
use ringfence_base::secret::same_bytes;
use ringfence_base::{CodecError, Entropy, Index, Mono, Reader, Secret, Writer, entropy};
use ringfence_logical::{Args, Error};
use ringfence_vault::call::Reply;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Challenges that wait for an answer; a further one takes the place of the oldest. Source: Vault's bound.
const MAX_PENDING: usize = 20;
/// A challenge is good for so long, ns.
const PENDING_NS: u64 = 60 * 1_000_000_000;
/// Between two attempts, ns. Source: Vault's two seconds.
const RETRY_NS: u64 = 2_000_000_000;
/// Whoever gave the last share is answered after so long, even if the image is still on its way, ns.
const WAIT_NS: u64 = 5_000_000_000;
/// Random bytes of a challenge.
const CHALLENGE_BYTES: usize = 24;
/// Largest answer of another node.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

const INVALID_ANSWER: &str = "invalid answer given";
const CHALLENGE_PATH: &str = "sys/storage/raft/bootstrap/challenge";
const ANSWER_PATH: &str = "sys/storage/raft/bootstrap/answer";

/// A node of the cluster to join, and how its API is to be trusted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinTarget {
    /// URL of its API.
    pub api_addr: String,
    /// PEM certificates to trust instead of the machine's.
    pub ca_pem: Option<String>,
    /// PEM certificate to show.
    pub client_cert_pem: Option<String>,
    /// Its key.
    pub client_key_pem: Option<Secret<String>>,
    /// Name to expect in its certificate.
    pub server_name: Option<String>,
    /// The URL's host names several nodes, this one perhaps among them: each of its addresses is asked until one answers
    /// as a node of a cluster.
    pub each_address: bool,
}

/// The URL whose host's addresses `auto_join` tells to ask: `provider=dns name=<host>`, the only provider there is here.
///
/// # Errors
/// What is wrong with it, for an operator.
pub fn discover(auto_join: &str, scheme: &str, port: u16) -> Result<String, String> {
    let mut pairs = BTreeMap::new();
    for word in auto_join.split_whitespace() {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("auto_join: {word:?} is no key=value"))?;
        if pairs.insert(key, value).is_some() {
            return Err(format!("auto_join: {key} is given twice"));
        }
    }
    match pairs.remove("provider") {
        Some("dns") => {}
        Some(other) => {
            return Err(format!(
                "auto_join: the provider {other:?} is not served; use provider=dns name=<host>, or leader_api_addr"
            ));
        }
        None => return Err("auto_join: no provider is given; use provider=dns name=<host>".into()),
    }
    let name = pairs.remove("name").filter(|n| !n.is_empty()).ok_or("auto_join: no name is given to look up")?;
    if let Some(key) = pairs.keys().next() {
        return Err(format!("auto_join: provider=dns knows no {key:?}"));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if name.len() > 253 || !name.bytes().all(plain) {
        return Err(format!("auto_join: {name:?} is no host name"));
    }
    match scheme {
        "http" | "https" => Ok(format!("{scheme}://{name}:{port}")),
        _ => Err("auto_join_scheme must be http or https".into()),
    }
}

/// A question to another node's API.
#[derive(Clone, Debug)]
pub struct JoinAsk {
    /// Whom.
    pub target: JoinTarget,
    /// Path, without `/v1/`.
    pub path: &'static str,
    /// Body.
    pub body: Value,
}

/// Status and body of its answer, or why there is none.
pub type JoinSaid = Result<(u16, Vec<u8>), String>;

/// What the owner knows of joining.
#[derive(Default)]
pub(crate) struct Join {
    /// Nodes to try in turn until one answers.
    targets: Vec<JoinTarget>,
    next: usize,
    not_before: Mono,
    /// Who was asked last.
    current: Option<JoinTarget>,
    /// Number of the question under way; answers to others are of the past.
    asked: Option<u64>,
    count: u64,
    non_voter: bool,
    stage: Stage,
    /// Who waits for a first challenge.
    askers: Vec<(ShardId, Ticket)>,
    /// Who gave the last share, and when they get an answer at the latest.
    unsealers: Vec<(ShardId, Ticket, Mono)>,
    /// The key, until the image has come and its keyring is open.
    key: Option<JoinKey>,
    /// Change of the core table at which that was last tried.
    tried: Option<Index>,
    /// Challenges given out by this node, by the name of who asked, oldest first by age.
    pending: BTreeMap<String, Pending>,
    /// Members as the active node told them, until the image has a table.
    pub(crate) welcome: BTreeMap<u64, MemberRecord>,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    /// A challenge is there: the operator's shares are to open it.
    Challenged(Box<Challenge>),
}

struct Challenge {
    target: JoinTarget,
    config: SealConfig,
    blob: Vec<u8>,
    /// The fresh challenge, opened, is being answered.
    answering: bool,
}

struct Pending {
    secret: [u8; CHALLENGE_BYTES],
    since: Mono,
}

/// What an answer says of the joiner.
struct Candidate {
    challenge: Vec<u8>,
    raft_id: u64,
    record: MemberRecord,
}

impl Candidate {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(1).bytes(&self.challenge).num(self.raft_id);
        self.record.write(&mut w);
        w.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Candidate, CodecError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            1 => {}
            t => return Err(CodecError::BadTag(t)),
        }
        let challenge = r.bytes(CHALLENGE_BYTES)?.to_vec();
        let candidate = Candidate { challenge, raft_id: r.num()?, record: MemberRecord::read(&mut r)? };
        r.end()?;
        Ok(candidate)
    }
}

fn encode_welcome(cluster: [u8; 16], members: &BTreeMap<u64, MemberRecord>) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(1).raw(&cluster).num(members.len() as u64);
    for (id, record) in members {
        w.num(*id);
        record.write(&mut w);
    }
    w.finish()
}

fn decode_welcome(bytes: &[u8]) -> Result<([u8; 16], BTreeMap<u64, MemberRecord>), CodecError> {
    let mut r = Reader::new(bytes);
    match r.u8()? {
        1 => {}
        t => return Err(CodecError::BadTag(t)),
    }
    let cluster = r.raw(16)?.try_into().map_err(|_| CodecError::BadNumber)?;
    let count = r.num()?;
    if count > 2 * MAX_MEMBERS as u64 {
        return Err(CodecError::TooLong);
    }
    let mut members = BTreeMap::new();
    for _ in 0..count {
        members.insert(r.num()?, MemberRecord::read(&mut r)?);
    }
    r.end()?;
    Ok((cluster, members))
}

fn failed(text: impl Into<std::borrow::Cow<'static, str>>) -> Reply {
    Reply::error(&Error::new(ringfence_base::Code::Internal, text))
}

/// The text of a refusal of another node.
fn refusal(status: u16, body: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let texts: Vec<&str> =
        parsed["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).take(4).collect();
    if texts.is_empty() { format!("status {status}") } else { texts.join("; ").chars().take(500).collect() }
}

impl Owner {
    /// Nodes of the configuration to join, tried until one lets this node in.
    pub fn join_by(&mut self, targets: Vec<JoinTarget>, non_voter: bool) {
        self.join.targets = targets;
        self.join.non_voter = non_voter;
    }

    /// Waits for shares that open a challenge.
    pub(crate) fn is_challenged(&self) -> bool {
        matches!(self.join.stage, Stage::Challenged(_))
    }

    /// How the key is shared of the cluster that this node joins.
    pub(crate) fn join_seal_config(&self) -> Option<&SealConfig> {
        match &self.join.stage {
            Stage::Challenged(c) => Some(&c.config),
            Stage::Idle => None,
        }
    }

    /// `sys/storage/raft/join`.
    pub(crate) fn join(
        &mut self,
        asker: (ShardId, Ticket),
        args: &Args,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Option<Reply> {
        if !self.config.clustered {
            return Some(failed("raft storage is not in use"));
        }
        if self.has_member() {
            return Some(json_reply(&json!({"joined": true})));
        }
        let text = |name: &str| Some(args.str(name)).filter(|t| !t.is_empty()).map(str::to_owned);
        let each_address = text("auto_join").is_some();
        let api_addr = match (text("leader_api_addr"), text("auto_join")) {
            (Some(_), Some(_)) => {
                return Some(Reply::error(&Error::invalid("leader_api_addr and auto_join exclude each other")));
            }
            (Some(api_addr), None) => api_addr,
            (None, None) => return Some(Reply::error(&Error::invalid("no leader API address was given"))),
            (None, Some(auto_join)) => {
                let scheme = text("auto_join_scheme").unwrap_or_else(|| "https".to_owned());
                let port = match args.int("auto_join_port") {
                    0 => Some(8200),
                    port => u16::try_from(port).ok(),
                };
                let found = port
                    .ok_or_else(|| "auto_join_port must be a port".to_owned())
                    .and_then(|port| discover(&auto_join, &scheme, port));
                match found {
                    Ok(api_addr) => api_addr,
                    Err(why) => return Some(Reply::error(&Error::invalid(why))),
                }
            }
        };
        let api_addr = api_addr.trim_end_matches('/').to_owned();
        if !api_addr.starts_with("http://") && !api_addr.starts_with("https://") {
            return Some(Reply::error(&Error::invalid(format!(
                "leader_api_addr {api_addr:?} must begin with http:// or https://"
            ))));
        }
        if !each_address && api_addr == self.config.api_addr.trim_end_matches('/') {
            return Some(Reply::error(&Error::invalid(
                "leader_api_addr is this node's own address: name a node of the cluster to join",
            )));
        }
        let target = JoinTarget {
            api_addr,
            ca_pem: text("leader_ca_cert"),
            client_cert_pem: text("leader_client_cert"),
            client_key_pem: text("leader_client_key").map(Secret::new),
            server_name: text("leader_tls_servername"),
            each_address,
        };
        if let Stage::Challenged(c) = &self.join.stage {
            if c.target == target {
                return Some(json_reply(&json!({"joined": true})));
            }
            if c.answering {
                return Some(failed("this node is joining a cluster already"));
            }
            self.join.stage = Stage::Idle;
            self.seal.unseal.reset();
        }
        self.join.non_voter = args.bool("non_voter");
        if args.bool("retry") {
            self.join.targets = vec![target];
            (self.join.next, self.join.not_before) = (0, Mono(0));
            self.join_tick(rng, out);
            return Some(json_reply(&json!({"joined": false})));
        }
        if self.join.askers.len() >= MAX_PENDING {
            return Some(failed("too many joins are under way"));
        }
        self.join.askers.push(asker);
        self.join.targets = Vec::new();
        self.ask_challenge(target, out);
        None
    }

    fn ask(&mut self, target: JoinTarget, path: &'static str, body: Value, out: &mut Vec<OwnerOut>) {
        self.join.count += 1;
        self.join.asked = Some(self.join.count);
        self.join.not_before = self.now.mono.plus_ns(RETRY_NS);
        out.push(OwnerOut::AskLeader(self.join.count, Box::new(JoinAsk { target, path, body })));
    }

    fn ask_challenge(&mut self, target: JoinTarget, out: &mut Vec<OwnerOut>) {
        self.join.current = Some(target.clone());
        self.ask(target, CHALLENGE_PATH, json!({"server_id": self.config.node_id}), out);
    }

    /// Time passes for a joiner.
    pub(crate) fn join_tick(&mut self, _rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let now = self.now.mono;
        if self.join.unsealers.iter().any(|(.., until)| *until <= now) {
            self.answer_unsealers(None, out);
        }
        if self.has_member() || self.join.asked.is_some() || now < self.join.not_before {
            return;
        }
        match &self.join.stage {
            Stage::Challenged(c) if self.join.key.is_some() => {
                let target = c.target.clone();
                self.ask_challenge(target, out);
            }
            Stage::Challenged(_) => {}
            Stage::Idle => {
                let own = self.config.api_addr.trim_end_matches('/');
                let others =
                    self.join.targets.iter().filter(|t| t.each_address || t.api_addr.trim_end_matches('/') != own);
                let others: Vec<&JoinTarget> = others.collect();
                if let Some(target) = others.get(self.join.next % others.len().max(1)).map(|t| (*t).clone()) {
                    self.join.next = self.join.next.wrapping_add(1);
                    self.ask_challenge(target, out);
                }
            }
        }
    }

    /// The other node has answered, or nobody did.
    pub(crate) fn leader_said(
        &mut self,
        number: u64,
        said: JoinSaid,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        if self.join.asked != Some(number) {
            return;
        }
        self.join.asked = None;
        let Some(target) = self.join.current.clone() else { return };
        let at = target.api_addr.clone();
        // an answer that came too late is given again to a fresh challenge: the key is known to be right
        let stale = |body: &[u8]| refusal(0, body).contains(INVALID_ANSWER);
        let is_final = matches!(&said, Ok((400..=499, body)) if !stale(body));
        let data = match said {
            Ok((200, body)) if body.len() <= MAX_ANSWER_BYTES => serde_json::from_slice::<Value>(&body)
                .map(|v| v["data"].clone())
                .map_err(|_| format!("{at} does not answer as a node of a cluster")),
            Ok((status, body)) => Err(format!("{at} refuses: {}", refusal(status, &body))),
            Err(why) => Err(format!("{at} does not answer: {why}")),
        };
        let answering = matches!(&self.join.stage, Stage::Challenged(c) if c.answering);
        let gone_on = data.and_then(|data| match answering {
            true => self.welcomed(&data, rng, out),
            false => self.challenged(target, &data, rng, out),
        });
        if let Err(why) = gone_on {
            self.join_failed(why, is_final, out);
        }
    }

    fn join_failed(&mut self, why: String, is_final: bool, out: &mut Vec<OwnerOut>) {
        out.push(OwnerOut::Log(Level::Warn, format!("joining: {why}")));
        if let Stage::Challenged(c) = &mut self.join.stage {
            c.answering = false;
            if is_final {
                // it would be refused again: the operator has the word
                self.join.key = None;
            }
        }
        if is_final || self.join.key.is_none() {
            self.answer_unsealers(Some(&why), out);
        }
        for (shard, ticket) in std::mem::take(&mut self.join.askers) {
            out.push(OwnerOut::ControlDone(shard, ticket, failed(format!("failed to join raft cluster: {why}"))));
        }
    }

    /// A challenge came: the first, or, the key at hand, the one to be answered.
    fn challenged(
        &mut self,
        target: JoinTarget,
        data: &Value,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Result<(), String> {
        let malformed = || format!("{} sent no challenge that this version knows", target.api_addr);
        let blob = data["challenge"].as_str().and_then(|t| STANDARD.decode(t).ok()).ok_or_else(malformed)?;
        let number = |name: &str| data["seal_config"][name].as_u64().and_then(|n| u8::try_from(n).ok());
        let shares = number("secret_shares").ok_or_else(malformed)?;
        let threshold = number("secret_threshold").ok_or_else(malformed)?;
        if threshold == 0 || threshold > shares {
            return Err(malformed());
        }
        if let Some(key) = self.join.key.clone() {
            let secret = key
                .open_blob(BlobPurpose::JoinChallenge, &blob)
                .map_err(|_| format!("{} has another unseal key", target.api_addr))?;
            if self.raft_id == 0 {
                self.raft_id = crate::owner::fresh_raft_id(rng);
            }
            let record = self.own_record(!self.join.non_voter);
            let candidate = Candidate { challenge: secret.to_vec(), raft_id: self.raft_id, record };
            let answer = key.seal_blob(BlobPurpose::JoinAnswer, &candidate.encode(), rng);
            let body = json!({
                "server_id": self.config.node_id, "answer": STANDARD.encode(answer),
                "cluster_addr": self.config.cluster_addr, "non_voter": self.join.non_voter,
            });
            if let Stage::Challenged(c) = &mut self.join.stage {
                c.answering = true;
            }
            self.ask(target, ANSWER_PATH, body, out);
            return Ok(());
        }
        out.push(OwnerOut::Log(
            Level::Info,
            format!("{} lets this node join; it waits for {threshold} of {shares} shares", target.api_addr),
        ));
        let config =
            SealConfig { kind: SealKind::Shamir, shares, threshold, pgp_fingerprints: Vec::new(), backup: false };
        self.join.stage = Stage::Challenged(Box::new(Challenge { target, config, blob, answering: false }));
        self.seal.unseal.reset();
        self.mark_dirty();
        for (shard, ticket) in std::mem::take(&mut self.join.askers) {
            out.push(OwnerOut::ControlDone(shard, ticket, json_reply(&json!({"joined": true}))));
        }
        Ok(())
    }

    /// A share for the cluster that this node joins.
    pub(crate) fn unseal_to_join(
        &mut self,
        asker: (ShardId, Ticket),
        args: &Args,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Option<Reply> {
        if args.bool("reset") {
            self.seal.unseal.reset();
            return Some(json_reply(&self.seal_status()));
        }
        let text = args.str("key");
        if text.is_empty() {
            return Some(refused(&SealError::MissingKey));
        }
        if self.join.key.is_some() {
            return Some(json_reply(&self.seal_status()));
        }
        let share = match parse_share(text) {
            Ok(s) => s,
            Err(e) => return Some(refused(&e)),
        };
        let Stage::Challenged(c) = &self.join.stage else { return Some(refused(&SealError::NotInitialized)) };
        match self.seal.unseal.submit_to_join(&share, &c.config, &c.blob, self.seal.provider, rng) {
            Err(e) => Some(refused(&e)),
            Ok(None) => Some(json_reply(&self.seal_status())),
            Ok(Some(key)) => {
                let target = c.target.clone();
                self.join.key = Some(key);
                self.join.unsealers.push((asker.0, asker.1, self.now.mono.plus_ns(WAIT_NS)));
                self.ask_challenge(target, out);
                None
            }
        }
    }

    /// The active node took this one in.
    fn welcomed(&mut self, data: &Value, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) -> Result<(), String> {
        let blob = data["welcome"].as_str().and_then(|t| STANDARD.decode(t).ok());
        let opened = self.join.key.as_ref().zip(blob);
        let opened = opened.and_then(|(key, blob)| key.open_blob(BlobPurpose::JoinWelcome, &blob).ok());
        let welcome = opened.and_then(|plain| decode_welcome(&plain).ok());
        let (cluster, members) = welcome.ok_or("the active node's welcome cannot be read")?;
        out.push(OwnerOut::Log(Level::Info, "this node is a member now and waits for the data".into()));
        self.join.stage = Stage::Idle;
        self.join.targets = Vec::new();
        self.join.welcome = members;
        self.join_cluster(cluster, rng, out);
        self.mark_dirty();
        Ok(())
    }

    /// The image that came may hold the keyring: opens it by the key that the operator's shares made.
    pub(crate) fn open_joined(&mut self, out: &mut Vec<OwnerOut>) {
        let Some(key) = &self.join.key else { return };
        let at = self.version.changed(ringfence_barrier::TABLE_CORE, None);
        if self.join.tried == Some(at) || !self.has_member() || self.seal.unsealed.is_some() {
            return;
        }
        self.join.tried = Some(at);
        if let Ok(unsealed) = key.open(&self.version) {
            self.seal.unsealed = Some(unsealed);
            self.seal.core_at = at;
            self.join.key = None;
            self.know_cluster(out);
            self.mark_dirty();
            self.publish_if_needed(out);
            out.push(OwnerOut::Log(Level::Info, "vault is unsealed and stands by".into()));
            self.answer_unsealers(None, out);
        }
    }

    fn answer_unsealers(&mut self, why: Option<&str>, out: &mut Vec<OwnerOut>) {
        for (shard, ticket, _) in std::mem::take(&mut self.join.unsealers) {
            let reply = match why {
                Some(why) => failed(format!("failed to join raft cluster: {why}")),
                None => json_reply(&self.seal_status()),
            };
            out.push(OwnerOut::ControlDone(shard, ticket, reply));
        }
    }

    /// `sys/storage/raft/bootstrap/challenge`, on the active node.
    pub(crate) fn give_challenge(&mut self, args: &Args, rng: &mut dyn Entropy) -> Reply {
        if let Err(reply) = self.may_admit() {
            return reply;
        }
        let name = args.str("server_id");
        if name.is_empty() || name.len() > members::MAX_TEXT_BYTES {
            return Reply::error(&Error::invalid("no server id provided"));
        }
        let (Some(unsealed), Ok(Some(config))) = (self.seal.unsealed.clone(), SealConfig::load(&self.version)) else {
            return sealed();
        };
        let mut secret = [0; CHALLENGE_BYTES];
        rng.fill(&mut secret);
        let now = self.now.mono;
        self.join.pending.retain(|_, p| now.since(p.since) < PENDING_NS);
        if self.join.pending.len() >= MAX_PENDING && !self.join.pending.contains_key(name) {
            let oldest = self.join.pending.iter().min_by_key(|(_, p)| p.since).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.join.pending.remove(&name));
        }
        self.join.pending.insert(name.to_owned(), Pending { secret, since: now });
        let blob = unsealed.seal_blob(BlobPurpose::JoinChallenge, &secret, rng);
        envelope(
            &json!({
                "challenge": STANDARD.encode(blob),
                "seal_config": {
                    "type": config.kind.name(), "secret_shares": config.shares, "secret_threshold": config.threshold,
                    "pgp_keys": null, "nonce": "", "backup": false, "stored_shares": 0, "name": "shamir",
                },
            }),
            rng,
        )
    }

    /// `sys/storage/raft/bootstrap/answer`, on the active node.
    pub(crate) fn take_answer(
        &mut self,
        asker: (ShardId, Ticket),
        args: &Args,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Option<Reply> {
        if let Err(reply) = self.may_admit() {
            return Some(reply);
        }
        let name = args.str("server_id");
        let wrong = || Some(Reply::error(&Error::invalid(INVALID_ANSWER)));
        // one answer a challenge, right or wrong
        let Some(pending) = self.join.pending.remove(name) else { return wrong() };
        if self.now.mono.since(pending.since) >= PENDING_NS {
            return wrong();
        }
        let unsealed = self.seal.unsealed.clone()?;
        let blob = STANDARD.decode(args.str("answer")).unwrap_or_default();
        let Ok(plain) = unsealed.open_blob(BlobPurpose::JoinAnswer, &blob) else { return wrong() };
        let Ok(candidate) = Candidate::decode(&plain) else { return wrong() };
        if !same_bytes(&candidate.challenge, &pending.secret) || candidate.record.name != name {
            return wrong();
        }
        let Candidate { raft_id, record, .. } = candidate;
        if let Err(why) = self.may_join(raft_id, &record) {
            out.push(OwnerOut::Log(Level::Warn, format!("node {name:?} may not join: {why}")));
            return Some(Reply::error(&Error::invalid(why)));
        }
        let mut known = members::all(&self.version);
        known.entry(self.raft_id).or_insert_with(|| self.own_record(true));
        known.retain(|_, r| r.name != record.name);
        known.insert(raft_id, record.clone());
        let peers: Vec<Value> = known
            .values()
            .map(|r| {
                json!({
                    "id": r.name, "address": crate::status::strip_scheme(&r.cluster_addr),
                    "suffrage": if r.voter { 0 } else { 1 },
                })
            })
            .collect();
        let welcome = unsealed.seal_blob(BlobPurpose::JoinWelcome, &encode_welcome(self.cluster, &known), rng);
        let reply = envelope(&json!({"peers": peers, "welcome": STANDARD.encode(welcome)}), rng);
        self.admit(raft_id, record, Purpose::Control(asker.0, asker.1, reply), rng, out);
        None
    }

    /// Whether this node may take others in at all.
    fn may_admit(&self) -> Result<(), Reply> {
        if !self.config.clustered {
            return Err(failed("raft storage is not in use"));
        }
        if self.is_sealed() {
            return Err(sealed());
        }
        if self.keys.is_none() || !self.is_active() {
            return Err(not_active());
        }
        Ok(())
    }

    /// Whether a node that holds the seal may become a member as it says.
    fn may_join(&self, raft_id: u64, record: &MemberRecord) -> Result<(), String> {
        let mut records = members::all(&self.version);
        records.entry(self.raft_id).or_insert_with(|| self.own_record(true));
        if raft_id == 0 || record.pins.is_empty() {
            return Err("the joining node shows no certificate".into());
        }
        if records.get(&raft_id).is_some_and(|r| r.name != record.name) || raft_id == self.raft_id {
            return Err(
                "the joining node's data directory is a copy of another member's: start it with an empty one".into(),
            );
        }
        if record.cluster_addr == self.config.cluster_addr {
            return Err(format!(
                "cluster_addr {} of the joining node is the active node's own: each node needs an address of its own",
                record.cluster_addr
            ));
        }
        let alive = |id: u64| id == self.raft_id || self.is_fresh(id);
        for (_, other) in records.iter().filter(|(id, _)| **id != raft_id && alive(**id)) {
            if other.name == record.name {
                return Err(format!(
                    "node id {:?} is in use by a member that is up (at {}): give the joining node an id of its own",
                    record.name, other.cluster_addr
                ));
            }
            if other.cluster_addr == record.cluster_addr {
                return Err(format!(
                    "cluster_addr {} is in use by member {:?}: give the joining node an address of its own",
                    record.cluster_addr, other.name
                ));
            }
        }
        if records.len() >= MAX_MEMBERS && !records.contains_key(&raft_id) {
            return Err(format!("the cluster has {MAX_MEMBERS} members, which is as many as it may have"));
        }
        Ok(())
    }
}

fn envelope(data: &Value, rng: &mut dyn Entropy) -> Reply {
    json_reply(&json!({
        "request_id": entropy::uuid4(rng), "lease_id": "", "renewable": false, "lease_duration": 0, "data": data,
        "wrap_info": null, "warnings": null, "auth": null, "mount_type": "system",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_and_other_directories_are_told_apart() {
        let url = |text: &str| discover(text, "https", 8200);
        assert_eq!(url("provider=dns name=vault.example"), Ok("https://vault.example:8200".into()));
        assert_eq!(url(" name=a-b_c.example.  provider=dns"), Ok("https://a-b_c.example.:8200".into()));
        for (text, told) in [
            ("", "no provider is given"),
            ("name=a", "no provider is given"),
            ("provider=aws tag_key=a tag_value=b", "the provider \"aws\" is not served"),
            ("provider=dns", "no name is given"),
            ("provider=dns name=", "no name is given"),
            ("provider=dns name=a name=b", "name is given twice"),
            ("provider=dns name=a tag=b", "provider=dns knows no \"tag\""),
            ("provider=dns name=a/b@c", "is no host name"),
            ("dns a", "is no key=value"),
        ] {
            let why = url(text).expect_err(text);
            assert!(why.contains(told), "{text}: {why}");
        }
        assert!(discover("provider=dns name=a", "ftp", 1).is_err());
    }
    use proptest::prelude::*;

    fn record(name: &str) -> MemberRecord {
        MemberRecord { name: name.into(), pins: vec![[7; 32]], voter: true, ..MemberRecord::default() }
    }

    #[test]
    fn what_is_sealed_survives() {
        let c = Candidate { challenge: vec![3; CHALLENGE_BYTES], raft_id: 9, record: record("b") };
        let back = Candidate::decode(&c.encode()).expect("reads");
        assert_eq!((back.challenge, back.raft_id, back.record), (c.challenge, 9, record("b")));
        let members = BTreeMap::from([(1, record("a")), (9, record("b"))]);
        assert_eq!(decode_welcome(&encode_welcome([4; 16], &members)), Ok(([4; 16], members)));
    }

    #[test]
    fn refusals_are_told_in_their_words() {
        assert_eq!(refusal(503, br#"{"errors":["Vault is sealed"]}"#), "Vault is sealed");
        assert_eq!(refusal(502, b"<html>"), "status 502");
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            let _ = Candidate::decode(&bytes);
            let _ = decode_welcome(&bytes);
        }
    }
}
