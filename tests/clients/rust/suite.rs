//! What a program written against vaultrs sees. Driven by `tests/clients/run` with VAULT_ADDR and VAULT_TOKEN (root).
//! Each test makes its own mounts, users and policies under names nobody else uses.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use vaultrs::api::kv2::requests::{SetSecretMetadataRequest, SetSecretRequestOptions};
use vaultrs::api::sys::requests::{EnableEngineRequest, ListMountsRequest};
use vaultrs::api::token::requests::CreateTokenRequest;
use vaultrs::client::{Client, VaultClient, VaultClientSettingsBuilder};
use vaultrs::error::ClientError;
use vaultrs::{api, auth, kv1, kv2, sys, token};

fn name(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}-rs{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn client(token: &str) -> VaultClient {
    // each test's thread comes by here; all but the first are told that one is installed
    let _ = rustls::crypto::ring::default_provider().install_default();
    let address = std::env::var("VAULT_ADDR").expect("VAULT_ADDR");
    let settings = VaultClientSettingsBuilder::default().address(address).token(token).build();
    VaultClient::new(settings.expect("settings")).expect("a client")
}

fn root() -> VaultClient {
    client(&std::env::var("VAULT_TOKEN").expect("VAULT_TOKEN"))
}

async fn engine(version: &str) -> String {
    let mount = name("kv");
    let mut options = EnableEngineRequest::builder();
    options.options(HashMap::from([("version".to_owned(), version.to_owned())]));
    sys::mount::enable(&root(), &mount, "kv", Some(&mut options)).await.expect("an engine");
    mount
}

#[track_caller]
fn refused<T>(answer: Result<T, ClientError>, status: u16, text: &str) {
    match answer {
        Err(ClientError::APIError { code, errors }) => {
            assert_eq!(code, status, "{errors:?}");
            assert!(text.is_empty() || errors.iter().any(|e| e.contains(text)), "{errors:?}");
        }
        Err(e) => panic!("not an answer of the server: {e:?}"),
        Ok(_) => panic!("not refused"),
    }
}

#[tokio::test]
async fn status() {
    let c = root();
    let health = sys::health(&c).await.expect("health");
    assert!(health.initialized && !health.sealed && !health.standby);
    assert_eq!(format!("{:?}", c.status().await.expect("status")), "OK");
    let mounts = sys::mount::list(&c).await.expect("mounts");
    assert_eq!(mounts["sys/"].mount_type, "system");
    let methods = sys::auth::list(&c).await.expect("auth methods");
    assert_eq!(methods["token/"].config.token_type, "default-service");
}

#[tokio::test]
async fn mounts() {
    let (c, mount) = (root(), engine("2").await);
    let found = sys::mount::get_configuration_of_a_secret_engine(&c, &mount).await.expect("a mount");
    assert_eq!((found.mount_type.as_str(), found.config.max_lease_ttl), ("kv", 0));
    assert_eq!(found.options, Some(HashMap::from([("version".to_owned(), "2".to_owned())])));
    sys::mount::disable(&c, &mount).await.expect("disabled");
    refused(sys::mount::get_configuration_of_a_secret_engine(&c, &mount).await, 400, "No secret engine mount at");
}

#[tokio::test]
async fn version_1() {
    let (c, mount) = (root(), engine("1").await);
    let secret = HashMap::from([("text", "ü <&>"), ("other", "")]);
    kv1::set(&c, &mount, "app/one", &secret).await.expect("written");
    let read: HashMap<String, String> = kv1::get(&c, &mount, "app/one").await.expect("read");
    assert_eq!(read["text"], "ü <&>");
    assert_eq!(kv1::get_raw(&c, &mount, "app/one").await.expect("read").lease_duration, 2_764_800);
    assert_eq!(kv1::list(&c, &mount, "app").await.expect("listed").data.keys, ["one"]);
    kv1::delete(&c, &mount, "app/one").await.expect("deleted");
    refused(kv1::get::<Value>(&c, &mount, "app/one").await, 404, "");
}

#[tokio::test]
async fn version_2() {
    let (c, mount) = (root(), engine("2").await);
    let read = async |n| kv2::read_version::<Value>(&c, &mount, "app/one", n).await;
    for n in 1..=3u32 {
        let set = SetSecretRequestOptions { cas: n - 1 };
        let made = kv2::set_with_options(&c, &mount, "app/one", &json!({"n": n}), set).await.expect("written");
        assert_eq!(made.version, u64::from(n));
    }
    let stale = SetSecretRequestOptions { cas: 1 };
    refused(kv2::set_with_options(&c, &mount, "app/one", &json!({}), stale).await, 400, "did not match");
    assert_eq!(kv2::read::<Value>(&c, &mount, "app/one").await.expect("read"), json!({"n": 3}));
    assert_eq!(read(1).await.expect("read"), json!({"n": 1}));
    kv2::delete_latest(&c, &mount, "app/one").await.expect("deleted");
    // an answer 404 that has data is to this client no error of the server's
    let deleted = kv2::read::<Value>(&c, &mount, "app/one").await;
    assert!(matches!(deleted, Err(ClientError::RestClientError { .. })), "{deleted:?}");
    kv2::undelete_versions(&c, &mount, "app/one", vec![3]).await.expect("undeleted");
    kv2::delete_versions(&c, &mount, "app/one", vec![1]).await.expect("deleted");
    kv2::destroy_versions(&c, &mount, "app/one", vec![2]).await.expect("destroyed");
    assert_eq!(read(3).await.expect("read"), json!({"n": 3}));
    let mut metadata = SetSecretMetadataRequest::builder();
    metadata.max_versions(5u64).custom_metadata(HashMap::from([("owner".to_owned(), "me".to_owned())]));
    kv2::set_metadata(&c, &mount, "app/one", Some(&mut metadata)).await.expect("set");
    let found = kv2::read_metadata(&c, &mount, "app/one").await.expect("metadata");
    assert_eq!((found.current_version, found.max_versions), (3, 5));
    assert_eq!(found.custom_metadata.expect("custom metadata")["owner"], "me");
    assert!(!found.versions["1"].deletion_time.is_empty() && found.versions["2"].destroyed);
    assert_eq!(kv2::list(&c, &mount, "").await.expect("listed"), ["app/"]);
    assert!(!kv2::config::read(&c, &mount).await.expect("configuration").cas_required);
    kv2::delete_metadata(&c, &mount, "app/one").await.expect("gone");
    refused(kv2::read_metadata(&c, &mount, "app/one").await, 404, "");
}

#[tokio::test]
async fn approle() {
    use auth::approle::{login, role};
    let (c, mount) = (root(), name("approle"));
    sys::auth::enable(&c, &mount, "approle", None).await.expect("a method");
    let mut fields = api::auth::approle::requests::SetAppRoleRequest::builder();
    fields.token_policies(vec!["a".to_owned()]).secret_id_num_uses(1u64);
    role::set(&c, &mount, "web", Some(&mut fields)).await.expect("a role");
    assert_eq!(role::read(&c, &mount, "web").await.expect("the role").token_policies, ["a"]);
    assert_eq!(role::list(&c, &mount).await.expect("roles").keys, ["web"]);
    let id = role::read_id(&c, &mount, "web").await.expect("role id").role_id;
    let made = role::secret::generate(&c, &mount, "web", None).await.expect("a secret id");
    let listed = role::secret::list(&c, &mount, "web").await.expect("accessors");
    assert_eq!(listed.keys, [made.secret_id_accessor.clone()]);
    let found = role::secret::read(&c, &mount, "web", &made.secret_id).await.expect("known");
    assert_eq!((found.secret_id_num_uses, found.secret_id_accessor), (1, made.secret_id_accessor));
    let login_as = async || login(&client(""), &mount, &id, &made.secret_id).await;
    let user = login_as().await.expect("a login");
    assert_eq!(user.policies, ["a", "default"]);
    assert_eq!(token::lookup_self(&client(&user.client_token)).await.expect("itself").display_name, mount);
    refused(login_as().await, 400, "invalid role or secret ID");
}

#[tokio::test]
async fn userpass() {
    use auth::userpass::{login, user};
    let (c, mount) = (root(), name("userpass"));
    sys::auth::enable(&c, &mount, "userpass", None).await.expect("a method");
    user::set(&c, &mount, "ann", "pw", None).await.expect("a user");
    assert_eq!(user::list(&c, &mount).await.expect("users").keys, ["ann"]);
    let made = login(&client(""), &mount, "ann", "pw").await.expect("a login");
    assert_eq!(made.metadata.expect("metadata")["username"], "ann");
    refused(login(&client(""), &mount, "ann", "no").await, 400, "invalid username or password");
    user::delete(&c, &mount, "ann").await.expect("deleted");
}

#[tokio::test]
async fn tokens() {
    let c = root();
    let mut fields = CreateTokenRequest::builder();
    fields.policies(vec!["a".to_owned()]).ttl("1h").display_name("app");
    let made = token::new(&c, Some(&mut fields)).await.expect("a token");
    assert_eq!((made.lease_duration, made.renewable, made.orphan), (3600, true, false));
    let user = client(&made.client_token);
    let found = token::lookup_self(&user).await.expect("itself");
    assert_eq!((found.id.as_str(), found.display_name.as_str()), (made.client_token.as_str(), "token-app"));
    assert_eq!(token::lookup(&c, &made.client_token).await.expect("it").accessor, made.accessor);
    assert_eq!(token::lookup_accessor(&c, &made.accessor).await.expect("it").id, "");
    assert!(token::lookup_self(&c).await.expect("root").expire_time.is_none());
    assert_eq!(token::renew(&c, &made.client_token, Some("2h")).await.expect("renewed").lease_duration, 7200);
    assert_eq!(token::renew_self(&user, Some("30m")).await.expect("renewed").lease_duration, 1800);
    let orphan = token::new_orphan(&c, None).await.expect("an orphan");
    assert!(orphan.orphan);
    token::revoke_accessor(&c, &orphan.accessor).await.expect("revoked");
    token::revoke_self(&user).await.expect("revoked");
    refused(token::lookup_self(&user).await, 403, "permission denied");
    refused(token::lookup(&c, &orphan.client_token).await, 403, "bad token");
    let role = name("role");
    token::role::set(&c, &role, None).await.expect("a role");
    assert_eq!(token::role::read(&c, &role).await.expect("the role").token_type, "default-service");
    assert!(token::role::list(&c).await.expect("roles").keys.contains(&role));
    token::role::delete(&c, &role).await.expect("deleted");
}

#[tokio::test]
async fn policies() {
    let (c, policy) = (root(), name("policy"));
    let text = r#"path "secret/data/x" { capabilities = ["read"] }"#;
    sys::policy::set(&c, &policy, text).await.expect("written");
    assert_eq!(sys::policy::read(&c, &policy).await.expect("read").rules, text);
    assert!(sys::policy::list(&c).await.expect("listed").policies.contains(&policy));
    let mut fields = CreateTokenRequest::builder();
    fields.policies(vec![policy.clone()]);
    let user = client(&token::new(&c, Some(&mut fields)).await.expect("a token").client_token);
    refused(kv2::read::<Value>(&user, "secret", "x").await, 404, "");
    refused(kv2::read::<Value>(&user, "secret", "y").await, 403, "permission denied");
    sys::policy::delete(&c, &policy).await.expect("deleted");
    refused(sys::policy::read(&c, &policy).await, 404, "");
    refused(sys::policy::set(&c, &policy, "path {").await, 400, "");
}

#[tokio::test]
async fn wrapping() {
    let c = root();
    let wrapped = api::wrap(&c, ListMountsRequest::builder().build().expect("a request")).await.expect("wrapped");
    let info = wrapped.lookup(&c).await.expect("known");
    assert_eq!((info.creation_ttl, info.creation_path.as_str()), (600, "sys/mounts"));
    let mounts = wrapped.unwrap(&c).await.expect("unwrapped");
    assert!(mounts.contains_key("sys/"));
    assert!(matches!(wrapped.lookup(&c).await, Err(ClientError::WrapInvalidError)));
    refused(wrapped.unwrap(&c).await, 400, "wrapping token is not valid or does not exist");
}

#[tokio::test]
async fn identities() {
    use vaultrs::identity::{entity, entity_alias, group};
    let (c, who) = (root(), name("who"));
    let mut fields = api::identity::entity::requests::CreateEntityRequest::builder();
    fields.name(who.clone()).policies(vec!["a".to_owned()]);
    let id = entity::create(&c, Some(&mut fields)).await.expect("an entity").id;
    let accessor = sys::auth::list(&c).await.expect("methods")["token/"].accessor.clone();
    let alias = entity_alias::create(&c, &who, &id, &accessor, None).await.expect("an alias");
    assert_eq!(alias.canonical_id, id);
    let mut fields = api::identity::group::requests::CreateGroupRequest::builder();
    fields.member_entity_ids(vec![id.clone()]);
    let of = group::create(&c, Some(&mut fields)).await.expect("a group").id;
    let read = entity::read_by_name(&c, &who).await.expect("the entity");
    assert_eq!((read.id, read.policies, read.group_ids), (id.clone(), vec!["a".to_owned()], vec![of]));
    assert_eq!(read.aliases[0].mount_path, "auth/token/");
    assert!(entity::list_by_name(&c).await.expect("names").keys.contains(&who));
    entity::delete_by_id(&c, &id).await.expect("deleted");
    refused(entity::read_by_id(&c, &id).await, 404, "");
}

/// The key signed this token once, for a long time, and was thrown away.
#[tokio::test]
async fn jwt() {
    use auth::oidc::{config, login, role};
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEdtzvObgXMtRjtP+P3BXOnkOvngsF\n\
        7YhkoJrzzEXsI0QZSu7LsNS1cLcXyPJ+kArRJPrq7T1YFm1CJ27aYjF8wQ==\n\
        -----END PUBLIC KEY-----\n";
    const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJqb2IiLCJhdWQiOiJ1cyIsIm5iZiI6MSwiZXhwIjo0MTAyNDQ0ODAwfQ.\
        BPKdELDP_A3j0e7jdxqEJ-Xgt9Z00E3zwsOIkUt3PAT1xdujGJkd1iDFJGhtxQnVqFU5vwnkLyy94NoLoEXZYg";
    let (c, mount) = (root(), name("jwt"));
    sys::auth::enable(&c, &mount, "jwt", None).await.expect("a method");
    let mut fields = api::auth::oidc::requests::SetConfigurationRequest::builder();
    fields.jwt_validation_pubkeys(vec![KEY.to_owned()]).default_role("ci");
    config::set(&c, &mount, Some(&mut fields)).await.expect("configured");
    for (role, audience) in [("ci", "us"), ("other", "them")] {
        let mut fields = api::auth::oidc::requests::SetRoleRequest::builder();
        fields.role_type("jwt").bound_audiences(vec![audience.to_owned()]).token_policies(vec!["a".to_owned()]);
        role::set(&c, &mount, role, "sub", Vec::new(), Some(&mut fields)).await.expect("a role");
    }
    assert_eq!(role::list(&c, &mount).await.expect("roles").keys, ["ci", "other"]);
    let made = login(&client(""), &mount, TOKEN, None).await.expect("a login");
    assert_eq!(
        (made.policies, made.metadata.expect("metadata")["role"].as_str()),
        (vec!["a".into(), "default".into()], "ci")
    );
    let other = login(&client(""), &mount, TOKEN, Some("other".to_owned())).await;
    refused(other, 400, "audience claim does not match any bound audience");
    refused(login(&client(""), &mount, &TOKEN[..TOKEN.len() - 4], None).await, 400, "error validating token");
}
