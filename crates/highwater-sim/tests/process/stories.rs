//! What happens to nodes that are restored, rolled back and copied.

use serde_json::json;

use super::world::{World, program, text};

fn force_close(id: &str) -> serde_json::Value {
    json!({ "command": "force_close", "channel": id })
}

#[test]
fn nodes_open_pay_and_close() {
    let mut world = World::new("peer");
    let id = world.open();
    world.pay(0, &id, 1_000);
    world.pay(1, &id, 300);
    world.ask(0, json!({ "command": "close", "channel": id }));
    assert_eq!(world.paid(&id), (49_300, 50_700));
    world.wait_state(0, &id, "closed");
    world.wait_state(1, &id, "closed");
    assert!(world.stop(0) && world.stop(1));
}

#[test]
fn a_node_without_a_vault_pays_and_backs_nothing_up() {
    let mut world = World::new("peer");
    let id = world.open();
    assert!(world.stop(1));
    world.node(1).vault = false;
    world.start(1);
    world.connect();
    world.pay(0, &id, 1_000);
    let refused = world.reply(1, json!({ "command": "backup" }));
    assert_eq!(refused["error"]["kind"], "input", "{refused}");
}

#[test]
fn a_node_that_is_killed_between_payments_goes_on() {
    let mut world = World::new("witness");
    let id = world.open();
    for round in 0..3 {
        world.pay(0, &id, 1_000);
        world.kill(round % 2);
        world.start(round % 2);
        world.connect();
    }
    world.pay(1, &id, 10);
    world.wait_state(0, &id, "open");
}

#[test]
fn a_restored_node_that_lost_nothing_is_cleared_by_its_peer_and_pays_again() {
    let mut world = World::new("peer");
    let id = world.open();
    world.pay(0, &id, 1_000);
    world.backup(0);
    world.kill(0);
    assert_eq!(world.restore(0, true)["quarantined"], 1);
    world.start(0);
    let waiting = World::channel(&world.list(0), &id);
    assert_eq!(waiting["state"], "waiting");
    assert_eq!(world.reply(0, force_close(&id))["error"]["kind"], "quarantined");
    world.connect();
    world.wait_state(0, &id, "open");
    world.pay(0, &id, 5);
    world.pay(1, &id, 7);
    assert!(!world.home_of(0).join("highwater-quarantine.json").exists());
}

#[test]
fn a_restored_node_that_lost_a_payment_is_blocked_until_its_peer_closes() {
    let mut world = World::new("peer");
    let id = world.open();
    world.backup(0);
    world.pay(1, &id, 20_000);
    world.kill(0);
    world.restore(0, true);
    for _ in 0..2 {
        world.start(0);
        world.connect();
        world.wait_state(0, &id, "blocked");
        assert_eq!(world.reply(0, force_close(&id))["error"]["kind"], "quarantined");
        world.kill(0);
    }
    world.start(0);
    world.wait_state(0, &id, "blocked");
    assert!(world.view(&id)["spend"].is_null());
    world.ask(1, force_close(&id));
    assert_eq!(world.paid(&id), (70_000, 30_000));
    world.wait_state(0, &id, "closed");
}

#[test]
fn a_witness_clears_a_current_node_and_blocks_an_old_one_without_a_peer() {
    let mut world = World::new("witness");
    let id = world.open();
    world.pay(0, &id, 1_000);
    world.backup(0);
    world.kill(0);
    world.restore(0, false);
    world.kill(1);
    world.start(0);
    world.wait_state(0, &id, "open");
    world.start(1);
    world.connect();
    world.pay(0, &id, 5);
    world.kill(0);
    world.restore(0, false);
    world.start(0);
    world.wait_state(0, &id, "blocked");
}

