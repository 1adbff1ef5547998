//! What a data directory shows on the cluster port: key pairs and certificates that it signs itself, known to the other
//! nodes by the certificates' SHA-256 (their pins) in the table of members. One is in use; the next one is made ahead, and
//! those of before are kept for a while, to be shown to nodes that were away and know no other: see `rotation`.

use super::heard::Boot;
use rcgen::{CertificateParams, DnType, KeyPair};
use ringfence_base::{Reader, Writer};
use ringfence_node::MemberRecord;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Largest file of these.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Certificates of before that are kept: a node may be away for so many days.
const KEPT: usize = 30;

/// A key pair and its certificate.
#[derive(Clone)]
pub struct Shown {
    number: u64,
    /// DER.
    pub certificate: CertificateDer<'static>,
    key: Vec<u8>,
    /// SHA-256 of the certificate.
    pub pin: [u8; 32],
    /// When it was made.
    pub made: SystemTime,
}

/// What one data directory shows.
pub struct Identity {
    /// By number; never empty.
    shown: Vec<Shown>,
    /// Its place among them.
    in_use: usize,
    folder: PathBuf,
}

/// SHA-256 of a certificate.
pub fn pin_of(certificate: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    let mut pin = [0; 32];
    pin.copy_from_slice(digest.as_ref());
    pin
}

impl Shown {
    fn open(folder: &Path, number: u64) -> Result<Shown, String> {
        let (certificate, key) = (folder.join(certificate_name(number)), read(&folder.join(key_name(number)))?);
        let made = fs::metadata(&certificate).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let certificate = read(&certificate)?;
        let pin = pin_of(&certificate);
        Ok(Shown { number, certificate: certificate.into(), key, pin, made })
    }

    /// Makes one, durably.
    fn make(folder: &Path, number: u64) -> Result<Shown, String> {
        let made = make().map_err(|e| format!("the certificate of the cluster port cannot be made: {e}"))?;
        // the key is written first: a certificate without one was not finished
        write(folder, &key_name(number), &made.1)?;
        write(folder, &certificate_name(number), &made.0)?;
        Shown::open(folder, number)
    }

    /// The private key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
    }
}

fn certificate_name(number: u64) -> String {
    if number == 0 { "certificate.der".into() } else { format!("certificate-{number}.der") }
}

fn key_name(number: u64) -> String {
    if number == 0 { "key.der".into() } else { format!("key-{number}.der") }
}

impl Identity {
    /// Reads the directory's identity, or makes it.
    ///
    /// # Errors
    /// A file that cannot be read or written, named.
    pub fn open(directory: &Path) -> Result<Identity, String> {
        let folder = directory.join("cluster");
        let failed = |e: io::Error| format!("cannot make {}: {e}", folder.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let mut numbers: Vec<u64> = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            let number = name.strip_prefix("certificate-").and_then(|n| n.strip_suffix(".der"));
            numbers.extend(number.and_then(|n| n.parse::<u64>().ok()));
            numbers.extend((name == "certificate.der").then_some(0));
        }
        numbers.sort_unstable();
        let mut shown = numbers.iter().map(|n| Shown::open(&folder, *n)).collect::<Result<Vec<Shown>, String>>()?;
        if shown.is_empty() {
            shown.push(Shown::make(&folder, 0)?);
        }
        let mut identity = Identity { in_use: shown.len() - 1, shown, folder };
        // the newest that the others are known to know
        let members = identity.kept_members();
        let known = |s: &Shown| members.values().any(|r| r.pins.contains(&s.pin));
        identity.in_use = identity.shown.iter().rposition(known).unwrap_or(identity.in_use);
        Ok(identity)
    }

    /// What connections show now.
    pub fn in_use(&self) -> &Shown {
        &self.shown[self.in_use]
    }

    /// What connections will show next, if it is made.
    pub fn next(&self) -> Option<&Shown> {
        self.shown.get(self.in_use + 1..).and_then(<[Shown]>::last)
    }

    /// All that can be shown, the one in use first and older ones behind it.
    pub fn newest_first(&self) -> impl Iterator<Item = &Shown> {
        self.shown[..=self.in_use].iter().rev()
    }

    /// All that can be shown.
    pub fn all(&self) -> &[Shown] {
        &self.shown
    }

    /// What the table of members is to say.
    pub fn announced(&self) -> Vec<[u8; 32]> {
        [Some(self.in_use()), self.next()].into_iter().flatten().map(|s| s.pin).collect()
    }

