//! `operator diagnose`: everything that a start with a configuration would trip over, looked at without starting. No
//! client: it reads the files and this machine, as `server` would, and changes nothing.

use super::session::{Outcome, Session};
use super::verb::{Kind, Verb, flag, verb};
use crate::config::{self, Address, Config, SealKind, Storage};
use crate::ports;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// `operator diagnose`
pub const DIAGNOSE: Verb = verb(
    "diagnose",
    "",
    "Look for what would keep a server from starting",
    &[
        flag("config", Kind::List, "Configuration file, or a folder of them. Repeatable."),
        flag("skip", Kind::List, "A check to leave out. Repeatable."),
        flag("debug", Kind::Bool, "Accepted for old scripts."),
    ],
    diagnose,
);

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Verdict {
    Good,
    Skipped,
    Warned,
    Failed,
}

/// What was found, in the order of the checks.
#[derive(Default)]
struct Report(Vec<(Verdict, &'static str, String)>);

impl Report {
    fn add(&mut self, check: &'static str, verdict: Verdict, text: impl Into<String>) {
        self.0.push((verdict, check, text.into()));
    }

    fn judge(&mut self, check: &'static str, outcome: Result<String, String>) {
        match outcome {
            Ok(text) => self.add(check, Verdict::Good, text),
            Err(text) => self.add(check, Verdict::Failed, text),
        }
    }
}

fn diagnose(session: &mut Session<'_, '_>) -> Outcome {
    session.expect_args(0, 0)?;
    let files: Vec<_> = session.flags.list("config").iter().map(|f| session.io.expand(f)).collect();
    let skipped = session.flags.split_list("skip");
    let mut report = Report::default();
    if files.is_empty() {
        report.add("Parse Configuration", Verdict::Failed, "Must specify a configuration file using -config.");
    } else {
        examine(&files, &session.io.env, &skipped, &mut report);
    }
    let worst = report.0.iter().map(|r| r.0).fold(Verdict::Good, |a, b| if b > a { b } else { a });
    if session.is_table() {
        session.io.out(&format!("Ringfence v{}\n", env!("CARGO_PKG_VERSION")));
        session.io.out("Results:");
        for (verdict, check, text) in &report.0 {
            let mark = match verdict {
                Verdict::Good => "[ success ]",
                Verdict::Skipped => "[ skipped ]",
                Verdict::Warned => "[ warning ]",
                Verdict::Failed => "[ failure ]",
            };
            session.io.out(&format!("{mark} {check}: {text}"));
        }
    } else {
        let rows: Vec<Value> = report
            .0
            .iter()
            .map(|(verdict, check, text)| {
                let status = ["ok", "skipped", "warn", "fail"][*verdict as usize];
                json!({ "name": check, "status": status, "message": text })
            })
            .collect();
        session.print_data(&json!({ "name": "Diagnosis", "children": rows }))?;
    }
    // source: Vault leaves with 1 on failures and 2 on warnings
    Ok(match worst {
        Verdict::Failed => 1,
        Verdict::Warned => 2,
        _ => 0,
    })
}

fn examine(
    files: &[std::path::PathBuf],
    env: &std::collections::BTreeMap<String, String>,
    skipped: &[String],
    report: &mut Report,
) {
    let skips = |check: &str| skipped.iter().any(|s| s.eq_ignore_ascii_case(check));
    machine(report);
    let loaded = match config::load(files, env, Config::default()) {
        Ok(loaded) => loaded,
        Err(e) => return report.add("Parse Configuration", Verdict::Failed, e.to_string()),
    };
    let warnings = loaded.warnings;
    let config = loaded.config;
    let planned = if skips("Check Listeners") { None } else { Some(ports::plan(&config)) };
    match warnings.is_empty() {
        true => report.add("Parse Configuration", Verdict::Good, "no unknown or unserved settings"),
        false => warnings.iter().for_each(|w| report.add("Parse Configuration", Verdict::Warned, w.as_str())),
    }
    if skips("Check Storage") {
        report.add("Check Storage", Verdict::Skipped, "");
    } else {
        storage(&config, report);
    }
    let shamir = config.seals.iter().all(|s| s.kind == SealKind::Shamir);
    report.judge(
        "Check Seal",
        match shamir {
            true => Ok("shamir".into()),
            false => Err("only the shamir seal is served yet; remove the seal stanza".into()),
        },
    );
    match planned {
        None => report.add("Check Listeners", Verdict::Skipped, ""),
        Some(Err(e)) => report.add("Check Listeners", Verdict::Failed, e),
        Some(Ok(mut listeners)) => {
            for l in &config.listeners {
                if let (Address::Tcp(address), None) = (&l.address, &l.tls) {
                    report.add("Check Listener TLS", Verdict::Warned, format!("TLS is disabled on {address}"));
                }
            }
            report.judge(
                "Check Listeners",
                ports::claim(&mut listeners).map(|()| "certificates and addresses are usable".into()),
            );
        }
    }
}

/// Limits of the process.
fn machine(report: &mut Report) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = |name: &str| -> Option<u64> {
        let rest = limits.lines().find_map(|l| l.strip_prefix(name))?;
        let word = rest.split_whitespace().next()?;
        if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() }
    };
    match soft("Max open files") {
        Some(n) if n < 65_536 => report.add(
            "Check Open Files",
            Verdict::Warned,
            format!("the limit of open files is {n}; each connection takes one: raise it to 65536 (LimitNOFILE)"),
        ),
        _ => report.add("Check Open Files", Verdict::Good, "the limit is high enough"),
    }
    let swaps = std::fs::read_to_string("/proc/swaps").is_ok_and(|t| t.lines().count() > 1);
    match soft("Max locked memory") {
        Some(n) if n < u64::MAX && swaps => report.add(
            "Check Locked Memory",
            Verdict::Warned,
            "memory may not be locked without limit and this machine swaps: set LimitMEMLOCK=infinity, or switch swap off",
        ),
        _ => report.add("Check Locked Memory", Verdict::Good, "no swap, or memory may be locked"),
    }
}

