//! Export of key material: the keys' own settings decide what may leave.

use super::kind::KeyKind;
use super::policy::Policy;
use super::version::{Material, Version};
use super::{import, keys, store, text};
use ringfence_crypto::hash::Hash;
use ringfence_crypto::pem;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use std::sync::Arc;
use zeroize::Zeroizing;

/// What of a key is exported.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Encryption,
    Signing,
    Hmac,
    Public,
    Chain,
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let part = match args.str("type") {
        "encryption-key" => Part::Encryption,
        "signing-key" => Part::Signing,
        "hmac-key" => Part::Hmac,
        "public-key" => Part::Public,
        "certificate-chain" => Part::Chain,
        other => return Err(Error::invalid(format!("invalid export type: {other}"))),
    };
    let Some(policy) = store::load(cx, args.str("name"))? else { return nothing() };
    policy.alive()?;
    let is_private = !matches!(part, Part::Public | Part::Chain);
    if is_private && !policy.exportable {
        return Err(Error::invalid("private key material is not exportable"));
    }
    match part {
        Part::Encryption if !policy.kind.encrypts() => {
            return Err(Error::invalid("encryption not supported for the key"));
        }
        Part::Signing if !policy.kind.signs() => return Err(Error::invalid("signing not supported for the key")),
        Part::Public | Part::Chain if !policy.kind.is_asymmetric() => {
            return Err(Error::invalid(format!(
                "unknown key type {} for export type {}",
                policy.kind.name(),
                args.str("type")
            )));
        }
        _ => {}
    }
    let mut exported = Map::new();
    for n in wanted(&policy, args.str("version"))? {
        let version = store::load_version(cx, &policy, n)?;
        exported.insert(n.to_string(), part_of(part, &version)?.as_str().into());
    }
    let mut m = Map::new();
    m.insert("name".into(), policy.name.clone().into());
    m.insert("type".into(), policy.kind.name().into());
    m.insert("keys".into(), exported.into());
    Response::data(m).done()
}

/// The versions that a request means: all, the latest, or one.
fn wanted(policy: &Policy, text: &str) -> Result<std::ops::RangeInclusive<u64>, Error> {
    let oldest = policy.min_decryption.max(policy.min_available).max(1);
    match text {
        "" => Ok(oldest..=policy.latest),
        "latest" => Ok(policy.latest..=policy.latest),
        n => {
            let n: u64 = n.parse().map_err(|_| Error::invalid("invalid key version"))?;
            if n < oldest {
                return Err(Error::invalid("version for export is below minimum decryption version"));
            }
            if n > policy.latest {
                return Err(Error::invalid("version does not exist or cannot be found"));
            }
            Ok(n..=n)
        }
    }
}

fn part_of(part: Part, version: &Version) -> Result<Zeroizing<String>, Error> {
    let missing = || Error::invalid("requested version for export does not contain a private part");
    let failed = |_| Error::internal("encoding a private key");
    Ok(match part {
        Part::Hmac => Zeroizing::new(text::encode(&version.hmac_key)),
        Part::Public => Zeroizing::new(keys::public_text(version)),
        Part::Chain => {
            if version.chain.is_empty() {
                return Err(Error::invalid("selected key version does not have a certificate chain available"));
            }
            Zeroizing::new(version.chain.iter().map(|c| pem::encode("CERTIFICATE", c).to_string()).collect())
        }
        Part::Encryption | Part::Signing => match &version.material {
            Material::Rsa(private, _) => {
                pem::encode("RSA PRIVATE KEY", &private.as_ref().ok_or_else(missing)?.pkcs1().map_err(failed)?)
            }
            Material::Ecdsa(private, _) => {
                pem::encode("EC PRIVATE KEY", &private.as_ref().ok_or_else(missing)?.sec1().map_err(failed)?)
            }
            _ if version.is_public_only() => return Err(missing()),
            _ => Zeroizing::new(text::encode(&version.key)),
        },
    })
}

/// Exports a key wrapped for another: its public key takes the place of the other server's wrapping key.
pub fn byok(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let find = |cx: &mut Cx<'_, '_>, name: &str, what: &str| -> Result<Arc<Policy>, Error> {
        let found = store::load(cx, name)?;
        let policy = found.ok_or_else(|| Error::invalid(format!("no such {what} key to export: {name}")))?;
        policy.alive()?;
        Ok(policy)
    };
    let destination = find(cx, args.str("destination"), "destination")?;
    let source = find(cx, args.str("source"), "source")?;
    if !source.exportable {
        return Err(Error::invalid("private key material is not exportable"));
    }
    let KeyKind::Rsa(_) = destination.kind else {
        return Err(Error::invalid("destination key must be an RSA key"));
    };
    let hash = import::hash(args.str("hash"))?;
    if hash == Hash::Sha224 {
        return Err(Error::invalid("unsupported hash algorithm SHA224 for wrapping"));
    }
    let to = store::load_version(cx, &destination, destination.latest)?;
    let Material::Rsa(_, public) = &to.material else {
        return Err(Error::internal("an RSA key of another material"));
    };
    let mut exported = Map::new();
    for n in wanted(&source, args.str("version"))? {
        let version = store::load_version(cx, &source, n)?;
        let target = import::wrappable(&version)?;
        exported.insert(n.to_string(), text::encode(&import::wrap(public, hash, &target, cx.rng)?).into());
    }
    let mut m = Map::new();
    m.insert("name".into(), source.name.clone().into());
    m.insert("type".into(), source.kind.name().into());
    m.insert("keys".into(), exported.into());
    Response::data(m).done()
}
