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

/// What `sslmode` says beyond what the client library reads.
fn split_mode(url: &str) -> (String, Option<tls::Verify>) {
    let mut verify = None;
    let mut url = url.to_owned();
    for (mode, meant) in
        [("verify-full", tls::Verify::Full), ("verify-ca", tls::Verify::Chain), ("require", tls::Verify::Nothing)]
    {
        let text = format!("sslmode={mode}");
        if url.contains(&text) {
            url = url.replace(&text, "sslmode=require");
            verify = Some(meant);
        }
    }
    // libpq's `allow` begins without TLS, which a client that may not fall back answers best by `prefer`
    (url.replace("sslmode=allow", "sslmode=prefer"), verify)
}

/// Connects.
pub async fn connect(target: &SqlTarget) -> Result<Connection, String> {
    let (url, verify) = split_mode(target.url.expose());
    let mut config = Config::from_str(&url).map_err(|e| format!("failed to parse connection_url: {}", text(&e)))?;
    if config.get_application_name().is_none() {
        config.application_name("ringfence");
    }
    config.connect_timeout(std::time::Duration::from_secs(5));
    config.keepalives_idle(std::time::Duration::from_secs(30));
    let options = config.get_options().map_or("-c timezone=UTC".to_owned(), |o| format!("{o} -c timezone=UTC"));
    config.options(options);
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
