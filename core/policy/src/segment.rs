//! Patterns with `+` in a tree of segments.
//!
//! Every rule has a rank, fixed when it is compiled, so the search is for the highest rank that matches. A node knows
//! the highest rank below it and is not entered when something better was found. Each node is visited at most once a
//! look-up: the worst case is linear in the rules, as a list of them would be.

use std::cmp::Ordering;

use crate::radix::NONE;

/// One segment of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Segment<'a> {
    /// This text.
    Literal(&'a str),
    /// `+`: any one segment that is not empty.
    Any,
}

/// A pattern to insert: whole segments, then the beginning of another if it ends in `*`.
#[derive(Clone, Debug)]
pub(crate) struct Pattern<'a> {
    pub segments: Vec<Segment<'a>>,
    /// `a/+/fo*` has `fo` here, `a/+/*` the empty text.
    pub glob: Option<&'a str>,
}

#[derive(Debug)]
pub(crate) struct SegmentTree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Sorted by text.
    literals: Vec<Literal>,
    any: Option<u32>,
    end: Option<Leaf>,
    /// By the text that the next segment begins with.
    globs: Vec<(Box<str>, Leaf)>,
    /// Highest rank at or below this node.
    best: u32,
}

/// A child by its segment's text. The first bytes stand beside it, so that a search rarely follows a pointer.
#[derive(Debug)]
struct Literal {
    head: u64,
    text: Box<str>,
    child: u32,
}

#[derive(Clone, Copy, Debug)]
struct Leaf {
    rank: u32,
    rule: u32,
}

/// What a search found: the rule with the highest rank, [`NONE`] with rank zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Best {
    pub rank: u32,
    pub rule: u32,
}

impl SegmentTree {
    pub fn new() -> SegmentTree {
        SegmentTree { nodes: vec![Node::default()] }
    }

    /// Ranks begin at 1. A pattern is inserted once.
    pub fn insert(&mut self, pattern: &Pattern<'_>, rank: u32, rule: u32) {
        let mut at = 0usize;
        self.raise(at, rank);
        for segment in &pattern.segments {
            at = self.descend(at, *segment);
            self.raise(at, rank);
        }
        let leaf = Leaf { rank, rule };
        match pattern.glob {
            Some(text) => self.nodes[at].globs.push((text.into(), leaf)),
            None => self.nodes[at].end = Some(leaf),
        }
    }

    fn raise(&mut self, at: usize, rank: u32) {
        let node = &mut self.nodes[at];
        node.best = node.best.max(rank);
    }

    fn descend(&mut self, at: usize, segment: Segment<'_>) -> usize {
        let new = self.nodes.len() as u32;
        let child = match segment {
            Segment::Any => *self.nodes[at].any.get_or_insert(new),
            Segment::Literal(text) => {
                let head = head_of(text);
                let literals = &mut self.nodes[at].literals;
                match literals.binary_search_by(|l| l.order(head, text)) {
                    Ok(i) => literals[i].child,
                    Err(i) => {
                        literals.insert(i, Literal { head, text: text.into(), child: new });
                        new
                    }
                }
            }
        };
        if child == new {
            self.nodes.push(Node::default());
        }
        child as usize
    }

    fn literal(&self, node: &Node, text: &str) -> Option<u32> {
        let head = head_of(text);
        node.literals.binary_search_by(|l| l.order(head, text)).ok().map(|i| node.literals[i].child)
    }

    /// The matching rule of the highest rank, if it is above `best`'s.
    pub fn find(&self, path: &str, mut best: Best) -> Best {
        self.search(0, Some(path), &mut best);
        best
    }

    /// `rest` is what follows the segments consumed; `None` after the last. Depth is bounded by the path's segments.
    fn search(&self, at: u32, rest: Option<&str>, best: &mut Best) {
        let node = &self.nodes[at as usize];
        if node.best <= best.rank {
            return;
        }
        let Some(rest) = rest else {
            if let Some(leaf) = node.end {
                best.take(leaf);
            }
            return;
        };
        for (text, leaf) in &node.globs {
            if rest.starts_with(&**text) {
                best.take(*leaf);
            }
        }
        let (segment, tail) = match rest.split_once('/') {
            Some((segment, tail)) => (segment, Some(tail)),
            None => (rest, None),
        };
        if let Some(child) = self.literal(node, segment) {
            self.search(child, tail, best);
        }
        if let Some(child) = node.any.filter(|_| !segment.is_empty()) {
            self.search(child, tail, best);
        }
    }

    /// True if the test holds for a rule that may match a path below `dir`, which ends in a slash or is empty.
    pub fn any_below(&self, dir: &str, test: impl Fn(u32) -> bool) -> bool {
        let mut open = vec![(0u32, dir)];
        while let Some((at, rest)) = open.pop() {
            let node = &self.nodes[at as usize];
            if rest.is_empty() {
                if node.end.is_some_and(|l| test(l.rule)) || node.globs.iter().any(|(_, l)| test(l.rule)) {
                    return true;
                }
                open.extend(node.literals.iter().map(|l| l.child).chain(node.any).map(|c| (c, "")));
                continue;
            }
            if node.globs.iter().any(|(text, l)| rest.starts_with(&**text) && test(l.rule)) {
                return true;
            }
            let (segment, tail) = rest.split_once('/').unwrap_or((rest, ""));
            open.extend(self.literal(node, segment).map(|c| (c, tail)));
            open.extend(node.any.filter(|_| !segment.is_empty()).map(|c| (c, tail)));
        }
        false
    }
}

impl Literal {
    fn order(&self, head: u64, text: &str) -> Ordering {
        self.head.cmp(&head).then_with(|| (*self.text).cmp(text))
    }
}

/// The first eight bytes as a number that orders as the text does; shorter texts are filled with zeros.
fn head_of(text: &str) -> u64 {
    let mut head = [0u8; 8];
    let n = text.len().min(8);
    head[..n].copy_from_slice(&text.as_bytes()[..n]);
    u64::from_be_bytes(head)
}

impl Best {
    /// Nothing yet.
    pub const NOTHING: Best = Best { rank: 0, rule: NONE };

    fn take(&mut self, leaf: Leaf) {
        if leaf.rank > self.rank {
            *self = Best { rank: leaf.rank, rule: leaf.rule };
        }
    }
}
