//! The format: a golden file, a round trip, and bytes of any kind.

use super::record::{self, Frame, FrameKind, SectorHead, WriteMark};
use super::slots::{self, Slot, SlotsFound};
use crate::disk::{SECTOR, SegmentNo};
use bytes::Bytes;
use proptest::prelude::*;

const CLUSTER: [u8; 16] = *b"golden cluster 1";

fn frame(kind: FrameKind, term: u64, index: u64, body: &[u8]) -> Frame {
    Frame { kind, term, index, body: Bytes::copy_from_slice(body) }
}

/// Three writes and two slot states that use every feature of version 1, as one file: the slots, then a segment.
fn golden() -> Vec<u8> {
    let mut file = vec![0; slots::FILE_BYTES + 6 * SECTOR];
    for (number, term, vote, commit) in [(1, 1, 0, 0), (2, 2, 77, 1)] {
        let (offset, bytes) = slots::encode(&Slot { cluster_id: CLUSTER, raft_id: 77, number, term, vote, commit });
        file[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    let large: Vec<u8> = (0..9000u32).map(|i| (i * 7) as u8).collect();
    let writes = [
        vec![frame(FrameKind::Conf, 1, 1, &[0x12, 0x02, 0x10, 0x4d])],
        vec![frame(FrameKind::Entry, 2, 2, b""), frame(FrameKind::Entry, 2, 3, &large)],
        vec![frame(FrameKind::Reset, 2, 3, b""), frame(FrameKind::Entry, 3, 4, b"after a checkpoint")],
    ];
    let (mut offset, mut mark) = (0, WriteMark::default());
    for (commit, frames) in writes.iter().enumerate() {
        let (bytes, next) = record::encode_write(&CLUSTER, SegmentNo(1), offset, commit as u64, &mark, frames);
        file[slots::FILE_BYTES + offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        offset += bytes.len() as u64;
        mark = next;
    }
    file
}

/// Tomorrow's build reads today's disk. To change the format, give it a new version and keep this file readable.
#[test]
fn the_golden_file_is_read_and_written_alike() {
    let stored: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/log-v1.bin"));
    assert!(stored == golden(), "today's bytes differ from version 1");

    let (slots_file, segment) = stored.split_at(slots::FILE_BYTES);
    let newest = Slot { cluster_id: CLUSTER, raft_id: 77, number: 2, term: 2, vote: 77, commit: 1 };
    assert_eq!(slots::decode(slots_file), SlotsFound::State(newest));
    let mut indexes = Vec::new();
    let mut at = 0;
    while let Some(header) = record::read_header(&segment[at..at + SECTOR]) {
        let len = header.sectors as usize * SECTOR;
        let frames = record::read_frames(&header, &segment[at..at + len]).expect("whole");
        indexes.extend(frames.iter().map(|f| (f.term, f.index, f.body.len())));
        at += len;
        if at + SECTOR > segment.len() {
            break;
        }
    }
    assert_eq!(indexes, [(1, 1, 4), (2, 2, 0), (2, 3, 9000), (2, 3, 0), (3, 4, 18)]);
}

/// Writes the golden file anew: `cargo test -p ringfence-raft -- --ignored write_golden`.
#[test]
#[ignore = "rewrites tests/golden/log-v1.bin"]
fn write_golden() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/log-v1.bin");
    #[expect(clippy::disallowed_methods, reason = "a test that makes a file")]
    std::fs::write(path, golden()).unwrap();
}

/// A body cannot pass for the beginning of a write, even if it holds one.
#[test]
fn a_write_within_a_body_is_no_write() {
    let (inner, _) = record::encode_write(
        &CLUSTER,
        SegmentNo(1),
        0,
        0,
        &WriteMark::default(),
        &[frame(FrameKind::Entry, 1, 1, b"inner")],
    );
    for shift in 0..64 {
        let body = [vec![0; shift], inner.clone(), inner.clone(), inner.clone()].concat();
        let (outer, _) = record::encode_write(
            &CLUSTER,
            SegmentNo(1),
            0,
            0,
            &WriteMark::default(),
            &[frame(FrameKind::Entry, 1, 1, &body)],
        );
        assert!(outer.chunks(SECTOR).skip(1).all(|s| record::read_header(s).is_none()));
    }
}

#[test]
fn slot_states_that_contradict_each_other_are_damage() {
    let state =
        |number, term, vote| slots::encode(&Slot { cluster_id: CLUSTER, raft_id: 1, number, term, vote, commit: 0 });
    let file = |states: [(u64, Vec<u8>); 2]| {
        let mut file = vec![0; slots::FILE_BYTES];
        for (offset, bytes) in states {
            file[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        slots::decode(&file)
    };
    assert!(matches!(file([state(3, 5, 1), state(4, 6, 2)]), SlotsFound::State(Slot { number: 4, .. })));
    assert_eq!(file([state(3, 5, 1), state(4, 5, 2)]), SlotsFound::Damaged, "two votes in one term");
    assert_eq!(file([state(3, 6, 1), state(4, 5, 1)]), SlotsFound::Damaged, "the term went back");
    assert_eq!(slots::decode(&[]), SlotsFound::Blank);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..Default::default() })]

    #[test]
    fn writes_survive(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6000), 1..8),
        first in 1..1000u64,
        commit in 0..2000u64,
        bit in any::<u64>(),
    ) {
        let frames: Vec<Frame> =
            (first..).zip(&bodies).map(|(index, body)| frame(FrameKind::Entry, 3, index, body)).collect();
        let prev = WriteMark { seq: 4, segment: 8, offset: 4096, sectors: 1, ..Default::default() };
        let (mut bytes, mark) = record::encode_write(&CLUSTER, SegmentNo(9), 8192, commit, &prev, &frames);
        let frames_bytes = frames.iter().map(Frame::encoded_len).sum();
        prop_assert_eq!(bytes.len(), record::write_len(frames_bytes));
        prop_assert_eq!(record::sector_head(&bytes[..SECTOR]), SectorHead::First { seq: 5 });
        let header = record::read_header(&bytes[..SECTOR]).unwrap();
        prop_assert_eq!(header.prev, prev);
        prop_assert_eq!(header.commit, commit.min(mark.last_index));
        prop_assert_eq!(record::read_frames(&header, &bytes).unwrap(), frames);
        // any flipped bit is seen
        let bit = (bit % (bytes.len() as u64 * 8)) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        let seen = record::read_header(&bytes[..SECTOR]).and_then(|h| record::read_frames(&h, &bytes));
        prop_assert!(seen.is_none());
    }
}
