//! What fuzzers call: the files of databases, which are as their engines wrote them, or as somebody
//! else did.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{MemfdFlags, memfd_create};

use super::rocksdb::version::{Version, manifest_name, parse};
#[cfg(feature = "sqlite")]
use super::sqlite::fuzzing::{restored, told};
use super::standard::recognise;

pub(crate) use super::pages::fuzzing::pages;
pub(crate) use super::rocksdb::rows::fuzzing::rows;
pub(crate) use super::rocksdb::verify::fuzzing::{blob, block, table};

/// A log of RocksDB is cut into blocks of so many bytes, and each fragment has so long a header.
const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// The first bytes of any file, and a SQLite that was restored.
pub(crate) fn sqlite(bytes: &[u8]) {
    let first = recognise(bytes);
    assert_eq!(first, recognise(&bytes[..bytes.len().min(64)]), "more was looked at than is read");
    #[cfg(feature = "sqlite")]
    {
        told(bytes);
        restored(bytes);
    }
}

/// The bytes are a MANIFEST, and CURRENT, and the records of a MANIFEST, each behind its length.
pub(crate) fn manifest(bytes: &[u8]) {
    let name = manifest_name(bytes);
    assert!(name.is_err() || bytes.len() > "MANIFEST-".len());
    look(parse("MANIFEST-1", bytes).ok().as_ref());

    let records = records(bytes);
    let log = log_of(&records);
    let version = parse("MANIFEST-1", &log).ok();
    look(version.as_ref());
    if version.is_some() {
        let preallocated = [log.as_slice(), &[0; 64]].concat();
        assert_eq!(parse("MANIFEST-1", &preallocated).ok(), version);
    }
    // A crash tears the last record, which then counts as if it had never been begun.
    if let Some((_, before)) = records.split_last()
        && !before.is_empty()
    {
        let torn = parse("MANIFEST-1", &log[..log.len() - 1]).ok();
        assert_eq!(torn, parse("MANIFEST-1", &log_of(before)).ok());
    }
}

fn look(version: Option<&Version>) {
    let Some(version) = version else { return };
    let blobs = version.families.values().map(|family| family.blobs().len()).sum::<usize>();
    assert!(version.blobs().len() <= blobs);
    let tables = version.families.values().map(|family| family.tables.len()).sum::<usize>();
    assert!(version.tables().len() <= tables);
}

/// Each behind its length in two bytes; the last one may be cut.
fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (record, rest) = rest.split_at(length);
        records.push(record);
        bytes = rest;
    }
    records
}

/// A log of these records, as RocksDB writes it: no fragment crosses the border of a block.
pub(super) fn log_of(records: &[&[u8]]) -> Vec<u8> {
    let mut log = Vec::new();
    for record in records {
        let mut rest = *record;
        let mut begun = false;
        loop {
            let mut left = BLOCK_BYTES - log.len() % BLOCK_BYTES;
            if left < HEADER_BYTES {
                log.resize(log.len() + left, 0);
                left = BLOCK_BYTES;
            }
            let (fragment, later) = rest.split_at(rest.len().min(left - HEADER_BYTES));
            let kind = match (begun, later.is_empty()) {
                (false, true) => FULL,
                (false, false) => FIRST,
                (true, false) => MIDDLE,
                (true, true) => LAST,
            };
            let covered = [&[kind], fragment].concat();
            let masked = crc32c::crc32c(&covered).rotate_right(15).wrapping_add(0xa282_ead8);
            log.extend_from_slice(&masked.to_le_bytes());
            log.extend_from_slice(&(fragment.len() as u16).to_le_bytes());
            log.extend_from_slice(&covered);
            (rest, begun) = (later, true);
            if rest.is_empty() {
                break;
            }
        }
    }
    log
}

/// A file in memory.
pub(super) fn file_of(bytes: &[u8]) -> File {
    let file = memfd_create("fuzzing", MemfdFlags::CLOEXEC).expect("there is memory for a file");
    let file = File::from(file);
    file.write_all_at(bytes, 0).expect("a file in memory takes what is written");
    file
}
