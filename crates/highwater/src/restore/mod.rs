//! One restore: plan, fetch into staging, verify, exchange, keep the old directory.
//!
//! [`Restore`] is how most callers ask for one. What it replaced is kept, and comes back by [`rollback`]; what was
//! interrupted is finished or undone by [`recover`], which a node calls before it starts:
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
//! use highwater::{Restore, restore};
//!
//! std::fs::write("node/state", "eight channels").unwrap();
//! Restore::snapshot(backup.snapshot.to_string(), "node").over_existing().run(&vault)?;
//! assert_eq!(std::fs::read("node/state").unwrap(), b"seven channels");
//!
//! let (node, control) = (Path::new("node"), vault.control());
//! assert_eq!(restore::recover(node, &control)?, restore::Outcome::Nothing);
//! restore::rollback(node, &control)?;
//! assert_eq!(std::fs::read("node/state").unwrap(), b"eight channels");
//! # Ok::<(), highwater::Error>(())
//! ```

mod call;
mod carry;
mod entries;
mod exchange;
mod fetch;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod hold;
pub mod hydrated;
mod journal;
mod kept;
mod mark;
mod place;
mod plan;
mod rollback;
mod stage;
#[cfg(test)]
mod tests;
mod users;
mod work;
mod workdir;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::control::Control;
use crate::engine::{Checked, Engines, Recogniser};
use crate::error::{Error, Result};
use crate::guard::{Adapter, Released};
use crate::ids::{GuardKind, NodeName, SnapshotId, Time};
use crate::vault::{Level, PartSummary, Selector, Vault};

pub use call::Restore;
pub use hydrated::{HydratedStore, Pair};
pub use kept::Kept;

/// What a restore does besides the common.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// Which snapshot.
    pub selector: Selector,
    /// One part alone; the others stay as they are.
    pub part: Option<String>,
    /// A target that holds something is exchanged, and kept for `rollback`.
    pub force: bool,
    /// Owner and group of all that is restored, instead of the recorded ones.
    pub owner: Option<(u32, u32)>,
    /// Set-user-id and set-group-id bits of files, and capabilities, come back as well. Else they are
    /// left out, and named in a warning: whoever could write the snapshot could plant them.
    pub setid: bool,
    /// The schema version that the node's program knows: a newer snapshot is refused.
    pub schema: Option<u64>,
    /// Opens the node's database, so that its channels are marked stale before the node gets it.
    pub adapter: Option<Arc<dyn Adapter>>,
    /// Also marks the channels stale if the databases are withheld, so that two things have to fail before the
    /// node acts on old state. If the adapter does not know the database, it is only withheld.
    pub second_belt: Option<Arc<dyn Adapter>>,
    /// A statement that no other copy of the node runs or ever will: without it, and without a
    /// witness, a peer's word clears no channel.
    pub original_gone: Option<Released>,
    /// Takes the place of the replicated store in one part, before anything is checked or exchanged.
    pub hydrated: Option<HydratedStore>,
    /// The engines of the node's databases.
    pub engines: Engines,
}

/// How the target is exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// The target does not exist, or is an empty directory: staging takes its place.
    Create,
    /// Directory against directory, in one step.
    Whole,
    /// The target is a mount point: entry against entry inside it, entry points withheld meanwhile.
    Entries,
}

/// What a restore would do: data that prints.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestorePlan {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its node.
    pub node: NodeName,
    /// When its barrier was.
    pub time: Time,
    /// How far the snapshot was known to be good.
    pub level: Level,
    /// The node directory, absolute, links resolved.
    pub target: PathBuf,
    /// How the target is exchanged.
    pub exchange: Exchange,
    /// Where the files are staged.
    pub staging: PathBuf,
    /// Where the old directory is kept; `None` where there is none.
    pub keep: Option<PathBuf>,
    /// The parts that are restored.
    pub parts: Vec<PartSummary>,
    /// Bytes that are written.
    pub bytes: u64,
    /// What the operator should know first.
    pub warnings: Vec<String>,
    /// What the restore would be refused for as things stand; none but of [`preview`].
    pub refusals: Vec<Error>,
    /// How the restored node is held back; `None` if it is not.
    pub hold: Option<GuardKind>,
    /// Why it is held back.
    pub reasons: Vec<String>,
    /// Which of its marks lie below the highest that the vault has seen, and by how much.
    pub marks_below: Vec<String>,
    /// The kinds of the node, where they were known.
    pub kinds: Vec<String>,
    /// Which of the options it was made with change what it would do.
    asked: Asked,
}

