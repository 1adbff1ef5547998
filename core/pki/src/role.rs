//! Roles: what may be asked of the engine, and with what defaults.

use crate::cert;
use crate::key::{self, Spec};
use crate::names;
use crate::store::{self, ROLES};
use der::Any;
use der::asn1::{Ia5String, ObjectIdentifier};
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use serde_json::Value;
use std::sync::Arc;
use x509_cert::ext::pkix::KeyUsages;
use x509_cert::ext::pkix::certpolicy::{
    CertificatePolicies, DisplayText, PolicyInformation, PolicyQualifierInfo, UserNotice,
};

/// A role. Serialised as it is stored; [`Role::shown`] is what the API prints.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Role {
    pub issuer_ref: String,
    /// Seconds; 0 = the mount's.
    pub ttl: u64,
    /// Seconds; 0 = the mount's.
    pub max_ttl: u64,
    pub allow_localhost: bool,
    pub allowed_domains: Vec<String>,
    pub allowed_domains_template: bool,
    pub allow_bare_domains: bool,
    pub allow_subdomains: bool,
    pub allow_glob_domains: bool,
    pub allow_wildcard_certificates: bool,
    pub allow_any_name: bool,
    pub allow_token_displayname: bool,
    pub enforce_hostnames: bool,
    pub allow_ip_sans: bool,
    pub allowed_ip_sans_cidr: Vec<String>,
    pub allowed_uri_sans: Vec<String>,
    pub allowed_uri_sans_template: bool,
    pub allowed_other_sans: Vec<String>,
    pub allowed_serial_numbers: Vec<String>,
    pub allowed_user_ids: Vec<String>,
    pub server_flag: bool,
    pub client_flag: bool,
    pub code_signing_flag: bool,
    pub email_protection_flag: bool,
    pub key_type: String,
    pub key_bits: i64,
    pub signature_bits: i64,
    pub use_pss: bool,
    pub key_usage: Vec<String>,
    pub ext_key_usage: Vec<String>,
    pub ext_key_usage_oids: Vec<String>,
    pub use_csr_common_name: bool,
    pub use_csr_sans: bool,
    pub serial_number_source: String,
    pub ou: Vec<String>,
    pub organization: Vec<String>,
    pub country: Vec<String>,
    pub locality: Vec<String>,
    pub province: Vec<String>,
    pub street_address: Vec<String>,
    pub postal_code: Vec<String>,
    pub generate_lease: bool,
    pub no_store: bool,
    pub no_store_metadata: bool,
    pub require_cn: bool,
    pub cn_validations: Vec<String>,
    pub policy_identifiers: Vec<String>,
    pub basic_constraints_valid_for_non_ca: bool,
    /// Seconds.
    pub not_before_duration: u64,
    pub not_after: String,
}

impl Default for Role {
    fn default() -> Role {
        let texts = |t: &[&str]| t.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        Role {
            issuer_ref: "default".into(),
            ttl: 0,
            max_ttl: 0,
            allow_localhost: true,
            allowed_domains: Vec::new(),
            allowed_domains_template: false,
            allow_bare_domains: false,
            allow_subdomains: false,
            allow_glob_domains: false,
            allow_wildcard_certificates: true,
            allow_any_name: false,
            allow_token_displayname: false,
            enforce_hostnames: true,
            allow_ip_sans: true,
            allowed_ip_sans_cidr: Vec::new(),
            allowed_uri_sans: Vec::new(),
            allowed_uri_sans_template: false,
            allowed_other_sans: Vec::new(),
            allowed_serial_numbers: Vec::new(),
            allowed_user_ids: Vec::new(),
            server_flag: true,
            client_flag: true,
            code_signing_flag: false,
            email_protection_flag: false,
            key_type: "rsa".into(),
            key_bits: 0,
            signature_bits: 0,
            use_pss: false,
            key_usage: texts(&["DigitalSignature", "KeyAgreement", "KeyEncipherment"]),
            ext_key_usage: Vec::new(),
            ext_key_usage_oids: Vec::new(),
            use_csr_common_name: true,
            use_csr_sans: true,
            serial_number_source: "json-csr".into(),
            ou: Vec::new(),
            organization: Vec::new(),
            country: Vec::new(),
            locality: Vec::new(),
            province: Vec::new(),
            street_address: Vec::new(),
            postal_code: Vec::new(),
            generate_lease: false,
            no_store: false,
            no_store_metadata: false,
            require_cn: true,
            cn_validations: texts(&["email", "hostname"]),
            policy_identifiers: Vec::new(),
            basic_constraints_valid_for_non_ca: false,
            not_before_duration: 30,
            not_after: String::new(),
        }
    }
}

