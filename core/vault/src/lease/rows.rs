//! The rows that have a due time or an owner, held compactly: about ninety bytes each, links of the wheel included.
//!
//! Ten million leases are a design case, so no key is kept in full. A lease's key is a request path that thousands of
//! leases share and 24 random characters; a token's is a table byte and a hash. The shared part is interned once
//! (*group*), the rest is inline. Rows with one owner are chained. A row is found by key through small hash tables of
//! row numbers that grow one at a time, so that no single insertion pays for all of them. Rows are cold: the tables keep
//! a tag of each hash beside its number, so that a search hardly ever looks at a row which it is not looking for.
//!
//! Driven by the side index. Holds no secret and no plaintext: keys and clear headers only.

use crate::tables::{self, Hash};
use crate::token::entry::Header;
use hashbrown::HashTable;
use ringfence_base::{MountId, Wall};
use std::collections::BTreeMap;

/// No row.
const NONE: u32 = u32::MAX;
const BLOCK: usize = 4096;
/// Inline part of a key.
const TAIL: usize = 24;
/// Hash tables.
const SHARDS: usize = 256;
const EMPTY_OWNER: Hash = [0; 16];

#[derive(Clone, Copy)]
struct Row {
    /// Group, or `NONE` for a free place.
    group: u32,
    tail_len: u8,
    tail: [u8; TAIL],
    owner: Hash,
    due: u64,
    next: u32,
    previous: u32,
}

const FREE: Row =
    Row { group: NONE, tail_len: 0, tail: [0; TAIL], owner: EMPTY_OWNER, due: 0, next: NONE, previous: NONE };

/// Rows whose keys begin alike. Tokens of each mount are a group of their own, though the mount is not in their key: so
/// the tokens of a mount can be found.
struct Group {
    mount: MountId,
    head: Box<[u8]>,
    rows: usize,
}

/// The rows.
pub struct Rows {
    blocks: Vec<Box<[Row; BLOCK]>>,
    /// First place never used.
    top: u32,
    /// Free places below `top`, chained by `next`.
    free: u32,
    groups: Vec<Group>,
    /// By mount and head; two levels, so that a lookup makes no key of its own.
    group_ids: BTreeMap<MountId, BTreeMap<Box<[u8]>, u32>>,
    free_groups: Vec<u32>,
    owners: BTreeMap<Hash, Chain>,
    shards: Vec<HashTable<u32>>,
    /// The group that was asked for last: neighbours in the image are of one.
    last_group: Option<u32>,
    len: usize,
}

#[derive(Clone, Copy)]
struct Chain {
    head: u32,
    count: u32,
}

impl Default for Rows {
    fn default() -> Self {
        Rows {
            blocks: Vec::new(),
            top: 0,
            free: NONE,
            groups: Vec::new(),
            group_ids: BTreeMap::new(),
            free_groups: Vec::new(),
            owners: BTreeMap::new(),
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            last_group: None,
            len: 0,
        }
    }
}

