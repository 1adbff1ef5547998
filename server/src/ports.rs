//! From the configuration's listeners to listeners that can be bound: addresses resolved and found free, names of users
//! made numbers, certificates read. Runs before anything is started, so that a refusal leaves nothing behind.

use crate::api::answer::AnswerHeaders;
use crate::api::json::JsonLimits;
use crate::api::listen::{Listener, Place, SocketFile};
use crate::api::request::{Redact, Rules};
use crate::config::{self, Address, Config};
use crate::tls::TlsCell;
use ringfence_node::Cors;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

/// Rights of a socket file when the configuration says nothing. Source: Vault's `socket_mode`.
const SOCKET_MODE: u32 = 0o600;

/// All listeners of the configuration.
///
/// # Errors
/// Which listener is of no use, why, and what to do.
pub fn plan(config: &Config) -> Result<Vec<Listener>, String> {
    let listeners: Result<Vec<_>, _> = config.listeners.iter().map(|l| listener(l, config)).collect();
    match listeners {
        Ok(l) if l.is_empty() => Err("no listener is configured; add a listener stanza".into()),
        other => other,
    }
}

/// Where the cluster port listens, and whether the configuration says so: the first listener's `cluster_address`, else
/// the port after that of the first listener with one. None if there is no such port.
///
/// # Errors
/// The address cannot be resolved.
pub fn cluster(config: &Config, listeners: &[Listener]) -> Result<Option<(SocketAddr, bool)>, String> {
    if let Some(text) = config.listeners.iter().find_map(|l| l.cluster_address.as_deref()) {
        return Ok(Some((resolve(text)?, true)));
    }
    let after = listeners.iter().find_map(|l| match &l.place {
        Place::Tcp(a) if a.port() != 0 => Some(SocketAddr::new(a.ip(), a.port().checked_add(1)?)),
        _ => None,
    });
    Ok(after.map(|a| (a, false)))
}

/// The address of the cluster port that belongs to an API address: one port on, always encrypted.
pub fn next_port(api_addr: &str) -> String {
    let (scheme, rest) = api_addr.split_once("://").unwrap_or(("http", api_addr));
    let authority = rest.split('/').next().unwrap_or(rest);
    let host_end = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[host_end..].rfind(':') {
        Some(at) => (&authority[..host_end + at], authority[host_end + at + 1..].parse().ok()),
        None => (authority, None),
    };
    let port: u16 = port.unwrap_or(if scheme == "https" { 443 } else { 80 });
    format!("https://{host}:{}", port.saturating_add(1))
}

/// Finds out whether the listeners' places are free: cores share a port among themselves, so binding alone would let
/// two servers share it. A port of zero becomes the one that the kernel gives.
///
/// # Errors
/// Which is not, and the remedy.
pub fn claim(listeners: &mut [Listener]) -> Result<(), String> {
    for l in listeners {
        match &mut l.place {
            Place::Tcp(address) => {
                let found = TcpListener::bind(*address).and_then(|probe| probe.local_addr());
                *address = found.map_err(|e| tcp_refusal(*address, &e))?;
            }
            Place::Unix(socket) => claim_socket(&socket.path)?,
        }
    }
    Ok(())
}

fn tcp_refusal(address: SocketAddr, e: &std::io::Error) -> String {
    let (why, remedy) = match e.kind() {
        ErrorKind::AddrInUse => {
            ("address already in use".to_owned(), "stop the process that has it, or choose another address")
        }
        ErrorKind::AddrNotAvailable => {
            ("cannot assign requested address".to_owned(), "choose an address that this machine has")
        }
        ErrorKind::PermissionDenied => (
            "permission denied".to_owned(),
            "ports below 1024 want CAP_NET_BIND_SERVICE: grant it, or choose a higher port",
        ),
        _ => (e.to_string(), "choose another address"),
    };
    format!("Error initializing listener of type tcp: listen tcp {address}: bind: {why}; {remedy}")
}

fn claim_socket(path: &Path) -> Result<(), String> {
    let refusal = |why: &str| {
        Err(format!("Error initializing listener of type unix: listen unix {}: bind: {why}", path.display()))
    };
    match std::fs::symlink_metadata(path) {
        // left by a process that ended; binding replaces it
        Ok(found) if found.file_type().is_socket() => match UnixStream::connect(path) {
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(()),
            Err(e) => refusal(&format!("{e}; remove the file if no process uses it")),
            Ok(_) => refusal("address already in use; stop the process that serves it, or choose another path"),
        },
        Ok(_) => refusal("a file that is no socket is there; move it away, or choose another path"),
        Err(e) if e.kind() == ErrorKind::NotFound => match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
                refusal(&format!("folder {} does not exist; make it", folder.display()))
            }
            _ => Ok(()),
        },
        Err(e) => refusal(&e.to_string()),
    }
}

