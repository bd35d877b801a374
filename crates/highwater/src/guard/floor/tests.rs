//! Files of a signer, raised where they wait: cut off anywhere, the node stays held, and repeating it
//! finishes it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::engine::Engines;
use crate::env::Faults;
use crate::guard::points::Known;
use crate::guard::{Cause, GuardKind, Which, hold};

const STATE: &str = "data/state.json";

fn path(name: &str) -> RelPath {
    RelPath::from_bytes(name.as_bytes()).unwrap()
}

/// A node without databases, all of it withheld.
fn withheld(dir: &Path) {
    for name in [STATE, "data/other/notes", "config/key", "README"] {
        fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        fs::write(dir.join(name), name).unwrap();
    }
    fs::set_permissions(dir.join(STATE), fs::Permissions::from_mode(0o640)).unwrap();
    let node = "node".parse().unwrap();
    let latch = Latch::new(GuardKind::Databases, node, Cause::Restore, Time::from_nanos(0));
    let held = RootedPath::open(dir).unwrap();
    hold::withhold(&held, latch, Known::by(&Engines::default()), &Env::system()).unwrap();
    assert!(fs::read(dir.join(STATE)).is_err());
}

fn control(env: Env) -> Control {
    Control::new(env)
}

fn raised(content: &str) -> Raise {
    Raise {
        file: path(STATE),
        content: Some(content.into()),
        from: BTreeMap::from([("height".to_owned(), 1)]),
        to: BTreeMap::from([("height".to_owned(), 9)]),
        basis: Basis::Latest,
        reason: "a test".to_owned(),
    }
}

fn raise_to(dir: &Path, content: &str, env: Env) -> Result<Option<Latch>> {
    raise(dir, "me", None, |_| Ok(vec![raised(content)]), &control(env))
}

fn waiting(dir: &Path) -> String {
    let read = |resting: &Resting<'_>| Ok(resting.read(&path(STATE), 1000)?.unwrap());
    String::from_utf8(resting(dir, read).unwrap().unwrap()).unwrap()
}

/// Fails at one passage of the point.
struct At(AtomicUsize);

impl Faults for At {
    fn reached(&self, point: FaultPoint) -> Result<()> {
        if point == FaultPoint::GuardFloor && self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(Error::unavailable("a test"));
        }
        Ok(())
    }
}

#[test]
fn what_is_withheld_is_seen_where_it_belongs() {
    let dir = tempfile::tempdir().unwrap();
    withheld(dir.path());
    let entries = resting(dir.path(), |resting| resting.entries()).unwrap().unwrap();
    let mut names: Vec<String> = entries.iter().map(RelPath::to_string).collect();
    names.retain(|name| name != super::super::LATCH);
    let expected =
        ["README", "config", "config/key", "data", "data/other", "data/other/notes", STATE];
    assert_eq!(names, expected);
    assert_eq!(waiting(dir.path()), STATE);
    let other = resting(dir.path(), |resting| resting.read(&path("data/nothing"), 10));
    assert_eq!(other.unwrap().unwrap(), None);
    let longer = resting(dir.path(), |resting| resting.read(&path(STATE), 3));
    assert_eq!(longer.unwrap_err().kind(), Kind::Corrupt);
    // Once a part is back it is read there.
    crate::guard::release(dir.path(), &Which::All, "why", "me", &control(Env::system())).unwrap();
    assert_eq!(resting(dir.path(), |resting| resting.entries()).unwrap(), None);
    assert_eq!(fs::read_to_string(dir.path().join(STATE)).unwrap(), STATE);
}

#[test]
fn a_raise_cut_off_anywhere_leaves_the_node_held_and_is_finished_by_the_next_one() {
    let mut passed = 0;
    for count in 1.. {
        let dir = tempfile::tempdir().unwrap();
        withheld(dir.path());
        let env = Env::system().with_faults(At(AtomicUsize::new(count)));
        let cut = raise_to(dir.path(), "raised", env).is_err();
        let held = crate::guard::list(dir.path()).unwrap();
        assert!(held.iter().all(|held| held.state.holds()) && !held.is_empty(), "{count}");
        assert!([STATE, "raised"].contains(&waiting(dir.path()).as_str()), "{count}");
        let latch = raise_to(dir.path(), "raised", Env::system()).unwrap().unwrap();
        let [floor] = &latch.floors[..] else { panic!("{count}: {:?}", latch.floors) };
        assert_eq!((&floor.from["height"], &floor.to["height"]), (&1, &9));
        crate::guard::release(dir.path(), &Which::All, "why", "me", &control(Env::system()))
            .unwrap();
        let file = dir.path().join(STATE);
        assert_eq!(fs::read_to_string(&file).unwrap(), "raised");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
        let names = fs::read_dir(dir.path().join("data")).unwrap().count();
        assert_eq!(names, 2, "something was left behind");
        assert_eq!(Latch::last(dir.path()).unwrap().unwrap().floors, latch.floors);
        if !cut {
            break;
        }
        passed = count;
    }
    assert_eq!(passed, 3, "before the file, beside the file, after the file");
}

#[test]
fn what_can_t_be_decided_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    withheld(dir.path());
    let before = Latch::read(dir.path()).unwrap();
    let refuse = |_: &Resting<'_>| Err(Error::input("a test"));
    raise(dir.path(), "me", None, refuse, &control(Env::system())).unwrap_err();
    assert_eq!((Latch::read(dir.path()).unwrap(), waiting(dir.path())), (before, STATE.into()));
    let nothing = tempfile::tempdir().unwrap();
    assert_eq!(raise_to(nothing.path(), "raised", Env::system()).unwrap(), None);
}

#[test]
fn a_link_is_not_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, "somebody's").unwrap();
    let node = dir.path().join("node");
    fs::create_dir(&node).unwrap();
    withheld(&node);
    let place = resting(&node, |resting| resting.place(&path(STATE))).unwrap().unwrap().path();
    fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &place).unwrap();
    raise_to(&node, "raised", Env::system()).unwrap_err();
    resting(&node, |resting| resting.read(&path(STATE), 1000)).unwrap_err();
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "somebody's");
    assert!(fs::symlink_metadata(&place).unwrap().is_symlink());
}

#[test]
fn another_users_file_stays_theirs() {
    use std::os::unix::fs::MetadataExt as _;
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    withheld(dir.path());
    let place = resting(dir.path(), |resting| resting.place(&path(STATE))).unwrap().unwrap();
    std::os::unix::fs::chown(place.path(), Some(4711), Some(4712)).unwrap();
    raise_to(dir.path(), "raised", Env::system()).unwrap();
    let found = fs::metadata(place.path()).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (4711, 4712, 0o640));
    // Root parses no database of theirs.
    fs::write(place.path(), "SQLite format 3\0 and more").unwrap();
    let read = resting(dir.path(), |resting| resting.read(&path(STATE), 1000));
    assert_eq!(read.unwrap_err().kind(), Kind::Denied);
}
