//! HCL and JSON texts: what they mean, what is refused and where, and that no bytes stop the parser.

use proptest::prelude::*;
use ringfence_policy::hcl::{self, Body, Item, Value};

fn parse(text: &str) -> Body {
    hcl::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn refusal(text: &str) -> String {
    hcl::parse(text).expect_err(text).to_string()
}

fn string(text: &str) -> String {
    parse(text).attribute("a").and_then(Value::as_str).expect("a string").to_owned()
}

const CONFIG: &str = r#"
# a server
ui            = true
cluster_addr  = "https://10.0.0.1:8201"   // trailing
api_addr      = "https://{{ GetPrivateIP }}:8200"
max_lease_ttl = "768h", default_lease_ttl = 3600

listener "tcp" {
  address     = "127.0.0.1:8200"
  tls_disable = 1
  telemetry { unauthenticated_metrics_access = true }
}
listener "tcp" { address = "127.0.0.1:8300" }

/* where
   it is kept */
storage "raft" {
  path    = "/var/lib"
  node_id = "n1"
  retry_join { leader_api_addr = "https://10.0.0.2:8200" }
  retry_join { leader_api_addr = "https://10.0.0.3:8200" }
}
"#;

const CONFIG_JSON: &str = r#"{
  "ui": true,
  "cluster_addr": "https://10.0.0.1:8201",
  "api_addr": "https://{{ GetPrivateIP }}:8200",
  "max_lease_ttl": "768h",
  "default_lease_ttl": 3600,
  "disable_mlock": null,
  "listener": [
    {"tcp": {"address": "127.0.0.1:8200", "tls_disable": 1, "telemetry": [{"unauthenticated_metrics_access": "true"}]}},
    {"tcp": {"address": "127.0.0.1:8300"}}
  ],
  "storage": {"raft": {"path": "/var/lib", "node_id": "n1", "retry_join": [
    {"leader_api_addr": "https://10.0.0.2:8200"}, {"leader_api_addr": "https://10.0.0.3:8200"}]}}
}"#;

#[test]
fn a_configuration_in_both_spellings() {
    for text in [CONFIG, CONFIG_JSON] {
        let body = parse(text);
        let text_of = |name| body.attribute(name).and_then(Value::as_str);
        assert_eq!(body.attribute("ui").and_then(Value::as_bool), Some(true));
        assert_eq!(text_of("cluster_addr"), Some("https://10.0.0.1:8201"));
        assert_eq!(text_of("api_addr"), Some("https://{{ GetPrivateIP }}:8200"));
        assert_eq!(body.attribute("max_lease_ttl").and_then(Value::as_seconds), Some(2_764_800));
        assert_eq!(body.attribute("default_lease_ttl").and_then(Value::as_seconds), Some(3600));
        assert_eq!(body.attribute("disable_mlock"), None);
        let listeners = body.blocks("listener", 1).expect("blocks");
        assert_eq!(listeners.len(), 2);
        assert!(listeners.iter().all(|l| l.labels == ["tcp"]));
        assert_eq!(listeners[0].body.attribute("tls_disable").and_then(Value::as_bool), Some(true));
        assert_eq!(listeners[1].body.attribute("address").and_then(Value::as_str), Some("127.0.0.1:8300"));
        let telemetry = listeners[0].body.blocks("telemetry", 0).expect("blocks");
        let access = telemetry[0].body.attribute("unauthenticated_metrics_access");
        assert_eq!(access.and_then(Value::as_bool), Some(true));
        let storage = body.blocks("storage", 1).expect("blocks");
        assert_eq!(storage[0].labels, ["raft"]);
        assert_eq!(storage[0].body.blocks("retry_join", 0).expect("blocks").len(), 2);
    }
}

#[test]
fn positions() {
    let body = parse(CONFIG);
    let at: Vec<_> = body.items.iter().map(|i| (i.keys[0].as_str(), i.line, i.column)).collect();
    assert_eq!(at[0], ("ui", 3, 1));
    assert_eq!(at[4], ("default_lease_ttl", 6, 25));
    assert_eq!(at[5], ("listener", 8, 1));
    let known = ["ui", "listener", "storage"];
    assert_eq!(body.unknown(&known).count(), 4);
    let json = parse("{\n  \"a\": 1,\n  \"b\": {\"c\": 2}\n}");
    assert_eq!((json.items[1].line, json.items[1].column), (3, 3));
    let inner = &json.items[1].value.as_object().expect("object").items[0];
    assert_eq!((inner.line, inner.column), (3, 9));
}

