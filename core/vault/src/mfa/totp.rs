//! Time-based one-time passwords: RFC 6238 over RFC 4226. Pure: the time is an argument, the key comes from outside.

use aws_lc_rs::{constant_time, hmac};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The hash of the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// What authenticator programs assume. An HMAC does not suffer from SHA-1's collisions.
    #[serde(rename = "SHA1")]
    Sha1,
    /// SHA-256.
    #[serde(rename = "SHA256")]
    Sha256,
    /// SHA-512.
    #[serde(rename = "SHA512")]
    Sha512,
}

impl Algorithm {
    /// Parses the API's text.
    pub fn parse(text: &str) -> Option<Algorithm> {
        Some(match text {
            "SHA1" => Algorithm::Sha1,
            "SHA256" => Algorithm::Sha256,
            "SHA512" => Algorithm::Sha512,
            _ => return None,
        })
    }

    /// As the API prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
            Algorithm::Sha512 => "SHA512",
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Algorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha256 => hmac::HMAC_SHA256,
            Algorithm::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// The code of a counter. RFC 4226 5.3: dynamic truncation to 31 bits, then the last decimal digits.
pub fn code(key: &[u8], algorithm: Algorithm, digits: u32, counter: u64) -> u32 {
    let tag = hmac::sign(&hmac::Key::new(algorithm.hmac(), key), &counter.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag[tag.len() - 1] & 0x0f);
    let word = u32::from_be_bytes([tag[at] & 0x7f, tag[at + 1], tag[at + 2], tag[at + 3]]);
    word % 10u32.pow(digits)
}

/// A code as a client sends it, as a number: exactly so many decimal digits and nothing else. White space, signs or
/// other digits of Unicode would make further spellings of one code.
pub fn parse(text: &str, digits: u32) -> Option<u32> {
    (text.len() == digits as usize && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// The period whose code this is, among the present one and `skew` on either side. All are computed, whichever fits.
pub fn matching(key: &[u8], algorithm: Algorithm, digits: u32, present: u64, skew: u64, given: u32) -> Option<u64> {
    let mut found = None;
    for counter in present.saturating_sub(skew)..=present + skew {
        let expected = code(key, algorithm, digits, counter);
        let same = constant_time::verify_slices_are_equal(&expected.to_be_bytes(), &given.to_be_bytes()).is_ok();
        if same {
            found = Some(counter);
        }
    }
    found
}

/// The address that authenticator programs take. Key Uri Format of Google Authenticator.
pub fn url(issuer: &str, account: &str, key: &[u8], algorithm: Algorithm, digits: u32, period: u64) -> String {
    let (issuer, account) = (escaped(issuer), escaped(account));
    let secret = data_encoding::BASE32_NOPAD.encode(key);
    let algorithm = algorithm.as_str();
    format!(
        "otpauth://totp/{issuer}:{account}?algorithm={algorithm}&digits={digits}&issuer={issuer}&period={period}\
         &secret={secret}"
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for b in text.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(b)),
            _ => {
                let _ = write!(out, "%{b:02X}");
            }
        }
    }
    out
}

/// The address as a QR code in a PNG of about so many pixels a side; `None` if it is too long for one.
pub fn barcode(url: &str, size: u64) -> Option<Vec<u8>> {
    /// Light modules that must surround the code. ISO/IEC 18004.
    const QUIET: usize = 4;
    let qr = qrcode::QrCode::new(url).ok()?;
    let modules = qr.width();
    let whole = modules + 2 * QUIET;
    let scale = (usize::try_from(size).ok()? / whole).max(1);
    let side = whole * scale;
    let colors = qr.to_colors();
    let mut pixels = vec![0xffu8; side * side];
    for (i, pixel) in pixels.iter_mut().enumerate() {
        let (y, x) = (i / side / scale, i % side / scale);
        let inside = |v: usize| (QUIET..QUIET + modules).contains(&v);
        if inside(x) && inside(y) && colors[(y - QUIET) * modules + x - QUIET] == qrcode::Color::Dark {
            *pixel = 0;
        }
    }
    let mut out = Vec::new();
    let side = u32::try_from(side).ok()?;
    let mut encoder = png::Encoder::new(&mut out, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().ok()?.write_image_data(&pixels).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238 appendix B: eight digits, thirty seconds, a key as long as the hash.
    #[test]
    fn published_vectors() {
        let key = |n: usize| b"1234567890".iter().copied().cycle().take(n).collect::<Vec<u8>>();
        for (seconds, sha1, sha256, sha512) in [
            (59, 94_287_082, 46_119_246, 90_693_936),
            (1_111_111_109, 7_081_804, 68_084_774, 25_091_201),
            (1_111_111_111, 14_050_471, 67_062_674, 99_943_326),
            (1_234_567_890, 89_005_924, 91_819_424, 93_441_116),
            (2_000_000_000, 69_279_037, 90_698_825, 38_618_901),
            (20_000_000_000u64, 65_353_130, 77_737_706, 47_863_826),
        ] {
            let step = seconds / 30;
            assert_eq!(code(&key(20), Algorithm::Sha1, 8, step), sha1, "{seconds}");
            assert_eq!(code(&key(32), Algorithm::Sha256, 8, step), sha256, "{seconds}");
            assert_eq!(code(&key(64), Algorithm::Sha512, 8, step), sha512, "{seconds}");
        }
    }

    #[test]
    fn one_spelling_a_code() {
        assert_eq!(parse("012345", 6), Some(12345));
        for other in ["12345", " 12345", "012345 ", "+12345", "0123456", "01234a", "٠١٢٣٤٥", "", "0x2345", "12 345"]
        {
            assert_eq!(parse(other, 6), None, "{other:?}");
        }
    }

    #[test]
    fn skew_reaches_one_period_each_way() {
        let at = |counter| code(b"key", Algorithm::Sha1, 6, counter);
        for (counter, skew, found) in [(99, 1, true), (100, 1, true), (101, 1, true), (98, 1, false), (99, 0, false)]
        {
            assert_eq!(matching(b"key", Algorithm::Sha1, 6, 100, skew, at(counter)).is_some(), found, "{counter}");
        }
    }

    #[test]
    fn what_authenticators_are_given() {
        let url = url("a b:c", "id", b"12345678901234567890", Algorithm::Sha1, 6, 30);
        assert_eq!(
            url,
            "otpauth://totp/a%20b%3Ac:id?algorithm=SHA1&digits=6&issuer=a%20b%3Ac&period=30&secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
        );
        let image = barcode(&url, 200).unwrap();
        assert_eq!(&image[1..4], b"PNG");
        assert!(barcode(&"x".repeat(5000), 200).is_none());
    }
}
