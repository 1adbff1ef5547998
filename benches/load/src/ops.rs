//! The operations: what each asks of the server, and of which parts of the setup.
//!
//! An operation that consumes (unwrap, revoke, renew of a lease) takes what this worker made before. Where nothing is
//! left, the operation that makes it is sent instead and counted under its own name, so a mix feeds itself.

use crate::call::{Call, Take};
use crate::keys::Keys;
use crate::settings::World;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

macro_rules! ops {
    ($($op:ident $name:literal $what:literal,)*) => {
        /// An operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Op { $(#[doc = $what] #[serde(rename = $name)] $op,)* }

        impl Op {
            /// All of them, in the order of the reports.
            pub const ALL: &'static [Op] = &[$(Op::$op,)*];

            /// As the command line and the reports name it.
            pub fn name(self) -> &'static str {
                match self { $(Op::$op => $name,)* }
            }

            /// What it does, for people.
            pub fn what(self) -> &'static str {
                match self { $(Op::$op => $what,)* }
            }
        }
    };
}

ops! {
    Health "health" "Reads sys/health without a token.",
    Kv1Read "kv1-read" "Reads a secret of KV version 1.",
    Kv1Write "kv1-write" "Writes a secret of KV version 1.",
    Kv1List "kv1-list" "Lists a folder of KV version 1.",
    Kv2Read "kv2-read" "Reads the newest version of a KV version 2 secret.",
    Kv2Write "kv2-write" "Writes a version of a KV version 2 secret.",
    Kv2List "kv2-list" "Lists a folder of KV version 2.",
    ApproleLogin "approle-login" "Logs in with a role id and a secret id.",
    UserpassLogin "userpass-login" "Logs in with a name and a password.",
    JwtLogin "jwt-login" "Logs in with a token signed by ES256.",
    TokenCreate "token-create" "Makes a token, which token-revoke takes.",
    TokenRenew "token-renew" "Renews a token of the pool by itself.",
    TokenRevoke "token-revoke" "Revokes a token made by token-create, by itself.",
    TokenLookup "token-lookup" "Looks a token of the pool up by itself.",
    Wrap "wrap" "Wraps a value, which unwrap takes.",
    Unwrap "unwrap" "Opens a wrapping token made by wrap.",
    LeaseCreate "lease-create" "Reads a path that yields a lease.",
    LeaseRenew "lease-renew" "Renews a lease made by lease-create or by the setup.",
    LeaseLookup "lease-lookup" "Looks such a lease up.",
    LeaseList "lease-list" "Lists the leases of one prefix.",
    LeaseRevokePrefix "lease-revoke-prefix" "Revokes all leases of one prefix.",
    AclRead "acl-read" "Reads KV version 2 with tokens of many policies and rules.",
    CubbyholeWrite "cubbyhole-write" "Writes into a token's cubbyhole.",
    CubbyholeRead "cubbyhole-read" "Reads what the setup wrote there.",
    NamespaceRead "namespace-read" "Reads KV version 2 in one of many namespaces.",
}

impl Op {
    /// By its name.
    pub fn named(name: &str) -> Option<Op> {
        Op::ALL.iter().copied().find(|op| op.name() == name)
    }

    /// Its place in [`Op::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether a status is what it asks for.
    pub fn is_ok(self, status: u16) -> bool {
        // a standby that could serve answers its health with 429
        (200..300).contains(&status) || (self == Op::Health && status == 429)
    }
}

/// What the setup made; the same for all workers.
#[derive(Clone)]
pub struct Stage {
    /// Sizes and names.
    pub world: World,
    /// Which key comes next.
    pub keys: Keys,
    /// The token the setup was done with.
    pub root: Arc<str>,
    /// Tokens of the policy that allows the load.
    pub tokens: Vec<Arc<str>>,
    /// Service tokens that renew, look up and hold cubbyholes.
    pub lasting: Vec<Arc<str>>,
    /// Tokens of many policies.
    pub acl_tokens: Vec<Arc<str>>,
    /// Role ids and secret ids.
    pub roles: Vec<(String, String)>,
    /// A signed token for the JWT login.
    pub jwt: String,
    /// Leases that are there.
    pub leases: Vec<Arc<str>>,
    /// Namespaces.
    pub namespaces: Vec<Arc<str>>,
    /// Whether the mix revokes prefixes, so that a lease a worker made may be gone at any time.
    pub revokes: bool,
    /// A value of the wanted size.
    pub value: String,
}

/// What one worker has made and not yet consumed.
#[derive(Default)]
pub struct Pools {
    /// Of token-create.
    pub tokens: VecDeque<Arc<str>>,
    /// Of wrap.
    pub wrapped: VecDeque<Arc<str>>,
    /// Of lease-create.
    pub leases: VecDeque<Arc<str>>,
}

