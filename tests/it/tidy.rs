//! The house rules as a program: floors, licences, banned words, reachable files.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("server/ is in the root").to_owned()
}

fn metadata() -> Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("json")
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|e| e == "rs") => found.push(path),
            false => {}
        }
    }
}

/// Each crate imports lower floors only.
#[test]
fn floors_hold() {
    let floors: BTreeMap<&str, &[&str]> = [
        ("base", &[][..]),
        ("crypto", &["base"][..]),
        ("store", &["base"][..]),
        ("raft", &["base"][..]),
        ("policy", &["base"][..]),
        ("barrier", &["base", "crypto", "store"][..]),
        ("logical", &["base", "crypto", "store", "barrier", "policy"][..]),
        ("engines", &["base", "crypto", "store", "barrier", "policy", "logical"][..]),
        ("pki", &["base", "crypto", "store", "barrier", "policy", "logical"][..]),
        ("vault", &["base", "crypto", "store", "barrier", "policy", "logical"][..]),
        ("node", &["base", "crypto", "store", "raft", "barrier", "policy", "logical", "engines", "pki", "vault"][..]),
        ("server", &["base", "node"][..]),
    ]
    .into();
    for package in metadata()["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name");
        let Some(allowed) = name.strip_prefix("ringfence-").and_then(|n| floors.get(n)) else { continue };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let is_dev = dependency["kind"] == "dev";
            if let Some(d) = dependency["name"].as_str().and_then(|d| d.strip_prefix("ringfence-")) {
                assert!(is_dev || allowed.contains(&d), "{name} imports {d}");
            }
        }
    }
}

/// Every dependency is under a licence that goes with ours.
#[test]
fn licences_are_compatible() {
    let good =
        ["Apache-2.0", "MIT", "ISC", "BSD", "Unicode", "Zlib", "0BSD", "CC0", "Unlicense", "BSL", "OpenSSL", "CDLA"];
    for package in metadata()["packages"].as_array().expect("packages") {
        let licence = package["license"].as_str().unwrap_or("");
        // file-level copyleft, used as it is: glommio's bit sets
        if (package["name"].as_str(), licence) == (Some("bitmaps"), "MPL-2.0+") {
            continue;
        }
        let any = licence.split([' ', '/', '(', ')']).any(|word| good.iter().any(|g| word.starts_with(g)));
        assert!(any, "{}: licence {licence:?}", package["name"]);
    }
}

/// Each source file is reachable from its crate's root.
#[test]
fn every_file_is_in_a_crate() {
    for dir in ["core", "server"] {
        let mut found = Vec::new();
        sources(&root().join(dir), &mut found);
        for path in found.iter().filter(|p| p.components().any(|c| c.as_os_str() == "src")) {
            let stem = path.file_stem().and_then(|s| s.to_str()).expect("a name");
            if matches!(stem, "lib" | "main") || path.components().any(|c| c.as_os_str() == "bin") {
                continue;
            }
            let (dir, module) = match stem {
                "mod" => {
                    let own = path.parent().expect("a directory");
                    (own.parent().expect("a parent"), own.file_name().and_then(|s| s.to_str()).expect("a name"))
                }
                _ => (path.parent().expect("a directory"), stem),
            };
            let mut homes = vec![dir.join("mod.rs"), dir.join("lib.rs")];
            homes.push(dir.with_extension("rs"));
            let declared = homes.iter().filter_map(|h| std::fs::read_to_string(h).ok()).any(|text| {
                text.lines().any(|l| {
                    l.trim().trim_start_matches("pub ").trim_start_matches("pub(crate) ") == format!("mod {module};")
                })
            });
            assert!(declared, "{} is in no crate", path.display());
        }
    }
}

/// What must not stand in the sources.
#[test]
fn banned_words() {
    let mut found = Vec::new();
    sources(&root().join("core"), &mut found);
    sources(&root().join("server"), &mut found);
    // spelled in two halves so that this file is not its own finding
    let banned = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")];
    for path in found {
        let text = std::fs::read_to_string(&path).expect("a file");
        for word in banned {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
        let statuses = path.ends_with("api/error.rs") || path.components().any(|c| c.as_os_str() == "cli");
        assert!(statuses || !text.contains("StatusCode::"), "{} knows HTTP status numbers", path.display());
    }
}

/// Keyed hashes of different things are made under different kinds: one kind for two lets a name of the one pass for a
/// name of the other.
#[test]
fn no_kind_of_keyed_hash_is_used_twice() {
    let mut found = Vec::new();
    sources(&root().join("core"), &mut found);
    let mut kinds: BTreeMap<u64, String> = BTreeMap::new();
    for path in found {
        let text = std::fs::read_to_string(&path).expect("a source");
        for line in text.lines() {
            let Some((name, rest)) = line.split_once(": HashKind = HashKind(") else { continue };
            // a kind that is only read, for data of before it had its own
            if name.contains("const OLD_") {
                continue;
            }
            let number = rest.split(')').next().and_then(|n| n.parse().ok()).expect("a number");
            if let Some(other) = kinds.insert(number, format!("{} {name}", path.display())) {
                panic!("kind {number}: {} and {other}", kinds[&number]);
            }
        }
    }
    assert!(kinds.len() > 10, "they are found");
}

/// The page of published faults names tests that are there.
#[test]
fn lessons_have_their_tests() {
    let page = std::fs::read_to_string(root().join("docs/lessons.md")).expect("the page");
    let mut found = Vec::new();
    for dir in ["core", "server", "tests"] {
        sources(&root().join(dir), &mut found);
    }
    let all: String = found.iter().map(|path| std::fs::read_to_string(path).expect("a source")).collect();
    let named = page.split('`').filter(|text| text.starts_with("cve_") || text.starts_with("ghsa_"));
    let missing: Vec<_> = named.clone().filter(|name| !all.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(named.count() > 30, "they are found");
}
