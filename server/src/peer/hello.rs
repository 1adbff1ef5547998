//! The first frame in each direction: who calls whom, of which cluster, for what; and whether that is accepted.
//!
//! ```text
//! hello:   u8 0xf0; num version; cluster (16); num caller's raft id, called's raft id; u8 lane
//!          from minor version 1 on: num minor version; num start; start's nonce (8)
//! verdict: u8 0xf1; bool accepted; text why not
//!          from minor version 1 on: num minor version; bool the caller's directory is an older copy
//! ```
//! Nodes of one version understand each other; another version is refused by its number. A minor version adds fields at
//! the end, which an older node does not read, and messages that are sent only to who is known to read them: that is
//! how the nodes of a cluster are replaced one after the other by those of a later release.

use super::heard::Boot;
use ringfence_base::{CodecError, Reader, Writer};
use ringfence_node::{Lane, Membership};

/// The version of the frames.
pub const VERSION: u64 = 1;
/// What this build adds to them: 1, the number of the process's start.
pub const MINOR: u64 = 1;
const HELLO: u8 = 0xf0;
const VERDICT: u8 = 0xf1;
/// Longest word of refusal, bytes.
const MAX_WHY_BYTES: usize = 1024;

/// A caller's first word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Of the frames that follow.
    pub version: u64,
    /// The caller's cluster.
    pub cluster: [u8; 16],
    /// The caller.
    pub from: u64,
    /// Whom it means to call.
    pub to: u64,
    /// What the connection is for.
    pub lane: Lane,
    /// What the caller knows beyond the version.
    pub minor: u64,
    /// Which start of its directory the caller is; one of minor version 0 does not say.
    pub boot: Option<Boot>,
}

/// Why a caller is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its data directory is an older copy of what this node knows.
    pub older: bool,
    /// The other node said so; else it was not reached.
    pub refused: bool,
    /// In words.
    pub why: String,
}

impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        Refusal { older: false, refused: false, why }
    }
}

impl Hello {
    /// As a frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        let lane = match self.lane {
            Lane::Control => 0,
            Lane::Bulk => 1,
            Lane::Calls => 2,
            Lane::Return => 3,
        };
        w.u8(HELLO).num(self.version).raw(&self.cluster).num(self.from).num(self.to).u8(lane);
        if let Some(boot) = &self.boot {
            w.num(self.minor).num(boot.number).raw(&boot.nonce);
        }
        w.finish()
    }

    /// Reads a frame; any bytes are safe.
    ///
    /// # Errors
    /// Not a hello.
    pub fn decode(bytes: &[u8]) -> Result<Hello, CodecError> {
        let mut r = Reader::new(bytes);
        if r.u8()? != HELLO {
            return Err(CodecError::BadNumber);
        }
        let version = r.num()?;
        let cluster = r.raw(16)?.try_into().map_err(|_| CodecError::BadNumber)?;
        let (from, to) = (r.num()?, r.num()?);
        let lane = match r.u8()? {
            0 => Lane::Control,
            1 => Lane::Bulk,
            2 => Lane::Calls,
            3 => Lane::Return,
            t => return Err(CodecError::BadTag(t)),
        };
        if r.rest().is_empty() {
            return Ok(Hello { version, cluster, from, to, lane, minor: 0, boot: None });
        }
        let minor = r.num()?;
        let boot = Boot { number: r.num()?, nonce: r.raw(8)?.try_into().map_err(|_| CodecError::BadNumber)? };
        // what follows is of a later minor version
        Ok(Hello { version, cluster, from, to, lane, minor, boot: Some(boot) })
    }

    /// Whether the caller, who proved to hold the certificate with this pin, is let in.
    ///
    /// # Errors
    /// Why it is not.
    pub fn judge(&self, own: &Membership, pin: &[u8; 32]) -> Result<(), String> {
        if own.raft_id == 0 {
            return Err("this node belongs to no cluster yet".into());
        }
        if self.cluster != own.cluster {
            return Err("it belongs to another cluster".into());
        }
        // who comes back may have another id by now
        let came_back = || own.members.values().find(|r| self.lane == Lane::Return && r.pins.contains(pin));
        let member = own.members.get(&self.from).filter(|r| r.pins.contains(pin)).or_else(came_back);
        let Some(record) = member else {
            return Err("it is not a member of this cluster: it was removed, or never joined".into());
        };
        let anybody = self.lane == Lane::Return && self.to == 0;
        if self.to != own.raft_id && !anybody {
            return Err(format!(
                "{:?} means to call another node here: two nodes have one cluster_addr, or this one has a new data \
                 directory",
                record.name
            ));
        }
        if self.version != VERSION {
            return Err(format!(
                "it speaks version {} of the peer protocol, this node version {VERSION}",
                self.version
            ));
        }
        Ok(())
    }
}

/// The answer to a hello.
pub fn verdict(judged: &Result<(), Refusal>) -> Vec<u8> {
    let refusal = judged.as_ref().err();
    let mut w = Writer::new();
    w.u8(VERDICT).bool(judged.is_ok()).text(refusal.map_or("", |r| r.why.as_str()));
    w.num(MINOR).bool(refusal.is_some_and(|r| r.older));
    w.finish()
}

