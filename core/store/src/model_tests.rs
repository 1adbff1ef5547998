//! The image against the naive model: a `BTreeMap` per version. Pages and nodes are tiny in this build (see
//! `PAGE_BYTES` and `FAN`), so that a few hundred writes make a deep tree; `tests/full_size.rs` runs the real ones.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::collection::vec;
use proptest::prelude::*;
use ringfence_base::{Index, MountId, Wall};

use crate::image::scope_of;
use crate::{Batch, ENTRY_OVERHEAD_BYTES, Image, Key, Op, Version};

type Model = BTreeMap<Key, Vec<u8>>;

/// Keys that collide often, share long prefixes, tie in their heads and are prefixes of each other.
fn key() -> impl Strategy<Value = Key> {
    let table = prop::sample::select(vec![0x01u8, 0x02, 0x81, 0x82, 0xff]);
    let path = prop::sample::select(vec![&b""[..], b"secret/data/team/payments/production/"]);
    let tail = prop_oneof![vec(prop::sample::select(vec![0u8, b'a', b'b', 0xff]), 0..5), vec(any::<u8>(), 0..14)];
    let scoped = (table, 0u32..3, path, tail).prop_map(|(table, mount, path, tail)| {
        let mut key = vec![table];
        key.extend_from_slice(&mount.to_be_bytes());
        key.extend_from_slice(path);
        key.extend_from_slice(&tail);
        key
    });
    prop_oneof![20 => scoped, 1 => vec(prop::sample::select(vec![0x01u8, 0x81, 0xff]), 0..5)]
}

/// Values from nothing to several pages.
fn value() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![10 => 0usize..60, 3 => 60usize..240, 1 => 240usize..2000], any::<u8>())
        .prop_map(|(len, b)| vec![b; len])
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (key(), value()).prop_map(|(key, value)| Op::Put { key, value }),
        2 => key().prop_map(|key| Op::Delete { key }),
    ]
}

fn apply_to_model(model: &mut Model, op: &Op) {
    match op {
        Op::Put { key, value } => drop(model.insert(key.clone(), value.clone())),
        Op::Delete { key } => drop(model.remove(key)),
    }
}

fn assert_equal(version: &Version, model: &Model) {
    let all = version.scan(Bound::Unbounded, Bound::Unbounded);
    assert_eq!(all.len(), model.len());
    assert!(all.eq(model.iter().map(|(k, v)| (&k[..], &v[..]))));
    let back = version.scan(Bound::Unbounded, Bound::Unbounded).rev();
    assert!(back.eq(model.iter().rev().map(|(k, v)| (&k[..], &v[..]))));
    assert_eq!(version.len(), model.len() as u64);
    let payload: usize = model.iter().map(|(k, v)| k.len() + v.len()).sum();
    assert_eq!(version.bytes(), payload as u64 + model.len() as u64 * ENTRY_OVERHEAD_BYTES);
    for (key, value) in model {
        assert_eq!(version.get(key), Some(&value[..]));
    }
}

fn bound(kind: u8, key: &[u8]) -> Bound<&[u8]> {
    match kind % 3 {
        0 => Bound::Unbounded,
        1 => Bound::Included(key),
        _ => Bound::Excluded(key),
    }
}

/// As `BTreeMap::range`, which panics on inverted ranges.
fn naive_range<'m>(model: &'m Model, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Vec<(&'m [u8], &'m [u8])> {
    let above = |k: &[u8]| match from {
        Bound::Unbounded => true,
        Bound::Included(f) => k >= f,
        Bound::Excluded(f) => k > f,
    };
    let below = |k: &[u8]| match to {
        Bound::Unbounded => true,
        Bound::Included(t) => k <= t,
        Bound::Excluded(t) => k < t,
    };
    model.iter().map(|(k, v)| (&k[..], &v[..])).filter(|(k, _)| above(k) && below(k)).collect()
}

