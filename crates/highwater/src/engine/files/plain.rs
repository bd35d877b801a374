//! The plain files of a running node. It replaces, removes and adds some at any time: each is captured as it is
//! when its turn comes, never torn; one that went is left out, and what came in its place is taken instead. Files
//! that are one store have one instant, or are not captured.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::instant::{Content, Copied, Instant, Store};
use super::{
    FileSet, KnownBy, Listed, READ_BYTES, Reader, SMALL_BYTES_MAX, Source, Stability, look_near,
    name, open, refuse_borrowed, vanished_or,
};
use crate::engine::metadata::{self, Stamp};
use crate::engine::process::FileId;
use crate::engine::scratch::Scratch;
use crate::engine::{
    Consistency, DiscoverOptions, EngineKind, EntryType, Finished, FoundPart, Layout, PartCapture,
    Piece, Revised, SourceEntry, Units, discover,
};
use crate::env::Env;
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// How often a file that changes is read before the capture gives up.
const RETRIES_MAX: u32 = 8;

/// How often the node directory is looked at again for files that came while others went.
const LOOKS_MAX: u32 = 5;

/// So much of files that were looked into before they are captured is kept, so that what was seen is what is
/// captured.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// All plain files of a node.
pub(super) struct PlainFiles {
    name: String,
    /// The node directory, and by what it is looked at again.
    dir: RootedPath,
    options: DiscoverOptions,
    set: FileSet,
    /// The content of an entry that is to be streamed next, or what it is read from.
    ready: Option<(usize, Ready)>,
    /// What was looked into.
    kept: BTreeMap<usize, Vec<u8>>,
    /// Entries that are not as they were listed, or are gone.
    revised: BTreeMap<usize, Presence>,
    /// Files with several names, to which the first one leads.
    linked: BTreeSet<FileId>,
    /// A file went since the last look at the directory: it may stand somewhere else by now.
    went: bool,
    looks: u32,
    warnings: Vec<String>,
    /// What was captured at one instant.
    stores: Vec<RelPath>,
    /// The copies of that.
    home: Option<Scratch>,
}

enum Ready {
    Small(Vec<u8>),
    Large(File),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    There,
    Gone,
}

/// Lists the plain files: their barrier. Those at and below `stores` are captured at one instant, which is over when
/// this returns.
pub(in crate::engine) fn begin(
    layout: &Layout,
    part: &FoundPart,
    stores: &[RelPath],
    env: &Env,
) -> Result<Box<dyn PartCapture>> {
    let mut plain = PlainFiles {
        name: part.name.clone(),
        dir: layout.held().clone(),
        options: layout.options.clone(),
        set: FileSet::empty(Stability::Loose, env),
        ready: None,
        kept: BTreeMap::new(),
        revised: BTreeMap::new(),
        linked: BTreeSet::new(),
        went: false,
        looks: 0,
        warnings: Vec::new(),
        stores: stores.to_vec(),
        home: None,
    };
    let Some(store) = Store::of(layout, part, stores, env) else {
        plain.list(&part.entries)?;
        return Ok(Box::new(plain));
    };
    // Nobody writes there; and no copy could be made.
    if metadata::is_read_only(layout.held())? {
        let held: BTreeSet<RelPath> =
            part.entries.iter().filter(|path| store.has(path)).cloned().collect();
        plain.list(&part.entries)?;
        plain.hold(&held);
        return Ok(Box::new(plain));
    }
    let Instant { entries, home } = store.copy()?;
    plain.home = home;
    plain.list_beside(part.entries.iter().filter(|path| !store.has(path)), entries)?;
    Ok(Box::new(plain))
}

