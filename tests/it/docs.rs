//! `docs/api.md` beside the tables that the server routes by: what it says is served, differs or is missing, is so.

use ringfence_node::registry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const BEGIN: &str = "<!-- served: written by tests/it/docs.rs -->\n";
const END: &str = "<!-- served: end -->";

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md")
}

/// A route with the names of its parameters left out: `:name`, `{name}` and `{name:any}` are one.
fn shape(path: &str) -> String {
    let trimmed = path.trim_matches('/').trim_end_matches("/?");
    let segments = trimmed.split('/').map(|s| if s.starts_with(['{', ':']) { "{}" } else { s });
    segments.collect::<Vec<_>>().join("/")
}

/// Where the one mount of a type stands, or how a mount of it is named.
fn root_of(kind: &str, is_auth: bool) -> String {
    match (kind, is_auth) {
        ("system", _) => "sys/".into(),
        ("identity" | "cubbyhole", _) => format!("{kind}/"),
        ("token", _) => "auth/token/".into(),
        (kind, true) => format!("auth/<{kind}>/"),
        (kind, false) => format!("<{kind}>/"),
    }
}

/// The served part of the page, and the shapes of all paths in it.
fn served() -> (String, BTreeSet<String>, BTreeSet<String>) {
    let registry = registry();
    let (mut sections, mut shapes, mut kinds) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    for engine in registry.iter() {
        let table = engine.engine.table();
        let class = format!("{:?}", table.class).to_lowercase();
        kinds.insert(format!("{class}/{}", table.kind));
        let root = root_of(table.kind, class == "auth");
        let mut text = format!(
            "### {class} `{}`\n\n{}\n\n| Path | Operations | Access |\n|---|---|---|\n",
            engine.name, table.help
        );
        for p in table.paths {
            let there = [
                ("R", p.read.is_some()),
                ("L", p.list.is_some()),
                ("S", p.scan.is_some()),
                ("W", p.write.is_some()),
                ("P", p.patch.is_some()),
                ("D", p.delete.is_some()),
            ];
            let operations: Vec<&str> = there.iter().filter(|(_, yes)| *yes).map(|(letter, _)| *letter).collect();
            let access = format!("{:?}", p.access).to_lowercase().replace("token", "");
            let pattern = format!("{root}{}", p.pattern.trim_end_matches("/?"));
            shapes.insert(shape(&pattern));
            text.push_str(&format!("| `{}` | {} | {access} |\n", pattern.replace('|', "\\|"), operations.join(" ")));
        }
        sections.insert((class, engine.name), text);
    }
    (sections.into_values().collect::<Vec<_>>().join("\n"), shapes, kinds)
}

/// The paths in the first column of the tables of one chapter.
fn rows<'p>(page: &'p str, chapter: &str) -> Vec<&'p str> {
    let from = page.find(&format!("\n## {chapter}\n")).unwrap_or_else(|| panic!("no chapter {chapter}"));
    let rest = &page[from + 4..];
    let chapter = &rest[..rest.find("\n## ").unwrap_or(rest.len())];
    chapter.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect()
}

#[test]
fn the_page_says_what_the_tables_say() {
    let page_text = std::fs::read_to_string(page()).expect("docs/api.md");
    let (now, shapes, kinds) = served();
    let from = page_text.find(BEGIN).expect("the mark of the beginning") + BEGIN.len();
    let to = page_text.find(END).expect("the mark of the end");
    if std::env::var_os("RINGFENCE_WRITE_DOCS").is_some() {
        let whole = format!("{}\n{now}\n{}", &page_text[..from], &page_text[to..]);
        std::fs::write(page(), whole).expect("written");
        return;
    }
    let same = page_text[from..to].trim() == now.trim();
    assert!(same, "docs/api.md is not what the tables say: run this test with RINGFENCE_WRITE_DOCS=1");
    let outside = &page_text[page_text.find("Outside the tables").expect("the list")..from];
    for path in rows(&page_text, "What differs") {
        let there = shapes.contains(&shape(path)) || outside.contains(&format!("`{path}`"));
        assert!(there, "{path} is said to differ and is not served");
    }
    let missing = rows(&page_text, "What is missing");
    assert!(missing.len() > 30, "{missing:?}");
    for path in missing {
        let there = shapes.contains(&shape(path)) || kinds.contains(path);
        assert!(!there, "{path} is said to be missing and is served: take its row out");
    }
}
