//! What a set of policies grants to one identity: compiled once, asked once a request.
//!
//! ```text
//!   exact path            ── one walk down the radix tree ──┐
//!   longest prefix `a/b*` ── the same walk ─────────────────┼─> ONE rule set ──> capability ─> wrapping ─> parameters
//!   patterns `a/+/b`      ── search by rank in segments ────┘
//! ```
//!
//! Only the most specific rule set speaks; a broader one never adds to it. Rules of several policies on the same path
//! are one set: capabilities add up and a denial wins. Paths are full: the namespace's path is part of them, on both
//! sides. A decision allocates nothing unless a parameter's name has capitals.
//!
//! The pipeline drives it. It never resolves an existence check (the operation says create or update), never decides
//! whether a path needs `sudo` (it says whether the rule has it), and never caches.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringfence_base::Wall;
use ringfence_base::duration::SECOND_NS;
use ringfence_base::limit::MAX_PATH_BYTES;
use serde_json::{Map, Value as Json, json};

use crate::op::Operation;
use crate::parameter::permits;
use crate::policy::{Capabilities, ControlGroup, Permissions, Policy, Rule, merge_values};
use crate::radix::{self, NONE, Radix};
use crate::segment::{Best, Pattern, Segment, SegmentTree};
use crate::template::TemplateSource;

/// The compiled policies of one identity.
#[derive(Debug)]
pub struct Acl {
    root: bool,
    reads_parameters: bool,
    sets: Vec<RuleSet>,
    radix: Radix,
    segments: SegmentTree,
    /// Invariant: every grant of a set indexes it. A root ACL has exactly the root policy here.
    sources: Vec<GrantingPolicy>,
    valid_until: Option<Wall>,
}

/// A policy that took part, as audit entries name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantingPolicy {
    /// The policy's name.
    pub name: Arc<str>,
    /// Its namespace's path, empty for root.
    pub namespace: Arc<str>,
}

/// The rules of all policies on one path.
#[derive(Debug)]
struct RuleSet {
    /// As the API shows it: a prefix without its `*`, a pattern as it was written; the namespace included.
    pattern: Box<str>,
    kind: Kind,
    /// Zero for exact rules, which have no rivals; otherwise higher is more specific and no two are equal.
    rank: u32,
    /// Shared with the policy as long as only one has spoken.
    permissions: Arc<Permissions>,
    grants: Vec<(u32, Capabilities)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Exact,
    Prefix,
    Segments,
}

/// A request, as far as policies look at it.
#[derive(Clone, Copy, Debug)]
pub struct AclRequest<'a> {
    /// Full canonical path, the namespace included, without leading slash.
    pub path: &'a str,
    /// What it wants.
    pub op: Operation,
    /// The body's (or query's) parameters.
    pub parameters: Option<&'a Map<String, Json>>,
    /// The wrapping time asked for.
    pub wrap_ttl_seconds: Option<u64>,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug)]
pub struct AclDecision<'a> {
    /// The operation is granted and its parameters and wrapping time are acceptable.
    pub allowed: bool,
    /// The rule has `sudo`; it must, too, on root-protected paths.
    pub sudo: bool,
    /// The root policy decided.
    pub root: bool,
    acl: &'a Acl,
    set: Option<&'a RuleSet>,
    needed: Option<Capabilities>,
}

/// What `sys/internal/ui/resultant-acl` answers with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResultantAcl {
    /// The root policy: the maps are empty and mean everything.
    pub root: bool,
    /// By path.
    pub exact_paths: Map<String, Json>,
    /// By prefix, without its `*`; patterns with `+` as written.
    pub glob_paths: Map<String, Json>,
}

impl Acl {
    /// The root policy: everything.
    pub fn root() -> Acl {
        let mut acl = Acl::compile(std::iter::empty(), None, Wall::default());
        acl.root = true;
        acl.sources.push(GrantingPolicy { name: "root".into(), namespace: "".into() });
        acl
    }

