//! The OpenID provider over the real binary: what is configured and handed out is still so after a restart, what is in
//! use is not deleted, and namespaces have providers of their own. The protocol itself is judged by a certified relying
//! party in `tests/clients/oidc`.

use super::harness::{Answer, Server, binary, free_port, read_answer, request};
use super::identity::people;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

const REDIRECT: &str = "https://app.test/callback";

fn write(s: &Server, path: &str, body: Value) -> Value {
    let a = s.put(path, &s.root, &body);
    assert!(matches!(a.status, 200 | 204), "{path}: {} {:?}", a.status, a.errors());
    a.json()
}

fn data(s: &Server, path: &str) -> Value {
    let a = s.get(path, &s.root);
    assert_eq!(a.status, 200, "{path}: {:?}", a.errors());
    a.json()["data"].clone()
}

fn refused(s: &Server, method: &str, path: &str, body: &Value, text: &str) {
    let a = s.request(method, path, &s.root, Some(body.to_string().as_bytes()));
    assert_eq!((a.status, a.errors()), (400, json!([text])), "{method} {path}");
}

/// A client for everybody; answers its id and secret.
fn client(s: &Server, prefix: &str) -> (String, String) {
    let path = format!("{prefix}identity/oidc/client/app");
    write(s, &path, json!({"redirect_uris": REDIRECT, "assignments": "allow_all"}));
    let made = data(s, &path);
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    (text("client_id"), text("client_secret"))
}

fn login(s: &Server, prefix: &str) -> (String, String) {
    let auth =
        s.put(&format!("{prefix}auth/userpass/login/ann"), "", &json!({"password": "pw"})).json()["auth"].clone();
    let text = |name: &str| auth[name].as_str().expect("a text").to_owned();
    (text("client_token"), text("entity_id"))
}

fn authorize(s: &Server, prefix: &str, token: &str, client_id: &str) -> Answer {
    let query =
        format!("scope=openid&response_type=code&client_id={client_id}&redirect_uri={REDIRECT}&state=s&nonce=n");
    s.get(&format!("{prefix}identity/oidc/provider/default/authorize?{query}"), token)
}

fn exchange(s: &Server, prefix: &str, client: &(String, String), code: &str) -> Answer {
    let form = format!(
        "grant_type=authorization_code&code={code}&redirect_uri={REDIRECT}&client_id={}&client_secret={}",
        client.0, client.1
    );
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let path = format!("{prefix}identity/oidc/provider/default/token");
    request(s.port, "POST", &path, &headers, Some(form.as_bytes())).expect("an answer")
}

fn code(a: &Answer) -> String {
    assert_eq!(a.status, 200, "{}", String::from_utf8_lossy(&a.body));
    a.json()["code"].as_str().expect("a code").to_owned()
}

#[test]
fn what_was_handed_out_holds_after_a_restart() {
    let mut s = Server::ready("oidc-restart");
    people(&s, &["ann"]);
    let app = client(&s, "");
    let (token, ann) = login(&s, "");
    let first = code(&authorize(&s, "", &token, &app.0));
    let early = exchange(&s, "", &app, &code(&authorize(&s, "", &token, &app.0))).json();
    let keys = s.get("identity/oidc/provider/default/.well-known/keys", "").json();
    assert_eq!(keys["keys"].as_array().expect("keys").len(), 2, "the key that signs and the next one");
    s.kill();
    s.start();
    s.unseal();
    assert_eq!(s.get("identity/oidc/provider/default/.well-known/keys", "").json(), keys);
    let tokens = exchange(&s, "", &app, &first);
    assert_eq!(tokens.status, 200, "{}", String::from_utf8_lossy(&tokens.body));
    assert_eq!(exchange(&s, "", &app, &first).json()["error"], "invalid_grant");
    for answer in [early, tokens.json()] {
        let bearer = format!("Bearer {}", answer["access_token"].as_str().expect("a token"));
        let told =
            request(s.port, "GET", "identity/oidc/provider/default/userinfo", &[("Authorization", &bearer)], None);
        assert_eq!(told.expect("an answer").json(), json!({"sub": ann}));
    }
    let document = s.get("identity/oidc/provider/default/.well-known/openid-configuration", "");
    assert_eq!(document.header("Cache-Control"), Some("max-age=3600"));
    assert_eq!(
        document.json()["authorization_endpoint"],
        format!("http://127.0.0.1:{}/ui/vault/identity/oidc/provider/default/authorize", s.port)
    );
}