/// What a plan depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    part: Option<String>,
    force: bool,
    adapter: bool,
}

impl Asked {
    fn of(options: &RestoreOptions) -> Asked {
        Asked {
            part: options.part.clone(),
            force: options.force,
            adapter: options.adapter.is_some(),
        }
    }
}

/// What a restore did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The node directory.
    pub target: PathBuf,
    /// Bytes written.
    pub bytes: u64,
    /// How long it all took.
    pub duration: Duration,
    /// Where the old directory is kept.
    pub kept: Option<PathBuf>,
    /// Channels that are marked stale, or databases whose entry points are withheld; 1 for a node
    /// whose channels are not known yet.
    pub quarantined: u64,
    /// Channels that are marked stale in the node's own database, although that is withheld.
    pub marked: u64,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Which node an interrupted or undone restore left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to finish.
    Nothing,
    /// The node directory is the one from before the restore.
    Old,
    /// The node directory is the restored one.
    New,
}

/// Plans a restore of `target`; changes nothing.
pub fn plan(vault: &Vault, target: &Path, options: &RestoreOptions) -> Result<RestorePlan> {
    plan::plan(vault, target, options, plan::Obstacles::Refuse)
}

/// The same for who only wants to know: what the restore would be refused for as things stand (a process
/// that has the target open, a target that holds something, an interrupted restore) is told among the
/// warnings.
pub fn preview(vault: &Vault, target: &Path, options: &RestoreOptions) -> Result<RestorePlan> {
    plan::plan(vault, target, options, plan::Obstacles::Tell)
}

/// Carries a plan out, by the options that it was made with. Owner, second belt and what else does not change
/// the plan itself may be chosen after it was looked at.
///
/// # Errors
/// Input where the part, `force` or the adapter are others than those of the plan; conflict where the target has
/// changed since, or somebody uses it; what [`plan()`] would be refused for by now; what the vault and the file
/// system say.
pub fn run(
    vault: &Vault,
    plan: &RestorePlan,
    options: &RestoreOptions,
    control: &Control,
) -> Result<RestoreReport> {
    if plan.asked != Asked::of(options) {
        return Err(Error::input("the restore was planned with other options")
            .with_remedy("plan it again with these"));
    }
    let _span =
        tracing::info_span!("restore", node = %plan.node, snapshot = %plan.snapshot).entered();
    let report = carry::run(vault, plan, options, control)?;
    tracing::info!(
        bytes = report.bytes,
        quarantined = report.quarantined,
        marked = report.marked,
        duration_ms = report.duration.as_millis() as u64,
        warnings = report.warnings.len(),
        "restored"
    );
    Ok(report)
}

/// Restores a snapshot into a scratch directory below `scratch`, opens its databases, lets the
/// engines check all their data, removes it again, and records the level in the vault: not that of a
/// snapshot with databases of which only the bytes were examined, which are named.
pub fn test(
    vault: &Vault,
    selector: &Selector,
    scratch: &Path,
    engines: &Engines,
    control: &Control,
) -> Result<Checked> {
    let _span = tracing::info_span!("restore test", snapshot = selector.snapshot).entered();
    let checked = carry::test(vault, selector, scratch, engines, control)?;
    tracing::info!("restored, and removed again");
    Ok(checked)
}

