//! Where the marks stand, and that whatever brings an older directory back writes them.
//!
//! Shown: G1 G2 G3 and the incidents I1 I2 I6.

use std::path::{Path, PathBuf};

use highwater::guard::{Adapter as _, HeldState};
use highwater_sim::adapter::NodeAdapter;
use serde_json::json;

use super::restored::{latched, refuses};
use super::tap::with_tap;
use super::world::{ALICE, BOB, World, program, run, text};

/// The channels that the database of a stopped node marks as stale.
pub(crate) fn marked(dir: &Path) -> Vec<String> {
    NodeAdapter.open(dir).unwrap().stale().unwrap()
}

/// The directories under `dir` in which a node's database lies.
fn nodes_in(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(path.join("channels.sqlite").is_file().then(|| path.clone()));
            found.extend(nodes_in(&path));
        }
    }
    found
}

#[test]
fn a_restore_marks_what_could_be_punished_in_the_directory_that_becomes_the_nodes() {
    with_tap(|tap| {
        let mut world = World::tapped("peer", tap);
        let (open, closed) = (world.open(), world.open());
        world.ask(ALICE, json!({ "command": "close", "channel": closed }));
        world.paid(&closed);
        world.wait_state(ALICE, &closed, "closed");
        tap.hold(BOB, "");
        let offer = json!({ "command": "open", "peer": "bob", "ours": 1_000, "theirs": 0 });
        let offered = world.ask(ALICE, offer)["channel"].as_str().unwrap().to_owned();
        assert_eq!(World::channel(&world.list(ALICE), &offered)["state"], "offered");
        world.backup(ALICE);
        world.kill(ALICE);
        let home = world.home_of(ALICE);
        assert_eq!(marked(&home), [""; 0]);
        assert_eq!(world.restore(ALICE, true)["quarantined"], 1);
        assert_eq!(marked(&home), [open]);
        // The directory that was exchanged is kept as it was: no mark went there.
        let others = nodes_in(&world.path(""));
        let kept: Vec<_> =
            others.iter().filter(|dir| **dir != home && **dir != world.home_of(BOB)).collect();
        assert_eq!(kept.len(), 1, "{others:?}");
        assert_eq!(marked(kept[0]), [""; 0]);
    });
}

#[test]
fn a_rollback_marks_the_older_directory_which_is_as_silent() {
    with_tap(|tap| {
        let mut world = World::tapped("peer", tap);
        let id = world.open();
        world.backup(ALICE);
        world.pay(BOB, &id, 100);
        world.backup(ALICE);
        world.kill(ALICE);
        world.restore(ALICE, true);
        world.start_tapped(ALICE, tap);
        world.wait_state(ALICE, &id, "open");
        let home = world.home_of(ALICE);
        world.pay(BOB, &id, 20_000);
        assert!(world.stop(ALICE));
        assert_eq!(marked(&home), [""; 0]);
        program(&["rollback", text(&home)]);
        assert_eq!(marked(&home), [id.as_str()]);

        tap.await_end();
        let since = tap.sessions();
        tap.hold(BOB, "");
        for _ in 0..2 {
            world.start_tapped(ALICE, tap);
            assert_eq!(World::channel(&world.list(ALICE), &id)["state"], "waiting");
            refuses(&world, ALICE, &id);
            world.kill(ALICE);
            assert_eq!(marked(&home), [id.as_str()]);
        }
        tap.let_through();
        world.start_tapped(ALICE, tap);
        world.wait_state(ALICE, &id, "blocked");
        assert_eq!(latched(&world, ALICE, &id), Some(HeldState::Blocked));
        world.kill(ALICE);
        tap.await_end();
        assert_eq!(tap.said(since, ALICE), [""; 0]);
    });
}

#[test]
fn keys_and_channels_come_back_in_one_exchange_where_a_directory_stands_already() {
    let mut world = World::new("peer");
    let id = world.open();
    world.pay(ALICE, &id, 1_000);
    world.backup(ALICE);
    world.kill(ALICE);
    let home = world.home_of(ALICE);
    let key = std::fs::read(home.join("identity.key")).unwrap();
    // Somebody has put the keys back by hand before, in a directory of its own.
    std::fs::remove_dir_all(&home).unwrap();
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("identity.key"), "00").unwrap();
    let flags = world.vault_flags();
    let mut restore = vec!["restore", text(&home), "--original-gone", "its disk was burnt"];
    restore.extend(flags.iter().map(String::as_str));
    let refused = run(&restore);
    assert_eq!(refused.status.code(), Some(4));
    assert_eq!(std::fs::read_to_string(home.join("identity.key")).unwrap(), "00");
    assert_eq!(world.restore(ALICE, true)["quarantined"], 1);
    assert_eq!(std::fs::read(home.join("identity.key")).unwrap(), key);
    assert_eq!(marked(&home), [id.as_str()]);
    world.start(ALICE);
    world.connect();
    world.wait_state(ALICE, &id, "open");
    world.pay(BOB, &id, 5);
}
