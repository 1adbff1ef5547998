//! The first frame in each direction: who calls whom, of which cluster, for what; and whether that is accepted.
//!
//! ```text
//! hello:   u8 0xf0; num version; cluster (16); num caller's raft id, called's raft id; u8 lane
//! verdict: u8 0xf1; bool accepted; text why not
//! ```

use ringfence_base::{CodecError, Reader, Writer};
use ringfence_node::{Lane, Membership};

/// The version of the frames.
pub const VERSION: u64 = 1;
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
}

impl Hello {
    /// As a frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        let lane = match self.lane {
            Lane::Control => 0,
            Lane::Bulk => 1,
            Lane::Calls => 2,
        };
        w.u8(HELLO).num(self.version).raw(&self.cluster).num(self.from).num(self.to).u8(lane);
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
            t => return Err(CodecError::BadTag(t)),
        };
        Ok(Hello { version, cluster, from, to, lane })
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
        let Some(record) = own.members.get(&self.from).filter(|r| r.pins.contains(pin)) else {
            return Err("it is not a member of this cluster: it was removed, or never joined".into());
        };
        if self.to != own.raft_id {
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
pub fn verdict(judged: &Result<(), String>) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERDICT).bool(judged.is_ok()).text(judged.as_ref().err().map_or("", String::as_str));
    w.finish()
}

/// Reads a verdict.
///
/// # Errors
/// Why this node is not let in.
pub fn read_verdict(bytes: &[u8]) -> Result<(), String> {
    let mut r = Reader::new(bytes);
    let parsed = (|| -> Result<(bool, String), CodecError> {
        if r.u8()? != VERDICT {
            return Err(CodecError::BadNumber);
        }
        Ok((r.bool()?, r.text(MAX_WHY_BYTES)?.to_owned()))
    })();
    match parsed {
        Ok((true, _)) => Ok(()),
        Ok((false, why)) => Err(format!("this node is refused: {why}")),
        Err(_) => Err("it does not answer as a node".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_node::MemberRecord;
    use std::collections::BTreeMap;

    fn hello() -> Hello {
        Hello { version: VERSION, cluster: [1; 16], from: 7, to: 8, lane: Lane::Calls }
    }

    #[test]
    fn hellos_survive_and_any_cut_is_refused() {
        let bytes = hello().encode();
        assert_eq!(Hello::decode(&bytes), Ok(hello()));
        for cut in 0..bytes.len() {
            assert!(Hello::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(read_verdict(&verdict(&Ok(()))), Ok(()));
        assert_eq!(read_verdict(&verdict(&Err("no".into()))), Err("this node is refused: no".into()));
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
        assert!(hello().judge(&Membership::default(), &[5; 32]).expect_err("refused").contains("no cluster yet"));
    }
}
