//! A node that comes back is held back: its channels are marked in its own database, or its databases
//! are withheld; through the public API, with real databases.

mod belts;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater::Control;
use highwater::backup::BackupOptions;
use highwater::env::{Clock, Env, FaultPoint, Faults};
use highwater::guard::{
    self, Adapter, Arrival, Cause, ChannelRecord, Guard, GuardKind, GuardedStore, HeldState, Latch,
    Phase, Which,
};
use highwater::ids::{SnapshotId, Time};
use highwater::restore::{
    self, Outcome, RestoreOptions, RestorePlan, RestoreReport, RollbackOptions, Undo,
};
use highwater::{Backup, Error, Kind, Result};
use highwater_guard::{Channel, Opened, Ours, Policy, Report};
use rusqlite::Connection;

use super::{Bench, by_id, control, env, kind};

const DATABASE: &str = "channels.sqlite";

/// A node's channels, in SQLite.
struct Store(Connection);

impl Store {
    fn open(dir: &Path) -> Result<Store> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let wrong = |error| Error::unavailable("opening the channels").with_source(error);
        Connection::open_with_flags(dir.join(DATABASE), flags).map(Store).map_err(wrong)
    }

    fn names(&self, sql: &str) -> Vec<String> {
        let mut rows = self.0.prepare(sql).unwrap();
        let names = rows.query_map([], |row| row.get(0)).unwrap();
        names.map(rusqlite::Result::unwrap).collect()
    }
}

impl GuardedStore for Store {
    fn channels(&mut self) -> Result<Vec<ChannelRecord>> {
        let mut rows = self.0.prepare("select id, phase, signed from channels").unwrap();
        let rows = rows.query_map([], |row| {
            let phase = match row.get::<_, String>(1)?.as_str() {
                "funding" => Phase::Funding,
                "open" => Phase::Open,
                _ => Phase::Closed,
            };
            let signed: u32 = row.get(2)?;
            let ours = Ours { signed: Some(signed.into()), ..Ours::default() };
            Ok(ChannelRecord { id: row.get(0)?, phase, ours })
        });
        Ok(rows.unwrap().map(rusqlite::Result::unwrap).collect())
    }

    fn mark_stale(&mut self, id: &str) -> Result<()> {
        self.0.execute("update channels set stale = 1 where id = ?1", [id]).unwrap();
        Ok(())
    }

    fn stale(&mut self) -> Result<Vec<String>> {
        Ok(self.names("select id from channels where stale order by id"))
    }
}

/// Opens the channels of the directory that it is given, and remembers it.
#[derive(Default)]
struct Honest(Mutex<Vec<PathBuf>>);

impl Adapter for Honest {
    fn open(&self, dir: &Path) -> Result<Box<dyn GuardedStore>> {
        self.0.lock().unwrap().push(dir.to_path_buf());
        Ok(Box::new(Store::open(dir)?))
    }
}

/// Sets the marks on a copy in memory.
struct Forgetful;

struct Unwritten(Store, BTreeSet<String>);

impl Adapter for Forgetful {
    fn open(&self, dir: &Path) -> Result<Box<dyn GuardedStore>> {
        Ok(Box::new(Unwritten(Store::open(dir)?, BTreeSet::new())))
    }
}

impl GuardedStore for Unwritten {
    fn channels(&mut self) -> Result<Vec<ChannelRecord>> {
        self.0.channels()
    }

    fn mark_stale(&mut self, id: &str) -> Result<()> {
        self.1.insert(id.to_owned());
        Ok(())
    }

    fn stale(&mut self) -> Result<Vec<String>> {
        Ok(self.1.iter().cloned().collect())
    }
}

/// Opens the node directory whatever directory it is given.
struct Elsewhere(PathBuf);

impl Adapter for Elsewhere {
    fn open(&self, _: &Path) -> Result<Box<dyn GuardedStore>> {
        Ok(Box::new(Store::open(&self.0)?))
    }
}

/// A node with a channel of each phase and several that could be punished.
fn make_node(bench: &Bench) {
    let database = Connection::open(bench.node().join(DATABASE)).unwrap();
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    database
        .execute_batch(
            "create table channels (id text, phase text, signed integer, stale integer default 0);
             insert into channels (id, phase, signed) values
                 ('new', 'funding', 1), ('one', 'open', 4), ('two', 'open', 7),
                 ('three', 'open', 9), ('gone', 'closed', 20)",
        )
        .unwrap();
    drop(database);
    bench.write("keys/seed", b"seed");
}

const OPEN: [&str; 3] = ["one", "three", "two"];

fn stale(dir: &Path) -> Vec<String> {
    Store::open(dir).unwrap().stale().unwrap()
}

fn move_on(dir: &Path) {
    Store::open(dir).unwrap().0.execute("update channels set signed = signed + 1", []).unwrap();
}

fn guarded(kind: GuardKind) -> BackupOptions {
    let mut options = BackupOptions::default();
    options.guard = Some(kind);
    options
}

fn marked(height: u64) -> BackupOptions {
    let mut options = BackupOptions::default();
    options.marks.insert("height".to_owned(), height);
    options
}

fn plan(
    bench: &Bench,
    snapshot: SnapshotId,
    target: &Path,
    adapter: Option<Arc<dyn Adapter>>,
) -> RestorePlan {
    restore::plan(&bench.vault, target, &over(snapshot, adapter)).unwrap()
}

