//! Under LDK: the store traits of `lightning` 0.2, and how its keys are replicated.
//!
//! A monitor, or an update of one, is [remote-first](super::Class::RemoteFirst): what LDK waits for before a message
//! leaves is on the server by then. All else is local-first, but for what can be had again, which is never
//! sent.
//!
//! A node hands the same store to LDK's persister of monitors and to its background processor. Which
//! of the two ways in which LDK persists monitors it uses decides what a restored node finds:
//!
//! - [`Asynchronous`](Persistence::Asynchronous), `ChainMonitor::new_async_beta`: LDK holds back what an update
//!   allows until its write is done, and persists its manager meanwhile. The update is sent together with the
//!   manager that knows of it, so a restored node goes on where it was, and no channel closes.
//! - [`Synchronous`](Persistence::Synchronous), what `ldk-node` 0.7 does: the write of an update blocks the
//!   thread that processes the channel, while it holds what the manager's write asks for. So the update is on
//!   the server before the manager that knows of it, and a machine that is lost in between leaves the one
//!   without the other. LDK closes such a channel when it is loaded.

use highwater::{Error, Kind, Result};
use lightning::util::persist::MigratableKVStore;

use super::class::Classes;
use super::ldk_names::{self, store_traits};
pub use super::ldk_names::{Persistence, key};
use super::store::ReplicatedStore;

store_traits!(lightning);

/// How LDK's keys are replicated: for [`ReplicaBuilder::classes`](super::ReplicaBuilder::classes).
pub fn classes(persistence: Persistence) -> Classes {
    ldk_names::classes(persistence)
}

impl MigratableKVStore for ReplicatedStore {
    fn list_all_keys(&self) -> io::Result<Vec<(String, String, String)>> {
        self.all_names().map_err(told)
    }
}
