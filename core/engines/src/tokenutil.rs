//! The `token_*` fields that every auth role and user has: declared once, parsed into [`TokenParams`], checked, read
//! back, and turned into what a login asks for. Older names of some fields are still accepted where a method declares
//! them; they are read back under the older name only if they were last set under it.

use crate::cidr;
use ringfence_logical::{Args, Auth, Error, Field, Map, Renewal, TokenType};
use serde_json::json;

/// Addresses that may use the token.
pub const BOUND_CIDRS: Field =
    Field::list("token_bound_cidrs", "Addresses or CIDR blocks that may log in and use the tokens.");
/// Longest life in any case.
pub const EXPLICIT_MAX_TTL: Field =
    Field::seconds("token_explicit_max_ttl", "Life of the token that no renewal and no later change extends.");
/// Longest life.
pub const MAX_TTL: Field = Field::seconds("token_max_ttl", "Longest life of the token over all renewals.");
/// Leave `default` out.
pub const NO_DEFAULT_POLICY: Field =
    Field::bool("token_no_default_policy", "Do not add the policy `default` to the token.");
/// How often it can be used.
pub const NUM_USES: Field = Field::int("token_num_uses", "How often the token can be used; zero is without limit.");
/// Life of a periodic token between renewals.
pub const PERIOD: Field =
    Field::seconds("token_period", "Makes the token periodic: each renewal sets its life to this time.");
/// Policies.
pub const POLICIES: Field = Field::list("token_policies", "Policies of the token.");
/// First life.
pub const TTL: Field = Field::seconds("token_ttl", "First life of the token.");
/// Service or batch.
pub const TYPE: Field = Field::str(
    "token_type",
    "Type of the token: `default`, `service`, `batch`, `default-service` or `default-batch`.",
)
.preset(ringfence_logical::field::Preset::Str("default"));
/// Bind to the address of the login.
pub const STRICTLY_BIND_IP: Field =
    Field::bool("token_strictly_bind_ip", "Bind the token to the address that logged in.");

/// The fields of a path: a method's own, and then all of this module.
macro_rules! with_token_fields {
    ($($own:expr),* $(,)?) => {
        &[
            $($own,)*
            $crate::tokenutil::BOUND_CIDRS,
            $crate::tokenutil::EXPLICIT_MAX_TTL,
            $crate::tokenutil::MAX_TTL,
            $crate::tokenutil::NO_DEFAULT_POLICY,
            $crate::tokenutil::NUM_USES,
            $crate::tokenutil::PERIOD,
            $crate::tokenutil::POLICIES,
            $crate::tokenutil::TTL,
            $crate::tokenutil::TYPE,
            $crate::tokenutil::STRICTLY_BIND_IP,
        ]
    };
}
pub(crate) use with_token_fields;

/// What a role or user says of its tokens.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct TokenParams {
    /// Addresses and ranges, each in one printed form.
    pub bound_cidrs: Vec<String>,
    /// Seconds.
    pub explicit_max_ttl: u64,
    /// Seconds.
    pub max_ttl: u64,
    /// Leave `default` out.
    pub no_default_policy: bool,
    /// 0 = without limit.
    pub num_uses: u64,
    /// Seconds; 0 = not periodic.
    pub period: u64,
    /// Trimmed, lower-cased, each once, in the order given.
    pub policies: Vec<String>,
    /// Seconds.
    pub ttl: u64,
    /// Service, batch, or what the mount says.
    pub token_type: TokenType,
    /// Bind to the address of the login.
    pub strictly_bind_ip: bool,
    /// Fields (by their older names) that were last set under the older name.
    pub older_names: Vec<String>,
}

