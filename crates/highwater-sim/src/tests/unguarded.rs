//! The stories of the guard's tests with the guard switched off: the money is lost.

use super::*;

#[test]
fn without_the_guard_a_restored_node_publishes_a_revoked_commitment_and_loses_all() {
    for guarded in [true, false] {
        let gate = || PeerGate::default();
        let blind = || PeerGate::unguarded();
        let alices: Box<dyn Fn() -> PeerGate> =
            if guarded { Box::new(gate) } else { Box::new(blind) };
        let mut world = World::new([alices, Box::new(gate)]);
        let id = world.open();
        let backup = world.parties[ALICE].disk.image();
        world.pay(BOB, &id, 20_000);
        world.restore(ALICE, &backup);
        world.start(ALICE);
        // Bob is not there, and the operator of the restored node wants the money.
        let closed = world.command(ALICE, Command::ForceClose { channel: id.clone() });
        world.blocks(8);
        if guarded {
            assert_eq!(closed.unwrap_err().kind(), highwater::Kind::Quarantined);
            assert_eq!(world.ledger.view(&id).spend, None);
            world.connect();
            world.run();
            world.command(BOB, Command::ForceClose { channel: id.clone() }).unwrap();
            world.blocks(8);
        }
        let alice = world.id(ALICE);
        assert_eq!(world.ledger.paid(&alice), Sats(if guarded { 70_000 } else { 0 }));
    }
}
