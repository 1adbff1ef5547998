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

/// The literal passwords of a URL or DSN, as ranges in their order: the one before the address, and those given as
/// parameters or as key=value pairs.
fn literals(url: &str) -> Vec<std::ops::Range<usize>> {
    let mut found: Vec<_> = before_address(url).into_iter().chain(as_pairs(url)).collect();
    found.retain(|r| !r.is_empty() && !url[r.clone()].contains("{{"));
    found.sort_by_key(|r| r.start);
    found.dedup_by(|later, earlier| later.start < earlier.end);
    found
}

fn before_address(url: &str) -> Option<std::ops::Range<usize>> {
    let start = url.find("://").map_or(0, |i| i + 3);
    let end = match start {
        // a DSN's address begins at the last `@` before the parenthesis
        0 => url.find('(').map_or(url.len(), |p| p),
        _ => start + url[start..].find('/').unwrap_or(url.len() - start),
    };
    let at = url[start..end].rfind('@')? + start;
    let colon = url[start..at].find(':')? + start;
    Some(colon + 1..at)
}

/// `password=...`, `sslpassword = '...'`: after a blank, `?` or `&`, or at the beginning. A value in quotes ends with
/// them, any other with the next blank or `&`.
fn as_pairs(url: &str) -> Vec<std::ops::Range<usize>> {
    let bytes = url.as_bytes();
    let mut found = Vec::new();
    for (at, word) in url.match_indices("password") {
        let key = url[..at].strip_suffix("ssl").unwrap_or(&url[..at]);
        if !key.is_empty() && !key.ends_with([' ', '\t', '\n', '\r', '?', '&']) {
            continue;
        }
        let blank = |mut i: usize| {
            while bytes.get(i).is_some_and(u8::is_ascii_whitespace) {
                i += 1;
            }
            i
        };
        let equals = blank(at + word.len());
        if bytes.get(equals) != Some(&b'=') {
            continue;
        }
        let is_url = url.contains("://");
        let from = if is_url { equals + 1 } else { blank(equals + 1) };
        let (from, quoted) =
            if !is_url && bytes.get(from) == Some(&b'\'') { (from + 1, true) } else { (from, false) };
        let mut to = from;
        while let Some(b) = bytes.get(to) {
            match b {
                b'\\' if !is_url => to += 1,
                b'\'' if quoted => break,
                b'&' if is_url => break,
                b if !quoted && b.is_ascii_whitespace() => break,
                _ => {}
            }
            to += 1;
        }
        let mut to = to.min(url.len());
        while !url.is_char_boundary(to) {
            to += 1;
        }
        found.push(from..to);
    }
    found
}

/// True if a password stands in it.
pub fn has_password(url: &str) -> bool {
    !literals(url).is_empty()
}

/// The passwords that stand in it, as they stand there.
pub fn passwords(url: &str) -> Vec<&str> {
    literals(url).into_iter().map(|r| &url[r]).collect()
}

/// With literal passwords replaced.
pub fn masked(url: &str) -> String {
    let (mut out, mut from) = (String::with_capacity(url.len()), 0);
    for r in literals(url) {
        out.push_str(&url[from..r.start]);
        out.push_str("xxxxx");
        from = r.end;
    }
    out + &url[from..]
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

    /// A read showed `password=...` of the key=value form, and of a URL's parameters, in the clear.
    #[test]
    fn passwords_given_as_pairs_are_masked() {
        for (url, wanted) in [
            ("host=h password=open user=u", "host=h password=xxxxx user=u"),
            ("password=open", "password=xxxxx"),
            ("host=h password = 'o p\\'en' user=u", "host=h password = 'xxxxx' user=u"),
            ("host=h sslpassword=open", "host=h sslpassword=xxxxx"),
            ("postgres://h/db?user=u&password=open&x=1", "postgres://h/db?user=u&password=xxxxx&x=1"),
            ("postgres://u:a@h/db?password=b", "postgres://u:xxxxx@h/db?password=xxxxx"),
            ("host=h password={{password}} user=u", "host=h password={{password}} user=u"),
            ("host=h password_authentication=x user=u", "host=h password_authentication=x user=u"),
            ("host=h password='open", "host=h password='xxxxx"),
            ("host=h password=o\\", "host=h password=xxxxx"),
        ] {
            assert_eq!(masked(url), wanted);
            assert_eq!(has_password(url), masked(url) != url, "{url}");
        }
        assert_eq!(passwords("postgres://u:a@h/db?password=b"), ["a", "b"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_masked_without_a_fault(url in "(password|=|'|\\\\|&| |\\?|é|://|@|:|x){0,12}") {
            let _ = (masked(&url), passwords(&url));
        }
    }
}
