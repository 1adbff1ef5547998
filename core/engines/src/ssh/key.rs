//! Signing keys: made, read in the forms people have them in, and used to sign in SSH's encoding.

use ringfence_base::Entropy;
use ringfence_crypto::asymmetric::decimal;
use ringfence_crypto::asymmetric::ec::{Curve, EcPrivate, Form};
use ringfence_crypto::asymmetric::ed25519::Ed25519Private;
use ringfence_crypto::asymmetric::rsa::{self, Padding, RsaPrivate};
use ringfence_crypto::hash::Hash;
use ringfence_crypto::pem;
use ringfence_logical::side::{Compute, Computed};
use ringfence_logical::{Cx, Error, Outcome, SideResult, Step};
use serde::{Deserialize, Serialize};
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::Ed25519PublicKey;
use zeroize::{Zeroize, Zeroizing};

/// What kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    Rsa(u32),
    Ec(Curve),
    Ed25519,
}

impl KeyType {
    /// By the request's words; zero bits mean the usual.
    pub fn parse(name: &str, bits: i64) -> Result<KeyType, Error> {
        let wrong = || Error::invalid(format!("unsupported key_bits {bits} for key_type {name}"));
        Ok(match (name, bits) {
            ("ssh-rsa" | "rsa", 0) => KeyType::Rsa(4096),
            ("ssh-rsa" | "rsa", 2048 | 3072 | 4096) => KeyType::Rsa(bits as u32),
            ("ecdsa-sha2-nistp256" | "ec", 0 | 256) => KeyType::Ec(Curve::P256),
            ("ecdsa-sha2-nistp384", 0 | 384) | ("ec", 384) => KeyType::Ec(Curve::P384),
            ("ecdsa-sha2-nistp521", 0 | 521) | ("ec", 521) => KeyType::Ec(Curve::P521),
            ("ssh-ed25519" | "ed25519", 0 | 256) => KeyType::Ed25519,
            (
                "ssh-rsa"
                | "rsa"
                | "ec"
                | "ssh-ed25519"
                | "ed25519"
                | "ecdsa-sha2-nistp256"
                | "ecdsa-sha2-nistp384"
                | "ecdsa-sha2-nistp521",
                _,
            ) => return Err(wrong()),
            _ => return Err(Error::invalid(format!("unknown ssh key type: {name}"))),
        })
    }
}

/// A private key as stored: its type and PKCS #8, base64.
#[derive(Clone, Serialize, Deserialize)]
pub struct Stored {
    kind: String,
    pkcs8: String,
    /// The OpenSSH line without comment or line break.
    pub public: String,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.pkcs8.zeroize();
    }
}

/// A private key in use.
pub enum Private {
    Rsa(Box<RsaPrivate>),
    Ec(Box<EcPrivate>),
    Ed25519(Ed25519Private),
}

const UNREADABLE: &str = "unable to parse private key";

impl Private {
    /// From PEM: PKCS #8, PKCS #1, SEC 1 or OpenSSH's own form without passphrase.
    pub fn from_text(text: &str) -> Result<Private, Error> {
        let bad = || Error::invalid(UNREADABLE);
        if text.contains("BEGIN OPENSSH PRIVATE KEY") {
            let key = ssh_key::PrivateKey::from_openssh(text.trim()).map_err(|_| bad())?;
            return Private::from_openssh(key.key_data()).ok_or_else(bad);
        }
        let (label, der) = pem::decode(text).ok_or_else(bad)?;
        let read = match label.as_str() {
            "RSA PRIVATE KEY" => RsaPrivate::from_pkcs1(&der).ok().map(|k| Private::Rsa(Box::new(k))),
            _ => Private::from_der(&der),
        };
        read.ok_or_else(bad)
    }

    /// From PKCS #8 (or, for EC keys, SEC 1) of any of our types.
    fn from_der(der: &[u8]) -> Option<Private> {
        if let Ok(key) = Ed25519Private::from_pkcs8(der) {
            return Some(Private::Ed25519(key));
        }
        for curve in [Curve::P256, Curve::P384, Curve::P521] {
            if let Ok(key) = EcPrivate::from_pkcs8(curve, der).or_else(|_| EcPrivate::from_sec1(curve, der)) {
                return Some(Private::Ec(Box::new(key)));
            }
        }
        RsaPrivate::from_pkcs8(der).ok().map(|k| Private::Rsa(Box::new(k)))
    }

