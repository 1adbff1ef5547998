//! Claims from a JSON text with places to fill: `{"who": {{identity.entity.name}}}`. A place is filled with a whole JSON
//! value, quotes included, so no name or metadata of anybody can add a claim or change another.

use crate::identity::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringfence_base::{Wall, duration};
use ringfence_logical::Map;
use ringfence_policy::template::{Field, TemplateSource};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Claims that a template may not set.
pub const RESTRICTED: [&str; 10] =
    ["iat", "aud", "exp", "iss", "sub", "namespace", "nonce", "at_hash", "c_hash", "auth_time"];

/// The claims of a template for somebody. What has no value is an empty text, object or list.
///
/// # Errors
/// A text for the client: a place that names nothing we know, or a text that is no JSON object when filled.
pub fn fill(text: &str, who: &Template, now: Wall) -> Result<Map, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let mut parts = text.split("{{");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (place, tail) = part.split_once("}}").ok_or("unbalanced templating characters")?;
        let value = value(place.trim(), who, now).ok_or_else(|| format!("invalid parameter: {:?}", place.trim()))?;
        out.push_str(&value.to_string());
        out.push_str(tail);
    }
    serde_json::from_str(&out).map_err(|_| "the filled template is no JSON object".to_owned())
}

/// A template as it is kept: it may come in base64.
pub fn plain(given: &str) -> String {
    let decoded = STANDARD.decode(given.trim()).ok().and_then(|b| String::from_utf8(b).ok());
    decoded.filter(|_| !given.trim().is_empty()).unwrap_or_else(|| given.to_owned())
}

/// Names of the claims that a template sets.
pub fn names(text: &str) -> Vec<String> {
    let claims = fill(text, &Template::default(), Wall(0)).unwrap_or_default();
    claims.into_iter().map(|(name, _)| name).collect()
}

/// Checks a template by filling it for nobody.
///
/// # Errors
/// As the API words them.
pub fn check(text: &str) -> Result<(), String> {
    let claims = fill(text, &Template::default(), Wall(0)).map_err(|e| format!("error parsing template: {e}"))?;
    match claims.keys().find(|k| RESTRICTED.contains(&k.as_str())) {
        Some(key) => Err(format!("top level key {key:?} not allowed. Restricted keys: {}", RESTRICTED.join(", "))),
        None => Ok(()),
    }
}

fn value(place: &str, who: &Template, now: Wall) -> Option<Value> {
    if let Some(rest) = place.strip_prefix("time.now") {
        return time(rest, now).map(Value::from);
    }
    let rest = place.strip_prefix("identity.entity.")?;
    let text = |found: Option<std::borrow::Cow<'_, str>>| Value::from(found.unwrap_or_default().into_owned());
    let object = |map: Option<&BTreeMap<String, String>>| map.map_or_else(|| json!({}), |m| json!(m));
    match rest {
        "id" => return Some(text(who.entity(Field::Id))),
        "name" => return Some(text(who.entity(Field::Name))),
        "metadata" => return Some(object(who.entity.as_ref().map(|e| &e.metadata))),
        "groups.names" => return Some(who.groups.iter().map(|(_, g)| g.name.clone()).collect()),
        "groups.ids" => return Some(who.groups.iter().map(|(_, g)| g.id.clone()).collect()),
        _ => {}
    }
    if let Some(key) = rest.strip_prefix("metadata.") {
        return Some(text(who.entity(Field::Metadata(key))));
    }
    let (accessor, field) = rest.strip_prefix("aliases.")?.split_once('.')?;
    let alias = || who.accessors.get(accessor).and_then(|m| who.entity.as_ref()?.alias_at(*m));
    Some(match field {
        "id" => text(who.alias(accessor, Field::Id)),
        "name" => text(who.alias(accessor, Field::Name)),
        "metadata" => object(alias().map(|a| &a.metadata)),
        "custom_metadata" => object(alias().map(|a| &a.custom_metadata)),
        _ => match (field.strip_prefix("metadata."), field.strip_prefix("custom_metadata.")) {
            (Some(key), _) => text(who.alias(accessor, Field::Metadata(key))),
            (_, Some(key)) => text(who.alias(accessor, Field::CustomMetadata(key))),
            _ => return None,
        },
    })
}

/// `""`, `.plus.1h`, `.minus.90s`: seconds since 1970.
fn time(rest: &str, now: Wall) -> Option<u64> {
    if rest.is_empty() {
        return Some(now.seconds());
    }
    let seconds = duration::parse_seconds;
    match (rest.strip_prefix(".plus."), rest.strip_prefix(".minus.")) {
        (Some(d), _) => Some(now.seconds().saturating_add(seconds(d)?)),
        (_, Some(d)) => Some(now.seconds().saturating_sub(seconds(d)?)),
        _ => None,
    }
}
