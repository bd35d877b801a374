//! What restores and rollbacks put aside: the newest directory as `kept`, older ones as `kept.1`,
//! `kept.2` and so on, the higher the newer; beside each the record of the exchange that put it there.
//!
//! A directory that a node has written may be the only copy of its state: only its operator removes it.

use std::path::{Path, PathBuf};

use super::journal::{Journal, Node};
use super::place::{OWN, TargetPlace, locate};
use super::workdir::WorkDir;
use crate::control::Control;
use crate::durable;
use crate::error::{Error, Kind, Remedy, Result};
use crate::guard::LATCH;
use crate::guard::points;
use crate::ids::{RelPath, SnapshotId, Time};
use crate::node::{self, NodeFile};
use crate::rooted::RootedPath;

/// How many directories that are in a vault as they are stay, the newest among them; the others only as
/// long as they take no more room together than the disk has left.
const COPIES_MAX: usize = 3;

/// How the name of an older one begins.
const PREFIX: &str = "kept.";
/// How the name of one begins that is being removed: nothing of it comes back any more.
const LEFTOVER: &str = "leftover.";

/// A directory that a restore or a rollback has put aside.
#[derive(Clone, Debug)]
pub struct Kept {
    /// 1 for the newest.
    pub number: usize,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is a restored one; `None` where nothing tells.
    pub restored: Option<bool>,
    /// The snapshot of the restore by which it was put aside, or which it is a copy of.
    pub snapshot: Option<SnapshotId>,
    /// When it was put aside.
    pub time: Option<Time>,
    /// Whether anything has been written in it since it was restored: it may then be the only copy of
    /// its state, and is never removed without being asked for. True for one that no restore made.
    pub written: bool,
    /// Bytes of the files in it.
    pub bytes: u64,
}

/// One of them, in a work directory that is locked.
pub(super) struct Generation {
    /// The directory.
    pub(super) place: RootedPath,
    record: RootedPath,
}

impl Generation {
    /// The record of the exchange that put it aside, where it is about this directory.
    pub(super) fn journal(&self) -> Result<Option<Journal>> {
        let inode = durable::inode(&self.place)?;
        let record = Journal::read(&self.record)?;
        Ok(record.filter(|record| inode.is_some() && record.kept_inode() == inode))
    }
}

/// All of them, the newest first.
pub(super) fn generations(dir: &WorkDir) -> Result<Vec<Generation>> {
    let mut found = Vec::new();
    if durable::stat(&dir.kept())?.is_some() {
        found.push(Generation { place: dir.kept(), record: dir.record() });
    }
    found.extend(numbers(dir)?.into_iter().rev().map(|number| older(dir, number)));
    Ok(found)
}

