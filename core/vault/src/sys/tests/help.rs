//! Help and the OpenAPI document.

use super::*;

#[test]
fn help_of_a_path_and_of_a_mount() {
    let mut w = world();
    let (code, v) = root(&mut w, Operation::Help, "sys/policies/acl/x", Value::Null);
    assert_eq!(code, Code::Ok);
    let text = v["help"].as_str().expect("text");
    assert!(text.contains("An ACL policy.") && text.contains("policy (string)"), "{text}");
    assert!(v["see_also"].is_null());
    assert_eq!(v["openapi"]["openapi"], "3.0.2");
    assert!(v["openapi"]["paths"]["/policies/acl/{name}"]["post"].is_object(), "{v}");
    assert!(v.get("request_id").is_none());
    let (_, v) = root(&mut w, Operation::Help, "sys/", Value::Null);
    let text = v["help"].as_str().expect("text");
    assert!(text.contains("## PATHS") && text.contains("^mounts/(?P<path>.+)$"), "{text}");
    assert_eq!(w.call(Operation::Help, "sys/mounts", "", Value::Null).0, Code::Denied);
}

#[test]
fn the_document_holds_what_is_mounted() {
    let mut w = world();
    set(&mut w, "sys/mounts/secret", json!({"type": "kv-v2"}));
    let v = get(&mut w, "sys/internal/specs/openapi");
    assert_eq!(v["openapi"], "3.0.2");
    assert!(v["info"]["version"].is_string());
    let paths = v["paths"].as_object().expect("paths");
    assert!(paths["/secret/config"]["get"].is_object());
    assert!(paths["/auth/token/create"]["post"].is_object());
    assert_eq!(paths["/sys/rotate"]["x-vault-sudo"], true);
    assert_eq!(paths["/sys/replication/status"]["x-vault-unauthenticated"], true);
    let body = &paths["/sys/mounts/{path}"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["properties"]["type"]["type"], "string");
    assert!(body["properties"].get("path").is_none());
    let listing = &paths["/sys/policies/password/"]["get"]["parameters"];
    let listing = listing.as_array().and_then(|all| all.iter().find(|p| p["name"] == "list")).expect("list");
    assert_eq!((&listing["name"], &listing["required"]), (&json!("list"), &json!(true)));

    let (_, v) = root(&mut w, Operation::Read, "sys/internal/specs/openapi", json!({"generic_mount_paths": "true"}));
    let generic = &v["paths"]["/{kv_mount_path}/config"];
    assert_eq!(generic["parameters"][0]["name"], "kv_mount_path");

    // a stranger learns nothing of what is mounted
    let (_, v) = w.get("sys/internal/specs/openapi", "");
    assert!(v["paths"].get("/secret/config").is_none());
    assert!(v["paths"].get("/sys/mounts").is_some());
}
