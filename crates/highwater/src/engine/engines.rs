//! The seam between what is done with every database of a node and what one engine knows of its own: the
//! trait [`Engine`], what it is handed, and the table of all engines.

pub(super) mod offline;
pub(super) mod still;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use super::files::{KnownBy, Listed};
use super::found::{FoundDir, FoundFile};
use super::lock::{self, Lock};
use super::{
    Barrier, CaptureOptions, Checked, Depth, EngineKind, EntryType, FoundPart, Layout, Opens,
    PartCapture, SourceEntry, Units, metadata,
};
use crate::durable;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

use still::Still;

/// What one engine knows of its databases: how they are found, captured, held back and checked.
///
/// Only [`Engine::kind`], [`Engine::opens`] and one of the two recognitions have to be written for a
/// database that is captured as files under its lock. Whatever is written, `engine::conformance::run` (with
/// the feature `conformance`) shows whether it keeps what every engine promises.
pub trait Engine: Send + Sync {
    /// Its name, which stands in every snapshot that it takes part in.
    fn kind(&self) -> EngineKind;

    /// By which of its files a database opens. They are what a guard withholds from a restored node.
    fn opens(&self) -> Opens;

    /// Which files are a database's.
    fn extent(&self) -> Extent {
        match self.opens() {
            Opens::MainFile | Opens::Nothing => Extent::Files,
            Opens::Name(_) | Opens::Prefix(_) => Extent::Directory,
        }
    }

    /// Whether a directory is a database of this engine. Asked only where the extent is a directory.
    ///
    /// # Errors
    /// Those of the file system.
    fn is_directory(&self, found: &FoundDir<'_>) -> Result<bool> {
        let _ = found;
        Ok(false)
    }

    /// Whether a file is the main file of a database of this engine. Asked only where the extent is of
    /// files, of every file of a node that no engine before has taken.
    ///
    /// # Errors
    /// Those of the file system.
    fn is_main_file(&self, found: &FoundFile<'_>) -> Result<bool> {
        let _ = found;
        Ok(false)
    }

    /// Whether a file of a database's directory is the database's, by its name. All others are plain files
    /// of the node.
    fn owns(&self, name: &OsStr) -> bool {
        let _ = name;
        true
    }

    /// The names of files that belong to a database when they lie beside its main file `main`.
    fn beside(&self, main: &OsStr) -> Vec<OsString> {
        let _ = main;
        Vec::new()
    }

    /// Whether a file holds nothing but what the engine tells of its work (an info log), by its name. Whoever
    /// tries to open the database may write or rename it, whoever holds the lock.
    fn is_info_log(&self, name: &OsStr) -> bool {
        let _ = name;
        false
    }

    /// How it keeps others out of a database that it has open.
    fn lock(&self) -> Lock;

    /// What becomes of a database that another process has open.
    fn in_use(&self) -> InUse {
        InUse::Refused
    }

    /// Whether a node can make a checkpoint of a database by a hook.
    fn takes_hook(&self) -> bool {
        false
    }

    /// What forbids the capture of a database, found by looking at it; `node` says whether it may be
    /// written meanwhile.
    ///
    /// # Errors
    /// Those of the file system.
    fn refusals(&self, database: &Database<'_>, node: NodeUse) -> Result<Vec<Error>> {
        let _ = (database, node);
        Ok(Vec::new())
    }

    /// Begins the capture of one database that can be held still: by its hook, or under its lock. Without
    /// code of its own an engine captures files under [`Engine::lock`].
    ///
    /// # Errors
    /// Conflict where it is in use and is not captured so; the first refusal.
    fn begin(&self, database: &Database<'_>, options: &CaptureOptions, env: &Env) -> Result<Begun> {
        let _ = options;
        database.offline(env).map(Begun::Held)
    }