/// The numbers of the older ones, rising.
fn numbers(dir: &WorkDir) -> Result<Vec<u64>> {
    let names = durable::names(&dir.path)?;
    let number = |name: &std::ffi::OsString| {
        let digits = name.to_str()?.strip_prefix(PREFIX)?;
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    let mut found: Vec<u64> = names.iter().filter_map(number).collect();
    found.sort_unstable();
    Ok(found)
}

fn older(dir: &WorkDir, number: u64) -> Generation {
    let name = format!("{PREFIX}{number}");
    Generation { place: dir.path.join(&name), record: dir.path.join(format!("{name}.json")) }
}

/// Makes room for a newer `kept`: what has the name becomes the newest of the older ones. A crash
/// leaves it under one of the names, with a record.
pub(super) fn make_older(dir: &WorkDir) -> Result<()> {
    let newest = Generation { place: dir.kept(), record: dir.record() };
    if durable::stat(&newest.place)?.is_none() {
        return Ok(());
    }
    let number = numbers(dir)?.last().map_or(1, |last| last + 1);
    let next = older(dir, number);
    match newest.journal()? {
        Some(record) => record.write(&next.record)?,
        // A record without its directory would be taken for this one's.
        None => durable::remove_file(&next.record)?,
    }
    durable::rename_new(&newest.place, &next.place)?;
    durable::sync_dir(&dir.path)
}

/// Lets an older one be `kept`, and what was it the newest of the older ones.
fn bring_forward(dir: &WorkDir, chosen: &Generation) -> Result<()> {
    let Some(record) = chosen.journal()? else { return Err(unknown(chosen)) };
    make_older(dir)?;
    record.write(&dir.record())?;
    durable::rename_new(&chosen.place, &dir.kept())?;
    durable::sync_dir(&dir.path)?;
    durable::remove_file(&chosen.record)
}

fn unknown(chosen: &Generation) -> Error {
    Error::conflict(format!("{} is not the directory that its record tells of", chosen.place))
        .with_remedy("something else replaced it: look at it, and move it by hand")
}

/// Removes the oldest of those that are in a vault as they are, where there are too many or the room
/// gets short, and records of what is no longer there.
pub(super) fn prune(dir: &WorkDir) -> Result<()> {
    let (mut copies, mut older) = (0, 0u64);
    for generation in generations(dir)? {
        // Into what this user may not look, it may not be known to be a copy.
        let looked = is_written(&generation.place)
            .and_then(|written| Ok((written, bytes(&generation.place)?)));
        let bytes = match looked {
            Ok((false, bytes)) => bytes,
            Ok((true, _)) => continue,
            Err(error) if error.kind() == Kind::Denied => continue,
            Err(error) => return Err(error),
        };
        copies += 1;
        if copies > 1 {
            older = older.saturating_add(bytes);
        }
        if copies > COPIES_MAX || older > free(dir)? {
            give_up(dir, &generation)?;
        }
    }
    for leftover in leftovers(dir)? {
        // It is told of by the next plan, and keeps no node from being restored or started.
        let _ = durable::remove_tree(&leftover);
    }
    for name in durable::names(&dir.path)? {
        let Some(text) = name.to_str() else { continue };
        if text.starts_with(PREFIX)
            && let Some(kept) = text.strip_suffix(".json")
            && durable::stat(&dir.path.join(kept))?.is_none()
        {
            durable::remove_file(&dir.path.join(text))?;
        }
    }
    durable::sync_dir(&dir.path)
}

/// Gives a copy up for good: from then on it is a leftover, whole or not. One that can't even be renamed, since it is
/// immutable, stays what it is. Tells where it is now.
fn give_up(dir: &WorkDir, generation: &Generation) -> Result<Option<RootedPath>> {
    let number = leftovers(dir)?.iter().filter_map(number_of).max().unwrap_or_default() + 1;
    let leftover = dir.path.join(format!("{LEFTOVER}{number}"));
    match durable::rename_new(&generation.place, &leftover) {
        Err(error) if error.kind() == Kind::Denied => Ok(None),
        Err(error) => Err(error),
        Ok(()) => durable::remove_file(&generation.record).map(|()| Some(leftover)),
    }
}

/// What is being removed, or can't be: an immutable file in it, another user's directory.
pub(super) fn leftovers(dir: &WorkDir) -> Result<Vec<RootedPath>> {
    leftovers_in(&dir.path)
}

/// The same of a work directory that nobody has locked.
pub(super) fn leftovers_in(work: &RootedPath) -> Result<Vec<RootedPath>> {
    let places = durable::names(work)?.into_iter().map(|name| work.join(&name));
    Ok(places.filter(|place| number_of(place).is_some()).collect())
}

fn number_of(place: &RootedPath) -> Option<u64> {
    place.name().to_str()?.strip_prefix(LEFTOVER)?.parse().ok()
}

/// Bytes that the disk has left for this user.
fn free(dir: &WorkDir) -> Result<u64> {
    let home = dir.path.enter();
    let room = home
        .and_then(|home| rustix::fs::fstatvfs(home.held()))
        .map_err(|errno| durable::met(&dir.path, "tell the room left in", errno))?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}

/// Whether a directory may hold what no vault has: no restore made it, or something in it was written
/// since. What Highwater itself keeps in it does not count.
fn is_written(place: &RootedPath) -> Result<bool> {
    let marker = place.join(node::OWN_DIR).join(node::FILE);
    let restored = match NodeFile::read_at(place) {
        Ok(found) => found.is_some_and(|found| found.restore.is_some()),
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Input) => false,
        Err(error) => return Err(error),
    };
    let Some(made) = durable::stat(&marker)?.filter(|_| restored) else { return Ok(true) };
    let at = (made.stx_mtime.tv_sec, made.stx_mtime.tv_nsec);
    let own = [RelPath::root().join(node::OWN_DIR.as_ref()), RelPath::root().join(LATCH.as_ref())];
    let mut written = false;
    points::walk(place, &mut |path, found, _| {
        let ours = own.iter().any(|own| path.is_within(own));
        written |= !ours && (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec) > at;
        Ok(())
    })?;
    Ok(written)
}

fn bytes(place: &RootedPath) -> Result<u64> {
    let mut bytes = 0u64;
    points::walk(place, &mut |_, found, _| {
        if durable::is_file(found) {
            bytes = bytes.saturating_add(found.stx_size);
        }
        Ok(())
    })?;
    Ok(bytes)
}

