//! `auth/token/create`, `create-orphan` and `create/:role_name`. Order of checks and texts: API reference, "create
//! body", rules 1 to 7.

use super::check::Holder;
use super::entry::{TokenEntry, TokenKind};
use super::roles::{self, Role};
use super::{login, mint, sanitize, ttl};
use crate::host::host;
use crate::identity::{self, Identity};
use crate::policies;
use ringfence_base::NsId;
use ringfence_logical::{Alias, Args, Cx, Error, Outcome, Response, TokenType};

/// Policies that only the machine assigns.
const NOT_ASSIGNABLE: [&str; 2] = ["response-wrapping", "control-group"];

/// `create`.
pub fn create(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Creation::run(cx, args, None, args.bool("no_parent"))
}

/// `create-orphan`: the path itself is the permission.
pub fn create_orphan(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Creation::run(cx, args, None, true)
}

/// `create/:role_name`.
pub fn create_with_role(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("role_name");
    match roles::load(cx.txn, cx.mount.ns, name)? {
        Some(role) => Creation::run(cx, args, Some((name, &role)), args.bool("no_parent")),
        None => Err(Error::invalid(format!("unknown role {name}"))),
    }
}

/// One creation, its decisions in the order in which they are made.
struct Creation<'r> {
    parent: Holder,
    role: Option<(&'r str, &'r Role)>,
    sudo: bool,
    entry: TokenEntry,
    warnings: Vec<String>,
}

impl<'r> Creation<'r> {
    fn run(cx: &mut Cx<'_, '_>, args: &Args, role: Option<(&'r str, &'r Role)>, orphan: bool) -> Outcome {
        let parent = super::caller(cx)?;
        if parent.is_batch() {
            return Err(Error::invalid("batch tokens cannot create more tokens"));
        }
        if parent.entry.num_uses != 0 {
            return Err(Error::invalid("restricted use token cannot generate child tokens"));
        }
        let sudo = cx.principal.is_some_and(|p| p.sudo);
        if parent.entry.ns != cx.mount.ns && !sudo {
            return Err(Error::invalid("root or sudo privileges required generate a namespace token"));
        }
        let entry = TokenEntry {
            ns: cx.mount.ns,
            mount: cx.mount.id,
            path: token_path(cx, role),
            meta: args.opt_pairs("meta").filter(|m| !m.is_empty()),
            display_name: display_name(args.str("display_name")),
            created: cx.now,
            role: role.map_or_else(String::new, |(name, _)| name.to_owned()),
            no_default_policy: args.bool("no_default_policy"),
            ..TokenEntry::default()
        };
        let mut it = Creation { parent, role, sudo, entry, warnings: Vec::new() };
        let id = it.custom_id(cx, args)?;
        let batch = it.kind(args)?;
        it.uses(args)?;
        it.policies(cx, args, batch)?;
        it.lineage(cx, args, orphan)?;
        it.life(cx, args, batch)?;
        it.finish(cx, batch, id)
    }

