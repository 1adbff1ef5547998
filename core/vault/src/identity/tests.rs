//! Identity over the whole pipeline: what operators write, what logins make of it, and what it grants.

use crate::tables;
use crate::testing::{World, error_of};
use ringfence_base::{Code, NsId};
use ringfence_logical::Operation;
use serde_json::{Value, json};

/// A world in which the policy `p-<word>` grants reading `identity/oidc/role/<word>`, so that 404 means allowed.
fn world(words: &[&str]) -> World {
    let mut w = World::new();
    for word in words {
        let text = format!("path \"identity/oidc/role/{word}\" {{ capabilities = [\"read\"] }}");
        w.policy(&format!("p-{word}"), &text);
    }
    w
}

fn may(w: &mut World, word: &str, token: &str) -> bool {
    match w.get(&format!("identity/oidc/role/{word}"), token).0 {
        Code::NotFound => true,
        Code::Denied => false,
        other => panic!("{other:?}"),
    }
}

fn login(w: &mut World, name: &str, more: Value) -> Value {
    let (code, v) = w.post(&format!("auth/door/login/{name}"), "", more);
    assert_eq!(code, Code::Ok, "{v}");
    v["auth"].clone()
}

fn token_of(auth: &Value) -> String {
    auth["client_token"].as_str().unwrap().to_owned()
}

fn write(w: &mut World, path: &str, body: Value) -> Value {
    let root = w.root.clone();
    let (code, v) = w.post(path, &root, body);
    assert!(matches!(code, Code::Ok | Code::NoContent), "{path}: {code:?} {v}");
    v["data"].clone()
}

fn refused(w: &mut World, path: &str, body: Value) -> String {
    let root = w.root.clone();
    let (code, v) = w.post(path, &root, body);
    assert_eq!(code, Code::Invalid, "{path}: {v}");
    error_of(&v).to_owned()
}

fn read(w: &mut World, path: &str) -> Value {
    let root = w.root.clone();
    let (code, v) = w.get(path, &root);
    assert_eq!(code, Code::Ok, "{path}: {v}");
    v["data"].clone()
}

fn id(v: &Value) -> String {
    v["id"].as_str().unwrap_or_else(|| panic!("{v}")).to_owned()
}

#[test]
fn an_entity_is_made_changed_and_gone() {
    let mut w = World::new();
    let root = w.root.clone();
    let made =
        write(&mut w, "identity/entity", json!({"name": "Ann", "metadata": {"team": "blue"}, "policies": "A, b,a"}));
    assert_eq!((&made["name"], &made["aliases"]), (&json!("Ann"), &Value::Null));
    let ann = id(&made);
    // again by name, in another case: the same entity, 204
    assert_eq!(w.post("identity/entity", &root, json!({"name": "ann "})), (Code::NoContent, Value::Null));
    assert_eq!(w.post(&format!("identity/entity/id/{ann}"), &root, json!({"disabled": true})).0, Code::NoContent);
    let page = read(&mut w, "identity/entity/name/ANN");
    assert_eq!(page["id"], ann.as_str());
    assert_eq!(page["policies"], json!(["a", "b"]));
    assert_eq!((&page["disabled"], &page["namespace_id"]), (&json!(true), &json!("root")));
    assert_eq!(page["metadata"], json!({"team": "blue"}));
    for empty in ["aliases", "group_ids", "direct_group_ids", "inherited_group_ids"] {
        assert_eq!(page[empty], json!([]), "{empty}");
    }
    let bob = id(&write(&mut w, "identity/entity/name/bob", json!({})));
    assert_eq!(
        refused(&mut w, &format!("identity/entity/id/{bob}"), json!({"name": "ANN"})),
        "entity name is already in use"
    );
    assert_eq!(refused(&mut w, "identity/entity", json!({"id": "nope"})), "entity not found from id");
    let (_, listed) = w.list("identity/entity/name/", &root);
    assert_eq!(listed["data"]["keys"], json!(["ann", "bob"]));
    assert_eq!(listed["data"]["key_info"]["bob"], json!({"name": "bob", "aliases": []}));
    let (_, first) = w.call(Operation::List, "identity/entity/id/", &root, json!({"limit": 1}));
    let first = first["data"]["keys"][0].as_str().unwrap().to_owned();
    let (_, second) = w.call(Operation::List, "identity/entity/id/", &root, json!({"after": first, "limit": 5}));
    assert_eq!(second["data"]["keys"].as_array().map(Vec::len), Some(1));
    write(&mut w, &format!("identity/entity/id/{ann}"), json!({"name": "Anna"}));
    assert_eq!(w.get("identity/entity/name/ann", &root).0, Code::NotFound);
    write(&mut w, "identity/entity/batch-delete", json!({"entity_ids": [ann, bob, "nobody"]}));
    assert_eq!(w.list("identity/entity/id/", &root).0, Code::NotFound);
    assert_eq!((w.rows(tables::ENTITY), w.rows(tables::IDENTITY_INDEX)), (0, 0));
    assert_eq!(w.delete(&format!("identity/entity/id/{bob}"), &root).0, Code::NoContent);
    assert_eq!(refused(&mut w, "identity/entity/batch-delete", json!({})), "missing entity ids to delete");
}

