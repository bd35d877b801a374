//! Where a node keeps its state: one atomic, durable transaction for each step.
//!
//! The stale mark of a channel, and that it is closed, stand beside the channel and not in it: a
//! quarantined channel gives nobody its inside, and can still be marked.

mod memory;
mod sqlite;

use highwater::Result;
use highwater_guard::Verdict;
use serde::{Deserialize, Serialize};

pub use memory::{Cut, Disk, MemoryStore};
pub use sqlite::{DATABASE, SqliteStore};

use crate::channel::{Channel, Offer};
use crate::ids::{ChannelId, PaymentHash, Preimage, Sats};

/// A store of one node.
pub trait Store {
    /// All that is stored.
    fn load(&mut self) -> Result<Stored>;

    /// Applies all records, or none; durable when it returns. After an error nobody knows which:
    /// the node stops, and begins again from what is stored.
    fn commit(&mut self, records: &[Record]) -> Result<()>;
}

/// One change of what is stored.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// A channel that we have offered.
    Offer(Offer),
    /// A channel, beside its mark.
    Channel(Box<Channel>),
    /// The mark of a channel.
    Stale(ChannelId, Stale),
    /// Takes the mark away, and stores the epoch under which the channel moves from now on.
    Unmark(ChannelId, u64),
    /// The chain has decided.
    Closed(ChannelId),
    /// An invoice that we gave out.
    Invoice(Preimage),
    /// A payment of ours.
    Payment(Payment),
    /// What is given out once.
    Counters(Counters),
}

/// The mark of a channel that may be stale.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stale {
    /// The last verdict.
    #[serde(default)]
    pub verdict: Option<Verdict>,
}

/// A payment of ours.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payment {
    /// Whose preimage proves it.
    pub hash: PaymentHash,
    /// The channel that it takes.
    pub channel: ChannelId,
    /// How much.
    pub amount: Sats,
    /// How it stands.
    pub state: PaymentState,
}

/// How a payment stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// Under way.
    Pending,
    /// Paid: the proof.
    Paid(Preimage),
    /// Given back.
    Failed,
}

/// What is given out once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// The index of the next channel's keys.
    pub channel: u64,
    /// The index of the next invoice.
    pub invoice: u64,
}

/// A channel as stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredChannel {
    /// The channel.
    pub channel: Channel,
    /// Its mark.
    pub stale: Option<Stale>,
    /// The chain has decided.
    pub closed: bool,
}

/// All that is stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stored {
    /// Channels that we have offered.
    pub offers: Vec<Offer>,
    /// Channels.
    pub channels: Vec<StoredChannel>,
    /// Preimages of invoices.
    pub invoices: Vec<Preimage>,
    /// Payments of ours.
    pub payments: Vec<Payment>,
    /// What is given out once.
    pub counters: Counters,
}

#[cfg(test)]
mod tests;
