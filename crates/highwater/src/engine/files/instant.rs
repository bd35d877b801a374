//! One instant of plain files that are one store and that a running node replaces, each by itself, all the time.
//!
//! What changed since the last look is copied, and the store is looked at again, until a look finds nothing that is
//! not as it was copied: so it stood when that look began. This is how a seqlock is read: nobody is kept waiting,
//! and who never finds a gap gives up.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::{KnownBy, Listed, SMALL_BYTES_MAX, refuse_borrowed};
use crate::control::Cancel;
use crate::engine::freeze::{IMAGE_PREFIX, Pace, copy, no_room};
use crate::engine::metadata::{self, Found, Stamp};
use crate::engine::process::OwnLocks;
use crate::engine::scratch::{self, Scratch};
use crate::engine::{EntryType, FoundPart, Layout, Units, discover};
use crate::env::Env;
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// How long a gap is looked for.
const SEARCH_MAX: Duration = Duration::from_secs(20);

/// The kernel's clock of files may stand still for so long: a stamp that is no older than this when a file was read
/// does not tell a later write from the one before.
const TICK_NS: i64 = 10_000_000;

/// Between two looks, so that a young stamp ages.
const PAUSE: Duration = Duration::from_millis(1);

/// So many bytes of small files are copied into memory; what goes beyond that, and larger ones, to the disk.
const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// Copies of files at one instant.
pub(super) struct Instant {
    pub(super) entries: BTreeMap<RelPath, Copied>,
    /// Where the copies on disk are, if there are any.
    pub(super) home: Option<Scratch>,
}

/// An entry as it was at that instant.
pub(super) struct Copied {
    /// Where a file that was copied to disk is read.
    pub(super) listed: Listed,
    pub(super) found: Found,
    pub(super) content: Content,
}

/// What was copied of an entry.
pub(super) enum Content {
    /// It has none.
    Nothing,
    InMemory(Vec<u8>),
    OnDisk,
}

/// Files and directories of a node that are one store: these, and all that is in them.
pub(super) struct Store<'a> {
    layout: &'a Layout,
    roots: &'a [RelPath],
    /// What belongs to databases.
    claimed: BTreeSet<&'a RelPath>,
    env: &'a Env,
}

impl<'a> Store<'a> {
    /// `None` where nothing of it is among the plain files.
    pub(super) fn of(
        layout: &'a Layout,
        part: &FoundPart,
        roots: &'a [RelPath],
        env: &'a Env,
    ) -> Option<Store<'a>> {
        let others = layout.parts.iter().filter(|other| other.name != part.name);
        let claimed = others.flat_map(|other| &other.entries).collect();
        let store = Store { layout, roots, claimed, env };
        part.entries.iter().any(|path| store.has(path)).then_some(store)
    }

    /// Whether a path is one of its own.
    pub(super) fn has(&self, path: &RelPath) -> bool {
        self.roots.iter().any(|root| path == root || path.is_within(root))
    }

    /// Copies it as it is at one instant.
    pub(super) fn copy(&self) -> Result<Instant> {
        let locks = OwnLocks::new(self.env);
        // Counted once all was copied: on a slow disk that alone may take longer.
        let mut begin = None;
        let mut disk = Disk { store: self, home: None, number: 0 };
        let mut copies: BTreeMap<RelPath, Copied> = BTreeMap::new();
        loop {
            let seen = self.look()?;
            copies.retain(|path, _| seen.contains_key(path));
            let stale = |(path, stamp): &(&RelPath, &Option<Stamp>)| {
                let known = copies.get(*path).map(|copied| &copied.found);
                // Of a directory, or a link, no content is copied.
                known.is_none_or(|known| stamp.is_some_and(|stamp| stamp != known.stamp))
            };
            let stale: Vec<RelPath> =
                seen.iter().filter(stale).map(|(path, _)| path.clone()).collect();
            if stale.is_empty() {
                return Ok(Instant { entries: copies, home: disk.home });
            }
            let begun = begin.unwrap_or_else(|| self.env.monotonic());
            if self.env.monotonic().saturating_sub(begun) > SEARCH_MAX {
                return Err(restless(&stale[0]));
            }
            for path in &stale {
                copies.remove(path);
            }
            let mut held: u64 = copies.values().map(Copied::bytes_held).sum();
            for path in stale {
                if let Some(copied) = self.take(&path, held, &mut disk, &locks)? {
                    held += copied.bytes_held();
                    copies.insert(path, copied);
                }
            }
            begin = begin.or_else(|| Some(self.env.monotonic()));
            self.env.pause(PAUSE);
        }
    }

    /// What is there, and the stamps of its files.
    fn look(&self) -> Result<BTreeMap<RelPath, Option<Stamp>>> {
        let mut seen = BTreeMap::new();
        for (path, seen_as) in discover::inside(self.layout, self.roots)? {
            if !self.claimed.contains(&path) {
                seen.insert(path, seen_as);
            }
        }
        Ok(seen)
    }

    /// Copies one entry, beside `held` bytes in memory; `None` where it moves while it is copied, or has just moved.
    fn take(
        &self,
        path: &RelPath,
        held: u64,
        disk: &mut Disk<'_>,
        locks: &OwnLocks,
    ) -> Result<Option<Copied>> {
        let place = self.layout.held().at(path);
        let found = match metadata::look(&place) {
            Ok(found) => found,
            Err(error) if super::vanished_or(path, &error).is_some() => return Ok(None),
            Err(error) => {
                return Err(Error::io("can't look at it", error).with_entry(path.to_string()));
            }
        };
        let mut listed = Listed {
            path: path.clone(),
            source: place.clone(),
            units: Units::Slices,
            pinned: false,
            known_by: KnownBy::Stamp,
        };
        refuse_borrowed(&listed, &found)?;
        if found.kind != EntryType::File {
            return Ok(Some(Copied { listed, found, content: Content::Nothing }));
        }
        if locks.held(found.stamp.id.1) {
            return Err(super::locked(path));
        }
        let (size, stamp) = (found.stamp.size, found.stamp);
        let proven = self.env.now().as_nanos().saturating_sub(TICK_NS);
        if stamp.mtime_ns.max(stamp.ctime_ns) > proven {
            return Ok(None);
        }
        let taken = if size == 0 {
            Ok(Content::Nothing)
        } else if size <= SMALL_BYTES_MAX && held + size <= MEMORY_BYTES_MAX {
            read_whole(&place, stamp).map(Content::InMemory)
        } else {
            disk.copy(&place, stamp).map(|target| {
                listed.source = target;
                Content::OnDisk
            })
        };
        let content = match taken {
            Ok(content) => content,
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => {
                return Ok(None);
            }
            Err(error) => return Err(error.with_entry(path.to_string())),
        };
        let after = metadata::stamp(&place);
        Ok(after.is_ok_and(|after| after == stamp).then_some(Copied { listed, found, content }))
    }
}