/// A restore of a snapshot in place of what the target holds.
fn over(snapshot: SnapshotId, adapter: Option<Arc<dyn Adapter>>) -> RestoreOptions {
    let mut options = by_id(snapshot);
    options.force = true;
    options.adapter = adapter;
    options
}

fn restore_with(
    bench: &Bench,
    snapshot: SnapshotId,
    target: &Path,
    adapter: Option<Arc<dyn Adapter>>,
    control: &Control,
) -> Result<RestoreReport> {
    let options = over(snapshot, adapter.clone());
    restore::run(&bench.vault, &plan(bench, snapshot, target, adapter), &options, control)
}

/// A bench whose node was backed up, and has moved on since.
fn overtaken(options: &BackupOptions) -> (Bench, SnapshotId) {
    let bench = Bench::new();
    make_node(&bench);
    let snapshot = bench.backup_with(options).snapshot;
    move_on(&bench.node());
    (bench, snapshot)
}

fn signed(dir: &Path) -> u64 {
    let row = "select signed from channels where id = 'one'";
    let signed: u32 = Store::open(dir).unwrap().0.query_row(row, [], |row| row.get(0)).unwrap();
    signed.into()
}

/// A rollback of a node whose database this adapter opens.
fn undo(undo: Undo, adapter: Option<&Arc<dyn Adapter>>) -> RollbackOptions {
    RollbackOptions::default().undo(undo).adapter(adapter.cloned())
}

#[test]
fn what_could_be_punished_is_marked_in_what_becomes_the_node() {
    let (bench, snapshot) = overtaken(&BackupOptions::default());
    let honest = Arc::new(Honest::default());
    let plan = plan(&bench, snapshot, &bench.node(), Some(honest.clone()));
    assert_eq!(plan.hold, Some(GuardKind::Channels));
    let options = over(snapshot, Some(honest.clone()));
    let report = restore::run(&bench.vault, &plan, &options, &control()).unwrap();
    assert_eq!(report.quarantined, 3);
    assert_eq!(
        (stale(&bench.node()), signed(&bench.node())),
        (OPEN.map(str::to_owned).to_vec(), 4)
    );
    // Not in the directory that was renamed away.
    let kept = report.kept.unwrap();
    assert_eq!((stale(&kept), signed(&kept)), (Vec::new(), 5));
    // Marked, and read back, in the one staging directory; read back again where the node is.
    let opened = [&plan.staging, &plan.staging, &plan.target];
    assert!(honest.0.lock().unwrap().iter().eq(opened));

    let latch = Latch::read(&bench.node()).unwrap().unwrap();
    assert_eq!(
        (latch.kind, latch.cause, latch.listed),
        (GuardKind::Channels, Cause::Restore, true)
    );
    assert_eq!((latch.snapshot, latch.node), (Some(snapshot), bench.name()));
    assert_eq!(latch.channels.keys().collect::<Vec<_>>(), OPEN);
    assert_eq!(latch.channels["two"].ours.unwrap().signed, Some(7));
    let held = guard::list(&bench.node()).unwrap();
    assert!(held.iter().all(|held| held.state == HeldState::Waiting), "{held:?}");
    // Found again by a node that starts, and starts once more.
    assert_eq!(stale(&bench.node()), OPEN);
}

#[test]
fn a_mark_that_is_not_written_is_found_before_the_node_is_exchanged() {
    let (bench, snapshot) = overtaken(&BackupOptions::default());
    let restored =
        restore_with(&bench, snapshot, &bench.node(), Some(Arc::new(Forgetful)), &control());
    let error = restored.unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Corrupt, Some("one")), "{error}");
    assert_eq!((signed(&bench.node()), Latch::read(&bench.node()).unwrap()), (5, None));
    assert!(!bench.dir.path().join(".highwater-node").exists());
}

#[test]
fn a_mark_that_went_elsewhere_withholds_the_databases_there_and_then() {
    let (bench, snapshot) = overtaken(&BackupOptions::default());
    let node = bench.node();
    let lost = Arc::new(Elsewhere(node.clone()));
    let error = restore_with(&bench, snapshot, &node, Some(lost), &control()).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Corrupt, Some("one")), "{error}");
    assert!(error.message().contains("its databases are withheld"), "{error}");
    assert!(node.join(DATABASE).is_dir());
    assert!(Store::open(&node).is_err());
    let states: Vec<HeldState> =
        guard::list(&node).unwrap().into_iter().map(|held| held.state).collect();
    assert_eq!(states[0], HeldState::Withheld);
    assert_eq!(kind(guard::wait(&node, Some(Duration::ZERO), &control())), Kind::Quarantined);
    let honest: Arc<dyn Adapter> = Arc::new(Honest::default());
    assert_eq!(
        restore::rollback_by(&node, &undo(Undo::Restore, Some(&honest)), &control()).unwrap(),
        Outcome::Old
    );
    assert_eq!((stale(&node), signed(&node)), (OPEN.map(str::to_owned).to_vec(), 5));
}

