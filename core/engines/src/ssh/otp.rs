//! One-time passwords: a helper on the host asks whether one is good, once.

use super::role::{self, ROLES, Role, parts};
use ringfence_base::entropy::uuid4;
use ringfence_logical::cx::cidr_allows;
use ringfence_logical::{Args, Cx, Error, Lease, LeaseTerms, Outcome, Response, nothing};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::net::IpAddr;

const PASSWORDS: u8 = b'o';
const CONFIG: u8 = b'c';
const ZERO: &[u8] = b"zeroaddress";
/// What a helper sends to see whether the server is there.
const ECHO: &str = "verify-echo-request";

#[derive(Serialize, Deserialize)]
struct Password {
    username: String,
    ip: String,
    role_name: String,
}

fn place(cx: &Cx<'_, '_>, otp: &str) -> [u8; 16] {
    cx.host.keyed_hash("ssh-otp", otp.as_bytes())
}

/// The role serves the address.
fn serves(role: &Role, name: &str, ip: IpAddr, zero: &[String]) -> Result<(), &'static str> {
    let ranges = |list: &str| parts(list).map(str::to_owned).collect::<Vec<_>>();
    if role.cidr_list.is_empty() {
        return match zero.iter().any(|z| z == name) {
            true => Ok(()),
            false => Err("IP does not belong to role"),
        };
    }
    let excluded = ranges(&role.exclude_cidr_list);
    if !cidr_allows(&ranges(&role.cidr_list), Some(ip)) || (!excluded.is_empty() && cidr_allows(&excluded, Some(ip)))
    {
        return Err("IP does not belong to role");
    }
    Ok(())
}

fn address(args: &Args) -> Result<IpAddr, Error> {
    match args.str("ip") {
        "" => Err(Error::invalid("Missing ip")),
        text => text.parse().map_err(|_| Error::invalid(format!("Invalid IP {text:?}"))),
    }
}

fn zero_roles(cx: &mut Cx<'_, '_>) -> Result<Vec<String>, Error> {
    Ok(cx.get_json(CONFIG, ZERO)?.unwrap_or_default())
}

pub fn create(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("role");
    let ip = address(args)?;
    let role = role::load(cx, name)?.ok_or_else(|| Error::invalid(format!("Role {name:?} not found")))?;
    if role.key_type != "otp" {
        return Err(Error::invalid("key type unknown"));
    }
    let username = match args.str("username") {
        "" if role.default_user.is_empty() => {
            return Err(Error::invalid("No default username registered. Use 'username' option"));
        }
        "" => role.default_user.clone(),
        asked => {
            let any = parts(&role.allowed_users).any(|u| u == "*" || u == asked);
            if asked != role.default_user && !any {
                return Err(Error::invalid("Username is not present is allowed users list"));
            }
            asked.to_owned()
        }
    };
    let zero = zero_roles(cx)?;
    serves(&role, name, ip, &zero).map_err(|why| Error::invalid(format!("Error validating IP: {why}")))?;
    let otp = uuid4(cx.rng);
    let at = place(cx, &otp);
    let password = Password { username: username.clone(), ip: ip.to_string(), role_name: name.to_owned() };
    cx.put_json(PASSWORDS, &at, &password);
    let mut response = Response::json(json!({
        "key_type": "otp", "key": otp, "username": username, "ip": ip.to_string(), "port": role.port,
    }));
    // the lease knows the place of the password, not the password
    let internal = json!({ "place": hex::encode(at) }).as_object().cloned().unwrap_or_default();
    response.lease = Some(LeaseTerms { secret: "secret_otp", renewable: false, internal, ..LeaseTerms::default() });
    response.done()
}

pub fn revoke(cx: &mut Cx<'_, '_>, lease: &Lease) -> Outcome {
    let place = lease.internal.get("place").and_then(|p| p.as_str()).and_then(|p| hex::decode(p).ok());
    let place = place.ok_or_else(|| Error::internal("a lease without the place of its password"))?;
    if cx.exists(PASSWORDS, &place) {
        cx.delete(PASSWORDS, &place);
    }
    nothing()
}

pub fn verify(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let otp = args.str("otp");
    if otp == ECHO {
        return Response::json(json!({ "message": "verify-echo-response" })).done();
    }
    let at = place(cx, otp);
    let Some(password) = cx.get_json::<Password>(PASSWORDS, &at)? else {
        return Err(Error::invalid("OTP not found"));
    };
    cx.delete(PASSWORDS, &at);
    Response::json(json!({
        "username": password.username, "ip": password.ip, "role_name": password.role_name,
    }))
    .done()
}

pub fn lookup(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let ip = address(args)?;
    let zero = zero_roles(cx)?;
    let mut roles = Vec::new();
    for name in cx.list(ROLES, "", "", 0)? {
        if let Some(role) = role::load(cx, &name)?
            && role.key_type == "otp"
            && serves(&role, &name, ip, &zero).is_ok()
        {
            roles.push(name);
        }
    }
    Response::json(json!({ "roles": roles })).done()
}

pub fn read_zero(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    match cx.get_json::<Vec<String>>(CONFIG, ZERO)? {
        Some(roles) => Response::json(json!({ "roles": roles })).done(),
        None => nothing(),
    }
}

pub fn write_zero(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let roles = args.list("roles");
    if roles.is_empty() {
        return Err(Error::invalid("Missing roles"));
    }
    for name in &roles {
        if role::load(cx, name)?.is_none() {
            return Err(Error::invalid(format!("Role {name:?} does not exist")));
        }
    }
    cx.put_json(CONFIG, ZERO, &roles);
    nothing()
}

pub fn delete_zero(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    if cx.exists(CONFIG, ZERO) {
        cx.delete(CONFIG, ZERO);
    }
    nothing()
}
