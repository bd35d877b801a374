//! The witness: what may have left a node, remembered outside it, so that a node that went back in
//! time is found out without asking its peers, and a copy of it can't act beside it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use highwater_guard::Ours;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::env::Env;
use crate::error::{Error, Kind, Result};
use crate::ids::{NodeName, PutId, Time};

pub use crate::vault::witness::{WitnessEntry, WitnessOff, WitnessRecord};
pub use memory::{MemoryWitness, PutFault};
pub use vault::VaultWitness;

mod change;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod line;
mod memory;
mod vault;

use change::Change;
use line::Line;

/// Others can take a witness over so often while this start tries to.
const TAKE_OVER_TRIES_MAX: u32 = 16;
/// A record is put so often before its callers hear that the witness is unreachable.
const PUT_TRIES_MAX: u32 = 4;
/// Before the second try; four times as long before each one after it.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Where a witness lives: numbered records, each created once, the highest of which counts.
///
/// An error of [`put_new`](WitnessStore::put_new) may mean that the record is there all the same.
pub trait WitnessStore: Send + Sync {
    /// The newest record: its number and its document.
    fn newest(&self) -> Result<Option<(u64, Vec<u8>)>>;

    /// Puts record `number`, durable when it returns. `false`, with nothing left behind, where that
    /// number or a higher one is there, or was.
    fn put_new(&self, number: u64, document: &[u8]) -> Result<bool>;
}

/// The numbers of a channel, durable in the node's own store, that are about to leave or to be
/// acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The node's own name of the channel.
    pub channel: String,
    /// All its numbers. `epoch` is [`Witness::epoch`], stored in the transaction of the move. Where
    /// `signed` is `None` it counts as `received`.
    pub ours: Ours,
}

/// The outcome of raising numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Raised {
    /// The witness has them.
    Durable,
    /// It is switched off: nobody will remember that they left.
    SwitchedOff,
}

/// A witness that this start has taken over; shared by all threads of the node.
///
/// Whoever takes it over next deposes this one: its next write fails with [`Kind::Fenced`], and
/// all after it without asking.
pub struct Witness {
    store: Arc<dyn WitnessStore>,
    env: Env,
    node: NodeName,
    epoch: u64,
    line: Mutex<Line>,
    moved: Condvar,
}

impl Witness {
    /// Takes the witness of a node over, under the next epoch. One that is missing is made.
    ///
    /// # Errors
    /// Unavailable where it can't be reached; conflict where others keep taking it over; corrupt
    /// where its newest record is damaged: what it remembered is lost then, and an older record
    /// would clear what must not be cleared.
    pub fn take_over(
        store: Arc<dyn WitnessStore>,
        node: NodeName,
        holder: String,
        env: &Env,
    ) -> Result<Witness> {
        Witness::take_over_above(store, node, holder, 0, env)
    }

    /// [`Witness::take_over`], under an epoch above `known`, the highest one under which the node has stored
    /// a move. Otherwise a witness that was lost and made anew, or was set back, would give out epochs a
    /// second time, and one history could pass for another.
    pub fn take_over_above(
        store: Arc<dyn WitnessStore>,
        node: NodeName,
        holder: String,
        known: u64,
        env: &Env,
    ) -> Result<Witness> {
        let (put, since) = (PutId::random(env)?, env.now());
        let mut failed = false;
        for attempt in 0..TAKE_OVER_TRIES_MAX {
            if failed {
                env.pause(pause_before(attempt));
            }
            let mut record = match Witness::look(&*store, &node) {
                Ok(newest) => newest.unwrap_or_else(|| absent(&node)),
                Err(error) if passes(error.kind()) && attempt < PUT_TRIES_MAX => {
                    failed = true;
                    continue;
                }
                Err(error) => return Err(unreachable_witness(&node, error)),
            };
            // A put that failed had landed.
            if record.put == put {
                return Ok(Witness::owning(store, node, record, env));
            }
            record.number += 1;
            let epoch = record.epoch.max(known).checked_add(1);
            record.epoch = epoch.ok_or_else(|| Error::bug("the witness has no epochs left"))?;
            (record.holder, record.since, record.put) = (holder.clone(), since, put);
            match store.put_new(record.number, &record.to_bytes()?) {
                Ok(true) => return Ok(Witness::owning(store, node, record, env)),
                Ok(false) => failed = false,
                Err(error) if passes(error.kind()) && attempt < PUT_TRIES_MAX => {
                    failed = true;
                }
                Err(error) => return Err(unreachable_witness(&node, error)),
            }
        }
        Err(Error::conflict("others keep taking the witness of this node over")
            .with_entry(node.to_string())
            .with_remedy("stop the other copies of this node"))
    }

    /// The newest record of a node's witness, without taking it over: for observers.
    pub fn look(store: &dyn WitnessStore, node: &NodeName) -> Result<Option<WitnessRecord>> {
        let Some((number, document)) = store.newest()? else { return Ok(None) };
        let name = format!("witness {number} of {node}");
        let record = WitnessRecord::parse(&name, &document)?;
        if record.node != *node || record.number != number {
            return Err(Error::corrupt("it is the record of another witness").with_entry(name));
        }
        Ok(Some(record))
    }