impl Copied {
    fn bytes_held(&self) -> u64 {
        match &self.content {
            Content::InMemory(bytes) => bytes.len() as u64,
            Content::Nothing | Content::OnDisk => 0,
        }
    }
}

/// What stands there by now must be the file that was looked at, as for every copy.
fn read_whole(place: &RootedPath, seen: Stamp) -> Result<Vec<u8>> {
    let file = place.open_file().map_err(|error| Error::io("can't open it", error))?;
    let now = Stamp::of_file(&file).map_err(|error| Error::io("can't look at it", error))?;
    if now != seen {
        return Err(Error::conflict("it was replaced while it was copied"));
    }
    let mut content = vec![0; usize::try_from(seen.size).unwrap_or(usize::MAX)];
    match file.read_exact_at(&mut content, 0) {
        Ok(()) => Ok(content),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(Error::conflict("it became shorter while it was copied"))
        }
        Err(error) => Err(Error::io("can't read it", error)),
    }
}

/// The copies on disk, in a directory that is made for the first of them.
struct Disk<'a> {
    store: &'a Store<'a>,
    home: Option<Scratch>,
    number: u64,
}

impl Disk<'_> {
    fn copy(&mut self, place: &RootedPath, seen: Stamp) -> Result<RootedPath> {
        let env = self.store.env;
        let home = match self.home.take() {
            Some(home) => home,
            None => {
                let parent = scratch::parent(self.store.layout.held(), &RelPath::root());
                Scratch::create(&parent, IMAGE_PREFIX, env)?
            }
        };
        let home = self.home.insert(home);
        if let Some(full) = no_room(home.path(), seen.size)? {
            return Err(full);
        }
        self.number += 1;
        let target = home.path().join(self.number.to_string());
        let running = AtomicBool::new(false);
        let pace = Pace { expired: &running, cancel: &Cancel::default(), env };
        copy(place, seen.id, &target, seen.size, &pace).map(|_| target)
    }
}

fn restless(path: &RelPath) -> Error {
    Error::conflict(format!(
        "the node changes the files of its store so often that no instant of them could be captured: {path} was \
         the last"
    ))
    .with_entry(path.to_string())
    .with_remedy(Remedy::Freeze(None))
    .with_remedy("stop the node for the time of the backup")
}
