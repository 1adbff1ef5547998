//! What an engine asks of an SQL server. The server process carries it out over pooled connections; no engine sees
//! a socket.

use ringfence_base::Secret;

/// The kinds of server that the process has clients for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SqlKind {
    /// PostgreSQL and what speaks its protocol.
    Postgres,
    /// MySQL, MariaDB and what speaks their protocol.
    Mysql,
}

/// TLS settings that stand beside the connection's URL.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SqlTls {
    /// PEM certificates to trust instead of the machine's.
    pub ca_pem: String,
    /// PEM chain and PEM key of the client; both or none.
    pub certificate_pem: String,
    /// The key of the client's certificate.
    pub key_pem: String,
    /// Name to verify instead of the host's.
    pub server_name: String,
    /// Verify nothing.
    pub skip_verify: bool,
}

/// Where statements go.
pub struct SqlTarget {
    /// Which client.
    pub kind: SqlKind,
    /// Connections are shared among equal pools, and dropped when a pool of the same `pool.0` appears with another
    /// `pool.1`: mount and connection name, and the generation of the connection's configuration.
    pub pool: (String, u64),
    /// The URL with name and password in their places.
    pub url: Secret<String>,
    /// TLS.
    pub tls: SqlTls,
    /// Connections at a time.
    pub max_open: u32,
    /// Idle connections that are kept.
    pub max_idle: u32,
    /// Seconds after which a connection is not used again; 0 = no limit.
    pub max_lifetime_seconds: u64,
}

/// Statements to run.
pub struct SqlAsk {
    /// Where.
    pub target: SqlTarget,
    /// Complete texts; without any the server is only connected to, afresh.
    pub statements: Vec<Secret<String>>,
    /// In one transaction.
    pub in_transaction: bool,
    /// Whole time, waiting for a connection included.
    pub timeout_ms: u32,
}

/// URL and statements hold passwords.
impl std::fmt::Debug for SqlAsk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlAsk")
            .field("kind", &self.target.kind)
            .field("pool", &self.target.pool.0)
            .field("statements", &self.statements.len())
            .finish_non_exhaustive()
    }
}
