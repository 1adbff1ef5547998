//! A machine in memory for the tests of this floor: image, keyring, window, side index and worker of one node, and
//! `call` to send a request through the pipeline and commit it as the owner would.
//!
//! Two engines stand in for real ones: `lab` makes leases (and can fail, or want the outside), `door` lets anybody
//! log in as he says.

use crate::call::{Body, Call, Headers, Reply};
use crate::host::{ClusterFacts, CoreState, Settings, Vault};
use crate::lease::index::SideIndex;
use crate::lease::work::{WorkStep, Worker};
use crate::mount::MountEntry;
use crate::pipeline::{self, Next, Pass, Stage};
use crate::sys;
use crate::token::mint;
use ringfence_barrier::{Finished, Issuer, Keyring, Sealer, Txn, Verdict, Window};
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Code, Index, NsId, Secret, Wall};
use ringfence_crypto::Provider;
use ringfence_logical::path::Table;
use ringfence_logical::{
    Alias, Args, Auth, Class, Compute, Cx, Engine, Error, Field, Kind, Lease, LeaseTerms, Map, Operation, Outcome,
    OwnerOp, Path, Registry, Response, SideOp, SideResult, Step, TokenType, nothing,
};
use ringfence_store::{Image, Version};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// How side operations are answered.
pub type Outside = Box<dyn FnMut(&SideOp) -> SideResult>;

/// One node in memory.
pub struct World {
    image: Image,
    version: Version,
    window: Window,
    keyring: Arc<Keyring>,
    sealer: Rc<RefCell<Sealer>>,
    core: Rc<CoreState>,
    cluster: Rc<ClusterFacts>,
    rng: SeededEntropy,
    next_call: u64,
    /// Log time and wall time.
    pub now: Wall,
    /// What the owner knows beside the image.
    pub index: SideIndex,
    /// The owner's worker.
    pub worker: Worker,
    /// The root token.
    pub root: String,
    /// Answers side operations; by default the real thing.
    pub outside: Outside,
    /// Every line of the last call that would go to audit devices.
    pub audit: crate::audit::Lines,
    /// Cause of the last failure.
    pub cause: Option<String>,
}

impl World {
    /// An initialised, unsealed node with the vault's own engines and the two of the tests, `lab/` and `auth/door/`
    /// mounted.
    pub fn new() -> World {
        World::with(|_| {})
    }

    /// As [`World::new`] with more engines.
    pub fn with(more: impl FnOnce(&mut Registry)) -> World {
        let mut registry = Registry::new();
        sys::register(&mut registry);
        registry.add("lab", Box::new(Lab)).add("door", Box::new(Door));
        more(&mut registry);
        let mut rng = SeededEntropy(7);
        let now = Wall::from_seconds(1_800_000_000);
        let keyring = Arc::new(Keyring::generate(Provider::AwsLc, now, &mut rng));
        let mut image = Image::new();
        let mut issuer = {
            let empty = image.publish();
            let mut txn = Txn::new(&empty, None);
            let issuer = Issuer::register(&mut txn, "n1", now, &mut rng);
            let first = txn.finish_clear(now).unwrap().batch.unwrap();
            image.apply(Index(1), &first);
            issuer
        };
        let sealer = Rc::new(RefCell::new(issuer.sealer(&keyring)));
        let core = CoreState::new(Arc::new(Vault::new(registry, Settings::default())));
        let version = image.publish();
        let mut world = World {
            index: SideIndex::rebuild(&version),
            image,
            version,
            window: Window::new(Index(1), 10_000),
            keyring,
            sealer,
            core,
            cluster: Rc::new(ClusterFacts { name: "test".into(), id: "test".into() }),
            rng,
            next_call: 0,
            now,
            worker: Worker::new(),
            root: String::new(),
            outside: Box::new(ringfence_logical::side::perform),
            audit: crate::audit::Lines::default(),
            cause: None,
        };
        let mut rng = SeededEntropy(11);
        let token_mount = world.write(|txn, _| {
            let first = sys::first_records(txn, &mut rng, now, Some("test")).unwrap();
            for (class, path) in [(Class::Secret, "lab/"), (Class::Auth, "door/")] {
                let mut entry = blank_mount(txn);
                entry.class = class;
                entry.path = path.into();
                entry.kind = path.trim_end_matches('/').into();
                entry.accessor = format!("{}_1", entry.kind);
                entry.save(txn);
            }
            first.token_mount
        });
        world.root = world.write(|txn, pass| {
            let router = pass.core.caches.borrow_mut().router(txn, &Default::default()).unwrap();
            mint::root(txn, pass.keyring, &router, pass.rng, token_mount, pass.now, 0, None).unwrap().0
        });
        world
    }

