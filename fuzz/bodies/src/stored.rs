//! What is read back from a disk or an archive: batches, the log, checkpoints, snapshots, sealed records, batch tokens,
//! unseal shares. A disk may give anything; what it gives is what was written, or a named refusal.

use crate::input::{Input, damage};
use crate::lone::{self, Platter};
use ringfence_barrier::{Issuer, Keyring, Sealer, Txn, parse_share};
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Index, Term, Wall, Writer};
use ringfence_crypto::{Provider, sha256, shamir};
use ringfence_node::snapshot;
use ringfence_raft::SECTOR;
use ringfence_store::stream::load;
use ringfence_store::{Batch, CheckpointWriter, Identity, Image, Manifest, Op, Version};
use std::cell::RefCell;
use std::io::Write;
use std::ops::Bound;

/// A batch that can be read is written again to the same bytes, and fits.
pub fn batch(data: &[u8]) {
    if let Ok(batch) = Batch::decode(data) {
        assert_eq!(batch.encode(), data, "one batch has one encoding");
        assert_eq!(batch.encoded_len(), data.len());
        assert!(batch.fits());
    }
}

/// Where in a log's input the slots file ends, when all of it is raw.
const SLOTS: usize = 4 * SECTOR;

thread_local! {
    static LOG: Platter = lone::written();
}

/// The first byte chooses. Even: the rest is a slots file and one segment, byte for byte. Odd: a good directory,
/// damaged as the rest says: then what is recovered is a prefix of what was written.
pub fn log_recovery(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.u8();
    if mode & 1 == 0 {
        let mut slots = input.bytes(SLOTS).to_vec();
        slots.resize(SLOTS, 0);
        let mut segment = input.all().to_vec();
        segment.resize(segment.len().next_multiple_of(SECTOR), 0);
        let platter = Platter { slots, segments: [(1, segment)].into(), ..Platter::default() };
        let _ = platter.recover(mode & 2 == 0).map_err(|e| e.to_string());
        return;
    }
    LOG.with(|good| {
        let mut bad = good.clone();
        let mut touched = false;
        while !input.is_empty() {
            match input.u8() as usize % (bad.segments.len() + 2) {
                0 => touched |= damage(&mut bad.slots, &mut input, SECTOR),
                1 => {
                    // a file is gone
                    let numbers: Vec<u64> = bad.segments.keys().copied().collect();
                    if !numbers.is_empty() {
                        bad.segments.remove(&input.pick(&numbers));
                        touched = true;
                    }
                }
                k => {
                    let file = bad.segments.values_mut().nth(k - 2).expect("the number is below the count");
                    touched |= damage(file, &mut input, SECTOR);
                }
            }
        }
        match bad.recover(mode & 2 == 0) {
            Ok(found) => {
                let entries: Vec<(Term, Index, &[u8])> = found.entries().map(|(t, i, b)| (t, i, &b[..])).collect();
                let mut wrote = good.log.iter();
                for (term, index, body) in entries {
                    let (t, i, b) = wrote.next().expect("nothing is found that was not written");
                    assert_eq!((Term(*t), Index(*i), &b[..]), (term, index, body), "a prefix of what was written");
                }
                assert!(touched || wrote.next().is_none(), "an untouched log is found whole");
            }
            Err(named) => assert!(touched, "an untouched log is refused: {named}"),
        }
    });
}

thread_local! {
    static CHECKPOINT: (Version, Vec<u8>, Vec<Vec<u8>>) = checkpoint_of(checkpoint_version());
}

/// An image of a few hundred records of many sizes.
fn checkpoint_version() -> Version {
    let mut rng = SeededEntropy(5);
    let mut image = Image::new();
    for index in 1..=40u64 {
        let mut ops = Vec::new();
        for _ in 0..8 {
            let key = format!("{:02x}/{}", rng.next_u64() % 16, rng.next_u64() % 200).into_bytes();
            let value = vec![rng.next_u64() as u8; (rng.next_u64() % 300) as usize];
            ops.push(Op::Put { key, value });
        }
        image.apply(Index(index), &Batch { log_time: Wall(index), ops });
    }
    image.publish()
}

fn checkpoint_of(version: Version) -> (Version, Vec<u8>, Vec<Vec<u8>>) {
    let mut writer = CheckpointWriter::new(version.clone(), None);
    let mut chunks = Vec::new();
    while let Some(chunk) = writer.next_chunk() {
        chunks.push(chunk.bytes);
    }
    let identity = Identity { cluster: *b"cluster-for-fuzz", term: Term(3), conf_state: vec![1, 2, 3] };
    (version, writer.finish(identity).encode(), chunks)
}

