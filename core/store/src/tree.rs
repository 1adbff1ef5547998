//! The persistent tree: pages below inner nodes, all shared by reference count.
//!
//! Driven by `Image`, read by `Version`. A write walks down once; whatever it passes that somebody shares is copied,
//! the rest is edited in place. Splits and joins are reported to the parent as the list of parts that replace a
//! branch. The shape depends on the history of writes alone, never on who shares what. It is as deep as the logarithm
//! of its size, so recursion and drops stay shallow.

use std::sync::Arc;

use crate::node::{Branch, Inner, Kid, Part};
use crate::page::{BIG_ENTRY_BYTES, Entry, PAGE_BYTES, Page, THIN_PAGE_BYTES, entry_bytes, shared_prefix};

/// A map from keys to values; cloning is O(1) and shares everything.
#[derive(Clone)]
pub(crate) struct Tree {
    root: Branch,
    /// Invariant: the sum of the lengths of all keys and values.
    payload: u64,
}

/// What became of a branch.
enum Shape {
    /// Still one branch of a fair size.
    Fair,
    /// One branch that its neighbour could swallow.
    Thin,
    /// To be replaced by these, in order; the first takes the old separator. None: nothing is left.
    Parts(Vec<Part>),
}

/// A write under way.
struct Edit<'a> {
    key: &'a [u8],
    value: Option<&'a [u8]>,
    at: u64,
    scratch: &'a mut Vec<u8>,
    /// Length of the value that was there.
    old: Option<usize>,
}

impl Tree {
    pub(crate) fn new() -> Tree {
        Tree { root: Branch::leaf(Page::empty(), 0), payload: 0 }
    }

    /// A tree over branches of equal height as the builder leaves them.
    pub(crate) fn from_root(root: Branch, payload: u64) -> Tree {
        Tree { root, payload }
    }

    pub(crate) fn root(&self) -> &Branch {
        &self.root
    }

    pub(crate) fn into_root(self) -> Branch {
        self.root
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> u64 {
        self.root.entries
    }

    /// Sum of the lengths of all keys and values.
    pub(crate) fn payload(&self) -> u64 {
        self.payload
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let mut branch = &self.root;
        loop {
            match &branch.kid {
                Kid::Leaf(page) => return page.view().get(key),
                Kid::Inner(node) => branch = node.branch(node.find(key)),
            }
        }
    }

    /// Puts a value at index `at`.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], at: u64, scratch: &mut Vec<u8>) {
        let mut edit = Edit { key, value: Some(value), at, scratch, old: None };
        let shape = edit.branch(&mut self.root);
        self.payload += value.len() as u64;
        match edit.old {
            Some(old) => self.payload -= old as u64,
            None => self.payload += key.len() as u64,
        }
        self.settle(shape, at);
    }

    /// Deletes a key at index `at`; one that is not there copies nothing.
    pub(crate) fn delete(&mut self, key: &[u8], at: u64, scratch: &mut Vec<u8>) {
        if self.get(key).is_none() {
            return;
        }
        let mut edit = Edit { key, value: None, at, scratch, old: None };
        let shape = edit.branch(&mut self.root);
        let old = edit.old.expect("the key was found above");
        self.payload -= (key.len() + old) as u64;
        self.settle(shape, at);
    }

    /// Makes the root of what became of it.
    fn settle(&mut self, shape: Shape, at: u64) {
        match shape {
            Shape::Fair => {}
            Shape::Thin => {
                while let Kid::Inner(node) = &self.root.kid
                    && node.count() == 1
                {
                    let only = node.branch(0).clone();
                    self.root = Branch { changed: self.root.changed, ..only };
                }
            }
            Shape::Parts(parts) if parts.is_empty() => self.root = Branch::leaf(Page::empty(), at),
            Shape::Parts(parts) => self.root = Branch::over(parts),
        }
    }

    /// An upper bound of the index of the last change in `from..to` (absent: no bound), exact to a page.
    pub(crate) fn changed_within(&self, from: Option<&[u8]>, to: Option<&[u8]>) -> u64 {
        changed_below(&self.root, from, to)
    }

    /// Walks all pages and nodes and asserts the order, the counts and the sums.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let mut payload = 0;
        check_branch(&self.root, None, None, &mut payload);
        assert_eq!(payload, self.payload);
    }
}