/// How a rollback goes about it.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct RollbackOptions {
    /// What it undoes.
    pub undo: Undo,
    /// Opens the node's database, so that its channels are marked stale before the node gets it.
    pub adapter: Option<Arc<dyn Adapter>>,
    /// Knows the kind of the node, and by which plain files it is held back.
    pub recogniser: Option<Arc<dyn Recogniser>>,
    /// Marks the channels as well where the databases are withheld.
    pub second_belt: Option<Arc<dyn Adapter>>,
    /// The engines of the node's databases.
    pub engines: Engines,
}

setters! {
    RollbackOptions {
        undo: Undo,
        adapter: Option<Arc<dyn Adapter>>,
        recogniser: Option<Arc<dyn Recogniser>>,
        second_belt: Option<Arc<dyn Adapter>>,
        engines: Engines,
    }
}

/// What a rollback does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Undo {
    /// Undoes the last restore.
    #[default]
    Restore,
    /// Undoes the last rollback: the restored directory comes back.
    Rollback,
    /// Brings back the directory with this number of [`kept`], 1 for the newest.
    To(usize),
}

/// The directories that restores and rollbacks of `target` have put aside, the newest first.
///
/// # Errors
/// Conflict where a restore, rollback or recover goes on.
pub fn kept(target: &Path) -> Result<Vec<Kept>> {
    kept::list(target)
}

/// Whether `target` is a restored directory that took the place of the node's own: that one was put aside and is
/// still kept, so that no other machine has it.
///
/// # Errors
/// Conflict where a restore, rollback or recover goes on.
pub fn took_its_place(target: &Path) -> Result<bool> {
    kept::holds_original(target)
}

/// Removes a directory that was put aside, by its number in [`kept`]; tells what it was.
///
/// # Errors
/// Not found where there is none with this number; conflict where another operation runs, or one was
/// interrupted.
pub fn drop_kept(target: &Path, number: usize, control: &Control) -> Result<Kept> {
    kept::drop_one(target, number, control)
}

/// Undoes the last restore of `target`: the kept directory takes its place again, and what stood
/// there is kept. Tells which node `target` holds.
///
/// A guarded node that could have been overtaken is held back as a restored one is: its latch is
/// put on, its databases withheld.
///
/// Nothing kept: not found. The node runs, another operation runs, one was interrupted, the last restore
/// is undone already, or another hand replaced `target` since: a conflict.
pub fn rollback(target: &Path, control: &Control) -> Result<Outcome> {
    rollback_by(target, &RollbackOptions::default(), control)
}

/// [`rollback`] with more to say of it: of a node whose database an adapter opens, the channels are marked
/// stale.
pub fn rollback_by(target: &Path, options: &RollbackOptions, control: &Control) -> Result<Outcome> {
    let _span = tracing::info_span!("rollback").entered();
    let outcome = rollback::rollback(target, options, control, crate::engine::users)?;
    tracing::info!(?outcome, "rolled back");
    Ok(outcome)
}

/// Finishes an interrupted restore or rollback of `target`, one way or the other: undone where the
/// exchange had not begun, finished where it had. Tells which node `target` holds.
///
/// # Errors
/// Not found where there is neither a node directory nor a work directory of a restore of it.
pub fn recover(target: &Path, control: &Control) -> Result<Outcome> {
    recover_by(target, &Engines::default(), control)
}

/// [`recover`] of a node with databases of an embedder's own engines.
///
/// # Errors
/// Those of [`recover`].
pub fn recover_by(target: &Path, engines: &Engines, control: &Control) -> Result<Outcome> {
    place::refuse_missing(target)?;
    let _span = tracing::info_span!("recover").entered();
    let outcome = rollback::recover(target, engines, control, crate::engine::users)?;
    tracing::info!(?outcome, "recovered");
    Ok(outcome)
}

/// Refuses a node directory whose restore or rollback is running or was interrupted: a conflict until
/// [`recover`] has run. Call it before you start the node.
///
/// A caller that may not look into the work directory beside the node directory, such as a node that root
/// has restored, does not learn of an exchange of whole directories: before and after it the directory is
/// whole, with its latch.
pub fn refuse_interrupted(target: &Path) -> Result<()> {
    rollback::refuse_interrupted(target)
}