#[test]
fn a_rollback_marks_the_older_node_too() {
    let (bench, snapshot) = overtaken(&guarded(GuardKind::Channels));
    let node = bench.node();
    let honest: Arc<dyn Adapter> = Arc::new(Honest::default());
    restore_with(&bench, snapshot, &node, Some(honest.clone()), &control()).unwrap();
    move_on(&node);
    assert_eq!(
        restore::rollback_by(&node, &undo(Undo::Restore, Some(&honest)), &control()).unwrap(),
        Outcome::Old
    );
    assert_eq!((stale(&node), signed(&node)), (OPEN.map(str::to_owned).to_vec(), 5));
    let latch = Latch::read(&node).unwrap().unwrap();
    assert_eq!((latch.cause, latch.channels.len()), (Cause::Rollback, 3));
    assert!(Latch::read(&bench.dir.path().join(".highwater-node/kept")).unwrap().is_some());

    // The rollback of the rollback, by a program that knows no adapter: the node finds the latch.
    assert_eq!(
        restore::rollback_by(&node, &undo(Undo::Rollback, None), &control()).unwrap(),
        Outcome::New
    );
    let latch = Latch::read(&node).unwrap().unwrap();
    assert!(!latch.listed && latch.channels.is_empty());
    let held = guard::list(&node).unwrap();
    assert_eq!((held[0].id.as_str(), held[0].state), ("node", HeldState::Waiting));
}

#[test]
fn a_rollback_is_no_statement_that_the_original_of_a_restored_copy_is_gone() {
    let (bench, snapshot) = overtaken(&guarded(GuardKind::Channels));
    let copy = bench.dir.path().join("copy");
    restore_with(&bench, snapshot, &copy, None, &control()).unwrap();
    restore_with(&bench, snapshot, &copy, None, &control()).unwrap();
    assert_eq!(restore::rollback(&copy, &control()).unwrap(), Outcome::Old);
    // The original lives: the word of a peer clears no channel of the copy.
    let guard = open_without_witness(&copy);
    let mut held = guard.admit(arrivals(), |_| Ok(())).unwrap().held;
    let (id, mut one) = held.swap_remove(0);
    one.hear(Report { revocations_held: 0, signatures_taken: 0 });
    assert!(matches!(guard.settle(&id, one, || Ok(())).unwrap(), Opened::Held(_)));
}

#[test]
fn a_node_that_embeds_the_library_is_held_until_it_has_listed_its_channels() {
    let (bench, snapshot) = overtaken(&guarded(GuardKind::Channels));
    let target = bench.dir.path().join("target");
    let report = restore_with(&bench, snapshot, &target, None, &control()).unwrap();
    assert_eq!(report.quarantined, 1);
    assert!(Store::open(&target).is_ok());
    let held = guard::list(&target).unwrap();
    assert_eq!((held.len(), held[0].id.as_str(), held[0].state), (1, "node", HeldState::Waiting));
    let lost = guard::release(&target, &Which::Channel("two".to_owned()), "why", "me", &control());
    assert!(lost.unwrap_err().remedies().contains(&highwater::Remedy::GuardReleaseAll));
    let held = guard::release(&target, &Which::All, "the original is dead", "me", &control());
    assert_eq!(held.unwrap()[0].state, HeldState::Released);
    let latch = Latch::read(&target).unwrap().unwrap();
    assert_eq!(latch.release.as_ref().unwrap().reason, "the original is dead");
    assert!(latch.released("any that it will list").is_some());
    guard::wait(&target, None, &control()).unwrap();
}

/// A node with a RocksDB, a SQLite with a log, and a bbolt.
fn make_databases(bench: &Bench) {
    let node = bench.node();
    let mut options = rust_rocksdb::Options::default();
    options.create_if_missing(true);
    let rocks = rust_rocksdb::DB::open(&options, node.join("store")).unwrap();
    rocks.put(b"key", b"value").unwrap();
    drop(rocks);
    let sql = Connection::open(node.join("wallet.sqlite")).unwrap();
    sql.execute_batch("create table t (x); insert into t values (1)").unwrap();
    drop(sql);
    bench.write("pages.db", super::page_file(1, 2));
    bench.write("keys/seed", b"seed");
}

const PARTS: [&str; 3] = ["pages.db", "store", "wallet.sqlite"];

/// Whether RocksDB and SQLite open what a node would, on a copy: the failing start of an engine
/// leaves logs.
fn starts(dir: &Path) -> [bool; 2] {
    let scratch = super::scratch();
    let copy = scratch.path().join("copy");
    copy_tree(dir, &copy);
    let mut options = rust_rocksdb::Options::default();
    options.create_if_missing(true);
    let rocks = rust_rocksdb::DB::open(&options, copy.join("store"));
    let sql = Connection::open(copy.join("wallet.sqlite")).and_then(|sql| {
        sql.execute_batch("create table if not exists t (x); insert into t values (2)")
    });
    [rocks.is_ok(), sql.is_ok()]
}

