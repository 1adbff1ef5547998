#![no_main]
use libfuzzer_sys::fuzz_target;
fuzz_target!(|data: &[u8]| ringfence_fuzz_bodies::run("revocation_list", data));