fn changed_below(branch: &Branch, from: Option<&[u8]>, to: Option<&[u8]>) -> u64 {
    let Kid::Inner(node) = &branch.kid else {
        return branch.changed;
    };
    let (first, last) = match (from, to) {
        (None, None) => return branch.changed,
        (from, to) => (from.map_or(0, |k| node.find(k)), to.map_or(node.count() - 1, |k| node.find(k))),
    };
    if first == last {
        return changed_below(node.branch(first), from, to);
    }
    let between = (first + 1..last).map(|i| node.branch(i).changed).max().unwrap_or(0);
    let edges =
        changed_below(node.branch(first), from, None).max(changed_below(node.branch(last.max(first)), None, to));
    edges.max(between)
}

impl Edit<'_> {
    fn branch(&mut self, branch: &mut Branch) -> Shape {
        branch.changed = branch.changed.max(self.at);
        match &mut branch.kid {
            Kid::Leaf(page) => {
                let shape = self.page(page, branch.changed);
                branch.entries = page.view().count() as u64;
                shape
            }
            Kid::Inner(node) => {
                if Arc::get_mut(node).is_none() {
                    node.warm();
                }
                let node = Arc::make_mut(node);
                let at = node.find(self.key);
                match self.branch(node.branch_mut(at)) {
                    Shape::Fair => {}
                    Shape::Thin => node.mend(at, self.scratch),
                    Shape::Parts(parts) => {
                        if let Some(parts) = self.splice(node, at, parts) {
                            return Shape::Parts(parts);
                        }
                    }
                }
                branch.entries = match self.value {
                    Some(_) if self.old.is_none() => branch.entries + 1,
                    None => branch.entries - 1,
                    Some(_) => branch.entries,
                };
                if node.count() < node.fan() / 4 { Shape::Thin } else { Shape::Fair }
            }
        }
    }

    /// Replaces one branch by others. Returns the parts of the node itself if it no longer is one node.
    fn splice(&self, node: &mut Inner, at: usize, mut replacing: Vec<Part>) -> Option<Vec<Part>> {
        let mut parts = node.take_parts();
        match replacing.first_mut() {
            Some(first) => first.separator = std::mem::take(&mut parts[at].separator),
            // Its range falls to the branch on its left, or right if it was the first: so does the change.
            None if at > 0 => inherit_change(&mut parts[at - 1].branch, self.at, |node| node.count() - 1),
            None => {
                if let Some(heir) = parts.get_mut(1) {
                    inherit_change(&mut heir.branch, self.at, |_| 0);
                }
            }
        }
        let grown_at_end = at + 1 == parts.len();
        parts.splice(at..=at, replacing);
        if parts.is_empty() {
            return Some(parts);
        }
        let fan = parts[0].branch.fan_above();
        if parts.len() <= fan {
            *node = Inner::new(parts);
            return None;
        }
        // Ascending writes leave full nodes behind them, all others get halves.
        let cut = if grown_at_end { fan - fan / 8 } else { parts.len() / 2 };
        let right = parts.split_off(cut);
        let separator = right[0].separator.clone();
        let left = Part { separator: Vec::new(), branch: Branch::over(parts) };
        Some(vec![left, Part { separator, branch: Branch::over(right) }])
    }

    fn page(&mut self, page: &mut Page, changed: u64) -> Shape {
        let view = page.view();
        let found = view.find(self.key);
        let old_bytes = match found {
            Ok(at) => {
                let (key, value) = view.entry(at);
                self.old = Some(value.len());
                entry_bytes(key, value)
            }
            Err(_) => 0,
        };
        let Some(value) = self.value else {
            let at = found.expect("a delete was looked up first");
            if view.count() == 1 {
                return Shape::Parts(Vec::new());
            }
            page.remove(at, self.scratch);
            return if page.view().live() < THIN_PAGE_BYTES { Shape::Thin } else { Shape::Fair };
        };
        let new_bytes = entry_bytes(self.key, value);
        let count = view.count() + usize::from(found.is_err());
        let fits = view.live() - old_bytes + new_bytes <= PAGE_BYTES && new_bytes <= BIG_ENTRY_BYTES;
        match found {
            Ok(at) if fits || count == 1 => page.replace(at, self.key, value, self.scratch),
            Err(at) if fits || count == 1 => page.insert(at, self.key, value, self.scratch),
            _ => return Shape::Parts(self.divide(page, found, value, changed)),
        }
        Shape::Fair
    }

    /// Divides a page that the entry does not fit into.
    fn divide(&mut self, page: &Page, found: Result<usize, usize>, value: &[u8], changed: u64) -> Vec<Part> {
        let view = page.view();
        if let (1, Err(at)) = (view.count(), found)
            && view.live() > BIG_ENTRY_BYTES
        {
            // A big entry keeps its page, untouched; the newcomer gets one beside it.
            let own = Page::build(&[(self.key, value)], 0, self.scratch);
            let (left, right) = if at == 0 { (own, page.clone()) } else { (page.clone(), own) };
            return parts_of(vec![left, right], changed);
        }
        let mut entries: Vec<Entry<'_>> = Vec::with_capacity(view.count() + 1);
        entries.extend(view.entries());
        let at = match found {
            Ok(at) => {
                entries[at] = (self.key, value);
                at
            }
            Err(at) => {
                entries.insert(at, (self.key, value));
                at
            }
        };
        let appended = at + 1 == entries.len();
        let pages =
            runs(&entries, appended).into_iter().map(|run| Page::build(&entries[run], 0, self.scratch)).collect();
        parts_of(pages, changed)
    }
}

