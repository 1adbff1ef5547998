//! `seal` stanzas: what protects the root key.
//!
//! The settings of each kind stay texts under their own names; the client of that service knows what they mean. The
//! environment's values win over the file's.

use super::reader::Block;
use super::{ConfigError, Environment};
use std::collections::BTreeMap;

/// One seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// What it is.
    pub kind: SealKind,
    /// Its own name, for logs.
    pub name: String,
    /// Being migrated away from.
    pub disabled: bool,
    /// Lower is used first.
    pub priority: u64,
    /// Settings by the names of the stanza.
    pub settings: BTreeMap<String, String>,
}

/// What a seal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealKind {
    /// Shares of a key, given by people.
    Shamir,
    /// AWS KMS.
    AwsKms,
    /// Azure Key Vault.
    AzureKeyVault,
    /// Google Cloud KMS.
    GcpCkms,
    /// The transit engine of another server.
    Transit,
    /// A hardware module.
    Pkcs11,
    /// Oracle Cloud KMS.
    OciKms,
    /// Alibaba Cloud KMS.
    AliCloudKms,
    /// A key in the configuration.
    Static,
}

const KINDS: [(&str, SealKind); 9] = [
    ("shamir", SealKind::Shamir),
    ("awskms", SealKind::AwsKms),
    ("azurekeyvault", SealKind::AzureKeyVault),
    ("gcpckms", SealKind::GcpCkms),
    ("transit", SealKind::Transit),
    ("pkcs11", SealKind::Pkcs11),
    ("ocikms", SealKind::OciKms),
    ("alicloudkms", SealKind::AliCloudKms),
    ("static", SealKind::Static),
];

/// Variables of the environment by kind and setting. A leading `VAULT_` is also looked for as `BAO_`.
const VARIABLES: [(SealKind, &str, &[&str]); 41] = [
    (SealKind::AwsKms, "region", &["AWS_REGION", "AWS_DEFAULT_REGION"]),
    (SealKind::AwsKms, "access_key", &["AWS_ACCESS_KEY_ID"]),
    (SealKind::AwsKms, "secret_key", &["AWS_SECRET_ACCESS_KEY"]),
    (SealKind::AwsKms, "session_token", &["AWS_SESSION_TOKEN"]),
    (SealKind::AwsKms, "kms_key_id", &["VAULT_AWSKMS_SEAL_KEY_ID"]),
    (SealKind::AwsKms, "endpoint", &["AWS_KMS_ENDPOINT"]),
    (SealKind::AwsKms, "web_identity_token_file", &["AWS_WEB_IDENTITY_TOKEN_FILE"]),
    (SealKind::AwsKms, "role_arn", &["AWS_ROLE_ARN"]),
    (SealKind::AwsKms, "role_session_name", &["AWS_ROLE_SESSION_NAME"]),
    (SealKind::AzureKeyVault, "tenant_id", &["AZURE_TENANT_ID"]),
    (SealKind::AzureKeyVault, "client_id", &["AZURE_CLIENT_ID"]),
    (SealKind::AzureKeyVault, "client_secret", &["AZURE_CLIENT_SECRET"]),
    (SealKind::AzureKeyVault, "environment", &["AZURE_ENVIRONMENT"]),
    (SealKind::AzureKeyVault, "vault_name", &["VAULT_AZUREKEYVAULT_VAULT_NAME"]),
    (SealKind::AzureKeyVault, "key_name", &["VAULT_AZUREKEYVAULT_KEY_NAME"]),
    (SealKind::AzureKeyVault, "resource", &["AZURE_AD_RESOURCE"]),
    (SealKind::GcpCkms, "credentials", &["GOOGLE_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS"]),
    (SealKind::GcpCkms, "project", &["GOOGLE_PROJECT"]),
    (SealKind::GcpCkms, "region", &["GOOGLE_REGION"]),
    (SealKind::GcpCkms, "key_ring", &["VAULT_GCPCKMS_SEAL_KEY_RING"]),
    (SealKind::GcpCkms, "crypto_key", &["VAULT_GCPCKMS_SEAL_CRYPTO_KEY"]),
    (SealKind::Transit, "address", &["VAULT_ADDR"]),
    (SealKind::Transit, "token", &["VAULT_TOKEN"]),
    (SealKind::Transit, "key_name", &["VAULT_TRANSIT_SEAL_KEY_NAME"]),
    (SealKind::Transit, "mount_path", &["VAULT_TRANSIT_SEAL_MOUNT_PATH"]),
    (SealKind::Transit, "namespace", &["VAULT_NAMESPACE"]),
    (SealKind::Transit, "disable_renewal", &["VAULT_TRANSIT_SEAL_DISABLE_RENEWAL"]),
    (SealKind::Transit, "tls_ca_cert", &["VAULT_CACERT"]),
    (SealKind::Transit, "tls_client_cert", &["VAULT_CLIENT_CERT"]),
    (SealKind::Transit, "tls_client_key", &["VAULT_CLIENT_KEY"]),
    (SealKind::Transit, "tls_server_name", &["VAULT_TLS_SERVER_NAME"]),
    (SealKind::Transit, "tls_skip_verify", &["VAULT_SKIP_VERIFY"]),
    (SealKind::Pkcs11, "lib", &["VAULT_HSM_LIB"]),
    (SealKind::Pkcs11, "slot", &["VAULT_HSM_SLOT"]),
    (SealKind::Pkcs11, "token_label", &["VAULT_HSM_TOKEN_LABEL"]),
    (SealKind::Pkcs11, "pin", &["VAULT_HSM_PIN"]),
    (SealKind::Pkcs11, "key_label", &["VAULT_HSM_KEY_LABEL"]),
    (SealKind::Pkcs11, "default_key_label", &["VAULT_HSM_DEFAULT_KEY_LABEL"]),
    (SealKind::Pkcs11, "key_id", &["VAULT_HSM_KEY_ID"]),
    (SealKind::Pkcs11, "mechanism", &["VAULT_HSM_MECHANISM"]),
    (SealKind::Pkcs11, "hmac_key_label", &["VAULT_HSM_HMAC_KEY_LABEL"]),
];

