//! What only the process can tell: the machine it runs on, its counters. Handlers ask by name.

use crate::reload::Reloader;
use crate::rt;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{self, Level};
use ringfence_node::{Code, Error, SideResult};
use serde_json::{Value, json};
use std::sync::Arc;

/// The name of the one logger.
const LOGGER: &str = "core";

/// Answers questions by name.
pub struct Facts {
    metrics: Metrics,
    reloader: Arc<Reloader>,
}

impl Facts {
    /// Over the counters of all cores, and what a reload touches.
    pub fn new(metrics: Metrics, reloader: Arc<Reloader>) -> Facts {
        Facts { metrics, reloader }
    }

    /// Answers one.
    pub fn answer(&self, name: &str, argument: &Value) -> SideResult {
        match name {
            "host-info" => SideResult::Json(host_info()),
            "metrics" if argument["format"] == "prometheus" => SideResult::Text(self.metrics.prometheus(rt::now())),
            "metrics" => SideResult::Json(self.metrics.json(rt::now())),
            "loggers" => loggers(argument),
            "reload" => self.reload(argument),
            _ => SideResult::Refused(Error::new(Code::NotFound, format!("{name} is not served yet"))),
        }
    }

    /// There is no license to load; everything else of a reload goes by the signal, in one piece.
    fn reload(&self, argument: &Value) -> SideResult {
        match argument["subsystem"].as_str() {
            Some("license") => SideResult::Json(Value::Null),
            Some("config") => {
                let reloader = self.reloader.clone();
                // its outcome is logged, as that of the signal
                rt::spawn_local(async move { rt::unblock(move || reloader.reload()).await });
                SideResult::Json(Value::Null)
            }
            _ => SideResult::Refused(Error::invalid("unknown subsystem; use license or config")),
        }
    }
}

/// Reads, sets or resets the level of the process's log.
fn loggers(argument: &Value) -> SideResult {
    let name = argument["name"].as_str().unwrap_or("");
    if !name.is_empty() && name != LOGGER {
        return SideResult::Refused(Error::new(Code::NotFound, format!("logger with name {name:?} not found")));
    }
    match &argument["change"] {
        Value::Null => {}
        Value::String(word) if word == "reset" => telemetry::reset_level(),
        change => match change["level"].as_str().and_then(Level::parse) {
            Some(level) => telemetry::set_level(level),
            None => return SideResult::Refused(Error::invalid("invalid level")),
        },
    }
    SideResult::Json(json!({LOGGER: telemetry::level().name()}))
}

fn host_info() -> Value {
    let read = |p: &str| std::fs::read_to_string(p).unwrap_or_default();
    let meminfo = read("/proc/meminfo");
    let kib = |name: &str| -> u64 {
        meminfo
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    };
    let (total, available) = (kib("MemTotal") * 1024, kib("MemAvailable") * 1024);
    let uptime = read("/proc/uptime").split('.').next().and_then(|s| s.parse::<u64>().ok()).unwrap_or(0);
    let model = read("/proc/cpuinfo")
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(':').map(|(_, v)| v.trim().to_owned()))
        .unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    let cpu: Vec<Value> = (0..cpus).map(|i| json!({"cpu": i, "modelName": model, "cores": 1})).collect();
    json!({
        "timestamp": rt::now().wall.rfc3339(),
        "cpu": cpu, "cpu_times": [], "disk": [],
        "host": {
            "hostname": read("/proc/sys/kernel/hostname").trim(), "uptime": uptime, "os": "linux",
            "platform": "linux", "kernelVersion": read("/proc/sys/kernel/osrelease").trim(),
        },
        "memory": {
            "total": total, "available": available, "used": total.saturating_sub(available),
            "usedPercent": if total > 0 { (total.saturating_sub(available)) as f64 * 100.0 / total as f64 } else { 0.0 },
        },
    })
}
