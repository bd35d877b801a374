//! Every restore and rollback is cut off at every fault point, each recovery of it too: the node
//! directory is then exactly the old one or exactly the new one, and nothing of the work is left.

mod held;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use super::journal::{Entry, Journal, Node, Phase, Side, Way, Withheld};
use super::place::{TargetPlace, locate};
use super::work::Work;
use super::{Exchange, Outcome, RollbackOptions, Undo, kept, rollback};
use crate::control::Control;
use crate::durable;
use crate::engine::{Engines, User};
use crate::env::{Env, FaultPoint, Faults};
use crate::error::{Error, Kind, Remedy, Result};
use crate::guard::points::Known;
use crate::ids::{RelPath, RestoreId, SnapshotId, Time};
use crate::node::NodeFile;
use crate::rooted::RootedPath;

const SQLITE: &[u8] = b"SQLite format 3\0";
const RESTORE: [u8; 16] = [7; 16];

/// In memory where that is possible: a crash is an error here, so that nothing needs a disk.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The engines that are built in.
static ENGINES: LazyLock<Engines> = LazyLock::new(Engines::default);

fn known(named: &[(RelPath, String)]) -> Known<'_> {
    Known { named, engines: &ENGINES }
}

fn undoing(undo: Undo) -> RollbackOptions {
    RollbackOptions { undo, ..RollbackOptions::default() }
}

fn nobody(_: &Path, _: &Engines) -> Result<Vec<User>> {
    Ok(Vec::new())
}

fn somebody(_: &Path, _: &Engines) -> Result<Vec<User>> {
    let file = RelPath::from_bytes(b"store/LOCK")?;
    Ok(vec![User { pid: 4711, command: "noded".to_owned(), file }])
}

/// Fails at one passage of a fault point, and lets none follow.
#[derive(Clone)]
struct CrashAt {
    at: usize,
    passed: Arc<AtomicUsize>,
}

impl Faults for CrashAt {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        let passed = self.passed.fetch_add(1, Ordering::Relaxed);
        assert!(passed <= self.at, "{} is passed after the crash", point.name());
        if passed < self.at { Ok(()) } else { Err(Error::unavailable("the power failed")) }
    }
}

fn crash_at(at: usize) -> Control {
    Control::new(Env::system().with_faults(CrashAt { at, passed: Arc::default() }))
}

fn control() -> Control {
    Control::new(Env::system())
}

