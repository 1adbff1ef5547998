//! `sys/wrapping/*`: wrap anything, open, look at, and wrap again.

use crate::envelope;
use crate::host::host;
use crate::jwt;
use crate::token::check::{self, Holder};
use crate::wrap::{self, Inner};
use ringfence_base::duration::SECOND_NS;
use ringfence_logical::{Args, Cx, Error, Field, Outcome, Path, Response, nothing};
use serde_json::json;

const TOKEN: Field = Field::str("token", "The wrapping token; the caller's own when not given.").secret();

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("wrapping/wrap")
        .help("Answers what it is given, wrapped.", "The wrapping time comes in the header X-Vault-Wrap-TTL.")
        .free_form()
        .write(wrap_any),
    Path::new("wrapping/unwrap")
        .fields(&[TOKEN])
        .help("Opens a wrapped answer.", "Once: the wrapping token is used up.")
        .write(unwrap),
    Path::new("wrapping/lookup")
        .computes()
        .fields(&[TOKEN])
        .public()
        .help("What is known of a wrapping token.", "Does not use it up.")
        .read(lookup)
        .write(lookup),
    Path::new("wrapping/rewrap")
        .fields(&[TOKEN])
        .help("Puts a wrapped answer under a new wrapping token with the same life.", "The old one is used up.")
        .write(rewrap),
    Path::new("wrapping/pubkey")
        .public()
        .root_namespace_only()
        .help("The public key that signs wrapping tokens in JWT form.", "")
        .read(public_key),
];

fn wrap_any(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if cx.req.wrap_ttl == 0 {
        return Err(Error::invalid("endpoint requires response wrapping to be used"));
    }
    Response::data(args.raw().clone()).done()
}

/// The wrapping token that a request is about: living, unused, and a wrapping token.
fn subject(cx: &mut Cx<'_, '_>, args: &Args) -> Result<Holder, Error> {
    let h = host(cx);
    let raw = match (args.str("token"), &h.call.token) {
        ("", Some(own)) => own.expose().clone(),
        ("", None) => return Err(Error::invalid("missing \"token\" value in input")),
        (given, _) => given.to_owned(),
    };
    let found = check::find(cx.txn, &h.keyring, &h.router, &raw, cx.now)?;
    let holder = found.filter(|t| wrap::is_wrapping(&t.entry) && t.entry.num_uses > 0).ok_or_else(wrap::not_valid)?;
    // a request from elsewhere may name it, but a locked namespace gives nothing out
    let home = h.router.namespace_by_id(holder.entry.ns).ok_or_else(wrap::not_valid)?;
    match h.router.locked_by(home) {
        Some(_) => Err(wrap::not_valid()),
        None => Ok(holder),
    }
}

fn unwrap(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let holder = subject(cx, args)?;
    let h = host(cx);
    let Some(wrapped) = wrap::open(cx.txn, &h.keyring, &h.router, &holder)? else {
        // the token is used up though nothing came out
        return nothing();
    };
    match wrapped.inner {
        Inner::Json(text) if text.is_empty() => nothing(),
        Inner::Json(text) => Response::raw("application/json", text).done(),
        Inner::Raw(raw) => Response { raw: Some(raw), ..Response::default() }.done(),
    }
}

fn lookup(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let holder = subject(cx, args)?;
    let h = host(cx);
    let about = wrap::about(cx.txn, &h.router, &holder.entry, &holder.hash)?.ok_or_else(wrap::not_valid)?;
    Response::json(json!({
        "creation_ttl": about.creation_ttl / SECOND_NS,
        "creation_time": about.creation_time,
        "creation_path": about.creation_path,
    }))
    .done()
}

