//! What became of a request, free of HTTP. One file in `server` turns a code into a status number.

/// The fate of a request. Names follow what a client sees; see the error table of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Code {
    /// The answer has a body (200).
    Ok,
    /// The work was accepted and goes on (202).
    Accepted,
    /// Done, nothing to tell (204).
    NoContent,
    /// The client's mistake (400).
    Invalid,
    /// Not allowed, or the token is bad (403).
    Denied,
    /// Nothing there: object, path or mount (404).
    NotFound,
    /// The path exists, the operation does not (405).
    Unsupported,
    /// A precondition on the state failed (412).
    Precondition,
    /// The body is over the limit (413).
    TooLarge,
    /// The content type is not what the operation takes (415).
    MediaType,
    /// A quota refused the request (429).
    Quota,
    /// An unexpected fault (500).
    Internal,
    /// Not initialised (501).
    Uninitialized,
    /// Something upstream failed (502).
    Upstream,
    /// Sealed, locked, or no active node (503).
    Unavailable,
    /// Out of room: the disk or the memory limit refuses writes (507).
    NoRoom,
    /// A number that the client chose itself, for instance by `sys/health?sealedcode=299`.
    Custom(u16),
}
