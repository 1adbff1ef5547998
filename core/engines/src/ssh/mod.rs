//! SSH: certificates signed by a CA of the mount, and one-time passwords. Called by the vault floor for mounts of type
//! `ssh`.
//!
//! ```text
//! area c   `ca`           the CA's key, JSON (`ca`)
//! area c   `zeroaddress`  roles that may serve any address, JSON list
//! area r   name           a role, JSON (`role`)
//! area o   keyed hash     a one-time password: for whom, where, of which role, JSON
//! ```
//!
//! Certificates are not kept. A one-time password is a leased secret; it ends when it is used, when the lease ends or
//! when the lease is revoked. It stands under its keyed hash, so that no key of the image tells one.

mod ca;
mod certificate;
mod key;
mod otp;
mod role;
mod sign;

#[cfg(test)]
mod tests;

use crate::page::{AFTER, LIMIT};
use ringfence_logical::field::Preset;
use ringfence_logical::path::Table;
use ringfence_logical::{Class, Cx, Engine, Error, Field, Kind, Lease, Outcome, Path};

/// The engine.
pub struct Ssh;

const ROLE: Field = Field::str("role", "Name of the role.");
const KEY_TYPE: Field = Field::str("key_type", "ssh-rsa, ec or ed25519.");
const KEY_BITS: Field = Field::int("key_bits", "Bits of the key; zero for the type's usual.");
const SIGN: [Field; 7] = [
    ROLE,
    Field::seconds("ttl", "How long the certificate is valid."),
    Field::str("valid_principals", "Comma list of user or host names."),
    Field::str("cert_type", "user or host.").preset(Preset::Str("user")),
    Field::str("key_id", "Key id of the certificate, where the role lets the caller say."),
    Field::new("critical_options", Kind::Object, "Critical options."),
    Field::new("extensions", Kind::Object, "Extensions."),
];
const SIGN_FIELDS: &[Field] = &[
    SIGN[0],
    SIGN[1],
    SIGN[2],
    SIGN[3],
    SIGN[4],
    SIGN[5],
    SIGN[6],
    Field::str("public_key", "The key to sign, as OpenSSH writes it."),
];
const ISSUE_FIELDS: &[Field] =
    &[SIGN[0], SIGN[1], SIGN[2], SIGN[3], SIGN[4], SIGN[5], SIGN[6], KEY_TYPE.preset(Preset::Str("rsa")), KEY_BITS];

static TABLE: Table = Table {
    kind: "ssh",
    class: Class::Secret,
    help: "Signs SSH keys and makes one-time passwords for SSH logins.",
    paths: &[
        Path::new("config/ca")
            .fields(&[
                Field::str("private_key", "Private half of the CA's key.").secret(),
                Field::str("public_key", "Public half of the CA's key."),
                Field::bool("generate_signing_key", "Make the key here.").preset(Preset::Bool(true)),
                KEY_TYPE.preset(Preset::Str("ssh-rsa")),
                KEY_BITS,
            ])
            .help("The CA's key.", "It is made here or brought in, and its private half is never shown.")
            .read(ca::read)
            .write(ca::write)
            .delete(ca::delete),
        Path::new("public_key").public().help("The CA's public key, as OpenSSH writes it.", "").read(ca::public),
        Path::new("config/zeroaddress")
            .fields(&[Field::list("roles", "Roles that serve every address.")])
            .help("Roles whose one-time passwords are good for every address.", "")
            .read(otp::read_zero)
            .write(otp::write_zero)
            .delete(otp::delete_zero),
        Path::new("roles/?").fields(&[AFTER, LIMIT]).help("Lists roles.", "").list(role::list),
        Path::new("roles/{name}")
            .fields(role::FIELDS)
            .help("What may be signed, or who gets one-time passwords.", "")
            .read(role::read)
            .write(role::write)
            .delete(role::delete),
        Path::new("sign/{role}").computes().fields(SIGN_FIELDS).help("Signs a public key.", "").write(sign::sign),
        Path::new("issue/{role}")
            .computes()
            .fields(ISSUE_FIELDS)
            .help("Makes a key and signs it.", "")
            .write(sign::issue),
        Path::new("creds/{role}")
            .fields(&[
                ROLE,
                Field::str("username", "Whom to log in as."),
                Field::str("ip", "Address of the host to log in to."),
            ])
            .help("Makes a one-time password.", "")
            .write(otp::create),
        Path::new("verify")
            .fields(&[Field::str("otp", "The one-time password.").secret()])
            .public()
            .help("Checks a one-time password and uses it up.", "")
            .write(otp::verify),
        Path::new("lookup")
            .computes()
            .fields(&[Field::str("ip", "Address of a host.")])
            .help("The roles that serve an address.", "")
            .write(otp::lookup),
    ],
};

impl Engine for Ssh {
    fn table(&self) -> &'static Table {
        &TABLE
    }

    fn revoke(&self, cx: &mut Cx<'_, '_>, lease: &Lease) -> Outcome {
        otp::revoke(cx, lease)
    }

    fn renew(&self, _: &mut Cx<'_, '_>, _: &Lease) -> Outcome {
        Err(Error::invalid("lease is not renewable"))
    }
}
