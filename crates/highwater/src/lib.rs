//! Disaster recovery for nodes whose state must never go back in time.
//!
//! A node keeps its truth in an embedded database. This library captures a consistent image of the
//! node directory while the node runs, seals it into a vault, verifies it, and restores it in one
//! atomic exchange.
//!
//! Most callers need [`Vault`], [`Backup`] and [`Restore`]; a node that runs for long has an [`agent`]; a
//! restored node asks [`guard`] whether it may start.
//!
//! The way of the data: [`engine`] captures, [`vault`] seals and keeps, [`backup`] and [`restore`]
//! are the scripts over them. Nothing here prints, reads the environment or exits, and every call
//! blocks its thread: from asynchronous code, call it on a thread that may block.

/// Methods of options that set one field each, by its name, and return the options.
macro_rules! setters {
    ($options:ident { $($field:ident: $type:ty,)* }) => {
        impl $options {
            $(
                #[doc = concat!("Sets `", stringify!($field), "`.")]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}

#[cfg(feature = "agent")]
pub mod agent;
pub mod archive;
pub mod backup;
mod control;
mod copying;
mod direct;
mod durable;
pub mod engine;
pub mod env;
mod error;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod guard;
pub mod ids;
pub mod kit;
mod node;
pub mod records;
pub mod restore;
mod rooted;
mod time;
pub mod vault;

#[cfg(feature = "agent")]
pub use agent::Agent;
pub use backup::Backup;
pub use control::{Cancel, Control, Event, Priority};
pub use env::Env;
pub use error::{Error, Kind, Remedy, Result};
pub use ids::{NodeName, SnapshotId};
pub use restore::Restore;
pub use vault::{Actor, Location, Secret, Selector, Vault};
