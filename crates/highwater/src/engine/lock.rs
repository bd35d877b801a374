//! A database's own lock, taken as its engine takes it, for as long as the database is read.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType};

use super::{metadata, process};
use crate::durable;
use crate::error::{Error, Result};
use crate::rooted::RootedPath;

/// The ways out of a RocksDB in use.
pub(super) const ROCKSDB_WAYS_OUT: &str = "stop the node, freeze it for the instant that a backup takes (--freeze PID), or take the backup \
     from inside it with a checkpoint hook";
/// The ways out of any other database in use.
pub(super) const WAYS_OUT: &str =
    "stop the node for the time of the backup, or freeze it for an instant (--freeze PID)";

/// Between the look at the process's own descriptors and the lock no other capture of this process
/// may open the same file: a record lock belongs to the process, so both would get it.
static TAKING: Mutex<()> = Mutex::new(());

/// Takes the record lock (`fcntl`) of RocksDB and LevelDB on `path`.
///
/// The file must not be opened again by this process while the lock is held: closing that
/// descriptor would give the lock up.
pub(super) fn record(
    path: &RootedPath,
    db: &RootedPath,
    name: &str,
    ways_out: &str,
) -> Result<OwnedFd> {
    let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    not_ours(db, name)?;
    let file = lock_file(path, db).map_err(|errno| {
        Error::io(format!("can't open the lock of {name}"), errno)
            .entry(name)
            .hint("run as the user that the node runs as")
    })?;
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::AGAIN | Errno::ACCESS) => {
            let holder = rustix::process::fcntl_getlk(&file, &Flock::from(FlockType::WriteLock));
            let pid = holder.ok().flatten().and_then(|lock| lock.pid);
            let holder = pid.and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
            Err(in_use(name, &holder.map_or_else(|| user_names(db), named), ways_out))
        }
        Err(errno) => Err(Error::io(format!("can't take the lock of {name}"), errno).entry(name)),
    }
}

/// Opens the lock file; one that has to be made belongs to the owner of the database, who could not
/// open it otherwise.
fn lock_file(path: &RootedPath, db: &RootedPath) -> std::io::Result<OwnedFd> {
    let (file, made) = path.open_lock()?;
    if made {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
        db.enter()?.root_owner()?.take(&file)?;
    }
    Ok(file.into())
}

/// Takes the whole-file lock (`flock`) of bbolt, redb and Badger on `path`.
pub(super) fn whole(path: &RootedPath, name: &str) -> Result<OwnedFd> {
    let failed =
        |errno: Errno| Error::io(format!("can't take the lock of {name}"), errno).entry(name);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = path.open_with(flags, Mode::empty()).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(in_use(name, &user_names(path), WAYS_OUT)),
        Err(errno) => Err(failed(errno)),
    }
}

/// A conflict where any process, ours included, has a file at or below `path` open.
pub(super) fn unused(path: &RootedPath, name: &str) -> Result<()> {
    not_ours(path, name)?;
    let users = process::users(&path.path())?;
    if users.is_empty() { Ok(()) } else { Err(in_use(name, &process::names(&users), WAYS_OUT)) }
}

/// A conflict where this process itself has the database open.
fn not_ours(db: &RootedPath, name: &str) -> Result<()> {
    let own = process::own_files()?;
    let is_own = |place: &RootedPath| -> Result<bool> {
        Ok(durable::stat(place)?.is_some_and(|seen| own.contains(&metadata::id_of(&seen))))
    };
    let mut ours = is_own(db)?;
    if durable::stat(db)?.is_some_and(|seen| durable::is_dir(&seen)) {
        for name in durable::names(db)? {
            ours |= is_own(&db.join(name))?;
        }
    }
    if !ours {
        return Ok(());
    }
    Err(Error::conflict(format!("{name} is open in this very process"))
        .entry(name)
        .hint("register a checkpoint hook for it, or close it first"))
}

fn in_use(name: &str, users: &str, ways_out: &str) -> Error {
    let by = if users.is_empty() { "another process" } else { users };
    Error::conflict(format!("{name} is in use by {by}")).entry(name).hint(ways_out)
}

fn named(pid: u32) -> String {
    format!("{} (pid {pid})", process::command(pid))
}

fn user_names(path: &RootedPath) -> String {
    process::users(&path.path()).map(|users| process::names(&users)).unwrap_or_default()
}
