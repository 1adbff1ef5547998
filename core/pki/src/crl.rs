//! Revocation lists, built from what accumulates and only when somebody wants one.
//!
//! A revocation writes its own record and appends thirty-odd bytes to the last page of a list: what it costs does not
//! grow with the list. A list is signed when it is fetched and something was revoked since it was signed last (or, if
//! the mount rebuilds by schedule, when its time has come), and kept in pieces until then. So who fetches sees every
//! revocation that was answered before, and nobody pays for a list that nobody fetches.
//!
//! A list belongs to a key and a name, not to an issuer id: issuers that share both share it, and a certificate finds
//! its list by its own issuer name and authority key identifier, whether its issuer is here or was deleted.
//!
//! ```text
//! page    entries of [length of serial, 1][serial][revoked at, seconds, 8 BE][end of validity, seconds, 8 BE]
//! ```

use crate::authority::Authority;
use crate::cert::{self, Certificate};
use crate::config::{CrlConfig, seconds};
use crate::key::{Algorithm, Private};
use crate::store::{self, Bytes, REVOKED, Revoked, Usage};
use aws_lc_rs::digest;
use der::Encode;
use der::asn1::Uint;
use ringfence_logical::{Compute, Computed, Cx, Error, Outcome, Response, SideResult, Step};
use std::sync::Arc;
use x509_cert::crl::{RevokedCert, TbsCertList};
use x509_cert::ext::pkix::AuthorityKeyIdentifier;
use x509_cert::ext::pkix::crl::{BaseCrlNumber, CrlNumber};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;

/// Area of the pages.
pub const PAGES: u8 = b'P';
/// Area of the states.
pub const STATES: u8 = b'S';
/// Area of the signed lists, in pieces.
const LISTS: u8 = b'L';

/// Entries of a page: a page is rewritten at each revocation, so that one among many costs what it costs among ten.
const PAGE_ENTRIES: u32 = 16;
/// Of lists that were begun before they said it themselves.
const OLD_PAGE_ENTRIES: u32 = 128;
/// Bytes of a piece of a signed list.
const PIECE_BYTES: usize = 512 * 1024;
/// Longer lists are built beside the core.
const QUICK_ENTRIES: u64 = 500;

/// Complete, or what came since the last complete one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Everything.
    Complete,
    /// Since the last complete one.
    Delta,
}

/// A list that was signed.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Built {
    /// How many entries there had been.
    pub entries: u64,
    /// The removals that it knows of.
    pub epoch: u64,
    /// Epoch seconds.
    pub at: u64,
    /// Epoch seconds.
    pub next_update: u64,
    /// CRL number.
    pub number: u64,
    /// How many pieces it is kept in.
    pub pieces: u32,
    /// It was built while lists were disabled, and is empty.
    pub disabled: bool,
}

/// The state of a list.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct State {
    /// Entries ever appended.
    pub entries: u64,
    /// Goes up when entries were taken away.
    pub epoch: u64,
    /// The last CRL number.
    pub number: u64,
    /// The last complete list.
    pub complete: Option<Built>,
    /// The last delta list.
    pub delta: Option<Built>,
    /// Entries that a page of it holds.
    #[serde(default = "old_page_entries")]
    pub page_entries: u32,
}

fn old_page_entries() -> u32 {
    OLD_PAGE_ENTRIES
}

impl Default for State {
    fn default() -> State {
        State { entries: 0, epoch: 0, number: 0, complete: None, delta: None, page_entries: PAGE_ENTRIES }
    }
}

impl State {
    /// The page that an entry stands on, and how many stand before it there.
    fn place(&self, entry: u64) -> (u64, usize) {
        let most = u64::from(self.page_entries.max(1));
        (entry / most, (entry % most) as usize)
    }
}

/// The list of a key and a name, as it stands in keys of the image.
pub fn list_id(key_id: &[u8], name: &Name) -> Result<String, Error> {
    let mut bytes = key_id.to_vec();
    bytes.extend(name.to_der().map_err(cert::coding)?);
    Ok(hex::encode(&digest::digest(&digest::SHA256, &bytes).as_ref()[..16]))
}

/// The list that a certificate's revocation stands in.
fn list_of(certificate: &Certificate) -> Result<String, Error> {
    list_id(&cert::authority_key_id(certificate), &certificate.tbs_certificate.issuer)
}

/// The list that an issuer signs.
pub fn list_by(issuer: &Certificate) -> Result<String, Error> {
    list_id(&cert::subject_key_id(issuer), &issuer.tbs_certificate.subject)
}

pub fn state(cx: &mut Cx<'_, '_>, list: &str) -> Result<State, Error> {
    Ok(cx.get_json(STATES, list.as_bytes())?.unwrap_or_default())
}

