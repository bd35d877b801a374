//! What the file system says of a database, asked by path: nothing here opens a file.

use rustix::fs::Statx;

use crate::durable;
use crate::engine::{Metadata, metadata};
use crate::error::{Error, Result};
use crate::ids::Time;
use crate::rooted::RootedPath;

/// How much older than the clock a time must be to be trusted: a second write in the same tick of
/// the file system's clock leaves no trace.
const TRUSTED_AGE_SECONDS: i64 = 2;

/// The same where the file system's times are finer than a second: the kernel takes them from a clock
/// that ticks every 10 ms at the slowest.
const TICK_NS: i64 = 20_000_000;

/// A file's size, time and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    pub(super) inode: u64,
}

impl Stamp {
    fn new(seen: &Statx) -> Stamp {
        Stamp {
            size: seen.stx_size,
            mtime_ns: nanos(seen.stx_mtime.tv_sec, seen.stx_mtime.tv_nsec.into()),
            inode: seen.stx_ino,
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
    pub(super) fn take(path: &RootedPath) -> Result<Stamps> {
        let main = regular(path)?;
        let wal = durable::stat(&path.with_suffix("-wal"))?
            .map(|seen| Stamp::new(&seen))
            .filter(|stamp| stamp.size > 0);
        Ok(Stamps {
            ctime_ns: nanos(main.stx_ctime.tv_sec, main.stx_ctime.tv_nsec.into()),
            device: metadata::id_of(&main).0,
            main: Stamp::new(&main),
            wal,
        })
    }

    /// Whether all times are old enough that any later write sets another one, where no more is asked
    /// of the file system's clock than what these times show of it: whole seconds, or finer ticks.
    pub(super) fn is_settled(&self, now: Time) -> bool {
        let wal = self.wal.as_ref().map_or(i64::MIN, |wal| wal.mtime_ns);
        let newest = self.main.mtime_ns.max(wal);
        newest <= now.as_nanos().saturating_sub(settled_age(newest))
    }

    /// Whether these are the same files with the same content: their change times also tell of further
    /// names.
    pub(super) fn same_content(&self, other: &Stamps) -> bool {
        Stamps { ctime_ns: other.ctime_ns, ..self.clone() } == *other
    }

    /// Whether all times are old enough that any later write shows.
    pub(super) fn is_trusted(&self, now: Time) -> bool {
        let wal = self.wal.as_ref().map_or(i64::MIN, |wal| wal.mtime_ns);
        let newest = self.main.mtime_ns.max(self.ctime_ns).max(wal);
        newest <= now.as_nanos().saturating_sub(TRUSTED_AGE_SECONDS * 1_000_000_000)
    }
}

fn settled_age(nanos: i64) -> i64 {
    if nanos % 1_000_000_000 == 0 { TRUSTED_AGE_SECONDS * 1_000_000_000 } else { TICK_NS }
}

fn nanos(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// What the file system says of the regular file at `path`.
pub(super) fn regular(path: &RootedPath) -> Result<Statx> {
    let seen = metadata::seen(path).map_err(|error| durable::met(path, "look at", error))?;
    if !durable::is_file(&seen) {
        return Err(Error::conflict(format!("{path} is no regular file any more"))
            .with_entry(path.path().display().to_string()));
    }
    Ok(seen)
}

/// What a snapshot records of the file at `path` besides its content.
pub(super) fn described(path: &RootedPath) -> Result<Metadata> {
    regular(path)?;
    metadata::read(path)
}

/// The same without extended attributes, which take a look through `/proc`.
pub(super) fn bare(path: &RootedPath) -> Result<Metadata> {
    let seen = regular(path)?;
    Ok(Metadata {
        mode: u32::from(seen.stx_mode) & 0o7777,
        uid: seen.stx_uid,
        gid: seen.stx_gid,
        mtime_ns: Stamp::new(&seen).mtime_ns,
        xattrs: Vec::new(),
    })
}
