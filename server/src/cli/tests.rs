//! Whole command lines against a scripted server: what is asked, what is printed, and the exit code.

use super::fake::{Got, Outside, Ran, Script, scratch_file};
use super::server_args::DevKv;
use super::{Command, run};
use serde_json::{Value, json};

type Reply = (u16, &'static str, Vec<u8>);

fn ok(body: Value) -> Reply {
    (200, "", body.to_string().into_bytes())
}

fn empty(status: u16) -> Reply {
    (status, "", Vec::new())
}

fn refused(status: u16, errors: &[&str]) -> Reply {
    (status, "", json!({ "errors": errors }).to_string().into_bytes())
}

fn envelope(data: Value) -> Reply {
    ok(json!({ "request_id": "r1", "lease_id": "", "renewable": false, "lease_duration": 0, "data": data,
        "wrap_info": null, "warnings": null, "auth": null }))
}

/// Runs `vault <line>` with `VAULT_TOKEN=tok` against a server that answers `replies`.
fn ran(line: &str, stdin: &str, replies: Vec<Reply>) -> (Ran, Vec<Got>) {
    let server = Script::play(replies);
    let mut outside = Outside::with_stdin(stdin);
    outside.env.insert("VAULT_ADDR".into(), server.address.clone());
    outside.env.insert("VAULT_TOKEN".into(), "tok".into());
    let mut left = outside.run(&format!("vault {line}"));
    left.stderr = left.stderr.replace(&server.address, "http://server");
    left.stdout = left.stdout.replace(&server.address, "http://server");
    (left, server.end())
}

fn left(code: i32, stdout: &str, stderr: &str) -> Ran {
    Ran { code, stdout: stdout.to_owned(), stderr: stderr.to_owned() }
}

fn sent(got: &Got) -> (String, Value) {
    (got.line.clone(), serde_json::from_str(&got.body).unwrap_or(Value::Null))
}

fn mount(version: &str) -> Reply {
    envelope(json!({ "path": "secret/", "type": "kv", "options": { "version": version } }))
}

#[test]
fn writes() {
    let (run, got) = ran("write auth/x/role max=10 yes=true", "", vec![empty(204)]);
    assert_eq!(run, left(0, "Success! Data written to: auth/x/role\n", ""));
    assert_eq!(sent(&got[0]), ("PUT /v1/auth/x/role".into(), json!({ "max": "10", "yes": "true" })));
    assert_eq!(
        (got[0].headers["x-vault-token"].as_str(), got[0].headers["x-vault-request"].as_str()),
        ("tok", "true")
    );

    let (run, got) = ran("write -f database/rotate-root/pg", "", vec![empty(204)]);
    assert_eq!((run.code, got[0].body.as_str()), (0, "null"));

    let (run, _) = ran("write a/b", "", vec![]);
    assert_eq!(run, left(1, "", "Must supply data or use -force\n"));

    let (run, _) = ran("write a/b x=1", "", vec![refused(400, &["bad x"])]);
    assert_eq!(
        run,
        left(
            2,
            "",
            "Error writing data to a/b: Error making API request.\n\nURL: PUT http://server/v1/a/b\nCode: 400. Errors:\n\n* bad x\n"
        )
    );

    let (run, got) = ran("write -format=json a/b -", "{\"n\": 5}", vec![empty(204)]);
    assert_eq!((run.code, run.stdout.as_str(), got[0].body.as_str()), (0, "", "{\"n\":5}"));
}

#[test]
fn fields_are_printed_without_a_newline() {
    let reply = || envelope(json!({ "certificate": "-----BEGIN\nx\n-----END", "n": 5, "list": ["a", "b"] }));
    assert_eq!(ran("read -field=certificate pki/x", "", vec![reply()]).0.stdout, "-----BEGIN\nx\n-----END");
    assert_eq!(ran("read -field=n pki/x", "", vec![reply()]).0.stdout, "5");
    assert_eq!(ran("read -field=list pki/x", "", vec![reply()]).0.stdout, "[a b]");
    assert_eq!(ran("read -format=json -field=list pki/x", "", vec![reply()]).0.stdout, "[\n  \"a\",\n  \"b\"\n]");
    let (run, _) = ran("read -field=none pki/x", "", vec![reply()]);
    assert_eq!(run, left(1, "", "Field \"none\" not present in secret\n"));
}

#[test]
fn reads() {
    let (run, got) = ran("read kv/x a=1 a=2", "", vec![refused(404, &[])]);
    assert_eq!(run, left(2, "", "No value found at kv/x\n"));
    assert_eq!(got[0].line, "GET /v1/kv/x?a=1&a=2");

    let body = json!({ "request_id": "r", "lease_id": "db/creds/r/1", "renewable": true, "lease_duration": 3600,
        "data": { "username": "u", "max_ttl": 86400, "tags": { "b": 1, "a": "x" }, "none": null }, "warnings": ["careful"] });
    let (run, _) = ran("read database/creds/r", "", vec![ok(body)]);
    assert_eq!(
        run,
        left(
            0,
            "Key                Value\n---                -----\nlease_id           db/creds/r/1\nlease_duration     1h\n\
             lease_renewable    true\nmax_ttl            24h\nnone               <nil>\ntags               map[a:x b:1]\n\
             username           u\n",
            "WARNING! The following warnings were returned from Vault:\n\n  * careful\n\n"
        )
    );

    let (run, _) = ran("read -format=yaml kv/x", "", vec![envelope(json!({ "a": "1" }))]);
    assert_eq!(
        run.stdout,
        "data:\n  a: \"1\"\nlease_duration: 0\nlease_id: \"\"\nrenewable: false\nrequest_id: r1\nwarnings: null\n"
    );
    let (run, _) = ran("read -format=json kv/x", "", vec![envelope(json!({ "a": 9223372036854775807i64 }))]);
    assert!(run.stdout.starts_with("{\n  \"request_id\": \"r1\",\n  \"lease_id\": \"\",\n  \"lease_duration\": 0,"));
    assert!(run.stdout.contains("\"a\": 9223372036854775807"));
    let (run, _) = ran("read -format=raw pki/ca", "", vec![(200, "", b"raw\x0abytes".to_vec())]);
    assert_eq!(run.stdout, "raw\nbytes");
}

#[test]
fn lists() {
    let (run, got) = ran("list secret/metadata", "", vec![envelope(json!({ "keys": ["b", "a/", "a"] }))]);
    assert_eq!(run, left(0, "Keys\n----\na\na/\nb\n", ""));
    assert_eq!(got[0].line, "GET /v1/secret/metadata?list=true");
    assert_eq!(ran("list x", "", vec![refused(404, &[])]).0, left(2, "", "No value found at x\n"));
    assert_eq!(ran("list -format=json x", "", vec![refused(404, &[])]).0, left(2, "{}\n", ""));
    let (run, got) = ran("scan x", "", vec![envelope(json!({ "keys": ["a/b"] }))]);
    assert_eq!((run.stdout.as_str(), got[0].line.as_str()), ("Keys\n----\na/b\n", "GET /v1/x?scan=true"));
    let info = json!({ "keys": ["a/"], "key_info": { "a/": { "id": "i", "ttl": 60 } } });
    let (run, _) = ran("list -detailed x", "", vec![envelope(info)]);
    assert_eq!(run.stdout, "Keys    id    ttl\n----    --    ---\na/      i     1m\n");
}

#[test]
fn key_values_of_version_2() {
    let metadata = json!({ "created_time": "t", "custom_metadata": null, "deletion_time": "", "destroyed": false, "version": 2 });
    let both = json!({ "data": { "password": "p", "user": "u" }, "metadata": metadata });
    let (run, got) = ran("kv get secret/app/db", "", vec![mount("2"), envelope(both.clone())]);
    assert_eq!(
        run,
        left(
            0,
            "====== Secret Path ======\nsecret/data/app/db\n\n======= Metadata =======\nKey                Value\n\
             ---                -----\ncreated_time       t\ncustom_metadata    <nil>\ndeletion_time      n/a\n\
             destroyed          false\nversion            2\n\n====== Data ======\nKey         Value\n---         -----\n\
             password    p\nuser        u\n"
                .replace("====== Secret Path ======", &super::output::heading("Secret Path", "secret/data/app/db".len()))
                .as_str(),
            ""
        )
    );
    assert_eq!(got[0].line, "GET /v1/sys/internal/ui/mounts/secret/app/db");
    assert_eq!(got[1].line, "GET /v1/secret/data/app/db");

    let (run, _) = ran("kv get -field=password -mount=secret app/db", "", vec![mount("2"), envelope(both.clone())]);
    assert_eq!(run.stdout, "p");
    let (_, got) = ran("kv get -mount secret -version 1 app/db", "", vec![mount("2"), envelope(both)]);
    assert_eq!(got[0].line, "GET /v1/sys/internal/ui/mounts/secret");
    assert_eq!(got[1].line, "GET /v1/secret/data/app/db?version=1");

    let gone =
        json!({ "data": { "data": null, "metadata": { "deletion_time": "t", "destroyed": false, "version": 3 } } });
    let (run, _) = ran("kv get secret/x", "", vec![mount("2"), (404, "", gone.to_string().into_bytes())]);
    assert_eq!(run.code, 0);
    assert!(run.stdout.contains("Metadata") && !run.stdout.contains(" Data "));
    let (run, _) = ran("kv get secret/x", "", vec![mount("2"), refused(404, &[])]);
    assert_eq!(run, left(2, "", "No value found at secret/data/x\n"));

    let (run, got) = ran("kv put -cas=1 secret/x a=1", "", vec![mount("2"), envelope(metadata)]);
    assert!(run.stdout.starts_with("== Secret Path ==\nsecret/data/x\n\n======= Metadata ======="), "{}", run.stdout);
    assert_eq!(
        sent(&got[1]),
        ("PUT /v1/secret/data/x".into(), json!({ "data": { "a": "1" }, "options": { "cas": 1 } }))
    );
}

#[test]
fn key_values_of_version_1() {
    let (run, _) = ran("kv get secret/x", "", vec![mount("1"), envelope(json!({ "a": "1" }))]);
    assert_eq!(run.stdout, "== Data ==\nKey    Value\n---    -----\na      1\n");
    let (run, got) = ran("kv put secret/x a=1", "", vec![mount("1"), empty(204)]);
    assert_eq!(run.stdout, "Success! Data written to: secret/x\n");
    assert_eq!(sent(&got[1]), ("PUT /v1/secret/x".into(), json!({ "a": "1" })));
    // a server without the preflight call
    let (_, got) = ran("kv get secret/x", "", vec![refused(404, &[]), envelope(json!({ "a": "1" }))]);
    assert_eq!(got[1].line, "GET /v1/secret/x");
    let (run, _) = ran("kv undelete -versions=1 secret/x", "", vec![mount("1")]);
    assert_eq!(run, left(1, "", "Undelete not supported on KV Version 1\n"));
}

#[test]
fn key_value_versions() {
    let (run, got) = ran("kv delete -versions=1,2 secret/x", "", vec![mount("2"), empty(204)]);
    assert_eq!(run.stdout, "Success! Data deleted (if it existed) at: secret/data/x\n");
    assert_eq!(sent(&got[1]), ("PUT /v1/secret/delete/x".into(), json!({ "versions": ["1", "2"] })));
    let (run, got) = ran("kv destroy -versions=3 secret/x", "", vec![mount("2"), empty(204)]);
    assert_eq!(
        (run.stdout.as_str(), got[1].line.as_str()),
        ("Success! Data written to: secret/destroy/x\n", "PUT /v1/secret/destroy/x")
    );

    let version = |number: u64| json!({ "data": { "a": "1", "b": "2" }, "metadata": { "version": number, "deletion_time": "" } });
    let replies = vec![mount("2"), refused(405, &["unsupported operation"]), envelope(version(4)), empty(204)];
    let (run, got) = ran("kv patch secret/x b=3", "", replies);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(got[1].headers["content-type"], "application/merge-patch+json");
    assert_eq!(sent(&got[3]).1, json!({ "data": { "a": "1", "b": "3" }, "options": { "cas": 4 } }));

    let replies = vec![mount("2"), envelope(version(9)), envelope(version(2)), envelope(json!({ "version": 10 }))];
    let (run, got) = ran("kv rollback -version=2 secret/x", "", replies);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(got[2].line, "GET /v1/secret/data/x?version=2");
    assert_eq!(sent(&got[3]).1, json!({ "data": { "a": "1", "b": "2" }, "options": { "cas": 9 } }));

    let (_, got) = ran(
        "kv metadata put -max-versions=5 -delete-version-after=90d -custom-metadata=k=v secret/x",
        "",
        vec![mount("2"), empty(204)],
    );
    let expected = json!({ "max_versions": 5, "delete_version_after": "2160h0m0s", "custom_metadata": { "k": "v" } });
    assert_eq!(sent(&got[1]), ("PUT /v1/secret/metadata/x".into(), expected));
}

#[test]
fn wrapping() {
    let wrapped = json!({ "request_id": "", "data": null, "auth": null, "wrap_info": { "token": "hvs.w", "accessor": "a",
        "ttl": 300, "creation_time": "2024-01-02T03:04:05.6Z", "creation_path": "secret/data/x" } });
    let (run, got) = ran("kv get -wrap-ttl=5m secret/x", "", vec![mount("2"), ok(wrapped)]);
    assert_eq!(
        run.stdout,
        "Key                              Value\n---                              -----\n\
         wrapping_token:                  hvs.w\nwrapping_accessor:               a\n\
         wrapping_token_ttl:              5m\n\
         wrapping_token_creation_time:    2024-01-02 03:04:05.6 +0000 UTC\n\
         wrapping_token_creation_path:    secret/data/x\n"
    );
    assert!(!got[0].headers.contains_key("x-vault-wrap-ttl"));
    assert_eq!(got[1].headers["x-vault-wrap-ttl"], "5m0s");

    let (_, got) = ran("unwrap hvs.w", "", vec![envelope(json!({ "a": "1" }))]);
    assert_eq!(sent(&got[0]), ("PUT /v1/sys/wrapping/unwrap".into(), json!({ "token": "hvs.w" })));
    let (_, got) = ran("unwrap", "", vec![envelope(json!({ "a": "1" }))]);
    assert_eq!(got[0].body, "null");
}

#[test]
fn mounts() {
    let (run, got) = ran("secrets enable -path=secret -version=2 kv", "", vec![empty(204)]);
    assert_eq!(run.stdout, "Success! Enabled the kv secrets engine at: secret/\n");
    let body = json!({ "type": "kv", "description": "", "config": { "options": null, "default_lease_ttl": "",
        "max_lease_ttl": "", "force_no_cache": false }, "local": false, "seal_wrap": false,
        "external_entropy_access": false, "options": { "version": "2" } });
    assert_eq!(sent(&got[0]), ("POST /v1/sys/mounts/secret".into(), body));

    let (run, got) = ran("secrets tune -max-lease-ttl=87600h pki", "", vec![empty(204)]);
    assert_eq!(run.stdout, "Success! Tuned the secrets engine at: pki/\n");
    let body =
        json!({ "options": null, "default_lease_ttl": "", "max_lease_ttl": "87600h0m0s", "force_no_cache": false });
    assert_eq!(sent(&got[0]), ("POST /v1/sys/mounts/pki/tune".into(), body));

    let (run, got) = ran("auth enable userpass", "", vec![empty(204)]);
    assert_eq!(
        (run.stdout.as_str(), got[0].line.as_str()),
        ("Success! Enabled userpass auth method at: userpass/\n", "POST /v1/sys/auth/userpass")
    );
    let (run, _) = ran("auth disable userpass", "", vec![empty(204)]);
    assert_eq!(run.stdout, "Success! Disabled the auth method (if it existed) at: userpass/\n");

    let table = json!({ "kv/": { "type": "kv", "accessor": "kv_1", "description": "" }, "sys/": { "type": "system", "accessor": "system_1", "description": "s" } });
    let (run, _) = ran("secrets list", "", vec![envelope(table.clone())]);
    assert_eq!(
        run.stdout,
        "Path    Type      Accessor    Description\n----    ----      --------    -----------\n\
         kv/     kv        kv_1        n/a\nsys/    system    system_1    s\n"
    );
    let (run, _) = ran("secrets list -format=json", "", vec![envelope(table.clone())]);
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), table);

    let moving = vec![
        envelope(json!({ "migration_id": "m" })),
        envelope(json!({ "migration_info": { "status": "success" } })),
    ];
    let (run, got) = ran("auth move ldap new", "", moving);
    assert!(run.stdout.ends_with("Success! Finished moving auth method ldap/ to new/, with migration ID m\n"));
    assert_eq!(sent(&got[0]).1, json!({ "from": "auth/ldap/", "to": "auth/new/" }));
}

