//! Prune beside backups of other machines, killed and interleaved at every write step: what is visible
//! is whole, and what is not needed goes in the end.

use std::sync::{Arc, Mutex};

use highwater::Control;
use highwater::Kind;
use highwater::env::{FaultPoint, Faults};
use highwater::vault::forget::{self, ForgetOptions, Forgot};
use highwater::vault::prune::{self, PruneOptions, Pruned, Rewriting};
use highwater::vault::retention::Retention;
use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// Every object of the vault is so many hours older, for the store's clock.
pub(super) fn age(bench: &Bench, hours: u32) {
    for path in bench.objects("") {
        let file = fs::File::options().write(true).open(&path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_modified(modified - HOUR * hours).unwrap();
    }
}

fn forget_named(bench: &Bench, snapshots: &[SnapshotId], control: &Control) -> Result<Forgot> {
    let snapshots = snapshots.iter().map(SnapshotId::to_string).collect();
    let options = ForgetOptions::default().snapshots(snapshots);
    let plan = forget::plan(&bench.vault, &options)?;
    forget::run(&bench.vault, &bench.actor("warden"), &plan, control)
}

pub(super) fn keep_last(bench: &Bench, last: u32) -> Vec<SnapshotId> {
    let retention = Retention { last, ..Retention::default() };
    let options = ForgetOptions::default().retention(retention);
    let plan = forget::plan(&bench.vault, &options).unwrap();
    forget::run(&bench.vault, &bench.actor("warden"), &plan, &control()).unwrap().snapshots
}

/// Packs of which anything at all is unneeded are rewritten.
fn rewriting() -> Option<Rewriting> {
    Some(Rewriting { unused_max: "0.1%".parse().unwrap(), bytes_max: u64::MAX })
}

pub(super) fn rewrite_of(location: &Location, actor: &Actor, control: &Control) -> Result<Pruned> {
    let vault = Vault::open_with(location, &key(1), &control.env)?;
    let options = PruneOptions::default().rewrite(rewriting());
    let plan = prune::plan(&vault, actor, &options, control)?;
    prune::run(&vault, actor, &plan, control)
}

/// A prune by another machine, which opens the vault for itself.
fn prune_of(
    location: &Location,
    actor: &Actor,
    grace: Duration,
    control: &Control,
) -> Result<Pruned> {
    let vault = Vault::open_with(location, &key(1), &control.env)?;
    let plan = prune::plan(&vault, actor, &PruneOptions::default().grace(grace), control)?;
    prune::run(&vault, actor, &plan, control)
}

pub(super) fn prune_now(bench: &Bench, grace: Duration) -> Result<Pruned> {
    prune_of(bench.vault.location(), &bench.actor("warden"), grace, &control())
}

/// What is visible restores to what it was.
struct History(Vec<(SnapshotId, Tree)>);

impl History {
    fn take(&mut self, bench: &Bench, fill: u8) -> SnapshotId {
        change(bench, fill);
        let snapshot = bench.backup().snapshot;
        self.0.push((snapshot, tree(&bench.node())));
        snapshot
    }

    fn assert_visible(&self, bench: &Bench, what: &str) -> Vec<SnapshotId> {
        let visible: Vec<SnapshotId> = bench
            .vault
            .snapshots(None)
            .unwrap()
            .iter()
            .map(|info| info.manifest.snapshot)
            .collect();
        for snapshot in &visible {
            let (_, expected) = self
                .0
                .iter()
                .find(|(known, _)| known == snapshot)
                .unwrap_or_else(|| panic!("{what}"));
            bench.assert_restores(*snapshot, expected);
        }
        let options = highwater::vault::CheckOptions::default().read_data(true);
        let report = highwater::vault::check(&bench.vault, &options, &control()).unwrap();
        assert!(report.ok, "{what}: {:?}", report.errors);
        visible
    }
}

/// Some pages of a page file, a plain file that no other snapshot has, and a large one that all have.
fn change(bench: &Bench, fill: u8) {
    let mut pages = page_file(1, 64);
    for page in 1..=usize::from(fill) % 40 {
        pages[page * 4096..][..4096].copy_from_slice(&noise(u64::from(fill), 4096));
    }
    bench.write("page.db", pages);
    bench.write("plain", noise(u64::from(fill), 30_000));
    bench.write("same", noise(7, 200_000));
}

/// The vault holds no more than what its visible snapshots need.
fn assert_no_garbage(bench: &Bench, what: &str) {
    for folder in ["trash", "intents", ".tmp"] {
        assert!(bench.objects(folder).is_empty(), "{what}: {folder}");
    }
    let infos = bench.vault.snapshots(None).unwrap();
    assert_eq!(bench.objects("snapshots").len(), infos.len(), "{what}");
    let mut needed: Vec<String> = infos
        .iter()
        .flat_map(|info| info.manifest.packs.iter().map(|pack| pack.id.to_string()))
        .collect();
    needed.sort();
    needed.dedup();
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut found: Vec<String> = bench.objects("packs").iter().map(name).collect();
    found.sort();
    assert_eq!(found, needed, "{what}");
}

/// Does something once, at the nth passage of a step, and may die there.
struct At {
    point: FaultPoint,
    left: Mutex<u32>,
    deed: Box<dyn Fn() + Send + Sync>,
    dies: bool,
}

impl Faults for At {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        if point != self.point {
            return Ok(());
        }
        let mut left = self.left.lock().unwrap();
        let due = *left == 1;
        *left = left.saturating_sub(1);
        drop(left);
        if due {
            (self.deed)();
            if self.dies {
                // Nothing that would follow an error is done: as if the process were killed.
                std::panic::panic_any(Killed);
            }
        }
        Ok(())
    }
}

