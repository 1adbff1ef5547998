//! A snapshot restored into a cluster of several nodes: it goes through the log like everything else, so no node is ever
//! given data that a majority does not hold, and every node changes from the old image to the new one at one index.
//!
//! ```text
//!   old rows of the staging table deleted ──> the snapshot's records put there, batch by batch ──> one batch: adopt
//! ```
//! A staged record is its own key behind the table's number. Nobody reads the table; a checkpoint on the way holds it as
//! any other. *Adopt* is a write of one key that every node knows: where it is applied, the staged records become the
//! image, with the members of the present. A read sees the one image or the other, a transaction that read the old one
//! loses. If the lead is lost on the way nothing has happened, and the next leader clears the table away.
//!
//! Until it is over other writes are told to try again. Driven by the owner; the checks of the snapshot are done before.

use crate::owner::{Level, Owner, OwnerOut, Purpose, ShardId};
use crate::shard::{NotDone, Settled, Ticket};
use ringfence_barrier::{Finished, ReadSet};
use ringfence_base::{Code, Entropy, Index, limit};
use ringfence_logical::{Error, SideResult};
use ringfence_store::{Batch, Image, Op, Version};
use ringfence_vault::tables::{ADOPT, NODE, STAGED};
use std::ops::Bound;

/// Records of a batch together, bytes: a few go over a slow link within a heartbeat's time.
const BATCH_BYTES: usize = 1 << 20;
/// Most records of a batch.
const BATCH_RECORDS: usize = 1024;
/// Batches under way.
const IN_FLIGHT: usize = 4;

/// How far it is.
pub(crate) struct Staging {
    /// The image that is to be, checked.
    source: Version,
    stage: Stage,
    in_flight: usize,
}

enum Stage {
    /// What an earlier attempt left is deleted.
    Clearing,
    /// Records up to this key are under way.
    Filling(Vec<u8>),
    /// The last batch is under way.
    Adopting,
}

impl Staging {
    pub(crate) fn new(source: Version) -> Staging {
        Staging { source, stage: Stage::Clearing, in_flight: 0 }
    }
}

/// Keys that can be staged.
pub(crate) fn is_stageable(version: &Version) -> bool {
    version.scan(Bound::Unbounded, Bound::Unbounded).all(|(key, _)| key.len() < limit::MAX_KEY_BYTES)
}

/// Deletes some of what is staged; none if nothing is.
fn clearing(version: &Version) -> Option<Vec<Op>> {
    let ops: Vec<Op> =
        version.scan_prefix(&[STAGED]).take(BATCH_RECORDS).map(|(key, _)| Op::Delete { key: key.to_vec() }).collect();
    (!ops.is_empty()).then_some(ops)
}

/// The next records to stage after a key.
fn filling(source: &Version, after: &[u8]) -> Option<Vec<Op>> {
    let from = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
    let (mut ops, mut bytes) = (Vec::new(), 0);
    for (key, value) in source.scan(from, Bound::Unbounded) {
        ops.push(Op::Put { key: [&[STAGED], key].concat(), value: value.to_vec() });
        bytes += key.len() + value.len();
        if bytes >= BATCH_BYTES || ops.len() >= BATCH_RECORDS {
            break;
        }
    }
    (!ops.is_empty()).then_some(ops)
}

/// True for the batch that makes an image of what is staged.
pub(crate) fn is_adoption(batch: &Batch) -> bool {
    batch.ops.iter().any(|op| op.key() == [ADOPT])
}

/// The image that every node has after the batch at `index` was applied to `image`.
pub(crate) fn adopted(image: &mut Image, index: Index) -> Image {
    let (version, log_time) = (image.publish(), image.log_time());
    let members = version.scan_prefix(&[NODE]);
    let staged = || version.scan_prefix(&[STAGED]).map(|(key, value)| (&key[1..], value));
    let below = staged().take_while(|(key, _)| key.first() < Some(&NODE));
    let above = staged().skip_while(|(key, _)| key.first() <= Some(&NODE));
    let records = below.map(|(k, v)| (k.to_vec(), v.to_vec()));
    let records = records.chain(members.map(|(k, v)| (k.to_vec(), v.to_vec())));
    let records = records.chain(above.map(|(k, v)| (k.to_vec(), v.to_vec())));
    Image::from_sorted(records, index, log_time).expect("three parts of ascending tables, each in order")
}

