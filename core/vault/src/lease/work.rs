//! The owner's worker: ends what is due, what a dead token owned, and what a tombstone covers, one bounded
//! transaction at a time. A pure machine; the owner of the active node drives it between foreground requests:
//!
//! ```text
//! loop {
//!     match worker.next(pass, index, txn) {
//!         Idle { wake_at }  => wait until then, or until a batch is applied
//!         Commit { .. }     => commit the txn; when applied, or refused: worker.settled(index, applied)
//!         Side { job, op }  => drop the txn, do op outside; when done: worker.side_done(job, result)
//!         Intent { job, op } => commit the txn; when applied: worker.settled(index, true), then as Side;
//!                               when refused: worker.dropped(index, job)
//!     }
//! }
//! ```
//!
//! Jobs that engines scheduled ([`ringfence_logical::Cx::schedule`]) come by the same wheel.
//!
//! Nothing of it needs to survive: what is left to do stands in the image (due times, missing owners, tombstones), so
//! a new owner begins with an empty worker. The pace is the driver's: it calls when it has time.
//!
//! Never answers a client, never touches a row without reading its record in the same transaction.

use super::engine::{job_resumed, job_step, resumed, revoke_step};
use super::entry::{Header, LeaseEntry};
use super::index::SideIndex;
use super::tombstone::{self, Tombstone};
use super::{forget, peek_keys, save};
use crate::call::{Call, Headers};
use crate::host::VaultHost;
use crate::identity;
use crate::mount::{MountEntry, Router};
use crate::namespace::Namespace;
use crate::pipeline::Pass;
use crate::tables::{self, Hash, IndexKind};
use crate::token::check;
use crate::token::mint;
use ringfence_barrier::Txn;
use ringfence_base::{MountId, NsId, Reader, Wall};
use ringfence_logical::cx::{MOUNT_DATA, job_header};
use ringfence_logical::{Cx, Error, MountInfo, Operation, Outcome, Request, Resume, SideOp, SideResult, Step};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Tokens and leases of one transaction. One takes the owner's core about four microseconds, half of them before the
/// commit and half after it, so a step keeps foreground writes waiting for a fraction of a millisecond. It also bounds
/// how many pages a version replaces at once: whoever lets go of the one before must free them.
const MAX_ROWS: usize = 96;
/// Writes after which a transaction takes no further row; well below the limit of a batch.
const MAX_WRITES: usize = 2048;
/// Rows that the wheel may move in one step.
const MAX_MOVES: usize = 4096;
/// Places of the index looked at in one step.
const MAX_PLACES: u32 = 4096;
/// Side operations under way at a time: a dead database is not hammered.
const MAX_JOBS: usize = 16;

/// A job whose intent was committed comes again after this long if nothing is heard of it.
const JOB_CLAIM_SECONDS: u64 = 120;
/// A job that fails is tried again after 1, 2, 4 seconds and so on, up to this.
const JOB_RETRY_MAX_SECONDS: u64 = 3600;

/// What is to be done next.
#[derive(Debug)]
pub enum WorkStep {
    /// Nothing, until then (or until something is applied).
    Idle {
        /// Log time; `None` = nothing waits.
        wake_at: Option<Wall>,
    },
    /// Commit what the transaction holds.
    Commit {
        /// Tokens, leases and other rows ended.
        rows: usize,
    },
    /// Do this outside. The transaction is dropped.
    Side {
        /// Names the work in [`Worker::side_done`].
        job: u64,
        /// What is to be done.
        op: SideOp,
    },
    /// Commit what the transaction holds, then do this outside.
    Intent {
        /// Names the work in [`Worker::side_done`].
        job: u64,
        /// What is to be done.
        op: SideOp,
    },
}

/// The worker.
#[derive(Default)]
pub struct Worker {
    /// Keys taken from the wheel for the step under way.
    held: Vec<Vec<u8>>,
    jobs: BTreeMap<u64, Job>,
    next_job: u64,
    /// How far each tombstone was worked off, by its key.
    progress: BTreeMap<Vec<u8>, Cursor>,
    /// What becomes progress when the step is applied.
    tentative: Option<(Vec<u8>, Cursor)>,
    /// Where the round over the dead owners stands.
    dead_after: Option<Hash>,
}

/// A lease or scheduled job whose engine waits for the outside.
struct Job {
    key: Vec<u8>,
    force: bool,
    resume: Resume,
    result: Option<SideResult>,
    /// The due time that a scheduled job got with its intent.
    claimed: Option<Wall>,
}

