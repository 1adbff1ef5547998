//! Rotation of a connection's own password. The next password is stored before the server hears of it; after a crash
//! the job finds out which of the two holds by knocking with each.

use super::connection::{self, Connection};
use super::creds::fail_after_commit;
use super::{ROOT_JOB, scram, statement};
use ringfence_logical::{Args, Cx, Error, Outcome, Step, nothing};

/// A rotation that was not heard of for this long is settled by knocking. Longer than any side operation may take.
const SETTLE_AFTER_SECONDS: u64 = 45;

/// `rotate-root/{name}`.
pub fn rotate(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").to_owned();
    let (mut c, plugin) = connection::need(cx, &name)?;
    let refuse = |why: &str| Err(Error::plain(&format!("unable to rotate root credentials: {why}")));
    if c.username().is_empty() {
        return refuse("no username in configuration");
    }
    if c.password().is_empty() {
        return refuse("no password in configuration");
    }
    if c.pending_password.is_some() {
        return refuse("an earlier rotation is being settled; try again in a minute");
    }
    let password = c.new_password(cx, "")?;
    let sent = match c.sends_verifiers() {
        true => {
            let mut salt = [0; 16];
            cx.rng.fill(&mut salt);
            scram::verifier(&password, &salt)
        }
        false => password.clone(),
    };
    let list: Vec<String> = match c.root_rotation_statements.is_empty() {
        true => plugin.root_rotation.iter().map(|s| (*s).to_owned()).collect(),
        false => c.root_rotation_statements.clone(),
    };
    let user = c.username().to_owned();
    let values = [("username", user.as_str()), ("name", user.as_str()), ("password", sent.as_str())];
    let statements = statement::complete(&list, &values, plugin.dialect()).map_err(|why| Error::plain(&why))?;
    let op = c.run(cx, &name, statements)?;
    c.pending_password = Some(password.clone());
    connection::save(cx, &name, &c);
    let at = cx.now.plus_seconds(SETTLE_AFTER_SECONDS);
    cx.schedule(&job(&name), at);
    Ok(Step::Intent {
        op,
        resume: Box::new(move |cx, result| {
            let Some(c) = connection::load(cx, &name)? else { return nothing() };
            if c.pending_password.as_deref() != Some(&password) {
                // settled by the job meanwhile, or configured anew
                return nothing();
            }
            match connection::outcome(result, &[&password, c.password()]) {
                Ok(()) => adopt(cx, &name, c),
                Err(e) => {
                    // refused, or done and not heard of: the job finds out
                    let now = cx.now;
                    cx.schedule(&job(&name), now);
                    fail_after_commit(e)
                }
            }
        }),
    })
}

fn job(name: &str) -> String {
    format!("{ROOT_JOB}{name}")
}

/// The pending password holds.
fn adopt(cx: &mut Cx<'_, '_>, name: &str, mut c: Connection) -> Outcome {
    let generation = connection::draw_generation(cx);
    if let Some(password) = c.pending_password.take() {
        c.set_password(password, generation);
    }
    connection::save(cx, name, &c);
    cx.unschedule(&job(name));
    nothing()
}

/// Finds out which password holds.
pub fn settle(cx: &mut Cx<'_, '_>, name: &str) -> Outcome {
    let Some(c) = connection::load(cx, name)? else { return nothing() };
    let Some(pending) = c.pending_password.clone() else { return nothing() };
    let name = name.to_owned();
    Ok(Step::Side {
        op: c.knock(cx, &name, &pending)?,
        resume: Box::new(move |cx, result| {
            let Some(c) = still_pending(cx, &name, &pending)? else { return nothing() };
            if connection::outcome(result, &[]).is_ok() {
                return adopt(cx, &name, c);
            }
            let (name, pending) = (name.clone(), pending.clone());
            Ok(Step::Side {
                op: c.knock(cx, &name, c.password())?,
                resume: Box::new(move |cx, result| {
                    let Some(mut c) = still_pending(cx, &name, &pending)? else { return nothing() };
                    // neither: the server is away, and the job comes again
                    connection::outcome(result, &[c.password(), &pending])?;
                    c.pending_password = None;
                    connection::save(cx, &name, &c);
                    nothing()
                }),
            })
        }),
    })
}

fn still_pending(cx: &mut Cx<'_, '_>, name: &str, pending: &str) -> Result<Option<Connection>, Error> {
    Ok(connection::load(cx, name)?.filter(|c| c.pending_password.as_deref() == Some(pending)))
}
