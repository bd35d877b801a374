//! A server that remembers what it held after each put.

use std::collections::BTreeMap;
use std::sync::Mutex;

use highwater::Result;
use highwater_replica::Remote;
use highwater_replica::remote::{Listed, MemoryRemote, Put, RemotePut, Versioned};

/// All that a server holds.
pub(crate) type State = BTreeMap<String, Versioned>;

/// A server, and what it held.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) server: MemoryRemote,
    states: Mutex<(u64, Vec<State>)>,
}

impl Recorder {
    pub(crate) fn new(state: State) -> Recorder {
        let recorder = Recorder::default();
        recorder.server.set_values(state);
        recorder
    }

    /// What it held after each put.
    pub(crate) fn states(&self) -> Vec<State> {
        self.states.lock().unwrap().1.clone()
    }

    fn look(&self) {
        let mut states = self.states.lock().unwrap();
        // A put that was held up may land with any call.
        let puts = self.server.puts();
        if states.0 != puts {
            states.0 = puts;
            states.1.push(self.server.values());
        }
    }
}

impl Remote for Recorder {
    fn get(&self, key: &str) -> Result<Option<Versioned>> {
        let found = self.server.get(key);
        self.look();
        found
    }

    fn put(&self, put: &RemotePut) -> Result<Put> {
        let outcome = self.server.put(put);
        self.look();
        outcome
    }

    fn list(&self, prefix: &str, page: Option<&str>) -> Result<Listed> {
        let listed = self.server.list(prefix, page);
        self.look();
        listed
    }
}
