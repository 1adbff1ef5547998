//! Issuers as objects of the API: read, tuned, listed, deleted, revoked; which one is the default.

use crate::cert::{self, Urls};
use crate::crl;
use crate::key::Algorithm;
use crate::pem;
use crate::store::{self, DefaultIssuer, IssuerRecord, Outliving, Usage};
use ringfence_base::Wall;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use serde_json::{Value, json};

fn shown(cx: &mut Cx<'_, '_>, i: &IssuerRecord) -> Result<Map, Error> {
    let mut m = Map::new();
    m.insert("issuer_id".into(), i.id.clone().into());
    m.insert("issuer_name".into(), i.name.clone().into());
    m.insert("key_id".into(), i.key_id.clone().into());
    m.insert("certificate".into(), i.pem().into());
    let manual = if i.manual_chain.is_empty() { Value::Null } else { json!(i.manual_chain) };
    m.insert("manual_chain".into(), manual);
    let chain: Vec<String> = store::chain(cx, i)?.iter().map(|c| pem::certificate(&c.0)).collect();
    m.insert("ca_chain".into(), chain.into());
    m.insert("leaf_not_after_behavior".into(), i.outliving.as_str().into());
    m.insert("usage".into(), i.usage_text().into());
    m.insert("revocation_signature_algorithm".into(), i.revocation_signature_algorithm.clone().into());
    m.insert("revoked".into(), (i.revoked_at > 0).into());
    if i.revoked_at > 0 {
        m.insert("revocation_time".into(), i.revoked_at.into());
        m.insert("revocation_time_rfc3339".into(), Wall(i.revoked_at_ns).rfc3339().into());
    }
    m.insert("issuing_certificates".into(), json!(i.urls.issuing_certificates));
    m.insert("crl_distribution_points".into(), json!(i.urls.crl_distribution_points));
    m.insert("delta_crl_distribution_points".into(), json!(i.urls.delta_crl_distribution_points));
    m.insert("ocsp_servers".into(), json!(i.urls.ocsp_servers));
    m.insert("enable_aia_url_templating".into(), i.urls.enable_templating.into());
    Ok(m)
}

/// `issuer/:ref`.
pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let i = store::issuer(cx, args.str("issuer_ref"))?;
    Response::data(shown(cx, &i)?).done()
}

/// `POST issuer/:ref`: what is not given falls to its default.
pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut i = store::issuer(cx, args.str("issuer_ref"))?;
    i.name = String::new();
    i.outliving = Outliving::Err;
    i.usage = Usage::ALL.to_vec();
    i.manual_chain = Vec::new();
    i.revocation_signature_algorithm = String::new();
    i.urls = Urls::default();
    update(cx, i, args)
}

/// `PATCH issuer/:ref`: only what is given.
pub fn patch(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let i = store::issuer(cx, args.str("issuer_ref"))?;
    update(cx, i, args)
}

