//! Carrying a plan out: stage, verify, exchange; and the restore test, which stops before that.

use std::collections::HashSet;
use std::path::Path;

use crate::control::{Control, Event};
use crate::engine::{self, Depth, EngineKind};
use crate::env::FaultPoint;
use crate::error::{Error, Kind, Result};
use crate::ids::{RelPath, RestoreId};
use crate::node::{NodeFile, OWN_DIR};
use crate::vault::manifest::PartRecord;
use crate::vault::{Level, Manifest, Selector, SnapshotInfo, Vault};

use super::plan::chosen;
use super::stage::{Stage, copy_others};
use super::work::{Work, locate};
use super::{RestorePlan, RestoreReport};
use crate::durable::{self, remove_tree};

/// Carries a plan out.
pub(super) fn run(vault: &Vault, plan: &RestorePlan, control: &Control) -> Result<RestoreReport> {
    let start = control.env.monotonic();
    let selector = Selector {
        snapshot: plan.snapshot.to_string(),
        node: Some(plan.node.clone()),
        ..Selector::default()
    };
    let manifest = vault.resolve(&selector)?.manifest;
    let place = locate(&plan.target)?;
    if place.exchange != plan.exchange || (place.keep.is_some() && !plan.force) {
        return Err(Error::conflict("the target is no longer what it was when this was planned")
            .hint("plan again"));
    }
    refuse_users(&place.target)?;
    let restore = RestoreId::random(&control.env)?;
    let work = Work::begin(&place, restore, manifest.snapshot, &control.env)?;
    let staged = stage(vault, &manifest, plan, restore, &work.staging(), control);
    let warnings = match staged {
        Ok(warnings) => warnings,
        Err(error) => {
            work.abandon()?;
            return Err(error);
        }
    };
    let entry_points = entry_points(&chosen(&manifest, plan.part.as_deref())?);
    control.report(Event::Stage { name: "exchange", bytes_total: 0 });
    let kept = work.commit(&entry_points, control)?;
    Ok(RestoreReport {
        snapshot: manifest.snapshot,
        target: place.target,
        bytes: plan.bytes,
        duration: control.env.monotonic() - start,
        kept,
        quarantined: 0,
        warnings,
    })
}

/// Makes the whole new directory, checked and durable.
fn stage(
    vault: &Vault,
    manifest: &Manifest,
    plan: &RestorePlan,
    restore: RestoreId,
    staging: &Path,
    control: &Control,
) -> Result<Vec<String>> {
    let parts = chosen(manifest, plan.part.as_deref())?;
    if let (Some(_), Some(_), [part]) = (&plan.part, &plan.keep, parts.as_slice()) {
        keep_others(part, &plan.target, staging, control)?;
    }
    let stage = Stage::new(staging, plan.owner);
    stage.write(vault, manifest, &parts, control)?;
    control.report(Event::Stage { name: "verify", bytes_total: 0 });
    let mut warnings = check_parts(staging, &parts, Depth::Open)?;
    NodeFile { uid: manifest.uid, restore: Some(restore) }.write(staging, &control.env)?;
    if let Some((uid, gid)) = plan.owner {
        stage.own(Path::new(OWN_DIR), uid, gid)?;
    }
    // A node directory of which one part alone was exchanged stays what it was.
    let root = match (&plan.part, &plan.keep) {
        (Some(_), Some(_)) => engine::metadata_of(&plan.target)?,
        _ => manifest.root.clone(),
    };
    warnings.extend(stage.describe(&root, &parts)?);
    control.env.fault(FaultPoint::RestoreSync)?;
    stage.sync()?;
    Ok(warnings)
}

/// Copies what stays as it is. What belongs to the part now, also what the snapshot does not know
/// (a newer log of the same database), does not stay.
fn keep_others(part: &PartRecord, target: &Path, staging: &Path, control: &Control) -> Result<()> {
    let layout = engine::discover(target, &engine::DiscoverOptions::default())?;
    let current = layout.parts.iter().find(|found| found.name == part.name);
    if current.is_none() && part.root == RelPath::root() {
        return Err(Error::conflict("nothing tells which files of the target belong to the part")
            .entry(part.name.clone())
            .hint("restore the whole node"));
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
fn check_parts(dir: &Path, parts: &[&PartRecord], depth: Depth) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for part in parts {
        let checked = engine::check(dir, part.engine, &part.root, depth).map_err(|error| {
            let hint = "restore another snapshot, or from another vault";
            match error.kind() {
                Kind::Corrupt => error.hint(hint),
                _ => error,
            }
        })?;
        warnings.extend(checked.warnings);
    }
    Ok(warnings)
}

/// The files without which nobody can open the databases of the parts.
fn entry_points(parts: &[&PartRecord]) -> Vec<RelPath> {
    parts
        .iter()
        .filter_map(|part| match part.engine {
            EngineKind::RocksDb | EngineKind::LevelDb => Some(part.root.join("CURRENT".as_ref())),
            EngineKind::Badger => Some(part.root.join("MANIFEST".as_ref())),
            EngineKind::Lmdb => Some(part.root.join("data.mdb".as_ref())),
            EngineKind::Sqlite | EngineKind::Redb | EngineKind::Bbolt => Some(part.root.clone()),
            EngineKind::Files => None,
        })
        .collect()
}

fn refuse_users(target: &Path) -> Result<()> {
    if !target.exists() {
        return Ok(());
    }
    match engine::users(target)?.first() {
        None => Ok(()),
        Some(user) => Err(Error::conflict(format!(
            "process {} ({}) has {} open",
            user.pid, user.command, user.file
        ))
        .entry(user.file.to_string())
        .hint("stop the node first")),
    }
}

/// Restores a snapshot below `scratch`, lets the engines check all data, and records the level.
pub(super) fn test(
    vault: &Vault,
    selector: &Selector,
    scratch: &Path,
    control: &Control,
) -> Result<(SnapshotInfo, Vec<String>)> {
    let SnapshotInfo { manifest, level } = vault.resolve(selector)?;
    let dir = scratch.join(format!(".highwater-test-{}", RestoreId::random(&control.env)?));
    durable::make_dir(&dir)?;
    let tested = stage_and_check(vault, &manifest, &dir, control);
    remove_tree(&dir)?;
    let passed = match &tested {
        Ok(_) => true,
        Err(error) if error.kind() == Kind::Corrupt => false,
        // The test was not made: a full disk tells nothing of the snapshot.
        Err(_) => return tested.map(|warnings| (SnapshotInfo { manifest, level }, warnings)),
    };
    vault.record_test(&manifest.node, manifest.snapshot, passed)?;
    tested.map(|warnings| (SnapshotInfo { manifest, level: Level::Restored }, warnings))
}

fn stage_and_check(
    vault: &Vault,
    manifest: &Manifest,
    dir: &Path,
    control: &Control,
) -> Result<Vec<String>> {
    let parts: Vec<&PartRecord> = manifest.parts.iter().collect();
    Stage::new(dir, None).write(vault, manifest, &parts, control)?;
    check_parts(dir, &parts, Depth::Full)
}
