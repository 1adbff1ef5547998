//! Reports for the eye: one HTML file, curves as SVG in it, nothing loaded from anywhere. One run or several side by
//! side are the same page.

use crate::report::{PERCENTILES, Report, from_pairs, time};
use std::fmt::Write;

const COLOURS: [&str; 6] = ["#0b6e99", "#d9480f", "#2b8a3e", "#862e9c", "#a6761d", "#495057"];
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 260.0;
/// Left, right, above, below.
const MARGIN: (f64, f64, f64, f64) = (70.0, 15.0, 12.0, 34.0);

/// A line of a plot.
struct Line {
    label: String,
    colour: &'static str,
    dashed: bool,
    points: Vec<(f64, f64)>,
}

/// Text as HTML shows it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page.
pub fn page(reports: &[Report]) -> String {
    let names: Vec<&str> = reports.iter().map(|r| r.name.as_str()).collect();
    let title = escaped(&names.join(" and "));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Load: {title}</title><style>\
         body{{font:15px/1.45 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#212529}}\
         table{{border-collapse:collapse;margin:.6em 0}}td,th{{padding:.2em .7em;border-bottom:1px solid #dee2e6;\
         text-align:right}}td:first-child,th:first-child{{text-align:left}}svg{{width:100%;height:auto}}\
         text{{font:11px system-ui,sans-serif;fill:#495057}}.limit{{background:#fff3bf;padding:.6em 1em}}\
         code{{background:#f1f3f5}}</style></head><body>\n<h1>Load: {title}</h1>\n"
    );
    for r in reports {
        // writing into a string cannot fail, here and below
        let _ = writeln!(out, "<p class=\"limit\"><b>{}</b>: {}</p>", escaped(&r.name), escaped(&r.own_limit_text()));
    }
    summary(&mut out, reports);
    let curve = |f: fn(&crate::report::Point) -> f64, label: &str, dashed: bool| -> Vec<Line> {
        let line = |(i, r): (usize, &Report)| Line {
            label: format!("{} {label}", r.name),
            colour: COLOURS[i % COLOURS.len()],
            dashed,
            points: r.points.iter().map(|p| (p.at_s, f(p))).collect(),
        };
        reports.iter().enumerate().map(line).collect()
    };
    plot(
        &mut out,
        "Throughput, requests a second",
        "seconds",
        &curve(|p| p.requests_per_second, "", false),
        Scale::Zero,
    );
    let mut latency = curve(|p| p.latency_us_p50, "p50", true);
    latency.extend(curve(|p| p.latency_us_p99, "p99", false));
    plot(&mut out, "Latency by the time the answer came, microseconds", "seconds", &latency, Scale::Log);
    plot(&mut out, "Latency by percentile, microseconds", "percentile", &by_percentile(reports), Scale::LogByNines);
    if reports.iter().any(|r| r.points.iter().any(|p| p.server_cpus.is_some())) {
        let cpus = curve(|p| p.server_cpus.unwrap_or(0.0), "", false);
        plot(&mut out, "CPUs the server kept busy", "seconds", &cpus, Scale::Zero);
        let memory = curve(|p| p.server_resident_bytes.unwrap_or(0) as f64 / f64::from(1 << 20), "", false);
        plot(&mut out, "Resident memory of the server, MiB", "seconds", &memory, Scale::Zero);
    }
    for r in reports {
        details(&mut out, r);
    }
    out.push_str("</body></html>\n");
    out
}

fn summary(out: &mut String, reports: &[Report]) {
    out.push_str("<table><tr><th></th>");
    for r in reports {
        let _ = write!(out, "<th>{}</th>", escaped(&r.name));
    }
    out.push_str("</tr>\n");
    let mut row = |name: &str, cell: &dyn Fn(&Report) -> String| {
        let _ = write!(out, "<tr><td>{name}</td>");
        for r in reports {
            let _ = write!(out, "<td>{}</td>", escaped(&cell(r)));
        }
        out.push_str("</tr>\n");
    };
    let or_none = |v: Option<f64>| v.map_or("not seen".into(), |v| format!("{v:.1}"));
    row("server", &|r| format!("{} ({})", r.target, r.server_version));
    row("protocol", &|r| r.protocol.clone());
    row("loop", &|r| r.settings.rate.map_or("closed".into(), |rate| format!("open, {rate:.0}/s")));
    row("connections", &|r| r.settings.connections.to_string());
    row("generators, threads", &|r| format!("{}, {}", r.parts, r.settings.threads));
    row("good answers a second", &|r| format!("{:.1}", r.rate()));
    row("errors, unanswered", &|r| format!("{}, {}", r.errors(), r.unanswered));
    for p in PERCENTILES {
        row(&format!("latency p{p}"), &|r| time(r.latency().value_at_percentile(p) as f64 / 1e3));
    }
    row("server CPU, us a request", &|r| or_none(r.server_cpu_us()));
    row("server memory growth, bytes a request", &|r| or_none(r.server_growth_bytes()));
    row("generator CPU, us a request", &|r| format!("{:.1}", r.client_cpu_us()));
    row("generator's own limit, requests/s", &|r| format!("{:.0}", r.own_limit_per_second()));
    row("generator late by (p99)", &|r| time(r.lateness_us_p99));
    out.push_str("</table>\n");
}

/// Nines on the x axis: 0 is the median's beginning, 1 is 90 %, 2 is 99 %.
fn by_percentile(reports: &[Report]) -> Vec<Line> {
    let line = |(i, r): (usize, &Report)| {
        let h = r.latency();
        let nines_max = (h.len().max(10) as f64).log10();
        let points = (0..=120)
            .map(|step| nines_max * f64::from(step) / 120.0)
            .map(|nines| (nines, h.value_at_quantile(1.0 - 10f64.powf(-nines)) as f64 / 1e3))
            .collect();
        Line { label: r.name.clone(), colour: COLOURS[i % COLOURS.len()], dashed: false, points }
    };
    reports.iter().enumerate().map(line).collect()
}

fn details(out: &mut String, r: &Report) {
    let _ = write!(
        out,
        "<h2>{}</h2><table><tr><th>operation</th><th>good</th><th>errors</th><th>p50</th><th>p99</th><th>p99.9</th>\
         <th>max</th><th>p99 from sending</th></tr>",
        escaped(&r.name)
    );
    for op in &r.ops {
        let (latency, service) = (from_pairs(&op.latency_ns), from_pairs(&op.service_ns));
        let us = |p| time(latency.value_at_percentile(p) as f64 / 1e3);
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            op.op.name(),
            op.ok,
            op.errors,
            us(50.0),
            us(99.0),
            us(99.9),
            us(100.0),
            time(service.value_at_percentile(99.0) as f64 / 1e3)
        );
    }
    out.push_str("</table>\n");
    if let Some(bound) = r.bound {
        let _ = write!(
            out,
            "<p>Search for the highest rate with p{} within {:?}:</p><table><tr><th>asked/s</th><th>got/s</th>\
             <th>latency</th><th>errors</th><th>holds</th></tr>",
            bound.percentile, bound.latency
        );
        for s in &r.steps {
            let (asked, got, errors) = (s.asked_per_second, s.got_per_second, s.errors);
            let (latency, holds) = (time(s.latency_us), if s.holds { "yes" } else { "no" });
            let _ = write!(
                out,
                "<tr><td>{asked:.0}</td><td>{got:.0}</td><td>{latency}</td><td>{errors}</td><td>{holds}</td></tr>"
            );
        }
        out.push_str("</table>\n");
    }
    for f in &r.faults {
        let (kind, first) = (escaped(&f.kind), escaped(f.first.trim()));
        let _ = writeln!(out, "<p>{} errors <b>{kind}</b>, the first: <code>{first}</code></p>", f.count);
    }
    for m in &r.machines {
        let (processor, kernel) = (escaped(&m.processor), escaped(&m.kernel));
        let _ = writeln!(out, "<p>Generator on {processor}, {} CPUs, Linux {kernel}.</p>", m.cpus);
    }
    let settings = serde_json::to_string(&r.settings).unwrap_or_default();
    let _ = writeln!(out, "<p>Settings: <code>{}</code></p>", escaped(&settings));
}

#[derive(Clone, Copy, PartialEq)]
enum Scale {
    /// From nothing.
    Zero,
    /// Logarithmic.
    Log,
    /// As above, and the x axis counts nines.
    LogByNines,
}

fn plot(out: &mut String, title: &str, x_title: &str, lines: &[Line], scale: Scale) {
    let all = || lines.iter().flat_map(|l| &l.points);
    let log = scale != Scale::Zero;
    let x_max = all().map(|p| p.0).fold(1e-9, f64::max);
    let y_max = all().map(|p| p.1).fold(1e-9, f64::max);
    let (low, high) = if log {
        let least = all().map(|p| p.1).filter(|y| *y > 0.0).fold(y_max, f64::min);
        (least.log10().floor(), y_max.log10().ceil().max(least.log10().floor() + 1.0))
    } else {
        (0.0, y_max * 1.05)
    };
    let (left, right, above, below) = MARGIN;
    let x_at = |x: f64| left + x / x_max * (WIDTH - left - right);
    let y_at = |y: f64| {
        let y = if log { y.max(10f64.powf(low)).log10() } else { y };
        HEIGHT - below - (y - low) / (high - low) * (HEIGHT - above - below)
    };
    let _ = write!(out, "<h3>{title}</h3>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    let ticks: Vec<f64> = if log {
        (0..=(high - low) as i32).map(|i| 10f64.powf(low + f64::from(i))).collect()
    } else {
        (0..=4).map(|i| high * f64::from(i) / 4.0).collect()
    };
    for y in ticks {
        let (at, x_end) = (y_at(y), WIDTH - right);
        let label = if y >= 10.0 { format!("{y:.0}") } else { format!("{y:.1}") };
        let _ = write!(
            out,
            "<path d=\"M{left} {at:.1}H{x_end}\" stroke=\"#e9ecef\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{label}</text>",
            left - 6.0,
            at + 4.0
        );
    }
    for i in 0..=5 {
        let x = x_max * f64::from(i) / 5.0;
        let label = match scale {
            Scale::LogByNines => format!("{:.*}", x.ceil() as usize, 100.0 * (1.0 - 10f64.powf(-x))),
            _ => format!("{x:.1}"),
        };
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            x_at(x),
            HEIGHT - below + 15.0
        );
    }
    let _ = write!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{x_title}</text>", WIDTH - right, HEIGHT - 4.0);
    for (i, line) in lines.iter().enumerate() {
        let points: Vec<String> = line.points.iter().map(|p| format!("{:.1},{:.1}", x_at(p.0), y_at(p.1))).collect();
        let dash = if line.dashed { " stroke-dasharray=\"4 3\"" } else { "" };
        let (colour, label) = (line.colour, escaped(line.label.trim()));
        let _ = write!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"{dash} points=\"{}\"/>\
             <text x=\"{}\" y=\"{}\" style=\"fill:{colour}\">{label}</text>",
            points.join(" "),
            left + 8.0,
            above + 12.0 + 13.0 * i as f64
        );
    }
    out.push_str("</svg>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// The page stands alone, names are no markup, and every run is in it with its limit.
    #[test]
    fn stands_alone() {
        let page = page(&[sample("<b>one", &[10, 20, 30]), sample("two", &[100, 4000])]);
        for from_outside in ["http://www", "https://", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(from_outside), "{from_outside}");
        }
        assert!(page.contains("&lt;b&gt;one") && !page.contains("<b>one"));
        assert_eq!(page.matches("own limit: 1000 requests/s").count(), 2);
        assert!(page.matches("<polyline").count() >= 8);
        assert!(!page.contains("NaN") && !page.contains("inf"), "every figure is a number");
    }
}
