use std::sync::Arc;

use super::*;
use crate::Kind;
use crate::engine::{DiscoverOptions, discover};

#[test]
fn databases_share_an_instant_where_none_moves_between_the_first_and_the_last() {
    use Barrier::{Hook, None, Single};
    // Databases, of which so many have a hook, so many are SQLite's, with their own instant.
    let cases = [
        ((0, 0, 0, Single), Single),
        ((1, 0, 0, Single), Single),
        ((1, 1, 0, Single), Single),
        ((1, 0, 1, None), Single),
        ((2, 0, 0, Single), Single),
        ((2, 0, 1, Single), Single),
        ((2, 0, 2, Single), Single),
        ((2, 0, 2, None), None),
        ((3, 0, 2, None), None),
        ((2, 1, 0, Single), Single),
        ((2, 2, 0, Single), Hook),
        ((3, 2, 0, Single), Hook),
        ((2, 1, 1, Single), None),
    ];
    for ((databases, hooked, sqlite, instant), expected) in cases {
        let found = common_instant(databases, hooked, sqlite, instant);
        assert_eq!(found, expected, "{databases} {hooked} {sqlite} {instant:?}");
    }
}

#[test]
fn several_databases_without_an_instant_need_the_callers_word() {
    let mut options = CaptureOptions::default();
    let error = allowed(Barrier::None, 2, &options).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.hint_text().is_some_and(|hint| hint.contains("--no-barrier")));
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
    assert_eq!((error.kind(), error.entry_name()), (Kind::Input, Some("store")));
}

#[test]
fn the_first_refusal_is_the_error() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
    let layout = discover(dir.path(), &DiscoverOptions::default()).unwrap();
    let error = capture(&layout, &CaptureOptions::default(), &Env::system()).err().unwrap();
    assert_eq!((error.kind(), error.entry_name()), (Kind::Input, Some("link")));
    assert!(error.hint_text().is_some());
}

#[test]
fn an_empty_node_is_captured() {
    let dir = tempfile::tempdir().unwrap();
    let layout = discover(dir.path(), &DiscoverOptions::default()).unwrap();
    let captured = capture(&layout, &CaptureOptions::default(), &Env::system()).unwrap();
    assert_eq!((captured.parts.len(), captured.barrier), (1, Barrier::Single));
    assert!(captured.parts[0].entries().is_empty());
}
