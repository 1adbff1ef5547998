//! Shamir's secret sharing over GF(2^8), reduction polynomial x^8+x^4+x^3+x+1 (0x11b), byte by byte.
//!
//! A share is the value of each byte's polynomial at one non-zero point, followed by the point itself: 33 bytes for
//! a 32-byte key. That is the layout of Vault's unseal keys. With one share the share is the secret, as there.
//!
//! Field arithmetic has no tables and no branches on values, so the cache tells nothing (CVE-2023-25000 was that).

use ringfence_base::Entropy;
use zeroize::{Zeroize, Zeroizing};

/// Bytes that a share is longer than the secret.
pub const SHARE_OVERHEAD: usize = 1;

/// Why shares cannot be made or joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShamirError {
    /// Nothing to share, or no share given.
    Empty,
    /// Threshold of zero, or more than the shares, or one of many.
    BadThreshold,
    /// A share is too short to hold a value and a point.
    TooShort,
    /// Shares of different lengths.
    UnequalLengths,
    /// Two shares of the same point.
    DuplicatePoint,
    /// A share of the point zero would be the secret itself; none is ever made.
    ZeroPoint,
}

/// Splits `secret` into `shares` of which any `threshold` join to it. `1, 1` yields the secret itself.
pub fn split(secret: &[u8], shares: u8, threshold: u8, rng: &mut dyn Entropy) -> Result<Vec<Vec<u8>>, ShamirError> {
    if secret.is_empty() {
        return Err(ShamirError::Empty);
    }
    if (shares, threshold) == (1, 1) {
        return Ok(vec![secret.to_vec()]);
    }
    if threshold < 2 || threshold > shares {
        return Err(ShamirError::BadThreshold);
    }
    let points = distinct_points(shares, rng);
    let mut out: Vec<Vec<u8>> = points.iter().map(|_| Vec::with_capacity(secret.len() + SHARE_OVERHEAD)).collect();
    // coefficients[0] is the secret byte, the others are random and fresh for each byte
    let mut coefficients = Zeroizing::new(vec![0u8; threshold as usize]);
    for &byte in secret {
        coefficients[0] = byte;
        rng.fill(&mut coefficients[1..]);
        for (share, &x) in out.iter_mut().zip(&points) {
            share.push(evaluate(&coefficients, x));
        }
    }
    for (share, &x) in out.iter_mut().zip(&points) {
        share.push(x);
    }
    Ok(out)
}

/// Joins shares to the secret. Fewer than the threshold, or shares of another secret, yield other bytes: the caller
/// must check the result against something it protects. One share alone is taken as the secret itself.
pub fn combine<S: AsRef<[u8]>>(shares: &[S]) -> Result<Vec<u8>, ShamirError> {
    match shares {
        [] => Err(ShamirError::Empty),
        [one] if one.as_ref().is_empty() => Err(ShamirError::Empty),
        [one] => Ok(one.as_ref().to_vec()),
        many => interpolate(many, 0),
    }
}

/// The value at `at` of the polynomials that pass through the shares (Lagrange).
fn interpolate<S: AsRef<[u8]>>(shares: &[S], at: u8) -> Result<Vec<u8>, ShamirError> {
    let length = shares[0].as_ref().len();
    if length < 1 + SHARE_OVERHEAD {
        return Err(ShamirError::TooShort);
    }
    let mut points = Vec::with_capacity(shares.len());
    for share in shares {
        let share = share.as_ref();
        if share.len() != length {
            return Err(ShamirError::UnequalLengths);
        }
        let x = share[length - 1];
        if x == 0 {
            return Err(ShamirError::ZeroPoint);
        }
        if points.contains(&x) {
            return Err(ShamirError::DuplicatePoint);
        }
        points.push(x);
    }
    let mut out = vec![0u8; length - 1];
    for (i, share) in shares.iter().enumerate() {
        let weight = basis(&points, i, at);
        for (o, &y) in out.iter_mut().zip(share.as_ref()) {
            *o ^= multiply(y, weight);
        }
    }
    Ok(out)
}

/// The Lagrange basis polynomial of point `i`, at `at`.
fn basis(points: &[u8], i: usize, at: u8) -> u8 {
    let mut above = 1;
    let mut below = 1;
    for (j, &x) in points.iter().enumerate() {
        if j != i {
            above = multiply(above, at ^ x);
            below = multiply(below, points[i] ^ x);
        }
    }
    multiply(above, invert(below))
}

/// Horner's rule.
fn evaluate(coefficients: &[u8], x: u8) -> u8 {
    coefficients.iter().rev().fold(0, |sum, &c| multiply(sum, x) ^ c)
}

