//! Random bytes and plain hashes: no key takes part.

use super::text;
use ringfence_crypto::hash::Hash;
use ringfence_logical::{Args, Cx, Error, Outcome, Response};
use serde_json::json;

/// Most random bytes of one request. Source: Vault's documented limit.
const MAX_RANDOM_BYTES: i64 = 131_072;

pub fn random(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut source = args.str("source");
    let mut count = args.int("bytes");
    match args.str("urlbytes") {
        "" => {}
        // one segment after `random` may be either
        word @ ("platform" | "seal" | "all") => source = word,
        digits => {
            count = digits.parse().map_err(|_| {
                Error::invalid(format!(
                    "error parsing url-set byte count: strconv.Atoi: parsing {digits:?}: invalid syntax"
                ))
            })?;
        }
    }
    if !matches!(source, "platform" | "seal" | "all") {
        return Err(Error::invalid(format!(
            "unsupported entropy source {source:?}; must be \"platform\" or \"seal\", or \"all\""
        )));
    }
    if count < 1 {
        return Err(Error::invalid("'bytes' cannot be less than 1"));
    }
    if count > MAX_RANDOM_BYTES {
        return Err(Error::invalid(format!("'bytes' should be less than {MAX_RANDOM_BYTES}")));
    }
    check_format(args.str("format"))?;
    let mut bytes = zeroize::Zeroizing::new(vec![0; count as usize]);
    cx.rng.fill(&mut bytes);
    Response::json(json!({ "random_bytes": encoded(args.str("format"), &bytes) })).done()
}

pub fn hash(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let input = args.opt_str("input").ok_or_else(|| Error::invalid("missing input"))?;
    let input = text::decode(input).map_err(|e| Error::invalid(format!("unable to decode input as base64: {e}")))?;
    check_format(args.str("format"))?;
    let name = if args.str("urlalgorithm").is_empty() { args.str("algorithm") } else { args.str("urlalgorithm") };
    let hash = Hash::parse(name)
        .filter(|h| *h != Hash::Sha1)
        .ok_or_else(|| Error::invalid(format!("unsupported algorithm {name}")))?;
    Response::json(json!({ "sum": encoded(args.str("format"), &hash.digest(&input)) })).done()
}

fn check_format(format: &str) -> Result<(), Error> {
    match format {
        "hex" | "base64" => Ok(()),
        other => Err(Error::invalid(format!("unsupported encoding format {other}; must be \"hex\" or \"base64\""))),
    }
}

fn encoded(format: &str, bytes: &[u8]) -> String {
    if format == "hex" { hex::encode(bytes) } else { text::encode(bytes) }
}
