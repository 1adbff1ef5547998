//! Raft messages between members, in a bounded codec of our own. No protobuf is parsed from peers' bytes.
//!
//! ```text
//! u8 version (1)   u8 type   num to   num from   num term   then by type:
//!   append               num log_term, index, commit; entries
//!   append response      num log_term, index, commit, reject_hint, request_snapshot; bool reject
//!   vote, pre-vote       num log_term, index, commit, commit_term; bool transfer
//!   their responses      num commit, commit_term; bool reject
//!   snapshot             num index, term; configuration; bytes manifest
//!   heartbeat            num commit; bytes context
//!   heartbeat response   num commit; bytes context
//!   timeout now          nothing
//!   read index           bytes context
//!   read index response  num index; bytes context
//! entries: num count, then each: u8 kind (0 entry, 1 membership), num term, num index, bytes body
//! configuration: four lists (num count, nums): voters, learners, outgoing voters, next learners; bool auto_leave
//! num: LEB128 in its shortest form; bytes: num length, then the bytes
//! ```
//! A decoded message is also *sound*: ids, terms and indexes are in range, entries ascend without gaps and end at the
//! message's term, a configuration is one that raft can restore. So nothing a peer sends can trip an assertion
//! inside raft. Local messages, proposals and transfers do not exist on the wire: they cannot be forwarded.

use crate::conf::{self, ConfState, MAX_MEMBERS};
use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};
use ringfence_base::limit::{MAX_BATCH_BYTES, MAX_FRAME_BYTES};
use ringfence_base::{CodecError, Reader, Writer};

const VERSION: u8 = 1;
/// Most bytes of entries that are put into one message unless a single entry is larger.
pub const MESSAGE_SOFT_MAX: u64 = 1024 * 1024;
/// Largest encoded message.
pub const MAX_MESSAGE_BYTES: usize = MAX_FRAME_BYTES + MESSAGE_SOFT_MAX as usize;
/// Largest checkpoint manifest.
pub const MAX_MANIFEST_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of a read index' context: raft id of the asker and its own number.
const READ_CONTEXT: usize = 16;
/// What raft writes into a vote request that was asked for by the old leader.
const TRANSFER: &[u8] = b"CampaignTransfer";

const _: () = assert!(MAX_MANIFEST_BYTES + 64 * 1024 < MAX_MESSAGE_BYTES);

/// Why a message was refused. It had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Not in the format above.
    Malformed(CodecError),
    /// Well formed, but says what no correct member says.
    Unsound,
    /// For another member, or not from the peer it came from.
    WrongParty,
    /// From a peer outside the configuration, or for a role this member is not in now. Ordinary around changes.
    NotExpected,
    /// The leader knows entries to be durable here that are not: this directory lost acknowledged entries, or is an
    /// older copy. It must not go on as this member.
    LostEntries,
    /// The member halted.
    Halted,
}

impl From<CodecError> for WireError {
    fn from(e: CodecError) -> Self {
        WireError::Malformed(e)
    }
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WireError::Malformed(e) => write!(f, "malformed raft message: {e}"),
            WireError::Unsound => f.write_str("raft message contradicts itself"),
            WireError::WrongParty => f.write_str("raft message for or from another member"),
            WireError::NotExpected => f.write_str("raft message not expected now"),
            WireError::LostEntries => f.write_str("the leader knows of entries that this directory has lost"),
            WireError::Halted => f.write_str("this member has halted"),
        }
    }
}

impl std::error::Error for WireError {}

/// What a message asks of the connection that carries it; from its type byte alone, so any bytes are safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Heartbeats, votes and answers: never to wait behind others.
    Light,
    /// Entries.
    Heavy,
    /// A checkpoint's offer: how its sending ended is to be reported by [`crate::Member::snapshot_sent`].
    Offer,
}

/// The weight of an encoded message.
pub fn weight(bytes: &[u8]) -> Weight {
    match bytes.get(1) {
        Some(1) => Weight::Heavy,
        Some(7) => Weight::Offer,
        _ => Weight::Light,
    }
}

