//! Trusted certificates, each with what it lets in and what it grants.

use super::chain;
use crate::page;
use crate::tokenutil::TokenParams;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use serde_json::{Value, json};

/// Area of the entries.
const ENTRIES: u8 = b'e';

/// An entry.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Entry {
    /// PEM, one or several.
    pub certificate: String,
    pub display_name: String,
    pub allowed_names: Vec<String>,
    pub allowed_common_names: Vec<String>,
    pub allowed_dns_sans: Vec<String>,
    pub allowed_email_sans: Vec<String>,
    pub allowed_uri_sans: Vec<String>,
    pub allowed_organizational_units: Vec<String>,
    pub required_extensions: Vec<String>,
    pub allowed_metadata_extensions: Vec<String>,
    pub ocsp_enabled: bool,
    /// PEM: who else may sign answers.
    pub ocsp_ca_certificates: String,
    pub ocsp_servers_override: Vec<String>,
    pub ocsp_fail_open: bool,
    pub ocsp_query_all_servers: bool,
    /// Seconds; 0 = any.
    pub ocsp_this_update_max_age: u64,
    pub ocsp_max_retries: u8,
    pub token: TokenParams,
}

impl Entry {
    fn update(&mut self, args: &Args) -> Result<(), Error> {
        self.token.update(args)?;
        let text = |to: &mut String, name: &str| {
            if let Some(s) = args.opt_str(name) {
                *to = s.to_owned();
            }
        };
        text(&mut self.certificate, "certificate");
        text(&mut self.display_name, "display_name");
        text(&mut self.ocsp_ca_certificates, "ocsp_ca_certificates");
        let list = |to: &mut Vec<String>, name: &str| {
            if let Some(l) = args.opt_list(name) {
                *to = l;
            }
        };
        list(&mut self.allowed_names, "allowed_names");
        list(&mut self.allowed_common_names, "allowed_common_names");
        list(&mut self.allowed_dns_sans, "allowed_dns_sans");
        list(&mut self.allowed_email_sans, "allowed_email_sans");
        list(&mut self.allowed_uri_sans, "allowed_uri_sans");
        list(&mut self.allowed_organizational_units, "allowed_organizational_units");
        list(&mut self.required_extensions, "required_extensions");
        list(&mut self.allowed_metadata_extensions, "allowed_metadata_extensions");
        list(&mut self.ocsp_servers_override, "ocsp_servers_override");
        let flag = |to: &mut bool, name: &str| {
            if let Some(b) = args.opt_bool(name) {
                *to = b;
            }
        };
        flag(&mut self.ocsp_enabled, "ocsp_enabled");
        flag(&mut self.ocsp_fail_open, "ocsp_fail_open");
        flag(&mut self.ocsp_query_all_servers, "ocsp_query_all_servers");
        if let Some(s) = args.opt_seconds("ocsp_this_update_max_age") {
            self.ocsp_this_update_max_age = s;
        }
        if let Some(n) = args.opt_int("ocsp_max_retries") {
            self.ocsp_max_retries = u8::try_from(n)
                .ok()
                .filter(|n| *n <= 10)
                .ok_or_else(|| Error::invalid("ocsp_max_retries can not be a negative number or more than 10"))?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        let certificates =
            chain::of_pem(&self.certificate).ok_or_else(|| Error::invalid("failed to parse certificate"))?;
        let first = chain::parse(&certificates[0]).ok_or_else(|| Error::invalid("failed to parse certificate"))?;
        if !first.is_ca() && !chain::for_clients(&first) {
            return Err(Error::invalid(
                "nonCA certificates should have TLS client authentication set as an extended key usage",
            ));
        }
        if !self.ocsp_ca_certificates.is_empty() && chain::of_pem(&self.ocsp_ca_certificates).is_none() {
            return Err(Error::invalid("failed to parse certificate"));
        }
        if let Some(bad) = self.required_extensions.iter().find(|e| super::constraints::Required::parse(e).is_none())
        {
            return Err(Error::invalid(format!(
                "required extension {bad:?} is not of the form oid:value or hex:oid:value"
            )));
        }
        Ok(())
    }

    fn shown(&self) -> Map {
        let all = json!({
            "allowed_common_names": self.allowed_common_names,
            "allowed_dns_sans": self.allowed_dns_sans,
            "allowed_email_sans": self.allowed_email_sans,
            "allowed_metadata_extensions": self.allowed_metadata_extensions,
            "allowed_names": self.allowed_names,
            "allowed_organizational_units": self.allowed_organizational_units,
            "allowed_uri_sans": self.allowed_uri_sans,
            "certificate": self.certificate,
            "display_name": self.display_name,
            "ocsp_ca_certificates": self.ocsp_ca_certificates,
            "ocsp_enabled": self.ocsp_enabled,
            "ocsp_fail_open": self.ocsp_fail_open,
            "ocsp_max_retries": self.ocsp_max_retries,
            "ocsp_query_all_servers": self.ocsp_query_all_servers,
            "ocsp_servers_override": self.ocsp_servers_override,
            "ocsp_this_update_max_age": self.ocsp_this_update_max_age,
            "required_extensions": self.required_extensions,
        });
        let mut m = match all {
            Value::Object(m) => m,
            _ => Map::new(),
        };
        self.token.read_into(&mut m);
        m
    }
}

pub fn load(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Entry>, Error> {
    cx.get_json(ENTRIES, name.as_bytes())
}

/// The names of all entries.
pub fn names(cx: &mut Cx<'_, '_>) -> Result<Vec<String>, Error> {
    cx.list(ENTRIES, "", "", 0)
}

pub fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    Ok(cx.exists(ENTRIES, args.str("name").as_bytes()))
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Response::keys(cx.list(ENTRIES, "", args.str("after"), page::limit(args))?).done()
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match load(cx, args.str("name"))? {
        Some(entry) => Response::data(entry.shown()).done(),
        None => nothing(),
    }
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let mut entry = load(cx, name)?.unwrap_or_else(|| Entry { ocsp_max_retries: 4, ..Entry::default() });
    entry.update(args)?;
    entry.check()?;
    if entry.display_name.is_empty() {
        entry.display_name = name.to_owned();
    }
    let bytes = serde_json::to_vec(&entry).expect("a plain record always serialises");
    crate::check_size(bytes.len())?;
    cx.put(ENTRIES, name.as_bytes(), &bytes);
    nothing()
}

pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if cx.exists(ENTRIES, name.as_bytes()) {
        cx.delete(ENTRIES, name.as_bytes());
    }
    nothing()
}
