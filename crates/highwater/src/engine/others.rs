//! Engines that are captured as files while nobody writes: LevelDB, bbolt, redb and Badger under
//! their lock, LMDB while nobody has it open.

use std::os::fd::OwnedFd;

use super::files::{FileSet, Listed, Stability};
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
const LOCK_NAMES: [&str; 2] = ["LOCK", "lock.mdb"];

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
    let lock = match part.engine {
        EngineKind::LevelDb => {
            Some(lock::record(&main.join("LOCK"), &main, &part.name, lock::WAYS_OUT)?)
        }
        EngineKind::Bbolt | EngineKind::Redb | EngineKind::Badger => {
            lock::unused(&main, &part.name)?;
            Some(lock::whole(&main, &part.name)?)
        }
        _ => {
            lock::unused(&main, &part.name)?;
            None
        }
    };
    let paged = !matches!(part.engine, EngineKind::LevelDb | EngineKind::Badger);
    let units = if paged { Units::Pages { bytes: PAGE_BYTES } } else { Units::Slices };
    let listed = entries(dir, part)?.into_iter().map(|path| Listed {
        source: dir.at(&path),
        pinned: INFO_NAMES.iter().any(|info| path.name() == *info),
        path,
        units,
        immutable: None,
    });
    let set = FileSet::list(listed, Stability::Held, env)?;
    let stamps = stamps(dir, part)?;
    Ok(Box::new(Offline { dir: dir.clone(), part: part.clone(), set, stamps, lock }))
}

/// The part's entries, listed again under the lock where they are a directory's; a LevelDB's lock only
/// where it is empty, since to open it would give it up.
fn entries(dir: &RootedPath, part: &FoundPart) -> Result<Vec<RelPath>> {
    if !in_directory(part.engine) {
        return Ok(part.entries.clone());
    }
    let mut entries = discover::database_files(dir, part.engine, &part.root)?;
    if part.engine == EngineKind::LevelDb {
        let lock = part.root.join("LOCK".as_ref());
        if metadata::stamp(&dir.at(&lock))?.size > 0 {
            entries.retain(|path| *path != lock);
        }
    }
    Ok(entries)
}

fn in_directory(engine: EngineKind) -> bool {
    matches!(engine, EngineKind::LevelDb | EngineKind::Badger)
}

fn stamps(dir: &RootedPath, part: &FoundPart) -> Result<Vec<(RelPath, Stamp)>> {
    let entries = entries(dir, part)?;
    let data = entries.iter().filter(|path| **path != part.root || !in_directory(part.engine));
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
            lock::unused(&self.dir.at(&self.part.root), &self.part.name)?;
        }
        if stamps(&self.dir, &self.part)? != self.stamps {
            return Err(Error::conflict(format!("{} changed during the capture", self.part.name))
                .entry(self.part.name)
                .hint(lock::WAYS_OUT));
        }
        Ok(Finished::default())
    }
}
