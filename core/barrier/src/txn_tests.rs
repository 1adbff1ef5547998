//! Txn against a map, the tip against an image, nonces, and reading back what was sealed under every term.

use crate::keyring::Keyring;
use crate::record::Record;
use crate::{BarrierError, Finished, Issuer, KEYRING, OpenError, Overlay, Plain, Sealer, Tip, Txn, View, issuer_key};
use proptest::prelude::*;
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Index, MountId, Wall};
use ringfence_crypto::Provider;
use ringfence_store::{Batch, Image, Op, Version};
use std::collections::{BTreeMap, BTreeSet};

/// A mount's table and number, and 0xff at the end so that prefixes without an end are met.
const PREFIX: [u8; 5] = [0x90, 0, 0, 0, 7];

struct World {
    image: Image,
    keyring: Keyring,
    sealer: Sealer,
    next: u64,
}

impl World {
    fn new() -> World {
        let rng = &mut SeededEntropy(11);
        let keyring = Keyring::generate(Provider::AwsLc, Wall(1), rng);
        let mut image = Image::new();
        let version = image.publish();
        let mut txn = Txn::new(&version, None);
        let mut issuer = Issuer::register(&mut txn, "node", Wall(1), rng);
        let batch = txn.finish_clear(Wall(1)).unwrap().batch.unwrap();
        image.apply(Index(1), &batch);
        let sealer = issuer.sealer(&keyring);
        World { image, keyring, sealer, next: 2 }
    }

