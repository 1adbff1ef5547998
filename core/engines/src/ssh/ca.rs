//! The CA's key.

use super::key::{KeyType, Private, Stored, with_fresh};
use ringfence_base::Code;
use ringfence_logical::{Args, Cx, Error, Outcome, Response, nothing};
use serde_json::json;
use std::sync::Arc;

const AREA: u8 = b'c';
const CA: &[u8] = b"ca";

/// The key, if there is one.
pub fn load(cx: &mut Cx<'_, '_>) -> Result<Option<Stored>, Error> {
    cx.get_json(AREA, CA)
}

/// The private key in use, decoded once a core.
pub fn private(cx: &mut Cx<'_, '_>) -> Result<Option<Arc<Private>>, Error> {
    cx.decoded(
        AREA,
        CA,
        |_| Ok(usize::MAX),
        |bytes| {
            let stored =
                serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("a stored CA key: {e}")))?;
            Private::load(&stored)
        },
    )
}

fn save(cx: &mut Cx<'_, '_>, key: &Private) -> Result<String, Error> {
    if cx.exists(AREA, CA) {
        return Err(Error::invalid("keys are already configured; delete them before reconfiguring"));
    }
    let stored = key.stored()?;
    cx.put_json(AREA, CA, &stored);
    Ok(format!("{}\n", stored.public))
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let (private, public) = (args.str("private_key"), args.str("public_key"));
    // a key that is brought in says so by itself
    let generate = match args.opt_bool("generate_signing_key") {
        Some(asked) => asked,
        None => private.is_empty() && public.is_empty(),
    };
    if generate && !(private.is_empty() && public.is_empty()) {
        return Err(Error::invalid(
            "public_key and private_key must not be set when generate_signing_key is set to true",
        ));
    }
    if cx.exists(AREA, CA) {
        return Err(Error::invalid("keys are already configured; delete them before reconfiguring"));
    }
    if generate {
        let kind = KeyType::parse(args.str("key_type"), args.int("key_bits"))?;
        return with_fresh(cx, kind, |cx, key| {
            let public = save(cx, key)?;
            Response::json(json!({ "public_key": public })).done()
        });
    }
    if private.is_empty() || public.is_empty() {
        return Err(Error::invalid(
            "only one of public_key and private_key set; both must be set to use, or both must be blank to auto-generate",
        ));
    }
    let key = Private::from_text(private)?;
    let shown = ssh_key::PublicKey::from_openssh(public.trim())
        .map_err(|e| Error::invalid(format!("Unable to parse public_key as an SSH public key: {e}")))?;
    if shown.to_bytes().ok() != Some(key.public_blob()?) {
        return Err(Error::invalid("public_key does not belong to private_key"));
    }
    save(cx, &key)?;
    nothing()
}

pub fn read(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let stored = load(cx)?.ok_or_else(|| Error::invalid("keys haven't been configured yet"))?;
    Response::json(json!({ "public_key": format!("{}\n", stored.public) })).done()
}

pub fn delete(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    if cx.exists(AREA, CA) {
        cx.delete(AREA, CA);
    }
    nothing()
}

pub fn public(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    match load(cx)? {
        Some(stored) => Response::raw("text/plain", format!("{}\n", stored.public).into_bytes()).done(),
        None => Response::raw("text/plain", Vec::new()).code(Code::NoContent).done(),
    }
}
