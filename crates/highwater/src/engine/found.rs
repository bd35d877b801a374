//! What engines may look at to recognise their databases: directories by the names in them, files by their
//! first bytes.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;

use super::process::{self, FileId};
use super::{EngineKind, FoundPart, metadata};
use crate::durable;
use crate::error::Result;
use crate::ids::RelPath;
use crate::rooted::RootedPath;

mod heads;

pub(super) use heads::Heads;

/// How much of a file is looked at.
pub const HEAD_BYTES: usize = 64;

/// The shortest beginning of a file by which a built-in engine is known.
const MAGIC_BYTES_MIN: u64 = 9;
/// The shortest main file of any engine that is built in: one page of SQLite's smallest. What is shorter
/// is looked into only where its name says that it was one, or a log of SQLite's lies beside it: a node
/// may have a hundred thousand small files.
const DATABASE_BYTES_MIN: u64 = 512;
/// How the names of databases end, those of SQLite's besides.
const DATABASE_SUFFIXES: [&str; 5] = [".mdb", ".mdbx", ".dat", ".redb", ".bolt"];
/// Names by which a file that can't be looked into is taken for SQLite's.
const SQLITE_SUFFIXES: [&str; 3] = [".db", ".sqlite", ".sqlite3"];
/// The files that SQLite keeps beside a database.
pub(super) const SQLITE_SIBLINGS: [&str; 3] = ["-journal", "-shm", "-wal"];

/// An entry, as walked over.
pub(super) struct Node {
    pub(super) kind: NodeKind,
    pub(super) size: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeKind {
    File,
    Dir,
    Link,
    Other,
}

/// The entries of a node directory, and the names of each directory's regular files.
pub(super) struct Tree {
    pub(super) dir: RootedPath,
    pub(super) nodes: BTreeMap<RelPath, Node>,
    pub(super) files: BTreeMap<RelPath, BTreeSet<OsString>>,
    /// What this process had open before a look at every file; `None`: asked again at each file, for a directory
    /// in which it works meanwhile.
    pub(super) own: Option<BTreeSet<FileId>>,
}

impl Tree {
    /// Of a directory in which nothing was seen yet.
    pub(super) fn new(dir: &RootedPath) -> Tree {
        let files = BTreeMap::from([(RelPath::root(), BTreeSet::new())]);
        Tree { dir: dir.clone(), nodes: BTreeMap::new(), files, own: None }
    }

    /// Adds what was seen at `path`.
    pub(super) fn insert(&mut self, path: RelPath, kind: NodeKind, size: u64) {
        let above = path.parent().unwrap_or_else(RelPath::root);
        match kind {
            NodeKind::File => {
                self.files.entry(above).or_default().insert(path.name().to_owned());
            }
            NodeKind::Dir => {
                self.files.entry(path.clone()).or_default();
            }
            NodeKind::Link | NodeKind::Other => {}
        }
        self.nodes.insert(path, Node { kind, size });
    }

    pub(super) fn is_file(&self, path: &RelPath) -> bool {
        self.nodes.get(path).is_some_and(|node| node.kind == NodeKind::File)
    }

    /// A part made of `entries`, sorted.
    pub(super) fn part(
        &self,
        name: String,
        engine: EngineKind,
        root: RelPath,
        entries: Vec<RelPath>,
    ) -> FoundPart {
        let nodes = entries.iter().filter_map(|path| self.nodes.get(path));
        let files: Vec<u64> =
            nodes.filter(|node| node.kind == NodeKind::File).map(|node| node.size).collect();
        FoundPart {
            name,
            engine,
            root,
            files: files.len() as u64,
            bytes: files.iter().sum(),
            entries,
        }
    }
}

/// A directory of a node that may be a database.
pub struct FoundDir<'a> {
    pub(super) tree: &'a Tree,
    pub(super) path: &'a RelPath,
    pub(super) names: &'a BTreeSet<OsString>,
}

impl FoundDir<'_> {
    /// Where it stands in the node directory.
    pub fn path(&self) -> &RelPath {
        self.path
    }

    /// The names of the regular files in it, sorted.
    pub fn files(&self) -> impl Iterator<Item = &OsStr> {
        self.names.iter().map(OsString::as_os_str)
    }

    /// Whether a regular file of this name is in it.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(OsStr::new(name))
    }

    /// Whether anything of this name is in it.
    pub fn has_entry(&self, name: &str) -> bool {
        self.tree.nodes.contains_key(&self.path.join(OsStr::new(name)))
    }

    /// Whether a file in it begins so. One that this process has open is not looked into, and is taken to.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn begins(&self, name: &str, with: &[u8]) -> Result<bool> {
        Ok(
            match head(
                &self.tree.dir.at(&self.path.join(OsStr::new(name))),
                self.tree.own.as_ref(),
            )? {
                Head::Bytes(bytes) => bytes.starts_with(with),
                Head::Ours => true,
                Head::Denied => false,
            },
        )
    }
}

/// A file of a node that may be the main file of a database.
pub struct FoundFile<'a> {
    tree: &'a Tree,
    path: &'a RelPath,
    size: u64,
    head: OnceCell<Head>,
    candidate: OnceCell<bool>,
}