/// Product in the field: eight shift-and-add steps whose conditions are masks.
fn multiply(a: u8, b: u8) -> u8 {
    let (mut a, mut product) = (a, 0u8);
    for bit in 0..8 {
        product ^= a & 0u8.wrapping_sub((b >> bit) & 1);
        let carry = 0u8.wrapping_sub(a >> 7);
        a = (a << 1) ^ (carry & 0x1b);
    }
    product
}

/// Inverse in the field: x^254, by the fixed chain 2, 3, 6, 12, 15, 30, 60, 120, 240, 252, 254. Zero yields zero.
fn invert(x: u8) -> u8 {
    let square = |v| multiply(v, v);
    let x2 = square(x);
    let x3 = multiply(x2, x);
    let x12 = square(square(x3));
    let x15 = multiply(x12, x3);
    let x240 = square(square(square(square(x15))));
    multiply(multiply(x240, x12), x2)
}

/// `n` different points of 1..=255 in random order (Fisher and Yates, drawn evenly).
fn distinct_points(n: u8, rng: &mut dyn Entropy) -> Vec<u8> {
    let mut all: Vec<u8> = (1..=255).collect();
    for i in 0..n as usize {
        let j = i + below(255 - i, rng);
        all.swap(i, j);
    }
    let chosen = all[..n as usize].to_vec();
    all.zeroize();
    chosen
}

