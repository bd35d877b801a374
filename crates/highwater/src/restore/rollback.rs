//! Undoing the last restore, and finishing what was interrupted.

use std::path::Path;

use super::journal::{Journal, Node, Phase, Way};
use super::place::{TargetPlace, candidates, locate, ways};
use super::users::Users;
use super::workdir::{WorkDir, interrupted, standing};
use super::{Exchange, Outcome, RollbackOptions, Undo, entries, exchange, hold, kept};
use crate::control::Control;
use crate::durable;
use crate::engine::Engines;
use crate::error::{Error, Kind, Remedy, Result};
use crate::guard::points::Known;

/// [`super::rollback`], asking `users` who has the node directory open.
///
/// A rollback brings an older node back, so it is a restore: a kept node that could act on its state
/// is held back between the last look and the announcement. A crash meanwhile leaves it kept, partly
/// held back; the next rollback holds it back wholly.
pub(super) fn rollback(
    target: &Path,
    options: &RollbackOptions,
    control: &Control,
    users: Users,
) -> Result<Outcome> {
    rollback_at(&locate(target)?, options, control, users)
}

pub(super) fn rollback_at(
    place: &TargetPlace,
    options: &RollbackOptions,
    control: &Control,
    users: Users,
) -> Result<Outcome> {
    let RollbackOptions { undo, engines, .. } = options;
    let markers = hold::Markers::of_rollback(options);
    control.cancel.check()?;
    for (path, _) in ways(&place.target) {
        if Journal::is_there(&path)? {
            return Err(interrupted(&place.target));
        }
    }
    let dir = WorkDir::open(&place.target, &place.work)?.ok_or_else(|| kept::none(place))?;
    dir.refuse_interrupted()?;
    let record = record_of(&dir, *undo, place)?;
    let mut journal = record.rollback(control.env.now());
    exchange::refuse_mounts(&dir, &journal)?;
    dir.refuse_users(users, engines)?;
    let held = hold::put_on_kept(&dir.kept(), &dir.target, &record, options, &control.env)?;
    match place.exchange {
        Exchange::Create | Exchange::Whole => exchange::announce(&dir, &mut journal),
        Exchange::Entries => entries::announce(&dir, &mut journal, Known::by(engines)),
    }
    .map_err(|error| standing(error, &dir.target, "is untouched"))?;
    exchange::carry_out(&dir, &mut journal, &control.env)?;
    hold::read_back(held.as_ref(), markers, &dir.target, Known::by(engines), &control.env)?;
    Ok(journal.incoming.outcome())
}

/// The record of the directory that is to come back, which is `kept` once this returns.
fn record_of(dir: &WorkDir, undo: Undo, place: &TargetPlace) -> Result<Journal> {
    let found = kept::generations(dir)?;
    if found.is_empty() {
        kept::tidy(dir)?;
        return Err(kept::none(place));
    }
    let target = durable::inode(&dir.target)?;
    // The one in whose place the node directory stands: the newest, but where a rollback that was to
    // bring back an older one was cut off.
    let mut last = None;
    for (at, generation) in found.iter().enumerate() {
        let record = generation.journal()?;
        let fits = |record: &Journal| target.is_none() || target == record.target_inode();
        if let Some(record) = record.filter(fits) {
            last = Some((at + 1, record));
            break;
        }
    }
    let Some((last, record)) = last else {
        return Err(Error::conflict(format!(
            "{} is not the directory that took the place of {}",
            dir.target,
            dir.kept()
        ))
        .with_remedy("something else replaced it since: look at both, and move them by hand"));
    };
    match (undo, record.incoming) {
        (Undo::Restore, Node::Old) => {
            return Err(Error::conflict(format!(
                "the last restore of {} is undone already",
                dir.target
            ))
            .with_remedy(Remedy::Redo)
            .with_remedy(Remedy::ListKept));
        }
        (Undo::Rollback, Node::New) => {
            return Err(Error::conflict(format!("no restore of {} is undone", dir.target))
                .with_remedy(Remedy::Rollback));
        }
        (Undo::To(number), _) => kept::choose(dir, number, place)?,
        (Undo::Restore, Node::New) | (Undo::Rollback, Node::Old) => {
            kept::choose(dir, last, place)?;
        }
    }
    let record = Journal::read(&dir.record())?;
    record.ok_or_else(|| Error::bug("a kept directory lost its record"))
}

/// [`super::refuse_interrupted`].
pub(super) fn refuse_interrupted(target: &Path) -> Result<()> {
    let (target, places) = candidates(target)?;
    for (path, way) in places {
        match Journal::is_there(&path) {
            Ok(false) => {}
            Ok(true) => return Err(interrupted(&target)),
            Err(error) if error.kind() == Kind::Denied && way == Way::Whole => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// [`super::recover`], asking `users` who has the node directory open.
pub(super) fn recover(
    target: &Path,
    engines: &Engines,
    control: &Control,
    users: Users,
) -> Result<Outcome> {
    let asked = Asked { users, engines };
    let (target, places) = candidates(target)?;
    let mut outcome = Outcome::Nothing;
    for (path, _) in places {
        let Some(dir) = WorkDir::open(&target, &path)? else { continue };
        match Journal::read(&dir.journal())? {
            Some(journal) => outcome = settle(&dir, journal, control, asked)?,
            None => kept::tidy(&dir)?,
        }
    }
    Ok(outcome)
}

/// Who is asked for the users of a node directory, and by which engines' locks.
#[derive(Clone, Copy)]
struct Asked<'a> {
    users: Users,
    engines: &'a Engines,
}

/// Finishes or undoes the operation that a journal tells of.
fn settle(
    dir: &WorkDir,
    mut journal: Journal,
    control: &Control,
    asked: Asked<'_>,
) -> Result<Outcome> {
    let forward = match journal.phase {
        Phase::Staging => false,
        Phase::Exchange => exchange::exchanged(dir, &journal)?,
        Phase::Withhold | Phase::Entries | Phase::Reveal => {
            dir.refuse_users(asked.users, asked.engines).map_err(|error| {
                standing(error, &dir.target, "can't be opened until it is recovered")
            })?;
            true
        }
        Phase::Keep => true,
    };
    if forward {
        exchange::finish(dir, &mut journal, &control.env)?;
        return Ok(journal.incoming.outcome());
    }
    exchange::undo(dir).map_err(|error| standing(error, &dir.target, "is untouched"))?;
    Ok(journal.incoming.other().outcome())
}
