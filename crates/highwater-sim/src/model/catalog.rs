//! The configurations that are searched, and the broken rules that must fall.

use highwater_guard::Policy;

use super::properties::{
    BLOCKED_AT_EQUAL, BLOCKED_AT_ONE, BOTH_LIVE, CLEARED, CLEARED_BEHIND, CLOSING_BLOCKED,
    HEARD_AND_WAITS, LITERAL, NOT_PUNISHED, PAID_AGAIN, PUBLISHED_AGAIN, SIGNATURE_BLOCKED,
    SIGNED_ONCE,
};
use super::rules::Rules;
use super::setup::{Character, Counted, Setup};

/// A configuration in which the real rules hold.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// As it is searched with every change.
    pub setup: Setup,
    /// As it is searched at night.
    pub larger: Setup,
    /// What must come about somewhere.
    pub reached: &'static [&'static str],
}

/// Rules that fall, where, and by which property.
#[derive(Clone, Copy, Debug)]
pub struct Fall {
    /// Where.
    pub setup: Setup,
    /// The rules.
    pub rules: Rules,
    /// What they break.
    pub property: &'static str,
}

const PEER_R: Setup = Setup {
    signed_max: 0,
    backups_max: 1,
    closing: true,
    publishing: true,
    peer_closes: true,
    ..Setup::peer("peer: revocations, publishing, closing")
};
/// Our own commitments, under `peer`.
pub const PEER_REVOCATIONS: Case = Case {
    setup: PEER_R,
    larger: Setup { backups_max: 2, ..PEER_R },
    reached: &[BLOCKED_AT_ONE, CLEARED_BEHIND, PAID_AGAIN, PUBLISHED_AGAIN, HEARD_AND_WAITS],
};

const PEER_S: Setup = Setup { revoked_max: 0, ..Setup::peer("peer: signatures") };
/// The peer's commitments, under `peer`.
pub const PEER_SIGNATURES: Case = Case {
    setup: PEER_S,
    larger: Setup { signed_max: 3, ..PEER_S },
    reached: &[SIGNATURE_BLOCKED, CLEARED_BEHIND, PAID_AGAIN],
};

const PEER_BOTH: Setup = Setup {
    signed_max: 1,
    revoked_max: 1,
    backups_max: 1,
    closing: true,
    publishing: true,
    on_the_way_max: 1,
    ..Setup::peer("peer: both sides")
};
/// Both sides at once, under `peer`.
pub const PEER_BOTH_SIDES: Case = Case {
    setup: PEER_BOTH,
    larger: Setup { on_the_way_max: 2, revoked_max: 2, ..PEER_BOTH },
    reached: &[BLOCKED_AT_ONE, SIGNATURE_BLOCKED, CLEARED_BEHIND, PAID_AGAIN, PUBLISHED_AGAIN],
};

const WITNESS_R: Setup = Setup {
    signed_max: 0,
    revoked_max: 1,
    on_the_way_max: 1,
    ..Setup::witness("witness: revocations, any peer, clones")
};
/// Our own commitments, under `witness`.
pub const WITNESS_REVOCATIONS: Case = Case {
    setup: WITNESS_R,
    larger: Setup { revoked_max: 2, ..WITNESS_R },
    reached: &[BLOCKED_AT_ONE, BLOCKED_AT_EQUAL, CLEARED_BEHIND, PAID_AGAIN, BOTH_LIVE],
};

const WITNESS_C: Setup = Setup {
    signed_max: 0,
    revoked_max: 1,
    backups_max: 0,
    closing: true,
    publishing: true,
    ..Setup::witness("witness: publishing, closing, clones")
};
/// Closing and publishing, under `witness`.
pub const WITNESS_CLOSING: Case = Case {
    setup: WITNESS_C,
    larger: Setup { backups_max: 1, on_the_way_max: 1, ..WITNESS_C },
    reached: &[BLOCKED_AT_ONE, BLOCKED_AT_EQUAL, CLOSING_BLOCKED, BOTH_LIVE],
};

