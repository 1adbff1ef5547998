//! A router that is brought up to date holds what one built anew holds, whatever happened in between.

use crate::mount::{MountEntry, Router};
use crate::namespace::Namespace;
use crate::testing::World;
use proptest::prelude::*;
use ringfence_base::{MountId, NsId};
use ringfence_logical::Class;

#[derive(Clone, Debug)]
enum Change {
    NewNamespace(u8, u8),
    Taint(u8),
    Gone(u8),
    Lock(u8),
    Mount(u8, u8),
    Disable(u8),
    Move(u8, u8),
    Unmount(u8),
    /// What happened so far is seen, all at once.
    Look,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    use Change::*;
    let one = prop_oneof![
        (any::<u8>(), 0u8..3).prop_map(|(a, b)| NewNamespace(a, b)),
        any::<u8>().prop_map(Taint),
        any::<u8>().prop_map(Gone),
        any::<u8>().prop_map(Lock),
        (any::<u8>(), 0u8..3).prop_map(|(a, b)| Mount(a, b)),
        any::<u8>().prop_map(Disable),
        (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Move(a, b)),
        any::<u8>().prop_map(Unmount),
        Just(Look),
        Just(Look),
    ];
    prop::collection::vec(one, 1..40)
}

fn pick<T: Copy>(from: &[T], n: u8) -> T {
    from[n as usize % from.len()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn refreshed_is_as_good_as_new(changes in changes()) {
        let mut w = World::new();
        let system = Default::default();
        let mut router = w.read(|txn, _| Router::build(txn, &system).unwrap());
        let mut spaces = vec![NsId::ROOT];
        let mut mounts: Vec<MountId> = Vec::new();
        for change in changes {
            let space = |n: u8| pick(&spaces, n);
            match change {
                Change::NewNamespace(parent, name) => {
                    let made = w.write(|txn, pass| {
                        let above = Namespace::load(txn, space(parent)).unwrap()?;
                        let path = format!("{}n{name}/", above.path);
                        // one place, one namespace
                        let router = Router::build(txn, &system).unwrap();
                        if above.tainted || router.namespace(&path).or(router.dying(&path)).is_some() {
                            return None;
                        }
                        let ns = Namespace::fresh(txn, pass.rng, path, |_| false).unwrap();
                        ns.save(txn);
                        Some(ns.id)
                    });
                    spaces.extend(made);
                }
                Change::Taint(n) | Change::Lock(n) => {
                    let tainted = matches!(change, Change::Taint(_));
                    w.write(|txn, _| {
                        if let Some(mut ns) = Namespace::load(txn, space(n)).unwrap().filter(|ns| !ns.is_root()) {
                            match tainted {
                                true => ns.tainted = true,
                                false => ns.lock = ns.lock.xor(Some([1; 16])),
                            }
                            ns.save(txn);
                        }
                    });
                }
                Change::Gone(n) => {
                    let id = space(n);
                    if id != NsId::ROOT {
                        w.write(|txn, _| Namespace::remove(txn, id));
                        spaces.retain(|s| *s != id);
                    }
                }
                Change::Mount(n, name) => {
                    let ns = space(n);
                    let made = w.write(|txn, pass| {
                        let path = format!("m{name}/");
                        if Router::build(txn, &system).unwrap().at(ns, &path).is_some() {
                            return None;
                        }
                        let e = super::super::mounts::fresh(txn, pass.rng, ns, Class::Secret, &path, "lab").unwrap();
                        e.save(txn);
                        Some(e.id)
                    });
                    mounts.extend(made);
                }
                Change::Disable(n) | Change::Unmount(n) | Change::Move(n, _) if !mounts.is_empty() => {
                    let id = pick(&mounts, n);
                    w.write(|txn, _| {
                        let Some(mut e) = MountEntry::load(txn, id).unwrap() else { return };
                        match change {
                            Change::Unmount(_) => return MountEntry::remove(txn, e.ns, id),
                            Change::Move(_, to) => {
                                e.move_to(txn, space(to));
                                e.path = format!("moved-{}/", id.0);
                            }
                            _ => e.tainted = true,
                        }
                        e.save(txn);
                    });
                }
                _ => {
                    let (refreshed, built) = w.read(|txn, _| {
                        router.refresh(txn, &system).unwrap();
                        (router.clone(), Router::build(txn, &system).unwrap())
                    });
                    prop_assert_eq!(refreshed.told(), built.told());
                }
            }
        }
    }
}
