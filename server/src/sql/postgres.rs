//! PostgreSQL by `tokio-postgres`, simple protocol.

use super::tls;
use ringfence_node::SqlTarget;
use std::error::Error as _;
use std::str::FromStr;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// An open connection; its traffic is driven by a task that ends with it.
pub struct Connection {
    client: Client,
    /// A transaction was left open: the connection may not be used again.
    spoilt: bool,
}

/// What `sslmode` says beyond what the client library reads: the strictest that is named, in the URL that is left to the
/// library as `require`. A second mode beside a strict one changes nothing: see [`configured`].
fn split_mode(url: &str) -> (String, Option<tls::Verify>) {
    let modes =
        [("verify-full", tls::Verify::Full), ("verify-ca", tls::Verify::Chain), ("require", tls::Verify::Nothing)];
    let named = modes.into_iter().find(|(mode, _)| url.contains(&format!("sslmode={mode}")));
    let mut url = url.to_owned();
    for (mode, _) in modes {
        url = url.replace(&format!("sslmode={mode}"), "sslmode=require");
    }
    // libpq's `allow` begins without TLS, which a client that may not fall back answers best by `prefer`
    (url.replace("sslmode=allow", "sslmode=prefer"), named.map(|(_, verify)| verify))
}

/// The client's configuration, and how much of the server's certificate is checked.
fn configured(url: &str) -> Result<(Config, Option<tls::Verify>), String> {
    let (url, verify) = split_mode(url);
    let mut config = Config::from_str(&url).map_err(|e| format!("failed to parse connection_url: {}", text(&e)))?;
    if verify.is_some() {
        // whatever else was said: who asks for a check never gets a connection without TLS
        config.ssl_mode(SslMode::Require);
    }
    if config.get_application_name().is_none() {
        config.application_name("ringfence");
    }
    config.connect_timeout(std::time::Duration::from_secs(5));
    config.keepalives_idle(std::time::Duration::from_secs(30));
    // the last word counts: values are quoted for a server that reads backslashes in plain literals as they stand
    let own = "-c timezone=UTC -c standard_conforming_strings=on";
    let options = config.get_options().map_or(own.to_owned(), |o| format!("{o} {own}"));
    config.options(options);
    Ok((config, verify))
}

/// Connects.
pub async fn connect(target: &SqlTarget) -> Result<Connection, String> {
    let (config, verify) = configured(target.url.expose())?;
    let failed = |e: Error| format!("failed to connect: {}", text(&e));
    let client = if config.get_ssl_mode() == SslMode::Disable {
        let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
        tokio::task::spawn_local(connection);
        client
    } else {
        // as libpq: a certificate authority that is given is used, without one `require` and `prefer` trust anybody
        let verify = match verify {
            Some(tls::Verify::Nothing) | None if target.tls.ca_pem.is_empty() => tls::Verify::Nothing,
            Some(tls::Verify::Nothing) | None => tls::Verify::Chain,
            Some(strict) => strict,
        };
        let connector = MakeRustlsConnect::new(tls::config(&target.tls, verify)?);
        let (client, connection) = config.connect(connector).await.map_err(failed)?;
        tokio::task::spawn_local(connection);
        client
    };
    Ok(Connection { client, spoilt: false })
}

impl Connection {
    /// True if another ask may have it.
    pub fn is_usable(&self) -> bool {
        !self.spoilt && !self.client.is_closed()
    }

    /// Runs statements, all or none if in a transaction.
    pub async fn run(&mut self, statements: &[&str], in_transaction: bool) -> Result<(), String> {
        // given up half-way, by an error or by time: who comes next must not find the transaction
        self.spoilt = true;
        if in_transaction {
            self.one("BEGIN").await?;
        }
        for s in statements {
            if let Err(why) = self.one(s).await {
                if in_transaction {
                    self.one("ROLLBACK").await?;
                    self.spoilt = false;
                }
                return Err(why);
            }
        }
        if in_transaction {
            self.one("COMMIT").await?;
        }
        self.spoilt = false;
        Ok(())
    }

    async fn one(&mut self, statement: &str) -> Result<(), String> {
        self.client.batch_execute(statement).await.map_err(|e| format!("failed to execute query: {}", text(&e)))
    }
}

/// An error in the words that people know from other clients.
fn text(e: &Error) -> String {
    if let Some(db) = e.as_db_error() {
        return format!("{}: {} (SQLSTATE {})", db.severity(), db.message(), db.code().code());
    }
    let mut out = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        let more = c.to_string();
        if !out.contains(&more) {
            out = format!("{out}: {more}");
        }
        cause = c.source();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `verify-full` became `require` before it was looked for, so that no certificate was checked at all; and a second
    /// mode beside it, which the library reads last, could switch TLS off.
    #[test]
    fn a_strict_sslmode_is_never_weakened() {
        use tls::Verify::{Chain, Full, Nothing};
        for (modes, wanted, tls) in [
            ("sslmode=verify-full", Some(Full), SslMode::Require),
            ("sslmode=verify-ca", Some(Chain), SslMode::Require),
            ("sslmode=require", Some(Nothing), SslMode::Require),
            ("sslmode=verify-full&sslmode=require", Some(Full), SslMode::Require),
            ("sslmode=require&sslmode=verify-full", Some(Full), SslMode::Require),
            ("sslmode=verify-full&sslmode=disable", Some(Full), SslMode::Require),
            ("sslmode=verify-ca&sslmode=prefer", Some(Chain), SslMode::Require),
            ("sslmode=disable", None, SslMode::Disable),
            ("sslmode=allow", None, SslMode::Prefer),
            ("sslmode=prefer", None, SslMode::Prefer),
        ] {
            for url in
                [format!("postgresql://u:p@h/db?{modes}"), format!("host=h user=u {}", modes.replace('&', " "))]
            {
                let (config, verify) = configured(&url).unwrap();
                assert_eq!((verify, config.get_ssl_mode()), (wanted, tls), "{url}");
            }
        }
        // what the library does not know is no mode
        assert!(configured("host=h sslmode='verify-full'").is_err());
    }

    /// Whoever set `standard_conforming_strings=off` made a backslash in a generated literal an escape.
    #[test]
    fn literals_are_read_as_they_were_quoted() {
        for url in ["host=h user=u", "host=h user=u options='-c standard_conforming_strings=off'"] {
            let (config, _) = configured(url).unwrap();
            assert!(config.get_options().unwrap().ends_with(" -c standard_conforming_strings=on"), "{url}");
        }
    }
}
