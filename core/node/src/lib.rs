//! The node: what the server and the simulator drive. [`Owner`] is the machine of the owner core, [`Shard`] that of
//! every core; both take one input at a time, a time and a source of randomness, and answer what is to be done as
//! data. Nothing here opens a socket, a file or a thread.

pub mod activity;
pub mod autopilot;
pub mod cell;
pub mod ceremony;
pub mod checkpoint;
pub mod clock;
pub mod control;
pub mod forward;
pub mod install;
pub mod join;
pub mod lockout;
pub mod members;
pub mod owner;
pub mod peer;
mod position;
pub mod recovery;
pub mod repair;
mod restage;
pub mod seal;
pub mod shard;
pub mod snapshot;
pub mod standby;
pub mod status;
pub mod tip;
pub mod work;
mod writing_reads;

pub use cell::{Cell, Facts};
pub use checkpoint::{FileFault, FileOp, Packed};
pub use control::ControlCall;
pub use install::{Loaded, Loading};
pub use join::{JoinAsk, JoinSaid, JoinTarget, discover};
pub use members::MemberRecord;
pub use owner::{Gauges, Level, Membership, Owner, OwnerConfig, OwnerIn, OwnerOut, ShardId};
pub use peer::{Lane, PeerMessage};
pub use recovery::{Broken, Files, Found};
pub use repair::{Returned, Returning};
pub use shard::{Awaiting, Forwarded, Settled, Shard, ShardIn, ShardOut, Ticket};
pub use tip::{TipCall, TipDone};

// what the edge needs of the floors below; `server` imports nothing else of `core/`
pub use ringfence_base::{Code, limit};
pub use ringfence_crypto::Provider;
pub use ringfence_crypto::kwp::wrap_for_pem;
pub use ringfence_logical::args::parse_bool;
pub use ringfence_logical::side::perform;
pub use ringfence_logical::{
    Error, HttpAnswer, HttpAsk, KeepSnapshot, Map, Operation, OwnerOp, Parameters, Probe, ProbeKind, Raw, Reach,
    SideOp, SideResult, SqlAsk, SqlKind, SqlTarget, SqlTls,
};
pub use ringfence_pki::relation;
pub use ringfence_policy::hcl;
pub use ringfence_raft as raft;
pub use ringfence_store as store;
pub use ringfence_vault::audit::{Device, Line};
pub use ringfence_vault::call::{Body, Call, Headers, Reply};
pub use ringfence_vault::host::{API_VERSION, Settings, Vault};
pub use ringfence_vault::mount::{SystemTtls, UserLockout};
pub use ringfence_vault::pipeline::LoginNote;
pub use ringfence_vault::sys::config::Cors;

/// The engines this build knows: the vault's own and those of the engines floor.
pub fn registry() -> ringfence_logical::Registry {
    let mut r = ringfence_engines::registry();
    ringfence_pki::register(&mut r);
    ringfence_vault::sys::register(&mut r);
    r
}
