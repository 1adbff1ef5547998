//! Private keys: their kinds and sizes, generation, the forms they are read and written in, signatures.
//!
//! Everything cryptographic is aws-lc-rs; a stored key is its PKCS#8 document. Generating an RSA key takes a tenth of
//! a second and more, so callers that stand on a core ask for it by [`generate_then`], which leaves the core for it.

use crate::pem;
use aws_lc_rs::encoding::{AsBigEndian, AsDer, EcPrivateKeyBin, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature as sig;
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair, PqdsaKeyPair, RsaKeyPair};
use der::asn1::{AnyRef, BitString, ObjectIdentifier};
use der::{Any, Decode, Encode};
use pkcs8::PrivateKeyInfo;
use ringfence_logical::{Compute, Computed, Cx, Error, SideResult, Step};
use x509_cert::spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef, SubjectPublicKeyInfoOwned};
use zeroize::Zeroizing;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
/// ML-DSA-44, -65, -87 (FIPS 204, NIST's arc).
const ML_DSA: [(u32, ObjectIdentifier); 3] = [
    (44, ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.17")),
    (65, ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.18")),
    (87, ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.19")),
];

/// The family of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// RSA.
    Rsa,
    /// ECDSA over a NIST curve.
    Ec,
    /// Ed25519.
    Ed25519,
    /// ML-DSA, FIPS 204.
    MlDsa,
}

impl Kind {
    /// As the API prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Rsa => "rsa",
            Kind::Ec => "ec",
            Kind::Ed25519 => "ed25519",
            Kind::MlDsa => "ml-dsa",
        }
    }
}

/// What key is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Spec {
    /// Family.
    pub kind: Kind,
    /// Modulus, curve or parameter set; 0 for Ed25519.
    pub bits: u32,
}

impl Spec {
    /// From the API's `key_type` and `key_bits` (0 = the family's default).
    ///
    /// # Errors
    /// Unknown family or size (400).
    pub fn parse(key_type: &str, key_bits: i64) -> Result<Spec, Error> {
        let spec = |kind, bits| Ok(Spec { kind, bits });
        match (key_type, key_bits) {
            ("rsa" | "", 0) => spec(Kind::Rsa, 2048),
            ("rsa" | "", 2048 | 3072 | 4096 | 8192) => spec(Kind::Rsa, key_bits as u32),
            ("rsa" | "", n) => Err(Error::invalid(format!("unsupported bit length for RSA key: {n}"))),
            ("ec", 0) => spec(Kind::Ec, 256),
            ("ec", 256 | 384 | 521) => spec(Kind::Ec, key_bits as u32),
            ("ec", n) => Err(Error::invalid(format!("unsupported bit length for EC key: {n}"))),
            ("ed25519", _) => spec(Kind::Ed25519, 0),
            ("ml-dsa", 0) => spec(Kind::MlDsa, 65),
            ("ml-dsa", 44 | 65 | 87) => spec(Kind::MlDsa, key_bits as u32),
            ("ml-dsa", n) => Err(Error::invalid(format!("unsupported parameter set for ML-DSA key: {n}"))),
            (other, _) => Err(Error::invalid(format!("unknown key type {other}"))),
        }
    }

    /// Generates such a key. Slow for RSA.
    pub fn generate(self) -> Result<Private, Error> {
        let failed = |_| Error::internal(format!("generating a key of type {}", self.kind.as_str()));
        Ok(match self.kind {
            Kind::Rsa => {
                let size = match self.bits {
                    2048 => KeySize::Rsa2048,
                    3072 => KeySize::Rsa3072,
                    4096 => KeySize::Rsa4096,
                    _ => KeySize::Rsa8192,
                };
                Private::Rsa(RsaKeyPair::generate(size).map_err(failed)?)
            }
            Kind::Ec => Private::Ec(EcdsaKeyPair::generate(curve(self.bits)).map_err(failed)?, self.bits),
            Kind::Ed25519 => Private::Ed25519(Ed25519KeyPair::generate().map_err(failed)?),
            Kind::MlDsa => {
                Private::MlDsa(PqdsaKeyPair::generate(parameter_set(self.bits)).map_err(failed)?, self.bits)
            }
        })
    }
}

