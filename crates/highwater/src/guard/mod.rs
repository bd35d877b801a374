//! What keeps a restored node from acting on state that may be old: the latch in its directory, the
//! marks in its database, the witness outside it.
//!
//! A node asks before it starts, and its operator lets it go on:
//!
//! ```
//! # use highwater::{Actor, Backup, Secret, Vault};
//! # let scratch = tempfile::tempdir().unwrap();
//! # std::env::set_current_dir(scratch.path()).unwrap();
//! # std::fs::create_dir("node").unwrap();
//! # std::fs::write("node/state", "seven channels").unwrap();
//! # let secret = Secret::Passphrase("correct horse battery staple".to_owned().into());
//! # let vault = Vault::create(&"vault".parse()?, &secret)?;
//! # let actor = Actor::new("state", "operator@node-1");
//! # let backup = Backup::of("node").run(&vault, &actor)?;
//! use std::path::Path;
//! use highwater::guard::{self, Which};
//! use highwater::ids::GuardKind;
//! use highwater::Restore;
//!
//! let guarded = Backup::of("node").with(|options| options.guard = Some(GuardKind::Databases));
//! let snapshot = guarded.run(&vault, &actor)?.snapshot;
//! Restore::snapshot(snapshot.to_string(), "copy").run(&vault)?;
//!
//! let copy = Path::new("copy");
//! let standing = guard::standing(copy)?.expect("it is held back");
//! assert_eq!(standing.quarantined(), 1);
//! let (why, who) = ("its peers have the same state", "operator@node-1");
//! guard::release(copy, &Which::All, why, who, &vault.control())?;
//! assert!(guard::standing(copy)?.is_none_or(|standing| standing.quarantined() == 0));
//! # Ok::<(), highwater::Error>(())
//! ```

mod floor;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod gate;
pub(crate) mod hold;
mod latch;
mod list;
pub(crate) mod points;
mod release;
mod store;
mod witness;

pub use crate::ids::GuardKind;
pub use floor::{Raise, Resting, raise, resting};
pub use gate::{Admitted, Arrival, Guard, Sorted, channel_marks};
pub use latch::{Basis, Cause, Floor, Latch, Old, Recorded, Released, Withheld};
pub(crate) use latch::{LATCH, few};
pub(crate) use list::standing_at;
pub use list::{Held, HeldState, Standing, list, standing, wait, wait_to_start, words};
pub use release::{Which, release, release_although_old};
pub use store::{Adapter, ChannelRecord, GuardedStore, Phase};
#[cfg(any(test, feature = "conformance"))]
pub use witness::conformance as witness_conformance;
pub use witness::{
    MemoryWitness, Move, PutFault, Raised, VaultWitness, Witness, WitnessEntry, WitnessOff,
    WitnessRecord, WitnessStore,
};
