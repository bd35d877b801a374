//! What is known of a node that embeds nothing of this: its kind, and marks that are read from what was
//! captured of it. So they are those of the barrier, whatever the node does meanwhile.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::ops::Bound;
use std::path::Path;

use super::bolt::Bolt;
use super::rocksdb::{Rows, captured};
use super::{EngineKind, EntryType, Layout, PartCapture, Piece, Row};
use crate::error::{Error, Kind, Result};
use crate::ids::{GuardKind, RelPath};
use crate::rooted::{is_only_ours, is_root};

/// No more of a file is taken into memory for its marks.
const CONTENT_BYTES_MAX: u64 = 64 << 20;

/// How much memory the rows of all RocksDBs of a node take together.
const ROWS_BYTES_MAX: u64 = 256 << 20;

/// The first bytes of a rollback journal, by which one that still counts is known.
const JOURNAL_HEADER: u64 = 28;

/// Knows kinds of nodes, by what lies in their directories.
pub trait Recogniser: Send + Sync {
    /// What is known of the node whose directory was found so.
    fn recognise(&self, layout: &Layout) -> Recognised;

    /// Refuses to let a node in quarantine go whose kind asks for more than a reason: all of it, or one channel or
    /// part.
    ///
    /// # Errors
    /// Quarantined then, with what it asks for.
    fn refuse_release(&self, dir: &Path, channel: Option<&str>) -> Result<()> {
        let _ = (dir, channel);
        Ok(())
    }
}

/// What is known of a node.
#[derive(Default)]
pub struct Recognised {
    /// The names of its kinds; recorded in the snapshot.
    pub kinds: Vec<String>,
    /// How a restored copy of it is held back, where an old copy is dangerous by nature.
    pub guard: Option<GuardKind>,
    /// The plain files without which it can't act: a restored copy is held back by them as by its databases.
    pub entry_points: Vec<RelPath>,
    /// Plain files, and directories of them, that it keeps as one: they are captured at one instant.
    pub stores: Vec<RelPath>,
    /// Names of parts that tell of one instant, and can't be restored apart from each other, set by set.
    pub together: Vec<Vec<String>>,
    /// Reads its marks.
    pub marks: Option<Box<dyn MarkReader>>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Reads marks from what was captured of a node.
pub trait MarkReader: Send + Sync {
    /// The marks: named counters that only rise; and what kept others from being read, which is told while the
    /// backup goes on. Those of a channel have the names of `vault::channel_mark`.
    fn read(&self, captured: &mut CapturedFiles<'_>) -> (BTreeMap<String, u64>, Vec<Error>);
}

/// The files of a node as they were captured.
pub struct CapturedFiles<'a> {
    layout: &'a Layout,
    parts: &'a mut [Box<dyn PartCapture>],
    /// Part and entry of each file.
    files: BTreeMap<RelPath, (usize, usize)>,
    /// The database that was taken into memory last: most often it is asked again.
    held: Option<(RelPath, Vec<u8>)>,
    /// What rows may still take of memory.
    room: u64,
}

impl<'a> CapturedFiles<'a> {
    /// Of these parts.
    pub(crate) fn of(
        layout: &'a Layout,
        parts: &'a mut [Box<dyn PartCapture>],
    ) -> CapturedFiles<'a> {
        let mut files = BTreeMap::new();
        for (number, part) in parts.iter().enumerate() {
            let entries = part.entries().iter().enumerate();
            let regular = entries.filter(|(_, entry)| entry.kind == EntryType::File);
            files.extend(regular.map(|(index, entry)| (entry.path.clone(), (number, index))));
        }
        CapturedFiles { layout, parts, files, held: None, room: ROWS_BYTES_MAX }
    }

    /// Whether `path` is a file that was captured.
    pub fn has(&self, path: &RelPath) -> bool {
        self.files.contains_key(path)
    }

