//! The path table of userpass.

use super::{login, user};
use crate::page::{AFTER, LIMIT};
use crate::tokenutil::with_token_fields;
use ringfence_logical::{Field, Kind, Path};

const USERNAME: Field = Field::new("username", Kind::LowerStr, "Name of the user.");
const PASSWORD: Field = Field::str("password", "Password of the user.").secret();
const OLDER_POLICIES: Field = Field::list("policies", "Older name of `token_policies`.").deprecated();

pub static PATHS: &[Path] = &[
    Path::new("users/?").fields(&[AFTER, LIMIT]).help("Lists the users.", "").list(user::list),
    Path::new("users/{username:at}")
        .fields(with_token_fields![
            USERNAME,
            PASSWORD,
            Field::str("password_hash", "bcrypt hash of the password, instead of the password.").secret(),
            OLDER_POLICIES,
            Field::seconds("ttl", "Older name of `token_ttl`.").deprecated(),
            Field::seconds("max_ttl", "Older name of `token_max_ttl`.").deprecated(),
            Field::list("bound_cidrs", "Older name of `token_bound_cidrs`.").deprecated(),
        ])
        .help("Reads, writes and deletes users.", "A password is needed when a user is created.")
        .exists(user::exists)
        .read(user::read)
        .write(user::write)
        .delete(user::delete),
    Path::new("users/{username:at}/password")
        .fields(&[USERNAME, PASSWORD, Field::str("password_hash", "bcrypt hash of the password.").secret()])
        .help("Sets the password of a user.", "")
        .write(user::set_password),
    Path::new("users/{username:at}/policies")
        .fields(&[USERNAME, OLDER_POLICIES, crate::tokenutil::POLICIES])
        .help("Sets the policies of a user.", "")
        .write(user::set_policies),
    Path::new("login/{username:at}")
        .fields(&[USERNAME, PASSWORD])
        .help("Logs in by name and password.", "")
        .login_of(|args| args.str("username").to_lowercase())
        .write(login::login),
];