#[test]
fn logging_in_keeps_the_token() {
    let server = Script::play(vec![ok(
        json!({ "auth": { "client_token": "hvs.new", "accessor": "a", "policies": ["default"],
        "token_policies": ["default"], "lease_duration": 3600, "renewable": true, "metadata": null } }),
    )]);
    let mut outside = Outside::with_stdin("");
    outside.env.insert("BAO_ADDR".into(), server.address.clone());
    outside.env.insert("VAULT_ADDR".into(), "http://127.0.0.1:1".into());
    let run = outside.run("bao login -method=userpass username=me password=pw");
    assert!(run.stdout.starts_with("Success! You are now authenticated. The token information displayed below is\n"));
    assert!(
        run.stdout.contains("\"bao login\"") && run.stdout.contains("token_duration       1h\n"),
        "{}",
        run.stdout
    );
    let kept = outside.home.join(".vault-token");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "hvs.new");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let got = server.end();
    assert_eq!(sent(&got[0]), ("PUT /v1/auth/userpass/login/me".into(), json!({ "password": "pw" })));
    assert!(!got[0].headers.contains_key("x-vault-token"));
    // the next command uses it
    assert_eq!(outside.run("bao print token"), left(0, "hvs.new\n", ""));

    let lookup = || {
        envelope(
            json!({ "id": "t", "accessor": "a", "policies": ["root"], "ttl": 0, "renewable": false, "meta": null }),
        )
    };
    let (run, got) = ran("login -no-store hvs.root", "", vec![lookup()]);
    assert_eq!(got[0].headers["x-vault-token"], "hvs.root");
    assert!(run.stderr.starts_with("The token was not stored in token helper."));
    assert_eq!(ran("login -token-only -", "hvs.piped\n", vec![lookup()]).0.stdout, "hvs.piped");
    let (run, _) =
        ran("login -method=approle role_id=r secret_id=s", "", vec![refused(400, &["invalid role or secret ID"])]);
    assert!(run.stderr.starts_with(
        "Error authenticating: Error making API request.\n\nURL: PUT http://server/v1/auth/approle/login\n"
    ));
    assert_eq!(run.code, 2);
    assert_eq!(ran("login -no-store -no-print x", "", vec![]).0.code, 1);
    let (run, _) = ran("login -method=aws role=r", "", vec![]);
    assert!(
        run.code == 1 && run.stderr.starts_with("Unknown auth method: aws. Use \"vault auth list\""),
        "{}",
        run.stderr
    );
}

