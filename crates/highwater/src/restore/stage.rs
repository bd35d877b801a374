//! Staging: the restored tree beside the target, with all that the file system says of it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::control::{Control, Event};
use crate::direct::PlacedWriter;
use crate::engine::{EntryType, Metadata};
use crate::error::{Error, Kind, Result};
use crate::ids::{RelPath, decode};
use crate::vault::manifest::{EntryRecord, PartRecord};
use crate::vault::{Manifest, Vault};

use super::fetch::{Target, fetch};

/// A tree that is being made.
pub(super) struct Stage<'a> {
    dir: &'a Path,
    owner: Option<(u32, u32)>,
}

impl Target for Stage<'_> {
    fn create(&self, entry: &EntryRecord) -> Result<PlacedWriter> {
        let path = entry.path.under(self.dir);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(&path)
            .map_err(|error| Error::io("making a file", error).entry(entry.path.to_string()))?;
        file.set_len(entry.size)
            .map_err(|error| Error::io("making a file", error).entry(entry.path.to_string()))?;
        Ok(PlacedWriter::new(file, &path))
    }
}

impl<'a> Stage<'a> {
    pub(super) fn new(dir: &'a Path, owner: Option<(u32, u32)>) -> Stage<'a> {
        Stage { dir, owner }
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
        let bytes_total = entries.values().map(|entry| entry.size).sum();
        control.report(Event::Stage { name: "fetch", bytes_total });
        for entry in entries.values() {
            if entry.kind == EntryType::Dir {
                self.make_dir(&entry.path)?;
            } else if let Some(parent) = entry.path.parent() {
                self.make_dir(&parent)?;
            }
        }
        let files = entries.values().copied().filter(|entry| entry.kind == EntryType::File);
        fetch(vault, manifest, files, self, control)?;
        entries.values().try_for_each(|entry| self.punch_holes(entry))?;
        // Links come last: no file can be written through one.
        for entry in entries.values() {
            if let EntryType::Symlink { target } = &entry.kind {
                let target = decode(target)?;
                std::os::unix::fs::symlink(
                    std::ffi::OsStr::from_bytes(&target),
                    entry.path.under(self.dir),
                )
                .map_err(|error| Error::io("making a link", error).entry(entry.path.to_string()))?;
            }
        }
        Ok(())
    }

    /// Gives a sparse file its holes again: units at their edges were written whole.
    fn punch_holes(&self, entry: &EntryRecord) -> Result<()> {
        if entry.holes.is_empty() {
            return Ok(());
        }
        let failed = |error| Error::io("making a file sparse", error).entry(entry.path.to_string());
        let file = OpenOptions::new().write(true).open(entry.path.under(self.dir));
        let file = file.map_err(failed)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for &(offset, length) in &entry.holes {
            match rustix::fs::fallocate(&file, flags, offset, length) {
                Ok(()) => {}
                // A file system without holes: the zeros stand as they are.
                Err(Errno::NOTSUP) => return Ok(()),
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(())
    }

    fn make_dir(&self, path: &RelPath) -> Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path.under(self.dir))
            .map_err(|error| Error::io("making a directory", error).entry(path.to_string()))
    }

    /// Gives every entry its owner, mode, times and attributes; what is inside a directory first,
    /// since writing there would change the directory's times. Returns what could not be set.
    pub(super) fn describe(&self, root: &Metadata, parts: &[&PartRecord]) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        for entry in sorted(parts).into_values().rev() {
            match entry.kind {
                EntryType::File | EntryType::Dir | EntryType::Symlink { .. } => {
                    let path = entry.path.under(self.dir);
                    let link = matches!(entry.kind, EntryType::Symlink { .. });
                    self.apply(&path, &entry.path.to_string(), &entry.meta, link, &mut warnings)?;
                }
                EntryType::Socket | EntryType::Fifo | EntryType::Device => warnings.push(format!(
                    "{}: a socket, pipe or device is not restored; the node makes it again",
                    entry.path
                )),
            }
        }
        self.apply(self.dir, ".", root, false, &mut warnings)?;
        Ok(warnings)
    }

