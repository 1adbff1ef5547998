//! The generator's own limit: a closed loop of health requests against the bare responder, with the protocol, threads and
//! connections of the run that it is told beside.

use crate::ops::Op;
use crate::report::OwnLimit;
use crate::responder::Responder;
use crate::run;
use crate::settings::Settings;
use crate::setup;
use crate::target::{Target, Trust};
use std::time::Duration;

/// Measures it for a span.
pub fn measure(target: &Target, settings: &Settings, span: Duration) -> Result<OwnLimit, String> {
    let secure = target.tls.is_some();
    let responder = Responder::start(secure)?;
    let url = format!("{}://{}", if secure { "https" } else { "http" }, responder.addr);
    let bare = Target::new(&url, target.protocol, &Trust::Anyone)?;
    let mut own = settings.clone();
    own.mix = vec![(Op::Health, 1)];
    (own.rate, own.think, own.ramp) = (None, Duration::ZERO, Duration::ZERO);
    (own.warm_up, own.span) = (span / 4, span);
    own.interval = span;
    let before = responder.cpu();
    let seen = run::measure(&bare, &own, &setup::blank("", &own), None, &mut |_| {})?;
    let responder_cpu = responder.cpu().saturating_sub(before);
    if seen.handled == 0 {
        return Err("the bare responder was not reached".into());
    }
    // the responder's clock runs over the warm-up too
    let whole = seen.handled as f64 * 1.25;
    Ok(OwnLimit {
        requests_per_second: seen.rate(),
        cpu_us_per_request: seen.client_cpu_us(),
        responder_cpu_us_per_request: responder_cpu.as_secs_f64() * 1e6 / whole,
        latency_us_p50: seen.percentile_us(50.0),
        latency_us_p99: seen.percentile_us(99.0),
    })
}