impl TokenParams {
    /// Takes over the fields that were supplied, under their name or the older one, and checks the whole.
    ///
    /// # Errors
    /// Refusals (400) as Vault words them; `self` is then unchanged.
    pub fn update(&mut self, args: &Args) -> Result<(), Error> {
        let mut new = self.clone();
        if let Some(name) = new.chosen(args, "token_bound_cidrs", "bound_cidrs") {
            let texts = args.list(name);
            new.bound_cidrs = texts.iter().map(|t| cidr::canonical(t)).collect::<Result<_, _>>()?;
        }
        if let Some(name) = new.chosen(args, "token_explicit_max_ttl", "explicit_max_ttl") {
            new.explicit_max_ttl = args.seconds(name);
        }
        if let Some(name) = new.chosen(args, "token_max_ttl", "max_ttl") {
            new.max_ttl = args.seconds(name);
        }
        if let Some(b) = args.opt_bool("token_no_default_policy") {
            new.no_default_policy = b;
        }
        if let Some(name) = new.chosen(args, "token_num_uses", "num_uses") {
            new.num_uses =
                u64::try_from(args.int(name)).map_err(|_| Error::invalid("'token_num_uses' cannot be negative"))?;
        }
        if let Some(name) = new.chosen(args, "token_period", "period") {
            new.period = args.seconds(name);
        }
        if let Some(name) = new.chosen(args, "token_policies", "policies") {
            new.policies = canonical_policies(&args.list(name));
        }
        if let Some(name) = new.chosen(args, "token_ttl", "ttl") {
            new.ttl = args.seconds(name);
        }
        if let Some(text) = args.opt_str("token_type") {
            new.token_type = TokenType::parse(text)
                .ok_or_else(|| Error::invalid(format!("invalid 'token_type' value {text:?}")))?;
        }
        if let Some(b) = args.opt_bool("token_strictly_bind_ip") {
            new.strictly_bind_ip = b;
        }
        new.check()?;
        *self = new;
        Ok(())
    }

    /// The name under which a field was supplied; the newer one wins. Remembers which it was.
    fn chosen(&mut self, args: &Args, name: &'static str, older: &'static str) -> Option<&'static str> {
        let chosen = if args.supplied(name) {
            name
        } else if args.supplied(older) {
            older
        } else {
            return None;
        };
        self.older_names.retain(|n| n != older);
        if chosen == older {
            self.older_names.push(older.to_owned());
        }
        Some(chosen)
    }

    fn check(&self) -> Result<(), Error> {
        if self.max_ttl > 0 && self.ttl > self.max_ttl {
            return Err(Error::invalid("'token_ttl' cannot be greater than 'token_max_ttl'"));
        }
        if matches!(self.token_type, TokenType::Batch | TokenType::DefaultBatch) {
            if self.period > 0 {
                return Err(Error::invalid(
                    "'token_type' cannot be 'batch' or 'default_batch' when set to generate periodic tokens",
                ));
            }
            if self.num_uses > 0 {
                return Err(Error::invalid(
                    "'token_type' cannot be 'batch' or 'default_batch' when set to generate tokens with limited use count",
                ));
            }
        }
        Ok(())
    }

    /// Puts every field into an answer, and those that were set under an older name once more under that.
    pub fn read_into(&self, out: &mut Map) {
        out.insert("token_bound_cidrs".into(), json!(self.bound_cidrs));
        out.insert("token_explicit_max_ttl".into(), self.explicit_max_ttl.into());
        out.insert("token_max_ttl".into(), self.max_ttl.into());
        out.insert("token_no_default_policy".into(), self.no_default_policy.into());
        out.insert("token_num_uses".into(), self.num_uses.into());
        out.insert("token_period".into(), self.period.into());
        out.insert("token_policies".into(), json!(self.policies));
        out.insert("token_strictly_bind_ip".into(), self.strictly_bind_ip.into());
        out.insert("token_ttl".into(), self.ttl.into());
        out.insert("token_type".into(), self.token_type.as_str().into());
        for older in &self.older_names {
            if let Some(value) = out.get(&format!("token_{older}")).cloned() {
                out.insert(older.clone(), value);
            }
        }
    }

    /// True if a field was last set under its older name.
    pub fn set_as(&self, older: &str) -> bool {
        self.older_names.iter().any(|n| n == older)
    }

    /// What a login asks for. The method adds name, alias and metadata.
    pub fn auth(&self, remote: Option<std::net::IpAddr>) -> Auth {
        let bound_cidrs = match remote {
            Some(ip) if self.strictly_bind_ip => vec![ip.to_string()],
            _ => self.bound_cidrs.clone(),
        };
        Auth {
            policies: self.policies.clone(),
            no_default_policy: self.no_default_policy,
            ttl: self.ttl,
            max_ttl: self.max_ttl,
            period: self.period,
            explicit_max_ttl: self.explicit_max_ttl,
            num_uses: self.num_uses,
            token_type: self.token_type,
            bound_cidrs,
            ..Auth::default()
        }
    }

    /// What a renewal is allowed.
    pub fn renewal(&self) -> Renewal {
        Renewal { ttl: self.ttl, max_ttl: self.max_ttl, period: self.period, ..Renewal::default() }
    }
}

/// Policy names in their one normal form: trimmed, lower-cased, no empties, each once, in the order given.
pub fn canonical_policies(names: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let name = name.trim().to_lowercase();
        if !name.is_empty() && !out.contains(&name) {
            out.push(name);
        }
    }
    out
}

