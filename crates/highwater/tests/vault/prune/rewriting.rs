//! Packs that are mostly unneeded are rewritten, whatever happens meanwhile: what is visible is whole,
//! what is no longer needed goes after the grace period.

use highwater::vault::Manifest;

use super::*;

/// A database of which every backup changes other pages, so that each pack keeps a little that is
/// needed; the runs of its map are long.
pub(super) fn scene() -> (Bench, History) {
    let bench = Bench::new();
    let mut history = History(Vec::new());
    let mut pages = page_file(1, 900);
    for backup in 0..5_usize {
        for page in (1..900).filter(|page| page % 7 < 4 && page % 5 != backup) {
            pages[page * 4096..][..4096]
                .copy_from_slice(&noise((backup * 1000 + page) as u64, 4096));
        }
        bench.write("page.db", &pages);
        bench.write("plain", noise(backup as u64, 30_000));
        bench.write("same", noise(7, 200_000));
        let snapshot = bench.backup().snapshot;
        history.0.push((snapshot, tree(&bench.node())));
    }
    keep_last(&bench, 2);
    age(&bench, 49);
    prune_now(&bench, HOUR * 48).unwrap();
    assert_no_garbage(&bench, "before");
    (bench, history)
}

fn stored(bench: &Bench) -> u64 {
    bench.objects("packs").iter().map(|path| path.metadata().unwrap().len()).sum()
}

fn manifests(bench: &Bench) -> Vec<Manifest> {
    bench.vault.snapshots(None).unwrap().into_iter().map(|info| info.manifest).collect()
}

fn rewrite_now(bench: &Bench) -> Result<Pruned> {
    rewrite_of(bench.vault.location(), &bench.actor("warden"), &control())
}

/// After the grace period only what is needed is left.
pub(super) fn settle(bench: &Bench, history: &History, what: &str) {
    age(bench, 49);
    prune_now(bench, HOUR * 48).unwrap();
    history.assert_visible(bench, what);
    // What a rewriting that was killed had begun was too young for the first prune.
    age(bench, 49);
    prune_now(bench, HOUR * 48).unwrap();
    history.assert_visible(bench, what);
    assert_no_garbage(bench, what);
}

#[test]
fn what_is_needed_moves_and_the_rest_is_freed() {
    let (bench, history) = scene();
    let (before, old) = (stored(&bench), manifests(&bench));
    let options = PruneOptions::default().rewrite(rewriting());
    let actor = bench.actor("warden");
    let plan = prune::plan(&bench.vault, &actor, &options, &control()).unwrap();
    let planned = plan.rewrite.unwrap();
    assert!(planned.packs >= 2 && planned.bytes_unused > 1_000_000, "{planned:?}");
    assert_eq!(stored(&bench), before, "a plan writes nothing");
    let pruned = prune::run(&bench.vault, &actor, &plan, &control()).unwrap();
    let rewritten = pruned.rewritten;
    assert_eq!((rewritten.manifests, rewritten.packs), (2, planned.packs));
    assert!(rewritten.bytes <= planned.bytes + 200_000, "{rewritten:?} {planned:?}");
    let new = manifests(&bench);
    for (old, new) in old.iter().zip(&new) {
        assert_eq!((old.generation, new.generation), (0, 1));
        let content = |manifest: &Manifest| -> Vec<_> {
            let leaves = manifest.entries().flat_map(|entry| &entry.leaves);
            leaves.map(|leaf| leaf.content).collect()
        };
        assert_eq!(content(old), content(new));
    }
    let long = |manifest: &Manifest| {
        let mut leaves = manifest.entries().flat_map(|entry| &entry.leaves);
        leaves.any(|leaf| matches!(leaf.runs, highwater::vault::manifest::Runs::Stored { .. }))
    };
    assert!(old.iter().any(long), "the scene has a map that is stored");
    assert_eq!(history.assert_visible(&bench, "rewritten").len(), 2);
    assert!(stored(&bench) > before, "the old packs stay for the grace period");
    settle(&bench, &history, "settled");
    let after = stored(&bench);
    assert!(after + planned.bytes_unused <= before + 300_000, "{before} became {after}");
    // Nothing is left to do; the next backup builds on the new generation.
    assert_eq!(rewrite_now(&bench).unwrap(), Pruned::default());
    let next = bench.backup();
    assert!(next.bytes_stored < 10_000, "{}", next.bytes_stored);
}