fn type_tag(t: MessageType) -> Option<u8> {
    Some(match t {
        MessageType::MsgAppend => 1,
        MessageType::MsgAppendResponse => 2,
        MessageType::MsgRequestVote => 3,
        MessageType::MsgRequestVoteResponse => 4,
        MessageType::MsgRequestPreVote => 5,
        MessageType::MsgRequestPreVoteResponse => 6,
        MessageType::MsgSnapshot => 7,
        MessageType::MsgHeartbeat => 8,
        MessageType::MsgHeartbeatResponse => 9,
        MessageType::MsgTimeoutNow => 10,
        MessageType::MsgReadIndex => 11,
        MessageType::MsgReadIndexResp => 12,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => return None,
    })
}

const TYPES: [MessageType; 12] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
];

/// Encodes a message; `None` for a type that must not leave this member.
pub fn encode(m: &Message) -> Option<Vec<u8>> {
    let body: usize = m.entries.iter().map(|e| e.data.len() + 24).sum();
    let mut w = Writer::over(Vec::with_capacity(64 + body + m.get_snapshot().data.len()));
    w.u8(VERSION).u8(type_tag(m.get_msg_type())?).num(m.to).num(m.from).num(m.term);
    match m.get_msg_type() {
        MessageType::MsgAppend => {
            w.num(m.log_term).num(m.index).num(m.commit);
            w.num(m.entries.len() as u64);
            for e in &m.entries {
                w.u8((e.get_entry_type() != EntryType::EntryNormal) as u8);
                w.num(e.term).num(e.index).bytes(&e.data);
            }
        }
        MessageType::MsgAppendResponse => {
            w.num(m.log_term).num(m.index).num(m.commit).num(m.reject_hint).num(m.request_snapshot).bool(m.reject);
        }
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
            w.num(m.log_term).num(m.index).num(m.commit).num(m.commit_term).bool(!m.context.is_empty());
        }
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => {
            w.num(m.commit).num(m.commit_term).bool(m.reject);
        }
        MessageType::MsgSnapshot => {
            let metadata = m.get_snapshot().get_metadata();
            w.num(metadata.index).num(metadata.term);
            let conf = ConfState::from_raft(metadata.get_conf_state());
            for list in [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next] {
                w.num(list.len() as u64);
                list.iter().for_each(|&id| {
                    w.num(id);
                });
            }
            w.bool(conf.auto_leave).bytes(&m.get_snapshot().data);
        }
        MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse => {
            w.num(m.commit).bytes(&m.context);
        }
        MessageType::MsgReadIndex => {
            w.bytes(&m.entries.first()?.data);
        }
        MessageType::MsgReadIndexResp => {
            w.num(m.index).bytes(&m.entries.first()?.data);
        }
        _ => {}
    }
    Some(w.finish())
}

/// Decodes and checks a message.
pub fn decode(bytes: &[u8]) -> Result<Message, WireError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(CodecError::TooLong.into());
    }
    let mut r = Reader::new(bytes);
    match r.u8()? {
        VERSION => {}
        other => return Err(CodecError::BadTag(other).into()),
    }
    let tag = r.u8()?;
    let kind = TYPES.get((tag as usize).wrapping_sub(1)).ok_or(CodecError::BadTag(tag))?;
    let mut m = Message::default();
    m.set_msg_type(*kind);
    m.to = r.num()?;
    m.from = r.num()?;
    m.term = bounded(r.num()?)?;
    match kind {
        MessageType::MsgAppend => {
            m.log_term = bounded(r.num()?)?;
            m.index = bounded(r.num()?)?;
            m.commit = bounded(r.num()?)?;
            decode_entries(&mut r, &mut m)?;
        }
        MessageType::MsgAppendResponse => {
            m.log_term = bounded(r.num()?)?;
            m.index = bounded(r.num()?)?;
            m.commit = bounded(r.num()?)?;
            m.reject_hint = bounded(r.num()?)?;
            m.request_snapshot = bounded(r.num()?)?;
            m.reject = r.bool()?;
        }
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
            m.log_term = bounded(r.num()?)?;
            m.index = bounded(r.num()?)?;
            m.commit = bounded(r.num()?)?;
            m.commit_term = bounded(r.num()?)?;
            if r.bool()? {
                m.context = Bytes::from_static(TRANSFER);
            }
        }
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => {
            m.commit = bounded(r.num()?)?;
            m.commit_term = bounded(r.num()?)?;
            m.reject = r.bool()?;
        }
        MessageType::MsgSnapshot => m.set_snapshot(decode_snapshot(&mut r)?),
        MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse => {
            m.commit = bounded(r.num()?)?;
            m.context = decode_context(&mut r, true)?;
        }
        MessageType::MsgReadIndex => m.mut_entries().push(read_entry(decode_context(&mut r, false)?)),
        MessageType::MsgReadIndexResp => {
            m.index = bounded(r.num()?)?;
            m.mut_entries().push(read_entry(decode_context(&mut r, false)?));
        }
        _ => {}
    }
    r.end()?;
    // a read index travels without a term; every other message without one would count as raft's own
    let termless = *kind == MessageType::MsgReadIndex;
    if m.from == 0 || m.to == 0 || m.from == m.to || (m.term == 0) != termless {
        return Err(WireError::Unsound);
    }
    Ok(m)
}