    fn custom_id(&mut self, cx: &Cx<'_, '_>, args: &Args) -> Result<Option<String>, Error> {
        let id = args.str("id");
        if id.is_empty() {
            return Ok(None);
        }
        if !self.sudo {
            return Err(Error::invalid("root or sudo privileges required to specify token id"));
        }
        if cx.mount.ns != NsId::ROOT {
            return Err(Error::invalid("token IDs can only be manually specified in the root namespace"));
        }
        if id.starts_with("s.") || id.starts_with(super::SERVICE_PREFIX) {
            return Err(Error::invalid("custom token ID cannot have the 's.' prefix"));
        }
        if id.starts_with("b.") || id.starts_with(super::BATCH_PREFIX) {
            return Err(Error::invalid("custom token ID cannot have the 'b.' prefix"));
        }
        if id.contains('.') {
            return Err(Error::invalid("custom token ID cannot contain the '.' character"));
        }
        if !id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid("custom token ID must consist of printable characters"));
        }
        self.warnings.push(
            "Supplying a custom ID for the token uses the weaker SHA1 hashing instead of the more secure SHA2-256 \
             HMAC for token obfuscation. SHA1 hashed tokens on the wire leads to less secure lookups."
                .into(),
        );
        Ok(Some(id.to_owned()))
    }

    /// Service or batch; what a batch token cannot have.
    fn kind(&mut self, args: &Args) -> Result<bool, Error> {
        let asked = match args.str("type") {
            "" => None,
            "service" => Some(false),
            "batch" => Some(true),
            _ => return Err(Error::invalid("invalid 'token_type' value")),
        };
        let batch = match self.role.map_or(TokenType::DefaultService, |(_, r)| r.token_type) {
            TokenType::Service => false,
            TokenType::Batch => true,
            TokenType::DefaultBatch => asked.unwrap_or(true),
            TokenType::Default | TokenType::DefaultService => asked.unwrap_or(false),
        };
        if batch {
            let bad = [
                ("explicit_max_ttl", args.seconds("explicit_max_ttl") > 0),
                ("num_uses", args.int("num_uses") != 0),
                ("period", args.seconds("period") > 0),
            ];
            if let Some((name, _)) = bad.iter().find(|(_, set)| *set) {
                return Err(Error::invalid(format!("batch tokens cannot have {name:?} set")));
            }
            self.entry.kind = TokenKind::Batch;
        }
        Ok(batch)
    }

    fn uses(&mut self, args: &Args) -> Result<(), Error> {
        let asked = args.int("num_uses");
        if asked < 0 {
            return Err(Error::invalid("number of uses cannot be negative"));
        }
        let by_role = self.role.map_or(0, |(_, r)| i64::try_from(r.num_uses).unwrap_or(i64::MAX));
        // the lesser of the two that are given
        self.entry.num_uses = match (asked, by_role) {
            (0, n) | (n, 0) => n,
            (a, b) => a.min(b),
        };
        Ok(())
    }

    fn policies(&mut self, cx: &mut Cx<'_, '_>, args: &Args, batch: bool) -> Result<(), Error> {
        let asked = args.list("policies");
        let own = self.parent.entry.policies.clone();
        let no_default = self.entry.no_default_policy;
        let with_default = |list: &[String], add: bool| {
            let mut all = list.to_vec();
            if add {
                all.push("default".into());
            }
            sanitize(&all)
        };
        let chosen = match self.role {
            Some((_, role)) if role.rules_policies() => by_role(role, &asked, &own, no_default)?,
            // inherited exactly, without adding default
            _ if asked.is_empty() => own.clone(),
            _ if !self.sudo => {
                let add = !no_default && own.iter().any(|p| p == "default");
                let wanted = with_default(&asked, add);
                if !own.iter().any(|p| p == "root") && wanted.iter().any(|p| !own.contains(p)) {
                    return Err(Error::invalid("child policies must be subset of parent"));
                }
                wanted
            }
            _ => with_default(&asked, !no_default),
        };
        if let Some(bad) = chosen.iter().find(|p| NOT_ASSIGNABLE.contains(&p.as_str())) {
            return Err(Error::invalid(format!("cannot assign policy {bad:?}")));
        }
        self.entry.policies = chosen;
        if self.entry.is_root() {
            if !self.parent.entry.is_root() {
                return Err(Error::invalid("root tokens may not be created without parent token being root"));
            }
            if cx.mount.ns != NsId::ROOT {
                return Err(Error::invalid("root tokens may not be created from a non-root namespace"));
            }
            if batch {
                return Err(Error::invalid("batch tokens cannot be root tokens"));
            }
        }
        for name in &self.entry.policies {
            if name != "root" && policies::text(cx.txn, cx.mount.ns, name)?.is_none() {
                self.warnings.push(format!("Policy {name:?} does not exist"));
            }
        }
        Ok(())
    }

    /// Parent, entity, address ranges.
    fn lineage(&mut self, cx: &mut Cx<'_, '_>, args: &Args, orphan: bool) -> Result<(), Error> {
        if args.bool("no_parent") && !self.sudo {
            return Err(Error::invalid("root or sudo privileges required to create orphan token"));
        }
        let orphan = orphan || self.role.is_some_and(|(_, r)| r.orphan);
        if !orphan {
            self.entry.parent = Some(self.parent.hash);
            self.entry.depth = self.parent.entry.depth + 1;
            // an entity is of its namespace: what it is granted there is granted to nobody elsewhere
            if self.parent.entry.ns == cx.mount.ns {
                self.entry.entity_id = self.parent.entry.entity_id.clone();
            }
        }
        let alias = args.str("entity_alias").to_lowercase();
        if !alias.is_empty() {
            let Some((_, role)) = self.role else {
                return Err(Error::invalid("'entity_alias' is only allowed in combination with token role"));
            };
            if !role.allowed_entity_aliases.iter().any(|g| roles::glob(g, &alias)) {
                return Err(Error::invalid("invalid 'entity_alias' value"));
            }
            let alias = Alias { name: alias, ..Alias::default() };
            let keyring = &host(cx).keyring;
            let (entity, _) = identity::of_login(cx.txn, keyring, cx.rng, cx.now, cx.mount.ns, cx.mount.id, &alias)?;
            self.entry.entity_id = entity.id;
        }
        self.entry.bound_cidrs = match self.role {
            Some((_, role)) => role.bound_cidrs.clone(),
            None => self.parent.entry.bound_cidrs.clone(),
        };
        Ok(())
    }

    fn life(&mut self, cx: &Cx<'_, '_>, args: &Args, batch: bool) -> Result<(), Error> {
        let period = args.seconds("period");
        if period > 0 && self.role.is_none() && !self.sudo {
            return Err(Error::invalid("root or sudo privileges required to create periodic token"));
        }
        let role = self.role.map(|(_, r)| r);
        let lesser = |asked: u64, by_role: u64, warn: &str, warnings: &mut Vec<String>| match (asked, by_role) {
            (0, n) | (n, 0) => n,
            (a, b) => {
                warnings.push(format!(
                    "{warn} specified both during creation call and in role; using the lesser value of {} seconds",
                    a.min(b)
                ));
                a.min(b)
            }
        };
        let entry = &mut self.entry;
        entry.explicit_max_ttl = lesser(
            args.seconds("explicit_max_ttl"),
            role.map_or(0, |r| r.explicit_max_ttl),
            "Explicit max TTL",
            &mut self.warnings,
        );
        entry.period = lesser(period, role.map_or(0, |r| r.period), "Period", &mut self.warnings);
        entry.renewable = !batch && role.is_none_or(|r| r.renewable) && args.bool("renewable");
        let asked = args.opt_seconds("ttl").filter(|t| *t > 0).unwrap_or_else(|| args.seconds("lease"));
        let mut life = asked;
        if entry.period > 0 || asked > 0 || !entry.is_root() {
            let ask = ttl::Ask {
                increment: 0,
                ttl: asked,
                period: entry.period,
                max_ttl: 0,
                explicit_max_ttl: entry.explicit_max_ttl,
                start: cx.now,
                now: cx.now,
            };
            let granted = ttl::calculate(cx.mount, &ask)?;
            self.warnings.extend(granted.warnings);
            life = granted.ttl;
        }
        if life == 0 && entry.explicit_max_ttl > 0 {
            life = entry.explicit_max_ttl;
        }
        if life == 0 {
            if self.parent.entry.due.0 != 0 {
                return Err(Error::invalid("expiring root tokens cannot create non-expiring root tokens"));
            }
            entry.renewable = false;
            entry.bound_cidrs.clear();
        } else {
            entry.due = cx.now.plus_seconds(life);
        }
        entry.creation_ttl = life;
        Ok(())
    }

    fn finish(mut self, cx: &mut Cx<'_, '_>, batch: bool, id: Option<String>) -> Outcome {
        let h = host(cx);
        let Some(identity) = Identity::of(cx.txn, self.entry.ns, &self.entry.entity_id)? else {
            return Err(Error::denied_plain());
        };
        let token = if batch {
            mint::batch(cx.txn, &h.sealer, &h.router, &mut self.entry)?
        } else {
            mint::service(cx.txn, &h.keyring, &h.router, cx.rng, &mut self.entry, id)?.0
        };
        let ttl = self.entry.creation_ttl;
        let issued = login::issued(token, &self.entry, identity.policies, ttl, cx.now);
        Response { issued: Some(issued), warnings: self.warnings, ..Response::default() }.done()
    }
}

