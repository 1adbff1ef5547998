//! The report: one page that a stranger can read in a browser, with everything in it, and JUnit for CI.

mod junit;
mod plot;

use crate::check::{self, Verdict};
use crate::history::{Call, History, Kind, Span};
use crate::run::Outcome;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Writes `index.html`, `junit.xml` and `result.json` beside the history.
///
/// # Errors
/// The folder cannot be written.
pub fn write(folder: &Path, o: &Outcome) -> std::io::Result<()> {
    std::fs::write(folder.join("index.html"), page(folder, o))?;
    std::fs::write(folder.join("junit.xml"), junit::text(o))?;
    let result = serde_json::json!({
        "facts": o.facts,
        "verdict": check::worst(&o.findings),
        "findings": o.findings,
        "availability": availability(&o.history).iter().map(|a| serde_json::json!({
            "during": a.during, "seconds": a.seconds, "calls": a.calls, "ok": a.ok, "longest_silence_s": a.silence,
        })).collect::<Vec<_>>(),
    });
    std::fs::write(folder.join("result.json"), serde_json::to_vec_pretty(&result)?)
}

/// Text as HTML and XML want it.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no other control characters
            c if c.is_control() && c != '\n' && c != '\t' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// How well the cluster served while a fault was at work.
struct Availability {
    during: String,
    seconds: f64,
    calls: usize,
    ok: usize,
    /// Longest time without any answer, seconds.
    silence: f64,
}

/// Calls that were answered well or refused on purpose: the server served.
fn is_served(c: &Call) -> bool {
    let refused = c.error.as_deref().is_some_and(|e| e == "cas" || e == check::REFUSED);
    c.end == Kind::Ok || (c.end == Kind::Fail && refused)
}

