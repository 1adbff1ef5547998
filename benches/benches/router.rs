//! The router: from a path to a mount as mounts and namespaces grow, and what an edit of the mount table costs the
//! next request.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringfence_barrier::{Issuer, Keyring, Sealer, Txn};
use ringfence_base::entropy::SeededEntropy;
use ringfence_base::{Index, MountId, NsId, Wall};
use ringfence_crypto::Provider;
use ringfence_store::Image;
use ringfence_vault::mount::{MountEntry, Router, SystemTtls};
use ringfence_vault::namespace::Namespace;
use serde_json::json;
use std::hint::black_box;

struct World {
    image: Image,
    keyring: Keyring,
    sealer: Sealer,
    index: u64,
    mounts: u32,
}

impl World {
    fn new() -> World {
        let rng = &mut SeededEntropy(1);
        let keyring = Keyring::generate(Provider::AwsLc, Wall(1), rng);
        let mut image = Image::new();
        let empty = image.publish();
        let mut txn = Txn::new(&empty, None);
        let mut issuer = Issuer::register(&mut txn, "bench", Wall(1), rng);
        let first = txn.finish_clear(Wall(1)).expect("small").batch.expect("one record");
        image.apply(Index(1), &first);
        let sealer = issuer.sealer(&keyring);
        World { image, keyring, sealer, index: 1, mounts: 0 }
    }

    fn write(&mut self, act: impl FnOnce(&mut Txn<'_>)) {
        let version = self.image.publish();
        let mut txn = Txn::new(&version, Some(&self.keyring));
        act(&mut txn);
        let batch = txn.finish(&mut self.sealer, Wall(2)).expect("within limits").batch.expect("writes");
        self.index += 1;
        self.image.apply(Index(self.index), &batch);
    }

    /// A namespace with mounts `app-0/`, `app-1/` and so on.
    fn namespace(&mut self, id: u32, path: &str, mounts: u32) {
        let first = self.mounts + 1;
        self.mounts += mounts;
        let (path, ns) = (path.to_owned(), NsId(id));
        self.write(|txn| {
            let mut record = Namespace::root(format!("uuid-{id}"));
            if id > 0 {
                record.external_id = format!("n{id}");
            }
            (record.id, record.path) = (ns, path);
            record.save(txn);
            for i in 0..mounts {
                let entry = json!({
                    "id": first + i, "ns": id, "class": "secret", "path": format!("app-{i}/"), "kind": "kv",
                    "uuid": "", "accessor": format!("kv_{}", first + i),
                });
                let mut entry: MountEntry = serde_json::from_value(entry).expect("an entry");
                entry.id = MountId(first + i);
                entry.save(txn);
            }
        });
    }

    fn router(&mut self) -> Router {
        let version = self.image.publish();
        let mut txn = Txn::new(&version, Some(&self.keyring));
        Router::build(&mut txn, &SystemTtls::default()).expect("opens")
    }
}

fn routing(c: &mut Criterion) {
    let mut group = c.benchmark_group("router/route");
    for mounts in [10u32, 1_000, 10_000] {
        let mut world = World::new();
        world.namespace(0, "", mounts);
        let router = world.router();
        let path = format!("app-{}/data/team/service/config", mounts - 1);
        let version = world.image.publish();
        let txn = Txn::new(&version, Some(&world.keyring));
        let (found, rest) = router.route(&txn, NsId::ROOT, &path).expect("opens").expect("a mount");
        assert_eq!((found.info.path.as_str(), rest), (&*format!("app-{}/", mounts - 1), "data/team/service/config"));
        group.bench_function(BenchmarkId::new("mounts", mounts), |b| {
            b.iter(|| router.route(&txn, NsId::ROOT, black_box(&path)).is_ok_and(|m| m.is_some()));
        });
    }
    for namespaces in [10u32, 1_000, 10_000] {
        let mut world = World::new();
        world.namespace(0, "", 5);
        (1..=namespaces).for_each(|n| world.namespace(n, &format!("team-{n}/"), 5));
        let router = world.router();
        let root = router.namespace("").expect("the root").clone();
        let path = format!("team-{namespaces}/app-3/data/team/service/config");
        let (ns, rest) = router.descend(&root, &path);
        assert_eq!((ns.id, rest), (NsId(namespaces), "app-3/data/team/service/config"));
        let version = world.image.publish();
        let txn = Txn::new(&version, Some(&world.keyring));
        group.bench_function(BenchmarkId::new("namespaces", namespaces), |b| {
            b.iter(|| {
                let (ns, rest) = router.descend(&root, black_box(&path));
                router.route(&txn, ns.id, rest).is_ok_and(|m| m.is_some())
            });
        });
    }
    group.finish();
}

fn refreshing(c: &mut Criterion) {
    let mut group = c.benchmark_group("router/refresh");
    for namespaces in [10u32, 1_000] {
        let mut world = World::new();
        world.namespace(0, "", 5);
        (1..=namespaces).for_each(|n| world.namespace(n, &format!("team-{n}/"), 5));
        let before = world.router();
        world.namespace(1, "team-1/", 1);
        let version = world.image.publish();
        group.bench_function(BenchmarkId::new("one of", namespaces), |b| {
            b.iter_batched(
                || before.clone(),
                |mut router| {
                    let mut txn = Txn::new(&version, Some(&world.keyring));
                    router.refresh(&mut txn, &SystemTtls::default()).expect("opens");
                    router
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, routing, refreshing);
criterion_main!(benches);
