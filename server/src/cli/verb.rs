//! What a command is: its name, its flags and the function behind it, as one table.
//!
//! The table is the only place where a command is declared; the argument reader, the parser, the help texts and the
//! shell completions all derive from it. It runs nothing itself.

use super::session::{Outcome, Session};
use clap::{Arg, ArgAction, Command as ClapCommand};

/// What the value of a flag looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Needs no value; `-flag`, `-flag=true`, `-flag=0`.
    Bool,
    /// Any text.
    Text,
    /// A whole number.
    Int,
    /// Seconds or a duration such as `5m`.
    Duration,
    /// Any text, repeatable.
    List,
    /// `key=value`, repeatable.
    Map,
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The name without dashes.
    pub name: &'static str,
    /// Another name of the same flag, or empty.
    pub alias: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// One sentence for the help.
    pub help: &'static str,
}

/// Declares a flag.
pub const fn flag(name: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { name, alias: "", kind, help }
}

/// Declares a flag with a second name.
pub const fn aliased(name: &'static str, alias: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { name, alias, kind, help }
}

/// What a command does.
#[derive(Clone, Copy)]
pub enum Does {
    /// Holds further commands.
    Group(&'static [Verb]),
    /// Talks to a server and answers the exit code.
    Run(fn(&mut Session<'_, '_>) -> Outcome),
    /// Starts the server: handed back to the caller.
    Server,
}

/// One command.
#[derive(Clone, Copy)]
pub struct Verb {
    /// The word on the command line.
    pub name: &'static str,
    /// One sentence for the help.
    pub about: &'static str,
    /// The positional arguments, for the help.
    pub takes: &'static str,
    /// Its own flags; the common ones are added to every command that runs.
    pub flags: &'static [Flag],
    /// What it does.
    pub does: Does,
}

/// Declares a command that runs.
pub const fn verb(
    name: &'static str,
    takes: &'static str,
    about: &'static str,
    flags: &'static [Flag],
    run: fn(&mut Session<'_, '_>) -> Outcome,
) -> Verb {
    Verb { name, about, takes, flags, does: Does::Run(run) }
}

/// Declares a command that holds others.
pub const fn group(name: &'static str, about: &'static str, verbs: &'static [Verb]) -> Verb {
    Verb { name, about, takes: "<subcommand>", flags: &[], does: Does::Group(verbs) }
}

/// Flags of every command that talks to a server.
pub static COMMON: &[Flag] = &[
    flag("address", Kind::Text, "Address of the server; also VAULT_ADDR. Default https://127.0.0.1:8200."),
    flag("agent-address", Kind::Text, "Address of an agent, used before -address; also VAULT_AGENT_ADDR."),
    flag("ca-cert", Kind::Text, "File with one PEM certificate to verify the server by; also VAULT_CACERT."),
    flag("ca-path", Kind::Text, "Folder with PEM certificates to verify the server by; also VAULT_CAPATH."),
    flag("client-cert", Kind::Text, "File with a PEM certificate to show the server; also VAULT_CLIENT_CERT."),
    flag("client-key", Kind::Text, "File with the PEM key of -client-cert; also VAULT_CLIENT_KEY."),
    aliased("namespace", "ns", Kind::Text, "Namespace to work in; also VAULT_NAMESPACE."),
    flag("tls-server-name", Kind::Text, "Name to expect in the server's certificate; also VAULT_TLS_SERVER_NAME."),
    flag("tls-skip-verify", Kind::Bool, "Do not verify the server's certificate; also VAULT_SKIP_VERIFY."),
    flag("disable-redirects", Kind::Bool, "Do not follow the one redirect a standby may answer with."),
    flag("policy-override", Kind::Bool, "Override a soft-mandatory policy."),
    flag("wrap-ttl", Kind::Duration, "Wrap the response in a token that lives this long; also VAULT_WRAP_TTL."),
    flag("mfa", Kind::List, "Credentials of a second factor; also VAULT_MFA."),
    flag("header", Kind::Map, "A header to add to every request. Repeatable."),
    flag("unlock-key", Kind::Text, "Key that unlocks a locked namespace."),
    flag("output-curl-string", Kind::Bool, "Print the request as a curl command instead of sending it."),
    flag("output-policy", Kind::Bool, "Print a policy that allows the request instead of sending it."),
    flag("non-interactive", Kind::Bool, "Never ask on the terminal."),
    flag("field", Kind::Text, "Print this field only, without a newline unless on a terminal."),
    flag("format", Kind::Text, "table, json, yaml, pretty or raw; also VAULT_FORMAT."),
    flag("detailed", Kind::Bool, "Print more about each entry; also VAULT_DETAILED."),
];

/// The parser of a whole table, ready for completions and help.
pub fn parser(program: &'static str, verbs: &'static [Verb]) -> ClapCommand {
    let root = ClapCommand::new(program)
        .about("A secrets server and its command line")
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg_required_else_help(true);
    verbs.iter().fold(root, |root, verb| root.subcommand(of_verb(verb)))
}

fn of_verb(verb: &'static Verb) -> ClapCommand {
    let mut command = ClapCommand::new(verb.name).about(verb.about).disable_help_subcommand(true);
    match verb.does {
        Does::Group(verbs) => {
            command = command.subcommand_required(true).arg_required_else_help(true);
            return verbs.iter().fold(command, |command, verb| command.subcommand(of_verb(verb)));
        }
        Does::Run(_) => {
            for flag in COMMON.iter().filter(|common| verb.flags.iter().all(|own| own.name != common.name)) {
                command = command.arg(of_flag(flag).help_heading("Common options").hide_short_help(true));
            }
        }
        Does::Server => {}
    }
    for flag in verb.flags {
        command = command.arg(of_flag(flag));
    }
    let arguments = Arg::new("args").num_args(0..).action(ArgAction::Append).allow_hyphen_values(true);
    command.arg(if verb.takes.is_empty() { arguments.hide(true) } else { arguments.value_name(verb.takes) })
}

fn of_flag(flag: &'static Flag) -> Arg {
    let mut arg = Arg::new(flag.name).long(flag.name).help(flag.help).allow_hyphen_values(true);
    if !flag.alias.is_empty() {
        arg = arg.visible_alias(flag.alias);
    }
    match flag.kind {
        Kind::Bool => arg
            .action(ArgAction::Append)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(|text: &str| match go_bool(text) {
                Some(value) => Ok(value.to_string()),
                None => Err("not a boolean".to_owned()),
            }),
        Kind::Text | Kind::List => arg.action(ArgAction::Append).value_name("text"),
        Kind::Int => {
            arg.action(ArgAction::Append).value_name("number").value_parser(|text: &str| match text.parse::<i64>() {
                Ok(_) => Ok(text.to_owned()),
                Err(_) => Err("not a whole number".to_owned()),
            })
        }
        Kind::Duration => arg.action(ArgAction::Append).value_name("duration").value_parser(|text: &str| {
            match ringfence_base::duration::parse_ns(text) {
                Some(_) => Ok(text.to_owned()),
                None => Err("not a duration".to_owned()),
            }
        }),
        Kind::Map => arg.action(ArgAction::Append).value_name("key=value").value_parser(|text: &str| {
            if text.contains('=') { Ok(text.to_owned()) } else { Err("must be key=value".to_owned()) }
        }),
    }
}

/// Reads a boolean in the forms that Go's `strconv.ParseBool` takes.
pub fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
