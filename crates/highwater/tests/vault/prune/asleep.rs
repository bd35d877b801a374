//! Machines that sleep for days at the worst place, answers that are lost, clocks that were set back:
//! nobody deletes what somebody else has built on since.

use super::*;

/// Every object below a vault, or a folder of it, is so many hours older.
fn age_below(dir: &Path, hours: u32) {
    for path in walk(dir) {
        let file = fs::File::options().write(true).open(&path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_modified(modified - HOUR * hours).unwrap();
    }
}

fn root(bench: &Bench) -> PathBuf {
    bench.dir.path().join("vault")
}

/// Fails at a step, as an answer of the store that was lost does.
struct Fails(FaultPoint);

impl Faults for Fails {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        if point == self.0 { Err(Error::unavailable("a fault")) } else { Ok(()) }
    }
}

#[test]
fn a_backup_that_fails_anywhere_leaves_whole_snapshots() {
    for point in of_a_backup() {
        let (bench, mut history) = scene();
        change(&bench, 30);
        let control = Control::new(env().with_faults(Fails(point)));
        let failed = bench.backup_as("alice", &BackupOptions::default(), &control);
        assert_eq!(kind(failed), Kind::Unavailable, "{}", point.name());
        let visible = bench.vault.snapshots(None).unwrap();
        // Where the manifest was put it is there, whatever the backup was told.
        if visible.len() > 2 {
            history.0.push((visible[2].manifest.snapshot, tree(&bench.node())));
        }
        history.assert_visible(&bench, point.name());
        change(&bench, 31);
        history.take(&bench, 31);
        age(&bench, 49);
        prune_now(&bench, HOUR * 48).unwrap();
        history.assert_visible(&bench, point.name());
        assert_no_garbage(&bench, point.name());
    }
}

/// A backup sleeps after its manifest was put. It is taken for dead, the node for another writer's, who
/// builds on what was put.
#[test]
fn a_backup_that_wakes_takes_nothing_from_who_has_built_on_it() {
    let (bench, mut history) = scene();
    change(&bench, 30);
    let first = tree(&bench.node());
    let (location, node, name) = (bench.vault.location().clone(), bench.node(), bench.name());
    let (root, warden, bob) = (root(&bench), bench.actor("warden"), bench.actor("bob"));
    let told = Arc::new(Mutex::new(None));
    let tells = Arc::clone(&told);
    let control = at(FaultPoint::BackupSecondLook, 1, move || {
        age_below(&root, 30);
        prune_of(&location, &warden, HOUR * 48, &super::control()).unwrap();
        let vault = Vault::open_with(&location, &key(1), &env()).unwrap();
        vault.take_over(&name, &bob, "it is gone").unwrap();
        fs::write(node.join("more"), b"more").unwrap();
        let mut options = BackupOptions::default();
        options.node = Some(name.clone());
        let report = backup::run(&vault, &node, &bob, &options, &super::control()).unwrap();
        *tells.lock().unwrap() = Some((report.parent.unwrap(), report.snapshot));
    });
    let woken = bench.backup_as("alice", &BackupOptions::default(), &control);
    assert_eq!(kind(woken), Kind::Fenced);
    let (slept, built) = told.lock().unwrap().take().unwrap();
    history.0.push((slept, first));
    history.0.push((built, tree(&bench.node())));
    assert_eq!(history.assert_visible(&bench, "woken")[2..], [slept, built]);
}

/// A rewriting sleeps after it has put a new generation, for so long that the old one is gone.
#[test]
fn a_rewriting_that_wakes_leaves_the_only_generation_there_is() {
    let (bench, history) = rewriting::scene();
    let (location, root, other) =
        (bench.vault.location().clone(), root(&bench), bench.actor("other"));
    let control = at(FaultPoint::RewriteSecondLook, 1, move || {
        age_below(&root, 60);
        assert_eq!(
            prune_of(&location, &other, HOUR * 48, &super::control()).unwrap().manifests,
            1,
            "the generation that was replaced"
        );
    });
    let woken = rewrite_of(bench.vault.location(), &bench.actor("warden"), &control);
    assert_eq!(kind(woken), Kind::Conflict);
    assert_eq!(history.assert_visible(&bench, "woken").len(), 2);
    rewriting::settle(&bench, &history, "settled");
    assert_eq!(history.assert_visible(&bench, "settled").len(), 2);
}

/// A rewriting sleeps before it puts a new generation, and a prune has given up its packs: what it then
/// puts replaces nothing.
#[test]
fn a_rewriting_that_comes_too_late_replaces_nothing() {
    let (bench, history) = rewriting::scene();
    let (location, root, other) =
        (bench.vault.location().clone(), root(&bench), bench.actor("other"));
    let control = at(FaultPoint::RewriteManifest, 1, move || {
        age_below(&root, 60);
        assert!(prune_of(&location, &other, HOUR * 48, &super::control()).unwrap().packs > 0);
    });
    let woken = rewrite_of(bench.vault.location(), &bench.actor("warden"), &control);
    assert_eq!(kind(woken), Kind::Conflict);
    assert_eq!(history.assert_visible(&bench, "woken").len(), 2);
    rewriting::settle(&bench, &history, "settled");
    assert_eq!(history.assert_visible(&bench, "settled").len(), 2);
}

