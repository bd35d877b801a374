//! What a node supplies so that its own database is marked: an adapter.

use std::path::Path;

use highwater_guard::Ours;

use crate::error::Result;

/// How far a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is signed for it yet. One that is signed for may have been funded since the snapshot,
    /// and moved: it is open.
    Funding,
    /// Signed for, funded or not, also while it is closing: it could be punished.
    Open,
    /// Its close is confirmed.
    Closed,
}

/// A channel, as a node's database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRecord {
    /// The node's own name of it.
    pub id: String,
    /// How far it is.
    pub phase: Phase,
    /// Its numbers.
    pub ours: Ours,
}

/// A node's database, opened with the node's own binding.
pub trait GuardedStore {
    /// All its channels.
    fn channels(&mut self) -> Result<Vec<ChannelRecord>>;
    /// Whether the node has a mark for a channel in the state that it is in, and the mark changes nothing but
    /// that. Asked where the databases are withheld as well: a channel without one is held by that alone.
    ///
    /// # Errors
    /// Input where the database is of a version whose marks are not known.
    fn has_mark(&mut self, id: &str) -> Result<bool> {
        let _ = id;
        Ok(true)
    }
    /// Marks a channel stale, durable when it returns. One that is marked already stays so.
    fn mark_stale(&mut self, id: &str) -> Result<()>;
    /// Marks several channels stale at once, durable when it returns: a store that can writes all of them in one
    /// step.
    ///
    /// # Errors
    /// Input where the database is of a version whose marks are not known: then none is written.
    fn mark_all_stale(&mut self, ids: &[String]) -> Result<()> {
        ids.iter().try_for_each(|id| self.mark_stale(id))
    }
    /// The channels that are marked stale, as stored.
    fn stale(&mut self) -> Result<Vec<String>>;
}

/// Opens a node's database in a node directory that is not the node's yet, or no longer.
pub trait Adapter: Send + Sync {
    /// Opens the database below `dir`. Where its entry point is withheld, the latch in `dir` says where it waits.
    ///
    /// # Errors
    /// Input where the database is of a version that is not known: nothing of it is changed.
    fn open(&self, dir: &Path) -> Result<Box<dyn GuardedStore>>;
}

impl std::fmt::Debug for dyn Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Adapter")
    }
}
