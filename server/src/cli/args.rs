//! Reads a command line as Vault's does, and rewrites it so that the parser sees one form only.
//!
//! Scripts write Go flags: one dash or two, `-flag=value` or `-flag value`, booleans without a value, `-h` anywhere. The
//! rewriting knows from the command table which flags take a value, so that a value may begin with a dash. Flags may stand
//! behind the positional arguments (Vault stops reading there and warns); a dashed word behind the first positional that is
//! no flag of the command is taken as data. The result is `verb.. --flag=value.. -- positional..`.

use super::verb::{COMMON, Does, Flag, Kind, Verb};

/// A command line after reading.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The words of the command: `["kv", "get"]`.
    pub path: Vec<String>,
    /// Flags as `--name=value`, in order.
    pub flags: Vec<String>,
    /// Everything else, in order.
    pub positional: Vec<String>,
    /// `-h`, `-help` or `--help` was given.
    pub help: bool,
}

impl Line {
    /// The words for the parser, the program's name not included.
    pub fn words(&self) -> Vec<String> {
        let mut words = self.path.clone();
        if self.help {
            words.push("--help".to_owned());
            return words;
        }
        words.extend(self.flags.iter().cloned());
        if !self.positional.is_empty() {
            words.push("--".to_owned());
            words.extend(self.positional.iter().cloned());
        }
        words
    }
}

/// Reads the words behind the program's name. Answers the text of the refusal for a flag that the command does not have.
pub fn read(table: &'static [Verb], words: &[String]) -> Result<(Line, Option<&'static Verb>), String> {
    let mut line = Line { path: Vec::new(), flags: Vec::new(), positional: Vec::new(), help: false };
    let mut level = table;
    let mut found: Option<&'static Verb> = None;
    // flags given before the command is known (`vault -address=x status`) are kept for it
    let mut early: Vec<&String> = Vec::new();
    let mut rest = words.iter();
    while !matches!(found.map(|verb| verb.does), Some(Does::Run(_) | Does::Server)) {
        let Some(word) = rest.next() else { break };
        if is_help(word) {
            line.help = true;
            continue;
        }
        if word.starts_with('-') && word.len() > 1 {
            early.push(word);
            if let Some(flag) = flag_of(word, COMMON)
                && takes_next(word, flag)
                && let Some(value) = rest.next()
            {
                early.push(value);
            }
            continue;
        }
        let Some(verb) = level.iter().find(|verb| verb.name == word) else {
            line.path.push(word.clone());
            return Ok((line, None));
        };
        line.path.push(word.clone());
        found = Some(verb);
        if let Does::Group(verbs) = verb.does {
            level = verbs;
        }
    }
    let Some(verb) = found else { return Ok((line, None)) };
    if !matches!(verb.does, Does::Group(_)) {
        let words: Vec<&String> = early.into_iter().chain(rest).collect();
        read_flags(verb, &words, &mut line)?;
    }
    Ok((line, Some(verb)))
}

fn read_flags(verb: &'static Verb, words: &[&String], line: &mut Line) -> Result<(), String> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if *word == "--" {
            line.positional.extend(words.map(|word| (*word).clone()));
            return Ok(());
        }
        if !word.starts_with('-') || word.len() == 1 {
            line.positional.push((*word).clone());
            continue;
        }
        let flag = flag_of(word, verb.flags)
            .or_else(|| if matches!(verb.does, Does::Server) { None } else { flag_of(word, COMMON) });
        let Some(flag) = flag else {
            if is_help(word) {
                line.help = true;
                continue;
            }
            if !line.positional.is_empty() {
                line.positional.push((*word).clone());
                continue;
            }
            return Err(format!("flag provided but not defined: -{}", bare_name(word)));
        };
        let value = match word.split_once('=') {
            Some((_, value)) => value.to_owned(),
            None if flag.kind == Kind::Bool => "true".to_owned(),
            None => match words.next() {
                Some(value) => (*value).clone(),
                None => return Err(format!("flag needs an argument: -{}", flag.name)),
            },
        };
        line.flags.push(format!("--{}={value}", flag.name));
    }
    Ok(())
}

fn bare_name(word: &str) -> &str {
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or(word);
    name.split_once('=').map_or(name, |(name, _)| name)
}

fn flag_of(word: &str, flags: &'static [Flag]) -> Option<&'static Flag> {
    let name = bare_name(word);
    flags.iter().find(|flag| flag.name == name || (!flag.alias.is_empty() && flag.alias == name))
}

fn takes_next(word: &str, flag: &Flag) -> bool {
    flag.kind != Kind::Bool && !word.contains('=')
}

fn is_help(word: &str) -> bool {
    matches!(word, "-h" | "--h" | "-help" | "--help")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::VERBS;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn normal(text: &str) -> String {
        read(VERBS, &words(text)).map(|(line, _)| line.words().join(" ")).unwrap_or_else(|error| format!("! {error}"))
    }

    #[test]
    fn go_flags_become_one_form() {
        for (given, expected) in [
            ("status", "status"),
            ("status -format=json", "status --format=json"),
            ("status -format json", "status --format=json"),
            ("-address=http://x status", "status --address=http://x"),
            ("-address http://x status", "status --address=http://x"),
            ("operator init -key-shares=1 --key-threshold 1", "operator init --key-shares=1 --key-threshold=1"),
            ("write -f a/b", "write --force=true -- a/b"),
            ("write a/b -f", "write --force=true -- a/b"),
            ("write -force=false a/b k=-v", "write --force=false -- a/b k=-v"),
            ("write -field=x a/b k=v", "write --field=x -- a/b k=v"),
            ("write a/b -", "write -- a/b -"),
            ("write a/b -unknown=1", "write -- a/b -unknown=1"),
            ("write -unknown=1 a/b", "! flag provided but not defined: -unknown"),
            ("write -field", "! flag needs an argument: -field"),
            ("write -- -field k=v", "write -- -field k=v"),
            ("kv get -mount secret x", "kv get --mount=secret -- x"),
            ("kv metadata get -ns=a secret/x", "kv metadata get --namespace=a -- secret/x"),
            ("kv delete -versions=1 -versions 2 s/x", "kv delete --versions=1 --versions=2 -- s/x"),
            ("secrets tune -max-lease-ttl -1s pki", "secrets tune --max-lease-ttl=-1s -- pki"),
            ("kv get -h", "kv get --help"),
            ("-h", "--help"),
            ("server -dev -dev-root-token-id root", "server --dev=true --dev-root-token-id=root"),
            ("nonsense -x", "nonsense"),
        ] {
            assert_eq!(normal(given), expected, "{given}");
        }
    }
}
