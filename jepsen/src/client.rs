//! The clients' HTTP: one connection a call, so that nothing is ever sent twice behind the caller's back, and an end that
//! says what is known.

use serde_json::Value;
use std::time::Duration;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Body; null if it is none.
    pub body: Value,
}

impl Answer {
    /// A success.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first error text.
    pub fn error(&self) -> String {
        let text = self.body["errors"][0].as_str().unwrap_or_default();
        format!("{} {text}", self.status)
    }
}

/// No answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There was no connection: nothing was sent, so nothing was done.
    NotSent(String),
    /// Something may have been sent.
    Lost(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::NotSent(why) => write!(f, "no connection: {why}"),
            Trouble::Lost(why) => write!(f, "no answer: {why}"),
        }
    }
}

/// A client of no node in particular.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
}

impl Client {
    /// A client that waits for an answer so long.
    pub fn new(patience: Duration) -> Client {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(patience))
            .timeout_connect(Some(patience / 2))
            .max_redirects(0)
            .max_redirects_will_error(false)
            // a kept connection may be dead, and what was sent into it is neither done nor not done
            .max_idle_connections(0)
            .proxy(None)
            .build();
        Client { agent: config.into() }
    }

    /// A call with a JSON body.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn call(&self, base: &str, method: &str, path: &str, token: &str, body: &Value) -> Result<Answer, Trouble> {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        // what is promised of every answer is promised by the active node; standbys answer reads within a bound of age
        let headers = [("x-vault-token", token), ("x-vault-forward", "active-node")];
        let (status, bytes) = self.raw(base, method, path, &headers, bytes)?;
        Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
    }

    /// A call with a body of bytes, answered by status and bytes.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn raw(
        &self,
        base: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<(u16, Vec<u8>), Trouble> {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{base}/v1/{path}"));
        for (name, value) in headers.iter().filter(|(_, v)| !v.is_empty()) {
            request = request.header(*name, *value);
        }
        let not_sent = |e: &dyn std::fmt::Display| Trouble::NotSent(e.to_string());
        let answer = if body.is_empty() {
            self.agent.run(request.body(()).map_err(|e| not_sent(&e))?)
        } else {
            self.agent.run(request.body(body).map_err(|e| not_sent(&e))?)
        };
        let mut answer = answer.map_err(trouble)?;
        let bytes = answer.body_mut().with_config().limit(1 << 30).read_to_vec().map_err(trouble)?;
        Ok((answer.status().as_u16(), bytes))
    }
}

fn trouble(e: ureq::Error) -> Trouble {
    use std::io::ErrorKind as K;
    let text = e.to_string();
    match e {
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)
        | ureq::Error::ConnectionFailed
        | ureq::Error::HostNotFound => Trouble::NotSent(text),
        // refusals and missing routes come before a connection stands, never after
        ureq::Error::Io(io)
            if matches!(io.kind(), K::ConnectionRefused | K::HostUnreachable | K::NetworkUnreachable) =>
        {
            Trouble::NotSent(text)
        }
        _ => Trouble::Lost(text),
    }
}
