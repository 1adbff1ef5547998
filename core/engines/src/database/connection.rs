//! Connections: what is kept of them, the paths that change them, and the targets they make.

use super::dsn;
use super::plugin::{self, Plugin};
use super::template::{self, Template};
use super::{CONNECTIONS, server_fault, statement};
use crate::page;
use ringfence_base::{Code, Secret};
use ringfence_logical::args::seconds_of;
use ringfence_logical::{
    Args, Cx, Error, Map, Outcome, Response, SideOp, SideResult, SqlAsk, SqlTarget, SqlTls, Step, nothing,
};
use ringfence_policy::password::PasswordPolicy;
use serde_json::{Value, json};

/// What a request may wait for a server.
const TIMEOUT_MS: u32 = 15_000;
/// Connections of a pool, whatever the configuration says.
const MAX_OPEN: i64 = 256;

/// A connection.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Connection {
    pub plugin_name: String,
    pub plugin_version: String,
    pub verify_connection: bool,
    pub allowed_roles: Vec<String>,
    pub root_rotation_statements: Vec<String>,
    pub password_policy: String,
    /// Everything that is the plugin's, as it was given.
    pub details: Map,
    /// Drawn anew when anything changes: pools of another generation are dropped.
    pub generation: u64,
    /// The next password of the connection's own account, while it is not known which of the two holds.
    #[serde(default)]
    pub pending_password: Option<String>,
}

/// Fields that are the engine's own; all others are the plugin's.
const OWN: &[&str] = &[
    "name",
    "plugin_name",
    "plugin_version",
    "verify_connection",
    "allowed_roles",
    "root_rotation_statements",
    "password_policy",
    "skip_static_role_import_rotation",
];

/// Details that a read does not show.
const HIDDEN: &[&str] = &["password", "private_key", "tls_certificate_key", "service_account_json"];

