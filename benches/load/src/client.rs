//! A blocking client over one kept connection, for what is done before and after the load.

use crate::call::Call;
use crate::h1;
use crate::target::Target;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// No request of the setup takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A client with a token.
pub struct Client {
    target: Target,
    token: Option<Arc<str>>,
    stream: Option<Box<dyn Stream>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, `Null` where it is not JSON.
    pub body: Value,
}

impl Client {
    /// Connects with the first request.
    pub fn new(target: &Target, token: &str) -> Client {
        let token = (!token.is_empty()).then(|| token.into());
        Client { target: target.over_http1(), token, stream: None }
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let socket = TcpStream::connect_timeout(&self.target.addr, Duration::from_secs(10))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(match &self.target.tls {
            None => Box::new(socket),
            Some((name, config)) => {
                let tls = rustls::ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
                Box::new(rustls::StreamOwned::new(tls, socket))
            }
        })
    }

    fn exchange(&mut self, call: &Call) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let mut out = Vec::new();
        call.write_h1(&self.target.authority, &mut out);
        stream.write_all(&out)?;
        stream.flush()?;
        let (mut buf, mut chunk) = (Vec::new(), [0; 16 * 1024]);
        loop {
            if let Some(parsed) = h1::parse(&buf)? {
                if !parsed.closes {
                    self.stream = Some(stream);
                }
                let body = serde_json::from_slice(&parsed.body).unwrap_or(Value::Null);
                return Ok(Answer { status: parsed.status, body });
            }
            match stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => buf.extend_from_slice(&chunk[..n]),
            }
        }
    }

    /// Sends a request; its own token is put in where the call has none.
    pub fn send(&mut self, mut call: Call) -> Result<Answer, String> {
        if call.token.is_none() {
            call.token.clone_from(&self.token);
        }
        self.exchange(&call).map_err(|e| format!("{} {}: {e}", call.method, call.path))
    }

    /// Sends a request that must succeed.
    pub fn demand(&mut self, call: Call) -> Result<Value, String> {
        let what = format!("{} {}", call.method, call.path);
        let answer = self.send(call)?;
        match answer.status {
            200..=299 => Ok(answer.body),
            status => Err(format!("{what}: status {status}: {}", answer.body)),
        }
    }

    /// Writes.
    pub fn post(&mut self, path: &str, body: &Value) -> Result<Value, String> {
        self.demand(Call::of("POST", path, Some(body)))
    }

    /// Reads.
    pub fn get(&mut self, path: &str) -> Result<Value, String> {
        self.demand(Call::of("GET", path, None))
    }
}
