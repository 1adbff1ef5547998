//! Challenges: how an account proves that it controls a name. HTTP-01 and DNS-01 (RFC 8555 8.3, 8.4), TLS-ALPN-01
//! (RFC 8737, RFC 8738 for addresses).
//!
//! A challenge is validated by a side operation while its request waits; who asked is checked again when the answer is
//! in. One that proved nothing is tried again by itself, a few times and later each time (RFC 8555 8.2), by a job of the
//! owner's wheel; its client may ask for the next try earlier. After the last it is invalid. Loopback, private and link-local addresses are connected to only if the operator permitted their range. What
//! the outside answered is judged here and told to nobody.

use super::ACME;
use super::account::{Account, check};
use super::config::Config;
use super::directory::{Directory, Problem, Reply, absent, framed};
use super::order::{Authorization, Identifier, authz_suffix, load_authz};
use crate::cert;
use crate::store;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::Decode;
use der::asn1::{ObjectIdentifier, OctetString};
use ringfence_base::Wall;
use ringfence_logical::cx::job_key;
use ringfence_logical::{
    Args, Cx, Error, HttpAsk, Outcome, Probe, ProbeKind, Reach, SideOp, SideResult, Step, nothing,
};
use serde_json::{Value, json};
use std::net::IpAddr;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Milliseconds that a host has to answer, while its client waits and when it is asked again.
const TIMEOUT_MS: u32 = 10_000;
const AGAIN_TIMEOUT_MS: u32 = 5_000;
/// Seconds from a try that proved nothing to the next: a page or a record may be there a moment later. A challenge has
/// one try more than there are waits.
const WAITS_SECONDS: [u64; 5] = [2, 4, 8, 16, 32];
/// A client that asks for the next try sooner than this after the last is told how it stands.
const ASK_AGAIN_SECONDS: u64 = 1;
/// Challenges of a mount that may wait for their next try. Clients are strangers, and who tries again is the worker that
/// ends leases: half of what it does at a time is left to them. One more is invalid at its first failure.
const MAX_WAITING: usize = 8;
/// Jobs: this, the account, a slash, the authorization.
const JOB: &str = "acme/";
/// Longest answer over HTTP.
const MAX_ANSWER_BYTES: usize = 1024;
/// Redirects that are followed over HTTP.
const REDIRECTS: u8 = 5;
/// The protocol of TLS-ALPN-01.
const PROTOCOL: &str = "acme-tls/1";
/// `id-pe-acmeIdentifier`.
const ACME_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.31");

/// The kinds of challenges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Challenge {
    #[default]
    #[serde(rename = "http-01")]
    Http,
    #[serde(rename = "dns-01")]
    Dns,
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
}

