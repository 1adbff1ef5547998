//! What plugs into the machine: secrets engines and auth methods. Each is a table of paths with plain functions as
//! handlers over one transaction; none knows of another, of the vault floor, of a socket or of a clock.
//!
//! The vault floor takes [`registry`] and calls what its router finds there. Shared by the engines of this crate are
//! only the fields that every auth method has ([`tokenutil`]), address ranges ([`cidr`]), list pages ([`page`]), the
//! signed tokens of others ([`jose`]) and questions to the outside world ([`outside`]).

pub mod auth;
pub mod cidr;
pub mod cubbyhole;
pub mod database;
pub mod jose;
pub mod kv1;
pub mod kv2;
pub mod outside;
pub mod page;
pub mod ssh;
pub mod tokenutil;
pub mod totp;
pub mod transit;

#[cfg(test)]
mod fixture;

use ringfence_base::Code;
use ringfence_logical::{Error, Outcome, Raw, Registry, Response};

/// Every engine of this crate. `sys` and `token` are the vault floor's own.
pub fn registry() -> Registry {
    let mut r = Registry::new();
    r.add("kv", Box::new(kv1::Kv1))
        .add("kv-v2", Box::new(kv2::Kv2))
        .add("cubbyhole", Box::new(cubbyhole::Cubbyhole))
        .add("transit", Box::new(transit::Transit))
        .add("totp", Box::new(totp::Totp))
        .add("ssh", Box::new(ssh::Ssh))
        .add("database", Box::new(database::Database))
        .add("userpass", Box::new(auth::userpass::Userpass))
        .add("approle", Box::new(auth::approle::Approle))
        .add("kubernetes", Box::new(auth::kubernetes::Kubernetes))
        .add("cert", Box::new(auth::cert::Cert))
        .add("jwt", Box::new(auth::jwt::Jwt))
        .add("oidc", Box::new(auth::jwt::Jwt));
    r
}

/// Done, nothing to tell, also for operations whose missing response would read as "not found" (PATCH).
pub(crate) fn no_content() -> Outcome {
    Response { raw: Some(Raw::default()), code: Some(Code::NoContent), ..Response::default() }.done()
}

/// Room that a sealed record and its key's framing take beyond the value itself.
const SEALING_ROOM_BYTES: usize = 256;

/// Refuses a value that would not fit a record of the image.
pub(crate) fn check_size(bytes: usize) -> Result<(), Error> {
    if bytes + SEALING_ROOM_BYTES > ringfence_base::limit::MAX_VALUE_BYTES {
        return Err(Error::new(Code::TooLarge, "put failed due to value being too large"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ringfence_logical::Class;

    #[test]
    fn every_engine_is_found_by_what_mounts_say() {
        let r = super::registry();
        for (class, kind, version, name) in [
            (Class::Secret, "kv", None, "kv"),
            (Class::Secret, "kv", Some("1"), "kv"),
            (Class::Secret, "kv", Some("2"), "kv-v2"),
            (Class::Secret, "cubbyhole", None, "cubbyhole"),
            (Class::Secret, "transit", None, "transit"),
            (Class::Secret, "totp", None, "totp"),
            (Class::Secret, "ssh", None, "ssh"),
            (Class::Auth, "userpass", None, "userpass"),
            (Class::Auth, "approle", None, "approle"),
            (Class::Auth, "kubernetes", None, "kubernetes"),
            (Class::Auth, "cert", None, "cert"),
            (Class::Auth, "jwt", None, "jwt"),
            (Class::Auth, "oidc", None, "oidc"),
        ] {
            assert_eq!(r.find(class, kind, version).map(|e| e.name), Some(name));
        }
        assert!(r.find(Class::Auth, "kv", None).is_none() && r.find(Class::Secret, "kv", Some("3")).is_none());
        for path in r.iter().flat_map(|e| e.engine.table().paths) {
            assert!(!path.synopsis.is_empty(), "{} has no help", path.pattern);
        }
    }
}
