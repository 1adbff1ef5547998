//! Directories: which issuer and role a path stands for, its URLs, nonces, and the frame of every answer.

use super::ACME;
use super::config::Config;
use crate::authority::Cluster;
use crate::issue;
use crate::role::{self, Role};
use crate::store;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_base::Code;
use ringfence_logical::{Args, Cx, Error, Outcome, Raw, Response};
use serde_json::{Value, json};

/// Seconds that a nonce may be spent in.
const NONCE_SECONDS: u64 = 15 * 60;

/// What the client did wrong, or could not be done (RFC 8555 6.7).
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// After `urn:ietf:params:acme:error:`.
    pub kind: &'static str,
    /// HTTP status.
    pub status: u16,
    /// For people.
    pub detail: String,
}

impl Problem {
    /// A problem.
    pub fn new(kind: &'static str, detail: impl Into<String>) -> Problem {
        let status = match kind {
            "unauthorized" | "orderNotReady" | "userActionRequired" | "rejectedIdentifier" | "caa" => 403,
            "serverInternal" => 500,
            "rateLimited" => 429,
            "accountDoesNotExist" => 400,
            _ => 400,
        };
        Problem { kind, status, detail: detail.into() }
    }

    /// The request makes no sense.
    pub fn malformed(detail: impl Into<String>) -> Problem {
        Problem::new("malformed", detail)
    }

    /// As JSON.
    pub fn shown(&self) -> Value {
        json!({
            "type": format!("urn:ietf:params:acme:error:{}", self.kind),
            "detail": self.detail,
            "status": self.status,
        })
    }
}

impl From<Error> for Problem {
    fn from(e: Error) -> Problem {
        match e.code {
            Code::Invalid => Problem::malformed(e.text()),
            _ => Problem::new("serverInternal", "internal error"),
        }
    }
}

/// An answer without the frame.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Content type and bytes.
    pub body: (&'static str, Vec<u8>),
    /// `Location`, if any.
    pub location: Option<String>,
    /// `Link` beside the index.
    pub link: Option<String>,
    /// Seconds until it is worth asking again.
    pub retry_after: Option<u64>,
}

impl Reply {
    /// JSON.
    pub fn json(status: u16, value: &Value) -> Reply {
        let body = ("application/json", value.to_string().into_bytes());
        Reply { status, body, location: None, link: None, retry_after: None }
    }

    /// With a `Location`.
    pub fn at(mut self, location: String) -> Reply {
        self.location = Some(location);
        self
    }
}

/// A directory.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Path below the mount: `acme`, `roles/web/acme`.
    pub prefix: String,
    /// URL of the prefix.
    pub base: String,
    /// The issuer.
    pub issuer_ref: String,
    /// The role, as ACME uses it.
    pub role: Role,
    /// It is sign-verbatim that the role stands for.
    pub verbatim: bool,
    /// The mount's rules.
    pub config: Config,
}

impl Directory {
    /// The part of a path up to and with `acme`.
    pub fn prefix_of(path: &str, args: &Args) -> String {
        match (args.str("issuer_ref"), args.str("role")) {
            ("", "") => "acme".into(),
            ("", role) => format!("roles/{role}/acme"),
            (issuer, "") => format!("issuer/{issuer}/acme"),
            (issuer, role) if path.starts_with("issuer/") => format!("issuer/{issuer}/roles/{role}/acme"),
            (_, role) => format!("roles/{role}/acme"),
        }
    }

    /// The directory of a request; `None` if ACME is switched off.
    pub fn of(cx: &mut Cx<'_, '_>, args: &Args) -> Result<Option<Result<Directory, Problem>>, Error> {
        let config: Config = store::config(cx, "acme")?;
        let cluster: Cluster = store::config(cx, "cluster")?;
        if !config.enabled || cluster.path.is_empty() {
            return Ok(None);
        }
        Ok(Some(Directory::resolve(cx, args, config, &cluster)))
    }

