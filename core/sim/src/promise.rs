//! The names of what is promised. Every broken promise is told as `name: what was seen`.

/// What was acknowledged is there afterwards.
pub const ACKNOWLEDGED: &str = "acknowledged-writes-survive";
/// A read of the active node shows the last acknowledged write, or one under way.
pub const READS: &str = "reads-are-linearizable";
/// A read that no client asked to be the newest shows what was the newest within the bound of standbys, or later.
pub const BOUND: &str = "reads-of-standbys-are-bounded";
/// A read that shows a position sees everything up to it, on whichever node.
pub const POSITIONS: &str = "never-behind-a-position";
/// Two writers are never told the same version.
pub const VERSIONS: &str = "one-version-a-writer";
/// A revoked token is dead.
pub const REVOKED: &str = "revoked-is-dead";
/// A wrapping token opens at most once.
pub const UNWRAP: &str = "unwrap-once";
/// A token of N uses works at most N times.
pub const USES: &str = "n-uses";
/// A sealed node answers no data and has no keys.
pub const SEALED: &str = "sealed-is-silent";
/// No byte of a secret stands on a disk or goes over the wire.
pub const CLEAR: &str = "nothing-in-the-clear";
/// No nonce is used twice under one key.
pub const NONCES: &str = "no-nonce-twice";
/// Images are equal at equal indexes.
pub const IMAGES: &str = "equal-images";
/// One leader a term.
pub const LEADERS: &str = "one-leader-a-term";
/// Log time keeps time: no clock that jumped moves it by more than the slew, not through an election either.
pub const TIME: &str = "log-time-keeps-time";
/// After the faults the cluster serves, and a node starts from whatever a crash left.
pub const SERVES: &str = "serves-again";
