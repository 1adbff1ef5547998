//! Clearing away secret-ids that are dead: expired, or their role is gone. Bounded: a step goes through so many
//! entries, notes where it stopped, and the next one goes on there. A step is a call of the endpoint, or the job that
//! runs every hour for as long as there is something that may expire.

use super::role;
use super::secret_id::{self, Place, SECRET_IDS, SecretId};
use ringfence_base::Code;
use ringfence_logical::cx::job_key;
use ringfence_logical::{Args, Cx, Error, Outcome, Response, nothing};

/// Area of the mark where the last step stopped: the place, and 1 if something before it expires one day.
const MARK: u8 = b't';
/// The job.
pub const JOB: &str = "tidy-secret-ids";
/// Between the end of a round and the next. Source: Vault's own hourly round.
const EVERY_SECONDS: u64 = 3600;
/// Between two steps of a round: others get their turn.
const STEP_SECONDS: u64 = 1;
/// Entries that one step looks at. Each costs one decryption, and two deletes if it is dead.
const MAX_ENTRIES: usize = 1000;
const _: () = assert!(2 * MAX_ENTRIES + 2 < ringfence_base::limit::MAX_BATCH_OPS);

/// What a step leaves to do.
enum Left {
    /// The round is not over.
    More,
    /// The round is over, and something expires one day.
    Expiring,
    /// Nothing.
    Nothing,
}

/// The endpoint.
pub fn tidy(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    if let Left::More = step(cx)? {
        // what one call does not reach does not wait for the next
        cx.schedule(JOB, cx.now.plus_seconds(STEP_SECONDS));
    }
    Response::default()
        .warn("Tidy operation successfully started. Any information from the operation will be printed to Vault's server logs.")
        .code(Code::Accepted)
        .done()
}

/// The job.
pub fn due(cx: &mut Cx<'_, '_>) -> Outcome {
    match step(cx)? {
        Left::More => cx.schedule(JOB, cx.now.plus_seconds(STEP_SECONDS)),
        Left::Expiring => cx.schedule(JOB, cx.now.plus_seconds(EVERY_SECONDS)),
        Left::Nothing => {}
    }
    nothing()
}

/// Sees to it that what dies will be cleared away.
pub fn expect(cx: &mut Cx<'_, '_>) {
    if !cx.txn.exists(&job_key(cx.mount.id, JOB)) {
        cx.schedule(JOB, cx.now.plus_seconds(EVERY_SECONDS));
    }
}

fn step(cx: &mut Cx<'_, '_>) -> Result<Left, Error> {
    let area = cx.key(SECRET_IDS, b"");
    let mark = cx.get(MARK, b"")?;
    let place_bytes = size_of::<Place>();
    let after = mark.as_ref().map(|m| cx.key(SECRET_IDS, &m[..m.len().min(place_bytes)]));
    let mut expiring = mark.as_ref().and_then(|m| m.get(place_bytes)) == Some(&1);
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
        let Some(entry) = cx.get_json::<SecretId>(SECRET_IDS, &place)? else { continue };
        match alive && !entry.is_expired(cx.now) {
            true => expiring |= entry.expires.is_some(),
            false => secret_id::remove(cx, &place, &entry),
        }
    }
    match keys.last() {
        Some(last) if keys.len() == MAX_ENTRIES => {
            let mark = [&last[area.len()..], &[u8::from(expiring)]].concat();
            cx.put(MARK, b"", &mark);
            return Ok(Left::More);
        }
        _ if mark.is_some() => cx.delete(MARK, b""),
        _ => {}
    }
    Ok(if expiring { Left::Expiring } else { Left::Nothing })
}