fn update(cx: &mut Cx<'_, '_>, mut i: IssuerRecord, args: &Args) -> Outcome {
    if let Some(name) = args.opt_str("issuer_name") {
        store::check_issuer_name(cx, name, &i.id)?;
        i.name = name.to_owned();
    }
    if let Some(text) = args.opt_str("leaf_not_after_behavior") {
        i.outliving = Outliving::parse(text).ok_or_else(|| {
            Error::invalid(
                "Unknown value for field `leaf_not_after_behavior`. Possible values are `err`, `truncate`, `permit`, \
                 and `always_enforce_err`.",
            )
        })?;
    }
    if let Some(list) = args.opt_list("usage") {
        let mut usage = vec![Usage::ReadOnly];
        for text in list.iter().filter(|t| !t.is_empty()) {
            let one = Usage::ALL.into_iter().find(|u| u.as_str() == text).ok_or_else(|| {
                Error::invalid(format!(
                    "Unable to parse specified usages: invalid usage: {text}; valid values are read-only, \
                     issuing-certificates, crl-signing and ocsp-signing"
                ))
            })?;
            if !usage.contains(&one) {
                usage.push(one);
            }
        }
        i.usage = usage;
    }
    if let Some(list) = args.opt_list("manual_chain") {
        let mut ids = Vec::new();
        for reference in list.iter().filter(|r| !r.is_empty()) {
            ids.push(match reference == "self" {
                true => i.id.clone(),
                false => store::issuer(cx, reference)?.id,
            });
        }
        if ids.first().is_some_and(|first| *first != i.id) {
            return Err(Error::invalid(format!(
                "ManualChain position 0 must be the issuer itself: expected {}",
                i.id
            )));
        }
        i.manual_chain = ids;
    }
    if let Some(name) = args.opt_str("revocation_signature_algorithm") {
        let algorithm = Algorithm::by_name(name);
        if !name.is_empty() && algorithm.is_none() {
            return Err(Error::invalid(format!("Unknown signature algorithm value: {name:?}")));
        }
        if let (Some(a), Some(k)) = (algorithm, store::key(cx, &i.key_id)?) {
            let own = store::private(&k)?.algorithm(0, false);
            let fits = match (own, a) {
                (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
                (own, a) => own == a,
            };
            if !fits {
                return Err(Error::invalid(format!(
                    "issuer's key cannot sign by {name:?}: the algorithm belongs to another kind of key"
                )));
            }
        }
        i.revocation_signature_algorithm = name.to_owned();
    }
    for (field, which) in [
        ("issuing_certificates", 0),
        ("crl_distribution_points", 1),
        ("ocsp_servers", 2),
        ("delta_crl_distribution_points", 3),
    ] {
        let Some(list) = args.opt_list(field) else { continue };
        let templated = args.opt_bool("enable_aia_url_templating").unwrap_or(i.urls.enable_templating);
        crate::config::check_urls(field, &list, templated)?;
        match which {
            0 => i.urls.issuing_certificates = list,
            1 => i.urls.crl_distribution_points = list,
            2 => i.urls.ocsp_servers = list,
            _ => i.urls.delta_crl_distribution_points = list,
        }
    }
    if let Some(b) = args.opt_bool("enable_aia_url_templating") {
        i.urls.enable_templating = b;
    }
    store::save_issuer(cx, &i);
    store::rebuild_chains(cx)?;
    let i = store::issuer(cx, &i.id)?;
    Response::data(shown(cx, &i)?).done()
}

/// `DELETE issuer/:ref`.
pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let reference = args.str("issuer_ref");
    let i = match store::issuer(cx, reference) {
        Ok(i) => i,
        Err(_) if reference != "default" => return nothing(),
        Err(e) => return Err(e),
    };
    cx.delete(store::ISSUERS, i.id.as_bytes());
    let chosen: DefaultIssuer = store::config(cx, "issuers")?;
    let was_default = chosen.default == i.id;
    if was_default {
        store::save_config(cx, "issuers", &DefaultIssuer { default: String::new(), ..chosen });
    }
    store::rebuild_chains(cx)?;
    match was_default {
        true => Response::default()
            .warn(format!(
                "Deleted issuer {} (via issuer_ref {reference}); this was configured as the default issuer. \
                 Operations without an explicit issuer will not work until a new default is configured.",
                i.id
            ))
            .done(),
        false => nothing(),
    }
}

/// `LIST issuers`.
pub fn list(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    let chosen: DefaultIssuer = store::config(cx, "issuers")?;
    let mut keys = Vec::new();
    let mut info = Map::new();
    for i in store::issuers(cx)? {
        info.insert(
            i.id.clone(),
            json!({
                "issuer_name": i.name,
                "is_default": i.id == chosen.default,
                "serial_number": i.serial,
                "key_id": i.key_id,
            }),
        );
        keys.push(i.id);
    }
    if keys.is_empty() {
        return Response::keys(keys).done();
    }
    let mut data = Map::new();
    data.insert("keys".into(), keys.into());
    data.insert("key_info".into(), info.into());
    Response::data(data).done()
}

