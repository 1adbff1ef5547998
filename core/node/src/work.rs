//! The owner's hours with leases: it drives the vault's worker between foreground writes, one bounded transaction at
//! a time, and carries its side operations out.

use crate::owner::{Level, Owner, OwnerOut, Purpose};
use ringfence_barrier::Txn;
use ringfence_base::{Entropy, Index, Wall};
use ringfence_logical::{OwnerOp, SideOp, SideResult};
use ringfence_vault::host::ClusterFacts;
use ringfence_vault::lease::work::{WorkStep, Worker};
use ringfence_vault::pipeline::Pass;
use ringfence_vault::tables;
use std::rc::Rc;

/// Foreground writes in flight above which the worker waits.
const YIELD_ABOVE: usize = 32;

/// The worker and what it waits for.
#[derive(Default)]
pub struct LeaseWork {
    worker: Worker,
    /// A transaction of the worker's is in the log.
    committing: bool,
    /// What is to be done outside when it is committed.
    intent: Option<(u64, SideOp)>,
    /// Nothing to do before this log time, unless something is applied.
    wake_at: Option<Wall>,
    idle: bool,
    running: bool,
    /// Where the tombstone table stood when it was last looked at.
    tombstones_at: Index,
}

impl Owner {
    /// Begins with an empty worker: what is left to do stands in the image.
    pub(crate) fn lease_begin(&mut self) {
        self.lease_end();
        self.lease_work.running = true;
    }

    /// The node is sealed: everything in hand is put back.
    pub(crate) fn lease_end(&mut self) {
        self.lease_work.worker.reset(&mut self.index);
        // the worker stays: its job numbers are not given twice, so a late answer finds nothing
        let worker = std::mem::take(&mut self.lease_work.worker);
        self.lease_work = LeaseWork { worker, ..LeaseWork::default() };
    }

    /// Something was applied: there is work if a row is due, an owner died, or a tombstone was written.
    pub(crate) fn lease_nudge(&mut self) {
        let tombstones_at = self.version.changed(tables::TOMBSTONE, None);
        let moved = std::mem::replace(&mut self.lease_work.tombstones_at, tombstones_at) != tombstones_at;
        if moved || self.index.due_count() > 0 || self.index.dead_count() > 0 {
            self.lease_work.idle = false;
        } else if let Some(first) = self.index.wake_at() {
            // a lease that ends before all others
            let sooner = self.lease_work.wake_at.is_none_or(|t| first < t);
            if sooner {
                self.lease_work.wake_at = Some(first);
            }
        }
    }

    /// Takes a step if there is one to take and the foreground leaves room.
    pub(crate) fn lease_tick(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let now = self.log_now();
        if !self.lease_work.running || self.lease_work.committing || self.waiting_count() > YIELD_ABOVE {
            return;
        }
        if self.lease_work.idle && self.lease_work.wake_at.is_none_or(|t| now < t) {
            return;
        }
        let (Some(keys), Some(sealer), Some(core)) =
            (self.keys.clone(), self.seal.sealer.clone(), self.seal.core.clone())
        else {
            return;
        };
        let cluster =
            Rc::new(ClusterFacts { name: self.facts.cluster_name.clone(), id: self.facts.cluster_id.clone() });
        let version = self.version.clone();
        let mut txn = Txn::new(&version, Some(&keys.keyring));
        let mut pass = Pass {
            core: &core,
            keyring: &keys.keyring,
            sealer: &sealer,
            cluster: &cluster,
            now,
            wall: self.now.wall,
            rng,
        };
        core.caches.borrow_mut().begin_epoch(keys.licences.generation);
        let step = self.lease_work.worker.next(&mut pass, &mut self.index, &mut txn);
        match step {
            Ok(WorkStep::Idle { wake_at }) => {
                self.lease_work.idle = true;
                self.lease_work.wake_at = wake_at;
            }
            Ok(WorkStep::Side { job, op }) => self.lease_outside(job, op, rng, out),
            Ok(step @ (WorkStep::Commit { .. } | WorkStep::Intent { .. })) => {
                if let WorkStep::Intent { job, op } = step {
                    self.lease_work.intent = Some((job, op));
                }
                let finished = txn.finish(&mut sealer.borrow_mut(), now);
                match finished {
                    Ok(f) => {
                        self.lease_work.committing = true;
                        if let Err((_, Purpose::Lease)) = self.propose_own(f, Purpose::Lease) {
                            self.lease_settled(false, rng, out);
                        }
                    }
                    Err(e) => {
                        self.lease_refused();
                        out.push(OwnerOut::Log(Level::Error, format!("lease work cannot be written: {e}")));
                        self.lease_pause(now);
                    }
                }
            }
            Err(e) => {
                self.lease_work.worker.settled(&mut self.index, false);
                let cause = e.cause.unwrap_or_else(|| e.errors.join("; "));
                out.push(OwnerOut::Log(Level::Error, format!("lease work failed: {cause}")));
                self.lease_pause(now);
            }
        }
    }

    /// What the worker wanted to commit was not.
    fn lease_refused(&mut self) {
        match self.lease_work.intent.take() {
            Some((job, _)) => self.lease_work.worker.dropped(&mut self.index, job),
            None => self.lease_work.worker.settled(&mut self.index, false),
        }
    }

    /// After a failure the worker rests for a second instead of spinning.
    fn lease_pause(&mut self, now: Wall) {
        self.lease_work.idle = true;
        self.lease_work.wake_at = Some(now.plus_seconds(1));
    }

    pub(crate) fn lease_settled(&mut self, applied: bool, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        self.lease_work.committing = false;
        self.lease_work.idle = false;
        if !applied {
            return self.lease_refused();
        }
        self.lease_work.worker.settled(&mut self.index, true);
        if let Some((job, op)) = self.lease_work.intent.take() {
            self.lease_outside(job, op, rng, out);
        }
        // the next step follows at once; the foreground's writes came in between
        self.lease_tick(rng, out);
    }

    /// Has a side operation carried out; what needs this core begins here.
    fn lease_outside(&mut self, job: u64, op: SideOp, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        out.push(match op {
            SideOp::Owner(OwnerOp::SnapshotKeep(place)) => match self.snapshot_job(rng) {
                Some(snapshot) => OwnerOut::KeepSnapshot(job, Box::new(snapshot), place),
                // the keys are gone: so is this worker's hour
                None => return self.lease_work.worker.side_done(job, SideResult::Failed("Vault is sealed".into())),
            },
            op => OwnerOut::Side(job, op),
        });
    }

    pub(crate) fn lease_side_done(
        &mut self,
        job: u64,
        result: SideResult,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        self.lease_work.worker.side_done(job, result);
        self.lease_work.idle = false;
        self.lease_tick(rng, out);
    }
}