    /// Every file below the directory `dir`, in order.
    pub fn below<'b>(&'b self, dir: &'b RelPath) -> impl Iterator<Item = &'b RelPath> {
        let after = (Bound::Excluded(dir.clone()), Bound::Unbounded);
        let files = self.files.range(after).map(|(path, _)| path);
        // Names that begin like that of the directory may stand between: `a-b` is before `a/b`.
        let like = move |path: &&RelPath| path.as_bytes().starts_with(dir.as_bytes());
        files.take_while(like).filter(move |path| path.is_within(dir))
    }

    /// The first `bytes` of a file; of a shorter one all.
    ///
    /// # Errors
    /// Not found where it was not captured; input where that is more than is taken into memory; what the capture
    /// says.
    pub fn head(&mut self, path: &RelPath, bytes: u64) -> Result<Vec<u8>> {
        let (part, entry) = self.place(path)?;
        let part = self.parts[part].as_mut();
        let named = |error: Error| match error.entry() {
            Some(_) => error,
            None => error.with_entry(path.to_string()),
        };
        if !part.ready(entry).map_err(named)? {
            return Err(
                Error::not_found("it was removed during the capture").with_entry(path.to_string())
            );
        }
        let bytes = bytes.min(part.entries()[entry].size);
        if bytes > CONTENT_BYTES_MAX {
            return Err(Error::input(format!(
                "it has {bytes} bytes, of which at most {CONTENT_BYTES_MAX} are taken into memory for marks"
            ))
            .with_entry(path.to_string()));
        }
        beginning(part, entry, bytes)
    }

    /// All of a file.
    ///
    /// # Errors
    /// Those of [`CapturedFiles::head`].
    pub fn whole(&mut self, path: &RelPath) -> Result<Vec<u8>> {
        self.head(path, u64::MAX)
    }

    /// The rows of the RocksDB in the directory `root` whose keys begin with one of `prefixes`, of its default
    /// column family. All that are read of a node take 256 MiB at most.
    ///
    /// # Errors
    /// Not found where it was not captured, or a file of it is missing; corrupt where one is damaged; input where its
    /// rows are written in a way that is not read here, or take too much memory; what the capture says.
    pub fn rows(&mut self, root: &RelPath, prefixes: &[&[u8]]) -> Result<Rows> {
        let current = root.join(OsStr::new("CURRENT"));
        let (part, _) = self.place(&current)?;
        captured(self.parts[part].as_mut(), root, prefixes, &mut self.room)
    }

    /// A bbolt database, of which single buckets are read.
    ///
    /// # Errors
    /// Not found where it was not captured; input where it was not captured as a file that stands still; corrupt
    /// where it is none.
    pub fn bolt(&mut self, path: &RelPath) -> Result<Bolt> {
        let (file, _) = self.file(path)?;
        Bolt::open(file).map_err(|error| error.with_entry(path.to_string()))
    }

    /// A file to look at parts of it, and how many bytes of it were captured: what lies behind them does not count.
    ///
    /// # Errors
    /// Not found where it was not captured; input where it was not captured as a file that stands still.
    pub fn file(&mut self, path: &RelPath) -> Result<(File, u64)> {
        let (part, entry) = self.place(path)?;
        let part = &self.parts[part];
        let whole = || Error::input("it can only be read as a whole").with_entry(path.to_string());
        let file = part.open(entry)?.ok_or_else(whole)?;
        Ok((file, part.entries()[entry].size))
    }

    /// The rows that a query finds in the captured SQLite database `path`. What is asked stands in the code: it
    /// only reads. A column named `head:TABLE:COLUMN:BYTES` gives numbers of rows (`rowid`) of that table; in their
    /// place stand the first so many bytes of that column's values, of which no more is read.
    ///
    /// # Errors
    /// Not found where it was not captured. Input where it was captured as files and is too large for memory, or
    /// its last transactions are in a log beside it. Denied where this is root, the database belongs to another
    /// user, and was captured as files. What SQLite says.
    pub fn query(&mut self, path: &RelPath, sql: &str) -> Result<Vec<Row>> {
        let (part, _) = self.place(path)?;
        if let Some(rows) = self.parts[part].query(sql)? {
            return Ok(rows);
        }
        if self.held.as_ref().is_none_or(|(held, _)| held != path) {
            refuse_unsettled(self.parts[part].as_mut(), path)?;
            refuse_anothers(self.layout, path)?;
            self.held = Some((path.clone(), self.whole(path)?));
        }
        match &self.held {
            Some((_, content)) => ask(content, sql, path),
            None => Ok(Vec::new()),
        }
    }

