//! Connection URLs: filling them in, hiding what they tell, and refusing what cannot be one.

use ringfence_logical::SqlKind;

/// Puts name and password into their places. In a URL they are escaped as a part of its path; a MySQL DSN takes its
/// password as it is.
pub fn fill(url: &str, username: &str, password: &str, kind: Option<SqlKind>, escape: bool) -> String {
    let escaped = |text: &str| if escape { path_escaped(text) } else { text.to_owned() };
    let password = match kind {
        Some(SqlKind::Mysql) => password.to_owned(),
        _ => escaped(password),
    };
    let username = match kind {
        Some(SqlKind::Mysql) => username.to_owned(),
        _ => escaped(username),
    };
    // in one pass: a value that looks like a place is not one
    let mut out = String::with_capacity(url.len() + 64);
    let mut rest = url;
    while let Some(at) = rest.find("{{") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(r) = rest.strip_prefix("{{username}}") {
            out.push_str(&username);
            rest = r;
        } else if let Some(r) = rest.strip_prefix("{{password}}") {
            out.push_str(&password);
            rest = r;
        } else {
            out.push_str("{{");
            rest = &rest[2..];
        }
    }
    out + rest
}

/// Percent-encodes all but unreserved characters and `$&+=:@`.
fn path_escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        // `:` and `@` end the name in a URL's authority
        if b.is_ascii_alphanumeric() || b"-_.~$&+=".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// Refuses what no client could read.
pub fn check(kind: SqlKind, url: &str) -> Result<(), String> {
    match kind {
        SqlKind::Postgres if url.starts_with("postgres://") || url.starts_with("postgresql://") => Ok(()),
        // key=value pairs
        SqlKind::Postgres if url.split_whitespace().all(|p| p.contains('=')) => Ok(()),
        SqlKind::Postgres => Err("connection_url is neither a postgres:// URL nor key=value pairs".into()),
        SqlKind::Mysql
            if url.contains("@tcp(") || url.contains("@unix(") || url.contains("@(") || url.contains("@/") =>
        {
            Ok(())
        }
        SqlKind::Mysql => Err("connection_url is not of the form user:password@tcp(host:port)/database".into()),
    }
}

/// The literal password of a URL or DSN, as a range.
fn literal(url: &str) -> Option<std::ops::Range<usize>> {
    let start = url.find("://").map_or(0, |i| i + 3);
    let end = match start {
        // a DSN's address begins at the last `@` before the parenthesis
        0 => url.find('(').map_or(url.len(), |p| p),
        _ => start + url[start..].find('/').unwrap_or(url.len() - start),
    };
    let at = url[start..end].rfind('@')? + start;
    let colon = url[start..at].find(':')? + start;
    let password = colon + 1..at;
    let text = &url[password.clone()];
    (!text.is_empty() && !text.contains("{{")).then_some(password)
}

/// True if a password stands in it.
pub fn has_password(url: &str) -> bool {
    literal(url).is_some()
}

/// With a literal password replaced.
pub fn masked(url: &str) -> String {
    match literal(url) {
        Some(range) => format!("{}xxxxx{}", &url[..range.start], &url[range.end..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let pg = "postgresql://{{username}}:{{password}}@localhost:5432/db?sslmode=disable";
        assert_eq!(
            fill(pg, "a b", "p@:/{{username}}", Some(SqlKind::Postgres), true),
            "postgresql://a%20b:p%40%3A%2F%7B%7Busername%7D%7D@localhost:5432/db?sslmode=disable"
        );
        assert_eq!(
            fill("{{username}}:{{password}}@tcp(h)/", "u", "p@s", Some(SqlKind::Mysql), true),
            "u:p@s@tcp(h)/"
        );
        assert_eq!(fill("x{{other}}", "u", "p", None, true), "x{{other}}");
        assert!(!has_password(pg));
        assert!(has_password("postgres://u:secret@h/db"));
        assert_eq!(masked("postgres://u:secret@h/db"), "postgres://u:xxxxx@h/db");
        assert_eq!(masked("u:se@cret@tcp(h:1)/db"), "u:xxxxx@tcp(h:1)/db");
        assert_eq!(masked("postgres://h/db?x=a:b@c"), "postgres://h/db?x=a:b@c");
        assert!(check(SqlKind::Postgres, "host=h user=u").is_ok());
        assert!(check(SqlKind::Postgres, "nonsense").is_err());
        assert!(check(SqlKind::Mysql, "u:p@tcp(h:3306)/").is_ok());
        assert!(check(SqlKind::Mysql, "mysql").is_err());
    }
}