impl Challenge {
    fn name(self) -> &'static str {
        match self {
            Challenge::Http => "http-01",
            Challenge::Dns => "dns-01",
            Challenge::TlsAlpn => "tls-alpn-01",
        }
    }

    /// What may prove an authorization: a star by DNS only (RFC 8555 7.1.3), an address never by DNS (RFC 8738 7).
    fn offered(a: &Authorization) -> &'static [Challenge] {
        match (a.wildcard, a.identifier.kind.as_str()) {
            (true, _) => &[Challenge::Dns],
            (false, "ip") => &[Challenge::Http, Challenge::TlsAlpn],
            (false, _) => &[Challenge::Http, Challenge::Dns, Challenge::TlsAlpn],
        }
    }

    /// The question that validates it.
    fn question(self, a: &Authorization, reach: Reach, timeout_ms: u32) -> SideOp {
        let value = &a.identifier.value;
        let probe = |what| SideOp::Probe(Box::new(Probe { what, reach: reach.clone(), timeout_ms }));
        match self {
            Challenge::Http => {
                let host = match value.parse::<IpAddr>() {
                    Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
                    _ => value.clone(),
                };
                SideOp::Http(Box::new(HttpAsk {
                    timeout_ms,
                    max_answer_bytes: MAX_ANSWER_BYTES,
                    redirects: REDIRECTS,
                    reach,
                    ..HttpAsk::get(format!("http://{host}/.well-known/acme-challenge/{}", a.token))
                }))
            }
            Challenge::Dns => probe(ProbeKind::Texts { name: format!("_acme-challenge.{value}") }),
            Challenge::TlsAlpn => {
                let server_name = value.parse::<IpAddr>().map_or_else(|_| value.clone(), reverse_name);
                probe(ProbeKind::Leaf { host: value.clone(), server_name, protocol: PROTOCOL })
            }
        }
    }

    /// What the answer proves: nothing is wrong, or what is.
    fn judge(self, a: &Authorization, key_authorization: &str, answer: &SideResult) -> Result<(), Problem> {
        let unauthorized = |why: &str| Problem::new("unauthorized", why);
        match (self, answer) {
            (Challenge::Http, SideResult::Http(answer)) => match answer.status {
                200 if String::from_utf8_lossy(&answer.body).trim_end() == key_authorization => Ok(()),
                200 => Err(unauthorized("the answer is not the key authorization")),
                n => Err(Problem::new("unauthorized", format!("the answer has status {n}"))),
            },
            (Challenge::Dns, SideResult::Json(texts)) => {
                let wanted = URL_SAFE_NO_PAD.encode(digest(&SHA256, key_authorization.as_bytes()));
                match texts.as_array().is_some_and(|all| all.iter().any(|t| *t == *wanted)) {
                    true => Ok(()),
                    false => Err(Problem::new(
                        "unauthorized",
                        format!(
                            "no TXT record of _acme-challenge.{} is the digest of the key authorization",
                            a.identifier.value
                        ),
                    )),
                }
            }
            (Challenge::TlsAlpn, SideResult::Bytes(der)) => {
                let mark = digest(&SHA256, key_authorization.as_bytes());
                shows(der, &a.identifier, mark.as_ref()).map_err(unauthorized)
            }
            (Challenge::Dns, _) => Err(Problem::new("dns", "the name servers could not be asked")),
            _ => Err(Problem::new(
                "connection",
                "the identifier's host could not be asked, or has only addresses that may not be connected to",
            )),
        }
    }
}

/// The name under which RFC 8738 6 asks for the certificate of an address.
fn reverse_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let digits = hex::encode(ip.octets());
            let reversed: Vec<String> = digits.chars().rev().map(String::from).collect();
            format!("{}.ip6.arpa", reversed.join("."))
        }
    }
}

/// Checks that a certificate names the identifier and nothing else, and carries the mark in a critical extension.
fn shows(der: &[u8], identifier: &Identifier, mark: &[u8]) -> Result<(), &'static str> {
    let parsed = cert::parse(der).map_err(|_| "what the host shows is no certificate")?;
    let extensions = parsed.tbs_certificate.extensions.as_ref();
    let names = cert::find::<SubjectAltName>(extensions).ok_or("the host's certificate names nobody")?;
    let named = match &names.0[..] {
        [GeneralName::DnsName(n)] => n.as_str().eq_ignore_ascii_case(&identifier.value),
        [GeneralName::IpAddress(bytes)] => match identifier.value.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => bytes.as_bytes() == ip.octets(),
            Ok(IpAddr::V6(ip)) => bytes.as_bytes() == ip.octets(),
            Err(_) => false,
        },
        _ => false,
    };
    if !named {
        return Err("the host's certificate does not name the identifier alone");
    }
    let mut marks = extensions.into_iter().flatten().filter(|e| e.extn_id == ACME_IDENTIFIER);
    match (marks.next(), marks.next()) {
        (Some(e), None) if e.critical => {
            let shown = OctetString::from_der(e.extn_value.as_bytes()).map_err(|_| "the host's mark is no DER")?;
            match shown.as_bytes() == mark {
                true => Ok(()),
                false => Err("the host's certificate does not carry the digest of the key authorization"),
            }
        }
        _ => Err("the host's certificate carries no critical acmeIdentifier extension"),
    }
}

/// The challenges of an authorization: all that are offered until one has an end, then that one.
pub fn shown(d: &Directory, a: &Authorization) -> Vec<Value> {
    let open = matches!(a.challenge_status.as_str(), "pending" | "processing");
    Challenge::offered(a).iter().filter(|c| open || **c == a.challenge).map(|c| one_shown(d, a, *c)).collect()
}