#[test]
fn a_missing_file_is_told_as_scripts_know_it() {
    let (run, _) = ran("policy write p /none/such", "", vec![]);
    let why = "open /none/such: no such file or directory";
    assert_eq!((run.code, run.stderr.trim_end()), (2, format!("Error opening policy file: {why}").as_str()));
    let (run, _) = ran("write a/b c=@/none/such", "", vec![]);
    let all = format!("Failed to parse K=V data: error reading file: {why}");
    assert_eq!((run.code, run.stderr.trim_end()), (1, all.as_str()));
}

#[test]
fn status_says_it_with_its_exit_code() {
    let seal = |sealed: bool| {
        ok(
            json!({ "type": "shamir", "initialized": true, "sealed": sealed, "t": 3, "n": 5, "progress": 1, "nonce": "",
            "version": "1.20.0", "build_date": "d", "storage_type": "raft", "cluster_name": "c", "cluster_id": "i" }),
        )
    };
    let leader = ok(json!({ "ha_enabled": true, "is_self": true, "active_time": "2024-01-01T00:00:00Z",
        "leader_cluster_address": "https://l:8201", "raft_committed_index": 7, "raft_applied_index": 7 }));
    let (run, got) = ran("status -namespace=a", "", vec![seal(false), leader]);
    assert_eq!(
        run,
        left(
            0,
            "Key                     Value\n---                     -----\nSeal Type               shamir\n\
             Initialized             true\nSealed                  false\nTotal Shares            5\n\
             Threshold               3\nVersion                 1.20.0\nBuild Date              d\n\
             Storage Type            raft\nCluster Name            c\nCluster ID              i\n\
             HA Enabled              true\nHA Cluster              https://l:8201\nHA Mode                 active\n\
             Active Since            2024-01-01T00:00:00Z\nRaft Committed Index    7\nRaft Applied Index      7\n",
            ""
        )
    );
    assert!(!got[0].headers.contains_key("x-vault-namespace"));
    let (run, _) = ran("status", "", vec![seal(true), refused(503, &["Vault is sealed"])]);
    assert_eq!(run.code, 2);
    assert!(run.stdout.contains("Unseal Progress    1/3\nUnseal Nonce       n/a\n"), "{}", run.stdout);
    let (run, _) = ran("status -format=json", "", vec![seal(true), refused(503, &["Vault is sealed"])]);
    assert_eq!((run.code, serde_json::from_str::<Value>(&run.stdout).unwrap()["sealed"].clone()), (2, json!(true)));
    let mut outside = Outside::with_stdin("");
    outside.env.insert("VAULT_ADDR".into(), "http://127.0.0.1:1".into());
    let run = outside.run("vault status");
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.starts_with("Error checking seal status: Get \"http://127.0.0.1:1/v1/sys/seal-status\": "),
        "{}",
        run.stderr
    );
}

