//! Opens a RocksDB read-only, which writes nothing, and reads all of it.

use std::path::Path;

use rust_rocksdb::{DB, DBRawIterator, ErrorKind, Options, ReadOptions};

use super::FileName;
use super::version::Version;
use crate::engine::{Checked, Depth};
use crate::error::{Error, Result};
use crate::rooted::RootedPath;

/// Tables held open at once.
const FILES_OPEN_MAX: i32 = 256;

/// An open replays the logs into memory, 166 MB for 138 MB of them; larger ones only where the full
/// check was asked for.
const LOG_BYTES_MAX: u64 = 128 << 20;

/// How far an iterator reads ahead.
const READ_AHEAD_BYTES: usize = 2 << 20;

/// The comparators that every RocksDB has.
const BYTEWISE: &str = "leveldb.BytewiseComparator";
const REVERSE: &str = "rocksdb.ReverseBytewiseComparator";

pub(super) fn check(
    db: &RootedPath,
    name: &str,
    version: &Version,
    depth: Depth,
) -> Result<Checked> {
    let comparator = |family: &super::version::Family| family.comparator.clone();
    let foreign = version
        .families
        .values()
        .find(|family| comparator(family).is_some_and(|name| name != BYTEWISE && name != REVERSE));
    if let Some(family) = foreign {
        let comparator = comparator(family).unwrap_or_default();
        return Ok(unchecked(
            name,
            format!(
                "{name}: column family {} is ordered by {comparator}, which only the node knows: its \
             files were compared with the MANIFEST, not opened",
                family.name
            ),
        ));
    }
    if depth == Depth::Open && log_bytes(db)? > LOG_BYTES_MAX {
        return Ok(unchecked(
            name,
            format!(
                "{name}: its logs are large: its files were compared with the MANIFEST, not opened"
            ),
        ));
    }
    // RocksDB takes a path, and opens its files one by one: by the hold of their directory.
    let held = db.enter().map_err(|errno| crate::durable::met(db, "open", errno))?;
    let opened = open(&held.held_path(), version).map_err(|source| damaged(name, source))?;
    if depth == Depth::Full {
        for family in version.families.values() {
            rows(&opened, &family.name).map_err(|source| damaged(name, source))?;
        }
    }
    Ok(Checked::default())
}

/// Opens all column families.
pub(super) fn open(db: &Path, version: &Version) -> Result<DB, rust_rocksdb::Error> {
    let families = version.families.values().map(|family| {
        let reverse = family.comparator.as_deref() == Some(REVERSE);
        (family.name.clone(), options(reverse))
    });
    DB::open_cf_with_opts_for_read_only(&options(false), db, families, false)
}

fn options(reverse: bool) -> Options {
    let mut options = Options::default();
    options.set_max_open_files(FILES_OPEN_MAX);
    options.set_skip_stats_update_on_db_open(true);
    // Without any merge operator the replay of a log would end, silently, at the first merge. What
    // this one makes of the node's values is read by nobody.
    options.set_merge_operator_associative("stand-in", |_, _, _| Some(Vec::new()));
    if reverse {
        options.set_comparator(REVERSE, Box::new(|a, b| b.cmp(a)));
    }
    options
}

/// Reads all rows of a column family, checksums compared, and counts them.
pub(super) fn rows(db: &DB, family: &str) -> Result<u64, rust_rocksdb::Error> {
    let Some(handle) = db.cf_handle(family) else { return Ok(0) };
    let mut read = ReadOptions::default();
    read.set_verify_checksums(true);
    read.fill_cache(false);
    read.set_readahead_size(READ_AHEAD_BYTES);
    let mut rows: DBRawIterator<'_> = db.raw_iterator_cf_opt(&handle, read);
    let mut count = 0;
    rows.seek_to_first();
    while rows.valid() {
        count += 1;
        rows.next();
    }
    rows.status().map(|()| count)
}

fn log_bytes(db: &RootedPath) -> Result<u64> {
    let mut bytes = 0;
    for (name, path) in super::regular_files(db)? {
        if matches!(FileName::of(&name), Some(FileName::Log(_))) {
            bytes += crate::engine::metadata::stamp(&path)?.size;
        }
    }
    Ok(bytes)
}

fn unchecked(name: &str, warning: String) -> Checked {
    Checked { warnings: vec![warning], unchecked: vec![name.to_owned()] }
}

fn damaged(name: &str, source: rust_rocksdb::Error) -> Error {
    let error = match source.kind() {
        ErrorKind::IOError | ErrorKind::Busy | ErrorKind::TryAgain | ErrorKind::TimedOut => {
            Error::unavailable(format!("{name} can't be opened: {source}"))
        }
        _ => Error::corrupt(format!("{name} is damaged: {source}")),
    };
    error.with_entry(name).with_source(source)
}