fn availability(h: &History) -> Vec<Availability> {
    let mut groups: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for f in &h.faults {
        groups.entry(&f.name).or_default().push((f.from, f.to));
    }
    let mut all: Vec<(u64, u64)> = h.faults.iter().map(|f| (f.from, f.to)).collect();
    all.sort_unstable();
    let (mut free, mut at) = (Vec::new(), 0);
    for (from, to) in all {
        if from > at {
            free.push((at, from));
        }
        at = at.max(to);
    }
    if h.end > at {
        free.push((at, h.end));
    }
    let row = |during: &str, spans: &[(u64, u64)]| {
        let within = |t: u64| spans.iter().any(|(a, b)| (*a..=*b).contains(&t));
        let calls: Vec<&Call> = h.calls.iter().filter(|c| within(c.invoked)).collect();
        let mut silence = 0;
        for (a, b) in spans {
            let mut ends: Vec<u64> =
                h.calls.iter().filter(|c| is_served(c)).map(|c| c.left).filter(|t| (a..=b).contains(&t)).collect();
            ends.push(*b);
            ends.sort_unstable();
            let mut last = *a;
            for e in ends {
                silence = silence.max(e - last);
                last = e;
            }
        }
        Availability {
            during: during.to_owned(),
            seconds: spans.iter().map(|(a, b)| b - a).sum::<u64>() as f64 / 1e9,
            calls: calls.len(),
            ok: calls.iter().filter(|c| is_served(c)).count(),
            silence: silence as f64 / 1e9,
        }
    };
    let mut rows = vec![row("no fault", &free)];
    rows.extend(groups.iter().map(|(name, spans)| row(name, spans)));
    rows
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;width:100%}\
td,th{border-bottom:1px solid #ddd;padding:.35em .6em;text-align:left;vertical-align:top}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}code{background:#f4f4f4;padding:0 .25em}\
.passed{color:#176d2b;font-weight:600}.broken{color:#b3171c;font-weight:700}.unknown{color:#8a5a00;font-weight:600}\
.note{color:#555;font-size:.92em;overflow-wrap:anywhere}svg{width:100%;height:auto;background:#fff}figure{margin:1em 0}\
figcaption{color:#555;font-size:.92em}";

fn word(v: Verdict) -> &'static str {
    match v {
        Verdict::Passed => "passed",
        Verdict::Broken => "broken",
        Verdict::Unknown => "unknown",
    }
}

fn page(folder: &Path, o: &Outcome) -> String {
    let (f, h) = (&o.facts, &o.history);
    let worst = check::worst(&o.findings);
    let mut p = String::with_capacity(1 << 20);
    let title = format!("{}: {}", f.scenario, word(worst));
    p.push_str("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">");
    p.push_str("<meta name=\"viewport\" content=\"width=device-width\">");
    add(&mut p, format_args!("<title>{}</title><style>{STYLE}</style>", escape(&title)));
    add(
        &mut p,
        format_args!("<h1>{}: <span class=\"{}\">{}</span></h1>", escape(&f.scenario), word(worst), word(worst)),
    );
    if f.interrupted {
        p.push_str("<p class=\"unknown\">Interrupted: what follows is about the part that was run.</p>");
    }
    let facts = [
        ("seed", f.seed.to_string()),
        ("server", f.build.clone()),
        ("nodes", format!("{} over {}", f.nodes, f.network)),
        ("workloads", f.workloads.join(", ")),
        ("faults", if f.faults.is_empty() { "none".into() } else { f.faults.join(", ") }),
        ("left out", f.left_out.join("; ")),
        ("length", format!("{:.1} s, {} calls, {} faults", f.seconds, h.calls.len(), h.faults.len())),
        ("command", f.command.clone()),
    ];
    p.push_str("<table>");
    for (name, text) in facts.iter().filter(|(_, t)| !t.is_empty()) {
        add(&mut p, format_args!("<tr><th>{name}</th><td>{}</td></tr>", escape(text)));
    }
    p.push_str("</table><p>A call that got no answer is <em>unknown</em>: it may have been done, then or later, or never. \
                A verdict is <em>unknown</em> when the search ran out of time or nothing put the promise to the test; that \
                is not <em>passed</em>.</p><h2>Verdicts</h2><table><tr><th>promise</th><th>verdict</th></tr>");
    for v in &o.findings {
        let notes: Vec<String> = v.notes.iter().map(|n| escape(n)).collect();
        add(
            &mut p,
            format_args!(
                "<tr><td><strong>{}</strong><br>{}<div class=\"note\">{}</div></td><td class=\"{}\">{}</td></tr>",
                v.property,
                escape(v.promise),
                notes.join("<br>"),
                word(v.verdict),
                word(v.verdict)
            ),
        );
    }
    p.push_str("</table><h2>Latency</h2><figure>");
    p.push_str(&plot::latency(h));
    p.push_str(
        "<figcaption>Each call by when it began. Green was done, orange was certainly not done, red is unknown. Shaded: \
         faults.</figcaption></figure><h2>Rate</h2><figure>",
    );
    p.push_str(&plot::rate(h));
    p.push_str(
        "<figcaption>Calls ended in each half second, by how they ended.</figcaption></figure><h2>Timeline</h2><figure>",
    );
    p.push_str(&plot::timeline(h));
    p.push_str(
        "<figcaption>A row a fault, then a row a client. Point at a bar to read the call.</figcaption></figure>",
    );
    table_of_availability(&mut p, h);
    table_of_faults(&mut p, h);
    p.push_str(
        "<h2>Material</h2><ul><li><a href=\"history.jsonl\">history.jsonl</a>: every call and fault, a line each; \
                <code>ringfence-jepsen check history.jsonl</code> judges it again</li>\
                <li><a href=\"result.json\">result.json</a>, <a href=\"junit.xml\">junit.xml</a></li>",
    );
    let mut logs: Vec<String> = std::fs::read_dir(folder.join("nodes"))
        .map(|d| d.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    logs.sort();
    for name in logs.iter().map(|n| escape(n)) {
        add(
            &mut p,
            format_args!(
                "<li>{name}: <a href=\"nodes/{name}/log\">log</a>, <a href=\"nodes/{name}/config.hcl\">configuration</a></li>"
            ),
        );
    }
    p.push_str("</ul></html>\n");
    p
}

fn add(p: &mut String, text: std::fmt::Arguments<'_>) {
    // writing to a string cannot fail
    let _ = p.write_fmt(text);
}

fn table_of_availability(p: &mut String, h: &History) {
    p.push_str(
        "<h2>Availability</h2><table><tr><th>during</th><th class=\"n\">seconds</th><th class=\"n\">calls</th>\
         <th class=\"n\">served</th><th class=\"n\">longest silence</th></tr>",
    );
    for a in availability(h) {
        let share = if a.calls == 0 { 0.0 } else { 100.0 * a.ok as f64 / a.calls as f64 };
        add(
            p,
            format_args!(
                "<tr><td>{}</td><td class=\"n\">{:.1}</td><td class=\"n\">{}</td><td class=\"n\">{share:.1} %</td>\
                 <td class=\"n\">{:.2} s</td></tr>",
                escape(&a.during),
                a.seconds,
                a.calls,
                a.silence
            ),
        );
    }
    p.push_str("</table>");
}

fn table_of_faults(p: &mut String, h: &History) {
    p.push_str(
        "<h2>Faults</h2><table><tr><th>fault</th><th>where</th><th>what</th><th class=\"n\">from</th>\
         <th class=\"n\">to</th><th class=\"n\">first service after its end</th></tr>",
    );
    let mut served: Vec<u64> = h.calls.iter().filter(|c| is_served(c)).map(|c| c.left).collect();
    served.sort_unstable();
    for f in &h.faults {
        let at = served.partition_point(|t| *t < f.to);
        let again = served.get(at).map_or("never".into(), |t| format!("{:.2} s", (t - f.to) as f64 / 1e9));
        add(
            p,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td class=\"note\">{}</td><td class=\"n\">{:.2}</td><td class=\"n\">{:.2}</td>\
                 <td class=\"n\">{again}</td></tr>",
                escape(&f.name),
                escape(text_of(&f.about["on"]).as_str()),
                escape(&told(f)),
                f.from as f64 / 1e9,
                f.to as f64 / 1e9,
            ),
        );
    }
    p.push_str("</table>");
}

fn text_of(v: &serde_json::Value) -> String {
    v.as_str().map_or_else(|| if v.is_null() { String::new() } else { v.to_string() }, str::to_owned)
}

fn told(f: &Span) -> String {
    let (begun, ended) = (text_of(&f.about["what"]), text_of(&f.about["ended"]));
    if ended.is_empty() { begun } else { format!("{begun}; {ended}") }
}