#[test]
fn initialising() {
    let seal = || ok(json!({ "type": "shamir", "initialized": false, "sealed": true, "recovery_seal": false }));
    let keys = || ok(json!({ "keys": ["aa", "bb"], "keys_base64": ["qg==", "uw=="], "root_token": "hvs.root" }));
    let (run, got) = ran("operator init -key-shares=2 -key-threshold=2", "", vec![seal(), keys()]);
    assert!(run.stdout.starts_with("Unseal Key 1: qg==\nUnseal Key 2: uw==\n\nInitial Root Token: hvs.root\n\nVault initialized with 2 key shares and a key threshold of 2."));
    let expected = json!({ "secret_shares": 2, "secret_threshold": 2, "pgp_keys": null, "root_token_pgp_key": "" });
    assert_eq!(sent(&got[1]), ("PUT /v1/sys/init".into(), expected));
    let (run, _) = ran("operator init -format=json -key-shares 2 -key-threshold 2", "", vec![seal(), keys()]);
    let expected = json!({ "unseal_keys_b64": ["qg==", "uw=="], "unseal_keys_hex": ["aa", "bb"], "unseal_shares": 2,
        "unseal_threshold": 2, "recovery_keys_b64": [], "recovery_keys_hex": [], "recovery_keys_shares": 0,
        "recovery_keys_threshold": 0, "root_token": "hvs.root" });
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), expected);
    let (run, _) = ran("operator init -status", "", vec![ok(json!({ "initialized": false }))]);
    assert_eq!(run, left(2, "Vault is not initialized\n", ""));
    let (_, got) = ran("operator unseal", "share\n", vec![seal(), ok(json!({}))]);
    assert_eq!(sent(&got[0]), ("PUT /v1/sys/unseal".into(), json!({ "key": "share", "migrate": false })));
}

