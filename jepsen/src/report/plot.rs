//! Plots as SVG, drawn by hand: axes, shades of faults, points, lines and bars.

use super::escape;
use crate::check::tell;
use crate::history::{Call, History, Kind};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 18.0;
/// More points make the page slow and show no more.
const POINTS: usize = 6000;
/// Bars of the timeline.
const BARS: usize = 5000;

const SHADES: [&str; 10] =
    ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#ee8866", "#44bb99", "#99ddff"];

fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Ok => "#2a9d4a",
        Kind::Fail => "#e59a1d",
        _ => "#c8262c",
    }
}

/// A drawing with time from left to right.
struct Plot {
    svg: String,
    height: f64,
    end: u64,
}

impl Plot {
    fn new(h: &History, height: f64) -> Plot {
        let svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {}\" xmlns=\"http://www.w3.org/2000/svg\" font-family=\"system-ui,sans-serif\" font-size=\"11\">",
            height + 42.0
        );
        Plot { svg, height, end: h.end.max(1) }
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // writing to a string cannot fail
        let _ = self.svg.write_fmt(text);
    }

    fn x(&self, t: u64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (t.min(self.end) as f64 / self.end as f64)
    }

    /// Faults as shades behind everything, with their names.
    fn shades(&mut self, h: &History) {
        let names: BTreeMap<&str, usize> = {
            let set: std::collections::BTreeSet<&str> = h.faults.iter().map(|f| f.name.as_str()).collect();
            set.into_iter().enumerate().map(|(i, n)| (n, i)).collect()
        };
        let height = self.height;
        for f in &h.faults {
            let (a, b) = (self.x(f.from), self.x(f.to));
            let shade = SHADES[names.get(f.name.as_str()).copied().unwrap_or(0) % SHADES.len()];
            self.add(format_args!(
                "<rect x=\"{a:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{height}\" fill=\"{shade}\" opacity=\".16\"><title>{}</title></rect>",
                (b - a).max(1.5),
                escape(&f.name)
            ));
        }
        // the legend stands below the axis
        let mut x = LEFT;
        for (name, i) in names {
            let y = TOP + height + 20.0;
            self.add(format_args!(
                "<rect x=\"{x:.0}\" y=\"{:.0}\" width=\"9\" height=\"9\" fill=\"{}\" opacity=\".5\"/><text x=\"{:.0}\" y=\"{y:.0}\">{}</text>",
                y - 9.0,
                SHADES[i % SHADES.len()],
                x + 12.0,
                escape(name)
            ));
            x += 24.0 + 6.2 * name.len() as f64;
            if x > WIDTH - 60.0 {
                break;
            }
        }
    }

    /// Seconds below, and a frame.
    fn axis(&mut self) {
        let bottom = TOP + self.height;
        self.add(format_args!(
            "<path d=\"M{LEFT} {TOP}V{bottom}H{}\" fill=\"none\" stroke=\"#888\"/>",
            WIDTH - RIGHT
        ));
        let total = self.end as f64 / 1e9;
        let step = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0]
            .into_iter()
            .find(|s| total / s <= 14.0)
            .unwrap_or(7200.0);
        let mut t = 0.0;
        while t <= total {
            let x = self.x((t * 1e9) as u64);
            self.add(format_args!(
                "<text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#555\">{t:.0}s</text>",
                bottom + 12.0
            ));
            t += step;
        }
    }

    fn mark(&mut self, y: f64, text: &str) {
        self.add(format_args!(
            "<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"#eee\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 5.0,
            y + 4.0,
            escape(text)
        ));
    }

    fn finish(mut self) -> String {
        self.svg.push_str("</svg>");
        self.svg
    }
}

fn thinned(calls: &[Call], most: usize) -> impl Iterator<Item = &Call> {
    let step = calls.len().div_ceil(most).max(1);
    // what did not go well is always shown
    calls.iter().enumerate().filter(move |(i, c)| i % step == 0 || c.end == Kind::Info).map(|(_, c)| c)
}