    fn from_openssh(data: &KeypairData) -> Option<Private> {
        let number = |n: &ssh_key::Mpint| n.as_positive_bytes().map(decimal);
        match data {
            KeypairData::Ed25519(pair) => Some(Private::Ed25519(Ed25519Private::from_seed(&pair.private.to_bytes()))),
            KeypairData::Ecdsa(pair) => {
                let curve = match pair.curve() {
                    ssh_key::EcdsaCurve::NistP256 => Curve::P256,
                    ssh_key::EcdsaCurve::NistP384 => Curve::P384,
                    ssh_key::EcdsaCurve::NistP521 => Curve::P521,
                };
                let (x, y) = pair.public_key_bytes().get(1..)?.split_at_checked(curve.field_bytes())?;
                EcPrivate::from_numbers(curve, pair.private_key_bytes(), x, y).ok().map(|k| Private::Ec(Box::new(k)))
            }
            KeypairData::Rsa(pair) => {
                let primes = [number(&pair.private.p)?, number(&pair.private.q)?];
                let (n, e, d) = (number(&pair.public.n)?, number(&pair.public.e)?, number(&pair.private.d)?);
                RsaPrivate::from_decimals(&n, &e, &d, &primes).ok().map(|k| Private::Rsa(Box::new(k)))
            }
            _ => None,
        }
    }

    /// As stored.
    pub fn stored(&self) -> Result<Stored, Error> {
        let failed = |_| Error::internal("encoding a key");
        let (kind, pkcs8) = match self {
            Private::Rsa(k) => ("rsa", k.pkcs8().map_err(failed)?),
            Private::Ec(k) => (k.curve().name(), Zeroizing::new(k.pkcs8().to_vec())),
            Private::Ed25519(k) => ("ed25519", k.pkcs8().map_err(|_| Error::internal("encoding a key"))?),
        };
        use base64::Engine as _;
        let pkcs8 = base64::engine::general_purpose::STANDARD.encode(&pkcs8[..]);
        Ok(Stored { kind: kind.to_owned(), pkcs8, public: self.public_line()? })
    }

    /// Reads [`Private::stored`].
    pub fn load(stored: &Stored) -> Result<Private, Error> {
        use base64::Engine as _;
        let bad = || Error::internal("a stored SSH key does not decode");
        let der = base64::engine::general_purpose::STANDARD.decode(&stored.pkcs8).map_err(|_| bad())?;
        Private::from_der(&Zeroizing::new(der)).ok_or_else(bad)
    }

    /// The public key in SSH's wire form (RFC 4253 6.6, RFC 5656 3.1, RFC 8709 4).
    pub fn public_blob(&self) -> Result<Vec<u8>, Error> {
        let failed = |_| Error::internal("encoding a key");
        let mut out = Vec::new();
        match self {
            Private::Rsa(k) => {
                let (n, e) = k.public().map_err(|_| Error::internal("encoding a key"))?.numbers();
                put_string(&mut out, b"ssh-rsa");
                put_mpint(&mut out, &e);
                put_mpint(&mut out, &n);
            }
            Private::Ec(k) => {
                let name = curve_name(k.curve());
                put_string(&mut out, format!("ecdsa-sha2-{name}").as_bytes());
                put_string(&mut out, name.as_bytes());
                put_string(&mut out, k.public().map_err(failed)?.point());
            }
            Private::Ed25519(k) => {
                put_string(&mut out, b"ssh-ed25519");
                put_string(&mut out, &k.public());
            }
        }
        Ok(out)
    }

    /// `ssh-ed25519 AAAA...`, without a line break.
    pub fn public_line(&self) -> Result<String, Error> {
        let key =
            ssh_key::PublicKey::from_bytes(&self.public_blob()?).map_err(|_| Error::internal("encoding a key"))?;
        key.to_openssh().map_err(|_| Error::internal("encoding a key"))
    }

    /// The private key as people keep it: PKCS #1, SEC 1, and OpenSSH's form for Ed25519.
    pub fn pem(&self) -> Result<Zeroizing<String>, Error> {
        let failed = |_| Error::internal("encoding a key");
        Ok(match self {
            Private::Rsa(k) => pem::encode("RSA PRIVATE KEY", &k.pkcs1().map_err(failed)?),
            Private::Ec(k) => pem::encode("EC PRIVATE KEY", &k.sec1().map_err(failed)?),
            Private::Ed25519(k) => {
                let pair = Ed25519Keypair {
                    public: Ed25519PublicKey(k.public()),
                    private: Ed25519PrivateKey::from_bytes(k.seed()),
                };
                let key = ssh_key::PrivateKey::new(KeypairData::Ed25519(pair), "")
                    .map_err(|_| Error::internal("encoding a key"))?;
                key.to_openssh(ssh_key::LineEnding::LF).map_err(|_| Error::internal("encoding a key"))?
            }
        })
    }