fn storage(config: &Config, report: &mut Report) {
    let check = "Check Storage";
    let path = match &config.storage {
        None => return report.add(check, Verdict::Failed, "A storage backend must be specified"),
        Some(Storage::Inmem) => {
            return report.add(check, Verdict::Warned, "inmem: everything is gone with the process");
        }
        Some(Storage::Raft(r)) => &r.path,
        Some(Storage::File { path }) => path,
    };
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let above = path.parent().unwrap_or(Path::new("/"));
            match above.is_dir() {
                true => report.add(check, Verdict::Good, format!("{} will be made at the start", path.display())),
                false => {
                    report.add(check, Verdict::Failed, format!("folder {} does not exist; make it", above.display()))
                }
            }
        }
        Err(e) => report.add(check, Verdict::Failed, format!("{}: {e}", path.display())),
        Ok(found) if !found.is_dir() => {
            report.add(check, Verdict::Failed, format!("{} is no folder", path.display()));
        }
        Ok(found) => {
            if found.mode() & 0o077 != 0 {
                report.add(check, Verdict::Warned, format!("others may look into {}: chmod 700 it", path.display()));
            }
            // access as the kernel sees it, without writing a file into a data directory that may be in use
            match rustix::fs::access(
                path,
                rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
            ) {
                Ok(()) => report.add(check, Verdict::Good, format!("{} can be written", path.display())),
                Err(e) => report.add(check, Verdict::Failed, format!("{} cannot be used: {e}", path.display())),
            }
            if let Ok(room) = rustix::fs::statvfs(path) {
                let free_mib = room.f_bavail.saturating_mul(room.f_frsize) >> 20;
                match free_mib < 1024 {
                    true => report.add("Check Disk Usage", Verdict::Warned, format!("{free_mib} MiB are free")),
                    false => report.add("Check Disk Usage", Verdict::Good, format!("{free_mib} MiB are free")),
                }
            }
        }
    }
}
