//! Pruning: what was forgotten long enough ago is deleted, and what nobody needs.
//!
//! No lock joins the machines that use a vault. These rules are all that makes a prune safe beside backups,
//! imports, restores, forgets and other prunes, on a store that lists an object as soon as it is put. All ages are
//! by the store's clock: the time that it gives a small object which the prune puts. Why they suffice is not argued
//! here: `highwater_sim::prune` looks at every state of some configurations, and shows for each rule, by the name
//! in brackets, how a snapshot is lost without it.
//!
//! A **backup**
//! 1. puts its intent, which names its parent, and then looks at the parent (`IntentBeforeLook`). It builds on it
//!    only if it is visible (`ParentMustBeVisible`), no claim names a pack of it (`ClaimedIsNotBuiltOn`), and all
//!    of them are there; else on nothing.
//! 2. commits within half a day or not at all (`BackupHasItsTime`).
//! 3. after its manifest is put, sees that its intent stands (`IntentAfterCommit`), and that its parent does
//!    (`ParentAfterCommit`). If not, it reads the trash and then lists packs (`TrashBeforePacks`): where a claim
//!    names a pack of its manifest (`ClaimsAfterCommit`), or one is missing (`PacksAfterCommit`), it takes the
//!    manifest back, if that is younger than an hour (`TakenBackYoung`).
//! 4. deletes no pack once it has tried to put its manifest, whatever it was answered (`TriedDeletesNothing`).
//!
//! An **import** does the same, but that
//! 5. its intent names every pack that it needs (`ImportNamesPacks`); it gives way to a claim of one of them
//!    (`ImportGivesWay`), and builds on no pack that belongs to no visible snapshot (`ImportBuildsOnVisible`).
//!
//! A **prune**
//! 6. decides, puts a claim, and decides again by what it lists then (`ClaimBeforeLook`): trash
//!    (`TrashUnderTheClaim`), then intents, then manifests (`IntentsBeforeManifests`), then packs. Dead intents,
//!    those older than a day, it deletes before it lists manifests (`DeadIntentsGoFirst`).
//! 7. keeps what a living intent names as its parent (`IntentsKeepTheParent`), and deletes no forgotten snapshot
//!    and no pack that its claim does not name (`NoMoreThanClaimed`).
//! 8. leaves what no manifest ever named for two days (`UnreferencedWaits`), and what was forgotten or replaced for
//!    the grace period (`GracePeriod`): a shorter one shortens the time for restores and for second thoughts, and
//!    breaks nothing else.
//! 9. deletes a replaced generation only if all packs of the next one are there (`ReplacedByWhole`), and that is a
//!    day old, whatever the grace period (`ReplacedWaits`).
//! 10. deletes manifests, then packs (`ManifestsBeforePacks`), then what hides them (`TrashLast`), its claim last.
//!     It deletes within half a day of its claim or not at all (`PruneHasItsTime`).
//! 11. leaves the claim of another prune alone (`ClaimsOfOthersStay`) for a day, or until nothing is left that it
//!     names.
//! 12. gives way to the intent of a rewriting (`PruneGivesWay`).
//!
//! **Who brings a snapshot back**
//! 13. deletes the tombstone, then looks for claims (`UndoLooksForClaims`), and puts it again where there is one;
//!     then sees that a manifest stands (`UndoLooksForTheManifest`).
//!
//! **Who collects what a killed backup or import has left**
//! 14. deletes the intent, then looks for the manifest (`CollectorBuriesFirst`); claims the packs
//!     (`CollectorClaims`), looks again (`CollectorLooksAgain`), and spares what any other manifest names
//!     (`CollectorSparesOthers`).
//! 15. before each deletion sees that its claim stands and is not half a day old (`CollectorClaimMustStand`).
//!
//! The rest is a second line, and the model does without: a backup looks for its intent and its packs before it
//! commits; a living intent keeps its own packs; a claim hides what it names, and must stand before each deletion
//! of its prune; a rewriting gives way to claims, and is taken back only above an older generation; a replaced
//! generation goes only if it was to go before the claim. They spare work, or help where a clock stands still.
//!
//! Not promised: what is seen of a writer that slept for more than a day just while it committed, until it wakes
//! (`catalog::limits`), and what a prune deletes that is stopped for a day between two of its requests. A rewriting
//! that slept so may bring back, whole, what was forgotten and deleted meanwhile.
//!
//! Two rules of the model are not kept. A claim of which nothing is left goes at once, since it would keep a
//! rewriting waiting for a day after a prune was killed (`DoneClaimsStay`); and an import that gives up deletes the
//! packs that it has put (`ImportLeavesItsPacks`). What can be lost by that is a snapshot whose writer was stopped
//! for more than a day just while it committed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use crate::control::{Control, Event};
use crate::env::FaultPoint;
use crate::error::{Error, Kind, Result};
use crate::ids::{NodeName, PackId, SnapshotId, Time, WriterId};

