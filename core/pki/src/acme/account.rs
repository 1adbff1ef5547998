//! Accounts, and what every signed request goes through.

use super::ACME;
use super::config::{Eab, eab_suffix};
use super::directory::{Directory, Problem, Reply, absent, framed, spend_nonce};
use super::jws::{Jws, thumbprint};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_base::entropy::uuid4;
use ringfence_logical::{Args, Cx, Outcome};
use serde_json::{Value, json};

/// An account.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Account {
    pub id: String,
    /// `valid`, `deactivated`, `revoked`.
    pub status: String,
    pub contact: Vec<String>,
    pub terms_agreed: bool,
    pub jwk: Value,
    pub thumbprint: String,
    pub created_ns: u64,
    /// The binding that it was made with, or empty.
    pub eab_id: String,
    /// Where it was made.
    pub directory: String,
}

impl Account {
    pub fn load(cx: &mut Cx<'_, '_>, id: &str) -> Result<Option<Account>, Problem> {
        Ok(cx.get_json(ACME, format!("acct/{id}").as_bytes())?)
    }

    pub fn save(&self, cx: &mut Cx<'_, '_>) {
        cx.put_json(ACME, format!("acct/{}", self.id).as_bytes(), self);
    }

    fn reply(&self, d: &Directory, status: u16) -> Reply {
        let mut shown = json!({
            "status": self.status,
            "contact": self.contact,
            "termsOfServiceAgreed": self.terms_agreed,
            "orders": d.url("orders"),
        });
        if !self.eab_id.is_empty() {
            shown["externalAccountBinding"] = json!({"kid": self.eab_id});
        }
        Reply::json(status, &shown).at(d.url(&format!("account/{}", self.id)))
    }
}

/// Who signed a request.
pub enum Signer {
    /// An account, by its URL.
    Account(Account),
    /// A key that came with the request.
    Key(Value),
}

/// A request whose signature, URL and nonce were checked.
pub struct Asked {
    pub jws: Jws,
    pub signer: Signer,
}

impl Asked {
    /// The account, which must have signed.
    pub fn account(&self) -> Result<&Account, Problem> {
        match &self.signer {
            Signer::Account(a) => Ok(a),
            Signer::Key(_) => Err(Problem::malformed("this request is to be signed by an account: kid, not jwk")),
        }
    }
}

/// Checks a request. The nonce is spent in this transaction.
pub fn check(cx: &mut Cx<'_, '_>, args: &Args, d: &Directory) -> Result<Asked, Problem> {
    let jws = Jws::read(args.str("protected"), args.str("payload"), args.str("signature"))?;
    let path = cx.req.path.strip_prefix(&d.prefix).unwrap_or("").trim_start_matches('/').to_owned();
    if jws.text("url") != Some(&*d.url(&path)) {
        return Err(Problem::new("unauthorized", format!("the url in the protected header is not {}", d.url(&path))));
    }
    let signer = match (jws.text("kid"), &jws.header["jwk"]) {
        (Some(kid), Value::Null) => {
            let id = kid.strip_prefix(&d.url("account/")).unwrap_or("");
            let found = if id.is_empty() { None } else { Account::load(cx, id)? };
            // what a directory asks of its accounts (a binding, a role's names) another may not: an account speaks in
            // the directory that it was made in, and nowhere else
            let account = found
                .filter(|a| a.directory == d.prefix)
                .ok_or_else(|| Problem::new("accountDoesNotExist", "no account has this kid"))?;
            jws.verify(&account.jwk)?;
            if account.status != "valid" {
                return Err(Problem::new("unauthorized", format!("the account is {}", account.status)));
            }
            if d.config.eab_policy == "always-required" && account.eab_id.is_empty() {
                return Err(Problem::new("unauthorized", "the account was made without external account binding"));
            }
            Signer::Account(account)
        }
        (None, jwk @ Value::Object(_)) => {
            jws.verify(jwk)?;
            Signer::Key(jwk.clone())
        }
        _ => return Err(Problem::malformed("the protected header has either kid or jwk")),
    };
    spend_nonce(cx, jws.text("nonce").unwrap_or(""))?;
    Ok(Asked { jws, signer })
}

/// Runs a handler over a checked request. A problem keeps the spent nonce and nothing else that was written.
pub fn signed(
    cx: &mut Cx<'_, '_>,
    args: &Args,
    handler: fn(&mut Cx<'_, '_>, &Args, &Directory, &Asked) -> Result<Reply, Problem>,
) -> Outcome {
    let directory = match Directory::of(cx, args)? {
        None => return absent(),
        Some(Err(p)) => return framed(cx, None, Err(p)),
        Some(Ok(d)) => d,
    };
    let asked = match check(cx, args, &directory) {
        Ok(a) => a,
        Err(p) => return framed(cx, Some(&directory), Err(p)),
    };
    let result = handler(cx, args, &directory, &asked);
    if result.is_err() {
        cx.txn.discard_writes();
        let spent = spend_nonce(cx, asked.jws.text("nonce").unwrap_or(""));
        return framed(cx, Some(&directory), spent.and(result));
    }
    framed(cx, Some(&directory), result)
}

