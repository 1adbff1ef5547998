//! The path table of transit.

use super::{backup, certificate, cmac, config, encrypt, export, hmac, import, keys, rotate, sign, tools};
use crate::page::{AFTER, LIMIT};
use ringfence_logical::field::Preset;
use ringfence_logical::{Field, Kind, Path};

const NAME: Field = Field::str("name", "Name of the key.");
const TYPE: Field = Field::str(
    "type",
    "Type of the key: aes128-gcm96, aes256-gcm96, chacha20-poly1305, xchacha20-poly1305, ed25519, ecdsa-p256, \
     ecdsa-p384, ecdsa-p521, rsa-2048, rsa-3072, rsa-4096, ml-dsa, hmac, aes128-cmac, aes192-cmac or \
     aes256-cmac.",
)
.preset(Preset::Str("aes256-gcm96"));
const PARAMETER_SET: Field = Field::str("parameter_set", "Parameter set of an ml-dsa key: 44, 65 or 87.");
const DERIVED: Field = Field::bool("derived", "Derive a key for each context; requests must then bring one.");
const CONVERGENT: Field =
    Field::bool("convergent_encryption", "Equal texts give equal ciphertexts under equal contexts. Needs `derived`.");
const EXPORTABLE: Field = Field::bool("exportable", "Key material may be exported. Cannot be turned off again.");
const PLAINTEXT_BACKUP: Field =
    Field::bool("allow_plaintext_backup", "The key may be backed up. Cannot be turned off again.");
const AUTO_ROTATE: Field =
    Field::seconds("auto_rotate_period", "Rotate by itself so often; zero for never, else at least an hour.");
const KEY_SIZE: Field = Field::int("key_size", "Bytes of an hmac key, 32 to 512.");
const CONTEXT: Field = Field::str("context", "Context of a derived key, in base64.").secret();
const NONCE: Field = Field::str("nonce", "Accepted for old clients; no key of today takes one.").deprecated();
const ASSOCIATED_DATA: Field =
    Field::str("associated_data", "Authenticated with the ciphertext and not in it, in base64.").secret();
const KEY_VERSION: Field = Field::int("key_version", "Version to use; zero is the newest.");
const BATCH: Field = Field::new("batch_input", Kind::Any, "Many items at once: a list of objects.").secret();
const PARTIAL: Field = Field::int(
    "partial_failure_response_code",
    "Status to answer when some items of a batch failed and some did not.",
);
const PLAINTEXT: Field = Field::str("plaintext", "What is encrypted, in base64.").secret();
const CIPHERTEXT: Field = Field::str("ciphertext", "What an encryption answered.");
const INPUT: Field = Field::str("input", "What is signed, hashed or checked, in base64.").secret();
const URL_ALGORITHM: Field = Field::str("urlalgorithm", "The hash, as part of the path.");
const ALGORITHM: Field = Field::str("algorithm", "The hash: sha2-224 to sha2-512, sha3-224 to sha3-512.");
const FORMAT: Field = Field::str("format", "hex or base64.");
const VERSION: Field = Field::str("version", "A version, or `latest`; all when left out.");

const ENCRYPT: &[Field] =
    &[NAME, PLAINTEXT, CONTEXT, NONCE, ASSOCIATED_DATA, KEY_VERSION, TYPE, CONVERGENT, BATCH, PARTIAL];
const DECRYPT: &[Field] = &[NAME, CIPHERTEXT, CONTEXT, NONCE, ASSOCIATED_DATA, BATCH, PARTIAL];
const REWRAP: &[Field] = &[NAME, CIPHERTEXT, CONTEXT, NONCE, KEY_VERSION, BATCH];
const SIGN: &[Field] = &[
    NAME,
    URL_ALGORITHM,
    INPUT,
    CONTEXT,
    ALGORITHM,
    Field::str("hash_algorithm", "The hash; sha2-256 when left out, `none` to sign bare."),
    KEY_VERSION,
    Field::bool("prehashed", "The input is a digest already."),
    Field::str("signature_algorithm", "For RSA: pss or pkcs1v15."),
    Field::str("marshaling_algorithm", "For ECDSA: asn1 or jws.").preset(Preset::Str("asn1")),
    Field::str("salt_length", "For PSS: auto, hash, or a number of bytes.").preset(Preset::Str("auto")),
    Field::str("signature", "The signature to check."),
    Field::str("hmac", "The HMAC to check."),
    Field::str("cmac", "The CMAC to check."),
    MAC_LENGTH,
    BATCH,
];
const HMAC: &[Field] = &[NAME, URL_ALGORITHM, INPUT, ALGORITHM, KEY_VERSION, BATCH];
const MAC_LENGTH: Field = Field::int("mac_length", "Bytes of the CMAC, 1 to 16; 16 when left out.");
const CMAC: &[Field] = &[
    NAME,
    Field::int("url_mac_length", "Bytes of the CMAC, as part of the path."),
    MAC_LENGTH,
    INPUT,
    KEY_VERSION,
    BATCH,
];
const RANDOM: &[Field] = &[
    Field::str("source", "platform, seal or all: there is one source here.").preset(Preset::Str("platform")),
    Field::str("urlbytes", "How many bytes, or the source, as part of the path."),
    Field::int("bytes", "How many bytes; 32 by default.").preset(Preset::Int(32)),
    FORMAT.preset(Preset::Str("base64")),
];
const HASH: &[Field] =
    &[INPUT, ALGORITHM.preset(Preset::Str("sha2-256")), URL_ALGORITHM, FORMAT.preset(Preset::Str("hex"))];
