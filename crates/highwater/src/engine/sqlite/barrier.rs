//! One instant for several databases: read transactions on all of them, between which none moved.

use std::time::Duration;

use super::failure::Failure;
use super::source::Source;
use crate::engine::Barrier;
use crate::env::Env;
use crate::error::Result;

/// How often all transactions are begun anew because a database moved meanwhile. One try takes well
/// under a millisecond, so that a pause of the writers is met unless they commit without any.
const MOVED_TRIES_MAX: u32 = 500;

/// How long a locked database is waited for. A writer in rollback-journal mode holds its lock for
/// one commit; who holds it longer keeps it.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a journal that looks hot is looked at again: a writer that ends in the very moment
/// looks like one that died, for as long as the removal of its journal takes.
const HOT_WAIT_MAX: Duration = Duration::from_secs(1);

/// Between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// Begins a read transaction on each source.
///
/// A database in rollback-journal mode stands still from its begin on: our shared lock keeps every
/// commit out. One in WAL mode does not, so a second connection remembers its `data_version` before
/// the first transaction begins, and asks again after the last one has begun. Where all are equal,
/// every database was, at the instant after the last begin, what its transaction shows.
///
/// No lock is waited for while another is held: a node's commit over both would wait for ours.
pub(super) fn begin(sources: &mut [Source], env: &Env) -> Result<Barrier> {
    let start = env.monotonic();
    let mut moved = 0;
    loop {
        match attempt(sources, env) {
            Ok(true) => return Ok(Barrier::Single),
            Ok(false) => {
                moved += 1;
                if moved == MOVED_TRIES_MAX {
                    return Ok(Barrier::None);
                }
            }
            Err((source, failure)) => {
                let patience = match failure {
                    Failure::Busy(_) => BUSY_WAIT_MAX,
                    Failure::HotJournal(_) => HOT_WAIT_MAX,
                    Failure::Other(_) => Duration::ZERO,
                };
                if env.monotonic().saturating_sub(start) >= patience {
                    return Err(failure.into_error(sources[source].rel().to_string()));
                }
            }
        }
        for source in sources.iter_mut() {
            source.release()?;
        }
        env.pause(RETRY_PAUSE);
    }
}

/// One try: whether nothing moved; else the source that failed, and how.
fn attempt(sources: &mut [Source], env: &Env) -> Result<bool, (usize, Failure)> {
    let mut versions = Vec::with_capacity(sources.len());
    for (place, source) in sources.iter().enumerate() {
        versions.push(source.data_version().map_err(|failure| (place, failure))?);
    }
    for (place, source) in sources.iter_mut().enumerate() {
        source.begin(env).map_err(|failure| (place, failure))?;
    }
    if sources.len() == 1 {
        return Ok(true);
    }
    for (place, source) in sources.iter().enumerate() {
        if !source.wal() {
            continue;
        }
        let version = source.data_version().map_err(|failure| (place, failure))?;
        if version != versions[place] {
            return Ok(false);
        }
    }
    Ok(true)
}
