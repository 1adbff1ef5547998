//! A page: the leaf of the tree, keys and values packed in one allocation.
//!
//! ```text
//!  0        2        4        8       12       16                                                      len
//!  ├ count ─┼ prefix ┼─ heap ─┼─ dead ─┼─ zero ─┼ slot 0 │ slot 1 │ ... │ gap │ entry │ entry │ ... │ entry ┤
//!                                                └ sorted by key, 16 B        └ heap: key then value, any order
//!  slot: head u64 (the 8 key bytes after the page's common prefix, as a number), place u64 (distance of the entry
//!        from the page's end << 40 | value length << 16 | key length); integers are little endian in memory only
//! ```
//!
//! Distances count from the end so that a page grows by copying its heap as one block. A search compares heads, one
//! integer each, and looks at a whole key only where heads tie. A page that no version shares is edited in place;
//! a shared one is copied first. An entry above [`BIG_ENTRY_BYTES`] has a page to itself, so that writing its
//! neighbours never copies it.

use std::sync::Arc;

/// Most live bytes of a page that holds more than one entry.
pub(crate) const PAGE_BYTES: usize = if cfg!(test) { 512 } else { 8 * 1024 };
/// An entry above this stands alone in its page.
pub(crate) const BIG_ENTRY_BYTES: usize = PAGE_BYTES / 2;
/// A page below this is offered to its neighbour.
pub(crate) const THIN_PAGE_BYTES: usize = PAGE_BYTES / 4;

const HEADER: usize = 16;
const SLOT: usize = 16;

/// An entry by reference: key and value.
pub(crate) type Entry<'a> = (&'a [u8], &'a [u8]);

/// A packed, ordered run of entries; cloning shares it.
#[derive(Clone)]
pub(crate) struct Page(Arc<[u8]>);

/// What an entry takes in a page, its slot included.
pub(crate) fn entry_bytes(key: &[u8], value: &[u8]) -> usize {
    SLOT + key.len() + value.len()
}

/// The head of a key: eight bytes from `prefix` on, missing ones zero. Orders as the keys do, except for ties.
pub(crate) fn head(key: &[u8], prefix: usize) -> u64 {
    let rest = key.get(prefix..).unwrap_or(&[]);
    if let Some(eight) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*eight);
    }
    let mut padded = [0u8; 8];
    padded[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(padded)
}

/// How many leading bytes two keys share.
pub(crate) fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

impl Page {
    /// A page without entries.
    pub(crate) fn empty() -> Page {
        Page(Arc::from([0u8; HEADER]))
    }

    /// Packs ascending entries, leaving `slack` bytes of gap.
    pub(crate) fn build(entries: &[Entry<'_>], slack: usize, scratch: &mut Vec<u8>) -> Page {
        let heap: usize = entries.iter().map(|(k, v)| k.len() + v.len()).sum();
        let prefix = match (entries.first(), entries.last()) {
            (Some((first, _)), Some((last, _))) => shared_prefix(first, last),
            _ => 0,
        };
        scratch.clear();
        scratch.extend_from_slice(&(entries.len() as u16).to_le_bytes());
        scratch.extend_from_slice(&(prefix as u16).to_le_bytes());
        scratch.extend_from_slice(&(heap as u32).to_le_bytes());
        scratch.extend_from_slice(&[0; 8]);
        let mut distance = heap;
        for (k, v) in entries {
            scratch.extend_from_slice(&slot(k, v, prefix, distance));
            distance -= k.len() + v.len();
        }
        scratch.resize(scratch.len() + slack, 0);
        for (k, v) in entries {
            scratch.extend_from_slice(k);
            scratch.extend_from_slice(v);
        }
        Page(Arc::from(&scratch[..]))
    }

    /// The page, to be read.
    pub(crate) fn view(&self) -> View<'_> {
        View { bytes: &self.0 }
    }

