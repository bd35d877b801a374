//! RocksDB: captured from a checkpoint that the node's hook makes, live while another process writes it,
//! or offline under the database's own lock. Nothing here opens a database; its files are only read.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use super::engines::still::{Still, Verify as _};
use super::engines::{Begun, Database, Engine, InUse, NodeUse, offline};
use super::files::{FileSet, KnownBy, Listed, Stability};
use super::found::FoundDir;
use super::lock::{self, Lock};
use super::scratch::{self, Scratch};
use super::{
    Barrier, CaptureOptions, Checked, CheckpointHook, Consistency, Depth, EngineKind, Finished,
    FoundPart, Opens, PartCapture, Piece, SourceEntry, Units, metadata,
};
use crate::durable;
use crate::env::Env;
use crate::error::{Error, Kind, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

const LOCK: Lock = Lock::RecordIn("LOCK");

/// How the name of the private directory of a checkpoint begins.
const CHECKPOINT_PREFIX: &str = ".highwater-checkpoint-";

mod append;
mod check;
mod live;
#[cfg(feature = "rocksdb")]
mod open;
mod records;
pub(super) mod rows;
pub(super) mod verify;
pub(super) mod version;

pub use append::append;
pub(crate) use rows::captured;
pub use rows::{Rows, rows, rows_withheld};

use verify::Verifier;
use version::{CURRENT_BYTES_MAX, Version};

/// An OPTIONS file has some KiB for each column family; an IDENTITY is one id.
const OPTIONS_BYTES_MAX: u64 = 64 << 20;
const IDENTITY_BYTES_MAX: u64 = 4096;

/// How often a database in use is looked at again, where its MANIFEST named a table that a
/// compaction had meanwhile removed.
const LOOKS_MAX: u32 = 4;

/// What a file of a RocksDB directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileName {
    /// `CURRENT`.
    Current,
    /// `MANIFEST-000005`.
    Manifest,
    /// `OPTIONS-000007`.
    Options,
    /// `IDENTITY`.
    Identity,
    /// `LOCK`.
    Lock,
    /// `LOG`, `LOG.old.1700000000`: what the engine tells. Whoever tries to open the database renames
    /// `LOG` before it asks for the lock.
    Info,
    /// `000012.sst`.
    Table(u64),
    /// `000013.blob`.
    Blob(u64),
    /// `000014.log`.
    Log(u64),
    /// `000015.dbtmp`: half-written, of no use.
    Temporary,
}

impl FileName {
    /// The role of a file, or `None` where RocksDB knows no such file.
    pub(super) fn of(name: &std::ffi::OsStr) -> Option<FileName> {
        let name = name.to_str()?;
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse::<u64>().ok()).flatten()
        };
        match name {
            "CURRENT" => return Some(FileName::Current),
            "IDENTITY" => return Some(FileName::Identity),
            "LOCK" => return Some(FileName::Lock),
            "LOG" => return Some(FileName::Info),
            _ => {}
        }
        if name.starts_with("LOG.old") {
            return Some(FileName::Info);
        }
        if let Some(digits) = name.strip_prefix("MANIFEST-") {
            return number(digits).map(|_| FileName::Manifest);
        }
        if let Some(rest) = name.strip_prefix("OPTIONS-") {
            let temporary = rest.strip_suffix(".dbtmp");
            number(temporary.unwrap_or(rest))?;
            return Some(temporary.map_or(FileName::Options, |_| FileName::Temporary));
        }
        let (digits, suffix) = name.split_once('.')?;
        let number = number(digits)?;
        match suffix {
            "sst" | "ldb" => Some(FileName::Table(number)),
            "blob" => Some(FileName::Blob(number)),
            "log" => Some(FileName::Log(number)),
            "dbtmp" => Some(FileName::Temporary),
            _ => None,
        }
    }
}

/// Whether a file of this role is in a directory.
pub(super) fn has_role(dir: &FoundDir<'_>, role: FileName) -> bool {
    dir.files().any(|name| FileName::of(name) == Some(role))
}

/// Whether CURRENT and a MANIFEST are in a directory, as in every LevelDB and what came of it.
pub(super) fn has_version(dir: &FoundDir<'_>) -> bool {
    has_role(dir, FileName::Current)
        && has_role(dir, FileName::Manifest)
        && !is_backup(dir.path(), |path| dir.tree.is_file(path))
}

