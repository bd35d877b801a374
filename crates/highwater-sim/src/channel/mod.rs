//! One channel: its state, and its pure transitions. Nothing here sends, stores or asks; the node
//! stores what a transition leaves behind before anything of it leaves.
//!
//! Each side proposes changes and signs the other's next commitment. A change of ours is first in
//! the peer's commitment (we sign, it revokes the one before), then in ours (it signs, we revoke).
//! Once it is in both for good it is folded into `balance`, the state that nobody can go behind.

mod claims;
mod closing;
mod opening;
mod resume;
mod update;

use std::fmt;

use highwater_guard::Ours;
use serde::{Deserialize, Serialize};

pub use claims::Claims;
pub use opening::{Offer, Terms};
pub use resume::Mismatch;
pub use update::Taken;

use crate::commitment::{Balance, Change, Commitment, SignedCommitment};
use crate::ids::{Both, ChannelId, PeerId, PublicKey, RevocationHash, Sats, Side, Signature};
use crate::keys::ChannelKeys;
use crate::ledger::Funding;

/// Changes that wait for their signature, and payments under way of one side, are no more than this.
pub const CHANGES_MAX: usize = 64;

/// A channel whose first commitments are signed: it may be funded at any moment, so it can be punished.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    id: ChannelId,
    peer: PeerId,
    /// Which party we are.
    side: Side,
    /// The index of our keys.
    index: u64,
    funding: Funding,

    /// `S`: signatures given for the peer's commitments, not counting number 0.
    signed: u64,
    /// `R`: our commitments revoked; the number of the one that we hold.
    revoked: u64,
    /// `L`: the peer's commitments revoked; the number of the oldest that it can publish.
    received: u64,
    /// A closing signature was given, or our own commitment published.
    closing: bool,
    /// The witness's epoch under which the numbers last moved.
    epoch: u64,

    /// What is in both commitments for good.
    balance: Balance,
    /// Our changes that the peer's commitments have, and ours do not yet.
    sent: Vec<Sent>,
    /// The peer's changes that our commitment has; folded once its own has them for good.
    taken: Vec<Heard>,
    /// Our changes that wait for the next signature.
    queue: Vec<Change>,
    next_id: u64,

    /// Our commitment of number `R`, with the peer's signature.
    ours: Commitment,
    theirs_on_ours: Signature,
    /// Our signature of number `S`, to be sent again where it was lost.
    last_signature: Option<Signature>,
    /// Of our last signature and our last revocation, the revocation left later.
    revoked_last: bool,
    /// Hashes of the peer's secrets of numbers `L` and `L + 1`.
    revocations: [RevocationHash; 2],

    /// We, and the peer, have seen the funding output confirmed.
    ready: Flags,
    /// We, and the peer, want to close.
    shutdown: Flags,
    /// The peer's signature of the cooperative close.
    close_signature: Option<Signature>,
    /// Our own commitment was given to the ledger.
    published: bool,
    /// The peer broke the protocol, or lost its memory: nothing goes on but by an operator.
    stopped: Option<String>,
    claims: Claims,
}

/// A thing that both sides do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flags {
    ours: bool,
    theirs: bool,
}

/// A change of ours.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    change: Change,
    /// The first commitment of the peer that has it.
    signed: u64,
}

/// A change of the peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Heard {
    change: Change,
    /// The first commitment of the peer that has it, once we have signed one.
    signed: Option<u64>,
}

/// The peer said what can't be; the channel stops.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation(pub String);

impl Channel {
    /// Its name.
    pub fn id(&self) -> &ChannelId {
        &self.id
    }

    /// The other party.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// The index of our keys.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The output that it stands on.
    pub fn funding(&self) -> &Funding {
        &self.funding
    }

    /// What we and the peer have, without what is under way.
    pub fn balances(&self) -> (Sats, Sats) {
        (*self.balance.of.at(self.side), *self.balance.of.at(self.side.other()))
    }

    /// What is in both commitments for good.
    pub fn balance(&self) -> &Balance {
        &self.balance
    }

    /// Nothing is under way, in either direction.
    pub fn is_settled(&self) -> bool {
        self.sent.is_empty()
            && self.taken.is_empty()
            && self.queue.is_empty()
            && self.balance.pending.is_empty()
            && self.signed == self.received
    }

    /// Both have seen the funding output confirmed, and nobody closes or has stopped.
    pub fn is_open(&self) -> bool {
        self.may_sign() && !self.shutdown.ours && !self.shutdown.theirs
    }

    /// Why it has stopped, if it has.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// Stops it: no message and no signature any more, and what closes it is an operator, or the peer.
    pub fn stop(&mut self, why: impl Into<String>) {
        self.stopped.get_or_insert(why.into());
    }

    /// A closing signature was given, or our commitment published.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// The numbers, which move under `epoch` from now on.
    pub fn stamp(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// Our commitment with both signatures: how we leave without the peer. From here on nothing is
    /// signed any more.
    pub fn publish(&mut self, keys: &ChannelKeys) -> SignedCommitment {
        self.closing = true;
        self.published = true;
        let own = keys.signing.sign(&self.ours.digest());
        let signatures = Both::of(self.side, own, self.theirs_on_ours);
        SignedCommitment { commitment: self.ours.clone(), signatures }
    }

    /// Our commitment was given to the ledger.
    pub fn is_published(&self) -> bool {
        self.published
    }

    fn may_sign(&self) -> bool {
        self.ready.ours && self.ready.theirs && self.stopped.is_none() && !self.closing
    }

    fn their_key(&self) -> &PublicKey {
        self.funding.keys.at(self.side.other())
    }
}

impl highwater_guard::Channel for Channel {
    type Claims = Claims;

    fn ours(&self) -> Ours {
        Ours {
            signed: Some(self.signed),
            revoked: self.revoked,
            received: self.received,
            closing: self.closing,
            epoch: self.epoch,
        }
    }

    fn claims(&self) -> &Claims {
        &self.claims
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn violation<T>(why: impl Into<String>) -> Result<T, Violation> {
    Err(Violation(why.into()))
}
