//! The `state` of the code flow (RFC 6749 4.1.1): what was asked, authenticated by a keyed hash, so that beginning a
//! login writes nothing. Only a state that was used leaves a mark, until it would have expired.
//!
//! ```text
//! st_ base64url( JSON { random, ends, role, redirect, nonce of the client (hashed) } ) . base64url( keyed hash )
//! ```
//!
//! The PKCE verifier (RFC 7636) and the `nonce` of the provider's token (OpenID Connect Core 3.1.2.1) are keyed hashes
//! of the same text: whoever sees the state does not know the verifier, and none of the three is kept.
//!
//! Where the provider's answer comes to us and not to the client (`form_post`, roles with direct callback), it is kept
//! under the state's mark until the client comes for it: a bounded number of answers a mount, each as long as its state.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_base::secret::same_bytes;
use ringfence_base::{Code, Secret, Wall};
use ringfence_logical::{Cx, Error};

/// Area of the states that were used.
const USED: u8 = b'u';
/// Area of the provider's answers that nobody has come for yet.
const WAITING: u8 = b'w';
/// Most answers of a mount that wait. Anybody may begin logins, so this bounds what strangers can make us keep.
const MAX_WAITING: usize = 1024;
/// Longest of the texts of an answer, bytes.
const MAX_GIVEN_BYTES: usize = 16 * 1024;
/// How long a login may take in the browser. Seconds. Source: Vault's documented request timeout of five minutes.
pub const LIFE_S: u64 = 300;
/// Used states that are cleared away at one login.
const MAX_CLEARED: usize = 32;

/// What a login in the browser was begun with.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Asked {
    random: String,
    ends: u64,
    pub role: String,
    pub redirect: String,
    /// Hash of the client's own nonce; empty if it gave none.
    nonce: String,
}

/// What the provider gave the browser for us (RFC 6749 4.1.2, OpenID Connect Core 3.2.2.5).
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Given {
    pub code: String,
    pub id_token: String,
    pub error: String,
    pub error_description: String,
}

/// A state that this mount made.
pub struct State {
    pub asked: Asked,
    text: String,
}

impl State {
    /// A fresh state.
    pub fn begin(cx: &mut Cx<'_, '_>, role: &str, redirect: &str, client_nonce: &str) -> State {
        let mut random = [0; 16];
        cx.rng.fill(&mut random);
        let asked = Asked {
            random: URL_SAFE_NO_PAD.encode(random),
            ends: cx.now.seconds() + LIFE_S,
            role: role.to_owned(),
            redirect: redirect.to_owned(),
            nonce: hash_of_nonce(cx, client_nonce),
        };
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&asked).expect("a plain record always serialises"));
        let proof = URL_SAFE_NO_PAD.encode(keyed(cx, "jwt state", body.as_bytes()));
        State { asked, text: format!("st_{body}.{proof}") }
    }

    /// A state that came back: ours, not over, not used. `None` otherwise.
    pub fn back(cx: &mut Cx<'_, '_>, text: &str) -> Option<State> {
        // clients that know of namespaces append `,ns=...`
        let text = text.split(',').next()?;
        let (body, proof) = text.strip_prefix("st_")?.split_once('.')?;
        let proof = URL_SAFE_NO_PAD.decode(proof).ok()?;
        if !same_bytes(&proof, &keyed(cx, "jwt state", body.as_bytes())) {
            return None;
        }
        let asked: Asked = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
        let state = State { asked, text: text.to_owned() };
        let fresh = cx.now.seconds() < state.asked.ends && !cx.exists(USED, &state.mark(cx));
        fresh.then_some(state)
    }

    /// The text that goes through the browser.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// True if this client began it.
    pub fn is_of(&self, cx: &Cx<'_, '_>, client_nonce: &str) -> bool {
        self.asked.nonce.is_empty()
            || same_bytes(self.asked.nonce.as_bytes(), hash_of_nonce(cx, client_nonce).as_bytes())
    }

    /// The PKCE verifier.
    pub fn verifier(&self, cx: &Cx<'_, '_>) -> Secret<String> {
        let halves = [keyed(cx, "jwt pkce 1", self.text.as_bytes()), keyed(cx, "jwt pkce 2", self.text.as_bytes())];
        Secret::new(URL_SAFE_NO_PAD.encode(halves.concat()))
    }

    /// What the provider's token must carry.
    pub fn nonce(&self, cx: &Cx<'_, '_>) -> String {
        format!("n_{}", URL_SAFE_NO_PAD.encode(keyed(cx, "jwt nonce", self.text.as_bytes())))
    }

    /// Uses it up, with the login that it made; clears away marks whose states are over by themselves.
    pub fn spend(&self, cx: &mut Cx<'_, '_>) {
        clear(cx, USED);
        let mark = self.mark(cx);
        cx.put(USED, &mark, b"");
        if cx.exists(WAITING, &mark) {
            cx.delete(WAITING, &mark);
        }
    }

    /// Keeps the provider's answer until the client comes for it. The first one counts: a later one is not the
    /// provider's, or tells the same.
    ///
    /// # Errors
    /// Too much, or too many of them.
    pub fn keep(&self, cx: &mut Cx<'_, '_>, given: &Given) -> Result<(), Error> {
        let texts = [&given.code, &given.id_token, &given.error, &given.error_description];
        if texts.iter().any(|t| t.len() > MAX_GIVEN_BYTES) {
            return Err(Error::invalid("Vault login failed. The provider's answer is too long."));
        }
        let mark = self.mark(cx);
        if cx.exists(WAITING, &mark) {
            return Ok(());
        }
        clear(cx, WAITING);
        let area = cx.key(WAITING, b"");
        if cx.txn.list(&area, None, MAX_WAITING).len() >= MAX_WAITING {
            return Err(Error::new(Code::Quota, "Vault login failed. Too many logins are under way."));
        }
        cx.put_json(WAITING, &mark, given);
        Ok(())
    }

    /// The provider's answer, if it came to us.
    pub fn kept(&self, cx: &mut Cx<'_, '_>) -> Result<Option<Given>, Error> {
        let mark = self.mark(cx);
        cx.get_json(WAITING, &mark)
    }

    /// Marks come out in the order in which their states end.
    fn mark(&self, cx: &Cx<'_, '_>) -> Vec<u8> {
        [&self.asked.ends.to_be_bytes()[..], &keyed(cx, "jwt used", self.text.as_bytes())].concat()
    }
}

/// Clears away some marks whose states are over by themselves.
fn clear(cx: &mut Cx<'_, '_>, area: u8) {
    let prefix = cx.key(area, b"");
    for key in cx.txn.list(&prefix, None, MAX_CLEARED) {
        let ends = key.get(prefix.len()..prefix.len() + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
        match ends {
            Some(ends) if Wall::from_seconds(ends) < cx.now => cx.txn.delete(&key),
            _ => break,
        }
    }
}

fn hash_of_nonce(cx: &Cx<'_, '_>, client_nonce: &str) -> String {
    match client_nonce {
        "" => String::new(),
        nonce => URL_SAFE_NO_PAD.encode(keyed(cx, "jwt client nonce", nonce.as_bytes())),
    }
}

/// A keyed hash that another mount would not give.
fn keyed(cx: &Cx<'_, '_>, kind: &str, bytes: &[u8]) -> [u8; 16] {
    cx.host.keyed_hash(kind, &[&cx.mount.id.0.to_be_bytes()[..], bytes].concat())
}