const EXPORT: &[Field] =
    &[Field::str("type", "encryption-key, signing-key, hmac-key, public-key or certificate-chain."), NAME, VERSION];
const BYOK: &[Field] = &[
    Field::str("destination", "Name of the RSA key to wrap for."),
    Field::str("source", "Name of the key to export."),
    VERSION,
    Field::str("hash", "Hash of the OAEP block: SHA256, SHA1, SHA384 or SHA512.").preset(Preset::Str("SHA256")),
];
const IMPORT: &[Field] = &[
    NAME,
    TYPE,
    PARAMETER_SET,
    CIPHERTEXT,
    Field::str("public_key", "A public key in PEM, instead of a ciphertext."),
    Field::str("hash_function", "Hash of the OAEP block.").preset(Preset::Str("SHA256")),
    Field::bool("allow_rotation", "The key may be rotated here."),
    DERIVED,
    EXPORTABLE,
    PLAINTEXT_BACKUP,
    AUTO_ROTATE,
    Field::int("version", "The version whose private part this is."),
];
const RESTORE: &[Field] = &[
    NAME,
    Field::str("backup", "What a backup answered.").secret(),
    Field::bool("force", "Replace a key of this name."),
];

pub static PATHS: &[Path] = &[
    Path::new("keys/?").fields(&[AFTER, LIMIT]).help("Lists keys.", "").list(keys::list),
    Path::new("keys/{name}")
        .fields(&[
            NAME,
            TYPE,
            PARAMETER_SET,
            DERIVED,
            CONVERGENT,
            EXPORTABLE,
            PLAINTEXT_BACKUP,
            AUTO_ROTATE,
            KEY_SIZE,
            CONTEXT,
        ])
        .help("Makes, shows and deletes keys.", "Deletion must be allowed by the key's own settings first.")
        .write(keys::create)
        .read(keys::read)
        .delete(keys::delete),
    Path::new("keys/{name}/config")
        .fields(&[
            NAME,
            Field::int("min_decryption_version", "Versions below do not decrypt or verify."),
            Field::int("min_encryption_version", "Versions below do not encrypt or sign; zero is the newest."),
            Field::bool("deletion_allowed", "The key may be deleted."),
            EXPORTABLE,
            PLAINTEXT_BACKUP,
            AUTO_ROTATE,
        ])
        .help("Configures a key.", "")
        .write(keys::configure),
    Path::new("keys/{name}/rotate").fields(&[NAME]).help("Adds a version to a key.", "").write(rotate::write),
    Path::new("keys/{name}/trim")
        .fields(&[NAME, Field::int("min_available_version", "Versions below are erased for good.")])
        .help("Erases old versions of a key.", "")
        .write(rotate::trim),
    Path::new("keys/{name}/soft-delete")
        .fields(&[NAME])
        .help("Marks a key as deleted.", "Nothing works with it until it is restored.")
        .write(keys::soft_delete)
        .delete(keys::soft_delete),
    Path::new("keys/{name}/soft-delete-restore")
        .fields(&[NAME])
        .help("Takes the mark of deletion from a key.", "")
        .write(keys::soft_delete_restore),
    Path::new("keys/{name}/import").fields(IMPORT).help("Brings a key in from outside.", "").write(import::create),
    Path::new("keys/{name}/import_version")
        .fields(IMPORT)
        .help("Brings a version of an imported key in, or the private part of one.", "")
        .write(import::create_version),
    Path::new("keys/{name}/csr")
        .computes()
        .fields(&[
            NAME,
            Field::int("version", "The version that signs; zero is the newest."),
            Field::str("csr", "A certificate request in PEM, whose subject and attributes are taken."),
        ])
        .help("A certificate request signed by a key.", "")
        .write(certificate::csr),
    Path::new("keys/{name}/set-certificate")
        .fields(&[
            NAME,
            Field::int("version", "The version that the certificate is of; zero is the newest."),
            Field::str("certificate_chain", "Certificates in PEM, leaf first."),
        ])
        .help("Keeps the certificate of a key with its chain.", "")
        .write(certificate::set),
    Path::new("wrapping_key")
        .help("The public key under which keys are wrapped for import.", "")
        .read(import::wrapping_key),
    Path::new("encrypt/{name}")
        .computes()
        .fields(ENCRYPT)
        .help("Encrypts.", "A key that is not there is made if the caller may create it.")
        .exists(encrypt::exists)
        .write(encrypt::encrypt),
    Path::new("decrypt/{name}").computes().fields(DECRYPT).help("Decrypts.", "").write(encrypt::decrypt),
    Path::new("rewrap/{name}")
        .computes()
        .fields(REWRAP)
        .help("Encrypts anew under another version, without showing the text.", "")
        .write(encrypt::rewrap),
    Path::new("datakey/{plaintext:any}/{name}")
        .computes()
        .fields(&[
            Field::str("plaintext", "`plaintext` to show the key, `wrapped` to show its ciphertext only."),
            NAME,
            CONTEXT,
            NONCE,
            ASSOCIATED_DATA,
            KEY_VERSION,
            Field::int("bits", "128, 256 or 512.").preset(Preset::Int(256)),
        ])
        .help("Makes a key for use elsewhere, encrypted under this one.", "")
        .write(encrypt::datakey),
    Path::new("sign/{name}").computes().fields(SIGN).help("Signs.", "").write(sign::sign),
    Path::new("sign/{name}/{urlalgorithm:any}").computes().fields(SIGN).help("Signs.", "").write(sign::sign),
    Path::new("verify/{name}").computes().fields(SIGN).help("Checks a signature or an HMAC.", "").write(sign::verify),
    Path::new("verify/{name}/{urlalgorithm:any}")
        .computes()
        .fields(SIGN)
        .help("Checks a signature or an HMAC.", "")
        .write(sign::verify),
    Path::new("hmac/{name}").computes().fields(HMAC).help("Makes a keyed hash.", "").write(hmac::write),
    Path::new("hmac/{name}/{urlalgorithm:any}")
        .computes()
        .fields(HMAC)
        .help("Makes a keyed hash.", "")
        .write(hmac::write),
    Path::new("cmac/{name}").computes().fields(CMAC).help("Makes a code by block cipher.", "").write(cmac::write),
    Path::new("cmac/{name}/{url_mac_length:any}")
        .computes()
        .fields(CMAC)
        .help("Makes a code by block cipher, cut to a length.", "")
        .write(cmac::write),
    Path::new("random").computes().fields(RANDOM).help("Random bytes.", "").write(tools::random),
    Path::new("random/{urlbytes:any}").computes().fields(RANDOM).help("Random bytes.", "").write(tools::random),
    Path::new("random/{source:any}/{urlbytes:any}")
        .computes()
        .fields(RANDOM)
        .help("Random bytes.", "")
        .write(tools::random),
    Path::new("hash").computes().fields(HASH).help("The hash of a text.", "").write(tools::hash),
    Path::new("hash/{urlalgorithm:any}").computes().fields(HASH).help("The hash of a text.", "").write(tools::hash),
    Path::new("export/{type:any}/{name}").fields(EXPORT).help("Exports key material.", "").read(export::read),
    Path::new("export/{type:any}/{name}/{version:any}")
        .fields(EXPORT)
        .help("Exports key material of one version.", "")
        .read(export::read),
    Path::new("byok-export/{destination}/{source}")
        .fields(BYOK)
        .help("Exports a key wrapped for another.", "")
        .read(export::byok),
    Path::new("byok-export/{destination}/{source}/{version:any}")
        .fields(BYOK)
        .help("Exports one version of a key wrapped for another key.", "")
        .read(export::byok),
    Path::new("backup/{name}").fields(&[NAME]).help("Backs a key up, in the clear.", "").read(backup::read),
    Path::new("restore").fields(RESTORE).help("Restores a key from a backup.", "").write(backup::restore),
    Path::new("restore/{name:any}")
        .fields(RESTORE)
        .help("Restores a key from a backup under a name.", "")
        .write(backup::restore),
    Path::new("config/keys")
        .fields(&[Field::bool("disable_upsert", "Encryption makes no missing keys.")])
        .help("Configures the keys of the mount.", "")
        .read(config::read_keys)
        .write(config::write_keys),
    Path::new("cache-config")
        .fields(&[Field::int(
            "size",
            "Most decoded keys that each core keeps; zero for no limit of the mount's own.",
        )])
        .help("Size of the key cache.", "")
        .read(config::read_cache)
        .write(config::write_cache),
];