/// A worker keeps no more of a kind; the oldest go.
const POOL_MAX: usize = 100_000;

impl Pools {
    /// Keeps what an answer yielded.
    pub fn keep(&mut self, take: Take, body: &[u8]) {
        let Ok(v) = serde_json::from_slice::<serde_json::Value>(body) else { return };
        let (found, pool) = match take {
            Take::Nothing => return,
            Take::Token => (&v["auth"]["client_token"], &mut self.tokens),
            Take::Wrapped => (&v["wrap_info"]["token"], &mut self.wrapped),
            Take::Lease => (&v["lease_id"], &mut self.leases),
        };
        if let Some(text) = found.as_str().filter(|t| !t.is_empty()) {
            if pool.len() >= POOL_MAX {
                pool.pop_front();
            }
            pool.push_back(text.into());
        }
    }
}

fn one_of<'a, T>(all: &'a [T], rng: &mut fastrand::Rng) -> Option<&'a T> {
    (!all.is_empty()).then(|| &all[rng.usize(..all.len())])
}

impl Stage {
    /// Appends the path of a key below its mount.
    pub fn key(&self, n: usize, out: &mut String) {
        // writing into a string cannot fail
        let _ = write!(out, "f{}/k{n}", n % self.world.folders.max(1));
    }

    /// Name of a mount of the setup.
    pub fn mount(&self, kind: &str) -> String {
        format!("{}-{kind}", self.world.prefix)
    }

    fn path(&self, call: &mut Call, kind: &str, rest: &str) {
        for part in [&self.world.prefix, "-", kind, "/", rest] {
            call.path.push_str(part);
        }
    }

    fn body(&self, call: &mut Call, before: &str, after: &str) {
        for part in [before, self.value.as_str(), after] {
            call.body.extend_from_slice(part.as_bytes());
        }
    }

    /// Path of a read that yields a lease.
    pub fn lease_path(&self, owner: usize) -> String {
        match &self.world.lease_path {
            Some(path) => path.clone(),
            None => format!("{}-leased/o{owner}", self.world.prefix),
        }
    }

    /// Makes the request of an operation; answers which one it became.
    pub fn make(&self, op: Op, rng: &mut fastrand::Rng, pools: &mut Pools, call: &mut Call) -> Op {
        match op {
            Op::Health => {
                call.begin("GET");
                call.path.push_str("sys/health");
            }
            Op::Kv1Read | Op::Kv1Write | Op::Kv2Read | Op::Kv2Write | Op::AclRead | Op::NamespaceRead => {
                let writes = matches!(op, Op::Kv1Write | Op::Kv2Write);
                call.begin(if writes { "POST" } else { "GET" });
                let (kind, rest) = match op {
                    Op::Kv1Read | Op::Kv1Write => ("kv1", ""),
                    _ => ("kv2", "data/"),
                };
                self.path(call, kind, rest);
                self.key(self.keys.draw(rng), &mut call.path);
                match op {
                    Op::Kv1Write => self.body(call, "{\"value\":\"", "\"}"),
                    Op::Kv2Write => self.body(call, "{\"data\":{\"value\":\"", "\"}}"),
                    _ => {}
                }
                match op {
                    Op::AclRead => call.token = one_of(&self.acl_tokens, rng).cloned(),
                    Op::NamespaceRead => {
                        call.token = Some(self.root.clone());
                        call.namespace = one_of(&self.namespaces, rng).cloned();
                    }
                    _ => call.token = one_of(&self.tokens, rng).cloned(),
                }
            }
            Op::Kv1List | Op::Kv2List => {
                call.begin("GET");
                self.path(call, if op == Op::Kv1List { "kv1" } else { "kv2" }, "");
                let folder = rng.usize(..self.world.folders.max(1));
                let metadata = if op == Op::Kv2List { "metadata/" } else { "" };
                let _ = write!(call.path, "{metadata}f{folder}?list=true");
                call.token = one_of(&self.tokens, rng).cloned();
            }
            Op::ApproleLogin | Op::UserpassLogin | Op::JwtLogin => self.login(op, rng, call),
            Op::TokenCreate => {
                call.begin("POST");
                call.path.push_str("auth/token/create");
                call.token = Some(self.root.clone());
                let (policy, kind) = (self.mount("allow"), self.world.token_type.name());
                let _ = std::io::Write::write_fmt(
                    &mut call.body,
                    format_args!("{{\"policies\":[\"{policy}\"],\"type\":\"{kind}\",\"ttl\":\"10m\"}}"),
                );
                call.take = Take::Token;
            }
            Op::TokenRevoke => {
                let Some(token) = pools.tokens.pop_front() else {
                    return self.make(Op::TokenCreate, rng, pools, call);
                };
                call.begin("POST");
                call.path.push_str("auth/token/revoke-self");
                call.token = Some(token);
            }
            Op::TokenRenew => {
                call.begin("POST");
                call.path.push_str("auth/token/renew-self");
                call.token = one_of(&self.lasting, rng).cloned();
            }
            Op::TokenLookup => {
                call.begin("GET");
                call.path.push_str("auth/token/lookup-self");
                call.token = one_of(&self.lasting, rng).cloned();
            }
            Op::Wrap => {
                call.begin("POST");
                call.path.push_str("sys/wrapping/wrap");
                self.body(call, "{\"value\":\"", "\"}");
                call.token = one_of(&self.tokens, rng).cloned();
                (call.wrap, call.take) = (true, Take::Wrapped);
            }
            Op::Unwrap => {
                let Some(token) = pools.wrapped.pop_front() else {
                    return self.make(Op::Wrap, rng, pools, call);
                };
                call.begin("POST");
                call.path.push_str("sys/wrapping/unwrap");
                call.token = Some(token);
            }
            Op::CubbyholeWrite | Op::CubbyholeRead => {
                call.begin(if op == Op::CubbyholeWrite { "POST" } else { "GET" });
                call.path.push_str("cubbyhole/load");
                if op == Op::CubbyholeWrite {
                    self.body(call, "{\"value\":\"", "\"}");
                }
                call.token = one_of(&self.lasting, rng).cloned();
            }
            Op::LeaseCreate | Op::LeaseRenew | Op::LeaseLookup | Op::LeaseList | Op::LeaseRevokePrefix => {
                return self.lease(op, rng, pools, call);
            }
        }
        op
    }

