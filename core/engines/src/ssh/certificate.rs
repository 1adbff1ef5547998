//! Certificates in OpenSSH's form (PROTOCOL.certkeys). Written out here rather than by the library's builder, which
//! signs with the algorithms it implements itself only, and not with `ssh-rsa` at all.

use super::key::{Private, put_string};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_base::Entropy;
use ringfence_logical::Error;
use std::collections::BTreeMap;

/// What a certificate says.
pub struct Certificate<'a> {
    /// The key that is certified.
    pub key: &'a ssh_key::PublicKey,
    pub serial: u64,
    pub is_host: bool,
    pub key_id: &'a str,
    pub principals: &'a [String],
    /// Seconds since 1970.
    pub valid_after: u64,
    pub valid_before: u64,
    pub critical_options: &'a BTreeMap<String, String>,
    pub extensions: &'a BTreeMap<String, String>,
}

impl Certificate<'_> {
    /// Everything but the signature.
    pub fn unsigned(&self, ca: &Private, rng: &mut dyn Entropy) -> Result<Unsigned, Error> {
        let blob = self.key.to_bytes().map_err(|_| Error::internal("encoding a key"))?;
        let (algorithm, fields) = split_string(&blob).ok_or_else(|| Error::internal("encoding a key"))?;
        let algorithm = String::from_utf8_lossy(algorithm);
        // security keys have their vendor's name behind an at sign already
        let name = match algorithm.split_once('@') {
            Some((own, vendor)) => format!("{own}-cert-v01@{vendor}"),
            None => format!("{algorithm}-cert-v01@openssh.com"),
        };
        let mut nonce = [0; 32];
        rng.fill(&mut nonce);
        let mut out = Vec::with_capacity(1024);
        put_string(&mut out, name.as_bytes());
        put_string(&mut out, &nonce);
        out.extend_from_slice(fields);
        out.extend_from_slice(&self.serial.to_be_bytes());
        out.extend_from_slice(&(if self.is_host { 2u32 } else { 1u32 }).to_be_bytes());
        put_string(&mut out, self.key_id.as_bytes());
        let mut principals = Vec::new();
        self.principals.iter().for_each(|p| put_string(&mut principals, p.as_bytes()));
        put_string(&mut out, &principals);
        out.extend_from_slice(&self.valid_after.to_be_bytes());
        out.extend_from_slice(&self.valid_before.to_be_bytes());
        put_string(&mut out, &options(self.critical_options));
        put_string(&mut out, &options(self.extensions));
        put_string(&mut out, b"");
        put_string(&mut out, &ca.public_blob()?);
        Ok(Unsigned { name, bytes: out })
    }
}

/// A certificate that waits for its signature.
pub struct Unsigned {
    name: String,
    /// What is signed.
    pub bytes: Vec<u8>,
}

impl Unsigned {
    /// The line `<algorithm> <base64>` with a line break.
    pub fn line(&self, signature: &[u8]) -> String {
        let mut out = self.bytes.clone();
        put_string(&mut out, signature);
        format!("{} {}\n", self.name, STANDARD.encode(out))
    }
}

/// Names with data, in order; data stands in a string of its own unless it is empty.
fn options(of: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, data) in of {
        put_string(&mut out, name.as_bytes());
        let mut inner = Vec::new();
        if !data.is_empty() {
            put_string(&mut inner, data.as_bytes());
        }
        put_string(&mut out, &inner);
    }
    out
}

fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}
