//! The life of one restore, from the lock to the exchange.

use super::journal::{Journal, Node, Phase, Way};
use super::place::{TargetPlace, ways};
use super::users::Users;
use super::workdir::{WorkDir, interrupted, standing};
use super::{Exchange, entries, exchange};
use crate::control::Control;
use crate::durable;
use crate::engine::Engines;
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Result};
use crate::guard::points::Known;
use crate::ids::{RestoreId, SnapshotId};
use crate::rooted::RootedPath;

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
        place: &TargetPlace,
        restore: RestoreId,
        snapshot: SnapshotId,
        env: &Env,
    ) -> Result<Work> {
        Work::begin_asking(place, restore, snapshot, env, crate::engine::users)
    }

    pub(super) fn begin_asking(
        place: &TargetPlace,
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
