//! What a login owes, and whether what it offers pays for it. Called by the token floor between the proof of a login and
//! its token.

use super::records::{self, Method};
use super::totp;
use crate::identity::Identity;
use crate::mount::{Routed, Router};
use ringfence_barrier::Txn;
use ringfence_base::{Code, NsId, Wall};
use ringfence_logical::Error;
use ringfence_logical::error::multi_text;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An enforcement that a login falls under.
#[derive(Clone, Debug, PartialEq)]
pub struct Owed {
    /// Its name.
    pub name: String,
    /// Namespace of enforcement and methods.
    pub ns: NsId,
    /// Any one of them pays.
    pub methods: Vec<Method>,
}

/// What a client offers: codes by id or name of a method.
pub type Offer = BTreeMap<String, Vec<String>>;

/// Every enforcement that a login falls under: those of its namespace and of the namespaces above it. The read set holds
/// the lists, so that an enforcement written first is never missed.
pub fn owed(txn: &mut Txn<'_>, router: &Router, routed: &Routed, identity: &Identity) -> Result<Vec<Owed>, Error> {
    let mut found = Vec::new();
    for ns in crate::namespace::lineage(router, routed.entry.ns, &routed.info.ns_path) {
        for e in records::enforcements(txn, ns)? {
            let applies = e.accessors.contains(&routed.entry.accessor)
                || e.types.contains(&routed.entry.kind)
                || (!identity.entity_id.is_empty() && e.entities.contains(&identity.entity_id))
                || identity.groups.iter().any(|g| e.groups.contains(&g.id));
            if !applies {
                continue;
            }
            let mut methods = Vec::new();
            for id in &e.methods {
                methods.extend(records::method(txn, ns, id)?);
            }
            found.push(Owed { name: e.name, ns, methods });
        }
    }
    Ok(found)
}

/// The `mfa_constraints` of a login that must come back.
pub fn constraints(owed: &[Owed]) -> Value {
    let one = |o: &Owed| {
        let any: Vec<Value> = o
            .methods
            .iter()
            .map(|m| json!({"type": "totp", "id": m.id, "uses_passcode": true, "name": m.name}))
            .collect();
        (o.name.clone(), json!({"any": any}))
    };
    Value::Object(owed.iter().map(one).collect())
}

/// What `X-Vault-MFA` headers offer: `method[:code]`, one a header.
pub fn offer_of_headers(headers: &[String]) -> Offer {
    let mut offer = Offer::new();
    for header in headers {
        let (method, code) = header.split_once(':').unwrap_or((header, ""));
        offer.entry(method.trim().to_owned()).or_default().push(code.to_owned());
    }
    offer
}

/// Checks an offer against all that is owed, and notes codes and attempts in the transaction. On an error those notes
/// must be committed all the same: the error says so.
///
/// # Errors
/// `failed to satisfy enforcement x. error: ...` (403).
pub fn pay(txn: &mut Txn<'_>, now: Wall, entity: &str, owed: &[Owed], offer: &Offer) -> Result<(), Error> {
    for one in owed {
        let mut flaws = Vec::new();
        let mut paid = false;
        for method in &one.methods {
            let codes = offer.get(&method.id).or_else(|| offer.get(&method.name).filter(|_| !method.name.is_empty()));
            match codes {
                None => continue,
                Some(codes) => match by_totp(txn, now, one.ns, entity, method, codes)? {
                    Ok(()) => paid = true,
                    Err(flaw) => flaws.push(flaw),
                },
            }
            if paid {
                break;
            }
        }
        if !paid {
            return Err(unpaid(one, flaws));
        }
    }
    Ok(())
}

fn unpaid(one: &Owed, mut flaws: Vec<String>) -> Error {
    if flaws.is_empty() {
        flaws.push("MFA credentials not supplied".to_owned());
    }
    let ids: Vec<&str> = one.methods.iter().map(|m| m.id.as_str()).collect();
    let mut texts = vec![format!("login MFA validation failed for methodID: [{}]", ids.join(" "))];
    texts.extend(flaws);
    let text = format!("failed to satisfy enforcement {}. error: {}", one.name, multi_text(&texts));
    Error { keeps_writes: true, ..Error::new(Code::Denied, text) }
}

/// One attempt with a code. The inner error is what the client is told.
fn by_totp(
    txn: &mut Txn<'_>,
    now: Wall,
    ns: NsId,
    entity: &str,
    m: &Method,
    codes: &[String],
) -> Result<Result<(), String>, Error> {
    let Some(secret) = records::secret(txn, ns, &m.id, entity)? else {
        return Ok(Err(format!("MFA secret for method name {:?} not present in entity {entity:?}", m.name)));
    };
    let [given] = codes else { return Ok(Err("MFA credentials not supplied".to_owned())) };
    if given.is_empty() {
        return Ok(Err("MFA credentials not supplied".to_owned()));
    }
    let mut a = records::attempts(txn, ns, &m.id, entity)?;
    if a.until <= now {
        a.failed = 0;
    }
    if a.failed >= m.max_validation_attempts {
        let left = a.until.seconds().saturating_sub(now.seconds()).max(1);
        return Ok(Err(format!(
            "maximum TOTP validation attempts {} exceeded the allowed attempts {}. Please try again in {left} seconds",
            a.failed, m.max_validation_attempts
        )));
    }
    let present = now.seconds() / m.period;
    // to a number first: a code has one spelling, so what is noted as used is the code and not its text
    let matched = totp::parse(given, m.digits)
        .and_then(|n| totp::matching(&secret.key, m.algorithm, m.digits, present, m.skew, n));
    let verdict = match (matched, a.used_in(m.period, present.saturating_add(m.skew))) {
        (None, _) => Err("failed to validate TOTP passcode".to_owned()),
        (Some(step), Some(used)) if step <= used => {
            let left = ((used + 1) * m.period).saturating_sub(now.seconds()).max(1);
            Err(format!("code already used; new code is available in {left} seconds"))
        }
        (Some(step), _) => {
            (a.used, a.period) = (Some(step), m.period);
            Ok(())
        }
    };
    match &verdict {
        Ok(()) => a.failed = 0,
        Err(_) => {
            a.failed += 1;
            if a.failed == 1 {
                // as long as a code that is seen now may be accepted
                a.until = now.plus_seconds(m.period * (2 + m.skew));
            }
        }
    }
    records::save_attempts(txn, ns, &m.id, entity, &a);
    Ok(verdict)
}
