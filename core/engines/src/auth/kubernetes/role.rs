//! Roles: which service accounts may log in.

use super::selector::Selector;
use crate::page;
use crate::tokenutil::TokenParams;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use serde_json::json;

/// Area of the roles.
const ROLES: u8 = b'r';

/// What an alias is named after.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AliasSource {
    /// The account's UID: another account of the same name is somebody else.
    #[default]
    ServiceaccountUid,
    /// `namespace/name`.
    ServiceaccountName,
}

/// A role.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Role {
    pub names: Vec<String>,
    pub namespaces: Vec<String>,
    /// JSON text of a LabelSelector.
    pub namespace_selector: String,
    pub audience: String,
    pub alias_name_source: AliasSource,
    pub token: TokenParams,
}

impl Role {
    fn update(&mut self, args: &Args) -> Result<(), Error> {
        self.token.update(args)?;
        if let Some(l) = args.opt_list("bound_service_account_names") {
            self.names = l;
        }
        if let Some(l) = args.opt_list("bound_service_account_namespaces") {
            self.namespaces = l;
        }
        if let Some(s) = args.opt_str("bound_service_account_namespace_selector") {
            self.namespace_selector = s.to_owned();
        }
        if let Some(s) = args.opt_str("audience") {
            self.audience = s.to_owned();
        }
        if let Some(s) = args.opt_str("alias_name_source") {
            self.alias_name_source = match s {
                "" | "serviceaccount_uid" => AliasSource::ServiceaccountUid,
                "serviceaccount_name" => AliasSource::ServiceaccountName,
                _ => return Err(Error::invalid(format!("invalid alias_name_source {s:?}"))),
            };
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        let star_among_others = |l: &[String]| l.len() > 1 && l.iter().any(|n| n == "*");
        if self.names.is_empty() {
            return Err(Error::invalid("\"bound_service_account_names\" can not be empty"));
        }
        if star_among_others(&self.names) {
            return Err(Error::invalid("can not mix \"*\" with values"));
        }
        if self.namespaces.is_empty() && self.namespace_selector.is_empty() {
            return Err(Error::invalid(
                "\"bound_service_account_namespaces\" can not be empty if \"bound_service_account_namespace_selector\" is not set",
            ));
        }
        if star_among_others(&self.namespaces) {
            return Err(Error::invalid("can not mix \"*\" with values"));
        }
        if !self.namespace_selector.is_empty() {
            Selector::parse(&self.namespace_selector).map_err(|why| {
                Error::invalid(format!("invalid \"bound_service_account_namespace_selector\" configured: {why}"))
            })?;
        }
        Ok(())
    }

    fn shown(&self) -> Map {
        let mut m = Map::new();
        m.insert("alias_name_source".into(), json!(self.alias_name_source));
        m.insert("bound_service_account_names".into(), json!(self.names));
        m.insert("bound_service_account_namespace_selector".into(), json!(self.namespace_selector));
        m.insert("bound_service_account_namespaces".into(), json!(self.namespaces));
        if !self.audience.is_empty() {
            m.insert("audience".into(), json!(self.audience));
        }
        self.token.read_into(&mut m);
        m
    }
}

pub fn load(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Role>, Error> {
    cx.get_json(ROLES, name.as_bytes())
}

pub fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    Ok(cx.exists(ROLES, args.str("name").as_bytes()))
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Response::keys(cx.list(ROLES, "", args.str("after"), page::limit(args))?).done()
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match load(cx, args.str("name"))? {
        Some(role) => Response::data(role.shown()).done(),
        None => nothing(),
    }
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let mut role = load(cx, name)?.unwrap_or_default();
    role.update(args)?;
    role.check()?;
    let bytes = serde_json::to_vec(&role).expect("a plain record always serialises");
    crate::check_size(bytes.len())?;
    cx.put(ROLES, name.as_bytes(), &bytes);
    match role.audience.is_empty() {
        true => Response::default()
            .warn(format!("Role {name} does not have an audience configured. While audiences are not required, consider specifying one if your use case would benefit from additional JWT claim verification."))
            .code(ringfence_base::Code::Ok)
            .done(),
        false => nothing(),
    }
}

pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if cx.exists(ROLES, name.as_bytes()) {
        cx.delete(ROLES, name.as_bytes());
    }
    nothing()
}
