//! The shape of what is known of a kind of node.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::sync::Arc;

use highwater::engine::bolt::Bolt;
use highwater::engine::rocksdb::Rows;
use highwater::engine::{CapturedFiles, Cell, Row};
use highwater::guard::Adapter;
use highwater::ids::RelPath;
use highwater::{Error, Result};

use crate::floor::Signer;

/// A kind of node. One file each; every part but the marks has to be written.
pub trait Profile: Send + Sync {
    /// Its name, as `inspect` shows it: lower-case letters and hyphens.
    fn name(&self) -> &'static str;

    /// Where in a node directory such nodes lie: the root, or the directory of a network.
    fn found_in(&self, files: &Files<'_>) -> Vec<RelPath>;

    /// What makes an old copy of it dangerous, in one sentence without a full stop; `None` where nothing does:
    /// then it is known for what it can leave out.
    fn danger(&self) -> Option<&'static str>;

    /// What must be there, by paths below where it was found: of each list one.
    fn must(&self) -> &'static [&'static [&'static str]];

    /// What it fetches or builds again, by paths below where it was found.
    fn lean(&self) -> &'static [&'static str] {
        &[]
    }

    /// The plain files without which it can't act, by paths below where it was found: a restored copy is held back
    /// by them as by its databases.
    fn entry_points(&self) -> &'static [&'static str] {
        &[]
    }

    /// Plain files, and directories of them, that it keeps as one and replaces one by one, by paths below where it
    /// was found: they are captured at one instant.
    fn stores(&self) -> &'static [&'static str] {
        &[]
    }

    /// How what it has signed is raised before a restored copy signs again, where it signs by numbers.
    fn signer(&self) -> Option<&dyn Signer> {
        None
    }

    /// What has to be done before a released copy is started, where that can't be done here: a sentence without
    /// a full stop.
    fn before_start(&self) -> Option<&'static str> {
        None
    }

    /// The safe ways on from a restored copy of which nobody knows that it is the newest state, and what each costs;
    /// sentences. `None` where there is no other than to find that out.
    fn way_out(&self) -> Option<&'static str> {
        None
    }

    /// Files of which each change is worth a backup, by their paths in the node directory, of a node that was found
    /// at `at`.
    fn watched(&self, at: &RelPath) -> Vec<RelPath> {
        let _ = at;
        Vec::new()
    }

    /// What marks its channels stale in its own database, before a restore withholds that.
    fn second_belt(&self) -> Option<Arc<dyn Adapter>> {
        None
    }

    /// Adds its marks: named counters that only rise, from what was captured of it. Those of a channel or a key
    /// have the names of [`channel_mark`](highwater::vault::channel_mark).
    ///
    /// # Errors
    /// Corrupt where the content is none that such a node writes; those of [`Content`]. What was added before
    /// stays.
    fn marks(&self, content: &mut Content<'_, '_>, marks: &mut Marks) -> Result<()> {
        let _ = (content, marks);
        Ok(())
    }
}

/// Marks by their names.
pub type Marks = BTreeMap<String, u64>;

/// The files and directories of a node directory, by their paths.
pub struct Files<'a> {
    paths: &'a BTreeSet<RelPath>,
}

impl<'a> Files<'a> {
    /// Of these paths.
    pub fn new(paths: &'a BTreeSet<RelPath>) -> Files<'a> {
        Files { paths }
    }

    /// Whether something stands at `name`, names with slashes between them, below `at`.
    pub fn has(&self, at: &RelPath, name: &str) -> bool {
        self.paths.contains(&below(at, name))
    }

    /// Every directory below which something stands at `name`: what is above the whole of it.
    pub fn with(&self, name: &str) -> Vec<RelPath> {
        let depth = name.split('/').count();
        let ends = |path: &&RelPath| path.as_bytes().ends_with(name.as_bytes());
        let above = |path: &RelPath| {
            let mut above = Some(path.clone());
            for _ in 0..depth {
                above = above?.parent();
            }
            above.filter(|above| below(above, name) == *path)
        };
        self.paths.iter().filter(ends).filter_map(above).collect()
    }

    /// Everything right in the directory `at`.
    pub fn right_in(&self, at: &RelPath) -> impl Iterator<Item = &'a RelPath> {
        let dir = Some(at.clone());
        self.paths.iter().filter(move |path| path.parent() == dir)
    }

