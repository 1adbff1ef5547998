//! Dynamic credentials: accounts that live as long as their leases.

use super::connection::{self, Connection};
use super::plugin::Plugin;
use super::role::{self, CredentialType, Role};
use super::template::{self, Names, Template};
use super::{INTENTS, UNDO_JOB, certificate, scram, statement};
use ringfence_base::Secret;
use ringfence_logical::{
    Args, Compute, Cx, Error, Lease, LeaseTerms, Map, Outcome, Response, Resume, SideResult, Step, nothing,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// The secret type of leases.
const SECRET: &str = "creds";
/// An intent that is not settled after this long is undone. Longer than any side operation may take.
const UNDO_AFTER_SECONDS: u64 = 25;
/// An account outlives its lease by this much, so that the lease ends it and not the clock of the server.
const GRACE_SECONDS: u64 = 5;

/// An account that may be being made.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Intent {
    db_name: String,
    username: String,
    /// Ends it; empty = the plugin's own way.
    undo: Vec<String>,
}

/// What a client is given.
#[derive(Clone)]
struct Credential {
    username: String,
    /// Password, or PEM of certificate and key.
    secret: Given,
}

#[derive(Clone)]
enum Given {
    Password(Arc<Secret<String>>),
    Certificate(Arc<certificate::Issued>),
}

/// An account to be made.
struct Plan {
    role_name: String,
    role: Role,
    connection: Connection,
    plugin: &'static Plugin,
}

impl Plan {
    /// Finds and checks everything that a request names.
    fn of(cx: &mut Cx<'_, '_>, role_name: &str) -> Result<Plan, Error> {
        let role = role::load(cx, role_name)?.ok_or_else(|| Error::invalid(format!("unknown role: {role_name}")))?;
        let (connection, plugin) = connection::need(cx, &role.db_name)?;
        if !connection.allows(role_name) {
            return Err(Error::plain(&format!("{role_name:?} is not an allowed role")));
        }
        if role.creation.is_empty() {
            return Err(Error::plain("empty creation statements"));
        }
        Ok(Plan { role_name: role_name.to_owned(), role, connection, plugin })
    }

    fn username(&self, cx: &mut Cx<'_, '_>) -> Result<String, Error> {
        let template = match self.role.config("common_name_template") {
            "" => self.connection.username_template()?,
            own => Template::parse(own).map_err(|e| Error::plain(&format!("invalid common_name_template: {e}")))?,
        };
        let display_name = cx.principal.map_or("", |p| p.display_name.as_str());
        let names = Names { display_name, role_name: &self.role_name };
        let name = template
            .render(&names, cx.now, cx.rng)
            .map_err(|e| Error::plain(&format!("unable to generate username: {e}")))?;
        match connection::tidy_name(&name, self.plugin.kind) {
            name if name.trim().is_empty() => Err(Error::plain("unable to generate username: it is empty")),
            name => Ok(name),
        }
    }
}

/// Seconds that a lease of a role will live at first; the vault floor computes the same.
fn first_ttl(cx: &Cx<'_, '_>, role: &Role) -> u64 {
    let wanted = if role.default_ttl > 0 { role.default_ttl } else { cx.mount.default_ttl };
    let most = match role.max_ttl {
        0 => cx.mount.max_ttl,
        n => n.min(cx.mount.max_ttl),
    };
    wanted.min(most)
}

/// `creds/{name}`.
pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").to_owned();
    let plan = Plan::of(cx, &name)?;
    let username = plan.username(cx)?;
    match plan.role.credential_type {
        CredentialType::Password => {
            let password = plan.connection.new_password(cx, plan.role.config("password_policy"))?;
            let secret = Given::Password(Arc::new(Secret::new(password)));
            create(cx, plan, Credential { username, secret })
        }
        CredentialType::ClientCertificate => {
            let spec = certificate::Spec::of(&plan.role.credential_config).map_err(Error::invalid)?;
            let mut serial = [0; 16];
            cx.rng.fill(&mut serial);
            let until = cx.now.plus_seconds(first_ttl(cx, &plan.role) + GRACE_SECONDS);
            let (common_name, now) = (username.clone(), cx.now);
            Ok(Step::Side {
                op: Compute::op("client certificate", move || spec.issue(&common_name, serial, now, until)),
                resume: Box::new(move |cx, result| {
                    let issued = match result {
                        SideResult::Value(v) => v.get::<Arc<certificate::Issued>>().cloned(),
                        SideResult::Failed(why) => {
                            return Err(Error::plain(&format!("unable to generate client certificate: {why}")));
                        }
                        _ => None,
                    };
                    let issued = issued.ok_or_else(|| Error::internal("a certificate was due"))?;
                    let plan = Plan::of(cx, &name)?;
                    create(cx, plan, Credential { username: username.clone(), secret: Given::Certificate(issued) })
                }),
            })
        }
    }
}

