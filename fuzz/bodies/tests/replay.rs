//! Replays every corpus on the stable toolchain, then some thousand mutations of it, the same ones each time.

use ringfence_base::entropy::SeededEntropy;
use ringfence_fuzz_bodies::{TARGETS, Target, mutate};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("bodies/ is in fuzz/").to_owned()
}

fn corpus(target: &Target) -> BTreeMap<String, Vec<u8>> {
    let dir = fuzz().join("corpus").join(target.name);
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        found.insert(name, std::fs::read(entry.path()).expect("a readable file"));
    }
    found
}

/// Runs a body; a panic names the input, so that it can be kept as a file.
fn survive(target: &Target, what: &str, data: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.body)(data))).is_err() {
        let hex: String = data.iter().map(|b| format!("{b:02x}")).collect();
        panic!("{} breaks over {what}\nas text: {:?}\nin hex: {hex}", target.name, String::from_utf8_lossy(data));
    }
}

/// A target's corpus, then its mutations. `RINGFENCE_FUZZ_MUTATIONS` makes more of them, `RINGFENCE_FUZZ_SEED` others.
fn replay(name: &str) {
    let target = TARGETS.iter().find(|t| t.name == name).expect("a target of the table");
    let corpus = corpus(target);
    for (name, data) in &corpus {
        survive(target, name, data);
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let mut rng = SeededEntropy(number("RINGFENCE_FUZZ_SEED").unwrap_or(1));
    let runs = number("RINGFENCE_FUZZ_MUTATIONS").unwrap_or(target.smoke.into());
    let inputs: Vec<&Vec<u8>> = corpus.values().collect();
    for run in 0..runs {
        let pick = |rng: &mut SeededEntropy| inputs[(rng.next_u64() % inputs.len() as u64) as usize];
        let (from, other) = (pick(&mut rng), pick(&mut rng));
        let data = mutate::mutated(&mut rng, from, other, target.words);
        survive(target, &format!("mutation {run}"), &data);
    }
}

macro_rules! replays {
    ($($(#[$when:meta])* $name:ident)*) => {
        $($(#[$when])* #[test] fn $name() { replay(stringify!($name)); })*
        const REPLAYED: &[&str] = &[$($(#[$when])* stringify!($name)),*];
    };
}

replays! {
    acl_model
    acme_request
    batch
    batch_token
    certificate_bundle
    certificate_request
    checkpoint
    #[cfg(feature = "shell")]
    cli_arguments
    #[cfg(feature = "shell")]
    configuration
    duration
    fields
    hcl
    #[cfg(feature = "shell")]
    http_request
    #[cfg(feature = "shell")]
    json_envelope
    log_recovery
    node_step
    ocsp_request
    password_policy
    path
    peer_frames
    policy
    revocation_list
    sealed_record
    shamir_combine
    snapshot_archive
    sql_statements
    ssh_key
    template
    totp_address
    username_template
}

fn dictionary(target: &Target) -> String {
    target.words.iter().map(|w| format!("\"{w}\"\n")).collect()
}

fn libfuzzer(target: &Target) -> String {
    format!(
        "#![no_main]\nuse libfuzzer_sys::fuzz_target;\nfuzz_target!(|data: &[u8]| ringfence_fuzz_bodies::run(\"{}\", data));\n",
        target.name
    )
}

/// The files on disk are those of the table.
#[test]
fn files_agree_with_the_table() {
    let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
    assert_eq!(names, REPLAYED, "each target is replayed");
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).expect("the manifest");
    for target in TARGETS {
        let name = target.name;
        let text =
            |path: PathBuf| std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(text(fuzz().join(format!("fuzz_targets/{name}.rs"))), libfuzzer(target));
        assert_eq!(text(fuzz().join(format!("dictionaries/{name}.dict"))), dictionary(target));
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is in the manifest");
        let corpus = corpus(target);
        for (seed, data) in (target.seeds)() {
            assert!(
                corpus.get(&format!("seed-{seed}")) == Some(&data),
                "{name}/seed-{seed} is not as the code makes it"
            );
        }
    }
}

/// Writes seeds, dictionaries and targets anew:
/// `cargo test -p ringfence-fuzz-bodies --test replay -- --ignored write_files`.
#[test]
#[ignore = "rewrites files below fuzz/"]
fn write_files() {
    let put = |path: PathBuf, bytes: &[u8]| {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
        std::fs::write(&path, bytes).expect("a writable file");
    };
    for target in TARGETS {
        put(fuzz().join(format!("fuzz_targets/{}.rs", target.name)), libfuzzer(target).as_bytes());
        put(fuzz().join(format!("dictionaries/{}.dict", target.name)), dictionary(target).as_bytes());
        for (seed, data) in (target.seeds)() {
            put(fuzz().join(format!("corpus/{}/seed-{seed}", target.name)), &data);
        }
    }
}