    /// Compiles policies, each with the path of its namespace (`""`, `"ns1/"`). Without a template source, templated
    /// paths are left out. Rules that expired by `now` are left out. A policy named `root` has no special meaning here.
    pub fn compile<'p>(
        policies: impl IntoIterator<Item = (&'p str, &'p Policy)>,
        template: Option<&dyn TemplateSource>,
        now: Wall,
    ) -> Acl {
        let mut compiler =
            Compiler { now, valid_until: None, sources: Vec::new(), plain: Vec::new(), segmented: Vec::new() };
        for (namespace, policy) in policies {
            compiler.add_policy(namespace, policy, template);
        }
        compiler.finish()
    }

    /// When the first of its rules expires: the ACL must be compiled again by then.
    pub fn valid_until(&self) -> Option<Wall> {
        self.valid_until
    }

    /// True for the root policy.
    pub fn is_root(&self) -> bool {
        self.root
    }

    /// Whether any rule asks what parameters a request has. If none does, a request may be shown without them.
    pub fn reads_parameters(&self) -> bool {
        self.reads_parameters
    }

    /// Decides a request.
    pub fn allow(&self, request: &AclRequest<'_>) -> AclDecision<'_> {
        let mut decision = AclDecision {
            allowed: false,
            sudo: false,
            root: self.root,
            acl: self,
            set: None,
            needed: request.op.capability(),
        };
        if self.root {
            decision.allowed = true;
            decision.sudo = true;
            return decision;
        }
        if request.op == Operation::Help {
            decision.allowed = true;
            return decision;
        }
        let (Some(set), Some(needed)) = (self.select(request.path, request.op), decision.needed) else {
            return decision;
        };
        let p = &*set.permissions;
        decision.set = Some(set);
        decision.sudo = p.capabilities.contains(Capabilities::SUDO);
        decision.allowed = p.capabilities.contains(needed)
            && wrapping_is_within(p, request.wrap_ttl_seconds)
            && (!sees_parameters(request.op) || permits(p, request.parameters));
        decision
    }

    /// Names in alphabetical order; `["root"]` for the root policy, `["deny"]` where nothing is granted.
    pub fn capabilities(&self, path: &str) -> Vec<&'static str> {
        if self.root {
            return vec!["root"];
        }
        shown(self.capability_set(path))
    }

    /// True if some operation on the path is granted.
    pub fn any_capability(&self, path: &str) -> bool {
        self.root || self.capability_set(path).grants_something()
    }

    /// True if something at or below a mount's full path (which ends in a slash) is granted. A deeper denial does not
    /// count against it: it is asked to decide whether the mount is shown.
    pub fn has_access_below(&self, mount_path: &str) -> bool {
        let grants = |rule: u32| self.sets[rule as usize].permissions.capabilities.grants_something();
        // the prefix that governs what lies below, even if the mount's own path has a rule that denies
        let prefix = self.radix.find(mount_path.as_bytes()).prefix;
        self.any_capability(mount_path)
            || (prefix != NONE && grants(prefix))
            || self.radix.any_below(mount_path.as_bytes(), grants)
            || self.segments.any_below(mount_path, grants)
    }

    /// Every rule set, for the user interface.
    pub fn resultant(&self) -> ResultantAcl {
        let mut out = ResultantAcl { root: self.root, ..ResultantAcl::default() };
        for set in &self.sets {
            let paths = if set.kind == Kind::Exact { &mut out.exact_paths } else { &mut out.glob_paths };
            paths.insert(set.pattern.to_string(), describe(&set.permissions));
        }
        out
    }

    /// How many distinct paths have rules.
    pub fn rule_set_count(&self) -> usize {
        self.sets.len()
    }

    /// As a listing sees the path: that is the more forgiving way, and what clients ask for.
    fn capability_set(&self, path: &str) -> Capabilities {
        self.select(path, Operation::List).map_or(Capabilities::NONE, |s| s.permissions.capabilities)
    }

    /// The one rule set that speaks for a path.
    ///
    /// A listing of `a/` is also governed by a rule for `a`, but only where no rule matches `a/` itself: the other
    /// order let a broad rule that matched `a` win over a denial on `a/*` (GHSA-xp3c).
    fn select(&self, path: &str, op: Operation) -> Option<&RuleSet> {
        let path = path.trim_start_matches('/');
        if path.len() > MAX_PATH_BYTES {
            return None;
        }
        let found = self.radix.find(path.as_bytes());
        if found.exact != NONE {
            return self.set(found.exact);
        }
        let trimmed = path.strip_suffix('/').filter(|_| matches!(op, Operation::List | Operation::Scan));
        let found_trimmed = trimmed.map(|t| self.radix.find(t.as_bytes()));
        if let Some(f) = found_trimmed.filter(|f| f.exact != NONE) {
            return self.set(f.exact);
        }
        let chosen = self.best_of(path, found.prefix);
        if chosen.is_some() || op != Operation::List {
            return chosen;
        }
        self.best_of(trimmed?, found_trimmed?.prefix)
    }

    fn best_of(&self, path: &str, prefix: u32) -> Option<&RuleSet> {
        let best = match self.set(prefix) {
            Some(set) => Best { rank: set.rank, rule: prefix },
            None => Best::NOTHING,
        };
        self.set(self.segments.find(path, best).rule)
    }

    fn set(&self, rule: u32) -> Option<&RuleSet> {
        self.sets.get(rule as usize)
    }
}

