//! Steps on the file system that are done when they return: renames, small files, removals.
//!
//! An inode tells where a file or directory stands, whatever name it has: every step of an
//! exchange is decided by it, so that recovery can repeat the step.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, RenameFlags, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What the file system says of `path`, links not followed; `None` where there is nothing.
pub(crate) fn stat(path: &Path) -> Result<Option<Statx>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(Error::io(format!("can't look at {}", path.display()), error)),
    }
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
pub(crate) fn inode(path: &Path) -> Result<Option<Inode>> {
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
pub(crate) fn exchange(one: &Path, other: &Path) -> Result<()> {
    rename(one, other, RenameFlags::EXCHANGE).map_err(|error| {
        let what = format!("can't exchange {} and {}", one.display(), other.display());
        let found = Error::io(what, error);
        match error {
            Errno::INVAL | Errno::NOSYS => {
                found.hint("this file system can't exchange two names in one step: use another one")
            }
            Errno::XDEV => found.hint(
                "the directory comes from the lower layer of an overlay file system, which can't \
                 rename it: keep the node directory on a volume",
            ),
            _ => found,
        }
    })
}

/// Renames; something that has the new name already is an error. Not durable before both parents
/// are synced.
pub(crate) fn rename_new(from: &Path, to: &Path) -> Result<()> {
    rename(from, to, RenameFlags::NOREPLACE).map_err(|error| {
        Error::io(format!("can't rename {} to {}", from.display(), to.display()), error)
    })
}

/// A directory that its owner may not write can't change its parent, where the owner is not root:
/// it is made writable for the step.
fn rename(from: &Path, to: &Path, flags: RenameFlags) -> rustix::io::Result<()> {
    let attempt = rustix::fs::renameat_with(CWD, from, CWD, to, flags);
    if attempt != Err(Errno::ACCESS) {
        return attempt;
    }
    let locked = |path: &Path| {
        let mode = stat(path).ok().flatten().filter(is_dir).map(|found| found.stx_mode & 0o7777);
        mode.filter(|mode| mode & 0o200 == 0)
    };
    let modes = [(from, to, locked(from)), (to, from, locked(to))];
    for (path, _, mode) in modes {
        if let Some(mode) = mode {
            rustix::fs::chmod(path, rustix::fs::Mode::from(u32::from(mode | 0o200)))?;
        }
    }
    let attempt = rustix::fs::renameat_with(CWD, from, CWD, to, flags);
    for (before, after, mode) in modes {
        if let Some(mode) = mode {
            let path = if attempt.is_ok() { after } else { before };
            rustix::fs::chmod(path, rustix::fs::Mode::from(u32::from(mode)))?;
        }
    }
    attempt
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| Error::io(format!("can't sync {}", path.display()), error))
}

/// Makes a directory that only its owner may enter; one that stands already is left as it is.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => match stat(path)? {
            Some(found) if is_dir(&found) => Ok(()),
            _ => Err(Error::conflict(format!("{} is not a directory", path.display()))),
        },
        Err(error) => Err(Error::io(format!("can't make {}", path.display()), error)),
    }
}

/// Writes a file that only its owner may read, durable except for its name.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| Error::io(format!("can't write {}", path.display()), error))
}

/// Renames over what is there, in the same directory, and makes it durable.
pub(crate) fn replace(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)
        .map_err(|error| Error::io(format!("can't rename to {}", to.display()), error))?;
    to.parent().map_or(Ok(()), sync_dir)
}

/// Removes a file; a missing one is as good.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("can't remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Removes a directory if nothing is in it; whether it is gone.
pub(crate) fn remove_empty(path: &Path) -> Result<bool> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(Error::io(format!("can't remove {}", path.display()), error)),
    }
}

/// Removes a tree, whatever the modes of its files and directories; a missing one is as good. Links
/// are not followed, and a mount point inside is an error: what it holds is not ours.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let Some(found) = stat(path)? else { return Ok(()) };
    if !is_dir(&found) {
        return remove_file(path);
    }
    remove_dir(path, &found)
}

fn remove_dir(path: &Path, found: &Statx) -> Result<()> {
    let wrong =
        |error: std::io::Error| Error::io(format!("can't remove {}", path.display()), error);
    if found.stx_mode & 0o700 != 0o700 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(wrong)?;
    }
    for name in names(path)? {
        let below = path.join(name);
        let Some(entry) = stat(&below)? else { continue };
        if is_mount(&entry, found) {
            return Err(Error::conflict(format!("{} is a mount point", below.display()))
                .hint("unmount it, and try again"));
        }
        if is_dir(&entry) {
            remove_dir(&below, &entry)?;
        } else {
            remove_file(&below)?;
        }
    }
    fs::remove_dir(path).map_err(wrong)
}

/// The names in a directory, sorted; none where it is missing.
pub(crate) fn names(path: &Path) -> Result<Vec<std::ffi::OsString>> {
    let read = || -> std::io::Result<Vec<_>> {
        let entries = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name()));
        let mut names = entries.collect::<std::io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    match read() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|error| Error::io(format!("can't list {}", path.display()), error)),
    }
}

/// Gives what was just made to the owner of `like`, so that a node finds what another user's program
/// wrote in its directory. Where this user may not, it stays this user's.
pub(crate) fn own_like(path: &Path, like: &Path) -> Result<()> {
    let (Some(found), Some(owner)) = (stat(path)?, stat(like)?) else { return Ok(()) };
    own(path, &found, owner.stx_uid, owner.stx_gid)
}

/// Takes every permission from all but the owner.
pub(crate) fn keep_private(path: &Path, found: &Statx) -> Result<()> {
    let mode = u32::from(found.stx_mode) & 0o7777;
    if mode & 0o077 == 0 || !(is_dir(found) || is_file(found)) {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode & 0o700))
        .map_err(|error| Error::io(format!("can't set the mode of {}", path.display()), error))
}

/// Gives it to an owner, unless it is theirs.
fn own(path: &Path, found: &Statx, uid: u32, gid: u32) -> Result<()> {
    if (found.stx_uid, found.stx_gid) == (uid, gid) {
        return Ok(());
    }
    match std::os::unix::fs::lchown(path, Some(uid), Some(gid)) {
        Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => {
            Err(Error::io(format!("can't give {} to its owner", path.display()), error))
        }
        _ => Ok(()),
    }
}