pub fn load(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Connection>, Error> {
    cx.get_json(CONNECTIONS, name.as_bytes())
}

/// The connection that something refers to.
pub fn need(cx: &mut Cx<'_, '_>, name: &str) -> Result<(Connection, &'static Plugin), Error> {
    let c = load(cx, name)?
        .ok_or_else(|| Error::plain(&format!("failed to find entry for connection with name: {name:?}")))?;
    let plugin = c.plugin()?;
    Ok((c, plugin))
}

pub fn save(cx: &mut Cx<'_, '_>, name: &str, connection: &Connection) {
    cx.put_json(CONNECTIONS, name.as_bytes(), connection);
}

impl Connection {
    /// Its plugin.
    pub fn plugin(&self) -> Result<&'static Plugin, Error> {
        plugin::find(&self.plugin_name).ok_or_else(|| {
            let name = &self.plugin_name;
            Error::invalid(format!(
                "error creating database object: unable to find plugin {name:?}: plugin not found in the catalog"
            ))
        })
    }

    fn detail(&self, name: &str) -> &str {
        self.details.get(name).and_then(Value::as_str).unwrap_or("")
    }

    fn flag(&self, name: &str) -> bool {
        match self.details.get(name) {
            Some(Value::Bool(b)) => *b,
            Some(Value::String(s)) => ringfence_logical::args::parse_bool(s).unwrap_or(false),
            _ => false,
        }
    }

    fn number(&self, name: &str) -> i64 {
        match self.details.get(name) {
            Some(Value::Number(n)) => n.as_i64().unwrap_or(0),
            Some(Value::String(s)) => s.parse().unwrap_or(0),
            _ => 0,
        }
    }

    /// Name of the connection's own account; empty = none.
    pub fn username(&self) -> &str {
        self.detail("username")
    }

    /// Its password; empty = none.
    pub fn password(&self) -> &str {
        self.detail("password")
    }

    /// What errors of its server must not repeat: its password, and those that stand in the URL.
    pub fn secrets(&self) -> Vec<&str> {
        let mut all = dsn::passwords(self.detail("connection_url"));
        all.push(self.password());
        all
    }

    /// Passwords go to the server as SCRAM verifiers.
    pub fn sends_verifiers(&self) -> bool {
        self.detail("password_authentication") == "scram-sha-256"
    }

    /// Takes another password, so that other connections are opened.
    pub fn set_password(&mut self, password: String, generation: u64) {
        self.details.insert("password".into(), password.into());
        self.generation = generation;
    }

    /// The template of generated names.
    pub fn username_template(&self) -> Result<Template, Error> {
        let text = match self.detail("username_template") {
            "" => self.plugin()?.username_template,
            own => own,
        };
        Template::parse(text).map_err(|why| {
            Error::invalid(format!("error creating database object: invalid username template: {why}"))
        })
    }

    /// True if a role may use it.
    pub fn allows(&self, role: &str) -> bool {
        self.allowed_roles.iter().any(|a| a == "*" || glob(a, role))
    }

    /// A password by the role's policy, the connection's, or the plain rules.
    pub fn new_password(&self, cx: &mut Cx<'_, '_>, role_policy: &str) -> Result<String, Error> {
        let name = if role_policy.is_empty() { &self.password_policy } else { role_policy };
        let policy = match name {
            "" => PasswordPolicy::default(),
            name => {
                let text = cx.host.password_policy(cx.txn, cx.mount.ns, name)?.ok_or_else(|| {
                    Error::plain(&format!("unable to generate password: unable to retrieve password policy: no password policy found: {name}"))
                })?;
                PasswordPolicy::parse(&text)
                    .map_err(|e| Error::plain(&format!("unable to generate password: {e}")))?
            }
        };
        policy.generate(cx.rng).map_err(|e| Error::plain(&format!("unable to generate password: {e}")))
    }

    /// What refuses it before a server is asked.
    fn check(&self) -> Result<(), Error> {
        let refuse = |text: &str| Err(Error::invalid(format!("error creating database object: {text}")));
        let plugin = self.plugin()?;
        if self.detail("connection_url").is_empty() {
            return refuse("connection_url cannot be empty");
        }
        let holes = |s: &str| s.contains("{{username}}") || s.contains("{{password}}");
        if holes(self.username()) || holes(self.password()) {
            return refuse("username and/or password cannot contain the template variables");
        }
        if !matches!(self.detail("password_authentication"), "" | "password" | "scram-sha-256") {
            return refuse(&format!(
                "'{}' is not a valid password authentication type",
                self.detail("password_authentication")
            ));
        }
        if !matches!(self.detail("auth_type"), "") {
            return refuse(&format!("auth_type {:?} is not supported", self.detail("auth_type")));
        }
        self.username_template()?;
        dsn::check(plugin.kind, &self.url(self.password())).or_else(|why| refuse(&why))
    }

    fn url(&self, password: &str) -> String {
        let escape = !self.flag("disable_escaping");
        let kind = plugin::find(&self.plugin_name).map(|p| p.kind);
        dsn::fill(self.detail("connection_url"), self.username(), password, kind, escape)
    }

    /// Where its statements go, with the stored password or another.
    fn target(&self, cx: &Cx<'_, '_>, name: &str, password: Option<&str>) -> Result<SqlTarget, Error> {
        let plugin = self.plugin()?;
        let first = |names: [&str; 2]| {
            names.into_iter().map(|n| self.detail(n)).find(|v| !v.is_empty()).unwrap_or("").to_owned()
        };
        let (certificate_pem, key_pem) = match self.detail("tls_certificate_key") {
            // MySQL's field holds both, one after the other
            "" => (self.detail("tls_certificate").to_owned(), self.detail("private_key").to_owned()),
            both => (both.to_owned(), both.to_owned()),
        };
        let max_open = match self.number("max_open_connections") {
            0 => 4,
            n if n < 0 => MAX_OPEN,
            n => n.min(MAX_OPEN),
        };
        let max_idle = match self.number("max_idle_connections") {
            0 => max_open,
            n if n < 0 => 0,
            n => n.min(max_open),
        };
        let lifetime = self.details.get("max_connection_lifetime").map_or(Ok(None), seconds_of).unwrap_or(None);
        Ok(SqlTarget {
            kind: plugin.kind,
            pool: (format!("{}/{name}", cx.mount.uuid), self.generation),
            url: Secret::new(self.url(password.unwrap_or(self.password()))),
            tls: SqlTls {
                ca_pem: first(["tls_ca", "tls_ca_pem"]),
                certificate_pem,
                key_pem,
                server_name: self.detail("tls_server_name").to_owned(),
                skip_verify: self.flag("tls_skip_verify"),
            },
            max_open: max_open as u32,
            max_idle: max_idle as u32,
            max_lifetime_seconds: lifetime.unwrap_or(0).max(0) as u64,
        })
    }

    /// The side operation of statements.
    pub fn run(&self, cx: &Cx<'_, '_>, name: &str, statements: Vec<Secret<String>>) -> Result<SideOp, Error> {
        let in_transaction = self.plugin()?.is_transactional();
        let target = self.target(cx, name, None)?;
        Ok(SideOp::Sql(Box::new(SqlAsk { target, statements, in_transaction, timeout_ms: TIMEOUT_MS })))
    }

    /// The side operation that connects afresh with a password.
    pub fn knock(&self, cx: &Cx<'_, '_>, name: &str, password: &str) -> Result<SideOp, Error> {
        let target = self.target(cx, name, Some(password))?;
        let statements = Vec::new();
        Ok(SideOp::Sql(Box::new(SqlAsk { target, statements, in_transaction: false, timeout_ms: TIMEOUT_MS })))
    }
}

