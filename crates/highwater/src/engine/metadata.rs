//! What the file system says of an entry: type, owner, mode, times, extended attributes, holes.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::{EntryType, Metadata};
use crate::durable;
use crate::error::Result;
use crate::ids;
use crate::rooted::{Owner, RootedPath};

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
    /// How many names it has.
    pub(crate) names: u32,
}

impl Found {
    /// Whether it is a file of somebody else's that has a name elsewhere as well: the owner of a
    /// directory can give any file of its file system a name there, also one that only root may read.
    pub(crate) fn is_borrowed(&self, directory: Owner) -> bool {
        self.kind == EntryType::File && self.names > 1 && self.meta.uid != directory.uid
    }
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
    pub(crate) fn of(seen: &Statx) -> Stamp {
        Stamp {
            id: id_of(seen),
            size: seen.stx_size,
            mtime_ns: nanos(seen.stx_mtime.tv_sec, seen.stx_mtime.tv_nsec.into()),
            ctime_ns: nanos(seen.stx_ctime.tv_sec, seen.stx_ctime.tv_nsec.into()),
        }
    }

    /// Of an open file.
    pub(crate) fn of_file(file: impl AsFd) -> io::Result<Stamp> {
        let seen = rustix::fs::fstat(file)?;
        Ok(Stamp {
            id: (seen.st_dev, seen.st_ino),
            size: u64::try_from(seen.st_size).unwrap_or(0),
            mtime_ns: nanos(seen.st_mtime, i64::try_from(seen.st_mtime_nsec).unwrap_or(0)),
            ctime_ns: nanos(seen.st_ctime, i64::try_from(seen.st_ctime_nsec).unwrap_or(0)),
        })
    }

    /// Whether the content is the same, although links to the file may have come or gone.
    pub(crate) fn same_content(&self, other: &Stamp) -> bool {
        self.id == other.id && self.size == other.size && self.mtime_ns == other.mtime_ns
    }
}

/// Device and inode.
pub(crate) fn id_of(seen: &Statx) -> (u64, u64) {
    (rustix::fs::makedev(seen.stx_dev_major, seen.stx_dev_minor), seen.stx_ino)
}

/// File systems that another machine or program keeps, by what they call themselves (`statfs(2)`): NFS, SMB in three
/// forms, 9P, Ceph, AFS, and all that run as programs of their own.
const KEPT_ELSEWHERE: [u32; 8] =
    [0x6969, 0x517B, 0xFE53_4D42, 0xFF53_4D42, 0x0102_1997, 0x00C3_6400, 0x5346_414F, 0x6573_5546];

/// Whether the directory `place` is on this device, and its file system is kept by this kernel alone.
pub(crate) fn is_local(place: &RootedPath, device: u64) -> bool {
    let held = place.held();
    let here = rustix::fs::fstat(held).is_ok_and(|seen| seen.st_dev == device);
    // Its type has another width on other machines.
    here && rustix::fs::fstatfs(held).is_ok_and(|system| {
        let kind = u32::try_from(i128::from(system.f_type) & 0xFFFF_FFFF).unwrap_or_default();
        !KEPT_ELSEWHERE.contains(&kind)
    })
}