fn copy_tree(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

fn states(dir: &Path) -> Vec<(String, HeldState)> {
    guard::list(dir).unwrap().into_iter().map(|held| (held.id, held.state)).collect()
}

fn withheld() -> Vec<(String, HeldState)> {
    PARTS.map(|part| (part.to_owned(), HeldState::Withheld)).to_vec()
}

#[test]
fn a_node_that_nobody_can_change_opens_nothing_until_its_release() {
    let bench = Bench::new();
    make_databases(&bench);
    let report = bench.backup_with(&guarded(GuardKind::Databases));
    let expected = super::tree(&bench.node());
    let target = bench.dir.path().join("target");
    let plan = plan(&bench, report.snapshot, &target, None);
    assert_eq!(plan.hold, Some(GuardKind::Databases));
    assert_eq!(plan.reasons, ["its backups ask for quarantine"]);
    let options = over(report.snapshot, None);
    assert_eq!(restore::run(&bench.vault, &plan, &options, &control()).unwrap().quarantined, 3);
    assert_eq!(starts(&target), [false, false]);
    for point in ["store/CURRENT", "wallet.sqlite", "pages.db"] {
        assert!(target.join(point).is_dir(), "{point} is withheld, not absent");
    }
    assert_eq!(states(&target), withheld());
    let backup = Backup::of(&target).node(bench.name()).run(&bench.vault, &bench.actor("alice"));
    assert_eq!(kind(backup), Kind::Quarantined);

    let release =
        |which: &Which, reason: &str| guard::release(&target, which, reason, "me", &control());
    assert_eq!(kind(release(&Which::All, " ")), Kind::Input);
    let unknown = release(&Which::Channel("other".to_owned()), "why").unwrap_err();
    assert_eq!(unknown.kind(), Kind::NotFound);
    assert!(PARTS.iter().all(|part| unknown.hint().unwrap().contains(part)), "{unknown:?}");
    let one = release(&Which::Channel("store".to_owned()), "it is a cache").unwrap();
    let state = |part: &str| one.iter().find(|held| held.id == part).unwrap().state;
    assert_eq!(PARTS.map(state), [HeldState::Withheld, HeldState::Released, HeldState::Withheld]);
    assert_eq!(states(&target)[2], ("store".to_owned(), HeldState::Released));
    assert!(target.join("store/CURRENT").is_file() && target.join("wallet.sqlite").is_dir());

    let all = release(&Which::All, "the original is dead").unwrap();
    assert!(all.iter().all(|held| held.state == HeldState::Released), "{all:?}");
    assert_eq!(release(&Which::All, "again").unwrap(), []);
    assert_eq!(Latch::read(&target).unwrap(), None);
    super::assert_same(&super::tree(&target), &expected);
    assert_eq!(starts(&target), [true, true]);
    let record = fs::read_to_string(target.join(".highwater/quarantine.last.json")).unwrap();
    assert!(record.contains("the original is dead"), "{record}");
}

#[test]
fn a_rollback_withholds_a_node_that_may_have_been_overtaken() {
    let bench = Bench::new();
    make_databases(&bench);
    let snapshot = bench.backup_with(&guarded(GuardKind::Databases)).snapshot;
    let node = bench.node();
    let restore = || restore_with(&bench, snapshot, &node, None, &control()).unwrap();
    let rollback = || restore::rollback(&node, &control()).unwrap();
    let release = || guard::release(&node, &Which::All, "why", "me", &control()).unwrap();

    // Nothing has run on what was restored: the node is as it was left.
    restore();
    assert_eq!(rollback(), Outcome::Old);
    assert_eq!((states(&node), starts(&node)), (Vec::new(), [true, true]));

    // What was released may have run.
    restore();
    release();
    assert_eq!(starts(&node), [true, true]);
    assert_eq!(rollback(), Outcome::Old);
    assert_eq!((states(&node), starts(&node)), (withheld(), [false, false]));
    assert_eq!(Latch::read(&node).unwrap().unwrap().cause, Cause::Rollback);

    // And so may the one that comes back now, although the one it replaces can't have.
    assert_eq!(
        restore::rollback_by(&node, &undo(Undo::Rollback, None), &control()).unwrap(),
        Outcome::New
    );
    assert_eq!((states(&node), starts(&node)), (Vec::new(), [true, true]));
    assert_eq!(rollback(), Outcome::Old);
    assert_eq!(states(&node), withheld());
    release();
    assert_eq!(starts(&node), [true, true]);
}

#[test]
fn marks_below_the_highest_hold_a_node_back_and_say_by_how_much() {
    let bench = Bench::new();
    make_databases(&bench);
    let first = bench.backup_with(&BackupOptions::default()).snapshot;
    let second = bench.backup_with(&marked(101)).snapshot;
    let third = bench.backup_with(&marked(105)).snapshot;
    let target = |name: &str| bench.dir.path().join(name);

    let below = plan(&bench, second, &target("second"), None);
    assert_eq!(below.hold, Some(GuardKind::Databases));
    let told = "mark `height` is 4 below the highest seen, 105";
    assert!(below.warnings.iter().any(|warning| warning == told), "{:?}", below.warnings);
    assert_eq!(below.reasons, [told]);
    assert_eq!(
        restore::run(&bench.vault, &below, &over(second, None), &control()).unwrap().quarantined,
        3
    );
    assert_eq!(starts(&target("second")), [false, false]);
    let held = guard::list(&target("second")).unwrap();
    assert!(held[0].reason.ends_with(told), "{held:?}");
    assert_eq!(Latch::read(&target("second")).unwrap().unwrap().marks["height"], 105);

    // A snapshot from before the marks; and the newest one.
    assert_eq!(plan(&bench, first, &target("first"), None).hold, Some(GuardKind::Databases));
    let report = restore_with(&bench, third, &target("third"), None, &control()).unwrap();
    assert_eq!((report.quarantined, states(&target("third"))), (0, Vec::new()));
    assert_eq!(starts(&target("third")), [true, true]);
    let without = bench.backup_with(&BackupOptions::default()).snapshot;
    assert_eq!(plan(&bench, without, &target("fourth"), None).hold, None);
}

#[test]
fn the_newest_that_is_left_is_not_the_newest_that_there_was() {
    let bench = Bench::new();
    make_databases(&bench);
    let left = bench.backup_with(&BackupOptions::default()).snapshot;
    bench.backup_with(&marked(105));
    let newest = bench.objects("snapshots").pop().unwrap();
    fs::remove_file(newest).unwrap();
    let plan = plan(&bench, left, &bench.dir.path().join("target"), None);
    assert_eq!(plan.hold, Some(GuardKind::Databases));
    assert_eq!(plan.reasons, ["mark `height` is not in this snapshot; the highest seen is 105"]);
}

/// Fails once the manifest is there.
struct CutShort;

impl Faults for CutShort {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        if point == FaultPoint::BackupNodeRecord {
            return Err(Error::unavailable("the power went"));
        }
        Ok(())
    }
}

