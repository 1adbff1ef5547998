//! Inner nodes: up to [`FAN`] branches and the separators between them.
//!
//! All keys below branch `i` are at or above separator `i` and below separator `i + 1`; separator 0 is what the parent
//! says and is never looked at. Separators are the shortest strings that separate. A branch carries how many entries
//! hang below it (ranks and counts come from that) and the index of the last change below it (a checkpoint skips what
//! stands still).

use std::sync::Arc;

use crate::page::{Entry, PAGE_BYTES, Page, head, shared_prefix};

/// Most branches of a node. A write copies the nodes above its page and counts a reference per branch, which is what
/// bounds it; a narrow tree is deeper.
pub(crate) const FAN: usize = if cfg!(test) { 8 } else { 32 };

/// Most branches of a node above pages. Lower than [`FAN`], because the references counted there lie in as many cold
/// cache lines.
pub(crate) const PAGE_FAN: usize = if cfg!(test) { 6 } else { 16 };

/// What a branch leads to.
#[derive(Clone)]
pub(crate) enum Kid {
    Leaf(Page),
    Inner(Arc<Inner>),
}

/// A subtree.
#[derive(Clone)]
pub(crate) struct Branch {
    pub(crate) kid: Kid,
    /// Entries below.
    pub(crate) entries: u64,
    /// Invariant: no smaller than the index of any change of a key in the subtree's range.
    pub(crate) changed: u64,
}

/// A subtree and the separator before it.
pub(crate) struct Part {
    pub(crate) separator: Vec<u8>,
    pub(crate) branch: Branch,
}

/// A node; everything that a search reads stands in one allocation, save separators whose heads tie.
#[derive(Clone)]
pub(crate) struct Inner {
    count: u16,
    /// Leading bytes that all separators but the first share.
    prefix: u16,
    /// The first bytes of the shared prefix.
    lead: [u8; LEAD],
    /// Invariant: ascending from 1 to `count`.
    heads: [u64; FAN],
    /// Where each separator ends in `separators`.
    ends: [u32; FAN],
    branches: [Option<Branch>; FAN],
    separators: Arc<[u8]>,
}

/// A prefix up to this is compared without leaving the node.
const LEAD: usize = 20;

impl Branch {
    pub(crate) fn leaf(page: Page, changed: u64) -> Branch {
        Branch { entries: page.view().count() as u64, kid: Kid::Leaf(page), changed }
    }

    /// A node over parts, of which there are 1 to [`FAN`].
    pub(crate) fn over(parts: Vec<Part>) -> Branch {
        let entries = parts.iter().map(|p| p.branch.entries).sum();
        let changed = parts.iter().map(|p| p.branch.changed).max().unwrap_or(0);
        Branch { kid: Kid::Inner(Arc::new(Inner::new(parts))), entries, changed }
    }

    /// Most branches that a node over branches like this may have.
    pub(crate) fn fan_above(&self) -> usize {
        match self.kid {
            Kid::Leaf(_) => PAGE_FAN,
            Kid::Inner(_) => FAN,
        }
    }

    /// True if the two neighbours fit into one with room to spare.
    fn joins(&self, right: &Branch) -> bool {
        match (&self.kid, &right.kid) {
            (Kid::Leaf(a), Kid::Leaf(b)) => a.view().live() + b.view().live() <= PAGE_BYTES * 3 / 4,
            (Kid::Inner(a), Kid::Inner(b)) => a.count() + b.count() <= a.fan() * 3 / 4,
            _ => false,
        }
    }

    /// Joins two neighbours of the same level.
    fn join(self, right: Part, scratch: &mut Vec<u8>) -> Branch {
        let changed = self.changed.max(right.branch.changed);
        let mut joined = match (self.kid, right.branch.kid) {
            (Kid::Leaf(a), Kid::Leaf(b)) => {
                let entries: Vec<Entry<'_>> = a.view().entries().chain(b.view().entries()).collect();
                Branch::leaf(Page::build(&entries, 0, scratch), changed)
            }
            (Kid::Inner(a), Kid::Inner(b)) => {
                let mut parts = Arc::unwrap_or_clone(a).take_parts();
                let mut others = Arc::unwrap_or_clone(b).take_parts();
                others[0].separator = right.separator;
                parts.append(&mut others);
                Branch::over(parts)
            }
            _ => ringfence_base::invariant::broken(format_args!("siblings differ in height"), file!(), line!()),
        };
        joined.changed = changed;
        joined
    }
}