/// A database whose pages came one by one, in no order, lies in the new pack in its own.
#[test]
fn pages_stand_in_the_order_of_the_file() {
    let bench = Bench::new();
    let mut pages = page_file(1, 900);
    for backup in 0..5_u64 {
        for page in (1..900_u64).filter(|page| page * 7 % 5 == backup) {
            pages[page as usize * 4096..][..4096].copy_from_slice(&noise(page, 4096));
        }
        bench.write("page.db", &pages);
        // Makes the most of each pack, and is needed by one snapshot alone.
        bench.write("plain", noise(1000 + backup, 5_000_000));
        bench.backup();
    }
    // More than half of the whole stays: what would be lost otherwise keeps the snapshot before.
    bench.write("plain", noise(2000, 700_000));
    let snapshot = bench.backup().snapshot;
    let history = History(vec![(snapshot, tree(&bench.node()))]);
    keep_last(&bench, 1);
    age(&bench, 49);
    prune_now(&bench, HOUR * 48).unwrap();
    let before = runs_of(&manifests(&bench)[0]);
    assert!(rewrite_now(&bench).unwrap().rewritten.packs >= 4);
    let after = runs_of(&manifests(&bench)[0]);
    assert!(before == 1000 && after < 100, "{before} became {after}");
    history.assert_visible(&bench, "ordered");
    settle(&bench, &history, "ordered");
}

/// The bytes of the longest map that stands in the manifest; a stored one counts as more.
fn runs_of(manifest: &Manifest) -> usize {
    let leaves = manifest.entries().flat_map(|entry| &entry.leaves);
    let bytes = leaves.map(|leaf| match &leaf.runs {
        highwater::vault::manifest::Runs::Inline(text) => text.len(),
        highwater::vault::manifest::Runs::Stored { .. } => 1000,
    });
    bytes.max().unwrap()
}

#[test]
fn no_more_is_copied_than_was_allowed() {
    let (bench, history) = scene();
    let options =
        PruneOptions::default().rewrite(rewriting().map(|all| Rewriting { bytes_max: 10, ..all }));
    let actor = bench.actor("warden");
    let plan = prune::plan(&bench.vault, &actor, &options, &control()).unwrap();
    assert_eq!(plan.rewrite.unwrap().packs, 0);
    assert!(plan.is_empty());
    assert_eq!(prune::run(&bench.vault, &actor, &plan, &control()).unwrap(), Pruned::default());
    history.assert_visible(&bench, "left");
}

fn of_a_rewriting() -> impl Iterator<Item = FaultPoint> {
    of_a_prune().filter(|point| point.name().starts_with("rewrite."))
}

#[test]
fn a_rewriting_killed_anywhere_leaves_whole_snapshots_and_the_next_one_finishes() {
    for point in of_a_rewriting() {
        for count in [1, 2, 60] {
            let what = format!("killed at {} ({count})", point.name());
            let (bench, history) = scene();
            let (warden, control) = (bench.actor("warden"), killed_at(point, count));
            let killed = dies(|| {
                rewrite_of(bench.vault.location(), &warden, &control).unwrap();
            });
            if !killed {
                assert!(count > 1, "no rewriting passes {}", point.name());
                break;
            }
            assert_eq!(history.assert_visible(&bench, &what).len(), 2, "{what}");
            // Another machine can't tell that it is dead, and waits a day.
            let other =
                rewrite_of(bench.vault.location(), &bench.actor("other"), &super::control());
            let done = [FaultPoint::RewriteSecondLook, FaultPoint::RewriteDone];
            if point != FaultPoint::RewriteIntent && !done.contains(&point) {
                assert_eq!(kind(other), Kind::Conflict, "{what}");
            }
            rewrite_now(&bench).unwrap();
            assert_eq!(history.assert_visible(&bench, &what).len(), 2, "{what}");
            settle(&bench, &history, &what);
        }
    }
}