/// A place in a tombstone's work.
#[derive(Clone)]
enum Cursor {
    /// After this key.
    Key(Vec<u8>),
    /// At this place of the side index.
    Place(u32),
}

/// What a step has done so far.
#[derive(Default)]
struct Tally {
    rows: usize,
    writes: usize,
}

impl Tally {
    fn is_full(&self) -> bool {
        self.rows >= MAX_ROWS || self.writes >= MAX_WRITES
    }

    fn add(&mut self, writes: usize) {
        self.rows += 1;
        self.writes += writes;
    }

    fn found(self) -> Found {
        if self.rows > 0 { Found::Step(WorkStep::Commit { rows: self.rows }) } else { Found::Nothing }
    }
}

/// What a look at one kind of work found.
enum Found {
    /// A step to take.
    Step(WorkStep),
    /// Nothing so far; there is more to look at.
    More,
    /// What is left waits for side operations or for its next attempt.
    Waiting,
    /// All is done.
    Nothing,
}

impl Found {
    fn is_nothing(&self) -> bool {
        matches!(self, Found::Nothing)
    }
}

/// How an attempt to end a lease went.
enum Ended {
    /// Its writes are in the transaction.
    Gone,
    /// The engine goes on after a side operation; the transaction holds writes that must not be kept.
    Side(SideOp, Resume),
    /// The engine goes on after a side operation, and what the transaction holds is to be committed first.
    Intent(SideOp, Resume),
    /// The engine failed; the transaction holds writes that must not be kept.
    Failed(Error),
}

impl Worker {
    /// A worker with nothing in hand.
    pub fn new() -> Worker {
        Worker::default()
    }

    /// Decides the next step; the transaction is fresh and reads the latest state.
    ///
    /// # Errors
    /// A record that does not open. The driver reports it and calls [`Worker::settled`] with `false`.
    pub fn next(&mut self, pass: &mut Pass<'_>, index: &mut SideIndex, txn: &mut Txn<'_>) -> Result<WorkStep, Error> {
        let in_time = index.advance(pass.now, MAX_MOVES);
        let router = pass.core.caches.borrow_mut().router(txn, &pass.core.vault.settings.ttls)?;
        let Some(desk) = Desk::new(pass, txn, &router)? else {
            return Ok(WorkStep::Idle { wake_at: None });
        };
        let mut found = self.finish_job(&desk, pass, txn)?;
        if found.is_nothing() {
            found = self.expire(&desk, pass, index, txn)?;
        }
        if found.is_nothing() {
            found = self.clear_dead(&desk, pass, index, txn)?;
        }
        if found.is_nothing() {
            found = self.clear_tombstones(&desk, pass, index, txn)?;
        }
        if let Found::Step(step @ (WorkStep::Commit { .. } | WorkStep::Intent { .. })) = found {
            return Ok(step);
        }
        // nothing is committed, so nothing is held
        self.settled(index, false);
        Ok(match found {
            Found::Step(step) => step,
            Found::More => WorkStep::Idle { wake_at: Some(pass.now) },
            Found::Nothing | Found::Waiting if !in_time => WorkStep::Idle { wake_at: Some(pass.now) },
            Found::Nothing | Found::Waiting if self.is_busy() => {
                WorkStep::Idle { wake_at: Some(pass.now.plus_seconds(1)) }
            }
            Found::Nothing | Found::Waiting => WorkStep::Idle { wake_at: index.wake_at() },
        })
    }

    /// The transaction of the last step was applied to the image (and the index), or it was refused.
    pub fn settled(&mut self, index: &mut SideIndex, applied: bool) {
        for key in std::mem::take(&mut self.held) {
            // what was ended is gone from the index; the rest waits for its time again
            index.put_back(&key);
        }
        if let Some((key, cursor)) = self.tentative.take().filter(|_| applied) {
            self.progress.insert(key, cursor);
        }
    }

    /// A side operation is done. Unknown jobs are ignored: they belong to an earlier ownership.
    pub fn side_done(&mut self, job: u64, result: SideResult) {
        if let Some(j) = self.jobs.get_mut(&job) {
            j.result = Some(result);
        }
    }

    /// The intent before a side operation was refused: nothing is done outside, the row waits for its time again.
    pub fn dropped(&mut self, index: &mut SideIndex, job: u64) {
        self.settled(index, false);
        if let Some(j) = self.jobs.remove(&job) {
            index.put_back(&j.key);
        }
    }

    /// The node is no longer the owner: everything in hand is put back.
    pub fn reset(&mut self, index: &mut SideIndex) {
        let next_job = self.next_job;
        self.settled(index, false);
        for job in std::mem::take(self).jobs.into_values() {
            index.put_back(&job.key);
        }
        self.next_job = next_job;
    }

