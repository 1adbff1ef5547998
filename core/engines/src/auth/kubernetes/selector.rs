//! Label selectors of Kubernetes (`matchLabels`, `matchExpressions`), in JSON.

use serde_json::Value;
use std::collections::BTreeMap;

/// A selector. Everything that it says must hold.
#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Selector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Debug, PartialEq, serde::Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Reads a selector. One that says nothing would select everything and is refused.
    pub fn parse(text: &str) -> Result<Selector, String> {
        let selector: Selector =
            serde_json::from_str(text).map_err(|e| format!("it is not a label selector in JSON: {e}"))?;
        if selector == Selector::default() {
            return Err("it selects everything".into());
        }
        Ok(selector)
    }

    /// True if an object's labels fit.
    pub fn selects(&self, labels: &Value) -> bool {
        let label = |key: &str| labels.get(key).and_then(Value::as_str);
        let plain = self.match_labels.iter().all(|(k, v)| label(k) == Some(v));
        plain
            && self.match_expressions.iter().all(|e| {
                let found = label(&e.key);
                let among = found.is_some_and(|f| e.values.iter().any(|v| v == f));
                match e.operator {
                    Operator::In => among,
                    Operator::NotIn => !among,
                    Operator::Exists => found.is_some(),
                    Operator::DoesNotExist => found.is_none(),
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors() {
        let s = Selector::parse(
            r#"{"matchLabels":{"team":"a"},"matchExpressions":[{"key":"env","operator":"In","values":["dev","ci"]},
            {"key":"old","operator":"DoesNotExist"}]}"#,
        )
        .unwrap();
        assert!(s.selects(&json!({"team": "a", "env": "ci"})));
        assert!(!s.selects(&json!({"team": "b", "env": "ci"})) && !s.selects(&json!({"team": "a"})));
        assert!(!s.selects(&json!({"team": "a", "env": "ci", "old": ""})) && !s.selects(&Value::Null));
        for bad in [
            "",
            "{}",
            "[]",
            "team: a",
            r#"{"matchLabel":{}}"#,
            r#"{"matchExpressions":[{"key":"a","operator":"Gt"}]}"#,
        ] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
    }
}
