//! Every rule of the engine over a real image.

use super::Totp;
use super::code::code;
use crate::fixture::{World, holds};
use base64::Engine as _;
use ringfence_base::{Code, Wall};
use ringfence_crypto::hash::Hash;
use ringfence_logical::Operation;
use serde_json::{Value, json};

fn at(w: &mut World, seconds: u64) {
    // each request moves the clock by one second first
    w.now = Wall::from_seconds(seconds - 1);
}

#[test]
fn published_codes() {
    // RFC 6238, appendix B: eight digits; the secret is as long as the hash.
    let secret = |n: usize| b"1234567890".iter().copied().cycle().take(n).collect::<Vec<u8>>();
    for (time, sha1, sha256, sha512) in [
        (59, "94287082", "46119246", "90693936"),
        (1_111_111_109, "07081804", "68084774", "25091201"),
        (1_234_567_890, "89005924", "91819424", "93441116"),
        (20_000_000_000, "65353130", "77737706", "47863826"),
    ] {
        assert_eq!(code(Hash::Sha1, &secret(20), time / 30, 8), sha1);
        assert_eq!(code(Hash::Sha256, &secret(32), time / 30, 8), sha256);
        assert_eq!(code(Hash::Sha512, &secret(64), time / 30, 8), sha512);
    }
}

#[test]
fn a_generator_shows_the_code_of_the_hour() {
    let mut w = World::new(Totp);
    let secret = data_encoding::BASE32.encode(b"12345678901234567890");
    assert_eq!(w.post("keys/k", json!({"key": secret.to_lowercase(), "digits": 8})).code, Code::NoContent);
    at(&mut w, 1_111_111_109);
    assert_eq!(w.get("code/k").data, json!({"code": "07081804"}));
    let url = "otpauth://totp/Vault:test%40test.com?secret=Y64VEVMBTSXCYIWRSHRNDZW62MPGVU2G&issuer=Vault+Inc&period=60&digits=8&algorithm=SHA256";
    w.post("keys/u", json!({"url": url}));
    assert_eq!(
        w.get("keys/u").data,
        json!({"account_name": "test@test.com", "algorithm": "SHA256", "digits": 8, "issuer": "Vault Inc", "period": 60})
    );
    assert_eq!(w.list("keys").data["keys"], json!(["k", "u"]));
    w.delete("keys/u");
    assert_eq!(w.get("keys/u").code, Code::NotFound);
    assert!(!holds(&w.image_bytes(), &secret));
}

#[test]
fn a_provider_accepts_each_code_once_within_its_skew() {
    let mut w = World::new(Totp);
    w.post("keys/k", json!({"key": data_encoding::BASE32.encode(b"12345678901234567890")}));
    let of = |time: u64| code(Hash::Sha1, b"12345678901234567890", time / 30, 6);
    let t = 1_700_000_010;
    let check = |w: &mut World, now: u64, shown: &str| {
        at(w, now);
        w.run(Operation::Update, "code/k", json!({"code": shown}))
            .map(|r| r.unwrap().data.unwrap().into_map()["valid"] == true)
    };
    assert_eq!(check(&mut w, t, &of(t)), Ok(true));
    for again in [of(t), format!(" {}", of(t)), format!("{} ", of(t))] {
        let refused = check(&mut w, t + 1, &again).expect_err("used");
        assert_eq!(refused.errors[0], "code already used; wait until the next time period");
    }
    assert_eq!(check(&mut w, t, &of(t - 30)), Ok(true), "the period before");
    assert_eq!(check(&mut w, t, &of(t + 30)), Ok(true), "the period after");
    assert_eq!(check(&mut w, t, &of(t + 60)), Ok(false));
    assert_eq!(check(&mut w, t, &of(t - 60)), Ok(false));
    for junk in ["0", "abcdef", "0000000000", "\u{0661}", &format!("{}0", of(t))] {
        assert_eq!(check(&mut w, t, junk), Ok(false), "{junk}");
    }
    // a used step stays used for as long as it would be accepted
    assert!(check(&mut w, t + 30, &of(t + 30)).is_err());
    assert!(check(&mut w, t + 60, &of(t + 30)).is_err());
    w.post("keys/strict", json!({"key": data_encoding::BASE32.encode(b"12345678901234567890"), "skew": 0}));
    at(&mut w, t);
    assert_eq!(w.post("code/strict", json!({"code": of(t - 30)})).data, json!({"valid": false}));
}