/// CVE-2025-5999, CVE-2025-64761: a policy name in another case or with white space was `root` to the token store and
/// something else to the check.
#[test]
fn cve_2025_5999_root_never_comes_by_identity() {
    let mut w = World::new();
    let entity = id(&write(&mut w, "identity/entity", json!({"name": "e"})));
    let group = id(&write(&mut w, "identity/group", json!({"name": "g", "member_entity_ids": [entity]})));
    for spelling in ["root", "Root", "ROOT ", " root", "\troot", "rOOt\n", "a, Root"] {
        for path in ["identity/entity", "identity/entity/name/new", "identity/group", "identity/group/name/new"] {
            let text = refused(&mut w, path, json!({"policies": spelling}));
            assert_eq!(text, "policies cannot contain root", "{path} {spelling:?}");
        }
        for path in [format!("identity/entity/id/{entity}"), format!("identity/group/id/{group}")] {
            assert_eq!(refused(&mut w, &path, json!({"policies": spelling})), "policies cannot contain root");
        }
    }
    // even a record that says so does not make a root token
    let mut e = w.write(|txn, _| super::load(txn, NsId::ROOT, &entity).unwrap().unwrap());
    e.policies = vec!["root".into()];
    w.write(|txn, _| super::save(txn, &e));
    w.write(|txn, _| {
        let found = super::Identity::of(txn, NsId::ROOT, &entity).unwrap().unwrap();
        assert_eq!(found.policies, [""; 0]);
    });
}

/// CVE-2025-6004, CVE-2025-6013: the same person with other case or spaces had another alias, and so no lockout and no
/// second factor.
#[test]
fn cve_2025_6013_case_and_white_space_make_no_other_person() {
    let mut w = World::new();
    let first = login(&mut w, "x", json!({"alias": "Alice"}));
    for spelling in ["alice", "ALICE", " alice", "alice ", "\talice\n"] {
        let again = login(&mut w, "x", json!({"alias": spelling}));
        assert_eq!(again["entity_id"], first["entity_id"], "{spelling:?}");
    }
    assert_eq!(w.rows(tables::ENTITY), 1);
    let (code, v) = w.post("auth/door/login/x", "", json!({"alias": "  "}));
    assert_eq!((code, error_of(&v)), (Code::Invalid, "missing alias name"));
}

#[test]
fn policies_of_entity_and_groups_count_at_the_very_next_request() {
    let mut w = world(&["own", "team", "company"]);
    let auth = login(&mut w, "ann", json!({}));
    let (token, entity) = (token_of(&auth), auth["entity_id"].as_str().unwrap().to_owned());
    assert!(!may(&mut w, "own", &token));
    write(&mut w, &format!("identity/entity/id/{entity}"), json!({"policies": "p-own"}));
    assert!(may(&mut w, "own", &token));
    let team = id(&write(
        &mut w,
        "identity/group",
        json!({"name": "team", "policies": "P-Team", "member_entity_ids": entity}),
    ));
    assert!(may(&mut w, "team", &token));
    let company = json!({"name": "company", "policies": "p-company", "member_group_ids": [team]});
    let company = id(&write(&mut w, "identity/group", company));
    assert!(may(&mut w, "company", &token));
    let page = read(&mut w, &format!("identity/entity/id/{entity}"));
    assert_eq!(page["direct_group_ids"], json!([team]));
    assert_eq!(page["inherited_group_ids"], json!([company]));
    let page = read(&mut w, &format!("identity/group/id/{team}"));
    assert_eq!((&page["member_entity_ids"], &page["parent_group_ids"]), (&json!([entity]), &json!([company])));
    assert_eq!(
        (&page["type"], &page["alias"], &page["policies"]),
        (&json!("internal"), &json!({}), &json!(["p-team"]))
    );
    let (_, look) = w.get("auth/token/lookup-self", &token);
    assert_eq!(look["data"]["identity_policies"], json!(["p-company", "p-own", "p-team"]));
    assert_eq!(look["data"]["policies"], json!(["default"]));
    // and a membership that ends
    write(&mut w, &format!("identity/group/id/{team}"), json!({"member_entity_ids": []}));
    assert!(!may(&mut w, "team", &token) && !may(&mut w, "company", &token) && may(&mut w, "own", &token));
    write(&mut w, &format!("identity/group/id/{team}"), json!({"member_entity_ids": [entity]}));
    assert!(may(&mut w, "company", &token));
    let root = w.root.clone();
    assert_eq!(w.delete(&format!("identity/group/id/{company}"), &root).0, Code::NoContent);
    assert!(!may(&mut w, "company", &token) && may(&mut w, "team", &token));
    // disabled: every token of it; and again when enabled
    write(&mut w, &format!("identity/entity/id/{entity}"), json!({"disabled": true}));
    assert_eq!(w.get("auth/token/lookup-self", &token).0, Code::Denied);
    write(&mut w, &format!("identity/entity/id/{entity}"), json!({"disabled": false}));
    assert!(may(&mut w, "team", &token));
    assert_eq!(w.delete(&format!("identity/entity/id/{entity}"), &root).0, Code::NoContent);
    assert_eq!(w.get("auth/token/lookup-self", &token).0, Code::Denied);
    assert_eq!(w.rows(tables::MEMBER) + w.rows(tables::MEMBER_OF), 0);
}

