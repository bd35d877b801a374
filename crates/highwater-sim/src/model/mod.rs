//! A model of one channel under the guard, whose every state is looked at.
//!
//! [`highwater_guard::judge`] itself is the rule; [`Rules`] swaps broken ones in. The catalog lists
//! the configurations in which the real rules hold ([`catalog::HOLDS`]), broken rules that fall in
//! them ([`catalog::broken`]), and where the real ones fall, since nothing is promised there
//! ([`catalog::limits`]). [`properties`] says what is asked of every state, and what must come about
//! in some, so that nothing holds only because cases are missing.
//!
//! # What is modelled
//! - The node: a disk (`S`, `R`, `L`, `closing`, epoch, what the last signature says, latch) and a
//!   process on it, which may die between any two steps: durable locally, in the witness, left. There
//!   are two places for copies of it. Backups are taken at any time, and each may be restored to either
//!   place any number of times; a disk may be copied beside its original, and both may run.
//! - The witness: one entry, written by compare-and-set under the owner's epoch, taken over by every
//!   start. Epochs matter by their order alone and are renamed, so starts and restores are unbounded.
//! - The session: what was sent arrives in order, also after its sender has died. A new session drops
//!   what is on the way, so any of the last messages may be lost; under `witness` they may outlive
//!   it and arrive in a later one. What the peer lacks is sent again, as reestablishing does, and may
//!   arrive twice.
//! - The peer: honest; one that loses any of its memory at any time; or one that reports anything and
//!   does all that it can with what it was given. What it, or its watchtower, ever received stays known.
//! - The chain: our own commitment, the peer's close, each seen by all at once and confirmed later.
//! - Closing: `closing` is one more number, raised before a closing signature or our own commitment
//!   leaves; no commitment is signed or revoked after it.
//!
//! # What is not
//! Amounts, pending payments and their deadlines; more than one channel, and so lacking channels and
//! key counters; a witness that is damaged, switched off or rolled back (the table's tests have its
//! rows); an operator's release, after which nothing is promised; messages that overtake each other.
//! The peer's signature on our newer commitment is taken to be at hand whenever an honest peer would
//! give it. A spend that is not confirmed is seen before the peer is heard. Numbers are bounded: `S`,
//! `R` and `L` by 1 to 3.
//!
//! # What the model has found
//! - **Equal numbers are not one history.** The original stored signature 1 and died before the witness
//!   had it; a restored copy signed another one under 1; the original came back, and its numbers equal
//!   the witness's. Hence the epochs: [`Rules::epochs_ignored`].
//! - **A clear has to store its epoch** before anything is raised. A node that died between a move and
//!   its raise has the move under an older epoch; its next start raises it, and the one after that
//!   would be blocked by it ([`Rules::epoch_not_stored`]). Entering it under the older epoch instead
//!   lets two copies of one disk sign twice ([`Rules::epoch_of_the_move`]).
//! - **A publication is a move.** A live copy that only publishes writes nothing, so nothing fences it:
//!   the other copy has revoked meanwhile ([`Rules::silent_publication`]). `closing` is raised first.
//! - **An unconfirmed spend is not a reason to continue**, under `peer`. The node published its commitment,
//!   was restored from before that, was cleared by the peer, who knows nothing of it, and revoked
//!   what it had published ([`Rules::unconfirmed_ignored`]). Hence
//!   [`highwater_guard::Reason::SpendUnconfirmed`].
//!
//! # What is not promised
//! Each of these has a test that shows the fall ([`catalog::limits`]).
//! - The literal reading, that nothing is published which was ever revoked: a revocation that never
//!   left has revoked nothing.
//! - Under `peer`: a clone beside the original; a peer that forgets exactly what we forgot; a message
//!   of an older session that arrives after the peer has spoken in a newer one; one signature under a
//!   number where the peer's report counts only what it has answered, as Fiber's does.
//! - Under `witness`: a process that is resumed with its memory, beside the original or after it. Both
//!   have one epoch, and what the later one stored before the witness refused it looks like the
//!   witness's own at its next start.
//! - A backup from between a move and its raise is blocked needlessly where a later start raised that
//!   move: safe, and rare.

pub mod catalog;
mod effects;
pub mod properties;
mod rules;
mod search;
mod setup;
mod state;
mod steps;

pub use rules::Rules;
pub use search::{Found, refute, search};
pub use setup::{Character, Counted, Setup};
pub use state::{
    Chain, Copy, Disk, Entry, Latch, Message, Notes, Numbers, Peer, Process, Session, Stage, State,
    Witness, Wrong,
};
pub use steps::{Channel, Step};

#[cfg(test)]
mod tests;