struct Killed;

fn at(point: FaultPoint, count: u32, deed: impl Fn() + Send + Sync + 'static) -> Control {
    Control::new(env().with_faults(At {
        point,
        left: Mutex::new(count),
        deed: Box::new(deed),
        dies: false,
    }))
}

fn killed_at(point: FaultPoint, count: u32) -> Control {
    Control::new(env().with_faults(At {
        point,
        left: Mutex::new(count),
        deed: Box::new(|| {}),
        dies: true,
    }))
}

/// Whether the deed was cut short by [`killed_at`].
fn dies(deed: impl FnOnce()) -> bool {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(deed));
    std::panic::set_hook(hook);
    match ended {
        Ok(()) => false,
        Err(cause) if cause.is::<Killed>() => true,
        Err(cause) => std::panic::resume_unwind(cause),
    }
}

fn of_a_prune() -> impl Iterator<Item = FaultPoint> {
    let ours = |point: &FaultPoint| {
        ["forget.", "prune.", "rewrite."].iter().any(|prefix| point.name().starts_with(prefix))
    };
    FaultPoint::ALL.iter().copied().filter(ours)
}

fn of_a_backup() -> impl Iterator<Item = FaultPoint> {
    FaultPoint::ALL.iter().copied().filter(|point| point.name().starts_with("backup."))
}

/// A vault in which everything is to be done: forgotten snapshots that are old, a dead backup of
/// another writer with its packs, what a deposed writer has put.
fn scene() -> (Bench, History) {
    let bench = Bench::new();
    let mut history = History(Vec::new());
    history.take(&bench, 1);
    // A deposed writer's last snapshot.
    change(&bench, 9);
    let (location, node, bob) = (bench.vault.location().clone(), bench.name(), bench.actor("bob"));
    let control = at(FaultPoint::BackupManifest, 1, move || {
        Vault::open_with(&location, &key(1), &env())
            .unwrap()
            .take_over(&node, &bob, "test")
            .unwrap();
    });
    assert_eq!(kind(bench.backup_as("alice", &BackupOptions::default(), &control)), Kind::Fenced);
    bench.vault.take_over(&bench.name(), &bench.actor("alice"), "back").unwrap();
    for fill in 2..6 {
        history.take(&bench, fill);
    }
    // A backup that was killed with its packs stored.
    change(&bench, 8);
    let control = killed_at(FaultPoint::BackupManifest, 1);
    let killed = dies(|| {
        let _ = bench.backup_as("alice", &BackupOptions::default(), &control);
    });
    assert!(killed);
    assert_eq!(keep_last(&bench, 2).len(), 3);
    age(&bench, 49);
    (bench, history)
}

#[test]
fn all_that_nobody_needs_goes() {
    let (bench, history) = scene();
    let packs = bench.objects("packs").len();
    let pruned = prune_now(&bench, HOUR * 48).unwrap();
    assert_eq!(pruned.manifests, 4, "three that were forgotten, one behind the fence");
    assert_eq!(bench.objects("packs").len() as u64, packs as u64 - pruned.packs);
    assert_eq!(history.assert_visible(&bench, "pruned").len(), 2);
    assert_no_garbage(&bench, "pruned");
}

