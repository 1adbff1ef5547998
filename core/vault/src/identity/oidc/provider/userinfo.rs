//! `identity/oidc/provider/:name/userinfo`: what an access token may be told (OpenID Connect Core 5.3). Everything is
//! judged anew: entity, client, assignment and provider as they stand at this request.

use super::{Wrong, access, answer, assignments, clients, providers, scopes, wrong};
use crate::identity;
use ringfence_base::Code;
use ringfence_logical::{Args, Cx, Error, Field, Map, Outcome, Path};
use serde_json::{Value, json};

/// The paths.
pub const PATHS: &[Path] = &[Path::new("oidc/provider/{name}/userinfo")
    .fields(&[Field::str("name", "Name of the provider.")])
    .help("Userinfo endpoint of an OpenID provider.", "")
    .public()
    .read(userinfo)
    .write(userinfo)];

fn userinfo(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let why = match judge(cx, args.str("name"))? {
        Ok(claims) => return answer(Code::Ok, &Value::Object(claims), &[]),
        Err(why) => why,
    };
    let body = json!({"error": why.error, "error_description": why.description});
    // RFC 6750 3
    let challenge = format!("Bearer error={:?},error_description={:?}", why.error, why.description);
    let headers = [("WWW-Authenticate", challenge.as_str())];
    match why.error {
        "invalid_token" => answer(Code::Custom(401), &body, &headers),
        "access_denied" => answer(Code::Denied, &body, &[]),
        _ => answer(Code::Invalid, &body, &headers),
    }
}

fn judge(cx: &mut Cx<'_, '_>, name: &str) -> Result<Result<Map, Wrong>, Error> {
    let Some(provider) = providers::find(cx, name)? else {
        return Ok(wrong("invalid_request", "provider not found"));
    };
    let access = match access::shown(cx, name)? {
        Ok(access) => access,
        Err(why) => return Ok(Err(why)),
    };
    let Some(client) = clients::by_id(cx, &access.client_id)? else {
        return Ok(wrong("access_denied", "client not found"));
    };
    let Some(entity) = identity::find(cx.txn, cx.mount.ns, &access.entity_id)? else {
        return Ok(wrong("access_denied", "identity entity associated with the request not found"));
    };
    if !assignments::admits(cx, &client.assignments, &entity)? {
        return Ok(wrong("access_denied", "identity entity not authorized by client assignment"));
    }
    if !provider.allows(&access.client_id) {
        return Ok(wrong("access_denied", "client is not authorized to use the provider"));
    }
    let told: Vec<String> = access.scopes.into_iter().filter(|s| provider.scopes_supported.contains(s)).collect();
    let subject = entity.id.clone();
    Ok(match scopes::claims(cx, &told, entity)? {
        Ok(mut claims) => {
            claims.insert("sub".into(), subject.into());
            Ok(claims)
        }
        Err(why) => wrong("invalid_request", why),
    })
}
