//! A member that comes back to its cluster: what it asks the others before it takes part in anything, and what they answer.
//!
//! ```text
//!   whole directory      ── my log ends at n ──────────────>  nothing speaks against it / it is older than what we know
//!   damaged directory    ── I shall be raft id m ──────────>  active node: the old id out of the table, m in, in one batch
//!                        <───────────── taken in: members ──  as soon as that is committed
//! ```
//! Raft survives a member that is silent for ever; it does not survive one that has forgotten what it promised. So a
//! directory that lost anything never speaks again under the id it had: it comes back under a fresh one, empty, and is
//! given the data as any new member. Until then its old vote counts as that of a dead node, so nothing that was
//! acknowledged can be lost by it.
//!
//! Driven by the cluster port, which proves who asks; the process that asks has no member yet. Never touches raft.

use crate::members::{self, MAX_MEMBERS, MemberRecord};
use crate::owner::{Level, Owner, OwnerOut, Purpose};
use ringfence_base::{CodecError, Entropy, Index, Reader, Writer};
use std::collections::BTreeMap;

/// Longest word of a refusal, bytes.
const MAX_WHY_BYTES: usize = 2048;

/// What a member asks that starts again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returning {
    /// The last index of its log; 0 if that is damaged.
    pub last: Index,
    /// Its directory lost something: the raft id to take in place of the one it had.
    pub replace: Option<u64>,
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returned {
    /// It knows nothing that speaks against the directory.
    Fine,
    /// The directory is older than what this node knows of it, for this reason.
    Older(String),
    /// The new id is a member.
    Taken {
        /// The cluster.
        cluster: [u8; 16],
        /// All members.
        members: BTreeMap<u64, MemberRecord>,
    },
    /// Not now, or not by this node: ask again.
    Later,
    /// It would be refused again, for this reason.
    Never(String),
}

impl Returning {
    /// As a frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(1).num(self.last.0).num(self.replace.unwrap_or(0));
        w.finish()
    }

    /// Reads [`Returning::encode`]; any bytes are safe.
    ///
    /// # Errors
    /// Not in that format.
    pub fn decode(bytes: &[u8]) -> Result<Returning, CodecError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            1 => {}
            t => return Err(CodecError::BadTag(t)),
        }
        let returning = Returning { last: Index(r.num()?), replace: Some(r.num()?).filter(|id| *id != 0) };
        r.end()?;
        Ok(returning)
    }
}

impl Returned {
    /// As a frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Returned::Fine => {
                w.u8(1);
            }
            Returned::Older(why) => {
                w.u8(2).text(why);
            }
            Returned::Taken { cluster, members } => {
                w.u8(3).raw(cluster).num(members.len() as u64);
                for (id, record) in members {
                    w.num(*id);
                    record.write(&mut w);
                }
            }
            Returned::Later => {
                w.u8(4);
            }
            Returned::Never(why) => {
                w.u8(5).text(why);
            }
        }
        w.finish()
    }

    /// Reads [`Returned::encode`]; any bytes are safe.
    ///
    /// # Errors
    /// Not in that format.
    pub fn decode(bytes: &[u8]) -> Result<Returned, CodecError> {
        let mut r = Reader::new(bytes);
        let returned = match r.u8()? {
            1 => Returned::Fine,
            2 => Returned::Older(r.text(MAX_WHY_BYTES)?.to_owned()),
            3 => {
                let cluster = r.raw(16)?.try_into().map_err(|_| CodecError::BadNumber)?;
                let count = r.num()?;
                if count > 2 * MAX_MEMBERS as u64 {
                    return Err(CodecError::TooLong);
                }
                let mut members = BTreeMap::new();
                for _ in 0..count {
                    members.insert(r.num()?, MemberRecord::read(&mut r)?);
                }
                Returned::Taken { cluster, members }
            }
            4 => Returned::Later,
            5 => Returned::Never(r.text(MAX_WHY_BYTES)?.to_owned()),
            t => return Err(CodecError::BadTag(t)),
        };
        r.end()?;
        Ok(returned)
    }
}

impl Owner {
    /// Answers a member that starts again; `from` is the raft id it had, as the transport proved.
    pub(crate) fn returning(
        &mut self,
        from: u64,
        asks: &Returning,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Returned {
        let Some(new) = asks.replace else { return self.judge_returning(from, asks.last) };
        let records = members::all(&self.version);
        if records.contains_key(&new) {
            return Returned::Taken { cluster: self.cluster, members: records };
        }
        let Some(record) = records.get(&from) else {
            return match records.is_empty() {
                true => Returned::Later,
                false => Returned::Never(
                    "it was removed from the cluster: to let it join again, empty its data directory".into(),
                ),
            };
        };
        if self.is_active() && from != self.raft_id && !self.members_in_flight() {
            out.push(OwnerOut::Log(
                Level::Warn,
                format!("node {:?} lost data: its old id {from:x} is replaced by {new:x}", record.name),
            ));
            let changes = vec![(from, None), (new, Some(record.clone()))];
            self.write_members(changes, Purpose::Members, rng, out);
        }
        Returned::Later
    }

    /// A leader knows how far each member has acknowledged its log.
    fn judge_returning(&self, from: u64, last: Index) -> Returned {
        let Some(status) = self.raft_status().filter(|s| s.role.ready) else { return Returned::Fine };
        match status.peers.iter().find(|(id, ..)| *id == from) {
            Some((_, matched, _)) if *matched > last => Returned::Older(format!(
                "its log ends at index {last}, and it has acknowledged entries up to {matched} to the active node"
            )),
            _ => Returned::Fine,
        }
    }

    /// Begins again as the member that the cluster took in place of the one this directory was.
    pub fn come_back(&mut self, raft_id: u64, members: BTreeMap<u64, MemberRecord>) {
        self.raft_id = raft_id;
        self.join.welcome = members;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_said_survives() {
        for asks in [Returning { last: Index(7), replace: None }, Returning { last: Index(0), replace: Some(9) }] {
            assert_eq!(Returning::decode(&asks.encode()), Ok(asks));
        }
        let record = MemberRecord { name: "b".into(), pins: vec![[7; 32]], ..MemberRecord::default() };
        for said in [
            Returned::Fine,
            Returned::Older("x".into()),
            Returned::Taken { cluster: [3; 16], members: BTreeMap::from([(9, record)]) },
            Returned::Later,
            Returned::Never("y".into()),
        ] {
            assert_eq!(Returned::decode(&said.encode()), Ok(said));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            let _ = Returning::decode(&bytes);
            let _ = Returned::decode(&bytes);
        }
    }
}
