//! Rows that are put into a RocksDB which nobody has open, as what a crash would have left in its logs: one more
//! log, and no other file than that.
//!
//! RocksDB goes on from one log to the next where the sequence numbers do, and gives up, or passes over what
//! follows, where they don't (`db/db_impl/db_impl_open.cc`, `RecoverLogFiles`). So the new log has the number
//! right behind all that was written, and what a crash left half-written before it is cut off. It has the records
//! that every release reads (`db/log_format.h`).

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use rustix::fs::Mode;

use super::records::{BLOCK_BYTES, HEADER_BYTES, mask};
use super::rows::gather::SEQUENCE_MAX;
use super::rows::log::{Uneven, replay};
use super::rows::{Dir, Files, default_family, version_of};
use super::version::Version;
use super::{FileName, LOCK, newest_options, option};
use crate::durable;
use crate::engine::lock;
use crate::error::{Error, Result};
use crate::rooted::RootedPath;

/// The types of a record that is whole, and of the parts of one that is not.
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// The type of a write that puts a value.
const PUT: u8 = 1;
/// Beside the log that is cut, until it has the other one's place.
const CUT: &str = ".cut";

/// Options under which RocksDB compares its logs with what it has noted of them: one more would be a stranger.
const WATCHED_LOGS: [&str; 2] = ["track_and_verify_wals_in_manifest", "track_and_verify_wals"];

/// Puts rows into the default column family of the database in `dir`, which nobody has open: all of them, or
/// none if this is interrupted. Durable when it returns. Every release of RocksDB that can open the database
/// before can open it afterwards.
///
/// # Errors
/// Conflict where somebody has it open; input where its options or its logs forbid it; corrupt where a file is
/// damaged.
pub fn append(dir: &Path, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
    if puts.is_empty() {
        return Ok(());
    }
    let home = RootedPath::open(dir)?;
    if lock::is_held_by_others(&home, LOCK)? {
        return Err(Error::conflict("another process has the database open")
            .with_entry("LOCK")
            .with_remedy("stop it"));
    }
    let mut files = Dir::open(&home)?;
    let current = files.current()?;
    let version = version_of(&mut files, &current)?;
    refuse(&home, &version)?;
    let replayed = replay(&mut files, &version, &mut |_, _| Ok(()))?;
    let sequence = version.sequence.max(replayed.sequence) + 1;
    let batch = batch(sequence, puts)?;
    let number = next_number(&files, &version)?;
    if let Some(uneven) = replayed.uneven {
        cut(&home, &uneven)?;
    }
    let model = home.join(&version.manifest);
    let place = home.join(format!("{number:06}.log"));
    let mut file = create(&place, &model)?;
    file.write_all(&log_of(&batch))
        .and_then(|()| file.sync_all())
        .map_err(|error| durable::met(&place, "write", error))?;
    durable::sync_dir(&home)
}

/// Refuses a database that would not take the log for its own.
fn refuse(home: &RootedPath, version: &Version) -> Result<()> {
    default_family(version)?;
    let options = newest_options(home)?;
    let is_set = |name: &&str| option(options.as_deref(), name) == Some("true");
    if version.tells_logs || WATCHED_LOGS.iter().any(is_set) {
        return Err(Error::input(
            "the database notes which logs it has: one that was added would not be its own",
        )
        .with_entry(version.manifest.clone()));
    }
    Ok(())
}

/// A number that no file of the database has, or had.
fn next_number(files: &Dir, version: &Version) -> Result<u64> {
    let number = |name: &String| match FileName::of(name.as_ref())? {
        FileName::Table(number) | FileName::Blob(number) | FileName::Log(number) => Some(number),
        FileName::Manifest | FileName::Options | FileName::Temporary => {
            let digits = name.split(['-', '.']).find(|part| part.parse::<u64>().is_ok());
            digits.and_then(|digits| digits.parse().ok())
        }
        _ => None,
    };
    let highest = files.sizes().keys().filter_map(number).max().unwrap_or_default();
    let tables = version.tables().last_key_value().map_or(0, |(&number, _)| number);
    let families = version.families.values().map(|family| family.log).max().unwrap_or_default();
    let used = [highest, tables, families, version.log_min, version.next_file.saturating_sub(1)];
    let next = used.into_iter().max().and_then(|used| used.checked_add(1));
    // RocksDB keeps the two highest bits for something else.
    next.filter(|next| *next < 1 << 62).ok_or_else(|| {
        Error::corrupt("no number is left for a file of the database")
            .with_entry(version.manifest.clone())
    })
}

