//! The image with pages and nodes of their real size against a `BTreeMap`: enough records for three levels, values
//! from nothing to larger than any page, versions published as a group commit would and read after everything else.

use std::collections::BTreeMap;
use std::ops::Bound;

use ringfence_base::{Index, Wall, entropy::SeededEntropy};
use ringfence_store::{Batch, Image, Op, Version};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(n: u64) -> Vec<u8> {
    let mut key = vec![0x81, 0, 0, 0, (n % 3) as u8];
    key.extend_from_slice(format!("secret/data/{:08x}", n.wrapping_mul(0x9e37_79b1) & 0xffff_ffff).as_bytes());
    key
}

fn value(rng: &mut SeededEntropy) -> Vec<u8> {
    let len = match rng.next_u64() % 1000 {
        0 => 300_000,
        1..=20 => 5_000,
        21..=80 => 1_500,
        _ => rng.next_u64() % 300,
    };
    vec![rng.next_u64() as u8; len as usize]
}

fn assert_equal(version: &Version, model: &Model) {
    let all = version.scan(Bound::Unbounded, Bound::Unbounded);
    assert!(all.eq(model.iter().map(|(k, v)| (&k[..], &v[..]))));
    assert_eq!(version.len(), model.len() as u64);
    assert!(model.iter().all(|(k, v)| version.get(k) == Some(v)));
}

#[test]
fn versions_of_a_large_image_equal_their_models() {
    let mut rng = SeededEntropy(42);
    let mut model: Model = (0..9_000).map(|n| (key(n), value(&mut rng))).collect();
    let mut image = Image::from_sorted(&model, Index(1), Wall(1)).expect("a map is sorted");
    let mut kept = vec![(image.publish(), model.clone())];
    for commit in 0..150u64 {
        let mut ops = Vec::new();
        for _ in 0..64 {
            let key = key(rng.next_u64() % 14_000);
            // First mostly growing, then mostly shrinking, so that pages divide and join.
            if rng.next_u64() % 10 < if commit < 75 { 7 } else { 2 } {
                let value = value(&mut rng);
                model.insert(key.clone(), value.clone());
                ops.push(Op::Put { key, value });
            } else {
                model.remove(&key);
                ops.push(Op::Delete { key });
            }
        }
        image.apply(Index(commit + 2), &Batch { log_time: Wall(1), ops });
        let version = image.publish();
        if commit % 50 == 0 {
            kept.push((version, model.clone()));
        }
    }
    assert_equal(&image.publish(), &model);
    kept.iter().for_each(|(version, model)| assert_equal(version, model));
    let version = image.publish();
    for mount in 0..3u8 {
        let prefix = [0x81, 0, 0, 0, mount];
        let expected = model.keys().filter(|k| k.starts_with(&prefix)).count();
        assert_eq!(version.count_prefix(&prefix), expected as u64);
        assert_eq!(version.scan_prefix(&prefix).count(), expected);
    }
}
