//! What a store really does: create-only puts, alone and in a race.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::SnapshotId;

use super::header::StoreTraits;
use super::store::Store;

const RACERS: usize = 8;
const PREFIX: &str = "intents/probe-";

/// Whether an object is one that a probe has put, and was killed before it took it away.
pub(super) fn is_probe(name: &str) -> bool {
    name.starts_with(PREFIX)
}

impl Store {
    /// Tries create-only puts under a name of its own and removes it again. A store that is asked
    /// to update on a condition is not found here: a local directory can't, and numbered records
    /// take its place.
    pub(crate) fn probe(&self, env: &Env) -> Result<StoreTraits> {
        let name = format!("{PREFIX}{}", SnapshotId::random(env)?);
        let wins = AtomicUsize::new(0);
        let race = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS)
                .map(|_| {
                    scope.spawn(|| {
                        if self.put_new(&name, &b"probe"[..])? {
                            wins.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    })
                })
                .collect();
            racers.into_iter().try_for_each(|racer| {
                racer.join().unwrap_or_else(|_| Err(Error::bug("a probe panicked")))
            })
        });
        let listed = race.and_then(|()| self.list(Some("intents")));
        self.delete(&name)?;
        let seen = listed?.iter().any(|listed| listed.name == name);
        let create_only = seen && wins.load(Ordering::Relaxed) == 1;
        Ok(StoreTraits { create_only, compare_and_set: false })
    }
}
