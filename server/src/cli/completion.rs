//! Shell completions: `completion <shell>` prints a script, `-autocomplete-install` puts it into the person's own folder.

use super::io::Io;
use super::session::{Outcome, Session, usage};
use super::verb::{Verb, parser, verb};
use clap_complete::Shell;
use std::path::PathBuf;

/// `completion`
pub const COMPLETION: Verb = verb("completion", "<bash|zsh|fish>", "Print a completion script", &[], completion);

fn script(program: &'static str, shell: Shell) -> Vec<u8> {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut parser(program, super::VERBS), program, &mut bytes);
    bytes
}

fn completion(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(1, 1)?;
    let shell: Shell = session.arg(0).parse().map_err(|_| usage("The shell must be one of bash, zsh, fish"))?;
    let bytes = script(session.program, shell);
    let _ = session.io.stdout.write_all(&bytes);
    Ok(0)
}

/// Is this one of the two words that upstream knows?
pub fn is_install(word: &str) -> bool {
    matches!(word.trim_start_matches('-'), "autocomplete-install" | "autocomplete-uninstall") && word.starts_with('-')
}

/// Places, or removes, the scripts in a person's own folders. Bash and fish look there by themselves; zsh needs the folder
/// in its `fpath`. No start-up file of a shell is edited.
pub fn install(io: &mut Io<'_>, program: &'static str, word: &str) -> i32 {
    let Some(home) = io.home.clone() else {
        io.err("There is no home folder to install completions in.");
        return 1;
    };
    let folder = |variable: &str, usual: &str| io.env.get(variable).map_or_else(|| home.join(usual), PathBuf::from);
    let (data, config) = (folder("XDG_DATA_HOME", ".local/share"), folder("XDG_CONFIG_HOME", ".config"));
    let places = [
        (Shell::Bash, data.join("bash-completion/completions").join(program)),
        (Shell::Zsh, data.join("zsh/site-functions").join(format!("_{program}"))),
        (Shell::Fish, config.join("fish/completions").join(format!("{program}.fish"))),
    ];
    for (shell, place) in places {
        let done = if word.ends_with("uninstall") {
            match std::fs::remove_file(&place) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        } else {
            let folder = place.parent().map_or(Ok(()), std::fs::create_dir_all);
            folder.and_then(|()| std::fs::write(&place, script(program, shell)))
        };
        if let Err(error) = done {
            io.err(&format!("{}: {error}", place.display()));
            return 1;
        }
    }
    0
}
