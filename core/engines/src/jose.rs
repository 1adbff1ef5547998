//! Signed tokens of others (RFC 7515, 7517, 7518, 8037): taken apart, verified, and their times judged. Used by the
//! auth methods that trust a foreign issuer; nothing here makes a token.
//!
//! Only asymmetric algorithms are known, and a key knows which of them it can stand for: a token cannot turn a public
//! key into an HMAC secret, and `none` is no algorithm. The signature checks are aws-lc-rs's.

use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_base::Wall;
use ringfence_logical::Map;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde_json::Value;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey;

/// Longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 64 * 1024;
/// Most keys that a key set may have; the rest is not looked at.
pub const MAX_KEYS: usize = 128;

/// The signature algorithms there are. Source: RFC 7518 3.1 and RFC 8037 3.1 without HMAC and `none`.
pub const ALGORITHMS: &[&str] =
    &["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA"];

/// A token taken apart. Unchecked: only [`Token::verify`] gives the claims to be trusted.
pub struct Token<'t> {
    /// `alg` of the header.
    pub algorithm: String,
    /// `kid` of the header, or empty.
    pub key_id: String,
    claims: Map,
    signed: &'t str,
    signature: Vec<u8>,
}

impl<'t> Token<'t> {
    /// Takes a compact serialisation apart.
    ///
    /// # Errors
    /// What is wrong with its form.
    pub fn parse(text: &'t str) -> Result<Token<'t>, &'static str> {
        const FORM: &str = "malformed jwt: compact JWS format must have three parts";
        if text.len() > MAX_TOKEN_BYTES {
            return Err("malformed jwt: it is too long");
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(FORM)?;
        let (header, claims) = signed.split_once('.').ok_or(FORM)?;
        if claims.contains('.') {
            return Err(FORM);
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| "malformed jwt: it is not base64url");
        let object = |part: &str| -> Result<Map, &'static str> {
            serde_json::from_slice(&decode(part)?).map_err(|_| "malformed jwt: it is not a JSON object")
        };
        let header = object(header)?;
        // RFC 7515 4.1.11: extensions that must be understood are not
        if header.contains_key("crit") {
            return Err("malformed jwt: unsupported critical header");
        }
        let text_of = |name: &str| header.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Token {
            algorithm: text_of("alg"),
            key_id: text_of("kid"),
            claims: object(claims)?,
            signed,
            signature: decode(signature)?,
        })
    }

    /// The claims, as their writer has them and nobody has checked.
    pub fn unverified_claims(&self) -> &Map {
        &self.claims
    }

    /// The claims, if one of the keys made the signature. A key set's key that is named is tried before the others;
    /// keys that have another name are not tried at all if the token names one.
    pub fn verify(&self, keys: &[Key]) -> Option<&Map> {
        let named = |k: &&Key| self.key_id.is_empty() || k.id.is_empty() || k.id == self.key_id;
        keys.iter()
            .filter(named)
            .any(|k| k.verifies(&self.algorithm, self.signed, &self.signature))
            .then_some(&self.claims)
    }
}

/// A public key.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// `kid`, or empty.
    pub id: String,
    /// The one algorithm it is for, or empty.
    algorithm: String,
    material: Material,
}