impl Seal {
    /// The seal of a server whose configuration names none.
    pub fn shamir() -> Self {
        Seal {
            kind: SealKind::Shamir,
            name: "shamir".to_owned(),
            disabled: false,
            priority: 1,
            settings: BTreeMap::new(),
        }
    }

    /// Reads a stanza.
    pub fn read(block: &Block<'_>, env: &Environment<'_>) -> Result<Seal, ConfigError> {
        let from = &block.reader;
        let label = block.labels[0].to_ascii_lowercase();
        let kind = kind_of(&label).ok_or_else(|| from.refuse(format!("unknown seal type {label:?}")))?;
        let disabled = from.yes("disabled")?.unwrap_or(false);
        let priority = from.count("priority")?.unwrap_or(1);
        let name = from.filled("name")?.unwrap_or(label);
        let mut settings = from.all_texts();
        for general in ["disabled", "priority", "name"] {
            settings.remove(general);
        }
        let mut seal = Seal { kind, name, disabled, priority, settings };
        seal.take_environment(env);
        Ok(seal)
    }

    /// The seal that the environment alone asks for (`VAULT_SEAL_TYPE`).
    pub fn from_environment(env: &Environment<'_>) -> Result<Option<Seal>, ConfigError> {
        let Some(label) = env.get("SEAL_TYPE").map(str::to_ascii_lowercase) else { return Ok(None) };
        let kind = kind_of(&label).ok_or_else(|| ConfigError::Environment {
            name: "VAULT_SEAL_TYPE".to_owned(),
            message: format!("unknown seal type {label:?}"),
        })?;
        let mut seal = Seal { kind, name: label, ..Seal::shamir() };
        seal.take_environment(env);
        Ok(Some(seal))
    }

    fn take_environment(&mut self, env: &Environment<'_>) {
        for (_, setting, variables) in VARIABLES.iter().filter(|(kind, ..)| *kind == self.kind) {
            if let Some(value) = variables.iter().find_map(|name| env.exact(name)) {
                self.settings.insert((*setting).to_owned(), value.to_owned());
            }
        }
    }
}

impl SealKind {
    /// The word of the stanza.
    pub fn word(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("shamir", |(word, _)| word)
    }
}

fn kind_of(label: &str) -> Option<SealKind> {
    KINDS.iter().find(|(word, _)| *word == label).map(|(_, kind)| *kind)
}
