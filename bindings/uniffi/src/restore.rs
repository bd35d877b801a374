//! Restores, and what undoes or finishes them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use highwater::restore as library;
use highwater::restore::RollbackOptions;
use highwater_nodes::Known;

use crate::actor::Actor;
use crate::backup::Part;
use crate::error::{Error, Result};
use crate::guard::GuardKind;
use crate::own;
use crate::progress::{Call, Cancel, Progress};
use crate::same::same;
use crate::vault::{Level, Vault, selector, time};

same! {
    /// How the target of a restore is exchanged.
    pub enum Exchange = highwater::restore::Exchange {
        /// The target does not exist, or is an empty directory.
        Create,
        /// Directory against directory, in one step.
        Whole,
        /// The target is a mount point: entry against entry inside it.
        Entries,
    }
}

same! {
    /// Which node a call has left in a directory.
    pub enum Outcome = highwater::restore::Outcome {
        /// There was nothing to finish.
        Nothing,
        /// The node from before the restore.
        Old,
        /// The restored node.
        New,
    }
}

/// What a rollback undoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Undo {
    /// The last restore.
    Restore,
    /// The last rollback: the restored directory comes back.
    Rollback,
}

/// What a restore does besides the common.
#[derive(Clone, Debug, uniffi::Record)]
pub struct RestoreOptions {
    /// The snapshot: an id, a unique beginning of one, or `latest`.
    #[uniffi(default = "latest")]
    pub snapshot: String,
    /// The name of the node; needed for the latest of a vault that has several.
    #[uniffi(default = None)]
    pub node: Option<String>,
    /// One part alone; the others stay as they are.
    #[uniffi(default = None)]
    pub part: Option<String>,
    /// A target that holds something is exchanged, and kept for a rollback.
    #[uniffi(default = false)]
    pub over_existing: bool,
    /// The schema version that the node's program knows: a newer snapshot is refused.
    #[uniffi(default = None)]
    pub schema: Option<u64>,
    /// Who acts; the standard actor where there is none.
    #[uniffi(default = None)]
    pub actor: Option<Actor>,
}

impl Default for RestoreOptions {
    fn default() -> RestoreOptions {
        RestoreOptions {
            snapshot: "latest".to_owned(),
            node: None,
            part: None,
            over_existing: false,
            schema: None,
            actor: None,
        }
    }
}

/// What a restore would do.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct RestorePlan {
    /// The snapshot.
    pub snapshot: String,
    /// The name of its node.
    pub node: String,
    /// When its instant was.
    pub time: SystemTime,
    /// How far it is known to be good.
    pub level: Level,
    /// The node directory, absolute, links resolved.
    pub target: String,
    /// How the target is exchanged.
    pub exchange: Exchange,
    /// Where the old directory will be kept; none where there is none.
    pub keep: Option<String>,
    /// The parts that are restored.
    pub parts: Vec<Part>,
    /// Bytes that are written.
    pub bytes: u64,
    /// How the restored node is held back; none where it is not.
    pub hold: Option<GuardKind>,
    /// Why it is held back.
    pub reasons: Vec<String>,
    /// What the operator should know first.
    pub warnings: Vec<String>,
    /// What the restore would be refused for as things stand, each in a sentence.
    pub refusals: Vec<String>,
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct RestoreReport {
    /// The snapshot.
    pub snapshot: String,
    /// The node directory.
    pub target: String,
    /// Bytes written.
    pub bytes: u64,
    /// How long it all took.
    pub duration: Duration,
    /// Where the old directory is kept.
    pub kept: Option<String>,
    /// Channels that are marked stale, or databases that are withheld; 1 for a node whose channels are not known yet.
    pub quarantined: u64,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// A directory that a restore or a rollback has put aside.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct KeptDirectory {
    /// Its number; 1 for the newest.
    pub number: u64,
    /// Where it is.
    pub path: String,
    /// Whether it is a restored one; none where nothing tells.
    pub restored: Option<bool>,
    /// The snapshot of the restore by which it was put aside, or which it is a copy of.
    pub snapshot: Option<String>,
    /// When it was put aside.
    pub time: Option<SystemTime>,
    /// Bytes of the files in it.
    pub bytes: u64,
}

/// The options of the library, and who acts.
fn settled(asked: Option<RestoreOptions>) -> Result<(library::RestoreOptions, Option<Actor>)> {
    let asked = asked.unwrap_or_default();
    let mut options = library::RestoreOptions::default();
    options.selector = selector(asked.snapshot, asked.node)?;
    options.part = asked.part;
    options.force = asked.over_existing;
    options.schema = asked.schema;
    Ok((options, asked.actor))
}

/// Tells what a restore into `directory` would do as things stand, and what it would be refused for; changes nothing.
///
/// # Errors
/// Not found where there is no such snapshot; input where the call is wrong.
#[uniffi::export(default(options = None))]
pub fn plan_restore(
    vault: Arc<Vault>,
    directory: String,
    options: Option<RestoreOptions>,
) -> Result<RestorePlan> {
    let (options, _) = settled(options)?;
    let plan = library::preview(vault.inner(), Path::new(&directory), &options)?;
    let mut refusals: Vec<String> =
        plan.refusals.into_iter().map(|error| Error::from(error).text()).collect();
    if plan.keep.is_some() {
        let own = own::refuse_open_below(&plan.target);
        refusals.extend(own.err().map(|error| Error::from(error).text()));
    }
    Ok(RestorePlan {
        snapshot: plan.snapshot.to_string(),
        node: plan.node.to_string(),
        time: time(plan.time),
        level: plan.level.into(),
        target: plan.target.display().to_string(),
        exchange: plan.exchange.into(),
        keep: plan.keep.map(|keep| keep.display().to_string()),
        parts: plan.parts.into_iter().map(Part::from).collect(),
        bytes: plan.bytes,
        hold: plan.hold.map(GuardKind::from),
        reasons: plan.reasons,
        warnings: plan.warnings,
        refusals,
    })
}

