//! A locked work directory of restores, held.

use std::fs::File;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::journal::{Journal, Operation, Way};
use super::users::Users;
use crate::durable;
use crate::engine::Engines;
use crate::error::{Error, Remedy, Result};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// How often the lock is tried again when its work directory was removed meanwhile.
const LOCK_TRIES: u32 = 16;

/// A locked work directory, held: whoever moves it away can't change where a step is done. Dropping
/// it gives up the lock and changes nothing, so that an error leaves what a kill at the same instant
/// would leave.
#[derive(Debug)]
pub(super) struct WorkDir {
    /// The node directory.
    pub(super) target: RootedPath,
    /// The work directory.
    pub(super) path: RootedPath,
    /// The same by the directory above it.
    pub(super) place: RootedPath,
    lock: File,
}

impl WorkDir {
    /// Makes the work directory where it is missing, and locks it.
    pub(super) fn make(target: &RootedPath, place: &RootedPath, way: Way) -> Result<WorkDir> {
        for _ in 0..LOCK_TRIES {
            if way == Way::Entries {
                crate::node::make_own_dir(target)?;
            }
            durable::make_dir(place)?;
            if let Some(dir) = WorkDir::lock(target, place)? {
                durable::sync_dir(&place.above())?;
                if way == Way::Entries {
                    durable::sync_dir(target)?;
                }
                return Ok(dir);
            }
        }
        Err(busy(target))
    }

    /// Locks the work directory; `None` where there is none.
    pub(super) fn open(target: &RootedPath, place: &RootedPath) -> Result<Option<WorkDir>> {
        for _ in 0..LOCK_TRIES {
            if durable::stat(place)?.is_none() {
                return Ok(None);
            }
            if let Some(dir) = WorkDir::lock(target, place)? {
                return Ok(Some(dir));
            }
        }
        Err(busy(target))
    }

    /// `None` where the work directory was removed meanwhile by who had the lock.
    fn lock(target: &RootedPath, place: &RootedPath) -> Result<Option<WorkDir>> {
        let path = match place.enter() {
            Ok(path) => path,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(foreign(place)),
            Err(error) => return Err(durable::met(place, "enter", error)),
        };
        refuse_foreign(&path)?;
        path.disinherit()
            .map_err(|error| durable::met(&path, "take the access list from", error))?;
        let name = path.join("lock");
        let wrong = |error: std::io::Error| durable::met(&name, "lock", error);
        let file = match name.open_lock() {
            Ok((file, _)) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(error)),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(busy(target)),
            Err(error) => return Err(wrong(error.into())),
        }
        let inode = rustix::fs::fstat(&file).map_err(|error| wrong(error.into()))?.st_ino;
        if durable::inode(&name)?.map(|inode| inode.number) != Some(inode) {
            return Ok(None);
        }
        Ok(Some(WorkDir { target: target.clone(), path, place: place.clone(), lock: file }))
    }

    pub(super) fn journal(&self) -> RootedPath {
        self.path.join("journal.json")
    }

    /// The journal of the last exchange that is done: what is kept, and for which target.
    pub(super) fn record(&self) -> RootedPath {
        self.path.join("kept.json")
    }

    pub(super) fn staging(&self) -> RootedPath {
        self.path.join("staging")
    }

    pub(super) fn kept(&self) -> RootedPath {
        self.path.join("kept")
    }

    /// Where a replicated store waits that comes back with a snapshot's files.
    pub(super) fn hydrated(&self) -> RootedPath {
        self.path.join("hydrated")
    }

    /// Where withheld entry points wait.
    pub(super) fn withheld(&self) -> RootedPath {
        self.path.join("withheld")
    }

    /// Where the directory that comes in stands before the exchange.
    pub(super) fn incoming(&self, journal: &Journal) -> RootedPath {
        match journal.operation {
            Operation::Restore => self.staging(),
            Operation::Rollback => self.kept(),
        }
    }

    /// An operation that was interrupted has to be finished first.
    pub(super) fn refuse_interrupted(&self) -> Result<()> {
        match Journal::read(&self.journal())? {
            Some(_) => Err(interrupted(&self.target)),
            None => Ok(()),
        }
    }

    /// Nobody may have the node directory open while it is exchanged.
    pub(super) fn refuse_users(&self, users: Users, engines: &Engines) -> Result<()> {
        let own = RelPath::from_bytes(b".highwater/restore")?;
        if durable::stat(&self.target)?.is_none() {
            return Ok(());
        }
        match users(&self.target.path(), engines)?
            .into_iter()
            .find(|user| !user.file.is_within(&own))
        {
            None => Ok(()),
            Some(user) => Err(Error::conflict(format!("{user} has {} open", user.file))
                .with_entry(user.file.to_string())
                .with_remedy("stop the node first")),
        }
    }
}

/// A journal says what becomes of the node directory. It is believed where nobody but this user can
/// have written it: in a directory that is held, that this user made, and that nobody else may enter.
/// Its name and all that is above may be another one's to move: what is held stays held, nobody but
/// root makes a directory of root's, and whoever may not write in a directory can't bring it in from
/// another one. The inodes in the journal tie it to its node directory.
fn refuse_foreign(path: &RootedPath) -> Result<()> {
    let found = rustix::fs::fstat(path.held())
        .map_err(|error| Error::io(format!("can't look at {path}"), error))?;
    if found.st_uid == rustix::process::geteuid().as_raw() && found.st_mode & 0o077 == 0 {
        return Ok(());
    }
    Err(foreign(path))
}

fn foreign(path: &RootedPath) -> Error {
    Error::denied(format!("{path} is no work directory of this user's: others may have written it"))
        .with_entry(path.path().display().to_string())
        .with_remedy(
            "run this as the user who restored; look who made the directory, and remove it if no \
             restore of yours did",
        )
}

impl Drop for WorkDir {
    /// A child that was forked meanwhile has the lock too, until it starts its program.
    fn drop(&mut self) {
        // Closing the file does the same, unless there is such a child.
        let _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }
}

fn busy(target: &RootedPath) -> Error {
    Error::conflict(format!("another restore, rollback or recover of {target} is running"))
        .with_remedy("wait until it has ended")
}

pub(super) fn interrupted(target: &RootedPath) -> Error {
    Error::conflict(format!("an earlier restore or rollback of {target} was interrupted"))
        .with_remedy(Remedy::Recover(target.path()))
}

/// The same error, saying what the node directory is and what brings it in order.
pub(super) fn standing(error: Error, target: &RootedPath, state: &str) -> Error {
    error
        .told_as(|why| format!("{why}; the node directory {target} {state}"))
        .with_remedy(Remedy::Recover(target.path()))
}
