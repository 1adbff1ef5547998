//! Keys as objects of the API.

use crate::cert;
use crate::key::{self, Private, Spec};
use crate::pem::{self, Format};
use crate::store::{self, DefaultKey, KeyRecord};
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, Step, nothing};
use rustls_pki_types::pem::SectionKind;
use serde_json::json;

fn shown(k: &KeyRecord) -> Map {
    let mut m = Map::new();
    m.insert("key_id".into(), k.id.clone().into());
    m.insert("key_name".into(), k.name.clone().into());
    m.insert("key_type".into(), k.spec.kind.as_str().into());
    m.insert("subject_key_id".into(), cert::hex_pairs(&k.subject_key_id.0).into());
    m
}

/// `GET key/:ref`.
pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Response::data(shown(&store::key_by_ref(cx, args.str("key_ref"))?)).done()
}

/// `POST key/:ref`: another name.
pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut k = store::key_by_ref(cx, args.str("key_ref"))?;
    let name = args.str("key_name");
    store::check_key_name(cx, name, &k.id)?;
    k.name = name.to_owned();
    store::save_key(cx, &k);
    Response::data(shown(&k)).done()
}

/// `DELETE key/:ref`.
pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let reference = args.str("key_ref");
    let Ok(k) = store::key_by_ref(cx, reference) else { return nothing() };
    if let Some(i) = store::issuers(cx)?.iter().find(|i| i.key_id == k.id) {
        return Err(Error::invalid(format!("Failed to Delete Key.  Key in Use by Issuer: {}", i.id)));
    }
    cx.delete(store::KEYS, k.id.as_bytes());
    let chosen: DefaultKey = store::config(cx, "keys")?;
    if chosen.default == k.id {
        store::save_config(cx, "keys", &DefaultKey::default());
        return Response::default()
            .warn(format!(
                "Deleted key {} (via key_ref {reference}); this was configured as the default key. Operations \
                 without an explicit key will not work until a new default is configured.",
                k.id
            ))
            .done();
    }
    nothing()
}

/// `LIST keys`.
pub fn list(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    let chosen: DefaultKey = store::config(cx, "keys")?;
    let mut keys = Vec::new();
    let mut info = Map::new();
    for k in store::keys(cx)? {
        info.insert(k.id.clone(), json!({"key_name": k.name, "is_default": k.id == chosen.default}));
        keys.push(k.id);
    }
    if keys.is_empty() {
        return Response::keys(keys).done();
    }
    let mut data = Map::new();
    data.insert("keys".into(), keys.into());
    data.insert("key_info".into(), info.into());
    Response::data(data).done()
}

/// `keys/generate/:exported`.
pub fn generate(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if args.str("exported") == "kms" {
        return Err(Error::invalid("managed keys are not supported: use internal or exported"));
    }
    store::check_key_name(cx, args.str("key_name"), "")?;
    let spec = Spec::parse(args.str("key_type"), args.int("key_bits"))?;
    let args = args.clone();
    key::generate_then(cx, spec, Box::new(move |cx, private| generated(cx, &args, private)))
}

fn generated(cx: &mut Cx<'_, '_>, args: &Args, private: &Private) -> Result<Step, Error> {
    let name = args.str("key_name");
    store::check_key_name(cx, name, "")?;
    let (record, _) = store::add_key(cx, private, name)?;
    let mut data = shown(&record);
    if args.str("exported") == "exported" {
        data.insert("private_key".into(), private.shown(Format::Pem, "pkcs8")?.into());
    }
    Ok(Response::data(data).into())
}

/// `keys/import`.
pub fn import(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let text = args.str("pem_bundle");
    if text.is_empty() {
        return Err(Error::invalid("'pem_bundle' parameter was empty"));
    }
    let name = args.str("key_name");
    store::check_key_name(cx, name, "")?;
    let sections = pem::sections(text).map_err(|e| Error::invalid(format!("unable to parse PEM bundle: {e}")))?;
    let mut found = Vec::new();
    for (kind, der) in &sections {
        match kind {
            SectionKind::PrivateKey => found.push(Private::from_pkcs8(der)),
            SectionKind::RsaPrivateKey => found.push(Private::from_pkcs1(der)),
            SectionKind::EcPrivateKey => found.push(Private::from_sec1(der)),
            SectionKind::Certificate => {
                return Err(Error::invalid("certificates found in the PEM bundle; use /issuers/import/bundle"));
            }
            _ => {}
        }
    }
    let [private] = &found[..] else {
        return Err(Error::invalid("only a single key can be present within the pem_bundle for importing"));
    };
    let private = private.as_ref().map_err(|e| Error::invalid(e.clone()))?;
    let (record, new) = store::add_key(cx, private, name)?;
    let answer = Response::data(shown(&record));
    match new {
        true => answer.done(),
        false => answer.warn("Key already imported, use key/ endpoint to update name.").done(),
    }
}

/// `GET config/keys`.
pub fn read_config(cx: &mut Cx<'_, '_>, _args: &Args) -> Outcome {
    let c: DefaultKey = store::config(cx, "keys")?;
    Response::json(json!({"default": c.default})).done()
}

/// `POST config/keys`.
pub fn write_config(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let reference = args.str("default");
    if reference.is_empty() || reference == "default" {
        return Err(Error::invalid("Invalid key specification; must be non-empty and can't be 'default'."));
    }
    let k = store::key_by_ref(cx, reference)
        .map_err(|e| Error::invalid(format!("Error resolving issuer reference: {}", e.text())))?;
    store::save_config(cx, "keys", &DefaultKey { default: k.id.clone() });
    Response::json(json!({"default": k.id})).done()
}
