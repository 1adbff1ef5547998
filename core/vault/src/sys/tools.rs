//! `sys/tools/*`: random bytes and hashes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_logical::field::Preset;
use ringfence_logical::{Args, Cx, Error, Field, Outcome, Path, Response};
use serde_json::json;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use sha3::{Sha3_224, Sha3_256, Sha3_384, Sha3_512};

/// Most random bytes of one request. Source: Vault's documented limit.
const MAX_BYTES: i64 = 131_072;

const BYTES: Field = Field::int("bytes", "How many bytes; 32 by default.").preset(Preset::Int(32));
const URL_BYTES: Field = Field::str("urlbytes", "How many bytes, or the source, as part of the path.");
const FORMAT: Field = Field::str("format", "base64 or hex.").preset(Preset::Str("base64"));
const SOURCE: Field =
    Field::str("source", "platform, seal or all: there is one source here.").preset(Preset::Str("platform"));
const ALGORITHM: Field =
    Field::str("algorithm", "sha2-224, -256, -384, -512 or sha3-224, ...").preset(Preset::Str("sha2-256"));
const RANDOM: &[Field] = &[SOURCE, URL_BYTES, BYTES, FORMAT];
const HASH: &[Field] = &[
    Field::str("input", "What is hashed, in base64.").secret(),
    ALGORITHM,
    Field::str("urlalgorithm", "The algorithm, as part of the path."),
    Field::str("format", "hex or base64.").preset(Preset::Str("hex")),
];

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("tools/random").computes().fields(RANDOM).help("Random bytes.", "").write(random),
    Path::new("tools/random/{urlbytes:any}").computes().fields(RANDOM).help("Random bytes.", "").write(random),
    Path::new("tools/random/{source:any}/{urlbytes:any}")
        .computes()
        .fields(RANDOM)
        .help("Random bytes.", "")
        .write(random),
    Path::new("tools/hash").computes().fields(HASH).help("The hash of a text.", "").write(hash),
    Path::new("tools/hash/{urlalgorithm:any}").computes().fields(HASH).help("The hash of a text.", "").write(hash),
];

fn random(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
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
    if count > MAX_BYTES {
        return Err(Error::invalid(format!("'bytes' should be less than {MAX_BYTES}")));
    }
    check_format(args.str("format"))?;
    let mut bytes = vec![0; count as usize];
    cx.rng.fill(&mut bytes);
    Response::json(json!({ "random_bytes": encode(args.str("format"), &bytes) })).done()
}

fn check_format(format: &str) -> Result<(), Error> {
    match format {
        "hex" | "base64" => Ok(()),
        other => Err(Error::invalid(format!("unsupported encoding format {other}; must be \"hex\" or \"base64\""))),
    }
}

fn encode(format: &str, bytes: &[u8]) -> String {
    if format == "hex" { hex::encode(bytes) } else { STANDARD.encode(bytes) }
}

fn hash(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let input = STANDARD.decode(args.str("input")).map_err(|e| {
        let at = match e {
            base64::DecodeError::InvalidByte(at, _)
            | base64::DecodeError::InvalidLastSymbol(at, _)
            | base64::DecodeError::InvalidLength(at) => at,
            base64::DecodeError::InvalidPadding => args.str("input").len(),
        };
        Error::invalid(format!("unable to decode input as base64: illegal base64 data at input byte {at}"))
    })?;
    check_format(args.str("format"))?;
    let algorithm = match args.str("urlalgorithm") {
        "" => args.str("algorithm"),
        in_path => in_path,
    };
    let sum = match algorithm {
        "sha2-224" => Sha224::digest(&input).to_vec(),
        "sha2-256" => Sha256::digest(&input).to_vec(),
        "sha2-384" => Sha384::digest(&input).to_vec(),
        "sha2-512" => Sha512::digest(&input).to_vec(),
        "sha3-224" => Sha3_224::digest(&input).to_vec(),
        "sha3-256" => Sha3_256::digest(&input).to_vec(),
        "sha3-384" => Sha3_384::digest(&input).to_vec(),
        "sha3-512" => Sha3_512::digest(&input).to_vec(),
        other => return Err(Error::invalid(format!("unsupported algorithm {other}"))),
    };
    Response::json(json!({ "sum": encode(args.str("format"), &sum) })).done()
}