fn batch(ops: Vec<Op>) -> Batch {
    Batch { log_time: Wall(7), ops }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_version_equals_its_model(batches in vec((vec(op(), 1..30), any::<bool>()), 1..25)) {
        let (mut image, mut model) = (Image::new(), Model::new());
        let mut versions = vec![(image.publish(), model.clone())];
        let mut changed: BTreeMap<(u8, Option<MountId>), Index> = BTreeMap::new();
        for (i, (ops, publish)) in batches.into_iter().enumerate() {
            let index = Index(i as u64 + 1);
            for op in &ops {
                apply_to_model(&mut model, op);
                if let Some((table, mount)) = scope_of(op.key()) {
                    changed.insert((table, None), index);
                    changed.insert((table, mount), index);
                }
            }
            image.apply(index, &batch(ops));
            image.check();
            if publish {
                versions.push((image.publish(), model.clone()));
            }
        }
        versions.push((image.publish(), model));
        let last = &versions[versions.len() - 1].0;
        for table in [1, 2, 3, 0x81, 0x82, 0xff] {
            for mount in [None, Some(MountId(0)), Some(MountId(2)), Some(MountId(9))] {
                let expected = changed.get(&(table, mount)).copied().unwrap_or_default();
                prop_assert_eq!(last.changed(table, mount), expected);
            }
        }
        for (version, model) in &versions {
            assert_equal(version, model);
        }
    }

    #[test]
    fn ranges_and_counts_equal_the_model(
        ops in vec(op(), 0..400),
        ranges in vec((key(), any::<u8>(), key(), any::<u8>(), 0usize..6), 1..40),
    ) {
        let (mut image, mut model) = (Image::new(), Model::new());
        ops.iter().for_each(|op| apply_to_model(&mut model, op));
        image.apply(Index(1), &batch(ops));
        let version = image.publish();
        for (a, from, b, to, cut) in &ranges {
            let (from, to) = (bound(*from, a), bound(*to, b));
            let expected = naive_range(&model, from, to);
            prop_assert_eq!(version.scan(from, to).collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(version.scan(from, to).len(), expected.len());
            let down: Vec<_> = version.scan(from, to).rev().collect();
            prop_assert!(down.iter().eq(expected.iter().rev()));
            prop_assert_eq!(version.scan(from, to).nth(*cut), expected.get(*cut).copied());
            // Both ends meet without losing or repeating an entry.
            let mut scan = version.scan(from, to);
            let (mut front, mut back) = (Vec::new(), Vec::new());
            while let Some(entry) = scan.next() {
                front.push(entry);
                back.extend(scan.next_back());
            }
            front.extend(back.into_iter().rev());
            prop_assert_eq!(front, expected);
            prop_assert_eq!(version.get(a), model.get(a).map(|v| &v[..]));
            let prefix = &a[..a.len().min(*cut)];
            let under: Vec<_> = model.iter().filter(|(k, _)| k.starts_with(prefix)).map(|(k, _)| &k[..]).collect();
            prop_assert_eq!(version.count_prefix(prefix), under.len() as u64);
            prop_assert_eq!(version.scan_prefix(prefix).map(|(k, _)| k).collect::<Vec<_>>(), under);
        }
    }

    #[test]
    fn bulk_load_equals_puts_and_takes_writes(
        pairs in prop::collection::btree_map(key(), value(), 0..300),
        ops in vec(op(), 0..200),
    ) {
        let mut image = Image::from_sorted(pairs.iter(), Index(5), Wall(9)).expect("a map is sorted");
        image.check();
        let loaded = image.publish();
        assert_equal(&loaded, &pairs);
        prop_assert_eq!(loaded.changed(1, None), Index(5));
        let mut model = pairs.clone();
        ops.iter().for_each(|op| apply_to_model(&mut model, op));
        image.apply(Index(6), &batch(ops));
        image.check();
        assert_equal(&image.publish(), &model);
        assert_equal(&loaded, &pairs);
    }

    /// A change anywhere in a range is never missed, be it that deletes emptied whole nodes; what was not touched but
    /// shares a page with what was may be reported as changed too.
    #[test]
    fn no_change_of_a_range_is_missed(
        pairs in prop::collection::btree_map(key(), value(), 0..300),
        ops in vec(op(), 0..60),
        cuts in prop::collection::btree_set(key(), 4..12),
        cleared in 0usize..4,
    ) {
        let mut image = Image::from_sorted(pairs.iter(), Index(5), Wall(9)).expect("a map is sorted");
        let cuts: Vec<&Key> = cuts.iter().collect();
        let cleared = cuts[cleared]..cuts.get(cleared + 3).copied().unwrap_or(cuts[cuts.len() - 1]);
        let deletes = pairs.keys().filter(|k| cleared.contains(k)).map(|k| Op::Delete { key: k.clone() });
        let mut model = pairs.clone();
        let mut last: BTreeMap<Key, u64> = BTreeMap::new();
        for (op, at) in ops.iter().cloned().chain(deletes).zip(6..) {
            if model.contains_key(op.key()) || matches!(op, Op::Put { .. }) {
                last.insert(op.key().to_vec(), at);
            }
            apply_to_model(&mut model, &op);
            image.apply(Index(at), &batch(vec![op]));
        }
        let version = image.publish();
        let mut edges: Vec<Option<&[u8]>> = vec![None];
        edges.extend(cuts.iter().map(|k| Some(&k[..])));
        edges.push(None);
        for pair in edges.windows(2) {
            let inside = |k: &[u8]| pair[0].is_none_or(|f| k >= f) && pair[1].is_none_or(|t| k < t);
            let truth = last.iter().filter(|(k, _)| inside(k)).map(|(_, at)| *at).max().unwrap_or(0);
            prop_assert!(version.changed_within(pair[0], pair[1]) >= truth);
        }
    }
}

#[test]
fn unsorted_input_is_refused() {
    for keys in [["b", "a"], ["a", "a"]] {
        let loaded = Image::from_sorted(keys.map(|k| (k, "v")), Index(1), Wall(0));
        assert_eq!(loaded.err().map(|e| e.key), Some(keys[1].as_bytes().to_vec()));
    }
}

#[test]
#[should_panic(expected = "broken invariant")]
fn going_back_is_a_broken_invariant() {
    let mut image = Image::new();
    image.apply(Index(5), &Batch::default());
    image.apply(Index(4), &Batch::default());
}

/// Ascending and descending writes, then deletes from either end: the shapes that random writes do not make.
#[test]
fn runs_in_one_direction_keep_the_tree_whole() {
    let keys: Vec<Key> = (0..3000u32).map(|i| [&[0x81][..], &i.to_be_bytes(), b"/x"].concat()).collect();
    for ascending in [true, false] {
        let mut image = Image::new();
        let mut order: Vec<&Key> = keys.iter().collect();
        if !ascending {
            order.reverse();
        }
        let puts = order.iter().map(|k| Op::Put { key: k.to_vec(), value: vec![1; 20] }).collect();
        image.apply(Index(1), &batch(puts));
        image.check();
        let full = image.publish();
        for (i, key) in order.iter().enumerate() {
            image.apply(Index(2), &batch(vec![Op::Delete { key: key.to_vec() }]));
            if i % 500 == 0 {
                image.check();
            }
        }
        image.check();
        assert!(image.publish().is_empty());
        assert_eq!(full.len(), 3000);
        assert!(full.scan_prefix(&[0x81]).map(|(k, _)| k.to_vec()).eq(keys.iter().cloned()));
    }
}

/// A large tree is freed in steps; what a version still shows stays.
#[test]
fn dismantling_frees_in_steps_and_spares_versions() {
    let keys: Vec<Key> = (0..2000u32).map(|i| [&[1][..], &i.to_be_bytes()].concat()).collect();
    let mut image = Image::from_sorted(keys.iter().map(|k| (k, b"value")), Index(1), Wall(0)).expect("sorted");
    let version = image.publish();
    let mut rest = image.dismantle();
    assert!(rest.step(10), "all nodes are still shared: nothing to walk");
    assert_eq!(version.scan_prefix(&[1]).count(), 2000);
    let mut rest = version.dismantle();
    let mut steps = 1;
    while !rest.step(10) {
        steps += 1;
    }
    assert!(steps > 5, "{steps} steps");
}