#[test]
fn the_marks_of_a_snapshot_that_was_not_recorded_any_more_count_too() {
    let bench = Bench::new();
    make_databases(&bench);
    let older = bench.backup_with(&marked(5)).snapshot;
    let cut = Control::new(env().with_faults(CutShort));
    assert_eq!(kind(bench.backup_as("alice", &marked(105), &cut)), Kind::Unavailable);
    let plan = plan(&bench, older, &bench.dir.path().join("target"), None);
    assert_eq!(plan.hold, Some(GuardKind::Databases));
    assert_eq!(plan.reasons, ["mark `height` is 100 below the highest seen, 105"]);
}

#[test]
fn marks_that_can_not_be_read_hold_a_node_back() {
    let bench = Bench::new();
    make_databases(&bench);
    let snapshot = bench.backup_with(&marked(5)).snapshot;
    let record = bench.objects("nodes").pop().unwrap();
    let mut bytes = fs::read(&record).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::remove_file(&record).unwrap();
    fs::write(&record, bytes).unwrap();
    let target = bench.dir.path().join("target");
    let plan = plan(&bench, snapshot, &target, None);
    assert_eq!(plan.hold, Some(GuardKind::Databases));
    assert!(plan.reasons[0].contains("can't be read"), "{:?}", plan.reasons);
    assert_eq!(
        restore::run(&bench.vault, &plan, &over(snapshot, None), &control()).unwrap().quarantined,
        3
    );
}

#[test]
fn no_backup_forgets_that_the_node_is_guarded() {
    let bench = Bench::new();
    make_databases(&bench);
    let plain = bench.backup().snapshot;
    bench.backup_with(&guarded(GuardKind::Databases));
    let again = bench.backup().snapshot;
    let target = bench.dir.path().join("target");
    assert_eq!(plan(&bench, again, &target, None).hold, Some(GuardKind::Databases));
    let older = plan(&bench, plain, &target, None);
    assert_eq!(older.hold, Some(GuardKind::Databases));
    assert_eq!(older.reasons, ["later backups of the node ask for quarantine"]);
}

#[test]
fn a_latch_that_was_captured_is_not_taken_for_the_new_one() {
    let (bench, first) = overtaken(&guarded(GuardKind::Channels));
    let node = bench.node();
    let honest: Arc<dyn Adapter> = Arc::new(Honest::default());
    restore_with(&bench, first, &node, Some(honest.clone()), &control()).unwrap();
    Latch::update(&node, &env(), |latch| {
        let mut latch = latch.unwrap();
        let verdict = highwater_guard::Verdict::Blocked(highwater_guard::Reason::RevocationLost);
        latch.channels.get_mut("one").unwrap().verdict = Some(verdict);
        Ok(Some(latch))
    })
    .unwrap();
    guard::release(&node, &Which::Channel("two".to_owned()), "why", "me", &control()).unwrap();
    // A node with a latch is backed up, its latch with it.
    let second = bench.backup().snapshot;
    let target = bench.dir.path().join("target");
    restore_with(&bench, second, &target, Some(honest), &control()).unwrap();
    let latch = Latch::read(&target).unwrap().unwrap();
    assert_eq!((latch.snapshot, latch.channels.len()), (Some(second), 3));
    assert!(latch.channels["one"].verdict.is_some(), "what was condemned stays so");
    assert!(latch.channels["two"].release.is_none(), "a release was for the older directory");
}

/// A channel that is nothing but its numbers.
struct Numbers(Ours);

impl Channel for Numbers {
    type Claims = ();

    fn ours(&self) -> Ours {
        self.0
    }

    fn claims(&self) -> &() {
        &()
    }
}

fn open_without_witness(dir: &Path) -> Guard {
    Guard::open(dir, "node".parse().unwrap(), Policy::Peer, None, &control()).unwrap()
}

fn arrivals() -> Vec<Arrival<Numbers>> {
    let ours = Ours { signed: Some(0), ..Ours::default() };
    let arrival = |id: &str| Arrival { id: id.to_owned(), channel: Numbers(ours), stale: false };
    vec![arrival("one"), arrival("two")]
}

/// Which of two channels go on where the node in `dir` starts without a witness.
fn free_at_start(dir: &Path) -> Vec<String> {
    let admitted = open_without_witness(dir).admit(arrivals(), |_| Ok(())).unwrap();
    admitted.free.into_iter().map(|(id, _)| id).collect()
}

