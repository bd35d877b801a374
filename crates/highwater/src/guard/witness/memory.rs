//! A witness in memory, for simulations and tests: shared by its clones, with faults on demand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};

use super::WitnessStore;

/// How many of the newest records are kept.
const RECORDS_KEPT: usize = 8;

/// What goes wrong with one put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutFault {
    /// Nothing arrives.
    Lost,
    /// It arrives; the answer does not.
    Unacknowledged,
    /// The answer does not arrive; the record does, at [`MemoryWitness::deliver`].
    Delayed,
}

/// A witness in memory. Clones share it, as the copies of a node share theirs.
#[derive(Clone, Debug, Default)]
pub struct MemoryWitness(Arc<Mutex<Shelf>>);

#[derive(Debug, Default)]
struct Shelf {
    records: BTreeMap<u64, Vec<u8>>,
    faults: VecDeque<PutFault>,
    delayed: Vec<(u64, Vec<u8>)>,
    unreachable: bool,
    puts: u64,
}

impl MemoryWitness {
    /// An empty one.
    pub fn new() -> MemoryWitness {
        MemoryWitness::default()
    }

    /// Lets the next puts fail, one after the other.
    pub fn fail(&self, faults: impl IntoIterator<Item = PutFault>) {
        self.0.lock().faults.extend(faults);
    }

    /// Lets every call fail, until it is called again with `false`.
    pub fn cut_off(&self, unreachable: bool) {
        self.0.lock().unreachable = unreachable;
    }

    /// Lets delayed records arrive.
    pub fn deliver(&self) {
        let mut shelf = self.0.lock();
        for (number, document) in std::mem::take(&mut shelf.delayed) {
            shelf.put_new(number, document);
        }
    }

    /// Goes back to `number` records, as a witness that forgets.
    pub fn forget_above(&self, number: u64) {
        self.0.lock().records.retain(|&stands, _| stands <= number);
    }

    /// How many puts have arrived or failed.
    pub fn puts(&self) -> u64 {
        self.0.lock().puts
    }
}

impl Shelf {
    fn put_new(&mut self, number: u64, document: Vec<u8>) -> bool {
        if self.records.keys().next_back().is_some_and(|&newest| newest >= number) {
            return false;
        }
        self.records.insert(number, document);
        while self.records.len() > RECORDS_KEPT {
            self.records.pop_first();
        }
        true
    }

    fn reach(&self) -> Result<()> {
        if self.unreachable { Err(cut_off()) } else { Ok(()) }
    }
}

impl WitnessStore for MemoryWitness {
    fn newest(&self) -> Result<Option<(u64, Vec<u8>)>> {
        let shelf = self.0.lock();
        shelf.reach()?;
        Ok(shelf.records.last_key_value().map(|(number, document)| (*number, document.clone())))
    }

    fn put_new(&self, number: u64, document: &[u8]) -> Result<bool> {
        let mut shelf = self.0.lock();
        shelf.puts += 1;
        shelf.reach()?;
        match shelf.faults.pop_front() {
            None => return Ok(shelf.put_new(number, document.to_vec())),
            Some(PutFault::Lost) => {}
            Some(PutFault::Unacknowledged) => {
                shelf.put_new(number, document.to_vec());
            }
            Some(PutFault::Delayed) => shelf.delayed.push((number, document.to_vec())),
        }
        Err(cut_off())
    }
}

fn cut_off() -> Error {
    Error::unavailable("no answer from the witness in memory")
}
