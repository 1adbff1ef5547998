//! The program: see the library.

fn main() -> std::process::ExitCode {
    ringfence_load::cli::main(std::env::args_os())
}
