//! What a restored node does, and what it does not do, by the word of its peer.

use highwater::Kind;
use highwater_guard::{Policy, Reason, Release, Verdict};

use super::*;
use crate::ledger::Transaction;

/// A world under the library's guard with an open channel, and Alice's disk at this moment.
fn backed_up() -> (World<Guard>, ChannelId, Disk) {
    let (mut world, _) = guarded(Policy::Peer);
    let id = world.open();
    world.pay(ALICE, &id, 1_000);
    let image = world.parties[ALICE].disk.image();
    (world, id, image)
}

fn quarantined(result: Result<Answer, Error>) {
    assert_eq!(result.unwrap_err().kind(), Kind::Quarantined);
}

/// Everything by which an operator could make a channel speak is refused.
fn refuses(world: &mut World<Guard>, who: Who, id: &ChannelId) {
    let channel = id.clone();
    quarantined(world.command(who, Command::Close { channel: channel.clone() }));
    quarantined(world.command(who, Command::ForceClose { channel: channel.clone() }));
    let (amount, hash) = (Sats(1), PaymentHash([3; 32]));
    quarantined(world.command(who, Command::Pay { channel, amount, hash }));
}

#[test]
fn a_quarantined_channel_is_silent_at_start_at_connect_and_at_reconnect() {
    let (mut world, id, alice) = backed_up();
    let bob = world.parties[BOB].disk.image();
    world.restore(ALICE, &alice);
    world.restore(BOB, &bob);
    let since = world.said.len();
    for _ in 0..3 {
        world.start(ALICE);
        world.start(BOB);
        world.connect();
        world.run();
        world.blocks(2);
        world.disconnect();
        world.connect();
        world.run();
        for who in [ALICE, BOB] {
            assert_eq!(world.state(who, &id), ChannelState::Waiting);
            refuses(&mut world, who, &id);
        }
        world.crash(ALICE);
        world.crash(BOB);
    }
    assert_eq!(world.said.len(), since, "{:?}", &world.said[since..]);
    assert_eq!(world.ledger.view(&id).spend, None);
}

#[test]
fn the_peers_reestablish_clears_a_channel_that_lost_nothing_and_it_pays_again() {
    let (mut world, id, image) = backed_up();
    let since = world.said.len();
    world.restore(ALICE, &image);
    world.start(ALICE);
    world.connect();
    assert!(world.said_since(ALICE, since).is_empty());
    assert_eq!(world.state(ALICE, &id), ChannelState::Waiting);
    assert!(world.deliver(ALICE), "Bob speaks first");
    assert_eq!(world.state(ALICE, &id), ChannelState::Open);
    world.run();
    world.pay(ALICE, &id, 500);
    world.pay(BOB, &id, 700);
    world.agreed(&id);
    // The mark is gone for good.
    world.restart(ALICE);
    world.run();
    world.agreed(&id);
}

#[test]
fn a_release_lets_a_channel_go_on_and_answers_what_was_heard_before() {
    let (mut world, id, alice) = backed_up();
    let bob = world.parties[BOB].disk.image();
    world.restore(ALICE, &alice);
    world.restore(BOB, &bob);
    world.start(ALICE);
    world.start(BOB);
    world.connect();
    world.run();
    let release = Release::new("both were restored from the same hour", "eve").unwrap();
    let outcome = world.driver(BOB).release(&id, &release).unwrap();
    world.effects(BOB, outcome);
    world.run();
    // Bob's word cleared Alice, who answered it in the same session.
    world.agreed(&id);
    world.pay(ALICE, &id, 10);
    world.restart(BOB);
    world.run();
    world.agreed(&id);
}

#[test]
fn one_lost_revocation_blocks_for_good_until_the_peer_closes() {
    let (mut world, id, image) = backed_up();
    let revoked =
        |world: &mut World<Guard>| highwater_guard::Channel::ours(world.live(ALICE, &id)).revoked;
    let before = revoked(&mut world);
    world.offer(BOB, &id, 5_000).unwrap();
    while highwater_guard::Channel::ours(world.live(BOB, &id)).received == before {
        assert!(world.deliver(ALICE) || world.deliver(BOB));
    }
    assert_eq!(revoked(&mut world), before + 1);
    world.restore(ALICE, &image);
    let since = world.said.len();
    for _ in 0..3 {
        world.start(ALICE);
        world.connect();
        world.run();
        world.blocks(1);
        assert_eq!(world.state(ALICE, &id), ChannelState::Blocked);
        refuses(&mut world, ALICE, &id);
        world.crash(ALICE);
    }
    let lost = quarantine_reason(Reason::RevocationLost);
    world.start(ALICE);
    assert_eq!(world.listed(ALICE, &id).reason.as_deref(), Some(lost));
    assert!(world.said_since(ALICE, since).is_empty());
    assert_eq!(world.ledger.view(&id).spend, None);

    world.command(BOB, Command::ForceClose { channel: id.clone() }).unwrap();
    world.blocks(8);
    assert_eq!(world.state(ALICE, &id), ChannelState::Closed);
    let paid = world.ledger.view(&id).paid.unwrap();
    assert_eq!(paid.opener + paid.acceptor, Sats(100_000));
    assert!(paid.opener >= Sats(49_000), "{paid:?}");
}