    /// Begins the capture of databases that are in use, all of this engine and node, while they are
    /// written; tells what kind of instant they share. Asked only where [`Engine::in_use`] says so.
    ///
    /// # Errors
    /// Conflict where they do not let themselves be captured.
    fn begin_in_use(
        &self,
        databases: &[Database<'_>],
        options: &CaptureOptions,
        env: &Env,
    ) -> Result<(Vec<Box<dyn PartCapture>>, Barrier)> {
        let _ = (databases, options, env);
        Err(Error::bug(format!("{} captures no database in use", self.kind())))
    }

    /// What is captured of a database that stands still: all its files, each as [`Engine::units`] and
    /// [`Engine::is_immutable`] say.
    ///
    /// # Errors
    /// Those of the file system.
    fn still(&self, database: &Database<'_>) -> Result<Still> {
        still::of_all(database)
    }

    /// How the content of a file is cut into units that are compared.
    fn units(&self, database: &Database<'_>, path: &RelPath) -> Units {
        let _ = (database, path);
        Units::Slices
    }

    /// Whether a file is never written again under its name: it is not read twice.
    fn is_immutable(&self, path: &RelPath) -> bool {
        let _ = path;
        false
    }

    /// Whether a file is a log of its own, to which it only appends.
    fn is_log(&self, path: &RelPath) -> bool {
        let _ = path;
        false
    }

    /// By what immutable files are told from those of another database that have the same names.
    ///
    /// # Errors
    /// Those of the file system.
    fn identity(&self, database: &Database<'_>) -> Result<String> {
        Ok(database.name().to_owned())
    }

    /// Whether the engine makes good what a crash leaves of a file that is written through memory.
    fn recovers(&self, path: &RelPath) -> bool {
        let _ = path;
        false
    }

    /// Checks a restored database, read-only: every file of it stays byte-identical. Without code of its
    /// own an engine says that it was not checked.
    ///
    /// # Errors
    /// Corrupt where the database lacks a file, or is found damaged.
    fn check(&self, database: &Database<'_>, depth: Depth, env: &Env) -> Result<Checked> {
        let _ = env;
        Ok(unchecked(database.name(), depth))
    }
}

/// Which files of a node a database of an engine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// A main file, and those beside it that [`Engine::beside`] names.
    Files,
    /// The files of one directory that [`Engine::owns`] knows.
    Directory,
    /// All that is in a directory, directories too.
    Tree,
}

/// What becomes of a database that another process has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InUse {
    /// It is a conflict: the node has to be stopped, or frozen.
    Refused,
    /// It is captured while it is written, at an instant of its own.
    Alone,
    /// Whether it is in use or not, it is captured together with all others of its engine, at one instant
    /// if they let themselves.
    Together,
}

/// Whether a node may write while it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeUse {
    /// It may.
    Running,
    /// It stands still, or is about to.
    Still,
}

/// A capture that has begun, or that has to be made in another way.
pub enum Begun {
    /// Nothing moves it until it is finished.
    Held(Box<dyn PartCapture>),
    /// A hook made a checkpoint of it, and kept the node waiting for so long.
    Hooked(Box<dyn PartCapture>, Duration),
    /// Another process has it open: [`Engine::begin_in_use`] captures it.
    InUse,
}

/// A database that was found in a node directory. Whoever has it reaches no file outside of that
/// directory, follows no link, and writes nothing.
#[derive(Clone, Copy)]
pub struct Database<'a> {
    pub(super) dir: &'a RootedPath,
    pub(super) part: &'a FoundPart,
    pub(super) engine: &'a Arc<dyn Engine>,
}

