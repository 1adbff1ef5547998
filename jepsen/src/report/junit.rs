//! JUnit XML: a test case a property, as other people's CI reads it.

use super::escape;
use crate::check::Verdict;
use crate::run::Outcome;

/// The document. *Unknown* is an error, not a pass.
pub fn text(o: &Outcome) -> String {
    let count = |v| o.findings.iter().filter(|f| f.verdict == v).count();
    let name = escape(&o.facts.scenario);
    let mut x = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{}\" \
         errors=\"{}\" time=\"{:.3}\">\n    <properties>\n      <property name=\"seed\" value=\"{}\"/>\n      <property \
         name=\"build\" value=\"{}\"/>\n    </properties>\n",
        o.findings.len(),
        count(Verdict::Broken),
        count(Verdict::Unknown),
        o.facts.seconds,
        o.facts.seed,
        escape(&o.facts.build),
    );
    for f in &o.findings {
        let notes = escape(&f.notes.join("\n"));
        let inner = match f.verdict {
            Verdict::Passed => format!("<system-out>{notes}</system-out>"),
            Verdict::Broken => format!("<failure message=\"{}\">{notes}</failure>", escape(f.promise)),
            Verdict::Unknown => format!("<error message=\"unknown: {}\">{notes}</error>", escape(f.promise)),
        };
        x.push_str(&format!(
            "    <testcase classname=\"jepsen.{name}\" name=\"{}\">{inner}</testcase>\n",
            f.property
        ));
    }
    x.push_str("  </testsuite>\n</testsuites>\n");
    x
}
