use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use ringfence_base::{Entropy, Index, MountId, Term, Wall, entropy::SeededEntropy};

use super::*;
use crate::{Batch, Image, Key, Op, Version};

/// The two golden files: written by the first build with this format, read by every later one.
const GOLDEN_CHUNK: &[u8] = include_bytes!("../../../../tests/golden/checkpoint-chunk-v1.bin");
const GOLDEN_MANIFEST: &[u8] = include_bytes!("../../../../tests/golden/checkpoint-manifest-v1.bin");

fn golden_version() -> Version {
    let records: [(&[u8], &[u8]); 4] = [
        (b"\x01core/mounts", b"sealed mount table"),
        (b"\x81\x00\x00\x00\x07secret/a", b"\x01\x02\x03"),
        (b"\x81\x00\x00\x00\x07secret/ab", b""),
        (b"\x82\x00\x00\x00\x08", &[0xee; 300]),
    ];
    Image::from_sorted(records, Index(42), Wall(1_700_000_000_000_000_000)).expect("sorted").publish()
}

fn identity() -> Identity {
    Identity { cluster: *b"0123456789abcdef", term: Term(3), conf_state: b"voters 1 2 3".to_vec() }
}

fn write(version: &Version, previous: Option<&Manifest>) -> (Manifest, Vec<Chunk>) {
    let mut writer = CheckpointWriter::new(version.clone(), previous);
    let chunks: Vec<Chunk> = std::iter::from_fn(|| writer.next_chunk()).collect();
    (writer.finish(identity()), chunks)
}

fn contents(version: &Version) -> Vec<(Key, Vec<u8>)> {
    version.scan(Bound::Unbounded, Bound::Unbounded).map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
}

fn put(image: &mut Image, index: u64, key: &[u8], value: &[u8]) {
    let ops = vec![Op::Put { key: key.to_vec(), value: value.to_vec() }];
    image.apply(Index(index), &Batch { log_time: Wall(index), ops });
}

#[test]
fn today_s_code_reads_and_writes_the_golden_files() {
    let (manifest, chunks) = write(&golden_version(), None);
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0].bytes, GOLDEN_CHUNK);
    assert_eq!(manifest.encode(), GOLDEN_MANIFEST);
    let read = Manifest::decode(GOLDEN_MANIFEST).expect("today's code reads it");
    assert_eq!(read, manifest);
    let mut image = load(&read, [GOLDEN_CHUNK]).expect("today's code reads it");
    let version = image.publish();
    assert!(contents(&version) == contents(&golden_version()));
    assert_eq!((version.index(), version.log_time()), (Index(42), Wall(1_700_000_000_000_000_000)));
}

#[test]
fn every_flipped_bit_is_found_and_placed() {
    let manifest = Manifest::decode(GOLDEN_MANIFEST).expect("golden");
    for at in 0..GOLDEN_CHUNK.len() {
        for bit in 0..8 {
            let mut bytes = GOLDEN_CHUNK.to_vec();
            bytes[at] ^= 1 << bit;
            let err = load(&manifest, [&bytes]).err().expect("damage is found");
            assert_eq!(err.place, Place::Chunk(1), "byte {at}");
            assert!(err.offset <= bytes.len());
        }
        assert!(load(&manifest, [&GOLDEN_CHUNK[..at]]).is_err());
    }
    for at in 0..GOLDEN_MANIFEST.len() {
        for bit in 0..8 {
            let mut bytes = GOLDEN_MANIFEST.to_vec();
            bytes[at] ^= 1 << bit;
            assert_eq!(Manifest::decode(&bytes).err().map(|e| e.place), Some(Place::Manifest), "byte {at}");
        }
        assert!(Manifest::decode(&GOLDEN_MANIFEST[..at]).is_err());
    }
}

#[test]
fn a_later_format_is_named() {
    let manifest = Manifest::decode(GOLDEN_MANIFEST).expect("golden");
    let mut chunk = GOLDEN_CHUNK.to_vec();
    chunk[5] = 2;
    let err = load(&manifest, [&chunk]).err();
    assert_eq!(err, Some(Corruption { place: Place::Chunk(1), offset: 4, why: Flaw::NewerFormat(2) }));
    let mut bytes = GOLDEN_MANIFEST.to_vec();
    bytes[4] = 1;
    let err = Manifest::decode(&bytes).err();
    assert_eq!(err, Some(Corruption { place: Place::Manifest, offset: 4, why: Flaw::NewerFormat(257) }));
}