#[derive(Clone, Debug, PartialEq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    /// A key of a key set (RFC 7517 4, RFC 7518 6). `None` if it is of no kind that signs what we check.
    pub fn from_jwk(jwk: &Value) -> Option<Key> {
        let text = |name: &str| jwk[name].as_str().unwrap_or_default();
        let bytes =
            |name: &str| URL_SAFE_NO_PAD.decode(text(name).trim_end_matches('=')).ok().filter(|b| !b.is_empty());
        if !matches!(text("use"), "" | "sig") {
            return None;
        }
        let point = |length: usize| {
            let (x, y) = (padded(bytes("x")?, length)?, padded(bytes("y")?, length)?);
            Some([vec![4], x, y].concat())
        };
        let material = match (text("kty"), text("crv")) {
            ("RSA", _) => Material::Rsa { n: unsigned(bytes("n")?), e: unsigned(bytes("e")?) },
            ("EC", "P-256") => Material::P256(point(32)?),
            ("EC", "P-384") => Material::P384(point(48)?),
            ("EC", "P-521") => Material::P521(point(66)?),
            ("OKP", "Ed25519") => Material::Ed25519(bytes("x")?),
            _ => return None,
        };
        Some(Key { id: text("kid").to_owned(), algorithm: text("alg").to_owned(), material })
    }

    /// The usable keys of a key set.
    pub fn of_set(set: &Value) -> Vec<Key> {
        let keys = set["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        keys.iter().take(MAX_KEYS).filter_map(Key::from_jwk).collect()
    }

    /// A public key or a certificate in PEM.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_pem(pem: &str) -> Result<Key, String> {
        if let Ok(spki) = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()) {
            return Key::from_spki(&spki);
        }
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| "data does not contain any valid public keys".to_owned())?;
        let (_, certificate) =
            X509Certificate::from_der(&certificate).map_err(|e| format!("unparsable certificate: {e}"))?;
        Key::from_spki(certificate.public_key().raw)
    }

    /// A SubjectPublicKeyInfo (RFC 5280 4.1.2.7).
    fn from_spki(der: &[u8]) -> Result<Key, String> {
        const P256: &str = "1.2.840.10045.3.1.7";
        const P384: &str = "1.3.132.0.34";
        const P521: &str = "1.3.132.0.35";
        const ED25519: &str = "1.3.101.112";
        let (_, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|e| format!("unparsable public key: {e}"))?;
        let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|o| o.to_id_string());
        let material = match spki.parsed() {
            Ok(PublicKey::RSA(rsa)) => {
                Material::Rsa { n: unsigned(rsa.modulus.to_vec()), e: unsigned(rsa.exponent.to_vec()) }
            }
            Ok(PublicKey::EC(point)) => match curve.as_deref() {
                Some(P256) => Material::P256(point.data().to_vec()),
                Some(P384) => Material::P384(point.data().to_vec()),
                Some(P521) => Material::P521(point.data().to_vec()),
                _ => return Err("unsupported elliptic curve".into()),
            },
            _ if spki.algorithm.algorithm.to_id_string() == ED25519 => {
                Material::Ed25519(spki.subject_public_key.data.to_vec())
            }
            _ => return Err("unsupported kind of public key".into()),
        };
        Ok(Key { id: String::new(), algorithm: String::new(), material })
    }

    /// True if this key made the signature with an algorithm of its own kind.
    fn verifies(&self, algorithm: &str, signed: &str, made: &[u8]) -> bool {
        if !self.algorithm.is_empty() && self.algorithm != algorithm {
            return false;
        }
        let message = signed.as_bytes();
        let with = |rule: &'static dyn signature::VerificationAlgorithm, point: &[u8]| {
            UnparsedPublicKey::new(rule, point).verify(message, made).is_ok()
        };
        match (&self.material, algorithm) {
            (Material::Rsa { n, e }, _) => {
                let rule = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(rule, message, made).is_ok()
            }
            (Material::P256(point), "ES256") => with(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Material::P384(point), "ES384") => with(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Material::P521(point), "ES512") => with(&signature::ECDSA_P521_SHA512_FIXED, point),
            (Material::Ed25519(point), "EdDSA") => with(&signature::ED25519, point),
            _ => false,
        }
    }
}

/// A big-endian number without leading zeroes, as the verifier wants it.
fn unsigned(bytes: Vec<u8>) -> Vec<u8> {
    let zeroes = bytes.iter().take_while(|b| **b == 0).count();
    bytes[zeroes..].to_vec()
}

/// A coordinate at its full length (some issuers drop leading zeroes).
fn padded(bytes: Vec<u8>, length: usize) -> Option<Vec<u8>> {
    let bytes = unsigned(bytes);
    (bytes.len() <= length).then(|| [vec![0; length - bytes.len()], bytes].concat())
}

/// How far clocks may differ and how long tokens without an end last, in seconds; negative is none at all, 0 the
/// default. Source: Vault's documented `clock_skew_leeway`, `expiration_leeway`, `not_before_leeway`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leeways {
    /// Difference of clocks; 60 by default.
    pub clock_skew: i64,
    /// Life of a token without `exp` from its start; 150 by default.
    pub expiration: i64,
    /// How long before its end a token without start is valid; 150 by default.
    pub not_before: i64,
}