fn page_suffix(list: &str, page: u64) -> Vec<u8> {
    [list.as_bytes(), b"/", format!("{page:08x}").as_bytes()].concat()
}

/// Records a revocation. The caller made sure that it is not recorded yet.
pub fn add(cx: &mut Cx<'_, '_>, certificate: &Certificate, der: &[u8], issuer_id: &str) -> Result<Revoked, Error> {
    let serial = cert::serial_text(&certificate.tbs_certificate.serial_number);
    let record = Revoked {
        at_ns: cx.now.0,
        certificate: Bytes(der.to_vec()),
        not_after: cert::not_after(certificate),
        issuer_id: issuer_id.to_owned(),
    };
    cx.put_json(REVOKED, serial.as_bytes(), &record);
    let list = list_of(certificate)?;
    let mut state = state(cx, &list)?;
    let suffix = page_suffix(&list, state.place(state.entries).0);
    let mut page = cx.get(PAGES, &suffix)?.unwrap_or_default();
    let bytes = certificate.tbs_certificate.serial_number.as_bytes();
    page.push(bytes.len() as u8);
    page.extend_from_slice(bytes);
    page.extend_from_slice(&cx.now.seconds().to_be_bytes());
    page.extend_from_slice(&record.not_after.to_be_bytes());
    cx.put(PAGES, &suffix, &page);
    state.entries += 1;
    cx.put_json(STATES, list.as_bytes(), &state);
    Ok(record)
}

/// An entry of a page.
#[derive(Debug, PartialEq)]
pub struct Entry<'p> {
    /// Bytes of the serial number.
    pub serial: &'p [u8],
    /// Epoch seconds.
    pub at: u64,
    /// Epoch seconds.
    pub not_after: u64,
}

/// The entries of a page. Stops where a page is damaged, which authenticated records are not.
pub fn entries(page: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = page;
    std::iter::from_fn(move || {
        let (&n, tail) = rest.split_first()?;
        let serial = tail.get(..n as usize)?;
        let number = |from: usize| Some(u64::from_be_bytes(tail.get(from..from + 8)?.try_into().ok()?));
        let n = n as usize;
        let entry = Entry { serial, at: number(n)?, not_after: number(n + 8)? };
        rest = &tail[n + 16..];
        Some(entry)
    })
}