#[test]
fn what_was_made_here_is_shown_once_and_scans() {
    let mut w = World::new(Totp);
    let made = w.post("keys/k", json!({"generate": "true", "issuer": "My Co", "account_name": "a b@x"}));
    let url = made.data["url"].as_str().unwrap();
    assert!(
        url.starts_with("otpauth://totp/My%20Co:a%20b%40x?algorithm=SHA1&digits=6&issuer=My%20Co&period=30&secret=")
    );
    let png = base64::engine::general_purpose::STANDARD.decode(made.data["barcode"].as_str().unwrap()).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(&png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((frame.width, frame.height), (200, 200));
    assert!(pixels.contains(&0) && pixels.contains(&255));
    let secret = url.rsplit('=').next().unwrap().to_owned();
    assert!(!w.get("keys/k").data.to_string().contains(&secret));
    // an authenticator that read the address agrees
    w.post("keys/other", json!({"url": url}));
    at(&mut w, 1_700_000_000);
    let shown = w.get("code/other").data;
    at(&mut w, 1_700_000_001);
    assert_eq!(w.post("code/k", shown).data, json!({"valid": true}));
    let bare = w.post("keys/n", json!({"generate": true, "issuer": "i", "account_name": "a", "qr_size": 0}));
    assert!(bare.data.get("barcode").is_none() && bare.data["url"].is_string());
    let hidden = w.post("keys/h", json!({"generate": true, "issuer": "i", "account_name": "a", "exported": false}));
    assert_eq!(hidden.code, Code::NoContent);
}

#[test]
fn refusals() {
    let mut w = World::new(Totp);
    let good = json!({"generate": true, "issuer": "i", "account_name": "a"});
    for (change, text) in [
        (json!({"digits": 7}), "the digits value can only be 6 or 8"),
        (json!({"algorithm": "MD5"}), "the algorithm value is not valid"),
        (json!({"period": 0}), "the period value must be greater than zero"),
        (json!({"period": -30}), "the period value must be greater than zero"),
        (json!({"skew": 2}), "the skew value must be 0 or 1"),
        (json!({"qr_size": -1}), "the qr_size value must be greater than or equal to zero"),
        (json!({"qr_size": 9999}), "failed to generate QR code image: at most 2048 pixels a side"),
        (json!({"key_size": 0}), "the key_size value must be greater than zero"),
        (json!({"key_size": 1025}), "the key_size value must be at most 1024"),
        (json!({"issuer": ""}), "the issuer value is required for generated keys"),
        (json!({"account_name": ""}), "the account_name value is required for generated keys"),
        (json!({"key": "AAAA"}), "a key should not be passed if generate is true"),
        (json!({"url": "otpauth://totp/x"}), "a url should not be passed if generate is true"),
        (json!({"generate": false}), "the key value is required"),
        (json!({"generate": false, "key": "A1"}), "invalid key value: illegal base32 data at input byte 1"),
        (json!({"generate": false, "url": "not a url"}), "an error occurred while parsing url string"),
        (
            json!({"generate": false, "url": "otpauth://totp/a?secret=AAAA&digits=x"}),
            "an error occurred while parsing digits value in url",
        ),
    ] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(w.refused(Operation::Update, "keys/k", body), (Code::Invalid, text.into()));
    }
    assert!(!w.exists("keys/k"), "nothing was kept");
    assert_eq!(w.refused(Operation::Read, "code/k", Value::Null), (Code::Invalid, "unknown key: k".into()));
    assert_eq!(
        w.refused(Operation::Update, "code/k", json!({})),
        (Code::Invalid, "the code value is required".into())
    );
    assert_eq!(
        w.refused(Operation::Update, "code/k", json!({"code": "1"})),
        (Code::Invalid, "unknown key: k".into())
    );
}
