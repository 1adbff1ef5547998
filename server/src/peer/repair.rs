//! Before a node of several takes part in anything: is its directory whole, and as new as the others know it? If not, it is
//! taken back under a new raft id, and begins empty.
//!
//! ```text
//!   recovery says: damaged ──┐                      ┌── not reached, not active: again, for a while; then stop
//!   a process marked it lost ├─> comeback file ──> ask each member ── taken in ──> set aside ──> start as a new member
//!   a member says: older ────┘   (old id, new id)
//! ```
//! The file with the new id is durable before it is first said, and stays until the new directory has a log, so whatever
//! is cut short is taken up again under the same id. Nothing of the damaged directory is changed before the cluster has
//! answered, and nothing of it is deleted.
//!
//! Driven by the start, on a thread that may block; no core runs yet. Never starts a member itself.

use super::heard::Boot;
use super::hello::{self, Hello, Refusal};
use super::identity::{self, Identity, Shown};
use super::{MAX_CONTROL_BYTES, authority, tls};
use crate::disk::{Directory, OpenError};
use crate::telemetry::{self, Level};
use ringfence_base::Index;
use ringfence_node::{Found, Lane, MemberRecord, Returned, Returning};
use rustls::{ClientConnection, StreamOwned};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// One question to one member.
const DIAL: Duration = Duration::from_millis(1500);
const ANSWER: Duration = Duration::from_secs(3);
/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(300);
/// A member that is up but does not yet take us is asked so often before a whole directory starts without its word.
const CHECKS: usize = 6;

/// What to start with.
pub enum Home {
    /// The directory as it was found.
    Found(Option<Box<Found>>),
    /// As this new member of this cluster, without data.
    Anew {
        /// The cluster.
        cluster: [u8; 16],
        /// The new raft id.
        raft_id: u64,
        /// All members.
        members: BTreeMap<u64, MemberRecord>,
    },
}

impl Home {
    /// The directory as it was found.
    pub fn found(found: Option<Found>) -> Home {
        Home::Found(found.map(Box::new))
    }
}

/// The node that comes back.
struct Comer<'a> {
    directory: &'a Directory,
    identity: &'a Identity,
    boot: Boot,
}

/// An id given up for another, as the comeback file keeps it.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    cluster: [u8; 16],
    old: u64,
    new: u64,
    why: String,
}

impl Change {
    fn encode(&self) -> String {
        format!("{} {:x} {:x} {}\n", hex::encode(self.cluster), self.old, self.new, self.why.replace('\n', " "))
    }

    fn decode(text: &str) -> Option<Change> {
        let mut words = text.trim_end().splitn(4, ' ');
        let cluster = hex::decode(words.next()?).ok()?.try_into().ok()?;
        let mut id = || u64::from_str_radix(words.next()?, 16).ok();
        Some(Change { cluster, old: id()?, new: id()?, why: words.next().unwrap_or_default().to_owned() })
    }
}

/// Settles what a node of several starts with. `draw` makes a fresh raft id.
///
/// # Errors
/// The directory is damaged and nobody takes the node back: where, and what to do.
pub fn come_home(
    directory: &Directory,
    identity: &Identity,
    boot: Boot,
    found: Result<Option<Found>, OpenError>,
    draw: impl FnOnce() -> u64,
    patience: Duration,
) -> Result<Home, String> {
    let comer = Comer { directory, identity, boot };
    let plain = |e: OpenError| e.to_string();
    let pending = std::fs::read_to_string(comer.comeback()).ok().and_then(|text| Change::decode(&text));
    let own = directory.identity();
    if let Some(change) = pending {
        // the new directory has begun its log: all is done
        if own.is_some_and(|(_, id)| id == change.new) && !matches!(&found, Ok(None)) {
            comer.finished()?;
        } else {
            return comer.come_back(&change, patience);
        }
    }
    let Some((cluster, old)) = own else { return found.map(Home::found).map_err(plain) };
    let others = comer.others(old);
    if others.is_empty() {
        return found.map(Home::found).map_err(plain);
    }
    let why = match (&found, directory.lost()) {
        (Err(OpenError::Corrupt(_, why)), _) => Some(why.clone()),
        (Ok(Some(_)), Some(why)) => Some(why),
        (Ok(Some(f)), None) => comer.is_older(cluster, old, f.last(), &others),
        _ => None,
    };
    let Some(why) = why else { return found.map(Home::found).map_err(plain) };
    let change = Change { cluster, old, new: draw(), why };
    identity::write(identity.folder(), "comeback", change.encode().as_bytes())?;
    comer.come_back(&change, patience)
}

