//! The image of a node's files: immutable ones are linked, all others cloned or copied, while nobody
//! writes; read at leisure once the node goes on.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};

use super::super::files::{FileSet, Listed};
use super::super::metadata::{self, Found};
use super::super::scratch::Scratch;
use super::super::{
    Consistency, EngineKind, EntryType, Finished, FoundPart, Layout, PartCapture, Piece,
    SourceEntry, Units, rocksdb,
};
use super::IMAGE_PREFIX;
use crate::control::Cancel;
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Result};
use crate::ids::RelPath;

/// How much is copied between two looks at the clock.
const COPY_BYTES: usize = 1 << 20;

/// The smallest unit in which a page file is compared.
const PAGE_BYTES_MIN: u32 = 4096;

/// Where the image will stand: private directories beside the databases, one for each part.
pub(super) struct Ground {
    homes: BTreeMap<String, Scratch>,
    env: Env,
    /// Whether files can be cloned and linked there.
    pub(super) clones: bool,
    pub(super) links: bool,
}

/// What ends the taking of an image before its end.
pub(super) struct Pace<'a> {
    /// Raised once the node goes on.
    pub(super) expired: &'a AtomicBool,
    pub(super) cancel: &'a Cancel,
    pub(super) env: &'a Env,
}

impl Pace<'_> {
    fn check(&self) -> Result<()> {
        if self.expired.load(Ordering::SeqCst) {
            return Err(Error::conflict("the node goes on before its image was taken"));
        }
        self.cancel.check()
    }
}

/// The image of one part.
pub(super) struct Taken {
    part: FoundPart,
    version: Option<String>,
    home: Scratch,
    entries: Vec<(Listed, Found)>,
}

impl Ground {
    /// Makes the directories, so that the pause does not pay for them.
    pub(super) fn prepare(layout: &Layout, env: &Env) -> Result<Ground> {
        let mut ground =
            Ground { homes: BTreeMap::new(), env: env.clone(), clones: false, links: true };
        for part in &layout.parts {
            let home = ground.home(layout, part)?;
            ground.homes.insert(part.name.clone(), home);
        }
        Ok(ground)
    }

    fn home(&mut self, layout: &Layout, part: &FoundPart) -> Result<Scratch> {
        match self.homes.remove(&part.name) {
            Some(home) => Ok(home),
            None => {
                let parent = rocksdb::scratch_parent(&layout.dir, &part.root);
                Scratch::create(&parent, IMAGE_PREFIX, &self.env)
            }
        }
    }

    /// Takes the image of every part; nobody writes.
    pub(super) fn take(&mut self, layout: &Layout, pace: &Pace<'_>) -> Result<Vec<Taken>> {
        let mut parts = Vec::with_capacity(layout.parts.len());
        for part in &layout.parts {
            let home = self.home(layout, part)?;
            let (listed, version) = listing(&layout.dir, part)?;
            let mut entries = Vec::with_capacity(listed.len());
            for (number, mut listed) in listed.into_iter().enumerate() {
                pace.check()?;
                let failed = |what: &str, source: std::io::Error| {
                    Error::io(format!("can't {what} it"), source).entry(listed.path.to_string())
                };
                let found = metadata::look(&listed.source).map_err(|e| failed("look at", e))?;
                if found.kind == EntryType::File && found.stamp.size > 0 {
                    let target = home.path().join(number.to_string());
                    if listed.immutable.is_none() || !link(&listed.source, &target) {
                        copy(&listed.source, &target, found.stamp.size, self.clones, pace)
                            .map_err(|error| error.entry(listed.path.to_string()))?;
                    }
                    listed.source = target;
                    pace.env.fault(FaultPoint::FreezeImage)?;
                }
                listed.pinned = false;
                entries.push((listed, found));
            }
            parts.push(Taken { part: part.clone(), version, home, entries });
        }
        Ok(parts)
    }
}

/// The entries of a part that stands still, in order, and the version of what wrote it. Only those
/// that are known never to be written again have an identity.
fn listing(dir: &Path, part: &FoundPart) -> Result<(Vec<Listed>, Option<String>)> {
    if part.engine == EngineKind::RocksDb {
        return rocksdb::still(dir, part);
    }
    let wanted = part.entries.iter().filter(|path| match part.engine {
        // The index of the log: whoever opens the database first makes it anew.
        EngineKind::Sqlite => !path.as_bytes().ends_with(b"-shm"),
        _ => true,
    });
    let listed = wanted.map(|path| Listed {
        path: path.clone(),
        source: path.under(dir),
        units: units(part, path),
        pinned: false,
        immutable: None,
    });
    Ok((listed.collect(), None))
}

