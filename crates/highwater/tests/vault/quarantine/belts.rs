//! Two belts: the channels of a node that nobody can change are marked in its own database, a RocksDB, before that
//! is withheld; and the database comes back with the last of its channels.

use highwater::engine::rocksdb::{self, Rows};
use highwater_guard::{Basis, Verdict};

use super::*;

/// A node's channels in a RocksDB: `c/` and the name; phase, number, and `stale` where it is marked.
struct Rocks {
    store: PathBuf,
    /// Where its CURRENT waits.
    current: Option<PathBuf>,
}

impl Rocks {
    fn of(dir: &Path) -> Rocks {
        let latch = Latch::read(dir).unwrap();
        let withheld = latch.iter().flat_map(|latch| &latch.withheld);
        let waits = withheld.into_iter().find(|one| one.path.to_string() == "store/CURRENT");
        let current = waits.map(|one| one.place.under(dir));
        Rocks { store: dir.join("store"), current }
    }

    fn rows(&self) -> Result<Rows> {
        match &self.current {
            Some(current) => rocksdb::rows_withheld(&self.store, current, &[b"c/"]),
            None => rocksdb::rows(&self.store, &[b"c/"]),
        }
    }

    /// Name, phase, number and mark of each.
    fn all(&self) -> Result<Vec<(String, String, u64, bool)>> {
        let channel = |(key, value): (Vec<u8>, Vec<u8>)| {
            let (name, value) =
                (String::from_utf8(key).unwrap(), String::from_utf8(value).unwrap());
            let words: Vec<&str> = value.split(' ').collect();
            let name = name.strip_prefix("c/").unwrap().to_owned();
            (name, words[0].to_owned(), words[1].parse().unwrap(), words.len() > 2)
        };
        Ok(self.rows()?.into_iter().map(channel).collect())
    }

    fn value(&self, id: &str) -> Vec<u8> {
        self.rows().unwrap()[format!("c/{id}").as_bytes()].clone()
    }
}

impl GuardedStore for Rocks {
    fn channels(&mut self) -> Result<Vec<ChannelRecord>> {
        let channel = |(id, phase, signed, _): (String, String, u64, bool)| {
            let phase = match phase.as_str() {
                "funding" => Phase::Funding,
                "open" | "closing" => Phase::Open,
                _ => Phase::Closed,
            };
            ChannelRecord { id, phase, ours: Ours { signed: Some(signed), ..Ours::default() } }
        };
        Ok(self.all()?.into_iter().map(channel).collect())
    }

    fn has_mark(&mut self, id: &str) -> Result<bool> {
        Ok(self.value(id).starts_with(b"open "))
    }

    fn mark_stale(&mut self, id: &str) -> Result<()> {
        self.mark_all_stale(&[id.to_owned()])
    }

    fn mark_all_stale(&mut self, ids: &[String]) -> Result<()> {
        let marked = |id: &String| [&self.value(id)[..], b" stale"].concat();
        let puts: Vec<(Vec<u8>, Vec<u8>)> =
            ids.iter().map(|id| (format!("c/{id}").into_bytes(), marked(id))).collect();
        rocksdb::append(&self.store, &puts)
    }

    fn stale(&mut self) -> Result<Vec<String>> {
        let marked = self.all()?.into_iter().filter(|(.., marked)| *marked);
        Ok(marked.map(|(id, ..)| id).collect())
    }
}

/// How an adapter of these tests fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fails {
    Never,
    /// It does not know the database, of which it says so at once, or with the first mark.
    Unknown,
    UnknownMark,
    /// It does not write, or not the last mark.
    Unwritten,
    /// The disk is gone.
    Unavailable,
    /// It does not find what is withheld.
    Lost,
}

struct Belt(Fails);

struct Failing(Rocks, Fails);

impl Adapter for Belt {
    fn open(&self, dir: &Path) -> Result<Box<dyn GuardedStore>> {
        let mut rocks = Rocks::of(dir);
        match self.0 {
            Fails::Unknown => {
                return Err(Error::input("the store has a version that is not known"));
            }
            Fails::Lost => rocks.current = None,
            _ => {}
        }
        Ok(Box::new(Failing(rocks, self.0)))
    }
}

impl GuardedStore for Failing {
    fn channels(&mut self) -> Result<Vec<ChannelRecord>> {
        self.0.channels()
    }

    fn has_mark(&mut self, id: &str) -> Result<bool> {
        self.0.has_mark(id)
    }

    fn mark_stale(&mut self, id: &str) -> Result<()> {
        match self.1 {
            Fails::UnknownMark => Err(Error::input("the store is of a version without marks")),
            Fails::Unavailable => Err(Error::unavailable("the disk is gone")),
            Fails::Unwritten if id == "two" => Ok(()),
            _ => self.0.mark_stale(id),
        }
    }