/// Takes entries out of a page; answers whether it changed.
pub fn retain(cx: &mut Cx<'_, '_>, suffix: &[u8], keep: impl Fn(&Entry<'_>) -> bool) -> Result<bool, Error> {
    let Some(page) = cx.get(PAGES, suffix)? else { return Ok(false) };
    let mut out = Vec::with_capacity(page.len());
    for e in entries(&page).filter(|e| keep(e)) {
        out.push(e.serial.len() as u8);
        out.extend_from_slice(e.serial);
        out.extend_from_slice(&e.at.to_be_bytes());
        out.extend_from_slice(&e.not_after.to_be_bytes());
    }
    let changed = out.len() != page.len();
    if changed {
        cx.put(PAGES, suffix, &out);
    }
    Ok(changed)
}

/// Everything that signing a list needs; owned, so that it can be done beside the core.
struct Plan {
    list: String,
    which: Which,
    pages: Vec<Vec<u8>>,
    /// Entries of the first page that the list leaves out (a delta begins inside of a page).
    skip: usize,
    built: Built,
    base_number: u64,
    name: Name,
    key_id: Vec<u8>,
    pkcs8: zeroize::Zeroizing<Vec<u8>>,
    algorithm: Algorithm,
}

impl Plan {
    fn build(&self) -> Result<Vec<u8>, Error> {
        let key = Private::from_pkcs8(&self.pkcs8).map_err(Error::internal)?;
        let mut revoked = Vec::new();
        for e in self.pages.iter().flat_map(|p| entries(p)).skip(self.skip) {
            revoked.push(RevokedCert {
                serial_number: SerialNumber::new(e.serial).map_err(cert::coding)?,
                revocation_date: cert::time(e.at)?,
                crl_entry_extensions: None,
            });
        }
        let authority =
            AuthorityKeyIdentifier { key_identifier: Some(cert::octets(&self.key_id)?), ..Default::default() };
        let number = |n: u64| Uint::new(&n.to_be_bytes()).map_err(cert::coding);
        let mut extensions = vec![
            cert::extension(false, &authority)?,
            cert::extension(false, &CrlNumber(number(self.built.number)?))?,
        ];
        if self.which == Which::Delta {
            extensions.push(cert::extension(true, &BaseCrlNumber(number(self.base_number)?))?);
        }
        let list = TbsCertList {
            version: x509_cert::certificate::Version::V2,
            signature: self.algorithm.identifier()?,
            issuer: self.name.clone(),
            this_update: cert::time(self.built.at)?,
            next_update: Some(cert::time(self.built.next_update)?),
            revoked_certificates: (!revoked.is_empty()).then_some(revoked),
            crl_extensions: Some(extensions),
        };
        cert::sign_list(list, &key, self.algorithm)
    }
}

/// Tells whether a list may still be handed out as it is.
fn is_fresh(built: &Built, state: &State, c: &CrlConfig, now: u64, which: Which) -> bool {
    if built.disabled != c.disable || now >= built.next_update {
        return false;
    }
    let changed = built.entries != state.entries || built.epoch != state.epoch;
    match which {
        Which::Complete if c.auto_rebuild => now + seconds(&c.auto_rebuild_grace_period) < built.next_update,
        Which::Complete => !changed,
        Which::Delta => {
            let base_moved = state.complete.as_ref().is_some_and(|b| b.at > built.at);
            !base_moved && (!changed || now < built.at + seconds(&c.delta_rebuild_interval))
        }
    }
}

/// What goes on with a list.
pub type WithList = Box<dyn Fn(&mut Cx<'_, '_>, Vec<u8>) -> Outcome + Send + Sync>;

/// Answers with the list of an issuer, built anew if that is due. `forced` builds it whatever the state.
pub fn with_list(cx: &mut Cx<'_, '_>, issuer_ref: &str, which: Which, forced: bool, then: WithList) -> Outcome {
    let record = store::issuer(cx, issuer_ref)?;
    let certificate = record.parsed()?;
    let list = list_by(&certificate)?;
    let c: CrlConfig = store::config(cx, "crl")?;
    let now = cx.now.seconds();
    let mut st = state(cx, &list)?;
    if which == Which::Delta {
        // a delta stands on a complete list
        if st.complete.is_none() {
            let reference = record.id.clone();
            let again = Arc::new(then);
            return with_list(
                cx,
                &record.id,
                Which::Complete,
                true,
                Box::new(move |cx, _| {
                    let then = again.clone();
                    with_list(cx, &reference, Which::Delta, forced, Box::new(move |cx, der| then(cx, der)))
                }),
            );
        }
    }
    let built = if which == Which::Complete { &st.complete } else { &st.delta };
    if let Some(b) = built
        && !forced
        && is_fresh(b, &st, &c, now, which)
    {
        let der = load(cx, &list, which, b.pieces)?;
        return then(cx, der);
    }
    let signing = signing_issuer(cx, &record.id, &list)?;
    let base = st.complete.clone().unwrap_or_default();
    let first_entry = if which == Which::Delta { base.entries } else { 0 };
    let mut pages = Vec::new();
    let (first_page, before) = st.place(first_entry);
    if !c.disable && first_entry < st.entries {
        for page in first_page..=st.place(st.entries - 1).0 {
            pages.extend(cx.get(PAGES, &page_suffix(&list, page))?);
        }
    }
    let count: usize = pages.iter().map(|p| entries(p).count()).sum();
    if c.max_crl_entries >= 0 && count as i64 > c.max_crl_entries {
        return Err(Error::plain(&format!(
            "CRL building skipped: revoked certificate count {count} is over max_crl_entries {}",
            c.max_crl_entries
        )));
    }
    st.number += 1;
    let plan = Plan {
        skip: if st.epoch == base.epoch { before } else { 0 },
        built: Built {
            entries: st.entries,
            epoch: st.epoch,
            at: now,
            next_update: now + seconds(&c.expiry).max(1),
            number: st.number,
            pieces: 0,
            disabled: c.disable,
        },
        base_number: base.number,
        name: signing.certificate().tbs_certificate.subject.clone(),
        key_id: cert::subject_key_id(signing.certificate()),
        pkcs8: signing.key.pkcs8()?,
        algorithm: signing.revocation_algorithm(),
        list,
        which,
        pages,
    };
    if (count as u64) < QUICK_ENTRIES {
        let der = plan.build()?;
        save(cx, &plan, &der)?;
        return then(cx, der);
    }
    let plan = Arc::new(plan);
    let builder = plan.clone();
    let op = Compute::op("sign a revocation list", move || match builder.build() {
        Ok(der) => Computed::of(der),
        Err(e) => SideResult::Refused(e),
    });
    let resume = Box::new(move |cx: &mut Cx<'_, '_>, result: &SideResult| match result {
        SideResult::Value(v) => match v.get::<Vec<u8>>() {
            Some(der) => {
                save(cx, &plan, der)?;
                then(cx, der.clone())
            }
            None => Err(Error::internal("the computation made no list")),
        },
        SideResult::Refused(e) => Err(e.clone()),
        other => Err(Error::internal(format!("signing a list: {other:?}"))),
    });
    Ok(Step::Side { op, resume })
}

/// The issuer that signs a list: the one asked for if it may and can, or another with the same key and name.
fn signing_issuer(cx: &mut Cx<'_, '_>, id: &str, list: &str) -> Result<Authority, Error> {
    let record = store::issuer(cx, id)?;
    let first = Authority::of(cx, record, Usage::CrlSigning);
    if first.is_ok() {
        return first;
    }
    for other in store::issuers(cx)? {
        if other.id != id && other.may(Usage::CrlSigning) && list_by(&other.parsed()?)? == list {
            return Authority::of(cx, other, Usage::CrlSigning);
        }
    }
    first
}

fn piece_suffix(list: &str, which: Which, piece: u32) -> Vec<u8> {
    let which = if which == Which::Complete { "c" } else { "d" };
    format!("{list}/{which}/{piece:04x}").into_bytes()
}

/// Keeps a list, unless a later one was kept meanwhile.
fn save(cx: &mut Cx<'_, '_>, plan: &Plan, der: &[u8]) -> Result<(), Error> {
    let mut st = state(cx, &plan.list)?;
    let built = if plan.which == Which::Complete { &mut st.complete } else { &mut st.delta };
    if built.as_ref().is_some_and(|b| b.number >= plan.built.number) {
        return Ok(());
    }
    let pieces = der.chunks(PIECE_BYTES).count() as u32;
    for left in pieces..built.as_ref().map_or(0, |b| b.pieces) {
        cx.delete(LISTS, &piece_suffix(&plan.list, plan.which, left));
    }
    *built = Some(Built { pieces, ..plan.built.clone() });
    st.number = st.number.max(plan.built.number);
    for (n, piece) in der.chunks(PIECE_BYTES).enumerate() {
        cx.put(LISTS, &piece_suffix(&plan.list, plan.which, n as u32), piece);
    }
    cx.put_json(STATES, plan.list.as_bytes(), &st);
    Ok(())
}

fn load(cx: &mut Cx<'_, '_>, list: &str, which: Which, pieces: u32) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    for n in 0..pieces {
        let piece = cx.get(LISTS, &piece_suffix(list, which, n))?;
        out.extend(piece.ok_or_else(|| Error::internal("a piece of a list is gone"))?);
    }
    Ok(out)
}

