//! The runtime seam: the only place that knows the runtime.
//!
//! ```text
//!            server: api, peer, disk, shard, audit ...
//!   ───────────────────────────────────────────────────────────
//!    spawn_core  Stream  sleep  channel  File  now  signals       <- this module's face
//!   ───────────────────────────────────────────────────────────
//!    executors:  exec (bare)   |   glommio
//!   ───────────────────────────────────────────────────────────
//!    driver:     uring         |   epoll         + timers, wake-ups
//! ```
//! A core is a thread with one driver and one executor; what is opened on it stays on it. Cores talk through
//! [`channel`]s. Nothing here imports a crate of the engine except `base`; nothing outside of here imports io-uring,
//! glommio or libc, or reads a clock. `unsafe` stands here alone, each block with its reason.

mod buf;
mod bufring;
pub mod channel;
mod clock;
mod disk;
mod driver;
mod epoll;
mod exec;
mod glommio;
mod launch;
mod net;
mod pool;
mod process;
mod signal;
mod stream;
mod task;
mod test_clock;
mod timer;
mod uring;
mod uring_socket;

#[cfg(test)]
mod tests;

pub use buf::{AlignedBuf, BLOCK_BYTES, round_up};
pub use clock::{OsEntropy, coarse, mono, now};
pub use disk::{File, OpenMode, is_no_space, remove, rename, sync_dir};
pub use driver::{Driver, DriverChoice, DriverKind, DriverWish};
pub use launch::{CoreHandle, ExecutorWish, Options, RootPanic, probe, run, spawn_core};
pub use pool::{Pool, background, unblock};
pub use process::{MemoryLock, harden, lock_memory};
pub use signal::{Signal, Signals, signals};
pub use stream::{Stream, TcpListener, UnixListener, UnixPeer};
pub use task::{Executor, Lost, Task, spawn_local, yield_now};
pub use test_clock::{TEST_CLOCK, is_test_clock_refused};
pub use timer::{Elapsed, Sleep, Timer, sleep, sleep_until, timeout};
