//! Highwater for languages other than Rust, by UniFFI: a facade over the crates `highwater`, `highwater-nodes` and
//! `highwater-replica`.
//!
//! What is told here in words becomes the documentation of the generated code. Every call blocks its thread, and holds
//! no lock of the caller's interpreter while it does: the code that UniFFI generates for Python calls through
//! `ctypes`, which gives that lock up for as long as a call takes, and takes it again for a callback.

mod actor;
mod agent;
mod backup;
mod error;
mod guard;
mod key;
mod kit;
mod own;
mod place;
mod progress;
mod replica;
mod restore;
mod same;
mod vault;
mod wait;

pub use actor::{Actor, standard_actor};
pub use agent::{
    Agent, AgentOptions, AgentRules, AgentStatus, Operation, OperationState, ReplicaStanding,
    ReplicaState, Retention, SeenSnapshot, Task, Trigger,
};
pub use backup::{BackupOptions, BackupReport, Changes, Checkpoint, Effort, Part, Writers, backup};
pub use error::{CallbackError, Error, HighwaterError, Kind, Problem, Result};
pub use guard::{Guard, GuardKind, Held, HeldState, Standing, StandingCause};
pub use key::Key;
pub use kit::{
    IdentityKey, Kit, KitChannel, KitContent, KitHeader, SlotKind, export_kit, open_kit, show_kit,
    write_kit_content,
};
pub use progress::{Cancel, Progress};
pub use replica::{
    Carried, ClassRule, HeadState, Holder, ReplicaClass, ReplicaOptions, ReplicaStatus,
    ReplicatedStore, Row, StartKind, Started, VssAuth, VssServer, Write,
};
pub use restore::{
    Exchange, KeptDirectory, Outcome, RestoreOptions, RestorePlan, RestoreReport, Undo, kept,
    plan_restore, recover, restore, rollback, run_restore_test,
};
pub use vault::{
    ArchiveReport, CheckFault, CheckReport, CreatedVault, ImportReport, ImportedSnapshot, Level,
    Snapshot, Vault, create_vault_with_recovery,
};

uniffi::setup_scaffolding!("highwater");

/// The version of this library.
#[uniffi::export]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