/// What came of statements: `Err` is the server's text with these secrets blotted out.
pub fn outcome(result: &SideResult, secrets: &[&str]) -> Result<(), Error> {
    match result {
        SideResult::Json(_) => Ok(()),
        SideResult::Failed(why) => Err(server_fault(why, secrets)),
        other => Err(Error::internal(format!("statements gave {other:?}"))),
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) if pattern.len() > 1 => text.contains(&pattern[1..pattern.len() - 1]),
        (Some(end), _) => text.ends_with(end),
        (_, Some(start)) => text.starts_with(start),
        _ => pattern == text,
    }
}

/// A number that was not drawn before.
pub fn draw_generation(cx: &mut Cx<'_, '_>) -> u64 {
    let mut b = [0; 8];
    cx.rng.fill(&mut b);
    u64::from_be_bytes(b)
}

pub fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    Ok(cx.exists(CONNECTIONS, args.str("name").as_bytes()))
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Response::keys(cx.list(CONNECTIONS, "", args.str("after"), page::limit(args))?).done()
}

pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if cx.exists(CONNECTIONS, name.as_bytes()) {
        cx.delete(CONNECTIONS, name.as_bytes());
        cx.unschedule(&format!("{}{name}", super::ROOT_JOB));
    }
    nothing()
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(c) = load(cx, args.str("name"))? else { return nothing() };
    let mut details = c.details.clone();
    details.retain(|k, _| !HIDDEN.contains(&k.as_str()));
    if let Some(Value::String(url)) = details.get_mut("connection_url") {
        *url = dsn::masked(url);
    }
    Response::json(json!({
        "allowed_roles": c.allowed_roles,
        "connection_details": details,
        "password_policy": c.password_policy,
        "plugin_name": c.plugin_name,
        "plugin_version": c.plugin_version,
        "root_credentials_rotate_statements": c.root_rotation_statements,
        "skip_static_role_import_rotation": false,
        "verify_connection": c.verify_connection,
    }))
    .done()
}

/// Creates or changes a connection.
pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let connection = merged(cx, args)?;
    connection.check()?;
    if !connection.verify_connection {
        return store(cx, args, connection);
    }
    verify(cx, args.clone(), connection)
}

/// Asks the server, then keeps what it was asked for. If another write changed the connection meanwhile, what the two
/// make together is another connection, and is asked for again.
fn verify(cx: &mut Cx<'_, '_>, args: Args, asked: Connection) -> Outcome {
    let op = asked.knock(cx, args.str("name"), asked.password())?;
    Ok(Step::Side {
        op,
        resume: Box::new(move |cx, result| {
            outcome(result, &asked.secrets()).map_err(|e| Error {
                code: Code::Invalid,
                errors: vec![
                    format!("error creating database object: error verifying connection: {}", plain_text(&e)).into(),
                ],
                ..e
            })?;
            let now = merged(cx, &args)?;
            now.check()?;
            match (Connection { generation: now.generation, ..asked.clone() }) == now {
                true => store(cx, &args, now),
                false => verify(cx, args.clone(), now),
            }
        }),
    })
}

