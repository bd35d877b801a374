//! A machine: its disk, the process on it, and what the node on it was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use highwater::{Error, Result};

use super::server::Line;
use super::{LOCAL, Values};
use crate::local::{LocalStore, MemoryStore, Op, Rows, Space};
use crate::order::tests::assert_whole;
use crate::sender::Sender;
use crate::shared::Shared;

/// A store whose process dies after so many writes: before the last of them, or right after it.
pub(super) struct Mortal {
    pub(super) store: Arc<MemoryStore>,
    left: AtomicU64,
    /// Whether the write at which it dies happens.
    happens: bool,
    done: AtomicU64,
}

impl Mortal {
    pub(super) fn new(store: &Arc<MemoryStore>, writes: u64, happens: bool) -> Mortal {
        let left = AtomicU64::new(writes);
        Mortal { store: Arc::clone(store), left, happens, done: AtomicU64::new(0) }
    }

    /// Writes that have happened.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

impl LocalStore for Mortal {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.store.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Rows> {
        self.store.scan(space, prefix, after, limit)
    }

    fn write(&self, ops: &[Op]) -> Result<()> {
        let lives =
            self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let last = match lives {
            Err(_) => return Err(Error::bug("the process is dead")),
            Ok(left) => left == 1,
        };
        if !last || self.happens {
            self.store.write(ops)?;
            self.done.fetch_add(1, Ordering::SeqCst);
        }
        if last { Err(Error::bug("the process dies")) } else { Ok(()) }
    }
}

/// A node that runs.
pub(super) struct Process {
    pub(super) mortal: Arc<Mortal>,
    pub(super) sender: Sender,
    pub(super) shared: Shared,
}

/// One transaction, as the node made it.
pub(super) struct Transaction {
    /// It is the node's once the server has it.
    pub(super) waits: bool,
    /// And the node was told so.
    pub(super) told: bool,
    pub(super) writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// What a node has written since some instant, by the number of each transaction's last write.
#[derive(Default)]
pub(super) struct Log {
    pub(super) base: Values,
    /// The number of the write that the base ends with.
    pub(super) from: u64,
    pub(super) transactions: BTreeMap<u64, Transaction>,
}

impl Log {
    /// What all writes up to one give, in order; none where that one ends no transaction.
    pub(super) fn at(&self, seq: u64) -> Option<Values> {
        let ends = seq == self.from || self.transactions.contains_key(&seq);
        ends.then(|| self.replayed(|last, _| last <= seq))
    }

    /// What the node sees once it knows that the server has the write `landed`.
    pub(super) fn seen(&self, landed: u64) -> Values {
        self.replayed(|last, transaction| last <= landed || !transaction.waits)
    }

    fn replayed(&self, counts: impl Fn(u64, &Transaction) -> bool) -> Values {
        let mut values = self.base.clone();
        let counted = self.transactions.iter().filter(|(last, each)| counts(**last, each));
        for (key, value) in counted.flat_map(|(_, transaction)| &transaction.writes) {
            match value {
                Some(value) => values.insert(key.clone(), value.clone()),
                None => values.remove(key),
            };
        }
        values
    }

    /// Whether a key is written by a transaction that the server is not known to have.
    pub(super) fn waits_for(&self, key: &[u8], landed: u64) -> bool {
        let after = self.transactions.range(landed + 1..);
        let mut waiting = after.filter(|(_, transaction)| transaction.waits);
        waiting.any(|(_, transaction)| transaction.writes.iter().any(|(found, _)| found == key))
    }

    /// A process ended: nobody was told of what waited.
    pub(super) fn undo(&mut self, landed: u64) -> usize {
        let before = self.transactions.len();
        self.transactions.retain(|last, transaction| {
            let stays = *last <= landed || !transaction.waits;
            assert!(stays || !transaction.told, "an acknowledged write is undone");
            stays
        });
        before - self.transactions.len()
    }

    /// The node is told of all that the server has.
    pub(super) fn tell(&mut self, landed: u64) {
        self.transactions.range_mut(..=landed).for_each(|(_, transaction)| transaction.told = true);
    }

    /// Whether a store can be what these writes gave, where it is not known which of those that waited for
    /// the server have become the node's.
    pub(super) fn check_plausible(&self, found: &Values) {
        let written = self.transactions.values().flat_map(|transaction| &transaction.writes);
        let keys = self.base.keys().chain(written.map(|(key, _)| key)).chain(found.keys());
        for key in keys {
            let mut can_be = vec![self.base.get(key)];
            for transaction in self.transactions.values() {
                for (_, value) in transaction.writes.iter().filter(|(written, _)| written == key) {
                    if transaction.told || !transaction.waits {
                        can_be.clear();
                    }
                    can_be.push(value.as_ref());
                }
            }
            assert!(can_be.contains(&found.get(key)), "{key:?} is {:?}", found.get(key));
        }
    }
}

pub(super) struct Machine {
    pub(super) disk: Arc<MemoryStore>,
    pub(super) line: Arc<Line>,
    pub(super) process: Option<Process>,
    /// Somebody else has taken its place: its disk is of no use.
    pub(super) deposed: bool,
    /// It has begun to fill the server.
    pub(super) fills: bool,
    pub(super) log: Log,
    /// What is never sent.
    pub(super) own: Values,
}

impl Machine {
    pub(super) fn new(line: Line) -> Machine {
        Machine {
            disk: Arc::default(),
            line: Arc::new(line),
            process: None,
            deposed: false,
            fills: false,
            log: Log::default(),
            own: Values::new(),
        }
    }

    /// Another disk, with nothing on it.
    pub(super) fn replace(&mut self) {
        let line = Arc::clone(&self.line);
        (self.disk, self.process, self.deposed) = (Arc::default(), None, false);
        (self.log, self.own, self.line) = (Log::default(), Values::new(), line);
        self.fills = false;
    }

    /// The node's values that are replicated.
    pub(super) fn values(&self) -> Values {
        let mut values = super::data(&self.disk);
        values.retain(|key, _| !key.starts_with(LOCAL));
        values
    }

    /// Each key has its place in the order, where that is kept.
    pub(super) fn check_order(&self) {
        if self.process.as_ref().is_some_and(|process| process.sender.book.is_in_order()) {
            assert_whole(&self.disk);
        }
    }

    /// The store is what the node was told, and what it wrote since.
    pub(super) fn check(&self, landed: u64) {
        let mut expected = self.log.seen(landed);
        expected.extend(self.own.clone());
        assert_eq!(super::data(&self.disk), expected, "the store is not what the node wrote");
    }
}