fn curve(bits: u32) -> &'static sig::EcdsaSigningAlgorithm {
    match bits {
        384 => &sig::ECDSA_P384_SHA384_ASN1_SIGNING,
        521 => &sig::ECDSA_P521_SHA512_ASN1_SIGNING,
        _ => &sig::ECDSA_P256_SHA256_ASN1_SIGNING,
    }
}

fn parameter_set(bits: u32) -> &'static sig::PqdsaSigningAlgorithm {
    match bits {
        44 => &sig::ML_DSA_44_SIGNING,
        87 => &sig::ML_DSA_87_SIGNING,
        _ => &sig::ML_DSA_65_SIGNING,
    }
}

/// What goes on with a generated key.
pub type WithKey = Box<dyn Fn(&mut Cx<'_, '_>, &Private) -> Result<Step, Error> + Send>;

/// Generates a key and goes on with it: on the core if that is quick, otherwise as a computation beside it.
pub fn generate_then(cx: &mut Cx<'_, '_>, spec: Spec, then: WithKey) -> Result<Step, Error> {
    if spec.kind != Kind::Rsa {
        return then(cx, &spec.generate()?);
    }
    let op = Compute::op("generate an RSA key", move || match spec.generate() {
        Ok(key) => Computed::of(key),
        Err(e) => SideResult::Refused(e),
    });
    let resume = Box::new(move |cx: &mut Cx<'_, '_>, result: &SideResult| match result {
        SideResult::Value(v) => match v.get::<Private>() {
            Some(key) => then(cx, key),
            None => Err(Error::internal("the computation made no key")),
        },
        SideResult::Refused(e) => Err(e.clone()),
        other => Err(Error::internal(format!("generating a key: {other:?}"))),
    });
    Ok(Step::Side { op, resume })
}

/// A private key, ready to sign.
pub enum Private {
    /// RSA.
    Rsa(RsaKeyPair),
    /// ECDSA and the bits of the curve.
    Ec(EcdsaKeyPair, u32),
    /// Ed25519.
    Ed25519(Ed25519KeyPair),
    /// ML-DSA and its parameter set.
    MlDsa(PqdsaKeyPair, u32),
}

impl std::fmt::Debug for Private {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Private({:?})", self.spec())
    }
}

impl Private {
    /// Family and size.
    pub fn spec(&self) -> Spec {
        match self {
            Private::Rsa(k) => Spec { kind: Kind::Rsa, bits: (k.public_modulus_len() * 8) as u32 },
            Private::Ec(_, bits) => Spec { kind: Kind::Ec, bits: *bits },
            Private::Ed25519(_) => Spec { kind: Kind::Ed25519, bits: 0 },
            Private::MlDsa(_, bits) => Spec { kind: Kind::MlDsa, bits: *bits },
        }
    }