/// A write that a group's policy authorised must lose against the end of the membership, also where the identity was
/// remembered and not read anew.
#[test]
fn a_late_write_of_a_former_member_loses() {
    let mut w = World::new();
    w.policy("w", "path \"identity/oidc/role/*\" { capabilities = [\"create\", \"update\"] }");
    let auth = login(&mut w, "ann", json!({}));
    let token = token_of(&auth);
    let inner = id(&write(&mut w, "identity/group", json!({"name": "in", "member_entity_ids": auth["entity_id"]})));
    let outer = json!({"name": "out", "policies": "w", "member_group_ids": [inner]});
    let outer = id(&write(&mut w, "identity/group", outer));
    for (path, change) in [
        (format!("identity/group/id/{inner}"), json!({"member_entity_ids": []})),
        (format!("identity/group/id/{outer}"), json!({"member_group_ids": []})),
        (format!("identity/group/id/{outer}"), json!({"policies": ""})),
    ] {
        // remembers the identity
        assert_eq!(w.post("identity/oidc/role/r", &token, json!({"key": "default"})).0, Code::NoContent);
        let before = w.version();
        let late = w.blank(Operation::Update, "identity/oidc/role/late", &token, json!({"key": "default"}));
        let late = w.run_at(&before, late);
        assert!(late.batch.is_some());
        write(&mut w, &path, change);
        assert!(!w.commit(late), "{path}");
        let back = json!({"member_entity_ids": auth["entity_id"]});
        write(&mut w, &format!("identity/group/id/{inner}"), back);
        write(&mut w, &format!("identity/group/id/{outer}"), json!({"member_group_ids": [inner], "policies": "w"}));
    }
}

#[test]
fn groups_do_not_contain_themselves() {
    let mut w = World::new();
    let a = id(&write(&mut w, "identity/group", json!({"name": "a"})));
    let b = id(&write(&mut w, "identity/group", json!({"name": "b", "member_group_ids": [a]})));
    let c = id(&write(&mut w, "identity/group", json!({"name": "c", "member_group_ids": [b]})));
    for (group, member) in [(&a, &a), (&a, &b), (&a, &c), (&b, &c)] {
        let text = refused(&mut w, &format!("identity/group/id/{group}"), json!({"member_group_ids": [member]}));
        assert_eq!(text, "member_group_ids cycle detected");
    }
    assert_eq!(
        refused(&mut w, "identity/group/name/d", json!({"member_group_ids": ["x"]})),
        "invalid group ID \"x\""
    );
    assert_eq!(
        refused(&mut w, "identity/group/name/d", json!({"member_entity_ids": ["x"]})),
        "invalid entity ID \"x\""
    );
    assert_eq!(refused(&mut w, "identity/group/name/d", json!({"type": "odd"})), "invalid group type \"odd\"");
    assert_eq!(refused(&mut w, "identity/group/name/a", json!({"type": "external"})), "group type cannot be changed");
    assert_eq!(
        refused(&mut w, &format!("identity/group/id/{b}"), json!({"name": "A"})),
        "group name is already in use"
    );
    let root = w.root.clone();
    let (_, listed) = w.list("identity/group/name/", &root);
    assert_eq!(listed["data"]["keys"], json!(["a", "b", "c"]));
    assert_eq!(
        listed["data"]["key_info"]["a"],
        json!({"name": "a", "num_member_entities": 0, "num_parent_groups": 1})
    );
}

#[test]
fn a_large_group_is_removed_little_by_little() {
    let mut w = World::new();
    let mut ids = Vec::new();
    for n in 0..1500 {
        ids.push(id(&write(&mut w, &format!("identity/entity/name/e{n}"), json!({}))));
    }
    let group = id(&write(&mut w, "identity/group", json!({"name": "g", "member_entity_ids": ids})));
    assert_eq!(w.rows(tables::MEMBER), 1500);
    let root = w.root.clone();
    assert_eq!(w.delete(&format!("identity/group/id/{group}"), &root).0, Code::NoContent);
    assert_eq!(w.rows(tables::MEMBER), 500);
    w.sleep(2);
    w.work();
    assert_eq!((w.rows(tables::MEMBER), w.rows(tables::MEMBER_OF), w.rows(tables::JOB)), (0, 0, 0));
}

#[test]
fn external_groups_follow_logins_and_renewals() {
    let mut w = world(&["ops"]);
    let text = refused(&mut w, "identity/group", json!({"type": "external", "member_entity_ids": ["x"]}));
    assert_eq!(text, "member entities can't be set manually for external groups");
    let text = refused(&mut w, "identity/group", json!({"type": "external", "member_group_ids": ["x"]}));
    assert_eq!(text, "member groups can't be set for external groups");
    let group = id(&write(&mut w, "identity/group", json!({"name": "ops", "type": "external", "policies": "p-ops"})));
    let alias = json!({"name": "Ops-Team", "mount_accessor": "door_1", "canonical_id": group});
    let alias = write(&mut w, "identity/group-alias", alias);
    assert_eq!(alias["canonical_id"], group.as_str());
    let auth = login(&mut w, "ann", json!({"groups": "ops-team, others"}));
    let token = token_of(&auth);
    assert_eq!(auth["identity_policies"], json!(["p-ops"]));
    assert!(may(&mut w, "ops", &token));
    let page = read(&mut w, &format!("identity/group/id/{group}"));
    assert_eq!(page["member_entity_ids"], json!([auth["entity_id"]]));
    assert_eq!((&page["alias"]["name"], &page["alias"]["mount_path"]), (&json!("Ops-Team"), &json!("auth/door/")));
    let before = w.version().index();
    let again = login(&mut w, "ann", json!({"groups": ["ops-team"], "type": "batch"}));
    assert_eq!(w.version().index(), before, "a batch login that changes nothing writes nothing");
    assert!(may(&mut w, "ops", &token_of(&again)));
    // a login without the group ends the membership for the tokens made before, too
    login(&mut w, "ann", json!({}));
    assert!(!may(&mut w, "ops", &token));
    // nor does it outlive the alias that it rests on
    login(&mut w, "ann", json!({"groups": "ops-team"}));
    assert!(may(&mut w, "ops", &token));
    let root = w.root.clone();
    assert_eq!(w.delete(&format!("identity/group-alias/id/{}", id(&alias)), &root).0, Code::NoContent);
    assert!(!may(&mut w, "ops", &token));
    // memberships by hand are none of a login's business
    let hand = json!({"name": "hand", "policies": "p-ops", "member_entity_ids": auth["entity_id"]});
    write(&mut w, "identity/group", hand);
    login(&mut w, "ann", json!({}));
    assert!(may(&mut w, "ops", &token));
}

