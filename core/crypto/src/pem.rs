//! PEM (RFC 7468) in and out.

use zeroize::Zeroizing;

/// DER under a label, 64 characters a line, with a line break at the end.
pub fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let text = pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, der);
    Zeroizing::new(text.expect("labels are constants without line breaks, and the length is far below 2^31"))
}

/// The first block of a text: its label and DER. Text before it is passed over.
pub fn decode(text: &str) -> Option<(String, Zeroizing<Vec<u8>>)> {
    let from = &text[text.find("-----BEGIN ")?..];
    let end = from.find("-----END ")?;
    let end = end + from[end + 9..].find("-----")? + 14;
    let (label, der) = pem_rfc7468::decode_vec(&from.as_bytes()[..end]).ok()?;
    Some((label.to_owned(), Zeroizing::new(der)))
}

/// Every block of a text, in order; `None` if one of them is broken.
pub fn decode_all(text: &str) -> Option<Vec<(String, Zeroizing<Vec<u8>>)>> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("-----BEGIN ") {
        rest = &rest[at..];
        blocks.push(decode(rest)?);
        rest = &rest[11..];
    }
    Some(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_with_noise_around() {
        let one = encode("PUBLIC KEY", &[7; 100]);
        assert!(one.ends_with("-----END PUBLIC KEY-----\n") && one.lines().all(|l| l.len() <= 64));
        let (label, der) = decode(&format!("subject: x\n{}trailing", &*one)).unwrap();
        assert_eq!((label.as_str(), &der[..]), ("PUBLIC KEY", &[7; 100][..]));
        let two = format!("{}{}", &*one, &*encode("CERTIFICATE", b"c"));
        let all = decode_all(&two).unwrap();
        assert_eq!(all.iter().map(|b| b.0.as_str()).collect::<Vec<_>>(), ["PUBLIC KEY", "CERTIFICATE"]);
        for junk in [
            "",
            "-----BEGIN X",
            "-----BEGIN X-----\n-----END Y-----",
            "-----BEGIN X-----\n!!\n-----END X-----",
            "-----END A-----BEGIN ",
        ] {
            assert!(decode(junk).is_none(), "{junk}");
        }
        assert!(decode_all("-----BEGIN X-----\n!!\n-----END X-----").is_none());
        assert_eq!(decode_all("none").map(|b| b.len()), Some(0));
    }
}