    /// Side operations under way.
    pub fn jobs_under_way(&self) -> usize {
        self.jobs.len()
    }

    /// Goes on with a lease whose side operation is done.
    fn finish_job(&mut self, desk: &Desk, pass: &mut Pass<'_>, txn: &mut Txn<'_>) -> Result<Found, Error> {
        let Some(number) = self.jobs.iter().find(|(_, j)| j.result.is_some()).map(|(n, _)| *n) else {
            return Ok(Found::Nothing);
        };
        let Some(job) = self.jobs.remove(&number) else { return Ok(Found::Nothing) };
        let Some(result) = &job.result else { return Ok(Found::Nothing) };
        let (mount, path) = scoped(&job.key[1..])?;
        if job.key[0] == tables::JOB {
            let Some(tries) = job_tries(txn, &job.key)? else { return Ok(Found::More) };
            let outcome = desk.with(pass, txn, |cx| job_resumed(cx, mount, &path, &job.resume, result));
            self.held.push(job.key.clone());
            return Ok(Found::Step(self.job_ended(outcome, job.key, tries, job.claimed, pass, txn)?));
        }
        let Some(lease) = super::load(txn, mount, &path)? else { return Ok(Found::More) };
        let outcome = desk.with(pass, txn, |cx| resumed(cx, mount, &lease, &job.resume, result));
        // back to the wheel if it is still there when the step is settled
        self.held.push(job.key.clone());
        let ended = conclude(outcome, mount, &path, txn);
        Ok(Found::Step(self.single(ended, job.key, lease, job.force, pass, txn)?))
    }

    /// Tokens and leases whose time has come.
    fn expire(
        &mut self,
        desk: &Desk,
        pass: &mut Pass<'_>,
        index: &mut SideIndex,
        txn: &mut Txn<'_>,
    ) -> Result<Found, Error> {
        let mut tally = Tally::default();
        for _ in 0..MAX_ROWS {
            let Some(key) = index.take_due(1).pop() else { break };
            if self.is_in_hand(&key) {
                continue;
            }
            self.held.push(key.clone());
            if let Some(step) = self.end_if(desk, pass, txn, &key, &mut tally, false, Why::Due)? {
                return Ok(Found::Step(step));
            }
            if tally.is_full() {
                break;
            }
        }
        Ok(tally.found())
    }

    /// Children and leases of tokens that are not there any more, one owner after the other, round and round.
    fn clear_dead(
        &mut self,
        desk: &Desk,
        pass: &mut Pass<'_>,
        index: &mut SideIndex,
        txn: &mut Txn<'_>,
    ) -> Result<Found, Error> {
        let mut tally = Tally::default();
        // a round that began in the middle is followed by a whole one
        for _ in 0..2 {
            let began_within = self.dead_after.is_some();
            while let Some(owner) = index.dead_owner(self.dead_after.as_ref()) {
                self.dead_after = Some(owner);
                if index.bury(&owner) || txn.exists(&tables::token(&owner)) {
                    continue;
                }
                if let Some(step) = self.clear_owner(desk, pass, index, txn, &owner, &mut tally)? {
                    return Ok(Found::Step(step));
                }
                if tally.is_full() {
                    return Ok(tally.found());
                }
            }
            self.dead_after = None;
            if tally.rows > 0 || !began_within {
                break;
            }
        }
        Ok(tally.found())
    }

    fn clear_owner(
        &mut self,
        desk: &Desk,
        pass: &mut Pass<'_>,
        index: &SideIndex,
        txn: &mut Txn<'_>,
        owner: &Hash,
        tally: &mut Tally,
    ) -> Result<Option<WorkStep>, Error> {
        let spared = tombstone::is_orphaned(txn, owner);
        for key in index.owned(owner, MAX_ROWS + MAX_JOBS) {
            if tally.is_full() {
                break;
            }
            if self.is_in_hand(&key) {
                continue;
            }
            if spared && key[0] == tables::TOKEN {
                let hash = token_of(&key)?;
                if let Some(mut child) = check::load(txn, &hash)?.filter(|c| c.parent.as_ref() == Some(owner)) {
                    child.parent = None;
                    check::save(txn, &hash, &child);
                    tally.add(1);
                }
            } else if let Some(step) = self.end_if(desk, pass, txn, &key, tally, false, Why::Owner(owner))? {
                return Ok(Some(step));
            }
        }
        Ok(None)
    }