/// Latency of each call, on a scale of tens.
pub fn latency(h: &History) -> String {
    let mut p = Plot::new(h, 260.0);
    let (low, high) = (1e-4f64, 20.0f64);
    let y = |s: f64| TOP + 260.0 * (1.0 - (s.clamp(low, high) / low).ln() / (high / low).ln());
    for (s, text) in [(1e-3, "1 ms"), (1e-2, "10 ms"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s")] {
        p.mark(y(s), text);
    }
    p.shades(h);
    for c in thinned(&h.calls, POINTS) {
        let s = (c.left.saturating_sub(c.invoked)) as f64 / 1e9;
        let (x, colour) = (p.x(c.invoked), colour(c.end));
        p.add(format_args!("<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"1.6\" fill=\"{colour}\"/>", y(s)));
    }
    p.axis();
    p.finish()
}

/// Calls ended in each half second.
pub fn rate(h: &History) -> String {
    const WINDOW_NS: u64 = 500_000_000;
    let windows = (h.end / WINDOW_NS + 1) as usize;
    let mut counts = [vec![0u32; windows], vec![0u32; windows], vec![0u32; windows]];
    for c in &h.calls {
        let which = match c.end {
            Kind::Ok => 0,
            Kind::Fail => 1,
            _ => 2,
        };
        counts[which][((c.left / WINDOW_NS) as usize).min(windows - 1)] += 1;
    }
    let most = counts.iter().flatten().copied().max().unwrap_or(0).max(1);
    let mut p = Plot::new(h, 160.0);
    let y = |n: u32| TOP + 160.0 * (1.0 - f64::from(n) / f64::from(most));
    for part in [0, most / 2, most] {
        p.mark(y(part), &format!("{} /s", part * 2));
    }
    p.shades(h);
    for (line, kind) in counts.iter().zip([Kind::Ok, Kind::Fail, Kind::Info]) {
        let points: String = line
            .iter()
            .enumerate()
            .map(|(i, n)| format!("{:.1},{:.1} ", p.x(i as u64 * WINDOW_NS + WINDOW_NS / 2), y(*n)))
            .collect();
        p.add(format_args!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.4\"/>",
            colour(kind)
        ));
    }
    p.axis();
    p.finish()
}

/// A row a fault and a row a client.
pub fn timeline(h: &History) -> String {
    let faults: std::collections::BTreeSet<&str> = h.faults.iter().map(|f| f.name.as_str()).collect();
    let clients: BTreeMap<i64, &str> = h.calls.iter().map(|c| (c.process, c.workload.as_str())).collect();
    const ROW: f64 = 13.0;
    let rows = faults.len() + clients.len();
    let mut p = Plot::new(h, ROW * rows as f64 + 6.0);
    p.shades(h);
    let top = |row: usize| TOP + 4.0 + ROW * row as f64;
    let fault_rows: BTreeMap<&str, usize> = faults.iter().enumerate().map(|(i, n)| (*n, i)).collect();
    let client_rows: BTreeMap<i64, usize> = clients.keys().enumerate().map(|(i, c)| (*c, faults.len() + i)).collect();
    for (name, row) in &fault_rows {
        p.mark(top(*row) + 5.0, name);
    }
    for (process, row) in &client_rows {
        p.mark(top(*row) + 5.0, &format!("{} {process}", clients[process]));
    }
    for f in &h.faults {
        let (a, b, y) = (p.x(f.from), p.x(f.to), top(fault_rows[f.name.as_str()]));
        p.add(format_args!(
            "<rect x=\"{a:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"10\" fill=\"#444\"><title>{} {}</title></rect>",
            (b - a).max(2.0),
            escape(&f.name),
            escape(&f.about.to_string())
        ));
    }
    for c in thinned(&h.calls, BARS) {
        let (a, b, y) = (p.x(c.invoked), p.x(c.left), top(client_rows[&c.process]));
        p.add(format_args!(
            "<rect x=\"{a:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"10\" fill=\"{}\"><title>{}</title></rect>",
            (b - a).max(0.8),
            colour(c.end),
            escape(&tell(c))
        ));
    }
    p.axis();
    p.finish()
}
