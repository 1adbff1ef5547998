//! Randomness as an argument. The server passes the operating system's source, the simulator a seeded one.

/// A source of random bytes.
pub trait Entropy {
    /// Fills the whole buffer.
    fn fill(&mut self, buf: &mut [u8]);
}

impl<E: Entropy + ?Sized> Entropy for &mut E {
    fn fill(&mut self, buf: &mut [u8]) {
        (**self).fill(buf)
    }
}

const BASE62: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// `n` characters drawn evenly from `[A-Za-z0-9]` (rejection sampling; 5.95 bits each).
pub fn base62(rng: &mut dyn Entropy, n: usize) -> String {
    draw(rng, n, BASE62)
}

/// `n` characters drawn evenly from an alphabet of 1 to 256 ASCII characters.
pub fn from_alphabet(rng: &mut dyn Entropy, n: usize, alphabet: &[u8]) -> String {
    assert!(!alphabet.is_empty() && alphabet.len() <= 256, "an alphabet has 1 to 256 characters");
    draw(rng, n, alphabet)
}

// inlined where the alphabet is known: a remainder by a constant is a tenth of one by a variable
#[inline(always)]
fn draw(rng: &mut dyn Entropy, n: usize, alphabet: &[u8]) -> String {
    let limit = 256 - 256 % alphabet.len();
    let mut out = String::with_capacity(n);
    let mut pool = [0u8; 64];
    while out.len() < n {
        rng.fill(&mut pool);
        for &b in &pool {
            if (b as usize) < limit && out.len() < n {
                out.push(alphabet[b as usize % alphabet.len()] as char);
            }
        }
    }
    zeroize::Zeroize::zeroize(&mut pool);
    out
}

/// A random (version 4) UUID in its usual text form.
pub fn uuid4(rng: &mut dyn Entropy) -> String {
    let mut b = [0u8; 16];
    rng.fill(&mut b);
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut s = String::with_capacity(36);
    for (i, x) in b.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            s.push('-');
        }
        s.push(HEX[(x >> 4) as usize] as char);
        s.push(HEX[(x & 15) as usize] as char);
    }
    s
}

/// A fast deterministic source for tests and the simulator (SplitMix64). Never for production keys.
#[derive(Clone, Debug)]
pub struct SeededEntropy(pub u64);

impl SeededEntropy {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Entropy for SeededEntropy {
    fn fill(&mut self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            let r = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&r[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_has_version_and_variant() {
        let u = uuid4(&mut SeededEntropy(1));
        assert_eq!(u.len(), 36);
        assert_eq!(&u[14..15], "4");
        assert!("89ab".contains(&u[19..20]));
    }

    #[test]
    fn base62_is_even_and_of_the_asked_length() {
        let s = base62(&mut SeededEntropy(7), 62_000);
        assert_eq!(s.len(), 62_000);
        let mut counts = [0u32; 128];
        s.bytes().for_each(|b| counts[b as usize] += 1);
        for &c in BASE62 {
            assert!((800..1200).contains(&counts[c as usize]), "{} drawn {} times", c as char, counts[c as usize]);
        }
    }
}
