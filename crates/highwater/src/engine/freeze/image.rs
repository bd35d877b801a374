//! The image of a node's files: immutable ones are linked, all others cloned or copied, while nobody
//! writes; read at leisure once the node goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::engines::still::{Settle, Still, Verify};
use super::super::engines::{Database, listed};
use super::super::files::{FileSet, KnownBy, Listed};
use super::super::metadata::{self, Found, Stamp};
use super::super::process::FileId;
use super::super::scratch::{self, Scratch};
use super::super::{
    Consistency, EngineKind, EntryType, Finished, FoundPart, Layout, PartCapture, Piece,
    SourceEntry, Units,
};
use super::IMAGE_PREFIX;
use crate::control::Cancel;
use crate::copying::{self, Copied};
use crate::durable;
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// A time younger than this proves nothing: the next write may leave the same one.
const YOUNG_NS: i64 = 2_000_000_000;

/// How much of a file is copied to learn how fast that goes; less tells nothing.
const SAMPLE_BYTES: u64 = 16 << 20;
const SAMPLE_BYTES_MIN: u64 = 1 << 20;

/// Room that is left on the file system, at least.
const ROOM_BYTES_MIN: u64 = 16 << 20;

/// Where the image will stand: private directories beside the databases, one for each part; and what
/// of it is there before the node is stopped.
pub(super) struct Ground {
    homes: BTreeMap<String, Scratch>,
    /// Links to immutable files, and copies of files that rested, each with what its original looked
    /// like.
    ready: BTreeMap<RelPath, (Stamp, RootedPath)>,
    env: Env,
    /// What the pause has to do.
    pub(super) work: Work,
}

/// What a pause has to do besides looking at the node.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    /// Files that are linked: to be looked at once more.
    pub(super) links: u64,
    /// Files to clone or copy, and their bytes.
    pub(super) copies: u64,
    pub(super) bytes: u64,
    /// Whether the file system shares extents between files.
    pub(super) clones: bool,
    /// Bytes that are copied in a second, where enough was copied to tell.
    pub(super) rate: Option<u64>,
}

/// What ends the taking of an image before its end.
pub(in crate::engine) struct Pace<'a> {
    /// Raised once the node goes on.
    pub(in crate::engine) expired: &'a AtomicBool,
    pub(in crate::engine) cancel: &'a Cancel,
    pub(in crate::engine) env: &'a Env,
}

impl Pace<'_> {
    pub(super) fn check(&self) -> Result<()> {
        if self.expired.load(Ordering::SeqCst) {
            return Err(Error::conflict("the node goes on before its image was taken"));
        }
        self.cancel.check()
    }
}

/// The image of one part.
pub(super) struct Taken {
    part: FoundPart,
    engine_version: Option<String>,
    verifier: Option<Box<dyn Verify>>,
    settle: Option<Settle>,
    home: Scratch,
    entries: Vec<(Listed, Found)>,
}

impl Ground {
    /// Makes the directories, links what is immutable, and copies what rests and is in nobody's memory,
    /// so that the pause does not pay for them. Finds out how much is left for it, and how fast that goes.
    pub(super) fn prepare(
        layout: &Layout,
        mapped: &BTreeSet<RelPath>,
        pace: &Pace<'_>,
    ) -> Result<Ground> {
        let mut ground = Ground {
            homes: BTreeMap::new(),
            ready: BTreeMap::new(),
            env: pace.env.clone(),
            work: Work::default(),
        };
        let mut largest: Option<(RelPath, Stamp, RootedPath)> = None;
        for part in &layout.parts {
            let home = ground.home(layout, part)?;
            ground.room(part, layout, home.path(), pace)?;
            for (number, path) in part.entries.iter().enumerate() {
                // A running node removes files at any time.
                let Ok(found) = metadata::look(&layout.held.at(path)) else { continue };
                if found.kind != EntryType::File || found.stamp.size == 0 {
                    continue;
                }
                let target = home.path().join(format!("ready-{number}"));
                if is_immutable(layout, part, path) && link(&layout.held.at(path), &target) {
                    ground.work.links += 1;
                    ground.ready.insert(path.clone(), (found.stamp, target));
                    continue;
                }
                if !mapped.contains(path)
                    && ground.copy_rested(path, layout, found.stamp, &target, pace)?
                {
                    continue;
                }
                ground.work.copies += 1;
                ground.work.bytes += found.stamp.size;
                if largest.as_ref().is_none_or(|(_, stamp, _)| stamp.size < found.stamp.size) {
                    let target = home.path().join("sample");
                    largest = Some((path.clone(), found.stamp, target));
                }
            }
            ground.homes.insert(part.name.clone(), home);
        }
        if let Some((path, stamp, target)) = largest {
            ground.sample(&layout.held.at(&path), stamp, &target, pace)?;
        }
        if ground.work.clones {
            flush(layout, &ground.ready);
        }
        Ok(ground)
    }