    fn stale(&mut self) -> Result<Vec<String>> {
        self.0.stale()
    }
}

const CHANNELS: [(&str, &str); 5] = [
    ("c/closing", "closing 5"),
    ("c/gone", "closed 6"),
    ("c/new", "funding 1"),
    ("c/one", "open 4"),
    ("c/two", "open 7"),
];
/// Those that are held, and those of them that are marked.
const LISTED: [&str; 4] = ["closing", "new", "one", "two"];
const MARKED: [&str; 2] = ["one", "two"];
const WITHHELD: [&str; 2] = ["store", "wallet.sqlite"];

fn open(dir: &Path) -> rust_rocksdb::DB {
    let mut options = rust_rocksdb::Options::default();
    options.create_if_missing(true);
    rust_rocksdb::DB::open(&options, dir.join("store")).unwrap()
}

/// A node of which one part of the channels is in a table and the other in a log, and its first snapshot.
fn belted() -> (Bench, SnapshotId) {
    let bench = Bench::new();
    let node = bench.node();
    let rocks = open(&node);
    for (number, (key, value)) in CHANNELS.into_iter().enumerate() {
        rocks.put(key, value).unwrap();
        rocks.put(format!("other/{number}"), noise_of(number)).unwrap();
        if number == 3 {
            rocks.flush().unwrap();
        }
    }
    drop(rocks);
    let sql = Connection::open(node.join("wallet.sqlite")).unwrap();
    sql.execute_batch("create table t (x); insert into t values (1)").unwrap();
    drop(sql);
    bench.write("keys/seed", b"seed");
    let snapshot = bench.backup_with(&guarded(GuardKind::Databases)).snapshot;
    (bench, snapshot)
}

fn noise_of(number: usize) -> Vec<u8> {
    super::super::noise(number as u64, 3000)
}

fn restore_belted(
    bench: &Bench,
    snapshot: SnapshotId,
    target: &Path,
    fails: Fails,
    control: &Control,
) -> Result<RestoreReport> {
    let mut options = over(snapshot, None);
    options.second_belt = Some(Arc::new(Belt(fails)));
    let plan = restore::plan(&bench.vault, target, &options).unwrap();
    assert_eq!(plan.hold, Some(GuardKind::Databases));
    restore::run(&bench.vault, &plan, &options, control)
}

fn marked_in(dir: &Path) -> Vec<String> {
    Rocks::of(dir).stale().unwrap()
}

fn let_go(dir: &Path, name: &str) -> Result<Vec<guard::Held>> {
    guard::release(dir, &Which::Channel(name.to_owned()), "the peer says so", "me", &control())
}

/// Both databases are withheld, all channels are held, and those that have a mark are marked.
#[track_caller]
fn assert_belted(dir: &Path) {
    let expected: Vec<(String, HeldState)> = WITHHELD
        .map(|part| (part.to_owned(), HeldState::Withheld))
        .into_iter()
        .chain(LISTED.map(|id| (id.to_owned(), HeldState::Waiting)))
        .collect();
    assert_eq!(states(dir), expected);
    assert_eq!(starts(dir), [false, false]);
    assert_eq!(marked_in(dir), MARKED);
}

#[test]
fn channels_are_marked_in_what_is_withheld() {
    let (bench, snapshot) = belted();
    let target = bench.dir.path().join("target");
    let report = restore_belted(&bench, snapshot, &target, Fails::Never, &control()).unwrap();
    assert_eq!((report.quarantined, report.marked), (2, 2));
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    assert_belted(&target);
    let latch = Latch::read(&target).unwrap().unwrap();
    assert_eq!((latch.kind, latch.listed), (GuardKind::Databases, true));
    assert_eq!(latch.channels["two"].ours.unwrap().signed, Some(7));
    let unmarked = |id: &&str| latch.channels[*id].unmarked;
    assert_eq!(LISTED.iter().filter(|id| unmarked(id)).count(), 2);
    let reason = |id: &str| {
        let held = guard::list(&target).unwrap();
        held.into_iter().find(|held| held.id == id).unwrap().reason
    };
    assert!(reason("store").contains("comes back with its 4 channels"), "{}", reason("store"));
    assert!(reason("one").contains("marked stale in the node's own database"));
    assert!(reason("closing").contains("has no mark for the state"));
}

