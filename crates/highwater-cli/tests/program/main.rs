//! The real program on real databases: exit codes, documents, and what is on disk afterwards.

mod answers;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod archives;
mod circle;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod crash_backup;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod crash_import;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod crash_prune;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod crash_restore;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod floors;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod forget;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod freeze;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod guard;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod guard_old;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod guard_run;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod hard_times;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod hostile;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod in_use;
mod inert;
mod interrupts;
mod keys;
mod kit;
#[cfg(test)]
mod leftovers;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod links;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod live;
mod log;
#[cfg(test)]
mod many;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod node;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod nodes;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod page_files;
#[cfg(test)]
#[path = "../../../highwater-vss/tests/postgres/mod.rs"]
mod postgres;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod prune;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod pull;
#[cfg(test)]
mod replica;
#[cfg(test)]
mod replica_migrate;
#[cfg(test)]
mod reunite;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod scene;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod serve;
#[path = "../../../highwater/tests/servers/mod.rs"]
mod servers;
mod settings;
#[cfg(test)]
mod shrunk;
#[cfg(test)]
mod sickness;
mod stores;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod strangers;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod tree;
#[cfg(feature = "fault-points")]
#[cfg(test)]
mod unchanged;
mod usage;
#[cfg(test)]
mod vss;
#[path = "../../../highwater-vss/tests/wire/mod.rs"]
mod wire;
mod world;
