//! The latch on disk: its form, its lock, and what becomes of one that can't be read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use highwater_guard::{Ours, Reason};

use super::*;
use crate::error::Kind;

fn latch() -> Latch {
    let released = Released {
        reason: "the original is dead".to_owned(),
        by: "operator".to_owned(),
        time: Time::from_nanos(1_800_000_001_000_000_000),
    };
    let recorded = Recorded {
        ours: Some(Ours { signed: Some(6), revoked: 5, received: 5, closing: false, epoch: 2 }),
        evidence: Some(Evidence::default()),
        verdict: Some(Verdict::Blocked(Reason::WitnessAhead)),
        release: Some(released.clone()),
        out: false,
        unmarked: false,
        past: Vec::new(),
    };
    let path = |path: &[u8]| RelPath::from_bytes(path).unwrap();
    Latch {
        version: 1,
        kind: GuardKind::Databases,
        node: "node".parse().unwrap(),
        uid: Some(NodeUid::from_bytes([1; 16])),
        cause: Cause::Rollback,
        restore: Some(RestoreId::from_bytes([2; 16])),
        snapshot: Some(SnapshotId::from_bytes([3; 16])),
        time: Time::from_nanos(1_800_000_000_000_000_000),
        reasons: vec!["its backups ask for it".to_owned()],
        marks: BTreeMap::from([("height".to_owned(), 105)]),
        channels: BTreeMap::from([
            ("one".to_owned(), recorded),
            ("two".to_owned(), Recorded::default()),
        ]),
        listed: true,
        old: None,
        withheld: vec![Withheld {
            part: "store".to_owned(),
            path: path(b"store/CURRENT"),
            place: path(b".highwater/withheld/0"),
            release: Some(released),
        }],
        release: None,
        original_gone: None,
        floors: Vec::new(),
    }
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn it_reads_as_it_was_written() {
    let dir = scratch();
    assert_eq!(Latch::read(dir.path()).unwrap(), None);
    latch().write(dir.path(), &Env::system()).unwrap();
    assert_eq!(Latch::read(dir.path()).unwrap(), Some(latch()));
    assert_eq!(mode(&dir.path().join(LATCH)), 0o600);
    assert_eq!(mode(&dir.path().join(OWN_DIR)), 0o700);
    let fixture = include_str!("../../../tests/fixtures/latch.json");
    assert_eq!(fs::read_to_string(dir.path().join(LATCH)).unwrap(), fixture);

    Latch::remove(dir.path()).unwrap();
    Latch::remove(dir.path()).unwrap();
    assert_eq!(Latch::read(dir.path()).unwrap(), None);
}

#[test]
fn one_that_can_not_be_read_is_no_missing_one() {
    let dir = scratch();
    let write = |text: &str| fs::write(dir.path().join(LATCH), text).unwrap();
    for broken in ["", "{", "{\"version\": 1}", "{\"version\": 1, \"more\": 2}"] {
        write(broken);
        let error = Latch::read(dir.path()).unwrap_err();
        assert_eq!((error.kind(), error.entry()), (Kind::Corrupt, Some(LATCH)));
        assert!(error.hint().is_some());
        let kept = Latch::update(dir.path(), &Env::system(), |_| panic!("changed unread"));
        assert_eq!(kept.unwrap_err().kind(), Kind::Corrupt);
    }
    write("{\"version\": 2, \"of\": \"a newer program\"}");
    assert_eq!(Latch::read(dir.path()).unwrap_err().kind(), Kind::Input);
}

#[test]
fn nobody_changes_it_between_a_look_and_the_write() {
    let dir = scratch();
    let env = Env::system();
    latch().write(dir.path(), &env).unwrap();
    let lock = dir.path().join(OWN_DIR).join(LOCK);
    let raise = || {
        Latch::update(dir.path(), &env, |latch| {
            let other = File::open(&lock).unwrap();
            let taken = rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared);
            assert_eq!(taken, Err(Errno::WOULDBLOCK));
            let mut latch = latch.unwrap();
            *latch.marks.get_mut("height").unwrap() += 1;
            Ok(Some(latch))
        })
        .unwrap();
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| raise()));
        }
    });
    assert_eq!(Latch::read(dir.path()).unwrap().unwrap().marks["height"], 205);
}

#[test]
fn an_error_leaves_what_was_there() {
    let dir = scratch();
    let env = Env::system();
    latch().write(dir.path(), &env).unwrap();
    let changed = Latch::update(dir.path(), &env, |_| Err(Error::input("no")));
    assert_eq!(changed.unwrap_err().kind(), Kind::Input);
    assert_eq!(Latch::read(dir.path()).unwrap(), Some(latch()));
    assert_eq!(Latch::update(dir.path(), &env, |_| Ok(None)).unwrap(), None);
    assert_eq!(Latch::read(dir.path()).unwrap(), None);
}