/// While a prune sleeps its claim is removed as an old one's, and what it would delete is brought back.
#[test]
fn a_prune_that_wakes_without_its_claim_deletes_nothing() {
    for (point, count) in [(FaultPoint::PruneManifest, 1), (FaultPoint::PruneManifest, 2)] {
        let bench = Bench::new();
        let mut history = History(Vec::new());
        for fill in 1..5 {
            history.take(&bench, fill);
        }
        keep_last(&bench, 1);
        let root = root(&bench);
        let control = at(point, count, move || fs::remove_dir_all(root.join("trash")).unwrap());
        prune_of(bench.vault.location(), &bench.actor("warden"), Duration::ZERO, &control).unwrap();
        let visible = history.assert_visible(&bench, point.name());
        assert_eq!(visible.len() as u32, 5 - count, "{}", point.name());
    }
}

/// A clock that was set back makes the packs of a running backup look old.
#[test]
fn the_packs_of_a_running_backup_stay_whatever_their_age() {
    let (bench, mut history) = scene();
    let (location, root, warden) =
        (bench.vault.location().clone(), root(&bench), bench.actor("warden"));
    let control = at(FaultPoint::BackupManifest, 1, move || {
        age_below(&root.join("packs"), 60);
        prune_of(&location, &warden, HOUR * 48, &super::control()).unwrap();
    });
    change(&bench, 30);
    let report = bench.backup_as("alice", &BackupOptions::default(), &control).unwrap();
    history.0.push((report.snapshot, tree(&bench.node())));
    assert_eq!(history.assert_visible(&bench, "set back").len(), 3);
}

/// Two machines bring back two snapshots that were forgotten together.
#[test]
fn two_undos_at_once_bring_both_back() {
    let bench = Bench::new();
    let mut history = History(Vec::new());
    let all: Vec<SnapshotId> = (1..5).map(|fill| history.take(&bench, fill)).collect();
    keep_last(&bench, 1);
    let (location, other, second) =
        (bench.vault.location().clone(), bench.actor("other"), all[1].to_string());
    let control = at(FaultPoint::ForgetUndo, 1, move || {
        let vault = Vault::open_with(&location, &key(1), &env()).unwrap();
        forget::undo(&vault, &other, &second, &super::control()).unwrap();
    });
    let warden = bench.actor("warden");
    forget::undo(&bench.vault, &warden, &all[0].to_string(), &control).unwrap();
    assert_eq!(history.assert_visible(&bench, "both"), [all[0], all[1], all[3]]);
}

/// A snapshot that lacks a pack is not kept for others' sake.
#[test]
fn what_lacks_a_pack_is_no_snapshot_to_keep() {
    let bench = Bench::new();
    let mut history = History(Vec::new());
    let good = history.take(&bench, 1);
    let before = bench.objects("packs");
    let broken = history.take(&bench, 2);
    let own = bench.objects("packs").into_iter().find(|pack| !before.contains(pack)).unwrap();
    fs::remove_file(own).unwrap();
    let retention = Retention { last: 1, ..Retention::default() };
    let options = ForgetOptions::default().retention(retention);
    let plan = forget::plan(&bench.vault, &options).unwrap();
    assert!(plan.nodes[0].forget.is_empty(), "{plan:?}");
    assert!(
        plan.nodes[0].keep.iter().any(|keep| keep.snapshot == good && !keep.reasons.is_empty())
    );
    assert!(plan.warnings[0].contains(&broken.to_string()), "{plan:?}");
}

/// Damage of one pack stops the rewriting, not the prune.
#[test]
fn a_damaged_pack_does_not_keep_garbage() {
    let (bench, _) = scene();
    let visible = bench.vault.snapshots(None).unwrap();
    let pack = visible.last().unwrap().manifest.packs.last().unwrap().id.to_string();
    let path = bench.objects("packs").into_iter().find(|path| path.ends_with(&pack)).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 100..].fill(0);
    fs::write(&path, bytes).unwrap();
    let pruned = rewrite_of_all(&bench).unwrap();
    assert_eq!((pruned.manifests, pruned.rewritten.packs), (4, 0));
    fs::remove_file(&path).unwrap();
    assert_eq!(rewrite_of_all(&bench).unwrap(), Pruned::default());
}

fn rewrite_of_all(bench: &Bench) -> Result<Pruned> {
    rewrite_of(bench.vault.location(), &bench.actor("warden"), &control())
}

