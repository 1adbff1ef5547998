//! The one path of version 1: whatever is below the mount.

use super::secret;
use ringfence_logical::{Field, Path};

const PATH: Field = Field::str("path", "Location of the secret.");

pub static PATHS: &[Path] = &[Path::new("{path..?}")
    .fields(&[PATH])
    .free_form()
    .help("Reads, writes and lists secrets.", "The body of a write is stored whole and replaces what was there.")
    .exists(secret::exists)
    .read(secret::read)
    .write(secret::write)
    .delete(secret::delete)
    .list(secret::list)
    .scan(secret::scan)];