#[test]
fn tokens_leases_policies_audits() {
    let (_, got) = ran("token create -policy=a -policy=b -ttl=1h -metadata=k=v", "", vec![envelope(json!({}))]);
    let body = json!({ "policies": ["a", "b"], "meta": { "k": "v" }, "ttl": "1h0m0s", "explicit_max_ttl": "0s",
        "period": "0s", "display_name": "", "num_uses": 0, "renewable": true, "type": "service", "entity_alias": "" });
    assert_eq!(sent(&got[0]), ("POST /v1/auth/token/create".into(), body));
    let (run, got) = ran("token revoke -mode=orphan t", "", vec![empty(204)]);
    assert_eq!(
        (run.stdout.as_str(), got[0].line.as_str()),
        ("Success! Revoked token (if it existed)\n", "PUT /v1/auth/token/revoke-orphan")
    );
    let (run, _) =
        ran("token capabilities a/b", "", vec![envelope(json!({ "a/b": ["read", "list"], "capabilities": ["x"] }))]);
    assert_eq!(run.stdout, "list, read\n");
    let (_, got) = ran("token lookup", "", vec![envelope(json!({}))]);
    assert_eq!(got[0].line, "GET /v1/auth/token/lookup-self");

    let (run, got) = ran("lease revoke -prefix database/creds", "", vec![empty(202)]);
    assert_eq!(run.stdout, "All revocation operations queued successfully!\n");
    assert_eq!(sent(&got[0]), ("PUT /v1/sys/leases/revoke-prefix/database/creds".into(), json!({ "sync": false })));
    assert_eq!(ran("lease revoke -force x", "", vec![]).0.code, 1);

    let file = scratch_file("policy.hcl", "path \"x\" {}\n");
    let (run, got) = ran(&format!("policy write App {}", file.display()), "", vec![empty(204)]);
    assert_eq!(
        run,
        left(0, "Success! Uploaded policy: app\n", "Policy name was converted from \"App\" to \"app\"\n")
    );
    assert_eq!(sent(&got[0]), ("PUT /v1/sys/policies/acl/app".into(), json!({ "policy": "path \"x\" {}\n" })));
    let (run, _) = ran("policy read app", "", vec![refused(404, &[])]);
    assert_eq!(run, left(2, "", "No policy named: app\n"));
    let (run, _) = ran("policy list", "", vec![envelope(json!({ "keys": ["default", "root"] }))]);
    assert_eq!(run.stdout, "default\nroot\n");

    let (run, got) = ran("audit enable file file_path=/tmp/a", "", vec![empty(204)]);
    assert_eq!(run.stdout, "Success! Enabled the file audit device at: file/\n");
    let body = json!({ "type": "file", "description": "", "options": { "file_path": "/tmp/a" }, "local": false });
    assert_eq!(sent(&got[0]), ("PUT /v1/sys/audit/file".into(), body));
    assert_eq!(ran("audit list", "", vec![envelope(json!({}))]).0, left(2, "No audit devices are enabled.\n", ""));
}

