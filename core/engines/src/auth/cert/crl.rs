//! Revocation lists: uploaded, or fetched from a URL and fetched anew when they end.
//!
//! A list that is fetched counts only if it is its issuer's: signed by a certificate that an entry trusts, or, if no entry
//! knows its issuer (a list of an intermediate authority), fetched over TLS; and never if it is older than the one in
//! force. What an operator uploads is his word.
//!
//! A certificate is revoked if a list of its own issuer names its serial number. A list that has ended stays in force
//! until it is replaced or deleted, as documented: what was revoked does not come back by itself.

use super::chain::{self, SIGNATURES};
use super::entry;
use crate::outside::{self, HttpAsk, Outside, Stop};
use crate::page;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Reader, SliceReader};
use ringfence_base::Wall;
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use serde_json::{Value, json};
use webpki::EndEntityCert;
use x509_parser::num_bigint::BigUint;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// Area of the lists.
const LISTS: u8 = b'l';
/// Area of their serial numbers.
const SERIALS: u8 = b's';
/// Bytes of a serial number (RFC 5280 4.1.2.2); shorter ones have zeroes before them.
const SERIAL_BYTES: usize = 20;
/// Longest list that is taken: its serial numbers must fit one record.
const MAX_LIST_BYTES: usize = 4 * 1024 * 1024;
/// A fetched list is fetched anew when it ends, but no sooner and no later than this. Seconds.
const MIN_REFETCH_S: u64 = 60;
const MAX_REFETCH_S: u64 = 24 * 3600;

/// What is known of a list.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct List {
    /// The issuer's name, DER in hex.
    issuer: String,
    /// Where it is fetched; empty if it was uploaded.
    url: String,
    /// When it ends, in seconds; 0 = it does not say.
    next_update: u64,
    /// When it was made, in seconds.
    this_update: u64,
}

fn missing(name: &str) -> Error {
    Error::invalid(format!("no such CRL {name}"))
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Response::keys(cx.list(LISTS, "", args.str("after"), page::limit(args))?).done()
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    let Some(list) = cx.get_json::<List>(LISTS, name.as_bytes())? else { return Err(missing(name)) };
    let serials = cx.get(SERIALS, name.as_bytes())?.unwrap_or_default();
    let shown: Map =
        serials.chunks_exact(SERIAL_BYTES).map(|s| (BigUint::from_bytes_be(s).to_string(), json!({}))).collect();
    let mut all = Map::from_iter([("serials".to_owned(), Value::Object(shown))]);
    if !list.url.is_empty() {
        let until = Wall::from_seconds(list.next_update).rfc3339_seconds();
        all.insert("cdp".into(), json!({"url": list.url, "valid_until": until}));
    }
    Response::data(all).done()
}

pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if !cx.exists(LISTS, name.as_bytes()) {
        return Err(missing(name));
    }
    cx.delete(LISTS, name.as_bytes());
    cx.delete(SERIALS, name.as_bytes());
    cx.unschedule(&job(name));
    nothing()
}

pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").to_owned();
    if args.supplied("crl") {
        let parsed = parse(&der_of(args.str("crl"))?)?;
        cx.unschedule(&job(&name));
        keep(cx, &name, "", parsed);
        return nothing();
    }
    if !args.supplied("url") {
        return Err(Error::invalid("one of 'crl' or 'url' must be provided"));
    }
    let url = args.str("url").trim().to_owned();
    match url.as_str() {
        "" => return Err(Error::invalid("empty CRL url")),
        u if !u.starts_with("http://") && !u.starts_with("https://") => {
            return Err(Error::invalid(format!("invalid CRL url: {u}")));
        }
        _ => {}
    }
    outside::run(cx, move |cx, out| {
        let (der, parsed) = fetch(&url, out)?;
        vouch(cx, &name, &url, &der, &parsed)?;
        keep_fetched(cx, &name, &url, parsed);
        Ok(None)
    })
}

