//! Listings filtered by policy: a rule that grants a listing may say what each key stands for
//! (`list_scan_response_keys_filter_path`); keys whose path the caller has no right to are then left out.
//!
//! The text is a small template: `{{ .path }}` is the path of the listing, `{{ .key }}` the key, each with
//! `| replace "old" "new"` as often as wanted; everything else is text. A template that does not read shows no key at
//! all. Called by the pipeline between handler and answer.

use ringfence_logical::{Data, Response};
use ringfence_policy::Acl;
use serde_json::Value;
use std::rc::Rc;

/// What a policy says of a listing's answer.
pub struct Filter {
    /// The caller's policies.
    pub acl: Rc<Acl>,
    /// The template; `None` leaves all keys.
    pub template: Option<String>,
    /// Most keys; 0 = all.
    pub limit: u64,
}

impl Filter {
    /// Leaves out what the caller may not see. `ns_path` stands before every path.
    pub fn apply(&self, response: &mut Response, ns_path: &str, path: &str) {
        let Some(Data::Map(data)) = &mut response.data else { return };
        let Some(Value::Array(keys)) = data.get_mut("keys") else { return };
        if let Some(template) = &self.template {
            keys.retain(|key| key.as_str().is_some_and(|key| self.shows(template, ns_path, path, key)));
        }
        if let (true, Ok(limit)) = (self.limit > 0, usize::try_from(self.limit)) {
            keys.truncate(limit);
        }
        let kept: Vec<String> = keys.iter().filter_map(|k| k.as_str().map(str::to_owned)).collect();
        if let Some(Value::Object(info)) = data.get_mut("key_info") {
            info.retain(|key, _| kept.contains(key));
        }
        if kept.is_empty() {
            data.remove("keys");
            data.remove("key_info");
        }
    }

    fn shows(&self, template: &str, ns_path: &str, path: &str, key: &str) -> bool {
        let Some(target) = render(template, path, key) else { return false };
        let whole = format!("{ns_path}{}", target.trim_start_matches('/'));
        match key.ends_with('/') {
            // a folder is shown to who may do something in it
            true => self.acl.has_access_below(&whole),
            false => self.acl.any_capability(&whole),
        }
    }
}

/// Fills a template; `None` if it does not read.
fn render(template: &str, path: &str, key: &str) -> Option<String> {
    let (mut out, mut rest) = (String::new(), template);
    while let Some((text, after)) = rest.split_once("{{") {
        let (inner, beyond) = after.split_once("}}")?;
        out.push_str(text);
        let mut steps = inner.split('|').map(str::trim);
        let mut value = match steps.next()? {
            ".path" => path.to_owned(),
            ".key" => key.to_owned(),
            _ => return None,
        };
        for step in steps {
            let mut words = step.strip_prefix("replace")?.trim().split('"');
            let (before, old, between, new, end) =
                (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
            if !before.is_empty() || !between.trim().is_empty() || !end.is_empty() || words.next().is_some() {
                return None;
            }
            value = value.replace(old, new);
        }
        out.push_str(&value);
        rest = beyond;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        let r = |t: &str| render(t, "kv/metadata/a/", "k");
        assert_eq!(r("{{ .path }}{{ .key }}").as_deref(), Some("kv/metadata/a/k"));
        assert_eq!(r(r#"{{ .path | replace "kv/metadata/" "kv/data/" }}{{.key}}"#).as_deref(), Some("kv/data/a/k"));
        assert_eq!(r("pki/cert/{{.key}}").as_deref(), Some("pki/cert/k"));
        for bad in ["{{ .path", "{{ .nope }}", "{{ .key | upper }}", r#"{{ .key | replace "a" }}"#] {
            assert_eq!(r(bad), None, "{bad}");
        }
    }
}
