//! One HTTP question, carried out on a thread that may block. Connections are kept and used again by questions that
//! trust the same certificates.

use super::names;
use crate::cli::tls::{parse_certificates, system_certificates};
use ringfence_node::{HttpAnswer, HttpAsk, Reach, SideResult};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use ureq::http;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// Sets of trusted certificates whose connections are kept.
const MAX_AGENTS: usize = 32;
/// Longest file of certificates or with a token.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Longest time that any question may ask for.
const MAX_TIMEOUT_MS: u32 = 120_000;
/// Most times that a question is asked again.
const MAX_RETRIES: u8 = 10;
/// Longest time that looking a name up may take.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that any question may ask for.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// Clients by what they trust.
#[derive(Default)]
pub struct Carrier {
    agents: Mutex<VecDeque<(Kind, ureq::Agent)>>,
}

/// What makes one client different from another.
#[derive(Clone, Debug, PartialEq)]
struct Kind {
    /// PEM; `None` is what the machine trusts.
    ca_pem: Option<String>,
    redirects: u8,
    reach: Reach,
    /// Go through the proxy that the environment names.
    proxied: bool,
}

impl Carrier {
    /// Asks and waits.
    pub fn carry_out(&self, ask: &HttpAsk) -> SideResult {
        let mut asked = self.asked(ask);
        for _ in 0..ask.retries.min(MAX_RETRIES) {
            match &asked {
                Ok(answer) if answer.status < 500 => break,
                _ => asked = self.asked(ask),
            }
        }
        match asked {
            Ok(answer) => SideResult::Http(Arc::new(answer)),
            Err(why) => SideResult::Failed(format!("{} {}: {why}", ask.method, shown(&ask.url))),
        }
    }

    fn asked(&self, ask: &HttpAsk) -> Result<HttpAnswer, String> {
        let uri: http::Uri = ask.url.parse().map_err(|e| format!("not a URL: {e}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("only http and https URLs can be asked".into());
        }
        let from_file = ask.ca_file.filter(|_| ask.ca_pem.is_none()).and_then(|f| read_file(Path::new(f)));
        let host = uri.host().unwrap_or_default();
        let kind = Kind {
            ca_pem: ask.ca_pem.clone().or(from_file),
            redirects: ask.redirects,
            reach: ask.reach.clone(),
            // a proxy would look the name up where we cannot see the address
            proxied: ask.reach == Reach::default() && !is_loopback(host),
        };
        let agent = self.agent(&kind)?;
        let mut builder = http::Request::builder().method(ask.method).uri(uri);
        let bearer = ask.bearer_file.and_then(|f| read_file(Path::new(f)));
        for (name, value) in &ask.headers {
            if bearer.is_none() || !name.eq_ignore_ascii_case("authorization") {
                builder = builder.header(name, value);
            }
        }
        if let Some(token) = bearer {
            builder = builder.header("authorization", format!("Bearer {}", token.trim()));
        }
        let body = match (ask.body.is_empty(), ask.method) {
            (true, "GET" | "HEAD" | "DELETE") => ureq::SendBody::none(),
            _ => {
                builder = builder.header("content-length", ask.body.len().to_string());
                ureq::SendBody::from_owned_reader(std::io::Cursor::new(ask.body.clone()))
            }
        };
        let request = builder.body(body).map_err(|e| e.to_string())?;
        let timeout = Duration::from_millis(ask.timeout_ms.clamp(1, MAX_TIMEOUT_MS).into());
        let request = agent.configure_request(request).timeout_global(Some(timeout)).build();
        let response = agent.run(request).map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
        let headers = response.headers().iter().map(|(k, v)| (k.as_str().to_owned(), text(v))).collect();
        let limit = ask.max_answer_bytes.min(MAX_ANSWER_BYTES);
        let mut body = response.into_body();
        // one byte more than allowed tells a long answer from one that just fits
        let bytes = body.with_config().limit(limit as u64 + 1).read_to_vec().map_err(|e| e.to_string())?;
        if bytes.len() > limit {
            return Err(format!("the answer is longer than {limit} bytes"));
        }
        Ok(HttpAnswer { status, headers, body: bytes })
    }

    /// The client for what is trusted; the one that was not used for longest makes room.
    fn agent(&self, kind: &Kind) -> Result<ureq::Agent, String> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = agents.iter().position(|(k, _)| k == kind)
            && let Some(found) = agents.remove(at)
        {
            agents.push_back(found.clone());
            return Ok(found.1);
        }
        drop(agents);
        let agent = make(kind)?;
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        agents.push_back((kind.clone(), agent.clone()));
        if agents.len() > MAX_AGENTS {
            agents.pop_front();
        }
        Ok(agent)
    }
}

fn make(kind: &Kind) -> Result<ureq::Agent, String> {
    let roots = match &kind.ca_pem {
        Some(pem) => parse_certificates(pem.as_bytes(), Path::new("certificates to trust"))?,
        None => system_certificates()?,
    };
    let roots: Vec<Certificate<'static>> = roots.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .build();
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .max_redirects(kind.redirects.into())
        .max_redirects_will_error(false)
        .max_idle_connections_per_host(4)
        .max_idle_connections(16)
        .proxy(kind.proxied.then(ureq::Proxy::try_from_env).flatten())
        .accept_encoding("identity")
        .user_agent(concat!("ringfence/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build();
    let names = Names { reach: kind.reach.clone() };
    Ok(ureq::Agent::with_parts(config, DefaultConnector::default(), names))
}

/// Looks names up. What it answers is what is connected to, so an address cannot change after it was judged.
#[derive(Debug)]
struct Names {
    reach: Reach,
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &http::Uri,
        _: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?.trim_matches(['[', ']']);
        let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let patience = timeout.not_zero().map_or(LOOK_UP_TIMEOUT, |d| (*d).min(LOOK_UP_TIMEOUT));
        let addresses = names::addresses(host, uri.port_u16().unwrap_or(default), &self.reach, patience)
            .map_err(|why| ureq::Error::Io(std::io::Error::other(why)))?;
        let mut found = self.empty();
        for address in addresses {
            found.push(address);
        }
        Ok(found)
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A small text file, if it is there.
fn read_file(path: &Path) -> Option<String> {
    let size = std::fs::metadata(path).ok()?.len();
    if size > MAX_FILE_BYTES {
        return None;
    }
    std::fs::read_to_string(path).ok().filter(|t| !t.trim().is_empty())
}

/// A URL as errors show it: what stands before `@` or after `?` may be a secret.
fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').map_or((rest, String::new()), |(a, p)| (a, format!("/{p}")));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_urls_are_not_shown() {
        assert_eq!(shown("https://user:pw@h:1/p?token=x#y"), "https://h:1/p");
        assert_eq!(shown("https://user:pw@h"), "https://h");
    }
}
