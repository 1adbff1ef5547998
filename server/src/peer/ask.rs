//! A joiner's questions to the API of a node of the cluster, on a thread that may block.

use crate::cli::client::{CallError, Client, Dry, Request, Settings};
use crate::cli::tls::Tls;
use ringfence_node::{JoinAsk, JoinSaid, JoinTarget};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Whole time of a question.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Whole time of a question to one of several addresses of a name.
const TIMEOUT_OF_ONE: Duration = Duration::from_secs(3);
/// Addresses of a name that are asked at one time; others come next time.
const MAX_ADDRESSES: usize = 8;
static BEGIN: AtomicUsize = AtomicUsize::new(0);

/// Asks and waits.
pub fn ask(ask: JoinAsk) -> JoinSaid {
    if !ask.target.each_address {
        return ask_one(settings(&ask.target)?, &ask);
    }
    let mut last = Err("the name has no address".to_owned());
    for settings in at_each_address(&ask.target)? {
        let said = ask_one(settings, &ask);
        if matches!(said, Ok((200, _))) {
            return said;
        }
        // this node itself, one that is in no cluster yet, or one that is down: another may know more
        last = match (last, said) {
            (Ok(told), Err(_)) => Ok(told),
            (_, said) => said,
        };
    }
    last
}

/// The same question to every address that the target's name has now, beginning with another one each time.
fn at_each_address(target: &JoinTarget) -> Result<Vec<Settings>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", target.api_addr);
    let uri: hyper::Uri = target.api_addr.parse().map_err(|e| failed(&e))?;
    let (Some(scheme), Some(host), Some(port)) = (uri.scheme_str(), uri.host(), uri.port_u16()) else {
        return Err(failed(&"scheme, host and port are needed"));
    };
    let mut found: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(|e| failed(&e))?.collect();
    let first = BEGIN.fetch_add(1, Ordering::Relaxed) % found.len().max(1);
    found.rotate_left(first);
    found.truncate(MAX_ADDRESSES);
    let one = |address: SocketAddr| {
        let mut one = settings(target)?;
        one.address = format!("{scheme}://{address}");
        // the certificate is of the name that was looked up, not of an address
        one.tls.server_name.get_or_insert_with(|| host.to_owned());
        one.timeout = TIMEOUT_OF_ONE;
        Ok(one)
    };
    found.into_iter().map(one).collect()
}

fn ask_one(settings: Settings, ask: &JoinAsk) -> JoinSaid {
    match Client::new(settings)?.call(&Request::put(ask.path, ask.body.clone())) {
        Ok(reply) => Ok((200, reply.body)),
        Err(CallError::Refused(refused)) => Ok((refused.status, refused.body)),
        Err(CallError::Failed(why) | CallError::Dry(why)) => Err(why),
    }
}

fn settings(target: &JoinTarget) -> Result<Settings, String> {
    let client_text = match (&target.client_cert_pem, &target.client_key_pem) {
        (Some(cert), Some(key)) => Some((cert.clone(), key.expose().clone())),
        (None, None) => None,
        _ => return Err("leader_client_cert and leader_client_key must be given together".into()),
    };
    Ok(Settings {
        address: target.api_addr.trim_end_matches('/').to_owned(),
        token: String::new(),
        namespace: None,
        wrap_ttl: None,
        mfa: Vec::new(),
        headers: Vec::new(),
        policy_override: false,
        follow_redirect: true,
        max_retries: 0,
        retry_pause: Duration::ZERO,
        timeout: TIMEOUT,
        proxy: None,
        proxy_from_environment: false,
        tls: Tls {
            ca_cert_text: target.ca_pem.clone(),
            client_text,
            server_name: target.server_name.clone(),
            ..Tls::default()
        },
        dry: Dry::No,
        program: "ringfence",
    })
}
