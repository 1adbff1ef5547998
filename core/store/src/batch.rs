//! A batch: what one log entry changes, and its encoding.
//!
//! ```text
//!   version u8 = 1 │ log time, ns (LEB128) │ number of writes (LEB128) │ write ...
//!   write: tag u8: 1 put, 2 delete │ key length (LEB128), key │ put only: value length (LEB128), value
//! ```
//!
//! Decoding never panics and never allocates more than the input is long. The limits of `ringfence_base::limit` hold
//! for what is decoded; who encodes asks [`Batch::fits`] first.

use ringfence_base::limit::{MAX_BATCH_BYTES, MAX_BATCH_OPS, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use ringfence_base::{CodecError, Reader, Wall, Writer};

use crate::Key;

const FORMAT: u8 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;
/// The shortest write: a tag and the length of a key.
const MIN_OP_BYTES: usize = 2;

/// One change of a batch.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// Puts a record, replacing what was there.
    Put {
        /// Its key.
        key: Key,
        /// The sealed record.
        value: Vec<u8>,
    },
    /// Deletes a record if it is there.
    Delete {
        /// Its key.
        key: Key,
    },
}

impl Op {
    /// The key it writes.
    pub fn key(&self) -> &[u8] {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }
}

impl std::fmt::Debug for Op {
    /// Keys in full, values by their length.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Op::Put { key, value } => write!(f, "Put({}, {} bytes)", key.escape_ascii(), value.len()),
            Op::Delete { key } => write!(f, "Delete({})", key.escape_ascii()),
        }
    }
}

/// The writes of one log entry, applied in order, all or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The active node's log time.
    pub log_time: Wall,
    /// The writes.
    pub ops: Vec<Op>,
}

impl Batch {
    /// True if the batch keeps all limits, so that every node can decode it.
    pub fn fits(&self) -> bool {
        self.ops.len() <= MAX_BATCH_OPS
            && self.ops.iter().all(|op| match op {
                Op::Put { key, value } => key.len() <= MAX_KEY_BYTES && value.len() <= MAX_VALUE_BYTES,
                Op::Delete { key } => key.len() <= MAX_KEY_BYTES,
            })
            && self.encoded_len() <= MAX_BATCH_BYTES
    }

    /// Length of the encoding, bytes.
    pub fn encoded_len(&self) -> usize {
        let fixed = 1 + num_len(self.log_time.0) + num_len(self.ops.len() as u64);
        let field = |b: &[u8]| num_len(b.len() as u64) + b.len();
        let op = |op: &Op| match op {
            Op::Put { key, value } => 1 + field(key) + field(value),
            Op::Delete { key } => 1 + field(key),
        };
        fixed + self.ops.iter().map(op).sum::<usize>()
    }

    /// The bytes that go into the log.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::over(Vec::with_capacity(self.encoded_len()));
        w.u8(FORMAT).num(self.log_time.0).num(self.ops.len() as u64);
        for op in &self.ops {
            match op {
                Op::Put { key, value } => w.u8(PUT).bytes(key).bytes(value),
                Op::Delete { key } => w.u8(DELETE).bytes(key),
            };
        }
        w.finish()
    }

    /// Reads what [`Batch::encode`] wrote.
    ///
    /// # Errors
    /// Any other bytes, and a batch over a limit. A format of a later build is [`CodecError::BadTag`] at once.
    pub fn decode(bytes: &[u8]) -> Result<Batch, CodecError> {
        let mut writes = Writes::of(bytes)?;
        let mut ops = Vec::with_capacity(writes.left);
        while let Some((key, value)) = writes.next_write()? {
            let key = key.to_vec();
            ops.push(match value {
                Some(value) => Op::Put { key, value: value.to_vec() },
                None => Op::Delete { key },
            });
        }
        Ok(Batch { log_time: writes.log_time, ops })
    }
}

/// The writes of an encoded batch, read where they lie.
pub(crate) struct Writes<'b> {
    pub(crate) log_time: Wall,
    /// Writes that were not read yet.
    left: usize,
    rest: Reader<'b>,
}