    fn write(&mut self, f: impl FnOnce(&mut Txn<'_>)) -> Finished {
        let version = self.image.publish();
        let mut txn = Txn::new(&version, Some(&self.keyring));
        f(&mut txn);
        let done = txn.finish(&mut self.sealer, Wall(self.next)).unwrap();
        if let Some(batch) = &done.batch {
            self.image.apply(Index(self.next), batch);
            self.next += 1;
        }
        done
    }
}

fn key(path: &str) -> Vec<u8> {
    [&PREFIX[..], path.as_bytes()].concat()
}

fn plain(header: &[u8], bytes: &[u8]) -> Plain {
    Plain { header: header.to_vec(), bytes: bytes.to_vec() }
}

#[test]
fn reads_are_recorded_and_writes_guard_the_keyring() {
    let mut world = World::new();
    world.write(|txn| txn.put(key("a"), b"due", b"one"));
    let version = world.image.publish();
    let mut txn = Txn::new(&version, Some(&world.keyring));
    assert!(txn.is_read_only());
    assert_eq!(txn.get(&key("a")).unwrap(), Some(plain(b"due", b"one")));
    assert_eq!(txn.get_header(&key("a")).unwrap().as_deref(), Some(&b"due"[..]));
    assert!(!txn.exists(&key("b")));
    txn.guard(&key("g"));
    txn.guard_prefix(&key("dir/"));
    txn.put(key("c"), b"", b"blind");
    assert_eq!(txn.get(&key("c")).unwrap(), Some(plain(b"", b"blind")), "own write");
    assert!(!txn.is_read_only());
    let done = txn.finish(&mut world.sealer, Wall(9)).unwrap();
    assert_eq!(done.read_index, Index(2));
    for (path, touched) in [("a", true), ("b", true), ("g", true), ("c", false), ("dir/x", true), ("dir0", false)] {
        assert_eq!(done.reads.touches(&key(path)), touched, "{path}");
    }
    assert!(done.reads.touches(&KEYRING), "a rotation overtakes every writer");
    assert_eq!(done.batch.unwrap().log_time, Wall(9));
}

#[test]
fn sealed_records_need_a_keyring() {
    let mut world = World::new();
    world.write(|txn| txn.put(key("a"), b"h", b"one"));
    let version = world.image.publish();
    let mut txn = Txn::new(&version, None);
    assert_eq!(txn.get(&key("a")), Err(BarrierError::Sealed));
    assert_eq!(txn.get_header(&key("a")).unwrap().as_deref(), Some(&b"h"[..]), "headers are clear");
    txn.put(key("b"), b"", b"two");
    assert_eq!(txn.finish_clear(Wall(1)).unwrap_err(), BarrierError::Sealed);
}

#[test]
fn over_the_limits_is_refused() {
    let mut world = World::new();
    let version = world.image.publish();
    let mut too_long = |key: Vec<u8>, header: &[u8], bytes: &[u8]| {
        let mut txn = Txn::new(&version, Some(&world.keyring));
        txn.put(key, header, bytes);
        txn.finish(&mut world.sealer, Wall(1)).unwrap_err()
    };
    assert_eq!(too_long(vec![1; 5000], b"", b""), BarrierError::TooLarge);
    assert_eq!(too_long(key("a"), &[0; 70_000], b""), BarrierError::TooLarge);
    assert_eq!(too_long(key("a"), b"", &vec![0; 2 << 20]), BarrierError::TooLarge);
}

#[test]
fn a_record_opens_only_where_it_stands_and_only_with_its_issuer() {
    let mut world = World::new();
    world.write(|txn| txn.put(key("a"), b"h", b"one"));
    let version = world.image.publish();
    let record = View::get(&version, &key("a")).unwrap().to_vec();
    let fresh = Keyring::decode(Provider::Seeded, &world.keyring.encode(), None).unwrap();
    assert_eq!(fresh.open(&version, &key("a"), &record), Ok(plain(b"h", b"one")), "the other provider, no cache");
    assert_eq!(fresh.open(&version, &key("b"), &record), Err(OpenError::NotAuthentic));
    let empty = Image::new().publish();
    let unknown = Keyring::decode(Provider::AwsLc, &world.keyring.encode(), None).unwrap();
    assert_eq!(unknown.open(&empty, &key("a"), &record), Err(OpenError::UnknownIssuer(1)));
}

#[test]
fn a_forged_record_leaves_no_key_in_the_cache() {
    let mut world = World::new();
    world.write(|txn| txn.put(key("a"), b"", b"one"));
    let version = world.image.publish();
    let record = View::get(&version, &key("a")).unwrap().to_vec();
    let fresh = Keyring::decode(Provider::AwsLc, &world.keyring.encode(), None).unwrap();
    assert_eq!(fresh.open(&version, &key("x"), &record), Err(OpenError::NotAuthentic));
    let empty = Image::new().publish();
    assert_eq!(fresh.open(&empty, &key("a"), &record), Err(OpenError::UnknownIssuer(1)), "nothing was cached");
}

#[test]
fn old_terms_stay_readable_and_the_sealer_follows() {
    let mut world = World::new();
    let rng = &mut SeededEntropy(2);
    for term in 1..=4u32 {
        assert_eq!(world.keyring.active_term(), term);
        world.write(|txn| txn.put(key(&format!("t{term}")), b"", &term.to_be_bytes()));
        assert_eq!(world.sealer.term(), term);
        assert_eq!(world.sealer.take_count(), 1);
        let before = std::mem::replace(&mut world.keyring, Keyring::generate(Provider::AwsLc, Wall(0), rng));
        world.keyring = before.rotated(Wall(2), rng);
    }
    let version = world.image.publish();
    let mut txn = Txn::new(&version, Some(&world.keyring));
    for term in 1..=4u32 {
        let record = View::get(&version, &key(&format!("t{term}"))).unwrap();
        assert_eq!(Record::parse(record).unwrap().term, term);
        assert_eq!(txn.get(&key(&format!("t{term}"))).unwrap().unwrap().bytes, term.to_be_bytes());
    }
}

#[test]
fn issuers_are_numbered_and_race_safely() {
    let rng = &mut SeededEntropy(3);
    let mut image = Image::new();
    let version = image.publish();
    let mut a = Txn::new(&version, None);
    let mut b = Txn::new(&version, None);
    assert_eq!(Issuer::register(&mut a, "a", Wall(1), rng).number(), 1);
    assert_eq!(Issuer::register(&mut b, "b", Wall(1), rng).number(), 1);
    let a = a.finish_clear(Wall(1)).unwrap();
    let b = b.finish_clear(Wall(1)).unwrap();
    assert!(b.reads.touches(a.batch.as_ref().unwrap().ops[0].key()), "the second to arrive conflicts");
    image.apply(Index(1), a.batch.as_ref().unwrap());
    assert_eq!(crate::next_issuer(&image.publish()), 2);
    assert!(View::get(&image.publish(), &issuer_key(1)).is_some());
}

#[test]
fn no_two_seals_share_key_and_nonce() {
    let rng = &mut SeededEntropy(4);
    let one = Keyring::generate(Provider::AwsLc, Wall(0), rng);
    let two = one.rotated(Wall(0), rng);
    let mut seen = BTreeSet::new();
    let mut sealed = 0;
    for number in 1..=5 {
        let mut issuer = Issuer::draw(number, rng);
        let mut sealers: Vec<Sealer> = (0..6).map(|_| issuer.sealer(&one)).collect();
        for round in 0..40 {
            for (i, sealer) in sealers.iter_mut().enumerate() {
                if round == 20 + i {
                    sealer.follow(&two);
                }
                // the stamp (term, issuer, core, counter) is key and nonce: bytes 1 to 17
                assert!(seen.insert(sealer.seal(b"k", b"", b"v")[1..17].to_vec()));
                let token = sealer.seal_batch_token(b"v");
                assert!(seen.insert(token[1..29].to_vec()));
                sealed += 2;
            }
        }
    }
    assert_eq!(seen.len(), sealed);
}

/// Paths that meet in prefixes, folders beside records of the same name, and bytes around `/`.
fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "a/", "/", "c!", "c-", "0", "é"], 1..5).prop_map(|p| p.concat())
}

