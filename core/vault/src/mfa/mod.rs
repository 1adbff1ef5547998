//! Login MFA: a second factor that a login owes because of its mount, its method's type, or who logs in.
//!
//! ```text
//! methods      identity/mfa/method/*        enforcement  identity/mfa/login-enforcement/*
//! check        what a login owes, and whether it is paid      pending  logins that wait for their second factor
//! validate     sys/mfa/validate                               totp     RFC 6238
//! ```
//!
//! A login pays at once (`X-Vault-MFA`) or in a second request (`sys/mfa/validate`). Either way the answer is given by the
//! transaction that also notes the code as used, so that one code opens one login, whichever core or node is asked.
//! Failed attempts are counted by committed records as well.

pub mod check;
pub mod enforcement;
pub mod methods;
pub mod pending;
pub mod records;
pub mod totp;
pub mod validate;

#[cfg(test)]
mod tests;
