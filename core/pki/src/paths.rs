//! The path table.

use crate::store::{CERTS, REVOKED};
use crate::{config, fetch, import, issue, issuers, keys, metadata, ocsp, revoke, role, root, tidy};
use ringfence_logical::field::Preset;
use ringfence_logical::{Args, Cx, Field, Kind, Outcome, Path};

const ISSUER: Field = Field::str("issuer_ref", "The issuer: `default`, its id or its name.");
const KEY: Field = Field::str("key_ref", "The key: `default`, its id or its name.");
const ROLE: Field = Field::str("role", "The role.");
const NAME: Field = Field::str("name", "Name of the role.");
const ORIGIN: Field = Field::str("exported", "`internal`, `exported` (the private key is answered) or `existing`.");
const SERIAL: Field = Field::str("serial", "Serial number, hex pairs joined by colons or dashes.");
const AFTER: Field = Field::str("after", "List entries that come after this one, itself not included.").query();
const LIMIT: Field = Field::int("limit", "List at most so many entries; zero or less lists all.").query();
const LIST: &[Field] = &[AFTER, LIMIT];

const COMMON_NAME: Field = Field::str("common_name", "The common name.");
const ALT_NAMES: Field = Field::str("alt_names", "Further DNS names and mail addresses, joined by commas.");
const IP_SANS: Field = Field::list("ip_sans", "IP addresses.");
const URI_SANS: Field = Field::list("uri_sans", "URIs.");
const OTHER_SANS: Field = Field::list("other_sans", "Other names, each `oid;UTF8:value`.");
const USER_IDS: Field = Field::list("user_ids", "User ids for the subject.");
const SERIAL_NUMBER: Field = Field::str("serial_number", "The subject's serial number attribute.");
const TTL: Field = Field::seconds("ttl", "How long the certificate is to be valid.");
const NOT_AFTER: Field = Field::str("not_after", "When validity is to end, YYYY-MM-ddTHH:MM:SSZ; instead of a ttl.");
const NOT_BEFORE: Field =
    Field::seconds("not_before_duration", "How far validity begins in the past.").preset(Preset::Int(30));
const FORMAT: Field = Field::str("format", "`pem`, `der` (base64) or `pem_bundle`.").preset(Preset::Str("pem"));
const PRIVATE_FORMAT: Field =
    Field::str("private_key_format", "`der` for the key's traditional form, `pkcs8` for PKCS#8.")
        .preset(Preset::Str("der"));
const EXCLUDE_CN: Field = Field::bool("exclude_cn_from_sans", "Keep the common name out of the alternative names.");
const REMOVE_ROOTS: Field =
    Field::bool("remove_roots_from_chain", "Leave self-issued certificates out of the chain.");
const CSR: Field = Field::str("csr", "The certificate request, PEM.");
const METADATA: Field = Field::str("cert_metadata", "Base64 of what shall be remembered with the certificate.");
const KEY_USAGE: Field = Field::list("key_usage", "Key usages by name.");
const EXT_KEY_USAGE: Field = Field::list("ext_key_usage", "Extended key usages by name.");
const EXT_KEY_USAGE_OIDS: Field = Field::list("ext_key_usage_oids", "Extended key usages by OID.");
const SIGNATURE_BITS: Field = Field::int("signature_bits", "Bits of the hash in signatures; 0 = by the key.");
const USE_PSS: Field = Field::bool("use_pss", "Sign by PSS where the issuer's key is RSA.");
const NON_CA: Field =
    Field::bool("basic_constraints_valid_for_non_ca", "Say in the certificate that it is no authority.");

