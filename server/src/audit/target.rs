//! What a device's options mean, and which files may never be an audit file.
//!
//! Whoever may enable a device chooses where this process appends bytes that a client has a say in, with this
//! process's rights. So a file that is, or could become, a program or a configuration is refused: where it stands,
//! what mode it has or would get, and what text would stand before each entry. It is looked at when a device is
//! enabled and again whenever its file is opened.

use ringfence_base::duration;
use ringfence_node::Device;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a device that is not a plain file may take for a line, unless its options say so.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Permission bits of a new audit file.
const MODE_PRESET: u32 = 0o600;
const EXECUTE_BITS: u32 = 0o111;

/// Where a device's lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Nowhere.
    Discard,
    /// The process's standard output.
    Stdout,
    /// A file; which kind of file shows when it is opened.
    File {
        path: PathBuf,
        /// Permission bits; `None` leaves them as they are.
        mode: Option<u32>,
    },
    /// A socket.
    Socket {
        address: String,
        kind: SocketKind,
        /// `None` waits for ever.
        timeout: Option<Duration>,
    },
    /// The system's log.
    Syslog {
        /// Facility and severity as one number (RFC 3164 4.1.1).
        priority: u8,
        tag: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketKind {
    Tcp,
    Udp,
    Unix,
}

impl Target {
    /// Reads a device's options.
    ///
    /// # Errors
    /// What is wrong with them, in words for the one who enables it.
    pub fn of(device: &Device) -> Result<Target, String> {
        let option = |name: &str| device.options.get(name).map(String::as_str).filter(|text| !text.is_empty());
        if option("prefix").is_some() {
            return Err("the prefix option is not allowed".to_owned());
        }
        for name in ["filter", "exclude", "fallback"] {
            if option(name).is_some() {
                return Err(format!("the {name} option is not supported"));
            }
        }
        match device.kind.as_str() {
            "file" => {
                let mode = mode(option("mode"))?;
                let path = option("file_path").or_else(|| option("path")).ok_or("file_path is required")?;
                Ok(match path {
                    "stdout" | "/dev/stdout" => Target::Stdout,
                    "discard" | "/dev/null" => Target::Discard,
                    path => Target::File { path: path.into(), mode },
                })
            }
            "socket" => Ok(Target::Socket {
                address: option("address").ok_or("address is required")?.to_owned(),
                kind: match option("socket_type").unwrap_or("tcp") {
                    "tcp" => SocketKind::Tcp,
                    "udp" => SocketKind::Udp,
                    "unix" => SocketKind::Unix,
                    other => return Err(format!("unknown socket_type {other:?}: use tcp, udp or unix")),
                },
                timeout: timeout(option("write_timeout"))?,
            }),
            "syslog" => Ok(Target::Syslog {
                priority: facility(option("facility").unwrap_or("AUTH"))? * 8 + SEVERITY_INFO,
                tag: option("tag").unwrap_or("vault").to_owned(),
            }),
            other => Err(format!("unknown backend type: {other:?}")),
        }
    }

    /// How long a line may wait for a device that another thread serves.
    pub fn patience(&self) -> Option<Duration> {
        match self {
            Target::Socket { timeout, .. } => *timeout,
            _ => Some(PATIENCE),
        }
    }
}

fn mode(text: Option<&str>) -> Result<Option<u32>, String> {
    let Some(text) = text else { return Ok(Some(MODE_PRESET)) };
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("mode {text:?} must be permission bits such as \"0600\""))?;
    if mode & EXECUTE_BITS != 0 {
        return Err(format!("mode {text:?} would make the audit file executable"));
    }
    Ok((mode != 0).then_some(mode))
}

fn timeout(text: Option<&str>) -> Result<Option<Duration>, String> {
    let Some(text) = text else { return Ok(Some(PATIENCE)) };
    let ns = duration::parse_ns(text).and_then(|ns| u64::try_from(ns).ok());
    let ns = ns.ok_or_else(|| format!("write_timeout {text:?} is not a duration"))?;
    Ok((ns > 0).then(|| Duration::from_nanos(ns)))
}