    fn home(&mut self, layout: &Layout, part: &FoundPart) -> Result<Scratch> {
        match self.homes.remove(&part.name) {
            Some(home) => Ok(home),
            None => {
                let parent = scratch::parent(&layout.held, &part.root);
                Scratch::create(&parent, IMAGE_PREFIX, &self.env)
            }
        }
    }

    /// Refuses to fill the node's own file system, unless that shares extents between files.
    fn room(
        &mut self,
        part: &FoundPart,
        layout: &Layout,
        home: &RootedPath,
        pace: &Pace<'_>,
    ) -> Result<()> {
        let copied = part.entries.iter().filter(|path| !is_immutable(layout, part, path));
        let stamps = copied.filter_map(|path| {
            let place = layout.held.at(path);
            let found = place.stat().ok().flatten().filter(durable::is_file)?;
            Some((place, Stamp::of(&found)))
        });
        let files: Vec<(RootedPath, Stamp)> = stamps.filter(|(_, stamp)| stamp.size > 0).collect();
        let bytes: u64 = files.iter().map(|(_, stamp)| stamp.size).sum();
        let Some(full) = no_room(home, bytes)? else { return Ok(()) };
        let probe = home.join("clone");
        if let Some((first, seen)) = files.first()
            && let Ok(copied) = copy(first, seen.id, &probe, 0, pace)
        {
            let _ = probe.unlink();
            if matches!(copied, Copied::Cloned) {
                return Ok(());
            }
        }
        Err(full.with_entry(part.name.clone()))
    }

