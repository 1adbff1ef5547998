//! `ringfence-jepsen`: see `docs/jepsen.md`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn main() -> ExitCode {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // the run sees the flag and ends everything it started
        if let Err(e) = signal_hook::flag::register(signal, interrupted.clone()) {
            eprintln!("signals cannot be caught: {e}");
            return ExitCode::from(ringfence_jepsen::cli::NOT_RUN);
        }
    }
    ExitCode::from(ringfence_jepsen::cli::main(std::env::args_os(), &interrupted))
}
