//! A replicated store that comes back with the files of a snapshot, in one exchange.
//!
//! It is hydrated into the work directory of the restore, where it outlives a crash: it remembers that
//! the store on the server is ours. The staged files get a copy; it goes once they are the node's.
//!
//! Whoever fills such stores calls [`refuse_users`], opens a [`Waiting`], fills its database, keeps what is about to
//! be brought together ([`Waiting::set_state`]), and restores with
//! [`RestoreOptions::hydrated`](super::RestoreOptions::hydrated). After a crash [`waiting`] tells what was about to
//! come of it, [`recover`](super::recover) finishes or undoes that, and [`is_made`] tells whether it was finished.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::journal::{Journal, Operation};
use super::workdir::WorkDir;
use crate::durable;
use crate::engine::{Consistency, EngineKind};
use crate::error::{Error, Remedy, Result};
use crate::ids::{RelPath, RestoreId, SnapshotId};
use crate::rooted::{Reach, RootedPath};
use crate::vault::manifest::PartRecord;

mod waiting;

pub use waiting::{Waiting, is_made, refuse_occupied, refuse_users, waiting};

/// The only format of [`HydratedState`].
const FORMAT: u32 = 1;
const STATE: &str = "pair.json";
/// A longer one is none of ours.
const BYTES_MAX: u64 = 16 << 20;

/// A SQLite database with a replicated store, in the tables `highwater_data` and `highwater_book`, whose rows take the
/// place of those in a part of the snapshot.
#[derive(Clone, Debug)]
pub struct HydratedStore {
    /// The part, by its name in the snapshot.
    pub part: String,
    /// The database. Nobody may write it meanwhile.
    pub database: PathBuf,
    /// The restore's id, by which it is known after a crash.
    pub restore: RestoreId,
}

/// Files and keys that came back together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Where the files are from.
    pub snapshot: SnapshotId,
    /// The part that holds the replicated store.
    pub part: String,
    /// Files and keys are of one instant, as are all databases beside the store.
    pub matched: bool,
    /// The last write of the store that the files have seen.
    pub files_seq: u64,
    /// The last write of the keys.
    pub keys_seq: u64,
    /// This many writes came after the files.
    pub writes_between: u64,
    /// The files have seen this many writes that the keys lack.
    pub writes_lost: u64,
    /// Parts that have no instant in common with the store.
    pub parts_apart: Vec<String>,
    /// Values of the store.
    pub values: u64,
    /// The number of the ownership that began with it.
    pub epoch: u64,
}

/// What is known of a hydrated store that waits for its files: `pair.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HydratedState {
    /// Always [`FORMAT`].
    format: u32,
    /// The restore that brings them together.
    restore: RestoreId,
    /// What it brings together.
    pair: Pair,
}

impl HydratedState {
    /// A store that the restore of this id brings together with its files.
    pub fn new(restore: RestoreId, pair: Pair) -> HydratedState {
        HydratedState { format: FORMAT, restore, pair }
    }

    /// What the restore brings together.
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    fn read(dir: &(impl Reach + ?Sized)) -> Result<Option<HydratedState>> {
        let path = dir.reach()?.join(STATE);
        let name = path.to_string();
        let bytes = match path.read(BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Error::io("what waits for its files", error).with_entry(name)),
        };
        let broken = |error: serde_json::Error| {
            Error::corrupt("what is known of a hydrated store can't be read")
                .with_entry(&name)
                .with_source(error)
        };
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(broken)?;
        if value["format"] != FORMAT {
            return Err(Error::input("another version of highwater hydrated a store here")
                .with_entry(name)
                .with_remedy("finish with that version"));
        }
        serde_json::from_value(value).map(Some).map_err(broken)
    }
}

/// Removes the hydrated store once the directory with its copy is the node's.
pub(super) fn settle(dir: &WorkDir, journal: &Journal) -> Result<()> {
    let hydrated = dir.hydrated();
    let ours =
        HydratedState::read(&hydrated)?.is_some_and(|state| state.restore == journal.restore);
    if journal.operation == Operation::Restore && ours {
        durable::remove_tree(&hydrated)?;
    }
    Ok(())
}

