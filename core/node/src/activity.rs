//! The owner's part in counting active clients: what waits in memory becomes rows, one bounded batch every few seconds.

use crate::owner::{Level, Owner, OwnerOut, Purpose};
use ringfence_barrier::Txn;
use ringfence_base::Entropy;
use ringfence_vault::activity;

const SECOND_NS: u64 = 1_000_000_000;

impl Owner {
    /// Writes what waits, if it is time. A batch that comes to nothing is made again: what waits goes on waiting until
    /// it is seen in the image.
    pub(crate) fn activity_tick(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        if self.now.mono.since(self.clients_written) < activity::WRITE_EVERY_SECONDS * SECOND_NS {
            return;
        }
        let (Some(keys), Some(sealer), Some(core)) =
            (self.keys.clone(), self.seal.sealer.clone(), self.seal.core.clone())
        else {
            return;
        };
        self.clients_written = self.now.mono;
        let now = self.log_now();
        let version = self.version.clone();
        let mut txn = Txn::new(&version, Some(&keys.keyring));
        let finished = match activity::write(&mut txn, &core.vault.activity, now) {
            Ok(false) => return,
            Ok(true) => txn.finish(&mut sealer.borrow_mut(), now).map_err(|e| e.to_string()),
            Err(e) => Err(e.text()),
        };
        match finished {
            Ok(f) => {
                if let Err((settled, purpose)) = self.propose_own(f, Purpose::Activity) {
                    self.own_settled(settled, purpose, rng, out);
                }
            }
            Err(e) => out.push(OwnerOut::Log(Level::Error, format!("active clients cannot be written: {e}"))),
        }
    }
}