fn write(path: &Path, bytes: &[u8], mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A node that says `who` in each of its files: RocksDB at its root and in a directory, SQLite with
/// a log, keys that nobody may write, a directory that nobody may write.
fn make_node(root: &Path, who: &str) {
    let said = |head: &[u8]| [head, who.as_bytes()].concat();
    fs::create_dir_all(root).unwrap();
    for dir in ["", "store/"] {
        write(&root.join(format!("{dir}CURRENT")), b"MANIFEST-000001\n", 0o644);
        write(&root.join(format!("{dir}MANIFEST-000001")), &said(b""), 0o644);
        write(&root.join(format!("{dir}000004.sst")), &said(b"table"), 0o644);
    }
    write(&root.join("wallet.sqlite"), &said(SQLITE), 0o600);
    write(&root.join("wallet.sqlite-wal"), &said(b"log"), 0o600);
    write(&root.join("keys/key"), &said(b"key"), 0o400);
    write(&root.join(format!("only-{who}/db.sqlite")), &said(SQLITE), 0o600);
    write(&root.join(format!("plain-{who}")), &said(b""), 0o640);
    write(&root.join(OsStr::from_bytes(b"name-\xFF")), &said(b""), 0o640);
    symlink(format!("to-{who}"), root.join("link")).unwrap();
    write(&root.join("closed/file"), &said(b""), 0o400);
    fs::set_permissions(root.join("closed"), Permissions::from_mode(0o555)).unwrap();
    let restore = if who == "new" { RESTORE } else { [1; 16] };
    let mark = serde_json::json!({ "uid": hex::encode([5; 16]), "restore": hex::encode(restore) });
    write(&root.join(".highwater/node.json"), mark.to_string().as_bytes(), 0o600);
}

/// Everything in a directory but the work of a restore.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    fn add(root: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, (u32, Vec<u8>)>) {
        for name in durable::names(dir).unwrap() {
            let path = dir.join(name);
            let inside = path.strip_prefix(root).unwrap().to_path_buf();
            if inside == Path::new(".highwater/restore") || inside == Path::new("lost+found") {
                continue;
            }
            let meta = path.symlink_metadata().unwrap();
            let mode = meta.permissions().mode();
            if meta.is_dir() {
                if inside != Path::new(".highwater") {
                    found.insert(inside, (mode, Vec::new()));
                }
                add(root, &path, found);
            } else if meta.is_symlink() {
                let link = fs::read_link(&path).unwrap();
                found.insert(inside, (mode, link.as_os_str().as_bytes().to_vec()));
            } else {
                found.insert(inside, (mode, fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = BTreeMap::new();
    add(root, root, &mut found);
    found
}

fn expected(who: &str) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    if who.is_empty() {
        return BTreeMap::new();
    }
    let dir = scratch();
    make_node(dir.path(), who);
    tree(dir.path())
}

/// What stands in the target first, and how it is exchanged.
#[derive(Clone, Copy, Debug)]
struct Case {
    before: &'static str,
    exists: bool,
    exchange: Exchange,
}

const CASES: [Case; 5] = [
    Case { before: "", exists: false, exchange: Exchange::Create },
    Case { before: "", exists: true, exchange: Exchange::Create },
    Case { before: "old", exists: true, exchange: Exchange::Whole },
    Case { before: "old", exists: true, exchange: Exchange::Entries },
    Case { before: "", exists: true, exchange: Exchange::Entries },
];

/// A target in a directory of its own. `mount` makes it a mount point.
struct Bench {
    home: tempfile::TempDir,
    case: Case,
}

impl Bench {
    fn new(case: Case) -> Bench {
        let home = scratch();
        let bench = Bench { home, case };
        if case.exists {
            fs::create_dir(bench.target()).unwrap();
        }
        if !case.before.is_empty() {
            make_node(&bench.target(), case.before);
        }
        bench
    }

    fn target(&self) -> PathBuf {
        self.home.path().canonicalize().unwrap().join(OsStr::from_bytes(b"node-\xFE"))
    }

    /// As `locate` tells it, but for the entries of a directory that is no mount point.
    fn place(&self) -> TargetPlace {
        let mut place = locate(&self.target()).unwrap();
        if self.case.exchange == Exchange::Entries {
            place.exchange = Exchange::Entries;
            place.work = place.target.join(".highwater").join("restore");
            place.staging = place.work.join("staging");
            place.keep = place.keep.map(|_| place.work.join("kept"));
        }
        place
    }

    fn restore(&self, who: &str, control: &Control) -> Result<Option<PathBuf>> {
        restore(&self.place(), who, control)
    }

    fn rollback(&self, control: &Control) -> Result<Outcome> {
        self.undo(Undo::Restore, control)
    }

    fn redo(&self, control: &Control) -> Result<Outcome> {
        self.undo(Undo::Rollback, control)
    }

    fn undo(&self, undo: Undo, control: &Control) -> Result<Outcome> {
        rollback::rollback_at(&self.place(), &undoing(undo), control, nobody)
    }

    fn recover(&self, control: &Control) -> Result<Outcome> {
        rollback::recover(&self.target(), &Engines::default(), control, nobody)
    }

    /// Recovers, cut off at each fault point in turn before it may end.
    fn recover_at_last(&self) -> Outcome {
        let mut last = None;
        for at in 0..200 {
            match self.recover(&crash_at(at)) {
                Ok(outcome) => return outcome,
                Err(error) => last = Some(error),
            }
        }
        panic!("{:?}: no recovery ends: {last:?}", self.case)
    }

    fn assert_holds(&self, who: &str, what: &str) {
        assert_eq!(tree(&self.target()), expected(who), "{:?}: {what}", self.case);
    }

    /// No journal, no staging, and nothing at all where nothing is kept.
    fn assert_tidy(&self, kept: Option<&str>) {
        let work = match self.case.exchange {
            Exchange::Entries => self.target().join(".highwater/restore"),
            _ => self.home.path().join(OsStr::from_bytes(b".highwater-node-\xFE")),
        };
        match kept {
            None => assert!(!work.exists(), "{:?}: {:?}", self.case, durable::names(&work)),
            Some(who) => {
                self.assert_tidy_with(&work, &[who]);
            }
        }
    }
}

impl Bench {
    /// No journal, no staging, and these directories, the newest first.
    fn assert_keeps(&self, whose: &[&str]) {
        let work = self.place().work.path();
        self.assert_tidy_with(&work, whose);
    }

    fn assert_tidy_with(&self, work: &Path, whose: &[&str]) {
        let mut names = durable::names(&work.to_owned()).unwrap();
        names.sort();
        let older: Vec<PathBuf> = names
            .iter()
            .filter(|name| {
                name.as_bytes().starts_with(b"kept.") && !name.as_bytes().ends_with(b".json")
            })
            .map(|name| work.join(name))
            .collect();
        assert_eq!(names.len(), 1 + 2 * whose.len(), "{names:?}");
        assert!(names.contains(&"lock".into()), "{names:?}");
        let found = [work.join("kept")].into_iter().chain(older.into_iter().rev());
        for (place, who) in found.zip(whose) {
            assert_eq!(tree(&place), expected(who), "{:?}: {}", self.case, place.display());
        }
    }
}

fn restore(place: &TargetPlace, who: &str, control: &Control) -> Result<Option<PathBuf>> {
    let work = begin(place, &control.env)?;
    make_node(&work.staging().path(), who);
    let kept = work
        .commit(known(&[(RelPath::from_bytes(b"store/CURRENT")?, "store".to_owned())]), control)?;
    Ok(kept.map(|kept| kept.path()))
}

fn begin(place: &TargetPlace, env: &Env) -> Result<Work> {
    let (restore, snapshot) = (RestoreId::from_bytes(RESTORE), SnapshotId::from_bytes([2; 16]));
    Work::begin_asking(place, restore, snapshot, env, nobody)
}

/// Each database that could be opened has all its files from one node.
fn assert_no_mixture(target: &Path, before: &str) {
    let (old, new, found) = (expected(before), expected("new"), tree(target));
    let databases: [&[&str]; 3] = [
        &["CURRENT", "MANIFEST-000001", "000004.sst"],
        &["store/CURRENT", "store/MANIFEST-000001", "store/000004.sst"],
        &["wallet.sqlite", "wallet.sqlite-wal"],
    ];
    for files in databases {
        let blocked = files.iter().any(|file| {
            let point = file.ends_with("CURRENT") || file.starts_with("wallet");
            point && target.join(file).is_dir()
        });
        let is = |node: &BTreeMap<PathBuf, (u32, Vec<u8>)>| {
            files.iter().all(|file| found.get(Path::new(file)) == node.get(Path::new(file)))
        };
        // Where no entry point came yet, an engine would find the files as they were before.
        assert!(blocked || is(&old) || is(&new), "{files:?} are a mixture");
    }
}

/// Cuts a restore off at every passage of a fault point, then recovers.
fn restore_with_every_crash(case: Case) {
    let kept = Some(case.before).filter(|before| !before.is_empty());
    let mut outcomes = BTreeMap::new();
    for at in 0.. {
        assert!(at < 200, "no restore ends");
        let bench = Bench::new(case);
        let ended = bench.restore("new", &crash_at(at));
        if let Ok(found) = ended {
            bench.assert_holds("new", "ended");
            bench.assert_tidy(kept);
            assert_eq!(found.is_some(), kept.is_some());
            assert_eq!(bench.recover(&control()).unwrap(), Outcome::Nothing);
            break;
        }
        assert_no_mixture(&bench.target(), case.before);
        let outcome = bench.recover_at_last();
        *outcomes.entry(format!("{outcome:?}")).or_insert(0) += 1;
        if outcome == Outcome::New {
            bench.assert_holds("new", "finished");
            bench.assert_tidy(kept);
        } else {
            bench.assert_holds(case.before, "undone");
            assert_eq!(bench.target().exists(), case.exists);
            bench.assert_tidy(None);
        }
        assert_eq!(bench.recover(&control()).unwrap(), Outcome::Nothing);
    }
    for outcome in ["Nothing", "Old", "New"] {
        assert!(outcomes.contains_key(outcome), "{case:?}: {outcomes:?}");
    }
}

#[test]
fn a_restore_cut_off_anywhere_ends_old_or_new() {
    CASES.into_iter().for_each(restore_with_every_crash);
}

/// Cuts a rollback off at every passage of a fault point, then recovers; the rollback of the
/// rollback too.
fn rollback_with_every_crash(case: Case) {
    for twice in [false, true] {
        let (before, after, outcome) =
            if twice { ("old", "new", Outcome::New) } else { ("new", "old", Outcome::Old) };
        let mut seen = 0;
        for at in 0.. {
            assert!(at < 200, "no rollback ends");
            let bench = Bench::new(case);
            bench.restore("new", &control()).unwrap();
            if twice {
                assert_eq!(bench.rollback(&control()).unwrap(), Outcome::Old);
            }
            bench.assert_holds(before, "before the rollback");
            let undo = if twice { Undo::Rollback } else { Undo::Restore };
            let ended = bench.undo(undo, &crash_at(at));
            assert_no_mixture(&bench.target(), "old");
            let found = match ended {
                Ok(ended) => {
                    assert_eq!(bench.recover(&control()).unwrap(), Outcome::Nothing);
                    ended
                }
                Err(_) => bench.recover_at_last(),
            };
            if found == outcome {
                bench.assert_holds(after, "rolled back");
                bench.assert_tidy(Some(before));
                seen += 1;
            } else {
                bench.assert_holds(before, "rollback undone");
                bench.assert_tidy(Some(after));
            }
            if ended.is_ok() {
                break;
            }
        }
        assert!(seen > 1, "a rollback that is cut off late is finished");
    }
}

#[test]
fn a_rollback_cut_off_anywhere_ends_old_or_new() {
    rollback_with_every_crash(CASES[2]);
    rollback_with_every_crash(CASES[3]);
}

#[test]
fn a_rollback_brings_back_what_was_removed() {
    let bench = Bench::new(CASES[2]);
    bench.restore("new", &control()).unwrap();
    durable::remove_tree(&bench.target()).unwrap();
    assert_eq!(bench.rollback(&control()).unwrap(), Outcome::Old);
    bench.assert_holds("old", "brought back");
    bench.assert_tidy(None);
    assert_eq!(bench.rollback(&control()).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn nothing_is_rolled_back_into_a_directory_that_another_hand_made() {
    let bench = Bench::new(CASES[2]);
    bench.restore("new", &control()).unwrap();
    durable::remove_tree(&bench.target()).unwrap();
    make_node(&bench.target(), "other");
    assert_eq!(bench.rollback(&control()).unwrap_err().kind(), Kind::Conflict);
    bench.assert_holds("other", "refused");
}

#[test]
fn a_second_restore_keeps_what_the_first_one_kept() {
    for case in [CASES[2], CASES[3]] {
        for at in 0.. {
            let bench = Bench::new(case);
            bench.restore("first", &control()).unwrap();
            bench.assert_tidy(Some("old"));
            let ended = bench.restore("new", &crash_at(at));
            if ended.is_err() && bench.recover_at_last() != Outcome::New {
                bench.assert_holds("first", "undone");
                bench.assert_tidy(Some("old"));
                assert_eq!(bench.rollback(&control()).unwrap(), Outcome::Old);
                bench.assert_holds("old", "rolled back");
                continue;
            }
            bench.assert_holds("new", "restored");
            bench.assert_keeps(&["first", "old"]);
            assert_eq!(bench.rollback(&control()).unwrap(), Outcome::Old);
            bench.assert_holds("first", "rolled back");
            bench.assert_keeps(&["new", "old"]);
            assert_eq!(bench.undo(Undo::To(2), &control()).unwrap(), Outcome::Old);
            bench.assert_holds("old", "rolled back further");
            bench.assert_keeps(&["first", "new"]);
            if ended.is_ok() {
                break;
            }
        }
    }
}

/// The one that is brought forward is cut off at every passage of a fault point.
#[test]
fn an_older_directory_comes_back_by_its_number_or_nothing_moves() {
    for case in [CASES[2], CASES[3]] {
        for at in 0.. {
            let bench = Bench::new(case);
            for who in ["first", "second", "new"] {
                bench.restore(who, &control()).unwrap();
            }
            bench.assert_keeps(&["second", "first", "old"]);
            let ended = bench.undo(Undo::To(3), &crash_at(at));
            if ended.is_err() && bench.recover_at_last() != Outcome::Old {
                bench.assert_holds("new", "undone");
                let kept = kept::list_at(&bench.place()).unwrap();
                assert_eq!(kept.len(), 3, "{kept:?}");
                let old = kept.iter().find(|kept| tree(&kept.path) == expected("old")).unwrap();
                assert_eq!(bench.undo(Undo::To(old.number), &control()).unwrap(), Outcome::Old);
            }
            bench.assert_holds("old", "the third");
            let kept = kept::list_at(&bench.place()).unwrap();
            assert_eq!(kept.len(), 3, "{kept:?}");
            assert_eq!(kept[0].restored, Some(true));
            if ended.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn a_rollback_is_not_undone_by_another_one_unless_that_is_asked_for() {
    let bench = Bench::new(CASES[2]);
    bench.restore("new", &control()).unwrap();
    assert_eq!(bench.redo(&control()).unwrap_err().kind(), Kind::Conflict);
    bench.rollback(&control()).unwrap();
    let error = bench.rollback(&control()).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.remedies().contains(&Remedy::Redo), "{error}");
    bench.assert_holds("old", "refused");
    assert_eq!(bench.redo(&control()).unwrap(), Outcome::New);
    bench.assert_holds("new", "redone");
    bench.rollback(&control()).unwrap();
    bench.assert_holds("old", "undone again");
    assert_eq!(bench.undo(Undo::To(2), &control()).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(bench.undo(Undo::To(0), &control()).unwrap_err().kind(), Kind::NotFound);
    let dropped = kept::drop_one(&bench.target(), 1, &control()).unwrap();
    assert_eq!((dropped.number, dropped.restored), (1, Some(true)));
    bench.assert_tidy(None);
}

#[test]
fn copies_of_what_is_in_a_vault_are_bounded_and_what_a_node_wrote_is_not() {
    let bench = Bench::new(CASES[2]);
    let copy = |who: &str| {
        let work = begin(&bench.place(), &Env::system()).unwrap();
        make_node(&work.staging().path(), who);
        let file = NodeFile {
            uid: crate::ids::NodeUid::from_bytes([7; 16]),
            restore: Some(RestoreId::from_bytes(RESTORE)),
            guard: None,
        };
        file.write(&work.staging(), &Env::system()).unwrap();
        work.commit(known(&[]), &control()).unwrap();
    };
    durable::remove_file(&bench.target().join(".highwater/node.json")).unwrap();
    for who in ["first", "second", "third", "fourth", "fifth"] {
        copy(who);
    }
    let kept = kept::list_at(&bench.place()).unwrap();
    assert_eq!(
        kept.iter().map(|kept| kept.written).collect::<Vec<_>>(),
        [false, false, false, true]
    );
    let written = fs::read(kept[3].path.join("plain-old")).unwrap();
    assert_eq!(written, b"old", "what the node wrote stays");
    // The node runs on the restored one: from now on it is the only copy of that.
    let marker = bench.target().join(".highwater/node.json").metadata().unwrap();
    let ran = marker.modified().unwrap() + std::time::Duration::from_secs(5);
    let file = fs::File::options().write(true).open(bench.target().join("CURRENT")).unwrap();
    file.set_modified(ran).unwrap();
    for who in ["sixth", "seventh", "eighth", "ninth"] {
        copy(who);
    }
    let written = |kept: &Vec<kept::Kept>| kept.iter().filter(|kept| kept.written).count();
    let kept = kept::list_at(&bench.place()).unwrap();
    assert_eq!((kept.len(), written(&kept)), (5, 2), "{kept:?}");
}

#[test]
fn nothing_is_exchanged_while_the_node_runs() {
    for case in [CASES[2], CASES[3]] {
        let bench = Bench::new(case);
        let place = bench.place();
        let (restore, snapshot) = (RestoreId::from_bytes(RESTORE), SnapshotId::from_bytes([2; 16]));
        let env = Env::system();
        let work = Work::begin_asking(&place, restore, snapshot, &env, somebody).unwrap();
        make_node(&work.staging().path(), "new");
        let error = work.commit(known(&[]), &control()).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.message().contains("noded (pid 4711)"), "{error}");
        bench.assert_holds("old", "refused");
        bench.assert_tidy(None);

        bench.restore("new", &control()).unwrap();
        let undo = Undo::Restore;
        let error = rollback::rollback_at(&bench.place(), &undoing(undo), &control(), somebody)
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        bench.assert_holds("new", "refused");
    }
}

#[test]
fn entries_are_not_exchanged_further_while_the_node_runs() {
    let bench = Bench::new(CASES[3]);
    bench.restore("new", &crash_at(8)).unwrap_err();
    let error =
        rollback::recover(&bench.target(), &Engines::default(), &control(), somebody).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.hint().unwrap().contains("`restore::recover`"));
    assert_eq!(bench.recover(&control()).unwrap(), Outcome::New);
    bench.assert_holds("new", "finished");
}

#[test]
fn one_operation_at_a_time_and_an_interrupted_one_first() {
    for case in [CASES[2], CASES[3]] {
        let bench = Bench::new(case);
        let work = begin(&bench.place(), &Env::system()).unwrap();
        for error in [
            begin(&bench.place(), &Env::system()).unwrap_err(),
            bench.recover(&control()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Conflict);
        }
        drop(work);
        for error in [
            begin(&bench.place(), &Env::system()).unwrap_err(),
            bench.rollback(&control()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Conflict);
            assert!(error.hint().unwrap().contains("`restore::recover`"), "{error}");
        }
        assert_eq!(bench.recover(&control()).unwrap(), Outcome::Old);
        bench.assert_holds("old", "undone");
        bench.assert_tidy(None);
    }
}

#[test]
fn an_abandoned_restore_leaves_nothing() {
    for case in CASES {
        let bench = Bench::new(case);
        let work = begin(&bench.place(), &Env::system()).unwrap();
        make_node(&work.staging().path(), "new");
        work.abandon().unwrap();
        bench.assert_holds(case.before, "abandoned");
        bench.assert_tidy(None);
    }
}

#[test]
fn an_empty_target_that_fills_meanwhile_is_left_alone() {
    let bench = Bench::new(CASES[1]);
    let work = begin(&bench.place(), &Env::system()).unwrap();
    make_node(&work.staging().path(), "new");
    make_node(&bench.target(), "other");
    assert_eq!(work.commit(known(&[]), &control()).unwrap_err().kind(), Kind::Conflict);
    bench.assert_holds("other", "refused");
    bench.assert_tidy(None);
}

#[test]
fn links_in_the_path_are_resolved() {
    let bench = Bench::new(CASES[2]);
    let link = bench.home.path().join("link");
    symlink(bench.target(), &link).unwrap();
    let place = locate(&link).unwrap();
    assert_eq!(place.target.path(), bench.target());
    restore(&place, "new", &control()).unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    bench.assert_holds("new", "restored through a link");
    assert_eq!(
        rollback::rollback(&link, &undoing(Undo::Restore), &control(), nobody).unwrap(),
        Outcome::Old
    );
    bench.assert_holds("old", "rolled back through a link");

    let dangling = bench.home.path().join("dangling");
    symlink("nowhere", &dangling).unwrap();
    assert_eq!(locate(&dangling).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn what_can_be_no_node_directory_is_refused() {
    assert_eq!(locate(Path::new("/")).unwrap_err().kind(), Kind::Input);
    let home = scratch();
    let file = home.path().join("file");
    fs::write(&file, b"").unwrap();
    assert_eq!(locate(&file).unwrap_err().kind(), Kind::Input);
    assert_eq!(locate(&home.path().join("missing/node")).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(
        rollback::recover(&file, &Engines::default(), &control(), nobody).unwrap(),
        Outcome::Nothing
    );
}

#[test]
fn a_work_directory_that_others_may_write_is_refused() {
    let bench = Bench::new(CASES[2]);
    let work = bench.place().work.path();
    fs::create_dir(&work).unwrap();
    fs::set_permissions(&work, Permissions::from_mode(0o777)).unwrap();
    assert_eq!(bench.restore("new", &control()).unwrap_err().kind(), Kind::Denied);
    assert_eq!(bench.recover(&control()).unwrap_err().kind(), Kind::Denied);
    fs::remove_dir(&work).unwrap();
    symlink(bench.home.path(), &work).unwrap();
    assert_eq!(bench.restore("new", &control()).unwrap_err().kind(), Kind::Conflict);
    bench.assert_holds("old", "refused");
}

#[test]
fn locating_changes_nothing() {
    let bench = Bench::new(CASES[2]);
    let before = tree(bench.home.path());
    let place = locate(&bench.target()).unwrap();
    assert_eq!(place.exchange, Exchange::Whole);
    assert_eq!(place.keep.map(|keep| keep.path()), Some(place.work.join("kept").path()));
    assert_eq!(tree(bench.home.path()), before);
}

#[test]
fn what_a_failing_start_of_the_node_leaves_goes_out() {
    let bench = Bench::new(CASES[3]);
    // The first entries are exchanged: the node's start fails, but it writes a log.
    bench.restore("new", &crash_at(12)).unwrap_err();
    assert!(bench.target().join("CURRENT").is_dir());
    fs::write(bench.target().join("LOG"), b"can't open").unwrap();
    assert_eq!(bench.recover(&control()).unwrap(), Outcome::New);
    bench.assert_holds("new", "finished");
    let kept = bench.target().join(".highwater/restore/kept/LOG");
    assert_eq!(fs::read(kept).unwrap(), b"can't open");
}

#[test]
fn a_journal_of_another_format_is_left_to_its_program() {
    let bench = Bench::new(CASES[2]);
    drop(begin(&bench.place(), &Env::system()).unwrap());
    let path = bench.place().work.join("journal.json").path();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    assert_eq!(bench.recover(&control()).unwrap_err().kind(), Kind::Input);
    fs::write(&path, "{").unwrap();
    assert_eq!(bench.recover(&control()).unwrap_err().kind(), Kind::Corrupt);
    assert!(bench.place().work.join("staging").path().exists());
}

#[test]
fn a_journal_reads_as_it_was_written() {
    let (restore, snapshot) = (RestoreId::from_bytes(RESTORE), SnapshotId::from_bytes([2; 16]));
    let path = RelPath::from_bytes(b"name-\xFF/CURRENT").unwrap();
    let inode = |number| durable::Inode { number, born_ns: Some(15) };
    let mut journal = Journal::restore(
        Way::Entries,
        restore,
        snapshot,
        Time::from_nanos(1_800_000_000_000_000_000),
    );
    journal.phase = Phase::Withhold;
    (journal.staged, journal.replaced) = (Some(inode(10)), Some(inode(11)));
    journal.withheld.push(Withheld {
        side: Side::Incoming,
        path: path.clone(),
        inode: inode(12),
        placeholder: inode(13),
    });
    journal.entries.push(Entry { path, inode: inode(14) });
    let dir = scratch();
    let file = dir.path().join("journal.json");
    journal.write(&file).unwrap();
    assert_eq!(Journal::read(&file).unwrap().unwrap(), journal);
    assert_eq!(journal.rollback(journal.time).incoming, Node::Old);
    let fixture = include_bytes!("journal-1.json");
    assert_eq!(Journal::parse(fixture).unwrap(), journal, "{}", fs::read_to_string(&file).unwrap());
}

#[test]
fn a_tree_goes_whatever_its_modes() {
    let home = scratch();
    let outside = home.path().join("outside");
    fs::write(&outside, b"stays").unwrap();
    let root = home.path().join("root");
    write(&root.join("one/two/file"), b"", 0o000);
    symlink(&outside, root.join("one/link")).unwrap();
    fs::set_permissions(root.join("one/two"), Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(root.join("one"), Permissions::from_mode(0o000)).unwrap();
    durable::remove_tree(&root).unwrap();
    durable::remove_tree(&root).unwrap();
    assert!(!root.exists());
    assert_eq!(fs::read(&outside).unwrap(), b"stays");
}

#[cfg(feature = "sqlite")]
#[test]
fn sqlite_neither_opens_nor_creates_what_is_withheld() {
    let home = scratch();
    for suffix in ["", "-wal", "-journal"] {
        let main = home.path().join(format!("db{suffix}.sqlite"));
        let real = rusqlite::Connection::open(&main).unwrap();
        let mode = if suffix == "-wal" { "wal" } else { "delete" };
        real.pragma_update(None, "journal_mode", mode).unwrap();
        real.execute_batch("create table t (x); insert into t values (1)").unwrap();
        drop(real);
        let mut withheld = main.clone().into_os_string();
        withheld.push(suffix);
        let withheld = PathBuf::from(withheld);
        durable::remove_file(&withheld).unwrap();
        crate::guard::points::make_placeholder(&RootedPath::of(&withheld).unwrap(), "", None)
            .unwrap();
        let opened = rusqlite::Connection::open(&main).and_then(|node| {
            node.execute_batch("create table if not exists t (x); insert into t values (2)")
        });
        assert!(opened.is_err(), "SQLite opens a database with {suffix} withheld");
        assert!(withheld.is_dir());
    }
}

#[cfg(feature = "rocksdb")]
#[test]
fn rocksdb_neither_opens_nor_creates_what_is_withheld() {
    let home = scratch();
    let mut options = rust_rocksdb::Options::default();
    options.create_if_missing(true);
    drop(rust_rocksdb::DB::open(&options, home.path()).unwrap());
    let current = home.path().join("CURRENT");
    let text = fs::read(&current).unwrap();
    fs::remove_file(&current).unwrap();
    crate::guard::points::make_placeholder(&RootedPath::of(&current).unwrap(), "", None).unwrap();
    assert!(rust_rocksdb::DB::open(&options, home.path()).is_err());
    assert!(current.is_dir());
    durable::remove_tree(&current).unwrap();
    fs::write(&current, text).unwrap();
    rust_rocksdb::DB::open(&options, home.path()).unwrap();
}

/// Names the mount points to a run of this test inside a mount namespace of its own.
const MOUNTED: &str = "HIGHWATER_TEST_MOUNTED";

#[test]
#[expect(clippy::print_stderr, reason = "a test that can't run here says so")]
fn a_mount_point_is_exchanged_entry_by_entry() {
    if std::env::var_os(MOUNTED).is_some() {
        return inside_a_mount_namespace();
    }
    let unshare = || {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command
    };
    if !unshare().arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: no mount namespace can be made here");
        return;
    }
    let test = "restore::tests::a_mount_point_is_exchanged_entry_by_entry";
    let mut command = unshare();
    command.arg(std::env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]);
    let output = command.env(MOUNTED, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

fn inside_a_mount_namespace() {
    let mount = |args: &[&OsStr]| {
        let status = std::process::Command::new("mount").args(args).status().unwrap();
        assert!(status.success(), "{args:?}");
    };
    for bind in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let target = home.path().canonicalize().unwrap().join("volume");
        fs::create_dir(&target).unwrap();
        if bind {
            mount(&["--bind".as_ref(), target.as_os_str(), target.as_os_str()]);
        } else {
            mount(&["-t".as_ref(), "tmpfs".as_ref(), "none".as_ref(), target.as_os_str()]);
        }
        fs::create_dir(target.join("lost+found")).unwrap();
        let place = locate(&target).unwrap();
        assert_eq!((place.exchange, place.keep.is_some()), (Exchange::Entries, false));
        assert_eq!(restore(&place, "old", &control()).unwrap(), None);
        assert_eq!(tree(&target), expected("old"));

        let place = locate(&target).unwrap();
        let kept = target.join(".highwater/restore/kept");
        assert_eq!(restore(&place, "new", &control()).unwrap(), Some(kept.clone()));
        assert_eq!((tree(&target), tree(&kept)), (expected("new"), expected("old")));
        assert_eq!(
            rollback::rollback(&target, &undoing(Undo::Restore), &control(), nobody).unwrap(),
            Outcome::Old
        );
        assert_eq!((tree(&target), tree(&kept)), (expected("old"), expected("new")));
        let crashed = restore(&locate(&target).unwrap(), "new", &crash_at(12));
        assert!(crashed.is_err() && target.join("CURRENT").is_dir());
        let found = rollback::recover(&target, &Engines::default(), &control(), nobody).unwrap();
        assert_eq!((found, tree(&target)), (Outcome::New, expected("new")));

        // A mount inside a node directory would move with it.
        let above = home.path().canonicalize().unwrap();
        let error = restore(&locate(&above).unwrap(), "new", &control()).unwrap_err();
        assert_eq!((error.kind(), tree(&target)), (Kind::Conflict, expected("new")));
        assert_eq!(durable::remove_tree(&above).unwrap_err().kind(), Kind::Conflict);
        assert_eq!(tree(&target), expected("new"));
        held::restore_and_release(&target);
        let umount = std::process::Command::new("umount").arg(&target).status().unwrap();
        assert!(umount.success());
    }
}
