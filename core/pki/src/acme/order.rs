//! Orders, authorizations, certificates.

use super::ACME;
use super::account::{Account, signed, token};
use super::challenge::{self, Challenge};
use super::directory::{Directory, Problem, Reply};
use super::jws::is_key;
use crate::authority::Authority;
use crate::cert::{self, Request};
use crate::issue;
use crate::names::{self, Asker};
use crate::pem;
use crate::store::{self, Outliving, Usage};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_base::Wall;
use ringfence_base::entropy::uuid4;
use ringfence_logical::{Args, Cx, Outcome};
use serde_json::{Value, json};
use std::net::IpAddr;
use x509_cert::ext::pkix::name::GeneralName;

/// Seconds that an order or authorization lives.
const LIFE_SECONDS: u64 = 24 * 3600;
/// Most identifiers of an order.
const MAX_IDENTIFIERS: usize = 100;

/// What a certificate is wanted for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Identifier {
    /// `dns` or `ip`.
    #[serde(rename = "type")]
    pub kind: String,
    pub value: String,
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Order {
    id: String,
    status: String,
    expires_ns: u64,
    identifiers: Vec<Identifier>,
    authorizations: Vec<String>,
    directory: String,
    /// Serial number, once there is a certificate.
    serial: String,
    issuer_id: String,
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Authorization {
    pub id: String,
    pub status: String,
    pub expires_ns: u64,
    /// Without the star of a wildcard name.
    pub identifier: Identifier,
    /// The order names `*.` before the identifier.
    #[serde(default)]
    pub wildcard: bool,
    /// Of all its challenges.
    pub token: String,
    /// The challenge that was tried, once its status is not `pending`.
    #[serde(default)]
    pub challenge: Challenge,
    /// `pending`, `processing` (it failed and will be tried again), `valid`, `invalid`.
    pub challenge_status: String,
    pub validated_ns: u64,
    pub error: Option<Value>,
    /// How often it was tried.
    #[serde(default)]
    pub tries: u8,
    /// When last.
    #[serde(default)]
    pub tried_ns: u64,
    /// When next, while it is `processing`.
    #[serde(default)]
    pub next_ns: u64,
}

fn order_suffix(account: &str, id: &str) -> Vec<u8> {
    format!("order/{account}/{id}").into_bytes()
}

/// The record of an authorization.
pub fn authz_suffix(account: &str, id: &str) -> Vec<u8> {
    format!("authz/{account}/{id}").into_bytes()
}

fn load_order(cx: &mut Cx<'_, '_>, account: &Account, id: &str) -> Result<Order, Problem> {
    let missing = || Problem::malformed("there is no such order");
    let mut o: Order = cx.get_json(ACME, &order_suffix(&account.id, id))?.ok_or_else(missing)?;
    if o.status == "pending" {
        let all = o.authorizations.clone();
        let states =
            all.iter().map(|a| load_authz(cx, account, a).map(|a| a.status)).collect::<Result<Vec<_>, _>>()?;
        if states.iter().all(|s| s == "valid") {
            o.status = "ready".into();
        } else if states.iter().any(|s| s != "valid" && s != "pending") {
            o.status = "invalid".into();
        }
    }
    if o.status != "valid" && o.expires_ns < cx.now.0 {
        o.status = "invalid".into();
    }
    Ok(o)
}

/// An authorization as it stands now.
pub fn load_authz(cx: &mut Cx<'_, '_>, account: &Account, id: &str) -> Result<Authorization, Problem> {
    let missing = || Problem::malformed("there is no such authorization");
    let mut a: Authorization = cx.get_json(ACME, &authz_suffix(&account.id, id))?.ok_or_else(missing)?;
    if a.status == "pending" && a.expires_ns < cx.now.0 {
        a.status = "expired".into();
    }
    Ok(a)
}

fn order_reply(d: &Directory, o: &Order, status: u16) -> Reply {
    let authorizations: Vec<String> = o.authorizations.iter().map(|a| d.url(&format!("authorization/{a}"))).collect();
    let mut shown = json!({
        "status": o.status,
        "expires": Wall(o.expires_ns).rfc3339_seconds(),
        "identifiers": o.identifiers,
        "authorizations": authorizations,
        "finalize": d.url(&format!("order/{}/finalize", o.id)),
    });
    if !o.serial.is_empty() {
        shown["certificate"] = d.url(&format!("order/{}/cert", o.id)).into();
    }
    Reply::json(status, &shown).at(d.url(&format!("order/{}", o.id)))
}

fn authz_reply(cx: &Cx<'_, '_>, d: &Directory, a: &Authorization) -> Reply {
    let mut shown = json!({
        "identifier": a.identifier,
        "status": a.status,
        "expires": Wall(a.expires_ns).rfc3339_seconds(),
        "challenges": challenge::shown(d, a),
    });
    if a.wildcard {
        shown["wildcard"] = true.into();
    }
    Reply { retry_after: challenge::retry_after(cx, a), ..Reply::json(200, &shown) }
}

fn identifiers(d: &Directory, body: &Value) -> Result<Vec<Identifier>, Problem> {
    let list = body["identifiers"].as_array().ok_or_else(|| Problem::malformed("identifiers are missing"))?;
    if list.is_empty() || list.len() > MAX_IDENTIFIERS {
        return Err(Problem::malformed(format!("an order has 1 to {MAX_IDENTIFIERS} identifiers")));
    }
    let mut out = Vec::new();
    for v in list {
        let (kind, value) = (v["type"].as_str().unwrap_or(""), v["value"].as_str().unwrap_or(""));
        let rejected = |why: &str| Problem::new("rejectedIdentifier", format!("{value}: {why}"));
        let value = match kind {
            "dns" => {
                let name = value.trim().to_ascii_lowercase();
                if !names::is_hostname(&name) || name.parse::<IpAddr>().is_ok() {
                    return Err(rejected("not a DNS name"));
                }
                if !d.verbatim && !names::allowed(&d.role, &Asker { principal: None }, &name) {
                    return Err(rejected("not allowed by the role"));
                }
                name
            }
            "ip" => {
                let ip: IpAddr = value.parse().map_err(|_| rejected("not an IP address"))?;
                if !d.role.allow_ip_sans
                    || !ringfence_logical::cx::cidr_allows(&d.role.allowed_ip_sans_cidr, Some(ip))
                {
                    return Err(rejected("not allowed by the role"));
                }
                ip.to_string()
            }
            other => {
                return Err(Problem::new(
                    "unsupportedIdentifier",
                    format!("identifiers are dns or ip, not {other:?}"),
                ));
            }
        };
        let one = Identifier { kind: kind.into(), value };
        if !out.contains(&one) {
            out.push(one);
        }
    }
    Ok(out)
}

/// `new-order`.
pub fn new(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    signed(cx, args, |cx, _, d, asked| {
        let account = asked.account()?;
        let body = asked.jws.json()?;
        if !body["notBefore"].is_null() || !body["notAfter"].is_null() {
            return Err(Problem::malformed(
                "the life of certificates is the role's to say: leave notBefore and notAfter out",
            ));
        }
        let wanted = identifiers(d, &body)?;
        let expires_ns = cx.now.plus_seconds(LIFE_SECONDS).0;
        let mut authorizations = Vec::new();
        for identifier in &wanted {
            let bare = identifier.value.strip_prefix("*.");
            let value = bare.unwrap_or(&identifier.value).to_owned();
            let a = Authorization {
                id: uuid4(cx.rng),
                status: "pending".into(),
                expires_ns,
                identifier: Identifier { value, ..identifier.clone() },
                wildcard: bare.is_some(),
                challenge: Challenge::default(),
                token: token(cx),
                challenge_status: "pending".into(),
                validated_ns: 0,
                error: None,
                tries: 0,
                tried_ns: 0,
                next_ns: 0,
            };
            cx.put_json(ACME, &authz_suffix(&account.id, &a.id), &a);
            authorizations.push(a.id);
        }
        let o = Order {
            id: uuid4(cx.rng),
            status: "pending".into(),
            expires_ns,
            identifiers: wanted,
            authorizations,
            directory: d.prefix.clone(),
            serial: String::new(),
            issuer_id: String::new(),
        };
        cx.put_json(ACME, &order_suffix(&account.id, &o.id), &o);
        Ok(order_reply(d, &o, 201))
    })
}

/// `orders`.
pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    signed(cx, args, |cx, _, d, asked| {
        let account = asked.account()?;
        let ids = cx.scan_keys(ACME, &format!("order/{}/", account.id), "", 1000)?;
        let urls: Vec<String> = ids.iter().map(|id| d.url(&format!("order/{id}"))).collect();
        Ok(Reply::json(200, &json!({"orders": urls})))
    })
}

