//! The two dry modes: a request shown as a curl command, or as the policy that would allow it.

use super::client::{Client, Request};
use super::output::go_quote;

/// The curl command of a request. The token is never printed: the shell fetches it.
pub fn curl(client: &Client, request: &Request, url: &str, body: Option<&[u8]>) -> String {
    let settings = &client.settings;
    let mut text = String::from("curl ");
    if settings.tls.skip_verify {
        text.push_str("--insecure ");
    }
    if request.method != "GET" {
        text.push_str(&format!("-X {} ", request.method));
    }
    let files = [
        ("--cacert", &settings.tls.ca_cert),
        ("--capath", &settings.tls.ca_path),
        ("--cert", &settings.tls.client_cert),
        ("--key", &settings.tls.client_key),
    ];
    for (option, file) in files {
        if let Some(file) = file {
            text.push_str(&format!("{option} {} ", single_quoted(&file.display().to_string())));
        }
    }
    for (name, value) in client.headers(request) {
        let value = if name == "X-Vault-Token" { format!("$({} print token)", settings.program) } else { value };
        text.push_str(&format!("-H \"{name}: {value}\" "));
    }
    if let Some(body) = body {
        text.push_str(&format!("-d {} ", single_quoted(&String::from_utf8_lossy(body))));
    }
    // a query holds characters that a shell would take for its own
    let url =
        if url.contains(['?', '&', '*', '(', ')', ';', '\'', '!', '$']) { go_quote(url) } else { url.to_owned() };
    text + &url
}

fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

/// A policy that allows the request.
pub fn policy(request: &Request) -> String {
    let has = |key: &str| request.query.iter().any(|(name, value)| name == key && value == "true");
    let mut capabilities = match request.method {
        "LIST" => vec!["list"],
        "GET" if has("list") => vec!["list"],
        "GET" if has("scan") => vec!["scan"],
        "PUT" | "POST" => vec!["create", "update"],
        "PATCH" => vec!["patch"],
        "DELETE" => vec!["delete"],
        _ => vec!["read"],
    };
    if needs_sudo(&request.path) {
        capabilities.push("sudo");
    }
    format!("path \"{}\" {{\n  capabilities = [\"{}\"]\n}}", request.path, capabilities.join("\", \""))
}

/// Paths that ask for the sudo capability besides the operation's own. A trailing `*` matches the rest.
const SUDO_PATHS: [&str; 26] = [
    "auth/token/accessors",
    "auth/token/revoke-orphan",
    "pki/root",
    "pki/root/sign-self-issued",
    "sys/audit",
    "sys/audit/*",
    "sys/auth/*",
    "sys/config/auditing/*",
    "sys/config/cors",
    "sys/config/ui/headers*",
    "sys/internal/inspect/*",
    "sys/internal/counters/activity/export",
    "sys/leases",
    "sys/leases/lookup/*",
    "sys/leases/revoke-force/*",
    "sys/leases/revoke-prefix/*",
    "sys/leases/tidy",
    "sys/plugins/catalog/*",
    "sys/raw*",
    "sys/remount",
    "sys/revoke-force/*",
    "sys/revoke-prefix/*",
    "sys/rotate",
    "sys/seal",
    "sys/step-down",
    "sys/storage/raft/snapshot-auto/config/*",
];

fn needs_sudo(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    SUDO_PATHS.iter().any(|rule| match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == *rule,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies_name_the_capabilities() {
        let text = |request: &Request| policy(request);
        assert_eq!(text(&Request::get("secret/data/x")), "path \"secret/data/x\" {\n  capabilities = [\"read\"]\n}");
        assert_eq!(
            text(&Request::list("secret/metadata")),
            "path \"secret/metadata\" {\n  capabilities = [\"list\"]\n}"
        );
        assert!(text(&Request::put("sys/auth/x", json!({}))).contains("[\"create\", \"update\", \"sudo\"]"));
        assert!(text(&Request::patch("a", json!({}))).contains("[\"patch\"]"));
    }
}
