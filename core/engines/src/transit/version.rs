//! One version of a key: its material as stored and as used.
//!
//! ```text
//! format 1 | created be64 (ns) | key bytes | hmac key bytes | public key bytes | count, certificates bytes*
//! ```
//! `key` is raw for ciphers, HMAC and CMAC, `seed || public` for Ed25519, the seed for ML-DSA, PKCS #8 for ECDSA and RSA, and
//! empty where only the public half was imported. `public` is raw for Ed25519, else `SubjectPublicKeyInfo`.

use super::kind::KeyKind;
use ringfence_base::codec::{Reader, Writer};
use ringfence_base::{Entropy, Wall};
use ringfence_crypto::asymmetric::ec::{EcPrivate, EcPublic};
use ringfence_crypto::asymmetric::ed25519::Ed25519Private;
use ringfence_crypto::asymmetric::ml_dsa::MlDsaPrivate;
use ringfence_crypto::asymmetric::rsa::{self, RsaPrivate, RsaPublic};
use ringfence_crypto::cipher::CipherKey;
use ringfence_logical::Error;
use zeroize::Zeroizing;

/// Bytes of the HMAC key that every version has beside its own.
pub const HMAC_KEY_BYTES: usize = 32;

const FORMAT: u8 = 1;
const MAX_FIELD_BYTES: usize = 64 * 1024;

/// Key material before it is stored.
#[derive(Clone)]
pub struct Fresh {
    /// The private or secret part; empty if only the public one is known.
    pub key: Zeroizing<Vec<u8>>,
    /// The public part; empty for secret keys.
    pub public: Vec<u8>,
}

/// A version in use.
pub struct Version {
    /// When it was made.
    pub created: Wall,
    /// As stored, see the module's text.
    pub key: Zeroizing<Vec<u8>>,
    /// Signs for `hmac`.
    pub hmac_key: Zeroizing<Vec<u8>>,
    /// As stored.
    pub public: Vec<u8>,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// Decoded.
    pub material: Material,
}

/// Decoded key material.
pub enum Material {
    /// A cipher's key; the expanded form is of the key itself and unused when keys are derived.
    Aead(CipherKey),
    /// Keyed hash.
    Hmac,
    /// Code by AES.
    Cmac,
    /// Ed25519; `None` if only the public half is known.
    Ed25519(Option<Ed25519Private>),
    /// ECDSA.
    Ecdsa(Option<Box<EcPrivate>>, EcPublic),
    /// RSA.
    Rsa(Option<Box<RsaPrivate>>, Box<RsaPublic>),
    /// ML-DSA.
    MlDsa(Option<Box<MlDsaPrivate>>),
}

impl Version {
    /// A version of new material.
    pub fn record(created: Wall, fresh: &Fresh, hmac_key: &[u8], chain: &[Vec<u8>]) -> Zeroizing<Vec<u8>> {
        let room = 64
            + fresh.key.len()
            + hmac_key.len()
            + fresh.public.len()
            + chain.iter().map(|c| c.len() + 8).sum::<usize>();
        let mut w = Writer::over(Vec::with_capacity(room));
        w.u8(FORMAT).be64(created.0).bytes(&fresh.key).bytes(hmac_key).bytes(&fresh.public).num(chain.len() as u64);
        for certificate in chain {
            w.bytes(certificate);
        }
        Zeroizing::new(w.finish())
    }

    /// Reads a record.
    pub fn decode(kind: KeyKind, bytes: &[u8]) -> Result<Version, Error> {
        let mut r = Reader::new(bytes);
        if r.u8()? != FORMAT {
            return Err(Error::internal("unknown format of a key version"));
        }
        let created = Wall(r.be64()?);
        let key = Zeroizing::new(r.bytes(MAX_FIELD_BYTES)?.to_vec());
        let hmac_key = Zeroizing::new(r.bytes(MAX_FIELD_BYTES)?.to_vec());
        let public = r.bytes(MAX_FIELD_BYTES)?.to_vec();
        let count = r.num()?.min(64);
        let chain = (0..count).map(|_| r.bytes(MAX_FIELD_BYTES).map(<[u8]>::to_vec)).collect::<Result<_, _>>()?;
        r.end()?;
        let material =
            material(kind, &key, &public).ok_or_else(|| Error::internal("a stored key does not decode"))?;
        Ok(Version { created, key, hmac_key, public, chain, material })
    }