    /// What tombstones cover.
    fn clear_tombstones(
        &mut self,
        desk: &Desk,
        pass: &mut Pass<'_>,
        index: &SideIndex,
        txn: &mut Txn<'_>,
    ) -> Result<Found, Error> {
        use tombstone::{CUBBYHOLE, LEASES, MOUNT, NAMESPACE, ORPHANED, TOKENS};
        for kind in [LEASES, TOKENS, CUBBYHOLE, ORPHANED, NAMESPACE, MOUNT] {
            for (key, stone) in tombstone::rows(txn, &tables::tombstone(kind, &[]))? {
                // in the read set: it may be replaced by a stronger one meanwhile
                txn.guard(&key);
                let subject = &key[2..];
                let found = match kind {
                    LEASES => {
                        let (mount, path) = scoped(subject)?;
                        let found = self.clear_leases(desk, pass, txn, &key, mount, &path, &stone)?;
                        finish_with(found, txn, &[&key])
                    }
                    TOKENS => {
                        let (mount, path) = scoped(subject)?;
                        let found = self.clear_tokens(desk, pass, index, txn, &key, mount, &path, stone.era)?;
                        finish_with(found, txn, &[&key])
                    }
                    CUBBYHOLE => {
                        let rows = [&[tables::CUBBYHOLE][..], subject].concat();
                        finish_with(clear_prefixes(txn, &[rows]), txn, &[&key])
                    }
                    ORPHANED => {
                        let hash: Hash = subject.try_into().map_err(|_| malformed())?;
                        match index.has_owned(&hash) {
                            true => Found::Waiting,
                            false => finish_with(Found::Nothing, txn, &[&key]),
                        }
                    }
                    MOUNT => self.clear_mount(desk, pass, index, txn, &key, &stone)?,
                    _ => clear_namespace(desk, pass, txn, &key, &stone)?,
                };
                if matches!(found, Found::Step(_) | Found::More) {
                    return Ok(found);
                }
            }
        }
        Ok(Found::Nothing)
    }

    /// Leases below a path, in the order of the table. `Nothing` when all that is covered is ended, or failed and waits
    /// for its own next attempt.
    #[allow(clippy::too_many_arguments)]
    fn clear_leases(
        &mut self,
        desk: &Desk,
        pass: &mut Pass<'_>,
        txn: &mut Txn<'_>,
        task: &[u8],
        mount: MountId,
        path: &str,
        stone: &Tombstone,
    ) -> Result<Found, Error> {
        if self.is_busy() {
            return Ok(Found::Waiting);
        }
        let after = match self.progress.get(task) {
            Some(Cursor::Key(k)) => Some(k.clone()),
            _ => None,
        };
        let keys = peek_keys(txn, &tables::lease(mount, path), after.as_deref(), MAX_ROWS);
        let at_end = keys.len() < MAX_ROWS;
        let mut tally = Tally::default();
        let mut last = None;
        for key in keys {
            if !self.is_in_hand(&key)
                && let Some(step) =
                    self.end_if(desk, pass, txn, &key, &mut tally, stone.force, Why::Era(stone.era))?
            {
                return Ok(Found::Step(step));
            }
            last = Some(Cursor::Key(key));
            if tally.is_full() {
                break;
            }
        }
        if tally.rows > 0 {
            self.tentative = last.map(|cursor| (task.to_vec(), cursor));
            return Ok(tally.found());
        }
        if let (false, Some(cursor)) = (at_end, last) {
            self.progress.insert(task.to_vec(), cursor);
            return Ok(Found::More);
        }
        self.progress.remove(task);
        let under = tables::lease(mount, path);
        let waiting = self.jobs.values().any(|j| j.key.starts_with(&under));
        Ok(if waiting { Found::Waiting } else { Found::Nothing })
    }

    /// Tokens that a mount issued below a path. `Nothing` when none is left.
    #[allow(clippy::too_many_arguments)]
    fn clear_tokens(
        &mut self,
        desk: &Desk,
        pass: &mut Pass<'_>,
        index: &SideIndex,
        txn: &mut Txn<'_>,
        task: &[u8],
        mount: MountId,
        path: &str,
        era: u64,
    ) -> Result<Found, Error> {
        let from = match self.progress.get(task) {
            Some(Cursor::Place(p)) => *p,
            _ => 0,
        };
        let mut tally = Tally::default();
        let (keys, next) = index.tokens_of(mount, from, MAX_PLACES);
        for key in keys {
            let hash = token_of(&key)?;
            if let Some(entry) = check::load(txn, &hash)?
                && entry.era < era
                && tombstone::is_below(&entry.path, path.as_bytes())
            {
                tally.add(mint::revoke_counted(txn, pass.keyring, &desk.router, &hash, &entry)?);
            }
            if tally.is_full() {
                break;
            }
        }
        if tally.rows > 0 {
            // the same stretch again: what was ended will be gone from it
            return Ok(tally.found());
        }
        Ok(match next {
            Some(place) => {
                self.progress.insert(task.to_vec(), Cursor::Place(place));
                Found::More
            }
            None => {
                self.progress.remove(task);
                Found::Nothing
            }
        })
    }

