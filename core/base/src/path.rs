//! Request paths in their one canonical form. More than half of the published Vault faults are names compared in two
//! normal forms; here a path is parsed once, at the edge, and everything behind it takes [`CanonPath`].

use crate::limit::MAX_PATH_BYTES;

/// A canonical path: no leading slash, no `.` or `..` segment, no empty segment, no control or otherwise
/// non-printable character. A trailing slash is kept (lists have one).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CanonPath(String);

/// Why a path was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// A control character, or one that does not print.
    NotPrintable,
    /// A `.` or `..` segment.
    Relative,
    /// Longer than [`MAX_PATH_BYTES`].
    TooLong,
}

impl CanonPath {
    /// Parses a percent-decoded path. Leading slashes and doubled slashes are folded into one, as Go's `ServeMux`
    /// does by redirecting.
    pub fn parse(raw: &str) -> Result<CanonPath, PathError> {
        if raw.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        let trimmed = raw.trim_start_matches('/');
        if is_plain(trimmed) {
            return Ok(CanonPath(trimmed.to_owned()));
        }
        if trimmed.chars().any(|c| !is_printable(c)) {
            return Err(PathError::NotPrintable);
        }
        let mut out = String::with_capacity(trimmed.len());
        for segment in trimmed.split_inclusive('/') {
            match segment.trim_end_matches('/') {
                "." | ".." => return Err(PathError::Relative),
                "" if segment == "/" => continue,
                _ => out.push_str(segment),
            }
        }
        Ok(CanonPath(out))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same path with exactly one slash at its end; the empty path stays empty.
    pub fn into_dir(mut self) -> CanonPath {
        if !self.0.is_empty() && !self.0.ends_with('/') {
            self.0.push('/');
        }
        self
    }

    /// The text itself.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// The common case in one pass over the bytes: printable ASCII without `//` and without a dot that begins a segment.
fn is_plain(s: &str) -> bool {
    let mut prev = b'/';
    for (i, &b) in s.as_bytes().iter().enumerate() {
        if !(0x20..0x7f).contains(&b) || (prev == b'/' && (b == b'.' || (b == b'/' && i > 0))) {
            return false;
        }
        prev = b;
    }
    true
}

/// Printable as Go's `unicode.IsPrint` sees it, closely: letters, marks, numbers, punctuation, symbols and the ASCII
/// space; no control, format, surrogate, private-use character or other space.
pub fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    !(c.is_control()
        || c.is_whitespace()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{f0000}'..='\u{10ffff}'
            | '\u{e0000}'..='\u{e007f}'))
}

/// A generic name: `\w(([\w-.]+)?\w)?`. Source: Vault's `GenericNameRegex`.
pub fn is_name(s: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match s.as_bytes() {
        [] => false,
        [one] => word(*one),
        [first, mid @ .., last] => {
            word(*first) && word(*last) && mid.iter().all(|&b| word(b) || b == b'-' || b == b'.')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        let p = |s: &str| CanonPath::parse(s).map(CanonPath::into_string);
        assert_eq!(p("/secret//data/a/").as_deref(), Ok("secret/data/a/"));
        assert_eq!(p("///").as_deref(), Ok(""));
        assert_eq!(p("a/../b"), Err(PathError::Relative));
        assert_eq!(p("a/./b"), Err(PathError::Relative));
        assert_eq!(p(".."), Err(PathError::Relative));
        assert_eq!(p("a/..b/.c").as_deref(), Ok("a/..b/.c"));
        assert_eq!(p("a\u{2028}b"), Err(PathError::NotPrintable));
        assert_eq!(p("a\0b"), Err(PathError::NotPrintable));
        assert_eq!(p("naïve/ключ").as_deref(), Ok("naïve/ключ"));
    }

    #[test]
    fn names() {
        for good in ["a", "a-b", "a.b-c_d", "_x_"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a/b", "a b", ".a", "é"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_idempotent_and_safe(s in "[a-c./\\u{0}-\\u{20}é ]{0,24}") {
            if let Ok(p) = CanonPath::parse(&s) {
                prop_assert!(!p.as_str().starts_with('/'));
                prop_assert!(!p.as_str().contains("//"));
                prop_assert!(p.as_str().split('/').all(|x| x != "." && x != ".."));
                prop_assert_eq!(CanonPath::parse(p.as_str()), Ok(p.clone()));
            }
        }
    }
}
