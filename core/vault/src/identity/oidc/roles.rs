//! `identity/oidc/role/*`: which key signs, for whom a token is meant, and what it says beside who it is about.

use super::keys::Key;
use super::{ROLE, load, names, save, template};
use ringfence_base::Entropy;
use ringfence_logical::field::Preset;
use ringfence_logical::{Args, Cx, Error, Field, Outcome, Path, Response, nothing};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Characters of a client id that we choose.
const CLIENT_ID_CHARACTERS: usize = 24;
const NAME: Field = Field::str("name", "Name of the role.");

/// The paths.
pub const PATHS: &[Path] = &[
    Path::new("oidc/role/?").help("List roles of identity tokens.", "").list(list),
    Path::new("oidc/role/{name}")
        .fields(&[
            NAME,
            Field::str("key", "Name of the key that signs."),
            Field::str("template", "Further claims: a JSON object with places to fill, as text or in base64."),
            Field::str("client_id", "The audience of the tokens; chosen if not given."),
            Field::seconds("ttl", "How long the tokens live.").preset(Preset::Int(86_400)),
        ])
        .help("Read, write or delete a role of identity tokens.", "")
        .exists(|cx, args| Ok(find(cx, args.str("name"))?.is_some()))
        .read(read)
        .write(write)
        .delete(delete),
];

/// A role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// Name of the key.
    pub key: String,
    /// Further claims, as text.
    pub template: String,
    /// Audience.
    pub client_id: String,
    /// Seconds.
    pub ttl: u64,
}

/// Reads a role.
pub fn find(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<Role>, Error> {
    load(cx.txn, cx.mount.ns, ROLE, name)
}

/// Every role with its name.
pub fn all(cx: &mut Cx<'_, '_>) -> Result<Vec<(String, Role)>, Error> {
    let mut out = Vec::new();
    for name in names(cx.txn, cx.mount.ns, ROLE) {
        if let Some(role) = find(cx, &name)? {
            out.push((name, role));
        }
    }
    Ok(out)
}

fn list(cx: &mut Cx<'_, '_>, _: &Args) -> Outcome {
    Response::keys(names(cx.txn, cx.mount.ns, ROLE)).done()
}

fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match find(cx, args.str("name"))? {
        Some(r) => {
            Response::json(json!({"client_id": r.client_id, "key": r.key, "template": r.template, "ttl": r.ttl}))
                .done()
        }
        None => nothing(),
    }
}

fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").to_owned();
    let old = find(cx, &name)?;
    let is_new = old.is_none();
    let mut role = old.unwrap_or_default();
    if let Some(key) = args.opt_str("key") {
        role.key = key.to_owned();
    }
    if role.key.is_empty() {
        return Err(Error::invalid("the key parameter is required"));
    }
    if let Some(given) = args.opt_str("template") {
        role.template = template::plain(given);
        template::check(&role.template).map_err(Error::invalid)?;
    }
    if is_new || args.supplied("ttl") {
        role.ttl = args.seconds("ttl");
    }
    if let Some(id) = args.opt_str("client_id") {
        role.client_id = id.to_owned();
    }
    if role.client_id.is_empty() {
        role.client_id = random_text(cx.rng);
    }
    if let Some(key) = Key::load(cx, &role.key)?
        && role.ttl > key.verification_ttl
    {
        return Err(Error::invalid(
            "a role's token ttl cannot be longer than the verification_ttl of the key it references",
        ));
    }
    save(cx.txn, cx.mount.ns, ROLE, &name, &role);
    nothing()
}

/// Letters and digits, evenly drawn.
fn random_text(rng: &mut dyn Entropy) -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut out = String::with_capacity(CLIENT_ID_CHARACTERS);
    while out.len() < CLIENT_ID_CHARACTERS {
        let mut byte = [0u8; 1];
        rng.fill(&mut byte);
        // 248 is the largest multiple of 62 in a byte
        if byte[0] < 248 {
            out.push(char::from(LETTERS[usize::from(byte[0] % 62)]));
        }
    }
    out
}

fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if find(cx, args.str("name"))?.is_some() {
        cx.txn.delete(&crate::tables::oidc(cx.mount.ns, ROLE, args.str("name")));
    }
    nothing()
}
