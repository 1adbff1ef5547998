//! `identity/entity/merge`: one person who was made twice becomes one entity.
//!
//! Aliases, group memberships and MFA secrets of the sources move to the target; the sources are deleted. Policies and
//! metadata do not move: a merge must not lend the target what nobody granted it.

use super::entities::forget;
use super::model::{self, ENTITY_MEMBER, Entity};
use crate::host::host;
use crate::mfa::records;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, nothing};
use serde_json::json;

/// POST.
pub fn merge(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let to_id = args.str("to_entity_id").to_owned();
    if to_id.is_empty() {
        return Err(Error::invalid("missing entity id to merge to"));
    }
    let mut from_ids = args.list("from_entity_ids");
    from_ids.retain(|id| !id.is_empty());
    from_ids.sort();
    from_ids.dedup();
    if from_ids.is_empty() {
        return Err(Error::invalid("missing entity ids to merge from"));
    }
    if from_ids.contains(&to_id) {
        return Err(Error::invalid("to_entity_id should not be present in from_entity_ids"));
    }
    let ns = cx.mount.ns;
    let Some(mut to) = model::load(cx.txn, ns, &to_id)? else {
        return Err(Error::invalid("entity id to merge to is invalid"));
    };
    let mut sources = Vec::with_capacity(from_ids.len());
    for id in &from_ids {
        match model::load(cx.txn, ns, id)? {
            Some(e) => sources.push(e),
            None => return Err(Error::invalid("entity id to merge from is invalid")),
        }
    }
    let keep = args.list("conflicting_alias_ids_to_keep");
    check_clashes(cx, &to, &sources, &keep)?;
    for from in &sources {
        absorb(cx, &mut to, from, &keep, args.bool("force"))?;
    }
    to.updated = cx.now;
    model::save(cx.txn, &to);
    nothing()
}

/// Two aliases at one mount cannot both stay; which one does is for the operator to say, one source at a time.
fn check_clashes(cx: &Cx<'_, '_>, to: &Entity, sources: &[Entity], keep: &[String]) -> Result<(), Error> {
    let mut clashes = Vec::new();
    let mut held: Vec<(&Entity, _)> = to.aliases.iter().map(|a| (to, a)).collect();
    for from in sources {
        for alias in &from.aliases {
            if let Some((_, other)) = held.iter().find(|(_, a)| a.mount == alias.mount) {
                clashes.push((from, alias, (*other).clone()));
            }
            held.push((from, alias));
        }
    }
    if clashes.is_empty() {
        return Ok(());
    }
    let accessor = |a: &model::EntityAlias| super::view::mount_facts(cx, a.mount).0;
    if sources.len() > 1 {
        let named: Vec<String> = clashes.iter().map(|(_, a, _)| accessor(a)).collect();
        let rows: Vec<_> = clashes
            .iter()
            .map(|(e, a, other)| {
                json!({"entity_id": e.id, "entity": e.name, "id": a.id, "mount_accessor": accessor(a),
                       "conflicts_with": other.id})
            })
            .collect();
        let mut data = Map::new();
        data.insert("aliases".into(), rows.into());
        let text = format!(
            "toEntity and at least one fromEntity have aliases with the same mount accessor, repeat the merge request \
             specifying exactly one fromEntity, clashes: [{}]",
            named.join(" ")
        );
        return Err(Error { data: Some(Box::new(data)), ..Error::invalid(text) });
    }
    for (_, from, other) in &clashes {
        match (keep.contains(&from.id), keep.contains(&other.id)) {
            (true, false) | (false, true) => {}
            (false, false) => {
                return Err(Error::invalid(format!(
                    "conflicting mount accessors in following alias IDs and neither were present in \
                     conflicting_alias_ids_to_keep: {}, {}",
                    other.id, from.id
                )));
            }
            (true, true) => {
                return Err(Error::invalid(format!(
                    "conflicting mount accessors in following alias IDs and both were present in \
                     conflicting_alias_ids_to_keep: {}, {}",
                    other.id, from.id
                )));
            }
        }
    }
    Ok(())
}

fn absorb(cx: &mut Cx<'_, '_>, to: &mut Entity, from: &Entity, keep: &[String], force: bool) -> Result<(), Error> {
    let keyring = host(cx).keyring.clone();
    for method in records::secrets_of(cx.txn, from.ns, &from.id)? {
        if records::secret(cx.txn, to.ns, &method, &to.id)?.is_some() {
            if !force {
                return Err(Error::invalid(format!(
                    "conflicting MFA config ID {method:?} in entity ID {:?}",
                    from.id
                )));
            }
            continue;
        }
        if let Some(secret) = records::secret(cx.txn, from.ns, &method, &from.id)? {
            records::save_secret(cx.txn, to.ns, &method, &to.id, &secret);
            // codes that were used stay used, and guesses that were made stay counted
            let attempts = records::attempts(cx.txn, from.ns, &method, &from.id)?;
            records::save_attempts(cx.txn, to.ns, &method, &to.id, &attempts);
        }
    }
    // who owed a second factor owes it under the new name
    records::rename_entity(cx.txn, from.ns, &from.id, &to.id)?;
    let memberships = model::groups_of(cx.txn, &from.as_ref())?;
    // the source with its aliases and memberships goes first, so that what moves is written last and stays
    forget(cx, from)?;
    for alias in &from.aliases {
        let clash = to.aliases.iter().position(|a| a.mount == alias.mount);
        if let Some(at) = clash {
            if !keep.contains(&alias.id) {
                continue;
            }
            let dropped = to.aliases.remove(at);
            model::unlink_alias(cx.txn, &keyring, to.ns, &dropped);
        }
        let mut moved = alias.clone();
        moved.merged_from.push(from.id.clone());
        moved.updated = cx.now;
        model::link_alias(cx.txn, &keyring, to.ns, &moved, &to.id);
        to.aliases.push(moved);
    }
    let already: Vec<_> = model::groups_of(cx.txn, &to.as_ref())?.into_iter().map(|(g, _)| g).collect();
    for (group, by) in memberships {
        if !already.contains(&group) {
            model::join(cx.txn, &group, ENTITY_MEMBER, &to.as_ref(), by);
        }
    }
    // tokens of the source are the target's from now on
    for id in std::iter::once(&from.id).chain(&from.merged) {
        model::link_merged(cx.txn, to.ns, id, &to.id);
        to.merged.push(id.clone());
    }
    Ok(())
}
