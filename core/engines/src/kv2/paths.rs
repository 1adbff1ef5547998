//! The path table of version 2.

use super::{config, data, invalid, metadata, subkeys, versions};
use crate::page::{AFTER, LIMIT};
use ringfence_logical::{Field, Kind, Path};

const PATH: Field = Field::str("path", "Location of the secret.");
const VERSION: Field = Field::int("version", "Version to read; zero is the current one.").query();
const VERSIONS: Field = Field::new("versions", Kind::CommaIntList, "The versions that are meant.");
const DATA: Field = Field::new("data", Kind::Object, "The secret: a JSON object.").secret();
const OPTIONS: Field =
    Field::new("options", Kind::Object, "Options of the write. `cas`: the version that must be current; 0 for none.");
const MAX_VERSIONS: Field =
    Field::int("max_versions", "How many versions to keep; zero leaves it to the mount, whose own default is 10.");
const CAS_REQUIRED: Field =
    Field::bool("cas_required", "Refuse writes of data that do not say which version they replace.");
const METADATA_CAS_REQUIRED: Field = Field::bool(
    "metadata_cas_required",
    "Refuse writes of metadata that do not say which metadata version they replace.",
);
const METADATA_CAS: Field =
    Field::int("metadata_cas", "The metadata version that must be current; 0 if the key must not exist yet.");

pub static PATHS: &[Path] = &[
    Path::new("config")
        .fields(&[
            MAX_VERSIONS,
            CAS_REQUIRED,
            METADATA_CAS_REQUIRED,
            Field::new(
                "delete_version_after",
                Kind::SignedSeconds,
                "Time after which a version deletes itself. Negative switches it off for the whole mount.",
            ),
        ])
        .help("Configures the mount.", "Applies to every key; a key's own metadata may be stricter.")
        .read(config::read)
        .write(config::write),
    Path::new("data/{path..}")
        .fields(&[PATH, VERSION, DATA, OPTIONS])
        .help(
            "Reads, writes, patches and deletes versions of a secret.",
            "A write makes a new version. DELETE marks the current version as deleted; it can be undeleted.",
        )
        .exists(data::exists)
        .read(data::read)
        .write(data::write)
        .patch(data::patch)
        .delete(versions::delete_current),
    Path::new("delete/{path..}")
        .fields(&[PATH, VERSIONS])
        .help("Marks versions as deleted.", "")
        .write(versions::delete),
    Path::new("undelete/{path..}")
        .fields(&[PATH, VERSIONS])
        .help("Takes the mark of deletion from versions.", "")
        .write(versions::undelete),
    Path::new("destroy/{path..}")
        .fields(&[PATH, VERSIONS])
        .help("Erases the data of versions for good.", "")
        .write(versions::destroy),
    Path::new("subkeys/{path..}")
        .fields(&[PATH, VERSION, Field::int("depth", "Deepest level to show; zero shows all.").query()])
        .help("Shows the keys of a secret without their values.", "")
        .read(subkeys::read),
    Path::new("metadata/{path..?}")
        .fields(&[
            PATH,
            MAX_VERSIONS,
            CAS_REQUIRED,
            METADATA_CAS_REQUIRED,
            METADATA_CAS,
            Field::seconds("delete_version_after", "Time after which a version of this key deletes itself."),
            Field::new("custom_metadata", Kind::Object, "Up to 64 texts that describe the secret."),
            AFTER,
            LIMIT,
        ])
        .help("Reads, writes and lists the metadata of keys.", "DELETE removes the key with all its versions.")
        .exists(data::exists)
        .read(metadata::read)
        .write(metadata::write)
        .patch(metadata::patch)
        .delete(metadata::delete)
        .list(metadata::list)
        .scan(metadata::scan),
    Path::new("detailed-metadata/{path..?}")
        .fields(&[PATH, AFTER, LIMIT])
        .help("Lists keys together with their metadata.", "")
        .list(metadata::list_detailed)
        .scan(metadata::scan_detailed),
    Path::new("{path..?}")
        .fields(&[PATH])
        .free_form()
        .help("Answers what lies outside of the paths of version 2.", "")
        .read(invalid::read)
        .list(invalid::list)
        .scan(invalid::scan)
        .write(invalid::write)
        .patch(invalid::patch)
        .delete(invalid::delete),
];
