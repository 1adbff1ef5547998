//! A plain mutator for the stable toolchain: it has no feedback, only a seed. What libFuzzer finds with feedback becomes
//! a file of the corpus and is replayed from then on.

use ringfence_base::entropy::SeededEntropy;

/// Longest input that is made.
const MAX_BYTES: usize = 4096;

/// A variation of an input: a few edits, splices with another input, words of the dictionary.
pub fn mutated(rng: &mut SeededEntropy, from: &[u8], other: &[u8], words: &[&str]) -> Vec<u8> {
    let mut out = from.to_vec();
    for _ in 0..1 + below(rng, 6) {
        let at = below(rng, out.len() + 1);
        match below(rng, 9) {
            0 if !out.is_empty() => {
                let at = below(rng, out.len());
                out[at] ^= 1 << below(rng, 8);
            }
            1 if !out.is_empty() => {
                let at = below(rng, out.len());
                out[at] = rng.next_u64() as u8;
            }
            2 => out.insert(at, INTERESTING[below(rng, INTERESTING.len())]),
            3 => drop(out.splice(at..(at + 1 + below(rng, 8)).min(out.len()), [])),
            4 if !words.is_empty() => {
                let word = unescaped(words[below(rng, words.len())]);
                drop(out.splice(at..at, word));
            }
            5 => {
                let from = below(rng, other.len() + 1);
                let n = below(rng, 32).min(other.len() - from);
                drop(out.splice(at..at, other[from..from + n].iter().copied()));
            }
            6 => {
                let end = (at + 1 + below(rng, 16)).min(out.len());
                let part = out[at..end].to_vec();
                drop(out.splice(at..at, part));
            }
            7 => out.truncate(at),
            _ => out.extend((0..below(rng, 8)).map(|_| rng.next_u64() as u8)),
        }
    }
    out.truncate(MAX_BYTES);
    out
}

const INTERESTING: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\n', b'{', b'}', b'/', b'*', b'+'];

/// The bytes that a word of a dictionary stands for: `\xNN`, `\\`, `\"`.
pub fn unescaped(word: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = word.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = |b: &[u8]| std::str::from_utf8(b).ok().and_then(|t| u8::from_str_radix(t, 16).ok());
        match (first, tail) {
            (b'\\', [b'x', a, b, after @ ..]) if hex(&[*a, *b]).is_some() => {
                out.extend(hex(&[*a, *b]));
                rest = after;
            }
            (b'\\', [c, after @ ..]) => {
                out.push(*c);
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

fn below(rng: &mut SeededEntropy, n: usize) -> usize {
    (rng.next_u64() % n as u64) as usize
}