    /// Everything right in the directory `name` below `at`.
    pub fn inside(&self, at: &RelPath, name: &str) -> impl Iterator<Item = &'a RelPath> {
        let dir = below(at, name);
        self.paths.iter().filter(move |path| path.parent().as_ref() == Some(&dir))
    }
}

/// The path of `name`, names with slashes between them, below `at`.
pub(crate) fn below(at: &RelPath, name: &str) -> RelPath {
    name.split('/').fold(at.clone(), |path, name| path.join(OsStr::new(name)))
}

/// What was captured of a node, by paths below where it was found.
pub struct Content<'a, 'b> {
    at: &'a RelPath,
    captured: &'a mut CapturedFiles<'b>,
}

impl<'a, 'b> Content<'a, 'b> {
    pub(crate) fn new(at: &'a RelPath, captured: &'a mut CapturedFiles<'b>) -> Content<'a, 'b> {
        Content { at, captured }
    }

    /// Where the node was found.
    pub fn at(&self) -> &'a RelPath {
        self.at
    }

    /// Every file of it, by its path in the node directory.
    pub fn all(&self) -> Vec<RelPath> {
        self.captured.below(self.at).cloned().collect()
    }

    /// The path of `name` in the node directory.
    pub fn path(&self, name: &str) -> RelPath {
        below(self.at, name)
    }

    /// Whether the file `name` was captured.
    pub fn has(&self, name: &str) -> bool {
        self.captured.has(&self.path(name))
    }

    /// All of the file `name`.
    ///
    /// # Errors
    /// Those of [`CapturedFiles::whole`].
    pub fn file(&mut self, name: &str) -> Result<Vec<u8>> {
        self.captured.whole(&below(self.at, name))
    }

    /// The first bytes of a file of [`Content::inside`].
    ///
    /// # Errors
    /// Those of [`CapturedFiles::head`].
    pub fn head(&mut self, path: &RelPath, bytes: u64) -> Result<Vec<u8>> {
        self.captured.head(path, bytes)
    }

    /// Every file in the directory `name`, and in directories in it, by its path in the node directory.
    pub fn inside(&self, name: &str) -> Vec<RelPath> {
        let dir = self.path(name);
        self.captured.below(&dir).cloned().collect()
    }

    /// The names of files called `name` in directories right below where the node was found.
    pub fn databases(&self, name: &str) -> Vec<String> {
        let found = self.captured.below(self.at).filter(|path| path.name() == name);
        let one = found.filter_map(|path| {
            let dir = path.parent()?;
            let within = dir.parent().as_ref() == Some(self.at);
            within.then(|| Some(format!("{}/{name}", dir.name().to_str()?))).flatten()
        });
        one.collect()
    }

    /// The rows that a query finds in the SQLite database `name`.
    ///
    /// # Errors
    /// Those of [`CapturedFiles::query`].
    pub fn query(&mut self, name: &str, sql: &str) -> Result<Vec<Row>> {
        self.captured.query(&below(self.at, name), sql)
    }

    /// The rows of the RocksDB in the directory `name` whose keys begin with one of `prefixes`.
    ///
    /// # Errors
    /// Those of [`CapturedFiles::rows`].
    pub fn rows(&mut self, name: &str, prefixes: &[&[u8]]) -> Result<Rows> {
        self.captured.rows(&below(self.at, name), prefixes)
    }

    /// A file of [`Content::inside`], to look at parts of it, and how many bytes of it were captured.
    ///
    /// # Errors
    /// Those of [`CapturedFiles::file`].
    pub fn open(&mut self, path: &RelPath) -> Result<(File, u64)> {
        self.captured.file(path)
    }

    /// The bbolt database `name`.
    ///
    /// # Errors
    /// Those of [`CapturedFiles::bolt`].
    pub fn bolt(&mut self, name: &str) -> Result<Bolt> {
        self.captured.bolt(&below(self.at, name))
    }
}

/// A whole number that can't be negative, in a row that a query found.
///
/// # Errors
/// Corrupt where the cell is none.
pub(crate) fn number(row: &Row, column: usize, what: &str) -> Result<u64> {
    let number = row.get(column).and_then(Cell::integer);
    number
        .and_then(|number| u64::try_from(number).ok())
        .ok_or_else(|| Error::corrupt(format!("{what} is no number of a counter")))
}
