//! Opens a RocksDB read-only, which writes nothing, and reads all of it.

use std::path::Path;

use rust_rocksdb::{DB, DBRawIterator, ErrorKind, Options, ReadOptions};

use super::FileName;
use super::version::Version;
use crate::engine::{Checked, Depth};
use crate::error::{Error, Result};

/// Tables held open at once.
const FILES_OPEN_MAX: i32 = 256;

/// An open replays the logs into memory; larger ones only where the full check was asked for.
const LOG_BYTES_MAX: u64 = 256 << 20;

/// How far an iterator reads ahead.
const READ_AHEAD_BYTES: usize = 2 << 20;

/// The comparators that every RocksDB has.
const BYTEWISE: &str = "leveldb.BytewiseComparator";
const REVERSE: &str = "rocksdb.ReverseBytewiseComparator";

pub(super) fn check(db: &Path, name: &str, version: &Version, depth: Depth) -> Result<Checked> {
    let comparator = |family: &super::version::Family| family.comparator.clone();
    let foreign = version
        .families
        .values()
        .find(|family| comparator(family).is_some_and(|name| name != BYTEWISE && name != REVERSE));
    if let Some(family) = foreign {
        let comparator = comparator(family).unwrap_or_default();
        return Ok(warned(format!(
            "{name}: column family {} is ordered by {comparator}, which only the node knows: its \
             files were compared with the MANIFEST, not opened",
            family.name
        )));
    }
    if depth == Depth::Open && log_bytes(db)? > LOG_BYTES_MAX {
        return Ok(warned(format!(
            "{name}: its logs are large: its files were compared with the MANIFEST, not opened"
        )));
    }
    let families = version.families.values().map(|family| {
        let reverse = family.comparator.as_deref() == Some(REVERSE);
        (family.name.clone(), options(reverse))
    });
    let opened = DB::open_cf_with_opts_for_read_only(&options(false), db, families, false)
        .map_err(|source| damaged(name, source))?;
    let mut checked = Checked::default();
    if depth == Depth::Full {
        for family in version.families.values() {
            read_all(&opened, name, &family.name, &mut checked)?;
        }
    }
    Ok(checked)
}

fn options(reverse: bool) -> Options {
    let mut options = Options::default();
    options.set_max_open_files(FILES_OPEN_MAX);
    options.set_skip_stats_update_on_db_open(true);
    if reverse {
        options.set_comparator(REVERSE, Box::new(|a, b| b.cmp(a)));
    }
    options
}

fn read_all(db: &DB, name: &str, family: &str, checked: &mut Checked) -> Result<()> {
    let handle = db
        .cf_handle(family)
        .ok_or_else(|| Error::bug(format!("{name}: column family {family} was not opened")))?;
    let mut read = ReadOptions::default();
    read.set_verify_checksums(true);
    read.fill_cache(false);
    read.set_readahead_size(READ_AHEAD_BYTES);
    let mut rows: DBRawIterator<'_> = db.raw_iterator_cf_opt(&handle, read);
    rows.seek_to_first();
    while rows.valid() {
        rows.next();
    }
    match rows.status() {
        Ok(()) => Ok(()),
        // Values that only the node can merge.
        Err(source) if is_merge(&source) => {
            checked.warnings.push(format!(
                "{name}: column family {family} needs a merge operator that only the node knows: \
                 not all of it was read"
            ));
            Ok(())
        }
        Err(source) => Err(damaged(name, source)),
    }
}

fn is_merge(source: &rust_rocksdb::Error) -> bool {
    matches!(source.kind(), ErrorKind::InvalidArgument | ErrorKind::NotSupported)
        && source.to_string().to_lowercase().contains("merge")
}

fn log_bytes(db: &Path) -> Result<u64> {
    let mut bytes = 0;
    for (name, path) in super::regular_files(db)? {
        if FileName::of(&name) == Some(FileName::Log) {
            bytes += crate::engine::metadata::stamp(&path)?.size;
        }
    }
    Ok(bytes)
}

fn warned(warning: String) -> Checked {
    Checked { warnings: vec![warning] }
}

fn damaged(name: &str, source: rust_rocksdb::Error) -> Error {
    let error = match source.kind() {
        ErrorKind::IOError | ErrorKind::Busy | ErrorKind::TryAgain | ErrorKind::TimedOut => {
            Error::unavailable(format!("{name} can't be opened: {source}"))
        }
        _ => Error::corrupt(format!("{name} is damaged: {source}")),
    };
    error.entry(name).source(source)
}
