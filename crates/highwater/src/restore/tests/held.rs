//! Nodes whose databases are withheld, exchanged as wholes and entry by entry: cut off anywhere,
//! nothing of them opens, and their release gives back what was restored.

use super::*;
use crate::guard::{self, Cause, GuardKind, HeldState, Latch, Which, hold};

/// The entry points of a node of these tests, but for the one that only one side has.
const POINTS: [&str; 4] = ["CURRENT", "store/CURRENT", "wallet.sqlite", "wallet.sqlite-wal"];

fn latch() -> Latch {
    let node = "node".parse().unwrap();
    Latch::new(GuardKind::Databases, node, Cause::Restore, Time::from_nanos(0))
}

fn held(path: &Path) -> RootedPath {
    RootedPath::open(path).unwrap()
}

fn named() -> [(RelPath, String); 1] {
    [(RelPath::from_bytes(b"store/CURRENT").unwrap(), "store".to_owned())]
}

/// Restores the new node with all its databases withheld.
fn restore_withheld(place: &TargetPlace, control: &Control) -> Result<()> {
    let work = begin(place, &Env::system())?;
    make_node(&work.staging().path(), "new");
    hold::withhold(&work.staging(), latch(), known(&named()), &Env::system()).unwrap();
    work.commit(known(&named()), control).map(drop)
}

/// In a mount point that holds a node: restored withheld, rolled back, restored and released.
pub(super) fn restore_and_release(target: &Path) {
    let before = tree(target);
    restore_withheld(&locate(target).unwrap(), &control()).unwrap();
    assert!(POINTS.iter().all(|point| target.join(point).is_dir()));
    assert_eq!(
        rollback::rollback(target, &undoing(Undo::Restore), &control(), nobody).unwrap(),
        Outcome::Old
    );
    assert_eq!(tree(target), before);
    assert_eq!(
        rollback::rollback(target, &undoing(Undo::Rollback), &control(), nobody).unwrap(),
        Outcome::New
    );
    assert!(POINTS.iter().all(|point| target.join(point).is_dir()));
    guard::release(target, &Which::All, "a test", "a test", &control()).unwrap();
    assert!(POINTS.iter().all(|point| target.join(point).is_file()));
    assert_eq!(
        rollback::rollback(target, &undoing(Undo::Restore), &control(), nobody).unwrap(),
        Outcome::Old
    );
    assert!(POINTS.iter().all(|point| target.join(point).is_dir()));
}

impl Bench {
    fn restore_withheld(&self, control: &Control) -> Result<()> {
        restore_withheld(&self.place(), control)
    }

    /// Whether a directory of this node holds placeholders, and no entry point.
    #[track_caller]
    fn assert_withheld(&self, dir: &Path, who: &str) {
        for point in POINTS.map(str::to_owned).into_iter().chain([format!("only-{who}/db.sqlite")])
        {
            assert!(dir.join(&point).is_dir(), "{:?}: {point} is not withheld", self.case);
        }
        let held = guard::list(dir).unwrap();
        assert!(held.iter().all(|held| held.state == HeldState::Withheld), "{held:?}");
        let parts: Vec<&str> = held.iter().map(|held| held.id.as_str()).collect();
        assert_eq!(parts, [".", &format!("only-{who}/db.sqlite"), "store", "wallet.sqlite"]);
    }

    fn assert_released(&self, who: &str) {
        let target = self.target();
        guard::release(&target, &Which::All, "a test", "a test", &control()).unwrap();
        for name in ["quarantine.lock", "quarantine.last.json"] {
            fs::remove_file(target.join(".highwater").join(name)).unwrap();
        }
        self.assert_holds(who, "released");
    }
}

/// No database of the new node opens: each lacks its entry point, or a directory stands there.
fn assert_nothing_new_opens(target: &Path) {
    let new = expected("new");
    for point in POINTS.into_iter().chain(["only-new/db.sqlite"]) {
        let found = fs::read(target.join(point)).ok();
        // What both nodes have in common tells nothing.
        let telling = new[Path::new(point)].1.ends_with(b"new");
        assert!(!telling || found.as_ref() != Some(&new[Path::new(point)].1), "{point} opens");
    }
    let stores = ["", "store/"].map(|dir| target.join(dir));
    for store in stores {
        let manifest = fs::read(store.join("MANIFEST-000001")).unwrap_or_default();
        assert!(
            manifest != b"new" || !store.join("CURRENT").is_file(),
            "{} opens",
            store.display()
        );
        let table = fs::read(store.join("000004.sst")).unwrap_or_default();
        assert!(table != b"tablenew" || store.join("CURRENT").is_dir(), "an empty one is made");
    }
}

