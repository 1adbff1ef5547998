//! The certificate of the cluster port changes by itself, without a moment in which a node is not known.
//!
//! ```text
//!   old enough ──> the next is made ──> announced: the table of members says both ──overlap──> in use: the table says one
//! ```
//! A node shows the next certificate only when it reads its hash in the table itself, and some time after that, so that
//! the others have read it too. Connections that stand are left alone: who is at the other end was proved when they began.
//! A node that was away in the meantime knows an older certificate; it asks for that one by name, and is shown it, and it
//! is dialled with it. That is no loss: nobody who reads the table of today believes an old one.
//!
//! Driven by the cluster port's own clock. Never changes the table: the owner does, which is told what it is to say.

use super::identity::Identity;
use super::{Peers, tls};
use crate::rt;
use crate::shard::ToOwner;
use crate::telemetry::{self, Level};
use ringfence_base::Mono;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// Longest time between the next certificate's being in the table and its use.
const MAX_OVERLAP: Duration = Duration::from_secs(60);

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
enum Todo {
    Nothing,
    /// Make the next one.
    Make,
    /// Show the next one.
    Use,
}

/// What decides.
struct Picture {
    /// Since when the one in use exists.
    age: Duration,
    /// The next one is made.
    has_next: bool,
    /// Since when the table has said both, if it does.
    known_for: Option<Duration>,
    period: Duration,
}

fn todo(p: &Picture) -> Todo {
    match (p.has_next, p.known_for) {
        (false, _) if p.age >= p.period => Todo::Make,
        (true, Some(known_for)) if known_for >= overlap(p.period) => Todo::Use,
        _ => Todo::Nothing,
    }
}

fn overlap(period: Duration) -> Duration {
    (period / 4).min(MAX_OVERLAP)
}

impl Peers {
    /// Renews the certificate whenever it is older than this, for ever.
    pub async fn rotate(self: Rc<Self>, period: Duration) {
        let mut known_since: Option<Mono> = None;
        loop {
            rt::sleep(overlap(period) / 4).await;
            let (picture, folder, newest) = {
                let (identity, own) = (self.identity.borrow(), self.own.borrow());
                // a node alone has nobody to show it to
                let Some(record) = own.members.get(&own.raft_id).filter(|_| own.members.len() > 1) else { continue };
                let known = identity.next().is_some_and(|next| record.pins.contains(&next.pin));
                known_since = if known { known_since.or(Some(rt::mono())) } else { None };
                let picture = Picture {
                    age: SystemTime::now().duration_since(identity.in_use().made).unwrap_or_default(),
                    has_next: identity.next().is_some(),
                    known_for: known_since.map(|since| Duration::from_nanos(rt::mono().since(since))),
                    period,
                };
                (picture, identity.folder().to_owned(), identity.newest())
            };
            match todo(&picture) {
                Todo::Nothing => continue,
                Todo::Make => match rt::unblock(move || Identity::make_next(&folder, newest)).await {
                    Ok(next) => self.identity.borrow_mut().add(next),
                    Err(e) => {
                        telemetry::log(Level::Warn, &e);
                        continue;
                    }
                },
                Todo::Use => {
                    self.identity.borrow_mut().use_newest();
                    known_since = None;
                    telemetry::log(Level::Info, "the cluster port shows a new certificate");
                }
            }
            match tls::server(&self.identity.borrow()) {
                Ok(server) => *self.server.borrow_mut() = server,
                Err(e) => telemetry::log(Level::Warn, &format!("the cluster port's new certificate: {e}")),
            }
            let _ = self.owner.try_send(ToOwner::Pins(self.identity.borrow().announced()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_shown_after_it_was_known() {
        let s = Duration::from_secs;
        let picture = |age, has_next, known_for: Option<u64>| Picture {
            age: s(age),
            has_next,
            known_for: known_for.map(s),
            period: s(400),
        };
        assert_eq!(overlap(s(400)), s(60));
        assert_eq!(overlap(s(40)), s(10));
        assert_eq!(todo(&picture(399, false, None)), Todo::Nothing);
        assert_eq!(todo(&picture(400, false, None)), Todo::Make);
        assert_eq!(todo(&picture(9000, true, None)), Todo::Nothing, "nobody knows it yet");
        assert_eq!(todo(&picture(9000, true, Some(59))), Todo::Nothing);
        assert_eq!(todo(&picture(9000, true, Some(60))), Todo::Use);
    }
}