/// Commits the intent, makes the account, and puts the lease in the intent's place.
fn create(cx: &mut Cx<'_, '_>, plan: Plan, credential: Credential) -> Outcome {
    let Plan { role_name, role, connection, plugin } = plan;
    let expiration = connection::expiration(cx.now.plus_seconds(first_ttl(cx, &role) + GRACE_SECONDS));
    let sent = match &credential.secret {
        Given::Password(p) if connection.sends_verifiers() => {
            let mut salt = [0; 16];
            cx.rng.fill(&mut salt);
            scram::verifier(p.expose(), &salt)
        }
        Given::Password(p) => p.expose().clone(),
        Given::Certificate(_) => String::new(),
    };
    let name = credential.username.as_str();
    let values =
        [("name", name), ("username", name), ("password", sent.as_str()), ("expiration", expiration.as_str())];
    let statements =
        statement::complete(&role.creation, &values, plugin.dialect()).map_err(|why| Error::plain(&why))?;
    let op = connection.run(cx, &role.db_name, statements)?;

    let id = template::uuid(cx.rng);
    let undo = if role.rollback.is_empty() { role.revocation.clone() } else { role.rollback.clone() };
    let intent = Intent { db_name: role.db_name.clone(), username: name.to_owned(), undo };
    cx.put_json(INTENTS, id.as_bytes(), &intent);
    let undo_at = cx.now.plus_seconds(UNDO_AFTER_SECONDS);
    cx.schedule(&job(&id), undo_at);

    let internal = json!({
        "username": name, "role": role_name, "db_name": role.db_name, "revocation_statements": role.revocation,
    });
    let internal = internal.as_object().cloned().unwrap_or_default();
    let terms =
        LeaseTerms { secret: SECRET, ttl: role.default_ttl, max_ttl: role.max_ttl, renewable: true, internal };
    let resume: Resume = Box::new(move |cx, result| {
        let secrets = match &credential.secret {
            Given::Password(p) => [p.expose().as_str(), sent.as_str()],
            Given::Certificate(_) => [""; 2],
        };
        if let Err(e) = connection::outcome(result, &secrets) {
            return undo_then(cx, &id, e);
        }
        if cx.get(INTENTS, id.as_bytes())?.is_none() {
            return Err(Error::plain("the account took too long to be made and was removed again"));
        }
        forget(cx, &id);
        Response { data: Some(credential.data()), lease: Some(terms.clone()), ..Response::default() }.done()
    });
    Ok(Step::Intent { op, resume })
}

impl Credential {
    fn data(&self) -> ringfence_logical::Data {
        let mut m = Map::new();
        m.insert("username".into(), self.username.clone().into());
        match &self.secret {
            Given::Password(p) => {
                m.insert("password".into(), p.expose().clone().into());
            }
            Given::Certificate(c) => {
                m.insert("client_certificate".into(), c.certificate_pem.clone().into());
                m.insert("private_key".into(), c.key_pem.expose().clone().into());
                m.insert("private_key_type".into(), c.key_type.into());
            }
        }
        ringfence_logical::Data::Map(m)
    }
}

fn job(id: &str) -> String {
    format!("{UNDO_JOB}{id}")
}

fn forget(cx: &mut Cx<'_, '_>, id: &str) {
    cx.delete(INTENTS, id.as_bytes());
    cx.unschedule(&job(id));
}

/// The creation failed: whatever is left of the account is removed at once, and the client is told why it failed.
fn undo_then(cx: &mut Cx<'_, '_>, id: &str, why: Error) -> Outcome {
    if cx.get(INTENTS, id.as_bytes())?.is_some() {
        let now = cx.now;
        cx.schedule(&job(id), now);
    }
    fail_after_commit(why)
}

