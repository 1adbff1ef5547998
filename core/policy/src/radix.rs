//! Exact paths and prefixes in one compressed tree of bytes: a single walk down finds the exact rule and the longest
//! prefix. Built once from sorted paths into flat arrays, never changed. It needs no hash, so no path can be chosen to
//! make it slow.

/// No rule here.
pub(crate) const NONE: u32 = u32::MAX;

/// A path and the rule sets that stand on it.
pub(crate) struct Entry<'a> {
    pub path: &'a [u8],
    /// The rule of exactly this path, or [`NONE`].
    pub exact: u32,
    /// The rule of everything that begins so, or [`NONE`].
    pub prefix: u32,
}

#[derive(Debug)]
pub(crate) struct Radix {
    nodes: Vec<Node>,
    labels: Vec<u8>,
    /// First bytes of children's labels, sorted within a node, and the children; parallel.
    child_bytes: Vec<u8>,
    child_nodes: Vec<u32>,
}

#[derive(Debug)]
struct Node {
    label: (u32, u32),
    children: (u32, u32),
    exact: u32,
    prefix: u32,
}

/// What a walk down found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub exact: u32,
    /// The longest prefix.
    pub prefix: u32,
}

impl Radix {
    /// `entries` are sorted by path and no path stands twice.
    pub fn build(entries: &[Entry<'_>]) -> Radix {
        debug_assert!(entries.windows(2).all(|w| w[0].path < w[1].path), "entries are sorted and distinct");
        let mut tree =
            Radix { nodes: Vec::new(), labels: Vec::new(), child_bytes: Vec::new(), child_nodes: Vec::new() };
        tree.push_node(entries, 0, 0);
        tree
    }

    /// A node for entries that agree up to `end`; its own label is `start..end`. Depth is bounded by the longest path.
    fn push_node(&mut self, entries: &[Entry<'_>], start: usize, end: usize) -> u32 {
        let id = self.nodes.len() as u32;
        let label_at = self.labels.len() as u32;
        if let Some(first) = entries.first() {
            self.labels.extend_from_slice(&first.path[start..end]);
        }
        let label = (label_at, self.labels.len() as u32);
        self.nodes.push(Node { label, children: (0, 0), exact: NONE, prefix: NONE });
        let mut rest = entries;
        if let Some(first) = rest.first().filter(|e| e.path.len() == end) {
            self.nodes[id as usize].exact = first.exact;
            self.nodes[id as usize].prefix = first.prefix;
            rest = &rest[1..];
        }
        let mut children = Vec::new();
        while let Some(first) = rest.first() {
            let byte = first.path[end];
            let group = &rest[..rest.partition_point(|e| e.path[end] <= byte)];
            let last = &group[group.len() - 1];
            let common = first.path.iter().zip(last.path).take_while(|(a, b)| a == b).count();
            children.push((byte, self.push_node(group, end, common)));
            rest = &rest[group.len()..];
        }
        let from = self.child_nodes.len() as u32;
        self.child_bytes.extend(children.iter().map(|c| c.0));
        self.child_nodes.extend(children.iter().map(|c| c.1));
        self.nodes[id as usize].children = (from, self.child_nodes.len() as u32);
        id
    }

    fn label(&self, node: &Node) -> &[u8] {
        &self.labels[node.label.0 as usize..node.label.1 as usize]
    }

    fn child(&self, node: &Node, byte: u8) -> Option<&Node> {
        let (from, to) = (node.children.0 as usize, node.children.1 as usize);
        let bytes = &self.child_bytes[from..to];
        let i = if bytes.len() <= 8 {
            bytes.iter().position(|b| *b == byte)?
        } else {
            bytes.binary_search(&byte).ok()?
        };
        Some(&self.nodes[self.child_nodes[from + i] as usize])
    }

    /// The exact rule and the longest prefix of a path.
    pub fn find(&self, path: &[u8]) -> Found {
        let mut node = &self.nodes[0];
        let mut rest = path;
        let mut prefix = NONE;
        loop {
            if node.prefix != NONE {
                prefix = node.prefix;
            }
            let Some(&byte) = rest.first() else { return Found { exact: node.exact, prefix } };
            let next = self.child(node, byte).and_then(|c| Some((c, rest.strip_prefix(self.label(c))?)));
            match next {
                Some((child, tail)) => (node, rest) = (child, tail),
                None => return Found { exact: NONE, prefix },
            }
        }
    }

    /// True if the test holds for a rule whose path, exact or as prefix, begins with `path`.
    pub fn any_below(&self, path: &[u8], test: impl Fn(u32) -> bool) -> bool {
        let mut node = &self.nodes[0];
        let mut rest = path;
        while let Some(&byte) = rest.first() {
            let Some(child) = self.child(node, byte) else { return false };
            let label = self.label(child);
            match rest.strip_prefix(label) {
                Some(tail) => rest = tail,
                None if label.starts_with(rest) => rest = &[],
                None => return false,
            }
            node = child;
        }
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            if (node.exact != NONE && test(node.exact)) || (node.prefix != NONE && test(node.prefix)) {
                return true;
            }
            let children = &self.child_nodes[node.children.0 as usize..node.children.1 as usize];
            open.extend(children.iter().map(|c| &self.nodes[*c as usize]));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn agrees_with_a_sorted_map(
            paths in prop::collection::btree_map("[ab/]{0,6}", 0u8..3, 0..24),
            asked in prop::collection::vec("[ab/]{0,8}", 1..16),
        ) {
            // 0: exact only, 1: prefix only, 2: both
            let map: BTreeMap<String, (u32, u32)> = paths
                .into_iter()
                .enumerate()
                .map(|(i, (p, kind))| {
                    let i = i as u32 * 2;
                    (p, (if kind == 1 { NONE } else { i }, if kind == 0 { NONE } else { i + 1 }))
                })
                .collect();
            let entries: Vec<_> = map
                .iter()
                .map(|(p, (exact, prefix))| Entry { path: p.as_bytes(), exact: *exact, prefix: *prefix })
                .collect();
            let tree = Radix::build(&entries);
            for path in &asked {
                let exact = map.get(path).map_or(NONE, |e| e.0);
                let prefix = map
                    .iter()
                    .filter(|(p, e)| e.1 != NONE && path.starts_with(p.as_str()))
                    .max_by_key(|(p, _)| p.len())
                    .map_or(NONE, |(_, e)| e.1);
                prop_assert_eq!(tree.find(path.as_bytes()), Found { exact, prefix }, "{}", path);
                for wanted in 0..6u32 {
                    let below = map
                        .iter()
                        .any(|(p, e)| p.starts_with(path.as_str()) && (e.0 == wanted || e.1 == wanted));
                    prop_assert_eq!(tree.any_below(path.as_bytes(), |r| r == wanted), below);
                }
            }
        }
    }
}
