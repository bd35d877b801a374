//! The wire is cut, or a node crashes, at each single point of two crossing payments; afterwards all
//! payments end, and both agree.

use super::*;

/// A world with an open channel in which three payments are on their way: one each way, crossing,
/// and one that nobody knows the preimage of.
fn crossing() -> (World<PeerGate>, ChannelId, Vec<(Who, PaymentHash)>) {
    let mut world = World::plain();
    let id = world.open();
    world.pay(ALICE, &id, 7);
    let mut payments = Vec::new();
    payments.push((ALICE, world.offer(ALICE, &id, 1_000).unwrap()));
    payments.push((BOB, world.offer(BOB, &id, 300).unwrap()));
    let unknown = PaymentHash([9; 32]);
    let (channel, amount) = (id.clone(), Sats(20));
    world.command(ALICE, Command::Pay { channel, amount, hash: unknown }).unwrap();
    payments.push((ALICE, unknown));
    (world, id, payments)
}

fn ended(world: &mut World<PeerGate>, id: &ChannelId, payments: &[(Who, PaymentHash)]) {
    world.agreed(id);
    for (from, hash) in payments {
        let state = world.payment(*from, hash);
        match hash.0 == [9; 32] {
            true => assert_eq!(state, PaymentState::Failed),
            false => assert!(matches!(state, PaymentState::Paid(_)), "{state:?}"),
        }
    }
    assert_eq!(world.live(ALICE, id).balances(), (Sats(49_293), Sats(50_707)));
}

/// Delivers so many messages, in turns; `false` where there were fewer.
fn deliver(world: &mut World<PeerGate>, messages: usize) -> bool {
    (0..messages).all(|turn| {
        let first = turn % 2;
        world.deliver(first) || world.deliver(1 - first)
    })
}

#[test]
fn payments_cross_and_arrive() {
    let (mut world, id, payments) = crossing();
    world.run();
    ended(&mut world, &id, &payments);
}

#[test]
fn a_cut_after_any_message_loses_no_payment() {
    let mut cuts = 0;
    for messages in 0.. {
        let (mut world, id, payments) = crossing();
        let more = deliver(&mut world, messages);
        world.disconnect();
        world.connect();
        world.run();
        ended(&mut world, &id, &payments);
        if !more {
            break;
        }
        // And a second cut, at each point after the first.
        for again in 0.. {
            let (mut world, id, payments) = crossing();
            deliver(&mut world, messages);
            world.disconnect();
            world.connect();
            let more = deliver(&mut world, again);
            world.disconnect();
            world.connect();
            world.run();
            ended(&mut world, &id, &payments);
            cuts += 1;
            if !more {
                break;
            }
        }
    }
    assert!(cuts > 100, "{cuts}");
}

#[test]
fn a_crash_before_or_after_any_commit_loses_no_payment() {
    let mut crashes = 0;
    for who in [ALICE, BOB] {
        for cut in [Cut::BeforeSync, Cut::AfterSync] {
            for messages in 0.. {
                let (mut world, id, payments) = crossing();
                if !deliver(&mut world, messages) {
                    break;
                }
                world.driver(who).store_mut().cut(cut);
                world.run();
                crashes += usize::from(!world.runs(who));
                world.restart(who);
                world.run();
                ended(&mut world, &id, &payments);
            }
        }
    }
    assert!(crashes > 40, "{crashes}");
}

#[test]
fn a_cut_after_any_message_of_a_close_still_closes() {
    for messages in 0.. {
        let (mut world, id, _) = crossing();
        world.command(ALICE, Command::Close { channel: id.clone() }).unwrap();
        let more = deliver(&mut world, messages);
        world.disconnect();
        world.connect();
        world.run();
        world.blocks(2);
        assert_eq!(
            (world.state(ALICE, &id), world.state(BOB, &id)),
            (ChannelState::Closed, ChannelState::Closed)
        );
        let paid = world.ledger.view(&id).paid.expect("it is paid");
        assert_eq!(paid.opener + paid.acceptor, Sats(100_000));
        if !more {
            break;
        }
    }
}