impl Inner {
    /// A node over 1 to [`FAN`] parts.
    pub(crate) fn new(parts: Vec<Part>) -> Inner {
        let count = parts.len();
        ringfence_base::invariant!((1..=FAN).contains(&count), "a node of {count} branches");
        let prefix = match &parts[1..] {
            [] => 0,
            [first, .., last] => shared_prefix(&first.separator, &last.separator),
            [only] => only.separator.len(),
        };
        let mut separators = Vec::with_capacity(parts.iter().map(|p| p.separator.len()).sum());
        let (mut heads, mut ends, mut lead) = ([u64::MAX; FAN], [0; FAN], [0; LEAD]);
        let mut branches = [const { None }; FAN];
        if let Some(first) = parts.get(1) {
            let n = prefix.min(LEAD);
            lead[..n].copy_from_slice(&first.separator[..n]);
        }
        for (i, part) in parts.into_iter().enumerate() {
            heads[i] = head(&part.separator, prefix);
            separators.extend_from_slice(&part.separator);
            ends[i] = separators.len() as u32;
            branches[i] = Some(part.branch);
        }
        let separators = Arc::from(separators);
        Inner { count: count as u16, prefix: prefix as u16, lead, heads, ends, branches, separators }
    }

    /// Most branches it may have.
    pub(crate) fn fan(&self) -> usize {
        self.branch(0).fan_above()
    }

    /// Number of branches.
    pub(crate) fn count(&self) -> usize {
        self.count as usize
    }

    /// The branch at a place.
    pub(crate) fn branch(&self, at: usize) -> &Branch {
        self.branches[at].as_ref().expect("a place below count has a branch")
    }

    /// The branch at a place, to be edited.
    pub(crate) fn branch_mut(&mut self, at: usize) -> &mut Branch {
        self.branches[at].as_mut().expect("a place below count has a branch")
    }

    /// All branches in order.
    pub(crate) fn branches(&self) -> impl Iterator<Item = &Branch> {
        self.branches[..self.count()].iter().flatten()
    }

    fn separator(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        &self.separators[start..self.ends[at] as usize]
    }

    #[cfg(test)]
    pub(crate) fn separator_at(&self, at: usize) -> &[u8] {
        self.separator(at)
    }

    /// The branch that a key belongs to.
    pub(crate) fn find(&self, key: &[u8]) -> usize {
        let (count, prefix) = (self.count(), self.prefix as usize);
        if count == 1 {
            return 0;
        }
        let own = &key[..prefix.min(key.len())];
        let lead = if prefix <= LEAD { &self.lead[..prefix] } else { &self.separator(1)[..prefix] };
        if own != lead {
            return if own < lead { 0 } else { count - 1 };
        }
        let heads = &self.heads[1..count];
        let wanted = head(key, prefix);
        // Every head is looked at, none is branched on: nodes are cold in a large image, and so their lines are
        // fetched side by side instead of one after another. Places beyond `count` hold the highest number.
        let low = self.heads[1..].iter().map(|h| usize::from(*h < wanted)).sum::<usize>().min(heads.len());
        let ties = heads[low..].iter().take_while(|h| **h == wanted).count();
        // Heads skip separator 0, so the number of separators at or below the key is the branch's place.
        low + (low..low + ties).take_while(|i| self.separator(i + 1) <= key).count()
    }

    /// Takes the node apart; it is to be replaced afterwards.
    pub(crate) fn take_parts(&mut self) -> Vec<Part> {
        let mut parts = Vec::with_capacity(FAN + 2);
        for i in 0..self.count() {
            let separator = self.separator(i).to_vec();
            let branch = self.branches[i].take().expect("a place below count has a branch");
            parts.push(Part { separator, branch });
        }
        parts
    }

    /// Joins the thin branch at `at` with a neighbour if they fit together.
    pub(crate) fn mend(&mut self, at: usize, scratch: &mut Vec<u8>) {
        let fits = |left: usize| self.branch(left).joins(self.branch(left + 1));
        let left = if at + 1 < self.count() && fits(at) {
            at
        } else if at > 0 && fits(at - 1) {
            at - 1
        } else {
            return;
        };
        let mut parts = self.take_parts();
        let right = parts.remove(left + 1);
        let Part { separator, branch } = parts.remove(left);
        parts.insert(left, Part { separator, branch: branch.join(right, scratch) });
        *self = Inner::new(parts);
    }

    /// Loads the reference counts of all branches at once. Cloning a node adds to each of them by a locked
    /// instruction, which waits for its cache line before the next one starts; plain loads overlap.
    pub(crate) fn warm(&self) {
        let sum = self.branches().fold(0usize, |sum, branch| {
            sum.wrapping_add(match &branch.kid {
                Kid::Leaf(page) => page.warm(),
                Kid::Inner(node) => Arc::strong_count(node),
            })
        });
        std::hint::black_box(sum);
    }
}