/// Seconds until the next try, of a challenge that waits for it.
pub fn retry_after(cx: &Cx<'_, '_>, a: &Authorization) -> Option<u64> {
    let waits = a.status == "pending" && a.challenge_status == "processing";
    waits.then(|| a.next_ns.saturating_sub(cx.now.0).div_ceil(1_000_000_000).max(1))
}

fn one_shown(d: &Directory, a: &Authorization, challenge: Challenge) -> Value {
    let name = challenge.name();
    // nobody tried the others of one that is being tried
    let other = a.challenge_status == "processing" && challenge != a.challenge;
    let mut shown = json!({
        "type": name,
        "url": d.url(&format!("challenge/{}/{name}", a.id)),
        "status": if other { "pending" } else { &a.challenge_status },
        "token": a.token,
    });
    if other {
        return shown;
    }
    if a.validated_ns > 0 {
        shown["validated"] = Wall(a.validated_ns).rfc3339_seconds().into();
    }
    if let Some(e) = &a.error {
        shown["error"] = e.clone();
    }
    shown
}

fn reply(cx: &Cx<'_, '_>, d: &Directory, a: &Authorization, challenge: Challenge) -> Reply {
    let link = format!("<{}>;rel=\"up\"", d.url(&format!("authorization/{}", a.id)));
    let retry_after = if challenge == a.challenge { retry_after(cx, a) } else { None };
    Reply { link: Some(link), retry_after, ..Reply::json(200, &one_shown(d, a, challenge)) }
}

/// `challenge/:id/:type`.
pub fn answer(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let d = match Directory::of(cx, args)? {
        None => return absent(),
        Some(Err(p)) => return framed(cx, None, Err(p)),
        Some(Ok(d)) => d,
    };
    match begin(cx, args, &d) {
        // nothing to validate: the challenge as it stands
        Ok(Err(reply)) => framed(cx, Some(&d), Ok(reply)),
        Ok(Ok(op)) => {
            let args = args.clone();
            let resume = Box::new(move |cx: &mut Cx<'_, '_>, result: &SideResult| validated(cx, &args, result));
            // the nonce is spent when the answer is in; what this transaction holds is dropped
            cx.txn.discard_writes();
            Ok(Step::Side { op, resume })
        }
        Err(p) => framed(cx, Some(&d), Err(p)),
    }
}

/// The challenge of a request, if its authorization offers it.
fn asked_for(args: &Args, a: &Authorization) -> Result<Challenge, Problem> {
    let found = Challenge::offered(a).iter().find(|c| c.name() == args.str("challenge_type"));
    found.copied().ok_or_else(|| Problem::malformed("there is no such challenge"))
}

/// What is to be asked outside, or the answer if nothing is.
fn begin(cx: &mut Cx<'_, '_>, args: &Args, d: &Directory) -> Result<Result<SideOp, Reply>, Problem> {
    let asked = check(cx, args, d)?;
    let a = load_authz(cx, asked.account()?, args.str("auth_id"))?;
    let challenge = asked_for(args, &a)?;
    let may_be_tried = match a.challenge_status.as_str() {
        "pending" => true,
        "processing" => Wall(a.tried_ns).plus_seconds(ASK_AGAIN_SECONDS) <= cx.now,
        _ => false,
    };
    if asked.jws.payload.is_empty() || a.status != "pending" || !may_be_tried {
        return Ok(Err(reply(cx, d, &a, challenge)));
    }
    Ok(Ok(challenge.question(&a, d.config.reach(), TIMEOUT_MS)))
}

fn validated(cx: &mut Cx<'_, '_>, args: &Args, result: &SideResult) -> Outcome {
    let d = match Directory::of(cx, args)? {
        None => return absent(),
        Some(Err(p)) => return framed(cx, None, Err(p)),
        Some(Ok(d)) => d,
    };
    let reply = settle(cx, args, &d, result);
    framed(cx, Some(&d), reply)
}

fn settle(cx: &mut Cx<'_, '_>, args: &Args, d: &Directory, result: &SideResult) -> Result<Reply, Problem> {
    let asked = check(cx, args, d)?;
    let account = asked.account()?;
    let mut a = load_authz(cx, account, args.str("auth_id"))?;
    let challenge = asked_for(args, &a)?;
    if a.status == "pending" {
        conclude(cx, account, &mut a, challenge, result)?;
    }
    Ok(reply(cx, d, &a, challenge))
}

