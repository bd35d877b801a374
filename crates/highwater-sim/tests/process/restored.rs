//! The story that the project is about: a node with several channels is backed up, goes on in some of
//! them, is killed and brought back from the backup, with all that it says recorded on the wire.
//!
//! Shown: G1 G2 G3 G4 G6 G7 G8 and the incidents I3 I4 I24 I25.

use highwater::guard::HeldState;
use serde_json::{Value, json};

use super::tap::{Tap, with_tap};
use super::world::{ALICE, BOB, World};

pub(crate) fn force_close(id: &str) -> Value {
    json!({ "command": "force_close", "channel": id })
}

/// Everything by which an operator could make a channel speak is refused.
pub(crate) fn refuses(world: &World, who: usize, id: &str) {
    let pay = json!({ "command": "pay", "channel": id, "amount": 1, "hash": "03".repeat(32) });
    let close = json!({ "command": "close", "channel": id });
    for command in [pay, close, force_close(id)] {
        let reply = world.reply(who, command.clone());
        assert_eq!(reply["error"]["kind"], "quarantined", "{command}: {reply}");
    }
}

/// How a channel stands in the latch of a node directory.
pub(crate) fn latched(world: &World, who: usize, id: &str) -> Option<HeldState> {
    let held = highwater::guard::list(&world.home_of(who)).unwrap();
    held.into_iter().find(|held| held.id == id).map(|held| held.state)
}

/// A node with two channels, brought back from a backup after which `busy` has moved and `quiet` has
/// not. Bob's words are held back: nothing was heard yet.
pub(crate) struct Restored {
    pub(crate) world: World,
    pub(crate) quiet: String,
    pub(crate) busy: String,
    /// The first session since.
    pub(crate) since: usize,
}

impl Restored {
    pub(crate) fn new(policy: &'static str, flags: &[&str], tap: &Tap) -> Restored {
        let mut world = World::tapped(policy, tap);
        let (quiet, busy) = (world.open(), world.open());
        world.pay(ALICE, &quiet, 1_000);
        world.pay(BOB, &busy, 100);
        world.backup(ALICE);
        world.pay(BOB, &busy, 20_000);
        world.pay(BOB, &busy, 400);
        world.kill(ALICE);
        tap.await_end();
        assert_eq!(world.restore(ALICE, true)["quarantined"], 2);
        tap.hold(BOB, "");
        let since = tap.sessions();
        world.node(ALICE).flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        world.start_tapped(ALICE, tap);
        tap.await_frame(since, BOB, "\"reestablish\"");
        Restored { world, quiet, busy, since }
    }
}

#[test]
fn a_restored_node_is_silent_until_it_is_judged_and_loses_nothing() {
    with_tap(|tap| {
        let Restored { mut world, quiet, busy, since } = Restored::new("peer", &[], tap);
        // Killed and started again in quarantine, it is as silent, and listens.
        for _ in 0..2 {
            for id in [&quiet, &busy] {
                assert_eq!(World::channel(&world.list(ALICE), id)["state"], "waiting");
                assert_eq!(latched(&world, ALICE, id), Some(HeldState::Waiting));
                refuses(&world, ALICE, id);
            }
            world.kill(ALICE);
            tap.await_end();
            world.start_tapped(ALICE, tap);
        }
        assert!(tap.sessions() >= since + 3);
        assert_eq!(tap.said(since, ALICE), [""; 0]);

        tap.let_through();
        world.wait_state(ALICE, &busy, "blocked");
        world.wait_state(ALICE, &quiet, "open");
        world.pay(ALICE, &quiet, 10);
        world.pay(BOB, &quiet, 7);
        assert_eq!(latched(&world, ALICE, &busy), Some(HeldState::Blocked));
        refuses(&world, ALICE, &busy);
        world.advance(3);
        assert!(world.view(&busy)["spend"].is_null(), "nobody has closed it");

        // The way out of the blocked one: its peer closes.
        world.ask(BOB, force_close(&busy));
        assert_eq!(world.paid(&busy), (70_500, 29_500));
        world.wait_state(ALICE, &busy, "closed");
        world.ask(ALICE, json!({ "command": "close", "channel": quiet }));
        assert_eq!(world.paid(&quiet), (48_997, 51_003));

        world.kill(ALICE);
        tap.await_end();
        assert_eq!(tap.said_about(since, ALICE, &busy), [""; 0]);
        assert!(tap.listened_first(since, ALICE, &quiet));
        assert!(!tap.said_about(since, ALICE, &quiet).is_empty());
    });
}

#[cfg(feature = "unguarded")]
#[test]
fn the_same_node_without_the_guard_is_punished_and_loses_the_channel() {
    with_tap(|tap| {
        let Restored { mut world, quiet, busy, since } =
            Restored::new("peer", &["--unguarded"], tap);
        // It speaks of both channels at once, and its operator, whose peer does not answer, closes.
        tap.await_frame(since, ALICE, &quiet);
        tap.await_frame(since, ALICE, &busy);
        world.ask(ALICE, force_close(&busy));
        assert_eq!(world.paid(&busy), (0, 100_000));
        assert_eq!(world.view(&busy)["punished"], true);
        assert!(!tap.listened_first(since, ALICE, &quiet));
        world.kill(ALICE);
    });
}
