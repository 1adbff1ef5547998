//! Positions in the log that clients carry: what `X-Vault-Index` says, and what a call demands by it.
//!
//! ```text
//! base64 (padded) of   v1:<cluster id>:<index>:<index of a primary cluster, 0>:<hex HMAC-SHA256 of all before this colon>
//! ```
//! The form is Vault's, because its clients take it apart: they keep the later of two and begin anew when the cluster's
//! id changes. The code is of this cluster's keyring, so any unsealed node of it can tell a position that was given out
//! from one that was made up. Driven by the shard; nothing here waits.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringfence_barrier::{HashKind, Keyring};
use ringfence_base::Index;
use ringfence_vault::call::Call;

/// The header that carries one.
pub(crate) const HEADER: &str = "x-vault-index";
/// What to do with a call that demands more than the node has.
const INCONSISTENT: &str = "x-vault-inconsistent";
/// Longest text that is looked at; ours is about 190 bytes.
const MAX_TEXT_BYTES: usize = 512;

/// What a call demands of the node that answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    /// The image must hold at least this.
    pub(crate) index: Index,
    /// If it does not, the active node is to answer at once.
    pub(crate) or_forward: bool,
}

/// A position that this cluster did not give out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreign;

/// The text of a position.
pub(crate) fn write(keyring: &Keyring, cluster_id: &str, index: Index) -> String {
    let said = format!("v1:{cluster_id}:{}:0", index.0);
    let code = hex::encode(keyring.mac(HashKind::POSITION, said.as_bytes()));
    STANDARD.encode(format!("{said}:{code}"))
}

/// Reads [`write()`]; any text is safe.
pub(crate) fn read(keyring: &Keyring, cluster_id: &str, text: &str) -> Result<Index, Foreign> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Foreign);
    }
    let bytes = STANDARD.decode(text.trim()).map_err(|_| Foreign)?;
    let whole = std::str::from_utf8(&bytes).map_err(|_| Foreign)?;
    let (said, code) = whole.rsplit_once(':').ok_or(Foreign)?;
    // the text itself: a position is written in one way only
    let (own, given) = (hex::encode(keyring.mac(HashKind::POSITION, said.as_bytes())), code.as_bytes());
    // takes as long whatever differs
    if given.len() != own.len() || given.iter().zip(own.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) != 0 {
        return Err(Foreign);
    }
    let parts: Vec<&str> = said.split(':').collect();
    match parts[..] {
        ["v1", cluster, index, _] if cluster == cluster_id => index.parse().map(Index).map_err(|_| Foreign),
        _ => Err(Foreign),
    }
}

/// What a call demands, the latest of several positions.
pub(crate) fn demand(keyring: &Keyring, cluster_id: &str, call: &Call) -> Result<Option<Demand>, Foreign> {
    // one look for both: nearly no call has either
    if !call.headers.mention("x-vault-in") {
        return Ok(None);
    }
    let (mut index, mut or_forward) = (None, false);
    for (name, value) in call.headers.iter() {
        match name {
            HEADER if !value.is_empty() => index = index.max(Some(read(keyring, cluster_id, value)?)),
            INCONSISTENT => or_forward = value.trim().eq_ignore_ascii_case("forward-active-node"),
            _ => {}
        }
    }
    Ok(index.map(|index| Demand { index, or_forward }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringfence_base::Wall;
    use ringfence_base::entropy::SeededEntropy;
    use ringfence_crypto::Provider;

    fn keyring(seed: u64) -> Keyring {
        Keyring::generate(Provider::Seeded, Wall(1), &mut SeededEntropy(seed))
    }

    #[test]
    fn the_form_is_the_one_that_clients_take_apart() {
        let text = write(&keyring(1), "8f1c-22", Index(4711));
        let plain = String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
        let parts: Vec<&str> = plain.split(':').collect();
        assert_eq!(parts[..4], ["v1", "8f1c-22", "4711", "0"]);
        assert_eq!((parts.len(), parts[4].len()), (5, 64));
    }

    #[test]
    fn what_another_made_is_foreign() {
        let (ours, theirs) = (keyring(1), keyring(2));
        assert_eq!(read(&ours, "c", &write(&ours, "c", Index(7))), Ok(Index(7)));
        assert_eq!(read(&ours, "c", &write(&theirs, "c", Index(7))), Err(Foreign));
        assert_eq!(read(&ours, "c", &write(&ours, "d", Index(7))), Err(Foreign));
        assert_eq!(
            read(&ours.rotated(Wall(2), &mut SeededEntropy(3)), "c", &write(&ours, "c", Index(7))),
            Ok(Index(7))
        );
        let shouted = {
            let plain = STANDARD.decode(write(&ours, "c", Index(7))).unwrap();
            let plain = String::from_utf8(plain).unwrap();
            let (said, code) = plain.rsplit_once(':').unwrap();
            STANDARD.encode(format!("{said}:{}", code.to_uppercase()))
        };
        for text in ["", "v1", "djE6YzoxOjA6", &"A".repeat(4096), &shouted] {
            assert_eq!(read(&ours, "c", text), Err(Foreign), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_safe_and_any_change_is_seen(index: u64, at: usize, with: u8, junk in ".{0,64}") {
            let keyring = keyring(5);
            prop_assert!(read(&keyring, "c", &junk).is_err());
            let mut text = write(&keyring, "c", Index(index)).into_bytes();
            let at = at % text.len();
            if text[at] != with && with.is_ascii() {
                text[at] = with;
                let text = String::from_utf8(text).unwrap();
                // white space at the ends is no part of a header's value
                prop_assert!(read(&keyring, "c", &text).is_err() || text.trim().len() < text.len());
            }
        }
    }
}
