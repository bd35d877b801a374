//! Carrying a plan out: stage, verify, exchange; and the restore test, which stops before that.

use std::collections::HashSet;
use std::path::Path;

use crate::control::{Control, Event};
use crate::engine::{self, Checked, Depth, Engines};
use crate::env::FaultPoint;
use crate::error::{Error, Kind, Result};
use crate::guard::points::Known;
use crate::guard::{self, Latch};
use crate::ids::{GuardKind, RelPath, RestoreId};
use crate::node::{self, NodeFile};
use crate::rooted::RootedPath;
use crate::vault::manifest::PartRecord;
use crate::vault::{Manifest, Selector, Vault};

use super::hold;
use super::place::locate;
use super::plan::chosen;
use super::stage::{Stage, copy_others};
use super::users::refuse_users;
use super::work::Work;
use super::{RestoreOptions, RestorePlan, RestoreReport};
use crate::durable::{self, remove_tree};

/// Carries a plan out.
pub(super) fn run(
    vault: &Vault,
    plan: &RestorePlan,
    options: &RestoreOptions,
    control: &Control,
) -> Result<RestoreReport> {
    let start = control.env.monotonic();
    let manifest = planned(vault, plan)?;
    let place = locate(&plan.target)?;
    if place.exchange != plan.exchange || (place.keep.is_some() && !options.force) {
        return Err(Error::conflict("the target is no longer what it was when this was planned")
            .with_remedy("plan again"));
    }
    refuse_users(&place.target.path(), &options.engines)?;
    let markers = options.markers();
    // Asked again: a newer backup may have raised a mark since the plan was made.
    let mut weighed = hold::weigh(vault, &manifest, &place.target, options.adapter.is_some())?;
    weighed.kind = weighed.kind.or(plan.hold);
    let parts = chosen(&manifest, options.part.as_deref())?;
    let named = entry_points(&parts);
    let known = Known { named: &named, engines: &options.engines };
    let restore = match &options.hydrated {
        Some(hydrated) => hydrated.restore,
        None => RestoreId::random(&control.env)?,
    };
    let work = Work::begin(&place, restore, manifest.snapshot, &control.env)?;
    let staging = work.staging();
    let node = Staged {
        vault,
        manifest: &manifest,
        plan,
        options,
        parts,
        restore,
        target: &place.target,
        dir: &staging,
        control,
    };
    let staged = node.make(weighed.guard).and_then(|mut warnings| {
        let held = node.hold(weighed, known)?;
        let quarantined = match &held {
            Some(held) => {
                warnings.extend(held.warnings.iter().cloned());
                held.quarantined
            }
            None => node.captured_quarantine(&mut warnings)?,
        };
        Ok((warnings, held, quarantined))
    });
    let (warnings, held, quarantined) = match staged {
        Ok(staged) => staged,
        Err(error) => {
            work.abandon()?;
            return Err(error);
        }
    };
    control.report(Event::Stage { name: "exchange", bytes_total: 0 });
    let kept = work.commit(known, control)?;
    hold::read_back(held.as_ref(), markers, &place.target, known, &control.env)?;
    Ok(RestoreReport {
        snapshot: manifest.snapshot,
        target: place.target.path(),
        bytes: plan.bytes,
        duration: control.env.monotonic() - start,
        kept: kept.map(|kept| kept.path()),
        quarantined,
        marked: held.map_or(0, |held| held.marked),
        warnings,
    })
}

/// The snapshot that was planned.
fn planned(vault: &Vault, plan: &RestorePlan) -> Result<Manifest> {
    let selector = Selector {
        snapshot: plan.snapshot.to_string(),
        node: Some(plan.node.clone()),
        ..Selector::default()
    };
    Ok(vault.resolve(&selector)?.manifest)
}

impl RestoreOptions {
    fn markers(&self) -> hold::Markers<'_> {
        let (adapter, second) = (self.adapter.as_deref(), self.second_belt.as_deref());
        hold::Markers { adapter, second }
    }
}