#[test]
fn what_is_in_use_stays() {
    let s = Server::ready("oidc-use");
    let at = |kind: &str, name: &str| format!("identity/oidc/{kind}/{name}");
    write(&s, &at("key", "k"), json!({"allowed_client_ids": "*", "verification_ttl": "2h"}));
    write(&s, &at("scope", "mail"), json!({"template": "{\"mail\": {{identity.entity.name}}}"}));
    write(&s, &at("scope", "post"), json!({"template": "{\"mail\": \"box\"}", "description": "d"}));
    write(&s, &at("assignment", "a"), json!({"entity_ids": "E1,e1"}));
    let none = json!({});
    for (body, text) in [
        (json!({"key": "none"}), "key \"none\" does not exist"),
        (json!({"assignments": "a,none"}), "assignment \"none\" does not exist"),
        (json!({"client_type": "odd"}), "invalid client_type \"odd\""),
        (
            json!({"key": "k", "id_token_ttl": "3h"}),
            "a client's id_token_ttl cannot be greater than the verification_ttl of the key it references",
        ),
    ] {
        refused(&s, "PUT", &at("client", "app"), &body, text);
    }
    assert_eq!(s.get(&at("client", "app"), &s.root).status, 404);
    write(&s, &at("client", "app"), json!({"key": "k", "assignments": "a", "id_token_ttl": "1h"}));
    let warned =
        write(&s, &at("provider", "p"), json!({"scopes_supported": "mail,post", "issuer": "https://id.test"}));
    assert_eq!(warned["warnings"].as_array().expect("warnings").len(), 2, "{warned}");
    assert_eq!(data(&s, &at("provider", "p"))["issuer"], "https://id.test/v1/identity/oidc/provider/p");
    assert_eq!(data(&s, &at("assignment", "a")), json!({"entity_ids": ["e1"], "group_ids": []}));
    for (method, path, body, text) in [
        ("PUT", at("client", "app"), json!({"key": "default"}), "key modification is not allowed"),
        ("PUT", at("client", "app"), json!({"client_type": "public"}), "client_type modification is not allowed"),
        ("PUT", at("scope", "openid"), none.clone(), "the \"openid\" scope name is reserved"),
        ("PUT", at("assignment", "allow_all"), none.clone(), "modification of assignment \"allow_all\" not allowed"),
        ("PUT", at("provider", "p"), json!({"scopes_supported": "none"}), "scope \"none\" does not exist"),
        ("DELETE", at("assignment", "allow_all"), none.clone(), "deletion of assignment \"allow_all\" not allowed"),
        ("DELETE", at("provider", "default"), none.clone(), "deletion of OIDC provider \"default\" not allowed"),
        (
            "DELETE",
            at("assignment", "a"),
            none.clone(),
            "unable to delete assignment \"a\" because it is currently referenced by these clients: app",
        ),
        (
            "DELETE",
            at("scope", "mail"),
            none.clone(),
            "unable to delete scope \"mail\" because it is currently referenced by these providers: p",
        ),
        (
            "DELETE",
            at("key", "k"),
            none.clone(),
            "unable to delete key \"k\" because it is currently referenced by these clients: app",
        ),
        (
            "PUT",
            at("key", "k"),
            json!({"verification_ttl": "30m"}),
            "unable to update key \"k\" because it is currently referenced by one or more clients with an id_token_ttl \
             greater than 1800 seconds",
        ),
    ] {
        refused(&s, method, &path, &body, text);
    }
    let listed = s.list("identity/oidc/client", &s.root).json()["data"].clone();
    let shown = &listed["key_info"]["app"];
    assert_eq!((&listed["keys"], &shown["id_token_ttl"]), (&json!(["app"]), &json!(3600)));
    assert!(shown["client_secret"].is_null(), "a list shows no secret");
    let id = shown["client_id"].as_str().expect("an id");
    let serving =
        |id: &str| s.get(&format!("identity/oidc/provider?list=true&allowed_client_id={id}"), &s.root).json();
    assert_eq!(serving(id)["data"]["keys"], json!(["default"]));
    write(&s, &at("provider", "p"), json!({"allowed_client_ids": [id]}));
    assert_eq!(serving(id)["data"]["keys"], json!(["default", "p"]));
    assert_eq!(s.list("identity/oidc/assignment", &s.root).json()["data"]["keys"], json!(["a", "allow_all"]));
    for (kind, name) in [("provider", "p"), ("client", "app"), ("assignment", "a"), ("scope", "mail"), ("key", "k")] {
        let a = s.request("DELETE", &at(kind, name), &s.root, None);
        assert_eq!(a.status, 204, "{kind}: {:?}", a.errors());
        assert_eq!(s.get(&at(kind, name), &s.root).status, 404, "{kind}");
    }
}