    /// Loads the line that holds the reference count; see `Inner::warm`.
    pub(crate) fn warm(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Replaces a value by another one; the length may differ.
    pub(crate) fn replace(&mut self, at: usize, key: &[u8], value: &[u8], scratch: &mut Vec<u8>) {
        let view = self.view();
        let (_, old) = view.entry(at);
        if old.len() == value.len() {
            let start = view.value_start(at);
            self.edit()[start..start + value.len()].copy_from_slice(value);
            return;
        }
        if view.gap() >= key.len() + value.len() {
            let bytes = self.edit();
            take_out(bytes, at);
            put_in(bytes, at, key, value);
            return;
        }
        let slack = self.slack_when_rebuilt();
        let view = self.view();
        let mut entries: Vec<Entry<'_>> = view.entries().collect();
        entries[at] = (key, value);
        let slack = if entries.len() == 1 { 0 } else { slack };
        self.0 = Page::build(&entries, slack, scratch).0;
    }

    /// Inserts an entry that stands at `at` in the order.
    pub(crate) fn insert(&mut self, at: usize, key: &[u8], value: &[u8], scratch: &mut Vec<u8>) {
        let need = entry_bytes(key, value);
        if self.view().gap() >= need {
            put_in(self.edit(), at, key, value);
            return;
        }
        let slack = self.slack_when_rebuilt();
        let view = self.view();
        if view.dead() > 0 {
            let mut entries: Vec<Entry<'_>> = Vec::with_capacity(view.count() + 1);
            entries.extend(view.entries());
            entries.insert(at, (key, value));
            self.0 = Page::build(&entries, slack, scratch).0;
            return;
        }
        let (slots_end, heap_start) = (HEADER + view.count() * SLOT, view.bytes.len() - view.heap());
        scratch.clear();
        scratch.extend_from_slice(&view.bytes[..slots_end]);
        scratch.resize(slots_end + need + slack, 0);
        scratch.extend_from_slice(&view.bytes[heap_start..]);
        put_in(scratch, at, key, value);
        self.0 = Arc::from(&scratch[..]);
    }

    /// Removes the entry at `at`; memory is given back once a quarter of the page is unused.
    pub(crate) fn remove(&mut self, at: usize, scratch: &mut Vec<u8>) {
        let view = self.view();
        let (key, value) = view.entry(at);
        let live = view.live() - entry_bytes(key, value);
        if view.bytes.len() - live > view.bytes.len() / 4 {
            let entries: Vec<Entry<'_>> =
                view.entries().enumerate().filter(|(i, _)| *i != at).map(|(_, e)| e).collect();
            self.0 = Page::build(&entries, 0, scratch).0;
            return;
        }
        take_out(self.edit(), at);
    }

    /// The bytes to edit: in place if nobody shares them, else of a copy.
    fn edit(&mut self) -> &mut [u8] {
        Arc::make_mut(&mut self.0)
    }

    /// A page that is edited in place will be again: it gets room. A page that is shared is copied whatever happens,
    /// so room would only cost memory.
    fn slack_when_rebuilt(&mut self) -> usize {
        if Arc::get_mut(&mut self.0).is_some() { self.0.len().min(PAGE_BYTES) / 8 } else { 0 }
    }
}

fn slot(key: &[u8], value: &[u8], prefix: usize, distance: usize) -> [u8; SLOT] {
    let place = (distance as u64) << 40 | (value.len() as u64) << 16 | key.len() as u64;
    let mut s = [0; SLOT];
    s[..8].copy_from_slice(&head(key, prefix).to_le_bytes());
    s[8..].copy_from_slice(&place.to_le_bytes());
    s
}

fn set_u16(bytes: &mut [u8], at: usize, v: usize) {
    bytes[at..at + 2].copy_from_slice(&(v as u16).to_le_bytes());
}

fn set_u32(bytes: &mut [u8], at: usize, v: usize) {
    bytes[at..at + 4].copy_from_slice(&(v as u32).to_le_bytes());
}

/// Inserts into a page whose gap is wide enough.
fn put_in(bytes: &mut [u8], at: usize, key: &[u8], value: &[u8]) {
    let view = View { bytes };
    let (count, heap) = (view.count(), view.heap() + key.len() + value.len());
    let old_prefix = view.prefix();
    let prefix = if count == 0 { key.len() } else { shared_prefix(key, &view.key(at.min(count - 1))[..old_prefix]) };
    if prefix < old_prefix {
        for i in 0..count {
            let h = head(View { bytes }.key(i), prefix);
            bytes[HEADER + i * SLOT..][..8].copy_from_slice(&h.to_le_bytes());
        }
    }
    let from = HEADER + at * SLOT;
    bytes.copy_within(from..HEADER + count * SLOT, from + SLOT);
    bytes[from..from + SLOT].copy_from_slice(&slot(key, value, prefix, heap));
    let start = bytes.len() - heap;
    bytes[start..start + key.len()].copy_from_slice(key);
    bytes[start + key.len()..][..value.len()].copy_from_slice(value);
    set_u16(bytes, 0, count + 1);
    set_u16(bytes, 2, prefix);
    set_u32(bytes, 4, heap);
}

/// Removes an entry, leaving its bytes dead unless they bound the gap.
fn take_out(bytes: &mut [u8], at: usize) {
    let view = View { bytes };
    let (count, heap, dead) = (view.count(), view.heap(), view.dead());
    let (distance, value_len, key_len) = view.place(at);
    let size = key_len + value_len;
    let from = HEADER + at * SLOT;
    bytes.copy_within(from + SLOT..HEADER + count * SLOT, from);
    set_u16(bytes, 0, count - 1);
    if count == 1 {
        set_u16(bytes, 2, 0);
        set_u32(bytes, 4, 0);
        set_u32(bytes, 8, 0);
    } else if distance == heap {
        set_u32(bytes, 4, heap - size);
    } else {
        set_u32(bytes, 8, dead + size);
    }
}

/// A page to be read.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    bytes: &'a [u8],
}

