//! A load generator for any server that speaks Vault's HTTP API: it sets up what it needs by that API alone, loads the
//! server in closed or open loop, and tells what it saw together with what it could have reached itself.
//!
//! ```text
//! cli -> settings -> setup (blocking client) -> search / run ──> worker threads: mio + timer, h1 or h2 over plain or TLS
//!                                                   │                 │ one tick an interval
//!                                     limit (bare responder)          ▼
//!                                                   └──────> report (JSON, CSV) -> html
//! ```
//!
//! It shares no code with the server it measures, never retries a request in silence, and never leaves out an answer
//! that came late: in open loop a latency counts from when the request was due.

pub mod call;
pub mod cli;
pub mod client;
pub mod h1;
pub mod h2;
pub mod html;
pub mod keys;
pub mod limit;
pub mod ops;
pub mod process;
pub mod report;
pub mod responder;
pub mod run;
pub mod search;
pub mod settings;
pub mod setup;
pub mod target;
pub mod transport;
pub mod worker;
