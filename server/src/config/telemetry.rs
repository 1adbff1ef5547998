//! The `telemetry` stanza: what is measured and where it goes.

use super::ConfigError;
use super::reader::Reader;
use std::time::Duration;

/// What is measured and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// How often usage is counted; `None` for never.
    pub usage_gauge_period: Option<Duration>,
    /// Most label values of a gauge.
    pub maximum_gauge_cardinality: u64,
    /// Leave the host's name out of metric names.
    pub disable_hostname: bool,
    /// Add the host's name as a label.
    pub enable_hostname_label: bool,
    /// What metric names begin with.
    pub metrics_prefix: String,
    /// Width of a bucket of leases by expiry.
    pub lease_metrics_epsilon: Duration,
    /// How many of them.
    pub num_lease_metrics_buckets: u64,
    /// Labels of namespaces on them.
    pub add_lease_metrics_namespace_labels: bool,
    /// Rollback metrics by mount point.
    pub add_mount_point_rollback_metrics: bool,
    /// Are metrics kept that no filter names?
    pub filter_default: bool,
    /// `+prefix` keeps, `-prefix` drops.
    pub prefix_filter: Vec<String>,
    /// A statsite server.
    pub statsite_address: Option<String>,
    /// A statsd server.
    pub statsd_address: Option<String>,
    /// A dogstatsd server.
    pub dogstatsd_addr: Option<String>,
    /// Tags for it.
    pub dogstatsd_tags: Vec<String>,
    /// How long the Prometheus page remembers; zero switches it off.
    pub prometheus_retention_time: Duration,
}

impl Default for Telemetry {
    fn default() -> Self {
        Telemetry {
            usage_gauge_period: Some(Duration::from_secs(600)),
            maximum_gauge_cardinality: 500,
            disable_hostname: false,
            enable_hostname_label: false,
            metrics_prefix: "vault".to_owned(),
            lease_metrics_epsilon: Duration::from_secs(3600),
            num_lease_metrics_buckets: 168,
            add_lease_metrics_namespace_labels: false,
            add_mount_point_rollback_metrics: false,
            filter_default: true,
            prefix_filter: Vec::new(),
            statsite_address: None,
            statsd_address: None,
            dogstatsd_addr: None,
            dogstatsd_tags: Vec::new(),
            prometheus_retention_time: Duration::from_secs(24 * 3600),
        }
    }
}

impl Telemetry {
    /// Reads a stanza over what is there.
    pub fn fill(&mut self, from: &Reader<'_>, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
        match from.filled("usage_gauge_period")?.as_deref() {
            None => {}
            Some("none") => self.usage_gauge_period = None,
            Some(_) => self.usage_gauge_period = from.time("usage_gauge_period")?.filter(|period| !period.is_zero()),
        }
        let yes = |target: &mut bool, name| from.yes(name).map(|given| *target = given.unwrap_or(*target));
        yes(&mut self.disable_hostname, "disable_hostname")?;
        yes(&mut self.enable_hostname_label, "enable_hostname_label")?;
        yes(&mut self.add_lease_metrics_namespace_labels, "add_lease_metrics_namespace_labels")?;
        yes(&mut self.add_mount_point_rollback_metrics, "add_mount_point_rollback_metrics")?;
        yes(&mut self.filter_default, "filter_default")?;
        let count = |target: &mut u64, name| from.count(name).map(|given| *target = given.unwrap_or(*target));
        count(&mut self.maximum_gauge_cardinality, "maximum_gauge_cardinality")?;
        count(&mut self.num_lease_metrics_buckets, "num_lease_metrics_buckets")?;
        let time = |target: &mut Duration, name| from.time(name).map(|given| *target = given.unwrap_or(*target));
        time(&mut self.lease_metrics_epsilon, "lease_metrics_epsilon")?;
        time(&mut self.prometheus_retention_time, "prometheus_retention_time")?;
        if let Some(prefix) = from.filled("metrics_prefix")? {
            self.metrics_prefix = prefix;
        }
        if let Some(filters) = from.texts("prefix_filter")? {
            if let Some(bad) = filters.iter().find(|filter| !filter.starts_with(['+', '-'])) {
                return Err(from.refuse(format!("prefix_filter: {bad:?} must begin with '+' or '-'")));
            }
            self.prefix_filter = filters;
        }
        for (target, name) in [
            (&mut self.statsite_address, "statsite_address"),
            (&mut self.statsd_address, "statsd_address"),
            (&mut self.dogstatsd_addr, "dogstatsd_addr"),
        ] {
            if let Some(address) = from.filled(name)? {
                *target = Some(address);
            }
        }
        if let Some(tags) = from.texts("dogstatsd_tags")? {
            self.dogstatsd_tags = tags;
        }
        from.finish(warnings);
        Ok(())
    }
}
