//! Login by name and password.

use super::user;
use ringfence_base::Secret;
use ringfence_logical::{Alias, Args, Cx, Error, Map, Outcome, Response, SideOp, SideResult, Step};
use std::collections::BTreeMap;

/// Compared with when the name is unknown, so that a miss takes as long as a wrong password: the hash, at the default
/// cost, of a random password that was thrown away.
pub(super) const NOBODY: &str = "$2a$10$Deb1dkst6FlRYyqyKqRQeOiX/hOwOyFM17d9v60n1TvCtQwschR2i";

pub fn login(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let password = Secret::new(args.str("password").as_bytes().to_vec());
    if password.expose().is_empty() {
        return Err(Error::plain("missing password"));
    }
    verify(cx, args.str("username").to_owned(), password)
}

fn wrong() -> Error {
    Error::credentials("invalid username or password")
}

/// The hash that a name's password is compared with.
fn hash_of(cx: &mut Cx<'_, '_>, name: &str) -> Result<String, Error> {
    Ok(user::load(cx, name)?.map_or_else(|| NOBODY.to_owned(), |u| u.password_hash))
}

pub(super) fn verify(cx: &mut Cx<'_, '_>, name: String, password: Secret<Vec<u8>>) -> Outcome {
    let hash = hash_of(cx, &name)?;
    Ok(Step::Side {
        op: SideOp::BcryptVerify { password: password.clone(), hash: hash.clone() },
        resume: Box::new(move |cx, result| {
            let verdict = match result {
                SideResult::Verdict(v) => *v,
                SideResult::Failed(why) => return Err(Error::internal(format!("comparing a password: {why}"))),
                _ => return Err(Error::internal("comparing a password gave no verdict")),
            };
            if hash_of(cx, &name)? != hash {
                // the user changed meanwhile: what was compared is not what counts now
                return verify(cx, name.clone(), password.clone());
            }
            match verdict {
                true => admit(cx, &name),
                false => Err(wrong()),
            }
        }),
    })
}

fn admit(cx: &mut Cx<'_, '_>, name: &str) -> Outcome {
    // the dummy hash lets nobody in, even if somebody found its password
    let user = user::load(cx, name)?.ok_or_else(wrong)?;
    if !cx.host.cidr_allows(&user.token.bound_cidrs, cx.req.remote) {
        return Err(Error::denied_plain());
    }
    let metadata = BTreeMap::from([("username".to_owned(), name.to_owned())]);
    let mut internal = Map::new();
    internal.insert("username".into(), name.into());
    let mut auth = user.token.auth(cx.req.remote);
    auth.display_name = name.to_owned();
    auth.alias = Some(Alias { name: name.to_owned(), metadata: metadata.clone() });
    auth.metadata = metadata;
    auth.internal = internal;
    Response { auth: Some(auth), ..Response::default() }.done()
}
