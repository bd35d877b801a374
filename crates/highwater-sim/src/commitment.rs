//! What the parties sign: commitments, one for each party and number, and the cooperative close.

use serde::{Deserialize, Serialize};

use crate::ids::{Both, ChannelId, PaymentHash, Preimage, RevocationHash, Sats, Side, Signature};
use crate::keys::tagged;

/// A payment under way: offered by one party, for the other if it shows the preimage.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// Who offers it.
    pub by: Side,
    /// Its number among those of that party.
    pub id: u64,
    /// How much.
    pub amount: Sats,
    /// Whose preimage claims it.
    pub hash: PaymentHash,
}

/// A change that one party proposes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Offers a payment.
    Add {
        /// Its number among the proposer's.
        id: u64,
        /// How much.
        amount: Sats,
        /// Whose preimage claims it.
        hash: PaymentHash,
    },
    /// Claims a payment that the other party offered.
    Fulfill {
        /// The payment.
        id: u64,
        /// The proof.
        preimage: Preimage,
    },
    /// Gives up a payment that the other party offered.
    Fail {
        /// The payment.
        id: u64,
    },
}

/// Who has how much, and what is under way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balance {
    /// What each party has.
    pub of: Both<Sats>,
    /// Payments under way, in order.
    pub pending: Vec<Pending>,
}

impl Balance {
    /// The same after a change by `by`; `None` where it can't be: too little money, no such payment,
    /// a wrong preimage.
    pub fn after(mut self, by: Side, change: &Change) -> Option<Balance> {
        match change {
            Change::Add { id, amount, hash } => {
                let pending = Pending { by, id: *id, amount: *amount, hash: *hash };
                let new = !self.pending.iter().any(|other| other.by == by && other.id == *id);
                let left = self.of.at(by).checked_sub(*amount)?;
                if !new || *amount == Sats(0) {
                    return None;
                }
                *self.of.at_mut(by) = left;
                self.pending.push(pending);
                self.pending.sort();
            }
            Change::Fulfill { id, preimage } => {
                let pending = self.remove(by.other(), *id)?;
                if preimage.hash() != pending.hash {
                    return None;
                }
                *self.of.at_mut(by) += pending.amount;
            }
            Change::Fail { id } => {
                let pending = self.remove(by.other(), *id)?;
                *self.of.at_mut(by.other()) += pending.amount;
            }
        }
        Some(self)
    }

    /// The payment that `by` offers under `id`.
    pub fn find(&self, by: Side, id: u64) -> Option<&Pending> {
        self.pending.iter().find(|pending| pending.by == by && pending.id == id)
    }

    /// All of it: what no change changes.
    pub fn total(&self) -> Sats {
        self.of.opener + self.of.acceptor + self.pending.iter().map(|p| p.amount).sum()
    }

    fn remove(&mut self, by: Side, id: u64) -> Option<Pending> {
        let at = self.pending.iter().position(|pending| pending.by == by && pending.id == id)?;
        Some(self.pending.remove(at))
    }
}

/// A commitment: how its owner would take the channel to the ledger. The other party signs it for
/// the owner; the owner revokes it by giving away the secret behind `revocation`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// The channel.
    pub channel: ChannelId,
    /// Who may publish it.
    pub owner: Side,
    /// Its number among the owner's, from 0.
    pub number: u64,
    /// Who knows the secret behind it punishes the owner.
    pub revocation: RevocationHash,
    /// Who gets what.
    pub balance: Balance,
}

impl Commitment {
    /// What is signed.
    pub fn digest(&self) -> [u8; 32] {
        digest("highwater-sim/commitment", self)
    }
}

/// A commitment that both parties have signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedCommitment {
    /// The commitment.
    pub commitment: Commitment,
    /// Both signatures: the owner adds its own when it publishes.
    pub signatures: Both<Signature>,
}

/// The cooperative close: it can't be revoked, and nothing is under way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Close {
    /// The channel.
    pub channel: ChannelId,
    /// Who gets what.
    pub of: Both<Sats>,
}

impl Close {
    /// What is signed.
    pub fn digest(&self) -> [u8; 32] {
        digest("highwater-sim/close", self)
    }
}

/// A close that both parties have signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedClose {
    /// The close.
    pub close: Close,
    /// Both signatures.
    pub signatures: Both<Signature>,
}

/// The canonical bytes are the JSON of the fields in their order: it has no maps, no fractions and no
/// optional fields, so that one value has one text.
fn digest(tag: &str, value: &impl Serialize) -> [u8; 32] {
    let bytes = serde_json::to_vec(value).expect("a commitment can be written as JSON");
    tagged(tag, &[&bytes])
}