/// Removes what an operation writes besides `kept`, when no journal needs it; also the work
/// directory itself where nothing is kept.
pub(super) fn tidy(dir: &WorkDir) -> Result<()> {
    durable::remove_tree(&dir.staging())?;
    durable::remove_tree(&dir.withheld())?;
    durable::remove_file(&dir.path.join("journal.json.new"))?;
    prune(dir)?;
    if !generations(dir)?.is_empty() || !leftovers(dir)?.is_empty() {
        return durable::sync_dir(&dir.path);
    }
    durable::remove_file(&dir.record())?;
    durable::remove_file(&dir.path.join("lock"))?;
    if durable::inode(&dir.place)? == durable::inode(&dir.path)? {
        durable::remove_empty(&dir.place)?;
    }
    let above = dir.place.above();
    if above.name() == OWN {
        durable::remove_empty(&above)?;
        return durable::sync_dir(&dir.target);
    }
    durable::sync_dir(&above)
}

/// [`super::kept`].
pub(super) fn list(target: &Path) -> Result<Vec<Kept>> {
    list_at(&locate(target)?)
}

pub(super) fn list_at(place: &TargetPlace) -> Result<Vec<Kept>> {
    match WorkDir::open(&place.target, &place.work)? {
        None => Ok(Vec::new()),
        Some(dir) => {
            generations(&dir)?.iter().enumerate().map(|(at, found)| told(at + 1, found)).collect()
        }
    }
}

fn told(number: usize, generation: &Generation) -> Result<Kept> {
    let record = generation.journal()?;
    Ok(Kept {
        number,
        path: generation.place.path(),
        restored: record.as_ref().map(|record| record.incoming == Node::Old),
        snapshot: record.as_ref().map(|record| record.snapshot),
        time: record.as_ref().map(|record| record.time),
        written: is_written(&generation.place)?,
        bytes: bytes(&generation.place)?,
    })
}

/// [`super::took_its_place`].
pub(super) fn holds_original(target: &Path) -> Result<bool> {
    let place = locate(target)?;
    let Some(uid) = NodeFile::read_at(&place.target)?.map(|file| file.uid) else {
        return Ok(false);
    };
    let Some(dir) = WorkDir::open(&place.target, &place.work)? else { return Ok(false) };
    for generation in generations(&dir)? {
        let file = match NodeFile::read_at(&generation.place) {
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Input) => None,
            found => found?,
        };
        // One that a restore made is itself a copy.
        if file.is_some_and(|file| file.uid == uid && file.restore.is_none()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// [`super::drop_kept`].
pub(super) fn drop_one(target: &Path, number: usize, control: &Control) -> Result<Kept> {
    control.cancel.check()?;
    let place = locate(target)?;
    let dir = WorkDir::open(&place.target, &place.work)?.ok_or_else(|| none(&place))?;
    dir.refuse_interrupted()?;
    let found = generations(&dir)?;
    let chosen = chosen(&found, number, &place)?;
    let kept = told(number, chosen)?;
    // Renamed first: of one that is half removed nothing comes back.
    let leftover = give_up(&dir, chosen)?;
    let place = leftover.as_ref().unwrap_or(&chosen.place);
    durable::remove_tree(place).map_err(|error| {
        error.with_remedy("remove it by hand, as a user who may: nothing needs it any more")
    })?;
    tidy(&dir)?;
    Ok(kept)
}

fn chosen<'a>(
    found: &'a [Generation],
    number: usize,
    place: &TargetPlace,
) -> Result<&'a Generation> {
    if found.is_empty() {
        return Err(none(place));
    }
    number.checked_sub(1).and_then(|at| found.get(at)).ok_or_else(|| {
        Error::not_found(format!(
            "{} directories are kept, and none is number {number}",
            found.len()
        ))
        .with_remedy(Remedy::ListKept)
    })
}

/// Makes the directory with this number the one that is exchanged next.
pub(super) fn choose(dir: &WorkDir, number: usize, place: &TargetPlace) -> Result<()> {
    let found = generations(dir)?;
    let chosen = chosen(&found, number, place)?;
    if chosen.place.path() == dir.kept().path() { Ok(()) } else { bring_forward(dir, chosen) }
}

/// That nothing is kept for a node directory.
pub(super) fn none(place: &TargetPlace) -> Error {
    Error::not_found(format!("no earlier node directory is kept for {}", place.target))
        .with_remedy("restore a snapshot instead")
        .with_remedy(Remedy::ListSnapshots)
}
