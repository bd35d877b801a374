//! The ledger: closes, punishments, claims.

use super::*;

/// What each got in the end.
fn paid<G: Gate>(world: &World<G>, id: &ChannelId) -> (u64, u64) {
    let paid = world.ledger.view(id).paid.expect("it is paid");
    (paid.opener.0, paid.acceptor.0)
}

#[test]
fn an_own_commitment_pays_what_it_says_after_the_delay() {
    let mut world = World::plain();
    let id = world.open();
    world.pay(ALICE, &id, 1_000);
    world.command(ALICE, Command::ForceClose { channel: id.clone() }).unwrap();
    world.blocks(7);
    assert_eq!(paid(&world, &id), (49_000, 51_000));
    assert_eq!(
        (world.state(ALICE, &id), world.state(BOB, &id)),
        (ChannelState::Closed, ChannelState::Closed)
    );
    assert_eq!(world.ledger.paid(&world.id(BOB)), Sats(51_000));
}

#[test]
fn a_revoked_commitment_gives_all_to_the_peer() {
    let mut world = World::plain();
    let id = world.open();
    let old = world.live(ALICE, &id).clone();
    world.pay(ALICE, &id, 1_000);
    let mut old = old;
    let keys = world.parties[ALICE].keys.channel(old.index());
    world.ledger.submit(crate::ledger::Transaction::Commit(old.publish(&keys))).unwrap();
    world.blocks(8);
    assert_eq!(paid(&world, &id), (0, 100_000));
}

#[test]
fn a_proof_claims_a_payment_of_a_published_commitment() {
    let mut world = World::plain();
    let id = world.open();
    let hash = world.offer(ALICE, &id, 1_000).unwrap();
    // Until Bob's commitment has the payment and Bob has the proof in his queue, or beyond.
    while world.live(BOB, &id).balance().pending.is_empty() {
        assert!(world.deliver(BOB) || world.deliver(ALICE));
    }
    world.disconnect();
    world.command(BOB, Command::ForceClose { channel: id.clone() }).unwrap();
    world.blocks(8);
    assert_eq!(paid(&world, &id), (49_000, 51_000));
    assert_eq!(world.payment(ALICE, &hash), PaymentState::Pending);
}

#[test]
fn what_is_not_signed_by_both_or_pays_another_sum_is_refused() {
    let mut world = World::plain();
    let id = world.open();
    let mut channel = world.live(ALICE, &id).clone();
    let keys = world.parties[ALICE].keys.channel(channel.index());
    let good = channel.publish(&keys);
    let refused = |ledger: &mut Ledger, signed| {
        ledger.submit(crate::ledger::Transaction::Commit(signed)).unwrap_err().kind()
    };
    let mut forged = good.clone();
    forged.signatures.acceptor = forged.signatures.opener;
    assert_eq!(refused(&mut world.ledger, forged), highwater::Kind::Input);
    let mut greedy = good;
    greedy.commitment.balance.of.opener += Sats(1);
    assert_eq!(refused(&mut world.ledger, greedy), highwater::Kind::Input);
}