#[derive(Clone, Debug)]
enum Step {
    Put(String, u8),
    Delete(String),
    Get(String),
    List(String, Option<String>, usize),
    Last(String, usize),
    Children(String, Option<String>, usize),
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    let limit = prop_oneof![0usize..5, Just(usize::MAX)];
    prop_oneof![
        5 => (path(), any::<u8>()).prop_map(|(p, v)| Step::Put(p, v)),
        2 => path().prop_map(Step::Delete),
        2 => path().prop_map(Step::Get),
        2 => ("", proptest::option::of(path()), limit.clone()).prop_map(|(p, a, l)| Step::List(p, a, l)),
        1 => (path(), limit.clone()).prop_map(|(p, l)| Step::Last(p, l)),
        2 => (prop_oneof![Just(String::new()), path()], proptest::option::of(path()), limit)
            .prop_map(|(p, a, l)| Step::Children(p, a, l)),
        1 => Just(Step::Commit),
    ]
}

/// One level of names by the book: everything up to and including the first slash, each once, in order.
fn children(model: &BTreeMap<Vec<u8>, u8>, prefix: &[u8], after: Option<&str>, limit: usize) -> Vec<String> {
    let names: BTreeSet<String> = model
        .keys()
        .filter_map(|k| k.strip_prefix(prefix))
        .map(|rest| match rest.iter().position(|&b| b == b'/') {
            Some(slash) => String::from_utf8(rest[..=slash].to_vec()).unwrap(),
            None => String::from_utf8(rest.to_vec()).unwrap(),
        })
        .collect();
    names.into_iter().filter(|n| after.is_none_or(|a| n.as_str() > a)).take(limit).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    /// Reads see committed and own writes as a plain map would, and the read set covers every key whose change would
    /// have changed what was read.
    #[test]
    fn txn_is_a_map(steps in proptest::collection::vec(step(), 1..40), probe in path()) {
        let mut world = World::new();
        let mut model: BTreeMap<Vec<u8>, u8> = BTreeMap::new();
        for part in steps.split(|s| matches!(s, Step::Commit)) {
            let before = model.clone();
            let mut outside = before.clone();
            outside.entry(key(&probe)).and_modify(|v| *v = v.wrapping_add(1)).or_insert(1);
            let mut own: BTreeSet<Vec<u8>> = BTreeSet::new();
            let mut differs = false;
            let mut failure: Option<TestCaseError> = None;
            let done = world.write(|txn| {
                let mut run = || -> Result<(), TestCaseError> {
                    for step in part {
                        match step {
                            Step::Put(p, v) => {
                                txn.put(key(p), &[*v], &[*v, *v]);
                                own.insert(key(p));
                                model.insert(key(p), *v);
                                outside.insert(key(p), *v);
                            }
                            Step::Delete(p) => {
                                txn.delete(&key(p));
                                own.insert(key(p));
                                model.remove(&key(p));
                                outside.remove(&key(p));
                            }
                            Step::Get(p) => {
                                let k = key(p);
                                let expected = model.get(&k).map(|&v| plain(&[v], &[v, v]));
                                prop_assert_eq!(txn.get(&k).unwrap(), expected.clone());
                                prop_assert_eq!(txn.get_header(&k).unwrap(), expected.map(|p| p.header));
                                prop_assert_eq!(txn.exists(&k), model.contains_key(&k));
                                differs |= model.get(&k) != outside.get(&k);
                            }
                            Step::List(p, after, limit) => {
                                let (prefix, after) = (key(p), after.as_deref().map(key));
                                let by_book = |m: &BTreeMap<Vec<u8>, u8>| -> Vec<(Vec<u8>, u8)> {
                                    let kept = m.iter().filter(|(k, _)| k.starts_with(&prefix));
                                    let kept = kept.filter(|(k, _)| after.as_ref().is_none_or(|a| *k > a));
                                    kept.take(*limit).map(|(k, v)| (k.clone(), *v)).collect()
                                };
                                let expected = by_book(&model);
                                let rows = txn.scan(&prefix, after.as_deref(), *limit).unwrap();
                                let rows: Vec<_> = rows.into_iter().map(|(k, p)| (k, p.header[0])).collect();
                                prop_assert_eq!(&rows, &expected);
                                let keys = txn.list(&prefix, after.as_deref(), *limit);
                                prop_assert_eq!(keys, expected.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>());
                                differs |= expected != by_book(&outside);
                            }
                            Step::Last(p, limit) => {
                                let prefix = key(p);
                                let by_book = |m: &BTreeMap<Vec<u8>, u8>| -> Vec<Vec<u8>> {
                                    m.keys().rev().filter(|k| k.starts_with(&prefix)).take(*limit).cloned().collect()
                                };
                                prop_assert_eq!(txn.list_last(&prefix, *limit), by_book(&model));
                                let count = model.keys().filter(|k| k.starts_with(&prefix)).count();
                                differs |= by_book(&model) != by_book(&outside);
                                if *limit == 3 {
                                    prop_assert_eq!(txn.count(&prefix), count);
                                }
                            }
                            Step::Children(p, after, limit) => {
                                let prefix = key(p);
                                let expected = children(&model, &prefix, after.as_deref(), *limit);
                                let got = txn.list_children_page(&prefix, after.as_deref(), *limit).unwrap();
                                prop_assert_eq!(&got, &expected);
                                differs |= expected != children(&outside, &prefix, after.as_deref(), *limit);
                            }
                            Step::Commit => unreachable!("split away"),
                        }
                    }
                    Ok(())
                };
                failure = run().err();
            });
            if let Some(failure) = failure {
                return Err(failure);
            }
            // a concurrent write to the probe that any read would have shown must be found in the read set
            if differs && !own.contains(&key(&probe)) {
                prop_assert!(done.reads.touches(&key(&probe)), "{probe} was relied on");
            }
        }
    }

    /// The tip over part of a history is the image of the whole of it.
    #[test]
    fn tip_is_the_image_to_come(
        writes in proptest::collection::vec(
            proptest::collection::vec((0u8..12, proptest::option::of(any::<u8>())), 0..5), 0..12,
        ),
        applied in 0usize..12,
        from in 0u8..14,
        to in 0u8..14,
        ends in proptest::collection::vec(any::<bool>(), 0..16),
        laid in proptest::collection::vec(any::<bool>(), 12),
        prune in any::<bool>(),
    ) {
        let k = |n: u8| vec![0x90, 0, 0, 0, n % 3, n];
        let batches: Vec<Batch> = writes.iter().enumerate().map(|(i, ops)| Batch {
            log_time: Wall(i as u64 + 1),
            ops: ops.iter().map(|&(n, v)| match v {
                Some(v) => Op::Put { key: k(n), value: vec![v] },
                None => Op::Delete { key: k(n) },
            }).collect(),
        }).collect();
        let indexed: Vec<(Index, &Batch)> =
            batches.iter().enumerate().map(|(i, b)| (Index(i as u64 / 2 + 1), b)).collect();
        let image = |n: usize| -> Version {
            let mut image = Image::new();
            indexed[..n].iter().for_each(|(i, b)| image.apply(*i, b));
            image.publish()
        };
        // entries are published whole: two batches an index
        let applied = (applied / 2 * 2).min(indexed.len());
        let (base, whole) = (image(applied), image(indexed.len()));
        // of what the view contains, any batches may have been laid in their time; all that are in flight are
        let mut overlay = Overlay::default();
        for (n, (i, b)) in indexed.iter().enumerate() {
            if n >= applied || laid.get(n).is_some_and(|laid| *laid) {
                overlay.lay(*i, b);
            }
        }
        if prune {
            overlay.prune(base.index());
        }
        let tip = Tip::new(&base, &overlay);
        prop_assert_eq!((tip.index(), tip.log_time()), (whole.index(), whole.log_time()));
        for n in 0..12 {
            prop_assert_eq!(tip.get(&k(n)), View::get(&whole, &k(n)));
        }
        for mount in 0..3 {
            prop_assert_eq!(tip.changed(0x90, Some(MountId(mount))), whole.changed(0x90, Some(MountId(mount))));
        }
        prop_assert_eq!(tip.changed(0x90, None), whole.changed(0x90, None));
        let (from, to) = (k(from), k(to));
        let bounds = crate::view::bounds(&from, Some(&to));
        let (mut a, mut b) = (tip.scan(bounds.0, bounds.1), View::scan(&whole, bounds.0, bounds.1));
        for back in ends {
            let (x, y) = if back { (a.next_back(), b.next_back()) } else { (a.next(), b.next()) };
            prop_assert_eq!(x, y);
        }
        prop_assert!(a.eq(b));
    }
}

