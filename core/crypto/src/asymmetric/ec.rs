//! ECDSA (FIPS 186-5) on P-256, P-384 and P-521, over digests of any length.
//!
//! aws-lc's safe interface ties each curve to its hashes. ECDSA itself does not: it takes the leftmost bits of the
//! digest, as many as the group order has, as a number (FIPS 186-5, 6.4.1). So any digest is brought to the length of
//! the one hash each curve is used with here: cut when longer, and led by zeros when shorter, which is the same number.

use super::{NotAKey, Refused};
use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::encoding::PublicKeyX509Der;
use aws_lc_rs::encoding::{AsBigEndian, AsDer, EcPrivateKeyBin, EcPrivateKeyRfc5915Der, EcPublicKeyUncompressedBin};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_ASN1, ECDSA_P521_SHA512_ASN1_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, KeyPair, UnparsedPublicKey,
};
use zeroize::Zeroizing;

/// A NIST curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Curve {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
    /// secp521r1.
    P521,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// DER: SEQUENCE of two INTEGERs (RFC 3279 2.2.3).
    Asn1,
    /// `r || s`, each as long as the field (RFC 7518 3.4).
    Fixed,
}

impl Curve {
    /// `P-256` and so on.
    pub fn name(self) -> &'static str {
        match self {
            Curve::P256 => "P-256",
            Curve::P384 => "P-384",
            Curve::P521 => "P-521",
        }
    }

    /// Bytes of a coordinate.
    pub fn field_bytes(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
            Curve::P521 => 66,
        }
    }

    fn signing(self, form: Form) -> &'static EcdsaSigningAlgorithm {
        match (self, form) {
            (Curve::P256, Form::Asn1) => &ECDSA_P256_SHA256_ASN1_SIGNING,
            (Curve::P256, Form::Fixed) => &ECDSA_P256_SHA256_FIXED_SIGNING,
            (Curve::P384, Form::Asn1) => &ECDSA_P384_SHA384_ASN1_SIGNING,
            (Curve::P384, Form::Fixed) => &ECDSA_P384_SHA384_FIXED_SIGNING,
            (Curve::P521, Form::Asn1) => &ECDSA_P521_SHA512_ASN1_SIGNING,
            (Curve::P521, Form::Fixed) => &ECDSA_P521_SHA512_FIXED_SIGNING,
        }
    }

    fn verification(self, form: Form) -> &'static EcdsaVerificationAlgorithm {
        match (self, form) {
            (Curve::P256, Form::Asn1) => &ECDSA_P256_SHA256_ASN1,
            (Curve::P256, Form::Fixed) => &ECDSA_P256_SHA256_FIXED,
            (Curve::P384, Form::Asn1) => &ECDSA_P384_SHA384_ASN1,
            (Curve::P384, Form::Fixed) => &ECDSA_P384_SHA384_FIXED,
            (Curve::P521, Form::Asn1) => &ECDSA_P521_SHA512_ASN1,
            (Curve::P521, Form::Fixed) => &ECDSA_P521_SHA512_FIXED,
        }
    }

    /// The digest in the length of this curve's hash, see the module's text.
    fn fit(self, digest: &[u8]) -> Digest {
        let algorithm = match self {
            Curve::P256 => &digest::SHA256,
            Curve::P384 => &digest::SHA384,
            Curve::P521 => &digest::SHA512,
        };
        let length = algorithm.output_len();
        let mut fitted = [0; 64];
        let taken = &digest[..digest.len().min(length)];
        fitted[length - taken.len()..length].copy_from_slice(taken);
        Digest::import_less_safe(&fitted[..length], algorithm).expect("the length is the algorithm's own")
    }
}

/// A private key.
pub struct EcPrivate {
    curve: Curve,
    pkcs8: Zeroizing<Vec<u8>>,
    asn1: EcdsaKeyPair,
    fixed: EcdsaKeyPair,
}

impl std::fmt::Debug for EcPrivate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EcPrivate({})", self.curve.name())
    }
}