/// RFC 3164 4.1.1, table 2.
const SEVERITY_INFO: u8 = 6;

/// RFC 3164 4.1.1, table 1, by their usual short names.
fn facility(name: &str) -> Result<u8, String> {
    const FIRST: [&str; 12] =
        ["KERN", "USER", "MAIL", "DAEMON", "AUTH", "SYSLOG", "LPR", "NEWS", "UUCP", "CRON", "AUTHPRIV", "FTP"];
    let upper = name.to_ascii_uppercase();
    if let Some(number) = FIRST.iter().position(|known| *known == upper) {
        return Ok(number as u8);
    }
    let local = upper.strip_prefix("LOCAL").and_then(|n| n.parse::<u8>().ok()).filter(|n| *n < 8);
    local.map(|n| 16 + n).ok_or_else(|| format!("invalid syslog facility: {name}"))
}

/// Where an audit file may not stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// Nothing directly in these: programs are looked up and configuration is gathered there. What lies deeper is
    /// free, as a program may well stand in the root directory of a container.
    not_in: Vec<PathBuf>,
    /// Nothing below these.
    not_below: Vec<PathBuf>,
    /// Not these.
    not: Vec<PathBuf>,
}

impl Rules {
    /// The executable of this process and its directory.
    pub fn of_process() -> Rules {
        let exe = std::env::current_exe().and_then(|exe| exe.canonicalize());
        Rules { not_in: exe.iter().filter_map(|exe| exe.parent()).map(Path::to_owned).collect(), ..Rules::default() }
    }

    /// Also not a configuration: a file, or a directory of files.
    pub fn add_configuration(&mut self, path: &Path) {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if path.is_dir() { self.not_in.push(path) } else { self.not.push(path) }
    }

    /// Also nowhere below a directory.
    pub fn add_tree(&mut self, path: &Path) {
        self.not_below.push(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
    }

    /// Whether a file may be appended to.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn check(&self, path: &Path) -> Result<(), String> {
        let Some(real) = real_path(path) else {
            // without a directory there is no file to hurt; opening it will say so
            return Ok(());
        };
        let direct = real.parent().is_some_and(|parent| self.not_in.iter().any(|dir| dir == parent));
        let below = self.not_below.iter().any(|dir| real.starts_with(dir));
        if direct || below || self.not.contains(&real) {
            return Err(format!("{path:?} stands among the server's own programs, configuration or data"));
        }
        match real.metadata() {
            Ok(data) if data.is_file() && data.permissions().mode() & EXECUTE_BITS != 0 => {
                Err(format!("{path:?} is executable"))
            }
            _ => Ok(()),
        }
    }
}

/// The path with every symbolic link followed, the last step too if it exists. A dangling link is followed to where
/// opening it would make a file.
fn real_path(path: &Path) -> Option<PathBuf> {
    let mut path = path.to_owned();
    // as many links as the kernel follows
    for _ in 0..40 {
        if let Ok(real) = path.canonicalize() {
            return Some(real);
        }
        let parent = match path.parent()? {
            empty if empty.as_os_str().is_empty() => Path::new("."),
            parent => parent,
        };
        let parent = parent.canonicalize().ok()?;
        match path.read_link() {
            Ok(next) => path = parent.join(next),
            Err(_) => return Some(parent.join(path.file_name()?)),
        }
    }
    None
}