/// Commits what was written and then refuses.
pub fn fail_after_commit(why: Error) -> Outcome {
    Ok(Step::Intent {
        op: Compute::op("nothing", || SideResult::Verdict(true)),
        resume: Box::new(move |_, _| Err(why.clone())),
    })
}

/// An intent's time has come: the account is removed, there or not.
pub fn undo(cx: &mut Cx<'_, '_>, id: &str) -> Outcome {
    let Some(intent) = cx.get_json::<Intent>(INTENTS, id.as_bytes())? else { return nothing() };
    let Some(connection) = connection::load(cx, &intent.db_name)? else {
        // nobody knows any more where it was to be made
        cx.delete(INTENTS, id.as_bytes());
        return nothing();
    };
    let plugin = connection.plugin()?;
    let op = removal(cx, &connection, plugin, &intent.db_name, &intent.username, &intent.undo)?;
    let id = id.to_owned();
    Ok(Step::Side {
        op,
        resume: Box::new(move |cx, result| {
            connection::outcome(result, &[])?;
            cx.delete(INTENTS, id.as_bytes());
            nothing()
        }),
    })
}

/// The side operation that ends an account.
fn removal(
    cx: &Cx<'_, '_>,
    connection: &Connection,
    plugin: &Plugin,
    db_name: &str,
    username: &str,
    own: &[String],
) -> Result<ringfence_logical::SideOp, Error> {
    let default = if own.is_empty() { plugin.default_revocation(username) } else { Vec::new() };
    let list = if own.is_empty() { &default } else { own };
    let values = [("name", username), ("username", username)];
    let statements = statement::complete(list, &values, plugin.dialect()).map_err(|why| Error::plain(&why))?;
    connection.run(cx, db_name, statements)
}

fn kept<'l>(lease: &'l Lease, name: &str) -> &'l str {
    lease.internal.get(name).and_then(Value::as_str).unwrap_or("")
}

/// A lease ends, and its account with it.
pub fn revoke(cx: &mut Cx<'_, '_>, lease: &Lease) -> Outcome {
    let db_name = kept(lease, "db_name");
    let (connection, plugin) = connection::need(cx, db_name)?;
    let own = match role::load(cx, kept(lease, "role"))? {
        Some(role) => role.revocation,
        None => serde_json::from_value(lease.internal.get("revocation_statements").cloned().unwrap_or_default())
            .unwrap_or_default(),
    };
    let op = removal(cx, &connection, plugin, db_name, kept(lease, "username"), &own)?;
    Ok(Step::Side {
        op,
        resume: Box::new(|_, result| {
            connection::outcome(result, &[])?;
            nothing()
        }),
    })
}

/// A lease lives on; so must its account.
pub fn renew(cx: &mut Cx<'_, '_>, lease: &Lease) -> Outcome {
    let role_name = kept(lease, "role");
    let Some(role) = role::load(cx, role_name)? else {
        return Err(Error::invalid(format!(
            "failed to renew entry: error during renew: could not find role with name {role_name:?}"
        )));
    };
    let (connection, plugin) = connection::need(cx, &role.db_name)?;
    let terms = LeaseTerms {
        secret: SECRET,
        ttl: role.default_ttl,
        max_ttl: role.max_ttl,
        renewable: true,
        internal: Map::new(),
    };
    let list: Vec<String> = match role.renewal.is_empty() {
        true => plugin.renewal.iter().map(|s| (*s).to_owned()).collect(),
        false => role.renewal.clone(),
    };
    if list.is_empty() {
        return Response { lease: Some(terms), ..Response::default() }.done();
    }
    let wanted = if lease.increment > 0 { lease.increment } else { first_ttl(cx, &role) };
    let most = if role.max_ttl > 0 { role.max_ttl.min(cx.mount.max_ttl) } else { cx.mount.max_ttl };
    let expiration = connection::expiration(cx.now.plus_seconds(wanted.min(most) + GRACE_SECONDS));
    let name = kept(lease, "username");
    let values = [("name", name), ("username", name), ("expiration", expiration.as_str())];
    let statements = statement::complete(&list, &values, plugin.dialect()).map_err(|why| Error::plain(&why))?;
    Ok(Step::Side {
        op: connection.run(cx, &role.db_name, statements)?,
        resume: Box::new(move |_, result| {
            connection::outcome(result, &[])?;
            Response { lease: Some(terms.clone()), ..Response::default() }.done()
        }),
    })
}