    /// A disabled mount: leases through its engine, tokens, then all it kept. A lease that cannot be revoked keeps the
    /// data that it needs, until it can be or until revoke-force.
    fn clear_mount(
        &mut self,
        desk: &Desk,
        pass: &mut Pass<'_>,
        index: &SideIndex,
        txn: &mut Txn<'_>,
        stone_key: &[u8],
        stone: &Tombstone,
    ) -> Result<Found, Error> {
        let mount = MountId(Reader::new(&stone_key[2..]).be32()?);
        if !peek_keys(txn, &tables::lease(mount, ""), None, 1).is_empty() {
            let task = [stone_key, b"/leases"].concat();
            let found = self.clear_leases(desk, pass, txn, &task, mount, "", stone)?;
            return Ok(if found.is_nothing() { Found::Waiting } else { found });
        }
        let task = [stone_key, b"/tokens"].concat();
        let found = self.clear_tokens(desk, pass, index, txn, &task, mount, "", u64::MAX)?;
        if !found.is_nothing() {
            return Ok(found);
        }
        let found = forget_aliases(txn, mount)?;
        if !found.is_nothing() {
            return Ok(found);
        }
        let at = |table: u8| [&[table][..], &mount.0.to_be_bytes()].concat();
        let own = |kind: u8| tables::tombstone(kind, &mount.0.to_be_bytes());
        let found = clear_prefixes(
            txn,
            &[
                at(MOUNT_DATA),
                at(tables::JOB),
                at(tables::CUBBYHOLE),
                at(tables::LOCKED_USER),
                own(tombstone::LEASES),
                own(tombstone::TOKENS),
                own(tombstone::IRREVOCABLE),
            ],
        );
        if found.is_nothing() {
            let ns = MountEntry::load(txn, mount)?.map(|e| e.ns).unwrap_or_default();
            MountEntry::remove(txn, ns, mount);
            crate::quota::forget_mount(txn, mount)?;
        }
        Ok(finish_with(found, txn, &[stone_key]))
    }

    /// Ends a token or lease if the reason holds. Answers a step if the lease needs one of its own.
    #[allow(clippy::too_many_arguments)]
    fn end_if(
        &mut self,
        desk: &Desk,
        pass: &mut Pass<'_>,
        txn: &mut Txn<'_>,
        key: &[u8],
        tally: &mut Tally,
        force: bool,
        why: Why<'_>,
    ) -> Result<Option<WorkStep>, Error> {
        if key[0] == tables::TOKEN {
            let hash = token_of(key)?;
            let Some(entry) = check::load(txn, &hash)? else { return Ok(None) };
            let holds = match why {
                Why::Due => entry.is_expired(pass.now),
                Why::Owner(owner) => entry.parent.as_ref() == Some(owner),
                Why::Era(era) => entry.era < era,
            };
            if holds {
                tally.add(mint::revoke_counted(txn, pass.keyring, &desk.router, &hash, &entry)?);
            }
            return Ok(None);
        }
        if key[0] == tables::JOB {
            return self.run_job(desk, pass, txn, key);
        }
        let (mount, path) = scoped(&key[1..])?;
        let Some(lease) = super::load(txn, mount, &path)? else { return Ok(None) };
        let holds = match why {
            Why::Due => lease.header(mount).is_due(pass.now),
            Why::Owner(owner) => lease.owner == *owner && lease.attempts == 0,
            // one that failed before waits for its next attempt, unless it is given up
            Why::Era(era) => lease.era < era && (lease.attempts == 0 || force),
        };
        if !holds {
            return Ok(None);
        }
        if self.is_busy() {
            // its engine may want the outside too: it stays due
            return Ok(None);
        }
        let alone = tally.rows == 0;
        let outcome = desk.with(pass, txn, |cx| revoke_step(cx, mount, &lease));
        if !alone && matches!(outcome, Ok(Step::Intent { .. })) {
            // an intent is committed alone: the rows before it and this one stay due and come again
            txn.discard_writes();
            *tally = Tally::default();
            let outcome = desk.with(pass, txn, |cx| revoke_step(cx, mount, &lease));
            let ended = conclude(outcome, mount, &path, txn);
            return self.single(ended, key.to_vec(), lease, force, pass, txn).map(Some);
        }
        match conclude(outcome, mount, &path, txn) {
            Ended::Gone => {
                tally.add(2);
                Ok(None)
            }
            broken => {
                let step = self.single(broken, key.to_vec(), lease, force, pass, txn)?;
                *tally = Tally::default();
                Ok(Some(step))
            }
        }
    }

