//! The policy floor: what a decision costs as rules grow, and what compiling and parsing cost. Decisions have to stay far
//! below the cost of opening a batch token, which is about a microsecond.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringfence_base::Wall;
use ringfence_policy::{Acl, AclRequest, Operation, Policy, builtin, hcl};
use serde_json::json;

/// Teams with an exact rule, a prefix and a pattern each, as policy texts of large installations look.
fn text(rules: usize) -> String {
    let mut out = String::new();
    for i in 0..rules {
        let path = match i % 10 {
            0..4 => format!("secret/data/team-{}/app-{i}/config", i % 97),
            4..9 => format!("secret/data/team-{}/app-{i}/*", i % 97),
            _ => format!("secret/+/team-{}/app-{i}/+", i % 97),
        };
        out.push_str(&format!(
            "path \"{path}\" {{\n  capabilities = [\"create\", \"read\", \"update\", \"list\"]\n}}\n"
        ));
    }
    out
}

fn decisions(c: &mut Criterion) {
    let mut group = c.benchmark_group("acl/allow");
    for rules in [10usize, 1_000, 10_000] {
        let default = Policy::parse("default", builtin::DEFAULT_TEXT).expect("parses");
        let policy = Policy::parse("p", &text(rules)).expect("parses");
        let acl = Acl::compile([("", &default), ("", &policy)], None, Wall(0));
        // one of each kind near the end of the rules
        let last = |kind: usize| (0..rules).rev().find(|i| i % 10 == kind).expect("ten rules have every kind");
        let app = |kind: usize, tail: &str| {
            let i = last(kind);
            format!("secret/data/team-{}/app-{i}/{tail}", i % 97)
        };
        let cases = [
            ("exact", Operation::Read, app(0, "config"), true),
            ("prefix", Operation::Update, app(4, "db/creds"), true),
            ("pattern", Operation::Read, app(9, "x"), true),
            ("list", Operation::List, app(4, "db/"), true),
            ("nothing", Operation::Read, "database/creds/readonly".to_owned(), false),
        ];
        for (name, op, path, expected) in cases {
            let request = AclRequest { path: &path, op, parameters: None, wrap_ttl_seconds: None };
            assert_eq!(acl.allow(&request).allowed, expected, "{name} {path}");
            group
                .bench_function(BenchmarkId::new(name, rules), |b| b.iter(|| acl.allow(black_box(&request)).allowed));
        }
    }
    group.finish();
}

fn parameters(c: &mut Criterion) {
    let text = r#"path "auth/token/create" {
        capabilities = ["update"]
        allowed_parameters = { "ttl" = ["1h", "2h"], "policies" = [], "display_name" = ["ci-*"] }
        denied_parameters = { "no_parent" = [] }
        required_parameters = ["ttl"]
    }"#;
    let policy = Policy::parse("p", text).expect("parses");
    let acl = Acl::compile([("", &policy)], None, Wall(0));
    let body = json!({"ttl": "1h", "policies": ["a", "b"], "display_name": "ci-7"});
    let request = AclRequest {
        path: "auth/token/create",
        op: Operation::Update,
        parameters: body.as_object(),
        wrap_ttl_seconds: None,
    };
    assert!(acl.allow(&request).allowed);
    c.bench_function("acl/allow/parameters", |b| b.iter(|| acl.allow(black_box(&request)).allowed));
}

fn compile(c: &mut Criterion) {
    let mut group = c.benchmark_group("acl/compile");
    for rules in [10usize, 1_000, 10_000] {
        let policy = Policy::parse("p", &text(rules)).expect("parses");
        group.throughput(Throughput::Elements(rules as u64));
        group.bench_function(BenchmarkId::from_parameter(rules), |b| {
            b.iter(|| Acl::compile([("", black_box(&policy))], None, Wall(0)).rule_set_count());
        });
    }
    group.finish();
}

fn parsing(c: &mut Criterion) {
    let text = text(1_000);
    let mut group = c.benchmark_group("policy/parse");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("hcl", |b| b.iter(|| hcl::parse(black_box(&text)).map(|body| body.items.len())));
    group.bench_function("rules", |b| b.iter(|| Policy::parse("p", black_box(&text)).map(|p| p.rule_count())));
    group.finish();
}

criterion_group!(benches, decisions, parameters, compile, parsing);
criterion_main!(benches);
