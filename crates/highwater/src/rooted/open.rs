//! Opening: beneath a held directory without following links, and the first way to that directory.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::trust;
use crate::error::{Error, Result};

/// How often a look-up is begun again that the kernel gives up because a name on the way was moved.
pub(super) const TRIES_MAX: u32 = 64;
/// The kernel follows no more links on one way either.
const LINKS_MAX: u32 = 40;

/// Opens `path` beneath `dir`: no link is followed, the last name included, and no way leads out.
pub(super) fn beneath(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !has_openat2() {
        return by_names(dir, path, flags, mode);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES_MAX {
        match rustix::fs::openat2(dir, path, flags, mode, resolve) {
            Err(Errno::AGAIN) if !flags.contains(OFlags::NONBLOCK) => {}
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

/// Whether the kernel has `openat2`, and nothing forbids it.
fn has_openat2() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tried = rustix::fs::openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::empty());
        !matches!(tried, Err(Errno::NOSYS | Errno::PERM))
    })
}

/// The same, one name at a time, each from a hold of the one before it.
pub(super) fn by_names(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let mut names: Vec<&OsStr> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            _ => return Err(Errno::XDEV),
        }
    }
    let last = names.pop().unwrap_or(OsStr::new("."));
    let mut held: Option<OwnedFd> = None;
    for name in names {
        let above = held.as_ref().map_or(dir, |held| held.as_fd());
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = rustix::fs::openat(above, name, flags, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode) {
            FileType::Directory => held = Some(next),
            FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::NOTDIR),
        }
    }
    let above = held.as_ref().map_or(dir, |held| held.as_fd());
    rustix::fs::openat(above, last, flags, mode)
}

/// Holds the directory at `path`, and tells its path without links.
pub(super) fn walk(path: &Path) -> Result<(OwnedFd, PathBuf)> {
    let failed = |error: Errno| {
        let error = match error {
            // The shape that a caller knows as "nothing there".
            Errno::NOTDIR => return not_a_directory(path),
            other => other,
        };
        Error::io(format!("can't find {}", path.display()), error)
    };
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::io(format!("can't find {}", path.display()), error))?;
    let mut pending: VecDeque<OsString> = names_of(&absolute).collect();
    let (mut held, mut shown) = (open_top().map_err(failed)?, PathBuf::from("/"));
    let mut links = 0;
    while let Some(name) = pending.pop_front() {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = rustix::fs::openat(&held, &name, flags, Mode::empty()).map_err(failed)?;
        let found = rustix::fs::fstat(&next).map_err(failed)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                held = next;
                if name == ".." {
                    shown.pop();
                } else {
                    shown.push(&name);
                }
            }
            FileType::Symlink => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(failed(Errno::LOOP));
                }
                trust::link(&held, &found, &shown.join(&name))?;
                let text = rustix::fs::readlinkat(&next, "", Vec::new()).map_err(failed)?;
                let text = PathBuf::from(OsString::from_vec(text.into_bytes()));
                if text.is_absolute() {
                    (held, shown) = (open_top().map_err(failed)?, PathBuf::from("/"));
                }
                names_of(&text).rev().for_each(|name| pending.push_front(name));
            }
            _ => return Err(not_a_directory(&shown.join(&name))),
        }
    }
    Ok((held, shown))
}

fn not_a_directory(path: &Path) -> Error {
    Error::input(format!("{} is not a directory", path.display()))
}

fn open_top() -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty())
}

/// The names of a path in their order, `..` among them.
fn names_of(path: &Path) -> std::vec::IntoIter<OsString> {
    let names = path.as_os_str().as_bytes().split(|&byte| byte == b'/');
    let names = names.filter(|name| !name.is_empty() && *name != b".");
    names.map(|name| OsStr::from_bytes(name).to_owned()).collect::<Vec<_>>().into_iter()
}
