//! Cryptography behind one face: authenticated encryption, hashes, key derivation, asymmetric keys, Shamir shares,
//! password hashes and OpenPGP encryption.
//!
//! Upper floors hold a [`Provider`] and never name a cryptographic library. `AwsLc` is production; `Seeded` runs the
//! same algorithms on an independent implementation, so that the simulator needs no C code on its AEAD path and each
//! checks the other. Both give the same bytes for the same inputs. Randomness is an argument, but for what
//! aws-lc draws inside a key generation, a signature or an OAEP encryption.

pub mod asymmetric;
mod aws_lc;
pub mod cipher;
pub mod cmac;
pub mod es512;
pub mod hash;
pub mod kwp;
pub mod password;
pub mod pem;
pub mod pgp;
mod provider;
mod seeded;
pub mod shamir;

pub use provider::{
    AeadKey, HmacKey, KEY_BYTES, NONCE_BYTES, NotAuthentic, Provider, Sha256, TAG_BYTES, hkdf_sha256, hmac_sha256,
    sha256,
};
