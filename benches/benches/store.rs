//! The image beside a `BTreeMap` of the same records: point reads, scans, bulk load, and group commits of 64 random
//! writes with a publication each (the map, which cannot publish, has the writes only).
//!
//! `cargo bench -p ringfence-benches --bench store`; `STORE_ENTRIES=10000000` sets the number of records (1 M by
//! default). The first line printed is the resident memory of an entry.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Bound;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Index, Wall};
use ringfence_store::{Batch, CheckpointWriter, Image, Op};

const KEY_BYTES: usize = 57;
const VALUE_BYTES: usize = 250;
const COMMIT: usize = 64;

fn entries() -> usize {
    std::env::var("STORE_ENTRIES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000)
}

/// A key as a token table has it: table, one of 64 mounts, a path, a hash.
fn key(n: u64) -> Vec<u8> {
    let mut key = vec![0x81];
    key.extend_from_slice(&((n % 64) as u32).to_be_bytes());
    let (a, b) = (SeededEntropy(n).next_u64(), SeededEntropy(!n).next_u64());
    key.extend_from_slice(format!("auth/token/{a:016x}{b:016x}xxxxxxxxx").as_bytes());
    key.truncate(KEY_BYTES);
    key
}

fn value(n: u64) -> Vec<u8> {
    let mut rng = SeededEntropy(n);
    let mut value: Vec<u8> = (0..VALUE_BYTES / 8 + 1).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    value.truncate(VALUE_BYTES);
    value
}

/// Numbers of records in the order of their keys.
fn sorted(count: usize) -> Vec<u64> {
    let mut numbers: Vec<u64> = (0..count as u64).collect();
    numbers.sort_unstable_by_key(|n| (n % 64, SeededEntropy(*n).next_u64()));
    numbers
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn commits(count: usize, entries: usize, fresh: bool) -> Vec<Batch> {
    let mut rng = SeededEntropy(7);
    let offset = if fresh { entries as u64 } else { 0 };
    let mut op = || {
        let n = rng.next_u64() % entries as u64 + offset;
        Op::Put { key: key(n), value: value(rng.next_u64()) }
    };
    (0..count).map(|_| Batch { log_time: Wall(1), ops: (0..COMMIT).map(|_| op()).collect() }).collect()
}

fn store(c: &mut Criterion) {
    let entries = entries();
    let numbers = sorted(entries);
    let records = || numbers.iter().map(|n| (key(*n), value(*n)));
    let before = resident_bytes();
    let mut image = Image::from_sorted(records(), Index(1), Wall(1)).expect("sorted above");
    println!("store: {} resident bytes an entry at {entries}", (resident_bytes() - before) / entries);
    let map: BTreeMap<Vec<u8>, Vec<u8>> = records().collect();
    let version = image.publish();
    let wanted: Vec<Vec<u8>> = (0..100_000u64).map(|i| key(SeededEntropy(i).next_u64() % entries as u64)).collect();

    let mut group = c.benchmark_group("store");
    group.throughput(Throughput::Elements(1));
    let mut turn = 0;
    let mut next = || {
        turn = (turn + 1) % wanted.len();
        &wanted[turn]
    };
    group.bench_function("get/image", |b| b.iter(|| black_box(version.get(next()))));
    group.bench_function("get/btreemap", |b| b.iter(|| black_box(map.get(next()))));

    group.throughput(Throughput::Elements(100));
    group.bench_function("scan 100/image", |b| {
        b.iter(|| version.scan(Bound::Included(next()), Bound::Unbounded).take(100).map(|(k, v)| k[9] ^ v[0]).max())
    });
    group.bench_function("scan 100/btreemap", |b| {
        b.iter(|| map.range(next().clone()..).take(100).map(|(k, v)| k[9] ^ v[0]).max())
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("count prefix/image", |b| b.iter(|| black_box(version.count_prefix(&next()[..5]))));
    drop(version);

    group.sample_size(20);
    group.throughput(Throughput::Elements(COMMIT as u64));
    for (name, fresh) in [("commit of 64 updates", false), ("commit of 64 inserts", true)] {
        let batches = commits(2_000, entries, fresh);
        let (mut at, mut published) = (0, image.publish());
        group.bench_function(format!("{name}/image, published"), |b| {
            b.iter(|| {
                at = (at + 1) % batches.len();
                image.apply(image.applied().next(), &batches[at]);
                published = image.publish();
            })
        });
        drop(published);
    }
    let batches = commits(2_000, entries, false);
    let mut map = map;
    let mut at = 0;
    group.bench_function("commit of 64 updates/btreemap, unpublished", |b| {
        b.iter(|| {
            at = (at + 1) % batches.len();
            for op in &batches[at].ops {
                if let Op::Put { key, value } = op {
                    map.insert(key.clone(), value.clone());
                }
            }
        })
    });
    drop(map);

    let version = image.publish();
    group.throughput(Throughput::Elements(version.len()));
    group.sample_size(10);
    group.bench_function("checkpoint", |b| {
        b.iter(|| {
            let mut writer = CheckpointWriter::new(version.clone(), None);
            std::iter::from_fn(|| writer.next_chunk()).map(|chunk| chunk.bytes.len()).sum::<usize>()
        })
    });
    let some = entries.min(100_000);
    let loaded: Vec<(Vec<u8>, Vec<u8>)> = sorted(some).iter().map(|n| (key(*n), value(*n))).collect();
    group.throughput(Throughput::Elements(some as u64));
    group.bench_function("bulk load/image", |b| {
        b.iter_batched(
            || (),
            |()| Image::from_sorted(loaded.iter().map(|(k, v)| (k, v)), Index(1), Wall(1)).expect("sorted"),
            BatchSize::PerIteration,
        )
    });
    group.finish();
}

criterion_group!(benches, store);
criterion_main!(benches);