    fn login(&self, op: Op, rng: &mut fastrand::Rng, call: &mut Call) {
        call.begin("POST");
        call.path.push_str("auth/");
        let mut body = String::new();
        match op {
            Op::UserpassLogin => {
                self.path(call, "userpass", "login/u");
                let _ = write!(call.path, "{}", rng.usize(..self.world.owners.max(1)));
                body.push_str("{\"password\":\"load-password\"}");
            }
            Op::JwtLogin => {
                self.path(call, "jwt", "login");
                let _ = write!(body, "{{\"role\":\"load\",\"jwt\":\"{}\"}}", self.jwt);
            }
            _ => {
                self.path(call, "approle", "login");
                if let Some((role, secret)) = one_of(&self.roles, rng) {
                    let _ = write!(body, "{{\"role_id\":\"{role}\",\"secret_id\":\"{secret}\"}}");
                }
            }
        }
        call.body.extend_from_slice(body.as_bytes());
    }

    fn lease(&self, op: Op, rng: &mut fastrand::Rng, pools: &mut Pools, call: &mut Call) -> Op {
        let owner = rng.usize(..self.world.owners.max(1));
        if self.revokes && self.leases.is_empty() && matches!(op, Op::LeaseRenew | Op::LeaseLookup) {
            return self.lease(Op::LeaseCreate, rng, pools, call);
        }
        match op {
            Op::LeaseRenew | Op::LeaseLookup => {
                // a worker's own leases first; those of the setup are there for ever
                let own = if self.revokes { None } else { pools.leases.pop_front() };
                let Some(lease) = own.clone().or_else(|| one_of(&self.leases, rng).cloned()) else {
                    return self.lease(Op::LeaseCreate, rng, pools, call);
                };
                if let Some(own) = own {
                    pools.leases.push_back(own);
                }
                call.begin("POST");
                call.path.push_str(if op == Op::LeaseRenew { "sys/leases/renew" } else { "sys/leases/lookup" });
                for part in ["{\"lease_id\":\"", &lease, "\"}"] {
                    call.body.extend_from_slice(part.as_bytes());
                }
            }
            Op::LeaseList => {
                call.begin("GET");
                call.path.push_str("sys/leases/lookup/");
                // of the setup, which no revocation takes away
                call.path.push_str(&self.kept_path(owner));
                call.path.push_str("?list=true");
            }
            Op::LeaseRevokePrefix => {
                let path = self.lease_path(owner);
                call.begin("POST");
                call.path.push_str("sys/leases/revoke-prefix/");
                call.path.push_str(&path);
            }
            _ => {
                call.begin("GET");
                call.path.push_str(&self.lease_path(owner));
                call.take = if self.revokes { Take::Nothing } else { Take::Lease };
            }
        }
        call.token = Some(self.root.clone());
        op
    }

    /// Path whose leases stay.
    pub fn kept_path(&self, owner: usize) -> String {
        match &self.world.lease_path {
            Some(path) => path.clone(),
            None => format!("{}-leased/kept{owner}", self.world.prefix),
        }
    }
}
