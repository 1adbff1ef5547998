//! Entities by the million in the real engine, each with an alias: what one costs in memory and on disk, and what a
//! login writes however many there are.
//!
//! Every entity is made through the pipeline, by a request for an alias that has none yet. Then users sign in by
//! AppRole whose role ids are among the aliases. What a login writes is told by the log: bytes and writes of logins one
//! after the other, at a thousand entities and at all of them.
//!
//! `cargo bench -p ringfence-benches --bench identity` takes 100,000 entities; `ENTITIES=1000000` in the environment is
//! the full run. `DIRECTORY` names another place for the data. Log writes are not flushed here: what is measured is the
//! engine.

use ringfence_base::entropy::SeededEntropy;
use ringfence_benches::node::{self, Node};
use ringfence_benches::table::{config, directory, force_checkpoint, resident, told};
use ringfence_node::{Operation, Reply};
use serde_json::{Value, json};
use std::time::Duration;

/// Entities that are there when logins are looked at for the first time.
const FEW: u64 = 1_000;
/// Users that sign in, of the few and of all.
const USERS: u64 = 100;
/// Calls under way at a time.
const UNDER_WAY: u64 = 256;
/// Entities of the second measure of memory: what does not grow with them is in both.
const HALVES: u64 = 2;

fn main() {
    let count: u64 = std::env::var("ENTITIES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    assert!(count >= 10 * FEW, "entities enough to tell many from few");
    let dir = directory("identity");
    let mut bench = Bench::begin(Node::open(&dir, config()).expect("a new directory"));
    println!("{count} entities with an alias each\n\n| what | measured | promise |\n|---|---|---|");
    bench.grow(FEW);
    let few = bench.sign_in("few", 0, FEW);
    bench.grow(count / HALVES);
    let half = bench.settled();
    let took = bench.grow(count);
    let all = bench.settled();
    let per = (all.0 - half.0.min(all.0)) as f64 / (count - count / HALVES) as f64;
    told("entities with an alias made in a second of a core", took, "/s", "");
    told("resident bytes an entity with its alias, of the second half", per, "B", "in proportion");
    let per = (all.1 - half.1.min(all.1)) as f64 / (count - count / HALVES) as f64;
    told("bytes of the checkpoint", per, "B", "");
    let many = bench.sign_in("many", FEW, count);
    for (i, what) in ["first login, service token", "next login, service token", "batch token"].iter().enumerate() {
        told(&format!("{what}: log bytes at {FEW} entities"), few[i], "B", "");
        told(&format!("{what}: log bytes at {count} entities"), many[i], "B", "the same");
        // a login that wrote more the more there are would be off by far; frames are padded, so a few bytes are not
        assert!(many[i] <= few[i] * 1.1 + 1.0, "{what} writes its own records only");
    }
    drop(bench);
    std::fs::remove_dir_all(&dir).expect("the directory was ours");
}

struct Bench {
    node: Node,
    root: String,
    accessor: String,
    made: u64,
}

impl Bench {
    fn begin(mut node: Node) -> Bench {
        let (_, root) = node.begin();
        node.must(Operation::Update, "sys/mounts/kv", &root, json!({"type": "kv", "options": {"version": "1"}}));
        node.must(Operation::Update, "sys/auth/approle", &root, json!({"type": "approle"}));
        let auth = node.must(Operation::Read, "sys/auth", &root, Value::Null);
        let accessor = auth["data"]["approle/"]["accessor"].as_str().expect("an accessor").to_owned();
        Bench { node, root, accessor, made: 0 }
    }

    /// Makes entities until there are so many; answers how many in a second of a core.
    fn grow(&mut self, count: u64) -> f64 {
        let Bench { node, root, accessor, made } = self;
        let left = count - *made;
        let mut n = *made;
        let next = |rng: &mut SeededEntropy| {
            let ask = json!({"name": format!("user-{n}"), "mount_accessor": accessor});
            n += 1;
            node::call(rng, Operation::Update, "identity/entity-alias", root, ask)
        };
        let took = node.stream(left, UNDER_WAY, next, |_| {});
        *made = count;
        took.per_core_second()
    }

    /// Resident memory and size of the checkpoint, when nothing is under way.
    fn settled(&mut self) -> (u64, u64) {
        force_checkpoint(&mut self.node, &self.root);
        self.node.run_for(Duration::from_secs(1));
        (resident(), self.node.checkpoint_bytes())
    }

    /// Lets users sign in whose aliases are spread over a range; answers the bytes of the log a login: the first that a
    /// user makes, the next, and one for a batch token.
    fn sign_in(&mut self, name: &str, from: u64, to: u64) -> [f64; 3] {
        let mut logins = Vec::new();
        for user in 0..USERS {
            let alias = format!("user-{}", from + user * (to - from) / USERS);
            let mut login = |kind: &str, role_id: &str| {
                let role = format!("auth/approle/role/{name}-{kind}-{user}");
                let terms = json!({"token_type": kind, "token_ttl": "1h", "role_id": role_id});
                self.node.must(Operation::Update, &role, &self.root, terms);
                let made = self.node.must(Operation::Update, &format!("{role}/secret-id"), &self.root, json!({}));
                json!({"role_id": role_id, "secret_id": made["data"]["secret_id"]})
            };
            // a role id is one role's: the batch logins are of the neighbours
            let neighbour = format!("user-{}", from + user * (to - from) / USERS + 1);
            logins.push([login("service", &alias), login("batch", &neighbour)]);
        }
        // the neighbours' first is not looked at: it writes what theirs of the service kind does, and no token
        self.logins(&logins, 1);
        [self.logins(&logins, 0), self.logins(&logins, 0), self.logins(&logins, 1)]
    }

    fn logins(&mut self, logins: &[[Value; 2]], kind: usize) -> f64 {
        let before = self.node.log_written().0;
        for login in logins {
            let reply: Reply = self.node.ask(Operation::Update, "auth/approle/login", "", login[kind].clone());
            let v = node::body(&reply);
            assert!(v["auth"]["entity_id"].as_str().is_some_and(|id| !id.is_empty()), "{v}");
        }
        (self.node.log_written().0 - before) as f64 / logins.len() as f64
    }
}
