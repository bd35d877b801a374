//! Staging: the restored tree beside the target, with all that the file system says of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::control::{Control, Event};
use crate::copying;
use crate::direct::PlacedWriter;
use crate::durable;
use crate::engine::{EntryType, Metadata};
use crate::error::{Error, Kind, Result};
use crate::ids::{RelPath, decode};
use crate::rooted::{Neighbours, Owner, RootedPath};
use crate::vault::manifest::{EntryRecord, PartRecord};
use crate::vault::{Manifest, Vault};

use super::fetch::{Target, fetch};

/// Rights that a file gives to whoever runs it: set-user-id and set-group-id.
const SETID: u32 = 0o6000;
/// The attribute in which a program keeps capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// A tree that is being made, in a work directory that nobody else may enter.
pub(super) struct Stage<'a> {
    dir: &'a RootedPath,
    owner: Option<Owner>,
    /// Programs get back the rights that they give to whoever runs them.
    setid: bool,
    /// Where links are to lead that named the node directory's old place.
    moved: Option<Moved>,
}

/// Two places of a node directory: the one in a snapshot's links, and the one where it is restored.
struct Moved {
    from: PathBuf,
    to: PathBuf,
}

impl Moved {
    /// The new text of a link that leads to the old place; `None` for any other.
    fn follow(&self, text: &[u8]) -> Option<Vec<u8>> {
        let inner = Path::new(OsStr::from_bytes(text)).strip_prefix(&self.from).ok()?;
        let moved = if inner == Path::new("") { self.to.clone() } else { self.to.join(inner) };
        Some(moved.into_os_string().into_vec())
    }
}

impl Target for Stage<'_> {
    fn create(&self, entry: &EntryRecord) -> Result<PlacedWriter> {
        let place = self.dir.at(&entry.path);
        let failed = |error| Error::io("making a file", error).with_entry(entry.path.to_string());
        let file = place.create_new().map_err(failed)?;
        file.set_len(entry.size).map_err(failed)?;
        Ok(PlacedWriter::new(file, &place))
    }
}

impl<'a> Stage<'a> {
    pub(super) fn new(dir: &'a RootedPath, owner: Option<(u32, u32)>, setid: bool) -> Stage<'a> {
        Stage { dir, owner: owner.map(|(uid, gid)| Owner { uid, gid }), setid, moved: None }
    }

    /// The same, for a node that is to stand at `target`: links in the snapshot that name the place where
    /// it stood lead there.
    pub(super) fn for_target(mut self, manifest: &Manifest, target: &Path) -> Result<Stage<'a>> {
        if let Some(place) = &manifest.place {
            let from = PathBuf::from(OsString::from_vec(decode(place)?));
            self.moved = Some(Moved { from, to: target.to_owned() });
        }
        Ok(self)
    }

