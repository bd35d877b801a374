//! A server in memory that follows the protocol's rules, for tests and simulations.

use std::collections::{BTreeMap, VecDeque};

use highwater::{Error, Result};
use parking_lot::Mutex;

use super::{Listed, Put, Remote, RemotePut};

/// Names of one page.
const PAGE: usize = 100;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteFault {
    /// The request is lost: nothing happens.
    Request,
    /// The answer is lost: it happens, and nobody is told.
    Answer,
    /// A put is delayed until this many other calls were made; for its caller it is lost.
    Late(u32),
}

/// A server that is gone with its process.
#[derive(Default)]
pub struct MemoryRemote {
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    values: BTreeMap<String, (i64, Vec<u8>)>,
    faults: VecDeque<Option<RemoteFault>>,
    late: Vec<(u32, RemotePut)>,
    puts: u64,
}

impl State {
    /// Puts that were held up long enough happen now.
    fn arrive(&mut self) {
        for (calls, put) in std::mem::take(&mut self.late) {
            match calls.checked_sub(1) {
                Some(calls) => self.late.push((calls, put)),
                None => drop(self.put(&put)),
            }
        }
    }

    fn put(&mut self, put: &RemotePut) -> Put {
        let mut values = self.values.clone();
        for item in &put.items {
            let there = values.get(&item.key).map(|(version, _)| *version);
            let version = match (item.version, there) {
                (-1, _) | (0, None) => 1,
                (version, Some(there)) if version > 0 && version == there => version + 1,
                _ => return Put::Conflict,
            };
            values.insert(item.key.clone(), (version, item.value.clone()));
        }
        for (key, version) in &put.deletes {
            match values.get(key) {
                Some((there, _)) if *version == -1 || there == version => values.remove(key),
                _ => return Put::Conflict,
            };
        }
        self.values = values;
        self.puts += 1;
        Put::Landed
    }
}

impl MemoryRemote {
    /// What goes wrong with the next calls, one after the other; none: nothing.
    pub fn fail(&self, faults: impl IntoIterator<Item = Option<RemoteFault>>) {
        self.state.lock().faults.extend(faults);
    }

    /// Nothing goes wrong any more.
    pub fn set_calm(&self) {
        let mut state = self.state.lock();
        state.faults.clear();
        state.late.clear();
    }

    /// Puts that have landed.
    pub fn puts(&self) -> u64 {
        self.state.lock().puts
    }

    /// All that it holds.
    pub fn values(&self) -> BTreeMap<String, (i64, Vec<u8>)> {
        self.state.lock().values.clone()
    }

    /// Holds these instead: a server that was rolled back, wiped or tampered with.
    pub fn set_values(&self, values: BTreeMap<String, (i64, Vec<u8>)>) {
        self.state.lock().values = values;
    }

    /// Runs a call, or what is left of it.
    fn call<T>(
        &self,
        put: Option<&RemotePut>,
        work: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.state.lock();
        state.arrive();
        let lost = |what: &str| Err(Error::unavailable(format!("{what} was lost")));
        match state.faults.pop_front().flatten() {
            None => work(&mut state),
            Some(RemoteFault::Late(calls)) => {
                state.late.extend(put.map(|put| (calls, put.clone())));
                lost("the request")
            }
            Some(RemoteFault::Request) => lost("the request"),
            Some(RemoteFault::Answer) => {
                work(&mut state)?;
                lost("the answer")
            }
        }
    }
}

impl Remote for MemoryRemote {
    fn get(&self, key: &str) -> Result<Option<(i64, Vec<u8>)>> {
        self.call(None, |state| Ok(state.values.get(key).cloned()))
    }

    fn put(&self, put: &RemotePut) -> Result<Put> {
        self.call(Some(put), |state| Ok(state.put(put)))
    }

    fn list(&self, prefix: &str, page: Option<&str>) -> Result<Listed> {
        self.call(None, |state| {
            let names = state.values.iter().filter(|(key, _)| key.starts_with(prefix));
            let from = names.filter(|(key, _)| page.is_none_or(|page| key.as_str() > page));
            let mut keys: Vec<(String, i64)> =
                from.take(PAGE + 1).map(|(key, (version, _))| (key.clone(), *version)).collect();
            let more = keys.len() > PAGE;
            keys.truncate(PAGE);
            let next = keys.last().filter(|_| more).map(|(key, _)| key.clone());
            Ok(Listed { keys, next })
        })
    }
}
