//! What keeps a restored node from acting on state that may be old: the latch in its directory, the
//! marks in its database, the witness outside it.

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
#[cfg(feature = "replica")]
pub use witness::VssWitness;
#[cfg(any(test, feature = "conformance"))]
pub use witness::conformance as witness_conformance;
pub use witness::{
    MemoryWitness, Move, PutFault, Raised, VaultWitness, Witness, WitnessEntry, WitnessOff,
    WitnessRecord, WitnessStore,
};