    /// Copies a file that has not changed for a while; `false` where it has, or does meanwhile.
    fn copy_rested(
        &mut self,
        path: &RelPath,
        layout: &Layout,
        before: Stamp,
        target: &RootedPath,
        pace: &Pace<'_>,
    ) -> Result<bool> {
        let source = layout.held.at(path);
        let newest = before.mtime_ns.max(before.ctime_ns);
        if newest > pace.env.now().as_nanos().saturating_sub(YOUNG_NS) {
            return Ok(false);
        }
        let begin = pace.env.monotonic();
        match copy(&source, before.id, target, before.size, pace) {
            Ok(copied) => self.learn(copied, pace.env.monotonic().saturating_sub(begin)),
            // It was removed, or cut off, meanwhile.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => {
                return Ok(false);
            }
            Err(error) => return Err(error.with_entry(path.to_string())),
        }
        if metadata::stamp(&source).ok() != Some(before) {
            let _ = target.unlink();
            return Ok(false);
        }
        self.ready.insert(path.clone(), (before, target.clone()));
        Ok(true)
    }

    /// Copies a piece of a file, for the time that it takes.
    fn sample(
        &mut self,
        from: &RootedPath,
        seen: Stamp,
        to: &RootedPath,
        pace: &Pace<'_>,
    ) -> Result<()> {
        if self.work.rate.is_some() && !self.work.clones && self.work.bytes < SAMPLE_BYTES {
            return Ok(());
        }
        let begin = pace.env.monotonic();
        match copy(from, seen.id, to, seen.size.min(SAMPLE_BYTES), pace) {
            Ok(copied) => self.learn(copied, pace.env.monotonic().saturating_sub(begin)),
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            // A running node removes files at any time.
            Err(_) => {}
        }
        let _ = to.unlink();
        Ok(())
    }

    fn learn(&mut self, copied: Copied, time: Duration) {
        match copied {
            Copied::Cloned => self.work.clones = true,
            Copied::Bytes(bytes) if bytes >= SAMPLE_BYTES_MIN => {
                let rate = bytes as f64 / time.as_secs_f64().max(1e-6);
                let slowest = self.work.rate.map_or(rate, |known| rate.min(known as f64));
                self.work.rate = Some(slowest as u64);
            }
            Copied::Bytes(_) => {}
        }
    }

    /// Takes the image of every part; nobody writes. `mapped`: what is in somebody's memory now.
    pub(super) fn take(
        &mut self,
        layout: &Layout,
        mapped: &BTreeSet<RelPath>,
        pace: &Pace<'_>,
    ) -> Result<Vec<Taken>> {
        let mut parts = Vec::with_capacity(layout.parts.len());
        for part in &layout.parts {
            let home = self.home(layout, part)?;
            let Still { listed, engine_version, verifier, settle } = listing(layout, part)?;
            let mut entries = Vec::with_capacity(listed.len());
            for (number, listed) in listed.into_iter().enumerate() {
                pace.check()?;
                let ready = self.ready.get(&listed.path).filter(|_| !mapped.contains(&listed.path));
                let entry = listed.path.to_string();
                let target = home.path().join(number.to_string());
                entries.push(
                    take_entry(listed, ready, target, pace)
                        .map_err(|error| error.with_entry(entry))?,
                );
            }
            let part = part.clone();
            parts.push(Taken { part, engine_version, verifier, settle, home, entries });
        }
        Ok(parts)
    }
}

/// Takes one entry of a node that stands still; `ready` is a link or a copy from before, and what its
/// original looked like then.
fn take_entry(
    mut listed: Listed,
    ready: Option<&(Stamp, RootedPath)>,
    target: RootedPath,
    pace: &Pace<'_>,
) -> Result<(Listed, Found)> {
    let found =
        metadata::look(&listed.source).map_err(|source| Error::io("can't look at it", source))?;
    listed.pinned = false;
    if found.kind != EntryType::File || found.stamp.size == 0 {
        return Ok((listed, found));
    }
    // A link to the same file is as good as a new one, and has changed the file's ctime.
    let immutable = matches!(listed.known_by, KnownBy::Engine(_));
    let is_ready = |before: &Stamp| match immutable {
        true => before.same_content(&found.stamp),
        false => *before == found.stamp,
    };
    match ready {
        Some((before, there)) if is_ready(before) => listed.source = there.clone(),
        _ => {
            if !immutable || !link(&listed.source, &target) {
                copy(&listed.source, found.stamp.id, &target, found.stamp.size, pace)?;
            }
            listed.source = target;
        }
    }
    pace.env.fault(FaultPoint::FreezeImage)?;
    Ok((listed, found))
}

/// A clone waits until its original is on the disk: better before the node waits for it.
fn flush(layout: &Layout, ready: &BTreeMap<RelPath, (Stamp, RootedPath)>) {
    for part in &layout.parts {
        let moving = part.entries.iter().filter(|path| !is_immutable(layout, part, path));
        for path in moving.filter(|path| !ready.contains_key(*path)) {
            // Only a matter of time: what can't be synced now is waited for later.
            if let Ok(file) = open(&layout.held.at(path)) {
                let _ = rustix::fs::fdatasync(&file);
            }
        }
    }
}

/// Whether a file is never written again under its name.
fn is_immutable(layout: &Layout, part: &FoundPart, path: &RelPath) -> bool {
    layout.engines().get(part.engine).is_some_and(|engine| engine.is_immutable(path))
}