const WITNESS_P: Setup = Setup {
    signed_max: 0,
    revoked_max: 1,
    closing: true,
    publishing: true,
    clones: false,
    original_dead: true,
    on_the_way_max: 1,
    ..Setup::witness("witness: publishing, closing, restores")
};
/// Closing and publishing between restores, under `witness`.
pub const WITNESS_PUBLISHING: Case = Case {
    setup: WITNESS_P,
    larger: Setup { revoked_max: 2, ..WITNESS_P },
    reached: &[BLOCKED_AT_ONE, CLOSING_BLOCKED, PAID_AGAIN, PUBLISHED_AGAIN],
};

const WITNESS_S: Setup = Setup {
    signed_max: 1,
    revoked_max: 0,
    on_the_way_max: 1,
    ..Setup::witness("witness: signatures, any peer, clones")
};
/// The peer's commitments, under `witness`.
pub const WITNESS_SIGNATURES: Case = Case {
    setup: WITNESS_S,
    larger: Setup { signed_max: 2, ..WITNESS_S },
    reached: &[BLOCKED_AT_EQUAL, CLEARED_BEHIND, PAID_AGAIN, BOTH_LIVE],
};

const WITNESS_S2: Setup = Setup {
    signed_max: 2,
    revoked_max: 0,
    backups_max: 0,
    ..Setup::witness("witness: two signatures, any peer, clones")
};
/// Longer, without backups, under `witness`.
pub const WITNESS_TWO_SIGNATURES: Case = Case {
    setup: WITNESS_S2,
    larger: Setup { signed_max: 3, ..WITNESS_S2 },
    reached: &[BLOCKED_AT_EQUAL, BOTH_LIVE],
};

const WITNESS_F: Setup = Setup {
    peer: Character::Forgetful,
    signed_max: 1,
    revoked_max: 1,
    backups_max: 1,
    clones: false,
    on_the_way_max: 1,
    ..Setup::witness("witness: both sides, a peer that forgets")
};
/// Both sides, with a peer that is restored itself, under `witness`.
pub const WITNESS_FORGETFUL: Case = Case {
    setup: WITNESS_F,
    larger: Setup { publishing: true, closing: true, original_dead: true, ..WITNESS_F },
    reached: &[BLOCKED_AT_ONE, BLOCKED_AT_EQUAL, CLEARED_BEHIND, PAID_AGAIN, BOTH_LIVE],
};

const MIXED: Setup = Setup {
    policy: Policy::Peer,
    peer: Character::Honest,
    signed_max: 1,
    revoked_max: 1,
    backups_max: 1,
    clones: false,
    on_the_way_max: 1,
    ..Setup::witness("peer, with a witness")
};
/// The peer's word beside a witness.
pub const PEER_WITH_WITNESS: Case = Case {
    setup: MIXED,
    larger: Setup { publishing: true, closing: true, original_dead: true, ..MIXED },
    reached: &[BLOCKED_AT_ONE, BLOCKED_AT_EQUAL, CLEARED_BEHIND, PAID_AGAIN, BOTH_LIVE],
};

/// `witness` without one: the latch waits, whatever the peer says.
const SILENT: Setup = Setup {
    policy: Policy::Witness,
    signed_max: 1,
    revoked_max: 2,
    backups_max: 1,
    closing: true,
    publishing: true,
    on_the_way_max: 1,
    ..Setup::peer("witness, which is missing")
};
const FORGETS: &str = "witness, missing, and a peer that forgets";
const LIES: &str = "witness, missing, and a peer that lies";
/// It waits for a witness, with a peer that forgets.
pub const WAITING: Case = Case {
    setup: Setup { name: FORGETS, peer: Character::Forgetful, revoked_max: 1, ..SILENT },
    larger: Setup { name: FORGETS, peer: Character::Forgetful, ..SILENT },
    reached: &[HEARD_AND_WAITS],
};
/// It waits for a witness, with a peer that lies.
pub const WAITING_LIED_TO: Case = Case {
    setup: Setup { name: LIES, peer: Character::Lying, signed_max: 0, ..SILENT },
    larger: Setup { name: LIES, peer: Character::Lying, ..SILENT },
    reached: &[HEARD_AND_WAITS, BLOCKED_AT_ONE],
};

