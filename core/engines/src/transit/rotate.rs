//! Rotation, by request and by itself.

use super::keys;
use super::policy::Policy;
use super::store;
use ringfence_base::Wall;
use ringfence_logical::{Args, Cx, Error, Outcome, nothing};

/// The scheduled job of a key.
pub fn job(name: &str) -> String {
    format!("rotate/{name}")
}

/// Sets or forgets the time at which a key rotates itself, `last` being when its newest version was made.
pub fn reschedule(cx: &mut Cx<'_, '_>, policy: &Policy, last: Wall) {
    let job = job(&policy.name);
    match policy.auto_rotate {
        0 => cx.unschedule(&job),
        _ if policy.imported && !policy.imported_rotation => cx.unschedule(&job),
        period => cx.schedule(&job, last.plus_seconds(period)),
    }
}

/// The machine's call: a key's time has come, or nearly, or its settings changed meanwhile.
pub fn due(cx: &mut Cx<'_, '_>, job: &str) -> Outcome {
    let Some(name) = job.strip_prefix("rotate/") else { return nothing() };
    let Some(policy) = store::load(cx, name)? else { return nothing() };
    if policy.auto_rotate == 0 || policy.soft_deleted {
        return nothing();
    }
    let newest = store::load_version(cx, &policy, policy.latest)?;
    if cx.now < newest.created.plus_seconds(policy.auto_rotate) {
        reschedule(cx, &policy, newest.created);
        return nothing();
    }
    add(cx, name, |_, _| nothing())
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    add(cx, args.str("name"), |cx, policy| keys::describe(cx, policy, &[]))
}

/// Adds a fresh version.
fn add(cx: &mut Cx<'_, '_>, name: &str, then: fn(&mut Cx<'_, '_>, &Policy) -> Outcome) -> Outcome {
    let policy = rotatable(cx, name)?;
    let name = name.to_owned();
    store::with_fresh(cx, policy.kind, policy.key_size, move |cx, fresh| {
        let mut policy = rotatable(cx, &name)?;
        store::add_version(cx, &mut policy, fresh);
        then(cx, &policy)
    })
}

fn rotatable(cx: &mut Cx<'_, '_>, name: &str) -> Result<Policy, Error> {
    let policy = store::load(cx, name)?.ok_or_else(|| Error::invalid("key not found"))?;
    policy.alive()?;
    if policy.imported && !policy.imported_rotation {
        return Err(Error::plain(&format!("imported key {name} does not allow rotation within Vault")));
    }
    Ok((*policy).clone())
}

pub fn trim(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let wanted =
        args.opt_int("min_available_version").ok_or_else(|| Error::invalid("missing min_available_version"))?;
    let policy = store::load(cx, args.str("name"))?.ok_or_else(|| Error::invalid("invalid key name"))?;
    let refuse = |text: &'static str| Err(Error::invalid(text));
    let Ok(wanted) = u64::try_from(wanted) else {
        return refuse("minimum available version cannot be negative");
    };
    if wanted < policy.min_available {
        return refuse("minimum available version cannot be decremented");
    }
    if policy.min_encryption == 0 {
        return refuse("minimum available version cannot be set when minimum encryption version is not set");
    }
    if wanted == 0 {
        return refuse("minimum available version should be positive");
    }
    if wanted > policy.min_encryption {
        return refuse("minimum available version cannot be greater than minmum encryption version");
    }
    if wanted > policy.min_decryption {
        return refuse("minimum available version cannot be greater than minimum decryption version");
    }
    let mut policy = (*policy).clone();
    for version in policy.min_available.max(1)..wanted {
        store::erase_version(cx, &policy, version);
    }
    policy.min_available = wanted;
    store::save(cx, &policy);
    keys::describe(cx, &policy, &[])
}