/// The name of a node whose snapshots are all forgotten is still that node's.
#[test]
fn nobody_slips_in_under_a_name_that_was_forgotten() {
    let bench = Bench::new();
    let mut history = History(Vec::new());
    let one = history.take(&bench, 1);
    forget_named(&bench, &[one], &control()).unwrap();
    let stranger = bench.dir.path().join("stranger");
    fs::create_dir(&stranger).unwrap();
    fs::write(stranger.join("file"), b"another one").unwrap();
    let mut options = BackupOptions::default();
    options.node = Some(bench.name());
    let alice = bench.actor("alice");
    let taken = backup::run(&bench.vault, &stranger, &alice, &options, &control());
    assert_eq!(kind(taken), Kind::Conflict);
    history.take(&bench, 2);
}

/// Changes a byte of the newest record of the node.
fn damage_record(bench: &Bench) {
    let record = bench.objects("nodes").pop().unwrap();
    let mut bytes = fs::read(&record).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&record, bytes).unwrap();
}

/// A damaged record of a node keeps what would have to be recorded, and nothing else.
#[test]
fn a_damaged_record_of_a_node_does_not_stop_a_prune() {
    let (bench, history) = scene();
    damage_record(&bench);
    let pruned = prune_now(&bench, HOUR * 48).unwrap();
    assert!(pruned.manifests >= 3, "{pruned:?}");
    for info in bench.vault.snapshots(None).unwrap() {
        let snapshot = info.manifest.snapshot;
        let (_, expected) = history.0.iter().find(|(known, _)| *known == snapshot).unwrap();
        bench.assert_restores(snapshot, expected);
    }
    // Nor does a policy go by it: a snapshot that failed its test might pass for a good one.
    let retention = Retention { last: 1, ..Retention::default() };
    let options = ForgetOptions::default().retention(retention);
    let plan = forget::plan(&bench.vault, &options).unwrap();
    assert!(plan.nodes.is_empty() && plan.warnings[0].contains("damaged"), "{plan:?}");
    let newest = bench.vault.snapshots(None).unwrap().pop().unwrap().manifest.snapshot;
    forget_named(&bench, &[newest], &control()).unwrap();
    age(&bench, 49);
    let options = PruneOptions::default();
    let plan = prune::plan(&bench.vault, &bench.actor("warden"), &options, &control()).unwrap();
    assert!(plan.manifests.is_empty() && plan.waiting.len() == 1, "{plan:?}");
    assert!(plan.warnings[0].contains("stays"), "{plan:?}");
}

/// What a damaged record in the trash says is not known: it may be a claim.
#[test]
fn nothing_is_brought_back_beside_a_record_that_cant_be_opened() {
    let (bench, history) = scene();
    let claim = bench.dir.path().join("vault/trash").join("77".repeat(16));
    fs::write(&claim, b"nonsense").unwrap();
    let undo = || {
        let id = history.0[0].0.to_string();
        forget::undo(&bench.vault, &bench.actor("warden"), &id, &control())
    };
    assert_eq!(kind(undo()), Kind::Corrupt);
    fs::remove_file(&claim).unwrap();
    undo().unwrap();
}

/// An object's time is that of its put, however long its writer slept before.
#[test]
fn a_tombstone_is_as_old_as_its_put() {
    let bench = Bench::new();
    let mut history = History(Vec::new());
    let one = history.take(&bench, 1);
    history.take(&bench, 2);
    let root = root(&bench);
    let slept = at(FaultPoint::LocalPutLink, 1, move || age_below(&root.join(".tmp"), 60));
    let vault = Vault::open_with(bench.vault.location(), &key(1), &slept.env).unwrap();
    let options = ForgetOptions::default().snapshots(vec![one.to_string()]);
    let plan = forget::plan(&vault, &options).unwrap();
    forget::run(&vault, &bench.actor("warden"), &plan, &control()).unwrap();
    assert_eq!(prune_now(&bench, HOUR * 48).unwrap().manifests, 0);
}

/// The owner of a node goes on, whatever of it was forgotten and pruned, and whatever failed.
#[test]
fn the_owner_goes_on_after_its_newest_snapshots_are_gone() {
    let bench = Bench::new();
    let mut history = History(Vec::new());
    let all: Vec<SnapshotId> = (1..5).map(|fill| history.take(&bench, fill)).collect();
    for gone in [3, 2] {
        forget_named(&bench, &[all[gone]], &control()).unwrap();
        age(&bench, 49);
        prune_now(&bench, HOUR * 48).unwrap();
        change(&bench, 40 + gone as u8);
        let control = Control::new(env().with_faults(Fails(FaultPoint::BackupManifest)));
        let failed = bench.backup_as("alice", &BackupOptions::default(), &control);
        assert_eq!(kind(failed), Kind::Unavailable);
    }
    history.take(&bench, 50);
}
