//! Files of a node that this very process has open, by whatever copy of a database's library.
//!
//! A POSIX lock belongs to a process and a file: closing any descriptor of the file drops all locks that the process
//! holds on it. The copy of SQLite in this library and the one in an interpreter know nothing of one another, so that
//! a capture would drop the locks of the interpreter's connection, and other processes would write beside it.
//!
//! A replicated store is opened by the copy in this library, which a capture shares: that one is no reason to refuse.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use highwater::engine::{self, DiscoverOptions, EngineKind};
use highwater::ids::RelPath;
use highwater::{Error, Result};

/// A file, whatever it is called: device and inode.
type FileId = (u64, u64);

fn id_of(found: &Metadata) -> FileId {
    (found.dev(), found.ino())
}

/// The databases of replicated stores that are open in this process. Each has one connection.
static STORES: Mutex<Vec<FileId>> = Mutex::new(Vec::new());

fn stores() -> MutexGuard<'static, Vec<FileId>> {
    STORES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The mark of a database that a replicated store of this process has open, until it is dropped.
pub(crate) struct OwnStore(FileId);

impl OwnStore {
    pub(crate) fn of(database: &Path) -> Result<OwnStore> {
        let found = fs::metadata(database).map_err(|error| {
            Error::io("the store's database", error).with_entry(database.display().to_string())
        })?;
        let id = id_of(&found);
        stores().push(id);
        Ok(OwnStore(id))
    }
}

impl Drop for OwnStore {
    fn drop(&mut self) {
        let mut stores = stores();
        if let Some(place) = stores.iter().position(|id| *id == self.0) {
            stores.swap_remove(place);
        }
    }
}

/// Refuses to open the database of a store that this process has open already, by whatever copy of SQLite.
pub(crate) fn refuse_open_store(database: &Path) -> Result<()> {
    let Ok(found) = fs::metadata(database) else { return Ok(()) };
    match own_files()?.contains(&id_of(&found)) {
        false => Ok(()),
        true => Err(Error::conflict(
            "this process has the database open already: a second connection could drop the locks of the first",
        )
        .with_entry(database.display().to_string())
        .with_remedy("let go of the store that has it, or close the connection")),
    }
}

/// Refuses a node directory of which this process has a file of a SQLite database open, other than by a replicated
/// store. Opens none of the files.
pub(crate) fn refuse_open_sqlite(dir: &Path, options: &DiscoverOptions) -> Result<()> {
    let layout = engine::discover(dir, options)?;
    let open = own_files()?;
    let is_open = |entry: &&RelPath| {
        let found = fs::symlink_metadata(layout.dir.join(entry.as_path()));
        found.is_ok_and(|found| open.contains(&id_of(&found)))
    };
    for part in layout.parts.iter().filter(|part| part.engine == EngineKind::SQLITE) {
        let database = fs::symlink_metadata(layout.dir.join(part.root.as_path()));
        if database.is_ok_and(|database| is_of_a_store_alone(id_of(&database), &open)) {
            continue;
        }
        if let Some(entry) = part.entries.iter().find(is_open) {
            return Err(Error::conflict(
                "this process has the database open, perhaps by another copy of SQLite: a backup from here \
                 would drop the locks of that copy, and other processes would write beside it",
            )
            .with_entry(entry.to_string())
            .with_remedy("back up from another process")
            .with_remedy("close all connections of this process first, and open none meanwhile"));
        }
    }
    Ok(())
}

/// Whether nothing but a replicated store has this database open: whoever has it besides has one more descriptor.
fn is_of_a_store_alone(database: FileId, open: &[FileId]) -> bool {
    let times = |ids: &[FileId]| ids.iter().filter(|id| **id == database).count();
    let by_stores = times(&stores());
    by_stores > 0 && by_stores == times(open)
}

/// Refuses to exchange a directory in which this process has a file open: it would go on in the one that was put
/// aside. The library looks for other processes alone.
pub(crate) fn refuse_open_below(target: &Path) -> Result<()> {
    let Ok(target) = target.canonicalize() else { return Ok(()) };
    let below = |path: &PathBuf| path.starts_with(&target);
    match descriptors()?.into_iter().map(|(path, _)| path).find(below) {
        Some(path) => Err(Error::conflict(
            "this process has a file of the directory open, and would go on with the one that is put aside",
        )
        .with_entry(path.display().to_string())
        .with_remedy("close it")),
        None => Ok(()),
    }
}

/// The files that this process has open, each as often as it is.
fn own_files() -> Result<Vec<FileId>> {
    Ok(descriptors()?.into_iter().map(|(_, id)| id).collect())
}

/// The regular files that this process has open, each with the path that it was opened by, as far as that is known.
fn descriptors() -> Result<Vec<(PathBuf, FileId)>> {
    let failed = |source| Error::io("can't list the process's own descriptors", source);
    let mut files = Vec::new();
    for descriptor in fs::read_dir("/proc/self/fd").map_err(failed)? {
        let link = descriptor.map_err(failed)?.path();
        // The listing's own descriptor is gone by now, as may be one of another thread.
        if let Ok(found) = fs::metadata(&link)
            && found.is_file()
        {
            files.push((fs::read_link(&link).unwrap_or_default(), id_of(&found)));
        }
    }
    Ok(files)
}