const ISSUE: &[Field] = &[
    ROLE,
    ISSUER,
    COMMON_NAME,
    ALT_NAMES,
    IP_SANS,
    URI_SANS,
    OTHER_SANS,
    USER_IDS,
    SERIAL_NUMBER,
    TTL,
    NOT_AFTER,
    FORMAT,
    PRIVATE_FORMAT,
    EXCLUDE_CN,
    REMOVE_ROOTS,
    METADATA,
];
const SIGN: &[Field] = &[
    ROLE,
    ISSUER,
    CSR,
    COMMON_NAME,
    ALT_NAMES,
    IP_SANS,
    URI_SANS,
    OTHER_SANS,
    USER_IDS,
    SERIAL_NUMBER,
    TTL,
    NOT_AFTER,
    FORMAT,
    EXCLUDE_CN,
    REMOVE_ROOTS,
    METADATA,
];
const VERBATIM: &[Field] = &[
    ROLE,
    ISSUER,
    CSR,
    TTL,
    NOT_AFTER,
    FORMAT,
    REMOVE_ROOTS,
    KEY_USAGE,
    EXT_KEY_USAGE,
    EXT_KEY_USAGE_OIDS,
    SIGNATURE_BITS,
    USE_PSS,
    NON_CA,
    METADATA,
];

