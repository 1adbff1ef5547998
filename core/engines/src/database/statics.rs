//! Static roles: standing accounts whose passwords are rotated by period, by schedule or by hand. The next password is
//! stored as pending before the server hears of it, and every further attempt uses the same one.

use super::creds::fail_after_commit;
use super::role::CredentialType;
use super::{ROLES, STATIC_JOB, STATICS, connection, schedule, scram, statement};
use crate::page;
use ringfence_base::Wall;
use ringfence_logical::{Args, Cx, Error, Outcome, Response, SideResult, Step, nothing};
use serde_json::{Value, json};

/// An attempt that was not heard of is repeated after this long. Longer than any side operation may take.
const CLAIM_SECONDS: u64 = 45;
/// An attempt that failed is repeated after this long.
const RETRY_SECONDS: u64 = 10;
/// Shortest period. Source: Vault.
const MIN_PERIOD_SECONDS: u64 = 5;
/// Shortest window. Source: Vault.
const MIN_WINDOW_SECONDS: u64 = 3600;

/// A standing account.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct StaticRole {
    pub username: String,
    pub db_name: String,
    /// Seconds; 0 = by schedule.
    pub rotation_period: u64,
    /// Cron expression; empty = by period.
    pub rotation_schedule: String,
    /// Seconds after a scheduled time within which a rotation may begin; 0 = any time.
    pub rotation_window: u64,
    pub rotation_statements: Vec<String>,
    pub password_policy: String,
    pub password: String,
    /// The next password, while it is not known whether the server has taken it.
    pub pending: Option<String>,
    /// Nanoseconds since 1970; 0 = never.
    pub last_rotation: u64,
    /// When the next one begins.
    pub next_rotation: u64,
}

/// Who asked for a rotation: what a failure means to it differs.
#[derive(Clone, Copy, PartialEq)]
enum Cause {
    Creation,
    Hand,
    Time,
}

fn load(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<StaticRole>, Error> {
    cx.get_json(STATICS, name.as_bytes())
}

fn save(cx: &mut Cx<'_, '_>, name: &str, role: &StaticRole) {
    cx.put_json(STATICS, name.as_bytes(), role);
}

fn job(name: &str) -> String {
    format!("{STATIC_JOB}{name}")
}

impl StaticRole {
    fn next_after(&self, at: Wall) -> Wall {
        if self.rotation_schedule.is_empty() {
            return at.plus_seconds(self.rotation_period);
        }
        // checked when the role was written; a schedule without a next time is looked at again in a day
        let next = schedule::parse(&self.rotation_schedule).ok().and_then(|c| schedule::next(&c, at));
        next.unwrap_or_else(|| at.plus_seconds(86_400))
    }

    fn is_past_window(&self, now: Wall) -> bool {
        self.rotation_window > 0 && now > Wall(self.next_rotation).plus_seconds(self.rotation_window)
    }
}

pub fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    Ok(cx.exists(STATICS, args.str("name").as_bytes()))
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Response::keys(cx.list(STATICS, "", args.str("after"), page::limit(args))?).done()
}

pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if cx.exists(STATICS, name.as_bytes()) {
        cx.delete(STATICS, name.as_bytes());
        cx.unschedule(&job(name));
    }
    nothing()
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(r) = load(cx, args.str("name"))? else { return nothing() };
    let mut data = json!({
        "credential_type": CredentialType::Password.name(),
        "db_name": r.db_name,
        "last_vault_rotation": Wall(r.last_rotation).rfc3339(),
        "rotation_statements": r.rotation_statements,
        "username": r.username,
    });
    timing(&r, &mut data);
    if !r.password_policy.is_empty() {
        data["credential_config"] = json!({ "password_policy": r.password_policy });
    }
    Response::json(data).done()
}

fn timing(r: &StaticRole, data: &mut Value) {
    if r.rotation_schedule.is_empty() {
        data["rotation_period"] = r.rotation_period.into();
    } else {
        data["rotation_schedule"] = r.rotation_schedule.as_str().into();
        if r.rotation_window > 0 {
            data["rotation_window"] = r.rotation_window.into();
        }
    }
}