impl<'b> Writes<'b> {
    pub(crate) fn of(bytes: &'b [u8]) -> Result<Writes<'b>, CodecError> {
        if bytes.len() > MAX_BATCH_BYTES {
            return Err(CodecError::TooLong);
        }
        let mut r = Reader::new(bytes);
        let format = r.u8()?;
        if format != FORMAT {
            return Err(CodecError::BadTag(format));
        }
        let log_time = Wall(r.num()?);
        let count = r.num()?;
        if count > MAX_BATCH_OPS as u64 {
            return Err(CodecError::TooLong);
        }
        let left = count as usize;
        if left > r.rest().len() / MIN_OP_BYTES {
            return Err(CodecError::Truncated);
        }
        Ok(Writes { log_time, left, rest: r })
    }

    /// The next key and its value, or no value if it is deleted. `None` at the end, which has been checked then.
    #[allow(clippy::type_complexity)] // a pair of slices
    pub(crate) fn next_write(&mut self) -> Result<Option<(&'b [u8], Option<&'b [u8]>)>, CodecError> {
        let r = &mut self.rest;
        let Some(left) = self.left.checked_sub(1) else {
            r.end()?;
            return Ok(None);
        };
        self.left = left;
        Ok(Some(match r.u8()? {
            PUT => {
                let key = r.bytes(MAX_KEY_BYTES)?;
                (key, Some(r.bytes(MAX_VALUE_BYTES)?))
            }
            DELETE => (r.bytes(MAX_KEY_BYTES)?, None),
            tag => return Err(CodecError::BadTag(tag)),
        }))
    }
}

/// Bytes of a number in LEB128.
fn num_len(v: u64) -> usize {
    (64 - (v | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (vec(any::<u8>(), 0..80), vec(any::<u8>(), 0..300)).prop_map(|(key, value)| Op::Put { key, value }),
            vec(any::<u8>(), 0..80).prop_map(|key| Op::Delete { key }),
        ]
    }

    proptest! {
        #[test]
        fn encoding_survives(time: u64, ops in vec(op(), 0..20)) {
            let batch = Batch { log_time: Wall(time), ops };
            let bytes = batch.encode();
            prop_assert_eq!(bytes.len(), batch.encoded_len());
            prop_assert!(batch.fits());
            prop_assert_eq!(Batch::decode(&bytes), Ok(batch));
            for cut in 0..bytes.len() {
                prop_assert!(Batch::decode(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_safe_and_canonical(mut bytes in vec(any::<u8>(), 0..200), ours: bool) {
            if ours && !bytes.is_empty() {
                bytes[0] = FORMAT;
            }
            if let Ok(batch) = Batch::decode(&bytes) {
                prop_assert_eq!(batch.encode(), bytes);
            }
        }
    }

    #[test]
    fn limits_hold() {
        let put = |key: usize, value: usize| Op::Put { key: vec![0; key], value: vec![0; value] };
        let of = |ops| Batch { log_time: Wall(0), ops };
        assert!(of(vec![put(MAX_KEY_BYTES, MAX_VALUE_BYTES)]).fits());
        let over = [
            of(vec![put(MAX_KEY_BYTES + 1, 0)]),
            of(vec![put(0, MAX_VALUE_BYTES + 1)]),
            of(vec![put(0, 0); MAX_BATCH_OPS + 1]),
            of(vec![put(0, MAX_VALUE_BYTES); MAX_BATCH_BYTES / MAX_VALUE_BYTES + 1]),
        ];
        for batch in over {
            assert!(!batch.fits());
            assert_eq!(Batch::decode(&batch.encode()), Err(CodecError::TooLong));
        }
        assert_eq!(Batch::decode(&[2, 0, 0]), Err(CodecError::BadTag(2)));
        assert_eq!(Batch::decode(&[1, 0, 0x80, 0x20]), Err(CodecError::Truncated));
    }
}
