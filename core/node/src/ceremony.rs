//! The key ceremonies that run over a threshold of shares while the node is unsealed: rekey with its verification,
//! root generation, and rotation of the keyring. The state machines are the barrier's; what they yield is committed
//! here before anybody is told.

use crate::control::{ControlCall, Endpoint};
use crate::owner::{Level, Owner, OwnerOut, Purpose, ShardId};
use crate::seal::{json_reply, refused, sealed, unsupported};
use crate::shard::{NotDone, Settled, Ticket};
use ringfence_barrier::rotate::{self, RotateConfig, Usage};
use ringfence_barrier::{
    Finished, GenerateParams, GenerateStep, KeyRecords, RekeyParams, RekeyStep, RekeyVerifyStep, SealError, Txn,
    decode_token, parse_share,
};
use ringfence_base::{Code, Entropy, entropy};
use ringfence_logical::{Args, Error, Operation, SideResult};
use ringfence_vault::call::Reply;
use ringfence_vault::token::mint;
use serde_json::{Value, json};

impl Owner {
    /// Rekey and root generation.
    pub(crate) fn ceremony(
        &mut self,
        asker: (ShardId, Ticket),
        call: &ControlCall,
        args: &Args,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Option<Reply> {
        match self.try_ceremony(asker, call, args, rng, out) {
            Ok(answer) => answer,
            Err(e) => Some(refused(&e)),
        }
    }

    pub(crate) fn try_ceremony(
        &mut self,
        asker: (ShardId, Ticket),
        call: &ControlCall,
        args: &Args,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Result<Option<Reply>, SealError> {
        let writes = matches!(call.op, Operation::Update | Operation::Create);
        let version = self.version.clone();
        Ok(match (call.endpoint, call.op) {
            (Endpoint::RekeyInit, Operation::Read) => {
                Some(json_reply(&rekey_json(&self.seal.rekey.status(&version)?)))
            }
            (Endpoint::RekeyInit, _) if writes => {
                let params = RekeyParams {
                    secret_shares: args.int("secret_shares"),
                    secret_threshold: args.int("secret_threshold"),
                    pgp_keys: args.list("pgp_keys"),
                    backup: args.bool("backup"),
                    require_verification: args.bool("require_verification"),
                };
                Some(json_reply(&rekey_json(&self.seal.rekey.start(&params, &version, rng)?)))
            }
            (Endpoint::RekeyInit, Operation::Delete) => {
                self.seal.rekey.cancel();
                Some(Reply::empty(Code::NoContent))
            }
            (Endpoint::RekeyUpdate, _) if writes => {
                let share = parse_share(args.str("key"))?;
                let Some(unsealed) = &self.seal.unsealed else { return Ok(Some(sealed())) };
                match self.seal.rekey.update(&share, args.str("nonce"), unsealed, &version, rng)? {
                    RekeyStep::Waiting(s) => Some(json_reply(&rekey_json(&s))),
                    RekeyStep::Complete { nonce, shares, backup, verification_nonce, records } => {
                        let mut v = json!({
                            "nonce": nonce, "complete": true, "keys": shares.hex(), "keys_base64": shares.base64(),
                            "pgp_fingerprints": none_if_empty(&shares.fingerprints), "backup": backup,
                            "verification_required": verification_nonce.is_some(),
                        });
                        if let Some(n) = verification_nonce {
                            v["verification_nonce"] = n.into();
                        }
                        self.conclude(asker, records, json_reply(&v), rng, out)
                    }
                }
            }
            (Endpoint::RekeyVerify, Operation::Read) => {
                Some(json_reply(&verify_json(&self.seal.rekey.verify_status())))
            }
            (Endpoint::RekeyVerify, Operation::Delete) => {
                Some(json_reply(&verify_json(&self.seal.rekey.restart_verification(rng)?)))
            }
            (Endpoint::RekeyVerify, _) if writes => {
                let share = parse_share(args.str("key"))?;
                let Some(unsealed) = &self.seal.unsealed else { return Ok(Some(sealed())) };
                match self.seal.rekey.verify(&share, args.str("nonce"), unsealed, rng)? {
                    RekeyVerifyStep::Waiting(s) => Some(json_reply(&verify_json(&s))),
                    RekeyVerifyStep::Complete { nonce, records } => {
                        let reply = json_reply(&json!({"nonce": nonce, "complete": true}));
                        self.conclude(asker, Some(records), reply, rng, out)
                    }
                }
            }
            (Endpoint::GenerateRootAttempt, Operation::Read) => {
                Some(json_reply(&generate_json(&self.seal.generate.status(&version)?, None)))
            }
            (Endpoint::GenerateRootAttempt, _) if writes => {
                let params = GenerateParams {
                    pgp_key: args.opt_str("pgp_key").map(str::to_owned),
                    otp: args.opt_str("otp").map(str::to_owned),
                };
                Some(json_reply(&generate_json(&self.seal.generate.start(&params, &version, rng)?, None)))
            }
            (Endpoint::GenerateRootAttempt, Operation::Delete) => {
                self.seal.generate.cancel();
                Some(Reply::empty(Code::NoContent))
            }
            (Endpoint::GenerateRootUpdate, _) if writes => {
                let share = parse_share(args.str("key"))?;
                let Some(unsealed) = &self.seal.unsealed else { return Ok(Some(sealed())) };
                match self.seal.generate.update(&share, args.str("nonce"), unsealed, &version)? {
                    GenerateStep::Waiting(s) => Some(json_reply(&generate_json(&s, None))),
                    GenerateStep::Mint(request) => self.mint_root(asker, &request, rng, out)?,
                }
            }
            _ => Some(unsupported()),
        })
    }

    /// Answers once the records, if any, are committed.
    pub(crate) fn conclude(
        &mut self,
        asker: (ShardId, Ticket),
        records: Option<KeyRecords>,
        reply: Reply,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Option<Reply> {
        match records {
            None => Some(reply),
            Some(r) => {
                self.write_records(r, Purpose::Control(asker.0, asker.1, reply), rng, out);
                None
            }
        }
    }

    pub(crate) fn mint_root(
        &mut self,
        asker: (ShardId, Ticket),
        request: &ringfence_barrier::RootTokenRequest,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) -> Result<Option<Reply>, SealError> {
        let (Some(keys), Some(sealer), Some(core)) =
            (self.keys.clone(), self.seal.sealer.clone(), self.seal.core.clone())
        else {
            return Ok(Some(sealed()));
        };
        let now = self.log_now();
        let version = self.version.clone();
        let mut txn = Txn::new(&version, Some(&keys.keyring));
        let minted = (|| -> Result<String, Error> {
            let router = core.caches.borrow_mut().router(&mut txn, &core.vault.settings.ttls)?;
            let mount = router
                .at(&txn, ringfence_base::NsId::ROOT, "auth/token/")?
                .map(|m| m.entry.id)
                .ok_or_else(|| Error::internal("no token mount"))?;
            Ok(mint::root(&mut txn, &keys.keyring, &router, rng, mount, now, 0, None)?.0)
        })();
        let token = match minted {
            Ok(t) => t,
            Err(e) => return Ok(Some(Reply::error(&e))),
        };
        let encoded = request.encode(&token, rng)?;
        let status = ringfence_barrier::GenerateStatus {
            nonce: request.nonce.clone(),
            started: true,
            progress: request.required as usize,
            required: request.required,
            pgp_fingerprint: request.pgp_fingerprint.clone(),
            otp: String::new(),
            otp_length: ringfence_barrier::OTP_LENGTH,
        };
        let reply = json_reply(&generate_json(&status, Some(&encoded)));
        let finished = txn.finish(&mut sealer.borrow_mut(), now);
        self.propose_records(finished, Purpose::Control(asker.0, asker.1, reply), rng, out);
        Ok(None)
    }

    pub(crate) fn key_status(&mut self) -> SideResult {
        let Some(keys) = &self.keys else {
            return SideResult::Refused(Error::new(Code::Unavailable, "Vault is sealed"));
        };
        let term = keys.keyring.active_term();
        let usage = Usage::load(&self.version, term);
        let config = RotateConfig::load(&self.version).unwrap_or_default();
        SideResult::Json(json!({
            "term": term,
            "install_time": keys.keyring.active_since().rfc3339(),
            "encryptions": usage.encryptions,
            "enabled": config.enabled, "max_operations": config.max_operations, "interval": config.interval_seconds,
        }))
    }

    pub(crate) fn rotate(&mut self, purpose: Purpose, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let Some(unsealed) = &self.seal.unsealed else {
            return self.own_settled(Settled::NotDone(NotDone::NotActive), purpose, rng, out);
        };
        let records = rotate::rotate(unsealed, self.now.wall, rng);
        self.write_records(records, purpose, rng, out);
    }

    /// Writes core records under the present keyring.
    pub(crate) fn write_records(
        &mut self,
        records: KeyRecords,
        purpose: Purpose,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let (Some(keys), Some(sealer)) = (self.keys.clone(), self.seal.sealer.clone()) else {
            // a restore is between two keyrings: whoever asked is told so
            return self.own_settled(Settled::NotDone(NotDone::NotActive), purpose, rng, out);
        };
        let version = self.version.clone();
        let mut txn = Txn::new(&version, Some(&keys.keyring));
        records.write(&mut txn);
        let finished = txn.finish(&mut sealer.borrow_mut(), self.now.wall);
        self.propose_records(finished, purpose, rng, out);
    }

    pub(crate) fn write_clear(
        &mut self,
        rows: Vec<(Vec<u8>, Vec<u8>)>,
        purpose: Purpose,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let version = self.version.clone();
        let mut txn = Txn::new(&version, None);
        for (k, v) in rows {
            txn.put_clear(k, v);
        }
        let finished = txn.finish_clear(self.now.wall);
        self.propose_records(finished, purpose, rng, out);
    }

    pub(crate) fn propose_records(
        &mut self,
        finished: Result<Finished, ringfence_barrier::BarrierError>,
        purpose: Purpose,
        rng: &mut dyn Entropy,
        out: &mut Vec<OwnerOut>,
    ) {
        let outcome = match finished {
            Ok(f) => self.propose_own(f, purpose),
            Err(e) => {
                out.push(OwnerOut::Log(Level::Error, format!("key records cannot be written: {e}")));
                Err((Settled::Refused, purpose))
            }
        };
        if let Err((settled, purpose)) = outcome {
            self.own_settled(settled, purpose, rng, out);
        }
    }

    /// Writes how often the term has sealed, and rotates if it is time.
    pub(crate) fn count_usage(&mut self, rng: &mut dyn Entropy, out: &mut Vec<OwnerOut>) {
        let Some(keys) = &self.keys else { return };
        let term = keys.keyring.active_term();
        let installed = keys.keyring.active_since();
        let sealed_since = std::mem::take(&mut self.encryptions);
        let mut usage = Usage::load(&self.version, term);
        usage.encryptions += sealed_since;
        let due =
            RotateConfig::load(&self.version).is_ok_and(|c| c.is_due(usage.encryptions, installed, self.now.wall));
        if due {
            self.rotate(Purpose::Keyring, rng, out);
        } else if sealed_since > 0 {
            self.write_clear(vec![(ringfence_barrier::USAGE.to_vec(), usage.encode())], Purpose::Keyring, rng, out);
        }
    }
}

pub(crate) fn rekey_json(s: &ringfence_barrier::RekeyStatus) -> Value {
    let mut v = json!({
        "nonce": s.nonce, "started": s.started, "t": s.t, "n": s.n, "progress": s.progress, "required": s.required,
        "pgp_fingerprints": none_if_empty(&s.pgp_fingerprints), "backup": s.backup,
        "verification_required": s.verification_required,
    });
    if let Some(n) = &s.verification_nonce {
        v["verification_nonce"] = n.clone().into();
    }
    v
}

pub(crate) fn verify_json(s: &ringfence_barrier::RekeyVerifyStatus) -> Value {
    json!({"nonce": s.nonce, "started": s.started, "t": s.t, "n": s.n, "progress": s.progress})
}

pub(crate) fn generate_json(s: &ringfence_barrier::GenerateStatus, encoded: Option<&str>) -> Value {
    json!({
        "nonce": s.nonce, "started": s.started, "progress": s.progress, "required": s.required,
        "complete": encoded.is_some(), "encoded_token": encoded.unwrap_or(""),
        "encoded_root_token": encoded.unwrap_or(""), "pgp_fingerprint": s.pgp_fingerprint, "otp": s.otp,
        "otp_length": s.otp_length,
    })
}

pub(crate) fn none_if_empty(list: &[String]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

/// The one ceremony endpoint that Vault answers in the usual envelope.
pub(crate) fn decode(args: &Args, rng: &mut dyn Entropy) -> Reply {
    match decode_token(args.str("encoded_token"), args.str("otp")) {
        Ok(token) => json_reply(&json!({
            "request_id": entropy::uuid4(rng), "lease_id": "", "renewable": false, "lease_duration": 0,
            "data": {"token": token}, "wrap_info": null, "warnings": null, "auth": null, "mount_type": "system",
        })),
        Err(e) => refused(&e),
    }
}
