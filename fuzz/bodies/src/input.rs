//! Bytes read as a script: small numbers, choices and runs of bytes, taken from the front. It never fails; past the
//! end there are zeros and nothing, so that each prefix of a script is a script.

/// A cursor over a target's bytes.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// Reads from the start.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { rest: bytes }
    }

    /// True at the end.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte, 0 past the end.
    pub fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    /// Two bytes, big endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    /// Below `n`, which is not 0; from two bytes.
    pub fn below(&mut self, n: usize) -> usize {
        self.u16() as usize % n
    }

    /// One of a list that is not empty; from one byte.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.u8() as usize % of.len()]
    }

    /// At most `n` bytes.
    pub fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(n.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// A run of bytes with its length (one byte) before it.
    pub fn short(&mut self) -> &'a [u8] {
        let n = self.u8() as usize;
        self.bytes(n)
    }

    /// Everything that is left.
    pub fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Up to a line break, which is dropped; what is not UTF-8 is replaced.
    pub fn line(&mut self) -> String {
        let end = self.rest.iter().position(|b| *b == b'\n').unwrap_or(self.rest.len());
        let line = self.bytes(end);
        self.u8();
        String::from_utf8_lossy(line).into_owned()
    }

    /// Everything that is left as text.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.all()).into_owned()
    }
}

/// Changes bytes as a script says, the way a failing disk does: bits flip, runs are zeroed, moved or cut off. Never an
/// arbitrary value at an arbitrary place, which could be a forged checksum. True if anything is different now.
pub fn damage(bytes: &mut Vec<u8>, script: &mut Input<'_>, unit: usize) -> bool {
    let before = bytes.clone();
    for _ in 0..script.u8() % 8 {
        if bytes.is_empty() {
            break;
        }
        let at = (script.u16() as usize) << 8 | script.u8() as usize;
        let units = bytes.len().div_ceil(unit);
        let run = |k: usize, len: usize| k % units * unit..(k % units * unit + unit).min(len);
        match script.u8() % 5 {
            0 | 1 => {
                let len = bytes.len();
                bytes[at % len] ^= 1 << (script.u8() % 8);
            }
            2 => {
                let len = bytes.len();
                bytes[run(at, len)].fill(0);
            }
            3 => bytes.truncate(at % bytes.len()),
            _ => {
                let (from, to) = (run(at, bytes.len()), run(script.u16() as usize, bytes.len()));
                let part = bytes[from].to_vec();
                let n = part.len().min(to.len());
                bytes[to.start..to.start + n].copy_from_slice(&part[..n]);
            }
        }
    }
    *bytes != before
}
