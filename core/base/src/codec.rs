//! A small bounded binary codec: LEB128 numbers and length-prefixed bytes. Decoding never panics, never allocates
//! more than the input holds, and refuses a number or length that is not in its shortest form.

/// Why bytes could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The input ends inside a field.
    Truncated,
    /// A number is too long for its type or not in its shortest form.
    BadNumber,
    /// A length or count is over the limit given.
    TooLong,
    /// A text field is not UTF-8.
    NotText,
    /// A tag or version byte is unknown.
    BadTag(u8),
    /// Bytes remain after the last field.
    Trailing,
}

impl std::fmt::Display for CodecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CodecError::Truncated => f.write_str("input ends inside a field"),
            CodecError::BadNumber => f.write_str("malformed number"),
            CodecError::TooLong => f.write_str("length over the limit"),
            CodecError::NotText => f.write_str("text is not UTF-8"),
            CodecError::BadTag(t) => write!(f, "unknown tag {t}"),
            CodecError::Trailing => f.write_str("bytes after the last field"),
        }
    }
}

impl std::error::Error for CodecError {}

/// Appends fields to a buffer.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    buf: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Writer::default()
    }

    /// A writer that appends to what is already in `buf`.
    pub fn over(buf: Vec<u8>) -> Self {
        Writer { buf }
    }

    /// The bytes written.
    pub fn finish(self) -> Vec<u8> {
        self.buf
    }

    /// The bytes written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.buf
    }

    /// One byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.buf.push(v);
        self
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, v: bool) -> &mut Self {
        self.u8(v as u8)
    }

    /// An unsigned number, LEB128.
    pub fn num(&mut self, mut v: u64) -> &mut Self {
        while v >= 0x80 {
            self.buf.push((v as u8) | 0x80);
            v >>= 7;
        }
        self.buf.push(v as u8);
        self
    }

    /// Four bytes, big endian (keeps order in keys).
    pub fn be32(&mut self, v: u32) -> &mut Self {
        self.raw(&v.to_be_bytes())
    }

    /// Eight bytes, big endian (keeps order in keys).
    pub fn be64(&mut self, v: u64) -> &mut Self {
        self.raw(&v.to_be_bytes())
    }

    /// Bytes without a length.
    pub fn raw(&mut self, v: &[u8]) -> &mut Self {
        self.buf.extend_from_slice(v);
        self
    }

    /// Bytes after their length.
    pub fn bytes(&mut self, v: &[u8]) -> &mut Self {
        self.num(v.len() as u64);
        self.raw(v)
    }

    /// Text after its length in bytes.
    pub fn text(&mut self, v: &str) -> &mut Self {
        self.bytes(v.as_bytes())
    }
}

/// Takes fields from a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `buf`.
    pub fn new(buf: &'a [u8]) -> Self {
        Reader { rest: buf }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True at the end.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails if bytes remain.
    pub fn end(&self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CodecError::Trailing) }
    }

    /// `n` bytes without a length.
    pub fn raw(&mut self, n: usize) -> Result<&'a [u8], CodecError> {
        if self.rest.len() < n {
            return Err(CodecError::Truncated);
        }
        let (head, tail) = self.rest.split_at(n);
        self.rest = tail;
        Ok(head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.raw(1)?[0])
    }

    /// One byte that is 0 or 1.
    pub fn bool(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            t => Err(CodecError::BadTag(t)),
        }
    }

    /// An unsigned number, LEB128, shortest form only.
    pub fn num(&mut self) -> Result<u64, CodecError> {
        let mut v = 0u64;
        for shift in (0..70).step_by(7) {
            let b = self.u8()?;
            if shift == 63 && b > 1 {
                return Err(CodecError::BadNumber);
            }
            v |= ((b & 0x7f) as u64) << shift;
            if b & 0x80 == 0 {
                return if b == 0 && shift > 0 { Err(CodecError::BadNumber) } else { Ok(v) };
            }
        }
        Err(CodecError::BadNumber)
    }

    /// A number that must fit 32 bits.
    pub fn num32(&mut self) -> Result<u32, CodecError> {
        u32::try_from(self.num()?).map_err(|_| CodecError::BadNumber)
    }

    /// Four bytes, big endian.
    pub fn be32(&mut self) -> Result<u32, CodecError> {
        let b = self.raw(4)?;
        Ok(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Eight bytes, big endian.
    pub fn be64(&mut self) -> Result<u64, CodecError> {
        let b = self.raw(8)?;
        Ok(u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
    }

    /// Bytes after their length, at most `max` of them.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], CodecError> {
        let n = self.num()?;
        if n > max as u64 {
            return Err(CodecError::TooLong);
        }
        self.raw(n as usize)
    }

    /// Text after its length, at most `max` bytes.
    pub fn text(&mut self, max: usize) -> Result<&'a str, CodecError> {
        std::str::from_utf8(self.bytes(max)?).map_err(|_| CodecError::NotText)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_survive(v: u64) {
            let b = { let mut w = Writer::new(); w.num(v); w.finish() };
            let mut r = Reader::new(&b);
            prop_assert_eq!(r.num(), Ok(v));
            prop_assert!(r.end().is_ok());
        }

        #[test]
        fn any_bytes_are_safe(b: Vec<u8>) {
            let mut r = Reader::new(&b);
            while r.bytes(1 << 20).is_ok() && !r.is_empty() {}
            let mut r = Reader::new(&b);
            while r.num().is_ok() && !r.is_empty() {}
        }
    }

    #[test]
    fn long_forms_are_refused() {
        assert_eq!(Reader::new(&[0x80, 0x00]).num(), Err(CodecError::BadNumber));
        assert_eq!(Reader::new(&[0xff; 11]).num(), Err(CodecError::BadNumber));
        assert_eq!(Reader::new(&[5, 1, 2]).bytes(10), Err(CodecError::Truncated));
        assert_eq!(Reader::new(&[5, 1, 2]).bytes(4), Err(CodecError::TooLong));
    }
}
