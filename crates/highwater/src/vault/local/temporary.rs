//! A file on its way to becoming an object: written out of sight, made durable, then given its
//! name. Its writer's lock tells a living one from what a dead writer has left.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FlockOperation, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::{Directory, sync_directory};
use crate::direct::SequentialWriter;
use crate::env::FaultPoint;
use crate::error::Result;
use crate::vault::medium::failed;

const TRIES_MAX: u32 = 16;

/// A file in `.tmp/` that is not yet an object; dropping it removes it.
#[derive(Debug)]
pub(super) struct Temporary {
    directory: Arc<Directory>,
    writer: SequentialWriter,
    path: PathBuf,
    published: bool,
}

impl Temporary {
    /// A new file for the object `object`, private and locked.
    pub(super) fn new(directory: &Arc<Directory>, object: &str) -> Result<Temporary> {
        let at = |error| failed(object, error);
        directory.make_durable(&directory.temporary).map_err(at)?;
        for _ in 0..TRIES_MAX {
            let name = hex::encode(directory.env.random::<16>()?);
            let path = directory.temporary.join(name);
            let mut options = OpenOptions::new();
            let created = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
            let file = match created {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created.map_err(at)?,
            };
            let directory = Arc::clone(directory);
            let writer = SequentialWriter::new(file);
            let made = Temporary { directory, writer, path, published: false };
            // Until it is locked, a collector may take it for a dead writer's.
            match rustix::fs::flock(made.writer.file(), FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => continue,
                locked => locked.map_err(|error| at(error.into()))?,
            }
            if made.writer.file().metadata().map_err(at)?.nlink() > 0 {
                return Ok(made);
            }
        }
        Err(at(io::Error::other("no temporary file could be made")))
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write(bytes)
    }

    /// Gives the file its name, durably; `false` where that is taken. A crash before the last sync
    /// leaves the object whole or absent, and at most a second, temporary name for it.
    pub(super) fn publish(mut self, object: &str, path: &Path) -> Result<bool> {
        let at = |error: io::Error| failed(object, error);
        let directory = Arc::clone(&self.directory);
        self.writer.finish().map_err(at)?;
        directory.env.fault(FaultPoint::LocalPutSync)?;
        self.writer.file().sync_all().map_err(at)?;
        directory.env.fault(FaultPoint::LocalPutLink)?;
        let parent = path.parent().unwrap_or(&directory.root);
        directory.make_durable(parent).map_err(at)?;
        // The object's time is that of its put, not that of the last write before it.
        touch(self.writer.file()).map_err(at)?;
        match link_new(&self.path, path) {
            Err(Errno::EXIST) => return Ok(false),
            linked => self.published = linked.map_err(|error| at(error.into()))?,
        }
        sync_directory(parent).map_err(at)?;
        Ok(true)
    }
}

/// Sets a file's times to now, by the clock of its file system.
fn touch(file: &File) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: now, last_modification: now })?)
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // What can't be removed is a leftover, which the next collection finds.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Gives a file its new name where that is free; tells whether the old name is gone.
fn link_new(from: &Path, to: &Path) -> Result<bool, Errno> {
    match rename_new(from, to) {
        // The file system does not know the flag (NFS).
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            hard_link_new(from, to).map(|()| false)
        }
        renamed => renamed.map(|()| true),
    }
}

fn rename_new(from: &Path, to: &Path) -> Result<(), Errno> {
    rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
}

fn hard_link_new(from: &Path, to: &Path) -> Result<(), Errno> {
    rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty())
}

/// Removes a file of `.tmp/` unless its writer lives.
pub(super) fn remove_if_dead(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(()),
        locked => {
            locked?;
            fs::remove_file(path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_a_new_name_refuses_one_that_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for new_name in [rename_new, hard_link_new] {
            for (name, content) in [("from", "new"), ("taken", "old")] {
                fs::write(at(name), content).unwrap();
            }
            assert_eq!(new_name(&at("from"), &at("taken")), Err(Errno::EXIST));
            assert_eq!(fs::read(at("taken")).unwrap(), b"old");
            new_name(&at("from"), &at("free")).unwrap();
            assert_eq!(fs::read(at("free")).unwrap(), b"new");
            fs::remove_file(at("free")).unwrap();
        }
    }
}
