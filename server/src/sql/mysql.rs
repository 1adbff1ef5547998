//! MySQL and MariaDB by `mysql_async`, text protocol.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, OptsBuilder, SslOpts};
use ringfence_node::SqlTarget;

/// An open connection.
pub struct Connection {
    /// `None` after a fault of the connection itself.
    conn: Option<Conn>,
}

/// A connection URL in the form of Go's driver: `user:password@protocol(address)/database?parameters`.
#[derive(Debug, PartialEq)]
struct Dsn<'d> {
    user: &'d str,
    password: &'d str,
    protocol: &'d str,
    address: &'d str,
    database: &'d str,
    tls: Option<&'d str>,
}

impl<'d> Dsn<'d> {
    fn parse(text: &'d str) -> Result<Dsn<'d>, String> {
        let bad = || "invalid DSN: expected user:password@protocol(address)/database".to_owned();
        // name and password may hold anything but the last `@` before the address
        let slash = match text.rfind(")/") {
            Some(i) => i + 1,
            None => text.rfind('/').ok_or_else(bad)?,
        };
        let (before, after) = (&text[..slash], &text[slash + 1..]);
        let (login, place) = before.rsplit_once('@').unwrap_or(("", before));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (protocol, address) = match place.split_once('(') {
            Some((p, a)) => (if p.is_empty() { "tcp" } else { p }, a.strip_suffix(')').ok_or_else(bad)?),
            None => ("tcp", place),
        };
        let (database, parameters) = after.split_once('?').unwrap_or((after, ""));
        let tls = parameters.split('&').find_map(|p| p.strip_prefix("tls="));
        Ok(Dsn { user, password, protocol, address, database, tls })
    }
}

/// Connects.
pub async fn connect(target: &SqlTarget) -> Result<Connection, String> {
    let dsn = Dsn::parse(target.url.expose())?;
    let mut opts = OptsBuilder::default()
        .user(Some(dsn.user))
        .pass(Some(dsn.password))
        .db_name((!dsn.database.is_empty()).then_some(dsn.database))
        .prefer_socket(false);
    opts = match dsn.protocol {
        "unix" => opts.socket(Some(dsn.address)),
        "tcp" => {
            let (host, port) = match dsn.address.rsplit_once(':') {
                Some((h, p)) => (h, p.parse().map_err(|_| format!("invalid port in DSN: {p:?}"))?),
                None => (dsn.address, 3306),
            };
            opts.ip_or_hostname(if host.is_empty() { "127.0.0.1" } else { host.trim_matches(['[', ']']) })
                .tcp_port(port)
        }
        other => return Err(format!("unknown protocol {other:?} in DSN")),
    };
    let wants_tls = !matches!(dsn.tls, None | Some("false")) || !target.tls.ca_pem.is_empty();
    if wants_tls {
        opts = opts.ssl_opts(Some(ssl(target, dsn.tls)?));
    }
    match Conn::new(opts).await {
        Ok(conn) => Ok(Connection { conn: Some(conn) }),
        Err(e) => Err(format!("failed to connect: {}", text(&e))),
    }
}

fn ssl(target: &SqlTarget, mode: Option<&str>) -> Result<SslOpts, String> {
    let mut ssl = SslOpts::default();
    if !target.tls.ca_pem.is_empty() {
        ssl = ssl
            .with_root_certs(vec![target.tls.ca_pem.clone().into_bytes().into()])
            .with_disable_built_in_roots(true);
    }
    if !target.tls.certificate_pem.is_empty() {
        let chain = target.tls.certificate_pem.clone().into_bytes();
        let key = target.tls.key_pem.clone().into_bytes();
        ssl = ssl.with_client_identity(Some(mysql_async::ClientIdentity::new(chain.into(), key.into())));
    }
    if !target.tls.server_name.is_empty() {
        ssl = ssl.with_danger_tls_hostname_override(Some(target.tls.server_name.clone()));
    }
    let anybody = target.tls.skip_verify || mode == Some("skip-verify");
    Ok(ssl.with_danger_accept_invalid_certs(anybody).with_danger_skip_domain_validation(anybody))
}

impl Connection {
    /// True if another ask may have it.
    pub fn is_usable(&self) -> bool {
        self.conn.is_some()
    }

    /// Runs statements one after the other, to the first that fails.
    pub async fn run(&mut self, statements: &[&str]) -> Result<(), String> {
        // given up half-way by time: who comes next must not read its answer
        let Some(mut conn) = self.conn.take() else { return Err("the connection is closed".into()) };
        for s in statements {
            if let Err(e) = conn.query_drop(*s).await {
                if matches!(e, Error::Server(_)) {
                    self.conn = Some(conn);
                }
                return Err(text(&e));
            }
        }
        self.conn = Some(conn);
        Ok(())
    }

    /// Says goodbye.
    pub async fn close(self) -> Result<(), String> {
        match self.conn {
            Some(c) => c.disconnect().await.map_err(|e| text(&e)),
            None => Ok(()),
        }
    }
}

/// An error in the words that people know from other clients.
fn text(e: &Error) -> String {
    match e {
        Error::Server(s) => format!("Error {} ({}): {}", s.code, s.state, s.message),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::Dsn;

    #[test]
    fn dsns() {
        let d = Dsn::parse("root:p@ss:w)/x@tcp(127.0.0.1:3306)/app?tls=skip-verify&x=1");
        let want = Dsn {
            user: "root",
            password: "p@ss:w)/x",
            protocol: "tcp",
            address: "127.0.0.1:3306",
            database: "app",
            tls: Some("skip-verify"),
        };
        assert_eq!(d, Ok(want));
        let d = Dsn::parse("u@unix(/run/x.sock)/").unwrap();
        assert_eq!((d.user, d.password, d.protocol, d.address, d.database), ("u", "", "unix", "/run/x.sock", ""));
        assert!(Dsn::parse("nothing").is_err() && Dsn::parse("u:p@tcp(h:1/db").is_err());
    }
}