    /// The private part is not known here.
    pub fn is_public_only(&self) -> bool {
        self.key.is_empty()
    }
}

/// Decodes key material; `None` if it does not fit its type.
pub fn material(kind: KeyKind, key: &[u8], public: &[u8]) -> Option<Material> {
    let known = !key.is_empty();
    Some(match kind {
        KeyKind::Aead(cipher) => Material::Aead(cipher.key(key)?),
        KeyKind::Hmac => Material::Hmac,
        KeyKind::Cmac(bits) => (key.len() * 8 == bits as usize).then_some(Material::Cmac)?,
        KeyKind::Ed25519 => {
            let private = match known {
                true => Some(Ed25519Private::from_seed(key.get(..32)?.try_into().ok()?)),
                false => None,
            };
            (public.len() == 32).then_some(Material::Ed25519(private))?
        }
        KeyKind::Ecdsa(curve) => {
            let private = if known { Some(Box::new(EcPrivate::from_pkcs8(curve, key).ok()?)) } else { None };
            Material::Ecdsa(private, EcPublic::from_spki(curve, public).ok()?)
        }
        KeyKind::Rsa(bits) => {
            let private = if known { Some(Box::new(RsaPrivate::from_pkcs8(key).ok()?)) } else { None };
            let public = RsaPublic::from_spki(public).ok()?;
            (public.bits() == bits).then(|| Material::Rsa(private, Box::new(public)))?
        }
        KeyKind::MlDsa(set) => {
            let private = match known {
                true => Some(Box::new(MlDsaPrivate::from_seed(set, key.try_into().ok()?).ok()?)),
                false => None,
            };
            set.is_public_key(public).then_some(Material::MlDsa(private))?
        }
    })
}

/// New material. RSA takes up to seconds: callers make it in a side operation.
pub fn fresh(kind: KeyKind, key_size: usize, rng: &mut dyn Entropy) -> Result<Fresh, String> {
    let random = |rng: &mut dyn Entropy, n: usize| {
        let mut key = Zeroizing::new(vec![0; n]);
        rng.fill(&mut key);
        key
    };
    let refused = |_| "key generation failed".to_owned();
    Ok(match kind {
        KeyKind::Aead(cipher) => Fresh { key: random(rng, cipher.key_bytes()), public: Vec::new() },
        KeyKind::Hmac => Fresh { key: random(rng, key_size), public: Vec::new() },
        KeyKind::Cmac(bits) => Fresh { key: random(rng, bits as usize / 8), public: Vec::new() },
        KeyKind::Ed25519 => {
            let seed = random(rng, 32);
            from_seed(seed[..].try_into().expect("32 bytes were drawn"))
        }
        KeyKind::Ecdsa(curve) => {
            let private = EcPrivate::generate(curve).map_err(refused)?;
            let public = private.public().map_err(refused)?.spki().to_vec();
            Fresh { key: Zeroizing::new(private.pkcs8().to_vec()), public }
        }
        KeyKind::Rsa(bits) => {
            let key = rsa::generate(bits).map_err(refused)?;
            let private = RsaPrivate::from_pkcs8(&key).map_err(|e| e.to_string())?;
            let public = private.public().map_err(|e| e.to_string())?.spki().to_vec();
            Fresh { key: private.pkcs8().map_err(refused)?, public }
        }
        KeyKind::MlDsa(set) => {
            let key = random(rng, 32);
            let seed = key[..].try_into().expect("32 bytes were drawn");
            let private = MlDsaPrivate::from_seed(set, seed).map_err(|e| e.to_string())?;
            let public = private.public_spki().map_err(refused)?;
            Fresh { key, public }
        }
    })
}

/// Ed25519 in its stored form.
pub fn from_seed(seed: &[u8; 32]) -> Fresh {
    let private = Ed25519Private::from_seed(seed);
    let public = private.public().to_vec();
    Fresh { key: Zeroizing::new([&seed[..], &public[..]].concat()), public }
}
