//! Audit: what a device is, and the lines that a call writes to it. Lines are made here, as pure functions; whether a
//! device took them is the server's to say. Rule: one request line before any effect, one response line before the
//! answer, and at least one device must take each.
//!
//! Values of requests and responses are hashed with the device's salt, see [`entry`].

pub mod device;
pub mod entry;
mod text;

pub use device::{Device, hash};

use crate::call::Call;
use crate::mount::Routed;
use crate::namespace::Namespace;
use crate::pipeline::Told;
use crate::tables;
use crate::token::check::Holder;
use ringfence_barrier::{Keyring, Txn};
use ringfence_base::{Index, Wall};
use ringfence_logical::{Error, Operation};
use ringfence_policy::acl::GrantingPolicy;
use std::rc::Rc;

/// A line for one device.
#[derive(Clone, Debug)]
pub struct Line {
    /// The device: the sink is chosen by its path, kind and options.
    pub device: Rc<Device>,
    /// The entry, with its newline and prefix.
    pub bytes: Vec<u8>,
}

/// The lines of one run of a call.
#[derive(Debug, Default)]
pub struct Lines {
    /// To be taken before any effect.
    pub request: Vec<Line>,
    /// To be taken before the answer.
    pub response: Vec<Line>,
}

/// The devices in force, read once per change of their table.
#[derive(Default)]
pub struct Devices {
    at: Option<Index>,
    list: Vec<Rc<device::Armed>>,
}

impl Devices {
    /// The devices of this view.
    pub fn refresh(&mut self, txn: &mut Txn<'_>, _keyring: &Keyring) -> Result<Vec<Rc<device::Armed>>, Error> {
        // a write that was evaluated without a device must not commit after the device was enabled
        if !txn.is_read_only() {
            txn.guard_prefix(&[tables::AUDIT]);
        }
        let at = txn.changed(tables::AUDIT, None).max(txn.changed(tables::CONFIG, None));
        if self.at != Some(at) {
            self.list = device::arm_all(txn)?;
            self.at = Some(at);
        }
        Ok(self.list.clone())
    }
}

/// What an entry tells of a call.
pub struct Subject<'a> {
    /// The call.
    pub call: &'a Call,
    /// What it turned out to ask (create or update).
    pub op: Operation,
    /// Namespace.
    pub ns: &'a Namespace,
    /// Path within the namespace.
    pub path: &'a str,
    /// Mount, if one serves it.
    pub routed: Option<&'a Routed>,
    /// The verified token.
    pub holder: Option<&'a Rc<Holder>>,
    /// The client behind it, as counts of active clients name it.
    pub client_id: Option<&'a str>,
    /// Policies from entity and groups.
    pub identity_policies: &'a [String],
    /// Policies that granted it.
    pub granting: &'a [GrantingPolicy],
    /// This core's wall clock.
    pub wall: Wall,
}

/// The lines of a run for all devices. `request_taken` leaves the request line out: it was acknowledged before.
pub fn lines(devices: &[Rc<device::Armed>], subject: &Subject<'_>, told: &Told<'_>, request_taken: bool) -> Lines {
    let mut out = Lines::default();
    for d in devices {
        let shared = entry::Shared::of(d, subject, told);
        if !request_taken {
            out.request.push(d.line(|line| shared.request(line, told)));
        }
        if !matches!(told, Told::Nothing) {
            out.response.push(d.line(|line| shared.response(line, d, subject, told)));
        }
    }
    out
}
