//! The command line: the verbs of Vault's, as clients of the HTTP API.
//!
//! ```text
//! words > args (Go flags become one form) > verb table > parser > Session > Client > server
//!                                                                   |
//!                                                         output (tables, JSON, YAML)
//! ```
//! Driven by the binary's `main` through [`run`]. Nothing here knows the server's insides: even on the server's own machine
//! a command speaks HTTP. Some verbs are no mere clients: `server` is only read here and handed back, `policy fmt` borrows the
//! policies' reader, `pki` the PKI engine's, and `operator diagnose` the configuration's.

pub mod args;
mod audit;
pub mod client;
mod completion;
mod diagnose;
mod dry;
pub mod flags;
mod generate_root;
pub mod io;
mod kv;
mod kv_metadata;
pub mod kvargs;
mod lease;
mod logical;
mod login;
mod login_oidc;
mod mounts;
mod namespace;
mod operator;
pub mod output;
mod pki;
mod pki_health;
mod policy;
mod raft;
mod rekey;
mod request;
pub mod secret;
pub mod server_args;
pub mod session;
mod snapshot;
mod ssh;
mod status;
pub mod tls;
mod token;
pub mod token_file;
mod transit;
mod unbuilt;
mod unix;
pub mod verb;
mod version;
mod watch;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use io::Io;
pub use server_args::{DevArgs, DevKv, ServerArgs};

use flags::Flags;
use session::{Fail, Session};
use verb::{Does, Verb, group};

/// What the caller has to do with a command line.
#[derive(Debug)]
pub enum Command {
    /// The command ran: leave with this code.
    Exit(i32),
    /// Start the server.
    Server(Box<ServerArgs>),
}

/// Every command.
pub static VERBS: &[Verb] = &[
    logical::READ,
    logical::WRITE,
    logical::DELETE,
    logical::LIST,
    logical::PATCH,
    logical::SCAN,
    login::LOGIN,
    server_args::SERVER,
    status::STATUS,
    logical::UNWRAP,
    group("audit", "Work with audit devices", audit::VERBS),
    group("auth", "Work with auth methods", mounts::AUTH_VERBS),
    completion::COMPLETION,
    watch::DEBUG,
    group("kv", "Work with the key-value store", kv::VERBS),
    group("lease", "Work with leases", lease::VERBS),
    watch::MONITOR,
    group("namespace", "Work with namespaces", namespace::VERBS),
    group("operator", "Work with the server itself", operator::VERBS),
    logical::PATH_HELP,
    group("pki", "Work with certificate authorities", pki::VERBS),
    group("policy", "Work with policies", policy::VERBS),
    group("print", "Print what this command line uses", version::PRINT_VERBS),
    group("secrets", "Work with secrets engines", mounts::SECRETS_VERBS),
    ssh::SSH,
    group("token", "Work with tokens", token::VERBS),
    group("transit", "Work with transit keys", transit::VERBS),
    version::VERSION,
    version::VERSION_HISTORY,
    unbuilt::VERBS[0],
    unbuilt::VERBS[1],
    unbuilt::VERBS[2],
    unbuilt::VERBS[3],
];

/// Exit code when no command or an unknown one was named, as upstream's command library answers it.
const UNKNOWN_COMMAND: i32 = 127;

/// Runs a command line; `words[0]` is the name the program was started under.
pub fn run(words: &[String], io: &mut Io<'_>) -> Command {
    let program = program_name(words.first().map_or("", String::as_str));
    let rest = words.get(1..).unwrap_or_default();
    match rest {
        [only] if matches!(only.as_str(), "-v" | "-version" | "--version") => {
            io.out(&version::text());
            return Command::Exit(0);
        }
        [only] if completion::is_install(only) => return Command::Exit(completion::install(io, program, only)),
        _ => {}
    }
    let (line, verb) = match args::read(VERBS, rest) {
        Ok(read) => read,
        Err(text) => {
            io.err(&text);
            return Command::Exit(1);
        }
    };
    let mut parser = verb::parser(program, VERBS);
    let mut all = vec![program.to_owned()];
    all.extend(line.words());
    let matches = match parser.try_get_matches_from_mut(&all) {
        Ok(matches) => matches,
        Err(error) => return Command::Exit(refuse(io, &error, verb)),
    };
    let Some(verb) = verb else { return Command::Exit(UNKNOWN_COMMAND) };
    let mut leaf = &matches;
    while let Some((_, below)) = leaf.subcommand() {
        leaf = below;
    }
    let flags = Flags::from_matches(verb, leaf);
    match verb.does {
        Does::Server => match ServerArgs::from_flags(&flags, io) {
            Ok(args) => Command::Server(Box::new(args)),
            Err(text) => {
                io.err(&text);
                Command::Exit(1)
            }
        },
        Does::Group(_) => Command::Exit(UNKNOWN_COMMAND),
        Does::Run(run) => {
            Command::Exit(match Session::new(io, flags, program).and_then(|mut session| run(&mut session)) {
                Ok(code) => code,
                Err(Fail::Dry(text)) => {
                    io.out(&text);
                    0
                }
                Err(Fail::Error { code, text }) => {
                    io.err(&text);
                    code
                }
            })
        }
    }
}

fn refuse(io: &mut Io<'_>, error: &clap::Error, verb: Option<&'static Verb>) -> i32 {
    use clap::error::ErrorKind;
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            io.out(text.trim_end());
            0
        }
        _ => {
            io.err(text.trim_end());
            // an unknown command and a wrong use of a known one leave with different codes
            if verb.is_some_and(|verb| !matches!(verb.does, Does::Group(_))) { 1 } else { UNKNOWN_COMMAND }
        }
    }
}

/// The name for hints: `vault` and `bao` when started under these names.
fn program_name(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or_default();
    match name {
        "vault" => "vault",
        "bao" => "bao",
        _ => "ringfence",
    }
}