    /// A scheduled job, in a step of its own. `None` if it is not due after all, or must wait: then it stays due.
    fn run_job(
        &mut self,
        desk: &Desk,
        pass: &mut Pass<'_>,
        txn: &mut Txn<'_>,
        key: &[u8],
    ) -> Result<Option<WorkStep>, Error> {
        let Some(tries) = job_tries(txn, key)? else { return Ok(None) };
        if self.is_busy() || job_due(txn, key)?.is_none_or(|at| at > pass.now) {
            return Ok(None);
        }
        // the rows ended before it in this step stay due and come again
        txn.discard_writes();
        let (mount, job) = scoped(&key[1..])?;
        let outcome = desk.with(pass, txn, |cx| job_step(cx, mount, &job));
        self.job_ended(outcome, key.to_vec(), tries, None, pass, txn).map(Some)
    }

    /// What becomes of a job after its engine was asked.
    fn job_ended(
        &mut self,
        outcome: Outcome,
        key: Vec<u8>,
        tries: u8,
        claimed: Option<Wall>,
        pass: &Pass<'_>,
        txn: &mut Txn<'_>,
    ) -> Result<WorkStep, Error> {
        let (mount, _) = scoped(&key[1..])?;
        let again_at =
            |txn: &mut Txn<'_>, at: Wall, tries: u8| txn.put(key.clone(), &job_header(mount, at), &[tries]);
        match outcome {
            Ok(Step::Done(_)) => {
                // not scheduled anew: it is done with
                let due = job_due(txn, &key)?;
                if due.is_some_and(|at| at <= pass.now || Some(at) == claimed) {
                    txn.delete(&key);
                }
                Ok(WorkStep::Commit { rows: 1 })
            }
            Ok(Step::Side { op, resume }) => {
                txn.discard_writes();
                let job = self.begin(key, false, resume);
                Ok(WorkStep::Side { job, op })
            }
            Ok(Step::Intent { op, resume }) => {
                // a node that takes over finds it due again
                let claim = pass.now.plus_seconds(JOB_CLAIM_SECONDS);
                if job_due(txn, &key)?.is_some_and(|at| at <= pass.now) {
                    again_at(txn, claim, tries);
                }
                let job = self.begin(key, false, resume);
                if let Some(j) = self.jobs.get_mut(&job) {
                    j.claimed = Some(claim);
                }
                Ok(WorkStep::Intent { job, op })
            }
            Err(_) => {
                txn.discard_writes();
                let wait = JOB_RETRY_MAX_SECONDS.min(1 << tries.min(20));
                again_at(txn, pass.now.plus_seconds(wait), tries.saturating_add(1));
                Ok(WorkStep::Commit { rows: 1 })
            }
        }
    }

    /// Files a row that waits for the outside.
    fn begin(&mut self, key: Vec<u8>, force: bool, resume: Resume) -> u64 {
        self.next_job += 1;
        self.held.retain(|k| *k != key);
        self.jobs.insert(self.next_job, Job { key, force, resume, result: None, claimed: None });
        self.next_job
    }

    /// A lease that needs a step of its own: nothing else of this transaction is kept.
    fn single(
        &mut self,
        ended: Ended,
        key: Vec<u8>,
        mut lease: LeaseEntry,
        force: bool,
        pass: &Pass<'_>,
        txn: &mut Txn<'_>,
    ) -> Result<WorkStep, Error> {
        let (mount, path) = scoped(&key[1..])?;
        match ended {
            Ended::Gone => Ok(WorkStep::Commit { rows: 1 }),
            Ended::Side(op, resume) => {
                txn.discard_writes();
                let job = self.begin(key, force, resume);
                Ok(WorkStep::Side { job, op })
            }
            Ended::Intent(op, resume) => {
                let job = self.begin(key, force, resume);
                Ok(WorkStep::Intent { job, op })
            }
            Ended::Failed(_) if force => {
                txn.discard_writes();
                forget(txn, mount, &path);
                Ok(WorkStep::Commit { rows: 1 })
            }
            Ended::Failed(e) => {
                txn.discard_writes();
                lease.failed(pass.now, &e.text());
                save(txn, mount, &path, &lease);
                if lease.is_irrevocable() {
                    tombstone::irrevocable(txn, mount, &path, Some(&lease.error));
                }
                Ok(WorkStep::Commit { rows: 1 })
            }
        }
    }