#[test]
fn group_aliases_are_one_a_name() {
    let mut w = World::new();
    let a = id(&write(&mut w, "identity/group", json!({"name": "a", "type": "external"})));
    let b = id(&write(&mut w, "identity/group", json!({"name": "b", "type": "external"})));
    let i = id(&write(&mut w, "identity/group", json!({"name": "i"})));
    for (body, text) in [
        (json!({}), "missing alias name"),
        (json!({"name": "n"}), "missing mount_accessor"),
        (json!({"name": "n", "mount_accessor": "x"}), "invalid mount accessor \"x\""),
        (
            json!({"name": "n", "mount_accessor": "door_1", "canonical_id": "x"}),
            "invalid group ID given in 'canonical_id'",
        ),
        (
            json!({"name": "n", "mount_accessor": "door_1", "canonical_id": i}),
            "alias can't be set on an internal group",
        ),
    ] {
        assert_eq!(refused(&mut w, "identity/group-alias", body), text);
    }
    let first = id(&write(
        &mut w,
        "identity/group-alias",
        json!({"name": "n", "mount_accessor": "door_1", "canonical_id": a}),
    ));
    let text =
        refused(&mut w, "identity/group-alias", json!({"name": "N ", "mount_accessor": "door_1", "canonical_id": b}));
    assert_eq!(text, "combination of mount and group alias name is already in use");
    // by its own id it may move
    write(&mut w, &format!("identity/group-alias/id/{first}"), json!({"canonical_id": b, "name": "m"}));
    assert_eq!(read(&mut w, &format!("identity/group/id/{a}"))["alias"], json!({}));
    let page = read(&mut w, &format!("identity/group-alias/id/{first}"));
    assert_eq!((&page["canonical_id"], &page["name"]), (&json!(b), &json!("m")));
    let root = w.root.clone();
    let (_, listed) = w.list("identity/group-alias/id/", &root);
    assert_eq!(listed["data"]["keys"], json!([first]));
    assert_eq!(listed["data"]["key_info"][&first]["mount_accessor"], "door_1");
    assert_eq!(w.delete(&format!("identity/group-alias/id/{first}"), &root).0, Code::NoContent);
    assert_eq!((w.list("identity/group-alias/id/", &root).0, w.rows(tables::GROUP_ALIAS)), (Code::NotFound, 0));
}

#[test]
fn aliases_by_hand() {
    let mut w = World::new();
    let ann = id(&write(&mut w, "identity/entity", json!({"name": "ann"})));
    let made = json!({"name": "Ann", "mount_accessor": "door_1", "canonical_id": ann, "custom_metadata": {"k": "v"}});
    let alias = write(&mut w, "identity/entity-alias", made.clone());
    assert_eq!(alias["canonical_id"], ann.as_str());
    let root = w.root.clone();
    assert_eq!(w.post("identity/entity-alias", &root, made).0, Code::NoContent, "the same again");
    let changed = json!({"name": "ann", "mount_accessor": "door_1", "custom_metadata": {"k": "w"}});
    assert_eq!(write(&mut w, "identity/entity-alias", changed), alias);
    let auth = login(&mut w, "ann", json!({"meta": {"from": "login"}}));
    assert_eq!(auth["entity_id"], ann.as_str());
    let page = read(&mut w, &format!("identity/entity-alias/id/{}", id(&alias)));
    assert_eq!(page["custom_metadata"], json!({"k": "w"}));
    assert_eq!(page["metadata"], json!({"from": "login"}));
    assert_eq!(
        (&page["mount_path"], &page["mount_type"], &page["local"]),
        (&json!("auth/door/"), &json!("door"), &json!(false))
    );
    for (body, text) in [
        (json!({}), "'id' or 'mount_accessor' and 'name' must be provided"),
        (json!({"name": "x", "mount_accessor": "nope"}), "invalid mount accessor \"nope\""),
        (json!({"name": "x", "mount_accessor": "door_1", "canonical_id": "y"}), "invalid canonical ID"),
        (
            json!({"name": "x", "mount_accessor": "door_1", "canonical_id": ann}),
            "Alias already exists for requested entity and mount accessor",
        ),
        (json!({"id": "x"}), "invalid alias ID provided"),
    ] {
        assert_eq!(refused(&mut w, "identity/entity-alias", body), text);
    }
    // without an entity: a fresh one
    let bob = write(&mut w, "identity/alias", json!({"name": "bob", "mount_accessor": "door_1"}));
    assert_ne!(bob["canonical_id"], ann.as_str());
    let text = refused(&mut w, &format!("identity/entity-alias/id/{}", id(&bob)), json!({"name": "ANN"}));
    assert_eq!(text, "alias with combination of mount accessor and name already exists");
    let (_, listed) = w.list("identity/persona/id/", &root);
    assert_eq!(listed["data"]["keys"].as_array().map(Vec::len), Some(2));
    // moved to another entity
    let eve = id(&write(&mut w, "identity/entity", json!({"name": "eve"})));
    write(&mut w, &format!("identity/entity-alias/id/{}", id(&bob)), json!({"canonical_id": eve}));
    assert_eq!(login(&mut w, "bob", json!({}))["entity_id"], eve.as_str());
    assert_eq!(w.delete(&format!("identity/entity-alias/id/{}", id(&bob)), &root).0, Code::NoContent);
    assert_ne!(login(&mut w, "bob", json!({}))["entity_id"], eve.as_str());
}

