//! Withholding the entry points of a node's databases, in a directory that nobody uses, and putting
//! them back.
//!
//! The latch names an entry point before it is moved, and forgets it after it is back. Each move is
//! one exchange of two names, so that at every instant either the file or its placeholder stands
//! where the engine looks; where a step was interrupted, repeating it finds out what is left.

use std::collections::BTreeSet;

use super::latch::{LATCH, Latch, WITHHELD, Withheld};
use super::list::{Held, HeldState, rows};
use super::points::{self, Known};
use crate::durable;
use crate::engine::Engines;
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::{GuardKind, RelPath};
use crate::node::OWN_DIR;
use crate::rooted::RootedPath;

/// The part that the plain files are.
pub(crate) const FILES: &str = "files";

/// What a placeholder says.
const TOLD: &str = "the node was restored, or rolled back, and is not known to be current; \
                    a release from quarantine puts its database back";

/// Puts `latch` on the node in `dir` and withholds the entry points of all its databases: those that
/// are found by looking, and those that are named and there. The state of a node without databases is in
/// its plain files: then those are withheld, by the names in the node directory. Tells how many parts
/// are withheld.
pub(crate) fn withhold(
    dir: &RootedPath,
    mut latch: Latch,
    known: Known<'_>,
    env: &Env,
) -> Result<u64> {
    let latch = Latch::update_at(dir, env, |before| {
        // What is withheld already waits where the latch that is there says.
        let mut withheld = before.map_or_else(Vec::new, |before| before.withheld);
        withheld.iter_mut().for_each(|withheld| withheld.release = None);
        let waiting: BTreeSet<RelPath> =
            withheld.iter().map(|withheld| withheld.path.clone()).collect();
        let mut present = points::find(dir, known)?.present;
        let plain = present.is_empty()
            && (waiting.is_empty() || withheld.iter().all(|withheld| withheld.part == FILES));
        if plain {
            let found = top_level(dir, &waiting)?;
            present = found.into_iter().map(|path| (path, FILES.to_owned())).collect();
        }
        for (path, part) in present {
            if !waiting.contains(&path) {
                let place = free_place(&withheld)?;
                withheld.push(Withheld { part, path, place, release: None });
            }
        }
        withheld.sort_by(|one, other| (&one.part, &one.path).cmp(&(&other.part, &other.path)));
        latch.withheld = withheld;
        Ok(Some(latch))
    })?;
    let latch = latch.ok_or_else(|| Error::bug("a latch vanished while it was put on"))?;
    let own = dir.join(OWN_DIR).join(WITHHELD);
    durable::make_dir_for(&own, dir.owner()?)?;
    durable::sync_dir(&dir.join(OWN_DIR))?;
    // Nobody releases meanwhile.
    Latch::update_at(dir, env, |latch| {
        for withheld in latch.iter().flat_map(|latch| &latch.withheld) {
            take(dir, withheld)?;
            env.fault(FaultPoint::GuardWithhold)?;
        }
        Ok(latch)
    })?;
    Ok(databases(&latch))
}

/// What stands in the node directory, but for Highwater's own and what is withheld already.
fn top_level(dir: &RootedPath, known: &BTreeSet<RelPath>) -> Result<BTreeSet<RelPath>> {
    let mut found = BTreeSet::new();
    for name in durable::names(dir)? {
        let path = RelPath::root().join(&name);
        let ours = [OWN_DIR, LATCH, points::LOST_AND_FOUND].iter().any(|own| name == *own);
        if !ours && !known.contains(&path) && !points::is_placeholder(&dir.at(&path))? {
            found.insert(path);
        }
    }
    Ok(found)
}

/// How many parts a latch withholds.
pub(crate) fn databases(latch: &Latch) -> u64 {
    let parts: BTreeSet<&str> =
        latch.withheld.iter().map(|withheld| withheld.part.as_str()).collect();
    parts.len() as u64
}

/// A name under which nothing waits.
fn free_place(withheld: &[Withheld]) -> Result<RelPath> {
    let place =
        |number: usize| RelPath::from_bytes(format!("{OWN_DIR}/{WITHHELD}/{number}").as_bytes());
    for number in 0..=withheld.len() {
        let place = place(number)?;
        if withheld.iter().all(|withheld| withheld.place != place) {
            return Ok(place);
        }
    }
    Err(Error::bug("no name is left for a withheld entry point"))
}

/// Moves one entry point to where it waits, unless it waits there.
fn take(dir: &RootedPath, withheld: &Withheld) -> Result<()> {
    let (path, place) = (dir.at(&withheld.path), dir.at(&withheld.place));
    match (state(&path)?, state(&place)?) {
        (PointState::Placeholder, PointState::Entry) => return Ok(()),
        (PointState::Entry, PointState::Nothing | PointState::Placeholder) => {}
        _ => return Err(disturbed(withheld)),
    }
    points::make_placeholder(&place, TOLD, Some(path.above().owner()?))?;
    change_places(&path, &place)
}