#[test]
fn a_release_that_was_carried_out_before_the_capture_lets_nothing_out_of_the_restored_copy() {
    let (bench, first) = overtaken(&guarded(GuardKind::Channels));
    let node = bench.node();
    restore_with(&bench, first, &node, None, &control()).unwrap();
    assert!(free_at_start(&node).is_empty());
    Latch::update(&node, &env(), |latch| {
        let mut latch = latch.unwrap();
        let verdict = highwater_guard::Verdict::Blocked(highwater_guard::Reason::RevocationLost);
        latch.channels.get_mut("one").unwrap().verdict = Some(verdict);
        Ok(Some(latch))
    })
    .unwrap();
    guard::release(&node, &Which::Channel("one".to_owned()), "why", "me", &control()).unwrap();
    // Carried out; the other channel keeps the latch.
    assert_eq!(free_at_start(&node), ["one"]);
    let second = bench.backup().snapshot;

    let target = bench.dir.path().join("target");
    restore_with(&bench, second, &target, None, &control()).unwrap();
    let latch = Latch::read(&target).unwrap().unwrap();
    assert_eq!(latch.channels["one"].past[0].reason, "why");
    assert!(free_at_start(&target).is_empty());
    // Nor out of the older directory that a rollback brings back.
    restore_with(&bench, second, &node, None, &control()).unwrap();
    assert_eq!(restore::rollback(&node, &control()).unwrap(), Outcome::Old);
    assert!(free_at_start(&node).is_empty());
}

#[test]
fn a_captured_latch_of_a_node_that_nobody_guards_stays_in_force() {
    let bench = Bench::new();
    make_node(&bench);
    let latch = include_str!("../fixtures/latch.json");
    let mut latch: Latch = serde_json::from_str(latch).unwrap();
    bench.backup();
    let file = std::fs::read(bench.node().join(".highwater/node.json")).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
    (latch.kind, latch.withheld) = (GuardKind::Channels, Vec::new());
    latch.uid = serde_json::from_value(file["uid"].clone()).unwrap();
    latch.write(&bench.node(), &env()).unwrap();
    let target = bench.dir.path().join("target");
    let snapshot = bench.backup().snapshot;
    let restored = restore_with(&bench, snapshot, &target, None, &control()).unwrap();
    assert_eq!(restored.quarantined, 1);
    // It is one of this restore now: what was condemned stays so, what was released is not.
    let found = Latch::read(&target).unwrap().unwrap();
    assert_eq!((found.kind, found.cause), (GuardKind::Channels, Cause::Restore));
    assert_eq!((found.listed, found.original_gone), (false, None));
    let condemned = &found.channels["one"];
    assert_eq!(condemned.verdict, latch.channels["one"].verdict);
    assert_eq!((&condemned.release, condemned.out), (&None, false));
    assert_eq!(found.marks["height"], 105);

    // What one that can't be read holds back can't be told: there is no capture without it.
    bench.write("highwater-quarantine.json", "{");
    let backup = bench.backup_as("alice", &BackupOptions::default(), &control());
    assert_eq!(kind(backup), Kind::Corrupt);
}

#[test]
fn one_part_alone_leaves_no_quarantine_behind() {
    let bench = Bench::new();
    make_databases(&bench);
    let plain = bench.backup().snapshot;
    let node = bench.node();
    let part = |part: &str, snapshot: SnapshotId| {
        let mut options = over(snapshot, None);
        options.part = Some(part.to_owned());
        restore::plan(&bench.vault, &node, &options).map(|plan| (plan, options))
    };
    let guarded = bench.backup_with(&guarded(GuardKind::Databases)).snapshot;
    restore_with(&bench, guarded, &node, None, &control()).unwrap();
    assert_eq!(kind(part("files", plain)), Kind::Quarantined);
    guard::release(&node, &Which::All, "why", "me", &control()).unwrap();
    let (plan, options) = part("wallet.sqlite", guarded).unwrap();
    restore::run(&bench.vault, &plan, &options, &control()).unwrap();
    assert_eq!((states(&node), starts(&node)), (withheld(), [false, false]));
}

#[test]
fn a_guarded_node_without_a_database_that_is_known_is_not_said_to_be_free() {
    let bench = Bench::new();
    bench.write("wallet.db", b"sealed by its own engine");
    let snapshot = bench.backup_with(&guarded(GuardKind::Databases)).snapshot;
    let target = bench.dir.path().join("target");
    let report = restore_with(&bench, snapshot, &target, None, &control()).unwrap();
    assert_eq!((report.quarantined, guard::list(&target).unwrap().len()), (1, 1));
    assert_eq!(report.warnings, [""; 0]);
    assert!(target.join("wallet.db").is_dir(), "its plain files are withheld");
    assert_eq!(
        kind(guard::wait_to_start(&target, Some(Duration::ZERO), &control())),
        Kind::Quarantined
    );
    guard::release(&target, &Which::All, "why", "me", &control()).unwrap();
    guard::wait_to_start(&target, None, &control()).unwrap();
    assert_eq!(fs::read(target.join("wallet.db")).unwrap(), b"sealed by its own engine");
}

/// What a killed process leaves: nothing runs after the fault.
struct KillAt {
    point: FaultPoint,
    left: AtomicUsize,
}

struct Killed;

impl Faults for KillAt {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        if point == self.point && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            panic_any(Killed);
        }
        Ok(())
    }
}

