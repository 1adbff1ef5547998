//! Roles.

use super::{hash, secret_id};
use crate::page;
use crate::tokenutil::TokenParams;
use ringfence_base::Code;
use ringfence_base::entropy::uuid4;
use ringfence_logical::cx::is_cidr;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use serde_json::{Value, json};

/// Area of the roles.
const ROLES: u8 = b'r';
/// Area of the roles' numbers.
const NUMBERS: u8 = b'u';
/// Area of the role-ids.
const ROLE_IDS: u8 = b'i';

/// A role.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Role {
    /// Drawn when the role was made; its secret-ids stand under it.
    pub number: [u8; 8],
    pub role_id: String,
    pub bind_secret_id: bool,
    pub secret_id_bound_cidrs: Vec<String>,
    /// The ranges were last set as `bound_cidr_list`.
    pub set_as_bound_cidr_list: bool,
    /// 0 = without limit.
    pub secret_id_num_uses: u64,
    /// Seconds; 0 = without end.
    pub secret_id_ttl: u64,
    pub local_secret_ids: bool,
    pub token: TokenParams,
}

impl Role {
    /// Takes over the supplied fields that can always be changed.
    pub fn update(&mut self, args: &Args) -> Result<(), Error> {
        if let Some(b) = args.opt_bool("bind_secret_id") {
            self.bind_secret_id = b;
        }
        if let Some(texts) = args.opt_list("secret_id_bound_cidrs") {
            self.secret_id_bound_cidrs = checked_cidrs(texts)?;
            self.set_as_bound_cidr_list = false;
        } else if let Some(texts) = args.opt_list("bound_cidr_list") {
            self.secret_id_bound_cidrs = checked_cidrs(texts)?;
            self.set_as_bound_cidr_list = true;
        }
        if let Some(n) = args.opt_int("secret_id_num_uses") {
            self.secret_id_num_uses =
                u64::try_from(n).map_err(|_| Error::invalid("secret_id_num_uses cannot be negative"))?;
        }
        if let Some(s) = args.opt_seconds("secret_id_ttl") {
            self.secret_id_ttl = s;
        }
        self.token.update(args)
    }

    /// At least one constraint must stand.
    pub fn check(&self) -> Result<(), Error> {
        if !self.bind_secret_id && self.secret_id_bound_cidrs.is_empty() {
            return Err(Error::plain("at least one constraint should be enabled on the role"));
        }
        Ok(())
    }

    /// The ranges as the API prints them: null if there are none.
    pub fn cidrs_json(&self) -> Value {
        if self.secret_id_bound_cidrs.is_empty() { Value::Null } else { json!(self.secret_id_bound_cidrs) }
    }

    fn shown(&self) -> Map {
        let mut m = Map::new();
        m.insert("bind_secret_id".into(), self.bind_secret_id.into());
        m.insert("local_secret_ids".into(), self.local_secret_ids.into());
        m.insert("secret_id_bound_cidrs".into(), self.cidrs_json());
        if self.set_as_bound_cidr_list {
            m.insert("bound_cidr_list".into(), self.cidrs_json());
        }
        m.insert("secret_id_num_uses".into(), self.secret_id_num_uses.into());
        m.insert("secret_id_ttl".into(), self.secret_id_ttl.into());
        self.token.read_into(&mut m);
        m
    }
}

/// Ranges as they were sent, if each is one.
pub fn checked_cidrs(texts: Vec<String>) -> Result<Vec<String>, Error> {
    match texts.iter().all(|t| is_cidr(t)) {
        true => Ok(texts),
        false => Err(Error::invalid("invalid CIDR blocks")),
    }
}