    fn is_in_hand(&self, key: &[u8]) -> bool {
        self.jobs.values().any(|j| j.key == key)
    }

    /// As many side operations are under way as may be.
    fn is_busy(&self) -> bool {
        self.jobs.len() >= MAX_JOBS
    }
}

/// Why a row ends; checked against its record.
#[derive(Clone, Copy)]
enum Why<'h> {
    Due,
    Owner(&'h Hash),
    Era(u64),
}

fn conclude(outcome: Outcome, mount: MountId, path: &str, txn: &mut Txn<'_>) -> Ended {
    match outcome {
        Ok(Step::Done(_)) => {
            forget(txn, mount, path);
            Ended::Gone
        }
        Ok(Step::Side { op, resume }) => Ended::Side(op, resume),
        Ok(Step::Intent { op, resume }) => Ended::Intent(op, resume),
        Err(e) => Ended::Failed(e),
    }
}

/// How often a job failed in a row; `None` if it is gone.
fn job_tries(txn: &mut Txn<'_>, key: &[u8]) -> Result<Option<u8>, Error> {
    Ok(txn.get(key)?.map(|p| p.bytes.first().copied().unwrap_or(0)))
}

fn job_due(txn: &mut Txn<'_>, key: &[u8]) -> Result<Option<Wall>, Error> {
    match txn.get(key)? {
        Some(p) => Ok(Some(Header::decode(&p.header)?.due)),
        None => Ok(None),
    }
}

/// When nothing is left: deletes what stood for the work.
fn finish_with(found: Found, txn: &mut Txn<'_>, keys: &[&[u8]]) -> Found {
    if !found.is_nothing() {
        return found;
    }
    for key in keys {
        txn.delete(key);
    }
    Found::Step(WorkStep::Commit { rows: keys.len() })
}

/// Deletes rows under prefixes, a bounded number of them.
fn clear_prefixes(txn: &mut Txn<'_>, prefixes: &[Vec<u8>]) -> Found {
    let mut tally = Tally::default();
    for prefix in prefixes {
        // recorded: a row that is written meanwhile would be left behind
        for key in txn.list(prefix, None, MAX_WRITES - tally.rows) {
            txn.delete(&key);
            tally.add(1);
        }
        if tally.rows >= MAX_WRITES {
            break;
        }
    }
    tally.found()
}

/// Aliases at a mount, and their places in the entities.
fn forget_aliases(txn: &mut Txn<'_>, mount: MountId) -> Result<Found, Error> {
    let Some(entry) = MountEntry::load(txn, mount)? else { return Ok(Found::Nothing) };
    let prefix = [&[tables::ALIAS][..], &mount.0.to_be_bytes()].concat();
    let mut tally = Tally::default();
    for (key, plain) in txn.scan(&prefix, None, MAX_ROWS)? {
        let id = String::from_utf8_lossy(&plain.bytes).into_owned();
        if let Some(mut e) = identity::load(txn, entry.ns, &id)? {
            for alias in e.aliases.iter().filter(|a| a.mount == mount) {
                txn.delete(&tables::identity_index(entry.ns, IndexKind::EntityAlias, alias.id.as_bytes()));
            }
            e.aliases.retain(|a| a.mount != mount);
            identity::save(txn, &e);
        }
        txn.delete(&key);
        tally.add(3);
    }
    let prefix = [&[tables::GROUP_ALIAS][..], &mount.0.to_be_bytes()].concat();
    for (key, plain) in txn.scan(&prefix, None, MAX_ROWS)? {
        let id = String::from_utf8_lossy(&plain.bytes).into_owned();
        if let Some(mut g) = identity::model::load_group(txn, entry.ns, &id)?
            && let Some(alias) = g.alias.take()
        {
            txn.delete(&tables::identity_index(entry.ns, IndexKind::GroupAlias, alias.id.as_bytes()));
            identity::model::save_group(txn, &g);
        }
        txn.delete(&key);
        tally.add(3);
    }
    Ok(tally.found())
}