/// Restores a snapshot into `directory`, verifies it, and exchanges the two in one step. What the directory held is
/// kept for a rollback. A guarded node comes back held: see the object `Guard`.
///
/// # Errors
/// Conflict where the directory holds something and `over_existing` was not asked for, or somebody uses it, this
/// process included; not found where there is no such snapshot; corrupt where the vault is damaged.
#[uniffi::export(default(options = None, progress = None, cancel = None))]
pub fn restore(
    vault: Arc<Vault>,
    directory: String,
    options: Option<RestoreOptions>,
    progress: Option<Arc<dyn Progress>>,
    cancel: Option<Arc<Cancel>>,
) -> Result<RestoreReport> {
    let (mut options, actor) = settled(options)?;
    let by = Actor::or_standard(actor)?.name;
    let call = Call::new(progress, cancel.as_ref());
    let plan = library::plan(vault.inner(), Path::new(&directory), &options)?;
    own::refuse_open_below(&plan.target)?;
    options.second_belt = highwater_nodes::second_belt(&plan.kinds);
    let report = call.run(|control| library::run(vault.inner(), &plan, &options, control))?;
    let mut warnings = plan.warnings;
    warnings.extend(report.warnings);
    warnings.dedup();
    if report.quarantined > 0 {
        let raise = |control: &highwater::Control| {
            highwater_nodes::floor::raise_to_seen(&report.target, &by, control)
        };
        if let Err(error) = Call::new(None, None).run(raise) {
            warnings.push(format!("its signer's state is withheld as it was backed up: {error}"));
        }
    }
    Ok(RestoreReport {
        snapshot: report.snapshot.to_string(),
        target: report.target.display().to_string(),
        bytes: report.bytes,
        duration: report.duration,
        kept: report.kept.map(|kept| kept.display().to_string()),
        quarantined: report.quarantined,
        warnings,
    })
}

/// Restores a snapshot into a scratch directory below `scratch`, opens its databases and checks all their data,
/// removes it again, and records in the vault how good the snapshot is. Tells what could not be checked.
///
/// # Errors
/// Those of a restore; corrupt where a database does not pass.
#[uniffi::export(default(options = None, progress = None, cancel = None))]
pub fn run_restore_test(
    vault: Arc<Vault>,
    scratch: String,
    options: Option<RestoreOptions>,
    progress: Option<Arc<dyn Progress>>,
    cancel: Option<Arc<Cancel>>,
) -> Result<Vec<String>> {
    let (options, _) = settled(options)?;
    let (selector, engines) = (&options.selector, &options.engines);
    let checked = Call::new(progress, cancel.as_ref()).run(|control| {
        library::test(vault.inner(), selector, Path::new(&scratch), engines, control)
    })?;
    let unchecked =
        checked.unchecked.into_iter().map(|name| format!("only the bytes of {name} were examined"));
    Ok(checked.warnings.into_iter().chain(unchecked).collect())
}

/// Undoes the last restore of `directory`, or the last rollback: what was put aside takes its place again, and what
/// stands there is kept. A guarded node that could have been overtaken comes back held.
///
/// # Errors
/// Not found where nothing is kept; conflict where somebody uses the directory, this process included, or an operation
/// was interrupted.
#[uniffi::export(default(undo = None, cancel = None))]
pub fn rollback(
    directory: String,
    undo: Option<Undo>,
    cancel: Option<Arc<Cancel>>,
) -> Result<Outcome> {
    let target = Path::new(&directory);
    own::refuse_open_below(target)?;
    let undo = match undo.unwrap_or(Undo::Restore) {
        Undo::Restore => library::Undo::Restore,
        Undo::Rollback => library::Undo::Rollback,
    };
    let known: Arc<dyn highwater::engine::Recogniser> = Arc::new(Known);
    // Of which kind the node is, one of the directories that were put aside tells, or the one that stands.
    let kept = library::kept(target).unwrap_or_default();
    let dirs = kept.iter().map(|kept| kept.path.as_path()).chain([target]);
    let kinds: Vec<String> = dirs.flat_map(highwater_nodes::kinds_in).collect();
    let options = RollbackOptions::default()
        .undo(undo)
        .recogniser(Some(known))
        .second_belt(highwater_nodes::second_belt(&kinds));
    let outcome = Call::new(None, cancel.as_ref())
        .run(|control| library::rollback_by(target, &options, control))?;
    Ok(outcome.into())
}

/// Finishes or undoes a restore or rollback of `directory` that was interrupted. A node calls it before it starts.
///
/// # Errors
/// Not found where there is neither a node directory nor an interrupted restore of it.
#[uniffi::export]
pub fn recover(directory: String) -> Result<Outcome> {
    let outcome =
        Call::new(None, None).run(|control| library::recover(Path::new(&directory), control))?;
    Ok(outcome.into())
}

/// The directories that restores and rollbacks of `directory` have put aside, the newest first.
///
/// # Errors
/// Conflict where one goes on.
#[uniffi::export]
pub fn kept(directory: String) -> Result<Vec<KeptDirectory>> {
    let kept = library::kept(Path::new(&directory))?;
    let told = |kept: library::Kept| KeptDirectory {
        number: kept.number as u64,
        path: kept.path.display().to_string(),
        restored: kept.restored,
        snapshot: kept.snapshot.map(|snapshot| snapshot.to_string()),
        time: kept.time.map(time),
        bytes: kept.bytes,
    };
    Ok(kept.into_iter().map(told).collect())
}
