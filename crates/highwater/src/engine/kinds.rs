//! What is told of each kind of engine where its database is only files: which belong to it, by which
//! it opens, and how others are kept out of it meanwhile.

use std::ffi::OsStr;

use super::EngineKind;
use crate::ids::RelPath;

/// How an engine keeps others out of a database that it has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// A record lock (`fcntl`) on this file in its directory.
    RecordIn(&'static str),
    /// A record lock on the file beside it that this makes of its name: a whole name, or a suffix.
    RecordBeside(&'static str, &'static str, &'static str),
    /// A lock on the whole main file (`flock`).
    Whole,
    /// The same on this file in its directory.
    WholeIn(&'static str),
    /// SQLite's bytes of the main file, as long as it reads or writes.
    Sqlite,
    /// None that is known.
    None,
}

impl EngineKind {
    /// Whether a database is a directory, not a file.
    pub(super) fn is_directory(self) -> bool {
        use EngineKind::{Badger, Fjall, LevelDb, ParityDb, Pebble, RocksDb, Sled};
        matches!(self, RocksDb | LevelDb | Badger | Pebble | ParityDb | Sled | Fjall)
    }

    /// Whether all that is in the directory is the database's, directories too.
    pub(super) fn is_tree(self) -> bool {
        matches!(self, EngineKind::Sled | EngineKind::Fjall)
    }

    /// Whether its file is of pages, each written again where it stands.
    pub(super) fn is_paged(self) -> bool {
        use EngineKind::{Bbolt, Lmdb, Mdbx, Redb};
        matches!(self, Lmdb | Mdbx | Redb | Bbolt)
    }

    /// How others are kept out of it.
    pub(super) fn lock(self) -> Lock {
        match self {
            EngineKind::RocksDb | EngineKind::LevelDb | EngineKind::Pebble => {
                Lock::RecordIn("LOCK")
            }
            EngineKind::Lmdb => Lock::RecordBeside("data.mdb", "lock.mdb", "-lock"),
            EngineKind::Mdbx => Lock::RecordBeside("mdbx.dat", "mdbx.lck", "-lck"),
            EngineKind::Redb | EngineKind::Bbolt | EngineKind::Badger => Lock::Whole,
            EngineKind::ParityDb | EngineKind::Fjall => Lock::WholeIn("lock"),
            EngineKind::Sled => Lock::WholeIn("db"),
            EngineKind::Sqlite | EngineKind::EncryptedSqlite => Lock::Sqlite,
            EngineKind::BerkeleyDb | EngineKind::Files => Lock::None,
        }
    }

    /// The names in the directory of a database without one of which it does not open.
    pub(super) fn opens_by(self, name: &OsStr) -> bool {
        let starts = |prefix: &[u8]| name.as_encoded_bytes().starts_with(prefix);
        match self {
            EngineKind::RocksDb | EngineKind::LevelDb => name == "CURRENT",
            EngineKind::Badger => name == "MANIFEST",
            EngineKind::Pebble => starts(b"marker.manifest."),
            EngineKind::ParityDb => name == "metadata",
            EngineKind::Sled => name == "db",
            EngineKind::Fjall => name == "version",
            _ => false,
        }
    }

    /// The files among those of a database without which nobody opens it: those of a directory by their
    /// names, else the main file.
    pub(crate) fn entry_points<'a>(
        self,
        root: &'a RelPath,
        entries: impl Iterator<Item = &'a RelPath>,
    ) -> Vec<RelPath> {
        if self == EngineKind::Files {
            return Vec::new();
        }
        if !self.is_directory() {
            return vec![root.clone()];
        }
        let opens =
            |path: &&RelPath| path.parent().as_ref() == Some(root) && self.opens_by(path.name());
        entries.filter(opens).cloned().collect()
    }
}