/// Whether a directory is one backup of RocksDB's own backup engine (`BackupEngine`, `ldb backup`): `private/N`, beside
/// it `meta/N`. It has a MANIFEST, and its tables lie elsewhere: nobody opens it as a database.
pub(super) fn is_backup(path: &RelPath, is_file: impl Fn(&RelPath) -> bool) -> bool {
    let number = path.name();
    let Some(private) = path.parent().filter(|above| above.name() == "private") else {
        return false;
    };
    let numbered = number.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let backups = private.parent().unwrap_or_else(RelPath::root);
    numbered && is_file(&backups.join(OsStr::new("meta")).join(number))
}

/// Whoever tries to open the database renames one to the other before it asks for the lock.
pub(super) fn is_info_log(name: &OsStr) -> bool {
    name == "LOG" || name.as_encoded_bytes().starts_with(b"LOG.old")
}

/// What forbids the capture of the database at `db`, found by reading its OPTIONS and MANIFEST.
pub(super) fn refusals(db: &RootedPath, name: &str) -> Result<Vec<Error>> {
    let mut refusals = Vec::new();
    if let Some(options) = newest_options(db)?
        && let Some(wal_dir) = foreign_wal_dir(db, &options)?
    {
        let problem = format!("{name} keeps its logs elsewhere: wal_dir is {}", wal_dir.display());
        refusals.push(
            Error::input(problem)
                .with_entry(name)
                .with_remedy("let the database keep its logs in its own directory"),
        );
    }
    match missing_file(db)? {
        ManifestFault::None => {}
        ManifestFault::Missing(file) => refusals.push(
            Error::input(format!("{name} needs {file}, which is not in its directory"))
                .with_entry(format!("{name}/{file}"))
                .with_remedy(
                    "let the database keep its files in one directory: one with several (db_paths) can't \
                     be captured",
                )
                .with_remedy("restore it from a snapshot, if it is damaged"),
        ),
        ManifestFault::Elsewhere(file) => refusals.push(
            Error::input(format!("{name} keeps {file} in another of its db_paths"))
                .with_entry(format!("{name}/{file}"))
                .with_remedy("let the database keep all its tables in its own directory"),
        ),
        ManifestFault::Damaged(error) => refusals.push(
            error
                .told_as(|why| format!("{name}: {why}"))
                .with_entry(name)
                .with_remedy("restore it from a snapshot")
                .with_remedy("let its own program repair it"),
        ),
    }
    Ok(refusals)
}

/// What is wrong with the files that the MANIFEST names.
enum ManifestFault {
    None,
    Missing(String),
    Elsewhere(String),
    Damaged(Error),
}

