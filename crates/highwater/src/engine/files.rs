//! Plain files, and the files of a database that somebody holds still: listed at the barrier, read
//! afterwards, never torn.

mod instant;
mod plain;

pub(super) use plain::begin;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;

use rustix::fs::Advice;

use super::metadata::{self, Found, Stamp};
use super::process::{self, FileId, OwnLocks};
use super::{EntryType, Identity, Piece, SourceEntry, Units};
use crate::copying;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::{RelPath, Time};
use crate::rooted::{self, RootedPath};

/// How much is read at once.
const READ_BYTES: usize = 1 << 20;

/// A file up to this size is read into memory, and again where it changed meanwhile.
const SMALL_BYTES_MAX: u64 = 4 << 20;

/// A modification time younger than this proves nothing: the next write may carry the same one.
const YOUNG_NS: i64 = 2_000_000_000;

/// Where a process may be hidden from this one, it may write through memory: the kernel then sets the
/// time when it next writes the page to disk, within half a minute by its defaults.
const YOUNG_HIDDEN_NS: i64 = 60_000_000_000;

/// How far the files of a set can be trusted to stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stability {
    /// The node may write: a file may grow, and nothing else.
    Loose,
    /// A lock is held, or they are ours: a change is a conflict.
    Held,
    /// Nobody is known to have them open, and no lock keeps others out: a change is a conflict, also one
    /// that only the content tells.
    Watched,
}

/// Files as listed at the barrier.
pub(super) struct FileSet {
    entries: Vec<SourceEntry>,
    sources: Vec<Source>,
    /// The first name of each file that has several.
    names: HashMap<FileId, RelPath>,
    stability: Stability,
    /// A time younger than this proves nothing of a file's content.
    young_ns: i64,
    /// Whether the file systems of these devices tell times that prove something.
    devices: HashMap<u64, bool>,
    locks: OwnLocks,
    env: Env,
}

struct Source {
    path: RootedPath,
    stamp: Stamp,
    stability: Stability,
    pinned: Option<File>,
    /// It may grow behind what was listed of it, in whatever set it is.
    grows: bool,
}

/// A file that is held open from its listing on, whatever becomes of its name.
pub(super) struct HeldFile {
    /// Where it stands, and by which name it was opened.
    pub(super) listed: Listed,
    /// What it was when it was listed.
    pub(super) found: Found,
    /// What its content is read from; `None` where it has none.
    pub(super) file: Option<File>,
    /// It is appended to: what it had when it was listed stays as it was.
    pub(super) grows: bool,
}

/// Where an entry is read, and how it is cut.
pub(super) struct Listed {
    /// Its path inside the node directory.
    pub(super) path: RelPath,
    /// Where it is read.
    pub(super) source: RootedPath,
    /// How it is cut.
    pub(super) units: Units,
    /// Kept open from the listing on: somebody may rename it.
    pub(super) pinned: bool,
    /// By what it is known to be unchanged.
    pub(super) known_by: KnownBy,
}

/// By what an unchanged file is known without being read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KnownBy {
    /// By nothing: it is read each time.
    Content,
    /// By its stamp, once that is so old that a later write would leave another one.
    Stamp,
    /// The same of one that somebody may write through memory who can't be seen.
    OldStamp,
    /// By what its engine says: it is never written again under its name.
    Engine(String),
}

impl FileSet {
    /// Lists entries, sorted by path; this is their barrier.
    pub(super) fn list(
        listed: impl IntoIterator<Item = Listed>,
        stability: Stability,
        env: &Env,
    ) -> Result<FileSet> {
        let mut set = FileSet::empty(stability, env);
        let mut near = None;
        for listed in listed {
            let found = look_near(&mut near, &listed.source).map_err(|source| {
                vanished_or(&listed.path, &source).unwrap_or_else(|| {
                    Error::io("can't look at it", source).with_entry(name(&listed))
                })
            })?;
            set.push(listed, found)?;
        }
        debug_assert!(set.entries.is_sorted_by(|a, b| a.path < b.path));
        Ok(set)
    }

