//! Figures of a run: each hot path beside its limit, measured in the same rounds; as text, JSON and a plot, and compared
//! with those of another build.
//!
//! ## When a figure counts as worse
//!
//! A round measures a path and right after it the limit (in the next round the limit first), so what the machine does to
//! one it does to the other, and their ratio is kept: one sample a round. Two runs are compared by the logarithms of
//! these ratios. A figure is worse if all of this holds:
//!
//! - the medians differ by more than [`LEAST_CHANGE`]: less is not worth anybody's time;
//! - they differ by more than [`SIGMAS`] standard errors, estimated from the median absolute deviations of both runs
//!   (1.4826 MAD estimates the standard deviation, and a median's standard error is 1.2533 times a mean's), so outliers
//!   do not decide;
//! - the rank sum test of Mann and Whitney, one-sided, finds the order of the samples less likely than
//!   about one in a hundred: no shape of distribution is supposed.

use serde_json::{Value, json};
use std::fmt::Write;

/// Smallest change of a ratio that is reported.
pub const LEAST_CHANGE: f64 = 0.05;
/// Standard errors of the medians' difference.
pub const SIGMAS: f64 = 3.0;
/// One-sided, about one in a hundred.
const RANK_Z: f64 = 2.33;

/// What a figure must keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Nanoseconds of the path, at most.
    Ns(f64),
    /// Times the limit, at most.
    Ratio(f64),
    /// None is stated.
    None,
}

/// One path and its limit, with a sample of each a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The path.
    pub path: String,
    /// What it cannot be faster than.
    pub limit: String,
    /// The promise.
    pub budget: Budget,
    /// Nanoseconds of the path, by round.
    pub path_ns: Vec<f64>,
    /// Nanoseconds of the limit, by round.
    pub limit_ns: Vec<f64>,
}

/// What a comparison says of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Change of the median ratio: 0.1 is a tenth slower.
    pub change: f64,
    /// What that change could be by chance alone, at [`SIGMAS`].
    pub noise: f64,
    /// Worse beyond noise.
    pub is_worse: bool,
}

impl Figure {
    /// Without samples yet.
    pub fn new(path: &str, limit: &str, budget: Budget) -> Figure {
        Figure { path: path.into(), limit: limit.into(), budget, path_ns: Vec::new(), limit_ns: Vec::new() }
    }

    /// Path over limit, by round.
    pub fn ratios(&self) -> Vec<f64> {
        self.path_ns.iter().zip(&self.limit_ns).map(|(p, l)| p / l).collect()
    }

    /// Whether the medians keep the budget.
    pub fn is_kept(&self) -> bool {
        match self.budget {
            Budget::Ns(ns) => median(&self.path_ns) <= ns,
            Budget::Ratio(r) => median(&self.ratios()) <= r,
            Budget::None => true,
        }
    }

    /// Judges this figure beside the same one of an earlier or other build.
    pub fn against(&self, base: &Figure) -> Verdict {
        judge(&base.ratios(), &self.ratios())
    }

    fn to_json(&self) -> Value {
        let budget = match self.budget {
            Budget::Ns(ns) => json!({"ns": ns}),
            Budget::Ratio(r) => json!({"ratio": r}),
            Budget::None => Value::Null,
        };
        json!({
            "path": self.path, "limit": self.limit, "budget": budget, "kept": self.is_kept(),
            "median_ns": median(&self.path_ns), "limit_median_ns": median(&self.limit_ns),
            "ratio": median(&self.ratios()),
            "samples_ns": self.path_ns, "limit_samples_ns": self.limit_ns,
        })
    }

    fn from_json(v: &Value) -> Option<Figure> {
        let numbers = |key: &str| v[key].as_array().map(|a| a.iter().filter_map(Value::as_f64).collect::<Vec<_>>());
        let budget = match (&v["budget"]["ns"], &v["budget"]["ratio"]) {
            (Value::Number(n), _) => Budget::Ns(n.as_f64()?),
            (_, Value::Number(n)) => Budget::Ratio(n.as_f64()?),
            _ => Budget::None,
        };
        Some(Figure {
            path: v["path"].as_str()?.to_owned(),
            limit: v["limit"].as_str()?.to_owned(),
            budget,
            path_ns: numbers("samples_ns")?,
            limit_ns: numbers("limit_samples_ns")?,
        })
    }
}

/// A run as JSON.
pub fn to_json(figures: &[Figure]) -> Value {
    json!({"format": 1, "figures": figures.iter().map(Figure::to_json).collect::<Vec<_>>()})
}

