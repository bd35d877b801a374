//! The witness in the vault: it is asked at every start, and of two copies one can act.
//!
//! Shown: G9 G11 X2 and the incident I24, where no restore was involved.

use std::path::Path;

use highwater::guard::HeldState;
use serde_json::json;

use super::marks::marked;
use super::restored::{Restored, latched, refuses};
use super::tap::with_tap;
use super::world::{ALICE, BOB, World};

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

#[test]
fn the_witness_condemns_and_clears_a_restored_node_before_its_peer_has_said_a_word() {
    with_tap(|tap| {
        let Restored { mut world, quiet, busy, since } = Restored::new("witness", &[], tap);
        world.wait_state(ALICE, &quiet, "open");
        let blocked = world.wait_state(ALICE, &busy, "blocked");
        assert_eq!(blocked["reason"], "the witness remembers more than the node");
        refuses(&world, ALICE, &busy);
        tap.let_through();
        world.pay(ALICE, &quiet, 10);
        world.kill(ALICE);
        tap.await_end();
        assert_eq!(tap.said_about(since, ALICE, &busy), [""; 0]);
    });
}

#[test]
fn an_old_copy_of_a_node_directory_is_condemned_at_its_start() {
    with_tap(|tap| {
        let mut world = World::tapped("witness", tap);
        let id = world.open();
        world.pay(ALICE, &id, 1_000);
        assert!(world.stop(ALICE));
        let (home, old) = (world.home_of(ALICE), world.path("old"));
        copy(&home, &old);
        world.start_tapped(ALICE, tap);
        world.pay(BOB, &id, 20_000);
        world.kill(ALICE);
        tap.await_end();

        // No restore of ours: there is neither a latch nor a mark in it.
        std::fs::rename(&home, world.path("lost")).unwrap();
        std::fs::rename(&old, &home).unwrap();
        assert!(marked(&home).is_empty() && latched(&world, ALICE, &id).is_none());
        let since = tap.sessions();
        tap.hold(BOB, "");
        for _ in 0..2 {
            world.start_tapped(ALICE, tap);
            assert_eq!(World::channel(&world.list(ALICE), &id)["state"], "blocked");
            assert_eq!(latched(&world, ALICE, &id), Some(HeldState::Blocked));
            refuses(&world, ALICE, &id);
            world.kill(ALICE);
        }
        tap.await_end();
        assert_eq!(tap.said(since, ALICE), [""; 0]);
    });
}

#[test]
fn of_a_clone_and_its_original_the_one_that_lost_ends_before_its_next_message() {
    with_tap(|tap| {
        let mut world = World::tapped("witness", tap);
        let id = world.open();
        world.pay(ALICE, &id, 1_000);
        assert!(world.stop(ALICE));
        let (home, clone, original) =
            (world.home_of(ALICE), world.path("clone"), world.path("original"));
        copy(&home, &clone);
        world.start_tapped(ALICE, tap);
        world.pay(ALICE, &id, 10);

        // The clone starts elsewhere while the original runs and is connected.
        world.set_aside(ALICE);
        std::fs::rename(&home, &original).unwrap();
        std::fs::rename(&clone, &home).unwrap();
        let wire = std::mem::take(&mut world.node(ALICE).flags);
        let said = tap.said(0, ALICE);
        world.start(ALICE);
        assert_eq!(World::channel(&world.list(ALICE), &id)["state"], "blocked");
        let (pay, _) = world.payment(BOB, &id, 100);
        world.ask(BOB, pay);
        let (code, words) = world.last_words_aside();
        assert_eq!((code, &words["error"]["kind"]), (Some(6), &json!("fenced")));
        tap.await_end();
        assert_eq!(tap.said(0, ALICE), said);

        // The original, which lacks nothing, is the one to start: it takes the witness back.
        assert!(world.stop(ALICE));
        std::fs::rename(&home, &clone).unwrap();
        std::fs::rename(&original, &home).unwrap();
        world.node(ALICE).flags = wire;
        world.start_tapped(ALICE, tap);
        world.wait_state(ALICE, &id, "open");
        world.pay(ALICE, &id, 5);
    });
}

#[test]
fn while_the_witness_is_out_of_reach_nothing_is_signed_and_it_goes_on_when_it_is_back() {
    with_tap(|tap| {
        let mut world = World::tapped("witness", tap);
        let id = world.open();
        world.pay(ALICE, &id, 1_000);
        let (vault, away) = (world.path("vault"), world.path("away"));
        std::fs::rename(&vault, &away).unwrap();
        let (ours, our_hash) = world.payment(ALICE, &id, 200);
        let (theirs, their_hash) = world.payment(BOB, &id, 30);
        let said = tap.said(0, ALICE);
        let refused = world.reply(ALICE, ours);
        assert_eq!(refused["error"]["kind"], "unavailable", "{refused}");
        world.ask(BOB, theirs);
        // Its sessions end, and begin anew, again and again; it says nothing in any of them.
        let sessions = tap.sessions();
        world.wait(BOB, |_| tap.sessions() > sessions + 2);
        assert_eq!(tap.said(0, ALICE), said);
        assert_eq!(World::channel(&world.list(BOB), &id)["settled"], false);

        std::fs::rename(&away, &vault).unwrap();
        world.await_paid(ALICE, &our_hash);
        world.await_paid(BOB, &their_hash);
        world.wait_state(ALICE, &id, "open");
        world.pay(ALICE, &id, 4);
        world.kill(ALICE);
    });
}