    /// Warns of links that lead out of the restored node.
    pub(super) fn outward(&self, parts: &[&PartRecord], target: &Path) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        for entry in sorted(parts).into_values() {
            let EntryType::Symlink { target: text } = &entry.kind else { continue };
            let text = decode(text)?;
            let followed = self.moved.as_ref().and_then(|moved| moved.follow(&text));
            let leads = PathBuf::from(OsString::from_vec(followed.unwrap_or(text)));
            if leads.is_absolute() && !leads.starts_with(target) {
                warnings.push(format!(
                    "{} leads to {}, outside of {}: look whether that is what the restored node is to use",
                    entry.path,
                    leads.display(),
                    target.display()
                ));
            }
        }
        Ok(warnings)
    }

    /// Writes directories and files of the parts; every file is closed and complete after it.
    pub(super) fn write(
        &self,
        vault: &Vault,
        manifest: &Manifest,
        parts: &[&PartRecord],
        control: &Control,
    ) -> Result<()> {
        let entries = sorted(parts);
        entries.keys().try_for_each(|path| refuse_own(path))?;
        let bytes_total = entries.values().map(|entry| entry.size).sum();
        control.report(Event::Stage { name: "fetch", bytes_total });
        let dirs = entries.values().filter_map(|entry| match entry.kind {
            EntryType::Dir => Some(entry.path.clone()),
            _ => entry.path.parent(),
        });
        dirs.collect::<BTreeSet<RelPath>>().iter().try_for_each(|dir| self.make_dir(dir))?;
        let files = entries.values().copied().filter(|entry| entry.kind == EntryType::File);
        fetch(vault, manifest, files, self, control)?;
        entries.values().try_for_each(|entry| self.punch_holes(entry))?;
        entries.values().try_for_each(|entry| self.make_name(entry))?;
        // Links come last: no file can be written through one.
        entries.values().try_for_each(|entry| self.make_link(entry))
    }

    /// Makes a further name of a file.
    fn make_name(&self, entry: &EntryRecord) -> Result<()> {
        let EntryType::Hardlink { to } = &entry.kind else { return Ok(()) };
        let failed = |errno| {
            Error::io(format!("making it a further name of {to}"), errno)
                .with_entry(entry.path.to_string())
        };
        self.dir.at(to).link_to(&self.dir.at(&entry.path)).map_err(failed)
    }

    /// Makes a symbolic link. One that led to a place in the node directory leads to the same place in
    /// the restored one.
    fn make_link(&self, entry: &EntryRecord) -> Result<()> {
        let EntryType::Symlink { target } = &entry.kind else { return Ok(()) };
        let target = decode(target)?;
        let target = self.moved.as_ref().and_then(|moved| moved.follow(&target)).unwrap_or(target);
        let made = self.dir.at(&entry.path).make_link(std::ffi::OsStr::from_bytes(&target));
        made.map_err(|error| Error::io("making a link", error).with_entry(entry.path.to_string()))
    }

    /// Gives a sparse file its holes again: units at their edges were written whole.
    fn punch_holes(&self, entry: &EntryRecord) -> Result<()> {
        if entry.holes.is_empty() {
            return Ok(());
        }
        let failed = |error: Errno| {
            Error::io("making a file sparse", error).with_entry(entry.path.to_string())
        };
        let file = self.dir.at(&entry.path).open_with(OFlags::WRONLY, Mode::empty());
        let file = file.map_err(failed)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for &(offset, length) in &entry.holes {
            match rustix::fs::fallocate(&file, flags, offset, length) {
                Ok(()) => {}
                // A file system without holes: the zeros stand as they are.
                Err(Errno::NOTSUP) => return Ok(()),
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    fn make_dir(&self, path: &RelPath) -> Result<()> {
        let Some(above) = path.parent() else { return Ok(()) };
        let mut made = self.dir.at(path).make_dir();
        if made == Err(Errno::NOENT) {
            self.make_dir(&above)?;
            made = self.dir.at(path).make_dir();
        }
        match made {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(Error::io("making a directory", error).with_entry(path.to_string())),
        }
    }

    /// Gives every entry its owner, mode, times and attributes; what is inside a directory first,
    /// since writing there would change the directory's times. Returns what could not be set, and what
    /// was left out.
    pub(super) fn describe(&self, root: &Metadata, parts: &[&PartRecord]) -> Result<Vec<String>> {
        let mut told = Told::default();
        let mut near = Neighbours::new(self.dir);
        for entry in sorted(parts).into_values().rev() {
            let place = near.at(&entry.path).map_err(|error| {
                Error::io("looking for a restored file", error).with_entry(entry.path.to_string())
            })?;
            match entry.kind {
                EntryType::File | EntryType::Dir | EntryType::Symlink { .. } => {
                    self.apply(
                        &place,
                        &entry.path.to_string(),
                        &entry.meta,
                        &entry.kind,
                        &mut told,
                    )?;
                }
                // It is the same file as the one under its first name.
                EntryType::Hardlink { .. } => {}
                EntryType::Socket | EntryType::Fifo | EntryType::Device => {
                    told.warnings.push(not_restored(&entry.path));
                }
            }
        }
        self.apply(self.dir, ".", root, &EntryType::Dir, &mut told)?;
        Ok(told.warnings())
    }

    fn apply(
        &self,
        place: &RootedPath,
        entry: &str,
        meta: &Metadata,
        kind: &EntryType,
        told: &mut Told,
    ) -> Result<()> {
        let failed = |what: &str, error: Errno| Error::io(what, error).with_entry(entry);
        let owner = self.owner.unwrap_or(Owner { uid: meta.uid, gid: meta.gid });
        match place.give(owner) {
            Ok(()) => {}
            Err(Errno::PERM) if self.owner.is_none() => told.not_owned = true,
            Err(error) => return Err(failed("setting the owner", error)),
        }
        let mut bare = false;
        for (name, value) in &meta.xattrs {
            let name = decode(name)?;
            let value = hex::decode(value).map_err(|_| {
                Error::corrupt("an extended attribute is damaged").with_entry(entry)
            })?;
            if name == CAPABILITY && !self.setid {
                bare = true;
                continue;
            }
            let name = std::ffi::OsStr::from_bytes(&name);
            match place.set_xattr(name, &value) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::NOTSUP) => told.warnings.push(format!(
                    "{entry}: the extended attribute {} could not be set",
                    name.to_string_lossy()
                )),
                Err(error) => return Err(failed("setting an extended attribute", error)),
            }
        }
        let mut mode = meta.mode;
        // On a directory the bit hands on its group, and gives nobody a right.
        if *kind == EntryType::File && mode & SETID != 0 && !self.setid {
            (mode, bare) = (mode & !SETID, true);
        }
        if bare {
            told.bare.push(entry.to_owned());
        }
        if !matches!(kind, EntryType::Symlink { .. }) {
            place.set_mode(mode).map_err(|error| failed("setting the mode", error))?;
        }
        let modified = Timespec {
            tv_sec: meta.mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: meta.mtime_ns.rem_euclid(1_000_000_000),
        };
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: modified,
        };
        place.set_times(&times).map_err(|error| failed("setting the time", error))
    }

    /// Makes all of it durable: one call for the file system, whatever the number of files.
    pub(super) fn sync(&self) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = self.dir.open_with(flags, Mode::empty());
        dir.and_then(rustix::fs::syncfs)
            .map_err(|error| Error::io("making the restored files durable", error))
    }
}

