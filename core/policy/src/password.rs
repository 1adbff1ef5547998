//! Password policies: how engines make up passwords for the systems behind them.
//!
//! ```text
//!   length = 20
//!   rule "charset" { charset = "abcdef" min-chars = 1 }
//! ```
//!
//! A password is drawn evenly from the union of the character sets, again and again until every rule is met, so that all
//! passwords that meet the rules are equally likely. The work is bounded: rules that almost never hold are refused when
//! the policy is written.

use std::fmt;

use ringfence_base::Entropy;
use ringfence_base::path::is_printable;
use zeroize::Zeroize;

use crate::hcl::{self, Value};

/// Shortest password, characters. Source: the API's refusal text.
pub const MIN_LENGTH: usize = 4;
/// Longest password, characters.
pub const MAX_LENGTH: usize = 100;
/// Most distinct characters of a policy: one random byte draws one.
pub const MAX_ALPHABET: usize = 256;
/// Most characters drawn for one password before the rules are called impossible: some ten milliseconds. That is 20,000
/// attempts at the longest password; rules met once in a thousand attempts then fail by chance once in 10^8.
const MAX_DRAWN_CHARS: usize = 2_000_000;

/// Rules and the characters they draw from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordPolicy {
    length: usize,
    rules: Vec<CharsetRule>,
    /// Sorted, distinct. Invariant: 1 to [`MAX_ALPHABET`].
    alphabet: Vec<char>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct CharsetRule {
    charset: Vec<char>,
    min_chars: usize,
}

/// Why a policy was refused or made no password. Its text is the whole of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordError {
    /// It cannot be read.
    Invalid(String),
    /// Rules that contradict the length or each other; one text each.
    Contradictory(Vec<String>),
    /// Outside [`MIN_LENGTH`] to [`MAX_LENGTH`].
    Length,
    /// No password met the rules within the bound.
    Impossible,
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PasswordError::Invalid(text) => write!(f, "invalid password policy: {text}"),
            PasswordError::Contradictory(texts) => {
                let plural = if texts.len() == 1 { "" } else { "s" };
                writeln!(f, "invalid password policy: {} error{plural} occurred:", texts.len())?;
                texts.iter().try_for_each(|t| writeln!(f, "\t* {t}"))?;
                f.write_str("\n")
            }
            PasswordError::Length => {
                write!(f, "passwords must be between {MIN_LENGTH} and {MAX_LENGTH} characters")
            }
            PasswordError::Impossible => {
                f.write_str("unable to construct test password from provided policy: are the rules impossible?")
            }
        }
    }
}

impl std::error::Error for PasswordError {}

/// What engines use when no policy is named: 20 characters with a lower-case and an upper-case letter, a digit and `-`.
impl Default for PasswordPolicy {
    fn default() -> PasswordPolicy {
        let rule = |chars: std::ops::RangeInclusive<char>| CharsetRule { charset: chars.collect(), min_chars: 1 };
        PasswordPolicy::build(20, vec![rule('a'..='z'), rule('A'..='Z'), rule('0'..='9'), rule('-'..='-')])
            .expect("four rules of one character each fit into 20, all printable")
    }
}

impl PasswordPolicy {
    /// Reads a policy, HCL or JSON. Whether its rules can be met is [`PasswordPolicy::check`]'s business.
    pub fn parse(text: &str) -> Result<PasswordPolicy, PasswordError> {
        let body =
            hcl::parse(text).map_err(|e| PasswordError::Invalid(format!("unable to decode: error parsing: {e}")))?;
        let length = match body.attribute("length") {
            Some(v) => v.as_i64().ok_or_else(|| {
                PasswordError::Invalid("failed to decode configuration: length must be a number".into())
            })?,
            None => 0,
        };
        let blocks = body
            .blocks("rule", 1)
            .map_err(|e| PasswordError::Invalid(format!("unable to retrieve rules: {}", e.message)))?;
        let mut rules = Vec::new();
        for block in blocks {
            let kind = block.labels[0];
            let refuse = |text: String| {
                PasswordError::Invalid(format!("unable to parse rules: unable to parse rule {kind}: {text}"))
            };
            if kind != "charset" {
                return Err(refuse(format!("unrecognized rule type {kind}")));
            }
            rules.push(parse_rule(block.body).map_err(refuse)?);
        }
        PasswordPolicy::build(usize::try_from(length).unwrap_or(0), rules)
    }