impl Owner {
    /// Goes on with a restore that goes through the log.
    pub(crate) fn stage_step(&mut self, out: &mut Vec<OwnerOut>) {
        while let Some(s) = self.restore.as_ref().and_then(|r| r.staging.as_ref()) {
            let (ops, next) = match &s.stage {
                Stage::Adopting => return,
                // what is cleared must be seen before more is looked for
                Stage::Clearing if s.in_flight > 0 => return,
                Stage::Clearing => match clearing(&self.version) {
                    Some(ops) => (ops, Stage::Clearing),
                    None => {
                        self.set_stage(Stage::Filling(Vec::new()));
                        continue;
                    }
                },
                Stage::Filling(_) if s.in_flight >= IN_FLIGHT => return,
                Stage::Filling(after) => match filling(&s.source, after) {
                    Some(ops) => {
                        let last = ops.last().map_or(Vec::new(), |op| op.key()[1..].to_vec());
                        (ops, Stage::Filling(last))
                    }
                    None if s.in_flight > 0 => return,
                    None => (vec![Op::Put { key: vec![ADOPT], value: Vec::new() }], Stage::Adopting),
                },
            };
            match self.stage_write(ops) {
                Ok(()) => {
                    self.set_stage(next);
                    if let Some(s) = self.restore.as_mut().and_then(|r| r.staging.as_mut()) {
                        s.in_flight += 1;
                    }
                }
                // tried again at the next tick
                Err(Settled::NotDone(NotDone::Busy)) => return,
                Err(settled) => {
                    let e = match settled {
                        Settled::NotDone(NotDone::NoMemory | NotDone::NoRoom) => Error::new(
                            Code::NoRoom,
                            "there is no room for the restored data beside the present; the present data is unchanged",
                        ),
                        _ => Error::internal("this node lost the lead; the present data is unchanged"),
                    };
                    return self.give_restore_up(e, out);
                }
            }
        }
    }

    fn set_stage(&mut self, stage: Stage) {
        if let Some(s) = self.restore.as_mut().and_then(|r| r.staging.as_mut()) {
            s.stage = stage;
        }
    }

    fn stage_write(&mut self, ops: Vec<Op>) -> Result<(), Settled> {
        let batch = Batch { log_time: self.now.wall, ops };
        let finished = Finished { batch: Some(batch), reads: ReadSet::default(), read_index: self.version.index() };
        self.propose_own(finished, Purpose::Restore).map(|_| ()).map_err(|(settled, _)| settled)
    }

    /// A batch of a restore is committed, or is not.
    pub(crate) fn staged(&mut self, committed: bool, out: &mut Vec<OwnerOut>) {
        if let Some(s) = self.restore.as_mut().and_then(|r| r.staging.as_mut()) {
            s.in_flight = s.in_flight.saturating_sub(1);
            if !committed {
                self.give_restore_up(Error::internal("the restore was not done; the present data is unchanged"), out);
            }
        }
    }

    /// The restore under way comes to nothing here.
    pub(crate) fn give_restore_up(&mut self, e: Error, out: &mut Vec<OwnerOut>) {
        if let Some(r) = self.restore.take() {
            out.push(OwnerOut::OperateDone(r.asker.0, r.asker.1, SideResult::Refused(e)));
        }
    }

    /// The lead is lost. If the last batch was under way nobody knows yet which image stands.
    pub(crate) fn restore_loses_lead(&mut self, out: &mut Vec<OwnerOut>) {
        let adopting = self.restore.as_ref().and_then(|r| r.staging.as_ref());
        let adopting = adopting.is_some_and(|s| matches!(s.stage, Stage::Adopting));
        let text = match adopting {
            true => "this node lost the lead: the outcome of the restore is unknown",
            false => "this node lost the lead; the present data is unchanged",
        };
        self.give_restore_up(Error::internal(text), out);
    }

