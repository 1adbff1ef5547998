//! Makes by the API what the operations of a mix need, and takes it away afterwards. Only what the mix asks for is made,
//! so a server without namespaces or JWT is loaded by everything else.

use crate::call::Call;
use crate::client::Client;
use crate::keys::Keys;
use crate::ops::{Op, Stage};
use crate::settings::{Settings, TokenType};
use crate::target::Target;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Connections that fill the server at once.
const FILLERS: usize = 8;

/// What the setup begins with: sizes and choices, nothing made.
pub fn blank(root: &str, settings: &Settings) -> Stage {
    let world = &settings.world;
    Stage {
        world: world.clone(),
        keys: match world.zipf {
            Some(exponent) => Keys::zipf(world.keys, exponent),
            None => Keys::uniform(world.keys),
        },
        root: root.into(),
        tokens: Vec::new(),
        lasting: Vec::new(),
        acl_tokens: Vec::new(),
        roles: Vec::new(),
        jwt: String::new(),
        leases: Vec::new(),
        namespaces: Vec::new(),
        revokes: settings.mix.iter().any(|(op, _)| *op == Op::LeaseRevokePrefix),
        value: "v".repeat(world.value_bytes),
    }
}

/// Makes what the mix needs and puts it into the stage. After a failure the stage tells how far it came.
pub fn make(target: &Target, stage: &mut Stage, settings: &Settings) -> Result<(), String> {
    let world = &settings.world;
    let wants = |ops: &[Op]| settings.mix.iter().any(|(op, _)| ops.contains(op));
    let root = stage.root.clone();
    if settings.mix.iter().all(|(op, _)| *op == Op::Health) {
        return Ok(());
    }
    let mut maker = Maker { target, root: &root, client: Client::new(target, &root) };
    maker.allow(stage)?;
    if wants(&[Op::Kv1Read, Op::Kv1Write, Op::Kv1List]) {
        maker.mount(stage, None, "kv1", json!({"type": "kv", "options": {"version": "1"}}))?;
        maker.fill(stage, "kv1", None, world.keys)?;
    }
    if wants(&[Op::Kv2Read, Op::Kv2Write, Op::Kv2List, Op::AclRead]) {
        maker.mount(stage, None, "kv2", json!({"type": "kv", "options": {"version": "2"}}))?;
        maker.fill(stage, "kv2", None, world.keys)?;
    }
    if wants(&[Op::Kv1Read, Op::Kv1Write, Op::Kv1List, Op::Kv2Read, Op::Kv2Write, Op::Kv2List, Op::Wrap, Op::Unwrap])
    {
        stage.tokens = maker.tokens(&[stage.mount("allow")], world.token_type, world.tokens)?;
    }
    if wants(&[Op::TokenRenew, Op::TokenLookup, Op::CubbyholeRead, Op::CubbyholeWrite]) {
        stage.lasting = maker.tokens(&[stage.mount("allow")], TokenType::Service, world.tokens)?;
        if wants(&[Op::CubbyholeRead]) {
            maker.cubbyholes(stage)?;
        }
    }
    if wants(&[Op::AclRead]) {
        let policies = maker.heavy_policies(stage)?;
        stage.acl_tokens = maker.tokens(&policies, world.token_type, world.tokens)?;
    }
    if wants(&[Op::ApproleLogin]) {
        maker.approle(stage)?;
    }
    if wants(&[Op::UserpassLogin]) {
        maker.userpass(stage)?;
    }
    if wants(&[Op::JwtLogin]) {
        maker.jwt(stage)?;
    }
    if wants(&[Op::NamespaceRead]) {
        maker.namespaces(stage)?;
    }
    if wants(&[Op::LeaseCreate, Op::LeaseRenew, Op::LeaseLookup, Op::LeaseList, Op::LeaseRevokePrefix]) {
        let touches = wants(&[Op::LeaseRenew, Op::LeaseLookup, Op::LeaseList]);
        if world.lease_path.is_some() && stage.revokes && touches {
            return Err(
                "with --lease-path one prefix holds all leases: lease-revoke-prefix goes with lease-create only"
                    .into(),
            );
        }
        maker.leases(stage)?;
    }
    Ok(())
}