/// Chunks that pass their checksum but were never written by us.
#[test]
fn wrongly_written_chunks_are_refused() {
    let forge = |pairs: &[(&[u8], &[u8])], id: u64| {
        let mut builder = ChunkBuilder::new(id);
        pairs.iter().for_each(|(k, v)| builder.push(k, v));
        builder.finish()
    };
    let manifest = |chunks: &[&ChunkMeta]| Manifest {
        identity: identity(),
        index: Index(1),
        log_time: Wall(1),
        next_id: 10,
        chunks: chunks.iter().map(|c| (*c).clone()).collect(),
    };
    let why = |m: &Manifest, chunks: &[&[u8]]| load(m, chunks).err().map(|e| (e.place, e.why));

    let (bad, _, bytes) = forge(&[(b"b", b"1"), (b"a", b"2")], 1);
    assert_eq!(why(&manifest(&[&bad]), &[&bytes]), Some((Place::Chunk(1), Flaw::Unsorted)));
    let (same, _, bytes) = forge(&[(b"b", b"1"), (b"b", b"2")], 1);
    assert_eq!(why(&manifest(&[&same]), &[&bytes]), Some((Place::Chunk(1), Flaw::Unsorted)));
    let (one, _, one_bytes) = forge(&[(b"a", b"1"), (b"c", b"1")], 1);
    let (two, _, two_bytes) = forge(&[(b"b", b"1")], 2);
    let both = manifest(&[&one, &two]);
    assert_eq!(why(&both, &[&one_bytes, &two_bytes]), Some((Place::Chunk(2), Flaw::Unsorted)));
    assert_eq!(why(&both, &[&two_bytes]), Some((Place::Chunk(1), Flaw::NotAsListed)));
    assert_eq!(why(&both, &[&one_bytes]), Some((Place::Chunk(2), Flaw::Missing)));
    let (big, _, bytes) = forge(&[(b"a", &vec![0; ringfence_base::limit::MAX_VALUE_BYTES + 1])], 1);
    assert_eq!(why(&manifest(&[&big]), &[&bytes]), Some((Place::Chunk(1), Flaw::TooLong)));
    assert_eq!(why(&manifest(&[]), &[&one_bytes]), Some((Place::Manifest, Flaw::NotAsListed)));
    let unsorted = manifest(&[&two, &one]).encode();
    assert_eq!(Manifest::decode(&unsorted).err().map(|e| e.why), Some(Flaw::Unsorted));
}

/// An image of several chunks: 12 MiB of values.
fn large() -> (Image, Vec<Key>) {
    let keys: Vec<Key> = (0..3000u32).map(|i| [&[0x81, 0, 0, 0, 1][..], &i.to_be_bytes()].concat()).collect();
    let value = |i: usize| vec![i as u8; 4000];
    let pairs = keys.iter().enumerate().map(|(i, k)| (k, value(i)));
    (Image::from_sorted(pairs, Index(10), Wall(1)).expect("sorted"), keys)
}

