//! Real database servers for tests, each in a scratch directory on a loopback port of its own.

use crate::harness::Scratch;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server starts within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// The password of the account that makes the others.
pub const ADMIN_PASSWORD: &str = "admin-pass";

/// A PostgreSQL server.
pub struct Postgres {
    child: Option<Child>,
    scratch: Scratch,
    pub port: u16,
    bin: PathBuf,
}

/// A MariaDB server.
pub struct Mariadb {
    child: Option<Child>,
    scratch: Scratch,
    pub port: u16,
}

fn free_port() -> u16 {
    let l = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    l.local_addr().expect("an address").port()
}

/// A command that runs as a system user where we are root: the servers refuse to run as root.
fn as_user(user: &str, program: &Path) -> Command {
    // SAFETY of the test: `id -u` tells who we are
    let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n");
    if !root {
        return Command::new(program);
    }
    let mut c = Command::new("setpriv");
    c.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(program);
    c
}

fn own(user: &str, path: &Path) {
    let _ = Command::new("chown").arg("-R").arg(format!("{user}:{user}")).arg(path).status();
}

fn done(c: &mut Command) {
    let out = c.output().unwrap_or_else(|e| panic!("{c:?}: {e}"));
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    assert!(out.status.success(), "{c:?}: {}{}", text(&out.stdout), text(&out.stderr));
}

fn quiet(c: &mut Command, log: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log).expect("a log file");
    let other = log.try_clone().expect("a second handle");
    c.stdin(Stdio::null()).stdout(log).stderr(other).spawn().unwrap_or_else(|e| panic!("{c:?}: {e}"))
}

fn end(child: &mut Option<Child>, signal: &str) {
    if let Some(mut c) = child.take() {
        let _ = Command::new("kill").args(["-s", signal, &c.id().to_string()]).status();
        let _ = c.wait();
    }
}

impl Postgres {
    /// Makes a cluster with the superuser `admin` and starts it.
    pub fn start() -> Postgres {
        let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed (tests/run does it)");
        let mut bins: Vec<PathBuf> = versions.flatten().map(|e| e.path().join("bin")).collect();
        bins.sort();
        let bin = bins.pop().expect("a version of PostgreSQL");
        let scratch = Scratch::new("postgres");
        let data = scratch.0.join("data");
        std::fs::write(scratch.0.join("pw"), ADMIN_PASSWORD).expect("a password file");
        own("postgres", &scratch.0);
        done(
            as_user("postgres", &bin.join("initdb"))
                .arg("-D")
                .arg(&data)
                .args(["-U", "admin", "-A", "scram-sha-256", "--no-sync", "--no-locale", "-E", "UTF8"])
                .arg(format!("--pwfile={}", scratch.0.join("pw").display())),
        );
        let mut p = Postgres { child: None, scratch, port: free_port(), bin };
        p.resume();
        p
    }

    /// Writes a file into the data directory, owned by the server.
    pub fn file(&self, name: &str, text: &str) {
        let path = self.scratch.0.join("data").join(name);
        std::fs::write(&path, text).expect("a file of the server");
        let _ = Command::new("chmod").arg("600").arg(&path).status();
        own("postgres", &path);
    }

    /// Starts it again.
    pub fn resume(&mut self) {
        let data = self.scratch.0.join("data");
        let mut c = as_user("postgres", &self.bin.join("postgres"));
        c.arg("-D")
            .arg(&data)
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-F", "-k"])
            .arg(&self.scratch.0);
        self.child = Some(quiet(&mut c, &self.scratch.0.join("log")));
        let begun = Instant::now();
        while self.query("admin", ADMIN_PASSWORD, "SELECT 1").is_err() {
            assert!(begun.elapsed() < PATIENCE, "PostgreSQL does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops it at once.
    pub fn stop(&mut self) {
        end(&mut self.child, "QUIT");
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.0.join("log")).unwrap_or_default()
    }

    /// What `psql` prints for a query, as some account.
    pub fn query(&self, user: &str, password: &str, sql: &str) -> Result<String, String> {
        let out = Command::new(self.bin.join("psql"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", user, "-d", "postgres", "-Atqw", "-c", sql])
            .env_clear()
            .env("PGPASSWORD", password)
            .env("PGCONNECT_TIMEOUT", "10")
            .output()
            .map_err(|e| e.to_string())?;
        let text = |b: &[u8]| String::from_utf8_lossy(b).trim().to_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    }

    /// As `admin`.
    pub fn admin(&self, sql: &str) -> String {
        self.query("admin", ADMIN_PASSWORD, sql).expect("a statement of the administrator")
    }

    /// Accounts that were made for leases.
    pub fn accounts(&self) -> Vec<String> {
        let names = self.admin("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%' ORDER BY 1");
        names.lines().map(str::to_owned).collect()
    }

    pub fn url(&self) -> String {
        format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Mariadb {
    /// Makes a server with the account `admin` and starts it.
    pub fn start() -> Mariadb {
        let scratch = Scratch::new("mariadb");
        let data = scratch.0.join("data");
        own("mysql", &scratch.0);
        done(
            as_user("mysql", Path::new("/usr/bin/mariadb-install-db"))
                .arg("--no-defaults")
                .arg(format!("--datadir={}", data.display()))
                .args(["--auth-root-authentication-method=normal", "--skip-test-db"]),
        );
        let port = free_port();
        let mut c = as_user("mysql", Path::new("/usr/sbin/mariadbd"));
        c.arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--port={port}"))
            .arg(format!("--socket={}", scratch.0.join("s").display()))
            .arg(format!("--pid-file={}", scratch.0.join("pid").display()))
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"]);
        let child = Some(quiet(&mut c, &scratch.0.join("log")));
        let m = Mariadb { child, scratch, port };
        let begun = Instant::now();
        let make = format!(
            "CREATE USER 'admin'@'%' IDENTIFIED BY '{ADMIN_PASSWORD}'; GRANT ALL ON *.* TO 'admin'@'%' WITH GRANT OPTION"
        );
        while let Err(why) = m.run(&["-uroot", &format!("--socket={}", m.scratch.0.join("s").display())], &make) {
            assert!(begun.elapsed() < PATIENCE, "MariaDB does not answer: {why}");
            std::thread::sleep(Duration::from_millis(100));
        }
        m
    }

    fn run(&self, login: &[&str], sql: &str) -> Result<String, String> {
        let out = Command::new("mariadb")
            .arg("--no-defaults")
            .args(login)
            .args(["-N", "-B", "-e", sql])
            .output()
            .map_err(|e| e.to_string())?;
        let text = |b: &[u8]| String::from_utf8_lossy(b).trim().to_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    }

    /// What `mariadb` prints for a query, as some account.
    pub fn query(&self, user: &str, password: &str, sql: &str) -> Result<String, String> {
        let login = [format!("-u{user}"), format!("-p{password}"), format!("-P{}", self.port)];
        self.run(&["-h127.0.0.1", &login[0], &login[1], &login[2]], sql)
    }

    pub fn url(&self) -> String {
        format!("{{{{username}}}}:{{{{password}}}}@tcp(127.0.0.1:{})/", self.port)
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        end(&mut self.child, "KILL");
    }
}
