//! Certificates of keys: a request signed by the key, and the chain that an authority made of it. The engine verifies
//! that a chain's leaf is of the key and that its certificates follow each other by name; whether anybody trusts it is
//! not its affair.

use super::kind::KeyKind;
use super::policy::{Policy, Use};
use super::version::{Fresh, Material, Version};
use super::{import, store};
use der::asn1::{BitString, ObjectIdentifier, SetOfVec};
use der::{Any, Decode, Encode};
use ringfence_crypto::asymmetric::ec::{Curve, Form};
use ringfence_crypto::asymmetric::ml_dsa::ParameterSet;
use ringfence_crypto::asymmetric::rsa::Padding;
use ringfence_crypto::hash::{Expanded, Hash};
use ringfence_crypto::pem;
use ringfence_logical::side::{Compute, Computed};
use ringfence_logical::{Args, Cx, Error, Outcome, Response, SideResult, Step, nothing};
use serde_json::json;
use std::sync::Arc;
use x509_cert::Certificate;
use x509_cert::ext::pkix::BasicConstraints;
use x509_cert::request::{CertReq, CertReqInfo, Version as RequestVersion};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

/// Longest chain that is kept.
const MAX_CHAIN: usize = 16;

const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ECDSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ML_DSA_44: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.17");
const ML_DSA_65: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.18");
const ML_DSA_87: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.19");

fn coding(e: der::Error) -> Error {
    Error::internal(format!("encoding a certificate request: {e}"))
}

/// A key that signs, alive, with the version that a request names.
fn find(cx: &mut Cx<'_, '_>, args: &Args) -> Result<(Arc<Policy>, u64, Arc<Version>), Error> {
    let name = args.str("name");
    let policy =
        store::load(cx, name)?.ok_or_else(|| Error::invalid(format!("key with provided name '{name}' not found")))?;
    policy.alive()?;
    if !policy.kind.signs() {
        return Err(Error::invalid(format!("key type '{}' does not support signing", policy.kind.name())));
    }
    if policy.derived {
        return Err(Error::invalid("operation not supported on keys with derivation enabled"));
    }
    let number = policy.version_to(Use::Sign, args.int("version"))?;
    let version = store::load_version(cx, &policy, number)?;
    Ok((policy, number, version))
}

/// The hash under an ECDSA signature: as strong as its curve.
fn curve_hash(curve: Curve) -> Hash {
    match curve {
        Curve::P256 => Hash::Sha256,
        Curve::P384 => Hash::Sha384,
        Curve::P521 => Hash::Sha512,
    }
}

fn algorithm(kind: KeyKind) -> Option<AlgorithmIdentifierOwned> {
    let (oid, parameters) = match kind {
        // RFC 4055 5: the parameters of RSA signatures are NULL
        KeyKind::Rsa(_) => (RSA_SHA256, Some(Any::null())),
        KeyKind::Ecdsa(Curve::P256) => (ECDSA_SHA256, None),
        KeyKind::Ecdsa(Curve::P384) => (ECDSA_SHA384, None),
        KeyKind::Ecdsa(Curve::P521) => (ECDSA_SHA512, None),
        KeyKind::Ed25519 => (ED25519, None),
        KeyKind::MlDsa(ParameterSet::MlDsa44) => (ML_DSA_44, None),
        KeyKind::MlDsa(ParameterSet::MlDsa65) => (ML_DSA_65, None),
        KeyKind::MlDsa(ParameterSet::MlDsa87) => (ML_DSA_87, None),
        KeyKind::Aead(_) | KeyKind::Hmac | KeyKind::Cmac(_) => return None,
    };
    Some(AlgorithmIdentifierOwned { oid, parameters })
}

/// A version's public key as certificates hold it.
fn public_info(version: &Version) -> Result<SubjectPublicKeyInfoOwned, Error> {
    let refused = |_| Error::internal("encoding a public key");
    let spki = match &version.material {
        Material::Ed25519(_) => {
            let oid = AlgorithmIdentifierOwned { oid: ED25519, parameters: None };
            let subject_public_key = BitString::from_bytes(&version.public).map_err(coding)?;
            return Ok(SubjectPublicKeyInfoOwned { algorithm: oid, subject_public_key });
        }
        _ => &version.public,
    };
    SubjectPublicKeyInfoOwned::from_der(spki).map_err(refused)
}

