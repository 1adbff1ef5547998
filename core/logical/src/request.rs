//! What an engine may know of the request it serves.

use crate::Operation;
use ringfence_base::{MountId, NsId};
use std::net::IpAddr;

/// The type of a token, or of the tokens that a mount or role asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenType {
    /// What the mount says.
    #[default]
    Default,
    /// A service token, always.
    Service,
    /// A batch token, always.
    Batch,
    /// A service token unless the role says batch.
    DefaultService,
    /// A batch token unless the role says service.
    DefaultBatch,
}

impl TokenType {
    /// As the API prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenType::Default => "default",
            TokenType::Service => "service",
            TokenType::Batch => "batch",
            TokenType::DefaultService => "default-service",
            TokenType::DefaultBatch => "default-batch",
        }
    }

    /// Parses the API's text; `default_service` and `default_batch` are accepted too.
    pub fn parse(s: &str) -> Option<TokenType> {
        Some(match s {
            "" | "default" => TokenType::Default,
            "service" => TokenType::Service,
            "batch" => TokenType::Batch,
            "default-service" | "default_service" => TokenType::DefaultService,
            "default-batch" | "default_batch" => TokenType::DefaultBatch,
            _ => return None,
        })
    }
}

/// The mount that serves a request.
#[derive(Clone, Debug)]
pub struct MountInfo {
    /// Cluster-wide number; the prefix of all its keys.
    pub id: MountId,
    /// Its namespace.
    pub ns: NsId,
    /// Path of the namespace: empty for root, else ends in `/`.
    pub ns_path: String,
    /// Path of the mount within the namespace, with `auth/` for auth methods, ends in `/`.
    pub path: String,
    /// `kv`, `userpass`, `system`.
    pub kind: String,
    /// Secrets engine or auth method.
    pub class: crate::Class,
    /// `kv_1a2b3c4d`.
    pub accessor: String,
    /// A UUID.
    pub uuid: String,
    /// The mount's options (`version` of kv and so on).
    pub options: std::collections::BTreeMap<String, String>,
    /// Effective default lease time, seconds.
    pub default_ttl: u64,
    /// Effective longest lease time, seconds.
    pub max_ttl: u64,
    /// What the mount says of token types (auth methods).
    pub token_type: TokenType,
}

/// The request as an engine sees it: no token, no header that the mount does not pass through.
#[derive(Clone, Debug)]
pub struct Request {
    /// A UUID.
    pub id: String,
    /// What is asked.
    pub op: Operation,
    /// Path within the mount.
    pub path: String,
    /// Address of the client.
    pub remote: Option<IpAddr>,
    /// Wanted wrapping time, seconds; 0 = none.
    pub wrap_ttl: u64,
    /// Headers that the mount passes through, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The client's certificate chain in DER, leaf first, if TLS asked for one and verified possession.
    pub peer_certificates: std::sync::Arc<Vec<Vec<u8>>>,
}
