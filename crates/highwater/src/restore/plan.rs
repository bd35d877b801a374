//! What a restore would do, settled and checked before anything is touched.

use std::path::{Path, PathBuf};

use crate::durable;
use crate::engine::Engines;
use crate::error::{Error, Kind, Remedy, Result};
use crate::guard::{Latch, few};
use crate::ids::encode;
use crate::rooted::RootedPath;
use crate::vault::manifest::PartRecord;
use crate::vault::{Level, Manifest, PartSummary, SnapshotInfo, Vault};

use super::place::{TargetPlace, locate, refuse_mounts};
use super::rollback::refuse_interrupted;
use super::users::users;
use super::{Asked, RestoreOptions, RestorePlan};
use super::{hold, kept, stage};

/// What becomes of something that the restore would be refused for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacles {
    /// There is no plan.
    Refuse,
    /// The plan tells it.
    Tell,
}

impl Obstacles {
    /// Tells a refusal, where that is asked for. A wrong call stays one.
    fn meet(self, refused: Result<()>, told: &mut Vec<Error>) -> Result<()> {
        let obstacle = |error: &Error| matches!(error.kind(), Kind::Conflict | Kind::Quarantined);
        match refused {
            Err(error) if self == Obstacles::Tell && obstacle(&error) => {
                told.push(error);
                Ok(())
            }
            refused => refused,
        }
    }

    /// Tells what only the restore itself looks for.
    fn look(self, target: &Path, engines: &Engines, told: &mut Vec<Error>) -> Result<()> {
        if self == Obstacles::Refuse {
            return Ok(());
        }
        self.meet(refuse_interrupted(target), told)?;
        users(target, engines)?.into_iter().try_for_each(|user| self.meet(Err(user), told))
    }
}

/// Plans a restore of `target`; changes nothing.
pub(super) fn plan(
    vault: &Vault,
    target: &Path,
    options: &RestoreOptions,
    obstacles: Obstacles,
) -> Result<RestorePlan> {
    let info = vault.resolve(&options.selector)?;
    let shrunk = info.shrunk_warning();
    let SnapshotInfo { manifest, level, .. } = info;
    let parts = chosen(&manifest, options.part.as_deref())?;
    parts
        .iter()
        .flat_map(|part| &part.entries)
        .try_for_each(|entry| stage::refuse_own(&entry.path))?;
    if let Some(hydrated) = &options.hydrated {
        hydrated.check(&parts)?;
    }
    let place = locate(target)?;
    let shown = place.target.path();
    refuse_overlap(vault, &shown)?;
    let (mut refusals, mut warnings) = (Vec::new(), schema_warnings(&manifest, options.schema)?);
    if place.keep.is_some() && !options.force {
        obstacles.meet(Err(not_empty(&shown)), &mut refusals)?;
    }
    obstacles.look(&shown, &options.engines, &mut refusals)?;
    if level == Level::Failed {
        warnings
            .push("the snapshot failed a restore test: restore another one if you can".to_owned());
    }
    if place.keep.is_some() {
        refuse_mounts(&place.target)?;
    }
    warnings.extend(shrunk);
    if options.part.is_some() && place.keep.is_some() {
        obstacles.meet(refuse_withheld(&place.target), &mut refusals)?;
        obstacles.meet(refuse_apart(&manifest, options.part.as_deref()), &mut refusals)?;
    }
    let weighed = hold::weigh(vault, &manifest, &place.target, options.adapter.is_some())?;
    warnings.extend(few(&weighed.marks_below));
    warnings.extend(keeps_more(&place)?.into_iter().chain(leftovers(&place)?));
    warnings.extend(newer_ones(vault, &manifest)?);
    Ok(RestorePlan {
        snapshot: manifest.snapshot,
        node: manifest.node.clone(),
        time: manifest.time,
        level,
        target: shown,
        exchange: place.exchange,
        staging: place.staging.path(),
        keep: place.keep.map(|keep| keep.path()),
        parts: parts.iter().map(|part| PartSummary::of(part)).collect(),
        bytes: parts.iter().map(|part| part.bytes()).sum(),
        warnings,
        refusals,
        hold: weighed.kind,
        reasons: weighed.reasons,
        marks_below: weighed.marks_below,
        kinds: manifest.kinds.clone(),
        asked: Asked::of(options),
    })
}

/// That a directory is kept already, where one more will be.
fn keeps_more(place: &TargetPlace) -> Result<Option<String>> {
    if place.keep.is_none() || durable::stat(&place.work.join("kept"))?.is_none() {
        return Ok(None);
    }
    Ok(Some(format!(
        "{} keeps what an earlier restore replaced, and will keep one directory more; those that nobody \
         needs can be removed",
        encode(place.work.path().as_os_str().as_encoded_bytes())
    )))
}

