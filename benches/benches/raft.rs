//! The log and the member without a disk: proposals a second by batch size (group commit), and recovery of a log.
//!
//! `cargo bench -p ringfence-benches --bench raft`

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringfence_raft::{
    Checkpoint, DiskOp, Effects, Member, MemberConfig, RecoveryInput, SegmentInput, SegmentNo, log, recover,
};
use std::collections::BTreeMap;
use std::hint::black_box;

const ENTRY_BYTES: usize = 300;

/// What a disk would hold.
#[derive(Clone, Default)]
struct Kept {
    slots: Vec<u8>,
    segments: BTreeMap<SegmentNo, Vec<u8>>,
}

impl Kept {
    fn perform(&mut self, op: &DiskOp) {
        match op {
            DiskOp::WriteLog { segment, offset, bytes, .. } => {
                let at = *offset as usize;
                self.segments.get_mut(segment).expect("a prepared segment")[at..at + bytes.len()]
                    .copy_from_slice(bytes);
            }
            DiskOp::WriteSlot { offset, bytes, .. } => {
                self.slots.resize(log::slots::FILE_BYTES, 0);
                self.slots[*offset as usize..*offset as usize + bytes.len()].copy_from_slice(bytes);
            }
            DiskOp::PrepareSegment { segment, size, .. } => {
                self.segments.insert(*segment, vec![0; *size as usize]);
            }
            DiskOp::RemoveSegment { segment, .. } => {
                self.segments.remove(segment);
            }
        }
    }
}

/// Lets the member act until it rests; every operation is durable at once.
fn settle(m: &mut Member, fx: &mut Effects, mut disk: Option<&mut Kept>) {
    loop {
        m.poll(fx);
        if let Some(last) = fx.committed.last() {
            let (index, term) = (last.position.index, last.position.term);
            m.applied(index);
            if fx.want_checkpoint && disk.is_none() {
                m.checkpointed(Checkpoint { index, term, conf: m.conf() }, Vec::new().into());
            }
        }
        let more = !fx.disk.is_empty() || !fx.committed.is_empty();
        for op in fx.disk.drain(..) {
            if let Some(d) = disk.as_deref_mut() {
                d.perform(&op);
            }
            m.disk_done(op.id(), Ok(()));
        }
        fx.clear();
        if !more {
            return;
        }
    }
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("log append, 300 bytes");
    for batch in [1usize, 16, 64, 256, 1024] {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_with_input(BenchmarkId::from_parameter(batch), &batch, |b, &batch| {
            let (mut m, mut fx) = (Member::bootstrap(MemberConfig::new(1, [7; 16])), Effects::default());
            settle(&mut m, &mut fx, None);
            let data = vec![5u8; ENTRY_BYTES];
            b.iter(|| {
                for _ in 0..batch {
                    black_box(m.propose(data.clone()).expect("a leader with room"));
                }
                settle(&mut m, &mut fx, None);
            });
        });
    }
    group.finish();
}

fn recovery(c: &mut Criterion) {
    let (mut m, mut fx, mut disk) =
        (Member::bootstrap(MemberConfig::new(1, [7; 16])), Effects::default(), Kept::default());
    settle(&mut m, &mut fx, Some(&mut disk));
    const ENTRIES: usize = 50_000;
    for _ in 0..ENTRIES / 64 {
        for _ in 0..64 {
            m.propose(vec![5u8; ENTRY_BYTES]).expect("a leader with room");
        }
        settle(&mut m, &mut fx, Some(&mut disk));
    }
    let mut group = c.benchmark_group("recovery");
    group.sample_size(10).throughput(Throughput::Elements(ENTRIES as u64));
    group.bench_function("50,000 entries of 300 bytes", |b| {
        b.iter_batched(
            || disk.clone(),
            |disk| {
                let segments =
                    disk.segments.iter().map(|(no, s)| SegmentInput { segment: *no, content: s }).collect();
                let input = RecoveryInput { cluster_id: None, slots: &disk.slots, segments, checkpoint: None };
                black_box(recover(input).expect("what was written")).last
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, append, recovery);
criterion_main!(benches);
