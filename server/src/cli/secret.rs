//! The envelope of the API as the command line sees it, and its printed forms.

use super::output::{go_quoted_list, go_value, human, human_seconds, looks_like_duration};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// An answer of the API. Field order is the order of `-format=json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Secret {
    /// Id of the request.
    #[serde(default)]
    pub request_id: String,
    /// Lease, or empty.
    #[serde(default)]
    pub lease_id: String,
    /// Seconds.
    #[serde(default)]
    pub lease_duration: i64,
    /// Whether the lease can be renewed.
    #[serde(default)]
    pub renewable: bool,
    /// What the engine answered.
    #[serde(default)]
    pub data: Option<Map<String, Value>>,
    /// Warnings.
    #[serde(default)]
    pub warnings: Option<Vec<String>>,
    /// A token, if one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// A wrapping token, if the answer was wrapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrap_info: Option<WrapInfo>,
    /// Type of the engine that answered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mount_type: String,
}

/// A token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Auth {
    /// The token.
    #[serde(default)]
    pub client_token: String,
    /// Its accessor.
    #[serde(default)]
    pub accessor: String,
    /// All its policies.
    #[serde(default, deserialize_with = "null_is_default")]
    pub policies: Vec<String>,
    /// Policies of the token itself.
    #[serde(default, deserialize_with = "null_is_default", serialize_with = "empty_is_null")]
    pub token_policies: Vec<String>,
    /// Policies of its entity and groups.
    #[serde(default, deserialize_with = "null_is_default", serialize_with = "empty_is_null")]
    pub identity_policies: Vec<String>,
    /// Metadata.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
    /// Made without a parent.
    #[serde(default)]
    pub orphan: bool,
    /// Its entity.
    #[serde(default)]
    pub entity_id: String,
    /// Seconds it lives.
    #[serde(default)]
    pub lease_duration: i64,
    /// Whether it can be renewed.
    #[serde(default)]
    pub renewable: bool,
    /// A second factor that is still owed.
    #[serde(default)]
    pub mfa_requirement: Option<Value>,
}

/// A wrapping token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WrapInfo {
    /// The token.
    #[serde(default)]
    pub token: String,
    /// Its accessor.
    #[serde(default)]
    pub accessor: String,
    /// Seconds it lives.
    #[serde(default)]
    pub ttl: i64,
    /// When it was made.
    #[serde(default)]
    pub creation_time: String,
    /// Path whose answer it holds.
    #[serde(default)]
    pub creation_path: String,
    /// Accessor of the token inside.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub wrapped_accessor: String,
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// A list that the answer left out is written as null, not as empty.
fn empty_is_null<S: serde::Serializer>(list: &[String], to: S) -> Result<S::Ok, S::Error> {
    Some(list).filter(|list| !list.is_empty()).serialize(to)
}

impl Secret {
    /// Reads an answer. No body is no secret.
    pub fn parse(body: &[u8]) -> Result<Option<Secret>, String> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        serde_json::from_slice(body)
            .map(Some)
            .map_err(|error| format!("the server's answer is not understood: {error}"))
    }

    /// A value of `data`.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.data.as_ref().and_then(|data| data.get(name))
    }

    /// The keys of a list answer.
    pub fn keys(&self) -> Option<&Vec<Value>> {
        self.field("keys").and_then(Value::as_array)
    }

    /// Whether the answer was wrapped.
    pub fn is_wrapped(&self) -> bool {
        self.wrap_info.as_ref().is_some_and(|wrap| wrap.ttl != 0)
    }

    /// The value that `-field` asks for.
    pub fn named(&self, name: &str) -> Option<Value> {
        let found = match (&self.auth, &self.wrap_info) {
            (Some(auth), _) => match name {
                "token" => Some(json!(auth.client_token)),
                "token_accessor" => Some(json!(auth.accessor)),
                "token_duration" => Some(json!(auth.lease_duration)),
                "token_renewable" => Some(json!(auth.renewable)),
                "token_policies" => Some(json!(auth.token_policies)),
                "identity_policies" => Some(json!(auth.identity_policies)),
                "policies" => Some(json!(auth.policies)),
                _ => None,
            },
            (None, Some(wrap)) => match name {
                "wrapping_token" => Some(json!(wrap.token)),
                "wrapping_accessor" => Some(json!(wrap.accessor)),
                "wrapping_token_ttl" => Some(json!(wrap.ttl)),
                "wrapping_token_creation_time" => Some(json!(wrap.creation_time)),
                "wrapping_token_creation_path" => Some(json!(wrap.creation_path)),
                "wrapped_accessor" => Some(json!(wrap.wrapped_accessor)),
                _ => None,
            },
            (None, None) => match name {
                "lease_duration" | "refresh_interval" => Some(json!(self.lease_duration)),
                "lease_id" => Some(json!(self.lease_id)),
                "request_id" => Some(json!(self.request_id)),
                "renewable" => Some(json!(self.renewable)),
                "data" => Some(self.field("data").cloned().unwrap_or_else(|| json!(self.data))),
                _ => None,
            },
        };
        found.or_else(|| self.field(name).cloned()).filter(|value| !value.is_null())
    }

    /// The rows of the table.
    pub fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let mut add = |key: &str, value: String| rows.push((key.to_owned(), value));
        if self.lease_duration > 0 {
            let duration = human(self.lease_duration);
            if self.lease_id.is_empty() {
                // an engine that leases nothing says how soon to read again
                add("refresh_interval", duration);
            } else {
                add("lease_id", self.lease_id.clone());
                add("lease_duration", duration);
                add("lease_renewable", self.renewable.to_string());
            }
        }
        if let Some(auth) = &self.auth {
            match &auth.mfa_requirement {
                Some(requirement) => mfa_rows(requirement, &mut add),
                None => auth_rows(auth, &mut add),
            }
        }
        if let Some(wrap) = &self.wrap_info {
            add("wrapping_token:", wrap.token.clone());
            add("wrapping_accessor:", wrap.accessor.clone());
            add("wrapping_token_ttl:", human(wrap.ttl));
            add("wrapping_token_creation_time:", go_time(&wrap.creation_time));
            add("wrapping_token_creation_path:", wrap.creation_path.clone());
            if !wrap.wrapped_accessor.is_empty() {
                add("wrapped_accessor:", wrap.wrapped_accessor.clone());
            }
        }
        for (key, value) in self.data.iter().flatten() {
            add(key, if looks_like_duration(key) { human_seconds(value) } else { go_value(value) });
        }
        rows
    }
}

