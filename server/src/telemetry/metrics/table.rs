//! A core's table from the key of a series to its number. The key comes in parts (a prefix, a mount) and is put
//! together only when it is not known yet.
//!
//! Two steps: a small cache that a cheap hash points into, which nearly always has it, and behind it a map. The cheap
//! hash may be fooled; that costs the speed of the map and nothing else.

use super::SERIES;
use std::cell::RefCell;
use std::collections::HashMap;

const CACHE: usize = 256;

#[derive(Default)]
pub(super) struct Table {
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Empty until first used, then [`CACHE`] entries.
    cache: Vec<(String, Option<usize>)>,
    map: HashMap<String, Option<usize>>,
}

impl Table {
    /// The number of a key: remembered, or asked for. `None`: there was no number left for it.
    pub fn number<'a>(
        &self,
        parts: impl Iterator<Item = &'a str> + Clone,
        ask: impl FnOnce(&str) -> Option<usize>,
    ) -> Option<usize> {
        let Inner { cache, map } = &mut *self.inner.borrow_mut();
        if cache.is_empty() {
            cache.resize(CACHE, (String::new(), None));
        }
        let (cached, number) = &mut cache[hash(parts.clone()) as usize % CACHE];
        if is_made_of(cached, parts.clone()) {
            return *number;
        }
        // the memory of the one that has to go serves the one that comes
        cached.clear();
        parts.for_each(|part| cached.push_str(part));
        *number = match map.get(cached.as_str()) {
            Some(number) => *number,
            None => {
                let asked = ask(cached);
                // what got no number is remembered only as long as that costs little
                if asked.is_some() || map.len() < 2 * SERIES {
                    map.insert(cached.clone(), asked);
                }
                asked
            }
        };
        *number
    }
}

fn is_made_of<'a>(key: &str, mut parts: impl Iterator<Item = &'a str>) -> bool {
    let mut rest = key.as_bytes();
    let all_fit = parts.all(|part| match rest.strip_prefix(part.as_bytes()) {
        Some(after) => {
            rest = after;
            true
        }
        None => false,
    });
    // an empty entry has never been filled: no key is empty
    all_fit && rest.is_empty() && !key.is_empty()
}

/// Of each part its length, its first and its last bytes: whole words, whatever the length, as gathering odd bytes
/// costs more than all the rest. Parts that differ only in the middle share a place.
fn hash<'a>(parts: impl Iterator<Item = &'a str>) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = 0u64;
    for part in parts {
        let bytes = part.as_bytes();
        let word = if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
            u64::from_le_bytes(*first).rotate_left(29) ^ u64::from_le_bytes(*last)
        } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        } else {
            bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        state = (state.rotate_left(23) ^ word ^ (bytes.len() as u64) << 56).wrapping_mul(ODD);
    }
    state >> 40
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain map, with many more keys than the cache has places.
    #[test]
    fn every_key_keeps_its_number() {
        let table = Table::default();
        let mut asked = 0;
        for round in 0..3 {
            for n in 0..1000usize {
                let text = format!("mount-{n}/");
                let parts = ["route.", "read", ".", text.as_str()];
                let number = table.number(parts.into_iter(), |key| {
                    assert_eq!(key, format!("route.read.mount-{n}/"));
                    asked += 1;
                    (n % 7 != 0).then_some(n)
                });
                assert_eq!(number, (n % 7 != 0).then_some(n), "round {round}");
                // cut otherwise it is the same key
                assert_eq!(table.number(["route.read.", &text].into_iter(), |_| panic!("known")), number);
            }
        }
        assert_eq!(asked, 1000);
    }
}
