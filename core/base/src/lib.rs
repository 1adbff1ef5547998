//! The lowest floor: ids, time values, entropy, secrets, canonical paths, limits, codes and the bounded codec.
//!
//! Everything above imports this and nothing here imports anything of ours. Nothing in it reads a clock, a file, a
//! socket or the system's random source: time ([`Now`]) and randomness ([`Entropy`]) are arguments.

pub mod code;
pub mod codec;
pub mod duration;
pub mod entropy;
pub mod id;
pub mod invariant;
pub mod limit;
pub mod path;
pub mod secret;
pub mod time;

pub use code::Code;
pub use codec::{CodecError, Reader, Writer};
pub use entropy::Entropy;
pub use id::{Index, MountId, NsId, Term};
pub use path::{CanonPath, PathError};
pub use secret::Secret;
pub use time::{Mono, Now, Wall};