impl Rows {
    /// Puts many rows whose keys differ into what is still empty, and shows each with its number.
    ///
    /// One table after the other is filled, of the size that it needs: a table fits a cache, all of them together do
    /// not, and so the rows of an image, which come in no order of their hashes, wait for memory once and not twice.
    pub fn load<'k>(&mut self, rows: impl Iterator<Item = (&'k [u8], Header)>, mut each: impl FnMut(u32, &Header)) {
        ringfence_base::invariant!(self.is_empty(), "rows are loaded into what is empty");
        let mut entering: Vec<Vec<(u64, u32)>> = vec![Vec::new(); SHARDS];
        for (key, header) in rows {
            let row = self.place_new(key, &header);
            let h = hash(key);
            entering[shard_of(h)].push((h, row));
            each(row, &header);
        }
        for (shard, rows) in self.shards.iter_mut().zip(entering) {
            // nothing moves: the table is empty, and wide enough at once
            shard.reserve(rows.len(), |_| 0);
            for (h, row) in rows {
                shard.insert_unique(h, row, |_| 0);
            }
        }
    }

    /// Puts a row, or replaces it. Answers its number.
    pub fn put(&mut self, key: &[u8], header: &Header) -> u32 {
        if let Some(row) = self.find(key) {
            if self.row(row).owner != header.owner {
                self.unchain(row);
                self.chain(row, header.owner);
            }
            let group = self.row(row).group;
            if self.groups[group as usize].mount != header.mount && key.first() == Some(&tables::TOKEN) {
                self.leave_group(group);
                let group = self.group(key, header.mount);
                self.row_mut(row).group = group;
            }
            self.row_mut(row).due = header.due.0;
            return row;
        }
        let row = self.place_new(key, header);
        self.enter(row, hash(key));
        row
    }

    /// Places a row whose key is not there; it is not found before it was entered.
    fn place_new(&mut self, key: &[u8], header: &Header) -> u32 {
        let group = self.group(key, header.mount);
        let tail = &key[split(key)..];
        let mut fresh = Row { group, tail_len: tail.len() as u8, due: header.due.0, ..FREE };
        fresh.tail[..tail.len()].copy_from_slice(tail);
        let row = self.place(fresh);
        self.chain(row, header.owner);
        self.len += 1;
        row
    }

    /// Removes a row; answers the number that is free now.
    pub fn remove(&mut self, key: &[u8]) -> Option<u32> {
        let row = self.find(key)?;
        self.leave(row, hash(key));
        self.unchain(row);
        let group = self.row(row).group;
        self.leave_group(group);
        let free = self.free;
        *self.row_mut(row) = Row { next: free, ..FREE };
        self.free = row;
        self.len -= 1;
        Some(row)
    }

    /// The number of a row.
    pub fn find(&self, key: &[u8]) -> Option<u32> {
        let h = hash(key);
        self.shards[shard_of(h)].find(h, |row| self.is(*row, key)).copied()
    }

    /// The key of a row.
    pub fn key(&self, row: u32) -> Vec<u8> {
        let r = self.row(row);
        let head = &self.groups[r.group as usize].head;
        let mut key = Vec::with_capacity(head.len() + TAIL);
        key.extend_from_slice(head);
        key.extend_from_slice(&r.tail[..usize::from(r.tail_len)]);
        key
    }

    /// When a row is due; zero = never.
    pub fn due(&self, row: u32) -> Wall {
        Wall(self.row(row).due)
    }

    /// True if anything names this owner.
    pub fn has_owned(&self, owner: &Hash) -> bool {
        self.owners.contains_key(owner)
    }

    /// How many rows name this owner.
    pub fn owned_count(&self, owner: &Hash) -> usize {
        self.owners.get(owner).map_or(0, |c| c.count as usize)
    }

    /// Rows that name this owner.
    pub fn owned(&self, owner: &Hash) -> impl Iterator<Item = u32> + '_ {
        let mut at = self.owners.get(owner).map_or(NONE, |c| c.head);
        std::iter::from_fn(move || {
            let row = at;
            (row != NONE).then(|| {
                at = self.row(row).next;
                row
            })
        })
    }

    /// Everything that is an owner.
    pub fn owners(&self) -> impl Iterator<Item = &Hash> {
        self.owners.keys()
    }

    /// Looks at `places` numbers from `from` on and answers the tokens of a mount among them, and where to go on
    /// (`None` at the end).
    pub fn tokens_of(&self, mount: MountId, from: u32, places: u32) -> (Vec<u32>, Option<u32>) {
        let of_mount = self.group_ids.get(&mount);
        let Some(&group) = of_mount.and_then(|g| g.get(&[tables::TOKEN][..])) else { return (Vec::new(), None) };
        let end = from.saturating_add(places).min(self.top);
        let found = (from..end).filter(|row| self.row(*row).group == group).collect();
        (found, (end < self.top).then_some(end))
    }

    /// Rows held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn is(&self, row: u32, key: &[u8]) -> bool {
        let r = self.row(row);
        let head = &self.groups[r.group as usize].head;
        key.len() == head.len() + usize::from(r.tail_len)
            && key[head.len()..] == r.tail[..usize::from(r.tail_len)]
            && key.starts_with(head)
    }

    fn place(&mut self, fresh: Row) -> u32 {
        let row = if self.free == NONE {
            if self.top as usize == self.blocks.len() * BLOCK {
                self.blocks.push(Box::new([FREE; BLOCK]));
            }
            self.top += 1;
            self.top - 1
        } else {
            let row = self.free;
            self.free = self.row(row).next;
            row
        };
        *self.row_mut(row) = fresh;
        row
    }

    fn group(&mut self, key: &[u8], mount: MountId) -> u32 {
        let head = &key[..split(key)];
        let is_it = |g: &Group| g.rows > 0 && g.mount == mount && *g.head == *head;
        if let Some(id) = self.last_group.filter(|id| is_it(&self.groups[*id as usize])) {
            self.groups[id as usize].rows += 1;
            return id;
        }
        let of_mount = self.group_ids.entry(mount).or_default();
        if let Some(&id) = of_mount.get(head) {
            self.groups[id as usize].rows += 1;
            self.last_group = Some(id);
            return id;
        }
        let group = Group { mount, head: Box::from(head), rows: 1 };
        let id = match self.free_groups.pop() {
            Some(id) => {
                self.groups[id as usize] = group;
                id
            }
            None => {
                self.groups.push(group);
                (self.groups.len() - 1) as u32
            }
        };
        of_mount.insert(Box::from(head), id);
        self.last_group = Some(id);
        id
    }

    fn leave_group(&mut self, id: u32) {
        let group = &mut self.groups[id as usize];
        group.rows -= 1;
        if group.rows > 0 {
            return;
        }
        if let Some(of_mount) = self.group_ids.get_mut(&group.mount) {
            of_mount.remove(&group.head);
            if of_mount.is_empty() {
                self.group_ids.remove(&group.mount);
            }
        }
        self.free_groups.push(id);
    }

    fn chain(&mut self, row: u32, owner: Hash) {
        self.row_mut(row).owner = owner;
        if owner == EMPTY_OWNER {
            return;
        }
        let chain = self.owners.entry(owner).or_insert(Chain { head: NONE, count: 0 });
        let head = chain.head;
        *chain = Chain { head: row, count: chain.count + 1 };
        let r = self.row_mut(row);
        (r.next, r.previous) = (head, NONE);
        if head != NONE {
            self.row_mut(head).previous = row;
        }
    }

    fn unchain(&mut self, row: u32) {
        let Row { owner, next, previous, .. } = *self.row(row);
        if owner == EMPTY_OWNER {
            return;
        }
        if next != NONE {
            self.row_mut(next).previous = previous;
        }
        if previous != NONE {
            self.row_mut(previous).next = next;
        }
        let chain = self.owners.get_mut(&owner).expect("the owner of a chained row has a chain");
        chain.count -= 1;
        if previous == NONE {
            chain.head = next;
        }
        if chain.count == 0 {
            self.owners.remove(&owner);
        }
        let r = self.row_mut(row);
        (r.next, r.previous, r.owner) = (NONE, NONE, EMPTY_OWNER);
    }

    fn enter(&mut self, row: u32, h: u64) {
        let (blocks, groups) = (&self.blocks, &self.groups);
        let rehash = |other: &u32| {
            let r = &blocks[*other as usize / BLOCK][*other as usize % BLOCK];
            hash_of(&groups[r.group as usize].head, &r.tail[..usize::from(r.tail_len)])
        };
        self.shards[shard_of(h)].insert_unique(h, row, rehash);
    }

    /// Takes a row's number out of its table.
    fn leave(&mut self, row: u32, h: u64) {
        let entry = self.shards[shard_of(h)].find_entry(h, |other| *other == row);
        entry.expect("a row that is held stands in its table").remove();
    }

    fn row(&self, row: u32) -> &Row {
        &self.blocks[row as usize / BLOCK][row as usize % BLOCK]
    }

    fn row_mut(&mut self, row: u32) -> &mut Row {
        &mut self.blocks[row as usize / BLOCK][row as usize % BLOCK]
    }
}