/// `static-creds/{name}`.
pub fn credentials(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let Some(r) = load(cx, name)? else { return Err(Error::invalid(format!("unknown role: {name}"))) };
    let (c, _) = connection::need(cx, &r.db_name)?;
    if !c.allows(name) {
        return Err(Error::plain(&format!("{name:?} is not an allowed role")));
    }
    let mut data = json!({
        "last_vault_rotation": Wall(r.last_rotation).rfc3339(),
        "password": r.password,
        "ttl": Wall(r.next_rotation).seconds().saturating_sub(cx.now.seconds()),
        "username": r.username,
    });
    timing(&r, &mut data);
    Response::json(data).done()
}

/// Creates or changes a static role; a new one gets its first password at once.
pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").to_owned();
    if cx.exists(ROLES, name.as_bytes()) {
        return Err(Error::invalid("Role and Static Role names must be unique"));
    }
    let known = load(cx, &name)?;
    let is_new = known.is_none();
    let mut r = known.unwrap_or_default();
    match args.opt_str("username") {
        Some(u) if is_new => r.username = u.to_owned(),
        Some(u) if u != r.username => return Err(Error::invalid("cannot update static account username")),
        _ => {}
    }
    if r.username.is_empty() {
        return Err(Error::invalid("username is a required field to create a static account"));
    }
    if let Some(db) = args.opt_str("db_name") {
        r.db_name = db.to_owned();
    }
    if r.db_name.is_empty() {
        return Err(Error::invalid("database name is a required field"));
    }
    if let Some(kind) = args.opt_str("credential_type")
        && CredentialType::of(kind)? != CredentialType::Password
    {
        return Err(Error::invalid("static accounts have passwords: credential_type must be \"password\""));
    }
    if let Some(config) = args.object("credential_config") {
        super::role::check_config(CredentialType::Password, config)?;
        r.password_policy = config.get("password_policy").and_then(Value::as_str).unwrap_or("").to_owned();
    }
    if let Some(list) = args.opt_list("rotation_statements") {
        r.rotation_statements = statement::given(list);
    }
    take_timing(args, &mut r)?;
    let (c, _) = connection::need(cx, &r.db_name)?;
    if !c.allows(&name) {
        return Err(Error::invalid(format!("{name:?} is not an allowed role")));
    }
    if is_new {
        return rotate(cx, &name, r, Cause::Creation);
    }
    let next = r.next_after(Wall(r.last_rotation));
    r.next_rotation = next.0;
    save(cx, &name, &r);
    cx.schedule(&job(&name), next);
    nothing()
}

fn take_timing(args: &Args, r: &mut StaticRole) -> Result<(), Error> {
    let (period, cron) = (args.opt_seconds("rotation_period"), args.opt_str("rotation_schedule"));
    match (period, cron.filter(|c| !c.is_empty())) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid(
                "mutually exclusive fields rotation_period and rotation_schedule were both specified; only one of them can be provided",
            ));
        }
        (Some(p), None) => {
            if p < MIN_PERIOD_SECONDS {
                return Err(Error::invalid(format!("rotation_period must be {MIN_PERIOD_SECONDS} seconds or more")));
            }
            (r.rotation_period, r.rotation_window) = (p, 0);
            r.rotation_schedule.clear();
        }
        (None, Some(text)) => {
            schedule::parse(text).map_err(|e| Error::invalid(format!("could not parse rotation_schedule: {e}")))?;
            r.rotation_schedule = text.to_owned();
            r.rotation_period = 0;
        }
        (None, None) if r.rotation_period == 0 && r.rotation_schedule.is_empty() => {
            return Err(Error::invalid(
                "one of rotation_schedule or rotation_period must be provided to create a static account",
            ));
        }
        (None, None) => {}
    }
    if let Some(window) = args.opt_seconds("rotation_window").filter(|w| *w > 0) {
        if r.rotation_schedule.is_empty() {
            return Err(Error::invalid("rotation_window is invalid with use of rotation_period"));
        }
        if window < MIN_WINDOW_SECONDS {
            return Err(Error::invalid(format!("rotation_window must be {MIN_WINDOW_SECONDS} seconds or more")));
        }
        r.rotation_window = window;
    }
    Ok(())
}