/// All of them.
pub const HOLDS: [Case; 12] = [
    PEER_REVOCATIONS,
    PEER_SIGNATURES,
    PEER_BOTH_SIDES,
    WITNESS_REVOCATIONS,
    WITNESS_CLOSING,
    WITNESS_PUBLISHING,
    WITNESS_SIGNATURES,
    WITNESS_TWO_SIGNATURES,
    WITNESS_FORGETFUL,
    PEER_WITH_WITNESS,
    WAITING,
    WAITING_LIED_TO,
];

/// Broken rules, each with a configuration in which the real ones hold.
pub fn broken() -> Vec<Fall> {
    let fall = |setup, rules, property| Fall { setup, rules, property };
    let (peer, publishing) = (PEER_R, WITNESS_C);
    let clones = WITNESS_S;
    let restores = Setup { clones: false, ..WITNESS_S };
    vec![
        fall(peer, Rules::near_enough(), NOT_PUNISHED),
        fall(PEER_S, Rules::signatures_guessed(), SIGNED_ONCE),
        fall(peer, Rules::latch_forgotten(), NOT_PUNISHED),
        fall(peer, Rules::backup_clears(), NOT_PUNISHED),
        fall(peer, Rules::old_reports(), NOT_PUNISHED),
        fall(restores, Rules::witness_last(), SIGNED_ONCE),
        fall(WITNESS_P, Rules::witness_last(), NOT_PUNISHED),
        fall(WAITING.setup, Rules::forgotten_is_closed_on(), NOT_PUNISHED),
        fall(clones, Rules::unfenced(), SIGNED_ONCE),
        fall(publishing, Rules::unfenced(), NOT_PUNISHED),
        fall(restores, Rules::epochs_ignored(), SIGNED_ONCE),
        fall(clones, Rules::epoch_not_stored(), CLEARED),
        fall(clones, Rules::epoch_of_the_move(), SIGNED_ONCE),
        fall(publishing, Rules::silent_publication(), NOT_PUNISHED),
        fall(peer, Rules::unconfirmed_ignored(), NOT_PUNISHED),
        fall(WAITING_LIED_TO.setup, Rules::peer_trusted(), NOT_PUNISHED),
    ]
}

/// Where the real rules fall: what is not promised, and why.
pub fn limits() -> Vec<Fall> {
    let fall = |setup, property| Fall { setup, rules: Rules::REAL, property };
    vec![
        // A revocation that was lost on the way has revoked nothing.
        fall(Setup { literal: true, name: "the literal reading, peer", ..PEER_R }, LITERAL),
        fall(Setup { literal: true, name: "the literal reading, witness", ..WITNESS_C }, LITERAL),
        // Nothing fences a clone under `peer`: the original must be dead.
        fall(
            Setup {
                original_dead: false,
                clones: true,
                name: "a clone beside the original, peer",
                ..PEER_R
            },
            NOT_PUNISHED,
        ),
        // A peer that says only what it has answered doesn't say all that it has taken.
        fall(
            Setup { counted: Counted::Answered, name: "answered signatures, peer", ..PEER_S },
            SIGNED_ONCE,
        ),
        // The peer's word is older than what still arrives: a new session has to end the old one.
        fall(
            Setup { lingering: true, name: "messages of an older session, peer", ..PEER_R },
            NOT_PUNISHED,
        ),
        // A peer that forgets exactly what we forgot clears us.
        fall(
            Setup { peer: Character::Forgetful, name: "a peer that forgets", ..PEER_R },
            NOT_PUNISHED,
        ),
        // A backup from between a move and its raise, the move raised by a later start, and nothing
        // moved since: the backup holds all, and is blocked, since equal numbers prove nothing.
        fall(
            Setup { strict: true, name: "a backup that lacks an epoch alone", ..WITNESS_S },
            CLEARED,
        ),
        // Two processes with one memory have one epoch.
        fall(
            Setup { resumes: true, backups_max: 0, name: "a memory that is resumed", ..WITNESS_S },
            SIGNED_ONCE,
        ),
    ]
}
