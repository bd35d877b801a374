//! What was under way at the moment of the backup: payments, and the close of a channel.
//!
//! Shown: G4 G6 G12.

use serde_json::json;

use super::restored::{force_close, refuses};
use super::tap::{Tap, with_tap};
use super::world::{ALICE, BOB, World};

/// Kills Alice, and brings her back from her last backup; what Bob says is held back.
fn bring_back(world: &mut World, tap: &Tap, id: &str) {
    world.kill(ALICE);
    tap.await_end();
    assert_eq!(world.restore(ALICE, true)["quarantined"], 1);
    tap.let_through();
    tap.hold(BOB, "");
    world.start_tapped(ALICE, tap);
    assert_eq!(World::channel(&world.list(ALICE), id)["state"], "waiting");
    refuses(world, ALICE, id);
}

#[test]
fn a_payment_under_way_at_the_backup_arrives_once_the_channel_is_clear() {
    with_tap(|tap| {
        let mut world = World::tapped("peer", tap);
        let id = world.open();
        let (pay, hash) = world.payment(ALICE, &id, 1_000);
        tap.hold(BOB, "update_fulfill");
        world.ask(ALICE, pay);
        tap.await_frame(0, BOB, "update_fulfill");
        assert_eq!(World::channel(&world.list(ALICE), &id)["settled"], false);
        world.backup(ALICE);
        bring_back(&mut world, tap, &id);
        tap.let_through();
        world.wait_state(ALICE, &id, "open");
        world.await_paid(ALICE, &hash);
        world.pay(BOB, &id, 300);
        world.ask(ALICE, force_close(&id));
        assert_eq!(world.paid(&id), (49_300, 50_700));
    });
}

#[test]
fn a_payment_that_arrived_after_the_backup_blocks_the_channel_and_is_paid_once() {
    with_tap(|tap| {
        let mut world = World::tapped("peer", tap);
        let id = world.open();
        let (pay, hash) = world.payment(ALICE, &id, 1_000);
        tap.hold(BOB, "update_fulfill");
        world.ask(ALICE, pay);
        tap.await_frame(0, BOB, "update_fulfill");
        world.backup(ALICE);
        tap.let_through();
        world.await_paid(ALICE, &hash);
        world.wait(BOB, |list| World::channel(list, &id)["settled"] == true);
        bring_back(&mut world, tap, &id);
        tap.let_through();
        world.wait_state(ALICE, &id, "blocked");
        refuses(&world, ALICE, &id);
        world.ask(BOB, force_close(&id));
        assert_eq!(world.paid(&id), (49_000, 51_000));
    });
}

#[test]
fn a_payment_to_a_quarantined_node_is_claimed_where_its_peer_closes() {
    with_tap(|tap| {
        let mut world = World::tapped("peer", tap);
        let id = world.open();
        let (pay, _) = world.payment(BOB, &id, 5_000);
        tap.hold(ALICE, "update_fulfill");
        world.ask(BOB, pay);
        tap.await_frame(0, ALICE, "update_fulfill");
        world.backup(ALICE);
        bring_back(&mut world, tap, &id);
        world.ask(BOB, force_close(&id));
        assert_eq!(world.paid(&id), (55_000, 45_000));
        world.wait_state(ALICE, &id, "closed");
    });
}

#[test]
fn a_channel_that_was_closing_goes_on_closing_once_it_is_clear() {
    for (moment, closing) in [("shutdown", 0), ("closing_signed", 1)] {
        with_tap(|tap| {
            let mut world = World::tapped("peer", tap);
            let id = world.open();
            world.pay(ALICE, &id, 1_000);
            tap.hold(ALICE, moment);
            tap.hold(BOB, moment);
            world.ask(ALICE, json!({ "command": "close", "channel": id }));
            tap.await_frame(0, ALICE, moment);
            assert_eq!(World::channel(&world.list(ALICE), &id)["state"], "closing");
            let marks = world.backup(ALICE)["marks"].clone();
            assert_eq!(marks[format!("channel.{id}.closing")], closing, "{marks}");
            bring_back(&mut world, tap, &id);
            assert!(world.view(&id)["spend"].is_null());
            tap.let_through();
            assert_eq!(world.paid(&id), (49_000, 51_000));
            world.wait_state(ALICE, &id, "closed");
            assert_eq!(world.view(&id)["spend"]["close"]["close"]["channel"], json!(id));
        });
    }
}

#[cfg(feature = "unguarded")]
#[test]
fn a_peer_that_publishes_a_revoked_commitment_is_punished_from_quarantine() {
    with_tap(|tap| {
        let mut world = World::tapped("peer", tap);
        let id = world.open();
        world.backup(BOB);
        world.pay(BOB, &id, 30_000);
        world.backup(ALICE);
        world.kill(ALICE);
        world.kill(BOB);
        world.restore(BOB, true);
        world.node(BOB).flags.push("--unguarded".into());
        world.start_tapped(BOB, tap);
        let since = tap.sessions();
        bring_back(&mut world, tap, &id);
        world.ask(BOB, force_close(&id));
        assert_eq!(world.paid(&id), (100_000, 0));
        assert_eq!(world.view(&id)["punished"], true);
        world.wait_state(ALICE, &id, "closed");
        world.kill(ALICE);
        tap.await_end();
        assert_eq!(tap.said_about(since, ALICE, &id), [""; 0]);
    });
}
