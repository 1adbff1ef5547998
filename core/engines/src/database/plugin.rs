//! What the plugins of the catalog differ in: defaults and texts. Source of names, templates and default statements:
//! Vault's database plugins.

use super::statement::postgres_literal;
use ringfence_logical::SqlKind;

/// How a server reads quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Standard strings, dollar quotes.
    Postgres,
    /// Backslashes in strings, backticks.
    Mysql,
}

/// A plugin.
#[derive(Debug)]
pub struct Plugin {
    /// Its name in the catalog.
    pub name: &'static str,
    /// The client that serves it.
    pub kind: SqlKind,
    /// Template of generated names.
    pub username_template: &'static str,
    /// Sets the password of the connection's own account.
    pub root_rotation: &'static [&'static str],
    /// Sets the password of a static account.
    pub static_rotation: &'static [&'static str],
    /// Moves the end of an account's life; none = the server keeps no end.
    pub renewal: &'static [&'static str],
}

const POSTGRES_NAME: &str = r#"{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20) (unix_time) | truncate 63 }}"#;
const MYSQL_NAME: &str = r#"{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 10) (.RoleName | truncate 10) (random 20) (unix_time) | truncate 32 }}"#;
const MYSQL_OLD_NAME: &str = r#"{{ printf "v-%s-%s" (.RoleName | truncate 4) (random 20) | truncate 16 }}"#;

const fn mysql(name: &'static str, username_template: &'static str) -> Plugin {
    Plugin {
        name,
        kind: SqlKind::Mysql,
        username_template,
        root_rotation: &["ALTER USER '{{username}}'@'%' IDENTIFIED BY '{{password}}';"],
        static_rotation: &["ALTER USER '{{username}}'@'%' IDENTIFIED BY '{{password}}';"],
        renewal: &[],
    }
}

/// The catalog.
pub static PLUGINS: &[Plugin] = &[
    Plugin {
        name: "postgresql-database-plugin",
        kind: SqlKind::Postgres,
        username_template: POSTGRES_NAME,
        root_rotation: &[r#"ALTER ROLE "{{username}}" WITH PASSWORD '{{password}}';"#],
        static_rotation: &[r#"ALTER ROLE "{{username}}" WITH PASSWORD '{{password}}';"#],
        renewal: &[r#"ALTER ROLE "{{name}}" VALID UNTIL '{{expiration}}';"#],
    },
    mysql("mysql-database-plugin", MYSQL_NAME),
    mysql("mysql-aurora-database-plugin", MYSQL_OLD_NAME),
    mysql("mysql-rds-database-plugin", MYSQL_OLD_NAME),
    mysql("mysql-legacy-database-plugin", MYSQL_OLD_NAME),
];

/// The plugin of a name.
pub fn find(name: &str) -> Option<&'static Plugin> {
    PLUGINS.iter().find(|p| p.name == name)
}

impl Plugin {
    /// How its server reads quotes.
    pub fn dialect(&self) -> Dialect {
        match self.kind {
            SqlKind::Postgres => Dialect::Postgres,
            SqlKind::Mysql => Dialect::Mysql,
        }
    }

    /// Statements run in one transaction. MySQL commits each statement about accounts by itself.
    pub fn is_transactional(&self) -> bool {
        self.kind == SqlKind::Postgres
    }

    /// Ends an account, there or not, with the places `{{name}}` still open.
    pub fn default_revocation(&self, name: &str) -> Vec<String> {
        match self.kind {
            SqlKind::Postgres => vec![postgres_revocation(name)],
            SqlKind::Mysql => vec!["DROP USER IF EXISTS '{{name}}'@'%'".to_owned()],
        }
    }
}

/// Takes all rights that a role was given in this database, then drops it. One block: all or nothing.
fn postgres_revocation(name: &str) -> String {
    let role = postgres_literal(name);
    // the tag keeps a name with `$$` from ending the block
    let tag = if name.contains("$rf$") { "$rf_$" } else { "$rf$" };
    format!(
        "DO {tag} DECLARE who text := {role}; s text; BEGIN \
         IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = who) THEN \
         FOR s IN SELECT DISTINCT table_schema FROM information_schema.role_column_grants WHERE grantee = who LOOP \
         EXECUTE format('REVOKE ALL PRIVILEGES ON ALL TABLES IN SCHEMA %I FROM %I', s, who); \
         EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM %I', s, who); \
         END LOOP; \
         IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'public') THEN \
         EXECUTE format('REVOKE ALL PRIVILEGES ON ALL TABLES IN SCHEMA public FROM %I', who); \
         EXECUTE format('REVOKE ALL PRIVILEGES ON ALL SEQUENCES IN SCHEMA public FROM %I', who); \
         EXECUTE format('REVOKE USAGE ON SCHEMA public FROM %I', who); \
         END IF; \
         EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM %I', current_database(), who); \
         EXECUTE format('DROP ROLE %I', who); \
         END IF; END {tag}"
    )
}