/// Runs `operation`, killed at the `count`th passage of `point`; whether it was.
fn killed(point: FaultPoint, count: usize, operation: impl FnOnce(&Control)) -> bool {
    let kill = KillAt { point, left: AtomicUsize::new(count) };
    let control = Control::new(env().with_faults(kill));
    match catch_unwind(AssertUnwindSafe(|| operation(&control))) {
        Ok(()) => false,
        Err(payload) if payload.is::<Killed>() => true,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// Calls `strike` for every passage of a guard's point until it is no longer passed, and tells which
/// points were.
fn at_every_step(mut strike: impl FnMut(FaultPoint, usize) -> bool) -> Vec<&'static str> {
    let mut passed = Vec::new();
    for &point in FaultPoint::ALL.iter().filter(|point| point.name().starts_with("guard.")) {
        for count in 1.. {
            assert!(count < 100, "{} is passed for ever", point.name());
            if !strike(point, count) {
                break;
            }
            if count == 1 {
                passed.push(point.name());
            }
        }
    }
    passed
}

#[test]
fn a_restore_that_marks_killed_anywhere_ends_old_or_marked() {
    let (bench, snapshot) = overtaken(&BackupOptions::default());
    let honest: Arc<dyn Adapter> = Arc::new(Honest::default());
    let (node, scratch) = (bench.dir.path().join("target"), super::scratch());
    let model = scratch.path().join("model");
    copy_tree(&bench.node(), &model);
    let passed = at_every_step(|point, count| {
        let what = format!("{} ({count})", point.name());
        for path in [&node, &bench.dir.path().join(".highwater-target")] {
            let _ = fs::remove_dir_all(path);
        }
        copy_tree(&model, &node);
        let was_killed = killed(point, count, |control| {
            restore_with(&bench, snapshot, &node, Some(honest.clone()), control).unwrap();
        });
        let outcome = restore::recover(&node, &control()).unwrap();
        if signed(&node) == 5 {
            assert!(was_killed && outcome == Outcome::Old, "{what}: {outcome:?}");
            assert_eq!((stale(&node), Latch::read(&node).unwrap()), (Vec::new(), None), "{what}");
            return true;
        }
        assert_eq!((stale(&node).len(), states(&node).len()), (3, 3), "{what}");
        was_killed
    });
    assert_eq!(passed, ["guard.mark", "guard.latch", "guard.read_back"]);
}

#[test]
fn a_restore_that_withholds_killed_anywhere_ends_old_or_withheld() {
    let bench = Bench::new();
    make_databases(&bench);
    let snapshot = bench.backup_with(&guarded(GuardKind::Databases)).snapshot;
    let target = bench.dir.path().join("target");
    let passed = at_every_step(|point, count| {
        let was_killed = killed(point, count, |control| {
            restore_with(&bench, snapshot, &target, None, control).unwrap();
        });
        restore::recover(&target, &control()).unwrap();
        assert_eq!(target.exists(), !was_killed, "{} ({count})", point.name());
        if target.exists() {
            assert_eq!((states(&target), starts(&target)), (withheld(), [false, false]));
            fs::remove_dir_all(&target).unwrap();
        }
        was_killed
    });
    assert_eq!(passed, ["guard.latch", "guard.withhold"]);
}

#[test]
fn a_rollback_killed_anywhere_leaves_nothing_that_starts_unmarked() {
    let (bench, snapshot) = overtaken(&guarded(GuardKind::Channels));
    let honest: Arc<dyn Adapter> = Arc::new(Honest::default());
    let node = bench.node();
    let passed = at_every_step(|point, count| {
        restore_with(&bench, snapshot, &node, Some(honest.clone()), &control()).unwrap();
        let was_killed = killed(point, count, |control| {
            restore::rollback_by(&node, &undo(Undo::Restore, Some(&honest)), control).unwrap();
        });
        restore::recover(&node, &control()).unwrap();
        if signed(&node) == 4 {
            assert_eq!(
                restore::rollback_by(&node, &undo(Undo::Restore, Some(&honest)), &control())
                    .unwrap(),
                Outcome::Old
            );
        }
        assert_eq!((signed(&node), stale(&node).len(), states(&node).len()), (5, 3, 3));
        assert_eq!(Latch::read(&node).unwrap().unwrap().cause, Cause::Rollback);
        was_killed
    });
    assert_eq!(passed, ["guard.mark", "guard.latch", "guard.read_back"]);
}

#[test]
fn a_rollback_that_withholds_is_finished_by_the_next_one() {
    let bench = Bench::new();
    make_databases(&bench);
    let snapshot = bench.backup_with(&guarded(GuardKind::Databases)).snapshot;
    let node = bench.node();
    let release = || guard::release(&node, &Which::All, "why", "me", &control()).unwrap();
    let passed = at_every_step(|point, count| {
        restore_with(&bench, snapshot, &node, None, &control()).unwrap();
        release();
        let was_killed = killed(point, count, |control| {
            restore::rollback(&node, control).unwrap();
        });
        restore::recover(&node, &control()).unwrap();
        if states(&node).is_empty() {
            assert!(was_killed, "{} ({count}) lets the older node go", point.name());
            assert_eq!(restore::rollback(&node, &control()).unwrap(), Outcome::Old);
        }
        assert_eq!((states(&node), starts(&node)), (withheld(), [false, false]));
        release();
        was_killed
    });
    assert_eq!(passed, ["guard.latch", "guard.withhold"]);
}

#[test]
fn a_release_killed_anywhere_is_finished_by_the_next_one() {
    let bench = Bench::new();
    make_databases(&bench);
    let snapshot = bench.backup_with(&guarded(GuardKind::Databases)).snapshot;
    let target = bench.dir.path().join("target");
    restore_with(&bench, snapshot, &target, None, &control()).unwrap();
    let again = bench.dir.path().join("again");
    let passed = at_every_step(|point, count| {
        copy_tree(&target, &again);
        let was_killed = killed(point, count, |control| {
            guard::release(&again, &Which::All, "why", "me", control).unwrap();
        });
        if was_killed {
            assert!(!guard::list(&again).unwrap().is_empty(), "{} ({count})", point.name());
            for point in ["store/CURRENT", "wallet.sqlite", "pages.db"] {
                assert!(again.join(point).exists(), "{point} is absent");
            }
            guard::release(&again, &Which::All, "again", "me", &control()).unwrap();
        }
        assert_eq!((states(&again), starts(&again)), (Vec::new(), [true, true]));
        fs::remove_dir_all(&again).unwrap();
        was_killed
    });
    assert_eq!(passed, ["guard.latch", "guard.release"]);
}

#[test]
fn an_owner_is_given_all_that_a_hold_writes() {
    use std::os::unix::fs::MetadataExt as _;
    let us = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let owner = if us.0 == 0 { (4711, 4712) } else { us };
    let (bench, snapshot) = overtaken(&guarded(GuardKind::Databases));
    let adapters: [Option<Arc<dyn Adapter>>; 2] = [None, Some(Arc::new(Littering))];
    for (number, adapter) in adapters.into_iter().enumerate() {
        let target = bench.dir.path().join(format!("target-{number}"));
        let plan = plan(&bench, snapshot, &target, adapter.clone());
        let mut options = over(snapshot, adapter);
        options.owner = Some(owner);
        restore::run(&bench.vault, &plan, &options, &control()).unwrap();
        let mut pending = vec![target.clone()];
        while let Some(path) = pending.pop() {
            let found = path.symlink_metadata().unwrap();
            assert_eq!((found.uid(), found.gid()), owner, "{}", path.display());
            if found.is_dir() {
                pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        let litter = target.join("litter");
        assert!(number == 0 || litter.metadata().unwrap().mode() & 0o077 == 0);
        let latch = target.join("highwater-quarantine.json").metadata().unwrap();
        assert_eq!(latch.mode() & 0o7777, 0o600);
    }
}

/// Leaves a file that everybody may read, each time it is opened.
struct Littering;

impl Adapter for Littering {
    fn open(&self, dir: &Path) -> Result<Box<dyn GuardedStore>> {
        use std::os::unix::fs::PermissionsExt as _;
        let litter = dir.join("litter");
        let _ = fs::remove_file(&litter);
        fs::write(&litter, b"a table").unwrap();
        fs::set_permissions(&litter, fs::Permissions::from_mode(0o644)).unwrap();
        Ok(Box::new(Store::open(dir)?))
    }
}

#[test]
fn a_node_whose_channels_were_marked_once_stays_guarded() {
    let (bench, snapshot) = overtaken(&BackupOptions::default());
    let node = bench.node();
    restore_with(&bench, snapshot, &node, Some(Arc::new(Honest::default())), &control()).unwrap();
    // The node has cleared all of them, and goes on.
    Latch::remove(&node).unwrap();
    move_on(&node);
    restore::rollback(&node, &control()).unwrap();
    assert_eq!(Latch::read(&node).unwrap().unwrap().kind, GuardKind::Channels);
    let report = restore_with(&bench, snapshot, &node, None, &control()).unwrap();
    assert_eq!(report.quarantined, 1);
}

#[test]
fn a_directory_that_is_not_there_lets_nothing_start() {
    let missing = Path::new("/nonexistent/node");
    assert_eq!(kind(guard::wait(missing, Some(Duration::ZERO), &control())), Kind::NotFound);
    let started = guard::wait_to_start(missing, None, &control());
    assert_eq!((kind(started), kind(guard::list(missing))), (Kind::NotFound, Kind::NotFound));
    assert_eq!(guard::standing(missing).unwrap(), None);
    let released = guard::release(missing, &Which::All, "why", "me", &control());
    assert_eq!(kind(released), Kind::NotFound);
}

/// Each pause passes at once; one of them releases.
struct Releasing {
    dir: PathBuf,
    now: Mutex<Duration>,
    release_at: Option<Duration>,
}

impl Clock for Releasing {
    fn now(&self) -> Time {
        Env::system().now()
    }

    fn monotonic(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    fn pause(&self, duration: Duration) {
        let mut now = self.now.lock().unwrap();
        *now += duration;
        if self.release_at.is_some_and(|at| at <= *now) {
            guard::release(&self.dir, &Which::All, "why", "me", &control()).unwrap();
        }
    }
}

#[test]
fn waiting_ends_with_the_release_or_the_time() {
    let (bench, snapshot) = overtaken(&guarded(GuardKind::Databases));
    let target = bench.dir.path().join("target");
    restore_with(&bench, snapshot, &target, None, &control()).unwrap();
    let waiting = |release_at: Option<u64>| {
        let release_at = release_at.map(Duration::from_secs);
        let clock = Releasing { dir: target.clone(), now: Mutex::default(), release_at };
        Control::new(Env::system().with_clock(clock))
    };
    let minute = Some(Duration::from_secs(60));
    let control = waiting(None);
    let error = guard::wait(&target, minute, &control).unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Quarantined, Some(DATABASE)));
    assert!(error.remedies().contains(&highwater::Remedy::GuardRelease));
    assert_eq!(control.env.monotonic(), Duration::from_secs(60));
    control.cancel.cancel();
    assert_eq!(kind(guard::wait(&target, None, &control)), Kind::Interrupted);
    let control = waiting(Some(20));
    guard::wait(&target, minute, &control).unwrap();
    assert_eq!(control.env.monotonic(), Duration::from_secs(20));
}
