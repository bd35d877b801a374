//! Random schedules of payments, deliveries, cuts and crashes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Act {
    Pay(Who, u64),
    Deliver(Who),
    Cut,
    Crash(Who, bool),
    Look,
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0..2usize;
    prop_oneof![
        2 => (who.clone(), 1..40_000u64).prop_map(|(who, amount)| Act::Pay(who, amount)),
        12 => who.clone().prop_map(Act::Deliver),
        1 => Just(Act::Cut),
        1 => (who, any::<bool>()).prop_map(|(who, after)| Act::Crash(who, after)),
        1 => Just(Act::Look),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(48)
    ))]

    #[test]
    fn whatever_happens_payments_end_and_both_agree(acts in vec(act(), 1..80)) {
        let mut world = World::plain();
        let id = world.open();
        let mut payments = Vec::new();
        for act in acts {
            match act {
                Act::Pay(who, amount) => {
                    payments.extend(world.offer(who, &id, amount).ok().map(|hash| (who, hash)));
                }
                Act::Deliver(who) => drop(world.deliver(who)),
                Act::Cut => {
                    world.disconnect();
                    world.connect();
                }
                Act::Crash(who, after) => {
                    let cut = if after { Cut::AfterSync } else { Cut::BeforeSync };
                    world.driver(who).store_mut().cut(cut);
                    world.deliver(who);
                    world.restart(who);
                }
                Act::Look => world.look(),
            }
        }
        world.run();
        world.agreed(&id);
        for (who, hash) in payments {
            prop_assert!(matches!(world.payment(who, &hash), PaymentState::Paid(_)));
        }
    }
}