    /// Runs something over a transaction and commits it.
    pub fn write<R>(&mut self, run: impl FnOnce(&mut Txn<'_>, &mut Pass<'_>) -> R) -> R {
        let version = self.version.clone();
        let keyring = self.keyring.clone();
        let mut txn = Txn::new(&version, Some(&keyring));
        let mut rng = self.rng.clone();
        let r = run(&mut txn, &mut self.pass(&mut rng));
        self.rng = rng;
        let finished = txn.finish(&mut self.sealer.borrow_mut(), self.now).unwrap();
        assert!(self.commit(finished), "nobody else writes in between");
        r
    }

    /// What the owner does with a finished transaction: false if it was overtaken.
    pub fn commit(&mut self, finished: Finished) -> bool {
        let Some(batch) = finished.batch else { return true };
        if self.window.conflicts(&finished.reads, finished.read_index) != Verdict::Clean {
            return false;
        }
        let index = self.image.applied().next();
        self.window.note(index, &batch);
        self.image.apply(index, &batch);
        self.index.apply(&batch);
        self.version = self.image.publish();
        true
    }

    /// A view of the present.
    pub fn version(&self) -> Version {
        self.version.clone()
    }

    /// The one core.
    pub fn core(&self) -> &CoreState {
        &self.core
    }

