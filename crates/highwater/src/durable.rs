//! Steps on the file system that are done when they return: renames, small files, removals.
//!
//! An inode tells where a file or directory stands, whatever name it has: every step of an
//! exchange is decided by it, so that recovery can repeat the step.

use rustix::fs::{
    RenameFlags, Statx, StatxAttributes, StatxFlags, Timespec, Timestamps, UTIME_OMIT,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::io::Write as _;

use crate::error::{Error, Kind, Result};
use crate::rooted::{Owner, Reach, RootedPath};

/// A tree is removed to this depth; each directory above is held meanwhile.
const DEPTH_MAX: u32 = 256;

/// How often a directory that was made is looked for before it is given up.
const TRIES_MAX: u32 = 16;

/// What the file system says of `path`, links not followed; `None` where there is nothing.
pub(crate) fn stat(path: &(impl Reach + ?Sized)) -> Result<Option<Statx>> {
    let place = match path.reach() {
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Input) => return Ok(None),
        place => place?,
    };
    place.stat().map_err(|error| met(&place, "look at", error))
}

/// An error of the file system at a place of a node directory.
pub(crate) fn met(place: &RootedPath, what: &str, error: impl Into<std::io::Error>) -> Error {
    let error = error.into();
    if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
        return Error::conflict(format!(
            "can't {what} {place}: a link stands where no link may be"
        ))
        .with_entry(place.path().display().to_string())
        .with_remedy("look who put it there, and remove it");
    }
    Error::io(format!("can't {what} {place}"), error)
}

/// Sets the modification time of `place` to the one of what was found before.
pub(crate) fn keep_time(place: &RootedPath, before: &Statx) -> Result<()> {
    let modified =
        Timespec { tv_sec: before.stx_mtime.tv_sec, tv_nsec: before.stx_mtime.tv_nsec.into() };
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: modified,
    };
    place.set_times(&times).map_err(|error| met(place, "set the time of", error))
}

/// By what a file or directory is known, whatever its name. The number alone is given to another
/// one soon after it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Inode {
    /// Its number in its file system.
    pub(crate) number: u64,
    /// When it was made, in nanoseconds since the Unix epoch, where the file system tells.
    pub(crate) born_ns: Option<i64>,
}

/// The inode of `path`, links not followed; `None` where there is nothing.
pub(crate) fn inode(path: &(impl Reach + ?Sized)) -> Result<Option<Inode>> {
    Ok(stat(path)?.as_ref().map(inode_of))
}

/// The inode of what was found.
pub(crate) fn inode_of(found: &Statx) -> Inode {
    let told = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
    let born = found.stx_btime;
    let nanos = born.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(born.tv_nsec.into());
    Inode { number: found.stx_ino, born_ns: told.then_some(nanos) }
}

/// Whether it is a directory.
pub(crate) fn is_dir(found: &Statx) -> bool {
    rustix::fs::FileType::from_raw_mode(found.stx_mode.into()).is_dir()
}

/// Whether it is a regular file.
pub(crate) fn is_file(found: &Statx) -> bool {
    rustix::fs::FileType::from_raw_mode(found.stx_mode.into()).is_file()
}

/// Whether `found` is where another file system, or another part of the same one, is mounted.
/// A kernel that can't say so is asked for the device, which differs from that of `parent`.
pub(crate) fn is_mount(found: &Statx, parent: &Statx) -> bool {
    if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    }
    device(found) != device(parent)
}

/// The device that it lies on.
pub(crate) fn device(found: &Statx) -> (u32, u32) {
    (found.stx_dev_major, found.stx_dev_minor)
}