    /// The PKCS#8 document.
    pub fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let failed = |_| Error::internal("writing a private key");
        Ok(Zeroizing::new(match self {
            Private::Rsa(k) => AsDer::<Pkcs8V1Der<'_>>::as_der(k).map_err(failed)?.as_ref().to_vec(),
            Private::Ec(k, _) => k.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
            Private::Ed25519(k) => k.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
            Private::MlDsa(k, _) => k.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
        }))
    }

    /// From a PKCS#8 document.
    ///
    /// # Errors
    /// The reason, for the client.
    pub fn from_pkcs8(der: &[u8]) -> Result<Private, String> {
        let info = PrivateKeyInfo::from_der(der).map_err(|e| format!("failed to parse the private key: {e}"))?;
        let bad = |e: aws_lc_rs::error::KeyRejected| format!("failed to parse the private key: {e}");
        match info.algorithm.oid {
            RSA => RsaKeyPair::from_pkcs8(der).map(Private::Rsa).map_err(bad),
            ED25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Private::Ed25519).map_err(bad),
            EC => {
                let bits = curve_bits(info.algorithm.parameters)?;
                EcdsaKeyPair::from_pkcs8(curve(bits), der).map(|k| Private::Ec(k, bits)).map_err(bad)
            }
            oid => match ML_DSA.iter().find(|(_, o)| *o == oid) {
                Some((bits, _)) => {
                    PqdsaKeyPair::from_pkcs8(parameter_set(*bits), der).map(|k| Private::MlDsa(k, *bits)).map_err(bad)
                }
                None => Err("unknown private key type".into()),
            },
        }
    }

    /// From a SEC 1 `EC PRIVATE KEY`.
    pub fn from_sec1(der: &[u8]) -> Result<Private, String> {
        let parsed =
            sec1::EcPrivateKey::from_der(der).map_err(|e| format!("failed to parse the private key: {e}"))?;
        let named = parsed.parameters.and_then(|p| p.named_curve()).ok_or("the EC key names no curve")?;
        let bits = bits_of_curve(named).ok_or("the EC key is on an unknown curve")?;
        EcdsaKeyPair::from_private_key_der(curve(bits), der)
            .map(|k| Private::Ec(k, bits))
            .map_err(|e| format!("failed to parse the private key: {e}"))
    }

    /// From a PKCS#1 `RSA PRIVATE KEY`.
    pub fn from_pkcs1(der: &[u8]) -> Result<Private, String> {
        RsaKeyPair::from_der(der).map(Private::Rsa).map_err(|e| format!("failed to parse the private key: {e}"))
    }

    /// The public half as `SubjectPublicKeyInfo`.
    pub fn public(&self) -> Result<SubjectPublicKeyInfoOwned, Error> {
        let failed = |_| Error::internal("writing a public key");
        let x509 = |k: &dyn AsDer<PublicKeyX509Der<'static>>| k.as_der().map_err(failed);
        let der = match self {
            Private::Rsa(k) => x509(k.public_key())?,
            // of the point that the key has at hand: the library's own form of it inverts in the field once more, which
            // costs a tenth of a signature
            Private::Ec(k, bits) => {
                let coding = |_| Error::internal("writing a public key");
                let parameters = Any::encode_from(&curve_oid(*bits)).map_err(coding)?;
                return Ok(SubjectPublicKeyInfoOwned {
                    algorithm: AlgorithmIdentifierOwned { oid: EC, parameters: Some(parameters) },
                    subject_public_key: BitString::from_bytes(k.public_key().as_ref()).map_err(coding)?,
                });
            }
            Private::Ed25519(k) => x509(k.public_key())?,
            Private::MlDsa(k, _) => x509(k.public_key())?,
        };
        SubjectPublicKeyInfoOwned::from_der(der.as_ref()).map_err(|e| Error::internal(format!("public key: {e}")))
    }

    /// The traditional form of the family (PKCS#1, SEC 1, otherwise PKCS#8) with its PEM label.
    pub fn traditional(&self) -> Result<(&'static str, Zeroizing<Vec<u8>>), Error> {
        Ok(match self {
            Private::Rsa(_) => {
                let pkcs8 = self.pkcs8()?;
                let info = PrivateKeyInfo::from_der(&pkcs8).map_err(|e| Error::internal(format!("own key: {e}")))?;
                ("RSA PRIVATE KEY", Zeroizing::new(info.private_key.to_vec()))
            }
            Private::Ec(k, bits) => {
                let failed = || Error::internal("writing a private key");
                let scalar: EcPrivateKeyBin<'_> = k.private_key().as_be_bytes().map_err(|_| failed())?;
                let whole = sec1::EcPrivateKey {
                    private_key: scalar.as_ref(),
                    parameters: Some(sec1::EcParameters::NamedCurve(curve_oid(*bits))),
                    public_key: Some(k.public_key().as_ref()),
                };
                ("EC PRIVATE KEY", Zeroizing::new(whole.to_der().map_err(|_| failed())?))
            }
            Private::Ed25519(_) | Private::MlDsa(..) => ("PRIVATE KEY", self.pkcs8()?),
        })
    }

    /// The key as an answer shows it: PEM or base64 of DER; traditional or PKCS#8.
    pub fn shown(&self, format: pem::Format, private_format: &str) -> Result<String, Error> {
        let (label, der) = match private_format {
            "pkcs8" => ("PRIVATE KEY", self.pkcs8()?),
            _ => self.traditional()?,
        };
        Ok(pem::shown(format, label, &der))
    }

    /// Signs.
    pub fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |_| Error::internal("signing");
        let rng = SystemRandom::new();
        Ok(match (self, algorithm) {
            (Private::Rsa(k), Algorithm::Rsa { bits, pss }) => {
                let padding: &dyn sig::RsaEncoding = match (pss, bits) {
                    (false, 256) => &sig::RSA_PKCS1_SHA256,
                    (false, 384) => &sig::RSA_PKCS1_SHA384,
                    (false, _) => &sig::RSA_PKCS1_SHA512,
                    (true, 256) => &sig::RSA_PSS_SHA256,
                    (true, 384) => &sig::RSA_PSS_SHA384,
                    (true, _) => &sig::RSA_PSS_SHA512,
                };
                let mut out = vec![0; k.public_modulus_len()];
                k.sign(padding, &rng, message, &mut out).map_err(failed)?;
                out
            }
            (Private::Ec(k, _), Algorithm::Ecdsa { .. }) => k.sign(&rng, message).map_err(failed)?.as_ref().to_vec(),
            (Private::Ed25519(k), Algorithm::Ed25519) => k.sign(message).as_ref().to_vec(),
            (Private::MlDsa(k, _), Algorithm::MlDsa { .. }) => {
                let mut out = vec![0; k.algorithm().signature_len()];
                let n = k.sign(message, &mut out).map_err(failed)?;
                out.truncate(n);
                out
            }
            _ => return Err(Error::internal("this key does not sign by that algorithm")),
        })
    }

    /// The algorithm that this key signs by, given what the caller would like (`signature_bits` 0 = by the key).
    pub fn algorithm(&self, signature_bits: u32, pss: bool) -> Algorithm {
        match self {
            Private::Rsa(_) => Algorithm::Rsa { bits: if signature_bits == 0 { 256 } else { signature_bits }, pss },
            // the hash goes with the curve (BSI TR-02102, Mozilla's root policy 5.1.2)
            Private::Ec(_, 384) => Algorithm::Ecdsa { bits: 384 },
            Private::Ec(_, 521) => Algorithm::Ecdsa { bits: 512 },
            Private::Ec(..) => Algorithm::Ecdsa { bits: 256 },
            Private::Ed25519(_) => Algorithm::Ed25519,
            Private::MlDsa(_, bits) => Algorithm::MlDsa { set: *bits },
        }
    }
}