/// Takes away what [`make`] made. What is not there is no error.
pub fn unmake(target: &Target, stage: &Stage) -> Result<(), String> {
    if stage.root.is_empty() {
        // nothing can have been made
        return Ok(());
    }
    let mut client = Client::new(target, &stage.root);
    for (kind, at) in [
        ("kv1", "sys/mounts"),
        ("kv2", "sys/mounts"),
        ("leased", "sys/mounts"),
        ("approle", "sys/auth"),
        ("userpass", "sys/auth"),
        ("jwt", "sys/auth"),
    ] {
        client.send(Call::of("DELETE", format!("{at}/{}", stage.mount(kind)), None))?;
    }
    for n in stage.namespaces.iter() {
        let mut call = Call::of("DELETE", format!("sys/mounts/{}", stage.mount("kv2")), None);
        call.namespace = Some(n.clone());
        client.send(call)?;
        client.send(Call::of("DELETE", format!("sys/namespaces/{n}"), None))?;
    }
    for token in stage.tokens.iter().chain(&stage.lasting).chain(&stage.acl_tokens) {
        // batch tokens end by themselves
        client.send(Call::of("POST", "auth/token/revoke", Some(&json!({"token": &**token}))))?;
    }
    let heavy = if stage.acl_tokens.is_empty() { 0 } else { stage.world.policies };
    for name in (0..heavy).map(|p| stage.mount(&format!("heavy{p}"))).chain([stage.mount("allow")]) {
        client.send(Call::of("DELETE", format!("sys/policies/acl/{name}"), None))?;
    }
    Ok(())
}

struct Maker<'t> {
    target: &'t Target,
    root: &'t str,
    client: Client,
}

