//! Files reached beneath a directory that is held open.
//!
//! A node directory may belong to somebody weaker than who works in it, and its owner can exchange
//! any entry of it at any time. So no path is looked up twice: a [`RootedPath`] is a held descriptor
//! of a directory and plain names below it. The kernel resolves those without following a link and
//! without leaving the directory (`openat2`; on kernels without it, name by name), and every call
//! acts on a held parent and one name. Nothing that exists is opened for writing but locks, and
//! nothing is given away but what was just made, by its descriptor.

mod open;
mod trust;

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    Access, AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Statx, StatxFlags, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::ids::RelPath;

pub use trust::refuse_for_root;
pub(crate) use trust::{Owner, is_only_ours, is_root};

/// A directory that is held open.
#[derive(Debug)]
struct Root {
    dir: OwnedFd,
    /// Where it was found, absolute and without links: for messages, and for programs that take paths.
    path: PathBuf,
}

/// A place beneath a held directory; nothing need be there.
#[derive(Clone, Debug)]
pub(crate) struct RootedPath {
    root: Arc<Root>,
    rel: RelPath,
}

/// What a place is found by: itself, or a path, whose directory is held first.
pub(crate) trait Reach {
    /// The place.
    fn reach(&self) -> Result<RootedPath>;
}

impl Reach for RootedPath {
    fn reach(&self) -> Result<RootedPath> {
        Ok(self.clone())
    }
}

impl Reach for Path {
    fn reach(&self) -> Result<RootedPath> {
        RootedPath::of(self)
    }
}

impl Reach for PathBuf {
    fn reach(&self) -> Result<RootedPath> {
        RootedPath::of(self)
    }
}

impl fmt::Display for RootedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().display().fmt(f)
    }
}

impl RootedPath {
    /// Holds the directory at `path`; links on the way are followed where nobody else could have made
    /// them.
    ///
    /// # Errors
    /// Not found where nothing is there, input where it is not a directory, denied where a link on the
    /// way was made by a user that this one does not trust.
    pub(crate) fn open(path: &Path) -> Result<RootedPath> {
        let (dir, path) = open::walk(path)?;
        Ok(RootedPath { root: Arc::new(Root { dir, path }), rel: RelPath::root() })
    }

    /// The place at `path`, by a hold of the directory above it; the last name is not looked at.
    pub(crate) fn of(path: &Path) -> Result<RootedPath> {
        let absolute = std::path::absolute(path)
            .map_err(|error| Error::io(format!("can't find {}", path.display()), error))?;
        match (absolute.parent(), absolute.file_name()) {
            (Some(parent), Some(name)) => Ok(RootedPath::open(parent)?.join(name)),
            _ => RootedPath::open(&absolute),
        }
    }

    /// The same place by a hold of its own directory: whoever moves that away can't change where this
    /// leads. A link, or anything else than a directory, is an error.
    pub(crate) fn enter(&self) -> rustix::io::Result<RootedPath> {
        let dir = self.open_with(OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok(RootedPath { root: Arc::new(Root { dir, path: self.path() }), rel: RelPath::root() })
    }

    /// Whether it is the same place beneath the same held directory.
    pub(crate) fn is_same(&self, other: &RootedPath) -> bool {
        Arc::ptr_eq(&self.root, &other.root) && self.rel == other.rel
    }

    /// Where it is, absolute: for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.rel.under(&self.root.path)
    }