#[test]
fn rafts_and_namespaces() {
    let servers =
        json!({ "config": { "servers": [{ "node_id": "n1", "address": "a:8201", "leader": true, "voter": true }] } });
    let (run, _) = ran("operator raft list-peers", "", vec![envelope(servers)]);
    assert_eq!(
        run.stdout,
        "Node    Address    State     Voter\n----    -------    -----     -----\nn1      a:8201     leader    true\n"
    );
    let (run, got) = ran("operator raft join http://l:8200", "", vec![ok(json!({ "joined": true }))]);
    assert_eq!(run.stdout, "Key       Value\n---       -----\nJoined    true\n");
    assert_eq!(sent(&got[0]).1["leader_api_addr"], "http://l:8200");
    let (run, got) =
        ran("operator generate-root -dr-token key", "", vec![ok(json!({ "started": false, "otp_length": 28 }))]);
    assert!(run.stderr.starts_with("No root generation is in progress."), "{}", run.stderr);
    assert_eq!(
        (run.code, got[0].line.as_str()),
        (1, "GET /v1/sys/replication/dr/secondary/generate-operation-token/attempt")
    );

    let (run, got) =
        ran("namespace create -ns=a team", "", vec![envelope(json!({ "id": "abc", "path": "a/team/" }))]);
    assert_eq!(run.stdout, "Key     Value\n---     -----\nid      abc\npath    a/team/\n");
    assert_eq!(
        (got[0].line.as_str(), got[0].headers["x-vault-namespace"].as_str()),
        ("PUT /v1/sys/namespaces/team", "a/")
    );
}