    /// Of an image that is ours: each entry as its original was when the image was taken.
    pub(super) fn of_image(image: Vec<(Listed, Found)>, env: &Env) -> Result<FileSet> {
        let mut set = FileSet::empty(Stability::Held, env);
        for (listed, found) in image {
            let path = listed.source.clone();
            let content = found.kind == EntryType::File && found.stamp.size > 0;
            set.push(listed, found)?;
            if let Some(source) = set.sources.last_mut().filter(|_| content) {
                source.stamp = metadata::stamp(&path)?;
            }
        }
        debug_assert!(set.entries.is_sorted_by(|a, b| a.path < b.path));
        Ok(set)
    }

    /// Of files that are held open.
    pub(super) fn of_held(files: Vec<HeldFile>, env: &Env) -> Result<FileSet> {
        let mut set = FileSet::empty(Stability::Held, env);
        for HeldFile { listed, found, file, grows } in files {
            // Read as they are: what has no name any more can't be opened to look for holes.
            let stored = found.stamp.size;
            set.push(listed, Found { stored, ..found })?;
            if let Some(source) = set.sources.last_mut() {
                (source.pinned, source.grows) = (file, grows);
            }
        }
        debug_assert!(set.entries.is_sorted_by(|a, b| a.path < b.path));
        Ok(set)
    }

    fn empty(stability: Stability, env: &Env) -> FileSet {
        let (entries, sources, names) = (Vec::new(), Vec::new(), HashMap::new());
        let young_ns = if process::sees_all() { YOUNG_NS } else { YOUNG_HIDDEN_NS };
        let (devices, locks) = (HashMap::new(), OwnLocks::new(env));
        FileSet { entries, sources, names, stability, young_ns, devices, locks, env: env.clone() }
    }

    /// Files that only this set has (a checkpoint's own) get mode and owner of `model`.
    pub(super) fn owned_like(mut self, model: &RootedPath) -> Result<FileSet> {
        let model_meta = metadata::read(model)?;
        let parent = model.above();
        for (entry, source) in self.entries.iter_mut().zip(&self.sources) {
            let original = parent.join(entry.path.name());
            let linked = metadata::stamp(&original).is_ok_and(|stamp| stamp.id == source.stamp.id);
            if entry.kind == EntryType::File && !linked {
                entry.meta.mode = model_meta.mode;
                entry.meta.uid = model_meta.uid;
                entry.meta.gid = model_meta.gid;
            }
        }
        Ok(self)
    }

    /// The entries.
    pub(super) fn entries(&self) -> &[SourceEntry] {
        &self.entries
    }

    /// Opens one file, to look into it before it is streamed.
    pub(super) fn open(&self, index: usize) -> Result<File> {
        let (Some(entry), Some(source)) = (self.entries.get(index), self.sources.get(index)) else {
            return Err(Error::bug("a capture was asked for an entry that it doesn't have"));
        };
        self.refuse_locked(entry, source)?;
        Ok(Reader::open(entry, source, self.young_ns)?.file)
    }

    /// Whoever closes a file gives up the locks that its process has on it.
    fn refuse_locked(&self, entry: &SourceEntry, source: &Source) -> Result<()> {
        if source.stability == Stability::Held || !self.locks.held(source.stamp.id.1) {
            return Ok(());
        }
        Err(locked(&entry.path))
    }

    /// Hands the content of one file to `sink`.
    pub(super) fn stream(
        &self,
        index: usize,
        sink: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let (Some(entry), Some(source)) = (self.entries.get(index), self.sources.get(index)) else {
            return Err(Error::bug("a capture was asked for an entry that it doesn't have"));
        };
        if entry.kind != EntryType::File || entry.size == 0 {
            return Ok(());
        }
        self.refuse_locked(entry, source)?;
        let mut reader = Reader::open(entry, source, self.young_ns)?;
        match source.stability {
            Stability::Held if source.grows => reader.grown(sink),
            Stability::Held => reader.held(sink),
            Stability::Watched => reader.watched(self.env.now(), sink),
            Stability::Loose => reader.large(self.env.now(), sink),
        }
    }

