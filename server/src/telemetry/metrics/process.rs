//! What the system knows of this process.

use super::GaugeValue;
use std::fs::read_to_string;

/// Clock ticks a second in /proc, on every Linux.
const TICKS: f64 = 100.0;

/// The host's name.
pub(super) fn hostname() -> String {
    let name = read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Memory, threads, time. What cannot be read is left out.
pub(super) fn gauges() -> Vec<GaugeValue> {
    let mut all = Vec::new();
    let mut put = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            all.push(GaugeValue { name: name.to_owned(), labels: Vec::new(), value });
        }
    };
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let (resident, reserved) = (bytes_of(&status, "VmRSS:"), bytes_of(&status, "VmSize:"));
    // what Vault's dashboards watch, with this process's meaning: memory in use, memory asked of the system
    put("runtime.alloc_bytes", resident);
    put(
        "runtime.sys_bytes",
        resident.zip(bytes_of(&status, "VmSwap:")).map(|(resident, swapped)| resident + swapped),
    );
    put("process_resident_memory_bytes", resident);
    put("process_virtual_memory_bytes", reserved);
    put("process_threads", number_of(&status, "Threads:"));
    put("process_open_fds", std::fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as f64));
    let times = read_to_string("/proc/self/stat").unwrap_or_default();
    put("process_cpu_seconds_total", cpu_seconds(&times));
    all
}

fn number_of(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn bytes_of(status: &str, name: &str) -> Option<f64> {
    number_of(status, name).map(|kib| kib * 1024.0)
}

/// User and system time: fields 14 and 15, counted from behind the name, which may hold anything (proc(5)).
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_a_host() {
        let all = gauges();
        for name in ["runtime.alloc_bytes", "runtime.sys_bytes", "process_threads", "process_open_fds"] {
            let found = all.iter().find(|gauge| gauge.name == name).unwrap_or_else(|| panic!("{name}"));
            assert!(found.value >= 1.0, "{found:?}");
        }
        assert!(!hostname().is_empty());
        assert_eq!(cpu_seconds("1 (a) b) S 1 1 1 0 -1 4 1 0 0 0 250 50 0 0"), Some(3.0));
    }
}
