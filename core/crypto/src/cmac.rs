//! AES-CMAC (NIST SP 800-38B, RFC 4493), for engines that let the client choose the key's length. Runs on aws-lc.

use aws_lc_rs::cmac::{AES_128, AES_192, AES_256, Key, sign};

/// Bytes of a code.
pub const CODE_BYTES: usize = 16;

/// The code of a text; `None` if the key has not 16, 24 or 32 bytes.
pub fn code(key: &[u8], text: &[u8]) -> Option<[u8; CODE_BYTES]> {
    let algorithm = match key.len() {
        16 => AES_128,
        24 => AES_192,
        32 => AES_256,
        _ => return None,
    };
    let tag = sign(&Key::new(algorithm, key).ok()?, text).ok()?;
    tag.as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4493 4 for 128 bits, NIST's example values for the others.
    #[test]
    fn published_vectors() {
        let text = hex::decode(
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52ef\
             f69f2445df4f9b17ad2b417be66c3710",
        )
        .unwrap();
        let k128 = "2b7e151628aed2a6abf7158809cf4f3c";
        let k192 = "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b";
        let k256 = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";
        for (key, bytes, wanted) in [
            (k128, 0, "bb1d6929e95937287fa37d129b756746"),
            (k128, 16, "070a16b46b4d4144f79bdd9dd04a287c"),
            (k128, 40, "dfa66747de9ae63030ca32611497c827"),
            (k128, 64, "51f0bebf7e3b9d92fc49741779363cfe"),
            (k192, 0, "d17ddf46adaacde531cac483de7a9367"),
            (k192, 64, "a1d5df0eed790f794d77589659f39a11"),
            (k256, 0, "028962f61b7bf89efc6b551f4667d983"),
            (k256, 64, "e1992190549f6ed5696a2c056c315410"),
        ] {
            assert_eq!(
                hex::encode(code(&hex::decode(key).unwrap(), &text[..bytes]).unwrap()),
                wanted,
                "{key} {bytes}"
            );
        }
        assert!(code(&[0; 15], b"").is_none() && code(&[], b"").is_none());
    }
}
