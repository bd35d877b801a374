//! Whether, and how, a node that comes back is held back; and the hold that is put on it before it
//! becomes the node's.

use std::collections::BTreeMap;

use highwater_guard::Verdict;

use super::journal::Journal;
use super::{RollbackOptions, mark};
use crate::durable;
use crate::engine::{self, DiscoverOptions, Engines, Recogniser};
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Kind, Remedy, Result};
use crate::guard::points::Known;
use crate::guard::{Adapter, Cause, LATCH, Latch, Old, Recorded, Released, few, hold};
use crate::ids::{GuardKind, NodeName, NodeUid, RelPath, RestoreId, Seq, SnapshotId, Time};
use crate::node::NodeFile;
use crate::rooted::RootedPath;
use crate::vault::{Manifest, NodeRecord, Vault, channel_of};

/// Why a node whose backups have marks is held back after a restore from archives.
const ARCHIVE_IS_PAST: &str = "an archive does not tell what the node has done since: its marks may be below \
                               the highest; the vault that it comes from knows";

/// What was found about a snapshot that is to be restored.
#[derive(Clone, Debug, Default)]
pub(super) struct Weighed {
    /// What its directory says of how it is guarded from now on.
    pub(super) guard: Option<GuardKind>,
    /// How the node is held back; `None`: it just goes on.
    pub(super) kind: Option<GuardKind>,
    /// Why.
    pub(super) reasons: Vec<String>,
    /// Which of its marks lie below the highest that the vault has seen.
    pub(super) marks_below: Vec<String>,
    /// That it is old, where the vault knows of a newer state.
    old: Option<Old>,
    /// The highest marks that the vault has seen.
    marks: BTreeMap<String, u64>,
}

/// Finds out how a node that is restored from `manifest` over `target` is held back: as its adapter
/// or its backups ask for; and where its marks lie below the highest that the vault has seen, or
/// that can't be told, at least by its databases.
pub(super) fn weigh(
    vault: &Vault,
    manifest: &Manifest,
    target: &RootedPath,
    adapter: bool,
) -> Result<Weighed> {
    let mut reasons = Vec::new();
    let asked = manifest.guard_kind();
    if asked.is_some() {
        reasons.push("its backups ask for quarantine".to_owned());
    }
    let standing = standing_guard(target, manifest.uid)?;
    if standing.is_some() && asked.is_none() {
        reasons.push("the node that it replaces is guarded".to_owned());
    }
    let mut marks: BTreeMap<String, u64> =
        manifest.marks.iter().map(|(name, mark)| (name.clone(), mark.value)).collect();
    let mut marks_below = Vec::new();
    let mut guard = asked.or(standing);
    let mut forced = false;
    let mut old = None;
    match seen(vault, manifest) {
        Ok(Some(record)) => {
            let newest = record.newest.is_none_or(|(_, seq)| manifest.seq >= seq);
            let below = below(&marks, &record.marks, newest);
            if record.guard.is_some() && guard.is_none() {
                guard = record.guard;
                reasons.push("later backups of the node ask for quarantine".to_owned());
            }
            let newer = record.newest.filter(|_| !newest).map(|(newer, _)| newer);
            old = old_by(vault, manifest, newer, &below);
            if !below.is_empty() {
                forced = true;
                reasons.extend(few(&below));
                marks_below = below;
            }
            for (name, value) in record.marks {
                let highest = marks.entry(name).or_default();
                *highest = value.max(*highest);
            }
        }
        Ok(None) => {
            // An archive is the past, and knows of no later one. A node that counts anything must not
            // go on from it unseen, as it would not from a vault that has seen a higher mark.
            if !marks.is_empty() {
                forced = true;
                reasons.push(ARCHIVE_IS_PAST.to_owned());
            }
        }
        Err(error) if error.kind() == Kind::Corrupt => {
            forced = true;
            reasons.push(format!(
                "what the vault has seen of the node can't be read: {}",
                error.summary()
            ));
        }
        Err(error) => return Err(error),
    }
    if adapter {
        guard = Some(GuardKind::Channels);
        if reasons.is_empty() {
            reasons.push("the node brings what marks its channels".to_owned());
        }
    }
    let kind = guard.or(forced.then_some(GuardKind::Databases));
    Ok(Weighed { guard, kind, reasons, marks_below, old, marks })
}

