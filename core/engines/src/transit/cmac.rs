//! Codes by block cipher: made and checked. A code may be cut short; both sides must say how long it is.

use super::batch::{objects, quote, string, weak_int};
use super::kind::KeyKind;
use super::policy::{Policy, Use};
use super::{ciphertext, store, text};
use ringfence_base::secret::same_bytes;
use ringfence_crypto::cmac::{CODE_BYTES, code};
use ringfence_logical::{Args, Cx, Error, Outcome, Response};
use zeroize::Zeroizing;

/// The length of codes that a request names, in the path or the body.
pub fn length(args: &Args) -> Result<usize, Error> {
    let wanted = match args.int("url_mac_length") {
        0 => args.int("mac_length"),
        n => n,
    };
    match wanted {
        0 => Ok(CODE_BYTES),
        n => usize::try_from(n)
            .ok()
            .filter(|n| *n <= CODE_BYTES)
            .ok_or_else(|| Error::invalid(format!("mac_length must be between 1 and {CODE_BYTES}"))),
    }
}

fn fits(policy: &Policy) -> Result<(), Error> {
    match policy.kind {
        KeyKind::Cmac(_) => Ok(()),
        other => Err(Error::invalid(format!("CMAC generation is not supported for key type {}", other.name()))),
    }
}

fn make(cx: &mut Cx<'_, '_>, policy: &Policy, version: u64, input: &[u8], length: usize) -> Result<Vec<u8>, Error> {
    let version = store::load_version(cx, policy, version)?;
    let whole = code(&version.key, input).ok_or_else(|| Error::internal("a CMAC key of another length"))?;
    Ok(whole[..length].to_vec())
}

/// `cmac/{name}`.
pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let policy = store::load(cx, args.str("name"))?.ok_or_else(|| Error::invalid("encryption key not found"))?;
    policy.alive()?;
    fits(&policy)?;
    let length = length(args)?;
    let asked = args.int("key_version");
    let one = |cx: &mut Cx<'_, '_>, input: &str, version: i64| -> Result<String, Error> {
        let input = Zeroizing::new(
            text::decode(input).map_err(|e| Error::invalid(format!("unable to decode input as base64: {e}")))?,
        );
        let version = policy.version_to(Use::Sign, version)?;
        let made = make(cx, &policy, version, &input, length)?;
        Ok(format!("{}{}", ciphertext::prefix(version), text::encode(&made)))
    };
    let Some(batch) = args.json("batch_input").filter(|b| !b.is_null()) else {
        let input = args.opt_str("input").ok_or_else(|| Error::invalid("missing input for CMAC"))?;
        return Response::json(serde_json::json!({ "cmac": one(cx, input, asked)? })).done();
    };
    let mut out = String::from("{\"batch_results\":[");
    let (mut failed, mut count) = (false, 0);
    for (i, item) in objects(batch)?.enumerate() {
        count += 1;
        out.push_str(if i > 0 { ",{" } else { "{" });
        let version = item.get("key_version").and_then(weak_int).unwrap_or(asked);
        let made = match string(item, i, "input")? {
            Some(input) => one(cx, input, version),
            None => Err(Error::invalid("missing input for CMAC")),
        };
        match made {
            Ok(code) => {
                out.push_str("\"cmac\":");
                quote(&mut out, &code);
            }
            Err(e) => {
                failed = true;
                out.push_str("\"error\":");
                quote(&mut out, &e.text());
            }
        }
        if let Some(reference) = string(item, i, "reference")?.filter(|r| !r.is_empty()) {
            out.push_str(",\"reference\":");
            quote(&mut out, reference);
        }
        out.push('}');
    }
    if count == 0 {
        return Err(Error::invalid("missing batch input to process"));
    }
    out.push_str("]}");
    let response = Response::text(out);
    if failed { response.code(ringfence_base::Code::Invalid).done() } else { response.done() }
}

/// Compares a code with the one it should be.
pub fn verify(
    cx: &mut Cx<'_, '_>,
    policy: &Policy,
    length: usize,
    input: &[u8],
    shown: &str,
) -> Result<bool, String> {
    fits(policy).map_err(|e| e.text())?;
    let (version, payload) = ciphertext::parse(shown, policy, "CMAC")?;
    let payload =
        text::decode(payload).map_err(|e| format!("unable to decode verification string as base64: {e}"))?;
    let should = make(cx, policy, version, input, length).map_err(|e| e.text())?;
    Ok(same_bytes(&payload, &should))
}