/// The new node directory in the making.
struct Staged<'a> {
    vault: &'a Vault,
    manifest: &'a Manifest,
    plan: &'a RestorePlan,
    options: &'a RestoreOptions,
    parts: Vec<&'a PartRecord>,
    restore: RestoreId,
    target: &'a RootedPath,
    dir: &'a RootedPath,
    control: &'a Control,
}

impl Staged<'_> {
    /// Writes the whole of it, and checks it. Returns warnings.
    fn make(&self, guard: Option<GuardKind>) -> Result<Vec<String>> {
        let Staged { vault, manifest, plan, options, parts, target, dir, control, .. } = self;
        let mut warnings = Vec::new();
        if let (Some(_), Some(_), [part]) = (&options.part, &plan.keep, parts.as_slice()) {
            warnings = keep_others(part, target, dir, &options.engines, control)?;
        }
        let shown = target.path();
        let stage = Stage::new(dir, options.owner, options.setid).for_target(manifest, &shown)?;
        stage.write(vault, manifest, parts, control)?;
        if let Some(hydrated) = &options.hydrated {
            hydrated.fill(dir, hydrated.check(parts)?)?;
            control.env.fault(FaultPoint::PairFilled)?;
        }
        control.report(Event::Stage { name: "verify", bytes_total: 0 });
        warnings.extend(check_parts(dir, parts, Depth::Open, &options.engines, control)?.warnings);
        NodeFile { uid: manifest.uid, restore: Some(self.restore), guard }
            .write(dir, &control.env)?;
        // A node directory of which one part alone was exchanged stays what it was.
        let root = match (&options.part, &plan.keep) {
            (Some(_), Some(_)) => engine::look_at(target)?.meta,
            _ => manifest.root.clone(),
        };
        warnings.extend(stage.describe(&root, parts)?);
        warnings.extend(stage.outward(parts, &shown)?);
        Ok(warnings)
    }

    /// A latch that was captured with the node stays in force: tells how much it holds.
    fn captured_quarantine(&self, warnings: &mut Vec<String>) -> Result<u64> {
        match guard::standing_at(self.dir) {
            Ok(standing) => Ok(standing.map_or(0, |standing| standing.quarantined())),
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Input) => {
                warnings.push(format!(
                    "the node was in quarantine when it was captured: {}",
                    error.summary()
                ));
                Ok(1)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts the hold on, and makes all of it durable.
    fn hold(&self, weighed: hold::Weighed, known: Known<'_>) -> Result<Option<hold::Held>> {
        let Staged { manifest, options, target, dir, control, .. } = self;
        if options.part.is_some()
            && let Some(latch) = Latch::read_at(target)?
        {
            // The rest of the node is in quarantine, whatever this part was captured with.
            latch.write_at(dir, &control.env)?;
        }
        let about = hold::About {
            manifest,
            restore: self.restore,
            original_gone: options.original_gone.as_ref(),
        };
        let held = hold::put_on(weighed, &about, options.markers(), dir, known, &control.env)?;
        // Nobody else has been here: all that is Highwater's goes to the owner of the rest.
        let (own, owner) = (dir.join(node::OWN_DIR), dir.owner()?);
        for made in durable::names(&own)?.iter().map(|name| own.join(name)).chain([own.clone()]) {
            made.hand_over(owner).map_err(|error| durable::met(&made, "give away", error))?;
        }
        control.env.fault(FaultPoint::RestoreSync)?;
        Stage::new(dir, options.owner, options.setid).sync()?;
        Ok(held)
    }
}

/// Copies what stays as it is. What belongs to the part now, also what the snapshot does not know
/// (a newer log of the same database), does not stay. Returns warnings.
fn keep_others(
    part: &PartRecord,
    target: &RootedPath,
    staging: &RootedPath,
    engines: &Engines,
    control: &Control,
) -> Result<Vec<String>> {
    let options =
        engine::DiscoverOptions { engines: engines.clone(), ..engine::DiscoverOptions::default() };
    let layout = engine::discover(&target.path(), &options)?;
    let current = layout.parts.iter().find(|found| found.name == part.name);
    if current.is_none() && part.root == RelPath::root() {
        return Err(Error::conflict("nothing tells which files of the target belong to the part")
            .with_entry(part.name.clone())
            .with_remedy("restore the whole node"));
    }
    let gone: HashSet<&RelPath> = part
        .entries
        .iter()
        .map(|entry| &entry.path)
        .chain(current.iter().flat_map(|found| &found.entries))
        .collect();
    let other_dirs: HashSet<RelPath> = layout
        .parts
        .iter()
        .filter(|found| found.name != part.name)
        .flat_map(|found| found.entries.iter().filter_map(RelPath::parent))
        .collect();
    let replaced = |path: &RelPath| {
        // A database too damaged to be recognised: a log of it must not meet the restored one.
        if current.is_none() && belongs_by_name(path, &part.root) {
            return true;
        }
        // A directory that other parts lie in stays, even if the part names it as well.
        gone.contains(path) && !other_dirs.iter().any(|dir| dir.is_within(path))
    };
    copy_others(target, staging, &replaced, control)
}

/// Whether a path is that of a database, inside its directory, or one of SQLite's files beside it.
fn belongs_by_name(path: &RelPath, root: &RelPath) -> bool {
    let beside = path.as_bytes().strip_prefix(root.as_bytes());
    path.is_within(root) || matches!(beside, Some(b"-wal" | b"-shm" | b"-journal"))
}

/// Opens every restored database, read-only.
fn check_parts(
    dir: &RootedPath,
    parts: &[&PartRecord],
    depth: Depth,
    engines: &Engines,
    control: &Control,
) -> Result<Checked> {
    let mut all = Checked::default();
    for part in parts {
        let checked = engine::check_at(dir, part.engine, &part.root, depth, engines, &control.env)
            .map_err(|error| {
                let hint = "restore another snapshot, or from another vault";
                match error.kind() {
                    Kind::Corrupt => error.with_remedy(hint),
                    _ => error,
                }
            })?;
        all.warnings.extend(checked.warnings);
        all.unchecked.extend(checked.unchecked);
    }
    Ok(all)
}

/// The files without which nobody can open the databases of the parts.
fn entry_points(parts: &[&PartRecord]) -> Vec<(RelPath, String)> {
    let of = |part: &&PartRecord| {
        part.entry_points().into_iter().map(|point| (point, part.name.clone())).collect::<Vec<_>>()
    };
    parts.iter().flat_map(of).collect()
}

/// Restores a snapshot below `scratch`, lets the engines check all data, and records the level.
pub(super) fn test(
    vault: &Vault,
    selector: &Selector,
    scratch: &Path,
    engines: &Engines,
    control: &Control,
) -> Result<Checked> {
    let info = vault.resolve(selector)?;
    let manifest = &info.manifest;
    let dir = scratch.join(format!(".highwater-test-{}", RestoreId::random(&control.env)?));
    durable::make_dir(&dir)?;
    let held = RootedPath::open(&dir)?;
    if held.owner()?.is_foreign() {
        return Err(Error::conflict(format!("{held} was replaced while it was made"))
            .with_remedy("choose a scratch directory that nobody else may write"));
    }
    let tested = stage_and_check(vault, manifest, &held, engines, control);
    remove_tree(&dir)?;
    let passed = match &tested {
        // What nobody looked at is not known to be good.
        Ok(checked) if !checked.unchecked.is_empty() => return tested,
        Ok(_) => true,
        Err(error) if error.kind() == Kind::Corrupt => false,
        // The test was not made: a full disk tells nothing of the snapshot.
        Err(_) => return tested,
    };
    vault.record_test(&manifest.node, manifest.snapshot, passed)?;
    tested
}

fn stage_and_check(
    vault: &Vault,
    manifest: &Manifest,
    dir: &RootedPath,
    engines: &Engines,
    control: &Control,
) -> Result<Checked> {
    let parts: Vec<&PartRecord> = manifest.parts.iter().collect();
    Stage::new(dir, None, false).write(vault, manifest, &parts, control)?;
    check_parts(dir, &parts, Depth::Full, engines, control)
}