/// All puts as one batch, with the sequence number of the first.
fn batch(sequence: u64, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<u8>> {
    let count = u32::try_from(puts.len()).ok();
    let fits = |text: &[u8]| u32::try_from(text.len()).is_ok();
    let fit = puts.iter().all(|(key, value)| fits(key) && fits(value));
    let Some(count) = count.filter(|_| fit) else {
        return Err(Error::input("so many rows are more than a batch of RocksDB's takes"));
    };
    if sequence > SEQUENCE_MAX - u64::from(count) {
        return Err(Error::corrupt("no sequence number is left in the database"));
    }
    let mut batch = sequence.to_le_bytes().to_vec();
    batch.extend_from_slice(&count.to_le_bytes());
    for (key, value) in puts {
        batch.push(PUT);
        for text in [key, value] {
            push_varint(&mut batch, text.len() as u64);
            batch.extend_from_slice(text);
        }
    }
    Ok(batch)
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// A log of one record: no fragment of it crosses the border of a block.
fn log_of(record: &[u8]) -> Vec<u8> {
    let mut log = Vec::with_capacity(record.len() + record.len() / 1024 + HEADER_BYTES);
    let mut rest = record.chunks(BLOCK_BYTES - HEADER_BYTES).peekable();
    let mut begun = false;
    while let Some(fragment) = rest.next() {
        let kind = match (begun, rest.peek().is_none()) {
            (false, true) => FULL,
            (false, false) => FIRST,
            (true, false) => MIDDLE,
            (true, true) => LAST,
        };
        let checksum = mask(crc32c::crc32c_append(crc32c::crc32c(&[kind]), fragment));
        log.extend_from_slice(&checksum.to_le_bytes());
        log.extend_from_slice(&(fragment.len() as u16).to_le_bytes());
        log.push(kind);
        log.extend_from_slice(fragment);
        begun = true;
    }
    log
}

/// Leaves of a log what counts. Nothing that exists is written: a copy takes its place, so that another name of
/// the file keeps all of it.
fn cut(home: &RootedPath, uneven: &Uneven) -> Result<()> {
    let place = home.join(&uneven.name);
    let copy = place.with_suffix(CUT);
    durable::remove_file(&copy)?;
    let failed = |error: std::io::Error| durable::met(&place, "cut", error);
    let mut whole = std::io::Read::take(place.open_file().map_err(failed)?, uneven.whole);
    let mut file = create(&copy, &place)?;
    let copied = std::io::copy(&mut whole, &mut file).map_err(failed)?;
    if copied != uneven.whole {
        return Err(Error::conflict(format!("{} changed while it was read", uneven.name))
            .with_entry(uneven.name.clone())
            .with_remedy("look who has the database open"));
    }
    file.sync_all().map_err(failed)?;
    durable::replace(&copy, &place)
}

/// Makes a file with the owner and the mode of another one.
fn create(place: &RootedPath, model: &RootedPath) -> Result<File> {
    let found = durable::stat(model)?
        .ok_or_else(|| Error::not_found(format!("{model} is no longer there")))?;
    let owner = model.owner()?;
    let file = place.create_new().map_err(|error| durable::met(place, "make", error))?;
    let mode = Mode::from_raw_mode(u32::from(found.stx_mode) & 0o777);
    owner
        .take(&file)
        .and_then(|()| rustix::fs::fchmod(&file, mode))
        .map_err(|error| durable::met(place, "give away", error))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
