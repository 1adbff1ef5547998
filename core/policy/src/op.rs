//! What a request wants to do, as policies, engines and audit devices name it.

use crate::policy::Capabilities;

/// The operation of a request, after create or update was decided by the engine's existence check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// A write to something that does not exist yet.
    Create,
    /// GET.
    Read,
    /// A write to something that exists, or whose engine does not tell the two apart.
    Update,
    /// PATCH: a write of some fields.
    Patch,
    /// DELETE.
    Delete,
    /// LIST: the names directly below a path.
    List,
    /// SCAN: the names below a path at any depth.
    Scan,
    /// The description of a path.
    Help,
    /// HEAD: a read without its body.
    Header,
    /// Renewal of a lease, by the machine.
    Renew,
    /// Revocation of a lease, by the machine.
    Revoke,
    /// Roll-back of an unfinished effect, by the machine.
    Rollback,
    /// Finding the alias a login would use, before it runs.
    AliasLookahead,
}

impl Operation {
    /// The name that audit entries print.
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::Read => "read",
            Operation::Update => "update",
            Operation::Patch => "patch",
            Operation::Delete => "delete",
            Operation::List => "list",
            Operation::Scan => "scan",
            Operation::Help => "help",
            Operation::Header => "header",
            Operation::Renew => "renew",
            Operation::Revoke => "revoke",
            Operation::Rollback => "rollback",
            Operation::AliasLookahead => "alias-lookahead",
        }
    }

    /// The capability that grants the operation. `None`: no policy grants it (the alias look-up belongs to logins,
    /// which run without a token) or none is needed (help).
    pub const fn capability(self) -> Option<Capabilities> {
        match self {
            Operation::Create => Some(Capabilities::CREATE),
            Operation::Read | Operation::Header => Some(Capabilities::READ),
            Operation::Update | Operation::Renew | Operation::Revoke | Operation::Rollback => {
                Some(Capabilities::UPDATE)
            }
            Operation::Patch => Some(Capabilities::PATCH),
            Operation::Delete => Some(Capabilities::DELETE),
            Operation::List => Some(Capabilities::LIST),
            Operation::Scan => Some(Capabilities::SCAN),
            Operation::Help | Operation::AliasLookahead => None,
        }
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