#[test]
fn namespaces_have_providers_of_their_own() {
    let s = Server::ready("oidc-namespaces");
    write(&s, "sys/namespaces/team", json!({}));
    people(&s, &["ann"]);
    write(&s, "team/sys/auth/userpass", json!({"type": "userpass"}));
    write(&s, "team/auth/userpass/users/ann", json!({"password": "pw"}));
    let (here, there) = (client(&s, ""), client(&s, "team/"));
    let (token, _) = login(&s, "");
    let (theirs, ann) = login(&s, "team/");
    // a client of one namespace is unknown in another, and so is a user
    assert_eq!(authorize(&s, "team/", &theirs, &here.0).json()["error"], "invalid_client_id");
    assert_ne!(authorize(&s, "team/", &token, &there.0).status, 200);
    let tokens = exchange(&s, "team/", &there, &code(&authorize(&s, "team/", &theirs, &there.0)));
    let access = tokens.json()["access_token"].as_str().expect("a token").to_owned();
    let told = |prefix: &str| s.get(&format!("{prefix}identity/oidc/provider/default/userinfo"), &access);
    assert_eq!(told("team/").json(), json!({"sub": ann}));
    assert_eq!(told("").status, 401);
    // a code of one is nothing to the other
    let code = code(&authorize(&s, "team/", &theirs, &there.0));
    assert_eq!(exchange(&s, "", &here, &code).json()["error"], "invalid_grant");
    let issuer =
        s.get("team/identity/oidc/provider/default/.well-known/openid-configuration", "").json()["issuer"].clone();
    assert_eq!(issuer, format!("http://127.0.0.1:{}/v1/team/identity/oidc/provider/default", s.port));
    // with the namespace goes what it had
    let a = s.request("DELETE", "sys/namespaces/team", &s.root, None);
    assert!(matches!(a.status, 200 | 202 | 204), "{:?}", a.errors());
    assert_ne!(told("team/").status, 200);
}

/// The command line in a login through the browser; it ends with the test.
struct Login(Child);

impl Drop for Login {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Login {
    /// Starts it and answers the URL that it shows.
    fn begin(s: &Server, args: &[&str]) -> (Login, String) {
        let child = Command::new(binary())
            .args(["login", "-method=oidc", "-token-only"])
            .args(args)
            .env("VAULT_ADDR", format!("http://127.0.0.1:{}", s.port))
            .env_remove("VAULT_TOKEN")
            .env("HOME", &s.scratch.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("the command line runs");
        let mut shown = BufReader::new(child.stderr.take().expect("piped"));
        let (mut url, mut line) = (String::new(), String::new());
        while !line.contains("Waiting for OIDC authentication") {
            line.clear();
            assert!(shown.read_line(&mut line).expect("a pipe") > 0, "it gave up: {url}");
            if let Some(found) = line.trim().strip_prefix("http") {
                url = format!("http{found}");
            }
        }
        std::thread::spawn(move || std::io::copy(&mut shown, &mut std::io::sink()));
        (Login(child), url)
    }

    /// What it printed, once it has ended well.
    fn token(mut self) -> String {
        let mut out = String::new();
        self.0.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
        assert!(self.0.wait().expect("a child").success(), "{out}");
        out.trim().to_owned()
    }
}

/// Both ends are ours: the command line logs in at a mount that trusts the provider of the same server.
#[test]
fn the_command_line_logs_in_by_our_own_provider() {
    let s = Server::ready("oidc-cli");
    people(&s, &["ann"]);
    let (user, ann) = login(&s, "");
    let port = free_port();
    let redirect = format!("http://localhost:{port}/oidc/callback");
    write(&s, "identity/oidc/client/app", json!({"redirect_uris": redirect, "assignments": "allow_all"}));
    let app = data(&s, "identity/oidc/client/app");
    write(&s, "sys/auth/oidc", json!({"type": "oidc"}));
    let provider = format!("http://127.0.0.1:{}/v1/identity/oidc/provider/default", s.port);
    let config = json!({"oidc_discovery_url": provider, "oidc_client_id": app["client_id"],
        "oidc_client_secret": app["client_secret"], "default_role": "person"});
    write(&s, "auth/oidc/config", config);
    let role = json!({"user_claim": "sub", "allowed_redirect_uris": redirect, "token_policies": "person"});
    write(&s, "auth/oidc/role/person", role);
    let at = format!("port={port}");
    let (login, url) = Login::begin(&s, &[&at, "skip_browser=true"]);
    // the part of the user interface: the user's own call to where the URL leads
    let (page, query) = url.split_once('?').expect("a query");
    assert!(page.ends_with("/ui/vault/identity/oidc/provider/default/authorize"), "{url}");
    let back = s.get(&format!("identity/oidc/provider/default/authorize?{query}"), &user);
    let (code, state) = (code(&back), back.json()["state"].as_str().expect("a state").to_owned());
    let visit = |target: &str| {
        let mut stream = TcpStream::connect(("localhost", port)).expect("it listens");
        write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("connected");
        read_answer(&mut BufReader::new(stream)).expect("an answer")
    };
    // a browser's idle connection, a stray page and another login do not disturb it
    let _idle = TcpStream::connect(("localhost", port)).expect("it listens");
    assert_eq!(visit("/favicon.ico").status, 404);
    assert_eq!(visit(&format!("/oidc/callback?code={code}&state=st_other")).status, 400);
    let page = visit(&format!("/oidc/callback?code={code}&state={state}"));
    assert_eq!(page.status, 200, "{}", String::from_utf8_lossy(&page.body));
    let token = login.token();
    let looked = s.get("auth/token/lookup-self", &token).json()["data"].clone();
    assert_eq!(looked["display_name"], format!("oidc-{ann}"));
    assert_eq!(looked["policies"], json!(["default", "person"]));
}
