//! A configuration: who is there, what may happen, and how far the numbers go.

use highwater_guard::Policy;

/// What the peer is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Character {
    /// It keeps what it received, tells the truth and follows the protocol.
    Honest,
    /// The same, but it loses memory: it is restored itself.
    Forgetful,
    /// It says anything, and does all that the keys it was given allow.
    Lying,
}

/// What the peer's report counts as signatures taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// BOLT: those that it has taken.
    Taken,
    /// Fiber: those that it has answered with a revocation.
    Answered,
}

/// A configuration of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// What it is called.
    pub name: &'static str,
    /// Whose word clears.
    pub policy: Policy,
    /// There is a witness, asked at every start. Without one a start is held by its latch alone.
    pub witness: bool,
    /// What the peer is like.
    pub peer: Character,
    /// What its report counts.
    pub counted: Counted,
    /// No two copies ever run beside each other, and whichever comes back after the other one ran
    /// comes back with a latch: as restore demands and `rollback` does.
    pub original_dead: bool,
    /// A disk may be copied beside the original, without a mark.
    pub clones: bool,
    /// A running copy may be duplicated with its memory, as a resumed snapshot of a virtual machine is.
    pub resumes: bool,
    /// What is on the way outlives its session, and may arrive in a later one.
    pub lingering: bool,
    /// A second signature counts only once the peer has taken the first.
    pub second_once_taken: bool,
    /// The highest `S` and `L`.
    pub signed_max: u8,
    /// The highest `R`.
    pub revoked_max: u8,
    /// The node may decide to close.
    pub closing: bool,
    /// A node that may speak may publish its own commitment.
    pub publishing: bool,
    /// The peer may close with its own.
    pub peer_closes: bool,
    /// How many backups are taken at most; each may be restored any number of times.
    pub backups_max: usize,
    /// How much is in flight at most.
    pub on_the_way_max: usize,
    /// A copy that missed nothing but an epoch counts as one that lost nothing.
    pub strict: bool,
    /// The onlooker also asks whether a node published what itself had revoked, received or not.
    pub literal: bool,
}

impl Setup {
    /// Under `peer`, with one that keeps what it received; the original is dead.
    pub const fn peer(name: &'static str) -> Setup {
        Setup {
            name,
            policy: Policy::Peer,
            witness: false,
            peer: Character::Honest,
            counted: Counted::Taken,
            original_dead: true,
            clones: false,
            resumes: false,
            lingering: false,
            second_once_taken: true,
            signed_max: 2,
            revoked_max: 2,
            closing: false,
            publishing: false,
            peer_closes: false,
            backups_max: 2,
            on_the_way_max: 2,
            strict: false,
            literal: false,
        }
    }

    /// Under `witness`, with any peer, and copies of the disk beside the original.
    pub const fn witness(name: &'static str) -> Setup {
        Setup {
            policy: Policy::Witness,
            witness: true,
            peer: Character::Lying,
            original_dead: false,
            clones: true,
            lingering: true,
            second_once_taken: false,
            backups_max: 1,
            ..Setup::peer(name)
        }
    }
}