/// `new-account`.
pub fn new(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    signed(cx, args, |cx, _, d, asked| {
        let Signer::Key(jwk) = &asked.signer else {
            return Err(Problem::malformed("a new account is asked for with jwk, not kid"));
        };
        let print = thumbprint(jwk)?;
        let body = asked.jws.json()?;
        let suffix = format!("thumb/{}/{print}", d.prefix);
        if let Some(account) = with_key(cx, d, &suffix, &print)? {
            if account.status != "valid" {
                return Err(Problem::new("unauthorized", format!("the account is {}", account.status)));
            }
            return Ok(account.reply(d, 200));
        }
        if body["onlyReturnExisting"] == true {
            return Err(Problem::new("accountDoesNotExist", "no account has this key"));
        }
        let eab_id = match &body["externalAccountBinding"] {
            Value::Null if d.config.eab_policy != "not-required" => {
                return Err(Problem::new(
                    "externalAccountRequired",
                    "this directory asks for external account binding",
                ));
            }
            Value::Null => String::new(),
            binding => bind(cx, d, asked, binding, jwk)?,
        };
        let account = Account {
            id: uuid4(cx.rng),
            status: "valid".into(),
            contact: contacts(&body)?.unwrap_or_default(),
            terms_agreed: body["termsOfServiceAgreed"] == true,
            jwk: jwk.clone(),
            thumbprint: print,
            created_ns: cx.now.0,
            eab_id,
            directory: d.prefix.clone(),
        };
        account.save(cx);
        cx.put(ACME, suffix.as_bytes(), account.id.as_bytes());
        Ok(account.reply(d, 201))
    })
}

/// The account of this directory that has a key. Accounts of before directories had an index each stand in one for all.
fn with_key(cx: &mut Cx<'_, '_>, d: &Directory, suffix: &str, print: &str) -> Result<Option<Account>, Problem> {
    for suffix in [suffix, &format!("thumb/{print}")] {
        if let Some(id) = cx.get(ACME, suffix.as_bytes())? {
            let found = Account::load(cx, &String::from_utf8_lossy(&id))?;
            let account = found.ok_or_else(|| Problem::new("serverInternal", "the account is gone"))?;
            if account.directory == d.prefix {
                return Ok(Some(account));
            }
        }
    }
    Ok(None)
}

fn contacts(body: &Value) -> Result<Option<Vec<String>>, Problem> {
    let Some(list) = body.get("contact") else { return Ok(None) };
    let bad = || Problem::new("invalidContact", "contacts are mailto: URLs");
    let list = list.as_array().ok_or_else(bad)?;
    if list.len() > 10 {
        return Err(bad());
    }
    let one = |v: &Value| {
        let text = v.as_str().filter(|t| t.len() < 500 && t.starts_with("mailto:") && t.contains('@'));
        text.map(str::to_owned).ok_or_else(bad)
    };
    list.iter().map(one).collect::<Result<Vec<_>, _>>().map(Some)
}

/// Checks an external account binding (RFC 8555 7.3.4) and uses it up.
fn bind(cx: &mut Cx<'_, '_>, d: &Directory, asked: &Asked, binding: &Value, jwk: &Value) -> Result<String, Problem> {
    let inner = Jws::of(binding)?;
    let id = inner.text("kid").unwrap_or("").to_owned();
    let unknown = || Problem::new("unauthorized", "the external account binding is not known or was used");
    let eab: Eab = cx.get_json(ACME, &eab_suffix(&id))?.ok_or_else(unknown)?;
    if eab.directory != d.prefix {
        return Err(Problem::new("unauthorized", "the external account binding is for another directory"));
    }
    if inner.text("url") != asked.jws.text("url") {
        return Err(Problem::malformed("the binding's url is not that of the request"));
    }
    inner.verify_hmac(&eab.key.0)?;
    if thumbprint(&inner.json()?)? != thumbprint(jwk)? {
        return Err(Problem::malformed("the binding is of another key"));
    }
    cx.delete(ACME, &eab_suffix(&id));
    Ok(id)
}

/// `account/:kid`.
pub fn update(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    signed(cx, args, |cx, args, d, asked| {
        let mut account = asked.account()?.clone();
        if account.id != args.str("kid") {
            return Err(Problem::new("unauthorized", "this is another account"));
        }
        if !asked.jws.payload.is_empty() {
            let body = asked.jws.json()?;
            if let Some(c) = contacts(&body)? {
                account.contact = c;
            }
            match body["status"].as_str() {
                None | Some("valid") => {}
                Some("deactivated") => account.status = "deactivated".into(),
                Some(other) => return Err(Problem::malformed(format!("an account cannot become {other}"))),
            }
            account.save(cx);
        }
        Ok(account.reply(d, 200))
    })
}

/// `key-change`: not offered, as the API documents.
pub fn key_change(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    signed(cx, args, |_, _, _, _| Err(Problem::malformed("key change is not supported: make a new account")))
}

/// A random text for tokens.
pub fn token(cx: &mut Cx<'_, '_>) -> String {
    let mut bytes = [0; 32];
    cx.rng.fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}
