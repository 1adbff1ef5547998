//! The path table of approle.

use super::{field, login, role, secret_paths, tidy};
use crate::page::{AFTER, LIMIT};
use crate::tokenutil::with_token_fields;
use ringfence_logical::field::Preset;
use ringfence_logical::{Field, Kind, Path};

const ROLE_NAME: Field = Field::new("role_name", Kind::LowerStr, "Name of the role.");
const ROLE_ID: Field = Field::str("role_id", "Names the role at login. Drawn at random if not given.");
const BIND_SECRET_ID: Field =
    Field::bool("bind_secret_id", "A login must present a secret-id.").preset(Preset::Bool(true));
const SECRET_ID_BOUND_CIDRS: Field =
    Field::list("secret_id_bound_cidrs", "Addresses or CIDR blocks that may log in to the role.");
const BOUND_CIDR_LIST: Field = Field::list("bound_cidr_list", "Older name of `secret_id_bound_cidrs`.").deprecated();
const SECRET_ID_NUM_USES: Field =
    Field::int("secret_id_num_uses", "How often a secret-id can be used; zero is without limit.");
const SECRET_ID_TTL: Field = Field::seconds("secret_id_ttl", "Life of a secret-id; zero is without end.");
const LOCAL_SECRET_IDS: Field = Field::bool(
    "local_secret_ids",
    "Secret-ids are valid in this cluster only. Can only be set when the role is made.",
);
const OLDER_POLICIES: Field = Field::list("policies", "Older name of `token_policies`.").deprecated();
const OLDER_PERIOD: Field = Field::seconds("period", "Older name of `token_period`.").deprecated();

const SECRET_ID: Field = Field::str("secret_id", "The secret-id.").secret();
const ACCESSOR: Field = Field::str("secret_id_accessor", "Accessor of the secret-id.");
const METADATA: Field = Field::str("metadata", "JSON text of an object of texts that becomes metadata of the token.");
const CIDR_LIST: Field = Field::list("cidr_list", "Addresses or CIDR blocks that may log in with the secret-id.");
const NUM_USES: Field = Field::int("num_uses", "How often the secret-id can be used; at most what the role says.");
const TTL: Field = Field::seconds("ttl", "Life of the secret-id; at most what the role says.");

/// The paths of one field of a role.
macro_rules! of_field {
    ($pattern:literal, $index:expr, $($field:expr),+) => {
        Path::new($pattern)
            .fields(&[ROLE_NAME, $($field),+])
            .help("Reads, sets and resets one field of a role.", "")
            .read(field::read::<{ $index }>)
            .write(field::write::<{ $index }>)
            .delete(field::delete::<{ $index }>)
    };
}

pub static PATHS: &[Path] = &[
    Path::new("login")
        .fields(&[ROLE_ID, SECRET_ID])
        .help("Logs in by role-id and secret-id.", "")
        .login_of(|args| args.str("role_id").to_owned())
        .role_of(login::role)
        .write(login::login),
    Path::new("role/?").fields(&[AFTER, LIMIT]).help("Lists the roles.", "").list(role::list),
    Path::new("role/{role_name}")
        .fields(with_token_fields![
            ROLE_NAME,
            ROLE_ID,
            BIND_SECRET_ID,
            SECRET_ID_BOUND_CIDRS,
            BOUND_CIDR_LIST,
            SECRET_ID_NUM_USES,
            SECRET_ID_TTL,
            LOCAL_SECRET_IDS,
            OLDER_POLICIES,
            OLDER_PERIOD,
        ])
        .help("Reads, writes and deletes roles.", "Deleting a role ends all its secret-ids.")
        .exists(role::exists)
        .read(role::read)
        .write(role::write)
        .delete(role::delete),
    of_field!("role/{role_name}/policies", field::POLICIES, crate::tokenutil::POLICIES, OLDER_POLICIES),
    of_field!("role/{role_name}/bind-secret-id", field::BIND_SECRET_ID, BIND_SECRET_ID),
    of_field!("role/{role_name}/secret-id-num-uses", field::SECRET_ID_NUM_USES, SECRET_ID_NUM_USES),
    of_field!("role/{role_name}/secret-id-ttl", field::SECRET_ID_TTL, SECRET_ID_TTL),
    of_field!("role/{role_name}/secret-id-bound-cidrs", field::SECRET_ID_BOUND_CIDRS, SECRET_ID_BOUND_CIDRS),
    of_field!("role/{role_name}/bound-cidr-list", field::BOUND_CIDR_LIST, BOUND_CIDR_LIST),
    of_field!("role/{role_name}/token-bound-cidrs", field::TOKEN_BOUND_CIDRS, crate::tokenutil::BOUND_CIDRS),
    of_field!("role/{role_name}/token-ttl", field::TOKEN_TTL, crate::tokenutil::TTL),
    of_field!("role/{role_name}/token-max-ttl", field::TOKEN_MAX_TTL, crate::tokenutil::MAX_TTL),
    of_field!("role/{role_name}/token-num-uses", field::TOKEN_NUM_USES, crate::tokenutil::NUM_USES),
    of_field!("role/{role_name}/period", field::PERIOD, crate::tokenutil::PERIOD, OLDER_PERIOD),
    Path::new("role/{role_name}/local-secret-ids")
        .fields(&[ROLE_NAME])
        .help("Tells whether the role's secret-ids are local.", "")
        .read(role::read_local_secret_ids),
    Path::new("role/{role_name}/role-id")
        .fields(&[ROLE_NAME, ROLE_ID])
        .help("Reads and sets the role-id.", "")
        .read(role::read_role_id)
        .write(role::write_role_id),
    Path::new("role/{role_name}/secret-id/?")
        .fields(&[ROLE_NAME, METADATA, CIDR_LIST, crate::tokenutil::BOUND_CIDRS, NUM_USES, TTL, AFTER, LIMIT])
        .help("Makes a secret-id, or lists the accessors of the role's secret-ids.", "")
        .write(secret_paths::create)
        .list(secret_paths::list),
    Path::new("role/{role_name}/custom-secret-id")
        .fields(&[ROLE_NAME, SECRET_ID, METADATA, CIDR_LIST, crate::tokenutil::BOUND_CIDRS, NUM_USES, TTL])
        .help("Registers a secret-id of the caller's choice.", "")
        .write(secret_paths::create_custom),
    Path::new("role/{role_name}/secret-id/lookup/?")
        .fields(&[ROLE_NAME, SECRET_ID])
        .help("Shows what is known of a secret-id.", "")
        .write(secret_paths::lookup),
    Path::new("role/{role_name}/secret-id/destroy/?")
        .fields(&[ROLE_NAME, SECRET_ID])
        .help("Ends a secret-id.", "")
        .write(secret_paths::destroy)
        .delete(secret_paths::destroy),
    Path::new("role/{role_name}/secret-id-accessor/lookup/?")
        .fields(&[ROLE_NAME, ACCESSOR])
        .help("Shows what is known of a secret-id by its accessor.", "")
        .write(secret_paths::lookup_accessor),
    Path::new("role/{role_name}/secret-id-accessor/destroy/?")
        .fields(&[ROLE_NAME, ACCESSOR])
        .help("Ends a secret-id by its accessor.", "")
        .write(secret_paths::destroy_accessor)
        .delete(secret_paths::destroy_accessor),
    Path::new("tidy/secret-id")
        .help(
            "Clears away secret-ids that are expired or whose role is gone.",
            "A call goes through a bounded number of entries; the rest follows by itself. The same is done every hour.",
        )
        .write(tidy::tidy),
];
