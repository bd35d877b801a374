//! Files of a node that this very process has open, by whatever copy of a database's library.
//!
//! A POSIX lock belongs to a process and a file: closing any descriptor of the file drops all locks that the process
//! holds on it. The copy of SQLite in this library and the one in an interpreter know nothing of one another, so that
//! a capture would drop the locks of the interpreter's connection, and other processes would write beside it.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use highwater::engine::{self, DiscoverOptions, EngineKind};
use highwater::{Error, Result};

/// A file, whatever it is called: device and inode.
type FileId = (u64, u64);

fn id_of(found: &Metadata) -> FileId {
    (found.dev(), found.ino())
}

/// Refuses a node directory of which this process has a file of a SQLite database open. Opens none of the files.
pub(crate) fn refuse_open_sqlite(dir: &Path, options: &DiscoverOptions) -> Result<()> {
    let layout = engine::discover(dir, options)?;
    let open = own_files()?;
    for part in layout.parts.iter().filter(|part| part.engine == EngineKind::SQLITE) {
        for entry in &part.entries {
            let found = fs::symlink_metadata(layout.dir.join(entry.as_path()));
            if found.is_ok_and(|found| open.contains(&id_of(&found))) {
                return Err(Error::conflict(
                    "this process has the database open, perhaps by another copy of SQLite: a backup from here \
                     would drop the locks of that copy, and other processes would write beside it",
                )
                .with_entry(entry.to_string())
                .with_remedy("back up from another process")
                .with_remedy("close all connections of this process first, and open none meanwhile"));
            }
        }
    }
    Ok(())
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

/// The files that this process has open.
fn own_files() -> Result<BTreeSet<FileId>> {
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