    fn owning(
        store: Arc<dyn WitnessStore>,
        node: NodeName,
        record: WitnessRecord,
        env: &Env,
    ) -> Witness {
        let epoch = record.epoch;
        let line = Mutex::new(Line::new(record));
        Witness { store, env: env.clone(), node, epoch, line, moved: Condvar::new() }
    }

    /// The epoch of this start. Each move is stored under it: a number that a newer epoch has raised
    /// belongs to another history, even where it is equal.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What it remembers of a channel.
    pub fn of(&self, channel: &str) -> Option<highwater_guard::Witness> {
        let line = self.line();
        let entry = *line.recorded.channels.get(channel)?;
        let WitnessEntry { signed, revoked, received, closing, continuous, epoch } = entry;
        let owned = line.deposed.is_none();
        Some(highwater_guard::Witness {
            signed,
            revoked,
            received,
            closing,
            continuous,
            owned,
            epoch,
        })
    }

    /// The channels that it lists and the node lacks.
    pub fn lacking<'a>(&self, ours: impl Iterator<Item = &'a str>) -> Vec<String> {
        let ours: BTreeSet<&str> = ours.collect();
        let line = self.line();
        let listed = line.recorded.channels.keys();
        listed.filter(|name| !ours.contains(name.as_str())).cloned().collect()
    }

    /// What it remembers of a counter.
    pub fn counter(&self, name: &str) -> Option<u64> {
        self.line().recorded.counters.get(name).copied()
    }

    /// All that it is known to remember.
    pub fn record(&self) -> WitnessRecord {
        self.line().recorded.clone()
    }

    /// Raises the numbers of channels and counters, and returns once they are durable: only then
    /// may anything leave. Numbers that stand already cost nothing. Calls of many threads share one
    /// put.
    ///
    /// # Errors
    /// Fenced where another start has taken the witness over, for ever; unavailable where it can't
    /// be reached; bug where a number is below the one that stands, or was not stored under
    /// [`Witness::epoch`]. In all of them nothing may leave.
    pub fn raise(&self, moves: &[Move], counters: &[(String, u64)]) -> Result<Raised> {
        self.submit(Change::Raise { moves: moves.to_vec(), counters: counters.to_vec() })
    }

    /// Takes a channel's numbers for what they are, also where they are below those that stand: by
    /// an operator's release, who answers for it. From here on it is that history which counts.
    pub fn accept(&self, channel: &str, ours: &Ours) -> Result<()> {
        let accepted = Move { channel: channel.to_owned(), ours: *ours };
        self.submit(Change::Accept(accepted)).map(drop)
    }

    /// Forgets a channel whose close is confirmed; one that it does not list is not an error.
    pub fn retire(&self, channel: &str) -> Result<()> {
        self.submit(Change::Retire(channel.to_owned())).map(drop)
    }

    /// Switches it off, which it remembers first: no channel that it lists will ever be cleared by
    /// it, and numbers that are raised from now on are written nowhere.
    pub fn switch_off(&self, reason: &str) -> Result<()> {
        if reason.trim().is_empty() {
            return Err(Error::input("switching the witness off needs a reason"));
        }
        let off = WitnessOff { reason: reason.to_owned(), since: self.env.now() };
        self.submit(Change::Off(off)).map(drop)
    }

    /// Switches it on again. What was in it stays uncleared by it; channels that are raised for the
    /// first time from now on are remembered without a gap.
    pub fn switch_on(&self) -> Result<()> {
        self.submit(Change::On).map(drop)
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock()
    }
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Witness")
            .field("node", &self.node)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// The record before the first one.
fn absent(node: &NodeName) -> WitnessRecord {
    WitnessRecord {
        version: 1,
        node: node.clone(),
        number: 0,
        epoch: 0,
        holder: String::new(),
        since: Time::default(),
        put: PutId::from_bytes([0; 16]),
        channels: Default::default(),
        counters: Default::default(),
        off: None,
    }
}

/// Whether an error may be gone at the next try.
fn passes(kind: Kind) -> bool {
    matches!(kind, Kind::Unavailable | Kind::Conflict | Kind::NotFound | Kind::Interrupted)
}

fn pause_before(attempt: u32) -> Duration {
    RETRY_PAUSE * 4u32.saturating_pow(attempt.min(PUT_TRIES_MAX).saturating_sub(1))
}

/// What keeps us from the witness: nothing leaves until it is back.
fn unreachable_witness(node: &NodeName, error: Error) -> Error {
    if !passes(error.kind()) {
        return error;
    }
    Error::unavailable(format!("the witness can't be reached: {}", error.summary()))
        .with_entry(node.to_string())
        .with_remedy(
            "nothing is signed or revoked until it is back; switching it off is recorded in it",
        )
        .with_source(error)
}

#[cfg(test)]
mod tests;
