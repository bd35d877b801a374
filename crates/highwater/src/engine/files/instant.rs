//! One instant of plain files that are one store and that a running node replaces, each by itself, all the time.
//!
//! What changed since the last look is copied, and the store is looked at again, until a look finds nothing that is
//! not as it was copied: so it stood when that look began. This is how a seqlock is read: nobody is kept waiting,
//! and who never finds a gap gives up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::{KnownBy, Listed, refuse_borrowed};
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

/// Copies of files at one instant.
pub(super) struct Instant {
    /// Each entry by its path: what it was, and where a file with content is read.
    pub(super) entries: BTreeMap<RelPath, (Listed, Found)>,
    /// Where the copies are.
    pub(super) home: Scratch,
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
        let parent = scratch::parent(self.layout.held(), &RelPath::root());
        let home = Scratch::create(&parent, IMAGE_PREFIX, self.env)?;
        let (locks, running) = (OwnLocks::new(self.env), AtomicBool::new(false));
        let pace = Pace { expired: &running, cancel: &Cancel::default(), env: self.env };
        let begin = self.env.monotonic();
        let mut copies: BTreeMap<RelPath, (Listed, Found)> = BTreeMap::new();
        let mut number = 0_u64;
        loop {
            let seen = self.look()?;
            copies.retain(|path, _| seen.contains_key(path));
            let stale = |(path, stamp): &(&RelPath, &Option<Stamp>)| {
                let known = copies.get(*path).map(|(_, found)| found);
                // Of a directory, or a link, no content is copied.
                known.is_none_or(|known| stamp.is_some_and(|stamp| stamp != known.stamp))
            };
            let stale: Vec<RelPath> =
                seen.iter().filter(stale).map(|(path, _)| path.clone()).collect();
            if stale.is_empty() {
                return Ok(Instant { entries: copies, home });
            }
            if self.env.monotonic().saturating_sub(begin) > SEARCH_MAX {
                return Err(restless(&stale[0]));
            }
            let bytes = stale.iter().filter_map(|path| seen[path]).map(|stamp| stamp.size).sum();
            if let Some(full) = no_room(home.path(), bytes)? {
                return Err(full);
            }
            for path in stale {
                number += 1;
                let target = home.path().join(number.to_string());
                match self.take(&path, &target, &locks, &pace)? {
                    Some(taken) => drop(copies.insert(path, taken)),
                    None => drop(copies.remove(&path)),
                }
            }
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

    /// Copies one entry; `None` where it moves while it is copied, or has just moved.
    fn take(
        &self,
        path: &RelPath,
        target: &RootedPath,
        locks: &OwnLocks,
        pace: &Pace<'_>,
    ) -> Result<Option<(Listed, Found)>> {
        let place = self.layout.held().at(path);
        let failed = |error: Error| error.with_entry(path.to_string());
        let found = match metadata::look(&place) {
            Ok(found) => found,
            Err(error) if super::vanished_or(path, &error).is_some() => return Ok(None),
            Err(error) => return Err(failed(Error::io("can't look at it", error))),
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
            return Ok(Some((listed, found)));
        }
        if locks.held(found.stamp.id.1) {
            return Err(super::locked(path));
        }
        let proven = self.env.now().as_nanos().saturating_sub(TICK_NS);
        if found.stamp.mtime_ns.max(found.stamp.ctime_ns) > proven {
            return Ok(None);
        }
        if found.stamp.size == 0 {
            return Ok(Some((listed, found)));
        }
        match copy(&place, target, found.stamp.size, pace) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        }
        listed.source = target.clone();
        let after = metadata::stamp(&place);
        Ok(after.is_ok_and(|after| after == found.stamp).then_some((listed, found)))
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
