//! One endpoint a field of a role: read, set, reset. The endpoints differ in data only, so they are one table and
//! three handlers that know their row as a constant.

use super::role::{self, Role};
use ringfence_logical::{Args, Cx, Error, Map, Outcome, Response, nothing};
use serde_json::{Value, json};

/// A row.
struct RoleField {
    /// The field in requests and answers.
    name: &'static str,
    /// A second name under which it may be sent, and is shown if it was last set so.
    older: Option<&'static str>,
    value: fn(&Role) -> Value,
    reset: fn(&mut Role),
}

pub const POLICIES: usize = 0;
pub const BIND_SECRET_ID: usize = 1;
pub const SECRET_ID_NUM_USES: usize = 2;
pub const SECRET_ID_TTL: usize = 3;
pub const SECRET_ID_BOUND_CIDRS: usize = 4;
pub const BOUND_CIDR_LIST: usize = 5;
pub const TOKEN_BOUND_CIDRS: usize = 6;
pub const TOKEN_TTL: usize = 7;
pub const TOKEN_MAX_TTL: usize = 8;
pub const TOKEN_NUM_USES: usize = 9;
pub const PERIOD: usize = 10;

static ROWS: [RoleField; 11] = [
    RoleField {
        name: "token_policies",
        older: Some("policies"),
        value: |r| json!(r.token.policies),
        reset: |r| r.token.policies.clear(),
    },
    RoleField {
        name: "bind_secret_id",
        older: None,
        value: |r| r.bind_secret_id.into(),
        reset: |r| r.bind_secret_id = true,
    },
    RoleField {
        name: "secret_id_num_uses",
        older: None,
        value: |r| r.secret_id_num_uses.into(),
        reset: |r| r.secret_id_num_uses = 0,
    },
    RoleField {
        name: "secret_id_ttl",
        older: None,
        value: |r| r.secret_id_ttl.into(),
        reset: |r| r.secret_id_ttl = 0,
    },
    RoleField {
        name: "secret_id_bound_cidrs",
        older: None,
        value: Role::cidrs_json,
        reset: |r| r.secret_id_bound_cidrs.clear(),
    },
    RoleField {
        name: "bound_cidr_list",
        older: None,
        value: Role::cidrs_json,
        reset: |r| r.secret_id_bound_cidrs.clear(),
    },
    RoleField {
        name: "token_bound_cidrs",
        older: None,
        value: |r| json!(r.token.bound_cidrs),
        reset: |r| r.token.bound_cidrs.clear(),
    },
    RoleField { name: "token_ttl", older: None, value: |r| r.token.ttl.into(), reset: |r| r.token.ttl = 0 },
    RoleField {
        name: "token_max_ttl",
        older: None,
        value: |r| r.token.max_ttl.into(),
        reset: |r| r.token.max_ttl = 0,
    },
    RoleField {
        name: "token_num_uses",
        older: None,
        value: |r| r.token.num_uses.into(),
        reset: |r| r.token.num_uses = 0,
    },
    RoleField {
        name: "token_period",
        older: Some("period"),
        value: |r| r.token.period.into(),
        reset: |r| r.token.period = 0,
    },
];

pub fn read<const ROW: usize>(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let Some(role) = role::load(cx, args.str("role_name"))? else { return nothing() };
    let row = &ROWS[ROW];
    let mut m = Map::new();
    m.insert(row.name.into(), (row.value)(&role));
    if let Some(older) = row.older.filter(|o| role.token.set_as(o)) {
        m.insert(older.into(), (row.value)(&role));
    }
    Response::data(m).done()
}

pub fn write<const ROW: usize>(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let row = &ROWS[ROW];
    let name = args.str("role_name");
    let mut role = role::required(cx, name)?;
    if !args.supplied(row.name) && !row.older.is_some_and(|o| args.supplied(o)) {
        return Err(Error::invalid(format!("missing {}", row.name)));
    }
    role.update(args)?;
    role.check()?;
    role::save(cx, name, &role);
    nothing()
}

pub fn delete<const ROW: usize>(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let row = &ROWS[ROW];
    let name = args.str("role_name");
    let Some(mut role) = role::load(cx, name)? else { return nothing() };
    (row.reset)(&mut role);
    if let Some(older) = row.older {
        role.token.older_names.retain(|n| n != older);
    }
    role.check()?;
    role::save(cx, name, &role);
    nothing()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_where_their_constants_say() {
        for (index, name) in [
            (POLICIES, "token_policies"),
            (BIND_SECRET_ID, "bind_secret_id"),
            (SECRET_ID_NUM_USES, "secret_id_num_uses"),
            (SECRET_ID_TTL, "secret_id_ttl"),
            (SECRET_ID_BOUND_CIDRS, "secret_id_bound_cidrs"),
            (BOUND_CIDR_LIST, "bound_cidr_list"),
            (TOKEN_BOUND_CIDRS, "token_bound_cidrs"),
            (TOKEN_TTL, "token_ttl"),
            (TOKEN_MAX_TTL, "token_max_ttl"),
            (TOKEN_NUM_USES, "token_num_uses"),
            (PERIOD, "token_period"),
        ] {
            assert_eq!(ROWS[index].name, name);
        }
    }
}