fn rewrap(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let holder = subject(cx, args)?;
    let h = host(cx);
    let wrapped = wrap::open(cx.txn, &h.keyring, &h.router, &holder)?.ok_or_else(wrap::not_valid)?;
    let wish = wrap::Wish {
        ns: holder.entry.ns,
        path: &wrapped.about.creation_path,
        display_name: &holder.entry.display_name,
        ttl: wrapped.about.creation_ttl / SECOND_NS,
        inner: wrapped.inner,
        wrapped_accessor: wrapped.about.wrapped_accessor.clone(),
        now: cx.now,
    };
    let info = wrap::store(cx.txn, &h.keyring, &h.router, cx.rng, wish)?;
    Response::raw("application/json", envelope::write_wrapped(&info, &[], &cx.mount.kind)).done()
}

fn public_key(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    Response::json(json!({ "public_key": jwt::public_pem(cx.txn)? })).done()
}

#[cfg(test)]
mod tests {
    use crate::tables;
    use crate::testing::{World, error_of};
    use ringfence_base::Code;
    use ringfence_logical::Operation;
    use serde_json::{Value, json};

    const NOT_VALID: (Code, &str) = (Code::Invalid, "wrapping token is not valid or does not exist");

    fn wrap(w: &mut World, data: Value) -> Value {
        let root = w.root.clone();
        let (code, v) = w.wrapped(Operation::Update, "sys/wrapping/wrap", &root, data, 60);
        assert_eq!(code, Code::Ok, "{v}");
        v["wrap_info"].clone()
    }

    fn token(info: &Value) -> String {
        info["token"].as_str().unwrap().to_owned()
    }

    #[test]
    fn an_answer_is_opened_once() {
        let mut w = World::new();
        let root = w.root.clone();
        let info = wrap(&mut w, json!({"a": 1}));
        assert_eq!((&info["ttl"], &info["creation_path"]), (&json!(60), &json!("sys/wrapping/wrap")));
        assert!(info.get("wrapped_accessor").is_none());
        let t = token(&info);
        for _ in 0..3 {
            let (_, v) = w.post("sys/wrapping/lookup", "", json!({"token": t}));
            assert_eq!(v["data"]["creation_ttl"], json!(60), "a lookup does not use it up");
        }
        let (code, v) = w.post("sys/wrapping/unwrap", &t, Value::Null);
        assert_eq!((code, &v["data"]), (Code::Ok, &json!({"a": 1})));
        assert!(v["request_id"].as_str().is_some_and(|id| !id.is_empty()));
        for (caller, body) in [(t.as_str(), Value::Null), (root.as_str(), json!({"token": t}))] {
            let (code, v) = w.post("sys/wrapping/unwrap", caller, body);
            assert_eq!((code, error_of(&v)), NOT_VALID);
        }
        assert_eq!((w.rows(tables::TOKEN), w.rows(tables::CUBBYHOLE)), (1, 0));
    }

    #[test]
    fn a_third_party_opens_it_with_its_own_token() {
        let mut w = World::new();
        let t = token(&wrap(&mut w, json!({"a": 1})));
        let root = w.root.clone();
        let (code, v) = w.post("sys/wrapping/unwrap", &root, json!({"token": t}));
        assert_eq!((code, &v["data"]), (Code::Ok, &json!({"a": 1})));
        let (code, v) = w.post("sys/wrapping/unwrap", &t, Value::Null);
        assert_eq!((code, error_of(&v)), NOT_VALID);
        // an ordinary token wraps nothing
        let (code, v) = w.post("sys/wrapping/unwrap", &root, Value::Null);
        assert_eq!((code, error_of(&v)), NOT_VALID);
    }

    #[test]
    fn it_may_do_nothing_else_and_ends_in_time() {
        let mut w = World::new();
        let t = token(&wrap(&mut w, json!({"a": 1})));
        assert_eq!(w.get("auth/token/lookup-self", &t).0, Code::Denied);
        let (code, v) = w.post("sys/wrapping/unwrap", &t, Value::Null);
        assert_eq!((code, error_of(&v)), NOT_VALID, "that was its one use");
        let t = token(&wrap(&mut w, json!({"a": 1})));
        w.sleep(60);
        let (code, v) = w.post("sys/wrapping/lookup", "", json!({"token": t}));
        assert_eq!((code, error_of(&v)), NOT_VALID);
        w.work();
        assert_eq!((w.rows(tables::TOKEN), w.rows(tables::CUBBYHOLE)), (1, 0));
    }