#[test]
fn a_prune_killed_anywhere_leaves_whole_snapshots_and_the_next_one_finishes() {
    for point in of_a_prune().filter(|point| point.name().starts_with("prune.")) {
        for count in 1.. {
            let what = format!("killed at {} ({count})", point.name());
            let (bench, history) = scene();
            let control = killed_at(point, count);
            let warden = bench.actor("warden");
            let killed = dies(|| {
                prune_of(bench.vault.location(), &warden, HOUR * 48, &control).unwrap();
            });
            if !killed {
                assert!(count > 1, "no prune passes {}", point.name());
                break;
            }
            assert_eq!(history.assert_visible(&bench, &what).len(), 2, "{what}");
            prune_now(&bench, HOUR * 48).unwrap();
            assert_eq!(history.assert_visible(&bench, &what).len(), 2, "{what}");
            assert_no_garbage(&bench, &what);
            if count >= 3 {
                break;
            }
        }
    }
}

/// A whole backup of another machine runs at each write step of a prune, on a snapshot that the prune
/// leaves and on one that it deletes.
#[test]
fn a_backup_at_every_step_of_a_prune_is_whole() {
    for point in of_a_prune().filter(|point| point.name().starts_with("prune.")) {
        for all in [false, true] {
            let what = format!("a backup at {}, all forgotten: {all}", point.name());
            let (bench, mut history) = scene();
            if all {
                let visible: Vec<SnapshotId> = history.assert_visible(&bench, &what);
                forget_named(&bench, &visible, &control()).unwrap();
            }
            let (vault, node) = (bench.vault.location().clone(), bench.node());
            let (alice, name) = (bench.actor("alice"), bench.name());
            change(&bench, 20);
            let made = Arc::new(Mutex::new(None));
            let told = Arc::clone(&made);
            let control = at(point, 1, move || {
                let vault = Vault::open_with(&vault, &key(1), &env()).unwrap();
                let mut options = BackupOptions::default();
                options.node = Some(name.clone());
                let report = backup::run(&vault, &node, &alice, &options, &super::control());
                *told.lock().unwrap() = Some(report.unwrap().snapshot);
            });
            let warden = bench.actor("warden");
            prune_of(bench.vault.location(), &warden, Duration::ZERO, &control).unwrap();
            let made = made.lock().unwrap().expect("the prune passes the step");
            history.0.push((made, tree(&bench.node())));
            let visible = history.assert_visible(&bench, &what);
            assert_eq!(visible.last(), Some(&made), "{what}");
            history.take(&bench, 21);
            age(&bench, 49);
            prune_now(&bench, Duration::ZERO).unwrap();
            history.assert_visible(&bench, &what);
            assert_no_garbage(&bench, &what);
        }
    }
}

/// Everything is forgotten and pruned, without any patience, at each write step of a backup.
#[test]
fn a_prune_at_every_step_of_a_backup_takes_nothing_from_it() {
    for point in of_a_backup() {
        for count in 1..=3 {
            let what = format!("a prune at {} ({count})", point.name());
            let (bench, mut history) = scene();
            let location = bench.vault.location().clone();
            let warden = bench.actor("warden");
            let passed = Arc::new(Mutex::new(false));
            let passes = Arc::clone(&passed);
            let control = at(point, count, move || {
                *passes.lock().unwrap() = true;
                let vault = Vault::open_with(&location, &key(1), &env()).unwrap();
                let all = vault.snapshots(None).unwrap();
                let snapshots = all.iter().map(|info| info.manifest.snapshot.to_string()).collect();
                let options = ForgetOptions::default().snapshots(snapshots);
                let plan = forget::plan(&vault, &options).unwrap();
                forget::run(&vault, &warden, &plan, &super::control()).unwrap();
                let pruned = prune_of(&location, &warden, Duration::ZERO, &super::control());
                pruned.unwrap();
            });
            change(&bench, 30);
            let report = bench.backup_as("alice", &BackupOptions::default(), &control).unwrap();
            history.0.push((report.snapshot, tree(&bench.node())));
            if !*passed.lock().unwrap() {
                assert!(count > 1, "no backup passes {}", point.name());
                break;
            }
            // What was committed before the prune looked was forgotten with the rest.
            let _ = forget::undo(
                &bench.vault,
                &bench.actor("warden"),
                &report.snapshot.to_string(),
                &super::control(),
            );
            assert_eq!(history.assert_visible(&bench, &what), [report.snapshot], "{what}");
            history.take(&bench, 31);
            age(&bench, 49);
            prune_now(&bench, Duration::ZERO).unwrap();
            assert_eq!(history.assert_visible(&bench, &what).len(), 2, "{what}");
            assert_no_garbage(&bench, &what);
        }
    }
}