/// Checks `signature_bits` as requests and roles give it.
pub fn signature_bits(n: i64) -> Result<u32, Error> {
    match n {
        0 | 256 | 384 | 512 => Ok(n as u32),
        _ => Err(Error::invalid(format!("unsupported hash signature algorithm: {n}"))),
    }
}

fn curve_bits(parameters: Option<AnyRef<'_>>) -> Result<u32, String> {
    let named = parameters.and_then(|p| p.decode_as::<ObjectIdentifier>().ok()).ok_or("the EC key names no curve")?;
    bits_of_curve(named).ok_or_else(|| "the EC key is on an unknown curve".into())
}

fn curve_oid(bits: u32) -> ObjectIdentifier {
    match bits {
        384 => P384,
        521 => P521,
        _ => P256,
    }
}

fn bits_of_curve(oid: ObjectIdentifier) -> Option<u32> {
    match oid {
        P256 => Some(256),
        P384 => Some(384),
        P521 => Some(521),
        _ => None,
    }
}

/// How a signature is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA, PKCS#1 v1.5 or PSS.
    Rsa {
        /// Of the hash.
        bits: u32,
        /// PSS, with a salt as long as the hash.
        pss: bool,
    },
    /// ECDSA.
    Ecdsa {
        /// Of the hash.
        bits: u32,
    },
    /// Ed25519.
    Ed25519,
    /// ML-DSA.
    MlDsa {
        /// Parameter set.
        set: u32,
    },
}

impl Algorithm {
    /// By the name that `revocation_signature_algorithm` takes (Go's names).
    pub fn by_name(name: &str) -> Option<Algorithm> {
        Some(match name.to_ascii_lowercase().replace('-', "").as_str() {
            "sha256withrsa" => Algorithm::Rsa { bits: 256, pss: false },
            "sha384withrsa" => Algorithm::Rsa { bits: 384, pss: false },
            "sha512withrsa" => Algorithm::Rsa { bits: 512, pss: false },
            "sha256withrsapss" => Algorithm::Rsa { bits: 256, pss: true },
            "sha384withrsapss" => Algorithm::Rsa { bits: 384, pss: true },
            "sha512withrsapss" => Algorithm::Rsa { bits: 512, pss: true },
            "ecdsawithsha256" => Algorithm::Ecdsa { bits: 256 },
            "ecdsawithsha384" => Algorithm::Ecdsa { bits: 384 },
            "ecdsawithsha512" => Algorithm::Ecdsa { bits: 512 },
            "ed25519" | "pureed25519" => Algorithm::Ed25519,
            _ => return None,
        })
    }