/// A fetched list has ended.
pub fn due(cx: &mut Cx<'_, '_>, job: &str) -> Outcome {
    let Some(name) = job.strip_prefix("crl/").map(str::to_owned) else { return nothing() };
    outside::run(cx, move |cx, out| {
        let Some(list) = cx.get_json::<List>(LISTS, name.as_bytes())?.filter(|l| !l.url.is_empty()) else {
            return Ok(None);
        };
        let (der, parsed) = fetch(&list.url, out)?;
        vouch(cx, &name, &list.url, &der, &parsed)?;
        keep_fetched(cx, &name, &list.url, parsed);
        Ok(None)
    })
}

fn job(name: &str) -> String {
    format!("crl/{name}")
}

/// Refuses a fetched list that may be somebody else's, or is older than the one it would replace.
fn vouch(cx: &mut Cx<'_, '_>, name: &str, url: &str, der: &[u8], parsed: &Parsed) -> Result<(), Error> {
    let refuse = |why: &str| Err(Error::invalid(format!("error fetching CRL: {why}")));
    let known = cx.get_json::<List>(LISTS, name.as_bytes())?.filter(|l| l.url == url);
    if known.is_some_and(|l| l.issuer == hex::encode(&parsed.issuer) && l.this_update > parsed.this_update) {
        return refuse("it is older than the one in force");
    }
    let mut knows_issuer = false;
    for entry in entry::names(cx)? {
        let Some(entry) = entry::load(cx, &entry)? else { continue };
        for authority in chain::of_pem(&entry.certificate).unwrap_or_default() {
            if chain::parse(&authority).is_some_and(|c| c.subject().as_raw() == parsed.issuer) {
                knows_issuer = true;
                if is_signed_by(der, &authority) {
                    return Ok(());
                }
            }
        }
    }
    match (knows_issuer, url.starts_with("https://")) {
        (true, _) => refuse("its signature is not its issuer's"),
        (false, true) => Ok(()),
        (false, false) => refuse(
            "no certificate of its issuer is trusted here, so its signature cannot be checked: write the entry that \
             trusts it first, or fetch it over https",
        ),
    }
}

/// RFC 5280 5.1.1: the list proper, the algorithm, the signature.
fn is_signed_by(list: &[u8], authority: &CertificateDer<'_>) -> bool {
    let parts = SliceReader::new(list).and_then(|mut r| {
        r.sequence(|r| {
            let signed = r.tlv_bytes()?.to_vec();
            // webpki names algorithms by the content of the sequence
            let algorithm = AnyRef::decode(r)?.value().to_vec();
            Ok((signed, algorithm, BitStringRef::decode(r)?.as_bytes().map(<[u8]>::to_vec)))
        })
    });
    let (Ok((signed, algorithm, Some(signature))), Ok(authority)) = (parts, EndEntityCert::try_from(authority))
    else {
        return false;
    };
    let mut fitting = SIGNATURES.iter().filter(|a| a.signature_alg_id().as_ref() == algorithm.as_slice());
    fitting.any(|a| authority.verify_signature(*a, &signed, &signature).is_ok())
}

fn fetch(url: &str, out: &Outside) -> Result<(Vec<u8>, Parsed), Stop> {
    let failed = |why: String| Stop::Refuse(Error::invalid(format!("error fetching CRL: {why}")));
    let ask = HttpAsk { max_answer_bytes: MAX_LIST_BYTES, ..HttpAsk::get(url) };
    let answer = out.ask(ask)?.map_err(failed)?;
    if answer.status != 200 {
        return Err(failed(format!("unexpected response code {} fetching CRL from {url}", answer.status)));
    }
    let der = match std::str::from_utf8(&answer.body) {
        Ok(text) if text.contains("-----BEGIN") => der_of(text)?,
        _ => answer.body.clone(),
    };
    let parsed = parse(&der)?;
    Ok((der, parsed))
}

