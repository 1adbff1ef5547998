//! Users: what is kept of them, and the paths that change it.

use crate::page;
use crate::tokenutil::TokenParams;
use ringfence_base::Secret;
use ringfence_crypto::password::{DEFAULT_COST, MAX_PASSWORD_BYTES, is_hash};
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, SideOp, SideResult, Step, nothing};

/// Area of the users.
const USERS: u8 = b'u';

/// A user.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct User {
    /// bcrypt, in its text form.
    pub password_hash: String,
    pub token: TokenParams,
}

pub fn load(cx: &mut Cx<'_, '_>, name: &str) -> Result<Option<User>, Error> {
    cx.get_json(USERS, name.as_bytes())
}

fn save(cx: &mut Cx<'_, '_>, name: &str, user: &User) {
    cx.put_json(USERS, name.as_bytes(), user);
}

pub fn exists(cx: &mut Cx<'_, '_>, args: &Args) -> Result<bool, Error> {
    Ok(cx.exists(USERS, args.str("username").as_bytes()))
}

pub fn read(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(user) = load(cx, args.str("username"))? else { return nothing() };
    let mut m = Map::new();
    user.token.read_into(&mut m);
    Response::data(m).done()
}

pub fn list(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    Response::keys(cx.list(USERS, "", args.str("after"), page::limit(args))?).done()
}

pub fn delete(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("username");
    if cx.exists(USERS, name.as_bytes()) {
        cx.delete(USERS, name.as_bytes());
    }
    nothing()
}

/// What a request says of the password.
enum NewPassword {
    /// Nothing.
    Kept,
    /// To be hashed.
    Plain(Secret<Vec<u8>>),
    /// Hashed by the client.
    Hash(String),
}

fn new_password(args: &Args) -> Result<NewPassword, Error> {
    match (args.str("password"), args.str("password_hash")) {
        ("", "") => Ok(NewPassword::Kept),
        (_, "") => {
            let password = Secret::new(args.str("password").as_bytes().to_vec());
            // bcrypt reads no further; a longer password would be cut in silence
            if password.expose().len() > MAX_PASSWORD_BYTES {
                return Err(Error::invalid(format!("password length exceeds {MAX_PASSWORD_BYTES} bytes")));
            }
            Ok(NewPassword::Plain(password))
        }
        ("", hash) if is_hash(hash) => Ok(NewPassword::Hash(hash.to_owned())),
        ("", _) => Err(Error::invalid("\"password_hash\" is not a bcrypt hash")),
        _ => Err(Error::invalid("only one of \"password\" and \"password_hash\" can be given")),
    }
}

/// Creates or changes a user.
pub fn write(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let known = load(cx, args.str("username"))?;
    let password = new_password(args)?;
    if known.is_none() && matches!(password, NewPassword::Kept) {
        return Err(Error::invalid("missing password"));
    }
    // what the fields say is refused before time is spent on the password
    known.unwrap_or_default().token.update(args)?;
    with_hash(cx, password, args, |cx, args, hash| {
        let name = args.str("username");
        let mut user = load(cx, name)?.unwrap_or_default();
        user.token.update(args)?;
        match hash {
            Some(hash) => user.password_hash = hash.to_owned(),
            // deleted while it was changed
            None if user.password_hash.is_empty() => return Err(Error::invalid("missing password")),
            None => {}
        }
        save(cx, name, &user);
        nothing()
    })
}

pub fn set_password(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    if !exists(cx, args)? {
        return Err(unknown_user());
    }
    let password = new_password(args)?;
    if matches!(password, NewPassword::Kept) {
        return Err(Error::invalid("missing password"));
    }
    with_hash(cx, password, args, |cx, args, hash| {
        let name = args.str("username");
        let mut user = load(cx, name)?.ok_or_else(unknown_user)?;
        user.password_hash = hash.unwrap_or_default().to_owned();
        save(cx, name, &user);
        nothing()
    })
}

/// Hashes the password, if there is one to hash, and then goes on with the hash.
fn with_hash(
    cx: &mut Cx<'_, '_>,
    password: NewPassword,
    args: &Args,
    then: fn(&mut Cx<'_, '_>, &Args, Option<&str>) -> Outcome,
) -> Outcome {
    let password = match password {
        NewPassword::Kept => return then(cx, args, None),
        NewPassword::Hash(hash) => return then(cx, args, Some(&hash)),
        NewPassword::Plain(p) => p,
    };
    let mut salt = [0; 16];
    cx.rng.fill(&mut salt);
    let args = args.clone();
    Ok(Step::Side {
        op: SideOp::BcryptHash { password, salt, cost: DEFAULT_COST },
        resume: Box::new(move |cx, result| match result {
            SideResult::Text(hash) => then(cx, &args, Some(hash)),
            SideResult::Failed(why) => Err(Error::internal(format!("hashing a password: {why}"))),
            _ => Err(Error::internal("hashing a password gave no hash")),
        }),
    })
}

pub fn set_policies(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("username");
    let mut user = load(cx, name)?.ok_or_else(unknown_user)?;
    user.token.update(args)?;
    save(cx, name, &user);
    nothing()
}

fn unknown_user() -> Error {
    Error::plain("username does not exist")
}
