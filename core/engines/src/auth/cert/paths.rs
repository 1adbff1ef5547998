//! The path table of cert.

use super::{config, crl, entry, login};
use crate::page::{AFTER, LIMIT};
use crate::tokenutil::with_token_fields;
use ringfence_logical::field::Preset;
use ringfence_logical::{Field, Kind, Path};

const NAME: Field = Field::new("name", Kind::LowerStr, "Name of the entry.");
const CRL_NAME: Field = Field::str("name", "Name of the list.");

pub static PATHS: &[Path] = &[
    Path::new("config")
        .fields(&[
            Field::bool("disable_binding", "Renewals do not need the certificate of the login."),
            Field::bool("enable_identity_alias_metadata", "Keep the certificate's metadata with the alias too."),
            Field::int(
                "ocsp_cache_size",
                "Accepted and read back; answers are kept in the server's own bounded memory.",
            )
            .preset(Preset::Int(100)),
            Field::int("role_cache_size", "Accepted and read back; entries are read from memory anyway.")
                .preset(Preset::Int(200)),
            Field::bool("enable_metadata_on_failures", "Accepted and read back."),
        ])
        .help("Settings of the mount.", "")
        .read(config::read)
        .write(config::write),
    Path::new("certs/?").fields(&[AFTER, LIMIT]).help("Lists the trusted certificates.", "").list(entry::list),
    Path::new("certs/{name}")
        .fields(with_token_fields![
            NAME,
            Field::str("certificate", "Authority, or a client's own certificate, PEM."),
            Field::str("display_name", "Shown in lookups; the name of the entry by default."),
            Field::list("allowed_names", "Older form of the fields below: common, DNS or e-mail names.").deprecated(),
            Field::list("allowed_common_names", "Common names that are let in; `*` stands for any characters."),
            Field::list("allowed_dns_sans", "DNS names that are let in."),
            Field::list("allowed_email_sans", "E-mail addresses that are let in."),
            Field::list("allowed_uri_sans", "URIs that are let in."),
            Field::list("allowed_organizational_units", "Organizational units that are let in."),
            Field::list("required_extensions", "Extensions that must be there: `oid:value` or `hex:oid:value`."),
            Field::list("allowed_metadata_extensions", "OIDs of extensions that become metadata."),
            Field::bool("ocsp_enabled", "Ask the issuer's responders at each login."),
            Field::str("ocsp_ca_certificates", "Authorities whose responders count too, PEM."),
            Field::list("ocsp_servers_override", "Responders to ask instead of the certificate's."),
            Field::bool("ocsp_fail_open", "Let in if no responder says anything that counts."),
            Field::bool("ocsp_query_all_servers", "All responders must agree."),
            Field::seconds("ocsp_this_update_max_age", "Oldest answer that counts; zero is any."),
            Field::int("ocsp_max_retries", "How often a responder that fails is asked again.").preset(Preset::Int(4)),
            Field::list("policies", "Older name of `token_policies`.").deprecated(),
            Field::seconds("ttl", "Older name of `token_ttl`.").deprecated(),
            Field::seconds("max_ttl", "Older name of `token_max_ttl`.").deprecated(),
            Field::seconds("period", "Older name of `token_period`.").deprecated(),
            Field::list("bound_cidrs", "Older name of `token_bound_cidrs`.").deprecated(),
        ])
        .help("Reads, writes and deletes trusted certificates.", "")
        .exists(entry::exists)
        .read(entry::read)
        .write(entry::write)
        .delete(entry::delete),
    Path::new("crls/?").fields(&[AFTER, LIMIT]).help("Lists the revocation lists.", "").list(crl::list),
    Path::new("crls/{name}")
        .fields(&[
            CRL_NAME,
            Field::str("crl", "The list, PEM or DER in base64."),
            Field::str("url", "Or where it is fetched, again and again."),
        ])
        .help("Reads, writes and deletes revocation lists.", "")
        .read(crl::read)
        .write(crl::write)
        .delete(crl::delete),
    Path::new("login")
        .fields(&[NAME])
        .help("Logs in with the certificate of the connection.", "`name` limits it to one entry.")
        .login()
        .role_of(|_, args| Ok(args.str("name").to_owned()))
        .write(login::login),
];
