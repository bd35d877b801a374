//! Which users this one trusts on the way to a file, and who owns what is made there.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::RootedPath;
use crate::error::{Error, Result};

/// Others may write.
const WRITABLE: u32 = 0o022;
/// In a directory with this bit nobody removes or renames what belongs to another one.
const STICKY: u32 = 0o1000;

/// An owner and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Owner {
    /// Whether this is somebody else than who runs this program.
    pub(crate) fn is_foreign(self) -> bool {
        self.uid != own()
    }

    /// Gives what was just made, by its descriptor, to this owner. Where this user may not, it stays
    /// this user's.
    pub(crate) fn take(self, made: impl AsFd) -> rustix::io::Result<()> {
        let found = rustix::fs::fstat(&made)?;
        if (found.st_uid, found.st_gid) == (self.uid, self.gid) {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        match rustix::fs::chownat(made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH) {
            Err(Errno::PERM) => Ok(()),
            done => done,
        }
    }
}

fn own() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether this user has rights that others could want to borrow.
pub(crate) fn is_root() -> bool {
    own() == 0
}

impl RootedPath {
    /// Whose the directory or file is.
    pub(crate) fn owner(&self) -> Result<Owner> {
        let wrong = |error| Error::io(format!("can't look at {self}"), error);
        let found = self.stat().map_err(wrong)?;
        let found = found.ok_or_else(|| Error::not_found(format!("{self} does not exist")))?;
        Ok(Owner { uid: found.stx_uid, gid: found.stx_gid })
    }

    /// Gives what this user's program has just made here to `owner`, and takes every permission from all
    /// others. What has another owner, or a further name elsewhere, was not made here: it is left alone.
    pub(crate) fn hand_over(&self, owner: Owner) -> rustix::io::Result<()> {
        let entry = match self.open_with(OFlags::PATH, Mode::empty()) {
            Err(Errno::NOENT | Errno::LOOP) => return Ok(()),
            entry => entry?,
        };
        let found = rustix::fs::fstat(&entry)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        let made_here = kind.is_dir() || (kind.is_file() && found.st_nlink == 1);
        if !made_here || found.st_uid != own() {
            return Ok(());
        }
        owner.take(&entry)?;
        let mode = Mode::from_raw_mode(found.st_mode & 0o700);
        rustix::fs::chmod(super::proc_path(entry.as_fd()), mode)
    }

    /// Whose the held directory is.
    pub(crate) fn root_owner(&self) -> rustix::io::Result<Owner> {
        let found = rustix::fs::fstat(&self.root.dir)?;
        Ok(Owner { uid: found.st_uid, gid: found.st_gid })
    }
}

/// Refuses a path that another user can make lead elsewhere, where a library opens it by that path with
/// the rights of root. For engines and stores whose databases are opened by paths; who is not root is refused
/// nothing.
///
/// # Errors
/// Denied where another user can change what the path leads to; those of the file system.
pub fn refuse_for_root(path: &Path) -> Result<()> {
    if is_only_ours(path)? {
        return Ok(());
    }
    Err(Error::denied(format!(
        "root opens nothing by the path {}, which others can change",
        path.display()
    ))
    .with_entry(path.display().to_string())
    .with_remedy("run this as the user to whom the directory belongs, or choose one of root's"))
}

/// Whether nobody but root can change what a path leads to, and every directory on its way, itself among
/// them where it is there, is root's. Who is not root has no rights that others could want to borrow.
pub(crate) fn is_only_ours(path: &Path) -> Result<bool> {
    if !is_root() {
        return Ok(true);
    }
    let wrong =
        |error: std::io::Error| Error::io(format!("can't look at {}", path.display()), error);
    let absolute = std::path::absolute(path).map_err(wrong)?;
    let names = absolute.as_os_str().as_bytes().split(|&byte| byte == b'/');
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut held = rustix::fs::open("/", flags, Mode::empty()).map_err(|e| wrong(e.into()))?;
    for name in names.filter(|name| !name.is_empty()) {
        let name = OsStr::from_bytes(name);
        held = match rustix::fs::openat(&held, name, flags, Mode::empty()) {
            // Nothing is there, and nobody but root can put anything there.
            Err(Errno::NOENT) => return Ok(true),
            next => next.map_err(|error| wrong(error.into()))?,
        };
        let found = rustix::fs::fstat(&held).map_err(|error| wrong(error.into()))?;
        let kind = FileType::from_raw_mode(found.st_mode);
        let closed = found.st_mode & WRITABLE == 0 || found.st_mode & STICKY != 0;
        let further = kind.is_file() && found.st_nlink > 1;
        if found.st_uid != 0 || !closed || kind.is_symlink() || further {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Refuses to follow a link that another user made, or could have put there: root would work where
/// that one chooses. Who is not root borrows nobody anything.
pub(super) fn link(above: &OwnedFd, link: &Stat, shown: &Path) -> Result<()> {
    if !is_root() || link.st_uid == 0 && is_ours(above, shown)? {
        return Ok(());
    }
    Err(Error::denied(format!(
        "{} is a link that another user can make lead anywhere",
        shown.display()
    ))
    .with_entry(shown.display().to_string())
    .with_remedy("name the directory that it leads to"))
}

/// Whether nobody but root can put anything in the place of what root has in this directory.
fn is_ours(dir: &OwnedFd, shown: &Path) -> Result<bool> {
    let found = rustix::fs::fstat(dir)
        .map_err(|error| Error::io(format!("can't look at {}", shown.display()), error))?;
    Ok(found.st_uid == 0 && (found.st_mode & WRITABLE == 0 || found.st_mode & STICKY != 0))
}