impl Role {
    /// A role that lets everything stand as the request has it (sign-verbatim, CA certificates).
    pub fn unbounded() -> Role {
        Role {
            allow_any_name: true,
            enforce_hostnames: false,
            allowed_uri_sans: vec!["*".into()],
            allowed_other_sans: vec!["*".into()],
            allowed_serial_numbers: vec!["*".into()],
            allowed_user_ids: vec!["*".into()],
            cn_validations: vec!["disabled".into()],
            require_cn: false,
            key_type: "any".into(),
            ..Role::default()
        }
    }

    /// Takes over the supplied fields and checks the whole.
    fn update(&mut self, args: &Args) -> Result<(), Error> {
        macro_rules! take {
            ($($get:ident: $($field:ident),+;)+) => {
                $($(if let Some(v) = args.$get(stringify!($field)) { self.$field = v.into(); })+)+
            };
        }
        take! {
            opt_str: issuer_ref, key_type, serial_number_source, not_after;
            opt_seconds: ttl, max_ttl, not_before_duration;
            opt_int: key_bits, signature_bits;
            opt_bool: allow_localhost, allowed_domains_template, allow_bare_domains, allow_subdomains,
                allow_glob_domains, allow_wildcard_certificates, allow_any_name, allow_token_displayname,
                enforce_hostnames, allow_ip_sans, allowed_uri_sans_template, server_flag, client_flag,
                code_signing_flag, email_protection_flag, use_pss, use_csr_common_name, use_csr_sans, generate_lease,
                no_store, no_store_metadata, require_cn, basic_constraints_valid_for_non_ca;
            opt_list: allowed_domains, allowed_ip_sans_cidr, allowed_uri_sans, allowed_other_sans,
                allowed_serial_numbers, allowed_user_ids, key_usage, ext_key_usage, ext_key_usage_oids, ou,
                organization, country, locality, province, street_address, postal_code, cn_validations;
        }
        if let Some(v) = args.json("policy_identifiers") {
            self.policy_identifiers = policy_texts(v)?;
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), Error> {
        if self.max_ttl > 0 && self.ttl > self.max_ttl {
            return Err(Error::invalid("\"ttl\" value must be less than \"max_ttl\" value"));
        }
        if self.key_type != "any" {
            Spec::parse(&self.key_type, self.key_bits)?;
        }
        key::signature_bits(self.signature_bits)?;
        policies(&self.policy_identifiers)?;
        ext_key_usage(self)?;
        if self.allowed_other_sans.iter().all(|a| a != "*") {
            for a in &self.allowed_other_sans {
                names::parse_other_san(a)?;
            }
        }
        if let Some(bad) = self.allowed_ip_sans_cidr.iter().find(|c| !ringfence_logical::cx::is_cidr(c)) {
            return Err(Error::invalid(format!("invalid CIDR in allowed_ip_sans_cidr: {bad}")));
        }
        if !self.not_after.is_empty() && cert::parse_time(&self.not_after).is_none() {
            return Err(Error::invalid(format!(
                "not_after {:?} is not a time in the form YYYY-MM-ddTHH:MM:SSZ",
                self.not_after
            )));
        }
        if !matches!(self.serial_number_source.as_str(), "json" | "json-csr") {
            return Err(Error::invalid(format!("unknown serial_number_source: {:?}", self.serial_number_source)));
        }
        let mut validations: Vec<String> = self.cn_validations.iter().map(|v| v.to_ascii_lowercase()).collect();
        if validations.is_empty() {
            validations = Role::default().cn_validations;
        }
        if let Some(bad) = validations.iter().find(|v| !matches!(v.as_str(), "email" | "hostname" | "disabled")) {
            return Err(Error::invalid(format!("unknown value for cn_validations: {bad}")));
        }
        if validations.iter().any(|v| v == "disabled") && validations.len() > 1 {
            return Err(Error::invalid("cannot combine 'disabled' with other cn_validations"));
        }
        self.cn_validations = validations;
        if self.issuer_ref.is_empty() {
            self.issuer_ref = "default".into();
        }
        // a certificate that is not stored cannot be revoked by its lease
        self.generate_lease &= !self.no_store;
        Ok(())
    }

    fn shown(&self) -> Map {
        let mut m = match serde_json::to_value(self) {
            Ok(Value::Object(m)) => m,
            _ => Map::new(),
        };
        let bits = Spec::parse(&self.key_type, self.key_bits).map_or(self.key_bits, |s| i64::from(s.bits));
        m.insert("key_bits".into(), bits.into());
        m.insert("signature_bits".into(), if self.signature_bits == 0 { 256 } else { self.signature_bits }.into());
        m
    }

    /// The key usage bits. Names that there are not are skipped, as the API documents.
    pub fn key_usages(&self) -> Vec<KeyUsages> {
        key_usages(&self.key_usage)
    }
}

/// Key usage bits by Go's names, with or without `KeyUsage` before them.
pub fn key_usages(texts: &[String]) -> Vec<KeyUsages> {
    texts
        .iter()
        .filter_map(|t| {
            let t = t.trim().to_ascii_lowercase();
            Some(match t.strip_prefix("keyusage").unwrap_or(&t) {
                "digitalsignature" => KeyUsages::DigitalSignature,
                "contentcommitment" | "nonrepudiation" => KeyUsages::NonRepudiation,
                "keyencipherment" => KeyUsages::KeyEncipherment,
                "dataencipherment" => KeyUsages::DataEncipherment,
                "keyagreement" => KeyUsages::KeyAgreement,
                "certsign" => KeyUsages::KeyCertSign,
                "crlsign" => KeyUsages::CRLSign,
                "encipheronly" => KeyUsages::EncipherOnly,
                "decipheronly" => KeyUsages::DecipherOnly,
                _ => return None,
            })
        })
        .collect()
}

/// The extended key usages of a role: flags, names and OIDs.
pub fn ext_key_usage(role: &Role) -> Result<Vec<ObjectIdentifier>, Error> {
    let mut out: Vec<ObjectIdentifier> = Vec::new();
    let mut add = |o: ObjectIdentifier| {
        if !out.contains(&o) {
            out.push(o);
        }
    };
    const SERVER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
    const CLIENT: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
    const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");
    const EMAIL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.4");
    for (wanted, purpose) in [
        (role.server_flag, SERVER),
        (role.client_flag, CLIENT),
        (role.code_signing_flag, CODE_SIGNING),
        (role.email_protection_flag, EMAIL),
    ] {
        if wanted {
            add(purpose);
        }
    }
    let purpose = |n: &str| ObjectIdentifier::new(&format!("1.3.6.1.5.5.7.3.{n}")).ok();
    for name in &role.ext_key_usage {
        let name = name.trim().to_ascii_lowercase();
        let oid = match name.strip_prefix("extkeyusage").unwrap_or(&name) {
            "any" => ObjectIdentifier::new("2.5.29.37.0").ok(),
            "serverauth" => purpose("1"),
            "clientauth" => purpose("2"),
            "codesigning" => purpose("3"),
            "emailprotection" => purpose("4"),
            "ipsecendsystem" => purpose("5"),
            "ipsectunnel" => purpose("6"),
            "ipsecuser" => purpose("7"),
            "timestamping" => purpose("8"),
            "ocspsigning" => purpose("9"),
            "microsoftservergatedcrypto" => ObjectIdentifier::new("1.3.6.1.4.1.311.10.3.3").ok(),
            "netscapeservergatedcrypto" => ObjectIdentifier::new("2.16.840.1.113730.4.1").ok(),
            "microsoftcommercialcodesigning" => ObjectIdentifier::new("1.3.6.1.4.1.311.2.1.22").ok(),
            "microsoftkernelcodesigning" => ObjectIdentifier::new("1.3.6.1.4.1.311.61.1.1").ok(),
            _ => None,
        };
        oid.into_iter().for_each(&mut add);
    }
    for text in &role.ext_key_usage_oids {
        add(ObjectIdentifier::new(text).map_err(|_| {
            Error::invalid(format!("{text:?} could not be parsed as a valid oid for an extended key usage"))
        })?);
    }
    Ok(out)
}

/// Policies as the request has them: an OID each, comma text, or objects with `oid`, `cps` and `notice`; objects may
/// come as JSON text.
fn policy_texts(v: &Value) -> Result<Vec<String>, Error> {
    let bad = || Error::invalid("policy_identifiers must be OIDs or JSON objects with an oid");
    Ok(match v {
        Value::Null => Vec::new(),
        Value::String(s) if s.trim().is_empty() => Vec::new(),
        Value::String(s) if s.trim_start().starts_with(['[', '{']) => {
            policy_texts(&serde_json::from_str(s).map_err(|_| bad())?)?
        }
        Value::String(s) => s.split(',').map(|t| t.trim().to_owned()).collect(),
        Value::Object(_) => vec![v.to_string()],
        Value::Array(items) => {
            let mut out = Vec::new();
            for i in items {
                out.extend(policy_texts(i)?);
            }
            out
        }
        _ => return Err(bad()),
    })
}

/// The policies extension of such texts.
pub fn policies(texts: &[String]) -> Result<Option<CertificatePolicies>, Error> {
    let mut out = Vec::new();
    for text in texts {
        let bad = |why: &str| Error::invalid(format!("invalid policy identifier {text:?}: {why}"));
        let (oid, cps, notice) = match text.trim_start().starts_with('{') {
            true => {
                let v: Value = serde_json::from_str(text).map_err(|_| bad("not JSON"))?;
                let get = |k: &str| v[k].as_str().unwrap_or("").to_owned();
                (get("oid"), get("cps"), get("notice"))
            }
            false => (text.clone(), String::new(), String::new()),
        };
        let mut qualifiers = Vec::new();
        let mut qualifier = |id: &str, value: Result<Any, der::Error>| -> Result<(), Error> {
            qualifiers.push(PolicyQualifierInfo {
                policy_qualifier_id: ObjectIdentifier::new(id).map_err(|_| bad("qualifier"))?,
                qualifier: Some(value.map_err(|_| bad("a qualifier cannot be encoded"))?),
            });
            Ok(())
        };
        if !cps.is_empty() {
            let uri = Ia5String::new(&cps).map_err(|_| bad("cps is not ASCII"))?;
            qualifier("1.3.6.1.5.5.7.2.1", Any::encode_from(&uri))?;
        }
        if !notice.is_empty() {
            let explicit_text = Some(DisplayText::Utf8String(notice));
            qualifier("1.3.6.1.5.5.7.2.2", Any::encode_from(&UserNotice { notice_ref: None, explicit_text }))?;
        }
        out.push(PolicyInformation {
            policy_identifier: ObjectIdentifier::new(&oid).map_err(|_| bad("not an OID"))?,
            policy_qualifiers: (!qualifiers.is_empty()).then_some(qualifiers),
        });
    }
    Ok((!out.is_empty()).then_some(CertificatePolicies(out)))
}

/// A role by name.
pub fn load(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Role>, Error> {
    let known = cx.decoded(ROLES, name.as_bytes(), store::many, store::json_of::<Role>)?;
    Ok(known.map(|r| (*r).clone()))
}

/// A role that a request relies on, its templates filled for who asks.
pub fn required(cx: &mut Cx<'_, '_>, name: &str) -> Result<Arc<Role>, Error> {
    let known = cx.decoded(ROLES, name.as_bytes(), store::many, store::json_of::<Role>)?;
    let role = known.ok_or_else(|| Error::invalid(format!("unknown role: {name}")))?;
    if !role.allowed_domains_template && !role.allowed_uri_sans_template {
        return Ok(role);
    }
    let mut filled = (*role).clone();
    filled.fill_templates(cx)?;
    Ok(Arc::new(filled))
}

impl Role {
    /// Puts the caller's identity into the role's templates. What names something that he has not allows nothing.
    pub fn fill_templates(&mut self, cx: &mut Cx<'_, '_>) -> Result<(), Error> {
        if std::mem::take(&mut self.allowed_domains_template) {
            self.allowed_domains = filled(cx, &self.allowed_domains)?;
        }
        if std::mem::take(&mut self.allowed_uri_sans_template) {
            self.allowed_uri_sans = filled(cx, &self.allowed_uri_sans)?;
        }
        Ok(())
    }
}

fn filled(cx: &mut Cx<'_, '_>, rules: &[String]) -> Result<Vec<String>, Error> {
    let entity = cx.principal.map_or("", |p| p.entity_id.as_str());
    let host = cx.host;
    let mut out = Vec::with_capacity(rules.len());
    for rule in rules {
        match rule.contains("{{") {
            // a value with a star, a comma or a slash in it is none: it would widen the rule
            true => out.extend(host.fill_template(cx.txn, entity, rule)?),
            false => out.push(rule.clone()),
        }
    }
    Ok(out)
}

pub fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    Ok(cx.exists(ROLES, args.str("name").as_bytes()))
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let limit = usize::try_from(args.int("limit")).unwrap_or(0);
    Response::keys(cx.list(ROLES, "", args.str("after"), limit)?).done()
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match load(cx, args.str("name"))? {
        Some(r) => Response::data(r.shown()).done(),
        None => nothing(),
    }
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut role = Role::default();
    role.update(args)?;
    save(cx, args.str("name"), &role)
}

pub fn patch(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let mut role = load(cx, name)?
        .ok_or_else(|| Error::invalid(format!("Unable to fetch role entry to patch: role {name} does not exist")))?;
    role.update(args)?;
    save(cx, name, &role)
}

fn save(cx: &mut Cx<'_, '_>, name: &str, role: &Role) -> Outcome {
    let mut answer = Response::data(role.shown());
    if store::issuer(cx, &role.issuer_ref).is_err() {
        answer.warnings.push(match role.issuer_ref.as_str() {
            "default" => "Issuing Certificate was set to default, but no default issuing certificate (configurable at /config/issuers) is currently set".into(),
            other => format!("Issuing Certificate {other} does not exist; issuing by this role will fail until it does"),
        });
    }
    cx.put_json(ROLES, name.as_bytes(), role);
    answer.done()
}

pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    cx.delete(ROLES, args.str("name").as_bytes());
    nothing()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies_of_every_form() {
        let v = json!(["1.2.3.4", {"oid": "1.3.6.1.4.1.7.8", "cps": "https://example.com", "notice": "read me"}]);
        let texts = policy_texts(&v).unwrap();
        assert_eq!(policies(&texts).unwrap().unwrap().0.len(), 2);
        assert_eq!(policy_texts(&json!("1.2.3, 1.2.4")).unwrap(), ["1.2.3", "1.2.4"]);
        assert!(policies(&["not an oid".into()]).is_err());
        assert!(policy_texts(&json!(5)).is_err());
    }
}
