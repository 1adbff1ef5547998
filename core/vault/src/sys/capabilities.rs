//! `sys/capabilities*`: what a token may do at some paths.

use crate::token::capabilities::{Whose, capabilities};
use ringfence_logical::{Args, Cx, Error, Field, Outcome, Path, Response};

const PATHS_FIELD: Field = Field::list("paths", "Paths that are asked about.");
const PATH: Field = Field::list("path", "Old name of paths.").deprecated();
const TOKEN: Field = Field::str("token", "The token; the caller's own when not given.").secret();
const ACCESSOR: Field = Field::str("accessor", "Accessor of the token.");

/// The paths.
pub static PATHS: &[Path] = &[
    Path::new("capabilities")
        .computes()
        .fields(&[PATHS_FIELD, PATH, TOKEN])
        .help("What a token may do at some paths.", "")
        .write(of_token),
    Path::new("capabilities-accessor")
        .computes()
        .fields(&[PATHS_FIELD, PATH, ACCESSOR])
        .help("As capabilities, the token named by its accessor.", "")
        .write(of_accessor),
    Path::new("capabilities-self")
        .computes()
        .fields(&[PATHS_FIELD, PATH, TOKEN])
        .help("As capabilities, of the caller's own token.", "")
        .write(of_caller),
];

fn of_token(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match args.str("token") {
        "" => answer(cx, args, Whose::Caller),
        token => answer(cx, args, Whose::Token(token)),
    }
}

fn of_accessor(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match args.str("accessor") {
        "" => Err(Error::invalid("accessor must be specified")),
        accessor => answer(cx, args, Whose::Accessor(accessor)),
    }
}

fn of_caller(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    answer(cx, args, Whose::Caller)
}

fn answer(cx: &mut Cx<'_, '_>, args: &Args, whose: Whose<'_>) -> Outcome {
    let mut paths = args.list("paths");
    if paths.is_empty() {
        paths = args.list("path");
    }
    Response::data(capabilities(cx, whose, &paths)?).done()
}