/// What a role that speaks of policies makes of the wish.
fn by_role(role: &Role, asked: &[String], own: &[String], no_default: bool) -> Result<Vec<String>, Error> {
    let add = !no_default && !role.no_default_policy && !role.disallows("default");
    let with_default = |list: &[String]| {
        let mut all = list.to_vec();
        if add {
            all.push("default".into());
        }
        sanitize(&all)
    };
    let mut chosen = if asked.is_empty() { Vec::new() } else { with_default(asked) };
    if !role.allowed_policies.is_empty() || !role.allowed_policies_glob.is_empty() {
        let allowed = with_default(&role.allowed_policies);
        if chosen.is_empty() {
            chosen = allowed;
        } else if chosen
            .iter()
            .any(|p| !allowed.contains(p) && !role.allowed_policies_glob.iter().any(|g| roles::glob(g, p)))
        {
            return Err(Error::invalid(format!(
                "token policies ({}) must be subset of the role's allowed policies ({}) or glob policies ({})",
                go_list(&chosen),
                go_list(&allowed),
                go_list(&role.allowed_policies_glob)
            )));
        }
    } else if chosen.is_empty() {
        chosen = with_default(own);
    }
    match chosen.iter().find(|p| role.disallows(p)) {
        Some(bad) => Err(Error::invalid(format!("token policy {bad:?} is disallowed by this role"))),
        None => Ok(chosen),
    }
}

