//! Both nodes are brought back from backups, and nobody remembers for certain.
//!
//! Shown: G3 G4 G7 G8.

use highwater::guard::HeldState;
use serde_json::json;

use super::restored::{latched, refuses};
use super::tap::with_tap;
use super::world::{ALICE, BOB, World};

#[test]
fn two_restored_nodes_both_wait_until_an_operator_releases_one() {
    with_tap(|tap| {
        let mut world = World::tapped("peer", tap);
        let (quiet, busy) = (world.open(), world.open());
        world.pay(ALICE, &quiet, 1_000);
        world.backup(ALICE);
        world.pay(BOB, &busy, 5_000);
        world.backup(BOB);
        for who in [ALICE, BOB] {
            world.kill(who);
            assert_eq!(world.restore(who, true)["quarantined"], 2);
        }
        tap.await_end();
        let since = tap.sessions();
        world.start_tapped(BOB, tap);
        world.start_tapped(ALICE, tap);
        world.advance(10);
        for who in [ALICE, BOB] {
            for id in [&quiet, &busy] {
                assert_eq!(World::channel(&world.list(who), id)["state"], "waiting");
                refuses(&world, who, id);
                assert!(world.view(id)["spend"].is_null(), "nobody closes");
            }
        }
        world.kill(ALICE);
        tap.await_end();
        for who in [ALICE, BOB] {
            assert_eq!(tap.said(since, who), [""; 0]);
        }
        world.start_tapped(ALICE, tap);

        // Bob's backup was the newer one, and his operator knows that nothing came after it.
        let release = |id: &str, reason: &str| json!({ "command": "release", "channel": id, "reason": reason, "by": "eve" });
        let unfounded = world.reply(BOB, release(&quiet, " "));
        assert_eq!(unfounded["error"]["kind"], "input", "{unfounded}");
        for id in [&quiet, &busy] {
            world.ask(BOB, release(id, "his log ends with that backup"));
        }
        world.wait_state(ALICE, &quiet, "open");
        world.wait_state(ALICE, &busy, "blocked");
        assert_eq!(latched(&world, ALICE, &busy), Some(HeldState::Blocked));
        world.pay(ALICE, &quiet, 10);
        let last = world.home_of(BOB).join(".highwater/quarantine.last.json");
        let recorded = std::fs::read_to_string(last).unwrap();
        assert!(recorded.contains("his log ends with that backup") && recorded.contains("eve"));

        world.kill(ALICE);
        tap.await_end();
        assert_eq!(tap.said_about(since, ALICE, &busy), [""; 0]);
        assert!(tap.listened_first(since, ALICE, &quiet));
    });
}
