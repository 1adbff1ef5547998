//! Where a browser may be sent back to, for both ends of OpenID Connect: as a client of providers (jwt/oidc) and as a
//! provider ourselves (identity). Pure text.

/// True if the redirect is one of the allowed. On a loopback address the port is the client's (RFC 8252 7.3).
pub fn is_allowed(redirect: &str, allowed: &[String]) -> bool {
    if allowed.iter().any(|a| a == redirect) {
        return true;
    }
    let Some(bare) = without_loopback_port(redirect) else { return false };
    allowed.iter().any(|a| without_loopback_port(a).as_deref() == Some(bare.as_str()))
}

/// An `http` URL of a loopback address without its port; `None` for any other.
fn without_loopback_port(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, ""),
    };
    let loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    let clean = port.bytes().all(|b| b.is_ascii_digit()) && !path.contains(['\\', '@']);
    (loopback && clean).then(|| format!("{scheme}://{host}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects() {
        let allowed = ["http://localhost:8250/oidc/callback".to_owned(), "https://vault.test/ui/x".to_owned()];
        for (url, good) in [
            ("http://localhost:8250/oidc/callback", true),
            ("http://localhost:9999/oidc/callback", true),
            ("http://localhost/oidc/callback", true),
            ("http://127.0.0.1:8250/oidc/callback", false),
            ("https://localhost:8250/oidc/callback", false),
            ("http://localhost:8250/oidc/callback2", false),
            ("http://localhost:8250@evil.test/oidc/callback", false),
            ("http://localhost:x/oidc/callback", false),
            ("https://vault.test/ui/x", true),
            ("https://vault.test:8443/ui/x", false),
            ("https://vault.test/ui/x?y", false),
            ("", false),
        ] {
            assert_eq!(is_allowed(url, &allowed), good, "{url}");
        }
    }
}
