//! What a running server takes from its files again: log level, response headers, certificates, log and audit files. What
//! cannot be read is logged, and the old stays in force.

use crate::api::listen::Listener;
use crate::cli::ServerArgs;
use crate::config::{self, Config};
use crate::ports;
use crate::rt::channel;
use crate::shard::ToShard;
use crate::telemetry::{self, Level};
use std::collections::BTreeMap;

/// Everything that a reload touches.
pub struct Reloader {
    args: ServerArgs,
    env: BTreeMap<String, String>,
    listeners: Vec<Listener>,
    shards: Vec<channel::Sender<ToShard>>,
}

impl Reloader {
    /// With what the server was started with.
    pub fn new(
        args: ServerArgs,
        env: BTreeMap<String, String>,
        listeners: Vec<Listener>,
        shards: Vec<channel::Sender<ToShard>>,
    ) -> Reloader {
        Reloader { args, env, listeners, shards }
    }

    /// Reads everything again. It blocks on small files: give it to a helper thread.
    pub fn reload(&self) {
        match load(&self.args, &self.env) {
            Ok((config, warnings)) => {
                for w in &warnings {
                    telemetry::log(Level::Warn, w);
                }
                self.take(&config);
            }
            Err(e) => telemetry::log(Level::Error, &format!("{e}; the configuration of before stays in force")),
        }
        for l in &self.listeners {
            if let Some(Err(e)) = l.tls.as_ref().map(|t| t.reload()) {
                telemetry::log(Level::Error, &format!("certificates were not reloaded: {e}; the old ones stay"));
            }
        }
        if let Err(e) = telemetry::reopen_file() {
            telemetry::log(Level::Error, &format!("the log file was not opened again: {e}; the open one stays"));
        }
        for s in &self.shards {
            // a core that is gone has no files open
            let _ = s.try_send(ToShard::Reopen);
        }
    }

    fn take(&self, config: &Config) {
        if let Some(level) = Level::parse(&config.log_level) {
            telemetry::configure_level(level);
        }
        telemetry::configure_requests_level(requests_level(config));
        if config.listeners.len() != self.listeners.len() {
            telemetry::log(Level::Warn, "listeners were added or removed: that needs a restart");
            return;
        }
        let own = ports::own_headers(config);
        for (wished, running) in config.listeners.iter().zip(&self.listeners) {
            running.rules.answer_headers.replace(&wished.custom_response_headers, &own);
        }
    }
}

/// At which level requests are logged.
pub fn requests_level(config: &Config) -> Option<Level> {
    config.log_requests_level.as_deref().and_then(Level::parse)
}

/// Reads the configuration that these arguments and this environment mean.
///
/// # Errors
/// What is wrong, and where.
pub fn load(args: &ServerArgs, env: &BTreeMap<String, String>) -> Result<(Config, Vec<String>), String> {
    let base = args.dev.as_ref().map_or_else(Config::default, |d| Config::dev(&d.listen_address));
    let loaded = config::load(&args.config, env, base).map_err(|e| format!("Error loading configuration: {e}"))?;
    let mut config = loaded.config;
    config.take_flags(args);
    Ok((config, loaded.warnings))
}
