//! The marks in a node's own database, written and read back through the node's adapter.

use std::collections::{BTreeMap, BTreeSet};

use crate::durable;
use crate::env::{Env, FaultPoint};
use crate::error::{Error, Result};
use crate::guard::{Adapter, Latch, Phase, Recorded, points};
use crate::rooted::RootedPath;

/// Marks every channel of the node in `dir` that could be punished, reads the marks back from a
/// database that is opened afresh, and lists the channels in `latch`.
pub(super) fn mark(
    adapter: &dyn Adapter,
    dir: &RootedPath,
    latch: &mut Latch,
    env: &Env,
) -> Result<()> {
    watching(dir, || {
        let mut store = adapter.open(&dir.path())?;
        let mut channels = BTreeMap::new();
        for channel in store.channels()? {
            // Where nothing is signed yet, and where the chain has decided, nothing can be punished.
            if channel.phase != Phase::Open {
                continue;
            }
            env.fault(FaultPoint::GuardMark)?;
            store.mark_stale(&channel.id)?;
            let known = latch.channels.remove(&channel.id).unwrap_or_default();
            channels.insert(channel.id, Recorded { ours: Some(channel.ours), ..known });
        }
        env.fault(FaultPoint::GuardMark)?;
        latch.channels = channels;
        latch.listed = true;
        Ok(())
    })?;
    read_back(adapter, dir, latch)
}

/// Fails where a channel that the latch lists is not marked in the database in `dir`, which is
/// opened afresh.
pub(super) fn read_back(adapter: &dyn Adapter, dir: &RootedPath, latch: &Latch) -> Result<()> {
    watching(dir, || {
        let stale: BTreeSet<String> = adapter.open(&dir.path())?.stale()?.into_iter().collect();
        match latch.channels.keys().find(|id| !stale.contains(*id)) {
            None => Ok(()),
            Some(id) => Err(Error::corrupt(format!(
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
