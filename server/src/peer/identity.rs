//! What a data directory shows on the cluster port: a key pair and a certificate that it signs itself, made once, and
//! known to the other nodes by the certificate's SHA-256 (its pin) in the table of members.

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

/// Largest file of these.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Key pair and certificate of one data directory.
pub struct Identity {
    /// DER.
    pub certificate: CertificateDer<'static>,
    key: Vec<u8>,
    /// SHA-256 of the certificate.
    pub pin: [u8; 32],
    folder: PathBuf,
}

/// SHA-256 of a certificate.
pub fn pin_of(certificate: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    let mut pin = [0; 32];
    pin.copy_from_slice(digest.as_ref());
    pin
}

impl Identity {
    /// Reads the directory's identity, or makes it.
    ///
    /// # Errors
    /// A file that cannot be read or written, named.
    pub fn open(directory: &Path) -> Result<Identity, String> {
        let folder = directory.join("cluster");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        let (certificate, key) = (folder.join("certificate.der"), folder.join("key.der"));
        // the key is written first: a certificate without one was not finished
        if !certificate.exists() {
            let made = make().map_err(|e| format!("the certificate of the cluster port cannot be made: {e}"))?;
            write(&folder, "key.der", &made.1)?;
            write(&folder, "certificate.der", &made.0)?;
        }
        let (certificate, key) = (read(&certificate)?, read(&key)?);
        let pin = pin_of(&certificate);
        Ok(Identity { certificate: certificate.into(), key, pin, folder })
    }

    /// The private key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
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
        assert_eq!((first.pin, &first.key), (again.pin, &again.key));
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(dir.join("cluster/key.der")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(first.count_start([1; 8]).map(|b| b.number), Ok(1));
        assert_eq!(again.count_start([2; 8]).map(|b| (b.number, b.nonce)), Ok((2, [2; 8])));
        assert!(first.kept_members().is_empty());
        let members = BTreeMap::from([(7, MemberRecord { name: "a".into(), ..MemberRecord::default() })]);
        Identity::keep_members(first.folder(), &members).expect("kept");
        assert_eq!(first.kept_members(), members);
        assert_eq!(node_id(&dir, || "x".into()), Ok("x".into()));
        assert_eq!(node_id(&dir, || "y".into()), Ok("x".into()));
        fs::remove_dir_all(&dir).expect("removed");
    }
}
