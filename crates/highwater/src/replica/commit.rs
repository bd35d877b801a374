//! Commits of many threads in one transaction: whoever comes first writes for all that wait, and a thread of
//! its own for those who wait in no thread.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use futures::channel::oneshot;

use super::book::{Book, Queued, Way, seq_op};
use super::class::{Class, Classes};
use super::local::{Op, Space};
use super::write::Write;
use crate::env::Env;
use crate::error::{Error, Result};

/// Commits of one local store, in one order.
pub(super) struct Committer {
    book: Book,
    classes: Classes,
    env: Env,
    line: Mutex<Line>,
    /// Something was submitted that nobody waits for in a thread.
    submitted: Condvar,
    /// Writes in the queue, and their bytes. They are counted before anybody can send them.
    waiting: Mutex<(u64, u64)>,
    /// Keys whose last write waits for the server before it is seen here, and its number.
    unseen: Mutex<HashMap<Vec<u8>, u64>>,
}

#[derive(Default)]
struct Line {
    waiting: Vec<Asked>,
    /// Somebody writes for others.
    busy: bool,
    /// The last number given.
    seq: u64,
    /// Nothing is taken any more.
    closed: bool,
}

/// A transaction that waits for its turn.
struct Asked {
    writes: Vec<Write>,
    lazy: bool,
    by: By,
}

/// Who is told.
enum By {
    /// A thread, which waits there.
    Thread(Arc<Slot>),
    /// Nobody, perhaps: who submitted it may have gone.
    Future(oneshot::Sender<Outcome>),
}

