//! The barrier: everything between a plaintext and the image.
//!
//! ```text
//!  shares ──join──> unseal key ──opens──> root key ──opens──> keyring ──HKDF(term key, issuer salt)──> record keys
//!                   (Unseal)              core table           terms, token family, index key
//!
//!  handler ──get, put, list──> Txn ──finish(Sealer)──> Batch of sealed records + ReadSet + read index ──> owner
//!                               └ reads a View: a Version of the image, or the owner's Tip          Window::conflicts
//! ```
//!
//! Every core drives its own [`Txn`]s and its own [`Sealer`]; the owner drives the [`Window`] and the seal state
//! machines ([`init`], [`Unseal`], [`Rekey`], [`GenerateRoot`], [`rotate`]), which are values without IO: they take
//! a view, shares and entropy and return the records to write. Nothing here reads a clock, logs, or shows a key; a
//! plaintext leaves only through a Txn that holds a keyring.

mod blob;
mod cache;
mod generate_root;
pub mod init;
mod issuer;
mod keyring;
mod keys;
mod read_set;
mod record;
mod rekey;
pub mod rotate;
mod seal;
#[cfg(test)]
mod seal_tests;
mod tip;
mod token;
mod txn;
#[cfg(test)]
mod txn_tests;
mod unseal;
mod view;
mod window;

pub use blob::BlobPurpose;
pub use generate_root::{
    GenerateParams, GenerateRoot, GenerateStatus, GenerateStep, OTP_LENGTH, RootTokenRequest, decode_token,
};
pub use issuer::{Issuer, Sealer, issuer_key, next_issuer};
pub use keyring::{HashKind, Keyring, OpenError};
pub use keys::{
    FIRST_FREE_CORE_RECORD, HANDOVER, KEYRING, ROOT_KEY, ROTATE_CONFIG, SEAL_CONFIG, SHARE_BACKUP, TABLE_CORE,
    TABLE_ISSUER, USAGE, core_key,
};
pub use read_set::{ReadSet, key_hash};
pub use record::{MAX_HEADER_BYTES, RECORD_OVERHEAD_BYTES};
pub use rekey::{Rekey, RekeyParams, RekeyStatus, RekeyStep, RekeyVerifyStatus, RekeyVerifyStep, ShareBackup};
pub use seal::{KeyRecords, SealConfig, SealError, SealKind, ShareRule, Shares, Unsealed, parse_share};
pub use tip::{Overlay, Tip};
pub use token::{Minter, TOKEN_OVERHEAD_BYTES};
pub use txn::{BarrierError, Finished, Plain, Txn};
pub use unseal::{JoinKey, Unseal, UnsealStep};
pub use view::{Entries, View, prefix_end};
pub use window::{Verdict, Window};