/// That a snapshot is old, where there is a newer one, or some of its marks are below the highest.
fn old_by(
    vault: &Vault,
    manifest: &Manifest,
    newer: Option<SnapshotId>,
    below: &[String],
) -> Option<Old> {
    if newer.is_none() && below.is_empty() {
        return None;
    }
    let newer_time = newer.and_then(|newer| time_of(vault, manifest, newer));
    Some(Old { newer, newer_time, time: Some(manifest.time), marks_below: below.to_vec() })
}

/// When the barrier of a newer snapshot was, where it is still there.
fn time_of(vault: &Vault, manifest: &Manifest, newer: SnapshotId) -> Option<Time> {
    let names = vault.standing_names(Some(&manifest.node)).ok()?;
    let name = names.iter().find(|name| name.snapshot == newer)?;
    vault.outline(name).ok().map(|newer| newer.time)
}

/// What the vault has seen of a node: its record, and the snapshots that a crash kept from being
/// recorded.
fn seen(vault: &Vault, manifest: &Manifest) -> Result<Option<NodeRecord>> {
    let Some(mut record) = vault.sound_record(&manifest.node)? else { return Ok(None) };
    let names = vault.standing_names(Some(&manifest.node))?;
    let recorded = record.newest.map_or(Seq(0), |(_, seq)| seq);
    for name in names.iter().filter(|name| name.seq > recorded) {
        let newest = vault.outline(name)?;
        record.newest = Some((newest.snapshot, newest.seq));
        record.guard = newest.guard_kind().or(record.guard);
        for (name, mark) in newest.marks {
            let highest = record.marks.entry(name).or_default();
            *highest = mark.value.max(*highest);
        }
    }
    Ok(Some(record))
}

/// The guard of the node in `target`, where that is the one that comes back.
fn standing_guard(target: &RootedPath, uid: NodeUid) -> Result<Option<GuardKind>> {
    let file = match NodeFile::read_at(target) {
        // What can't be read is exchanged out, and says nothing.
        Err(error) if error.kind() == Kind::Corrupt => None,
        found => found?,
    };
    let Some(file) = file.filter(|file| file.uid == uid) else { return Ok(None) };
    let latch = match Latch::read_at(target) {
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Input) => {
            return Ok(file.guard.or(Some(GuardKind::Databases)));
        }
        found => found?,
    };
    // Databases can be withheld for what one snapshot was; channels are the node's.
    let channels = latch.map(|latch| latch.kind).filter(|kind| *kind == GuardKind::Channels);
    Ok(file.guard.or(channels))
}

/// Which marks lie below the highest ones, in plain words. The newest snapshot that a node ever had
/// need not have a mark that an older one has: the channel is gone. The newest that is left, where
/// newer ones were removed, must.
fn below(
    marks: &BTreeMap<String, u64>,
    highest: &BTreeMap<String, u64>,
    newest: bool,
) -> Vec<String> {
    let named = |name: &str| match channel_of(name) {
        Some((channel, what)) => format!("channel {channel}: `{what}`"),
        None => format!("mark `{name}`"),
    };
    let lies = |(name, &highest): (&String, &u64)| match marks.get(name) {
        Some(&value) if value < highest => {
            let lost = highest - value;
            Some(format!("{} is {lost} below the highest seen, {highest}", named(name)))
        }
        None if !newest => {
            Some(format!("{} is not in this snapshot; the highest seen is {highest}", named(name)))
        }
        _ => None,
    };
    highest.iter().filter_map(lies).collect()
}

/// What is said where there is nothing that could be withheld.
const NOTHING_WITHHELD: &str = "the node directory is empty, so nothing in it is withheld, and nothing but \
                                its guard keeps the node from being started before its release";

/// A hold that is on.
#[derive(Clone, Debug)]
pub(super) struct Held {
    latch: Latch,
    /// Channels or databases that are held back; 1 where none of them is known.
    pub(super) quarantined: u64,
    /// What the operator should know of it.
    pub(super) warnings: Vec<String>,
    /// Channels that are marked in the node's own database, although its databases are withheld.
    pub(super) marked: u64,
    /// By whom the channels are marked in the node's own database.
    belt: Option<Belt>,
}

