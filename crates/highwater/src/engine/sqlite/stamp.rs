//! What the file system says of a database, asked by path: nothing here opens a file.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use crate::engine::Metadata;
use crate::error::{Error, Result};
use crate::ids::{self, Time};

/// How much older than the clock a time must be to be trusted: a second write in the same tick of
/// the file system's clock leaves no trace.
const TRUSTED_AGE_SECONDS: i64 = 2;

/// How often a list of attributes that grows meanwhile is asked for again.
const XATTR_TRIES_MAX: u32 = 8;

/// A file's size, time and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    pub(super) inode: u64,
}

impl Stamp {
    fn new(meta: &fs::Metadata) -> Stamp {
        Stamp {
            size: meta.size(),
            mtime_ns: nanos(meta.mtime(), meta.mtime_nsec()),
            inode: meta.ino(),
        }
    }
}

/// The state of a database on disk, as far as `stat` tells.
///
/// The size and time of the `-wal` stand for its salts and what it holds. To read those would take a descriptor of our own, which must never be closed in a process that has the
/// database open. Every commit writes to the `-wal`, and every write sets its time; a commit that
/// leaves no trace must fall into the same tick as the commit before it, which
/// [`Stamps::is_trusted`] rules out. Its change time says nothing: SQLite, run by root, sets it
/// with every connection that it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamps {
    pub(super) main: Stamp,
    pub(super) ctime_ns: i64,
    pub(super) device: u64,
    /// `None` also for an empty one: it holds no commit, and a reader makes one.
    pub(super) wal: Option<Stamp>,
}

impl Stamps {
    /// Of the database at `path`.
    pub(super) fn take(path: &Path) -> Result<Stamps> {
        let main = regular(path)?;
        let wal = match fs::symlink_metadata(sibling(path, "-wal")) {
            Ok(meta) => Some(Stamp::new(&meta)).filter(|stamp| stamp.size > 0),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("can't look at a write-ahead log", error)),
        };
        Ok(Stamps {
            ctime_ns: nanos(main.ctime(), main.ctime_nsec()),
            device: main.dev(),
            main: Stamp::new(&main),
            wal,
        })
    }

    /// Whether all times are old enough that any later write shows.
    pub(super) fn is_trusted(&self, now: Time) -> bool {
        let wal = self.wal.as_ref().map_or(i64::MIN, |wal| wal.mtime_ns);
        let newest = self.main.mtime_ns.max(self.ctime_ns).max(wal);
        newest <= now.as_nanos().saturating_sub(TRUSTED_AGE_SECONDS * 1_000_000_000)
    }
}

fn nanos(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// `path` with `suffix` at its end.
pub(super) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The metadata of the regular file at `path`.
pub(super) fn regular(path: &Path) -> Result<fs::Metadata> {
    let shown = ids::encode(path.as_os_str().as_bytes());
    let meta = fs::symlink_metadata(path)
        .map_err(|error| Error::io(format!("can't look at {shown}"), error))?;
    if !meta.is_file() {
        return Err(Error::conflict(format!("{shown} is no regular file any more")).entry(shown));
    }
    Ok(meta)
}

/// What a snapshot records of the file at `path` besides its content.
pub(super) fn metadata(path: &Path) -> Result<Metadata> {
    let meta = regular(path)?;
    Ok(Metadata {
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime_ns: Stamp::new(&meta).mtime_ns,
        xattrs: xattrs(path)?,
    })
}

fn xattrs(path: &Path) -> Result<Vec<(String, String)>> {
    let failed =
        |error: Errno| Error::io(format!("can't read the attributes of {}", path.display()), error);
    let names = match filled(
        || rustix::fs::llistxattr_query(path),
        |names| rustix::fs::llistxattr(path, spare_capacity(names)),
    ) {
        Ok(names) => names,
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut xattrs = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        match filled(
            || rustix::fs::lgetxattr_query(path, name),
            |value| rustix::fs::lgetxattr(path, name, spare_capacity(value)),
        ) {
            Ok(value) => xattrs.push((ids::encode(name), hex::encode(value))),
            // Removed since the names were listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Asks for a `size`, then lets `fill` append to a buffer with so much room; again while what is
/// there outgrows it.
fn filled(
    size: impl Fn() -> Result<usize, Errno>,
    fill: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    let mut tries = 0;
    loop {
        let size = size()?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let mut buffer = Vec::with_capacity(size);
        tries += 1;
        match fill(&mut buffer) {
            Ok(_) => return Ok(buffer),
            Err(Errno::RANGE) if tries < XATTR_TRIES_MAX => {}
            Err(error) => return Err(error),
        }
    }
}