#[test]
fn a_database_comes_back_with_the_last_of_its_channels() {
    let (bench, snapshot) = belted();
    let target = bench.dir.path().join("target");
    restore_belted(&bench, snapshot, &target, Fails::Never, &control()).unwrap();
    for (at, id) in LISTED.into_iter().enumerate() {
        let refused = let_go(&target, "store").unwrap_err();
        assert_eq!((refused.kind(), refused.entry()), (Kind::Quarantined, Some("store")));
        let left =
            if at == 3 { "the channel two is".to_owned() } else { format!("{} channels", 4 - at) };
        assert!(refused.message().contains(&left), "{refused}");
        assert_eq!(starts(&target), [false, false]);
        let stands = let_go(&target, id).unwrap();
        let state = |id: &str| stands.iter().find(|held| held.id == id).unwrap().state;
        assert_eq!(state(id), HeldState::Released);
        let expected = if at == 3 { HeldState::Released } else { HeldState::Withheld };
        assert_eq!(WITHHELD.map(state), [expected; 2]);
    }
    assert_eq!(Latch::read(&target).unwrap(), None);
    let last = Latch::last(&target).unwrap().unwrap();
    assert_eq!(last.channels["new"].release.as_ref().unwrap().reason, "the peer says so");
    // Opened by RocksDB: marked, and all else as it was.
    let rocks = open(&target);
    for (key, value) in CHANNELS {
        let stale = if MARKED.contains(&&key[2..]) { " stale" } else { "" };
        let expected = format!("{value}{stale}");
        assert_eq!(rocks.get(key).unwrap().unwrap(), expected.as_bytes(), "{key}");
    }
    for number in 0..CHANNELS.len() {
        let found = rocks.get(format!("other/{number}")).unwrap().unwrap();
        assert!(found == noise_of(number), "other row {number}");
    }
}

#[test]
fn a_channel_that_is_clear_keeps_nothing_back() {
    let (bench, snapshot) = belted();
    let target = bench.dir.path().join("target");
    let clear = |but: &str| {
        restore_belted(&bench, snapshot, &target, Fails::Never, &control()).unwrap();
        Latch::update(&target, &env(), |latch| {
            let mut latch = latch.unwrap();
            for (_, recorded) in latch.channels.iter_mut().filter(|(id, _)| *id != but) {
                recorded.verdict = Some(Verdict::Clear(Basis::Witness));
            }
            Ok(Some(latch))
        })
        .unwrap();
    };
    clear("two");
    assert_eq!(kind(let_go(&target, "store")), Kind::Quarantined);
    let_go(&target, "two").unwrap();
    assert_eq!((Latch::read(&target).unwrap(), starts(&target)), (None, [true, true]));
    clear("none");
    let_go(&target, "store").unwrap();
    assert_eq!(starts(&target), [true, false]);
    guard::release(&target, &Which::All, "why", "me", &control()).unwrap();
    assert_eq!((Latch::read(&target).unwrap(), starts(&target)), (None, [true, true]));
    // And all at once.
    restore_belted(&bench, snapshot, &target, Fails::Never, &control()).unwrap();
    let all = guard::release(&target, &Which::All, "why", "me", &control()).unwrap();
    assert!(all.len() == 6 && all.iter().all(|held| held.state == HeldState::Released), "{all:?}");
    assert_eq!(starts(&target), [true, true]);
}

#[test]
fn a_database_that_is_not_known_is_only_withheld() {
    let (bench, snapshot) = belted();
    for fails in [Fails::Unknown, Fails::UnknownMark] {
        let target = bench.dir.path().join(format!("target-{}", fails as u8));
        let report = restore_belted(&bench, snapshot, &target, fails, &control()).unwrap();
        assert_eq!((report.quarantined, report.marked), (2, 0));
        let [warning] = report.warnings.as_slice() else { panic!("{:?}", report.warnings) };
        assert!(warning.contains("not marked") && warning.contains("version"), "{warning}");
        let latch = Latch::read(&target).unwrap().unwrap();
        assert!(latch.reasons.contains(warning), "{:?}", latch.reasons);
        assert!(!latch.listed && latch.channels.is_empty());
        let expected = WITHHELD.map(|part| (part.to_owned(), HeldState::Withheld));
        assert_eq!((states(&target), marked_in(&target)), (expected.to_vec(), Vec::new()));
        let_go(&target, "store").unwrap();
        assert_eq!(starts(&target), [true, false]);
    }
}

#[test]
fn what_goes_wrong_before_the_exchange_leaves_what_was_there() {
    let (bench, snapshot) = belted();
    let before = super::super::tree(&bench.node());
    for (fails, expected) in
        [(Fails::Unwritten, Kind::Corrupt), (Fails::Unavailable, Kind::Unavailable)]
    {
        let restored = restore_belted(&bench, snapshot, &bench.node(), fails, &control());
        assert_eq!(kind(restored), expected);
        super::super::assert_same(&super::super::tree(&bench.node()), &before);
        assert!(!bench.dir.path().join(".highwater-node").exists());
    }
}