/// What is reported to an operator about a restored tree.
#[derive(Default)]
struct Told {
    warnings: Vec<String>,
    /// Owners could not be set.
    not_owned: bool,
    /// Entries that came back without set-user-id, set-group-id or capabilities.
    bare: Vec<String>,
}

impl Told {
    fn warnings(mut self) -> Vec<String> {
        if self.not_owned {
            let warning = "owners could not be set by this user; run as root to set them";
            self.warnings.push(warning.to_owned());
        }
        if !self.bare.is_empty() {
            self.bare.sort();
            self.warnings.push(format!(
                "set-user-id, set-group-id or capabilities were left out of {}: what has them gives \
                 its rights to whoever runs it; they come back only where that is asked for",
                self.bare.join(", ")
            ));
        }
        self.warnings
    }
}

/// What Highwater keeps beside or inside a node directory is part of no snapshot: one that has it was made
/// by somebody else, who would decide what becomes of the node.
pub(super) fn refuse_own(path: &RelPath) -> Result<()> {
    let names: Vec<&[u8]> = path.as_bytes().split(|&byte| byte == b'/').collect();
    let own = names.first() == Some(&crate::node::OWN_DIR.as_bytes());
    let work = names.windows(2).any(|pair| {
        pair[0].starts_with(b".highwater-") && matches!(pair[1], b"journal.json" | b"kept.json")
    });
    if !own && !work {
        return Ok(());
    }
    Err(Error::corrupt(format!("the snapshot holds {path}, which no backup captures"))
        .with_entry(path.to_string())
        .with_remedy("restore another snapshot; find out who has the vault's key"))
}

/// All entries by path: a directory stands before what is in it.
fn sorted<'a>(parts: &[&'a PartRecord]) -> BTreeMap<&'a RelPath, &'a EntryRecord> {
    parts.iter().flat_map(|part| &part.entries).map(|entry| (&entry.path, entry)).collect()
}

