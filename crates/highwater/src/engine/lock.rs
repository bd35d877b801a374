//! A database's own lock, taken as its engine takes it, for as long as the database is read.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Flock, FlockOffsetType, FlockType};

use super::{metadata, process};
use crate::durable;
use crate::error::{Error, Remedy, Result};
use crate::rooted::RootedPath;

/// The ways out of a RocksDB in use.
pub(super) fn rocksdb_ways_out() -> Vec<Remedy> {
    [ways_out(), vec![Remedy::CheckpointHook]].concat()
}

/// The ways out of any other database in use.
pub(super) fn ways_out() -> Vec<Remedy> {
    vec!["stop the node for the time of the backup".into(), Remedy::Freeze(None)]
}

/// How an engine keeps others out of a database that it has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// A record lock (`fcntl`) on this file in its directory.
    RecordIn(&'static str),
    /// A record lock on the file beside it that this makes of its name: for a file of the first name, the
    /// second; else the name with the third behind it.
    RecordBeside(&'static str, &'static str, &'static str),
    /// A lock on the whole main file (`flock`), or on the directory.
    Whole,
    /// The same on this file in its directory.
    WholeIn(&'static str),
    /// SQLite's bytes of the main file, as long as it reads or writes.
    Sqlite,
    /// None that is known: nobody may have a file of it open.
    None,
}

impl Lock {
    /// The name of the file beside a main file that is its lock, where it has one.
    pub(super) fn beside(self, main: &OsStr) -> Option<OsString> {
        let Lock::RecordBeside(known, lock, suffix) = self else { return None };
        Some(if main == known {
            lock.into()
        } else {
            let mut name = main.to_owned();
            name.push(suffix);
            name
        })
    }
}

/// The bytes that SQLite locks in a database (`os.h`), which no page is ever stored in.
const SQLITE_LOCKS: (u64, u64) = (0x4000_0000, 512);
/// Those in a `-shm` (`os_unix.c`): eight locks of the log, and the one that says that it is in use.
const SHM_LOCKS: (u64, u64) = (120, 9);

/// All bytes of a file, however long.
const WHOLE: (u64, u64) = (0, 0);

/// Between the look at the process's own descriptors and the lock no other capture of this process
/// may open the same file: a record lock belongs to the process, so both would get it.
static TAKING: Mutex<()> = Mutex::new(());

/// Takes the record lock (`fcntl`) of RocksDB and LevelDB on `path`; `None` where nobody has the database open, and
/// the lock file is missing, or can't be locked since it is mounted read-only. It is not made: whoever makes it opens
/// the database.
///
/// The file must not be opened again by this process while the lock is held: closing that
/// descriptor would give the lock up.
pub(super) fn record(
    path: &RootedPath,
    db: &RootedPath,
    name: &str,
    ways_out: Vec<Remedy>,
) -> Result<Option<OwnedFd>> {
    let _taking = TAKING.lock();
    not_ours(db, name)?;
    let file = match path.open_with(OFlags::RDWR | OFlags::NONBLOCK, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return unused(db, name).map(|()| None),
        // Others may have it open by another mount.
        Err(Errno::ROFS) if is_held(path, WHOLE)? => {
            return Err(in_use(name, &user_names(db), ways_out));
        }
        Err(Errno::ROFS) => return unused(db, name).map(|()| None),
        Err(errno) => {
            return Err(Error::io(format!("can't open the lock of {name}"), errno)
                .with_entry(name)
                .with_remedy("run as the user that the node runs as"));
        }
    };
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::AGAIN | Errno::ACCESS) => {
            let holder = rustix::process::fcntl_getlk(&file, &Flock::from(FlockType::WriteLock));
            let pid = holder.ok().flatten().and_then(|lock| lock.pid);
            let holder = pid.and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
            Err(in_use(name, &holder.map_or_else(|| user_names(db), named), ways_out))
        }
        Err(errno) => {
            Err(Error::io(format!("can't take the lock of {name}"), errno).with_entry(name))
        }
    }
}

/// Takes the whole-file lock (`flock`) of bbolt, redb and Badger on `path`.
pub(super) fn whole(path: &RootedPath, name: &str) -> Result<OwnedFd> {
    let failed =
        |errno: Errno| Error::io(format!("can't take the lock of {name}"), errno).with_entry(name);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = path.open_with(flags, Mode::empty()).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(in_use(name, &user_names(path), ways_out())),
        Err(errno) => Err(failed(errno)),
    }
}