use super::checked::Share;
use super::intent::BACKUP_TIME_MAX;
use super::pack::pack_name;
use super::trash::{Forgotten, GRACE, Purpose, TrashDoc, TrashRecord};
use super::{Actor, SnapshotName, Vault};

mod copy;
mod decide;
mod rewrite;
mod survey;
mod usage;

use decide::{Decision, decide};
use survey::{Announced, Known, Survey};

/// How a prune decides.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PruneOptions {
    /// How long ago a snapshot was forgotten at least.
    pub grace: Duration,
    /// Whether packs that are mostly unneeded are rewritten.
    pub rewrite: Option<Rewriting>,
}

setters! {
    PruneOptions {
        grace: Duration,
        rewrite: Option<Rewriting>,
    }
}

impl Default for PruneOptions {
    fn default() -> PruneOptions {
        PruneOptions { grace: GRACE, rewrite: None }
    }
}

/// How much is rewritten.
#[derive(Clone, Copy, Debug)]
pub struct Rewriting {
    /// No more than this share of the vault's packs is to be unneeded.
    pub unused_max: Share,
    /// No more bytes are copied at once.
    pub bytes_max: u64,
}

impl Rewriting {
    /// What a prune rewrites where nothing else is said: no more than a tenth is to be unneeded, and
    /// 4 GiB are copied at once. While it runs it remembers where each unit went: some 100 bytes for
    /// each of up to a million pages.
    pub const USUAL: Rewriting = Rewriting { unused_max: Share::TENTH, bytes_max: 4 << 30 };
}

/// What would be rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RewritePlan {
    /// Bytes in packs of the visible snapshots that none of them needs.
    pub bytes_unused: u64,
    /// Packs that would be replaced.
    pub packs: u64,
    /// Bytes that would be copied.
    pub bytes: u64,
}

/// What was rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Rewritten {
    /// Snapshots that have a new generation.
    pub manifests: u64,
    /// Packs that were replaced; a prune deletes them once the grace period is over.
    pub packs: u64,
    /// Bytes of the new packs.
    pub bytes: u64,
}

/// Why a manifest is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// It was forgotten.
    Forgotten,
    /// A later generation of the same snapshot has replaced it.
    Replaced,
    /// A deposed writer put it, and nobody ever saw it.
    Fenced,
}

/// A manifest that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Doomed {
    /// The node.
    pub node: NodeName,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Which generation of it.
    pub generation: u32,
    /// Why.
    pub why: Why,
}

/// A forgotten snapshot that stays for now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The node.
    pub node: NodeName,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// From then on it may go, by the store's clock; `None` where a backup that runs builds on it.
    pub until: Option<Time>,
}

/// What a prune would delete: data that prints.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PrunePlan {
    /// What time it was, by the store's clock.
    pub time: Time,
    /// Manifests that go.
    pub manifests: Vec<Doomed>,
    /// Packs that go.
    pub packs: u64,
    /// Bytes of those packs.
    pub bytes: u64,
    /// Bytes of the packs that stay because a snapshot needs them.
    pub bytes_needed: u64,
    /// Packs in no snapshot that stay: a backup may be writing them.
    pub packs_young: u64,
    /// Forgotten snapshots that stay for now.
    pub waiting: Vec<Waiting>,
    /// What would be rewritten, where that was asked for.
    pub rewrite: Option<RewritePlan>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    #[serde(skip)]
    options: PruneOptions,
    #[serde(skip)]
    decision: Decision,
    #[serde(skip)]
    known: Known,
}

impl PrunePlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.decision.is_empty() && self.rewrites().is_none()
    }

    fn rewrites(&self) -> Option<&Rewriting> {
        self.options.rewrite.as_ref().filter(|_| self.rewrite.is_some_and(|plan| plan.packs > 0))
    }
}

/// What a prune has deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pruned {
    /// Snapshots, that is manifests of any generation.
    pub manifests: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes of those packs.
    pub bytes: u64,
    /// What was rewritten.
    pub rewritten: Rewritten,
}