/// Judges `exp`, `nbf` and `iat` (RFC 7519 4.1). At least one must be there; the others are derived.
///
/// # Errors
/// Which claim is against it.
pub fn check_times(claims: &Map, leeways: &Leeways, now: Wall) -> Result<(), &'static str> {
    let or = |given: i64, default: i64| match given {
        0 => default,
        n => n.max(0),
    };
    let time = |name: &str| -> Result<i64, &'static str> {
        let whole = |v: &Value| v.as_i64().or_else(|| v.as_f64().filter(|f| f.abs() < 9e15).map(|f| f as i64));
        match claims.get(name) {
            None | Some(Value::Null) => Ok(0),
            Some(v) => whole(v).filter(|t| *t >= 0).ok_or("a time claim is not a number of seconds"),
        }
    };
    let (issued, mut starts, mut ends) = (time("iat")?, time("nbf")?, time("exp")?);
    if issued == 0 && starts == 0 && ends == 0 {
        return Err("no issued at (iat), not before (nbf), or expiration time (exp) claims in token");
    }
    if ends == 0 {
        ends = issued.max(starts).saturating_add(or(leeways.expiration, 150));
    }
    if starts == 0 {
        starts = if issued != 0 { issued } else { ends.saturating_sub(or(leeways.not_before, 150)) };
    }
    let now = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
    let skew = or(leeways.clock_skew, 60);
    if now.saturating_add(skew) < starts {
        return Err("invalid not before (nbf) claim: token not yet valid");
    }
    if now.saturating_sub(skew) > ends {
        return Err("invalid expiration time (exp) claim: token is expired");
    }
    if now.saturating_add(skew) < issued {
        return Err("invalid issued at (iat) claim: token issued in the future");
    }
    Ok(())
}

/// The audiences of a token, whether it names one or a list of them (RFC 7519 4.1.3). What is neither is no audience
/// that anything could be bound to, but it is there.
pub fn audiences(claims: &Map) -> Option<Vec<String>> {
    match claims.get("aud") {
        None | Some(Value::Null) => None,
        Some(Value::String(one)) => Some(vec![one.clone()]),
        Some(Value::Array(list)) => Some(list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()),
        Some(_) => Some(Vec::new()),
    }
}