pub fn load(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Role>, Error> {
    cx.get_json(ROLES, name.as_bytes())
}

/// The role that a path names, which must be there.
pub fn required(cx: &mut Cx<'_, '_>, name: &str) -> Result<Role, Error> {
    load(cx, name)?.ok_or_else(|| Error::new(Code::NotFound, format!("role {name:?} does not exist")))
}

pub fn save(cx: &mut Cx<'_, '_>, name: &str, role: &Role) {
    cx.put_json(ROLES, name.as_bytes(), role);
}

/// The name and role behind a role-id.
pub fn by_role_id(cx: &mut Cx<'_, '_>, role_id: &str) -> Result<Option<(String, Role)>, Error> {
    let index = hash(cx, "approle role-id", &[role_id.as_bytes()]);
    let Some(name) = cx.get(ROLE_IDS, &index)? else { return Ok(None) };
    let name = String::from_utf8(name).map_err(|_| Error::internal("stored role name is not text"))?;
    Ok(load(cx, &name)?.filter(|r| r.role_id == role_id).map(|r| (name, r)))
}

/// True if a role has this number.
pub fn number_is_alive(cx: &mut Cx<'_, '_>, number: &[u8]) -> bool {
    cx.exists(NUMBERS, number)
}

pub fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    Ok(cx.exists(ROLES, args.str("role_name").as_bytes()))
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Response::keys(cx.list(ROLES, "", args.str("after"), page::limit(args))?).done()
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match load(cx, args.str("role_name"))? {
        Some(role) => Response::data(role.shown()).done(),
        None => nothing(),
    }
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("role_name");
    let stored = load(cx, name)?;
    if stored.is_some() && args.supplied("local_secret_ids") {
        return Err(Error::invalid("local_secret_ids can only be modified during role creation"));
    }
    let known = stored.is_some();
    let mut role = stored.unwrap_or_else(|| Role { bind_secret_id: true, ..Role::default() });
    role.update(args)?;
    role.check()?;
    let mut role_id = args.str("role_id").to_owned();
    if !known {
        role.local_secret_ids = args.bool("local_secret_ids");
        cx.rng.fill(&mut role.number);
        cx.put(NUMBERS, &role.number.clone(), name.as_bytes());
        if role_id.is_empty() {
            role_id = uuid4(cx.rng);
        }
    }
    if !role_id.is_empty() {
        give_role_id(cx, name, &mut role, role_id)?;
    }
    save(cx, name, &role);
    nothing()
}

/// Gives a role its role-id; no two roles of a mount have the same.
fn give_role_id(cx: &mut Cx<'_, '_>, name: &str, role: &mut Role, role_id: String) -> Result<(), Error> {
    let index = hash(cx, "approle role-id", &[role_id.as_bytes()]);
    match cx.get(ROLE_IDS, &index)? {
        Some(owner) if owner == name.as_bytes() => {}
        Some(_) => return Err(Error::invalid("role_id already in use")),
        None => {
            if !role.role_id.is_empty() {
                let old = hash(cx, "approle role-id", &[role.role_id.as_bytes()]);
                cx.delete(ROLE_IDS, &old);
            }
            cx.put(ROLE_IDS, &index, name.as_bytes());
        }
    }
    role.role_id = role_id;
    Ok(())
}

pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("role_name");
    let Some(role) = load(cx, name)? else { return nothing() };
    let index = hash(cx, "approle role-id", &[role.role_id.as_bytes()]);
    cx.delete(ROLE_IDS, &index);
    cx.delete(NUMBERS, &role.number);
    cx.delete(ROLES, name.as_bytes());
    secret_id::clear_role(cx, &role)?;
    nothing()
}

pub fn read_role_id(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match load(cx, args.str("role_name"))? {
        Some(role) => Response::json(json!({"role_id": role.role_id})).done(),
        None => nothing(),
    }
}

pub fn write_role_id(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("role_name");
    let mut role = required(cx, name)?;
    if args.str("role_id").is_empty() {
        return Err(Error::invalid("missing role_id"));
    }
    give_role_id(cx, name, &mut role, args.str("role_id").to_owned())?;
    save(cx, name, &role);
    nothing()
}

pub fn read_local_secret_ids(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match load(cx, args.str("role_name"))? {
        Some(role) => Response::json(json!({"local_secret_ids": role.local_secret_ids})).done(),
        None => nothing(),
    }
}