/// Where one thread waits: for its outcome, or for its turn to write.
#[derive(Default)]
struct Slot {
    state: Mutex<(bool, Option<Outcome>)>,
    moved: Condvar,
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, (bool, Option<Outcome>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Outcome> {
        self.state().1.take()
    }

    fn done(&self, outcome: Outcome) {
        self.state().1 = Some(outcome);
        self.moved.notify_one();
    }

    fn lead(&self) {
        self.state().0 = true;
        self.moved.notify_one();
    }

    /// The outcome, or nothing where it may be this one's turn.
    fn wait(&self) -> Option<Outcome> {
        let waits = |state: &mut (bool, Option<Outcome>)| !state.0 && state.1.is_none();
        let waited = self.moved.wait_while(self.state(), waits);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.0 = false;
        state.1.take()
    }
}

/// What each writer of a common transaction learns.
pub(super) type Outcome = Result<Committed>;

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
        let (submitted, unseen) = (Condvar::new(), Mutex::default());
        Ok(Committer { book, classes, env, line, submitted, waiting, unseen })
    }

    /// Writes that wait for the server, and their bytes.
    pub(super) fn waiting(&self) -> (u64, u64) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This many no longer wait.
    pub(super) fn sent(&self, writes: u64, bytes: u64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting = (waiting.0.saturating_sub(writes), waiting.1.saturating_sub(bytes));
    }

    /// Writes up to this one are seen here; how many keys that waited for it.
    pub(super) fn settle(&self, seq: u64) -> u64 {
        let mut unseen = self.unseen();
        let before = unseen.len();
        unseen.retain(|_, last| *last > seq);
        (before - unseen.len()) as u64
    }

    /// Whether a write waits for the server that is not seen here before.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.unseen().is_empty()
    }

    fn unseen(&self) -> MutexGuard<'_, HashMap<Vec<u8>, u64>> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Commits writes as one transaction, perhaps together with those of others. Lazy ones are never
    /// waited for, whatever their class.
    pub(super) fn commit(&self, writes: Vec<Write>, lazy: bool) -> Result<Committed> {
        let slot = Arc::<Slot>::default();
        let mut line = self.line();
        line.waiting.push(Asked { writes, lazy, by: By::Thread(Arc::clone(&slot)) });
        loop {
            if let Some(outcome) = slot.take() {
                return outcome;
            }
            if !line.busy {
                line = self.write_for_all(line);
                continue;
            }
            drop(line);
            if let Some(outcome) = slot.wait() {
                return outcome;
            }
            line = self.line();
        }
    }

    /// The same, whose place among all writes is fixed when this returns; the outcome follows, where
    /// [`Committer::lead`] runs.
    pub(super) fn submit(&self, writes: Vec<Write>, lazy: bool) -> oneshot::Receiver<Outcome> {
        let (tell, told) = oneshot::channel();
        let mut line = self.line();
        if line.closed {
            let ended = Error::unavailable("the replica has ended");
            // Who asked may have gone.
            let _ = tell.send(Err(ended));
            return told;
        }
        line.waiting.push(Asked { writes, lazy, by: By::Future(tell) });
        self.submitted.notify_one();
        told
    }

    /// Commits what was submitted, and calls `after` each time, until it is closed.
    pub(super) fn lead(&self, after: &dyn Fn()) {
        let idle = |line: &mut Line| line.busy || (line.waiting.is_empty() && !line.closed);
        let mut line = self.line();
        loop {
            line = self.submitted.wait_while(line, idle).unwrap_or_else(PoisonError::into_inner);
            if line.waiting.is_empty() {
                return;
            }
            line = self.write_for_all(line);
            drop(line);
            after();
            line = self.line();
        }
    }

    /// Takes nothing that is submitted from here on; [`Committer::lead`] ends.
    pub(super) fn close(&self) {
        self.line().closed = true;
        self.submitted.notify_all();
    }

    fn write_for_all<'a>(&'a self, mut line: MutexGuard<'a, Line>) -> MutexGuard<'a, Line> {
        line.busy = true;
        let waiting = std::mem::take(&mut line.waiting);
        let mut seq = line.seq;
        drop(line);
        let (mut ops, mut outcomes) = (Vec::new(), Vec::new());
        for Asked { writes, lazy, by } in waiting {
            let committed = self.ops(writes, lazy, &mut seq, &mut ops);
            self.wait_more(&committed);
            outcomes.push((by, committed));
        }
        ops.push(seq_op(seq));
        let written = self.book.local.write(&ops);
        let mut line = self.line();
        // A number is never given twice, whatever became of its transaction.
        line.seq = seq;
        if written.is_err() {
            outcomes.iter().for_each(|(_, committed)| self.sent(committed.writes, committed.bytes));
        }
        for (by, committed) in outcomes {
            let outcome = written.clone().map(|()| committed);
            match by {
                By::Thread(slot) => slot.done(outcome),
                // Who asked may have gone; the write stays.
                By::Future(tell) => drop(tell.send(outcome)),
            }
        }
        line.busy = false;
        // One of those who came meanwhile writes for all of them.
        match line.waiting.first().map(|asked| &asked.by) {
            Some(By::Thread(slot)) => slot.lead(),
            Some(By::Future(_)) => self.submitted.notify_one(),
            None => {}
        }
        line
    }

    fn ops(&self, writes: Vec<Write>, lazy: bool, seq: &mut u64, ops: &mut Vec<Op>) -> Committed {
        let mut committed = Committed::default();
        let mut unseen = self.unseen();
        let class = |write: &Write| self.classes.of(&write.key);
        // Writes of one transaction become visible together: where one of them waits for the server, all
        // do. And what is written over a value that still waits for it must not be seen before that one.
        let asks = !lazy && writes.iter().any(|write| class(write) == Class::RemoteFirst);
        let remote_first = asks || writes.iter().any(|write| unseen.contains_key(&write.key));
        committed.remote_first = remote_first && !lazy;
        let is_sent = |write: &&Write| class(write) != Class::LocalOnly;
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
            if remote_first {
                unseen.insert(queued.key, *seq);
            } else {
                ops.push(Op { space: Space::Data, key: queued.key, value: queued.value });
            }
        }
        committed
    }
}