/// A claim by its name, or by an RFC 6901 pointer if it begins with a slash.
pub fn claim<'c>(claims: &'c Map, name: &str) -> Option<&'c Value> {
    if !name.starts_with('/') {
        return claims.get(name).filter(|v| !v.is_null());
    }
    let mut steps = name[1..].split('/').map(|s| s.replace("~1", "/").replace("~0", "~"));
    let mut value = claims.get(&steps.next()?)?;
    for step in steps {
        value = match value {
            Value::Object(o) => o.get(&step)?,
            Value::Array(a) => a.get(step.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(value).filter(|v| !v.is_null())
}

/// True if a text fits a pattern in which each `*` stands for any run of characters, none included.
pub fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::signer::{Signer, sign_with_secret, token_of};
    use proptest::prelude::*;
    use serde_json::json;

    fn claims(v: Value) -> Map {
        v.as_object().unwrap().clone()
    }

    #[test]
    fn every_algorithm_is_verified_by_jwk_and_by_pem() {
        for algorithm in ALGORITHMS {
            let signer = Signer::new(algorithm);
            let text = signer.token(&json!({"sub": "a"}));
            let token = Token::parse(&text).unwrap();
            let other = Signer::new(algorithm);
            for (keys, good) in [
                (vec![Key::from_jwk(&signer.jwk()).unwrap()], true),
                (vec![Key::from_pem(&signer.public_pem()).unwrap()], true),
                (vec![Key::from_pem(&other.public_pem()).unwrap()], false),
                (vec![], false),
            ] {
                assert_eq!(token.verify(&keys).is_some(), good, "{algorithm}");
            }
            // one bit of the claims
            let at = text.find('.').unwrap() + 5;
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let broken = String::from_utf8(bytes).unwrap();
            if let Ok(t) = Token::parse(&broken) {
                assert!(t.verify(&[Key::from_pem(&signer.public_pem()).unwrap()]).is_none());
            }
        }
    }

    #[test]
    fn alg_confusion_does_not_turn_a_public_key_into_a_secret() {
        let signer = Signer::new("RS256");
        let keys = [Key::from_pem(&signer.public_pem()).unwrap()];
        let forged = sign_with_secret("HS256", &json!({"sub": "a"}), signer.public_pem().as_bytes());
        assert!(Token::parse(&forged).unwrap().verify(&keys).is_none());
        for none in ["none", "None", "NONE", ""] {
            let forged = token_of(&json!({"alg": none}), &json!({"sub": "a"}), b"");
            assert!(Token::parse(&forged).unwrap().verify(&keys).is_none());
        }
        // the key of another algorithm, or one that its set gives to another algorithm
        let mut jwk = signer.jwk();
        jwk["alg"] = json!("RS512");
        let text = signer.token(&json!({}));
        assert!(Token::parse(&text).unwrap().verify(&[Key::from_jwk(&jwk).unwrap()]).is_none());
        jwk["use"] = json!("enc");
        assert!(Key::from_jwk(&jwk).is_none());
    }

    #[test]
    fn malformed_tokens_are_refused() {
        for bad in ["", "a", "a.b", "a.b.c.d", "....", "e30.e30.*", "e30.W10.", "bm8.e30.", "eyJjcml0IjpbXX0.e30."] {
            assert!(Token::parse(bad).is_err(), "{bad}");
        }
        assert!(Token::parse(&"a".repeat(MAX_TOKEN_BYTES + 1)).is_err());
        assert!(Token::parse("e30.e30.").unwrap().verify(&[]).is_none());
    }

    #[test]
    fn times() {
        let now = Wall::from_seconds(10_000);
        let check = |v: Value, l: Leeways| check_times(&claims(v), &l, now);
        let d = Leeways::default();
        assert!(check(json!({"exp": 10_001}), d).is_ok());
        assert!(check(json!({"exp": 9_941}), d).is_ok(), "clocks differ");
        assert!(check(json!({"exp": 9_939}), d).unwrap_err().contains("expired"));
        assert!(check(json!({"exp": 9_999}), Leeways { clock_skew: -1, ..d }).is_err());
        assert!(check(json!({"nbf": 10_061, "exp": 20_000}), d).unwrap_err().contains("not yet valid"));
        assert!(check(json!({"iat": 10_061, "nbf": 1, "exp": 20_000}), d).unwrap_err().contains("future"));
        assert!(check(json!({"iat": 9_800}), d).is_ok(), "150 seconds and a minute");
        assert!(check(json!({"iat": 9_700}), d).is_err());
        assert!(check(json!({"iat": 9_700}), Leeways { expiration: 400, ..d }).is_ok());
        assert!(check(json!({"sub": 1}), d).is_err());
        assert!(check(json!({"exp": "soon"}), d).is_err() && check(json!({"exp": 1e300}), d).is_err());
    }

    #[test]
    fn claims_by_name_and_pointer() {
        let c = claims(json!({"a": {"b/c": ["x", {"d": 1}]}, "n": null, "/q": 2}));
        assert_eq!(claim(&c, "/a/b~1c/0"), Some(&json!("x")));
        assert_eq!(claim(&c, "/a/b~1c/1/d"), Some(&json!(1)));
        assert!(claim(&c, "n").is_none() && claim(&c, "/a/x").is_none() && claim(&c, "/a/b~1c/9").is_none());
        assert_eq!(audiences(&claims(json!({"aud": "x"}))), Some(vec!["x".into()]));
        assert_eq!(audiences(&claims(json!({"aud": 5}))), Some(vec![]));
        assert_eq!(audiences(&claims(json!({}))), None);
    }

    /// The plainest matcher there is.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|i| naive(rest, &text[i..])),
            Some((c, rest)) => text.split_first().is_some_and(|(t, more)| t == c && naive(rest, more)),
        }
    }

    proptest! {
        #[test]
        fn globs_match_as_the_naive_matcher(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            prop_assert_eq!(glob(&pattern, &text), naive(&chars(&pattern), &chars(&text)));
        }

        #[test]
        fn no_text_panics(text in ".{0,200}", parts in "[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}") {
            let _ = Token::parse(&text);
            let _ = Token::parse(&parts);
            let _ = Key::from_pem(&text);
        }
    }
}