/// The text within Go's multi-error frame.
pub fn plain_text(e: &Error) -> String {
    let text = e.text();
    text.trim()
        .strip_prefix("1 error occurred:")
        .map_or(text.clone(), |t| t.trim().trim_start_matches("* ").to_owned())
}

/// What stands, changed by what was given.
fn merged(cx: &mut Cx<'_, '_>, args: &Args) -> Result<Connection, Error> {
    let known = load(cx, args.str("name"))?;
    let is_new = known.is_none();
    let mut c = known.unwrap_or_else(|| Connection { verify_connection: true, ..Connection::default() });
    if let Some(name) = args.opt_str("plugin_name") {
        c.plugin_name = name.to_owned();
    }
    if c.plugin_name.is_empty() {
        return Err(Error::invalid("empty plugin name"));
    }
    if let Some(v) = args.opt_str("plugin_version") {
        c.plugin_version = v.to_owned();
    }
    if let Some(v) = args.opt_bool("verify_connection") {
        c.verify_connection = v;
    } else if is_new {
        c.verify_connection = true;
    }
    if let Some(roles) = args.opt_list("allowed_roles") {
        c.allowed_roles = roles;
    }
    if let Some(list) = args.opt_list("root_rotation_statements") {
        c.root_rotation_statements = statement::given(list);
    }
    if let Some(p) = args.opt_str("password_policy") {
        c.password_policy = p.to_owned();
    }
    for (k, v) in args.raw() {
        if !OWN.contains(&k.as_str()) && !v.is_null() {
            c.details.insert(k.clone(), v.clone());
        }
    }
    c.generation = draw_generation(cx);
    Ok(c)
}

fn store(cx: &mut Cx<'_, '_>, args: &Args, connection: Connection) -> Outcome {
    save(cx, args.str("name"), &connection);
    if dsn::has_password(connection.detail("connection_url")) {
        let warning = "Password found in connection_url, use a templated url to enable root rotation and prevent read access to password information.";
        return Response::default().warn(warning).done();
    }
    nothing()
}

/// Opens other connections at the next use.
pub fn reset(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let (mut c, _) = need(cx, name)?;
    c.generation = draw_generation(cx);
    save(cx, name, &c);
    nothing()
}

/// As `reset`, for all connections of a plugin.
pub fn reload(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let plugin = args.str("plugin_name");
    let mut reloaded = Vec::new();
    for name in cx.list(CONNECTIONS, "", "", 0)? {
        let Some(mut c) = load(cx, &name)? else { continue };
        if c.plugin_name == plugin {
            c.generation = draw_generation(cx);
            save(cx, &name, &c);
            reloaded.push(name);
        }
    }
    let mut response = Response::json(json!({ "connections": reloaded, "count": reloaded.len() }));
    if reloaded.is_empty() {
        response = response.warn(format!("no connections were found with plugin_name {plugin:?}"));
    }
    response.done()
}

/// A display name as a part of an account's name: nothing that a server or a log could stumble over.
pub fn tidy_name(name: &str, kind: ringfence_logical::SqlKind) -> String {
    let clean: String = name.chars().map(|c| if c.is_control() { '-' } else { c }).collect();
    // PostgreSQL cuts silently at 63 bytes, MySQL refuses more than 32 characters
    match kind {
        ringfence_logical::SqlKind::Postgres => {
            let mut end = clean.len().min(63);
            while !clean.is_char_boundary(end) {
                end -= 1;
            }
            clean[..end].to_owned()
        }
        ringfence_logical::SqlKind::Mysql => clean.chars().take(32).collect(),
    }
}

/// The end of an account's life, as statements write it.
pub fn expiration(at: ringfence_base::Wall) -> String {
    template::stamp("2006-01-02 15:04:05-0700", at)
}