/// What the process itself adds to every response, if the operator wishes it.
pub fn own_headers(config: &Config) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    if config.enable_response_header_hostname {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        out.push(("x-vault-hostname", name.trim().to_owned()));
    }
    if config.enable_response_header_raft_node_id
        && let Some(config::Storage::Raft(r)) = &config.storage
        && let Some(id) = &r.node_id
    {
        out.push(("x-vault-raft-node-id", id.clone()));
    }
    out
}

fn listener(l: &config::Listener, config: &Config) -> Result<Listener, String> {
    let place = match &l.address {
        Address::Unix { path, mode, user, group } => Place::Unix(SocketFile {
            path: path.clone(),
            mode: mode.unwrap_or(SOCKET_MODE),
            user: user.as_deref().map(|name| number("/etc/passwd", "user", name)).transpose()?,
            group: group.as_deref().map(|name| number("/etc/group", "group", name)).transpose()?,
        }),
        Address::Tcp(text) => Place::Tcp(resolve(text)?),
    };
    let tls = match &l.tls {
        None => None,
        Some(t) => Some(Arc::new(
            TlsCell::new(t.clone())
                .map_err(|e| format!("Error initializing listener of type tcp: error loading TLS cert: {e}"))?,
        )),
    };
    let rules = Rules {
        max_request_bytes: usize::try_from(l.max_request_size_bytes).unwrap_or(usize::MAX),
        json: JsonLimits {
            depth: l.json.depth as usize,
            string_bytes: l.json.string_bytes as usize,
            object_entries: l.json.object_entries as usize,
            array_elements: l.json.array_elements as usize,
        },
        require_request_header: l.require_request_header,
        disable_printable_check: config.disable_printable_check,
        forwarded_for: l.forwarded_for.clone(),
        proxy_protocol: l.proxy_protocol.clone(),
        chroot: l.chroot_namespace.clone().unwrap_or_default(),
        redact: Redact {
            addresses: l.redact_addresses,
            cluster_name: l.redact_cluster_name,
            version: l.redact_version,
        },
        forwards_when_inconsistent: l.forwards_when_inconsistent,
        metrics_only: l.metrics.only,
        closed_metrics: l.metrics.disallowed,
        metrics_path: l.metrics.path.clone(),
        open_metrics: l.metrics.unauthenticated_access,
        open_in_flight: l.unauthenticated_in_flight_requests_access,
        closed_rekey: l.disable_unauthed_rekey_endpoints,
        closed_generate_root: l.disable_unauthed_generate_root_endpoints,
        closed_replication_status: l.disable_replication_status_endpoints,
        cors: l.cors_enabled.then(|| Cors::new(l.cors_allowed_origins.clone(), l.cors_allowed_headers.clone())),
        write_timeout: l.http_write_timeout,
        head_timeout: l.http_read_header_timeout,
        body_timeout: l.http_read_timeout,
        idle_timeout: l.http_idle_timeout,
        call_timeout: l.max_request_duration.unwrap_or(config.default_max_request_duration),
        answer_headers: AnswerHeaders::new(&l.custom_response_headers, &own_headers(config)),
    };
    Ok(Listener { place, rules: Arc::new(rules), tls })
}

fn resolve(text: &str) -> Result<SocketAddr, String> {
    text.to_socket_addrs().ok().and_then(|mut a| a.next()).ok_or_else(|| {
        format!(
            "Error initializing listener of type tcp: address {text:?} cannot be resolved; check the name, or write \
             an address"
        )
    })
}

/// The number of a user or group: itself, or looked up in the machine's table.
fn number(table: &str, kind: &str, name: &str) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = std::fs::read_to_string(table).unwrap_or_default();
    find_number(&text, name).ok_or_else(|| {
        format!("Error initializing listener of type unix: there is no {kind} {name:?} in {table}; write its number")
    })
}

/// `name:x:number:...`
fn find_number(table: &str, name: &str) -> Option<u32> {
    let line = table.lines().find(|l| l.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_names() {
        let table = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:\nbroken\n";
        assert_eq!(find_number(table, "www-data"), Some(33));
        assert_eq!(find_number(table, "www"), None);
        assert_eq!(find_number(table, "broken"), None);
        assert_eq!(number("/nowhere", "user", "7"), Ok(7));
        assert!(number("/nowhere", "user", "x").is_err());
    }

    #[test]
    fn the_cluster_port_is_the_next() {
        assert_eq!(next_port("http://127.0.0.1:8200"), "https://127.0.0.1:8201");
        assert_eq!(next_port("https://vault.example"), "https://vault.example:444");
        assert_eq!(next_port("https://[::1]:8200/"), "https://[::1]:8201");
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let held = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = held.local_addr().expect("an address");
        let listener = |at| Listener { place: Place::Tcp(at), rules: Arc::default(), tls: None };
        let refused = claim(&mut [listener(address)]).expect_err("taken");
        assert!(refused.contains(&address.to_string()) && refused.contains("already in use"), "{refused}");
        let mut free = [listener(SocketAddr::from(([127, 0, 0, 1], 0)))];
        claim(&mut free).expect("free");
        assert!(matches!(&free[0].place, Place::Tcp(a) if a.port() != 0));
    }
}
