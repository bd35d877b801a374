//! The current rows of a RocksDB whose keys begin as asked, read from its files alone: from the tables that
//! its MANIFEST names, and from the logs behind them. RocksDB itself takes no part, so that what somebody else
//! wrote is parsed by nothing but this, and every build can do it.
//!
//! A row is whichever entry of its key has the highest sequence number, unless that is a deletion, or lies in a
//! range that a later one deletes. What only the node can make a value of (a merge, a blob beside the table)
//! is refused, and so is a log of transactions in two phases.

use std::collections::BTreeMap;
use std::path::Path;

use super::FileName;
use super::verify::VerifyFault;
use super::version::{self, Family, Version};
use crate::engine::PartCapture;
use crate::error::{Error, Kind, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

mod files;
#[cfg(any(fuzzing, test))]
pub(in crate::engine) mod fuzzing;
pub(super) mod gather;
pub(super) mod log;
mod table;
#[cfg(test)]
mod tests;

use files::Captured;
pub(super) use files::{Dir, Files};
use gather::{Gather, Prefixes};
use log::Write;

/// Keys and their values.
pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// How much memory the requested rows take at most.
const ROWS_BYTES_MAX: u64 = 256 << 20;

/// The order in which the keys of a database have to be.
pub(super) const BYTEWISE: &str = "leveldb.BytewiseComparator";
/// The column family that every database has.
pub(super) const DEFAULT_FAMILY: u32 = 0;

/// The rows of the default column family of the database in `dir` whose keys begin with one of `prefixes`.
/// Nobody may have it open.
///
/// # Errors
/// Corrupt where a file is damaged; input where rows are written in a way that is not read here, or take more
/// than 256 MiB; not found where a file is missing.
pub fn rows(dir: &Path, prefixes: &[&[u8]]) -> Result<Rows> {
    let mut dir = Dir::open(&RootedPath::open(dir)?)?;
    let current = dir.current()?;
    read(&mut dir, &current, prefixes, &mut { ROWS_BYTES_MAX })
}

/// [`rows`] of a database whose `CURRENT` is withheld, and waits at `current`.
///
/// # Errors
/// As [`rows`].
pub fn rows_withheld(dir: &Path, current: &Path, prefixes: &[&[u8]]) -> Result<Rows> {
    let mut dir = Dir::open(&RootedPath::open(dir)?)?;
    let current = files::small(&RootedPath::of(current)?)?;
    read(&mut dir, &current, prefixes, &mut { ROWS_BYTES_MAX })
}

/// [`rows`] of a captured part, as they were at its barrier. `root` is the directory of the database in the
/// node directory. They may take `room` bytes of memory, which becomes what is left of it.
pub(crate) fn captured(
    part: &mut dyn PartCapture,
    root: &RelPath,
    prefixes: &[&[u8]],
    room: &mut u64,
) -> Result<Rows> {
    let mut files = Captured::of(part, root);
    let current = files.current()?;
    read(&mut files, &current, prefixes, room)
}

fn read(files: &mut dyn Files, current: &[u8], prefixes: &[&[u8]], room: &mut u64) -> Result<Rows> {
    let prefixes = Prefixes::of(prefixes);
    let mut gather = Gather::new(&prefixes, room);
    let version = version_of(files, current)?;
    let family = default_family(&version)?;
    for (&number, table) in &family.tables {
        let (first, last) = (user_key(&table.bounds.smallest), user_key(&table.bounds.largest));
        if !prefixes.touch(first, last) {
            continue;
        }
        let name = files.table(number).filter(|_| table.path_id == 0).ok_or_else(|| {
            Error::not_found(format!("{number:06}.sst is missing, which the MANIFEST names"))
                .with_entry(files.entry(&format!("{number:06}.sst")))
        })?;
        let (file, size) = files.open(&name)?;
        table::read(&file, size, table, &mut gather)
            .map_err(|fault| error_of(fault, &files.entry(&name)))?;
    }
    log::replay(files, &version, &mut |log, write| {
        if log < family.log || write.family != DEFAULT_FAMILY {
            return Ok(());
        }
        take(&mut gather, write)
    })?;
    gather.finish().map_err(|fault| error_of(fault, &files.entry(&version.manifest)))
}

fn take(gather: &mut Gather<'_>, write: Write<'_>) -> std::result::Result<(), VerifyFault> {
    match write.what {
        log::What::Point { key, entry } => gather.point(key, write.sequence, entry),
        log::What::Range { start, end } => gather.range(start, end, write.sequence, None),
    }
}

/// The version that the content of CURRENT leads to.
pub(super) fn version_of(files: &mut dyn Files, current: &[u8]) -> Result<Version> {
    let manifest = version::manifest_name(current)?;
    let (file, size) = files.open(&manifest)?;
    version::readable(&manifest, size)?;
    let bytes = files::bytes(&file, size)
        .map_err(|error| Error::io("can't read it", error).with_entry(files.entry(&manifest)))?;
    version::parse(&manifest, &bytes)
}

/// The default column family, where its keys are ordered by their bytes.
pub(super) fn default_family(version: &Version) -> Result<&Family> {
    let damaged = || Error::corrupt("it has no default column family");
    let family = version.families.get(&DEFAULT_FAMILY).ok_or_else(damaged)?;
    match family.comparator.as_deref() {
        None | Some(BYTEWISE) => Ok(family),
        Some(other) => Err(Error::input(format!(
            "the rows of the database are ordered by {other}, which only the node knows"
        ))
        .with_entry(version.manifest.clone())),
    }
}

/// A key as its node knows it, without the eight bytes of sequence number and type.
fn user_key(key: &[u8]) -> &[u8] {
    key.split_last_chunk::<8>().map_or(&[], |(key, _)| key)
}

pub(super) fn error_of(fault: VerifyFault, entry: &str) -> Error {
    let error = match fault {
        VerifyFault::Damaged(what) => {
            Error::new(Kind::Corrupt, format!("{entry} is damaged: {what}"))
        }
        VerifyFault::Unknown(why) => {
            Error::input(format!("{entry} can't be read row by row, {why}"))
        }
        VerifyFault::Io(source) => Error::io("can't read it", source),
    };
    error.with_entry(entry)
}

/// The files of a database by their roles.
impl dyn Files + '_ {
    /// The name of a table; older releases call it `.ldb`.
    fn table(&self, number: u64) -> Option<String> {
        let names = [format!("{number:06}.sst"), format!("{number:06}.ldb")];
        names.into_iter().find(|name| self.sizes().contains_key(name))
    }

    /// The logs, by their numbers.
    pub(super) fn logs(&self) -> BTreeMap<u64, String> {
        let log = |name: &String| match FileName::of(name.as_ref()) {
            Some(FileName::Log(number)) => Some((number, name.clone())),
            _ => None,
        };
        self.sizes().keys().filter_map(log).collect()
    }
}