fn auth_rows(auth: &Auth, add: &mut impl FnMut(&str, String)) {
    add("token", auth.client_token.clone());
    add("token_accessor", auth.accessor.clone());
    let forever = auth.lease_duration == 0;
    add("token_duration", if forever { "∞".to_owned() } else { human(auth.lease_duration) });
    add("token_renewable", auth.renewable.to_string());
    add("token_policies", go_quoted_list(&auth.token_policies));
    add("identity_policies", go_quoted_list(&auth.identity_policies));
    add("policies", go_quoted_list(&auth.policies));
    for (key, value) in auth.metadata.iter().flatten() {
        add(&format!("token_meta_{key}"), go_value(value));
    }
}

fn mfa_rows(requirement: &Value, add: &mut impl FnMut(&str, String)) {
    add("mfa_request_id", requirement["mfa_request_id"].as_str().unwrap_or_default().to_owned());
    for (name, constraint) in requirement["mfa_constraints"].as_object().into_iter().flatten() {
        for method in constraint["any"].as_array().into_iter().flatten() {
            let kind = method["type"].as_str().unwrap_or_default();
            let prefix = format!("mfa_constraint_{name}_{kind}");
            add(&format!("{prefix}_id"), method["id"].as_str().unwrap_or_default().to_owned());
            add(
                &format!("{prefix}_uses_passcode"),
                method["uses_passcode"].as_bool().unwrap_or_default().to_string(),
            );
            if let Some(name) = method["name"].as_str().filter(|name| !name.is_empty()) {
                add(&format!("{prefix}_name"), name.to_owned());
            }
        }
    }
}

/// A time of the API as Go prints one: `2024-01-01 00:00:00.5 +0000 UTC`.
fn go_time(text: &str) -> String {
    match text.split_once('T') {
        Some((day, time)) => match time.strip_suffix('Z') {
            Some(time) => format!("{day} {time} +0000 UTC"),
            None => match time.rfind(['+', '-']) {
                Some(at) => {
                    let zone = time[at..].replace(':', "");
                    format!("{day} {} {zone} {}", &time[..at], if zone == "+0000" { "UTC" } else { &zone })
                }
                None => text.to_owned(),
            },
        },
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::key_value;

    #[test]
    fn the_token_table() {
        let body = br#"{"request_id":"r","lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":null,
            "warnings":null,"auth":{"client_token":"hvs.x","accessor":"a","policies":["root"],"token_policies":["root"],
            "metadata":{"who":"me"},"lease_duration":0,"renewable":false}}"#;
        let secret = Secret::parse(body).unwrap().unwrap();
        assert_eq!(
            key_value(secret.rows()),
            "Key                  Value\n---                  -----\ntoken                hvs.x\n\
             token_accessor       a\ntoken_duration       ∞\ntoken_renewable      false\n\
             token_policies       [\"root\"]\nidentity_policies    []\npolicies             [\"root\"]\n\
             token_meta_who       me"
        );
        assert_eq!(secret.named("token"), Some(json!("hvs.x")));
        assert_eq!(secret.named("nothing"), None);
        let shown = serde_json::to_value(&secret).unwrap();
        assert_eq!(
            (&shown["auth"]["identity_policies"], &shown["auth"]["policies"]),
            (&Value::Null, &json!(["root"]))
        );
    }

    #[test]
    fn times() {
        assert_eq!(go_time("2024-01-01T00:00:00.5Z"), "2024-01-01 00:00:00.5 +0000 UTC");
        assert_eq!(go_time("2024-01-01T02:00:00+02:00"), "2024-01-01 02:00:00 +0200 +0200");
    }

    #[test]
    fn nothing_is_no_secret() {
        assert!(Secret::parse(b" \n").unwrap().is_none());
        assert!(Secret::parse(b"[]x").is_err());
    }
}