/// Terms and indexes leave room for arithmetic: no cluster lives to see 2^56 of anything.
fn bounded(v: u64) -> Result<u64, WireError> {
    if v < 1 << 56 { Ok(v) } else { Err(CodecError::BadNumber.into()) }
}

fn read_entry(context: Bytes) -> Entry {
    Entry { data: context, ..Default::default() }
}

fn decode_context(r: &mut Reader<'_>, may_be_empty: bool) -> Result<Bytes, WireError> {
    let context = r.bytes(READ_CONTEXT)?;
    let sound = context.len() == READ_CONTEXT || (may_be_empty && context.is_empty());
    if sound { Ok(Bytes::copy_from_slice(context)) } else { Err(WireError::Unsound) }
}

fn decode_entries(r: &mut Reader<'_>, m: &mut Message) -> Result<(), WireError> {
    let count = r.num()?;
    // an entry takes at least four bytes
    if count > r.rest().len() as u64 / 4 {
        return Err(CodecError::Truncated.into());
    }
    // the empty log matches index 0 and term 0 alone; term 0 elsewhere would match past the end
    if (m.index == 0) != (m.log_term == 0) || m.log_term > m.term {
        return Err(WireError::Unsound);
    }
    let (mut term, mut index) = (m.log_term.max(1), m.index);
    for _ in 0..count {
        let mut e = Entry::default();
        let membership = r.bool()?;
        e.term = r.num()?;
        e.index = r.num()?;
        let body = r.bytes(MAX_BATCH_BYTES)?;
        if e.term < term || e.term > m.term || e.index != index + 1 {
            return Err(WireError::Unsound);
        }
        if membership {
            conf::decode(body)?;
            e.set_entry_type(EntryType::EntryConfChangeV2);
        }
        e.data = Bytes::copy_from_slice(body);
        (term, index) = (e.term, e.index);
        m.mut_entries().push(e);
    }
    Ok(())
}

fn decode_snapshot(r: &mut Reader<'_>) -> Result<Snapshot, WireError> {
    let mut s = Snapshot::default();
    let (index, term) = (bounded(r.num()?)?, bounded(r.num()?)?);
    let mut lists: [Vec<u64>; 4] = Default::default();
    for list in &mut lists {
        let count = r.num()?;
        if count > MAX_MEMBERS as u64 {
            return Err(CodecError::TooLong.into());
        }
        for _ in 0..count {
            list.push(r.num()?);
        }
    }
    let [voters, learners, voters_outgoing, learners_next] = lists;
    let conf = ConfState { voters, learners, voters_outgoing, learners_next, auto_leave: r.bool()? };
    if index == 0 || term == 0 || conf.voters.is_empty() || !conf.is_sound() {
        return Err(WireError::Unsound);
    }
    s.data = Bytes::copy_from_slice(r.bytes(MAX_MANIFEST_BYTES)?);
    let metadata = s.mut_metadata();
    metadata.index = index;
    metadata.term = term;
    metadata.set_conf_state(conf.to_raft());
    Ok(s)
}