impl PlainFiles {
    /// Adds entries in the order of their paths: those of an instant, of which there are copies, and others.
    fn list_beside<'a>(
        &mut self,
        others: impl Iterator<Item = &'a RelPath>,
        instant: BTreeMap<RelPath, Copied>,
    ) -> Result<()> {
        let mut others = others.peekable();
        for (path, copied) in instant {
            let mut before = Vec::new();
            while let Some(other) = others.next_if(|other| **other < path) {
                before.push(other.clone());
            }
            self.list(&before)?;
            self.push_copy(copied)?;
        }
        let after: Vec<RelPath> = others.cloned().collect();
        self.list(&after)
    }

    fn push_copy(&mut self, Copied { listed, mut found, content }: Copied) -> Result<()> {
        let place = listed.source.clone();
        if matches!(content, Content::InMemory(_)) {
            // Nobody asks the file that stands there now for its holes.
            found.stored = found.stamp.size;
        }
        self.set.push(listed, found)?;
        let index = self.set.entries.len() - 1;
        match content {
            Content::InMemory(bytes) => drop(self.kept.insert(index, bytes)),
            Content::OnDisk => {
                self.set.sources[index].stability = Stability::Held;
                self.set.sources[index].stamp = metadata::stamp(&place)?;
            }
            // It stays empty, whatever becomes of it.
            Content::Nothing => self.set.sources[index].stability = Stability::Held,
        }
        Ok(())
    }

    /// From now on a change of these is a conflict.
    fn hold(&mut self, paths: &BTreeSet<RelPath>) {
        for (entry, source) in self.set.entries.iter().zip(&mut self.set.sources) {
            if paths.contains(&entry.path) {
                source.stability = Stability::Held;
            }
        }
    }

    /// Adds entries; those that are gone by now are left out.
    fn list(&mut self, paths: &[RelPath]) -> Result<()> {
        self.set.reserve(paths.len());
        let mut near = None;
        for path in paths {
            let source = self.dir.at(path);
            let listed = Listed {
                path: path.clone(),
                source,
                units: Units::Slices,
                pinned: false,
                known_by: KnownBy::Stamp,
            };
            let found = match look_near(&mut near, &listed.source) {
                Ok(found) => found,
                Err(error) if vanished_or(path, &error).is_some() => {
                    self.went = true;
                    continue;
                }
                Err(error) => {
                    return Err(Error::io("can't look at it", error).with_entry(name(&listed)));
                }
            };
            match self.set.push(listed, found) {
                // Opened for its holes.
                Err(error) if error.kind() == Kind::Conflict => self.went = true,
                pushed => pushed?,
            }
            let last = self.set.entries.last().zip(self.set.sources.last());
            if let Some((SourceEntry { kind: EntryType::Hardlink { .. }, .. }, source)) = last {
                self.linked.insert(source.stamp.id);
            }
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(&SourceEntry, &Source)> {
        let found = self.set.entries.get(index).zip(self.set.sources.get(index));
        found.ok_or_else(|| Error::bug("a capture was asked for an entry that it doesn't have"))
    }

    /// Makes an entry ready to be streamed; `false` where it is gone.
    fn make_ready(&mut self, index: usize) -> Result<bool> {
        if self.ready.as_ref().is_some_and(|(ready, _)| *ready == index) {
            return Ok(true);
        }
        self.ready = None;
        if let Some(content) = self.kept.remove(&index) {
            self.ready = Some((index, Ready::Small(content)));
            return Ok(true);
        }
        let (entry, source) = self.entry(index)?;
        if entry.kind != EntryType::File || source.stability != Stability::Loose {
            return Ok(true);
        }
        for _ in 0..RETRIES_MAX {
            let (entry, source) = self.entry(index)?;
            self.set.refuse_locked(entry, source)?;
            let file = match open(&source.path, &entry.path) {
                Ok(file) => file,
                Err(error) if error.kind() == Kind::Conflict => {
                    return self.gone(index).map(|()| false);
                }
                Err(error) => return Err(error),
            };
            let stamp = Stamp::of_file(&file).map_err(|error| {
                Error::io("can't look at it", error).with_entry(entry.path.to_string())
            })?;
            let listed = source.stamp;
            // One that only grew is captured to the length that it had.
            let grew = stamp.id == listed.id && stamp.size > listed.size;
            if stamp != listed && !grew {
                if !self.look_again(index)? {
                    return Ok(false);
                }
                if self.entry(index)?.1.stamp != stamp {
                    continue;
                }
            }
            let (entry, _) = self.entry(index)?;
            if entry.size > SMALL_BYTES_MAX || !entry.holes.is_empty() {
                self.ready = Some((index, Ready::Large(file)));
                return Ok(true);
            }
            if let Some(content) = self.small(&file, stamp, entry)? {
                self.ready = Some((index, Ready::Small(content)));
                return Ok(true);
            }
        }
        Err(changed(self.entry(index)?.0))
    }

    /// The content of an open file that was looked at before: as it is, where its times prove that nobody wrote
    /// it meanwhile, or two passes agree. `None` where it changes.
    fn small(&self, file: &File, before: Stamp, entry: &SourceEntry) -> Result<Option<Vec<u8>>> {
        let failed = |error| Error::io("can't read it", error).with_entry(entry.path.to_string());
        let size = usize::try_from(entry.size).unwrap_or(usize::MAX);
        let pass = || -> Result<Option<Vec<u8>>> {
            let mut content = vec![0; size];
            let mut filled = 0;
            while filled < size {
                match file.read_at(&mut content[filled..], filled as u64) {
                    Ok(0) => return Ok(None),
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            Ok(Some(content))
        };
        let Some(first) = pass()? else { return Ok(None) };
        let after = Stamp::of_file(file).map_err(failed)?;
        let old = self.set.env.now().as_nanos().saturating_sub(self.set.young_ns);
        if after == before && before.mtime_ns.max(before.ctime_ns) <= old {
            return Ok(Some(first));
        }
        Ok(pass()?.filter(|second| *second == first))
    }

    /// Lists an entry as it is now; `false` where it is gone.
    fn look_again(&mut self, index: usize) -> Result<bool> {
        let (entry, source) = self.entry(index)?;
        if self.linked.contains(&source.stamp.id) {
            // Others are recorded as further names of it.
            return Err(changed(entry));
        }
        let (path, place) = (entry.path.clone(), source.path.clone());
        let found = match metadata::look(&place) {
            Ok(found) if found.kind == EntryType::File => found,
            Err(error) if vanished_or(&path, &error).is_none() => {
                return Err(Error::io("can't look at it", error).with_entry(path.to_string()));
            }
            _ => return self.gone(index).map(|()| false),
        };
        let listed = Listed {
            path,
            source: place,
            units: Units::Slices,
            pinned: false,
            known_by: KnownBy::Stamp,
        };
        refuse_borrowed(&listed, &found)?;
        let holes = match super::holes_of(&listed, &found) {
            Err(error) if error.kind() == Kind::Conflict => {
                return self.gone(index).map(|()| false);
            }
            holes => holes?,
        };
        let identity = self.set.identity(&listed, &found);
        let entry = &mut self.set.entries[index];
        entry.meta = found.meta;
        entry.size = found.stamp.size;
        entry.holes = holes;
        entry.identity = identity;
        self.set.sources[index].stamp = found.stamp;
        self.revised.insert(index, Presence::There);
        Ok(true)
    }

    fn gone(&mut self, index: usize) -> Result<()> {
        let (entry, source) = self.entry(index)?;
        if self.linked.contains(&source.stamp.id) {
            return Err(changed(entry));
        }
        self.went = true;
        self.revised.insert(index, Presence::Gone);
        Ok(())
    }
}

impl PartCapture for PlainFiles {
    fn name(&self) -> &str {
        &self.name
    }

    fn engine(&self) -> EngineKind {
        EngineKind::FILES
    }

    fn engine_version(&self) -> Option<String> {
        None
    }

    fn consistency(&self) -> Consistency {
        Consistency::Files
    }

    fn entries(&self) -> &[SourceEntry] {
        self.set.entries()
    }

    fn ready(&mut self, entry: usize) -> Result<bool> {
        self.make_ready(entry)
    }

    fn head(&mut self, entry: usize, bytes: u64) -> Result<Option<Vec<u8>>> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if let Some(content) = self.kept.get(&entry) {
            return Ok(Some(content[..bytes.min(content.len())].to_vec()));
        }
        if !self.make_ready(entry)? {
            return Err(Error::not_found("it was removed during the capture"));
        }
        let kept: usize = self.kept.values().map(Vec::len).sum();
        match self.ready.take() {
            Some((_, Ready::Small(content))) if kept + content.len() <= KEPT_BYTES_MAX => {
                let head = content[..bytes.min(content.len())].to_vec();
                self.kept.insert(entry, content);
                Ok(Some(head))
            }
            ready => {
                self.ready = ready;
                Ok(None)
            }
        }
    }

    fn stream(
        &mut self,
        index: usize,
        sink: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let (entry, source) = self.entry(index)?;
        if entry.kind != EntryType::File || source.stability != Stability::Loose {
            return self.set.stream(index, sink);
        }
        let promised = entry.size;
        if !self.make_ready(index)? || self.entry(index)?.0.size != promised {
            return Err(changed(self.entry(index)?.0));
        }
        let ready = self.ready.take();
        let (entry, source) = self.entry(index)?;
        match ready {
            Some((_, Ready::Small(content))) => {
                content.chunks(READ_BYTES).try_for_each(|bytes| sink(Piece::Data(bytes)))
            }
            Some((_, Ready::Large(file))) => {
                let mut reader = Reader::over(file, entry, source, self.set.young_ns)?;
                reader.large(self.set.env.now(), sink)
            }
            None => Ok(()),
        }
    }

    fn arrived(&mut self) -> Result<Vec<usize>> {
        if !std::mem::take(&mut self.went) {
            return Ok(Vec::new());
        }
        self.looks += 1;
        if self.looks > LOOKS_MAX {
            self.warnings.push(
                "files came and went all the time while they were captured: what was moved from one name to \
                 another may be missing; a freeze of the node captures all of them at one instant"
                    .to_owned(),
            );
            return Ok(Vec::new());
        }
        let layout = discover::discover(&self.dir.path(), &self.options)?;
        if let Some(refusal) = layout.refusals.first() {
            return Err(refusal.clone());
        }
        let there = self.set.entries.iter().enumerate();
        let there = there.filter(|(index, _)| self.revised.get(index) != Some(&Presence::Gone));
        let known: BTreeSet<RelPath> = there.map(|(_, entry)| entry.path.clone()).collect();
        let first = self.set.entries.len();
        for part in layout.parts.iter().filter(|part| part.engine == EngineKind::FILES) {
            let held = |path: &RelPath| {
                self.stores.iter().any(|root| path == root || path.is_within(root))
            };
            let fresh = part.entries.iter().filter(|path| !known.contains(path) && !held(path));
            let fresh: Vec<RelPath> = fresh.cloned().collect();
            self.list(&fresh)?;
        }
        let fresh = first..self.set.entries.len();
        self.revised.extend(fresh.clone().map(|index| (index, Presence::There)));
        Ok(fresh.collect())
    }

    fn revised(&mut self) -> Vec<(usize, Revised)> {
        let mut revised = Vec::new();
        for (index, presence) in std::mem::take(&mut self.revised) {
            // What came and went is told as well: those that came after it are counted behind it.
            revised.push((index, Revised::Changed(self.set.entries[index].clone())));
            if presence == Presence::Gone {
                revised.push((index, Revised::Gone));
            }
        }
        revised
    }

    fn finish(self: Box<Self>) -> Result<Finished> {
        if let Some(home) = self.home {
            home.remove()?;
        }
        Ok(Finished { warnings: self.warnings, ..Finished::default() })
    }
}

pub(super) fn changed(entry: &SourceEntry) -> Error {
    Error::conflict(format!("{} changed during the capture, other than by growing", entry.path))
        .with_entry(entry.path.to_string())
        .with_remedy("try again")
        .with_remedy(Remedy::Freeze(None))
        .with_remedy(Remedy::Exclude)
        .with_remedy("stop the node")
}