/// An even draw from `0..n`, for n up to 256.
fn below(n: usize, rng: &mut dyn Entropy) -> usize {
    let limit = 256 - 256 % n;
    loop {
        let mut b = [0];
        rng.fill(&mut b);
        if (b[0] as usize) < limit {
            return b[0] as usize % n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use ringfence_base::entropy::SeededEntropy;

    /// Shares that Vault's own implementation made of "I've never been to Spain.\n", any 5 of 8 (published in the
    /// manual of a small tool built on it).
    const SPAIN: [&str; 8] = [
        "jZYqqJaCxt4kZjh/xCAakXIG0XKdnlxY89/S",
        "1yubXvs8GdSqO8GPX9Xwk4fV22MJ/4F8wxh9",
        "fuVQmRhkVeKQGzpPVT0eNwvLXHxrQmQjFLGH",
        "Yggxmz2bmtTNPAX9ctHffwqsw4Ds8GZHDpa1",
        "Nyns0pAKCfeqLCrzxV+TpoJCvDJKTqJmR2kG",
        "a//rC1IRcRow60BY5SQV+6bZXLFbUxt221zy",
        "uB34M0pUB5vljgIfdItDHetEfKqxDQea6A93",
        "OUQe8CwZBHTbwt0Za/IRLUlLfB39smrEIEpt",
    ];

    /// The five unseal keys, threshold 3, printed in Vault's getting-started pages.
    const GETTING_STARTED: [&str; 5] = [
        "4jYbl2CBIv6SpkKj6Hos9iD32k5RfGkLzlosrrq/JgOm",
        "B05G1DRtfYckFV5BbdBvXq0wkK5HFqB9g2jcDmNfTQiS",
        "Arig0N9rN9ezkTRo7qTB7gsIZDaonOcc53EHo83F5chA",
        "0cZE0C/gEk3YHaKjIWxhyyfs8REhqkRW/CSXTnmTilv+",
        "fYhZOseRgzxmJCmIqUdxEm9C3jB5Q27AowER9w4FC2Ck",
    ];

    fn decode(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|t| STANDARD.decode(t).unwrap()).collect()
    }

    #[test]
    fn shares_made_by_vault_join() {
        let shares = decode(&SPAIN);
        let secret = b"I've never been to Spain.\n";
        assert_eq!(combine(&shares[..5]).unwrap(), secret);
        assert_eq!(combine(&shares[3..]).unwrap(), secret);
        assert_eq!(combine(&shares).unwrap(), secret, "more than the threshold");
        assert_ne!(combine(&shares[..4]).unwrap(), secret, "fewer than the threshold");

        let two = decode(&[
            "upOiLkD7A/va03FStBD+NV9feBlKooE8imH7JJ/CXbbV3pQ3EHxZCQ3z",
            "dfJ2ID7zuNNQY+Zqkqvhu2QCBzVLJyuxg4nzT0rSmYrrbR5RBQNPiOVD",
        ]);
        assert_eq!(combine(&two).unwrap(), b"Three can keep a secret if two are dead.\n");
    }

    #[test]
    fn every_three_of_vaults_five_documented_keys_agree() {
        let shares = decode(&GETTING_STARTED);
        let mut keys = Vec::new();
        for a in 0..5 {
            for b in a + 1..5 {
                for c in b + 1..5 {
                    keys.push(combine(&[&shares[c], &shares[a], &shares[b]]).unwrap());
                }
            }
        }
        assert_eq!(keys.len(), 10);
        assert!(keys.iter().all(|k| k.len() == 32 && *k == keys[0]));
    }

    /// The other direction: from five of Vault's shares our polynomial yields its remaining three, byte for byte.
    #[test]
    fn shares_made_here_are_those_vault_made() {
        let shares = decode(&SPAIN);
        for share in &shares[5..] {
            let (y, x) = share.split_at(share.len() - 1);
            assert_eq!(interpolate(&shares[..5], x[0]).unwrap(), y);
        }
    }

    /// draft-mcgrew-tss-03, test case 1: the whole of `split` with its coefficients and points supplied.
    #[test]
    fn split_gives_the_published_shares() {
        struct Script(std::collections::VecDeque<u8>);
        impl Entropy for Script {
            fn fill(&mut self, buf: &mut [u8]) {
                buf.iter_mut().for_each(|b| *b = self.0.pop_front().expect("the script is long enough"));
            }
        }
        let secret = hex::decode("7465737400").unwrap();
        let (one, two) = (hex::decode("B9FA07E185").unwrap(), hex::decode("F5409B4511").unwrap());
        // two draws of 0 choose the points 1 and 2; at point 1 the coefficient is share ^ secret
        let script = [0, 0].into_iter().chain(one.iter().zip(&secret).map(|(s, k)| s ^ k)).collect();
        let shares = split(&secret, 2, 2, &mut Script(script)).unwrap();
        assert_eq!(shares, vec![[&one[..], &[1]].concat(), [&two[..], &[2]].concat()]);
    }

    #[test]
    fn field_laws() {
        assert_eq!(multiply(0x57, 0x83), 0xc1, "FIPS 197 4.2");
        for x in 1..=255u8 {
            assert_eq!(multiply(x, invert(x)), 1);
            assert_eq!(multiply(x, 1), x);
            assert_eq!(multiply(x, 0), 0);
        }
    }

    #[test]
    fn one_share_is_the_key() {
        let key = [9u8; 32];
        let shares = split(&key, 1, 1, &mut SeededEntropy(0)).unwrap();
        assert_eq!(shares, vec![key.to_vec()]);
        assert_eq!(combine(&shares).unwrap(), key);
    }

    #[test]
    fn nonsense_is_refused() {
        let rng = &mut SeededEntropy(1);
        assert_eq!(split(&[], 3, 2, rng), Err(ShamirError::Empty));
        assert_eq!(split(&[1], 3, 1, rng), Err(ShamirError::BadThreshold));
        assert_eq!(split(&[1], 2, 3, rng), Err(ShamirError::BadThreshold));
        assert_eq!(split(&[1], 0, 0, rng), Err(ShamirError::BadThreshold));
        assert_eq!(combine::<Vec<u8>>(&[]), Err(ShamirError::Empty));
        assert_eq!(combine(&[vec![1, 2], vec![1, 2]]), Err(ShamirError::DuplicatePoint));
        assert_eq!(combine(&[vec![1, 2], vec![1, 2, 3]]), Err(ShamirError::UnequalLengths));
        assert_eq!(combine(&[vec![1, 0], vec![1, 2]]), Err(ShamirError::ZeroPoint));
        assert_eq!(combine(&[vec![1], vec![2]]), Err(ShamirError::TooShort));
        assert_eq!(split(&[1, 2], 255, 255, rng).and_then(|s| combine(&s)), Ok(vec![1, 2]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_threshold_of_shares_joins(
            secret in proptest::collection::vec(any::<u8>(), 1..40), n in 2u8..12, t in 2u8..12, seed: u64,
        ) {
            let t = t.min(n);
            let mut rng = SeededEntropy(seed);
            let shares = split(&secret, n, t, &mut rng).unwrap();
            prop_assert_eq!(shares.len(), n as usize);
            let order = distinct_points(n, &mut rng);
            let mut shuffled: Vec<_> = order.iter().zip(&shares).collect();
            shuffled.sort();
            let some: Vec<_> = shuffled.into_iter().take(t as usize).map(|(_, s)| s.clone()).collect();
            prop_assert_eq!(combine(&some).unwrap(), secret);
        }

        #[test]
        fn any_shares_are_safe(shares: Vec<Vec<u8>>) {
            let _ = combine(&shares);
        }
    }
}
