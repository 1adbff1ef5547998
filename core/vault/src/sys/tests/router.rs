//! A router that is brought up to date holds what one built anew holds, whatever happened in between and whoever looked
//! into which namespace when; and a namespace that nobody looks into is not read.

use crate::mount::{MountEntry, Router};
use crate::namespace::Namespace;
use crate::testing::World;
use proptest::prelude::*;
use ringfence_barrier::Txn;
use ringfence_base::{MountId, NsId};
use ringfence_logical::{Class, Operation};
use serde_json::{Value, json};

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
    /// One of the routers of earlier looks is asked for the mounts of a namespace, over its own view.
    Enter(u8, u8),
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
        (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Enter(a, b)),
        (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Enter(a, b)),
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
        let mut looks = Vec::new();
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
                        if Router::build(txn, &system).unwrap().at(txn, ns, &path).unwrap().is_some() {
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
                Change::Enter(look, n) if !looks.is_empty() => {
                    let at = look as usize % looks.len();
                    let (version, router): &(_, Router) = &looks[at];
                    let txn = Txn::new(version, Some(w.keyring()));
                    router.mounts(&txn, space(n)).unwrap().count();
                }
                _ => {
                    w.read(|txn, _| router.refresh(txn, &system).unwrap());
                    looks.push((w.version(), router.clone()));
                }
            }
        }
        // the oldest may be asked last: what they share with newer ones is theirs all the same
        for (version, router) in looks.iter().rev() {
            let mut txn = Txn::new(version, Some(w.keyring()));
            let built = Router::build(&mut txn, &system).unwrap();
            prop_assert_eq!(router.told(&txn), built.told(&txn));
            for (ns, id) in spaces.iter().flat_map(|ns| mounts.iter().map(move |id| (*ns, *id))) {
                let told = |r: &Router| r.by_id(&txn, ns, id).unwrap().map(|m| m.entry.clone());
                let naive = MountEntry::load(&mut Txn::new(version, Some(w.keyring())), id).unwrap();
                let lives = |e: &MountEntry| !e.tainted && built.namespace_by_id(e.ns).is_some();
                prop_assert_eq!(told(router), naive.filter(lives));
            }
        }
    }
}

/// Ten thousand tenants made an unseal's first request wait for ninety thousand records. None but the namespace that a
/// request is served in, and the root of the token, is read.
#[test]
fn a_namespace_that_nobody_asks_for_is_not_read() {
    let mut w = World::new();
    for n in 0..20 {
        let (code, v) = super::root(&mut w, Operation::Update, &format!("sys/namespaces/t{n}"), json!({}));
        assert_eq!(code, ringfence_base::Code::Ok, "{v}");
    }
    // as after an unseal
    w.core().forget();
    let entered = |w: &World| {
        w.read(|txn, _| w.core().caches.borrow_mut().router(txn, &Default::default()).unwrap().entered()).len()
    };
    assert_eq!(entered(&w), 0);
    let (code, _) = super::root(&mut w, Operation::Read, "t7/sys/mounts", Value::Null);
    assert_eq!((code, entered(&w)), (ringfence_base::Code::Ok, 2));
    // a change of one leaves what was read of the others, and reads none
    let (code, _) = super::root(&mut w, Operation::Update, "t9/sys/mounts/lab", json!({"type": "lab"}));
    assert_eq!((code, entered(&w)), (ringfence_base::Code::NoContent, 2));
    let (code, _) = super::root(&mut w, Operation::Read, "t7/sys/mounts/lab", Value::Null);
    assert_eq!(code, ringfence_base::Code::Invalid);
    let (code, _) = super::root(&mut w, Operation::Read, "t9/sys/mounts/lab", Value::Null);
    assert_eq!((code, entered(&w)), (ringfence_base::Code::Ok, 3));
}

/// What one view has must not be taken for what another has: routers share what was read.
#[test]
fn a_router_reads_its_own_view_only() {
    let mut w = World::new();
    let system = Default::default();
    let router = w.read(|txn, _| Router::build(txn, &system).unwrap());
    w.write(|txn, pass| {
        super::super::mounts::fresh(txn, pass.rng, NsId::ROOT, Class::Secret, "late/", "lab").unwrap().save(txn);
    });
    assert!(w.read(|txn, _| router.at(txn, NsId::ROOT, "late/").is_err()));
    assert_eq!(router.entered(), []);
}