/// Reads a verdict: the other's minor version.
///
/// # Errors
/// Why this node is not let in.
pub fn read_verdict(bytes: &[u8]) -> Result<u64, Refusal> {
    let mut r = Reader::new(bytes);
    let parsed = (|| -> Result<(bool, String, u64, bool), CodecError> {
        if r.u8()? != VERDICT {
            return Err(CodecError::BadNumber);
        }
        let (accepted, why) = (r.bool()?, r.text(MAX_WHY_BYTES)?.to_owned());
        if r.rest().is_empty() {
            return Ok((accepted, why, 0, false));
        }
        Ok((accepted, why, r.num()?, r.bool()?))
    })();
    match parsed {
        Ok((true, _, minor, _)) => Ok(minor),
        Ok((false, why, _, older)) => {
            Err(Refusal { older, refused: true, why: format!("this node is refused: {why}") })
        }
        Err(_) => Err("it does not answer as a node".to_owned().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_node::MemberRecord;
    use std::collections::BTreeMap;

    fn hello() -> Hello {
        let boot = Some(Boot { number: 5, nonce: [6; 8] });
        Hello { version: VERSION, cluster: [1; 16], from: 7, to: 8, lane: Lane::Calls, minor: MINOR, boot }
    }

    /// What crosses the wire today must be read by every later build: bytes, not code, are compared.
    #[test]
    fn frames_are_golden() {
        let hello = hello().encode();
        let golden = "f001010101010101010101010101010101010708020105\
                      0606060606060606";
        assert_eq!(hex::encode(&hello), golden);
        assert_eq!(hex::encode(verdict(&Ok(()))), "f101000100");
        let older = Refusal { older: true, refused: true, why: "no".into() };
        assert_eq!(hex::encode(verdict(&Err(older))), "f100026e6f0101");
    }

    #[test]
    fn other_minor_versions_are_told_apart_and_served() {
        let record = MemberRecord { name: "a".into(), pins: vec![[5; 32]], ..MemberRecord::default() };
        let own = Membership { cluster: [1; 16], raft_id: 8, members: BTreeMap::from([(7, record)]) };
        // a node of the next minor version says more at the end
        let next = [Hello { minor: MINOR + 1, ..hello() }.encode(), b"more than this build knows".to_vec()].concat();
        let read = Hello::decode(&next).expect("reads");
        assert_eq!((read.minor, read.boot), (MINOR + 1, hello().boot));
        assert_eq!(read.judge(&own, &[5; 32]), Ok(()));
        // one from before minor versions says less
        let first = Hello { boot: None, ..hello() }.encode();
        let read = Hello::decode(&first).expect("reads");
        assert_eq!((read.minor, read.boot), (0, None));
        assert_eq!(read.judge(&own, &[5; 32]), Ok(()));
        assert_eq!(read_verdict(&[VERDICT, 1, 0]), Ok(0), "its verdict is shorter, too");
        let later = [verdict(&Ok(())), vec![9, 9]].concat();
        assert_eq!(read_verdict(&later), Ok(MINOR));
        // another version is another language
        let other = Hello { version: VERSION + 1, ..hello() };
        let why = other.judge(&own, &[5; 32]).expect_err("refused");
        assert_eq!(why, "it speaks version 2 of the peer protocol, this node version 1");
    }

    #[test]
    fn hellos_survive_and_any_cut_is_refused() {
        let bytes = hello().encode();
        assert_eq!(Hello::decode(&bytes), Ok(hello()));
        let without_boot = Hello { boot: None, ..hello() }.encode().len();
        for cut in (0..bytes.len()).filter(|cut| *cut != without_boot) {
            assert!(Hello::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(read_verdict(&verdict(&Ok(()))), Ok(MINOR));
        for older in [false, true] {
            let refused = read_verdict(&verdict(&Err(Refusal { older, refused: true, why: "no".into() })));
            assert_eq!(refused, Err(Refusal { older, refused: true, why: "this node is refused: no".into() }));
        }
        assert!(read_verdict(b"HTTP/1.1 400").is_err());
    }

    #[test]
    fn each_wrong_caller_hears_why() {
        let record = MemberRecord { name: "a".into(), pins: vec![[5; 32]], ..MemberRecord::default() };
        let own = Membership { cluster: [1; 16], raft_id: 8, members: BTreeMap::from([(7, record)]) };
        assert_eq!(hello().judge(&own, &[5; 32]), Ok(()));
        let why = |h: Hello, pin| h.judge(&own, &[pin; 32]).expect_err("refused");
        assert!(why(hello(), 6).contains("not a member"));
        assert!(why(Hello { from: 9, ..hello() }, 5).contains("not a member"));
        assert!(why(Hello { cluster: [2; 16], ..hello() }, 5).contains("another cluster"));
        assert!(why(Hello { to: 9, ..hello() }, 5).contains("one cluster_addr"));
        assert!(why(Hello { version: 2, ..hello() }, 5).contains("version 2"));
        // who comes back under another id is known by its certificate, and may ask anybody
        let back = Hello { from: 9, to: 0, lane: Lane::Return, ..hello() };
        assert_eq!(back.judge(&own, &[5; 32]), Ok(()));
        assert!(why(back, 6).contains("not a member"));
        assert!(hello().judge(&Membership::default(), &[5; 32]).expect_err("refused").contains("no cluster yet"));
    }
}
