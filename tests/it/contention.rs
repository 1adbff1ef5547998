//! Sixty-four connections at one key: every writer gets through, and of those that check what they saw exactly one wins.

use super::harness::{Answer, Server, read_answer};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Barrier};
use std::time::Duration;

const CONNECTIONS: usize = 64;
const ROUNDS: u64 = 5;

/// A connection that stays open, as clients hold theirs.
struct Connection {
    stream: TcpStream,
    read: BufReader<TcpStream>,
    token: String,
}

impl Connection {
    fn open(server: &Server, token: &str) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a TCP socket");
        let read = BufReader::new(stream.try_clone().expect("a socket"));
        Connection { stream, read, token: token.to_owned() }
    }

    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let text = format!(
            "{method} /v1/{path} HTTP/1.1\r\nHost: t\r\nX-Vault-Token: {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        self.stream.write_all(text.as_bytes()).expect("the server reads");
        read_answer(&mut self.read).expect("an answer")
    }
}

/// Asks on all connections at once, `ROUNDS` times each; answers by connection.
fn at_once(
    server: &Server,
    token: &str,
    rounds: u64,
    ask: impl Fn(&mut Connection, u64, u64) -> Answer + Send + Sync + 'static,
) -> Vec<Vec<Answer>> {
    let (ask, gate) = (Arc::new(ask), Arc::new(Barrier::new(CONNECTIONS)));
    let threads: Vec<_> = (0..CONNECTIONS as u64)
        .map(|n| {
            let mut connection = Connection::open(server, token);
            let (ask, gate) = (ask.clone(), gate.clone());
            std::thread::spawn(move || {
                (0..rounds)
                    .map(|round| {
                        gate.wait();
                        ask(&mut connection, n, round)
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    threads.into_iter().map(|t| t.join().expect("a client")).collect()
}

fn with_mount(name: &str) -> Server {
    let server = Server::ready(name);
    let mount = json!({"type": "kv", "options": {"version": "2"}});
    assert_eq!(server.put("sys/mounts/secret", &server.root, &mount).status, 204);
    server
}

#[test]
fn every_writer_of_one_key_gets_through() {
    let server = with_mount("contention-writes");
    let answers = at_once(&server, &server.root, ROUNDS, |c, n, round| {
        c.ask("POST", "secret/data/hot", &json!({"data": {"n": n, "round": round}}))
    });
    let mut versions = BTreeSet::new();
    for a in answers.iter().flatten() {
        assert_eq!(a.status, 200, "{}", a.errors());
        assert!(
            versions.insert(a.json()["data"]["version"].as_u64().expect("a version")),
            "one version, two writers"
        );
    }
    let total = CONNECTIONS as u64 * ROUNDS;
    assert_eq!((versions.len() as u64, versions.last().copied()), (total, Some(total)));
}

#[test]
fn one_connection_wins_each_check_and_set() {
    let server = with_mount("contention-cas");
    // every round is of the version that the round before made
    let answers = at_once(&server, &server.root, ROUNDS, |c, n, round| {
        c.ask("POST", "secret/data/hot", &json!({"options": {"cas": round}, "data": {"n": n}}))
    });
    for round in 0..ROUNDS as usize {
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().map(|a| &a[round]).partition(|a| a.status == 200);
        assert_eq!(won.len(), 1, "round {round}");
        assert_eq!(won[0].json()["data"]["version"], json!(round + 1));
        for a in lost {
            assert_eq!(a.status, 400);
            let text = a.errors()[0].as_str().map(str::to_owned).unwrap_or_default();
            assert_eq!(text, "check-and-set parameter did not match the current version");
        }
    }
}

#[test]
fn a_token_of_few_uses_is_used_up_exactly() {
    let server = with_mount("contention-uses");
    let made = server.put("auth/token/create", &server.root, &json!({"policies": ["default"], "num_uses": 20}));
    let token = made.json()["auth"]["client_token"].as_str().expect("a token").to_owned();
    let answers = at_once(&server, &token, 1, |c, _, _| c.ask("GET", "auth/token/lookup-self", &Value::Null));
    let good = answers.iter().flatten().filter(|a| a.status == 200).count();
    assert_eq!(good, 20);
    assert!(answers.iter().flatten().all(|a| matches!(a.status, 200 | 403)));
}