    fn build(length: usize, rules: Vec<CharsetRule>) -> Result<PasswordPolicy, PasswordError> {
        let mut texts = Vec::new();
        let needed = rules.iter().fold(0usize, |n, r| n.saturating_add(r.min_chars));
        if length == 0 {
            texts.push("length must be > 0".to_owned());
        } else if length < needed {
            texts.push(format!("specified rules require at least {needed} characters but {length} is specified"));
        }
        let mut alphabet: Vec<char> = rules.iter().flat_map(|r| r.charset.iter().copied()).collect();
        alphabet.sort_unstable();
        alphabet.dedup();
        if alphabet.is_empty() {
            texts.push("no charset specified".to_owned());
        } else if !alphabet.iter().all(|c| is_printable(*c)) {
            texts.push("non-printable character in charset".to_owned());
        }
        if !texts.is_empty() {
            return Err(PasswordError::Contradictory(texts));
        }
        if alphabet.len() > MAX_ALPHABET {
            return Err(PasswordError::Invalid(format!("charset is too long: limited to {MAX_ALPHABET} characters")));
        }
        if !(MIN_LENGTH..=MAX_LENGTH).contains(&length) {
            return Err(PasswordError::Length);
        }
        Ok(PasswordPolicy { length, rules, alphabet })
    }

    /// Makes a test password, to refuse a policy that makes none.
    pub fn check(&self, rng: &mut dyn Entropy) -> Result<(), PasswordError> {
        let mut password = self.generate(rng)?;
        password.zeroize();
        Ok(())
    }

    /// A password that meets every rule.
    pub fn generate(&self, rng: &mut dyn Entropy) -> Result<String, PasswordError> {
        let attempts = MAX_DRAWN_CHARS / self.length;
        let mut source = Draws { rng, pool: [0; 64], left: 0 };
        let mut candidate = Vec::with_capacity(self.length);
        for _ in 0..attempts {
            candidate.clear();
            candidate.extend((0..self.length).map(|_| source.pick(&self.alphabet)));
            if self.rules.iter().all(|r| r.is_met_by(&candidate)) {
                let mut password = String::with_capacity(self.length * 4);
                password.extend(&candidate);
                candidate.zeroize();
                return Ok(password);
            }
        }
        candidate.zeroize();
        Err(PasswordError::Impossible)
    }
}

fn parse_rule(body: &hcl::Body) -> Result<CharsetRule, String> {
    let charset = match body.attribute("charset") {
        Some(v) => v.scalar().ok_or("charset must be a string")?.chars().collect(),
        None => Vec::new(),
    };
    let min_chars = match body.attribute("min-chars").map(Value::as_i64) {
        Some(Some(n)) => usize::try_from(n).unwrap_or(0),
        Some(None) => return Err("min-chars must be a number".into()),
        None => 0,
    };
    Ok(CharsetRule { charset, min_chars })
}

impl CharsetRule {
    fn is_met_by(&self, candidate: &[char]) -> bool {
        self.min_chars == 0 || candidate.iter().filter(|c| self.charset.contains(c)).count() >= self.min_chars
    }
}

/// Even draws from an alphabet by rejecting bytes past its last whole multiple.
struct Draws<'a> {
    rng: &'a mut dyn Entropy,
    pool: [u8; 64],
    left: usize,
}

impl Draws<'_> {
    fn pick(&mut self, alphabet: &[char]) -> char {
        let limit = 256 - 256 % alphabet.len();
        loop {
            if self.left == 0 {
                self.rng.fill(&mut self.pool);
                self.left = self.pool.len();
            }
            self.left -= 1;
            let byte = self.pool[self.left] as usize;
            if byte < limit {
                return alphabet[byte % alphabet.len()];
            }
        }
    }
}

