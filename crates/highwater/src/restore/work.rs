//! Where a restore works: beside the node directory, or inside it where that is a mount point; and
//! the life of one restore there, from the lock to the exchange.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use rustix::fs::{Access, FlockOperation};
use rustix::io::Errno;

use super::journal::{Journal, Node, Phase, Way};
use super::{Exchange, entries, exchange, kept};
use crate::control::Control;
use crate::durable;
use crate::engine::{Engines, User};
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Remedy, Result};
use crate::guard::points::Known;
use crate::ids::{RelPath, RestoreId, SnapshotId, encode};
use crate::rooted::RootedPath;

/// Highwater's own directory inside a node directory.
pub(super) const OWN: &str = ".highwater";
/// The work directory inside [`OWN`], where the node directory is a mount point.
pub(super) const INSIDE: &str = "restore";
/// How often the lock is tried again when its work directory was removed meanwhile.
const LOCK_TRIES: u32 = 16;

/// Tells who has files of a directory open: [`crate::engine::users`], but in tests.
pub(super) type Users = fn(&Path, &Engines) -> Result<Vec<User>>;

/// Where a node directory is, and how it would be exchanged.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The node directory, by a hold of the directory above it.
    pub(super) target: RootedPath,
    /// How it is exchanged.
    pub(super) exchange: Exchange,
    /// The work directory; it need not exist.
    pub(super) work: RootedPath,
    /// Where the restored files are staged.
    pub(super) staging: RootedPath,
    /// Where what the target holds is kept; `None` where it holds nothing.
    pub(super) keep: Option<RootedPath>,
}

impl Place {
    pub(super) fn way(&self) -> Way {
        match self.exchange {
            Exchange::Create | Exchange::Whole => Way::Whole,
            Exchange::Entries => Way::Entries,
        }
    }
}

/// Finds out where `target` is and how it would be exchanged. Changes nothing.
pub(super) fn locate(target: &Path) -> Result<Place> {
    let target = resolve(target)?;
    let parent = target.above();
    let beside = beside(&target);
    let missing = |place: &RootedPath| Error::not_found(format!("{place} does not exist"));
    let above = durable::stat(&parent)?.ok_or_else(|| missing(&parent))?;
    let writable = match parent.access(Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => true,
        Err(Errno::ACCESS | Errno::ROFS | Errno::PERM) => false,
        Err(error) => return Err(Error::io(format!("can't look at {parent}"), error)),
    };
    let Some(found) = durable::stat(&target)? else {
        if !writable {
            return Err(Error::denied(format!("can't make anything in {parent}"))
                .with_remedy("make the node directory first, and let this user write in it"));
        }
        return Ok(place(target, Exchange::Create, beside, false));
    };
    if !durable::is_dir(&found) {
        return Err(Error::input(format!("{target} is not a directory")));
    }
    crate::node::refuse_link(&target)?;
    let inside = durable::is_mount(&found, &above)
        || durable::device(&found) != durable::device(&above)
        || !writable;
    if inside {
        let holds = !entries::of(&target)?.is_empty();
        let work = target.join(OWN).join(INSIDE);
        return Ok(place(target, Exchange::Entries, work, holds));
    }
    let holds = !durable::names(&target)?.is_empty();
    let exchange = if holds { Exchange::Whole } else { Exchange::Create };
    Ok(place(target, exchange, beside, holds))
}

fn place(target: RootedPath, exchange: Exchange, work: RootedPath, holds: bool) -> Place {
    let (staging, kept) = (work.join("staging"), work.join("kept"));
    Place { target, exchange, work, staging, keep: holds.then_some(kept) }
}

/// The node directory without links, by a hold of its parent. It need not exist, its parent must.
fn resolve(target: &Path) -> Result<RootedPath> {
    // A link to the node directory is followed; where there is nothing, its parent is all there is.
    let place = RootedPath::of(target)
        .map_err(|error| error.with_remedy("the directory above the node directory must exist"))?;
    if place.name().is_empty() {
        return Err(Error::input("the root of the file system can't be a node directory"));
    }
    let plain = match durable::stat(&place)? {
        None => true,
        Some(found) => durable::is_dir(&found) || durable::is_file(&found),
    };
    // `..` at the end is a name as well, and no node directory's.
    if plain && place.name() != ".." {
        return Ok(place);
    }
    let found = RootedPath::open(target)
        .map_err(|error| match error.kind() {
            crate::Kind::NotFound => {
                error.with_remedy("a link must lead to a directory that exists")
            }
            _ => error,
        })?
        .path();
    RootedPath::of(&found)
}

fn beside(target: &RootedPath) -> RootedPath {
    let mut name = OsString::from(".highwater-");
    name.push(target.name());
    target.above().join(name)
}

/// Not found where there is no node directory, and no work directory beside it from which one could
/// come back.
pub(super) fn refuse_missing(target: &Path) -> Result<()> {
    let target = resolve(target)?;
    if durable::stat(&target)?.is_some() || durable::stat(&beside(&target))?.is_some() {
        return Ok(());
    }
    Err(Error::not_found(format!("there is no node directory {target}"))
        .with_entry(encode(target.path().as_os_str().as_encoded_bytes()))
        .with_remedy("nor has a restore of it left anything beside it: is the path right, and the disk mounted?"))
}

/// The work directories in which a journal about `target` may stand, with the way of each: a volume
/// may have been mounted, or a permission taken away, since.
pub(super) fn candidates(target: &Path) -> Result<(RootedPath, [(RootedPath, Way); 2])> {
    let target = resolve(target)?;
    let ways = ways(&target);
    Ok((target, ways))
}