/// The first byte chooses. 0: the rest is a manifest. 1: the rest is a manifest's inside, under a right checksum.
/// 2: the rest is a chunk's inside, under a right checksum and a manifest that lists it. 3: a good checkpoint, damaged
/// as the rest says: it is loaded whole or refused.
pub fn checkpoint(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 4 {
        0 => drop(Manifest::decode(input.all()).map_err(|e| e.to_string())),
        1 => {
            if let Ok(m) = Manifest::decode(&framed(b"RFMF", input.all())) {
                assert_eq!(Manifest::decode(&m.encode()).as_ref(), Ok(&m));
                assert!(load(&m, [[0u8; 0]; 0]).is_err() || m.chunks.is_empty());
            }
        }
        2 => one_chunk(&mut input),
        _ => CHECKPOINT.with(|(version, manifest, chunks)| {
            let (mut manifest, mut chunks) = (manifest.clone(), chunks.clone());
            let mut touched = damage(&mut manifest, &mut input, 64);
            for chunk in &mut chunks {
                touched |= damage(chunk, &mut input, 64);
            }
            let loaded = Manifest::decode(&manifest).and_then(|m| load(&m, &chunks));
            match loaded {
                Ok(mut image) => {
                    let found = image.publish();
                    let all = |v: &Version| -> Vec<(Vec<u8>, Vec<u8>)> {
                        v.scan(Bound::Unbounded, Bound::Unbounded).map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
                    };
                    assert_eq!(all(&found), all(version), "never another image");
                    assert_eq!(found.index(), version.index());
                }
                Err(named) => assert!(touched, "an untouched checkpoint is refused: {named}"),
            }
        }),
    }
}

fn framed(magic: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(magic).raw(&1u16.to_be_bytes()).raw(body);
    let sum = crc32c::crc32c(w.as_slice());
    w.be32(sum);
    w.finish()
}

/// `first key (short) | number of records | records`: what checksums cannot catch, a chunk that was written wrongly.
fn one_chunk(input: &mut Input<'_>) {
    let first_key = input.short().to_vec();
    let entries = u32::from(input.u8());
    let mut body = Writer::new();
    body.be64(1).be32(entries).raw(input.all());
    let bytes = framed(b"RFCK", body.as_slice());
    let crc32c = u32::from_be_bytes(*bytes.last_chunk().expect("it ends with its checksum"));
    let meta = ringfence_store::ChunkMeta { id: 1, first_key, entries, len: bytes.len() as u32, crc32c };
    let m = Manifest {
        identity: Identity::default(),
        index: Index(1),
        log_time: Wall(1),
        next_id: 2,
        chunks: vec![meta],
    };
    if let Ok(mut image) = load(&m, [&bytes]) {
        assert_eq!(image.publish().len(), u64::from(entries));
    }
}

/// The first byte chooses. 0: the rest is an archive. 1: a tar of which the rest tells the members, compressed here.
/// 2: a whole archive with right checksums around a state of which the rest is the records.
pub fn snapshot_archive(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 3 {
        0 => drop(snapshot::unpack(input.all(), false)),
        1 => {
            let names = ["meta.json", "state.bin", "SHA256SUMS", "SHA256SUMS.sealed", "other", "../up", ""];
            let mut members = Vec::new();
            while !input.is_empty() && members.len() < 16 {
                members.push((input.pick(&names), input.short().to_vec()));
            }
            drop(snapshot::unpack(&archive(&members), true));
        }
        _ => {
            let state = [b"RFSNAP\x00\x01", input.all()].concat();
            let meta = b"{\"Version\": 1}";
            let sums =
                format!("{}  meta.json\n{}  state.bin\n", hex::encode(sha256(meta)), hex::encode(sha256(&state)));
            let members = [
                ("meta.json", meta.to_vec()),
                ("state.bin", state),
                ("SHA256SUMS", sums.into_bytes()),
                ("SHA256SUMS.sealed", vec![0; 64]),
            ];
            // a state that is refused is refused for itself: everything around it is right
            if let Err(why) = snapshot::unpack(&archive(&members), true) {
                assert!(why.starts_with("the snapshot's state cannot be read: "), "{why}");
            }
        }
    }
}

/// A gzip of a tar.
pub(crate) fn archive(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gz);
    for (name, bytes) in members {
        let mut h = tar::Header::new_gnu();
        h.set_size(bytes.len() as u64);
        h.set_mode(0o600);
        h.set_cksum();
        // a name that tar itself refuses makes an archive without it
        let _ = tar.append_data(&mut h, name, &bytes[..]);
    }
    let mut gz = tar.into_inner().expect("a vector takes everything");
    gz.flush().expect("a vector takes everything");
    gz.finish().expect("a vector takes everything")
}