/// `POST issuer/:ref/revoke`.
pub fn revoke(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut i = store::issuer(cx, args.str("issuer_ref"))?;
    if i.revoked_at == 0 {
        i.revoked_at = cx.now.seconds();
        i.revoked_at_ns = cx.now.0;
        i.usage.retain(|u| *u != Usage::IssuingCertificates);
        store::save_issuer(cx, &i);
        // its parent's list, if the parent is here: a root stands in no list of its own
        let parsed = i.parsed()?;
        if parsed.tbs_certificate.issuer != parsed.tbs_certificate.subject {
            crl::add(cx, &parsed, &i.certificate.0, &i.id)?;
        }
    }
    let mut answer = Response::data(shown(cx, &i)?);
    if i.chain.len() < 2 {
        answer.warnings.push(
            "the issuer of this certificate is not in this mount: its revocation stands in no revocation list here"
                .into(),
        );
    }
    answer.done()
}

fn config_shown(c: &DefaultIssuer) -> Response {
    Response::json(json!({
        "default": c.default,
        "default_follows_latest_issuer": c.default_follows_latest_issuer,
    }))
}

/// `GET config/issuers`.
pub fn read_config(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    config_shown(&store::config(cx, "issuers")?).done()
}

/// `POST config/issuers`.
pub fn write_config(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    set_default(cx, args.str("default"), args.opt_bool("default_follows_latest_issuer"))
}

/// `POST root/replace`.
pub fn replace_root(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    set_default(cx, args.opt_str("default").unwrap_or("next"), None)
}

fn set_default(cx: &mut Cx<'_, '_>, reference: &str, follows: Option<bool>) -> Outcome {
    if reference.is_empty() || reference == "default" {
        return Err(Error::invalid("Invalid issuer specification; must be non-empty and can't be 'default'."));
    }
    let i = store::issuer(cx, reference)
        .map_err(|e| Error::invalid(format!("Error resolving issuer reference: {}", e.text())))?;
    let old: DefaultIssuer = store::config(cx, "issuers")?;
    let new = DefaultIssuer {
        default: i.id.clone(),
        default_follows_latest_issuer: follows.unwrap_or(old.default_follows_latest_issuer),
    };
    store::save_config(cx, "issuers", &new);
    let mut answer = config_shown(&new);
    if i.key_id.is_empty() {
        answer.warnings.push("This selected default issuer has no key associated with it. Some operations like issuing certificates and signing CRLs will be unavailable with the requested default issuer until a key is imported or the default issuer is changed.".into());
    }
    answer.done()
}

/// `issuer/:ref/json`.
pub fn json(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let i = store::issuer(cx, args.str("issuer_ref"))?;
    let chain: Vec<String> = store::chain(cx, &i)?.iter().map(|c| pem::certificate(&c.0)).collect();
    Response::json(json!({
        "certificate": i.pem(),
        "ca_chain": chain,
        "issuer_id": i.id,
        "issuer_name": i.name,
    }))
    .done()
}

/// `issuer/:ref/der`.
pub fn der(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let i = store::issuer(cx, args.str("issuer_ref"))?;
    Response::raw("application/pkix-cert", i.certificate.0).done()
}

/// `issuer/:ref/pem`.
pub fn pem(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let i = store::issuer(cx, args.str("issuer_ref"))?;
    Response::raw("application/pem-certificate-chain", i.pem().into_bytes()).done()
}

/// True for a certificate that is one of the issuers.
pub fn is_issuer(cx: &mut Cx<'_, '_>, serial: &str) -> Result<Option<IssuerRecord>, Error> {
    let wanted = cert::parse_serial(serial);
    Ok(store::issuers(cx)?.into_iter().find(|i| cert::parse_serial(&i.serial) == wanted))
}
