//! The numbers of a channel, as we, the peer, a backup and the witness remember them.
//!
//! All numbers count: 3 revocations sent are the revocations 0, 1 and 2.

use serde::{Deserialize, Serialize};

/// What this node remembers of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ours {
    /// `S`: commitments signed for the peer; `None` where the node can't tell.
    pub signed: Option<u64>,
    /// `R`: revocations sent.
    pub revoked: u64,
    /// `L`: revocations received; `L ≤ S ≤ L + 1`.
    pub received: u64,
    /// A closing or splice signature was given, or our own commitment was published: what can't be
    /// taken back, and is written before it leaves.
    pub closing: bool,
    /// The witness's epoch under which this copy of the node last moved the channel; 0 where there
    /// is not a witness. Written in the transaction of the move.
    #[serde(default)]
    pub epoch: u64,
}

/// What the peer says when a session begins that was opened after this start. A report from an older
/// session is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// `l`: our revocations that it has.
    pub revocations_held: u64,
    /// `r`: our signatures that it has taken. BOLT: `next_commitment_number − 1`; Fiber: the
    /// revocations that it has sent.
    pub signatures_taken: u64,
}

/// What the witness remembers of a channel: the highest numbers that may have left this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Commitments signed for the peer.
    pub signed: u64,
    /// Revocations sent.
    pub revoked: u64,
    /// Revocations received and acted on.
    pub received: u64,
    /// A closing or splice signature was given, or our own commitment was published.
    pub closing: bool,
    /// It was never switched off while the channel was open.
    pub continuous: bool,
    /// This start has taken it over: no other copy of the node can write it any more.
    pub owned: bool,
    /// The epoch under which the numbers were last raised.
    #[serde(default)]
    pub epoch: u64,
}

/// Whether the output that funds the channel was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FundingSpent {
    /// Seen, not confirmed: it decides nothing, and nobody's word but the witness's clears beside it.
    Unconfirmed,
    /// Confirmed: the chain decides.
    Confirmed,
}

/// Whose word clears a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The peer's, where the witness does not: for peers that keep what they received and don't lie.
    Peer,
    /// The witness's alone.
    #[default]
    Witness,
}

/// All that is known about a channel besides our own memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Whether the funding output was spent; `None`: not that anybody knows.
    #[serde(default)]
    pub chain: Option<FundingSpent>,
    /// The highest marks that any backup recorded. They can condemn, never clear: the latest backup
    /// always equals itself.
    #[serde(default)]
    pub backup: Option<Ours>,
    /// What the witness says.
    #[serde(default)]
    pub witness: Option<Witness>,
    /// What the peer says.
    #[serde(default)]
    pub report: Option<Report>,
    /// Whose word clears.
    pub policy: Policy,
}