#[test]
fn aliases_and_group_aliases_go_with_their_mount() {
    let mut w = World::new();
    let entity = login(&mut w, "ann", json!({}))["entity_id"].as_str().unwrap().to_owned();
    let group = id(&write(&mut w, "identity/group", json!({"name": "g", "type": "external"})));
    write(&mut w, "identity/group-alias", json!({"name": "n", "mount_accessor": "door_1", "canonical_id": group}));
    let root = w.root.clone();
    assert_eq!(w.delete("sys/auth/door", &root).0, Code::NoContent);
    w.work();
    assert_eq!(read(&mut w, &format!("identity/entity/id/{entity}"))["aliases"], json!([]));
    assert_eq!(read(&mut w, &format!("identity/group/id/{group}"))["alias"], json!({}));
    assert_eq!((w.rows(tables::ALIAS), w.rows(tables::GROUP_ALIAS)), (0, 0));
    assert_eq!(w.list("identity/entity-alias/id/", &root).0, Code::NotFound);
}

#[test]
fn lookups() {
    let mut w = World::new();
    let root = w.root.clone();
    let auth = login(&mut w, "ann", json!({}));
    let entity = auth["entity_id"].as_str().unwrap().to_owned();
    let page = read(&mut w, &format!("identity/entity/id/{entity}"));
    let alias = page["aliases"][0]["id"].as_str().unwrap().to_owned();
    for query in [
        json!({"id": entity}),
        json!({"name": page["name"]}),
        json!({"alias_id": alias}),
        json!({"alias_name": "ANN", "alias_mount_accessor": "door_1"}),
    ] {
        let (code, v) = w.post("identity/lookup/entity", &root, query.clone());
        assert_eq!((code, &v["data"]["id"]), (Code::Ok, &json!(entity)), "{query}");
    }
    for absent in [
        json!({"id": "x"}),
        json!({"name": "x"}),
        json!({"alias_id": "x"}),
        json!({"alias_name": "ann", "alias_mount_accessor": "x"}),
    ] {
        assert_eq!(w.post("identity/lookup/entity", &root, absent.clone()).0, Code::NoContent, "{absent}");
        assert_eq!(w.post("identity/lookup/group", &root, absent.clone()).0, Code::NoContent, "{absent}");
    }
    for what in ["identity/lookup/entity", "identity/lookup/group"] {
        assert_eq!(refused(&mut w, what, json!({})), "query parameter not supplied");
        let text = refused(&mut w, what, json!({"id": "a", "name": "b"}));
        assert_eq!(text, "query parameter conflict; please supply distinct set of query parameters");
        let text = refused(&mut w, what, json!({"alias_name": "a"}));
        assert_eq!(text, "both 'alias_name' and 'alias_mount_accessor' needs to be set");
    }
}

#[test]
fn merging_moves_aliases_and_memberships() {
    let mut w = world(&["ops"]);
    let first = login(&mut w, "ann", json!({}));
    let from = first["entity_id"].as_str().unwrap().to_owned();
    let group = json!({"name": "g", "policies": "p-ops", "member_entity_ids": from});
    write(&mut w, "identity/group", group);
    let to = id(&write(&mut w, "identity/entity", json!({"name": "to"})));
    for (body, text) in [
        (json!({}), "missing entity id to merge to"),
        (json!({"to_entity_id": to}), "missing entity ids to merge from"),
        (
            json!({"to_entity_id": to, "from_entity_ids": [to]}),
            "to_entity_id should not be present in from_entity_ids",
        ),
        (json!({"to_entity_id": to, "from_entity_ids": ["x"]}), "entity id to merge from is invalid"),
        (json!({"to_entity_id": "x", "from_entity_ids": [from]}), "entity id to merge to is invalid"),
    ] {
        assert_eq!(refused(&mut w, "identity/entity/merge", body), text);
    }
    write(&mut w, "identity/entity/merge", json!({"to_entity_id": to, "from_entity_ids": [from]}));
    let auth = login(&mut w, "ann", json!({}));
    assert_eq!(auth["entity_id"], to.as_str());
    assert!(may(&mut w, "ops", &token_of(&auth)));
    let page = read(&mut w, &format!("identity/entity/id/{to}"));
    assert_eq!(page["merged_entity_ids"], json!([from]));
    assert_eq!(page["aliases"][0]["merged_from_canonical_ids"], json!([from]));
    let root = w.root.clone();
    assert_eq!(w.get(&format!("identity/entity/id/{from}"), &root).0, Code::NotFound);
    assert_eq!(w.rows(tables::MEMBER), 1);
    // a token of the source is the target's, remembered or not, and dies with it
    let old = token_of(&first);
    assert!(may(&mut w, "ops", &old) && may(&mut w, "ops", &old));
    let last = id(&write(&mut w, "identity/entity", json!({"name": "last"})));
    write(&mut w, "identity/entity/merge", json!({"to_entity_id": last, "from_entity_ids": [to]}));
    assert!(may(&mut w, "ops", &old));
    assert_eq!(w.delete(&format!("identity/entity/id/{last}"), &root).0, Code::NoContent);
    assert_eq!(w.get("auth/token/lookup-self", &old).0, Code::Denied);
}