fn keep_fetched(cx: &mut Cx<'_, '_>, name: &str, url: &str, parsed: Parsed) {
    let left = parsed.next_update.saturating_sub(cx.now.seconds()).clamp(MIN_REFETCH_S, MAX_REFETCH_S);
    cx.schedule(&job(name), cx.now.plus_seconds(left));
    keep(cx, name, url, parsed);
}

fn keep(cx: &mut Cx<'_, '_>, name: &str, url: &str, parsed: Parsed) {
    let list = List {
        issuer: hex::encode(&parsed.issuer),
        url: url.to_owned(),
        next_update: parsed.next_update,
        this_update: parsed.this_update,
    };
    cx.put_json(LISTS, name.as_bytes(), &list);
    cx.put(SERIALS, name.as_bytes(), &parsed.serials.concat());
}

/// PEM, or DER in base64.
fn der_of(text: &str) -> Result<Vec<u8>, Error> {
    if text.len() > 2 * MAX_LIST_BYTES {
        return Err(Error::invalid("failed to parse CRL: it is too long"));
    }
    if let Ok(der) = CertificateRevocationListDer::from_pem_slice(text.as_bytes()) {
        return Ok(der.to_vec());
    }
    let packed: String = text.split_whitespace().collect();
    STANDARD.decode(packed).map_err(|_| Error::invalid("failed to parse CRL: it is neither PEM nor DER in base64"))
}

/// What counts of a list.
struct Parsed {
    issuer: Vec<u8>,
    next_update: u64,
    this_update: u64,
    /// Sorted.
    serials: Vec<[u8; SERIAL_BYTES]>,
}

fn parse(der: &[u8]) -> Result<Parsed, Error> {
    let bad = |why: &str| Error::invalid(format!("failed to parse CRL: {why}"));
    let (_, list) = CertificateRevocationList::from_der(der).map_err(|_| bad("it is not a CertificateList"))?;
    let mut serials = Vec::new();
    for revoked in list.iter_revoked_certificates() {
        serials.push(padded(revoked.raw_serial()).ok_or_else(|| bad("a serial number is longer than 20 bytes"))?);
    }
    serials.sort_unstable();
    serials.dedup();
    crate::check_size(serials.len() * SERIAL_BYTES)?;
    Ok(Parsed {
        issuer: list.issuer().as_raw().to_vec(),
        next_update: list.next_update().and_then(|t| u64::try_from(t.timestamp()).ok()).unwrap_or(0),
        this_update: u64::try_from(list.last_update().timestamp()).unwrap_or(0),
        serials,
    })
}

fn padded(serial: &[u8]) -> Option<[u8; SERIAL_BYTES]> {
    let zeroes = serial.iter().take_while(|b| **b == 0).count();
    let serial = &serial[zeroes..];
    let start = SERIAL_BYTES.checked_sub(serial.len())?;
    let mut out = [0; SERIAL_BYTES];
    out[start..].copy_from_slice(serial);
    Some(out)
}

/// True if a list revokes one of these certificates.
pub fn revokes(cx: &mut Cx<'_, '_>, chain_der: &[impl AsRef<[u8]>]) -> Result<bool, Error> {
    let names = cx.list(LISTS, "", "", 0)?;
    if names.is_empty() {
        return Ok(false);
    }
    let chain: Vec<X509Certificate<'_>> = chain_der.iter().filter_map(|der| chain::parse(der.as_ref())).collect();
    for name in names {
        let Some(list) = cx.get_json::<List>(LISTS, name.as_bytes())? else { continue };
        let ours: Vec<[u8; SERIAL_BYTES]> = chain
            .iter()
            .filter(|c| hex::encode(c.issuer().as_raw()) == list.issuer)
            .filter_map(|c| padded(c.raw_serial()))
            .collect();
        if ours.is_empty() {
            continue;
        }
        let serials = cx.get(SERIALS, name.as_bytes())?.unwrap_or_default();
        let (rows, _) = serials.as_chunks::<SERIAL_BYTES>();
        if ours.iter().any(|s| rows.binary_search(s).is_ok()) {
            return Ok(true);
        }
    }
    Ok(false)
}
