//! Databases that are captured as files while nobody writes: under their lock, or while nobody has them
//! open.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::still::{Still, Verify};
use super::{Database, Engine};
use crate::durable;
use crate::engine::files::{FileSet, Stability};
use crate::engine::lock::{self, Lock};
use crate::engine::metadata::Stamp;
use crate::engine::{
    Consistency, EngineKind, Finished, FoundPart, PartCapture, Piece, SourceEntry,
};
use crate::env::Env;
use crate::error::{Error, Remedy, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

struct Offline {
    dir: RootedPath,
    part: FoundPart,
    engine: Arc<dyn Engine>,
    set: FileSet,
    engine_version: Option<String>,
    verifier: Option<Box<dyn Verify>>,
    stamps: Stamps,
    lock: Option<OwnedFd>,
}

/// What the files of a database with data look like.
type Stamps = Vec<(RelPath, Stamp)>;

/// Begins the capture of a database whose lock is `lock`, or, without one, that nobody has open.
pub(in crate::engine) fn begin(
    database: &Database<'_>,
    lock: Option<OwnedFd>,
    env: &Env,
) -> Result<Box<dyn PartCapture>> {
    let part = database.listed_now()?;
    let now = Database { part: &part, ..*database };
    let Still { listed, engine_version, verifier, settle: _ } = database.engine.still(&now)?;
    let stability = if lock.is_some() { Stability::Held } else { Stability::Watched };
    let set = FileSet::list(listed, stability, env)?;
    let stamps = stamps(&now)?;
    let (dir, engine) = (database.dir.clone(), database.engine.clone());
    Ok(Box::new(Offline { dir, part, engine, set, engine_version, verifier, stamps, lock }))
}

fn stamps(database: &Database<'_>) -> Result<Stamps> {
    let engine = database.engine;
    let lock = match engine.lock() {
        Lock::RecordIn(name) | Lock::WholeIn(name) => Some(name),
        _ => None,
    };
    let mut stamps = Vec::new();
    for path in database.entries().iter().filter(|path| !engine.is_info_log(path.name())) {
        let place = database.dir.at(path);
        // What is gone is missing among the others.
        let Some(found) = durable::stat(&place)?.filter(|found| !durable::is_dir(found)) else {
            continue;
        };
        // Whoever tries to open the database may write to its lock file.
        if found.stx_size > 0 || lock.is_none_or(|lock| path.name() != lock) {
            stamps.push((path.clone(), Stamp::of(&found)));
        }
    }
    Ok(stamps)
}

impl Offline {
    fn is_same(&self, now: &Stamps) -> bool {
        let same = |((path, before), (found, now)): (&(RelPath, Stamp), &(RelPath, Stamp))| {
            // Links come and go, and nobody who keeps to the lock writes.
            let kept = self.lock.is_some() || self.engine.is_immutable(path);
            let content = kept && before.same_content(now);
            path == found && (content || before == now)
        };
        self.stamps.len() == now.len() && self.stamps.iter().zip(now).all(same)
    }
}

impl PartCapture for Offline {
    fn name(&self) -> &str {
        &self.part.name
    }

    fn engine(&self) -> EngineKind {
        self.part.engine
    }

    fn engine_version(&self) -> Option<String> {
        self.engine_version.clone()
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
        match &mut self.verifier {
            Some(verifier) => verifier.stream(&self.set, entry, sink),
            None => self.set.stream(entry, sink),
        }
    }

    fn open(&self, entry: usize) -> Result<Option<File>> {
        self.set.open(entry).map(Some)
    }

    fn finish(self: Box<Self>) -> Result<Finished> {
        let database = Database { dir: &self.dir, part: &self.part, engine: &self.engine };
        if self.lock.is_none() {
            lock::unused_by_others(&database.place(), database.name())?;
        }
        let part = database.listed_now()?;
        if !self.is_same(&stamps(&Database { part: &part, ..database })?) {
            let (how, ways_out) = match self.lock {
                Some(_) => (
                    "although its lock was held",
                    vec![Remedy::from(
                        "find the program that writes without taking the database's lock",
                    )],
                ),
                None => ("during the capture", lock::ways_out()),
            };
            let name = &self.part.name;
            return Err(Error::conflict(format!("{name} changed {how}"))
                .with_entry(name.clone())
                .with_remedies(ways_out));
        }
        let warnings = self.verifier.map_or_else(Vec::new, |verifier| verifier.warnings());
        Ok(Finished { warnings, ..Finished::default() })
    }
}
