//! Freeing a large tree a little at a time, so that the owner's loop never stops for it.

use std::sync::Arc;

use crate::node::{Branch, Kid};

/// What is left to free. Dropping it frees the rest at once.
pub struct Dismantle {
    left: Vec<Kid>,
}

impl Dismantle {
    pub(crate) fn new(roots: impl IntoIterator<Item = Branch>) -> Dismantle {
        Dismantle { left: roots.into_iter().map(|b| b.kid).collect() }
    }

    /// Frees at most `pages` pages or nodes. True once nothing is left. What somebody else still holds is let go, not
    /// freed.
    pub fn step(&mut self, pages: usize) -> bool {
        for _ in 0..pages {
            match self.left.pop() {
                None => return true,
                Some(Kid::Leaf(page)) => drop(page),
                Some(Kid::Inner(node)) => {
                    if let Some(mut node) = Arc::into_inner(node) {
                        self.left.extend(node.take_parts().into_iter().map(|p| p.branch.kid));
                    }
                }
            }
        }
        self.left.is_empty()
    }
}