/// Writes down what a try showed: an end, or when the next one is.
fn conclude(
    cx: &mut Cx<'_, '_>,
    account: &Account,
    a: &mut Authorization,
    challenge: Challenge,
    result: &SideResult,
) -> Result<(), Error> {
    let job = format!("{JOB}{}/{}", account.id, a.id);
    a.challenge = challenge;
    a.tries = a.tries.saturating_add(1);
    a.tried_ns = cx.now.0;
    let next = match challenge.judge(a, &format!("{}.{}", a.token, account.thumbprint), result) {
        Ok(()) => {
            a.validated_ns = cx.now.0;
            a.error = None;
            None
        }
        Err(p) => {
            a.error = Some(p.shown());
            next_try(cx, a, &job)
        }
    };
    let status = match (next, &a.error) {
        (Some(at), _) => {
            a.next_ns = at.0;
            cx.schedule(&job, at);
            "processing"
        }
        (None, Some(_)) => "invalid",
        (None, None) => "valid",
    };
    if next.is_none() {
        cx.unschedule(&job);
        a.status = status.into();
    }
    a.challenge_status = status.into();
    cx.put_json(ACME, &authz_suffix(&account.id, &a.id), a);
    Ok(())
}

/// When a challenge that failed is to be tried again, if it is.
fn next_try(cx: &mut Cx<'_, '_>, a: &Authorization, job: &str) -> Option<Wall> {
    let wait = WAITS_SECONDS.get(usize::from(a.tries).checked_sub(1)?)?;
    let at = cx.now.plus_seconds(*wait);
    if at.0 >= a.expires_ns {
        return None;
    }
    let (own, all) = (job_key(cx.mount.id, job), job_key(cx.mount.id, JOB));
    let is_one_more = !cx.txn.exists(&own) && cx.txn.list(&all, None, MAX_WAITING).len() >= MAX_WAITING;
    (!is_one_more).then_some(at)
}

/// A job of this module is due; `None` if the job is another's.
pub fn due(cx: &mut Cx<'_, '_>, job: &str) -> Option<Outcome> {
    let (account, id) = job.strip_prefix(JOB)?.split_once('/')?;
    Some(try_again(cx, account.to_owned(), id.to_owned()))
}

fn try_again(cx: &mut Cx<'_, '_>, account: String, id: String) -> Outcome {
    let config: Config = store::config(cx, "acme")?;
    let Some((_, a)) = waiting(cx, &account, &id)? else { return nothing() };
    // what was switched off asks nobody: the client may ask for the next try when it is on again
    if !config.enabled {
        return nothing();
    }
    let op = a.challenge.question(&a, config.reach(), AGAIN_TIMEOUT_MS);
    let (challenge, tries) = (a.challenge, a.tries);
    let resume = Box::new(move |cx: &mut Cx<'_, '_>, result: &SideResult| {
        // its client may have had it tried meanwhile
        if let Some((owner, mut a)) = waiting(cx, &account, &id)?
            && (a.challenge, a.tries) == (challenge, tries)
        {
            conclude(cx, &owner, &mut a, challenge, result)?;
        }
        nothing()
    });
    Ok(Step::Side { op, resume })
}

/// An authorization that waits for its next try, and whose it is.
fn waiting(cx: &mut Cx<'_, '_>, account: &str, id: &str) -> Result<Option<(Account, Authorization)>, Error> {
    let owner: Option<Account> = cx.get_json(ACME, format!("acct/{account}").as_bytes())?;
    let found: Option<Authorization> = cx.get_json(ACME, &authz_suffix(account, id))?;
    let (Some(owner), Some(a)) = (owner, found) else { return Ok(None) };
    let waits = a.status == "pending" && a.challenge_status == "processing" && a.expires_ns > cx.now.0;
    Ok((owner.status == "valid" && waits).then_some((owner, a)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_addresses() {
        assert_eq!(reverse_name("192.0.2.34".parse().unwrap()), "34.2.0.192.in-addr.arpa");
        assert_eq!(
            reverse_name("2001:db8::1".parse().unwrap()),
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }
}