/// The machine slept for days between the last look at its intent and the manifest.
#[test]
fn a_backup_that_was_taken_for_dead_takes_its_manifest_back() {
    let (bench, history) = scene();
    let location = bench.vault.location().clone();
    let root = bench.dir.path().join("vault");
    let warden = bench.actor("warden");
    let control = at(FaultPoint::BackupManifest, 1, move || {
        for path in walk(&root) {
            let file = fs::File::options().write(true).open(&path).unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            file.set_modified(modified - HOUR * 60).unwrap();
        }
        prune_of(&location, &warden, HOUR * 48, &super::control()).unwrap();
    });
    change(&bench, 30);
    let error = bench.backup_as("alice", &BackupOptions::default(), &control).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert_eq!(history.assert_visible(&bench, "taken back").len(), 2);
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

/// At each step of an undo a prune runs, and at each step of a prune an undo.
#[test]
fn what_is_brought_back_beside_a_prune_is_whole_or_refused() {
    let undo = |location: &Location, actor: &Actor, snapshot: SnapshotId, control: &Control| {
        let vault = Vault::open_with(location, &key(1), &env())?;
        forget::undo(&vault, actor, &snapshot.to_string(), control)
    };
    for point in of_a_prune().filter(|point| point.name().starts_with("prune.")) {
        for which in 0..3 {
            let what = format!("an undo of {which} at {}", point.name());
            let (bench, history) = scene();
            let (location, snapshot) = (bench.vault.location().clone(), history.0[which].0);
            let other = bench.actor("other");
            let told = Arc::new(Mutex::new(None));
            let tells = Arc::clone(&told);
            let control = at(point, 1, move || {
                let back = undo(&location, &other, snapshot, &super::control());
                *tells.lock().unwrap() = Some(back.map_err(|error| error.kind()));
            });
            let warden = bench.actor("warden");
            prune_of(bench.vault.location(), &warden, HOUR * 48, &control).unwrap();
            let visible = history.assert_visible(&bench, &what);
            let back = told.lock().unwrap().take().expect("the prune passes the step");
            assert_eq!(back.is_ok(), visible.contains(&snapshot), "{what}: {back:?}");
            prune_now(&bench, Duration::ZERO).unwrap();
            history.assert_visible(&bench, &what);
        }
    }
    let (bench, history) = scene();
    let (location, warden) = (bench.vault.location().clone(), bench.actor("warden"));
    let snapshot = history.0[0].0;
    let control = at(FaultPoint::ForgetUndo, 1, move || {
        prune_of(&location, &warden, HOUR * 48, &super::control()).unwrap();
    });
    let back = undo(bench.vault.location(), &bench.actor("other"), snapshot, &control);
    let visible = history.assert_visible(&bench, "a prune within an undo");
    assert_eq!(back.is_ok(), visible.contains(&snapshot), "{back:?}");
}

/// The undo has begun before the prune claims, and ends when the prune has decided and deleted nothing.
#[test]
fn an_undo_that_comes_between_is_taken_back() {
    let (bench, history) = scene();
    let snapshot = history.0[0].0;
    let location = bench.vault.location().clone();
    let (warden, other) = (bench.actor("warden"), bench.actor("other"));
    let (begin, begun) = std::sync::mpsc::channel();
    let (decide, decided) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel();
    let (decided, ended) = (Mutex::new(decided), Mutex::new(ended));
    let pruned = std::thread::scope(|scope| {
        let (vault, actor) = (&location, &warden);
        let prunes = scope.spawn(move || {
            begun.recv().unwrap();
            let control = at(FaultPoint::PruneManifest, 1, move || {
                decide.send(()).unwrap();
                ended.lock().unwrap().recv().unwrap();
            });
            prune_of(vault, actor, HOUR * 48, &control)
        });
        let control = at(FaultPoint::ForgetUndo, 1, move || {
            begin.send(()).unwrap();
            decided.lock().unwrap().recv().unwrap();
        });
        let vault = Vault::open_with(&location, &key(1), &env()).unwrap();
        let back = forget::undo(&vault, &other, &snapshot.to_string(), &control);
        assert_eq!(kind(back), Kind::Conflict);
        assert!(
            !vault.snapshots(None).unwrap().iter().any(|info| info.manifest.snapshot == snapshot)
        );
        end.send(()).unwrap();
        prunes.join().unwrap()
    });
    assert_eq!(pruned.unwrap().manifests, 4);
    assert_eq!(history.assert_visible(&bench, "taken back").len(), 2);
    prune_now(&bench, HOUR * 48).unwrap();
    assert_no_garbage(&bench, "taken back");
}

/// A tombstone that comes of age while a prune is at work waits for the next one: no undo would see that
/// its snapshot is being deleted.
#[test]
fn what_was_not_claimed_is_not_deleted() {
    let (bench, history) = scene();
    let late = history.0[3].0;
    forget_named(&bench, &[late], &control()).unwrap();
    let tombstones = bench.objects("trash");
    let control = at(FaultPoint::PruneSurvey, 1, move || {
        for path in &tombstones {
            let file = fs::File::options().write(true).open(path).unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            file.set_modified(modified - HOUR * 60).unwrap();
        }
    });
    let warden = bench.actor("warden");
    let pruned = prune_of(bench.vault.location(), &warden, HOUR * 48, &control).unwrap();
    assert_eq!(pruned.manifests, 4, "not the one that was forgotten just now");
    let back = forget::undo(&bench.vault, &warden, &late.to_string(), &super::control());
    assert_eq!(back.unwrap(), late);
    assert_eq!(history.assert_visible(&bench, "brought back").len(), 2);
}

/// Two prunes of two machines, the second one at each step of the first.
#[test]
fn two_prunes_at_once_are_one() {
    for point in of_a_prune().filter(|point| point.name().starts_with("prune.")) {
        let what = format!("a second prune at {}", point.name());
        let (bench, history) = scene();
        let (location, other) = (bench.vault.location().clone(), bench.actor("other"));
        let control = at(point, 1, move || {
            prune_of(&location, &other, HOUR * 48, &super::control()).unwrap();
        });
        prune_of(bench.vault.location(), &bench.actor("warden"), HOUR * 48, &control).unwrap();
        assert_eq!(history.assert_visible(&bench, &what).len(), 2, "{what}");
        prune_now(&bench, HOUR * 48).unwrap();
        assert_no_garbage(&bench, &what);
    }
    // Of one user on one machine there is only one.
    let (bench, _) = scene();
    let (location, warden) = (bench.vault.location().clone(), bench.actor("warden"));
    let control = at(FaultPoint::PruneSurvey, 1, move || {
        assert_eq!(kind(prune_of(&location, &warden, HOUR, &super::control())), Kind::Conflict);
    });
    prune_of(bench.vault.location(), &bench.actor("warden"), HOUR * 48, &control).unwrap();
}

#[test]
fn a_manifest_that_cant_be_opened_stops_a_prune_until_it_is_given_up() {
    let (bench, mut history) = scene();
    let newest = history.0.last().unwrap().0;
    let damaged = bench
        .objects("snapshots")
        .into_iter()
        .find(|path| path.to_str().unwrap().contains(&newest.to_string()))
        .unwrap();
    let mut bytes = fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let packs = bench.objects("packs");
    let error = prune_now(&bench, HOUR * 48).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.entry().unwrap().contains(&newest.to_string()), "{error}");
    assert!(error.hint().unwrap().contains("`forget::run`"), "{error}");
    assert_eq!(bench.objects("packs"), packs);
    assert_eq!(bench.objects("trash").len(), 3, "the claim was taken back");
    let backup = bench.backup_as("alice", &BackupOptions::default(), &control()).unwrap_err();
    assert!(backup.hint().unwrap().contains("`forget::run`"), "{backup}");

    forget_named(&bench, &[newest], &control()).unwrap();
    history.take(&bench, 7);
    assert_eq!(kind(prune_now(&bench, HOUR * 48)), Kind::Corrupt, "it may come back until then");
    age(&bench, 49);
    prune_now(&bench, HOUR * 48).unwrap();
    assert_eq!(history.assert_visible(&bench, "given up").len(), 2);
    assert_no_garbage(&bench, "given up");
}

