//! A node's key-value store, kept on a server write by write.
//!
//! A [`ReplicatedStore`] stands between a node and its [local store](LocalStore). A write and its place in
//! the queue are one local transaction; a sender with a thread of its own puts what waits to a
//! [server](Remote), in the order of the local commits, so that what is there is always what the node's
//! store was at some moment. Every put is conditional on the head, which one owner holds: who lost it
//! fails at the next write, before anything leaves.
//!
//! Writing is the only thing that this does not do alone: whose store it is, and what happens where store
//! and server differ, is decided once, at [`ReplicaBuilder::open`].
//!
//! All threads of a store meet under one lock. What may be done under it, and who waits for whom, is written
//! down at the head of `shared.rs`.

#[cfg(feature = "agent")]
pub mod agent;
mod between;
mod book;
mod class;
mod commit;
mod digest;
#[cfg(feature = "sqlite")]
mod filled;
mod head;
mod hydrate;
mod inspect;
mod keys;
#[cfg(feature = "ldk")]
pub mod ldk;
#[cfg(feature = "ldk-0-3")]
pub mod ldk_0_3;
#[cfg(any(feature = "ldk", feature = "ldk-0-3"))]
mod ldk_names;
pub mod ldk_node;
pub mod local;
mod order;
mod owner;
mod relation;
pub mod remote;
#[cfg(feature = "sqlite")]
pub mod reunite;
mod sender;
mod shared;
mod store;
mod sync;
#[cfg(test)]
mod tests;
mod witness;
mod write;

pub use between::ahead_of_manager;
pub use class::{Carried, Class, Classes};
#[cfg(feature = "sqlite")]
pub use filled::{FillOptions, Filled, migrate_to, restore_to};
pub use head::{Break, HeadState};
pub use inspect::{Fit, Holder, LocalState, holder, local_state, point, remembers};
pub use keys::ReplicaKeys;
pub use local::LocalStore;
pub use owner::{Permissions, Started};
pub use relation::{LocalView, Relation, compare, local_view};
pub use remote::Remote;
pub use store::{ReplicaBuilder, ReplicaStatus, ReplicatedStore};
pub use witness::VssWitness;
pub use write::{Bound, Write};

/// The examples of the guide: beside those of the replica, which need this crate, those of the library.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide.md")]
struct Guide;
