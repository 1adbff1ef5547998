//! The settings of a key: Vault calls them its policy.

use super::kind::KeyKind;
use ringfence_base::Wall;
use ringfence_logical::Error;
use serde::{Deserialize, Serialize};

/// Derivation of convergent nonces that new keys use.
pub const CONVERGENT_VERSION: u32 = 3;

/// The settings of a key. Versions are counted from 1.
///
/// Invariant: `1 <= min_decryption <= latest`, `min_encryption` is 0 or in `min_decryption..=latest`, `min_available`
/// is at most both; every version from `max(1, min_available)` to `latest` has a record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: KeyKind,
    /// Bytes of an HMAC key; 0 for other types.
    pub key_size: usize,
    /// A context is required and each context has a key of its own.
    pub derived: bool,
    /// 0 = no; else how nonces follow from the text.
    pub convergent: u32,
    /// Key material may be exported.
    pub exportable: bool,
    /// The key may be backed up.
    pub plaintext_backup: bool,
    /// The key may be deleted.
    pub deletion_allowed: bool,
    /// Versions below do not decrypt.
    pub min_decryption: u64,
    /// Versions below do not encrypt; 0 = only the newest by default, none refused.
    pub min_encryption: u64,
    /// Versions below were erased; 0 = none was.
    pub min_available: u64,
    /// The newest version.
    pub latest: u64,
    /// Seconds between rotations by itself; 0 = none.
    pub auto_rotate: u64,
    /// The material came from outside.
    pub imported: bool,
    /// An imported key may be rotated here.
    pub imported_rotation: bool,
    /// Marked as deleted; nothing works until it is restored.
    pub soft_deleted: bool,
    /// Last backup.
    pub backup: Option<Event>,
    /// The restore it came from.
    pub restore: Option<Event>,
}

/// When something happened, and at which version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Log time.
    pub at: Wall,
    /// The newest version then.
    pub version: u64,
}

/// What a version number is asked for; words the refusals.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Encryption and data keys.
    Encrypt,
    /// Signatures.
    Sign,
}

impl Policy {
    /// A key that has no version yet.
    pub fn new(name: &str, kind: KeyKind) -> Policy {
        Policy {
            name: name.to_owned(),
            kind,
            key_size: 0,
            derived: false,
            convergent: 0,
            exportable: false,
            plaintext_backup: false,
            deletion_allowed: false,
            min_decryption: 1,
            min_encryption: 0,
            min_available: 0,
            latest: 0,
            auto_rotate: 0,
            imported: false,
            imported_rotation: false,
            soft_deleted: false,
            backup: None,
            restore: None,
        }
    }

    /// The version that a request means (0 = the newest).
    pub fn version_to(&self, purpose: Use, wanted: i64) -> Result<u64, Error> {
        let what = if purpose == Use::Encrypt { "encryption" } else { "signing" };
        let wanted =
            u64::try_from(wanted).map_err(|_| Error::invalid(format!("requested version for {what} is negative")))?;
        match wanted {
            0 => Ok(self.latest),
            v if v > self.latest => {
                Err(Error::invalid(format!("requested version for {what} is higher than the latest key version")))
            }
            v if v < self.min_encryption || v < self.min_available.max(1) => Err(Error::invalid(format!(
                "requested version for {what} is less than the minimum encryption key version"
            ))),
            v => Ok(v),
        }
    }

    /// Refuses a key that is marked as deleted.
    pub fn alive(&self) -> Result<(), Error> {
        match self.soft_deleted {
            true => Err(Error::invalid("refusing to use soft-deleted key")),
            false => Ok(()),
        }
    }
}