#[test]
fn a_rewriting_that_fails_anywhere_leaves_whole_snapshots() {
    struct Fails(FaultPoint);
    impl Faults for Fails {
        fn reached(&self, point: FaultPoint) -> Result<()> {
            if point == self.0 { Err(Error::unavailable("a fault")) } else { Ok(()) }
        }
    }
    for point in of_a_rewriting() {
        let (bench, history) = scene();
        let control = Control::new(env().with_faults(Fails(point)));
        let failed = rewrite_of(bench.vault.location(), &bench.actor("warden"), &control);
        assert_eq!(kind(failed), Kind::Unavailable, "{}", point.name());
        history.assert_visible(&bench, point.name());
        rewrite_now(&bench).unwrap();
        settle(&bench, &history, point.name());
    }
}

/// Another machine does something at each write step of a rewriting.
#[test]
fn whatever_happens_beside_a_rewriting_is_whole() {
    for point in of_a_rewriting() {
        for deed in ["backup", "forget", "prune", "rewrite"] {
            let what = format!("a {deed} at {}", point.name());
            let (bench, mut history) = scene();
            let (location, node, name) =
                (bench.vault.location().clone(), bench.node(), bench.name());
            let (alice, other) = (bench.actor("alice"), bench.actor("other"));
            let oldest = bench.vault.snapshots(None).unwrap()[0].manifest.snapshot;
            bench.write("plain", b"changed");
            let state = tree(&bench.node());
            let made = Arc::new(Mutex::new(None));
            let tells = Arc::clone(&made);
            let control = at(point, 1, move || {
                let vault = Vault::open_with(&location, &key(1), &env()).unwrap();
                let control = super::control();
                match deed {
                    "backup" => {
                        let mut options = BackupOptions::default();
                        options.node = Some(name.clone());
                        let report = backup::run(&vault, &node, &alice, &options, &control);
                        *tells.lock().unwrap() = Some(report.unwrap().snapshot);
                    }
                    "forget" => {
                        let snapshots = vec![oldest.to_string()];
                        let options = ForgetOptions::default().snapshots(snapshots);
                        let plan = forget::plan(&vault, &options).unwrap();
                        forget::run(&vault, &other, &plan, &control).unwrap();
                    }
                    "prune" => {
                        let options = ForgetOptions::default().snapshots(vec![oldest.to_string()]);
                        let plan = forget::plan(&vault, &options).unwrap();
                        forget::run(&vault, &other, &plan, &control).unwrap();
                        let pruned = prune_of(&location, &other, Duration::ZERO, &control);
                        if let Err(error) = pruned {
                            assert_eq!(error.kind(), Kind::Conflict, "{error}");
                        }
                    }
                    _ => {
                        if let Err(error) = rewrite_of(&location, &other, &control) {
                            assert_eq!(error.kind(), Kind::Conflict, "{error}");
                        }
                    }
                }
            });
            rewrite_of(bench.vault.location(), &bench.actor("warden"), &control).unwrap();
            if let Some(made) = *made.lock().unwrap() {
                history.0.push((made, state));
            }
            history.assert_visible(&bench, &what);
            bench.write("plain", b"changed again");
            let next = bench.backup();
            history.0.push((next.snapshot, tree(&bench.node())));
            settle(&bench, &history, &what);
        }
    }
}

/// A backup that began before the rewriting and ends long after it keeps what it builds on.
#[test]
fn a_rewriting_at_every_step_of_a_backup_takes_nothing_from_it() {
    for point in of_a_backup() {
        let (bench, mut history) = scene();
        let (location, warden) = (bench.vault.location().clone(), bench.actor("warden"));
        let control = at(point, 1, move || {
            rewrite_of(&location, &warden, &super::control()).unwrap();
            // Without any patience: what was replaced goes at once, if nobody needs it.
            prune_of(&location, &warden, Duration::ZERO, &super::control()).unwrap();
        });
        bench.write("plain", b"changed");
        let report = bench.backup_as("alice", &BackupOptions::default(), &control).unwrap();
        history.0.push((report.snapshot, tree(&bench.node())));
        assert_eq!(history.assert_visible(&bench, point.name()).len(), 3, "{}", point.name());
        assert!(report.bytes_stored < 100_000, "it was an increment: {}", report.bytes_stored);
        settle(&bench, &history, point.name());
    }
}
