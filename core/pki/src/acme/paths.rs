//! The paths of ACME: the operator's, and the protocol's below each of the four directories.

use super::{account, challenge, config, directory, order, revocation};
use ringfence_logical::path::Handler;
use ringfence_logical::{Field, Path};

const FIELDS: &[Field] = &[
    Field::str("issuer_ref", "The directory's issuer."),
    Field::str("role", "The directory's role."),
    Field::str("kid", "The account."),
    Field::str("order_id", "The order."),
    Field::str("auth_id", "The authorization."),
    Field::str("challenge_type", "`http-01`, `dns-01` or `tls-alpn-01`."),
    Field::str("protected", "Protected header of the signed request."),
    Field::str("payload", "Payload of the signed request."),
    Field::str("signature", "Signature of the request."),
];
const CONFIG: &[Field] = &[
    Field::bool("enabled", "Answer ACME."),
    Field::str("default_directory_policy", "`forbid`, `sign-verbatim` or `role:<name>`."),
    Field::list("allowed_roles", "Roles with a directory; `*` for all."),
    Field::list("allowed_issuers", "Issuers with a directory; `*` for all."),
    Field::bool("allow_role_ext_key_usage", "Let the role say the extended key usages."),
    Field::str("eab_policy", "`not-required`, `new-account-required` or `always-required`."),
    Field::str("dns_resolver", "`address:port` of the name server that validation asks; empty for the machine's."),
    Field::list(
        "permitted_address_ranges",
        "Ranges (`10.0.0.0/8`) that validation may connect to though they are not public.",
    ),
    Field::seconds("max_ttl", "Longest validity of certificates."),
];
const EAB: &[Field] = &[Field::str("key_id", "The binding.")];

const fn get(pattern: &'static str, handler: Handler) -> Path {
    Path::new(pattern).fields(FIELDS).public().help("ACME (RFC 8555).", "").read(handler)
}

const fn post(pattern: &'static str, handler: Handler) -> Path {
    Path::new(pattern).fields(FIELDS).public().help("ACME (RFC 8555).", "").write(handler)
}

macro_rules! directories {
    ($($prefix:literal),*) => {
        &[
            Path::new("config/acme").fields(CONFIG).help("ACME.", "").read(config::read).write(config::write),
            Path::new("eab/?").fields(EAB).help("Lists external account bindings.", "").list(config::list_eab),
            Path::new("eab/{key_id}").fields(EAB).help("An external account binding.", "").delete(config::delete_eab),
            $(
                Path::new(concat!($prefix, "acme/new-eab")).fields(FIELDS).help("Makes an external account binding.", "").write(config::new_eab),
                get(concat!($prefix, "acme/directory"), directory::read),
                get(concat!($prefix, "acme/new-nonce"), directory::nonce),
                post(concat!($prefix, "acme/new-account"), account::new),
                post(concat!($prefix, "acme/account/{kid}"), account::update),
                post(concat!($prefix, "acme/key-change"), account::key_change),
                post(concat!($prefix, "acme/new-order"), order::new),
                post(concat!($prefix, "acme/orders"), order::list),
                post(concat!($prefix, "acme/order/{order_id}"), order::read),
                post(concat!($prefix, "acme/order/{order_id}/finalize"), order::finalize),
                post(concat!($prefix, "acme/order/{order_id}/cert"), order::certificate),
                post(concat!($prefix, "acme/authorization/{auth_id}"), order::authorization),
                post(concat!($prefix, "acme/challenge/{auth_id}/{challenge_type}"), challenge::answer),
                post(concat!($prefix, "acme/revoke-cert"), revocation::revoke),
            )*
        ]
    };
}

pub static PATHS: &[Path] =
    directories!("", "roles/{role}/", "issuer/{issuer_ref}/", "issuer/{issuer_ref}/roles/{role}/");