impl Comer<'_> {
    fn comeback(&self) -> std::path::PathBuf {
        self.identity.folder().join("comeback")
    }

    /// Everybody else, as last heard of.
    fn others(&self, own: u64) -> BTreeMap<u64, MemberRecord> {
        let mut others = self.identity.kept_members();
        others.remove(&own);
        others
    }

    fn finished(&self) -> Result<(), String> {
        std::fs::remove_file(self.comeback()).map_err(|e| format!("cannot remove {}: {e}", self.comeback().display()))
    }

    /// What speaks against a directory that seems whole, if somebody who is up knows better.
    fn is_older(
        &self,
        cluster: [u8; 16],
        own: u64,
        last: Index,
        others: &BTreeMap<u64, MemberRecord>,
    ) -> Option<String> {
        for record in others.values() {
            for attempt in 0..CHECKS {
                match self.ask(cluster, own, record, &Returning { last, replace: None }) {
                    Ok(Returned::Older(why)) => return Some(why),
                    Ok(_) => break,
                    Err(Unanswered::Refused(r)) if r.older => return Some(r.why),
                    // the connections of the process before may not be given up yet
                    Err(Unanswered::Refused(_)) if attempt + 1 < CHECKS => std::thread::sleep(PAUSE),
                    // whoever hears more of this node later judges it then
                    Err(_) => break,
                }
            }
        }
        None
    }

    /// Asks until the cluster has taken the node in under its new id; then makes the directory ready for it.
    fn come_back(&self, change: &Change, patience: Duration) -> Result<Home, String> {
        let place = self.directory.path().display();
        telemetry::log(
            Level::Error,
            &format!(
                "data directory {place} cannot be used as it is: {}. Nothing of it is served; this node asks the others \
                 to take it back as a new member ({:x} in place of {:x})",
                change.why, change.new, change.old
            ),
        );
        let asks = Returning { last: Index(0), replace: Some(change.new) };
        let (mut waited, mut last_said) = (Duration::ZERO, String::new());
        loop {
            let mut heard = Vec::new();
            let mut others = self.others(change.old);
            others.remove(&change.new);
            for record in others.values() {
                let why = match self.ask(change.cluster, change.old, record, &asks) {
                    Ok(Returned::Taken { cluster, members }) if cluster == change.cluster => {
                        return self.begin_anew(change, members);
                    }
                    Ok(Returned::Never(why)) => {
                        return Err(self.hopeless(change, &format!("node {:?} refuses: {why}", record.name)));
                    }
                    Ok(_) => "is not active, or has not done it yet".to_owned(),
                    Err(Unanswered::Refused(r)) => r.why,
                    Err(Unanswered::Failed(why)) => why,
                };
                heard.push(format!("node {:?} at {}: {why}", record.name, record.cluster_addr));
            }
            let said = heard.join("; ");
            if said != last_said {
                telemetry::log(Level::Warn, &format!("not taken back yet: {said}"));
            }
            last_said = said;
            if waited >= patience {
                let why = format!("no active node took it back within {} s ({last_said})", patience.as_secs());
                return Err(self.hopeless(change, &why));
            }
            std::thread::sleep(PAUSE);
            waited += PAUSE;
        }
    }

    fn hopeless(&self, change: &Change, why: &str) -> String {
        format!(
            "Error initializing storage: data directory {} is damaged: {}; and {why}. Nothing was changed. Start this \
             node again when most of the other nodes are up and unsealed; or, if no good copy is left, restore a \
             snapshot into a new cluster, or a copy of the disk",
            self.directory.path().display(),
            change.why
        )
    }

    fn begin_anew(&self, change: &Change, members: BTreeMap<u64, MemberRecord>) -> Result<Home, String> {
        Identity::keep_members(self.identity.folder(), &members)?;
        let aside = self.directory.set_aside(change.old).map_err(|e| e.to_string())?;
        self.directory.forget_lost().map_err(|e| e.to_string())?;
        telemetry::log(
            Level::Warn,
            &format!(
                "taken back as member {:x}; the data comes from the active node. What the directory held is in {} and \
                 may be removed when this node has caught up",
                change.new,
                aside.display()
            ),
        );
        Ok(Home::Anew { cluster: change.cluster, raft_id: change.new, members })
    }

    /// One question to one member, by the certificate in use, or by an older one if the member knows no other.
    fn ask(
        &self,
        cluster: [u8; 16],
        from: u64,
        record: &MemberRecord,
        asks: &Returning,
    ) -> Result<Returned, Unanswered> {
        let mut said = Err(Unanswered::Failed("no certificate".into()));
        for shown in self.identity.newest_first() {
            said = self.ask_as(shown, cluster, from, record, asks);
            if !matches!(&said, Err(Unanswered::Refused(r)) if !r.older) {
                break;
            }
        }
        said
    }

    /// One question on a connection of its own.
    fn ask_as(
        &self,
        shown: &Shown,
        cluster: [u8; 16],
        from: u64,
        record: &MemberRecord,
        asks: &Returning,
    ) -> Result<Returned, Unanswered> {
        let failed = |e: &dyn std::fmt::Display| Unanswered::Failed(e.to_string());
        let mut addresses = authority(&record.cluster_addr).to_socket_addrs().map_err(|e| failed(&e))?;
        let address = addresses.next().ok_or_else(|| Unanswered::Failed("no address".into()))?;
        let tcp = TcpStream::connect_timeout(&address, DIAL).map_err(|e| failed(&e))?;
        tcp.set_read_timeout(Some(ANSWER)).map_err(|e| failed(&e))?;
        tcp.set_write_timeout(Some(ANSWER)).map_err(|e| failed(&e))?;
        let config = tls::client(shown, &record.pins).map_err(|e| failed(&e))?;
        let name = tls::name_of(record.pins.last()).map_err(|e| failed(&e))?;
        let mut stream = StreamOwned::new(ClientConnection::new(config, name).map_err(|e| failed(&e))?, tcp);
        let hello = Hello {
            version: hello::VERSION,
            cluster,
            from,
            to: 0,
            lane: Lane::Return,
            minor: hello::MINOR,
            boot: Some(self.boot),
        };
        send(&mut stream, &hello.encode()).map_err(|e| failed(&e))?;
        let verdict = receive(&mut stream).map_err(|e| failed(&e))?;
        hello::read_verdict(&verdict).map_err(Unanswered::Refused)?;
        send(&mut stream, &asks.encode()).map_err(|e| failed(&e))?;
        let said = receive(&mut stream).map_err(|e| failed(&e))?;
        Returned::decode(&said).map_err(|e| failed(&e))
    }
}