    fn place(&self, path: &RelPath) -> Result<(usize, usize)> {
        let place = self.files.get(path).copied();
        place.ok_or_else(|| Error::not_found("it was not captured").with_entry(path.to_string()))
    }
}

#[cfg(feature = "sqlite")]
fn ask(content: &[u8], sql: &str, path: &RelPath) -> Result<Vec<Row>> {
    super::query_of(content, sql, &path.to_string())
}

#[cfg(not(feature = "sqlite"))]
fn ask(_content: &[u8], _sql: &str, path: &RelPath) -> Result<Vec<Row>> {
    Err(Error::input("this build has no SQLite").with_entry(path.to_string()))
}

/// A database is parsed by code that is not safe from what it reads: root would do so with rights that others
/// could want to borrow.
fn refuse_anothers(layout: &Layout, path: &RelPath) -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let dir = layout.held();
    let owner =
        dir.root_owner().map_err(|error| Error::io(format!("can't look at {dir}"), error))?;
    if !owner.is_foreign() && is_only_ours(&dir.at(path).path())? {
        return Ok(());
    }
    Err(Error::denied(
        "it was captured as files and belongs to another user: root parses no database of theirs",
    )
    .with_entry(path.to_string())
    .with_remedy("back up as that user"))
}

/// A SQLite that was captured as files has its last transactions in a log beside it: its main file alone says
/// less than is captured. A rollback journal whose header is overwritten with zeros is over: who holds a
/// database exclusively leaves it so.
fn refuse_unsettled(part: &mut dyn PartCapture, path: &RelPath) -> Result<()> {
    if part.engine() != EngineKind::SQLITE {
        return Ok(());
    }
    let filled = part.entries().iter().enumerate().filter(|(_, entry)| entry.size > 0);
    let ends = |entry: &RelPath, suffix: &[u8]| entry.as_bytes().ends_with(suffix);
    let mut logged = filled.clone().any(|(_, entry)| ends(&entry.path, b"-wal"));
    let journals: Vec<usize> =
        filled.filter(|(_, entry)| ends(&entry.path, b"-journal")).map(|(at, _)| at).collect();
    for journal in journals {
        logged |= beginning(part, journal, JOURNAL_HEADER)?.iter().any(|byte| *byte != 0);
    }
    if !logged {
        return Ok(());
    }
    Err(Error::input("it was captured as files, and what was written last is in a log beside it")
        .with_entry(path.to_string()))
}

/// The first bytes of an entry.
fn beginning(part: &mut dyn PartCapture, index: usize, bytes: u64) -> Result<Vec<u8>> {
    if bytes == 0 {
        return Ok(Vec::new());
    }
    if let Some(head) = part.head(index, bytes)? {
        return Ok(head);
    }
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
    // To stop in the middle may cost the capture its other process: only where there is a rest.
    let whole = part.entries().get(index).is_some_and(|entry| entry.size == bytes);
    let read = part.stream(index, &mut |piece| {
        let left = usize::try_from(bytes).unwrap_or(usize::MAX) - content.len();
        match piece {
            Piece::Data(data) => content.extend_from_slice(&data[..data.len().min(left)]),
            Piece::Hole(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                content.resize(content.len() + length.min(left), 0);
            }
        }
        if !whole && content.len() as u64 == bytes { Err(Error::interrupted()) } else { Ok(()) }
    });
    match read {
        Err(error) if error.kind() != Kind::Interrupted || (content.len() as u64) < bytes => {
            Err(error)
        }
        _ => Ok(content),
    }
}

#[cfg(test)]
mod tests;