    /// By what a file that looks so is known later on, where its times are old enough to prove anything.
    fn identity(&mut self, listed: &Listed, found: &Found) -> Option<Identity> {
        let Stamp { id, size, mtime_ns, ctime_ns } = found.stamp;
        let now = self.env.now().as_nanos();
        let engine = match &listed.known_by {
            KnownBy::Content => return None,
            KnownBy::Engine(engine) => {
                (mtime_ns <= now.saturating_sub(YOUNG_NS)).then(|| engine.as_str().into())?
            }
            KnownBy::Stamp | KnownBy::OldStamp => {
                let young_ns = match listed.known_by {
                    KnownBy::OldStamp => YOUNG_HIDDEN_NS,
                    _ => self.young_ns,
                };
                let old = mtime_ns.max(ctime_ns) <= now.saturating_sub(young_ns);
                (old && self.tells_times(listed, id.0))
                    .then(|| format!("changed {ctime_ns}").into())?
            }
        };
        Some(Identity { size, mtime_ns, inode: id.1, engine })
    }

    /// Whether the file system that a file is on tells the times of its own writes, at once: one that another
    /// machine or program keeps may tell them late, by another clock.
    fn tells_times(&mut self, listed: &Listed, device: u64) -> bool {
        if let Some(&known) = self.devices.get(&device) {
            return known;
        }
        let above = listed.source.above().enter();
        let tells = above.is_ok_and(|above| metadata::is_local(&above, device));
        self.devices.insert(device, tells);
        tells
    }

    /// Makes room for so many more entries: a node may have a million.
    fn reserve(&mut self, entries: usize) {
        self.entries.reserve(entries);
        self.sources.reserve(entries);
    }

    fn push(&mut self, listed: Listed, mut found: Found) -> Result<()> {
        refuse_borrowed(&listed, &found)?;
        if found.kind == EntryType::File && found.names > 1 {
            match self.names.entry(found.stamp.id) {
                Entry::Occupied(first) => {
                    found.kind = EntryType::Hardlink { to: first.get().clone() }
                }
                Entry::Vacant(none) => {
                    none.insert(listed.path.clone());
                }
            }
        }
        let file = found.kind == EntryType::File;
        let size = if file { found.stamp.size } else { 0 };
        let pinned =
            if listed.pinned && file { Some(open(&listed.source, &listed.path)?) } else { None };
        let holes = if file { holes_of(&listed, &found)? } else { Vec::new() };
        let identity = if file { self.identity(&listed, &found) } else { None };
        self.entries.push(SourceEntry {
            path: listed.path,
            kind: found.kind,
            meta: found.meta,
            size,
            holes,
            units: listed.units,
            identity,
        });
        let stability = self.stability;
        let (path, stamp) = (listed.source, found.stamp);
        self.sources.push(Source { path, stamp, stability, pinned, grows: false });
        Ok(())
    }
}

/// Looks at a file by the hold of its directory, which most often is that of the one before.
fn look_near(
    near: &mut Option<(RootedPath, RootedPath)>,
    place: &RootedPath,
) -> std::io::Result<Found> {
    let above = place.above();
    let dir = match near.take() {
        Some((known, dir)) if known.is_same(&above) => dir,
        _ => above.enter()?,
    };
    let found = if place.name().is_empty() {
        metadata::look(place)
    } else {
        metadata::look(&dir.join(place.name()))
    };
    *near = Some((above, dir));
    found
}

fn name(listed: &Listed) -> String {
    listed.path.to_string()
}

/// A file is opened for its holes only where it stores less than it is long.
fn holes_of(listed: &Listed, found: &Found) -> Result<Vec<(u64, u64)>> {
    if found.stored >= found.stamp.size {
        return Ok(Vec::new());
    }
    let file = open(&listed.source, &listed.path)?;
    copying::holes(&file, found.stamp.size)
        .map_err(|source| Error::io("can't find its holes", source).with_entry(name(listed)))
}

