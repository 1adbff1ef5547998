//! `ringfence`: server and command line in one binary; it also answers to the names `vault` and `bao`.

use ringfence_server::cli::{self, Command, io::Io};

fn main() {
    let words: Vec<String> = std::env::args_os().map(|w| w.to_string_lossy().into_owned()).collect();
    let (mut stdin, mut stdout, mut stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut io = Io::of_process(&mut stdin, &mut stdout, &mut stderr);
    let code = match cli::run(&words, &mut io) {
        Command::Exit(code) => code,
        Command::Server(args) => ringfence_server::boot::run(&args, &io.env),
    };
    std::process::exit(code);
}
