//! What a run is: parsed from the command line, kept in every report so that a figure tells how it came about.

use crate::ops::Op;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A run's shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Operations and how often each comes, relative to the others.
    pub mix: Vec<(Op, u32)>,
    /// Worker threads.
    pub threads: usize,
    /// Connections of all threads.
    pub connections: usize,
    /// Requests in flight on one connection; above 1 over HTTP/2 only.
    pub streams: usize,
    /// Requests a second of an open loop; none in a closed loop.
    pub rate: Option<f64>,
    /// How requests of an open loop arrive.
    pub arrivals: Arrivals,
    /// How long a connection of a closed loop rests after an answer.
    pub think: Duration,
    /// Time in which the load grows from nothing.
    pub ramp: Duration,
    /// Time at full load that is not counted.
    pub warm_up: Duration,
    /// Time that is counted.
    pub span: Duration,
    /// One point of the curves.
    pub interval: Duration,
    /// No answer within this is an error.
    pub timeout: Duration,
    /// Where random choices begin.
    pub seed: u64,
    /// What the setup makes.
    pub world: World,
}

/// When the requests of an open loop are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// At equal distances.
    Even,
    /// With exponential distances, as of many independent clients.
    Poisson,
}

/// The data the load runs over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct World {
    /// Begins the name of everything that is made.
    pub prefix: String,
    /// Key-value secrets.
    pub keys: usize,
    /// Folders they lie in.
    pub folders: usize,
    /// Exponent of Zipf's law over the keys; uniform without.
    pub zipf: Option<f64>,
    /// Length of a secret's value.
    pub value_bytes: usize,
    /// Tokens the requests are made with.
    pub tokens: usize,
    /// Kind of those and of what logins yield.
    pub token_type: TokenType,
    /// Roles, users and prefixes of leases.
    pub owners: usize,
    /// Leases that are there before the load.
    pub leases: usize,
    /// Policies of a token of `acl-read`.
    pub policies: usize,
    /// Rules in each of them.
    pub rules: usize,
    /// Namespaces of `namespace-read`.
    pub namespaces: usize,
    /// A path whose read yields a lease, in place of the leased key-value mount of the setup.
    pub lease_path: Option<String>,
}

/// Kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenType {
    /// Kept by the server.
    Service,
    /// Carried by its bearer.
    Batch,
}

impl TokenType {
    /// As the API names it.
    pub fn name(self) -> &'static str {
        match self {
            TokenType::Service => "service",
            TokenType::Batch => "batch",
        }
    }
}

/// Reads `kv2-read=80,kv2-write=20`; an operation without a weight counts once.
pub fn mix(text: &str) -> Result<Vec<(Op, u32)>, String> {
    let mut mix = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
        let op = Op::named(name.trim()).ok_or_else(|| format!("{name}: no such operation; `ops` lists them"))?;
        let weight = weight.trim().parse().map_err(|_| format!("{part}: the weight is not a number"))?;
        if weight > 0 {
            mix.push((op, weight));
        }
    }
    match mix.is_empty() {
        true => Err("no operation has a weight".into()),
        false => Ok(mix),
    }
}

/// Reads `250ms`, `10s`, `2m`, `1h` or seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| format!("{text}: not a duration"))?;
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text}: the unit is us, ms, s, m or h")),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| format!("{text}: too long"))
}

/// A latency that a percentile must not pass.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// Which percentile, as 99.9.
    pub percentile: f64,
    /// What it may be at most.
    pub latency: Duration,
}

/// Reads `p99=10ms`.
pub fn bound(text: &str) -> Result<Bound, String> {
    let (name, latency) = text.split_once('=').ok_or("a bound is written as p99=10ms")?;
    let percentile = name.strip_prefix('p').and_then(|p| p.parse().ok()).filter(|p| (0.0..=100.0).contains(p));
    let percentile = percentile.ok_or_else(|| format!("{name}: not a percentile"))?;
    Ok(Bound { percentile, latency: duration(latency)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_line() {
        assert_eq!(mix("kv2-read=80, kv2-write"), Ok(vec![(Op::Kv2Read, 80), (Op::Kv2Write, 1)]));
        for bad in ["", "kv2-read=0", "kv3-read", "kv2-read=x"] {
            assert!(mix(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "1d", "-1s", "1e400"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(bound("p99.9=2ms"), Ok(Bound { percentile: 99.9, latency: Duration::from_millis(2) }));
        assert!(bound("99=1s").is_err() && bound("p101=1s").is_err());
    }
}
