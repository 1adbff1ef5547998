//! What the runtime costs a request: hyper answering a tiny JSON over keep-alive connections, on each executor and
//! driver of `rt` and, as the yardstick, on tokio's current_thread runtime; over HTTP/1.1 and HTTP/2, with and without
//! TLS.
//!
//! The server runs on CPU 0, the load on CPU 1, one server at a time in alternating rounds, so that drift of the
//! machine hits all alike. Printed are medians and their ratios to tokio: requests a second (more is better) and CPU
//! microseconds of the server thread a request (less is better).
//!
//! `cargo bench -p ringfence-benches --bench runtime [-- [--quick] [--rounds N] [--connections N] [--only NAME]...
//! [--protocol h1|h1-tls|h2|h2-tls]...]`; without a protocol it is HTTP/1.1 without TLS, `--protocol all` is every one.

use ringfence_benches::serving::{Protocol, Sample, Server, measure, median};
use std::collections::BTreeMap;
use std::time::Duration;

const CONNECTIONS: [usize; 3] = [4, 64, 256];

fn main() {
    let plan = Plan::from_args();
    let servers: Vec<Server> = Server::ALL.into_iter().filter(|s| plan.wants(*s) && s.works()).collect();
    println!("{} rounds of {:?}; medians; ratios to tokio", plan.rounds, plan.span);
    println!("| protocol | connections | server | requests/s | CPU us a request | requests/s ratio | CPU ratio |");
    println!("|---|---|---|---|---|---|---|");
    for protocol in plan.protocols.iter().copied() {
        for connections in plan.connections.iter().copied() {
            compare(&plan, &servers, protocol, connections);
        }
    }
}

fn compare(plan: &Plan, servers: &[Server], protocol: Protocol, connections: usize) {
    let mut samples: BTreeMap<Server, Vec<Sample>> = BTreeMap::new();
    for round in 0..plan.rounds {
        for i in 0..servers.len() {
            // rotated, so that none always follows the same one
            let server = servers[(i + round) % servers.len()];
            let sample = measure(server, protocol, connections, plan.warm_up, plan.span);
            samples.entry(server).or_default().push(sample);
        }
    }
    let tokio = samples.get(&Server::Tokio).map(|s| median(s));
    for server in servers {
        let own = median(&samples[server]);
        let (rate, cpu) =
            tokio.map_or((f64::NAN, f64::NAN), |t| (own.per_second / t.per_second, own.cpu_us / t.cpu_us));
        let (name, spoken, per_second, cpu_us) = (server.name(), protocol.name(), own.per_second, own.cpu_us);
        println!("| {spoken} | {connections} | {name} | {per_second:.0} | {cpu_us:.2} | {rate:.2} | {cpu:.2} |");
    }
}

struct Plan {
    rounds: usize,
    warm_up: Duration,
    span: Duration,
    only: Vec<String>,
    connections: Vec<usize>,
    protocols: Vec<Protocol>,
}

impl Plan {
    fn from_args() -> Plan {
        let args: Vec<String> = std::env::args().collect();
        let after = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
        let all = |name: &str| args.windows(2).filter(|w| w[0] == name).map(|w| w[1].clone()).collect::<Vec<_>>();
        let quick = args.iter().any(|a| a == "--quick");
        let (rounds, span_ms) = if quick { (3, 250) } else { (5, 700) };
        let mut protocols: Vec<Protocol> = all("--protocol")
            .iter()
            .flat_map(|name| match name.as_str() {
                "h1" => vec![Protocol::Http1],
                "h1-tls" => vec![Protocol::Http1Tls],
                "h2" => vec![Protocol::Http2],
                "h2-tls" => vec![Protocol::Http2Tls],
                "all" => Protocol::ALL.to_vec(),
                other => panic!("{other}: h1, h1-tls, h2, h2-tls or all"),
            })
            .collect();
        if protocols.is_empty() {
            protocols.push(Protocol::Http1);
        }
        Plan {
            rounds: after("--rounds").and_then(|n| n.parse().ok()).unwrap_or(rounds),
            warm_up: Duration::from_millis(80),
            span: Duration::from_millis(span_ms),
            only: all("--only"),
            connections: after("--connections")
                .and_then(|n| n.parse().ok())
                .map_or(CONNECTIONS.to_vec(), |n| vec![n]),
            protocols,
        }
    }

    fn wants(&self, server: Server) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| server.name().contains(only.as_str()))
    }
}