impl EcPrivate {
    /// A fresh key.
    ///
    /// # Errors
    /// The library failed.
    pub fn generate(curve: Curve) -> Result<EcPrivate, Refused> {
        let pair = EcdsaKeyPair::generate(curve.signing(Form::Asn1)).map_err(|_| Refused)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| Refused)?;
        EcPrivate::from_pkcs8(curve, pkcs8.as_ref()).map_err(|_| Refused)
    }

    /// From PKCS #8 DER.
    ///
    /// # Errors
    /// It is no key on this curve.
    pub fn from_pkcs8(curve: Curve, der: &[u8]) -> Result<EcPrivate, NotAKey> {
        let pair = |form| EcdsaKeyPair::from_pkcs8(curve.signing(form), der).map_err(|_| NotAKey);
        let (asn1, fixed) = (pair(Form::Asn1)?, pair(Form::Fixed)?);
        let own: Vec<u8> = asn1.to_pkcs8v1().map_err(|_| NotAKey)?.as_ref().to_vec();
        Ok(EcPrivate { curve, pkcs8: Zeroizing::new(own), asn1, fixed })
    }

    /// From the `ECPrivateKey` of RFC 5915, DER.
    ///
    /// # Errors
    /// It is no key on this curve.
    pub fn from_sec1(curve: Curve, der: &[u8]) -> Result<EcPrivate, NotAKey> {
        let pair = EcdsaKeyPair::from_private_key_der(curve.signing(Form::Asn1), der).map_err(|_| NotAKey)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| NotAKey)?;
        EcPrivate::from_pkcs8(curve, pkcs8.as_ref())
    }

    /// From the private scalar and the public point's coordinates, big endian without leading zeros.
    ///
    /// # Errors
    /// They do not fit each other or the curve.
    pub fn from_numbers(curve: Curve, d: &[u8], x: &[u8], y: &[u8]) -> Result<EcPrivate, NotAKey> {
        let width = curve.field_bytes();
        let point = [&[4], &padded(x, width)?[..], &padded(y, width)?[..]].concat();
        let d = Zeroizing::new(padded(d, width)?);
        let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.signing(Form::Asn1), &d, &point)
            .map_err(|_| NotAKey)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| NotAKey)?;
        EcPrivate::from_pkcs8(curve, pkcs8.as_ref())
    }

    /// Its curve.
    pub fn curve(&self) -> Curve {
        self.curve
    }

    /// PKCS #8 DER.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The `ECPrivateKey` of RFC 5915, DER.
    ///
    /// # Errors
    /// The library failed.
    pub fn sec1(&self) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let der: EcPrivateKeyRfc5915Der<'_> = self.asn1.private_key().as_der().map_err(|_| Refused)?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    /// The private scalar, as long as the field.
    ///
    /// # Errors
    /// The library failed.
    pub fn scalar(&self) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let d: EcPrivateKeyBin<'_> = self.asn1.private_key().as_be_bytes().map_err(|_| Refused)?;
        Ok(Zeroizing::new(d.as_ref().to_vec()))
    }

    /// The public half.
    ///
    /// # Errors
    /// The library failed.
    pub fn public(&self) -> Result<EcPublic, Refused> {
        let spki: PublicKeyX509Der<'_> = self.asn1.public_key().as_der().map_err(|_| Refused)?;
        let point: EcPublicKeyUncompressedBin<'_> = self.asn1.public_key().as_be_bytes().map_err(|_| Refused)?;
        Ok(EcPublic { curve: self.curve, spki: spki.as_ref().to_vec(), point: point.as_ref().to_vec() })
    }

    /// Signs a digest of any length.
    ///
    /// # Errors
    /// The library failed.
    pub fn sign(&self, digest: &[u8], form: Form) -> Result<Vec<u8>, Refused> {
        let pair = if form == Form::Asn1 { &self.asn1 } else { &self.fixed };
        Ok(pair.sign_digest(&self.curve.fit(digest)).map_err(|_| Refused)?.as_ref().to_vec())
    }
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcPublic {
    curve: Curve,
    spki: Vec<u8>,
    point: Vec<u8>,
}

impl EcPublic {
    /// From a `SubjectPublicKeyInfo`, DER.
    ///
    /// # Errors
    /// It is no key on this curve.
    pub fn from_spki(curve: Curve, der: &[u8]) -> Result<EcPublic, NotAKey> {
        use rsa::pkcs8::der::Decode;
        use rsa::pkcs8::spki::SubjectPublicKeyInfoRef;
        let parsed = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| NotAKey)?;
        let point = parsed.subject_public_key.as_bytes().ok_or(NotAKey)?.to_vec();
        UnparsedPublicKey::new(curve.verification(Form::Asn1), der).parse().map_err(|_| NotAKey)?;
        if point.len() != 1 + 2 * curve.field_bytes() || point[0] != 4 {
            return Err(NotAKey);
        }
        Ok(EcPublic { curve, spki: der.to_vec(), point })
    }

    /// Its curve.
    pub fn curve(&self) -> Curve {
        self.curve
    }

    /// `SubjectPublicKeyInfo`, DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The point: `04 || x || y`.
    pub fn point(&self) -> &[u8] {
        &self.point
    }

    /// True if the signature is one of this digest by this key.
    pub fn verify(&self, digest: &[u8], signature: &[u8], form: Form) -> bool {
        UnparsedPublicKey::new(self.curve.verification(form), &self.point)
            .verify_digest(&self.curve.fit(digest), signature)
            .is_ok()
    }
}

