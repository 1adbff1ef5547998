//! Seeds and dictionaries. Every file below `fuzz/corpus` whose name begins with `seed-`, and every dictionary, is written from here.

use crate::stored;
use ringfence_base::{Wall, Writer};
use ringfence_store::{Batch, Op};

type Seeds = Vec<(String, Vec<u8>)>;

/// For bytes that are choices.
pub const CHOICES: &[&str] = &["\\x00", "\\x01", "\\xff"];
/// Numbers of the codecs at their edges.
pub const NUMBERS: &[&str] = &[
    "\\x00",
    "\\x01",
    "\\x7f",
    "\\x80\\x01",
    "\\xff\\xff",
    "\\x00\\x00\\x00\\x01",
    "\\xff\\xff\\xff\\xff",
    "\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x01",
];
/// What files begin with.
pub const FORMATS: &[&str] = &[
    "RFMF\\x00\\x01",
    "RFCK\\x00\\x01",
    "RFSNAP\\x00\\x01",
    "\\x1f\\x8b\\x08",
    "meta.json",
    "state.bin",
    "SHA256SUMS",
    "ustar",
];
/// Tags, lengths and names of DER at their edges.
pub const DER: &[&str] = &[
    "\\x30\\x80",
    "\\x30\\x82\\xff\\xff",
    "\\x31\\x00",
    "\\x02\\x01\\xff",
    "\\x03\\x02\\x07\\x80",
    "\\x05\\x00",
    "\\x06\\x03\\x55\\x1d\\x11",
    "\\x06\\x03\\x55\\x1d\\x13",
    "\\x06\\x03\\x55\\x1d\\x1e",
    "\\x17\\x0d",
    "\\x18\\x0f99991231235959Z",
    "\\x82\\x00",
    "\\x87\\x04",
    "\\xa0\\x03\\x02\\x01\\x02",
];
/// Armour of certificates and keys.
pub const PEM: &[&str] = &[
    "-----BEGIN CERTIFICATE-----",
    "-----END CERTIFICATE-----",
    "-----BEGIN EC PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN X509 CRL-----",
    "Proc-Type: 4,ENCRYPTED",
    "=",
    "MII",
];
/// Keys of SSH.
pub const SSH: &[&str] = &[
    "ssh-ed25519 ",
    "ssh-rsa ",
    "ecdsa-sha2-nistp256 ",
    "sk-ssh-ed25519@openssh.com ",
    "AAAA",
    "AAAAC3NzaC1lZDI1NTE5AAAAI",
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "openssh-key-v1",
    "-cert-v01@openssh.com ",
];
/// Addresses of one-time password secrets.
pub const TOTP: &[&str] = &[
    "otpauth://totp/",
    "otpauth://hotp/",
    "?secret=",
    "&issuer=",
    "&period=",
    "&digits=",
    "&algorithm=SHA512",
    "%3A",
    "%00",
    "=====",
];
/// Signed requests of ACME.
pub const ACME: &[&str] = &[
    "\\\"alg\\\":\\\"ES256\\\"",
    "\\\"alg\\\":\\\"none\\\"",
    "\\\"alg\\\":\\\"HS256\\\"",
    "\\\"jwk\\\":",
    "\\\"kid\\\":",
    "\\\"kty\\\":\\\"RSA\\\"",
    "\\\"crv\\\":\\\"P-521\\\"",
    "\\\"nonce\\\":",
    "\\\"url\\\":",
    "\\\"crit\\\":[]",
];
/// JSON.
pub const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "true",
    "false",
    "1e308",
    "-0",
    "0.1",
    "\\\"a\\\":",
    "\\\"\\\"",
    "\\\\u0000",
    "\\\\ud800",
    "18446744073709551616",
    "\\\"int\\\":",
    "\\\"time\\\":",
    "\\\"seconds\\\":",
    "\\\"pairs\\\":",
    "\\\"float\\\":",
    "\\\"auth\\\":",
    "\\\"data\\\":",
    "\\\"wrap_info\\\":",
];
/// HCL and the words of policies.
pub const HCL: &[&str] = &[
    "path \\\"",
    "{",
    "}",
    "= [",
    "capabilities",
    "\\\"deny\\\"",
    "\\\"read\\\"",
    "\\\"sudo\\\"",
    "policy = \\\"write\\\"",
    "allowed_parameters",
    "denied_parameters",
    "required_parameters",
    "min_wrapping_ttl",
    "max_wrapping_ttl",
    "control_group",
    "factor",
    "mfa_methods",
    "expiration",
    "<<EOT\\x0a",
    "<<-EOT\\x0a",
    "EOT\\x0a",
    "# c\\x0a",
    "// c\\x0a",
    "/* c */",
    "${",
    "{{identity.entity.id}}",
    "\\\\u00e9",
    "rule \\\"charset\\\"",
    "charset",
    "min-chars",
    "length",
    "0x1f",
    "1e3",
    "-1",
];
/// The words of templates.
pub const TEMPLATES: &[&str] = &[
    "{{",
    "}}",
    "{{identity.entity.name}}",
    "identity.entity.aliases.a.metadata.k",
    "identity.groups.names.g.id",
    "identity.groups.ids.g.name",
    ".DisplayName",
    ".RoleName",
    "random 20",
    "truncate 8",
    "truncate_sha256 12",
    "uppercase",
    "replace \\\"a\\\" \\\"b\\\"",
    "unix_time",
    "timestamp \\\"2006\\\"",
    "printf \\\"%s\\\"",
    "uuid",
    "base64",
    "sha256",
    "|",
    "(",
    ")",
    "*",
    "+",
    "/",
];
/// Paths.
pub const PATHS: &[&str] = &["/", "//", "/./", "/../", "..", "%2e", "%2f", "%00", "%ff", "\\xe2\\x80\\xa8", "v1/"];
/// Durations and times.
pub const DURATIONS: &[&str] = &[
    "ns",
    "us",
    "\\xc2\\xb5s",
    "ms",
    "s",
    "m",
    "h",
    "d",
    ".",
    "-",
    "+",
    "9223372036",
    "2027-01-15T08:00:00Z",
    "+14:00",
    ".999999999",
];
/// HTTP and the API.
pub const HTTP: &[&str] = &[
    "GET /v1/",
    "POST /v1/",
    "LIST /v1/",
    "PATCH /v1/",
    "DELETE /v1/",
    " HTTP/1.1\\x0d\\x0a",
    "X-Vault-Token: ROOT\\x0d\\x0a",
    "X-Vault-Namespace: ",
    "X-Vault-Wrap-TTL: 60\\x0d\\x0a",
    "X-Vault-Wrap-Format: jwt\\x0d\\x0a",
    "Content-Type: application/x-www-form-urlencoded\\x0d\\x0a",
    "Content-Type: application/merge-patch+json\\x0d\\x0a",
    "\\x0d\\x0a\\x0d\\x0a",
    "sys/",
    "auth/token/",
    "identity/",
    "secret/data/",
    "secret/metadata/",
    "database/",
    "cubbyhole/",
    "?help=1",
    "?list=true",
    "?version=",
    "{\\\"data\\\":{",
    "\\\"ttl\\\":\\\"1h\\\"",
    "\\\"policies\\\":",
];
/// Configuration.
pub const CONFIG: &[&str] = &[
    "listener \\\"tcp\\\" {",
    "storage \\\"raft\\\" {",
    "seal \\\"shamir\\\" {",
    "telemetry {",
    "address = ",
    "tls_disable = 1",
    "path = ",
    "node_id = ",
    "api_addr",
    "cluster_addr",
    "disable_mlock = true",
    "default_lease_ttl",
    "log_level = \\\"debug\\\"",
    "max_request_size = ",
    "x_forwarded_for_authorized_addrs",
    "retry_join {",
    "user_lockout \\\"all\\\" {",
    "custom_response_headers {",
    "}",
    "env://",
    "file://",
];
/// Command lines.
pub const CLI: &[&str] = &[
    "kv\\x0a",
    "get\\x0a",
    "put\\x0a",
    "-mount=",
    "-address=",
    "-format=json",
    "-field=",
    "--",
    "-h",
    "server\\x0a",
    "-dev",
    "-config=",
    "token\\x0a",
    "create\\x0a",
    "-ttl=",
    "-policy=",
    "operator\\x0a",
    "init\\x0a",
    "-key-shares=",
    "a=b",
    "a=-",
    "-cas=",
    "=",
];
/// SQL.
pub const SQL: &[&str] = &[
    "'{{name}}'",
    "\\\"{{name}}\\\"",
    "`{{name}}`",
    "{{name}}",
    "{{ password }}",
    "E'",
    "$$",
    "$a$",
    "--",
    "/*",
    "*/",
    ";",
    "''",
    "\\\\",
    "END",
    "#",
    "CREATE ROLE ",
];

