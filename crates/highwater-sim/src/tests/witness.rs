//! What a witness adds: it is asked at every start, and of several copies one can act.

use highwater_guard::{Policy, Reason, Verdict};

use super::*;

fn ours(world: &mut World<Guard>, id: &ChannelId) -> highwater_guard::Ours {
    highwater_guard::Channel::ours(world.live(ALICE, id))
}

/// Takes Alice back to another disk, as `cp` does: without a mark.
fn copy(world: &mut World<Guard>, image: &Disk) {
    world.crash(ALICE);
    world.parties[ALICE].disk = image.image();
}

fn reason(world: &mut World<Guard>, id: &ChannelId) -> Option<String> {
    world.listed(ALICE, id).reason
}

fn words(reason: Reason) -> Option<String> {
    Some(crate::node::words(Verdict::Blocked(reason)).to_owned())
}

#[test]
fn a_disk_that_was_taken_back_is_found_out_at_the_start_without_a_peer() {
    let (mut world, _) = guarded(Policy::Witness);
    let id = world.open();
    let image = world.parties[ALICE].disk.image();
    world.pay(BOB, &id, 5_000);
    copy(&mut world, &image);
    let since = world.said.len();
    world.start(ALICE);
    assert_eq!(world.state(ALICE, &id), ChannelState::Blocked);
    assert_eq!(reason(&mut world, &id), words(Reason::WitnessAhead));
    world.connect();
    world.run();
    assert!(world.said_since(ALICE, since).is_empty());
}

#[test]
fn a_current_disk_is_clear_at_the_start_without_a_peer() {
    let (mut world, _) = guarded(Policy::Witness);
    let id = world.open();
    world.pay(BOB, &id, 5_000);
    let image = world.parties[ALICE].disk.image();
    world.restore(ALICE, &image);
    world.start(ALICE);
    assert_eq!(world.state(ALICE, &id), ChannelState::Open);
    world.connect();
    world.run();
    world.pay(ALICE, &id, 10);
    world.agreed(&id);
}

#[test]
fn nothing_leaves_while_the_witness_is_out_of_reach_and_all_does_once_it_is_back() {
    let (mut world, places) = guarded(Policy::Witness);
    let id = world.open();
    let hash = world.invoice(BOB);
    let since = world.said.len();
    places[ALICE].witness.cut_off(true);
    let pay = Command::Pay { channel: id.clone(), amount: Sats(10), hash };
    let failure = world.driver(ALICE).handle(Input::Command(pay)).unwrap_err();
    assert!(matches!(failure, Failure::Silent(_)), "{failure:?}");
    world.disconnect();
    assert!(world.said_since(ALICE, since).is_empty());
    places[ALICE].witness.cut_off(false);
    world.connect();
    world.run();
    assert!(matches!(world.payment(ALICE, &hash), PaymentState::Paid(_)));
    world.agreed(&id);
}

#[test]
fn a_crash_between_the_store_and_the_witness_is_cleared_at_any_point_of_a_payment() {
    for messages in 0.. {
        let (mut world, places) = guarded(Policy::Witness);
        let id = world.open();
        let sent = world.offer(ALICE, &id, 1_000).unwrap();
        let got = world.offer(BOB, &id, 300).unwrap();
        let deliver = |world: &mut World<Guard>, turn: usize| {
            world.deliver(turn % 2) || world.deliver(1 - turn % 2)
        };
        let more = (0..messages).all(|turn| deliver(&mut world, turn));
        places[ALICE].witness.cut_off(true);
        world.deliver(ALICE);
        places[ALICE].witness.cut_off(false);
        world.restart(ALICE);
        world.run();
        world.agreed(&id);
        assert!(matches!(world.payment(ALICE, &sent), PaymentState::Paid(_)));
        assert!(matches!(world.payment(BOB, &got), PaymentState::Paid(_)));
        if !more {
            break;
        }
    }
}

#[test]
fn of_a_clone_and_its_original_one_can_act() {
    let (mut world, _) = guarded(Policy::Witness);
    let id = world.open();
    let hash = world.invoice(BOB);
    let mut original = world.parties[ALICE].driver.take().unwrap();
    world.disconnect();
    let image = world.parties[ALICE].disk.image();
    world.parties[ALICE].disk = image;
    world.start(ALICE);
    world.connect();
    world.run();
    let bob = world.id(BOB);
    for input in [
        Input::Connected(bob),
        Input::Command(Command::Pay { channel: id.clone(), amount: Sats(10), hash }),
        Input::Command(Command::ForceClose { channel: id.clone() }),
    ] {
        let failure = original.handle(input).unwrap_err();
        assert!(matches!(failure, Failure::Stopped(_)), "{failure:?}");
        assert_eq!(failure.into_error().kind(), highwater::Kind::Fenced);
    }
    world.pay(ALICE, &id, 10);
    world.agreed(&id);
}

#[test]
fn equal_numbers_of_another_history_are_condemned() {
    let (mut world, places) = guarded(Policy::Witness);
    let id = world.open();
    world.pay(ALICE, &id, 10);
    let image = world.parties[ALICE].disk.image();
    let before = ours(&mut world, &id);

    // The original stores a signature that neither the witness nor the peer gets to see.
    let hash = world.invoice(BOB);
    places[ALICE].witness.cut_off(true);
    let pay = Command::Pay { channel: id.clone(), amount: Sats(77), hash };
    assert!(world.driver(ALICE).handle(Input::Command(pay)).is_err());
    places[ALICE].witness.cut_off(false);
    let original = world.parties[ALICE].disk.image();

    // A copy from before goes on, and signs something else under the same number.
    copy(&mut world, &image);
    world.start(ALICE);
    world.connect();
    world.run();
    world.offer(ALICE, &id, 33).unwrap();
    world.deliver(BOB);
    assert_eq!(ours(&mut world, &id).signed, before.signed.map(|signed| signed + 1));

    copy(&mut world, &original);
    let since = world.said.len();
    world.start(ALICE);
    world.connect();
    world.run();
    assert_eq!(reason(&mut world, &id), words(Reason::MovedElsewhere));
    assert!(world.said_since(ALICE, since).is_empty());
}

#[test]
fn keys_of_a_channel_that_is_lacking_are_never_used_again() {
    let (mut world, _) = guarded(Policy::Witness);
    let first = world.open();
    let image = world.parties[ALICE].disk.image();
    let second = world.open();
    copy(&mut world, &image);
    world.start(ALICE);
    let lacking: Vec<ChannelId> = world.driver(ALICE).node().lacking().cloned().collect();
    assert_eq!(lacking, std::slice::from_ref(&second));
    world.connect();
    world.run();
    assert_eq!(world.state(ALICE, &first), ChannelState::Open);
    let third = world.open();
    assert!(third != second && third != first);
    let index = world.live(ALICE, &third).index();
    assert_eq!(index, 3);
}
