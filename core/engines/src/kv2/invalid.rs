//! What lies outside of version 2's paths: 404 with a warning that tells the way. Clients look at the status.

use ringfence_base::Code;
use ringfence_logical::{Args, Cx, Outcome, Response};

/// The first words of version 2's paths: only lists may stop there.
const ROOTS: &[&str] =
    &["config", "data", "metadata", "delete", "undelete", "destroy", "subkeys", "detailed-metadata"];

pub fn read(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    answer(args, "get")
}

pub fn list(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    answer(args, "list")
}

pub fn scan(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    answer(args, "scan")
}

pub fn write(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    answer(args, "put")
}

pub fn patch(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    answer(args, "patch")
}

pub fn delete(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    answer(args, "delete")
}

fn answer(args: &Args, verb: &str) -> Outcome {
    let path = args.str("path").trim_end_matches('/');
    if verb != "list" && ROOTS.contains(&path) {
        return root();
    }
    Response::default()
        .warn(format!(
            "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use. If using the Vault CLI, use 'vault kv {verb}' for this operation."
        ))
        .code(Code::NotFound)
        .done()
}

/// A root word without a path behind it.
pub fn root() -> Outcome {
    Response::default()
        .warn("Non-listing operations on the root of a K/V v2 mount are not supported.")
        .code(Code::NotFound)
        .done()
}