/// Whether nothing can be written in the directory `place`, since its file system is mounted so.
pub(crate) fn is_read_only(place: &RootedPath) -> Result<bool> {
    let system = rustix::fs::fstatvfs(place.held());
    let system =
        system.map_err(|errno| durable::met(place, "look at the file system of", errno))?;
    Ok(system.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// What the file system says of an entry that is there.
pub(crate) fn seen(place: &RootedPath) -> io::Result<Statx> {
    place.stat()?.ok_or_else(|| Errno::NOENT.into())
}

/// Looks at an entry.
pub(crate) fn look(place: &RootedPath) -> io::Result<Found> {
    let seen = seen(place)?;
    let kind = entry_type(place, &seen)?;
    let stamp = Stamp::of(&seen);
    let meta = Metadata {
        mode: u32::from(seen.stx_mode) & 0o7777,
        uid: seen.stx_uid,
        gid: seen.stx_gid,
        mtime_ns: stamp.mtime_ns,
        xattrs: place.by_proc_path(xattrs)?,
    };
    let stored = seen.stx_blocks.saturating_mul(512);
    Ok(Found { kind, meta, stamp, stored, names: seen.stx_nlink })
}

/// Looks at a regular file that is held open, which may have no name any more.
pub(crate) fn look_file(file: &std::fs::File) -> io::Result<Found> {
    let seen = rustix::fs::fstat(file)?;
    let meta = Metadata {
        mode: seen.st_mode & 0o7777,
        uid: seen.st_uid,
        gid: seen.st_gid,
        mtime_ns: Stamp::of_file(file)?.mtime_ns,
        xattrs: attributes(
            &|list| match list {
                None => rustix::fs::flistxattr_query(file),
                Some(list) => rustix::fs::flistxattr(file, list),
            },
            &|name, value| match value {
                None => rustix::fs::fgetxattr_query(file, name),
                Some(value) => rustix::fs::fgetxattr(file, name, value),
            },
        )?,
    };
    let stored = u64::try_from(seen.st_blocks).unwrap_or(0).saturating_mul(512);
    let names = u32::try_from(seen.st_nlink).unwrap_or(u32::MAX);
    Ok(Found { kind: EntryType::File, meta, stamp: Stamp::of_file(file)?, stored, names })
}

/// By what a later look at an entry is compared.
pub(crate) fn stamp(place: &RootedPath) -> Result<Stamp> {
    let seen = seen(place).map_err(|source| durable::met(place, "look at", source))?;
    Ok(Stamp::of(&seen))
}

/// What is known of an entry.
pub(crate) fn look_at(place: &RootedPath) -> Result<Found> {
    look(place).map_err(|source| durable::met(place, "look at", source))
}

/// The metadata of an entry.
pub(crate) fn read(place: &RootedPath) -> Result<Metadata> {
    look_at(place).map(|found| found.meta)
}

fn nanos(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

fn entry_type(place: &RootedPath, seen: &Statx) -> io::Result<EntryType> {
    Ok(match FileType::from_raw_mode(seen.stx_mode.into()) {
        FileType::RegularFile => EntryType::File,
        FileType::Directory => EntryType::Dir,
        FileType::Symlink => EntryType::Symlink { target: ids::encode(&place.read_link()?) },
        FileType::Socket => EntryType::Socket,
        FileType::Fifo => EntryType::Fifo,
        _ => EntryType::Device,
    })
}

pub(super) fn xattrs(path: &Path) -> rustix::io::Result<Vec<(String, String)>> {
    attributes(
        &|list| match list {
            None => rustix::fs::llistxattr_query(path),
            Some(list) => rustix::fs::llistxattr(path, list),
        },
        &|name, value| match value {
            None => rustix::fs::lgetxattr_query(path, name),
            Some(value) => rustix::fs::lgetxattr(path, name, value),
        },
    )
}

/// Reads one attribute by its name, or tells its size.
type ReadAttribute<'a> = &'a dyn Fn(&[u8], Option<&mut [u8]>) -> rustix::io::Result<usize>;

/// Attributes by what lists their names, and what reads one; both tell a size where they get no room.
fn attributes(
    list: &dyn Fn(Option<&mut [u8]>) -> rustix::io::Result<usize>,
    read: ReadAttribute<'_>,
) -> rustix::io::Result<Vec<(String, String)>> {
    let names = match sized(|| list(None), |buffer| list(Some(buffer))) {
        Ok(names) => names,
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let mut attributes = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        match sized(|| read(name, None), |buffer| read(name, Some(buffer))) {
            Ok(value) => attributes.push((ids::encode(name), hex::encode(value))),
            // Gone between the list and the look.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
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