impl<'a> View<'a> {
    fn u16_at(&self, at: usize) -> usize {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]) as usize
    }

    fn u32_at(&self, at: usize) -> usize {
        let b = self.bytes;
        u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]) as usize
    }

    /// Number of entries.
    pub(crate) fn count(&self) -> usize {
        self.u16_at(0)
    }

    /// Leading bytes that all keys of the page share.
    fn prefix(&self) -> usize {
        self.u16_at(2)
    }

    fn heap(&self) -> usize {
        self.u32_at(4)
    }

    fn dead(&self) -> usize {
        self.u32_at(8)
    }

    fn gap(&self) -> usize {
        self.bytes.len() - HEADER - self.count() * SLOT - self.heap()
    }

    /// Bytes in use: what the page would take if it were packed again.
    pub(crate) fn live(&self) -> usize {
        HEADER + self.count() * SLOT + self.heap() - self.dead()
    }

    fn slots(&self) -> &'a [[u8; SLOT]] {
        self.bytes[HEADER..HEADER + self.count() * SLOT].as_chunks::<SLOT>().0
    }

    /// Distance from the end, value length, key length.
    fn place(&self, at: usize) -> (usize, usize, usize) {
        let place = number(&self.slots()[at], 8);
        ((place >> 40) as usize, (place >> 16 & 0xff_ffff) as usize, (place & 0xffff) as usize)
    }

    fn value_start(&self, at: usize) -> usize {
        let (distance, _, key_len) = self.place(at);
        self.bytes.len() - distance + key_len
    }

    /// The entry at a place in the order.
    pub(crate) fn entry(&self, at: usize) -> Entry<'a> {
        let (distance, value_len, key_len) = self.place(at);
        let start = self.bytes.len() - distance;
        self.bytes[start..start + key_len + value_len].split_at(key_len)
    }

    /// The key at a place in the order.
    pub(crate) fn key(&self, at: usize) -> &'a [u8] {
        self.entry(at).0
    }

    /// All entries, ascending.
    pub(crate) fn entries(self) -> impl Iterator<Item = Entry<'a>> {
        (0..self.count()).map(move |i| self.entry(i))
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&'a [u8]> {
        // A key that lacks the page's prefix may land anywhere by its head, but cannot be equal to what it finds.
        let at = self.find_by_head(key).ok()?;
        let (found, value) = self.entry(at);
        (found == key).then_some(value)
    }

    /// Where a key stands, or would.
    pub(crate) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let found = self.find_by_head(key);
        let prefix = self.prefix();
        if let Err(at) = found
            && prefix > 0
        {
            // The heads speak for keys with the page's prefix. All of the page's have it, so any may be asked; the
            // one found is about to be read anyhow.
            let lead = &self.key(at.min(self.count() - 1))[..prefix];
            let own = &key[..prefix.min(key.len())];
            if own != lead {
                return Err(if own < lead { 0 } else { self.count() });
            }
        }
        found
    }

    /// As [`View::find`] for a key that has the page's prefix.
    fn find_by_head(&self, key: &[u8]) -> Result<usize, usize> {
        let slots = self.slots();
        let wanted = head(key, self.prefix());
        let mut low = lower_bound(slots, wanted);
        let ties = slots[low..].iter().take_while(|s| number(s, 0) == wanted).count();
        let mut high = low + ties;
        while low < high {
            let mid = (low + high) / 2;
            match self.key(mid).cmp(key) {
                std::cmp::Ordering::Less => low = mid + 1,
                std::cmp::Ordering::Equal => return Ok(mid),
                std::cmp::Ordering::Greater => high = mid,
            }
        }
        Err(low)
    }
}

/// So many slots are compared without a branch in between.
const SIDE_BY_SIDE: usize = 64;

/// How many slots have a head below `wanted`; they are sorted.
///
/// A page of a large image is cold. A binary search waits for one cache line after another and guesses wrong at every
/// second step; comparing all heads of a run costs a fraction of a nanosecond each, and its lines come side by side.
fn lower_bound(slots: &[[u8; SLOT]], wanted: u64) -> usize {
    let (mut low, mut high) = (0, slots.len());
    while high - low > SIDE_BY_SIDE {
        let mid = (low + high) / 2;
        if number(&slots[mid], 0) < wanted {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    low + slots[low..high].iter().map(|s| usize::from(number(s, 0) < wanted)).sum::<usize>()
}

fn number(slot: &[u8; SLOT], at: usize) -> u64 {
    let eight = slot[at..].first_chunk::<8>().expect("a slot has two numbers");
    u64::from_le_bytes(*eight)
}
