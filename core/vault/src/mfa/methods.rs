//! `identity/mfa/method/*`: the methods that logins can owe, and the secrets of entities for them. Type totp is served;
//! methods that ask an outside service are refused when they are configured.

use super::records::{self, Method, Secret};
use super::totp::{self, Algorithm};
use crate::host::host;
use crate::identity;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_base::entropy;
use ringfence_logical::field::Preset;
use ringfence_logical::{Args, Cx, Error, Field, Map, Outcome, Path, Response, nothing};
use serde_json::{Value, json};

/// Largest side of a barcode, pixels.
const MAX_QR_PIXELS: i64 = 1000;
/// Longest secret, bytes: it must fit a barcode.
const MAX_KEY_BYTES: i64 = 128;

const METHOD_ID: Field = Field::str("method_id", "Id of the method.");
const ENTITY_ID: Field = Field::str("entity_id", "Id of the entity.");
const TYPE: Field = Field::str("type", "duo, okta or pingid.");

const CONFIG: &[Field] = &[
    METHOD_ID,
    Field::str("method_name", "Name of the method; may stand for its id."),
    Field::str("issuer", "Who issues the codes, shown by authenticator programs."),
    Field::seconds("period", "How long a code lives.").preset(Preset::Int(30)),
    Field::int("key_size", "Bytes of a secret.").preset(Preset::Int(20)),
    Field::int("qr_size", "Pixels of the barcode's side; 0 for none.").preset(Preset::Int(200)),
    Field::str("algorithm", "SHA1, SHA256 or SHA512.").preset(Preset::Str("SHA1")),
    Field::int("digits", "6 or 8.").preset(Preset::Int(6)),
    Field::int("skew", "Periods before and after the present that are accepted: 0 or 1.").preset(Preset::Int(1)),
    Field::int("max_validation_attempts", "Wrong codes until the next must wait.").preset(Preset::Int(5)),
];

/// The paths.
pub const PATHS: &[Path] = &[
    Path::new("mfa/method/?").help("List MFA methods of every type.", "").list(list),
    Path::new("mfa/method/totp/generate")
        .fields(&[METHOD_ID])
        .help("Make the caller's secret for a method.", "")
        .write(generate),
    Path::new("mfa/method/totp/admin-generate")
        .fields(&[METHOD_ID, ENTITY_ID])
        .help("Make an entity's secret for a method.", "")
        .write(admin_generate),
    Path::new("mfa/method/totp/admin-destroy")
        .fields(&[METHOD_ID, ENTITY_ID])
        .help("Delete an entity's secret for a method.", "")
        .write(admin_destroy),
    Path::new("mfa/method/totp/?")
        .fields(CONFIG)
        .help("Make a method of type totp, or list them.", "")
        .list(list)
        .write(create),
    Path::new("mfa/method/totp/{method_id:any}")
        .fields(CONFIG)
        .help("Read, update or delete a method of type totp.", "")
        .read(read)
        .write(update)
        .delete(delete),
    other("mfa/method/duo"),
    other("mfa/method/okta"),
    other("mfa/method/pingid"),
    Path::new("mfa/method/{method_id:any}").fields(&[METHOD_ID]).help("Read a method of any type.", "").read(read),
    Path::new("mfa/method/{type:any}/{method_id:any}")
        .fields(&[TYPE, METHOD_ID])
        .help("Methods of an outside service are not served.", "")
        .free_form()
        .write(refuse),
];

const fn other(pattern: &'static str) -> Path {
    Path::new(pattern).help("Methods of an outside service are not served.", "").free_form().write(refuse)
}

fn refuse(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let kind = cx.req.path.split('/').nth(2).unwrap_or_default().to_owned();
    Err(Error::invalid(format!("MFA methods of type {kind:?} are not supported by this server; supported: totp")))
}

fn shown(cx: &Cx<'_, '_>, m: &Method) -> Value {
    let ns = &host(cx).namespace;
    json!({
        "type": "totp", "id": m.id, "name": m.name, "namespace_id": ns.external_id, "namespace_path": ns.path,
        "issuer": m.issuer, "period": m.period, "key_size": m.key_size, "qr_size": m.qr_size,
        "algorithm": m.algorithm.as_str(), "digits": m.digits, "skew": m.skew,
        "max_validation_attempts": m.max_validation_attempts,
    })
}

fn list(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let methods = records::methods(cx.txn, cx.mount.ns)?;
    let mut data = Map::new();
    if !methods.is_empty() {
        let info: Map = methods.iter().map(|m| (m.id.clone(), shown(cx, m))).collect();
        data.insert("keys".into(), methods.iter().map(|m| m.id.clone()).collect::<Vec<_>>().into());
        data.insert("key_info".into(), Value::Object(info));
    }
    Response::data(data).done()
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match records::method(cx.txn, cx.mount.ns, args.str("method_id"))? {
        Some(m) => Response::json(shown(cx, &m)).done(),
        None => nothing(),
    }
}

fn create(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let m = Method {
        id: entropy::uuid4(cx.rng),
        name: String::new(),
        issuer: String::new(),
        period: args.seconds("period"),
        key_size: 0,
        qr_size: 0,
        algorithm: Algorithm::Sha1,
        digits: 6,
        skew: 1,
        max_validation_attempts: 5,
    };
    let m = configured(cx, m, args, |_| true)?;
    records::save_method(cx.txn, cx.mount.ns, &m);
    Response::json(json!({"method_id": m.id})).done()
}

