//! Which names a role lets into a certificate. One validator judges what came as JSON and what came in a request's DER.

use crate::role::Role;
use ringfence_logical::{Error, Principal};

/// Who asks, for rules that depend on him.
pub struct Asker<'p> {
    /// The caller.
    pub principal: Option<&'p Principal>,
}

/// True for a host name (RFC 1123, one leading `*.` allowed, a dot at the end allowed).
pub fn is_hostname(text: &str) -> bool {
    let body = text.strip_prefix("*.").unwrap_or(text);
    let body = body.strip_suffix('.').unwrap_or(body);
    !body.is_empty() && body.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let b = label.as_bytes();
    !b.is_empty()
        && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
        && b[0] != b'-'
        && b[b.len() - 1] != b'-'
}

/// Splits `*.rest`, `foo*.rest`: the label with the star, and the rest. `None` for a star anywhere else.
fn wildcard(name: &str) -> Option<(&str, &str)> {
    let (label, rest) = name.split_once('.')?;
    (label.matches('*').count() == 1 && !rest.contains('*') && !rest.is_empty()).then_some((label, rest))
}

/// True if the role lets a name stand in a certificate.
pub fn allowed(role: &Role, asker: &Asker<'_>, name: &str) -> bool {
    let mut host = name;
    let mut is_email = false;
    let mut domain_of_mail = "";
    if name.contains('@') {
        match name.split('@').collect::<Vec<_>>()[..] {
            [local, domain] if !local.is_empty() && !domain.is_empty() => {
                is_email = true;
                domain_of_mail = domain;
                host = domain;
            }
            _ => return false,
        }
    }
    let mut reduced = host;
    let mut is_wildcard = false;
    if host.contains('*') {
        let Some((label, rest)) = wildcard(host) else { return false };
        if is_email || !role.allow_wildcard_certificates {
            return false;
        }
        is_wildcard = true;
        reduced = rest;
        let stand_in = label.replace('*', "x");
        if role.enforce_hostnames && (!is_label(&stand_in) || !is_hostname(rest)) {
            return false;
        }
    } else if role.enforce_hostnames && !is_hostname(host) {
        return false;
    }
    if role.allow_any_name {
        return true;
    }
    if role.allow_localhost {
        for local in ["localhost", "localdomain"] {
            if !is_wildcard && reduced == local {
                return true;
            }
            if role.allow_subdomains && (ends_under(reduced, local) || is_wildcard && reduced == local) {
                return true;
            }
        }
    }
    let display_name = asker.principal.map_or("", |p| p.display_name.as_str());
    if role.allow_token_displayname && !display_name.is_empty() {
        if name == display_name {
            return true;
        }
        if role.allow_subdomains {
            if is_email && domain_of_mail == display_name {
                return true;
            }
            if ends_under(reduced, display_name) || is_wildcard && reduced == display_name {
                return true;
            }
        }
    }
    role.allowed_domains.iter().any(|d| domain_allows(role, d, name, reduced, domain_of_mail, is_wildcard))
}

fn domain_allows(
    role: &Role,
    domain: &str,
    name: &str,
    reduced: &str,
    domain_of_mail: &str,
    is_wildcard: bool,
) -> bool {
    if domain.is_empty() {
        return false;
    }
    let is_email = !domain_of_mail.is_empty();
    if role.allow_bare_domains
        && !is_wildcard
        && (name.eq_ignore_ascii_case(domain) || is_email && domain_of_mail.eq_ignore_ascii_case(domain))
    {
        return true;
    }
    if role.allow_subdomains && (ends_under(reduced, domain) || is_wildcard && reduced.eq_ignore_ascii_case(domain)) {
        return true;
    }
    role.allow_glob_domains && domain.contains('*') && glob(domain, name)
}

fn ends_under(name: &str, domain: &str) -> bool {
    let (n, d) = (name.len(), domain.len());
    n > d + 1
        && name.is_char_boundary(n - d)
        && name.as_bytes()[n - d - 1] == b'.'
        && name[n - d..].eq_ignore_ascii_case(domain)
}

/// Stars match any run of characters, dots included.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    let parts: Vec<&str> = pattern.split('*').collect();
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    if parts.len() == 1 {
        return pattern == text;
    }
    if !text.starts_with(first) || !text.ends_with(last) || text.len() < first.len() + last.len() {
        return false;
    }
    let mut rest = &text[first.len()..text.len() - last.len()];
    for middle in &parts[1..parts.len() - 1] {
        match rest.find(middle) {
            Some(at) => rest = &rest[at + middle.len()..],
            None => return false,
        }
    }
    true
}

/// Splits `oid;UTF8:value`.
pub fn parse_other_san(text: &str) -> Result<(String, String), Error> {
    let bad = |why: &str| Error::invalid(format!("could not parse requested other SAN: {why}"));
    let (oid, typed) = text.split_once(';').ok_or_else(|| bad("expected a semicolon in other SAN"))?;
    let (kind, value) = typed.split_once(':').ok_or_else(|| bad("expected a colon in other SAN"))?;
    if !kind.eq_ignore_ascii_case("utf8") && !kind.eq_ignore_ascii_case("utf-8") {
        return Err(bad("only UTF8 other SANs are supported"));
    }
    if der::asn1::ObjectIdentifier::new(oid.trim()).is_err() {
        return Err(bad(&format!("{oid:?} is not an OID")));
    }
    Ok((oid.trim().to_owned(), value.to_owned()))
}