    fn resolve(cx: &mut Cx<'_, '_>, args: &Args, config: Config, cluster: &Cluster) -> Result<Directory, Problem> {
        let prefix = Directory::prefix_of(&cx.req.path, args);
        let named = args.str("role");
        let by_default = config.default_directory_policy.as_str();
        let (role_name, verbatim) = match (named, by_default) {
            ("", "forbid") => {
                return Err(Problem::new("serverInternal", "default directory not allowed by ACME policy"));
            }
            ("", "sign-verbatim") => ("", true),
            ("", policy) => (policy.strip_prefix("role:").unwrap_or(policy), false),
            (role, _) => (role, false),
        };
        let mut role = match verbatim {
            true => issue::verbatim_role(args, None),
            false => {
                if !config.allowed_roles.iter().any(|r| r == "*" || r == role_name) {
                    return Err(Problem::new(
                        "serverInternal",
                        format!("specified role {role_name} not allowed by ACME policy"),
                    ));
                }
                let mut found = role::load(cx, role_name)?
                    .ok_or_else(|| Problem::malformed(format!("role {role_name} does not exist")))?;
                // an account is nobody's entity, so what a template allows it allows to none
                found.fill_templates(cx)?;
                found
            }
        };
        if role.no_store {
            return Err(Problem::new(
                "serverInternal",
                "role (or default) has no_store set to true, which is incompatible with ACME",
            ));
        }
        role.generate_lease = false;
        role.require_cn = false;
        role.use_csr_common_name = true;
        role.use_csr_sans = true;
        if !config.allow_role_ext_key_usage {
            role.server_flag = true;
            role.client_flag = false;
            role.code_signing_flag = false;
            role.email_protection_flag = false;
            role.ext_key_usage = Vec::new();
            role.ext_key_usage_oids = Vec::new();
        }
        if config.max_ttl > 0 {
            let bound = |ttl: u64| if ttl == 0 { config.max_ttl } else { ttl.min(config.max_ttl) };
            role.max_ttl = bound(role.max_ttl).min(cx.mount.max_ttl);
            role.ttl = if role.ttl == 0 { cx.mount.default_ttl.min(role.max_ttl) } else { bound(role.ttl) };
        }
        let issuer_ref = match args.str("issuer_ref") {
            "" => role.issuer_ref.clone(),
            i => i.to_owned(),
        };
        check_issuer(cx, &config, &issuer_ref)?;
        let base = format!("{}/{prefix}", cluster.path.trim_end_matches('/'));
        Ok(Directory { prefix, base, issuer_ref, role, verbatim, config })
    }

    /// URL of something in the directory.
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }
}

/// Checks that the configuration allows an issuer, by whatever name and from wherever it was chosen: by path, by the
/// role, by default.
fn check_issuer(cx: &mut Cx<'_, '_>, config: &Config, issuer_ref: &str) -> Result<(), Problem> {
    if config.allowed_issuers.iter().any(|a| a == "*") {
        return Ok(());
    }
    let chosen = store::issuer(cx, issuer_ref)?.id;
    for allowed in &config.allowed_issuers {
        // one that was allowed and is gone allows nothing
        if store::issuer(cx, allowed).is_ok_and(|i| i.id == chosen) {
            return Ok(());
        }
    }
    let text = format!("specified issuer {issuer_ref} not allowed by ACME policy");
    Err(Problem::new("serverInternal", text))
}