/// Marks a branch as changed along one edge, down to the page there, whose range has grown by what was removed.
fn inherit_change(branch: &mut Branch, at: u64, edge: fn(&Inner) -> usize) {
    branch.changed = branch.changed.max(at);
    if let Kid::Inner(node) = &mut branch.kid {
        let node = Arc::make_mut(node);
        inherit_change(node.branch_mut(edge(node)), at, edge);
    }
}

/// Pages side by side with the shortest separators between them; the first has none.
fn parts_of(pages: Vec<Page>, changed: u64) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::with_capacity(pages.len());
    let mut last: Option<Vec<u8>> = None;
    for page in pages {
        let view = page.view();
        let separator = last.as_deref().map_or(Vec::new(), |last| separator(last, view.key(0)).to_vec());
        last = Some(view.key(view.count() - 1).to_vec());
        parts.push(Part { separator, branch: Branch::leaf(page, changed) });
    }
    parts
}

/// The shortest string above `left` and at or below `right`.
pub(crate) fn separator<'a>(left: &[u8], right: &'a [u8]) -> &'a [u8] {
    &right[..(shared_prefix(left, right) + 1).min(right.len())]
}

/// How to divide the entries of an overfull page: big ones alone, a run of small ones that is too long in two, evenly
/// unless it grew at its end, where more will come.
fn runs(entries: &[Entry<'_>], appended: bool) -> Vec<std::ops::Range<usize>> {
    let bytes = |i: usize| entry_bytes(entries[i].0, entries[i].1);
    let mut runs = Vec::new();
    let mut start = 0;
    while start < entries.len() {
        if bytes(start) > BIG_ENTRY_BYTES {
            runs.push(start..start + 1);
            start += 1;
            continue;
        }
        let end = (start..entries.len()).find(|i| bytes(*i) > BIG_ENTRY_BYTES).unwrap_or(entries.len());
        let total: usize = (start..end).map(bytes).sum();
        if total <= PAGE_BYTES - 16 {
            runs.push(start..end);
        } else if appended && end == entries.len() {
            runs.push(start..end - 1);
            runs.push(end - 1..end);
        } else {
            let (mut cut, mut left) = (start, 0);
            while left < total / 2 && (left + bytes(cut) <= PAGE_BYTES - 16 || cut == start) {
                left += bytes(cut);
                cut += 1;
            }
            runs.push(start..cut);
            runs.push(cut..end);
        }
        start = end;
    }
    runs
}

#[cfg(test)]
fn check_branch(branch: &Branch, from: Option<&[u8]>, to: Option<&[u8]>, payload: &mut u64) {
    match &branch.kid {
        Kid::Leaf(page) => {
            let view = page.view();
            assert_eq!(view.count() as u64, branch.entries);
            assert!(view.live() <= PAGE_BYTES || view.count() == 1, "overfull page: {}", view.live());
            for i in 0..view.count() {
                let (key, value) = view.entry(i);
                *payload += (key.len() + value.len()) as u64;
                assert!(i == 0 || view.key(i - 1) < key);
                assert!(from.is_none_or(|f| f <= key) && to.is_none_or(|t| key < t));
                assert_eq!(view.find(key), Ok(i));
            }
        }
        Kid::Inner(node) => {
            assert_eq!(node.branches().map(|b| b.entries).sum::<u64>(), branch.entries);
            assert!(node.branches().all(|b| b.changed <= branch.changed));
            for i in 0..node.count() {
                let low = if i == 0 { from } else { Some(node.separator_at(i)) };
                let high = if i + 1 == node.count() { to } else { Some(node.separator_at(i + 1)) };
                check_branch(node.branch(i), low, high, payload);
            }
        }
    }
}
