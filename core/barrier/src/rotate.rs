//! Rotation of the keyring: a new term for what is sealed from now on; old terms stay readable.

use crate::keys::{HANDOVER, ROTATE_CONFIG, USAGE};
use crate::seal::{KeyRecords, SealError, Unsealed};
use crate::view::View;
use ringfence_base::duration::SECOND_NS;
use ringfence_base::{CodecError, Entropy, Reader, Wall, Writer};

/// Rotate at latest after this many seals: nine tenths of 2^32, Vault's figure.
pub const MAX_OPERATIONS: u64 = 3_865_470_566;
/// Rotate at earliest after this many seals.
pub const MIN_OPERATIONS: u64 = 1_000_000;
/// Rotate at most this often, seconds.
pub const MIN_INTERVAL_SECONDS: u64 = 24 * 3600;

/// Makes the next term. The records are written by a Txn over the present keyring; every node adopts the new one when
/// they are applied ([`Unsealed::refresh`]).
///
/// It also ends the handover of an earlier rekey: as long as that stands, an old unseal key and an old copy of the
/// image lead to the new unseal key. So a rekey is best followed by a rotation. An unsealed node that missed both
/// in one stride cannot follow and seals itself.
pub fn rotate(unsealed: &Unsealed, now: Wall, rng: &mut dyn Entropy) -> KeyRecords {
    let next = unsealed.with_keyring(unsealed.keyring().rotated(now, rng));
    let usage = Usage { term: next.keyring().active_term(), encryptions: 0 };
    KeyRecords {
        clear: vec![next.keyring_record(rng), (USAGE.to_vec(), usage.encode())],
        deleted: vec![HANDOVER.to_vec()],
        ..KeyRecords::default()
    }
}

/// `sys/rotate/config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotateConfig {
    /// Rotate by itself at all.
    pub enabled: bool,
    /// After this many seals.
    pub max_operations: u64,
    /// After this long, seconds; 0 is never.
    pub interval_seconds: u64,
}

impl Default for RotateConfig {
    fn default() -> Self {
        RotateConfig { enabled: true, max_operations: MAX_OPERATIONS, interval_seconds: 0 }
    }
}

impl RotateConfig {
    /// The configuration of a view; the default before one was set.
    pub fn load(view: &dyn View) -> Result<RotateConfig, SealError> {
        let read = view.get(&ROTATE_CONFIG).map(RotateConfig::decode).transpose();
        Ok(read.map_err(|_| SealError::Corrupt)?.unwrap_or_default())
    }

    /// Checks what a client sent.
    pub fn check(&self) -> Result<(), SealError> {
        if !(MIN_OPERATIONS..=MAX_OPERATIONS).contains(&self.max_operations) {
            return Err(SealError::RotateOperations);
        }
        if self.interval_seconds != 0 && self.interval_seconds < MIN_INTERVAL_SECONDS {
            return Err(SealError::RotateInterval);
        }
        Ok(())
    }

    /// True when the active term should be retired.
    pub fn is_due(&self, encryptions: u64, active_since: Wall, now: Wall) -> bool {
        let old = self.interval_seconds > 0 && now.since(active_since) / SECOND_NS >= self.interval_seconds;
        self.enabled && (encryptions >= self.max_operations || old)
    }

    /// The bytes of the core record.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(1).bool(self.enabled).num(self.max_operations).num(self.interval_seconds);
        w.finish()
    }

    /// Reads [`RotateConfig::encode`].
    pub fn decode(bytes: &[u8]) -> Result<RotateConfig, CodecError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            1 => {}
            other => return Err(CodecError::BadTag(other)),
        }
        let config = RotateConfig { enabled: r.bool()?, max_operations: r.num()?, interval_seconds: r.num()? };
        r.end()?;
        Ok(config)
    }
}

/// How often a term has sealed, as last written. The owner adds what its cores' [`crate::Sealer::take_count`] report
/// and writes it now and then; a crash loses a little of a figure whose limit has that slack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The term counted.
    pub term: u32,
    /// Seals under it.
    pub encryptions: u64,
}

impl Usage {
    /// The count of a view for a term; zero if it counts another.
    pub fn load(view: &dyn View, term: u32) -> Usage {
        let read = view.get(&USAGE).and_then(|bytes| Usage::decode(bytes).ok());
        read.filter(|usage| usage.term == term).unwrap_or(Usage { term, encryptions: 0 })
    }

    /// The bytes of the core record.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(1).be32(self.term).num(self.encryptions);
        w.finish()
    }

    /// Reads [`Usage::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Usage, CodecError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            1 => {}
            other => return Err(CodecError::BadTag(other)),
        }
        let usage = Usage { term: r.be32()?, encryptions: r.num()? };
        r.end()?;
        Ok(usage)
    }
}
