//! The path table of kubernetes.

use super::{config, login, role};
use crate::page::{AFTER, LIMIT};
use crate::tokenutil::with_token_fields;
use ringfence_logical::field::Preset;
use ringfence_logical::{Field, Kind, Path};

pub static PATHS: &[Path] = &[
    Path::new("config")
        .fields(&[
            Field::str("kubernetes_host", "URL of the API server."),
            Field::str("kubernetes_ca_cert", "Certificates to trust at the API server, PEM."),
            Field::str("token_reviewer_jwt", "Token that may ask the API server about others.").secret(),
            Field::list("pem_keys", "Public keys that must have signed the tokens, PEM."),
            Field::bool(
                "disable_local_ca_jwt",
                "Do not use certificates and token of the pod that this server runs in.",
            ),
            Field::bool("disable_iss_validation", "Do not look at the token's issuer.").preset(Preset::Bool(true)),
            Field::str("issuer", "The issuer that tokens must name, if it is looked at."),
            Field::bool("use_annotations_as_alias_metadata", "Take metadata from annotations of the account."),
        ])
        .help("Which cluster's accounts log in.", "")
        .read(config::read)
        .write(config::write),
    Path::new("role/?").fields(&[AFTER, LIMIT]).help("Lists the roles.", "").list(role::list),
    Path::new("role/{name}")
        .fields(with_token_fields![
            Field::new("name", Kind::LowerStr, "Name of the role."),
            Field::list("bound_service_account_names", "Accounts that may log in; `*` stands for any characters."),
            Field::list("bound_service_account_namespaces", "Their namespaces; `*` stands for any characters."),
            Field::str("bound_service_account_namespace_selector", "Or a label selector of their namespaces, JSON."),
            Field::str("audience", "The audience that tokens must name."),
            Field::str("alias_name_source", "`serviceaccount_uid` (the default) or `serviceaccount_name`."),
            Field::list("policies", "Older name of `token_policies`.").deprecated(),
            Field::seconds("ttl", "Older name of `token_ttl`.").deprecated(),
            Field::seconds("max_ttl", "Older name of `token_max_ttl`.").deprecated(),
            Field::seconds("period", "Older name of `token_period`.").deprecated(),
            Field::int("num_uses", "Older name of `token_num_uses`.").deprecated(),
            Field::list("bound_cidrs", "Older name of `token_bound_cidrs`.").deprecated(),
        ])
        .help("Reads, writes and deletes roles.", "")
        .exists(role::exists)
        .read(role::read)
        .write(role::write)
        .delete(role::delete),
    Path::new("login")
        .fields(&[
            Field::new("role", Kind::LowerStr, "The role to log in to."),
            Field::str("jwt", "The service account's token.").secret(),
        ])
        .help("Logs a service account in.", "")
        .login()
        .role_of(|_, args| Ok(args.str("role").to_owned()))
        .write(login::login),
];
