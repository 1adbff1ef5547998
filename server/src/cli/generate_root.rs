//! `operator generate-root`: make a root token, or a DR operation or recovery token, from a quorum of unseal keys.

use super::client::Request;
use super::operator::pgp_keys;
use super::output::{columns, go_value, wrap};
use super::rekey::share;
use super::session::{Outcome, Session, doing, usage};
use super::verb::{Kind, Verb, flag, verb};
use base64::Engine;
use serde_json::{Value, json};

/// `operator generate-root`
pub const GENERATE_ROOT: Verb = verb(
    "generate-root",
    "[key]",
    "Make a root token from unseal keys",
    &[
        flag("init", Kind::Bool, "Begin."),
        flag("cancel", Kind::Bool, "Give up."),
        flag("status", Kind::Bool, "Tell how far it is."),
        flag("decode", Kind::Text, "Decode this encoded token with -otp; - reads it from standard input."),
        flag("generate-otp", Kind::Bool, "Print a one-time password for -otp."),
        flag("otp", Kind::Text, "One-time password the token is encoded with."),
        flag("pgp-key", Kind::Text, "File with a PGP key to encrypt the token with."),
        flag("nonce", Kind::Text, "Nonce of the operation."),
        flag("dr-token", Kind::Bool, "Make a DR operation token."),
        flag("recovery-token", Kind::Bool, "Make a recovery operation token."),
    ],
    generate_root,
);

/// Characters of a token with its prefix, when the server does not say.
const OTP_CHARS: usize = 28;
/// Letters of a one-time password.
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

fn generate_root(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 1)?;
    let set = |name: &str| session.flags.is_set(name);
    let base = match (set("dr-token"), set("recovery-token")) {
        (true, true) => return Err(usage("Both -recovery-token and -dr-token flags are set")),
        (true, false) => "sys/replication/dr/secondary/generate-operation-token",
        (false, true) => "sys/generate-recovery-token",
        (false, false) => "sys/generate-root",
    };
    let attempt = format!("{base}/attempt");
    if set("generate-otp") {
        return generate_otp(session, &attempt);
    }
    if let Some(encoded) = session.flags.text("decode").map(str::to_owned) {
        return decode(session, encoded);
    }
    if set("cancel") {
        session.call(&Request::delete(attempt)).map_err(doing("Error canceling root token generation"))?;
        return session.say("Success! Root token generation canceled (if it was started)");
    }
    if set("init") {
        return begin(session, &attempt);
    }
    if set("status") {
        let status =
            session.call_json(&Request::get(attempt)).map_err(doing("Error getting root generation status"))?;
        return print_status(session, &status);
    }
    provide(session, base, &attempt)
}

fn generate_otp(session: &mut Session<'_, '_>, attempt: &str) -> Outcome {
    let status = session.call_json(&Request::get(attempt)).map_err(doing("Error getting root generation status"))?;
    let length =
        status["otp_length"].as_u64().filter(|length| *length > 0).map_or(OTP_CHARS, |length| length as usize);
    if length > 1024 {
        return Err(usage("the server asks for an unreasonably long one-time password"));
    }
    let otp = random_letters(length).map_err(usage)?;
    if session.is_table() {
        session.print_raw(&otp);
        return Ok(0);
    }
    session.print_data(&json!({ "otp": otp, "otp_length": length }))
}

/// Letters drawn evenly: bytes that would favour the first letters are thrown away.
fn random_letters(length: usize) -> Result<String, String> {
    let mut letters = String::with_capacity(length);
    let mut bytes = [0u8; 64];
    while letters.len() < length {
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system's random source failed".to_owned())?;
        let even = bytes.iter().filter(|byte| **byte < 248).take(length - letters.len());
        letters.extend(even.map(|byte| LETTERS[*byte as usize % LETTERS.len()] as char));
    }
    Ok(letters)
}

fn decode(session: &mut Session<'_, '_>, mut encoded: String) -> Outcome {
    let otp = session.flags.text("otp").unwrap_or_default().to_owned();
    if encoded.is_empty() {
        return Err(usage("Missing encoded value: use -decode=<string> to supply it"));
    }
    if otp.is_empty() {
        return Err(usage("Missing otp: use -otp to supply it"));
    }
    if encoded == "-" {
        let bytes =
            session.io.read_all(64 * 1024).map_err(|error| usage(format!("Failed to read from stdin: {error}")))?;
        encoded = String::from_utf8_lossy(&bytes).into_owned();
    }
    let token =
        decode_token(encoded.trim(), &otp).map_err(|error| usage(format!("Error decoding root token: {error}")))?;
    if session.is_table() {
        session.print_raw(&token);
        return Ok(0);
    }
    session.print_data(&json!({ "token": token }))
}