    /// The `AlgorithmIdentifier` (RFC 4055, 5758, 8410, 9881).
    pub fn identifier(self) -> Result<AlgorithmIdentifierOwned, Error> {
        let coded = |e: der::Error| Error::internal(format!("algorithm: {e}"));
        let oid = |text| ObjectIdentifier::new_unwrap(text);
        Ok(match self {
            Algorithm::Rsa { bits, pss: false } => AlgorithmIdentifierOwned {
                oid: match bits {
                    256 => oid("1.2.840.113549.1.1.11"),
                    384 => oid("1.2.840.113549.1.1.12"),
                    _ => oid("1.2.840.113549.1.1.13"),
                },
                parameters: Some(Any::null()),
            },
            Algorithm::Rsa { bits, pss: true } => {
                let (hash, salt_len) = match bits {
                    256 => (SHA256, 32),
                    384 => (SHA384, 48),
                    _ => (SHA512, 64),
                };
                let hash = AlgorithmIdentifierRef { oid: hash, parameters: Some(AnyRef::NULL) };
                let parameters = pkcs1::RsaPssParams {
                    hash,
                    mask_gen: x509_cert::spki::AlgorithmIdentifier { oid: MGF1, parameters: Some(hash) },
                    salt_len,
                    trailer_field: Default::default(),
                };
                let der = parameters.to_der().map_err(coded)?;
                AlgorithmIdentifierOwned { oid: RSA_PSS, parameters: Some(Any::from_der(&der).map_err(coded)?) }
            }
            Algorithm::Ecdsa { bits } => AlgorithmIdentifierOwned {
                oid: match bits {
                    256 => oid("1.2.840.10045.4.3.2"),
                    384 => oid("1.2.840.10045.4.3.3"),
                    _ => oid("1.2.840.10045.4.3.4"),
                },
                parameters: None,
            },
            Algorithm::Ed25519 => AlgorithmIdentifierOwned { oid: ED25519, parameters: None },
            Algorithm::MlDsa { set } => AlgorithmIdentifierOwned {
                oid: ML_DSA.iter().find(|(s, _)| *s == set).map_or(ML_DSA[1].1, |(_, o)| *o),
                parameters: None,
            },
        })
    }
}

/// A public key that somebody else made (in a request): family, size, and the algorithm that checks its signatures.
pub fn public_spec(spki: &SubjectPublicKeyInfoOwned) -> Result<Spec, String> {
    let oid = spki.algorithm.oid;
    Ok(match oid {
        RSA | RSA_PSS => {
            let key = pkcs1::RsaPublicKey::from_der(spki.subject_public_key.raw_bytes())
                .map_err(|e| format!("the RSA public key cannot be parsed: {e}"))?;
            let modulus = key.modulus.as_bytes();
            let leading = modulus.first().map_or(0, |b| b.leading_zeros());
            Spec { kind: Kind::Rsa, bits: modulus.len() as u32 * 8 - leading }
        }
        EC => Spec { kind: Kind::Ec, bits: curve_bits(spki.algorithm.parameters.as_ref().map(|a| a.into()))? },
        ED25519 => Spec { kind: Kind::Ed25519, bits: 0 },
        _ => match ML_DSA.iter().find(|(_, o)| *o == oid) {
            Some((bits, _)) => Spec { kind: Kind::MlDsa, bits: *bits },
            None => return Err("unsupported public key algorithm".into()),
        },
    })
}

