//! Engines that are captured as files while nobody writes: under their lock, or while nobody has them
//! open.

use std::os::fd::OwnedFd;

use super::files::{FileSet, Listed, Stability};
use super::kinds::Lock;
use super::metadata::{self, Stamp};
use super::{
    Consistency, EngineKind, Finished, FoundPart, PartCapture, Piece, SourceEntry, Units, discover,
    lock,
};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// The page size by which these page files are compared; theirs is this one or a multiple of it.
const PAGE_BYTES: u32 = 4096;

/// What an empty lock file of a database is called; it is recorded and never opened.
const LOCK_NAMES: [&str; 3] = ["LOCK", "lock.mdb", "lock"];

/// What LevelDB tells; whoever tries to open the database renames one to the other before it asks
/// for the lock.
const INFO_NAMES: [&str; 2] = ["LOG", "LOG.old"];

struct Offline {
    set: FileSet,
    dir: RootedPath,
    part: FoundPart,
    stamps: Vec<(RelPath, Stamp)>,
    lock: Option<OwnedFd>,
}

/// Begins the capture of one database as files.
pub(super) fn begin(dir: &RootedPath, part: &FoundPart, env: &Env) -> Result<Box<dyn PartCapture>> {
    let main = dir.at(&part.root);
    let lock = lock::take(&main, part.engine, &part.name)?;
    let paged = part.engine.is_paged();
    let units = if paged { Units::Pages { bytes: PAGE_BYTES } } else { Units::Slices };
    let listed = entries(dir, part)?.into_iter().map(|path| Listed {
        source: dir.at(&path),
        pinned: INFO_NAMES.iter().any(|info| path.name() == *info),
        path,
        units,
        immutable: None,
    });
    let stability = if lock.is_some() { Stability::Held } else { Stability::Watched };
    let set = FileSet::list(listed, stability, env)?;
    let stamps = stamps(dir, part)?;
    Ok(Box::new(Offline { dir: dir.clone(), part: part.clone(), set, stamps, lock }))
}

/// The part's entries, listed again under the lock where they are a directory's; a LevelDB's lock only
/// where it is empty, since to open it would give it up.
fn entries(dir: &RootedPath, part: &FoundPart) -> Result<Vec<RelPath>> {
    if !part.engine.is_directory() {
        // To read the lock file would give the lock up; whoever opens the database makes it anew.
        let lock = lock::lock_beside(&dir.at(&part.root), part.engine);
        let is_lock = |path: &RelPath| lock.as_ref().is_some_and(|lock| path.name() == lock.name());
        return Ok(part.entries.iter().filter(|path| !is_lock(path)).cloned().collect());
    }
    let mut entries = discover::database_files(dir, part.engine, &part.root)?;
    if let Lock::RecordIn(name) = part.engine.lock() {
        let lock = part.root.join(name.as_ref());
        if entries.contains(&lock) && metadata::stamp(&dir.at(&lock))?.size > 0 {
            entries.retain(|path| *path != lock);
        }
    }
    Ok(entries)
}

fn stamps(dir: &RootedPath, part: &FoundPart) -> Result<Vec<(RelPath, Stamp)>> {
    let entries = entries(dir, part)?;
    let data = entries.iter().filter(|path| **path != part.root || !part.engine.is_directory());
    let data = data
        .filter(|path| !LOCK_NAMES.iter().chain(&INFO_NAMES).any(|other| path.name() == *other));
    data.map(|path| Ok((path.clone(), metadata::stamp(&dir.at(path))?))).collect()
}

impl PartCapture for Offline {
    fn name(&self) -> &str {
        &self.part.name
    }

    fn engine(&self) -> EngineKind {
        self.part.engine
    }

    fn engine_version(&self) -> Option<String> {
        None
    }

    fn consistency(&self) -> Consistency {
        Consistency::Offline
    }

    fn entries(&self) -> &[SourceEntry] {
        self.set.entries()
    }

    fn stream(
        &mut self,
        entry: usize,
        sink: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        self.set.stream(entry, sink)
    }

    fn finish(self: Box<Self>) -> Result<Finished> {
        if self.lock.is_none() {
            lock::unused_by_others(&self.dir.at(&self.part.root), &self.part.name)?;
        }
        if stamps(&self.dir, &self.part)? != self.stamps {
            return Err(Error::conflict(format!("{} changed during the capture", self.part.name))
                .entry(self.part.name)
                .hint(lock::WAYS_OUT));
        }
        Ok(Finished::default())
    }
}