/// An error of the system in the words that Vault's users know: no capital, no number.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::{Scratch, device};

    #[test]
    fn options_are_read_as_vault_reads_them() {
        let of = |kind: &str, options: &[(&str, &str)]| Target::of(&device(kind, options));
        let file = |mode| Target::File { path: "/a/b".into(), mode };
        assert_eq!(of("file", &[("file_path", "/a/b")]).unwrap(), file(Some(0o600)));
        assert_eq!(of("file", &[("file_path", "/a/b"), ("mode", "0640")]).unwrap(), file(Some(0o640)));
        assert_eq!(of("file", &[("file_path", "/a/b"), ("mode", "0000")]).unwrap(), file(None));
        assert_eq!(of("file", &[("file_path", "stdout")]).unwrap(), Target::Stdout);
        assert_eq!(of("file", &[("file_path", "discard")]).unwrap(), Target::Discard);
        let socket = |address: &str, kind, timeout| Target::Socket { address: address.to_owned(), kind, timeout };
        assert_eq!(of("socket", &[("address", "h:1")]).unwrap(), socket("h:1", SocketKind::Tcp, Some(PATIENCE)));
        assert_eq!(
            of("socket", &[("address", "/s"), ("socket_type", "unix"), ("write_timeout", "150ms")]).unwrap(),
            socket("/s", SocketKind::Unix, Some(Duration::from_millis(150)))
        );
        assert_eq!(
            of("socket", &[("address", "h:1"), ("socket_type", "udp"), ("write_timeout", "0")]).unwrap(),
            socket("h:1", SocketKind::Udp, None)
        );
        let syslog = |priority, tag: &str| Target::Syslog { priority, tag: tag.to_owned() };
        assert_eq!(of("syslog", &[]).unwrap(), syslog(4 * 8 + 6, "vault"));
        assert_eq!(of("syslog", &[("facility", "local3"), ("tag", "x")]).unwrap(), syslog(19 * 8 + 6, "x"));
    }

    #[test]
    fn wrong_and_dangerous_options_are_refused() {
        for (kind, options, text) in [
            ("file", &[][..], "file_path is required"),
            ("file", &[("file_path", "")], "file_path is required"),
            ("file", &[("file_path", "/a"), ("mode", "0700")], "executable"),
            ("file", &[("file_path", "/a"), ("mode", "0611")], "executable"),
            ("file", &[("file_path", "/a"), ("mode", "rw")], "permission bits"),
            ("file", &[("file_path", "/a"), ("prefix", "#!/bin/sh\n")], "prefix"),
            ("file", &[("file_path", "/a"), ("filter", "x")], "filter option is not supported"),
            ("socket", &[], "address is required"),
            ("socket", &[("address", "a:1"), ("socket_type", "sctp")], "unknown socket_type"),
            ("socket", &[("address", "a:1"), ("write_timeout", "-3s")], "not a duration"),
            ("syslog", &[("facility", "LOCAL9")], "invalid syslog facility: LOCAL9"),
            ("pigeon", &[], "unknown backend type: \"pigeon\""),
        ] {
            let refused = Target::of(&device(kind, options)).unwrap_err();
            assert!(refused.contains(text), "{kind} {options:?}: {refused}");
        }
    }

    #[test]
    fn files_that_could_run_or_configure_are_refused() {
        let scratch = Scratch::new();
        let (plugins, config, data, logs) =
            (scratch.dir("plugins"), scratch.dir("config.d"), scratch.dir("data"), scratch.dir("logs"));
        std::fs::create_dir(data.join("raft")).unwrap();
        let single = scratch.file("one.hcl", "x = 1");
        let mut rules = Rules { not_in: vec![plugins.canonicalize().unwrap()], ..Rules::default() };
        rules.add_configuration(&config);
        rules.add_configuration(&single);
        rules.add_tree(&data);

        let script = scratch.file("script", "#!/bin/sh");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let link = |name: &str, to: &Path| {
            std::os::unix::fs::symlink(to, logs.join(name)).unwrap();
            logs.join(name)
        };
        for bad in [
            plugins.join("new"),
            plugins.join("../plugins/./new"),
            config.join("z.hcl"),
            single.clone(),
            data.join("raft/segment"),
            script.clone(),
            link("to-script", &script),
            link("to-new-plugin", &plugins.join("not-yet")),
            link("relative", Path::new("../plugins/not-yet")),
            link("dir", &plugins).join("new"),
        ] {
            assert!(rules.check(&bad).is_err(), "{bad:?} was allowed");
        }
        for good in [logs.join("audit.log"), scratch.path.join("one.log"), logs.join("no/such/dir")] {
            assert_eq!(rules.check(&good), Ok(()), "{good:?}");
        }
        let mut own = Rules::of_process();
        own.add_configuration(Path::new("/etc/no-such-config"));
        assert!(own.check(&std::env::current_exe().unwrap().with_file_name("audit.log")).is_err());
    }
}