/// A deleted namespace: its mounts first, each by its own tombstone, then tokens, then all else. Every step looks at
/// a bounded number of rows, however many namespaces and mounts there are.
fn clear_namespace(
    desk: &Desk,
    pass: &mut Pass<'_>,
    txn: &mut Txn<'_>,
    stone_key: &[u8],
    stone: &Tombstone,
) -> Result<Found, Error> {
    let ns = NsId(Reader::new(&stone_key[2..]).be32()?);
    let mut tally = Tally::default();
    let mut after = None;
    let mut mounts_left = false;
    loop {
        let page = MountEntry::numbers_of(txn, ns, after, MAX_ROWS);
        for &id in &page {
            mounts_left = true;
            let Some(mut entry) = MountEntry::load(txn, id)? else { continue };
            let stronger = stone.force && !tombstone::is_forced(txn, id)?;
            if entry.tainted && !stronger {
                continue;
            }
            entry.tainted = true;
            entry.save(txn);
            match stone.force {
                true => tombstone::mount_forced(txn, pass.now, id)?,
                false => tombstone::mount_removed(txn, pass.now, id)?,
            }
            tally.add(4);
        }
        if tally.rows > 0 || page.len() < MAX_ROWS {
            break;
        }
        after = page.last().copied();
    }
    if mounts_left {
        return Ok(if tally.rows > 0 { tally.found() } else { Found::Waiting });
    }
    let at = |table: u8| [&[table][..], &ns.0.to_be_bytes()].concat();
    for (key, plain) in txn.scan(&at(tables::ACCESSOR), None, MAX_ROWS)? {
        let (_, hash) = check::decode_accessor(&plain.bytes)?;
        if let Some(entry) = check::load(txn, &hash)? {
            mint::revoke(txn, pass.keyring, &desk.router, &hash, &entry)?;
        }
        txn.delete(&key);
        tally.add(2);
    }
    if tally.rows > 0 {
        return Ok(tally.found());
    }
    let mut rest: Vec<Vec<u8>> = tables::OF_NAMESPACE.iter().map(|t| at(*t)).collect();
    rest.extend(tables::IDENTITY_BY_NAMESPACE.map(at));
    let found = clear_prefixes(txn, &rest);
    if found.is_nothing() {
        Namespace::remove(txn, ns);
        crate::quota::forget_namespace(txn, ns)?;
    }
    Ok(finish_with(found, txn, &[stone_key]))
}

/// The worker's own request: engines are called in its context.
struct Desk {
    router: Arc<Router>,
    host: VaultHost,
    mount: MountInfo,
    req: Request,
}

impl Desk {
    /// `None` before there is any mount: then there is nothing to end either.
    fn new(pass: &Pass<'_>, txn: &Txn<'_>, router: &Arc<Router>) -> Result<Option<Desk>, Error> {
        let Some(namespace) = router.namespace("").cloned() else { return Ok(None) };
        let Some(mount) = router.mounts(txn, namespace.id)?.next().map(|m| m.info.clone()) else { return Ok(None) };
        let call = Call {
            id: String::new(),
            op: Operation::Revoke,
            path: String::new(),
            namespace: None,
            token: None,
            data: Default::default(),
            no_body: true,
            remote: None,
            remote_port: 0,
            wrap_ttl: 0,
            wrap_jwt: false,
            headers: Headers::default(),
            raw_body: None,
            peer_certificates: Arc::new(Vec::new()),
            mfa: Vec::new(),
        };
        let req = Request {
            id: String::new(),
            op: Operation::Revoke,
            path: String::new(),
            remote: None,
            wrap_ttl: 0,
            headers: Vec::new(),
            peer_certificates: Arc::new(Vec::new()),
        };
        let host = VaultHost {
            core: pass.core.clone(),
            router: router.clone(),
            keyring: pass.keyring.clone(),
            sealer: pass.sealer.clone(),
            call: Rc::new(call),
            namespace,
            cluster: pass.cluster.clone(),
            wall: pass.wall,
        };
        Ok(Some(Desk { router: router.clone(), host, mount, req }))
    }

    fn with<R>(&self, pass: &mut Pass<'_>, txn: &mut Txn<'_>, run: impl FnOnce(&mut Cx<'_, '_>) -> R) -> R {
        let mut cx = Cx {
            txn,
            mount: &self.mount,
            req: &self.req,
            principal: None,
            now: pass.now,
            rng: &mut *pass.rng,
            host: &self.host,
        };
        run(&mut cx)
    }
}

/// Mount and path after the table byte (and kind) of a key.
fn scoped(rest: &[u8]) -> Result<(MountId, String), Error> {
    let mut r = Reader::new(rest);
    let mount = MountId(r.be32()?);
    Ok((mount, String::from_utf8(r.rest().to_vec()).map_err(|_| malformed())?))
}

fn token_of(key: &[u8]) -> Result<Hash, Error> {
    key[1..].try_into().map_err(|_| malformed())
}

fn malformed() -> Error {
    Error::internal("a key of the lease tables is malformed")
}