/// That something is there which an earlier restore gave up, and which can't be removed.
fn leftovers(place: &TargetPlace) -> Result<Option<String>> {
    if durable::stat(&place.work)?.is_none() {
        return Ok(None);
    }
    let left = kept::leftovers_in(&place.work)?;
    let names: Vec<String> =
        left.iter().map(|left| encode(left.path().as_os_str().as_encoded_bytes())).collect();
    Ok((!names.is_empty()).then(|| {
        format!(
            "{} can't be removed, and is of no use: remove it by hand, as a user who may",
            names.join(", ")
        )
    }))
}

/// That the vault has newer snapshots of the node, if it has.
fn newer_ones(vault: &Vault, manifest: &Manifest) -> Result<Option<String>> {
    let names = vault.snapshot_names(Some(&manifest.node))?;
    let newer = names.iter().filter(|name| (name.epoch, name.seq) > (manifest.epoch, manifest.seq));
    Ok(match newer.count() {
        0 => None,
        1 => Some("a newer snapshot of the node is in the vault".to_owned()),
        count => Some(format!("{count} newer snapshots of the node are in the vault")),
    })
}

fn not_empty(target: &Path) -> Error {
    Error::conflict("the target exists and is not empty")
        .with_entry(encode(target.as_os_str().as_encoded_bytes()))
        .with_remedy(Remedy::RestoreOver)
}

/// Refuses a node directory inside the vault, and a vault inside the node directory.
fn refuse_overlap(vault: &Vault, node: &Path) -> Result<()> {
    let overlaps = |path: &PathBuf| {
        let path = path.canonicalize();
        path.is_ok_and(|path| path.starts_with(node) || node.starts_with(&path))
    };
    if vault.location().paths().iter().any(overlaps) {
        return Err(Error::input("vault and node directory lie in one another")
            .with_entry(encode(node.as_os_str().as_encoded_bytes()))
            .with_remedy("restore to another directory"));
    }
    Ok(())
}

/// One part of a node whose databases are withheld can't be exchanged alone: what waits would be left
/// behind.
fn refuse_withheld(target: &RootedPath) -> Result<()> {
    let withheld = Latch::read_at(target)?.is_some_and(|latch| !latch.withheld.is_empty());
    if !withheld {
        return Ok(());
    }
    Err(Error::new(Kind::Quarantined, "databases of the node are withheld")
        .with_entry(encode(target.path().as_os_str().as_encoded_bytes()))
        .with_remedy("restore the whole node")
        .with_remedy(Remedy::GuardRelease))
}

/// A part whose state has to be of the same instant as that of others does not come back without them.
fn refuse_apart(manifest: &Manifest, part: Option<&str>) -> Result<()> {
    let Some(part) = part else { return Ok(()) };
    let Some(set) = manifest.together.iter().find(|set| set.iter().any(|name| name == part)) else {
        return Ok(());
    };
    let others: Vec<&str> = set.iter().map(String::as_str).filter(|name| *name != part).collect();
    Err(Error::conflict(format!(
        "{part} and {} of this node tell of one instant: from two they would contradict each other, and cost \
         the money in its channels",
        others.join(", ")
    ))
    .with_entry(part)
    .with_remedy("restore the whole node")
    .with_remedy("or this part into an empty directory, to look at it"))
}

/// All parts of a snapshot, or the one that is named.
pub(super) fn chosen<'a>(
    manifest: &'a Manifest,
    part: Option<&str>,
) -> Result<Vec<&'a PartRecord>> {
    let Some(name) = part else { return Ok(manifest.parts.iter().collect()) };
    match manifest.parts.iter().find(|part| part.name == name) {
        Some(part) => Ok(vec![part]),
        None => {
            let names: Vec<&str> = manifest.parts.iter().map(|part| part.name.as_str()).collect();
            Err(Error::not_found(format!("the snapshot has no part `{name}`"))
                .with_entry(name)
                .with_remedy(format!("its parts are: {}", names.join(", "))))
        }
    }
}

/// A snapshot of a newer schema than the node's program knows is refused: it could not open it.
fn schema_warnings(manifest: &Manifest, known: Option<u64>) -> Result<Vec<String>> {
    match (manifest.schema, known) {
        (Some(recorded), Some(known)) if recorded > known => Err(Error::conflict(format!(
            "the snapshot has schema version {recorded}, newer than the node's {known}"
        ))
        .with_remedy("install the node's newer version first, or restore an older snapshot")),
        (Some(recorded), Some(known)) if recorded < known => Ok(vec![format!(
            "the snapshot has schema version {recorded}, older than the node's {known}: the node will migrate it"
        )]),
        (None, Some(known)) => {
            Ok(vec![format!("the snapshot tells no schema version; the node's is {known}")])
        }
        _ => Ok(Vec::new()),
    }
}