    /// The leader removes what a restore left behind that came to nothing.
    pub(crate) fn clear_staged(&mut self) {
        if self.restore.is_none()
            && self.waiting_count() == 0
            && let Some(ops) = clearing(&self.version)
        {
            // tried again at the next look
            let _ = self.stage_write(ops);
        }
    }

    /// What was staged has become this node's image: its keyring is opened by the unseal key held. If that does not
    /// open it, the node seals and waits for the keys of the snapshot's cluster.
    pub(crate) fn follow_adoption(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        self.mark_adopted();
        out.push(OwnerOut::Log(Level::Info, "a snapshot was restored".into()));
        let asker: Option<(ShardId, Ticket)> = self.restore.take().map(|r| r.asker);
        let active = self.keys.is_some();
        if self.seal.unsealed.is_none() {
            return;
        }
        let reopened = self.reopen_keys();
        if !reopened {
            out.push(OwnerOut::Log(
                Level::Warn,
                "the snapshot is sealed by other keys: unseal with the keys of its cluster".into(),
            ));
        }
        match reopened {
            false => self.seal_now(asker, out),
            true if active => self.reissue(asker, rng, out),
            true => self.know_cluster(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringfence_base::Wall;
    use std::collections::BTreeMap;

    fn apply(image: &mut Image, index: u64, ops: Vec<Op>) {
        image.apply(Index(index), &Batch { log_time: Wall(index), ops });
    }

    proptest! {
        /// Whatever stood there and whatever comes: after the last batch the image is the snapshot with the members of
        /// the present, and holds nothing of the staging.
        #[test]
        fn an_adopted_image_is_the_snapshot(
            old in prop::collection::btree_map(prop::collection::vec(1u8..0x1d, 1..4), any::<u8>(), 0..30),
            new in prop::collection::btree_map(
                prop::collection::vec(prop_oneof![1u8..0x1d, 0x80u8..0x90], 1..6), any::<u8>(), 0..3000),
        ) {
            let mut image = Image::new();
            let put = |key: &Vec<u8>, v: u8| Op::Put { key: key.clone(), value: vec![v; 700] };
            apply(&mut image, 1, old.iter().map(|(k, v)| put(k, *v)).collect());
            let mut source = Image::new();
            apply(&mut source, 1, new.iter().map(|(k, v)| put(k, *v)).collect());
            let source = source.publish();
            prop_assert!(is_stageable(&source));
            let (mut index, mut after) = (1, Vec::new());
            while let Some(ops) = filling(&source, &after) {
                after = ops.last().expect("not empty").key()[1..].to_vec();
                let batch = Batch { log_time: Wall(0), ops };
                prop_assert!(batch.fits() && !is_adoption(&batch));
                index += 1;
                image.apply(Index(index), &batch);
            }
            let last = Batch { log_time: Wall(0), ops: vec![Op::Put { key: vec![ADOPT], value: Vec::new() }] };
            prop_assert!(is_adoption(&last));
            image.apply(Index(index + 1), &last);
            let version = adopted(&mut image, Index(index + 1)).publish();
            let mut expected: BTreeMap<Vec<u8>, u8> = new.into_iter().filter(|(k, _)| k[0] != NODE).collect();
            expected.extend(old.into_iter().filter(|(k, _)| k[0] == NODE));
            let found: BTreeMap<Vec<u8>, u8> =
                version.scan(Bound::Unbounded, Bound::Unbounded).map(|(k, v)| (k.to_vec(), v[0])).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(version.index(), Index(index + 1));
        }
    }

    #[test]
    fn what_is_left_behind_is_cleared() {
        let mut image = Image::new();
        let put = |n: u32| Op::Put { key: [&[STAGED, 3][..], &n.to_be_bytes()].concat(), value: vec![1] };
        apply(&mut image, 1, (0..3000).map(put).chain([Op::Put { key: vec![3, 1], value: vec![2] }]).collect());
        let mut rounds = 1;
        while let Some(ops) = clearing(&image.publish()) {
            rounds += 1;
            apply(&mut image, rounds, ops);
        }
        assert_eq!((rounds, image.publish().len()), (4, 1));
    }
}