#[test]
fn strings() {
    assert_eq!(string(r#"a = "x\ty\n\"\\ \u00e9 \x41 \101 \U0001F511""#), "x\ty\n\"\\ é A A 🔑");
    assert_eq!(string(r#"a = "${ f("x", {y = "\n"}) } {{z}}""#), r#"${ f("x", {y = "\n"}) } {{z}}"#);
    assert_eq!(string("a = <<EOF\none\n  two\nEOF\n"), "one\n  two\n");
    assert_eq!(string("a = <<-EOF\n    one\n      two\n    EOF\n"), "one\n  two\n");
    assert_eq!(string("a = <<-EOF\n  one\n      two\n    EOF\n"), "  one\n      two\n");
    assert_eq!(string("a = <<EOF\nEOF"), "");
    assert_eq!(string("a = <<EOF\r\none\r\nEOF\r\n"), "one\r\n");
    assert_eq!(string(r#"{"a": "\u00e9\ud83d\udd11\/"}"#), "é🔑/");
}

#[test]
fn numbers_and_lists() {
    let body = parse("a = -5 b = 0x1F c = 1.5e-3 d = [1, \"x\", true, [2], { e = 3 },] f = .5");
    assert_eq!(body.attribute("a").and_then(Value::as_i64), Some(-5));
    assert_eq!(body.attribute("b").and_then(Value::as_i64), Some(31));
    assert_eq!(body.attribute("c"), Some(&Value::Number("1.5e-3".into())));
    let list = body.attribute("d").and_then(Value::as_list).expect("a list");
    assert_eq!(list.len(), 5);
    assert_eq!(list[4].as_object().and_then(|o| o.attribute("e")).and_then(Value::as_i64), Some(3));
    // the last of several wins, all are kept
    let twice = parse("a = 1\na = 2");
    assert_eq!(twice.attribute("a").and_then(Value::as_i64), Some(2));
    assert_eq!(twice.attributes("a").count(), 2);
}

#[test]
fn refusals_name_the_place() {
    for (text, expected) in [
        ("a", "At 1:2: key 'a' expected start of object ('{') or assignment ('='), got: EOF"),
        ("a = ", "At 1:5: unknown token: EOF"),
        ("a = \"x\ny\"", "At 2:1: literal not terminated"),
        ("path \"x\" {\n", "At 2:1: object expected closing RBRACE got: EOF"),
        ("a \"b\" = 1", "At 1:7: nested object expected: LBRACE got: ASSIGN"),
        ("a = [1 2]", "At 1:8: error parsing list, expected comma or list end, got: NUMBER"),
        ("= 1", "At 1:1: object expected key, got: ASSIGN"),
        ("}", "At 1:1: object expected key, got: RBRACE"),
        ("a = 1\n/* b", "At 2:5: comment not terminated"),
        ("a = <<E\nx\n", "At 3:1: heredoc not terminated"),
        ("a = \"\\q\"", "At 1:8: illegal char escape"),
        ("a = 1x", "At 1:7: illegal number"),
        ("é = ?", "At 1:6: illegal character"),
        ("{\"a\": 1", "At 1:8: expected ',' or '}'"),
        ("{\"a\": 1} x", "At 1:10: text after the end of the object"),
        ("{\"a\": x}", "At 1:7: expected a value"),
        ("{a: 1}", "At 1:2: expected a key"),
        ("{\"a\": \"\\ud800\"}", "At 1:15: illegal char escape"),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
    let bytes = hcl::parse_bytes(b"a = 1\nb = \"\xff\"").expect_err("not UTF-8");
    assert_eq!((bytes.line, bytes.column), (2, 6));
}

#[test]
fn depth_is_bounded() {
    for open in ["a {", "a = [", "a = [{b=", "a = {"] {
        assert!(hcl::parse(&open.repeat(50_000)).is_err(), "{open}");
    }
    assert!(hcl::parse(&format!("a = {}", "[".repeat(50_000))).expect_err("deep").message.contains("deeply"));
    assert!(hcl::parse(&"{\"a\":".repeat(50_000)).expect_err("deep").message.contains("deeply"));
    assert!(hcl::parse(&format!("{{\"a\":{}", "[".repeat(50_000))).expect_err("deep").message.contains("deeply"));
    assert!(hcl::parse(&" ".repeat(hcl::MAX_TEXT_BYTES + 1)).is_err());
    let deep = format!("{}x = 1{}", "a {".repeat(60), "}".repeat(60));
    assert!(hcl::parse(&deep).is_ok());
}

#[test]
fn formatting() {
    let source = "# head\npath \"a\" { capabilities=[\"read\",\"list\"] # why\n  ttl=1\n\n\n  # more\n  max_wrapping_ttl = \"1h\" }\npath \"b\" {\n}\n// tail\nx = [\n\"a\", # first\n\"b\"\n]\ny = {a=1,b=2}\nz = <<EOF\n  keep\nEOF\nlonger=true";
    let expected = "# head\npath \"a\" {\n  capabilities = [\"read\", \"list\"] # why\n  ttl          = 1\n\n  # more\n  max_wrapping_ttl = \"1h\"\n}\n\npath \"b\" {}\n\n// tail\nx = [\n  \"a\", # first\n  \"b\",\n]\n\ny = {\n  a = 1\n  b = 2\n}\n\nz = <<EOF\n  keep\nEOF\nlonger = true\n";
    assert_eq!(hcl::format(source).expect("formats"), expected);
    assert_eq!(hcl::format(expected).expect("formats"), expected);
    assert_eq!(hcl::format("a = /* why */ 1").expect("formats"), "/* why */\na = 1\n");
    assert_eq!(hcl::format("a = [<<E\nx\nE\n, 2]").expect("formats"), "a = [\n  <<E\nx\nE\n  ,\n  2,\n]\n");
    assert_eq!(hcl::format("").expect("formats"), "");
    assert!(hcl::format("a =").is_err());
}

/// Positions and nothing else removed.
fn meaning(body: &Body) -> Body {
    let value = |v: &Value| strip(v);
    Body {
        items: body
            .items
            .iter()
            .map(|i| Item { keys: i.keys.clone(), value: value(&i.value), line: 0, column: 0 })
            .collect(),
    }
}

fn strip(v: &Value) -> Value {
    match v {
        Value::Object(b) => Value::Object(meaning(b)),
        Value::List(l) => Value::List(l.iter().map(strip).collect()),
        other => other.clone(),
    }
}

/// Pieces that together are often well-formed.
fn hcl_text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "b ",
        " = ",
        "{",
        "}\n",
        "{ x = 1 }\n",
        "[",
        "]",
        ",",
        "\"s\"",
        "\"${\"q\"}\"",
        " 1",
        "0x1",
        "true",
        "\n",
        "\n\n",
        "# c\n",
        "// c\n",
        "/* c\n */",
        "<<E\nt\nE\n",
        "<<-E\n  t\n  E\n",
        "a = 1\n",
        "p \"l\" {\n",
        "x = [1,\n2]\n",
        "é",
        "\\",
        "\"",
        "y = [] # t\n",
        "k = {}\n",
        "\r\n",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|v| v.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = hcl::parse_bytes(&bytes);
    }

    #[test]
    fn formatting_keeps_the_meaning_and_settles(text in hcl_text()) {
        if let Ok(body) = hcl::parse(&text) {
            let once = hcl::format(&text).expect("what parses formats");
            let again = hcl::parse(&once).unwrap_or_else(|e| panic!("{e}\n{text}\n---\n{once}"));
            prop_assert_eq!(meaning(&body), meaning(&again), "{}\n---\n{}", text, once);
            prop_assert_eq!(hcl::format(&once).expect("formats"), once.clone(), "{}", text);
            for comment in ["# c", "// c", "/* c"] {
                prop_assert_eq!(count(&text, comment), count(&once, comment), "{}\n---\n{}", text, once);
            }
        }
    }

    #[test]
    fn json_agrees_with_a_json_parser(value in json_value(3)) {
        let text = serde_json::json!({ "top": value }).to_string();
        let body = parse(&text);
        prop_assert_eq!(as_json(body.attribute("top")), value, "{}", text);
    }
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

fn json_value(depth: u32) -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value as Json;
    let leaf = prop_oneof![
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(|n| serde_json::json!(n)),
        "\\PC{0,8}".prop_map(Json::String),
        "[\\x00-\\x7f]{0,8}".prop_map(Json::String),
    ];
    leaf.prop_recursive(depth, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            prop::collection::btree_map("[a-z\" ]{0,4}", inner, 0..4)
                .prop_map(|m| Json::Object(m.into_iter().collect())),
        ]
    })
}

fn as_json(v: Option<&Value>) -> serde_json::Value {
    use serde_json::Value as Json;
    match v {
        None => Json::Null,
        Some(Value::String(s)) => Json::String(s.clone()),
        Some(Value::Bool(b)) => Json::Bool(*b),
        Some(Value::Number(n)) => serde_json::from_str(n).expect("a number"),
        Some(Value::List(l)) => Json::Array(l.iter().map(|v| as_json(Some(v))).collect()),
        Some(Value::Object(b)) => {
            Json::Object(b.items.iter().map(|i| (i.keys[0].clone(), as_json(Some(&i.value)))).collect())
        }
    }
}
