//! One run of one command: its flags, its way to the server and its way to the person.
//!
//! Commands are functions over a session. They answer the exit code, or a [`Fail`] that says what to print and with which
//! code to leave; the caller prints it once.

use super::client::{Body, CallError, Client, Dry, Reply, Request, Settings};
use super::flags::Flags;
use super::io::Io;
use super::output;
use super::secret::Secret;
use super::tls::Tls;
use super::token_file;
use super::verb::go_bool;
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Columns for people.
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Prose for the few results that have it.
    Pretty,
    /// The server's answer as it came.
    Raw,
}

/// Why a command ends early.
#[derive(Debug)]
pub enum Fail {
    /// The text goes to standard error.
    Error {
        /// Exit code.
        code: i32,
        /// What to print.
        text: String,
    },
    /// A dry mode's text, which goes to standard output; the exit code is 0.
    Dry(String),
}

/// What a command answers.
pub type Outcome = Result<i32, Fail>;

/// The command was used wrongly, or something on this machine is wrong: exit code 1.
pub fn usage(text: impl Into<String>) -> Fail {
    Fail::Error { code: 1, text: text.into() }
}

/// The server refused or cannot be reached: exit code 2.
pub fn remote(text: impl Into<String>) -> Fail {
    Fail::Error { code: 2, text: text.into() }
}

/// Puts what was being done in front of a call's error.
pub fn doing(what: impl Into<String>) -> impl FnOnce(CallError) -> Fail {
    let what = what.into();
    move |error| match error {
        CallError::Dry(text) => Fail::Dry(text),
        error => remote(format!("{what}: {error}")),
    }
}

/// One run.
pub struct Session<'run, 'io> {
    /// The outside.
    pub io: &'run mut Io<'io>,
    /// Flags and arguments.
    pub flags: Flags,
    /// How results are printed.
    pub format: Format,
    /// `-detailed`.
    pub detailed: bool,
    /// The name this program was started under, for hints.
    pub program: &'static str,
    client: Option<Client>,
}

impl<'run, 'io> Session<'run, 'io> {
    /// Begins a run. Refuses an unknown `-format`.
    pub fn new(io: &'run mut Io<'io>, flags: Flags, program: &'static str) -> Result<Self, Fail> {
        let wanted = flags.text("format").or_else(|| io.setting("FORMAT")).unwrap_or("table").to_ascii_lowercase();
        let format = match wanted.as_str() {
            "table" | "" => Format::Table,
            "json" => Format::Json,
            "yaml" | "yml" => Format::Yaml,
            "pretty" => Format::Pretty,
            "raw" => Format::Raw,
            _ => return Err(usage(format!("Invalid output format: {wanted}"))),
        };
        let detailed = match flags.text("detailed") {
            Some(given) => given == "true",
            None => io.setting("DETAILED").and_then(go_bool).unwrap_or(false),
        };
        Ok(Session { io, flags, format, detailed, program, client: None })
    }

    /// Is the result for people?
    pub fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// May the person be asked?
    pub fn interactive(&self) -> bool {
        !self.flags.is_set("non-interactive")
    }

    /// The `i`-th argument without surrounding blanks.
    pub fn arg(&self, i: usize) -> &str {
        self.flags.args.get(i).map_or("", |arg| arg.trim())
    }

    /// Refuses the wrong number of arguments.
    pub fn expect_args(&self, least: usize, most: usize) -> Result<(), Fail> {
        let got = self.flags.args.len();
        let expected = match (least, most) {
            (least, most) if least == most => least.to_string(),
            (least, usize::MAX) => format!("at least {least}"),
            (least, most) => format!("{least}-{most}"),
        };
        if got < least {
            return Err(usage(format!("Not enough arguments (expected {expected}, got {got})")));
        }
        if got > most {
            return Err(usage(format!("Too many arguments (expected {expected}, got {got})")));
        }
        Ok(())
    }

    /// The client, with the token of the environment or of the token file.
    pub fn client(&mut self) -> Result<&mut Client, Fail> {
        if self.client.is_none() {
            let mut settings = self.settings().map_err(remote)?;
            if settings.token.is_empty() {
                settings.token = token_file::load(self.io).map_err(remote)?;
            }
            self.client = Some(Client::new(settings).map_err(remote)?);
        }
        self.client.as_mut().ok_or_else(|| remote("no client"))
    }

