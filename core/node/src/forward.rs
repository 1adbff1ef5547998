//! Calls that a standby passes on to the active node, and their answers, as bytes. The whole call goes: client address
//! and certificates, namespace, wrapping, the body as it was parsed; so the active node judges it as its own.
//!
//! ```text
//! call:  text id; u8 operation; text path; option text namespace, token; bool no_body; bytes JSON of the data;
//!        option text client address; num port; num wrap_ttl; bool wrap_jwt; num count, (text name, text value);
//!        option bytes raw body; num count, bytes certificate; num count, text MFA
//! reply: bytes JSON of the code; u8 body kind (0 none, 1 JSON, 2 other: text content type, headers), bytes;
//!        num count, (text name, text value)
//! option: bool, then the value
//! ```
//! Both are read within bounds, and any bytes are safe. A call that was passed on is never passed on again: the
//! receiver's shard is told so.

use crate::control;
use ringfence_base::{Code, CodecError, Reader, Secret, Writer, limit};
use ringfence_logical::{Error, Map, Operation, Raw};
use ringfence_vault::call::{Body, Call, Headers, Reply};
use std::sync::Arc;

/// Largest forwarded call or reply, bytes.
pub const MAX_FORWARD_BYTES: usize = 2 * limit::MAX_REQUEST_BYTES;
/// Most headers, certificates or MFA values.
const MAX_LIST: u64 = 1024;
/// Longest header, bytes.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// What a client can ask; the machine's own operations are never passed on.
const OPERATIONS: [Operation; 9] = [
    Operation::Create,
    Operation::Read,
    Operation::Update,
    Operation::Patch,
    Operation::Delete,
    Operation::List,
    Operation::Scan,
    Operation::Help,
    Operation::Header,
];

/// Headers of replies that the machine itself sets.
const REPLY_HEADERS: [&str; 3] = ["location", "retry-after", "x-vault-index"];

/// True for calls that the node at hand answers itself whatever it is: its seal, its health, who leads.
pub fn stays(call: &Call) -> bool {
    use control::Endpoint;
    match control::ControlCall::of(call) {
        Some(c) => !matches!(
            c.endpoint,
            Endpoint::RekeyInit
                | Endpoint::RekeyUpdate
                | Endpoint::RekeyVerify
                | Endpoint::GenerateRootAttempt
                | Endpoint::GenerateRootUpdate
                | Endpoint::RaftChallenge
                | Endpoint::RaftAnswer
        ),
        None => false,
    }
}

/// True for calls that are too large to be passed on and are redirected instead.
pub fn redirects(call: &Call) -> bool {
    matches!(call.path.as_str(), "sys/storage/raft/snapshot" | "sys/storage/raft/snapshot-force")
}

/// True if the client wants to be told where the active node is rather than be passed on.
pub fn declined(call: &Call) -> bool {
    call.headers.iter().any(|(name, value)| name == "x-vault-no-request-forwarding" && !value.is_empty())
}

/// True if the client wants the active node's answer, whatever this one could say. Obeyed where the configuration
/// allows it.
pub fn wished(call: &Call) -> bool {
    call.headers.mention("x-vault-forward:")
        && call.headers.iter().any(|(name, value)| name == "x-vault-forward" && value.trim() == "active-node")
}

/// True for calls that a standby does not even try: they write whatever comes of them, or are not its to answer.
pub fn surely_writes(call: &Call) -> bool {
    call.wrap_ttl > 0
        || matches!(call.op, Operation::Delete | Operation::Patch)
        || redirects(call)
        || of_standby(call).is_some()
}

/// True for answers that a standby leaves to the active node, because a little later it would say something else: it may
/// not know yet of a token, policy, role or key that a client was told of elsewhere. What is no read and says no more than
/// that it is done found nothing to do, perhaps too early.
pub fn may_be_too_early(call: &Call, reply: &Reply) -> bool {
    match reply.code {
        Code::Ok | Code::Quota => false,
        Code::Denied | Code::Internal => true,
        _ => !matches!(
            call.op,
            Operation::Read | Operation::List | Operation::Scan | Operation::Help | Operation::Header
        ),
    }
}

/// What a standby answers itself to calls that mean the node they are sent to.
pub fn of_standby(call: &Call) -> Option<Reply> {
    let text = "vault cannot seal when in standby mode; please restart instead";
    match (call.op, call.path.as_str()) {
        (Operation::Update, "sys/seal") if call.token.is_none() => Some(Reply::error(&Error::denied())),
        (Operation::Update, "sys/seal") => Some(Reply::error(&Error::new(Code::Internal, text))),
        // it is not active: nothing to give up
        (Operation::Update, "sys/step-down") => Some(Reply::empty(Code::NoContent)),
        _ => None,
    }
}

