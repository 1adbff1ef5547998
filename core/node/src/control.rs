//! Calls that the owner core answers itself, outside mounts and policies: status, init, unseal and the key
//! ceremonies. They answer bare JSON without envelope. Everything else goes through the pipeline.

use ringfence_logical::{Map, Operation};
use ringfence_vault::call::Call;

/// True for the calls that take the image, its keys or the lead away (seal, restore of a snapshot, step-down): their
/// answer comes from the owner alone, because no core can run a resume afterwards.
pub fn ends_the_view(call: &Call) -> bool {
    call.op == Operation::Update
        && matches!(
            call.path.as_str(),
            "sys/seal" | "sys/step-down" | "sys/storage/raft/snapshot" | "sys/storage/raft/snapshot-force"
        )
}

/// Which of the owner's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `sys/init`
    Init,
    /// `sys/seal-status`
    SealStatus,
    /// `sys/unseal`
    Unseal,
    /// `sys/health`
    Health,
    /// `sys/leader`
    Leader,
    /// `sys/rekey/init`
    RekeyInit,
    /// `sys/rekey/update`
    RekeyUpdate,
    /// `sys/rekey/verify`
    RekeyVerify,
    /// `sys/rekey-recovery-key/*`
    RecoveryRekey,
    /// `sys/generate-root/attempt`
    GenerateRootAttempt,
    /// `sys/generate-root/update`
    GenerateRootUpdate,
    /// `sys/decode-token`
    DecodeToken,
    /// `sys/storage/raft/join` and `bootstrap`
    RaftJoin,
    /// `sys/storage/raft/bootstrap/challenge`
    RaftChallenge,
    /// `sys/storage/raft/bootstrap/answer`
    RaftAnswer,
}

/// A call for the owner.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlCall {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// What is asked.
    pub op: Operation,
    /// Body or query.
    pub data: Map,
}

impl Endpoint {
    /// Whether audit devices take lines of it: the ceremonies over shares are audited, as in Vault from 1.14 on;
    /// status, init, unseal and join are not (they are asked of a sealed node, which has no devices).
    pub fn is_audited(self) -> bool {
        match self {
            Endpoint::RekeyInit
            | Endpoint::RekeyUpdate
            | Endpoint::RekeyVerify
            | Endpoint::RecoveryRekey
            | Endpoint::GenerateRootAttempt
            | Endpoint::GenerateRootUpdate
            | Endpoint::DecodeToken => true,
            Endpoint::Init
            | Endpoint::SealStatus
            | Endpoint::Unseal
            | Endpoint::Health
            | Endpoint::Leader
            | Endpoint::RaftJoin
            | Endpoint::RaftChallenge
            | Endpoint::RaftAnswer => false,
        }
    }
}

impl ControlCall {
    /// The control call behind a call, if it is one. A namespace header does not matter: clients send it everywhere.
    pub fn of(call: &Call) -> Option<ControlCall> {
        let path = call.path.strip_prefix("sys/")?.trim_end_matches('/');
        let endpoint = match path {
            "init" => Endpoint::Init,
            "seal-status" => Endpoint::SealStatus,
            "unseal" => Endpoint::Unseal,
            "health" => Endpoint::Health,
            "leader" => Endpoint::Leader,
            "rekey/init" => Endpoint::RekeyInit,
            "rekey/update" => Endpoint::RekeyUpdate,
            "rekey/verify" => Endpoint::RekeyVerify,
            "rekey-recovery-key/init" | "rekey-recovery-key/update" | "rekey-recovery-key/verify" => {
                Endpoint::RecoveryRekey
            }
            "generate-root" | "generate-root/attempt" => Endpoint::GenerateRootAttempt,
            "generate-root/update" => Endpoint::GenerateRootUpdate,
            "decode-token" => Endpoint::DecodeToken,
            "storage/raft/join" | "storage/raft/bootstrap" => Endpoint::RaftJoin,
            "storage/raft/bootstrap/challenge" => Endpoint::RaftChallenge,
            "storage/raft/bootstrap/answer" => Endpoint::RaftAnswer,
            _ => return None,
        };
        if call.op == Operation::Help {
            return None;
        }
        Some(ControlCall { endpoint, op: call.op, data: call.data.clone() })
    }
}