    /// Sends a request.
    pub fn call(&mut self, request: &Request) -> Result<Reply, CallError> {
        match self.client() {
            Ok(client) => client.call(request),
            Err(Fail::Error { text, .. } | Fail::Dry(text)) => Err(CallError::Failed(text)),
        }
    }

    /// Sends a request and prints the answer as it comes, without a limit of time: a stream has no end to wait for.
    pub fn stream(&mut self, request: &Request) -> Result<u64, CallError> {
        let settings = match self.client() {
            Ok(client) => Settings { timeout: Duration::ZERO, ..client.settings.clone() },
            Err(Fail::Error { text, .. } | Fail::Dry(text)) => return Err(CallError::Failed(text)),
        };
        Client::new(settings).map_err(CallError::Failed)?.download(request, &mut *self.io.stdout)
    }

    /// Sends a request and reads the envelope.
    pub fn call_secret(&mut self, request: &Request) -> Result<Option<Secret>, CallError> {
        let reply = self.call(request)?;
        Secret::parse(&reply.body).map_err(CallError::Failed)
    }

    /// Sends a read. A 404 is no secret, unless it carries data or warnings.
    pub fn read_secret(&mut self, request: &Request) -> Result<Option<Secret>, CallError> {
        match self.call_secret(request) {
            Err(CallError::Refused(refused)) if refused.status == 404 => Ok(carried(&refused.body)),
            other => other,
        }
    }