fn named(prefix: &str, all: &[&[u8]]) -> Seeds {
    all.iter().enumerate().map(|(i, b)| (format!("{prefix}-{i:02}"), b.to_vec())).collect()
}

fn texts(all: &[&str]) -> Seeds {
    named("text", &all.iter().map(|t| t.as_bytes()).collect::<Vec<_>>())
}

/// Scripts of rising length: for targets whose bytes are choices.
pub fn scripts() -> Seeds {
    (0..12u8)
        .map(|k| {
            let n = 1usize << (k / 2);
            (format!("script-{k:02}"), (0..n as u8 * 2 + 1).map(|i| i.wrapping_mul(37).wrapping_add(k)).collect())
        })
        .chain([("raw".into(), [&[0, 1, b'k', 1][..], &[0; 60]].concat())])
        .chain([("whole".into(), b"\x01\x03abc\x05plain\x00\x00".to_vec())])
        .chain([("bit".into(), b"\x01\x03abc\x05plain\x00\x01\x00\x00\x07\x00\x03".to_vec())])
        .collect()
}

/// Encoded batches.
pub fn batch() -> Seeds {
    let put = |k: &[u8], v: &[u8]| Op::Put { key: k.to_vec(), value: v.to_vec() };
    let batches = [
        Batch::default(),
        Batch { log_time: Wall(1 << 60), ops: vec![put(b"a", b""), Op::Delete { key: b"b".to_vec() }] },
        Batch { log_time: Wall(300), ops: (0..20).map(|i| put(&[i], &[i; 200])).collect() },
    ];
    let all: Vec<Vec<u8>> = batches.iter().map(Batch::encode).collect();
    named("batch", &all.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Manifests, chunks, damage.
pub fn checkpoint() -> Seeds {
    let mut manifest = Writer::new();
    manifest.raw(&[7; 16]).be64(9).be64(2).be64(1).be64(2).be32(3).raw(b"abc").be32(1);
    manifest.be64(1).be32(1).be32(40).be32(5).raw(&[0, 1]).raw(b"k");
    let record = |shared: u16, rest: &[u8], value: &[u8]| {
        let mut w = Writer::new();
        w.raw(&shared.to_be_bytes()).raw(&(rest.len() as u16).to_be_bytes()).be32(value.len() as u32);
        w.raw(rest).raw(value);
        w.finish()
    };
    let chunk = [&b"\x02\x01k\x02"[..], &record(0, b"k", b"one"), &record(1, b"z", b"two")].concat();
    let chunk_ok = [&b"\x02\x01k"[..], &[2], &record(0, b"k", b"one"), &record(1, b"z", b"two")].concat();
    let inside = [&[1][..], manifest.as_slice()].concat();
    vec![
        ("manifest-raw".into(), b"\x00RFMF\x00\x01".to_vec()),
        ("manifest".into(), inside),
        ("chunk".into(), chunk),
        ("chunk-two".into(), chunk_ok),
        ("chunk-unsorted".into(), [&b"\x02\x01k\x02"[..], &record(0, b"k", b""), &record(0, b"a", b"")].concat()),
        ("whole".into(), vec![3]),
        ("bit".into(), vec![3, 0, 1, 0, 1, 0, 0, 3]),
        ("cut".into(), vec![3, 1, 0, 0, 40, 3]),
        ("chunk-zeroed".into(), vec![3, 0, 1, 0, 0, 2, 2]),
        ("chunk-moved".into(), vec![3, 0, 1, 0, 0, 2, 4, 0, 9]),
    ]
}

/// The golden log, and damage.
pub fn log_recovery() -> Seeds {
    vec![
        ("empty".into(), vec![0]),
        ("zeros".into(), vec![0; 64]),
        ("whole".into(), vec![1]),
        ("whole-unknown".into(), vec![3]),
        ("slot-bit".into(), vec![1, 0, 1, 0, 0, 30, 0, 3]),
        ("segment-bit".into(), vec![1, 2, 1, 0, 0, 200, 0, 5]),
        ("segment-zeroed".into(), vec![1, 3, 1, 0, 0, 1, 2]),
        ("segment-cut".into(), vec![1, 4, 1, 0, 16, 0, 3]),
        ("segment-moved".into(), vec![1, 2, 1, 0, 0, 1, 4, 0, 2]),
        ("segment-gone".into(), vec![1, 1, 1]),
        ("last-bit".into(), vec![1, 5, 1, 0, 1, 7, 1, 1]),
    ]
}

/// Archives, members, states.
pub fn snapshot() -> Seeds {
    let mut state = Writer::new();
    state.num(2).bytes(b"a").bytes(b"one").bytes(b"b").bytes(b"two");
    let small = stored::archive(&[("meta.json", b"{}".to_vec()), ("SHA256SUMS", b"x".to_vec())]);
    vec![
        ("empty".into(), vec![0]),
        ("archive".into(), [&[0][..], &small].concat()),
        ("members".into(), b"\x01\x00\x02{}\x01\x0aRFSNAP\x00\x01\x00\x00\x02\x01x\x03\x01y".to_vec()),
        ("up".into(), b"\x01\x05\x02{}".to_vec()),
        ("state".into(), [&[2][..], state.as_slice()].concat()),
        ("state-empty".into(), vec![2, 0]),
        ("state-long".into(), vec![2, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, b'a']),
    ]
}

/// Shares and scripts of splits.
pub fn shamir() -> Seeds {
    let mut all = scripts();
    all.extend(named(
        "shares",
        &[
            b"\x00\x03ab\x01\x03cd\x02",
            b"\x00\x03ab\x01\x03cd\x01",
            b"\x00\x03ab\x00\x03cd\x02",
            b"\x00\x03ab\x01\x02c\x02",
            b"\x00\x0cAQIDBAUGBwg=",
            b"\x01\x05\x03\x00\x07\x06secret\x00\x00\x00\x01\x00\x02",
            b"\x01\x01\x01\x00\x07\x06secret\x00\x00",
            b"\x01\xff\x02\x00\x07\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x00\x00\x00\xfe",
        ],
    ));
    all
}

/// Frames and scripts of frames.
pub fn peer_frames() -> Seeds {
    let frame = |kind: u8, to: u64, from: u64, term: u64, rest: &[u64]| {
        let mut w = Writer::new();
        w.u8(1).u8(kind).num(to).num(from).num(term);
        for n in rest {
            w.num(*n);
        }
        w.finish()
    };
    let mut append = Writer::new();
    append.raw(&frame(1, 1, 2, 2, &[1, 3, 3, 1])).u8(0).num(2).num(4).bytes(b"body");
    let mut snapshot = Writer::new();
    snapshot.raw(&frame(7, 1, 2, 2, &[9, 2, 3, 1, 2, 3, 0, 0, 0, 0])).bytes(b"manifest");
    let mut beat = Writer::new();
    beat.raw(&frame(8, 1, 2, 2, &[3])).bytes(b"");
    let frames = [
        append.finish(),
        frame(2, 1, 2, 2, &[0, 3, 3, 0, 0, 0]),
        frame(3, 1, 2, 2, &[1, 3, 0, 0, 0]),
        frame(4, 1, 2, 2, &[0, 0, 0]),
        frame(5, 1, 3, 2, &[1, 3, 0, 0, 1]),
        frame(6, 1, 3, 2, &[0, 0, 1]),
        snapshot.finish(),
        beat.finish(),
        frame(10, 1, 2, 2, &[]),
        [&frame(11, 1, 2, 0, &[16])[..], &[5; 16]].concat(),
        [&frame(12, 1, 2, 2, &[3, 16])[..], &[5; 16]].concat(),
    ];
    let mut all: Seeds = Vec::new();
    for (i, f) in frames.iter().enumerate() {
        all.push((format!("frame-{i:02}"), [&[0][..], f].concat()));
    }
    let stepped = |frames: &[&Vec<u8>]| {
        let mut script = vec![1];
        for f in frames {
            // version, kind, to, from: all of one byte
            script.push(f[3]);
            script.extend_from_slice(&(f.len() as u16).to_be_bytes());
            script.extend_from_slice(f);
        }
        script
    };
    for (i, f) in frames.iter().enumerate() {
        all.push((format!("step-{i:02}"), stepped(&[f])));
    }
    all.push(("step-all".into(), stepped(&frames.iter().collect::<Vec<_>>())));
    // it campaigns, wins, and is asked to append
    let mut elected = vec![1];
    elected.extend([0xff; 20]);
    let votes = [frame(6, 1, 2, 2, &[0, 0, 0]), frame(4, 1, 2, 2, &[0, 0, 0])];
    elected.extend_from_slice(&stepped(&votes.iter().collect::<Vec<_>>())[1..]);
    elected.extend(b"\xfe\x04body\xff\xff");
    all.push(("elected".into(), elected));
    all
}

/// Orders of inputs.
pub fn node_step() -> Seeds {
    let mut all: Seeds = vec![
        ("write".into(), vec![0, 1, 11, 0, 0, 1, 11, 0]),
        ("write-crash".into(), vec![0, 1, 3, 3, 6, 0, 10, 7, 0, 1, 11, 0]),
        ("full".into(), vec![9, 1, 0, 1, 11, 0, 11, 0, 9, 0, 0, 2, 11, 0]),
        ("overlap".into(), vec![0, 0, 16, 1, 0, 2, 3, 3, 4, 0, 4, 1, 6, 0, 6, 0, 11, 0]),
    ];
    for kind in 0..20 {
        all.push((format!("call-{kind:02}"), vec![2, kind, 11, 0, 0, 1, 3, 1, 2, kind, 8, 200, 11, 0]));
    }
    all
}

/// Paths.
pub fn path() -> Seeds {
    texts(&[
        "",
        "/",
        "secret/data/a",
        "/secret//data/a/",
        "a/../b",
        "a/./b",
        "..",
        "a/..b/.c",
        "a%2fb%00",
        "na\u{ef}ve/x",
        "a\u{2028}b",
        "a?x=1&y=%20",
    ])
}

/// Durations and times.
pub fn duration() -> Seeds {
    texts(&[
        "",
        "60",
        "90d",
        "1h30m",
        "1.5h",
        "300ms",
        "10us",
        "5\u{b5}s",
        "-1h",
        "+2s",
        ".5m",
        "9223372036s",
        "2027-01-15T08:00:00Z",
        "2027-01-15T08:00:00.123456789+01:00",
    ])
}

/// Bodies for the fields.
pub fn fields() -> Seeds {
    texts(&[
        "cap\n{\"str\": 1, \"lower\": \"ABC\", \"int\": \"7\", \"float\": \"1.5\", \"bool\": \"true\"}",
        "5m\n{\"seconds\": \"1h\", \"signed\": -5, \"time\": \"2027-01-15T08:00:00Z\", \"list\": \"a, b\"}",
        "1\n{\"strs\": [\"a\", 1], \"ints\": \"1,2\", \"pairs\": [\"a=b\"], \"object\": {\"a\": []}, \"any\": null}",
        "\n{\"pairs\": {\"a\": 1}, \"choice\": \"a\", \"time\": 1e9, \"float\": 1e999, \"int\": 1e18, \"unknown\": 1}",
    ])
}

/// HCL in all its forms.
pub fn hcl() -> Seeds {
    texts(&[
        "",
        "a = 1\nb = \"x\\n\\u00e9\"\nc = [1, \"two\", true,]\n",
        "path \"secret/*\" {\n  capabilities = [\"read\"] # why\n}\n",
        "a \"b\" \"c\" { d { e = <<EOT\nline\nEOT\n} }\n",
        "// c\n/* d */ a = { b = 1, c = 2 }\n\n\n# e\n",
        "a = <<-EOT\n    one\n      two\n    EOT\n",
        "{\"path\": {\"a\": {\"capabilities\": [\"read\"]}}}",
        "a = 0x1f\nb = -1.5e3\nc = \"${x(\"y\")}\"\n",
    ])
}

/// A path and a policy.
pub fn policy() -> Seeds {
    texts(&[
        "secret/data/a\npath \"secret/*\" { capabilities = [\"read\", \"list\"] }\npath \"secret/+/a\" { capabilities = [\"deny\"] }",
        "a/b\npath \"a/b\" { policy = \"write\" min_wrapping_ttl = \"1s\" max_wrapping_ttl = 90 }",
        "a\npath \"a\" { capabilities = [\"update\"] allowed_parameters = { \"a\" = [1], \"*\" = [] } denied_parameters = { b = [] } required_parameters = [\"a\"] }",
        "a\npath \"a\" { capabilities = [\"create\"] control_group = { ttl = \"1h\" factor \"f\" { identity { group_names = [\"g\"] approvals = 1 } } } }",
        "a\n{\"path\": {\"a*\": {\"capabilities\": [\"sudo\", \"read\"]}}}",
    ])
}

/// Values and templated paths.
pub fn template() -> Seeds {
    texts(&[
        "alice\nsecret/{{identity.entity.name}}/*",
        "a/b\nsecret/{{identity.entity.name}}/*",
        "*\nsecret/{{identity.entity.id}}",
        "+\n{{identity.entity.aliases.acc.metadata.k}}/+/x",
        "{{identity.entity.id}}\n{{identity.groups.names.g.id}}/{{identity.groups.ids.g.name}}",
    ])
}

/// Password policies.
pub fn password() -> Seeds {
    texts(&[
        "length = 20\nrule \"charset\" { charset = \"abc\" min-chars = 1 }\n",
        "{\"length\": 8, \"rule\": [{\"charset\": {\"charset\": \"xyz\"}}]}",
        "length = 4\nrule \"charset\" { charset = \"a\" min-chars = 4 }\nrule \"charset\" { charset = \"b\" }",
    ])
}

/// Requests.
pub fn http_request() -> Seeds {
    let mut all = Vec::new();
    for (method, path, body) in [
        ("GET", "sys/health", ""),
        ("GET", "sys/mounts", ""),
        ("GET", "sys/internal/ui/mounts", ""),
        ("GET", "secret/data/a?version=1", ""),
        ("LIST", "secret/metadata/", ""),
        ("POST", "secret/data/a", r#"{"data":{"x":"y"},"options":{"cas":1}}"#),
        (
            "POST",
            "secret/metadata/a",
            r#"{"max_versions":3,"delete_version_after":"1h","custom_metadata":{"a":"b"}}"#,
        ),
        ("POST", "secret/destroy/a", r#"{"versions":[1,"2"]}"#),
        ("DELETE", "kv1/a", ""),
        ("POST", "cubbyhole/x", r#"{"a":1}"#),
        ("POST", "auth/token/create", r#"{"policies":["default"],"ttl":"1h","meta":{"a":"b"},"num_uses":3}"#),
        ("POST", "auth/token/lookup", r#"{"token":"ROOT"}"#),
        (
            "POST",
            "auth/token/roles/r",
            r#"{"allowed_policies":"a,b","token_period":"1h","token_bound_cidrs":"10.0.0.0/8"}"#,
        ),
        ("POST", "auth/userpass/login/u", r#"{"password":"p"}"#),
        ("POST", "auth/approle/role/r", r#"{"secret_id_ttl":"10m","token_policies":"default"}"#),
        ("POST", "auth/approle/login", r#"{"role_id":"x","secret_id":"y"}"#),
        ("POST", "sys/policies/acl/p", r#"{"policy":"path \"a\" { capabilities = [\"read\"] }"}"#),
        ("POST", "sys/policies/password/p", r#"{"policy":"length = 20\nrule \"charset\" { charset = \"abc\" }"}"#),
        ("POST", "sys/mounts/m", r#"{"type":"kv","options":{"version":"2"},"config":{"max_lease_ttl":"1h"}}"#),
        ("POST", "sys/remount", r#"{"from":"kv1/","to":"kv3/"}"#),
        ("POST", "sys/leases/lookup", r#"{"lease_id":"a/b"}"#),
        ("POST", "sys/wrapping/wrap", r#"{"a":"b"}"#),
        ("POST", "sys/capabilities-self", r#"{"paths":["a","b/+"]}"#),
        ("POST", "sys/tools/hash/sha2-256", r#"{"input":"YQ==","format":"base64"}"#),
        ("POST", "sys/audit/f", r#"{"type":"file","options":{"file_path":"discard"}}"#),
        ("POST", "sys/storage/raft/snapshot", "\u{1f}"),
        ("POST", "sys/unseal", r#"{"key":"YQ=="}"#),
        ("POST", "sys/rekey/init", r#"{"secret_shares":3,"secret_threshold":2}"#),
        ("POST", "sys/generate-root/attempt", "{}"),
        ("POST", "identity/entity", r#"{"name":"e","metadata":{"a":"b"}}"#),
        (
            "POST",
            "database/config/c",
            r#"{"plugin_name":"postgresql-database-plugin","connection_url":"postgres://u:p@127.0.0.1/x","allowed_roles":"*","verify_connection":false}"#,
        ),
        (
            "POST",
            "database/roles/r",
            r#"{"db_name":"c","creation_statements":["CREATE ROLE \"{{name}}\""],"default_ttl":"1h"}"#,
        ),
        ("PATCH", "secret/data/a", r#"{"data":{"k":null}}"#),
        ("GET", "secret/data/a?help=1", ""),
    ] {
        let patch = if method == "PATCH" { "Content-Type: application/merge-patch+json\r\n" } else { "" };
        let text = format!("{method} /v1/{path} HTTP/1.1\r\nHost: x\r\nX-Vault-Token: ROOT\r\n{patch}\r\n{body}");
        let name: String = path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        all.push((format!("{}-{name}", method.to_lowercase()), text.into_bytes()));
    }
    all.push(("wrapped".into(), b"GET /v1/secret/data/a HTTP/1.1\r\nAuthorization: Bearer ROOT\r\nX-Vault-Wrap-TTL: 60\r\nX-Vault-Namespace: \r\n\r\n".to_vec()));
    all.push(("nobody".into(), b"GET /v1/secret/data/a HTTP/1.1\r\n\r\n".to_vec()));
    all.push(("form".into(), b"POST /v1/kv1/a HTTP/1.1\r\nX-Vault-Token: ROOT\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\na=1&b=%20&a=2".to_vec()));
    all
}

/// JSON bodies and answers.
pub fn json_envelope() -> Seeds {
    texts(&[
        "",
        " null ",
        "{}",
        "{\"a\":[1,2,{\"b\":\"c\\u00e9\\\"\"}],\"d\":1.50}",
        "{\"auth\":{\"client_token\":\"t\",\"policies\":[\"default\"]},\"warnings\":[\"w\"]}",
        "{\"wrap_info\":{\"token\":\"t\",\"ttl\":60}}",
        "{\"data\":{\"keys\":[\"a\",\"b/\"]},\"lease_duration\":5}",
        "a=1&b=%20&a=2",
        "[[[[[[[[[[]]]]]]]]]]",
    ])
}

/// Configuration files.
pub fn configuration() -> Seeds {
    texts(&[
        "storage \"raft\" {\n  path = \"/data\"\n  node_id = \"n1\"\n}\nlistener \"tcp\" {\n  address = \"127.0.0.1:8200\"\n  tls_disable = true\n}\napi_addr = \"http://127.0.0.1:8200\"\n",
        "{\"storage\":{\"raft\":{\"path\":\"/d\"}},\"listener\":[{\"tcp\":{\"address\":\"[::1]:8200\",\"tls_disable\":1}}]}",
        "listener \"unix\" { address = \"/run/x\" socket_mode = \"700\" }\ntelemetry { prometheus_retention_time = \"24h\" }\n",
        "max_lease_ttl = \"768h\"\ndefault_lease_ttl = 3600\ndisable_mlock = true\nlog_level = \"debug\"\nuser_lockout \"all\" { lockout_threshold = \"5\" }\n",
        "listener \"tcp\" { address = \"0.0.0.0:1\" tls_disable = 1 x_forwarded_for_authorized_addrs = \"10.0.0.0/8\" custom_response_headers { \"default\" = { \"X-A\" = [\"b\"] } } }\n",
        "seal \"shamir\" {}\nstorage \"raft\" { path = \"p\" retry_join { leader_api_addr = \"http://a:8200\" } }\n",
    ])
}

/// Command lines, a word a line.
pub fn cli_arguments() -> Seeds {
    texts(&[
        "kv\nget\n-mount=secret\n-field=a\npath",
        "kv\nput\n-cas\n0\nsecret/a\nx=y\nz=w",
        "server\n-dev\n-dev-root-token-id=root",
        "token\ncreate\n-policy=a\n-policy\nb\n-ttl=1h\n-metadata=a=b",
        "operator\ninit\n-key-shares=1\n-key-threshold=1\n-format=json",
        "-address=http://127.0.0.1:1\nread\n-format\nyaml\nsys/health",
        "write\n-f\nauth/x\n--\n-a=b",
        "policy\nwrite\np\n-",
        "nothing\n-h",
        "lease\nrevoke\n-prefix\n-force\na",
    ])
}

/// A dialect, a value, and statements.
pub fn sql() -> Seeds {
    texts(&[
        "0v-web\nCREATE ROLE \"{{name}}\" WITH PASSWORD '{{password}}'; GRANT x TO \"{{name}}\";",
        "0a'b\\\nALTER ROLE x PASSWORD E'{{password}}'",
        "1a'b\\\nCREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'; GRANT ALL ON `{{name}}`.* TO x",
        "0$$; DROP\nDO $$ BEGIN PERFORM '{{name}}'; END $$; B",
        "0x\n[\"A\", \"B '{{name}}'\"]",
        "1x\nA -- '\n; B /* ; */ '{{name}}'; C # {{name}}",
    ])
}

/// Two names and a template.
pub fn username() -> Seeds {
    texts(&[
        "token-x\nrole\n{{ printf \"v-%s-%s-%s-%s\" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20) (unix_time) | truncate 63 }}",
        "d\nr\n{{.RoleName | replace \"-\" \"_\" | uppercase}}-{{ uuid }}",
        "d\nr\n{{ truncate_sha256 12 .RoleName }}{{ timestamp \"2006-01-02T15:04:05Z\" }}",
        "d\nr\n{{ \"a\\\"b\" | base64 | sha256 | lowercase }}{{ `raw` }}",
        "B\u{fc}ro\nr\n{{ .DisplayName | truncate 2 }}",
    ])
}

/// The corpus holds what other tools made, and nothing that is written from here.
pub fn none() -> Seeds {
    Vec::new()
}

/// Signed requests: whole ones with signatures of nobody, and what is not even one.
pub fn acme_request() -> Seeds {
    let url = "\"url\":\"https://v.example.com/v1/pki/acme/new-account\"";
    let ec = "\"jwk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}";
    let rsa = "\"jwk\":{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}";
    let kid = "\"kid\":\"https://v.example.com/v1/pki/acme/account/x\"";
    [
        (
            "ec",
            format!(
                "{{\"alg\":\"ES256\",\"nonce\":\"AA\",{url},{ec}}}\n{{\"termsOfServiceAgreed\":true}}\nsignature"
            ),
        ),
        ("rsa", format!("{{\"alg\":\"RS256\",\"nonce\":\"AA\",{url},{rsa}}}\n{{}}\nsignature")),
        ("kid", format!("{{\"alg\":\"ES256\",\"nonce\":\"AA\",{url},{kid}}}\n\nsignature")),
        ("json", "{\"protected\":\"e30\",\"payload\":\"\",\"signature\":\"\"}".to_owned()),
    ]
    .map(|(name, text)| (name.to_owned(), text.into_bytes()))
    .into()
}

/// Addresses as apps read them.
pub fn totp_address() -> Seeds {
    [
        ("whole", "otpauth://totp/Vault:test%40test.com?secret=Y64VEVMBTSXCYIWRSHRNDZW62MPGVU2G&issuer=Vault+Inc&period=60&digits=8&algorithm=SHA256"),
        ("short", "otpauth://totp/a?secret=GEZDGNBVGY3TQOJQ"),
        ("counter", "otpauth://hotp/a?secret=GEZDGNBVGY3TQOJQ&counter=1"),
    ]
    .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
    .into()
}