/// Root reads for a directory's owner what that one may not, so no file of somebody else's that has only
/// been given a further name there.
fn refuse_borrowed(listed: &Listed, found: &Found) -> Result<()> {
    if found.names < 2 || !rooted::is_root() {
        return Ok(());
    }
    let owner = listed.source.root_owner();
    let owner = owner.map_err(|errno| Error::io("can't look at the node directory", errno))?;
    if owner.uid == 0 || !found.is_borrowed(owner) {
        return Ok(());
    }
    Err(Error::denied(format!(
        "{} is a further name of a file of user {}, not of the node's",
        listed.path, found.meta.uid
    ))
    .with_entry(name(listed))
    .with_remedy("look who linked it, and remove it; or leave it out with an exclude glob"))
}

fn open(path: &RootedPath, entry: &RelPath) -> Result<File> {
    path.open_file().map_err(|source| {
        vanished_or(entry, &source).unwrap_or_else(|| {
            let error = Error::io("can't open it", source).with_entry(entry.to_string());
            if error.kind() == crate::Kind::Denied {
                error.with_remedy(
                    "run as a user who may read it, or leave it out with an exclude glob",
                )
            } else {
                error
            }
        })
    })
}

fn locked(path: &RelPath) -> Error {
    Error::conflict(format!("{path} is locked by this very process"))
        .with_entry(path.to_string())
        .with_remedy("to read it would give the lock up: leave it out with an exclude glob")
}

/// The conflict of an entry that was listed and is gone, or has become a link.
fn vanished_or(entry: &RelPath, source: &std::io::Error) -> Option<Error> {
    let link = source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    let other = matches!(
        source.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidInput
    );
    (other || link).then(|| {
        Error::conflict(format!("{entry} was removed or replaced during the capture"))
            .with_entry(entry.to_string())
            .with_remedy("try again; if it never rests, leave it out with an exclude glob")
    })
}

struct Reader<'a> {
    file: File,
    entry: &'a SourceEntry,
    listed: Stamp,
    young_ns: i64,
}

impl<'a> Reader<'a> {
    fn open(entry: &'a SourceEntry, source: &Source, young_ns: i64) -> Result<Reader<'a>> {
        let file = match &source.pinned {
            Some(file) => file.try_clone().map_err(|source| {
                Error::io("can't read it", source).with_entry(entry.path.to_string())
            })?,
            None => open(&source.path, &entry.path)?,
        };
        Reader::over(file, entry, source, young_ns)
    }

    /// Of a file that is open already.
    fn over(
        file: File,
        entry: &'a SourceEntry,
        source: &Source,
        young_ns: i64,
    ) -> Result<Reader<'a>> {
        let reader = Reader { file, entry, listed: source.stamp, young_ns };
        let now = reader.stamp()?;
        if now.id != reader.listed.id || now.size < entry.size {
            return Err(reader.changed());
        }
        // Advice only: a file system that ignores it reads as well.
        let _ = rustix::fs::fadvise(&reader.file, 0, None, Advice::Sequential);
        Ok(reader)
    }

    fn held(&mut self, sink: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
        self.pass(&self.entry.holes, sink)?;
        // Links to a table come and go with the database's own work, and change the file's ctime.
        if self.stamp()?.same_content(&self.listed) { Ok(()) } else { Err(self.changed()) }
    }

    /// What was there when it was listed, of a file to which its engine only appends.
    fn grown(&mut self, sink: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
        self.pass(&[], sink)?;
        if self.stamp()?.size >= self.entry.size { Ok(()) } else { Err(self.changed()) }
    }

    /// [`Reader::large`], except that growth is a change.
    fn watched(&mut self, now: Time, sink: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
        self.large(now, sink)?;
        if self.stamp()?.same_content(&self.listed) { Ok(()) } else { Err(self.changed()) }
    }