/// The golden file: today's format, which every later build must read. A new format gets a file of its own.
#[test]
fn golden_record_opens() {
    struct Constant(u8);
    impl ringfence_base::Entropy for Constant {
        fn fill(&mut self, buf: &mut [u8]) {
            buf.fill(self.0);
        }
    }
    let written = 1_700_000_000_000_000_000u64;
    let encoded =
        [&[1][..], &[0x11; 32], &[1], &[0, 0, 0, 1], &written.to_be_bytes(), &[0x22; 32], &[0x33; 32]].concat();
    let keyring = Keyring::decode(Provider::AwsLc, &encoded, None).unwrap();
    let mut issuer = Issuer::draw(3, &mut Constant(0x44));
    let mut image = Image::new();
    let (issuer_key, issuer_value) = issuer.record("golden", Wall(written));
    let registered = Op::Put { key: issuer_key.to_vec(), value: issuer_value };
    image.apply(Index(1), &Batch { log_time: Wall(1), ops: vec![registered] });
    let golden: &[u8] = include_bytes!("../../../tests/golden/sealed-record-v1.bin");
    let _core_0 = issuer.sealer(&keyring);
    let sealed = issuer.sealer(&keyring).seal(b"\x90\x00\x00\x00\x07golden/key", b"due:1700000000", b"kept for ever");
    assert_eq!(hex::encode(&sealed), hex::encode(golden), "the same inputs seal to the same bytes");
    let opened = keyring.open(&image.publish(), b"\x90\x00\x00\x00\x07golden/key", golden).unwrap();
    assert_eq!(opened, plain(b"due:1700000000", b"kept for ever"));
    // the drawing in record.rs, byte by byte
    assert_eq!(golden[0], 1, "format");
    assert_eq!(golden[1..5], [0, 0, 0, 1], "term");
    assert_eq!(golden[5..9], [0, 0, 0, 3], "issuer");
    assert_eq!(golden[9..11], [0, 1], "core");
    assert_eq!(golden[11..17], [0, 0, 0, 0, 0, 1], "counter");
    assert_eq!(golden[17..19], [0, 14], "length of the header");
    assert_eq!(&golden[19..33], b"due:1700000000");
    assert_eq!(golden.len(), 33 + b"kept for ever".len() + 16);
}
