//! Private directories beside a database, in which a capture lets a checkpoint or a copy be made.
//! Whoever uses one holds a lock on it, so that leftovers of a crash can be distinguished from a capture that is
//! under way.

use std::os::fd::OwnedFd;

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::durable;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// Where one stands: beside the database, or in `.highwater` where the database is the node directory
/// itself.
pub(super) fn parent(dir: &RootedPath, root: &RelPath) -> RootedPath {
    root.parent().map_or_else(|| dir.join(".highwater"), |parent| dir.at(&parent))
}

/// A private directory, held; removed when it is dropped.
pub(super) struct Scratch {
    place: RootedPath,
    dir: RootedPath,
    _lock: OwnedFd,
}

impl Scratch {
    /// A fresh one in `parent`, which is on the file system of the database, so that tables can be
    /// linked. What captures of the same kind left there that did not live to remove it goes first.
    /// Its name is `prefix` and 16 hex digits.
    pub(super) fn create(parent: &RootedPath, prefix: &str, env: &Env) -> Result<Scratch> {
        durable::make_dir_for(parent, parent.above().owner()?)?;
        collect(parent, prefix)?;
        let place = parent.join(format!("{prefix}{}", hex::encode(env.random::<8>()?)));
        let failed = |errno| durable::met(&place, "make", errno);
        place.make_dir().map_err(failed)?;
        let dir = place.enter().map_err(failed)?;
        if !is_ours(&dir) {
            return Err(Error::conflict(format!("{place} was replaced while it was made"))
                .with_remedy("try again; find out who moves what is in the node directory"));
        }
        match lock(&dir) {
            Ok(lock) => Ok(Scratch { place, dir, _lock: lock }),
            Err(errno) => Err(durable::met(&dir, "lock", errno)),
        }
    }

    pub(super) fn path(&self) -> &RootedPath {
        &self.dir
    }

    /// Removes it and says so if that fails; dropping removes it as well as it can.
    pub(super) fn remove(self) -> Result<()> {
        durable::remove_held(&self.place, &self.dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is collected by the next capture, which reports a failure.
        let _ = durable::remove_held(&self.place, &self.dir);
    }
}

fn is_ours(dir: &RootedPath) -> bool {
    dir.root_owner().is_ok_and(|owner| !owner.is_foreign())
}

fn lock(dir: &RootedPath) -> rustix::io::Result<OwnedFd> {
    let directory = dir.open_with(OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
    Ok(directory)
}

/// Removes what captures of this user left that did not live to do so; `parent` is there.
pub(super) fn collect(parent: &RootedPath, prefix: &str) -> Result<()> {
    for name in durable::names(parent)? {
        if !name.to_str().is_some_and(|name| name.starts_with(prefix)) {
            continue;
        }
        let place = parent.join(&name);
        // Gone, or no directory.
        let Ok(dir) = place.enter() else { continue };
        if !is_ours(&dir) {
            continue;
        }
        // In use by another capture, or just removed by it.
        let Ok(_lock) = lock(&dir) else { continue };
        durable::remove_held(&place, &dir)?;
    }
    Ok(())
}