/// The entries of a part that stands still, in order, and what is known of it. Only those that are
/// known never to be written again have an identity.
fn listing(layout: &Layout, part: &FoundPart) -> Result<Still> {
    if part.engine != EngineKind::FILES {
        let database = Database::of(layout, part)?;
        return database.engine.still(&database);
    }
    let file =
        |path| Listed { known_by: KnownBy::OldStamp, ..listed(&layout.held, path, Units::Slices) };
    Ok(Still { listed: part.entries.iter().map(file).collect(), ..Still::default() })
}

/// Links a file; `false` where the file system, or a rule of the kernel, does not allow it.
fn link(from: &RootedPath, to: &RootedPath) -> bool {
    from.link_to(to).is_ok()
}

fn open(path: &RootedPath) -> Result<File> {
    path.open_file().map_err(|source| Error::io("can't open it", source))
}

/// That the file system of the image has no room for so many bytes, where it has not.
pub(in crate::engine) fn no_room(home: &RootedPath, bytes: u64) -> Result<Option<Error>> {
    let room = rustix::fs::fstatvfs(home.held())
        .map_err(|errno| Error::io("can't tell the room beside the node", errno))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let full = free < bytes.saturating_add(ROOM_BYTES_MIN);
    Ok(full.then(|| {
        Error::unavailable(format!(
            "an image of the node's files takes {bytes} bytes beside it, and {free} are free there"
        ))
        .with_remedy("free some space")
        .with_remedy(Remedy::Exclude)
    }))
}

/// Copies the first `size` bytes of a file that was looked at before into a new one. What stands there by now must be
/// that file: root would read for the owner of a directory what another name of it leads to.
///
/// # Errors
/// Conflict where it is another one, or shorter by now.
pub(in crate::engine) fn copy(
    from: &RootedPath,
    seen: FileId,
    to: &RootedPath,
    size: u64,
    pace: &Pace<'_>,
) -> Result<Copied> {
    let source = open(from)?;
    let stamp = Stamp::of_file(&source).map_err(|source| Error::io("can't look at it", source))?;
    if stamp.id != seen {
        return Err(Error::conflict("it was replaced while it was copied"));
    }
    let target = to.create_new().map_err(|source| Error::io("can't make a copy of it", source))?;
    copying::copy(&source, &target, size, &|| pace.check())
}

/// The image of a part, which nobody but us knows.
struct Frozen {
    part: FoundPart,
    engine_version: Option<String>,
    verifier: Option<Box<dyn Verify>>,
    set: FileSet,
    home: Scratch,
}

/// The captures that read an image; the node goes on.
pub(super) fn captures(taken: Vec<Taken>, env: &Env) -> Result<Vec<Box<dyn PartCapture>>> {
    let mut captures: Vec<Box<dyn PartCapture>> = Vec::with_capacity(taken.len());
    for Taken { part, engine_version, verifier, settle, home, mut entries } in taken {
        if let Some(settle) = settle {
            settle(&part, &mut entries)?;
        }
        let set = FileSet::of_image(entries, env)?;
        captures.push(Box::new(Frozen { part, engine_version, verifier, set, home }));
    }
    Ok(captures)
}

impl PartCapture for Frozen {
    fn name(&self) -> &str {
        &self.part.name
    }

    fn engine(&self) -> EngineKind {
        self.part.engine
    }

    fn engine_version(&self) -> Option<String> {
        self.engine_version.clone()
    }

    fn consistency(&self) -> Consistency {
        Consistency::Frozen
    }

    fn entries(&self) -> &[SourceEntry] {
        self.set.entries()
    }

    fn stream(
        &mut self,
        entry: usize,
        sink: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        match &mut self.verifier {
            Some(verifier) => verifier.stream(&self.set, entry, sink),
            None => self.set.stream(entry, sink),
        }
    }

    fn open(&self, entry: usize) -> Result<Option<File>> {
        self.set.open(entry).map(Some)
    }

    fn finish(self: Box<Self>) -> Result<Finished> {
        self.home.remove()?;
        let warnings = self.verifier.map_or_else(Vec::new, |verifier| verifier.warnings());
        Ok(Finished { warnings, ..Finished::default() })
    }
}
