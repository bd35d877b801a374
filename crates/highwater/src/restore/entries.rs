//! The exchange inside a mount point, which can't be renamed: entry by entry.
//!
//! First an unreadable directory takes the place of each entry point of both sides, so that a node
//! that restarts meanwhile neither starts on a mixture nor creates an empty database: no engine
//! opens, replaces or deletes a directory where it expects its file, whoever runs it. Then entries
//! change places, then entry points come back. Every step is decided by inodes, and once it is
//! announced there is only one way: forward.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::journal::{Entry, Journal, Phase, Side, Withheld};
use super::place::{OWN, exchanged_names};
use super::workdir::WorkDir;
use crate::durable::{self, Inode};
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Result};
use crate::guard::points::{self, Known, make_placeholder};
use crate::ids::RelPath;
use crate::rooted::RootedPath;

/// What a placeholder says.
const TOLD: &str = "a restore or rollback of the node was interrupted; it has to be recovered";

/// Makes the placeholders and writes into the journal what is withheld and what comes in. From then
/// on recovery goes forward.
pub(super) fn announce(dir: &WorkDir, journal: &mut Journal, known: Known<'_>) -> Result<()> {
    let incoming = dir.incoming(journal);
    crate::node::make_own_dir(&incoming)?;
    durable::sync_dir(&incoming)?;
    journal.staged = durable::inode(&incoming)?;
    journal.replaced = durable::inode(&dir.target)?;

    durable::remove_tree(&dir.withheld())?;
    durable::make_dir(&dir.withheld())?;
    journal.withheld.clear();
    for (side, root, found) in [
        (Side::Outgoing, &dir.target, points::find(&dir.target, Known::by(known.engines))?),
        (Side::Incoming, &incoming, points::find(&incoming, known)?),
    ] {
        // A guard's placeholder has its place in the order of entries as well.
        for path in found.present.into_keys().chain(found.withheld) {
            let inode = durable::inode(&root.at(&path))?.ok_or_else(|| {
                Error::bug("an entry point is missing").with_entry(path.to_string())
            })?;
            let placeholder = make_placeholder(
                &dir.withheld().join(journal.withheld.len().to_string()),
                TOLD,
                None,
            )?;
            journal.withheld.push(Withheld { side, path, inode, placeholder });
        }
    }
    durable::sync_dir(&dir.withheld())?;
    durable::sync_dir(&dir.path)?;

    journal.entries.clear();
    for path in exchanged_names(&incoming)? {
        let placeholder = journal
            .withheld
            .iter()
            .find(|withheld| withheld.side == Side::Incoming && withheld.path == path)
            .map(|withheld| withheld.placeholder);
        let inode = match placeholder {
            Some(inode) => Some(inode),
            None => durable::inode(&incoming.at(&path))?,
        };
        let inode = inode.ok_or_else(|| {
            Error::conflict("a staged entry vanished").with_entry(path.to_string())
        })?;
        journal.entries.push(Entry { path, inode });
    }
    let holding = holding(journal, Side::Incoming);
    journal.entries.sort_by_key(|entry| !holding(&entry.path));
    journal.phase = Phase::Withhold;
    journal.write(&dir.journal())
}

/// Whether an entry holds an entry point of `side`: such entries come first and go last, so that a
/// database never lacks its entry point while other files of it are there.
fn holding(journal: &Journal, side: Side) -> impl Fn(&RelPath) -> bool + use<> {
    let points: Vec<RelPath> = journal
        .withheld
        .iter()
        .filter(|withheld| withheld.side == side)
        .map(|withheld| withheld.path.clone())
        .collect();
    move |entry| points.iter().any(|point| point.is_within(entry))
}

/// Does all that is left of an exchange that was announced.
pub(super) fn forward(dir: &WorkDir, journal: &mut Journal, env: &Env) -> Result<()> {
    if durable::inode(&dir.target)? != journal.replaced {
        return Err(Error::conflict(format!(
            "{} is not the directory whose entries were being exchanged",
            dir.target
        ))
        .with_remedy("put it back where it was"));
    }
    if journal.phase == Phase::Withhold {
        withhold(dir, journal, env)?;
        journal.phase = Phase::Entries;
        journal.write(&dir.journal())?;
    }
    if journal.phase == Phase::Entries {
        bring_in(dir, journal, env)?;
        move_out(dir, journal, env)?;
        let incoming = dir.incoming(journal);
        for root in [&dir.target, &incoming] {
            durable::sync_dir(root)?;
            durable::sync_dir(&root.join(OWN))?;
        }
        journal.phase = Phase::Reveal;
        journal.write(&dir.journal())?;
    }
    if journal.phase == Phase::Reveal {
        reveal(dir, journal, env)?;
        journal.phase = Phase::Keep;
        journal.write(&dir.journal())?;
    }
    Ok(())
}