fn units(part: &FoundPart, path: &RelPath) -> Units {
    let paged = match part.engine {
        EngineKind::Sqlite => *path == part.root,
        EngineKind::Lmdb | EngineKind::Redb | EngineKind::Bbolt => true,
        _ => false,
    };
    if paged { Units::Pages { bytes: PAGE_BYTES_MIN } } else { Units::Slices }
}

/// Links a file; `false` where the file system, or a rule of the kernel, does not allow it.
fn link(from: &Path, to: &Path) -> bool {
    std::fs::hard_link(from, to).is_ok()
}

/// Copies a file: its extents where the file system can share them, else its bytes, holes left out.
fn copy(from: &Path, to: &Path, size: u64, clones: bool, pace: &Pace<'_>) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let source = rustix::fs::open(from, flags, Mode::empty())
        .map_err(|errno| Error::io("can't open it", errno))?;
    let source = File::from(source);
    let target = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(|source| Error::io("can't make a copy of it", source))?;
    if clones && rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    let failed = |source| Error::io("can't copy it", source);
    let holes = metadata::holes(&source, size).map_err(failed)?;
    target.set_len(size).map_err(failed)?;
    let mut buffer = vec![0; COPY_BYTES.min(usize::try_from(size).unwrap_or(COPY_BYTES))];
    let mut position = 0;
    for (hole, length) in holes.into_iter().chain([(size, 0)]) {
        while position < hole {
            pace.check()?;
            let most = usize::try_from(hole - position).unwrap_or(usize::MAX).min(buffer.len());
            match source.read_at(&mut buffer[..most], position) {
                Ok(0) => return Err(Error::conflict("it became shorter while it was copied")),
                Ok(read) => {
                    target.write_all_at(&buffer[..read], position).map_err(failed)?;
                    position += read as u64;
                }
                Err(source) if source.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(failed(source)),
            }
        }
        position = hole + length;
    }
    Ok(())
}

/// The image of a part, which nobody but us knows.
struct Frozen {
    part: FoundPart,
    version: Option<String>,
    set: FileSet,
    home: Scratch,
}

/// The captures that read an image; the node goes on.
pub(super) fn captures(taken: Vec<Taken>, env: &Env) -> Result<Vec<Box<dyn PartCapture>>> {
    let mut captures: Vec<Box<dyn PartCapture>> = Vec::with_capacity(taken.len());
    for Taken { part, version, home, mut entries } in taken {
        if part.engine == EngineKind::Sqlite {
            set_page_size(&part, &mut entries)?;
        }
        let set = FileSet::of_image(entries, env)?;
        captures.push(Box::new(Frozen { part, version, set, home }));
    }
    Ok(captures)
}

/// SQLite's pages are as large as its header says.
fn set_page_size(part: &FoundPart, entries: &mut [(Listed, Found)]) -> Result<()> {
    for (listed, found) in entries.iter_mut().filter(|(listed, _)| listed.path == part.root) {
        let mut bytes = [0; 2];
        if found.stamp.size < 18 {
            continue;
        }
        let read = File::open(&listed.source).and_then(|file| file.read_exact_at(&mut bytes, 16));
        read.map_err(|source| Error::io("can't read its copy", source).entry(part.name.clone()))?;
        // 1 stands for 65536.
        let bytes = match u32::from(u16::from_be_bytes(bytes)) {
            1 => 1 << 16,
            bytes if bytes.is_power_of_two() => bytes.max(PAGE_BYTES_MIN),
            _ => PAGE_BYTES_MIN,
        };
        listed.units = Units::Pages { bytes };
    }
    Ok(())
}

impl PartCapture for Frozen {
    fn name(&self) -> &str {
        &self.part.name
    }

    fn engine(&self) -> EngineKind {
        self.part.engine
    }

    fn engine_version(&self) -> Option<String> {
        self.version.clone()
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
        self.set.stream(entry, sink)
    }

    fn finish(self: Box<Self>) -> Result<Finished> {
        self.home.remove()?;
        Ok(Finished::default())
    }
}
