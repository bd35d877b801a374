//! Databases and plain files of a node, and how each is captured while the node may be running.
//!
//! [`discover`] finds the parts by looking; [`capture`] takes one image of all of them at a barrier;
//! [`check`] opens a restored copy. Nothing here knows of vaults.

mod barrier;
mod cells;
#[cfg(feature = "sqlite")]
pub mod confined;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod discover;
mod engines;
mod files;
mod found;
pub mod freeze;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod kinds;
mod lock;
mod metadata;
mod pages;
mod points;
mod process;
pub mod rocksdb;
mod scratch;
mod sqlite;
mod standard;
mod table;

pub use cells::{Cell, Row};
pub(crate) use discover::{in_files, part_name};
pub use engines::still::Still;
pub use engines::{Begun, Database, Engine, Extent, InUse, NodeUse};
pub use found::{FoundDir, FoundFile, HEAD_BYTES, Head};
pub use kinds::{CapturedFiles, MarkReader, Recognised, Recogniser};
pub use lock::Lock;
pub(crate) use metadata::{is_read_only, look_at};
pub use pages::bolt;
pub use points::PointHook;
pub use table::Engines;

#[cfg(feature = "sqlite")]
use sqlite::rows_of as query_of;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use crate::records::{
    Barrier, Consistency, EngineKind, EntryType, Identity, Metadata, Opens, ReplicaPoint, Units,
};
pub use crate::rooted::refuse_for_root;

use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::{RelPath, Time};
use crate::rooted::RootedPath;

/// One database, or all the plain files, of a node directory.
#[derive(Clone, Debug)]
pub struct FoundPart {
    /// The path inside the node directory, percent-encoded (`.` for the directory itself); `files`
    /// for the plain files.
    pub name: String,
    /// What keeps its data.
    pub engine: EngineKind,
    /// The database's directory, or its main file; the root for plain files.
    pub root: RelPath,
    /// Its files and directories, sorted.
    pub entries: Vec<RelPath>,
    /// Regular files among the entries.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A node directory, as found.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The directory, absolute and without links.
    pub dir: PathBuf,
    /// Databases first, by path; plain files last.
    pub parts: Vec<FoundPart>,
    /// Why it can't be captured as it stands; empty where it can.
    pub refusals: Vec<Error>,
    /// What looks like a database and is none, and other things that the operator should know.
    pub notes: Vec<String>,
    /// The same, held.
    held: RootedPath,
    /// By what it was found, so that it can be looked at again.
    options: DiscoverOptions,
}

/// What belongs to a node, beyond what lies in its directory.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DiscoverOptions {
    /// Globs over paths inside the node directory that are left out.
    pub exclude: Vec<String>,
    /// Symbolic links (by their path inside the node directory) that lead out of it, with the
    /// target that the caller agrees to: kept as links, although what they lead to is not captured.
    pub include: Vec<(String, PathBuf)>,
    /// By which engines it is looked at.
    pub engines: Engines,
}

impl Layout {
    /// The directory, held.
    pub(crate) fn held(&self) -> &RootedPath {
        &self.held
    }

    /// The engines by which it was found.
    pub fn engines(&self) -> &Engines {
        &self.options.engines
    }
}

/// A file of the node that a process has open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// The process id; 0 if only the lock that it holds is known, because it runs in another container or
    /// belongs to another user.
    pub pid: u32,
    /// Its name, as the kernel gives it.
    pub command: String,
    /// The file.
    pub file: RelPath,
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            0 => f.write_str("a process that can't be seen from here"),
            pid => write!(f, "{} (pid {pid})", self.command),
        }
    }
}

