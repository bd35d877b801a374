//! The real program on real databases: exit codes, documents, and what is on disk afterwards.

mod answers;
mod circle;
#[cfg(feature = "fault-points")]
mod crashes;
mod interrupts;
mod keys;
mod settings;
mod usage;
mod world;
