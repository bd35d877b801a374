//! The name of what keeps a part's data, and by which files a database of it opens.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::ids::RelPath;

/// What keeps a part's data: the name of its engine, or [`EngineKind::FILES`].
///
/// The set is open: an engine that is not built in has a name of its own, and a snapshot keeps names that
/// this build doesn't know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineKind {
    /// The name, and zeros behind it.
    name: [u8; EngineKind::NAME_BYTES_MAX],
}

/// By which of its files a database opens: without one of them nobody opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opens {
    /// The database is this one file, whatever it is called.
    MainFile,
    /// Files of this name in the directory of the database.
    Name(&'static str),
    /// Files whose names begin so in the directory of the database.
    Prefix(&'static str),
    /// None that is known: plain files.
    Nothing,
}

impl EngineKind {
    /// RocksDB.
    pub const ROCKSDB: EngineKind = EngineKind::known("rocksdb");
    /// SQLite 3.
    pub const SQLITE: EngineKind = EngineKind::known("sqlite");
    /// LevelDB, captured as files under its lock.
    pub const LEVELDB: EngineKind = EngineKind::known("leveldb");
    /// LMDB, captured as files while nobody has it open.
    pub const LMDB: EngineKind = EngineKind::known("lmdb");
    /// redb, captured as files under its lock.
    pub const REDB: EngineKind = EngineKind::known("redb");
    /// bbolt, captured as files under its lock.
    pub const BBOLT: EngineKind = EngineKind::known("bbolt");
    /// Badger, captured as files under its lock.
    pub const BADGER: EngineKind = EngineKind::known("badger");
    /// Pebble, captured as files under its lock.
    pub const PEBBLE: EngineKind = EngineKind::known("pebble");
    /// libmdbx, captured as files under its lock.
    pub const MDBX: EngineKind = EngineKind::known("mdbx");
    /// ParityDB, captured as files under its lock.
    pub const PARITYDB: EngineKind = EngineKind::known("paritydb");
    /// Berkeley DB, captured as files while nobody has it open.
    pub const BERKELEYDB: EngineKind = EngineKind::known("berkeleydb");
    /// sled, captured as files under its lock.
    pub const SLED: EngineKind = EngineKind::known("sled");
    /// fjall, captured as files under its lock.
    pub const FJALL: EngineKind = EngineKind::known("fjall");
    /// What looks like an encrypted SQLite (SQLCipher and others), captured as files while nobody has it
    /// open.
    pub const ENCRYPTED_SQLITE: EngineKind = EngineKind::known("encryptedsqlite");
    /// Plain files.
    pub const FILES: EngineKind = EngineKind::known("files");

    /// The longest name, in bytes.
    pub const NAME_BYTES_MAX: usize = 24;

    /// The engine of this name: lower-case letters, digits and hyphens, a letter first.
    ///
    /// # Errors
    /// Input where that is no such name, or one of more than [`EngineKind::NAME_BYTES_MAX`] bytes.
    pub fn new(name: &str) -> Result<EngineKind> {
        let fits = (1..=EngineKind::NAME_BYTES_MAX).contains(&name.len())
            && name.as_bytes()[0].is_ascii_lowercase()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if fits {
            return Ok(EngineKind::known(name));
        }
        Err(Error::input(format!("`{}` is no name of an engine", name.escape_debug())).with_remedy(format!(
            "a name has lower-case letters, digits and hyphens, a letter first, and at most {} of them",
            EngineKind::NAME_BYTES_MAX
        )))
    }

    /// A name that fits, as a constant.
    const fn known(text: &str) -> EngineKind {
        let text = text.as_bytes();
        let mut name = [0; EngineKind::NAME_BYTES_MAX];
        let mut at = 0;
        while at < text.len() {
            name[at] = text[at];
            at += 1;
        }
        EngineKind { name }
    }

    /// The name, as it stands in manifests.
    pub fn name(&self) -> &str {
        let length = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        std::str::from_utf8(&self.name[..length]).expect("a name is of ASCII letters")
    }

    /// By what a database of this kind opens; `None` where the kind is not built in.
    pub(crate) fn opens(self) -> Option<Opens> {
        Some(match self {
            EngineKind::ROCKSDB | EngineKind::LEVELDB => Opens::Name("CURRENT"),
            EngineKind::BADGER => Opens::Name("MANIFEST"),
            // It looks for its marker by the name alone, whatever that is: what the marker names is withheld.
            EngineKind::PEBBLE => Opens::Prefix("MANIFEST-"),
            EngineKind::PARITYDB => Opens::Name("metadata"),
            EngineKind::SLED => Opens::Name("db"),
            EngineKind::FJALL => Opens::Name("version"),
            EngineKind::SQLITE
            | EngineKind::ENCRYPTED_SQLITE
            | EngineKind::LMDB
            | EngineKind::MDBX
            | EngineKind::REDB
            | EngineKind::BBOLT
            | EngineKind::BERKELEYDB => Opens::MainFile,
            EngineKind::FILES => Opens::Nothing,
            _ => return None,
        })
    }
}

impl Opens {
    /// Whether a file of this name in the directory of a database is one by which it opens.
    pub(crate) fn by(self, name: &OsStr) -> bool {
        match self {
            Opens::Name(known) => name == known,
            Opens::Prefix(prefix) => name.as_encoded_bytes().starts_with(prefix.as_bytes()),
            Opens::MainFile | Opens::Nothing => false,
        }
    }

    /// The entry points among the files of a database: those without which nobody opens it.
    pub fn entry_points<'a>(
        self,
        root: &'a RelPath,
        entries: impl Iterator<Item = &'a RelPath>,
    ) -> Vec<RelPath> {
        match self {
            Opens::Nothing => Vec::new(),
            Opens::MainFile => vec![root.clone()],
            Opens::Name(_) | Opens::Prefix(_) => {
                let opens =
                    |path: &&RelPath| path.parent().as_ref() == Some(root) && self.by(path.name());
                entries.filter(opens).cloned().collect()
            }
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EngineKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<EngineKind> {
        EngineKind::new(name)
    }
}

impl Serialize for EngineKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for EngineKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EngineKind, D::Error> {
        let name = String::deserialize(deserializer)?;
        EngineKind::new(&name).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_and_what_is_none_is_refused() {
        for name in ["rocksdb", "a", "toy-log-2", "abcdefghijklmnopqrstuvwx"] {
            let kind = EngineKind::new(name).unwrap();
            assert_eq!(kind.name(), name);
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<EngineKind>(&json).unwrap(), kind);
        }
        for name in ["", "RocksDB", "2log", "-log", "a b", "é", "a\0", "abcdefghijklmnopqrstuvwxy"]
        {
            assert_eq!(EngineKind::new(name).unwrap_err().kind(), crate::Kind::Input, "{name}");
            let json = serde_json::to_string(name).unwrap();
            assert!(serde_json::from_str::<EngineKind>(&json).is_err(), "{name}");
        }
        assert_eq!(EngineKind::new("sqlite").unwrap(), EngineKind::SQLITE);
    }
}