impl Maker<'_> {
    /// The policy of the tokens that load.
    fn allow(&mut self, stage: &Stage) -> Result<(), String> {
        let prefix = &stage.world.prefix;
        let text = format!(
            "path \"{prefix}-kv1/*\" {{ capabilities = [\"create\", \"read\", \"update\", \"list\"] }}\n\
             path \"{prefix}-kv2/*\" {{ capabilities = [\"create\", \"read\", \"update\", \"list\"] }}\n\
             path \"sys/wrapping/*\" {{ capabilities = [\"create\", \"update\"] }}\n\
             path \"auth/token/*\" {{ capabilities = [\"create\", \"read\", \"update\"] }}\n\
             path \"cubbyhole/*\" {{ capabilities = [\"create\", \"read\", \"update\"] }}\n"
        );
        self.policy(&stage.mount("allow"), &text)
    }

    fn policy(&mut self, name: &str, text: &str) -> Result<(), String> {
        self.client.post(&format!("sys/policies/acl/{name}"), &json!({"policy": text})).map(drop)
    }

    /// Mounts, or goes on where an earlier run left the mount.
    fn mount(&mut self, stage: &Stage, namespace: Option<&Arc<str>>, kind: &str, body: Value) -> Result<(), String> {
        let mut call = Call::of("POST", format!("sys/mounts/{}", stage.mount(kind)), Some(&body));
        call.namespace = namespace.cloned();
        self.unless_in_use(call)
    }

    fn auth(&mut self, stage: &Stage, kind: &str) -> Result<(), String> {
        let call = Call::of("POST", format!("sys/auth/{}", stage.mount(kind)), Some(&json!({"type": kind})));
        self.unless_in_use(call)
    }

    fn unless_in_use(&mut self, call: Call) -> Result<(), String> {
        let what = format!("{} {}", call.method, call.path);
        let answer = self.client.send(call)?;
        let text = answer.body.to_string();
        match answer.status {
            200..=299 => Ok(()),
            400 if text.contains("already in use") || text.contains("already exists") => Ok(()),
            status => Err(format!("{what}: status {status}: {text}")),
        }
    }

    /// Sends many requests over a few connections at once.
    fn spread<T: Send>(
        &self,
        count: usize,
        each: impl Fn(&mut Client, usize) -> Result<T, String> + Sync,
    ) -> Result<Vec<T>, String> {
        let next = AtomicUsize::new(0);
        let fill = || -> Result<Vec<T>, String> {
            let mut client = Client::new(self.target, self.root);
            let mut made = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return Ok(made);
                }
                made.push(each(&mut client, n)?);
            }
        };
        std::thread::scope(|scope| {
            let fillers: Vec<_> = (0..FILLERS.min(count)).map(|_| scope.spawn(fill)).collect();
            let mut all = Vec::with_capacity(count);
            for filler in fillers {
                all.extend(filler.join().map_err(|_| "a thread of the setup broke".to_owned())??);
            }
            Ok(all)
        })
    }

    fn fill(&self, stage: &Stage, kind: &str, namespace: Option<&Arc<str>>, count: usize) -> Result<(), String> {
        let value = json!({"value": stage.value});
        let (infix, body) = if kind == "kv2" { ("data/", json!({"data": value})) } else { ("", value) };
        self.spread(count, |client, n| {
            let mut path = format!("{}/{infix}", stage.mount(kind));
            stage.key(n, &mut path);
            let mut call = Call::of("POST", path, Some(&body));
            call.namespace = namespace.cloned();
            // a mount that was just made or upgraded may refuse for a moment
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            loop {
                let answer = client.send(call.clone())?;
                let upgrading = answer.status == 400 && answer.body.to_string().contains("pgrad");
                match answer.status {
                    200..=299 => return Ok(()),
                    _ if upgrading && std::time::Instant::now() < deadline => {
                        std::thread::sleep(std::time::Duration::from_millis(50));
                    }
                    status => return Err(format!("POST {}: status {status}: {}", call.path, answer.body)),
                }
            }
        })?;
        Ok(())
    }

    fn tokens(&self, policies: &[String], kind: TokenType, count: usize) -> Result<Vec<Arc<str>>, String> {
        let body =
            json!({"policies": policies, "type": kind.name(), "ttl": "12h", "no_parent": kind == TokenType::Service});
        self.spread(count.max(1), |client, _| {
            let answer = client.post("auth/token/create", &body)?;
            let token = answer["auth"]["client_token"].as_str().map(Arc::from);
            token.ok_or_else(|| format!("auth/token/create: no token in {answer}"))
        })
    }

    fn cubbyholes(&self, stage: &Stage) -> Result<(), String> {
        self.spread(stage.lasting.len(), |client, n| {
            let mut call = Call::of("POST", "cubbyhole/load", Some(&json!({"value": stage.value})));
            call.token = Some(stage.lasting[n].clone());
            client.demand(call).map(drop)
        })?;
        Ok(())
    }

    /// Many rules that do not match, among them those that do.
    fn heavy_policies(&mut self, stage: &Stage) -> Result<Vec<String>, String> {
        let kv2 = stage.mount("kv2");
        (0..stage.world.policies.max(1))
            .map(|p| {
                let mut text = format!("path \"{kv2}/data/+/k*\" {{ capabilities = [\"read\"] }}\n");
                for r in 0..stage.world.rules {
                    let shape = match r % 3 {
                        0 => format!("{kv2}/data/p{p}/r{r}/*"),
                        1 => format!("{kv2}/data/+/p{p}/r{r}"),
                        _ => format!("{kv2}/data/p{p}/r{r}/exact"),
                    };
                    text.push_str(&format!("path \"{shape}\" {{ capabilities = [\"read\", \"list\"] }}\n"));
                }
                let name = stage.mount(&format!("heavy{p}"));
                self.policy(&name, &text).map(|()| name)
            })
            .collect()
    }

    fn approle(&mut self, stage: &mut Stage) -> Result<(), String> {
        self.auth(stage, "approle")?;
        let (mount, policy) = (stage.mount("approle"), stage.mount("allow"));
        let kind = stage.world.token_type.name();
        let body = json!({"token_policies": [policy], "token_type": kind, "token_ttl": "10m"});
        let text =
            |v: &Value, key: &str| v["data"][key].as_str().map(str::to_owned).ok_or(format!("no {key} in {v}"));
        stage.roles = self.spread(stage.world.owners.max(1), |client, n| {
            let role = format!("auth/{mount}/role/r{n}");
            client.post(&role, &body)?;
            let role_id = text(&client.get(&format!("{role}/role-id"))?, "role_id")?;
            let secret_id = text(&client.post(&format!("{role}/secret-id"), &json!({}))?, "secret_id")?;
            Ok((role_id, secret_id))
        })?;
        Ok(())
    }

    fn userpass(&mut self, stage: &Stage) -> Result<(), String> {
        self.auth(stage, "userpass")?;
        let (mount, policy) = (stage.mount("userpass"), stage.mount("allow"));
        let kind = stage.world.token_type.name();
        let body = json!({
            "password": "load-password", "token_policies": [policy], "token_type": kind, "token_ttl": "10m"
        });
        self.spread(stage.world.owners.max(1), |client, n| {
            client.post(&format!("auth/{mount}/users/u{n}"), &body).map(drop)
        })?;
        Ok(())
    }

    fn jwt(&mut self, stage: &mut Stage) -> Result<(), String> {
        self.auth(stage, "jwt")?;
        let (mount, policy) = (stage.mount("jwt"), stage.mount("allow"));
        let (jwt, key) = signed()?;
        self.client.post(&format!("auth/{mount}/config"), &json!({"jwt_validation_pubkeys": [key]}))?;
        let role = json!({
            "role_type": "jwt", "bound_audiences": ["load"], "user_claim": "sub", "token_policies": [policy],
            "token_type": stage.world.token_type.name(), "token_ttl": "10m"
        });
        self.client.post(&format!("auth/{mount}/role/load"), &role)?;
        stage.jwt = jwt;
        Ok(())
    }

    fn namespaces(&mut self, stage: &mut Stage) -> Result<(), String> {
        for n in 0..stage.world.namespaces.max(1) {
            let name: Arc<str> = stage.mount(&format!("ns{n}")).into();
            self.unless_in_use(Call::of("POST", format!("sys/namespaces/{name}"), Some(&json!({}))))?;
            self.mount(stage, Some(&name), "kv2", json!({"type": "kv", "options": {"version": "2"}}))?;
            self.fill(stage, "kv2", Some(&name), stage.world.keys)?;
            stage.namespaces.push(name);
        }
        Ok(())
    }

    /// A key-value mount whose reads yield leases, one secret an owner, and leases that stay.
    fn leases(&mut self, stage: &mut Stage) -> Result<(), String> {
        if stage.world.lease_path.is_none() {
            let options = json!({"version": "1", "leased_passthrough": "true"});
            self.mount(stage, None, "leased", json!({"type": "kv", "options": options}))?;
            for owner in 0..stage.world.owners.max(1) {
                for path in [stage.lease_path(owner), stage.kept_path(owner)] {
                    self.client.post(&path, &json!({"value": stage.value, "ttl": "12h"}))?;
                }
            }
        }
        let owners = stage.world.owners.max(1);
        let made = self.spread(stage.world.leases.max(1), |client, n| {
            let path = stage.kept_path(n % owners);
            let answer = client.get(&path)?;
            let lease = answer["lease_id"].as_str().filter(|l| !l.is_empty()).map(Arc::from);
            lease.ok_or_else(|| format!("GET {path}: yields no lease; --lease-path names a path that does"))
        })?;
        stage.leases = made;
        Ok(())
    }
}

/// A token signed by a fresh key, and the key in PEM.
fn signed() -> Result<(String, String), String> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|e| e.to_string())?;
    let der = key.public_key().as_der().map_err(|e| e.to_string())?;
    let plain = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{plain}\n-----END PUBLIC KEY-----\n");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let claims = json!({"sub": "load", "aud": "load", "iat": now, "nbf": now - 60, "exp": now + 24 * 3600});
    let url = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let head = url.encode(json!({"alg": "ES256", "typ": "JWT"}).to_string());
    let text = format!("{head}.{}", url.encode(claims.to_string()));
    let rng = aws_lc_rs::rand::SystemRandom::new();
    let signature = key.sign(&rng, text.as_bytes()).map_err(|e| e.to_string())?;
    Ok((format!("{text}.{}", url.encode(signature.as_ref())), pem))
}