/// How the channels of a node are marked in its own database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belt {
    /// By the node's adapter, whose guard judges them once it runs.
    Only,
    /// Before the databases are withheld.
    Second,
}

/// Who marks the channels of a node in its own database.
#[derive(Clone, Copy, Default)]
pub(super) struct Markers<'a> {
    /// What the node supplies: its channels are marked, and nothing is withheld.
    pub(super) adapter: Option<&'a dyn Adapter>,
    /// What marks them where the databases are withheld as well.
    pub(super) second: Option<&'a dyn Adapter>,
}

impl<'a> Markers<'a> {
    pub(super) fn of_rollback(options: &'a RollbackOptions) -> Markers<'a> {
        let (adapter, second) = (options.adapter.as_deref(), options.second_belt.as_deref());
        Markers { adapter, second }
    }

    fn of(self, belt: Belt) -> Option<&'a dyn Adapter> {
        match belt {
            Belt::Only => self.adapter,
            Belt::Second => self.second,
        }
    }
}

/// What a restore says of itself in the latch.
pub(super) struct About<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) restore: RestoreId,
    /// Somebody's statement that no other copy of the node runs or ever will.
    pub(super) original_gone: Option<&'a Released>,
}

/// Puts the hold on the staged copy in `dir`; `known` names the entry points that the snapshot tells of.
pub(super) fn put_on(
    weighed: Weighed,
    about: &About<'_>,
    markers: Markers<'_>,
    dir: &RootedPath,
    known: Known<'_>,
    env: &Env,
) -> Result<Option<Held>> {
    let captured = captured(dir)?;
    // A latch that was captured with a node that nobody guards stays in force, as one of this restore:
    // what was let out before was let out of another directory.
    let kind = weighed.kind.or(captured.as_ref().map(|latch| latch.kind));
    let Some(kind) = kind else { return Ok(None) };
    let manifest = about.manifest;
    let latch = Latch {
        uid: Some(manifest.uid),
        restore: Some(about.restore),
        snapshot: Some(manifest.snapshot),
        reasons: weighed.reasons,
        old: weighed.old,
        marks: weighed.marks,
        original_gone: about.original_gone.cloned(),
        ..Latch::new(kind, manifest.node.clone(), Cause::Restore, env.now())
    };
    let latch = succeed(latch, captured);
    // A latch that was captured with the node tells of an older quarantine, and of nothing that is
    // withheld here.
    durable::remove_file(&dir.join(LATCH))?;
    hold_back(latch, markers, dir, known, env).map(Some)
}

/// The latch in `dir`, where it can be read.
fn captured(dir: &RootedPath) -> Result<Option<Latch>> {
    match Latch::read_at(dir) {
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Input) => Ok(None),
        found => found,
    }
}

/// What a later latch takes over from an earlier one of the same node: what was condemned stays so,
/// and no mark is forgotten. What was cleared, or released, was so for an older directory.
fn succeed(mut latch: Latch, before: Option<Latch>) -> Latch {
    let Some(before) = before.filter(|before| before.uid == latch.uid) else { return latch };
    for (name, value) in before.marks {
        let highest = latch.marks.entry(name).or_default();
        *highest = value.max(*highest);
    }
    let condemned = |recorded: &Recorded| matches!(recorded.verdict, Some(Verdict::Blocked(_)));
    for (id, recorded) in before.channels {
        if condemned(&recorded) {
            let past = recorded.past.into_iter().chain(recorded.release).collect();
            let recorded = Recorded { release: None, out: false, past, ..recorded };
            latch.channels.insert(id, recorded);
        }
    }
    latch
}