/// Decides what a prune would delete. Nothing is deleted; a small object is put, and removed again,
/// to learn the store's time.
///
/// ```
/// # use highwater::{Actor, Backup, Secret, Vault};
/// # let scratch = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(scratch.path()).unwrap();
/// # std::fs::create_dir("node").unwrap();
/// # std::fs::write("node/state", "seven channels").unwrap();
/// # let secret = Secret::Passphrase("correct horse battery staple".to_owned().into());
/// # let vault = Vault::create(&"vault".parse()?, &secret)?;
/// # let actor = Actor::new("state", "operator@node-1");
/// # let backup = Backup::of("node").run(&vault, &actor)?;
/// use highwater::vault::prune::{self, PruneOptions};
///
/// let plan = prune::plan(&vault, &actor, &PruneOptions::default(), &vault.control())?;
/// assert!(plan.is_empty(), "what is visible stays, and what was forgotten stays for a while");
/// let pruned = prune::run(&vault, &actor, &plan, &vault.control())?;
/// assert_eq!(pruned.packs, 0);
/// # Ok::<(), highwater::Error>(())
/// ```
/// # Errors
/// Corrupt where a manifest that stays can't be opened, since what it needs is not known then; input
/// where a newer program wrote one.
pub fn plan(
    vault: &Vault,
    actor: &Actor,
    options: &PruneOptions,
    control: &Control,
) -> Result<PrunePlan> {
    let time = vault.store_time(&actor.name)?;
    let mut known = Known::default();
    let survey = Survey::take(vault, &mut known)?;
    let decision = decide(&survey, time, options.grace, None)?;
    let doomed = |(name, why): &(SnapshotName, Why)| Doomed {
        node: name.node.clone(),
        snapshot: name.snapshot,
        generation: name.generation,
        why: *why,
    };
    let mut warnings = decision.warnings.clone();
    let rewrite = match &options.rewrite {
        Some(rewriting) => plan_rewriting(vault, rewriting, control, &mut warnings)?,
        None => None,
    };
    Ok(PrunePlan {
        time,
        manifests: decision.manifests.iter().map(doomed).collect(),
        packs: decision.packs.len() as u64,
        bytes: decision.packs.values().sum(),
        bytes_needed: decision.bytes_needed,
        packs_young: decision.packs_young,
        waiting: decision.waiting.clone(),
        rewrite,
        warnings,
        options: options.clone(),
        decision,
        known,
    })
}

