//! Private directories beside a database, in which a capture lets a checkpoint or a copy be made.
//! Whoever uses one holds a lock on it, so that leftovers of a crash are told from a capture that is
//! under way.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::env::Env;
use crate::error::{Error, Result};

/// A private directory; removed when it is dropped.
pub(super) struct Scratch {
    path: PathBuf,
    _lock: OwnedFd,
}

impl Scratch {
    /// A fresh one in `parent`, which is on the file system of the database, so that tables can be
    /// linked. What captures of the same kind left there that did not live to remove it goes first.
    /// Its name is `prefix` and 16 hex digits.
    pub(super) fn create(parent: &Path, prefix: &str, env: &Env) -> Result<Scratch> {
        let failed = |source| Error::io(format!("can't make {}", parent.display()), source);
        match fs::DirBuilder::new().mode(0o700).create(parent) {
            Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(failed(source));
            }
            _ => {}
        }
        collect(parent, prefix)?;
        let path = parent.join(format!("{prefix}{}", hex::encode(env.random::<8>()?)));
        let what = format!("can't make {}", path.display());
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|source| Error::io(&what, source))?;
        match lock(&path) {
            Ok(lock) => Ok(Scratch { path, _lock: lock }),
            Err(errno) => Err(Error::io(&what, errno)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it and says so if that fails; dropping removes it as well as it can.
    pub(super) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.path)
            .map_err(|source| Error::io(format!("can't remove {}", self.path.display()), source))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is collected by the next capture, which reports a failure.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn lock(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
    Ok(directory)
}

/// Removes what captures left that did not live to do so; `parent` is there.
pub(super) fn collect(parent: &Path, prefix: &str) -> Result<()> {
    let failed = |source| Error::io(format!("can't list {}", parent.display()), source);
    for entry in fs::read_dir(parent).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        if !ours || !entry.file_type().map_err(failed)?.is_dir() {
            continue;
        }
        let path = entry.path();
        // In use by another capture, or just removed by it.
        let Ok(_lock) = lock(&path) else { continue };
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("can't remove {}", path.display()), source));
            }
            _ => {}
        }
    }
    Ok(())
}