/// `order/:id`.
pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    signed(cx, args, |cx, args, d, asked| {
        let o = load_order(cx, asked.account()?, args.str("order_id"))?;
        Ok(order_reply(d, &o, 200))
    })
}

/// `authorization/:id`.
pub fn authorization(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    signed(cx, args, |cx, args, d, asked| {
        let account = asked.account()?;
        let mut a = load_authz(cx, account, args.str("auth_id"))?;
        if !asked.jws.payload.is_empty() && asked.jws.json()?["status"] == "deactivated" {
            a.status = "deactivated".into();
            cx.put_json(ACME, &authz_suffix(&account.id, &a.id), &a);
        }
        Ok(authz_reply(cx, d, &a))
    })
}

/// The identifiers of a request's DER.
fn identifiers_of(csr: &Request) -> Result<Vec<Identifier>, Problem> {
    let bad = |why: &str| Problem::new("badCSR", why);
    let mut out = Vec::new();
    let mut push = |kind: &str, value: String| {
        let one = Identifier { kind: kind.into(), value };
        if !out.contains(&one) {
            out.push(one);
        }
    };
    for san in &csr.sans {
        match san {
            GeneralName::DnsName(n) => push("dns", n.as_str().to_ascii_lowercase()),
            GeneralName::IpAddress(b) => {
                let ip = match b.as_bytes() {
                    b if b.len() == 4 => <[u8; 4]>::try_from(b).map(IpAddr::from).ok(),
                    b => <[u8; 16]>::try_from(b).map(IpAddr::from).ok(),
                };
                push("ip", ip.ok_or_else(|| bad("an IP address of a length that there is not"))?.to_string());
            }
            _ => return Err(bad("the request has names that are neither DNS names nor IP addresses")),
        }
    }
    let common_name = cert::common_name(&csr.subject);
    if !common_name.is_empty() {
        let kind = if common_name.parse::<IpAddr>().is_ok() { "ip" } else { "dns" };
        push(kind, common_name.to_ascii_lowercase());
    }
    Ok(out)
}