pub(super) fn ways(target: &RootedPath) -> [(RootedPath, Way); 2] {
    let inside = target.join(OWN).join(INSIDE);
    [(beside(target), Way::Whole), (inside, Way::Entries)]
}

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
    place: RootedPath,
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
            super::journal::Operation::Restore => self.staging(),
            super::journal::Operation::Rollback => self.kept(),
        }
    }

    /// An operation that was interrupted has to be finished first.
    pub(super) fn refuse_interrupted(&self) -> Result<()> {
        match Journal::read(&self.journal())? {
            Some(_) => Err(interrupted(&self.target)),
            None => Ok(()),
        }
    }

    /// Removes what an operation writes besides `kept`, when no journal needs it; also the work
    /// directory itself where nothing is kept.
    pub(super) fn tidy(&self) -> Result<()> {
        durable::remove_tree(&self.staging())?;
        durable::remove_tree(&self.withheld())?;
        durable::remove_file(&self.path.join("journal.json.new"))?;
        kept::prune(self)?;
        if !kept::generations(self)?.is_empty() {
            return durable::sync_dir(&self.path);
        }
        durable::remove_file(&self.record())?;
        durable::remove_file(&self.path.join("lock"))?;
        if durable::inode(&self.place)? == durable::inode(&self.path)? {
            durable::remove_empty(&self.place)?;
        }
        let above = self.place.above();
        if above.name() == OWN {
            durable::remove_empty(&above)?;
            return durable::sync_dir(&self.target);
        }
        durable::sync_dir(&above)
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

/// One restore, from the lock to the exchange.
#[derive(Debug)]
pub(super) struct Work {
    dir: WorkDir,
    journal: Journal,
    exchange: Exchange,
    users: Users,
}

impl Work {
    /// Locks the work directory of `place`, writes the journal and makes an empty staging directory.
    /// A conflict where another operation runs, or one was interrupted.
    pub(super) fn begin(
        place: &Place,
        restore: RestoreId,
        snapshot: SnapshotId,
        env: &Env,
    ) -> Result<Work> {
        Work::begin_asking(place, restore, snapshot, env, crate::engine::users)
    }

    pub(super) fn begin_asking(
        place: &Place,
        restore: RestoreId,
        snapshot: SnapshotId,
        env: &Env,
        users: Users,
    ) -> Result<Work> {
        env.fault(FaultPoint::RestoreJournal)?;
        for (path, way) in ways(&place.target) {
            if way != place.way() && Journal::is_there(&path)? {
                return Err(interrupted(&place.target));
            }
        }
        let dir = WorkDir::make(&place.target, &place.work, place.way())?;
        dir.refuse_interrupted()?;
        durable::remove_tree(&dir.staging())?;
        durable::remove_tree(&dir.withheld())?;
        let journal = Journal::restore(place.way(), restore, snapshot, env.now());
        journal.write(&dir.journal())?;
        durable::make_dir(&dir.staging())?;
        durable::sync_dir(&dir.path)?;
        let work = Work { dir, journal, exchange: place.exchange, users };
        match exchange::probe(&work.dir) {
            Ok(()) => Ok(work),
            Err(error) => Err(work.undo_after(error)),
        }
    }

    /// Where the restored files are written.
    pub(super) fn staging(&self) -> RootedPath {
        self.dir.staging()
    }

    /// Exchanges the node directory and the staged one, which is complete and durable, and keeps
    /// the old one; tells where. `known` names the files without which no database of the
    /// staged directory opens (RocksDB: `CURRENT`; SQLite: the main file).
    ///
    /// A refusal (the node runs, a cancellation) undoes the restore. After any other error the
    /// journal stands, and `recover` finishes or undoes it.
    pub(super) fn commit(
        mut self,
        known: Known<'_>,
        control: &Control,
    ) -> Result<Option<RootedPath>> {
        if let Err(error) = self.ready(known.engines, control) {
            return Err(self.undo_after(error));
        }
        let untouched = |error, dir: &WorkDir| standing(error, &dir.target, "is untouched");
        control.env.fault(FaultPoint::RestoreReady).map_err(|error| untouched(error, &self.dir))?;
        match self.journal.way {
            Way::Whole => exchange::announce(&self.dir, &mut self.journal),
            Way::Entries => entries::announce(&self.dir, &mut self.journal, known),
        }
        .map_err(|error| untouched(error, &self.dir))?;
        exchange::carry_out(&self.dir, &mut self.journal, &control.env)
    }

    /// The last look before the exchange is announced.
    fn ready(&self, engines: &Engines, control: &Control) -> Result<()> {
        control.cancel.check()?;
        exchange::refuse_mounts(&self.dir, &self.journal)?;
        if self.exchange == Exchange::Create && !durable::names(&self.dir.target)?.is_empty() {
            return Err(Error::conflict(format!(
                "{} is no longer empty: something was written to it meanwhile",
                self.dir.target
            )));
        }
        self.dir.refuse_users(self.users, engines)
    }

    /// Gives up before the exchange: staging and journal are removed, the target is untouched.
    pub(super) fn abandon(self) -> Result<()> {
        debug_assert_eq!(self.journal.phase, Phase::Staging, "what is announced is not abandoned");
        debug_assert_eq!(self.journal.incoming, Node::New);
        exchange::undo(&self.dir)
    }

    /// [`Work::abandon`] because of `error`, which is returned.
    fn undo_after(self, error: Error) -> Error {
        let target = self.dir.target.clone();
        let Err(second) = self.abandon() else { return error };
        let told = |why: &str| {
            format!("{why}; and the staged files can't be removed: {}", second.summary())
        };
        standing(error.told_as(told), &target, "is untouched")
    }
}
