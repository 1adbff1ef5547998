//! What clients were told, and what must therefore be true.

use std::collections::BTreeMap;

/// A register that clients write and read: the last acknowledged value and the last one tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Register {
    /// Acknowledged.
    pub acknowledged: u64,
    /// Tried, with or without an answer.
    pub tried: u64,
}

/// A token that a client made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// Its text.
    pub text: String,
    /// Its revocation was acknowledged.
    pub revoked: bool,
    /// Its revocation was asked for, with or without an answer.
    pub revoking: bool,
    /// Uses it was made with; 0 = unlimited.
    pub uses: u64,
    /// Requests with it that worked.
    pub worked: u64,
}

/// A wrapping token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wrapping {
    /// Its text.
    pub text: String,
    /// Times it yielded its secret.
    pub opened: u64,
}

/// A key that everybody writes at once: each acknowledged write is a version of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hot {
    /// Versions told to writers.
    pub versions: std::collections::BTreeSet<u64>,
    /// Writes tried, with or without an answer.
    pub tried: u64,
}

/// Everything that clients know.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The contended key.
    pub hot: Hot,
    /// By key.
    pub registers: BTreeMap<u64, Register>,
    /// In order of creation.
    pub tokens: Vec<Token>,
    /// In order of creation.
    pub wrappings: Vec<Wrapping>,
    /// Answers with a success.
    pub acknowledged: u64,
}
