//! Random sequences of what two machines do with a vault, some of it cut short: at every instant what
//! is visible restores, and in the end nothing is left over.

use super::*;

#[derive(Clone, Debug)]
enum Deed {
    Backup { second: bool, full: bool },
    TakeOver { second: bool },
    KeepLast(u32),
    ForgetOne(usize),
    Undo(usize),
    Prune { grace: u32, rewrite: bool },
    Hours(u32),
}

#[derive(Clone, Debug)]
struct Step {
    deed: Deed,
    /// At which passage of which step it is killed, if so many are passed.
    killed: Option<(FaultPoint, u32)>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let deed = prop_oneof![
        5 => (prop::bool::ANY, prop::bool::weighted(0.1))
            .prop_map(|(second, full)| Deed::Backup { second, full }),
        1 => prop::bool::ANY.prop_map(|second| Deed::TakeOver { second }),
        2 => (1..3_u32).prop_map(Deed::KeepLast),
        2 => any::<usize>().prop_map(Deed::ForgetOne),
        1 => any::<usize>().prop_map(Deed::Undo),
        3 => (prop_oneof![Just(48_u32), Just(0), Just(5)], prop::bool::ANY)
            .prop_map(|(grace, rewrite)| Deed::Prune { grace, rewrite }),
        3 => prop_oneof![Just(1_u32), Just(13), Just(25), Just(49)].prop_map(Deed::Hours),
    ];
    let points: Vec<FaultPoint> = of_a_prune().chain(of_a_backup()).collect();
    let killed = prop::option::weighted(0.5, (prop::sample::select(points), 1..4_u32));
    prop::collection::vec((deed, killed).prop_map(|(deed, killed)| Step { deed, killed }), 4..25)
}

/// Two node directories, and an installation on each of two machines.
struct World {
    bench: Bench,
    trees: Vec<(SnapshotId, Tree)>,
    forgotten: Vec<SnapshotId>,
    fill: u8,
}

impl World {
    fn new() -> World {
        let world =
            World { bench: Bench::new(), trees: Vec::new(), forgotten: Vec::new(), fill: 0 };
        fs::create_dir(world.dir(true)).unwrap();
        world
    }

    fn dir(&self, second: bool) -> PathBuf {
        self.bench.dir.path().join(if second { "second" } else { "node" })
    }

    fn name(second: bool) -> NodeName {
        if second { "second" } else { "node" }.parse().unwrap()
    }

    fn visible(&self) -> Vec<SnapshotId> {
        let infos = self.bench.vault.snapshots(None).unwrap();
        infos.iter().map(|info| info.manifest.snapshot).collect()
    }

    fn backup(&mut self, second: bool, full: bool, control: &Control, plain: bool) {
        self.fill = self.fill.wrapping_add(1);
        let dir = self.dir(second);
        let mut pages = page_file(3, 24);
        pages[4096 * (1 + usize::from(self.fill) % 20)..][..4096]
            .copy_from_slice(&noise(u64::from(self.fill), 4096));
        fs::write(dir.join("page.db"), pages).unwrap();
        fs::write(dir.join("plain"), noise(u64::from(self.fill), 9_000)).unwrap();
        let before = self.visible();
        let mut options = BackupOptions::default();
        options.node = Some(World::name(second));
        options.full = full;
        let actor = self.bench.actor(if self.fill.is_multiple_of(5) { "bob" } else { "alice" });
        let mut owned = true;
        dies(|| match backup::run(&self.bench.vault, &dir, &actor, &options, control) {
            Ok(_) => {}
            // The node is the other one's, or a killed backup's traces look like a copy's.
            Err(error) if error.kind() == Kind::Fenced => owned = false,
            // Killed in a stage of its own: the others hear of it as of a bug.
            Err(error) if error.kind() == Kind::Bug && !plain => {}
            Err(error) => panic!("{error:?}"),
        });
        for snapshot in self.visible() {
            if !before.contains(&snapshot) {
                assert!(owned);
                self.trees.push((snapshot, tree(&dir)));
            }
        }
    }