/// A damaged tombstone has forgotten nothing; a prune says so and removes it.
#[test]
fn a_damaged_tombstone_hides_nothing() {
    let (bench, history) = scene();
    for tombstone in bench.objects("trash") {
        let mut bytes = fs::read(&tombstone).unwrap();
        bytes[60] ^= 1;
        fs::write(&tombstone, bytes).unwrap();
    }
    let vault = Vault::open_with(bench.vault.location(), &key(1), &env()).unwrap();
    assert_eq!(vault.snapshots(None).unwrap().len(), 5);
    let options = highwater::vault::CheckOptions::default();
    let report = highwater::vault::check(&vault, &options, &control()).unwrap();
    assert_eq!(report.errors.len(), 3, "{:?}", report.errors);
    let plan =
        prune::plan(&vault, &bench.actor("warden"), &PruneOptions::default(), &control()).unwrap();
    assert!(plan.warnings[0].contains("visible again"), "{:?}", plan.warnings);
    prune::run(&vault, &bench.actor("warden"), &plan, &control()).unwrap();
    assert_eq!(vault.snapshots(None).unwrap().len(), 5);
    for (snapshot, expected) in &history.0 {
        bench.assert_restores(*snapshot, expected);
    }
    assert!(bench.objects("trash").is_empty());
}

