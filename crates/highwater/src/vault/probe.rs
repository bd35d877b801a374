//! What a store really does. Several of those that speak a protocol well ignore its conditions, or
//! look whether an object is there before they write it, and so let two writers in.

use std::sync::Barrier;

use bytes::Bytes;

use crate::env::Env;
use crate::error::{Error, Kind, Remedy, Result};
use crate::ids::SnapshotId;

use super::folder::Folder;
use super::header::StoreTraits;
use super::medium::{Condition, Medium, Put};
use super::store::Store;

/// So many writers race for one name, over connections of their own.
const RACERS: usize = 8;
/// They race so often: a store that looks first and writes then is not caught by every race.
const ROUNDS: usize = 12;
/// Updates under a condition are raced less often: nothing rests on them yet.
const UPDATE_ROUNDS_MAX: usize = 4;
/// Objects of a race are so long: a store that takes its time for the bytes of one writer is open to
/// the others for as long.
const RACE_BYTES: usize = 256 << 10;
/// A local directory is ours: one short race shows whether its file system can link.
const LOCAL_ROUNDS: usize = 1;
const LOCAL_RACE_BYTES: usize = 64;

/// How the names of what a probe puts begin.
const PREFIX: &str = "intents/probe-";

/// Whether an object is one that a probe has put, and was killed before it took it away.
pub(super) fn is_probe(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// What a probe found.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) traits: StoreTraits,
    /// What would let two writers into one vault.
    pub(super) unfenced: Vec<&'static str>,
    /// What no vault can live with.
    pub(super) unfit: Vec<&'static str>,
}

impl Findings {
    /// Refuses a store that no vault can live in, and, unless `unfenced` is accepted, one that does
    /// not keep two writers apart.
    pub(super) fn judge(self, place: &str, unfenced: bool) -> Result<StoreTraits> {
        if !self.unfit.is_empty() {
            return Err(Error::conflict(format!(
                "no vault can live here: {}",
                self.unfit.join("; ")
            ))
            .with_entry(place)
            .with_remedy("choose another store"));
        }
        if !self.unfenced.is_empty() && !unfenced {
            return Err(Error::conflict(format!(
                "this store would let two writers into one vault: {}",
                self.unfenced.join("; ")
            ))
            .with_entry(place)
            .with_remedy("choose a store that honours `If-None-Match`")
            .with_remedy(Remedy::Unfenced));
        }
        Ok(self.traits)
    }
}

impl Store {
    /// Tries puts under a condition, alone and in a race, under names of its own, and removes them
    /// again.
    pub(super) fn probe(&self, env: &Env) -> Result<Findings> {
        let (rounds, bytes) = match self.medium().is_remote() {
            true => (ROUNDS, RACE_BYTES),
            false => (LOCAL_ROUNDS, LOCAL_RACE_BYTES),
        };
        let base = format!("{PREFIX}{}", SnapshotId::random(env)?);
        let probe = Probe { store: self, base, rounds, bytes };
        let found = probe.run();
        // What was put goes, also where the probe could not be carried out.
        let cleared = self.list(Some(Folder::Intents.name())).and_then(|listed| {
            let ours = listed.iter().filter(|listed| listed.name.starts_with(&probe.base));
            ours.map(|listed| self.delete(&listed.name)).collect::<Result<Vec<()>>>()
        });
        let found = found?;
        cleared?;
        Ok(found)
    }
}

struct Probe<'a> {
    store: &'a Store,
    base: String,
    rounds: usize,
    bytes: usize,
}

