//! Password hashes: bcrypt. Pure functions that take tens of milliseconds, so a core runs them as a side operation,
//! never inline. The text form is `$2a$`, which every bcrypt library reads.

use ringfence_base::Entropy;
use zeroize::Zeroize;

/// The cost used when nothing else is asked: 2^10 rounds, as Go's default.
pub const DEFAULT_COST: u32 = 10;
/// bcrypt reads no more than this; a longer password is refused rather than cut.
pub const MAX_PASSWORD_BYTES: usize = 72;

/// Why a password cannot be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordError {
    /// Longer than [`MAX_PASSWORD_BYTES`].
    TooLong,
    /// The cost is outside 4 to 31.
    BadCost,
}

/// Hashes a password with a fresh salt.
pub fn hash(password: &[u8], cost: u32, rng: &mut dyn Entropy) -> Result<String, PasswordError> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(PasswordError::TooLong);
    }
    let mut salt = [0; 16];
    rng.fill(&mut salt);
    let parts = bcrypt::hash_with_salt(password, cost, salt).map_err(|_| PasswordError::BadCost)?;
    salt.zeroize();
    Ok(parts.format_for_version(bcrypt::Version::TwoA))
}

/// True if the password is the one hashed. A text that is no bcrypt hash matches nothing.
pub fn verify(password: &[u8], hash: &str) -> bool {
    password.len() <= MAX_PASSWORD_BYTES && bcrypt::verify(password, hash).unwrap_or(false)
}

/// True if `text` has the form of a bcrypt hash, for imports that supply one.
pub fn is_hash(text: &str) -> bool {
    text.parse::<bcrypt::HashParts>().is_ok_and(|parts| (4..=31).contains(&parts.get_cost()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_base::entropy::SeededEntropy;

    #[test]
    fn hash_verifies_and_only_its_own() {
        let h = hash(b"correct horse", 4, &mut SeededEntropy(3)).unwrap();
        assert!(h.starts_with("$2a$04$") && h.len() == 60 && is_hash(&h));
        assert!(verify(b"correct horse", &h));
        assert!(!verify(b"correct hors", &h));
        assert_ne!(h, hash(b"correct horse", 4, &mut SeededEntropy(4)).unwrap(), "salted");
    }

    #[test]
    fn published_vector() {
        // Openwall crypt_blowfish's test "U*U".
        assert!(verify(b"U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"));
    }

    #[test]
    fn bad_input_is_refused_not_cut() {
        let rng = &mut SeededEntropy(1);
        assert_eq!(hash(&[b'a'; 73], 4, rng), Err(PasswordError::TooLong));
        assert_eq!(hash(b"a", 3, rng), Err(PasswordError::BadCost));
        for text in ["", "$2a$", "$2a$99$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "plain", "é$$$"] {
            assert!(!verify(b"a", text) && !is_hash(text), "{text}");
        }
    }
}