impl<'a> AclDecision<'a> {
    /// The policies that grant the operation; empty if none does. They stay listed when parameters or wrapping time
    /// were refused.
    pub fn granting_policies(&self) -> impl Iterator<Item = &'a GrantingPolicy> + use<'a> {
        let (acl, needed) = (self.acl, self.needed.unwrap_or(Capabilities::NONE));
        let root = acl.sources.iter().take(if acl.root { 1 } else { 0 });
        let grants = self.set.map_or(&[][..], |s| &s.grants);
        let of_set = grants.iter().filter(move |(_, c)| c.contains(needed)).map(|(i, _)| &acl.sources[*i as usize]);
        root.chain(of_set)
    }

    /// The control group to satisfy before the operation runs.
    pub fn control_group(&self) -> Option<&'a ControlGroup> {
        let group = self.set?.permissions.control_group.as_ref()?;
        group.factors_for(self.needed?).next().map(|_| group)
    }

    /// MFA methods that must pass.
    pub fn mfa_methods(&self) -> &'a [String] {
        self.set.map_or(&[], |s| &s.permissions.mfa_methods)
    }

    /// Everything the rule says, if one matched.
    pub fn permissions(&self) -> Option<&'a Permissions> {
        self.set.map(|s| &*s.permissions)
    }
}

fn sees_parameters(op: Operation) -> bool {
    matches!(op, Operation::Create | Operation::Update | Operation::Patch | Operation::Read | Operation::Header)
}

/// A limit on either side makes wrapping mandatory. Merged limits may contradict each other; then nothing passes.
fn wrapping_is_within(p: &Permissions, asked_seconds: Option<u64>) -> bool {
    let (min, max) = (p.min_wrapping_ttl_ns, p.max_wrapping_ttl_ns);
    if min == 0 && max == 0 {
        return true;
    }
    let Some(asked) = asked_seconds.map(|s| s.saturating_mul(SECOND_NS)) else { return false };
    asked >= min && (max == 0 || asked <= max)
}

fn shown(c: Capabilities) -> Vec<&'static str> {
    if c.grants_something() { c.names().collect() } else { vec!["deny"] }
}

fn describe(p: &Permissions) -> Json {
    let mut out = Map::new();
    out.insert("capabilities".into(), json!(shown(p.capabilities)));
    let mut put = |key: &str, present: bool, value: Json| {
        if present {
            out.insert(key.into(), value);
        }
    };
    put("min_wrapping_ttl", p.min_wrapping_ttl_ns != 0, json!(p.min_wrapping_ttl_seconds()));
    put("max_wrapping_ttl", p.max_wrapping_ttl_ns != 0, json!(p.max_wrapping_ttl_seconds()));
    put("allowed_parameters", !p.allowed_parameters.is_empty(), json!(p.allowed_parameters));
    put("denied_parameters", !p.denied_parameters.is_empty(), json!(p.denied_parameters));
    put("required_parameters", !p.required_parameters.is_empty(), json!(p.required_parameters));
    Json::Object(out)
}

/// A rule on its way to a set.
struct Pending<'p> {
    /// Full path; without the `*` if it is a prefix.
    path: String,
    kind: Kind,
    /// Length of the namespace's part of the path, where nothing is a wildcard.
    literal: usize,
    source: u32,
    permissions: &'p Arc<Permissions>,
}

struct Compiler<'p> {
    now: Wall,
    valid_until: Option<Wall>,
    sources: Vec<GrantingPolicy>,
    plain: Vec<Pending<'p>>,
    segmented: Vec<Pending<'p>>,
}