/// `keys/{name}/csr`.
pub fn csr(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let template = match args.opt_str("csr").filter(|t| !t.is_empty()) {
        None => None,
        Some(text) => {
            let (_, der) =
                pem::decode(text).ok_or_else(|| Error::invalid("could not decode PEM certificate request"))?;
            let bad = |e| Error::invalid(format!("could not parse the certificate request: {e}"));
            Some(CertReq::from_der(&der).map_err(bad)?.info)
        }
    };
    let (policy, _, version) = find(cx, args)?;
    if version.is_public_only() {
        return Err(Error::invalid("private key not imported for key version selected"));
    }
    let info = CertReqInfo {
        version: RequestVersion::V1,
        subject: template.as_ref().map(|t| t.subject.clone()).unwrap_or_default(),
        public_key: public_info(&version)?,
        attributes: template.map_or_else(SetOfVec::new, |t| t.attributes),
    };
    let algorithm = algorithm(policy.kind).ok_or_else(|| Error::internal("a key that signs has no algorithm"))?;
    let message = info.to_der().map_err(coding)?;
    let (name, kind) = (policy.name.clone(), policy.kind.name());
    let whole = move |signature: &[u8]| -> Outcome {
        let signature = BitString::from_bytes(signature).map_err(coding)?;
        let request = CertReq { info: info.clone(), algorithm: algorithm.clone(), signature };
        let text = pem::encode("CERTIFICATE REQUEST", &request.to_der().map_err(coding)?);
        Response::json(json!({"name": name, "type": kind, "csr": text.as_str()})).done()
    };
    let refused = |_| Error::internal("signing a certificate request");
    match &version.material {
        Material::Ed25519(Some(key)) => whole(&key.sign(&message)),
        Material::Ecdsa(Some(key), public) => {
            whole(&key.sign(&curve_hash(public.curve()).digest(&message), Form::Asn1).map_err(refused)?)
        }
        Material::MlDsa(Some(key)) => whole(&key.sign(&message).map_err(refused)?),
        Material::Rsa(Some(_), _) => {
            let mut seed = [0; 32];
            cx.rng.fill(&mut seed);
            let op = Compute::op("sign a certificate request", move || {
                let Material::Rsa(Some(key), _) = &version.material else {
                    return SideResult::Failed("the key is no RSA key".into());
                };
                let digest = Hash::Sha256.digest(&message);
                match key.sign(Some(Hash::Sha256), &digest, Padding::Pkcs1v15, &mut Expanded::new(seed)) {
                    Ok(signature) => Computed::of(signature),
                    Err(e) => SideResult::Failed(e.to_string()),
                }
            });
            let resume = Box::new(move |_: &mut Cx<'_, '_>, result: &SideResult| match result {
                SideResult::Value(v) => {
                    whole(v.get::<Vec<u8>>().ok_or_else(|| Error::internal("another value than a signature"))?)
                }
                other => Err(Error::internal(format!("signing a certificate request: {other:?}"))),
            });
            Ok(Step::Side { op, resume })
        }
        _ => Err(Error::invalid("private key not imported for key version selected")),
    }
}

/// `keys/{name}/set-certificate`.
pub fn set(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let (policy, number, version) = find(cx, args)?;
    let text = args.str("certificate_chain");
    let blocks = pem::decode_all(text).filter(|b| !b.is_empty());
    let blocks = blocks.ok_or_else(|| Error::invalid("could not decode PEM certificate block"))?;
    if blocks.len() > MAX_CHAIN {
        return Err(Error::invalid(format!("a certificate chain has at most {MAX_CHAIN} certificates")));
    }
    let mut chain: Vec<Certificate> = Vec::new();
    for (label, der) in &blocks {
        if label != "CERTIFICATE" {
            return Err(Error::invalid("could not decode PEM certificate block"));
        }
        let parsed = Certificate::from_der(der);
        chain.push(parsed.map_err(|e| Error::invalid(format!("failed to parse a certificate of the chain: {e}")))?);
    }
    if is_authority(&chain[0]) {
        return Err(Error::invalid("the first certificate of the chain must be the leaf"));
    }
    if !chain[1..].iter().all(is_authority) {
        return Err(Error::invalid("there should be exactly one leaf certificate in the chain"));
    }
    if chain.windows(2).any(|pair| pair[0].tbs_certificate.issuer != pair[1].tbs_certificate.subject) {
        return Err(Error::invalid("each certificate of the chain must be issued by the one after it"));
    }
    let public = chain[0].tbs_certificate.subject_public_key_info.to_der().map_err(coding)?;
    let known = import::public_from_der(policy.kind, &public)
        .map_err(|_| Error::invalid("provided leaf certificate public key type does not match key type"))?;
    if known.public != version.public {
        return Err(Error::invalid("leaf certificate public key does not match the key version selected"));
    }
    let chain: Vec<Vec<u8>> = blocks.iter().map(|(_, der)| der.to_vec()).collect();
    let fresh = Fresh { key: version.key.clone(), public: version.public.clone() };
    let record = Version::record(version.created, &fresh, &version.hmac_key, &chain);
    store::save_version(cx, &policy, number, &record);
    nothing()
}

/// RFC 5280 4.2.1.9.
fn is_authority(certificate: &Certificate) -> bool {
    matches!(certificate.tbs_certificate.get::<BasicConstraints>(), Ok(Some((_, b))) if b.ca)
}