fn update(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(m) = records::method(cx.txn, cx.mount.ns, args.str("method_id"))? else {
        return Err(Error::invalid("method ID does not exist"));
    };
    let m = configured(cx, m, args, |name| args.supplied(name))?;
    records::save_method(cx.txn, cx.mount.ns, &m);
    nothing()
}

/// The method with those fields that `takes` wants from the request.
fn configured(
    cx: &mut Cx<'_, '_>,
    mut m: Method,
    args: &Args,
    takes: impl Fn(&str) -> bool,
) -> Result<Method, Error> {
    let within = |name: &str, low: i64, high: i64, text: String| match args.int(name) {
        n if (low..=high).contains(&n) => Ok(n as u64),
        _ => Err(Error::invalid(text)),
    };
    if takes("method_name") {
        let name = args.str("method_name").trim().to_owned();
        let taken = records::methods(cx.txn, cx.mount.ns)?;
        if !name.is_empty() && taken.iter().any(|o| o.id != m.id && o.name == name) {
            return Err(Error::invalid(format!("method name {name:?} is already in use")));
        }
        m.name = name;
    }
    if takes("issuer") {
        m.issuer = args.str("issuer").to_owned();
    }
    if m.issuer.is_empty() {
        return Err(Error::invalid("issuer must be set"));
    }
    if takes("period") {
        m.period = within("period", 1, 86_400, "period must be greater than zero and at most a day".into())?;
    }
    if takes("key_size") {
        let text = format!("key_size must be greater than zero and at most {MAX_KEY_BYTES}");
        m.key_size = within("key_size", 1, MAX_KEY_BYTES, text)?;
    }
    if takes("qr_size") {
        let text = format!("qr_size must be greater than or equal to zero and at most {MAX_QR_PIXELS}");
        m.qr_size = within("qr_size", 0, MAX_QR_PIXELS, text)?;
    }
    if takes("algorithm") {
        let text = args.str("algorithm");
        let found = Algorithm::parse(text);
        m.algorithm = found.ok_or_else(|| Error::invalid(format!("the algorithm is not valid: {text:?}")))?;
    }
    if takes("digits") {
        m.digits = match args.int("digits") {
            6 => 6,
            8 => 8,
            _ => return Err(Error::invalid("digits must be 6 or 8")),
        };
    }
    if takes("skew") {
        m.skew = within("skew", 0, 1, "skew must be 0 or 1".into())?;
    }
    if takes("max_validation_attempts") {
        let text = "max_validation_attempts must be greater than zero".to_owned();
        m.max_validation_attempts = within("max_validation_attempts", 1, i64::from(u32::MAX), text)?;
    }
    Ok(m)
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let id = args.str("method_id");
    let ns = cx.mount.ns;
    if let Some(e) = records::enforcements(cx.txn, ns)?.iter().find(|e| e.methods.iter().any(|m| m == id)) {
        return Err(Error::plain(&format!(
            "methodID is still used by an enforcement configuration with ID: {}",
            e.id
        )));
    }
    if records::method(cx.txn, ns, id)?.is_some() {
        records::delete_method(cx.txn, ns, id);
    }
    nothing()
}

fn named(cx: &mut Cx<'_, '_>, args: &Args) -> Result<Method, Error> {
    let id = args.str("method_id");
    if id.is_empty() {
        return Err(Error::invalid("missing method ID"));
    }
    let found = records::method(cx.txn, cx.mount.ns, id)?;
    found.ok_or_else(|| Error::invalid(format!("configuration for method ID {id:?} does not exist")))
}

fn generate(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let entity = cx.caller()?.entity_id.clone();
    let Some(entity) = identity::find(cx.txn, cx.mount.ns, &entity)? else {
        return Err(Error::invalid("no entity associated with the request's token"));
    };
    let m = named(cx, args)?;
    make(cx, &m, &entity.id)
}

fn admin_generate(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let m = named(cx, args)?;
    let entity = entity_named(cx, args)?;
    make(cx, &m, &entity)
}

fn entity_named(cx: &mut Cx<'_, '_>, args: &Args) -> Result<String, Error> {
    let id = args.str("entity_id");
    if id.is_empty() {
        return Err(Error::invalid("missing entity ID"));
    }
    match identity::load(cx.txn, cx.mount.ns, id)? {
        Some(e) => Ok(e.id),
        None => Err(Error::invalid(format!("invalid entity ID {id:?}"))),
    }
}

fn make(cx: &mut Cx<'_, '_>, m: &Method, entity: &str) -> Outcome {
    let ns = cx.mount.ns;
    if records::secret(cx.txn, ns, &m.id, entity)?.is_some() {
        return Response::default().warn(format!("Entity already has a secret for MFA method {:?}", m.name)).done();
    }
    let mut key = vec![0u8; usize::try_from(m.key_size).unwrap_or(20)];
    cx.rng.fill(&mut key);
    let secret = Secret { key, created: cx.now };
    let url = totp::url(&m.issuer, entity, &secret.key, m.algorithm, m.digits, m.period);
    let barcode = match m.qr_size {
        0 => String::new(),
        size => totp::barcode(&url, size).map(|png| STANDARD.encode(png)).unwrap_or_default(),
    };
    records::save_secret(cx.txn, ns, &m.id, entity, &secret);
    Response::json(json!({"url": url, "barcode": barcode})).done()
}

fn admin_destroy(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let m = named(cx, args)?;
    let entity = entity_named(cx, args)?;
    records::delete_secret(cx.txn, cx.mount.ns, &m.id, &entity);
    nothing()
}