    /// The keyring.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Reads through a transaction that is dropped.
    pub fn read<R>(&self, run: impl FnOnce(&mut Txn<'_>, &Keyring) -> R) -> R {
        let mut txn = Txn::new(&self.version, Some(&self.keyring));
        run(&mut txn, &self.keyring)
    }

    /// Time passes.
    pub fn sleep(&mut self, seconds: u64) {
        self.now = self.now.plus_seconds(seconds);
    }

    /// The same image under other settings or engines.
    pub fn replace_core(&mut self, core: Rc<CoreState>) {
        self.core = core;
    }

    fn pass<'p>(&'p self, rng: &'p mut SeededEntropy) -> Pass<'p> {
        Pass {
            core: &self.core,
            keyring: &self.keyring,
            sealer: &self.sealer,
            cluster: &self.cluster,
            now: self.now,
            wall: self.now,
            rng,
        }
    }

    /// A request that [`World::send`] takes.
    pub fn blank(&mut self, op: Operation, path: &str, token: &str, data: Value) -> Call {
        self.next_call += 1;
        let no_body = data.is_null();
        Call {
            id: format!("00000000-0000-4000-8000-{:012}", self.next_call),
            op,
            path: path.to_owned(),
            namespace: None,
            token: (!token.is_empty()).then(|| Secret::new(token.to_owned())),
            data: data.as_object().cloned().unwrap_or_default().into(),
            no_body,
            remote: Some("10.1.2.3".parse().unwrap()),
            remote_port: 1234,
            wrap_ttl: 0,
            wrap_jwt: false,
            headers: Headers::default(),
            raw_body: None,
            peer_certificates: Arc::new(Vec::new()),
            mfa: Vec::new(),
        }
    }

    /// Sends a request and follows it to its reply: use counted, side operations done, everything committed, again
    /// when it was overtaken.
    pub fn send(&mut self, call: Call) -> Reply {
        let call = Rc::new(call);
        let mut stage_counted = false;
        let mut resume: Option<(ringfence_logical::Resume, SideResult)> = None;
        for attempt in 0..20 {
            let version = self.version.clone();
            let keyring = self.keyring.clone();
            let mut txn = Txn::new(&version, Some(&keyring));
            let mut rng = self.rng.clone();
            let stage = Stage {
                use_counted: stage_counted,
                request_audited: false,
                again: attempt > 0,
                on_standby: false,
                resume: resume.as_ref().map(|(f, r)| (f, r)),
            };
            let ran = pipeline::run(&mut self.pass(&mut rng), &mut txn, &call, &stage);
            self.rng = rng;
            (self.audit, self.cause) = (ran.audit, ran.cause);
            match ran.next {
                Next::Side { op, resume: then, intent } => {
                    if intent {
                        let finished = txn.finish(&mut self.sealer.borrow_mut(), self.now).unwrap();
                        if !self.commit(finished) {
                            continue;
                        }
                    }
                    let result = (self.outside)(&op);
                    resume = Some((then, result));
                }
                Next::Elsewhere => panic!("only a standby sends elsewhere"),
                Next::CountUse => {
                    let finished = txn.finish(&mut self.sealer.borrow_mut(), self.now).unwrap();
                    stage_counted |= self.commit(finished);
                }
                Next::Answer(reply) => {
                    let finished = txn.finish(&mut self.sealer.borrow_mut(), self.now).unwrap();
                    if self.commit(finished) {
                        return reply;
                    }
                }
            }
        }
        panic!("{} {} finds no end", call.op, call.path);
    }

    /// Runs a request once over an older view, without committing it.
    pub fn run_at(&mut self, version: &Version, call: Call) -> Finished {
        let keyring = self.keyring.clone();
        let mut txn = Txn::new(version, Some(&keyring));
        let mut rng = self.rng.clone();
        let ran = pipeline::run(&mut self.pass(&mut rng), &mut txn, &Rc::new(call), &Stage::default());
        assert!(matches!(ran.next, Next::Answer(_)));
        txn.finish(&mut self.sealer.borrow_mut(), self.now).unwrap()
    }

    /// Sends a request; answers status and body (`Null` without one).
    pub fn call(&mut self, op: Operation, path: &str, token: &str, data: Value) -> (Code, Value) {
        let call = self.blank(op, path, token, data);
        told(self.send(call))
    }

    /// GET.
    pub fn get(&mut self, path: &str, token: &str) -> (Code, Value) {
        self.call(Operation::Read, path, token, Value::Null)
    }

    /// LIST.
    pub fn list(&mut self, path: &str, token: &str) -> (Code, Value) {
        self.call(Operation::List, path, token, Value::Null)
    }

    /// POST.
    pub fn post(&mut self, path: &str, token: &str, data: Value) -> (Code, Value) {
        self.call(Operation::Update, path, token, data)
    }

    /// DELETE.
    pub fn delete(&mut self, path: &str, token: &str) -> (Code, Value) {
        self.call(Operation::Delete, path, token, Value::Null)
    }

    /// A request whose answer is to be wrapped.
    pub fn wrapped(&mut self, op: Operation, path: &str, token: &str, data: Value, ttl: u64) -> (Code, Value) {
        let mut call = self.blank(op, path, token, data);
        call.wrap_ttl = ttl;
        told(self.send(call))
    }

    /// A token made by `auth/token/create`.
    pub fn token(&mut self, parent: &str, data: Value) -> String {
        let (code, v) = self.post("auth/token/create", parent, data);
        assert_eq!(code, Code::Ok, "{v}");
        v["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// Writes a policy.
    pub fn policy(&mut self, name: &str, text: &str) {
        let (name, text) = (name.to_owned(), text.to_owned());
        self.write(|txn, _| crate::policies::save(txn, NsId::ROOT, &name, &text));
    }

    /// Lets the owner's worker run until it is idle; answers how many rows it ended and when it wants to wake.
    pub fn work(&mut self) -> (usize, Option<Wall>) {
        let mut ended = 0;
        for _ in 0..10_000 {
            let version = self.version.clone();
            let keyring = self.keyring.clone();
            let mut txn = Txn::new(&version, Some(&keyring));
            let mut rng = self.rng.clone();
            let (mut worker, mut index) =
                (std::mem::take(&mut self.worker), std::mem::replace(&mut self.index, SideIndex::new(Wall(0))));
            let step = worker.next(&mut self.pass(&mut rng), &mut index, &mut txn).unwrap();
            (self.worker, self.index, self.rng) = (worker, index, rng);
            match step {
                WorkStep::Idle { wake_at: Some(at) } if at <= self.now => {}
                WorkStep::Idle { wake_at } => return (ended, wake_at),
                WorkStep::Commit { rows } => {
                    let finished = txn.finish(&mut self.sealer.borrow_mut(), self.now).unwrap();
                    assert!(self.commit(finished));
                    self.worker.settled(&mut self.index, true);
                    ended += rows;
                }
                WorkStep::Side { job, op } => {
                    let result = (self.outside)(&op);
                    self.worker.side_done(job, result);
                }
                WorkStep::Intent { job, op } => {
                    let finished = txn.finish(&mut self.sealer.borrow_mut(), self.now).unwrap();
                    assert!(self.commit(finished));
                    self.worker.settled(&mut self.index, true);
                    let result = (self.outside)(&op);
                    self.worker.side_done(job, result);
                }
            }
        }
        panic!("the worker finds no end");
    }

    /// A restart: what stands beside the image is lost and made again.
    pub fn restart(&mut self) {
        self.worker = Worker::new();
        self.index = SideIndex::rebuild(&self.version);
    }

    /// Every key of the image.
    pub fn image_keys(&self) -> Vec<Vec<u8>> {
        self.version.scan_prefix(&[]).map(|(k, _)| k.to_vec()).collect()
    }

    /// How many rows stand in a table.
    pub fn rows(&self, table: u8) -> u64 {
        self.version.count_prefix(&[table])
    }
}

/// Status and body of a reply.
pub fn told(reply: Reply) -> (Code, Value) {
    let body = match reply.body {
        Body::Empty => Value::Null,
        Body::Json(b) => serde_json::from_slice(&b).unwrap(),
        Body::Raw(r) => serde_json::from_slice(&r.body).unwrap_or(Value::Null),
    };
    (reply.code, body)
}

/// The first text of an errors envelope.
pub fn error_of(body: &Value) -> &str {
    body["errors"][0].as_str().unwrap_or("")
}

fn blank_mount(txn: &mut Txn<'_>) -> MountEntry {
    MountEntry {
        id: crate::mount::next_mount_id(txn).unwrap(),
        ns: NsId::ROOT,
        class: Class::Secret,
        path: String::new(),
        kind: String::new(),
        description: String::new(),
        uuid: "0".into(),
        accessor: String::new(),
        local: false,
        seal_wrap: false,
        external_entropy_access: false,
        options: None,
        config: Default::default(),
        tainted: false,
    }
}

/// A secrets engine that makes leases. What a lease is about is told by its role: `plain`, `outside` (its revocation
/// is a side operation), `broken` (its revocation fails while the record `config/broken` says so).
struct Lab;

static LAB: Table = Table {
    kind: "lab",
    class: Class::Secret,
    help: "A secrets engine for tests.",
    paths: &[
        Path::new("creds/{role}")
            .fields(&[
                Field::str("role", "plain, outside or broken."),
                Field::seconds("ttl", "Life."),
                Field::seconds("max_ttl", "Longest life."),
            ])
            .read(lab_creds),
        Path::new("jobs/{name}")
            .fields(&[Field::str("name", "once, again, broken or outside."), Field::seconds("in", "When.")])
            .write(lab_job),
        Path::new("count/{name}").fields(&[Field::str("name", "A record.")]).read(lab_counted),
        Path::new("broken").fields(&[Field::bool("value", "Fail.")]).write(lab_broken),
    ],
};

/// The lab's only area of keys.
const AREA: u8 = 1;

fn lab_creds(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let mut internal = Map::new();
    internal.insert("role".into(), args.str("role").into());
    Response {
        data: Some(ringfence_logical::Data::Map(Map::from_iter([("who".to_owned(), json!("x"))]))),
        lease: Some(LeaseTerms {
            secret: "creds",
            ttl: args.seconds("ttl"),
            max_ttl: args.seconds("max_ttl"),
            renewable: true,
            internal,
        }),
        ..Response::default()
    }
    .done()
    .inspect(|_| cx.put(AREA, b"made", b"1"))
}

fn lab_job(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let at = cx.now.plus_seconds(args.seconds("in"));
    cx.schedule(args.str("name"), at);
    nothing()
}

fn lab_counted(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let n: u64 = cx.get_json(AREA, args.str("name").as_bytes())?.unwrap_or(0);
    Response::data([("count".to_owned(), json!(n))].into_iter().collect()).done()
}

/// One more in the record of this name.
fn lab_count(cx: &mut Cx<'_, '_>, name: &str) -> Result<(), Error> {
    let n: u64 = cx.get_json(AREA, name.as_bytes())?.unwrap_or(0);
    cx.put_json(AREA, name.as_bytes(), &(n + 1));
    Ok(())
}

fn lab_broken(cx: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    match args.bool("value") {
        true => cx.put(AREA, b"broken", b"1"),
        false => cx.delete(AREA, b"broken"),
    }
    nothing()
}

impl Engine for Lab {
    fn table(&self) -> &'static Table {
        &LAB
    }

    fn renew(&self, _: &mut Cx<'_, '_>, lease: &Lease) -> Outcome {
        assert_eq!(lease.secret, "creds");
        Response {
            lease: Some(LeaseTerms { ttl: 0, renewable: true, ..LeaseTerms::default() }),
            ..Response::default()
        }
        .done()
    }

    fn due(&self, cx: &mut Cx<'_, '_>, job: &str) -> Outcome {
        match job {
            "broken" if cx.exists(AREA, b"broken") => return Err(Error::plain("not now")),
            "again" => {
                let at = cx.now.plus_seconds(10);
                cx.schedule(job, at);
            }
            "outside" => {
                lab_count(cx, "intent")?;
                return Ok(Step::Intent {
                    op: SideOp::Owner(OwnerOp::Named("rotate", json!({}))),
                    resume: Box::new(|cx, result| match result {
                        SideResult::Json(_) => {
                            lab_count(cx, "outside")?;
                            nothing()
                        }
                        other => Err(Error::plain(&format!("{other:?}"))),
                    }),
                });
            }
            _ => {}
        }
        lab_count(cx, job)?;
        nothing()
    }

    fn revoke(&self, cx: &mut Cx<'_, '_>, lease: &Lease) -> Outcome {
        match lease.internal["role"].as_str() {
            Some("broken") if cx.exists(AREA, b"broken") => Err(Error::plain("the database is gone")),
            Some("outside") => Ok(Step::Side {
                op: SideOp::Owner(OwnerOp::Named("drop-user", json!({}))),
                resume: Box::new(|cx, result| match result {
                    SideResult::Json(_) => {
                        cx.put(AREA, b"dropped", b"1");
                        nothing()
                    }
                    other => Err(Error::plain(&format!("{other:?}"))),
                }),
            }),
            _ => nothing(),
        }
    }
}

/// An auth method: `login` makes of the body whatever [`Auth`] it names.
struct Door;

static DOOR: Table = Table {
    kind: "door",
    class: Class::Auth,
    help: "An auth method for tests.",
    paths: &[Path::new("login/{name}")
        .fields(&[
            Field::str("name", "Who."),
            Field::list("policies", "Policies."),
            Field::str("type", "Token type."),
            Field::str("role", "Role."),
            Field::seconds("ttl", "Life."),
            Field::seconds("max_ttl", "Longest life."),
            Field::seconds("period", "Period."),
            Field::int("num_uses", "Uses."),
            Field::new("meta", Kind::KvPairs, "Metadata."),
            Field::str("alias", "Name of the alias, if not the name."),
            Field::list("groups", "External groups."),
        ])
        .login()
        .role_of(|_, args| Ok(args.str("role").to_owned()))
        .write(door_login)],
};

fn door_login(_: &mut Cx<'_, '_>, args: &Args) -> Outcome {
    let name = args.str("name").to_owned();
    let auth = Auth {
        display_name: name.clone(),
        policies: args.list("policies"),
        metadata: args.opt_pairs("meta").unwrap_or_default(),
        alias: Some(Alias {
            name: args.opt_str("alias").map_or(name, str::to_owned),
            metadata: args.opt_pairs("meta").unwrap_or_default(),
        }),
        group_aliases: args.list("groups").into_iter().map(|name| Alias { name, ..Alias::default() }).collect(),
        ttl: args.seconds("ttl"),
        max_ttl: args.seconds("max_ttl"),
        period: args.seconds("period"),
        num_uses: args.seconds("num_uses"),
        token_type: TokenType::parse(args.str("type")).unwrap(),
        role: args.str("role").to_owned(),
        internal: Map::from_iter([("role".to_owned(), args.str("role").into())]),
        ..Auth::default()
    };
    Response { auth: Some(auth), ..Response::default() }.done()
}

impl Engine for Door {
    fn table(&self) -> &'static Table {
        &DOOR
    }

    /// The role `asked` is asked for outside.
    fn prove_renewal(&self, _: &mut Cx<'_, '_>, internal: &Map) -> Outcome {
        if internal.get("role").and_then(Value::as_str) != Some("asked") {
            return nothing();
        }
        let run = Box::new(|| SideResult::Json(json!({"good": true})));
        Ok(Step::Side {
            op: SideOp::Compute(Compute { what: "door", run }),
            resume: Box::new(|_, result| match result {
                SideResult::Json(v) if v["good"] == true => nothing(),
                _ => Err(Error::invalid("not let in any more")),
            }),
        })
    }
}
