//! Base64 as Go's standard decoder takes it, with its words for what it refuses.

use base64::Engine as _;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use base64_simd::STANDARD;

/// The slow way, which says where a text goes wrong, and takes loose bits at its end as Go does.
const LOOSE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Appends what a text decodes to.
///
/// # Errors
/// `illegal base64 data at input byte N`.
pub fn decode_into(text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    if STANDARD.decode_append(text, out).is_ok() {
        return Ok(());
    }
    out.truncate(start);
    match LOOSE.decode_vec(text, out) {
        Ok(()) => Ok(()),
        // line breaks are passed over, as Go does
        Err(_) if text.contains(['\r', '\n']) => {
            out.truncate(start);
            decode_into(&text.replace(['\r', '\n'], ""), out)
        }
        Err(e) => {
            out.truncate(start);
            Err(format!("illegal base64 data at input byte {}", place(&e, text)))
        }
    }
}

/// What a text decodes to.
///
/// # Errors
/// As [`decode_into`].
pub fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    if !text.is_empty() {
        out.reserve_exact(text.len() / 4 * 3 + 3);
        decode_into(text, &mut out)?;
    }
    Ok(out)
}

/// Base64 of bytes.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode_to_string(bytes)
}

/// Appends base64 of bytes.
pub fn encode_into(bytes: &[u8], out: &mut String) {
    STANDARD.encode_append(bytes, out);
}

fn place(e: &base64::DecodeError, text: &str) -> usize {
    use base64::DecodeError::*;
    match e {
        InvalidByte(at, _) | InvalidLastSymbol(at, _) => *at,
        // Go names the start of the last, unfinished group of four
        InvalidLength(_) | InvalidPadding => text.trim_end_matches('=').len() / 4 * 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_go_decodes() {
        assert_eq!(decode("aGk=").as_deref(), Ok(&b"hi"[..]));
        assert_eq!(decode("aG\r\nk=\n").as_deref(), Ok(&b"hi"[..]));
        assert_eq!(decode("").as_deref(), Ok(&b""[..]));
        assert_eq!(decode("aGk!"), Err("illegal base64 data at input byte 3".into()));
        assert_eq!(decode("aGkxa"), Err("illegal base64 data at input byte 4".into()));
        assert!(decode("aGk").is_err() && decode("a b=").is_err());
        assert_eq!(decode("aGl=").as_deref(), Ok(&b"hi"[..]), "loose bits at the end are passed over");
    }

    proptest! {
        /// The fast way and the plain library take the same texts for the same bytes.
        #[test]
        fn both_ways_agree(bytes: Vec<u8>, at: usize, with in 0u8..128) {
            let mut told = String::from("x");
            encode_into(&bytes, &mut told);
            prop_assert_eq!(&told[1..], LOOSE.encode(&bytes));
            let mut text = told.split_off(1).into_bytes();
            prop_assert_eq!(decode(std::str::from_utf8(&text).unwrap()), Ok(bytes));
            if !text.is_empty() {
                let at = at % text.len();
                text[at] = with;
                let text = std::str::from_utf8(&text).unwrap();
                prop_assert_eq!(decode(text).ok(), LOOSE.decode(text.replace(['\r', '\n'], "")).ok());
            }
        }
    }
}