/// Where the inline part of a key begins.
fn split(key: &[u8]) -> usize {
    match key.first() {
        Some(&tables::TOKEN) => 1,
        _ => key.len() - key.len().min(TAIL),
    }
    .max(key.len().saturating_sub(TAIL))
}

/// Fixed for all processes: the end of nearly every key is random or a keyed hash.
fn hash(key: &[u8]) -> u64 {
    let (head, tail) = key.split_at(split(key));
    hash_of(head, tail)
}

/// Of a key in its two parts: table and mount from the head, all of the tail.
fn hash_of(head: &[u8], tail: &[u8]) -> u64 {
    let word = |bytes: &[u8]| {
        let mut eight = [0; 8];
        eight[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(eight)
    };
    // both halves of a wide product, folded: every bit of a word reaches every bit of the hash
    let mix = |h: u64, w: u64| {
        let product = u128::from(h ^ w) * 0x2437_54a5_885a_308d_u128;
        (product >> 64) as u64 ^ product as u64
    };
    let h = mix(0xa409_3822_299f_31d0 ^ tail.len() as u64, word(&head[..head.len().min(5)]));
    tail.chunks(8).fold(h, |h, chunk| mix(h, word(chunk)))
}

fn shard_of(h: u64) -> usize {
    // hashbrown takes its tags from the top bits and its places from the low ones
    (h >> 40) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key_of(n: u8, kind: u8) -> Vec<u8> {
        match kind % 3 {
            0 => tables::token(&[n; 16]),
            1 => tables::lease(MountId(7), &format!("creds/{}/{:024}", n % 3, n)),
            // a short key, all of it inline
            _ => tables::lease(MountId(1), &format!("{n}")),
        }
    }

    fn header_of(owner: u8, due: u64, mount: u32) -> Header {
        Header { due: Wall(due), owner: [owner; 16], mount: MountId(mount) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn it_holds_what_a_map_holds(
            acts in prop::collection::vec((any::<bool>(), 0u8..20, 0u8..3, 0u8..4, 0u64..9, 1u32..3), 0..200)
        ) {
            let mut rows = Rows::default();
            let mut model: BTreeMap<Vec<u8>, Header> = BTreeMap::new();
            for (put, n, kind, owner, due, mount) in acts {
                let (key, header) = (key_of(n, kind), header_of(owner, due, mount));
                if put {
                    let row = rows.put(&key, &header);
                    prop_assert_eq!(rows.key(row), key.clone());
                    model.insert(key, header);
                } else {
                    prop_assert_eq!(rows.remove(&key).is_some(), model.remove(&key).is_some());
                }
                prop_assert_eq!(rows.len(), model.len());
            }
            for (key, header) in &model {
                let row = rows.find(key);
                prop_assert!(row.is_some());
                prop_assert_eq!(row.map(|r| rows.due(r)), Some(header.due));
            }
            for owner in 1..4u8 {
                let mut got: Vec<Vec<u8>> = rows.owned(&[owner; 16]).map(|r| rows.key(r)).collect();
                got.sort();
                let want: Vec<Vec<u8>> =
                    model.iter().filter(|(_, h)| h.owner == [owner; 16]).map(|(k, _)| k.clone()).collect();
                prop_assert_eq!(rows.owned_count(&[owner; 16]), want.len());
                prop_assert_eq!(got, want);
            }
            prop_assert!(!rows.has_owned(&EMPTY_OWNER));
            for mount in 1..3u32 {
                let mut got = Vec::new();
                let mut from = Some(0);
                while let Some(at) = from {
                    let (found, next) = rows.tokens_of(MountId(mount), at, 7);
                    got.extend(found.into_iter().map(|r| rows.key(r)));
                    from = next;
                }
                got.sort();
                let of_mount = |k: &[u8], h: &Header| k[0] == tables::TOKEN && h.mount == MountId(mount);
                let want: Vec<Vec<u8>> =
                    model.iter().filter(|(k, h)| of_mount(k, h)).map(|(k, _)| k.clone()).collect();
                prop_assert_eq!(got, want);
            }
        }
    }

    #[test]
    fn rows_loaded_at_once_are_those_put_one_by_one() {
        let (mut loaded, mut plain) = (Rows::default(), Rows::default());
        let key = |n: u32| tables::lease(MountId(n % 3), &format!("creds/{}/{n:024}", n % 7));
        let header = |n: u32| header_of((n % 5) as u8, u64::from(n), 1);
        let keys: Vec<Vec<u8>> = (0..50_000).map(key).collect();
        let mut shown = Vec::new();
        loaded.load(keys.iter().zip(0..).map(|(k, n)| (&k[..], header(n))), |row, h| shown.push((row, h.due)));
        for (n, key) in (0..).zip(&keys) {
            let row = plain.put(key, &header(n));
            assert_eq!(shown[n as usize], (row, header(n).due));
            assert_eq!(loaded.find(key), Some(row));
        }
        assert_eq!((loaded.len(), loaded.owned_count(&[2; 16])), (plain.len(), plain.owned_count(&[2; 16])));
        // what was loaded goes on as if it had been put
        for key in &keys[..40_000] {
            assert!(loaded.remove(key).is_some());
        }
        let again = loaded.put(&keys[7], &header(7));
        assert_eq!((loaded.find(&keys[7]), loaded.find(&keys[8]), loaded.len()), (Some(again), None, 10_001));
    }

    #[test]
    fn a_row_is_small() {
        assert!(std::mem::size_of::<Row>() <= 64, "{} bytes", std::mem::size_of::<Row>());
    }
}