/// True if two sets of policies are the same; `default` does not count.
pub fn same_policies(a: &[String], b: &[String]) -> bool {
    let set = |names: &[String]| -> std::collections::BTreeSet<String> {
        canonical_policies(names).into_iter().filter(|n| n != "default").collect()
    };
    set(a) == set(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_logical::Kind;
    use serde_json::Value;

    static FIELDS: &[Field] = with_token_fields![
        Field::list("policies", "").deprecated(),
        Field::seconds("ttl", "").deprecated(),
        Field::new("bound_cidrs", Kind::CommaList, "").deprecated(),
    ];

    fn update(p: &mut TokenParams, v: Value) -> Result<(), Error> {
        p.update(&Args::parse(FIELDS, &[], v.as_object().unwrap().clone())?)
    }

    fn shown(p: &TokenParams) -> Value {
        let mut m = Map::new();
        p.read_into(&mut m);
        Value::Object(m)
    }

    #[test]
    fn nothing_set_reads_back_as_zeroes() {
        let want = json!({
            "token_bound_cidrs": [], "token_explicit_max_ttl": 0, "token_max_ttl": 0, "token_no_default_policy": false,
            "token_num_uses": 0, "token_period": 0, "token_policies": [], "token_strictly_bind_ip": false,
            "token_ttl": 0, "token_type": "default",
        });
        assert_eq!(shown(&TokenParams::default()), want);
    }

    #[test]
    fn supplied_fields_change_and_others_stay() {
        let mut p = TokenParams::default();
        update(
            &mut p,
            json!({"token_ttl": "1h", "token_policies": " Dev ,ops,dev", "token_bound_cidrs": "127.0.0.1/32"}),
        )
        .unwrap();
        update(&mut p, json!({"token_type": "batch", "token_max_ttl": 7200})).unwrap();
        assert_eq!((p.ttl, p.max_ttl, p.token_type), (3600, 7200, TokenType::Batch));
        assert_eq!(p.policies, ["dev", "ops"]);
        assert_eq!(p.bound_cidrs, ["127.0.0.1"]);
    }

    #[test]
    fn older_names_are_echoed_only_if_last_used() {
        let mut p = TokenParams::default();
        update(&mut p, json!({"policies": "a", "ttl": 5})).unwrap();
        let v = shown(&p);
        assert_eq!((&v["policies"], &v["ttl"], &v["token_policies"]), (&json!(["a"]), &json!(5), &json!(["a"])));
        update(&mut p, json!({"token_policies": "b", "policies": "c"})).unwrap();
        let v = shown(&p);
        assert_eq!(v["token_policies"], json!(["b"]));
        assert!(v.get("policies").is_none() && v["ttl"] == 5);
    }

    #[test]
    fn refusals_change_nothing() {
        let mut p = TokenParams::default();
        for (bad, text) in [
            (json!({"token_ttl": 10, "token_max_ttl": 5}), "'token_ttl' cannot be greater than 'token_max_ttl'"),
            (json!({"token_num_uses": -1}), "'token_num_uses' cannot be negative"),
            (json!({"token_type": "root"}), "invalid 'token_type' value \"root\""),
            (
                json!({"token_type": "batch", "token_period": 5}),
                "'token_type' cannot be 'batch' or 'default_batch' when set to generate periodic tokens",
            ),
            (
                json!({"token_type": "default-batch", "token_num_uses": 5}),
                "'token_type' cannot be 'batch' or 'default_batch' when set to generate tokens with limited use count",
            ),
        ] {
            let e = update(&mut p, bad).unwrap_err();
            assert_eq!(e.errors[0], text);
        }
        assert!(update(&mut p, json!({"token_bound_cidrs": "10.0.0.0/40"})).is_err());
        assert!(
            update(&mut p, json!({"token_period": -1})).unwrap_err().errors[0]
                .ends_with("cannot provide negative value '-1'")
        );
        assert_eq!(p, TokenParams::default());
    }

    #[test]
    fn a_login_may_be_bound_to_its_address() {
        let mut p = TokenParams::default();
        update(&mut p, json!({"token_bound_cidrs": "10.0.0.0/8", "token_strictly_bind_ip": true})).unwrap();
        assert_eq!(p.auth("10.1.2.3".parse().ok()).bound_cidrs, ["10.1.2.3"]);
        p.strictly_bind_ip = false;
        assert_eq!(p.auth("10.1.2.3".parse().ok()).bound_cidrs, ["10.0.0.0/8"]);
    }
}
