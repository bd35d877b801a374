//! What fuzzers call: headers, and restored databases with what SQLite left beside them.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use super::check::check_here;
use super::image::{HEADER_BYTES, version};
use super::is_header;
use crate::engine::Depth;
use crate::rooted::RootedPath;

/// A directory for one database at a time.
static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let name = format!("highwater-fuzzing-{}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    fs::create_dir_all(&dir).expect("a directory for what is fuzzed");
    dir
});

/// What is told of a header.
pub(in crate::engine) fn told(bytes: &[u8]) {
    let Some(first) = bytes.first_chunk::<HEADER_BYTES>().filter(|first| is_header(*first)) else {
        return;
    };
    if let Some(version) = version(first) {
        assert!(version.split('.').count() == 3 && version.len() < 16, "{version}");
    }
}

/// The bytes are a database and its write-ahead log, or its journal. The check leaves both as they are.
pub(in crate::engine) fn restored(bytes: &[u8]) {
    let Some((&[journal, low, high], rest)) = bytes.split_first_chunk::<3>() else { return };
    let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
    let (database, log) = rest.split_at(length);
    let place = DIR.join("database");
    let beside = DIR.join(if journal % 2 == 0 { "database-wal" } else { "database-journal" });
    fs::write(&place, database).expect("a database is written");
    if !log.is_empty() {
        fs::write(&beside, log).expect("a log is written");
    }
    let rooted = RootedPath::of(&place).expect("the directory is there");
    // Corrupt for most of what a fuzzer makes.
    drop(check_here(&rooted, Depth::Full));
    assert_eq!(fs::read(&place).expect("a database is read"), database);
    if !log.is_empty() {
        assert_eq!(fs::read(&beside).expect("a log is read"), log);
        fs::remove_file(&beside).expect("a log is removed");
    }
    let left = fs::read_dir(&*DIR).expect("the directory is there").count();
    assert_eq!(left, 1, "the check leaves something behind");
}
