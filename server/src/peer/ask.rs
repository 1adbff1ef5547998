//! A joiner's questions to the API of a node of the cluster, on a thread that may block.

use crate::cli::client::{CallError, Client, Dry, Request, Settings};
use crate::cli::tls::Tls;
use ringfence_node::{JoinAsk, JoinSaid, JoinTarget};
use std::time::Duration;

/// Whole time of a question.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks and waits.
pub fn ask(ask: JoinAsk) -> JoinSaid {
    let client = Client::new(settings(&ask.target)?)?;
    match client.call(&Request::put(ask.path, ask.body)) {
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
