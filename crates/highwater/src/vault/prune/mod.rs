//! Pruning: what was forgotten long enough ago is deleted, and what nobody needs.
//!
//! No lock joins the machines that use a vault. What follows is why a prune is safe beside backups,
//! restores, other forgets and other prunes, if the store lists an object as soon as it is put. All
//! ages are by the store's clock: the time that it gives a small object which the prune puts.
//!
//! A **backup** (1) chooses the newest visible snapshot as its parent, (2) puts its intent, which
//! names the parent, (3) looks whether the parent is still visible, in which generation, and whether
//! all its packs are there, and else builds on nothing, (4) puts packs, (5) sees that its intent
//! stands and that all packs are there, (6) puts the manifest, (7) sees that its intent stands. If not,
//! it reads the trash and then lists packs: the manifest stays if no claim names a pack of it and none
//! is missing, and is taken back else, if it is younger than an hour. From (6) on it deletes no pack,
//! whatever it is answered: the put may have landed, and others may have built on it.
//! A **forget** puts a tombstone for each snapshot. A **prune** (a) puts a claim, which names the
//! forgotten snapshots and the packs that it means to delete, (b) lists trash, (c) lists intents and
//! deletes the dead ones, those older than a day, (d) lists manifests and opens them, then packs,
//! (e) deletes manifests, then packs, then trash, its claim last; before each deletion it sees that its
//! claim stands and is not half a day old.
//!
//! - *A parent is forgotten.* Tombstone before (3): the backup sees it. After (3): the intent was put
//!   before the tombstone. If the prune finds it alive in (c), it keeps the parent whole. If it finds
//!   none, the backup has ended, and its manifest is seen in (d); or the backup is dead.
//! - *A prune deletes the parent between (1) and (3), its tombstone included.* Then the manifest is
//!   gone before the tombstone is, and (3) does not find the parent.
//! - *A backup that slept for more than a day* is taken for dead. The prune deletes the intent and
//!   then lists manifests; the backup puts its manifest and then looks for its intent. So the prune
//!   sees the manifest and keeps its packs, or the backup misses its intent. Then the packs are claimed,
//!   or gone, or left alone, which (7) tells apart. What others have built on the manifest meanwhile
//!   names its packs itself. (A backup ends by itself after half a day, the time of a suspended machine
//!   included; only one that is suspended between (5) and (7) gets here. If it dies there as well, a
//!   snapshot without its packs stays visible: backups build on nothing then, a policy does not count
//!   it, and it is to be forgotten by its id.)
//! - *Packs of a running backup* are in no manifest. Their names follow from its intent, so that they
//!   are known while it lives, whatever their age. What no manifest and no living intent needs stays for
//!   two days, but for packs that a claim names: those were in a manifest that has been deleted, and
//!   whoever builds on them names a parent, as above.
//! - *Leftovers of a killed backup* are collected by its writer's next one in the order of a prune:
//!   intent, claim, manifests, packs. So a clone of that writer that still runs is safe as above.
//! - *A forgotten snapshot is brought back.* The undo removes the tombstone and then looks for a claim;
//!   the prune puts its claim and then looks for tombstones. So the prune leaves it alone, or the undo
//!   sees the claim and puts the tombstone back. What a claim names is hidden as well, so that no
//!   backup builds on it meanwhile. A tombstone names one snapshot: undoing is deleting it, and two at
//!   once have nothing to do with one another. While a record can't be opened, which may be a claim,
//!   nothing is brought back and nothing is rewritten.
//! - *Two prunes.* Each deletes only what none of the manifests that it has listed needs. Deleting
//!   twice is deleting once. A claim that a killed prune has left is finished by the next one, and
//!   removed a day later at most: a prune that wakes after that finds its claim gone, and ends.
//! - *An import* puts an intent that names every pack it needs, then looks for tombstones and claims,
//!   then puts packs, and sees that its intent stands before and after its manifest is put. A prune
//!   whose claim it does not see finds its intent in (c), and keeps those packs.
//! - *A restore, a check* reads manifests that are visible. What it reads is deleted two days after it
//!   was forgotten at the earliest, and so is a generation that was replaced.
//! - *A takeover* hides what a deposed writer commits; nothing builds on it, and it is deleted two
//!   days after it was put.
//! - *A rewriting* copies units and puts manifests of the next generation, of visible snapshots alone.
//!   It puts an intent and then lists what is visible. A prune puts its claim and then looks for such an
//!   intent, and gives way to it. Where it finds none, what it deletes was hidden before the rewriting
//!   looked; so no manifest of a snapshot appears while the snapshot is deleted. Of two rewritings both
//!   see the other's intent, or one does. A backup that began with
//!   the old generation keeps it by its intent, as any parent; one that begins takes the highest.
//!   A rewriting that slept is as a backup that slept. It takes a generation back only where a lower one
//!   stands; and a generation goes as replaced only if all packs of the next one are there, and if it
//!   was to go before the claim was put, so that the claim names no pack of what replaces it.
//! - *Killed anywhere:* manifests go before packs, and what hides them goes last. So a snapshot that
//!   is visible is whole, and the next prune finds the rest by the claim.
//!
//! A shorter grace period shortens the time for restores and for second thoughts. It does not break
//! any of the above but the one about restores and checks.

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
pub struct PruneOptions {
    /// How long ago a snapshot was forgotten at least.
    pub grace: Duration,
    /// Whether packs that are mostly unneeded are rewritten.
    pub rewrite: Option<Rewriting>,
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
    let _lock = actor.lock_vault(vault.id())?;
    vault.collect_temporary()?;
    let mut pruned = match plan.decision.is_empty() {
        true => Pruned::default(),
        false => claim_and_delete(vault, actor, plan, control)?,
    };
    if let Some(rewriting) = plan.rewrites() {
        pruned.rewritten = rewrite::run(vault, actor, rewriting, control)?;
    }
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
