//! Ordered walks over a tree, from either end.
//!
//! A [`Cursor`] is a gap between two entries. A [`Scan`] knows by rank how many entries it has left, so it never
//! compares a key once it runs, its length is exact, and the two ends meet without looking at each other.

use std::ops::Bound;

use crate::node::{Branch, Inner, Kid};
use crate::page::{Entry, View};
use crate::tree::Tree;

/// A gap in the order of keys.
#[derive(Clone, Copy)]
pub(crate) enum Gap<'k> {
    /// Before everything.
    Start,
    /// Before the key, there or not.
    Before(&'k [u8]),
    /// After the key, there or not.
    After(&'k [u8]),
    /// After everything.
    End,
}

impl<'k> Gap<'k> {
    /// Where a range with this lower bound starts.
    pub(crate) fn lower(bound: Bound<&'k [u8]>) -> Gap<'k> {
        match bound {
            Bound::Unbounded => Gap::Start,
            Bound::Included(key) => Gap::Before(key),
            Bound::Excluded(key) => Gap::After(key),
        }
    }

    /// Where a range with this upper bound ends.
    pub(crate) fn upper(bound: Bound<&'k [u8]>) -> Gap<'k> {
        match bound {
            Bound::Unbounded => Gap::End,
            Bound::Included(key) => Gap::After(key),
            Bound::Excluded(key) => Gap::Before(key),
        }
    }
}

/// The first key after all those that begin with `prefix`, if there is one.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut next = prefix[..=keep].to_vec();
    next[keep] += 1;
    Some(next)
}

/// Number of entries before a gap.
pub(crate) fn rank(tree: &Tree, gap: Gap<'_>) -> u64 {
    match gap {
        Gap::Start => 0,
        Gap::End => tree.len(),
        Gap::Before(key) | Gap::After(key) => {
            let (mut branch, mut before) = (tree.root(), 0);
            loop {
                match &branch.kid {
                    Kid::Leaf(page) => return before + place(page.view(), gap, key) as u64,
                    Kid::Inner(node) => {
                        let at = node.find(key);
                        before += node.branches().take(at).map(|b| b.entries).sum::<u64>();
                        branch = node.branch(at);
                    }
                }
            }
        }
    }
}

fn place(view: View<'_>, gap: Gap<'_>, key: &[u8]) -> usize {
    match view.find(key) {
        Ok(at) => at + usize::from(matches!(gap, Gap::After(_))),
        Err(at) => at,
    }
}

struct Cursor<'a> {
    /// The nodes above the page and which of their branches was taken.
    path: Vec<(&'a Inner, usize)>,
    page: View<'a>,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The gap that has `rank` entries before it.
    fn at_rank(tree: &'a Tree, mut rank: u64) -> Cursor<'a> {
        let (mut branch, mut path) = (tree.root(), Vec::with_capacity(8));
        loop {
            match &branch.kid {
                Kid::Leaf(page) => return Cursor { path, page: page.view(), at: rank as usize },
                Kid::Inner(node) => {
                    let mut at = 0;
                    while rank > node.branch(at).entries {
                        rank -= node.branch(at).entries;
                        at += 1;
                    }
                    path.push((&**node, at));
                    branch = node.branch(at);
                }
            }
        }
    }

    /// The entry after the gap; the gap moves behind it.
    fn next(&mut self) -> Option<Entry<'a>> {
        while self.at >= self.page.count() {
            self.turn(|node, at| (at + 1 < node.count()).then_some(at + 1), |_| 0)?;
            self.at = 0;
        }
        self.at += 1;
        Some(self.page.entry(self.at - 1))
    }

    /// The entry before the gap; the gap moves before it.
    fn previous(&mut self) -> Option<Entry<'a>> {
        while self.at == 0 {
            self.turn(|_, at| at.checked_sub(1), |node| node.count() - 1)?;
            self.at = self.page.count();
        }
        self.at -= 1;
        Some(self.page.entry(self.at))
    }

    /// Moves to the neighbouring page: up until a node has a branch beside the one taken, then down its near edge.
    fn turn(
        &mut self,
        beside: impl Fn(&Inner, usize) -> Option<usize>,
        edge: impl Fn(&Inner) -> usize,
    ) -> Option<()> {
        let up = self.path.iter().rposition(|(node, at)| beside(node, *at).is_some())?;
        self.path.truncate(up + 1);
        let (node, at) = self.path.pop()?;
        let at = beside(node, at)?;
        self.path.push((node, at));
        let mut branch: &'a Branch = node.branch(at);
        loop {
            match &branch.kid {
                Kid::Leaf(page) => {
                    self.page = page.view();
                    return Some(());
                }
                Kid::Inner(node) => {
                    let at = edge(node);
                    self.path.push((&**node, at));
                    branch = node.branch(at);
                }
            }
        }
    }
}

/// An ordered walk over the entries of a range; ascending from the front, descending from the back.
pub struct Scan<'a> {
    tree: &'a Tree,
    /// Rank of the first entry not yet yielded in front.
    first: u64,
    left: u64,
    front: Option<Cursor<'a>>,
    back: Option<Cursor<'a>>,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(tree: &'a Tree, from: Gap<'_>, to: Gap<'_>) -> Scan<'a> {
        let first = rank(tree, from);
        Scan { tree, first, left: rank(tree, to).saturating_sub(first), front: None, back: None }
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let entry = self.front.get_or_insert_with(|| Cursor::at_rank(self.tree, self.first)).next();
        self.first += 1;
        entry
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }

    /// Skips by rank, without walking.
    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        let skipped = (n as u64).min(self.left);
        if skipped > 0 {
            self.first += skipped;
            self.left -= skipped;
            self.front = None;
        }
        self.next()
    }
}

impl DoubleEndedIterator for Scan<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let end = self.first + self.left;
        self.left = self.left.checked_sub(1)?;
        self.back.get_or_insert_with(|| Cursor::at_rank(self.tree, end)).previous()
    }
}

impl ExactSizeIterator for Scan<'_> {}
impl std::iter::FusedIterator for Scan<'_> {}
