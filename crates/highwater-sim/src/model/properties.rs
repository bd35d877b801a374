//! What must hold in every state, and what must come about in some, so that nothing holds for want
//! of cases.

use stateright::Property;

use super::setup::Character;
use super::state::{Chain, Stage, State};
use super::steps::Channel;

/// No commitment is published whose revocation the peer has received.
pub const NOT_PUNISHED: &str = "nothing is published that the peer can punish";
/// No other content is signed under a number.
pub const SIGNED_ONCE: &str = "nothing else is signed under a number";
/// A channel that lost nothing is cleared.
pub const CLEARED: &str = "a channel that lost nothing is cleared";
/// A channel that is not cleared has a way out.
pub const WAY_OUT: &str = "a channel that is not cleared has a way out";
/// Of two copies at most one acts.
pub const ONE_ACTS: &str = "nothing leaves behind the owner's back";
/// Nothing goes on once a closing signature has left.
pub const CLOSED_ONCE: &str = "nothing goes on after a closing signature";
/// The literal reading, which no rule can keep.
pub const LITERAL: &str = "nothing is published that was ever revoked";

/// A restored copy was cleared and has moved beyond every backup.
pub const PAID_AGAIN: &str = "a restored copy is cleared and pays again";
/// One is blocked that lacks exactly one revocation, which the peer has.
pub const BLOCKED_AT_ONE: &str = "a copy is blocked at a distance of one";
/// One is blocked that lacks exactly one signature, which the peer has taken.
pub const SIGNATURE_BLOCKED: &str = "a copy is blocked that lacks one signature";
/// One is blocked whose numbers all equal the witness's.
pub const BLOCKED_AT_EQUAL: &str = "a copy is blocked at equal numbers";
/// One has heard its peer, and waits.
pub const HEARD_AND_WAITS: &str = "a copy has heard its peer, and waits";
/// Both copies believe that they may speak.
pub const BOTH_LIVE: &str = "both copies are live";
/// A restored copy was cleared although it lacks what never left.
pub const CLEARED_BEHIND: &str = "a copy is cleared that lacks what never left";
/// A restored copy publishes.
pub const PUBLISHED_AGAIN: &str = "a restored copy publishes its commitment";
/// A closing signature has left, and the node was restored behind it and blocked.
pub const CLOSING_BLOCKED: &str = "a copy is blocked that forgot a closing signature";

/// Those that a configuration asks for.
pub(super) fn all(model: &Channel) -> Vec<Property<Channel>> {
    let setup = &model.setup;
    let mut all = vec![
        Property::<Channel>::always(NOT_PUNISHED, |_, state| {
            state.notes.published.is_none_or(|published| state.notes.received <= published)
        }),
        Property::<Channel>::always(SIGNED_ONCE, |_, state| !state.notes.wrong.second_signature),
        Property::<Channel>::always(WAY_OUT, |model, state| {
            (0..2).all(|copy| {
                !matches!(stage(state, copy), Some(Stage::Held { .. } | Stage::Blocked))
                    || model.has_a_way_out(state, copy)
            })
        }),
    ];
    if setup.witness || setup.peer == Character::Honest {
        all.push(Property::<Channel>::always(CLEARED, |model, state| {
            (0..2).all(|copy| !lost_nothing(model, state, copy))
        }));
    }
    if setup.witness {
        all.push(Property::<Channel>::always(ONE_ACTS, |_, state| {
            !state.notes.wrong.behind_the_owner
        }));
        all.push(Property::<Channel>::always(CLOSED_ONCE, |_, state| {
            !state.notes.wrong.after_closing
        }));
    }
    if setup.literal {
        all.push(Property::<Channel>::always(LITERAL, |_, state| {
            state.notes.published.is_none_or(|published| state.notes.revoked <= published)
        }));
    }
    all.extend(reached());
    all
}

fn stage(state: &State, copy: usize) -> Option<Stage> {
    state.running(copy).map(|(process, _)| process.stage)
}

/// A copy that is not cleared, though it has every move that was ever made, and has what evidence
/// there is: the witness at its start, else an honest peer's word.
fn lost_nothing(model: &Channel, state: &State, copy: usize) -> bool {
    let Some((process, disk)) = state.running(copy) else { return false };
    let asked = match process.stage {
        Stage::Held { heard } => heard || model.setup.witness,
        Stage::Blocked => true,
        Stage::Live | Stage::Closed => false,
    };
    asked && disk.current && state.chain == Chain::Unspent
}

fn reached() -> [Property<Channel>; 9] {
    [
        Property::<Channel>::sometimes(SIGNATURE_BLOCKED, |_, state| {
            blocked(state, |state, disk| state.peer.taken == disk.numbers.signed + 1)
        }),
        Property::<Channel>::sometimes(PAID_AGAIN, |_, state| {
            (0..2).any(|copy| {
                state.live(copy).is_some_and(|(_, disk)| {
                    disk.restored
                        && state.backups.iter().all(|backup| {
                            backup.numbers.received < disk.numbers.received
                                || backup.numbers.revoked < disk.numbers.revoked
                        })
                })
            })
        }),
        Property::<Channel>::sometimes(BLOCKED_AT_ONE, |_, state| {
            blocked(state, |state, disk| state.notes.received == disk.numbers.revoked + 1)
        }),
        Property::<Channel>::sometimes(BLOCKED_AT_EQUAL, |_, state| {
            blocked(state, |state, disk| {
                let entry = state.witness.entry;
                entry.numbers == disk.numbers && entry.epoch > disk.epoch
            })
        }),
        Property::<Channel>::sometimes(HEARD_AND_WAITS, |_, state| {
            (0..2).any(|copy| stage(state, copy) == Some(Stage::Held { heard: true }))
        }),
        Property::<Channel>::sometimes(BOTH_LIVE, |_, state| {
            (0..2).all(|copy| state.live(copy).is_some())
        }),
        Property::<Channel>::sometimes(CLEARED_BEHIND, |_, state| {
            (0..2).any(|copy| {
                let live = state.live(copy);
                live.is_some_and(|(_, disk)| disk.restored && !disk.current)
            })
        }),
        Property::<Channel>::sometimes(PUBLISHED_AGAIN, |_, state| {
            (0..2).any(|copy| {
                state.live(copy).is_some_and(|(_, disk)| {
                    disk.restored && state.notes.published == Some(disk.numbers.revoked)
                })
            })
        }),
        Property::<Channel>::sometimes(CLOSING_BLOCKED, |_, state| {
            state.notes.closing.is_some() && blocked(state, |_, disk| !disk.numbers.closing)
        }),
    ]
}

fn blocked(state: &State, found: fn(&State, &super::state::Disk) -> bool) -> bool {
    (0..2).any(|copy| {
        state
            .running(copy)
            .is_some_and(|(process, disk)| process.stage == Stage::Blocked && found(state, disk))
    })
}
