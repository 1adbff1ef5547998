//! `identity/oidc/client/*`: the applications that log users in by us.

use super::super::{keys, load, names, save};
use super::{CLIENT, CLIENT_ID, assignments};
use crate::identity::view;
use crate::tables;
use ringfence_base::entropy;
use ringfence_logical::field::Preset;
use ringfence_logical::{Args, Cx, Error, Field, Outcome, Path, Response, nothing};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Characters of a client id.
const ID_CHARACTERS: usize = 32;
/// Characters of a client secret behind its prefix: 381 bits.
const SECRET_CHARACTERS: usize = 64;
/// Begins a client secret.
const SECRET_PREFIX: &str = "hvo_secret_";
const DAY_SECONDS: i64 = 86_400;
const NAME: Field = Field::str("name", "Name of the client.");

/// The paths.
pub const PATHS: &[Path] = &[
    Path::new("oidc/client/?").help("List clients of the OpenID provider.", "").list(list),
    Path::new("oidc/client/{name}")
        .fields(&[
            NAME,
            Field::str("key", "Name of the key that signs its tokens; cannot be changed.")
                .preset(Preset::Str(keys::DEFAULT)),
            Field::list("redirect_uris", "Where its users may come back to."),
            Field::list("assignments", "Names of the assignments of those who may log in to it."),
            Field::str("client_type", "`confidential` or `public`; cannot be changed.")
                .preset(Preset::Str("confidential")),
            Field::seconds("id_token_ttl", "Life of its identity tokens.").preset(Preset::Int(DAY_SECONDS)),
            Field::seconds("access_token_ttl", "Life of its access tokens.").preset(Preset::Int(DAY_SECONDS)),
        ])
        .help("Read, write or delete a client of the OpenID provider.", "")
        .exists(|cx, args| Ok(find(cx, args.str("name"))?.is_some()))
        .read(read)
        .write(write)
        .delete(delete),
];

/// A client.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// Name of its key.
    pub key: String,
    /// Where users may come back to.
    pub redirect_uris: Vec<String>,
    /// Names of assignments.
    pub assignments: Vec<String>,
    /// Keeps no secret, and must prove by PKCE that a code is its own.
    pub is_public: bool,
    /// What it is known by.
    pub client_id: String,
    /// Empty for a public client.
    pub client_secret: String,
    /// Seconds.
    pub id_token_ttl: u64,
    /// Seconds.
    pub access_token_ttl: u64,
}

impl Client {
    fn shown(&self) -> Value {
        json!({
            "redirect_uris": self.redirect_uris, "assignments": self.assignments, "key": self.key,
            "id_token_ttl": self.id_token_ttl, "access_token_ttl": self.access_token_ttl,
            "client_id": self.client_id, "client_type": if self.is_public { "public" } else { "confidential" },
        })
    }
}

/// Reads a client.
pub fn find(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Client>, Error> {
    load(cx.txn, cx.mount.ns, CLIENT, name)
}

/// The client behind a client id.
pub fn by_id(cx: &mut Cx<'_, '_>, client_id: &str) -> Result<Option<Client>, Error> {
    match load::<String>(cx.txn, cx.mount.ns, CLIENT_ID, client_id)? {
        Some(name) => find(cx, &name),
        None => Ok(None),
    }
}

/// Every client.
pub fn all(cx: &mut Cx<'_, '_>) -> Result<Vec<Client>, Error> {
    let mut out = Vec::new();
    for name in names(cx.txn, cx.mount.ns, CLIENT) {
        out.extend(find(cx, &name)?);
    }
    Ok(out)
}

fn list(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    let rows = all(cx)?.into_iter().map(|c| (c.name.clone(), c.shown())).collect();
    view::listing(rows)
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(client) = find(cx, args.str("name"))? else { return nothing() };
    let mut shown = client.shown();
    if !client.is_public {
        shown["client_secret"] = client.client_secret.clone().into();
    }
    Response::json(shown).done()
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").to_owned();
    let given = args.clone();
    let client = merged(cx, &name, &given)?;
    // a key set without the client's key would be a riddle to whoever fetches it first
    keys::with_key(cx, &client.key, move |cx, key| {
        let mut client = merged(cx, &name, &given)?;
        if client.id_token_ttl > key.verification_ttl {
            return Err(Error::invalid(
                "a client's id_token_ttl cannot be greater than the verification_ttl of the key it references",
            ));
        }
        if client.client_id.is_empty() {
            client.client_id = entropy::base62(cx.rng, ID_CHARACTERS);
            save(cx.txn, cx.mount.ns, CLIENT_ID, &client.client_id, &name);
        }
        if !client.is_public && client.client_secret.is_empty() {
            client.client_secret = format!("{SECRET_PREFIX}{}", entropy::base62(cx.rng, SECRET_CHARACTERS));
        }
        save(cx.txn, cx.mount.ns, CLIENT, &name, &client);
        nothing()
    })
}

/// The client as a write wants it.
fn merged(cx: &mut Cx<'_, '_>, name: &str, args: &Args) -> Result<Client, Error> {
    let old = find(cx, name)?;
    let is_new = old.is_none();
    let mut client = old.unwrap_or_else(|| Client { name: name.to_owned(), ..Client::default() });
    let distinct = |given: Vec<String>| {
        let mut out: Vec<String> = Vec::new();
        for text in given {
            if !out.contains(&text) {
                out.push(text);
            }
        }
        out
    };
    if let Some(uris) = args.opt_list("redirect_uris") {
        client.redirect_uris = distinct(uris);
    }
    if let Some(given) = args.opt_list("assignments") {
        client.assignments = distinct(given);
    }
    for assignment in &client.assignments {
        if assignments::find(cx, assignment)?.is_none() {
            return Err(Error::invalid(format!("assignment {assignment:?} does not exist")));
        }
    }
    if args.supplied("key") && !is_new && args.str("key") != client.key {
        return Err(Error::invalid("key modification is not allowed"));
    }
    if is_new {
        client.key = args.str("key").to_owned();
    }
    if client.key != keys::DEFAULT && keys::Key::load(cx, &client.key)?.is_none() {
        return Err(Error::invalid(format!("key {:?} does not exist", client.key)));
    }
    if is_new || args.supplied("id_token_ttl") {
        client.id_token_ttl = args.seconds("id_token_ttl");
    }
    if is_new || args.supplied("access_token_ttl") {
        client.access_token_ttl = args.seconds("access_token_ttl");
    }
    if is_new || args.supplied("client_type") {
        let is_public = match args.str("client_type") {
            "public" => true,
            "confidential" => false,
            other => return Err(Error::invalid(format!("invalid client_type {other:?}"))),
        };
        if !is_new && client.is_public != is_public {
            return Err(Error::invalid("client_type modification is not allowed"));
        }
        client.is_public = is_public;
    }
    Ok(client)
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name");
    if let Some(client) = find(cx, name)? {
        cx.txn.delete(&tables::oidc(cx.mount.ns, CLIENT, name));
        cx.txn.delete(&tables::oidc(cx.mount.ns, CLIENT_ID, &client.client_id));
    }
    nothing()
}