/// Damage of a pack is no reason to delete nothing: then nothing is rewritten.
fn plan_rewriting(
    vault: &Vault,
    options: &Rewriting,
    control: &Control,
    warnings: &mut Vec<String>,
) -> Result<Option<RewritePlan>> {
    let names = vault.snapshot_names(None)?;
    match rewrite::plan(vault, &names, options, control) {
        Ok((plan, _)) => Ok(Some(plan)),
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::NotFound) => {
            let object = error.entry().unwrap_or("a pack");
            warnings.push(format!(
                "nothing is rewritten: {object} can't be read ({}); a check of the vault tells what \
                 needs it",
                error.message()
            ));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Deletes what a plan names, as far as nobody needs it any more. Where another prune has finished, or
/// removed, what this one has claimed, it ends there.
///
/// # Errors
/// Conflict where this user prunes the vault already; as [`plan`] otherwise. Whatever ends it, what
/// is visible is whole, and the next prune finishes.
pub fn run(vault: &Vault, actor: &Actor, plan: &PrunePlan, control: &Control) -> Result<Pruned> {
    let _span = tracing::info_span!("prune").entered();
    let _lock = actor.lock_vault(vault.id())?;
    vault.collect_temporary()?;
    let mut pruned = match plan.decision.is_empty() {
        true => Pruned::default(),
        false => claim_and_delete(vault, actor, plan, control)?,
    };
    if let Some(rewriting) = plan.rewrites() {
        pruned.rewritten = rewrite::run(vault, actor, rewriting, control)?;
    }
    let Pruned { manifests, packs, bytes, rewritten } = pruned;
    tracing::info!(manifests, packs, bytes, packs_rewritten = rewritten.packs, "pruned");
    Ok(pruned)
}

fn claim_and_delete(
    vault: &Vault,
    actor: &Actor,
    plan: &PrunePlan,
    control: &Control,
) -> Result<Pruned> {
    control.env.fault(FaultPoint::PruneClaim)?;
    let start = control.env.monotonic();
    let mut claim = vault.put_trash(&claim(vault, actor, &plan.decision)?)?;
    control.env.fault(FaultPoint::PruneSurvey)?;
    let writer = actor.writer(&control.env)?;
    let (survey, decision) = match look_again(vault, &claim, plan, writer, control) {
        Ok(found) => found,
        Err(error) => {
            // Nothing was deleted yet: the claim must not stay in the way of an undo.
            vault.store().delete(&claim.name)?;
            return Err(error);
        }
    };
    narrow(vault, actor, &mut claim, &decision)?;
    let own = Own { vault, claim: &claim, start, control };
    let pruned = delete(&own, &survey, &decision)?;
    control.env.fault(FaultPoint::PruneTrash)?;
    vault.store().delete(&claim.name)?;
    Ok(pruned)
}

/// What a prune means to delete, said before it decides for good.
fn claim(vault: &Vault, actor: &Actor, decision: &Decision) -> Result<TrashDoc> {
    // What was brought back since the plan must not be hidden again.
    let trash = vault.trash()?;
    let forgotten = decision
        .manifests
        .iter()
        .filter(|(name, why)| *why == Why::Forgotten && trash.forgotten(name.snapshot).is_some());
    let snapshots: BTreeSet<Forgotten> = forgotten
        .map(|(name, _)| Forgotten { node: name.node.clone(), snapshot: name.snapshot })
        .collect();
    let packs: Vec<PackId> = decision.packs.keys().copied().collect();
    TrashDoc::new(vault, Purpose::Delete, &actor.name, snapshots.into_iter().collect(), packs)
}

/// A claim that names a snapshot which stays, brought back just before the claim was put, hides it no
/// longer than until a smaller one stands.
fn narrow(vault: &Vault, actor: &Actor, own: &mut TrashRecord, decision: &Decision) -> Result<()> {
    let goes = |gone: &Forgotten| {
        decision.manifests.iter().any(|(name, _)| name.snapshot == gone.snapshot)
    };
    if own.doc.snapshots.iter().all(goes) {
        return Ok(());
    }
    let smaller = vault.put_trash(&claim(vault, actor, decision)?)?;
    vault.store().delete(&own.name)?;
    *own = smaller;
    Ok(())
}

/// Decides again, now that the claim stands; no more than what it names is left of it.
fn look_again(
    vault: &Vault,
    claim: &TrashRecord,
    plan: &PrunePlan,
    writer: WriterId,
    control: &Control,
) -> Result<(Survey, Decision)> {
    let mut known = plan.known.clone();
    let mut survey = Survey::begin(vault)?;
    let dead =
        |intent: &Announced| intent.is_dead(claim.modified) || intent.is_killed_rewriting(writer);
    survey.bury(vault, control, dead)?;
    if survey.is_rewritten_beside(None) {
        return Err(busy());
    }
    survey.finish(vault, &mut known)?;
    let mut decision = decide(&survey, claim.modified, plan.options.grace, Some(claim))?;
    // Nor does a generation go that was not to go before: what replaces it was seen, with its packs,
    // before those of the claim were chosen.
    let planned: BTreeSet<&SnapshotName> =
        plan.decision.manifests.iter().map(|(name, _)| name).collect();
    decision.keep_unplanned(&survey, &planned);
    Ok((survey, decision))
}

/// The claim of a prune that deletes.
struct Own<'a> {
    vault: &'a Vault,
    claim: &'a TrashRecord,
    /// On the monotonic clock.
    start: Duration,
    control: &'a Control,
}

impl Own<'_> {
    /// Whether the claim still stands, to be asked before each deletion: a machine that was suspended
    /// may wake long after others have taken it for dead, and have built on what it was to delete.
    ///
    /// # Errors
    /// Conflict where the claim is so old that others may remove it.
    fn stands(&self) -> Result<bool> {
        let age = self.control.env.monotonic().saturating_sub(self.start);
        if age > BACKUP_TIME_MAX {
            return Err(Error::conflict("the prune took so long that it was given up")
                .with_remedy("prune again: what is left is deleted then"));
        }
        Ok(self.vault.store().size(&self.claim.name)?.is_some())
    }
}

fn busy() -> Error {
    Error::conflict("another prune of this vault is at work")
        .with_remedy("prune again once it has ended")
}

fn delete(own: &Own<'_>, survey: &Survey, decision: &Decision) -> Result<Pruned> {
    let Own { vault, control, .. } = *own;
    let mut pruned = Pruned::default();
    control.report(Event::Stage { name: "prune", bytes_total: decision.packs.values().sum() });
    for (name, why) in &decision.manifests {
        control.cancel.check()?;
        if *why == Why::Forgotten {
            survey.remember(vault, name)?;
        }
        control.env.fault(FaultPoint::PruneManifest)?;
        if !own.stands()? {
            return Ok(pruned);
        }
        vault.store().delete(&name.object())?;
        pruned.manifests += 1;
    }
    for (&pack, &bytes) in &decision.packs {
        control.cancel.check()?;
        control.env.fault(FaultPoint::PrunePack)?;
        if !own.stands()? {
            return Ok(pruned);
        }
        vault.store().delete(&pack_name(pack))?;
        control.report(Event::Bytes(bytes));
        pruned.packs += 1;
        pruned.bytes += bytes;
    }
    for name in &decision.trash {
        control.env.fault(FaultPoint::PruneTrash)?;
        if !own.stands()? {
            return Ok(pruned);
        }
        vault.store().delete(name)?;
    }
    Ok(pruned)
}