#[test]
fn snapshots_are_streamed_and_checked() {
    let target = scratch_file("saved.snap", "");
    let (run, _) = ran(
        &format!("operator raft snapshot save {}", target.display()),
        "",
        vec![(200, "", b"not a snapshot".to_vec())],
    );
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    assert!(run.stderr.starts_with("Error taking the snapshot: "), "{}", run.stderr);
    let source = scratch_file("source.snap", "bytes of it");
    let (run, got) =
        ran(&format!("operator raft snapshot restore -force {}", source.display()), "", vec![empty(204)]);
    assert_eq!(run, left(0, "", ""));
    assert_eq!(
        (got[0].line.as_str(), got[0].body.as_str()),
        ("POST /v1/sys/storage/raft/snapshot-force", "bytes of it")
    );
}

#[test]
fn a_standby_redirects_once() {
    let active = Script::play(vec![envelope(json!({ "a": "1" }))]);
    let location = format!("Location: {}/v1/kv/x\r\n", active.address);
    let location: &'static str = Box::leak(location.into_boxed_str());
    let (run, got) = ran("write kv/x a=1", "", vec![(307, location, Vec::new())]);
    assert_eq!((run.code, got.len()), (0, 1), "{run:?}");
    let got = active.end();
    assert_eq!(
        (sent(&got[0]), got[0].headers["x-vault-token"].as_str()),
        (("PUT /v1/kv/x".into(), json!({ "a": "1" })), "tok")
    );
    let (run, _) =
        ran("write -disable-redirects kv/x a=1", "", vec![(307, "Location: http://127.0.0.1:1/\r\n", Vec::new())]);
    assert_eq!(run.code, 2);
}

