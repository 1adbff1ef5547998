//! Clearing away secret-ids that are dead: expired, or their role is gone. Bounded: a call goes through so many
//! entries, notes where it stopped, and the next call goes on there.

use super::role;
use super::secret_id::{self, Place, SECRET_IDS, SecretId};
use ringfence_base::Code;
use ringfence_logical::{Args, Cx, Outcome, Response};

/// Area of the mark where the last call stopped.
const MARK: u8 = b't';
/// Entries that one call looks at. Each costs one decryption, and two deletes if it is dead.
const MAX_ENTRIES: usize = 1000;
const _: () = assert!(2 * MAX_ENTRIES + 1 < ringfence_base::limit::MAX_BATCH_OPS);

pub fn tidy(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let area = cx.key(SECRET_IDS, b"");
    let mark = cx.get(MARK, b"")?;
    let after = mark.as_ref().map(|m| cx.key(SECRET_IDS, m));
    let keys = cx.txn.list(&area, after.as_deref(), MAX_ENTRIES);
    let mut number: Option<([u8; 8], bool)> = None;
    for key in &keys {
        let Ok(place) = Place::try_from(&key[area.len()..]) else { continue };
        let of_role: [u8; 8] = std::array::from_fn(|i| place[i]);
        let alive = match number {
            Some((n, alive)) if n == of_role => alive,
            _ => role::number_is_alive(cx, &of_role),
        };
        number = Some((of_role, alive));
        if let Some(entry) = cx.get_json::<SecretId>(SECRET_IDS, &place)?
            && (!alive || entry.is_expired(cx.now))
        {
            secret_id::remove(cx, &place, &entry);
        }
    }
    match keys.last() {
        Some(last) if keys.len() == MAX_ENTRIES => cx.put(MARK, b"", &last[area.len()..]),
        _ if mark.is_some() => cx.delete(MARK, b""),
        _ => {}
    }
    Response::default()
        .warn("Tidy operation successfully started. Any information from the operation will be printed to Vault's server logs.")
        .code(Code::Accepted)
        .done()
}