    /// Streams in one pass. Where the file grew since it was listed, or may have changed without a
    /// trace, what was streamed is compared with a second pass: growth leaves it as it was.
    fn large(&mut self, now: Time, sink: &mut dyn FnMut(Piece<'_>) -> Result<()>) -> Result<()> {
        let entry = self.entry;
        let mut first = Content::new();
        self.pass(&entry.holes, &mut |piece| {
            first.add(&piece);
            sink(piece)
        })?;
        if self.rested(now)? {
            return Ok(());
        }
        let stamp = self.stamp()?;
        if stamp != self.listed && stamp.size <= entry.size {
            return Err(self.changed());
        }
        let mut second = Content::new();
        // Looked for again: what was written into a hole since the listing is a change.
        let holes = copying::holes(&self.file, entry.size);
        let holes = holes
            .map_err(|source| Error::io("can't find its holes", source).with_entry(self.name()))?;
        self.pass(&holes, &mut |piece| {
            second.add(&piece);
            Ok(())
        })?;
        if first.finish() == second.finish() { Ok(()) } else { Err(self.changed()) }
    }

    /// Whether the file is as it was listed, and its times are old enough to prove it.
    fn rested(&self, now: Time) -> Result<bool> {
        let stamp = self.stamp()?;
        let changed = stamp.mtime_ns.max(stamp.ctime_ns);
        Ok(stamp == self.listed && changed <= now.as_nanos().saturating_sub(self.young_ns))
    }

    /// One pass over the bytes as listed, `holes` left out.
    fn pass(
        &mut self,
        holes: &[(u64, u64)],
        sink: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        let mut position = 0;
        for &(offset, length) in holes {
            self.data(position, offset, &mut buffer, sink)?;
            sink(Piece::Hole(length))?;
            position = offset + length;
        }
        self.data(position, self.entry.size, &mut buffer, sink)
    }

    fn data(
        &mut self,
        start: u64,
        end: u64,
        buffer: &mut [u8],
        sink: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut position = start;
        while position < end {
            let most = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
            let read = match self.file.read_at(&mut buffer[..most], position) {
                Ok(0) => return Err(self.changed()),
                Ok(read) => read,
                Err(source) if source.kind() == ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(Error::io("can't read it", source).with_entry(self.name()));
                }
            };
            sink(Piece::Data(&buffer[..read]))?;
            position += read as u64;
        }
        Ok(())
    }

    fn stamp(&self) -> Result<Stamp> {
        Stamp::of_file(&self.file)
            .map_err(|source| Error::io("can't look at it", source).with_entry(self.name()))
    }

    fn name(&self) -> String {
        self.entry.path.to_string()
    }

    fn changed(&self) -> Error {
        plain::changed(self.entry)
    }
}

/// Blocks that hold nothing but zeros count for nothing in what is compared: of a sparse file two passes may find
/// other holes, and need not look at any.
const BLOCK_BYTES: usize = 4096;

/// What a file holds, to be compared with another pass: its blocks and where each stands.
struct Content {
    hasher: blake3::Hasher,
    /// The block that is being filled, and how far it is.
    block: Vec<u8>,
    /// Where that block stands in the file.
    start: u64,
}

impl Content {
    fn new() -> Content {
        Content { hasher: blake3::Hasher::new(), block: Vec::with_capacity(BLOCK_BYTES), start: 0 }
    }

    fn add(&mut self, piece: &Piece<'_>) {
        match *piece {
            Piece::Data(mut bytes) => {
                while !bytes.is_empty() {
                    let room = BLOCK_BYTES - self.block.len();
                    let (now, later) = bytes.split_at(bytes.len().min(room));
                    self.block.extend_from_slice(now);
                    bytes = later;
                    if self.block.len() == BLOCK_BYTES {
                        self.end_block();
                    }
                }
            }
            Piece::Hole(length) => {
                let within = (BLOCK_BYTES - self.block.len()) as u64;
                if length < within {
                    self.block.resize(self.block.len() + length as usize, 0);
                    return;
                }
                self.end_block();
                let rest = length - within;
                self.start += rest / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
                self.block.resize((rest % BLOCK_BYTES as u64) as usize, 0);
            }
        }
    }

    fn end_block(&mut self) {
        if self.block.iter().fold(0, |all, byte| all | byte) != 0 {
            self.hasher.update(&self.start.to_le_bytes());
            self.hasher.update(&self.block);
            // What is missing at the end of a block is a hole.
            let missing = BLOCK_BYTES - self.block.len();
            self.hasher.update(&[0; BLOCK_BYTES][..missing]);
        }
        self.block.clear();
        self.start += BLOCK_BYTES as u64;
    }

    fn finish(mut self) -> blake3::Hash {
        self.end_block();
        self.hasher.finalize()
    }
}

#[cfg(test)]
mod tests;