/// A run from its JSON.
///
/// # Errors
/// What is wrong with the text.
pub fn from_json(text: &str) -> Result<Vec<Figure>, String> {
    let v: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if v["format"] != json!(1) {
        return Err("not a file of figures, or one of another build".into());
    }
    let figures = v["figures"].as_array().ok_or("no figures")?;
    figures
        .iter()
        .map(|f| Figure::from_json(f).ok_or_else(|| format!("a figure is incomplete: {}", f["path"])))
        .collect()
}

/// A run as a table.
pub fn to_text(figures: &[Figure]) -> String {
    let mut out = String::from(
        "| path | takes | its limit | takes | ratio (quartiles) | budget | |\n|---|---|---|---|---|---|---|\n",
    );
    for f in figures {
        let ratios = f.ratios();
        let budget = match f.budget {
            Budget::Ns(ns) => format!("{} at most", span(ns)),
            Budget::Ratio(r) => format!("{r:.2} x at most"),
            Budget::None => String::new(),
        };
        let kept = match (f.budget, f.is_kept()) {
            (Budget::None, _) => "",
            (_, true) => "kept",
            (_, false) => "**missed**",
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {:.2} ({:.2}..{:.2}) | {budget} | {kept} |",
            f.path,
            span(median(&f.path_ns)),
            f.limit,
            span(median(&f.limit_ns)),
            median(&ratios),
            quantile(&ratios, 0.25),
            quantile(&ratios, 0.75),
        );
    }
    out
}

/// A comparison as a table, and how many figures are worse. Figures that only one run has are left out.
pub fn compare(base: &[Figure], now: &[Figure]) -> (String, usize) {
    let mut out = String::from("| path | ratio then | ratio now | change | noise | |\n|---|---|---|---|---|---|\n");
    let mut worse = 0;
    for f in now {
        let Some(b) = base.iter().find(|b| b.path == f.path && b.limit == f.limit) else { continue };
        let v = f.against(b);
        worse += usize::from(v.is_worse);
        let mark = if v.is_worse { "**worse**" } else { "" };
        let _ = writeln!(
            out,
            "| {} | {:.3} | {:.3} | {:+.1} % | {:.1} % | {mark} |",
            f.path,
            median(&b.ratios()),
            median(&f.ratios()),
            v.change * 100.0,
            v.noise * 100.0
        );
    }
    (out, worse)
}

