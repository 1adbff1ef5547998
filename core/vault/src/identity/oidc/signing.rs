//! Key pairs of identity tokens: making them, signing and checking JWTs (RFC 7515, RFC 7518), and their public halves as
//! JWK (RFC 7517, RFC 8037). Making an RSA key takes long: callers do it as a side operation.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_logical::Map;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroize;

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

/// Every algorithm, as discovery lists them.
pub const ALGORITHMS: [Algorithm; 7] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::ES512,
    Algorithm::EdDSA,
];

/// A key pair as it is stored.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// PKCS #8.
    private: Vec<u8>,
    /// RSAPublicKey in DER, an uncompressed point, or 32 bytes of Ed25519.
    pub public: Vec<u8>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.private.zeroize();
    }
}

/// Why a text is no token of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not three parts of base64url around two JSON objects.
    Form,
    /// The header names another algorithm than the key has.
    Algorithm,
    /// The signature is not the key's.
    Signature,
}

impl Algorithm {
    /// Parses the API's text.
    pub fn parse(text: &str) -> Option<Algorithm> {
        ALGORITHMS.into_iter().find(|a| a.as_str() == text)
    }

    /// As JOSE names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::RS256 => "RS256",
            Algorithm::RS384 => "RS384",
            Algorithm::RS512 => "RS512",
            Algorithm::ES256 => "ES256",
            Algorithm::ES384 => "ES384",
            Algorithm::ES512 => "ES512",
            Algorithm::EdDSA => "EdDSA",
        }
    }

    fn ecdsa(self) -> Option<(&'static signature::EcdsaSigningAlgorithm, &'static str)> {
        match self {
            Algorithm::ES256 => Some((&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")),
            Algorithm::ES384 => Some((&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")),
            Algorithm::ES512 => Some((&signature::ECDSA_P521_SHA512_FIXED_SIGNING, "P-521")),
            _ => None,
        }
    }

    fn verifier(self) -> &'static dyn signature::VerificationAlgorithm {
        match self {
            Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
            Algorithm::ES512 => &signature::ECDSA_P521_SHA512_FIXED,
            Algorithm::EdDSA => &signature::ED25519,
        }
    }
}

impl Pair {
    /// Makes a pair; the library draws its own randomness. `None` if the library fails.
    pub fn generate(algorithm: Algorithm) -> Option<Pair> {
        let rng = SystemRandom::new();
        if let Some((curve, _)) = algorithm.ecdsa() {
            let document = EcdsaKeyPair::generate_pkcs8(curve, &rng).ok()?;
            let pair = EcdsaKeyPair::from_pkcs8(curve, document.as_ref()).ok()?;
            return Some(Pair { private: document.as_ref().to_vec(), public: pair.public_key().as_ref().to_vec() });
        }
        if algorithm == Algorithm::EdDSA {
            let document = Ed25519KeyPair::generate_pkcs8(&rng).ok()?;
            let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).ok()?;
            return Some(Pair { private: document.as_ref().to_vec(), public: pair.public_key().as_ref().to_vec() });
        }
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).ok()?;
        let private: Pkcs8V1Der<'_> = pair.as_der().ok()?;
        Some(Pair { private: private.as_ref().to_vec(), public: pair.public_key().as_ref().to_vec() })
    }

    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Option<Vec<u8>> {
        let rng = SystemRandom::new();
        if let Some((curve, _)) = algorithm.ecdsa() {
            let pair = EcdsaKeyPair::from_pkcs8(curve, &self.private).ok()?;
            return Some(pair.sign(&rng, message).ok()?.as_ref().to_vec());
        }
        if algorithm == Algorithm::EdDSA {
            return Some(Ed25519KeyPair::from_pkcs8(&self.private).ok()?.sign(message).as_ref().to_vec());
        }
        let padding = match algorithm {
            Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
            Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
            _ => &signature::RSA_PKCS1_SHA256,
        };
        let pair = RsaKeyPair::from_pkcs8(&self.private).ok()?;
        let mut out = vec![0; pair.public_modulus_len()];
        pair.sign(padding, &rng, message, &mut out).ok()?;
        Some(out)
    }

    /// A signed token with these claims; `None` if the library fails.
    pub fn token(&self, algorithm: Algorithm, kid: &str, claims: &Map) -> Option<String> {
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let header = json!({"alg": algorithm.as_str(), "kid": kid, "typ": "JWT"});
        let mut out = format!("{}.{}", part(&header), part(&Value::Object(claims.clone())));
        let signature = self.sign(algorithm, out.as_bytes())?;
        out.push('.');
        out.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Some(out)
    }
}

/// The `kid` that a token names; nothing of it is checked.
pub fn kid_of(token: &str) -> Option<String> {
    object(token.split('.').next()?)?.get("kid")?.as_str().map(str::to_owned)
}