impl<'a> Database<'a> {
    pub(super) fn of(layout: &'a Layout, part: &'a FoundPart) -> Result<Database<'a>> {
        Ok(Database { dir: layout.held(), part, engine: layout.engines().of(part)? })
    }

    /// Captures its files under its engine's lock: the way of every engine that has none of its own.
    ///
    /// # Errors
    /// Conflict where another process, or this one, has it open.
    pub fn offline(&self, env: &Env) -> Result<Box<dyn PartCapture>> {
        let lock = lock::take(&self.place(), self.engine.lock(), self.name())?;
        offline::begin(self, lock, env)
    }

    /// The name of its part, as messages call it.
    pub fn name(&self) -> &'a str {
        &self.part.name
    }

    /// Its directory, or its main file.
    pub fn root(&self) -> &'a RelPath {
        &self.part.root
    }

    /// Its files and directories when it was found, sorted.
    pub fn entries(&self) -> &'a [RelPath] {
        &self.part.entries
    }

    /// Opens a regular file of the node directory for reading.
    ///
    /// # Errors
    /// Not found where there is none; denied where it may not be read.
    pub fn open(&self, path: &RelPath) -> Result<File> {
        let place = self.dir.at(path);
        place.open_file().map_err(|error| durable::met(&place, "open", error))
    }

    /// The names in a directory of the node directory.
    ///
    /// # Errors
    /// Not found where there is none; denied where it may not be read.
    pub fn names(&self, dir: &RelPath) -> Result<Vec<OsString>> {
        durable::names(&self.dir.at(dir))
    }

    /// What is captured of an entry, as it is now: no holes, and cut into slices.
    ///
    /// # Errors
    /// Not found where there is none.
    pub fn look(&self, path: &RelPath) -> Result<SourceEntry> {
        let place = self.dir.at(path);
        let found =
            metadata::look(&place).map_err(|error| durable::met(&place, "look at", error))?;
        let size = if found.kind == EntryType::File { found.stamp.size } else { 0 };
        Ok(SourceEntry {
            path: path.clone(),
            kind: found.kind,
            meta: found.meta,
            size,
            holes: Vec::new(),
            units: Units::Slices,
            identity: None,
        })
    }

    /// Whether another process holds the database's lock.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn is_held_by_others(&self, lock: Lock) -> Result<bool> {
        lock::is_held_by_others(&self.place(), lock)
    }

    pub(super) fn place(&self) -> RootedPath {
        self.dir.at(&self.part.root)
    }

    /// The part with its entries as they are now. A lock file with content is none of them: to read it
    /// would give the lock up, and whoever opens the database makes it anew.
    pub(super) fn listed_now(&self) -> Result<FoundPart> {
        let (mut part, engine) = (self.part.clone(), self.engine.as_ref());
        let lock = engine.lock();
        if engine.extent() == Extent::Files {
            if let Some(lock) = lock::lock_beside(&self.place(), lock) {
                part.entries.retain(|path| path.name() != lock.name());
            }
            return Ok(part);
        }
        part.entries = database_files(self.dir, &part.root, engine)?;
        if let Lock::RecordIn(name) = lock {
            let lock = part.root.join(name.as_ref());
            if part.entries.contains(&lock) && metadata::stamp(&self.dir.at(&lock))?.size > 0 {
                part.entries.retain(|path| *path != lock);
            }
        }
        Ok(part)
    }
}

/// The directory of a database and its files, as they are now, sorted.
pub(super) fn database_files(
    dir: &RootedPath,
    root: &RelPath,
    engine: &dyn Engine,
) -> Result<Vec<RelPath>> {
    let tree = engine.extent() == Extent::Tree;
    let mut entries = Vec::new();
    let mut pending = vec![root.clone()];
    while let Some(above) = pending.pop() {
        for name in durable::names(&dir.at(&above))? {
            let path = above.join(&name);
            let Some(found) = durable::stat(&dir.at(&path))? else { continue };
            if tree && durable::is_dir(&found) {
                pending.push(path.clone());
                entries.push(path);
            } else if durable::is_file(&found) && (tree || engine.owns(&name)) {
                entries.push(path);
            }
        }
    }
    if *root != RelPath::root() {
        entries.push(root.clone());
    }
    entries.sort();
    Ok(entries)
}

/// What is said of a database of which only the bytes were examined.
pub(super) fn unchecked(name: &str, depth: Depth) -> Checked {
    if depth == Depth::Open {
        return Checked::default();
    }
    let warning = format!("{name}: its own check is not known here; its bytes were compared");
    Checked { warnings: vec![warning], unchecked: vec![name.to_owned()] }
}

/// A file of a database that is captured as it stands.
pub(super) fn listed(dir: &RootedPath, path: &RelPath, units: Units) -> Listed {
    let (path, source) = (path.clone(), dir.at(path));
    Listed { path, source, units, pinned: false, known_by: KnownBy::Content }
}