/// The first bytes of a file, where they may be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// They are these: [`HEAD_BYTES`], or all of a shorter file.
    Bytes(Vec<u8>),
    /// This process has it open, so that it must not be looked into.
    Ours,
    /// This user may not read it.
    Denied,
}

impl<'a> FoundFile<'a> {
    pub(super) fn new(tree: &'a Tree, path: &'a RelPath) -> FoundFile<'a> {
        let size = tree.nodes.get(path).map_or(0, |node| node.size);
        FoundFile { tree, path, size, head: OnceCell::new(), candidate: OnceCell::new() }
    }

    /// One whose first bytes were looked at already.
    pub(super) fn with_head(mut self, head: Head) -> FoundFile<'a> {
        self.head = OnceCell::from(head);
        self
    }

    /// Where it stands in the node directory.
    pub fn path(&self) -> &RelPath {
        self.path
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether a regular file lies beside it whose name is this one's with `suffix`.
    pub fn has_beside(&self, suffix: &str) -> bool {
        self.tree.is_file(&beside(self.path, suffix))
    }

    /// Its first bytes, read once.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn head(&self) -> Result<&Head> {
        if let Some(head) = self.head.get() {
            return Ok(head);
        }
        let head = head(&self.tree.dir.at(self.path), self.tree.own.as_ref())?;
        Ok(self.head.get_or_init(|| head))
    }

    /// Whether its first bytes are such. One that can't be looked into is no database by them; nor is one
    /// that is too small for any engine that is built in.
    pub(super) fn begins_as(&self, known: impl Fn(&[u8]) -> bool) -> Result<bool> {
        if !self.is_candidate() {
            return Ok(false);
        }
        Ok(match self.head()? {
            Head::Bytes(bytes) => known(bytes),
            Head::Ours | Head::Denied => false,
        })
    }

    /// Whether it is called as SQLite's databases are.
    pub(super) fn is_called_sqlite(&self) -> bool {
        SQLITE_SUFFIXES.iter().any(|suffix| ends(self.path.name(), suffix))
    }

    /// Whether one of SQLite's files lies beside it.
    pub(super) fn has_sqlite_beside(&self) -> bool {
        SQLITE_SIBLINGS.iter().any(|suffix| self.has_beside(suffix))
    }

    /// Whether it is worth a look for engines that are built in.
    pub(super) fn is_candidate(&self) -> bool {
        *self.candidate.get_or_init(|| {
            self.size >= MAGIC_BYTES_MIN
                && (self.size >= DATABASE_BYTES_MIN
                    || self.is_called_sqlite()
                    || DATABASE_SUFFIXES.iter().any(|suffix| ends(self.path.name(), suffix))
                    || self.has_sqlite_beside())
        })
    }

    /// Fills `bytes` from the beginning of the file; whether it has that many, and may be read.
    pub(super) fn read(&self, bytes: &mut [u8]) -> bool {
        let _looking = process::looking();
        let file = self.tree.dir.at(self.path).open_file();
        file.is_ok_and(|file| file.read_exact_at(bytes, 0).is_ok())
    }
}

pub(super) fn ends(name: &OsStr, ending: &str) -> bool {
    name.as_bytes().ends_with(ending.as_bytes())
}

/// The path whose name is that of `path` with `suffix`.
pub(super) fn beside(path: &RelPath, suffix: &str) -> RelPath {
    let mut name = path.name().to_owned();
    name.push(suffix);
    path.parent().unwrap_or_else(RelPath::root).join(&name)
}

/// Looks at a file's first bytes, unless this process has it open. Of one that is gone there are none.
fn head(path: &RootedPath, own: Option<&BTreeSet<FileId>>) -> Result<Head> {
    let _looking = process::looking();
    let is_own = match own {
        Some(own) => {
            durable::stat(path)?.is_some_and(|found| own.contains(&metadata::id_of(&found)))
        }
        None => process::has_open(path)?,
    };
    if is_own {
        return Ok(Head::Ours);
    }
    match opened(path)? {
        Opened::File(file) => read_head(&file, path).map(Head::Bytes),
        Opened::Gone => Ok(Head::Bytes(Vec::new())),
        Opened::Denied => Ok(Head::Denied),
    }
}

/// What became of opening a file.
enum Opened {
    File(File),
    /// It is gone, or no regular file any more.
    Gone,
    Denied,
}

fn opened(path: &RootedPath) -> Result<Opened> {
    match path.open_file() {
        Ok(file) => Ok(Opened::File(file)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(Opened::Denied),
        Err(error) if is_gone(&error) => Ok(Opened::Gone),
        Err(error) => Err(durable::met(path, "open", error)),
    }
}

/// Whether an error says that there is no such file any more, or something else in its place.
fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidInput)
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

fn read_head(file: &File, path: &RootedPath) -> Result<Vec<u8>> {
    first_bytes(file).map_err(|error| durable::met(path, "read", error))
}

fn first_bytes(file: &File) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD_BYTES];
    let mut length = 0;
    while length < HEAD_BYTES {
        match file.read_at(&mut bytes[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}