/// Puts what was released back where it belongs, and takes the latch away once nothing is held.
/// Returns what was held, as it stands now.
pub(super) fn reveal(dir: &RootedPath, env: &Env) -> Result<Vec<Held>> {
    env.fault(FaultPoint::GuardRelease)?;
    let mut told = Vec::new();
    Latch::update_at(dir, env, |latch| {
        let Some(mut latch) = latch else { return Ok(None) };
        let (released, still): (Vec<Withheld>, Vec<Withheld>) =
            latch.withheld.into_iter().partition(|withheld| withheld.release.is_some());
        // A log comes back before its main file: nothing opens the database without it meanwhile.
        for withheld in released.iter().rev() {
            put_back(dir, withheld)?;
            env.fault(FaultPoint::GuardRelease)?;
        }
        latch.withheld = still;
        if latch.kind == GuardKind::Databases {
            // Who released it stays recorded as long as others are withheld.
            for withheld in &released {
                let recorded = latch.channels.entry(withheld.part.clone()).or_default();
                recorded.release.clone_from(&withheld.release);
            }
        }
        let decided = !released.is_empty() || latch.release.is_some();
        let done = latch.kind == GuardKind::Databases && latch.withheld.is_empty() && decided;
        if done {
            durable::remove_empty(&dir.join(OWN_DIR).join(WITHHELD))?;
        } else {
            told = rows(&latch);
        }
        add_released(&mut told, &released);
        Ok((!done).then_some(latch))
    })?;
    Ok(told)
}

/// Adds a row for each database that is back.
fn add_released(told: &mut Vec<Held>, released: &[Withheld]) {
    for withheld in released {
        let Some(release) = &withheld.release else { continue };
        if told.iter().all(|held| held.id != withheld.part) {
            let (id, reason) = (withheld.part.clone(), release.reason.clone());
            told.push(Held { id, state: HeldState::Released, reason });
        }
    }
}

/// Moves one entry point back, unless it is back.
fn put_back(dir: &RootedPath, withheld: &Withheld) -> Result<()> {
    let (path, place) = (dir.at(&withheld.path), dir.at(&withheld.place));
    match (state(&path)?, state(&place)?) {
        (PointState::Placeholder, PointState::Entry) => change_places(&path, &place)?,
        // Somebody removed the note.
        (PointState::Nothing, PointState::Entry) => {
            durable::rename_new(&place, &path)?;
            durable::sync_dir(&path.above())?;
            return durable::sync_dir(&place.above());
        }
        (PointState::Entry, PointState::Nothing | PointState::Placeholder) => {}
        _ => return Err(disturbed(withheld)),
    }
    if let PointState::Placeholder = state(&place)? {
        durable::remove_tree(&place)?;
    }
    durable::sync_dir(&place.above())
}

enum PointState {
    Nothing,
    Placeholder,
    Entry,
}

fn state(path: &RootedPath) -> Result<PointState> {
    Ok(match durable::stat(path)? {
        None => PointState::Nothing,
        Some(_) if points::is_placeholder(path)? => PointState::Placeholder,
        Some(_) => PointState::Entry,
    })
}

fn disturbed(withheld: &Withheld) -> Error {
    Error::conflict(format!("{} and {} are not as they were left", withheld.path, withheld.place))
        .with_entry(withheld.path.to_string())
        .with_remedy("something else moved or replaced them: restore the node again")
}

/// Exchanges two names durably; the directory in which an entry point stands keeps its times.
fn change_places(path: &RootedPath, place: &RootedPath) -> Result<()> {
    let (home, waiting) = (path.above(), place.above());
    let before = durable::stat(&home)?;
    durable::exchange(path, place)?;
    if let Some(before) = before {
        durable::keep_time(
            &home.enter().map_err(|error| durable::met(&home, "enter", error))?,
            &before,
        )?;
    }
    durable::sync_dir(&home)?;
    durable::sync_dir(&waiting)
}

/// Whether every database of the node in `dir` is withheld, and has been since the latch was put on:
/// then nothing has run on it.
pub(crate) fn all_withheld(dir: &RootedPath, engines: &Engines) -> Result<bool> {
    let Some(latch) = Latch::read_at(dir)? else { return Ok(false) };
    if latch.kind != GuardKind::Databases || latch.withheld.is_empty() {
        return Ok(false);
    }
    let found = points::find(dir, Known::by(engines))?;
    let standing = latch.withheld.iter().all(|withheld| found.withheld.contains(&withheld.path));
    Ok(standing && found.present.is_empty())
}

/// A directory whose databases are withheld can't be captured: it would be a snapshot without them.
pub(crate) fn refuse_withheld(dir: &RootedPath) -> Result<()> {
    let Some(latch) = Latch::read_at(dir)? else { return Ok(()) };
    let Some(first) = latch.withheld.first() else { return Ok(()) };
    Err(Error::new(
        Kind::Quarantined,
        format!("{} is withheld: a snapshot would lack it", first.part),
    )
    .with_entry(first.part.clone())
    .with_remedy("back up once it is released")
    .with_remedy(Remedy::GuardList))
}
