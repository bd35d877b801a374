//! What is known of a node that embeds nothing of this: its kind, and marks that are read from what was
//! captured of it. So they are those of the barrier, whatever the node does meanwhile.

use std::collections::BTreeMap;

use crate::engine::{EngineKind, EntryType, Layout, PartCapture, Piece};
use crate::error::{Error, Kind, Result};
use crate::ids::{GuardKind, RelPath};
use crate::rooted::{is_only_ours, is_root};

/// How every SQLite database begins.
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";
/// No more of a node is taken into memory for its marks.
const CONTENT_BYTES_MAX: u64 = 64 << 20;

/// Knows kinds of nodes, by what lies in their directories.
pub trait Recogniser: Send + Sync {
    /// What is known of the node whose directory was found so.
    fn recognise(&self, layout: &Layout) -> Recognised;
}

/// What is known of a node.
#[derive(Default)]
pub struct Recognised {
    /// The names of its kinds; recorded in the snapshot.
    pub kinds: Vec<String>,
    /// How a restored copy of it is held back, where an old copy is dangerous by nature.
    pub guard: Option<GuardKind>,
    /// Reads its marks.
    pub marks: Option<Box<dyn MarkReader>>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Reads marks from the captured content of a node's files.
pub trait MarkReader: Send + Sync {
    /// Whether the content of a file is needed, and how much of it. Asked of every captured file.
    fn wants(&self, path: &RelPath) -> Option<Wanted>;

    /// The marks: named counters that only rise; and what kept others from being read, which is told while the
    /// backup goes on. `content` has what was asked for, as far as it was captured and fits into memory.
    fn read(&self, content: BTreeMap<RelPath, Vec<u8>>) -> (BTreeMap<String, u64>, Vec<Error>);
}

/// How much of a file is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    /// So many bytes at its beginning; of a shorter one all.
    Head(u64),
}

/// What a reader found, and what the operator should know of it.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) marks: BTreeMap<String, u64>,
    pub(super) warnings: Vec<String>,
}

/// Reads the marks of captured parts.
///
/// # Errors
/// What the capture says when it is read.
pub(super) fn read(
    reader: &dyn MarkReader,
    layout: &Layout,
    parts: &mut [Box<dyn PartCapture>],
) -> Result<Read> {
    let (mut content, mut room, mut found) = (BTreeMap::new(), CONTENT_BYTES_MAX, Read::default());
    for part in parts {
        if let Some(warning) = unsettled(part.as_ref(), reader) {
            found.warnings.push(warning);
            continue;
        }
        let wanted: Vec<(usize, RelPath, u64)> = part
            .entries()
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.kind == EntryType::File)
            .filter_map(|(index, entry)| {
                let bytes = match reader.wants(&entry.path)? {
                    Wanted::Whole => entry.size,
                    Wanted::Head(bytes) => bytes.min(entry.size),
                };
                Some((index, entry.path.clone(), bytes))
            })
            .collect();
        for (index, path, bytes) in wanted {
            let Some(left) = room.checked_sub(bytes) else {
                found.warnings.push(format!(
                    "the node's marks are not read from {path}, which has {bytes} bytes: at most {} are taken \
                     into memory",
                    CONTENT_BYTES_MAX
                ));
                continue;
            };
            room = left;
            let read = beginning(part.as_mut(), index, bytes)?;
            if read.starts_with(SQLITE_MAGIC) && is_anothers(layout, &path)? {
                found.warnings.push(format!(
                    "the node's marks are not read from {path}, which belongs to another user: root parses no \
                     database of theirs; run the backup as that user"
                ));
                continue;
            }
            content.insert(path, read);
        }
    }
    let (marks, errors) = reader.read(content);
    found.marks = marks;
    found.warnings.extend(errors.iter().map(|error| {
        format!("marks of the node could not be read, and are not recorded: {}", error.summary())
    }));
    Ok(found)
}

/// Whether this is root, and somebody else may have made what lies at `path`. A database is parsed by code
/// that is not safe from what it reads: it would be with rights that others could want to borrow.
fn is_anothers(layout: &Layout, path: &RelPath) -> Result<bool> {
    if !is_root() {
        return Ok(false);
    }
    let dir = layout.held();
    let owner =
        dir.root_owner().map_err(|error| Error::io(format!("can't look at {dir}"), error))?;
    Ok(owner.is_foreign() || !is_only_ours(&dir.at(path).path())?)
}

/// A SQLite that was captured as files has its last transactions in a log beside it: its main file alone says
/// less than is captured.
fn unsettled(part: &dyn PartCapture, reader: &dyn MarkReader) -> Option<String> {
    let wanted = part.entries().iter().any(|entry| reader.wants(&entry.path).is_some());
    let is_log = |name: &[u8]| name.ends_with(b"-wal") || name.ends_with(b"-journal");
    let mut entries = part.entries().iter();
    let logged = part.engine() == EngineKind::SQLITE
        && entries.any(|entry| entry.size > 0 && is_log(entry.path.as_bytes()));
    (wanted && logged).then(|| {
        format!(
            "the node's marks are not read from {}: what it wrote last is in a log beside it",
            part.name()
        )
    })
}

/// The first bytes of an entry.
fn beginning(part: &mut dyn PartCapture, index: usize, bytes: u64) -> Result<Vec<u8>> {
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
    if bytes == 0 {
        return Ok(content);
    }
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
