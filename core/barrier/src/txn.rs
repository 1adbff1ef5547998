//! The optimistic transaction: a handler's whole view of the image.
//!
//! It reads one immutable view, remembers what it read, keeps its writes in plaintext, and sees them itself. At the
//! end it seals them into a batch. Nothing is locked and nothing is shared: a read-only Txn ends where it ran, a
//! writing one is judged by the owner's [`crate::Window`].
//!
//! Driven by a handler on any core; finished by the pipeline with that core's [`Sealer`]. It never commits anything.

use crate::issuer::Sealer;
use crate::keyring::{Keyring, OpenError};
use crate::keys::KEYRING;
use crate::read_set::ReadSet;
use crate::record::{MAX_HEADER_BYTES, Record};
use crate::tip::is_empty_range;
use crate::view::{Entries, View, bounds, prefix_end};
use ringfence_base::{Index, MountId, Wall};
use ringfence_store::{Batch, Key, Op};
use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::iter::{Peekable, Rev};
use std::ops::Bound;

/// A record opened.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Plain {
    /// The clear header, authenticated with the rest.
    pub header: Vec<u8>,
    /// The plaintext.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plain({} + {} bytes)", self.header.len(), self.bytes.len())
    }
}

/// Why a Txn cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierError {
    /// A sealed record was asked for or written without a keyring.
    Sealed,
    /// A record of the image does not open.
    Record(OpenError),
    /// A name listed as a child is not UTF-8.
    NotText,
    /// The batch, a key, a value or a clear header is over its limit.
    TooLarge,
}

impl std::fmt::Display for BarrierError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BarrierError::Sealed => f.write_str("the barrier is sealed"),
            BarrierError::Record(e) => e.fmt(f),
            BarrierError::NotText => f.write_str("a key of the image is not text"),
            BarrierError::TooLarge => f.write_str("the write is over the size limit"),
        }
    }
}

impl std::error::Error for BarrierError {}

impl From<OpenError> for BarrierError {
    fn from(e: OpenError) -> Self {
        BarrierError::Record(e)
    }
}

/// A write not yet sealed.
enum Write {
    Sealed(Plain),
    Clear(Vec<u8>),
    Delete,
}

/// What a Txn hands to the owner.
#[derive(Debug)]
pub struct Finished {
    /// The sealed writes; none if there are none.
    pub batch: Option<Batch>,
    /// What the Txn relied on.
    pub reads: ReadSet,
    /// The index of the view it read.
    pub read_index: Index,
}

/// One run of a handler over one view.
pub struct Txn<'a> {
    view: &'a dyn View,
    keyring: Option<&'a Keyring>,
    writes: BTreeMap<Key, Write>,
    reads: ReadSet,
    /// False: what it reads is not remembered, and so it may not be finished with writes.
    records: bool,
}

impl std::fmt::Debug for Txn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Txn(at {}, {} writes)", self.read_index(), self.writes.len())
    }
}