/// Judges `other_sans` against the role's `allowed_other_sans` (`*`, or `oid;UTF8:glob`).
pub fn check_other_sans(role: &Role, wanted: &[(String, String)]) -> Result<(), Error> {
    if role.allowed_other_sans.iter().any(|a| a == "*") {
        return Ok(());
    }
    let rules = role.allowed_other_sans.iter().map(|a| parse_other_san(a)).collect::<Result<Vec<_>, _>>()?;
    for (oid, value) in wanted {
        let mut of_oid = rules.iter().filter(|(o, _)| o == oid).peekable();
        if of_oid.peek().is_none() {
            return Err(Error::invalid(format!("other SAN OID {oid} not allowed by this role")));
        }
        if !of_oid.any(|(_, pattern)| glob(pattern, value)) {
            return Err(Error::invalid(format!("other SAN {value} not allowed for OID {oid} by this role")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(f: impl FnOnce(&mut Role)) -> Role {
        let mut r = Role { allowed_domains: vec!["example.com".into()], ..Role::default() };
        f(&mut r);
        r
    }

    fn may(r: &Role, name: &str) -> bool {
        let p = Principal { display_name: "web.internal".into(), entity_id: "e-1".into(), ..Principal::default() };
        allowed(r, &Asker { principal: Some(&p) }, name)
    }

    #[test]
    fn the_documented_rules() {
        let sub = role(|r| r.allow_subdomains = true);
        for (name, wanted) in [
            ("a.example.com", true),
            ("A.EXAMPLE.com", true),
            ("a.b.example.com", true),
            ("*.example.com", true),
            ("*.a.example.com", true),
            ("example.com", false),
            ("badexample.com", false),
            ("a.example.com.evil.org", false),
            ("a.*.example.com", false),
            ("**.example.com", false),
            ("localhost", true),
            ("a.localdomain", true),
            ("me@a.example.com", true),
            ("me@example.com", false),
            ("me@you@a.example.com", false),
            ("-a.example.com", false),
            ("a_b.example.com", false),
            (".example.com", false),
            ("", false),
        ] {
            assert_eq!(may(&sub, name), wanted, "{name}");
        }
        let bare = role(|r| r.allow_bare_domains = true);
        assert!(may(&bare, "example.com") && may(&bare, "me@example.com") && !may(&bare, "a.example.com"));
        assert!(!may(&bare, "*.example.com"));
        let no_stars = role(|r| {
            r.allow_subdomains = true;
            r.allow_wildcard_certificates = false;
        });
        assert!(!may(&no_stars, "*.example.com") && may(&no_stars, "a.example.com"));
        let globs = role(|r| {
            r.allow_glob_domains = true;
            r.allowed_domains = vec!["ftp*.example.com".into()];
        });
        assert!(may(&globs, "ftp1.example.com") && !may(&globs, "www.example.com"));
        let any = role(|r| r.allow_any_name = true);
        assert!(may(&any, "what.ever") && !may(&any, "what ever"));
        let loose = role(|r| {
            r.allow_any_name = true;
            r.enforce_hostnames = false;
        });
        assert!(may(&loose, "what ever"));
        let nothing = role(|r| r.allow_localhost = false);
        assert!(!may(&nothing, "localhost") && !may(&nothing, "a.example.com"));
        let shown = role(|r| r.allow_token_displayname = true);
        assert!(may(&shown, "web.internal") && !may(&shown, "a.web.internal"));
    }

    /// Random texts over an alphabet, the same in every run.
    fn texts(seed: u64, alphabet: &str, longest: usize, n: usize) -> Vec<String> {
        let letters: Vec<char> = alphabet.chars().collect();
        let mut rng = ringfence_base::entropy::SeededEntropy(seed);
        let mut draw = |below: usize| {
            let mut b = [0; 4];
            ringfence_base::Entropy::fill(&mut rng, &mut b);
            u32::from_be_bytes(b) as usize % below
        };
        (0..n)
            .map(|_| {
                let length = draw(longest + 1);
                (0..length).map(|_| letters[draw(letters.len())]).collect()
            })
            .collect()
    }

    /// Whatever comes, a role of subdomains lets nothing in that does not end under its domain.
    #[test]
    fn nothing_outside() {
        let r = role(|r| {
            r.allow_subdomains = true;
            r.allow_localhost = false;
        });
        let mut let_in = 0;
        for (n, tail) in texts(1, "aZ9.-*@ äß\u{0}", 8, 30_000)
            .iter()
            .zip(["", ".example.com", "example.com", ".EXAMPLE.com"].iter().cycle())
        {
            let name = format!("{n}{tail}");
            if may(&r, &name) {
                let_in += 1;
                assert!(name.to_ascii_lowercase().ends_with(".example.com"), "{name}");
            }
        }
        assert!(let_in > 10, "the test reaches both answers");
    }

    #[test]
    fn globs_agree_with_a_slow_matcher() {
        fn slow(p: &[u8], t: &[u8]) -> bool {
            match (p.first(), t.first()) {
                (None, None) => true,
                (Some(b'*'), _) => slow(&p[1..], t) || !t.is_empty() && slow(p, &t[1..]),
                (Some(a), Some(b)) if a == b => slow(&p[1..], &t[1..]),
                _ => false,
            }
        }
        for (p, t) in texts(2, "ab*", 6, 20_000).iter().zip(texts(3, "ab", 8, 20_000)) {
            assert_eq!(glob(p, &t), slow(p.as_bytes(), t.as_bytes()), "{p} {t}");
        }
    }
}