fn missing_file(db: &RootedPath) -> Result<ManifestFault> {
    let mut fault = ManifestFault::None;
    for _ in 0..LOOKS_MAX {
        let version = match version::read(db) {
            Ok(version) => version,
            // A new MANIFEST may have taken the old one's place between CURRENT and it.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Corrupt) => {
                fault = ManifestFault::Damaged(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        fault = missing_of(db, &version)?;
        if matches!(fault, ManifestFault::None | ManifestFault::Elsewhere(_)) {
            break;
        }
    }
    Ok(fault)
}

fn missing_of(db: &RootedPath, version: &Version) -> Result<ManifestFault> {
    let (tables, blobs) = present(db)?;
    for (number, table) in version.tables() {
        if table.path_id != 0 {
            return Ok(ManifestFault::Elsewhere(format!("{number:06}.sst")));
        }
        if !tables.contains(&number) {
            return Ok(ManifestFault::Missing(format!("{number:06}.sst")));
        }
    }
    let missing = version.blobs().into_iter().find(|number| !blobs.contains(number));
    Ok(missing
        .map_or(ManifestFault::None, |number| ManifestFault::Missing(format!("{number:06}.blob"))))
}

/// The first live file that the directory lacks.
pub(super) fn missing(db: &RootedPath, version: &Version) -> Result<Option<String>> {
    Ok(match missing_of(db, version)? {
        ManifestFault::Missing(file) | ManifestFault::Elsewhere(file) => Some(file),
        ManifestFault::None | ManifestFault::Damaged(_) => None,
    })
}

fn present(db: &RootedPath) -> Result<(BTreeSet<u64>, BTreeSet<u64>)> {
    let (mut tables, mut blobs) = (BTreeSet::new(), BTreeSet::new());
    for (name, _) in regular_files(db)? {
        match FileName::of(&name) {
            Some(FileName::Table(number)) => tables.insert(number),
            Some(FileName::Blob(number)) => blobs.insert(number),
            _ => continue,
        };
    }
    Ok((tables, blobs))
}

/// Regular files of a directory, by name.
fn regular_files(db: &RootedPath) -> Result<Vec<(std::ffi::OsString, RootedPath)>> {
    let db = db.enter().map_err(|errno| durable::met(db, "list", errno))?;
    let mut files = Vec::new();
    for name in durable::names(&db)? {
        let place = db.join(&name);
        if durable::stat(&place)?.is_some_and(|found| durable::is_file(&found)) {
            files.push((name, place));
        }
    }
    Ok(files)
}

/// The name and size of a table; older releases call it `.ldb`.
fn table_size(db: &RootedPath, number: u64) -> Result<(String, u64)> {
    let file = format!("{number:06}.sst");
    let old = format!("{number:06}.ldb");
    let file = if durable::stat(&db.join(&file))?.is_some() { file } else { old };
    let size = metadata::stamp(&db.join(&file))?.size;
    Ok((file, size))
}

/// The content of the newest OPTIONS file.
pub(super) fn newest_options(db: &RootedPath) -> Result<Option<String>> {
    for _ in 0..LOOKS_MAX {
        let mut options = regular_files(db)?;
        options.retain(|(name, _)| FileName::of(name) == Some(FileName::Options));
        let number = |name: &std::ffi::OsStr| -> u64 {
            name.to_str().and_then(|name| name[8..].parse().ok()).unwrap_or(0)
        };
        let Some((_, path)) = options.into_iter().max_by_key(|(name, _)| number(name)) else {
            return Ok(None);
        };
        match path.read(OPTIONS_BYTES_MAX) {
            Ok(bytes) => return Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            // A database in use replaces it.
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(durable::met(&path, "read", source)),
        }
    }
    Ok(None)
}

fn option<'a>(options: Option<&'a str>, name: &str) -> Option<&'a str> {
    options?.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))
}