    /// A path that leads to the held directory itself, whoever has moved it: for programs that take
    /// paths and look none up twice.
    #[cfg_attr(
        not(any(feature = "rocksdb", test)),
        expect(dead_code, reason = "only RocksDB is opened by a path")
    )]
    pub(crate) fn held_path(&self) -> PathBuf {
        self.rel.under(&proc_path(self.root.dir.as_fd()))
    }

    /// The held directory, where this is it.
    pub(crate) fn held(&self) -> BorrowedFd<'_> {
        debug_assert_eq!(self.rel, RelPath::root(), "a place below is not held itself");
        self.root.dir.as_fd()
    }

    /// One name further.
    pub(crate) fn join(&self, name: impl AsRef<OsStr>) -> RootedPath {
        let name = name.as_ref();
        debug_assert!(!name.as_bytes().contains(&b'/'), "one name at a time");
        RootedPath { root: Arc::clone(&self.root), rel: self.rel.join(name) }
    }

    /// The place of `path` below this one.
    pub(crate) fn at(&self, path: &RelPath) -> RootedPath {
        let rel = if self.rel == RelPath::root() {
            path.clone()
        } else if *path == RelPath::root() {
            self.rel.clone()
        } else {
            let bytes = [self.rel.as_bytes(), b"/", path.as_bytes()].concat();
            RelPath::from_bytes(&bytes).expect("two plain paths make a plain one")
        };
        RootedPath { root: Arc::clone(&self.root), rel }
    }

    /// The last name; empty where this is the held directory.
    pub(crate) fn name(&self) -> &OsStr {
        self.rel.name()
    }

    /// The directory above; the held directory is its own.
    pub(crate) fn above(&self) -> RootedPath {
        let rel = self.rel.parent().unwrap_or_else(RelPath::root);
        RootedPath { root: Arc::clone(&self.root), rel }
    }

    /// The same name with more at its end.
    pub(crate) fn with_suffix(&self, suffix: &str) -> RootedPath {
        let mut name = self.name().to_owned();
        name.push(suffix);
        self.above().join(name)
    }

    /// Opens what is there, never through a link.
    pub(crate) fn open_with(&self, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let path = if self.rel == RelPath::root() { Path::new(".") } else { self.rel.as_path() };
        open::beneath(self.root.dir.as_fd(), path, flags, mode)
    }

    /// Opens a regular file to read it. Anything else is an error, and nothing is waited for: a pipe
    /// has no writer yet, and a lease is not broken.
    pub(crate) fn open_file(&self) -> std::io::Result<File> {
        let file = File::from(self.open_with(OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?);
        regular(&file)?;
        Ok(file)
    }

    /// Makes a file for writing that is not there yet; only this user may read it.
    pub(crate) fn create_new(&self) -> std::io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        Ok(File::from(self.open_with(flags, Mode::from_raw_mode(0o600))?))
    }

    /// Opens a file to lock it, and makes it where it is missing; whether it was made. What is in it is
    /// neither read nor changed.
    pub(crate) fn open_lock(&self) -> std::io::Result<(File, bool)> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK;
        let made = OFlags::CREATE | OFlags::EXCL;
        for _ in 0..open::TRIES_MAX {
            match self.open_with(flags, Mode::empty()) {
                Err(Errno::NOENT) => {}
                opened => {
                    let file = File::from(opened?);
                    regular(&file)?;
                    return Ok((file, false));
                }
            }
            match self.open_with(flags | made, Mode::from_raw_mode(0o600)) {
                Err(Errno::EXIST) => {}
                opened => return Ok((File::from(opened?), true)),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Reads a small regular file of at most `bytes_max` bytes.
    pub(crate) fn read(&self, bytes_max: u64) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_file()?.take(bytes_max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            let what = format!("it has more than {bytes_max} bytes");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
        }
        Ok(bytes)
    }

    /// What the file system says of it, links not followed; `None` where nothing is.
    pub(crate) fn stat(&self) -> rustix::io::Result<Option<Statx>> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        match self.at_parent(|dir, name| rustix::fs::statx(dir, name, flags, mask)) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where a link leads, by its text.
    pub(crate) fn read_link(&self) -> rustix::io::Result<Vec<u8>> {
        let read =
            |dir: BorrowedFd<'_>, name: &OsStr| rustix::fs::readlinkat(dir, name, Vec::new());
        self.at_parent(read).map(std::ffi::CString::into_bytes)
    }

    /// The names in a directory, in no order.
    pub(crate) fn names(&self) -> rustix::io::Result<Vec<OsString>> {
        let dir = self.open_with(OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(dir)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Makes a directory that only this user may enter.
    pub(crate) fn make_dir(&self) -> rustix::io::Result<()> {
        let mode = Mode::from_raw_mode(0o700);
        self.at_parent(|dir, name| rustix::fs::mkdirat(dir, name, mode))
    }

    /// Makes a link with this text.
    pub(crate) fn make_link(&self, text: &OsStr) -> rustix::io::Result<()> {
        self.at_parent(|dir, name| rustix::fs::symlinkat(text, dir, name))
    }

    /// Makes `other` a further name of the file; of a link, of the link.
    pub(crate) fn link_to(&self, other: &RootedPath) -> rustix::io::Result<()> {
        self.at_parent(|from, name| {
            other.at_parent(|to, new| rustix::fs::linkat(from, name, to, new, AtFlags::empty()))
        })
    }

    /// Renames it.
    pub(crate) fn rename(&self, to: &RootedPath, flags: RenameFlags) -> rustix::io::Result<()> {
        self.at_parent(|from, name| {
            to.at_parent(|to, new| rustix::fs::renameat_with(from, name, to, new, flags))
        })
    }

    /// Removes a name, unless it is a directory's.
    pub(crate) fn unlink(&self) -> rustix::io::Result<()> {
        self.at_parent(|dir, name| rustix::fs::unlinkat(dir, name, AtFlags::empty()))
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self) -> rustix::io::Result<()> {
        self.at_parent(|dir, name| rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR))
    }

    /// Whether this user may do so in it.
    pub(crate) fn access(&self, access: Access) -> rustix::io::Result<()> {
        self.at_parent(|dir, name| rustix::fs::accessat(dir, name, access, AtFlags::EACCESS))
    }

    /// Sets mode bits; a link has none.
    pub(crate) fn set_mode(&self, mode: u32) -> rustix::io::Result<()> {
        let entry = self.open_with(OFlags::PATH, Mode::empty())?;
        rustix::fs::chmod(proc_path(entry.as_fd()), Mode::from_raw_mode(mode))
    }

    /// Gives it to an owner, whatever it is: only for what lies where nobody else can put anything.
    pub(crate) fn give(&self, owner: Owner) -> rustix::io::Result<()> {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        self.at_parent(|dir, name| {
            rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    /// Sets its times, also those of a link.
    pub(crate) fn set_times(&self, times: &Timestamps) -> rustix::io::Result<()> {
        self.at_parent(|dir, name| {
            rustix::fs::utimensat(dir, name, times, AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    /// Sets an extended attribute, also that of a link.
    pub(crate) fn set_xattr(&self, name: &OsStr, value: &[u8]) -> rustix::io::Result<()> {
        self.by_proc_path(|path| rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()))
    }

    /// Removes what a directory passes on to entries made in it (the default list of access of
    /// `acl(5)`), which it may itself have got so from a directory of another user's.
    pub(crate) fn disinherit(&self) -> rustix::io::Result<()> {
        let list = OsStr::new("system.posix_acl_default");
        match self.by_proc_path(|path| rustix::fs::lremovexattr(path, list)) {
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
            done => done,
        }
    }

    /// Hands a path that leads to this very entry, and through no link, to a call that takes no
    /// descriptor.
    pub(crate) fn by_proc_path<T>(
        &self,
        act: impl FnOnce(&Path) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        self.at_parent(|dir, name| act(&proc_path(dir).join(name)))
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync(&self) -> rustix::io::Result<()> {
        let dir = self.open_with(OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        rustix::fs::fsync(dir)
    }

    /// Calls with the directory above, and the name in it.
    fn at_parent<T>(
        &self,
        act: impl FnOnce(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let root = self.root.dir.as_fd();
        match self.rel.parent() {
            None => act(root, OsStr::new(".")),
            Some(parent) if parent == RelPath::root() => act(root, self.rel.name()),
            Some(parent) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let dir = open::beneath(root, parent.as_path(), flags, Mode::empty())?;
                act(dir.as_fd(), self.rel.name())
            }
        }
    }
}

/// Places one after another, most of them in the directory of the one before: that is held meanwhile, so that
/// each call looks up one name.
pub(crate) struct Neighbours<'a> {
    root: &'a RootedPath,
    held: Option<(RelPath, RootedPath)>,
}

impl<'a> Neighbours<'a> {
    /// Of places below `root`.
    pub(crate) fn new(root: &'a RootedPath) -> Neighbours<'a> {
        Neighbours { root, held: None }
    }

    /// The place of `path`, for now: its directory is held until another one is asked for.
    pub(crate) fn at(&mut self, path: &RelPath) -> rustix::io::Result<RootedPath> {
        let Some(parent) = path.parent() else { return Ok(self.root.clone()) };
        match &self.held {
            Some((held, dir)) if *held == parent => Ok(dir.join(path.name())),
            _ => {
                let dir = self.root.at(&parent).enter()?;
                let place = dir.join(path.name());
                self.held = Some((parent, dir));
                Ok(place)
            }
        }
    }
}

/// An error where an open file is a pipe, a device, or anything else but a regular file.
fn regular(file: &File) -> std::io::Result<()> {
    let found = rustix::fs::fstat(file)?;
    if FileType::from_raw_mode(found.st_mode).is_file() {
        return Ok(());
    }
    Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file"))
}

/// The path of a descriptor of this process.
fn proc_path(file: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