/// `rotate-role/{name}`.
pub fn rotate_by_hand(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    match load(cx, name)? {
        Some(r) => rotate(cx, name, r, Cause::Hand),
        None => Err(Error::invalid("no static role found for role name")),
    }
}

/// The job's time has come.
pub fn rotate_due(cx: &mut Cx<'_, '_>, name: &str) -> Outcome {
    let Some(mut r) = load(cx, name)? else { return nothing() };
    let now = cx.now;
    if now < Wall(r.next_rotation) && r.pending.is_none() {
        cx.schedule(&job(name), Wall(r.next_rotation));
        return nothing();
    }
    // a pending password may be the one that holds: it is not left for the next time
    if r.is_past_window(now) && r.pending.is_none() {
        let next = r.next_after(now);
        r.next_rotation = next.0;
        save(cx, name, &r);
        cx.schedule(&job(name), next);
        return nothing();
    }
    rotate(cx, name, r, Cause::Time)
}

fn rotate(cx: &mut Cx<'_, '_>, name: &str, mut r: StaticRole, cause: Cause) -> Outcome {
    let (c, plugin) = connection::need(cx, &r.db_name)?;
    let password = match &r.pending {
        Some(p) => p.clone(),
        None => c.new_password(cx, &r.password_policy)?,
    };
    let sent = match c.sends_verifiers() {
        true => {
            let mut salt = [0; 16];
            cx.rng.fill(&mut salt);
            scram::verifier(&password, &salt)
        }
        false => password.clone(),
    };
    let list: Vec<String> = match r.rotation_statements.is_empty() {
        true => plugin.static_rotation.iter().map(|s| (*s).to_owned()).collect(),
        false => r.rotation_statements.clone(),
    };
    let values = [("username", r.username.as_str()), ("name", r.username.as_str()), ("password", sent.as_str())];
    let statements = statement::complete(&list, &values, plugin.dialect()).map_err(|why| Error::plain(&why))?;
    let op = c.run(cx, &r.db_name, statements)?;
    r.pending = Some(password.clone());
    save(cx, name, &r);
    let again = cx.now.plus_seconds(CLAIM_SECONDS);
    cx.schedule(&job(name), again);
    let name = name.to_owned();
    Ok(Step::Intent { op, resume: Box::new(move |cx, result| rotated(cx, &name, &password, &sent, cause, result)) })
}

fn rotated(
    cx: &mut Cx<'_, '_>,
    name: &str,
    password: &str,
    sent: &str,
    cause: Cause,
    result: &SideResult,
) -> Outcome {
    let Some(mut r) = load(cx, name)? else { return nothing() };
    if r.pending.as_deref() != Some(password) {
        // another attempt came to its end first, with the same password
        return nothing();
    }
    let now = cx.now;
    let failed = match connection::outcome(result, &[password, sent]) {
        Ok(()) => {
            r.password = password.to_owned();
            r.pending = None;
            r.last_rotation = now.0;
            let next = r.next_after(now);
            r.next_rotation = next.0;
            save(cx, name, &r);
            cx.schedule(&job(name), next);
            return nothing();
        }
        Err(e) => e,
    };
    match cause {
        Cause::Creation => {
            // the account was not taken over, so there is no role
            cx.delete(STATICS, name.as_bytes());
            cx.unschedule(&job(name));
            fail_after_commit(failed)
        }
        Cause::Hand => {
            cx.schedule(&job(name), now.plus_seconds(RETRY_SECONDS));
            let why = connection::plain_text(&failed);
            fail_after_commit(Error::plain(&format!(
                "unable to finish rotating credentials; retries will continue in the background but it is also safe to retry manually: {why}"
            )))
        }
        Cause::Time => {
            cx.schedule(&job(name), now.plus_seconds(RETRY_SECONDS));
            nothing()
        }
    }
}
