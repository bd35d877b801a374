//! What keeps a restored node from acting on state that may be old: the latch in its directory, the
//! marks in its database, the witness outside it.

mod latch;
mod store;
mod witness;

pub use latch::{Cause, Held, HeldState, Latch, Recorded, Released, Withheld};
pub use store::{Adapter, ChannelRecord, GuardedStore, Phase};
#[cfg(any(test, feature = "conformance"))]
pub use witness::conformance as witness_conformance;
pub use witness::{
    MemoryWitness, Move, PutFault, Raised, VaultWitness, Witness, WitnessEntry, WitnessOff,
    WitnessRecord, WitnessStore,
};