/// As Go prints a list of quoted texts: `["a" "b"]`.
fn go_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|s| format!("{s:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// `auth/token/create`, with role and the role's suffix.
fn token_path(cx: &Cx<'_, '_>, role: Option<(&str, &Role)>) -> String {
    let mut path = format!("{}{}", cx.mount.path, cx.req.path.trim_end_matches('/'));
    if let Some((_, role)) = role
        && !role.path_suffix.is_empty()
    {
        path = format!("{path}/{}", role.path_suffix);
    }
    path
}

/// `token`, or `token-<name>` with dashes for what is not a letter or digit.
fn display_name(asked: &str) -> String {
    if asked.is_empty() {
        return "token".into();
    }
    let clean: String = asked.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect();
    format!("token-{clean}").trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn l(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn display_names() {
        assert_eq!(display_name(""), "token");
        assert_eq!(display_name("my app/1"), "token-my-app-1");
    }

    #[test]
    fn a_role_that_speaks_of_policies() {
        let role = Role { allowed_policies: l(&["b"]), ..Role::default() };
        assert_eq!(by_role(&role, &[], &l(&["own"]), false), Ok(l(&["b", "default"])));
        assert_eq!(by_role(&role, &l(&["b"]), &[], true), Ok(l(&["b"])));
        let e = by_role(&role, &l(&["a"]), &[], true).unwrap_err();
        assert_eq!(
            e.text(),
            "token policies ([\"a\"]) must be subset of the role's allowed policies ([\"b\"]) or glob policies ([])"
        );
        let role = Role { disallowed_policies_glob: l(&["adm*"]), ..Role::default() };
        assert_eq!(by_role(&role, &[], &l(&["x"]), false), Ok(l(&["default", "x"])));
        assert_eq!(
            by_role(&role, &l(&["admin"]), &[], false).unwrap_err().text(),
            "token policy \"admin\" is disallowed by this role"
        );
        let role = Role { disallowed_policies: l(&["default"]), ..Role::default() };
        assert_eq!(by_role(&role, &l(&["a"]), &[], false), Ok(l(&["a"])));
    }
}
