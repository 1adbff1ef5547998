//! The path table of jwt and oidc.

use super::{config, login, oidc, role};
use crate::page::{AFTER, LIMIT};
use crate::tokenutil::with_token_fields;
use ringfence_logical::field::Preset;
use ringfence_logical::{Field, Kind, Path};

const ROLE_NAME: Field = Field::new("name", Kind::LowerStr, "Name of the role.");
const ROLE: Field = Field::new("role", Kind::LowerStr, "The role to log in to.");

pub static PATHS: &[Path] = &[
    Path::new("config")
        .fields(&[
            Field::str("oidc_discovery_url", "URL of the OpenID provider, without `.well-known`."),
            Field::str("oidc_discovery_ca_pem", "Certificates to trust at the OpenID provider, PEM."),
            Field::str("oidc_client_id", "Client id for the code flow."),
            Field::str("oidc_client_secret", "Client secret for the code flow.").secret(),
            Field::str("oidc_response_mode", "`query` or `form_post`."),
            Field::list("oidc_response_types", "`code` (the default), `id_token`, or both."),
            Field::str("jwks_url", "URL of a JSON Web Key Set."),
            Field::str("jwks_ca_pem", "Certificates to trust at that URL, PEM."),
            Field::new(
                "jwks_pairs",
                Kind::Any,
                "Several key sets: a list of objects of `jwks_url` and `jwks_ca_pem`.",
            ),
            Field::list("jwt_validation_pubkeys", "Public keys, PEM."),
            Field::list("jwt_supported_algs", "Signature algorithms that are accepted."),
            Field::str("bound_issuer", "The issuer that tokens must name."),
            Field::str("default_role", "The role of logins that name none."),
            Field::new("provider_config", Kind::Object, "Special handling of a provider; none is supported."),
            Field::bool("namespace_in_state", "Append the namespace to the state.").preset(Preset::Bool(true)),
            Field::list("unsupported_critical_cert_extensions", "Not supported."),
        ])
        .help("Whose tokens are trusted.", "Exactly one source of keys can be set.")
        .read(config::read)
        .write(config::write),
    Path::new("role/?").fields(&[AFTER, LIMIT]).help("Lists the roles.", "").list(role::list),
    Path::new("role/{name}")
        .fields(with_token_fields![
            ROLE_NAME,
            Field::str("role_type", "`oidc` (the default) or `jwt`."),
            Field::str("user_claim", "The claim that names the user."),
            Field::bool("user_claim_json_pointer", "`user_claim` is a JSON pointer."),
            Field::list("bound_audiences", "Audiences of which a token must name one."),
            Field::str("bound_subject", "The subject that a token must name."),
            Field::new("bound_claims", Kind::Object, "Claims and the values of which each must have one."),
            Field::str("bound_claims_type", "How values are compared: `string` or `glob`."),
            Field::str("groups_claim", "The claim that lists the groups."),
            Field::new("claim_mappings", Kind::KvPairs, "Claims that become metadata, with their new names."),
            Field::new(
                "clock_skew_leeway",
                Kind::SignedSeconds,
                "Difference of clocks; 60 s by default, negative: none."
            ),
            Field::new("expiration_leeway", Kind::SignedSeconds, "Life of tokens without `exp`; 150 s by default."),
            Field::new("not_before_leeway", Kind::SignedSeconds, "For tokens without `nbf`; 150 s by default."),
            Field::list("allowed_redirect_uris", "Where the browser may come back to."),
            Field::list("oidc_scopes", "Scopes to ask for beside `openid`."),
            Field::bool("verbose_oidc_logging", "Accepted; claims are never logged."),
            Field::seconds("max_age", "How long ago the user may have authenticated at the provider."),
            Field::str("callback_mode", "`client` (the default) or `direct`: who the browser comes back to."),
            Field::seconds("poll_interval", "How often the client of a direct callback asks; 5 s by default."),
        ])
        .help("Reads, writes and deletes roles.", "")
        .exists(role::exists)
        .read(role::read)
        .write(role::write)
        .delete(role::delete),
    Path::new("login")
        .fields(&[ROLE, Field::str("jwt", "The signed token.").secret()])
        .help("Logs in with a signed token.", "")
        .login()
        .role_of(login::role)
        .write(login::login),
    Path::new("oidc/auth_url")
        .fields(&[
            ROLE,
            Field::str("redirect_uri", "Where the browser comes back to."),
            Field::str("client_nonce", "Chosen by the client, to be given again at the callback."),
        ])
        .help("Begins a login through the browser.", "")
        .public()
        .write(oidc::auth_url),
    Path::new("oidc/callback")
        .fields(&[
            Field::str("state", "As the provider gave it back.").query(),
            Field::str("code", "As the provider gave it.").query().secret(),
            Field::str("id_token", "As the provider posted it.").secret(),
            Field::str("client_nonce", "As given at the beginning.").query(),
            Field::str("error", "Why the provider refused.").query(),
            Field::str("error_description", "More of it.").query(),
        ])
        .help("Completes a login through the browser.", "")
        .login()
        .role_of(oidc::role)
        .read(oidc::callback)
        .write(oidc::post),
    Path::new("oidc/poll")
        .fields(&[
            Field::str("state", "As given at the beginning."),
            Field::str("client_nonce", "As given at the beginning."),
        ])
        .help("Completes a login whose browser came back to the server.", "")
        .login()
        .write(oidc::poll),
];
