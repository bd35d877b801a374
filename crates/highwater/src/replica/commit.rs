//! Commits of many threads in one transaction: whoever comes first writes for all that wait.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::book::{Book, Queued, Way, seq_op};
use super::class::{Class, Classes};
use super::local::{Op, Space};
use super::store::Write;
use crate::env::Env;
use crate::error::{Error, Result};

/// Commits of one local store, in one order.
pub(super) struct Committer {
    book: Book,
    classes: Classes,
    env: Env,
    line: Mutex<Line>,
    moved: Condvar,
    /// Writes in the queue, and their bytes. They are counted before anybody can send them.
    waiting: Mutex<(u64, u64)>,
    /// Keys that a write which waits for the server will set here, and the number of the last such write.
    unsettled: Mutex<BTreeMap<Vec<u8>, u64>>,
}

#[derive(Default)]
struct Line {
    /// What waits, by tickets.
    waiting: Vec<(u64, Vec<Write>)>,
    next: u64,
    /// Somebody writes for others.
    busy: bool,
    /// The last number given.
    seq: u64,
    done: Vec<(u64, Outcome)>,
}

type Outcome = Result<Committed, Told>;

/// Why a transaction of several failed, for each of them.
type Told = (crate::error::Kind, String);

/// What was committed for one caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Committed {
    /// The last of its writes that is replicated; 0 where none is.
    pub(super) seq: u64,
    /// Whether it must wait until the server has that.
    pub(super) remote_first: bool,
    /// Writes, and their bytes, that went into the queue.
    pub(super) writes: u64,
    pub(super) bytes: u64,
}

impl Committer {
    /// `sent`: the last write that the server has.
    pub(super) fn new(book: Book, classes: Classes, env: Env, sent: u64) -> Result<Committer> {
        let (last, writes, bytes) = book.waiting()?;
        // Numbers of writes that were undone are given again: none of them is anywhere.
        let line = Mutex::new(Line { seq: last.max(sent), ..Line::default() });
        let waiting = Mutex::new((writes, bytes));
        let (moved, unsettled) = (Condvar::new(), Mutex::default());
        Ok(Committer { book, classes, env, line, moved, waiting, unsettled })
    }

    /// Writes that wait for the server, and their bytes.
    pub(super) fn waiting(&self) -> (u64, u64) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many wait no longer.
    pub(super) fn sent(&self, writes: u64, bytes: u64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting = (waiting.0.saturating_sub(writes), waiting.1.saturating_sub(bytes));
    }

    /// What waited for the server up to this write is in the node's store now.
    pub(super) fn settle(&self, landed: u64) {
        let mut unsettled = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        unsettled.retain(|_, seq| *seq > landed);
    }

    fn wait_more(&self, committed: &Committed) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting = (waiting.0 + committed.writes, waiting.1 + committed.bytes);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last number given.
    pub(super) fn seq(&self) -> u64 {
        self.line().seq
    }

    /// Commits writes as one transaction, perhaps together with those of others.
    pub(super) fn commit(&self, writes: Vec<Write>) -> Result<Committed> {
        let mut line = self.line();
        let ticket = line.next;
        line.next += 1;
        line.waiting.push((ticket, writes));
        loop {
            if let Some(place) = line.done.iter().position(|(done, _)| *done == ticket) {
                let (_, outcome) = line.done.swap_remove(place);
                return outcome.map_err(|(kind, text)| Error::new(kind, text));
            }
            if !line.busy {
                line = self.write_for_all(line);
                continue;
            }
            line = self.moved.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write_for_all<'a>(&'a self, mut line: MutexGuard<'a, Line>) -> MutexGuard<'a, Line> {
        line.busy = true;
        let waiting = std::mem::take(&mut line.waiting);
        let mut seq = line.seq;
        drop(line);
        let (mut ops, mut outcomes) = (Vec::new(), Vec::new());
        for (ticket, writes) in waiting {
            let committed = self.ops(writes, &mut seq, &mut ops);
            self.wait_more(&committed);
            outcomes.push((ticket, committed));
        }
        ops.push(seq_op(seq));
        let written = self.book.local.write(&ops);
        let mut line = self.line();
        // A number is never given twice, whatever became of its transaction.
        line.seq = seq;
        let told = written.err().map(|error| (error.kind(), error.to_string()));
        if told.is_some() {
            outcomes.iter().for_each(|(_, committed)| self.sent(committed.writes, committed.bytes));
        }
        line.done.extend(
            outcomes
                .into_iter()
                .map(|(ticket, committed)| (ticket, told.clone().map_or(Ok(committed), Err))),
        );
        line.busy = false;
        self.moved.notify_all();
        line
    }

    fn ops(&self, writes: Vec<Write>, seq: &mut u64, ops: &mut Vec<Op>) -> Committed {
        let mut committed = Committed::default();
        // Writes of one transaction become visible together: where one of them waits for the server, all do.
        // And whoever writes a key that such a write will set comes after it: here it would be overtaken.
        let mut unsettled = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |write: &Write| match self.classes.of(&write.key) {
            Class::RemoteFirst => true,
            Class::LocalFirst => unsettled.contains_key(&write.key),
            Class::LocalOnly => false,
        };
        let remote_first = writes.iter().any(waits);
        committed.remote_first = remote_first;
        let is_sent = |write: &&Write| self.classes.of(&write.key) != Class::LocalOnly;
        let replicated = writes.iter().filter(is_sent).count() as u64;
        for Write { key, value } in writes {
            if self.classes.of(&key) == Class::LocalOnly {
                ops.push(Op { space: Space::Data, key, value });
                continue;
            }
            *seq += 1;
            let way = if remote_first { Way::RemoteFirst } else { Way::LocalFirst };
            committed.seq = *seq;
            committed.writes += 1;
            let more = committed.writes < replicated;
            let queued = Queued { seq: *seq, way, at: self.env.now(), key, value, more };
            committed.bytes += queued.bytes();
            ops.push(queued.op());
            match remote_first {
                true => drop(unsettled.insert(queued.key, *seq)),
                false => ops.push(Op { space: Space::Data, key: queued.key, value: queued.value }),
            }
        }
        committed
    }
}