#[test]
fn withheld_databases_are_exchanged_and_released() {
    for case in [CASES[0], CASES[2], CASES[3], CASES[4]] {
        for at in 0.. {
            let bench = Bench::new(case);
            let ended = bench.restore_withheld(&crash_at(at));
            assert_nothing_new_opens(&bench.target());
            if ended.is_err() && bench.recover_at_last() != Outcome::New {
                bench.assert_holds(case.before, "undone");
                continue;
            }
            bench.assert_withheld(&bench.target(), "new");
            bench.assert_released("new");
            if ended.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn what_is_still_withheld_can_be_rolled_back() {
    for case in [CASES[2], CASES[3]] {
        for at in 0.. {
            let bench = Bench::new(case);
            bench.restore_withheld(&control()).unwrap();
            let ended = bench.rollback(&crash_at(at));
            assert_nothing_new_opens(&bench.target());
            if ended.is_err() && bench.recover_at_last() != Outcome::Old {
                bench.assert_withheld(&bench.target(), "new");
                assert_eq!(bench.rollback(&control()).unwrap(), Outcome::Old);
            }
            bench.assert_holds("old", "nothing has run meanwhile");
            let kept = bench.place().work.join("kept").path();
            bench.assert_withheld(&kept, "new");
            assert_eq!(bench.redo(&control()).unwrap(), Outcome::New);
            bench.assert_withheld(&bench.target(), "new");
            bench.assert_released("new");
            if ended.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn an_older_node_is_withheld_where_the_restored_one_may_have_run() {
    for case in [CASES[2], CASES[3]] {
        for at in 0.. {
            let bench = Bench::new(case);
            bench.restore_withheld(&control()).unwrap();
            guard::release(
                &bench.target(),
                &Which::Channel("store".to_owned()),
                "why",
                "me",
                &control(),
            )
            .unwrap();
            let ended = bench.rollback(&crash_at(at));
            if ended.is_err() && bench.recover_at_last() != Outcome::Old {
                assert_eq!(bench.rollback(&control()).unwrap(), Outcome::Old);
            }
            bench.assert_withheld(&bench.target(), "old");
            bench.assert_released("old");
            if ended.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn what_another_hand_put_in_the_place_of_a_note_is_not_lost() {
    let dir = scratch();
    make_node(dir.path(), "new");
    let env = Env::system();
    assert_eq!(
        hold::withhold(&held(dir.path()), latch(), Known::by(&Engines::default()), &env).unwrap(),
        4
    );
    let release = || guard::release(dir.path(), &Which::All, "why", "me", &control());
    let wallet = dir.path().join("wallet.sqlite");
    durable::remove_tree(&wallet).unwrap();
    fs::write(&wallet, b"another one").unwrap();
    let error = release().unwrap_err();
    assert_eq!((error.kind(), error.entry()), (Kind::Conflict, Some("wallet.sqlite")));
    assert_eq!(fs::read(&wallet).unwrap(), b"another one");
    fs::remove_file(&wallet).unwrap();
    release().unwrap();
    assert_eq!(fs::read(&wallet).unwrap(), [SQLITE, b"new"].concat());
    assert_eq!(Latch::read(dir.path()).unwrap(), None);
}

#[test]
fn a_directory_keeps_its_times_while_its_entry_point_waits() {
    let dir = scratch();
    make_node(dir.path(), "new");
    let modified = || dir.path().join("store").metadata().unwrap().modified().unwrap();
    let before = modified();
    hold::withhold(&held(dir.path()), latch(), Known::by(&Engines::default()), &Env::system())
        .unwrap();
    guard::release(dir.path(), &Which::All, "why", "me", &control()).unwrap();
    assert_eq!(modified(), before);
}