impl Drop for Draws<'_> {
    fn drop(&mut self) {
        self.pool.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_base::entropy::SeededEntropy;

    fn refusal(text: &str) -> String {
        PasswordPolicy::parse(text).expect_err("is refused").to_string()
    }

    #[test]
    fn the_default_has_one_of_each() {
        let policy = PasswordPolicy::default();
        let mut rng = SeededEntropy(3);
        for _ in 0..200 {
            let p = policy.generate(&mut rng).expect("possible");
            assert_eq!(p.len(), 20);
            assert!(p.bytes().any(|b| b.is_ascii_lowercase()) && p.bytes().any(|b| b.is_ascii_uppercase()), "{p}");
            assert!(p.bytes().any(|b| b.is_ascii_digit()) && p.contains('-'), "{p}");
            assert!(p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{p}");
        }
    }

    #[test]
    fn rules_hold_and_draws_are_even() {
        let text = "length = 10\nrule \"charset\" { charset = \"äbc\" min-chars = 2 }\nrule \"charset\" { charset = \"xyz\" }";
        let policy = PasswordPolicy::parse(text).expect("parses");
        let mut rng = SeededEntropy(4);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..3000 {
            let p = policy.generate(&mut rng).expect("possible");
            assert_eq!(p.chars().count(), 10);
            assert!(p.chars().filter(|c| "äbc".contains(*c)).count() >= 2, "{p}");
            p.chars().for_each(|c| *counts.entry(c).or_insert(0u32) += 1);
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|n| (4500..5500).contains(n)), "{counts:?}");
    }

    #[test]
    fn json_form() {
        let text = r#"{"length": 8, "rule": [{"charset": [{"charset": "ab", "min-chars": 1}]}, {"charset": {"charset": "cd"}}]}"#;
        let policy = PasswordPolicy::parse(text).expect("parses");
        assert_eq!(policy.alphabet, ['a', 'b', 'c', 'd']);
        assert_eq!(policy.rules[0].min_chars, 1);
    }

    #[test]
    fn refusals() {
        let charset = "rule \"charset\" { charset = \"abc\" min-chars = 1 }";
        let length = "passwords must be between 4 and 100 characters";
        assert_eq!(refusal(&format!("length = 3 {charset}")), length);
        assert_eq!(refusal(&format!("length = 101 {charset}")), length);
        assert_eq!(
            refusal("length = 20"),
            "invalid password policy: 1 error occurred:\n\t* no charset specified\n\n"
        );
        assert_eq!(
            refusal("rule \"charset\" { charset = \"a\\tb\" }"),
            "invalid password policy: 2 errors occurred:\n\t* length must be > 0\n\t* non-printable character in charset\n\n"
        );
        assert_eq!(
            refusal("length = 4 rule \"charset\" { charset = \"a\" min-chars = 5 }"),
            "invalid password policy: 1 error occurred:\n\t* specified rules require at least 5 characters but 4 is specified\n\n"
        );
        assert_eq!(
            refusal("length = 20 rule \"words\" { }"),
            "invalid password policy: unable to parse rules: unable to parse rule words: unrecognized rule type words"
        );
        assert!(refusal("length = ").starts_with("invalid password policy: unable to decode: "));
    }

    #[test]
    fn impossible_rules_end() {
        // each of the two asks for half of the characters, from sets that are one in a hundred
        let many: String = ('!'..='~').filter(|c| !"ab\"\\$".contains(*c)).collect();
        let text = format!(
            "length = 20 rule \"charset\" {{ charset = \"{many}\" }} rule \"charset\" {{ charset = \"a\" min-chars = 10 }} rule \"charset\" {{ charset = \"b\" min-chars = 10 }}"
        );
        let policy = PasswordPolicy::parse(&text).expect("parses");
        let refused = policy.check(&mut SeededEntropy(5)).expect_err("never met");
        assert_eq!(
            refused.to_string(),
            "unable to construct test password from provided policy: are the rules impossible?"
        );
        assert_eq!(PasswordPolicy::default().check(&mut SeededEntropy(6)), Ok(()));
    }
}
