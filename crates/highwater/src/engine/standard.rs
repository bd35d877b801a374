//! The engines that are built in: RocksDB and SQLite, which have code of their own, and those of which
//! enough is known to capture them as files.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::sync::{Arc, LazyLock};

use super::engines::still::{self, Still};
use super::engines::{Database, Engine, Extent, unchecked};
use super::found::{FoundDir, FoundFile, Head, SQLITE_SIBLINGS, ends};
use super::lock::Lock;
use super::pages;
use super::rocksdb::{FileName, RocksDb, has_role, has_version, is_info_log};
use super::sqlite::Sqlite;
use super::{Checked, Depth, EngineKind, Opens, Units};
use crate::env::Env;
use crate::error::Result;
use crate::ids::RelPath;

const REDB_MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";
const BADGER_MAGIC: &[u8] = b"Bdgr";
const LMDB_MAGIC: u32 = 0xBEEF_C0DE;
const BBOLT_MAGIC: u32 = 0xED0C_DAED;
const BBOLT_VERSION: u32 = 2;

/// The number in a libmdbx's first page, without the version in its lowest byte.
const MDBX_MAGIC: u64 = 0x59_659D_BDEF_4C11;
/// The numbers of Berkeley DB's B-trees, hashes, queues and logs, in the byte order of the machine that
/// wrote them.
const BERKELEY_MAGICS: [u32; 4] = [0x0005_3162, 0x0006_1561, 0x0004_2253, 0x0004_0988];

/// The least of a file by which noise is told from anything else, and how many different bytes are in
/// so much of it: of noise some 251 of 256, of anything that people or programs write far fewer.
const PAGE_BYTES_MIN: u64 = 1024;
const NOISE_VALUES_MIN: usize = 235;

/// The page size by which page files are compared; theirs is this one or a multiple of it.
const UNIT_BYTES: u32 = 4096;

/// All of them, in the order in which they are asked: the one that looks most like another one first.
pub(super) fn built_in() -> &'static [Arc<dyn Engine>] {
    static BUILT_IN: LazyLock<Vec<Arc<dyn Engine>>> = LazyLock::new(|| {
        let mut engines: Vec<Arc<dyn Engine>> = vec![
            // Older ones look like RocksDB's.
            Arc::new(PEBBLE),
            Arc::new(RocksDb),
            Arc::new(Sqlite),
        ];
        for engine in [
            LEVELDB,
            PARITYDB,
            SLED,
            FJALL,
            BADGER,
            REDB,
            LMDB,
            BBOLT,
            MDBX,
            BERKELEYDB,
            ENCRYPTED_SQLITE,
        ] {
            engines.push(Arc::new(engine));
        }
        engines
    });
    BUILT_IN.as_slice()
}

/// An engine that is captured as files: all that is known of it.
struct AsFiles {
    kind: EngineKind,
    extent: Extent,
    lock: Lock,
    known: Known,
    owns: fn(&OsStr) -> bool,
    /// What belongs to a database beside its main file, made by these suffixes.
    beside: &'static [&'static str],
    /// Its file is of pages, each written again where it stands; their check.
    pages: Option<fn(&File, Depth) -> pages::Result<pages::Seen>>,
    is_info_log: fn(&OsStr) -> bool,
    /// Files that whoever opens the database makes anew.
    is_made_anew: fn(&OsStr) -> bool,
    /// Files that may be written through memory, by their names.
    recovers: fn(&OsStr) -> bool,
}