/// The two exchange their names in one step. Not durable before both parents are synced.
pub(crate) fn exchange(one: &RootedPath, other: &RootedPath) -> Result<()> {
    rename(one, other, RenameFlags::EXCHANGE).map_err(|error| {
        let found = Error::io(format!("can't exchange {one} and {other}"), error);
        match error {
            Errno::INVAL | Errno::NOSYS => found.with_remedy(
                "this file system can't exchange two names in one step: use another one",
            ),
            Errno::XDEV => found.with_remedy(
                "the directory comes from the lower layer of an overlay file system, which can't \
                 rename it: keep the node directory on a volume",
            ),
            _ => found,
        }
    })
}

/// Renames; something that has the new name already is an error. Not durable before both parents
/// are synced.
pub(crate) fn rename_new(from: &(impl Reach + ?Sized), to: &(impl Reach + ?Sized)) -> Result<()> {
    let (from, to) = (from.reach()?, to.reach()?);
    rename(&from, &to, RenameFlags::NOREPLACE)
        .map_err(|error| Error::io(format!("can't rename {from} to {to}"), error))
}

/// A directory that its owner may not write can't change its parent, where the owner is not root:
/// it is made writable for the step.
fn rename(from: &RootedPath, to: &RootedPath, flags: RenameFlags) -> rustix::io::Result<()> {
    let attempt = from.rename(to, flags);
    if attempt != Err(Errno::ACCESS) {
        return attempt;
    }
    let locked = |path: &RootedPath| {
        let mode = path.stat().ok().flatten().filter(is_dir).map(|found| found.stx_mode & 0o7777);
        mode.filter(|mode| mode & 0o200 == 0)
    };
    let modes = [(from, to, locked(from)), (to, from, locked(to))];
    for (path, _, mode) in modes {
        if let Some(mode) = mode {
            path.set_mode(u32::from(mode | 0o200))?;
        }
    }
    let attempt = from.rename(to, flags);
    for (before, after, mode) in modes {
        if let Some(mode) = mode {
            let path = if attempt.is_ok() { after } else { before };
            path.set_mode(u32::from(mode))?;
        }
    }
    attempt
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &(impl Reach + ?Sized)) -> Result<()> {
    let place = path.reach()?;
    place.sync().map_err(|error| met(&place, "sync", error))
}

/// Makes a directory that only its owner may enter; one that stands already is left as it is.
pub(crate) fn make_dir(path: &(impl Reach + ?Sized)) -> Result<()> {
    let place = path.reach()?;
    match place.make_dir() {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => match stat(&place)? {
            Some(found) if is_dir(&found) => Ok(()),
            _ => Err(Error::conflict(format!("{place} is not a directory"))),
        },
        Err(error) => Err(met(&place, "make", error)),
    }
}

/// The same in a node directory, whose owner finds there what another user's program has made: one
/// that is made belongs to `owner`. Whether it was made.
pub(crate) fn make_dir_for(place: &RootedPath, owner: Owner) -> Result<bool> {
    for _ in 0..TRIES_MAX {
        match place.make_dir() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                make_dir(place)?;
                return Ok(false);
            }
            Err(error) => return Err(met(place, "make", error)),
        }
        // Its owner may have moved it away already, and put something else there.
        let Ok(made) = place.enter() else { continue };
        if made.root_owner().is_ok_and(|owner| !owner.is_foreign()) {
            owner.take(made.held()).map_err(|error| met(place, "give away", error))?;
            return Ok(true);
        }
    }
    Err(Error::conflict(format!("{place} is being moved while it is made")))
}

/// Writes a file that only its owner may read, durable except for its name. What has the name goes.
pub(crate) fn write_file(path: &(impl Reach + ?Sized), bytes: &[u8]) -> Result<()> {
    write(&path.reach()?, bytes, None)
}

/// The same, for the owner of a node directory.
pub(crate) fn write_file_for(place: &RootedPath, bytes: &[u8], owner: Owner) -> Result<()> {
    write(place, bytes, Some(owner))
}

