//! Time-based one-time passwords (RFC 6238), as a generator of codes for a secret known elsewhere and as a provider
//! that makes the secret and checks codes. Called by the vault floor for mounts of type `totp`.
//!
//! ```text
//! area k   name   a key with its settings, JSON
//! area u   name   the time steps whose codes were used and could still be shown, JSON
//! ```
//!
//! A code is checked as the time step it stands for, not as the text that came, and a step is good once: the used step
//! is written in the transaction that answers, so that of two requests with one code one loses, on any node.

mod code;
mod key;
mod picture;

#[cfg(test)]
mod tests;

use crate::page::{AFTER, LIMIT};
use ringfence_logical::field::Preset;
use ringfence_logical::path::Table;
use ringfence_logical::{Class, Engine, Field, Kind, Path};

/// The engine.
pub struct Totp;

const NAME: Field = Field::str("name", "Name of the key.");

static TABLE: Table = Table {
    kind: "totp",
    class: Class::Secret,
    help: "Makes and checks time-based one-time passwords.",
    paths: &[
        Path::new("keys/?").fields(&[AFTER, LIMIT]).help("Lists keys.", "").list(key::list),
        Path::new("keys/{name:at}")
            .fields(&[
                NAME,
                Field::bool("generate", "Make the secret here: this mount is the provider."),
                Field::bool("exported", "Show address and barcode of a key that was made here, once.")
                    .preset(Preset::Bool(true)),
                Field::int("key_size", "Bytes of a secret that is made here.").preset(Preset::Int(20)),
                Field::str("key", "The secret in base32.").secret(),
                Field::str("issuer", "Who issues the account."),
                Field::str("account_name", "The account."),
                Field::new("period", Kind::SignedSeconds, "How long a code is shown.").preset(Preset::Int(30)),
                Field::str("algorithm", "SHA1, SHA256 or SHA512.").preset(Preset::Str("SHA1")),
                Field::int("digits", "Digits of a code, 6 or 8.").preset(Preset::Int(6)),
                Field::int("skew", "How many periods before and after are accepted, 0 or 1.").preset(Preset::Int(1)),
                Field::int("qr_size", "Pixels of the barcode's side; 0 for none.").preset(Preset::Int(200)),
                Field::str("url", "An otpauth address that holds all of it.").secret(),
            ])
            .help("Makes, shows and deletes keys.", "The secret of a key is never shown again.")
            .exists(key::exists)
            .write(key::create)
            .read(key::read)
            .delete(key::delete),
        Path::new("code/{name:at}")
            .computes()
            .fields(&[NAME, Field::str("code", "The code to check.").secret()])
            .help("Makes a code, or checks one.", "A code that was accepted is not accepted again.")
            .read(code::read)
            .write(code::write),
    ],
};

impl Engine for Totp {
    fn table(&self) -> &'static Table {
        &TABLE
    }
}