    #[test]
    fn wrapping_again_keeps_life_and_path() {
        let mut w = World::new();
        let root = w.root.clone();
        let (_, v) = w.wrapped(Operation::Update, "auth/token/create", &root, json!({"policies": ["default"]}), 30);
        let info = v["wrap_info"].clone();
        assert!(v["auth"].is_null() && info["wrapped_accessor"].is_string(), "{v}");
        w.sleep(10);
        let (code, v) = w.post("sys/wrapping/rewrap", &root, json!({"token": token(&info)}));
        assert_eq!(code, Code::Ok, "{v}");
        let again = v["wrap_info"].clone();
        assert_ne!(again["token"], info["token"]);
        assert_eq!((&again["ttl"], &again["creation_path"]), (&json!(30), &json!("auth/token/create")));
        assert_eq!(again["wrapped_accessor"], info["wrapped_accessor"]);
        let (code, v) = w.post("sys/wrapping/unwrap", &token(&info), Value::Null);
        assert_eq!((code, error_of(&v)), NOT_VALID);
        let (_, v) = w.post("sys/wrapping/unwrap", &token(&again), Value::Null);
        assert_eq!(v["auth"]["accessor"], info["wrapped_accessor"]);
    }

    #[test]
    fn a_wrapping_token_in_a_signed_envelope() {
        let mut w = World::new();
        let root = w.root.clone();
        let mut wrapped = || {
            let mut call = w.blank(Operation::Read, "auth/token/lookup-self", &root, Value::Null);
            (call.wrap_ttl, call.wrap_jwt) = (60, true);
            let (code, v) = crate::testing::told(w.send(call));
            assert_eq!(code, Code::Ok, "{v}");
            token(&v["wrap_info"])
        };
        let (first, second) = (wrapped(), wrapped());
        assert_eq!(first.matches('.').count(), 2, "{first}");
        let claims = |t: &str| -> Value {
            use base64::Engine;
            let body = t.split('.').nth(1).unwrap();
            let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(body).unwrap();
            serde_json::from_slice(&bytes).unwrap()
        };
        let said = claims(&first);
        assert_eq!((&said["type"], said["exp"].as_u64()), (&json!("wrapping"), said["iat"].as_u64().map(|t| t + 60)));
        // the body of one under the signature of the other is worth nothing, and nothing is used up by the attempt
        let forged = format!("{}.{}", second.rsplit_once('.').unwrap().0, first.rsplit_once('.').unwrap().1);
        let (code, v) = w.post("sys/wrapping/unwrap", &root, json!({"token": forged}));
        assert_eq!((code, error_of(&v)), NOT_VALID);
        let (code, v) = w.post("sys/wrapping/unwrap", &first, Value::Null);
        assert_eq!((code, &v["data"]["display_name"]), (Code::Ok, &json!("root")), "{v}");
        let (code, v) = w.post("sys/wrapping/unwrap", &root, json!({"token": second}));
        assert_eq!((code, &v["data"]["display_name"]), (Code::Ok, &json!("root")), "{v}");
        let (code, v) = w.post("sys/wrapping/unwrap", &root, json!({"token": first}));
        assert_eq!((code, error_of(&v)), NOT_VALID);
        let (code, v) = w.get("sys/wrapping/pubkey", "");
        assert_eq!(code, Code::Ok);
        assert!(v["data"]["public_key"].as_str().unwrap().contains("PUBLIC KEY"), "{v}");
    }

    #[test]
    fn refusals() {
        let mut w = World::new();
        let root = w.root.clone();
        let (code, v) = w.post("sys/wrapping/wrap", &root, json!({"a": 1}));
        assert_eq!((code, error_of(&v)), (Code::Invalid, "endpoint requires response wrapping to be used"));
        // an error is not wrapped
        let (code, v) = w.wrapped(Operation::Read, "auth/token/roles/none", &root, Value::Null, 60);
        assert_eq!((code, &v["errors"]), (Code::NotFound, &json!([])));
    }
}