impl<'a> Txn<'a> {
    /// A Txn over a view. Without a keyring it reads and writes clear records only.
    pub fn new(view: &'a dyn View, keyring: Option<&'a Keyring>) -> Txn<'a> {
        Txn { view, keyring, writes: BTreeMap::new(), reads: ReadSet::default(), records: true }
    }

    /// A Txn that is expected to write nothing: it does not remember what it read. If it turns out to have written all
    /// the same, it is to be thrown away and run again over [`Txn::new`]; it cannot be finished.
    pub fn reading(view: &'a dyn View, keyring: Option<&'a Keyring>) -> Txn<'a> {
        Txn { records: false, ..Txn::new(view, keyring) }
    }

    /// Runs something and answers what it alone relied on; the Txn relies on it too, as ever.
    pub fn recorded<T>(&mut self, run: impl FnOnce(&mut Txn<'a>) -> T) -> (T, ReadSet) {
        let before = std::mem::take(&mut self.reads);
        let records = std::mem::replace(&mut self.records, true);
        let value = run(self);
        self.records = records;
        let relied = std::mem::replace(&mut self.reads, before);
        self.rely_on(&relied);
        (value, relied)
    }

    /// Adds to the read set what an earlier run relied on, whose result is used again.
    pub fn rely_on(&mut self, reads: &ReadSet) {
        if self.records {
            self.reads.extend(reads);
        }
    }

    /// The view it reads; what is read through it is not recorded.
    pub fn view(&self) -> &'a dyn View {
        self.view
    }

    /// The keyring it opens with.
    pub fn keyring(&self) -> Option<&'a Keyring> {
        self.keyring
    }

    /// The index of the view.
    pub fn read_index(&self) -> Index {
        self.view.index()
    }

    /// The log time of the view.
    pub fn log_time(&self) -> Wall {
        self.view.log_time()
    }

    /// True while nothing was written.
    pub fn is_read_only(&self) -> bool {
        self.writes.is_empty()
    }

    /// Reads a sealed record. Recorded; own writes are seen.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Plain>, BarrierError> {
        match self.writes.get(key) {
            Some(Write::Sealed(plain)) => return Ok(Some(plain.clone())),
            Some(Write::Clear(_)) => return Err(BarrierError::Record(OpenError::Malformed)),
            Some(Write::Delete) => return Ok(None),
            None => self.note(key),
        }
        self.view.get(key).map(|record| self.open(key, record)).transpose()
    }

    /// Reads the clear header of a sealed record without decrypting it, and so without authenticating it. Recorded.
    pub fn get_header(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, BarrierError> {
        match self.writes.get(key) {
            Some(Write::Sealed(plain)) => return Ok(Some(plain.header.clone())),
            Some(Write::Clear(_)) => return Err(BarrierError::Record(OpenError::Malformed)),
            Some(Write::Delete) => return Ok(None),
            None => self.note(key),
        }
        Ok(self.view.get(key).map(Record::parse).transpose()?.map(|record| record.header.to_vec()))
    }

    /// Reads a record that is not sealed. Recorded.
    pub fn get_clear(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        match self.writes.get(key) {
            Some(Write::Clear(bytes)) => return Some(bytes.clone()),
            Some(Write::Sealed(_) | Write::Delete) => return None,
            None => self.note(key),
        }
        self.view.get(key).map(<[u8]>::to_vec)
    }

    /// True if there is a record. Recorded.
    pub fn exists(&mut self, key: &[u8]) -> bool {
        match self.writes.get(key) {
            Some(write) => !matches!(write, Write::Delete),
            None => {
                self.note(key);
                self.view.get(key).is_some()
            }
        }
    }

    /// Writes a sealed record: `header` stays readable to `apply`, `plaintext` does not.
    pub fn put(&mut self, key: Vec<u8>, header: &[u8], plaintext: &[u8]) {
        self.writes.insert(key, Write::Sealed(Plain { header: header.to_vec(), bytes: plaintext.to_vec() }));
    }

    /// Writes a record that is not sealed (core records, issuers).
    pub fn put_clear(&mut self, key: Vec<u8>, bytes: Vec<u8>) {
        self.writes.insert(key, Write::Clear(bytes));
    }

    /// Deletes a record, there or not.
    pub fn delete(&mut self, key: &[u8]) {
        self.writes.insert(key.to_vec(), Write::Delete);
    }

    /// Adds a key to the read set without reading it.
    pub fn guard(&mut self, key: &[u8]) {
        self.note(key);
    }

    /// Adds every key under a prefix to the read set without reading.
    pub fn guard_prefix(&mut self, prefix: &[u8]) {
        self.note_range(prefix.to_vec(), prefix_end(prefix));
    }

    /// The keys under a prefix, in order, after `after` (a whole key, there or not), at most `limit`. What was walked
    /// is recorded as a range.
    pub fn list(&mut self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Key> {
        let (from, end) = page(prefix, after);
        let keys: Vec<Key> = self.merged(&from, end.as_deref()).take(limit).map(|(key, _)| key.to_vec()).collect();
        self.record_page(from, end, keys.last(), keys.len() == limit);
        keys
    }

    /// As [`Txn::list`], with the records opened.
    pub fn scan(
        &mut self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Key, Plain)>, BarrierError> {
        let (from, end) = page(prefix, after);
        let mut rows: Vec<(Key, Plain)> = Vec::new();
        for (key, value) in self.merged(&from, end.as_deref()).take(limit) {
            let plain = match value {
                Value::Stored(record) => self.open(key, record)?,
                Value::Own(Write::Sealed(plain)) => plain.clone(),
                Value::Own(_) => return Err(BarrierError::Record(OpenError::Malformed)),
            };
            rows.push((key.to_vec(), plain));
        }
        let full = rows.len() == limit;
        self.record_page(from, end, rows.last().map(|(key, _)| key), full);
        Ok(rows)
    }

    /// As [`Txn::list`] from the other end: the last `limit` keys under a prefix, descending.
    pub fn list_last(&mut self, prefix: &[u8], limit: usize) -> Vec<Key> {
        let end = prefix_end(prefix);
        let (from, to) = bounds(prefix, end.as_deref());
        let mut merged = Merged::down(self.view.scan(from, to), own_range(&self.writes, prefix, end.as_deref()));
        let keys: Vec<Key> = std::iter::from_fn(|| merged.next()).take(limit).map(|(key, _)| key.to_vec()).collect();
        drop(merged);
        let first = keys.last().filter(|_| keys.len() == limit).cloned();
        self.note_range(first.unwrap_or_else(|| prefix.to_vec()), end);
        keys
    }

    /// How many keys stand under a prefix. Recorded as a range; walks them.
    pub fn count(&mut self, prefix: &[u8]) -> usize {
        let end = prefix_end(prefix);
        let n = self.merged(prefix, end.as_deref()).count();
        self.note_range(prefix.to_vec(), end);
        n
    }

    /// One level of names under a prefix: `a` for a record, `b/` for anything below `b/`, in order. What stands below
    /// a name is skipped, not walked, so the cost is that of the names shown.
    pub fn list_children(&mut self, prefix: &[u8]) -> Result<Vec<String>, BarrierError> {
        self.list_children_page(prefix, None, usize::MAX)
    }

    /// As [`Txn::list_children`], the names after `after`, at most `limit`.
    pub fn list_children_page(
        &mut self,
        prefix: &[u8],
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, BarrierError> {
        let from = after.map_or_else(
            || prefix.to_vec(),
            // whatever stands after a slash, the folder itself sorts before it
            |name| past_child(prefix, name.split_inclusive('/').next().unwrap_or_default().as_bytes()),
        );
        let end = prefix_end(prefix);
        let mut names: Vec<String> = Vec::new();
        let mut at = from.clone();
        'walk: while names.len() < limit && end.as_ref().is_none_or(|end| at < *end) {
            let mut skip = None;
            for (key, _) in self.merged(&at, end.as_deref()) {
                let rest = &key[prefix.len()..];
                let folder = rest.iter().position(|&b| b == b'/');
                let name = folder.map_or(rest, |slash| &rest[..=slash]);
                names.push(std::str::from_utf8(name).map_err(|_| BarrierError::NotText)?.to_owned());
                if folder.is_some() {
                    skip = Some(past_child(prefix, name));
                    break;
                }
                if names.len() >= limit {
                    break 'walk;
                }
            }
            match skip {
                Some(next) => at = next,
                None => break,
            }
        }
        let read_to = match names.last() {
            Some(last) if names.len() >= limit => Some(past_child(prefix, last.as_bytes())),
            _ => end,
        };
        self.note_range(from, read_to);
        Ok(names)
    }

    /// Opens everything under a prefix without recording the read: for state that is derived from whole tables and
    /// checked by [`Txn::changed`]. Own writes are not seen.
    pub fn peek_prefix(&self, prefix: &[u8]) -> Result<Vec<(Key, Plain)>, BarrierError> {
        let end = prefix_end(prefix);
        let (from, to) = bounds(prefix, end.as_deref());
        self.view.scan(from, to).map(|(key, record)| Ok((key.to_vec(), self.open(key, record)?))).collect()
    }

    /// Index of the last change of a table, or of one mount's part of it, in the view. Not recorded.
    pub fn changed(&self, table: u8, mount: Option<MountId>) -> Index {
        self.view.changed(table, mount)
    }

    /// Forgets every write; what was read stays in the read set. For a handler that failed half-way.
    pub fn discard_writes(&mut self) {
        self.writes.clear();
    }

    /// Seals the writes for the owner. Every writing Txn also guards the keyring's record, so that none commits under
    /// a term that a rotation has just retired.
    ///
    /// # Errors
    /// Sealed records without a keyring, and a batch over a limit.
    pub fn finish(mut self, sealer: &mut Sealer, log_time: Wall) -> Result<Finished, BarrierError> {
        if let Some(keyring) = self.keyring {
            sealer.follow(keyring);
            if !self.writes.is_empty() {
                self.reads.add_point(&KEYRING);
            }
        }
        self.close(log_time, |key, plain| sealer.seal(key, &plain.header, &plain.bytes))
    }

    /// As [`Txn::finish`] where there is no sealer yet: only clear records may have been written.
    pub fn finish_clear(mut self, log_time: Wall) -> Result<Finished, BarrierError> {
        self.keyring = None;
        self.close(log_time, |_, _| Vec::new())
    }

    fn close(self, log_time: Wall, mut seal: impl FnMut(&[u8], &Plain) -> Vec<u8>) -> Result<Finished, BarrierError> {
        let read_index = self.read_index();
        if self.writes.is_empty() {
            return Ok(Finished { batch: None, reads: self.reads, read_index });
        }
        ringfence_base::invariant!(self.records, "writes that rest on nothing remembered are never proposed");
        let mut ops = Vec::with_capacity(self.writes.len());
        for (key, write) in self.writes {
            ops.push(match write {
                Write::Sealed(_) if self.keyring.is_none() => return Err(BarrierError::Sealed),
                Write::Sealed(plain) if plain.header.len() > MAX_HEADER_BYTES => return Err(BarrierError::TooLarge),
                Write::Sealed(plain) => Op::Put { value: seal(&key, &plain), key },
                Write::Clear(value) => Op::Put { key, value },
                Write::Delete => Op::Delete { key },
            });
        }
        let batch = Batch { log_time, ops };
        if !batch.fits() {
            return Err(BarrierError::TooLarge);
        }
        Ok(Finished { batch: Some(batch), reads: self.reads, read_index })
    }

    fn note(&mut self, key: &[u8]) {
        if self.records {
            self.reads.add_point(key);
        }
    }

    fn note_range(&mut self, from: Key, to: Option<Key>) {
        if self.records {
            self.reads.add_range(from, to);
        }
    }

    fn open(&self, key: &[u8], record: &[u8]) -> Result<Plain, BarrierError> {
        Ok(self.keyring.ok_or(BarrierError::Sealed)?.open(self.view, key, record)?)
    }

    fn merged(&self, from: &[u8], to: Option<&[u8]>) -> impl Iterator<Item = (&[u8], Value<'_>)> {
        let (lower, upper) = bounds(from, to);
        let mut merged = Merged::up(self.view.scan(lower, upper), own_range(&self.writes, from, to));
        std::iter::from_fn(move || merged.next())
    }

    fn record_page(&mut self, from: Key, end: Option<Key>, last: Option<&Key>, full: bool) {
        let read_to = match last {
            Some(last) if full => Some([&last[..], &[0]].concat()),
            // a page of no size walked nothing
            None if full => Some(from.clone()),
            _ => end,
        };
        self.note_range(from, read_to);
    }
}

/// First key of a page under a prefix, and where the prefix ends.
fn page(prefix: &[u8], after: Option<&[u8]>) -> (Key, Option<Key>) {
    let from = after.map(|after| [after, &[0]].concat()).filter(|next| &next[..] > prefix);
    (from.unwrap_or_else(|| prefix.to_vec()), prefix_end(prefix))
}

/// The first key that belongs to a later child: past the record `a`, or past everything below `b/`.
fn past_child(prefix: &[u8], name: &[u8]) -> Key {
    let mut key = [prefix, name].concat();
    match key.last_mut() {
        Some(last) if name.ends_with(b"/") => *last += 1,
        _ => key.push(0),
    }
    key
}

fn own_range<'w>(writes: &'w BTreeMap<Key, Write>, from: &[u8], to: Option<&[u8]>) -> Range<'w, Key, Write> {
    let range = bounds(from, to);
    if is_empty_range(range.0, range.1) {
        return writes.range::<[u8], _>((Bound::Included(from), Bound::Excluded(from)));
    }
    writes.range::<[u8], _>(range)
}

