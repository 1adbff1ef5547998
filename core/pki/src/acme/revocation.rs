//! `revoke-cert`: by the account that the certificate was issued to, or by the certificate's own key.

use super::ACME;
use super::account::{Signer, signed};
use super::directory::{Problem, Reply};
use super::jws::is_key;
use crate::cert;
use crate::revoke;
use crate::store;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_logical::{Args, Cx, Outcome};
use serde_json::json;

/// `revoke-cert`.
pub fn revoke(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    signed(cx, args, |cx, _, _, asked| {
        let body = asked.jws.json()?;
        let der = URL_SAFE_NO_PAD
            .decode(body["certificate"].as_str().unwrap_or(""))
            .map_err(|_| Problem::malformed("certificate is not base64url"))?;
        if let Some(n) = body.get("reason").filter(|r| !r.is_null())
            && !n.as_u64().is_some_and(|n| matches!(n, 0..=6 | 8..=10))
        {
            return Err(Problem::new("badRevocationReason", "there is no such reason"));
        }
        let parsed = cert::parse(&der).map_err(Problem::malformed)?;
        let serial = cert::serial_text(&parsed.tbs_certificate.serial_number);
        let unknown = || Problem::malformed("the certificate was not issued here");
        let (issuer_id, stored) = store::certificate(cx, &serial)?.ok_or_else(unknown)?;
        if stored != der {
            return Err(unknown());
        }
        match &asked.signer {
            Signer::Account(a) => {
                let owner = cx.get(ACME, format!("serial/{serial}").as_bytes())?;
                if owner.as_deref() != Some(a.id.as_bytes()) {
                    return Err(Problem::new("unauthorized", "the certificate was issued to another account"));
                }
            }
            Signer::Key(jwk) => {
                if !is_key(jwk, &parsed.tbs_certificate.subject_public_key_info) {
                    return Err(Problem::new("unauthorized", "the key is not the certificate's"));
                }
            }
        }
        if store::revoked(cx, &serial)?.is_some() {
            return Err(Problem::new("alreadyRevoked", "the certificate was revoked before"));
        }
        revoke::revoke_certificate(cx, &revoke::Named { serial, der, issuer_id, stored: true })?;
        Ok(Reply { body: ("", Vec::new()), ..Reply::json(200, &json!(null)) })
    })
}
