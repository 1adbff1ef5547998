//! Base64 as Go's standard decoder takes it, with its words for what it refuses.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Appends what a text decodes to.
///
/// # Errors
/// `illegal base64 data at input byte N`.
pub fn decode_into(text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    match STANDARD.decode_vec(text, out) {
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
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    decode_into(text, &mut out)?;
    Ok(out)
}

/// Base64 of bytes.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
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

    #[test]
    fn as_go_decodes() {
        assert_eq!(decode("aGk=").as_deref(), Ok(&b"hi"[..]));
        assert_eq!(decode("aG\r\nk=\n").as_deref(), Ok(&b"hi"[..]));
        assert_eq!(decode("").as_deref(), Ok(&b""[..]));
        assert_eq!(decode("aGk!"), Err("illegal base64 data at input byte 3".into()));
        assert_eq!(decode("aGkxa"), Err("illegal base64 data at input byte 4".into()));
        assert!(decode("aGk").is_err() && decode("a b=").is_err());
    }
}