/// A nonce: time, randomness, and a hash that only this cluster makes.
pub fn fresh_nonce(cx: &mut Cx<'_, '_>) -> String {
    let mut bytes = cx.now.seconds().to_be_bytes().to_vec();
    let mut drawn = [0; 8];
    cx.rng.fill(&mut drawn);
    bytes.extend_from_slice(&drawn);
    let hash = cx.host.keyed_hash("acme nonce", &[&cx.mount.id.0.to_be_bytes()[..], &bytes].concat());
    bytes.extend_from_slice(&hash);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Spends a nonce.
pub fn spend_nonce(cx: &mut Cx<'_, '_>, nonce: &str) -> Result<(), Problem> {
    let bad = || Problem::new("badNonce", "The client sent an unacceptable anti-replay nonce");
    let bytes = URL_SAFE_NO_PAD.decode(nonce).map_err(|_| bad())?;
    if bytes.len() != 32 {
        return Err(bad());
    }
    let hash = cx.host.keyed_hash("acme nonce", &[&cx.mount.id.0.to_be_bytes()[..], &bytes[..16]].concat());
    let issued = u64::from_be_bytes(bytes[..8].try_into().map_err(|_| bad())?);
    let now = cx.now.seconds();
    if !ringfence_base::secret::same_bytes(&hash, &bytes[16..]) || issued + NONCE_SECONDS < now {
        return Err(bad());
    }
    let suffix = format!("used/{issued:016x}/{nonce}");
    if cx.exists(ACME, suffix.as_bytes()) {
        return Err(bad());
    }
    cx.put(ACME, suffix.as_bytes(), &[]);
    // what would be refused for its age need not be remembered: two go for each that comes
    for old in cx.scan_keys(ACME, "used/", "", 2)? {
        if u64::from_str_radix(old.split('/').next().unwrap_or(""), 16).is_ok_and(|t| t + NONCE_SECONDS < now) {
            cx.delete(ACME, format!("used/{old}").as_bytes());
        }
    }
    Ok(())
}

/// No ACME here: 404 without a body.
pub fn absent() -> Outcome {
    Response { raw: Some(Raw::default()), code: Some(Code::NotFound), ..Response::default() }.done()
}

/// Puts the frame round an answer: a nonce, the link to the directory.
pub fn framed(cx: &mut Cx<'_, '_>, directory: Option<&Directory>, result: Result<Reply, Problem>) -> Outcome {
    let reply = match result {
        Ok(r) => r,
        Err(p) => Reply {
            body: ("application/problem+json", p.shown().to_string().into_bytes()),
            ..Reply::json(p.status, &Value::Null)
        },
    };
    let mut headers = vec![("Replay-Nonce".to_owned(), fresh_nonce(cx)), ("Cache-Control".into(), "no-store".into())];
    if let Some(d) = directory {
        headers.push(("Link".into(), format!("<{}>;rel=\"index\"", d.url("directory"))));
    }
    if let Some(l) = reply.link {
        headers.push(("Link".into(), l));
    }
    if let Some(seconds) = reply.retry_after {
        headers.push(("Retry-After".into(), seconds.to_string()));
    }
    if let Some(l) = reply.location {
        headers.push(("Location".into(), l));
    }
    let code = match reply.status {
        200 => Code::Ok,
        204 => Code::NoContent,
        n => Code::Custom(n),
    };
    let raw = Raw { content_type: reply.body.0.into(), body: reply.body.1, headers };
    Response { raw: Some(raw), code: Some(code), ..Response::default() }.done()
}

/// `directory`.
pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(d) = Directory::of(cx, args)? else { return absent() };
    let result = d.map(|d| {
        let mut shown = json!({
            "newNonce": d.url("new-nonce"),
            "newAccount": d.url("new-account"),
            "newOrder": d.url("new-order"),
            "revokeCert": d.url("revoke-cert"),
            "keyChange": d.url("key-change"),
        });
        shown["meta"] = json!({"externalAccountRequired": d.config.eab_policy != "not-required"});
        Reply::json(200, &shown)
    });
    framed(cx, None, result)
}

/// `new-nonce`.
pub fn nonce(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(d) = Directory::of(cx, args)? else { return absent() };
    // HEAD and GET alike: a body would only be thrown away
    let result = d.map(|d| (Reply { body: ("", Vec::new()), ..Reply::json(200, &Value::Null) }, d));
    match result {
        Ok((reply, d)) => framed(cx, Some(&d), Ok(reply)),
        Err(p) => framed(cx, None, Err(p)),
    }
}