/// The channels that an earlier latch of the same withheld databases lists: what is marked in them stays so, and
/// what was let out before was let out of another directory.
fn relist(latch: &mut Latch, before: &Latch) {
    if before.kind != GuardKind::Databases || !before.listed || before.uid != latch.uid {
        return;
    }
    latch.listed = true;
    // Of a database nothing is recorded but its release.
    for (id, recorded) in before.channels.iter().filter(|(_, recorded)| recorded.ours.is_some()) {
        latch.channels.entry(id.clone()).or_insert_with(|| Recorded {
            ours: recorded.ours,
            unmarked: recorded.unmarked,
            past: recorded.past.iter().chain(&recorded.release).cloned().collect(),
            ..Recorded::default()
        });
    }
}

fn hold_back(
    mut latch: Latch,
    markers: Markers<'_>,
    dir: &RootedPath,
    known: Known<'_>,
    env: &Env,
) -> Result<Held> {
    let (marked, belt) = (0, None);
    if let Some(before) = Latch::read_at(dir)?.filter(|before| !before.withheld.is_empty()) {
        // Nothing opens its databases now; what waits keeps waiting.
        if latch.kind == GuardKind::Databases {
            relist(&mut latch, &before);
        }
        let quarantined = hold::withhold(dir, latch.clone(), known, env)?;
        return Ok(Held { latch, quarantined, warnings: Vec::new(), marked, belt });
    }
    match (latch.kind, markers.adapter) {
        (GuardKind::Channels, Some(adapter)) => {
            mark::mark(adapter, dir, &mut latch, env)?;
            latch.write_at(dir, env)?;
            let quarantined = latch.channels.len() as u64;
            let belt = Some(Belt::Only);
            Ok(Held { latch, quarantined, warnings: Vec::new(), marked, belt })
        }
        (GuardKind::Channels, None) => {
            latch.write_at(dir, env)?;
            Ok(Held { latch, quarantined: 1, warnings: Vec::new(), marked, belt })
        }
        (GuardKind::Databases, _) => withhold(latch, markers.second, dir, known, env),
    }
}

/// Withholds the databases of a node, its channels marked in them before, where somebody can.
fn withhold(
    mut latch: Latch,
    second: Option<&dyn Adapter>,
    dir: &RootedPath,
    known: Known<'_>,
    env: &Env,
) -> Result<Held> {
    let mut warnings = Vec::new();
    let mut belt = None;
    if let Some(second) = second {
        match mark::mark_as_well(second, dir, &mut latch, env)? {
            None => belt = Some(Belt::Second),
            Some(why) => {
                let told = format!(
                    "its channels are not marked in its own database, which is withheld alone: {}",
                    why.summary()
                );
                latch.reasons.push(told.clone());
                warnings.push(told);
            }
        }
    }
    let listed = latch.channels.values().filter(|recorded| !recorded.unmarked);
    let marked = belt.map_or(0, |_| listed.count() as u64);
    let withheld = hold::withhold(dir, latch.clone(), known, env)?;
    if withheld == 0 {
        warnings.push(NOTHING_WITHHELD.to_owned());
    }
    Ok(Held { latch, quarantined: withheld.max(1), warnings, marked, belt })
}

/// Reads the marks back where the node finds them now, and withholds its databases there and then
/// where one is missing.
pub(super) fn read_back(
    held: Option<&Held>,
    markers: Markers<'_>,
    target: &RootedPath,
    known: Known<'_>,
    env: &Env,
) -> Result<()> {
    let by = held.and_then(|held| Some((held, markers.of(held.belt?)?)));
    let Some((held, adapter)) = by else { return Ok(()) };
    let read = env
        .fault(FaultPoint::GuardReadBack)
        .and_then(|()| mark::read_back(adapter, target, &held.latch));
    let Err(error) = read else { return Ok(()) };
    let withheld = hold::withhold(target, held.latch.clone(), known, env);
    let (state, remedy) = match &withheld {
        Ok(_) => ("its databases are withheld".to_owned(), Remedy::Rollback),
        Err(second) => {
            let state = format!("its databases can't be withheld: {}", second.summary());
            (state, "don't start the node".into())
        }
    };
    let told = |why: &str| format!("{why}; the node directory {target} is the new one, {state}");
    Err(error.told_as(told).with_remedy(remedy))
}