fn write(place: &RootedPath, bytes: &[u8], owner: Option<Owner>) -> Result<()> {
    let wrong = |error: std::io::Error| met(place, "write", error);
    remove_file(place)?;
    let mut file = place.create_new().map_err(wrong)?;
    if let Some(owner) = owner {
        owner.take(&file).map_err(|error| met(place, "give away", error))?;
    }
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(wrong)
}

/// Renames over what is there, in the same directory, and makes it durable.
pub(crate) fn replace(from: &(impl Reach + ?Sized), to: &(impl Reach + ?Sized)) -> Result<()> {
    let (from, to) = (from.reach()?, to.reach()?);
    from.rename(&to, RenameFlags::empty()).map_err(|error| met(&to, "rename to", error))?;
    sync_dir(&to.above())
}

/// Removes a file; a missing one is as good.
pub(crate) fn remove_file(path: &(impl Reach + ?Sized)) -> Result<()> {
    let place = match path.reach() {
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        place => place?,
    };
    match place.unlink() {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(met(&place, "remove", error)),
    }
}

/// Removes a directory if nothing is in it; whether it is gone.
pub(crate) fn remove_empty(path: &(impl Reach + ?Sized)) -> Result<bool> {
    let place = path.reach()?;
    match place.remove_dir() {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(met(&place, "remove", error)),
    }
}

/// Removes a tree, whatever the modes of its files and directories; a missing one is as good. Links
/// are not followed, and a mount point inside is an error: what it holds is not ours.
pub(crate) fn remove_tree(path: &(impl Reach + ?Sized)) -> Result<()> {
    let place = match path.reach() {
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        place => place?,
    };
    let Some(found) = stat(&place)? else { return Ok(()) };
    if !is_dir(&found) {
        return remove_file(&place);
    }
    remove_dir(&place, &found, 0)
}

/// Removes what is in a directory that is held, and its name, unless another one has that by now.
pub(crate) fn remove_held(place: &RootedPath, dir: &RootedPath) -> Result<()> {
    let Some(found) = stat(dir)? else { return Ok(()) };
    clear(dir, &found, 0)?;
    if inode(place)? == Some(inode_of(&found)) {
        remove_empty(place)?;
    }
    Ok(())
}

/// Each directory is held while what is in it is removed: who moves it meanwhile moves what goes.
fn remove_dir(place: &RootedPath, found: &Statx, depth: u32) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(Error::conflict(format!(
            "{place} lies more than {DEPTH_MAX} directories deep in what is to be removed"
        ))
        .with_remedy("look who made it, and remove it by hand"));
    }
    let wrong = |error: Errno| met(place, "remove", error);
    if found.stx_mode & 0o700 != 0o700 {
        place.set_mode(0o700).map_err(wrong)?;
    }
    clear(&place.enter().map_err(wrong)?, found, depth)?;
    place.remove_dir().map_err(wrong)
}

fn clear(dir: &RootedPath, found: &Statx, depth: u32) -> Result<()> {
    for name in dir.names().map_err(|error| met(dir, "list", error))? {
        let below = dir.join(name);
        let Some(entry) = stat(&below)? else { continue };
        if is_mount(&entry, found) {
            return Err(Error::conflict(format!("{below} is a mount point"))
                .with_remedy("unmount it, and try again"));
        }
        if is_dir(&entry) {
            remove_dir(&below, &entry, depth + 1)?;
        } else {
            remove_file(&below)?;
        }
    }
    Ok(())
}

/// The names in a directory, sorted; none where it is missing.
pub(crate) fn names(path: &(impl Reach + ?Sized)) -> Result<Vec<std::ffi::OsString>> {
    let place = match path.reach() {
        Err(error) if error.kind() == Kind::NotFound => return Ok(Vec::new()),
        place => place?,
    };
    match place.names() {
        Err(Errno::NOENT) => Ok(Vec::new()),
        Err(error) => Err(met(&place, "list", error)),
        Ok(mut names) => {
            names.sort();
            Ok(names)
        }
    }
}