impl<'p> Compiler<'p> {
    fn add_policy(&mut self, namespace: &str, policy: &'p Policy, template: Option<&dyn TemplateSource>) {
        let source = self.sources.len() as u32;
        self.sources.push(GrantingPolicy { name: policy.name().clone(), namespace: namespace.into() });
        for rule in &policy.rules {
            if let Some(at) = rule.expiration {
                if at <= self.now {
                    continue;
                }
                self.valid_until = Some(self.valid_until.map_or(at, |v| v.min(at)));
            }
            self.add_rule(namespace, source, rule, template);
        }
    }

    fn add_rule(&mut self, namespace: &str, source: u32, rule: &'p Rule, template: Option<&dyn TemplateSource>) {
        let mut path = namespace.to_owned();
        match (&rule.template, template) {
            (None, _) => path.push_str(&rule.path),
            (Some(t), Some(identity)) => match t.fill(namespace, identity) {
                Some(filled) => path.push_str(filled.trim_start_matches('/')),
                None => return,
            },
            (Some(_), None) => return,
        }
        // no request's path is that long, and the depth of the trees is bounded by it
        if path.len() > MAX_PATH_BYTES {
            return;
        }
        let own = &path[namespace.len()..];
        let kind = if own.split('/').any(|s| s == "+") {
            Kind::Segments
        } else if own.ends_with('*') {
            Kind::Prefix
        } else {
            Kind::Exact
        };
        if kind == Kind::Prefix {
            path.pop();
        }
        let pending = Pending { path, kind, literal: namespace.len(), source, permissions: &rule.permissions };
        if kind == Kind::Segments { self.segmented.push(pending) } else { self.plain.push(pending) }
    }

    fn finish(mut self) -> Acl {
        // sorting is stable: rules of one path keep the order of their policies
        self.plain.sort_by(|a, b| a.path.cmp(&b.path).then(a.kind.cmp(&b.kind)));
        self.segmented.sort_by(|a, b| a.segments().cmp(b.segments()));
        let mut sets: Vec<RuleSet> = Vec::with_capacity(self.plain.len() + self.segmented.len());
        // specificity and set of every rule that has rivals
        let mut rivals: Vec<(Specificity<'_>, u32)> = Vec::new();
        for same in self.plain.chunk_by(|a, b| a.kind == b.kind && a.path == b.path) {
            if same[0].kind == Kind::Prefix {
                rivals.push((same[0].specificity(), sets.len() as u32));
            }
            sets.push(merge(same));
        }
        let first_segmented = sets.len();
        let mut patterns = Vec::new();
        for same in self.segmented.chunk_by(|a, b| a.segments().eq(b.segments())) {
            rivals.push((same[0].specificity(), sets.len() as u32));
            patterns.push(same[0].pattern());
            sets.push(merge(same));
        }
        rivals.sort_unstable();
        for (rank, (_, set)) in rivals.iter().enumerate() {
            sets[*set as usize].rank = rank as u32 + 1;
        }
        let radix = Radix::build(&radix_entries(&sets[..first_segmented]));
        let mut segments = SegmentTree::new();
        for (i, pattern) in patterns.iter().enumerate() {
            let set = first_segmented + i;
            segments.insert(pattern, sets[set].rank, set as u32);
        }
        let reads_parameters = sets.iter().any(|s| {
            let p = &s.permissions;
            !p.required_parameters.is_empty() || !p.denied_parameters.is_empty() || !p.allowed_parameters.is_empty()
        });
        Acl {
            root: false,
            reads_parameters,
            sets,
            radix,
            segments,
            sources: self.sources,
            valid_until: self.valid_until,
        }
    }
}

/// What makes one matching rule win over another, least specific first: a wildcard that comes early, an open end, many
/// wildcards, a short path; the text last, only so that the order is total.
type Specificity<'a> = (usize, bool, std::cmp::Reverse<usize>, usize, &'a str);