/// Fault class of CVE-2024-9180: editing or merging entities must not lend anybody what nobody granted him. Merging needs
/// sudo, and policies of the source do not move.
#[test]
fn cve_2024_9180_merging_escalates_nothing() {
    let mut w = world(&["high"]);
    w.policy("merger", "path \"identity/entity/merge\" { capabilities = [\"update\"] }");
    let high = id(&write(&mut w, "identity/entity", json!({"name": "high", "policies": "p-high"})));
    let auth = login(&mut w, "low", json!({"policies": "merger"}));
    let body = json!({"to_entity_id": auth["entity_id"], "from_entity_ids": [high]});
    assert_eq!(w.post("identity/entity/merge", &token_of(&auth), body.clone()).0, Code::Denied);
    write(&mut w, "identity/entity/merge", body);
    assert!(!may(&mut w, "high", &token_of(&auth)));
}

#[test]
fn clashing_aliases_are_for_the_operator_to_choose() {
    let mut w = World::new();
    let root = w.root.clone();
    let [a, b, c] = ["a", "b", "c"].map(|n| login(&mut w, n, json!({}))["entity_id"].as_str().unwrap().to_owned());
    let text = refused(&mut w, "identity/entity/merge", json!({"to_entity_id": a, "from_entity_ids": [b, c]}));
    assert!(text.starts_with("toEntity and at least one fromEntity have aliases with the same mount accessor, repeat the merge request specifying exactly one fromEntity, clashes: "), "{text}");
    let text = refused(&mut w, "identity/entity/merge", json!({"to_entity_id": a, "from_entity_ids": [b]}));
    assert!(text.starts_with("conflicting mount accessors in following alias IDs and neither"), "{text}");
    let alias = |w: &mut World, e: &str| {
        read(w, &format!("identity/entity/id/{e}"))["aliases"][0]["id"].as_str().unwrap().to_owned()
    };
    let keep = alias(&mut w, &b);
    let body = json!({"to_entity_id": a, "from_entity_ids": [b], "conflicting_alias_ids_to_keep": [keep]});
    write(&mut w, "identity/entity/merge", body);
    assert_eq!(login(&mut w, "b", json!({}))["entity_id"], a.as_str());
    assert_ne!(login(&mut w, "a", json!({}))["entity_id"], a.as_str(), "its alias was given up");
    let keep = alias(&mut w, &a);
    let body = json!({"to_entity_id": a, "from_entity_ids": [c], "conflicting_alias_ids_to_keep": [keep]});
    write(&mut w, "identity/entity/merge", body);
    assert_ne!(login(&mut w, "c", json!({}))["entity_id"], a.as_str());
    let page = read(&mut w, &format!("identity/entity/id/{a}"));
    assert_eq!(page["aliases"].as_array().map(Vec::len), Some(1));
    let (_, listed) = w.list("identity/entity-alias/id/", &root);
    assert_eq!(listed["data"]["keys"].as_array().map(Vec::len), Some(3));
}

#[test]
fn metadata_has_bounds() {
    let mut w = World::new();
    let many: serde_json::Map<String, Value> = (0..65).map(|n| (format!("k{n}"), json!("v"))).collect();
    let text = refused(&mut w, "identity/entity", json!({"metadata": many}));
    assert_eq!(text, "metadata cannot contain more than 64 key/value pairs");
    for flaw in [json!({"k".repeat(129): "v"}), json!({"k": "v".repeat(513)}), json!({"": "v"})] {
        let text = refused(&mut w, "identity/entity", json!({"metadata": flaw}));
        assert!(text.starts_with("failed to load metadata pair") && !text.contains("vvvv"), "{text}");
    }
    let text = refused(&mut w, "identity/entity", json!({"metadata": 5}));
    assert!(text.contains("metadata"), "{text}");
    assert_eq!(w.rows(tables::ENTITY) + w.rows(tables::IDENTITY_INDEX), 0, "nothing changed");
}

/// Each selector fills from the identity of the moment; GHSA-59w7: a value with a metacharacter leaves the path out.
#[test]
fn ghsa_59w7_templated_policies() {
    let mut w = World::new();
    let auth = login(&mut w, "ann", json!({"policies": "t", "meta": {"org": "acme"}}));
    let (token, entity) = (token_of(&auth), auth["entity_id"].as_str().unwrap().to_owned());
    let group = json!({"name": "ops", "metadata": {"floor": "g3"}, "member_entity_ids": entity});
    let group = id(&write(&mut w, "identity/group", group));
    let page = read(&mut w, &format!("identity/entity/id/{entity}"));
    let alias = page["aliases"][0]["id"].as_str().unwrap().to_owned();
    write(&mut w, &format!("identity/entity-alias/id/{alias}"), json!({"custom_metadata": {"cost": "c42"}}));
    write(
        &mut w,
        &format!("identity/entity/id/{entity}"),
        json!({"metadata": {"team": "blue", "bad": "*", "deep": "a/b", "plus": "+"}}),
    );
    let name = page["name"].as_str().unwrap();
    for (selector, value) in [
        ("identity.entity.id", entity.as_str()),
        ("identity.entity.name", name),
        ("identity.entity.metadata.team", "blue"),
        ("identity.entity.aliases.door_1.id", &alias),
        ("identity.entity.aliases.door_1.name", "ann"),
        ("identity.entity.aliases.door_1.metadata.org", "acme"),
        ("identity.entity.aliases.door_1.custom_metadata.cost", "c42"),
        (&format!("identity.groups.ids.{group}.name"), "ops"),
        (&format!("identity.groups.ids.{group}.metadata.floor"), "g3"),
        ("identity.groups.names.ops.id", &group),
        ("identity.groups.names.ops.metadata.floor", "g3"),
    ] {
        w.policy("t", &format!("path \"identity/oidc/role/{{{{{selector}}}}}\" {{ capabilities = [\"read\"] }}"));
        assert!(may(&mut w, value, &token), "{selector}");
        assert!(!may(&mut w, "other", &token), "{selector}");
    }
    for selector in [
        "identity.entity.metadata.bad",
        "identity.entity.metadata.deep",
        "identity.entity.metadata.plus",
        "identity.groups.names",
        "identity.nothing",
    ] {
        w.policy("t", &format!("path \"identity/oidc/role/{{{{{selector}}}}}\" {{ capabilities = [\"read\"] }}"));
        for path in ["x", "*", "+", "a"] {
            assert!(!may(&mut w, path, &token), "{selector} {path}");
        }
    }
}