    /// Sends a request and reads bare JSON.
    pub fn call_json(&mut self, request: &Request) -> Result<Value, CallError> {
        let reply = self.call(request)?;
        if reply.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&reply.body)
            .map_err(|error| CallError::Failed(format!("the server's answer is not understood: {error}")))
    }

    /// Everything about requests that flags and environment say. Flags win.
    fn settings(&self) -> Result<Settings, String> {
        let io = &*self.io;
        let named = |flag: &str, setting: &str| {
            self.flags.text(flag).filter(|text| !text.is_empty()).or_else(|| io.setting(setting)).map(str::to_owned)
        };
        let file = |flag: &str, setting: &str| named(flag, setting).map(|path| io.expand(&path));
        let yes = |flag: &str, setting: &str| match self.flags.text(flag) {
            Some(given) => Ok(given == "true"),
            None => match io.setting(setting) {
                Some(text) => go_bool(text).ok_or_else(|| format!("could not parse VAULT_{setting}: {text:?}")),
                None => Ok(false),
            },
        };
        let address = named("agent-address", "AGENT_ADDR")
            .or_else(|| named("address", "ADDR"))
            .unwrap_or_else(|| "https://127.0.0.1:8200".to_owned());
        let namespace =
            self.flags.text("namespace").or_else(|| io.setting_or_empty("NAMESPACE")).map(canonical_namespace);
        let wrap_ttl = match named("wrap-ttl", "WRAP_TTL") {
            Some(text) => match ringfence_base::duration::parse_ns(&text).and_then(|ns| i64::try_from(ns).ok()) {
                Some(0) => None,
                Some(ns) => Some(ringfence_base::duration::go_string(ns)),
                None => return Err(format!("invalid wrap TTL {text:?}")),
            },
            None => None,
        };
        let timeout = match io.setting("CLIENT_TIMEOUT") {
            Some(text) => ringfence_base::duration::parse_ns(text)
                .and_then(|ns| u64::try_from(ns).ok())
                .map(Duration::from_nanos)
                .ok_or_else(|| format!("could not parse VAULT_CLIENT_TIMEOUT: {text:?}"))?,
            None => Duration::from_secs(60),
        };
        let max_retries = match io.setting("MAX_RETRIES") {
            Some(text) => text.parse().map_err(|_| format!("could not parse VAULT_MAX_RETRIES: {text:?}"))?,
            // a person sees the error at once and decides; scripts that want retries say so
            None => 0,
        };
        let mfa = match self.flags.list("mfa") {
            [] => io.setting("MFA").map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default(),
            given => given.to_vec(),
        };
        let headers: Vec<(String, String)> = self.flags.map("header").into_iter().collect();
        let forbidden: Vec<&str> = headers
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| name.to_ascii_lowercase().starts_with("x-vault-"))
            .collect();
        if !forbidden.is_empty() {
            let names = forbidden.join(", ");
            return Err(format!(
                "failed to setup Headers[{names}]: Header starting by 'X-Vault-' are for internal usage only"
            ));
        }
        let dry = match (self.flags.is_set("output-curl-string"), self.flags.is_set("output-policy")) {
            (true, true) => {
                return Err("cannot specify both -output-curl-string and -output-policy".to_owned());
            }
            (true, false) => Dry::Curl,
            (false, true) => Dry::Policy,
            (false, false) => Dry::No,
        };
        let proxy_variables = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
        Ok(Settings {
            address: address.trim().trim_end_matches('/').to_owned(),
            token: io.setting("TOKEN").unwrap_or_default().trim().to_owned(),
            namespace,
            wrap_ttl,
            mfa,
            headers,
            policy_override: self.flags.is_set("policy-override"),
            follow_redirect: !yes("disable-redirects", "DISABLE_REDIRECTS")?,
            max_retries,
            retry_pause: Duration::from_secs(1),
            timeout,
            proxy: io.setting("PROXY_ADDR").or_else(|| io.setting("HTTP_PROXY")).map(str::to_owned),
            proxy_from_environment: proxy_variables.iter().any(|name| io.env.contains_key(*name)),
            tls: Tls {
                ca_cert: file("ca-cert", "CACERT"),
                ca_cert_text: io.setting("CACERT_BYTES").map(str::to_owned),
                ca_path: file("ca-path", "CAPATH"),
                system_bundle: io.env.get("SSL_CERT_FILE").map(PathBuf::from),
                client_cert: file("client-cert", "CLIENT_CERT"),
                client_key: file("client-key", "CLIENT_KEY"),
                client_text: None,
                server_name: named("tls-server-name", "TLS_SERVER_NAME"),
                skip_verify: yes("tls-skip-verify", "SKIP_VERIFY")?,
            },
            dry,
            program: self.program,
        })
    }

    /// Prints warnings of the server.
    pub fn warn_of(&mut self, secret: &Secret) {
        let Some(warnings) = secret.warnings.as_ref().filter(|warnings| !warnings.is_empty()) else { return };
        self.io.err("WARNING! The following warnings were returned from Vault:\n");
        for warning in warnings {
            self.io.err(&output::wrap_indented(&format!("* {warning}"), 2));
            self.io.err("");
        }
    }

    /// Prints an envelope.
    pub fn print_secret(&mut self, secret: &Secret) -> Outcome {
        if !self.is_table() {
            return self.print_data(secret);
        }
        self.warn_of(secret);
        let rows = secret.rows();
        if !rows.is_empty() {
            self.io.out(&output::key_value(rows));
        }
        Ok(0)
    }

    /// Prints one field of an envelope, or all of it.
    pub fn print_secret_or_field(&mut self, secret: &Secret) -> Outcome {
        match self.flags.text("field").filter(|name| !name.is_empty()).map(str::to_owned) {
            Some(name) => {
                if self.is_table() {
                    self.warn_of(secret);
                }
                self.print_field(secret.named(&name), &name, "secret")
            }
            None => self.print_secret(secret),
        }
    }

    /// Prints the value that `-field` asked for.
    pub fn print_field(&mut self, value: Option<Value>, name: &str, place: &str) -> Outcome {
        let Some(value) = value.filter(|value| !value.is_null()) else {
            return Err(usage(format!("Field {name:?} not present in {place}")));
        };
        let text = match self.format {
            Format::Json => output::json(&value),
            Format::Yaml => output::yaml(&value) + "\n",
            _ => output::go_value(&value),
        };
        self.print_raw(&text);
        Ok(0)
    }

    /// Prints a value for another program: without a newline, unless a person watches.
    pub fn print_raw(&mut self, text: &str) {
        if self.io.stdout_is_terminal {
            self.io.out(text);
        } else {
            let _ = self.io.stdout.write_all(text.as_bytes());
        }
    }

    /// Prints a result in one of the machine formats.
    pub fn print_data(&mut self, data: &impl Serialize) -> Outcome {
        let text = match self.format {
            Format::Yaml => output::yaml(&serde_json::to_value(data).unwrap_or_default()),
            Format::Pretty => return Err(usage("cannot use the pretty formatter for this type")),
            Format::Raw => {
                return Err(usage("This command does not support the -format=raw option; only `read` does."));
            }
            Format::Json | Format::Table => output::json(data),
        };
        self.io.out(&text);
        Ok(0)
    }

    /// Prints an object as a table, or in the machine format that was asked for.
    pub fn print_object(&mut self, object: &serde_json::Map<String, Value>) -> Outcome {
        if !self.is_table() {
            return self.print_data(object);
        }
        if !object.is_empty() {
            self.io.out(&output::key_value(output::object_rows(object)));
        }
        Ok(0)
    }

    /// Prints the keys of a list answer.
    pub fn print_list(&mut self, secret: &Secret) -> Outcome {
        let Some(keys) = secret.keys() else { return Ok(0) };
        if !self.is_table() {
            return if self.detailed { self.print_data(secret) } else { self.print_data(keys) };
        }
        self.warn_of(secret);
        let mut names: Vec<String> = keys.iter().map(output::go_value).collect();
        names.sort();
        if names.is_empty() {
            return Ok(0);
        }
        let details =
            secret.field("key_info").and_then(Value::as_object).filter(|info| self.detailed && !info.is_empty());
        let mut headers: Vec<&String> = Vec::new();
        if let Some(info) = details {
            headers =
                names.iter().filter_map(|name| info.get(name)?.as_object()).flat_map(|entry| entry.keys()).collect();
            headers.sort();
            headers.dedup();
        }
        let mut header = vec!["Keys".to_owned()];
        header.extend(headers.iter().map(|name| (*name).clone()));
        let mut rows = vec![header];
        for name in &names {
            let mut row = vec![name.clone()];
            if let Some(entry) = details.and_then(|info| info.get(name)).and_then(Value::as_object) {
                row.extend(headers.iter().map(|header| match entry.get(*header) {
                    Some(value) if output::looks_like_duration(header) => output::human_seconds(value),
                    Some(value) => output::go_value(value),
                    None => String::new(),
                }));
            }
            rows.push(row);
        }
        self.io.out(&output::table(rows));
        Ok(0)
    }

    /// Prints a success line.
    pub fn say(&mut self, text: &str) -> Outcome {
        self.io.out(text);
        Ok(0)
    }

    /// Prints a line about a write that answered nothing; the machine formats stay silent.
    pub fn say_in_table(&mut self, text: &str) -> Outcome {
        if self.is_table() {
            self.io.out(text);
        }
        Ok(0)
    }

    /// Ends a write: its answer, or a line that it was done, or the refusal with the data it carries.
    pub fn finish_write(&mut self, path: &str, outcome: Result<Option<Secret>, CallError>) -> Outcome {
        let what = format!("Error writing data to {path}");
        match outcome {
            Ok(Some(secret)) => self.print_secret_or_field(&secret),
            Ok(None) => self.say_in_table(&format!("Success! Data written to: {path}")),
            Err(error) => self.refused_with_data(&what, error),
        }
    }

    /// Prints a refusal, and the envelope that came with it if it carries one.
    pub fn refused_with_data(&mut self, what: &str, error: CallError) -> Outcome {
        let with = match &error {
            CallError::Refused(refused) if refused.status == 404 => carried(&refused.body),
            _ => None,
        };
        match with {
            Some(secret) => {
                self.io.err(&format!("{what}: {error}"));
                self.print_secret(&secret)?;
                Ok(2)
            }
            None => Err(doing(what)(error)),
        }
    }
}

/// The envelope that a 404 carries, if it says anything.
fn carried(body: &[u8]) -> Option<Secret> {
    let secret = Secret::parse(body).ok().flatten()?;
    let says = secret.warnings.as_ref().is_some_and(|warnings| !warnings.is_empty())
        || secret.data.as_ref().is_some_and(|data| !data.is_empty());
    says.then_some(secret)
}

/// `null` as a body: how "no data" is written.
pub fn no_data() -> Body {
    Body::Json(Value::Null)
}

/// A path without slashes at its ends.
pub fn sanitized(path: &str) -> String {
    path.trim().trim_matches('/').to_owned()
}

/// A path with one slash at its end; an empty one stays empty.
pub fn with_slash(path: &str) -> String {
    let path = path.trim().trim_end_matches('/');
    if path.is_empty() { String::new() } else { format!("{path}/") }
}

fn canonical_namespace(text: &str) -> String {
    let text = sanitized(text);
    if text.is_empty() || text == "root" { String::new() } else { text + "/" }
}