/// `crl/rotate`, `crl/rotate-delta`: the lists of every issuer that can sign, one after the other.
pub fn rotate(cx: &mut Cx<'_, '_>, which: Which) -> Outcome {
    let able: Vec<String> = store::issuers(cx)?
        .into_iter()
        .filter(|i| i.may(Usage::CrlSigning) && !i.key_id.is_empty())
        .map(|i| i.id)
        .collect();
    rotate_rest(cx, Arc::new(able), 0, which)
}

fn rotate_rest(cx: &mut Cx<'_, '_>, ids: Arc<Vec<String>>, at: usize, which: Which) -> Outcome {
    let Some(id) = ids.get(at) else {
        return Response::json(serde_json::json!({"success": true})).done();
    };
    let id = id.clone();
    with_list(cx, &id, which, true, Box::new(move |cx, _| rotate_rest(cx, ids.clone(), at + 1, which)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_the_pages_that_it_was_begun_with() {
        let old: State = serde_json::from_str("{\"entries\":300,\"number\":2}").unwrap();
        assert_eq!((old.place(127), old.place(300)), ((0, 127), (2, 44)));
        let new = State::default();
        assert_eq!((new.place(15), new.place(16)), ((0, 15), (1, 0)));
        let kept: State = serde_json::from_slice(&serde_json::to_vec(&new).unwrap()).unwrap();
        assert_eq!(kept, new);
    }

    #[test]
    fn pages_are_read_as_written_and_damage_ends_them() {
        let mut page = Vec::new();
        for (serial, at) in [(&b"\x01\x02"[..], 5u64), (&b"\x7f"[..], 6)] {
            page.push(serial.len() as u8);
            page.extend_from_slice(serial);
            page.extend_from_slice(&at.to_be_bytes());
            page.extend_from_slice(&(at * 2).to_be_bytes());
        }
        let read: Vec<_> = entries(&page).collect();
        assert_eq!(
            read,
            [Entry { serial: b"\x01\x02", at: 5, not_after: 10 }, Entry { serial: b"\x7f", at: 6, not_after: 12 }]
        );
        for cut in 1..page.len() {
            assert!(entries(&page[..page.len() - cut]).count() < 2);
        }
    }
}