fn object(part: &str) -> Option<Map> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// The claims of a token that this public key signed.
///
/// # Errors
/// The header's algorithm must be the key's own: a token does not choose how it is checked.
pub fn verify(algorithm: Algorithm, public: &[u8], token: &str) -> Result<Map, Malformed> {
    let mut parts = token.split('.');
    let (Some(head), Some(body), Some(tail), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(Malformed::Form);
    };
    let header = object(head).ok_or(Malformed::Form)?;
    if header.get("alg").and_then(Value::as_str) != Some(algorithm.as_str()) {
        return Err(Malformed::Algorithm);
    }
    let signature = URL_SAFE_NO_PAD.decode(tail).map_err(|_| Malformed::Form)?;
    let signed = &token[..head.len() + 1 + body.len()];
    let key = UnparsedPublicKey::new(algorithm.verifier(), public);
    key.verify(signed.as_bytes(), &signature).map_err(|_| Malformed::Signature)?;
    object(body).ok_or(Malformed::Form)
}

/// The public key as a JWK.
pub fn jwk(algorithm: Algorithm, kid: &str, public: &[u8]) -> Option<Value> {
    let text = |b: &[u8]| URL_SAFE_NO_PAD.encode(b);
    let mut out = json!({"use": "sig", "kid": kid, "alg": algorithm.as_str()});
    if let Some((_, curve)) = algorithm.ecdsa() {
        // SEC 1 2.3.3: 04, then both coordinates at full length
        let (x, y) = public.get(1..)?.split_at_checked((public.len() - 1) / 2)?;
        (out["kty"], out["crv"], out["x"], out["y"]) = ("EC".into(), curve.into(), text(x).into(), text(y).into());
    } else if algorithm == Algorithm::EdDSA {
        (out["kty"], out["crv"], out["x"]) = ("OKP".into(), "Ed25519".into(), text(public).into());
    } else {
        let (n, e) = rsa_numbers(public)?;
        (out["kty"], out["n"], out["e"]) = ("RSA".into(), text(n).into(), text(e).into());
    }
    Some(out)
}

/// Modulus and exponent out of RSAPublicKey (RFC 8017 A.1.1): a sequence of two integers. It was written by the library
/// that made the key.
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    fn element(tag: u8, from: &[u8]) -> Option<(&[u8], &[u8])> {
        let (head, rest) = from.split_at_checked(2)?;
        if head[0] != tag {
            return None;
        }
        let (length, rest) = match head[1] {
            short @ 0..=0x7f => (usize::from(short), rest),
            long => {
                let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                (bytes.iter().fold(0usize, |n, b| n << 8 | usize::from(*b)), rest)
            }
        };
        rest.split_at_checked(length)
    }
    fn unsigned(bytes: &[u8]) -> &[u8] {
        bytes.strip_prefix(&[0]).unwrap_or(bytes)
    }
    let (sequence, _) = element(0x30, der)?;
    let (n, rest) = element(0x02, sequence)?;
    let (e, _) = element(0x02, rest)?;
    Some((unsigned(n), unsigned(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_signs_and_checks() {
        let claims = json!({"sub": "x", "exp": 7}).as_object().cloned().unwrap();
        for algorithm in ALGORITHMS {
            let pair = Pair::generate(algorithm).unwrap();
            let token = pair.token(algorithm, "k1", &claims).unwrap();
            assert_eq!(kid_of(&token).as_deref(), Some("k1"));
            assert_eq!(verify(algorithm, &pair.public, &token).as_ref(), Ok(&claims), "{algorithm:?}");
            let other = Pair::generate(algorithm).unwrap();
            assert_eq!(verify(algorithm, &other.public, &token), Err(Malformed::Signature));
            let jwk = jwk(algorithm, "k1", &pair.public).unwrap();
            assert_eq!((jwk["alg"].as_str(), jwk["kid"].as_str()), (Some(algorithm.as_str()), Some("k1")));
            let coordinate = jwk.get("x").or_else(|| jwk.get("n")).and_then(Value::as_str).unwrap();
            let bytes = URL_SAFE_NO_PAD.decode(coordinate).unwrap().len();
            let expected = match algorithm {
                Algorithm::ES256 | Algorithm::EdDSA => 32,
                Algorithm::ES384 => 48,
                Algorithm::ES512 => 66,
                _ => 256,
            };
            assert_eq!(bytes, expected, "{algorithm:?}");
        }
    }

    /// A token that names another algorithm, or none, is checked as the key says and so refused.
    #[test]
    fn a_token_does_not_choose_how_it_is_checked() {
        let pair = Pair::generate(Algorithm::ES256).unwrap();
        let part = |v: Value| URL_SAFE_NO_PAD.encode(v.to_string());
        for alg in ["none", "HS256", "RS256", "EdDSA", ""] {
            let token = format!("{}.{}.", part(json!({"alg": alg})), part(json!({"sub": "root"})));
            assert_eq!(verify(Algorithm::ES256, &pair.public, &token), Err(Malformed::Algorithm), "{alg}");
        }
        let token = format!("{}.{}.", part(json!({"alg": "ES256"})), part(json!({"sub": "root"})));
        assert_eq!(verify(Algorithm::ES256, &pair.public, &token), Err(Malformed::Signature));
        for bad in ["", ".", "a.b", "a.b.c.d", "!.!.!"] {
            assert_eq!(verify(Algorithm::ES256, &pair.public, bad), Err(Malformed::Form), "{bad}");
        }
    }
}