/// Whatever byte of a tombstone changes, a check names it, and nobody is kept from the snapshots.
#[test]
fn every_byte_of_a_tombstone_counts() {
    let bench = Bench::new();
    let mut history = History(Vec::new());
    let forgotten = history.take(&bench, 1);
    history.take(&bench, 2);
    forget_named(&bench, &[forgotten], &control()).unwrap();
    let tombstone = bench.objects("trash").remove(0);
    let sound = fs::read(&tombstone).unwrap();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&tombstone, bytes).unwrap();
        let vault = Vault::open_with(bench.vault.location(), &key(1), &env()).unwrap();
        assert_eq!(vault.snapshots(None).unwrap().len(), 2, "byte {at}");
        let options = highwater::vault::CheckOptions::default();
        let report = highwater::vault::check(&vault, &options, &control()).unwrap();
        assert!(tombstone.ends_with(&report.errors[0].entry), "byte {at}: {:?}", report.errors);
        if report.errors[0].problem.contains("newer") || report.errors[0].problem.contains("knows")
        {
            // It may be what a newer program deletes by: who writes stops.
            let pruned = prune_of(
                bench.vault.location(),
                &bench.actor("warden"),
                Duration::ZERO,
                &control(),
            );
            assert_eq!(kind(pruned), Kind::Input, "byte {at}");
            let backup = backup::run(
                &vault,
                &bench.node(),
                &bench.actor("alice"),
                &BackupOptions::default(),
                &control(),
            );
            assert_eq!(kind(backup), Kind::Input, "byte {at}");
        }
    }
}

/// What was forgotten does not make older state look like the newest: the marks still count.
#[test]
fn forgetting_the_newest_does_not_make_an_older_one_current() {
    let bench = Bench::new();
    change(&bench, 1);
    let marked = |height: u64| {
        let mut options = BackupOptions::default();
        options.marks.insert("height".to_owned(), height);
        options.guard = Some(highwater::ids::GuardKind::Databases);
        options
    };
    let old = bench.backup_with(&marked(5)).snapshot;
    change(&bench, 2);
    // Killed before the node's record knows of it.
    let control = killed_at(FaultPoint::BackupNodeRecord, 1);
    assert!(dies(|| {
        let _ = bench.backup_as("alice", &marked(9), &control);
    }));
    let newest = bench.vault.snapshots(None).unwrap().pop().unwrap().manifest.snapshot;
    for step in ["visible", "forgotten", "pruned"] {
        match step {
            "forgotten" => drop(forget_named(&bench, &[newest], &super::control()).unwrap()),
            "pruned" => {
                age(&bench, 49);
                assert_eq!(prune_now(&bench, HOUR * 48).unwrap().manifests, 1);
            }
            _ => {}
        }
        let away = bench.dir.path().join("away");
        let plan = restore::plan(&bench.vault, &away, &by_id(old)).unwrap();
        let reasons = plan.reasons.join("; ");
        assert!(reasons.contains("below the highest seen, 9"), "{step}: {reasons}");
    }
}

mod asleep;
mod rewriting;
mod sequences;