struct Barrier {
    keyring: Keyring,
    /// Nothing is ever sealed under it: an engine that looks at compared bytes would play a real token back to us.
    unused: Keyring,
    version: Version,
    sealer: RefCell<Sealer>,
}

thread_local! {
    static BARRIER: Barrier = barrier();
}

fn barrier() -> Barrier {
    let mut rng = SeededEntropy(7);
    let keyring = Keyring::generate(Provider::AwsLc, Wall(1), &mut rng);
    let unused = Keyring::generate(Provider::AwsLc, Wall(1), &mut rng);
    let mut image = Image::new();
    let empty = image.publish();
    let mut txn = Txn::new(&empty, None);
    let mut issuer = Issuer::register(&mut txn, "n1", Wall(1), &mut rng);
    let first = txn.finish_clear(Wall(1)).ok().and_then(|f| f.batch).expect("the issuer's record is written");
    image.apply(Index(1), &first);
    let sealer = RefCell::new(issuer.sealer(&keyring));
    Barrier { keyring, unused, version: image.publish(), sealer }
}

/// The first byte chooses. Even: the rest is a record; nobody can make one without the keys. Odd: a record sealed here,
/// damaged as the rest says: it opens to what was sealed or not at all.
pub fn sealed_record(data: &[u8]) {
    let mut input = Input::new(data);
    let raw = input.u8() & 1 == 0;
    let key = input.short();
    BARRIER.with(|b| {
        if raw {
            assert!(b.unused.open(&b.version, key, input.all()).is_err(), "a forged record opens");
            return;
        }
        let (header, plain) = (input.short(), input.short());
        let mut record = b.sealer.borrow_mut().seal(key, header, plain);
        let moved = input.u8() & 1 == 1;
        let at = if moved { [key, b"x"].concat() } else { key.to_vec() };
        let touched = damage(&mut record, &mut input, 8);
        match b.keyring.open(&b.version, &at, &record) {
            Ok(opened) => {
                assert!(!touched && !moved, "a changed or moved record opens");
                assert_eq!((&opened.header[..], &opened.bytes[..]), (header, plain));
            }
            Err(why) => assert!(touched || moved, "an untouched record does not open: {why}"),
        }
    });
}

/// As [`sealed_record`], for the tokens that clients carry.
pub fn batch_token(data: &[u8]) {
    let mut input = Input::new(data);
    let raw = input.u8() & 1 == 0;
    BARRIER.with(|b| {
        if raw {
            assert!(b.unused.open_batch_token(input.all()).is_err(), "a forged token opens");
            return;
        }
        let plain = input.short();
        let mut blob = b.sealer.borrow_mut().seal_batch_token(plain);
        let touched = damage(&mut blob, &mut input, 8);
        match b.keyring.open_batch_token(&blob) {
            Ok(opened) => {
                assert!(!touched, "a changed token opens");
                assert_eq!(opened, plain);
            }
            Err(why) => assert!(touched, "an untouched token does not open: {why}"),
        }
    });
}

/// The first byte chooses. Even: the rest is shares, each with its length, joined. Odd: a secret is split as the script
/// says and joined from some of its shares: enough of them give it back.
pub fn shamir_combine(data: &[u8]) {
    let mut input = Input::new(data);
    if input.u8() & 1 == 0 {
        let mut shares = Vec::new();
        while !input.is_empty() {
            shares.push(input.short());
        }
        if let Ok(secret) = shamir::combine(&shares) {
            let overhead = if shares.len() == 1 { 0 } else { shamir::SHARE_OVERHEAD };
            assert_eq!(secret.len() + overhead, shares[0].len());
        }
        for share in shares {
            let _ = parse_share(&String::from_utf8_lossy(share));
        }
        return;
    }
    let (count, threshold, seed) = (input.u8(), input.u8(), input.u16());
    let secret = input.short();
    let Ok(shares) = shamir::split(secret, count, threshold, &mut SeededEntropy(seed.into())) else { return };
    let mut chosen: Vec<usize> = Vec::new();
    while !input.is_empty() {
        chosen.push(input.below(shares.len()));
    }
    let joined = shamir::combine(&chosen.iter().map(|i| &shares[*i]).collect::<Vec<_>>());
    let mut distinct = chosen.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if shares.len() == 1 && chosen.len() != 1 {
        // the only share is the secret itself; nobody is asked for it twice
    } else if distinct.len() < chosen.len() {
        assert!(joined.is_err(), "a share given twice is refused");
    } else if distinct.len() >= usize::from(threshold) {
        assert_eq!(joined.as_deref(), Ok(secret), "{} of {count} at {threshold}", distinct.len());
    }
}
