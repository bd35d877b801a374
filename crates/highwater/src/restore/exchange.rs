//! The exchange of the node directory for the one that comes in, as wholes and in one step; what
//! comes after it, for both ways; and its undoing.
//!
//! Before: the incoming directory has the inode `staged` under its own name. After: the node
//! directory has it. There is nothing between, so that the inodes alone say what recovery does.

use super::journal::{Journal, Operation, Phase, Way};
use super::place::{OWN, refuse_mounts as refuse_mounts_in};
use super::workdir::{WorkDir, standing};
use super::{entries, hydrated, kept};
use crate::durable;
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Kind, Result};
use crate::node::NodeFile;
use crate::rooted::RootedPath;

/// Fails where the file system of the work directory can't exchange two names in one step, before
/// anything large is written to it. Leaves staging empty.
pub(super) fn probe(dir: &WorkDir) -> Result<()> {
    let (one, other) = (dir.staging().join("one"), dir.staging().join("other"));
    durable::make_dir(&one)?;
    durable::make_dir(&other)?;
    durable::exchange(&one, &other)?;
    durable::remove_tree(&one)?;
    durable::remove_tree(&other)
}

/// A mount point inside either side would move with it, or be an obstacle half-way.
pub(super) fn refuse_mounts(dir: &WorkDir, journal: &Journal) -> Result<()> {
    refuse_mounts_in(&dir.target)?;
    refuse_mounts_in(&dir.incoming(journal))
}

/// Writes into the journal that directory is exchanged against directory.
pub(super) fn announce(dir: &WorkDir, journal: &mut Journal) -> Result<()> {
    let incoming = dir.incoming(journal);
    let staged = durable::inode(&incoming)?;
    if staged.is_none() {
        return Err(Error::bug(format!("{incoming} is missing")));
    }
    journal.staged = staged;
    journal.replaced = durable::inode(&dir.target)?;
    journal.phase = Phase::Exchange;
    journal.write(&dir.journal())
}

/// The exchange that the journal announces, and all that comes after it; returns what is kept.
pub(super) fn carry_out(
    dir: &WorkDir,
    journal: &mut Journal,
    env: &Env,
) -> Result<Option<RootedPath>> {
    let before = |error| standing(error, &dir.target, "is untouched");
    env.fault(FaultPoint::RestoreExchange).map_err(before)?;
    if journal.way == Way::Whole {
        let incoming = dir.incoming(journal);
        match journal.replaced {
            Some(_) => durable::exchange(&incoming, &dir.target),
            None => durable::rename_new(&incoming, &dir.target),
        }
        .map_err(before)?;
    }
    finish(dir, journal, env)
}

/// Whether the directories have changed places; an error where neither stands where it should.
pub(super) fn exchanged(dir: &WorkDir, journal: &Journal) -> Result<bool> {
    let incoming = dir.incoming(journal);
    let staged = journal
        .staged
        .ok_or_else(|| Error::corrupt("a journal announces an exchange of nothing"))?;
    if durable::inode(&dir.target)? == Some(staged) {
        return Ok(true);
    }
    if durable::inode(&incoming)? == Some(staged) {
        return Ok(false);
    }
    // Some network file systems number their inodes anew with each mount.
    if journal.operation == Operation::Restore && carries(&dir.target, journal)? {
        return Ok(true);
    }
    if journal.operation == Operation::Restore && carries(&incoming, journal)? {
        return Ok(false);
    }
    Err(Error::conflict(format!(
        "neither {} nor {incoming} is the directory that was to be exchanged: something else moved \
         them",
        dir.target
    ))
    .with_remedy(format!("move the node directory back to {}, and recover again", dir.target))
    .with_remedy(format!("look at both, and remove {} to leave them as they are", dir.journal())))
}

/// Whether a directory was staged by the restore of this journal.
fn carries(node: &RootedPath, journal: &Journal) -> Result<bool> {
    match NodeFile::read_at(node) {
        Ok(found) => Ok(found.is_some_and(|found| found.restore == Some(journal.restore))),
        Err(error) if error.kind() == Kind::Corrupt => Ok(false),
        Err(error) => Err(error),
    }
}

/// Everything after the exchange of directories, or after the announcement of an exchange of
/// entries. Each step looks first whether it is done, so that recovery starts here again.
pub(super) fn finish(
    dir: &WorkDir,
    journal: &mut Journal,
    env: &Env,
) -> Result<Option<RootedPath>> {
    if journal.way == Way::Entries {
        entries::forward(dir, journal, env).map_err(|error| {
            standing(error, &dir.target, "can't be opened until it is recovered")
        })?;
    }
    let state = match journal.operation {
        Operation::Restore => "is the restored one, the old one is kept",
        Operation::Rollback => "is the one that was kept, the other one is kept",
    };
    let put_aside = || -> Result<()> {
        durable::sync_dir(&dir.target.above())?;
        durable::sync_dir(&dir.path)?;
        env.fault(FaultPoint::RestoreKeep)?;
        if journal.operation == Operation::Restore {
            keep(dir, journal)?;
        }
        env.fault(FaultPoint::RestoreDone)?;
        close(dir)
    };
    put_aside().map_err(|error| standing(error, &dir.target, state))?;
    let kept = dir.kept();
    let inode = durable::inode(&kept)?;
    Ok((inode.is_some() && inode == journal.kept_inode()).then_some(kept))
}

/// Puts the directory that was exchanged out aside as `kept`, unless it is empty.
fn keep(dir: &WorkDir, journal: &Journal) -> Result<()> {
    let staging = dir.staging();
    if durable::stat(&staging)?.is_some() {
        if journal.way == Way::Entries {
            durable::remove_empty(&staging.join(OWN))?;
        }
        if !durable::remove_empty(&staging)? {
            kept::make_older(dir)?;
            durable::rename_new(&staging, &dir.kept())?;
        }
        durable::sync_dir(&dir.path)?;
    }
    Ok(())
}

/// Ends the operation: the journal becomes the record of what is kept, or goes where this operation
/// kept nothing.
fn close(dir: &WorkDir) -> Result<()> {
    let Some(journal) = Journal::read(&dir.journal())? else { return Ok(()) };
    hydrated::settle(dir, &journal)?;
    let kept = durable::inode(&dir.kept())?;
    if kept.is_some() && kept == journal.kept_inode() {
        durable::replace(&dir.journal(), &dir.record())?;
    } else {
        durable::remove_file(&dir.journal())?;
        durable::sync_dir(&dir.path)?;
    }
    kept::tidy(dir)
}

/// Undoes a restore whose exchange has not happened: the target is untouched.
pub(super) fn undo(dir: &WorkDir) -> Result<()> {
    durable::remove_tree(&dir.staging())?;
    durable::remove_tree(&dir.withheld())?;
    durable::sync_dir(&dir.path)?;
    durable::remove_file(&dir.journal())?;
    durable::sync_dir(&dir.path)?;
    kept::tidy(dir)
}
