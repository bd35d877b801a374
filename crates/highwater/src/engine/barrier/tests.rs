use std::sync::Arc;

use super::*;
use crate::engine::{DiscoverOptions, discover};
use crate::{Kind, Remedy};

#[test]
fn databases_share_an_instant_where_none_moves_between_the_first_and_the_last() {
    use Barrier::{Hook, Live, None, Single};
    // Databases, of which so many have a hook; for each engine whose databases move, their instant.
    let cases: [(usize, usize, &[Barrier], Barrier); 18] = [
        (0, 0, &[], Single),
        (1, 0, &[], Single),
        (1, 1, &[], Single),
        (1, 0, &[None], Single),
        (2, 0, &[], Single),
        (2, 0, &[Single], Single),
        (2, 0, &[None], None),
        (3, 0, &[None], None),
        (3, 0, &[Single], Single),
        (2, 1, &[], Single),
        (2, 2, &[], Hook),
        (3, 2, &[], Hook),
        (2, 1, &[Single], None),
        (1, 0, &[Live], Live),
        (2, 0, &[Live], Live),
        (2, 0, &[Live, Single], None),
        (2, 1, &[Live], None),
        (3, 0, &[Live, Single], None),
    ];
    for (databases, hooked, moving, expected) in cases {
        let found = common_instant(databases, hooked, moving);
        assert_eq!(found, expected, "{databases} {hooked} {moving:?}");
    }
}

#[test]
fn several_databases_without_an_instant_need_the_callers_word() {
    let mut options = CaptureOptions::default();
    let error = allowed(Barrier::None, 2, &options).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.remedies().contains(&Remedy::NoBarrier));
    options.allow_no_barrier = true;
    assert!(allowed(Barrier::None, 2, &options).is_ok());
    assert_eq!(warnings(Barrier::None, 2).len(), 1);
}

#[test]
fn a_hook_for_no_database_and_a_second_one_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), b"").unwrap();
    let layout = discover(dir.path(), &DiscoverOptions::default()).unwrap();
    let hook: crate::engine::CheckpointHook = Arc::new(|_| Ok(()));
    let options =
        CaptureOptions { hooks: vec![("store".to_owned(), hook)], ..CaptureOptions::default() };
    let error = capture(&layout, &options, &Env::system()).err().unwrap();
    assert_eq!((error.kind(), error.entry()), (Kind::Input, Some("store")));
}

#[test]
fn the_first_refusal_is_the_error() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
    let layout = discover(dir.path(), &DiscoverOptions::default()).unwrap();
    let error = capture(&layout, &CaptureOptions::default(), &Env::system()).err().unwrap();
    assert_eq!((error.kind(), error.entry()), (Kind::Input, Some("link")));
    assert!(error.hint().is_some());
}

#[test]
fn an_empty_node_is_captured() {
    let dir = tempfile::tempdir().unwrap();
    let layout = discover(dir.path(), &DiscoverOptions::default()).unwrap();
    let captured = capture(&layout, &CaptureOptions::default(), &Env::system()).unwrap();
    assert_eq!((captured.parts.len(), captured.barrier), (1, Barrier::Single));
    assert!(captured.parts[0].entries().is_empty());
}

#[test]
#[cfg(feature = "sqlite")]
fn a_held_node_gives_several_databases_one_instant_and_its_marks() {
    use crate::engine::HoldHook;

    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        let database = rusqlite::Connection::open(dir.path().join(name)).unwrap();
        database.pragma_update(None, "journal_mode", "wal").unwrap();
        database.execute_batch("create table rows (value integer)").unwrap();
        database
    };
    let nodes = [open("channels.sqlite"), open("wallet.sqlite")];
    let hold: HoldHook = Arc::new(|capture| {
        capture(BTreeMap::from([("height".to_owned(), 7)]));
        Ok(())
    });
    let layout = discover(dir.path(), &DiscoverOptions::default()).unwrap();
    let options = CaptureOptions { hold: Some(hold), ..CaptureOptions::default() };
    let captured = capture(&layout, &options, &Env::system()).unwrap();
    assert_eq!(captured.barrier, Barrier::Hook);
    assert_eq!(captured.marks, BTreeMap::from([("height".to_owned(), 7)]));
    drop(nodes);
}

#[test]
fn a_node_that_cannot_be_held_is_not_captured() {
    let dir = tempfile::tempdir().unwrap();
    let layout = discover(dir.path(), &DiscoverOptions::default()).unwrap();
    let holds: [crate::engine::HoldHook; 2] =
        [Arc::new(|_| Err("busy".into())), Arc::new(|_| Ok(()))];
    let expected = [Kind::Unavailable, Kind::Input];
    for (hold, expected) in holds.into_iter().zip(expected) {
        let options = CaptureOptions { hold: Some(hold), ..CaptureOptions::default() };
        let error = capture(&layout, &options, &Env::system()).err().unwrap();
        assert_eq!(error.kind(), expected);
    }
}