/// Why a member gave no answer.
enum Unanswered {
    /// It does not let us in.
    Refused(Refusal),
    /// It was not reached, or did not answer in time.
    Failed(String),
}

fn send(stream: &mut impl Write, frame: &[u8]) -> std::io::Result<()> {
    stream.write_all(&(frame.len() as u32).to_le_bytes())?;
    stream.write_all(frame)?;
    stream.flush()
}

/// The next frame that is more than a sign of life.
fn receive(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_CONTROL_BYTES {
            return Err(std::io::Error::other("it does not answer as a node"));
        }
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame)?;
        if !frame.is_empty() {
            return Ok(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_survives() {
        let change =
            Change { cluster: [0xab; 16], old: 7, new: 0x1234, why: "Rot in log segment 3,\nfrom 9 on".into() };
        let back = Change::decode(&change.encode()).expect("reads");
        assert_eq!(back, Change { why: "Rot in log segment 3, from 9 on".into(), ..change });
        for rubbish in ["", "x", "abab 1 2 short cluster", "zz 1 2 y"] {
            assert_eq!(Change::decode(rubbish), None, "{rubbish}");
        }
    }

    #[test]
    fn signs_of_life_are_no_answers_and_lengths_are_bounded() {
        let mut sent = vec![0; 8];
        send(&mut sent, b"word").expect("written");
        assert_eq!(receive(&mut &sent[..]).expect("read"), b"word");
        assert!(receive(&mut &[0xff; 8][..]).is_err());
        assert!(receive(&mut &sent[..9]).is_err());
    }
}