/// Entities of one store are not reachable through another namespace's: the keys begin with the namespace.
#[test]
fn keys_begin_with_the_namespace() {
    let (one, two) = (NsId(1), NsId(2));
    for (a, b) in [
        (tables::entity(one, "x"), tables::entity(two, "x")),
        (tables::group(one, "x"), tables::group(two, "x")),
        (tables::groups_of(one, "x"), tables::groups_of(two, "x")),
        (tables::members(one, "x", b'e'), tables::members(two, "x", b'e')),
        (tables::mfa(one, b'm', &[b"x"]), tables::mfa(two, b'm', &[b"x"])),
        (tables::oidc(one, b'k', "x"), tables::oidc(two, b'k', "x")),
    ] {
        assert_eq!((&a[1..5], &b[1..5]), (&[0, 0, 0, 1][..], &[0, 0, 0, 2][..]));
        assert!(tables::IDENTITY_BY_NAMESPACE.contains(&a[0]));
    }
    // an id that is a part of another is no prefix of it
    assert!(!tables::groups_of(one, "ab").starts_with(&tables::groups_of(one, "a")));
}

#[test]
fn identity_tokens() {
    let mut w = World::new();
    let auth = login(&mut w, "ann", json!({"policies": "oidc"}));
    w.policy("oidc", "path \"identity/oidc/token/*\" { capabilities = [\"read\"] }");
    let token = token_of(&auth);
    let entity = auth["entity_id"].as_str().unwrap().to_owned();
    write(&mut w, &format!("identity/entity/id/{entity}"), json!({"metadata": {"x": "a\", \"sub\": \"root"}}));
    let root = w.root.clone();
    for (path, body, text) in [
        ("key/k", json!({"rotation_period": 59}), "rotation_period must be at least one minute"),
        (
            "key/k",
            json!({"rotation_period": 60, "verification_ttl": 601}),
            "verification_ttl cannot be longer than 10x rotation_period",
        ),
        ("key/k", json!({"algorithm": "HS256"}), "unknown signing algorithm \"HS256\""),
        ("key/nope/rotate", json!({}), "no named key found at \"nope\""),
        ("role/r", json!({}), "the key parameter is required"),
        (
            "config",
            json!({"issuer": "https://a/b"}),
            "invalid issuer, which must include only a scheme, host, and optional port (e.g. https://example.com:8200)",
        ),
    ] {
        assert_eq!(refused(&mut w, &format!("identity/oidc/{path}"), body), text);
    }
    write(
        &mut w,
        "identity/oidc/key/k",
        json!({"algorithm": "ES256", "rotation_period": "1h", "verification_ttl": "2h"}),
    );
    let text = refused(&mut w, "identity/oidc/role/r", json!({"key": "k"}));
    assert_eq!(text, "a role's token ttl cannot be longer than the verification_ttl of the key it references");
    let text = refused(&mut w, "identity/oidc/role/r", json!({"key": "k", "ttl": 60, "template": "{\"iss\": 1}"}));
    assert!(text.starts_with("top level key \"iss\" not allowed. Restricted keys: "), "{text}");
    let template = "{\"who\": {{identity.entity.name}}, \"x\": {{identity.entity.metadata.x}}, \"m\": {{identity.entity.metadata}}, \"g\": {{identity.entity.groups.names}}, \"until\": {{time.now.plus.1h}}}";
    write(&mut w, "identity/oidc/role/r", json!({"key": "k", "ttl": "1h", "template": template}));
    let role = read(&mut w, "identity/oidc/role/r");
    let client_id = role["client_id"].as_str().unwrap().to_owned();
    assert_eq!((client_id.len(), &role["ttl"]), (24, &json!(3600)));
    let (code, v) = w.get("identity/oidc/token/r", &token);
    assert_eq!(
        (code, error_of(&v)),
        (Code::Invalid, "the key \"k\" does not list the client ID of the role \"r\" as an allowed client ID")
    );
    write(&mut w, "identity/oidc/key/k", json!({"allowed_client_ids": [client_id]}));
    let (code, v) = w.get("identity/oidc/token/r", &token);
    assert_eq!(code, Code::Ok, "{v}");
    let jwt = v["data"]["token"].as_str().unwrap().to_owned();
    let introspect = |w: &mut World, body: Value| w.post("identity/oidc/introspect", &root, body).1;
    assert_eq!(introspect(&mut w, json!({"token": jwt, "client_id": client_id})), json!({"active": true}));
    assert_eq!(introspect(&mut w, json!({"token": jwt, "client_id": "x"}))["active"], false);
    assert_eq!(introspect(&mut w, json!({"token": "x.y.z"}))["active"], false);
    let claims = |jwt: &str| -> Value {
        use base64::Engine;
        let part = jwt.split('.').nth(1).unwrap();
        serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let c = claims(&jwt);
    assert_eq!((&c["sub"], &c["aud"], &c["namespace"]), (&json!(entity), &json!(client_id), &json!("root")));
    assert_eq!(c["exp"].as_u64().unwrap() - c["iat"].as_u64().unwrap(), 3600);
    assert_eq!(c["x"], "a\", \"sub\": \"root", "a value adds no claim");
    assert_eq!(c["g"], json!([]));
    // keys: signing, next; a rotation publishes one more and the old one stays for its time
    let kids = |w: &mut World| -> Vec<String> {
        let (code, v) = w.get("identity/oidc/.well-known/keys", "");
        assert_eq!(code, Code::Ok);
        v["keys"].as_array().unwrap().iter().map(|k| k["kid"].as_str().unwrap().to_owned()).collect()
    };
    let first = kids(&mut w);
    assert_eq!(first.len(), 2);
    write(&mut w, "identity/oidc/key/k/rotate", json!({}));
    let second = kids(&mut w);
    assert_eq!((second.len(), &second[0]), (3, &first[1]));
    assert!(second.contains(&first[0]));
    assert_eq!(introspect(&mut w, json!({"token": jwt}))["active"], true);
    // by itself, at its time, also after a restart; what is over is published no more
    w.sleep(3600);
    w.restart();
    w.work();
    let third = kids(&mut w);
    assert_eq!((third.len(), &third[0]), (4, &second[1]));
    assert_eq!(introspect(&mut w, json!({"token": jwt}))["active"], false, "expired");
    w.sleep(3601);
    w.work();
    let fourth = kids(&mut w);
    assert!(!fourth.contains(&first[0]), "{fourth:?}");
    let (_, v) = w.delete("identity/oidc/key/k", &root);
    assert_eq!(error_of(&v), "unable to delete key \"k\" because it is currently referenced by these roles: r");
    let (_, v) = w.delete("identity/oidc/key/default", &root);
    assert_eq!(error_of(&v), "deletion of key \"default\" not allowed");
    let (_, v) = w.get("identity/oidc/.well-known/openid-configuration", "");
    assert!(v["jwks_uri"].as_str().is_some_and(|u| u.ends_with("/v1/identity/oidc/.well-known/keys")), "{v}");
    let (code, v) = w.get("identity/oidc/token/r", &root);
    assert_eq!((code, error_of(&v)), (Code::Invalid, "no entity associated with the request's token"));
    let (_, v) = w.get("identity/oidc/token/none", &token);
    assert_eq!(error_of(&v), "role \"none\" not found");
}

/// Nested groups against a naive model: which edges are refused as cycles, and what an entity inherits.
mod nested {
    use super::{World, id, json, read, write};
    use proptest::prelude::*;
    use ringfence_base::Code;
    use std::collections::BTreeSet;

    const GROUPS: usize = 5;

    /// Everything above a group, itself included.
    fn above(members: &[BTreeSet<usize>], at: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::from([at]);
        while let Some(more) = (0..GROUPS).find(|g| !found.contains(g) && !members[*g].is_disjoint(&found)) {
            found.insert(more);
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn as_a_naive_model_says(
            steps in prop::collection::vec((0..GROUPS, prop::collection::btree_set(0..GROUPS, 0..3)), 1..12),
            direct in prop::collection::btree_set(0..GROUPS, 0..3),
        ) {
            let mut w = World::new();
            let root = w.root.clone();
            let entity = id(&write(&mut w, "identity/entity", json!({"name": "e"})));
            let ids: Vec<String> = (0..GROUPS)
                .map(|g| {
                    let members = if direct.contains(&g) { vec![entity.clone()] } else { vec![] };
                    let body = json!({"name": format!("g{g}"), "policies": format!("p{g}"), "member_entity_ids": members});
                    id(&write(&mut w, "identity/group", body))
                })
                .collect();
            let mut members: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); GROUPS];
            for (group, wanted) in steps {
                let list: Vec<&String> = wanted.iter().map(|m| &ids[*m]).collect();
                let path = format!("identity/group/id/{}", ids[group]);
                let (code, _) = w.post(&path, &root, json!({"member_group_ids": list}));
                let cyclic = !above(&members, group).is_disjoint(&wanted);
                prop_assert_eq!(code, if cyclic { Code::Invalid } else { Code::NoContent });
                if !cyclic {
                    members[group] = wanted;
                }
            }
            let mut all = BTreeSet::new();
            for g in &direct {
                all.extend(above(&members, *g));
            }
            let page = read(&mut w, &format!("identity/entity/id/{entity}"));
            let shown = |field: &str| -> BTreeSet<String> {
                page[field].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
            };
            let named = |set: &BTreeSet<usize>| set.iter().map(|g| ids[*g].clone()).collect::<BTreeSet<_>>();
            prop_assert_eq!(shown("group_ids"), named(&all));
            prop_assert_eq!(shown("direct_group_ids"), named(&direct));
            let policies = w.write(|txn, _| {
                super::super::Identity::of(txn, ringfence_base::NsId::ROOT, &entity).unwrap().unwrap().policies
            });
            prop_assert_eq!(policies, all.iter().map(|g| format!("p{g}")).collect::<Vec<_>>());
        }
    }
}