fn number_option(options: Option<&str>, name: &str) -> u64 {
    option(options, name).and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// A log directory other than the database's own. Old releases wrote the database's path into every
/// OPTIONS file, so that after a move it names a place that no longer is: then logs here decide.
fn foreign_wal_dir(db: &RootedPath, options: &str) -> Result<Option<PathBuf>> {
    let Some(wal_dir) = option(Some(options), "wal_dir").filter(|wal_dir| !wal_dir.is_empty())
    else {
        return Ok(None);
    };
    let db_path = db.path();
    let wal_dir = db_path.join(wal_dir);
    if let (Ok(there), Ok(here)) = (wal_dir.canonicalize(), db_path.canonicalize()) {
        return Ok((there != here).then_some(wal_dir));
    }
    let logs_here = regular_files(db)?
        .iter()
        .any(|(name, _)| matches!(FileName::of(name), Some(FileName::Log(_))));
    Ok((!logs_here).then_some(wal_dir))
}

/// The database's identity: what its tables are known by besides their names.
fn identity(db: &RootedPath, version: &Version) -> String {
    match db.join("IDENTITY").read(IDENTITY_BYTES_MAX) {
        Ok(bytes) => crate::ids::encode(bytes.trim_ascii()),
        // Without one, tables are told apart by size, time and inode alone.
        Err(_) => version.manifest.clone(),
    }
}

/// RocksDB.
pub(super) struct RocksDb;

impl Engine for RocksDb {
    fn kind(&self) -> EngineKind {
        EngineKind::ROCKSDB
    }

    fn opens(&self) -> Opens {
        Opens::Name("CURRENT")
    }

    fn is_directory(&self, found: &FoundDir<'_>) -> Result<bool> {
        let tells = has_role(found, FileName::Options) || has_role(found, FileName::Identity);
        Ok(tells && has_version(found))
    }

    fn owns(&self, name: &OsStr) -> bool {
        FileName::of(name).is_some()
    }

    fn is_info_log(&self, name: &OsStr) -> bool {
        FileName::of(name) == Some(FileName::Info)
    }

    fn lock(&self) -> Lock {
        LOCK
    }

    fn in_use(&self) -> InUse {
        InUse::Alone
    }

    fn takes_hook(&self) -> bool {
        true
    }

    fn refusals(&self, database: &Database<'_>, _: NodeUse) -> Result<Vec<Error>> {
        refusals(&database.place(), database.name())
    }

    fn begin(&self, database: &Database<'_>, options: &CaptureOptions, env: &Env) -> Result<Begun> {
        if let Some((_, hook)) = options.hooks.iter().find(|(name, _)| name == database.name()) {
            let (capture, pause) = by_hook(database.dir, database.part, hook, env)?;
            return Ok(Begun::Hooked(capture, pause));
        }
        let begun = match database.is_held_by_others(LOCK)? {
            true => Begun::InUse,
            false => match offline(database, env) {
                Ok(capture) => Begun::Held(capture),
                // Opened by another process meanwhile.
                Err(_) if database.is_held_by_others(LOCK)? => Begun::InUse,
                Err(error) => return Err(error),
            },
        };
        match begun {
            Begun::InUse if options.offline => {
                Err(lock::rocksdb_in_use(&database.place(), database.name()))
            }
            begun => Ok(begun),
        }
    }

    fn begin_in_use(
        &self,
        databases: &[Database<'_>],
        _: &CaptureOptions,
        env: &Env,
    ) -> Result<(Vec<Box<dyn PartCapture>>, Barrier)> {
        let begin = |database: &Database<'_>| live(database.dir, database.part, env);
        let captures = databases.iter().map(begin).collect::<Result<Vec<_>>>()?;
        Ok((captures, if databases.len() == 1 { Barrier::Live } else { Barrier::None }))
    }

    fn still(&self, database: &Database<'_>) -> Result<Still> {
        let db = database.place();
        let version = version::read(&db)?;
        let verifier = Verifier::new(&version, newest_options(&db)?.as_deref());
        Ok(Still {
            listed: listed(&db, &db, database.root(), &version)?,
            engine_version: version_of(&db)?,
            verifier: Some(Box::new(verifier)),
            settle: None,
        })
    }

    fn is_log(&self, path: &RelPath) -> bool {
        matches!(FileName::of(path.name()), Some(FileName::Log(_)))
    }

    fn is_immutable(&self, path: &RelPath) -> bool {
        matches!(FileName::of(path.name()), Some(FileName::Table(_) | FileName::Blob(_)))
    }

    fn check(&self, database: &Database<'_>, depth: Depth, _: &Env) -> Result<Checked> {
        check::check(&database.place(), database.name(), depth)
    }
}

/// Captures a database while another process writes it.
fn live(dir: &RootedPath, part: &FoundPart, env: &Env) -> Result<Box<dyn PartCapture>> {
    let live::Image { set, version, options, warnings } = live::capture(dir, part, env)?;
    let options = options.as_deref();
    Ok(Box::new(Rocks {
        name: part.name.clone(),
        version: option(options, "rocksdb_version").map(str::to_owned),
        consistency: Consistency::Live,
        set,
        verifier: Verifier::new(&version, options),
        hold: Hold::Descriptors { warnings },
    }))
}

struct Rocks {
    name: String,
    version: Option<String>,
    consistency: Consistency,
    set: FileSet,
    verifier: Verifier,
    hold: Hold,
}

/// What keeps the files as they are.
enum Hold {
    Descriptors { warnings: Vec<String> },
    Checkpoint(Scratch),
}

fn by_hook(
    dir: &RootedPath,
    part: &FoundPart,
    hook: &CheckpointHook,
    env: &Env,
) -> Result<(Box<dyn PartCapture>, Duration)> {
    let db = dir.at(&part.root);
    let work = Scratch::create(&scratch::parent(dir, &part.root), CHECKPOINT_PREFIX, env)?;
    let checkpoint = work.path().join("checkpoint");
    let start = env.monotonic();
    hook(&checkpoint.path()).map_err(|source| {
        Error::unavailable(format!("the checkpoint hook of {} failed: {source}", part.name))
            .with_entry(&*part.name)
            .with_source(source)
    })?;
    let pause = env.monotonic().saturating_sub(start);
    let version = version::read(&checkpoint).map_err(|error| {
        Error::input(format!("the checkpoint hook of {} made no checkpoint: {error}", part.name))
            .with_entry(&*part.name)
            .with_source(error)
    })?;
    if let Some(file) = missing(&checkpoint, &version)? {
        return Err(Error::corrupt(format!("the checkpoint of {} lacks {file}", part.name))
            .with_entry(format!("{}/{file}", part.name)));
    }
    let set = FileSet::list(listed(&db, &checkpoint, &part.root, &version)?, Stability::Held, env)?
        .owned_like(&db.join("CURRENT"))?;
    let capture = Rocks {
        name: part.name.clone(),
        version: version_of(&checkpoint)?,
        consistency: Consistency::Checkpoint,
        set,
        verifier: Verifier::new(&version, newest_options(&checkpoint)?.as_deref()),
        hold: Hold::Checkpoint(work),
    };
    Ok((Box::new(capture), pause))
}

fn offline(database: &Database<'_>, env: &Env) -> Result<Box<dyn PartCapture>> {
    let (db, name) = (database.place(), database.name());
    // Who only reads it has no lock, and needs none.
    let lock = lock::record(&db.join("LOCK"), &db, name, lock::rocksdb_ways_out())?;
    // Looked at again under the lock: what discovery saw may have been in motion.
    if let Some(refusal) = refusals(&db, name)?.into_iter().next() {
        return Err(refusal);
    }
    offline::begin(database, lock, env)
}

fn version_of(db: &RootedPath) -> Result<Option<String>> {
    let options = newest_options(db)?;
    Ok(option(options.as_deref(), "rocksdb_version").map(str::to_owned))
}

/// The directory itself and the files in `source` that the database needs, tables that are no
/// longer live left out.
fn listed(
    db: &RootedPath,
    source: &RootedPath,
    root: &RelPath,
    version: &Version,
) -> Result<Vec<Listed>> {
    let (tables, blobs) = (version.tables(), version.blobs());
    let identity = identity(db, version);
    let entry = |path: RelPath, source, known_by| Listed {
        pinned: path.name() == "LOG",
        path,
        source,
        units: Units::Slices,
        known_by,
    };
    let mut listed = Vec::new();
    if *root != RelPath::root() {
        listed.push(entry(root.clone(), db.clone(), KnownBy::Content));
    }
    for (name, path) in regular_files(source)? {
        let role = FileName::of(&name);
        let wanted = match role {
            Some(FileName::Table(number)) => tables.contains_key(&number),
            Some(FileName::Blob(number)) => blobs.contains(&number),
            Some(FileName::Manifest) => name.to_str() == Some(&version.manifest),
            Some(FileName::Temporary) | None => false,
            // A lock with content would have to be opened, which would give the lock up.
            Some(FileName::Lock) => metadata::stamp(&path).is_ok_and(|lock| lock.size == 0),
            Some(_) => true,
        };
        if wanted {
            let known_by = match role {
                Some(FileName::Table(_) | FileName::Blob(_)) => KnownBy::Engine(identity.clone()),
                Some(FileName::Log(_)) => KnownBy::OldStamp,
                _ => KnownBy::Content,
            };
            listed.push(entry(root.join(&name), path, known_by));
        }
    }
    Ok(listed)
}

impl PartCapture for Rocks {
    fn name(&self) -> &str {
        &self.name
    }

    fn engine(&self) -> EngineKind {
        EngineKind::ROCKSDB
    }

    fn engine_version(&self) -> Option<String> {
        self.version.clone()
    }

    fn consistency(&self) -> Consistency {
        self.consistency
    }

    fn entries(&self) -> &[SourceEntry] {
        self.set.entries()
    }

    fn stream(
        &mut self,
        entry: usize,
        sink: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        self.verifier.stream(&self.set, entry, sink)
    }

    fn open(&self, entry: usize) -> Result<Option<File>> {
        self.set.open(entry).map(Some)
    }

    fn finish(self: Box<Self>) -> Result<Finished> {
        let mut finished = Finished { warnings: self.verifier.warnings(), ..Finished::default() };
        match self.hold {
            Hold::Descriptors { warnings } => finished.warnings.extend(warnings),
            Hold::Checkpoint(work) => work.remove()?,
        }
        Ok(finished)
    }
}

#[cfg(test)]
mod tests;