/// Whether another process holds the lock of a database, as its engine takes it. `root` is its directory
/// or main file; one that this process has open is not asked.
pub(super) fn is_held_by_others(root: &RootedPath, lock: Lock) -> Result<bool> {
    let _taking = TAKING.lock();
    if not_ours(root, "").is_err() {
        return Ok(false);
    }
    match lock {
        Lock::None => Ok(false),
        Lock::Sqlite => sqlite_held(root),
        Lock::RecordIn(name) => is_held(&root.join(name), WHOLE),
        Lock::RecordBeside(..) => match lock_beside(root, lock) {
            Some(place) => is_held(&place, WHOLE),
            None => Ok(false),
        },
        Lock::Whole => is_flocked(root),
        Lock::WholeIn(name) => is_flocked(&root.join(name)),
    }
}

/// Takes the lock of a database that is captured as files, as its engine takes it; `None` where it has
/// none that could be taken, and nobody is known to have it open.
pub(super) fn take(root: &RootedPath, lock: Lock, name: &str) -> Result<Option<OwnedFd>> {
    match lock {
        Lock::RecordIn(file) => {
            unused(root, name)?;
            record(&root.join(file), root, name, ways_out())
        }
        Lock::RecordBeside(..) => {
            unused(root, name)?;
            // Who has it open holds a shared one.
            match lock_beside(root, lock) {
                Some(place) => record(&place, root, name, ways_out()),
                None => Ok(None),
            }
        }
        Lock::Whole => {
            unused(root, name)?;
            whole(root, name).map(Some)
        }
        Lock::WholeIn(file) => {
            unused(root, name)?;
            let place = root.join(file);
            match durable::stat(&place)? {
                Some(_) => whole(&place, name).map(Some),
                None => Ok(None),
            }
        }
        Lock::Sqlite | Lock::None => {
            unused(root, name)?;
            if is_held_by_others(root, lock)? {
                return Err(in_use(name, "", ways_out()));
            }
            Ok(None)
        }
    }
}

/// The file beside a database that is its lock, where it has one.
pub(super) fn lock_beside(root: &RootedPath, lock: Lock) -> Option<RootedPath> {
    lock.beside(root.name()).map(|name| root.above().join(name))
}

/// Whether somebody has the whole-file lock: a shared one is taken for an instant.
fn is_flocked(path: &RootedPath) -> Result<bool> {
    let file = match path.open_with(OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(durable::met(path, "open", errno)),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(durable::met(path, "ask for the lock of", errno)),
    }
}

/// Whether another process holds one of SQLite's locks on the database at `path`: a connection to one
/// with a write-ahead log always does, any other one while it reads or writes. This process must not have
/// it open: its own locks would go with the look.
pub(super) fn sqlite_held(path: &RootedPath) -> Result<bool> {
    Ok(is_held(path, SQLITE_LOCKS)? || is_held(&path.with_suffix("-shm"), SHM_LOCKS)?)
}

/// Whether another process holds a record lock among these bytes.
fn is_held(path: &RootedPath, (start, length): (u64, u64)) -> Result<bool> {
    let file = match path.open_file() {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(durable::met(path, "open", error)),
    };
    let typ = FlockType::WriteLock;
    let lock = Flock { start, length, pid: None, typ, offset_type: FlockOffsetType::Set };
    let held = rustix::process::fcntl_getlk(&file, &lock)
        .map_err(|errno| durable::met(path, "ask for the locks of", errno))?;
    Ok(held.is_some())
}

/// A conflict where any process, ours included, has a file at or below `path` open.
pub(super) fn unused(path: &RootedPath, name: &str) -> Result<()> {
    not_ours(path, name)?;
    unused_by_others(path, name)
}

/// The same, whatever this process has open: a capture has files of the database open itself.
pub(super) fn unused_by_others(path: &RootedPath, name: &str) -> Result<()> {
    let users = process::users(&path.path())?;
    if users.is_empty() { Ok(()) } else { Err(in_use(name, &process::names(&users), ways_out())) }
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
        .with_entry(name)
        .with_remedy("register a checkpoint hook for it, or close it first"))
}

/// The conflict of a RocksDB that another process has open.
pub(super) fn rocksdb_in_use(db: &RootedPath, name: &str) -> Error {
    in_use(name, &user_names(db), rocksdb_ways_out())
}

fn in_use(name: &str, users: &str, ways_out: Vec<Remedy>) -> Error {
    let by = if users.is_empty() { "another process" } else { users };
    Error::conflict(format!("{name} is in use by {by}")).with_entry(name).with_remedies(ways_out)
}

fn named(pid: u32) -> String {
    format!("{} (pid {pid})", process::command(pid))
}

fn user_names(path: &RootedPath) -> String {
    process::users(&path.path()).map(|users| process::names(&users)).unwrap_or_default()
}
