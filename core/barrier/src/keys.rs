//! Where the barrier's own records stand in the image.
//!
//! ```text
//!   0x01 │ be32 number     core records: what must be readable before anything is unsealed
//!   0x02 │ be32 issuer     issuers: the salts of record keys, plain
//! ```

/// Table of core records.
pub const TABLE_CORE: u8 = 0x01;
/// Table of issuers.
pub const TABLE_ISSUER: u8 = 0x02;

/// How the unseal key is shared ([`crate::SealConfig`]); plain.
pub const SEAL_CONFIG: [u8; 5] = core_key(1);
/// The root key, sealed by the unseal key.
pub const ROOT_KEY: [u8; 5] = core_key(2);
/// The keyring, sealed by the root key. Every writing Txn has it in its read set: a rotation outruns no writer.
pub const KEYRING: [u8; 5] = core_key(3);
/// Unseal and root key, sealed by the keyring's active term, so that a node that is already unsealed follows a rekey.
/// Stands from a rekey to the next rotation.
pub const HANDOVER: [u8; 5] = core_key(4);
/// When the keyring rotates by itself ([`crate::rotate::RotateConfig`]); plain.
pub const ROTATE_CONFIG: [u8; 5] = core_key(5);
/// How often the active term has sealed ([`crate::rotate::Usage`]); plain.
pub const USAGE: [u8; 5] = core_key(6);
/// Shares encrypted to OpenPGP keys, kept on request of a rekey ([`crate::ShareBackup`]); plain.
pub const SHARE_BACKUP: [u8; 5] = core_key(7);
/// Core records below this number are the barrier's; from here on upper floors choose their own.
pub const FIRST_FREE_CORE_RECORD: u32 = 0x100;

/// The key of a core record.
pub const fn core_key(number: u32) -> [u8; 5] {
    numbered(TABLE_CORE, number)
}

/// A table byte and a number that keeps its order.
pub(crate) const fn numbered(table: u8, number: u32) -> [u8; 5] {
    let n = number.to_be_bytes();
    [table, n[0], n[1], n[2], n[3]]
}
