//! Measurements pushed out: statsd and DogStatsD over UDP, statsite over TCP, each after every interval of ten seconds.
//!
//! What goes out is what `sys/metrics` tells of the last interval: gauges, the sums of counters, and of durations the
//! mean (`|ms`); they are summed on the cores, so there is no datagram per request. A sink that cannot be reached
//! loses the interval and is tried again at the next; nothing else waits for it.

use crate::config::Telemetry;
use serde_json::Value;
use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

/// A datagram is kept below the usual MTU.
const DATAGRAM_BYTES: usize = 1400;
/// Connecting to and writing to statsite.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Where to.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Statsd,
    Statsite,
    Dog(Vec<String>),
}

/// One place to push to.
#[derive(Clone, Debug, PartialEq)]
pub struct Sink {
    kind: Kind,
    address: String,
}

/// The sinks of the configuration.
pub fn sinks(config: &Telemetry) -> Vec<Sink> {
    let sink = |kind, address: &Option<String>| address.clone().map(|address| Sink { kind, address });
    [
        sink(Kind::Statsd, &config.statsd_address),
        sink(Kind::Statsite, &config.statsite_address),
        sink(Kind::Dog(config.dogstatsd_tags.clone()), &config.dogstatsd_addr),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Sink {
    /// Pushes one interval. It blocks on name service and, for statsite, on the network: give it to a helper thread.
    ///
    /// # Errors
    /// Why the interval is lost, with the address.
    pub fn push(&self, interval: &Value) -> Result<(), String> {
        let told = |e: std::io::Error| format!("metrics cannot be sent to {}: {e}", self.address);
        let lines = self.lines(interval);
        if self.kind == Kind::Statsite {
            let mut found = self.address.to_socket_addrs().map_err(told)?;
            let at = found.next().ok_or_else(|| format!("metrics cannot be sent to {}: no address", self.address))?;
            let mut stream = TcpStream::connect_timeout(&at, TIMEOUT).map_err(told)?;
            stream.set_write_timeout(Some(TIMEOUT)).map_err(told)?;
            return stream.write_all(lines.concat().as_bytes()).map_err(told);
        }
        let at = self.address.to_socket_addrs().map_err(told)?.next();
        let at = at.ok_or_else(|| format!("metrics cannot be sent to {}: no address", self.address))?;
        let own = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(own).map_err(told)?;
        let mut datagram = String::new();
        for line in &lines {
            if !datagram.is_empty() && datagram.len() + line.len() > DATAGRAM_BYTES {
                socket.send_to(datagram.as_bytes(), at).map_err(told)?;
                datagram.clear();
            }
            datagram.push_str(line);
        }
        if !datagram.is_empty() {
            socket.send_to(datagram.as_bytes(), at).map_err(told)?;
        }
        Ok(())
    }

    /// One line a measurement.
    fn lines(&self, interval: &Value) -> Vec<String> {
        let mut lines = Vec::new();
        for (list, value, kind) in [("Gauges", "Value", "g"), ("Counters", "Sum", "c"), ("Samples", "Mean", "ms")] {
            for row in interval[list].as_array().into_iter().flatten() {
                let (Some(name), Some(value)) = (row["Name"].as_str(), row[value].as_f64()) else { continue };
                let labels = row["Labels"].as_object().into_iter().flatten();
                let labels = labels.filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)));
                lines.push(match &self.kind {
                    Kind::Dog(tags) => {
                        let own = labels.map(|(k, v)| format!("{}:{}", tidy(k), tidy(v)));
                        let all: Vec<String> = tags.iter().cloned().chain(own).collect();
                        let tags = if all.is_empty() { String::new() } else { format!("|#{}", all.join(",")) };
                        format!("{}:{value:?}|{kind}{tags}\n", tidy(name))
                    }
                    // no labels there: their values become part of the name, as Vault's sink does it
                    _ => {
                        let name = labels.fold(name.to_owned(), |name, (_, v)| format!("{name}.{v}"));
                        format!("{}:{value:?}|{kind}\n", tidy(&name))
                    }
                });
            }
        }
        lines
    }
}

/// A name without what the line format gives a meaning.
fn tidy(text: &str) -> String {
    text.chars().map(|c| if matches!(c, ':' | '|' | '#' | '@' | ',' | ' ' | '\n' | '\t') { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_of_each_kind() {
        let interval = json!({
            "Gauges": [{"Name": "vault.core.unsealed", "Value": 1.0, "Labels": {"cluster": "c 1"}}],
            "Counters": [{"Name": "vault.a", "Sum": 3.0, "Labels": {}}],
            "Samples": [{"Name": "vault.b", "Mean": 0.5, "Labels": {}}],
        });
        let of = |kind| Sink { kind, address: String::new() }.lines(&interval).concat();
        assert_eq!(of(Kind::Statsd), "vault.core.unsealed.c_1:1.0|g\nvault.a:3.0|c\nvault.b:0.5|ms\n");
        assert_eq!(
            of(Kind::Dog(vec!["env:x".into()])),
            "vault.core.unsealed:1.0|g|#env:x,cluster:c_1\nvault.a:3.0|c|#env:x\nvault.b:0.5|ms|#env:x\n"
        );
    }
}