/// `order/:id/finalize`.
pub fn finalize(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    signed(cx, args, |cx, args, d, asked| {
        let account = asked.account()?;
        let mut o = load_order(cx, account, args.str("order_id"))?;
        if o.status != "ready" {
            return Err(Problem::new("orderNotReady", format!("the order is {}", o.status)));
        }
        if o.directory != d.prefix {
            return Err(Problem::new("unauthorized", "the order was made in another directory"));
        }
        let body = asked.jws.json()?;
        let der = URL_SAFE_NO_PAD
            .decode(body["csr"].as_str().unwrap_or(""))
            .map_err(|_| Problem::new("badCSR", "csr is not base64url"))?;
        let csr = Request::parse(&der).map_err(|e| Problem::new("badCSR", e))?;
        let (mut ordered, mut requested) = (o.identifiers.clone(), identifiers_of(&csr)?);
        ordered.sort();
        requested.sort();
        if ordered != requested {
            return Err(Problem::new("badCSR", "the request's names are not those of the order"));
        }
        // RFC 8555 11.1
        if is_key(&account.jwk, &csr.public) {
            return Err(Problem::new("badCSR", "the certificate's key must not be the account's"));
        }
        let mut authority = Authority::load(cx, &d.issuer_ref, Usage::IssuingCertificates)
            .map_err(|e| Problem::new("serverInternal", e.text()))?;
        // a client of the protocol has no say in the life of its certificates: they end with their issuer
        if authority.record.outliving == Outliving::Err {
            authority.record.outliving = Outliving::Truncate;
        }
        let plain = Args::parse(&[], &[], ringfence_logical::Parameters::default())?;
        let mut role = d.role.clone();
        role.key_type = "any".into();
        let stripped = match d.verbatim {
            // only names that were proven: no extension of the request's own stands, and nothing else of its subject
            true => {
                let proven = cert::Subject { common_name: cert::common_name(&csr.subject), ..Default::default() };
                Request { extensions: Vec::new(), subject: proven.name()?, ..csr.clone() }
            }
            false => csr.clone(),
        };
        let (made, _) = issue::sign_for(cx, &plain, &role, &authority, &stripped, d.verbatim)
            .map_err(|e| Problem::new("badCSR", e.text()))?;
        store::save_certificate(cx, &made.serial, &authority.record.id, &made.der);
        cx.put(ACME, format!("serial/{}", made.serial).as_bytes(), account.id.as_bytes());
        o.status = "valid".into();
        o.serial = made.serial;
        o.issuer_id = authority.record.id.clone();
        cx.put_json(ACME, &order_suffix(&account.id, &o.id), &o);
        Ok(order_reply(d, &o, 200))
    })
}

/// `order/:id/cert`.
pub fn certificate(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    signed(cx, args, |cx, args, _, asked| {
        let o = load_order(cx, asked.account()?, args.str("order_id"))?;
        if o.serial.is_empty() {
            return Err(Problem::new("orderNotReady", format!("the order is {}", o.status)));
        }
        let gone = || Problem::new("serverInternal", "the certificate is gone");
        let (_, der) = store::certificate(cx, &o.serial)?.ok_or_else(gone)?;
        let mut text = pem::certificate(&der);
        if let Ok(i) = store::issuer(cx, &o.issuer_id) {
            for c in store::chain(cx, &i)? {
                text.push('\n');
                text.push_str(&pem::certificate(&c.0));
            }
        }
        text.push('\n');
        Ok(Reply { body: ("application/pem-certificate-chain", text.into_bytes()), ..Reply::json(200, &Value::Null) })
    })
}
