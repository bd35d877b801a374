//! What the file system says of an entry: type, owner, mode, times, extended attributes, holes.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::{EntryType, Metadata};
use crate::error::{Error, Result};
use crate::ids;

/// How often an attribute that grows while it is read is read again.
const XATTR_ATTEMPTS_MAX: u32 = 8;

/// An entry, looked at without opening it and without following a link.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Its type.
    pub(crate) kind: EntryType,
    /// What is recorded of it.
    pub(crate) meta: Metadata,
    /// By what a later look is compared.
    pub(crate) stamp: Stamp,
    /// Bytes that the file system stores for it.
    pub(crate) stored: u64,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Device and inode.
    pub(crate) id: (u64, u64),
    /// Bytes of content.
    pub(crate) size: u64,
    /// Modification time in nanoseconds.
    pub(crate) mtime_ns: i64,
    /// Change time in nanoseconds.
    pub(crate) ctime_ns: i64,
}

impl Stamp {
    /// Of what was seen.
    pub(crate) fn of(seen: &fs::Metadata) -> Stamp {
        Stamp {
            id: (seen.dev(), seen.ino()),
            size: seen.len(),
            mtime_ns: nanos(seen.mtime(), seen.mtime_nsec()),
            ctime_ns: nanos(seen.ctime(), seen.ctime_nsec()),
        }
    }

    /// Whether the content is the same, although links to the file may have come or gone.
    pub(crate) fn same_content(&self, other: &Stamp) -> bool {
        self.id == other.id && self.size == other.size && self.mtime_ns == other.mtime_ns
    }
}

/// Looks at an entry.
pub(crate) fn look(path: &Path) -> io::Result<Found> {
    let seen = fs::symlink_metadata(path)?;
    let kind = entry_type(path, &seen)?;
    let meta = Metadata {
        mode: seen.mode() & 0o7777,
        uid: seen.uid(),
        gid: seen.gid(),
        mtime_ns: nanos(seen.mtime(), seen.mtime_nsec()),
        xattrs: xattrs(path)?,
    };
    Ok(Found { kind, meta, stamp: Stamp::of(&seen), stored: seen.blocks().saturating_mul(512) })
}

/// By what a later look at an entry is compared.
pub(crate) fn stamp(path: &Path) -> Result<Stamp> {
    let seen = fs::symlink_metadata(path)
        .map_err(|source| Error::io(format!("can't look at {}", path.display()), source))?;
    Ok(Stamp::of(&seen))
}

/// The metadata of an entry.
pub(crate) fn read(path: &Path) -> Result<Metadata> {
    let found = look(path)
        .map_err(|source| Error::io(format!("can't look at {}", path.display()), source))?;
    Ok(found.meta)
}

/// The holes of the first `size` bytes of an open file: offset and length, sorted, not touching.
pub(crate) fn holes(file: impl AsFd, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut holes = Vec::new();
    let mut position = 0;
    while position < size {
        let data = match rustix::fs::seek(&file, SeekFrom::Data(position)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => size,
            // A file system that can't tell has no holes.
            Err(Errno::INVAL) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        };
        if data > position {
            holes.push((position, data - position));
        }
        if data == size {
            break;
        }
        position = match rustix::fs::seek(&file, SeekFrom::Hole(data)) {
            Ok(hole) => hole.min(size),
            Err(Errno::NXIO) => size,
            Err(errno) => return Err(errno.into()),
        };
    }
    Ok(holes)
}

fn nanos(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

fn entry_type(path: &Path, seen: &fs::Metadata) -> io::Result<EntryType> {
    let kind = seen.file_type();
    Ok(if kind.is_file() {
        EntryType::File
    } else if kind.is_dir() {
        EntryType::Dir
    } else if kind.is_symlink() {
        EntryType::Symlink { target: ids::encode(fs::read_link(path)?.as_os_str().as_bytes()) }
    } else if kind.is_socket() {
        EntryType::Socket
    } else if kind.is_fifo() {
        EntryType::Fifo
    } else {
        EntryType::Device
    })
}

fn xattrs(path: &Path) -> io::Result<Vec<(String, String)>> {
    let list =
        sized(|| rustix::fs::llistxattr_query(path), |buffer| rustix::fs::llistxattr(path, buffer));
    let list = match list {
        Ok(list) => list,
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    };
    let mut attributes = Vec::new();
    for name in list.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let value = sized(
            || rustix::fs::lgetxattr_query(path, name),
            |buffer| rustix::fs::lgetxattr(path, name, buffer),
        );
        match value {
            Ok(value) => attributes.push((ids::encode(name), hex::encode(value))),
            // Gone between the list and the look.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    attributes.sort();
    Ok(attributes)
}

/// Reads a value whose size has to be asked for first.
fn sized(
    size: impl Fn() -> rustix::io::Result<usize>,
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    for _ in 0..XATTR_ATTEMPTS_MAX {
        let mut value = vec![0; size()?];
        if value.is_empty() {
            return Ok(value);
        }
        match read(&mut value) {
            Ok(length) => {
                value.truncate(length);
                return Ok(value);
            }
            Err(Errno::RANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::RANGE)
}
