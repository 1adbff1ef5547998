//! Signed requests (RFC 7515 in the flattened form that RFC 8555 6.2 asks for), keys and their thumbprints.

use super::directory::Problem;
use crate::key;
use aws_lc_rs::{digest, hmac, signature as sig};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::Decode;
use serde_json::{Value, json};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Jws {
    /// The protected header, read.
    pub header: Value,
    /// The payload's bytes; empty for POST-as-GET.
    pub payload: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

fn bytes(text: &str, what: &str) -> Result<Vec<u8>, Problem> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Problem::malformed(format!("{what} is not base64url")))
}

impl Jws {
    /// Reads the three parts.
    pub fn read(protected: &str, payload: &str, signature: &str) -> Result<Jws, Problem> {
        let header: Value = serde_json::from_slice(&bytes(protected, "protected")?)
            .map_err(|_| Problem::malformed("the protected header is not JSON"))?;
        if !header.is_object() {
            return Err(Problem::malformed("the protected header is no object"));
        }
        if header.get("crit").is_some() {
            return Err(Problem::malformed("the protected header has critical parameters that are not understood"));
        }
        Ok(Jws {
            header,
            payload: bytes(payload, "payload")?,
            message: format!("{protected}.{payload}").into_bytes(),
            signature: bytes(signature, "signature")?,
        })
    }

    /// From a JSON object.
    pub fn of(value: &Value) -> Result<Jws, Problem> {
        let text = |name: &str| value[name].as_str().ok_or_else(|| Problem::malformed(format!("no {name}")));
        Jws::read(text("protected")?, text("payload")?, text("signature")?)
    }

    /// A text of the protected header.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.header[name].as_str()
    }

    /// The payload as JSON.
    pub fn json(&self) -> Result<Value, Problem> {
        serde_json::from_slice(&self.payload).map_err(|_| Problem::malformed("the payload is not JSON"))
    }

    /// Checks the signature by a public key.
    pub fn verify(&self, jwk: &Value) -> Result<(), Problem> {
        let refused = || Problem::malformed("the signature does not verify");
        let algorithm = self.text("alg").unwrap_or("");
        let member = |name: &str| bytes(jwk[name].as_str().unwrap_or(""), name);
        let text = |name: &str| jwk[name].as_str().unwrap_or("");
        match (algorithm, text("kty"), text("crv")) {
            ("ES256", "EC", "P-256") => point(&sig::ECDSA_P256_SHA256_FIXED, member("x")?, member("y")?, 32),
            ("ES384", "EC", "P-384") => point(&sig::ECDSA_P384_SHA384_FIXED, member("x")?, member("y")?, 48),
            ("ES512", "EC", "P-521") => point(&sig::ECDSA_P521_SHA512_FIXED, member("x")?, member("y")?, 66),
            ("EdDSA", "OKP", "Ed25519") => Ok((&sig::ED25519 as &dyn sig::VerificationAlgorithm, member("x")?)),
            ("RS256" | "RS384" | "RS512", "RSA", _) => {
                let key = sig::RsaPublicKeyComponents { n: member("n")?, e: member("e")? };
                let parameters = match algorithm {
                    "RS256" => &sig::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &sig::RSA_PKCS1_2048_8192_SHA384,
                    _ => &sig::RSA_PKCS1_2048_8192_SHA512,
                };
                return key.verify(parameters, &self.message, &self.signature).map_err(|_| refused());
            }
            _ => Err(Problem::new(
                "badSignatureAlgorithm",
                format!("alg {algorithm:?} is not supported with this key"),
            )),
        }
        .and_then(|(by, key)| {
            sig::UnparsedPublicKey::new(by, key).verify(&self.message, &self.signature).map_err(|_| refused())
        })
    }

    /// Checks an HMAC (external account binding).
    pub fn verify_hmac(&self, key: &[u8]) -> Result<(), Problem> {
        let algorithm = match self.text("alg") {
            Some("HS256") => hmac::HMAC_SHA256,
            Some("HS384") => hmac::HMAC_SHA384,
            Some("HS512") => hmac::HMAC_SHA512,
            _ => {
                return Err(Problem::new(
                    "badSignatureAlgorithm",
                    "external account bindings are signed by HS256, HS384 or HS512",
                ));
            }
        };
        hmac::verify(&hmac::Key::new(algorithm, key), &self.message, &self.signature)
            .map_err(|_| Problem::new("unauthorized", "the external account binding's signature does not verify"))
    }
}

type Checked = (&'static dyn sig::VerificationAlgorithm, Vec<u8>);

fn point(by: &'static dyn sig::VerificationAlgorithm, x: Vec<u8>, y: Vec<u8>, n: usize) -> Result<Checked, Problem> {
    if x.len() != n || y.len() != n {
        return Err(Problem::new("badPublicKey", "the coordinates have a length that the curve has not"));
    }
    Ok((by, [&[4], &x[..], &y[..]].concat()))
}

/// The thumbprint of a key (RFC 7638).
pub fn thumbprint(jwk: &Value) -> Result<String, Problem> {
    let names: &[&str] = match jwk["kty"].as_str() {
        Some("EC") => &["crv", "kty", "x", "y"],
        Some("RSA") => &["e", "kty", "n"],
        Some("OKP") => &["crv", "kty", "x"],
        _ => return Err(Problem::new("badPublicKey", "unknown kty")),
    };
    let mut canonical = json!({});
    for n in names {
        let text = jwk[*n].as_str().ok_or_else(|| Problem::new("badPublicKey", format!("the key has no {n}")))?;
        canonical[*n] = text.into();
    }
    // members come out in the order of their names, without spaces: what the RFC asks for
    Ok(URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, canonical.to_string().as_bytes())))
}

/// True if a JWK is this public key: the numbers that define it are the same.
pub fn is_key(jwk: &Value, public: &SubjectPublicKeyInfoOwned) -> bool {
    let bits = public.subject_public_key.raw_bytes();
    let member = |n: &str| URL_SAFE_NO_PAD.decode(jwk[n].as_str().unwrap_or("")).unwrap_or_default();
    match (key::public_spec(public).map(|s| s.kind), jwk["kty"].as_str()) {
        (Ok(key::Kind::Ec), Some("EC")) => bits == [&[4], &member("x")[..], &member("y")[..]].concat(),
        (Ok(key::Kind::Ed25519), Some("OKP")) => bits == member("x"),
        (Ok(key::Kind::Rsa), Some("RSA")) => pkcs1::RsaPublicKey::from_der(bits)
            .is_ok_and(|k| k.modulus.as_bytes() == member("n") && k.public_exponent.as_bytes() == member("e")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7638 3.1.
    #[test]
    fn the_thumbprint_of_the_rfc() {
        let jwk = json!({
            "kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        });
        assert_eq!(thumbprint(&jwk).unwrap(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }
}
