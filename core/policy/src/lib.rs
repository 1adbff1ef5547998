//! Policies: what they say and what they grant.
//!
//! ```text
//!   text ──hcl──> Body ──Policy::parse──> Policy ──Acl::compile(+ identity)──> Acl ──allow(request)──> AclDecision
//! ```
//!
//! The vault parses a policy once when it is written or loaded, compiles the ones of a token into an [`Acl`] that stays
//! valid while its inputs do, and asks it once a request. [`hcl`] also reads the server's configuration file, and
//! [`password`] the policies that generated passwords follow. Nothing here stores anything, knows a token or a mount,
//! or reads a clock: the time is an argument where a rule may expire.

pub mod acl;
pub mod builtin;
pub mod hcl;
pub mod op;
mod parameter;
pub mod password;
pub mod policy;
mod radix;
mod segment;
pub mod template;

pub use acl::{Acl, AclDecision, AclRequest, GrantingPolicy, ResultantAcl};
pub use op::Operation;
pub use password::{PasswordError, PasswordPolicy};
pub use policy::{Capabilities, ControlGroup, ControlGroupFactor, Permissions, Policy, PolicyError};
pub use template::{Field, GroupKey, TemplateSource};
