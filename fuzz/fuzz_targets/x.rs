#![no_main]
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
static NAME: OnceLock<String> = OnceLock::new();
fuzz_target!(|data: &[u8]| {
    let name = NAME.get_or_init(|| {
        if std::env::var("WRITE").is_ok() {
            let root = std::path::Path::new("/tmp/rf/wt/fuzz/fuzz");
            let put = |p: std::path::PathBuf, b: &[u8]| { std::fs::create_dir_all(p.parent().unwrap()).unwrap(); std::fs::write(p, b).unwrap(); };
            for t in ringfence_fuzz_bodies::TARGETS {
                put(root.join(format!("fuzz_targets/{}.rs", t.name)), format!("#![no_main]\nuse libfuzzer_sys::fuzz_target;\nfuzz_target!(|data: &[u8]| ringfence_fuzz_bodies::run(\"{}\", data));\n", t.name).as_bytes());
                put(root.join(format!("dictionaries/{}.dict", t.name)), t.words.iter().map(|w| format!("\"{w}\"\n")).collect::<String>().as_bytes());
                for (seed, data) in (t.seeds)() { put(root.join(format!("corpus/{}/seed-{seed}", t.name)), &data); }
            }
            std::process::exit(0);
        }
        std::env::var("FUZZ_TARGET").unwrap()
    });
    ringfence_fuzz_bodies::run(name, data);
});