    /// Signs in SSH's encoding: algorithm and signature. `rsa` names the algorithm of an RSA key.
    pub fn sign(&self, rsa: &str, message: &[u8], rng: &mut dyn Entropy) -> Result<Vec<u8>, Error> {
        let failed = |_| Error::internal("signing a certificate");
        let (algorithm, signature) = match self {
            Private::Rsa(k) => {
                let (algorithm, hash) = match rsa {
                    "ssh-rsa" => ("ssh-rsa", Hash::Sha1),
                    "rsa-sha2-512" => ("rsa-sha2-512", Hash::Sha512),
                    _ => ("rsa-sha2-256", Hash::Sha256),
                };
                let signed = k.sign(Some(hash), &hash.digest(message), Padding::Pkcs1v15, rng).map_err(failed)?;
                (algorithm.to_owned(), signed)
            }
            Private::Ec(k) => {
                // RFC 5656 6.2.1: the hash goes by the curve
                let hash = match k.curve() {
                    Curve::P256 => Hash::Sha256,
                    Curve::P384 => Hash::Sha384,
                    Curve::P521 => Hash::Sha512,
                };
                let fixed = k.sign(&hash.digest(message), Form::Fixed).map_err(failed)?;
                let (r, s) = fixed.split_at(fixed.len() / 2);
                let mut signed = Vec::new();
                put_mpint(&mut signed, r);
                put_mpint(&mut signed, s);
                (format!("ecdsa-sha2-{}", curve_name(k.curve())), signed)
            }
            Private::Ed25519(k) => ("ssh-ed25519".to_owned(), k.sign(message)),
        };
        let mut out = Vec::new();
        put_string(&mut out, algorithm.as_bytes());
        put_string(&mut out, &signature);
        Ok(out)
    }
}

fn curve_name(curve: Curve) -> &'static str {
    match curve {
        Curve::P256 => "nistp256",
        Curve::P384 => "nistp384",
        Curve::P521 => "nistp521",
    }
}

/// RFC 4251 5, `string`.
pub fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// RFC 4251 5, `mpint`, of a number that is not negative.
fn put_mpint(out: &mut Vec<u8>, number: &[u8]) {
    let significant = &number[number.iter().take_while(|b| **b == 0).count()..];
    match significant.first() {
        Some(b) if b & 0x80 != 0 => put_string(out, &[&[0], significant].concat()),
        _ => put_string(out, significant),
    }
}

/// Makes a key and goes on with it; RSA is made in a side operation.
pub fn with_fresh(
    cx: &mut Cx<'_, '_>,
    kind: KeyType,
    then: impl Fn(&mut Cx<'_, '_>, &Private) -> Outcome + Send + 'static,
) -> Outcome {
    let failed = |_| Error::internal("key generation failed");
    let made = match kind {
        KeyType::Ed25519 => {
            let mut seed = Zeroizing::new([0; 32]);
            cx.rng.fill(&mut seed[..]);
            Private::Ed25519(Ed25519Private::from_seed(&seed))
        }
        KeyType::Ec(curve) => Private::Ec(Box::new(EcPrivate::generate(curve).map_err(failed)?)),
        KeyType::Rsa(bits) => {
            let op = Compute::op("generate an RSA key", move || {
                match rsa::generate(bits).ok().and_then(|der| RsaPrivate::from_pkcs8(&der).ok()) {
                    Some(key) => Computed::of(Private::Rsa(Box::new(key))),
                    None => SideResult::Failed("key generation failed".to_owned()),
                }
            });
            let resume = Box::new(move |cx: &mut Cx<'_, '_>, result: &SideResult| match result {
                SideResult::Value(made) => {
                    then(cx, made.get::<Private>().ok_or_else(|| Error::internal("another value than a key"))?)
                }
                other => Err(Error::internal(format!("generating a key: {other:?}"))),
            });
            return Ok(Step::Side { op, resume });
        }
    };
    then(cx, &made)
}