/// A number at a width.
fn padded(number: &[u8], width: usize) -> Result<Vec<u8>, NotAKey> {
    let significant = &number[number.iter().take_while(|b| **b == 0).count()..];
    let missing = width.checked_sub(significant.len()).ok_or(NotAKey)?;
    let mut out = vec![0; missing];
    out.extend_from_slice(significant);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Hash;

    const CURVES: [Curve; 3] = [Curve::P256, Curve::P384, Curve::P521];

    #[test]
    fn every_hash_on_every_curve_in_both_forms() {
        for curve in CURVES {
            let key = EcPrivate::generate(curve).unwrap();
            let public = key.public().unwrap();
            for hash in Hash::ALL {
                let digest = hash.digest(b"text");
                for form in [Form::Asn1, Form::Fixed] {
                    let signature = key.sign(&digest, form).unwrap();
                    assert!(public.verify(&digest, &signature, form), "{curve:?} {hash:?} {form:?}");
                    assert!(!public.verify(&hash.digest(b"other"), &signature, form));
                    if form == Form::Fixed {
                        assert_eq!(signature.len(), 2 * curve.field_bytes());
                    }
                }
            }
        }
    }

    #[test]
    fn a_published_signature_with_a_hash_that_is_not_the_curves_own_verifies() {
        // RFC 6979 A.2.5: P-256 with SHA-1, SHA-384 and SHA-512 over "sample".
        let unhex = |s: &str| hex::decode(s).unwrap();
        let key = EcPrivate::from_numbers(
            Curve::P256,
            &unhex("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721"),
            &unhex("60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"),
            &unhex("7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"),
        )
        .unwrap();
        for (hash, r, s) in [
            (
                Hash::Sha1,
                "61340C88C3AAEBEB4F6D667F672CA9759A6CCAA9FA8811313039EE4A35471D32",
                "6D7F147DAC089441BB2E2FE8F7A3FA264B9C475098FDCF6E00D7C996E1B8B7EB",
            ),
            (
                Hash::Sha512,
                "8496A60B5E9B47C825488827E0495B0E3FA109EC4568FD3F8D1097678EB97F00",
                "2362AB1ADBE2B8ADF9CB9EDAB740EA6049C028114F2460F96554F61FAE3302FE",
            ),
        ] {
            let signature = [unhex(r), unhex(s)].concat();
            assert!(key.public().unwrap().verify(&hash.digest(b"sample"), &signature, Form::Fixed), "{hash:?}");
        }
    }

    #[test]
    fn keys_survive_their_encodings() {
        for curve in CURVES {
            let key = EcPrivate::generate(curve).unwrap();
            let public = key.public().unwrap();
            assert_eq!(EcPublic::from_spki(curve, public.spki()).unwrap(), public);
            assert_eq!(EcPrivate::from_pkcs8(curve, key.pkcs8()).unwrap().public().unwrap(), public);
            let width = curve.field_bytes();
            let (x, y) = public.point()[1..].split_at(width);
            let again = EcPrivate::from_numbers(curve, &key.scalar().unwrap(), x, y).unwrap();
            assert_eq!(again.pkcs8(), key.pkcs8());
            assert_eq!(EcPrivate::from_sec1(curve, &key.sec1().unwrap()).unwrap().pkcs8(), key.pkcs8());
            assert!(EcPrivate::from_numbers(curve, &[1], x, y).is_err(), "a scalar of another point");
            for other in CURVES.into_iter().filter(|c| *c != curve) {
                assert!(EcPrivate::from_pkcs8(other, key.pkcs8()).is_err());
                assert!(EcPublic::from_spki(other, public.spki()).is_err());
            }
        }
        assert!(EcPrivate::from_pkcs8(Curve::P256, b"junk").is_err());
        assert!(EcPublic::from_spki(Curve::P256, b"junk").is_err());
    }
}