/// Puts a hold on the directory that a rollback brings back, where the node is guarded: by what
/// either directory says, or by an adapter. One that can't have been overtaken stays as it is:
/// nothing has run on the restored directory while all its databases were withheld.
pub(super) fn put_on_kept(
    kept: &RootedPath,
    target: &RootedPath,
    undone: &Journal,
    options: &RollbackOptions,
    env: &Env,
) -> Result<Option<Held>> {
    let RollbackOptions { engines, recogniser, .. } = options;
    let markers = Markers::of_rollback(options);
    let (ours, theirs) = (Side::of(kept)?, Side::of(target)?);
    let guarded = match markers.adapter {
        Some(_) => Some(GuardKind::Channels),
        None => ours.guard.or(theirs.guard),
    };
    let Some(kind) = guarded else { return Ok(None) };
    if let Some(error) = ours.unreadable {
        // It may name what is withheld.
        return Err(error);
    }
    if theirs.unreadable.is_none() && hold::all_withheld(target, engines)? {
        return Ok(None);
    }
    let uid = ours.file.as_ref().or(theirs.file.as_ref()).map(|file| file.uid);
    // A rollback says nothing of the original of a copy that was restored: it still has to be stated
    // to be gone.
    let (cause, (restore, snapshot)) = match &ours.latch {
        Some(before) if before.needs_statement() => {
            (before.cause, (before.restore, before.snapshot))
        }
        _ => (Cause::Rollback, (Some(undone.restore), Some(undone.snapshot))),
    };
    let old = ours.latch.as_ref().and_then(|before| before.old.clone());
    let latches = [theirs.latch, ours.latch];
    let known = latches.iter().flatten().next();
    let name = || -> Result<NodeName> {
        let name = target.name().to_string_lossy();
        name.parse().or_else(|_| "node".parse())
    };
    let node = known.map_or_else(name, |latch| Ok(latch.node.clone()))?;
    let latch = Latch {
        uid: uid.or(known.and_then(|latch| latch.uid)),
        restore,
        snapshot,
        reasons: vec!["the restored node may have run since".to_owned()],
        old,
        ..Latch::new(kind, node, cause, env.now())
    };
    let [theirs, ours_before] = latches;
    // What was condemned on the other side says nothing of this one, which may be newer.
    let theirs = theirs.map(|latch| Latch { channels: BTreeMap::new(), ..latch });
    let latch = succeed(succeed(latch, theirs), ours_before);
    let named = match recogniser {
        Some(recogniser) => points_of_kind(recogniser.as_ref(), kept, engines)?,
        None => Vec::new(),
    };
    hold_back(latch, markers, kept, Known { named: &named, engines }, env).map(Some)
}

/// The plain files without which a node of a known kind can't act, and the name of the part that they are in.
fn points_of_kind(
    recogniser: &dyn Recogniser,
    dir: &RootedPath,
    engines: &Engines,
) -> Result<Vec<(RelPath, String)>> {
    let options = DiscoverOptions { engines: engines.clone(), ..DiscoverOptions::default() };
    let layout = engine::discover(&dir.path(), &options)?;
    let points = recogniser.recognise(&layout).entry_points.into_iter();
    Ok(points.map(|point| (point, hold::FILES.to_owned())).collect())
}

/// What one side of a rollback says of its guard.
struct Side {
    file: Option<NodeFile>,
    latch: Option<Latch>,
    guard: Option<GuardKind>,
    /// Why its latch can't be read, where it can't.
    unreadable: Option<Error>,
}

impl Side {
    fn of(dir: &RootedPath) -> Result<Side> {
        let (file, lost) = match NodeFile::read_at(dir) {
            Err(error) if error.kind() == Kind::Corrupt => (None, true),
            found => (found?, false),
        };
        let (latch, unreadable) = match Latch::read_at(dir) {
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Input) => {
                (None, Some(error))
            }
            found => (found?, None),
        };
        let guard = file
            .as_ref()
            .and_then(|file| file.guard)
            .or(latch.as_ref().map(|latch| latch.kind))
            // What was held back once, and released, has run.
            .or_else(|| Latch::last_kind(dir))
            .or((lost || unreadable.is_some()).then_some(GuardKind::Databases));
        Ok(Side { file, latch, guard, unreadable })
    }
}