/// The token that was encoded by exclusive-or with a one-time password of the same length, in base64 with or without padding.
pub fn decode_token(encoded: &str, otp: &str) -> Result<String, String> {
    let bytes = base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(encoded.trim_end_matches('='))
        .map_err(|_| "the encoded token is not base64".to_owned())?;
    if bytes.len() != otp.len() {
        return Err(format!("the encoded token has {} bytes but the one-time password {}", bytes.len(), otp.len()));
    }
    let token: Vec<u8> = bytes.iter().zip(otp.bytes()).map(|(byte, key)| byte ^ key).collect();
    String::from_utf8(token)
        .ok()
        .filter(|token| token.chars().all(|c| c.is_ascii_graphic()))
        .ok_or_else(|| "the one-time password does not fit the encoded token".to_owned())
}

fn begin(session: &mut Session<'_, '_>, attempt: &str) -> Outcome {
    let otp = session.flags.text("otp").unwrap_or_default().to_owned();
    let keys = pgp_keys(session, &session.flags.split_list("pgp-key"))?;
    if !otp.is_empty() && !keys.is_empty() {
        return Err(usage("Error initializing: cannot specify both -otp and -pgp-key"));
    }
    let body = json!({ "otp": otp, "pgp_key": keys.first().map_or("", String::as_str) });
    let status =
        session.call_json(&Request::put(attempt, body)).map_err(doing("Error initializing root generation"))?;
    print_status(session, &status)
}

fn provide(session: &mut Session<'_, '_>, base: &str, attempt: &str) -> Outcome {
    let before =
        session.call_json(&Request::get(attempt).aside()).map_err(doing("Error getting root generation status"))?;
    if before["started"] != true {
        session.io.err(&wrap(&format!(
            "No root generation is in progress. Start a root generation by running \"{} operator generate-root -init\".",
            session.program
        )));
        return Err(usage(wrap(&format!(
            "A one-time password of your own making needs a length of {} characters.",
            before["otp_length"].as_u64().unwrap_or(OTP_CHARS as u64)
        ))));
    }
    let nonce = before["nonce"].as_str().unwrap_or_default().to_owned();
    let (key, nonce) = share(session, &nonce, "Operation nonce", "Unseal")?;
    let request = Request::put(format!("{base}/update"), json!({ "key": key, "nonce": nonce }));
    let status = session.call_json(&request).map_err(doing("Error posting unseal key"))?;
    print_status(session, &status)
}

fn print_status(session: &mut Session<'_, '_>, status: &Value) -> Outcome {
    if !session.is_table() {
        return session.print_data(status);
    }
    let text = |name: &str| status.get(name).filter(|value| !value.is_null()).map(go_value).unwrap_or_default();
    let count = |name: &str| status[name].as_u64().unwrap_or(0);
    let mut rows = vec![
        ("Nonce", text("nonce")),
        ("Started", text("started")),
        ("Progress", format!("{}/{}", count("progress"), count("required"))),
        ("Complete", text("complete")),
    ];
    if !text("pgp_fingerprint").is_empty() {
        rows.push(("PGP Fingerprint", text("pgp_fingerprint")));
    }
    if !text("encoded_token").is_empty() {
        rows.push(("Encoded Token", text("encoded_token")));
    } else if !text("encoded_root_token").is_empty() {
        rows.push(("Encoded Root Token", text("encoded_root_token")));
    }
    if !text("otp").is_empty() {
        session.io.err(&wrap(
            "A One-Time-Password has been generated for you and is shown in the OTP field. The resulting token can be \
             decoded with it only, so keep it safe.",
        ));
        rows.push(("OTP", text("otp")));
    }
    if count("otp_length") > 0 {
        rows.push(("OTP Length", text("otp_length")));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(key, value)| vec![key.to_owned(), value]).collect();
    session.say(&columns(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_decoded_with_their_password_only() {
        let (token, otp) = ("hvs.abcdefghijklmnopqrstuvwx", "0123456789ABCDEFGHIJKLMNOPQR");
        let mixed: Vec<u8> = token.bytes().zip(otp.bytes()).map(|(a, b)| a ^ b).collect();
        let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(mixed);
        assert_eq!(decode_token(&encoded, otp).unwrap(), token);
        assert!(decode_token(&encoded, "short").is_err());
        assert!(decode_token("%%", otp).is_err());
    }

    #[test]
    fn passwords_have_the_length_and_the_letters() {
        let letters = random_letters(100).unwrap();
        assert_eq!(letters.len(), 100);
        assert!(letters.bytes().all(|byte| LETTERS.contains(&byte)));
    }
}