/// Makes a checkpoint of one RocksDB in the directory given, which does not exist yet and whose
/// parent does: what `Checkpoint::create_checkpoint` of any RocksDB binding does.
pub type CheckpointHook =
    Arc<dyn Fn(&Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + Sync>;

/// Holds the writers of the node still, calls the given capture with the node's marks (named counters
/// that only rise) at that instant, and lets the writers continue when the call returns. Checkpoint
/// hooks run inside it, so they must not wait for what is held.
pub type HoldHook = Arc<
    dyn Fn(
            &mut dyn FnMut(BTreeMap<String, u64>),
        ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
        + Send
        + Sync,
>;

/// How a capture goes about it.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct CaptureOptions {
    /// Holds the node's writers and reports its marks. It is the barrier of all databases that only the
    /// node writes.
    pub hold: Option<HoldHook>,
    /// Checkpoint hooks, by part name. With several, the node holds its writes until the last one
    /// has run: that makes the instant which its databases share.
    pub hooks: Vec<(String, CheckpointHook)>,
    /// What tells where the replicated stores of parts stand, by part name: for databases that can't
    /// be asked from outside. SQLite is.
    pub points: Vec<(String, PointHook)>,
    /// Several databases without a common instant are accepted.
    pub allow_no_barrier: bool,
    /// A RocksDB that another process has open is a conflict, instead of being captured while that one
    /// writes.
    pub offline: bool,
    /// Plain files, and directories of them, that the node keeps as one and replaces one by one: those of all of
    /// these are captured at one instant.
    pub stores: Vec<RelPath>,
    /// How long a writer in rollback-journal mode may be kept waiting; `None`: 30 seconds.
    pub block_max: Option<std::time::Duration>,
    /// Stops the node for as long as an image of its files takes, instead of all that is above.
    pub freeze: Option<freeze::Freeze>,
}

/// One entry of a part, as captured.
#[derive(Clone, Debug)]
pub struct SourceEntry {
    /// Where it stands in the node directory.
    pub path: RelPath,
    /// Its type.
    pub kind: EntryType,
    /// What the file system says of it.
    pub meta: Metadata,
    /// Bytes of content; 0 for all but regular files.
    pub size: u64,
    /// Holes: offset and length, sorted, not touching.
    pub holes: Vec<(u64, u64)>,
    /// How its content is cut.
    pub units: Units,
    /// By what it is known to be unchanged; `None` where it has to be read, also where its times
    /// are too young to be trusted.
    pub identity: Option<Identity>,
}

/// A piece of a file's content, in order.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Bytes.
    Data(&'a [u8]),
    /// So many zero bytes that the file does not store.
    Hole(u64),
}

/// What has become of an entry since the barrier.
#[derive(Clone, Debug)]
pub enum Revised {
    /// It was captured as this entry.
    Changed(SourceEntry),
    /// It was not captured.
    Gone,
}

/// One part, held consistent from the barrier until it is finished or dropped.
pub trait PartCapture: Send {
    /// The part's name.
    fn name(&self) -> &str;

    /// What keeps its data.
    fn engine(&self) -> EngineKind;

    /// The version of the engine or of its format that wrote it, where it can be told.
    fn engine_version(&self) -> Option<String>;

    /// How it is made consistent.
    fn consistency(&self) -> Consistency;

    /// Where the replicated store in it stood, where there is one that can be asked.
    fn replica(&self) -> Option<ReplicaPoint> {
        None
    }

    /// Whether it keeps a writer of the node waiting, or the node from starting, until it is finished.
    fn holds_up(&self) -> bool {
        self.consistency() == Consistency::Offline
    }

    /// Its entries at the barrier, sorted by path; a directory before what is in it.
    fn entries(&self) -> &[SourceEntry];

    /// Looks at a regular file right before it is streamed: a node replaces and removes plain files at any time.
    /// What it has become stands in [`PartCapture::entries`] then. `false` where it is gone: there is nothing to
    /// stream.
    ///
    /// # Errors
    /// Conflict where it changes all the time.
    fn ready(&mut self, entry: usize) -> Result<bool> {
        let _ = entry;
        Ok(true)
    }

    /// Once all files are streamed: entries that have come while others went, added at the end of
    /// [`PartCapture::entries`]. Asked again until there are none.
    ///
    /// # Errors
    /// Those of a look at the node directory, and what forbids its capture by now.
    fn arrived(&mut self) -> Result<Vec<usize>> {
        Ok(Vec::new())
    }

    /// What has become of entries since the barrier, by their places.
    fn revised(&mut self) -> Vec<(usize, Revised)> {
        Vec::new()
    }

    /// The first `bytes` of a regular file, of which exactly this content is captured; `None` where it can only be
    /// streamed.
    ///
    /// # Errors
    /// Not found where it is gone; those of [`PartCapture::stream`].
    fn head(&mut self, entry: usize, bytes: u64) -> Result<Option<Vec<u8>>> {
        let _ = (entry, bytes);
        Ok(None)
    }

    /// Hands the content of a regular file (by its place in [`PartCapture::entries`]) to `sink`,
    /// exactly `size` bytes of it. A file that changed under the reader is a conflict.
    fn stream(&mut self, entry: usize, sink: &mut dyn FnMut(Piece<'_>) -> Result<()>)
    -> Result<()>;

    /// The rows that a query in SQL finds, at the barrier; `None` where the part can't be asked.
    fn query(&mut self, sql: &str) -> Result<Option<Vec<Row>>> {
        let _ = sql;
        Ok(None)
    }

    /// Opens a regular file by its place in [`PartCapture::entries`], to look at parts of it: of what it holds,
    /// `size` bytes are captured. `None` where it can only be streamed.
    ///
    /// # Errors
    /// Conflict where the file is not the one that was captured.
    fn open(&self, entry: usize) -> Result<Option<std::fs::File>> {
        let _ = entry;
        Ok(None)
    }

    /// Ends the capture and gives up its locks: called after the last `stream`. An error means that
    /// what was streamed is not consistent.
    fn finish(self: Box<Self>) -> Result<Finished>;
}

/// What is known at the end of a part's capture.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Finished {
    /// How long a writer of the node could have been kept waiting.
    pub blocked: std::time::Duration,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// All parts of a node, behind one barrier.
pub struct Captured {
    /// In the order of [`Layout::parts`].
    pub parts: Vec<Box<dyn PartCapture>>,
    /// What was captured, as it was found: by a freeze, while the node stood still.
    pub layout: Layout,
    /// What kind of instant they share.
    pub barrier: Barrier,
    /// When the barrier was.
    pub time: Time,
    /// How long the node was stopped or held.
    pub pause: std::time::Duration,
    /// The marks that the node told at the barrier.
    pub marks: BTreeMap<String, u64>,
    /// Where replicated stores stood, by part name, as the node told.
    pub points: Vec<(String, ReplicaPoint)>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// How deep a restored database is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Depth {
    /// Opened read-only; sizes and page counts fit.
    Open,
    /// The engine's own check of all its data: every table read, `PRAGMA integrity_check`.
    Full,
}

/// What the check of a restored database found besides errors.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// What could not be checked, and why (a comparator that only the node knows, say).
    pub warnings: Vec<String>,
    /// Databases of which only the bytes were examined.
    pub unchecked: Vec<String>,
}

/// Finds the parts of a node directory by looking. Opens no file that a process of ours has open.
///
/// ```
/// use std::path::Path;
/// use highwater::engine::{DiscoverOptions, discover};
///
/// # let scratch = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(scratch.path()).unwrap();
/// # std::fs::create_dir("node").unwrap();
/// # std::fs::write("node/state", "seven channels").unwrap();
/// let layout = discover(Path::new("node"), &DiscoverOptions::default())?;
/// for part in &layout.parts {
///     println!("{} ({}): {} files, {} bytes", part.name, part.engine, part.files, part.bytes);
/// }
/// assert_eq!(layout.parts[0].name, "files");
/// # Ok::<(), highwater::Error>(())
/// ```
///
/// # Errors
/// Not found where there is no such directory; input where it is not a directory, or a glob or an
/// agreed link is malformed or fits nothing.
pub fn discover(dir: &Path, options: &DiscoverOptions) -> Result<Layout> {
    discover::discover(dir, options)
}

/// Takes one image of all parts of `layout`.
///
/// # Errors
/// The first refusal of the layout; conflict where a database is in use and can't be captured so,
/// or where several have no instant in common.
pub fn capture(layout: &Layout, options: &CaptureOptions, env: &crate::Env) -> Result<Captured> {
    barrier::capture(layout, options, env)
}

/// Who has files of `dir` open: the processes that this user can see, and whoever holds the lock of a
/// database in it, as one of `engines` takes it.
///
/// # Errors
/// Not found where there is no such directory; unavailable where the system doesn't tell.
pub fn users(dir: &Path, engines: &Engines) -> Result<Vec<User>> {
    let mut users = process::users(dir)?;
    let options = DiscoverOptions { engines: engines.clone(), ..DiscoverOptions::default() };
    // A directory in which nothing is recognised has no lock to ask for.
    let Ok(layout) = discover::discover_still(dir, &options) else {
        return Ok(users);
    };
    for part in layout.parts.iter().filter(|part| part.engine != EngineKind::FILES) {
        let root = layout.held.at(&part.root);
        let known = users.iter().any(|user| user.file.is_within(&part.root));
        if !known && lock::is_held_by_others(&root, engines.of(part)?.lock())? {
            let (command, file) = ("?".to_owned(), part.root.clone());
            users.push(User { pid: 0, command, file });
        }
    }
    Ok(users)
}

/// What would keep each database of `layout` from being captured now, asked of the code that captures
/// it: it is begun, and given up. Where nothing keeps any of them, what keeps them from being captured
/// together.
pub fn obstacles(layout: &Layout, env: &Env) -> Vec<Error> {
    let named = |error: Error, name: &str| match error.entry() {
        Some(_) => error,
        None => error.with_entry(name),
    };
    let attempt = |part: &FoundPart| barrier::attempt(layout, part, env).err();
    let refused = |part: &FoundPart| Some(attempt(part)?.with_entry(part.name.clone()));
    let alone: Vec<Error> = layout.parts.iter().filter_map(refused).collect();
    if !alone.is_empty() || !layout.refusals.is_empty() {
        return alone;
    }
    let together = barrier::capture(layout, &CaptureOptions::default(), env).err();
    together.map(|error| named(error, "databases")).into_iter().collect()
}

/// Checks one restored part of the node directory `dir`, read-only: every file of it stays
/// byte-identical. Of a part whose engine is none of `engines` nothing is checked, and that is said.
///
/// # Errors
/// Corrupt where the database lacks a file, or its engine finds it damaged.
pub fn check(
    dir: &Path,
    kind: EngineKind,
    root: &RelPath,
    depth: Depth,
    engines: &Engines,
) -> Result<Checked> {
    check_at(&RootedPath::open(dir)?, kind, root, depth, engines, &Env::system())
}

/// [`check`] in a directory that is held.
pub(crate) fn check_at(
    dir: &RootedPath,
    kind: EngineKind,
    root: &RelPath,
    depth: Depth,
    engines: &Engines,
    env: &Env,
) -> Result<Checked> {
    if kind == EngineKind::FILES {
        return Ok(Checked::default());
    }
    let part = engines.restored(dir, kind, root);
    match engines.get(kind) {
        Some(engine) => engine.check(&Database { dir, part: &part, engine }, depth, env),
        None => Ok(engines::unchecked(&part.name, depth)),
    }
}