#[test]
fn marks_that_are_not_found_after_the_exchange_are_told_and_nothing_opens() {
    let (bench, snapshot) = belted();
    let target = bench.dir.path().join("target");
    let error = restore_belted(&bench, snapshot, &target, Fails::Lost, &control()).unwrap_err();
    assert!(error.message().contains("its databases are withheld"), "{error}");
    assert!(error.remedies().contains(&highwater::Remedy::Rollback));
    assert_belted(&target);
}

#[test]
fn a_restore_of_two_belts_killed_anywhere_ends_old_or_held_by_both() {
    let (bench, snapshot) = belted();
    let (node, scratch) = (bench.dir.path().join("target"), super::super::scratch());
    let model = scratch.path().join("model");
    copy_tree(&bench.node(), &model);
    fs::write(model.join("keys/newer"), b"newer").unwrap();
    let before = super::super::tree(&model);
    let passed = at_every_step(|point, count| {
        let what = format!("{} ({count})", point.name());
        for path in [&node, &bench.dir.path().join(".highwater-target")] {
            let _ = fs::remove_dir_all(path);
        }
        copy_tree(&model, &node);
        let was_killed = killed(point, count, |control| {
            restore_belted(&bench, snapshot, &node, Fails::Never, control).unwrap();
        });
        let outcome = restore::recover(&node, &control()).unwrap();
        if node.join("keys/newer").exists() {
            assert!(was_killed && outcome == Outcome::Old, "{what}: {outcome:?}");
            super::super::assert_same(&super::super::tree(&node), &before);
            return true;
        }
        assert_belted(&node);
        was_killed
    });
    assert_eq!(passed, ["guard.mark", "guard.latch", "guard.withhold", "guard.read_back"]);
}

#[test]
fn a_release_of_the_last_channel_killed_anywhere_is_finished_by_the_next() {
    let (bench, snapshot) = belted();
    let target = bench.dir.path().join("target");
    let passed = at_every_step(|point, count| {
        restore_belted(&bench, snapshot, &target, Fails::Never, &control()).unwrap();
        LISTED[..3].iter().for_each(|id| drop(let_go(&target, id).unwrap()));
        let was_killed = killed(point, count, |control| {
            let which = Which::Channel("two".to_owned());
            guard::release(&target, &which, "why", "me", control).unwrap();
        });
        if was_killed && Latch::read(&target).unwrap().is_some() {
            let_go(&target, "two").unwrap();
        }
        let found = (Latch::read(&target).unwrap(), starts(&target));
        assert_eq!(found, (None, [true, true]), "{} ({count})", point.name());
        was_killed
    });
    assert_eq!(passed, ["guard.latch", "guard.release"]);
}

fn undo_belted(undo: Undo) -> RollbackOptions {
    let second_belt: Option<Arc<dyn Adapter>> = Some(Arc::new(Belt(Fails::Never)));
    RollbackOptions::default().undo(undo).second_belt(second_belt)
}

#[test]
fn a_rollback_holds_an_older_node_by_both_belts() {
    let (bench, snapshot) = belted();
    let node = bench.node();
    let release = || guard::release(&node, &Which::All, "why", "me", &control()).unwrap();
    let passed = at_every_step(|point, count| {
        restore_belted(&bench, snapshot, &node, Fails::Never, &control()).unwrap();
        release();
        let was_killed = killed(point, count, |control| {
            restore::rollback_by(&node, &undo_belted(Undo::Restore), control).unwrap();
        });
        restore::recover(&node, &control()).unwrap();
        if Latch::read(&node).unwrap().is_none() {
            assert!(was_killed, "{} ({count}) lets the older node go", point.name());
            restore::rollback_by(&node, &undo_belted(Undo::Restore), &control()).unwrap();
        }
        assert_belted(&node);
        assert_eq!(Latch::read(&node).unwrap().unwrap().cause, Cause::Rollback);
        release();
        was_killed
    });
    assert_eq!(passed, ["guard.mark", "guard.latch", "guard.withhold", "guard.read_back"]);
}

/// What waited while it was put aside keeps waiting when it comes back, and its channels with it.
#[test]
fn a_rollback_forgets_no_channel_of_what_waits() {
    let (bench, snapshot) = belted();
    let target = bench.dir.path().join("target");
    restore_belted(&bench, snapshot, &target, Fails::Never, &control()).unwrap();
    let_go(&target, "one").unwrap();
    restore_belted(&bench, snapshot, &target, Fails::Never, &control()).unwrap();
    guard::release(&target, &Which::All, "why", "me", &control()).unwrap();
    let outcome = restore::rollback_by(&target, &undo_belted(Undo::Restore), &control()).unwrap();
    assert_eq!(outcome, Outcome::Old);
    assert_belted(&target);
    let latch = Latch::read(&target).unwrap().unwrap();
    assert_eq!(latch.channels["one"].past.len(), 1);
    assert!(latch.channels["closing"].unmarked && !latch.channels["two"].unmarked);
}
