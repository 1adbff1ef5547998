//! Small numbers with a meaning of their own, so that one is never passed where another is wanted.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Position of an entry in the raft log. The image at index `i` is the fold of all batches up to `i`.
    Index, u64);
number!(
    /// Raft term.
    Term, u64);
number!(
    /// Number of a mount, unique in the cluster for all time; keys carry it instead of the mount's path, so a move
    /// of the mount rewrites one record.
    MountId, u32);
number!(
    /// Number of a namespace; the root namespace is [`NsId::ROOT`].
    NsId, u32);

impl NsId {
    /// The root namespace.
    pub const ROOT: NsId = NsId(0);
}

impl Index {
    /// The index after this one.
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }
}
