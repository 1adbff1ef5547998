//! The cluster under test: real processes of the real binary, each with an address, a data directory, a clock and a log
//! file of its own.
//!
//! Whatever is started or mounted here is ended by its own number or path when the value is dropped, on every way out.

use crate::client::{Answer, Client, Trouble};
use crate::command::{run, try_run};
use crate::net::proxy::{Pids, Proxies};
use crate::net::switch::Switch;
use crate::net::{Addresses, Rules};
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for something that a healthy cluster does at once.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Size of a node's own file system, where disk faults are wanted.
const DISK_MIB: u64 = 640;

/// How the nodes are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NetKind {
    /// Namespaces where they can be made, else proxies.
    Auto,
    /// Network namespaces and a switch of packets; needs root and /dev/net/tun.
    Namespaces,
    /// Proxies on loopback; needs nothing.
    Proxies,
}

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many nodes.
    pub nodes: usize,
    /// The server's binary.
    pub binary: PathBuf,
    /// Folder of the run.
    pub folder: PathBuf,
    /// The network.
    pub net: NetKind,
    /// Each node gets a file system of its own, which can be full or slow.
    pub own_disks: bool,
    /// The binary obeys a test clock.
    pub clocks: bool,
}

enum Net {
    Switch(Switch),
    Proxies(Proxies),
}

/// A node's process.
#[derive(Default)]
struct Process {
    child: Option<Child>,
    is_paused: bool,
    /// A fault holds it sealed: nobody unseals it.
    is_kept_sealed: bool,
}

/// One node.
pub struct Node {
    /// `n1` and so on.
    pub name: String,
    /// Configuration, data, log.
    pub dir: PathBuf,
    /// Where it listens.
    pub addresses: Addresses,
    binary: Mutex<PathBuf>,
    process: Mutex<Process>,
    /// Held while somebody works on the process or its files, so that two faults do not meet on one node.
    pub hands: Mutex<()>,
}

/// The cluster.
pub struct Cluster {
    /// In order of their numbers.
    pub nodes: Vec<Node>,
    /// What the network does.
    pub rules: Arc<Rules>,
    /// For the harness's own calls.
    pub client: Client,
    /// How the network was made.
    pub net_name: &'static str,
    plan: Plan,
    pids: Pids,
    secrets: Mutex<(String, String)>,
    mounts: Vec<PathBuf>,
    // last: namespaces go after the processes in them
    _net: Net,
}

fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until something holds.
///
/// # Errors
/// It does not within the time.
pub fn wait_for(what: &str, within: Duration, mut done: impl FnMut() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !done() {
        if begun.elapsed() > within {
            return Err(format!("never within {within:?}: {what}"));
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    Ok(())
}

impl Node {
    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The node's data directory, for faults of its files.
    pub fn data_dir(&self) -> PathBuf {
        self.data().join("raft")
    }

    /// Base of its API.
    pub fn base(&self) -> String {
        format!("http://{}", self.addresses.api)
    }

    /// Its log file.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// It has a process, running or paused.
    pub fn is_up(&self) -> bool {
        locked(&self.process).child.is_some()
    }

    /// Its process's number.
    pub fn pid(&self) -> Option<u32> {
        locked(&self.process).child.as_ref().map(Child::id)
    }

    /// Another binary from its next start on.
    pub fn use_binary(&self, path: &Path) {
        *locked(&self.binary) = path.to_owned();
    }

    /// Nobody unseals it from now on, or somebody may again.
    pub fn keep_sealed(&self, yes: bool) {
        locked(&self.process).is_kept_sealed = yes;
    }

    fn signal(&self, name: &str) -> bool {
        self.pid().is_some_and(|pid| try_run(&["kill", &format!("-{name}"), &pid.to_string()]))
    }
}

impl Cluster {
    /// Makes network and folders; starts nothing.
    ///
    /// # Errors
    /// What cannot be made.
    pub fn build(plan: Plan) -> Result<Cluster, String> {
        let rules = Arc::new(Rules::default());
        let pids: Pids = Arc::new((0..plan.nodes).map(|_| AtomicU32::new(0)).collect());
        let proxies = || Proxies::build(plan.nodes, rules.clone(), pids.clone()).map(Net::Proxies);
        let net = match plan.net {
            NetKind::Namespaces => Net::Switch(Switch::build(plan.nodes, rules.clone())?),
            NetKind::Proxies => proxies()?,
            NetKind::Auto => match Switch::build(plan.nodes, rules.clone()) {
                Ok(s) => Net::Switch(s),
                Err(_) => proxies()?,
            },
        };
        let net_name = match &net {
            Net::Switch(_) => "namespaces",
            Net::Proxies(_) => "proxies",
        };
        let mut nodes = Vec::new();
        for i in 0..plan.nodes {
            let addresses = match &net {
                Net::Switch(s) => s.addresses(i),
                Net::Proxies(p) => p.addresses(i),
            };
            let name = format!("n{}", i + 1);
            let dir = plan.folder.join("nodes").join(&name);
            fs::create_dir_all(dir.join("data")).map_err(|e| format!("{}: {e}", dir.display()))?;
            nodes.push(Node {
                name,
                dir,
                addresses,
                binary: Mutex::new(plan.binary.clone()),
                process: Mutex::default(),
                hands: Mutex::default(),
            });
        }
        let mut cluster = Cluster {
            nodes,
            rules,
            client: Client::new(Duration::from_secs(10)),
            net_name,
            plan,
            pids,
            secrets: Mutex::default(),
            mounts: Vec::new(),
            _net: net,
        };
        if cluster.plan.own_disks {
            cluster.mount_disks()?;
        }
        for i in 0..cluster.nodes.len() {
            // the first node founds the cluster: it must not look for another
            cluster.configure(i, i != 0)?;
        }
        Ok(cluster)
    }

    fn mount_disks(&mut self) -> Result<(), String> {
        for n in &self.nodes {
            let (image, data) = (n.dir.join("disk.img"), n.data());
            let (image, data_text) = (image.display().to_string(), data.display().to_string());
            run(&["truncate", "-s", &format!("{DISK_MIB}M"), &image])?;
            run(&["mkfs.ext4", "-q", "-F", "-m", "0", &image])?;
            run(&["mount", "-o", "loop", &image, &data_text])?;
            self.mounts.push(data);
        }
        Ok(())
    }

    fn configure(&self, i: usize, joins: bool) -> Result<(), String> {
        let n = &self.nodes[i];
        fs::create_dir_all(n.data_dir()).map_err(|e| format!("{}: {e}", n.dir.display()))?;
        let others = self.nodes.iter().enumerate().filter(|(j, _)| *j != i);
        let joins: String = others
            .filter(|_| joins)
            .map(|(_, o)| format!("  retry_join {{\n    leader_api_addr = \"{}\"\n  }}\n", o.base()))
            .collect();
        let a = &n.addresses;
        let text = format!(
            "disable_mlock = true\nstorage \"raft\" {{\n  path = \"{}\"\n  node_id = \"{}\"\n{joins}}}\n\
             listener \"tcp\" {{\n  address = \"{}\"\n  cluster_address = \"{}\"\n  tls_disable = true\n}}\n\
             api_addr = \"http://{}\"\ncluster_addr = \"https://{}\"\n\
             replication {{\n  allow_forwarding_via_header = true\n}}\n",
            n.data_dir().display(),
            n.name,
            a.api_listen,
            a.cluster_listen,
            a.api,
            a.cluster,
        );
        fs::write(n.dir.join("config.hcl"), text).map_err(|e| format!("{}: {e}", n.dir.display()))
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// A cluster has nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The root token.
    pub fn root(&self) -> String {
        locked(&self.secrets).1.clone()
    }

    /// A call by the root token.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn ask(&self, i: usize, method: &str, path: &str, body: &Value) -> Result<Answer, Trouble> {
        self.client.call(&self.nodes[i].base(), method, path, &self.root(), body)
    }

    /// Starts the process of a node; returns when it answers.
    ///
    /// # Errors
    /// It ends at once, with what it said, or does not answer.
    pub fn start(&self, i: usize) -> Result<(), String> {
        let n = &self.nodes[i];
        {
            let mut p = locked(&n.process);
            if p.child.is_some() {
                return Ok(());
            }
            let log = OpenOptions::new().create(true).append(true).open(n.log());
            let log = log.map_err(|e| format!("{}: {e}", n.log().display()))?;
            let binary = locked(&n.binary).display().to_string();
            let config = format!("-config={}", n.dir.join("config.hcl").display());
            let mut words = n.addresses.prefix.clone();
            words.extend([binary, "server".into(), config]);
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            // an interrupt at the keyboard is for the harness, which ends its nodes itself
            command.process_group(0);
            if self.plan.clocks {
                command.env("RINGFENCE_TEST_CLOCK", n.dir.join("clock"));
            }
            let child = command.spawn().map_err(|e| format!("{}: {e}", words.join(" ")))?;
            self.pids[i].store(child.id(), Ordering::Relaxed);
            *p = Process { child: Some(child), is_paused: false, is_kept_sealed: p.is_kept_sealed };
        }
        let patient = Client::new(Duration::from_secs(2));
        let begun = Instant::now();
        loop {
            // whatever the network does to clients: a node is up when it has opened its port
            if patient.call(&n.base(), "GET", "sys/health?standbyok=true", "", &Value::Null).is_ok() {
                return Ok(());
            }
            let ended = locked(&n.process).child.as_mut().and_then(|c| c.try_wait().ok().flatten());
            if let Some(status) = ended {
                self.forget(i);
                let log = fs::read_to_string(n.log()).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                return Err(format!("{} ended with {status}: {}", n.name, last.join(" | ")));
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{} does not answer", n.name));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn forget(&self, i: usize) {
        self.pids[i].store(0, Ordering::Relaxed);
        let mut p = locked(&self.nodes[i].process);
        p.child = None;
        p.is_paused = false;
    }

    /// What a process said last that has ended by itself.
    pub fn last_words(&self, i: usize) -> Option<String> {
        let n = &self.nodes[i];
        let runs = locked(&n.process).child.as_mut().is_none_or(|c| matches!(c.try_wait(), Ok(None)));
        if runs {
            return None;
        }
        let log = fs::read_to_string(n.log()).unwrap_or_default();
        Some(log.lines().last().unwrap_or_default().to_owned())
    }

    /// SIGKILL, to a paused process as well.
    pub fn kill(&self, i: usize) {
        let child = locked(&self.nodes[i].process).child.take();
        if let Some(mut c) = child {
            // it may have ended by itself
            let _ = c.kill();
            let _ = c.wait();
        }
        self.forget(i);
    }

    /// SIGTERM, and SIGKILL if that is not obeyed in time.
    pub fn terminate(&self, i: usize) {
        self.nodes[i].signal("TERM");
        let ended = wait_for("ends", Duration::from_secs(10), || {
            locked(&self.nodes[i].process).child.as_mut().is_none_or(|c| matches!(c.try_wait(), Ok(Some(_))))
        });
        if ended.is_err() {
            self.nodes[i].signal("KILL");
        }
        self.kill(i);
    }

    /// SIGSTOP.
    pub fn pause(&self, i: usize) {
        if self.nodes[i].signal("STOP") {
            locked(&self.nodes[i].process).is_paused = true;
        }
    }

    /// SIGCONT.
    pub fn resume(&self, i: usize) {
        if self.nodes[i].signal("CONT") {
            locked(&self.nodes[i].process).is_paused = false;
        }
    }

    /// Sets the wall clock of a node off by so much.
    pub fn set_clock(&self, i: usize, offset_ms: i64) {
        let dir = &self.nodes[i].dir;
        // replaced whole, so that nobody reads half a number; a failure leaves the clock as it was, which is no fault
        let _ = fs::write(dir.join("clock.new"), offset_ms.to_string())
            .and_then(|()| fs::rename(dir.join("clock.new"), dir.join("clock")));
    }

    /// Whether the node says that it is sealed; `None` if it says nothing.
    pub fn is_sealed(&self, i: usize) -> Option<bool> {
        let a = self.client.call(&self.nodes[i].base(), "GET", "sys/seal-status", "", &Value::Null).ok()?;
        a.body["sealed"].as_bool()
    }

    /// Gives a node the share, until it is unsealed.
    ///
    /// # Errors
    /// It stays sealed.
    pub fn unseal(&self, i: usize) -> Result<(), String> {
        let key = locked(&self.secrets).0.clone();
        let n = &self.nodes[i];
        let mut last = String::new();
        wait_for("unsealed", PATIENCE, || {
            if locked(&n.process).is_kept_sealed {
                return true;
            }
            match self.client.call(&n.base(), "PUT", "sys/unseal", "", &json!({"key": key})) {
                Ok(a) => last = a.error(),
                Err(e) => last = e.to_string(),
            }
            self.is_sealed(i) == Some(false)
        })
        .map_err(|e| format!("{} stays sealed: {e}; {last}", n.name))
    }

    /// Starts and unseals a node that is down.
    ///
    /// # Errors
    /// It does not come up.
    pub fn bring_up(&self, i: usize) -> Result<(), String> {
        self.start(i)?;
        self.unseal(i)
    }

    /// The active node, as the nodes themselves say.
    pub fn leader(&self) -> Option<usize> {
        let quick = Client::new(Duration::from_millis(1500));
        (0..self.len()).find(|i| {
            let base = self.nodes[*i].base();
            self.nodes[*i].is_up()
                && quick
                    .call(&base, "GET", "sys/leader", "", &Value::Null)
                    .is_ok_and(|a| a.is_ok() && (a.body["is_self"] == true || self.len() == 1))
        })
    }

    /// Starts all nodes, makes the cluster, joins and unseals them.
    ///
    /// # Errors
    /// What went wrong.
    pub fn form(&self) -> Result<(), String> {
        self.start(0)?;
        let base = self.nodes[0].base();
        let a = self
            .client
            .call(&base, "PUT", "sys/init", "", &json!({"secret_shares": 1, "secret_threshold": 1}))
            .map_err(|e| format!("init: {e}"))?;
        let text = |v: &Value| v.as_str().map(str::to_owned).ok_or_else(|| format!("init: {}", a.error()));
        *locked(&self.secrets) = (text(&a.body["keys_base64"][0])?, text(&a.body["root_token"])?);
        self.unseal(0)?;
        wait_for("the first node is active", PATIENCE, || self.leader().is_some())?;
        for i in 1..self.len() {
            self.start(i)?;
            self.unseal(i)?;
            wait_for(&format!("{} belongs to the cluster", self.nodes[i].name), PATIENCE, || self.is_voter(i))?;
        }
        // should it lose its disk, it joins like any other
        self.configure(0, true)
    }

    /// Whether the cluster counts a node's vote.
    pub fn is_voter(&self, i: usize) -> bool {
        self.len() == 1
            || (0..self.len()).any(|j| {
                let a = self.ask(j, "GET", "sys/storage/raft/configuration", &Value::Null);
                a.is_ok_and(|a| {
                    let servers = a.body["data"]["config"]["servers"].as_array().cloned().unwrap_or_default();
                    servers.iter().any(|s| s["node_id"] == self.nodes[i].name.as_str() && s["voter"] == true)
                })
            })
    }

    /// Ends every fault that a process can have, and brings everything up.
    ///
    /// # Errors
    /// What does not come up.
    pub fn heal(&self) -> Result<(), String> {
        self.rules.heal();
        for (i, n) in self.nodes.iter().enumerate() {
            if self.plan.clocks {
                self.set_clock(i, 0);
            }
            n.keep_sealed(false);
            if locked(&n.process).is_paused {
                self.resume(i);
            }
            // a process that ended by itself is started again too: the log tells why it did
            let ended = locked(&n.process).child.as_mut().is_some_and(|c| !matches!(c.try_wait(), Ok(None)));
            if ended {
                self.forget(i);
            }
            self.start(i)?;
        }
        for i in 0..self.len() {
            self.unseal(i)?;
        }
        wait_for("a node is active", PATIENCE, || self.leader().is_some())
    }

    /// What the binary says of itself.
    pub fn build_text(&self) -> String {
        let out = Command::new(&self.plan.binary).arg("version").stdin(Stdio::null()).output();
        out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for i in 0..self.nodes.len() {
            self.kill(i);
        }
        for m in &self.mounts {
            if !try_run(&["umount", &m.display().to_string()]) {
                eprintln!("{} is still mounted", m.display());
            }
        }
        for n in &self.nodes {
            // hundreds of megabytes of zeros and sealed bytes, of no use to a reader of the report
            let _ = fs::remove_file(n.dir.join("disk.img"));
            let _ = fs::remove_dir_all(n.data());
        }
    }
}