/// Sends a client to the active node, with the query it came with.
pub fn redirect(call: &Call, api_addr: &str) -> Reply {
    let mut location = format!("{}/v1/{}", api_addr.trim_end_matches('/'), escape(&call.path));
    if matches!(call.op, Operation::Read | Operation::List | Operation::Scan | Operation::Header | Operation::Help) {
        let mut pairs: Vec<String> = Vec::new();
        match call.op {
            Operation::List => pairs.push("list=true".into()),
            Operation::Scan => pairs.push("scan=true".into()),
            Operation::Help => pairs.push("help=1".into()),
            _ => {}
        }
        for (name, value) in &call.data {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            pairs.push(format!("{}={}", escape(name), escape(&text)));
        }
        if !pairs.is_empty() {
            location = format!("{location}?{}", pairs.join("&"));
        }
    }
    Reply { headers: vec![("location", location)], ..Reply::empty(Code::Custom(307)) }
}

/// Everything but unreserved characters and the slash in percent form (RFC 3986 2.3).
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(b.into()),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

pub(crate) fn write_call(w: &mut Writer, c: &Call) {
    let operation = OPERATIONS.iter().position(|o| *o == c.op).unwrap_or(OPERATIONS.len()) as u8;
    w.text(&c.id).u8(operation).text(&c.path);
    option_text(w, c.namespace.as_deref());
    option_text(w, c.token.as_ref().map(|t| t.expose().as_str()));
    w.bool(c.no_body);
    w.bytes(&serde_json::to_vec(&c.data).expect("a JSON tree always serialises"));
    option_text(w, c.remote.map(|a| a.to_string()).as_deref());
    w.num(c.remote_port.into()).num(c.wrap_ttl).bool(c.wrap_jwt);
    w.num(c.headers.iter().count() as u64);
    for (name, value) in c.headers.iter() {
        w.text(name).text(value);
    }
    w.bool(c.raw_body.is_some());
    if let Some(raw) = &c.raw_body {
        w.bytes(raw);
    }
    w.num(c.peer_certificates.len() as u64);
    for certificate in c.peer_certificates.iter() {
        w.bytes(certificate);
    }
    w.num(c.mfa.len() as u64);
    for value in &c.mfa {
        w.text(value);
    }
}

pub(crate) fn read_call(r: &mut Reader<'_>) -> Result<Call, CodecError> {
    let id = r.text(128)?.to_owned();
    let op = *OPERATIONS.get(usize::from(r.u8()?)).ok_or(CodecError::BadNumber)?;
    let path = r.text(limit::MAX_PATH_BYTES)?.to_owned();
    let namespace = read_option_text(r, limit::MAX_PATH_BYTES)?;
    let token = read_option_text(r, limit::MAX_TOKEN_BYTES)?.map(Secret::new);
    let no_body = r.bool()?;
    let data: Map = serde_json::from_slice(r.bytes(limit::MAX_REQUEST_BYTES)?).map_err(|_| CodecError::BadNumber)?;
    let remote = match read_option_text(r, 64)? {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| CodecError::BadNumber)?),
    };
    let remote_port = u16::try_from(r.num()?).map_err(|_| CodecError::BadNumber)?;
    let (wrap_ttl, wrap_jwt) = (r.num()?, r.bool()?);
    let mut headers = Headers::default();
    for _ in 0..count(r)? {
        let name = r.text(MAX_HEADER_BYTES)?;
        headers.push(name, r.text(MAX_HEADER_BYTES)?);
    }
    let raw_body = match r.bool()? {
        true => Some(Arc::new(r.bytes(limit::MAX_REQUEST_BYTES)?.to_vec())),
        false => None,
    };
    let mut certificates = Vec::new();
    for _ in 0..count(r)? {
        certificates.push(r.bytes(MAX_HEADER_BYTES)?.to_vec());
    }
    let mut mfa = Vec::new();
    for _ in 0..count(r)? {
        mfa.push(r.text(MAX_HEADER_BYTES)?.to_owned());
    }
    let peer_certificates = Arc::new(certificates);
    Ok(Call {
        id,
        op,
        path,
        namespace,
        token,
        data: data.into(),
        no_body,
        remote,
        remote_port,
        wrap_ttl,
        wrap_jwt,
        headers,
        raw_body,
        peer_certificates,
        mfa,
    })
}

pub(crate) fn write_reply(w: &mut Writer, reply: &Reply) {
    w.bytes(&serde_json::to_vec(&reply.code).expect("a code always serialises"));
    match &reply.body {
        Body::Empty => {
            w.u8(0);
        }
        Body::Json(bytes) => {
            w.u8(1).bytes(bytes);
        }
        Body::Raw(raw) => {
            w.u8(2).text(&raw.content_type).num(raw.headers.len() as u64);
            for (name, value) in &raw.headers {
                w.text(name).text(value);
            }
            w.bytes(&raw.body);
        }
    }
    w.num(reply.headers.len() as u64);
    for (name, value) in &reply.headers {
        w.text(name).text(value);
    }
}