#[test]
fn nothing_is_sent_in_dry_runs() {
    let mut outside = Outside::with_stdin("");
    outside.env.insert("VAULT_TOKEN".into(), "tok".into());
    let run = outside.run("vault write -address=http://h:1 -output-curl-string a/b x=it's");
    assert_eq!(
        run,
        left(
            0,
            "curl -X PUT -H \"X-Vault-Token: $(vault print token)\" -H \"X-Vault-Request: true\" -d '{\"x\":\"it'\"'\"'s\"}' http://h:1/v1/a/b\n",
            ""
        )
    );
    let run = outside.run("vault delete -output-policy sys/auth/x");
    assert_eq!(run.stdout, "path \"sys/auth/x\" {\n  capabilities = [\"delete\", \"sudo\"]\n}\n");
}

#[test]
fn retries_are_asked_for_by_the_environment() {
    let server = Script::play(vec![refused(503, &["busy"]), empty(204)]);
    let mut outside = Outside::with_stdin("");
    outside.env.insert("VAULT_ADDR".into(), server.address.clone());
    outside.env.insert("VAULT_MAX_RETRIES".into(), "1".into());
    assert_eq!(outside.run("vault write a/b x=1").code, 0);
    assert_eq!(server.end().len(), 2);
}

#[test]
fn wrong_command_lines() {
    let mut outside = Outside::with_stdin("");
    assert_eq!(outside.run("vault").code, 127);
    assert_eq!(outside.run("vault nonsense").code, 127);
    assert_eq!(outside.run("vault kv").code, 127);
    let help = outside.run("vault kv -h");
    assert!(help.code == 0 && help.stdout.contains("enable-versioning"));
    assert_eq!(outside.run("vault read -nonsense x"), left(1, "", "flag provided but not defined: -nonsense\n"));
    assert_eq!(outside.run("vault read -format=xml x"), left(1, "", "Invalid output format: xml\n"));
    assert_eq!(outside.run("vault read"), left(1, "", "Not enough arguments (expected at least 1, got 0)\n"));
    assert!(outside.run("vault token create -ttl=soon").stderr.contains("not a duration"));
    assert!(outside.run("vault read -header=X-Vault-Token=x a").stderr.contains("internal usage only"));
    assert!(outside.run("vault -v").stdout.starts_with("Ringfence v"));
    assert!(outside.run("vault completion bash").stdout.contains("complete -F"));
}

#[test]
fn servers_are_handed_back() {
    let mut outside = Outside::with_stdin("");
    outside.env.insert("VAULT_DEV_LISTEN_ADDRESS".into(), "127.0.0.1:9999".into());
    let words = "ringfence server -dev -dev-root-token-id=root -dev-kv-v1 -config=/a.hcl -config /b -log-level=DEBUG";
    let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    let Command::Server(args) = outside.borrow(|io| run(&words, io)) else { panic!() };
    assert_eq!(args.config, ["/a.hcl", "/b"].map(std::path::PathBuf::from));
    assert_eq!(args.log_level.as_deref(), Some("debug"));
    let dev = args.dev.unwrap();
    assert_eq!(
        (dev.root_token_id.as_deref(), dev.listen_address.as_str(), dev.kv),
        (Some("root"), "127.0.0.1:9999", DevKv::V1)
    );
    let run = outside.run("ringfence server");
    assert_eq!(run, left(1, "", "Must specify at least one config path using -config\n"));
}
