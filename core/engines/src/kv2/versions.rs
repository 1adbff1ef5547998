//! Deleting, undeleting and destroying versions. What is not there is no mistake: the answer is always 204.

use super::config::Config;
use super::data::deletion_time;
use super::store;
use ringfence_logical::{Args, Cx, Error, Outcome, nothing};

/// Marks the current version as deleted.
pub fn delete_current(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(key) = store::load(cx, args.str("path"))? else { return nothing() };
    mark_deleted(cx, args.str("path"), key.current..=key.current)
}

/// Marks the listed versions as deleted.
pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let versions = listed(args, "No version number provided")?;
    mark_deleted(cx, args.str("path"), versions)
}

fn mark_deleted(cx: &mut Cx<'_, '_>, path: &str, versions: impl IntoIterator<Item = u64>) -> Outcome {
    let Some(mut key) = store::load(cx, path)? else { return nothing() };
    let now = cx.now;
    let mut changed = false;
    for n in versions {
        if let Some(state) = key.version_mut(n).filter(|s| s.is_live(now)) {
            state.deletion = Some(now);
            changed = true;
        }
    }
    if changed {
        store::save(cx, path, &key)?;
    }
    nothing()
}

/// Takes the mark of deletion away; a lifetime that mount or key ask for begins anew.
pub fn undelete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let versions = listed(args, "No version number provided")?;
    let path = args.str("path");
    let Some(mut key) = store::load(cx, path)? else { return nothing() };
    let deletion = deletion_time(cx.now, &Config::load(cx)?, &key);
    let before = key.versions.clone();
    for n in versions {
        if let Some(state) = key.version_mut(n).filter(|s| !s.destroyed) {
            state.deletion = deletion;
        }
    }
    if key.versions != before {
        store::save(cx, path, &key)?;
    }
    nothing()
}

/// Erases the data of the listed versions.
pub fn destroy(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let versions = listed(args, "no version number provided")?;
    let path = args.str("path");
    let Some(mut key) = store::load(cx, path)? else { return nothing() };
    let mut changed = false;
    for n in versions {
        if let Some(state) = key.version_mut(n).filter(|s| !s.destroyed) {
            state.destroyed = true;
            changed = true;
            store::erase(cx, path, &mut key, n);
        }
    }
    if changed {
        store::save(cx, path, &key)?;
    }
    nothing()
}

/// The listed versions; numbers that no version can have are left out.
fn listed(args: &Args, empty: &'static str) -> Result<Vec<u64>, Error> {
    let versions = args.opt_ints("versions").unwrap_or_default();
    if versions.is_empty() {
        return Err(Error::invalid(empty));
    }
    Ok(versions.into_iter().filter_map(|n| u64::try_from(n).ok()).collect())
}