#[test]
fn unchanged_chunks_are_kept() {
    let (mut image, keys) = large();
    let (first, chunks) = write(&image.publish(), None);
    assert_eq!(chunks.len(), 3);
    assert!(chunks.iter().all(|c| !c.unchanged && c.bytes.len() == c.meta.len as usize));

    // Nothing happened: all is kept. Also after a load, which knows only the checkpoint's index.
    let files: BTreeMap<u64, Vec<u8>> = chunks.iter().map(|c| (c.meta.id, c.bytes.clone())).collect();
    let mut loaded = load(&first, chunks.iter().map(|c| &c.bytes)).expect("whole");
    for version in [image.publish(), loaded.publish()] {
        let (again, kept) = write(&version, Some(&first));
        assert!(kept.iter().all(|c| c.unchanged));
        assert_eq!(again, first);
        assert_eq!(
            kept.iter().map(|c| &c.last_key).collect::<Vec<_>>(),
            chunks.iter().map(|c| &c.last_key).collect::<Vec<_>>()
        );
    }

    // One write in the middle: the middle is written, under a new number, the rest is kept.
    put(&mut image, 11, &keys[1500], b"new");
    let version = image.publish();
    let (second, chunks) = write(&version, Some(&first));
    assert_eq!(chunks.iter().map(|c| c.unchanged).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(second.chunks.iter().map(|c| c.id).collect::<Vec<_>>(), [1, 4, 3]);
    assert_eq!(second.next_id, 5);
    let mut files = files;
    files.extend(chunks.iter().filter(|c| !c.unchanged).map(|c| (c.meta.id, c.bytes.clone())));
    let mut image2 = load(&second, second.chunks.iter().map(|c| &files[&c.id])).expect("whole");
    assert!(contents(&image2.publish()) == contents(&version));

    // A delete of all of the last range leaves no chunk of it. (Whole nodes vanished here, and the note of the change
    // went to the node beside them but not down to its pages: the chunk was kept, and the deleted came back.)
    let ops = keys[2000..].iter().map(|key| Op::Delete { key: key.clone() }).collect();
    image.apply(Index(12), &Batch { log_time: Wall(1), ops });
    let version = image.publish();
    let (third, chunks) = write(&version, Some(&second));
    assert!(chunks[0].unchanged && chunks.iter().all(|c| c.last_key < keys[2000]));
    files.extend(chunks.iter().filter(|c| !c.unchanged).map(|c| (c.meta.id, c.bytes.clone())));
    let mut image3 = load(&third, third.chunks.iter().map(|c| &files[&c.id])).expect("whole");
    assert!(contents(&image3.publish()) == contents(&version));
}

#[test]
fn chunks_stay_near_their_size() {
    let (mut image, _) = large();
    let mut entropy = SeededEntropy(1);
    let mut manifest = write(&image.publish(), None).0;
    for round in 0..6u64 {
        for i in 0..120u64 {
            let mut noise = [0; 7];
            entropy.fill(&mut noise);
            let key = [&[0x81, 0, 0, 0, 1][..], &noise[..]].concat();
            put(&mut image, 11 + round * 120 + i, &key, &vec![7; 9000]);
        }
        manifest = write(&image.publish(), Some(&manifest)).0;
        let small = manifest.chunks.windows(2).filter(|w| (w[0].len + w[1].len) as usize <= CHUNK_BYTES / 2).count();
        assert_eq!(small, 0, "small chunks side by side");
        assert!(manifest.chunks.iter().all(|c| c.len as usize <= MAX_CHUNK_BYTES));
    }
}

#[test]
fn an_empty_image_is_a_checkpoint_too() {
    let (manifest, chunks) = write(&Image::new().publish(), None);
    assert!(chunks.is_empty() && manifest.chunks.is_empty());
    let manifest = Manifest::decode(&manifest.encode()).expect("whole");
    let mut image = load(&manifest, <[&[u8]; 0]>::default()).expect("whole");
    assert!(image.publish().is_empty());
}

fn small_key() -> impl Strategy<Value = Key> {
    vec(prop::sample::select(vec![0x00u8, 0x01, 0x81, 0xff]), 1..7)
}

fn small_op() -> impl Strategy<Value = Op> {
    let value = (0usize..300, any::<u8>()).prop_map(|(n, b)| vec![b; n]);
    prop_oneof![
        (small_key(), value).prop_map(|(key, value)| Op::Put { key, value }),
        small_key().prop_map(|key| Op::Delete { key }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Recovery equals applying the tail to the loaded image, in everything a version shows.
    #[test]
    fn recovery_equals_load_and_apply(
        records in btree_map(small_key(), vec(any::<u8>(), 0..200), 0..150),
        tail in vec(vec(small_op(), 0..12), 0..12),
    ) {
        let mut image = Image::from_sorted(records.iter(), Index(20), Wall(5)).expect("sorted");
        let (manifest, chunks) = write(&image.publish(), None);
        let files: Vec<&Vec<u8>> = chunks.iter().map(|c| &c.bytes).collect();
        let tail: Vec<(Index, Batch)> = tail
            .into_iter()
            .enumerate()
            .map(|(i, ops)| (Index(19 + i as u64), Batch { log_time: Wall(i as u64 * 3), ops }))
            .collect();
        let encoded: Vec<(Index, Vec<u8>)> = tail.iter().map(|(index, batch)| (*index, batch.encode())).collect();
        let mut rest = Tail::after(manifest.index);
        for (index, batch) in &encoded {
            rest.push(*index, batch).expect("just encoded");
        }
        let mut loader = Loader::new(Some(&manifest), rest);
        for file in &files {
            loader.push(file).expect("whole");
        }
        let mut recovered = loader.finish().expect("whole");
        recovered.check();
        let mut applied = load(&manifest, &files).expect("whole");
        for (index, batch) in tail.iter().filter(|(index, _)| *index > Index(20)) {
            applied.apply(*index, batch);
        }
        let (a, b) = (recovered.publish(), applied.publish());
        prop_assert_eq!(contents(&a), contents(&b));
        prop_assert_eq!((a.index(), a.log_time(), a.bytes()), (b.index(), b.log_time(), b.bytes()));
        for table in [0x00, 0x01, 0x81, 0xff] {
            for mount in [None, Some(MountId(0x0001_81ff)), Some(MountId(0x8181_8181))] {
                prop_assert_eq!(a.changed(table, mount), b.changed(table, mount));
            }
        }
        // The next checkpoint of a recovered image knows what the tail changed.
        let (next, more) = write(&a, Some(&manifest));
        let all: BTreeMap<u64, &Vec<u8>> =
            chunks.iter().chain(more.iter().filter(|c| !c.unchanged)).map(|c| (c.meta.id, &c.bytes)).collect();
        let mut reloaded = load(&next, next.chunks.iter().map(|c| all[&c.id])).expect("whole");
        prop_assert_eq!(contents(&reloaded.publish()), contents(&a));
    }

    /// Before the first checkpoint there is the log alone.
    #[test]
    fn a_tail_without_a_checkpoint_equals_applying_it(tail in vec(vec(small_op(), 0..12), 1..12)) {
        let batches: Vec<Batch> =
            tail.into_iter().zip(1..).map(|(ops, i)| Batch { log_time: Wall(i * 3), ops }).collect();
        let encoded: Vec<Vec<u8>> = batches.iter().map(Batch::encode).collect();
        let (mut rest, mut applied) = (Tail::after(Index(0)), Image::new());
        for (i, batch) in batches.iter().enumerate() {
            // entries of raft's own lie in between
            let index = Index(2 + 2 * i as u64);
            rest.push(index, &encoded[i]).expect("just encoded");
            rest.pass(Index(index.0 + 1));
            applied.apply(index, batch);
            applied.advance(Index(index.0 + 1), Wall(0));
        }
        let mut recovered = Loader::new(None, rest).finish().expect("nothing can be damaged");
        recovered.check();
        let (a, b) = (recovered.publish(), applied.publish());
        prop_assert_eq!(contents(&a), contents(&b));
        prop_assert_eq!((a.index(), a.log_time(), a.bytes()), (b.index(), b.log_time(), b.bytes()));
        for table in [0x00, 0x01, 0x81, 0xff] {
            for mount in [None, Some(MountId(0x0001_81ff)), Some(MountId(0x8181_8181))] {
                prop_assert_eq!(a.changed(table, mount), b.changed(table, mount));
            }
        }
    }

    #[test]
    fn any_manifest_bytes_are_safe(body in vec(any::<u8>(), 0..200), framed: bool) {
        let mut bytes = if framed { b"RFMF\x00\x01".to_vec() } else { Vec::new() };
        bytes.extend_from_slice(&body);
        if framed {
            bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        }
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert_eq!(manifest.encode(), bytes);
        }
    }

    #[test]
    fn any_chunk_bytes_are_safe(body in vec(any::<u8>(), 0..200), entries in 0u32..9, start in 0usize..9) {
        let mut bytes = b"RFCK\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01".to_vec();
        bytes.extend_from_slice(&entries.to_be_bytes());
        // Small lengths, so that a few records parse.
        bytes.extend(body.iter().enumerate().map(|(i, b)| if i % 8 < start { b & 1 } else { *b }));
        let crc32c = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc32c.to_be_bytes());
        let len = bytes.len() as u32;
        let key_len = usize::from(bytes.get(21).copied().unwrap_or(0));
        let first_key = bytes.get(26..26 + key_len).unwrap_or(&[]).to_vec();
        let meta = ChunkMeta { id: 1, first_key, entries, len, crc32c };
        if let Ok(mut reader) = ChunkReader::open(&bytes, &meta) {
            let mut last: Option<Key> = None;
            while let Ok(Some((key, _))) = reader.next_record() {
                prop_assert!(last.as_deref().is_none_or(|l| l < key));
                last = Some(key.to_vec());
            }
        }
    }
}
