//! Issuers: who may seal, so that no nonce is ever used twice under one key.
//!
//! At each unseal, election and restore, and every few minutes after, a node draws sixteen random bytes and
//! registers them in the image under the next free number. Only when that batch is committed does it hand each of
//! its cores a [`Sealer`]. The salt makes the key its own; the core's number and counter make the nonce its own.

use crate::keyring::Keyring;
use crate::keys::{TABLE_ISSUER, numbered};
use crate::record::{self, MAX_COUNTER, Stamp};
use crate::token::Minter;
use crate::txn::Txn;
use crate::view::{View, bounds, prefix_end};
use ringfence_base::{Entropy, Reader, Wall, Writer};
use ringfence_crypto::AeadKey;

const FORMAT: u8 = 1;
const SALT_BYTES: usize = 16;
/// The number of an issuer that stands in no image and may only mint tokens.
const UNREGISTERED: u32 = 0;

/// The image key of an issuer.
pub const fn issuer_key(number: u32) -> [u8; 5] {
    numbered(TABLE_ISSUER, number)
}

/// The next free number in a view: one more than the last, 1 in an empty image.
pub fn next_issuer(view: &dyn View) -> u32 {
    let end = prefix_end(&[TABLE_ISSUER]);
    let (from, to) = bounds(&[TABLE_ISSUER], end.as_deref());
    let last = view.scan(from, to).next_back();
    let number = last.and_then(|(key, _)| key.get(1..)?.first_chunk().copied()).map_or(0, u32::from_be_bytes);
    number.checked_add(1).expect("four billion issuers outlast any cluster")
}

/// The salt of a registered issuer.
pub(crate) fn issuer_salt(view: &dyn View, number: u32) -> Option<[u8; SALT_BYTES]> {
    let mut r = Reader::new(view.get(&issuer_key(number))?);
    (r.u8().ok()? == FORMAT).then(|| r.raw(SALT_BYTES).ok()?.first_chunk().copied())?
}

/// One process's licence to seal: a number, its salt, and the cores it was given to. Not `Clone`: two copies would
/// repeat nonces.
pub struct Issuer {
    number: u32,
    salt: [u8; SALT_BYTES],
    cores_given: u16,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Issuer({}, {} cores)", self.number, self.cores_given)
    }
}

impl Issuer {
    /// Draws a salt under a number. Use [`Issuer::register`] where there is a Txn.
    pub fn draw(number: u32, rng: &mut dyn Entropy) -> Issuer {
        let mut salt = [0; SALT_BYTES];
        rng.fill(&mut salt);
        Issuer { number, salt, cores_given: 0 }
    }

    /// An issuer for minting only (a standby before it has a registered one): batch tokens carry their salt, so no
    /// image needs to know it.
    pub fn unregistered(rng: &mut dyn Entropy) -> Issuer {
        Issuer::draw(UNREGISTERED, rng)
    }

    /// Draws an issuer under the next free number and writes its record. Two nodes that race conflict at that key.
    /// The issuer may seal once the batch is committed.
    pub fn register(txn: &mut Txn<'_>, node: &str, now: Wall, rng: &mut dyn Entropy) -> Issuer {
        let issuer = Issuer::draw(next_issuer(txn.view()), rng);
        txn.guard(&issuer_key(issuer.number));
        let (key, value) = issuer.record(node, now);
        txn.put_clear(key.to_vec(), value);
        issuer
    }

    /// The record that registers it: format, salt, wall time, name of the node. Plain; a salt is no secret.
    pub fn record(&self, node: &str, now: Wall) -> ([u8; 5], Vec<u8>) {
        let mut w = Writer::new();
        w.u8(FORMAT).raw(&self.salt).num(now.0).text(node);
        (issuer_key(self.number), w.finish())
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// A sealer for one more core.
    pub fn sealer(&mut self, keyring: &Keyring) -> Sealer {
        ringfence_base::invariant!(self.number != UNREGISTERED, "only a registered issuer seals records");
        let core = self.next_core();
        let (term, key) = keyring.record_key(&self.salt);
        Sealer {
            stamp: Stamp { term, issuer: self.number, core, counter: 0 },
            salt: self.salt,
            key,
            minter: Minter::new(keyring, &self.salt, core),
            uncounted: 0,
        }
    }

    /// A sealer that mints tokens and nothing else, for one more core of a node that does not lead: what it would seal
    /// could never be committed.
    pub fn minting_sealer(&mut self, keyring: &Keyring) -> Sealer {
        let core = self.next_core();
        let (term, key) = keyring.record_key(&self.salt);
        Sealer {
            stamp: Stamp { term, issuer: UNREGISTERED, core, counter: 0 },
            salt: self.salt,
            key,
            minter: Minter::new(keyring, &self.salt, core),
            uncounted: 0,
        }
    }

    /// A minter for one more core, for nodes that do not seal.
    pub fn minter(&mut self, keyring: &Keyring) -> Minter {
        let core = self.next_core();
        Minter::new(keyring, &self.salt, core)
    }

    fn next_core(&mut self) -> u16 {
        let core = self.cores_given;
        self.cores_given = core.checked_add(1).expect("an issuer serves at most 65535 cores");
        core
    }
}

/// Seals records and mints tokens on one core. Owned by that core; not `Clone`.
pub struct Sealer {
    stamp: Stamp,
    salt: [u8; SALT_BYTES],
    key: AeadKey,
    minter: Minter,
    /// Seals under the active term that [`Sealer::take_count`] has not reported.
    uncounted: u64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({:?})", self.stamp)
    }
}

impl Sealer {
    /// The term it seals under.
    pub fn term(&self) -> u32 {
        self.stamp.term
    }

    /// Its issuer's number.
    pub fn issuer(&self) -> u32 {
        self.stamp.issuer
    }

    /// Moves to the keyring's active term if that is newer. Never back: a Txn that began before a rotation may still
    /// finish, under the newer term.
    pub fn follow(&mut self, keyring: &Keyring) {
        if keyring.active_term() > self.stamp.term {
            (self.stamp.term, self.key) = keyring.record_key(&self.salt);
            self.uncounted = 0;
        }
        self.minter.follow(keyring);
    }

    /// Seals one record for the key it will stand at.
    pub fn seal(&mut self, image_key: &[u8], header: &[u8], plaintext: &[u8]) -> Vec<u8> {
        ringfence_base::invariant!(self.stamp.issuer != UNREGISTERED, "only a registered issuer seals records");
        ringfence_base::invariant!(self.stamp.counter < MAX_COUNTER, "a core's counter never passes 48 bits");
        self.stamp.counter += 1;
        self.uncounted += 1;
        record::seal(&self.key, self.stamp, image_key, header, plaintext)
    }

    /// Mints a batch token's blob.
    pub fn seal_batch_token(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.minter.mint(plaintext)
    }

    /// Seals since the last call, for `sys/key-status` and automatic rotation. Tokens are not among them.
    pub fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }
}