macro_rules! subject {
    ($($more:expr),* $(,)?) => {
        &[
            COMMON_NAME, ALT_NAMES, IP_SANS, URI_SANS, OTHER_SANS, SERIAL_NUMBER, TTL, NOT_AFTER, NOT_BEFORE, FORMAT,
            PRIVATE_FORMAT, EXCLUDE_CN, SIGNATURE_BITS, USE_PSS, KEY_USAGE,
            Field::list("ou", "Organizational units of the subject."),
            Field::list("organization", "Organizations of the subject."),
            Field::list("country", "Countries of the subject."),
            Field::list("locality", "Localities of the subject."),
            Field::list("province", "Provinces of the subject."),
            Field::list("street_address", "Street addresses of the subject."),
            Field::list("postal_code", "Postal codes of the subject."),
            Field::int("max_path_length", "Longest chain below; -1 = any.").preset(Preset::Int(-1)),
            Field::list("permitted_dns_domains", "Domains that certificates below may be for."),
            Field::list("excluded_dns_domains", "Domains that certificates below must not be for."),
            Field::list("permitted_ip_ranges", "Address ranges that certificates below may be for."),
            Field::list("excluded_ip_ranges", "Address ranges that certificates below must not be for."),
            Field::list("permitted_email_addresses", "Mail addresses that certificates below may be for."),
            Field::list("excluded_email_addresses", "Mail addresses that certificates below must not be for."),
            Field::list("permitted_uri_domains", "URI domains that certificates below may be for."),
            Field::list("excluded_uri_domains", "URI domains that certificates below must not be for."),
            $($more),*
        ]
    };
}
const KEY_TYPE: Field = Field::str("key_type", "`rsa`, `ec`, `ed25519` or `ml-dsa`.").preset(Preset::Str("rsa"));
const KEY_BITS: Field = Field::int("key_bits", "Size of the key; 0 = the kind's default.");
const ISSUER_NAME: Field = Field::str("issuer_name", "Name for the new issuer.");
const KEY_NAME: Field = Field::str("key_name", "Name for the new key.");
const GENERATE: &[Field] = subject![
    ORIGIN,
    KEY,
    KEY_TYPE,
    KEY_BITS,
    ISSUER_NAME,
    KEY_NAME,
    Field::bool("add_basic_constraints", "Ask for basic constraints in the request."),
];
const CROSS_SIGN: &[Field] = subject![
    KEY,
    KEY_TYPE,
    KEY_BITS,
    KEY_NAME,
    ISSUER_NAME,
    Field::bool("add_basic_constraints", "Ask for basic constraints in the request."),
];
const SIGN_INTERMEDIATE: &[Field] = subject![
    ISSUER,
    CSR,
    Field::bool("use_csr_values", "Take subject, names and extensions from the request."),
    Field::str("skid", "Subject key identifier, hex."),
    Field::bool("enforce_leaf_not_after_behavior", "Bind the intermediate to its issuer's end as leaves are."),
];
const SELF_ISSUED: &[Field] = &[
    ISSUER,
    Field::str("certificate", "The self-issued certificate, PEM."),
    Field::bool("require_matching_certificate_algorithms", "Refuse another kind of key than the issuer's."),
];
const IMPORT: &[Field] = &[
    Field::str("pem_bundle", "Certificates and keys, PEM.").secret(),
    Field::str("certificate", "Certificates, PEM."),
];
const REVOKE: &[Field] = &[
    Field::str("serial_number", "Serial number, hex pairs joined by colons or dashes."),
    Field::str("certificate", "The certificate, PEM."),
    Field::str("private_key", "Its private key, PEM.").secret(),
];
const ISSUER_FIELDS: &[Field] = &[
    ISSUER,
    ISSUER_NAME,
    Field::str("leaf_not_after_behavior", "`err`, `truncate`, `permit` or `always_enforce_err`."),
    Field::list("manual_chain", "Issuers that are its chain, itself first."),
    Field::list("usage", "`read-only`, `issuing-certificates`, `crl-signing`, `ocsp-signing`."),
    Field::str("revocation_signature_algorithm", "How it signs CRLs and OCSP answers."),
    Field::list("issuing_certificates", "URLs of the issuer's certificate."),
    Field::list("crl_distribution_points", "URLs of the CRL."),
    Field::list("delta_crl_distribution_points", "URLs of the delta CRL."),
    Field::list("ocsp_servers", "URLs of the OCSP responder."),
    Field::bool("enable_aia_url_templating", "Fill `{{issuer_id}}`, `{{cluster_path}}`, `{{cluster_aia_path}}` in."),
];
const URLS: &[Field] = &[
    Field::list("issuing_certificates", "URLs of the issuer's certificate."),
    Field::list("crl_distribution_points", "URLs of the CRL."),
    Field::list("delta_crl_distribution_points", "URLs of the delta CRL."),
    Field::list("ocsp_servers", "URLs of the OCSP responder."),
    Field::bool("enable_templating", "Fill `{{issuer_id}}`, `{{cluster_path}}`, `{{cluster_aia_path}}` in."),
];
const CRL: &[Field] = &[
    Field::str("expiry", "How long a CRL is valid."),
    Field::bool("disable", "Serve empty CRLs."),
    Field::bool("ocsp_disable", "Do not answer OCSP."),
    Field::str("ocsp_expiry", "How long an OCSP answer is valid."),
    Field::bool("auto_rebuild", "Rebuild by schedule, not after each revocation."),
    Field::str("auto_rebuild_grace_period", "How long before its end a CRL is rebuilt."),
    Field::bool("enable_delta", "Build delta CRLs."),
    Field::str("delta_rebuild_interval", "How often."),
    Field::bool("allow_expired_cert_revocation", "Let expired certificates be revoked."),
    Field::bool("cross_cluster_revocation", "Needs replicated clusters."),
    Field::bool("unified_crl", "Needs replicated clusters."),
    Field::bool("unified_crl_on_existing_paths", "Needs replicated clusters."),
    Field::int("max_crl_entries", "Most entries of a CRL; -1 = any number."),
];
macro_rules! tidy {
    ($($more:expr),* $(,)?) => {
        &[
            Field::bool("tidy_cert_store", "Remove certificates that expired."),
            Field::bool("tidy_revoked_certs", "Remove expired certificates from revocation lists."),
            Field::bool("tidy_revocation_list", "The former name of tidy_revoked_certs.").deprecated(),
            Field::bool("tidy_revoked_cert_issuer_associations", "Find the issuers of revoked certificates again."),
            Field::bool("tidy_expired_issuers", "Remove issuers that expired; never the default."),
            Field::bool("tidy_move_legacy_ca_bundle", "There is no such bundle here; accepted."),
            Field::bool("tidy_acme", "Remove ACME orders and accounts that are over."),
            Field::bool("tidy_invalid_certs", "Remove what cannot be parsed."),
            Field::bool("tidy_revocation_queue", "There is no such queue on one cluster; accepted."),
            Field::bool("tidy_cross_cluster_revoked_certs", "There are none on one cluster; accepted."),
            Field::bool("tidy_cert_metadata", "Remove metadata of certificates that ended."),
            Field::seconds("safety_buffer", "How long after its end a certificate is kept."),
            Field::seconds("issuer_safety_buffer", "How long after its end an issuer is kept."),
            Field::seconds("revocation_queue_safety_buffer", "How long requests of other clusters are kept."),
            Field::seconds("acme_account_safety_buffer", "How long an unused ACME account is kept."),
            Field::str("pause_duration", "Pause between pieces of work."),
            Field::int("page_size", "Accepted; pieces have a size of their own."),
            $($more),*
        ]
    };
}
const TIDY: &[Field] = tidy![];
const AUTO_TIDY: &[Field] = tidy![
    Field::bool("enabled", "Tidy by schedule."),
    Field::seconds("interval_duration", "How often."),
    Field::seconds("min_startup_backoff_duration", "Accepted; the schedule outlives restarts here."),
    Field::seconds("max_startup_backoff_duration", "Accepted; the schedule outlives restarts here."),
    Field::bool("maintain_stored_certificate_counts", "Accepted."),
    Field::bool("publish_stored_certificate_count_metrics", "Accepted."),
];
const ROLE_FIELDS: &[Field] = &[
    NAME,
    AFTER,
    LIMIT,
    Field::str("issuer_ref", "The issuer that signs."),
    TTL,
    Field::seconds("max_ttl", "Longest validity."),
    Field::bool("allow_localhost", "Let `localhost` stand."),
    Field::list("allowed_domains", "Domains that names are judged by."),
    Field::bool("allowed_domains_template", "The domains hold templates."),
    Field::bool("allow_bare_domains", "Let the domains themselves stand."),
    Field::bool("allow_subdomains", "Let names below the domains stand."),
    Field::bool("allow_glob_domains", "Stars in the domains match anything."),
    Field::bool("allow_wildcard_certificates", "Let wildcard names stand."),
    Field::bool("allow_any_name", "Let any name stand."),
    Field::bool("allow_token_displayname", "Let the token's display name stand."),
    Field::bool("enforce_hostnames", "Let host names only stand."),
    Field::bool("allow_ip_sans", "Let IP addresses stand."),
    Field::list("allowed_ip_sans_cidr", "Ranges that IP addresses must be in; none = any."),
    Field::list("allowed_uri_sans", "URIs that may stand; stars match anything."),
    Field::bool("allowed_uri_sans_template", "The URIs hold templates."),
    Field::list("allowed_other_sans", "Other names that may stand."),
    Field::list("allowed_serial_numbers", "Serial number attributes that may stand; stars match anything."),
    Field::list("allowed_user_ids", "User ids that may stand; stars match anything."),
    Field::bool("server_flag", "For servers."),
    Field::bool("client_flag", "For clients."),
    Field::bool("code_signing_flag", "For code signing."),
    Field::bool("email_protection_flag", "For mail."),
    Field::str("key_type", "`rsa`, `ec`, `ed25519`, `ml-dsa` or `any`."),
    KEY_BITS,
    SIGNATURE_BITS,
    USE_PSS,
    KEY_USAGE,
    EXT_KEY_USAGE,
    EXT_KEY_USAGE_OIDS,
    Field::bool("use_csr_common_name", "Take the common name from the request."),
    Field::bool("use_csr_sans", "Take the alternative names from the request."),
    Field::str("serial_number_source", "`json-csr` or `json`."),
    Field::list("ou", "Organizational units of subjects."),
    Field::list("organization", "Organizations of subjects."),
    Field::list("country", "Countries of subjects."),
    Field::list("locality", "Localities of subjects."),
    Field::list("province", "Provinces of subjects."),
    Field::list("street_address", "Street addresses of subjects."),
    Field::list("postal_code", "Postal codes of subjects."),
    Field::bool("generate_lease", "Tie certificates to leases."),
    Field::bool("no_store", "Do not store certificates."),
    Field::bool("no_store_metadata", "Refuse metadata of certificates."),
    Field::bool("require_cn", "Refuse requests without a common name."),
    Field::list("cn_validations", "`email`, `hostname`, or `disabled`."),
    Field::new("policy_identifiers", Kind::Any, "OIDs, or objects of oid, cps and notice."),
    NON_CA,
    Field::seconds("not_before_duration", "How far validity begins in the past."),
    NOT_AFTER,
];
const ISSUER_ONLY: &[Field] = &[ISSUER];

