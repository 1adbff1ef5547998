//! The path table of the database engine.

use super::{connection, creds, role, root, statics};
use crate::page::{AFTER, LIMIT};
use ringfence_logical::field::Preset;
use ringfence_logical::{Field, Kind, Path};

const NAME: Field = Field::str("name", "Name of the connection or role.");
const DB_NAME: Field = Field::str("db_name", "The connection that it uses.");
const CREDENTIAL_TYPE: Field =
    Field::str("credential_type", "`password`, or `client_certificate` for dynamic roles.");
const CREDENTIAL_CONFIG: Field =
    Field::new("credential_config", Kind::Object, "Settings of the credential type.").secret();

pub static PATHS: &[Path] = &[
    Path::new("config/?").fields(&[AFTER, LIMIT]).help("Lists the connections.", "").list(connection::list),
    Path::new("config/{name}")
        .fields(&[
            NAME,
            Field::str("plugin_name", "The plugin of the catalog that serves it."),
            Field::str("plugin_version", "Version of the plugin; empty for the one built in."),
            Field::bool("verify_connection", "Connect before it is stored.").preset(Preset::Bool(true)),
            Field::list("allowed_roles", "Roles that may use it; `*` for all."),
            Field::new("root_rotation_statements", Kind::StrList, "Statements that set its own password."),
            Field::str("password_policy", "Name of the policy that passwords are made by."),
            Field::bool("skip_static_role_import_rotation", "Accepted; new static roles are always rotated."),
            Field::str("connection_url", "URL or DSN with `{{username}}` and `{{password}}` in their places."),
            Field::str("username", "Name of the account that makes the others."),
            Field::str("password", "Its password.").secret(),
            Field::bool("disable_escaping", "Put name and password into the URL as they are."),
            Field::int("max_open_connections", "Connections at a time; 0 means 4."),
            Field::int("max_idle_connections", "Idle connections kept; 0 means all."),
            Field::seconds("max_connection_lifetime", "How long a connection is used; 0 means for ever."),
            Field::str("username_template", "Template of generated names."),
            Field::str("password_authentication", "PostgreSQL: `password` or `scram-sha-256`."),
            Field::str("auth_type", "Only the plain one is known: empty."),
            Field::str("tls_ca", "PEM certificates to trust."),
            Field::str("tls_certificate", "PostgreSQL: PEM certificate of the client."),
            Field::str("private_key", "PostgreSQL: PEM key of the client.").secret(),
            Field::str("tls_certificate_key", "MySQL: PEM certificate and key of the client.").secret(),
            Field::str("tls_server_name", "Name to verify instead of the host's."),
            Field::bool("tls_skip_verify", "Verify no certificate."),
        ])
        .help("Reads, writes and deletes connections.", "Settings that are not named here go to the plugin.")
        .free_form()
        .exists(connection::exists)
        .read(connection::read)
        .write(connection::write)
        .delete(connection::delete),
    Path::new("reset/{name}")
        .fields(&[NAME])
        .help("Opens the connections of a configuration anew.", "")
        .write(connection::reset),
    Path::new("reload/{plugin_name}")
        .fields(&[Field::str("plugin_name", "The plugin.")])
        .help("Opens the connections of a plugin anew.", "")
        .write(connection::reload),
    Path::new("rotate-root/{name}")
        .fields(&[NAME])
        .help("Sets another password for the connection's own account.", "")
        .write(root::rotate),
    Path::new("roles/?").fields(&[AFTER, LIMIT]).help("Lists the dynamic roles.", "").list(role::list),
    Path::new("roles/{name}")
        .fields(&[
            NAME,
            DB_NAME,
            Field::new("creation_statements", Kind::StrList, "Make an account."),
            Field::new("revocation_statements", Kind::StrList, "End an account."),
            Field::new("rollback_statements", Kind::StrList, "Remove what a failed creation left."),
            Field::new("renew_statements", Kind::StrList, "Move the end of an account's life."),
            Field::seconds("default_ttl", "Life of a lease."),
            Field::seconds("max_ttl", "Longest life of a lease."),
            CREDENTIAL_TYPE,
            CREDENTIAL_CONFIG,
        ])
        .help("Reads, writes and deletes dynamic roles.", "")
        .exists(role::exists)
        .read(role::read)
        .write(role::write)
        .delete(role::delete),
    Path::new("creds/{name}")
        .fields(&[NAME])
        .help("Makes an account that lives as long as its lease.", "")
        .read(creds::read),
    Path::new("static-roles/?").fields(&[AFTER, LIMIT]).help("Lists the static roles.", "").list(statics::list),
    Path::new("static-roles/{name}")
        .fields(&[
            NAME,
            DB_NAME,
            Field::str("username", "The standing account."),
            Field::seconds("rotation_period", "Seconds from one rotation to the next."),
            Field::str("rotation_schedule", "Cron expression of five fields, UTC."),
            Field::seconds("rotation_window", "How long after a scheduled time a rotation may begin."),
            Field::new("rotation_statements", Kind::StrList, "Set the password."),
            CREDENTIAL_TYPE,
            CREDENTIAL_CONFIG,
        ])
        .help("Reads, writes and deletes static roles.", "A new one has its password set at once.")
        .exists(statics::exists)
        .read(statics::read)
        .write(statics::write)
        .delete(statics::delete),
    Path::new("static-creds/{name}")
        .fields(&[NAME])
        .help("Name and password of a standing account.", "")
        .read(statics::credentials),
    Path::new("rotate-role/{name}")
        .fields(&[NAME])
        .help("Sets another password for a standing account.", "")
        .write(statics::rotate_by_hand),
];