fn quarantine_reason(reason: Reason) -> &'static str {
    crate::node::words(Verdict::Blocked(reason))
}

#[test]
fn channels_are_judged_each_by_itself() {
    let (mut world, quiet, _) = backed_up();
    let busy = world.open();
    let image = world.parties[ALICE].disk.image();
    world.pay(BOB, &busy, 2_000);
    world.restore(ALICE, &image);
    world.start(ALICE);
    world.connect();
    world.run();
    assert_eq!(world.state(ALICE, &quiet), ChannelState::Open);
    assert_eq!(world.state(ALICE, &busy), ChannelState::Blocked);
    world.pay(ALICE, &quiet, 10);
    assert_eq!(world.state(ALICE, &busy), ChannelState::Blocked);
}

#[test]
fn a_revoked_commitment_that_the_peer_publishes_is_punished_in_quarantine() {
    let (mut world, id, _) = backed_up();
    let mut old = world.live(BOB, &id).clone();
    world.pay(BOB, &id, 30_000);
    let image = world.parties[ALICE].disk.image();
    world.restore(ALICE, &image);
    world.start(ALICE);
    assert_eq!(world.state(ALICE, &id), ChannelState::Waiting);
    let keys = world.parties[BOB].keys.channel(old.index());
    world.ledger.submit(Transaction::Commit(old.publish(&keys))).unwrap();
    world.blocks(8);
    let alice = world.id(ALICE);
    assert_eq!(world.ledger.paid(&alice), Sats(100_000));
    assert_eq!(world.state(ALICE, &id), ChannelState::Closed);
}

#[test]
fn a_commitment_that_we_published_and_forgot_keeps_us_silent_whatever_the_peer_says() {
    for seen_first in [true, false] {
        let (mut world, id, image) = backed_up();
        world.command(ALICE, Command::ForceClose { channel: id.clone() }).unwrap();
        world.crash(ALICE);
        world.restore(ALICE, &image);
        let since = world.said.len();
        world.start_unseeing(ALICE);
        if seen_first {
            world.look();
        }
        world.connect();
        world.run();
        assert_eq!(world.state(ALICE, &id), ChannelState::Waiting);
        world.look();
        assert_eq!(world.state(ALICE, &id), ChannelState::Waiting);
        assert!(world.said_since(ALICE, since).is_empty());
        world.blocks(8);
        assert_eq!(world.state(ALICE, &id), ChannelState::Closed);
        assert!(!world.ledger.view(&id).punished);
    }
}

#[test]
fn a_closing_channel_resumes_closing_once_it_is_clear() {
    let (mut world, id, _) = backed_up();
    world.command(ALICE, Command::Close { channel: id.clone() }).unwrap();
    for _ in 0..2 {
        assert!(world.deliver(BOB) || world.deliver(ALICE));
    }
    let image = world.parties[ALICE].disk.image();
    world.restore(ALICE, &image);
    world.start(ALICE);
    world.connect();
    world.run();
    world.blocks(2);
    for who in [ALICE, BOB] {
        assert_eq!(world.state(who, &id), ChannelState::Closed);
    }
    assert_eq!(world.ledger.view(&id).paid.unwrap().opener, Sats(49_000));
}

/// Two crossing payments, delivered in turns; the disk of Alice after `backup` messages, restored
/// after `crash` of them.
fn restored_between(backup: usize, crash: usize) -> Option<(World<Guard>, ChannelId, bool)> {
    let (mut world, _) = guarded(Policy::Peer);
    let id = world.open();
    world.offer(ALICE, &id, 1_000).unwrap();
    world.offer(BOB, &id, 300).unwrap();
    let deliver = |world: &mut World<Guard>, count: usize| {
        (0..count).all(|turn| world.deliver(turn % 2) || world.deliver(1 - turn % 2))
    };
    if !deliver(&mut world, backup) {
        return None;
    }
    let image = world.parties[ALICE].disk.image();
    let then = world.driver(ALICE).node().live(&id).unwrap().clone();
    if !deliver(&mut world, crash) {
        return None;
    }
    let same = *world.driver(ALICE).node().live(&id).unwrap() == then;
    world.restore(ALICE, &image);
    world.start(ALICE);
    world.connect();
    world.run();
    Some((world, id, same))
}

#[test]
fn between_any_two_moments_of_two_payments_a_restore_is_clear_only_where_it_is_safe() {
    let (mut clear, mut blocked) = (0, 0);
    for backup in 0.. {
        let Some(_) = restored_between(backup, 0) else { break };
        for crash in 0.. {
            let Some((mut world, id, same)) = restored_between(backup, crash) else { break };
            match world.state(ALICE, &id) {
                ChannelState::Open => {
                    clear += 1;
                    world.agreed(&id);
                    // It may publish what it holds: nobody can punish it.
                    world.command(ALICE, Command::ForceClose { channel: id.clone() }).unwrap();
                    world.blocks(8);
                    assert!(!world.ledger.view(&id).punished, "{backup} {crash}");
                }
                ChannelState::Blocked => {
                    blocked += 1;
                    assert!(!same, "{backup} {crash}: nothing was lost");
                }
                other => panic!("{backup} {crash}: {other:?}"),
            }
        }
    }
    assert!(clear > 10 && blocked > 10, "{clear} {blocked}");
}