fn withhold(dir: &WorkDir, journal: &Journal, env: &Env) -> Result<()> {
    let incoming = dir.incoming(journal);
    let mut parents = Parents::from([(dir.withheld().path(), dir.withheld())]);
    for (number, withheld) in journal.withheld.iter().enumerate() {
        let root = match withheld.side {
            Side::Outgoing => &dir.target,
            Side::Incoming => &incoming,
        };
        let (here, waiting) = places(dir, root, withheld, number, &mut parents);
        let one = Name { path: &here, inode: withheld.inode };
        trade(one, Name { path: &waiting, inode: withheld.placeholder })?;
        env.fault(FaultPoint::RestoreWithhold)?;
    }
    parents.values().try_for_each(durable::sync_dir)
}

/// The old side first: the node can't open anything before the last entry point of the new side.
fn reveal(dir: &WorkDir, journal: &Journal, env: &Env) -> Result<()> {
    env.fault(FaultPoint::RestoreReveal)?;
    let incoming = dir.incoming(journal);
    let mut parents = Parents::from([(dir.withheld().path(), dir.withheld())]);
    for (side, root) in [(Side::Outgoing, &incoming), (Side::Incoming, &dir.target)] {
        for (number, withheld) in journal.withheld.iter().enumerate() {
            if withheld.side != side {
                continue;
            }
            let (here, waiting) = places(dir, root, withheld, number, &mut parents);
            let one = Name { path: &here, inode: withheld.placeholder };
            trade(one, Name { path: &waiting, inode: withheld.inode })?;
            env.fault(FaultPoint::RestoreReveal)?;
        }
    }
    parents.values().try_for_each(durable::sync_dir)
}

/// Directories that have to be synced, each once.
type Parents = BTreeMap<PathBuf, RootedPath>;

/// Where an entry point belongs and where it waits; notes the directory that has to be synced.
fn places(
    dir: &WorkDir,
    root: &RootedPath,
    withheld: &Withheld,
    number: usize,
    parents: &mut Parents,
) -> (RootedPath, RootedPath) {
    let parent = withheld.path.parent().unwrap_or_else(RelPath::root);
    parents.insert(root.at(&parent).path(), root.at(&parent));
    (root.at(&withheld.path), dir.withheld().join(number.to_string()))
}

/// A name, and the inode that it has before an exchange.
struct Name<'a> {
    path: &'a RootedPath,
    inode: Inode,
}

/// Exchanges two names, unless it is done.
fn trade(one: Name<'_>, other: Name<'_>) -> Result<()> {
    let found = (durable::inode(one.path)?, durable::inode(other.path)?);
    if found == (Some(one.inode), Some(other.inode)) {
        return durable::exchange(one.path, other.path);
    }
    if found == (Some(other.inode), Some(one.inode)) {
        return Ok(());
    }
    Err(moved(one.path))
}

fn moved(path: &RootedPath) -> Error {
    Error::conflict(format!("{path} was moved or replaced by something else"))
        .with_remedy("put it back where it was")
}

/// Each entry of the incoming side takes its name. What has the name, be it what was there before
/// or what a failing start of the node left (a log file), goes to the other side.
fn bring_in(dir: &WorkDir, journal: &Journal, env: &Env) -> Result<()> {
    let incoming = dir.incoming(journal);
    for entry in &journal.entries {
        let (here, there) = (dir.target.at(&entry.path), incoming.at(&entry.path));
        let present = durable::inode(&here)?;
        if present == Some(entry.inode) {
            continue;
        }
        if durable::inode(&there)? != Some(entry.inode) {
            return Err(moved(&there));
        }
        match present {
            Some(_) => durable::exchange(&there, &here)?,
            None => durable::rename_new(&there, &here)?,
        }
        env.fault(FaultPoint::RestoreEntry)?;
    }
    Ok(())
}

/// Every other entry of the target leaves it.
fn move_out(dir: &WorkDir, journal: &Journal, env: &Env) -> Result<()> {
    let incoming = dir.incoming(journal);
    let stays: BTreeSet<&RelPath> = journal.entries.iter().map(|entry| &entry.path).collect();
    let mut leaving = exchanged_names(&dir.target)?;
    leaving.retain(|path| !stays.contains(path));
    let holding = holding(journal, Side::Outgoing);
    leaving.sort_by_key(|path| holding(path));
    for path in leaving {
        durable::rename_new(&dir.target.at(&path), &incoming.at(&path))?;
        env.fault(FaultPoint::RestoreEntry)?;
    }
    Ok(())
}
