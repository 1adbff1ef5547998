//! Development mode: initialised, unsealed, a root token and `secret/` at once, through the same calls a client makes.

use crate::cli::{DevArgs, DevKv};
use crate::shard::Core;
use ringfence_base::{Secret, entropy};
use ringfence_node::{Body, Call, Code, Headers, Map, Operation, Reply};
use serde_json::{Value, json};
use std::path::Path;
use std::rc::Rc;

/// Prepares the server and prints what the developer needs. `ca_file` is what clients trust with `-dev-tls`.
pub async fn prepare(core: &Rc<Core>, dev: &DevArgs, ca_file: Option<&Path>) -> Result<(), String> {
    if dev.skip_init {
        return Ok(());
    }
    let init = ask(core, "sys/init", None, json!({"secret_shares": 1, "secret_threshold": 1})).await?;
    let key = text(&init, "/keys_base64/0")?;
    let mut root = text(&init, "/root_token")?;
    ask(core, "sys/unseal", None, json!({"key": key})).await?;
    if let Some(wished) = &dev.root_token_id {
        let body = json!({"id": wished, "policies": ["root"], "no_parent": true, "no_default_policy": true});
        let made = ask(core, "auth/token/create", Some(&root), body).await?;
        ask(core, "auth/token/revoke-self", Some(&root), Value::Null).await?;
        root = text(&made, "/auth/client_token")?;
    }
    let version = match dev.kv {
        DevKv::None => None,
        DevKv::V1 => Some("1"),
        DevKv::V2 => Some("2"),
    };
    if let Some(v) = version {
        let mut options = json!({"version": v});
        if dev.leased_kv {
            options["leased_passthrough"] = "true".into();
        }
        let body = json!({"type": "kv", "description": "key/value secret storage", "options": options});
        ask(core, "sys/mounts/secret", Some(&root), body).await?;
    }
    let stored = if dev.no_store_token { Ok(()) } else { store_token(&root) };
    let scheme = if ca_file.is_some() { "https" } else { "http" };
    let trust = ca_file.map_or(String::new(), |f| format!("\n    $ export VAULT_CACERT='{}'", f.display()));
    println!(
        "WARNING! dev mode is enabled! In this mode, Vault runs entirely in-memory\n\
         and starts unsealed with a single unseal key. The root token is already\n\
         authenticated to the CLI, so you can immediately begin using Vault.\n\n\
         You may need to set the following environment variables:\n\n    \
         $ export VAULT_ADDR='{scheme}://{}'{trust}\n\n\
         The unseal key and root token are displayed below in case you want to\n\
         seal/unseal the Vault or re-authenticate.\n\n\
         Unseal Key: {key}\nRoot Token: {root}\n\n\
         Development mode should NOT be used in production installations!\n",
        dev.listen_address
    );
    if let Err(e) = stored {
        println!("The root token was not stored in ~/.vault-token: {e}\n");
    }
    Ok(())
}

async fn ask(core: &Rc<Core>, path: &str, token: Option<&str>, body: Value) -> Result<Value, String> {
    let data = match body {
        Value::Object(m) => m,
        _ => Map::new(),
    };
    let call = Call {
        id: core.with_rng(|rng| entropy::uuid4(rng)),
        op: Operation::Update,
        path: path.to_owned(),
        namespace: None,
        token: token.map(|t| Secret::new(t.to_owned())),
        no_body: data.is_empty(),
        data: data.into(),
        remote: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        remote_port: 0,
        wrap_ttl: 0,
        wrap_jwt: false,
        headers: Headers::default(),
        raw_body: None,
        peer_certificates: Default::default(),
        mfa: Vec::new(),
    };
    let Reply { code, body, .. } = core.call(call, crate::rt::now()).await;
    let parsed = match &body {
        Body::Json(b) => serde_json::from_slice(b).unwrap_or(Value::Null),
        _ => Value::Null,
    };
    match code {
        Code::Ok | Code::NoContent => Ok(parsed),
        other => Err(format!("{path}: {other:?}: {}", parsed["errors"])),
    }
}

fn text(v: &Value, pointer: &str) -> Result<String, String> {
    v.pointer(pointer).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| format!("no {pointer} in the answer"))
}

fn store_token(token: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let home = std::env::var_os("HOME").ok_or_else(|| std::io::Error::other("HOME is not set"))?;
    let path = std::path::Path::new(&home).join(".vault-token");
    let mut f = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    f.write_all(token.as_bytes())
}
