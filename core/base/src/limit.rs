//! Every limit of the machine in one place, related to each other by assertions that the compiler checks.

/// Largest request body by default (32 MiB), bytes. Source: Vault's `max_request_size`.
pub const MAX_REQUEST_BYTES: usize = 32 * 1024 * 1024;
/// Deepest nesting of a JSON body. Source: Vault's `max_json_depth`.
pub const MAX_JSON_DEPTH: usize = 300;
/// Longest string in a JSON body, bytes. Source: Vault's `max_json_string_value_length`.
pub const MAX_JSON_STRING_BYTES: usize = 1024 * 1024;
/// Most entries of one JSON object. Source: Vault's `max_json_object_entry_count`.
pub const MAX_JSON_OBJECT_ENTRIES: usize = 10_000;
/// Most elements of one JSON array. Source: Vault's `max_json_array_element_count`.
pub const MAX_JSON_ARRAY_ELEMENTS: usize = 10_000;
/// Longest request path after decoding, bytes.
pub const MAX_PATH_BYTES: usize = 4096;
/// Longest key of the image, bytes: a path and the prefixes of its table.
pub const MAX_KEY_BYTES: usize = MAX_PATH_BYTES + 128;
/// Largest value of the image, bytes, sealed. Source: Vault's raft `max_entry_size` (1 MiB) and room for sealing.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024 + 4096;
/// Most writes of one batch.
pub const MAX_BATCH_OPS: usize = 4096;
/// Largest encoded batch, bytes: one log entry.
pub const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Largest frame of the log on disk, bytes.
pub const MAX_FRAME_BYTES: usize = MAX_BATCH_BYTES + 64 * 1024;
/// Longest token a client may send, bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Shares of an unseal key: Shamir over GF(256) has 255 points.
pub const MAX_SHARES: usize = 255;

const _: () = assert!(MAX_KEY_BYTES > MAX_PATH_BYTES);
const _: () = assert!(MAX_BATCH_BYTES > MAX_VALUE_BYTES + MAX_KEY_BYTES);
const _: () = assert!(MAX_FRAME_BYTES > MAX_BATCH_BYTES);
const _: () = assert!(MAX_JSON_STRING_BYTES < MAX_REQUEST_BYTES);