/// By what a database is known.
#[derive(Clone, Copy)]
enum Known {
    Directory(fn(&FoundDir<'_>) -> Result<bool>),
    Head(fn(&[u8]) -> bool),
    File(fn(&FoundFile<'_>) -> Result<bool>),
}

/// What is so of most of them.
const PLAIN: AsFiles = AsFiles {
    kind: EngineKind::FILES,
    extent: Extent::Files,
    lock: Lock::None,
    known: Known::Head(|_| false),
    owns: |_| true,
    beside: &[],
    pages: None,
    is_info_log: |_| false,
    is_made_anew: |_| false,
    recovers: |_| false,
};

const LEVELDB: AsFiles = AsFiles {
    kind: EngineKind::LEVELDB,
    extent: Extent::Directory,
    lock: Lock::RecordIn("LOCK"),
    known: Known::Directory(|dir| Ok(has_version(dir))),
    owns: |name| FileName::of(name).is_some(),
    is_info_log,
    ..PLAIN
};

const PEBBLE: AsFiles = AsFiles {
    kind: EngineKind::PEBBLE,
    // The newer ones have no CURRENT; those between name in it a MANIFEST that never is, so that nobody else opens
    // them.
    known: Known::Directory(|dir| {
        let is_so = dir.files().any(is_marker)
            || (dir.has("CURRENT") && dir.begins("CURRENT", b"MANIFEST-000000\n")?);
        Ok(is_so && has_role(dir, FileName::Manifest))
    }),
    owns: |name| FileName::of(name).is_some() || name.as_encoded_bytes().starts_with(b"marker."),
    ..LEVELDB
};

const PARITYDB: AsFiles = AsFiles {
    kind: EngineKind::PARITYDB,
    extent: Extent::Directory,
    lock: Lock::WholeIn("lock"),
    known: Known::Directory(|dir| {
        Ok(dir.has("metadata") && dir.has("lock") && dir.begins("metadata", b"version=")?)
    }),
    owns: |name| {
        let prefixes: [&[u8]; 3] = [b"table_", b"index_", b"log"];
        let begins = |prefix: &&[u8]| name.as_encoded_bytes().starts_with(prefix);
        name == "metadata" || name == "lock" || prefixes.iter().any(begins)
    },
    ..PLAIN
};

const SLED: AsFiles = AsFiles {
    kind: EngineKind::SLED,
    extent: Extent::Tree,
    lock: Lock::WholeIn("db"),
    known: Known::Directory(|dir| {
        Ok(dir.has("conf") && dir.has("db") && dir.begins("conf", b"segment_size:")?)
    }),
    ..PLAIN
};

const FJALL: AsFiles = AsFiles {
    kind: EngineKind::FJALL,
    extent: Extent::Tree,
    lock: Lock::WholeIn("lock"),
    known: Known::Directory(|dir| {
        Ok(dir.has("version") && dir.has_entry("journals") && dir.begins("version", b"FJL")?)
    }),
    ..PLAIN
};

const BADGER: AsFiles = AsFiles {
    kind: EngineKind::BADGER,
    extent: Extent::Directory,
    lock: Lock::Whole,
    known: Known::Directory(|dir| {
        let data = |name: &OsStr| {
            name == "KEYREGISTRY" || ends(name, ".vlog") || ends(name, ".sst") || ends(name, ".mem")
        };
        Ok(dir.has("MANIFEST") && dir.files().any(data) && dir.begins("MANIFEST", BADGER_MAGIC)?)
    }),
    owns: |name| {
        let known = ["MANIFEST", "KEYREGISTRY", "DISCARD", "LOCK"];
        let endings = [".vlog", ".sst", ".mem"];
        known.iter().any(|known| name == *known) || endings.iter().any(|ending| ends(name, ending))
    },
    // Checksummed logs and finished tables.
    recovers: |name| {
        let endings = [".mem", ".vlog", ".sst"];
        name == "DISCARD" || endings.iter().any(|ending| ends(name, ending))
    },
    ..PLAIN
};

const REDB: AsFiles = AsFiles {
    kind: EngineKind::REDB,
    lock: Lock::Whole,
    known: Known::Head(|bytes| bytes.starts_with(REDB_MAGIC)),
    pages: Some(pages::redb),
    ..PLAIN
};

const LMDB: AsFiles = AsFiles {
    kind: EngineKind::LMDB,
    lock: Lock::RecordBeside("data.mdb", "lock.mdb", "-lock"),
    known: Known::Head(|bytes| word(bytes, 16) == Some(LMDB_MAGIC)),
    pages: Some(pages::lmdb),
    // Its readers, of no meaning to whoever comes after a crash.
    recovers: |name| name == "lock.mdb" || ends(name, "-lock"),
    ..PLAIN
};

const BBOLT: AsFiles = AsFiles {
    kind: EngineKind::BBOLT,
    lock: Lock::Whole,
    known: Known::Head(|bytes| {
        word(bytes, 16) == Some(BBOLT_MAGIC) && word(bytes, 20) == Some(BBOLT_VERSION)
    }),
    pages: Some(pages::bbolt),
    ..PLAIN
};

const MDBX: AsFiles = AsFiles {
    kind: EngineKind::MDBX,
    lock: Lock::RecordBeside("mdbx.dat", "mdbx.lck", "-lck"),
    known: Known::Head(|bytes| {
        let double = bytes.get(20..28).and_then(|double| double.try_into().ok());
        double.is_some_and(|double| u64::from_le_bytes(double) >> 8 == MDBX_MAGIC)
    }),
    pages: Some(pages::mdbx),
    recovers: |name| name == "mdbx.lck" || ends(name, "-lck"),
    ..PLAIN
};

const BERKELEYDB: AsFiles = AsFiles {
    kind: EngineKind::BERKELEYDB,
    known: Known::Head(|bytes| {
        word(bytes, 12).is_some_and(|word| {
            BERKELEY_MAGICS.iter().any(|&magic| word == magic || word.swap_bytes() == magic)
        })
    }),
    ..PLAIN
};

/// Asked after all others.
const ENCRYPTED_SQLITE: AsFiles = AsFiles {
    kind: EngineKind::ENCRYPTED_SQLITE,
    lock: Lock::Sqlite,
    known: Known::File(is_encrypted),
    beside: &SQLITE_SIBLINGS,
    // The index of the log.
    is_made_anew: |name| ends(name, "-shm"),
    recovers: |name| ends(name, "-shm"),
    ..PLAIN
};

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    word.try_into().ok().map(u32::from_le_bytes)
}

/// Whether a name is that of one of Pebble's markers.
fn is_marker(name: &OsStr) -> bool {
    let markers: [&[u8]; 2] = [b"marker.manifest.", b"marker.format-version."];
    markers.iter().any(|marker| name.as_encoded_bytes().starts_with(marker))
}

/// Whether a file that nothing is known of looks like a SQLite that is encrypted as a whole: by its name
/// or what lies beside it one of SQLite's, of whole pages, and like noise from its first byte on.
fn is_encrypted(file: &FoundFile<'_>) -> Result<bool> {
    if !file.is_called_sqlite() && !file.has_sqlite_beside()
        || file.size() < PAGE_BYTES_MIN
        || !file.size().is_multiple_of(512)
        || !matches!(file.head()?, Head::Bytes(_))
    {
        return Ok(false);
    }
    let mut page = [0; PAGE_BYTES_MIN as usize];
    let read = file.read(&mut page);
    let distinct: BTreeSet<u8> = page.iter().copied().collect();
    Ok(read && distinct.len() >= NOISE_VALUES_MIN)
}

/// The engine whose main file begins with these bytes.
#[cfg(any(fuzzing, test))]
pub(super) fn recognise(bytes: &[u8]) -> Option<EngineKind> {
    if super::sqlite::is_header(bytes) {
        return Some(EngineKind::SQLITE);
    }
    let known = |engine: &&AsFiles| matches!(engine.known, Known::Head(known) if known(bytes));
    let engine = [&REDB, &LMDB, &BBOLT, &MDBX, &BERKELEYDB].into_iter().find(known);
    engine.map(|engine| engine.kind)
}

impl Engine for AsFiles {
    fn kind(&self) -> EngineKind {
        self.kind
    }

    fn opens(&self) -> Opens {
        self.kind.opens().unwrap_or(Opens::Nothing)
    }

    fn extent(&self) -> Extent {
        self.extent
    }

    fn is_directory(&self, found: &FoundDir<'_>) -> Result<bool> {
        match self.known {
            Known::Directory(known) => known(found),
            Known::Head(_) | Known::File(_) => Ok(false),
        }
    }

    fn is_main_file(&self, found: &FoundFile<'_>) -> Result<bool> {
        match self.known {
            Known::Head(known) => found.begins_as(known),
            Known::File(known) => known(found),
            Known::Directory(_) => Ok(false),
        }
    }

    fn owns(&self, name: &OsStr) -> bool {
        (self.owns)(name)
    }

    fn beside(&self, main: &OsStr) -> Vec<OsString> {
        let with = |suffix: &&str| {
            let mut name = main.to_owned();
            name.push(suffix);
            name
        };
        self.beside.iter().map(with).chain(self.lock.beside(main)).collect()
    }

    fn is_info_log(&self, name: &OsStr) -> bool {
        (self.is_info_log)(name)
    }

    fn lock(&self) -> Lock {
        self.lock
    }

    fn still(&self, database: &Database<'_>) -> Result<Still> {
        let mut still = still::of_all(database)?;
        still.listed.retain(|listed| !(self.is_made_anew)(listed.path.name()));
        Ok(still)
    }

    fn units(&self, _: &Database<'_>, _: &RelPath) -> Units {
        match self.pages {
            Some(_) => Units::Pages { bytes: UNIT_BYTES },
            None => Units::Slices,
        }
    }

    fn recovers(&self, path: &RelPath) -> bool {
        (self.recovers)(path.name())
    }

    fn check(&self, database: &Database<'_>, depth: Depth, _: &Env) -> Result<Checked> {
        match self.pages {
            Some(check) => pages::check_file(&database.place(), check, database.name(), depth),
            None => Ok(unchecked(database.name(), depth)),
        }
    }
}
