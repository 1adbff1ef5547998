//! The barrier's hot paths: raw AEAD as the limit, then sealed records, batch tokens, hashes of ids, and a Txn's reads
//! and writes over an image of a hundred thousand records.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringfence_barrier::{HashKind, Issuer, Keyring, Sealer, Txn, Window};
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Index, Wall};
use ringfence_crypto::Provider;
use ringfence_store::{Image, Version};
use std::hint::black_box;

const SIZES: [usize; 4] = [64, 256, 1024, 16 * 1024];
const RECORDS: u32 = 100_000;

/// A key as the machine makes them: table, mount, a path.
fn key(n: u32) -> Vec<u8> {
    [&[0x90, 0, 0, 0, 7][..], format!("app/team-{:02}/service-{n:06}/config", n % 50).as_bytes()].concat()
}

struct World {
    version: Version,
    keyring: Keyring,
    sealer: Sealer,
}

fn world(provider: Provider) -> World {
    let rng = &mut SeededEntropy(1);
    let keyring = Keyring::generate(provider, Wall(1), rng);
    let mut image = Image::new();
    let empty = image.publish();
    let mut txn = Txn::new(&empty, None);
    let mut issuer = Issuer::register(&mut txn, "bench", Wall(1), rng);
    let first = txn.finish_clear(Wall(1)).expect("small").batch.expect("one record");
    image.apply(Index(1), &first);
    let mut sealer = issuer.sealer(&keyring);
    for chunk in 0..RECORDS / 1000 {
        let version = image.publish();
        let mut txn = Txn::new(&version, Some(&keyring));
        (0..1000).for_each(|i| txn.put(key(chunk * 1000 + i), b"", &[0x5a; 250]));
        let batch = txn.finish(&mut sealer, Wall(2)).expect("within limits").batch.expect("writes");
        image.apply(Index(u64::from(chunk) + 2), &batch);
    }
    World { version: image.publish(), keyring, sealer }
}

fn aead(c: &mut Criterion) {
    let mut group = c.benchmark_group("aead");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let key = Provider::AwsLc.aead_key(&[7; 32]);
        let mut buf = vec![0x5a; size];
        group.bench_function(format!("raw seal/{size}"), |b| {
            b.iter(|| black_box(key.seal_in_place(&[1; 12], black_box(&[2; 70]), &mut buf)));
        });
    }
    group.finish();
}

fn records(c: &mut Criterion) {
    let World { version, keyring, mut sealer } = world(Provider::AwsLc);
    let at = key(1);
    let mut group = c.benchmark_group("record");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let plain = vec![0x5a; size];
        group.bench_function(format!("seal/{size}"), |b| {
            b.iter(|| black_box(sealer.seal(black_box(&at), b"", black_box(&plain))));
        });
        let record = sealer.seal(&at, b"", &plain);
        group.bench_function(format!("open/{size}"), |b| {
            b.iter(|| black_box(keyring.open(&version, black_box(&at), black_box(&record)).expect("opens")));
        });
    }
    group.finish();
}

fn tokens(c: &mut Criterion) {
    let World { keyring, mut sealer, .. } = world(Provider::AwsLc);
    // about what a batch token holds: policies, path, times, entity, namespace
    let plain = vec![0x5a; 120];
    let blob = sealer.seal_batch_token(&plain);
    let mut group = c.benchmark_group("batch token");
    group.bench_function("mint", |b| b.iter(|| black_box(sealer.seal_batch_token(black_box(&plain)))));
    group.bench_function("open", |b| {
        b.iter(|| black_box(keyring.open_batch_token(black_box(&blob)).expect("opens")));
    });
    let mut forged = blob.clone();
    forged[6] ^= 1;
    group.bench_function("refuse a forged salt", |b| {
        b.iter(|| black_box(keyring.open_batch_token(black_box(&forged)).is_err()));
    });
    group.bench_function("index hash of a token id", |b| {
        b.iter(|| black_box(keyring.index_hash(HashKind::TOKEN, black_box(b"hvs.ABCDEFGHIJKLMNOPQRSTUVWX"))));
    });
    group.finish();
}

fn txns(c: &mut Criterion) {
    let World { version, keyring, mut sealer } = world(Provider::AwsLc);
    let mut n = 0u32;
    let mut next = move || {
        n = (n.wrapping_mul(1_664_525)).wrapping_add(1_013_904_223);
        key(n % RECORDS)
    };
    let mut group = c.benchmark_group("txn");
    group.bench_function("image get alone, 250 B of 100 k", |b| {
        b.iter_batched(&mut next, |k| black_box(version.get(&k).is_some()), BatchSize::SmallInput);
    });
    group.bench_function("read one, 250 B of 100 k", |b| {
        b.iter_batched(
            &mut next,
            |k| black_box(Txn::new(&version, Some(&keyring)).get(&k).expect("opens")),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("read one, same key", |b| {
        let k = key(5);
        b.iter(|| black_box(Txn::new(&version, Some(&keyring)).get(black_box(&k)).expect("opens")));
    });
    group.bench_function("read three, write one of 250 B, finish", |b| {
        b.iter_batched(
            || [next(), next(), next()],
            |keys| {
                let mut txn = Txn::new(&version, Some(&keyring));
                keys.iter().for_each(|k| assert!(txn.exists(k)));
                let [write, ..] = keys;
                txn.put(write, b"", &[0x5a; 250]);
                black_box(txn.finish(&mut sealer, Wall(9)).expect("within limits"))
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("list 50 folders over 100 k records", |b| {
        b.iter(|| {
            let mut txn = Txn::new(&version, Some(&keyring));
            let names = txn.list_children(b"\x90\x00\x00\x00\x07app/").expect("text");
            assert_eq!(names.len(), 50);
            black_box(names)
        });
    });

    let mut window = Window::new(Index(1), Window::DEFAULT_OPS);
    let mut at = 1;
    group.bench_function("window: judge and note a small batch", |b| {
        b.iter_batched(
            || {
                let mut txn = Txn::new(&version, Some(&keyring));
                let keys = [next(), next(), next()];
                keys.iter().for_each(|k| txn.guard(k));
                txn.put(next(), b"", b"value");
                txn.finish(&mut sealer, Wall(9)).expect("within limits")
            },
            |done| {
                // fifty batches in flight since the read
                let verdict = window.conflicts(&done.reads, Index((at - 50i64).max(1) as u64));
                at += 1;
                window.note(Index(at as u64), &done.batch.expect("one write"));
                black_box(verdict)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, aead, records, tokens, txns);
criterion_main!(benches);