impl Probe<'_> {
    fn run(&self) -> Result<Findings> {
        let mut unfit = Vec::new();
        let mut unfenced = Vec::new();
        let alone = format!("{}-alone", self.base);
        let (first, second, third) = (self.content(0), self.content(1), self.content(2));
        let medium = self.store.medium();
        medium.put_if(&alone, first.clone(), &Condition::Absent)?;
        if self.store.get(&alone)? != first {
            unfit.push("it returns other bytes than were put");
        }
        let listed = self.store.list(Some(Folder::Intents.name()))?;
        let size = listed.iter().find(|listed| listed.name == alone).map(|listed| listed.size);
        if size != Some(first.len() as u64) {
            unfit.push("it does not list what was just put");
        }
        let again = medium.put_if(&alone, second, &Condition::Absent)?;
        if again != Put::Refused || self.store.get(&alone)? != first {
            unfenced.push("it overwrites what must only be created");
        }
        // A store that ignores the condition need not be raced.
        if unfenced.is_empty() && !self.race("create", None)? {
            unfenced.push("in a race it lets several writers create one object");
        }
        let compare_and_set = self.compares_and_sets(&alone, &third)?;
        self.store.delete(&alone)?;
        let gone = self.store.get(&alone).is_err_and(|error| error.kind() == Kind::NotFound);
        let listed = self.store.list(Some(Folder::Intents.name()))?;
        if !gone || listed.iter().any(|listed| listed.name == alone) {
            unfit.push("it still shows what was deleted");
        }
        let traits = StoreTraits { create_only: unfenced.is_empty(), compare_and_set };
        Ok(Findings { traits, unfenced, unfit })
    }

    /// Whether a put under the condition that the object is unchanged is refused once it has changed.
    fn compares_and_sets(&self, name: &str, bytes: &Bytes) -> Result<bool> {
        let medium = self.store.medium();
        let unchanged = Condition::Unchanged(medium.version(name)?);
        if medium.put_if(name, bytes.clone(), &unchanged)? != Put::Done {
            return Ok(false);
        }
        let late = medium.put_if(name, self.content(3), &unchanged)?;
        Ok(late == Put::Refused
            && self.store.get(name)? == *bytes
            && self.race("update", Some(bytes))?)
    }

    /// Whether each of several races for one name has at most one winner, whose content stays. With
    /// `old` the object is there, and the race is for updating it.
    fn race(&self, what: &str, old: Option<&Bytes>) -> Result<bool> {
        let medium = self.store.medium();
        let twins: Vec<Option<Box<dyn Medium>>> =
            (0..RACERS).map(|_| medium.twin()).collect::<Result<_>>()?;
        let clients: Vec<&dyn Medium> =
            twins.iter().map(|twin| twin.as_deref().unwrap_or(medium)).collect();
        let rounds = if old.is_some() { self.rounds.min(UPDATE_ROUNDS_MAX) } else { self.rounds };
        for round in 0..rounds {
            let name = format!("{}-{what}-{round}", self.base);
            let condition = match old {
                None => Condition::Absent,
                Some(old) => {
                    medium.put_if(&name, old.clone(), &Condition::Absent)?;
                    Condition::Unchanged(medium.version(&name)?)
                }
            };
            if !self.race_once(&clients, &name, &condition)? {
                return Ok(false);
            }
            self.store.delete(&name)?;
        }
        Ok(true)
    }

    fn race_once(
        &self,
        clients: &[&dyn Medium],
        name: &str,
        condition: &Condition,
    ) -> Result<bool> {
        let start = Barrier::new(clients.len());
        let outcomes: Vec<Result<Put>> = std::thread::scope(|scope| {
            let racers: Vec<_> = clients
                .iter()
                .enumerate()
                .map(|(racer, client)| {
                    let (start, bytes) = (&start, self.content(racer));
                    scope.spawn(move || {
                        // Its connection stands before the race begins; whether anything is there
                        // does not matter.
                        drop(client.size(name));
                        start.wait();
                        client.put_if(name, bytes, condition)
                    })
                })
                .collect();
            let joined = racers
                .into_iter()
                .map(|racer| racer.join().unwrap_or_else(|_| Err(Error::bug("a probe panicked"))));
            joined.collect()
        });
        let outcomes: Vec<Put> = outcomes.into_iter().collect::<Result<_>>()?;
        let winners: Vec<usize> =
            (0..clients.len()).filter(|&racer| outcomes[racer] == Put::Done).collect();
        match winners[..] {
            // Each of them may have been refused because of the others.
            [] => Ok(true),
            [winner] => Ok(self.store.get(name)? == self.content(winner)),
            _ => Ok(false),
        }
    }

    /// What one of the writers puts.
    fn content(&self, writer: usize) -> Bytes {
        Bytes::from(vec![b'a' + writer as u8; self.bytes])
    }
}
