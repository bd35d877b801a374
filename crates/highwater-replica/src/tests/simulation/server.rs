//! The server of a simulation, and the lines to it: requests and answers that are lost, puts that come
//! late, a machine that is cut off. What each put leaves is read as a restore would read it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater::{Error, Result};
use parking_lot::Mutex;

use super::Values;
use crate::ReplicaKeys;
use crate::digest::Sum;
use crate::head::{HEADS, Placed};
use crate::keys::VALUES;
use crate::remote::{Listed, MemoryRemote, Put, RemoteFault, RemotePut, Versioned};
use crate::{HeadState, Remote};

/// What a put has left on the server.
pub(super) struct Landing {
    pub(super) placed: Placed,
    pub(super) values: Values,
}

/// Lets go of what is on its way, and of nothing else.
pub(super) struct Server {
    pub(super) memory: MemoryRemote,
    keys: Arc<ReplicaKeys>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    late: Vec<(u32, RemotePut)>,
    landings: Vec<Landing>,
}

impl Server {
    pub(super) fn new(keys: Arc<ReplicaKeys>) -> Server {
        Server { memory: MemoryRemote::default(), keys, state: Mutex::default() }
    }

    /// Puts that have landed since this was asked for the last time, in order.
    pub(super) fn landings(&self) -> Vec<Landing> {
        std::mem::take(&mut self.state.lock().landings)
    }

    /// Whoever waits for it is cut off.
    pub(super) fn drop_late(&self) {
        self.state.lock().late.clear();
    }

    /// Puts that were held up long enough come now.
    fn arrive(&self) {
        let waiting = std::mem::take(&mut self.state.lock().late);
        for (calls, put) in waiting {
            match calls.checked_sub(1) {
                Some(calls) => self.state.lock().late.push((calls, put)),
                None => drop(self.put(&put)),
            }
        }
    }

    fn put(&self, put: &RemotePut) -> Result<Put> {
        let done = self.memory.put(put)?;
        if done == Put::Landed {
            let landing = self.read();
            self.state.lock().landings.push(landing);
        }
        Ok(done)
    }

    /// All that is there, opened; that it is one instant is what the head's digest says.
    fn read(&self) -> Landing {
        let all = self.memory.values();
        let mut heads = all.iter().filter(|(name, _)| name.starts_with(HEADS));
        let (name, (version, sealed)) = heads.next().expect("a put leaves a head");
        assert!(heads.next().is_none(), "two heads");
        let placed = Placed::open(&self.keys, name, *version, sealed).unwrap();
        let (mut values, mut sum) = (Values::new(), Sum::default());
        for (name, (_, sealed)) in all.iter().filter(|(name, _)| name.starts_with(VALUES)) {
            let opened = self.keys.open(name, sealed).unwrap();
            let filling = placed.head.state == HeadState::Filling;
            assert!(filling || opened.seq <= placed.head.seq, "a value is newer than its head");
            sum.add(opened.tag);
            values.insert(opened.key, opened.value);
        }
        if placed.head.state != HeadState::Filling {
            assert_eq!(sum, placed.head.sum, "the head's digest is not that of the values");
        }
        Landing { placed, values }
    }
}

/// How one machine reaches the server.
pub(super) struct Line {
    server: Arc<Server>,
    weather: Mutex<VecDeque<Option<RemoteFault>>>,
    cut: AtomicBool,
}

impl Line {
    pub(super) fn to(server: &Arc<Server>) -> Line {
        Line { server: Arc::clone(server), weather: Mutex::default(), cut: AtomicBool::new(false) }
    }

    /// What goes wrong with the next calls.
    pub(super) fn fail(&self, faults: impl IntoIterator<Item = Option<RemoteFault>>) {
        self.weather.lock().extend(faults);
    }

    /// Nothing goes wrong any more.
    pub(super) fn calm(&self) {
        self.weather.lock().clear();
        self.cut.store(false, Ordering::SeqCst);
    }

    /// Cuts it, or mends it.
    pub(super) fn toggle(&self) -> bool {
        !self.cut.fetch_xor(true, Ordering::SeqCst)
    }

    fn call<T>(&self, put: Option<&RemotePut>, work: impl Fn() -> Result<T>) -> Result<T> {
        let lost = |what: &str| Err(Error::unavailable(format!("{what} was lost")));
        if self.cut.load(Ordering::SeqCst) {
            return lost("the line");
        }
        self.server.arrive();
        let fault = self.weather.lock().pop_front();
        match fault.flatten() {
            None => work(),
            Some(RemoteFault::Request) => lost("the request"),
            Some(RemoteFault::Late(calls)) => {
                self.server.state.lock().late.extend(put.map(|put| (calls, put.clone())));
                lost("the request")
            }
            Some(RemoteFault::Answer) => {
                work()?;
                lost("the answer")
            }
        }
    }
}

impl Remote for Line {
    fn get(&self, key: &str) -> Result<Option<Versioned>> {
        self.call(None, || self.server.memory.get(key))
    }

    fn put(&self, put: &RemotePut) -> Result<Put> {
        self.call(Some(put), || self.server.put(put))
    }

    fn list(&self, prefix: &str, page: Option<&str>) -> Result<Listed> {
        self.call(None, || self.server.memory.list(prefix, page))
    }
}
