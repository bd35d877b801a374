//! The marks in a node's own database, written and read back through the node's adapter.

use std::collections::{BTreeMap, BTreeSet};

use crate::durable;
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Kind, Result};
use crate::guard::{Adapter, Latch, Phase, Recorded, points};
use crate::rooted::RootedPath;

/// Which channels are listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    /// Those that are marked: the node's own guard judges them.
    Marked,
    /// All that could ever go on, with a mark or without.
    Living,
}

/// Marks every channel of the node in `dir` that could be punished, reads the marks back from a
/// database that is opened afresh, and lists the channels in `latch`.
pub(super) fn mark(
    adapter: &dyn Adapter,
    dir: &RootedPath,
    latch: &mut Latch,
    env: &Env,
) -> Result<()> {
    mark_those(adapter, dir, latch, Listed::Marked, &mut false, env)
}

/// [`mark`] of a node whose databases are withheld as well: what has no mark is listed without one. Why nothing
/// is marked or listed, where what marks says that it does not know the database, or
/// can't read it: it is withheld, and whether it opens is its engine's to say.
pub(super) fn mark_as_well(
    adapter: &dyn Adapter,
    dir: &RootedPath,
    latch: &mut Latch,
    env: &Env,
) -> Result<Option<Error>> {
    let mut begun = false;
    match mark_those(adapter, dir, latch, Listed::Living, &mut begun, env) {
        Err(error) if matches!(error.kind(), Kind::Input | Kind::Corrupt) && !begun => {
            Ok(Some(error))
        }
        done => done.map(|()| None),
    }
}

fn mark_those(
    adapter: &dyn Adapter,
    dir: &RootedPath,
    latch: &mut Latch,
    listed: Listed,
    begun: &mut bool,
    env: &Env,
) -> Result<()> {
    watching(dir, || {
        let mut store = adapter.open(&dir.path())?;
        let (mut channels, mut to_mark) = (BTreeMap::new(), Vec::new());
        for channel in store.channels()? {
            // Where nothing is signed yet, and where the chain has decided, nothing can be punished.
            let marked = channel.phase == Phase::Open
                && (listed == Listed::Marked || store.has_mark(&channel.id)?);
            if channel.phase == Phase::Closed || (listed == Listed::Marked && !marked) {
                continue;
            }
            if marked {
                env.fault(FaultPoint::GuardMark)?;
                to_mark.push(channel.id.clone());
            }
            let known = latch.channels.get(&channel.id).cloned().unwrap_or_default();
            let recorded = Recorded { ours: Some(channel.ours), unmarked: !marked, ..known };
            channels.insert(channel.id, recorded);
        }
        store.mark_all_stale(&to_mark)?;
        *begun = true;
        env.fault(FaultPoint::GuardMark)?;
        latch.channels = channels;
        latch.listed = true;
        Ok(())
    })?;
    read_back(adapter, dir, latch)
}

/// Fails where a channel that the latch lists as marked is not so in the database in `dir`, which is
/// opened afresh.
pub(super) fn read_back(adapter: &dyn Adapter, dir: &RootedPath, latch: &Latch) -> Result<()> {
    watching(dir, || {
        let stale: BTreeSet<String> = adapter.open(&dir.path())?.stale()?.into_iter().collect();
        let mut marked = latch.channels.iter().filter(|(_, recorded)| !recorded.unmarked);
        match marked.find(|(id, _)| !stale.contains(*id)) {
            None => Ok(()),
            Some((id, _)) => Err(Error::corrupt(format!(
                "the channel {id} was marked stale, and the database does not say so"
            ))
            .with_entry(id.clone())
            .with_remedy(
                "don't start the node: what marks its channels does not write to its database",
            )),
        }
    })
}

/// Runs `work`, which lets the node's database write in `dir`; files that it makes belong to the
/// owner of their directory, and nobody else may read them.
fn watching<T>(dir: &RootedPath, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut before = BTreeSet::new();
    points::walk(dir, &mut |_, found, _| {
        before.insert(durable::inode_of(found));
        Ok(())
    })?;
    let done = work()?;
    points::walk(dir, &mut |path, found, _| {
        if before.contains(&durable::inode_of(found)) {
            return Ok(());
        }
        let made = dir.at(path);
        let owner = made.above().owner()?;
        made.hand_over(owner).map_err(|error| durable::met(&made, "give away", error))
    })?;
    Ok(done)
}
