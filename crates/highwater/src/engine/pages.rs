//! The structure of page-file databases that were restored: LMDB, libmdbx, bbolt and redb.
//!
//! Each check reads a file that is at rest, never writes to it and never maps it. What a file says of
//! itself is not trusted: no number in it makes the check overflow, reserve memory or walk without a
//! bound, and no page is walked twice.

use std::fmt;

use super::Checked;
pub(super) use super::Depth;
use crate::error::Error;
use crate::rooted::RootedPath;

mod bbolt;
mod bits;
mod bytes;
#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod lmdb;
mod mdb;
mod mdbx;
mod redb;
mod source;
#[cfg(test)]
pub(super) mod testing;

/// Why a database is not one that its engine can be given, or could not be checked.
#[derive(Debug)]
pub(super) enum PageFault {
    /// It is not what its engine wrote: one plain sentence.
    Damaged(String),
    /// It is of a version, or has a feature, that is not known here. It was not checked.
    Unknown(String),
    /// It could not be read.
    Io(std::io::Error),
}

impl From<std::io::Error> for PageFault {
    fn from(source: std::io::Error) -> PageFault {
        PageFault::Io(source)
    }
}

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PageFault::Damaged(what) | PageFault::Unknown(what) => f.write_str(what),
            PageFault::Io(source) => write!(f, "The file can't be read: {source}."),
        }
    }
}

impl std::error::Error for PageFault {}

/// What a check has seen of a database that it found no fault in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Whole pages in the file; of redb, pages of the smallest size in its regions.
    pub(super) pages: u64,
    /// Pages that were reached, the meta pages included.
    pub(super) reached: u64,
    /// Pages that the database has listed as free; 0 for redb, where they were not counted.
    pub(super) free: u64,
    /// Pages below the last one in use that are neither: they are lost room, and harm nothing. 0 for
    /// redb, where they were not counted.
    pub(super) lost: u64,
    /// What was not looked at, each in one plain sentence.
    pub(super) unlooked: Vec<String>,
}

/// The result of what can find a fault.
pub(super) type Result<T> = std::result::Result<T, PageFault>;

fn damaged<T>(what: impl Into<String>) -> Result<T> {
    Err(PageFault::Damaged(what.into()))
}

fn unknown<T>(what: impl Into<String>) -> Result<T> {
    Err(PageFault::Unknown(what.into()))
}

/// Single buckets and values of a captured bbolt database.
pub mod bolt {
    pub use super::bbolt::{Bolt, Bucket, Item, Value};
}

pub(super) use bbolt::check as bbolt;
pub(super) use lmdb::check as lmdb;
pub(super) use mdbx::check as mdbx;
pub(super) use redb::check as redb;

/// Checks a restored page file, which nobody has open, by the check of its format.
///
/// # Errors
/// Corrupt where its structure is damaged and all of it was to be checked; at less depth that is a warning.
pub(super) fn check_file(
    place: &RootedPath,
    check: fn(&std::fs::File, Depth) -> Result<Seen>,
    name: &str,
    depth: Depth,
) -> crate::Result<Checked> {
    let file = place
        .open_file()
        .map_err(|error| Error::io("can't open it to check it", error).with_entry(name))?;
    let seen = check(&file, depth);
    match seen {
        Ok(seen) => {
            let told = seen.unlooked.into_iter().map(|unlooked| format!("{name}: {unlooked}"));
            let warnings = if depth == Depth::Full { told.collect() } else { Vec::new() };
            Ok(Checked { warnings, unchecked: Vec::new() })
        }
        Err(PageFault::Unknown(why)) => Ok(Checked {
            warnings: vec![format!("{name} was not checked: {why}")],
            unchecked: vec![name.to_owned()],
        }),
        // It was captured so: who restores it has no other, and is told.
        Err(PageFault::Damaged(what)) if depth == Depth::Open => {
            let warning =
                format!("{name} was damaged when it was captured, and is restored so: {what}");
            Ok(Checked { warnings: vec![warning], unchecked: vec![name.to_owned()] })
        }
        Err(PageFault::Damaged(what)) => {
            Err(Error::corrupt(format!("{name} is damaged: {what}")).with_entry(name))
        }
        Err(PageFault::Io(error)) => {
            Err(Error::io("can't read it to check it", error).with_entry(name))
        }
    }
}