impl HydratedStore {
    /// The database's file in the node directory.
    ///
    /// # Errors
    /// Not found where the snapshot has no such part; input where nobody but the node may write to it.
    pub(super) fn check<'a>(&self, parts: &[&'a PartRecord]) -> Result<&'a RelPath> {
        let part = parts.iter().find(|part| part.name == self.part).ok_or_else(|| {
            Error::not_found(format!("the snapshot has no part `{}`", self.part))
                .with_entry(&self.part)
        })?;
        if part.engine == EngineKind::SQLITE && part.consistency == Consistency::Sqlite {
            return Ok(&part.root);
        }
        Err(Error::input("only a store in SQLite that was not frozen is filled from outside")
            .with_entry(&self.part)
            .with_remedy(Remedy::Restore)
            .with_remedy("let the node fill its store as it opens it"))
    }

    /// Fills the staged database from the hydrated one. Other tables of the node stay as they are.
    #[cfg(feature = "sqlite")]
    pub(super) fn fill(&self, staged: &RootedPath, root: &RelPath) -> Result<()> {
        use rusqlite::{Connection, OpenFlags};
        const FILL: &str = "
            BEGIN IMMEDIATE;
            DELETE FROM main.highwater_data;
            INSERT INTO main.highwater_data (key, value)
                SELECT key, value FROM hydrated.highwater_data ORDER BY key;
            DELETE FROM main.highwater_book;
            INSERT INTO main.highwater_book (key, value)
                SELECT key, value FROM hydrated.highwater_book ORDER BY key;
            COMMIT;";
        // Rows of either side that the other one lacks.
        const DIFFERENT: &str = "
            SELECT (SELECT count(*) FROM (SELECT * FROM main.highwater_data
                        EXCEPT SELECT * FROM hydrated.highwater_data))
                 + (SELECT count(*) FROM (SELECT * FROM hydrated.highwater_data
                        EXCEPT SELECT * FROM main.highwater_data))";
        crate::rooted::refuse_for_root(&staged.path())?;
        let fill = || -> rusqlite::Result<(i64, i64)> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(staged.at(root).path(), flags)?;
            // Staging is made durable as a whole.
            connection.pragma_update(None, "synchronous", "OFF")?;
            let path = self.database.as_os_str();
            let path = std::os::unix::ffi::OsStrExt::as_bytes(path);
            connection.execute("ATTACH DATABASE CAST(?1 AS TEXT) AS hydrated", [path])?;
            connection.execute_batch(FILL)?;
            let different = connection.query_row(DIFFERENT, [], |row| row.get(0))?;
            connection.execute_batch("DETACH DATABASE hydrated")?;
            let busy = connection
                .query_row("PRAGMA main.wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            connection.close().map_err(|(_, error)| error)?;
            Ok((different, busy))
        };
        match fill() {
            Ok((0, 0)) => Ok(()),
            Ok(_) => {
                Err(Error::bug("the staged store is not the hydrated one").with_entry(&self.part))
            }
            Err(error) => {
                Err(Error::corrupt(format!("the store in {} can't be filled: {error}", self.part))
                    .with_entry(&self.part)
                    .with_source(error))
            }
        }
    }

    /// A build without SQLite fills none.
    #[cfg(not(feature = "sqlite"))]
    pub(super) fn fill(&self, _: &RootedPath, _: &RelPath) -> Result<()> {
        Err(Error::input("this build knows no SQLite").with_entry(&self.part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_its_files_is_what_it_was() {
        let fixture = include_str!("../../tests/fixtures/pair.json");
        let pair = Pair {
            snapshot: SnapshotId::from_bytes([1; 16]),
            part: "ledger.sqlite".to_owned(),
            matched: false,
            files_seq: 2,
            keys_seq: u64::MAX,
            writes_between: 3,
            writes_lost: 4,
            parts_apart: vec!["files".to_owned()],
            values: 5,
            epoch: 6,
        };
        let state = HydratedState { format: FORMAT, restore: RestoreId::from_bytes([2; 16]), pair };
        assert_eq!(serde_json::to_string_pretty(&state).unwrap() + "\n", fixture);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(HydratedState::read(dir.path()).unwrap(), None);
        std::fs::write(dir.path().join(STATE), fixture).unwrap();
        assert_eq!(HydratedState::read(dir.path()).unwrap(), Some(state));
        std::fs::write(dir.path().join(STATE), fixture.replace("\"format\": 1", "\"format\": 2"))
            .unwrap();
        assert_eq!(HydratedState::read(dir.path()).unwrap_err().kind(), crate::Kind::Input);
        std::fs::write(dir.path().join(STATE), fixture.replace("\"pair\"", "\"other\"")).unwrap();
        assert_eq!(HydratedState::read(dir.path()).unwrap_err().kind(), crate::Kind::Corrupt);
    }
}
