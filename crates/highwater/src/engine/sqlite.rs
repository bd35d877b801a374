//! SQLite as an engine among the others. Its databases are found by a build that can't capture them as
//! well, so that they are refused instead of torn.

#[cfg(feature = "sqlite")]
mod barrier;
#[cfg(feature = "sqlite")]
mod capture;
#[cfg(feature = "sqlite")]
mod check;
#[cfg(feature = "sqlite")]
mod failure;
#[cfg(all(feature = "sqlite", any(fuzzing, test)))]
pub(super) mod fuzzing;
#[cfg(feature = "sqlite")]
mod image;
#[cfg(feature = "sqlite")]
mod point;
#[cfg(feature = "sqlite")]
mod query;
#[cfg(feature = "sqlite")]
mod rest;
#[cfg(feature = "sqlite")]
mod source;
#[cfg(feature = "sqlite")]
mod stamp;
mod still;
#[cfg(feature = "sqlite")]
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};

use super::engines::still::Still;
use super::engines::{Database, Engine, InUse, NodeUse};
use super::found::{FoundFile, Head, SQLITE_SIBLINGS, beside, ends};
use super::lock::{self, Lock};
use super::{Barrier, CaptureOptions, EngineKind, Opens, PartCapture, Units, process};
#[cfg(feature = "sqlite")]
use super::{Checked, Depth};
use crate::durable;
use crate::env::Env;
use crate::error::{Error, Remedy, Result};
use crate::ids::RelPath;

#[cfg(feature = "sqlite")]
pub(super) use capture::begin_here;
#[cfg(feature = "sqlite")]
pub(super) use check::check_here;
#[cfg(feature = "sqlite")]
pub(crate) use query::rows_of;
#[cfg(feature = "sqlite")]
pub(super) use rest::Company;

/// The first sixteen bytes of every SQLite 3 database.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The smallest unit in which a page file is compared.
const UNIT_BYTES: u32 = 4096;

/// Whether `bytes`, the beginning of a file, are those of a SQLite database.
pub(super) fn is_header(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// SQLite.
pub(super) struct Sqlite;

impl Engine for Sqlite {
    fn kind(&self) -> EngineKind {
        EngineKind::SQLITE
    }

    fn opens(&self) -> Opens {
        Opens::MainFile
    }

    fn is_main_file(&self, found: &FoundFile<'_>) -> Result<bool> {
        // A database whose first transaction is still in its log is empty.
        if found.size() == 0 {
            return Ok(found.has_beside("-wal") || found.has_beside("-journal"));
        }
        if !found.is_candidate() {
            return Ok(false);
        }
        Ok(match found.head()? {
            Head::Bytes(bytes) => is_header(bytes),
            Head::Ours => found.is_called_sqlite() || found.has_sqlite_beside(),
            Head::Denied => false,
        })
    }

    fn beside(&self, main: &OsStr) -> Vec<OsString> {
        let with = |suffix: &&str| {
            let mut name = main.to_owned();
            name.push(suffix);
            name
        };
        SQLITE_SIBLINGS.iter().map(with).collect()
    }

    fn lock(&self) -> Lock {
        Lock::Sqlite
    }

    fn in_use(&self) -> InUse {
        InUse::Together
    }

    fn refusals(&self, database: &Database<'_>, node: NodeUse) -> Result<Vec<Error>> {
        if node == NodeUse::Still {
            return Ok(Vec::new());
        }
        let unable = (!cfg!(feature = "sqlite")).then(|| unable(database.name()));
        Ok(emptied(database)?.into_iter().chain(unable).collect())
    }

    #[cfg(feature = "sqlite")]
    fn begin_in_use(
        &self,
        databases: &[Database<'_>],
        options: &CaptureOptions,
        env: &Env,
    ) -> Result<(Vec<Box<dyn PartCapture>>, Barrier)> {
        let Some(first) = databases.first() else { return Ok((Vec::new(), Barrier::Single)) };
        let parts: Vec<_> = databases.iter().map(|database| database.part).collect();
        capture::begin_all(first.dir, &parts, options, env)
    }

    #[cfg(not(feature = "sqlite"))]
    fn begin_in_use(
        &self,
        databases: &[Database<'_>],
        _: &CaptureOptions,
        _: &Env,
    ) -> Result<(Vec<Box<dyn PartCapture>>, Barrier)> {
        Err(unable(databases.first().map_or("a database", |database| database.name())))
    }

    fn still(&self, database: &Database<'_>) -> Result<Still> {
        still::still(database)
    }

    fn units(&self, database: &Database<'_>, path: &RelPath) -> Units {
        if path == database.root() { Units::Pages { bytes: UNIT_BYTES } } else { Units::Slices }
    }

    fn recovers(&self, path: &RelPath) -> bool {
        // The index of the log, made anew by whoever opens the database first.
        ends(path.name(), "-shm")
    }

    #[cfg(feature = "sqlite")]
    fn check(&self, database: &Database<'_>, depth: Depth, env: &Env) -> Result<Checked> {
        capture::check(database.dir, database.root(), depth, env)
    }
}

/// That this build can't capture it.
fn unable(name: &str) -> Error {
    Error::input(format!("{name}: this build captures no SQLite databases"))
        .with_entry(name)
        .with_remedy("use a build with the feature `sqlite`")
}

/// Refuses a SQLite whose main file is empty while a log lies beside it: what is in the log is what is
/// left of it, and SQLite removes the log with whoever opens the database. Only the first transaction
/// of a database in use looks so.
fn emptied(database: &Database<'_>) -> Result<Option<Error>> {
    let main = database.place();
    let size = |suffix: &str| -> Result<u64> {
        let found = durable::stat(&database.dir.at(&beside(database.root(), suffix)))?;
        Ok(found.filter(durable::is_file).map_or(0, |found| found.stx_size))
    };
    if size("")? > 0 {
        return Ok(None);
    }
    let (log, journal) = (size("-wal")?, size("-journal")?);
    let begun = || Ok(process::is_own(&main)? || lock::sqlite_held(&main)?);
    if log == 0 && (journal == 0 || begun()?) {
        return Ok(None);
    }
    let problem = format!(
        "{} is empty, and a log of {} bytes lies beside it, which SQLite would remove with whoever opens the \
         database next",
        database.name(),
        log.max(journal)
    );
    Ok(Some(
        Error::corrupt(problem)
            .with_entry(database.name())
            .with_remedy(
                "copy the log to a safe place before anything opens the database, find out what emptied it, \
                 and restore it",
            )
            .with_remedy(Remedy::Exclude),
    ))
}