    fn apply(
        &self,
        path: &Path,
        entry: &str,
        meta: &Metadata,
        link: bool,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let failed = |what: &str, error: Errno| Error::io(what, error).entry(entry);
        let (uid, gid) = self.owner.unwrap_or((meta.uid, meta.gid));
        let owned = rustix::fs::chownat(
            CWD,
            path,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        );
        match owned {
            Ok(()) => {}
            Err(Errno::PERM) if self.owner.is_none() => {
                let warning = "owners could not be set by this user; run as root to set them";
                if !warnings.iter().any(|known| known == warning) {
                    warnings.push(warning.to_owned());
                }
            }
            Err(error) => return Err(failed("setting the owner", error)),
        }
        for (name, value) in &meta.xattrs {
            let name = decode(name)?;
            let value = hex::decode(value)
                .map_err(|_| Error::corrupt("an extended attribute is damaged").entry(entry))?;
            let name = std::ffi::OsStr::from_bytes(&name);
            match rustix::fs::lsetxattr(path, name, &value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::NOTSUP) => warnings.push(format!(
                    "{entry}: the extended attribute {} could not be set",
                    name.to_string_lossy()
                )),
                Err(error) => return Err(failed("setting an extended attribute", error)),
            }
        }
        if !link {
            rustix::fs::chmod(path, Mode::from_raw_mode(meta.mode))
                .map_err(|error| failed("setting the mode", error))?;
        }
        let modified = Timespec {
            tv_sec: meta.mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: meta.mtime_ns.rem_euclid(1_000_000_000),
        };
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: modified,
        };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| failed("setting the time", error))
    }

    /// Makes all of it durable: one call for the file system, whatever the number of files.
    pub(super) fn sync(&self) -> Result<()> {
        let failed = |error| Error::io("making the restored files durable", error);
        let dir = File::open(self.dir).map_err(failed)?;
        rustix::fs::syncfs(&dir).map_err(|error| failed(error.into()))
    }
}

/// All entries by path: a directory stands before what is in it.
fn sorted<'a>(parts: &[&'a PartRecord]) -> BTreeMap<&'a RelPath, &'a EntryRecord> {
    parts.iter().flat_map(|part| &part.entries).map(|entry| (&entry.path, entry)).collect()
}

/// Copies what a restore of one part leaves as it is: everything in the target that does not
/// belong to that part.
pub(super) fn copy_others(
    target: &Path,
    staging: &Path,
    replaced: &dyn Fn(&RelPath) -> bool,
    control: &Control,
) -> Result<()> {
    let mut pending = vec![RelPath::root()];
    let mut dirs: Vec<(PathBuf, PathBuf)> = Vec::new();
    while let Some(dir) = pending.pop() {
        let failed = |error| Error::io("copying what stays", error).entry(dir.to_string());
        for found in std::fs::read_dir(dir.under(target)).map_err(failed)? {
            control.cancel.check()?;
            let found = found.map_err(failed)?;
            let path = dir.join(&found.file_name());
            if path.as_bytes() == crate::node::OWN_DIR.as_bytes() || replaced(&path) {
                continue;
            }
            let kind = found.file_type().map_err(failed)?;
            let (from, to) = (path.under(target), path.under(staging));
            if kind.is_dir() {
                make_private_dir(&to).map_err(failed)?;
                dirs.push((from, to));
                pending.push(path);
            } else if kind.is_file() {
                std::fs::copy(&from, &to).map_err(failed)?;
                copy_metadata(&from, &to)?;
            } else if kind.is_symlink() {
                let link = std::fs::read_link(&from).map_err(failed)?;
                std::os::unix::fs::symlink(link, &to).map_err(failed)?;
                copy_metadata(&from, &to)?;
            }
        }
    }
    for (from, to) in dirs.iter().rev() {
        copy_metadata(from, to)?;
    }
    Ok(())
}

fn make_private_dir(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn copy_metadata(from: &Path, to: &Path) -> Result<()> {
    let meta = crate::engine::metadata_of(from)?;
    let stage = Stage { dir: to, owner: None };
    let link = std::fs::symlink_metadata(from)
        .map_err(|error| Error::io("copying what stays", error))?
        .is_symlink();
    let entry = crate::ids::encode(from.as_os_str().as_bytes());
    let mut warnings = Vec::new();
    stage.apply(to, &entry, &meta, link, &mut warnings)?;
    match warnings.pop() {
        None => Ok(()),
        Some(warning) => Err(Error::new(Kind::Denied, warning).entry(entry)),
    }
}