pub(crate) fn read_reply(r: &mut Reader<'_>) -> Result<Reply, CodecError> {
    let code: Code = serde_json::from_slice(r.bytes(64)?).map_err(|_| CodecError::BadNumber)?;
    let body = match r.u8()? {
        0 => Body::Empty,
        1 => Body::Json(r.bytes(MAX_FORWARD_BYTES)?.to_vec()),
        2 => {
            let content_type = r.text(MAX_HEADER_BYTES)?.to_owned();
            let mut headers = Vec::new();
            for _ in 0..count(r)? {
                let name = r.text(MAX_HEADER_BYTES)?.to_owned();
                headers.push((name, r.text(MAX_HEADER_BYTES)?.to_owned()));
            }
            Body::Raw(Raw { content_type, headers, body: r.bytes(MAX_FORWARD_BYTES)?.to_vec() })
        }
        t => return Err(CodecError::BadTag(t)),
    };
    let mut headers = Vec::new();
    for _ in 0..count(r)? {
        let (name, value) = (r.text(MAX_HEADER_BYTES)?, r.text(MAX_HEADER_BYTES)?);
        // one that this build does not know is left out
        if let Some(name) = REPLY_HEADERS.iter().find(|n| **n == name) {
            headers.push((*name, value.to_owned()));
        }
    }
    Ok(Reply { code, body, headers })
}

fn count(r: &mut Reader<'_>) -> Result<u64, CodecError> {
    match r.num()? {
        n if n <= MAX_LIST => Ok(n),
        _ => Err(CodecError::TooLong),
    }
}

fn option_text(w: &mut Writer, text: Option<&str>) {
    w.bool(text.is_some());
    if let Some(text) = text {
        w.text(text);
    }
}

fn read_option_text(r: &mut Reader<'_>, max: usize) -> Result<Option<String>, CodecError> {
    Ok(match r.bool()? {
        true => Some(r.text(max)?.to_owned()),
        false => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call() -> Call {
        let mut headers = Headers::default();
        headers.push("user-agent", "curl/8");
        Call {
            id: "5f2c".into(),
            op: Operation::Patch,
            path: "secret/data/a".into(),
            namespace: Some("team/".into()),
            token: Some(Secret::new("hvs.x".to_owned())),
            data: json!({"data": {"a": 1, "b": [true, null]}}).as_object().cloned().expect("an object").into(),
            no_body: false,
            remote: Some("::1".parse().expect("an address")),
            remote_port: 4711,
            wrap_ttl: 60,
            wrap_jwt: true,
            headers,
            raw_body: Some(Arc::new(vec![0, 1, 2])),
            peer_certificates: Arc::new(vec![vec![9; 10]]),
            mfa: vec!["id:123456".into()],
        }
    }

    #[test]
    fn a_call_goes_whole() {
        for call in [call(), Call { namespace: None, token: None, remote: None, raw_body: None, ..call() }] {
            let mut w = Writer::new();
            write_call(&mut w, &call);
            let bytes = w.finish();
            let mut r = Reader::new(&bytes);
            let back = read_call(&mut r).expect("reads");
            r.end().expect("nothing more");
            assert_eq!(format!("{back:?}"), format!("{call:?}"));
            assert_eq!(back.token.map(|t| t.expose().clone()), call.token.map(|t| t.expose().clone()));
            for cut in 0..bytes.len() {
                let mut r = Reader::new(&bytes[..cut]);
                assert!(read_call(&mut r).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_reply_goes_whole() {
        let raw = Raw { content_type: "a/b".into(), headers: vec![("x".into(), "y".into())], body: vec![1, 2] };
        for body in [Body::Empty, Body::Json(b"{}".to_vec()), Body::Raw(raw)] {
            for code in [Code::Ok, Code::Custom(473), Code::Unavailable] {
                let reply = Reply { code, body: body.clone(), headers: vec![("location", "http://a".into())] };
                let mut w = Writer::new();
                write_reply(&mut w, &reply);
                let bytes = w.finish();
                assert_eq!(read_reply(&mut Reader::new(&bytes)), Ok(reply));
            }
        }
    }

    #[test]
    fn what_a_node_answers_itself_is_not_passed_on() {
        let at = |path: &str| Call { path: path.into(), ..call() };
        for path in ["sys/health", "sys/seal-status", "sys/unseal", "sys/leader", "sys/init", "sys/storage/raft/join"]
        {
            assert!(stays(&at(path)), "{path}");
        }
        for path in ["sys/rekey/init", "sys/generate-root/attempt", "sys/step-down", "secret/data/x", "sys/ha-status"]
        {
            assert!(!stays(&at(path)), "{path}");
        }
    }
}