impl Pending<'_> {
    /// Equal segments are equal patterns. Namespace segments are literal even if a namespace should be named `+`.
    fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let (namespace, own) = self.path.split_at(self.literal);
        let literal = namespace.strip_suffix('/').into_iter().flat_map(|n| n.split('/')).map(Segment::Literal);
        literal.chain(own.split('/').map(|s| if s == "+" { Segment::Any } else { Segment::Literal(s) }))
    }

    fn pattern(&self) -> Pattern<'_> {
        let mut segments: Vec<Segment<'_>> = self.segments().collect();
        let glob = match segments.last() {
            Some(Segment::Literal(last)) => last.strip_suffix('*'),
            _ => None,
        };
        if glob.is_some() {
            segments.pop();
        }
        Pattern { segments, glob }
    }

    /// Invariant: never asked of an exact rule.
    fn specificity(&self) -> Specificity<'_> {
        if self.kind == Kind::Prefix {
            let at = self.path.len();
            return (at, false, std::cmp::Reverse(0), at, &self.path);
        }
        let text = self.path.strip_suffix('*').unwrap_or(&self.path);
        let closed = text.len() == self.path.len();
        let mut first = None;
        let (mut at, mut wildcards) = (0, 0);
        for segment in self.segments() {
            match segment {
                Segment::Any => {
                    wildcards += 1;
                    first.get_or_insert(at);
                    at += 2;
                }
                Segment::Literal(s) => at += s.len() + 1,
            }
        }
        (first.unwrap_or(at), closed, std::cmp::Reverse(wildcards), text.len(), text)
    }
}

fn radix_entries(sets: &[RuleSet]) -> Vec<radix::Entry<'_>> {
    let mut out: Vec<radix::Entry<'_>> = Vec::with_capacity(sets.len());
    for (i, set) in sets.iter().enumerate() {
        let path = set.pattern.as_bytes();
        if out.last().is_none_or(|e| e.path != path) {
            out.push(radix::Entry { path, exact: NONE, prefix: NONE });
        }
        let entry = out.last_mut().expect("just pushed");
        if set.kind == Kind::Exact { entry.exact = i as u32 } else { entry.prefix = i as u32 }
    }
    out
}

/// The rules of one path as one set.
fn merge(same: &[Pending<'_>]) -> RuleSet {
    let first = &same[0];
    let mut set = RuleSet {
        pattern: first.path.as_str().into(),
        kind: first.kind,
        rank: 0,
        permissions: first.permissions.clone(),
        grants: vec![(first.source, first.permissions.capabilities)],
    };
    for next in &same[1..] {
        if set.permissions.capabilities.contains(Capabilities::DENY) {
            break;
        }
        if next.permissions.capabilities.contains(Capabilities::DENY) {
            set.permissions = next.permissions.clone();
            set.grants = vec![(next.source, Capabilities::DENY)];
            break;
        }
        set.grants.push((next.source, next.permissions.capabilities));
        if *set.permissions != **next.permissions {
            add(Arc::make_mut(&mut set.permissions), next.permissions);
        }
    }
    set
}

/// Adds a second rule on the same path. Where limits meet, the smaller one holds.
fn add(into: &mut Permissions, next: &Permissions) {
    into.capabilities = into.capabilities.union(next.capabilities);
    into.min_wrapping_ttl_ns = smaller(into.min_wrapping_ttl_ns, next.min_wrapping_ttl_ns);
    into.max_wrapping_ttl_ns = smaller(into.max_wrapping_ttl_ns, next.max_wrapping_ttl_ns);
    into.pagination_limit = smaller(into.pagination_limit, next.pagination_limit);
    add_parameters(&mut into.allowed_parameters, &next.allowed_parameters);
    add_parameters(&mut into.denied_parameters, &next.denied_parameters);
    add_names(&mut into.required_parameters, &next.required_parameters);
    add_names(&mut into.mfa_methods, &next.mfa_methods);
    add_names(&mut into.subscribe_event_types, &next.subscribe_event_types);
    if into.list_scan_response_keys_filter_path.is_none() {
        into.list_scan_response_keys_filter_path.clone_from(&next.list_scan_response_keys_filter_path);
    }
    match (&mut into.control_group, &next.control_group) {
        (Some(group), Some(other)) => {
            group.ttl_ns = smaller(group.ttl_ns, other.ttl_ns);
            if other.self_auth_allowed == Some(false) {
                group.self_auth_allowed = Some(false);
            }
            group.factors.extend(other.factors.iter().cloned());
        }
        (none @ None, other) => none.clone_from(other),
        (Some(_), None) => {}
    }
}

/// Zero is no limit.
fn smaller(a: u64, b: u64) -> u64 {
    match (a, b) {
        (0, x) | (x, 0) => x,
        (a, b) => a.min(b),
    }
}

fn add_parameters(into: &mut BTreeMap<String, Vec<Json>>, next: &BTreeMap<String, Vec<Json>>) {
    for (name, values) in next {
        merge_values(into, name, values);
    }
}

fn add_names(into: &mut Vec<String>, next: &[String]) {
    for name in next {
        if !into.contains(name) {
            into.push(name.clone());
        }
    }
}