/// Checks a signature over a DER message; the algorithm identifier comes with the signed thing.
pub fn verify(
    spki: &SubjectPublicKeyInfoOwned,
    algorithm: &AlgorithmIdentifierOwned,
    message: &[u8],
    signature: &[u8],
) -> Result<(), String> {
    let spec = public_spec(spki)?;
    let name = algorithm.oid.to_string();
    let pss_hash = || {
        let der = algorithm.parameters.as_ref().and_then(|p| p.to_der().ok())?;
        pkcs1::RsaPssParams::from_der(&der).ok().map(|p| p.hash.oid)
    };
    let by: &dyn sig::VerificationAlgorithm = match (spec.kind, spec.bits, name.as_str()) {
        (Kind::Rsa, _, "1.2.840.113549.1.1.11") => &sig::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        (Kind::Rsa, _, "1.2.840.113549.1.1.12") => &sig::RSA_PKCS1_2048_8192_SHA384,
        (Kind::Rsa, _, "1.2.840.113549.1.1.13") => &sig::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        (Kind::Rsa, _, "1.2.840.113549.1.1.10") => match pss_hash() {
            Some(SHA256) => &sig::RSA_PSS_2048_8192_SHA256,
            Some(SHA384) => &sig::RSA_PSS_2048_8192_SHA384,
            Some(SHA512) => &sig::RSA_PSS_2048_8192_SHA512,
            _ => return Err("unsupported PSS parameters".into()),
        },
        (Kind::Ec, 256, "1.2.840.10045.4.3.2") => &sig::ECDSA_P256_SHA256_ASN1,
        (Kind::Ec, 256, "1.2.840.10045.4.3.3") => &sig::ECDSA_P256_SHA384_ASN1,
        (Kind::Ec, 384, "1.2.840.10045.4.3.2") => &sig::ECDSA_P384_SHA256_ASN1,
        (Kind::Ec, 384, "1.2.840.10045.4.3.3") => &sig::ECDSA_P384_SHA384_ASN1,
        (Kind::Ec, 521, "1.2.840.10045.4.3.2") => &sig::ECDSA_P521_SHA256_ASN1,
        (Kind::Ec, 521, "1.2.840.10045.4.3.3") => &sig::ECDSA_P521_SHA384_ASN1,
        (Kind::Ec, 521, "1.2.840.10045.4.3.4") => &sig::ECDSA_P521_SHA512_ASN1,
        (Kind::Ed25519, _, "1.3.101.112") => &sig::ED25519,
        (Kind::MlDsa, 44, "2.16.840.1.101.3.4.3.17") => &sig::ML_DSA_44,
        (Kind::MlDsa, 65, "2.16.840.1.101.3.4.3.18") => &sig::ML_DSA_65,
        (Kind::MlDsa, 87, "2.16.840.1.101.3.4.3.19") => &sig::ML_DSA_87,
        _ => return Err(format!("unsupported signature algorithm {name}")),
    };
    sig::UnparsedPublicKey::new(by, spki.subject_public_key.raw_bytes())
        .verify(message, signature)
        .map_err(|_| "the signature does not verify".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_signs_verifies_and_comes_back_from_its_forms() {
        for (kind, bits) in [
            ("rsa", 2048),
            ("ec", 256),
            ("ec", 384),
            ("ec", 521),
            ("ed25519", 0),
            ("ml-dsa", 44),
            ("ml-dsa", 65),
            ("ml-dsa", 87),
        ] {
            let key = Spec::parse(kind, bits).unwrap().generate().unwrap();
            let public = key.public().unwrap();
            assert_eq!(public_spec(&public).unwrap(), key.spec());
            for pss in [false, true] {
                let algorithm = key.algorithm(0, pss);
                let signature = key.sign(algorithm, b"message").unwrap();
                let identifier = algorithm.identifier().unwrap();
                verify(&public, &identifier, b"message", &signature).unwrap_or_else(|e| panic!("{kind} {bits}: {e}"));
                assert!(verify(&public, &identifier, b"massage", &signature).is_err());
            }
            let again = Private::from_pkcs8(&key.pkcs8().unwrap()).unwrap();
            assert_eq!(again.public().unwrap(), public);
            let (label, der) = key.traditional().unwrap();
            let back = match label {
                "RSA PRIVATE KEY" => Private::from_pkcs1(&der),
                "EC PRIVATE KEY" => Private::from_sec1(&der),
                _ => Private::from_pkcs8(&der),
            };
            assert_eq!(back.unwrap().public().unwrap(), public, "{label}");
        }
    }

    #[test]
    fn sizes_that_there_are_not() {
        for (kind, bits, text) in [
            ("rsa", 1024, "unsupported bit length for RSA key: 1024"),
            ("ec", 255, "unsupported bit length for EC key: 255"),
            ("dsa", 0, "unknown key type dsa"),
        ] {
            assert_eq!(Spec::parse(kind, bits).unwrap_err().text(), text);
        }
        assert!(signature_bits(100).is_err() && signature_bits(384).is_ok());
    }
}