    fn carry_out(&mut self, step: &Step) {
        let control = match step.killed {
            Some((point, count)) => killed_at(point, count),
            None => control(),
        };
        let warden = self.bench.actor("warden");
        match step.deed {
            Deed::Backup { second, full } => {
                self.backup(second, full, &control, step.killed.is_none())
            }
            Deed::TakeOver { second } => {
                // Nobody owns a node that was never backed up.
                let (vault, name) = (&self.bench.vault, World::name(second));
                let _ = vault.take_over(&name, &self.bench.actor("bob"), "test");
                let _ = vault.take_over(&name, &self.bench.actor("alice"), "test");
            }
            Deed::KeepLast(last) => {
                let before = self.visible();
                let retention = Retention { last, ..Retention::default() };
                let options = ForgetOptions::default().retention(retention);
                let plan = forget::plan(&self.bench.vault, &options).unwrap();
                dies(|| {
                    forget::run(&self.bench.vault, &warden, &plan, &control).unwrap();
                });
                let after = self.visible();
                self.forgotten.extend(before.iter().filter(|id| !after.contains(id)));
                let newest: Vec<SnapshotId> = plan
                    .nodes
                    .iter()
                    .filter_map(|node| Some(node.keep.first()?.snapshot))
                    .collect();
                assert!(newest.iter().all(|newest| after.contains(newest)));
            }
            Deed::ForgetOne(which) => {
                let visible = self.visible();
                let Some(&one) = visible.get(which % visible.len().max(1)) else { return };
                dies(|| drop(forget_named(&self.bench, &[one], &control).unwrap()));
                if !self.visible().contains(&one) {
                    self.forgotten.push(one);
                }
            }
            Deed::Undo(which) => {
                let Some(&one) = self.forgotten.get(which % self.forgotten.len().max(1)) else {
                    return;
                };
                dies(|| {
                    // It may be gone, or on its way.
                    let _ = forget::undo(&self.bench.vault, &warden, &one.to_string(), &control);
                });
            }
            Deed::Prune { grace, rewrite } => {
                let vault =
                    Vault::open_with(self.bench.vault.location(), &key(1), &control.env).unwrap();
                let rewrite = if rewrite { super::rewriting() } else { None };
                let options = PruneOptions::default().grace(HOUR * grace).rewrite(rewrite);
                dies(|| {
                    let plan = prune::plan(&vault, &warden, &options, &control).unwrap();
                    prune::run(&vault, &warden, &plan, &control).unwrap();
                });
            }
            Deed::Hours(hours) => age(&self.bench, hours),
        }
    }

    /// All that is visible is whole; nothing that is not was seen to be.
    fn assert_whole(&self, quick: bool) {
        let options = highwater::vault::CheckOptions::default().read_data(true);
        let report = highwater::vault::check(&self.bench.vault, &options, &control()).unwrap();
        assert!(report.ok, "{:?}", report.errors);
        for snapshot in self.visible() {
            let (_, expected) = self.trees.iter().find(|(id, _)| *id == snapshot).unwrap();
            if !quick {
                self.bench.assert_restores(snapshot, expected);
            }
        }
    }
}

/// So many sequences.
const CASES: u32 = 24;

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_happens_what_is_visible_is_whole_and_garbage_goes(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.carry_out(step);
            world.assert_whole(true);
        }
        world.assert_whole(false);
        // Killed backups of this boot are collected by the next one of their writer, or by age.
        age(&world.bench, 49);
        prune_now(&world.bench, HOUR * 48).unwrap();
        world.assert_whole(false);
        // What became unreferenced by the first prune of those that were killed was old already.
        prune_now(&world.bench, HOUR * 48).unwrap();
        world.bench.vault.snapshots(None).unwrap();
        assert_no_garbage(&world.bench, "in the end");
    }
}