fn list_certs(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    revoke::list(cx, CERTS, args)
}

fn list_revoked(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    revoke::list(cx, REVOKED, args)
}

fn list_nothing(_: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    ringfence_logical::Response::keys(Vec::new()).done()
}

const fn generating(pattern: &'static str, handler: ringfence_logical::path::Handler) -> Path {
    Path::new(pattern).fields(GENERATE).help("Generates an authority.", "").write(handler)
}

const fn fetching(pattern: &'static str, handler: ringfence_logical::path::Handler) -> Path {
    Path::new(pattern).fields(&[ISSUER, SERIAL]).public().help("What relying parties fetch.", "").read(handler)
}

pub static PATHS: &[Path] = &[
    Path::new("roles/?").fields(ROLE_FIELDS).help("Lists the roles.", "").list(role::list),
    Path::new("roles/{name}")
        .fields(ROLE_FIELDS)
        .help(
            "Says what may be asked of the engine.",
            "A write begins from the defaults; PATCH changes what is given.",
        )
        .exists(role::exists)
        .read(role::read)
        .write(role::write)
        .patch(role::patch)
        .delete(role::delete),
    Path::new("issue/{role}").fields(ISSUE).help("Issues a certificate with a fresh key.", "").write(issue::issue),
    Path::new("sign/{role}").fields(SIGN).help("Signs a request by a role.", "").write(issue::sign),
    Path::new("sign-verbatim").fields(VERBATIM).help("Signs a request as it is.", "").write(issue::sign_verbatim),
    Path::new("sign-verbatim/{role}")
        .fields(VERBATIM)
        .help("Signs a request as it is.", "")
        .write(issue::sign_verbatim),
    generating("root/generate/{exported}", root::generate_root),
    generating("root/rotate/{exported}", root::rotate_root),
    generating("issuers/generate/root/{exported}", root::generate_root),
    generating("intermediate/generate/{exported}", root::generate_intermediate),
    generating("issuers/generate/intermediate/{exported}", root::generate_intermediate),
    Path::new("intermediate/cross-sign")
        .fields(CROSS_SIGN)
        .help("Makes a request with a key that is here.", "")
        .write(root::cross_sign),
    Path::new("intermediate/set-signed")
        .fields(IMPORT)
        .help("Imports a signed intermediate.", "")
        .write(import::set_signed),
    Path::new("root/sign-intermediate")
        .fields(SIGN_INTERMEDIATE)
        .help("Signs an intermediate.", "")
        .write(root::sign_intermediate),
    Path::new("root/sign-self-issued")
        .fields(SELF_ISSUED)
        .sudo()
        .help("Signs a foreign root under its own name.", "")
        .write(root::sign_self_issued),
    Path::new("root/replace")
        .fields(&[Field::str("default", "The issuer that becomes the default.")])
        .help("Makes another issuer the default.", "")
        .write(issuers::replace_root),
    Path::new("root").sudo().help("Deletes every issuer and every key.", "").delete(root::delete_all),
    Path::new("issuers/import/bundle")
        .fields(IMPORT)
        .help("Imports certificates and keys.", "")
        .write(import::bundle),
    Path::new("issuers/import/cert").fields(IMPORT).help("Imports certificates.", "").write(import::certificates),
    Path::new("config/ca").fields(IMPORT).help("Imports certificates and keys.", "").write(import::bundle),
    Path::new("issuers/?").public().help("Lists the issuers.", "").list(issuers::list),
    Path::new("issuer/{issuer_ref}")
        .fields(ISSUER_FIELDS)
        .help("An issuer.", "A write begins from the defaults; PATCH changes what is given.")
        .read(issuers::read)
        .write(issuers::write)
        .patch(issuers::patch)
        .delete(issuers::delete),
    fetching("issuer/{issuer_ref}/json", issuers::json),
    fetching("issuer/{issuer_ref}/der", issuers::der),
    fetching("issuer/{issuer_ref}/pem", issuers::pem),
    fetching("issuer/{issuer_ref}/crl", fetch::crl_json),
    fetching("issuer/{issuer_ref}/crl/der", fetch::crl_der),
    fetching("issuer/{issuer_ref}/crl/pem", fetch::crl_pem),
    fetching("issuer/{issuer_ref}/crl/delta", fetch::delta_json),
    fetching("issuer/{issuer_ref}/crl/delta/der", fetch::delta_der),
    fetching("issuer/{issuer_ref}/crl/delta/pem", fetch::delta_pem),
    fetching("issuer/{issuer_ref}/unified-crl", fetch::crl_json),
    fetching("issuer/{issuer_ref}/unified-crl/der", fetch::crl_der),
    fetching("issuer/{issuer_ref}/unified-crl/pem", fetch::crl_pem),
    Path::new("issuer/{issuer_ref}/revoke").fields(ISSUER_ONLY).help("Revokes an issuer.", "").write(issuers::revoke),
    Path::new("issuer/{issuer_ref}/issue/{role}")
        .fields(ISSUE)
        .help("Issues by a certain issuer.", "")
        .write(issue::issue),
    Path::new("issuer/{issuer_ref}/sign/{role}")
        .fields(SIGN)
        .help("Signs by a certain issuer.", "")
        .write(issue::sign),
    Path::new("issuer/{issuer_ref}/sign-verbatim")
        .fields(VERBATIM)
        .help("Signs a request as it is, by a certain issuer.", "")
        .write(issue::sign_verbatim),
    Path::new("issuer/{issuer_ref}/sign-verbatim/{role}")
        .fields(VERBATIM)
        .help("Signs a request as it is, by a certain issuer.", "")
        .write(issue::sign_verbatim),
    Path::new("issuer/{issuer_ref}/sign-intermediate")
        .fields(SIGN_INTERMEDIATE)
        .help("Signs an intermediate by a certain issuer.", "")
        .write(root::sign_intermediate),
    Path::new("issuer/{issuer_ref}/sign-self-issued")
        .fields(SELF_ISSUED)
        .sudo()
        .help("Signs a foreign root under its own name.", "")
        .write(root::sign_self_issued),
    Path::new("keys/?").help("Lists the keys.", "").list(keys::list),
    Path::new("keys/generate/{exported}")
        .fields(&[ORIGIN, KEY_NAME, KEY_TYPE, KEY_BITS])
        .help("Generates a key.", "")
        .write(keys::generate),
    Path::new("keys/import")
        .fields(&[Field::str("pem_bundle", "The key, PEM.").secret(), KEY_NAME])
        .help("Imports a key.", "")
        .write(keys::import),
    Path::new("key/{key_ref}")
        .fields(&[KEY, KEY_NAME])
        .help("A key.", "")
        .read(keys::read)
        .write(keys::write)
        .delete(keys::delete),
    Path::new("config/issuers")
        .fields(&[
            Field::str("default", "The issuer that becomes the default."),
            Field::bool("default_follows_latest_issuer", "New issuers become the default."),
        ])
        .help("Says which issuer is the default.", "")
        .read(issuers::read_config)
        .write(issuers::write_config),
    Path::new("config/keys")
        .fields(&[Field::str("default", "The key that becomes the default.")])
        .help("Says which key is the default.", "")
        .read(keys::read_config)
        .write(keys::write_config),
    Path::new("config/urls")
        .fields(URLS)
        .help("URLs that certificates carry.", "")
        .read(config::read_urls)
        .write(config::write_urls),
    Path::new("config/cluster")
        .fields(&[Field::str("path", "URL of this mount."), Field::str("aia_path", "URL for relying parties.")])
        .help("Where this mount is reached.", "")
        .read(config::read_cluster)
        .write(config::write_cluster),
    Path::new("config/crl").fields(CRL).help("CRLs and OCSP.", "").read(config::read_crl).write(config::write_crl),
    Path::new("config/auto-tidy")
        .fields(AUTO_TIDY)
        .help("Tidies by schedule.", "")
        .read(tidy::read_auto)
        .write(tidy::write_auto),
    Path::new("tidy").fields(TIDY).help("Removes what is over.", "").write(tidy::start),
    Path::new("tidy-status").help("Tells of the last tidy run.", "").read(tidy::status),
    Path::new("tidy-cancel").help("Ends a tidy run.", "").write(tidy::cancel),
    Path::new("revoke").fields(REVOKE).help("Revokes a certificate.", "").write(revoke::revoke),
    Path::new("revoke-with-key")
        .fields(REVOKE)
        .help("Revokes a certificate by its private key.", "")
        .write(revoke::revoke_with_key),
    Path::new("cert-metadata/?").fields(LIST).help("Lists certificates with metadata.", "").list(metadata::list),
    Path::new("cert-metadata/{serial:any}")
        .fields(&[SERIAL])
        .help("What was to be remembered with a certificate.", "")
        .read(metadata::read),
    Path::new("certs/?").fields(LIST).help("Lists the stored certificates.", "").list(list_certs),
    Path::new("certs/revoked/?").fields(LIST).help("Lists the revoked certificates.", "").list(list_revoked),
    Path::new("certs/unified-revoked/?").fields(LIST).help("Lists the revoked certificates.", "").list(list_revoked),
    Path::new("certs/revocation-queue/?").fields(LIST).help("One cluster has no queue.", "").list(list_nothing),
    fetching("ca", fetch::ca_der),
    fetching("ca/pem", fetch::ca_pem),
    fetching("ca_chain", fetch::ca_chain),
    fetching("cert/ca", fetch::ca_json),
    fetching("cert/ca/raw", fetch::ca_der),
    fetching("cert/ca/raw/pem", fetch::ca_pem),
    fetching("cert/ca_chain", fetch::ca_chain_json),
    fetching("crl", fetch::crl_der),
    fetching("crl/pem", fetch::crl_pem),
    Path::new("crl/rotate").help("Builds the CRLs anew.", "").read(fetch::rotate).write(fetch::rotate),
    Path::new("crl/rotate-delta")
        .help("Builds the delta CRLs anew.", "")
        .read(fetch::rotate_delta)
        .write(fetch::rotate_delta),
    fetching("crl/delta", fetch::delta_der),
    fetching("crl/delta/pem", fetch::delta_pem),
    fetching("unified-crl", fetch::crl_der),
    fetching("unified-crl/pem", fetch::crl_pem),
    fetching("unified-crl/delta", fetch::delta_der),
    fetching("unified-crl/delta/pem", fetch::delta_pem),
    fetching("cert/crl", fetch::crl_json),
    fetching("cert/crl/raw", fetch::crl_der),
    fetching("cert/crl/raw/pem", fetch::crl_pem),
    fetching("cert/delta-crl", fetch::delta_json),
    fetching("cert/delta-crl/raw", fetch::delta_der),
    fetching("cert/delta-crl/raw/pem", fetch::delta_pem),
    fetching("cert/unified-crl", fetch::crl_json),
    fetching("cert/{serial:any}", fetch::certificate),
    fetching("cert/{serial:any}/raw", fetch::certificate_der),
    fetching("cert/{serial:any}/raw/pem", fetch::certificate_pem),
    Path::new("ocsp")
        .fields(&[Field::str("body", "The request, base64 of DER.")])
        .public()
        .help("Answers OCSP.", "")
        .write(ocsp::post),
    Path::new("ocsp/{req..}")
        .fields(&[Field::str("req", "The request, base64 of DER.")])
        .public()
        .help("Answers OCSP.", "")
        .read(ocsp::get),
    Path::new("unified-ocsp")
        .fields(&[Field::str("body", "The request, base64 of DER.")])
        .public()
        .help("Answers OCSP.", "")
        .write(ocsp::post),
    Path::new("unified-ocsp/{req..}")
        .fields(&[Field::str("req", "The request, base64 of DER.")])
        .public()
        .help("Answers OCSP.", "")
        .read(ocsp::get),
];
