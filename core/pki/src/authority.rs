//! An issuer ready to sign: its certificate read, its key open, its URLs filled in.

use crate::cert::{self, Certificate, Signer, Urls};
use crate::key::{Algorithm, Private};
use crate::pem;
use crate::store::{self, Issuer, IssuerRecord, Usage};
use ringfence_logical::{Cx, Error};
use std::sync::Arc;

/// `config/cluster`.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Cluster {
    /// Where clients reach this mount, `https://vault.example.com/v1/pki`.
    pub path: String,
    /// Where relying parties reach it without TLS.
    pub aia_path: String,
}

/// An issuer ready to sign.
pub struct Authority {
    /// The record.
    pub record: IssuerRecord,
    /// The same as the core keeps it.
    pub issuer: Arc<Issuer>,
    /// Its key.
    pub key: Arc<Private>,
    /// From itself up.
    pub chain: Vec<Arc<Issuer>>,
    /// The URLs that go into what it signs.
    pub urls: Urls,
}

impl Authority {
    /// Loads the issuer of a reference for a use.
    pub fn load(cx: &mut Cx<'_, '_>, reference: &str, usage: Usage) -> Result<Authority, Error> {
        let record = store::issuer(cx, reference)?;
        Authority::of(cx, record, usage)
    }

    /// As [`Authority::load`], of a record.
    pub fn of(cx: &mut Cx<'_, '_>, record: IssuerRecord, usage: Usage) -> Result<Authority, Error> {
        if !record.may(usage) {
            return Err(Error::invalid(format!(
                "requested usage {} for issuer [id:{} name:{}] but only had usage {}",
                usage.as_str(),
                record.id,
                record.name,
                record.usage_text()
            )));
        }
        let known = if record.key_id.is_empty() { None } else { store::known_key(cx, &record.key_id)? };
        let key = match known {
            Some(k) => k,
            None => {
                return Err(Error::plain(&format!(
                    "unable to use issuer [id:{} name:{}] for signing: its private key is not in this mount",
                    record.id, record.name
                )));
            }
        };
        let urls = urls_of(cx, &record)?;
        let issuer = match store::known_issuer(cx, &record.id)? {
            Some(i) if i.record.certificate == record.certificate => i,
            _ => Arc::new(Issuer::of(record.clone())?),
        };
        Ok(Authority { issuer, chain: store::known_chain(cx, &record)?, key, urls, record })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.issuer.certificate
    }

    /// End of its validity, epoch seconds.
    pub fn not_after(&self) -> u64 {
        cert::not_after(self.certificate())
    }

    /// Its signer.
    pub fn signer(&self, signature_bits: u32, pss: bool) -> Signer<'_> {
        self.signer_by(self.key.algorithm(signature_bits, pss))
    }

    /// Its signer by an algorithm.
    pub fn signer_by(&self, algorithm: Algorithm) -> Signer<'_> {
        Signer {
            key: &self.key,
            algorithm,
            name: self.certificate().tbs_certificate.subject.clone(),
            key_id: self.issuer.key_id.clone(),
        }
    }

    /// How it signs CRLs and OCSP answers.
    pub fn revocation_algorithm(&self) -> Algorithm {
        Algorithm::by_name(&self.record.revocation_signature_algorithm)
            .unwrap_or_else(|| self.key.algorithm(0, false))
    }

    /// Its chain as the API shows it.
    pub fn chain_shown(&self, format: pem::Format, without_roots: bool) -> Vec<String> {
        self.chain.iter().filter(|i| !(without_roots && i.is_self_issued())).map(|i| i.shown(format)).collect()
    }
}

/// The URLs of an issuer: its own, or the mount's; templates filled in.
pub fn urls_of(cx: &mut Cx<'_, '_>, record: &IssuerRecord) -> Result<Urls, Error> {
    let urls = match record.urls.is_empty() {
        true => store::config::<Urls>(cx, "urls")?,
        false => record.urls.clone(),
    };
    if !urls.enable_templating {
        return Ok(urls);
    }
    let cluster: Cluster = store::config(cx, "cluster")?;
    let fill = |list: &[String]| -> Result<Vec<String>, Error> {
        list.iter()
            .map(|u| {
                let spaces = u.replace("{{ ", "{{").replace(" }}", "}}");
                let filled = spaces
                    .replace("{{issuer_id}}", &record.id)
                    .replace("{{cluster_path}}", cluster.path.trim_end_matches('/'))
                    .replace("{{cluster_aia_path}}", cluster.aia_path.trim_end_matches('/'));
                match is_url(&filled) {
                    true => Ok(filled),
                    false => Err(Error::plain(&format!("error validating templated AIA URI: invalid URI: {filled}"))),
                }
            })
            .collect()
    };
    Ok(Urls {
        issuing_certificates: fill(&urls.issuing_certificates)?,
        crl_distribution_points: fill(&urls.crl_distribution_points)?,
        delta_crl_distribution_points: fill(&urls.delta_crl_distribution_points)?,
        ocsp_servers: fill(&urls.ocsp_servers)?,
        enable_templating: true,
    })
}

/// A URL with scheme and host, as Go's `IsURL` wants it.
pub fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    matches!(scheme, "http" | "https" | "ldap" | "ftp")
        && !host.is_empty()
        && host.is_ascii()
        && !text.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '{' | '}'))
}
