//! What the kernel tells of processes and threads: CPU time and resident memory.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Ticks a second in which `/proc` counts CPU time: 100 on every Linux that Rust builds for.
const TICKS: u64 = 100;

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of all its threads, seconds.
    pub cpu_s: f64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
}

/// Of a process on this machine; nothing when it is not there.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage { cpu_s: cpu_of(&stat)?, resident_bytes: resident_of(&status)? })
}

/// The name stands in parentheses and may hold anything, so fields are counted from its end.
fn cpu_of(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS as f64)
}

fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// CPU time of the calling thread.
pub fn own_thread() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The machine the generator runs on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Machine {
    /// As the kernel names the processor.
    pub processor: String,
    /// CPUs this process may use.
    pub cpus: usize,
    /// The kernel's release.
    pub kernel: String,
}

/// Of this machine.
pub fn machine() -> Machine {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(':'));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine {
        processor: model.map_or("unknown".to_owned(), |(_, name)| name.trim().to_owned()),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: kernel.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 3 0 99 1000 5";
        assert_eq!(cpu_of(stat), Some(2.0));
        assert_eq!(resident_of("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12 * 1024));
        assert_eq!(cpu_of("garbage"), None);
    }

    #[test]
    fn of_ourselves() {
        let own = usage(std::process::id()).expect("we run");
        assert!(own.resident_bytes > 0);
        assert_eq!(usage(u32::MAX), None);
    }
}