fn not_restored(path: &RelPath) -> String {
    format!("{path}: a socket, pipe or device is not restored; the node makes it again")
}

/// Copies what a restore of one part leaves as it is: everything in the target that does not
/// belong to that part. Returns warnings.
pub(super) fn copy_others(
    target: &RootedPath,
    staging: &RootedPath,
    replaced: &dyn Fn(&RelPath) -> bool,
    control: &Control,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let mut pending = vec![RelPath::root()];
    let mut dirs: Vec<(RootedPath, RootedPath)> = Vec::new();
    let mut names: HashMap<(u32, u32, u64), RootedPath> = HashMap::new();
    while let Some(dir) = pending.pop() {
        for name in durable::names(&target.at(&dir))? {
            control.cancel.check()?;
            let path = dir.join(&name);
            if path.as_bytes() == crate::node::OWN_DIR.as_bytes() || replaced(&path) {
                continue;
            }
            let (from, to) = (target.at(&path), staging.at(&path));
            let failed = |error: std::io::Error| {
                durable::met(&from, "copy", error).with_entry(path.to_string())
            };
            let Some(found) = durable::stat(&from)? else { continue };
            if durable::is_dir(&found) {
                Stage::new(staging, None, true).make_dir(&path)?;
                dirs.push((from, to));
                pending.push(path);
            } else if let Some(first) = names.get(&id(&found)) {
                first.link_to(&to).map_err(|errno| failed(errno.into()))?;
            } else if durable::is_file(&found) {
                if found.stx_nlink > 1 {
                    names.insert(id(&found), to.clone());
                }
                let source = from.open_file().map_err(failed)?;
                refuse_another(&source, &found, &path)?;
                let copy = to.create_new().map_err(failed)?;
                copying::copy(&source, &copy, found.stx_size, &|| control.cancel.check())
                    .map_err(|error| error.with_entry(path.to_string()))?;
                copy_metadata(&from, &to, &path)?;
            } else if rustix::fs::FileType::from_raw_mode(found.stx_mode.into()).is_symlink() {
                let text = from.read_link().map_err(|error| failed(error.into()))?;
                to.make_link(std::ffi::OsStr::from_bytes(&text))
                    .map_err(|error| failed(error.into()))?;
                copy_metadata(&from, &to, &path)?;
            } else {
                warnings.push(not_restored(&path));
            }
        }
    }
    for (from, to) in dirs.iter().rev() {
        copy_metadata(from, to, &RelPath::root())?;
    }
    Ok(warnings)
}

/// Root reads nothing for the owner of a directory that another name has been given to meanwhile.
fn refuse_another(file: &std::fs::File, seen: &rustix::fs::Statx, path: &RelPath) -> Result<()> {
    let opened = rustix::fs::fstat(file)
        .map_err(|error| Error::io("can't look at it", error).with_entry(path.to_string()))?;
    let device = rustix::fs::makedev(seen.stx_dev_major, seen.stx_dev_minor);
    if (opened.st_dev, opened.st_ino) == (device, seen.stx_ino) {
        return Ok(());
    }
    Err(Error::conflict("it was replaced while it was copied")
        .with_entry(path.to_string())
        .with_remedy("try again; find out who writes there while the node is restored"))
}

fn id(found: &rustix::fs::Statx) -> (u32, u32, u64) {
    (found.stx_dev_major, found.stx_dev_minor, found.stx_ino)
}

/// What was there keeps the rights that it gives, unless somebody has just put it there: a file of
/// another user's can't have been made by the owner of the directory.
fn copy_metadata(from: &RootedPath, to: &RootedPath, path: &RelPath) -> Result<()> {
    let found = crate::engine::look_at(from)?;
    let setid = from.root_owner().is_ok_and(|owner| owner.uid == 0 || found.meta.uid != 0);
    let stage = Stage::new(to, None, setid);
    let mut told = Told::default();
    stage.apply(to, &path.to_string(), &found.meta, &found.kind, &mut told)?;
    told.bare.clear();
    match told.warnings().pop() {
        None => Ok(()),
        Some(warning) => Err(Error::new(Kind::Denied, warning).with_entry(path.to_string())),
    }
}