/// A run as a plot: a bar a path, as long as its ratio on a logarithmic scale, its budget as a mark.
pub fn to_svg(figures: &[Figure]) -> String {
    const LEFT: f64 = 430.0;
    const WIDTH: f64 = 520.0;
    const ROW: f64 = 26.0;
    let decades = figures.iter().map(|f| median(&f.ratios())).fold(10f64, f64::max).log10().ceil().max(1.0);
    let at = |ratio: f64| LEFT + WIDTH * ((ratio.max(0.1).log10() + 1.0) / (decades + 1.0)).clamp(0.0, 1.0);
    let height = ROW * (figures.len() as f64 + 2.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        LEFT + WIDTH + 90.0
    );
    for decade in -1..=decades as i32 {
        let (x, label) = (at(10f64.powi(decade)), 10f64.powi(decade));
        let _ = writeln!(
            out,
            "<line x1=\"{x:.0}\" y1=\"20\" x2=\"{x:.0}\" y2=\"{height:.0}\" stroke=\"{}\"/><text x=\"{x:.0}\" y=\"14\" \
             text-anchor=\"middle\">{label} x</text>",
            if decade == 0 { "#555" } else { "#ddd" }
        );
    }
    for (i, f) in figures.iter().enumerate() {
        let y = ROW * (i as f64 + 1.2);
        let ratio = median(&f.ratios());
        let (from, to) = (at(0.1), at(ratio));
        let fill = if f.is_kept() { "#4a7fb5" } else { "#c0504d" };
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{} / {}</text><rect x=\"{from:.0}\" y=\"{y:.0}\" \
             width=\"{:.0}\" height=\"14\" fill=\"{fill}\"/><text x=\"{:.0}\" y=\"{:.0}\">{ratio:.2}</text>",
            LEFT - 8.0,
            y + 12.0,
            escaped(&f.path),
            escaped(&f.limit),
            (to - from).max(1.0),
            to + 4.0,
            y + 12.0
        );
        let budget = match f.budget {
            Budget::Ratio(r) => Some(r),
            Budget::Ns(ns) => Some(ns / median(&f.limit_ns)),
            Budget::None => None,
        };
        if let Some(x) = budget.map(at) {
            let _ = writeln!(
                out,
                "<line x1=\"{x:.0}\" y1=\"{:.0}\" x2=\"{x:.0}\" y2=\"{:.0}\" stroke=\"#000\" stroke-width=\"2\"/>",
                y - 3.0,
                y + 17.0
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn span(ns: f64) -> String {
    match ns {
        n if n >= 1e6 => format!("{:.2} ms", n / 1e6),
        n if n >= 1e3 => format!("{:.2} us", n / 1e3),
        n => format!("{n:.0} ns"),
    }
}

/// The middle; of an even number the mean of the two in the middle. Zero of none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = q * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// Judges ratios of a run beside those of its base; see the head of this module.
fn judge(base: &[f64], now: &[f64]) -> Verdict {
    let logs = |v: &[f64]| v.iter().map(|r| r.ln()).collect::<Vec<_>>();
    let (base, now) = (logs(base), logs(now));
    let change = median(&now) - median(&base);
    let error = |v: &[f64]| {
        let middle = median(v);
        let deviations: Vec<f64> = v.iter().map(|x| (x - middle).abs()).collect();
        1.2533 * 1.4826 * median(&deviations) / (v.len().max(1) as f64).sqrt()
    };
    let noise = SIGMAS * error(&base).hypot(error(&now));
    let is_worse = change > LEAST_CHANGE.ln_1p() && change > noise && rank_z(&base, &now) > RANK_Z;
    Verdict { change: change.exp_m1(), noise: noise.exp_m1(), is_worse }
}

/// How many standard deviations the rank sum test finds `now` above `base`; ties count half.
fn rank_z(base: &[f64], now: &[f64]) -> f64 {
    let (n, m) = (base.len() as f64, now.len() as f64);
    if n == 0.0 || m == 0.0 {
        return 0.0;
    }
    let wins: f64 = now
        .iter()
        .flat_map(|x| {
            base.iter().map(move |y| match x.total_cmp(y) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            })
        })
        .sum();
    (wins - n * m / 2.0) / (n * m * (n + m + 1.0) / 12.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_base::entropy::SeededEntropy;

    /// A ratio with ten percent of noise, and now and then something that took three times as long.
    fn noisy(rng: &mut SeededEntropy, rounds: usize, middle: f64) -> Vec<f64> {
        let mut unit = || rng.next_u64() as f64 / u64::MAX as f64;
        (0..rounds)
            .map(|_| {
                let bell = (0..6).map(|_| unit()).sum::<f64>() / 3.0 - 1.0;
                let slow = if unit() < 0.05 { 3.0 } else { 1.0 };
                middle * (0.2 * bell).exp() * slow
            })
            .collect()
    }

    #[test]
    fn noise_is_no_regression_and_a_regression_is_found() {
        let rng = &mut SeededEntropy(5);
        let (mut false_alarms, mut found) = (0, 0);
        for _ in 0..500 {
            let base = noisy(rng, 15, 2.0);
            false_alarms += usize::from(judge(&base, &noisy(rng, 15, 2.0)).is_worse);
            found += usize::from(judge(&base, &noisy(rng, 15, 2.6)).is_worse);
        }
        assert!(false_alarms <= 5, "{false_alarms} of 500");
        assert!(found >= 475, "{found} of 500");
    }

    #[test]
    fn what_is_small_or_better_is_never_worse() {
        let base: Vec<f64> = (0..20).map(|i| 1.0 + f64::from(i) * 1e-6).collect();
        let scaled = |by: f64| base.iter().map(|x| x * by).collect::<Vec<_>>();
        assert!(!judge(&base, &scaled(1.04)).is_worse, "beyond noise, but not worth it");
        assert!(judge(&base, &scaled(1.06)).is_worse);
        assert!(!judge(&base, &scaled(0.5)).is_worse);
        assert!(!judge(&base, &[]).is_worse && !judge(&[], &base).is_worse);
    }

    #[test]
    fn a_run_survives_its_json() {
        let mut a = Figure::new("a & b", "limit", Budget::Ns(1500.0));
        (a.path_ns, a.limit_ns) = (vec![1000.0, 1200.0, 1100.0], vec![500.0, 600.0, 550.0]);
        let mut b = Figure { budget: Budget::Ratio(1.5), path: "b".into(), ..a.clone() };
        b.path_ns = vec![2000.0, 2000.0, 2000.0];
        let run = vec![a, b];
        assert_eq!(from_json(&to_json(&run).to_string()), Ok(run.clone()));
        assert!(run[0].is_kept() && !run[1].is_kept());
        let text = to_text(&run);
        assert!(text.contains("2.00 (2.00..2.00)") && text.contains("**missed**") && text.contains("1.50 us"));
        assert!(to_svg(&run).contains("a &amp; b"));
        let (table, worse) = compare(&run, &run);
        assert_eq!((table.lines().count(), worse), (4, 0));
        assert!(from_json("{}").is_err());
    }
}
