//! Counting wrong credentials. Counts live in the owner's memory, as in Vault; only a lock is written down.

use crate::owner::{Level, Owner, OwnerOut, Purpose};
use ringfence_barrier::Txn;
use ringfence_base::{Entropy, Mono, MountId, Now};
use ringfence_crypto::sha256;
use ringfence_vault::lockout;
use ringfence_vault::pipeline::LoginNote;
use std::collections::BTreeMap;

/// Users whose failures are counted at a time; beyond it the oldest count is forgotten, so that invented names cannot
/// fill the memory.
const MAX_COUNTED: usize = 100_000;
/// Longest name that is kept as it is.
const MAX_NAME_BYTES: usize = 256;

/// Failures by mount and user.
#[derive(Default)]
pub struct Failures {
    counts: BTreeMap<(MountId, String), Count>,
}

struct Count {
    failures: u64,
    forget_at: Mono,
}

impl Failures {
    /// True if any user has failures counted.
    pub fn any(&self) -> bool {
        !self.counts.is_empty()
    }

    /// Forgets counts whose time is past. True if the last one went.
    pub fn forget(&mut self, now: Now) -> bool {
        let any = self.any();
        self.counts.retain(|_, c| c.forget_at > now.mono);
        any && !self.any()
    }

    /// Counts a failure; true if the threshold is reached, and the count ends.
    fn failed(&mut self, note: &LoginNote, now: Now) -> bool {
        if self.counts.len() >= MAX_COUNTED
            && let Some(oldest) = self.counts.iter().min_by_key(|(_, c)| c.forget_at).map(|(k, _)| k.clone())
        {
            self.counts.remove(&oldest);
        }
        let key = key(note);
        let forget_at = now.mono.plus_ns(note.rules.counter_reset.saturating_mul(1_000_000_000));
        let c = self.counts.entry(key.clone()).or_insert(Count { failures: 0, forget_at });
        c.failures += 1;
        c.forget_at = forget_at;
        let reached = c.failures >= note.rules.threshold;
        if reached {
            self.counts.remove(&key);
        }
        reached
    }

    fn succeeded(&mut self, note: &LoginNote) {
        self.counts.remove(&key(note));
    }
}

/// Names come from callers without a token and may be as long as a body: a long one is counted by its hash.
fn key(note: &LoginNote) -> (MountId, String) {
    let alias = match note.alias.len() {
        0..=MAX_NAME_BYTES => note.alias.clone(),
        _ => format!("/{}", hex::encode(sha256(note.alias.as_bytes()))),
    };
    (note.mount, alias)
}

impl Owner {
    pub(crate) fn login(&mut self, note: LoginNote, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let before = self.failures.any();
        let reached = if note.good {
            self.failures.succeeded(&note);
            false
        } else {
            self.failures.failed(&note, self.now)
        };
        if before != self.failures.any() {
            self.mark_dirty();
        }
        let (true, Some(keys), Some(sealer)) = (reached, self.keys.clone(), self.seal.sealer.clone()) else { return };
        let now = self.log_now();
        let version = self.version.clone();
        let mut txn = Txn::new(&version, Some(&keys.keyring));
        lockout::lock(&mut txn, &keys.keyring, note.mount, &note.alias, now.plus_seconds(note.rules.duration));
        let finished = txn.finish(&mut sealer.borrow_mut(), now);
        match finished {
            Ok(f) => {
                if let Err((settled, purpose)) = self.propose_own(f, Purpose::Keyring) {
                    self.own_settled(settled, purpose, rng, out);
                }
            }
            Err(e) => out.push(OwnerOut::Log(Level::Error, format!("a lockout cannot be written: {e}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_vault::mount::UserLockout;

    fn note(alias: &str, good: bool) -> LoginNote {
        LoginNote { mount: MountId(1), alias: alias.into(), good, rules: UserLockout::default() }
    }

    #[test]
    fn five_failures_lock_and_a_success_forgets() {
        let (mut f, now) = (Failures::default(), Now::default());
        for _ in 0..4 {
            assert!(!f.failed(&note("bob", false), now));
        }
        assert!(!f.failed(&note("eve", false), now));
        assert!(f.failed(&note("bob", false), now));
        assert!(f.any());
        f.succeeded(&note("eve", true));
        assert!(!f.any());
    }

    #[test]
    fn counts_are_forgotten_in_time() {
        let mut f = Failures::default();
        f.failed(&note("bob", false), Now::default());
        let later = Now { mono: Mono(901 * 1_000_000_000), ..Now::default() };
        assert!(f.forget(later));
        assert!(!f.any());
    }
}