#[test]
fn without_a_statement_that_the_original_is_gone_no_peer_clears_a_restored_node() {
    let mut world = World::new("peer");
    let id = world.open();
    world.backup(0);
    world.kill(0);
    world.restore(0, false);
    world.start(0);
    world.connect();
    let reason = |list: &serde_json::Value| World::channel(list, &id)["reason"].clone();
    world.wait(0, |list| reason(list) == "only a witness that is the node's could clear it");
    assert_eq!(world.reply(0, force_close(&id))["error"]["kind"], "quarantined");
    world.kill(0);
    world.restore(0, true);
    world.start(0);
    world.connect();
    world.wait_state(0, &id, "open");
}

#[test]
fn the_marks_of_a_newer_backup_block_an_older_one_without_a_peer() {
    let mut world = World::new("peer");
    let id = world.open();
    let old = world.backup(0)["snapshot"].clone();
    world.pay(0, &id, 1_000);
    let marks = world.backup(0)["marks"].clone();
    for (name, mark) in [("signed", 2), ("revoked", 2), ("received", 2), ("closing", 0)] {
        assert_eq!(marks[format!("channel.{id}.{name}")], mark, "{marks}");
    }
    world.kill(0);
    world.restore_snapshot(0, true, old.as_str().unwrap());
    world.start(0);
    let channel = World::channel(&world.list(0), &id);
    assert_eq!(
        (channel["state"].clone(), channel["reason"].clone()),
        (json!("blocked"), json!("a backup remembers more than the node"),)
    );
}

#[test]
fn a_rollback_marks_what_comes_back() {
    let mut world = World::new("peer");
    let id = world.open();
    world.backup(0);
    world.kill(0);
    world.restore(0, true);
    world.start(0);
    world.connect();
    world.wait_state(0, &id, "open");
    world.pay(0, &id, 1_000);
    assert!(world.stop(0));
    program(&["rollback", text(&world.home_of(0))]);
    world.start(0);
    assert_eq!(World::channel(&world.list(0), &id)["state"], "waiting");
    world.connect();
    world.wait_state(0, &id, "blocked");
}

#[test]
fn of_a_running_node_and_its_copy_the_later_one_acts() {
    let mut world = World::new("witness");
    let id = world.open();
    world.pay(0, &id, 1_000);
    assert!(world.stop(0));
    let (home, copy) = (world.home_of(0), world.path("copy"));
    let copied = std::process::Command::new("cp").arg("-a").args([&home, &copy]).status();
    assert!(copied.unwrap().success());
    world.start(0);
    world.connect();
    world.set_aside(0);

    // The copy takes the same place, while the original still runs.
    std::fs::rename(&home, world.path("original")).unwrap();
    std::fs::rename(&copy, &home).unwrap();
    world.start(0);
    world.connect();
    let (code, words) = world.last_words_aside();
    assert_eq!((code, &words["error"]["kind"]), (Some(6), &json!("fenced")));
    world.pay(0, &id, 5);
}

#[test]
fn an_operators_release_lets_a_channel_go_on() {
    let mut world = World::new("peer");
    let id = world.open();
    world.backup(0);
    world.kill(0);
    world.kill(1);
    world.restore(0, true);
    world.start(0);
    let release =
        json!({ "command": "release", "channel": id, "reason": "nothing moved", "by": "eve" });
    world.ask(0, release);
    world.wait_state(0, &id, "open");
    world.start(1);
    world.connect();
    world.pay(0, &id, 5);
}

#[cfg(feature = "unguarded")]
#[test]
fn the_same_story_without_the_guard_loses_the_money() {
    for guarded in [true, false] {
        let mut world = World::new("peer");
        let id = world.open();
        world.backup(0);
        world.pay(1, &id, 20_000);
        world.kill(0);
        world.restore(0, true);
        if !guarded {
            world.node(0).flags.push("--unguarded".into());
        }
        world.start(0);
        let closed = world.reply(0, force_close(&id));
        if guarded {
            assert_eq!(closed["error"]["kind"], "quarantined");
            world.ask(1, force_close(&id));
        }
        let kept = if guarded { (70_000, 30_000) } else { (0, 100_000) };
        assert_eq!(world.paid(&id), kept);
    }
}