/// Where a merged entry comes from.
enum Value<'w> {
    Stored(&'w [u8]),
    Own(&'w Write),
}

/// View and own writes as one ordered walk; own writes win, own deletions hide.
struct Merged<'w, S, O>
where
    S: Iterator<Item = (&'w [u8], &'w [u8])>,
    O: Iterator<Item = (&'w Key, &'w Write)>,
{
    stored: Peekable<S>,
    own: Peekable<O>,
    ascending: bool,
}

impl<'w> Merged<'w, Entries<'w>, Range<'w, Key, Write>> {
    fn up(stored: Entries<'w>, own: Range<'w, Key, Write>) -> Self {
        Merged { stored: stored.peekable(), own: own.peekable(), ascending: true }
    }
}

impl<'w> Merged<'w, Rev<Entries<'w>>, Rev<Range<'w, Key, Write>>> {
    fn down(stored: Entries<'w>, own: Range<'w, Key, Write>) -> Self {
        Merged { stored: stored.rev().peekable(), own: own.rev().peekable(), ascending: false }
    }
}

impl<'w, S, O> Merged<'w, S, O>
where
    S: Iterator<Item = (&'w [u8], &'w [u8])>,
    O: Iterator<Item = (&'w Key, &'w Write)>,
{
    fn next(&mut self) -> Option<(&'w [u8], Value<'w>)> {
        loop {
            let (stored, own) = (self.stored.peek().map(|e| e.0), self.own.peek().map(|e| &e.0[..]));
            match (stored, own) {
                (None, None) => return None,
                (Some(_), None) => return self.stored.next().map(|(key, value)| (key, Value::Stored(value))),
                (Some(s), Some(o)) if s != o && (s < o) == self.ascending => {
                    return self.stored.next().map(|(key, value)| (key, Value::Stored(value)));
                }
                (stored, own) => {
                    if stored == own {
                        self.stored.next();
                    }
                    let (key, write) = self.own.next()?;
                    if !matches!(write, Write::Delete) {
                        return Some((key, Value::Own(write)));
                    }
                }
            }
        }
    }
}