    /// Makes the certificate that follows on this folder's newest; [`Identity::add`] takes it.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn make_next(folder: &Path, after: u64) -> Result<Shown, String> {
        Shown::make(folder, after + 1)
    }

    /// Number of the newest.
    pub fn newest(&self) -> u64 {
        self.shown.last().map_or(0, |s| s.number)
    }

    /// Takes a certificate that was made.
    pub fn add(&mut self, next: Shown) {
        self.shown.push(next);
    }

    /// From now on connections show the newest. What is too old to be asked for is removed.
    pub fn use_newest(&mut self) {
        self.in_use = self.shown.len() - 1;
        for old in self.shown.drain(..self.in_use.saturating_sub(KEPT)) {
            // gone already, or gone the next time
            let _ = fs::remove_file(self.folder.join(certificate_name(old.number)));
            let _ = fs::remove_file(self.folder.join(key_name(old.number)));
        }
        self.in_use = self.shown.len() - 1;
    }

    /// Keeps the members where a node finds them that has got nothing of its cluster's data yet.
    pub fn keep_members(folder: &Path, members: &BTreeMap<u64, MemberRecord>) -> Result<(), String> {
        let mut w = Writer::new();
        w.u8(1).num(members.len() as u64);
        for (id, record) in members {
            w.num(*id).bytes(&record.encode());
        }
        write(folder, "members", &w.finish())
    }

    /// Counts a start of this directory, durably.
    ///
    /// # Errors
    /// The count cannot be written.
    pub fn count_start(&self, nonce: [u8; 8]) -> Result<Boot, String> {
        let text = fs::read_to_string(self.folder.join("starts")).unwrap_or_default();
        // a count that cannot be read begins anew, and the other nodes take the directory for an older copy
        let number = text.trim().parse().unwrap_or(0u64).saturating_add(1);
        write(&self.folder, "starts", format!("{number}\n").as_bytes())?;
        Ok(Boot { number, nonce })
    }

    /// The members as they were last kept; none if they cannot be read.
    pub fn kept_members(&self) -> BTreeMap<u64, MemberRecord> {
        let bytes = read(&self.folder.join("members")).unwrap_or_default();
        let mut found = BTreeMap::new();
        let mut r = Reader::new(&bytes);
        if r.u8() != Ok(1) {
            return found;
        }
        for _ in 0..r.num().unwrap_or(0).min(1024) {
            let (Ok(id), Ok(record)) = (r.num(), r.bytes(1 << 16)) else { break };
            if let Ok(record) = MemberRecord::decode(record) {
                found.insert(id, record);
            }
        }
        found
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The name of a node that is given none: drawn once, and kept in the directory.
///
/// # Errors
/// A file that cannot be read or written, named.
pub fn node_id(directory: &Path, draw: impl FnOnce() -> String) -> Result<String, String> {
    let path = directory.join("node-id");
    if let Ok(kept) = fs::read_to_string(&path)
        && !kept.trim().is_empty()
    {
        return Ok(kept.trim().to_owned());
    }
    let drawn = draw();
    write(directory, "node-id", drawn.as_bytes())?;
    Ok(drawn)
}

fn make() -> Result<(Vec<u8>, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["ringfence-node".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "Ringfence node");
    Ok((params.self_signed(&key)?.der().to_vec(), key.serialize_der()))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let readable = |e: io::Error| format!("cannot read {}: {e}", path.display());
    if fs::metadata(path).map_err(readable)?.len() > MAX_FILE_BYTES {
        return Err(format!("{} is not a file of this program", path.display()));
    }
    fs::read(path).map_err(readable)
}

/// Writes a file under another name, makes it durable, and renames it.
pub(super) fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let (new, target) = (folder.join(format!("{name}.new")), folder.join(name));
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let written = options.open(&new).and_then(|mut f| {
        f.write_all(bytes)?;
        f.sync_all()?;
        fs::rename(&new, &target)?;
        fs::File::open(folder)?.sync_all()
    });
    written.map_err(|e| format!("cannot write {}: {e}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_kept() {
        let dir = std::env::temp_dir().join(format!("ringfence-identity-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        let first = Identity::open(&dir).expect("made");
        let again = Identity::open(&dir).expect("read");
        assert_eq!((first.in_use().pin, &first.in_use().key), (again.in_use().pin, &again.in_use().key));
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(dir.join("cluster/key.der")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(first.count_start([1; 8]).map(|b| b.number), Ok(1));
        assert_eq!(again.count_start([2; 8]).map(|b| (b.number, b.nonce)), Ok((2, [2; 8])));
        assert!(first.kept_members().is_empty());
        let members = BTreeMap::from([(7, MemberRecord { name: "a".into(), ..MemberRecord::default() })]);
        Identity::keep_members(first.folder(), &members).expect("kept");
        assert_eq!(first.kept_members(), members);
        // the next one is made, and in use when the others know it
        let next = Identity::make_next(first.folder(), first.newest()).expect("made");
        let (old, new) = (first.in_use().pin, next.pin);
        let mut first = first;
        first.add(next);
        assert_eq!((first.in_use().pin, first.announced()), (old, vec![old, new]));
        let record = |pins| BTreeMap::from([(7, MemberRecord { name: "a".into(), pins, ..MemberRecord::default() })]);
        Identity::keep_members(first.folder(), &record(vec![old])).expect("kept");
        assert_eq!(Identity::open(&dir).expect("read").announced(), [old, new]);
        Identity::keep_members(first.folder(), &record(vec![old, new])).expect("kept");
        assert_eq!(Identity::open(&dir).expect("read").announced(), [new]);
        first.use_newest();
        assert_eq!(first.newest_first().map(|s| s.pin).collect::<Vec<_>>(), [new, old]);
        // older ones are kept for who was away, up to a number
        for _ in 0..KEPT {
            let next = Identity::make_next(first.folder(), first.newest()).expect("made");
            first.add(next);
            first.use_newest();
        }
        assert!(first.all().len() == KEPT + 1 && first.all().iter().all(|s| s.pin != old));
        assert_eq!(Identity::open(&dir).expect("read").all().len(), KEPT + 1);
        Identity::keep_members(first.folder(), &members).expect("kept");
        assert_eq!(node_id(&dir, || "x".into()), Ok("x".into()));
        assert_eq!(node_id(&dir, || "y".into()), Ok("x".into()));
        fs::remove_dir_all(&dir).expect("removed");
    }
}
